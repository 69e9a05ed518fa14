//! The complete integer paths of SSE arithmetic: every rounding, special operand and exception.
//!
//! Order of detection (SDM Vol. 1, 4.9.2): NaN operands and other invalid operations, division by zero, denormal
//! operand; then overflow and underflow, then precision. Tininess is detected after rounding.

use super::super::{flags, wide};
use super::{Scalar, SseEnv};
use crate::softfloat::Rounding;
use wide::{Finite, Wide};

/// An operand, taken apart.
#[derive(Clone, Copy)]
pub enum Operand {
    Zero { negative: bool },
    Finite(Finite),
    Infinity { negative: bool },
}

impl Operand {
    fn negative(self) -> bool {
        match self {
            Self::Zero { negative } | Self::Infinity { negative } => negative,
            Self::Finite(finite) => finite.negative,
        }
    }
}

/// Takes a value that is no NaN apart; denormals become zero under DAZ. Returns whether it is a denormal operand (DE).
pub fn unpack<T: Scalar>(env: &SseEnv, a: T) -> (Operand, bool) {
    let bits: u64 = a.into();
    let negative = bits & T::SIGN.into() != 0;
    let fraction = bits & T::FRACTION.into();
    let biased = ((bits & T::INFINITY.into()) >> (T::PRECISION - 1)) as i32;
    if biased == (1 << T::EXPONENT_BITS) - 1 {
        return (Operand::Infinity { negative }, false);
    }
    if biased == 0 {
        if fraction == 0 || env.daz() {
            return (Operand::Zero { negative }, false);
        }
        let shift = fraction.leading_zeros();
        let exponent = 1 - T::BIAS - (shift as i32 - (64 - T::PRECISION as i32));
        return (Operand::Finite(Finite { negative, exponent, significand: fraction << shift }), true);
    }
    let significand = (fraction << (64 - T::PRECISION)) | 1 << 63;
    (Operand::Finite(Finite { negative, exponent: biased - T::BIAS, significand }), false)
}

pub fn zero<T: Scalar>(negative: bool) -> T {
    T::from_bits(if negative { T::SIGN.into() } else { 0 })
}

fn infinity<T: Scalar>(negative: bool) -> T {
    T::from_bits(T::INFINITY.into() | if negative { T::SIGN.into() } else { 0 })
}

/// Assembles a finite value from a rounded significand and the exponent of its integer bit.
fn assemble<T: Scalar>(negative: bool, exponent: i32, significand: u64) -> T {
    let fraction = (significand >> (64 - T::PRECISION)) & T::FRACTION.into();
    let biased = ((exponent + T::BIAS) as u64) << (T::PRECISION - 1);
    T::from_bits(biased | fraction | if negative { T::SIGN.into() } else { 0 })
}

/// Raises IE and returns the default NaN.
pub fn invalid<T: Scalar>(env: &mut SseEnv) -> T {
    env.raise(flags::IE);
    T::DEFAULT_NAN
}

/// The result for two operands of which at least one is a NaN (SDM Vol. 1, table 4-7): the first NaN, made quiet.
pub fn propagate_nan<T: Scalar>(env: &mut SseEnv, a: T, b: T) -> T {
    if a.is_signalling() || b.is_signalling() {
        env.raise(flags::IE);
    }
    if a.is_nan() { a.quieted() } else { b.quieted() }
}

/// Rounds and packs a finite non-zero result, raising OE, UE and PE. If the exception it raises is not masked, the
/// value returned is meaningless, because the instruction does not complete.
pub fn pack<T: Scalar>(env: &mut SseEnv, value: Wide) -> T {
    let rounding = env.rounding();
    let rounded = value.round(T::PRECISION, rounding);
    let exponent = value.exponent + i32::from(rounded.carry);
    let inexact = if rounded.inexact { flags::PE } else { 0 };
    if exponent > T::BIAS {
        return overflow(env, value.negative, rounding, inexact);
    }
    if exponent < 1 - T::BIAS {
        return tiny(env, value, rounding, inexact);
    }
    env.raise(inexact);
    assemble(value.negative, exponent, rounded.significand)
}

fn overflow<T: Scalar>(env: &mut SseEnv, negative: bool, rounding: Rounding, inexact: u32) -> T {
    if !env.is_masked(flags::OE) {
        env.raise(flags::OE | inexact);
        return zero(negative);
    }
    env.raise(flags::OE | flags::PE);
    let away = match rounding {
        Rounding::Nearest => true,
        Rounding::Down => negative,
        Rounding::Up => !negative,
        Rounding::Zero => false,
    };
    if away {
        infinity(negative)
    } else {
        // The largest finite value precedes infinity.
        T::from_bits(infinity::<T>(negative).into() - 1)
    }
}

