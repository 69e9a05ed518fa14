//! The bus master half of one IDE channel: 82371SB data sheet 2.7, "PCI Bus Master IDE Registers", and the Programming
//! Interface for Bus Master IDE Controller 1.0.
//!
//! ```text
//!  PRD:  31......................1 0 | 31 30....16 15.........1 0
//!        base address of a region  0 | EOT  res.   byte count   0      count 0: 64 KiB
//! ```
//! Regions are taken as they are: the rule that none crosses a 64 KiB boundary binds software, and what a violation
//! does is not defined. A region that no memory answers is a master abort.

use crate::scatter::Segment;
use emu_core::mem::GuestMemory;
use serde::{Deserialize, Serialize};

const START: u8 = 1 << 0;
/// Set: from the device to memory.
const TO_MEMORY: u8 = 1 << 3;
const ACTIVE: u8 = 1 << 0;
const ERROR: u8 = 1 << 1;
const INTERRUPT: u8 = 1 << 2;
const CAPABLE: u8 = 3 << 5;
const EOT: u32 = 1 << 31;

/// All guest-visible state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusMaster {
    /// BMIC.
    pub command: u8,
    /// BMIS.
    pub status: u8,
    /// BMIDTP: the descriptor table.
    pub table: u32,
    /// The next descriptor.
    pub next: u32,
    /// The region that is being filled or emptied.
    pub region: u32,
    /// Bytes of it that are left.
    pub left: u32,
    /// It is the last one.
    pub last: bool,
}

/// What came of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// The bus master has not been started.
    Waiting,
    /// Everything.
    All,
    /// The descriptors ended, or a region was not there.
    Stopped,
}

impl BusMaster {
    /// A byte of the eight registers.
    pub fn read(&self, offset: u64) -> u8 {
        match offset & 7 {
            0 => self.command,
            2 => self.status,
            n @ 4..=7 => self.table.to_le_bytes()[n as usize - 4],
            _ => 0,
        }
    }

    /// Writes a byte of the registers; whether that may have started or stopped the bus master.
    pub fn write(&mut self, offset: u64, value: u8) -> bool {
        match offset & 7 {
            0 => {
                let started = value & START != 0 && self.command & START == 0;
                self.command = value & (START | TO_MEMORY);
                if started {
                    self.status |= ACTIVE;
                    (self.next, self.left, self.last) = (self.table, 0, false);
                } else if value & START == 0 {
                    self.status &= !ACTIVE;
                }
                return true;
            }
            2 => {
                let kept = self.status & !(value & (ERROR | INTERRUPT));
                self.status = kept & !CAPABLE | value & CAPABLE;
            }
            n @ 4..=7 => {
                let mut bytes = self.table.to_le_bytes();
                bytes[n as usize - 4] = if n == 4 { value & !3 } else { value };
                self.table = u32::from_le_bytes(bytes);
            }
            _ => {}
        }
        false
    }

    /// The drive's INTRQ has risen.
    pub fn interrupt(&mut self) {
        self.status |= INTERRUPT;
    }

    /// Whether it moves data in that direction.
    pub fn runs(&self, to_memory: bool) -> bool {
        self.status & ACTIVE != 0 && (self.command & TO_MEMORY != 0) == to_memory
    }

    /// Moves the drive's `data` into memory; how many bytes went and what became of the rest.
    pub fn write_memory(&mut self, memory: &GuestMemory, data: &[u8]) -> (usize, Moved) {
        if !self.runs(true) {
            return (0, Moved::Waiting);
        }
        self.regions(memory, data.len(), |address, range| memory.write(address, &data[range]))
    }

    /// Where in memory the drive's next `len` bytes are, or go to, and whether that is all of them.
    pub fn places(&mut self, memory: &GuestMemory, to_memory: bool, len: usize) -> (Vec<Segment>, Moved) {
        let mut places = Vec::new();
        if !self.runs(to_memory) {
            return (places, Moved::Waiting);
        }
        let take = |address, range: std::ops::Range<usize>| places.push(Segment { address, len: range.len() as u32 });
        let (_, moved) = self.regions(memory, len, take);
        (places, moved)
    }

    /// Passes over `len` bytes that somebody else has moved to where they go.
    pub fn pass(&mut self, memory: &GuestMemory, len: usize) {
        self.regions(memory, len, |_, _| {});
    }

    /// Goes on where `ahead` is, a copy of this that has passed over what has been moved meanwhile.
    pub fn follow(&mut self, ahead: &BusMaster) {
        (self.next, self.region, self.left, self.last) = (ahead.next, ahead.region, ahead.left, ahead.last);
        self.status &= ahead.status | !ACTIVE;
    }

    /// Walks the descriptors over `len` bytes. Every descriptor has at least two, so this ends.
    fn regions(
        &mut self,
        memory: &GuestMemory,
        len: usize,
        mut f: impl FnMut(u64, std::ops::Range<usize>),
    ) -> (usize, Moved) {
        let absent = |address: u32| memory.resolve(address.into()).read.is_none();
        let mut done = 0;
        while done < len {
            if self.left == 0 {
                if self.last {
                    self.status &= !ACTIVE;
                    return (done, Moved::Stopped);
                }
                if absent(self.next) {
                    return (done, self.abort());
                }
                let mut descriptor = [0; 8];
                memory.read(self.next.into(), &mut descriptor);
                let [a, b, c, d, e, f, g, h] = descriptor;
                self.region = u32::from_le_bytes([a & !1, b, c, d]);
                let word = u32::from_le_bytes([e, f, g, h]);
                self.left = if word & 0xfffe == 0 { 0x1_0000 } else { word & 0xfffe };
                self.last = word & EOT != 0;
                self.next = self.next.wrapping_add(8);
            }
            if absent(self.region) {
                return (done, self.abort());
            }
            let n = (self.left as usize).min(len - done);
            f(self.region.into(), done..done + n);
            done += n;
            self.region = self.region.wrapping_add(n as u32);
            self.left -= n as u32;
        }
        // A table that ends with the drive's data is done; a longer one stays active (data sheet, table of BMIS bits).
        if self.left == 0 && self.last {
            self.status &= !ACTIVE;
        }
        (done, Moved::All)
    }

    fn abort(&mut self) -> Moved {
        self.status = self.status & !ACTIVE | ERROR;
        Moved::Stopped
    }
}
