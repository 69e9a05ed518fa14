//! What the disk services keep in the extended BIOS data area: one record for each drive on the ATA channels and for each virtio disk, one
//! for the drive that an El Torito image stands for, and the request in progress.
//!
//! All offsets are from the start of the EBDA. The services address it through DS, and a drive's record through SI.

use crate::rom::layout::EBDA_KIB;
use crate::rom::layout::ebda::DISK as EBDA_DISK;

/// Disk drives found: what INT 13h calls 80h, 81h...
pub const DISK_COUNT: i32 = EBDA_DISK;
/// CD-ROM drives found: E0h, E1h...
pub const CD_COUNT: i32 = EBDA_DISK + 1;
/// Floppy drives found.
pub const FLOPPY_COUNT: i32 = EBDA_DISK + 2;
/// For each CD-ROM drive, the offset (a word) of its record.
pub const CD_MAP: i32 = EBDA_DISK + 4;

/// The request in progress: first block.
pub const REQUEST_LBA: i32 = EBDA_DISK + 0x18;
/// Blocks wanted.
pub const REQUEST_COUNT: i32 = EBDA_DISK + 0x20;
/// Blocks done.
pub const REQUEST_DONE: i32 = EBDA_DISK + 0x22;
/// Blocks of the current command to the drive.
pub const REQUEST_CHUNK: i32 = EBDA_DISK + 0x24;
/// What is wanted: one of `READ`, `WRITE`, `VERIFY`.
pub const REQUEST_ACTION: i32 = EBDA_DISK + 0x26;
/// The ATA command that does it.
pub const REQUEST_COMMAND: i32 = EBDA_DISK + 0x27;
/// Sectors in a block that the drive moves at once.
pub const REQUEST_BURST: i32 = EBDA_DISK + 0x28;
/// Bytes of the drive's answer to drop before the wanted ones, for ATAPI.
pub const REQUEST_SKIP: i32 = EBDA_DISK + 0x2C;
/// Bytes wanted, for ATAPI.
pub const REQUEST_BYTES: i32 = EBDA_DISK + 0x30;
/// An ATAPI command packet of 12 bytes.
pub const PACKET: i32 = EBDA_DISK + 0x34;
/// Sense data of the last ATAPI command that failed (18 bytes).
pub const SENSE: i32 = EBDA_DISK + 0x90;

/// Floppy drives A and B: their types as in CMOS register 10h, sectors of a track of the medium known to be in them (bytes each).
pub const FLOPPY_TYPES: i32 = EBDA_DISK + 0x60;
pub const FLOPPY_SECTORS: i32 = EBDA_DISK + 0x62;
/// Where the floppy request has got to: cylinder, head, sector (bytes), buffer (physical address).
pub const FLOPPY_CYLINDER: i32 = EBDA_DISK + 0x64;
pub const FLOPPY_HEAD: i32 = EBDA_DISK + 0x65;
pub const FLOPPY_SECTOR: i32 = EBDA_DISK + 0x66;
pub const FLOPPY_ADDRESS: i32 = EBDA_DISK + 0x68;
/// Attempts left.
pub const FLOPPY_TRIES: i32 = EBDA_DISK + 0x67;
/// Not 0: the floppy controller is to be reset before it is used.
pub const FLOPPY_RESET: i32 = EBDA_DISK + 0x6C;
/// A command to the floppy controller (9 bytes).
pub const FLOPPY_COMMAND: i32 = EBDA_DISK + 0x70;

/// The device parameter table extension that INT 13h AH=48h points to (16 bytes).
pub const EDD_TABLE: i32 = EBDA_DISK + 0x80;

/// Values of `REQUEST_ACTION`.
pub const READ: i32 = 0;
pub const WRITE: i32 = 1;
pub const VERIFY: i32 = 2;

