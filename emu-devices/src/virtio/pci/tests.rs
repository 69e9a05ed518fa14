use super::*;
use crate::virtio::driver::{Driver, WAYS, Way};
use crate::virtio::queue::{LONGEST_CHAIN, QueueError};
use crate::virtio::{Kind, VirtioContext};
use fastrand::Rng;

const MODERN: Way = WAYS[0];
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A device that gives back what it is given, as far as there is room. A chain that starts with `!` is an error.
#[derive(Default)]
struct Echo {
    setting: [u8; 6],
    taken: usize,
}

impl VirtioDevice for Echo {
    const ID: &'static str = "virtio-echo";
    const KIND: Kind = Kind { device: 42, transitional: 0x1000, class: 0xff_0000 };
    type State = [u8; 6];

    fn features(&self) -> u64 {
        1 << 5
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![16, 8]
    }

    fn config(&self, _features: u64) -> Vec<u8> {
        self.setting.to_vec()
    }

    fn write_config(&mut self, cx: &mut VirtioContext, offset: usize, bytes: &[u8]) {
        self.setting[offset..offset + bytes.len()].copy_from_slice(bytes);
        cx.config_changed();
    }

    fn notified(&mut self, cx: &mut VirtioContext, queue: usize) {
        while let Some(chain) = cx.pop(queue) {
            self.taken += 1;
            let mut bytes = vec![0; chain.readable_len().min(1 << 16)];
            chain.read(cx.memory, 0, &mut bytes);
            if bytes.first() == Some(&b'!') {
                cx.fail(QueueError::Contents("an exclamation mark"));
                return;
            }
            let n = chain.write(cx.memory, 0, &bytes);
            cx.push(queue, chain.head, n);
        }
    }

    fn reset(&mut self) {
        self.setting = *b"reset.";
    }

    fn state(&self) -> [u8; 6] {
        self.setting
    }

    fn set_state(&mut self, state: [u8; 6]) {
        self.setting = state;
    }
}

fn echo(way: Way) -> Driver<Echo> {
    let mut driver = Driver::new(Echo::default(), way, VirtioOptions::default());
    driver.start(!feature::RING_EVENT_IDX);
    driver
}

#[test]
fn chains_come_back_through_both_interfaces_with_both_kinds_of_interrupt() {
    for way in WAYS {
        let mut driver = echo(way);
        assert_eq!(driver.rings.iter().map(|ring| ring.size).collect::<Vec<_>>(), [16, 8]);
        for round in 0..40 {
            let queue = round % 2;
            let answer = driver.request(queue, &[b"to ", b"and fro"], &[4, 1, 9]);
            assert_eq!(answer, b"to and fro", "{way:?}");
            assert_eq!(driver.interrupts(), driver.interrupt_of(queue), "{way:?}");
        }
        assert_eq!(driver.config(0, 4), u64::from(u32::from_le_bytes(*b"rese")));
        driver.set_config(1, 2, 0x4141);
        assert_eq!(driver.interrupts(), driver.interrupt_of_config());
        assert_eq!(driver.config(0, 4), u64::from(u32::from_le_bytes(*b"rAAe")));
        driver.set_status(0);
        assert_eq!((driver.status(), driver.config(0, 1)), (0, b'r'.into()));
        driver.kick(0);
        assert!(driver.interrupts().is_empty());
    }
}

#[test]
fn many_chains_make_one_interrupt_and_none_if_the_driver_wants_none() {
    let mut driver = echo(MODERN);
    for _ in 0..5 {
        driver.add(0, &[b"x"], &[1]);
    }
    driver.kick(0);
    assert_eq!((driver.used(0).len(), driver.interrupts()), (5, vec![1]));
    let available = driver.rings[0].available;
    driver.bench.world.memory().write(available, &[1, 0]);
    driver.request(0, &[b"x"], &[1]);
    assert!(driver.interrupts().is_empty());
}

#[test]
fn event_indices_say_when_to_interrupt_and_when_to_notify() {
    for way in WAYS {
        let mut driver = Driver::new(Echo::default(), way, VirtioOptions::default());
        driver.start(u64::MAX);
        assert!(driver.features & feature::RING_EVENT_IDX != 0);
        let (used_event, avail_event) = (driver.rings[0].available + 4 + 32, driver.rings[0].used + 4 + 128);
        driver.request(0, &[b"x"], &[1]);
        assert_eq!(driver.interrupts(), driver.interrupt_of(0), "the first");
        let mut event = [0; 2];
        driver.bench.world.memory().read(avail_event, &mut event);
        assert_eq!(u16::from_le_bytes(event), 1, "the device wants to hear of the next");
        driver.bench.world.memory().write(used_event, &3u16.to_le_bytes());
        for expected in [0, 0, 1, 0] {
            driver.request(0, &[b"x"], &[1]);
            assert_eq!(driver.interrupts().len(), expected, "{way:?}");
        }
    }
}

