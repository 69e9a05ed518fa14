//! Specialised handlers of scalar and packed floating-point instructions.
//!
//! They use [`quick`], which answers only where host arithmetic is known to be exact with all flags; everything else,
//! and every TLB miss, becomes the unspecialised function. So a handler never changes MXCSR, and needs no environment
//! whose address would keep it from ending in a tail call. `tests/tests/fp_host.rs` runs instructions through here.

use super::FpLane;
use super::compare::relation_flags;
use crate::cpu::xmm::Xmm;
use crate::decode::insn::{Insn, Kind, undefined};
use crate::exec::cache::ModeKey;
use crate::exec::handlers::unspecialised;
use crate::exec::thread::{Exit, Handler, Op, OpRef, dispatch};
use crate::exec::{Vcpu, mode};
use crate::mmu::access;
use crate::ops::fast::form::{A32, A64, A64I, linear};
use crate::ops::fast::{address_form, operands};
use crate::softfloat::sse::quick::{self, Add, Div, Max, Min, Mul, Operation, Sqrt, Sub};
use crate::softfloat::sse::{Predicate, RoundControl};
use iced_x86::Mnemonic as M;

/// The specialised op for instruction `n` of `insns`; `None` if there is none.
pub fn select(key: ModeKey, insns: &[Insn], n: usize) -> Option<Op> {
    let insn = insns.get(n)?;
    let [first, second, ..] = insn.ops;
    let vector = first.kind == Kind::Xmm || second.kind == Kind::Xmm;
    if key & mode::SSE == 0 || !vector || std::ptr::fn_addr_eq(insn.exec, undefined as crate::ops::Exec) {
        return None;
    }
    let form = match second.kind {
        Kind::Mem => match address_form(key, insn)? {
            A64 => 1,
            A64I => 2,
            A32 => 3,
            _ => return None,
        },
        Kind::Xmm | Kind::Gpr => 0,
        _ => return None,
    };
    let handler = handlers(insn)?[form];
    let mut op = Op::new(handler, n as u16);
    operands(insn, &mut op)?;
    Some(op)
}

/// A source register, and memory addressed as `A64`, `A64I` and `A32`.
type Forms = [Handler; 4];

macro_rules! forms {
    ($handler:ident $(, $parameter:ty)*) => {{
        let forms: Forms = [
            $handler::<$($parameter,)* REGISTER>,
            $handler::<$($parameter,)* A64>,
            $handler::<$($parameter,)* A64I>,
            $handler::<$($parameter,)* A32>,
        ];
        forms
    }};
}

fn handlers(insn: &Insn) -> Option<Forms> {
    let is_sse = insn.ops[0].kind != Kind::Mem;
    Some(match insn.code.mnemonic() {
        M::Addss => forms!(scalar, Add, u32),
        M::Addsd => forms!(scalar, Add, u64),
        M::Addps => forms!(packed4, Add),
        M::Addpd => forms!(packed2, Add),
        M::Subss => forms!(scalar, Sub, u32),
        M::Subsd => forms!(scalar, Sub, u64),
        M::Subps => forms!(packed4, Sub),
        M::Subpd => forms!(packed2, Sub),
        M::Mulss => forms!(scalar, Mul, u32),
        M::Mulsd => forms!(scalar, Mul, u64),
        M::Mulps => forms!(packed4, Mul),
        M::Mulpd => forms!(packed2, Mul),
        M::Divss => forms!(scalar, Div, u32),
        M::Divsd => forms!(scalar, Div, u64),
        M::Divps => forms!(packed4, Div),
        M::Divpd => forms!(packed2, Div),
        M::Sqrtss => forms!(scalar, Sqrt, u32),
        M::Sqrtsd => forms!(scalar, Sqrt, u64),
        M::Sqrtps => forms!(packed4, Sqrt),
        M::Sqrtpd => forms!(packed2, Sqrt),
        M::Minss => forms!(scalar, Min, u32),
        M::Minsd => forms!(scalar, Min, u64),
        M::Minps => forms!(packed4, Min),
        M::Minpd => forms!(packed2, Min),
        M::Maxss => forms!(scalar, Max, u32),
        M::Maxsd => forms!(scalar, Max, u64),
        M::Maxps => forms!(packed4, Max),
        M::Maxpd => forms!(packed2, Max),
        M::Cmpss => forms!(compare_scalar, u32),
        M::Cmpsd if is_sse => forms!(compare_scalar, u64),
        M::Cmpps => forms!(compare4),
        M::Cmppd => forms!(compare2),
        M::Roundss => forms!(round, u32),
        M::Roundsd => forms!(round, u64),
        // The ordered and unordered comparisons differ only for NaNs, which are not handled here.
        M::Comiss | M::Ucomiss => forms!(compare_flags, u32),
        M::Comisd | M::Ucomisd => forms!(compare_flags, u64),
        M::Cvtss2sd => forms!(single_to_double),
        M::Cvtsd2ss => forms!(double_to_single),
        M::Cvtsi2ss if insn.ops[1].size == 8 => forms!(from_int64, u32),
        M::Cvtsi2sd if insn.ops[1].size == 8 => forms!(from_int64, u64),
        M::Cvtsi2ss => forms!(from_int32, u32),
        M::Cvtsi2sd => forms!(from_int32, u64),
        M::Cvttss2si if insn.ops[0].size == 8 => forms!(truncated64, u32),
        M::Cvttsd2si if insn.ops[0].size == 8 => forms!(truncated64, u64),
        M::Cvttss2si => forms!(truncated32, u32),
        M::Cvttsd2si => forms!(truncated32, u64),
        M::Cvtdq2ps => forms!(dwords_to_single),
        M::Cvttps2dq => forms!(single_to_dwords),
        _ => return None,
    })
}

