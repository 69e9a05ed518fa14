//! A bare vCPU with memory and nothing else, for tests of instructions, modes and faults.
//!
//! ```text
//!  00000 real-mode IVT, data     01000 GDT    02000 IDT    03000 TSS, I/O bitmap   06000 page tables
//!  10000 code                    18000 handlers: 16 bytes for each vector, one HLT
//!  20000 stack of level 0        28000 second stack of level 0   30000 stack of level 3   40000 to the end: free
//! ```
//! With `EMU_ACCEL=jit` in the environment, code is compiled ([`Machine::compile`]). Linear addresses are physical ones. A program ends with HLT at level 0; whatever is caught by a handler ends it too.

use emu_core::bus::Bus;
use emu_core::clock::{Clock, ClockMode};
use emu_core::cpu::control::{CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE};
use emu_core::cpu::model::CpuModel;
use emu_core::cpu::regs::RSP;
use emu_core::cpu::rflags::{IOPL, VM};
use emu_core::cpu::segment::{Seg, Segment, TableRegister};
use emu_core::exec::{RunExit, Vcpu};
use emu_core::irq::CpuPins;
use emu_core::mem::GuestMemory;
use emu_jit::Immediate;
use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;
use std::sync::Arc;

/// The global descriptor table, one page.
pub const GDT: u64 = 0x1000;
/// The interrupt descriptor table, one page: 512 legacy or 256 long gates.
pub const IDT: u64 = 0x2000;
/// The task-state segment of the task that runs first.
pub const TSS: u64 = 0x3000;
/// Its limit: room for an I/O bitmap of 1024 ports.
pub const TSS_LIMIT: u32 = 0x67 + 128 + 1;
/// Top-level page table; the others follow.
pub const PAGE_TABLES: u64 = 0x6000;
/// Where programs are assembled.
pub const CODE: u64 = 0x1_0000;
/// Handlers of [`Machine::catch_all`].
pub const HANDLERS: u64 = 0x1_8000;
/// Top of the stack of level 0 that programs start on.
pub const STACK0: u64 = 0x2_8000;
/// Top of the stack of level 0 in the TSS.
pub const INNER_STACK0: u64 = 0x3_0000;
/// Top of the stack of level 3.
pub const STACK3: u64 = 0x3_8000;
/// Free memory.
pub const FREE: u64 = 0x4_0000;

/// Flat 32-bit code of level 0.
pub const CODE32: u16 = 0x08;
/// Flat data of level 0.
pub const DATA: u16 = 0x10;
/// 64-bit code of level 0.
pub const CODE64: u16 = 0x18;
/// Flat 32-bit code of level 3 (add RPL 3).
pub const USER_CODE32: u16 = 0x20;
/// Flat data of level 3 (add RPL 3).
pub const USER_DATA: u16 = 0x28;
/// 64-bit code of level 3 (add RPL 3).
pub const USER_CODE64: u16 = 0x30;
/// 16-bit code of level 0, 64 KiB from 0.
pub const CODE16: u16 = 0x38;
/// 16-bit data of level 0, 64 KiB from 0.
pub const DATA16: u16 = 0x40;
/// The TSS; 16 bytes in IA-32e mode.
pub const TSS_SELECTOR: u16 = 0x48;
/// The first selector that tests may use for their own descriptors.
pub const FREE_SELECTOR: u16 = 0x80;

/// Granularity and size bits for [`descriptor`]: 4 KiB units, 32 bits.
pub const G_DB: u8 = 0xc;
/// Size bit for [`descriptor`]: 32 bits.
pub const DB: u8 = 4;
/// Size bit for [`descriptor`]: 64-bit code.
pub const L: u8 = 2;

/// A segment descriptor: `access` is its byte 5, `flags` the high nibble of byte 6.
pub fn descriptor(base: u32, limit: u32, access: u8, flags: u8) -> u64 {
    let (base, limit) = (u64::from(base), u64::from(limit));
    (limit & 0xffff)
        | (base & 0xff_ffff) << 16
        | u64::from(access) << 40
        | (limit >> 16 & 0xf) << 48
        | u64::from(flags) << 52
        | (base >> 24) << 56
}

