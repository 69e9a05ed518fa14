//! The configuration space of one PCI function: PCI Local Bus Specification 2.1 chapter 6, header type 0.
//!
//! A space is bytes with, for each bit, what a write does: nothing, store, or clear where it writes a one. Functions see
//! writes when the host bridge has them polled. Deliberately absent: 64-bit BARs and PCI Express extended space.

use crate::shared::Shared;
use emu_core::device::{DeviceContext, Region, Request, Space};
use serde::{Deserialize, Serialize};

/// Register offsets of header type 0.
pub mod reg {
    /// Vendor ID.
    pub const VENDOR_ID: u8 = 0x00;
    /// Device ID.
    pub const DEVICE_ID: u8 = 0x02;
    /// Command.
    pub const COMMAND: u8 = 0x04;
    /// Status.
    pub const STATUS: u8 = 0x06;
    /// Revision ID, below the class code.
    pub const REVISION: u8 = 0x08;
    /// Latency timer.
    pub const LATENCY: u8 = 0x0d;
    /// Header type.
    pub const HEADER_TYPE: u8 = 0x0e;
    /// First of six base address registers.
    pub const BAR0: u8 = 0x10;
    /// Subsystem vendor ID.
    pub const SUBSYSTEM_VENDOR: u8 = 0x2c;
    /// Subsystem ID.
    pub const SUBSYSTEM: u8 = 0x2e;
    /// Expansion ROM base address.
    pub const ROM: u8 = 0x30;
    /// Where the list of capabilities begins.
    pub const CAPABILITIES: u8 = 0x34;
    /// Interrupt line: for software only.
    pub const INTERRUPT_LINE: u8 = 0x3c;
    /// Interrupt pin: 0 none, 1 INTA# to 4 INTD#.
    pub const INTERRUPT_PIN: u8 = 0x3d;
}

/// Command register bits.
pub mod command {
    /// Responds in I/O space.
    pub const IO: u16 = 1 << 0;
    /// Responds in memory space.
    pub const MEMORY: u16 = 1 << 1;
    /// May be bus master.
    pub const MASTER: u16 = 1 << 2;
    /// SERR# enable.
    pub const SERR: u16 = 1 << 8;
    /// The function does not assert INTx#.
    pub const INTX_DISABLE: u16 = 1 << 10;
}

/// Status register bits.
pub mod status {
    /// INTx# is asserted, or would be without the command register's [`super::command::INTX_DISABLE`].
    pub const INTERRUPT: u16 = 1 << 3;
    /// There is a list of capabilities.
    pub const CAPABILITIES: u16 = 1 << 4;
}

/// Where capabilities lie: behind the header.
const FIRST_CAPABILITY: u8 = 0x40;

/// The tag by which accesses name BAR 0; the other BARs follow. Tags below are the function's fixed ports.
pub const BAR_TAG: u32 = 0x10;

const BARS: usize = 6;

/// What every function states about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Class, subclass and programming interface: 24 bits.
    pub class: u32,
    /// Interrupt pin: 0 none, 1 INTA# to 4 INTD#.
    pub interrupt_pin: u8,
    /// The device has several functions.
    pub multifunction: bool,
}

/// A configuration space.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    bytes: [u8; 256],
    reset: [u8; 256],
    stored: [u8; 256],
    cleared: [u8; 256],
    bars: [Option<Bar>; BARS],
    rom_size: u32,
    next_capability: u8,
}

#[derive(Clone, Copy, Debug)]
struct Bar {
    space: Space,
    size: u32,
}

/// What of a configuration space is saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigState(Vec<u8>);

impl ConfigSpace {
    /// A space with the registers of header type 0. Subsystem IDs are QEMU's.
    pub fn new(identity: Identity) -> ConfigSpace {
        let mut space = ConfigSpace {
            bytes: [0; 256],
            reset: [0; 256],
            stored: [0; 256],
            cleared: [0; 256],
            bars: [None; BARS],
            rom_size: 0,
            next_capability: FIRST_CAPABILITY,
        };
        space.preset(reg::VENDOR_ID, &identity.vendor.to_le_bytes());
        space.preset(reg::DEVICE_ID, &identity.device.to_le_bytes());
        space.preset(reg::REVISION, &(identity.class << 8 | u32::from(identity.revision)).to_le_bytes());
        space.preset(reg::HEADER_TYPE, &[if identity.multifunction { 0x80 } else { 0 }]);
        space.preset(reg::SUBSYSTEM_VENDOR, &0x1af4u16.to_le_bytes());
        space.preset(reg::SUBSYSTEM, &0x1100u16.to_le_bytes());
        space.preset(reg::INTERRUPT_PIN, &[identity.interrupt_pin]);
        space.store(reg::INTERRUPT_LINE, &[if identity.interrupt_pin == 0 { 0 } else { 0xff }]);
        space
    }

