//! The operands of a packed operation and the lane patterns that instructions are made of.
//!
//! Everything here is a loop over arrays of lanes that the compiler unrolls and vectorises; see [`crate::cpu::xmm`].

use crate::cpu::xmm::{Lane, Xmm};

/// What a packed operation sees.
#[derive(Clone, Copy)]
pub struct Pair {
    /// The destination's old value.
    pub dst: Xmm,
    /// The source; a scalar memory operand or an immediate count is zero-extended.
    pub src: Xmm,
    /// The immediate byte of the instructions that have one.
    pub imm: u8,
    /// XMM0, which the variable blends and SHA256RNDS2 read.
    pub xmm0: Xmm,
}

macro_rules! lane_by_lane {
    ($($t:ident $n:literal),*) => {$(
        /// Applies `f` to each pair of lanes of this type.
        #[inline(always)]
        pub fn $t(self, f: impl Fn($t, $t) -> $t) -> Xmm {
            let a = self.dst.lanes::<$t, $n>();
            let b = self.src.lanes::<$t, $n>();
            let mut r = [0; $n];
            for n in 0..$n {
                r[n] = f(a[n], b[n]);
            }
            Xmm::from_lanes(r)
        }
    )*};
}

impl Pair {
    lane_by_lane!(u8 16, i8 16, u16 8, i16 8, u32 4, i32 4, u64 2, i64 2);

    /// The low halves' lanes, alternating.
    #[inline(always)]
    pub fn unpack_low<T: Lane, const N: usize>(self) -> Xmm {
        self.unpack::<T, N>(0)
    }

    /// The high halves' lanes, alternating.
    #[inline(always)]
    pub fn unpack_high<T: Lane, const N: usize>(self) -> Xmm {
        self.unpack::<T, N>(N / 2)
    }

    #[inline(always)]
    fn unpack<T: Lane, const N: usize>(self, from: usize) -> Xmm {
        let a = self.dst.lanes::<T, N>();
        let b = self.src.lanes::<T, N>();
        let mut r = [T::default(); N];
        for n in 0..N / 2 {
            r[2 * n] = a[from + n];
            r[2 * n + 1] = b[from + n];
        }
        Xmm::from_lanes(r)
    }

    /// Narrows the lanes of both operands: the destination's become the low half.
    #[inline(always)]
    pub fn narrow<T: Lane, const N: usize, U: Lane, const M: usize>(self, f: impl Fn(T) -> U) -> Xmm {
        let a = self.dst.lanes::<T, N>();
        let b = self.src.lanes::<T, N>();
        let mut r = [U::default(); M];
        for n in 0..N {
            r[n] = f(a[n]);
            r[N + n] = f(b[n]);
        }
        Xmm::from_lanes(r)
    }

    /// Widens the low lanes of the source.
    #[inline(always)]
    pub fn widen<T: Lane, const N: usize, U: Lane, const M: usize>(self, f: impl Fn(T) -> U) -> Xmm {
        let a = self.src.lanes::<T, N>();
        let mut r = [U::default(); M];
        for n in 0..M {
            r[n] = f(a[n]);
        }
        Xmm::from_lanes(r)
    }

    /// Combines neighbouring lanes; the destination's results become the low half.
    #[inline(always)]
    pub fn horizontal<T: Lane, const N: usize>(self, f: impl Fn(T, T) -> T) -> Xmm {
        let a = self.dst.lanes::<T, N>();
        let b = self.src.lanes::<T, N>();
        let mut r = [T::default(); N];
        for n in 0..N / 2 {
            r[n] = f(a[2 * n], a[2 * n + 1]);
            r[N / 2 + n] = f(b[2 * n], b[2 * n + 1]);
        }
        Xmm::from_lanes(r)
    }

    /// Combines products of neighbouring lanes, each pair of `T` becoming one `U`.
    #[inline(always)]
    pub fn dot<T: Lane, const N: usize, U: Lane, const M: usize>(self, f: impl Fn([T; 2], [T; 2]) -> U) -> Xmm {
        let a = self.dst.lanes::<T, N>();
        let b = self.src.lanes::<T, N>();
        let mut r = [U::default(); M];
        for n in 0..M {
            r[n] = f([a[2 * n], a[2 * n + 1]], [b[2 * n], b[2 * n + 1]]);
        }
        Xmm::from_lanes(r)
    }

    /// Shifts each lane by the count in the source's low 64 bits, which `f` gets cut to `u32`.
    #[inline(always)]
    pub fn shift<T: Lane, const N: usize>(self, f: impl Fn(T, u32) -> T) -> Xmm {
        let count = self.src.get64(0).min(255) as u32;
        let mut r = self.dst.lanes::<T, N>();
        for lane in &mut r {
            *lane = f(*lane, count);
        }
        Xmm::from_lanes(r)
    }

    /// Takes for each lane the source's if bit `n * step` of the immediate is set.
    #[inline(always)]
    pub fn blend<T: Lane, const N: usize>(self) -> Xmm {
        let a = self.dst.lanes::<T, N>();
        let mut r = self.src.lanes::<T, N>();
        for n in 0..N {
            if self.imm >> n & 1 == 0 {
                r[n] = a[n];
            }
        }
        Xmm::from_lanes(r)
    }

    /// The destination with 64-bit lane `n` replaced.
    #[inline(always)]
    pub fn with64(self, n: usize, value: u64) -> Xmm {
        let mut r = self.dst;
        r.set64(n, value);
        r
    }
}
