//! VHDX, Hyper-V's images: Microsoft, [MS-VHDX] "Virtual Hard Disk v2 (VHDX) File Format", revision 7.
//!
//! ```text
//!  0       64K      128K     192K, 256K     1M...
//!  name    header   header   region tables  log | metadata | block table (BAT) | blocks (1 MiB aligned)
//! ```
//! Of the two headers the one with the larger sequence number counts. Entries of the block table are changed through
//! the log: one log entry with all sectors that change, made durable, then named by a header, then written to their
//! place, then forgotten by a header. A log that a header names is replayed on opening.
//! Deliberately absent: images on top of others, and whatever region or metadata is required and unknown.

use crate::image::blocks::{Blocks, MOST_ENTRIES, Place, Table};
use crate::image::storage::{Storage, read_exact};
use crate::image::{Format, invalid};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;

const SIGNATURE: &[u8; 8] = b"vhdxfile";
const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
const REGION_TABLES: [u64; 2] = [192 << 10, 256 << 10];
const HEADER_LEN: usize = 4096;
const REGION_TABLE_LEN: usize = 64 << 10;
const MIB: u64 = 1 << 20;
/// The unit of the log.
const SECTOR: usize = 4096;
/// The longest log that is read, in bytes.
const LONGEST_LOG: u64 = 64 << 20;
/// The most entries of region and metadata tables.
const MOST_REGIONS: u32 = 2047;
/// Where new images have their log, metadata and block table.
const LOG: u64 = MIB;
const METADATA: u64 = 2 * MIB;
const BAT: u64 = 3 * MIB;
const LOG_LEN: u32 = 1 << 20;
/// Sectors of the block table that go into one log entry, which has to fit into the log.
const LOGGED_SECTORS: usize = 100;
/// The state of a block that is there.
const FULLY_PRESENT: u64 = 6;
const PARTIALLY_PRESENT: u64 = 7;

type Guid = [u8; 16];

/// From the way that they are written, 2DC27766-F623-4200-9D64-115E9BFD4A08, to the way that they are stored.
const fn guid(a: u32, b: u16, c: u16, rest: [u8; 8]) -> Guid {
    let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    let [r0, r1, r2, r3, r4, r5, r6, r7] = rest;
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], r0, r1, r2, r3, r4, r5, r6, r7]
}

const BAT_REGION: Guid = guid(0x2dc2_7766, 0xf623, 0x4200, [0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08]);
const METADATA_REGION: Guid = guid(0x8b7c_a206, 0x4790, 0x4b9a, [0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e]);
const FILE_PARAMETERS: Guid = guid(0xcaa1_6737, 0xfa36, 0x4d43, [0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b]);
const DISK_SIZE: Guid = guid(0x2fa5_4224, 0xcd1b, 0x4876, [0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8]);
const PAGE_83: Guid = guid(0xbeca_12ab, 0xb2e6, 0x4523, [0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46]);
const LOGICAL_SECTOR: Guid = guid(0x8141_bf1d, 0xa96f, 0x4709, [0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f]);
const PHYSICAL_SECTOR: Guid = guid(0xcda3_48c7, 0x445d, 0x4471, [0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56]);

fn le32(bytes: &[u8], i: usize) -> u32 {
    u32::from_le_bytes(bytes[i..i + 4].try_into().unwrap_or_default())
}

fn le64(bytes: &[u8], i: usize) -> u64 {
    u64::from_le_bytes(bytes[i..i + 8].try_into().unwrap_or_default())
}

/// CRC-32C (Castagnoli) of `bytes`, whose own four bytes at 4 count as zeros.
fn checksum(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let (mut crc, mut bit) = (i as u32, 0);
            while bit < 8 {
                crc = if crc & 1 != 0 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    let step = |crc: u32, byte: u8| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)];
    let byte = |(i, byte): (usize, &u8)| if (4..8).contains(&i) { 0 } else { *byte };
    !bytes.iter().enumerate().map(byte).fold(u32::MAX, step)
}

