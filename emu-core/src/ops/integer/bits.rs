//! Bit tests and scans, exchanges with comparison, and the forms of MOVZX and XCHG that need a look at the operands.

use super::alu;
use crate::cpu::Width;
use crate::cpu::fault::Fault;
use crate::cpu::regs::{RAX, RBX, RCX, RDX, RegFile};
use crate::cpu::rflags::{FlagOp, ZF};
use crate::decode::insn::{Insn, Kind, prefix};
use crate::exec::Vcpu;
use crate::mmu::walk::Access;
use crate::ops::backend;

/// BT
pub const TEST: u8 = 0;
/// BTS
pub const SET: u8 = 1;
/// BTR
pub const RESET: u8 = 2;
/// BTC
pub const COMPLEMENT: u8 = 3;

/// BT, BTS, BTR, BTC. A register bit offset reaches beyond a memory operand, in units of its size (SDM Vol. 1 3.7.5).
pub fn bit_test<const OP: u8>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let width = insn.width;
    let by_register = insn.ops[1].kind == Kind::Gpr;
    let offset = if by_register { width.sext(cpu.state.regs.get(insn.ops[1].reg, width)) } else { insn.imm };
    let bit = offset & u64::from(width.bits() - 1);
    let change = |x: u64| match OP {
        SET => x | 1 << bit,
        RESET => x & !(1 << bit),
        COMPLEMENT => x ^ 1 << bit,
        _ => x,
    };
    let old = if insn.ops[0].kind == Kind::Gpr {
        let old = cpu.state.regs.get(insn.ops[0].reg, width);
        if OP != TEST {
            cpu.state.regs.set(insn.ops[0].reg, width, change(old));
        }
        old
    } else {
        let units = if by_register { (offset as i64) >> width.bits().trailing_zeros() } else { 0 };
        let address = cpu.effective(&insn.mem, insn.addr).wrapping_add((units * width.bytes() as i64) as u64);
        let access = if OP == TEST { Access::Read } else { Access::Write };
        let linear = cpu.seg_linear(insn.mem.seg, address & insn.addr.mask(), width.bytes(), access)?;
        if OP != TEST {
            cpu.open(linear, width.bytes())?;
        }
        let old = cpu.load_width(linear, width)?;
        if OP != TEST {
            if insn.locked() {
                cpu.store_locked(linear, width, old, change(old))?;
            } else {
                cpu.store_width(linear, width, change(old))?;
            }
        }
        old
    };
    cpu.state.flags.set_cf(old >> bit & 1 != 0);
    Ok(())
}

fn scan(cpu: &mut Vcpu, insn: &Insn, find: impl Fn(u64) -> u32) -> Result<(), Fault> {
    let width = insn.width;
    let x = operand(cpu, insn, 1, width)?;
    if x == 0 {
        // The destination keeps its value on all known processors; a 32-bit one is not even zero-extended.
        cpu.state.flags.set(FlagOp::Sub, 0, 0, 0);
    } else {
        let r = u64::from(find(x));
        cpu.state.regs.set(insn.ops[0].reg, width, r);
        cpu.state.flags.set(FlagOp::Sub, 1, 0, 1);
    }
    Ok(())
}

/// BSF
pub fn bsf(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    scan(cpu, insn, u64::trailing_zeros)
}

/// BSR
pub fn bsr(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    scan(cpu, insn, |x| 63 - x.leading_zeros())
}

/// Operand `n` (register or memory), zero-extended.
pub fn operand(cpu: &mut Vcpu, insn: &Insn, n: usize, width: Width) -> Result<u64, Fault> {
    if insn.ops[n & 3].kind == Kind::Mem {
        let linear = cpu.linear(insn, width.bytes(), Access::Read)?;
        cpu.load_width(linear, width)
    } else {
        Ok(cpu.state.regs.get(insn.ops[n & 3].reg, width))
    }
}

/// MOVZX
pub fn movzx(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    if insn.ops[1].size == 1 {
        backend::exec::<alu::MovZero8>(cpu, insn)
    } else {
        backend::exec::<alu::MovZero16>(cpu, insn)
    }
}

/// XCHG: with memory it is locked whether or not the prefix is there.
pub fn xchg(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let mut insn = *insn;
    if insn.ops[0].kind == Kind::Mem || insn.ops[1].kind == Kind::Mem {
        insn.prefixes |= prefix::LOCK;
    }
    if insn.ops[1].kind == Kind::Mem {
        insn.ops.swap(0, 1);
    }
    backend::exec::<alu::Xchg>(cpu, &insn)
}

/// CMPXCHG. The destination is written in either case, with its old value if the comparison fails.
pub fn cmpxchg(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let width = insn.width;
    let accumulator = cpu.state.regs.get(RegFile::slot(RAX), width);
    let source = cpu.state.regs.get(insn.ops[1].reg, width);
    let old;
    if insn.ops[0].kind == Kind::Mem {
        let linear = cpu.linear(insn, width.bytes(), Access::Write)?;
        cpu.open(linear, width.bytes())?;
        old = cpu.load_width(linear, width)?;
        let new = if old == accumulator { source } else { old };
        if insn.locked() {
            cpu.store_locked(linear, width, old, new)?;
        } else {
            cpu.store_width(linear, width, new)?;
        }
    } else {
        old = cpu.state.regs.get(insn.ops[0].reg, width);
        if old == accumulator {
            cpu.state.regs.set(insn.ops[0].reg, width, source);
        }
        // Otherwise the register is not written at all: its upper half stays.
    }
    if old != accumulator {
        cpu.state.regs.set(RegFile::slot(RAX), width, old);
    }
    let (x, y) = (width.sext(accumulator), width.sext(old));
    cpu.state.flags.set(FlagOp::Sub, x, y, width.sext(x.wrapping_sub(y)));
    Ok(())
}

/// XADD. Of two equal registers the sum is what remains.
pub fn xadd(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let result = super::of::<super::alu::Xadd>(cpu, insn);
    if insn.ops[0] == insn.ops[1] {
        let r = cpu.state.flags.r;
        cpu.state.regs.set(insn.ops[0].reg, insn.width, r);
    }
    result
}

/// CMPXCHG8B and CMPXCHG16B.
pub fn cmpxchg_double(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let wide = insn.mem_size() == 16;
    let size: u64 = if wide { 16 } else { 8 };
    let half = if wide { Width::B8 } else { Width::B4 };
    let linear = cpu.linear(insn, size, Access::Write)?;
    if wide && linear & 15 != 0 {
        return Err(Fault::gp0());
    }
    let pair = |cpu: &Vcpu, high: u8, low: u8| {
        let low = cpu.state.regs.get(RegFile::slot(low), half);
        u128::from(cpu.state.regs.get(RegFile::slot(high), half)) << half.bits() | u128::from(low)
    };
    cpu.open(linear, size)?;
    let old = if wide { cpu.load::<u128>(linear)? } else { u128::from(cpu.load::<u64>(linear)?) };
    let expected = pair(cpu, RDX, RAX);
    let new = if old == expected { pair(cpu, RCX, RBX) } else { old };
    if wide {
        // One vCPU: a plain 16-byte store is atomic.
        cpu.store(linear, new)?;
    } else {
        cpu.store_locked(linear, Width::B8, old as u64, new as u64)?;
    }
    if old != expected {
        cpu.state.regs.set(RegFile::slot(RAX), half, old as u64);
        cpu.state.regs.set(RegFile::slot(RDX), half, (old >> half.bits()) as u64);
    }
    cpu.state.flags.replace(ZF, if old == expected { ZF } else { 0 });
    Ok(())
}
