//! The MC146818 real-time clock and CMOS RAM, as PIIX3 carries it: 128 bytes, and 128 more behind ports 72h and 73h.
//!
//! Follows the Motorola MC146818 data sheet and the 82371SB (PIIX3) data sheet 4.4 and 8.8.
//!
//! ```text
//!  32.768 kHz --> divider --+--> periodic tap (RS3-0) --> PF --PIE--+
//!                           +--> 1 Hz --> update cycle -> UF --UIE--+--> IRQ8
//!                                            \-- alarm -> AF --AIE--+
//!  one second:  ___________________________________|UIP 244 us + 1984 us|  <- registers change, UF
//! ```
//! Nothing ticks while nobody looks: the calendar is computed from virtual time, flags from the time since the last
//! look. While SET or a divider reset stops the clock, the time registers are plain bytes. The century (32h, and 37h,
//! its PS/2 alias) is part of the calendar, as in QEMU's `pc`. Periodic ticks that a late poll has missed are given
//! after the guest's acknowledge. Deliberately absent: the square-wave output, daylight saving (DSE is only stored),
//! the effect of the NMI mask, which is kept for the board to look at.

mod calendar;
mod cmos;

pub use cmos::CmosLayout;

use crate::shared::Shared;
use calendar::{Alarm, Calendar, Encoding, weekday};
use emu_core::clock::Instant;
use emu_core::device::{Access, Device, DeviceContext, Region, ResetKind, ports};
use emu_core::irq::IrqLine;
use serde::{Deserialize, Serialize};

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// The divider's crystal, in hertz.
const CRYSTAL: u64 = 32_768;

/// UIP is up this long before the registers change: t_BUC and t_UC.
const UPDATE: u64 = 244_000 + 1_984_000;

/// Periodic interrupts that are owed at most to a guest that was not run for a while.
const OWED: u32 = 4096;

/// Bytes in each bank of RAM.
const BANK: usize = 128;

/// Register A.
mod a {
    pub const UIP: u8 = 0x80;
    pub const WRITABLE: u8 = 0x7f;
    pub const DIVIDER: u8 = 0x70;
    pub const RATE: u8 = 0x0f;
}

/// Register B.
mod b {
    pub const SET: u8 = 0x80;
    pub const PIE: u8 = 0x40;
    pub const AIE: u8 = 0x20;
    pub const UIE: u8 = 0x10;
    pub const SQWE: u8 = 0x08;
    pub const DM: u8 = 0x04;
    pub const HOURS_24: u8 = 0x02;
}

/// Register C.
mod c {
    pub const IRQF: u8 = 0x80;
    pub const PF: u8 = 0x40;
    pub const AF: u8 = 0x20;
    pub const UF: u8 = 0x10;
}

/// Register D: RAM and time are valid.
const VRT: u8 = 0x80;

/// A byte of the chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    /// Part of the calendar, by its index.
    Time(TimeField),
    A,
    B,
    C,
    D,
    /// Alarms and RAM.
    Ram(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TimeField {
    Seconds = 0,
    Minutes = 2,
    Hours = 4,
    DayOfWeek = 6,
    DayOfMonth = 7,
    Month = 8,
    Year = 9,
    Century = 0x32,
}

impl TimeField {
    const ALL: [TimeField; 8] = [
        TimeField::Seconds,
        TimeField::Minutes,
        TimeField::Hours,
        TimeField::DayOfWeek,
        TimeField::DayOfMonth,
        TimeField::Month,
        TimeField::Year,
        TimeField::Century,
    ];
}

const SECONDS_ALARM: usize = 1;
const MINUTES_ALARM: usize = 3;
const HOURS_ALARM: usize = 5;
/// PS/2 place of the century.
const CENTURY_ALIAS: u8 = 0x37;

impl Register {
    fn decode(index: u8) -> Register {
        match index & 0x7f {
            0x0a => Register::A,
            0x0b => Register::B,
            0x0c => Register::C,
            0x0d => Register::D,
            CENTURY_ALIAS => Register::Time(TimeField::Century),
            n => match TimeField::ALL.into_iter().find(|f| *f as u8 == n) {
                Some(field) => Register::Time(field),
                None => Register::Ram(n),
            },
        }
    }
}

/// What the guest's clock shows at power-on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartTime {
    /// Whole seconds from 1970-01-01 00:00:00 on the guest's clock.
    pub seconds: i64,
    /// Nanoseconds on top.
    pub nanos: u32,
}

