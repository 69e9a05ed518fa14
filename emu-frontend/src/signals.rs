//! Signals: an orderly end, and the terminal's state around a stop in the background.

use crate::char::terminal;
use crate::cli::error::StartError;
use crate::{exit, report};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// Starts the thread that receives signals.
///
/// # Errors
/// The host refuses a handler or the thread.
pub fn start() -> Result<(), StartError> {
    let failed = |e: std::io::Error| StartError::Other(format!("cannot handle signals: {e}"));
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
