//! [`Scalar`]: the two formats of SSE as bit patterns, with the host arithmetic and exactness checks of the fast paths.

/// A single (`u32`) or double (`u64`) precision bit pattern. Sealed by being implemented for these two only.
pub trait Scalar: Copy + PartialEq + std::fmt::Debug + Into<u64> {
    /// Significant bits, the implicit one included.
    const PRECISION: u32;
    const EXPONENT_BITS: u32;
    const SIGN: Self;
    const FRACTION: Self;
    /// The fraction bit that tells quiet from signalling NaNs.
    const QUIET: Self;
    const INFINITY: Self;
    /// The QNaN floating-point indefinite.
    const DEFAULT_NAN: Self;
    const BIAS: i32 = (1 << (Self::EXPONENT_BITS - 1)) - 1;

    fn from_bits(bits: u64) -> Self;
    fn host_add(a: Self, b: Self) -> Self;
    fn host_sub(a: Self, b: Self) -> Self;
    fn host_mul(a: Self, b: Self) -> Self;
    fn host_div(a: Self, b: Self) -> Self;
    fn host_sqrt(a: Self) -> Self;
    fn host_less(a: Self, b: Self) -> bool;
    fn host_equal(a: Self, b: Self) -> bool;
    fn host_widen(self) -> f64;
    fn host_from_i64(value: i64) -> Self;

    fn is_zero(self) -> bool;
    fn is_nan(self) -> bool;
    fn is_denormal(self) -> bool;
    fn is_normal(self) -> bool;
    /// Normal, and far enough from both ends of the exponent range that rounding and the error terms of the checks
    /// below can neither overflow nor underflow.
    fn is_well_inside(self) -> bool;
    fn negated(self) -> Self;

    /// `r` is the host's rounded sum of `a` and `b`, finite; is it the exact one?
    fn sum_is_exact(a: Self, b: Self, r: Self) -> bool;
    /// Does the product of two normal operands need no rounding? May say no when unsure.
    fn product_is_exact(a: Self, b: Self) -> bool;
    /// `r` is the host's rounded quotient of `a` and `b`, both normal; is it the exact one?
    fn quotient_is_exact(a: Self, b: Self, r: Self) -> bool;
    /// `r` is the host's rounded square root of the normal `a`; is it the exact one?
    fn root_is_exact(a: Self, r: Self) -> bool;

    fn is_signalling(self) -> bool;
    fn quieted(self) -> Self;
}

