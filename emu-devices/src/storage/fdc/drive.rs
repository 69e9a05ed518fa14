//! Diskette formats, and a drive with its head and its change line.
//!
//! Formats follow the IBM PC/AT and PS/2 Technical References; that of a raw image is told by its size alone.

use crate::storage::block::{Disk, SECTOR};
use serde::{Deserialize, Serialize};

/// Kilobits in a second as DRATE selects them (82078 data sheet, DSR).
const RATES: [u16; 4] = [500, 300, 250, 1000];
/// The last cylinder that a drive's stop lets the head reach.
const STOP: u8 = 83;

/// How a diskette is laid out. Sectors have 512 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Cylinders.
    pub cylinders: u8,
    /// Sides.
    pub heads: u8,
    /// Sectors of a track.
    pub sectors: u8,
    /// The drive that it is made for.
    pub drive: DriveType,
}

/// A drive, by its type in CMOS byte 10h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriveType {
    /// 5.25 inch, 360 KB, 40 cylinders.
    Kb360 = 1,
    /// 5.25 inch, 1.2 MB, 360 revolutions a minute.
    Mb1_2 = 2,
    /// 3.5 inch, 1.44 MB.
    Mb1_44 = 4,
    /// 3.5 inch, 2.88 MB.
    Mb2_88 = 5,
}

const fn format(cylinders: u8, heads: u8, sectors: u8, drive: DriveType) -> Format {
    Format { cylinders, heads, sectors, drive }
}

/// 160K, 180K, 320K, 360K, 720K, 1.2M, 1.44M, 1.68M and 1.72M (DMF), 2.88M.
const FORMATS: [Format; 10] = [
    format(40, 1, 8, DriveType::Kb360),
    format(40, 1, 9, DriveType::Kb360),
    format(40, 2, 8, DriveType::Kb360),
    format(40, 2, 9, DriveType::Kb360),
    format(80, 2, 9, DriveType::Mb1_44),
    format(80, 2, 15, DriveType::Mb1_2),
    format(80, 2, 18, DriveType::Mb1_44),
    format(80, 2, 21, DriveType::Mb1_44),
    format(82, 2, 21, DriveType::Mb1_44),
    format(80, 2, 36, DriveType::Mb2_88),
];

/// The format of images that are not as long as any.
const USUAL: Format = FORMATS[6];

impl Format {
    /// The format of an image of `len` bytes. One of an odd length is the beginning of a 1.44 MB or, if it is too long
    /// for that, a 2.88 MB diskette. `None`: too long for any, or empty.
    pub fn of(len: u64) -> Option<Format> {
        let fits = |f: &Format| len <= f.bytes();
        let exact = FORMATS.into_iter().find(|f| f.bytes() == len);
        exact.or_else(|| [USUAL, FORMATS[9]].into_iter().find(fits)).filter(|_| len > 0)
    }

    /// Bytes.
    pub fn bytes(&self) -> u64 {
        u64::from(self.cylinders) * u64::from(self.heads) * u64::from(self.sectors) * SECTOR
    }

    /// Where a sector is in the image, in bytes; `None` if there is no such sector.
    pub fn offset(&self, cylinder: u8, head: u8, sector: u8) -> Option<u64> {
        let there = cylinder < self.cylinders && head < self.heads && sector.wrapping_sub(1) < self.sectors;
        let track = u64::from(cylinder) * u64::from(self.heads) + u64::from(head);
        there.then(|| (track * u64::from(self.sectors) + u64::from(sector) - 1) * SECTOR)
    }

    /// The data rate in kilobits a second at which `drive` reads it.
    fn rate(&self, drive: DriveType) -> u16 {
        match self.sectors {
            0..=9 if drive == DriveType::Mb1_2 => 300,
            0..=9 => 250,
            10..=21 => 500,
            _ => 1000,
        }
    }
}

/// The lengths of images that are diskettes, for messages.
pub const LONGEST_IMAGE: u64 = 80 * 2 * 36 * SECTOR;

