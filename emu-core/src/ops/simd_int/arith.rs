//! Packed integer arithmetic and comparison (SDM Vol. 2, one page per mnemonic; Vol. 1 9.4, 11.4, 12.3 to 12.10).

use super::packed::packed_rows;
use super::pair::Pair;
use crate::cpu::xmm::Xmm;

packed_rows! { packed:
    Paddb => |p| p.u8(u8::wrapping_add);
    Paddw => |p| p.u16(u16::wrapping_add);
    Paddd => |p| p.u32(u32::wrapping_add);
    Paddq => |p| p.u64(u64::wrapping_add);
    Paddsb => |p| p.i8(i8::saturating_add);
    Paddsw => |p| p.i16(i16::saturating_add);
    Paddusb => |p| p.u8(u8::saturating_add);
    Paddusw => |p| p.u16(u16::saturating_add);
    Psubb => |p| p.u8(u8::wrapping_sub);
    Psubw => |p| p.u16(u16::wrapping_sub);
    Psubd => |p| p.u32(u32::wrapping_sub);
    Psubq => |p| p.u64(u64::wrapping_sub);
    Psubsb => |p| p.i8(i8::saturating_sub);
    Psubsw => |p| p.i16(i16::saturating_sub);
    Psubusb => |p| p.u8(u8::saturating_sub);
    Psubusw => |p| p.u16(u16::saturating_sub);

    Pavgb => |p| p.u8(|a, b| ((u16::from(a) + u16::from(b) + 1) >> 1) as u8);
    Pavgw => |p| p.u16(|a, b| ((u32::from(a) + u32::from(b) + 1) >> 1) as u16);
    Pminub => |p| p.u8(|a, b| a.min(b));
    Pminuw => |p| p.u16(|a, b| a.min(b));
    Pminud => |p| p.u32(|a, b| a.min(b));
    Pminsb => |p| p.i8(|a, b| a.min(b));
    Pminsw => |p| p.i16(|a, b| a.min(b));
    Pminsd => |p| p.i32(|a, b| a.min(b));
    Pmaxub => |p| p.u8(|a, b| a.max(b));
    Pmaxuw => |p| p.u16(|a, b| a.max(b));
    Pmaxud => |p| p.u32(|a, b| a.max(b));
    Pmaxsb => |p| p.i8(|a, b| a.max(b));
    Pmaxsw => |p| p.i16(|a, b| a.max(b));
    Pmaxsd => |p| p.i32(|a, b| a.max(b));

    Pcmpeqb => |p| p.i8(|a, b| -i8::from(a == b));
    Pcmpeqw => |p| p.i16(|a, b| -i16::from(a == b));
    Pcmpeqd => |p| p.i32(|a, b| -i32::from(a == b));
    Pcmpeqq => |p| p.i64(|a, b| -i64::from(a == b));
    Pcmpgtb => |p| p.i8(|a, b| -i8::from(a > b));
    Pcmpgtw => |p| p.i16(|a, b| -i16::from(a > b));
    Pcmpgtd => |p| p.i32(|a, b| -i32::from(a > b));
    Pcmpgtq => |p| p.i64(|a, b| -i64::from(a > b));

    Pmullw => |p| p.u16(u16::wrapping_mul);
    Pmulld => |p| p.u32(u32::wrapping_mul);
    Pmulhw => |p| p.i16(|a, b| ((i32::from(a) * i32::from(b)) >> 16) as i16);
    Pmulhuw => |p| p.u16(|a, b| ((u32::from(a) * u32::from(b)) >> 16) as u16);
    Pmulhrsw => |p| p.i16(|a, b| ((((i32::from(a) * i32::from(b)) >> 14) + 1) >> 1) as i16);
    Pmuludq => |p| p.u64(|a, b| (a & 0xffff_ffff) * (b & 0xffff_ffff));
    Pmuldq => |p| p.i64(|a, b| i64::from(a as i32) * i64::from(b as i32));
    Pmaddwd => |p| p.dot::<i16, 8, i32, 4>(|a, b| {
        (i32::from(a[0]) * i32::from(b[0])).wrapping_add(i32::from(a[1]) * i32::from(b[1]))
    });
    // Unsigned bytes of the destination times signed bytes of the source.
    Pmaddubsw => |p| p.dot::<u8, 16, i16, 8>(|a, b| {
        let product = |n: usize| i16::from(a[n]) * i16::from(b[n] as i8);
        product(0).saturating_add(product(1))
    });
    Psadbw => sum_of_differences;
    Mpsadbw => multiple_sums_of_differences;
    Phminposuw => |p| {
        let lanes = p.src.lanes::<u16, 8>();
        // The index in the low bits makes the first of equal lanes the smallest.
        let least = (0..8).map(|n| u32::from(lanes[n]) << 3 | n as u32).min().unwrap_or(0);
        Xmm::from_lanes([u64::from(least >> 3 | (least & 7) << 16), 0])
    };

    Pabsb => |p| p.i8(|_, b| b.wrapping_abs());
    Pabsw => |p| p.i16(|_, b| b.wrapping_abs());
    Pabsd => |p| p.i32(|_, b| b.wrapping_abs());
    Psignb => |p| p.i8(|a, b| if b < 0 { a.wrapping_neg() } else if b == 0 { 0 } else { a });
    Psignw => |p| p.i16(|a, b| if b < 0 { a.wrapping_neg() } else if b == 0 { 0 } else { a });
    Psignd => |p| p.i32(|a, b| if b < 0 { a.wrapping_neg() } else if b == 0 { 0 } else { a });

    Phaddw mmx(|p| Phaddw::apply(joined(p)).get64(0)) => |p| p.horizontal::<u16, 8>(u16::wrapping_add);
    Phaddd mmx(|p| Phaddd::apply(joined(p)).get64(0)) => |p| p.horizontal::<u32, 4>(u32::wrapping_add);
    Phaddsw mmx(|p| Phaddsw::apply(joined(p)).get64(0)) => |p| p.horizontal::<i16, 8>(i16::saturating_add);
    Phsubw mmx(|p| Phsubw::apply(joined(p)).get64(0)) => |p| p.horizontal::<u16, 8>(u16::wrapping_sub);
    Phsubd mmx(|p| Phsubd::apply(joined(p)).get64(0)) => |p| p.horizontal::<u32, 4>(u32::wrapping_sub);
    Phsubsw mmx(|p| Phsubsw::apply(joined(p)).get64(0)) => |p| p.horizontal::<i16, 8>(i16::saturating_sub);

    Pand => |p| p.u64(|a, b| a & b);
    Pandn => |p| p.u64(|a, b| !a & b);
    Por => |p| p.u64(|a, b| a | b);
    Pxor => |p| p.u64(|a, b| a ^ b);
    Andps => |p| p.u64(|a, b| a & b);
    Andpd => |p| p.u64(|a, b| a & b);
    Andnps => |p| p.u64(|a, b| !a & b);
    Andnpd => |p| p.u64(|a, b| !a & b);
    Orps => |p| p.u64(|a, b| a | b);
    Orpd => |p| p.u64(|a, b| a | b);
    Xorps => |p| p.u64(|a, b| a ^ b);
    Xorpd => |p| p.u64(|a, b| a ^ b);
}

