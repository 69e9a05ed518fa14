//! A raw image in a file or on a block device, with positioned reads and writes.
//!
//! A lock on the whole file keeps two machines, or two drives of one, from writing to the same image: exclusive for
//! writers, shared for readers (flock(2), advisory). File systems without locks go without.

use super::Cache;
use emu_devices::storage::block::Image;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// What an image is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    Read,
    /// Reading and writing.
    ReadWrite,
}

/// A raw image.
pub struct FileImage {
    file: File,
    len: u64,
    access: Access,
    cache: Cache,
}

impl FileImage {
    /// Opens and locks the image at `path`.
    ///
    /// # Errors
    /// One line that does not name the file.
    pub fn open(path: &Path, access: Access, cache: Cache) -> Result<FileImage, String> {
        let cannot = |e: io::Error| format!("cannot open: {e}");
        // Looked at before opening, which would wait for the other end of a FIFO.
        let kind = std::fs::metadata(path).map_err(cannot)?.file_type();
        if kind.is_dir() {
            return Err("is a directory, not an image".into());
        }
        if !kind.is_file() && !kind.is_block_device() {
            return Err("is neither a file nor a block device".into());
        }
        let writes = access == Access::ReadWrite;
        let mut file = OpenOptions::new().read(true).write(writes).open(path).map_err(|e| match e.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if writes => {
                format!("cannot open for writing: {e}; snapshot=on leaves the file alone")
            }
            _ => cannot(e),
        })?;
        let operation =
            if writes { FlockOperation::NonBlockingLockExclusive } else { FlockOperation::NonBlockingLockShared };
        if flock(&file, operation) == Err(Errno::WOULDBLOCK) {
            let other = if writes { "another drive or process" } else { "a drive or process that writes to it" };
            return Err(format!("the image is in use by {other}"));
        }
        let len = file.seek(SeekFrom::End(0)).map_err(cannot)?;
        Ok(FileImage { file, len, access, cache })
    }

    /// An empty file in `folder` that has no name and goes with the image.
    ///
    /// # Errors
    /// One line.
    pub fn temporary(folder: &Path) -> Result<FileImage, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let cannot = |e: io::Error| format!("cannot create a temporary file in {}: {e}", folder.display());
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!(".emu-snapshot-{}-{number}", std::process::id()));
            match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => {
                    std::fs::remove_file(&path).map_err(cannot)?;
                    return Ok(FileImage { file, len: 0, access: Access::ReadWrite, cache: Cache::Unsafe });
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(cannot(e)),
            }
        }
    }
}

impl Image for FileImage {
    fn len(&self) -> u64 {
        self.len
    }

    fn is_read_only(&self) -> bool {
        self.access == Access::Read
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// Goes on after partial and interrupted writes.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.access == Access::Read {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        self.file.write_all_at(bytes, offset)?;
        self.len = self.len.max(offset + bytes.len() as u64);
        if self.cache == Cache::Writethrough { self.file.sync_data() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        match (self.cache, self.access) {
            (Cache::Unsafe, _) | (_, Access::Read) => Ok(()),
            _ => self.file.sync_data(),
        }
    }
}
