//! Statistics: manual 13.7. Registers are cleared by reading them; those of 64 bits when their upper half is read.

use serde::{Deserialize, Serialize};

/// Registers by their number from 4000h on.
mod number {
    pub const MPC: u8 = 0x10 / 4;
    /// Frames received of 64, 65 to 127, 128 to 255, 256 to 511, 512 to 1023 and more bytes follow.
    pub const PRC64: u8 = 0x5c / 4;
    pub const GPRC: u8 = 0x74 / 4;
    pub const BPRC: u8 = 0x78 / 4;
    pub const MPRC: u8 = 0x7c / 4;
    pub const GPTC: u8 = 0x80 / 4;
    pub const GORC: u8 = 0x88 / 4;
    pub const GOTC: u8 = 0x90 / 4;
    pub const RNBC: u8 = 0xa0 / 4;
    pub const ROC: u8 = 0xac / 4;
    pub const TOR: u8 = 0xc0 / 4;
    pub const TOT: u8 = 0xc8 / 4;
    pub const TPR: u8 = 0xd0 / 4;
    pub const TPT: u8 = 0xd4 / 4;
    pub const PTC64: u8 = 0xd8 / 4;
    pub const MPTC: u8 = 0xf0 / 4;
    pub const BPTC: u8 = 0xf4 / 4;
    pub const TSCTC: u8 = 0xf8 / 4;
}

const REGISTERS: usize = 64;
/// Registers of 64 bits: the number of their lower half.
const WIDE: [u8; 4] = [number::GORC, number::GOTC, number::TOR, number::TOT];
/// Bytes of the frame check sequence, which count.
const FCS: u64 = 4;

/// All registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics(Vec<u32>);

impl Default for Statistics {
    fn default() -> Statistics {
        Statistics(vec![0; REGISTERS])
    }
}

impl Statistics {
    /// Brings a saved state into shape.
    pub fn restored(&mut self) {
        self.0.resize(REGISTERS, 0);
    }

    /// A read by the guest.
    pub fn read(&mut self, number: u8) -> u32 {
        let value = self.get(number);
        if WIDE.contains(&number) {
            return value;
        }
        self.set(number, 0);
        if number > 0 && WIDE.contains(&(number - 1)) {
            self.set(number - 1, 0);
        }
        value
    }

    /// A frame that has passed the filters, without its frame check sequence.
    pub fn received(&mut self, frame: &[u8]) {
        self.count(number::GPRC);
        self.count(number::TPR);
        self.add(number::GORC, frame.len() as u64 + FCS);
        self.add(number::TOR, frame.len() as u64 + FCS);
        self.by_size(number::PRC64, frame.len());
        self.by_kind(frame, number::BPRC, number::MPRC);
    }

    /// A frame that was sent.
    pub fn sent(&mut self, frame: &[u8]) {
        self.count(number::GPTC);
        self.count(number::TPT);
        self.add(number::GOTC, frame.len() as u64 + FCS);
        self.add(number::TOT, frame.len() as u64 + FCS);
        self.by_size(number::PTC64, frame.len());
        self.by_kind(frame, number::BPTC, number::MPTC);
    }

    /// A frame that was lost because there was no descriptor.
    pub fn missed(&mut self) {
        self.count(number::MPC);
        self.count(number::RNBC);
    }

    /// A frame that is longer than is allowed.
    pub fn too_long(&mut self) {
        self.count(number::ROC);
    }

    /// A segmentation context was used.
    pub fn segmented(&mut self) {
        self.count(number::TSCTC);
    }

    fn by_size(&mut self, first: u8, len: usize) {
        let bin = match len as u64 + FCS {
            0..=64 => 0,
            65..128 => 1,
            128..256 => 2,
            256..512 => 3,
            512..1024 => 4,
            _ => 5,
        };
        self.count(first + bin);
    }

    fn by_kind(&mut self, frame: &[u8], broadcasts: u8, multicasts: u8) {
        match frame {
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, ..] => self.count(broadcasts),
            [first, ..] if first & 1 != 0 => self.count(multicasts),
            _ => {}
        }
    }

    fn get(&self, number: u8) -> u32 {
        self.0.get(usize::from(number)).copied().unwrap_or(0)
    }

    fn set(&mut self, number: u8, value: u32) {
        if let Some(register) = self.0.get_mut(usize::from(number)) {
            *register = value;
        }
    }

    /// Counters stick at their highest value.
    fn count(&mut self, number: u8) {
        self.set(number, self.get(number).saturating_add(1));
    }

    fn add(&mut self, low: u8, amount: u64) {
        let total = (u64::from(self.get(low + 1)) << 32 | u64::from(self.get(low))).saturating_add(amount);
        self.set(low, total as u32);
        self.set(low + 1, (total >> 32) as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_clear_on_read_and_wide_ones_with_their_upper_half() {
        let mut statistics = Statistics::default();
        statistics.received(&[0xff; 60]);
        statistics.received(&[0x01; 1514]);
        assert_eq!((statistics.read(number::GPRC), statistics.read(number::GPRC)), (2, 0));
        assert_eq!([number::BPRC, number::MPRC, number::PRC64, number::PRC64 + 5].map(|n| statistics.read(n)), [1; 4]);
        assert_eq!((statistics.read(number::GORC), statistics.read(number::GORC)), (1582, 1582));
        assert_eq!((statistics.read(number::GORC + 1), statistics.read(number::GORC)), (0, 0));
    }
}
