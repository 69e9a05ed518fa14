//! Shifts and rotates (SDM Vol. 2, SAL/SAR/SHL/SHR and RCL/RCR/ROL/ROR).
//!
//! The count is masked to 5 bits, or 6 for 64-bit operands; a masked count of zero changes no flag. Where the SDM leaves
//! a flag undefined (OF for counts above 1, AF), the value here is the one that follows from the general formula.

use super::alu::semantics;
use crate::cpu::Width;
use crate::cpu::rflags::{CF, OF};
use crate::ops::backend::{Backend, Semantics};

semantics! {
    /// SHL, SAL
    Shl(b) {
        let x = b.open(0)?;
        let n = count(b)?;
        let width = b.width();
        let zero_extended = b.zext(width, x);
        let shifted = b.shl(zero_extended, n);
        let r = b.sext(width, shifted);
        b.commit(0, r)?;
        let out = if width == Width::B8 {
            let size = b.imm(64);
            let back = b.sub(size, n);
            b.shr(x, back)
        } else {
            let size = b.imm(u64::from(width.bits()));
            b.shr(shifted, size)
        };
        let carry = low_bit(b, out);
        let top = sign(b, r);
        let overflow = b.xor(top, carry);
        let bits = carry_overflow(b, carry, overflow);
        b.set_parts_if(n, bits, r);
    }
    /// SHR
    Shr(b) {
        let x = b.open(0)?;
        let n = count(b)?;
        let width = b.width();
        let zero_extended = b.zext(width, x);
        let shifted = b.shr(zero_extended, n);
        let r = b.sext(width, shifted);
        b.commit(0, r)?;
        let one = b.imm(1);
        let before = b.sub(n, one);
        let out = b.shr(zero_extended, before);
        let carry = low_bit(b, out);
        let overflow = sign(b, x);
        let bits = carry_overflow(b, carry, overflow);
        b.set_parts_if(n, bits, r);
    }
    /// SAR
    Sar(b) {
        let x = b.open(0)?;
        let n = count(b)?;
        let r = b.sar(x, n);
        b.commit(0, r)?;
        let one = b.imm(1);
        let before = b.sub(n, one);
        let out = b.sar(x, before);
        let bits = low_bit(b, out);
        b.set_parts_if(n, bits, r);
    }
    /// ROL
    Rol(b) {
        let x = b.open(0)?;
        let n = count(b)?;
        let r = rotate_left(b, x, n);
        b.commit(0, r)?;
        let carry = low_bit(b, r);
        let top = sign(b, r);
        let overflow = b.xor(top, carry);
        let bits = carry_overflow(b, carry, overflow);
        b.set_cf_of_if(n, bits);
    }
    /// ROR
    Ror(b) {
        let x = b.open(0)?;
        let n = count(b)?;
        let zero = b.imm(0);
        let back = b.sub(zero, n);
        let r = rotate_left(b, x, back);
        b.commit(0, r)?;
        let carry = sign(b, r);
        let one = b.imm(1);
        let doubled = b.shl(r, one);
        let doubled = b.sext(b.width(), doubled);
        let second = sign(b, doubled);
        let overflow = b.xor(carry, second);
        let bits = carry_overflow(b, carry, overflow);
        b.set_cf_of_if(n, bits);
    }
}

#[inline(always)]
fn count<B: Backend>(b: &mut B) -> Result<B::V, B::Trap> {
    let n = b.read(1)?;
    let mask = b.imm(if b.width() == Width::B8 { 63 } else { 31 });
    Ok(b.and(n, mask))
}

#[inline(always)]
fn low_bit<B: Backend>(b: &mut B, x: B::V) -> B::V {
    let one = b.imm(1);
    b.and(x, one)
}

/// The sign of a sign-extended value as 0 or 1.
#[inline(always)]
fn sign<B: Backend>(b: &mut B, x: B::V) -> B::V {
    let n = b.imm(63);
    b.shr(x, n)
}

#[inline(always)]
fn carry_overflow<B: Backend>(b: &mut B, carry: B::V, overflow: B::V) -> B::V {
    let n = b.imm(u64::from(OF.trailing_zeros()));
    let high = b.shl(overflow, n);
    b.or(high, carry)
}

/// Rotates within the operation's width, sign-extended. `n` counts modulo the width.
#[inline(always)]
fn rotate_left<B: Backend>(b: &mut B, x: B::V, n: B::V) -> B::V {
    let width = b.width();
    let mask = b.imm(u64::from(width.bits()) - 1);
    let n = b.and(n, mask);
    let x = b.zext(width, x);
    let left = b.shl(x, n);
    // Two steps, since a shift by the whole width would be none.
    let rest = b.sub(mask, n);
    let one = b.imm(1);
    let half = b.shr(x, one);
    let right = b.shr(half, rest);
    let joined = b.or(left, right);
    b.sext(width, joined)
}

