//! The same instruction here: a vCPU in 64-bit or compatibility user mode over the same linear mappings.
//!
//! ```text
//!  linear CODE, DATA        -> 0x100000.., 0x300000..     user pages, as natively
//!  linear SCRATCH           -> 0x380000                   a user page for the code around the instruction
//!  linear KERNEL (2 MiB)    -> 0x200000                   IDT, GDT, TSS, stack, and a handler for each vector
//! ```
//! Faults are delivered through the IDT to `jmp $`, and read from the frame on the kernel's stack.

use crate::native::{Fault, NO_FAULT, State, USER_CS, USER_CS32, USER_DS};
use crate::surround::{SCRATCH_BYTES, Surroundings};
use crate::{CODE, CODE_BYTES, DATA, DATA_BYTES, DATA_WRITABLE, LEAD, SCRATCH, SLOT, TAKEN};
use emu_core::bus::Bus;
use emu_core::clock::{Clock, ClockMode};
use emu_core::cpu::control::*;
use emu_core::cpu::model::CpuModel;
use emu_core::cpu::segment::{Seg, Segment};
use emu_core::cpu::xmm::Xmm;
use emu_core::exec::Vcpu;
use emu_core::exec::region::exit;
use emu_core::irq::CpuPins;
use emu_core::mem::GuestMemory;
use emu_jit::Immediate;
use std::sync::Arc;

const CODE_AT: u64 = 0x10_0000;
const KERNEL_AT: u64 = 0x20_0000;
const DATA_AT: u64 = 0x30_0000;
const SCRATCH_AT: u64 = 0x38_0000;
const KERNEL: u64 = 0xffff_ffff_8000_0000;
const IDT: u64 = 0x0;
const GDT: u64 = 0x1000;
const TSS: u64 = 0x2000;
const HANDLERS: u64 = 0x3000;
const STACK_TOP: u64 = 0x8000;

/// Executions of a block after which its region is compiled: enough for all of its blocks to be known, and to have been
/// left in all ways.
const THRESHOLD: u32 = 5;

/// Instructions that code around an instruction takes, and some more.
const BUDGET: u64 = 64;
/// A REP instruction may take several runs.
const MOST_RUNS: u32 = 10_000;

/// A vCPU and its memory.
pub struct Guest {
    cpu: Vcpu,
    memory: Arc<GuestMemory>,
    gs_base: u64,
    bits: u32,
    compiles: bool,
}

/// What has become of an instruction.
pub struct Outcome {
    /// What it left behind.
    pub state: State,
    /// What it raised.
    pub fault: Fault,
    /// Compiled code executed it, and all that is around it as far as it was executed.
    pub compiled: bool,
}

impl Guest {
    /// Maps everything; the data pages are empty. Whether threaded code is to be compiled at once.
    pub fn new(gs_base: u64, compiles: bool) -> Guest {
        let memory = Arc::new(GuestMemory::new(4 << 20, 0).expect("memory for the guest"));
        let cpu = vcpu(&memory);
        let mut guest = Guest { cpu, memory, gs_base, bits: 64, compiles };
        guest.map();
        guest.restart();
        guest
    }

    fn map(&self) {
        let entry = |at: u64, value: u64| self.memory.write(at, &value.to_le_bytes());
        const USER: u64 = 7;
        const NX: u64 = 1 << 63;
        entry(0x1000, 0x2000 | USER);
        entry(0x1000 + 511 * 8, 0x6000 | 3);
        entry(0x2000, 0x3000 | USER);
        entry(0x3000 + (CODE >> 21) * 8, 0x4000 | USER);
        entry(0x3000 + (DATA >> 21) * 8, 0x5000 | USER);
        for page in 0..CODE_BYTES as u64 / 0x1000 {
            entry(0x4000 + page * 8, (CODE_AT + page * 0x1000) | USER);
        }
        for page in 0..DATA_BYTES as u64 / 0x1000 {
            let writable = if page < DATA_WRITABLE as u64 / 0x1000 { 2 } else { 0 };
            entry(0x5000 + page * 8, (DATA_AT + page * 0x1000) | 5 | writable | NX);
        }
        entry(0x5000 + (SCRATCH - DATA) / 0x1000 * 8, SCRATCH_AT | USER | NX);
        entry(0x6000 + 510 * 8, 0x7000 | 3);
        entry(0x7000, KERNEL_AT | 0x83);
        for vector in 0..32 {
            let handler = KERNEL + HANDLERS + vector * 16;
            let low = (handler & 0xffff) | 8 << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
            entry(KERNEL_AT + IDT + vector * 16, low);
            entry(KERNEL_AT + IDT + vector * 16 + 8, handler >> 32);
            self.memory.write(KERNEL_AT + HANDLERS + vector * 16, &[0xeb, 0xfe]);
        }
        entry(KERNEL_AT + GDT + 8, 0x00af_9b00_0000_ffff);
        entry(KERNEL_AT + TSS + 4, KERNEL + STACK_TOP);
        // No I/O permission bitmap.
        self.memory.write(KERNEL_AT + TSS + 102, &[0xff, 0xff]);
    }

