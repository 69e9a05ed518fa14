//! Images that need no host: memory with injected faults, for tests, and a copy-on-write overlay for `snapshot=on`.

use super::block::Image;
use crate::shared::Shared;
use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// The unit in which [`Overlay`] keeps what has been written, in bytes.
const CLUSTER: u64 = 4096;

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

/// `base`, never written to, under `top`, which takes all writes and starts out empty.
pub struct Overlay {
    base: Box<dyn Image>,
    top: Box<dyn Image>,
    len: u64,
    /// Numbers of the clusters that are in `top`.
    written: HashSet<u64>,
}

impl Overlay {
    /// `top` is sparse: it grows by writes at any offset, and takes as much room as is written.
    pub fn new(base: Box<dyn Image>, top: Box<dyn Image>) -> Overlay {
        Overlay { len: base.len(), base, top, written: HashSet::new() }
    }

    /// Calls `f` for each run within one cluster: its offset and its range of the buffer.
    fn clusters(offset: u64, len: usize, mut f: impl FnMut(u64, Range<usize>) -> io::Result<()>) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let n = ((CLUSTER - at % CLUSTER) as usize).min(len - done);
            f(at, done..done + n)?;
            done += n;
        }
        Ok(())
    }

    /// Reads from the base, zeros beyond its end.
    fn read_base(base: &mut dyn Image, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let inside = base.len().saturating_sub(at).min(buffer.len() as u64) as usize;
        buffer[inside..].fill(0);
        if inside > 0 { base.read_at(at, &mut buffer[..inside]) } else { Ok(()) }
    }
}

impl Image for Overlay {
    fn len(&self) -> u64 {
        self.len
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let Overlay { base, top, written, .. } = self;
        Overlay::clusters(offset, buffer.len(), |at, range| match written.contains(&(at / CLUSTER)) {
            true => top.read_at(at, &mut buffer[range]),
            false => Overlay::read_base(base.as_mut(), at, &mut buffer[range]),
        })
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let Overlay { base, top, written, len } = self;
        Overlay::clusters(offset, bytes.len(), |at, range| {
            let (number, within) = (at / CLUSTER, (at % CLUSTER) as usize);
            if written.contains(&number) {
                return top.write_at(at, &bytes[range]);
            }
            let mut cluster = [0; CLUSTER as usize];
            if range.len() < cluster.len() {
                Overlay::read_base(base.as_mut(), at - within as u64, &mut cluster)?;
            }
            cluster[within..within + range.len()].copy_from_slice(&bytes[range]);
            top.write_at(at - within as u64, &cluster)?;
            written.insert(number);
            Ok(())
        })?;
        *len = (*len).max(offset + bytes.len() as u64);
        Ok(())
    }

    /// Nothing of it outlives the machine.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlay_reads_back_what_was_written_and_leaves_the_base_alone() {
        let before: Vec<u8> = (0..20_000u32).map(|i| (i % 251) as u8).collect();
        let base = MemoryImage::new(before.clone());
        let mut overlay = Overlay::new(Box::new(base.clone()), Box::new(MemoryImage::default()));
        let mut expected = before.clone();
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..300 {
            let start = random.usize(0..20_000);
            let len = random.usize(0..9000).min(20_000 - start);
            if random.bool() {
                let bytes = vec![random.u8(..); len];
                expected[start..start + len].copy_from_slice(&bytes);
                overlay.write_at(start as u64, &bytes).unwrap();
            }
            let mut read = vec![0; len];
            overlay.read_at(start as u64, &mut read).unwrap();
            assert_eq!(read, expected[start..start + len]);
        }
        assert_eq!(base.bytes(), before);
        assert_eq!(overlay.len(), 20_000);
    }

    #[test]
    fn overlay_write_that_fails_leaves_the_old_contents_visible() {
        let top = MemoryImage::default();
        let mut overlay = Overlay::new(Box::new(MemoryImage::new(vec![7; 8192])), Box::new(top.clone()));
        top.fail(0..4096, io::ErrorKind::StorageFull);
        assert!(overlay.write_at(0, &[1; 512]).is_err());
        let mut byte = [0];
        overlay.read_at(0, &mut byte).unwrap();
        assert_eq!(byte, [7]);
    }
}
