//! POP to memory, PUSHA, POPA, ENTER and LEAVE (SDM Vol. 2). All memory is read or checked before a register changes.

use crate::cpu::Width;
use crate::cpu::fault::Fault;
use crate::cpu::regs::{RBP, RSP, RegFile};
use crate::decode::insn::{Insn, Kind};
use crate::exec::Vcpu;
use crate::mmu::walk::Access;

/// POP to a register or memory. An address that uses rSP sees its value after the pop.
pub fn pop(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let width = insn.width;
    let value = cpu.stack_read(0, width)?;
    if insn.ops[0].kind == Kind::Gpr {
        cpu.adjust_sp(width.bytes() as i64);
        cpu.state.regs.set(insn.ops[0].reg, width, value);
        return Ok(());
    }
    let before = cpu.state.regs.gpr(RSP);
    cpu.adjust_sp(width.bytes() as i64);
    let result = cpu.linear(insn, width.bytes(), Access::Write).and_then(|at| cpu.store_width(at, width, value));
    if result.is_err() {
        cpu.state.regs.set_gpr(RSP, before);
    }
    result
}

/// PUSHA, PUSHAD
pub fn pusha(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let width = insn.width;
    let size = width.bytes() as i64;
    // Two passes, so that a fault leaves memory alone too.
    for write in [false, true] {
        for n in 0..8u8 {
            let offset = -size * (i64::from(n) + 1);
            if write {
                let value = cpu.state.regs.get(RegFile::slot(n), width);
                cpu.stack_write(offset, width, value)?;
            } else {
                let at = cpu.sp().wrapping_add(offset as u64) & cpu.state.stack_width().mask();
                let linear = cpu.seg_linear(crate::cpu::segment::Seg::Ss, at, width.bytes(), Access::Write)?;
                cpu.check_alignment(linear, width.bytes())?;
                cpu.probe(linear, width as usize, Access::Write, cpu.privilege())?;
            }
        }
    }
    cpu.adjust_sp(-8 * size);
    Ok(())
}

/// POPA, POPAD: the stored rSP is skipped.
pub fn popa(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let width = insn.width;
    let size = width.bytes() as i64;
    let mut values = [0; 8];
    for (n, value) in values.iter_mut().enumerate() {
        *value = cpu.stack_read(size * n as i64, width)?;
    }
    cpu.adjust_sp(8 * size);
    for (n, value) in values.into_iter().enumerate() {
        let register = 7 - n as u8;
        if register != RSP {
            cpu.state.regs.set(RegFile::slot(register), width, value);
        }
    }
    Ok(())
}

/// ENTER: imm2 is the nesting level, modulo 32.
pub fn enter(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let width = insn.width;
    let size = width.bytes() as i64;
    let level = i64::from(insn.imm2 & 31);
    let frame = insn.imm & 0xffff;
    let stack = cpu.state.stack_width();
    let rbp = RegFile::slot(RBP);
    let old = cpu.state.regs.get(rbp, width);
    let new_frame = cpu.sp().wrapping_sub(size as u64);
    cpu.stack_write(-size, width, old)?;
    for n in 1..level {
        let at = cpu.state.regs.get(rbp, stack).wrapping_sub((size * n) as u64) & stack.mask();
        let linear = cpu.seg_linear(crate::cpu::segment::Seg::Ss, at, width.bytes(), Access::Read)?;
        let display = cpu.load_width(linear, width)?;
        cpu.stack_write(-size * (n + 1), width, display)?;
    }
    if level > 0 {
        cpu.stack_write(-size * (level + 1), width, new_frame)?;
    }
    let pushed = size * (level + 1);
    let sp = cpu.sp().wrapping_sub(pushed as u64).wrapping_sub(frame) & stack.mask();
    // A write to the final stack pointer must be possible (SDM: ENTER's last check).
    let linear = cpu.seg_linear(crate::cpu::segment::Seg::Ss, sp, width.bytes(), Access::Write)?;
    cpu.open(linear, width.bytes())?;
    cpu.set_sp(sp);
    cpu.state.regs.set(rbp, width, new_frame & width.mask());
    Ok(())
}

/// LEAVE
pub fn leave(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let width = insn.width;
    let stack = cpu.state.stack_width();
    let rbp = RegFile::slot(RBP);
    let at = cpu.state.regs.get(rbp, stack);
    let linear = cpu.seg_linear(crate::cpu::segment::Seg::Ss, at, width.bytes(), Access::Read)?;
    let value = cpu.load_width(linear, width)?;
    cpu.set_sp(at.wrapping_add(width.bytes()) & stack.mask());
    cpu.state.regs.set(rbp, width, value);
    Ok(())
}

/// The width in which near transfers of control move the instruction pointer.
pub fn near_width(insn: &Insn, size: u8) -> Width {
    if insn.code_bits == 64 { Width::B8 } else { Width::from_bytes(usize::from(size)) }
}
