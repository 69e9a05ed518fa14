//! FYL2X and FYL2XP1.
//!
//! A significand m in [0.70, 1.42) is multiplied by a tabulated c near 1/m, so that log2 m = log2 (1 + z) - log2 c with
//! z = mc - 1 exact and below 2^-7; next to one c is one, so that small logarithms keep their relative precision.

use super::super::super::wide::{self, Finite, Wide};
use super::super::super::{Relation, flags};
use super::super::{
    F80, Operand, X87Env, compare_unordered, from_int, pack, pack_as_inexact, special_operands, unpack,
};
use super::LOG2_E;
use super::fixed::{alternating_series, inexact, inverses, mul_high, scale_by, series, to_fraction};

/// 1, 1/2, 1/3, ... in Q127.
const LOG: [u128; 14] = inverses(1 << 127, 1, 1);
/// Significands from here on (as their top eight bits) are halved.
const HALVED_FROM: usize = 181;

/// c in units of 1/256, for a significand whose top eight bits are `top`, 128 to 255.
const fn reciprocal(top: usize) -> u128 {
    match top {
        ..=128 | 255.. => 256,
        _ if top < HALVED_FROM => 65536 / (2 * top as u128 + 1),
        _ => 131_072 / (2 * top as u128 + 1),
    }
}

/// |log2 c| in Q127, by the top eight bits of the significand less 128.
static LOG2_RECIPROCAL: [u128; 128] = {
    let mut table = [0; 128];
    let mut index = 0;
    while index < 128 {
        table[index] = log2_ratio(reciprocal(index + 128));
        index += 1;
    }
    table
};

/// |log2 (c / 256)| in Q127: twice the area tangent of (c - 256) / (c + 256), over ln 2.
const fn log2_ratio(c: u128) -> u128 {
    let tangent = ((c.abs_diff(256) << 118) / (c + 256)) << 10;
    let square = mul_high(tangent, tangent);
    let mut sum = 0;
    let mut term = 26;
    while term > 0 {
        term -= 1;
        sum = (1u128 << 127) / (2 * term + 1) + mul_high(square, sum);
    }
    // The inner product is in Q127, the outer one in Q126; the second bit of the shift is the factor of two.
    mul_high(mul_high(tangent, sum), LOG2_E) << 2
}

/// A base-2 logarithm.
enum Logarithm {
    Zero,
    /// An integer, for a power of two.
    Exact(Finite),
    Inexact(Wide),
}

/// log2 of (`significand` / 2^118) * 2^`exponent`, with a significand in [2^118, 2^119) of at most 100 bits or so.
fn log2(mut exponent: i32, significand: u128) -> Logarithm {
    let top = ((significand >> 111) as usize).clamp(128, 255);
    let halved = top >= HALVED_FROM;
    exponent += i32::from(halved);
    // z in units of 2^-126 or 2^-127.
    let product = significand * reciprocal(top);
    let one = 1u128 << if halved { 127 } else { 126 };
    let below = product < one;
    let distance = product.abs_diff(one);
    let log_c = LOG2_RECIPROCAL[top - 128];
    let bit_127 = if halved { 0 } else { 1 };
    let small = (distance != 0).then(|| log2_near_one(Wide::normalised(below, bit_127, distance)));
    match small {
        None if log_c == 0 => match i64::from(exponent) {
            0 => Logarithm::Zero,
            value => Logarithm::Exact(from_int(value).finite()),
        },
        Some(value) if log_c == 0 && exponent == 0 => Logarithm::Inexact(value),
        _ => {
            // In units of 2^-110 there is room for any exponent, and what is lost is far below the result.
            let near = small.map_or(0, |value| {
                let magnitude = (to_fraction(value) >> 18) as i128;
                if value.negative { -magnitude } else { magnitude }
            });
            let table = (log_c >> 17) as i128;
            let sum = (i128::from(exponent) << 110) + near + if halved { -table } else { table };
            Logarithm::Inexact(inexact(Wide::normalised(sum < 0, 127 - 110, sum.unsigned_abs() | 1)))
        }
    }
}

/// log2 (1 + z) for a small z: z log2(e) (1 - z/2 + z^2/3 - ...).
fn log2_near_one(z: Wide) -> Wide {
    let fraction = to_fraction(z);
    let factor = if z.negative { series(&LOG, fraction) } else { alternating_series(&LOG, fraction) };
    inexact(scale_by(scale_by(z, factor, 127), LOG2_E, 127))
}

