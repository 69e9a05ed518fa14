//! The fast paths: host arithmetic, taken only where the result and all flags are known beforehand.
//!
//! `mxcsr` tells whether host arithmetic rounds as asked and whether an inexact result is unobservable because PE is
//! sticky and masked already. `None` means that only the integer code in [`super::exact`] knows. Nothing here takes an
//! address, so that the interpreter's handlers can use it and still end in a tail call.

use super::{Predicate, RoundControl, Scalar, mxcsr};
use crate::softfloat::{Relation, Rounding, flags};

/// Rounding to nearest, and an inexact result does not trap.
#[inline(always)]
const fn is_host_like(mxcsr: u32) -> bool {
    mxcsr & (mxcsr::PM | 3 << mxcsr::RC_SHIFT) == mxcsr::PM
}

/// The same, and PE is set already.
#[inline(always)]
const fn ignores_inexact(mxcsr: u32) -> bool {
    mxcsr & (mxcsr::PM | 3 << mxcsr::RC_SHIFT | flags::PE) == mxcsr::PM | flags::PE
}

/// An operation on two operands; those with one use `b`.
pub trait Operation {
    fn host<T: Scalar>(a: T, b: T) -> T;
    /// The host's result `r` is right and raises at most PE.
    fn is_plain<T: Scalar>(a: T, b: T, r: T) -> bool;
    /// The plain result `r` is exact. May say no when unsure.
    fn is_exact<T: Scalar>(a: T, b: T, r: T) -> bool;
}

/// `a + b`
pub struct Add;
/// `a - b`
pub struct Sub;
/// `a * b`
pub struct Mul;
/// `a / b`
pub struct Div;
/// The square root of `b`
pub struct Sqrt;
/// `a` if it is less, else `b`
pub struct Min;
/// `a` if it is greater, else `b`
pub struct Max;

impl Operation for Add {
    #[inline(always)]
    fn host<T: Scalar>(a: T, b: T) -> T {
        T::host_add(a, b)
    }
    #[inline(always)]
    fn is_plain<T: Scalar>(a: T, b: T, r: T) -> bool {
        !a.is_denormal() & !b.is_denormal() & (r.is_well_inside() | r.is_zero())
    }
    #[inline(always)]
    fn is_exact<T: Scalar>(a: T, b: T, r: T) -> bool {
        T::sum_is_exact(a, b, r)
    }
}

impl Operation for Sub {
    #[inline(always)]
    fn host<T: Scalar>(a: T, b: T) -> T {
        T::host_sub(a, b)
    }
    #[inline(always)]
    fn is_plain<T: Scalar>(a: T, b: T, r: T) -> bool {
        Add::is_plain(a, b, r)
    }
    #[inline(always)]
    fn is_exact<T: Scalar>(a: T, b: T, r: T) -> bool {
        T::sum_is_exact(a, b.negated(), r)
    }
}

impl Operation for Mul {
    #[inline(always)]
    fn host<T: Scalar>(a: T, b: T) -> T {
        T::host_mul(a, b)
    }
    #[inline(always)]
    fn is_plain<T: Scalar>(a: T, b: T, r: T) -> bool {
        let zero = r.is_zero() & (a.is_zero() | b.is_zero());
        !a.is_denormal() & !b.is_denormal() & (r.is_well_inside() | zero)
    }
    #[inline(always)]
    fn is_exact<T: Scalar>(a: T, b: T, r: T) -> bool {
        r.is_zero() || T::product_is_exact(a, b)
    }
}

impl Operation for Div {
    #[inline(always)]
    fn host<T: Scalar>(a: T, b: T) -> T {
        T::host_div(a, b)
    }
    #[inline(always)]
    fn is_plain<T: Scalar>(a: T, b: T, r: T) -> bool {
        !a.is_denormal() & b.is_normal() & (r.is_well_inside() | a.is_zero())
    }
    #[inline(always)]
    fn is_exact<T: Scalar>(a: T, b: T, r: T) -> bool {
        r.is_zero() || T::quotient_is_exact(a, b, r)
    }
}

impl Operation for Sqrt {
    #[inline(always)]
    fn host<T: Scalar>(_: T, b: T) -> T {
        T::host_sqrt(b)
    }
    #[inline(always)]
    fn is_plain<T: Scalar>(_: T, b: T, r: T) -> bool {
        (b.is_normal() & r.is_well_inside()) | b.is_zero()
    }
    #[inline(always)]
    fn is_exact<T: Scalar>(_: T, b: T, r: T) -> bool {
        r.is_zero() || T::root_is_exact(b, r)
    }
}

impl Operation for Min {
    #[inline(always)]
    fn host<T: Scalar>(a: T, b: T) -> T {
        if T::host_less(a, b) { a } else { b }
    }
    #[inline(always)]
    fn is_plain<T: Scalar>(a: T, b: T, _: T) -> bool {
        is_ordinary(a) & is_ordinary(b)
    }
    #[inline(always)]
    fn is_exact<T: Scalar>(_: T, _: T, _: T) -> bool {
        true
    }
}

impl Operation for Max {
    #[inline(always)]
    fn host<T: Scalar>(a: T, b: T) -> T {
        if T::host_less(b, a) { a } else { b }
    }
    #[inline(always)]
    fn is_plain<T: Scalar>(a: T, b: T, _: T) -> bool {
        is_ordinary(a) & is_ordinary(b)
    }
    #[inline(always)]
    fn is_exact<T: Scalar>(_: T, _: T, _: T) -> bool {
        true
    }
}

/// Neither NaN nor denormal.
#[inline(always)]
fn is_ordinary<T: Scalar>(a: T) -> bool {
    !a.is_nan() & !a.is_denormal()
}