#[test]
fn indirect_tables_are_followed_once() {
    for way in WAYS {
        let mut driver = echo(way);
        let text = driver.put(b"hello");
        let room = driver.allocate(8);
        let table = driver.allocate(48);
        driver.describe(table, text, 5, NEXT, 2);
        driver.describe(table + 32, room, 8, WRITE, 0);
        let ring = driver.rings[0].descriptors;
        driver.describe(ring, table, 48, INDIRECT, 0);
        driver.offer(0, 0);
        driver.kick(0);
        assert_eq!(driver.used(0), [(0, 5)]);
        driver.describe(table + 32, table, 16, INDIRECT, 0);
        driver.offer(0, 0);
        driver.kick(0);
        assert!(driver.used(0).is_empty());
        assert_eq!(driver.status() & status::DEVICE_NEEDS_RESET, status::DEVICE_NEEDS_RESET);
    }
}

/// What a driver must not do, each on a fresh device.
#[test]
fn rules_that_are_broken_stop_the_device_until_it_is_reset() {
    type Crime = fn(&mut Driver<Echo>, u64);
    let crimes: [(&str, Crime); 12] = [
        ("loop", |d, t| d.describe(t, 0x1000, 4, NEXT, 0)),
        ("beyond the table", |d, t| d.describe(t, 0x1000, 4, NEXT, 16)),
        ("wild address", |d, t| d.describe(t, 1 << 50, 4, 0, 0)),
        ("wrapping address", |d, t| d.describe(t, u64::MAX - 1, 4, 0, 0)),
        ("hole", |d, t| d.describe(t, 0xa_0000 - 2, 4, 0, 0)),
        ("huge", |d, t| d.describe(t, 0x1000, u32::MAX, 0, 0)),
        ("empty", |d, t| d.describe(t, 0x1000, 0, 0, 0)),
        ("indirect with next", |d, t| d.describe(t, 0x1000, 16, INDIRECT | NEXT, 0)),
        ("indirect of odd length", |d, t| d.describe(t, 0x1000, 17, INDIRECT, 0)),
        ("long indirect", |d, t| d.describe(t, 0x1000, 16 * (u32::from(LONGEST_CHAIN) + 1), INDIRECT, 0)),
        ("wrong order", |d, t| {
            d.describe(t, 0x1000, 1, WRITE | NEXT, 1);
            d.describe(t + 16, 0x1000, 1, 0, 0);
        }),
        ("index jump", |d, _| {
            let available = d.rings[0].available;
            d.bench.world.memory().write(available + 2, &40u16.to_le_bytes());
            d.rings[0].index = 40;
        }),
    ];
    for way in WAYS {
        for (name, crime) in crimes {
            let mut driver = echo(way);
            let table = driver.rings[0].descriptors;
            crime(&mut driver, table);
            driver.offer(0, 0);
            driver.kick(0);
            assert!(driver.used(0).is_empty(), "{name}");
            assert_ne!(driver.status() & status::DEVICE_NEEDS_RESET, 0, "{name}");
            let told = if way.legacy { Vec::new() } else { driver.interrupt_of_config() };
            assert_eq!(driver.interrupts(), told, "{name}");
            driver.kick(1);
            assert_eq!(driver.bench.with(|d, _| d.core.lock().device.taken), 0, "{name}");
            driver.start(0);
            assert_eq!(driver.request(0, &[b"again"], &[5]), b"again", "{name}");
        }
    }
}

#[test]
fn device_can_give_up_by_itself() {
    let mut driver = echo(MODERN);
    driver.add(0, &[b"!"], &[1]);
    driver.add(0, &[b"x"], &[1]);
    driver.kick(0);
    assert_eq!((driver.used(0).len(), driver.interrupts()), (0, vec![0]));
}

#[test]
fn legacy_and_modern_interfaces_can_be_disabled() {
    let ids = |disable_legacy, disable_modern, vectors| {
        let options = VirtioOptions { disable_legacy, disable_modern, vectors, ..VirtioOptions::default() };
        let function =
            VirtioPci::new(Echo::default(), options, Interrupts { intx: IrqLine::unconnected(), messages: None });
        let config = function.config();
        let config = config.lock();
        let bars: Vec<usize> = (0..6).filter(|i| config.bar_kind(*i).is_some()).collect();
        (config.word(reg::DEVICE_ID), config.byte(reg::REVISION), config.word(reg::SUBSYSTEM), bars)
    };
    assert_eq!(ids(false, false, None), (0x1000, 0, 42, vec![0, 4]));
    assert_eq!(ids(false, true, None), (0x1000, 0, 42, vec![0]));
    assert_eq!(ids(true, false, None), (0x106a, 1, 0x1100, vec![4]));
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let mut driver = echo(MODERN);
    driver.set_status(0);
    let accept = |driver: &mut Driver<Echo>, features: u64| {
        driver.set_status(0);
        driver.set_status(3);
        for half in 0..2 {
            driver.modern_write(8, 4, half);
            driver.modern_write(12, 4, features >> (32 * half) & 0xffff_ffff);
        }
        driver.set_status(11);
        driver.status()
    };
    assert_eq!(accept(&mut driver, feature::VERSION_1 | 1 << 5), 11);
    assert_eq!(accept(&mut driver, feature::VERSION_1 | 1 << 6), 3);
    assert_eq!(accept(&mut driver, 1 << 5), 3, "not a driver of version 1");
}

