//! Bootable CDs made in memory: "El Torito" Bootable CD-ROM Format Specification 1.0, with the least around it that BIOSes look at.
//!
//! ```text
//!  sectors of 2 KiB:   16 primary volume descriptor   17 boot record   18 end of descriptors   19 boot catalogue   20.. the image
//! ```

const SECTOR: usize = 2048;
const CATALOGUE: u8 = 19;
const IMAGE: u8 = 20;

/// What the boot catalogue says of an image (boot media type, byte 1 of the initial entry).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emulation {
    None = 0,
    Floppy1200 = 1,
    Floppy1440 = 2,
    Floppy2880 = 3,
    HardDisk = 4,
}

/// A CD that boots `image`, of which the BIOS loads `sectors` of 512 bytes.
pub fn disc(emulation: Emulation, image: &[u8], sectors: u16) -> Vec<u8> {
    let mut disc = vec![0; SECTOR * usize::from(IMAGE)];
    let mut put = |sector: u8, offset: usize, bytes: &[u8]| {
        let at = SECTOR * usize::from(sector) + offset;
        disc[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(16, 0, b"\x01CD001\x01");
    put(17, 0, b"\x00CD001\x01EL TORITO SPECIFICATION");
    put(17, 0x47, &[CATALOGUE]);
    put(18, 0, b"\xffCD001\x01");
    // The validation entry, whose words add up to zero, and the initial entry.
    put(CATALOGUE, 0, &[1]);
    put(CATALOGUE, 0x1c, &[0xaa, 0x55, 0x55, 0xaa]);
    let [low, high] = sectors.to_le_bytes();
    put(CATALOGUE, 0x20, &[0x88, emulation as u8, 0, 0, 0, 0, low, high, IMAGE]);
    disc.extend(image);
    // Drives read ahead; some room behind the image.
    disc.resize(disc.len().next_multiple_of(SECTOR) + 150 * SECTOR, 0);
    disc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validation_entry_adds_up_to_zero() {
        let disc = disc(Emulation::None, &[0x11; 3000], 4);
        let entry = &disc[SECTOR * usize::from(CATALOGUE)..][..32];
        let sum = entry.chunks(2).fold(0u16, |sum, word| sum.wrapping_add(u16::from_le_bytes([word[0], word[1]])));
        assert_eq!(sum, 0);
        assert_eq!(disc[SECTOR * usize::from(IMAGE) + 2999..][..2], [0x11, 0]);
        assert_eq!(disc.len() % SECTOR, 0);
    }
}