/// A gate descriptor of `kind` (one of [`emu_core::cpu::segment::system`]), present, without the upper half of 64-bit gates.
pub fn gate(kind: u8, selector: u16, offset: u32, dpl: u8, count: u8) -> u64 {
    let offset = u64::from(offset);
    (offset & 0xffff)
        | u64::from(selector) << 16
        | u64::from(count) << 32
        | u64::from(0x80 | dpl << 5 | kind) << 40
        | (offset >> 16) << 48
}

/// See the module's documentation.
pub struct Machine {
    /// The processor.
    pub cpu: Vcpu,
    /// Its memory.
    pub memory: Arc<GuestMemory>,
}

impl Machine {
    /// A machine with `mib` MiB of RAM, in real mode at [`CODE`], with an empty bus and a clock that counts instructions.
    pub fn new(mib: u64) -> Machine {
        Machine::of_model(mib, CpuModel::max())
    }

    /// As [`Machine::new`], with a processor of `model`.
    pub fn of_model(mib: u64, model: CpuModel) -> Machine {
        let memory = Arc::new(GuestMemory::new(mib << 20, 0).expect("the host gives a few MiB"));
        let clock = Clock::new(ClockMode::Icount { shift: 0 });
        let bus = Arc::new(Bus::new(memory.clone(), Arc::new(CpuPins::default()), clock));
        let mut machine = Machine { cpu: Vcpu::new(Arc::new(model), bus), memory };
        if std::env::var_os("EMU_ACCEL").is_some_and(|name| name == "jit") {
            machine.compile();
        }
        machine.real();
        machine
    }

    /// From now on, code of 32 and 64 bits is compiled before it runs for the first time, whatever it consists of.
    ///
    /// # Panics
    /// The host has no compiler.
    pub fn compile(&mut self) {
        let compiler = Immediate::of_everything(1).expect("this host has a compiler");
        self.cpu.set_compiler(Some(Box::new(compiler)));
    }

    /// A machine in flat 32-bit protected mode at level 0, without paging; unhandled vectors end the run.
    pub fn new_protected() -> Machine {
        let mut machine = Machine::new(2);
        machine.protected();
        machine.catch_all();
        machine
    }

    /// A machine in 64-bit mode at level 0, the first GiB mapped one to one for all levels; unhandled vectors end the run.
    pub fn new_long() -> Machine {
        let mut machine = Machine::new(2);
        machine.long();
        machine.catch_all();
        machine
    }

    /// Assembles `program` at the linear address `at` and returns the address behind it.
    pub fn assemble(
        &mut self,
        bits: u32,
        at: u64,
        program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) -> u64 {
        let mut a = CodeAssembler::new(bits).expect("16, 32 or 64 bits");
        program(&mut a).expect("operands that exist");
        let bytes = a.assemble(at).expect("a program that can be encoded");
        self.write(at, &bytes);
        at + bytes.len() as u64
    }

    /// Real mode at 1000:0000, which is [`CODE`], all data segments 0, stack at 2000:8000.
    pub fn real(&mut self) {
        let s = &mut self.cpu.state;
        s.cr0 &= !CR0_PE;
        s.set_segment(Seg::Cs, Segment::real((CODE >> 4) as u16));
        for seg in [Seg::Ds, Seg::Es, Seg::Fs, Seg::Gs] {
            s.set_segment(seg, Segment::real(0));
        }
        s.set_segment(Seg::Ss, Segment::real(((STACK0 - 0x8000) >> 4) as u16));
        s.regs.set_gpr(RSP, 0x8000);
        s.rip = 0;
        s.idtr = TableRegister { base: 0, limit: 0x3ff };
        self.cpu.mode_changed();
    }

    /// Flat 32-bit protected mode at level 0, interrupts off.
    pub fn protected(&mut self) {
        self.tables();
        let s = &mut self.cpu.state;
        s.cr0 |= CR0_PE;
        s.cpl = 0;
        s.idtr = TableRegister { base: IDT, limit: 0x7ff };
        s.tr = Segment::from_descriptor(TSS_SELECTOR, descriptor(TSS as u32, TSS_LIMIT, 0x8b, 0));
        s.ldtr = Segment::null(0);
        self.set_segments(CODE32, DATA);
        self.cpu.state.rip = CODE;
        self.cpu.state.regs.set_gpr(RSP, STACK0);
        self.write32(TSS + 4, INNER_STACK0 as u32);
        self.write16(TSS + 8, DATA);
        self.write16(TSS + 0x66, 0x68);
        self.write(TSS + 0x68, &[0xff; 129]);
        self.cpu.mode_changed();
    }