fn put(bytes: &mut [u8], i: usize, value: &[u8]) {
    bytes[i..i + value.len()].copy_from_slice(value);
}

fn seal(bytes: &mut [u8]) {
    let sum = checksum(bytes);
    put(bytes, 4, &sum.to_le_bytes());
}

/// A header.
#[derive(Clone, Copy, Debug)]
struct Header {
    /// Which of the two.
    slot: usize,
    sequence: u64,
    file_write: Guid,
    data_write: Guid,
    log: Guid,
    log_len: u32,
    log_offset: u64,
}

impl Header {
    fn read(file: &mut dyn Storage, slot: usize) -> Option<Header> {
        let mut b = vec![0; HEADER_LEN];
        read_exact(file, HEADERS[slot], &mut b).ok()?;
        let guid = |i: usize| b[i..i + 16].try_into().unwrap_or_default();
        let good = b.starts_with(b"head") && le32(&b, 4) == checksum(&b) && b[66..68] == [1, 0];
        good.then(|| Header {
            slot,
            sequence: le64(&b, 8),
            file_write: guid(16),
            data_write: guid(32),
            log: guid(48),
            log_len: le32(&b, 68),
            log_offset: le64(&b, 72),
        })
    }

    /// Writes it into the other slot, with the next number.
    fn write(&mut self, file: &mut dyn Storage) -> io::Result<()> {
        self.slot = 1 - self.slot;
        self.sequence = self.sequence.wrapping_add(1);
        let mut b = vec![0; HEADER_LEN];
        put(&mut b, 0, b"head");
        put(&mut b, 8, &self.sequence.to_le_bytes());
        put(&mut b, 16, &self.file_write);
        put(&mut b, 32, &self.data_write);
        put(&mut b, 48, &self.log);
        put(&mut b, 66, &1u16.to_le_bytes());
        put(&mut b, 68, &self.log_len.to_le_bytes());
        put(&mut b, 72, &self.log_offset.to_le_bytes());
        seal(&mut b);
        file.write_at(HEADERS[self.slot], &b)?;
        file.flush()
    }
}

/// The block table, and the log that its changes go through.
pub struct Bat {
    header: Header,
    offset: u64,
    /// Blocks between entries for bitmaps.
    chunk: u64,
    /// Has this program changed the file's write identifiers yet?
    marked: bool,
}

impl Bat {
    fn entry_offset(&self, index: u64) -> u64 {
        self.offset + 8 * (index + index / self.chunk)
    }

    /// A GUID that differs from all before it in this file.
    fn next_guid(&self) -> Guid {
        let mut guid = self.header.file_write;
        let number = u64::from_le_bytes(guid[..8].try_into().unwrap_or_default());
        let next = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(self.header.sequence << 1 | 1);
        put(&mut guid, 0, &next.to_le_bytes());
        guid
    }

    /// Changes sectors of the file by way of the log.
    fn write_logged(&mut self, file: &mut dyn Storage, sectors: &[(u64, Vec<u8>)]) -> io::Result<()> {
        let log = self.next_guid();
        let entry = log_entry(&log, file.len(), sectors);
        if entry.len() as u64 > u64::from(self.header.log_len) {
            return Err(invalid("the VHDX log is too small"));
        }
        file.write_at(self.header.log_offset, &entry)?;
        file.flush()?;
        self.header.log = log;
        self.header.write(file)?;
        for (at, bytes) in sectors {
            file.write_at(*at, bytes)?;
        }
        file.flush()?;
        self.header.log = Guid::default();
        self.header.write(file)
    }
}

