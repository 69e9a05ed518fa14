//! Virtual time: the only time that devices see.
//!
//! Two clocks exist. [`ClockMode::Realtime`] follows the host's monotonic clock while the machine runs;
//! [`ClockMode::Icount`] counts retired instructions, `1 << shift` nanoseconds each, so that a run is repeatable bit
//! for bit given the same inputs. Deliberately absent: any wall-clock date, which enters only through the RTC's base.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Time-stamp counter ticks in a second of virtual time.
pub const TSC_HZ: u64 = 1_000_000_000;

/// A point in virtual time, in nanoseconds since power-on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instant(pub u64);

impl Instant {
    /// Power-on.
    pub const ZERO: Instant = Instant(0);

    /// Nanoseconds since power-on.
    pub fn nanos(self) -> u64 {
        self.0
    }

    /// This instant plus `nanos` nanoseconds, saturating at the end of time.
    pub fn plus_nanos(self, nanos: u64) -> Instant {
        Instant(self.0.saturating_add(nanos))
    }

    /// Nanoseconds from `earlier` to this instant, zero if `earlier` is later.
    pub fn nanos_since(self, earlier: Instant) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole ticks of a `hz` clock since power-on, rounded down.
    pub fn ticks(self, hz: u64) -> u64 {
        (u128::from(self.0) * u128::from(hz) / 1_000_000_000) as u64
    }

    /// The first instant at which [`Instant::ticks`] of a `hz` clock has reached `ticks`.
    pub fn from_ticks(ticks: u64, hz: u64) -> Instant {
        let nanos = (u128::from(ticks) * 1_000_000_000).div_ceil(u128::from(hz.max(1)));
        Instant(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// How virtual time advances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockMode {
    /// With the host's monotonic clock.
    Realtime,
    /// With retired instructions: each takes `1 << shift` nanoseconds.
    Icount {
        /// log2 of nanoseconds for an instruction, 0 to 10.
        shift: u8,
    },
}

/// The machine's clock. In icount mode the vCPU feeds it retired instructions.
#[derive(Debug)]
pub struct Clock {
    mode: ClockMode,
    /// Realtime: virtual time at `resumed`. Icount: time skipped while halted.
    base: u64,
    resumed: Option<std::time::Instant>,
    instructions: u64,
}

impl Clock {
    /// A stopped clock at [`Instant::ZERO`].
    pub fn new(mode: ClockMode) -> Clock {
        Clock { mode, base: 0, resumed: None, instructions: 0 }
    }

    /// How this clock advances.
    pub fn mode(&self) -> ClockMode {
        self.mode
    }

    /// Lets a real-time clock run. A deterministic clock runs with its instructions alone.
    pub fn resume(&mut self) {
        if self.mode == ClockMode::Realtime && self.resumed.is_none() {
            self.resumed = Some(std::time::Instant::now());
        }
    }

    /// Stops a real-time clock where it is.
    pub fn pause(&mut self) {
        self.base = self.realtime();
        self.resumed = None;
    }

    fn realtime(&self) -> u64 {
        self.base + self.resumed.map_or(0, |at| at.elapsed().as_nanos() as u64)
    }

    /// Virtual time when `pending` instructions have retired beyond those already fed to [`Clock::retire`].
    #[inline]
    pub fn now_after(&self, pending: u64) -> Instant {
        match self.mode {
            ClockMode::Realtime => Instant(self.realtime()),
            ClockMode::Icount { shift } => Instant(self.base + ((self.instructions + pending) << shift)),
        }
    }

    /// Virtual time now.
    pub fn now(&self) -> Instant {
        self.now_after(0)
    }

    /// Counts `n` more retired instructions.
    pub fn retire(&mut self, n: u64) {
        self.instructions += n;
    }

    /// Instructions retired since power-on.
    pub fn instructions(&self) -> u64 {
        self.instructions
    }

    /// Icount mode, halted vCPU: jumps to `deadline`. Does nothing in real time or if `deadline` has passed.
    pub fn skip_to(&mut self, deadline: Instant) {
        if let ClockMode::Icount { .. } = self.mode {
            self.base += deadline.nanos_since(self.now());
        }
    }

    /// Host time until `deadline`, for sleeping; zero if it has passed.
    pub fn until(&self, deadline: Instant) -> Duration {
        Duration::from_nanos(deadline.nanos_since(self.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_and_from_ticks_are_inverse_at_the_edge() {
        for hz in [1_193_182, 3_579_545, 100_000_000] {
            for t in [0, 1, 2, 3, 1000, 123_456_789] {
                let at = Instant::from_ticks(t, hz);
                assert_eq!(at.ticks(hz), t);
                if t > 0 {
                    assert_eq!(Instant(at.0 - 1).ticks(hz), t - 1);
                }
            }
        }
    }

    #[test]
    fn icount_clock_advances_only_by_instructions_and_skips() {
        let mut clock = Clock::new(ClockMode::Icount { shift: 3 });
        clock.resume();
        assert_eq!(clock.now(), Instant::ZERO);
        clock.retire(10);
        assert_eq!(clock.now_after(2), Instant(96));
        clock.skip_to(Instant(1000));
        assert_eq!(clock.now(), Instant(1000));
        clock.skip_to(Instant(500));
        clock.pause();
        assert_eq!(clock.now(), Instant(1000));
    }
}
