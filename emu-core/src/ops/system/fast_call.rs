//! SYSCALL, SYSRET, SYSENTER, SYSEXIT (SDM Vol. 2; Vol. 3A 5.8.7 and 5.8.8; APM Vol. 3 for AMD's other modes).
//!
//! None of them reads a descriptor: segments get fixed contents, and only their selectors come from registers.

use super::{canonical, privileged};
use crate::cpu::control::EFER_SCE;
use crate::cpu::fault::Fault;
use crate::cpu::model::Vendor;
use crate::cpu::regs::{R11, RCX, RDX, RSP};
use crate::cpu::rflags::{IF, RF, TF, VM};
use crate::cpu::segment::{Seg, Segment};
use crate::decode::insn::Insn;
use crate::exec::Vcpu;
use crate::exec::run::DR6_BS;
use iced_x86::Code;

/// Bits of R11 that SYSRET takes into RFLAGS: all but RF, VM and those that do not exist.
const SYSRET_FLAGS: u64 = 0x3c_7fd7;

/// A flat code or stack segment of privilege `rpl`; `attributes` tells which.
fn flat(selector: u16, rpl: u8, attributes: u16) -> Segment {
    Segment {
        selector: (selector & !3) | u16::from(rpl),
        base: 0,
        limit: u32::MAX,
        attributes: attributes
            | Segment::G
            | Segment::P
            | Segment::S
            | Segment::RW
            | Segment::ACCESSED
            | u16::from(rpl) << 5,
        unusable: false,
    }
}

/// Loads flat CS and SS, and the privilege level `rpl`.
fn enter(cpu: &mut Vcpu, cs: u16, ss: u16, rpl: u8, long: bool) {
    let size = if long { Segment::L } else { Segment::DB };
    cpu.state.set_segment(Seg::Cs, flat(cs, rpl, Segment::CODE | size));
    cpu.state.set_segment(Seg::Ss, flat(ss, rpl, Segment::DB));
    cpu.state.cpl = rpl;
    cpu.mode_changed();
}

/// SYSCALL
pub fn syscall(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let msrs = &cpu.state.msrs;
    // Intel has it in 64-bit mode only; AMD in all protected modes.
    let anywhere = cpu.model.vendor == Vendor::Amd && cpu.state.protected();
    if msrs.efer & EFER_SCE == 0 || !(insn.code_bits == 64 || anywhere) {
        return Err(Fault::ud());
    }
    let selector = (msrs.star >> 32) as u16;
    let next = cpu.state.rip;
    if cpu.state.long_mode() {
        let target = if insn.code_bits == 64 { msrs.lstar } else { msrs.cstar };
        let flags = cpu.state.rflags();
        let masked = flags & !cpu.state.msrs.sfmask & !RF;
        cpu.state.regs.set_gpr(RCX, next);
        cpu.state.regs.set_gpr(R11, flags & !RF);
        cpu.state.rip = target;
        cpu.state.set_rflags(masked);
        enter(cpu, selector, (selector & !3).wrapping_add(8), 0, true);
    } else {
        let target = msrs.star & 0xffff_ffff;
        cpu.state.regs.set_gpr(RCX, next & 0xffff_ffff);
        cpu.state.rip = target;
        cpu.state.system_flags &= !(VM | IF | RF);
        enter(cpu, selector, (selector & !3).wrapping_add(8), 0, false);
    }
    // A trap that the kernel has masked is not taken in it.
    cpu.single_step &= cpu.state.has(TF);
    Ok(())
}

/// SYSRET
pub fn sysret(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let amd = cpu.model.vendor == Vendor::Amd;
    if cpu.state.msrs.efer & EFER_SCE == 0 || !(insn.code_bits == 64 || (amd && cpu.state.protected())) {
        return Err(Fault::ud());
    }
    privileged(cpu)?;
    let selector = (cpu.state.msrs.star >> 48) as u16;
    let stack = (selector & !3).wrapping_add(8);
    let target = cpu.state.regs.gpr(RCX);
    let flags = cpu.state.regs.gpr(R11);
    if insn.code == Code::Sysretq {
        // Intel faults here, still at CPL 0; AMD at the target.
        if !amd {
            canonical(cpu, target)?;
        }
        cpu.state.rip = target;
        cpu.state.set_rflags(flags & SYSRET_FLAGS);
        enter(cpu, (selector & !3).wrapping_add(16), stack, 3, true);
    } else {
        cpu.state.rip = target & 0xffff_ffff;
        if insn.code_bits == 64 {
            cpu.state.set_rflags(flags & SYSRET_FLAGS);
        } else {
            cpu.state.system_flags |= IF;
        }
        enter(cpu, selector, stack, 3, false);
    }
    // The trap comes at once, as if the program had stepped over its SYSCALL.
    cpu.single_step = false;
    if cpu.state.has(TF) {
        cpu.state.pending_debug |= DR6_BS;
    }
    Ok(())
}

/// SYSENTER
pub fn sysenter(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    let long = cpu.state.long_mode();
    if long && cpu.model.vendor == Vendor::Amd {
        return Err(Fault::ud());
    }
    let selector = cpu.state.msrs.sysenter_cs as u16 & !3;
    if !cpu.state.protected() || selector == 0 {
        return Err(Fault::gp0());
    }
    let mask = if long { u64::MAX } else { 0xffff_ffff };
    cpu.state.system_flags &= !(VM | IF | RF);
    cpu.state.regs.set_gpr(RSP, cpu.state.msrs.sysenter_esp & mask);
    cpu.state.rip = cpu.state.msrs.sysenter_eip & mask;
    enter(cpu, selector, selector.wrapping_add(8), 0, long);
    Ok(())
}

/// SYSEXIT
pub fn sysexit(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    if cpu.state.long_mode() && cpu.model.vendor == Vendor::Amd {
        return Err(Fault::ud());
    }
    let selector = cpu.state.msrs.sysenter_cs as u16 & !3;
    if !cpu.state.protected() || selector == 0 {
        return Err(Fault::gp0());
    }
    privileged(cpu)?;
    let long = insn.code == Code::Sysexitq;
    let (mut rip, mut rsp) = (cpu.state.regs.gpr(RDX), cpu.state.regs.gpr(RCX));
    if long {
        canonical(cpu, rip)?;
        canonical(cpu, rsp)?;
    } else {
        rip &= 0xffff_ffff;
        rsp &= 0xffff_ffff;
    }
    cpu.state.rip = rip;
    cpu.state.regs.set_gpr(RSP, rsp);
    let cs = selector.wrapping_add(if long { 32 } else { 16 });
    enter(cpu, cs, cs.wrapping_add(8), 3, long);
    Ok(())
}