    /// The value of registers from `offset` after a reset.
    pub fn preset(&mut self, offset: u8, value: &[u8]) {
        let range = usize::from(offset)..usize::from(offset) + value.len();
        self.reset[range.clone()].copy_from_slice(value);
        self.bytes[range].copy_from_slice(value);
    }

    /// The bits from `offset` that writes store.
    pub fn store(&mut self, offset: u8, mask: &[u8]) {
        self.stored[usize::from(offset)..usize::from(offset) + mask.len()].copy_from_slice(mask);
    }

    /// The bits from `offset` that writing a one clears.
    pub fn clear_on_one(&mut self, offset: u8, mask: &[u8]) {
        self.cleared[usize::from(offset)..usize::from(offset) + mask.len()].copy_from_slice(mask);
    }

    /// Adds base address register `index` (0 to 5) for `size` bytes, a power of two: at least 4 ports or 16 bytes.
    pub fn add_bar(&mut self, index: usize, space: Space, size: u32) {
        let size = size.next_power_of_two().max(if space == Space::Port { 4 } else { 16 });
        let at = reg::BAR0 + 4 * index as u8;
        self.store(at, &(!(size - 1)).to_le_bytes());
        self.preset(at, &u32::from(space == Space::Port).to_le_bytes());
        let mask = match space {
            Space::Port => command::IO,
            Space::Memory => command::MEMORY,
        } | command::MASTER;
        self.stored[usize::from(reg::COMMAND)] |= mask as u8;
        self.bars[index] = Some(Bar { space, size });
    }

    /// Puts a capability at the end of the list; `body` follows its ID and its link, and is read-only. Its offset. All capabilities of
    /// a function must fit behind the header (PCI Local Bus Specification 3.0, 6.7).
    pub fn add_capability(&mut self, id: u8, body: &[u8]) -> u8 {
        let at = self.next_capability;
        self.next_capability = at + (2 + body.len() as u8).next_multiple_of(4);
        let mut link = reg::CAPABILITIES;
        while self.reset[usize::from(link)] != 0 {
            link = self.reset[usize::from(link)] + 1;
        }
        self.preset(link, &[at]);
        self.preset(at, &[id, 0]);
        self.preset(at + 2, body);
        let status = self.word(reg::STATUS) | status::CAPABILITIES;
        self.preset(reg::STATUS, &status.to_le_bytes());
        at
    }

    /// Adds the expansion ROM base address register for `size` bytes, a power of two of at least 2 KiB.
    pub fn add_rom(&mut self, size: u32) {
        self.rom_size = size.next_power_of_two().max(2048);
        self.store(reg::ROM, &(!(self.rom_size - 1) | 1).to_le_bytes());
        self.stored[usize::from(reg::COMMAND)] |= command::MEMORY as u8;
    }

    /// Where the expansion ROM is decoded now; `None` if nowhere. Its own enable bit decides, whatever the command register says
    /// (PCI Local Bus Specification 3.0, 6.2.5.2, wants both): Bochs' BIOS copies the ROM before it enables memory.
    pub fn rom(&self) -> Option<u64> {
        let register = self.read(reg::ROM, 4);
        let base = register & !self.rom_size.wrapping_sub(1);
        let assigned = base != 0 && base.checked_add(self.rom_size).is_some();
        let enabled = register & 1 != 0;
        (self.rom_size != 0 && assigned && enabled).then_some(base.into())
    }

    /// Reads `size` (1, 2 or 4) bytes; bytes beyond the space read as ones.
    pub fn read(&self, offset: u8, size: u8) -> u32 {
        let byte = |i: u8| self.bytes.get(usize::from(offset) + usize::from(i)).copied().unwrap_or(0xff);
        (0..size.min(4)).rev().fold(0, |value, i| value << 8 | u32::from(byte(i)))
    }

    /// A guest's write of `size` (1, 2 or 4) bytes.
    pub fn write(&mut self, offset: u8, size: u8, value: u32) {
        for (i, byte) in value.to_le_bytes().into_iter().enumerate().take(size.into()) {
            let at = usize::from(offset) + i;
            if at < self.bytes.len() {
                let (stored, cleared) = (self.stored[at], self.cleared[at]);
                self.bytes[at] = (self.bytes[at] & !stored | byte & stored) & !(byte & cleared);
            }
        }
    }

    /// The device's own change of a register, past all masks.
    pub fn set(&mut self, offset: u8, value: u8) {
        self.bytes[usize::from(offset)] = value;
    }

    /// One byte.
    pub fn byte(&self, offset: u8) -> u8 {
        self.bytes[usize::from(offset)]
    }

