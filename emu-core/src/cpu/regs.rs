//! The register file: general registers and the other values that address computations read.
//!
//! ```text
//!  byte   0      8            120   128   136      144      152        184
//!       | RAX  | RCX  | ... | R15 | zero | rip    | ES base | CS base ... GS base | unused
//!         ^ AH is byte 1, CH byte 9, DH byte 17, BH byte 25
//! ```
//! A [`Slot`] is a byte offset into the file, so that AH..BH, an absent base register and a RIP-relative base are no
//! special cases. Any slot can be read or written with any width without a bounds check: the file is longer than the
//! largest `u8` plus eight bytes.

use serde::{Deserialize, Serialize};

/// A byte offset into the [`RegFile`].
pub type Slot = u8;

/// The slot that always reads as zero.
pub const ZERO: Slot = 128;
/// The slot of the instruction pointer at the start of the block that is running.
pub const BLOCK_RIP: Slot = 136;
/// The slot of the base of ES; the others follow in the order of [`super::segment::Seg`], 8 bytes apart.
pub const SEG_BASE: Slot = 144;

/// General register numbers as the encodings have them.
pub const RAX: u8 = 0;
/// See [`RAX`].
pub const RCX: u8 = 1;
/// See [`RAX`].
pub const RDX: u8 = 2;
/// See [`RAX`].
pub const RBX: u8 = 3;
/// See [`RAX`].
pub const RSP: u8 = 4;
/// See [`RAX`].
pub const RBP: u8 = 5;
/// See [`RAX`].
pub const RSI: u8 = 6;
/// See [`RAX`].
pub const RDI: u8 = 7;
/// See [`RAX`].
pub const R8: u8 = 8;
/// See [`RAX`].
pub const R11: u8 = 11;

const BYTES: usize = 264;

/// See the module's documentation.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct RegFile([u8; BYTES]);

impl Default for RegFile {
    fn default() -> RegFile {
        RegFile([0; BYTES])
    }
}

impl RegFile {
    /// The slot of general register `n`, 0 to 15.
    pub const fn slot(n: u8) -> Slot {
        (n & 15) * 8
    }

    /// Reads 8 bytes at a slot.
    #[inline(always)]
    pub fn get64(&self, slot: Slot) -> u64 {
        let at = slot as usize;
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[at..at + 8]);
        u64::from_le_bytes(bytes)
    }

    /// Reads 4 bytes at a slot.
    #[inline(always)]
    pub fn get32(&self, slot: Slot) -> u32 {
        let at = slot as usize;
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[at..at + 4]);
        u32::from_le_bytes(bytes)
    }

    /// Reads 2 bytes at a slot.
    #[inline(always)]
    pub fn get16(&self, slot: Slot) -> u16 {
        let at = slot as usize;
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    /// Reads the byte at a slot.
    #[inline(always)]
    pub fn get8(&self, slot: Slot) -> u8 {
        self.0[slot as usize]
    }

    /// Writes 8 bytes at a slot.
    #[inline(always)]
    pub fn set64(&mut self, slot: Slot, value: u64) {
        let at = slot as usize;
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// Writes 4 bytes at a slot and clears the upper 4, as 32-bit results do.
    #[inline(always)]
    pub fn set32(&mut self, slot: Slot, value: u32) {
        self.set64(slot, u64::from(value));
    }

    /// Writes 2 bytes at a slot.
    #[inline(always)]
    pub fn set16(&mut self, slot: Slot, value: u16) {
        let at = slot as usize;
        self.0[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    /// Writes the byte at a slot.
    #[inline(always)]
    pub fn set8(&mut self, slot: Slot, value: u8) {
        self.0[slot as usize] = value;
    }

    /// General register `n` (0 to 15), all 64 bits.
    #[inline(always)]
    pub fn gpr(&self, n: u8) -> u64 {
        self.get64(RegFile::slot(n))
    }

    /// Sets general register `n` (0 to 15), all 64 bits.
    #[inline(always)]
    pub fn set_gpr(&mut self, n: u8, value: u64) {
        self.set64(RegFile::slot(n), value);
    }

    /// Reads `width` bytes at a slot, zero-extended.
    #[inline(always)]
    pub fn get(&self, slot: Slot, width: super::Width) -> u64 {
        match width {
            super::Width::B1 => u64::from(self.get8(slot)),
            super::Width::B2 => u64::from(self.get16(slot)),
            super::Width::B4 => u64::from(self.get32(slot)),
            super::Width::B8 => self.get64(slot),
        }
    }

    /// Writes `width` bytes at a slot; a 4-byte write clears the upper 4 bytes of the register.
    #[inline(always)]
    pub fn set(&mut self, slot: Slot, width: super::Width, value: u64) {
        match width {
            super::Width::B1 => self.set8(slot, value as u8),
            super::Width::B2 => self.set16(slot, value as u16),
            super::Width::B4 => self.set32(slot, value as u32),
            super::Width::B8 => self.set64(slot, value),
        }
    }
}

/// The saved form is the sixteen general registers; the rest of the file is derived.
impl Serialize for RegFile {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let all: [u64; 16] = std::array::from_fn(|n| self.gpr(n as u8));
        all.serialize(s)
    }
}

impl<'de> Deserialize<'de> for RegFile {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<RegFile, D::Error> {
        let all = <[u64; 16]>::deserialize(d)?;
        let mut file = RegFile::default();
        for (n, value) in all.into_iter().enumerate() {
            file.set_gpr(n as u8, value);
        }
        Ok(file)
    }
}
