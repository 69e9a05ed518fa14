//! The arithmetic core: finite numbers with 64-bit significands in, exact (or sticky) 128-bit significands out.
//!
//! The formats differ only in where [`Wide`] is rounded, so single, double and extended precision share this file.
//! Deliberately absent: zeros, infinities, NaNs and flags, which the callers handle.

use super::Rounding;

/// A finite non-zero operand: (-1)^`negative` * 1.fraction * 2^`exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finite {
    pub negative: bool,
    /// Unbiased exponent of the integer bit.
    pub exponent: i32,
    /// The integer bit is bit 63 and always set.
    pub significand: u64,
}

/// A finite non-zero result before rounding. The integer bit is bit 127 and always set; bit 0 is sticky: it is set if
/// anything non-zero lies below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wide {
    pub negative: bool,
    pub exponent: i32,
    pub significand: u128,
}

/// A significand rounded to some precision.
#[derive(Clone, Copy, Debug)]
pub struct Rounded {
    /// Kept bits, aligned as in [`Finite`]; the bits below the precision are zero.
    pub significand: u64,
    /// Rounding carried out of the integer bit: the exponent grows by one (the significand is already 1.0).
    pub carry: bool,
    pub inexact: bool,
    /// The magnitude was rounded up; the x87 reports it in C1.
    pub up: bool,
}

/// Shifts right, keeping track of lost bits in bit 0.
#[inline(always)]
pub fn shift_right_sticky(value: u128, count: u32) -> u128 {
    if count == 0 {
        value
    } else if count < 128 {
        (value >> count) | u128::from(value << (128 - count) != 0)
    } else {
        u128::from(value != 0)
    }
}

impl Finite {
    #[inline(always)]
    pub fn widen(self) -> Wide {
        Wide { negative: self.negative, exponent: self.exponent, significand: u128::from(self.significand) << 64 }
    }
}

impl Wide {
    /// From any non-zero significand whose bit 127 weighs 2^`exponent`.
    #[inline(always)]
    pub fn normalised(negative: bool, exponent: i32, significand: u128) -> Self {
        let shift = significand.leading_zeros();
        Self { negative, exponent: exponent - shift as i32, significand: significand << shift }
    }

    /// Rounds to `precision` bits (24, 53 or 64) with an unbounded exponent.
    #[inline(always)]
    pub fn round(self, precision: u32, rounding: Rounding) -> Rounded {
        round_significand(self.significand, self.negative, precision, rounding)
    }

    /// Rounds at the place that belongs to the smallest exponent `minimum` of a format, as for denormal results.
    #[inline(always)]
    pub fn round_denormal(self, minimum: i32, precision: u32, rounding: Rounding) -> Rounded {
        let shift = minimum.saturating_sub(self.exponent).clamp(0, 200) as u32;
        round_significand(shift_right_sticky(self.significand, shift), self.negative, precision, rounding)
    }
}

/// Rounds a 128-bit significand, normalised or not, to `precision` bits from the top.
#[inline(always)]
pub fn round_significand(significand: u128, negative: bool, precision: u32, rounding: Rounding) -> Rounded {
    let high = (significand >> 64) as u64;
    let low = significand as u64;
    let unit = 1u64 << (64 - precision);
    let (kept, rest) =
        if precision == 64 { (high, low) } else { (high & !(unit - 1), (high << precision) | u64::from(low != 0)) };
    let up = rounding.increments(negative, rest, kept & unit != 0);
    if up {
        let (sum, carry) = kept.overflowing_add(unit);
        Rounded { significand: if carry { 1 << 63 } else { sum }, carry, inexact: true, up }
    } else {
        Rounded { significand: kept, carry: false, inexact: rest != 0, up }
    }
}