    /// Starts over with an empty block cache.
    pub fn restart(&mut self) {
        self.cpu = vcpu(&self.memory);
        let s = &mut self.cpu.state;
        s.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
        s.cr3 = 0x1000;
        s.cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE | CR4_UMIP;
        s.msrs.efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
        s.gdtr.base = KERNEL + GDT;
        s.gdtr.limit = 0xfff;
        s.idtr.base = KERNEL + IDT;
        s.idtr.limit = 0xfff;
        s.tr = Segment { selector: 0x40, base: KERNEL + TSS, limit: 0x67, attributes: 0x8b, unusable: false };
        for seg in [Seg::Fs, Seg::Gs] {
            let base = if seg == Seg::Gs { self.gs_base } else { 0 };
            s.set_segment(seg, Segment { selector: 0, base, limit: 0, attributes: 0, unusable: true });
        }
        self.enter_user();
        if self.compiles {
            self.cpu.set_compiler(Some(Box::new(Immediate::new(THRESHOLD).expect("this host has a compiler"))));
        }
    }

    fn enter_user(&mut self) {
        let s = &mut self.cpu.state;
        s.cpl = 3;
        let (selector, attributes) = if self.bits == 64 { (USER_CS, 0xa0fb) } else { (USER_CS32, 0xc0fb) };
        s.set_segment(Seg::Cs, Segment { selector, base: 0, limit: u32::MAX, attributes, unusable: false });
        for seg in [Seg::Ss, Seg::Ds, Seg::Es] {
            let data = Segment { selector: USER_DS, base: 0, limit: u32::MAX, attributes: 0xc0f3, unusable: false };
            s.set_segment(seg, data);
        }
        self.cpu.mode_changed();
    }

    /// Puts an instruction to `address` in its slot, with what is `around`.
    pub fn place(&mut self, address: u64, bytes: &[u8], around: &Surroundings) {
        let mut slot = [0xcc; SLOT as usize];
        let mut put = |at: u64, bytes: &[u8]| slot[at as usize..][..bytes.len()].copy_from_slice(bytes);
        put(LEAD - around.before.len() as u64, &around.before);
        put(LEAD, bytes);
        put(LEAD + bytes.len() as u64, &around.behind);
        put(LEAD + TAKEN, &around.behind);
        self.memory.write(address - LEAD - CODE + CODE_AT, &slot);
    }

    /// Reads `bytes` at `offset` of the data pages.
    pub fn read_data(&self, offset: usize, bytes: &mut [u8]) {
        self.memory.read(DATA_AT + offset as u64, bytes);
    }

    /// Writes `bytes` at `offset` of the data pages.
    pub fn write_data(&self, offset: usize, bytes: &[u8]) {
        self.memory.write(DATA_AT + offset as u64, bytes);
    }

    /// Executes the instruction of `len` bytes at `input.rip`: in threaded code with specialised handlers, or by itself
    /// (`alone`).
    pub fn execute(&mut self, input: &State, len: u64, bits: u32, alone: bool) -> (State, Fault) {
        self.enter(input, input.rip, bits);
        let mut runs = 0;
        loop {
            self.cpu.run(if alone { 1 } else { 2 });
            runs += 1;
            if self.cpu.state.rip != input.rip || runs > MOST_RUNS {
                break;
            }
        }
        if alone && ![len, TAKEN].contains(&self.cpu.state.rip.wrapping_sub(input.rip)) && self.cpu.state.cpl == 3 {
            // It has jumped to where nothing is: the fault comes with the next instruction.
            self.cpu.run(1);
        }
        self.output(input)
    }

    /// The same, with what is `around` it, and `scratch` bytes, which are replaced by what that makes of them.
    pub fn execute_region(
        &mut self,
        input: &State,
        len: u64,
        bits: u32,
        around: &Surroundings,
        scratch: &mut [u8; SCRATCH_BYTES],
    ) -> Outcome {
        let mut first = *input;
        around.exchange_in(&mut first);
        self.enter(&first, input.rip - around.before.len() as u64, bits);
        self.memory.write(SCRATCH_AT, scratch);
        let ends = [len, TAKEN].map(|distance| input.rip + distance + around.end());
        let (exits, instructions) = (self.cpu.stats.region_exits, self.cpu.stats.region_instructions);
        let (mut runs, mut executed) = (0, 0);
        loop {
            self.cpu.run(BUDGET);
            executed += self.cpu.executed();
            runs += 1;
            if ends.contains(&self.cpu.state.rip) || self.cpu.state.cpl == 0 || runs > MOST_RUNS {
                break;
            }
        }
        let left = |exit: u64| self.cpu.stats.region_exits[exit as usize] - exits[exit as usize];
        let (faults, interpreted) = (left(exit::FAULT), left(exit::STEP) + left(exit::INTERPRET));
        let onward = left(exit::CHAIN) + left(exit::LOOKUP);
        let whole = self.cpu.stats.region_instructions - instructions == executed;
        let end = ends.iter().position(|end| self.cpu.state.rip == *end);
        let (mut state, fault) = self.output(input);
        if let Some(end) = end {
            around.exchange_in(&mut state);
            state.rip = input.rip + [len, TAKEN][end];
            self.memory.read(SCRATCH_AT, scratch);
        }
        let compiled = interpreted == 0
            && match fault {
                NO_FAULT => whole,
                _ if state.rip == input.rip => faults != 0,
                // It has jumped to where nothing is.
                _ => onward != 0,
            };
        Outcome { state, fault, compiled }
    }

