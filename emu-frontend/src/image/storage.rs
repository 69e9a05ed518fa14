//! What an image format lies on: a sequence of bytes that grows, with an order of writes that flushes alone give.

use emu_devices::storage::block::{HostBytes, Located};
use std::io;
use std::sync::Arc;
#[cfg(test)]
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The bytes under a format: a host file, a block device, another host's export, or memory.
pub trait Storage: Send {
    /// Bytes.
    fn len(&self) -> u64;

    /// Whether writes always fail.
    fn is_read_only(&self) -> bool;

    /// Fills `buffer` from `offset`, with zeros beyond the end.
    ///
    /// # Errors
    /// The host cannot read it.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// What `len` bytes at `offset`, which are there, may be read from or written to at the same offset by several threads, as
    /// [`Storage::read_at`] and [`Storage::write_at`] would; `None`: nothing.
    fn shared(&self, _offset: u64, _len: u64, _to_write: bool) -> Option<Arc<dyn HostBytes>> {
        None
    }

    /// Writes all of `bytes`. What is written behind the end makes it longer.
    ///
    /// # Errors
    /// The host cannot write all of it; some may have been written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Returns when all that was written before would survive a loss of power. Until then any part of it may be lost.
    ///
    /// # Errors
    /// The host cannot promise that.
    fn flush(&mut self) -> io::Result<()>;

    /// Cuts the end off, or appends zeros.
    ///
    /// # Errors
    /// It cannot change its length, or the host refuses.
    fn set_len(&mut self, len: u64) -> io::Result<()>;

    /// Gives the room of these bytes back, if the host can; what they read as afterwards is open.
    ///
    /// # Errors
    /// The host refuses.
    fn discard(&mut self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    /// Makes `len` bytes zeros. With `unmap` they need not keep their room.
    ///
    /// # Errors
    /// As [`Storage::write_at`].
    fn write_zeroes(&mut self, offset: u64, len: u64, _unmap: bool) -> io::Result<()> {
        let zeros = vec![0; len.min(1 << 20) as usize];
        let mut at = offset;
        while at < offset + len {
            let n = (offset + len - at).min(zeros.len() as u64);
            self.write_at(at, &zeros[..n as usize])?;
            at += n;
        }
        Ok(())
    }

    /// Whether there may be data at `offset`, and for how many bytes, at most `max`, that holds.
    ///
    /// # Errors
    /// The host cannot tell.
    fn extent(&mut self, _offset: u64, max: u64) -> io::Result<(bool, u64)> {
        Ok((true, max))
    }

    /// Bytes that it takes on the host.
    fn allocated(&self) -> u64 {
        self.len()
    }
}

/// Reads exactly what is there.
///
/// # Errors
/// The end comes before, or the host cannot read it.
pub fn read_exact(storage: &mut dyn Storage, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    match offset.checked_add(buffer.len() as u64) {
        Some(end) if end <= storage.len() => storage.read_at(offset, buffer),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// `len` bytes at `offset` of `storage` as [`Image::locate`](emu_devices::storage::block::Image::locate) has them.
pub fn located(storage: &dyn Storage, offset: u64, len: u64, to_write: bool) -> Option<Located> {
    Some(Located { bytes: storage.shared(offset, len, to_write)?, offset, len })
}

/// Whether the host is known to have nothing in these bytes.
pub fn is_hole(storage: &mut dyn Storage, offset: u64, len: u64) -> bool {
    matches!(storage.extent(offset, len), Ok((false, hole)) if hole >= len)
}

/// Bytes in memory; clones share them.
#[cfg(test)]
#[derive(Clone, Default)]
pub struct MemoryStorage {
    bytes: Arc<Mutex<Vec<u8>>>,
    read_only: bool,
}

#[cfg(test)]
impl MemoryStorage {
    /// Holds `bytes`.
    pub fn new(bytes: Vec<u8>) -> MemoryStorage {
        MemoryStorage { bytes: Arc::new(Mutex::new(bytes)), read_only: false }
    }

    /// A copy of what it holds.
    pub fn bytes(&self) -> Vec<u8> {
        self.contents().clone()
    }

    /// Refuses writes from now on.
    pub(crate) fn set_read_only(&mut self) {
        self.read_only = true;
    }

    fn contents(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Storage for MemoryStorage {
    fn len(&self) -> u64 {
        self.contents().len() as u64
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let contents = self.contents();
        let there = (contents.len() as u64).saturating_sub(offset).min(buffer.len() as u64) as usize;
        buffer[there..].fill(0);
        if there > 0 {
            buffer[..there].copy_from_slice(&contents[offset as usize..offset as usize + there]);
        }
        Ok(())
    }

    fn shared(&self, _offset: u64, _len: u64, to_write: bool) -> Option<Arc<dyn HostBytes>> {
        let refused = to_write && self.read_only;
        if refused { None } else { Some(Arc::new(crate::image::testing::Exclusive(Mutex::new(self.clone())))) }
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let mut contents = self.contents();
        let end = usize::try_from(offset + bytes.len() as u64).map_err(|_| io::ErrorKind::StorageFull)?;
        // Memory is not sparse.
        if end > contents.len().max(1 << 30) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if contents.len() < end {
            contents.resize(end, 0);
        }
        contents[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        if len > 1 << 30 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.contents().resize(len as usize, 0);
        Ok(())
    }
}
