//! Conversations with disks and CD-ROM drives.

use super::drive::error::{ABRT, IDNF, UNC};
use super::drive::status::{BSY, DRDY, DRQ, DSC, ERR};
use super::*;
use crate::storage::block::Disk;
use crate::storage::image::MemoryImage;
use crate::testbench::{Bench, IrqRecorder, World};
use emu_core::clock::ClockMode;
use std::io::ErrorKind;
use std::sync::Arc;

const ICOUNT: ClockMode = ClockMode::Icount { shift: 0 };
const MASTER: u16 = 0xc000;
const PRDS: u64 = 0x1000;
/// Long enough for any one request.
const SOON: u64 = 2_000_000;

struct Pc {
    bench: Bench<Ide>,
    irq: Arc<IrqRecorder>,
    clock: ClockMode,
}

fn pc(drives: Vec<(usize, Kind, MemoryImage)>) -> Pc {
    pc_with(ICOUNT, drives.into_iter().map(|(unit, kind, image)| (unit, kind, image, Names::default())).collect())
}

fn pc_with(clock: ClockMode, drives: Vec<(usize, Kind, MemoryImage, Names)>) -> Pc {
    let world = World::new(4 << 20);
    let irq = world.irq_recorder();
    let mut ide = Ide::new([irq.line(14), irq.line(15)]);
    for (unit, kind, image, names) in drives {
        let disk = Disk::with_image("test", kind == Kind::CdRom, clock, "memory", Box::new(image)).unwrap();
        ide.connect(unit, DriveConfig { kind, disk, names });
    }
    let config = ide.config();
    let mut bench = Bench::in_world(ide, &world);
    bench.map(Space::Port, Region { base: MASTER.into(), len: 16 }, BUS_MASTER_TAG);
    config.lock().write(reg::COMMAND, 2, (command::IO | command::MASTER).into());
    Pc { bench, irq, clock }
}

fn pattern(sectors: usize) -> Vec<u8> {
    (0..sectors * 512).map(|i| (i / 512 * 7 + i % 251) as u8).collect()
}

fn disk(sectors: usize) -> (Pc, MemoryImage) {
    let image = MemoryImage::new(pattern(sectors));
    (pc(vec![(0, Kind::Disk, image.clone())]), image)
}

/// The same whose disk takes as long as the host does.
fn real_time_disk(sectors: usize) -> (Pc, MemoryImage) {
    let image = MemoryImage::new(pattern(sectors));
    (pc_with(ClockMode::Realtime, vec![(0, Kind::Disk, image.clone(), Names::default())]), image)
}

impl Pc {
    /// LBA28 registers of drive 0, then the command.
    fn command(&mut self, code: u8, lba: u32, count: u8) {
        self.bench.out8(0x1f2, count);
        self.bench.out8(0x1f3, lba as u8);
        self.bench.out8(0x1f4, (lba >> 8) as u8);
        self.bench.out8(0x1f5, (lba >> 16) as u8);
        self.bench.out8(0x1f6, 0xe0 | (lba >> 24) as u8 & 15);
        self.bench.out8(0x1f7, code);
    }

    fn alternate(&mut self) -> u8 {
        self.bench.in8(0x3f6)
    }

    fn wait(&mut self) {
        self.bench.advance(SOON);
        while self.clock == ClockMode::Realtime && self.alternate() & BSY != 0 {
            std::thread::yield_now();
        }
    }

    fn rises(&mut self) -> usize {
        self.irq.take_rises(14)
    }

    fn words(&mut self, bytes: usize) -> Vec<u8> {
        (0..bytes / 2).flat_map(|_| self.bench.in16(0x1f0).to_le_bytes()).collect()
    }

    fn send(&mut self, bytes: &[u8]) {
        bytes.chunks(2).for_each(|pair| self.bench.out16(0x1f0, u16::from_le_bytes([pair[0], pair[1]])));
    }

    /// READ or WRITE DMA EXT of `count` sectors from sector 0, to or from memory at 1 MiB.
    fn long_dma(&mut self, write: bool, count: u16) {
        let region = |n: u32| (0x10_0000 + (n << 16), (u32::from(count) * 512 - (n << 16)).min(0x1_0000));
        let regions: Vec<_> = (0..u32::from(count).div_ceil(128)).map(region).collect();
        self.prds(&regions);
        for (port, value) in [(0x1f2, count.to_be_bytes()), (0x1f3, [0; 2]), (0x1f4, [0; 2]), (0x1f5, [0; 2])] {
            value.iter().for_each(|byte| self.bench.out8(port, *byte));
        }
        self.bench.out8(0x1f6, 0x40);
        self.bench.out8(0x1f7, if write { 0x35 } else { 0x25 });
        self.bench.out8(MASTER, if write { 0x01 } else { 0x09 });
    }