/// Beside the ways of addressing: the source is a register.
const REGISTER: u8 = 255;

#[inline(always)]
fn number(reg: u8) -> usize {
    usize::from(reg & 15)
}

/// The lowest lane of the source; `None` on a TLB miss.
#[inline(always)]
fn low_source<T: FpLane, const A: u8>(cpu: &Vcpu, op: OpRef) -> Option<T> {
    if A == REGISTER {
        return Some(T::low(&cpu.state.xmm[number(op.r1)]));
    }
    cpu.host_read(linear::<A>(cpu, op), <T as access::Scalar>::SIZE).map(|at| at.read())
}

/// All of the source; `None` on a TLB miss and if it is not aligned.
#[inline(always)]
fn packed_source<const A: u8>(cpu: &Vcpu, op: OpRef) -> Option<Xmm> {
    if A == REGISTER {
        return Some(cpu.state.xmm[number(op.r1)]);
    }
    let linear = linear::<A>(cpu, op);
    if !linear.is_multiple_of(16) {
        return None;
    }
    cpu.host_read(linear, 16).map(|at| at.read())
}

/// Goes on with the next instruction, or to the unspecialised function.
#[inline(always)]
fn finish(cpu: &mut Vcpu, op: OpRef, done: Option<()>) -> Exit {
    match done {
        Some(()) => dispatch(cpu, op.next()),
        None => unspecialised(cpu, op),
    }
}

fn scalar<O: Operation, T: FpLane, const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = low_source::<T, A>(cpu, op).and_then(|b| {
        let mxcsr = cpu.state.mxcsr;
        let destination = &mut cpu.state.xmm[number(op.r0)];
        quick::apply::<O, T>(mxcsr, T::low(destination), b).map(|r| T::set_low(destination, r))
    });
    finish(cpu, op, done)
}

#[inline(always)]
fn packed<O: Operation, T: FpLane, const N: usize, const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Option<()> {
    let b = packed_source::<A>(cpu, op)?.lanes::<T, N>();
    let mxcsr = cpu.state.mxcsr;
    let destination = &mut cpu.state.xmm[number(op.r0)];
    let r = quick::apply_lanes::<O, T, N>(mxcsr, destination.lanes::<T, N>(), b)?;
    *destination = Xmm::from_lanes(r);
    Some(())
}

fn packed4<O: Operation, const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = packed::<O, u32, 4, A>(cpu, op);
    finish(cpu, op, done)
}

fn packed2<O: Operation, const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = packed::<O, u64, 2, A>(cpu, op);
    finish(cpu, op, done)
}

fn compare_scalar<T: FpLane, const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = low_source::<T, A>(cpu, op).and_then(|b| {
        let destination = &mut cpu.state.xmm[number(op.r0)];
        let predicate = Predicate::from_imm8(op.imm as u8);
        let holds = quick::predicate(predicate, T::low(destination), b)?;
        T::set_low(destination, T::from_bits(if holds { u64::MAX } else { 0 }));
        Some(())
    });
    finish(cpu, op, done)
}

