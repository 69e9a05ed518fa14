//! `emu dev stats`: what the processor did during a run.

use super::configuration;
use crate::cli::error::StartError;
use crate::run;
use clap::Args;
use emu_core::exec::Vcpu;
use emu_devices::board::machine::Machine;
use emu_devices::board::pc::PcError;
use std::ffi::OsString;
use std::fmt::Write;

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
        ("regions compiled", stats.regions),
        ("instructions compiled", stats.compiled),
        ("microseconds of compiling", stats.compile_micros),
        ("bytes of compiled code", stats.region_bytes),
        ("entries into regions", stats.regions_entered),
        ("regions left for one step", stats.region_steps),
    ] {
        let per_thousand = count as f64 * 1000.0 / instructions.max(1) as f64;
        let _ = writeln!(text, "{name:<27}{count:>16}   {per_thousand:>10.3} per 1000 instructions");
    }
    text
}
