//! Hostile drivers: whatever they put into their queues and registers, nothing may panic or hang, little is done at a time, little is kept,
//! and a driver that comes afterwards finds a device that works. A failure names its seed.

use super::balloon::Balloon;
use super::block::{Block, BlockConfig};
use super::console::{Console, Port};
use super::driver::{Driver, WAYS};
use super::net::{Net, NetOptions};
use super::pci::VirtioOptions;
use super::queue::LONGEST_CHAIN;
use super::rng::{EntropySource, Rng as Entropy};
use super::{VirtioDevice, status};
use crate::char::{CharBackend, MemoryBackend};
use crate::net::{LONGEST_FRAME, MacAddress, MemoryNetwork};
use crate::shared::Shared;
use crate::storage::block::Disk;
use crate::storage::image::MemoryImage;
use emu_core::clock::ClockMode;
use emu_core::device::Device;
use fastrand::Rng;
use serde_json::Value;

const SEEDS: u64 = 40;
const STEPS: u32 = 200;
/// Where indirect tables are.
const INDIRECT: u64 = 0x3f_0000;
/// The end of memory.
const END: u64 = 32 << 20;

/// An address as such drivers like it: of rings, tables and buffers, at edges of memory, in device memory, and anywhere.
fn address(random: &mut Rng, ring: &[u64; 3]) -> u64 {
    let near = |random: &mut Rng, at: u64| at.wrapping_add(random.u64(0..64)).wrapping_sub(32);
    match random.u8(0..16) {
        0 => random.u64(..),
        1 => near(random, u64::MAX),
        2 => near(random, 1 << 32),
        3 => near(random, END),
        4 => near(random, 0xa_0000),
        5 => 0xfeb0_0000 + random.u64(0..0x2_0000),
        6 => INDIRECT + 16 * random.u64(0..16),
        part @ 7..10 => near(random, ring[usize::from(part) - 7]),
        10 => 0x10_0000 + random.u64(0..0x4_0000),
        _ => 0x40_0000 + random.u64(0..0x100) * 64,
    }
}

fn len(random: &mut Rng) -> u32 {
    match random.u8(0..16) {
        0 => random.u32(..),
        1 => u32::MAX << random.u8(0..32),
        2 => 0,
        3 => random.u32(0..END as u32),
        4 => 16 * random.u32(0..=u32::from(LONGEST_CHAIN) + 1),
        5..8 => 512 * random.u32(1..8),
        8 => 1,
        _ => random.u32(1..200),
    }
}