#[test]
fn bars_are_reached_through_the_configuration_space() {
    let mut driver = echo(WAYS[1]);
    let (window, config) = driver.bench.with(|d, _| (d.window().unwrap(), d.config()));
    let at = {
        let config = config.lock();
        let mut at = config.byte(reg::CAPABILITIES);
        while config.byte(at) != VENDOR_SPECIFIC || config.byte(at + 3) != PCI_CFG {
            at = config.byte(at + 1);
        }
        at
    };
    let point = |bar: u32, offset: u32, len: u32| {
        let mut config = config.lock();
        config.write(at + 4, 1, bar);
        config.write(at + 8, 4, offset);
        config.write(at + 12, 4, len);
    };
    point(4, 18, 2);
    let read = |driver: &mut Driver<Echo>| driver.bench.with(|_, cx| window.read(cx, at + 16, 4));
    assert_eq!(read(&mut driver), Some(2), "the number of queues");
    for (bar, offset, len) in [(4, 18, 3), (4, 17, 2), (4, 0x4000, 4), (7, 0, 4), (4, u32::MAX, 1)] {
        point(bar, offset, len);
        assert_eq!(read(&mut driver), None);
    }
    driver.add(0, &[b"x"], &[1]);
    point(4, 0x3000, 2);
    driver.bench.with(|_, cx| window.write(cx, at + 16, 2, 0));
    assert_eq!((driver.used(0).len(), driver.interrupts()), (1, vec![1]));
}

#[test]
fn state_moves_to_another_device_amid_work() {
    for way in WAYS {
        let mut driver = echo(way);
        driver.request(0, &[b"x"], &[1]);
        let mut other = Driver::in_world(Echo::default(), way, VirtioOptions::default(), &driver.bench.world.clone());
        driver.bench.copy_state_to(&mut other.bench);
        other.rings = std::mem::take(&mut driver.rings);
        other.interrupts();
        assert_eq!(other.request(0, &[b"yes"], &[3]), b"yes");
        assert_eq!(other.interrupts(), other.interrupt_of(0));
    }
}

/// Random descriptors, rings and registers: nothing may panic, hang, or take more than a queue at a time.
#[test]
fn hostile_queues_do_no_harm() {
    for seed in 0..300 {
        let mut random = Rng::with_seed(seed);
        let way = WAYS[random.usize(0..4)];
        let mut driver = Driver::new(Echo::default(), way, VirtioOptions::default());
        driver.start(if random.bool() { u64::MAX } else { random.u64(..) });
        for _ in 0..200 {
            let ring = random.usize(0..2);
            let (table, available, size) =
                (driver.rings[ring].descriptors, driver.rings[ring].available, driver.rings[ring].size);
            let indirect = 0x8000;
            for table in [table, indirect] {
                let address = match random.u8(0..8) {
                    0 => random.u64(..),
                    1 => table,
                    2 => indirect,
                    3 => 0x9_f000 + random.u64(0..0x2000),
                    _ => random.u64(0..0x2_0000),
                };
                let len = if random.u8(0..8) == 0 { random.u32(..) } else { 16 * random.u32(0..9) };
                let at = table + 16 * random.u64(0..u64::from(size));
                driver.describe(at, address, len, random.u16(0..8), random.u16(0..size + 1));
            }
            match random.u8(0..8) {
                0 => driver.bench.world.memory().write(available + random.u64(0..8), &[random.u8(..)]),
                1 => driver.modern_write(random.u64(0..0x3100), 1 << random.u8(0..4), random.u64(..)),
                2 => driver.legacy_write(random.u64(0..40), 1 << random.u8(0..3), random.u64(..)),
                3 => drop(driver.modern_read(random.u64(0..0x3100), 1 << random.u8(0..4))),
                4 => driver.start(u64::MAX),
                _ => driver.offer(ring, random.u16(0..size)),
            }
            let before = driver.bench.with(|d, _| d.core.lock().device.taken);
            driver.kick(ring);
            let taken = driver.bench.with(|d, _| d.core.lock().device.taken) - before;
            assert!(taken <= usize::from(size), "seed {seed}");
        }
    }
}
