//! The high precision event timers: IA-PC HPET specification 1.0a, with three timers at 100 MHz, as QEMU's.
//!
//! ```text
//!  000h GCAP_ID   010h GEN_CONF   020h GINTR_STA   0F0h MAIN_CNT
//!  100h + 20h n: Tn_CONF   +8 Tn_CMP   +10h Tn_FSB (absent: reads as zero)
//!
//!  8254 IRQ0, RTC IRQ8 --> [legacy gate] --> IRQ0, IRQ8 of the board
//!                              ^ LEG_RT_CNF: timers 0 and 1 instead
//! ```
//! Deliberately absent: FSB (message) delivery, which Tn_CONF does not offer.

use crate::shared::Shared;
use emu_core::clock::Instant;
use emu_core::device::{Access, Device, DeviceContext, Region, ResetKind};
use emu_core::irq::{IrqInput, IrqLine};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Where the registers are.
pub const REGION: Region = Region { base: 0xfed0_0000, len: 0x400 };
/// The main counter's frequency.
pub const HZ: u64 = 100_000_000;
/// Timers.
pub const TIMERS: usize = 3;
/// General capabilities: 10 ns in femtoseconds, Intel, legacy replacement, 64 bits, three timers, revision 1.
pub const GCAP_ID: u64 = 10_000_000 << 32 | 0x8086_0000 | 1 << 15 | 1 << 13 | (TIMERS as u64 - 1) << 8 | 1;

/// Inputs of [`HpetCore`]: what legacy replacement takes the place of.
pub mod pin {
    /// The 8254's counter 0.
    pub const PIT: u32 = 0;
    /// The real-time clock's interrupt.
    pub const RTC: u32 = 1;
}

const ENABLE: u64 = 1 << 0;
const LEGACY: u64 = 1 << 1;

/// Tn_CONF bits.
mod conf {
    pub const LEVEL: u64 = 1 << 1;
    pub const INTERRUPT: u64 = 1 << 2;
    pub const PERIODIC: u64 = 1 << 3;
    pub const SET_ACCUMULATOR: u64 = 1 << 6;
    pub const FORCE_32: u64 = 1 << 8;
    pub const ROUTE: u64 = 0x1f << 9;
    /// Periodic and 64-bit capable; I/O APIC inputs 2, 8 and 16 to 23.
    pub const CAPABILITIES: u64 = 0x00ff_0104 << 32 | 1 << 4 | 1 << 5;
    pub const WRITABLE: u64 = LEVEL | INTERRUPT | PERIODIC | SET_ACCUMULATOR | FORCE_32 | ROUTE;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    Capabilities,
    Configuration,
    InterruptStatus,
    Counter,
    TimerConfiguration(usize),
    TimerComparator(usize),
}

impl Register {
    fn decode(offset: u64) -> Option<Register> {
        let timer = (offset.wrapping_sub(0x100) / 0x20) as usize;
        Some(match offset & !7 {
            0x000 => Register::Capabilities,
            0x010 => Register::Configuration,
            0x020 => Register::InterruptStatus,
            0x0f0 => Register::Counter,
            at if timer < TIMERS && at & 0x18 == 0x00 => Register::TimerConfiguration(timer),
            at if timer < TIMERS && at & 0x18 == 0x08 => Register::TimerComparator(timer),
            _ => return None,
        })
    }
}

/// One timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerState {
    /// Tn_CONF without its capabilities.
    pub configuration: u64,
    /// Tn_CMP.
    pub comparator: u64,
    /// What is added to the comparator at each match in periodic mode.
    pub period: u64,
    /// The next match.
    pub deadline: Option<Instant>,
}

impl TimerState {
    fn has(&self, bits: u64) -> bool {
        self.configuration & bits == bits
    }

    fn narrow(&self) -> bool {
        self.has(conf::FORCE_32)
    }

    fn mask(&self) -> u64 {
        if self.narrow() { 0xffff_ffff } else { u64::MAX }
    }

    fn route(&self) -> usize {
        ((self.configuration & conf::ROUTE) >> 9) as usize
    }
}

/// All guest-visible state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HpetState {
    /// GEN_CONF.
    pub configuration: u64,
    /// GINTR_STA.
    pub status: u64,
    /// The main counter: its value while halted, else what it leads virtual time by, in ticks.
    pub counter: u64,
    /// The timers.
    pub timers: [TimerState; TIMERS],
    /// Levels of the 8254's and the clock's interrupt.
    pub legacy_inputs: [bool; 2],
}

impl Default for HpetState {
    fn default() -> HpetState {
        let timer = TimerState { configuration: 0, comparator: u64::MAX, period: 0, deadline: None };
        HpetState { configuration: 0, status: 0, counter: 0, timers: [timer; TIMERS], legacy_inputs: [false; 2] }
    }
}

