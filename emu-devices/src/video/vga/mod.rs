//! A VGA with the VBE display interface of Bochs: PCI function 1234:1111, as QEMU's `-vga std`.
//!
//! IBM VGA/XGA Technical Reference for the VGA; QEMU's docs/specs/standard-vga for the BARs:
//!
//! ```text
//!  BAR0 video memory, linear    BAR2 4 KiB: 000 EDID, 400 ports 3C0 to 3DF, 500 DISPI registers, 600 size of the block
//!  ROM  VGA BIOS                ports 3B0 to 3BB, 3C0 to 3DF, 1CE to 1D0; memory A0000 to BFFFF
//! ```
//! Video memory is part of guest memory, so that the processor reaches BAR0 without a call. The legacy window is decoded
//! whatever the command register says, as QEMU does. The ROM can be shown at C0000 too ([`Vga::show_rom_at_c0000`]). Deliberately absent: an interrupt (a PCI VGA has none; its pending
//! bit is there), big-endian frame buffers, interlacing.

mod attribute;
mod crtc;
mod dac;
mod edid;
mod graphics;
pub mod render;
mod sequencer;
mod state;
mod timing;
mod vbe;

pub use state::VgaState;

use super::{Damage, Display, Frame, TextScreen, VgaConfig};
use crate::pci::PciFunction;
use crate::pci::config::{BAR_TAG, ConfigSpace, ConfigState, Identity, command, reg};
use crate::shared::Shared;
use emu_core::clock::Instant;
use emu_core::device::{Access, Device, DeviceContext, Region, Request, ResetKind, Space, ports};
use emu_core::irq::CpuPins;
use emu_core::mem::{GuestMemory, Offset};
use render::{Phase, Picture, VideoMemory};
use serde::{Deserialize, Serialize};
use state::Window;
use std::sync::Arc;

/// Where a card for the ISA bus has its ROM.
const ISA_ROM: u64 = 0xc_0000;
/// The legacy window.
pub const WINDOW: Region = Region { base: 0xa_0000, len: 0x2_0000 };
/// The tag under which the board maps [`WINDOW`].
pub const WINDOW_TAG: u32 = 0x20;

const FRAME_BUFFER_BAR: usize = 0;
const REGISTER_BAR: usize = 2;
const REGISTER_TAG: u32 = BAR_TAG + REGISTER_BAR as u32;
const REGISTER_BYTES: u32 = 0x1000;
/// Regions of [`Vga::PORTS`].
const MONO_PORTS: u32 = 0;
const COLOUR_PORTS: u32 = 1;
/// Where hidden memory is put at first: beyond what any processor addresses.
const NOWHERE: u64 = 1 << 62;

/// All guest-visible state but video memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VgaDeviceState {
    /// Configuration space.
    pub config: ConfigState,
    /// Registers.
    pub registers: VgaState,
}

/// Registers and memory, which the card and its display share.
struct VgaCore {
    registers: Shared<VgaState>,
    memory: Arc<GuestMemory>,
    offset: Offset,
    size: usize,
}

impl VideoMemory for VgaCore {
    fn read(&self, offset: usize, bytes: &mut [u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = (offset + done) % self.size;
            let n = (bytes.len() - done).min(self.size - at);
            self.memory.ram().read(self.offset + at, &mut bytes[done..done + n]);
            done += n;
        }
    }
}

impl Display for VgaCore {
    fn refresh(&self, now: Instant, frame: &mut Frame) -> Damage {
        let (picture, phase) = {
            let registers = self.registers.lock();
            let phase = Phase::new(&registers, now);
            (Picture::new(&registers, phase), phase)
        };
        picture.draw(phase, self, frame)
    }

    fn text(&self) -> Option<TextScreen> {
        let picture = Picture::new(&self.registers.lock(), Phase { cursor: true, blink: true });
        picture.text().map(|(text, height)| text.screen(height, self))
    }
}

/// The card.
pub struct Vga {
    core: Arc<VgaCore>,
    config: Shared<ConfigSpace>,
    pins: Arc<CpuPins>,
    rom: Option<Offset>,
    edid: [u8; edid::SIZE],
    frame_buffer: Option<u64>,
    rom_base: Option<u64>,
    register_base: Option<u64>,
}

/// Bytes of guest memory that a card takes beside RAM.
pub fn extra_memory(config: &VgaConfig) -> u64 {
    u64::from(config.memory) + config.rom.as_ref().map_or(0, |rom| rom_size(rom))
}

fn rom_size(rom: &[u8]) -> u64 {
    (rom.len() as u64).next_power_of_two().max(0x1000)
}

