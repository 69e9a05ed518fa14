//! The Intel 82078 floppy disk controller, as a PC/AT has it: ports 3F0h to 3F5h and 3F7h, IRQ 6, DMA channel 2.
//!
//! Follows the Intel 82078 data sheet (290468) in its AT mode.
//!
//! ```text
//!            command phase        execution phase            result phase
//!  host: --- code, parameters --> DMA or data register --> ST0 ST1 ST2 C H R N --> command phase
//!  MSR:  RQM                 CB, NON DMA if by register    RQM DIO CB
//!  INT:                           with each portion        at its start
//! ```
//! The diskette turns and the head moves in virtual time, [`SPEED`] times as fast as they would. What cannot be read
//! (no medium, motor off, another data rate, FM, an unformatted track) ends after two revolutions with Missing Address
//! Mark; a real controller without index pulses would wait for ever. DMA that is not ready is waited for a while.
//!
//! Two departures from the data sheet, both as other emulators have them, because Bochs' BIOS relies on them: after a reset
//! the data rate is 500 kbit/s, not 250; and reads and writes seek to the cylinder that they name, whatever CONFIGURE says
//! (with EIS clear, only Seek End is not reported).
//!
//! Deliberately absent, since raw images cannot hold it: deleted data marks (WRITE DELETED DATA writes plain data),
//! sectors of another size than 512 bytes, FORMAT TRACK with other IDs than the image's format has. Also absent: SAVE,
//! RESTORE, OPTION, DRIVE SPECIFICATION and FORMAT AND WRITE, which are invalid commands; Status Registers A and B, which
//! do not exist in AT mode; the power that power-down saves.

mod command;
pub mod drive;
mod transfer;

pub use drive::{Drive, DriveType, Format};
pub use transfer::Transfer;

use crate::dma::i8237::DmaChannel;
use crate::storage::block::DiskState;
use command::Command;
use drive::DriveState;
use emu_core::bus::Notifier;
use emu_core::clock::Instant;
use emu_core::device::{Access, Device, DeviceContext, Region, ResetKind, ports};
use emu_core::irq::IrqLine;
use serde::{Deserialize, Serialize};

/// How many times faster than a real drive this one turns and steps.
const SPEED: u64 = 64;
/// From the end of a reset to its interrupt, in nanoseconds.
const RESET_TIME: u64 = 100_000;

/// Digital Output Register.
mod dor {
    pub const SELECT: u8 = 0x03;
    pub const NOT_RESET: u8 = 0x04;
    pub const DMA_GATE: u8 = 0x08;
}

/// Data Rate Select Register.
mod dsr {
    pub const RATE: u8 = 0x03;
    pub const SOFTWARE_RESET: u8 = 0x80;
}

/// Main Status Register.
mod msr {
    pub const RQM: u8 = 0x80;
    pub const DIO: u8 = 0x40;
    pub const NON_DMA: u8 = 0x20;
    pub const COMMAND_BUSY: u8 = 0x10;
}

/// The first parameter of CONFIGURE.
mod config {
    pub const IMPLIED_SEEK: u8 = 0x40;
    pub const NO_FIFO: u8 = 0x20;
    pub const NO_POLLING: u8 = 0x10;
    pub const FIFO_THRESHOLD: u8 = 0x0f;
    pub const ALL: u8 = 0x7f;
}

/// Status Register 0.
mod st0 {
    pub const ABNORMAL: u8 = 0x40;
    pub const INVALID: u8 = 0x80;
    pub const POLLING: u8 = 0xc0;
    pub const SEEK_END: u8 = 0x20;
    pub const EQUIPMENT_CHECK: u8 = 0x10;
}

/// Digital Input Register.
const DSKCHG: u8 = 0x80;

/// The register that an access reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    /// Status Registers A and B: not driven in AT mode.
    StatusAB,
    DigitalOutput,
    TapeDrive,
    /// Main Status on reads, Data Rate Select on writes.
    MainStatus,
    Data,
    /// Digital Input on reads, Configuration Control on writes.
    DigitalInput,
}

