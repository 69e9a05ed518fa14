//! The EEPROM of an 82540EM: a Microwire 93C46 of 64 words, read through EERD or bit by bit through EECD.
//!
//! Manual 5.3 (EEPROM and its signature), 5.6 (word map), 13.4.3 (EECD), 13.4.4 (EERD). Writing it is absent: it is write-protected.

use serde::{Deserialize, Serialize};

/// EECD bits.
mod eecd {
    pub const SK: u32 = 1 << 0;
    pub const CS: u32 = 1 << 1;
    pub const DI: u32 = 1 << 2;
    pub const DO: u32 = 1 << 3;
    /// Flash write enable, of which there is nothing behind.
    pub const FWE: u32 = 3 << 4;
    pub const REQ: u32 = 1 << 6;
    pub const GNT: u32 = 1 << 7;
    pub const PRES: u32 = 1 << 8;
}

/// EERD bits.
mod eerd {
    pub const START: u32 = 1 << 0;
    pub const DONE: u32 = 1 << 4;
}

/// Words of the EEPROM.
pub const WORDS: usize = 64;
/// What all words add up to: manual 5.6.37.
const SUM: u16 = 0xbaba;
/// Bits of a Microwire command: start bit, two of the opcode, six of the address.
const COMMAND_BITS: u8 = 9;
const READ: u16 = 0b110;

/// The contents for a card with this address.
pub fn image(mac: [u8; 6]) -> [u16; WORDS] {
    let mut words = [0xffff; WORDS];
    for (word, bytes) in words.iter_mut().zip(mac.chunks(2)) {
        *word = u16::from_le_bytes([bytes[0], bytes[1]]);
    }
    let sum_but_last = |words: &[u16]| words[..WORDS - 1].iter().fold(0u16, |sum, word| sum.wrapping_add(*word));
    // Compatibility: nothing special. Initialization control 1: signature 01b, load IDs.
    words[0x03] = 0;
    words[0x0a] = 0x4003;
    words[0x0b] = 0x1100;
    words[0x0c] = 0x1af4;
    words[0x0d] = 0x100e;
    words[0x0e] = 0x8086;
    // Initialization control 2: symmetric and asymmetric pause are advertised.
    words[0x0f] = 0x3000;
    words[WORDS - 1] = SUM.wrapping_sub(sum_but_last(&words));
    words
}

/// The registers, and the serial interface behind EECD.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eeprom {
    /// The bits of EECD that software drives.
    eecd: u32,
    eerd: u32,
    /// Bits of the command that have come since CS rose, and how many.
    command: u16,
    received: u8,
    /// Bits that go out, the next one on top, once a read command is complete.
    output: Option<u16>,
    /// The word that follows.
    next: u8,
}

impl Eeprom {
    /// EECD.
    pub fn eecd(&self) -> u32 {
        let granted = if self.eecd & eecd::REQ != 0 { eecd::GNT } else { 0 };
        // An idle output is high.
        let high = self.output.is_none_or(|bits| bits & 0x8000 != 0);
        self.eecd | granted | eecd::PRES | if high { eecd::DO } else { 0 }
    }

    /// A write to EECD: data is taken, and the next bit given, when the clock rises.
    pub fn set_eecd(&mut self, value: u32, words: &[u16; WORDS]) {
        let before = self.eecd;
        self.eecd = value & (eecd::SK | eecd::CS | eecd::DI | eecd::FWE | eecd::REQ);
        if value & eecd::CS == 0 {
            (self.command, self.received, self.output) = (0, 0, None);
            return;
        }
        let rises = value & eecd::SK != 0 && before & eecd::SK == 0;
        if !rises {
            return;
        }
        if let Some(bits) = self.output {
            self.clock_out(bits, words);
            return;
        }
        let bit = u16::from(value & eecd::DI != 0);
        // The command begins with the first one.
        if self.received == 0 && bit == 0 {
            return;
        }
        self.command = self.command << 1 | bit;
        self.received += 1;
        if self.received == COMMAND_BITS {
            (self.next, self.received) = ((self.command & 63) as u8, 0);
            // A dummy zero bit goes ahead of the data: it is there from the last clock of the address.
            self.output = (self.command >> 6 & 7 == READ).then_some(0);
            self.command = 0;
        }
    }

    /// One more bit goes out. The bits of a word are followed by a marker bit, so that the end shows.
    fn clock_out(&mut self, bits: u16, words: &[u16; WORDS]) {
        let fresh = self.received == 0;
        self.output = Some(if fresh { words[usize::from(self.next & 63)] } else { bits << 1 });
        self.received += 1;
        if self.received == 16 {
            self.received = 0;
            self.next = (self.next + 1) & 63;
        }
    }

    /// EERD.
    pub fn eerd(&self) -> u32 {
        self.eerd
    }

    /// A write to EERD reads a word at once.
    pub fn set_eerd(&mut self, value: u32, words: &[u16; WORDS]) {
        self.eerd = value & 0xff00;
        if value & eerd::START != 0 {
            let word = words.get((value >> 8 & 0xff) as usize).copied().unwrap_or(0);
            self.eerd |= u32::from(word) << 16 | eerd::DONE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hold_the_address_and_add_up() {
        let words = image([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        assert_eq!(words[..3], [0x5452, 0x1200, 0x5634]);
        assert_eq!(words.iter().fold(0u16, |sum, word| sum.wrapping_add(*word)), SUM);
        let mut eeprom = Eeprom::default();
        eeprom.set_eerd(0x0201, &words);
        assert_eq!(eeprom.eerd(), 0x5634_0210);
        eeprom.set_eerd(0xff01, &words);
        assert_eq!(eeprom.eerd(), 0xff10);
    }

    #[test]
    fn words_can_be_clocked_out() {
        let words = image([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        let mut eeprom = Eeprom::default();
        eeprom.set_eecd(eecd::REQ, &words);
        assert_eq!(eeprom.eecd() & eecd::GNT, eecd::GNT);
        for address in [0u32, 2, 63] {
            let mut clock = |bit: u32| {
                let lines = eecd::REQ | eecd::CS | if bit != 0 { eecd::DI } else { 0 };
                eeprom.set_eecd(lines, &words);
                eeprom.set_eecd(lines | eecd::SK, &words);
                let out = eeprom.eecd() & eecd::DO != 0;
                eeprom.set_eecd(lines, &words);
                u16::from(out)
            };
            let command = 0b110 << 6 | address;
            for i in (0..9).rev() {
                clock(command >> i & 1);
            }
            let word = (0..16).fold(0u16, |word, _| word << 1 | clock(0));
            assert_eq!(word, words[address as usize]);
            // The words that follow, without a new command.
            let word = (0..16).fold(0u16, |word, _| word << 1 | clock(0));
            assert_eq!(word, words[(address as usize + 1) % WORDS]);
            eeprom.set_eecd(eecd::REQ, &words);
        }
    }
}