    /// Waits until the drive is not busy; status, error, and the address of the sector where it stands.
    fn end_of_dma(&mut self) -> (u8, u8, u16) {
        let done = (0..100).find(|_| {
            self.wait();
            self.alternate() & (BSY | DRQ) == 0
        });
        assert!(done.is_some(), "the transfer does not end");
        self.bench.out8(MASTER, 0x00);
        let address = u16::from_le_bytes([self.bench.in8(0x1f3), self.bench.in8(0x1f4)]);
        (self.bench.in8(0x1f7), self.bench.in8(0x1f1), address)
    }

    /// A descriptor table: regions and their lengths, the last with EOT.
    fn prds(&mut self, regions: &[(u32, u32)]) {
        let mut table = Vec::new();
        for (i, (base, len)) in regions.iter().enumerate() {
            let eot = if i + 1 == regions.len() { 1 << 31 } else { 0 };
            table.extend(base.to_le_bytes());
            table.extend((len & 0xffff | eot).to_le_bytes());
        }
        self.bench.world.memory().write(PRDS, &table);
        self.bench.out32(MASTER + 4, PRDS as u32);
    }

    fn memory(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.bench.world.memory().read(at, &mut bytes);
        bytes
    }
}

#[test]
fn pio_read_gives_each_sector_with_an_interrupt_and_ends_without_one() {
    let (mut pc, image) = disk(8);
    pc.command(0x20, 2, 3);
    assert_eq!((pc.alternate(), pc.rises()), (BSY | DSC, 0));
    pc.wait();
    for sector in 2..5 {
        assert_eq!(pc.rises(), 1);
        assert_eq!(pc.alternate(), DRDY | DSC | DRQ);
        assert_eq!(pc.bench.in8(0x1f7), DRDY | DSC | DRQ);
        assert_eq!(pc.words(512), image.bytes()[sector * 512..][..512]);
    }
    assert_eq!((pc.alternate(), pc.rises()), (DRDY | DSC, 0));
    assert_eq!((pc.bench.in8(0x1f3), pc.bench.in8(0x1f2)), (4, 0));
}

#[test]
fn pio_write_takes_the_first_sector_without_an_interrupt_and_stores_all() {
    let (mut pc, image) = disk(8);
    pc.command(0x30, 1, 2);
    assert_eq!((pc.alternate(), pc.rises()), (DRDY | DSC | DRQ, 0));
    pc.send(&[0xaa; 512]);
    assert_eq!((pc.bench.in8(0x1f7), pc.rises()), (DRDY | DSC | DRQ, 1));
    pc.send(&[0xbb; 512]);
    assert_eq!((pc.alternate(), pc.rises()), (BSY | DSC, 0));
    pc.wait();
    assert_eq!((pc.bench.in8(0x1f7), pc.rises()), (DRDY | DSC, 1));
    assert_eq!(image.bytes()[512..1536], [vec![0xaa; 512], vec![0xbb; 512]].concat());
}

#[test]
fn long_transfers_go_in_runs_and_multiple_blocks_may_be_partial() {
    let (mut pc, image) = disk(300);
    pc.command(0xc4, 0, 10);
    assert_eq!((pc.alternate(), pc.bench.in8(0x1f1)), (DRDY | DSC | ERR, ABRT));
    pc.command(0xc6, 0, 16);
    assert_eq!(pc.bench.in8(0x1f7), DRDY | DSC);
    pc.rises();
    pc.command(0xc4, 0, 250);
    let mut read = Vec::new();
    while read.len() < 250 * 512 {
        pc.wait();
        assert_eq!((pc.rises(), pc.bench.in8(0x1f7)), (1, DRDY | DSC | DRQ), "{}", read.len());
        let block = (250 * 512 - read.len()).min(16 * 512);
        read.extend(pc.words(block));
    }
    assert_eq!(read, image.bytes()[..250 * 512]);
    pc.command(0xc5, 10, 200);
    for chunk in vec![0x77; 200 * 512].chunks(16 * 512) {
        pc.wait();
        assert_eq!(pc.bench.in8(0x1f7), DRDY | DSC | DRQ);
        pc.send(chunk);
    }
    pc.wait();
    assert_eq!(pc.bench.in8(0x1f7), DRDY | DSC);
    assert!(image.bytes()[10 * 512..210 * 512].iter().all(|b| *b == 0x77));
}