impl Vga {
    /// A card whose memory is part of `memory`, which has room for [`extra_memory`]. `pins`: of the processor that caches
    /// translations to it.
    ///
    /// # Panics
    /// There is no such room: an error of the caller.
    pub fn new(config: &VgaConfig, memory: Arc<GuestMemory>, pins: Arc<CpuPins>) -> Vga {
        let mut space = ConfigSpace::new(Identity {
            vendor: 0x1234,
            device: 0x1111,
            revision: 2,
            class: 0x03_0000,
            ..Identity::default()
        });
        space.store(reg::COMMAND, &[(command::IO | command::MEMORY | command::MASTER) as u8]);
        space.add_bar(FRAME_BUFFER_BAR, Space::Memory, config.memory);
        // Prefetchable.
        space.preset(reg::BAR0, &[0x08]);
        space.add_bar(REGISTER_BAR, Space::Memory, REGISTER_BYTES);
        let offset = memory.add_extra(NOWHERE, config.memory.into(), true).expect("room for video memory");
        let rom = config.rom.as_ref().map(|image| {
            let size = rom_size(image);
            space.add_rom(size as u32);
            let rom = memory.add_extra(NOWHERE, size, false).expect("room for the VGA BIOS");
            memory.ram().write(rom, image);
            rom
        });
        memory.move_extra(offset, None);
        if let Some(rom) = rom {
            memory.move_extra(rom, None);
        }
        let registers = Shared::new(VgaState::default());
        let core = Arc::new(VgaCore { registers, memory, offset, size: config.memory as usize });
        Vga {
            core,
            config: Shared::new(space),
            pins,
            rom,
            edid: edid::block(),
            frame_buffer: None,
            rom_base: None,
            register_base: None,
        }
    }

    /// Shows the VGA BIOS of `config` at C0000h as well, as a card for the ISA bus does, wherever the chipset does not direct reads to RAM: firmware that knows
    /// of no PCI looks for it there.
    pub fn show_rom_at_c0000(&self, config: &VgaConfig) {
        if let (Some(rom), Some(image)) = (self.rom, &config.rom) {
            self.core.memory.set_legacy_rom(ISA_ROM, rom_size(image), rom);
        }
    }

    /// What it shows.
    pub fn display(&self) -> Arc<dyn Display> {
        self.core.clone()
    }

    /// Decodes memory, ROM and registers where the configuration space says.
    fn follow_config(&mut self, cx: &mut DeviceContext) {
        let config = self.config.lock();
        let bar = |index| config.bar(index).map(|(_, region)| region.base);
        let (frame_buffer, rom_base, register_base) = (bar(FRAME_BUFFER_BAR), config.rom(), bar(REGISTER_BAR));
        if frame_buffer != self.frame_buffer {
            self.core.memory.move_extra(self.core.offset, frame_buffer);
            self.frame_buffer = frame_buffer;
            self.pins.raise(CpuPins::FLUSH);
        }
        if let Some(rom) = self.rom.filter(|_| rom_base != self.rom_base) {
            self.core.memory.move_extra(rom, rom_base);
            self.rom_base = rom_base;
            self.pins.raise(CpuPins::FLUSH);
        }
        if register_base != self.register_base {
            cx.request(Request::Unmap { tag: REGISTER_TAG });
            if let Some(base) = register_base {
                let region = Region { base, len: REGISTER_BYTES.into() };
                cx.request(Request::Map { space: Space::Memory, region, tag: REGISTER_TAG });
            }
            self.register_base = register_base;
        }
    }

    /// Stores in video memory; code that the processor has decoded there is forgotten.
    fn store(&self, offset: usize, bytes: &[u8]) {
        let core = &self.core;
        core.memory.ram().write(core.offset + offset, bytes);
        if let (true, Some(base)) = (core.memory.holds_code(core.offset + offset, bytes.len()), self.frame_buffer) {
            core.memory.write(base + offset as u64, bytes);
        }
    }

    fn read_window(&self, address: u64, size: u8) -> u64 {
        let core = &self.core;
        let mut registers = core.registers.lock();
        let mut value = 0;
        for i in 0..u64::from(size) {
            let byte = match registers.window(address + i, core.size) {
                None => 0xff,
                Some(Window::Linear(offset)) => core.memory.ram().read_le(core.offset + offset, 1) as u8,
                Some(Window::Planes { offset, read, .. }) => {
                    registers.graphics.latches = core.memory.ram().read_le(core.offset + offset, 4) as u32;
                    registers.graphics.fetch(read)
                }
            };
            value |= u64::from(byte) << (8 * i);
        }
        value
    }

    fn write_window(&self, address: u64, size: u8, value: u64) {
        let core = &self.core;
        let registers = core.registers.lock();
        for (i, byte) in value.to_le_bytes().into_iter().enumerate().take(size.into()) {
            match registers.window(address + i as u64, core.size) {
                None => {}
                Some(Window::Linear(offset)) => self.store(offset, &[byte]),
                Some(Window::Planes { offset, write, .. }) => {
                    let planes = registers.graphics.combine(byte).to_le_bytes();
                    for (plane, byte) in planes.iter().enumerate().filter(|(plane, _)| write >> plane & 1 != 0) {
                        self.store(offset + plane, &[*byte]);
                    }
                }
            }
        }
    }

    fn read_vbe(&self, index: u16) -> u16 {
        self.core.registers.lock().vbe.read(index, self.core.size)
    }

