//! An image that needs no host: memory with injected faults, for tests.

use super::block::{HostBytes, Image, Located};
use crate::scatter::Scatter;
use crate::shared::Shared;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// An image in memory. Clones share their contents, so that a test can look at what a device has written.
#[derive(Clone, Default)]
pub struct MemoryImage {
    contents: Shared<Contents>,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

#[derive(Default)]
struct Contents {
    bytes: Vec<u8>,
    read_only: bool,
    faults: Vec<(Range<u64>, io::ErrorKind)>,
    flush_fault: Option<io::ErrorKind>,
    flushes: usize,
    shared: Shares,
}

/// What other threads have done to an image by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shares {
    /// They may.
    allowed: bool,
    reads: usize,
    writes: usize,
}

impl MemoryImage {
    /// An image that holds `bytes`.
    pub fn new(bytes: Vec<u8>) -> MemoryImage {
        let contents = Contents { bytes, ..Contents::default() };
        MemoryImage { contents: Shared::new(contents), gate: Arc::default() }
    }

    /// An image of zeros.
    pub fn zeros(len: usize) -> MemoryImage {
        MemoryImage::new(vec![0; len])
    }

    /// Refuses writes from now on, or takes them. To be set before the image is inserted.
    pub fn set_read_only(&self, on: bool) {
        self.contents.lock().read_only = on;
    }

    /// Every read or write that touches `range` fails from now on, having moved nothing.
    pub fn fail(&self, range: Range<u64>, kind: io::ErrorKind) {
        self.contents.lock().faults.push((range, kind));
    }

    /// Flushes fail from now on.
    pub fn fail_flush(&self, kind: io::ErrorKind) {
        self.contents.lock().flush_fault = Some(kind);
    }

    /// Takes back all faults.
    pub fn heal(&self) {
        let mut contents = self.contents.lock();
        contents.faults.clear();
        contents.flush_fault = None;
    }

    /// Holds all operations back until it is called with `false`.
    pub fn hold(&self, on: bool) {
        *self.gate.0.lock().unwrap_or_else(PoisonError::into_inner) = on;
        self.gate.1.notify_all();
    }

    /// Several threads may read and write it at once, from now on.
    pub fn share(&self) {
        self.contents.lock().shared.allowed = true;
    }

    /// How many pieces have been read and written so.
    pub fn shared(&self) -> (usize, usize) {
        let Shares { reads, writes, .. } = self.contents.lock().shared;
        (reads, writes)
    }

    /// A copy of the contents.
    pub fn bytes(&self) -> Vec<u8> {
        self.contents.lock().bytes.clone()
    }

    /// How often the image has been flushed.
    pub fn flushes(&self) -> usize {
        self.contents.lock().flushes
    }

    fn pass_gate(&self) {
        let held = self.gate.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.gate.1.wait_while(held, |held| *held));
    }

    fn check(&self, range: Range<u64>) -> io::Result<()> {
        self.pass_gate();
        let contents = self.contents.lock();
        let hit = contents.faults.iter().find(|(bad, _)| bad.start < range.end && range.start < bad.end);
        hit.map_or(Ok(()), |(_, kind)| Err((*kind).into()))
    }
}

impl Image for MemoryImage {
    fn len(&self) -> u64 {
        self.contents.lock().bytes.len() as u64
    }

    fn is_read_only(&self) -> bool {
        self.contents.lock().read_only
    }

    /// In two parts, so that a request has several.
    fn locate(&mut self, offset: u64, len: u64, _to_write: bool) -> Option<Located> {
        let half = self.len() / 2;
        let len = if offset < half { len.min(half - offset) } else { len };
        let allowed = self.contents.lock().shared.allowed;
        allowed.then(|| Located { bytes: Arc::new(self.clone()), offset, len })
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let range = offset..offset + buffer.len() as u64;
        self.check(range.clone())?;
        let contents = self.contents.lock();
        let bytes = contents.bytes.get(range.start as usize..range.end as usize);
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let range = offset..offset + bytes.len() as u64;
        self.check(range.clone())?;
        let mut contents = self.contents.lock();
        if contents.bytes.len() < range.end as usize {
            contents.bytes.resize(range.end as usize, 0);
        }
        contents.bytes[range.start as usize..range.end as usize].copy_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass_gate();
        let mut contents = self.contents.lock();
        contents.flushes += 1;
        contents.flush_fault.map_or(Ok(()), |kind| Err(kind.into()))
    }
}

impl HostBytes for MemoryImage {
    fn read_to(&self, offset: u64, room: &Scatter, part: Range<usize>) -> io::Result<()> {
        let mut bytes = vec![0; part.len()];
        self.clone().read_at(offset, &mut bytes)?;
        room.write(part.start, &bytes);
        self.contents.lock().shared.reads += 1;
        Ok(())
    }

    fn write_from(&self, offset: u64, data: &Scatter, part: Range<usize>) -> io::Result<()> {
        let mut bytes = vec![0; part.len()];
        data.read(part.start, &mut bytes);
        self.clone().write_at(offset, &bytes)?;
        self.contents.lock().shared.writes += 1;
        Ok(())
    }
}
