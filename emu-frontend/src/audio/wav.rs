//! Sound as a WAV file: 48 kHz, 16 bits, stereo, from power-on on.

use crate::report;
use emu_devices::audio::{AudioBackend, Frame, RATE};
use hound::{SampleFormat, WavSpec, WavWriter};
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

/// Frames of a WAV file, whose sizes have 32 bits, with room for its header.
const MOST_FRAMES: u64 = (u32::MAX as u64 - 256) / 4;

/// A recording. Its header is right after every portion, so that it survives any end of the process.
pub struct WavFile {
    /// `None` after an error or when the file is full.
    writer: Option<WavWriter<BufWriter<File>>>,
    path: PathBuf,
    frames: u64,
}

impl WavFile {
    /// An empty recording in place of what is at `path`.
    ///
    /// # Errors
    /// The host refuses.
    pub fn create(path: &Path) -> Result<WavFile, hound::Error> {
        let spec = WavSpec { channels: 2, sample_rate: RATE, bits_per_sample: 16, sample_format: SampleFormat::Int };
        Ok(WavFile { writer: Some(WavWriter::create(path, spec)?), path: path.into(), frames: 0 })
    }

    /// Appends frames, or complains once and writes no more.
    fn append(&mut self, frames: impl Iterator<Item = Frame>) {
        let Some(writer) = &mut self.writer else { return };
        let mut result = Ok(());
        for [left, right] in frames {
            if self.frames >= MOST_FRAMES {
                report::complain(&format!("{}: a WAV file holds no more; the recording ends", self.path.display()));
                self.writer = None;
                return;
            }
            self.frames += 1;
            result = result.and_then(|()| writer.write_sample(left)).and_then(|()| writer.write_sample(right));
        }
        if let Err(error) = result.and_then(|()| writer.flush()) {
            report::complain(&format!("{}: {error}; the recording ends", self.path.display()));
            self.writer = None;
        }
    }
}

impl AudioBackend for WavFile {
    fn write(&mut self, frames: &[Frame]) {
        self.append(frames.iter().copied());
    }

    fn silence(&mut self, frames: u64) {
        self.append((0..frames).map(|_| [0, 0]));
    }
}
