//! Rate and burst limits of a NIC, under the names that QEMU's `throttling.*` has for disks.
//!
//! `bps` counts bytes of frames, `iops` frames; `read` is towards the guest, `write` from it, `total` both. Each limit is a leaky
//! bucket: it drains at the average rate and holds a tenth of a second's worth. With a maximum beside the average, it holds what passes
//! at that maximum for `-max-length` seconds, and a second bucket keeps bursts below the maximum.

use std::time::{Duration, Instant};

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the guest.
    Read,
    /// From the guest.
    Write,
}

/// One limit, in units per second; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// In the long run.
    pub average: u64,
    /// In a burst.
    pub max: u64,
    /// Seconds that a burst may last; 0 is 1.
    pub max_length: u64,
}

/// All limits of one NIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes: total, read, write.
    pub bps: [Rate; 3],
    /// Frames: total, read, write.
    pub iops: [Rate; 3],
    /// Bytes that count as one frame, for longer ones; 0: every frame is one.
    pub iops_size: u64,
}

/// The names of all limits, as they follow `throttling.`.
pub const NAMES: [&str; 19] = [
    "bps-total",
    "bps-read",
    "bps-write",
    "iops-total",
    "iops-read",
    "iops-write",
    "bps-total-max",
    "bps-read-max",
    "bps-write-max",
    "iops-total-max",
    "iops-read-max",
    "iops-write-max",
    "bps-total-max-length",
    "bps-read-max-length",
    "bps-write-max-length",
    "iops-total-max-length",
    "iops-read-max-length",
    "iops-write-max-length",
    "iops-size",
];

/// The largest value of a limit, as QEMU has it.
pub const LARGEST: u64 = 1_000_000_000_000_000;

impl Limits {
    /// Sets the limit called `name`, of [`NAMES`].
    ///
    /// # Errors
    /// There is no such limit, or it cannot be that large.
    pub fn set(&mut self, name: &str, value: u64) -> Result<(), String> {
        if value > LARGEST {
            return Err(format!("'{name}={value}' is not a number from 0 to {LARGEST}"));
        }
        if name == "iops-size" {
            self.iops_size = value;
            return Ok(());
        }
        let unknown = || format!("no limit '{name}'");
        let (unit, rest) = name.split_once('-').ok_or_else(unknown)?;
        let (which, part) = rest.split_once('-').unwrap_or((rest, ""));
        let rates = match unit {
            "bps" => &mut self.bps,
            "iops" => &mut self.iops,
            _ => return Err(unknown()),
        };
        let rate = match which {
            "total" => &mut rates[0],
            "read" => &mut rates[1],
            "write" => &mut rates[2],
            _ => return Err(unknown()),
        };
        match part {
            "" => rate.average = value,
            "max" => rate.max = value,
            "max-length" => rate.max_length = value,
            _ => return Err(unknown()),
        }
        Ok(())
    }

    /// Whether the limits go together.
    ///
    /// # Errors
    /// QEMU's words.
    pub fn check(&self) -> Result<(), String> {
        for rates in [&self.bps, &self.iops] {
            if rates[0].average != 0 && rates[1..].iter().any(|r| r.average != 0)
                || rates[0].max != 0 && rates[1..].iter().any(|r| r.max != 0)
            {
                return Err("bps/iops/max total values and read/write values cannot be used at the same time".into());
            }
            for rate in rates {
                match rate {
                    Rate { average: 0, max: 1.., .. } => {
                        return Err("bps_max/iops_max require corresponding bps/iops values".into());
                    }
                    Rate { max: 0, max_length: 2.., .. } => {
                        return Err("burst length set without burst rate".into());
                    }
                    Rate { average, max: max @ 1.., .. } if max < average => {
                        return Err("bps_max/iops_max cannot be lower than bps/iops".into());
                    }
                    _ => {}
                }
            }
        }
        match self.iops_size != 0 && self.iops.iter().all(|r| r.average == 0) {
            true => Err("iops size requires an iops value to be set".into()),
            false => Ok(()),
        }
    }

    /// The limits that there are, `bps-read=1000` and so on; empty without any.
    pub fn show(&self) -> String {
        let mut words = Vec::new();
        for (unit, rates) in [("bps", &self.bps), ("iops", &self.iops)] {
            for (which, rate) in ["total", "read", "write"].iter().zip(rates) {
                for (part, value) in [("", rate.average), ("-max", rate.max), ("-max-length", rate.max_length)] {
                    if value != 0 {
                        words.push(format!("{unit}-{which}{part}={value}"));
                    }
                }
            }
        }
        if self.iops_size != 0 {
            words.push(format!("iops-size={}", self.iops_size));
        }
        words.join(",")
    }
}

/// What has passed of late.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    level: f64,
    burst: f64,
}

impl Bucket {
    fn leak(&mut self, rate: &Rate, seconds: f64) {
        self.level = (self.level - rate.average as f64 * seconds).max(0.0);
        self.burst = (self.burst - rate.max as f64 * seconds).max(0.0);
    }

