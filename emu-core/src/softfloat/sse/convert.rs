//! Conversions between formats and integers, and ROUNDSS/ROUNDSD.

use super::super::{Rounding, flags, wide};
use super::exact::{self, Operand};
use super::{Scalar, SseEnv, quick};
use wide::{Wide, round_significand};

/// CVTSD2SS.
#[inline(always)]
pub fn double_to_single(env: &mut SseEnv, a: u64) -> u32 {
    match quick::double_to_single(env.known(), a) {
        Some(result) => result,
        None => double_to_single_exact(env, a),
    }
}

#[cold]
fn double_to_single_exact(env: &mut SseEnv, a: u64) -> u32 {
    if a.is_nan() {
        if a.is_signalling() {
            env.raise(flags::IE);
        }
        // The payload keeps its top bits.
        return ((a >> 32) as u32 & u32::SIGN) | u32::INFINITY | u32::QUIET | ((a >> 29) as u32 & u32::FRACTION);
    }
    let (operand, denormal) = exact::unpack(env, a);
    if denormal {
        env.raise(flags::DE);
    }
    match operand {
        Operand::Zero { negative } => exact::zero(negative),
        Operand::Infinity { negative } => u32::INFINITY | if negative { u32::SIGN } else { 0 },
        Operand::Finite(x) => exact::pack(env, x.widen()),
    }
}

/// CVTSS2SD: exact, but a denormal raises DE and a signalling NaN IE.
#[inline(always)]
pub fn single_to_double(env: &mut SseEnv, a: u32) -> u64 {
    match quick::single_to_double(a) {
        Some(result) => result,
        None => single_to_double_exact(env, a),
    }
}

#[cold]
fn single_to_double_exact(env: &mut SseEnv, a: u32) -> u64 {
    let sign = u64::from(a & u32::SIGN) << 32;
    if a.is_nan() {
        if a.is_signalling() {
            env.raise(flags::IE);
        }
        return sign | u64::INFINITY | u64::QUIET | u64::from(a & u32::FRACTION) << 29;
    }
    let (operand, denormal) = exact::unpack(env, a);
    if denormal {
        env.raise(flags::DE);
    }
    match operand {
        Operand::Zero { .. } => sign,
        Operand::Infinity { .. } => sign | u64::INFINITY,
        Operand::Finite(x) => exact::pack(env, x.widen()),
    }
}

/// CVTSI2SS, CVTSI2SD, CVTDQ2PS, CVTDQ2PD; a 32-bit source is sign-extended by the caller.
#[inline(always)]
pub fn int_to_float<T: Scalar>(env: &mut SseEnv, value: i64) -> T {
    match quick::int_to_float(env.known(), value) {
        Some(result) => result,
        None => int_to_float_exact(env, value),
    }
}

#[cold]
fn int_to_float_exact<T: Scalar>(env: &mut SseEnv, value: i64) -> T {
    if value == 0 {
        return exact::zero(false);
    }
    let magnitude = u128::from(value.unsigned_abs());
    exact::pack(env, Wide::normalised(value < 0, 127, magnitude))
}

/// CVTSS2SI, CVTSD2SI, CVTPS2DQ, CVTPD2DQ and the MMX forms: rounds as MXCSR says to an integer of `bits` (32 or 64)
/// bits, sign-extended. Out of range: IE and the integer indefinite, the most negative value.
#[inline(always)]
pub fn to_int<T: Scalar>(env: &mut SseEnv, a: T, bits: u32) -> i64 {
    match quick::to_int(env.known(), a) {
        Some(result) => result,
        None => {
            let rounding = env.rounding();
            to_int_exact(env, a, bits, rounding)
        }
    }
}

/// CVTTSS2SI and its relatives: as [`to_int`], rounding towards zero.
#[inline(always)]
pub fn to_int_truncated<T: Scalar>(env: &mut SseEnv, a: T, bits: u32) -> i64 {
    match quick::to_int_truncated(env.known(), a, bits) {
        Some(result) => result,
        None => to_int_exact(env, a, bits, Rounding::Zero),
    }
}

#[cold]
#[inline(never)]
fn to_int_exact<T: Scalar>(env: &mut SseEnv, a: T, bits: u32, rounding: Rounding) -> i64 {
    let indefinite = if bits == 32 { i64::from(i32::MIN) } else { i64::MIN };
    if a.is_nan() {
        env.raise(flags::IE);
        return indefinite;
    }
    let x = match exact::unpack(env, a).0 {
        Operand::Zero { .. } => return 0,
        Operand::Finite(x) if x.exponent <= 63 => x,
        Operand::Finite(_) | Operand::Infinity { .. } => {
            env.raise(flags::IE);
            return indefinite;
        }
    };
    // Aligned so that the integer part is the high half.
    let aligned = wide::shift_right_sticky(u128::from(x.significand) << 64, (63 - x.exponent) as u32);
    let rounded = round_significand(aligned, x.negative, 64, rounding);
    let limit = 1u64 << (bits - 1);
    let out_of_range = rounded.carry || rounded.significand > limit - u64::from(!x.negative);
    if out_of_range {
        env.raise(flags::IE);
        return indefinite;
    }
    if rounded.inexact {
        env.raise(flags::PE);
    }
    let magnitude = rounded.significand as i64;
    if x.negative { magnitude.wrapping_neg() } else { magnitude }
}

/// The immediate of ROUNDSS and its relatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundControl {
    /// The immediate's own rounding mode; `None` takes that of MXCSR.
    pub rounding: Option<Rounding>,
    /// An inexact result does not raise PE.
    pub suppress_precision: bool,
}

impl RoundControl {
    /// Decodes imm8; its high four bits are reserved and ignored.
    #[inline(always)]
    pub const fn from_imm8(imm8: u8) -> Self {
        let rounding = if imm8 & 4 != 0 { None } else { Some(Rounding::from_rc(imm8 as u32)) };
        Self { rounding, suppress_precision: imm8 & 8 != 0 }
    }
}

/// ROUNDSS, ROUNDSD, ROUNDPS, ROUNDPD: rounds to an integral value of the same format. A denormal raises no DE.
#[inline(always)]
pub fn round_to_integral<T: Scalar>(env: &mut SseEnv, a: T, control: RoundControl) -> T {
    match quick::round_to_integral(env.known(), a, control) {
        Some(result) => result,
        None => round_exact(env, a, control),
    }
}

/// Magnitudes below one, NaNs, and results that raise PE.
#[cold]
fn round_exact<T: Scalar>(env: &mut SseEnv, a: T, control: RoundControl) -> T {
    if a.is_nan() {
        return exact::propagate_nan(env, a, a);
    }
    let Operand::Finite(x) = exact::unpack(env, a).0 else {
        return T::from_bits(a.into() & T::SIGN.into());
    };
    if !control.suppress_precision {
        env.raise(flags::PE);
    }
    if x.exponent >= 0 {
        // Inexact, and nothing is left to raise.
        let quiet = RoundControl { suppress_precision: true, ..control };
        return quick::round_to_integral(env.known(), a, quiet).unwrap_or(a);
    }
    let rounding = control.rounding.unwrap_or(env.rounding());
    // x.exponent is at most -1, so the value is a fraction of 2^64 units, with a sticky bit.
    let rest = wide::shift_right_sticky(u128::from(x.significand), (-1 - x.exponent) as u32) as u64;
    let sign = a.into() & T::SIGN.into();
    let one = (T::BIAS as u64) << (T::PRECISION - 1);
    T::from_bits(if rounding.increments(x.negative, rest, false) { sign | one } else { sign })
}
