//! FPREM, FPREM1, FSCALE, FRNDINT and FXTRACT: exact operations on exponents and integer parts.

use super::super::flags;
use super::super::wide::{Finite, Wide, round_significand, shift_right_sticky};
use super::{F80, Operand, X87Env, from_int, pack, special_operand, special_operands, unpack};

/// The result of FPREM or FPREM1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remainder {
    pub value: F80,
    pub quotient: Quotient,
}

/// What the condition codes tell of a remainder's quotient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quotient {
    /// There is none, because the result is a NaN: C2 is cleared and C0 and C3 stay.
    Absent,
    /// The reduction is incomplete: C2 is set and the others are cleared.
    Incomplete,
    /// Its low three bits: C1, C3, C0 from bit 0 up. C2 is cleared.
    Bits(u8),
}

/// FPREM: the remainder of `a / b` with a truncated quotient.
pub fn partial_remainder(env: &mut X87Env, a: F80, b: F80) -> Remainder {
    remainder(env, a, b, false)
}

/// FPREM1: the IEEE 754 remainder, whose quotient is rounded to nearest even.
pub fn ieee_remainder(env: &mut X87Env, a: F80, b: F80) -> Remainder {
    remainder(env, a, b, true)
}

fn remainder(env: &mut X87Env, a: F80, b: F80, to_nearest: bool) -> Remainder {
    let special = |value| Remainder { value, quotient: Quotient::Absent };
    if let Some(value) = special_operands(env, a, b) {
        return special(value);
    }
    let (x, x_denormal) = unpack(a);
    let (y, y_denormal) = unpack(b);
    if matches!(x, Operand::Infinity) || matches!(y, Operand::Zero) {
        return special(env.invalid());
    }
    if x_denormal || y_denormal {
        env.raise(flags::DE);
    }
    match (x, y) {
        (Operand::Finite(x), Operand::Finite(y)) => finite_remainder(env, x, y, to_nearest),
        _ => Remainder { value: a.canonical(), quotient: Quotient::Bits(0) },
    }
}

fn finite_remainder(env: &mut X87Env, x: Finite, y: Finite, to_nearest: bool) -> Remainder {
    let gap = x.exponent - y.exponent;
    if gap >= 64 {
        // One step lowers the exponent by 32 to 63, as many as leave a multiple of 32 for those that follow.
        let step = (gap & 31) | 32;
        let rest = (u128::from(x.significand) << step) % u128::from(y.significand);
        let value = scaled(env, x.negative, x.exponent - step, rest);
        return Remainder { value, quotient: Quotient::Incomplete };
    }
    if gap < if to_nearest { -1 } else { 0 } {
        return Remainder { value: pack(env, x.widen(), 64), quotient: Quotient::Bits(0) };
    }
    // Both on the scale of the smaller exponent.
    let (dividend, divisor) = if gap < 0 {
        (u128::from(x.significand), u128::from(y.significand) << 1)
    } else {
        (u128::from(x.significand) << gap, u128::from(y.significand))
    };
    let mut quotient = dividend / divisor;
    let mut rest = dividend - quotient * divisor;
    let mut negative = x.negative;
    if to_nearest && (rest << 1 > divisor || (rest << 1 == divisor && quotient & 1 != 0)) {
        quotient += 1;
        rest = divisor - rest;
        negative = !negative;
    }
    let value = if rest == 0 { F80::zero(x.negative) } else { scaled(env, negative, x.exponent.min(y.exponent), rest) };
    Remainder { value, quotient: Quotient::Bits(quotient as u8 & 7) }
}

/// A remainder of at most 65 bits in units of the last place at `exponent`; exact, unless it underflows unmasked.
fn scaled(env: &mut X87Env, negative: bool, exponent: i32, rest: u128) -> F80 {
    if rest == 0 { F80::zero(negative) } else { pack(env, Wide::normalised(negative, exponent + 64, rest), 64) }
}

/// FSCALE: `a` times two to the power of `b` truncated to an integer.
pub fn scale(env: &mut X87Env, a: F80, b: F80) -> F80 {
    if let Some(result) = special_operands(env, a, b) {
        return result;
    }
    let (x, x_denormal) = unpack(a);
    let (y, y_denormal) = unpack(b);
    match (x, y) {
        (Operand::Infinity, Operand::Infinity) if b.is_negative() => return env.invalid(),
        (Operand::Zero, Operand::Infinity) if !b.is_negative() => return env.invalid(),
        _ => {}
    }
    if x_denormal || y_denormal {
        env.raise(flags::DE);
    }
    match (x, y) {
        (Operand::Infinity | Operand::Zero, _) | (_, Operand::Zero) => a.canonical(),
        (_, Operand::Infinity) if b.is_negative() => F80::zero(a.is_negative()),
        (_, Operand::Infinity) => F80::infinity(a.is_negative()),
        (Operand::Finite(x), Operand::Finite(y)) => {
            // From 2^16 on the result is far out of range, whatever the operand.
            let distance = match y.exponent {
                ..0 => 0,
                0..16 => (y.significand >> (63 - y.exponent)) as i32,
                _ => 1 << 17,
            };
            let exponent = x.exponent + if y.negative { -distance } else { distance };
            pack(env, Wide { exponent, ..x.widen() }, 64)
        }
    }
}

/// FRNDINT: rounds to an integral value as the control word says.
pub fn round_to_integral(env: &mut X87Env, a: F80) -> F80 {
    if let Some(result) = special_operand(env, a) {
        return result;
    }
    let (Operand::Finite(x), denormal) = unpack(a) else {
        return a;
    };
    if denormal {
        env.raise(flags::DE);
    }
    if x.exponent >= 63 {
        return a;
    }
    let aligned = shift_right_sticky(u128::from(x.significand) << 64, (63 - x.exponent) as u32);
    let rounded = round_significand(aligned, x.negative, 64, env.rounding());
    if rounded.inexact {
        env.raise(flags::PE);
    }
    env.rounded_up = rounded.up;
    if rounded.significand == 0 {
        return F80::zero(x.negative);
    }
    let exponent = 63 + i32::from(rounded.carry);
    let integer = Wide::normalised(x.negative, exponent, u128::from(rounded.significand) << 64);
    F80::assemble(integer.negative, integer.exponent, (integer.significand >> 64) as u64)
}

/// FXTRACT: the exponent as a number, and the significand scaled to [1, 2).
pub fn extract(env: &mut X87Env, a: F80) -> (F80, F80) {
    if let Some(result) = special_operand(env, a) {
        return (result, result);
    }
    match unpack(a) {
        (Operand::Zero, _) => {
            env.raise(flags::ZE);
            (F80::infinity(true), a)
        }
        (Operand::Infinity, _) => (F80::infinity(false), a),
        (Operand::Finite(x), denormal) => {
            if denormal {
                env.raise(flags::DE);
            }
            (from_int(i64::from(x.exponent)), F80::assemble(x.negative, 0, x.significand))
        }
    }
}
