//! FPATAN.
//!
//! The quotient q of the smaller by the larger operand lies in (0, 1]. With i = round(32 q) its arctangent is that of
//! i/32, from a table, and that of (q - i/32) / (1 + q i/32), whose numerator and denominator are exact and whose value
//! is at most 1/64.

use super::super::super::flags;
use super::super::super::wide::{Finite, Wide};
use super::super::{F80, Operand, X87Env, pack, special_operands, unpack};
use super::PI;
use super::fixed::{alternating_series, divide, inexact, inverses, mul_high, scale_by, to_fraction};

/// 1, 1/3, 1/5, ... in Q127.
const ARCTANGENT: [u128; 9] = inverses(1 << 127, 1, 2);

/// The arctangents of i/32 in Q127: each is the one before plus that of 32 / (1024 + i (i - 1)).
static TABLE: [u128; 33] = {
    let coefficients: [u128; 14] = inverses(1 << 127, 1, 2);
    let mut table = [0; 33];
    let mut index = 1;
    while index < 33 {
        let i = index as u128;
        // In Q128; the argument is at most 1/32.
        let argument = (1u128 << 127) / (1024 + i * (i - 1)) * 64;
        let square = mul_high(argument, argument);
        let mut sum = 0;
        let mut term = coefficients.len();
        while term > 0 {
            term -= 1;
            sum = coefficients[term] - mul_high(square, sum);
        }
        table[index] = table[index - 1] + mul_high(argument, sum);
        index += 1;
    }
    table
};

/// FPATAN: the angle of the point (`x`, `y`), from -pi to pi.
pub fn arc_tangent(env: &mut X87Env, y: F80, x: F80) -> F80 {
    if let Some(result) = special_operands(env, x, y) {
        return result;
    }
    let (a, a_denormal) = unpack(x);
    let (b, b_denormal) = unpack(y);
    if a_denormal || b_denormal {
        env.raise(flags::DE);
    }
    let behind = x.is_negative();
    let (exponent, significand) = match (a, b) {
        (Operand::Finite(a), Operand::Finite(b)) => {
            let angle = finite(b, a);
            return pack(env, inexact(Wide { negative: b.negative, ..angle }), 64);
        }
        // Pi / 4 or 3 pi / 4.
        (Operand::Infinity, Operand::Infinity) if behind => (1, PI / 4 * 3),
        (Operand::Infinity, Operand::Infinity) => (-1, PI),
        // Pi / 2.
        (_, Operand::Infinity) | (Operand::Zero, Operand::Finite(_)) => (0, PI),
        // Pi or zero.
        _ if behind => (1, PI),
        _ => return F80::zero(y.is_negative()),
    };
    let angle = Wide::normalised(y.is_negative(), exponent, significand);
    pack(env, inexact(angle), 64)
}

/// The angle of (|x|, |y|) or (-|x|, |y|) as a magnitude.
fn finite(y: Finite, x: Finite) -> Wide {
    let steep = (y.exponent, y.significand) > (x.exponent, x.significand);
    let (small, large) = if steep { (x, y) } else { (y, x) };
    let (index, rest) = first_octant(small, large);
    let behind = x.negative;
    if index == 0 && !steep && !behind {
        return rest;
    }
    // In units of 2^-125, where pi fits.
    const QUARTER_TURN: i128 = (PI >> 2) as i128;
    let magnitude = (to_fraction(rest) >> 3) as i128;
    let octant = (TABLE[index] >> 2) as i128 + if rest.negative { -magnitude } else { magnitude };
    let angle = match (steep, behind) {
        (false, false) => octant,
        (true, false) => QUARTER_TURN - octant,
        (true, true) => QUARTER_TURN + octant,
        (false, true) => 2 * QUARTER_TURN - octant,
    };
    Wide::normalised(false, 2, angle.unsigned_abs())
}

/// The arctangent of `small / large` as a table index and a rest, signed here.
fn first_octant(small: Finite, large: Finite) -> (usize, Wide) {
    let gap = large.exponent - small.exponent;
    if gap > 6 {
        let (significand, below_one) = divide(u128::from(small.significand) << 64, u128::from(large.significand) << 64);
        let quotient = Wide { negative: false, exponent: -gap - i32::from(below_one), significand };
        return (0, small_arctangent(quotient));
    }
    let numerator = u128::from(small.significand);
    let denominator = u128::from(large.significand) << gap;
    let index = (numerator as f64 / denominator as f64 * 32.0 + 0.5) as u32;
    let i = u128::from(index.min(32));
    let (scaled, whole) = (numerator << 5, i * denominator);
    let top = scaled.abs_diff(whole);
    let bottom = (denominator << 5) + i * numerator;
    if top == 0 {
        // No rest at all: zero has no significand, so a value far below takes its place.
        return (i as usize, Wide { negative: false, exponent: -300, significand: 1 << 127 });
    }
    let top = Wide::normalised(scaled < whole, 0, top);
    let bottom = Wide::normalised(false, 0, bottom);
    let (significand, below_one) = divide(top.significand, bottom.significand);
    let exponent = top.exponent - bottom.exponent - i32::from(below_one);
    (i as usize, small_arctangent(Wide { negative: top.negative, exponent, significand }))
}

/// The arctangent of a magnitude of at most about 1/64.
fn small_arctangent(z: Wide) -> Wide {
    let fraction = to_fraction(z);
    let square = mul_high(fraction, fraction);
    scale_by(z, alternating_series(&ARCTANGENT, square) - 1, 127)
}
