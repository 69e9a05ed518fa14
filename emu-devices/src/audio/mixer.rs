//! The mixer: voices that are piecewise constant in virtual time become frames.
//!
//! ```text
//!  voice   ____|~~~~~|______|~~      steps at any instant
//!  frames  |    |    |    |    |     each is the mean of the level over its 1/48000 s
//! ```
//! The mean makes the timing of edges exact to a fraction of a frame, and turns a sound card's samples of any rate into
//! frames. What is left is a band-unlimited signal: harmonics above 24 kHz fold back, faintly. A high-pass filter of the
//! first order below 20 Hz stands for the capacitor in front of every amplifier, so that a constant level is silence.
//!
//! The mixer lags behind virtual time by [`LAG`], within which devices may announce steps. It sleeps while nothing changes.

use super::{AudioBackend, Frame, RATE};
use crate::shared::Shared;
use emu_core::bus::Notifier;
use emu_core::clock::Instant;
use emu_core::device::{Access, Device, DeviceContext, ResetKind};
use std::collections::VecDeque;

/// Steps older than this are in the output already, and count from its end on.
pub const LAG: u64 = 5_000_000;
/// Nanoseconds between two portions of output.
const PORTION: u64 = 10_000_000;
/// Steps that a voice keeps for the mixer; beyond, the oldest are forgotten.
const STEPS: usize = 1 << 16;
/// Frames that are made up at most when the machine was not run in time: two seconds.
const BACKLOG: u64 = 2 * RATE as u64;
/// How much of its output the high-pass filter keeps for a frame.
const KEEP: f32 = 0.998;

/// The level of one source of sound. Clones are the same source.
#[derive(Clone)]
pub struct Voice(Option<(Shared<Core>, usize)>);

struct Line {
    steps: VecDeque<(Instant, Frame)>,
    /// The level that was announced last.
    last: Frame,
    /// The level at the mixer's position.
    level: Frame,
}

struct Core {
    lines: Vec<Line>,
    awake: bool,
    notifier: Notifier,
}

impl Voice {
    /// A voice that nobody hears.
    pub fn unconnected() -> Voice {
        Voice(None)
    }

    /// Whether somebody hears it, so that announcing steps is worth while.
    pub fn is_connected(&self) -> bool {
        self.0.is_some()
    }

    /// From `at` on the level is `level`. Announce in order of time, not in the future.
    pub fn set(&self, at: Instant, level: Frame) {
        let Some((core, index)) = &self.0 else { return };
        let mut core = core.lock();
        let line = &mut core.lines[*index];
        if line.last == level {
            return;
        }
        line.last = level;
        line.steps.push_back((at, level));
        if line.steps.len() > STEPS
            && let Some((_, level)) = line.steps.pop_front()
        {
            line.level = level;
        }
        if !core.awake {
            core.awake = true;
            core.notifier.notify();
        }
    }
}

/// A mixer in front of a back end.
pub struct Mixer {
    core: Shared<Core>,
    backend: Box<dyn AudioBackend>,
    /// Frames since power-on that are in the output.
    position: u64,
    /// When the next portion is due; `None` while asleep.
    next: Option<Instant>,
    /// Input and output of the high-pass filters.
    filters: [(f32, f32); 2],
}

impl Mixer {
    /// A mixer without voices.
    pub fn new(backend: Box<dyn AudioBackend>) -> Mixer {
        let core = Core { lines: Vec::new(), awake: false, notifier: Notifier::unconnected() };
        Mixer { core: Shared::new(core), backend, position: 0, next: None, filters: [(0.0, 0.0); 2] }
    }

    /// A new voice.
    pub fn voice(&self) -> Voice {
        let mut core = self.core.lock();
        core.lines.push(Line { steps: VecDeque::new(), last: [0; 2], level: [0; 2] });
        Voice(Some((self.core.clone(), core.lines.len() - 1)))
    }

    /// Whether another frame would be silent if no step came.
    fn is_settled(&self, core: &Core) -> bool {
        (0..2).all(|side| {
            let level: i32 = core.lines.iter().map(|line| i32::from(line.level[side])).sum();
            let (input, output) = self.filters[side];
            (input - level as f32).abs() < 0.5 && output.abs() < 0.5
        })
    }

    /// Makes the frames up to `end` and hands them over.
    fn mix(&mut self, end: u64) {
        let shared = self.core.clone();
        let mut core = shared.lock();
        if self.is_settled(&core) {
            let first = core.lines.iter().filter_map(|line| line.steps.front()).map(|(at, _)| at).min();
            let until = first.map_or(end, |at| at.ticks(RATE.into())).clamp(self.position, end.max(self.position));
            self.skip(until);
        }
        if end.saturating_sub(self.position) > BACKLOG {
            self.skip(end - BACKLOG);
        }
        let mut frames = Vec::with_capacity(end.saturating_sub(self.position) as usize);
        while self.position < end {
            let (start, stop) = (frame_start(self.position), frame_start(self.position + 1));
            let mut frame = [0; 2];
            let mut sums = [0i64; 2];
            for line in &mut core.lines {
                let parts = line.over(start, stop);
                sums = [sums[0] + parts[0], sums[1] + parts[1]];
            }
            for (side, sum) in sums.into_iter().enumerate() {
                let input = sum as f32 / (stop - start) as f32;
                let (last, output) = self.filters[side];
                let output = input - last + KEEP * output;
                self.filters[side] = (input, output);
                // Conversion saturates: what is too loud is clipped.
                frame[side] = output.round() as i16;
            }
            frames.push(frame);
            self.position += 1;
        }
        core.awake = !self.is_settled(&core) || core.lines.iter().any(|line| !line.steps.is_empty());
        drop(core);
        if !frames.is_empty() {
            self.backend.write(&frames);
        }
    }