#[test]
fn dma_scatters_over_descriptors_and_sets_the_interrupt_bit() {
    scatter_over_descriptors(disk(300));
    scatter_over_descriptors(real_time_disk(300));
}

fn scatter_over_descriptors((mut pc, image): (Pc, MemoryImage)) {
    image.hold(true);
    pc.prds(&[(0x2000, 0x600), (0x1_0000, 0), (0x4_0000, 0xc200)]);
    let total = 0x600 + 0x1_0000 + 0xc200;
    pc.bench.out8(MASTER, 0x08);
    pc.command(0xc8, 0, (total / 512) as u8);
    pc.wait();
    // The drive waits for the bus master.
    assert_eq!((pc.alternate(), pc.rises(), pc.bench.in8(MASTER + 2)), (DRDY | DSC | DRQ, 0, 0));
    pc.bench.out8(MASTER, 0x09);
    assert_eq!((pc.alternate(), pc.rises(), pc.bench.in8(MASTER + 2)), (BSY | DSC, 0, 1));
    image.hold(false);
    pc.wait();
    assert_eq!((pc.bench.in8(MASTER + 2), pc.rises()), (4, 1));
    assert_eq!(pc.bench.in8(0x1f7), DRDY | DSC);
    let bytes = [pc.memory(0x2000, 0x600), pc.memory(0x1_0000, 0x1_0000), pc.memory(0x4_0000, 0xc200)].concat();
    assert_eq!(bytes, image.bytes()[..total]);
    pc.bench.out8(MASTER + 2, 4);
    assert_eq!(pc.bench.in8(MASTER + 2), 0);
}

#[test]
fn dma_write_by_lba48_reaches_the_disk_and_flush_flushes_it() {
    let (mut pc, image) = disk(64);
    pc.bench.world.memory().write(0x3000, &[0x5a; 1024]);
    pc.prds(&[(0x3000, 1024)]);
    for (high, low) in [(0, 2), (0, 5), (0, 0), (0, 0)].iter().zip(0x1f2..).map(|(v, port)| ((port, v.0), (port, v.1)))
    {
        pc.bench.out8(high.0, high.1);
        pc.bench.out8(low.0, low.1);
    }
    pc.bench.out8(0x1f6, 0x40);
    pc.bench.out8(0x1f7, 0x35);
    pc.bench.out8(MASTER, 0x01);
    pc.wait();
    assert_eq!((pc.bench.in8(0x1f7), pc.rises()), (DRDY | DSC, 1));
    assert_eq!(image.bytes()[5 * 512..7 * 512], [0x5a; 1024]);
    pc.bench.out8(0x1f7, 0xea);
    pc.wait();
    assert_eq!((pc.bench.in8(0x1f7), image.flushes()), (DRDY | DSC, 1));
    // High order bytes: HOB shows what was written before.
    pc.bench.out8(0x1f3, 0x12);
    pc.bench.out8(0x1f3, 0x34);
    assert_eq!(pc.bench.in8(0x1f3), 0x34);
    pc.bench.out8(0x3f6, 0x80);
    assert_eq!(pc.bench.in8(0x1f3), 0x12);
}

#[test]
fn long_dma_goes_in_runs_and_errors_are_reported_at_their_sector_all_the_same() {
    long_dma(disk(LONG.into()), disk(LONG.into()));
    long_dma(real_time_disk(LONG.into()), real_time_disk(LONG.into()));
}

/// Sectors of a transfer in several runs.
const LONG: u16 = 4000;

fn long_dma((mut pc, image): (Pc, MemoryImage), (mut to, _): (Pc, MemoryImage)) {
    const SECTORS: u16 = LONG;
    const BAD: u64 = 2600;
    let whole = image.bytes();
    pc.long_dma(false, SECTORS);
    assert_eq!(pc.end_of_dma(), (DRDY | DSC, 0, SECTORS - 1));
    assert!(pc.memory(0x10_0000, whole.len()) == whole);
    assert_eq!(pc.rises(), 1);
    let new: Vec<u8> = whole.iter().map(|byte| !byte).collect();
    pc.bench.world.memory().write(0x10_0000, &new);
    pc.long_dma(true, SECTORS);
    assert_eq!(pc.end_of_dma(), (DRDY | DSC, 0, SECTORS - 1));
    assert!(image.bytes() == new);
    assert_eq!(pc.rises(), 1);
    // A bad sector in the second run.
    image.fail(BAD * 512..BAD * 512 + 1, ErrorKind::Other);
    pc.bench.world.memory().write(0x10_0000, &vec![0; whole.len()]);
    pc.long_dma(false, SECTORS);
    assert_eq!(pc.end_of_dma(), (DRDY | DSC | ERR, UNC, BAD as u16));
    assert!(pc.memory(0x10_0000, BAD as usize * 512) == new[..BAD as usize * 512]);
    pc.bench.world.memory().write(0x10_0000, &whole);
    pc.long_dma(true, SECTORS);
    assert_eq!(pc.end_of_dma(), (DRDY | DSC | ERR, ABRT, BAD as u16));
    assert!(image.bytes()[..BAD as usize * 512] == whole[..BAD as usize * 512]);
    image.heal();
    // What is under way when the state is saved goes on elsewhere.
    image.hold(pc.clock == ClockMode::Realtime);
    pc.long_dma(false, 1024);
    pc.bench.copy_state_to(&mut to.bench);
    let table = pc.memory(PRDS, 64);
    to.bench.world.memory().write(PRDS, &table);
    assert_eq!(to.end_of_dma(), (DRDY | DSC, 0, 1023));
    assert!(to.memory(0x10_0000, 1024 * 512) == pattern(1024));
    image.hold(false);
}

