//! The 8254 programmable interval timer of a PC, and System Control Port B (61h).
//!
//! Follows the Intel 8254 data sheet (231164-005) and, for port 61h, the 82371SB (PIIX3) data sheet 4.4.
//!
//! ```text
//!  1.193182 MHz --+--> counter 0 --OUT0--> IRQ0
//!                 +--> counter 1 (refresh; OUT1 leads nowhere)
//!                 +--> counter 2 --OUT2--> port 61h bit 5, speaker
//!                          ^GATE2 = port 61h bit 0
//! ```
//! The counters are computed for the time of each access, so that polls may come late. A late poll that finds several
//! rises of OUT0 gives one edge at once and owes the others, which follow at twice the rate: guests that count ticks
//! keep their time. Counters that have not been programmed stand still (the data sheet leaves them undefined).
//! The speaker's cone follows OUT2 AND port 61h bit 1; its edges are announced to a [`Voice`] at their exact times.
//! Deliberately absent: NMI sources of port 61h (its status bits read 0).

mod counter;
mod speaker;

pub use counter::{Counter, Mode};

use crate::audio::Voice;
use emu_core::clock::Instant;
use emu_core::device::{Access, Device, DeviceContext, Region, ResetKind, ports};
use emu_core::irq::IrqLine;
use serde::{Deserialize, Serialize};

/// CLK of all counters, in hertz: 14.31818 MHz / 12.
pub const CLOCK: u64 = 1_193_182;

/// Ticks that are owed at most to a guest that was not run for a while.
const OWED: u32 = 4096;

/// Clocks between two toggles of the refresh bit: 15 microseconds.
const REFRESH: u64 = 18;

/// System Control Port B.
mod port_b {
    pub const GATE_2: u8 = 1 << 0;
    pub const SPEAKER_DATA: u8 = 1 << 1;
    pub const WRITABLE: u8 = 0x0f;
    pub const REFRESH: u8 = 1 << 4;
    pub const OUT_2: u8 = 1 << 5;
}

/// The register that an access reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    Counter(usize),
    ControlWord,
    PortB,
}

impl Register {
    fn decode(access: Access) -> Register {
        match (access.region, access.offset) {
            (0, n @ 0..=2) => Register::Counter(n as usize),
            (0, _) => Register::ControlWord,
            (_, _) => Register::PortB,
        }
    }
}

/// A byte written to the Control Word Register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Program { counter: usize, control: u8 },
    LatchCounter(usize),
    ReadBack { count: bool, status: bool, counters: u8 },
}

impl Command {
    fn decode(value: u8) -> Command {
        match (value >> 6, value >> 4 & 3) {
            (3, _) => {
                Command::ReadBack { count: value & 0x20 == 0, status: value & 0x10 == 0, counters: value >> 1 & 7 }
            }
            (n, 0) => Command::LatchCounter(usize::from(n)),
            (n, _) => Command::Program { counter: usize::from(n), control: value & 0x3f },
        }
    }
}

/// All guest-visible state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PitState {
    /// The counters, as they are at `tick`.
    pub counters: [Counter; 3],
    /// Ticks of [`CLOCK`] since power-on.
    pub tick: u64,
    /// The writable bits of port 61h.
    pub port_b: u8,
    /// Rises of OUT0 that came too late for an interrupt of their own.
    pub owed: u32,
    /// When the next owed interrupt comes.
    pub repay_at: Option<Instant>,
}

impl Default for PitState {
    fn default() -> PitState {
        let (on, off) = (Counter::with_gate(true), Counter::with_gate(false));
        PitState { counters: [on, on, off], tick: 0, port_b: 0, owed: 0, repay_at: None }
    }
}

/// The timer.
pub struct Pit {
    state: PitState,
    irq0: IrqLine,
    speaker: Voice,
}

impl Pit {
    /// A timer whose OUT0 drives `irq0`, with a speaker that nobody hears.
    pub fn new(irq0: IrqLine) -> Pit {
        Pit { state: PitState::default(), irq0, speaker: Voice::unconnected() }
    }

    /// Lets `voice` be the speaker.
    pub fn connect_speaker(&mut self, voice: Voice) {
        self.speaker = voice;
    }

