//! Captures of what goes over a cable: `-object filter-dump`, in the format of pcap files (draft-ietf-opsawg-pcap, link type Ethernet).

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// "Magic Number" of a file in this host's byte order with times in microseconds.
const MAGIC: u32 = 0xa1b2_c3d4;
const MAJOR_VERSION: u16 = 2;
const MINOR_VERSION: u16 = 4;
/// LINKTYPE_ETHERNET.
const ETHERNET: u32 = 1;

/// A capture.
pub struct Dump {
    file: BufWriter<File>,
    longest: usize,
    /// A full disk ends a capture, not the network.
    failed: bool,
}

impl Dump {
    /// Begins a capture that keeps `longest` bytes of each frame.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: &Path, longest: u32) -> io::Result<Dump> {
        let mut file = BufWriter::with_capacity(1 << 16, File::create(path)?);
        file.write_all(&MAGIC.to_ne_bytes())?;
        file.write_all(&MAJOR_VERSION.to_ne_bytes())?;
        file.write_all(&MINOR_VERSION.to_ne_bytes())?;
        file.write_all(&[0; 8])?;
        file.write_all(&longest.to_ne_bytes())?;
        file.write_all(&ETHERNET.to_ne_bytes())?;
        file.flush()?;
        Ok(Dump { file, longest: longest as usize, failed: false })
    }

    /// Adds a frame as of now.
    pub fn frame(&mut self, frame: &[u8]) {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let kept = &frame[..frame.len().min(self.longest)];
        let mut header = [0; 16];
        for (field, value) in header.chunks_exact_mut(4).zip([
            time.as_secs() as u32,
            time.subsec_micros(),
            kept.len() as u32,
            frame.len() as u32,
        ]) {
            field.copy_from_slice(&value.to_ne_bytes());
        }
        let written = |file: &mut BufWriter<File>| file.write_all(&header).and_then(|()| file.write_all(kept));
        self.attempt(written);
    }

    /// Lets others read what has been captured so far.
    pub fn flush(&mut self) {
        self.attempt(|file| file.flush());
    }

    fn attempt(&mut self, f: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) {
        if self.failed {
            return;
        }
        if let Err(e) = f(&mut self.file) {
            self.failed = true;
            tracing::warn!("filter-dump: the capture ends here: {e}");
        }
    }
}
