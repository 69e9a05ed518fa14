//! How fast devices move data, and what that costs the host: the same commands in the same guest under several machines.
//!
//! A guest's program prints one line when it begins and one when it is done; the times are the host's, and so is the processor time of
//! the machine's process in between.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use emu_tests::guest::{Guest, GuestError, Machine, cached};

use crate::report::Measured;

/// One guest takes no longer.
const LIMIT: Duration = Duration::from_secs(900);
/// What the machine's process has used is counted in these (`_SC_CLK_TCK`, which is the same on every Linux).
const TICKS_PER_SECOND: f64 = 100.0;
const MIB: f64 = (1 << 20) as f64;

/// What is measured: a line for the guest's shell.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its title in the table.
    pub name: String,
    /// The line. What it runs prints `D:begin` and `D:end`.
    pub command: String,
    /// What moves.
    pub bytes: u64,
}

/// A guest, and what is measured in it one after the other.
#[derive(Clone, Debug)]
pub struct Case {
    /// The machine's options beside kernel and memory.
    pub options: Vec<String>,
    /// The initramfs, whose shell takes the commands.
    pub initramfs: PathBuf,
    /// A line for the shell that is not measured.
    pub setup: String,
    /// What is measured.
    pub rows: Vec<Row>,
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// MiB per second.
    pub rate: f64,
    /// Seconds of the host's processors per GiB.
    pub cost: f64,
}

/// Runs `case` under emu and QEMU in alternation, so many times each.
///
/// # Errors
/// There is no emu; or as the first guest that does not do what it is told.
pub fn compare(case: &Case, rounds: u32) -> Result<Vec<Pair>, String> {
    let emu = Machine::under_test()?;
    let mut pairs: Vec<Pair> = case.rows.iter().map(|row| (row.name.clone(), Vec::new(), Vec::new())).collect();
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        let of_emu = run(&emu, case).map_err(|error| error.to_string())?;
        let of_qemu = run(&Machine::Qemu, case).map_err(|error| error.to_string())?;
        for (pair, (emu, qemu)) in pairs.iter_mut().zip(of_emu.into_iter().zip(of_qemu)) {
            pair.1.push(emu);
            pair.2.push(qemu);
        }
    }
    Ok(pairs)
}

/// Runs `case` under `machine`: a measurement for each row.
fn run(machine: &Machine, case: &Case) -> Result<Vec<Sample>, GuestError> {
    let mut command = machine.command();
    command.args(["-m", "256", "-append", "console=ttyS0 loglevel=0"]);
    command.arg("-kernel").arg(cached("amd64", "linux")?).arg("-initrd").arg(&case.initramfs).args(&case.options);
    let mut guest = Guest::start(&mut command, LIMIT)?;
    guest.expect("emu# ")?;
    guest.send_line(&case.setup)?;
    case.rows.iter().map(|row| sample(&mut guest, row)).collect()
}

fn sample(guest: &mut Guest, row: &Row) -> Result<Sample, GuestError> {
    guest.expect("emu# ")?;
    guest.send_line(&row.command)?;
    guest.expect("D:begin")?;
    let (begin, before) = (guest.arrival(), processor_time(guest.process_id())?);
    guest.expect("D:")?;
    let (end, after) = (guest.arrival(), processor_time(guest.process_id())?);
    let outcome = guest.expect_line()?;
    if outcome != "end" {
        return Err(GuestError::new(format!("{}: {outcome}", row.name)));
    }
    let mib = row.bytes as f64 / MIB;
    let sample = Sample { rate: mib / (end - begin).as_secs_f64(), cost: (after - before) * 1024.0 / mib };
    eprintln!("  {}: {:.0} MiB/s, {:.2} s of processor time per GiB", row.name, sample.rate, sample.cost);
    Ok(sample)
}

/// Seconds that all threads of `process` have run (proc(5), `utime` and `stime` of `/proc/PID/stat`).
fn processor_time(process: u32) -> Result<f64, GuestError> {
    let path = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(&path).map_err(|error| GuestError::new(format!("{path}: {error}")))?;
    // The name, in parentheses, may have spaces.
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    Ok(ticks.sum::<f64>() / TICKS_PER_SECOND)
}

/// What a row measured: its title, and the samples of emu and of QEMU.
pub type Pair = (String, Vec<Sample>, Vec<Sample>);

/// A table (Markdown) of medians. Ratios above 1 mean that emu is faster, or costs less.
pub fn table(pairs: &[Pair]) -> String {
    let mut text = String::from(
        "| | emu MiB/s | QEMU MiB/s | emu/QEMU | emu CPU s/GiB | QEMU CPU s/GiB | QEMU/emu |\n|---|--:|--:|--:|--:|--:|--:|\n",
    );
    for (name, emu, qemu) in pairs {
        let median = |samples: &[Sample], of: fn(&Sample) -> f64| {
            Measured::of(samples.iter().map(of).collect()).map_or(f64::NAN, |measured| measured.median)
        };
        let rates = [emu, qemu].map(|samples| median(samples, |sample| sample.rate));
        let costs = [emu, qemu].map(|samples| median(samples, |sample| sample.cost));
        let _ = writeln!(
            text,
            "| {name} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} |",
            rates[0],
            rates[1],
            rates[0] / rates[1],
            costs[0],
            costs[1],
            costs[1] / costs[0]
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn processor_time_of_this_process_grows() {
        let own = std::process::id();
        let before = processor_time(own).unwrap();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(200) {
            std::hint::spin_loop();
        }
        assert!(processor_time(own).unwrap() > before);
    }

    #[test]
    fn table_ratios_above_one_are_in_favour_of_emu() {
        let sample = |rate, cost| Sample { rate, cost };
        let emu = vec![sample(200.0, 1.0), sample(220.0, 1.0), sample(100.0, 9.0)];
        let text = table(&[("reads".to_owned(), emu, vec![sample(100.0, 2.0)])]);
        assert!(text.ends_with("| reads | 200 | 100 | 2.00 | 1.00 | 2.00 | 2.00 |\n"), "{text}");
    }
}
