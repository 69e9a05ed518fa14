//! Delivery of exceptions and interrupts (SDM Vol. 3A chapter 6; the pseudo-code of INT n in Vol. 2A).
//!
//! ```text
//!  real mode         IVT   -> CS:IP                              pushes FLAGS, CS, IP
//!  protected mode    IDT   -> interrupt or trap gate             pushes [SS, ESP,] EFLAGS, CS, EIP [, error]
//!                          -> task gate: exec::task_switch
//!  v86, by VME       IVT of the v86 program                      pushes FLAGS, CS, IP
//!  IA-32e mode       IDT   -> 64-bit interrupt or trap gate      pushes SS, RSP, RFLAGS, CS, RIP [, error]
//! ```
//! Everything that can fault comes before the first change of a register; the frame is written at once.
//! Deliberately absent: shadow stacks.

use super::descriptor::is_null;
use super::stack::{Frame, Stack, privilege_of};
use super::task_switch::Cause;
use crate::cpu::Width;
use crate::cpu::control::CR4_VME;
use crate::cpu::fault::{self, Fault};
use crate::cpu::regs::RSP;
use crate::cpu::rflags::{self, AC, IF, IOPL, NT, RF, TF, VIF, VM};
use crate::cpu::segment::{Gate, Seg, Segment, system};
use crate::debug::trace;
use crate::exec::Vcpu;

/// What is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// INT n, INT3, INTO: the gate's DPL is checked, RIP is the next instruction's.
    Software,
    /// A fault or trap of the processor, and INT1.
    Exception,
    /// INTR or NMI.
    External,
}

/// An error code's IDT bit: the index is that of a gate in the IDT (SDM Vol. 3A 6.13).
const IDT: u32 = 2;

/// The error code that names the gate of `vector`.
fn gate_code(vector: u8) -> u32 {
    u32::from(vector) * 8 + IDT
}

/// Whether `vector`, raised by the processor, is of the fault class, so that RF is set in the flags that it pushes
/// (SDM Vol. 3B 18.3.1.1). #DB never sets it.
fn is_fault(vector: u8) -> bool {
    matches!(
        vector,
        fault::DE
            | fault::BR
            | fault::UD
            | fault::NM
            | fault::TS
            | fault::NP
            | fault::SS
            | fault::GP
            | fault::PF
            | fault::MF
            | fault::AC
            | fault::XM
    )
}

/// A handler's entry point, checked.
struct Target {
    cs: Segment,
    offset: u64,
    cpl: u8,
    /// Flags to clear on entry.
    clear: u64,
}

impl Vcpu {
    /// Delivers `vector` through the IDT or IVT. `state.rip` is what is pushed.
    ///
    /// # Errors
    /// The fault that delivery itself raises; no register has changed then.
    pub fn interrupt(&mut self, vector: u8, source: Source, error: Option<u32>) -> Result<(), Fault> {
        trace::interrupt(self, vector, source, error);
        let delivered = if !self.state.protected() {
            self.interrupt_real(vector)
        } else if self.state.long_mode() {
            self.interrupt_long(vector, source, error)
        } else {
            self.interrupt_protected(vector, source, error)
        };
        delivered.map_err(|fault| if source == Source::Software { fault } else { fault.external() })?;
        self.state.interrupt_shadow = false;
        self.state.debug_shadow = false;
        // Entering a handler clears TF and with it the trap behind INT n (SDM Vol. 3B 18.3.1.4).
        self.single_step = false;
        self.mode_changed();
        Ok(())
    }

    /// INT n: like INT3 and INTO, except in virtual-8086 mode, where IOPL and the redirection bitmap decide (SDM Vol. 3A
    /// table 20-2).
    ///
    /// # Errors
    /// As [`Vcpu::interrupt`].
    pub fn interrupt_instruction(&mut self, vector: u8) -> Result<(), Fault> {
        if self.state.v86() {
            let enhanced = self.state.cr4 & CR4_VME != 0;
            if enhanced && !self.redirection_bit(vector)? {
                self.interrupt_virtual(vector)?;
                self.single_step = false;
                self.mode_changed();
                return Ok(());
            }
            if self.state.iopl() < 3 {
                return Err(Fault::gp0());
            }
        }
        self.interrupt(vector, Source::Software, None)
    }