semantics! {
    /// RCL
    Rcl(b) {
        let x = b.open(0)?;
        let n = count(b)?;
        let n = modulo(b, n);
        let width = b.width();
        let cf = b.carry();
        let (r, carry) = through_carry(b, x, cf, n, true);
        let r = b.sext(width, r);
        b.commit(0, r)?;
        let top = sign(b, r);
        let overflow = b.xor(top, carry);
        let bits = carry_overflow(b, carry, overflow);
        b.set_cf_of_if(n, bits);
    }
    /// RCR
    Rcr(b) {
        let x = b.open(0)?;
        let n = count(b)?;
        let n = modulo(b, n);
        let width = b.width();
        let cf = b.carry();
        let (r, carry) = through_carry(b, x, cf, n, false);
        let r = b.sext(width, r);
        b.commit(0, r)?;
        let top = sign(b, r);
        let one = b.imm(1);
        let doubled = b.shl(r, one);
        let doubled = b.sext(width, doubled);
        let second = sign(b, doubled);
        let overflow = b.xor(top, second);
        let bits = carry_overflow(b, carry, overflow);
        b.set_cf_of_if(n, bits);
    }
}

/// The count of a rotation through carry: it goes round after 9 or 17 bits. A whole turn leaves the flags alone.
#[inline(always)]
fn modulo<B: Backend>(b: &mut B, n: B::V) -> B::V {
    let (turn, times) = match b.width() {
        Width::B1 => (9, 3),
        Width::B2 => (17, 1),
        _ => return n,
    };
    let turn = b.imm(turn);
    let mut n = n;
    for _ in 0..times {
        let rest = b.sub(n, turn);
        let within = less(b, n, turn);
        n = b.select(within, n, rest);
    }
    n
}

/// One rotation step a bit, at most 63: select keeps what later steps must not touch.
#[inline(always)]
fn through_carry<B: Backend>(b: &mut B, x: B::V, cf: B::V, n: B::V, left: bool) -> (B::V, B::V) {
    let width = b.width();
    let top = b.imm(u64::from(width.bits()) - 1);
    let one = b.imm(1);
    let mut r = b.zext(width, x);
    let mut carry = cf;
    let most = width.bits().min(if width == Width::B8 { 63 } else { 31 });
    for step in 0..most {
        let step = b.imm(u64::from(step));
        let (next, out) = if left {
            let out = b.shr(r, top);
            let out = b.and(out, one);
            let moved = b.shl(r, one);
            let moved = b.zext(width, moved);
            (b.or(moved, carry), out)
        } else {
            let out = b.and(r, one);
            let moved = b.shr(r, one);
            let high = b.shl(carry, top);
            (b.or(moved, high), out)
        };
        let later = less(b, step, n);
        r = b.select(later, next, r);
        carry = b.select(later, out, carry);
    }
    (r, carry)
}

/// 1 if `a < b` for small values.
#[inline(always)]
fn less<B: Backend>(b: &mut B, x: B::V, y: B::V) -> B::V {
    let difference = b.sub(x, y);
    sign(b, difference)
}

/// SHLD and SHRD. Counts above the operand's width (16-bit operands only) give undefined results.
pub struct DoubleShift<const LEFT: bool>;
impl<const LEFT: bool> Semantics for DoubleShift<LEFT> {
    #[inline(always)]
    fn run<B: Backend>(b: &mut B) -> Result<(), B::Trap> {
        let x = b.open(0)?;
        let fill = b.read(1)?;
        let n = b.read(2)?;
        let width = b.width();
        let mask = b.imm(if width == Width::B8 { 63 } else { 31 });
        let n = b.and(n, mask);
        let size = b.imm(u64::from(width.bits()));
        let one = b.imm(1);
        let x0 = b.zext(width, x);
        let fill0 = b.zext(width, fill);
        let rest = b.sub(size, n);
        let before = b.sub(n, one);
        // A shift by 64 would be none: with 64 bits the filling bits move in two steps.
        let wide = width == Width::B8;
        let rest1 = if wide { b.sub(rest, one) } else { rest };
        let (joined, out) = if LEFT {
            let high = b.shl(x0, n);
            let half = if wide { b.shr(fill0, one) } else { fill0 };
            let low = b.shr(half, rest1);
            let carry = b.shr(x0, rest);
            (b.or(high, low), carry)
        } else {
            let low = b.shr(x0, n);
            let double = if wide { b.shl(fill0, one) } else { fill0 };
            let high = b.shl(double, rest1);
            let carry = b.shr(x0, before);
            (b.or(low, high), carry)
        };
        let r = b.sext(width, joined);
        let r = b.select(n, r, x);
        b.commit(0, r)?;
        let carry = low_bit(b, out);
        let changed = b.xor(x, r);
        let overflow = sign(b, changed);
        let bits = carry_overflow(b, carry, overflow);
        b.set_parts_if(n, bits, r);
        Ok(())
    }
}

/// Bits that [`carry_overflow`] makes: kept next to it so that a change of RFLAGS constants is caught.
const _: () = assert!(CF == 1 && OF == 0x800);