/// The drive for an image of `len` bytes at power-on; without one a 1.44 MB drive.
pub fn drive_type(len: Option<u64>) -> DriveType {
    len.and_then(Format::of).map_or(DriveType::Mb1_44, |f| f.drive)
}

/// A running seek.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seek {
    /// Steps inwards; outwards if negative.
    pub steps: i16,
    /// It is a RECALIBRATE: it ends at track 0.
    pub recalibrate: bool,
    /// The present cylinder number afterwards.
    pub number: u8,
    /// When it ends, in nanoseconds of virtual time.
    pub end: u64,
}

/// Guest-visible state of one of four drives, of which two exist at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveState {
    /// The controller's Present Cylinder Number.
    pub number: u8,
    /// Where the head is.
    pub cylinder: u8,
    /// The change line: no medium, or none has been seen by a step since it came.
    pub changed: bool,
    /// A seek under way.
    pub seek: Option<Seek>,
    /// ST0 that SENSE INTERRUPT STATUS will give.
    pub sense: Option<u8>,
}

impl DriveState {
    /// Moves the head.
    pub fn step(&mut self, steps: i16, medium: bool) {
        let at = i16::from(self.cylinder).saturating_add(steps).clamp(0, i16::from(STOP));
        self.cylinder = at as u8;
        if steps != 0 && medium {
            self.changed = false;
        }
    }
}

/// A drive that exists.
pub struct Drive {
    /// The file behind it.
    pub disk: Disk,
    /// What it is.
    pub kind: DriveType,
}

/// Why no sector can be found under the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

impl Drive {
    /// A drive that fits the medium in it.
    pub fn new(disk: Disk) -> Drive {
        let kind = drive_type(disk.len());
        Drive { disk, kind }
    }

    /// The medium's format.
    pub fn format(&self) -> Option<Format> {
        self.disk.len().and_then(Format::of)
    }

    /// The format and the cylinder of the medium under a head at `cylinder`, read at DRATE `rate`.
    ///
    /// # Errors
    /// No medium, no track there, or another data rate.
    pub fn track(&self, cylinder: u8, head: u8, rate: u8) -> Result<(Format, u8), Unreadable> {
        let format = self.format().ok_or(Unreadable)?;
        // A 1.2 MB drive steps half a track of a 40-track diskette.
        let double = self.kind == DriveType::Mb1_2 && format.cylinders <= 40;
        let here = if double { cylinder / 2 } else { cylinder };
        let readable = format.rate(self.kind) == RATES[usize::from(rate & 3)];
        let there = here < format.cylinders && head < format.heads && !(double && cylinder % 2 == 1);
        if readable && there { Ok((format, here)) } else { Err(Unreadable) }
    }
}

/// How long a 500 kbit/s millisecond of SPECIFY is at DRATE `rate`, in nanoseconds.
pub fn millisecond(rate: u8) -> u64 {
    500_000_000 / u64::from(RATES[usize::from(rate & 3)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_follows_from_the_size() {
        let sizes = [160, 180, 320, 360, 720, 1200, 1440, 1680, 1722, 2880];
        for (kib, format) in sizes.into_iter().zip(FORMATS) {
            assert_eq!(Format::of(kib * 1024), Some(format), "{kib} KiB");
        }
        assert_eq!(Format::of(512), Some(USUAL));
        assert_eq!(Format::of(1_500_000).map(|f| f.sectors), Some(36));
        assert_eq!((Format::of(0), Format::of(LONGEST_IMAGE + 1)), (None, None));
    }

    #[test]
    fn sector_has_its_offset_within_the_format_only() {
        assert_eq!(USUAL.offset(0, 0, 1), Some(0));
        assert_eq!(USUAL.offset(1, 1, 18), Some((3 * 18 + 17) * 512));
        assert_eq!((USUAL.offset(80, 0, 1), USUAL.offset(0, 2, 1), USUAL.offset(0, 0, 0)), (None, None, None));
        assert_eq!(USUAL.offset(0, 0, 19), None);
    }
}
