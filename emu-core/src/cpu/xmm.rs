//! A 128-bit register as its bytes in memory order.
//!
//! Lanes are read from and written to bytes, never cut out of a `u128`: the compiler turns loops over the bytes of an
//! [`Xmm`] in memory into the host's vector instructions, and loses them once a value has been a wide integer.

use serde::{Deserialize, Serialize};

/// An XMM register, or 16 bytes of memory. Byte 0 is the least significant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[repr(C, align(16))]
pub struct Xmm(pub [u8; 16]);

/// Integer lanes of 2, 4 and 8 bytes.
pub trait Lane: Copy + Default {
    /// The lanes of `v`, least significant first; `N` must be 16 bytes' worth.
    fn split<const N: usize>(v: Xmm) -> [Self; N];
    /// The reverse.
    fn join<const N: usize>(lanes: [Self; N]) -> Xmm;
}

macro_rules! lane {
    ($($t:ty),*) => {$(
        impl Lane for $t {
            #[inline(always)]
            fn split<const N: usize>(v: Xmm) -> [$t; N] {
                const { assert!(N * size_of::<$t>() == 16) };
                let (chunks, _) = v.0.as_chunks::<{ size_of::<$t>() }>();
                let mut lanes = [0; N];
                for n in 0..N {
                    lanes[n] = <$t>::from_le_bytes(chunks[n]);
                }
                lanes
            }
            #[inline(always)]
            fn join<const N: usize>(lanes: [$t; N]) -> Xmm {
                const { assert!(N * size_of::<$t>() == 16) };
                let mut v = Xmm::default();
                let (chunks, _) = v.0.as_chunks_mut::<{ size_of::<$t>() }>();
                for n in 0..N {
                    chunks[n] = lanes[n].to_le_bytes();
                }
                v
            }
        }
    )*};
}
lane!(u8, i8, u16, i16, u32, i32, u64, i64);

impl From<u128> for Xmm {
    #[inline(always)]
    fn from(value: u128) -> Xmm {
        Xmm(value.to_le_bytes())
    }
}

impl From<Xmm> for u128 {
    #[inline(always)]
    fn from(value: Xmm) -> u128 {
        u128::from_le_bytes(value.0)
    }
}

impl Xmm {
    /// The lanes of type `T`, least significant first.
    #[inline(always)]
    pub fn lanes<T: Lane, const N: usize>(self) -> [T; N] {
        T::split(self)
    }

    /// From lanes, least significant first.
    #[inline(always)]
    pub fn from_lanes<T: Lane, const N: usize>(lanes: [T; N]) -> Xmm {
        T::join(lanes)
    }

    /// The 32-bit lane `n` (0 to 3).
    #[inline(always)]
    pub fn get32(&self, n: usize) -> u32 {
        self.0.as_chunks::<4>().0.get(n).map_or(0, |b| u32::from_le_bytes(*b))
    }

    /// Sets the 32-bit lane `n` (0 to 3).
    #[inline(always)]
    pub fn set32(&mut self, n: usize, value: u32) {
        if let Some(b) = self.0.as_chunks_mut::<4>().0.get_mut(n) {
            *b = value.to_le_bytes();
        }
    }

    /// The 64-bit lane `n` (0 or 1).
    #[inline(always)]
    pub fn get64(&self, n: usize) -> u64 {
        self.0.as_chunks::<8>().0.get(n).map_or(0, |b| u64::from_le_bytes(*b))
    }

    /// Sets the 64-bit lane `n` (0 or 1).
    #[inline(always)]
    pub fn set64(&mut self, n: usize, value: u64) {
        if let Some(b) = self.0.as_chunks_mut::<8>().0.get_mut(n) {
            *b = value.to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xmm_lanes_are_little_endian() {
        let v = Xmm::from(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);
        assert_eq!(v.lanes::<u16, 8>()[1], 0x0302);
        assert_eq!(v.get32(3), 0x0f0e_0d0c);
        assert_eq!(v.get64(1), 0x0f0e_0d0c_0b0a_0908);
        assert_eq!(Xmm::from_lanes(v.lanes::<u32, 4>()), v);
        assert_eq!(u128::from(v), 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);
    }
}
