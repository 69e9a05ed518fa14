//! Conversations with the controller, as drivers hold them.

use super::*;
use crate::dma::i8237::Dma;
use crate::storage::block::{Disk, Media};
use crate::storage::image::MemoryImage;
use crate::testbench::{Bench, IrqRecorder, World};
use emu_core::clock::ClockMode;
use std::sync::Arc;

const BUFFER: u64 = 0x1_0000;

struct Rig {
    fdc: Bench<Fdc>,
    dma: Bench<Dma>,
    irq: Arc<IrqRecorder>,
    image: MemoryImage,
    media: Media,
}

/// A diskette whose sectors begin with their number.
fn diskette(len: usize) -> MemoryImage {
    let mut bytes = vec![0; len];
    for (n, sector) in bytes.chunks_mut(512).enumerate() {
        sector.fill(n as u8);
        sector[0] = (n >> 8) as u8;
    }
    MemoryImage::new(bytes)
}

impl Rig {
    fn new(image: MemoryImage) -> Rig {
        let world = World::new(2 << 20);
        let irq = world.irq_recorder();
        let dma = Bench::in_world(Dma::default(), &world);
        let clock = ClockMode::Icount { shift: 0 };
        let disk = Disk::with_image("floppy0", true, clock, "a.img", Box::new(image.clone())).unwrap();
        let media = disk.media();
        let empty = Disk::new("floppy1", true, clock).unwrap();
        let drives = [Some(Drive::new(disk)), Some(Drive::new(empty))];
        let fdc = Fdc::new(irq.line(6), dma.device.channel(2), drives);
        let fdc = Bench::in_world(fdc, &world);
        Rig { fdc, dma, irq, image, media }
    }

    /// After reset, SPECIFY and RECALIBRATE, with motors on, at `rate`.
    fn ready(image: MemoryImage, rate: u8) -> Rig {
        let mut rig = Rig::new(image);
        rig.fdc.out8(0x3f2, 0x3c);
        rig.fdc.advance(1_000_000);
        for unit in 0..4 {
            assert_eq!(rig.command(&[0x08], 2), [0xc0 | unit, 0]);
        }
        rig.command(&[0x03, 0xdf, 0x02], 0);
        rig.fdc.out8(0x3f7, rate);
        rig.command(&[0x07, 0], 0);
        rig.fdc.advance(100_000_000);
        assert_eq!(rig.command(&[0x08], 2), [0x20, 0]);
        rig.irq.take();
        rig
    }

    /// Sends a command and reads a result that comes at once.
    fn command(&mut self, bytes: &[u8], results: usize) -> Vec<u8> {
        for byte in bytes {
            assert_eq!(self.fdc.in8(0x3f4) & 0xc0, 0x80, "ready for {byte:02x} of {bytes:02x?}");
            self.fdc.out8(0x3f5, *byte);
        }
        self.result(results)
    }

    fn result(&mut self, results: usize) -> Vec<u8> {
        let result = (0..results)
            .map(|i| {
                assert_eq!(self.fdc.in8(0x3f4) & 0xf0, 0xd0, "result byte {i}");
                self.fdc.in8(0x3f5)
            })
            .collect();
        assert!(self.fdc.in8(0x3f4) & 0x40 == 0, "more results than {results}");
        result
    }

    /// A command with an execution phase by DMA: its seven result bytes.
    fn transfer(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.command(bytes, 0);
        assert_eq!(self.fdc.in8(0x3f4), 0x10);
        self.fdc.advance(2_000_000_000);
        assert_eq!(self.irq.take_rises(6), 1);
        self.result(7)
    }

    fn program_dma(&mut self, mode: u8, len: usize) {
        let count = (len - 1) as u16;
        for (port, value) in [(0x0a, 6), (0x0c, 0), (0x0b, mode | 2), (0x04, 0), (0x04, 0), (0x81, 1)] {
            self.dma.out8(port, value);
        }
        self.dma.out8(0x05, count as u8);
        self.dma.out8(0x05, (count >> 8) as u8);
        self.dma.out8(0x0a, 2);
    }

    fn memory(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fdc.world.memory().read(BUFFER, &mut bytes);
        bytes
    }

