//! The memory balloon: VIRTIO 1.2, 5.5, the traditional device.
//!
//! ```text
//!  queue 0 inflate, 1 deflate: arrays of page numbers (4 bytes, pages of 4 KiB)
//!  queue 2 statistics: one chain, of 2-byte tags with 8-byte values, that the device holds until it wants newer ones
//! ```
//! A page that goes into the balloon is given back to the host, and reads as zeros from then on; [`MOST_PAGES`] at a time. Deliberately
//! absent: free page hinting and reporting, and page poisoning.

use super::queue::Chain;
use super::{Kind, VirtioContext, VirtioDevice};
use crate::shared::Shared;
use emu_core::bus::Notifier;
use emu_core::clock::Instant;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const STATS: usize = 2;
const QUEUE_SIZE: u16 = 128;
/// Bytes of the balloon's page.
const PAGE: u64 = 4096;
/// Entries of statistics at most, which is more than there are tags.
const MOST_STATS: usize = 64;
/// Bytes of page numbers that are read at a time.
const PIECE: usize = 4096;
/// Pages that go into the balloon before the guest goes on.
const MOST_PAGES: usize = 1 << 14;
/// Nanoseconds until it goes on.
const PAUSE: u64 = 1_000_000;

mod feature {
    pub const STATS_VQ: u64 = 1 << 1;
    pub const DEFLATE_ON_OOM: u64 = 1 << 2;
}

struct Front {
    /// Pages that the host wants in the balloon.
    target: u32,
    /// Pages that the driver says are in it.
    actual: u32,
    /// The last statistics, by tag.
    stats: BTreeMap<u16, u64>,
    /// Newer ones are wanted.
    asked: bool,
    /// The target has changed.
    changed: bool,
    notifier: Option<Notifier>,
    ram: u64,
}

/// The host's side of a balloon. Clones are the same one.
#[derive(Clone)]
pub struct BalloonControl(Shared<Front>);

impl BalloonControl {
    /// How much of the guest's RAM it has left, in bytes: all that is not in the balloon.
    pub fn actual(&self) -> u64 {
        let front = self.0.lock();
        front.ram.saturating_sub(u64::from(front.actual) * PAGE)
    }

    /// Asks the guest to get along with `bytes` of RAM, at most all that there is.
    pub fn set_target(&self, bytes: u64) {
        self.change(|front| {
            front.target = (front.ram.saturating_sub(bytes) / PAGE).min(u32::MAX.into()) as u32;
            front.changed = true;
        });
    }

    /// The last statistics that the guest has given, by the specification's tags (5.5.6.4).
    pub fn stats(&self) -> BTreeMap<u16, u64> {
        self.0.lock().stats.clone()
    }

    /// Asks the guest for newer statistics, which come some time later.
    pub fn ask_for_stats(&self) {
        self.change(|front| front.asked = true);
    }

    fn change(&self, f: impl FnOnce(&mut Front)) {
        let notifier = {
            let mut front = self.0.lock();
            f(&mut front);
            front.notifier.clone()
        };
        if let Some(notifier) = notifier {
            notifier.notify();
        }
    }
}

/// What of the device is saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonState {
    /// Pages that the host wants in the balloon.
    pub target: u32,
    /// Pages that the driver says are in it.
    pub actual: u32,
    /// The chain that waits for statistics to be wanted.
    pub waiting: Option<Chain>,
    /// The chain whose pages go into the balloon, and how many bytes of it have been read.
    pub inflating: Option<(Chain, usize)>,
}

/// A balloon.
pub struct Balloon {
    front: Shared<Front>,
    deflate_on_oom: bool,
    waiting: Option<Chain>,
    inflating: Option<(Chain, usize)>,
    /// It goes on inflating then.
    resume: Option<Instant>,
}

impl Balloon {
    /// An empty balloon in a machine with `ram` bytes. `deflate_on_oom`: the guest may take pages out when it runs out of memory.
    pub fn new(ram: u64, deflate_on_oom: bool) -> Balloon {
        let front =
            Front { target: 0, actual: 0, stats: BTreeMap::new(), asked: false, changed: false, notifier: None, ram };
        Balloon { front: Shared::new(front), deflate_on_oom, waiting: None, inflating: None, resume: None }
    }

    /// The host's side.
    pub fn control(&self) -> BalloonControl {
        BalloonControl(self.front.clone())
    }

