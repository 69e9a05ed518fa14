//! Operations against definitions lane by lane, one or more for each class. `tests/tests/host_oracle.rs` compares whole
//! instructions with the host's.

use super::arith::*;
use super::packed::Packed;
use super::pair::Pair;
use super::shift::*;
use super::shuffle::*;
use crate::cpu::xmm::Xmm;

const A: u128 = 0x8000_7fff_0001_ffff_1234_5678_9abc_def0;
const B: u128 = 0x8001_0001_fffe_0002_0f0f_f0f0_8080_7f7f;

fn apply<P: Packed>(dst: u128, src: u128, imm: u8) -> u128 {
    P::apply(Pair { dst: dst.into(), src: src.into(), imm, xmm0: Xmm::from(B) }).into()
}

fn words(f: impl Fn(u16, u16) -> u16) -> u128 {
    (0..8).map(|n| u128::from(f((A >> (16 * n)) as u16, (B >> (16 * n)) as u16)) << (16 * n)).sum()
}

#[test]
fn packed_addition_wraps_or_saturates_in_each_lane() {
    assert_eq!(apply::<Paddw>(A, B, 0), words(u16::wrapping_add));
    assert_eq!(apply::<Paddusw>(A, B, 0), words(u16::saturating_add));
    assert_eq!(apply::<Psubsw>(A, B, 0), words(|a, b| (a as i16).saturating_sub(b as i16) as u16));
}

#[test]
fn packed_multiplication_keeps_the_half_that_it_names() {
    assert_eq!(apply::<Pmullw>(A, B, 0), words(u16::wrapping_mul));
    assert_eq!(apply::<Pmulhuw>(A, B, 0), words(|a, b| ((u32::from(a) * u32::from(b)) >> 16) as u16));
    assert_eq!(apply::<Pmaddwd>(u128::MAX / 0xffff * 0x8000, u128::MAX / 0xffff * 0x8000, 0) as u32, 0x8000_0000);
}

#[test]
fn packed_comparison_gives_masks() {
    assert_eq!(apply::<Pcmpgtw>(A, B, 0), words(|a, b| if (a as i16) > (b as i16) { 0xffff } else { 0 }));
    assert_eq!(apply::<Pcmpeqw>(A, A, 0), u128::MAX);
}

#[test]
fn packed_shift_by_more_than_the_lane_clears_or_fills_with_the_sign() {
    assert_eq!(apply::<Psrlw>(A, 16, 0), 0);
    assert_eq!(apply::<Psllq>(A, u128::from(u64::MAX), 0), 0);
    assert_eq!(apply::<Psraw>(A, 1 << 40, 0), words(|a, _| if a >> 15 != 0 { 0xffff } else { 0 }));
    assert_eq!(apply::<Psrldq>(A, 3, 0), A >> 24);
    assert_eq!(apply::<Pslldq>(A, 16, 0), 0);
}

#[test]
fn packs_saturate_with_the_destination_below_the_source() {
    let packed = apply::<Packuswb>(0x0100_ffff_0080, 0x7fff << 112, 0);
    assert_eq!(packed, 0xff << 120 | 0xff_00_80);
}

#[test]
fn shuffles_take_lanes_by_the_fields_of_the_immediate() {
    assert_eq!(apply::<Pshufd>(0, 3 << 96 | 2 << 64 | 1 << 32, 0x1b), 1 << 64 | 2 << 32 | 3);
    assert_eq!(apply::<Palignr>(A, B, 4), B >> 32 | A << 96);
    assert_eq!(apply::<Palignr>(A, B, 20), A >> 32);
    assert_eq!(apply::<Palignr>(A, B, 32), 0);
    assert_eq!(apply::<Pshufb>(A, 0x80, 0), (u128::MAX / 255 * (A & 0xff)) & !0xff);
}

#[test]
fn sums_of_absolute_differences_are_per_half() {
    assert_eq!(apply::<Psadbw>(u128::MAX, 0, 0), 2040 << 64 | 2040);
    assert_eq!(apply::<Mpsadbw>(0, u128::MAX, 5), words(|_, _| 1020));
}

#[test]
fn phminposuw_takes_the_first_of_equal_lanes() {
    assert_eq!(
        apply::<Phminposuw>(
            0,
            7 << 112 | 5 << 64 | 5 << 32 | u128::from(u32::MAX) | 0xffff << 48 | 0xffff << 80 | 0xffff << 96,
            0
        ),
        2 << 16 | 5
    );
}

#[test]
fn variable_blend_follows_the_signs_of_xmm0() {
    let expected: u128 = (0..16)
        .map(|n| {
            let from = if B >> (8 * n + 7) & 1 != 0 { u128::MAX } else { 0 };
            (from >> (8 * n) & 0xff) << (8 * n)
        })
        .sum();
    assert_eq!(apply::<Pblendvb>(0, u128::MAX, 0), expected);
}
