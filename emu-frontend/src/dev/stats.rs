//! `emu dev stats`: what the processor did during a run.

use super::configuration;
use crate::cli::error::StartError;
use crate::run;
use clap::Args;
use emu_core::exec::region::exit;
use emu_core::exec::{SAMPLED, Stats, Vcpu};
use emu_devices::board::machine::Machine;
use emu_devices::board::pc::PcError;
use std::ffi::OsString;
use std::fmt::Write;

/// Instructions that are named at most.
const SHOWN: usize = 15;

/// What to run.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The emulator's ordinary options
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "OPTIONS")]
    options: Vec<OsString>,
}

/// Runs the machine, which ends the process.
///
/// # Errors
/// As an ordinary start.
pub fn run(arguments: &Arguments, process: &[OsString]) -> Result<String, StartError> {
    let mut config = configuration(&arguments.options)?;
    config.stats = true;
    run::run(config, process)
}

/// The counters of a machine, one a line.
pub fn show(machine: &mut Machine<Vcpu, PcError>) -> String {
    let (instructions, nanos) = machine.bus().clock(|clock| (clock.instructions(), clock.now().nanos()));
    let stats = machine.processor().stats.clone();
    let seconds = nanos as f64 / 1e9;
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "instructions executed      {instructions:>16}");
    let _ = writeln!(text, "virtual seconds            {seconds:>16.3}");
    let _ = writeln!(text, "million a virtual second   {:>16.1}", instructions as f64 / 1e6 / seconds.max(1e-9));
    for (name, count) in [
        ("blocks decoded", stats.blocks),
        ("instructions decoded", stats.decoded),
        ("stores to decoded code", stats.invalidations),
        ("blocks refreshed", stats.revived),
        ("returns to the dispatcher", stats.leaves),
        ("single steps", stats.steps),
        ("without a handler", stats.slow),
        ("exceptions, interrupts", stats.delivered),
        ("TLB misses", stats.tlb_misses),
    ] {
        let per_thousand = count as f64 * 1000.0 / instructions.max(1) as f64;
        let _ = writeln!(text, "{name:<27}{count:>16}   {per_thousand:>10.3} per 1000 instructions");
    }
    text + &tiers(machine) + &without_handler(&stats)
}

/// The instructions that were most often executed without a handler of their own.
fn without_handler(stats: &Stats) -> String {
    let mut counts: Vec<_> = stats.slow_sample.iter().collect();
    counts.sort_by_key(|(code, count)| (std::cmp::Reverse(**count), **code));
    let all = stats.slow_sample.values().sum::<u64>().max(1);
    let mut text = String::from("without a handler, by a sample\n");
    for (code, count) in counts.into_iter().take(SHOWN) {
        let name = format!("{code:?}").to_lowercase();
        let share = *count as f64 * 100.0 / all as f64;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<25}{:>16}   {share:>10.3} %", count * SAMPLED);
    }
    text
}

/// What executes how much, and what compiled code costs; also what the monitor's `info jit` prints.
pub fn tiers(machine: &mut Machine<Vcpu, PcError>) -> String {
    let instructions = machine.bus().clock(|clock| clock.instructions());
    let processor = machine.processor();
    let Some((regions, bytes, capacity)) = processor.compiled_code() else {
        return "compiled code: none; the interpreter executes everything\n".into();
    };
    let stats = &processor.stats;
    let percent = |part: u64, whole: u64| part as f64 * 100.0 / whole.max(1) as f64;
    let compiled = stats.region_instructions.min(instructions);
    let mut text = String::new();
    // Writing to a string cannot fail.
    for (name, count) in [("interpreted instructions", instructions - compiled), ("instructions in regions", compiled)]
    {
        let _ = writeln!(text, "{name:<27}{count:>16}   {:>10.3} %", percent(count, instructions));
    }
    let _ = writeln!(text, "regions                    {regions:>16}   {bytes} of {capacity} bytes of code");
    let _ = writeln!(text, "regions compiled           {:>16}   {} bytes of code", stats.regions, stats.region_bytes);
    let per_insn = stats.compile_micros as f64 / stats.compiled.max(1) as f64;
    let _ =
        writeln!(text, "instructions compiled      {:>16}   {per_insn:>10.3} microseconds for each", stats.compiled);
    let _ = writeln!(text, "all given up for room      {:>16}", stats.region_evictions);
    let exits: u64 = stats.region_exits.iter().sum();
    for (name, count) in exit::NAMES.iter().zip(stats.region_exits) {
        let name = format!("left {name}");
        let _ = writeln!(text, "{name:<27}{count:>16}   {:>10.3} %", percent(count, exits));
    }
    text
}
