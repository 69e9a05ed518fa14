//! The attribute controller: IBM VGA/XGA Technical Reference, "Attribute Controller Registers".
//!
//! ```text
//!  4 bits from the shift registers -> plane enable -> palette -> 6 bits + colour select -> DAC
//!  8 bits (256 colours) ---------------------------------------------------------------> DAC
//! ```
//! Index and data share port 3C0h; a flip-flop, which reads of 3DAh reset, tells which is next. Deliberately absent: the
//! overscan colour (it is stored, but no border is shown) and the video status multiplexer.

use serde::{Deserialize, Serialize};

/// Register indices behind the sixteen palette registers.
mod index {
    pub const MODE_CONTROL: usize = 0x10;
    pub const COLOUR_PLANE_ENABLE: usize = 0x12;
    pub const PIXEL_PANNING: usize = 0x13;
    pub const COLOUR_SELECT: usize = 0x14;
}

const REGISTERS: usize = 0x15;
/// Bit 5 of the index: the screen is on, and the palette is the video's.
const PALETTE_ADDRESS_SOURCE: u8 = 0x20;

/// The attribute controller's registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// The index as written, with the palette address source in bit 5.
    pub index: u8,
    /// The next write to 3C0h is data.
    pub data_next: bool,
    registers: [u8; REGISTERS],
}

impl Attribute {
    /// Reads 3C1h.
    pub fn read(&self) -> u8 {
        self.registers.get(usize::from(self.index & 0x1f)).copied().unwrap_or(0)
    }

    /// Writes 3C0h.
    pub fn write(&mut self, value: u8) {
        if !self.data_next {
            self.index = value & 0x3f;
        } else if let Some(register) = self.registers.get_mut(usize::from(self.index & 0x1f)) {
            *register = match usize::from(self.index & 0x1f) {
                index::MODE_CONTROL => value & 0xef,
                0..index::MODE_CONTROL | index::COLOUR_PLANE_ENABLE => value & 0x3f,
                index::PIXEL_PANNING | index::COLOUR_SELECT => value & 0x0f,
                _ => value,
            };
        }
        self.data_next = !self.data_next;
    }

    /// The screen is on.
    pub fn screen_on(&self) -> bool {
        self.index & PALETTE_ADDRESS_SOURCE != 0
    }

    fn mode(&self, bit: u8) -> bool {
        self.registers[index::MODE_CONTROL] & bit != 0
    }

    /// The ninth dot of characters C0h to DFh repeats the eighth.
    pub fn line_graphics(&self) -> bool {
        self.mode(4)
    }

    /// Attribute bit 7, or plane 3 in graphics modes, blinks.
    pub fn blink(&self) -> bool {
        self.mode(8)
    }

    /// Panning has no effect behind the line compare.
    pub fn split_is_not_panned(&self) -> bool {
        self.mode(0x20)
    }

    /// Two groups of four bits make one pixel.
    pub fn eight_bit_colour(&self) -> bool {
        self.mode(0x40)
    }

    /// Dots by which the picture is moved to the left, for characters of `dots` dots.
    pub fn panning(&self, dots: usize) -> usize {
        let panning = usize::from(self.registers[index::PIXEL_PANNING]);
        match (dots, panning) {
            (9, 8..) => 0,
            (9, n) => n + 1,
            (_, n) => n & 7,
        }
    }

    /// What the sixteen colours are in the DAC.
    pub fn palette(&self) -> [u8; 16] {
        let enable = usize::from(self.registers[index::COLOUR_PLANE_ENABLE] & 0x0f);
        let select = self.registers[index::COLOUR_SELECT];
        std::array::from_fn(|colour| {
            let entry = self.registers[colour & enable] & 0x3f;
            let low = if self.mode(0x80) { entry & 0x0f | select << 4 & 0x30 } else { entry };
            low | select << 4 & 0xc0
        })
    }
}
