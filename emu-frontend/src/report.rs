//! Text for the user: results on stdout, complaints on stderr. A closed pipe is no reason to fail.

use std::io::Write;

/// Prints `text` as it is.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody is left to tell if stdout is closed.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Prints `text` on stderr as it is.
pub fn print_error(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Prints a line on stderr, preceded by the name under which the emulator was called.
pub fn complain(message: &str) {
    let _ = writeln!(std::io::stderr(), "{}: {message}", program());
}

/// The file name under which the emulator was called.
pub fn program() -> String {
    let path = std::env::args_os().next().map(std::path::PathBuf::from);
    let name = path.as_deref().and_then(std::path::Path::file_name).map(|n| n.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "emu".into())
}