#[test]
fn bus_master_that_stops_amid_a_read_leaves_memory_alone_and_goes_on_elsewhere() {
    let (mut pc, image) = real_time_disk(16);
    image.hold(true);
    pc.prds(&[(0x2000, 2048)]);
    pc.command(0xc8, 0, 4);
    pc.bench.out8(MASTER, 0x09);
    assert_eq!(pc.alternate(), BSY | DSC);
    pc.bench.out8(MASTER, 0x00);
    image.hold(false);
    pc.wait();
    assert_eq!((pc.alternate(), pc.rises(), pc.memory(0x2000, 2048)), (DRDY | DSC | DRQ, 0, vec![0; 2048]));
    pc.prds(&[(0x3000, 2048)]);
    pc.bench.out8(MASTER, 0x09);
    assert_eq!((pc.alternate(), pc.rises(), pc.memory(0x3000, 2048)), (DRDY | DSC, 1, pattern(4)));
    assert_eq!(pc.memory(0x2000, 2048), vec![0; 2048]);
}

#[test]
fn descriptor_tables_that_are_short_long_or_nowhere_end_as_the_data_sheet_says() {
    odd_descriptor_tables(disk(16).0);
    odd_descriptor_tables(real_time_disk(16).0);
}

fn odd_descriptor_tables(mut pc: Pc) {
    // Short: inactive without an interrupt.
    pc.prds(&[(0x2000, 512)]);
    pc.command(0xc8, 0, 2);
    pc.bench.out8(MASTER, 0x09);
    pc.wait();
    assert_eq!((pc.bench.in8(MASTER + 2), pc.rises(), pc.alternate()), (0, 0, DRDY | DSC));
    // Long: interrupt, still active.
    pc.bench.out8(MASTER, 0x00);
    pc.prds(&[(0x2000, 2048)]);
    pc.command(0xc8, 0, 2);
    pc.bench.out8(MASTER, 0x09);
    pc.wait();
    assert_eq!((pc.bench.in8(MASTER + 2), pc.rises()), (5, 1));
    pc.bench.out8(MASTER, 0x00);
    assert_eq!(pc.bench.in8(MASTER + 2), 4);
    // Nowhere, the region and then the table: master abort.
    for (table, region) in [(PRDS as u32, 0x8000_0000), (0x9000_0000, 0)] {
        pc.prds(&[(region, 1024)]);
        pc.bench.out32(MASTER + 4, table);
        pc.bench.out8(MASTER + 2, 6);
        pc.command(0xc8, 0, 2);
        pc.bench.out8(MASTER, 0x09);
        pc.wait();
        assert_eq!((pc.bench.in8(MASTER + 2), pc.rises()), (2, 0));
        pc.bench.out8(MASTER, 0x00);
    }
    // Wrong direction: waits.
    pc.prds(&[(0x2000, 1024)]);
    pc.command(0xc8, 0, 2);
    pc.bench.out8(MASTER, 0x01);
    pc.wait();
    assert_eq!(pc.alternate() & DRQ, DRQ);
}

