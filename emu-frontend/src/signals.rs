//! Signals: an orderly end, the terminal's state around a stop in the background, and no end at a limit on file sizes.

use crate::char::terminal;
use crate::cli::error::StartError;
use crate::{exit, report};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGXFSZ};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use std::sync::Arc;

/// Starts the thread that receives signals.
///
/// # Errors
/// The host refuses a handler or the thread.
pub fn start() -> Result<(), StartError> {
    let failed = |e: std::io::Error| StartError::Other(format!("cannot handle signals: {e}"));
    // Beyond a limit on the size of files, a write is to fail like one to a full disk, and not to end the process.
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(failed)?;
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT]).map_err(failed)?;
    let handle = move || {
        for signal in signals.forever() {
            match signal {
                SIGTSTP => {
                    terminal::restore();
                    // Returns when the process is continued. Without the stop there is nothing to undo but the mode.
                    let _ = emulate_default_handler(SIGTSTP);
                    terminal::resume();
                }
                SIGCONT => terminal::resume(),
                _ => {
                    report::complain(&format!("terminating on signal {signal}"));
                    exit::request("host-signal");
                }
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(handle).map(drop).map_err(failed)
}
