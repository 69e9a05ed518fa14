//! The 80-bit extended format and the arithmetic of the x87 FPU (SDM Vol. 1, chapter 8).
//!
//! Functions take operands and an [`X87Env`]; they know nothing of the register stack, tags or pending exceptions. A
//! function always returns the value that the masked response gives, or for unmasked overflow and underflow the one
//! with the adjusted exponent (SDM Vol. 1, 8.5.4 and 8.5.5); the caller consults [`X87Env::aborted`] to learn whether
//! the instruction may write it.
//!
//! Deliberately absent: stack faults, and the decimal digits that FBLD leaves undefined.

mod arithmetic;
mod convert;
pub mod quick;
mod remainder;
mod transcendental;

pub use arithmetic::{add, compare_ordered, compare_unordered, div, mul, sqrt, sub};
pub use convert::{
    BCD_INDEFINITE, from_bcd, from_double, from_int, from_single, to_bcd, to_double, to_int, to_int_truncated,
    to_single, widen_double, widen_single,
};
pub use remainder::{Quotient, Remainder, extract, ieee_remainder, partial_remainder, round_to_integral, scale};
pub use transcendental::{
    arc_tangent, cosine, exp2_minus_1, log2_plus_1_times, log2_times, sine, sine_cosine, tangent,
};

use super::wide::{Finite, Wide, round_significand};
use super::{Rounding, flags};
use serde::{Deserialize, Serialize};

/// A value in the extended format, which has an explicit integer bit:
///
/// ```text
///  79   78      64 63  62                    0
/// +----+----------+---+-----------------------+
/// |sign| exponent | 1 |       fraction        |
/// +----+----------+---+-----------------------+
///  \-- sign_exp --/\------ significand ------/
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct F80 {
    /// Sign in bit 15, exponent biased by 16383 below.
    pub sign_exp: u16,
    /// Integer bit and fraction.
    pub significand: u64,
}

const SIGN: u16 = 0x8000;
const EXPONENT: u16 = 0x7FFF;
const BIAS: i32 = 16383;
const INTEGER_BIT: u64 = 1 << 63;
const QUIET_BIT: u64 = 1 << 62;
/// The exponent of the smallest normal value.
const MINIMUM_EXPONENT: i32 = 1 - BIAS;
/// What unmasked overflow and underflow adjust exponents by.
const EXPONENT_ADJUST: i32 = 24576;

/// What an encoding denotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Zero,
    /// Denormal or pseudo-denormal.
    Denormal,
    Normal,
    Infinity,
    QuietNan,
    SignallingNan,
    /// Pseudo-NaN, pseudo-infinity or unnormal: an invalid operand to everything since the 80387.
    Unsupported,
}

impl F80 {
    pub const ZERO: Self = Self { sign_exp: 0, significand: 0 };
    pub const ONE: Self = Self { sign_exp: 0x3FFF, significand: INTEGER_BIT };
    /// The QNaN floating-point indefinite.
    pub const INDEFINITE: Self = Self { sign_exp: 0xFFFF, significand: INTEGER_BIT | QUIET_BIT };

    #[inline(always)]
    pub const fn new(sign_exp: u16, significand: u64) -> Self {
        Self { sign_exp, significand }
    }

