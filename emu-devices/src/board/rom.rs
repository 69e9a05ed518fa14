//! The system ROM: a firmware image below 4 GiB, and its end below 1 MiB.
//!
//! ```text
//!  E0000h       100000h                          4 GiB - size      4 GiB - 128 KiB    4 GiB
//!  | last 128 KiB |                              | the whole image         | last 128 KiB |
//!    or all of it, if it is smaller                                                     ^ reset vector: FFFFFFF0h
//! ```
//! The copy below 1 MiB is what PAM registers show as long as reads are not directed to RAM, as on an i440FX with PIIX3.
//! Deliberately absent: flash commands; writes to the ROM vanish.

use emu_core::mem::GuestMemory;
use thiserror::Error;

const UNIT: u64 = 64 << 10;
const LARGEST: u64 = 16 << 20;
const LEGACY_END: u64 = 0x10_0000;
const LEGACY_SIZE: u64 = 128 << 10;

/// Why an image is no ROM of a PC.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("a ROM image of {0} bytes; accepted: multiples of 64 KiB up to 16 MiB")]
pub struct RomSizeError(pub u64);

/// A firmware image of a size that a PC can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rom(Vec<u8>);

impl Rom {
    /// Checks the size of `image`.
    ///
    /// # Errors
    /// It is empty, no multiple of 64 KiB or larger than 16 MiB.
    pub fn new(image: Vec<u8>) -> Result<Rom, RomSizeError> {
        let size = image.len() as u64;
        if size == 0 || !size.is_multiple_of(UNIT) || size > LARGEST {
            return Err(RomSizeError(size));
        }
        Ok(Rom(image))
    }

    /// Bytes of the image.
    pub fn size(&self) -> u64 {
        self.0.len() as u64
    }

    /// Puts the image where the reset vector lies. `memory` must have been made with [`Rom::size`] bytes to spare; whether
    /// it was.
    pub fn map(&self, memory: &GuestMemory) -> bool {
        let size = self.size();
        let Some(offset) = memory.add_extra((1 << 32) - size, size, false) else { return false };
        memory.ram().write(offset, &self.0);
        let legacy = size.min(LEGACY_SIZE);
        memory.set_legacy_rom(LEGACY_END - legacy, legacy, offset + (size - legacy) as usize);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(size: usize) -> Vec<u8> {
        // Every 64 KiB differ.
        (0..size).map(|i| (i >> 16) as u8 + 1).collect()
    }

    fn byte(memory: &GuestMemory, at: u64) -> u8 {
        let mut byte = [0];
        memory.read(at, &mut byte);
        byte[0]
    }

    #[test]
    fn rom_of_256_kib_shows_its_last_half_below_1_mib() {
        let rom = Rom::new(image(256 << 10)).unwrap();
        let memory = GuestMemory::new(1 << 20, rom.size()).unwrap();
        assert!(rom.map(&memory));
        memory.set_shadow(0xc_0000, 0x10_0000, false, false);
        for (at, value) in [(0xfffc_0000, 1), (0xffff_fff0, 4), (0xe_0000, 3), (0xf_fff0, 4), (0xd_ffff, 0xff)] {
            assert_eq!(byte(&memory, at), value, "{at:#x}");
        }
    }

    #[test]
    fn rom_of_64_kib_is_in_the_last_segment_only() {
        let rom = Rom::new(image(64 << 10)).unwrap();
        let memory = GuestMemory::new(1 << 20, rom.size()).unwrap();
        assert!(rom.map(&memory));
        memory.set_shadow(0xc_0000, 0x10_0000, false, false);
        assert_eq!((byte(&memory, 0xe_ffff), byte(&memory, 0xf_0000), byte(&memory, 0xffff_0000)), (0xff, 1, 1));
    }

    /// What firmware does with the PAM registers to copy itself: it reads ROM while it writes RAM, then protects the copy.
    #[test]
    fn rom_is_copied_to_the_ram_behind_it() {
        let rom = Rom::new(image(128 << 10)).unwrap();
        let memory = GuestMemory::new(1 << 20, rom.size()).unwrap();
        assert!(rom.map(&memory));
        memory.set_shadow(0xe_0000, 0x10_0000, false, true);
        memory.write(0xf_1234, &[0x77]);
        assert_eq!(byte(&memory, 0xf_1234), 2, "reads still come from ROM");
        memory.set_shadow(0xe_0000, 0x10_0000, true, false);
        memory.write(0xf_1234, &[0x88]);
        assert_eq!((byte(&memory, 0xf_1234), byte(&memory, 0xffff_1234)), (0x77, 2));
        memory.set_shadow(0xe_0000, 0x10_0000, false, false);
        assert_eq!(byte(&memory, 0xf_1234), 2);
    }

    #[test]
    fn sizes_that_are_no_rom_are_refused() {
        for size in [0, 1, 65535, 65537, (16 << 20) + 65536] {
            assert_eq!(Rom::new(vec![0; size]), Err(RomSizeError(size as u64)));
        }
        assert!(Rom::new(vec![0; 16 << 20]).is_ok());
    }
}
