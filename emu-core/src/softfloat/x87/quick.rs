//! The fast paths: normal operands whose result is normal.
//!
//! The functions take the control word and give the value with what it raises, at most PE; `None` means that only the
//! complete functions beside this module know. They take no address of anything, so that the interpreter's handlers can
//! use them and still end in a tail call.

use super::super::flags;
use super::super::sse::Scalar;
use super::super::wide::{self, Wide, round_significand, shift_right_sticky};
use super::super::{Relation, Rounding};
use super::{BIAS, EXPONENT, F80, INTEGER_BIT, MINIMUM_EXPONENT, SIGN, X87Env};

/// A result.
#[derive(Clone, Copy)]
pub struct Computed<T> {
    pub value: T,
    /// PE is raised.
    pub inexact: bool,
    /// C1: the magnitude was rounded up.
    pub up: bool,
}

impl<T> Computed<T> {
    #[inline(always)]
    fn exact(value: T) -> Self {
        Self { value, inexact: false, up: false }
    }
}

#[inline(always)]
fn pack(control: u16, value: Wide) -> Option<Computed<F80>> {
    let env = X87Env::new(control);
    let rounded = match env.precision() {
        64 => value.round(64, env.rounding()),
        precision => value.round(precision, env.rounding()),
    };
    let exponent = value.exponent + i32::from(rounded.carry);
    let in_range = exponent.wrapping_sub(MINIMUM_EXPONENT) as u32 <= (BIAS - MINIMUM_EXPONENT) as u32;
    (in_range && !traps(control, rounded.inexact)).then(|| Computed {
        value: F80::assemble(value.negative, exponent, rounded.significand),
        inexact: rounded.inexact,
        up: rounded.up,
    })
}

/// An inexact result is an unmasked exception.
#[inline(always)]
fn traps(control: u16, inexact: bool) -> bool {
    inexact && u32::from(control) & flags::PE == 0
}

impl F80 {
    #[inline(always)]
    fn is_zero(self) -> bool {
        self.sign_exp & EXPONENT == 0 && self.significand == 0
    }
}

/// A two-operand operation.
pub trait Operation {
    fn apply(control: u16, a: F80, b: F80) -> Option<Computed<F80>>;
}

/// `a + b`
pub struct Add;
/// `a - b`
pub struct Sub;
/// `b - a`
pub struct SubR;
/// `a * b`
pub struct Mul;
/// `a / b`
pub struct Div;
/// `b / a`
pub struct DivR;

impl Operation for Add {
    #[inline(always)]
    fn apply(control: u16, a: F80, b: F80) -> Option<Computed<F80>> {
        if a.is_normal() && b.is_normal() {
            return match wide::add(a.finite(), b.finite()) {
                Some(sum) => pack(control, sum),
                None => Some(Computed::exact(F80::zero(X87Env::new(control).rounding() == Rounding::Down))),
            };
        }
        match (a.is_zero(), b.is_zero()) {
            (true, false) if b.is_normal() => pack(control, b.finite().widen()),
            (false, true) if a.is_normal() => pack(control, a.finite().widen()),
            _ => None,
        }
    }
}

impl Operation for Sub {
    #[inline(always)]
    fn apply(control: u16, a: F80, b: F80) -> Option<Computed<F80>> {
        Add::apply(control, a, b.negated())
    }
}

impl Operation for SubR {
    #[inline(always)]
    fn apply(control: u16, a: F80, b: F80) -> Option<Computed<F80>> {
        Add::apply(control, b, a.negated())
    }
}

impl Operation for Mul {
    #[inline(always)]
    fn apply(control: u16, a: F80, b: F80) -> Option<Computed<F80>> {
        if a.is_normal() && b.is_normal() {
            return pack(control, wide::mul(a.finite(), b.finite()));
        }
        let zero = (a.is_zero() && (b.is_normal() || b.is_zero())) || (b.is_zero() && a.is_normal());
        zero.then(|| Computed::exact(F80::zero(a.is_negative() != b.is_negative())))
    }
}