/// One lane.
#[inline(always)]
pub fn apply<O: Operation, T: Scalar>(mxcsr: u32, a: T, b: T) -> Option<T> {
    let r = O::host(a, b);
    let plain = O::is_plain(a, b, r);
    (plain && (ignores_inexact(mxcsr) || (is_host_like(mxcsr) && O::is_exact(a, b, r)))).then_some(r)
}

/// All lanes, or none; written so that the compiler uses vectors.
#[inline(always)]
pub fn apply_lanes<O: Operation, T: Scalar + Default, const N: usize>(
    mxcsr: u32,
    a: [T; N],
    b: [T; N],
) -> Option<[T; N]> {
    let mut r = [T::default(); N];
    for n in 0..N {
        r[n] = O::host(a[n], b[n]);
    }
    let mut plain = true;
    for n in 0..N {
        plain &= O::is_plain(a[n], b[n], r[n]);
    }
    let exact = || (0..N).all(|n| O::is_exact(a[n], b[n], r[n]));
    (plain && (ignores_inexact(mxcsr) || (is_host_like(mxcsr) && exact()))).then_some(r)
}

/// How two operands compare, if neither is a NaN or denormal.
#[inline(always)]
pub fn relation<T: Scalar>(a: T, b: T) -> Option<Relation> {
    if !(is_ordinary(a) & is_ordinary(b)) {
        return None;
    }
    Some(if T::host_less(a, b) {
        Relation::Less
    } else if T::host_equal(a, b) {
        Relation::Equal
    } else {
        Relation::Greater
    })
}

/// Whether `predicate` holds, if neither operand is a NaN or denormal.
#[inline(always)]
pub fn predicate<T: Scalar>(predicate: Predicate, a: T, b: T) -> Option<bool> {
    relation(a, b).map(|relation| predicate.holds(relation))
}

/// CVTSD2SS.
#[inline(always)]
pub fn double_to_single(mxcsr: u32, a: u64) -> Option<u32> {
    let value = f64::from_bits(a);
    let single = value as f32;
    let plain = single.to_bits().is_well_inside() || a.is_zero();
    let fits = ignores_inexact(mxcsr) || (is_host_like(mxcsr) && f64::from(single) == value);
    (plain && fits).then_some(single.to_bits())
}

/// CVTSS2SD.
#[inline(always)]
pub fn single_to_double(a: u32) -> Option<u64> {
    (a.is_normal() || a.is_zero()).then(|| f64::from(f32::from_bits(a)).to_bits())
}

/// CVTSI2SS, CVTSI2SD.
#[inline(always)]
pub fn int_to_float<T: Scalar>(mxcsr: u32, value: i64) -> Option<T> {
    // Integers this small are exact in both formats.
    let small = value.unsigned_abs() < 1 << T::PRECISION;
    (small || ignores_inexact(mxcsr)).then(|| T::host_from_i64(value))
}

/// CVTSS2SI and its relatives, to either width.
#[inline(always)]
pub fn to_int<T: Scalar>(mxcsr: u32, a: T) -> Option<i64> {
    // Values below this are integers of every width after rounding.
    const LIMIT: f64 = 2_147_483_647.0;
    // Adding 1.5 * 2^52 leaves no room for a fraction, so the host rounds to an integer, to nearest even.
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    let value = a.host_widen();
    let rounded = (value + MAGIC) - MAGIC;
    let plain = value.abs() < LIMIT && !a.is_denormal();
    let fits = ignores_inexact(mxcsr) || (is_host_like(mxcsr) && rounded == value);
    (plain && fits).then_some(rounded as i64)
}

/// CVTTSS2SI and its relatives, to `bits` bits. Does not depend on the rounding mode.
#[inline(always)]
pub fn to_int_truncated<T: Scalar>(mxcsr: u32, a: T, bits: u32) -> Option<i64> {
    let value = a.host_widen();
    let limit = if bits == 32 { 2_147_483_648.0 } else { 9_223_372_036_854_775_808.0 };
    let plain = value.abs() < limit && !a.is_denormal();
    let truncated = value as i64;
    let fits = mxcsr & (mxcsr::PM | flags::PE) == mxcsr::PM | flags::PE || truncated as f64 == value;
    (plain && fits).then_some(truncated)
}

/// ROUNDSS and ROUNDSD of magnitudes from one up.
#[inline(always)]
pub fn round_to_integral<T: Scalar>(mxcsr: u32, a: T, control: RoundControl) -> Option<T> {
    let bits: u64 = a.into();
    let biased = (bits >> (T::PRECISION - 1)) as i32 & ((1 << T::EXPONENT_BITS) - 1);
    let fraction_bits = T::PRECISION as i32 - 1 - (biased - T::BIAS);
    if a.is_nan() || biased < T::BIAS {
        return None;
    }
    if fraction_bits <= 0 {
        return Some(a);
    }
    let rounding = control.rounding.unwrap_or(Rounding::from_rc(mxcsr >> mxcsr::RC_SHIFT));
    let unit = 1u64 << fraction_bits;
    let rest = (bits & (unit - 1)) << (64 - fraction_bits);
    let known = control.suppress_precision || mxcsr & (mxcsr::PM | flags::PE) == mxcsr::PM | flags::PE;
    if rest != 0 && !known {
        return None;
    }
    let kept = bits & !(unit - 1);
    // For 1.x the last integer bit is the implicit one: an exponent of BIAS, odd, stands in its place.
    let odd = kept & unit != 0;
    let negative = bits & T::SIGN.into() != 0;
    Some(T::from_bits(if rounding.increments(negative, rest, odd) { kept + unit } else { kept }))
}