macro_rules! scalar_common {
    ($bits:ty, $host:ty, $precision:expr, $exponent_bits:expr) => {
        const PRECISION: u32 = $precision;
        const EXPONENT_BITS: u32 = $exponent_bits;
        const SIGN: Self = 1 << (<$bits>::BITS - 1);
        const FRACTION: Self = (1 << ($precision - 1)) - 1;
        const QUIET: Self = 1 << ($precision - 2);
        const INFINITY: Self = !(Self::SIGN | Self::FRACTION);
        const DEFAULT_NAN: Self = Self::SIGN | Self::INFINITY | Self::QUIET;

        #[inline(always)]
        fn from_bits(bits: u64) -> Self {
            bits as Self
        }
        #[inline(always)]
        fn host_add(a: Self, b: Self) -> Self {
            (<$host>::from_bits(a) + <$host>::from_bits(b)).to_bits()
        }
        #[inline(always)]
        fn host_sub(a: Self, b: Self) -> Self {
            (<$host>::from_bits(a) - <$host>::from_bits(b)).to_bits()
        }
        #[inline(always)]
        fn host_mul(a: Self, b: Self) -> Self {
            (<$host>::from_bits(a) * <$host>::from_bits(b)).to_bits()
        }
        #[inline(always)]
        fn host_div(a: Self, b: Self) -> Self {
            (<$host>::from_bits(a) / <$host>::from_bits(b)).to_bits()
        }
        #[inline(always)]
        fn host_sqrt(a: Self) -> Self {
            <$host>::from_bits(a).sqrt().to_bits()
        }
        #[inline(always)]
        fn host_less(a: Self, b: Self) -> bool {
            <$host>::from_bits(a) < <$host>::from_bits(b)
        }
        #[inline(always)]
        fn host_equal(a: Self, b: Self) -> bool {
            <$host>::from_bits(a) == <$host>::from_bits(b)
        }
        #[inline(always)]
        fn host_widen(self) -> f64 {
            f64::from(<$host>::from_bits(self))
        }
        #[inline(always)]
        fn host_from_i64(value: i64) -> Self {
            (value as $host).to_bits()
        }

        #[inline(always)]
        fn is_zero(self) -> bool {
            self << 1 == 0
        }
        #[inline(always)]
        fn is_nan(self) -> bool {
            self << 1 > Self::INFINITY << 1
        }
        #[inline(always)]
        fn is_denormal(self) -> bool {
            // Zero wraps to the largest value.
            (self << 1).wrapping_sub(1) < (Self::FRACTION << 1) + 1
        }
        #[inline(always)]
        fn is_normal(self) -> bool {
            const LOWEST: $bits = 1 << $precision;
            (self << 1).wrapping_sub(LOWEST) < (<$bits as Scalar>::INFINITY << 1) - LOWEST
        }
        #[inline(always)]
        fn is_well_inside(self) -> bool {
            // Biased exponents from 2 to the largest finite one less 2.
            const LOWEST: $bits = 2 << $precision;
            const HIGHEST: $bits = ((1 << $exponent_bits) - 3) << $precision;
            (self << 1).wrapping_sub(LOWEST) < HIGHEST - LOWEST
        }
        #[inline(always)]
        fn negated(self) -> Self {
            self ^ Self::SIGN
        }
        #[inline(always)]
        fn sum_is_exact(a: Self, b: Self, r: Self) -> bool {
            // TwoSum (Knuth, TAOCP Vol. 2, 4.2.2 theorem B): the rounding error of a sum is itself representable.
            let (a, b, r) = (<$host>::from_bits(a), <$host>::from_bits(b), <$host>::from_bits(r));
            let b_part = r - a;
            let a_part = r - b_part;
            (a - a_part) + (b - b_part) == 0.0
        }
        #[inline(always)]
        fn is_signalling(self) -> bool {
            self.is_nan() && self & Self::QUIET == 0
        }
        #[inline(always)]
        fn quieted(self) -> Self {
            self | Self::QUIET
        }
    };
}

impl Scalar for u32 {
    scalar_common!(u32, f32, 24, 8);

    // Two 24-bit significands fit a double, so that the product of two singles is exact there.
    #[inline(always)]
    fn product_is_exact(a: u32, b: u32) -> bool {
        let product = a.host_widen() * b.host_widen();
        f64::from(product as f32) == product
    }
    #[inline(always)]
    fn quotient_is_exact(a: u32, b: u32, r: u32) -> bool {
        r.host_widen() * b.host_widen() == a.host_widen()
    }
    #[inline(always)]
    fn root_is_exact(a: u32, r: u32) -> bool {
        r.host_widen() * r.host_widen() == a.host_widen()
    }
}

/// The significand of a normal double as an integer with bit 52 set.
#[inline(always)]
const fn significand(bits: u64) -> u64 {
    (bits & ((1 << 52) - 1)) | 1 << 52
}

impl Scalar for u64 {
    scalar_common!(u64, f64, 53, 11);

    #[inline(always)]
    fn product_is_exact(a: u64, b: u64) -> bool {
        // The product has 105 or 106 bits; 53 zeros at its end are enough in either case.
        significand(a).trailing_zeros() + significand(b).trailing_zeros() >= 53
    }
    #[inline(always)]
    fn quotient_is_exact(a: u64, b: u64, r: u64) -> bool {
        let product = u128::from(significand(r)) * u128::from(significand(b));
        let dividend = u128::from(significand(a));
        product == dividend << 52 || product == dividend << 53
    }
    #[inline(always)]
    fn root_is_exact(a: u64, r: u64) -> bool {
        let square = u128::from(significand(r)) * u128::from(significand(r));
        let radicand = u128::from(significand(a));
        square == radicand << 52 || square == radicand << 53
    }
}