impl HpetState {
    fn enabled(&self) -> bool {
        self.configuration & ENABLE != 0
    }

    fn legacy(&self) -> bool {
        self.configuration & LEGACY != 0
    }

    fn count(&self, now: Instant) -> u64 {
        if self.enabled() { self.counter.wrapping_add(now.ticks(HZ)) } else { self.counter }
    }

    fn set_count(&mut self, value: u64, now: Instant) {
        self.counter = if self.enabled() { value.wrapping_sub(now.ticks(HZ)) } else { value };
    }

    /// Sets the next match of timer `n`: when the counter becomes equal to the comparator.
    fn arm(&mut self, n: usize, now: Instant) {
        let count = self.count(now);
        let enabled = self.enabled();
        let timer = &mut self.timers[n];
        let delta = timer.comparator.wrapping_sub(count) & timer.mask();
        let target = now.ticks(HZ).checked_add(delta).filter(|_| enabled);
        timer.deadline = target.map(|ticks| Instant::from_ticks(ticks, HZ)).filter(|at| at.0 != u64::MAX);
    }

    fn arm_all(&mut self, now: Instant) {
        (0..TIMERS).for_each(|n| self.arm(n, now));
    }

    /// A match of timer `n`: in periodic mode on to the first one that is not over.
    fn advance(&mut self, n: usize, now: Instant) {
        let count = self.count(now);
        let timer = &mut self.timers[n];
        let mask = timer.mask();
        if timer.has(conf::PERIODIC) && timer.period & mask != 0 {
            let period = timer.period & mask;
            let late = count.wrapping_sub(timer.comparator) & mask;
            let periods = late / period + 1;
            timer.comparator = timer.comparator.wrapping_add(periods.wrapping_mul(period)) & mask;
            self.arm(n, now);
        } else {
            // A 32-bit comparison matches again after a round of the counter.
            timer.deadline = match (timer.narrow(), timer.deadline) {
                (true, Some(at)) => Some(Instant::from_ticks(at.ticks(HZ).saturating_add(1 << 32), HZ)),
                _ => None,
            };
        }
    }

    fn read(&self, register: Register, now: Instant) -> u64 {
        match register {
            Register::Capabilities => GCAP_ID,
            Register::Configuration => self.configuration,
            Register::InterruptStatus => self.status,
            Register::Counter => self.count(now),
            Register::TimerConfiguration(n) => self.timers[n].configuration | conf::CAPABILITIES,
            Register::TimerComparator(n) => self.timers[n].comparator,
        }
    }

    /// Writes the bits of `mask`.
    fn write(&mut self, register: Register, value: u64, mask: u64, now: Instant) {
        let merged = |old: u64| old & !mask | value & mask;
        match register {
            Register::Capabilities => {}
            Register::Configuration => {
                let count = self.count(now);
                self.configuration = merged(self.configuration) & (ENABLE | LEGACY);
                self.set_count(count, now);
                self.arm_all(now);
            }
            Register::InterruptStatus => self.status &= !(value & mask),
            Register::Counter => {
                let count = merged(self.count(now));
                self.set_count(count, now);
                self.arm_all(now);
            }
            Register::TimerConfiguration(n) => {
                let timer = &mut self.timers[n];
                let mut new = merged(timer.configuration) & conf::WRITABLE;
                let route = (new & conf::ROUTE) >> 9;
                if conf::CAPABILITIES >> (32 + route) & 1 == 0 {
                    new = new & !conf::ROUTE | timer.configuration & conf::ROUTE;
                }
                timer.configuration = new;
                if timer.narrow() {
                    timer.comparator &= 0xffff_ffff;
                    timer.period &= 0xffff_ffff;
                }
                if !timer.has(conf::LEVEL) {
                    self.status &= !(1 << n);
                }
                self.arm(n, now);
            }
            Register::TimerComparator(n) => {
                let timer = &mut self.timers[n];
                let width = timer.mask();
                // Specification 2.3.9.2.2: in periodic mode a write sets the period, and with Tn_VAL_SET_CNF also the
                // comparator.
                let periodic = timer.has(conf::PERIODIC);
                if periodic {
                    timer.period = merged(timer.period) & width;
                }
                if !periodic || timer.has(conf::SET_ACCUMULATOR) {
                    timer.comparator = merged(timer.comparator) & width;
                }
                timer.configuration &= !conf::SET_ACCUMULATOR;
                self.arm(n, now);
            }
        }
    }
}

