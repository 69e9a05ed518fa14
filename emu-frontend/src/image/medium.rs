//! Disk images as drives take them: opened, and refused where no drive could use them.

use crate::cli::value::show_size;
use crate::image::drive::{Drive, DriveOptions};
use emu_devices::storage::block::{Image, SECTOR};
use std::sync::{Mutex, PoisonError};

/// Sectors that 48-bit addresses reach.
const MOST_SECTORS: u64 = 1 << 48;

/// What is to be said about images that have been opened, once the machine is there: what is refused is one line.
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Opens the image called `name` for a drive of the machine that is being built; see [`open`], and [`take_warnings`].
///
/// # Errors
/// As [`open`].
pub fn open_at_start(name: &str, options: &DriveOptions) -> Result<Box<dyn Image>, String> {
    open(name, options, &mut WARNINGS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Warnings about the images that [`open_at_start`] has opened.
pub fn take_warnings() -> Vec<String> {
    std::mem::take(&mut WARNINGS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Opens the image called `name`: a file, or a URL.
///
/// # Errors
/// One line that does not name it: it is absent, refused by the host, no image, too large, or in use.
pub fn open(name: &str, options: &DriveOptions, warnings: &mut Vec<String>) -> Result<Box<dyn Image>, String> {
    let image = Drive::open(name, options, warnings)?;
    if image.is_empty() {
        return Err("the image is empty".into());
    }
    if image.len().div_ceil(SECTOR) > MOST_SECTORS {
        return Err(format!("the image is too large; the limit is {}", show_size(MOST_SECTORS * SECTOR)));
    }
    Ok(Box::new(image))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Format;
    use crate::image::open::{Cache, OpenOptions};
    use std::fs::{self, File};
    use std::path::PathBuf;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("emu-image-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
        fn file(&self, name: &str, bytes: &[u8]) -> String {
            let path = self.0.join(name);
            fs::write(&path, bytes).unwrap();
            path.display().to_string()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn open_it(name: &str, options: &DriveOptions) -> Result<Box<dyn Image>, String> {
        open(name, options, &mut Vec::new())
    }

    fn refusal(name: &str, options: &DriveOptions) -> String {
        open_it(name, options).map(drop).unwrap_err()
    }

    fn raw() -> DriveOptions {
        let open = OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() };
        DriveOptions { open, ..DriveOptions::default() }
    }

    fn read_only() -> DriveOptions {
        let mut options = raw();
        options.open.read_only = true;
        options
    }

    fn snapshot() -> DriveOptions {
        DriveOptions { snapshot: true, ..raw() }
    }

    #[test]
    fn image_writes_reach_the_file_and_snapshots_do_not() {
        let folder = Folder::new("write");
        let path = folder.file("disk", &[1; 1024]);
        let mut image = open_it(&path, &snapshot()).unwrap();
        image.write_at(0, &[9; 512]).unwrap();
        let mut read = [0; 1024];
        image.read_at(0, &mut read).unwrap();
        assert_eq!((read[511], read[512]), (9, 1));
        assert_eq!(fs::read(&path).unwrap(), [1; 1024]);
        image.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap()[511..513], [9, 1]);
        image.write_at(512, &[8; 512]).unwrap();
        image.read_at(0, &mut read).unwrap();
        assert_eq!((read[511], read[512]), (9, 8));
        drop(image);
        let mut options = raw();
        options.open.cache = Cache::named("directsync").unwrap();
        if let Ok(mut image) = open_it(&path, &options) {
            image.write_at(100, &[7; 5]).unwrap();
            image.read_at(0, &mut read).unwrap();
            assert_eq!(read[99..106], [9, 7, 7, 7, 7, 7, 9]);
            assert_eq!(fs::read(&path).unwrap(), read);
        }
        options.open.cache = Cache::named("writethrough").unwrap();
        let mut image = open_it(&path, &options).unwrap();
        image.write_at(512, &[9; 512]).unwrap();
        assert_eq!(fs::read(&path).unwrap()[511..513], [9, 9]);
    }

    #[test]
    fn image_in_use_is_refused_unless_all_read() {
        let folder = Folder::new("lock");
        let path = folder.file("disk", &[1; 512]);
        let writer = open_it(&path, &raw()).unwrap();
        assert!(refusal(&path, &read_only()).contains("in use"));
        drop(writer);
        let reader = open_it(&path, &read_only()).unwrap();
        drop(open_it(&path, &snapshot()).unwrap());
        assert!(refusal(&path, &raw()).contains("in use"));
        drop(reader);
        open_it(&path, &raw()).unwrap();
    }

    #[test]
    fn what_is_no_image_is_refused_in_one_line() {
        let folder = Folder::new("refused");
        assert_eq!(refusal(&folder.0.display().to_string(), &raw()), "is a directory, not an image");
        assert!(refusal(&folder.0.join("absent").display().to_string(), &raw()).contains("No such file"));
        assert_eq!(refusal(&folder.file("empty", b""), &raw()), "the image is empty");
        assert!(refusal("/dev/zero", &raw()).contains("neither a file nor a block device"));
        let qcow2 = folder.file("qcow2", b"QFI\xfb\0\0\0\x03");
        assert!(refusal(&qcow2, &DriveOptions::default()).contains("qcow2"));
        open_it(&qcow2, &raw()).unwrap();
    }

    #[test]
    fn format_that_was_guessed_stays_what_it_is() {
        let folder = Folder::new("guessed");
        let path = folder.file("disk", &[1; 1024]);
        let mut warnings = Vec::new();
        let mut image = open(&path, &DriveOptions::default(), &mut warnings).unwrap();
        assert!(warnings[0].contains("was not specified and looks like raw"), "{warnings:?}");
        let mut head = [0; 512];
        head[..4].copy_from_slice(b"QFI\xfb");
        assert_eq!(image.write_at(0, &head).unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
        image.write_at(0, &[2; 512]).unwrap();
        image.write_at(512, &head).unwrap();
    }

    #[test]
    fn read_only_image_refuses_writes_and_a_shrunken_one_reads() {
        let folder = Folder::new("shrink");
        let path = folder.file("disk", &[1; 1024]);
        let mut image = open_it(&path, &read_only()).unwrap();
        assert!(image.is_read_only() && image.write_at(0, &[0; 512]).is_err());
        File::options().write(true).open(&path).unwrap().set_len(512).unwrap();
        assert!(image.read_at(512, &mut [0; 512]).is_err());
    }
}