    /// Seconds until something may pass.
    fn wait(&self, rate: &Rate) -> f64 {
        if rate.average == 0 {
            return 0.0;
        }
        let average = rate.average as f64;
        if rate.max == 0 {
            return (self.level - average / 10.0).max(0.0) / average;
        }
        let max = rate.max as f64;
        let level = (self.level - max * rate.max_length.max(1) as f64).max(0.0) / average;
        level.max((self.burst - max / 10.0).max(0.0) / max)
    }
}

/// Limits, and how much of them is used up.
#[derive(Debug)]
pub struct Throttle {
    limits: Limits,
    off: bool,
    bps: [Bucket; 3],
    iops: [Bucket; 3],
    leaked: Option<Instant>,
}

impl Throttle {
    /// Nothing has passed yet.
    pub fn new(limits: Limits) -> Throttle {
        let off = limits.bps.iter().chain(&limits.iops).all(|rate| rate.average == 0);
        Throttle { limits, off, bps: Default::default(), iops: Default::default(), leaked: None }
    }

    /// Whether there are no limits.
    pub fn is_off(&self) -> bool {
        self.off
    }

    /// Until when nothing may pass; `None`: something may now.
    pub fn wait(&mut self, direction: Direction, now: Instant) -> Option<Instant> {
        let seconds = self.leaked.map_or(0.0, |then| now.saturating_duration_since(then).as_secs_f64());
        self.leaked = Some(now);
        let mut wait = 0.0f64;
        for (rates, buckets) in [(&self.limits.bps, &mut self.bps), (&self.limits.iops, &mut self.iops)] {
            for (i, (rate, bucket)) in rates.iter().zip(buckets).enumerate() {
                bucket.leak(rate, seconds);
                if i == 0 || i == index(direction) {
                    wait = wait.max(bucket.wait(rate));
                }
            }
        }
        // Rounded up, or a sleeper would find that it has come too early.
        (wait > 0.0).then(|| now + Duration::from_secs_f64(wait.min(3600.0)) + Duration::from_micros(100))
    }

    /// A frame of `bytes` has passed; none, if it has no bytes.
    pub fn count(&mut self, direction: Direction, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let frames = match self.limits.iops_size {
            0 => 1.0,
            size => (bytes as f64 / size as f64).max(1.0),
        };
        for i in [0, index(direction)] {
            self.bps[i].level += bytes as f64;
            self.bps[i].burst += bytes as f64;
            self.iops[i].level += frames;
            self.iops[i].burst += frames;
        }
    }
}

fn index(direction: Direction) -> usize {
    match direction {
        Direction::Read => 1,
        Direction::Write => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(values: &[(&str, u64)]) -> Limits {
        let mut limits = Limits::default();
        values.iter().for_each(|(name, value)| limits.set(name, *value).unwrap());
        limits
    }

    /// Bytes that pass in `seconds` in frames of 1000.
    fn passed(limits: Limits, direction: Direction, seconds: f64) -> usize {
        let mut throttle = Throttle::new(limits);
        let start = Instant::now();
        let (mut now, mut bytes) = (start, 0);
        while now < start + Duration::from_secs_f64(seconds) {
            match throttle.wait(direction, now) {
                Some(when) => now = when,
                None => {
                    throttle.count(direction, 1000);
                    bytes += 1000;
                }
            }
        }
        bytes
    }

    #[test]
    fn average_holds_in_the_long_run_in_its_direction_only() {
        let write = limits(&[("bps-write", 100_000)]);
        let bytes = passed(write, Direction::Write, 20.0);
        assert!((1_990_000..=2_020_000).contains(&bytes), "{bytes}");
        assert_eq!(Throttle::new(write).wait(Direction::Read, Instant::now()), None);
        let bytes = passed(limits(&[("iops-total", 50)]), Direction::Read, 20.0);
        assert!((990_000..=1_010_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn burst_lasts_as_long_as_it_may() {
        let burst = limits(&[("bps-read", 10_000), ("bps-read-max", 100_000), ("bps-read-max-length", 3)]);
        let bytes = passed(burst, Direction::Read, 3.0);
        assert!((290_000..=330_000).contains(&bytes), "{bytes}");
        let bytes = passed(burst, Direction::Read, 100.0);
        assert!((1_250_000..=1_350_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn all_names_are_known_and_wrong_combinations_refused() {
        for name in NAMES {
            Limits::default().set(name, 1).unwrap();
        }
        assert!(Limits::default().set("bps-both", 1).is_err() && Limits::default().set("bps-read", u64::MAX).is_err());
        for wrong in [
            limits(&[("bps-total", 1), ("bps-read", 1)]),
            limits(&[("bps-read-max", 1)]),
            limits(&[("bps-read", 2), ("bps-read-max", 1)]),
            limits(&[("bps-read", 2), ("bps-read-max-length", 2)]),
            limits(&[("iops-size", 2)]),
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
        let right = limits(&[("bps-read", 2), ("bps-read-max", 4), ("iops-write", 3)]);
        right.check().unwrap();
        assert_eq!(right.show(), "bps-read=2,bps-read-max=4,iops-write=3");
    }
}
