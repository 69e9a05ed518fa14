//! The table of the side-by-side benchmark: medians, spreads, ratios, geometric means.

use std::fmt::Write;
use std::time::Duration;

use crate::machine::{Machine, Run};

/// The runs of one machine.
pub struct Results {
    pub machine: Machine,
    pub runs: Vec<Run>,
}

/// The median of several measurements and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    pub median: f64,
    /// (largest - smallest) / median.
    pub spread: f64,
}

impl Measured {
    /// `None` without values.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (first, last) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Self { median, spread: (last - first) / median })
    }
}

impl Results {
    fn times_ms(&self, name: &str) -> Option<Measured> {
        let of_run =
            |run: &Run| run.timings.iter().find(|timing| timing.name == name).map(|timing| ms(timing.duration));
        Measured::of(self.runs.iter().filter_map(of_run).collect())
    }
}

/// The table. The first machine is the one that the others are compared with: a ratio of 2 means that it is twice as fast as
/// the other.
pub fn table(results: &[Results]) -> String {
    let mut text = String::new();
    let Some((first, others)) = results.split_first() else { return text };
    let names = names(results);

    let mut line = format!("{:30}", "");
    for result in results {
        let _ = write!(line, "{:>20}", format!("{} ms (spread)", result.machine.name()));
    }
    for other in others {
        let _ = write!(line, "{:>14}", ratio_title(first, other));
    }
    let _ = writeln!(text, "{line}");

    let mut row = |title: &str, values: &[Option<Measured>]| {
        let mut line = format!("{title:30}");
        for value in values {
            let cell = value.map_or("-".to_owned(), |v| format!("{:.1} ({:2.0} %)", v.median, v.spread * 100.0));
            let _ = write!(line, "{cell:>20}");
        }
        for value in &values[1..] {
            let ratio = values[0].zip(*value).map(|(own, other)| other.median / own.median);
            let _ = write!(line, "{:>14}", ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}")));
        }
        let _ = writeln!(text, "{}", line.trim_end());
    };
    let boots = |result: &Results| Measured::of(result.runs.iter().map(|run| ms(run.boot)).collect());
    row("boot to user space", &results.iter().map(boots).collect::<Vec<_>>());
    for name in &names {
        row(name, &results.iter().map(|result| result.times_ms(name)).collect::<Vec<_>>());
    }

    let _ = writeln!(text, "\ngeometric mean by group");
    let mut groups: Vec<&str> = names.iter().map(|name| group(name)).collect();
    groups.dedup();
    for of_group in groups {
        let mut line = format!("{of_group:30}");
        for other in others {
            let ratios = names.iter().filter(|name| group(name) == of_group).filter_map(|name| {
                first.times_ms(name).zip(other.times_ms(name)).map(|(own, other)| other.median / own.median)
            });
            let cell = geometric_mean(ratios).map_or("-".to_owned(), |mean| format!("{mean:.2}"));
            let _ = write!(line, "{:>14}{cell:>8}", ratio_title(first, other));
        }
        let _ = writeln!(text, "{line}");
    }

    let _ = writeln!(text, "\npeak resident memory (512 MiB guest)");
    for result in results {
        let peak = result.runs.iter().map(|run| run.peak_rss_kib).max().unwrap_or(0);
        let _ = writeln!(text, "{:30}{:>10.1} MiB", result.machine.name(), peak as f64 / 1024.0);
    }
    text
}

/// Benchmarks whose checksum differs between two runs, with the differing sums: an error in one of the machines.
pub fn disagreements(results: &[Results]) -> Vec<String> {
    let mut lines = Vec::new();
    for name in names(results) {
        let mut sums: Vec<(String, &str)> = results
            .iter()
            .flat_map(|result| result.runs.iter().map(move |run| (result.machine.name(), run)))
            .filter_map(|(machine, run)| {
                run.timings.iter().find(|timing| timing.name == name).map(|timing| (timing.checksum.clone(), machine))
            })
            .collect();
        sums.sort();
        sums.dedup();
        if sums.iter().any(|(sum, _)| *sum != sums[0].0) {
            let each: Vec<String> = sums.iter().map(|(sum, machine)| format!("{machine} {sum}")).collect();
            lines.push(format!("{name}: {}", each.join(", ")));
        }
    }
    lines
}

/// The names of all benchmarks, in the order in which they ran.
fn names(results: &[Results]) -> Vec<String> {
    let run = results.iter().flat_map(|result| &result.runs).max_by_key(|run| run.timings.len());
    run.map(|run| run.timings.iter().map(|timing| timing.name.clone()).collect()).unwrap_or_default()
}

fn group(name: &str) -> &str {
    name.split_once('/').map_or(name, |(group, _)| group)
}

fn ratio_title(first: &Results, other: &Results) -> String {
    format!("{}/{}", other.machine.name(), first.machine.name())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn geometric_mean(ratios: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut logarithms, mut count) = (0.0, 0);
    for ratio in ratios {
        logarithms += ratio.ln();
        count += 1;
    }
    (count > 0).then(|| (logarithms / f64::from(count)).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Timing;

    fn results(machine: Machine, times: &[u64], checksum: &str) -> Results {
        let run = |time: &u64| Run {
            boot: Duration::from_millis(100),
            timings: vec![Timing {
                name: "integer/sieve".to_owned(),
                duration: Duration::from_millis(*time),
                checksum: checksum.to_owned(),
            }],
            peak_rss_kib: 2048,
        };
        Results { machine, runs: times.iter().map(run).collect() }
    }

    #[test]
    fn measured_median_and_spread_are_those_of_the_sorted_values() {
        assert_eq!(Measured::of(vec![4.0, 1.0, 2.0]), Some(Measured { median: 2.0, spread: 1.5 }));
        assert_eq!(Measured::of(vec![3.0, 1.0]), Some(Measured { median: 2.0, spread: 1.0 }));
        assert_eq!(Measured::of(vec![]), None);
    }

    #[test]
    fn table_ratio_says_how_much_faster_the_first_machine_is() {
        let text = table(&[results(Machine::Emu, &[10, 12, 11], "a"), results(Machine::Bochs, &[22], "a")]);
        let row = text.lines().find(|line| line.starts_with("integer/sieve")).unwrap();
        assert!(row.contains("11.0 (18 %)") && row.ends_with("2.00"), "{text}");
    }

    #[test]
    fn disagreements_name_the_benchmark_and_the_machines() {
        let same = [results(Machine::Emu, &[1], "aa"), results(Machine::Qemu, &[1], "aa")];
        assert!(disagreements(&same).is_empty());
        let different = [results(Machine::Emu, &[1], "aa"), results(Machine::Qemu, &[1], "bb")];
        assert_eq!(disagreements(&different), ["integer/sieve: emu aa, qemu bb"]);
    }
}