fn multiply(env: &mut X87Env, logarithm: Logarithm, y: Finite) -> F80 {
    match logarithm {
        Logarithm::Zero => F80::zero(y.negative),
        Logarithm::Exact(x) => {
            // Real processors report an inexact result here, too.
            pack_as_inexact(env, wide::mul(x, y))
        }
        Logarithm::Inexact(x) => {
            let product = Wide { negative: x.negative != y.negative, exponent: x.exponent + y.exponent, ..x };
            pack(env, inexact(scale_by(product, u128::from(y.significand) << 64, 127)), 64)
        }
    }
}

/// FYL2X: `y` times the base-2 logarithm of `x`.
pub fn log2_times(env: &mut X87Env, x: F80, y: F80) -> F80 {
    if let Some(result) = special_operands(env, x, y) {
        return result;
    }
    let (a, a_denormal) = unpack(x);
    let (b, b_denormal) = unpack(y);
    let zero_times_infinity = match (a, b) {
        (Operand::Zero | Operand::Infinity, Operand::Zero) => true,
        (Operand::Finite(_), Operand::Infinity) => x == F80::ONE,
        _ => false,
    };
    if zero_times_infinity || (x.is_negative() && !matches!(a, Operand::Zero)) {
        return env.invalid();
    }
    if let (Operand::Zero, Operand::Finite(_)) = (a, b) {
        env.raise(flags::ZE);
        return F80::infinity(!y.is_negative());
    }
    if a_denormal || b_denormal {
        env.raise(flags::DE);
    }
    // The sign of the logarithm, where it decides alone.
    let below_one = || compare_unordered(&mut X87Env::new(0), x, F80::ONE) == Relation::Less;
    match (a, b) {
        (Operand::Zero, _) => F80::infinity(!y.is_negative()),
        (Operand::Infinity, _) => F80::infinity(y.is_negative()),
        (_, Operand::Infinity) => F80::infinity(y.is_negative() != below_one()),
        (_, Operand::Zero) => F80::zero(y.is_negative() != below_one()),
        (Operand::Finite(a), Operand::Finite(b)) => multiply(env, log2(a.exponent, u128::from(a.significand) << 55), b),
    }
}

/// FYL2XP1: `y` times the base-2 logarithm of `x + 1`. The architecture defines it for |x| below 1 - sqrt(1/2); here it
/// is correct for all x above -1, and below that x itself as in processors.
pub fn log2_plus_1_times(env: &mut X87Env, x: F80, y: F80) -> F80 {
    if let Some(result) = special_operands(env, x, y) {
        return result;
    }
    let (a, a_denormal) = unpack(x);
    let (b, b_denormal) = unpack(y);
    let invalid = match (a, b) {
        (Operand::Infinity, _) => x.is_negative() || matches!(b, Operand::Zero),
        (Operand::Zero, Operand::Infinity) => true,
        _ => false,
    };
    if invalid {
        return env.invalid();
    }
    if a_denormal || b_denormal {
        env.raise(flags::DE);
    }
    let negative = x.is_negative() != y.is_negative();
    match (a, b) {
        (Operand::Infinity, _) | (_, Operand::Infinity) => F80::infinity(negative),
        (Operand::Zero, _) | (_, Operand::Zero) => F80::zero(negative),
        (Operand::Finite(a), Operand::Finite(_)) if a.negative && a.exponent >= 0 => {
            env.raise(flags::PE);
            x
        }
        (Operand::Finite(a), Operand::Finite(b)) => multiply(env, log2_of_one_plus(a), b),
    }
}

fn log2_of_one_plus(a: Finite) -> Logarithm {
    if a.exponent < -7 {
        return Logarithm::Inexact(log2_near_one(a.widen()));
    }
    if a.exponent > 60 {
        // Far outside the defined range: the one is lost.
        return log2(a.exponent, u128::from(a.significand) << 55);
    }
    // In units of the last place of a, of which the one is a multiple: at most 72 bits, so all is exact.
    let scale = 63 - a.exponent;
    let one = 1u128 << scale;
    let addend = u128::from(a.significand);
    let sum = if a.negative { one - addend } else { one + addend };
    let shift = sum.leading_zeros();
    log2(127 - shift as i32 - scale, (sum << shift) >> 9)
}
