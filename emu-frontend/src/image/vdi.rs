//! VDI, VirtualBox's images, dynamic and static, version 1.1, as `VDICore.h` of VirtualBox defines them.
//!
//! ```text
//!  header (512) | block map: u32 for each block | data, block by block
//! ```
//! Deliberately absent: differencing images, and blocks of other sizes than 1 MiB.

use crate::image::blocks::{Blocks, MOST_ENTRIES, Place, Table};
use crate::image::storage::{Storage, read_exact};
use crate::image::{Format, invalid};
use std::io;

const SIGNATURE: u32 = 0xbeda_107f;
const VERSION: u32 = 0x0001_0001;
const BLOCK: u64 = 1 << 20;
/// No block yet.
const UNALLOCATED: u32 = 0xffff_ffff;
/// From here on, numbers are no blocks: the other one stands for a block that was discarded.
const SPECIAL: u32 = 0xffff_fffe;
/// Where the block map of new images is.
const MAP: u64 = 512;

/// Offsets in the header.
mod at {
    pub const SIGNATURE: usize = 64;
    pub const VERSION: usize = 68;
    pub const HEADER_SIZE: usize = 72;
    pub const TYPE: usize = 76;
    pub const MAP: usize = 340;
    pub const DATA: usize = 344;
    pub const SECTOR_SIZE: usize = 360;
    pub const DISK_SIZE: usize = 368;
    pub const BLOCK_SIZE: usize = 376;
    pub const BLOCKS: usize = 384;
    pub const ALLOCATED: usize = 388;
    pub const UUID: usize = 392;
    pub const UUID_LINK: usize = 424;
}

/// The block map.
pub struct VdiTable {
    map: u64,
    data: u64,
    allocated: u32,
}

impl Table for VdiTable {
    fn format(&self) -> Format {
        Format::Vdi
    }

    /// Entries are numbers of blocks.
    fn limit(&self) -> u64 {
        self.data + u64::from(SPECIAL) * BLOCK
    }

    fn end(&self, _file_len: u64) -> u64 {
        self.data + u64::from(self.allocated) * BLOCK
    }

    fn write_entries(&mut self, file: &mut dyn Storage, entries: &[(usize, u64)]) -> io::Result<()> {
        let number = |place: &u64| ((place - self.data) / BLOCK) as u32;
        // Tried again after an error, it must not count twice.
        let last = entries.iter().map(|(_, place)| number(place) + 1).max();
        self.allocated = self.allocated.max(last.unwrap_or(0));
        file.write_at(at::ALLOCATED as u64, &self.allocated.to_le_bytes())?;
        for (index, place) in entries {
            let number = number(place);
            file.write_at(self.map + 4 * *index as u64, &number.to_le_bytes())?;
        }
        file.flush()
    }
}

/// Opens an image.
///
/// # Errors
/// It is no VDI image, or one that this program does not read.
pub fn open(mut file: Box<dyn Storage>) -> io::Result<Blocks<VdiTable>> {
    let mut h = [0; 512];
    read_exact(file.as_mut(), 0, &mut h).map_err(|_| invalid("Image is not in VDI format"))?;
    let u32_at = |i: usize| u32::from_le_bytes([h[i], h[i + 1], h[i + 2], h[i + 3]]);
    if u32_at(at::SIGNATURE) != SIGNATURE {
        return Err(invalid("Image is not in VDI format"));
    }
    if u32_at(at::VERSION) != VERSION {
        return Err(invalid(format!("unsupported VDI version {:#x}", u32_at(at::VERSION))));
    }
    let (map, data, blocks) = (u64::from(u32_at(at::MAP)), u64::from(u32_at(at::DATA)), u64::from(u32_at(at::BLOCKS)));
    let size = u64::from(u32_at(at::DISK_SIZE)) | u64::from(u32_at(at::DISK_SIZE + 4)) << 32;
    match () {
        () if u32_at(at::BLOCK_SIZE) != BLOCK as u32 => return Err(invalid("unsupported VDI image (block size)")),
        () if u32_at(at::SECTOR_SIZE) != 512 => return Err(invalid("unsupported VDI image (sector size)")),
        () if !map.is_multiple_of(512) || !data.is_multiple_of(512) || map < 512 || data < map + blocks * 4 => {
            return Err(invalid("unsupported VDI image (unaligned tables)"));
        }
        () if blocks > MOST_ENTRIES || size > blocks * BLOCK => {
            return Err(invalid("unsupported VDI image (size)"));
        }
        () if h[at::UUID_LINK..at::UUID_LINK + 32] != [0; 32] => {
            return Err(invalid("VDI images on top of others are not implemented"));
        }
        () => {}
    }
    if map + blocks * 4 > file.len() {
        return Err(invalid("the VDI block map is beyond the end of the file"));
    }
    let mut bytes = vec![0; blocks as usize * 4];
    read_exact(file.as_mut(), map, &mut bytes)?;
    let mut allocated = 0;
    let mut places = Vec::with_capacity(blocks as usize);
    for entry in bytes.chunks_exact(4) {
        let number = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
        places.push(match number {
            SPECIAL.. => Place::Absent,
            // A number that is no block's would have the image grow without bounds.
            number if u64::from(number) >= blocks => return Err(invalid("a VDI block lies beyond all blocks")),
            number => {
                allocated = allocated.max(number + 1);
                Place::At(data + u64::from(number) * BLOCK)
            }
        });
    }
    let allocated = allocated.max(u32_at(at::ALLOCATED).min(blocks as u32));
    // Blocks lie behind all that by their numbers.
    Blocks::new(file, VdiTable { map, data, allocated }, places, (BLOCK, size), Vec::new())
}

/// Writes an empty image of `size` bytes; a static one has room for all its blocks.
///
/// # Errors
/// The host refuses.
pub fn create(file: &mut dyn Storage, size: u64, fixed: bool, uuid: [u8; 16]) -> io::Result<()> {
    let blocks = size.div_ceil(BLOCK);
    if blocks > MOST_ENTRIES {
        return Err(invalid("Unsupported VDI image size"));
    }
    let data = MAP + (blocks * 4).next_multiple_of(512);
    let mut h = [0; 512];
    let text = b"<<< Oracle VM VirtualBox Disk Image >>>\n";
    h[..text.len()].copy_from_slice(text);
    let mut put = |i: usize, value: u32| h[i..i + 4].copy_from_slice(&value.to_le_bytes());
    put(at::SIGNATURE, SIGNATURE);
    put(at::VERSION, VERSION);
    put(at::HEADER_SIZE, 0x180);
    put(at::TYPE, if fixed { 2 } else { 1 });
    put(at::MAP, MAP as u32);
    put(at::DATA, data as u32);
    put(at::SECTOR_SIZE, 512);
    put(at::DISK_SIZE, size as u32);
    put(at::DISK_SIZE + 4, (size >> 32) as u32);
    put(at::BLOCK_SIZE, BLOCK as u32);
    put(at::BLOCKS, blocks as u32);
    put(at::ALLOCATED, if fixed { blocks as u32 } else { 0 });
    h[at::UUID..at::UUID + 16].copy_from_slice(&uuid);
    file.write_at(0, &h)?;
    let entry = |i: u64| if fixed { i as u32 } else { UNALLOCATED };
    let mut map: Vec<u8> = (0..blocks).flat_map(|i| entry(i).to_le_bytes()).collect();
    map.resize((data - MAP) as usize, 0);
    file.write_at(MAP, &map)?;
    if fixed {
        file.set_len(data + blocks * BLOCK)?;
    }
    file.flush()
}