impl Register {
    fn decode(access: Access) -> Register {
        match (access.region, access.offset) {
            (0, 0 | 1) => Register::StatusAB,
            (0, 2) => Register::DigitalOutput,
            (0, 3) => Register::TapeDrive,
            (0, 4) => Register::MainStatus,
            (0, _) => Register::Data,
            (_, _) => Register::DigitalInput,
        }
    }
}

/// What the controller does with the data register.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It collects the bytes of a command.
    #[default]
    Command,
    /// It carries one out.
    Execution(Transfer),
    /// It gives the result.
    Result,
}

/// All guest-visible state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdcState {
    /// Digital Output Register.
    pub dor: u8,
    /// Tape Drive Register: the drive that is a tape.
    pub tape: u8,
    /// DRATE.
    pub rate: u8,
    /// When the reset that is under way is over, in nanoseconds of virtual time.
    pub reset_until: Option<u64>,
    /// The phase.
    pub phase: Phase,
    /// The bytes of the command so far, or of the result.
    pub bytes: Vec<u8>,
    /// Bytes of the result that have been read.
    pub position: usize,
    /// The INT pin.
    pub interrupt: bool,
    /// SPECIFY: SRT and HUT.
    pub step_rate: u8,
    /// SPECIFY: HLT and ND.
    pub load_time: u8,
    /// CONFIGURE's first parameter.
    pub config: u8,
    /// CONFIGURE's PRETRK.
    pub precompensation_track: u8,
    /// LOCK.
    pub lock: bool,
    /// PERPENDICULAR MODE.
    pub perpendicular: u8,
    /// POWERDOWN MODE.
    pub power_mode: u8,
    /// The last EOT, for DUMPREG.
    pub end_of_track: u8,
    /// The four drives that there could be.
    pub drives: [DriveState; 4],
    /// What is under way in the files of the two drives.
    pub disks: [DiskState; 2],
}

/// The controller with its drives.
pub struct Fdc {
    state: FdcState,
    irq: IrqLine,
    dma: DmaChannel,
    drives: [Option<Drive>; 2],
    /// Virtual time of the last access, for deadlines that depend on it.
    now: u64,
}

impl Fdc {
    /// A controller on `irq` and `dma`, with up to two drives.
    pub fn new(irq: IrqLine, dma: DmaChannel, drives: [Option<Drive>; 2]) -> Fdc {
        Fdc { state: FdcState::default(), irq, dma, drives, now: 0 }
    }

    /// The types of the drives for CMOS byte 10h; 0 for none.
    pub fn drive_types(&self) -> [u8; 2] {
        [0, 1].map(|i: usize| self.drives[i].as_ref().map_or(0, |d| d.kind as u8))
    }

    /// Brings everything that depends on time up to `cx.now`.
    fn advance(&mut self, cx: &mut DeviceContext) {
        self.now = cx.now.nanos();
        for (drive, state) in self.drives.iter_mut().zip(&mut self.state.drives) {
            if drive.as_mut().is_some_and(|d| d.disk.take_change()) {
                state.changed = true;
            }
        }
        if self.state.reset_until.is_some_and(|end| end <= self.now) {
            self.state.reset_until = None;
            if self.state.config & config::NO_POLLING == 0 {
                for (unit, drive) in self.state.drives.iter_mut().enumerate() {
                    drive.sense = Some(st0::POLLING | unit as u8);
                }
                self.state.interrupt = true;
            }
        }
        self.end_seeks(self.now);
        self.run_transfer(cx);
        self.drive_irq();
    }

    fn drive_irq(&self) {
        self.irq.set(self.state.interrupt && self.state.dor & dor::DMA_GATE != 0);
    }

