//! Disk images on the host: raw files and block devices, opened, checked and locked.

mod file;

use crate::cli::value::show_size;
use emu_devices::storage::block::{Image, SECTOR};
use emu_devices::storage::image::Overlay;
use file::{Access, FileImage};
use std::path::{Path, PathBuf};

/// Sectors that 48-bit addresses reach.
const MOST_SECTORS: u64 = 1 << 48;

/// What writes to an image are worth before they return.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// The host's cache has them; flushes make them durable.
    #[default]
    Writeback,
    /// They are durable.
    Writethrough,
    /// The host's cache has them; flushes do nothing.
    Unsafe,
}

/// How an image is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// No writes.
    pub read_only: bool,
    /// Writes go to a temporary file that nobody sees.
    pub snapshot: bool,
    /// What writes are worth.
    pub cache: Cache,
    /// The format was given; otherwise a file that looks like another format than raw is refused.
    pub raw: bool,
}

/// Opens the image at `path`.
///
/// # Errors
/// One line that does not name the file: it is absent, refused by the host, no image, too large, or in use.
pub fn open(path: &Path, mode: Mode) -> Result<Box<dyn Image>, String> {
    let access = if mode.read_only || mode.snapshot { Access::Read } else { Access::ReadWrite };
    let mut image = FileImage::open(path, access, mode.cache)?;
    if image.is_empty() {
        return Err("the image is empty".into());
    }
    if image.len().div_ceil(SECTOR) > MOST_SECTORS {
        return Err(format!("the image is too large; the limit is {}", show_size(MOST_SECTORS * SECTOR)));
    }
    if let Some(format) = (!mode.raw).then(|| other_format(&mut image)).flatten() {
        return Err(format!("looks like a {format} image; only raw is implemented, and format=raw takes it as one"));
    }
    if !mode.snapshot {
        return Ok(Box::new(image));
    }
    let top = FileImage::temporary(&temporary_folder())?;
    Ok(Box::new(Overlay::new(Box::new(image), Box::new(top))))
}

/// Where QEMU has its snapshots too: images outgrow a /tmp in memory.
fn temporary_folder() -> PathBuf {
    std::env::var_os("TMPDIR").filter(|folder| !folder.is_empty()).map_or("/var/tmp".into(), PathBuf::from)
}

fn other_format(image: &mut FileImage) -> Option<&'static str> {
    let mut head = [0; 512];
    let n = image.len().min(512) as usize;
    image.read_at(0, &mut head[..n]).ok()?;
    let signatures: [(&[u8], usize, &str); 7] = [
        (b"QFI\xfb", 0, "qcow2"),
        (b"QED\0", 0, "qed"),
        (b"KDMV", 0, "vmdk"),
        (b"# Disk DescriptorFile", 0, "vmdk"),
        (b"vhdxfile", 0, "vhdx"),
        (b"conectix", 0, "vpc"),
        (b"\x7f\x10\xda\xbe", 64, "vdi"),
    ];
    signatures.into_iter().find(|(magic, at, _)| head[*at..].starts_with(magic)).map(|(_, _, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("emu-image-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
        fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, bytes).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn refusal(path: &Path, mode: Mode) -> String {
        open(path, mode).map(drop).unwrap_err()
    }

    const RAW: Mode = Mode { read_only: false, snapshot: false, cache: Cache::Writeback, raw: true };

    #[test]
    fn image_writes_reach_the_file_and_snapshots_do_not() {
        let folder = Folder::new("write");
        let path = folder.file("disk", &[1; 1024]);
        let mut image = open(&path, Mode { snapshot: true, ..RAW }).unwrap();
        image.write_at(0, &[9; 512]).unwrap();
        let mut read = [0; 1024];
        image.read_at(0, &mut read).unwrap();
        assert_eq!((read[511], read[512]), (9, 1));
        drop(image);
        assert_eq!(fs::read(&path).unwrap(), [1; 1024]);
        let mut image = open(&path, Mode { cache: Cache::Writethrough, ..RAW }).unwrap();
        image.write_at(512, &[9; 512]).unwrap();
        image.flush().unwrap();
        assert_eq!(fs::read(&path).unwrap()[511..513], [1, 9]);
    }

    #[test]
    fn image_in_use_is_refused_unless_all_read() {
        let folder = Folder::new("lock");
        let path = folder.file("disk", &[1; 512]);
        let writer = open(&path, RAW).unwrap();
        assert!(refusal(&path, Mode { read_only: true, ..RAW }).contains("in use"));
        drop(writer);
        let reader = open(&path, Mode { read_only: true, ..RAW }).unwrap();
        drop(open(&path, Mode { snapshot: true, ..RAW }).unwrap());
        assert!(refusal(&path, RAW).contains("in use"));
        drop(reader);
        open(&path, RAW).unwrap();
    }

    #[test]
    fn what_is_no_image_is_refused_in_one_line() {
        let folder = Folder::new("refused");
        assert_eq!(refusal(&folder.0, RAW), "is a directory, not an image");
        assert!(refusal(&folder.0.join("absent"), RAW).contains("No such file"));
        assert_eq!(refusal(&folder.file("empty", b""), RAW), "the image is empty");
        assert!(refusal(Path::new("/dev/zero"), RAW).contains("neither a file nor a block device"));
        let qcow2 = folder.file("qcow2", b"QFI\xfb\0\0\0\x03");
        assert!(refusal(&qcow2, Mode { raw: false, ..RAW }).contains("qcow2"));
        open(&qcow2, RAW).unwrap();
    }

    #[test]
    fn read_only_image_refuses_writes_and_a_shrunken_one_reads() {
        let folder = Folder::new("shrink");
        let path = folder.file("disk", &[1; 1024]);
        let mut image = open(&path, Mode { read_only: true, ..RAW }).unwrap();
        assert!(image.is_read_only() && image.write_at(0, &[0; 512]).is_err());
        File::options().write(true).open(&path).unwrap().set_len(512).unwrap();
        assert!(image.read_at(512, &mut [0; 512]).is_err());
    }
}
