//! VHD, Virtual PC's and Hyper-V's older images, fixed and dynamic: Microsoft, "Virtual Hard Disk Image Format
//! Specification", version 1.0.
//!
//! ```text
//!  fixed:    data | footer (512)
//!  dynamic:  copy of the footer | dynamic header (1024) | block table: u32 | block: bitmap, data | ... | footer
//! ```
//! Deliberately absent: differencing images. The bitmaps of new blocks say that all their sectors are there.

use crate::image::blocks::{Blocks, MOST_ENTRIES, Place, Table};
use crate::image::layer::{Extent, Layer, data_in};
use crate::image::storage::{Storage, read_exact};
use crate::image::{Format, invalid};
use emu_devices::storage::block::Image;
use std::io;

const COOKIE: &[u8; 8] = b"conectix";
const DYNAMIC_COOKIE: &[u8; 8] = b"cxsparse";
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;
const UNUSED: u32 = 0xffff_ffff;
const BLOCK: u64 = 2 << 20;
/// The largest geometry, in sectors: larger disks have it too.
const MOST_CHS: u64 = 65_535 * 16 * 255;
/// Creators whose size counts, and not their geometry.
const EXACT_CREATORS: [&[u8; 4]; 6] = [b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS", b"wa\0\0"];

/// Offsets in the footer.
mod at {
    pub const FEATURES: usize = 8;
    pub const VERSION: usize = 12;
    pub const DATA_OFFSET: usize = 16;
    pub const CREATOR: usize = 28;
    pub const CREATOR_OS: usize = 36;
    pub const ORIGINAL_SIZE: usize = 40;
    pub const CURRENT_SIZE: usize = 48;
    pub const GEOMETRY: usize = 56;
    pub const TYPE: usize = 60;
    pub const CHECKSUM: usize = 64;
    pub const UUID: usize = 68;
}

fn be32(bytes: &[u8], i: usize) -> u32 {
    u32::from_be_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]])
}

fn be64(bytes: &[u8], i: usize) -> u64 {
    u64::from(be32(bytes, i)) << 32 | u64::from(be32(bytes, i + 4))
}

/// The one's complement of the sum of all bytes but the checksum's own.
fn checksum(bytes: &[u8], own: usize) -> u32 {
    let others = bytes.iter().enumerate().filter(|(i, _)| !(own..own + 4).contains(i));
    !others.fold(0u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)))
}

/// The block table of a dynamic image.
pub struct VpcTable {
    table: u64,
    footer: [u8; 512],
    bitmap: usize,
    /// The file ends with its footer, as it should.
    closed: bool,
}

impl Table for VpcTable {
    fn format(&self) -> Format {
        Format::Vpc
    }

    fn prefix(&self) -> Vec<u8> {
        vec![0xff; self.bitmap]
    }

    /// Entries are numbers of sectors.
    fn limit(&self) -> u64 {
        u64::from(UNUSED) * 512
    }

    /// Where the footer is now.
    fn end(&self, file_len: u64) -> u64 {
        if self.closed { file_len.saturating_sub(512) } else { file_len }
    }

    fn close(&mut self, file: &mut dyn Storage, end: u64) -> io::Result<()> {
        file.write_at(end, &self.footer)
    }

    fn write_entries(&mut self, file: &mut dyn Storage, entries: &[(usize, u64)]) -> io::Result<()> {
        for (index, place) in entries {
            let sector = ((place - self.bitmap as u64) / 512) as u32;
            file.write_at(self.table + 4 * *index as u64, &sector.to_be_bytes())?;
        }
        file.flush()
    }
}

