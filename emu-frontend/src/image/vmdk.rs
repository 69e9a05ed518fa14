//! VMDK, VMware's images: monolithicSparse, monolithicFlat, twoGbMaxExtentFlat and -Sparse, and stream-optimised ones
//! for reading: VMware, "Virtual Disk Format 5.0".
//!
//! ```text
//!  sparse extent: header | descriptor (text) | grain directory -> grain tables -> grains (64 KiB)
//! ```
//! A descriptor may be a file of its own, that names its extents. Those are files in its own folder, whatever it says.
//! Deliberately absent: images on top of others, other sparse formats (COWD, seSparse), and devices as extents.

use crate::image::blocks::{Blocks, MOST_ENTRIES, Place, Table};
use crate::image::layer::{Extent, ExtentKind, Layer};
use crate::image::storage::{Storage, read_exact};
use crate::image::{Format, invalid};
use emu_devices::storage::block::Image;
use flate2::{Decompress, FlushDecompress};
use std::io;

const MAGIC: &[u8; 4] = b"KDMV";
const SECTOR: u64 = 512;
/// Sectors of a grain in new images.
const GRAIN: u64 = 128;
/// Entries of a grain table.
const TABLE_ENTRIES: u64 = 512;
/// Sectors of the descriptor in new images.
const DESCRIPTOR_SECTORS: u64 = 20;
/// The longest descriptor, in bytes.
const LONGEST_DESCRIPTOR: u64 = 1 << 20;
/// The most extents of an image.
const MOST_EXTENTS: usize = 2048;

/// Header flags.
mod flag {
    pub const NEWLINES: u32 = 1 << 0;
    pub const REDUNDANT: u32 = 1 << 1;
    pub const ZERO_GRAINS: u32 = 1 << 2;
    pub const COMPRESSED: u32 = 1 << 16;
    pub const MARKERS: u32 = 1 << 17;
}

/// A sparse extent's header.
#[derive(Clone, Copy, Debug)]
struct Header {
    flags: u32,
    capacity: u64,
    grain: u64,
    descriptor: u64,
    descriptor_sectors: u64,
    redundant_directory: u64,
    directory: u64,
}

impl Header {
    fn read(file: &mut dyn Storage, at: u64) -> io::Result<Header> {
        let mut b = [0; 512];
        read_exact(file, at, &mut b)?;
        let u32_at = |i: usize| u32::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        let u64_at = |i: usize| u64::from(u32_at(i)) | u64::from(u32_at(i + 4)) << 32;
        if &b[..4] != MAGIC {
            return Err(invalid("Image is not in VMDK format"));
        }
        if !(1..=3).contains(&u32_at(4)) {
            return Err(invalid(format!("Unsupported VMDK version {}", u32_at(4))));
        }
        let h = Header {
            flags: u32_at(8),
            capacity: u64_at(12),
            grain: u64_at(20),
            descriptor: u64_at(28),
            descriptor_sectors: u64_at(36),
            redundant_directory: u64_at(48),
            directory: u64_at(56),
        };
        if u64::from(u32_at(44)) != TABLE_ENTRIES {
            return Err(invalid("VMDK grain tables of other sizes than 512 are not implemented"));
        }
        if !h.grain.is_power_of_two() || !(1..=128 << 10).contains(&h.grain) {
            return Err(invalid("Invalid VMDK grain size"));
        }
        if h.capacity >> 53 != 0 || h.capacity.div_ceil(h.grain) > MOST_ENTRIES {
            return Err(invalid("the VMDK image is too large"));
        }
        Ok(h)
    }
}

/// The grain tables, one behind the other as far as the disk is concerned.
pub struct GrainTables {
    /// Bytes in the file, those of each table; and of its copy.
    tables: Vec<u64>,
    copies: Vec<u64>,
}

impl Table for GrainTables {
    fn format(&self) -> Format {
        Format::Vmdk
    }

    /// Entries are numbers of sectors.
    fn limit(&self) -> u64 {
        SECTOR << 32
    }

