//! From the words of the command line to a subcommand, a text, or a machine that runs.

use crate::cli::config::{self, Outcome};
use crate::cli::error::StartError;
use crate::cli::options::{self, Options};
use crate::{dev, img, report, run};
use std::ffi::OsString;

/// The version of QEMU whose command line this is, for programs that ask.
const QEMU_VERSION: &str = "10.0.2";

/// Carries out the command line `arguments`, the program's name first. The exit status of a usage or start-up error is 1.
pub fn main(arguments: &[OsString]) -> ! {
    let program = report::program();
    let status = match carry_out(&program, arguments) {
        Ok(text) => {
            report::print(&text);
            0
        }
        Err(error) => {
            report::complain(&error.line());
            1
        }
    };
    crate::exit::leave(status)
}

fn carry_out(program: &str, arguments: &[OsString]) -> Result<String, StartError> {
    let words = arguments.get(1..).unwrap_or_default();
    if let Some((first, rest)) = words.split_first()
        && options::is_subcommand(first)
    {
        if first == "img" {
            crate::exit::leave(img::run(rest));
        }
        return dev::run(rest, arguments);
    }
    let options = Options::read(words.iter().cloned())?;
    if options.version && !options.help {
        return Ok(version(program));
    }
    let bits32 = program.starts_with("qemu-system-i386");
    match config::configure(program, &options, bits32)? {
        Outcome::Print(text) => Ok(text),
        Outcome::Run(config) => run::run(*config, arguments),
    }
}

fn version(program: &str) -> String {
    let own = env!("CARGO_PKG_VERSION");
    match program.starts_with("qemu-system-") {
        true => format!("QEMU emulator version {QEMU_VERSION} (emu {own})\n"),
        false => format!("emu version {own}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_under_qemus_name_begins_with_qemus_words() {
        assert!(version("qemu-system-x86_64").starts_with("QEMU emulator version 10.0.2 (emu "));
        assert!(version("emu").starts_with("emu version "));
    }
}
