//! FADD, FSUB, FMUL, FDIV, FSQRT and the comparisons.
//!
//! Each function begins with the case of normal operands, which is short enough to inline; the rest is cold.

use super::super::{Relation, Rounding, flags, wide};
use super::{Class, F80, Operand, X87Env, pack, special_operand, special_operands, unpack};

/// `a + b` (FADD, FADDP, FIADD).
#[inline]
pub fn add(env: &mut X87Env, a: F80, b: F80) -> F80 {
    if a.is_normal()
        && b.is_normal()
        && let Some(sum) = wide::add(a.finite(), b.finite())
    {
        return pack(env, sum, env.precision());
    }
    add_special(env, a, b, b)
}

/// `a - b`.
#[inline]
pub fn sub(env: &mut X87Env, a: F80, b: F80) -> F80 {
    if a.is_normal()
        && b.is_normal()
        && let Some(difference) = wide::add(a.finite(), b.negated().finite())
    {
        return pack(env, difference, env.precision());
    }
    add_special(env, a, b.negated(), b)
}

/// `a + addend`, where `b` is the operand that a NaN response quotes: a subtraction does not negate it.
#[cold]
#[inline(never)]
fn add_special(env: &mut X87Env, a: F80, addend: F80, b: F80) -> F80 {
    if let Some(result) = special_operands(env, a, b) {
        return result;
    }
    let (x, x_denormal) = unpack(a);
    let (y, y_denormal) = unpack(addend);
    let signs_differ = a.is_negative() != addend.is_negative();
    if matches!((x, y), (Operand::Infinity, Operand::Infinity)) && signs_differ {
        return env.invalid();
    }
    if x_denormal || y_denormal {
        env.raise(flags::DE);
    }
    let cancelled = F80::zero(env.rounding() == Rounding::Down);
    match (x, y) {
        (Operand::Infinity, _) => a,
        (_, Operand::Infinity) => addend,
        (Operand::Zero, Operand::Zero) => {
            if signs_differ {
                cancelled
            } else {
                a
            }
        }
        (Operand::Finite(x), Operand::Zero) | (Operand::Zero, Operand::Finite(x)) => {
            pack(env, x.widen(), env.precision())
        }
        (Operand::Finite(x), Operand::Finite(y)) => match wide::add(x, y) {
            Some(sum) => pack(env, sum, env.precision()),
            None => cancelled,
        },
    }
}

/// `a * b`.
#[inline]
pub fn mul(env: &mut X87Env, a: F80, b: F80) -> F80 {
    if a.is_normal() && b.is_normal() {
        return pack(env, wide::mul(a.finite(), b.finite()), env.precision());
    }
    mul_special(env, a, b)
}

#[cold]
#[inline(never)]
fn mul_special(env: &mut X87Env, a: F80, b: F80) -> F80 {
    if let Some(result) = special_operands(env, a, b) {
        return result;
    }
    let (x, x_denormal) = unpack(a);
    let (y, y_denormal) = unpack(b);
    let negative = a.is_negative() != b.is_negative();
    if matches!((x, y), (Operand::Infinity, Operand::Zero) | (Operand::Zero, Operand::Infinity)) {
        return env.invalid();
    }
    if x_denormal || y_denormal {
        env.raise(flags::DE);
    }
    match (x, y) {
        (Operand::Infinity, _) | (_, Operand::Infinity) => F80::infinity(negative),
        (Operand::Finite(x), Operand::Finite(y)) => pack(env, wide::mul(x, y), env.precision()),
        _ => F80::zero(negative),
    }
}

/// `a / b`.
#[inline]
pub fn div(env: &mut X87Env, a: F80, b: F80) -> F80 {
    if a.is_normal() && b.is_normal() {
        return pack(env, wide::div(a.finite(), b.finite()), env.precision());
    }
    div_special(env, a, b)
}

#[cold]
#[inline(never)]
fn div_special(env: &mut X87Env, a: F80, b: F80) -> F80 {
    if let Some(result) = special_operands(env, a, b) {
        return result;
    }
    let (x, x_denormal) = unpack(a);
    let (y, y_denormal) = unpack(b);
    let negative = a.is_negative() != b.is_negative();
    match (x, y) {
        (Operand::Infinity, Operand::Infinity) | (Operand::Zero, Operand::Zero) => return env.invalid(),
        (Operand::Finite(_), Operand::Zero) => {
            env.raise(flags::ZE);
            return F80::infinity(negative);
        }
        _ => {}
    }
    if x_denormal || y_denormal {
        env.raise(flags::DE);
    }
    match (x, y) {
        (Operand::Infinity, _) => F80::infinity(negative),
        (Operand::Finite(x), Operand::Finite(y)) => pack(env, wide::div(x, y), env.precision()),
        _ => F80::zero(negative),
    }
}

/// The square root of `a`.
pub fn sqrt(env: &mut X87Env, a: F80) -> F80 {
    if let Some(result) = special_operand(env, a) {
        return result;
    }
    let (x, denormal) = unpack(a);
    match x {
        Operand::Zero => a,
        _ if a.is_negative() => env.invalid(),
        Operand::Infinity => a,
        Operand::Finite(x) => {
            if denormal {
                env.raise(flags::DE);
            }
            pack(env, wide::sqrt(x), env.precision())
        }
    }
}

/// FCOM, FCOMI, FTST and their relatives: any NaN is invalid.
#[inline]
pub fn compare_ordered(env: &mut X87Env, a: F80, b: F80) -> Relation {
    compare(env, a, b, true)
}

/// FUCOM, FUCOMI: only a signalling NaN or an unsupported encoding is invalid.
#[inline]
pub fn compare_unordered(env: &mut X87Env, a: F80, b: F80) -> Relation {
    compare(env, a, b, false)
}

#[inline]
fn compare(env: &mut X87Env, a: F80, b: F80, signals_on_quiet_nan: bool) -> Relation {
    if !(a.is_normal() && b.is_normal()) {
        for operand in [a, b] {
            match operand.class() {
                Class::Unsupported | Class::SignallingNan => {
                    env.raise(flags::IE);
                }
                Class::QuietNan if signals_on_quiet_nan => {
                    env.raise(flags::IE);
                }
                _ => {}
            }
        }
        let unordered = |x: F80| matches!(x.class(), Class::Unsupported | Class::SignallingNan | Class::QuietNan);
        if unordered(a) || unordered(b) {
            return Relation::Unordered;
        }
        if a.class() == Class::Denormal || b.class() == Class::Denormal {
            env.raise(flags::DE);
        }
        if a.class() == Class::Zero && b.class() == Class::Zero {
            return Relation::Equal;
        }
    }
    if a.is_negative() != b.is_negative() {
        return if a.is_negative() { Relation::Less } else { Relation::Greater };
    }
    // A pseudo-denormal has the value that its significand has at exponent 1.
    let key = |x: F80| {
        let pseudo = u16::from(x.sign_exp & super::EXPONENT == 0 && x.significand & super::INTEGER_BIT != 0);
        ((x.sign_exp & super::EXPONENT) + pseudo, x.significand)
    };
    match key(a).cmp(&key(b)) {
        std::cmp::Ordering::Equal => Relation::Equal,
        order if (order == std::cmp::Ordering::Less) != a.is_negative() => Relation::Less,
        _ => Relation::Greater,
    }
}