impl Operation for Div {
    #[inline(always)]
    fn apply(control: u16, a: F80, b: F80) -> Option<Computed<F80>> {
        if a.is_normal() && b.is_normal() { pack(control, wide::div(a.finite(), b.finite())) } else { None }
    }
}

impl Operation for DivR {
    #[inline(always)]
    fn apply(control: u16, a: F80, b: F80) -> Option<Computed<F80>> {
        Div::apply(control, b, a)
    }
}

/// FSQRT.
#[inline(always)]
pub fn sqrt(control: u16, a: F80) -> Option<Computed<F80>> {
    if a.is_normal() && !a.is_negative() { pack(control, wide::sqrt(a.finite())) } else { None }
}

/// FLD of single or double precision: normal values and zeros.
#[inline(always)]
pub fn from_scalar<T: Scalar>(a: T) -> Option<F80> {
    let bits: u64 = a.into();
    let sign = if bits & T::SIGN.into() != 0 { SIGN } else { 0 };
    if a.is_normal() {
        let biased = ((bits & T::INFINITY.into()) >> (T::PRECISION - 1)) as i32 + (BIAS - T::BIAS);
        let fraction = (bits & T::FRACTION.into()) << (64 - T::PRECISION);
        return Some(F80::new(biased as u16 | sign, INTEGER_BIT | fraction));
    }
    a.is_zero().then(|| F80::new(sign, 0))
}

/// FST of single or double precision.
#[inline(always)]
pub fn to_scalar<T: Scalar>(control: u16, a: F80) -> Option<Computed<T>> {
    let sign = if a.is_negative() { T::SIGN.into() } else { 0 };
    if !a.is_normal() {
        return a.is_zero().then(|| Computed::exact(T::from_bits(sign)));
    }
    let x = a.finite();
    let rounded = x.widen().round(T::PRECISION, X87Env::new(control).rounding());
    let exponent = x.exponent + i32::from(rounded.carry);
    let in_range = (1 - T::BIAS..=T::BIAS).contains(&exponent);
    let fraction = (rounded.significand >> (64 - T::PRECISION)) & T::FRACTION.into();
    let biased = ((exponent + T::BIAS) as u64) << (T::PRECISION - 1);
    (in_range && !traps(control, rounded.inexact)).then(|| Computed {
        value: T::from_bits(sign | biased | fraction),
        inexact: rounded.inexact,
        up: rounded.up,
    })
}

/// FIST (`rounding` from the control word) and FISTTP to `bits` bits.
#[inline(always)]
pub fn to_int(control: u16, a: F80, bits: u32, truncate: bool) -> Option<Computed<i64>> {
    if !a.is_normal() {
        return a.is_zero().then(|| Computed::exact(0));
    }
    let x = a.finite();
    // One less than the width leaves room for rounding up.
    if x.exponent >= bits as i32 - 2 {
        return None;
    }
    let rounding = if truncate { Rounding::Zero } else { X87Env::new(control).rounding() };
    let aligned = shift_right_sticky(u128::from(x.significand) << 64, (63 - x.exponent) as u32);
    let rounded = round_significand(aligned, x.negative, 64, rounding);
    let magnitude = rounded.significand as i64;
    (!traps(control, rounded.inexact)).then(|| Computed {
        value: if x.negative { -magnitude } else { magnitude },
        inexact: rounded.inexact,
        up: rounded.up,
    })
}

/// How two operands compare that are normal or zero.
#[inline(always)]
pub fn relation(a: F80, b: F80) -> Option<Relation> {
    if !((a.is_normal() || a.is_zero()) && (b.is_normal() || b.is_zero())) {
        return None;
    }
    let (x, y) = (key(a), key(b));
    Some(match x.cmp(&y) {
        std::cmp::Ordering::Less => Relation::Less,
        std::cmp::Ordering::Equal => Relation::Equal,
        std::cmp::Ordering::Greater => Relation::Greater,
    })
}

/// Orders as the values do; both zeros are 0.
#[inline(always)]
fn key(a: F80) -> i128 {
    let magnitude = i128::from(a.sign_exp & EXPONENT) << 64 | i128::from(a.significand);
    if a.is_negative() { -magnitude } else { magnitude }
}