    /// Bit `vector` of the software interrupt redirection bitmap, the 32 bytes below the I/O permission bitmap: clear if
    /// the virtual-8086 program handles the interrupt itself (SDM Vol. 3A 20.3.3).
    fn redirection_bit(&mut self, vector: u8) -> Result<bool, Fault> {
        let tr = self.state.tr;
        if tr.kind() & !system::BUSY != system::TSS32_AVAILABLE || !tr.covers(0x66, 2) {
            return Err(Fault::gp0());
        }
        let io_map = self.load_system(self.system_linear(tr.base + 0x66), Width::B2)?;
        let at = io_map.wrapping_sub(32).wrapping_add(u64::from(vector / 8));
        if !tr.covers(at, 1) {
            return Err(Fault::gp0());
        }
        let byte = self.load_system(self.system_linear(tr.base + at), Width::B1)?;
        Ok(byte >> (vector % 8) & 1 != 0)
    }

    fn interrupt_real(&mut self, vector: u8) -> Result<(), Fault> {
        let at = u64::from(vector) * 4;
        if at + 3 > u64::from(self.state.idtr.limit) {
            return Err(Fault::with_code(fault::GP, gate_code(vector)));
        }
        let entry = self.load_system((self.state.idtr.base + at) & 0xffff_ffff, Width::B4)?;
        self.enter_real(entry, self.state.rflags())?;
        self.state.system_flags &= !(IF | TF | AC | RF);
        Ok(())
    }

    /// A software interrupt that stays in virtual-8086 mode. With IOPL 3 the real flags are used; below that VIF stands
    /// for IF, and the program sees IOPL 3.
    fn interrupt_virtual(&mut self, vector: u8) -> Result<(), Fault> {
        let entry = self.load_system(u64::from(vector) * 4, Width::B4)?;
        let mut flags = self.state.rflags();
        let enable = if self.state.iopl() == 3 {
            IF
        } else {
            flags = (flags & !IF) | IOPL | if self.state.has(VIF) { IF } else { 0 };
            VIF
        };
        self.enter_real(entry, flags)?;
        self.state.system_flags &= !(enable | TF | NT | RF);
        Ok(())
    }

    /// Pushes FLAGS, CS and IP as words and goes to the far pointer `entry`.
    fn enter_real(&mut self, entry: u64, flags: u64) -> Result<(), Fault> {
        let mut frame = Frame::new(Width::B2);
        frame.push(flags);
        frame.push(u64::from(self.state.segment(Seg::Cs).selector));
        frame.push(self.state.rip);
        let sp = self.push_frame(&self.current_stack(), &frame)?;
        self.state.regs.set_gpr(RSP, sp);
        self.state.set_segment(Seg::Cs, self.real_segment(Seg::Cs, (entry >> 16) as u16));
        self.state.rip = entry & 0xffff;
        Ok(())
    }

    fn pushed_flags(&self, vector: u8, source: Source) -> u64 {
        let fault = source == Source::Exception && is_fault(vector);
        self.state.rflags() | if fault { RF } else { 0 }
    }