    fn write_entries(&mut self, file: &mut dyn Storage, entries: &[(usize, u64)]) -> io::Result<()> {
        for (index, place) in entries {
            let sector = ((place / SECTOR) as u32).to_le_bytes();
            let (table, within) = (index / TABLE_ENTRIES as usize, 4 * (*index as u64 % TABLE_ENTRIES));
            for tables in [&self.tables, &self.copies] {
                if let Some(at) = tables.get(table).filter(|at| **at != 0) {
                    file.write_at(at + within, &sector)?;
                }
            }
        }
        file.flush()
    }
}

/// Reads the directory at a sector: the tables' offsets in bytes.
fn read_directory(file: &mut dyn Storage, sector: u64, tables: u64) -> io::Result<Vec<u64>> {
    let mut bytes = vec![0; tables as usize * 4];
    let at = sector.checked_mul(SECTOR).ok_or_else(|| invalid("the VMDK grain directory is beyond any file"))?;
    read_exact(file, at, &mut bytes)?;
    Ok(bytes.chunks_exact(4).map(|b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])) * SECTOR).collect())
}

/// Opens a sparse extent, which may have `most` grains.
fn open_sparse(mut file: Box<dyn Storage>, most: u64) -> io::Result<Box<dyn Layer>> {
    let mut header = Header::read(file.as_mut(), 0)?;
    if header.directory == u64::MAX {
        // A stream has its directory behind it: footer marker, footer, end marker.
        let at = file.len().checked_sub(1024).ok_or_else(|| invalid("the VMDK stream has no footer"))?;
        header = Header::read(file.as_mut(), at)?;
    }
    let grains = header.capacity.div_ceil(header.grain);
    if grains > most {
        return Err(invalid("the VMDK image is too large"));
    }
    let tables = grains.div_ceil(TABLE_ENTRIES);
    let directory = read_directory(file.as_mut(), header.directory, tables)?;
    let copies = match header.flags & flag::REDUNDANT {
        0 => Vec::new(),
        _ => read_directory(file.as_mut(), header.redundant_directory, tables)?,
    };
    let len = file.len();
    let mut places = Vec::new();
    for table in &directory {
        let mut bytes = vec![0; TABLE_ENTRIES as usize * 4];
        if *table != 0 {
            read_exact(file.as_mut(), *table, &mut bytes)?;
        }
        for entry in bytes.chunks_exact(4) {
            let sector = u64::from(u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]));
            let zero = sector == 1 && header.flags & flag::ZERO_GRAINS != 0;
            places.push(match sector {
                0 => Place::Absent,
                _ if zero => Place::Absent,
                sector if sector * SECTOR >= len => {
                    return Err(invalid("a VMDK grain lies beyond the end of the file"));
                }
                sector => Place::At(sector * SECTOR),
            });
        }
    }
    let (block, size) = (header.grain * SECTOR, header.capacity * SECTOR);
    if header.flags & (flag::COMPRESSED | flag::MARKERS) != 0 {
        return Ok(Box::new(Stream { file, places, block, len: size, unpacked: None }));
    }
    if directory.contains(&0) && !file.is_read_only() {
        return Err(invalid("VMDK images whose grain tables are not all there can be read only"));
    }
    let table_fits = |table: &u64| *table == 0 || *table + TABLE_ENTRIES * 4 <= len;
    if !copies.iter().all(table_fits) {
        return Err(invalid("a VMDK grain table lies beyond the end of the file"));
    }
    let range = |sector: u64, bytes: u64| match sector.saturating_mul(SECTOR) {
        0 => 0..0,
        start => start..start.saturating_add(bytes),
    };
    let mut structures = vec![
        0..SECTOR,
        range(header.descriptor, header.descriptor_sectors.saturating_mul(SECTOR)),
        range(header.directory, tables * 4),
    ];
    if !copies.is_empty() {
        structures.push(range(header.redundant_directory, tables * 4));
    }
    let all = directory.iter().chain(&copies).filter(|at| **at != 0);
    structures.extend(all.map(|at| *at..at + TABLE_ENTRIES * 4));
    let tables = GrainTables { tables: directory, copies };
    Ok(Box::new(Blocks::new(file, tables, places, (block, size), structures)?))
}

