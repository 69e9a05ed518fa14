//! A writer for the initramfs archives that the Linux kernel unpacks: cpio in the "new ASCII" (newc) format.
//!
//! Follows the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. The archive is written plain, because the
//! kernel takes it so and decompression is time that a booting guest would have to spend. Absent: hard links, checksums
//! (the `070702` variant), owners other than root, modification times (all zero, so that equal input gives equal bytes).
//!
//! ```text
//! member:  header (110 bytes) | name, NUL | pad to 4 | data | pad to 4
//! header:  "070701" ino mode uid gid nlink mtime filesize maj min rmaj rmin namesize chksum    (13 fields of 8 hex digits)
//! archive: members, then an empty member named "TRAILER!!!"
//! ```

use std::io;

/// The shell script that [`busybox`] archives start as process 1.
pub const BUSYBOX_INIT: &str = include_str!("../boot/init.sh");

const TYPE_CHARACTER_DEVICE: u32 = 0o020_000;
const TYPE_DIRECTORY: u32 = 0o040_000;
const TYPE_REGULAR: u32 = 0o100_000;
const TYPE_SYMLINK: u32 = 0o120_000;

/// An archive under construction. Paths are relative to the guest's root, without a leading slash; a directory has to be added
/// before what it contains, because the kernel creates the members in order and skips one whose directory is missing.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    members: u32,
}

impl Archive {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        self.member(path, TYPE_DIRECTORY | 0o755, (0, 0), &[])
    }

    /// Adds a regular file; `permissions` are the low nine mode bits, such as `0o755`.
    pub fn file(&mut self, path: &str, permissions: u32, data: &[u8]) -> io::Result<()> {
        self.member(path, TYPE_REGULAR | (permissions & 0o777), (0, 0), data)
    }

    pub fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.member(path, TYPE_SYMLINK | 0o777, (0, 0), target.as_bytes())
    }

    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        self.member(path, TYPE_CHARACTER_DEVICE | 0o600, (major, minor), &[])
    }

    /// Ends the archive and returns its bytes.
    pub fn finish(mut self) -> io::Result<Vec<u8>> {
        self.member("TRAILER!!!", 0, (0, 0), &[])?;
        Ok(self.bytes)
    }

    fn member(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), data: &[u8]) -> io::Result<()> {
        let unfit =
            |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("initramfs member '{name}': {what}"));
        if name.is_empty() || name.starts_with('/') || name.contains('\0') {
            return Err(unfit("the path must be relative, not empty and without NUL"));
        }
        let file_size = u32::try_from(data.len()).map_err(|_| unfit("larger than 4 GiB"))?;
        let name_size = u32::try_from(name.len() + 1).map_err(|_| unfit("the path is too long"))?;
        let links = if mode & 0o170_000 == TYPE_DIRECTORY { 2 } else { 1 };
        self.members += 1;
        let fields = [self.members, mode, 0, 0, links, 0, file_size, 0, 0, major, minor, name_size, 0];

        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The busybox guest of the boot tests and demonstrations: a static `busybox`, an `init` script and the directories they need.
pub fn busybox(busybox: &[u8], init: &str) -> io::Result<Vec<u8>> {
    let mut archive = root_directories()?;
    archive.file("bin/busybox", 0o755, busybox)?;
    archive.symlink("bin/sh", "busybox")?;
    archive.file("init", 0o755, init.as_bytes())?;
    archive.finish()
}

/// A guest whose process 1 is one static program, as the in-guest benchmark is.
pub fn single_program(program: &[u8]) -> io::Result<Vec<u8>> {
    let mut archive = root_directories()?;
    archive.file("init", 0o755, program)?;
    archive.finish()
}

fn root_directories() -> io::Result<Archive> {
    let mut archive = Archive::new();
    for path in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        archive.directory(path)?;
    }
    // The kernel opens /dev/console for process 1 before anything can mount devtmpfs.
    archive.character_device("dev/console", 5, 1)?;
    archive.character_device("dev/null", 1, 3)?;
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_with_a_file_has_the_documented_bytes() {
        let mut archive = Archive::new();
        archive.file("ab", 0o644, b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        let expected_header = concat!(
            "070701", "00000001", "000081A4", "00000000", "00000000", "00000001", "00000000", "00000005", "00000000",
            "00000000", "00000000", "00000000", "00000003", "00000000", "ab\0",
        );
        // 110 bytes of header and 3 of name, padded to 116; 5 bytes of data, padded to 8.
        assert_eq!(&bytes[..113], expected_header.as_bytes());
        assert_eq!(&bytes[113..116], [0; 3]);
        assert_eq!(&bytes[116..124], b"hello\0\0\0");
        assert_eq!(&bytes[124..130], b"070701");
        assert!(bytes.windows(11).any(|window| window == b"TRAILER!!!\0"));
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn member_with_an_absolute_or_empty_path_is_refused() {
        for path in ["", "/init", "a\0b"] {
            assert!(Archive::new().file(path, 0o755, b"").is_err(), "{path:?}");
        }
    }

    #[test]
    fn busybox_archive_from_equal_input_is_equal() {
        assert_eq!(busybox(b"program", "script").unwrap(), busybox(b"program", "script").unwrap());
    }
}
