//! F2XM1.

use super::super::super::flags;
use super::super::super::wide::Wide;
use super::super::{F80, Operand, X87Env, pack, special_operand, unpack};
use super::LN_2;
use super::fixed::{alternating_series, inexact, inverse_factorials, mul_high, series, to_fraction};

/// 1/1!, 1/2!, 1/3!, ... in Q126, so that the sum has room above one.
const EXPONENTIAL: [u128; 15] = inverse_factorials(1 << 126, 2, 1);

/// F2XM1: `2^a - 1` for `a` from -1 to 1. Outside that range the architecture leaves the result undefined; here as in
/// processors it is the operand.
pub fn exp2_minus_1(env: &mut X87Env, a: F80) -> F80 {
    if let Some(result) = special_operand(env, a) {
        return result;
    }
    let (x, denormal) = match unpack(a) {
        (Operand::Zero, _) => return a,
        (Operand::Infinity, _) => return if a.is_negative() { F80::ONE.negated() } else { a },
        (Operand::Finite(x), denormal) => (x, denormal),
    };
    if denormal {
        env.raise(flags::DE);
    }
    if x.exponent >= 0 {
        env.raise(flags::PE);
        return if a == F80::ONE.negated() { F80::assemble(true, -1, 1 << 63) } else { a };
    }
    // t = a ln 2; the series is for t / 4, at most 0.174 in magnitude, where 15 terms give 2^-85.
    let quarter = Wide::normalised(x.negative, x.exponent - 2, mul_high(x.widen().significand, LN_2));
    let fraction = to_fraction(quarter);
    let factor = if x.negative { alternating_series(&EXPONENTIAL, fraction) } else { series(&EXPONENTIAL, fraction) };
    let mut value = scale(quarter, factor);
    // e^2t - 1 = (e^t - 1)(e^t + 1), twice.
    for _ in 0..2 {
        let increment = to_fraction(value) >> 2;
        let two = 1u128 << 127;
        value = scale(value, if x.negative { two - increment } else { two + increment });
    }
    pack(env, inexact(value), 64)
}

/// The product with a factor in Q126.
fn scale(value: Wide, factor: u128) -> Wide {
    super::fixed::scale_by(value, factor, 126)
}
