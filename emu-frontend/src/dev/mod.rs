//! `emu dev`: tools for whoever develops emu or an operating system on it.

mod disasm;

use crate::cli::error::StartError;
use clap::{Parser, Subcommand};
use std::ffi::OsString;

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
}

/// Runs the tool that `arguments` (without `emu dev`) name; what it prints on stdout.
///
/// # Errors
/// The arguments or the tool's input are wrong.
pub fn run(arguments: &[OsString]) -> Result<String, StartError> {
    let words = std::iter::once(OsString::from("emu dev")).chain(arguments.iter().cloned());
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
        Tool::Disasm(arguments) => disasm::run(&arguments),
    }
}

/// A number, decimal or `0x` hexadecimal, for clap.
fn number(text: &str) -> Result<u64, String> {
    crate::cli::value::parse_number(text).ok_or_else(|| "expected a number, decimal or 0x hexadecimal".into())
}