#[inline(always)]
fn compare_packed<T: FpLane, const N: usize, const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Option<()> {
    let b = packed_source::<A>(cpu, op)?.lanes::<T, N>();
    let destination = &mut cpu.state.xmm[number(op.r0)];
    let predicate = Predicate::from_imm8(op.imm as u8);
    let mut lanes = destination.lanes::<T, N>();
    for (lane, b) in lanes.iter_mut().zip(b) {
        *lane = T::from_bits(if quick::predicate(predicate, *lane, b)? { u64::MAX } else { 0 });
    }
    *destination = Xmm::from_lanes(lanes);
    Some(())
}

fn compare4<const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = compare_packed::<u32, 4, A>(cpu, op);
    finish(cpu, op, done)
}

fn compare2<const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = compare_packed::<u64, 2, A>(cpu, op);
    finish(cpu, op, done)
}

fn round<T: FpLane, const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = low_source::<T, A>(cpu, op)
        .and_then(|b| quick::round_to_integral(cpu.state.mxcsr, b, RoundControl::from_imm8(op.imm as u8)))
        .map(|r| T::set_low(&mut cpu.state.xmm[number(op.r0)], r));
    finish(cpu, op, done)
}

fn compare_flags<T: FpLane, const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = low_source::<T, A>(cpu, op).and_then(|b| {
        let relation = quick::relation(T::low(&cpu.state.xmm[number(op.r0)]), b)?;
        cpu.state.flags.set_bits(relation_flags(relation));
        Some(())
    });
    finish(cpu, op, done)
}

fn single_to_double<const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = low_source::<u32, A>(cpu, op)
        .and_then(quick::single_to_double)
        .map(|r| cpu.state.xmm[number(op.r0)].set64(0, r));
    finish(cpu, op, done)
}

fn double_to_single<const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = low_source::<u64, A>(cpu, op)
        .and_then(|b| quick::double_to_single(cpu.state.mxcsr, b))
        .map(|r| cpu.state.xmm[number(op.r0)].set32(0, r));
    finish(cpu, op, done)
}

/// A general register or memory as an integer; `None` on a TLB miss.
#[inline(always)]
fn int_source<const A: u8, const SIZE: u64>(cpu: &Vcpu, op: OpRef) -> Option<i64> {
    let bits = if A == REGISTER {
        cpu.state.regs.get64(op.r1)
    } else {
        let at = cpu.host_read(linear::<A>(cpu, op), SIZE)?;
        if SIZE == 8 { at.read::<u64>() } else { u64::from(at.read::<u32>()) }
    };
    Some(if SIZE == 8 { bits as i64 } else { i64::from(bits as i32) })
}

#[inline(always)]
fn from_int<T: FpLane>(cpu: &mut Vcpu, op: OpRef, value: Option<i64>) -> Exit {
    let done = value
        .and_then(|value| quick::int_to_float(cpu.state.mxcsr, value))
        .map(|r: T| T::set_low(&mut cpu.state.xmm[number(op.r0)], r));
    finish(cpu, op, done)
}

fn from_int32<T: FpLane, const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let value = int_source::<A, 4>(cpu, op);
    from_int::<T>(cpu, op, value)
}

fn from_int64<T: FpLane, const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let value = int_source::<A, 8>(cpu, op);
    from_int::<T>(cpu, op, value)
}

fn truncated32<T: FpLane, const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = low_source::<T, A>(cpu, op)
        .and_then(|b| quick::to_int_truncated(cpu.state.mxcsr, b, 32))
        .map(|r| cpu.state.regs.set32(op.r0, r as u32));
    finish(cpu, op, done)
}

fn truncated64<T: FpLane, const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = low_source::<T, A>(cpu, op)
        .and_then(|b| quick::to_int_truncated(cpu.state.mxcsr, b, 64))
        .map(|r| cpu.state.regs.set64(op.r0, r as u64));
    finish(cpu, op, done)
}

fn dwords_to_single<const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = packed_source::<A>(cpu, op).and_then(|b| {
        let mut r = [0u32; 4];
        for (r, value) in r.iter_mut().zip(b.lanes::<i32, 4>()) {
            *r = quick::int_to_float(cpu.state.mxcsr, i64::from(value))?;
        }
        cpu.state.xmm[number(op.r0)] = Xmm::from_lanes(r);
        Some(())
    });
    finish(cpu, op, done)
}

fn single_to_dwords<const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = packed_source::<A>(cpu, op).and_then(|b| {
        let mut r = [0i32; 4];
        for (r, value) in r.iter_mut().zip(b.lanes::<u32, 4>()) {
            *r = quick::to_int_truncated(cpu.state.mxcsr, value, 32)? as i32;
        }
        cpu.state.xmm[number(op.r0)] = Xmm::from_lanes(r);
        Some(())
    });
    finish(cpu, op, done)
}
