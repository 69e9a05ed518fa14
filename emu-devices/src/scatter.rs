//! Runs of guest memory that together are one piece of data: what a device reads from or writes to by DMA.

use emu_core::mem::GuestMemory;
use emu_core::mem::ram::Wait;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

/// A run of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Guest-physical.
    pub address: u64,
    /// In bytes, at least 1.
    pub len: u32,
}

/// Data in guest memory, which another thread may read or write while the guest runs.
#[derive(Clone)]
pub struct Scatter {
    memory: Arc<GuestMemory>,
    segments: Vec<Segment>,
}

impl Scatter {
    /// `len` bytes from byte `offset` of `segments`, or fewer if those end before.
    pub fn new(memory: &Arc<GuestMemory>, segments: &[Segment], offset: usize, len: usize) -> Scatter {
        let mut part = Vec::new();
        spans(segments, offset, len, |address, range| part.push(Segment { address, len: range.len() as u32 }));
        Scatter { memory: memory.clone(), segments: part }
    }

    /// Bytes of data.
    pub fn len(&self) -> usize {
        total(&self.segments)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// How many runs of memory they are in.
    pub fn runs(&self) -> usize {
        self.segments.len()
    }

    /// Copies data from byte `offset` into `bytes`; how many bytes there were.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> usize {
        read(&self.memory, &self.segments, offset, bytes)
    }

    /// Copies `bytes` to byte `offset`; how many fitted.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> usize {
        write(&self.memory, &self.segments, offset, bytes)
    }

    /// Reads the `part` of the data from byte `offset` of `file`, without a copy in between.
    ///
    /// # Errors
    /// As [`GuestMemory::read_file`].
    pub fn read_file(&self, part: Range<usize>, file: &File, offset: u64, wait: Wait) -> io::Result<()> {
        self.memory.read_file(&self.places(part), file.as_fd(), offset, wait)
    }

    /// Writes the `part` of the data to byte `offset` of `file` in the same way.
    ///
    /// # Errors
    /// As [`GuestMemory::write_file`].
    pub fn write_file(&self, part: Range<usize>, file: &File, offset: u64) -> io::Result<()> {
        self.memory.write_file(&self.places(part), file.as_fd(), offset)
    }

    fn places(&self, part: Range<usize>) -> Vec<(u64, usize)> {
        let mut places = Vec::new();
        spans(&self.segments, part.start, part.len(), |address, range| places.push((address, range.len())));
        places
    }
}

impl fmt::Debug for Scatter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.segments.fmt(f)
    }
}

/// Copies what is in `segments`, from their byte `offset`, into `bytes`; how many bytes there were.
pub fn read(memory: &GuestMemory, segments: &[Segment], offset: usize, bytes: &mut [u8]) -> usize {
    let len = bytes.len();
    spans(segments, offset, len, |address, range| memory.read(address, &mut bytes[range]))
}

/// Copies `bytes` to byte `offset` of `segments`; how many fitted.
pub fn write(memory: &GuestMemory, segments: &[Segment], offset: usize, bytes: &[u8]) -> usize {
    spans(segments, offset, bytes.len(), |address, range| memory.write(address, &bytes[range]))
}

/// Bytes of all `segments`.
pub fn total(segments: &[Segment]) -> usize {
    segments.iter().map(|segment| segment.len as usize).sum()
}

/// Calls `f` with address and range of each piece of `len` bytes from `offset`; how many bytes there are.
fn spans(segments: &[Segment], offset: usize, len: usize, mut f: impl FnMut(u64, Range<usize>)) -> usize {
    let (mut skip, mut done) = (offset, 0);
    for segment in segments {
        let have = segment.len as usize;
        if skip >= have {
            skip -= have;
            continue;
        }
        let n = (have - skip).min(len - done);
        f(segment.address.wrapping_add(skip as u64), done..done + n);
        (skip, done) = (0, done + n);
        if done == len {
            break;
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_of_runs_is_read_and_written_where_it_lies() {
        let memory = Arc::new(GuestMemory::new(0x10_0000, 0).unwrap());
        let segments = [(0x1000, 3), (0x5000, 1), (0x2000, 8)].map(|(address, len)| Segment { address, len });
        let part = Scatter::new(&memory, &segments, 2, 5);
        assert_eq!((part.len(), part.runs()), (5, 3));
        assert_eq!(part.write(0, &[1, 2, 3, 4, 5, 6]), 5);
        let mut all = [0; 12];
        assert_eq!(read(&memory, &segments, 0, &mut all), 12);
        assert_eq!(all, [0, 0, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0]);
        let mut some = [0; 4];
        assert_eq!((part.read(3, &mut some), some), (2, [4, 5, 0, 0]));
        let none = Scatter::new(&memory, &segments, 12, 4);
        assert_eq!((none.is_empty(), none.write(0, &[1])), (true, 0));
    }
}
