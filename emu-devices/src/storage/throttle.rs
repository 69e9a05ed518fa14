//! Limits of a drive's rate: leaky buckets, one for each of bytes and operations, of reads, writes, and both.
//!
//! A bucket fills by what is done and leaks by its average rate. While it is fuller than it may be, nothing more is let
//! through. A rate without a burst may run ahead by a tenth of a second. With a burst, the bucket holds the burst's
//! rate for the burst's length, and a second one keeps the rate below the burst's, by a tenth of a second too. The same
//! model, keys and meaning as QEMU's `throttling.*`.

use std::time::Duration;

/// What a limit is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Reads and writes together.
    Total,
    /// Reads.
    Read,
    /// Writes.
    Write,
}

impl Direction {
    /// All of them, in the order of [`Limits`].
    pub const ALL: [Direction; 3] = [Direction::Total, Direction::Read, Direction::Write];
}

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Per second in the long run; 0: none.
    pub average: u64,
    /// Per second in a burst; 0: none.
    pub burst: u64,
    /// Seconds that a burst lasts, at least 1.
    pub burst_length: u64,
}

impl Default for Limit {
    fn default() -> Limit {
        Limit { average: 0, burst: 0, burst_length: 1 }
    }
}

/// A drive's limits, each in the order of [`Direction::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes.
    pub bytes: [Limit; 3],
    /// Operations.
    pub operations: [Limit; 3],
    /// Bytes that count as one operation; 0: every request is one.
    pub operation_size: u64,
}

impl Limits {
    /// Why these limits make no sense together, in QEMU's words.
    pub fn problem(&self) -> Option<&'static str> {
        for set in [&self.bytes, &self.operations] {
            if set[0].average > 0 && set[1..].iter().any(|limit| limit.average > 0)
                || set[0].burst > 0 && set[1..].iter().any(|limit| limit.burst > 0)
            {
                return Some("bps/iops/max total values and read/write values cannot be used at the same time");
            }
            for limit in set {
                if limit.burst > 0 && limit.average == 0 {
                    return Some("bps_max/iops_max require corresponding bps/iops values");
                }
                if limit.burst_length == 0 {
                    return Some("the burst length cannot be 0");
                }
                if limit.burst_length > 1 && limit.burst == 0 {
                    return Some("burst length set without burst rate");
                }
                if limit.burst > 0 && limit.burst < limit.average {
                    return Some("bps_max/iops_max cannot be lower than bps/iops");
                }
                if limit.burst.max(limit.average) > 1_000_000_000_000_000 {
                    return Some("bps/iops/max values must be within [0, 1000000000000000]");
                }
            }
        }
        None
    }

    fn all(&self) -> [Limit; 6] {
        let ([a, b, c], [d, e, f]) = (self.bytes, self.operations);
        [a, b, c, d, e, f]
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    level: f64,
    burst_level: f64,
}

/// The buckets of a drive's limits.
#[derive(Clone, Debug, Default)]
pub struct Throttle {
    limits: Limits,
    buckets: [Bucket; 6],
    /// When they leaked last.
    last: Duration,
}

impl Throttle {
    /// Sets new limits; the buckets are empty.
    pub fn set(&mut self, limits: Limits) {
        *self = Throttle { limits, buckets: Default::default(), last: self.last };
    }