    fn seek(&mut self, cylinder: u8) {
        self.command(&[0x0f, 0, cylinder], 0);
        self.fdc.advance(100_000_000);
        assert_eq!(self.command(&[0x08], 2), [0x20, cylinder]);
        self.irq.take();
    }
}

const TO_MEMORY: u8 = 0x44;
const FROM_MEMORY: u8 = 0x48;
const MB1_44: usize = 1_474_560;

#[test]
fn reset_announces_four_drives_and_holds_the_registers_meanwhile() {
    let mut rig = Rig::new(diskette(MB1_44));
    assert_eq!(rig.fdc.in8(0x3f4), 0);
    rig.fdc.out8(0x3f2, 0x0c);
    assert_eq!(rig.fdc.in8(0x3f4), 0);
    rig.fdc.advance(200_000);
    assert_eq!((rig.fdc.in8(0x3f4), rig.irq.take_rises(6)), (0x80, 1));
    for unit in 0..4 {
        assert_eq!(rig.command(&[0x08], 2), [0xc0 | unit, 0]);
    }
    assert_eq!(rig.command(&[0x08], 1), [0x80]);
    assert!(!rig.irq.line(6).is_high());
}

#[test]
fn identification_is_that_of_an_82078() {
    let mut rig = Rig::ready(diskette(MB1_44), 0);
    assert_eq!(rig.command(&[0x10], 1), [0x90]);
    assert_eq!(rig.command(&[0x18], 1), [0x01]);
    assert_eq!((rig.command(&[0x94], 1), rig.command(&[0x14], 1)), (vec![0x10], vec![0x00]));
    assert_eq!(rig.command(&[0x1f], 1), [0x80]);
    rig.command(&[0x13, 0, 0x57, 3], 0);
    rig.command(&[0x12, 0x84], 0);
    assert_eq!(rig.command(&[0x0e], 10), [0, 0, 0, 0, 0xdf, 0x02, 0, 0x04, 0x57, 3]);
    // LOCK keeps the FIFO's parameters over a software reset.
    rig.command(&[0x94], 1);
    rig.fdc.out8(0x3f4, 0x80);
    rig.fdc.advance(1_000_000);
    (0..4).for_each(|_| drop(rig.command(&[0x08], 2)));
    assert_eq!(rig.command(&[0x0e], 10)[8..], [0x07, 3]);
}

#[test]
fn read_by_dma_ends_normally_at_terminal_count() {
    let mut rig = Rig::ready(diskette(MB1_44), 0);
    rig.program_dma(TO_MEMORY, 1024);
    assert_eq!(rig.transfer(&[0xe6, 0, 0, 0, 2, 2, 18, 0x1b, 0xff]), [0, 0, 0, 0, 0, 4, 2]);
    let memory = rig.memory(1025);
    assert_eq!((memory[1], memory[513], memory[1024]), (1, 2, 0));
    assert_eq!(rig.fdc.in8(0x3f4), 0x80);
}

#[test]
fn multi_track_read_goes_over_to_the_other_side() {
    let mut rig = Rig::ready(diskette(MB1_44), 0);
    rig.seek(3);
    rig.program_dma(TO_MEMORY, 36 * 512);
    assert_eq!(rig.transfer(&[0xe6, 0, 3, 0, 1, 2, 18, 0x1b, 0xff]), [4, 0, 0, 4, 0, 1, 2]);
    let memory = rig.memory(36 * 512);
    assert!((0..36).all(|n| memory[n * 512 + 1] == (108 + n) as u8));
}

#[test]
fn read_without_terminal_count_ends_at_the_end_of_the_cylinder() {
    let mut rig = Rig::ready(diskette(MB1_44), 0);
    rig.program_dma(TO_MEMORY, 0x8000);
    assert_eq!(rig.transfer(&[0x46, 0, 0, 0, 17, 2, 18, 0x1b, 0xff]), [0x40, 0x80, 0, 1, 0, 1, 2]);
}

