use super::*;
use crate::storage::image::MemoryImage;
use crate::virtio::driver::{Driver, WAYS, Way};
use crate::virtio::pci::VirtioOptions;
use crate::virtio::status;
use emu_core::clock::ClockMode;
use emu_core::device::Device;
use std::io;

/// A disk in deterministic time: what is submitted has come after enough virtual time.
const CLOCK: ClockMode = ClockMode::Icount { shift: 0 };
const SECTORS: usize = 4096;

fn pattern() -> Vec<u8> {
    (0..SECTORS * 512).map(|i| (i / 512 * 7 + i) as u8).collect()
}

fn driver_with(way: Way, image: &MemoryImage, config: BlockConfig) -> Driver<Block> {
    driver_in(way, image, config, CLOCK)
}

fn driver_in(way: Way, image: &MemoryImage, config: BlockConfig, clock: ClockMode) -> Driver<Block> {
    let disk = Disk::with_image("drive", false, clock, "file", Box::new(image.clone())).unwrap();
    let mut driver = Driver::new(Block::new(disk, config), way, VirtioOptions::default());
    driver.start(!crate::virtio::feature::RING_EVENT_IDX);
    driver
}

fn driver(way: Way) -> (Driver<Block>, MemoryImage) {
    let image = MemoryImage::new(pattern());
    (driver_with(way, &image, BlockConfig { serial: "serial-number".into(), ..BlockConfig::default() }), image)
}

