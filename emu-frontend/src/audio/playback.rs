//! Frames on their way to a sound card, which has a clock of its own.
//!
//! ```text
//!  mixer --push--> Ring --Player--> samples at the card's rate, taken when the card wants them
//! ```
//! Neither side waits for the other: what does not fit into the ring is lost, and what is missing is silence. After a gap
//! the player waits until a cushion has come, so that a late portion is no new gap; where too much has come, because
//! the card's clock is slow, it leaves frames out.

use emu_devices::audio::{Frame, RATE};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Frames in a ring, two thirds of a second.
const CAPACITY: usize = 1 << 15;
/// The smallest cushion: 50 ms. The mixer's portions are 10 ms.
const CUSHION: usize = RATE as usize / 20;

/// Frames between one thread that makes them and one that plays them.
pub struct Ring {
    frames: Box<[AtomicU32]>,
    /// Frames ever taken and ever put, modulo `usize`.
    taken: AtomicUsize,
    put: AtomicUsize,
}

impl Ring {
    /// An empty ring.
    pub fn new() -> Arc<Ring> {
        let frames = (0..CAPACITY).map(|_| AtomicU32::new(0)).collect();
        Arc::new(Ring { frames, taken: AtomicUsize::new(0), put: AtomicUsize::new(0) })
    }

    /// Appends the frames that fit. For the thread that makes them only.
    pub fn push(&self, frames: &[Frame]) {
        let put = self.put.load(Ordering::Relaxed);
        let room = CAPACITY - put.wrapping_sub(self.taken.load(Ordering::Acquire)).min(CAPACITY);
        let fitting = &frames[..frames.len().min(room)];
        for (n, [left, right]) in fitting.iter().enumerate() {
            let packed = u32::from(*left as u16) << 16 | u32::from(*right as u16);
            self.frames[put.wrapping_add(n) % CAPACITY].store(packed, Ordering::Relaxed);
        }
        // The frames are seen before the count that includes them.
        self.put.store(put.wrapping_add(fitting.len()), Ordering::Release);
    }

    /// Frames that wait.
    fn len(&self) -> usize {
        self.put.load(Ordering::Acquire).wrapping_sub(self.taken.load(Ordering::Relaxed))
    }

    /// Takes the next frame. For the thread that plays them only.
    fn pop(&self) -> Option<Frame> {
        (self.len() > 0).then(|| {
            let taken = self.taken.load(Ordering::Relaxed);
            let packed = self.frames[taken % CAPACITY].load(Ordering::Relaxed);
            self.taken.store(taken.wrapping_add(1), Ordering::Release);
            [(packed >> 16) as i16, packed as i16]
        })
    }

    /// Leaves out the oldest frames, at most `count`. For the thread that plays them only.
    fn skip(&self, count: usize) {
        let taken = self.taken.load(Ordering::Relaxed);
        self.taken.store(taken.wrapping_add(count.min(self.len())), Ordering::Release);
    }
}

/// The sound card's end of a ring.
pub struct Player {
    ring: Arc<Ring>,
    /// Frames flow; otherwise it waits for the cushion.
    playing: bool,
    cushion: usize,
    /// Frames of the ring in a frame of the card.
    step: f32,
    /// The card is between these two, so far from the first.
    pair: [Frame; 2],
    position: f32,
}

impl Player {
    /// For a card that plays `rate` frames a second.
    pub fn new(ring: Arc<Ring>, rate: u32) -> Player {
        let step = RATE as f32 / rate.max(1) as f32;
        Player { ring, playing: false, cushion: CUSHION, step, pair: [[0; 2]; 2], position: 1.0 }
    }

    /// The card is about to take `frames` frames.
    pub fn prepare(&mut self, frames: usize) {
        let wanted = (frames as f32 * self.step) as usize + CUSHION / 2;
        self.cushion = self.cushion.max(wanted).min(CAPACITY / 4);
        let waiting = self.ring.len();
        if waiting > 3 * self.cushion {
            self.ring.skip(waiting - self.cushion);
        }
    }

    /// The next frame of the card, full scale at -1 and 1.
    pub fn next(&mut self) -> [f32; 2] {
        while self.position >= 1.0 {
            self.pair = [self.pair[1], self.take()];
            self.position -= 1.0;
        }
        let at = self.position;
        self.position += self.step;
        let [from, to] = self.pair;
        [0, 1].map(|side| {
            let (from, to) = (f32::from(from[side]), f32::from(to[side]));
            (from + (to - from) * at) / -f32::from(i16::MIN)
        })
    }

    fn take(&mut self) -> Frame {
        self.playing = self.playing && self.ring.len() > 0 || self.ring.len() >= self.cushion;
        if self.playing { self.ring.pop().unwrap_or_default() } else { [0; 2] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(count: usize) -> Vec<Frame> {
        (0..count).map(|n| [(n % 30_000) as i16 + 1, -1]).collect()
    }

    fn play(player: &mut Player, count: usize) -> Vec<f32> {
        player.prepare(count);
        (0..count).map(|_| player.next()[0] * 32_768.0).collect()
    }

    #[test]
    fn player_waits_for_its_cushion_and_is_silent_when_frames_run_out() {
        let ring = Ring::new();
        let mut player = Player::new(ring.clone(), RATE);
        ring.push(&frames(CUSHION - 1));
        assert_eq!(play(&mut player, 480), [0.0; 480]);
        ring.push(&frames(1));
        let heard = play(&mut player, 480);
        assert_eq!(heard[1..4], [1.0, 2.0, 3.0]);
        let heard = play(&mut player, CUSHION);
        assert_eq!(heard[CUSHION - 400..], [0.0; 400], "nothing is left");
        ring.push(&frames(100));
        assert_eq!(play(&mut player, 480), [0.0; 480], "the cushion is awaited once more");
    }

    #[test]
    fn ring_drops_what_does_not_fit_and_the_player_catches_up() {
        let ring = Ring::new();
        ring.push(&frames(CAPACITY - 10));
        ring.push(&frames(1000));
        assert_eq!(ring.len(), CAPACITY);
        let mut player = Player::new(ring.clone(), RATE);
        player.prepare(480);
        assert_eq!(ring.len(), CUSHION);
        // Round the end of the buffer, with the counters right.
        for _ in 0..40 {
            ring.push(&frames(1000));
            ring.skip(900);
        }
        assert_eq!(ring.len(), CUSHION + 4000);
    }

    #[test]
    fn cushion_grows_with_what_the_card_takes_at_once() {
        let ring = Ring::new();
        let mut player = Player::new(ring.clone(), RATE);
        ring.push(&frames(CUSHION));
        assert_eq!(play(&mut player, 4800), [0.0; 4800]);
        ring.push(&frames(4800));
        assert!(play(&mut player, 4800)[1..].iter().all(|sample| *sample > 0.0));
    }

    #[test]
    fn other_rates_are_interpolated() {
        let ring = Ring::new();
        ring.push(&(0..4800).map(|n| [n * 4, 0]).collect::<Vec<_>>());
        let mut player = Player::new(ring.clone(), 96_000);
        let heard = play(&mut player, 1000);
        assert!(heard[10..].windows(2).all(|w| (w[1] - w[0] - 2.0).abs() < 0.01), "{:?}", &heard[..20]);
        assert_eq!(ring.len(), 4800 - 500);
    }
}