/// A log entry, the only one of its log.
fn log_entry(log: &Guid, file_len: u64, sectors: &[(u64, Vec<u8>)]) -> Vec<u8> {
    const SEQUENCE: u64 = 1;
    let head = (64 + 32 * sectors.len()).next_multiple_of(SECTOR);
    let mut entry = vec![0; head];
    put(&mut entry, 0, b"loge");
    put(&mut entry, 8, &((head + sectors.len() * SECTOR) as u32).to_le_bytes());
    put(&mut entry, 16, &SEQUENCE.to_le_bytes());
    put(&mut entry, 24, &(sectors.len() as u32).to_le_bytes());
    put(&mut entry, 32, log);
    put(&mut entry, 48, &file_len.to_le_bytes());
    put(&mut entry, 56, &file_len.to_le_bytes());
    for (i, (at, bytes)) in sectors.iter().enumerate() {
        let descriptor = 64 + 32 * i;
        put(&mut entry, descriptor, b"desc");
        put(&mut entry, descriptor + 4, &bytes[SECTOR - 4..]);
        put(&mut entry, descriptor + 8, &bytes[..8]);
        put(&mut entry, descriptor + 16, &at.to_le_bytes());
        put(&mut entry, descriptor + 24, &SEQUENCE.to_le_bytes());
        entry.extend(b"data");
        entry.extend(((SEQUENCE >> 32) as u32).to_le_bytes());
        entry.extend(&bytes[8..SECTOR - 4]);
        entry.extend((SEQUENCE as u32).to_le_bytes());
    }
    seal(&mut entry);
    entry
}

impl Table for Bat {
    fn format(&self) -> Format {
        Format::Vhdx
    }

    fn alignment(&self) -> u64 {
        MIB
    }

    fn limit(&self) -> u64 {
        1 << 62
    }

    fn write_entries(&mut self, file: &mut dyn Storage, entries: &[(usize, u64)]) -> io::Result<()> {
        if !self.marked {
            let new = self.next_guid();
            (self.header.file_write, self.header.data_write) = (new, new);
            self.header.write(file)?;
            self.marked = true;
        }
        let mut sectors: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for (index, place) in entries {
            let at = self.entry_offset(*index as u64);
            let sector = at / SECTOR as u64 * SECTOR as u64;
            let bytes = match sectors.entry(sector) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let mut bytes = vec![0; SECTOR];
                    file.read_at(sector, &mut bytes)?;
                    new.insert(bytes)
                }
            };
            put(bytes, (at - sector) as usize, &(place | FULLY_PRESENT).to_le_bytes());
        }
        let sectors: Vec<(u64, Vec<u8>)> = sectors.into_iter().collect();
        sectors.chunks(LOGGED_SECTORS).try_for_each(|some| self.write_logged(file, some))
    }
}

/// Where the regions are: block table, metadata; offsets and lengths.
fn regions(file: &mut dyn Storage) -> io::Result<((u64, u64), (u64, u64))> {
    let mut table = vec![0; REGION_TABLE_LEN];
    let mut found = false;
    for at in REGION_TABLES {
        if read_exact(file, at, &mut table).is_ok() && table.starts_with(b"regi") && le32(&table, 4) == checksum(&table)
        {
            found = true;
            break;
        }
    }
    if !found || le32(&table, 8) > MOST_REGIONS {
        return Err(invalid("the VHDX image has no region table"));
    }
    let (mut bat, mut metadata) = (None, None);
    for entry in table[16..].chunks_exact(32).take(le32(&table, 8) as usize) {
        let place = (le64(entry, 16), u64::from(le32(entry, 24)));
        if place.0 < MIB || place.0.checked_add(place.1).is_none_or(|end| end > file.len()) {
            return Err(invalid("a VHDX region lies outside the file"));
        }
        match &entry[..16] {
            id if *id == BAT_REGION => bat = Some(place),
            id if *id == METADATA_REGION => metadata = Some(place),
            _ if le32(entry, 28) & 1 != 0 => return Err(invalid("the VHDX image has a region that is unknown")),
            _ => {}
        }
    }
    bat.zip(metadata).ok_or_else(|| invalid("the VHDX image lacks a region"))
}