#[test]
fn medium_errors_are_reported_at_their_sector() {
    let (mut pc, image) = disk(32);
    image.fail(5 * 512..5 * 512 + 1, ErrorKind::Other);
    pc.command(0x20, 3, 6);
    pc.wait();
    assert_eq!(pc.words(1024), image.bytes()[3 * 512..5 * 512]);
    assert_eq!(pc.bench.in8(0x1f7), DRDY | DSC | ERR);
    assert_eq!((pc.bench.in8(0x1f1), pc.bench.in8(0x1f3), pc.bench.in8(0x1f2)), (UNC, 5, 4));
    pc.command(0x40, 0, 10);
    pc.wait();
    assert_eq!((pc.bench.in8(0x1f7), pc.bench.in8(0x1f1), pc.bench.in8(0x1f3)), (DRDY | DSC | ERR, UNC, 5));
    pc.command(0x30, 4, 2);
    pc.send(&[1; 1024]);
    pc.wait();
    assert_eq!((pc.bench.in8(0x1f7), pc.bench.in8(0x1f1), pc.bench.in8(0x1f3)), (DRDY | DSC | ERR, ABRT, 5));
    image.fail_flush(ErrorKind::StorageFull);
    pc.command(0xe7, 0, 0);
    pc.wait();
    assert_eq!((pc.bench.in8(0x1f7), pc.bench.in8(0x1f1)), (DRDY | DSC | ERR, ABRT));
    pc.command(0x20, 31, 2);
    assert_eq!((pc.bench.in8(0x1f7), pc.bench.in8(0x1f1)), (DRDY | DSC | ERR, IDNF));
}

#[test]
fn chs_follows_the_translation_and_refuses_what_is_not_there() {
    let (mut pc, image) = disk(16 * 63 * 3);
    // Heads 4, sectors 10.
    pc.bench.out8(0x1f2, 10);
    pc.bench.out8(0x1f6, 0xa3);
    pc.bench.out8(0x1f7, 0x91);
    let chs = |pc: &mut Pc, cylinder: u8, head: u8, sector: u8| {
        for (port, value) in [(0x1f2, 1), (0x1f3, sector), (0x1f4, cylinder), (0x1f5, 0), (0x1f6, 0xa0 | head)] {
            pc.bench.out8(port, value);
        }
        pc.bench.out8(0x1f7, 0x20);
        pc.wait();
    };
    chs(&mut pc, 2, 3, 10);
    assert_eq!(pc.words(512), image.bytes()[((2 * 4 + 3) * 10 + 9) * 512..][..512]);
    for (head, sector) in [(4, 1), (0, 0), (0, 11)] {
        chs(&mut pc, 0, head, sector);
        assert_eq!((pc.bench.in8(0x1f7), pc.bench.in8(0x1f1)), (DRDY | DSC | ERR, IDNF));
    }
}

#[test]
fn identify_tells_size_modes_and_settings() {
    let (mut pc, _) = disk(16 * 63 * 20);
    pc.command(0xc6, 0, 8);
    pc.bench.out8(0x1f1, 0x03);
    pc.command(0xef, 0, 0x22);
    pc.bench.out8(0x1f1, 0x82);
    pc.command(0xef, 0, 0);
    pc.command(0xec, 0, 0);
    assert_eq!(pc.bench.in8(0x1f7), DRDY | DSC | DRQ);
    let bytes = pc.words(512);
    let word = |i: usize| u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]);
    assert_eq!((word(0), word(1), word(3), word(6)), (0x40, 20, 16, 63));
    assert_eq!((word(4), word(5)), (63 * 512, 512), "what Bochs' BIOS takes for the size of a sector");
    assert_eq!((word(60), word(61), word(100)), (20_160, 0, 20_160));
    assert_eq!((word(59), word(63), word(88)), (0x0108, 0x0407, 0x3f));
    assert_eq!(word(85) & 0x21, 0x01);
    assert_eq!(&bytes[54..66], b"ME UAHDRIDKS");
}

#[test]
fn drives_call_themselves_what_they_are_told_to() {
    let text = |bytes: &[u8]| bytes.chunks(2).flat_map(|pair| [pair[1], pair[0]]).map(char::from).collect::<String>();
    let named = Names { serial: Some("WD-1234".into()), model: Some("A DISK".into()) };
    for (unit, names, identify, told) in [
        (0, Names::default(), 0xec, ["EM00001", "EMU HARDDISK"]),
        (1, Names::default(), 0xa1, ["EM00002", "EMU DVD-ROM"]),
        (0, named.clone(), 0xec, ["WD-1234", "A DISK"]),
        (1, named, 0xa1, ["WD-1234", "A DISK"]),
    ] {
        let kind = if unit == 0 { Kind::Disk } else { Kind::CdRom };
        let mut pc = pc_with(ICOUNT, vec![(unit, kind, MemoryImage::zeros(4096), names)]);
        pc.bench.out8(0x1f6, 0xa0 | (unit as u8) << 4);
        pc.bench.out8(0x1f7, identify);
        let bytes = pc.words(512);
        let [serial, model] = told;
        assert_eq!([text(&bytes[20..40]).trim_end(), text(&bytes[54..94]).trim_end()], [serial, model]);
    }
}

