//! F2XM1, FYL2X, FYL2XP1, FSIN, FCOS, FSINCOS, FPTAN and FPATAN (SDM Vol. 1, 8.3.8 to 8.3.10).
//!
//! All of them evaluate short power series in 128-bit fixed point after a reduction that is exact, so that the error
//! before the final rounding is below 2^-100 and the results are correctly rounded but for rare near-ties; real
//! processors stay within one unit in the last place. Tables are computed at compile time from the same series.

mod arctangent;
mod exponential;
mod fixed;
mod logarithm;
mod trigonometric;

pub use arctangent::arc_tangent;
pub use exponential::exp2_minus_1;
pub use logarithm::{log2_plus_1_times, log2_times};
pub use trigonometric::{cosine, sine, sine_cosine, tangent};

/// Pi / 4 in units of 2^-128, that is the significand of pi.
pub const PI: u128 = 0xC90F_DAA2_2168_C234_C4C6_628B_80DC_1CD1;
/// The natural logarithm of 2 in units of 2^-128.
pub const LN_2: u128 = 0xB172_17F7_D1CF_79AB_C9E3_B398_03F2_F6AF;
/// The base-2 logarithm of e in units of 2^-127.
pub const LOG2_E: u128 = 0xB8AA_3B29_5C17_F0BB_BE87_FED0_691D_3E88;
