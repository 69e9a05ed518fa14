//! A serial EEPROM of 256 bytes, as memory modules carry for serial presence detect: 24C02, on SMBus as JEDEC 21-C 4.1.2 uses it.
//!
//! The first byte that is written is the address of the next one; reads go on from there. Deliberately absent: the time that a write
//! takes, pages, within which the address of a 24C02 wraps while it is written, and write protection.

use serde::{Deserialize, Serialize};

/// Bytes.
pub const SIZE: usize = 256;

/// The memory and its address counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eeprom {
    contents: Vec<u8>,
    address: u8,
}

impl Eeprom {
    /// An EEPROM full of zeros.
    pub fn blank() -> Eeprom {
        Eeprom { contents: vec![0; SIZE], address: 0 }
    }

    /// A message to the device: its address byte was acknowledged, and so are all of `bytes`.
    pub fn receive(&mut self, bytes: &[u8]) {
        let Some((address, data)) = bytes.split_first() else { return };
        self.address = *address;
        for byte in data {
            if let Some(place) = self.contents.get_mut(usize::from(self.address)) {
                *place = *byte;
            }
            self.address = self.address.wrapping_add(1);
        }
    }

    /// The next byte of a message from the device.
    pub fn send(&mut self) -> u8 {
        let byte = self.contents.get(usize::from(self.address)).copied().unwrap_or(0xff);
        self.address = self.address.wrapping_add(1);
        byte
    }

    /// Brings a deserialised EEPROM within its bounds.
    pub fn sanitise(&mut self) {
        self.contents.resize(SIZE, 0);
    }
}