fn tiny<T: Scalar>(env: &mut SseEnv, value: Wide, rounding: Rounding, inexact: u32) -> T {
    if !env.is_masked(flags::UE) {
        env.raise(flags::UE | inexact);
        return zero(value.negative);
    }
    if env.ftz() {
        env.raise(flags::UE | flags::PE);
        return zero(value.negative);
    }
    let rounded = value.round_denormal(1 - T::BIAS, T::PRECISION, rounding);
    if rounded.inexact {
        env.raise(flags::UE | flags::PE);
    }
    // Rounding may have reached the smallest normal value, whose integer bit then becomes the exponent.
    let bits = rounded.significand >> (64 - T::PRECISION);
    T::from_bits(bits | if value.negative { T::SIGN.into() } else { 0 })
}

#[cold]
#[inline(never)]
pub fn add<T: Scalar>(env: &mut SseEnv, a: T, b: T) -> T {
    add_or_sub(env, a, b, false)
}

#[cold]
#[inline(never)]
pub fn sub<T: Scalar>(env: &mut SseEnv, a: T, b: T) -> T {
    add_or_sub(env, a, b, true)
}

fn add_or_sub<T: Scalar>(env: &mut SseEnv, a: T, b: T, subtract: bool) -> T {
    if a.is_nan() || b.is_nan() {
        return propagate_nan(env, a, b);
    }
    let (x, x_denormal) = unpack(env, a);
    let (y, y_denormal) = unpack(env, if subtract { b.negated() } else { b });
    if let (Operand::Infinity { negative: p }, Operand::Infinity { negative: q }) = (x, y)
        && p != q
    {
        return invalid(env);
    }
    if x_denormal || y_denormal {
        env.raise(flags::DE);
    }
    match (x, y) {
        (Operand::Infinity { negative }, _) | (_, Operand::Infinity { negative }) => infinity(negative),
        (Operand::Zero { negative: p }, Operand::Zero { negative: q }) => {
            zero(if p == q { p } else { env.rounding() == Rounding::Down })
        }
        (Operand::Finite(x), Operand::Zero { .. }) | (Operand::Zero { .. }, Operand::Finite(x)) => pack(env, x.widen()),
        (Operand::Finite(x), Operand::Finite(y)) => match wide::add(x, y) {
            Some(sum) => pack(env, sum),
            None => zero(env.rounding() == Rounding::Down),
        },
    }
}

#[cold]
#[inline(never)]
pub fn mul<T: Scalar>(env: &mut SseEnv, a: T, b: T) -> T {
    if a.is_nan() || b.is_nan() {
        return propagate_nan(env, a, b);
    }
    let (x, x_denormal) = unpack(env, a);
    let (y, y_denormal) = unpack(env, b);
    let negative = x.negative() != y.negative();
    if matches!(
        (x, y),
        (Operand::Infinity { .. }, Operand::Zero { .. }) | (Operand::Zero { .. }, Operand::Infinity { .. })
    ) {
        return invalid(env);
    }
    if x_denormal || y_denormal {
        env.raise(flags::DE);
    }
    match (x, y) {
        (Operand::Finite(x), Operand::Finite(y)) => pack(env, wide::mul(x, y)),
        (Operand::Infinity { .. }, _) | (_, Operand::Infinity { .. }) => infinity(negative),
        _ => zero(negative),
    }
}

#[cold]
#[inline(never)]
pub fn div<T: Scalar>(env: &mut SseEnv, a: T, b: T) -> T {
    if a.is_nan() || b.is_nan() {
        return propagate_nan(env, a, b);
    }
    let (x, x_denormal) = unpack(env, a);
    let (y, y_denormal) = unpack(env, b);
    let negative = x.negative() != y.negative();
    match (x, y) {
        (Operand::Infinity { .. }, Operand::Infinity { .. }) | (Operand::Zero { .. }, Operand::Zero { .. }) => {
            return invalid(env);
        }
        (Operand::Finite(_), Operand::Zero { .. }) => {
            env.raise(flags::ZE);
            return infinity(negative);
        }
        _ => {}
    }
    if x_denormal || y_denormal {
        env.raise(flags::DE);
    }
    match (x, y) {
        (Operand::Finite(x), Operand::Finite(y)) => pack(env, wide::div(x, y)),
        (Operand::Infinity { .. }, _) => infinity(negative),
        _ => zero(negative),
    }
}

#[cold]
#[inline(never)]
pub fn sqrt<T: Scalar>(env: &mut SseEnv, a: T) -> T {
    if a.is_nan() {
        return propagate_nan(env, a, a);
    }
    let (x, denormal) = unpack(env, a);
    match x {
        Operand::Zero { negative } => zero(negative),
        Operand::Infinity { negative: false } => infinity(false),
        Operand::Finite(x) if !x.negative => {
            if denormal {
                env.raise(flags::DE);
            }
            pack(env, wide::sqrt(x))
        }
        _ => invalid(env),
    }
}