    /// What the RESET# bit of DOR, DSR's reset bit and the RESET pin have in common.
    fn software_reset(&mut self) {
        for drive in self.drives.iter_mut().flatten() {
            drive.disk.cancel();
        }
        self.dma.set_request(false);
        let s = &mut self.state;
        s.phase = Phase::Command;
        s.bytes.clear();
        s.position = 0;
        s.interrupt = false;
        s.reset_until = None;
        s.perpendicular &= 0x3c;
        if s.lock {
            s.config &= config::NO_FIFO | config::FIFO_THRESHOLD;
        } else {
            s.config = config::NO_FIFO;
            s.precompensation_track = 0;
        }
        for drive in &mut s.drives {
            drive.number = 0;
            drive.seek = None;
            drive.sense = None;
        }
    }

    /// Whether registers other than DOR, DSR and CCR are dead.
    fn in_reset(&self) -> bool {
        self.state.dor & dor::NOT_RESET == 0 || self.state.reset_until.is_some()
    }

    fn main_status(&self) -> u8 {
        if self.in_reset() {
            return 0;
        }
        let phase = match &self.state.phase {
            Phase::Command if self.state.bytes.is_empty() => msr::RQM,
            Phase::Command => msr::RQM | msr::COMMAND_BUSY,
            Phase::Result => msr::RQM | msr::DIO | msr::COMMAND_BUSY,
            Phase::Execution(_) => {
                let request = match self.pio_direction() {
                    Some(true) => msr::RQM | msr::DIO,
                    Some(false) => msr::RQM,
                    None => 0,
                };
                let by_register = if self.is_dma() { 0 } else { msr::NON_DMA };
                request | by_register | msr::COMMAND_BUSY
            }
        };
        let seeking = self.state.drives.iter().enumerate();
        let busy = seeking.filter(|(_, d)| d.seek.is_some()).fold(0, |bits, (unit, _)| bits | 1 << unit);
        phase | busy
    }

    fn read_data(&mut self, cx: &mut DeviceContext) -> u8 {
        if self.in_reset() {
            return 0xff;
        }
        match self.state.phase {
            Phase::Result => {
                let byte = self.state.bytes.get(self.state.position).copied().unwrap_or(0xff);
                self.state.position += 1;
                let first = self.state.position == 1;
                // What a seek or reset has announced stays until SENSE INTERRUPT STATUS takes it.
                if first && self.state.bytes.len() == 7 {
                    self.state.interrupt = self.state.drives.iter().any(|d| d.sense.is_some());
                }
                if self.state.position >= self.state.bytes.len() {
                    self.idle();
                }
                byte
            }
            Phase::Execution(_) if self.pio_direction() == Some(true) => self.pio_read(cx),
            Phase::Execution(_) | Phase::Command => 0xff,
        }
    }

    fn write_data(&mut self, cx: &mut DeviceContext, value: u8) {
        if self.in_reset() {
            return;
        }
        match self.state.phase {
            Phase::Command => {
                self.state.bytes.push(value);
                let code = self.state.bytes.first().copied().unwrap_or(value);
                if self.state.bytes.len() >= Command::decode(code).len() {
                    let bytes = std::mem::take(&mut self.state.bytes);
                    self.execute(cx, &bytes);
                }
            }
            Phase::Execution(_) if self.pio_direction() == Some(false) => self.pio_write(cx, value),
            Phase::Execution(_) | Phase::Result => {}
        }
    }

    fn write_digital_output(&mut self, value: u8) {
        let old = std::mem::replace(&mut self.state.dor, value);
        match (old & dor::NOT_RESET != 0, value & dor::NOT_RESET != 0) {
            (true, false) => self.software_reset(),
            (false, true) => self.state.reset_until = Some(self.now.saturating_add(RESET_TIME)),
            _ => {}
        }
    }

    fn digital_input(&self) -> u8 {
        let unit = usize::from(self.state.dor & dor::SELECT);
        let exists = self.drives.get(unit).and_then(Option::as_ref);
        match exists {
            Some(drive) if drive.disk.is_empty() || self.state.drives[unit].changed => DSKCHG,
            _ => 0,
        }
    }
}

