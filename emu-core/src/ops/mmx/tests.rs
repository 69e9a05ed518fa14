//! Operations whose MMX form is not the low half of their SSE form.

use super::*;
use crate::ops::simd_int::arith::Phaddw;
use crate::ops::simd_int::shuffle::{Packsswb, Palignr, Pshufb, Punpckhwd};

fn apply<P: Packed>(dst: u64, src: u64, imm: u8) -> u64 {
    P::apply_mmx(Pair { dst: scalar(dst), src: scalar(src), imm, xmm0: Xmm::default() })
}

#[test]
fn mmx_packs_and_horizontal_additions_take_four_lanes_of_each_operand() {
    assert_eq!(apply::<Packsswb>(0x7fff_0001_8000_0002, 0x0003_0004_0005_0006, 0), 0x0304_0506_7f01_8002);
    assert_eq!(apply::<Phaddw>(0x0004_0003_0002_0001, 0x0040_0030_0020_0010, 0), 0x0070_0030_0007_0003);
}

#[test]
fn mmx_unpack_high_takes_the_upper_halves() {
    assert_eq!(apply::<Punpckhwd>(0x0004_0003_0002_0001, 0x0040_0030_0020_0010, 0), 0x0040_0004_0030_0003);
}

#[test]
fn mmx_byte_shuffles_stay_within_eight_bytes() {
    assert_eq!(apply::<Pshufb>(0x0706_0504_0302_0100, 0x8f0f_0e0d_0c0b_0a09, 0), 0x0007_0605_0403_0201);
    assert_eq!(apply::<Palignr>(0x1111_1111_1111_1111, 0x2222_2222_2222_2222, 12), 0x1111_1111);
}
