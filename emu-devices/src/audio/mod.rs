//! Sound: what devices play, how it is mixed, and where it goes.
//!
//! ```text
//!  speaker --Voice--\   steps of level, each at its virtual time
//!                    Mixer --frames of 48 kHz, 16 bits, stereo--> AudioBackend (a file, the host's sound card)
//!  SB16    --Voice--/
//! ```
//! A machine without a back end has no mixer: its voices are unconnected, and playing costs nothing.

pub mod mixer;
pub mod sb16;

pub use mixer::{Mixer, Voice};

use std::sync::{Arc, Mutex, PoisonError};

/// Frames in a second of a mixer's output.
pub const RATE: u32 = 48_000;

/// One moment of stereo sound: left and right, full scale at the ends of the range.
pub type Frame = [i16; 2];

/// Where a mixer's output goes.
pub trait AudioBackend: Send {
    /// Takes the next frames, [`RATE`] of them a second of virtual time. Must not block for long.
    fn write(&mut self, frames: &[Frame]);
    /// For so many frames there was silence. A recording keeps it; a sound card needs none.
    fn silence(&mut self, frames: u64);
}

/// A back end that keeps what it gets, for tests. Clones are the same back end.
#[derive(Clone, Default)]
pub struct MemoryBackend(Arc<Mutex<Vec<Frame>>>);

impl MemoryBackend {
    /// The most silence that is kept at a time: a second.
    const SILENCE: u64 = RATE as u64;

    /// Takes the frames that have come since the last call.
    pub fn take(&self) -> Vec<Frame> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AudioBackend for MemoryBackend {
    fn write(&mut self, frames: &[Frame]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(frames);
    }

    fn silence(&mut self, frames: u64) {
        let frames = frames.min(Self::SILENCE) as usize;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(std::iter::repeat_n([0, 0], frames));
    }
}