    /// Brings the counters up to `now` and OUT0 onto its line.
    fn advance(&mut self, now: Instant) {
        let s = &mut self.state;
        let tick = now.ticks(CLOCK).max(s.tick);
        let clocks = tick - s.tick;
        s.tick = tick;
        let rises = s.counters[0].advance(clocks);
        s.counters[1].advance(clocks);
        speaker::advance(s, clocks, &self.speaker);
        if rises > 1 {
            s.owed = s.owed.saturating_add(u32::try_from(rises - 1).unwrap_or(OWED)).min(OWED);
        }
        if rises > 0 {
            self.edge();
            self.schedule(now);
        }
        self.irq0.set(self.state.counters[0].out());
    }

    fn edge(&self) {
        self.irq0.set(false);
        self.irq0.set(true);
    }

    /// Sets when the next owed interrupt comes: in the middle between this regular one and the next.
    fn schedule(&mut self, now: Instant) {
        let s = &mut self.state;
        match s.counters[0].clocks_to_rise() {
            _ if s.owed == 0 => s.repay_at = None,
            Some(clocks) => s.repay_at = Some(now.plus_nanos(clocks * (1_000_000_000 / 2) / CLOCK)),
            None => s.owed = 0,
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Program { counter, control } => {
                self.state.counters[counter].write_control(control);
                if counter == 0 {
                    self.state.owed = 0;
                    self.state.repay_at = None;
                }
            }
            Command::LatchCounter(n) => self.state.counters[n].latch_count(),
            Command::ReadBack { count, status, counters } => {
                for (n, counter) in self.state.counters.iter_mut().enumerate() {
                    if counters & 1 << n != 0 {
                        if count {
                            counter.latch_count();
                        }
                        if status {
                            counter.latch_status();
                        }
                    }
                }
            }
        }
    }

    fn read_port_b(&self) -> u8 {
        let s = &self.state;
        let refresh = if !(s.tick / REFRESH).is_multiple_of(2) { port_b::REFRESH } else { 0 };
        let out_2 = if s.counters[2].out() { port_b::OUT_2 } else { 0 };
        s.port_b | refresh | out_2
    }
}

impl Device for Pit {
    const ID: &'static str = "pit";
    type State = PitState;
    const PORTS: &'static [Region] = &[ports(0x40, 4), ports(0x61, 1)];
    const WIDEST_ACCESS: u8 = 1;

    fn read(&mut self, cx: &mut DeviceContext, access: Access) -> u64 {
        self.advance(cx.now);
        match Register::decode(access) {
            Register::Counter(n) => u64::from(self.state.counters[n].read()),
            Register::ControlWord => u64::MAX,
            Register::PortB => u64::from(self.read_port_b()),
        }
    }

    fn write(&mut self, cx: &mut DeviceContext, access: Access, value: u64) {
        self.advance(cx.now);
        let value = value as u8;
        match Register::decode(access) {
            Register::Counter(n) => self.state.counters[n].write_count(value),
            Register::ControlWord => self.command(Command::decode(value)),
            Register::PortB => {
                self.state.port_b = value & port_b::WRITABLE;
                self.state.counters[2].set_gate(value & port_b::GATE_2 != 0);
            }
        }
        self.speaker.set(cx.now, speaker::level(&self.state));
        self.irq0.set(self.state.counters[0].out());
    }

    fn poll_at(&self) -> Option<Instant> {
        let s = &self.state;
        let rise =
            s.counters[0].clocks_to_rise().map(|clocks| Instant::from_ticks(s.tick.saturating_add(clocks), CLOCK));
        rise.into_iter().chain(s.repay_at).chain(speaker::poll_at(s, &self.speaker)).min()
    }

    fn poll(&mut self, cx: &mut DeviceContext) {
        if self.state.repay_at.is_some_and(|at| at <= cx.now) {
            self.state.repay_at = None;
            self.state.owed = self.state.owed.saturating_sub(1);
            self.edge();
        }
        self.advance(cx.now);
    }

    fn reset(&mut self, cx: &mut DeviceContext, _kind: ResetKind) {
        self.state = PitState { tick: cx.now.ticks(CLOCK), ..PitState::default() };
        self.speaker.set(cx.now, speaker::level(&self.state));
        self.irq0.set(self.state.counters[0].out());
    }

    fn state(&self) -> PitState {
        self.state.clone()
    }

    fn set_state(&mut self, mut state: PitState) {
        state.counters.iter_mut().for_each(Counter::sanitise);
        state.owed = state.owed.min(OWED);
        self.state = state;
    }

    fn restored(&mut self, _cx: &mut DeviceContext) {
        self.irq0.set(self.state.counters[0].out());
    }
}

#[cfg(test)]
mod tests;