/// Opens an image.
///
/// # Errors
/// It is no VHD image, or one that this program does not read.
pub fn open(mut file: Box<dyn Storage>) -> io::Result<Box<dyn Layer>> {
    let not_vhd = || invalid("Image is not in VPC format");
    let mut footer = [0; 512];
    read_exact(file.as_mut(), 0, &mut footer).map_err(|_| not_vhd())?;
    let len = file.len();
    let mut last = [0; 512];
    read_exact(file.as_mut(), len - 512, &mut last)?;
    let is_good = |footer: &[u8; 512]| be32(footer, at::CHECKSUM) == checksum(footer, at::CHECKSUM);
    // A guest has written the first sector of a fixed image, which may hold anything.
    let fixed = last.starts_with(COOKIE) && is_good(&last) && be32(&last, at::TYPE) == FIXED;
    let at_start = footer.starts_with(COOKIE) && !fixed;
    if !at_start {
        footer = last;
        if !footer.starts_with(COOKIE) {
            return Err(not_vhd());
        }
    }
    if !is_good(&footer) {
        return Err(invalid("the VHD footer's checksum is wrong"));
    }
    let geometry = &footer[at::GEOMETRY..at::GEOMETRY + 4];
    let chs =
        u64::from(u16::from_be_bytes([geometry[0], geometry[1]])) * u64::from(geometry[2]) * u64::from(geometry[3]);
    let exact = EXACT_CREATORS.iter().any(|creator| footer[at::CREATOR..].starts_with(*creator));
    let size = if exact || chs >= MOST_CHS { be64(&footer, at::CURRENT_SIZE) } else { chs * 512 };
    if size >> 56 != 0 {
        return Err(invalid("the VHD image is too large"));
    }
    match be32(&footer, at::TYPE) {
        FIXED if !at_start => Ok(Box::new(Fixed { len: size.min(len - 512), file })),
        DYNAMIC => open_dynamic(file, footer, size),
        4 => Err(invalid("VHD images on top of others are not implemented")),
        other => Err(invalid(format!("unsupported VHD disk type {other}"))),
    }
}

fn open_dynamic(mut file: Box<dyn Storage>, footer: [u8; 512], size: u64) -> io::Result<Box<dyn Layer>> {
    let mut header = [0; 1024];
    read_exact(file.as_mut(), be64(&footer, at::DATA_OFFSET), &mut header)?;
    if !header.starts_with(DYNAMIC_COOKIE) {
        return Err(invalid("the VHD image has no dynamic header"));
    }
    if be32(&header, 36) != checksum(&header, 36) {
        return Err(invalid("the VHD header's checksum is wrong"));
    }
    let (table, entries, block) = (be64(&header, 16), u64::from(be32(&header, 28)), u64::from(be32(&header, 32)));
    if !block.is_power_of_two() || !(512..=256 << 20).contains(&block) {
        return Err(invalid(format!("invalid VHD block size {block}")));
    }
    if entries > MOST_ENTRIES || size > entries * block {
        return Err(invalid("the VHD block table is too small or too large"));
    }
    if table.checked_add(entries * 4).is_none_or(|end| end > file.len()) {
        return Err(invalid("the VHD block table is beyond the end of the file"));
    }
    let mut bytes = vec![0; entries as usize * 4];
    read_exact(file.as_mut(), table, &mut bytes)?;
    let bitmap = (block / 512 / 8).next_multiple_of(512) as usize;
    let mut places = Vec::with_capacity(entries as usize);
    for entry in bytes.chunks_exact(4) {
        places.push(match be32(entry, 0) {
            UNUSED => Place::Absent,
            sector => {
                let data = u64::from(sector) * 512 + bitmap as u64;
                if sector < 3 || data > file.len() {
                    return Err(invalid("a VHD block lies outside the file"));
                }
                Place::At(data)
            }
        });
    }
    let mut last = [0; 512];
    let len = file.len();
    // After a loss of power, a block may be there instead.
    let in_block = places.iter().any(|place| matches!(place, Place::At(at) if at + block > len - 512));
    let closed = !in_block && read_exact(file.as_mut(), len - 512, &mut last).is_ok() && last == footer;
    let dynamic = be64(&footer, at::DATA_OFFSET);
    let structures = vec![0..512, dynamic..dynamic + 1024, table..table + entries * 4];
    let table = VpcTable { table, footer, bitmap, closed };
    Ok(Box::new(Blocks::new(file, table, places, (block, size), structures)?))
}