    fn interrupt_protected(&mut self, vector: u8, source: Source, error: Option<u32>) -> Result<(), Fault> {
        let at = u64::from(vector) * 8;
        if at + 7 > u64::from(self.state.idtr.limit) {
            return Err(Fault::with_code(fault::GP, gate_code(vector)));
        }
        let gate = Gate::new(self.load_system((self.state.idtr.base + at) & 0xffff_ffff, Width::B8)?, 0);
        let known = matches!(
            gate.kind,
            system::TASK_GATE
                | system::INTERRUPT_GATE16
                | system::TRAP_GATE16
                | system::INTERRUPT_GATE32
                | system::TRAP_GATE32
        );
        self.check_gate(&gate, known, vector, source)?;
        if gate.kind == system::TASK_GATE {
            let flags = self.pushed_flags(vector, source);
            return self.switch_task(gate.selector, Cause::Interrupt { flags, error });
        }
        let target = self.handler(&gate)?;
        let width = if gate.kind & 8 != 0 { Width::B4 } else { Width::B2 };
        let flags = self.pushed_flags(vector, source);
        let inner = target.cpl < self.state.cpl;
        let from_v86 = self.state.v86();
        let stack = if inner { self.inner_stack(target.cpl)? } else { self.current_stack() };
        let s = &self.state;
        let mut frame = Frame::new(width);
        if from_v86 {
            for seg in [Seg::Gs, Seg::Fs, Seg::Ds, Seg::Es] {
                frame.push(u64::from(s.segment(seg).selector));
            }
        }
        if inner {
            frame.push(u64::from(s.segment(Seg::Ss).selector));
            frame.push(s.regs.gpr(RSP));
        }
        frame.push(flags);
        frame.push(u64::from(s.segment(Seg::Cs).selector));
        frame.push(s.rip);
        if let Some(error) = error {
            frame.push(u64::from(error));
        }
        if !target.cs.covers(target.offset, 1) {
            return Err(Fault::gp0());
        }
        let sp = self.push_frame(&stack, &frame)?;
        if from_v86 {
            for seg in [Seg::Gs, Seg::Fs, Seg::Ds, Seg::Es] {
                self.state.set_segment(seg, Segment::null(0));
            }
        }
        if inner {
            self.state.set_segment(Seg::Ss, stack.ss);
        }
        self.enter(&target, sp);
        Ok(())
    }

    fn interrupt_long(&mut self, vector: u8, source: Source, error: Option<u32>) -> Result<(), Fault> {
        let at = u64::from(vector) * 16;
        if at + 15 > u64::from(self.state.idtr.limit) {
            return Err(Fault::with_code(fault::GP, gate_code(vector)));
        }
        let linear = self.state.idtr.base.wrapping_add(at);
        let low = self.load_system(linear, Width::B8)?;
        let high = self.load_system(linear.wrapping_add(8), Width::B8)?;
        let gate = Gate::new(low, high as u32);
        let known = matches!(gate.kind, system::INTERRUPT_GATE32 | system::TRAP_GATE32);
        self.check_gate(&gate, known, vector, source)?;
        let target = self.handler(&gate)?;
        if target.cs.attributes & (Segment::L | Segment::DB) != Segment::L {
            return Err(Fault::selector(fault::GP, gate.selector));
        }
        let inner = target.cpl < self.state.cpl;
        let sp = match gate.count & 7 {
            0 if inner => self.stack_pointer_from_tss(4 + 8 * u64::from(target.cpl))?,
            0 => self.state.regs.gpr(RSP),
            ist => self.stack_pointer_from_tss(0x1c + 8 * u64::from(ist))?,
        };
        let s = &self.state;
        let mut frame = Frame::new(Width::B8);
        frame.push(u64::from(s.segment(Seg::Ss).selector));
        frame.push(s.regs.gpr(RSP));
        frame.push(self.pushed_flags(vector, source));
        frame.push(u64::from(s.segment(Seg::Cs).selector));
        frame.push(s.rip);
        if let Some(error) = error {
            frame.push(u64::from(error));
        }
        if !s.canonical(target.offset) {
            return Err(Fault::gp0());
        }
        let stack = Stack {
            ss: Segment::null(u16::from(target.cpl)),
            sp: sp & !15,
            width: Width::B8,
            privilege: privilege_of(target.cpl),
            error: 0,
        };
        let sp = self.push_frame(&stack, &frame)?;
        if inner {
            self.state.set_segment(Seg::Ss, stack.ss);
        }
        self.enter(&target, sp);
        Ok(())
    }

