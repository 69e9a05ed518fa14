//! Single and double precision as the SSE instructions compute them (SDM Vol. 1, 11.5 and Vol. 2 instruction pages).
//!
//! Every operation first tries [`quick`], the host's `f32`/`f64` arithmetic, which Rust defines as IEEE 754 round to
//! nearest even. It is taken only where the result and all flags are known: nearest rounding, no denormal operand, a
//! result well inside the normal range, and inexactness either already sticky (and masked) or excluded by an exact
//! check. Everything else goes to the integer code in [`exact`]. The test that holds the two equal, and both equal to
//! real hardware, is `tests/tests/softfloat_host.rs`.

mod compare;
mod convert;
mod exact;
pub mod quick;
mod scalar;

pub use compare::{Predicate, compare_ordered, compare_predicate, compare_unordered, max, min};
pub use convert::{
    RoundControl, double_to_single, int_to_float, round_to_integral, single_to_double, to_int, to_int_truncated,
};
pub use scalar::Scalar;

use super::{Rounding, flags};

/// MXCSR fields (SDM Vol. 1, 10.2.3).
pub mod mxcsr {
    /// Denormals are zeros.
    pub const DAZ: u32 = 1 << 6;
    /// First of the six exception masks, in the order of [`super::flags`].
    pub const MASK_SHIFT: u32 = 7;
    /// All six exception masks.
    pub const MASKS: u32 = 0x3F << MASK_SHIFT;
    /// Precision mask.
    pub const PM: u32 = 1 << 12;
    /// First bit of the rounding control.
    pub const RC_SHIFT: u32 = 13;
    /// Flush to zero.
    pub const FTZ: u32 = 1 << 15;
    /// Value after reset: everything masked, round to nearest.
    pub const RESET: u32 = 0x1F80;
    /// Bits that software may set; setting another one is a general protection fault.
    pub const VALID: u32 = 0xFFFF;
}

/// The environment of one SSE instruction: MXCSR as it was before, and the exceptions its lanes have raised so far.
#[derive(Clone, Copy, Debug)]
pub struct SseEnv {
    mxcsr: u32,
    raised: u32,
}

/// An instruction raised an exception that is not masked: it must not write its result, and ends in #XM (or #UD).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmasked {
    /// MXCSR with the flags that the hardware sets in this case.
    pub mxcsr: u32,
}

impl SseEnv {
    #[inline(always)]
    pub const fn new(mxcsr: u32) -> Self {
        Self { mxcsr, raised: 0 }
    }

    /// The exceptions raised so far, as [`flags`].
    #[inline(always)]
    pub const fn raised(&self) -> u32 {
        self.raised
    }

    /// Ends the instruction: the new MXCSR, or [`Unmasked`].
    ///
    /// An unmasked exception that is detected before computation, in any lane, keeps those detected afterwards from
    /// being reported (SDM Vol. 1, 11.5.3.2).
    #[inline(always)]
    pub fn finish(self) -> Result<u32, Unmasked> {
        if self.raised == 0 { Ok(self.mxcsr) } else { self.finish_raised() }
    }

    fn finish_raised(self) -> Result<u32, Unmasked> {
        let unmasked = self.raised & !self.masks();
        if unmasked == 0 {
            Ok(self.mxcsr | self.raised)
        } else if unmasked & flags::BEFORE != 0 {
            Err(Unmasked { mxcsr: self.mxcsr | (self.raised & flags::BEFORE) })
        } else {
            Err(Unmasked { mxcsr: self.mxcsr | self.raised })
        }
    }

    const fn masks(&self) -> u32 {
        (self.mxcsr >> mxcsr::MASK_SHIFT) & flags::ALL
    }

    const fn is_masked(&self, flag: u32) -> bool {
        self.masks() & flag != 0
    }

    const fn rounding(&self) -> Rounding {
        Rounding::from_rc(self.mxcsr >> mxcsr::RC_SHIFT)
    }

    #[inline(always)]
    const fn daz(&self) -> bool {
        self.mxcsr & mxcsr::DAZ != 0
    }

    const fn ftz(&self) -> bool {
        self.mxcsr & mxcsr::FTZ != 0
    }

    #[inline(always)]
    fn raise(&mut self, raised: u32) {
        self.raised |= raised;
    }

    /// MXCSR as [`quick`] wants it: flags that this instruction has raised count as set.
    #[inline(always)]
    const fn known(&self) -> u32 {
        self.mxcsr | self.raised
    }
}

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident: $operation:ident;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub fn $name<T: Scalar>(env: &mut SseEnv, a: T, b: T) -> T {
            match quick::apply::<quick::$operation, T>(env.known(), a, b) {
                Some(result) => result,
                None => exact::$name(env, a, b),
            }
        }
    )*};
}

operations! {
    /// `a + b` (ADDSS, ADDSD and each lane of ADDPS, ADDPD).
    add: Add;
    /// `a - b`.
    sub: Sub;
    /// `a * b`.
    mul: Mul;
    /// `a / b`.
    div: Div;
}

/// The square root of `a`.
#[inline(always)]
pub fn sqrt<T: Scalar>(env: &mut SseEnv, a: T) -> T {
    match quick::apply::<quick::Sqrt, T>(env.known(), a, a) {
        Some(result) => result,
        None => exact::sqrt(env, a),
    }
}

/// The approximation of `1 / a` that RCPSS and RCPPS return: the reciprocal of the middle of the interval that the top
/// 11 fraction bits name, rounded to 12 bits. Equal to the processors from Intel; raises nothing.
pub fn rcp(a: u32) -> u32 {
    let sign = a & u32::SIGN;
    let exponent = (a >> 23) & 0xFF;
    match exponent {
        0 => return sign | u32::INFINITY,
        0xFF if a & u32::FRACTION != 0 => return a | u32::QUIET,
        // The reciprocal would be denormal, and is flushed.
        0xFD..=0xFF => return sign,
        _ => {}
    }
    // 1/m in units of 2^-13, where m = middle / 2^12; it lies in (2^12, 2^13).
    let middle = 4096 + ((a & u32::FRACTION) >> 12) * 2 + 1;
    let reciprocal = ((1 << 26) / middle).div_ceil(2);
    sign | (253 - exponent) << 23 | (reciprocal - 4096) << 11
}

/// The approximation of `1 / sqrt(a)` that RSQRTSS and RSQRTPS return, from the top 10 fraction bits and the parity of
/// the exponent. Equal to the processors from Intel; raises nothing.
pub fn rsqrt(a: u32) -> u32 {
    let exponent = (a >> 23) & 0xFF;
    if exponent == 0 {
        return (a & u32::SIGN) | u32::INFINITY;
    }
    if exponent == 0xFF && a & u32::FRACTION != 0 {
        return a | u32::QUIET;
    }
    if a & u32::SIGN != 0 {
        return u32::DEFAULT_NAN;
    }
    if exponent == 0xFF {
        return 0;
    }
    // The middle of the interval, scaled to [1, 4) so that the remaining exponent is even.
    let odd = (exponent & 1) ^ 1;
    let middle = f64::from(2048 + ((a & u32::FRACTION) >> 13) * 2 + 1) / 2048.0 * f64::from(1 + odd);
    // In units of 2^-13, in (2^12, 2^13). No value is near a rounding boundary, so f64 decides correctly.
    let root = (8192.0 / middle.sqrt() + 0.5) as u32;
    let half = (exponent as i32 - odd as i32 - 127) / 2;
    ((126 - half) as u32) << 23 | (root - 4096) << 11
}
