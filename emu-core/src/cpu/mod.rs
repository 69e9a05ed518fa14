//! The architectural state of one processor.

pub mod control;
pub mod cpuid;
pub mod fault;
pub mod features;
pub mod fpu;
pub mod model;
pub mod random;
pub mod regs;
pub mod rflags;
pub mod segment;
pub mod xmm;

use control::{CR0_ET, CR0_PE, CR0_PG, EFER_LMA};
use fpu::FpuState;
use random::Random;
use regs::{BLOCK_RIP, RegFile, SEG_BASE};
use rflags::{FIXED, LazyFlags, SYSTEM, VM};
use segment::{Seg, Segment, TableRegister};
use serde::{Deserialize, Serialize};
use xmm::Xmm;

/// An operand size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Width {
    B1 = 1,
    B2 = 2,
    B4 = 4,
    B8 = 8,
}

impl Width {
    /// Bytes.
    #[inline(always)]
    pub const fn bytes(self) -> u64 {
        self as u64
    }

    /// Bits.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        self as u32 * 8
    }

    /// A mask of all bits of this width.
    #[inline(always)]
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// Sign-extends the low bits of `value` to 64.
    #[inline(always)]
    pub const fn sext(self, value: u64) -> u64 {
        match self {
            Width::B1 => value as i8 as u64,
            Width::B2 => value as i16 as u64,
            Width::B4 => value as i32 as u64,
            Width::B8 => value,
        }
    }

    /// The width of `bytes` (1, 2, 4; anything else is 8).
    pub const fn from_bytes(bytes: usize) -> Width {
        match bytes {
            1 => Width::B1,
            2 => Width::B2,
            4 => Width::B4,
            _ => Width::B8,
        }
    }
}

/// What the processor is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activity {
    /// Executing instructions.
    #[default]
    Running,
    /// HLT or MWAIT: waits for an interrupt.
    Halted,
    /// After a triple fault: waits for a reset.
    Shutdown,
}

/// Model-specific registers that the processor itself keeps.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Msrs {
    pub efer: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub tsc_aux: u64,
    /// Added to virtual time to give the time-stamp counter.
    pub tsc_offset: u64,
    /// What software has added to the counter so far.
    pub tsc_adjust: u64,
    pub pat: u64,
    pub misc_enable: u64,
    pub spec_ctrl: u64,
    pub mtrr_def_type: u64,
    pub mtrr_var: [u64; 16],
    pub mtrr_fix: [u64; 11],
    pub debugctl: u64,
    pub mcg_status: u64,
    pub mcg_ctl: u64,
    /// Machine-check banks: CTL, STATUS, ADDR, MISC of each of four.
    pub mc_banks: [u64; 16],
    pub bios_sign_id: u64,
    pub xss: u64,
}

/// Everything that software can see of a processor, besides its local APIC.
#[derive(Clone, Serialize, Deserialize)]
#[repr(C)]
pub struct CpuState {
    /// General registers, and copies of what address computations need.
    pub regs: RegFile,
    /// Arithmetic flags.
    pub flags: LazyFlags,
    /// While an instruction's function runs: the address of the next instruction. Between instructions: where to go on.
    pub rip: u64,
    /// RFLAGS without the arithmetic flags and without the fixed bit.
    pub system_flags: u64,
    segments: [Segment; 6],
    /// Current privilege level.
    pub cpl: u8,
    /// One instruction boundary without interrupts: after STI, MOV SS, POP SS.
    pub interrupt_shadow: bool,
    /// The shadow came from MOV SS or POP SS: debug traps wait too.
    pub debug_shadow: bool,
    /// Between NMI and IRET.
    pub nmi_blocked: bool,
    /// Debug traps to deliver before the next instruction, as DR6 bits.
    pub pending_debug: u64,
    /// What the processor is doing.
    pub activity: Activity,
    /// MONITOR has been executed, and nothing has been delivered since.
    pub monitor_armed: bool,
    pub ldtr: Segment,
    pub tr: Segment,
    pub gdtr: TableRegister,
    pub idtr: TableRegister,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    /// The PAE page-directory-pointer-table entries that were loaded with CR3 (SDM Vol. 3A 4.4.1).
    pub pdptes: [u64; 4],
    /// DR0 to DR3, unused, unused, DR6, DR7.
    pub dr: [u64; 8],
    pub xcr0: u64,
    pub msrs: Msrs,
    /// What RDRAND draws from; survives a reset.
    pub random: Random,
    /// x87 and MMX.
    pub fpu: FpuState,
    pub mxcsr: u32,
    /// XMM0 to XMM15, the low halves of what AVX will widen.
    pub xmm: [Xmm; 16],
}

impl CpuState {
    /// The state after power-on or INIT (SDM Vol. 3A table 9-1).
    pub fn reset() -> CpuState {
        let mut state = CpuState {
            regs: RegFile::default(),
            flags: LazyFlags::default(),
            rip: 0xfff0,
            system_flags: 0,
            segments: [Segment::real(0); 6],
            cpl: 0,
            interrupt_shadow: false,
            debug_shadow: false,
            nmi_blocked: false,
            pending_debug: 0,
            activity: Activity::Running,
            monitor_armed: false,
            ldtr: Segment { attributes: 0x82, limit: 0xffff, ..Segment::default() },
            tr: Segment { attributes: 0x8b, limit: 0xffff, ..Segment::default() },
            gdtr: TableRegister { base: 0, limit: 0xffff },
            idtr: TableRegister { base: 0, limit: 0xffff },
            cr0: control::CR0_CD | control::CR0_NW | CR0_ET,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            pdptes: [0; 4],
            dr: [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x400],
            xcr0: 1,
            random: Random::seeded([0; 32]),
            msrs: Msrs { pat: 0x0007_0406_0007_0406, misc_enable: 1, ..Msrs::default() },
            fpu: FpuState::reset(),
            mxcsr: 0x1f80,
            xmm: [Xmm::default(); 16],
        };
        let mut cs = Segment::real(0xf000);
        cs.base = 0xffff_0000;
        cs.attributes |= Segment::CODE;
        state.set_segment(Seg::Cs, cs);
        state
    }

