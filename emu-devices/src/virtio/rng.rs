//! The entropy device: VIRTIO 1.2, 5.4. One queue of buffers that the device fills with random bytes, at least one of each.
//!
//! `max-bytes` bytes may flow in each `period`, which begins with the first byte. Deliberately absent: leaks (version 1.3).

use super::{Kind, VirtioContext, VirtioDevice};
use emu_core::bus::Notifier;
use emu_core::clock::Instant;
use emu_core::cpu::random::Random;
use serde::{Deserialize, Serialize};

const QUEUE_SIZE: u16 = 8;
/// Bytes that are filled at a time; the rest of a longer buffer stays as it is, as it may (5.4.6.2).
const PIECE: usize = 64 << 10;

/// Where random bytes come from. No method blocks.
pub trait EntropySource: Send {
    /// Puts random bytes into `buffer`; how many. After returning fewer than asked for, the source notifies once there are more.
    fn fill(&mut self, buffer: &mut [u8]) -> usize;

    /// Given once: to be called, from any thread, when there are bytes again.
    fn set_notifier(&mut self, _notifier: Notifier) {}
}

/// A stream that follows from its seed.
impl EntropySource for Random {
    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&self.number().to_le_bytes()[..chunk.len()]);
        }
        buffer.len()
    }
}

/// How much may flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Bytes in each period, at least 1.
    pub bytes: u64,
    /// Nanoseconds.
    pub period: u64,
}

/// What of the device is saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RngState {
    /// Bytes that have flowed in this period.
    pub used: u64,
    /// When it ends, if it has begun.
    pub ends: Option<Instant>,
}

/// An entropy device.
pub struct Rng {
    source: Box<dyn EntropySource>,
    quota: Option<Quota>,
    state: RngState,
}

impl Rng {
    /// A device that hands out what `source` has; without a quota, as fast as that has it.
    pub fn new(source: Box<dyn EntropySource>, quota: Option<Quota>) -> Rng {
        Rng { source, quota, state: RngState::default() }
    }

    /// Bytes that may flow now.
    fn left(&mut self, now: Instant) -> usize {
        let Some(quota) = self.quota else { return PIECE };
        if self.state.ends.is_some_and(|at| at <= now) {
            self.state = RngState::default();
        }
        quota.bytes.saturating_sub(self.state.used).min(PIECE as u64) as usize
    }

    fn work(&mut self, cx: &mut VirtioContext) {
        let mut buffer = Vec::new();
        while cx.has_available(0) {
            let left = self.left(cx.now);
            if left == 0 {
                return;
            }
            let Some(chain) = cx.pop(0) else { return };
            buffer.resize(chain.writable_len().min(left), 0);
            let n = self.source.fill(&mut buffer).min(buffer.len());
            if n == 0 && !buffer.is_empty() {
                return cx.unpop(0);
            }
            chain.write(cx.memory, 0, &buffer[..n]);
            cx.push(0, chain.head, n);
            if let Some(quota) = self.quota {
                self.state.used = self.state.used.saturating_add(n as u64);
                self.state.ends.get_or_insert(cx.now.plus_nanos(quota.period));
            }
        }
    }
}

impl VirtioDevice for Rng {
    const ID: &'static str = "virtio-rng";
    const KIND: Kind = Kind { device: 4, transitional: 0x1005, class: 0x00_ff00 };
    type State = RngState;

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE]
    }

    fn config(&self, _features: u64) -> Vec<u8> {
        Vec::new()
    }

    fn notified(&mut self, cx: &mut VirtioContext, _queue: usize) {
        self.work(cx);
    }

    fn poll_at(&self) -> Option<Instant> {
        self.state.ends
    }

    fn poll(&mut self, cx: &mut VirtioContext) {
        // The end of the period: a deadline that has passed must not stay.
        self.left(cx.now);
        self.work(cx);
    }

    /// The quota is the host's, and outlives a reset.
    fn reset(&mut self) {}

    fn attached(&mut self, notifier: Notifier) {
        self.source.set_notifier(notifier);
    }

    fn state(&self) -> RngState {
        self.state.clone()
    }

    fn set_state(&mut self, state: RngState) {
        self.state = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::Shared;
    use crate::virtio::driver::{Driver, WAYS};
    use crate::virtio::pci::VirtioOptions;

    fn stream(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        Random::seeded([7; 32]).fill(&mut bytes);
        bytes
    }

    #[test]
    fn buffers_are_filled_from_the_source() {
        for way in WAYS {
            let rng = Rng::new(Box::new(Random::seeded([7; 32])), None);
            let mut driver = Driver::new(rng, way, VirtioOptions::default());
            driver.start(0);
            assert_eq!(driver.request(0, &[], &[8, 16]), stream(24));
            assert_eq!(driver.interrupts(), driver.interrupt_of(0));
            assert_eq!(driver.request(0, &[], &[PIECE + 1]).len(), PIECE);
            assert_eq!(driver.request(0, &[b"nonsense"], &[]), b"");
        }
    }

    #[test]
    fn quota_holds_the_rest_back_until_the_period_is_over() {
        let quota = Quota { bytes: 10, period: 1_000_000 };
        let mut driver =
            Driver::new(Rng::new(Box::new(Random::seeded([7; 32])), Some(quota)), WAYS[0], VirtioOptions::default());
        driver.start(0);
        assert_eq!(driver.request(0, &[], &[16]), stream(10));
        let head = driver.add(0, &[], &[8]);
        driver.kick(0);
        driver.bench.advance(999_999);
        assert!(driver.used(0).is_empty());
        driver.bench.advance(1);
        assert_eq!(driver.used(0), [(head, 8)]);
        driver.bench.advance(10_000_000);
    }

    #[derive(Clone, Default)]
    struct Dry(Shared<Vec<u8>>);

    impl EntropySource for Dry {
        fn fill(&mut self, buffer: &mut [u8]) -> usize {
            let mut there = self.0.lock();
            let n = there.len().min(buffer.len());
            buffer[..n].copy_from_slice(&there[..n]);
            there.drain(..n);
            n
        }
    }

    #[test]
    fn buffer_waits_for_a_source_that_is_dry() {
        let source = Dry::default();
        let mut driver = Driver::new(Rng::new(Box::new(source.clone()), None), WAYS[1], VirtioOptions::default());
        driver.start(u64::MAX);
        let head = driver.add(0, &[], &[8]);
        driver.kick(0);
        assert!(driver.used(0).is_empty());
        source.0.lock().extend(b"abc");
        driver.bench.poll();
        assert_eq!((driver.used(0), &driver.room(0, head)[..3]), (vec![(head, 3)], &b"abc"[..]));
    }
}
