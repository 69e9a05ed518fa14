//! 128-bit fixed-point helpers.
//!
//! `Q128` in comments means a fraction in units of 2^-128, `Q127` one in units of 2^-127, and so on.

use super::super::super::wide::Wide;

/// The high half of a 256-bit product, short by at most three units.
#[inline(always)]
pub const fn mul_high(a: u128, b: u128) -> u128 {
    let (a1, a0) = (a >> 64, a as u64 as u128);
    let (b1, b0) = (b >> 64, b as u64 as u128);
    a1 * b1 + ((a1 * b0) >> 64) + ((a0 * b1) >> 64)
}

/// `numerator / denominator` of two significands with bit 127 set, as a significand and whether it is below one.
pub fn divide(numerator: u128, denominator: u128) -> (u128, bool) {
    let below_one = numerator < denominator;
    // A dividend in [denominator / 2, denominator) gives a quotient of 128 bits, the top one set.
    let dividend = if below_one { numerator } else { numerator >> 1 };
    let (first, rest) = divide_digit(dividend, denominator);
    let (second, _) = divide_digit(rest, denominator);
    (u128::from(first) << 64 | u128::from(second), below_one)
}

/// One step of long division in base 2^64: `remainder * 2^64 / divisor`, for a remainder below the divisor.
fn divide_digit(remainder: u128, divisor: u128) -> (u64, u128) {
    let (high, low) = (divisor >> 64, divisor & u128::from(u64::MAX));
    let estimate = (remainder / high).min(u128::from(u64::MAX));
    let rest = remainder - estimate * high;
    let (mut digit, excess) = (estimate as u64, estimate * low);
    // rest * 2^64 - excess is the next remainder; where it is negative the estimate was one or two too large.
    if rest >> 64 != 0 {
        return (digit, (rest << 64).wrapping_sub(excess));
    }
    let (mut next, mut negative) = (rest << 64).overflowing_sub(excess);
    while negative {
        let (sum, carry) = next.overflowing_add(divisor);
        digit -= 1;
        next = sum;
        negative = !carry;
    }
    (digit, next)
}

/// The product of a significand and a fixed-point factor in units of 2^-`fraction_bits`.
#[inline(always)]
pub fn scale_by(value: Wide, factor: u128, fraction_bits: i32) -> Wide {
    let product = mul_high(value.significand, factor);
    Wide::normalised(value.negative, value.exponent + 128 - fraction_bits, product)
}

/// Makes a result inexact for the rounding that follows.
#[inline(always)]
pub fn inexact(value: Wide) -> Wide {
    Wide { significand: value.significand | 1, ..value }
}

/// A magnitude below one as Q128.
#[inline(always)]
pub fn to_fraction(value: Wide) -> u128 {
    let shift = (-1 - value.exponent) as u32;
    if shift < 128 { value.significand >> shift } else { 0 }
}

/// `c[0] - z * (c[1] - z * (c[2] - ...))`, for `z` in Q128.
#[inline(always)]
pub fn alternating_series<const N: usize>(coefficients: &[u128; N], z: u128) -> u128 {
    let mut sum = 0;
    for &coefficient in coefficients.iter().rev() {
        sum = coefficient - mul_high(z, sum);
    }
    sum
}

/// `c[0] + z * (c[1] + z * (c[2] + ...))`, for `z` in Q128.
#[inline(always)]
pub fn series<const N: usize>(coefficients: &[u128; N], z: u128) -> u128 {
    let mut sum = 0;
    for &coefficient in coefficients.iter().rev() {
        sum = coefficient + mul_high(z, sum);
    }
    sum
}

/// `one / (first * (first + 1) ...)`: with steps of two the coefficients of sine and cosine, of one those of exp.
pub const fn inverse_factorials<const N: usize>(one: u128, first: u128, step: u128) -> [u128; N] {
    let mut table = [0; N];
    let mut value = one;
    let mut divisor = first;
    let mut index = 0;
    while index < N {
        table[index] = value;
        let mut factor = 0;
        while factor < step {
            value /= divisor;
            divisor += 1;
            factor += 1;
        }
        index += 1;
    }
    table
}

/// `one / first, one / (first + step), ...`: the coefficients of the logarithm and the arctangent.
pub const fn inverses<const N: usize>(one: u128, first: u128, step: u128) -> [u128; N] {
    let mut table = [0; N];
    let mut index = 0;
    while index < N {
        table[index] = one / (first + index as u128 * step);
        index += 1;
    }
    table
}