    /// Type, privilege and presence of the gate of `vector`, in the order of the SDM's pseudo-code.
    fn check_gate(&self, gate: &Gate, known: bool, vector: u8, source: Source) -> Result<(), Fault> {
        if !known || (source == Source::Software && gate.dpl < self.state.cpl) {
            return Err(Fault::with_code(fault::GP, gate_code(vector)));
        }
        if !gate.present {
            return Err(Fault::with_code(fault::NP, gate_code(vector)));
        }
        Ok(())
    }

    /// The code segment and level at which the handler behind an interrupt or trap gate runs.
    fn handler(&mut self, gate: &Gate) -> Result<Target, Fault> {
        if is_null(gate.selector) {
            return Err(Fault::gp0());
        }
        let mut cs = self.segment_descriptor(gate.selector, fault::GP)?;
        let cpl = self.state.cpl;
        if !cs.is_code() || cs.dpl() > cpl {
            return Err(Fault::selector(fault::GP, gate.selector));
        }
        if !cs.is(Segment::P) {
            return Err(Fault::selector(fault::NP, gate.selector));
        }
        let target = if cs.is(Segment::CONFORMING) { cpl } else { cs.dpl() };
        // Out of virtual-8086 mode leads only to level 0.
        if self.state.v86() && target != 0 {
            return Err(Fault::selector(fault::GP, gate.selector));
        }
        self.mark_accessed(&mut cs)?;
        cs.selector = (gate.selector & !3) | u16::from(target);
        let interrupt_gate = gate.kind & 1 == 0;
        let clear = TF | VM | RF | NT | if interrupt_gate { IF } else { 0 };
        Ok(Target { cs, offset: gate.offset, cpl: target, clear })
    }

    fn enter(&mut self, target: &Target, sp: u64) {
        self.state.regs.set_gpr(RSP, sp);
        self.state.set_segment(Seg::Cs, target.cs);
        self.state.cpl = target.cpl;
        self.state.rip = target.offset;
        self.state.system_flags &= rflags::SYSTEM & !target.clear;
    }

    /// The stack of level `cpl` from a 16- or 32-bit TSS, checked (SDM Vol. 3A 5.8.5).
    ///
    /// # Errors
    /// #TS or #SS with the stack segment's selector, #TS with TR's if the TSS is too short, #PF.
    pub fn inner_stack(&mut self, cpl: u8) -> Result<Stack, Fault> {
        let tr = self.state.tr;
        let level = u64::from(cpl);
        let wide = tr.kind() & !system::BUSY == system::TSS32_AVAILABLE;
        let (at, width) = if wide { (4 + 8 * level, Width::B4) } else { (2 + 4 * level, Width::B2) };
        if !tr.covers(at, width.bytes() + 2) {
            return Err(Fault::selector(fault::TS, tr.selector));
        }
        let sp = self.load_system(self.system_linear(tr.base + at), width)?;
        let ss = self.load_system(self.system_linear(tr.base + at + width.bytes()), Width::B2)?;
        if is_null(ss as u16) {
            return Err(Fault::with_code(fault::TS, 0));
        }
        let ss = self.stack_segment(ss as u16, cpl, fault::TS)?;
        Ok(Stack::new(ss, sp, cpl))
    }

    /// The stack pointer at `offset` of a 64-bit TSS.
    ///
    /// # Errors
    /// #TS with TR's selector if the TSS is too short, #SS(0) if it is not canonical, #PF.
    pub fn stack_pointer_from_tss(&mut self, offset: u64) -> Result<u64, Fault> {
        let tr = self.state.tr;
        if !tr.covers(offset, 8) {
            return Err(Fault::selector(fault::TS, tr.selector));
        }
        let sp = self.load_system(tr.base.wrapping_add(offset), Width::B8)?;
        if self.state.canonical(sp) { Ok(sp) } else { Err(Fault::with_code(fault::SS, 0)) }
    }
}
