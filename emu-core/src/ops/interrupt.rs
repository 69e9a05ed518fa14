//! INT n, INT3, INT1, INTO and the returns IRET, IRETD, IRETQ (SDM Vol. 2A).

use super::Exec;
use crate::cpu::Width;
use crate::cpu::control::CR4_VME;
use crate::cpu::fault::{self, Fault};
use crate::cpu::regs::RSP;
use crate::cpu::rflags::{self, AC, ARITH, DF, ID, IF, IOPL, NT, RF, TF, VIF, VIP, VM};
use crate::cpu::segment::{Seg, Segment};
use crate::debug::trace;
use crate::decode::insn::Insn;
use crate::exec::Vcpu;
use crate::exec::descriptor::{is_null, rpl};
use crate::exec::interrupt::Source;
use iced_x86::{Code, Mnemonic};

/// The rows of this group.
pub fn exec(m: Mnemonic) -> Option<Exec> {
    Some(match m {
        Mnemonic::Int => int_n,
        Mnemonic::Int3 => int3,
        Mnemonic::Int1 => int1,
        Mnemonic::Into => into,
        Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq => iret,
        _ => return None,
    })
}

fn int_n(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.interrupt_instruction(insn.imm as u8)
}

fn int3(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    cpu.interrupt(fault::BP, Source::Software, None)
}

fn int1(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    // Not a software interrupt as far as DPL and EXT are concerned.
    cpu.interrupt(fault::DB, Source::Exception, None)
}

fn into(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    if cpu.state.flags.of() { cpu.interrupt(fault::OF, Source::Software, None) } else { Ok(()) }
}

fn iret(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let width = match insn.code {
        Code::Iretw => Width::B2,
        Code::Iretd => Width::B4,
        _ => Width::B8,
    };
    if !cpu.state.protected() {
        iret_real(cpu, width)?;
    } else if cpu.state.v86() {
        iret_v86(cpu, width)?;
    } else if cpu.state.has(NT) {
        if cpu.state.long_mode() {
            return Err(Fault::gp0());
        }
        cpu.return_to_previous_task()?;
    } else {
        iret_protected(cpu, width)?;
    }
    cpu.state.nmi_blocked = false;
    cpu.mode_changed();
    Ok(())
}

/// The return address and flags that lie on top of the stack.
struct Image {
    rip: u64,
    cs: u16,
    flags: u64,
}

fn image(cpu: &mut Vcpu, width: Width) -> Result<Image, Fault> {
    let w = width.bytes() as i64;
    Ok(Image {
        rip: cpu.stack_read(0, width)?,
        cs: cpu.stack_read(w, width)? as u16,
        flags: cpu.stack_read(2 * w, width)?,
    })
}

/// Replaces the flags in `mask`; those that a 16-bit image lacks stay.
fn set_flags(cpu: &mut Vcpu, width: Width, mask: u64, flags: u64) {
    let mask = if width == Width::B2 { mask & 0xffff } else { mask };
    let kept = cpu.state.rflags() & !mask;
    cpu.state.set_rflags(kept | (flags & mask));
}

fn iret_real(cpu: &mut Vcpu, width: Width) -> Result<(), Fault> {
    let image = image(cpu, width)?;
    let cs = cpu.real_segment(Seg::Cs, image.cs);
    if !cs.covers(image.rip, 1) {
        return Err(Fault::gp0());
    }
    cpu.adjust_sp(3 * width.bytes() as i64);
    cpu.state.set_segment(Seg::Cs, cs);
    cpu.state.rip = image.rip;
    set_flags(cpu, width, ARITH | rflags::SYSTEM & !(VM | VIF | VIP), image.flags);
    Ok(())
}

fn iret_v86(cpu: &mut Vcpu, width: Width) -> Result<(), Fault> {
    let enhanced = cpu.state.iopl() < 3;
    if enhanced && (cpu.state.cr4 & CR4_VME == 0 || width != Width::B2) {
        return Err(Fault::gp0());
    }
    let mut image = image(cpu, width)?;
    let cs = cpu.real_segment(Seg::Cs, image.cs);
    if !cs.covers(image.rip, 1) {
        return Err(Fault::gp0());
    }
    let mut mask = ARITH | rflags::SYSTEM & !(VM | IOPL | VIF | VIP);
    if enhanced {
        // The program's IF is VIF; enabling it while an interrupt waits for it is for the monitor to see.
        if image.flags & TF != 0 || (image.flags & IF != 0 && cpu.state.has(VIP)) {
            return Err(Fault::gp0());
        }
        mask = mask & 0xffff & !IF | VIF;
        image.flags = image.flags & 0xffff | if image.flags & IF != 0 { VIF } else { 0 };
    } else if width == Width::B2 {
        mask &= 0xffff;
    }
    cpu.adjust_sp(3 * width.bytes() as i64);
    cpu.state.set_segment(Seg::Cs, cs);
    cpu.state.rip = image.rip;
    set_flags(cpu, Width::B4, mask, image.flags);
    Ok(())
}

