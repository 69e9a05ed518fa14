//! The command set: codes, lengths, and the commands that have no execution phase.
//!
//! Follows the Intel 82078 data sheet (290468), "Command Set/Descriptions".

use super::transfer::{Kind, Transfer};
use super::{Fdc, Phase, config, st0};
use emu_core::device::DeviceContext;

/// What the first byte of a command asks for. Modifier bits (MT, MFM, SK, LOCK, DIR) are not part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Transfer(Kind),
    Specify,
    SenseDriveStatus,
    Recalibrate,
    SenseInterruptStatus,
    DumpRegisters,
    Seek,
    RelativeSeek,
    Version,
    Perpendicular,
    Configure,
    Lock,
    PartId,
    PowerDownMode,
    Invalid,
}

impl Command {
    pub(super) fn decode(code: u8) -> Command {
        use Command as C;
        match (code & 0x1f, code & 0xe0) {
            (0x02, 0x00 | 0x40) => C::Transfer(Kind::ReadTrack),
            (0x03, 0) => C::Specify,
            (0x04, 0) => C::SenseDriveStatus,
            (0x05, 0x00 | 0x40 | 0x80 | 0xc0) => C::Transfer(Kind::Write),
            (0x06, _) => C::Transfer(Kind::Read),
            (0x07, 0) => C::Recalibrate,
            (0x08, 0) => C::SenseInterruptStatus,
            (0x09, 0x00 | 0x40 | 0x80 | 0xc0) => C::Transfer(Kind::Write),
            (0x0a, 0x00 | 0x40) => C::Transfer(Kind::ReadId),
            (0x0c, _) => C::Transfer(Kind::ReadDeleted),
            (0x0d, 0x00 | 0x40) => C::Transfer(Kind::Format),
            (0x0e, 0) => C::DumpRegisters,
            (0x0f, 0) => C::Seek,
            (0x0f, 0x80 | 0xc0) => C::RelativeSeek,
            (0x10, 0) => C::Version,
            (0x11, _) => C::Transfer(Kind::ScanEqual),
            (0x12, 0) => C::Perpendicular,
            (0x13, 0) => C::Configure,
            (0x14, 0x00 | 0x80) => C::Lock,
            (0x16, _) => C::Transfer(Kind::Verify),
            (0x17, 0) => C::PowerDownMode,
            (0x18, 0) => C::PartId,
            (0x19, _) => C::Transfer(Kind::ScanLowOrEqual),
            (0x1d, _) => C::Transfer(Kind::ScanHighOrEqual),
            _ => C::Invalid,
        }
    }

    /// Bytes of the command phase.
    pub(super) fn len(self) -> usize {
        use Command as C;
        match self {
            C::Transfer(Kind::ReadId) => 2,
            C::Transfer(Kind::Format) => 6,
            C::Transfer(_) => 9,
            C::Configure => 4,
            C::Specify | C::Seek | C::RelativeSeek => 3,
            C::SenseDriveStatus | C::Recalibrate | C::Perpendicular | C::PowerDownMode => 2,
            C::SenseInterruptStatus | C::DumpRegisters | C::Version | C::Lock | C::PartId | C::Invalid => 1,
        }
    }
}

/// VERSION: an enhanced controller.
const ENHANCED: u8 = 0x90;
/// PART ID: a 64-pin 82078, stepping 1.
const PART: u8 = 0x01;
/// The most step pulses of a RECALIBRATE.
const RECALIBRATE_STEPS: u8 = 80;

impl Fdc {
    /// Carries out the command in `bytes`, which are as many as it has.
    pub(super) fn execute(&mut self, cx: &mut DeviceContext, bytes: &[u8]) {
        let byte = |i: usize| bytes.get(i).copied().unwrap_or(0);
        let unit = usize::from(byte(1) & 3);
        match Command::decode(byte(0)) {
            Command::Transfer(kind) => self.begin_transfer(cx, Transfer::new(kind, bytes)),
            Command::Specify => {
                self.state.step_rate = byte(1);
                self.state.load_time = byte(2);
                self.idle();
            }
            Command::SenseDriveStatus => {
                let status = self.drive_status(byte(1));
                self.answer(vec![status]);
            }
            Command::Recalibrate => {
                let exists = self.drives[..].get(unit).is_some_and(Option::is_some);
                let at = self.state.drives[unit].cylinder;
                let steps = if exists { at.min(RECALIBRATE_STEPS) } else { RECALIBRATE_STEPS };
                self.begin_seek(cx, unit, -i16::from(steps), true, 0);
            }
            Command::SenseInterruptStatus => self.sense_interrupt(),
            Command::DumpRegisters => self.dump_registers(),
            Command::Seek => {
                let steps = i16::from(byte(2)) - i16::from(self.state.drives[unit].number);
                self.begin_seek(cx, unit, steps, false, byte(2));
            }
            Command::RelativeSeek => {
                let inwards = byte(0) & 0x40 != 0;
                let steps = if inwards { i16::from(byte(2)) } else { -i16::from(byte(2)) };
                let number = self.state.drives[unit].number.wrapping_add(steps as u8);
                self.begin_seek(cx, unit, steps, false, number);
            }
            Command::Version => self.answer(vec![ENHANCED]),
            Command::Perpendicular => {
                // Without OW only GAP and WGATE change.
                let (old, new) = (self.state.perpendicular, byte(1));
                self.state.perpendicular = if new & 0x80 != 0 { new & 0x3f } else { old & 0x3c | new & 3 };
                self.idle();
            }
            Command::Configure => {
                self.state.config = byte(2) & 0x7f;
                self.state.precompensation_track = byte(3);
                self.idle();
            }
            Command::Lock => {
                self.state.lock = byte(0) & 0x80 != 0;
                self.answer(vec![u8::from(self.state.lock) << 4]);
            }
            Command::PartId => self.answer(vec![PART]),
            Command::PowerDownMode => {
                self.state.power_mode = byte(1) & 0x07;
                self.answer(vec![self.state.power_mode]);
            }
            Command::Invalid => self.answer(vec![st0::INVALID]),
        }
    }