/// El Torito: the specification packet that INT 13h AX=4B01h returns, which is also where the state of the emulation is kept.
pub const EMULATION: i32 = EBDA_DISK + 0x48;
/// Bytes of the specification packet.
pub const PACKET_SIZE: i32 = 0x13;
/// Fields of the specification packet (El Torito 1.0, figure 5).
pub mod emulation {
    use super::EMULATION;
    /// Packet size, 13h.
    pub const SIZE: i32 = EMULATION;
    /// Media type: 0 no emulation, 1 1.2M, 2 1.44M, 3 2.88M, 4 hard disk.
    pub const MEDIA: i32 = EMULATION + 1;
    /// Drive number that the image answers to.
    pub const DRIVE: i32 = EMULATION + 2;
    /// Number of the drive's controller.
    pub const CONTROLLER: i32 = EMULATION + 3;
    /// Block of the image on the CD, in blocks of 2048 bytes.
    pub const IMAGE_LBA: i32 = EMULATION + 4;
    /// Device specification: for ATAPI, bit 0 is set for the slave.
    pub const DEVICE: i32 = EMULATION + 8;
    /// Segment of the caller's 3 KiB buffer, unused.
    pub const BUFFER: i32 = EMULATION + 0x0A;
    /// Segment that the boot image was loaded to.
    pub const LOAD_SEGMENT: i32 = EMULATION + 0x0C;
    /// Virtual sectors that were loaded.
    pub const LOAD_SECTORS: i32 = EMULATION + 0x0E;
    /// Geometry of the image: cylinders 7-0, sectors and cylinders 9-8, heads.
    pub const CYLINDER: i32 = EMULATION + 0x10;
    pub const SECTOR: i32 = EMULATION + 0x11;
    pub const HEAD: i32 = EMULATION + 0x12;
    /// Not part of the packet: 1 while the image answers to `DRIVE`.
    pub const ACTIVE: i32 = EMULATION + 0x14;
    /// Not part of the packet: whether anything has been booted from a CD.
    pub const BOOTED: i32 = EMULATION + 0x15;
    /// Not part of the packet: offset of the CD-ROM drive's record.
    pub const CD: i32 = EMULATION + 0x16;
}

/// The record of the drive that an El Torito image stands for.
pub const EMULATED: i32 = EBDA_DISK + 0xB0;
/// Records of the drives: master and slave of the primary channel, then of the secondary.
pub const DRIVES: i32 = EMULATED + drive::RECORD;
/// Drives on the ATA channels.
pub const DRIVE_SLOTS: i32 = 4;
/// Behind them, those of virtio disks.
pub const VIRTIO_DRIVES: i32 = DRIVES + DRIVE_SLOTS * drive::RECORD;
pub const VIRTIO_SLOTS: i32 = 4;
/// The partition table and the signature of an El Torito image, which end its first sector. Also what is read of a boot record.
pub const PARTITIONS: i32 = VIRTIO_DRIVES + VIRTIO_SLOTS * drive::RECORD;
pub const PARTITIONS_SIZE: i32 = 66;
/// For each disk, the offset (a word) of its record.
pub const DISK_MAP: i32 = PARTITIONS + PARTITIONS_SIZE;
/// Bytes of all tables.
pub const BYTES: i32 = virtio::AREA + virtio::AREA_SIZE - EBDA_DISK;

/// The queue of the virtio disk that is at work.
pub mod virtio {
    use super::{DISK_MAP, DRIVE_SLOTS, VIRTIO_SLOTS};
    /// Where the data of the request are (physical); and, during POST, bytes between the notification addresses of queues.
    pub const BUFFER: i32 = DISK_MAP + 2 * (DRIVE_SLOTS + VIRTIO_SLOTS);
    pub const MULTIPLIER: i32 = BUFFER;
    /// Descriptors of the queue.
    pub const SIZE: i32 = 4;
    /// What is cleared before a device is started, at a multiple of 16.
    pub const AREA: i32 = (BUFFER + 4 + 15) / 16 * 16;
    /// The descriptor table, the available and the used ring (VIRTIO 1.2, 2.7).
    pub const DESCRIPTORS: i32 = AREA;
    pub const AVAILABLE: i32 = DESCRIPTORS + 16 * SIZE;
    pub const USED: i32 = AVAILABLE + 4 + 2 * SIZE + 4;
    /// The request's header, and its status behind it.
    pub const HEADER: i32 = USED + 4 + 8 * SIZE + 4;
    pub const HEADER_SIZE: i32 = 16;
    pub const STATUS: i32 = HEADER + HEADER_SIZE;
    pub const AREA_SIZE: i32 = STATUS + 1 - AREA;
    const _: () = assert!(USED % 4 == 0 && HEADER % 4 == 0, "the rings are aligned");
}