/// All guest-visible state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtcState {
    /// The index at port 70h.
    pub index: u8,
    /// Bit 7 of port 70h.
    pub nmi_masked: bool,
    /// The index at port 72h.
    pub extended_index: u8,
    /// The 128 bytes; those of the running calendar are stale.
    pub ram: Vec<u8>,
    /// The 128 bytes behind ports 72h and 73h.
    pub extended_ram: Vec<u8>,
    /// Register A without UIP.
    pub register_a: u8,
    /// Register B.
    pub register_b: u8,
    /// Register C without IRQF.
    pub register_c: u8,
    /// The calendar of the running clock at `seen`, in seconds from 1970.
    pub seconds: i64,
    /// The day-of-week register runs ahead of the calendar's by this many days.
    pub weekday_lead: u8,
    /// Up to when flags and calendar are computed.
    pub seen: Instant,
    /// Nanoseconds into each second of virtual time at which the registers change.
    pub phase: u64,
    /// Periodic interrupts that came too late for one of their own.
    pub owed: u32,
    /// When the next owed interrupt comes.
    pub repay_at: Option<Instant>,
    /// PF stands for an owed interrupt, which is settled by the acknowledge.
    pub repaying: bool,
}

impl RtcState {
    fn encoding(&self) -> Encoding {
        Encoding { binary: self.register_b & b::DM != 0, hours_24: self.register_b & b::HOURS_24 != 0 }
    }

    /// The divider counts: not held in reset nor in a test mode. (The other time bases count as 32.768 kHz.)
    fn divider_runs(&self) -> bool {
        self.register_a & a::DIVIDER <= 0x20
    }

    fn running(&self) -> bool {
        self.divider_runs() && self.register_b & b::SET == 0
    }

    /// Update cycles that have ended since before power-on.
    fn updates(&self, at: Instant) -> u64 {
        (at.0 + SECOND - self.phase) / SECOND
    }

    /// The first instant of the update numbered `n` by [`RtcState::updates`].
    fn update_at(&self, n: u64) -> Instant {
        Instant(n.saturating_mul(SECOND).saturating_sub(SECOND - self.phase))
    }

    /// log2 of the crystal's cycles in a period of the selected tap; `None` for no tap.
    fn tap(&self) -> Option<u32> {
        match self.register_a & a::RATE {
            0 => None,
            n @ 1..=2 => Some(u32::from(n) + 6),
            n => Some(u32::from(n) - 1),
        }
        .filter(|_| self.divider_runs())
    }

    /// Periods of the tap that have ended since before power-on.
    fn periods(&self, at: Instant, tap: u32) -> u64 {
        Instant(at.0 + SECOND - self.phase).ticks(CRYSTAL) >> tap
    }

    /// The first instant of the period numbered `n` by [`RtcState::periods`].
    fn period_at(&self, n: u64, tap: u32) -> Instant {
        Instant(Instant::from_ticks(n << tap, CRYSTAL).0.saturating_sub(SECOND - self.phase))
    }

    fn alarm(&self) -> Alarm {
        let encoding = self.encoding();
        // "Don't care" is any value from C0h to FFh.
        let field = |index: usize, decode: &dyn Fn(u8) -> u8| {
            let value = self.ram[index];
            (value < 0xc0).then(|| decode(value))
        };
        Alarm {
            hour: field(HOURS_ALARM, &|v| encoding.decode_hour(v)),
            minute: field(MINUTES_ALARM, &|v| encoding.decode(v)),
            second: field(SECONDS_ALARM, &|v| encoding.decode(v)),
        }
    }

