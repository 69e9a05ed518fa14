//! The IDE function of the PIIX3 (8086:7010, 82371SB data sheet 2.4 and 2.7) with its two channels, in legacy mode.
//!
//! ```text
//!  1F0h-1F7h, 3F6h  channel 0, IRQ 14   Data  Error/Features  Count  LBA low, mid, high  Device  Status/Command
//!  170h-177h, 376h  channel 1, IRQ 15   Alternate Status/Device Control
//!  BAR 4            16 ports: the bus masters of both channels
//! ```
//! Both drives of a channel see every write; the selected one answers reads. Without a drive 1, drive 0 answers for it
//! with a status of 0; without any drive all registers read as 0, as on QEMU's `pc`, where a bare cable would float.
//! Deliberately absent: the enable bits of IDETIM, so that the ports decode even if firmware forgets them, and bus
//! timing.

mod bus_master;
mod drive;
mod identify;
mod mmc;

pub use drive::{Drive, DriveConfig, Geometry, Kind, Names};

use crate::pci::PciFunction;
use crate::pci::config::{BarMap, ConfigSpace, ConfigState, Identity, command, reg};
use crate::shared::Shared;
use bus_master::BusMaster;
use drive::{DriveState, Reset, Surroundings, op};
use emu_core::bus::Notifier;
use emu_core::clock::Instant;
use emu_core::device::{Access, Device, DeviceContext, Region, ResetKind, Space, ports};
use emu_core::irq::IrqLine;
use serde::{Deserialize, Serialize};

/// Base address register of the bus masters.
const BMIBA: usize = 4;
/// Timing registers, IDETIM and SIDETIM.
const IDETIM: u8 = 0x40;

/// Device Control.
mod control {
    pub const HOB: u8 = 1 << 7;
    pub const SRST: u8 = 1 << 2;
    pub const NIEN: u8 = 1 << 1;
}

/// A register of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    /// Data.
    Data,
    /// Error or Features to LBA High and Device, by their offset 1 to 6.
    Block(u8),
    /// Status on reads, Command on writes.
    StatusCommand,
    /// Alternate Status on reads, Device Control on writes.
    AlternateControl,
}

impl Register {
    /// The channel and its register; `None` for the bus masters.
    fn decode(access: Access) -> Option<(usize, Register)> {
        let channel = access.region as usize / 2;
        match (access.region, access.offset) {
            (0 | 2, 0) => Some((channel, Register::Data)),
            (0 | 2, 7) => Some((channel, Register::StatusCommand)),
            (0 | 2, offset) => Some((channel, Register::Block(offset as u8 & 7))),
            (1 | 3, _) => Some((channel, Register::AlternateControl)),
            _ => None,
        }
    }
}

/// A channel's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelState {
    /// Drives that exist.
    pub drives: Vec<Option<DriveState>>,
    /// Drive 1 is selected.
    pub second: bool,
    /// Device Control.
    pub control: u8,
    /// Bus master.
    pub master: BusMaster,
}

/// All guest-visible state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdeState {
    /// Configuration space.
    pub config: ConfigState,
    /// Channels.
    pub channels: Vec<ChannelState>,
}

/// A cable with up to two drives.
struct Channel {
    drives: [Option<Drive>; 2],
    second: bool,
    control: u8,
    master: BusMaster,
    irq: IrqLine,
}

impl Channel {
    fn new(irq: IrqLine) -> Channel {
        Channel { drives: [None, None], second: false, control: 0, master: BusMaster::default(), irq }
    }

    fn is_bare(&self) -> bool {
        self.drives.iter().all(Option::is_none)
    }

    /// The drive that is selected and exists.
    fn selected(&mut self) -> Option<&mut Drive> {
        self.drives[usize::from(self.second)].as_mut()
    }

    /// Runs `f` on the selected drive, then drives the interrupt.
    fn with<R>(
        &mut self,
        cx: &DeviceContext,
        mastering: bool,
        f: impl FnOnce(&mut Drive, &mut Surroundings) -> R,
    ) -> Option<R> {
        let Channel { drives, master, second, .. } = self;
        let drive = drives[usize::from(*second)].as_mut()?;
        let master = mastering.then_some(master);
        let result = f(drive, &mut Surroundings { now: cx.now, memory: cx.memory, master });
        self.drive_irq();
        Some(result)
    }