#[test]
fn write_by_dma_reaches_the_image() {
    let mut rig = Rig::ready(diskette(MB1_44), 0);
    rig.fdc.world.memory().write(BUFFER, &[0xa5; 700]);
    rig.program_dma(FROM_MEMORY, 700);
    assert_eq!(rig.transfer(&[0xc5, 4, 0, 1, 5, 2, 18, 0x1b, 0xff]), [4, 0, 0, 0, 1, 7, 2]);
    let at = (18 + 4) * 512;
    let bytes = rig.image.bytes();
    assert_eq!(bytes[at..at + 700], [0xa5; 700]);
    assert_eq!(bytes[at + 700..at + 1024], [0; 324], "zeros fill the sector up");
    assert_eq!(bytes[at + 1025], 24);
}

#[test]
fn write_protected_medium_is_not_writable() {
    let image = diskette(MB1_44);
    image.set_read_only(true);
    let mut rig = Rig::ready(image, 0);
    rig.program_dma(FROM_MEMORY, 512);
    assert_eq!(rig.transfer(&[0xc5, 0, 0, 0, 1, 2, 18, 0x1b, 0xff])[..3], [0x40, 0x02, 0]);
    assert_eq!(rig.transfer(&[0x4d, 0, 2, 18, 0x50, 0xf6])[..3], [0x40, 0x02, 0]);
    assert_eq!(rig.command(&[0x04, 0], 1), [0x78]);
}

#[test]
fn unreadable_is_told_by_the_kind_of_mark_that_is_missing() {
    let mut rig = Rig::ready(diskette(MB1_44), 0);
    let read = |c, h, r, n| [0xe6, h << 2, c, h, r, n, 18, 0x1b, 0xff];
    rig.program_dma(TO_MEMORY, 512);
    // Sector 19, a cylinder beyond the last, another size.
    assert_eq!(rig.transfer(&read(0, 0, 19, 2)), [0x40, 0x04, 0, 0, 0, 19, 2]);
    assert_eq!(rig.transfer(&read(90, 0, 1, 2))[..2], [0x40, 0x01]);
    assert_eq!(rig.transfer(&read(0, 0, 1, 3))[..2], [0x40, 0x04]);
    // FM, another data rate, motor off, no medium, no drive.
    assert_eq!(rig.transfer(&[0xa6, 0, 0, 0, 1, 2, 18, 0x1b, 0xff])[..2], [0x40, 0x01]);
    rig.fdc.out8(0x3f7, 2);
    assert_eq!(rig.transfer(&read(0, 0, 1, 2))[..2], [0x40, 0x01]);
    rig.fdc.out8(0x3f7, 0);
    rig.fdc.out8(0x3f2, 0x0c);
    assert_eq!(rig.transfer(&read(0, 0, 1, 2))[..2], [0x40, 0x01]);
    rig.fdc.out8(0x3f2, 0xfc);
    assert_eq!(rig.transfer(&[0xe6, 1, 0, 0, 1, 2, 18, 0x1b, 0xff])[..2], [0x41, 0x01]);
    assert_eq!(rig.transfer(&[0xe6, 3, 0, 0, 1, 2, 18, 0x1b, 0xff])[..2], [0x43, 0x01]);
    assert_eq!(rig.transfer(&read(0, 0, 1, 2))[..2], [0, 0]);
}

/// As Bochs' BIOS does.
#[test]
fn reads_1440_kib_at_the_rate_after_reset() {
    let mut rig = Rig::new(diskette(MB1_44));
    rig.fdc.out8(0x3f2, 0x1c);
    rig.fdc.advance(1_000_000);
    for unit in 0..4 {
        assert_eq!(rig.command(&[0x08], 2), [0xc0 | unit, 0]);
    }
    rig.irq.take();
    rig.program_dma(TO_MEMORY, 512);
    assert_eq!(rig.transfer(&[0xe6, 0, 0, 0, 1, 2, 18, 0x1b, 0xff])[..2], [0, 0]);
}

#[test]
fn host_error_is_a_data_error_and_missing_dma_an_overrun() {
    let image = diskette(MB1_44);
    image.fail(512..1024, std::io::ErrorKind::Other);
    let mut rig = Rig::ready(image, 0);
    rig.program_dma(TO_MEMORY, 1024);
    assert_eq!(rig.transfer(&[0xe6, 0, 0, 0, 1, 2, 18, 0x1b, 0xff]), [0x40, 0x20, 0x20, 0, 0, 2, 2]);
    rig.dma.out8(0x0a, 6);
    assert_eq!(rig.transfer(&[0xe6, 0, 0, 0, 1, 2, 18, 0x1b, 0xff])[..2], [0x40, 0x10]);
}

