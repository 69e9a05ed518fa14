//! What every format offers beside a guest's reads and writes.

use crate::image::Format;
use crate::image::check::CheckResult;
use crate::image::qcow2::Qcow2;
use crate::image::qcow2::check::Fix;
use crate::image::storage::Storage;
use emu_devices::storage::block::Image;
use std::io;

/// What a run of an image's bytes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentKind {
    /// Not in this image: what the backing image has there, or zeros without one.
    Absent,
    /// Zeros, whatever the backing image has there. The second case has room in the file.
    Zero {
        /// Where the room is.
        at: Option<u64>,
    },
    /// Data.
    Data {
        /// Where in the file; `None`: compressed, or not in one piece.
        at: Option<u64>,
        /// It is compressed.
        compressed: bool,
        /// The host's file has a hole there: it is zeros.
        hole: bool,
    },
}

impl ExtentKind {
    /// Whether it is known to be zeros, as an extent of a whole chain.
    pub fn is_zeros(self) -> bool {
        matches!(self, ExtentKind::Absent | ExtentKind::Zero { .. } | ExtentKind::Data { hole: true, .. })
    }
}

/// A run of bytes that are all of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes.
    pub len: u64,
    /// What they are.
    pub kind: ExtentKind,
}

/// An image in some format. The offsets of all methods are the guest's.
pub trait Layer: Image {
    /// Its format.
    fn format(&self) -> Format;

    /// What is at `offset`, and for how many bytes, at most `max` (which is not 0), that holds.
    ///
    /// # Errors
    /// The image's tables cannot be read.
    fn extent(&mut self, offset: u64, max: u64) -> io::Result<Extent>;

    /// Makes the image `len` bytes long; new ones are zeros.
    ///
    /// # Errors
    /// The format has a fixed length, or the host refuses.
    fn resize(&mut self, len: u64) -> io::Result<()>;

    /// What lies below.
    fn backing(&mut self) -> Option<&mut (dyn Layer + 'static)> {
        None
    }

    /// Puts `below` under it.
    ///
    /// # Errors
    /// The format has no backing images.
    fn set_backing(&mut self, below: Option<Box<dyn Layer>>) -> io::Result<()> {
        match below {
            None => Ok(()),
            Some(_) => Err(io::Error::new(io::ErrorKind::Unsupported, "this format has no backing files")),
        }
    }

    /// Takes away what is below it.
    fn take_backing(&mut self) -> Option<Box<dyn Layer>> {
        None
    }

    /// The backing image that it names, and the format that it gives it.
    fn names_backing(&self) -> Option<(String, Option<Format>)> {
        None
    }

    /// Forgets all that it holds, so that the backing image shows.
    ///
    /// # Errors
    /// The format has no backing images, or the host refuses.
    fn make_empty(&mut self) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this format has no backing files"))
    }

    /// The image as what it is, for what only such images have.
    fn as_qcow2(&mut self) -> Option<&mut Qcow2> {
        None
    }

    /// Checks the image's structures, and repairs them; `None`: the format has no check.
    fn check(&mut self, _fix: Fix) -> Option<io::Result<CheckResult>> {
        None
    }

    /// Changes the names of the backing image that the image bears.
    ///
    /// # Errors
    /// The format has no backing images, or the host refuses.
    fn rename_backing(&mut self, _name: Option<&str>, _format: Option<&str>) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this format has no backing files"))
    }

    /// Whether its data is encrypted.
    fn is_encrypted(&self) -> bool {
        false
    }

    /// Writes one cluster, compressed if that makes it smaller. `bytes` is a cluster long, or reaches to the end.
    ///
    /// # Errors
    /// The format has no compression, or the host refuses.
    fn write_compressed(&mut self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this format has no compressed clusters that can be written"))
    }

    /// The unit in which room is given to data, in bytes; 0 if there is none.
    fn cluster_size(&self) -> u64 {
        0
    }

    /// Bytes that the file takes on the host.
    fn allocated(&self) -> u64;
}

/// Data that is at `at` of `file`, `max` bytes of it at most.
///
/// # Errors
/// The host cannot tell.
pub fn data_in(file: &mut dyn Storage, at: u64, max: u64) -> io::Result<Extent> {
    let (data, len) = file.extent(at, max)?;
    Ok(Extent { len, kind: ExtentKind::Data { at: Some(at), compressed: false, hole: !data } })
}

/// What keeps `image` and what is below it apart from zeros: an extent of the whole chain, and how deep it lies.
///
/// # Errors
/// As [`Layer::extent`].
pub fn extent_in_chain(image: &mut dyn Layer, offset: u64, max: u64) -> io::Result<(Extent, usize)> {
    let mut extent = image.extent(offset, max)?;
    if extent.kind != ExtentKind::Absent {
        return Ok((extent, 0));
    }
    let Some(backing) = image.backing() else { return Ok((extent, 0)) };
    let len = backing.len();
    if offset >= len {
        // Beyond the backing image's end are zeros.
        return Ok((Extent { kind: ExtentKind::Absent, ..extent }, 0));
    }
    extent.len = extent.len.min(len - offset);
    let (below, depth) = extent_in_chain(backing, offset, extent.len)?;
    Ok((below, depth + 1))
}

/// Reads from `image`, with zeros beyond its end.
///
/// # Errors
/// As [`Image::read_at`].
pub fn read_padded(image: &mut dyn Image, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let there = image.len().saturating_sub(offset).min(buffer.len() as u64) as usize;
    buffer[there..].fill(0);
    if there > 0 { image.read_at(offset, &mut buffer[..there]) } else { Ok(()) }
}

/// Whether all of `bytes` are zeros.
pub fn is_zero(bytes: &[u8]) -> bool {
    let mut chunks = bytes.chunks_exact(32);
    chunks.by_ref().all(|chunk| chunk == [0; 32]) && chunks.remainder().iter().all(|byte| *byte == 0)
}