    /// INTRQ is the selected drive's, unless nIEN keeps it off the cable.
    fn drive_irq(&mut self) {
        let enabled = self.control & control::NIEN == 0;
        let high = enabled && self.selected().is_some_and(|drive| drive.state.intrq);
        if high && !self.irq.is_high() {
            self.master.interrupt();
        }
        self.irq.set(high);
    }

    fn read(&mut self, cx: &DeviceContext, register: Register, size: u8, mastering: bool) -> u32 {
        if self.is_bare() {
            return 0;
        }
        let hob = self.control & control::HOB != 0;
        match register {
            Register::Data => self.with(cx, mastering, |drive, around| drive.read_data(size, around)).unwrap_or(0),
            // A disk answers for an absent drive 1. A packet device does not: its signature would be taken for a second one's by
            // hosts that look at nothing else, as Bochs' BIOS does.
            Register::Block(offset) => {
                let second = self.second && self.drives[1].is_some() || self.drives[0].is_none();
                let absent = self.second && !second;
                let answer = self.drives[usize::from(second)].as_ref();
                let answer = answer.filter(|drive| !absent || drive.kind() == Kind::Disk);
                answer.map_or(0, |drive| drive.read_register(offset, hob)).into()
            }
            Register::StatusCommand | Register::AlternateControl => {
                let clear = register == Register::StatusCommand;
                let status = self.with(cx, mastering, |drive, around| {
                    drive.poll(around);
                    let status = drive.state.status;
                    drive.state.intrq &= !clear;
                    status
                });
                status.unwrap_or(0).into()
            }
        }
    }

    fn write(&mut self, cx: &DeviceContext, register: Register, size: u8, value: u32, mastering: bool) {
        let byte = value as u8;
        match register {
            Register::Data => {
                self.with(cx, mastering, |drive, around| drive.write_data(size, value, around));
            }
            Register::Block(offset) => {
                self.control &= !control::HOB;
                self.drives.iter_mut().flatten().for_each(|drive| drive.write_register(offset, byte));
                if offset == 6 {
                    self.second = byte & 0x10 != 0;
                    self.drive_irq();
                }
            }
            Register::StatusCommand if byte == op::EXECUTE_DIAGNOSTIC => self.diagnose(),
            Register::StatusCommand => {
                self.control &= !control::HOB;
                self.with(cx, mastering, |drive, around| drive.command(byte, around));
            }
            Register::AlternateControl => {
                let before = std::mem::replace(&mut self.control, byte);
                match (before & control::SRST != 0, byte & control::SRST != 0) {
                    (false, true) => self.drives.iter_mut().flatten().for_each(Drive::hold),
                    (true, false) => {
                        self.drives.iter_mut().flatten().for_each(|drive| drive.reset(Reset::Software));
                        self.second = false;
                    }
                    _ => {}
                }
                self.drive_irq();
            }
        }
    }

    /// EXECUTE DEVICE DIAGNOSTIC goes to both drives, and drive 0 reports.
    fn diagnose(&mut self) {
        let [first, second] = &mut self.drives;
        self.second = false;
        if let Some(drive) = second {
            drive.diagnose(false);
        }
        if let Some(drive) = first {
            drive.diagnose(true);
        }
        self.drive_irq();
    }

    fn poll(&mut self, cx: &DeviceContext, mastering: bool) {
        let Channel { drives, master, .. } = self;
        for drive in drives.iter_mut().flatten() {
            let master = mastering.then_some(&mut *master);
            drive.poll(&mut Surroundings { now: cx.now, memory: cx.memory, master });
        }
        self.drive_irq();
    }
}

/// The IDE function.
pub struct Ide {
    config: Shared<ConfigSpace>,
    bars: BarMap,
    channels: [Channel; 2],
}

impl Ide {
    /// A function without drives, whose channels drive `irqs`: 14 and 15.
    pub fn new(irqs: [IrqLine; 2]) -> Ide {
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x8086,
            device: 0x7010,
            // Legacy mode only, bus master.
            class: 0x01_0180,
            ..Identity::default()
        });
        config.preset(reg::STATUS, &0x0280u16.to_le_bytes());
        config.clear_on_one(reg::STATUS, &[0, 0x38]);
        config.add_bar(BMIBA, Space::Port, 16);
        config.store(reg::COMMAND, &[(command::IO | command::MASTER) as u8]);
        config.store(reg::LATENCY, &[0xf0]);
        config.store(IDETIM, &[0xff, 0xf3, 0xff, 0xf3, 0xff]);
        Ide { config: Shared::new(config), bars: BarMap::default(), channels: irqs.map(Channel::new) }
    }

    /// Connects a drive: `unit` 0 and 1 on the first channel, 2 and 3 on the second.
    pub fn connect(&mut self, unit: usize, drive: DriveConfig) {
        self.channels[(unit / 2) & 1].drives[unit % 2] = Some(Drive::new(drive, unit as u8));
    }

    fn mastering(&self) -> bool {
        self.config.lock().word(reg::COMMAND) & command::MASTER != 0
    }

    fn drives(&mut self) -> impl Iterator<Item = &mut Drive> {
        self.channels.iter_mut().flat_map(|channel| channel.drives.iter_mut().flatten())
    }
}

