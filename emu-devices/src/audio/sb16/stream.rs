//! One of the DSP's two DMA streams: samples at a rate, in blocks that end with an interrupt.
//!
//! ```text
//!  start ---- block ----| IRQ ---- block ----| IRQ ...      auto-initialise
//!  start ---- block ----| IRQ                               single cycle
//! ```

use serde::{Deserialize, Serialize};

/// What the bytes of a stream are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// 8-bit samples.
    Pcm8 {
        /// Around 0 instead of around 80h.
        signed: bool,
    },
    /// 16-bit samples.
    Pcm16 {
        /// Around 0 instead of around 8000h.
        signed: bool,
    },
    /// Creative ADPCM with two samples in a byte.
    Adpcm4,
    /// Three samples in a byte.
    Adpcm26,
    /// Four samples in a byte.
    Adpcm2,
    /// Command 80h: time passes, nothing is fetched.
    Silence,
}

impl Format {
    /// Samples that a byte of DMA makes; of PCM with 16 bits, a word.
    pub fn samples(self) -> u32 {
        match self {
            Format::Pcm8 { .. } | Format::Pcm16 { .. } | Format::Silence => 1,
            Format::Adpcm4 => 2,
            Format::Adpcm26 => 3,
            Format::Adpcm2 => 4,
        }
    }
}

/// A stream's registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// It plays or records.
    pub active: bool,
    /// Halted by command.
    pub paused: bool,
    /// From the device to memory.
    pub input: bool,
    /// What the bytes are.
    pub format: Format,
    /// Left and right alternate.
    pub stereo: bool,
    /// A new block follows each.
    pub auto_init: bool,
    /// DMA units (bytes, or words of 16-bit PCM) in a block.
    pub block: u32,
    /// Units left of this block.
    pub left: u32,
    /// Frames in a second.
    pub rate: u32,
    /// Virtual time at which frame 0 was due, in nanoseconds.
    pub started: u64,
    /// Frames since then.
    pub frames: u64,
    /// The next byte is ADPCM's reference.
    pub reference: bool,
    /// ADPCM: the last sample and the step size's index.
    pub predictor: (u8, u8),
}

impl Default for Stream {
    fn default() -> Stream {
        Stream {
            active: false,
            paused: false,
            input: false,
            format: Format::Silence,
            stereo: false,
            auto_init: false,
            block: 1,
            left: 0,
            rate: 11_025,
            started: 0,
            frames: 0,
            reference: false,
            predictor: (0x80, 0),
        }
    }
}

impl Stream {
    /// DMA units that make a frame. ADPCM is mono: its frames are a byte's samples.
    pub fn units_of_frame(&self) -> u32 {
        if self.stereo { 2 } else { 1 }
    }

    /// Units in a second, frames of several samples counted as one.
    fn steps_per_second(&self) -> (u64, u64) {
        (u64::from(self.rate.max(1)), u64::from(self.format.samples()))
    }

    /// Frames (ADPCM: bytes) that are due by `now` beyond those that have passed.
    pub fn due(&self, now: u64) -> u64 {
        let (rate, samples) = self.steps_per_second();
        let passed = u128::from(now.saturating_sub(self.started)) * u128::from(rate);
        ((passed / (1_000_000_000 * u128::from(samples))) as u64).saturating_sub(self.frames)
    }

    /// When frame `n` after those that have passed is due; `sample` of those within an ADPCM byte.
    pub fn time(&self, n: u64, sample: u64) -> u64 {
        let (rate, samples) = self.steps_per_second();
        let index = u128::from(self.frames.saturating_add(n)) * u128::from(samples) + u128::from(sample);
        let nanos = (index * 1_000_000_000).div_ceil(u128::from(rate));
        u64::try_from(nanos).unwrap_or(u64::MAX).saturating_add(self.started)
    }

    /// When this block ends.
    pub fn block_end(&self) -> u64 {
        self.time(u64::from(self.left.div_ceil(self.units_of_frame())), 0)
    }

    /// Starts counting time anew at `now`.
    pub fn restart(&mut self, now: u64) {
        self.started = now;
        self.frames = 0;
    }

    /// The samples of an ADPCM byte, around 80h.
    ///
    /// A code is a sign and a magnitude m; the step is (2m + 1) / 2 units. Large magnitudes double the unit, zero halves
    /// it.
    pub fn expand(&mut self, byte: u8) -> Vec<u8> {
        if std::mem::take(&mut self.reference) {
            self.predictor = (byte, 0);
            return Vec::new();
        }
        let (codes, bits, units, grow): (Vec<u8>, u32, &[u16], u8) = match self.format {
            Format::Adpcm4 => (vec![byte >> 4, byte & 15], 4, &[1, 2, 4, 8], 5),
            Format::Adpcm26 => (vec![byte >> 5, byte >> 2 & 7, (byte & 3) << 1], 3, &[1, 2, 4, 8, 10], 3),
            _ => (vec![byte >> 6, byte >> 4 & 3, byte >> 2 & 3, byte & 3], 2, &[1, 2, 4, 8, 16, 32], 1),
        };
        codes
            .into_iter()
            .map(|code| {
                let (sample, step) = &mut self.predictor;
                let magnitude = code & ((1 << (bits - 1)) - 1);
                let unit = units.get(usize::from(*step)).copied().unwrap_or(1);
                let change = i32::from((2 * u16::from(magnitude) + 1) * unit / 2);
                let sign = if code >> (bits - 1) != 0 { -1 } else { 1 };
                *sample = (i32::from(*sample) + sign * change).clamp(0, 255) as u8;
                if magnitude >= grow {
                    *step = (*step + 1).min(units.len() as u8 - 1);
                } else if magnitude == 0 {
                    *step = step.saturating_sub(1);
                }
                *sample
            })
            .collect()
    }

    /// Brings a deserialised stream within its bounds.
    pub fn sanitise(&mut self) {
        self.block = self.block.clamp(1, 0x1_0000);
        // A block without an end would be over for ever and never be passed.
        self.left = self.left.clamp(1, self.block);
        self.rate = self.rate.clamp(1, 50_000);
        self.predictor.1 = self.predictor.1.min(5);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_stream_has_something_left_of_its_block() {
        let mut stream = Stream { active: true, left: 0, block: 0, ..Stream::default() };
        stream.sanitise();
        assert_eq!((stream.left, stream.block), (1, 1));
        assert_eq!(stream.due(stream.block_end()), 1);
    }

    #[test]
    fn adpcm_of_four_bits_adapts_its_step() {
        let mut stream = Stream { format: Format::Adpcm4, reference: true, ..Stream::default() };
        assert!(stream.expand(0x80).is_empty());
        // +7 (step grows), +15/2 = 7 with the doubled unit of 2: (2*7+1)*2/2 = 15.
        assert_eq!(stream.expand(0x77), [0x87, 0x96]);
        // Zero shrinks the step again; -1 of unit 2 is 3.
        assert_eq!(stream.expand(0x09), [0x98, 0x95]);
    }

    #[test]
    fn adpcm_never_leaves_its_range() {
        for format in [Format::Adpcm4, Format::Adpcm26, Format::Adpcm2] {
            let mut stream = Stream { format, ..Stream::default() };
            for byte in 0..=255 {
                assert_eq!(stream.expand(byte).len() as u32, format.samples());
            }
        }
    }
}
