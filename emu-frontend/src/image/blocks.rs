//! What formats share whose only structure is a table: for each block of the disk, where in the file it is.
//!
//! Blocks are added at the end of the file. The table is changed in memory; a flush makes the data durable first, then
//! writes the table, so that the file never refers to a block that is not there. Nothing is ever given back.

use crate::image::layer::{Extent, ExtentKind, Layer, data_in, is_zero};
use crate::image::storage::{Storage, located};
use crate::image::{Format, invalid};
use emu_devices::storage::block::{Image, Located};
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;

/// The most entries of a table: what they take in memory is bounded, whatever a header says.
pub const MOST_ENTRIES: u64 = 16 << 20;

/// Where a block is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: it is zeros.
    #[default]
    Absent,
    /// Its data begins here in the file.
    At(u64),
}

/// What differs between formats.
pub trait Table: Send {
    /// Its name.
    fn format(&self) -> Format;

    /// Bytes in front of a new block's data: which of its sectors are there.
    fn prefix(&self) -> Vec<u8> {
        Vec::new()
    }

    /// What blocks are aligned to in the file.
    fn alignment(&self) -> u64 {
        512
    }

    /// Places of blocks are below this; what the table can tell.
    fn limit(&self) -> u64;

    /// Where new blocks go, given the file's length.
    fn end(&self, file_len: u64) -> u64 {
        file_len
    }

    /// What is written behind new blocks, before the table names them.
    ///
    /// # Errors
    /// The host refuses.
    fn close(&mut self, _file: &mut dyn Storage, _end: u64) -> io::Result<()> {
        Ok(())
    }

    /// Writes entries of the table, durably. All the data is durable.
    ///
    /// # Errors
    /// The host refuses.
    fn write_entries(&mut self, file: &mut dyn Storage, entries: &[(usize, u64)]) -> io::Result<()>;
}

/// Whether any of `structures` meets another one, or a block of `block` bytes at one of `starts`.
fn is_tangled(mut starts: impl Iterator<Item = u64>, block: u64, mut structures: Vec<Range<u64>>) -> bool {
    structures.retain(|range| !range.is_empty());
    structures.sort_unstable_by_key(|range| range.start);
    let over_one = |at: u64| {
        let next = structures.partition_point(|range| range.end <= at);
        structures.get(next).is_some_and(|range| range.start < at + block)
    };
    structures.windows(2).any(|two| two[0].end > two[1].start) || starts.any(over_one)
}

/// An image of that kind.
pub struct Blocks<T: Table> {
    file: Box<dyn Storage>,
    table: T,
    places: Vec<Place>,
    block: u64,
    len: u64,
    /// Where the next block goes.
    end: u64,
    dirty: BTreeSet<usize>,
}

impl<T: Table> Blocks<T> {
    /// A disk of `len` bytes in blocks of `block`, which are at `places`. `structures`: what else of the format is in the file.
    ///
    /// # Errors
    /// The file can be written, and its structures lie over each other or over blocks: what a guest writes would change them.
    pub fn new(
        file: Box<dyn Storage>,
        table: T,
        places: Vec<Place>,
        (block, len): (u64, u64),
        structures: Vec<Range<u64>>,
    ) -> io::Result<Blocks<T>> {
        let starts = || places.iter().filter_map(|place| if let Place::At(at) = place { Some(*at) } else { None });
        if !file.is_read_only() && is_tangled(starts(), block, structures) {
            return Err(invalid(
                "tables and blocks of the image lie over each other: it can be opened for reading only",
            ));
        }
        // The last block need not be there as a whole.
        let last = starts().max().map_or(0, |at| at + block);
        let end = table.end(file.len()).max(last).next_multiple_of(table.alignment());
        Ok(Blocks { file, table, places, block, len, end, dirty: BTreeSet::new() })
    }

    fn place(&self, index: u64) -> Place {
        self.places.get(index as usize).copied().unwrap_or_default()
    }

    /// Calls `f` for each part within one block: its block, its offset there, its range of the buffer.
    fn parts(&self, offset: u64, len: usize) -> impl Iterator<Item = (u64, u64, std::ops::Range<usize>)> + use<T> {
        let block = self.block;
        let mut done = 0;
        std::iter::from_fn(move || {
            let at = offset + done as u64;
            let n = ((block - at % block) as usize).min(len - done);
            let range = done..done + n;
            done += n;
            (n > 0).then_some((at / block, at % block, range))
        })
    }

