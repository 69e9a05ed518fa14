//! What drives say about themselves: IDENTIFY DEVICE and IDENTIFY PACKET DEVICE (ATA/ATAPI-6 8.15, 8.16), and SMART data.

use super::drive::{DriveState, Geometry, LONGEST_MULTIPLE, Names};
use super::drive::{MULTIWORD_DMA, ULTRA_DMA};

/// Sectors that LBA28 reaches.
const LBA28_SECTORS: u64 = 0x0fff_ffff;

struct Words([u16; 256]);

impl Words {
    /// ASCII with the first character in the high byte, padded with blanks.
    fn text(&mut self, at: usize, words: usize, text: &str) {
        let mut bytes = text.bytes().chain(std::iter::repeat(b' '));
        for word in &mut self.0[at..at + words] {
            *word = u16::from_be_bytes([bytes.next().unwrap_or(b' '), bytes.next().unwrap_or(b' ')]);
        }
    }

    /// Serial number, firmware revision and model number.
    fn names(&mut self, names: &Names, unit: u8, model: &str) {
        let serial = format!("EM{:05}", unit + 1);
        self.text(10, 10, names.serial.as_ref().unwrap_or(&serial));
        self.text(23, 4, env!("CARGO_PKG_VERSION"));
        self.text(27, 20, names.model.as_deref().unwrap_or(model));
    }

    fn long(&mut self, at: usize, value: u64, words: usize) {
        for i in 0..words {
            self.0[at + i] = (value >> (16 * i)) as u16;
        }
    }

    fn modes(&mut self, state: &DriveState) {
        let mode = |first: u8| match state.dma_mode {
            m if m & !7 == first => 0x0100 << (m & 7),
            _ => 0,
        };
        self.0[63] = 0x07 | mode(MULTIWORD_DMA);
        self.0[88] = 0x3f | mode(ULTRA_DMA);
        self.0[64] = 0x03;
        self.0[65..69].fill(120);
    }

