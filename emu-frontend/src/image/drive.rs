//! An image as a drive has it: with what the drive's options say about discards, zeros and durability.

use crate::image::file::FileStorage;
use crate::image::layer::{ExtentKind, Layer, is_zero};
use crate::image::nbd;
use crate::image::open::{Cache, OpenOptions, open};
use crate::image::qcow2::create::{Options, create};
use crate::image::qcow2::{Dirty, Qcow2};
use emu_devices::storage::block::{Image, Located};
use std::io;
use std::path::PathBuf;

/// What becomes of zeros that a guest writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DetectZeroes {
    /// They are data.
    #[default]
    Off,
    /// They are written as zeros, which may take no room.
    On,
    /// They give their room back.
    Unmap,
}

/// A drive's options about its image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriveOptions {
    /// How the image is opened.
    pub open: OpenOptions,
    /// Writes go to a temporary image on top of it.
    pub snapshot: bool,
    /// Discards reach the image.
    pub discard: bool,
    /// What becomes of zeros.
    pub detect_zeroes: DetectZeroes,
}

/// An image behind a drive.
pub struct Drive {
    /// `None` only while layers are exchanged.
    image: Option<Box<dyn Layer>>,
    options: DriveOptions,
    name: String,
}

impl Drive {
    /// Opens the image called `name`.
    ///
    /// # Errors
    /// One line that does not name it.
    pub fn open(name: &str, options: &DriveOptions, warnings: &mut Vec<String>) -> Result<Drive, String> {
        let mut how = options.open.clone();
        how.read_only |= options.snapshot;
        let mut image = open(name, &how, warnings)?;
        if options.snapshot {
            image = on_top(image)?;
        }
        Ok(Drive { image: Some(image), options: options.clone(), name: name.into() })
    }

    /// The name of the image's format.
    pub fn format(&self) -> &'static str {
        self.image.as_ref().map_or("", |image| image.format().name())
    }

    fn image(&mut self) -> io::Result<&mut Box<dyn Layer>> {
        self.image.as_mut().ok_or_else(|| io::Error::other("the image is gone"))
    }

    fn settle(&mut self) -> io::Result<()> {
        if self.options.open.cache.writethrough { self.image()?.flush() } else { Ok(()) }
    }

    /// The image below, open for writing, and its name.
    fn base(&mut self) -> io::Result<Box<dyn Layer>> {
        let mut how = self.options.open.clone();
        how.read_only = false;
        let name = if self.options.snapshot { self.name.clone() } else { self.below(&mut how)? };
        open(&name, &how, &mut Vec::new()).map_err(|e| io::Error::other(format!("'{name}': {e}")))
    }

    /// The name of what the image says is below it.
    fn below(&mut self, how: &mut OpenOptions) -> io::Result<String> {
        let named = std::mem::take(&mut how.backing);
        how.backing.anywhere = named.anywhere;
        how.format = named.format;
        if let Some(file) = named.file {
            return Ok(file);
        }
        let above = self.name.clone();
        let (file, format) =
            self.image()?.names_backing().ok_or_else(|| io::Error::other("the image has no backing file"))?;
        how.format = how.format.or(format);
        Ok(crate::image::open::resolve(&above, &file).map_err(io::Error::other)?.display().to_string())
    }
}

/// A temporary image on top of `image`.
fn on_top(image: Box<dyn Layer>) -> Result<Box<dyn Layer>, String> {
    let mut file = FileStorage::temporary(&temporary_folder())?;
    let size = image.len().next_multiple_of(512);
    let options = Options { size, cluster_size: 16 << 10, ..Options::default() };
    create(&mut file, &options, None).map_err(|e| e.to_string())?;
    let mut top = Qcow2::open(Box::new(file), Dirty::Repair).map_err(|e| e.to_string())?;
    top.set_backing(Some(image)).map_err(|e| e.to_string())?;
    Ok(Box::new(top))
}

