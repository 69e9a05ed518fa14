//! Disk images: the formats that users have, over the files and exports that hold them.
//!
//! ```text
//!  guest -> Disk -> Image: a format ([`layer::Layer`]) -> [`storage::Storage`]: a host file, another host's export
//!                           \-> its backing image, a Layer too
//! ```
//! Formats know nothing of hosts: they read and write through [`storage::Storage`], whose flush is the only order
//! between writes. Everything that an image says about itself is checked before it is used: a hostile image may be
//! refused or fail, but not have memory, time or other files.

pub mod blocks;
pub mod check;
pub mod cipher;
pub mod drive;
pub mod file;
#[cfg(test)]
mod formats_tests;
pub mod layer;
pub mod luks;
pub mod medium;
pub mod nbd;
pub mod open;
pub mod qcow2;
pub mod raw;
pub mod storage;
#[cfg(test)]
mod testing;
pub mod vdi;
pub mod vhdx;
pub mod vmdk;
pub mod vpc;

use std::io;

/// Image formats, by their names for `format=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The file is the disk.
    Raw,
    /// QEMU's.
    Qcow2,
    /// VMware's.
    Vmdk,
    /// VirtualBox's.
    Vdi,
    /// Virtual PC's: VHD.
    Vpc,
    /// Hyper-V's.
    Vhdx,
    /// An encrypted disk.
    Luks,
}

impl Format {
    /// The name for `format=`.
    pub fn name(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
            Format::Vmdk => "vmdk",
            Format::Vdi => "vdi",
            Format::Vpc => "vpc",
            Format::Vhdx => "vhdx",
            Format::Luks => "luks",
        }
    }

    /// All of them.
    pub const ALL: [Format; 7] =
        [Format::Raw, Format::Qcow2, Format::Vmdk, Format::Vdi, Format::Vpc, Format::Vhdx, Format::Luks];

    /// The format that `format=` names.
    pub fn named(name: &str) -> Option<Format> {
        Format::ALL.into_iter().find(|format| format.name() == name)
    }
}

/// What an image that begins with `head` looks like. A raw image may look like anything.
pub fn probe(head: &[u8]) -> Format {
    if head.starts_with(b"QFI\xfb") {
        return Format::Qcow2;
    }
    if head.starts_with(b"KDMV") || head.starts_with(b"# Disk DescriptorFile") {
        return Format::Vmdk;
    }
    if head.get(64..68) == Some(b"\x7f\x10\xda\xbe") {
        return Format::Vdi;
    }
    if head.starts_with(b"vhdxfile") {
        return Format::Vhdx;
    }
    if head.starts_with(luks::MAGIC) {
        return Format::Luks;
    }
    // A fixed one is recognised by nothing but its end, which raw images may have too.
    if head.starts_with(b"conectix") {
        return Format::Vpc;
    }
    Format::Raw
}

/// Something in an image that cannot be.
pub(crate) fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}