/// Block size, disk size, logical sector size.
fn metadata(file: &mut dyn Storage, (offset, len): (u64, u64)) -> io::Result<(u64, u64, u64)> {
    let mut table = vec![0; REGION_TABLE_LEN];
    read_exact(file, offset, &mut table)?;
    let count = u16::from_le_bytes([table[10], table[11]]);
    if !table.starts_with(b"metadata") || u32::from(count) > MOST_REGIONS {
        return Err(invalid("the VHDX image has no metadata table"));
    }
    let (mut parameters, mut size, mut sector) = (None, None, None);
    for entry in table[32..].chunks_exact(32).take(usize::from(count)) {
        let (at, item_len, flags) = (u64::from(le32(entry, 16)), u64::from(le32(entry, 20)), le32(entry, 24));
        let mut item = [0; 8];
        if at + item_len > len || at + 8 > len {
            return Err(invalid("a VHDX metadata item lies outside its region"));
        }
        read_exact(file, offset + at, &mut item)?;
        match &entry[..16] {
            id if *id == FILE_PARAMETERS => parameters = Some((le32(&item, 0), le32(&item, 4))),
            id if *id == DISK_SIZE => size = Some(le64(&item, 0)),
            id if *id == LOGICAL_SECTOR => sector = Some(le32(&item, 0)),
            id if *id == PAGE_83 || *id == PHYSICAL_SECTOR => {}
            _ if flags & 4 != 0 => return Err(invalid("the VHDX image has metadata that is unknown")),
            _ => {}
        }
    }
    let lacking = || invalid("the VHDX image lacks metadata");
    let (block, flags) = parameters.ok_or_else(lacking)?;
    let (size, sector) = (size.ok_or_else(lacking)?, sector.ok_or_else(lacking)?);
    if flags & 2 != 0 {
        return Err(invalid("VHDX images on top of others are not implemented"));
    }
    let block = u64::from(block);
    if !block.is_power_of_two() || !(MIB..=256 * MIB).contains(&block) || !matches!(sector, 512 | 4096) {
        return Err(invalid("the VHDX image has impossible metadata"));
    }
    if size > 64 << 40 || !size.is_multiple_of(u64::from(sector)) || size.div_ceil(block) > MOST_ENTRIES {
        return Err(invalid("the VHDX image is too large"));
    }
    Ok((block, size, u64::from(sector)))
}

/// Carries out what the log that `header` names holds. A file that is read only is left; what it lacks is an error.
fn replay(file: &mut dyn Storage, header: &mut Header) -> io::Result<()> {
    if header.log == Guid::default() {
        return Ok(());
    }
    if file.is_read_only() {
        return Err(invalid("the VHDX image's log has to be replayed: open it for writing once"));
    }
    let mut log = vec![0; header.log_len as usize];
    read_exact(file, header.log_offset, &mut log)?;
    let sectors = log.len() / SECTOR;
    let entries: Vec<Option<LogEntry>> = (0..sectors).map(|i| LogEntry::read(&log, i, &header.log)).collect();
    // A sequence begins where an entry says that its tail is, and goes on while numbers go up by one.
    let mut best: Option<(u64, Vec<usize>)> = None;
    for (head, entry) in entries.iter().enumerate() {
        let Some(entry) = entry else { continue };
        if best.as_ref().is_some_and(|(sequence, _)| *sequence >= entry.sequence) {
            continue;
        }
        let mut chain = Vec::new();
        let mut at = entry.tail;
        let mut number = None;
        while chain.len() <= sectors {
            let Some(Some(next)) = entries.get(at) else { break };
            if number.is_some_and(|n| next.sequence != n) {
                break;
            }
            chain.push(at);
            if at == head {
                best = Some((entry.sequence, chain));
                break;
            }
            number = Some(next.sequence.wrapping_add(1));
            at = (at + next.sectors) % sectors;
        }
    }
    let Some((_, chain)) = best else { return Err(invalid("the VHDX log is damaged")) };
    for at in chain {
        if let Some(Some(entry)) = entries.get(at) {
            entry.apply(file)?;
        }
    }
    file.flush()?;
    header.log = Guid::default();
    header.write(file)
}

