//! Cryptographic instructions: AES-NI, PCLMULQDQ and SHA, as rows of packed operations.

pub mod aes;
pub mod sha;

use super::simd_int::packed::packed_rows;
use crate::cpu::xmm::Xmm;

packed_rows! { packed:
    Aesenc => |p| aes::encrypt_round(p.dst, p.src, false);
    Aesenclast => |p| aes::encrypt_round(p.dst, p.src, true);
    Aesdec => |p| aes::decrypt_round(p.dst, p.src, false);
    Aesdeclast => |p| aes::decrypt_round(p.dst, p.src, true);
    Aesimc => |p| aes::inverse_mix_columns(p.src);
    Aeskeygenassist => |p| aes::key_generation_assist(p.src, p.imm);
    Pclmulqdq => |p| {
        let x = p.dst.get64(usize::from(p.imm & 1));
        let y = p.src.get64(usize::from(p.imm >> 4 & 1));
        Xmm::from(carry_less_product(x, y))
    };
    Sha1nexte => |p| sha::sha1nexte(p.dst, p.src);
    Sha1msg1 => |p| sha::sha1msg1(p.dst, p.src);
    Sha1msg2 => |p| sha::sha1msg2(p.dst, p.src);
    Sha1rnds4 => |p| sha::sha1rnds4(p.dst, p.src, p.imm);
    Sha256rnds2 => |p| sha::sha256rnds2(p.dst, p.src, p.xmm0);
    Sha256msg1 => |p| sha::sha256msg1(p.dst, p.src);
    Sha256msg2 => |p| sha::sha256msg2(p.dst, p.src);
}

/// The product of two polynomials over GF(2).
#[inline(always)]
fn carry_less_product(x: u64, y: u64) -> u128 {
    let mut product = 0;
    for n in 0..64 {
        let keep = 0u128.wrapping_sub(u128::from(y >> n & 1));
        product ^= (u128::from(x) << n) & keep;
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pclmulqdq_is_the_sum_of_all_products_of_bits() {
        for (a, b) in [(3u64, 3u64), (u64::MAX, u64::MAX), (0x7b5b_5465_7374_5665, 0x4869_2853_6861_7929)] {
            let mut sum = 0u128;
            for i in 0..64 {
                for j in 0..64 {
                    sum ^= u128::from((a >> i) & (b >> j) & 1) << (i + j);
                }
            }
            assert_eq!(carry_less_product(a, b), sum);
        }
        assert_eq!(carry_less_product(3, 3), 5);
    }
}
