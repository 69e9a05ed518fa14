//! Exact x86 floating point as pure functions: single and double precision as SSE computes them, and the 80-bit
//! extended format of the x87 FPU.
//!
//! Follows SDM Vol. 1 chapters 4.8-4.9 (formats, NaNs, exceptions), 8 (x87) and 11 (SSE), and the instruction pages of
//! Vol. 2. Nothing here knows about registers or instructions: operands and results are bit patterns, the control
//! word or MXCSR comes in through an environment ([`sse::SseEnv`], [`x87::X87Env`]), and the exceptions an operation
//! raised are collected there.
//!
//! ```text
//!  operands --> fast path: host f32/f64, taken only where it is exact --------------------> result
//!         \---> unpack --> Finite (64-bit significand) --> Wide (128 bits) --> round, pack --^
//! ```
//!
//! Deliberately absent: half precision, fused multiply-add, the unsigned and AVX-512 conversions, and every use of the
//! host's own rounding modes or status flags; the code is portable and needs no `unsafe`.

pub mod sse;
#[cfg(test)]
mod tests;
mod wide;
pub mod x87;

pub use x87::F80;

/// Exception flags, in the bit order that MXCSR and the x87 status and control words share.
pub mod flags {
    /// Invalid operation.
    pub const IE: u32 = 1 << 0;
    /// Denormal operand.
    pub const DE: u32 = 1 << 1;
    /// Division by zero.
    pub const ZE: u32 = 1 << 2;
    /// Numeric overflow.
    pub const OE: u32 = 1 << 3;
    /// Numeric underflow.
    pub const UE: u32 = 1 << 4;
    /// Inexact result (precision).
    pub const PE: u32 = 1 << 5;
    /// The exceptions that are detected before an operation is computed (SDM Vol. 1, 4.9.2).
    pub const BEFORE: u32 = IE | DE | ZE;
    /// All six exceptions.
    pub const ALL: u32 = 0x3F;
}

/// Rounding control, numbered as the RC fields of MXCSR and the x87 control word are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest value, ties to the even one.
    Nearest = 0,
    /// Towards minus infinity.
    Down = 1,
    /// Towards plus infinity.
    Up = 2,
    /// Towards zero.
    Zero = 3,
}

impl Rounding {
    /// Decodes a two-bit RC field; higher bits are ignored.
    #[inline(always)]
    pub const fn from_rc(rc: u32) -> Self {
        match rc & 3 {
            0 => Self::Nearest,
            1 => Self::Down,
            2 => Self::Up,
            _ => Self::Zero,
        }
    }

    /// True if a magnitude of the given sign is rounded away from zero, given the discarded part `rest` as a
    /// fraction of the last place (2^64 is one unit) and whether the kept part is odd.
    #[inline(always)]
    pub(crate) const fn increments(self, negative: bool, rest: u64, odd: bool) -> bool {
        const HALF: u64 = 1 << 63;
        match self {
            Self::Nearest => rest > HALF || (rest == HALF && odd),
            Self::Down => negative && rest != 0,
            Self::Up => !negative && rest != 0,
            Self::Zero => false,
        }
    }
}

/// How two floating-point values compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The first operand is less than the second.
    Less,
    /// The operands are equal; zeros of either sign are.
    Equal,
    /// The first operand is greater than the second.
    Greater,
    /// At least one operand is a NaN.
    Unordered,
}