#[test]
fn read_id_gives_the_sectors_that_pass() {
    let mut rig = Rig::ready(diskette(737_280), 2);
    rig.seek(7);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let result = rig.transfer(&[0x4a, 4]);
        assert_eq!((&result[..5], result[6]), (&[4, 0, 0, 7, 1][..], 2));
        seen.insert(result[5]);
        rig.fdc.advance(12_345);
    }
    assert_eq!(seen, (1..=9).collect());
}

#[test]
fn format_fills_the_sectors_that_the_ids_name() {
    let mut rig = Rig::ready(diskette(MB1_44), 0);
    rig.seek(2);
    let ids: Vec<u8> = (1..=18).flat_map(|r| [2, 1, r, 2]).collect();
    rig.fdc.world.memory().write(BUFFER, &ids);
    rig.program_dma(FROM_MEMORY, ids.len());
    assert_eq!(rig.transfer(&[0x4d, 4, 2, 18, 0x54, 0xf6])[..3], [4, 0, 0]);
    let bytes = rig.image.bytes();
    let start = (2 * 36 + 18) * 512;
    assert!(bytes[start..start + 18 * 512].iter().all(|b| *b == 0xf6));
    assert_eq!((bytes[start - 1], bytes[start + 18 * 512 + 1]), (89, 108));
}

#[test]
fn verify_counts_sectors_or_goes_to_the_end_of_the_cylinder() {
    let mut rig = Rig::ready(diskette(MB1_44), 0);
    assert_eq!(rig.transfer(&[0xd6, 0x80, 0, 0, 3, 2, 18, 0x1b, 5]), [0, 0, 0, 0, 0, 8, 2]);
    assert_eq!(rig.transfer(&[0xd6, 0, 0, 0, 3, 2, 18, 0x1b, 0xff]), [4, 0, 0, 1, 0, 1, 2]);
}

#[test]
fn scan_finds_the_sector_that_compares_as_asked() {
    let mut rig = Rig::ready(diskette(MB1_44), 0);
    let mut wanted = vec![4; 512];
    wanted[0] = 0xff;
    rig.fdc.world.memory().write(BUFFER, &wanted.repeat(20));
    rig.program_dma(FROM_MEMORY, 512 * 20);
    let result = rig.transfer(&[0xd1, 0, 0, 0, 3, 2, 18, 0x1b, 1]);
    assert_eq!(result, [0, 0, 0x08, 0, 0, 5, 2]);
    rig.program_dma(FROM_MEMORY, 512 * 20);
    assert_eq!(rig.transfer(&[0xdd, 0, 0, 0, 7, 2, 18, 0x1b, 1])[2], 0);
    rig.program_dma(FROM_MEMORY, 512 * 20);
    assert_eq!(rig.transfer(&[0x59, 0, 0, 0, 17, 2, 18, 0x1b, 1])[2], 0x04);
}

#[test]
fn read_track_reads_from_the_index_and_compares_ids() {
    let mut rig = Rig::ready(diskette(MB1_44), 0);
    rig.program_dma(TO_MEMORY, 0x8000);
    assert_eq!(rig.transfer(&[0x42, 0, 0, 0, 1, 2, 3, 0x1b, 0xff])[..3], [0, 0, 0]);
    assert_eq!(rig.memory(1200)[1025], 2);
    rig.program_dma(TO_MEMORY, 0x8000);
    assert_eq!(rig.transfer(&[0x42, 0, 0, 0, 5, 2, 3, 0x1b, 0xff])[..3], [0, 0x04, 0]);
}

#[test]
fn deleted_data_is_never_found() {
    let mut rig = Rig::ready(diskette(MB1_44), 0);
    rig.program_dma(TO_MEMORY, 1024);
    assert_eq!(rig.transfer(&[0x4c, 0, 0, 0, 1, 2, 18, 0x1b, 0xff])[..3], [0, 0, 0x40]);
    assert_eq!(rig.memory(600)[511..514], [0, 0, 0]);
    assert_eq!(rig.transfer(&[0x6c, 0, 0, 0, 1, 2, 18, 0x1b, 0xff])[..3], [0x40, 0x80, 0x40]);
}

