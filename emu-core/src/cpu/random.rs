//! The source of RDRAND and RDSEED: ChaCha20 (RFC 8439, 2.3) in counter mode, keyed once for each machine.
//!
//! All of its entropy comes through [`Random::seeded`], so that a run with the same seed is repeatable, and a run with
//! a seed from the host is as unpredictable as that.

use serde::{Deserialize, Serialize};

/// A deterministic stream of random numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Random {
    key: [u32; 8],
    /// Numbers taken so far: eight to a block.
    taken: u64,
}

impl Random {
    /// The stream that `seed` stands for.
    pub fn seeded(seed: [u8; 32]) -> Random {
        let key = std::array::from_fn(|n| {
            u32::from_le_bytes([seed[4 * n], seed[4 * n + 1], seed[4 * n + 2], seed[4 * n + 3]])
        });
        Random { key, taken: 0 }
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        let block = self.block(self.taken / 8);
        let at = (self.taken % 8) as usize * 2;
        self.taken = self.taken.wrapping_add(1);
        u64::from(block[at + 1]) << 32 | u64::from(block[at])
    }

    fn block(&self, counter: u64) -> [u32; 16] {
        let mut start = [0u32; 16];
        start[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
        start[4..12].copy_from_slice(&self.key);
        start[12] = counter as u32;
        start[13] = (counter >> 32) as u32;
        let mut x = start;
        for _ in 0..10 {
            for [a, b, c, d] in [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]] {
                quarter_round(&mut x, a, b, c, d);
            }
            for [a, b, c, d] in [[0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]] {
                quarter_round(&mut x, a, b, c, d);
            }
        }
        std::array::from_fn(|n| x[n].wrapping_add(start[n]))
    }
}

fn quarter_round(x: &mut [u32; 16], a: usize, b: usize, c: usize, d: usize) {
    x[a] = x[a].wrapping_add(x[b]);
    x[d] = (x[d] ^ x[a]).rotate_left(16);
    x[c] = x[c].wrapping_add(x[d]);
    x[b] = (x[b] ^ x[c]).rotate_left(12);
    x[a] = x[a].wrapping_add(x[b]);
    x[d] = (x[d] ^ x[a]).rotate_left(8);
    x[c] = x[c].wrapping_add(x[d]);
    x[b] = (x[b] ^ x[c]).rotate_left(7);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_key_gives_the_published_stream() {
        // The well-known key stream of the all-zero key and nonce begins 76 b8 e0 ad a0 f1 3d 90.
        let mut random = Random::seeded([0; 32]);
        assert_eq!(random.number().to_le_bytes(), [0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90]);
        for _ in 0..7 {
            random.number();
        }
        // Block 1 begins 9f 07 e7 be 55 51 38 7a.
        assert_eq!(random.number().to_le_bytes(), [0x9f, 0x07, 0xe7, 0xbe, 0x55, 0x51, 0x38, 0x7a]);
    }
}
