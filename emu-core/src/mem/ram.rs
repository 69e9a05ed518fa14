//! The bytes behind guest RAM and ROM: one anonymous mapping.
//!
//! Untouched pages cost nothing. Accesses are plain copies: the guest's own races are the guest's, and the host never
//! forms a reference to guest bytes. One of the few modules where `unsafe` is allowed (ARCHITECTURE.md, "Unsafe").

#![allow(unsafe_code)]

use memmap2::{MmapMut, MmapOptions};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// How many pieces Linux and the BSDs take in one system call (IOV_MAX).
const MOST_VECTORS: usize = 1024;

/// A part of the mapping: offset and length in bytes.
pub type Run = (usize, usize);

/// How long a read of a file may wait for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// As it does by itself.
    AsLongAsItTakes,
    /// The read fails instead; also where the host cannot tell.
    Never,
}

/// One zero-filled mapping of a fixed length.
pub struct Ram {
    base: *mut u8,
    len: usize,
    map: MmapMut,
}

// SAFETY: the mapping lives as long as `Ram`, `base` and `len` never change, and all access goes through raw copies and
// host atomics; no reference to the mapped bytes is ever formed.
unsafe impl Send for Ram {}
// SAFETY: as above.
unsafe impl Sync for Ram {}

impl Ram {
    /// A mapping of `len` bytes.
    ///
    /// # Errors
    /// The host refuses the mapping.
    pub fn new(len: usize) -> std::io::Result<Ram> {
        let mut map = MmapOptions::new().len(len.max(1)).no_reserve_swap().map_anon()?;
        Ok(Ram { base: map.as_mut_ptr(), len, map })
    }

    /// Bytes in the mapping.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the mapping holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The host address of the first byte, valid as long as this value lives.
    pub fn host_base(&self) -> usize {
        self.base as usize
    }

    fn check(&self, offset: usize, len: usize) {
        assert!(offset <= self.len && len <= self.len - offset, "guest memory offset out of range");
    }

    /// Copies bytes out. Panics if the range is not inside the mapping (an error of the caller, never of the guest).
    pub fn read(&self, offset: usize, bytes: &mut [u8]) {
        self.check(offset, bytes.len());
        // SAFETY: the range was checked to be inside the mapping; `bytes` cannot overlap it, since no reference to
        // the mapping exists.
        unsafe { std::ptr::copy_nonoverlapping(self.base.add(offset), bytes.as_mut_ptr(), bytes.len()) }
    }

