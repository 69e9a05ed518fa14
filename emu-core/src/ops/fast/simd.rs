//! Specialised handlers of SSE instructions: each form of operand once, for all operations of
//! [`crate::ops::simd_int::packed`].
//!
//! They mirror the functions there, which serve every mode and fault; a handler goes to those whenever an access misses
//! the TLB or an operand is misaligned. Blocks are decoded again when CR0 or CR4 change what SSE instructions raise
//! (`mode::SSE`), and only flat segments come here (`mode::FLAT`). The tests in `tests/tests/host_oracle.rs` run every
//! instruction both ways.

use super::form::{A32, A64, A64I, linear};
use super::{address_form, operands};
use crate::cpu::xmm::Xmm;
use crate::decode::insn::{Insn, Kind};
use crate::exec::cache::ModeKey;
use crate::exec::handlers::unspecialised;
use crate::exec::thread::{Exit, Op, OpRef, dispatch};
use crate::exec::{Vcpu, mode};
use crate::ops::simd_int::packed::{Extract, Insert, MemoryHandlers, Packed, scalar};
use crate::ops::simd_int::pair::Pair;
use crate::ops::simd_int::row_of;

/// The specialised op for instruction `n` of `insns`; `None` if there is none.
pub fn select(key: ModeKey, insns: &[Insn], n: usize) -> Option<Op> {
    let insn = insns.get(n)?;
    if key & mode::SSE == 0 {
        return None;
    }
    let [first, second, ..] = insn.ops;
    if first.kind != Kind::Xmm && second.kind != Kind::Xmm {
        return None;
    }
    let row = row_of(insn.code)?;
    let handler = match (first.kind, second.kind) {
        (Kind::Xmm, Kind::Xmm) => row.register?,
        (Kind::Xmm, Kind::Imm) => row.count?,
        (Kind::Xmm, Kind::Gpr) => row.insert?,
        (Kind::Gpr, Kind::Xmm) => row.extract?,
        (Kind::Xmm, Kind::Mem) => row.load?[addressing(key, insn)?],
        (Kind::Mem, Kind::Xmm) => row.store?[addressing(key, insn)?],
        _ => return None,
    };
    let mut op = Op::new(handler, n as u16);
    operands(insn, &mut op)?;
    Some(op)
}

/// Which of [`MemoryHandlers`] fits: those for `A64`, `A64I` and `A32`. FS and GS are rare in vector code.
fn addressing(key: ModeKey, insn: &Insn) -> Option<usize> {
    match address_form(key, insn)? {
        A64 => Some(0),
        A64I => Some(1),
        A32 => Some(2),
        _ => None,
    }
}

#[inline(always)]
fn number(reg: u8) -> usize {
    usize::from(reg & 15)
}

/// `xmm, xmm`
pub fn register<P: Packed>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let xmm = &mut cpu.state.xmm;
    let (dst, src, xmm0) = (xmm[number(op.r0)], xmm[number(op.r1)], xmm[0]);
    xmm[number(op.r0)] = P::apply(Pair { dst, src, imm: op.imm as u8, xmm0 });
    dispatch(cpu, op.next())
}

/// `xmm, immediate`
pub fn count<P: Packed>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let xmm = &mut cpu.state.xmm;
    let src = scalar(u64::from(op.imm as u8));
    let (dst, xmm0) = (xmm[number(op.r0)], xmm[0]);
    xmm[number(op.r0)] = P::apply(Pair { dst, src, imm: 0, xmm0 });
    dispatch(cpu, op.next())
}

fn load<P: Packed, const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let linear = linear::<A>(cpu, op);
    if P::ALIGNED && !linear.is_multiple_of(P::MEMORY) {
        return unspecialised(cpu, op);
    }
    let Some(at) = cpu.host_read(linear, P::MEMORY) else { return unspecialised(cpu, op) };
    let src = match P::MEMORY {
        16 => at.read::<Xmm>(),
        8 => scalar(at.read::<u64>()),
        4 => scalar(u64::from(at.read::<u32>())),
        _ => scalar(u64::from(at.read::<u16>())),
    };
    let xmm = &mut cpu.state.xmm;
    let (dst, xmm0) = (xmm[number(op.r0)], xmm[0]);
    xmm[number(op.r0)] = P::apply(Pair { dst, src, imm: op.imm as u8, xmm0 });
    dispatch(cpu, op.next())
}

/// `xmm, memory`
pub const fn load_handlers<P: Packed>() -> MemoryHandlers {
    [load::<P, A64>, load::<P, A64I>, load::<P, A32>]
}

fn store16<P: Packed, const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let linear = linear::<A>(cpu, op);
    if P::ALIGNED && !linear.is_multiple_of(16) {
        return unspecialised(cpu, op);
    }
    let Some(at) = cpu.host_write(linear, 16) else { return unspecialised(cpu, op) };
    at.write(cpu.state.xmm[number(op.r1)]);
    dispatch(cpu, op.next())
}

/// `memory, xmm`, all 16 bytes; `P` says whether aligned.
pub const fn store16_handlers<P: Packed>() -> MemoryHandlers {
    [store16::<P, A64>, store16::<P, A64I>, store16::<P, A32>]
}

fn store<E: Extract, const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let linear = linear::<A>(cpu, op);
    let Some(at) = cpu.host_write(linear, E::SIZE) else { return unspecialised(cpu, op) };
    let value = E::apply(cpu.state.xmm[number(op.r1)], op.imm as u8);
    match E::SIZE {
        1 => at.write(value as u8),
        2 => at.write(value as u16),
        4 => at.write(value as u32),
        _ => at.write(value),
    }
    dispatch(cpu, op.next())
}

/// `memory, xmm`, a part of the register.
pub const fn store_handlers<E: Extract>() -> MemoryHandlers {
    [store::<E, A64>, store::<E, A64I>, store::<E, A32>]
}

/// `xmm, general register`
pub fn insert<I: Insert>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let src = cpu.state.regs.get64(op.r1);
    let xmm = &mut cpu.state.xmm[number(op.r0)];
    *xmm = I::apply(*xmm, src, op.imm as u8);
    dispatch(cpu, op.next())
}

/// `general register, xmm`
pub fn extract<E: Extract>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let value = E::apply(cpu.state.xmm[number(op.r1)], op.imm as u8);
    cpu.state.regs.set64(op.r0, value);
    dispatch(cpu, op.next())
}