    fn skip(&mut self, until: u64) {
        if until > self.position {
            self.backend.silence(until - self.position);
            self.position = until;
        }
    }
}

/// When frame `n` begins, in nanoseconds since power-on.
fn frame_start(n: u64) -> u64 {
    n.saturating_mul(1_000_000_000 / 16_000) / 3
}

impl Line {
    /// The integral of the level over nanoseconds `start` to `stop`, which becomes the voice's position.
    fn over(&mut self, start: u64, stop: u64) -> [i64; 2] {
        let mut sums = [0i64; 2];
        let mut from = start;
        loop {
            let step = self.steps.front().copied().filter(|(at, _)| at.nanos() < stop);
            let to = step.map_or(stop, |(at, _)| at.nanos().max(from));
            for (sum, level) in sums.iter_mut().zip(self.level) {
                *sum += i64::from(level) * (to - from) as i64;
            }
            let Some((_, level)) = step else { return sums };
            self.level = level;
            self.steps.pop_front();
            from = to;
        }
    }
}

/// Nothing of it is visible to the guest.
impl Device for Mixer {
    const ID: &'static str = "audio-mixer";
    type State = ();

    fn read(&mut self, _cx: &mut DeviceContext, _access: Access) -> u64 {
        u64::MAX
    }

    fn write(&mut self, _cx: &mut DeviceContext, _access: Access, _value: u64) {}

    fn poll_at(&self) -> Option<Instant> {
        self.next
    }

    fn poll(&mut self, cx: &mut DeviceContext) {
        let end = Instant(cx.now.nanos().saturating_sub(LAG)).ticks(RATE.into());
        self.mix(end);
        let awake = self.core.lock().awake;
        self.next = awake.then(|| cx.now.plus_nanos(PORTION));
    }

    fn reset(&mut self, _cx: &mut DeviceContext, _kind: ResetKind) {}

    fn attached(&mut self, notifier: Notifier) {
        self.core.lock().notifier = notifier;
    }

    fn state(&self) {}

    fn set_state(&mut self, _state: ()) {}

    /// What was announced belongs to another time.
    fn restored(&mut self, cx: &mut DeviceContext) {
        let mut core = self.core.lock();
        for line in &mut core.lines {
            line.steps.clear();
            line.level = line.last;
        }
        self.position = Instant(cx.now.nanos().saturating_sub(LAG)).ticks(RATE.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::MemoryBackend;
    use crate::testbench::Bench;

    fn bench() -> (Bench<Mixer>, MemoryBackend) {
        let heard = MemoryBackend::default();
        (Bench::new(Mixer::new(Box::new(heard.clone()))), heard)
    }

    #[test]
    fn frame_holds_the_mean_of_its_time() {
        let (mut bench, heard) = bench();
        let voice = bench.device.voice();
        // Frame 48 is 1 ms to 1.0208 ms; the level rises a quarter before its end.
        voice.set(Instant(1_000_000 + 15_625), [8000, -8000]);
        bench.advance(7_000_000);
        bench.poll();
        let frames = heard.take();
        assert_eq!(frames[..48], [[0, 0]; 48]);
        assert!((1999..=2001).contains(&frames[48][0]), "{:?}", frames[48]);
        assert!((7990..=8000).contains(&frames[49][0]), "{:?}", frames[49]);
        assert_eq!(frames[49][1], -frames[49][0]);
    }

    #[test]
    fn voices_add_up_and_clip() {
        let (mut bench, heard) = bench();
        let (one, two) = (bench.device.voice(), bench.device.voice());
        one.set(Instant(0), [30_000, 100]);
        two.set(Instant(0), [30_000, 200]);
        bench.advance(6_000_000);
        bench.poll();
        assert_eq!(heard.take()[0], [i16::MAX, 300]);
    }

    #[test]
    fn constant_level_becomes_silence_and_the_mixer_sleeps() {
        let (mut bench, heard) = bench();
        let voice = bench.device.voice();
        assert_eq!(bench.device.poll_at(), None);
        voice.set(Instant(0), [10_000, 10_000]);
        bench.poll();
        bench.advance(1_000_000_000);
        assert_eq!(bench.device.poll_at(), None);
        let frames = heard.take();
        assert!(frames.len() < 48_000, "sleeps after {} frames", frames.len());
        assert_eq!(frames.last(), Some(&[0, 0]));
        voice.set(Instant(1_000_000_000), [0, 0]);
        bench.advance(10_000_000);
        bench.poll();
        let silence = 48_000 - frames.len();
        let frames = heard.take();
        assert_eq!(frames[..silence], vec![[0, 0]; silence]);
        assert!(frames[silence][0] < -9000);
    }

    #[test]
    fn late_machine_makes_up_a_bounded_time() {
        let (mut bench, heard) = bench();
        let voice = bench.device.voice();
        voice.set(Instant(0), [1, 0]);
        bench.poll();
        for n in 0..1_000_000u64 {
            voice.set(Instant(n * 1_000_000), [(n % 2) as i16 * 1000, 0]);
        }
        bench.advance_late(1_000_000_000_000);
        assert!(heard.take().len() as u64 <= BACKLOG + 48_000);
    }
}
