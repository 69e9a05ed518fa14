//! Shuffles, unpacks, packs, blends, and conversions between lane sizes, of integer and floating-point types alike:
//! none of them looks at values.

use super::arith::joined;
use super::packed::packed_rows;
use super::pair::Pair;
use crate::cpu::xmm::{Lane, Xmm};

packed_rows! { packed:
    Punpcklbw => |p| p.unpack_low::<u8, 16>();
    Punpcklwd => |p| p.unpack_low::<u16, 8>();
    Punpckldq => |p| p.unpack_low::<u32, 4>();
    Punpcklqdq => |p| p.unpack_low::<u64, 2>();
    Punpckhbw mmx(|p| p.unpack_low::<u8, 16>().get64(1)) => |p| p.unpack_high::<u8, 16>();
    Punpckhwd mmx(|p| p.unpack_low::<u16, 8>().get64(1)) => |p| p.unpack_high::<u16, 8>();
    Punpckhdq mmx(|p| p.unpack_low::<u32, 4>().get64(1)) => |p| p.unpack_high::<u32, 4>();
    Punpckhqdq => |p| p.unpack_high::<u64, 2>();
    Unpcklps => |p| p.unpack_low::<u32, 4>();
    Unpckhps => |p| p.unpack_high::<u32, 4>();
    Unpcklpd => |p| p.unpack_low::<u64, 2>();
    Unpckhpd => |p| p.unpack_high::<u64, 2>();

    Packsswb mmx(|p| Packsswb::apply(joined(p)).get64(0)) =>
        |p| p.narrow::<i16, 8, i8, 16>(|a| a.clamp(i8::MIN.into(), i8::MAX.into()) as i8);
    Packssdw mmx(|p| Packssdw::apply(joined(p)).get64(0)) =>
        |p| p.narrow::<i32, 4, i16, 8>(|a| a.clamp(i16::MIN.into(), i16::MAX.into()) as i16);
    Packuswb mmx(|p| Packuswb::apply(joined(p)).get64(0)) =>
        |p| p.narrow::<i16, 8, u8, 16>(|a| a.clamp(0, u8::MAX.into()) as u8);
    Packusdw => |p| p.narrow::<i32, 4, u16, 8>(|a| a.clamp(0, u16::MAX.into()) as u16);

    Pmovsxbw (8) => |p| p.widen::<i8, 16, i16, 8>(i16::from);
    Pmovsxbd (4) => |p| p.widen::<i8, 16, i32, 4>(i32::from);
    Pmovsxbq (2) => |p| p.widen::<i8, 16, i64, 2>(i64::from);
    Pmovsxwd (8) => |p| p.widen::<i16, 8, i32, 4>(i32::from);
    Pmovsxwq (4) => |p| p.widen::<i16, 8, i64, 2>(i64::from);
    Pmovsxdq (8) => |p| p.widen::<i32, 4, i64, 2>(i64::from);
    Pmovzxbw (8) => |p| p.widen::<u8, 16, u16, 8>(u16::from);
    Pmovzxbd (4) => |p| p.widen::<u8, 16, u32, 4>(u32::from);
    Pmovzxbq (2) => |p| p.widen::<u8, 16, u64, 2>(u64::from);
    Pmovzxwd (8) => |p| p.widen::<u16, 8, u32, 4>(u32::from);
    Pmovzxwq (4) => |p| p.widen::<u16, 8, u64, 2>(u64::from);
    Pmovzxdq (8) => |p| p.widen::<u32, 4, u64, 2>(u64::from);

    Pshufd => |p| {
        let s = p.src.lanes::<u32, 4>();
        Xmm::from_lanes([0, 2, 4, 6].map(|at| s[usize::from(p.imm >> at & 3)]))
    };
    Pshuflw => |p| Xmm::from_lanes([words(p.src.get64(0), p.imm), p.src.get64(1)]);
    Pshufhw => |p| Xmm::from_lanes([p.src.get64(0), words(p.src.get64(1), p.imm)]);
    // Only an MMX instruction.
    Pshufw => |p| Xmm::from_lanes([words(p.src.get64(0), p.imm), 0]);
    Pshufb mmx(|p| bytes(p, 7).get64(0)) => |p| bytes(p, 15);
    Palignr mmx(|p| {
        let both = u128::from(p.dst.get64(0)) << 64 | u128::from(p.src.get64(0));
        both.checked_shr(8 * u32::from(p.imm)).unwrap_or(0) as u64
    }) => align;
    Shufps => |p| {
        let (d, s) = (p.dst.lanes::<u32, 4>(), p.src.lanes::<u32, 4>());
        let field = |at: u8| usize::from(p.imm >> at & 3);
        Xmm::from_lanes([d[field(0)], d[field(2)], s[field(4)], s[field(6)]])
    };
    Shufpd => |p| {
        let (d, s) = (p.dst.lanes::<u64, 2>(), p.src.lanes::<u64, 2>());
        Xmm::from_lanes([d[usize::from(p.imm & 1)], s[usize::from(p.imm >> 1 & 1)]])
    };
    Movsldup => |p| every_other(p, 0);
    Movshdup => |p| every_other(p, 1);
    Movddup (8) => |p| Xmm::from_lanes([p.src.get64(0); 2]);
    Movlhps => |p| p.with64(1, p.src.get64(0));
    Movhlps => |p| p.with64(0, p.src.get64(1));

    Pblendw => |p| p.blend::<u16, 8>();
    Blendps => |p| p.blend::<u32, 4>();
    Blendpd => |p| p.blend::<u64, 2>();
    Pblendvb => |p| select::<i8, 16>(p, |mask| mask < 0);
    Blendvps => |p| select::<i32, 4>(p, |mask| mask < 0);
    Blendvpd => |p| select::<i64, 2>(p, |mask| mask < 0);
}