    /// Pages that the driver gives up.
    fn inflate(&mut self, cx: &mut VirtioContext) {
        let mut buffer = [0; PIECE];
        let mut left = MOST_PAGES;
        while let Some((chain, mut at)) = self.inflating.take().or_else(|| cx.pop(INFLATE).map(|chain| (chain, 0))) {
            loop {
                let n = chain.read(cx.memory, at, &mut buffer);
                let numbers = buffer[..n].chunks_exact(4);
                if n == 0 {
                    break;
                }
                if left < numbers.len() {
                    self.inflating = Some((chain, at));
                    self.resume = Some(cx.now.plus_nanos(PAUSE));
                    return;
                }
                (at, left) = (at + n, left - numbers.len());
                for number in numbers {
                    let number = u32::from_le_bytes([number[0], number[1], number[2], number[3]]);
                    cx.memory.discard_page(u64::from(number) * PAGE);
                }
            }
            cx.push(INFLATE, chain.head, 0);
        }
    }

    /// Pages that the driver takes back, which needs nothing: they come back when they are touched.
    fn deflate(cx: &mut VirtioContext) {
        while let Some(chain) = cx.pop(DEFLATE) {
            cx.push(DEFLATE, chain.head, 0);
        }
    }

    /// A chain with statistics, which is kept until newer ones are wanted.
    fn take_stats(&mut self, cx: &mut VirtioContext) {
        while let Some(chain) = cx.pop(STATS) {
            let mut stats = BTreeMap::new();
            for index in 0..MOST_STATS {
                let Some(entry) = chain.read_array::<10>(cx.memory, 10 * index) else { break };
                let mut all = [0; 16];
                all[..10].copy_from_slice(&entry);
                let all = u128::from_le_bytes(all);
                stats.insert(all as u16, (all >> 16) as u64);
            }
            self.front.lock().stats = stats;
            if let Some(old) = self.waiting.replace(chain) {
                cx.push(STATS, old.head, 0);
            }
        }
    }
}

impl VirtioDevice for Balloon {
    const ID: &'static str = "virtio-balloon";
    const KIND: Kind = Kind { device: 5, transitional: 0x1002, class: 0x00_ff00 };
    type State = BalloonState;