#[test]
fn resets_leave_the_signatures_and_diagnostics_pass() {
    let mut pc = pc(vec![(0, Kind::Disk, MemoryImage::zeros(512)), (1, Kind::CdRom, MemoryImage::zeros(2048))]);
    let signature = |pc: &mut Pc, select: u8| {
        pc.bench.out8(0x1f6, select);
        [0x1f1, 0x1f2, 0x1f3, 0x1f4, 0x1f5, 0x1f7].map(|port| pc.bench.in8(port))
    };
    let (ata, atapi) = ([1, 1, 1, 0, 0, DRDY | DSC], [1, 1, 1, 0x14, 0xeb, 0]);
    assert_eq!((signature(&mut pc, 0xa0), signature(&mut pc, 0xb0)), (ata, atapi));
    pc.command(0x20, 0, 1);
    pc.bench.out8(0x3f6, 0x04);
    assert_eq!(pc.alternate(), BSY);
    pc.bench.out8(0x3f6, 0x00);
    pc.wait();
    assert_eq!((signature(&mut pc, 0xa0), signature(&mut pc, 0xb0)), (ata, atapi));
    pc.rises();
    pc.bench.out8(0x1f7, 0x90);
    assert_eq!(pc.rises(), 1);
    assert_eq!((signature(&mut pc, 0xa0), signature(&mut pc, 0xb0)), (ata, atapi));
    // IDENTIFY DEVICE aborts with the signature.
    pc.bench.out8(0x1f7, 0xec);
    assert_eq!((pc.bench.in8(0x1f7), pc.bench.in8(0x1f5)), (DRDY | DSC | ERR, 0xeb));
}

#[test]
fn absent_drives_are_silent() {
    let (mut pc, _) = disk(8);
    pc.bench.out8(0x1f6, 0xb0);
    pc.bench.out8(0x1f2, 0x55);
    assert_eq!((pc.bench.in8(0x1f7), pc.bench.in8(0x1f2)), (0, 0x55));
    pc.bench.out8(0x1f7, 0xec);
    pc.wait();
    assert_eq!((pc.alternate(), pc.rises()), (0, 0));
    pc.bench.out8(0x172, 0x55);
    assert_eq!((pc.bench.in8(0x177), pc.bench.in8(0x172)), (0, 0));
}

/// Bochs' BIOS takes whatever shows the signature for a drive, and waits for it to identify itself.
#[test]
fn cd_rom_drive_does_not_answer_for_an_absent_second_one() {
    let mut pc = pc(vec![(0, Kind::CdRom, MemoryImage::new(pattern(8)))]);
    pc.bench.out8(0x1f6, 0xb0);
    pc.bench.out8(0x1f2, 0x55);
    pc.bench.out8(0x1f3, 0xaa);
    assert_eq!([2, 3, 4, 5, 7].map(|register| pc.bench.in8(0x1f0 + register)), [0; 5]);
    pc.bench.out8(0x1f6, 0xa0);
    assert_eq!([4, 5].map(|register| pc.bench.in8(0x1f0 + register)), [0x14, 0xeb]);
}

#[test]
fn nien_keeps_the_interrupt_off_the_cable() {
    let (mut pc, _) = disk(8);
    pc.bench.out8(0x3f6, 0x02);
    pc.command(0x20, 0, 1);
    pc.wait();
    assert_eq!((pc.rises(), pc.bench.in8(MASTER + 2)), (0, 0));
    pc.bench.out8(0x3f6, 0x00);
    assert_eq!((pc.rises(), pc.bench.in8(MASTER + 2)), (1, 4));
}

#[test]
fn power_modes_smart_and_unknown_commands() {
    let (mut pc, _) = disk(8);
    pc.command(0xe5, 0, 0);
    assert_eq!(pc.bench.in8(0x1f2), 0xff);
    pc.command(0xe0, 0, 0);
    pc.command(0xe5, 0, 0);
    assert_eq!(pc.bench.in8(0x1f2), 0x00);
    pc.bench.out8(0x1f1, 0xd0);
    pc.command(0xb0, 0xc2_4f00, 1);
    let data = pc.words(512);
    assert_eq!(data.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)), 0);
    pc.bench.out8(0x1f1, 0xda);
    pc.command(0xb0, 0xc2_4f00, 1);
    assert_eq!((pc.bench.in8(0x1f7), pc.bench.in8(0x1f4)), (DRDY | DSC, 0x4f));
    pc.command(0xff, 0, 0);
    assert_eq!((pc.bench.in8(0x1f7), pc.bench.in8(0x1f1)), (DRDY | DSC | ERR, ABRT));
    pc.command(0xe6, 0, 0);
    pc.rises();
    pc.command(0x20, 0, 1);
    pc.wait();
    assert_eq!(pc.rises(), 0);
}