impl PciFunction for Ide {
    fn config(&self) -> Shared<ConfigSpace> {
        self.config.clone()
    }
}

impl Device for Ide {
    const ID: &'static str = "piix3-ide";
    type State = IdeState;
    const PORTS: &'static [Region] = &[ports(0x1f0, 8), ports(0x3f6, 1), ports(0x170, 8), ports(0x376, 1)];
    const WIDEST_ACCESS: u8 = 4;

    fn read(&mut self, cx: &mut DeviceContext, access: Access) -> u64 {
        let mastering = self.mastering();
        if let Some((channel, register)) = Register::decode(access) {
            return self.channels[channel].read(cx, register, access.size, mastering).into();
        }
        let bytes = (0..u64::from(access.size)).map(|i| access.offset + i);
        let read = |offset: u64| self.channels[(offset as usize / 8) & 1].master.read(offset);
        bytes.rev().fold(0, |value, offset| value << 8 | u64::from(read(offset)))
    }

    fn write(&mut self, cx: &mut DeviceContext, access: Access, value: u64) {
        let mastering = self.mastering();
        if let Some((channel, register)) = Register::decode(access) {
            return self.channels[channel].write(cx, register, access.size, value as u32, mastering);
        }
        for (i, byte) in value.to_le_bytes().into_iter().enumerate().take(access.size.into()) {
            let offset = access.offset + i as u64;
            let channel = &mut self.channels[(offset as usize / 8) & 1];
            if channel.master.write(offset, byte) {
                channel.poll(cx, mastering);
            }
        }
    }

    fn poll_at(&self) -> Option<Instant> {
        self.channels.iter().flat_map(|channel| channel.drives.iter().flatten()).filter_map(Drive::poll_at).min()
    }

    fn poll(&mut self, cx: &mut DeviceContext) {
        self.bars.update(cx, &self.config);
        let mastering = self.mastering();
        self.channels.iter_mut().for_each(|channel| channel.poll(cx, mastering));
    }

    fn attached(&mut self, notifier: Notifier) {
        self.drives().for_each(|drive| drive.disk().set_notifier(notifier.clone()));
    }

    fn reset(&mut self, cx: &mut DeviceContext, _kind: ResetKind) {
        self.config.lock().reset();
        self.bars.update(cx, &self.config);
        for channel in &mut self.channels {
            channel.drives.iter_mut().flatten().for_each(|drive| drive.reset(Reset::Hardware));
            (channel.second, channel.control, channel.master) = (false, 0, BusMaster::default());
            channel.drive_irq();
        }
    }

    fn state(&self) -> IdeState {
        let channel = |c: &Channel| ChannelState {
            drives: c.drives.iter().map(|drive| drive.as_ref().map(Drive::save)).collect(),
            second: c.second,
            control: c.control,
            master: c.master,
        };
        IdeState { config: self.config.lock().state(), channels: self.channels.iter().map(channel).collect() }
    }

    fn set_state(&mut self, state: IdeState) {
        self.config.lock().set_state(&state.config);
        for (channel, saved) in self.channels.iter_mut().zip(state.channels) {
            (channel.second, channel.control, channel.master) = (saved.second, saved.control, saved.master);
            for (drive, saved) in channel.drives.iter_mut().zip(saved.drives) {
                if let (Some(drive), Some(saved)) = (drive, saved) {
                    drive.restore(saved);
                }
            }
        }
    }

    fn restored(&mut self, cx: &mut DeviceContext) {
        self.bars.update(cx, &self.config);
        self.channels.iter_mut().for_each(Channel::drive_irq);
    }
}

/// The tag of accesses to the bus masters, for tests.
#[cfg(test)]
const BUS_MASTER_TAG: u32 = crate::pci::config::BAR_TAG + BMIBA as u32;

#[cfg(test)]
mod tests;
