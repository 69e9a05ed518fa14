//! The video DAC: IBM VGA/XGA Technical Reference, "Video DAC", and the INMOS IMS G171 data sheet for the order of events.
//!
//! One address register serves both directions: a read address loads the colour into a latch and moves on; three writes
//! fill the latch, then the colour. With 8-bit components (VBE DISPI) all bits count, otherwise six. Deliberately
//! absent: the snow that accesses cause on old cards, and the comparator behind input status 0.

use serde::{Deserialize, Serialize};

/// The DAC's registers and colours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dac {
    /// PEL mask, 3C6h: ANDed to all colour numbers.
    pub mask: u8,
    /// The next colour to be written, or to be fetched into the latch.
    address: u8,
    /// Red, green or blue is next: 0, 1 or 2.
    component: u8,
    /// The last address was for reading.
    reading: bool,
    latch: [u8; 3],
    /// 256 colours: red, green, blue, one after the other.
    colours: Vec<u8>,
}

impl Default for Dac {
    /// After power-on: black.
    fn default() -> Dac {
        Dac { mask: 0xff, address: 0, component: 0, reading: false, latch: [0; 3], colours: vec![0; 3 * 256] }
    }
}

impl Dac {
    /// Writes the read address, 3C7h.
    pub fn set_read_address(&mut self, value: u8) {
        self.address = value;
        self.component = 0;
        self.reading = true;
        self.fetch();
    }

    /// Reads the state, 3C7h: 3 after a read address, 0 after a write address.
    pub fn state(&self) -> u8 {
        if self.reading { 3 } else { 0 }
    }

    /// Writes the write address, 3C8h.
    pub fn set_write_address(&mut self, value: u8) {
        self.address = value;
        self.component = 0;
        self.reading = false;
    }

    /// Reads the address, 3C8h.
    pub fn address(&self) -> u8 {
        self.address
    }

    /// Reads a component, 3C9h.
    pub fn read(&mut self, eight_bits: bool) -> u8 {
        let value = self.latch[usize::from(self.component)];
        self.component = (self.component + 1) % 3;
        if self.component == 0 {
            self.fetch();
        }
        if eight_bits { value } else { value & 0x3f }
    }

    /// Writes a component, 3C9h.
    pub fn write(&mut self, value: u8, eight_bits: bool) {
        self.latch[usize::from(self.component)] = if eight_bits { value } else { value & 0x3f };
        self.component = (self.component + 1) % 3;
        if self.component == 0 {
            let at = 3 * usize::from(self.address);
            self.colours[at..at + 3].copy_from_slice(&self.latch);
            self.address = self.address.wrapping_add(1);
        }
    }

    fn fetch(&mut self) {
        let at = 3 * usize::from(self.address);
        self.latch.copy_from_slice(&self.colours[at..at + 3]);
        self.address = self.address.wrapping_add(1);
    }

    /// The colours behind the PEL mask as `0x00RRGGBB`.
    pub fn palette(&self, eight_bits: bool) -> [u32; 256] {
        let level = |value: u8| match eight_bits {
            true => value,
            false => value << 2 | value >> 4 & 3,
        };
        std::array::from_fn(|number| {
            let at = 3 * (number & usize::from(self.mask));
            self.colours[at..at + 3].iter().fold(0, |colour, value| colour << 8 | u32::from(level(*value)))
        })
    }

    /// Brings a restored state within its bounds.
    pub fn sanitise(&mut self) {
        self.component %= 3;
        self.colours.resize(3 * 256, 0);
    }
}