    /// 64-bit mode at level 0, interrupts off.
    pub fn long(&mut self) {
        self.protected();
        self.write64(PAGE_TABLES, PAGE_TABLES + 0x1000 + 7);
        self.write64(PAGE_TABLES + 0x1000, PAGE_TABLES + 0x2000 + 7);
        for n in 0..512 {
            self.write64(PAGE_TABLES + 0x2000 + 8 * n, n << 21 | 0x87);
        }
        self.write64(TSS + 4, INNER_STACK0);
        let s = &mut self.cpu.state;
        s.cr3 = PAGE_TABLES;
        s.cr4 |= CR4_PAE;
        s.msrs.efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE;
        s.cr0 |= CR0_PG;
        s.idtr = TableRegister { base: IDT, limit: 0xfff };
        self.set_segments(CODE64, DATA);
        self.cpu.flush_tlb(false);
        self.cpu.mode_changed();
    }

    /// Goes on in level 3 at [`CODE`] with the stack [`STACK3`], in code of `bits` 32 or 64.
    pub fn user(&mut self, bits: u32) {
        let code = if bits == 64 { USER_CODE64 } else { USER_CODE32 };
        self.cpu.state.cpl = 3;
        self.set_segments(code | 3, USER_DATA | 3);
        self.cpu.state.regs.set_gpr(RSP, STACK3);
        self.cpu.mode_changed();
    }

    /// Goes on in virtual-8086 mode at 1000:0000 with stack 3000:8000, IOPL `iopl`. Protected mode must be set up.
    pub fn v86(&mut self, iopl: u64) {
        let s = &mut self.cpu.state;
        s.system_flags = (s.system_flags & !IOPL) | VM | iopl << 12;
        s.cpl = 3;
        for (seg, selector) in Seg::ALL.into_iter().zip([0, CODE >> 4, (STACK3 - 0x8000) >> 4, 0, 0, 0]) {
            let mut segment = Segment::real(selector as u16);
            segment.attributes |= 3 << 5;
            s.set_segment(seg, segment);
        }
        s.regs.set_gpr(RSP, 0x8000);
        s.rip = 0;
        self.cpu.mode_changed();
    }

    fn tables(&mut self) {
        self.cpu.state.gdtr = TableRegister { base: GDT, limit: 0xfff };
        for (selector, raw) in [
            (CODE32, descriptor(0, 0xf_ffff, 0x9b, G_DB)),
            (DATA, descriptor(0, 0xf_ffff, 0x93, G_DB)),
            (CODE64, descriptor(0, 0xf_ffff, 0x9b, 0x8 | L)),
            (USER_CODE32, descriptor(0, 0xf_ffff, 0xfb, G_DB)),
            (USER_DATA, descriptor(0, 0xf_ffff, 0xf3, G_DB)),
            (USER_CODE64, descriptor(0, 0xf_ffff, 0xfb, 0x8 | L)),
            (CODE16, descriptor(0, 0xffff, 0x9b, 0)),
            (DATA16, descriptor(0, 0xffff, 0x93, 0)),
            (TSS_SELECTOR, descriptor(TSS as u32, TSS_LIMIT, 0x8b, 0)),
        ] {
            self.set_descriptor(selector, raw);
        }
    }

    fn set_segments(&mut self, code: u16, data: u16) {
        for seg in Seg::ALL {
            let selector = if seg == Seg::Cs { code } else { data };
            let raw = self.read64(GDT + u64::from(selector & !7));
            self.cpu.state.set_segment(seg, Segment::from_descriptor(selector, raw));
        }
    }

    /// Writes a GDT entry.
    pub fn set_descriptor(&mut self, selector: u16, raw: u64) {
        self.write64(GDT + u64::from(selector & !7), raw);
    }

    /// Writes a protected-mode or, in IA-32e mode, the low half of a 64-bit IDT entry.
    pub fn set_gate(&mut self, vector: u8, raw: u64) {
        let size = if self.cpu.state.long_mode() { 16 } else { 8 };
        self.write64(IDT + size * u64::from(vector), raw);
    }

