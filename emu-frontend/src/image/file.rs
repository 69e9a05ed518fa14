//! Host files and block devices.
//!
//! A lock on the whole file keeps two machines, or two drives of one, from writing to the same image: exclusive for
//! writers, shared for readers (flock(2), advisory). File systems without locks go without. With `direct`, the host's
//! page cache is left out (O_DIRECT): memory, offsets and lengths are then multiples of [`ALIGNMENT`].

use crate::image::storage::Storage;
use emu_core::mem::ram::Wait;
use emu_devices::scatter::Scatter;
use emu_devices::storage::block::HostBytes;
use rustix::fs::{FallocateFlags, FlockOperation, OFlags, SeekFrom, fallocate, flock, seek};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// What O_DIRECT's memory, offsets and lengths are multiples of: enough for any disk.
const ALIGNMENT: usize = 4096;

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileMode {
    /// Writes are refused.
    pub read_only: bool,
    /// Without the host's page cache.
    pub direct: bool,
    /// Flushes do nothing.
    pub no_flush: bool,
    /// Though others write to it.
    pub unlocked: bool,
}

/// An open file.
pub struct FileStorage {
    file: Arc<File>,
    len: u64,
    mode: FileMode,
    is_device: bool,
    /// The host cannot punch holes.
    no_holes: bool,
    wait: Wait,
}

impl FileStorage {
    /// Opens and locks the file or block device at `path`.
    ///
    /// # Errors
    /// One line that does not name the file.
    pub fn open(path: &Path, mode: FileMode) -> Result<FileStorage, String> {
        let cannot = |e: io::Error| format!("cannot open: {e}");
        // Looked at before opening, which would wait for the other end of a FIFO.
        let kind = std::fs::metadata(path).map_err(cannot)?.file_type();
        if kind.is_dir() {
            return Err("is a directory, not an image".into());
        }
        if !kind.is_file() && !kind.is_block_device() {
            return Err("is neither a file nor a block device".into());
        }
        let writes = !mode.read_only;
        let mut options = OpenOptions::new();
        options.read(true).write(writes);
        if mode.direct {
            options.custom_flags(OFlags::DIRECT.bits().cast_signed());
        }
        let file = options.open(path).map_err(|e| match e.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if writes => {
                format!("cannot open for writing: {e}; snapshot=on leaves the file alone")
            }
            io::ErrorKind::InvalidInput if mode.direct => "the file system does not support O_DIRECT".into(),
            _ => cannot(e),
        })?;
        FileStorage::locked(file, mode, kind.is_block_device())
    }

    /// Creates the file at `path`, or empties the one that is there.
    ///
    /// # Errors
    /// One line that does not name the file.
    pub fn create(path: &Path) -> Result<FileStorage, String> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|e| e.to_string())?;
        let is_device = file.metadata().is_ok_and(|m| m.file_type().is_block_device());
        let mut storage = FileStorage::locked(file, FileMode::default(), is_device)?;
        if !is_device {
            storage.set_len(0).map_err(|e| e.to_string())?;
        }
        Ok(storage)
    }

    fn locked(file: File, mode: FileMode, is_device: bool) -> Result<FileStorage, String> {
        let operation = match mode.read_only {
            false => FlockOperation::NonBlockingLockExclusive,
            true => FlockOperation::NonBlockingLockShared,
        };
        if !mode.unlocked && flock(&file, operation) == Err(Errno::WOULDBLOCK) {
            let other =
                if mode.read_only { "a drive or process that writes to it" } else { "another drive or process" };
            return Err(format!("the image is in use by {other}"));
        }
        let len = seek(&file, SeekFrom::End(0)).map_err(|e| format!("cannot open: {}", io::Error::from(e)))?;
        let wait = if is_in_memory(&file) { Wait::AsLongAsItTakes } else { Wait::Never };
        Ok(FileStorage { file: Arc::new(file), len, mode, is_device, no_holes: false, wait })
    }

    /// An empty file in `folder` that has no name and goes with the storage.
    ///
    /// # Errors
    /// One line.
    pub fn temporary(folder: &Path) -> Result<FileStorage, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let cannot = |e: io::Error| format!("cannot create a temporary file in {}: {e}", folder.display());
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!(".emu-snapshot-{}-{number}", std::process::id()));
            match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => {
                    std::fs::remove_file(&path).map_err(cannot)?;
                    let mode = FileMode { no_flush: true, ..FileMode::default() };
                    return Ok(FileStorage {
                        file: Arc::new(file),
                        len: 0,
                        mode,
                        is_device: false,
                        no_holes: false,
                        wait: Wait::Never,
                    });
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(cannot(e)),
            }
        }
    }

    /// Gives `len` bytes their room on the host, for `preallocation=falloc`.
    ///
    /// # Errors
    /// There is not so much, or the host cannot.
    pub fn reserve(&mut self, len: u64) -> io::Result<()> {
        if !self.is_device && len > 0 {
            fallocate(&self.file, FallocateFlags::empty(), 0, len)?;
            self.len = self.len.max(len);
        }
        Ok(())
    }

    /// Writes zeros where there are holes, for `preallocation=full`.
    ///
    /// # Errors
    /// There is no room.
    pub fn fill_holes(&mut self) -> io::Result<()> {
        let zeros = vec![0; 1 << 20];
        let mut at = 0;
        while at < self.len {
            let (data, n) = self.extent(at, self.len - at)?;
            let n = if data { n } else { n.min(zeros.len() as u64) };
            if !data {
                self.write_at(at, &zeros[..n as usize])?;
            }
            at += n;
        }
        Ok(())
    }

    /// Reads what is there of whole blocks; how much.
    fn read_some(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            // With O_DIRECT, what follows a short read is the end.
            if self.mode.direct && done % ALIGNMENT != 0 {
                break;
            }
        }
        Ok(done)
    }

    fn write_direct(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let unit = ALIGNMENT as u64;
        let (start, end) = (offset / unit * unit, (offset + bytes.len() as u64).next_multiple_of(unit));
        with_aligned((end - start) as usize, |block| {
            let (head, tail) = ((offset - start) as usize, (end - offset) as usize - bytes.len());
            let n = block.len();
            if head > 0 {
                self.read_some(start, &mut block[..ALIGNMENT])?;
            }
            if tail > 0 && (head == 0 || n > ALIGNMENT) {
                self.read_some(end - unit, &mut block[n - ALIGNMENT..])?;
            }
            block[head..head + bytes.len()].copy_from_slice(bytes);
            self.file.write_all_at(block, start)?;
            // Whole blocks may have made the file longer than it is to be.
            let len = self.len.max(offset + bytes.len() as u64);
            if end > len && !self.is_device {
                self.file.set_len(len)?;
            }
            Ok(())
        })
    }

    fn holes(&mut self, flags: FallocateFlags, offset: u64, len: u64) -> io::Result<bool> {
        if self.no_holes || len == 0 {
            return Ok(len == 0);
        }
        match fallocate(&self.file, flags, offset, len) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV | Errno::INVAL) => {
                self.no_holes = true;
                Ok(false)
            }
            Err(e) => Err(e.into()),
        }
    }
}