    /// From the ten bytes in memory.
    pub fn from_le_bytes(bytes: [u8; 10]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j] = bytes;
        Self { sign_exp: u16::from_le_bytes([i, j]), significand: u64::from_le_bytes([a, b, c, d, e, f, g, h]) }
    }

    /// The ten bytes in memory.
    pub fn to_le_bytes(self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&self.significand.to_le_bytes());
        bytes[8..].copy_from_slice(&self.sign_exp.to_le_bytes());
        bytes
    }

    #[inline(always)]
    pub const fn is_negative(self) -> bool {
        self.sign_exp & SIGN != 0
    }

    /// FCHS.
    #[inline(always)]
    #[must_use]
    pub const fn negated(self) -> Self {
        Self { sign_exp: self.sign_exp ^ SIGN, ..self }
    }

    /// FABS.
    #[inline(always)]
    #[must_use]
    pub const fn abs(self) -> Self {
        Self { sign_exp: self.sign_exp & EXPONENT, ..self }
    }

    pub const fn class(self) -> Class {
        match (self.sign_exp & EXPONENT, self.significand) {
            (0, 0) => Class::Zero,
            (0, _) => Class::Denormal,
            (_, significand) if significand & INTEGER_BIT == 0 => Class::Unsupported,
            (EXPONENT, INTEGER_BIT) => Class::Infinity,
            (EXPONENT, significand) if significand & QUIET_BIT != 0 => Class::QuietNan,
            (EXPONENT, _) => Class::SignallingNan,
            _ => Class::Normal,
        }
    }

    pub const fn zero(negative: bool) -> Self {
        Self { sign_exp: if negative { SIGN } else { 0 }, significand: 0 }
    }

    pub const fn infinity(negative: bool) -> Self {
        Self { sign_exp: EXPONENT | if negative { SIGN } else { 0 }, significand: INTEGER_BIT }
    }

    #[inline(always)]
    const fn is_normal(self) -> bool {
        let exponent = self.sign_exp & EXPONENT;
        exponent.wrapping_sub(1) < EXPONENT - 1 && self.significand & INTEGER_BIT != 0
    }

    const fn is_nan(self) -> bool {
        matches!(self.class(), Class::QuietNan | Class::SignallingNan)
    }

    const fn quieted(self) -> Self {
        Self { significand: self.significand | QUIET_BIT, ..self }
    }

    /// The same value with a pseudo-denormal written as the normal number it is.
    const fn canonical(self) -> Self {
        let pseudo = self.sign_exp & EXPONENT == 0 && self.significand & INTEGER_BIT != 0;
        Self { sign_exp: self.sign_exp | pseudo as u16, ..self }
    }

    /// Takes a normal value apart.
    #[inline(always)]
    const fn finite(self) -> Finite {
        Finite {
            negative: self.is_negative(),
            exponent: (self.sign_exp & EXPONENT) as i32 - BIAS,
            significand: self.significand,
        }
    }

    #[inline(always)]
    const fn assemble(negative: bool, exponent: i32, significand: u64) -> Self {
        let biased = (exponent + BIAS) as u16;
        Self { sign_exp: biased | if negative { SIGN } else { 0 }, significand }
    }
}

/// Fields of the x87 control word (SDM Vol. 1, 8.1.5); its low six bits mask the exceptions of [`flags`].
pub mod control {
    /// First bit of the precision control.
    pub const PC_SHIFT: u32 = 8;
    /// First bit of the rounding control.
    pub const RC_SHIFT: u32 = 10;
    /// Value after FNINIT: everything masked, extended precision, round to nearest.
    pub const INITIAL: u16 = 0x037F;
}

/// The environment of one x87 instruction: the control word, and what the instruction has reported.
#[derive(Clone, Copy, Debug)]
pub struct X87Env {
    control: u16,
    raised: u32,
    rounded_up: bool,
}

impl X87Env {
    #[inline(always)]
    pub const fn new(control: u16) -> Self {
        Self { control, raised: 0, rounded_up: false }
    }

    /// The exceptions raised, as [`flags`], for the status word. An unmasked exception that is detected before
    /// computation keeps those detected afterwards from being reported.
    #[inline(always)]
    pub const fn raised(&self) -> u32 {
        if self.aborted() { self.raised & flags::BEFORE } else { self.raised }
    }

    /// C1 as arithmetic instructions leave it: the last rounding increased the magnitude.
    #[inline(always)]
    pub const fn rounded_up(&self) -> bool {
        self.rounded_up && !self.aborted()
    }

    /// The raised exceptions that the control word does not mask.
    #[inline(always)]
    pub const fn unmasked(&self) -> u32 {
        self.raised & !(self.control as u32)
    }

