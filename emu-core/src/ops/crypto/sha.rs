//! SHA-1 and SHA-256 steps (FIPS 180-4; SDM Vol. 2 SHA1RNDS4 and following). Lane 3 of a register is the first word.

use crate::cpu::xmm::Xmm;

#[inline(always)]
fn words(v: Xmm) -> [u32; 4] {
    v.lanes::<u32, 4>()
}

/// SHA1NEXTE: the state variable E four rounds later, added to the schedule.
#[inline(always)]
pub fn sha1nexte(dst: Xmm, src: Xmm) -> Xmm {
    let mut r = words(src);
    r[3] = r[3].wrapping_add(words(dst)[3].rotate_left(30));
    Xmm::from_lanes(r)
}

/// SHA1MSG1.
#[inline(always)]
pub fn sha1msg1(dst: Xmm, src: Xmm) -> Xmm {
    let (d, s) = (words(dst), words(src));
    Xmm::from_lanes([d[0] ^ s[2], d[1] ^ s[3], d[2] ^ d[0], d[3] ^ d[1]])
}

/// SHA1MSG2.
#[inline(always)]
pub fn sha1msg2(dst: Xmm, src: Xmm) -> Xmm {
    let (d, s) = (words(dst), words(src));
    let w16 = (d[3] ^ s[2]).rotate_left(1);
    let w17 = (d[2] ^ s[1]).rotate_left(1);
    let w18 = (d[1] ^ s[0]).rotate_left(1);
    let w19 = (d[0] ^ w16).rotate_left(1);
    Xmm::from_lanes([w19, w18, w17, w16])
}

/// SHA1RNDS4: four rounds with the function and constant that `imm` chooses.
#[inline(always)]
pub fn sha1rnds4(dst: Xmm, src: Xmm, imm: u8) -> Xmm {
    let [mut d, mut c, mut b, mut a] = words(dst);
    let schedule = words(src);
    let mut e = 0u32;
    for round in 0..4 {
        let (f, k) = match imm & 3 {
            0 => ((b & c) ^ (!b & d), 0x5a82_7999),
            1 => (b ^ c ^ d, 0x6ed9_eba1),
            2 => ((b & c) ^ (b & d) ^ (c & d), 0x8f1b_bcdc),
            _ => (b ^ c ^ d, 0xca62_c1d6u32),
        };
        // The first word already has E added (SHA1NEXTE), which is why `e` starts as zero.
        let sum = f.wrapping_add(a.rotate_left(5)).wrapping_add(schedule[3 - round]).wrapping_add(e).wrapping_add(k);
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, sum);
    }
    Xmm::from_lanes([d, c, b, a])
}

/// SHA256RNDS2: two rounds; `wk` holds the schedule's words with their constants added.
#[inline(always)]
pub fn sha256rnds2(dst: Xmm, src: Xmm, wk: Xmm) -> Xmm {
    let [mut h, mut g, mut d, mut c] = words(dst);
    let [mut f, mut e, mut b, mut a] = words(src);
    for round in 0..2 {
        let choose = (e & f) ^ (!e & g);
        let majority = (a & b) ^ (a & c) ^ (b & c);
        let sum1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let sum0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let t = choose.wrapping_add(sum1).wrapping_add(wk.get32(round)).wrapping_add(h);
        (h, g, f, e, d, c, b, a) = (g, f, e, t.wrapping_add(d), c, b, a, t.wrapping_add(majority).wrapping_add(sum0));
    }
    Xmm::from_lanes([f, e, b, a])
}

/// SHA256MSG1.
#[inline(always)]
pub fn sha256msg1(dst: Xmm, src: Xmm) -> Xmm {
    let d = words(dst);
    let next = [d[1], d[2], d[3], src.get32(0)];
    let sigma0 = |x: u32| x.rotate_right(7) ^ x.rotate_right(18) ^ x >> 3;
    let mut r = d;
    for (r, next) in r.iter_mut().zip(next) {
        *r = r.wrapping_add(sigma0(next));
    }
    Xmm::from_lanes(r)
}

/// SHA256MSG2.
#[inline(always)]
pub fn sha256msg2(dst: Xmm, src: Xmm) -> Xmm {
    let (d, s) = (words(dst), words(src));
    let sigma1 = |x: u32| x.rotate_right(17) ^ x.rotate_right(19) ^ x >> 10;
    let w16 = d[0].wrapping_add(sigma1(s[2]));
    let w17 = d[1].wrapping_add(sigma1(s[3]));
    let w18 = d[2].wrapping_add(sigma1(w16));
    let w19 = d[3].wrapping_add(sigma1(w17));
    Xmm::from_lanes([w16, w17, w18, w19])
}
