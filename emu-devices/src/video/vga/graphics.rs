//! The graphics controller: IBM VGA/XGA Technical Reference, "Graphics Controller Registers".
//!
//! ```text
//!  write  byte -> rotate -> set/reset -> ALU with latches -> bit mask -> map mask -> planes
//!  read   planes -> latches -> read map select | colour compare -> byte
//! ```
//! The four planes' bytes at one address are one 32-bit value, plane 0 in its low byte.

use serde::{Deserialize, Serialize};

/// Register indices.
mod index {
    pub const SET_RESET: usize = 0;
    pub const ENABLE_SET_RESET: usize = 1;
    pub const COLOUR_COMPARE: usize = 2;
    pub const DATA_ROTATE: usize = 3;
    pub const READ_MAP_SELECT: usize = 4;
    pub const MODE: usize = 5;
    pub const MISCELLANEOUS: usize = 6;
    pub const COLOUR_DONT_CARE: usize = 7;
    pub const BIT_MASK: usize = 8;
}

/// Bits that are stored, by register.
const STORED: [u8; 9] = [0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff];

/// The graphics controller's registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graphics {
    /// Address register, 3CEh.
    pub index: u8,
    registers: [u8; 9],
    /// What the last read fetched from the four planes.
    pub latches: u32,
}

/// Where the processor sees the planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aperture {
    /// First physical address.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

/// How the shift registers turn plane bytes into dots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShiftMode {
    /// A bit of each plane is a dot.
    Planar,
    /// Two neighbouring bits of a plane are a dot (CGA).
    Interleaved,
    /// Four neighbouring bits of a plane are a dot (256 colours).
    Packed,
}

/// Four bits to four bytes of zeros or ones.
fn expand(planes: u8) -> u32 {
    (0..4).filter(|plane| planes >> plane & 1 != 0).fold(0, |mask, plane| mask | 0xff << (8 * plane))
}

fn broadcast(byte: u8) -> u32 {
    u32::from_le_bytes([byte; 4])
}

impl Graphics {
    /// Reads the data register, 3CFh.
    pub fn read(&self) -> u8 {
        self.registers.get(usize::from(self.index)).copied().unwrap_or(0)
    }

    /// Writes the data register, 3CFh.
    pub fn write(&mut self, value: u8) {
        let index = usize::from(self.index);
        if let (Some(register), Some(stored)) = (self.registers.get_mut(index), STORED.get(index)) {
            *register = value & stored;
        }
    }

    /// Where the processor sees the planes.
    pub fn aperture(&self) -> Aperture {
        match self.registers[index::MISCELLANEOUS] >> 2 & 3 {
            0 => Aperture { start: 0xa_0000, len: 0x2_0000 },
            1 => Aperture { start: 0xa_0000, len: 0x1_0000 },
            2 => Aperture { start: 0xb_0000, len: 0x8000 },
            _ => Aperture { start: 0xb_8000, len: 0x8000 },
        }
    }

    /// Dots, not characters, are displayed.
    pub fn graphics_mode(&self) -> bool {
        self.registers[index::MISCELLANEOUS] & 1 != 0
    }

    /// Address bit 0 selects odd or even planes and is replaced in the address.
    pub fn chain_odd_even(&self) -> bool {
        self.registers[index::MISCELLANEOUS] & 2 != 0
    }

    /// Processor reads come from even planes at even addresses and from odd planes at odd ones.
    pub fn odd_even_reads(&self) -> bool {
        self.registers[index::MODE] & 0x10 != 0
    }

    /// How plane bytes become dots.
    pub fn shift_mode(&self) -> ShiftMode {
        match self.registers[index::MODE] >> 5 & 3 {
            0 => ShiftMode::Planar,
            1 => ShiftMode::Interleaved,
            _ => ShiftMode::Packed,
        }
    }

    /// The plane that read mode 0 returns.
    pub fn read_map(&self) -> u8 {
        self.registers[index::READ_MAP_SELECT]
    }

    /// The byte that a read sees of the latches, which it has just filled. `plane`: the one for read mode 0.
    pub fn fetch(&self, plane: u8) -> u8 {
        if self.registers[index::MODE] & 8 == 0 {
            return self.latches.to_le_bytes()[usize::from(plane & 3)];
        }
        let compared = expand(self.registers[index::COLOUR_DONT_CARE]);
        let differing = (self.latches ^ expand(self.registers[index::COLOUR_COMPARE])) & compared;
        !differing.to_le_bytes().into_iter().fold(0, |all, plane| all | plane)
    }

    /// What a write of `value` makes of the planes' bytes, before the map mask.
    pub fn combine(&self, value: u8) -> u32 {
        let rotated = value.rotate_right(u32::from(self.registers[index::DATA_ROTATE] & 7));
        let mut bit_mask = self.registers[index::BIT_MASK];
        let set_reset = expand(self.registers[index::SET_RESET]);
        let data = match self.registers[index::MODE] & 3 {
            0 => {
                let enabled = expand(self.registers[index::ENABLE_SET_RESET]);
                broadcast(rotated) & !enabled | set_reset & enabled
            }
            1 => return self.latches,
            2 => expand(value & 0x0f),
            _ => {
                bit_mask &= rotated;
                set_reset
            }
        };
        let result = match self.registers[index::DATA_ROTATE] >> 3 & 3 {
            0 => data,
            1 => data & self.latches,
            2 => data | self.latches,
            _ => data ^ self.latches,
        };
        let bit_mask = broadcast(bit_mask);
        result & bit_mask | self.latches & !bit_mask
    }
}
