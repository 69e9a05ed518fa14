//! `emu dev`: tools for whoever develops emu or an operating system on it.

mod bisect_jit;
mod block;
mod disasm;
mod lockstep;
mod region;
mod rom;
mod run_case;
pub mod stats;

use crate::cli::config::{self, Config, Outcome};
use crate::cli::error::StartError;
use crate::cli::options::Options;
use clap::{Parser, Subcommand};
use emu_core::bus::Bus;
use emu_core::clock::{Clock, ClockMode};
use emu_core::cpu::model::CpuModel;
use emu_core::exec::Vcpu;
use emu_core::irq::CpuPins;
use emu_core::mem::GuestMemory;
use emu_devices::board::boot_state::BootState;
use emu_devices::board::machine::Processor;
use std::ffi::OsString;
use std::sync::Arc;

#[derive(Debug, Parser)]
#[command(
    name = "emu dev",
    about = "Tools for developers of emu and of operating systems",
    disable_version_flag = true
)]
struct Dev {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Debug, Subcommand)]
enum Tool {
    /// Disassemble a raw file or hexadecimal bytes
    Disasm(disasm::Arguments),
    /// Show how code is decoded into a block: which instructions have a handler of their own
    Block(block::Arguments),
    /// Show the host's code for a region of compiled code, beside the guest's instructions
    Asm(region::Arguments),
    /// Show Cranelift's intermediate code for a region of compiled code, beside the guest's instructions
    Clif(region::Arguments),
    /// Run instruction cases, one to a line: [01 d8] "add eax,ebx" eax=1, ebx=2 => eax=3, cf=0
    RunCase(run_case::Arguments),
    /// Run a guest twice at once, by blocks and by single steps, and tell where the two differ
    Lockstep(lockstep::Arguments),
    /// Run a guest interpreted and compiled, and trace the first difference to a region and an instruction
    BisectJit(bisect_jit::Arguments),
    /// Write the built-in BIOS or VGA BIOS to a file
    Rom(rom::Arguments),
    /// Run a guest with the emulator's ordinary options, and print counters at the end
    Stats(stats::Arguments),
}

/// Runs the tool that `words` (without `emu dev`) name; what it prints on stdout. `arguments`: those of the process.
///
/// # Errors
/// The arguments or the tool's input are wrong.
pub fn run(words: &[OsString], arguments: &[OsString]) -> Result<String, StartError> {
    let words = std::iter::once(OsString::from("emu dev")).chain(words.iter().cloned());
    let dev = match Dev::try_parse_from(words) {
        Ok(dev) => dev,
        Err(error) if !error.use_stderr() => return Ok(error.to_string()),
        Err(error) => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            return Err(StartError::Other(format!("dev: {first}; emu dev --help lists the tools")));
        }
    };
    match dev.tool {
        Tool::Disasm(tool) => disasm::run(&tool),
        Tool::Block(tool) => block::run(&tool),
        Tool::Asm(tool) => region::run(&tool, region::Show::Host),
        Tool::Clif(tool) => region::run(&tool, region::Show::Clif),
        Tool::RunCase(tool) => run_case::run(&tool),
        Tool::Lockstep(tool) => lockstep::run(&tool),
        Tool::BisectJit(tool) => bisect_jit::run(&tool),
        Tool::Rom(tool) => rom::run(&tool),
        Tool::Stats(tool) => stats::run(&tool, arguments),
    }
}

/// A number, decimal or `0x` hexadecimal, for clap.
fn number(text: &str) -> Result<u64, String> {
    crate::cli::value::parse_number(text).ok_or_else(|| "expected a number, decimal or 0x hexadecimal".into())
}

/// The machine that the emulator's ordinary options describe.
fn configuration(words: &[OsString]) -> Result<Config, StartError> {
    let options = Options::read(words.iter().cloned())?;
    match config::configure("emu", &options, false)? {
        Outcome::Run(config) => Ok(*config),
        Outcome::Print(_) => Err(StartError::Other("dev: -help and lists belong to emu without dev".into())),
    }
}

/// RAM of a [`bare_machine`].
const BARE_RAM: u64 = 16 << 20;

/// A processor without devices, in real mode (16 bits), flat protected mode (32) or 64-bit mode with the first 4 GiB
/// mapped to themselves, about to execute at `address`, which must be below 64 KiB in real mode.
fn bare_machine(bits: u32, address: u64) -> Result<Vcpu, StartError> {
    let memory = GuestMemory::new(BARE_RAM, 0).map_err(|e| StartError::Other(format!("dev: no guest RAM: {e}")))?;
    let clock = Clock::new(ClockMode::Icount { shift: 0 });
    let bus = Arc::new(Bus::new(Arc::new(memory), Arc::new(CpuPins::default()), clock));
    let mut cpu = Vcpu::new(Arc::new(CpuModel::max()), bus);
    let state = match bits {
        16 => BootState::real(0, address as u16, 0, 0x7000),
        32 => BootState::protected(&cpu.memory, address as u32),
        _ => BootState::long(&cpu.memory, address),
    };
    cpu.start(&state);
    Ok(cpu)
}