    /// Interrupt gates of DPL 3 for all vectors, each to a HLT that [`Machine::caught`] recognises. Real mode: IVT entries.
    pub fn catch_all(&mut self) {
        for vector in 0..=255u8 {
            let handler = HANDLERS + 16 * u64::from(vector);
            self.write(handler, &[0xf4]);
            if !self.cpu.state.protected() {
                let far_pointer = ((HANDLERS as u32 >> 4) << 16) | (u32::from(vector) * 16);
                self.write32(4 * u64::from(vector), far_pointer);
                continue;
            }
            let code = if self.cpu.state.long_mode() { CODE64 } else { CODE32 };
            self.set_gate(vector, gate(14, code, handler as u32, 3, 0));
        }
    }

    /// Runs until HLT at level 0.
    ///
    /// # Panics
    /// If the processor shuts down or does not halt within a million instructions.
    pub fn run(&mut self) {
        match self.cpu.run(1_000_000) {
            RunExit::Halted => {}
            RunExit::TripleFault => panic!("{}", self.cpu.explain_shutdown()),
            other => panic!("{other:?} instead of a halt\n{}", self.cpu.registers()),
        }
        self.cpu.state.activity = emu_core::cpu::Activity::Running;
    }

    /// Runs until a handler of [`Machine::catch_all`] halts, and tells its vector.
    ///
    /// # Panics
    /// As [`Machine::run`], or if something else halts.
    pub fn run_to_fault(&mut self) -> u8 {
        self.run();
        self.caught().unwrap_or_else(|| panic!("no fault\n{}", self.cpu.registers()))
    }

    /// The vector whose handler has halted.
    pub fn caught(&self) -> Option<u8> {
        let at = (self.cpu.state.segment(Seg::Cs).base + self.cpu.state.rip).wrapping_sub(HANDLERS + 1);
        (at < 0x1000 && at.is_multiple_of(16)).then_some((at / 16) as u8)
    }

    /// Value `n` of the running code's stack, the top one being 0, in the size that interrupts push: that of the code.
    pub fn pushed(&self, n: u64) -> u64 {
        let s = &self.cpu.state;
        let size = u64::from(s.code_bits() / 8);
        let base = if s.code64() { 0 } else { s.segment(Seg::Ss).base };
        let at = base + (s.regs.gpr(RSP) & s.stack_width().mask()) + n * size;
        let mut bytes = [0; 8];
        self.memory.read(at, &mut bytes[..size as usize]);
        u64::from_le_bytes(bytes)
    }

    /// General register `n`.
    pub fn reg(&self, n: u8) -> u64 {
        self.cpu.state.regs.gpr(n)
    }

    /// Sets general register `n`.
    pub fn set_reg(&mut self, n: u8, value: u64) {
        self.cpu.state.regs.set_gpr(n, value);
    }

    /// Writes bytes to physical memory.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        self.memory.write(at, bytes);
        if self.memory.has_code_writes() {
            self.cpu.pins.raise(CpuPins::CODE_WRITTEN);
        }
    }

    /// Writes 8 bits to physical memory.
    pub fn write8(&mut self, at: u64, value: u8) {
        self.write(at, &[value]);
    }

    /// Writes 16 bits to physical memory.
    pub fn write16(&mut self, at: u64, value: u16) {
        self.write(at, &value.to_le_bytes());
    }

    /// Writes 32 bits to physical memory.
    pub fn write32(&mut self, at: u64, value: u32) {
        self.write(at, &value.to_le_bytes());
    }

    /// Writes 64 bits to physical memory.
    pub fn write64(&mut self, at: u64, value: u64) {
        self.write(at, &value.to_le_bytes());
    }

    /// Reads `N` bytes of physical memory.
    pub fn read<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory.read(at, &mut bytes);
        bytes
    }

    /// Reads 16 bits of physical memory.
    pub fn read16(&self, at: u64) -> u16 {
        u16::from_le_bytes(self.read(at))
    }

    /// Reads 32 bits of physical memory.
    pub fn read32(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.read(at))
    }

    /// Reads 64 bits of physical memory.
    pub fn read64(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.read(at))
    }
}
