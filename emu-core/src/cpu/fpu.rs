//! The x87 FPU's registers (SDM Vol. 1 8.1), which MMX shares.

use serde::{Deserialize, Serialize};

/// An 80-bit value as the registers hold it; MMX registers are its significand.
pub use crate::softfloat::F80 as St;

/// Registers of the FPU.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FpuState {
    /// Physical registers R0 to R7; ST(i) is `r[(top + i) % 8]`.
    pub r: [St; 8],
    /// Control word.
    pub control: u16,
    /// Status word without TOP.
    pub status: u16,
    /// TOP, 0 to 7.
    pub top: u8,
    /// Bit n is set if physical register n is empty (tag 11); the other tags are derived from the contents.
    pub empty: u8,
    /// The last opcode, 11 bits.
    pub opcode: u16,
    /// Last instruction pointer and its selector.
    pub fip: u64,
    /// See `fip`.
    pub fcs: u16,
    /// Last data pointer and its selector.
    pub fdp: u64,
    /// See `fdp`.
    pub fds: u16,
}

impl FpuState {
    /// After power-on (SDM Vol. 3A table 9-1).
    pub fn reset() -> FpuState {
        FpuState {
            r: [St::default(); 8],
            control: 0x40,
            status: 0,
            top: 0,
            empty: 0,
            opcode: 0,
            fip: 0,
            fcs: 0,
            fdp: 0,
            fds: 0,
        }
    }

    /// The 64 bits of MMX register `n`.
    pub fn mmx(&self, n: u8) -> u64 {
        self.r[usize::from(n & 7)].significand
    }

    /// Writes MMX register `n`: the exponent becomes all ones.
    pub fn set_mmx(&mut self, n: u8, value: u64) {
        self.r[usize::from(n & 7)] = St { sign_exp: 0xffff, significand: value };
    }

    /// What every MMX instruction besides EMMS does first: TOP is 0 and all registers are valid.
    pub fn enter_mmx(&mut self) {
        self.top = 0;
        self.empty = 0;
    }
}
