//! FSIN, FCOS, FSINCOS and FPTAN.
//!
//! Arguments are reduced with the 66-bit pi that Intel documents (SDM Vol. 1, 8.3.8): the reduction itself is exact, so
//! that results near multiples of pi differ from the mathematical ones just as those of the hardware do.

use super::super::super::flags;
use super::super::super::wide::{Finite, Wide};
use super::super::{F80, Operand, X87Env, pack, pack_as_inexact, special_operand, unpack};
use super::fixed::{alternating_series, divide, inexact, inverse_factorials, mul_high, scale_by, to_fraction};

/// Pi / 2 in units of 2^-65: the significand of pi to 66 bits.
const HALF_PI: u128 = 0x3_243F_6A88_85A3_08D3;
const ONE: u128 = 1 << 127;
/// 1/1!, 1/3!, 1/5!, ... in Q127.
const SINE: [u128; 13] = inverse_factorials(ONE, 2, 2);
/// 1/0!, 1/2!, 1/4!, ... in Q127.
const COSINE: [u128; 14] = inverse_factorials(ONE, 1, 2);

/// An argument taken modulo pi / 2, to about [-pi/4, pi/4].
struct Reduced {
    /// The remainder.
    angle: Wide,
    /// How many quarter turns were taken off, modulo 4.
    quadrant: u32,
}

/// What an instruction has to do with its operand.
enum Argument {
    /// The answer is this NaN.
    Special(F80),
    Zero,
    /// 2^63 or more: the operand stays, and C2 tells so.
    OutOfRange,
    /// Below 2^-67 the hardware gives the operand as sine and tangent and one as cosine under every rounding.
    Tiny(Finite),
    Reduced(Reduced),
}

fn argument(env: &mut X87Env, a: F80) -> Argument {
    if let Some(result) = special_operand(env, a) {
        return Argument::Special(result);
    }
    match unpack(a) {
        (Operand::Infinity, _) => Argument::Special(env.invalid()),
        (Operand::Zero, _) => Argument::Zero,
        (Operand::Finite(x), denormal) => {
            if denormal {
                env.raise(flags::DE);
            }
            match x.exponent {
                63.. => Argument::OutOfRange,
                ..-67 => Argument::Tiny(x),
                _ => Argument::Reduced(reduce(x)),
            }
        }
    }
}

fn reduce(x: Finite) -> Reduced {
    // Below 1/2 there is nothing to take off.
    if x.exponent < -1 {
        return Reduced { angle: x.widen(), quadrant: 0 };
    }
    let argument = u128::from(x.significand) << (x.exponent + 2);
    let quotient = if x.exponent < 24 {
        // A quotient off by one next to a half does no harm.
        let value = x.significand as f64 * (0.5 / (1u64 << 63) as f64) * f64::from(1u32 << (x.exponent + 1));
        u128::from((value * std::f64::consts::FRAC_2_PI + 0.5) as u64)
    } else {
        let quotient = argument / HALF_PI;
        quotient + u128::from(argument - quotient * HALF_PI > HALF_PI / 2)
    };
    let rest = argument.wrapping_sub(quotient.wrapping_mul(HALF_PI)) as i128;
    // The rest is never zero, because the 66-bit odd constant does not divide a 64-bit significand.
    let negative = (rest < 0) != x.negative;
    let angle = Wide::normalised(negative, 127 - 65, rest.unsigned_abs());
    // A negative argument has taken quarter turns off in the other direction.
    let quadrant = quotient as u32 & 3;
    Reduced { angle, quadrant: if x.negative { quadrant.wrapping_neg() & 3 } else { quadrant } }
}

/// The sine of an angle of at most about pi / 4.
fn small_sine(angle: Wide) -> Wide {
    let fraction = to_fraction(angle);
    let square = mul_high(fraction, fraction);
    // The series is 1 - something that may be too small to see: step below one, so that rounding knows.
    let factor = alternating_series(&SINE, square) - 1;
    inexact(scale_by(angle, factor, 127))
}

/// The cosine of an angle of at most about pi / 4.
fn small_cosine(angle: Wide) -> Wide {
    let fraction = to_fraction(angle);
    let square = mul_high(fraction, fraction);
    inexact(Wide::normalised(false, 0, alternating_series(&COSINE, square) - 1))
}

impl Reduced {
    fn sine(&self) -> Wide {
        let value = if self.quadrant & 1 == 0 { small_sine(self.angle) } else { small_cosine(self.angle) };
        Wide { negative: value.negative != (self.quadrant & 2 != 0), ..value }
    }

    fn cosine(&self) -> Wide {
        let value = if self.quadrant & 1 == 0 { small_cosine(self.angle) } else { small_sine(self.angle) };
        let negated = matches!(self.quadrant, 1 | 2);
        Wide { negative: value.negative != negated, ..value }
    }
}

/// The cosine of a tiny operand.
fn tiny_cosine(env: &mut X87Env) -> F80 {
    env.raise(flags::PE);
    F80::ONE
}

/// FSIN; `None` if the operand is out of range (C2).
pub fn sine(env: &mut X87Env, a: F80) -> Option<F80> {
    match argument(env, a) {
        Argument::Special(result) => Some(result),
        Argument::Zero => Some(a),
        Argument::OutOfRange => None,
        Argument::Tiny(x) => Some(pack_as_inexact(env, x.widen())),
        Argument::Reduced(reduced) => Some(pack(env, reduced.sine(), 64)),
    }
}

/// FCOS; `None` if the operand is out of range (C2).
pub fn cosine(env: &mut X87Env, a: F80) -> Option<F80> {
    match argument(env, a) {
        Argument::Special(result) => Some(result),
        Argument::Zero => Some(F80::ONE),
        Argument::OutOfRange => None,
        Argument::Tiny(_) => Some(tiny_cosine(env)),
        Argument::Reduced(reduced) => Some(pack(env, reduced.cosine(), 64)),
    }
}

/// FSINCOS: sine and cosine; `None` if the operand is out of range (C2).
pub fn sine_cosine(env: &mut X87Env, a: F80) -> Option<(F80, F80)> {
    match argument(env, a) {
        Argument::Special(result) => Some((result, result)),
        Argument::Zero => Some((a, F80::ONE)),
        Argument::OutOfRange => None,
        Argument::Tiny(x) => Some((pack_as_inexact(env, x.widen()), tiny_cosine(env))),
        Argument::Reduced(reduced) => {
            let cosine = pack(env, reduced.cosine(), 64);
            Some((pack(env, reduced.sine(), 64), cosine))
        }
    }
}

/// FPTAN: the tangent, and the one that is pushed after it (a NaN takes both places); `None` if the operand is out of
/// range (C2).
pub fn tangent(env: &mut X87Env, a: F80) -> Option<(F80, F80)> {
    match argument(env, a) {
        Argument::Special(result) => Some((result, result)),
        Argument::Zero => Some((a, F80::ONE)),
        Argument::OutOfRange => None,
        Argument::Tiny(x) => Some((pack_as_inexact(env, x.widen()), F80::ONE)),
        Argument::Reduced(reduced) => {
            let (sine, cosine) = (small_sine(reduced.angle), small_cosine(reduced.angle));
            let odd = reduced.quadrant & 1 != 0;
            let (numerator, denominator) = if odd { (cosine, sine) } else { (sine, cosine) };
            let (significand, below_one) = divide(numerator.significand, denominator.significand);
            let value = Wide {
                negative: reduced.angle.negative != odd,
                exponent: numerator.exponent - denominator.exponent - i32::from(below_one),
                significand,
            };
            Some((pack(env, inexact(value), 64), F80::ONE))
        }
    }
}
