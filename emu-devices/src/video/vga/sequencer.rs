//! The sequencer: IBM VGA/XGA Technical Reference, "Sequencer Registers".
//!
//! Deliberately absent: the resets of register 0, which stop memory refresh on real cards and nothing here, and
//! "Shift 4" and "Shift Load" of the clocking mode register, which no mode of any BIOS uses.

use serde::{Deserialize, Serialize};

/// Register indices.
mod index {
    pub const CLOCKING_MODE: usize = 1;
    pub const MAP_MASK: usize = 2;
    pub const CHARACTER_MAP_SELECT: usize = 3;
    pub const MEMORY_MODE: usize = 4;
}

/// Bits that are stored, by register.
const STORED: [u8; 5] = [0x03, 0x3d, 0x0f, 0x3f, 0x0e];

/// The sequencer's registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequencer {
    /// Address register, 3C4h.
    pub index: u8,
    registers: [u8; 5],
}

impl Sequencer {
    /// Reads the data register, 3C5h.
    pub fn read(&self) -> u8 {
        self.registers.get(usize::from(self.index)).copied().unwrap_or(0)
    }

    /// Writes the data register, 3C5h.
    pub fn write(&mut self, value: u8) {
        let index = usize::from(self.index);
        if let (Some(register), Some(stored)) = (self.registers.get_mut(index), STORED.get(index)) {
            *register = value & stored;
        }
    }

    /// Dots of a character in text modes: 8 or 9.
    pub fn character_dots(&self) -> usize {
        if self.registers[index::CLOCKING_MODE] & 1 != 0 { 8 } else { 9 }
    }

    /// Each dot lasts two periods of the dot clock.
    pub fn half_dot_clock(&self) -> bool {
        self.registers[index::CLOCKING_MODE] & 8 != 0
    }

    /// The screen is dark, and all memory cycles are the processor's.
    pub fn screen_off(&self) -> bool {
        self.registers[index::CLOCKING_MODE] & 0x20 != 0
    }

    /// Planes that processor writes reach, a bit each.
    pub fn map_mask(&self) -> u8 {
        self.registers[index::MAP_MASK] & 0x0f
    }

    /// Addresses in plane 2 of the fonts of characters without and with attribute bit 3.
    pub fn fonts(&self) -> [usize; 2] {
        let select = usize::from(self.registers[index::CHARACTER_MAP_SELECT]);
        let address = |map: usize| (map & 3) * 0x4000 + (map >> 2) * 0x2000;
        [address(select & 3 | select >> 2 & 4), address(select >> 2 & 3 | select >> 3 & 4)]
    }

    /// Processor writes go to even planes at even addresses and to odd planes at odd ones.
    pub fn odd_even(&self) -> bool {
        self.registers[index::MEMORY_MODE] & 4 == 0
    }

    /// The two low address bits select the plane.
    pub fn chain_4(&self) -> bool {
        self.registers[index::MEMORY_MODE] & 8 != 0
    }
}