fn iret_protected(cpu: &mut Vcpu, width: Width) -> Result<(), Fault> {
    let image = image(cpu, width)?;
    trace::far_transfer(cpu, "iret", image.cs, image.rip);
    let cpl = cpu.state.cpl;
    if image.flags & VM != 0 && cpl == 0 && width == Width::B4 && !cpu.state.long_mode() {
        return iret_to_v86(cpu, &image);
    }
    let cs = cpu.return_segment(image.cs)?;
    let new_cpl = rpl(image.cs);
    let to_64 = cpu.state.long_mode() && cs.is(Segment::L);
    let pops_stack = new_cpl > cpl || cpu.state.code64();
    let w = width.bytes() as i64;
    let stack = if pops_stack {
        let sp = cpu.stack_read(3 * w, width)?;
        let selector = cpu.stack_read(4 * w, width)? as u16;
        let ss = cpu.return_stack_segment(selector, new_cpl, to_64)?;
        Some((sp, ss))
    } else {
        None
    };
    cpu.check_target(&cs, image.rip)?;

    let mut mask = ARITH | TF | DF | NT | RF | AC | ID;
    if cpl <= cpu.state.iopl() {
        mask |= IF;
    }
    if cpl == 0 {
        mask |= IOPL | VIF | VIP;
    }
    set_flags(cpu, width, mask, image.flags);
    match stack {
        Some((sp, ss)) => {
            cpu.state.set_segment(Seg::Cs, cs);
            cpu.state.set_segment(Seg::Ss, ss);
            cpu.set_sp(sp);
        }
        None => {
            cpu.adjust_sp(3 * w);
            cpu.state.set_segment(Seg::Cs, cs);
        }
    }
    cpu.state.rip = image.rip;
    if new_cpl > cpl {
        cpu.state.cpl = new_cpl;
        cpu.drop_inner_segments();
    }
    Ok(())
}

fn iret_to_v86(cpu: &mut Vcpu, image: &Image) -> Result<(), Fault> {
    let sp = cpu.stack_read(12, Width::B4)?;
    let mut selectors = [0; 5];
    for (n, selector) in selectors.iter_mut().enumerate() {
        *selector = cpu.stack_read(16 + 4 * n as i64, Width::B4)? as u16;
    }
    if image.rip > 0xffff {
        return Err(Fault::gp0());
    }
    cpu.state.set_rflags(image.flags);
    cpu.state.cpl = 3;
    cpu.state.set_segment(Seg::Cs, cpu.real_segment(Seg::Cs, image.cs));
    for (seg, selector) in [Seg::Ss, Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs].into_iter().zip(selectors) {
        cpu.state.set_segment(seg, cpu.real_segment(seg, selector));
    }
    cpu.state.regs.set_gpr(RSP, sp);
    cpu.state.rip = image.rip;
    Ok(())
}

impl Vcpu {
    /// The code segment of a far return or IRET (SDM Vol. 2, RET: checks common to both), accessed, with its selector
    /// as the RPL to return to.
    ///
    /// # Errors
    /// #GP or #NP with the selector, #GP(0) for null, #PF.
    pub fn return_segment(&mut self, selector: u16) -> Result<Segment, Fault> {
        if is_null(selector) {
            return Err(Fault::gp0());
        }
        let mut cs = self.segment_descriptor(selector, fault::GP)?;
        let level = rpl(selector);
        let privileged = if cs.is(Segment::CONFORMING) { cs.dpl() > level } else { cs.dpl() != level };
        if !cs.is_code() || level < self.state.cpl || privileged {
            return Err(Fault::selector(fault::GP, selector));
        }
        if self.state.long_mode() && cs.is(Segment::L) && cs.is(Segment::DB) {
            return Err(Fault::selector(fault::GP, selector));
        }
        if !cs.is(Segment::P) {
            return Err(Fault::selector(fault::NP, selector));
        }
        self.mark_accessed(&mut cs)?;
        Ok(cs)
    }

    /// The stack segment that a return to level `cpl` pops; null is valid for 64-bit code below level 3.
    ///
    /// # Errors
    /// #GP or #SS with the selector, #GP(0) for null, #PF.
    pub fn return_stack_segment(&mut self, selector: u16, cpl: u8, to_64: bool) -> Result<Segment, Fault> {
        if is_null(selector) {
            let allowed = to_64 && cpl < 3 && rpl(selector) == cpl;
            return if allowed { Ok(Segment::null(selector)) } else { Err(Fault::gp0()) };
        }
        self.stack_segment(selector, cpl, fault::GP)
    }

    /// #GP(0) unless `rip` is a valid instruction pointer in `cs`.
    ///
    /// # Errors
    /// #GP(0).
    pub fn check_target(&self, cs: &Segment, rip: u64) -> Result<(), Fault> {
        let ok =
            if self.state.long_mode() && cs.is(Segment::L) { self.state.canonical(rip) } else { cs.covers(rip, 1) };
        if ok { Ok(()) } else { Err(Fault::gp0()) }
    }
}