/// The lines that the block drives.
pub struct HpetLines {
    /// IRQ0, in place of the 8254.
    pub irq0: IrqLine,
    /// IRQ8, in place of the clock.
    pub irq8: IrqLine,
    /// I/O APIC inputs by number; those that Tn_CONF offers are driven.
    pub inputs: Vec<IrqLine>,
}

/// The gate through which the 8254 and the clock interrupt. Its pins are in [`pin`].
pub struct HpetCore {
    state: Shared<HpetState>,
    lines: HpetLines,
}

impl HpetCore {
    /// The line that timer `n` drives.
    fn line(&self, state: &HpetState, n: usize) -> Option<&IrqLine> {
        match (state.legacy(), n) {
            (true, 0) => Some(&self.lines.irq0),
            (true, 1) => Some(&self.lines.irq8),
            _ => self.lines.inputs.get(state.timers[n].route()),
        }
    }

    /// Drives every line to its level: level-triggered timers, and the 8254 and clock unless replaced.
    fn drive(&self, state: &HpetState) {
        let mut high = 0u32;
        let mut legacy = if state.legacy() { [false; 2] } else { state.legacy_inputs };
        for (n, timer) in state.timers.iter().enumerate() {
            if timer.has(conf::LEVEL | conf::INTERRUPT) && state.status >> n & 1 != 0 {
                match (state.legacy(), n) {
                    (true, 0 | 1) => legacy[n] = true,
                    _ => high |= 1 << timer.route(),
                }
            }
        }
        self.lines.irq0.set(legacy[0]);
        self.lines.irq8.set(legacy[1]);
        for (input, line) in self.lines.inputs.iter().enumerate() {
            line.set(high >> input & 1 != 0);
        }
    }

    fn fire(&self, state: &mut HpetState, n: usize, now: Instant) {
        state.advance(n, now);
        let timer = state.timers[n];
        if timer.has(conf::LEVEL) {
            state.status |= 1 << n;
        } else if timer.has(conf::INTERRUPT)
            && let Some(line) = self.line(state, n)
        {
            line.pulse();
        }
    }
}

impl IrqInput for HpetCore {
    fn set_level(&self, pin: u32, high: bool) {
        let mut state = self.state.lock();
        if let Some(input) = state.legacy_inputs.get_mut(pin as usize) {
            *input = high;
            if !state.legacy() {
                let line = if pin == pin::PIT { &self.lines.irq0 } else { &self.lines.irq8 };
                line.set(high);
            }
        }
    }
}

/// The timers as a device.
pub struct Hpet {
    core: Arc<HpetCore>,
}

impl Hpet {
    /// Timers that drive `lines`.
    pub fn new(lines: HpetLines) -> Hpet {
        Hpet { core: Arc::new(HpetCore { state: Shared::default(), lines }) }
    }

    /// The gate for the 8254's and the clock's interrupts.
    pub fn core(&self) -> Arc<HpetCore> {
        self.core.clone()
    }
}

impl Device for Hpet {
    const ID: &'static str = "hpet";
    type State = HpetState;

    fn read(&mut self, cx: &mut DeviceContext, access: Access) -> u64 {
        let value = Register::decode(access.offset).map_or(0, |r| self.core.state.lock().read(r, cx.now));
        value >> (8 * (access.offset & 7))
    }

    fn write(&mut self, cx: &mut DeviceContext, access: Access, value: u64) {
        let shift = 8 * (access.offset & 7);
        let mask = (u64::MAX >> (64 - 8 * u32::from(access.size))) << shift;
        if let Some(register) = Register::decode(access.offset) {
            let mut state = self.core.state.lock();
            state.write(register, value << shift, mask, cx.now);
            self.core.drive(&state);
        }
    }

    fn poll_at(&self) -> Option<Instant> {
        self.core.state.lock().timers.iter().filter_map(|t| t.deadline).min()
    }

    fn poll(&mut self, cx: &mut DeviceContext) {
        let mut state = self.core.state.lock();
        for n in 0..TIMERS {
            if state.timers[n].deadline.is_some_and(|at| at <= cx.now) {
                self.core.fire(&mut state, n, cx.now);
            }
        }
        self.core.drive(&state);
    }

    /// Both kinds are RESET; the gate's inputs keep the levels that others drive.
    fn reset(&mut self, _cx: &mut DeviceContext, _kind: ResetKind) {
        let mut state = self.core.state.lock();
        *state = HpetState { legacy_inputs: state.legacy_inputs, ..HpetState::default() };
        self.core.drive(&state);
    }

    fn state(&self) -> HpetState {
        *self.core.state.lock()
    }

    fn set_state(&mut self, state: HpetState) {
        *self.core.state.lock() = state;
    }

    fn restored(&mut self, _cx: &mut DeviceContext) {
        self.core.drive(&self.core.state.lock());
    }
}

#[cfg(test)]
mod tests;
