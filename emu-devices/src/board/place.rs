//! Where loaders put things: kernels where they ask for, everything else behind them.

use super::memory_map::{EBDA, HIGH_MEMORY};
use emu_core::mem::{GuestMemory, PAGE};
use thiserror::Error;

/// What does not fit.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PlaceError {
    /// A part of the kernel is not in RAM.
    #[error(
        "the kernel asks for memory from {start:#x} to {end:#x}; there is RAM up to {EBDA:#x} and from {HIGH_MEMORY:#x} to {ram:#x}"
    )]
    NotRam {
        /// First address.
        start: u64,
        /// One past the last.
        end: u64,
        /// End of RAM below 4 GiB.
        ram: u64,
    },
    /// The parts of the kernel are larger than RAM.
    #[error("the kernel's segments have {size} bytes in all; the machine has {ram} bytes of RAM below 4 GiB")]
    TooLarge {
        /// Bytes asked for so far.
        size: u64,
        /// RAM below 4 GiB.
        ram: u64,
    },
    /// No room behind the kernel.
    #[error(
        "{what} of {size} bytes does not fit into RAM behind the kernel, from {start:#x} to {ram:#x}; give the machine more with -m"
    )]
    NoRoom {
        /// What was to be put there.
        what: &'static str,
        /// Its size.
        size: u64,
        /// Where it would begin.
        start: u64,
        /// End of RAM below 4 GiB.
        ram: u64,
    },
}

/// What is taken of a machine's memory.
pub struct Placement<'a> {
    memory: &'a GuestMemory,
    taken: u64,
    end: u64,
}

impl<'a> Placement<'a> {
    /// Nothing is taken.
    pub fn new(memory: &'a GuestMemory) -> Placement<'a> {
        Placement { memory, taken: 0, end: 0 }
    }

    /// Takes `len` bytes at `start`.
    ///
    /// # Errors
    /// That is not RAM.
    pub fn reserve(&mut self, start: u64, len: u64) -> Result<(), PlaceError> {
        let ram = self.memory.low_ram();
        let end = start.saturating_add(len);
        if !(end <= EBDA.min(ram) || (start >= HIGH_MEMORY && end <= ram)) {
            return Err(PlaceError::NotRam { start, end, ram });
        }
        // Overlaps are legal, but must not add up to hours of copying.
        self.taken += len;
        if self.taken > ram {
            return Err(PlaceError::TooLarge { size: self.taken, ram });
        }
        self.end = self.end.max(end);
        Ok(())
    }

    /// Copies `bytes` to `start`, with zeros behind them up to `len` bytes in all. The range must have been reserved.
    pub fn fill(&self, start: u64, bytes: &[u8], len: u64) {
        const ZEROS: [u8; 4096] = [0; 4096];
        self.memory.write(start, bytes);
        let (mut at, end) = (start + bytes.len() as u64, start + len);
        while at < end {
            let n = (end - at).min(ZEROS.len() as u64);
            self.memory.write(at, &ZEROS[..n as usize]);
            at += n;
        }
    }

    /// One past the last byte taken.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Puts `bytes` on a page boundary behind all that is taken and above 1 MiB; where.
    ///
    /// # Errors
    /// There is no room.
    pub fn append(&mut self, what: &'static str, bytes: &[u8]) -> Result<u32, PlaceError> {
        let start = self.end.max(HIGH_MEMORY).next_multiple_of(PAGE);
        let (size, ram) = (bytes.len() as u64, self.memory.low_ram());
        if start.saturating_add(size) > ram {
            return Err(PlaceError::NoRoom { what, size, start, ram });
        }
        self.memory.write(start, bytes);
        self.end = start + size;
        // RAM ends below 4 GiB here.
        Ok(start as u32)
    }

    /// Takes everything below `end`, as [`super::elf::Elf::load`] has.
    pub fn behind(memory: &'a GuestMemory, end: u64) -> Placement<'a> {
        Placement { memory, taken: 0, end }
    }
}