    /// One word.
    pub fn word(&self, offset: u8) -> u16 {
        self.read(offset, 2) as u16
    }

    /// The space and the size in bytes of base address register `index`, if there is one; for monitors.
    pub fn bar_kind(&self, index: usize) -> Option<(Space, u32)> {
        let bar = (*self.bars.get(index)?)?;
        Some((bar.space, bar.size))
    }

    /// Where base address register `index` is decoded now; `None` if nowhere.
    pub fn bar(&self, index: usize) -> Option<(Space, Region)> {
        let bar = (*self.bars.get(index)?)?;
        let base = u64::from(self.read(reg::BAR0 + 4 * index as u8, 4)) & !u64::from(bar.size - 1);
        let (enable, end) = match bar.space {
            Space::Port => (command::IO, 1 << 16),
            Space::Memory => (command::MEMORY, 1 << 32),
        };
        // Base 0 is where an unassigned BAR points, and the top of the space where sizing puts it.
        let assigned = base != 0 && base + u64::from(bar.size) < end;
        let enabled = self.word(reg::COMMAND) & enable != 0;
        (assigned && enabled).then_some((bar.space, Region { base, len: bar.size.into() }))
    }

    /// Everything to its value after a reset.
    pub fn reset(&mut self) {
        self.bytes = self.reset;
    }

    /// What is saved.
    pub fn state(&self) -> ConfigState {
        ConfigState(self.bytes.to_vec())
    }

    /// Restores what was saved; a saved space of another length is cut or filled with reset values.
    pub fn set_state(&mut self, state: &ConfigState) {
        self.bytes = self.reset;
        let len = state.0.len().min(self.bytes.len());
        self.bytes[..len].copy_from_slice(&state.0[..len]);
    }
}

/// Keeps the regions of a function where its base address registers say.
#[derive(Debug, Default)]
pub struct BarMap([Option<(Space, Region)>; BARS]);

impl BarMap {
    /// Moves what has moved. To be called by the function's `poll`, `reset` and `restored`.
    pub fn update(&mut self, cx: &mut DeviceContext, config: &Shared<ConfigSpace>) {
        let config = config.lock();
        for (index, mapped) in self.0.iter_mut().enumerate() {
            let wanted = config.bar(index);
            if *mapped != wanted {
                let tag = BAR_TAG + index as u32;
                if mapped.is_some() {
                    cx.request(Request::Unmap { tag });
                }
                if let Some((space, region)) = wanted {
                    cx.request(Request::Map { space, region, tag });
                }
                *mapped = wanted;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        let mut space = ConfigSpace::new(Identity { vendor: 0x8086, device: 0x1234, ..Identity::default() });
        space.add_bar(0, Space::Memory, 0x1000);
        space.add_bar(4, Space::Port, 16);
        space.clear_on_one(reg::STATUS, &[0, 0xf9]);
        space
    }

    #[test]
    fn bars_tell_their_size_and_decode_only_while_enabled() {
        let mut space = space();
        space.write(0x10, 4, u32::MAX);
        assert_eq!(space.read(0x10, 4), 0xffff_f000);
        space.write(0x20, 4, u32::MAX);
        assert_eq!(space.read(0x20, 4), 0xffff_fff1);
        space.write(0x10, 4, 0xfebc_0000);
        assert_eq!(space.bar(0), None);
        space.write(reg::COMMAND, 2, command::MEMORY.into());
        assert_eq!(space.bar(0), Some((Space::Memory, Region { base: 0xfebc_0000, len: 0x1000 })));
        assert_eq!(space.bar(4), None);
        assert_eq!(space.bar(1), None);
    }

    #[test]
    fn capabilities_form_a_list() {
        let mut space = space();
        let first = space.add_capability(9, &[10, 1, 2, 3, 4, 5, 6, 7]);
        let second = space.add_capability(0x11, &[1, 0]);
        space.reset();
        assert_eq!(space.word(reg::STATUS) & status::CAPABILITIES, status::CAPABILITIES);
        assert_eq!((space.byte(reg::CAPABILITIES), first, second), (0x40, 0x40, 0x4c));
        assert_eq!(space.read(first, 4), 0x010a_4c09);
        assert_eq!(space.read(second, 4), 0x0001_0011);
    }

    #[test]
    fn identity_is_read_only_and_status_clears_on_ones() {
        let mut space = space();
        space.write(0, 4, 0);
        assert_eq!(space.read(0, 4), 0x1234_8086);
        space.set(reg::STATUS + 1, 0xa2);
        space.write(reg::STATUS, 2, 0x2200);
        assert_eq!(space.word(reg::STATUS), 0x8200);
        assert_eq!(space.read(0xfe, 4) >> 16, 0xffff);
    }
}