/// A stream-optimised extent.
struct Stream {
    file: Box<dyn Storage>,
    places: Vec<Place>,
    block: u64,
    len: u64,
    /// The grain that was read last: its offset and contents.
    unpacked: Option<(u64, Vec<u8>)>,
}

impl Stream {
    fn grain(&mut self, at: u64) -> io::Result<&[u8]> {
        if self.unpacked.as_ref().is_none_or(|(known, _)| *known != at) {
            // Marker: number of the first sector (u64), bytes (u32), a zlib stream.
            let mut marker = [0; 12];
            read_exact(self.file.as_mut(), at, &mut marker)?;
            let len = u64::from(u32::from_le_bytes([marker[8], marker[9], marker[10], marker[11]]));
            if len == 0 || len > 2 * self.block + 4096 {
                return Err(invalid("a compressed VMDK grain has an impossible length"));
            }
            let mut packed = vec![0; len as usize];
            read_exact(self.file.as_mut(), at + 12, &mut packed)?;
            let mut bytes = vec![0; self.block as usize];
            let mut inflate = Decompress::new(true);
            inflate
                .decompress(&packed, &mut bytes, FlushDecompress::Finish)
                .map_err(|e| invalid(format!("a compressed VMDK grain is damaged: {e}")))?;
            self.unpacked = Some((at, bytes));
        }
        Ok(self.unpacked.as_ref().map(|(_, bytes)| bytes.as_slice()).unwrap_or_default())
    }
}

impl Image for Stream {
    fn len(&self) -> u64 {
        self.len
    }
    fn is_read_only(&self) -> bool {
        true
    }
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let within = (at % self.block) as usize;
            let n = (self.block as usize - within).min(buffer.len() - done);
            let part = &mut buffer[done..done + n];
            match self.places.get((at / self.block) as usize) {
                Some(Place::At(host)) => {
                    let host = *host;
                    part.copy_from_slice(&self.grain(host)?[within..within + n]);
                }
                _ => part.fill(0),
            }
            done += n;
        }
        Ok(())
    }
    fn write_at(&mut self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Layer for Stream {
    fn format(&self) -> Format {
        Format::Vmdk
    }
    fn extent(&mut self, offset: u64, max: u64) -> io::Result<Extent> {
        let len = (self.block - offset % self.block).min(max);
        let kind = match self.places.get((offset / self.block) as usize) {
            Some(Place::At(_)) => ExtentKind::Data { at: None, compressed: true, hole: false },
            _ => ExtentKind::Absent,
        };
        Ok(Extent { len, kind })
    }
    fn resize(&mut self, _len: u64) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "Image format driver does not support resize"))
    }
    fn cluster_size(&self) -> u64 {
        self.block
    }
    fn allocated(&self) -> u64 {
        self.file.allocated()
    }
}

/// A line of a descriptor: `RW 4192256 SPARSE "name" 0`.
#[derive(Debug, PartialEq, Eq)]
struct ExtentLine {
    writable: bool,
    sectors: u64,
    kind: ExtentType,
    file: String,
    /// Sectors into the file.
    offset: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum ExtentType {
    Flat,
    Sparse,
    Zero,
}

/// The extents that a descriptor names.
fn parse_descriptor(text: &str) -> io::Result<Vec<ExtentLine>> {
    let mut extents = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(parent) = line.strip_prefix("parentCID=")
            && !parent.trim().eq_ignore_ascii_case("ffffffff")
        {
            return Err(invalid("VMDK images on top of others are not implemented"));
        }
        let mut words = line.splitn(4, ' ');
        let access = words.next().unwrap_or_default();
        if !matches!(access, "RW" | "RDONLY" | "NOACCESS") {
            continue;
        }
        let wrong = || invalid(format!("Invalid extent line: {line}"));
        let sectors = words.next().and_then(|n| n.parse::<u64>().ok()).filter(|n| n >> 53 == 0).ok_or_else(wrong)?;
        let kind = match words.next() {
            Some("FLAT" | "VMFS") => ExtentType::Flat,
            Some("SPARSE") => ExtentType::Sparse,
            Some("ZERO") => ExtentType::Zero,
            other => return Err(invalid(format!("Unsupported VMDK extent type '{}'", other.unwrap_or_default()))),
        };
        let rest = words.next().unwrap_or_default();
        let mut quoted = rest.splitn(3, '"').skip(1);
        let file = quoted.next().unwrap_or_default().to_owned();
        let offset = match quoted.next().map(str::trim).unwrap_or_default() {
            "" => 0,
            text => text.parse::<u64>().ok().filter(|n| n >> 53 == 0).ok_or_else(wrong)?,
        };
        if access == "NOACCESS" || file.is_empty() && kind != ExtentType::Zero {
            return Err(wrong());
        }
        if extents.len() >= MOST_EXTENTS {
            return Err(invalid("the VMDK image has too many extents"));
        }
        extents.push(ExtentLine { writable: access == "RW", sectors, kind, file, offset });
    }
    if extents.is_empty() {
        return Err(invalid("the VMDK descriptor names no extents"));
    }
    Ok(extents)
}

