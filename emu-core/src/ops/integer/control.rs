//! Near transfers of control. Far ones are in [`crate::ops::far`].

use super::bits::operand;
use super::stack::near_width;
use crate::cpu::Width;
use crate::cpu::fault::Fault;
use crate::cpu::regs::{RCX, RegFile};
use crate::cpu::segment::Seg;
use crate::decode::insn::{Insn, Kind};
use crate::exec::Vcpu;
use iced_x86::Code;

/// Checks a new instruction pointer against CS's limit or for canonicality, before anything else changes.
fn check_target(cpu: &Vcpu, insn: &Insn, target: u64) -> Result<(), Fault> {
    let ok = if insn.code_bits == 64 {
        cpu.state.canonical(target)
    } else {
        target <= u64::from(cpu.state.segment(Seg::Cs).limit)
    };
    if ok { Ok(()) } else { Err(Fault::gp0()) }
}

/// The target of a near branch operand, cut to the operand size.
fn relative(cpu: &Vcpu, insn: &Insn) -> u64 {
    let width = near_width(insn, insn.ops[0].size);
    cpu.state.rip.wrapping_add(insn.imm) & width.mask()
}

fn jump_relative(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let target = relative(cpu, insn);
    check_target(cpu, insn, target)?;
    cpu.state.rip = target;
    Ok(())
}

/// Jcc
pub fn jcc<const CC: u8>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    if cpu.state.flags.condition(CC) { jump_relative(cpu, insn) } else { Ok(()) }
}

/// LOOP, LOOPE, LOOPNE: the count register has the address size.
pub fn loop_(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let (width, condition) = match insn.code {
        Code::Loop_rel8_16_CX | Code::Loop_rel8_32_CX => (Width::B2, true),
        Code::Loop_rel8_16_ECX | Code::Loop_rel8_32_ECX | Code::Loop_rel8_64_ECX => (Width::B4, true),
        Code::Loop_rel8_16_RCX | Code::Loop_rel8_64_RCX => (Width::B8, true),
        Code::Loope_rel8_16_CX | Code::Loope_rel8_32_CX => (Width::B2, cpu.state.flags.zf()),
        Code::Loope_rel8_16_ECX | Code::Loope_rel8_32_ECX | Code::Loope_rel8_64_ECX => {
            (Width::B4, cpu.state.flags.zf())
        }
        Code::Loope_rel8_16_RCX | Code::Loope_rel8_64_RCX => (Width::B8, cpu.state.flags.zf()),
        Code::Loopne_rel8_16_CX | Code::Loopne_rel8_32_CX => (Width::B2, !cpu.state.flags.zf()),
        Code::Loopne_rel8_16_ECX | Code::Loopne_rel8_32_ECX | Code::Loopne_rel8_64_ECX => {
            (Width::B4, !cpu.state.flags.zf())
        }
        _ => (Width::B8, !cpu.state.flags.zf()),
    };
    let count = cpu.state.regs.get(RegFile::slot(RCX), width).wrapping_sub(1) & width.mask();
    if count != 0 && condition {
        jump_relative(cpu, insn)?;
    }
    cpu.state.regs.set(RegFile::slot(RCX), width, count);
    Ok(())
}

/// JCXZ, JECXZ, JRCXZ
pub fn jcxz(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let width = match insn.code {
        Code::Jcxz_rel8_16 | Code::Jcxz_rel8_32 => Width::B2,
        Code::Jecxz_rel8_16 | Code::Jecxz_rel8_32 | Code::Jecxz_rel8_64 => Width::B4,
        _ => Width::B8,
    };
    if cpu.state.regs.get(RegFile::slot(RCX), width) == 0 { jump_relative(cpu, insn) } else { Ok(()) }
}

/// The target of a near jump or call and the size of the pushed address; `None` for far forms.
fn near_target(cpu: &mut Vcpu, insn: &Insn) -> Result<Option<(u64, Width)>, Fault> {
    let target = match insn.ops[0].kind {
        Kind::Near => relative(cpu, insn),
        Kind::Gpr => operand(cpu, insn, 0, near_width(insn, insn.ops[0].size))?,
        Kind::Mem => {
            use Code::*;
            match insn.code {
                Jmp_rm16 | Call_rm16 | Jmp_rm32 | Call_rm32 | Jmp_rm64 | Call_rm64 => {
                    operand(cpu, insn, 0, near_width(insn, insn.ops[0].size))?
                }
                _ => return Ok(None),
            }
        }
        _ => return Ok(None),
    };
    check_target(cpu, insn, target)?;
    Ok(Some((target, near_width(insn, insn.ops[0].size))))
}

/// JMP, near and far
pub fn jmp(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    match near_target(cpu, insn)? {
        Some((target, _)) => {
            cpu.state.rip = target;
            Ok(())
        }
        None => crate::ops::far::jmp(cpu, insn),
    }
}

/// CALL, near and far
pub fn call(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    match near_target(cpu, insn)? {
        Some((target, width)) => {
            cpu.push(width, cpu.state.rip)?;
            cpu.state.rip = target;
            Ok(())
        }
        None => crate::ops::far::call(cpu, insn),
    }
}

/// RET near
pub fn ret(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let width = match insn.code {
        Code::Retnq | Code::Retnq_imm16 => Width::B8,
        Code::Retnd | Code::Retnd_imm16 => Width::B4,
        _ => Width::B2,
    };
    let target = cpu.stack_read(0, width)?;
    check_target(cpu, insn, target)?;
    let extra = if insn.ops[0].kind == Kind::Imm { insn.imm & 0xffff } else { 0 };
    cpu.adjust_sp(width.bytes() as i64 + extra as i64);
    cpu.state.rip = target;
    Ok(())
}
