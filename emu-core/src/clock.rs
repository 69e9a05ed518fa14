//! Virtual time: the only time that devices see.
//!
//! Two clocks exist. [`ClockMode::Realtime`] follows the host's monotonic clock while the machine runs;
//! [`ClockMode::Icount`] counts retired instructions, `1 << shift` nanoseconds each, so that a run is repeatable bit
//! for bit given the same inputs. Deliberately absent: any wall-clock date, which enters only through the RTC's base.
//!
//! A host that has better things to do keeps the machine's thread from running, for tens of milliseconds at a time when it is crowded. To a
//! guest that sees time go on meanwhile, its timer has lost ticks: Linux, which counts ten of them when it starts, panics. So real time
//! that passes between two looks at the clock counts for [`LARGEST_STEP`] at most, and the rest is made up for later, by a clock
//! that is a little fast while the guest works, and at most twice as fast while it sleeps.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Time-stamp counter ticks in a second of virtual time.
pub const TSC_HZ: u64 = 1_000_000_000;

/// What virtual time advances at most between two looks at a real-time clock, in nanoseconds, unless the machine sleeps. Looks are much
/// less than a millisecond apart while its thread runs.
pub const LARGEST_STEP: u64 = 5_000_000;
/// While the guest works, what was missed is made up for by this fraction of the time that passes.
const CATCH_UP: u64 = 8;

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
    /// Realtime: virtual time when somebody last looked. Icount: time skipped while halted.
    base: u64,
    /// Realtime: when somebody last looked, while it runs.
    looked: Option<std::time::Instant>,
    /// Realtime: what it still has to make up for.
    behind: u64,
    /// Realtime: the machine sleeps until then, so that time may pass unseen.
    asleep_until: Option<Instant>,
    instructions: u64,
}

impl Clock {
    /// A stopped clock at [`Instant::ZERO`].
    pub fn new(mode: ClockMode) -> Clock {
        Clock { mode, base: 0, looked: None, behind: 0, asleep_until: None, instructions: 0 }
    }

    /// How this clock advances.
    pub fn mode(&self) -> ClockMode {
        self.mode
    }

    /// Lets a real-time clock run. A deterministic clock runs with its instructions alone.
    pub fn resume(&mut self) {
        if self.mode == ClockMode::Realtime && self.looked.is_none() {
            self.looked = Some(std::time::Instant::now());
        }
    }

    /// Stops a real-time clock where it is.
    pub fn pause(&mut self) {
        self.look();
        self.looked = None;
    }

    /// Real time: lets the time count that has passed since the last look.
    fn look(&mut self) {
        if let Some(looked) = &mut self.looked {
            let now = std::time::Instant::now();
            let elapsed = now.duration_since(*looked).as_nanos() as u64;
            *looked = now;
            self.pass(elapsed);
        }
    }

    fn pass(&mut self, elapsed: u64) {
        let (from, speed_up) = match self.asleep_until {
            Some(at) => (at.0.max(self.base), elapsed),
            None => (self.base, elapsed.min(LARGEST_STEP) / CATCH_UP),
        };
        let due = self.base.saturating_add(elapsed).saturating_add(self.behind);
        let wanted = due - self.behind.saturating_sub(speed_up);
        let now = wanted.min(from.saturating_add(LARGEST_STEP));
        (self.base, self.behind) = (now, due - now);
    }

    /// The machine sleeps until `deadline`, or until it is woken, and calls [`Clock::wake`] then. How long it has to sleep.
    pub fn sleep(&mut self, deadline: Instant) -> Duration {
        self.asleep_until = Some(deadline);
        let left = deadline.nanos_since(self.now());
        Duration::from_nanos(left - self.behind.min(left / 2))
    }

    /// The machine does not sleep any more.
    pub fn wake(&mut self) {
        self.look();
        self.asleep_until = None;
    }

    /// Virtual time when `pending` instructions have retired beyond those already fed to [`Clock::retire`].
    #[inline]
    pub fn now_after(&mut self, pending: u64) -> Instant {
        match self.mode {
            ClockMode::Realtime => {
                self.look();
                Instant(self.base)
            }
            ClockMode::Icount { shift } => Instant(self.base + ((self.instructions + pending) << shift)),
        }
    }

    /// Virtual time now.
    pub fn now(&mut self) -> Instant {
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

    #[test]
    fn realtime_clock_that_nobody_could_look_at_makes_up_for_it_without_a_jump() {
        let mut clock = Clock::new(ClockMode::Realtime);
        clock.pass(1_000_000);
        assert_eq!(clock.now(), Instant(1_000_000));
        // The thread has been kept from running for 45 ms.
        clock.pass(45_000_000);
        assert_eq!((clock.base, clock.behind), (6_000_000, 40_000_000));
        // A little fast while the guest works, ...
        clock.pass(800_000);
        assert_eq!((clock.base, clock.behind), (6_900_000, 39_900_000));
        // ... and twice as fast while it sleeps, which may be as long as it wants.
        assert_eq!(clock.sleep(Instant(26_900_000)), Duration::from_millis(10));
        clock.pass(10_000_000);
        clock.wake();
        assert_eq!((clock.base, clock.behind), (26_900_000, 29_900_000));
        // Who sleeps past the deadline does not see that either.
        assert_eq!(clock.sleep(Instant(126_900_000)), Duration::from_nanos(70_100_000));
        clock.pass(200_000_000);
        clock.wake();
        assert_eq!((clock.base, clock.behind), (131_900_000, 124_900_000));
    }
}
