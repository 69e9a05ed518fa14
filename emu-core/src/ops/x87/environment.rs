//! The four layouts of the FPU environment in memory (SDM Vol. 1, figures 8-9 to 8-12).
//!
//! ```text
//!            16-bit                             32-bit (in doublewords, high halves reserved)
//!            protected     real, v86            protected                real, v86
//!   word 0   control                            control
//!        1   status                             status
//!        2   tags                               tags
//!        3   IP            IP 15..0             IP                       IP 15..0
//!        4   CS            IP 19..16, opcode    CS, opcode (high half)   IP 31..16 << 12, opcode
//!        5   DP            DP 15..0             DP                       DP 15..0
//!        6   DS            DP 19..16 << 12      DS                       DP 31..16 << 12
//! ```
//! In real and virtual-8086 mode the pointers are linear addresses.

use crate::cpu::fpu::FpuState;
use crate::exec::Vcpu;

/// One of the four layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    words: bool,
    real: bool,
}

impl Format {
    /// The layout that the processor's mode and the operand size choose.
    pub fn of(cpu: &Vcpu, words: bool) -> Format {
        Format { words, real: cpu.state.real_or_v86() }
    }

    /// Bytes.
    pub fn len(self) -> usize {
        if self.words { 14 } else { 28 }
    }

    /// Bytes of a field, and the alignment that #AC demands (SDM Vol. 3A table 6-7).
    pub fn unit(self) -> u64 {
        if self.words { 2 } else { 4 }
    }

    /// The image of `fpu`'s environment, [`Format::len`] bytes of it.
    pub fn store(self, fpu: &FpuState) -> [u8; 28] {
        let opcode = u32::from(fpu.opcode & 0x7FF);
        let (ip, dp) = (fpu.fip as u32, fpu.fdp as u32);
        let pointers = if self.real {
            let ip = ip.wrapping_add(u32::from(fpu.fcs) << 4);
            let dp = dp.wrapping_add(u32::from(fpu.fds) << 4);
            let high = |pointer: u32| (pointer >> 16) << 12;
            [ip & 0xFFFF, high(ip) | opcode, dp & 0xFFFF, high(dp)]
        } else {
            [ip, u32::from(fpu.fcs) | opcode << 16, dp, u32::from(fpu.fds)]
        };
        let mut image = [0; 28];
        let words = [fpu.control, fpu.status_word(), fpu.tag_word()].map(|word| u32::from(word) | 0xFFFF_0000);
        for (n, value) in words.into_iter().chain(pointers).enumerate() {
            if self.words {
                image[2 * n..2 * n + 2].copy_from_slice(&(value as u16).to_le_bytes());
            } else {
                // The reserved high half of the data selector reads as ones, too.
                let reserved = if n == 6 && !self.real { 0xFFFF_0000 } else { 0 };
                image[4 * n..4 * n + 4].copy_from_slice(&(value | reserved).to_le_bytes());
            }
        }
        image
    }

    /// Loads `fpu`'s environment from an image of [`Format::len`] bytes.
    pub fn load(self, fpu: &mut FpuState, image: &[u8]) {
        let mut fields = [0u32; 7];
        let size = if self.words { 2 } else { 4 };
        for (field, bytes) in fields.iter_mut().zip(image.chunks_exact(size)) {
            *field = bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
        }
        let [control, status, tags, ip, ip_high, dp, dp_high] = fields;
        if self.real {
            let linear = |low: u32, high: u32| u64::from((low & 0xFFFF) | (high >> 12) << 16);
            fpu.fip = linear(ip, ip_high);
            fpu.fdp = linear(dp, dp_high);
            fpu.fcs = 0;
            fpu.fds = 0;
            fpu.opcode = (ip_high & 0x7FF) as u16;
        } else {
            fpu.fip = u64::from(ip);
            fpu.fdp = u64::from(dp);
            fpu.fcs = ip_high as u16;
            fpu.fds = dp_high as u16;
            // The 16-bit layout has no room for the opcode.
            fpu.opcode = if self.words { 0 } else { (ip_high >> 16 & 0x7FF) as u16 };
        }
        fpu.set_tag_word(tags as u16);
        fpu.set_control(control as u16);
        fpu.set_status_word(status as u16);
    }
}