impl Device for Fdc {
    const ID: &'static str = "i82078";
    type State = FdcState;
    const PORTS: &'static [Region] = &[ports(0x3f0, 6), ports(0x3f7, 1)];
    const WIDEST_ACCESS: u8 = 1;

    fn read(&mut self, cx: &mut DeviceContext, access: Access) -> u64 {
        self.advance(cx);
        let value = match Register::decode(access) {
            Register::StatusAB => 0xff,
            Register::DigitalOutput => self.state.dor,
            Register::TapeDrive => 0xfc | self.state.tape,
            Register::MainStatus => self.main_status(),
            Register::Data => self.read_data(cx),
            Register::DigitalInput => self.digital_input(),
        };
        self.drive_irq();
        value.into()
    }

    fn write(&mut self, cx: &mut DeviceContext, access: Access, value: u64) {
        self.advance(cx);
        let value = value as u8;
        match Register::decode(access) {
            Register::StatusAB => {}
            Register::DigitalOutput => self.write_digital_output(value),
            Register::TapeDrive => self.state.tape = value & 0x03,
            Register::MainStatus => {
                self.state.rate = value & dsr::RATE;
                if value & dsr::SOFTWARE_RESET != 0 {
                    self.software_reset();
                    if self.state.dor & dor::NOT_RESET != 0 {
                        self.state.reset_until = Some(self.now.saturating_add(RESET_TIME));
                    }
                }
            }
            Register::Data => self.write_data(cx, value),
            Register::DigitalInput => self.state.rate = value & dsr::RATE,
        }
        self.drive_irq();
    }

    fn poll_at(&self) -> Option<Instant> {
        let seeks = self.state.drives.iter().filter_map(|d| d.seek).map(|seek| seek.end);
        let own = seeks.chain(self.state.reset_until).chain(self.transfer_deadline(self.now)).min().map(Instant);
        let disks = self.drives.iter().flatten().filter_map(|d| d.disk.poll_at());
        own.into_iter().chain(disks).min()
    }

    fn poll(&mut self, cx: &mut DeviceContext) {
        self.advance(cx);
    }

    fn reset(&mut self, cx: &mut DeviceContext, kind: ResetKind) {
        self.now = cx.now.nanos();
        self.software_reset();
        let heads =
            self.state.drives.map(|d| DriveState { cylinder: d.cylinder, changed: d.changed, ..DriveState::default() });
        self.state = FdcState { drives: heads, config: config::NO_FIFO, ..FdcState::default() };
        if kind == ResetKind::Cold {
            self.state.drives.iter_mut().for_each(|d| d.changed = true);
        }
        self.drive_irq();
    }

    fn attached(&mut self, notifier: Notifier) {
        for drive in self.drives.iter_mut().flatten() {
            drive.disk.set_notifier(notifier.clone());
        }
    }

    fn state(&self) -> FdcState {
        let disks = [0, 1].map(|i: usize| self.drives[i].as_ref().map(|d| d.disk.state()).unwrap_or_default());
        FdcState { disks, ..self.state.clone() }
    }

    fn set_state(&mut self, mut state: FdcState) {
        state.bytes.truncate(16);
        state.position = state.position.min(state.bytes.len());
        if state.phase == Phase::Result && state.position >= state.bytes.len() {
            state.phase = Phase::Command;
            state.bytes.clear();
        }
        if let Phase::Execution(transfer) = &mut state.phase {
            transfer.sanitise();
        }
        for (drive, disk) in self.drives.iter_mut().zip(std::mem::take(&mut state.disks)) {
            if let Some(drive) = drive {
                drive.disk.set_state(disk);
            }
        }
        self.state = state;
    }

    fn restored(&mut self, cx: &mut DeviceContext) {
        self.now = cx.now.nanos();
        self.drive_irq();
    }
}

#[cfg(test)]
mod tests;
