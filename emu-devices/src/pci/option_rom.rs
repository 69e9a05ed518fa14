//! The expansion ROM of a PCI card: PCI Local Bus Specification 2.1, 6.2.5.2.
//!
//! The image is part of guest memory, beside RAM, and shows where the ROM base address register says. Guests cannot write it.

use super::config::{ConfigSpace, reg};
use emu_core::irq::CpuPins;
use emu_core::mem::{GuestMemory, Offset};
use std::sync::Arc;

/// Guest memory where a ROM is that is decoded nowhere, while it is being made.
const NOWHERE: u64 = 1 << 60;
/// The largest image: what fits below the PCI hole's other tenants many times over.
pub const LARGEST: usize = 16 << 20;

/// What every card needs of its board beside its interrupt.
#[derive(Clone)]
pub struct Host {
    /// Guest memory, with [`room`] for the card's ROM.
    pub memory: Arc<GuestMemory>,
    /// The pins of the processor that caches translations to it.
    pub pins: Arc<CpuPins>,
}

/// The ROM of one card, or none.
pub struct OptionRom {
    host: Host,
    offset: Option<Offset>,
    base: Option<u64>,
}

/// Bytes of guest memory that a ROM with this image takes beside RAM.
pub fn room(image: &[u8]) -> u64 {
    if image.is_empty() { 0 } else { (image.len().min(LARGEST) as u64).next_power_of_two().max(0x1000) }
}

impl OptionRom {
    /// A ROM with this image, which is cut at [`LARGEST`] bytes; its base address register is added to `config`. No image: no ROM.
    /// The image becomes that of a card with the vendor and device ID of `config`.
    ///
    /// # Panics
    /// There is no room for it in guest memory: an error of the caller.
    pub fn new(image: &[u8], config: &mut ConfigSpace, host: Host) -> OptionRom {
        let size = room(image);
        let offset = (size != 0).then(|| {
            config.add_rom(size as u32);
            let offset = host.memory.add_extra(NOWHERE, size, false).expect("room for an option ROM");
            host.memory.move_extra(offset, None);
            let mut image = image[..image.len().min(LARGEST)].to_vec();
            adopt(&mut image, config.read(reg::VENDOR_ID, 4));
            host.memory.ram().write(offset, &image);
            offset
        });
        OptionRom { host, offset, base: None }
    }

    /// Decodes the ROM where `config` says. To be called by the function's `poll`, `reset` and `restored`.
    pub fn follow(&mut self, config: &ConfigSpace) {
        let wanted = config.rom();
        if let (Some(offset), true) = (self.offset, wanted != self.base) {
            self.host.memory.move_extra(offset, wanted);
            self.base = wanted;
            self.host.pins.raise(CpuPins::FLUSH);
        }
    }
}

/// Puts `ids`, a vendor and above it a device ID, into the PCI data structure of an image, if it has one (PCI Local Bus Specification 2.1,
/// 6.3.1.2), and keeps its checksum by means of byte 6, which is free for that. iPXE's image for NE2000 cards of all makers names none, and
/// firmware may insist on the card's own.
fn adopt(image: &mut [u8], ids: u32) {
    let Some(&[low, high]) = image.get(0x18..0x1a) else { return };
    let at = usize::from(u16::from_le_bytes([low, high]));
    let Some(structure) = image.get_mut(at..at + 8).filter(|structure| structure.starts_with(b"PCIR")) else { return };
    let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    let before = sum(structure);
    structure[4..].copy_from_slice(&ids.to_le_bytes());
    let change = sum(structure).wrapping_sub(before);
    image[6] = image[6].wrapping_sub(change);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::config::{Identity, reg};

    #[test]
    fn rom_shows_where_its_register_says_and_cannot_be_written() {
        let image = [0x55, 0xaa, 4, 0xcb];
        let memory = Arc::new(GuestMemory::new(1 << 20, room(&image)).unwrap());
        let host = Host { memory: memory.clone(), pins: Arc::default() };
        let mut config = ConfigSpace::new(Identity::default());
        let mut rom = OptionRom::new(&image, &mut config, host.clone());
        config.write(reg::ROM, 4, u32::MAX);
        assert_eq!(config.read(reg::ROM, 4), 0xffff_f001);
        config.write(reg::ROM, 4, 0xfeb0_0001);
        rom.follow(&config);
        assert_eq!(host.pins.take(CpuPins::FLUSH), CpuPins::FLUSH);
        memory.write(0xfeb0_0000, &[0; 4]);
        let mut bytes = [0; 5];
        memory.read(0xfeb0_0000, &mut bytes);
        assert_eq!(bytes, [0x55, 0xaa, 4, 0xcb, 0]);
        config.write(reg::ROM, 4, 0xfeb0_0000);
        rom.follow(&config);
        memory.read(0xfeb0_0000, &mut bytes);
        assert_eq!(bytes, [0xff; 5]);
    }

    #[test]
    fn image_takes_on_the_ids_of_the_card_and_keeps_its_checksum() {
        let mut image = vec![0u8; 64];
        image[..3].copy_from_slice(&[0x55, 0xaa, 1]);
        image[0x18] = 0x20;
        image[0x20..0x24].copy_from_slice(b"PCIR");
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        let before = sum(&image);
        adopt(&mut image, 0x8029_10ec);
        assert_eq!((&image[0x24..0x28], sum(&image)), (&[0xec, 0x10, 0x29, 0x80][..], before));
        // Without such a structure nothing changes, wherever its pointer leads.
        for pointer in [0x21, 0x3c, 0xff] {
            image[0x18] = pointer;
            let same = image.clone();
            adopt(&mut image, 0);
            assert_eq!(image, same);
        }
        adopt(&mut [0x55, 0xaa], 0);
    }

    #[test]
    fn card_without_image_has_no_rom() {
        let memory = Arc::new(GuestMemory::new(1 << 20, 0).unwrap());
        let mut config = ConfigSpace::new(Identity::default());
        OptionRom::new(&[], &mut config, Host { memory, pins: Arc::default() });
        config.write(reg::ROM, 4, u32::MAX);
        assert_eq!((config.read(reg::ROM, 4), room(&[])), (0, 0));
    }
}
