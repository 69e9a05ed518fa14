//! The rounds of AES (FIPS 197; SDM Vol. 2 AESENC and following).
//!
//! Byte `n` of a register is the state's row `n % 4`, column `n / 4`. Tables are computed at compile time from the
//! field's definition. Guest secrets are not protected against timing of the host's caches.

use crate::cpu::xmm::Xmm;

/// Doubles in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1.
const fn double(a: u8) -> u8 {
    a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 }
}

const fn multiply(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a = double(a);
        b >>= 1;
    }
    product
}

/// FIPS 197 5.1.1: the inverse in the field, then an affine map.
const fn s_box() -> [u8; 256] {
    let mut table = [0; 256];
    let mut a = 0;
    while a < 256 {
        // a^254 is the inverse, and 0 for 0.
        let mut inverse = 1u8;
        let mut n = 0;
        while n < 254 {
            inverse = multiply(inverse, a as u8);
            n += 1;
        }
        let x = inverse;
        table[a] = x ^ x.rotate_left(1) ^ x.rotate_left(2) ^ x.rotate_left(3) ^ x.rotate_left(4) ^ 0x63;
        a += 1;
    }
    table
}

const fn inverted(table: [u8; 256]) -> [u8; 256] {
    let mut inverse = [0; 256];
    let mut n = 0;
    while n < 256 {
        inverse[table[n] as usize] = n as u8;
        n += 1;
    }
    inverse
}

/// For each byte, the column that it contributes when multiplied by a column of the matrix.
const fn columns(coefficients: [u8; 4]) -> [u32; 256] {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let a = n as u8;
        table[n] = u32::from_le_bytes([
            multiply(a, coefficients[0]),
            multiply(a, coefficients[1]),
            multiply(a, coefficients[2]),
            multiply(a, coefficients[3]),
        ]);
        n += 1;
    }
    table
}

static S_BOX: [u8; 256] = s_box();
static INVERSE_S_BOX: [u8; 256] = inverted(s_box());
static MIX: [u32; 256] = columns([2, 1, 1, 3]);
static INVERSE_MIX: [u32; 256] = columns([14, 9, 13, 11]);

/// ShiftRows and SubBytes, or their inverses.
#[inline(always)]
fn substitute(state: Xmm, s_box: &[u8; 256], step: usize) -> Xmm {
    let mut r = [0; 16];
    for n in 0..16 {
        r[n] = s_box[usize::from(state.0[(n + (n % 4) * step) % 16])];
    }
    Xmm(r)
}

#[inline(always)]
fn mix(state: Xmm, table: &[u32; 256]) -> Xmm {
    let column = |n: usize| {
        (0..4).fold(0, |sum, row| sum ^ table[usize::from(state.0[4 * n + row])].rotate_left(8 * row as u32))
    };
    Xmm::from_lanes([column(0), column(1), column(2), column(3)])
}

#[inline(always)]
fn add(a: Xmm, b: Xmm) -> Xmm {
    Xmm::from(u128::from(a) ^ u128::from(b))
}

/// AESENC and AESENCLAST.
#[inline(always)]
pub fn encrypt_round(state: Xmm, key: Xmm, last: bool) -> Xmm {
    let substituted = substitute(state, &S_BOX, 4);
    add(if last { substituted } else { mix(substituted, &MIX) }, key)
}

/// AESDEC and AESDECLAST.
#[inline(always)]
pub fn decrypt_round(state: Xmm, key: Xmm, last: bool) -> Xmm {
    let substituted = substitute(state, &INVERSE_S_BOX, 12);
    add(if last { substituted } else { mix(substituted, &INVERSE_MIX) }, key)
}

/// AESIMC.
#[inline(always)]
pub fn inverse_mix_columns(state: Xmm) -> Xmm {
    mix(state, &INVERSE_MIX)
}

/// AESKEYGENASSIST.
#[inline(always)]
pub fn key_generation_assist(src: Xmm, round_constant: u8) -> Xmm {
    let word = |n: usize| u32::from_le_bytes(src.get32(n).to_le_bytes().map(|b| S_BOX[usize::from(b)]));
    let (x1, x3) = (word(1), word(3));
    let rcon = u32::from(round_constant);
    Xmm::from_lanes([x1, x1.rotate_right(8) ^ rcon, x3, x3.rotate_right(8) ^ rcon])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aes_tables_match_fips_197_figures() {
        assert_eq!((S_BOX[0], S_BOX[0x53], S_BOX[0xff]), (0x63, 0xed, 0x16));
        assert_eq!(INVERSE_S_BOX[0xed], 0x53);
        assert_eq!(MIX[1].to_le_bytes(), [2, 1, 1, 3]);
    }

    #[test]
    fn aes128_encrypts_fips_197_appendix_b() {
        let mut key = Xmm(*b"\x2b\x7e\x15\x16\x28\xae\xd2\xa6\xab\xf7\x15\x88\x09\xcf\x4f\x3c");
        let text = Xmm(*b"\x32\x43\xf6\xa8\x88\x5a\x30\x8d\x31\x31\x98\xa2\xe0\x37\x07\x34");
        let mut state = add(text, key);
        let mut keys = vec![key];
        let mut constant = 1;
        for round in 1..=10 {
            let assist = key_generation_assist(key, constant).get32(3);
            constant = double(constant);
            let mut words = key.lanes::<u32, 4>();
            words[0] ^= assist;
            for n in 1..4 {
                words[n] ^= words[n - 1];
            }
            key = Xmm::from_lanes(words);
            keys.push(key);
            state = encrypt_round(state, key, round == 10);
        }
        assert_eq!(state, Xmm(*b"\x39\x25\x84\x1d\x02\xdc\x09\xfb\xdc\x11\x85\x97\x19\x6a\x0b\x32"));
        // The equivalent inverse cipher (FIPS 197 5.3.5) gives the text back.
        state = add(state, keys[10]);
        for round in (1..10).rev() {
            state = decrypt_round(state, inverse_mix_columns(keys[round]), false);
        }
        assert_eq!(decrypt_round(state, keys[0], true), text);
    }
}
