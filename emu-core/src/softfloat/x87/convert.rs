//! Loads and stores of the x87: single, double, integer and packed decimal memory operands.

use super::super::sse::Scalar;
use super::super::wide::{Wide, round_significand, shift_right_sticky};
use super::super::{Rounding, flags};
use super::{Class, F80, Operand, X87Env, unpack};

/// FLD m32fp: exact; a signalling NaN is invalid and made quiet, a denormal raises DE.
#[inline]
pub fn from_single(env: &mut X87Env, a: u32) -> F80 {
    from_scalar(env, a)
}

/// FLD m64fp.
#[inline]
pub fn from_double(env: &mut X87Env, a: u64) -> F80 {
    from_scalar(env, a)
}

/// The value of a single precision operand of arithmetic, which raises nothing before the operation does: a signalling
/// NaN stays one. The flag tells a denormal.
#[inline]
pub fn widen_single(a: u32) -> (F80, bool) {
    widen(a)
}

/// As [`widen_single`], for double precision.
#[inline]
pub fn widen_double(a: u64) -> (F80, bool) {
    widen(a)
}

#[inline]
fn widen<T: Scalar>(a: T) -> (F80, bool) {
    if a.is_signalling() {
        let quiet = from_scalar(&mut X87Env::new(super::control::INITIAL), a);
        return (F80 { significand: quiet.significand & !super::QUIET_BIT, ..quiet }, false);
    }
    (from_scalar(&mut X87Env::new(super::control::INITIAL), a), a.is_denormal())
}

#[inline]
fn from_scalar<T: Scalar>(env: &mut X87Env, a: T) -> F80 {
    let bits: u64 = a.into();
    let sign = if bits & T::SIGN.into() != 0 { super::SIGN } else { 0 };
    let fraction = (bits & T::FRACTION.into()) << (64 - T::PRECISION);
    let biased = ((bits & T::INFINITY.into()) >> (T::PRECISION - 1)) as i32;
    let rebias = |exponent: i32| (exponent + (super::BIAS - T::BIAS)) as u16 | sign;
    if a.is_normal() {
        return F80::new(rebias(biased), super::INTEGER_BIT | fraction);
    }
    if a.is_zero() {
        return F80::new(sign, 0);
    }
    if a.is_denormal() {
        env.raise(flags::DE);
        let shift = fraction.leading_zeros();
        return F80::new(rebias(1 - shift as i32), fraction << shift);
    }
    if a.is_signalling() {
        env.raise(flags::IE);
    }
    let quiet = if a.is_nan() { super::QUIET_BIT } else { 0 };
    F80::new(sign | super::EXPONENT, super::INTEGER_BIT | quiet | fraction)
}

/// FILD: exact. A 16- or 32-bit source is sign-extended by the caller.
#[inline]
pub fn from_int(value: i64) -> F80 {
    if value == 0 {
        return F80::ZERO;
    }
    let magnitude = value.unsigned_abs();
    let shift = magnitude.leading_zeros();
    F80::assemble(value < 0, 63 - shift as i32, magnitude << shift)
}

/// FST m32fp. If the store is aborted ([`X87Env::store_aborted`]) the value is meaningless.
#[inline]
pub fn to_single(env: &mut X87Env, a: F80) -> u32 {
    to_scalar(env, a)
}

/// FST m64fp, as [`to_single`].
#[inline]
pub fn to_double(env: &mut X87Env, a: F80) -> u64 {
    to_scalar(env, a)
}

#[inline]
fn to_scalar<T: Scalar>(env: &mut X87Env, a: F80) -> T {
    if a.is_normal() {
        let x = a.finite();
        let rounded = x.widen().round(T::PRECISION, env.rounding());
        let exponent = x.exponent + i32::from(rounded.carry);
        if (1 - T::BIAS..=T::BIAS).contains(&exponent) {
            if rounded.inexact {
                env.raise(flags::PE);
            }
            env.rounded_up = rounded.up;
            let fraction = (rounded.significand >> (64 - T::PRECISION)) & T::FRACTION.into();
            let biased = ((exponent + T::BIAS) as u64) << (T::PRECISION - 1);
            return signed(x.negative, biased | fraction);
        }
    }
    to_scalar_special(env, a)
}

fn signed<T: Scalar>(negative: bool, magnitude: u64) -> T {
    T::from_bits(magnitude | if negative { T::SIGN.into() } else { 0 })
}

#[cold]
#[inline(never)]
fn to_scalar_special<T: Scalar>(env: &mut X87Env, a: F80) -> T {
    let negative = a.is_negative();
    match a.class() {
        Class::Unsupported => {
            env.raise(flags::IE);
            return T::DEFAULT_NAN;
        }
        class @ (Class::SignallingNan | Class::QuietNan) => {
            if class == Class::SignallingNan {
                env.raise(flags::IE);
            }
            let payload = (a.significand >> (64 - T::PRECISION)) & T::FRACTION.into();
            return signed(negative, T::INFINITY.into() | T::QUIET.into() | payload);
        }
        _ => {}
    }
    match unpack(a).0 {
        Operand::Zero => signed(negative, 0),
        Operand::Infinity => signed(negative, T::INFINITY.into()),
        Operand::Finite(x) => out_of_range(env, x.widen()),
    }
}