fn header(operation: u32, sector: u64) -> Vec<u8> {
    [&operation.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

/// Sends a request and waits for it: data and status.
fn request(driver: &mut Driver<Block>, operation: u32, sector: u64, data: &[u8], room: usize) -> (Vec<u8>, u8) {
    let head = driver.add(
        0,
        &[&header(operation, sector), data].into_iter().filter(|b| !b.is_empty()).collect::<Vec<_>>(),
        &[room, 1].into_iter().filter(|n| *n > 0).collect::<Vec<_>>(),
    );
    driver.kick(0);
    let used = driver.used_later(0);
    assert_eq!(used.iter().map(|(head, _)| *head).collect::<Vec<_>>(), [head]);
    assert_eq!(driver.interrupts(), driver.interrupt_of(0));
    let mut answer = driver.room(0, head);
    let status = answer.pop().unwrap();
    answer.truncate(used[0].1 as usize - 1);
    (answer, status)
}

#[test]
fn sectors_are_read_and_written_in_all_ways() {
    for way in WAYS {
        let (mut driver, image) = driver(way);
        assert_eq!(driver.config(0, 8), SECTORS as u64);
        assert_eq!(driver.config(12, 4), 254, "seg_max");
        assert_eq!(driver.config(20, 4), 512, "blk_size");
        assert_eq!(request(&mut driver, 0, 3, &[], 1024), (pattern()[3 * 512..5 * 512].to_vec(), 0));
        assert_eq!(request(&mut driver, 1, 7, &[0xab; 512], 0), (vec![], 0));
        assert_eq!(
            &image.bytes()[7 * 512 - 1..8 * 512 + 1],
            [&pattern()[7 * 512 - 1..7 * 512], &[0xab; 512], &pattern()[8 * 512..8 * 512 + 1]].concat()
        );
        assert_eq!(request(&mut driver, 0, 7, &[], 512).0, [0xab; 512]);
        assert_eq!(request(&mut driver, 4, 0, &[], 0), (vec![], 0));
        assert_eq!(image.flushes(), 1);
        let (id, status) = request(&mut driver, 8, 0, &[], 20);
        assert_eq!((id.as_slice(), status), (&b"serial-number\0\0\0\0\0\0\0"[..], 0));
    }
}

#[test]
fn many_requests_are_under_way_and_come_back_together() {
    let (mut driver, _) = driver(WAYS[0]);
    let heads: Vec<u16> = (0..8).map(|i| driver.add(0, &[&header(0, 10 * i)], &[512, 1])).collect();
    driver.kick(0);
    assert!(driver.used(0).is_empty());
    driver.bench.advance_late(1_000_000_000);
    let used: Vec<u16> = driver.used(0).iter().map(|(head, _)| *head).collect();
    assert_eq!((used, driver.interrupts()), (heads.clone(), vec![1]), "one interrupt");
    for (i, head) in heads.into_iter().enumerate() {
        assert_eq!(driver.room(0, head)[..512], pattern()[5120 * i..5120 * i + 512]);
    }
}

#[test]
fn request_longer_than_the_disk_takes_at_once_is_broken_up() {
    for clock in [CLOCK, ClockMode::Realtime] {
        let image = MemoryImage::new(pattern());
        let mut driver = driver_in(WAYS[0], &image, BlockConfig::default(), clock);
        let room = (SECTORS - 1) * 512;
        assert_eq!(request(&mut driver, 0, 1, &[], room), (pattern()[512..].to_vec(), 0));
        let data: Vec<u8> = pattern().iter().rev().copied().collect();
        assert_eq!(request(&mut driver, 1, 0, &data, 0), (vec![], 0));
        assert!(image.bytes() == data);
    }
}

#[test]
fn requests_beyond_the_disk_or_of_odd_length_fail() {
    let (mut driver, image) = driver(WAYS[1]);
    let last = SECTORS as u64;
    for (operation, sector, data, room, expected) in [
        (0, last, &[][..], 512, 1),
        (0, last - 1, &[], 1024, 1),
        (0, u64::MAX / 512, &[], 512, 1),
        (0, u64::MAX, &[], 512, 1),
        (0, 0, &[], 511, 1),
        (1, last, &[1; 512], 0, 1),
        (1, 0, &[1; 100], 0, 1),
        (0, last - 1, &[], 512, 0),
        (2, 0, &[], 512, 2),
        (77, 0, &[], 0, 2),
    ] {
        assert_eq!(request(&mut driver, operation, sector, data, room).1, expected, "{operation} {sector}");
    }
    assert!(image.bytes() == pattern());
    image.fail(512..1024, io::ErrorKind::Other);
    assert_eq!(request(&mut driver, 0, 0, &[], 2048).1, 1);
    assert_eq!(request(&mut driver, 0, 2, &[], 512).1, 0);
}

#[test]
fn discards_and_zeros_have_one_range_within_the_disk() {
    let (mut driver, image) = driver(WAYS[0]);
    let range = |sector: u64, sectors: u32, flags: u32| {
        [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
    };
    assert_eq!(request(&mut driver, 13, 0, &range(2, 3, 0), 0).1, 0);
    assert_eq!(request(&mut driver, 13, 0, &range(8, 1, 1), 0).1, 0);
    assert!(
        image.bytes()[2 * 512..5 * 512].iter().all(|b| *b == 0)
            && image.bytes()[5 * 512..8 * 512] == pattern()[5 * 512..8 * 512]
    );
    assert_eq!(request(&mut driver, 11, 0, &range(0, SECTORS as u32, 0), 0).1, 0);
    for (operation, data, expected) in [
        (13, range(2, 3, 2), 2),
        (11, range(2, 3, 1), 2),
        (13, range(SECTORS as u64, 1, 0), 1),
        (11, range(u64::MAX, 1, 0), 1),
        (11, range(0, u32::MAX, 0), 1),
        (11, vec![0; 15], 1),
        (11, vec![0; 32], 1),
    ] {
        assert_eq!(request(&mut driver, operation, 0, &data, 0).1, expected);
    }
}

#[test]
fn writes_are_durable_at_once_without_a_write_cache() {
    let (mut driver, image) = driver(WAYS[0]);
    assert_eq!(driver.config(32, 1), 1);
    request(&mut driver, 1, 0, &[1; 512], 0);
    assert_eq!(image.flushes(), 0);
    driver.set_config(32, 1, 0);
    assert_eq!(driver.config(32, 1), 0);
    request(&mut driver, 1, 0, &[1; 512], 0);
    assert_eq!(image.flushes(), 1);
    // A driver that knows no flushes.
    driver.start(0);
    request(&mut driver, 1, 0, &[1; 512], 0);
    assert_eq!((driver.config(32, 1), image.flushes()), (1, 2));
}

#[test]
fn read_only_disk_says_so_and_refuses_writes() {
    let image = MemoryImage::new(pattern());
    image.set_read_only(true);
    let mut driver = driver_with(WAYS[2], &image, BlockConfig::default());
    assert_eq!(driver.offered() & (feature::RO | feature::DISCARD | feature::WRITE_ZEROES), feature::RO);
    assert_eq!(request(&mut driver, 1, 0, &[1; 512], 0).1, 1);
    assert_eq!(request(&mut driver, 13, 0, &[0; 16], 0).1, 2);
}

#[test]
fn requests_without_header_or_status_stop_the_device() {
    for (data, room) in [(&[0u8; 15][..], &[1][..]), (&[0; 16], &[])] {
        let (mut driver, _) = driver(WAYS[0]);
        driver.add(0, &[data], room);
        driver.kick(0);
        assert_ne!(driver.status() & status::DEVICE_NEEDS_RESET, 0);
        driver.start(0);
        assert_eq!(request(&mut driver, 0, 0, &[], 512).1, 0);
    }
}

#[test]
fn logical_blocks_can_be_larger_than_sectors() {
    let config = BlockConfig { logical_block: 4096, physical_block: 8192, ..BlockConfig::default() };
    let mut driver = driver_with(WAYS[0], &MemoryImage::new(pattern()), config);
    assert_eq!((driver.config(20, 4), driver.config(24, 1), driver.config(0, 8)), (4096, 1, SECTORS as u64));
    assert_eq!(request(&mut driver, 0, 8, &[], 4096).1, 0);
    assert_eq!(request(&mut driver, 0, 1, &[], 4096).1, 1);
    assert_eq!(request(&mut driver, 0, 0, &[], 512).1, 1);
}

#[test]
fn requests_under_way_move_to_another_device_and_are_forgotten_by_a_reset() {
    let (mut driver, image) = driver(WAYS[0]);
    let head = driver.add(0, &[&header(0, 5)], &[512, 1]);
    driver.kick(0);
    let mut other = Driver::in_world(
        Block::new(Disk::with_image("d", false, CLOCK, "f", Box::new(image)).unwrap(), BlockConfig::default()),
        WAYS[0],
        VirtioOptions::default(),
        &driver.bench.world.clone(),
    );
    driver.bench.copy_state_to(&mut other.bench);
    driver.set_status(0);
    driver.bench.advance(1_000_000_000);
    assert!(driver.used(0).is_empty());
    other.rings = std::mem::take(&mut driver.rings);
    other.bench.advance(1_000_000_000);
    assert_eq!(other.used(0), [(head, 513)]);
    assert_eq!(other.room(0, head)[..512], pattern()[5 * 512..6 * 512]);
}

#[test]
fn reset_ends_what_the_disk_does_in_guest_memory() {
    let image = MemoryImage::new(pattern());
    let mut driver = driver_in(WAYS[0], &image, BlockConfig::default(), ClockMode::Realtime);
    image.hold(true);
    let head = driver.add(0, &[&header(0, 5)], &[512, 1]);
    driver.kick(0);
    driver.set_status(0);
    let (room, _) = driver.rings[0].rooms[usize::from(head)][0];
    image.hold(false);
    driver.start(0);
    let after = request(&mut driver, 0, 9, &[], 512);
    assert_eq!(after, (pattern()[9 * 512..10 * 512].to_vec(), 0));
    let mut there = [1; 512];
    driver.bench.world.memory().read(room, &mut there);
    assert_eq!(there, [0; 512]);
}

#[test]
fn driver_that_takes_descriptors_of_requests_under_way_is_stopped() {
    let (mut driver, _) = driver(WAYS[0]);
    for _ in 0..2 * QUEUE_SIZE {
        driver.add(0, &[&header(4, 0)], &[1]);
        driver.kick(0);
    }
    assert_ne!(driver.status() & status::DEVICE_NEEDS_RESET, 0);
    let state = driver.bench.device.state();
    assert!(state.device.pending.len() <= QUEUE_SIZE.into(), "{} are under way", state.device.pending.len());
}