/// An open file, within its length.
struct OpenFile {
    file: Arc<File>,
    wait: Wait,
}

impl HostBytes for OpenFile {
    fn read_to(&self, offset: u64, room: &Scatter, part: Range<usize>) -> io::Result<()> {
        room.read_file(part, &self.file, offset, self.wait)
    }

    fn write_from(&self, offset: u64, data: &Scatter, part: Range<usize>) -> io::Result<()> {
        data.write_file(part, &self.file, offset)
    }
}

/// Whether the file lies in the host's memory alone.
fn is_in_memory(file: &File) -> bool {
    #[cfg(target_os = "linux")]
    {
        /// statfs(2), TMPFS_MAGIC.
        const TMPFS: i128 = 0x0102_1994;
        rustix::fs::fstatfs(file).is_ok_and(|info| i128::from(info.f_type) == TMPFS)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        false
    }
}

/// Lends `f` zeroed memory at a multiple of [`ALIGNMENT`].
fn with_aligned<R>(len: usize, f: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut memory = vec![0; len + ALIGNMENT];
    let start = memory.as_ptr().align_offset(ALIGNMENT);
    f(&mut memory[start..start + len])
}

impl Storage for FileStorage {
    fn len(&self) -> u64 {
        self.len
    }

    fn is_read_only(&self) -> bool {
        self.mode.read_only
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let there = self.len.saturating_sub(offset).min(buffer.len() as u64) as usize;
        buffer[there..].fill(0);
        let buffer = &mut buffer[..there];
        if !self.mode.direct {
            return self.file.read_exact_at(buffer, offset);
        }
        let unit = ALIGNMENT as u64;
        let (start, end) = (offset / unit * unit, (offset + there as u64).next_multiple_of(unit));
        with_aligned((end - start) as usize, |block| {
            let n = self.read_some(start, block)?;
            let from = (offset - start) as usize;
            let bytes = block[..n].get(from..from + there).ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn shared(&self, offset: u64, len: u64, to_write: bool) -> Option<Arc<dyn HostBytes>> {
        let there = offset.checked_add(len).is_some_and(|end| end <= self.len);
        let refused = self.mode.direct || to_write && self.mode.read_only;
        // On most file systems, writes may have to wait, and they cannot tell before.
        if !there || refused || to_write && self.wait == Wait::Never {
            return None;
        }
        Some(Arc::new(OpenFile { file: self.file.clone(), wait: self.wait }))
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.mode.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        if self.mode.direct {
            self.write_direct(offset, bytes)?
        } else {
            self.file.write_all_at(bytes, offset)?
        }
        self.len = self.len.max(offset + bytes.len() as u64);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.mode.no_flush || self.mode.read_only { Ok(()) } else { self.file.sync_data() }
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        if self.is_device {
            return if len <= self.len { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) };
        }
        self.file.set_len(len)?;
        self.len = len;
        Ok(())
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let end = (offset + len).min(self.len);
        if offset < end {
            self.holes(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, end - offset)?;
        }
        Ok(())
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        if self.mode.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let end = offset + len;
        let inside = end.min(self.len).saturating_sub(offset);
        let flags = if unmap { FallocateFlags::PUNCH_HOLE } else { FallocateFlags::ZERO_RANGE };
        if !self.holes(flags | FallocateFlags::KEEP_SIZE, offset, inside)? {
            let zeros = vec![0; inside.min(1 << 20) as usize];
            let mut at = offset;
            while at < offset + inside {
                let n = (offset + inside - at).min(zeros.len() as u64);
                self.write_at(at, &zeros[..n as usize])?;
                at += n;
            }
        }
        if end > self.len { self.set_len(end) } else { Ok(()) }
    }

    fn extent(&mut self, offset: u64, max: u64) -> io::Result<(bool, u64)> {
        let hole = |max: u64| Ok((false, max));
        match seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) if data > offset => hole((data - offset).min(max)),
            Ok(_) => match seek(&self.file, SeekFrom::Hole(offset)) {
                Ok(end) if end > offset => Ok((true, (end - offset).min(max))),
                _ => Ok((true, max)),
            },
            // No data up to the end.
            Err(Errno::NXIO) if offset < self.len => hole(max.min(self.len - offset)),
            Err(Errno::NXIO) => hole(max),
            Err(_) => Ok((true, max)),
        }
    }

    fn allocated(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.blocks() * 512)
    }
}