/// Opens another file of the image, by its name in the image's folder.
pub type Sibling<'a> = &'a dyn Fn(&str) -> Result<Box<dyn Storage>, String>;

/// Opens an image.
///
/// # Errors
/// It is no VMDK image, or one that this program does not read; or one of its files cannot be opened.
pub fn open(mut file: Box<dyn Storage>, sibling: Sibling) -> io::Result<Box<dyn Layer>> {
    let mut magic = [0; 4];
    file.read_at(0, &mut magic)?;
    if &magic == MAGIC {
        let header = Header::read(file.as_mut(), 0)?;
        if header.descriptor != 0 && header.descriptor_sectors != 0 {
            let len = (header.descriptor_sectors.saturating_mul(SECTOR)).min(LONGEST_DESCRIPTOR).min(file.len());
            let mut text = vec![0; len as usize];
            let at = header.descriptor.checked_mul(SECTOR).ok_or_else(|| invalid("the VMDK descriptor is missing"))?;
            file.read_at(at, &mut text)?;
            let text = String::from_utf8_lossy(&text);
            // Only for what lies below: this file is the extent.
            parse_descriptor(text.trim_end_matches('\0'))?;
        }
        return open_sparse(file, MOST_ENTRIES);
    }
    if file.len() > LONGEST_DESCRIPTOR {
        return Err(invalid("Image is not in VMDK format"));
    }
    let mut text = vec![0; file.len() as usize];
    file.read_at(0, &mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    if !text.trim_start().starts_with("# Disk DescriptorFile") {
        return Err(invalid("Image is not in VMDK format"));
    }
    let mut parts = Vec::new();
    let mut start = 0u64;
    // All extents together have no more than one may have.
    let mut most = MOST_ENTRIES;
    for line in parse_descriptor(&text)? {
        let len = line.sectors * SECTOR;
        let source = match line.kind {
            ExtentType::Zero => Source::Zero,
            _ if line.file.contains(['/', '\\', ':']) || line.file.starts_with('.') => {
                return Err(invalid(format!("the VMDK extent '{}' is not in the image's folder", line.file)));
            }
            kind => {
                let file = sibling(&line.file).map_err(|e| invalid(format!("extent '{}': {e}", line.file)))?;
                match kind {
                    ExtentType::Flat => Source::Flat(file, line.offset * SECTOR),
                    _ => {
                        let image = open_sparse(file, most)?;
                        most -= image.len().div_ceil(image.cluster_size()).min(most);
                        Source::Sparse(image)
                    }
                }
            }
        };
        let source_len = match &source {
            Source::Zero => len,
            Source::Flat(file, offset) => file.len().saturating_sub(*offset),
            Source::Sparse(image) => image.len(),
        };
        if source_len < len {
            return Err(invalid(format!("the VMDK extent '{}' is too short", line.file)));
        }
        parts.push(Part { start, len, source, writable: line.writable });
        start =
            start.checked_add(len).filter(|n| n >> 62 == 0).ok_or_else(|| invalid("the VMDK image is too large"))?;
    }
    Ok(Box::new(Extents { read_only: file.is_read_only(), parts, len: start }))
}

enum Source {
    Zero,
    Flat(Box<dyn Storage>, u64),
    Sparse(Box<dyn Layer>),
}

struct Part {
    start: u64,
    len: u64,
    source: Source,
    writable: bool,
}

/// Several extents, one behind the other.
struct Extents {
    parts: Vec<Part>,
    len: u64,
    read_only: bool,
}

impl Extents {
    /// Calls `f` for each part that the range touches: the part, the offset in it, the range of the buffer.
    fn each(
        &mut self,
        offset: u64,
        len: usize,
        mut f: impl FnMut(&mut Part, u64, std::ops::Range<usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        if offset.checked_add(len as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let end = offset + len as u64;
        for part in &mut self.parts {
            let (from, to) = (offset.max(part.start), end.min(part.start + part.len));
            if from < to {
                let within = from - part.start;
                f(part, within, (from - offset) as usize..(to - offset) as usize)?;
            }
        }
        Ok(())
    }
}

impl Image for Extents {
    fn len(&self) -> u64 {
        self.len
    }
    fn is_read_only(&self) -> bool {
        self.read_only
    }
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let len = buffer.len();
        self.each(offset, len, |part, within, range| match &mut part.source {
            Source::Zero => {
                buffer[range].fill(0);
                Ok(())
            }
            Source::Flat(file, base) => file.read_at(*base + within, &mut buffer[range]),
            Source::Sparse(image) => image.read_at(within, &mut buffer[range]),
        })
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.each(offset, bytes.len(), |part, within, range| match &mut part.source {
            _ if !part.writable => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            Source::Zero => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            Source::Flat(file, base) => file.write_at(*base + within, &bytes[range]),
            Source::Sparse(image) => image.write_at(within, &bytes[range]),
        })
    }
    fn flush(&mut self) -> io::Result<()> {
        for part in &mut self.parts {
            match &mut part.source {
                Source::Zero => {}
                Source::Flat(file, _) => file.flush()?,
                Source::Sparse(image) => image.flush()?,
            }
        }
        Ok(())
    }
}

impl Layer for Extents {
    fn format(&self) -> Format {
        Format::Vmdk
    }
    fn extent(&mut self, offset: u64, max: u64) -> io::Result<Extent> {
        let Some(part) = self.parts.iter_mut().find(|part| offset < part.start + part.len) else {
            return Ok(Extent { len: max, kind: ExtentKind::Absent });
        };
        let (within, max) = (offset - part.start, max.min(part.start + part.len - offset));
        match &mut part.source {
            Source::Zero => Ok(Extent { len: max, kind: ExtentKind::Zero { at: None } }),
            Source::Sparse(image) => {
                // Offsets in several files mean nothing together.
                let Extent { len, kind } = image.extent(within, max)?;
                let kind = match kind {
                    ExtentKind::Data { compressed, hole, .. } => ExtentKind::Data { at: None, compressed, hole },
                    other => other,
                };
                Ok(Extent { len, kind })
            }
            Source::Flat(file, base) => {
                let (data, len) = file.extent(*base + within, max)?;
                Ok(Extent { len, kind: ExtentKind::Data { at: None, compressed: false, hole: !data } })
            }
        }
    }
    fn resize(&mut self, _len: u64) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "Image format driver does not support resize"))
    }
    fn allocated(&self) -> u64 {
        let one = |part: &Part| match &part.source {
            Source::Zero => 0,
            Source::Flat(file, _) => file.allocated(),
            Source::Sparse(image) => image.allocated(),
        };
        self.parts.iter().map(one).sum()
    }
}