/// A log entry.
struct LogEntry {
    sequence: u64,
    /// Sector of the log where its sequence begins.
    tail: usize,
    /// Its length.
    sectors: usize,
    bytes: Vec<u8>,
}

impl LogEntry {
    /// The entry at a sector of the log, which may go on at the log's beginning. No other entry begins within it: so all entries
    /// together are no longer than the log, and neither are their sums.
    fn read(log: &[u8], sector: usize, guid: &Guid) -> Option<LogEntry> {
        let head = &log[sector * SECTOR..][..SECTOR];
        let (len, tail) = (le32(head, 8) as usize, le32(head, 12) as usize);
        let fits = head.starts_with(b"loge") && head[32..48] == *guid && len > 0;
        if !fits || !len.is_multiple_of(SECTOR) || len > log.len() || !tail.is_multiple_of(SECTOR) || tail >= log.len()
        {
            return None;
        }
        let sectors = log.len() / SECTOR;
        let mut inner = (sector + 1..sector + len / SECTOR).map(|inner| &log[inner % sectors * SECTOR..]);
        if inner.any(|inner| inner.starts_with(b"loge")) {
            return None;
        }
        let bytes: Vec<u8> = log.iter().cycle().skip(sector * SECTOR).take(len).copied().collect();
        let descriptors = le32(&bytes, 24) as usize;
        let good = le32(&bytes, 4) == checksum(&bytes) && descriptors.checked_mul(32)?.checked_add(64)? <= len;
        good.then(|| LogEntry { sequence: le64(&bytes, 16), tail: tail / SECTOR, sectors: len / SECTOR, bytes })
    }

    fn apply(&self, file: &mut dyn Storage) -> io::Result<()> {
        let damaged = || invalid("a VHDX log entry is damaged");
        let descriptors = le32(&self.bytes, 24) as usize;
        let mut data = (64 + 32 * descriptors).next_multiple_of(SECTOR);
        let bounds = file.len().max(le64(&self.bytes, 56)).min(file.len().saturating_add(1 << 30));
        let mut zeros = 0u64;
        for i in 0..descriptors {
            let descriptor = &self.bytes[64 + 32 * i..][..32];
            let at = le64(descriptor, 16);
            match &descriptor[..4] {
                b"desc" => {
                    let sector = self.bytes.get(data..data + SECTOR).ok_or_else(damaged)?;
                    let sequence = u64::from(le32(sector, 4)) << 32 | u64::from(le32(sector, SECTOR - 4));
                    if !sector.starts_with(b"data") || sequence != self.sequence || at.saturating_add(4096) > bounds {
                        return Err(damaged());
                    }
                    let mut bytes = sector.to_vec();
                    put(&mut bytes, 0, &descriptor[8..16]);
                    put(&mut bytes, SECTOR - 4, &descriptor[4..8]);
                    file.write_at(at, &bytes)?;
                    data += SECTOR;
                }
                b"zero" => {
                    let len = le64(descriptor, 8);
                    zeros = zeros.saturating_add(len);
                    // Nothing has to be made zeros twice.
                    if at.saturating_add(len) > bounds || zeros > bounds {
                        return Err(damaged());
                    }
                    file.write_zeroes(at, len, true)?;
                }
                _ => return Err(damaged()),
            }
        }
        Ok(())
    }
}