/// The two MMX operands as one: an operation that puts the destination's results below the source's then leaves both in
/// the low half.
#[inline(always)]
pub fn joined(p: Pair) -> Pair {
    Pair { dst: Xmm::from_lanes([p.dst.get64(0), p.src.get64(0)]), ..p }
}

#[inline(always)]
fn sum_of_differences(p: Pair) -> Xmm {
    let a = p.dst.lanes::<u8, 16>();
    let b = p.src.lanes::<u8, 16>();
    let mut differences = [0u8; 16];
    for n in 0..16 {
        differences[n] = a[n].abs_diff(b[n]);
    }
    // Sums of eight bytes without carries between 16-bit lanes.
    let mut sums = Xmm::from_lanes(differences).lanes::<u64, 2>();
    for eight in &mut sums {
        let pairs = (*eight & 0x00ff_00ff_00ff_00ff) + (*eight >> 8 & 0x00ff_00ff_00ff_00ff);
        *eight = pairs.wrapping_mul(0x0001_0001_0001_0001) >> 48;
    }
    Xmm::from_lanes(sums)
}

#[inline(always)]
fn multiple_sums_of_differences(p: Pair) -> Xmm {
    let a = &p.dst.0[usize::from(p.imm >> 2 & 1) * 4..];
    let b = &p.src.0[usize::from(p.imm & 3) * 4..];
    let mut r = [0u16; 8];
    for (n, sum) in r.iter_mut().enumerate() {
        *sum = a[n..n + 4].iter().zip(b).map(|(x, y)| u16::from(x.abs_diff(*y))).sum();
    }
    Xmm::from_lanes(r)
}
