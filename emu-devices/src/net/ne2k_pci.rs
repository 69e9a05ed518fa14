//! The Realtek RTL8029AS, an NE2000 for PCI: data sheet LS009.0 (1997), 5.1.
//!
//! A [`Dp8390`] at a BAR of 256 ports, of which the first 32 are decoded, and three things of its own: IDs in page 0, configuration
//! registers in page 3, an option ROM. It takes 16- and 32-bit accesses at the data port. Deliberately absent: programming the 9346 EEPROM, and power-down.

use super::NicConfig;
use super::dp8390::{Dp8390, Dp8390State, Extension, PORTS};
use crate::pci::PciFunction;
use crate::pci::config::{BarMap, ConfigSpace, ConfigState, Identity};
use crate::pci::option_rom::{Host, OptionRom};
use crate::shared::Shared;
use emu_core::bus::Notifier;
use emu_core::clock::Instant;
use emu_core::device::{Access, Device, DeviceContext, ResetKind, Space};
use emu_core::irq::IrqLine;
use serde::{Deserialize, Serialize};

/// Ports of the BAR.
const BAR_SIZE: u32 = 0x100;

/// The registers that Realtek adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    /// "P" and "C".
    Id0,
    Id1,
    /// 93C46 command register.
    Cr9346,
    Config0,
    Config2,
    Config3,
    /// 29h and 80h.
    AsId0,
    AsId1,
    Absent,
}

impl Register {
    fn decode(page: u8, offset: u8) -> Register {
        match (page, offset) {
            (0, 0xa) => Register::Id0,
            (0, 0xb) => Register::Id1,
            (3, 0x1) => Register::Cr9346,
            (3, 0x3) => Register::Config0,
            (3, 0x5) => Register::Config2,
            (3, 0x6) => Register::Config3,
            (3, 0xe) => Register::AsId0,
            (3, 0xf) => Register::AsId1,
            _ => Register::Absent,
        }
    }
}

/// What of [`Rtl8029`] is saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rtl8029 {
    /// 9346CR: bits 7 and 6 open the configuration registers.
    pub cr9346: u8,
    /// CONFIG2: bits 5 and 4, the boot ROM's size.
    pub config2: u8,
    /// CONFIG3: bits 6, 2 and 1 are writable while 9346CR opens them: full duplex, sleep, power-down.
    pub config3: u8,
}

const CONFIG_WRITE: u8 = 0xc0;
const FULL_DUPLEX: u8 = 1 << 6;

impl Extension for Rtl8029 {
    fn read(&self, page: u8, offset: u8) -> u8 {
        match Register::decode(page, offset) {
            Register::Id0 => b'P',
            Register::Id1 => b'C',
            Register::Cr9346 => self.cr9346,
            // Twisted pair, no BNC.
            Register::Config0 => 0,
            Register::Config2 => self.config2,
            Register::Config3 => self.config3 | FULL_DUPLEX,
            Register::AsId0 => 0x29,
            Register::AsId1 => 0x80,
            Register::Absent => 0xff,
        }
    }

    fn write(&mut self, offset: u8, value: u8) {
        let open = self.cr9346 & CONFIG_WRITE == CONFIG_WRITE;
        match Register::decode(3, offset) {
            Register::Cr9346 => self.cr9346 = value & CONFIG_WRITE,
            Register::Config2 if open => self.config2 = value & 0x30,
            Register::Config3 if open => self.config3 = value & 0x06,
            Register::Config2 | Register::Config3 => {}
            Register::Id0
            | Register::Id1
            | Register::Config0
            | Register::AsId0
            | Register::AsId1
            | Register::Absent => {}
        }
    }
}

/// All guest-visible state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ne2kPciState {
    /// Configuration space.
    pub config: ConfigState,
    /// The controller.
    pub controller: Dp8390State,
    /// Realtek's registers.
    pub extension: Rtl8029,
}

/// The card.
pub struct Ne2kPci {
    config: Shared<ConfigSpace>,
    bars: BarMap,
    rom: OptionRom,
    controller: Dp8390<Rtl8029>,
}

impl Ne2kPci {
    /// A card that drives `inta`.
    pub fn new(nic: NicConfig, inta: IrqLine, host: Host) -> Ne2kPci {
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x10ec,
            device: 0x8029,
            class: 0x02_0000,
            interrupt_pin: 1,
            ..Identity::default()
        });
        config.add_bar(0, Space::Port, BAR_SIZE);
        let rom = OptionRom::new(&nic.rom, &mut config, host);
        let controller = Dp8390::new(nic.mac, nic.backend, inta, Rtl8029::default());
        Ne2kPci { config: Shared::new(config), bars: BarMap::default(), rom, controller }
    }

    fn follow_config(&mut self, cx: &mut DeviceContext) {
        self.bars.update(cx, &self.config);
        self.rom.follow(&self.config.lock());
    }
}

impl PciFunction for Ne2kPci {
    fn config(&self) -> Shared<ConfigSpace> {
        self.config.clone()
    }
}

impl Device for Ne2kPci {
    const ID: &'static str = "ne2k_pci";
    type State = Ne2kPciState;
    const WIDEST_ACCESS: u8 = 4;

    fn read(&mut self, _cx: &mut DeviceContext, access: Access) -> u64 {
        if access.offset < PORTS.into() { self.controller.read(access) } else { u64::MAX }
    }

    fn write(&mut self, cx: &mut DeviceContext, access: Access, value: u64) {
        if access.offset < PORTS.into() {
            self.controller.write(cx, access, value);
        }
    }

    fn poll_at(&self) -> Option<Instant> {
        self.controller.poll_at()
    }

    fn poll(&mut self, cx: &mut DeviceContext) {
        self.follow_config(cx);
        self.controller.poll(cx.now);
    }

    /// Both kinds are PCIRST#.
    fn reset(&mut self, cx: &mut DeviceContext, kind: ResetKind) {
        self.config.lock().reset();
        self.follow_config(cx);
        self.controller.extension = Rtl8029::default();
        self.controller.reset(kind);
    }

    fn attached(&mut self, notifier: Notifier) {
        self.controller.attached(notifier);
    }

    fn state(&self) -> Ne2kPciState {
        Ne2kPciState {
            config: self.config.lock().state(),
            controller: self.controller.state(),
            extension: self.controller.extension,
        }
    }

    fn set_state(&mut self, state: Ne2kPciState) {
        self.config.lock().set_state(&state.config);
        self.controller.extension = state.extension;
        self.controller.set_state(state.controller);
    }

    fn restored(&mut self, cx: &mut DeviceContext) {
        self.follow_config(cx);
    }
}