/// Opens an image.
///
/// # Errors
/// It is no VHDX image, or one that this program does not read.
pub fn open(mut file: Box<dyn Storage>) -> io::Result<Blocks<Bat>> {
    let mut signature = [0; 8];
    file.read_at(0, &mut signature)?;
    if &signature != SIGNATURE {
        return Err(invalid("Image is not in VHDX format"));
    }
    let headers = [Header::read(file.as_mut(), 0), Header::read(file.as_mut(), 1)];
    let newest = headers.into_iter().flatten().max_by_key(|header| header.sequence);
    let mut header = newest.ok_or_else(|| invalid("the VHDX image has no valid header"))?;
    let (log, log_len) = (header.log_offset, u64::from(header.log_len));
    let log_fits = log_len <= LONGEST_LOG
        && log >= MIB
        && log.is_multiple_of(MIB)
        && log.checked_add(log_len).is_some_and(|end| end <= file.len());
    if !log_fits && (header.log != Guid::default() || !file.is_read_only()) {
        return Err(invalid("the VHDX log is impossible"));
    }
    replay(file.as_mut(), &mut header)?;
    let (bat_region, metadata_region) = regions(file.as_mut())?;
    let (block, size, sector) = metadata(file.as_mut(), metadata_region)?;
    let chunk = (sector << 23) / block;
    let blocks = size.div_ceil(block);
    let entries = blocks + blocks.saturating_sub(1) / chunk;
    if entries * 8 > bat_region.1 {
        return Err(invalid("the VHDX block table is too small"));
    }
    let mut bytes = vec![0; entries as usize * 8];
    read_exact(file.as_mut(), bat_region.0, &mut bytes)?;
    let len = file.len();
    let mut places = Vec::with_capacity(blocks as usize);
    for index in 0..blocks {
        let entry = le64(&bytes, 8 * (index + index / chunk) as usize);
        let at = entry & !(MIB - 1);
        places.push(match entry & 7 {
            FULLY_PRESENT if at < MIB || at >= len => return Err(invalid("a VHDX block lies outside the file")),
            FULLY_PRESENT => Place::At(at),
            PARTIALLY_PRESENT => return Err(invalid("VHDX images on top of others are not implemented")),
            _ => Place::Absent,
        });
    }
    let region = |(start, len): (u64, u64)| start..start.saturating_add(len);
    let structures = vec![0..MIB, region((log, log_len)), region(bat_region), region(metadata_region)];
    let bat = Bat { header, offset: bat_region.0, chunk, marked: false };
    Blocks::new(file, bat, places, (block, size), structures)
}

/// Makes the checksums of headers, region tables and log entries right.
#[cfg(test)]
pub fn reseal(bytes: &mut [u8]) {
    for (at, len) in
        HEADERS.map(|at| (at, HEADER_LEN)).into_iter().chain(REGION_TABLES.map(|at| (at, REGION_TABLE_LEN)))
    {
        if let Some(structure) = bytes.get_mut(at as usize..at as usize + len) {
            seal(structure);
        }
    }
    let log = LOG as usize..(LOG as usize + LOG_LEN as usize).min(bytes.len());
    for sector in log.step_by(SECTOR) {
        if bytes[sector..].starts_with(b"loge") && bytes.len() >= sector + SECTOR {
            let len = (le32(bytes, sector + 8) as usize).min(bytes.len() - sector).max(8);
            seal(&mut bytes[sector..sector + len]);
        }
    }
}