#[test]
fn transfer_by_the_data_register_interrupts_and_shows_its_direction() {
    let mut rig = Rig::ready(diskette(MB1_44), 0);
    rig.command(&[0x03, 0xdf, 0x03], 0);
    rig.command(&[0x46, 0, 0, 0, 18, 2, 18, 0x1b, 0xff], 0);
    rig.fdc.advance(10_000_000);
    assert_eq!((rig.fdc.in8(0x3f4), rig.irq.take_rises(6)), (0xf0, 1));
    let bytes: Vec<u8> = (0..512).map(|_| rig.fdc.in8(0x3f5)).collect();
    assert_eq!(bytes[1..], [17; 511]);
    assert_eq!(rig.irq.take_rises(6), 512, "without a FIFO each byte asks, and then the result");
    assert_eq!(rig.result(7), [0x40, 0x80, 0, 1, 0, 1, 2]);

    rig.command(&[0x45, 0, 0, 0, 18, 2, 18, 0x1b, 0xff], 0);
    rig.fdc.advance(10_000_000);
    assert_eq!(rig.fdc.in8(0x3f4), 0xb0);
    (0..512).for_each(|_| rig.fdc.out8(0x3f5, 0x77));
    assert_eq!(rig.fdc.in8(0x3f4), 0x30);
    rig.fdc.advance(10_000_000);
    assert_eq!(rig.result(7)[..2], [0x40, 0x80]);
    assert_eq!(rig.image.bytes()[17 * 512..18 * 512], [0x77; 512]);
}

#[test]
fn seek_takes_the_step_rate_and_shows_the_drive_busy() {
    let mut rig = Rig::ready(diskette(MB1_44), 0);
    rig.command(&[0x0f, 0, 40], 0);
    assert_eq!(rig.fdc.in8(0x3f4), 0x81);
    rig.fdc.advance(3_000_000 * 40 / SPEED);
    assert_eq!((rig.fdc.in8(0x3f4), rig.irq.take_rises(6)), (0x81, 0));
    rig.fdc.advance(3_000_000 / SPEED + 1);
    assert_eq!((rig.fdc.in8(0x3f4), rig.irq.take_rises(6)), (0x80, 1));
    assert_eq!(rig.command(&[0x08], 2), [0x20, 40]);
    rig.command(&[0x8f, 0, 10], 0);
    rig.fdc.advance(100_000_000);
    assert_eq!(rig.command(&[0x08], 2), [0x20, 30]);
    // A drive that is not there never reports track 0.
    rig.command(&[0x07, 2], 0);
    rig.fdc.advance(100_000_000);
    assert_eq!(rig.command(&[0x08], 2), [0x72, 0]);
}

#[test]
fn implied_seek_moves_the_head_first() {
    let mut rig = Rig::ready(diskette(MB1_44), 0);
    rig.command(&[0x13, 0, 0x47, 0], 0);
    rig.program_dma(TO_MEMORY, 512);
    assert_eq!(rig.transfer(&[0xe6, 0, 9, 0, 1, 2, 18, 0x1b, 0xff])[..4], [0x20, 0, 0, 9]);
    assert_eq!(rig.memory(2)[1], (9 * 36 % 256) as u8);
}

#[test]
fn reads_seek_without_implied_seeks_too_but_do_not_say_so() {
    let mut rig = Rig::ready(diskette(MB1_44), 0);
    rig.program_dma(TO_MEMORY, 512);
    assert_eq!(rig.transfer(&[0xe6, 0, 9, 0, 1, 2, 18, 0x1b, 0xff])[..4], [0, 0, 0, 9]);
    assert_eq!(rig.memory(2)[1], (9 * 36 % 256) as u8);
}