/// Four words of `four` as the fields of `imm` choose them.
#[inline(always)]
fn words(four: u64, imm: u8) -> u64 {
    let word = |at: u8| four >> (16 * u32::from(imm >> at & 3)) & 0xffff;
    word(0) | word(2) << 16 | word(4) << 32 | word(6) << 48
}

/// PSHUFB: each byte of the source chooses one of the destination, or zero if its top bit is set.
#[inline(always)]
fn bytes(p: Pair, mask: u8) -> Xmm {
    let mut r = [0; 16];
    for (byte, control) in r.iter_mut().zip(p.src.0) {
        let chosen = p.dst.0[usize::from(control & mask & 15)];
        *byte = if control & 0x80 != 0 { 0 } else { chosen };
    }
    Xmm(r)
}

/// PALIGNR: 16 bytes from the middle of destination and source together.
#[inline(always)]
fn align(p: Pair) -> Xmm {
    let bits = 8 * u32::from(p.imm);
    let (d, s) = (u128::from(p.dst), u128::from(p.src));
    Xmm::from(match bits {
        0 => s,
        1..128 => s >> bits | d << (128 - bits),
        _ => d.checked_shr(bits - 128).unwrap_or(0),
    })
}

#[inline(always)]
fn every_other(p: Pair, from: usize) -> Xmm {
    let s = p.src.lanes::<u32, 4>();
    Xmm::from_lanes([s[from], s[from], s[from + 2], s[from + 2]])
}

/// Takes the source's lanes where XMM0's are chosen by `f`.
#[inline(always)]
fn select<T: Lane, const N: usize>(p: Pair, f: impl Fn(T) -> bool) -> Xmm {
    let mask = p.xmm0.lanes::<T, N>();
    let (d, s) = (p.dst.lanes::<T, N>(), p.src.lanes::<T, N>());
    let mut r = d;
    for n in 0..N {
        r[n] = if f(mask[n]) { s[n] } else { d[n] };
    }
    Xmm::from_lanes(r)
}