    /// The state after INIT: as after RESET, but the x87, MMX and SSE registers, the caching controls of CR0, XCR0 and
    /// the model-specific registers stay (SDM Vol. 3A table 10-1; AMD APM Vol. 2 table 14-1 clears EFER).
    pub fn init(&self) -> CpuState {
        let kept = control::CR0_CD | control::CR0_NW;
        let reset = CpuState::reset();
        CpuState {
            cr0: self.cr0 & kept | reset.cr0 & !kept,
            xcr0: self.xcr0,
            msrs: Msrs { efer: 0, ..self.msrs.clone() },
            fpu: self.fpu.clone(),
            mxcsr: self.mxcsr,
            xmm: self.xmm,
            ..reset
        }
    }

    /// A segment register.
    #[inline(always)]
    pub fn segment(&self, seg: Seg) -> &Segment {
        &self.segments[seg as usize]
    }

    /// Where the selector of `seg` is, in bytes from the start.
    pub const fn selector_offset(seg: Seg) -> usize {
        use std::mem::offset_of;
        offset_of!(CpuState, segments) + seg as usize * size_of::<Segment>() + offset_of!(Segment, selector)
    }

    /// Sets a segment register and what is derived from it in the register file. The caller must have the vCPU
    /// recompute its mode ([`crate::exec::Vcpu::mode_changed`]).
    pub fn set_segment(&mut self, seg: Seg, value: Segment) {
        self.segments[seg as usize] = value;
        self.regs.set64(SEG_BASE + 8 * seg as u8, value.base);
    }

    /// Sets only a segment's base (WRFSBASE, FS_BASE MSR, SWAPGS).
    pub fn set_segment_base(&mut self, seg: Seg, base: u64) {
        self.segments[seg as usize].base = base;
        self.regs.set64(SEG_BASE + 8 * seg as u8, base);
    }

    /// Derives again what the register file keeps of other registers, after a restore.
    pub fn restored(&mut self) {
        for seg in Seg::ALL {
            self.regs.set64(SEG_BASE + 8 * seg as u8, self.segments[seg as usize].base);
        }
        self.regs.set64(BLOCK_RIP, self.rip);
    }

    /// RFLAGS as software sees it.
    pub fn rflags(&self) -> u64 {
        self.system_flags | self.flags.bits() | FIXED
    }

    /// Sets all of RFLAGS. Bits that do not exist are dropped. The caller must have the vCPU recompute its mode.
    pub fn set_rflags(&mut self, value: u64) {
        self.flags.set_bits(value & rflags::ARITH);
        self.system_flags = value & SYSTEM;
    }

    /// Whether all bits of `mask` (system flags only) are set.
    #[inline(always)]
    pub fn has(&self, mask: u64) -> bool {
        self.system_flags & mask == mask
    }

    /// I/O privilege level.
    pub fn iopl(&self) -> u8 {
        (self.system_flags >> 12 & 3) as u8
    }

    /// CR0.PE is set.
    pub fn protected(&self) -> bool {
        self.cr0 & CR0_PE != 0
    }

    /// Virtual-8086 mode.
    pub fn v86(&self) -> bool {
        self.system_flags & VM != 0
    }

    /// Real-address or virtual-8086 mode: selectors are paragraph numbers.
    pub fn real_or_v86(&self) -> bool {
        !self.protected() || self.v86()
    }

    /// Paging is on.
    pub fn paging(&self) -> bool {
        self.cr0 & CR0_PG != 0
    }

    /// IA-32e mode is active (64-bit or compatibility).
    pub fn long_mode(&self) -> bool {
        self.msrs.efer & EFER_LMA != 0
    }

    /// 64-bit mode: IA-32e mode with CS.L set.
    pub fn code64(&self) -> bool {
        self.long_mode() && self.segment(Seg::Cs).is(Segment::L)
    }

    /// Bits of code addresses and default operands: 16, 32 or 64.
    pub fn code_bits(&self) -> u32 {
        if self.code64() {
            64
        } else if self.segment(Seg::Cs).is(Segment::DB) {
            32
        } else {
            16
        }
    }

    /// The width of the stack pointer: 8 in 64-bit mode, else by SS.B.
    pub fn stack_width(&self) -> Width {
        if self.code64() {
            Width::B8
        } else if self.segment(Seg::Ss).is(Segment::DB) {
            Width::B4
        } else {
            Width::B2
        }
    }

    /// Whether `address` is canonical: bits above the implemented linear width repeat its top bit.
    pub fn canonical(&self, address: u64) -> bool {
        let unused = if self.cr4 & control::CR4_LA57 != 0 { 7 } else { 16 };
        ((address as i64) << unused >> unused) as u64 == address
    }
}