/// `a + b`; `None` is an exact zero, whose sign the caller chooses.
#[inline(always)]
pub fn add(a: Finite, b: Finite) -> Option<Wide> {
    let a_is_larger = a.exponent > b.exponent || (a.exponent == b.exponent && a.significand >= b.significand);
    let (large, small) = if a_is_larger { (a, b) } else { (b, a) };
    let gap = (large.exponent - small.exponent) as u32;
    // One bit of headroom for the carry leaves 63 bits below the last place for alignment.
    let x = u128::from(large.significand) << 63;
    let y = u128::from(small.significand) << 63;
    let y = if gap < 64 { y >> gap } else { shift_right_sticky(y, gap) };
    let sum = if large.negative == small.negative { x + y } else { x - y };
    (sum != 0).then(|| Wide::normalised(large.negative, large.exponent + 1, sum))
}

/// `a * b`, exact.
#[inline(always)]
pub fn mul(a: Finite, b: Finite) -> Wide {
    let product = u128::from(a.significand) * u128::from(b.significand);
    let negative = a.negative != b.negative;
    let exponent = a.exponent + b.exponent + 1;
    if product >> 127 != 0 {
        Wide { negative, exponent, significand: product }
    } else {
        Wide { negative, exponent: exponent - 1, significand: product << 1 }
    }
}

/// `a / b`: 64 quotient bits, a half bit and a sticky bit.
#[inline(always)]
pub fn div(a: Finite, b: Finite) -> Wide {
    let divisor = u128::from(b.significand);
    let smaller = a.significand < b.significand;
    let dividend = u128::from(a.significand) << if smaller { 64 } else { 63 };
    let quotient = dividend / divisor;
    let twice_remainder = (dividend - quotient * divisor) << 1;
    let rest = match twice_remainder.cmp(&divisor) {
        std::cmp::Ordering::Less => u64::from(twice_remainder != 0),
        std::cmp::Ordering::Equal => 1 << 63,
        std::cmp::Ordering::Greater => (1 << 63) | 1,
    };
    Wide {
        negative: a.negative != b.negative,
        exponent: a.exponent - b.exponent - i32::from(smaller),
        significand: (quotient << 64) | u128::from(rest),
    }
}

/// The square root of a positive `a`: 64 bits, a half bit and a sticky bit.
#[inline(always)]
pub fn sqrt(a: Finite) -> Wide {
    // With an even exponent 2e the radicand is 1.f or 1f.f in units that make the root exactly 64 bits long.
    let odd = a.exponent & 1;
    let radicand = u128::from(a.significand) << if odd == 1 { 64 } else { 63 };
    let root = root_64(radicand);
    let remainder = radicand - u128::from(root) * u128::from(root);
    // radicand = root^2 + remainder; the root is at least root + 1/2 if remainder > root (both are integers).
    let rest: u64 = if remainder == 0 {
        0
    } else if remainder > u128::from(root) {
        (1 << 63) | 1
    } else {
        1
    };
    Wide { negative: false, exponent: (a.exponent - odd) / 2, significand: (u128::from(root) << 64) | u128::from(rest) }
}

/// The integer square root of a radicand with its top bit at 126 or 127: a host estimate and a Newton step, made exact
/// with integer comparisons.
fn root_64(radicand: u128) -> u64 {
    // The high half decides all of an estimate that has 53 bits.
    let estimate = ((radicand >> 64) as u64 as f64).sqrt() * 4_294_967_296.0;
    // The cast saturates, so that an estimate rounded up to 2^64 stays in range.
    let guess = estimate as u64;
    let error = radicand.wrapping_sub(u128::from(guess) * u128::from(guess)) as i128;
    // The error is below 2^78 in magnitude.
    let correction = ((error >> 16) as i64 as f64 * 32_768.0 / estimate) as i64;
    let mut root = guess.saturating_add_signed(correction);
    while u128::from(root) * u128::from(root) > radicand {
        root -= 1;
    }
    while root < u64::MAX && u128::from(root + 1) * u128::from(root + 1) <= radicand {
        root += 1;
    }
    root
}
