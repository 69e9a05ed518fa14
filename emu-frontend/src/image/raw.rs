//! The file is the disk.

use crate::image::Format;
use crate::image::layer::{Extent, ExtentKind, Layer};
use crate::image::storage::{Storage, located};
use emu_devices::storage::block::{Image, Located};
use std::io;

/// A raw image.
pub struct Raw {
    file: Box<dyn Storage>,
    /// The format was guessed: sector 0 may not come to look like another format, which would be guessed next time.
    guessed: bool,
}

impl Raw {
    /// The image in `file`.
    pub fn new(file: Box<dyn Storage>, guessed: bool) -> Raw {
        Raw { file, guessed }
    }
}

impl Image for Raw {
    fn len(&self) -> u64 {
        self.file.len()
    }

    fn is_read_only(&self) -> bool {
        self.file.is_read_only()
    }

    fn locate(&mut self, offset: u64, len: u64, to_write: bool) -> Option<Located> {
        let is_guarded = to_write && self.guessed && offset < 512;
        if is_guarded { None } else { located(self.file.as_ref(), offset, len, to_write) }
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        crate::image::storage::read_exact(self.file.as_mut(), offset, buffer)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.guessed && offset < 512 && !bytes.is_empty() {
            let mut head = [0; 512];
            self.file.read_at(0, &mut head)?;
            let n = bytes.len().min(512 - offset as usize);
            head[offset as usize..offset as usize + n].copy_from_slice(&bytes[..n]);
            if crate::image::probe(&head) != Format::Raw {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "the image would look like another format, and its own was not specified (format=raw)",
                ));
            }
        }
        self.file.write_at(offset, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.file.discard(offset, len)
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.file.write_zeroes(offset, len, unmap)
    }
}

impl Layer for Raw {
    fn format(&self) -> Format {
        Format::Raw
    }

    fn extent(&mut self, offset: u64, max: u64) -> io::Result<Extent> {
        let max = max.min(self.file.len().saturating_sub(offset).max(1));
        let (data, len) = self.file.extent(offset, max)?;
        let kind = match data {
            true => ExtentKind::Data { at: Some(offset), compressed: false, hole: false },
            false => ExtentKind::Zero { at: Some(offset) },
        };
        Ok(Extent { len, kind })
    }

    fn resize(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocated(&self) -> u64 {
        self.file.allocated()
    }
}
