//! The local APIC's timer: one-shot, periodic and TSC-deadline mode (SDM Vol. 3A 11.5.4).

use super::registers::{LVT_MASKED, Lvt};
use super::state::LapicState;
use emu_core::clock::{Instant, TSC_HZ};

/// The mode in bits 18 and 17 of the timer's LVT entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimerMode {
    OneShot,
    Periodic,
    TscDeadline,
    Reserved,
}

impl LapicState {
    /// The number by which the divide configuration shifts the bus clock.
    pub(super) fn divide_shift(&self) -> u32 {
        ((self.divide & 3 | self.divide >> 1 & 4) + 1) & 7
    }

    pub(super) fn timer_mode(&self) -> TimerMode {
        match self.entry(Lvt::Timer) >> 17 & 3 {
            0 => TimerMode::OneShot,
            1 => TimerMode::Periodic,
            2 => TimerMode::TscDeadline,
            _ => TimerMode::Reserved,
        }
    }

    pub(super) fn count_nanos(&self) -> u64 {
        u64::from(self.initial_count) << self.divide_shift()
    }

    pub(super) fn current_count(&self, now: Instant) -> u32 {
        let elapsed = now.nanos_since(self.count_start) >> self.divide_shift();
        let initial = u64::from(self.initial_count);
        match self.timer_mode() {
            _ if initial == 0 => 0,
            TimerMode::Periodic => (initial - elapsed % initial) as u32,
            TimerMode::OneShot => initial.saturating_sub(elapsed) as u32,
            TimerMode::TscDeadline | TimerMode::Reserved => 0,
        }
    }

    /// Sets [`LapicState::deadline`] after a change of mode, count, divisor or target.
    pub(super) fn arm(&mut self, now: Instant) {
        self.deadline = match self.timer_mode() {
            TimerMode::OneShot if self.initial_count != 0 => {
                let end = self.count_start.plus_nanos(self.count_nanos());
                (end > now).then_some(end)
            }
            TimerMode::Periodic if self.initial_count != 0 => {
                let period = self.count_nanos();
                let periods = now.nanos_since(self.count_start) / period + 1;
                Some(self.count_start.plus_nanos(period.saturating_mul(periods)))
            }
            TimerMode::TscDeadline if self.tsc_deadline != 0 => {
                let tsc = now.ticks(TSC_HZ).wrapping_add(self.tsc_offset);
                Some(match self.tsc_deadline > tsc {
                    true => Instant::from_ticks(now.ticks(TSC_HZ).saturating_add(self.tsc_deadline - tsc), TSC_HZ),
                    false => now,
                })
            }
            _ => None,
        };
    }

    pub(super) fn fire_timer(&mut self, now: Instant) {
        if self.deadline.is_none_or(|at| at > now) {
            return;
        }
        if self.timer_mode() == TimerMode::TscDeadline {
            self.tsc_deadline = 0;
        }
        self.arm(now);
        let entry = self.entry(Lvt::Timer);
        if entry & LVT_MASKED == 0 {
            self.accept(entry as u8, false);
        }
    }
}