    /// Brings calendar and flags up to `now`.
    fn advance(&mut self, now: Instant) {
        let now = now.max(self.seen);
        if let Some(tap) = self.tap() {
            let passed = self.periods(now, tap) - self.periods(self.seen, tap);
            if passed > 0 {
                // One of them raises PF, if it is not up already for one that came before.
                let own = u64::from(!self.repaying);
                if self.register_b & b::PIE != 0 && (self.register_c & c::PF == 0 || self.repaying) {
                    let missed = u32::try_from(passed - own).unwrap_or(OWED);
                    self.owed = self.owed.saturating_add(missed).min(OWED);
                }
                self.register_c |= c::PF;
            }
        }
        let passed = self.updates(now) - self.updates(self.seen);
        if passed > 0 && self.running() {
            let passed = passed as i64;
            self.register_c |= c::UF;
            if self.alarm().next_after(self.seconds).is_some_and(|n| n <= passed) {
                self.register_c |= c::AF;
            }
            self.seconds = self.seconds.saturating_add(passed);
        }
        if self.repay_at.is_some_and(|at| at <= now) {
            self.repay_at = None;
            self.repaying = self.register_c & c::PF == 0;
            self.register_c |= c::PF;
        }
        self.seen = now;
    }

    /// Drops the debt: the guest has asked for other interrupts.
    fn forgive(&mut self) {
        self.owed = 0;
        self.repay_at = None;
        self.repaying = false;
    }

    fn irq(&self) -> bool {
        self.register_b & self.register_c & (c::PF | c::AF | c::UF) != 0
    }

    fn update_in_progress(&self) -> bool {
        let next = self.update_at(self.updates(self.seen) + 1);
        self.running() && next.nanos_since(self.seen) <= UPDATE
    }

    /// The register of a running clock.
    fn field(&self, field: TimeField) -> u8 {
        let (calendar, encoding) = (Calendar::from_seconds(self.seconds), self.encoding());
        let year = calendar.year.clamp(0, 9999);
        match field {
            TimeField::Seconds => encoding.encode(calendar.second),
            TimeField::Minutes => encoding.encode(calendar.minute),
            TimeField::Hours => encoding.encode_hour(calendar.hour),
            TimeField::DayOfWeek => encoding.encode((weekday(self.seconds) + self.weekday_lead % 7) % 7 + 1),
            TimeField::DayOfMonth => encoding.encode(calendar.day),
            TimeField::Month => encoding.encode(calendar.month),
            TimeField::Year => encoding.encode((year % 100) as u8),
            TimeField::Century => encoding.encode((year / 100) as u8),
        }
    }

    /// Puts the running calendar into its registers.
    fn stop(&mut self) {
        for field in TimeField::ALL {
            self.ram[field as usize] = self.field(field);
        }
    }

    /// Takes the calendar from its registers.
    fn start(&mut self) {
        let encoding = self.encoding();
        let number = |field: TimeField| encoding.decode(self.ram[field as usize]);
        let calendar = Calendar {
            year: i64::from(number(TimeField::Century)) * 100 + i64::from(number(TimeField::Year)),
            month: number(TimeField::Month),
            day: number(TimeField::DayOfMonth),
            hour: encoding.decode_hour(self.ram[TimeField::Hours as usize]),
            minute: number(TimeField::Minutes),
            second: number(TimeField::Seconds),
        };
        self.seconds = calendar.to_seconds();
        let shown = (number(TimeField::DayOfWeek) + 6) % 7;
        self.weekday_lead = (shown + 7 - weekday(self.seconds)) % 7;
    }

    /// Changes Registers A and B and what hangs on them.
    fn write_control(&mut self, register_a: u8, register_b: u8) {
        let (running, divider) = (self.running(), self.divider_runs());
        if running {
            // Also when the clock goes on: the encoding may change, which does not convert the registers.
            self.stop();
        }
        let rate = register_a & a::RATE != self.register_a & a::RATE;
        self.register_a = register_a & a::WRITABLE;
        self.register_b = register_b;
        if self.register_b & b::SET != 0 {
            self.register_b &= !b::UIE;
        }
        if self.register_b & b::PIE == 0 || rate {
            self.forgive();
        }
        if !divider && self.divider_runs() {
            // "The first update cycle begins one-half second later."
            self.phase = (self.seen.0 + SECOND / 2) % SECOND;
        }
        if self.running() {
            self.start();
        }
    }