    fn bytes(self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

const SECTOR_BYTES: u16 = 512;

/// IDENTIFY DEVICE of a disk of `sectors` sectors, number `unit` of the board.
pub fn disk(state: &DriveState, names: &Names, geometry: Geometry, sectors: u64, unit: u8) -> Vec<u8> {
    let mut w = Words([0; 256]);
    w.0[0] = 0x0040;
    w.0[1] = geometry.cylinders;
    w.0[3] = geometry.heads.into();
    // Bytes of a track and of a sector: ATA-1's, retired since, but Bochs' BIOS moves as many as word 5 says.
    w.0[4] = SECTOR_BYTES * u16::from(geometry.sectors);
    w.0[5] = SECTOR_BYTES;
    w.0[6] = geometry.sectors.into();
    w.names(names, unit, "EMU HARDDISK");
    w.0[47] = 0x8000 | u16::from(LONGEST_MULTIPLE);
    // DMA, LBA, IORDY that may be disabled.
    w.0[49] = 0x0f00;
    w.0[50] = 0x4000;
    w.0[51] = 0x0200;
    w.0[53] = 0x0007;
    let (heads, per_track) = (u64::from(state.heads.max(1)), u64::from(state.sectors.max(1)));
    let cylinders = (sectors / (heads * per_track)).min(0xffff);
    w.0[54] = cylinders as u16;
    w.0[55] = state.heads.into();
    w.0[56] = state.sectors.into();
    w.long(57, cylinders * heads * per_track, 2);
    w.0[59] = if state.multiple == 0 { 0 } else { 0x0100 | u16::from(state.multiple) };
    w.long(60, sectors.min(LBA28_SECTORS), 2);
    w.modes(state);
    // ATA/ATAPI-4 to 6, no minor version.
    w.0[80] = 0x0070;
    // SMART, power management, write cache, look-ahead, NOP; FLUSH CACHE, FLUSH CACHE EXT, 48-bit addresses.
    w.0[82] = 0x4069;
    w.0[83] = 0x7400;
    w.0[84] = 0x4000;
    let enabled = |on: bool, bit: u16| if on { bit } else { 0 };
    w.0[85] = 0x4008 | enabled(state.smart, 1) | enabled(state.write_cache, 0x20) | enabled(state.look_ahead, 0x40);
    w.0[86] = 0x3400;
    w.0[87] = 0x4000;
    // Hardware reset: an 80-conductor cable, device 0 or 1 by jumper.
    w.0[93] = if unit & 1 == 0 { 0x600b } else { 0x6b00 };
    w.long(100, sectors, 4);
    w.bytes()
}

/// IDENTIFY PACKET DEVICE of a CD-ROM.
pub fn cdrom(state: &DriveState, names: &Names, unit: u8) -> Vec<u8> {
    let mut w = Words([0; 256]);
    // ATAPI, CD-ROM, removable, DRQ within 50 us, 12-byte packets.
    w.0[0] = 0x85c0;
    w.names(names, unit, "EMU DVD-ROM");
    w.0[49] = 0x0f00;
    w.0[51] = 0x0200;
    w.0[53] = 0x0006;
    w.modes(state);
    w.0[80] = 0x0070;
    // Power management, PACKET, DEVICE RESET, NOP.
    w.0[82] = 0x4218;
    w.0[83] = 0x4000;
    w.0[84] = 0x4000;
    w.0[85] = 0x4218;
    w.0[87] = 0x4000;
    w.0[93] = if unit & 1 == 0 { 0x600b } else { 0x6b00 };
    w.bytes()
}

/// The attributes that a drive without wear has: number, flags, value, worst, raw value, threshold.
const ATTRIBUTES: [(u8, u16, u8, u8, u64, u8); 4] = [
    // Raw read error rate, power-on hours, power cycles, reallocated sectors.
    (0x01, 0x0003, 100, 100, 0, 6),
    (0x05, 0x0033, 100, 100, 0, 36),
    (0x09, 0x0032, 100, 100, 0, 0),
    (0x0c, 0x0032, 100, 100, 1, 0),
];

fn with_checksum(mut sector: Vec<u8>) -> Vec<u8> {
    sector.resize(512, 0);
    sector[511] = sector[..511].iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg();
    sector
}

/// SMART READ DATA.
pub fn smart_data() -> Vec<u8> {
    let mut sector = vec![0; 512];
    sector[0] = 1;
    for (i, (id, flags, value, worst, raw, _)) in ATTRIBUTES.into_iter().enumerate() {
        let at = 2 + 12 * i;
        sector[at] = id;
        sector[at + 1..at + 3].copy_from_slice(&flags.to_le_bytes());
        (sector[at + 3], sector[at + 4]) = (value, worst);
        sector[at + 5..at + 11].copy_from_slice(&raw.to_le_bytes()[..6]);
    }
    // Off-line collection never started; no self-test ever; logs exist.
    sector[368] = 0x03;
    sector[370] = 0x01;
    with_checksum(sector)
}

/// SMART READ ATTRIBUTE THRESHOLDS.
pub fn smart_thresholds() -> Vec<u8> {
    let mut sector = vec![0; 512];
    sector[0] = 1;
    for (i, (id, .., threshold)) in ATTRIBUTES.into_iter().enumerate() {
        (sector[2 + 12 * i], sector[3 + 12 * i]) = (id, threshold);
    }
    with_checksum(sector)
}

/// SMART READ LOG: the directory, the empty summary error log and the empty self-test log.
pub fn smart_log(address: u8) -> Option<Vec<u8>> {
    let mut sector = vec![0; 512];
    match address {
        0x00 => {
            // Version 1; one sector each for logs 1 and 6.
            sector[0] = 1;
            sector[2] = 1;
            sector[12] = 1;
            Some(sector)
        }
        0x01 | 0x06 => {
            sector[0] = 1;
            Some(with_checksum(sector))
        }
        _ => None,
    }
}