    /// Back to waiting for a command.
    pub(super) fn idle(&mut self) {
        self.state.phase = Phase::Command;
        self.state.bytes.clear();
        self.state.position = 0;
    }

    /// A result phase that no interrupt announces.
    pub(super) fn answer(&mut self, result: Vec<u8>) {
        self.state.phase = Phase::Result;
        self.state.bytes = result;
        self.state.position = 0;
    }

    /// Starts moving the head of drive `unit`; the controller takes commands meanwhile.
    fn begin_seek(&mut self, cx: &DeviceContext, unit: usize, steps: i16, recalibrate: bool, number: u8) {
        let end = cx.now.nanos().saturating_add(self.seek_time(steps));
        self.state.drives[unit].seek = Some(super::drive::Seek { steps, recalibrate, number, end });
        self.state.drives[unit].sense = None;
        self.idle();
    }

    /// Ends the seeks that are over by `now`.
    pub(super) fn end_seeks(&mut self, now: u64) {
        for unit in 0..4 {
            let Some(seek) = self.state.drives[unit].seek.filter(|seek| seek.end <= now) else { continue };
            let drive = self.drives.get(unit).and_then(Option::as_ref);
            let (exists, medium) = (drive.is_some(), drive.is_some_and(|d| !d.disk.is_empty()));
            let state = &mut self.state.drives[unit];
            state.seek = None;
            state.step(seek.steps, medium);
            state.number = seek.number;
            let lost = seek.recalibrate && (!exists || state.cylinder != 0);
            let failure = if lost { st0::ABNORMAL | st0::EQUIPMENT_CHECK } else { 0 };
            state.sense = Some(failure | st0::SEEK_END | unit as u8);
            self.state.interrupt = false;
            self.drive_irq();
            self.state.interrupt = true;
            self.drive_irq();
        }
    }

    fn sense_interrupt(&mut self) {
        let Some(unit) = self.state.drives.iter().position(|d| d.sense.is_some()) else {
            self.answer(vec![st0::INVALID]);
            return;
        };
        let drive = &mut self.state.drives[unit];
        let result = vec![drive.sense.take().unwrap_or(0), drive.number];
        self.state.interrupt = false;
        self.drive_irq();
        // A seek that has ended meanwhile asks anew; what is left of a reset does not.
        self.state.interrupt = self.state.drives.iter().any(|d| d.sense.is_some_and(|s| s & st0::SEEK_END != 0));
        self.answer(result);
    }

    fn drive_status(&self, select: u8) -> u8 {
        let unit = usize::from(select & 3);
        let Some(drive) = self.drives.get(unit).and_then(Option::as_ref) else {
            return st3::READY_AND_TWO_SIDES | select & 7;
        };
        let track_0 = if self.state.drives[unit].cylinder == 0 { st3::TRACK_0 } else { 0 };
        let protected = if drive.disk.is_read_only() { st3::WRITE_PROTECTED } else { 0 };
        st3::READY_AND_TWO_SIDES | track_0 | protected | select & 7
    }

    fn dump_registers(&mut self) {
        let s = &self.state;
        let mut result: Vec<u8> = s.drives.iter().map(|d| d.number).collect();
        let lock = u8::from(s.lock) << 7;
        result.extend([s.step_rate, s.load_time, s.end_of_track, lock | s.perpendicular]);
        result.extend([s.config & config::ALL, s.precompensation_track]);
        self.answer(result);
    }
}

/// Status Register 3.
mod st3 {
    pub const WRITE_PROTECTED: u8 = 0x40;
    pub const TRACK_0: u8 = 0x10;
    /// Bits 5 and 3 are always 1.
    pub const READY_AND_TWO_SIDES: u8 = 0x28;
}