/// Makes the checksums of footer and header right.
#[cfg(test)]
pub fn reseal(bytes: &mut [u8]) {
    let end = bytes.len().saturating_sub(512);
    for (at, len, own) in [(0, 512, at::CHECKSUM), (end, 512, at::CHECKSUM), (512, 1024, 36)] {
        if let Some(structure) = bytes.get_mut(at..at + len) {
            let sum = checksum(structure, own);
            structure[own..own + 4].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

/// A fixed image: a raw one with a footer.
struct Fixed {
    file: Box<dyn Storage>,
    len: u64,
}

impl Image for Fixed {
    fn len(&self) -> u64 {
        self.len
    }
    fn is_read_only(&self) -> bool {
        self.file.is_read_only()
    }
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.check_range(offset, buffer.len())?;
        self.file.read_at(offset, buffer)
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_range(offset, bytes.len())?;
        self.file.write_at(offset, bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Fixed {
    fn check_range(&self, offset: u64, len: usize) -> io::Result<()> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl Layer for Fixed {
    fn format(&self) -> Format {
        Format::Vpc
    }
    fn extent(&mut self, offset: u64, max: u64) -> io::Result<Extent> {
        data_in(self.file.as_mut(), offset, max.min(self.len.saturating_sub(offset).max(1)))
    }
    fn resize(&mut self, _len: u64) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "Image format driver does not support resize"))
    }
    fn allocated(&self) -> u64 {
        self.file.allocated()
    }
}

/// The geometry that the specification's appendix computes.
fn geometry(sectors: u64) -> (u16, u8, u8) {
    let total = sectors.min(MOST_CHS);
    if total > 65_535 * 16 * 63 {
        return ((total / (16 * 255)) as u16, 16, 255);
    }
    let mut per_track = 17;
    let mut tracks = total / per_track;
    let mut heads = tracks.div_ceil(1024).max(4);
    if tracks >= heads * 1024 || heads > 16 {
        (per_track, heads) = (31, 16);
        tracks = total / per_track;
    }
    if tracks >= heads * 1024 {
        (per_track, heads) = (63, 16);
        tracks = total / per_track;
    }
    ((tracks / heads) as u16, heads as u8, per_track as u8)
}

/// Writes an empty image of exactly `size` bytes. `time`: seconds since 2000.
///
/// # Errors
/// It would be too large, or the host refuses.
pub fn create(file: &mut dyn Storage, size: u64, fixed: bool, uuid: [u8; 16], time: u32) -> io::Result<()> {
    let blocks = size.div_ceil(BLOCK);
    if size > 2040 << 30 {
        return Err(invalid("VHD images hold 2040 GiB at most"));
    }
    let mut footer = [0; 512];
    let mut put = |i: usize, bytes: &[u8]| footer[i..i + bytes.len()].copy_from_slice(bytes);
    let (cylinders, heads, per_track) = geometry(size / 512);
    put(0, COOKIE);
    put(at::FEATURES, &2u32.to_be_bytes());
    put(at::VERSION, &0x0001_0000u32.to_be_bytes());
    put(at::DATA_OFFSET, &if fixed { u64::MAX } else { 512 }.to_be_bytes());
    put(24, &time.to_be_bytes());
    put(at::CREATOR, b"qem2");
    put(32, &0x0005_0003u32.to_be_bytes());
    put(at::CREATOR_OS, b"Wi2k");
    put(at::ORIGINAL_SIZE, &size.to_be_bytes());
    put(at::CURRENT_SIZE, &size.to_be_bytes());
    put(at::GEOMETRY, &cylinders.to_be_bytes());
    put(at::GEOMETRY + 2, &[heads, per_track]);
    put(at::TYPE, &if fixed { FIXED } else { DYNAMIC }.to_be_bytes());
    put(at::UUID, &uuid);
    let sum = checksum(&footer, at::CHECKSUM);
    footer[at::CHECKSUM..at::CHECKSUM + 4].copy_from_slice(&sum.to_be_bytes());
    if fixed {
        file.write_at(size, &footer)?;
        return file.flush();
    }
    let mut header = [0; 1024];
    let mut put = |i: usize, bytes: &[u8]| header[i..i + bytes.len()].copy_from_slice(bytes);
    put(0, DYNAMIC_COOKIE);
    put(8, &u64::MAX.to_be_bytes());
    put(16, &(3u64 * 512).to_be_bytes());
    put(24, &0x0001_0000u32.to_be_bytes());
    put(28, &(blocks as u32).to_be_bytes());
    put(32, &(BLOCK as u32).to_be_bytes());
    let sum = checksum(&header, 36);
    header[36..40].copy_from_slice(&sum.to_be_bytes());
    let table = (blocks * 4).next_multiple_of(512);
    file.write_at(0, &footer)?;
    file.write_at(512, &header)?;
    file.write_at(3 * 512, &vec![0xff; table as usize])?;
    file.write_at(3 * 512 + table, &footer)?;
    file.flush()
}
