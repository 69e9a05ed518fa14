//! The PC's loudspeaker: OUT2 as sound.
//!
//! Follows the IBM PC/AT Technical Reference, "Speaker Tone Generation": bit 1 of port 61h gates OUT2 onto the cone.

use super::{CLOCK, PitState, port_b};
use crate::audio::{Frame, Voice};
use emu_core::clock::Instant;

/// How far the cone moves: a quarter of full scale, since a square wave is loud.
const AMPLITUDE: i16 = 8192;
/// Periods shorter than this many clocks (25 kHz) are above hearing: the cone rests at their mean.
const ULTRASONIC: u32 = CLOCK as u32 / 25_000;
/// Clocks between two looks while the speaker sounds: 10 ms.
const PORTION: u64 = CLOCK / 100;
/// Clocks whose edges are made up at most when the machine was not run in time: a tenth of a second.
const BACKLOG: u64 = CLOCK / 10;

/// The position of the cone.
pub(super) fn level(s: &PitState) -> Frame {
    let position = match (s.port_b & port_b::SPEAKER_DATA != 0, s.counters[2].period()) {
        (false, _) => 0,
        (true, Some(period)) if period < ULTRASONIC => AMPLITUDE / 2,
        (true, _) if s.counters[2].out() => AMPLITUDE,
        (true, _) => 0,
    };
    [position; 2]
}

/// Lets the last `clocks` clocks before `s.tick` pass for counter 2, and tells `voice` of every edge.
pub(super) fn advance(s: &mut PitState, clocks: u64, voice: &Voice) {
    let audible = voice.is_connected() && s.port_b & port_b::SPEAKER_DATA != 0;
    if !audible {
        s.counters[2].advance(clocks);
        return;
    }
    let mut left = clocks.min(BACKLOG);
    s.counters[2].advance(clocks - left);
    while left > 0 {
        let ultrasonic = s.counters[2].period().is_some_and(|period| period < ULTRASONIC);
        let step = match s.counters[2].clocks_to_change() {
            Some(clocks) if !ultrasonic => clocks.min(left),
            _ => left,
        };
        s.counters[2].advance(step);
        left -= step;
        voice.set(Instant::from_ticks(s.tick - left, CLOCK), level(s));
    }
}

/// When the edges so far should be announced.
pub(super) fn poll_at(s: &PitState, voice: &Voice) -> Option<Instant> {
    let sounds = voice.is_connected() && s.port_b & port_b::SPEAKER_DATA != 0;
    let changes = sounds && s.counters[2].clocks_to_change().is_some();
    changes.then(|| Instant::from_ticks(s.tick.saturating_add(PORTION), CLOCK))
}

#[cfg(test)]
mod tests {
    use crate::audio::{Frame, MemoryBackend, Mixer, RATE};
    use crate::testbench::{Bench, World};
    use crate::timer::pit::Pit;
    use emu_core::irq::IrqLine;

    /// Runs a timer after `program` for a second; what is heard.
    fn listen(program: impl FnOnce(&mut Bench<Pit>)) -> Vec<Frame> {
        let heard = MemoryBackend::default();
        let world = World::new(1 << 20);
        let mut mixer = Bench::in_world(Mixer::new(Box::new(heard.clone())), &world);
        let mut pit = Pit::new(IrqLine::unconnected());
        pit.connect_speaker(mixer.device.voice());
        let mut pit = Bench::in_world(pit, &world);
        program(&mut pit);
        for _ in 0..100 {
            pit.advance(10_000_000);
            mixer.poll();
        }
        heard.take()
    }

    fn tone(bench: &mut Bench<Pit>, count: u16) {
        bench.out8(0x43, 0xb6);
        bench.out8(0x42, count as u8);
        bench.out8(0x42, (count >> 8) as u8);
        bench.out8(0x61, 0x03);
    }

    /// Upward zero crossings of the left channel.
    fn crossings(frames: &[Frame]) -> usize {
        frames.windows(2).filter(|w| w[0][0] < 0 && w[1][0] >= 0).count()
    }

    #[test]
    fn speaker_sounds_with_the_frequency_of_counter_2() {
        for (hertz, count) in [(440, 2712), (1000, 1193), (5000, 239)] {
            let frames = listen(|bench| tone(bench, count));
            assert!(frames.len() as u32 > RATE * 98 / 100);
            let heard = crossings(&frames) as i32;
            assert!((heard - hertz).abs() <= hertz / 50, "{heard} Hz instead of {hertz}");
            let loudest = frames.iter().map(|f| f[0]).max();
            assert!(loudest > Some(3500) && frames.iter().all(|f| f[0] == f[1]));
        }
    }

    #[test]
    fn speaker_is_silent_without_data_or_gate_and_above_hearing() {
        let quiet = |frames: Vec<Frame>| crossings(&frames) < 2;
        assert!(quiet(listen(|bench| {
            tone(bench, 1193);
            bench.out8(0x61, 0x01);
        })));
        assert!(quiet(listen(|bench| {
            tone(bench, 1193);
            bench.out8(0x61, 0x02);
        })));
        assert!(quiet(listen(|bench| tone(bench, 20))));
    }

    #[test]
    fn speaker_plays_pulses_that_the_guest_times_itself() {
        let heard = MemoryBackend::default();
        let world = World::new(1 << 20);
        let mut mixer = Bench::in_world(Mixer::new(Box::new(heard.clone())), &world);
        let mut pit = Pit::new(IrqLine::unconnected());
        pit.connect_speaker(mixer.device.voice());
        let mut pit = Bench::in_world(pit, &world);
        // Mode 3 with its gate off leaves OUT2 high: bit 1 alone moves the cone.
        pit.out8(0x43, 0xb6);
        for n in 0..400 {
            pit.out8(0x61, if n % 2 == 0 { 0x02 } else { 0x00 });
            pit.advance(500_000);
        }
        mixer.poll();
        let heard = crossings(&heard.take());
        assert!((190..=200).contains(&heard), "{heard} periods of a millisecond in 0.2 s");
    }

    #[test]
    fn machine_that_is_late_by_hours_makes_up_little() {
        let frames = listen(|bench| {
            tone(bench, 100);
            bench.advance_late(20_000_000_000_000);
        });
        assert!(frames.len() < 10 * RATE as usize);
    }
}
