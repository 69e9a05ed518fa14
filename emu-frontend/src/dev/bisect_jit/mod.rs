//! `emu dev bisect-jit`: the interpreter against compiled code, from the same start, in deterministic time; a difference is
//! traced to a region and an instruction in it.
//!
//! Registers are compared at checkpoints, memory too at the end and for the search, which runs the guest some dozens of
//! times as far as the difference. Code is compiled while the guest waits, so that all runs are alike. Deliberately absent:
//! what compiling in the background may do wrong, and devices' registers, whose differences show in the guest sooner or later.

mod filter;
mod search;
#[cfg(test)]
mod tests;

use super::disasm::assembly;
use super::lockstep::{advance, power_on, repeatable};
use super::number;
use crate::cli::config::Config;
use crate::cli::error::StartError;
use crate::cli::machine::Engine;
use crate::run::read_images;
use crate::{machine, report};
use clap::Args;
use emu_core::exec::Vcpu;
use emu_core::exec::region::Compiler;
use emu_devices::board::machine::Machine;
use emu_devices::board::pc::PcError;
use emu_jit::Immediate;
use iced_x86::{Decoder, DecoderOptions};
use search::{Culprit, Guest, Search, Verdict};
use std::ffi::OsString;
use std::fmt::Write;

/// What to run and how far.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Stop after this many instructions
    #[arg(long, default_value = "100000000", value_parser = number)]
    instructions: u64,
    /// Compare each time that this many have run
    #[arg(long, default_value = "1000000", value_parser = number)]
    every: u64,
    /// Compile blocks that have run this often, unless the options say -accel jit,stress=...
    #[arg(long, default_value = "1000", value_parser = number)]
    threshold: u64,
    /// The emulator's ordinary options; character devices are replaced by null
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "OPTIONS")]
    options: Vec<OsString>,
}

/// How far both agree. What is found goes to stderr, as it is an error.
///
/// # Errors
/// The machine cannot be built. A difference, too, so that scripts see it.
pub fn run(arguments: &Arguments) -> Result<String, StartError> {
    let config = repeatable(&arguments.options)?;
    let images = read_images(&config.boot, config.memory)?;
    let guest = || -> Result<Box<dyn Guest + '_>, StartError> {
        Ok(Box::new(Whole { config: &config, machine: power_on(&config, &images)? }))
    };
    let threshold = arguments.threshold.clamp(1, u64::from(u32::MAX)) as u32;
    let search = Search {
        guest: &guest,
        compiler: &|| compiler(&config, threshold),
        every: arguments.every.max(1),
        progress: &|text| report::complain(text),
    };
    match search.run(arguments.instructions)? {
        Verdict::Agree { instructions, regions } => Ok(format!(
            "interpreter and compiled code agree for {instructions} instructions, {regions} regions compiled\n"
        )),
        Verdict::Unclear(problem) => Err(StartError::Other(problem)),
        Verdict::Parted(culprit) => {
            report::print_error(&listing(&culprit));
            Err(StartError::Other(summary(&culprit)))
        }
    }
}

fn compiler(config: &Config, threshold: u32) -> Result<Box<dyn Compiler>, StartError> {
    if config.engine == Engine::Compiler
        && config.stress.is_some()
        && let Some(compiler) = machine::compiler(config)?
    {
        return Ok(compiler);
    }
    match Immediate::with_capacity(threshold, config.code_size) {
        Ok(compiler) => Ok(Box::new(compiler)),
        Err(problem) => Err(StartError::Other(format!("dev: {problem}"))),
    }
}

/// A whole machine.
struct Whole<'a> {
    config: &'a Config,
    machine: Machine<Vcpu, PcError>,
}

impl Guest for Whole<'_> {
    fn cpu(&mut self) -> &mut Vcpu {
        self.machine.processor()
    }

    fn retired(&mut self) -> u64 {
        self.machine.bus().clock(|clock| clock.instructions())
    }

    fn advance(&mut self, target: u64) -> Result<bool, StartError> {
        advance(&mut self.machine, target).map_err(|error| machine::refusal(self.config, error))
    }
}

/// The address and text of instruction `insn` of block `block`.
fn instruction(culprit: &Culprit, block: usize, insn: usize) -> (u64, String) {
    let (region, block) = (&culprit.region, &culprit.region.blocks[block]);
    let insn = &block.insns[insn];
    let at = region.rip.wrapping_add_signed(block.delta).wrapping_add(u64::from(insn.block_offset));
    let mut decoder = Decoder::with_ip(u32::from(insn.code_bits), &block.bytes[insn.range()], at, DecoderOptions::NONE);
    (at, assembly(&decoder.decode()))
}

/// One line for the user.
fn summary(culprit: &Culprit) -> String {
    let mut text = match culprit.place {
        Some((block, insn)) => {
            let (at, assembly) = instruction(culprit, block, insn);
            format!("compiled code differs at {at:#x} '{assembly}', ")
        }
        None => "compiled code differs, not where it has just run, ".into(),
    };
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "region {} at {:#x}, after {} instructions: {}",
        culprit.number, culprit.region.rip, culprit.instructions, culprit.difference
    );
    text
}

/// The region's guest code, with a mark at the instruction that is to blame.
fn listing(culprit: &Culprit) -> String {
    let mut text = String::new();
    for (block, source) in culprit.region.blocks.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "block {block}");
        for insn in 0..source.insns.len() {
            let (at, assembly) = instruction(culprit, block, insn);
            let mark = if culprit.place == Some((block, insn)) { '>' } else { ' ' };
            let _ = writeln!(text, "{mark} {at:#x}  {assembly}");
        }
    }
    text
}