    /// Makes `input` the vCPU's state, with `rip` to begin at.
    fn enter(&mut self, input: &State, rip: u64, bits: u32) {
        if self.bits != bits {
            self.bits = bits;
            self.enter_user();
        }
        let s = &mut self.cpu.state;
        for (n, value) in input.gpr.iter().enumerate() {
            s.regs.set_gpr(n as u8, *value);
        }
        load_fx(s, &input.fx.0);
        s.set_rflags(input.flags);
        s.rip = rip;
        self.cpu.mode_changed();
    }

    /// What the vCPU has come to from `input`; it is in user mode again.
    fn output(&mut self, input: &State) -> (State, Fault) {
        let s = &self.cpu.state;
        let mut output = *input;
        for (n, value) in output.gpr.iter_mut().enumerate() {
            *value = s.regs.gpr(n as u8);
        }
        save_fx(s, &mut output.fx.0);
        output.flags = s.rflags();
        output.rip = s.rip;
        let mut fault = NO_FAULT;
        if s.cpl == 0 {
            let vector = (s.rip.wrapping_sub(KERNEL + HANDLERS) / 16) as u8;
            let has_error = matches!(vector, 8 | 10..=14 | 17);
            let frame_at = KERNEL_AT + s.regs.gpr(4).wrapping_sub(KERNEL);
            let word = |n: u64| {
                let mut bytes = [0; 8];
                self.memory.read(frame_at + 8 * n.wrapping_add(u64::from(has_error)), &mut bytes);
                u64::from_le_bytes(bytes)
            };
            fault = Fault { vector, error: if has_error { word(u64::MAX) } else { 0 }, address: s.cr2 };
            output.rip = word(0);
            output.flags = word(2);
            output.gpr[4] = word(3);
            self.enter_user();
        }
        (output, fault)
    }
}

fn vcpu(memory: &Arc<GuestMemory>) -> Vcpu {
    let clock = Clock::new(ClockMode::Icount { shift: 0 });
    let bus = Arc::new(Bus::new(memory.clone(), Arc::new(CpuPins::default()), clock));
    Vcpu::new(Arc::new(CpuModel::max()), bus)
}

fn word(fx: &[u8; 512], at: usize) -> u16 {
    u16::from_le_bytes([fx[at], fx[at + 1]])
}

fn quad(fx: &[u8; 512], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&fx[at..at + 8]);
    u64::from_le_bytes(bytes)
}

fn load_fx(s: &mut emu_core::cpu::CpuState, fx: &[u8; 512]) {
    let f = &mut s.fpu;
    f.control = word(fx, 0);
    let status = word(fx, 2);
    f.top = (status >> 11 & 7) as u8;
    f.status = status & !0x3800;
    f.empty = !fx[4];
    f.opcode = word(fx, 6);
    f.fip = quad(fx, 8);
    f.fdp = quad(fx, 16);
    f.fcs = 0;
    f.fds = 0;
    for n in 0..8 {
        let at = 32 + 16 * n;
        let register = &mut f.r[(usize::from(f.top) + n) % 8];
        register.significand = quad(fx, at);
        register.sign_exp = word(fx, at + 8);
    }
    s.mxcsr = u32::from(word(fx, 24)) | u32::from(word(fx, 26)) << 16;
    for n in 0..16 {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&fx[160 + 16 * n..][..16]);
        s.xmm[n] = Xmm(bytes);
    }
}

fn save_fx(s: &emu_core::cpu::CpuState, fx: &mut [u8; 512]) {
    let f = &s.fpu;
    fx[0..2].copy_from_slice(&f.control.to_le_bytes());
    fx[2..4].copy_from_slice(&(f.status & !0x3800 | u16::from(f.top) << 11).to_le_bytes());
    fx[4] = !f.empty;
    fx[6..8].copy_from_slice(&f.opcode.to_le_bytes());
    fx[8..16].copy_from_slice(&f.fip.to_le_bytes());
    fx[16..24].copy_from_slice(&f.fdp.to_le_bytes());
    for n in 0..8 {
        let at = 32 + 16 * n;
        let register = &f.r[(usize::from(f.top) + n) % 8];
        fx[at..at + 8].copy_from_slice(&register.significand.to_le_bytes());
        fx[at + 8..at + 10].copy_from_slice(&register.sign_exp.to_le_bytes());
    }
    fx[24..28].copy_from_slice(&s.mxcsr.to_le_bytes());
    for n in 0..16 {
        fx[160 + 16 * n..][..16].copy_from_slice(&s.xmm[n].0);
    }
}