    fn read(&mut self, register: Register) -> u8 {
        match register {
            Register::Time(field) if self.running() => self.field(field),
            Register::Time(field) => self.ram[field as usize],
            Register::A => self.register_a | if self.update_in_progress() { a::UIP } else { 0 },
            Register::B => self.register_b,
            Register::C => {
                let flags = self.register_c | if self.irq() { c::IRQF } else { 0 };
                self.register_c = 0;
                if std::mem::take(&mut self.repaying) {
                    self.owed = self.owed.saturating_sub(1);
                }
                if let (Some(tap), true) = (self.tap(), self.owed > 0 && self.repay_at.is_none()) {
                    let quarter = (SECOND << tap) / CRYSTAL / 4;
                    self.repay_at = Some(self.seen.plus_nanos(quarter));
                }
                flags
            }
            Register::D => VRT,
            Register::Ram(index) => self.ram[usize::from(index)],
        }
    }

    fn write(&mut self, register: Register, value: u8) {
        match register {
            Register::Time(field) => {
                if self.running() {
                    self.stop();
                }
                self.ram[field as usize] = value;
                if self.running() {
                    self.start();
                }
            }
            Register::A => self.write_control(value, self.register_b),
            Register::B => self.write_control(self.register_a, value),
            Register::C | Register::D => {}
            Register::Ram(index) => self.ram[usize::from(index)] = value,
        }
    }

    fn poll_at(&self) -> Option<Instant> {
        // Flags that are up already cannot interrupt again before they are read.
        let wanted = |enable: u8, flag: u8| self.register_b & enable != 0 && self.register_c & flag == 0;
        let update = self.updates(self.seen);
        let periodic = self
            .tap()
            .filter(|_| wanted(b::PIE, c::PF))
            .map(|tap| self.period_at(self.periods(self.seen, tap) + 1, tap));
        let ended = (self.running() && wanted(b::UIE, c::UF)).then(|| self.update_at(update + 1));
        let alarm = (self.running() && wanted(b::AIE, c::AF))
            .then(|| self.alarm().next_after(self.seconds))
            .flatten()
            .map(|seconds| self.update_at(update + seconds as u64));
        periodic.into_iter().chain(ended).chain(alarm).chain(self.repay_at).min()
    }
}

/// Bytes of RAM that the user sets while the machine runs. Clones are the same.
#[derive(Clone, Default)]
pub struct CmosPatch(Shared<Vec<(u8, u8)>>);

impl CmosPatch {
    /// Sets a byte of RAM; the guest finds it at its next access.
    pub fn set_byte(&self, index: u8, value: u8) {
        let mut bytes = self.0.lock();
        bytes.retain(|(other, _)| *other != index);
        bytes.push((index, value));
    }
}

/// The clock.
pub struct Rtc {
    state: RtcState,
    irq8: IrqLine,
    patch: CmosPatch,
}

impl Rtc {
    /// A clock that shows `start` at power-on in BCD and 24-hour mode, and interrupts by `irq8`.
    pub fn new(irq8: IrqLine, start: StartTime) -> Rtc {
        let state = RtcState {
            index: 0,
            nmi_masked: false,
            extended_index: 0,
            ram: vec![0; BANK],
            extended_ram: vec![0; BANK],
            register_a: 0x26,
            register_b: b::HOURS_24,
            register_c: 0,
            seconds: start.seconds,
            weekday_lead: 0,
            seen: Instant::ZERO,
            phase: (SECOND - u64::from(start.nanos) % SECOND) % SECOND,
            owed: 0,
            repay_at: None,
            repaying: false,
        };
        Rtc { state, irq8, patch: CmosPatch::default() }
    }