    fn features(&self) -> u64 {
        feature::STATS_VQ | if self.deflate_on_oom { feature::DEFLATE_ON_OOM } else { 0 }
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 3]
    }

    /// `struct virtio_balloon_config` (5.5.4): num_pages and actual.
    fn config(&self, _features: u64) -> Vec<u8> {
        let front = self.front.lock();
        [front.target.to_le_bytes(), front.actual.to_le_bytes()].concat()
    }

    fn write_config(&mut self, _cx: &mut VirtioContext, offset: usize, bytes: &[u8]) {
        let mut front = self.front.lock();
        let mut actual = front.actual.to_le_bytes();
        for (i, byte) in bytes.iter().enumerate() {
            if let Some(place) = (offset + i).checked_sub(4).and_then(|at| actual.get_mut(at)) {
                *place = *byte;
            }
        }
        front.actual = u32::from_le_bytes(actual);
    }

    fn notified(&mut self, cx: &mut VirtioContext, queue: usize) {
        match queue {
            INFLATE => self.inflate(cx),
            DEFLATE => Balloon::deflate(cx),
            _ => self.take_stats(cx),
        }
    }

    fn poll(&mut self, cx: &mut VirtioContext) {
        let (changed, asked) = {
            let mut front = self.front.lock();
            (std::mem::take(&mut front.changed), std::mem::take(&mut front.asked))
        };
        if changed {
            cx.config_changed();
        }
        if self.resume.take().is_some() && cx.is_live() {
            self.inflate(cx);
        }
        if let Some(chain) = self.waiting.take_if(|_| asked && cx.is_live()) {
            cx.push(STATS, chain.head, 0);
        }
    }

    fn poll_at(&self) -> Option<Instant> {
        self.resume
    }

    /// The host's wish outlives the guest's driver.
    fn reset(&mut self) {
        (self.waiting, self.inflating, self.resume) = (None, None, None);
        let mut front = self.front.lock();
        front.actual = 0;
        front.stats.clear();
    }

    fn attached(&mut self, notifier: Notifier) {
        self.front.lock().notifier = Some(notifier);
    }

    fn state(&self) -> BalloonState {
        let front = self.front.lock();
        BalloonState {
            target: front.target,
            actual: front.actual,
            waiting: self.waiting.clone(),
            inflating: self.inflating.clone(),
        }
    }

    fn set_state(&mut self, state: BalloonState) {
        let mut front = self.front.lock();
        (front.target, front.actual) = (state.target, state.actual);
        (self.waiting, self.inflating) = (state.waiting, state.inflating);
        self.resume = self.inflating.is_some().then_some(Instant::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::driver::{Driver, WAYS};
    use crate::virtio::pci::VirtioOptions;

    const RAM: u64 = 32 << 20;

    #[test]
    fn pages_in_the_balloon_are_zeros_and_others_are_not_touched() {
        for way in WAYS {
            let mut driver = Driver::new(Balloon::new(RAM, true), way, VirtioOptions::default());
            driver.start(u64::MAX);
            let memory = driver.bench.world.memory().clone();
            memory.write(0x100_0000, &[7; 3 * 4096]);
            let numbers: Vec<u8> =
                [0x1001u32, 0xa0, u32::MAX, 0xfff_ffff].iter().flat_map(|n| n.to_le_bytes()).collect();
            assert_eq!(driver.request(INFLATE, &[&numbers], &[]), b"");
            let mut bytes = vec![0; 3 * 4096];
            memory.read(0x100_0000, &mut bytes);
            assert!(bytes[..4096].iter().chain(&bytes[8192..]).all(|b| *b == 7));
            assert!(bytes[4096..8192].iter().all(|b| *b == 0));
            assert_eq!(driver.request(DEFLATE, &[&numbers], &[]), b"");
        }
    }

    #[test]
    fn long_lists_of_pages_do_not_keep_the_guest_from_its_work() {
        let mut driver = Driver::new(Balloon::new(RAM, true), WAYS[0], VirtioOptions::default());
        driver.start(u64::MAX);
        let memory = driver.bench.world.memory().clone();
        let mut numbers = 0x1001u32.to_le_bytes().repeat(MOST_PAGES);
        numbers.extend(0x1003u32.to_le_bytes());
        let head = driver.add(INFLATE, &[&numbers], &[]);
        memory.write(0x100_3000, &[7; 4096]);
        driver.kick(INFLATE);
        assert!(driver.used(INFLATE).is_empty());
        let mut other =
            Driver::in_world(Balloon::new(RAM, true), WAYS[0], VirtioOptions::default(), &driver.bench.world.clone());
        driver.bench.copy_state_to(&mut other.bench);
        let mut byte = [0];
        memory.read(0x100_3000, &mut byte);
        assert_eq!(byte, [7]);
        for mut driver in [driver, other] {
            memory.write(0x100_3000, &[7; 4096]);
            driver.bench.advance(PAUSE);
            memory.read(0x100_3000, &mut byte);
            assert_eq!(byte, [0]);
            if !driver.rings.is_empty() {
                assert_eq!(driver.used(INFLATE), [(head, 0)]);
            }
        }
    }

    #[test]
    fn target_is_told_and_the_answer_is_seen() {
        let balloon = Balloon::new(RAM, false);
        let control = balloon.control();
        let mut driver = Driver::new(balloon, WAYS[0], VirtioOptions::default());
        driver.start(u64::MAX);
        assert_eq!((control.actual(), driver.config(0, 4)), (RAM, 0));
        control.set_target(24 << 20);
        driver.bench.poll();
        assert_eq!(driver.interrupts(), driver.interrupt_of_config());
        assert_eq!(driver.config(0, 4), 2048);
        driver.set_config(4, 4, 1024);
        assert_eq!((control.actual(), driver.config(4, 4)), (28 << 20, 1024));
        control.set_target(u64::MAX);
        assert_eq!(driver.config(0, 4), 0);
    }

    #[test]
    fn statistics_come_when_they_are_asked_for() {
        let balloon = Balloon::new(RAM, false);
        let control = balloon.control();
        let mut driver = Driver::new(balloon, WAYS[0], VirtioOptions::default());
        driver.start(u64::MAX);
        let stats = |value: u64| [&5u16.to_le_bytes()[..], &value.to_le_bytes(), &[4, 0], &1u64.to_le_bytes()].concat();
        let head = driver.add(STATS, &[&stats(1000)], &[]);
        driver.kick(STATS);
        assert_eq!(control.stats(), BTreeMap::from([(4, 1), (5, 1000)]));
        assert!(driver.used(STATS).is_empty(), "the chain is kept");
        control.ask_for_stats();
        driver.bench.poll();
        assert_eq!((driver.used(STATS), driver.interrupts()), (vec![(head, 0)], vec![3]));
        driver.add(STATS, &[&stats(2000)[..19]], &[]);
        driver.kick(STATS);
        assert_eq!(control.stats(), BTreeMap::from([(5, 2000)]));
    }
}