/// Where QEMU has its snapshots too: images outgrow a /tmp in memory.
fn temporary_folder() -> PathBuf {
    std::env::var_os("TMPDIR").filter(|folder| !folder.is_empty()).map_or("/var/tmp".into(), PathBuf::from)
}

/// Writes all that `top` has into `base`.
///
/// # Errors
/// The host refuses.
pub fn copy_down(top: &mut dyn Layer, base: &mut dyn Layer, mut progress: impl FnMut(u64)) -> io::Result<()> {
    let len = top.len();
    if base.len() < len {
        base.resize(len)?;
    }
    let mut at = 0;
    let mut buffer = vec![0; 1 << 20];
    while at < len {
        let extent = top.extent(at, len - at)?;
        let n = match extent.kind {
            ExtentKind::Absent => extent.len,
            ExtentKind::Zero { .. } => {
                base.write_zeroes(at, extent.len, true)?;
                extent.len
            }
            ExtentKind::Data { .. } => {
                let n = extent.len.min(buffer.len() as u64);
                let part = &mut buffer[..n as usize];
                top.read_at(at, part)?;
                base.write_at(at, part)?;
                n
            }
        };
        at += n;
        progress(at);
    }
    base.flush()
}

impl Image for Drive {
    fn len(&self) -> u64 {
        self.image.as_ref().map_or(0, |image| image.len())
    }

    fn format_name(&self) -> &'static str {
        self.format()
    }

    fn is_read_only(&self) -> bool {
        self.image.as_ref().is_none_or(|image| image.is_read_only())
    }

    /// Past the host's cache each request waits for the disk or a server, and a durable one is flushed by itself.
    fn prefers_whole(&self) -> bool {
        let Cache { writethrough, direct, .. } = self.options.open.cache;
        writethrough || direct || nbd::is_url(&self.name)
    }

    fn locate(&mut self, offset: u64, len: u64, to_write: bool) -> Option<Located> {
        if self.prefers_whole() || to_write && self.options.detect_zeroes != DetectZeroes::Off {
            return None;
        }
        self.image.as_mut()?.locate(offset, len, to_write)
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.image()?.read_at(offset, buffer)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let detect = self.options.detect_zeroes;
        if detect != DetectZeroes::Off && is_zero(bytes) {
            return self.write_zeroes(offset, bytes.len() as u64, detect == DetectZeroes::Unmap);
        }
        self.image()?.write_at(offset, bytes)?;
        self.settle()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.image()?.flush()
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        if !self.options.discard {
            return Ok(());
        }
        self.image()?.discard(offset, len)?;
        self.settle()
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let unmap = unmap && self.options.discard;
        self.image()?.write_zeroes(offset, len, unmap)?;
        self.settle()
    }

    /// Nothing may be lost if it fails: the image below is written and durable before the one on top is emptied.
    fn commit(&mut self) -> io::Result<()> {
        self.image()?.flush()?;
        if self.image()?.backing().is_none() {
            return Err(io::Error::other("the image has no backing file"));
        }
        // The lock on the image below is the old one's; it is opened anew for writing.
        let old = self.image()?.take_backing();
        drop(old);
        let mut base = match self.base() {
            Ok(base) => base,
            Err(error) => {
                self.reopen_below()?;
                return Err(error);
            }
        };
        let result = match &mut self.image {
            Some(top) => copy_down(top.as_mut(), base.as_mut(), |_| ()),
            None => Ok(()),
        };
        drop(base);
        let emptied = result.and_then(|()| self.image()?.make_empty());
        self.reopen_below()?;
        emptied
    }
}

impl Drive {
    /// Puts the image below back in its place, read-only.
    fn reopen_below(&mut self) -> io::Result<()> {
        let mut how = self.options.open.clone();
        let name = if self.options.snapshot { self.name.clone() } else { self.below(&mut how)? };
        how.read_only = true;
        let base = open(&name, &how, &mut Vec::new()).map_err(|e| io::Error::other(format!("'{name}': {e}")))?;
        self.image()?.set_backing(Some(base))
    }
}