    /// Copies bytes in. Panics as [`Ram::read`].
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        self.check(offset, bytes.len());
        // SAFETY: as in `read`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(offset), bytes.len()) }
    }

    /// Fills `runs` of the mapping (offset, bytes), one after the other, from byte `offset` of `file`; how many bytes there were. Panics
    /// as [`Ram::read`].
    ///
    /// # Errors
    /// The host cannot read the file, or, with [`Wait::Never`], not at once, or does not know.
    pub fn read_file(&self, runs: &[Run], file: BorrowedFd<'_>, offset: i64, wait: Wait) -> std::io::Result<usize> {
        let vectors = self.vectors(runs);
        let (file, vector, count) = (file.as_raw_fd(), vectors.as_ptr(), vectors.len() as libc::c_int);
        // SAFETY: each vector was checked to be inside of the mapping, which is writable and lives as long as `self`; no reference to its
        // bytes exists, and that others access them meanwhile is as with all of the guest's races.
        let n = unsafe {
            match wait {
                Wait::AsLongAsItTakes => libc::preadv(file, vector, count, offset),
                #[cfg(target_os = "linux")]
                Wait::Never => libc::preadv2(file, vector, count, offset, libc::RWF_NOWAIT),
                #[cfg(not(target_os = "linux"))]
                Wait::Never => return Err(std::io::ErrorKind::Unsupported.into()),
            }
        };
        usize::try_from(n).map_err(|_| std::io::Error::last_os_error())
    }

    /// Writes `runs` to byte `offset` of `file` in the same way.
    ///
    /// # Errors
    /// The host cannot write the file.
    pub fn write_file(&self, runs: &[Run], file: BorrowedFd<'_>, offset: i64) -> std::io::Result<usize> {
        let vectors = self.vectors(runs);
        // SAFETY: as in `read_file`; the bytes are only read.
        let n = unsafe { libc::pwritev(file.as_raw_fd(), vectors.as_ptr(), vectors.len() as libc::c_int, offset) };
        usize::try_from(n).map_err(|_| std::io::Error::last_os_error())
    }

    /// `runs` as the host's system calls take them: no more than it takes at once, at most 1024.
    fn vectors(&self, runs: &[Run]) -> Vec<libc::iovec> {
        let vector = |&(offset, len): &Run| {
            self.check(offset, len);
            libc::iovec { iov_base: self.base.wrapping_add(offset).cast(), iov_len: len }
        };
        runs.iter().take(MOST_VECTORS).map(vector).collect()
    }

    /// Makes a page of 4 KiB, at a multiple of that, zeros, and gives it back to the host where that is possible: on Linux, where the
    /// host's pages are known to be no larger. Panics as [`Ram::read`].
    pub fn discard_page(&self, offset: usize) {
        const PAGE: usize = 4096;
        self.check(offset, PAGE);
        assert!(offset.is_multiple_of(PAGE));
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        // SAFETY: the page was checked to be inside of the private anonymous mapping, so that it reads as zeros afterwards, as a write of
        // zeros would have it; no reference to its bytes exists.
        let discarded =
            unsafe { self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, PAGE).is_ok() };
        #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
        let discarded = false;
        if !discarded {
            self.write(offset, &[0; PAGE]);
        }
    }

    /// Atomically replaces the naturally aligned `size` (1, 2, 4 or 8) byte little-endian value at `offset` by `new` if
    /// it is `expected`. Panics as [`Ram::read`], or if `offset` is not aligned.
    pub fn compare_exchange(&self, offset: usize, size: u8, expected: u64, new: u64) -> bool {
        self.check(offset, usize::from(size));
        assert!(offset.is_multiple_of(usize::from(size)));
        // SAFETY: in range and aligned as checked; the mapping itself is page-aligned; all concurrent access to these
        // bytes is by atomics or by the guest's own racing plain copies.
        unsafe {
            let at = self.base.add(offset);
            match size {
                1 => AtomicU8::from_ptr(at)
                    .compare_exchange(expected as u8, new as u8, Ordering::SeqCst, Ordering::SeqCst)
                    .is_ok(),
                2 => AtomicU16::from_ptr(at.cast())
                    .compare_exchange(
                        (expected as u16).to_le(),
                        (new as u16).to_le(),
                        Ordering::SeqCst,
                        Ordering::SeqCst,
                    )
                    .is_ok(),
                4 => AtomicU32::from_ptr(at.cast())
                    .compare_exchange(
                        (expected as u32).to_le(),
                        (new as u32).to_le(),
                        Ordering::SeqCst,
                        Ordering::SeqCst,
                    )
                    .is_ok(),
                _ => AtomicU64::from_ptr(at.cast())
                    .compare_exchange(expected.to_le(), new.to_le(), Ordering::SeqCst, Ordering::SeqCst)
                    .is_ok(),
            }
        }
    }

    /// Reads a little-endian value of `size` (1 to 8) bytes. Panics as [`Ram::read`].
    #[inline]
    pub fn read_le(&self, offset: usize, size: u8) -> u64 {
        let mut bytes = [0; 8];
        self.read(offset, &mut bytes[..usize::from(size)]);
        u64::from_le_bytes(bytes)
    }

    /// Writes a little-endian value of `size` (1 to 8) bytes. Panics as [`Ram::read`].
    #[inline]
    pub fn write_le(&self, offset: usize, size: u8, value: u64) {
        self.write(offset, &value.to_le_bytes()[..usize::from(size)]);
    }
}