/// The text of a descriptor.
pub fn descriptor(size: u64, kind: &str, extent: &str, cid: u32) -> String {
    let cylinders = size / SECTOR / (63 * 16);
    format!(
        "# Disk DescriptorFile\nversion=1\nCID={cid:08x}\nparentCID=ffffffff\ncreateType=\"{kind}\"\n\n# Extent description\n{extent}\n\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"4\"\nddb.geometry.cylinders = \"{cylinders}\"\nddb.geometry.heads = \"16\"\nddb.geometry.sectors = \"63\"\nddb.adapterType = \"ide\"\n"
    )
}

/// Writes an empty monolithicSparse image of `size` bytes, whose file is called `name`.
///
/// # Errors
/// It would be too large, or the host refuses.
pub fn create(file: &mut dyn Storage, size: u64, name: &str, cid: u32) -> io::Result<()> {
    let capacity = size.div_ceil(SECTOR);
    let grains = capacity.div_ceil(GRAIN);
    if grains > MOST_ENTRIES {
        return Err(invalid("the VMDK image would be too large"));
    }
    let tables = grains.div_ceil(TABLE_ENTRIES);
    let table_sectors = TABLE_ENTRIES * 4 / SECTOR;
    let directory_sectors = (tables * 4).div_ceil(SECTOR);
    let redundant = 1 + DESCRIPTOR_SECTORS;
    let directory = redundant + directory_sectors + tables * table_sectors;
    let overhead = (directory + directory_sectors + tables * table_sectors).next_multiple_of(GRAIN);
    let mut h = [0; 512];
    let mut put = |i: usize, bytes: &[u8]| h[i..i + bytes.len()].copy_from_slice(bytes);
    put(0, MAGIC);
    put(4, &1u32.to_le_bytes());
    put(8, &(flag::NEWLINES | flag::REDUNDANT).to_le_bytes());
    put(12, &capacity.to_le_bytes());
    put(20, &GRAIN.to_le_bytes());
    put(28, &1u64.to_le_bytes());
    put(36, &DESCRIPTOR_SECTORS.to_le_bytes());
    put(44, &(TABLE_ENTRIES as u32).to_le_bytes());
    put(48, &redundant.to_le_bytes());
    put(56, &directory.to_le_bytes());
    put(64, &overhead.to_le_bytes());
    // What a transfer as text would change.
    put(73, b"\n \r\n");
    let text = descriptor(size, "monolithicSparse", &format!("RW {capacity} SPARSE \"{name}\""), cid);
    if text.len() as u64 > DESCRIPTOR_SECTORS * SECTOR {
        return Err(invalid("the file's name is too long for a VMDK descriptor"));
    }
    file.set_len(overhead * SECTOR)?;
    file.write_at(SECTOR, text.as_bytes())?;
    for start in [redundant, directory] {
        let table = |i: u64| (start + directory_sectors + i * table_sectors) as u32;
        let entries: Vec<u8> = (0..tables).flat_map(|i| table(i).to_le_bytes()).collect();
        file.write_at(start * SECTOR, &entries)?;
    }
    file.write_at(0, &h)?;
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_are_not_larger_together_than_one_may_be() {
        let mut extent = crate::image::storage::MemoryStorage::default();
        create(&mut extent, 40 << 30, "x", 1).unwrap();
        extent.set_read_only();
        let capacity = (40u64 << 30) / SECTOR;
        let open_many = |count: usize| {
            let lines = format!("RW {capacity} SPARSE \"x\"\n").repeat(count);
            let file =
                crate::image::storage::MemoryStorage::new(format!("# Disk DescriptorFile\n{lines}").into_bytes());
            open(Box::new(file), &|_| Ok(Box::new(extent.clone())))
        };
        assert_eq!(open_many(2).unwrap().len(), 80 << 30);
        assert_eq!(open_many(2000).err().unwrap().to_string(), "the VMDK image is too large");
    }

    #[test]
    fn descriptor_lines_are_read_and_foreign_files_refused() {
        let extents = parse_descriptor("# Disk DescriptorFile\nRW 100 FLAT \"a b.vmdk\" 7\nRW 5 ZERO\n").unwrap();
        assert_eq!(extents[0].file, "a b.vmdk");
        assert_eq!((extents[0].sectors, extents[0].offset, &extents[1].kind), (100, 7, &ExtentType::Zero));
        for name in ["/etc/passwd", "../x", "a/b", ".."] {
            let text = format!("# Disk DescriptorFile\nRW 1 FLAT \"{name}\" 0\n");
            let file = crate::image::storage::MemoryStorage::new(text.into_bytes());
            let error = open(Box::new(file), &|_| panic!("opened")).err().unwrap();
            assert!(error.to_string().contains("not in the image's folder"), "{error}");
        }
        assert!(parse_descriptor("parentCID=12345678\nRW 1 FLAT \"a\" 0").is_err());
    }
}
