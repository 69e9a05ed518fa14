//! `emu dev run-case`: instruction cases, one to a line, as `tests/insn/*.case` hold them.

use crate::cli::error::StartError;
use crate::report;
use clap::Args;
use emu_core::debug::case::Line;
use std::path::PathBuf;

/// Which cases.
#[derive(Args, Debug)]
pub struct Arguments {
    /// File of cases
    #[arg(required_unless_present = "case", conflicts_with = "case")]
    file: Option<PathBuf>,
    /// Only this line of the file
    #[arg(long)]
    line: Option<usize>,
    /// One case instead of a file
    #[arg(long, value_name = "TEXT")]
    case: Option<String>,
    /// Code size where no line has said `bits`: 16, 32 or 64
    #[arg(long, default_value = "32", value_parser = ["16", "32", "64"])]
    bits: String,
}

/// Runs the cases: what each comes to.
///
/// # Errors
/// A case cannot be read, or does not come to what it says.
pub fn run(arguments: &Arguments) -> Result<String, StartError> {
    let other = |text: String| StartError::Other(format!("dev run-case: {text}"));
    let (name, text) = match (&arguments.case, &arguments.file) {
        (Some(case), _) => ("--case".to_string(), case.clone()),
        (None, Some(path)) => {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|e| other(format!("cannot read {name}: {e}")))?;
            (name, text)
        }
        (None, None) => return Ok(String::new()),
    };
    let mut bits = arguments.bits.parse().unwrap_or(32);
    let mut lines = String::new();
    let mut failures = 0;
    for (n, line) in text.lines().enumerate() {
        let at = format!("{name}:{}", n + 1);
        match Line::parse(line, bits).map_err(|problem| other(format!("{at}: {problem}")))? {
            Line::Bits(size) => bits = size,
            Line::Case(case) if arguments.line.is_none_or(|only| only == n + 1) => match case.run() {
                Ok(()) => lines += &format!("{at}: ok: {}\n", case.assembly),
                Err(problem) => {
                    failures += 1;
                    lines += &format!("{at}: FAILED: {}: {problem}\n", case.assembly);
                }
            },
            Line::Case(_) | Line::Blank => {}
        }
    }
    if failures > 0 {
        report::print(&lines);
        return Err(other(format!("{failures} cases fail")));
    }
    Ok(lines)
}