/// Fields of a drive's record, from its start.
pub mod drive {
    /// Bytes of a record.
    pub const RECORD: i32 = 0x60;
    /// What it is: one of the four below, 0 for nothing. The first two are on the ATA channels.
    pub const KIND: i32 = 0;
    pub const ATA: i32 = 1;
    pub const ATAPI: i32 = 2;
    pub const IMAGE: i32 = 3;
    pub const VIRTIO: i32 = 4;
    /// `LBA`, `LBA48` and `READ_ONLY`.
    pub const FLAGS: i32 = 1;
    /// The drive takes logical block addresses.
    pub const LBA: i32 = 1;
    /// The drive has the 48-bit commands.
    pub const LBA48: i32 = 2;
    /// The virtio disk refuses writes.
    pub const READ_ONLY: i32 = 4;
    /// Base of the command block registers.
    pub const PORT: i32 = 2;
    /// The device control register.
    pub const CONTROL: i32 = 4;
    /// Device register: A0h or B0h.
    pub const SELECT: i32 = 6;
    /// Sectors that a READ MULTIPLE moves at once; 1 if the drive has not got it.
    pub const MULTIPLE: i32 = 7;
    /// Blocks, 64 bits.
    pub const BLOCKS: i32 = 8;
    /// Bytes of a block.
    pub const BLOCK_SIZE: i32 = 16;
    /// Geometry that the drive reports.
    pub const CYLINDERS: i32 = 18;
    pub const HEADS: i32 = 20;
    pub const SECTORS: i32 = 22;
    /// Geometry that INT 13h works with.
    pub const LOGICAL_CYLINDERS: i32 = 24;
    pub const LOGICAL_HEADS: i32 = 26;
    pub const LOGICAL_SECTORS: i32 = 28;
    /// How the two are related: 0 they are the same, 1 LBA, 2 large, 3 revised large. As in QEMU's CMOS register 39h.
    pub const TRANSLATION: i32 = 30;
    /// 1 for a drive on the secondary channel.
    pub const CHANNEL: i32 = 31;
    /// Locks that INT 13h AH=45h holds.
    pub const LOCKS: i32 = 32;
    /// Model, a zero-terminated string of at most 40 characters.
    pub const MODEL: i32 = 34;
    /// Virtio: the PCI function (device times 8, plus function), and where its configuration space has the window on its registers.
    pub const FUNCTION: i32 = 76;
    pub const WINDOW: i32 = 78;
    /// Virtio: base address registers and offsets of the common structure, of the device's own, and of queue 0's notification.
    pub const COMMON_BAR: i32 = 79;
    pub const COMMON: i32 = 80;
    pub const NOTIFY: i32 = 84;
    pub const DEVICE: i32 = 88;
    pub const NOTIFY_BAR: i32 = 92;
    pub const DEVICE_BAR: i32 = 93;
}

/// Status codes of INT 13h, as in 40:41 and 40:74.
pub mod status {
    pub const INVALID: i32 = 0x01;
    pub const ADDRESS_MARK: i32 = 0x02;
    pub const WRITE_PROTECTED: i32 = 0x03;
    pub const NOT_FOUND: i32 = 0x04;
    pub const CHANGED: i32 = 0x06;
    pub const OVERRUN: i32 = 0x08;
    pub const DMA_BOUNDARY: i32 = 0x09;
    pub const BAD_SECTOR: i32 = 0x0A;
    pub const MEDIA_TYPE: i32 = 0x0C;
    pub const CRC: i32 = 0x10;
    pub const CONTROLLER: i32 = 0x20;
    pub const NO_MEDIA: i32 = 0x31;
    pub const SEEK: i32 = 0x40;
    pub const TIMEOUT: i32 = 0x80;
    pub const NOT_READY: i32 = 0xAA;
    pub const NOT_LOCKED: i32 = 0xB0;
    pub const LOCKED: i32 = 0xB1;
    pub const NOT_REMOVABLE: i32 = 0xB2;
    pub const LOCKS_FULL: i32 = 0xB4;
    pub const EJECT_FAILED: i32 = 0xB5;
}

const _: () = assert!(EBDA_DISK + BYTES <= EBDA_KIB as i32 * 1024, "the tables fit the EBDA");
