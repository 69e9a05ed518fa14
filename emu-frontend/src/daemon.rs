//! `-daemonize` and `-pidfile`.
//!
//! The process starts itself once more. The copy leaves the session, sets the machine up and sends a NUL on its stdout;
//! the original passes everything before it on to its own stdout and ends when it comes, or with the copy's status.

use crate::cli::error::StartError;
use crate::{exit, report};
use rustix::process::setsid;
use rustix::stdio::{dup2_stderr, dup2_stdout};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Set in the environment of the copy.
const MARK: &str = "EMU_DAEMON";

/// In the original: starts the copy, waits until it is ready and ends. In the copy: leaves the session and returns.
///
/// # Errors
/// The process cannot start itself.
pub fn detach(arguments: &[OsString]) -> Result<(), StartError> {
    let failed = |e: std::io::Error| StartError::option("daemonize", format!("cannot start in the background: {e}"));
    if std::env::var_os(MARK).is_some() {
        setsid().map_err(|e| failed(e.into()))?;
        return Ok(());
    }
    let (name, rest) = match arguments.split_first() {
        Some((name, rest)) => (name.clone(), rest),
        None => (OsString::from("emu"), &[][..]),
    };
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.arg0(name).args(rest).env(MARK, "1").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut copy = command.spawn().map_err(failed)?;
    let mut output = copy.stdout.take().into_iter().flat_map(Read::bytes);
    let mut text = Vec::new();
    let ready = loop {
        match output.next() {
            Some(Ok(0)) => break true,
            Some(Ok(byte)) => text.push(byte),
            Some(Err(_)) | None => break false,
        }
    };
    report::print(&String::from_utf8_lossy(&text));
    let status = if ready { 0 } else { copy.wait().ok().and_then(|s| s.code()).unwrap_or(1) };
    std::process::exit(status)
}

/// In the copy, when the machine is set up: tells the original and lets go of its files and folder.
///
/// # Errors
/// /dev/null or / cannot be opened.
pub fn ready() -> Result<(), StartError> {
    let go = || -> std::io::Result<()> {
        let mut out = std::io::stdout();
        out.write_all(b"\0")?;
        out.flush()?;
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        dup2_stdout(&null)?;
        dup2_stderr(&null)?;
        std::env::set_current_dir("/")
    };
    go().map_err(|e| StartError::option("daemonize", e.to_string()))
}

/// Writes the process id to `path`, to be removed at the end.
///
/// # Errors
/// The file cannot be written.
pub fn write_pid(path: &Path) -> Result<(), StartError> {
    let write = || -> std::io::Result<()> {
        let mut file = File::create(path)?;
        writeln!(file, "{}", std::process::id())
    };
    write().map_err(|e| StartError::value("pidfile", path.display().to_string(), format!("cannot write: {e}")))?;
    exit::remove_at_exit(path);
    Ok(())
}