/// A store that overflows or is tiny. It raises no DE.
fn out_of_range<T: Scalar>(env: &mut X87Env, value: Wide) -> T {
    let rounding = env.rounding();
    let rounded = value.round(T::PRECISION, rounding);
    if value.exponent + i32::from(rounded.carry) > T::BIAS {
        if !env.is_masked(flags::OE) {
            env.raise(flags::OE);
            return signed(value.negative, 0);
        }
        env.raise(flags::OE | flags::PE);
        let away = match rounding {
            Rounding::Nearest => true,
            Rounding::Down => value.negative,
            Rounding::Up => !value.negative,
            Rounding::Zero => false,
        };
        env.rounded_up = away;
        return signed(value.negative, T::INFINITY.into() - u64::from(!away));
    }
    if !env.is_masked(flags::UE) {
        env.raise(flags::UE);
        return signed(value.negative, 0);
    }
    let rounded = value.round_denormal(1 - T::BIAS, T::PRECISION, rounding);
    if rounded.inexact {
        env.raise(flags::UE | flags::PE);
    }
    env.rounded_up = rounded.up;
    signed(value.negative, rounded.significand >> (64 - T::PRECISION))
}

/// FIST, FISTP: rounds as the control word says to an integer of `bits` (16, 32 or 64) bits, sign-extended. Out of
/// range: IE and the integer indefinite, the most negative value.
#[inline]
pub fn to_int(env: &mut X87Env, a: F80, bits: u32) -> i64 {
    to_int_rounded(env, a, bits, env.rounding())
}

/// FISTTP: as [`to_int`], rounding towards zero.
#[inline]
pub fn to_int_truncated(env: &mut X87Env, a: F80, bits: u32) -> i64 {
    to_int_rounded(env, a, bits, Rounding::Zero)
}

fn to_int_rounded(env: &mut X87Env, a: F80, bits: u32, rounding: Rounding) -> i64 {
    let limit = 1u64 << (bits - 1);
    match to_magnitude(env, a, limit - u64::from(!a.is_negative()), rounding) {
        Some(magnitude) if a.is_negative() => (magnitude as i64).wrapping_neg(),
        Some(magnitude) => magnitude as i64,
        None => (limit as i64).wrapping_neg(),
    }
}

/// The rounded magnitude of `a` up to and including `maximum`; else raises IE and gives `None`.
fn to_magnitude(env: &mut X87Env, a: F80, maximum: u64, rounding: Rounding) -> Option<u64> {
    if matches!(a.class(), Class::Unsupported | Class::SignallingNan | Class::QuietNan) {
        env.raise(flags::IE);
        return None;
    }
    let x = match unpack(a).0 {
        Operand::Zero => return Some(0),
        Operand::Finite(x) if x.exponent <= 63 => x,
        Operand::Finite(_) | Operand::Infinity => {
            env.raise(flags::IE);
            return None;
        }
    };
    // Aligned so that the integer part is the high half.
    let aligned = shift_right_sticky(u128::from(x.significand) << 64, (63 - x.exponent) as u32);
    let rounded = round_significand(aligned, x.negative, 64, rounding);
    if rounded.carry || rounded.significand > maximum {
        env.raise(flags::IE);
        return None;
    }
    if rounded.inexact {
        env.raise(flags::PE);
    }
    env.rounded_up = rounded.up;
    Some(rounded.significand)
}

/// FBLD: 18 packed decimal digits, least significant first, and a sign in bit 7 of the last byte.
pub fn from_bcd(bytes: [u8; 10]) -> F80 {
    let [digits @ .., sign] = bytes;
    let magnitude =
        digits.iter().rev().fold(0u64, |value, byte| value * 100 + u64::from(byte >> 4) * 10 + u64::from(byte & 15));
    let value = from_int(magnitude as i64);
    if sign & 0x80 != 0 { value.negated() } else { value }
}

/// The packed BCD indefinite.
pub const BCD_INDEFINITE: [u8; 10] = [0, 0, 0, 0, 0, 0, 0, 0xC0, 0xFF, 0xFF];

/// FBSTP: rounds to an integer of at most 18 digits. Out of range: IE and the packed BCD indefinite.
pub fn to_bcd(env: &mut X87Env, a: F80) -> [u8; 10] {
    const LARGEST: u64 = 999_999_999_999_999_999;
    let mut bytes = [0; 10];
    let Some(mut magnitude) = to_magnitude(env, a, LARGEST, env.rounding()) else {
        return BCD_INDEFINITE;
    };
    for byte in &mut bytes[..9] {
        let pair = (magnitude % 100) as u8;
        *byte = ((pair / 10) << 4) | (pair % 10);
        magnitude /= 100;
    }
    bytes[9] = if a.is_negative() { 0x80 } else { 0 };
    bytes
}