    /// An unmasked invalid, denormal or divide exception: registers and memory keep their contents.
    #[inline(always)]
    pub const fn aborted(&self) -> bool {
        self.unmasked() & flags::BEFORE != 0
    }

    /// The same for a store to memory, which an unmasked overflow or underflow also suppresses.
    #[inline(always)]
    pub const fn store_aborted(&self) -> bool {
        self.unmasked() & (flags::BEFORE | flags::OE | flags::UE) != 0
    }

    #[inline(always)]
    pub const fn raise(&mut self, raised: u32) {
        self.raised |= raised;
    }

    #[inline(always)]
    const fn rounding(&self) -> Rounding {
        Rounding::from_rc(self.control as u32 >> control::RC_SHIFT)
    }

    /// Significand bits that the precision control leaves to FADD, FSUB, FMUL, FDIV and FSQRT. The reserved encoding
    /// 1 acts as extended precision.
    #[inline(always)]
    const fn precision(&self) -> u32 {
        match self.control >> control::PC_SHIFT & 3 {
            0 => 24,
            2 => 53,
            _ => 64,
        }
    }

    const fn is_masked(&self, flag: u32) -> bool {
        self.control as u32 & flag != 0
    }

    fn invalid(&mut self) -> F80 {
        self.raise(flags::IE);
        F80::INDEFINITE
    }
}

/// An operand other than a NaN or an unsupported encoding.
#[derive(Clone, Copy, Debug)]
enum Operand {
    Zero,
    Finite(Finite),
    Infinity,
}

/// Takes apart what is neither NaN nor unsupported; the flag tells a denormal operand.
fn unpack(a: F80) -> (Operand, bool) {
    match a.class() {
        Class::Zero => (Operand::Zero, false),
        Class::Denormal => {
            let shift = a.significand.leading_zeros();
            let exponent = MINIMUM_EXPONENT - shift as i32;
            let significand = a.significand << shift;
            (Operand::Finite(Finite { negative: a.is_negative(), exponent, significand }), true)
        }
        Class::Normal => (Operand::Finite(a.finite()), false),
        _ => (Operand::Infinity, false),
    }
}

/// The response to a NaN or unsupported operand of a one-operand instruction; `None` if it is neither.
fn special_operand(env: &mut X87Env, a: F80) -> Option<F80> {
    match a.class() {
        Class::Unsupported => Some(env.invalid()),
        Class::SignallingNan => {
            env.raise(flags::IE);
            Some(a.quieted())
        }
        Class::QuietNan => Some(a),
        _ => None,
    }
}

/// The same for two operands (SDM Vol. 1, table 4-7): a quiet NaN wins over a signalling one, else the larger
/// significand wins, then the positive sign.
fn special_operands(env: &mut X87Env, a: F80, b: F80) -> Option<F80> {
    let (class_a, class_b) = (a.class(), b.class());
    if class_a == Class::Unsupported || class_b == Class::Unsupported {
        return Some(env.invalid());
    }
    if class_a == Class::SignallingNan || class_b == Class::SignallingNan {
        env.raise(flags::IE);
    }
    match (a.is_nan(), b.is_nan()) {
        (false, false) => None,
        (true, false) => Some(a.quieted()),
        (false, true) => Some(b.quieted()),
        (true, true) => Some(match (class_a, class_b) {
            (Class::QuietNan, Class::SignallingNan) => a,
            (Class::SignallingNan, Class::QuietNan) => b,
            _ => {
                let (a, b) = (a.quieted(), b.quieted());
                match a.significand.cmp(&b.significand) {
                    std::cmp::Ordering::Greater => a,
                    std::cmp::Ordering::Less => b,
                    std::cmp::Ordering::Equal if a.is_negative() => b,
                    std::cmp::Ordering::Equal => a,
                }
            }
        }),
    }
}