#[test]
fn snapshot_in_the_middle_of_a_read_goes_on_elsewhere() {
    let (mut from, image) = disk(300);
    let (mut to, _) = disk(300);
    from.command(0x20, 0, 200);
    from.wait();
    let mut read = from.words(100 * 512);
    from.bench.copy_state_to(&mut to.bench);
    for _ in 0..100 {
        to.wait();
        read.extend(to.words(512));
    }
    assert_eq!(read, image.bytes()[..200 * 512]);
    let text = serde_json::to_string(&from.bench.device.state()).unwrap();
    assert_eq!(serde_json::from_str::<IdeState>(&text).unwrap(), from.bench.device.state());
}

// Packet devices.

fn cdrom(blocks: usize) -> (Pc, MemoryImage) {
    let image = MemoryImage::new(pattern(blocks * 4));
    let mut pc = pc(vec![(0, Kind::CdRom, image.clone())]);
    pc.bench.out8(0x1f6, 0xa0);
    (pc, image)
}

/// Sends a packet by PIO with a byte count limit; the data, or the error register.
fn packet(pc: &mut Pc, limit: u16, bytes: &[u8]) -> Result<Vec<u8>, u8> {
    pc.bench.out8(0x1f1, 0);
    pc.bench.out8(0x1f4, limit as u8);
    pc.bench.out8(0x1f5, (limit >> 8) as u8);
    pc.bench.out8(0x1f7, 0xa0);
    assert_eq!((pc.bench.in8(0x1f7) & (BSY | DRQ | ERR), pc.bench.in8(0x1f2)), (DRQ, 1));
    let mut padded = bytes.to_vec();
    padded.resize(12, 0);
    pc.send(&padded);
    let mut data = Vec::new();
    loop {
        pc.wait();
        let status = pc.bench.in8(0x1f7);
        if status & ERR != 0 {
            return Err(pc.bench.in8(0x1f1));
        }
        if status & DRQ == 0 {
            assert_eq!(pc.bench.in8(0x1f2), 3);
            return Ok(data);
        }
        assert_eq!(pc.bench.in8(0x1f2), 2);
        let count = usize::from(pc.bench.in8(0x1f4)) | usize::from(pc.bench.in8(0x1f5)) << 8;
        assert!(count > 0 && count <= usize::from(limit));
        data.extend(&pc.words(count.next_multiple_of(2))[..count]);
    }
}

fn sense(pc: &mut Pc) -> (u8, u8, u8) {
    let bytes = packet(pc, 64, &[0x03, 0, 0, 0, 18]).unwrap();
    (bytes[2], bytes[12], bytes[13])
}

#[test]
fn cd_blocks_come_in_pieces_of_the_byte_count_limit() {
    let (mut pc, image) = cdrom(100);
    for limit in [2048, 0x7fff, 0xfffe, 100] {
        let data = packet(&mut pc, limit, &[0x28, 0, 0, 0, 0, 3, 0, 0, 70]).unwrap();
        assert_eq!(data, image.bytes()[3 * 2048..73 * 2048]);
    }
    let data = packet(&mut pc, 2048, &[0xbe, 0, 0, 0, 0, 1, 0, 0, 2, 0x10]).unwrap();
    assert_eq!(data, image.bytes()[2048..3 * 2048]);
    assert_eq!(packet(&mut pc, 2048, &[0xa8, 0, 0, 0, 0, 99, 0, 0, 0, 2]), Err(0x54));
    assert_eq!(sense(&mut pc), (5, 0x21, 0));
    assert_eq!(sense(&mut pc), (0, 0, 0));
}

#[test]
fn cd_reads_by_dma() {
    let (mut pc, image) = cdrom(100);
    pc.prds(&[(0x1_0000, 0), (0x2_0000, 0), (0x3_0000, 0x6000)]);
    pc.bench.out8(0x1f1, 1);
    pc.bench.out8(0x1f7, 0xa0);
    pc.bench.out8(MASTER, 0x09);
    pc.send(&[0x28, 0, 0, 0, 0, 0, 0, 0, 76, 0, 0, 0]);
    pc.wait();
    assert_eq!((pc.bench.in8(0x1f7), pc.bench.in8(0x1f2), pc.bench.in8(MASTER + 2)), (DRDY | DSC, 3, 4));
    assert_eq!(pc.memory(0x1_0000, 76 * 2048), image.bytes()[..76 * 2048]);
}

