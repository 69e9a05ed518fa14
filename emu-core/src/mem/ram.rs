//! The bytes behind guest RAM and ROM: one anonymous mapping.
//!
//! Untouched pages cost nothing. Accesses are plain copies: the guest's own races are the guest's, and the host never
//! forms a reference to guest bytes. One of the few modules where `unsafe` is allowed (ARCHITECTURE.md, "Unsafe").

#![allow(unsafe_code)]

use memmap2::{MmapMut, MmapOptions};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

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