    /// Adds block `index`, whose data is zeros but for `bytes` at `within`.
    fn add(&mut self, index: u64, within: u64, bytes: &[u8]) -> io::Result<()> {
        let prefix = self.table.prefix();
        let (start, data) = (self.end, self.end + prefix.len() as u64);
        let end = data + self.block;
        if start >= self.table.limit() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        // The rest of the block is a hole behind the end, but for what was there.
        let old = self.file.len();
        if old > start {
            self.file.write_zeroes(start, old.min(end) - start, false)?;
        }
        if old < end {
            self.file.set_len(end)?;
        }
        if !prefix.is_empty() {
            self.file.write_at(start, &prefix)?;
        }
        self.file.write_at(data + within, bytes)?;
        self.places[index as usize] = Place::At(data);
        self.dirty.insert(index as usize);
        self.end = end.next_multiple_of(self.table.alignment());
        Ok(())
    }

    fn write_back(&mut self) -> io::Result<()> {
        if self.file.is_read_only() {
            return Ok(());
        }
        if !self.dirty.is_empty() {
            self.table.close(self.file.as_mut(), self.end)?;
        }
        self.file.flush()?;
        if self.dirty.is_empty() {
            return Ok(());
        }
        let entry = |index: &usize| match self.places[*index] {
            Place::At(at) => Some((*index, at)),
            Place::Absent => None,
        };
        let entries: Vec<(usize, u64)> = self.dirty.iter().filter_map(entry).collect();
        self.table.write_entries(self.file.as_mut(), &entries)?;
        self.dirty.clear();
        Ok(())
    }

    fn check_range(&self, offset: u64, len: u64) -> io::Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len.next_multiple_of(512) && end <= self.places.len() as u64 * self.block => {
                Ok(())
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl<T: Table> Image for Blocks<T> {
    fn len(&self) -> u64 {
        self.len
    }

    fn is_read_only(&self) -> bool {
        self.file.is_read_only()
    }

    fn locate(&mut self, offset: u64, len: u64, to_write: bool) -> Option<Located> {
        self.check_range(offset, len).ok()?;
        let within = offset % self.block;
        match self.place(offset / self.block) {
            Place::Absent => None,
            Place::At(at) => located(self.file.as_ref(), at + within, len.min(self.block - within), to_write),
        }
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.check_range(offset, buffer.len() as u64)?;
        for (index, within, range) in self.parts(offset, buffer.len()) {
            match self.place(index) {
                Place::Absent => buffer[range].fill(0),
                Place::At(at) => self.file.read_at(at + within, &mut buffer[range])?,
            }
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.is_read_only() {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        self.check_range(offset, bytes.len() as u64)?;
        for (index, within, range) in self.parts(offset, bytes.len()) {
            match self.place(index) {
                Place::At(at) => self.file.write_at(at + within, &bytes[range])?,
                Place::Absent if is_zero(&bytes[range.clone()]) => {}
                Place::Absent => self.add(index, within, &bytes[range])?,
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_back()
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        if self.is_read_only() {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        self.check_range(offset, len)?;
        let mut at = offset;
        while at < offset + len {
            let n = (self.block - at % self.block).min(offset + len - at);
            if let Place::At(host) = self.place(at / self.block) {
                self.file.write_zeroes(host + at % self.block, n, unmap)?;
            }
            at += n;
        }
        Ok(())
    }
}

impl<T: Table> Layer for Blocks<T> {
    fn format(&self) -> Format {
        self.table.format()
    }

    fn extent(&mut self, offset: u64, max: u64) -> io::Result<Extent> {
        let max = max.min(self.len.saturating_sub(offset).max(1));
        let first = self.place(offset / self.block);
        let mut len = self.block - offset % self.block;
        let mut next = offset / self.block + 1;
        while len < max {
            let same = match (first, self.place(next)) {
                (Place::Absent, Place::Absent) => true,
                (Place::At(a), Place::At(b)) => a + offset % self.block + len == b,
                _ => false,
            };
            if !same {
                break;
            }
            len += self.block;
            next += 1;
        }
        match first {
            Place::Absent => Ok(Extent { len: len.min(max), kind: ExtentKind::Absent }),
            Place::At(at) => data_in(self.file.as_mut(), at + offset % self.block, len.min(max)),
        }
    }

    fn resize(&mut self, _len: u64) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "Image format driver does not support resize"))
    }

    fn cluster_size(&self) -> u64 {
        self.block
    }

    fn allocated(&self) -> u64 {
        self.file.allocated()
    }
}

impl<T: Table> Drop for Blocks<T> {
    fn drop(&mut self) {
        if let Err(e) = self.write_back() {
            tracing::error!("{}: not everything is in the file: {e}", self.table.format().name());
        }
    }
}