    /// By which the user sets RAM.
    pub fn patch(&self) -> CmosPatch {
        self.patch.clone()
    }

    fn apply_patch(&mut self) {
        for (index, value) in std::mem::take(&mut *self.patch.0.lock()) {
            self.state.ram[usize::from(index) % BANK] = value;
        }
    }

    /// A byte of RAM as firmware would find it.
    pub fn byte(&self, index: u8) -> u8 {
        self.state.ram[usize::from(index) % BANK]
    }

    /// Sets a byte of RAM before power-on.
    pub fn set_byte(&mut self, index: u8, value: u8) {
        self.state.ram[usize::from(index) % BANK] = value;
    }

    /// Whether the guest masks NMI (bit 7 of port 70h).
    pub fn nmi_masked(&self) -> bool {
        self.state.nmi_masked
    }
}

/// A port of the chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Index,
    Data,
    ExtendedIndex,
    ExtendedData,
}

impl Port {
    fn decode(access: Access) -> Port {
        match (access.region, access.offset) {
            (0, 0) => Port::Index,
            (0, _) => Port::Data,
            (_, 0) => Port::ExtendedIndex,
            (_, _) => Port::ExtendedData,
        }
    }
}

impl Device for Rtc {
    const ID: &'static str = "mc146818";
    type State = RtcState;
    const PORTS: &'static [Region] = &[ports(0x70, 2), ports(0x72, 2)];
    const WIDEST_ACCESS: u8 = 1;

    fn read(&mut self, cx: &mut DeviceContext, access: Access) -> u64 {
        self.apply_patch();
        let s = &mut self.state;
        s.advance(cx.now);
        let value = match Port::decode(access) {
            Port::Index => u64::MAX,
            Port::Data => u64::from(s.read(Register::decode(s.index))),
            Port::ExtendedIndex => u64::from(s.extended_index),
            Port::ExtendedData => u64::from(s.extended_ram[usize::from(s.extended_index) % BANK]),
        };
        self.irq8.set(self.state.irq());
        value
    }

    fn write(&mut self, cx: &mut DeviceContext, access: Access, value: u64) {
        self.apply_patch();
        let s = &mut self.state;
        s.advance(cx.now);
        let value = value as u8;
        match Port::decode(access) {
            Port::Index => {
                s.index = value & 0x7f;
                s.nmi_masked = value & 0x80 != 0;
            }
            Port::Data => s.write(Register::decode(s.index), value),
            Port::ExtendedIndex => s.extended_index = value & 0x7f,
            Port::ExtendedData => s.extended_ram[usize::from(s.extended_index) % BANK] = value,
        }
        self.irq8.set(self.state.irq());
    }

    fn poll_at(&self) -> Option<Instant> {
        self.state.poll_at()
    }

    fn poll(&mut self, cx: &mut DeviceContext) {
        self.state.advance(cx.now);
        self.irq8.set(self.state.irq());
    }

    /// The RESET pin: interrupts off, flags clear. Time and RAM live on the battery.
    fn reset(&mut self, cx: &mut DeviceContext, _kind: ResetKind) {
        let s = &mut self.state;
        s.advance(cx.now);
        s.register_b &= !(b::PIE | b::AIE | b::UIE | b::SQWE);
        s.register_c = 0;
        s.forgive();
        s.index = 0;
        s.nmi_masked = false;
        self.irq8.set(false);
    }

    fn state(&self) -> RtcState {
        self.state.clone()
    }

    fn set_state(&mut self, mut state: RtcState) {
        state.ram.resize(BANK, 0);
        state.extended_ram.resize(BANK, 0);
        state.phase %= SECOND;
        state.seen = state.seen.min(Instant(u64::MAX / 4));
        state.owed = state.owed.min(OWED);
        // Ten thousand years either way; nothing beyond them can be shown.
        state.seconds = state.seconds.clamp(-400_000_000_000, 400_000_000_000);
        self.state = state;
    }

    fn restored(&mut self, _cx: &mut DeviceContext) {
        self.irq8.set(self.state.irq());
    }
}

#[cfg(test)]
mod tests;