/// Writes an empty image of `size` bytes. `unique`: random bytes, of which identifiers are made.
///
/// # Errors
/// It would be too large, or the host refuses.
pub fn create(file: &mut dyn Storage, size: u64, unique: [u8; 32]) -> io::Result<()> {
    let block = match size >> 30 {
        0..32 => 8 * MIB,
        32..100 => 16 * MIB,
        100..1024 => 32 * MIB,
        _ => 64 * MIB,
    };
    let blocks = size.div_ceil(block);
    if size > 64 << 40 || blocks > MOST_ENTRIES {
        return Err(invalid("Image size too large; max of 64TB"));
    }
    let chunk = (512u64 << 23) / block;
    let bat_len = ((blocks + blocks.saturating_sub(1) / chunk) * 8).next_multiple_of(MIB).max(MIB);
    let mut name = vec![0; REGION_TABLE_LEN];
    put(&mut name, 0, SIGNATURE);
    for (i, c) in "emu".encode_utf16().enumerate() {
        put(&mut name, 8 + 2 * i, &c.to_le_bytes());
    }
    file.write_at(0, &name)?;
    let mut table = vec![0; REGION_TABLE_LEN];
    put(&mut table, 0, b"regi");
    put(&mut table, 8, &2u32.to_le_bytes());
    for (i, (id, at, len)) in [(BAT_REGION, BAT, bat_len), (METADATA_REGION, METADATA, MIB)].into_iter().enumerate() {
        let entry = 16 + 32 * i;
        put(&mut table, entry, &id);
        put(&mut table, entry + 16, &at.to_le_bytes());
        put(&mut table, entry + 24, &(len as u32).to_le_bytes());
        put(&mut table, entry + 28, &1u32.to_le_bytes());
    }
    seal(&mut table);
    for at in REGION_TABLES {
        file.write_at(at, &table)?;
    }
    let mut items = vec![0; REGION_TABLE_LEN + 4096];
    put(&mut items, 0, b"metadata");
    put(&mut items, 10, &5u16.to_le_bytes());
    let parameters = (block as u32).to_le_bytes().iter().copied().chain([0; 4]).collect();
    // Flags: 2: of the virtual disk, 4: required.
    let values: [(Guid, Vec<u8>, u32); 5] = [
        (FILE_PARAMETERS, parameters, 4),
        (DISK_SIZE, size.to_le_bytes().to_vec(), 6),
        (PAGE_83, unique[..16].to_vec(), 6),
        (LOGICAL_SECTOR, 512u32.to_le_bytes().to_vec(), 6),
        (PHYSICAL_SECTOR, 4096u32.to_le_bytes().to_vec(), 6),
    ];
    let mut at = REGION_TABLE_LEN;
    for (i, (id, value, flags)) in values.into_iter().enumerate() {
        let entry = 32 + 32 * i;
        put(&mut items, entry, &id);
        put(&mut items, entry + 16, &(at as u32).to_le_bytes());
        put(&mut items, entry + 20, &(value.len() as u32).to_le_bytes());
        put(&mut items, entry + 24, &flags.to_le_bytes());
        put(&mut items, at, &value);
        at += value.len();
    }
    file.set_len(BAT + bat_len)?;
    file.write_at(METADATA, &items)?;
    let id: Guid = unique[16..].try_into().unwrap_or_default();
    let mut header = Header {
        slot: 1,
        sequence: 0,
        file_write: id,
        data_write: id,
        log: Guid::default(),
        log_len: LOG_LEN,
        log_offset: LOG,
    };
    header.write(file)?;
    header.write(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::storage::MemoryStorage;
    use crate::image::testing::{CrashStorage, contents};
    use emu_devices::storage::block::Image;

    #[test]
    fn checksum_is_crc32c() {
        // RFC 3720 B.4: 32 bytes of zeros.
        assert_eq!(checksum(&[0; 32]), 0x8a91_36aa);
    }

    /// An image whose log has `entries`, each in a sector of its own from the log's beginning.
    fn with_log(entries: &[Vec<u8>]) -> MemoryStorage {
        let mut file = MemoryStorage::default();
        create(&mut file, 40 << 20, [9; 32]).unwrap();
        let mut header = Header::read(&mut file, 1).unwrap();
        header.log = [5; 16];
        header.write(&mut file).unwrap();
        for (i, entry) in entries.iter().enumerate() {
            file.write_at(LOG + (i * SECTOR) as u64, entry).unwrap();
        }
        file
    }

    fn refusal(file: &MemoryStorage) -> String {
        open(Box::new(file.clone())).err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn log_entries_within_each_other_are_none() {
        // Each goes from its sector to the end of the log, and each has the right checksum.
        let sectors = LOG_LEN as usize / SECTOR;
        let mut log = vec![0; LOG_LEN as usize];
        for sector in (0..sectors).rev() {
            let entry = &mut log[sector * SECTOR..];
            let len = entry.len() as u32;
            put(entry, 0, b"loge");
            put(entry, 8, &len.to_le_bytes());
            put(entry, 12, &((sector * SECTOR) as u32).to_le_bytes());
            put(entry, 16, &1u64.to_le_bytes());
            put(entry, 32, &[5; 16]);
            seal(entry);
        }
        let entries = |log: &[u8]| (0..sectors).filter_map(|i| LogEntry::read(log, i, &[5; 16])).count();
        assert_eq!(entries(&log), 1);
    }

    #[test]
    fn log_that_makes_more_zeros_than_there_is_room_for_is_damaged() {
        let mut entry = log_entry(&[5; 16], 4 << 20, &[]);
        entry.resize(SECTOR * 2, 0);
        put(&mut entry, 8, &(2 * SECTOR as u32).to_le_bytes());
        put(&mut entry, 24, &100u32.to_le_bytes());
        for i in 0..100 {
            put(&mut entry, 64 + 32 * i, b"zero");
            put(&mut entry, 64 + 32 * i + 8, &MIB.to_le_bytes());
            put(&mut entry, 64 + 32 * i + 16, &(3 * MIB).to_le_bytes());
        }
        seal(&mut entry);
        assert_eq!(refusal(&with_log(&[entry])), "a VHDX log entry is damaged");
    }

    #[test]
    fn log_that_is_nowhere_is_refused_and_numbers_go_round() {
        for (offset, sequence) in [(u64::MAX - 4095, 7), (1, 7), (LOG, u64::MAX)] {
            let mut file = MemoryStorage::default();
            create(&mut file, 40 << 20, [9; 32]).unwrap();
            let mut header = Header::read(&mut file, 1).unwrap();
            (header.log_offset, header.sequence) = (offset, sequence - 1);
            header.write(&mut file).unwrap();
            let opened = open(Box::new(file));
            assert_eq!(opened.is_ok(), offset == LOG);
            let Ok(mut image) = opened else { continue };
            image.write_at(0, &[1; 512]).unwrap();
            image.flush().unwrap();
        }
    }

    #[test]
    fn power_cuts_lose_nothing_that_was_flushed() {
        let mut file = MemoryStorage::default();
        create(&mut file, 40 << 20, [9; 32]).unwrap();
        for seed in 0..6 {
            let mut random = fastrand::Rng::with_seed(seed);
            let storage = CrashStorage::new(file.bytes());
            let mut image = open(Box::new(storage.clone())).unwrap();
            let mut flushed = vec![0u8; 40 << 20];
            let mut now = flushed.clone();
            storage.set_fuse(random.u64(1..40));
            loop {
                let at = random.usize(..79) << 19;
                now[at..at + 512].fill(random.u8(1..));
                if image.write_at(at as u64, &now[at..at + 512]).is_err() {
                    break;
                }
                if random.bool() {
                    if image.flush().is_err() {
                        break;
                    }
                    flushed.clone_from(&now);
                }
            }
            drop(image);
            let mut image = open(Box::new(MemoryStorage::new(storage.after_crash(&mut random)))).unwrap();
            let found = contents(&mut image);
            for (i, sector) in found.chunks(512).enumerate() {
                let range = i * 512..(i + 1) * 512;
                let changed = flushed[range.clone()] != now[range.clone()];
                assert!(changed || sector == &flushed[range], "seed {seed}: sector {i} has lost what was flushed");
            }
        }
    }
}