/// Rounds and packs a finite non-zero result, raising OE, UE and PE and setting the round-up indication.
#[inline(always)]
fn pack(env: &mut X87Env, value: Wide, precision: u32) -> F80 {
    let rounded = value.round(precision, env.rounding());
    let exponent = value.exponent + i32::from(rounded.carry);
    if !(MINIMUM_EXPONENT..=BIAS).contains(&exponent) {
        return pack_out_of_range(env, value, precision);
    }
    if rounded.inexact {
        env.raise(flags::PE);
    }
    env.rounded_up = rounded.up;
    F80::assemble(value.negative, exponent, rounded.significand)
}

/// Packs a result that is reported as inexact although it is not, as real processors do in transcendentals.
fn pack_as_inexact(env: &mut X87Env, value: Wide) -> F80 {
    env.raise(flags::PE | if value.exponent < MINIMUM_EXPONENT { flags::UE } else { 0 });
    pack(env, value, 64)
}

#[cold]
#[inline(never)]
fn pack_out_of_range(env: &mut X87Env, value: Wide, precision: u32) -> F80 {
    let rounding = env.rounding();
    let rounded = value.round(precision, rounding);
    let exponent = value.exponent + i32::from(rounded.carry);
    let overflows = exponent > BIAS;
    if !env.is_masked(if overflows { flags::OE } else { flags::UE }) {
        env.raise(if overflows { flags::OE } else { flags::UE });
        let adjusted = if overflows { exponent - EXPONENT_ADJUST } else { exponent + EXPONENT_ADJUST };
        if !(MINIMUM_EXPONENT..=BIAS).contains(&adjusted) {
            // Only FSCALE gets this far (SDM Vol. 1, 8.5.4 and 8.5.5).
            env.raise(flags::PE);
            env.rounded_up = overflows;
            return if overflows { F80::infinity(value.negative) } else { F80::zero(value.negative) };
        }
        if rounded.inexact {
            env.raise(flags::PE);
        }
        env.rounded_up = rounded.up;
        return F80::assemble(value.negative, adjusted, rounded.significand);
    }
    if overflows {
        env.raise(flags::OE | flags::PE);
        let away = match rounding {
            Rounding::Nearest => true,
            Rounding::Down => value.negative,
            Rounding::Up => !value.negative,
            Rounding::Zero => false,
        };
        env.rounded_up = away;
        return if away {
            F80::infinity(value.negative)
        } else {
            F80::assemble(value.negative, BIAS, u64::MAX << (64 - precision))
        };
    }
    let rounded = value.round_denormal(MINIMUM_EXPONENT, precision, rounding);
    if rounded.inexact {
        env.raise(flags::UE | flags::PE);
    }
    env.rounded_up = rounded.up;
    // The integer bit is set if rounding reached the smallest normal value.
    let biased = (rounded.significand >> 63) as u16;
    F80::new(biased | if value.negative { SIGN } else { 0 }, rounded.significand)
}

/// The constants that FLD1 .. FLDZ load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constant {
    One,
    Log2Of10,
    Log2OfE,
    Pi,
    Log10Of2,
    LnOf2,
    Zero,
}

/// FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ: the rounding control decides the last bit; no flag is raised.
pub fn constant(env: &X87Env, constant: Constant) -> F80 {
    let (exponent, significand) = match constant {
        Constant::One => return F80::ONE,
        Constant::Zero => return F80::ZERO,
        Constant::Log2Of10 => (1, 0xD49A_784B_CD1B_8AFE_492B_F6FF_4DAF_DB4C),
        Constant::Log2OfE => (0, transcendental::LOG2_E),
        Constant::Pi => (1, transcendental::PI),
        Constant::Log10Of2 => (-2, 0x9A20_9A84_FBCF_F798_8F89_59AC_0B7C_9178),
        Constant::LnOf2 => (-1, transcendental::LN_2),
    };
    F80::assemble(false, exponent, round_significand(significand, false, 64, env.rounding()).significand)
}