    fn write_vbe(&self, index: u16, value: u16) {
        let mut registers = self.core.registers.lock();
        let clear = registers.vbe.write(index, value, self.core.size);
        if let Some(mode) = registers.vbe.mode().filter(|_| clear) {
            let row = vec![0; mode.pitch];
            (0..mode.height).map(|y| y * mode.pitch).for_each(|offset| self.store_row(offset, &row));
        }
    }

    /// [`Vga::store`] of any length, wrapping, page by page.
    fn store_row(&self, offset: usize, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = (offset + done) % self.core.size;
            let n = (bytes.len() - done).min(0x1000 - at % 0x1000);
            self.store(at, &bytes[done..done + n]);
            done += n;
        }
    }

    /// Reads a byte of BAR2.
    fn read_register(&mut self, now: Instant, offset: u64) -> u8 {
        match offset {
            0..0x80 => self.edid[offset as usize],
            0x80..0x400 => 0,
            0x400..0x420 => self.read_byte_port(0x3c0 + (offset - 0x400) as u16, now),
            0x500..0x516 => self.read_vbe(((offset - 0x500) / 2) as u16).to_le_bytes()[(offset & 1) as usize],
            // Bytes of this block, and the byte order of the frame buffer, which is always little-endian.
            0x600 => 8,
            0x601..0x604 => 0,
            0x604..0x608 => 0x1e,
            _ => 0xff,
        }
    }

    fn read_byte_port(&self, port: u16, now: Instant) -> u8 {
        self.core.registers.lock().read_port(port, now).unwrap_or(0xff)
    }

    fn write_byte_port(&self, port: u16, value: u8, now: Instant) {
        self.core.registers.lock().write_port(port, value, now);
    }
}

impl PciFunction for Vga {
    fn config(&self) -> Shared<ConfigSpace> {
        self.config.clone()
    }
}

impl Device for Vga {
    const ID: &'static str = "vga";
    type State = VgaDeviceState;
    const PORTS: &'static [Region] = &[ports(0x3b0, 12), ports(0x3c0, 32), ports(0x1ce, 4)];

    fn read(&mut self, cx: &mut DeviceContext, access: Access) -> u64 {
        match access.region {
            WINDOW_TAG => self.read_window(access.address, access.size),
            MONO_PORTS | COLOUR_PORTS => (0..access.size).fold(0, |value, i| {
                value | u64::from(self.read_byte_port(access.address as u16 + u16::from(i), cx.now)) << (8 * i)
            }),
            REGISTER_TAG => (0..access.size).fold(0, |value, i| {
                value | u64::from(self.read_register(cx.now, access.offset + u64::from(i))) << (8 * i)
            }),
            // The display interface has words only.
            _ => match (access.offset, access.size) {
                (0, 2) => self.core.registers.lock().vbe.index.into(),
                (1 | 2, 2) => {
                    let index = self.core.registers.lock().vbe.index;
                    self.read_vbe(index).into()
                }
                _ => u64::MAX,
            },
        }
    }

    fn write(&mut self, cx: &mut DeviceContext, access: Access, value: u64) {
        let bytes = value.to_le_bytes().into_iter().enumerate().take(access.size.into());
        match access.region {
            WINDOW_TAG => self.write_window(access.address, access.size, value),
            MONO_PORTS | COLOUR_PORTS => {
                bytes.for_each(|(i, byte)| self.write_byte_port(access.address as u16 + i as u16, byte, cx.now));
            }
            REGISTER_TAG => match (access.offset, access.size) {
                (offset @ 0x500..0x516, 2..) => {
                    for (i, word) in (0..u64::from(access.size) / 2).map(|i| (i, (value >> (16 * i)) as u16)) {
                        self.write_vbe(((offset - 0x500) / 2 + i) as u16, word);
                    }
                }
                (offset @ 0x400..0x420, _) => {
                    let port = 0x3c0 + (offset - 0x400) as u16;
                    bytes.for_each(|(i, byte)| self.write_byte_port(port + i as u16, byte, cx.now));
                }
                _ => {}
            },
            _ => match (access.offset, access.size) {
                (0, 2) => self.core.registers.lock().vbe.index = value as u16,
                (1 | 2, 2) => {
                    let index = self.core.registers.lock().vbe.index;
                    self.write_vbe(index, value as u16);
                }
                _ => {}
            },
        }
    }

    /// The configuration space has changed.
    fn poll(&mut self, cx: &mut DeviceContext) {
        self.follow_config(cx);
    }

    /// Video memory keeps what it holds.
    fn reset(&mut self, cx: &mut DeviceContext, _kind: ResetKind) {
        self.config.lock().reset();
        *self.core.registers.lock() = VgaState::default();
        self.follow_config(cx);
    }

    fn state(&self) -> VgaDeviceState {
        VgaDeviceState { config: self.config.lock().state(), registers: self.core.registers.lock().clone() }
    }

    fn set_state(&mut self, state: VgaDeviceState) {
        self.config.lock().set_state(&state.config);
        let mut registers = state.registers;
        registers.sanitise(self.core.size);
        *self.core.registers.lock() = registers;
    }

    fn restored(&mut self, cx: &mut DeviceContext) {
        self.follow_config(cx);
    }
}

#[cfg(test)]
mod tests;