    /// The limits.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Lets `bytes` through at `now`, or tells how long they have to wait before they ask again.
    ///
    /// # Errors
    /// The time to wait.
    pub fn admit(&mut self, now: Duration, direction: Direction, bytes: u64) -> Result<(), Duration> {
        let elapsed = now.saturating_sub(self.last).as_secs_f64();
        self.last = self.last.max(now);
        let operations = match self.limits.operation_size {
            0 => 1,
            size => bytes.div_ceil(size).max(1),
        };
        let mut wait = 0f64;
        let limits = self.limits.all();
        for (bucket, limit) in self.buckets.iter_mut().zip(&limits) {
            bucket.level = (bucket.level - limit.average as f64 * elapsed).max(0.0);
            bucket.burst_level = (bucket.burst_level - limit.burst as f64 * elapsed).max(0.0);
        }
        let concerned =
            |i: usize| matches!(Direction::ALL[i % 3], Direction::Total) || Direction::ALL[i % 3] == direction;
        for (i, (bucket, limit)) in self.buckets.iter().zip(&limits).enumerate() {
            if limit.average == 0 || !concerned(i) {
                continue;
            }
            let (average, burst) = (limit.average as f64, limit.burst as f64);
            let size = if limit.burst == 0 { average / 10.0 } else { burst * limit.burst_length as f64 };
            wait = wait.max((bucket.level - size) / average);
            if limit.burst > 0 && limit.burst_length > 1 {
                wait = wait.max((bucket.burst_level - burst / 10.0) / burst);
            }
        }
        if wait > 0.0 {
            // At least what a clock tells apart; at most what a changed limit may wait for.
            return Err(Duration::from_secs_f64(wait.clamp(1e-6, 3600.0)));
        }
        for (i, bucket) in self.buckets.iter_mut().enumerate().filter(|(i, _)| concerned(*i)) {
            let units = if i < 3 { bytes } else { operations } as f64;
            bucket.level += units;
            bucket.burst_level += units;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Units let through in `seconds`, when somebody always asks for `bytes`.
    fn run(limits: Limits, direction: Direction, bytes: u64, seconds: u64) -> u64 {
        assert_eq!(limits.problem(), None);
        let mut throttle = Throttle::default();
        throttle.set(limits);
        let (mut now, mut count) = (Duration::from_secs(5), 0);
        while now < Duration::from_secs(5 + seconds) {
            match throttle.admit(now, direction, bytes) {
                Ok(()) => count += 1,
                Err(wait) => now += wait,
            }
        }
        count
    }

    fn limit(average: u64, burst: u64, burst_length: u64) -> Limit {
        Limit { average, burst, burst_length }
    }

    #[test]
    fn rates_hold_in_the_long_run() {
        let bytes = Limits { bytes: [limit(1 << 20, 0, 1), Limit::default(), Limit::default()], ..Limits::default() };
        let n = run(bytes, Direction::Read, 4096, 10);
        assert!((2560..2620).contains(&n), "{n}");
        let operations =
            Limits { operations: [Limit::default(), limit(100, 0, 1), Limit::default()], ..Limits::default() };
        let n = run(operations, Direction::Read, 1 << 20, 10);
        assert!((1000..1020).contains(&n), "{n}");
        let sized = Limits { operation_size: 4096, ..operations };
        let n = run(sized, Direction::Read, 8192, 10);
        assert!((500..515).contains(&n), "{n}");
    }

    #[test]
    fn limit_of_reads_does_not_hold_writes_up() {
        let reads = Limits { operations: [Limit::default(), limit(1, 0, 1), Limit::default()], ..Limits::default() };
        let mut throttle = Throttle::default();
        throttle.set(reads);
        for _ in 0..1000 {
            throttle.admit(Duration::from_secs(1), Direction::Write, 512).unwrap();
        }
        throttle.admit(Duration::from_secs(1), Direction::Read, 512).unwrap();
        assert!(throttle.admit(Duration::from_secs(1), Direction::Read, 512).is_err());
    }

    #[test]
    fn burst_lasts_as_long_as_it_may() {
        let burst =
            Limits { operations: [limit(100, 1000, 3), Limit::default(), Limit::default()], ..Limits::default() };
        // Three seconds and a bit at 1000, then 100 for each second.
        let n = run(burst, Direction::Write, 512, 3);
        assert!((2950..3150).contains(&n), "{n}");
        let n = run(burst, Direction::Write, 512, 20);
        assert!((4700..5300).contains(&n), "{n}");
    }

    #[test]
    fn contradictory_limits_are_refused() {
        let both = [limit(1, 0, 1), limit(1, 0, 1), Limit::default()];
        assert!(Limits { bytes: both, ..Limits::default() }.problem().is_some());
        for wrong in [limit(0, 5, 1), limit(10, 5, 1), limit(10, 0, 4), limit(1, 1, 0)] {
            let limits = Limits { operations: [wrong, Limit::default(), Limit::default()], ..Limits::default() };
            assert!(limits.problem().is_some(), "{wrong:?}");
        }
    }
}