#[test]
fn cd_tells_capacity_contents_and_capabilities() {
    let (mut pc, image) = cdrom(400);
    assert_eq!(packet(&mut pc, 64, &[0x25]).unwrap(), [0, 0, 1, 0x8f, 0, 0, 8, 0]);
    let toc = packet(&mut pc, 64, &[0x43, 2, 0, 0, 0, 0, 0, 0, 20]).unwrap();
    assert_eq!(toc[..12], [0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 2, 0]);
    // 550 frames.
    assert_eq!(toc[12..], [0, 0x14, 0xaa, 0, 0, 0, 7, 25]);
    assert_eq!(packet(&mut pc, 64, &[0x43, 0, 1, 0, 0, 0, 0, 0, 64]).unwrap().len(), 12);
    assert_eq!(packet(&mut pc, 64, &[0x43, 0, 2, 0, 0, 0, 0, 0, 64]).unwrap().len(), 48);
    let inquiry = packet(&mut pc, 64, &[0x12, 0, 0, 0, 36]).unwrap();
    assert_eq!((inquiry.len(), inquiry[0], inquiry[1]), (36, 5, 0x80));
    let mode = packet(&mut pc, 64, &[0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 64]).unwrap();
    assert_eq!((mode[1], mode[8], mode.len()), (26, 0x2a, 28));
    let configuration = packet(&mut pc, 256, &[0x46, 0, 0, 0, 0, 0, 0, 1, 0]).unwrap();
    assert_eq!((configuration[7], usize::from(configuration[3]) + 4), (8, configuration.len()));
    assert_eq!(packet(&mut pc, 64, &[0x51, 0, 0, 0, 0, 0, 0, 0, 34]).unwrap()[2], 0x0e);
    assert_eq!(packet(&mut pc, 64, &[0x42, 2, 0x40, 1, 0, 0, 0, 0, 16]).unwrap()[4..6], [1, 0x14]);
    assert_eq!(packet(&mut pc, 64, &[0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8]).unwrap().len(), 8);
    image.fail(5000..5001, ErrorKind::Other);
    assert_eq!(packet(&mut pc, 2048, &[0x28, 0, 0, 0, 0, 2, 0, 0, 1]), Err(0x30));
    assert_eq!(sense(&mut pc), (3, 0x11, 0));
    assert_eq!(packet(&mut pc, 64, &[0xff]), Err(0x54));
    assert_eq!(sense(&mut pc), (5, 0x20, 0));
}

#[test]
fn cd_medium_is_changed_locked_and_ejected() {
    let (mut pc, _) = cdrom(10);
    let media = pc.bench.with(|ide, _| ide.channels[0].drives[0].as_mut().unwrap().disk().media());
    assert_eq!(packet(&mut pc, 64, &[0x00]), Ok(vec![]));
    media.insert("other.iso", Box::new(MemoryImage::zeros(20 * 2048)), false).unwrap();
    let event = |pc: &mut Pc| packet(pc, 64, &[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8]).unwrap()[4..6].to_vec();
    assert_eq!((event(&mut pc), event(&mut pc)), (vec![2, 2], vec![0, 2]));
    assert_eq!(packet(&mut pc, 64, &[0x00]), Err(0x60));
    assert_eq!(sense(&mut pc), (6, 0x28, 0));
    assert_eq!(packet(&mut pc, 64, &[0x25]).unwrap()[3], 19);
    packet(&mut pc, 64, &[0x1e, 0, 0, 0, 1]).unwrap();
    assert!(media.eject(false).is_err());
    assert_eq!(event(&mut pc), [1, 2]);
    assert_eq!(packet(&mut pc, 64, &[0x1b, 0, 0, 0, 2]), Err(0x54));
    packet(&mut pc, 64, &[0x1e]).unwrap();
    packet(&mut pc, 64, &[0x1b, 0, 0, 0, 2]).unwrap();
    assert!(media.info().tray_open);
    assert_eq!(packet(&mut pc, 64, &[0x00]), Err(0x20));
    assert_eq!(sense(&mut pc), (2, 0x3a, 2));
    packet(&mut pc, 64, &[0x1b, 0, 0, 0, 3]).unwrap();
    assert_eq!(packet(&mut pc, 64, &[0x00]), Ok(vec![]));
    media.eject(false).unwrap();
    assert_eq!(event(&mut pc), [3, 1]);
    assert_eq!(packet(&mut pc, 64, &[0x25]), Err(0x20));
}