#[test]
fn change_line_is_up_until_a_step_with_a_medium() {
    let mut rig = Rig::ready(diskette(MB1_44), 0);
    assert_eq!(rig.fdc.in8(0x3f7), 0x80, "as at power-on");
    rig.seek(1);
    assert_eq!(rig.fdc.in8(0x3f7), 0x00);
    rig.media.eject(false).unwrap();
    assert_eq!(rig.fdc.in8(0x3f7), 0x80);
    rig.seek(0);
    assert_eq!(rig.fdc.in8(0x3f7), 0x80);
    rig.media.insert("b.img", Box::new(diskette(737_280)), false).unwrap();
    assert_eq!(rig.fdc.in8(0x3f7), 0x80);
    rig.seek(1);
    assert_eq!(rig.fdc.in8(0x3f7), 0x00);
    assert_eq!(rig.fdc.device.drive_types(), [4, 4]);
    rig.fdc.out8(0x3f7, 2);
    assert_eq!(rig.transfer(&[0x4a, 0])[..4], [0, 0, 0, 1]);
}

#[test]
fn every_format_reads_its_last_sector() {
    let formats = [(160, 40, 1, 8, 2), (180, 40, 1, 9, 2), (320, 40, 2, 8, 2), (360, 40, 2, 9, 2), (720, 80, 2, 9, 2)];
    let more = [(1200, 80, 2, 15, 0), (1440, 80, 2, 18, 0), (1680, 80, 2, 21, 0), (1722, 82, 2, 21, 0)];
    for (kib, cylinders, heads, sectors, rate) in formats.into_iter().chain(more).chain([(2880, 80, 2, 36, 3)]) {
        let mut rig = Rig::ready(diskette(kib * 1024), rate);
        rig.seek(cylinders - 1);
        rig.program_dma(TO_MEMORY, 512);
        let head = heads - 1;
        let result = rig.transfer(&[0x46, head << 2, cylinders - 1, head, sectors, 2, sectors, 0x1b, 0xff]);
        assert_eq!(result[..3], [head << 2, 0, 0], "{kib} KiB");
        assert_eq!(rig.memory(2)[1], (kib * 2 - 1) as u8, "{kib} KiB");
    }
}

#[test]
fn short_image_is_blank_beyond_its_end() {
    let mut rig = Rig::ready(diskette(512), 0);
    rig.fdc.world.memory().write(BUFFER, &[9; 1024]);
    rig.program_dma(TO_MEMORY, 1024);
    assert_eq!(rig.transfer(&[0xe6, 0, 0, 0, 1, 2, 18, 0x1b, 0xff])[..3], [0, 0, 0]);
    assert_eq!(rig.memory(1024)[512..], [0; 512]);
    rig.program_dma(FROM_MEMORY, 512);
    assert_eq!(rig.transfer(&[0xc5, 0, 0, 0, 2, 2, 18, 0x1b, 0xff])[..3], [0x40, 0x20, 0x20]);
}

#[test]
fn reset_in_the_middle_of_a_transfer_forgets_it() {
    let mut rig = Rig::ready(diskette(MB1_44), 0);
    rig.program_dma(TO_MEMORY, 512);
    rig.command(&[0xe6, 0, 0, 0, 1, 2, 18, 0x1b, 0xff], 0);
    rig.fdc.out8(0x3f2, 0x38);
    rig.fdc.out8(0x3f2, 0x3c);
    rig.fdc.advance(1_000_000_000);
    assert_eq!((rig.fdc.in8(0x3f4), rig.irq.take_rises(6)), (0x80, 1));
}

#[test]
fn interrupt_stays_off_without_the_dma_gate() {
    let mut rig = Rig::new(diskette(MB1_44));
    rig.fdc.out8(0x3f2, 0x04);
    rig.fdc.advance(1_000_000);
    assert_eq!(rig.irq.take_rises(6), 0);
    rig.fdc.out8(0x3f2, 0x0c);
    assert_eq!(rig.irq.take_rises(6), 1);
}

#[test]
fn state_carries_a_transfer_to_another_controller() {
    let mut rig = Rig::ready(diskette(MB1_44), 0);
    let mut other = Rig::ready(diskette(MB1_44), 0);
    rig.command(&[0xe6, 0, 0, 0, 1, 2, 18, 0x1b, 0xff], 0);
    rig.fdc.copy_state_to(&mut other.fdc);
    other.program_dma(TO_MEMORY, 512);
    other.fdc.advance(1_000_000_000);
    assert_eq!(other.result(7), [0, 0, 0, 0, 0, 2, 2]);
}