/// What block, network and console devices find in buffers: requests, headers and messages that are nearly right.
fn contents(random: &mut Rng) -> Vec<u8> {
    let operation = [0, 1, 4, 8, 11, 13, random.u32(..)][random.usize(0..7)];
    let sector = [0, random.u64(0..64), 4090, u64::MAX - random.u64(0..16), u64::MAX / 512, random.u64(..)];
    let sector = sector[random.usize(0..6)];
    let mut all = [&operation.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
    match random.u8(0..4) {
        // Ranges of discards.
        0 => {
            for _ in 0..random.u8(1..40) {
                all.extend([random.u64(0..4096), random.u64(0..1 << 34)].map(u64::to_le_bytes).concat());
            }
        }
        // A header with offloads, before what may be TCP.
        1 => {
            all = vec![
                1,
                [0, 1, 4, 0x81, random.u8(..)][random.usize(0..5)],
                54,
                0,
                random.u8(..),
                0,
                34,
                0,
                16,
                0,
                0,
                0,
            ];
            all.extend([0x52; 12]);
            all.extend([8, 0, 0x45]);
            all.extend((0..random.usize(0..3000)).map(|_| random.u8(..)));
        }
        // A control message: port, event, value; or a command: class, command, data.
        2 => all = vec![random.u8(0..5), random.u8(0..4), 0, 0, random.u8(0..8), 0, random.u8(0..2), 0],
        _ => {}
    }
    all
}

/// Does something that drivers must not do, or may.
fn step<D: VirtioDevice>(random: &mut Rng, driver: &mut Driver<D>) {
    let queue = random.usize(0..driver.rings.len());
    let ring = &driver.rings[queue];
    let (size, places) = (ring.size, [ring.descriptors, ring.available, ring.used]);
    let memory = driver.bench.world.memory().clone();
    // A chain that is all right, or nearly so.
    let text = 0x40_0000 + random.u64(0..0x100) * 64;
    memory.write(text, &contents(random));
    let (inside, head) = (random.u8(0..4) == 0, random.u16(0..size / 2));
    let (table, first) = if inside { (INDIRECT, 0) } else { (places[0], head) };
    let (readable, all) = (random.u16(0..4), random.u16(1..6).min(size / 2));
    for i in 0..all {
        let next = if i + 1 < all { 1 } else { 0 };
        let (address, len, write) = match i {
            0 if readable > 0 => (text, [8, 10, 12, 16][random.usize(0..4)], 0),
            _ if i < readable => (text + 16, random.u32(1..4000), 0),
            _ if i + 1 == all => (0x80_0000, [1, 512, 513, 100_000][random.usize(0..4)], 2),
            _ => (0x81_0000, 512 * random.u32(1..4), 2),
        };
        driver.describe(table + 16 * u64::from(first + i), address, len, next | write, first + i + 1);
    }
    if inside {
        driver.describe(places[0] + 16 * u64::from(head), INDIRECT, 16 * u32::from(all), 4, 0);
    }
    if random.u8(0..3) == 0 {
        let flags = if random.bool() { random.u16(0..4) } else { random.u16(0..8) };
        let (address, len) = (address(random, &places), len(random));
        driver.describe(table + 16 * u64::from(first + random.u16(0..all)), address, len, flags, random.u16(0..9));
    }
    match random.u8(0..40) {
        // The index jumps.
        0 => memory.write(places[1] + 2, &random.u16(..).to_le_bytes()),
        // Queues are set up otherwise, while they are at work.
        1 => {
            driver.modern_write(22, 2, queue as u64);
            driver.modern_write(24, 2, 1 << random.u8(0..12));
            driver.modern_write(28, 2, random.u64(0..2));
        }
        2 => {
            driver.modern_write(22, 2, queue as u64);
            let value = address(random, &places);
            driver.modern_write([32, 40, 48][random.usize(0..3)], 8, value);
        }
        3 => {
            driver.legacy_write(14, 2, queue as u64);
            driver.legacy_write(8, 4, [0, places[0] >> 12, random.u64(..)][random.usize(0..3)]);
        }
        // Vectors, features, status.
        4 => driver.modern_write([16, 26][random.usize(0..2)], 2, random.u64(0..100)),
        5 => driver.modern_write(12, 4, random.u64(..)),
        6 => driver.legacy_write(4, 4, random.u64(..)),
        7 => driver.set_status(random.u8(..) & !(status::FAILED | status::DEVICE_NEEDS_RESET)),
        8 => driver.modern_write(random.u64(0..64), 1 << random.u8(0..4), random.u64(..)),
        9 => driver.legacy_write(random.u64(0..32), 1 << random.u8(0..3), random.u64(..)),
        10 => driver.set_config(random.u64(0..64), 1 << random.u8(0..3), random.u64(..)),
        11 => drop(driver.config(random.u64(0..64), 4)),
        12 => driver.kick(random.usize(0..1000)),
        13 => driver.start(u64::MAX),
        14 => driver.bench.poll(),
        15 => driver.bench.advance_late(random.u64(0..10_000_000)),
        _ => {
            let more = if random.u8(0..4) == 0 { random.u16(0..size) } else { 0 };
            for _ in 0..=more {
                driver.offer(queue, head);
            }
        }
    }
    driver.kick(queue);
    if driver.status() & status::DEVICE_NEEDS_RESET != 0 && random.bool() {
        let features = if random.bool() { u64::MAX } else { random.u64(..) };
        driver.start(features);
    }
}

/// How long lists and strings of a state are together.
fn weight(state: &Value) -> usize {
    match state {
        Value::Array(items) => items.iter().map(|item| 1 + weight(item)).sum(),
        Value::Object(fields) => fields.values().map(weight).sum(),
        _ => 0,
    }
}

/// Torments devices in all ways. `far` is what the far end has got since the last call, at most `most` by one step, and `works` has a good
/// driver try it.
fn torment<D: VirtioDevice, F>(
    build: impl Fn() -> (D, F),
    (far, most): (impl Fn(&F) -> usize, usize),
    works: impl Fn(&mut Driver<D>, &F),
) {
    let mut returned = 0;
    for seed in 0..SEEDS {
        println!("{} seed {seed}", D::ID);
        let mut random = Rng::with_seed(seed);
        let (device, handle) = build();
        let mut driver = Driver::new(device, WAYS[random.usize(0..4)], VirtioOptions::default());
        driver.start(if random.bool() { u64::MAX } else { random.u64(..) });
        let chains: usize = driver.rings.iter().map(|ring| usize::from(ring.size)).sum();
        for _ in 0..STEPS {
            step(&mut random, &mut driver);
            let got = far(&handle);
            returned += (0..driver.rings.len()).map(|queue| driver.used(queue).len().min(1024)).sum::<usize>();
            assert!(got <= most, "{got} at once");
        }
        let state = serde_json::to_value(driver.bench.device.state()).expect("a state is JSON");
        // A segment is no list, so each of a chain counts once; data under way are bounded by themselves.
        let limit = chains * (usize::from(LONGEST_CHAIN) + 4) + (20 << 20);
        assert!(weight(&state) <= limit, "{} are kept", weight(&state));
        driver.bench.advance(10_000_000_000);
        far(&handle);
        driver.start(if random.bool() { u64::MAX } else { 0 });
        works(&mut driver, &handle);
    }
    assert!(returned > 1000, "hardly any chain comes back: {returned}");
}

#[test]
fn hostile_driver_leaves_a_block_device_that_works() {
    let header = |operation: u32, sector: u64| [&operation.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
    let build = |clock| {
        let disk = Disk::with_image("d", false, clock, "f", Box::new(MemoryImage::zeros(4096 * 512)));
        (Block::new(disk.expect("a thread"), BlockConfig::default()), ())
    };
    let works = |driver: &mut Driver<Block>, (): &()| {
        let mut request = |operation, data: &[u8], room: &[usize]| {
            let head = header(operation, 4095);
            let readable: Vec<&[u8]> = [&head, data].into_iter().filter(|bytes| !bytes.is_empty()).collect();
            let head = driver.add(0, &readable, room);
            driver.kick(0);
            assert_eq!(driver.used_later(0).len(), 1);
            driver.room(0, head)
        };
        assert_eq!(request(1, &[0xa5; 512], &[1]), [0]);
        assert_eq!(request(0, &[], &[512, 1]), [&[0xa5; 512][..], &[0]].concat());
    };
    for clock in [ClockMode::Icount { shift: 0 }, ClockMode::Realtime] {
        torment(|| build(clock), (|()| 0, 0), works);
    }
}

#[test]
fn hostile_driver_leaves_a_network_device_that_works() {
    let build = || {
        let far = MemoryNetwork::new();
        (0..50).for_each(|i| far.deliver(&vec![i; 14 + 40 * usize::from(i)]));
        (Net::new(MacAddress::numbered(0), Box::new(far.clone()), NetOptions::default()), far)
    };
    // What the longest frame becomes, with headers.
    let most = 256 * 13 * LONGEST_FRAME;
    torment(build, (|far| far.take_sent().iter().map(Vec::len).sum(), most), |driver, far| {
        let header = vec![0; if driver.way.legacy && driver.features & 1 << 15 == 0 { 10 } else { 12 }];
        driver.request(1, &[&header, &[0xff; 60]], &[]);
        assert_eq!(far.take_sent(), [[0xff; 60]]);
        let heads: Vec<u16> = (0..60).map(|_| driver.add(0, &[], &[LONGEST_FRAME])).collect();
        driver.kick(0);
        far.deliver(&[0xff; 99]);
        driver.bench.poll();
        let (head, len) = *driver.used(0).last().expect("a frame");
        assert!(heads.contains(&head));
        assert_eq!(driver.room(0, head)[header.len()..len as usize], [0xff; 99]);
    });
}

/// A fast one.
struct Source(Rng);

impl EntropySource for Source {
    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        self.0.fill(buffer);
        buffer.len()
    }
}

#[test]
fn hostile_driver_leaves_an_entropy_device_that_works() {
    let build = || (Entropy::new(Box::new(Source(Rng::with_seed(1))), None), ());
    torment(build, (|()| 0, 0), |driver, ()| {
        assert_eq!(driver.request(0, &[], &[8, 16]).len(), 24);
    });
}

/// Counts what the guest sends.
#[derive(Clone, Default)]
struct Counter(Shared<usize>);

impl CharBackend for Counter {
    fn write(&mut self, bytes: &[u8]) -> usize {
        *self.0.lock() += bytes.len();
        bytes.len()
    }

    fn read(&mut self, _buffer: &mut [u8]) -> usize {
        0
    }
}

#[test]
fn hostile_driver_leaves_a_console_that_works() {
    let build = || {
        let (counter, talker) = (Counter::default(), MemoryBackend::new());
        talker.send(&[7; 100_000]);
        talker.set_room(Some(5000));
        let port = |number, backend: Box<dyn CharBackend>| Port { number, console: number == 0, name: None, backend };
        (Console::new(vec![port(0, Box::new(counter.clone())), port(1, Box::new(talker))], 3), counter)
    };
    // A step notifies twice at most, or polls.
    torment(build, (|counter| std::mem::take(&mut *counter.0.lock()), 4 << 20), |driver, counter| {
        assert_eq!(driver.request(1, &[b"hello"], &[]), b"");
        assert_eq!(*counter.0.lock(), 5);
    });
}

#[test]
fn hostile_driver_leaves_a_balloon_that_works() {
    torment(
        || (Balloon::new(END, true), ()),
        (|()| 0, 0),
        |driver, ()| {
            let memory = driver.bench.world.memory().clone();
            memory.write(0x100_0000, &[7; 2 * 4096]);
            driver.request(0, &[&0x1001u32.to_le_bytes()], &[]);
            let mut bytes = [1; 2 * 4096];
            memory.read(0x100_0000, &mut bytes);
            assert!(bytes[..4096].iter().all(|byte| *byte == 7) && bytes[4096..].iter().all(|byte| *byte == 0));
        },
    );
}
