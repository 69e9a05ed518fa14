//! The terminal behind stdin: raw mode while the guest owns it, and back on every way out.
//!
//! termios(3). Output processing stays on, so that a guest that sends only line feeds is readable.

use crate::report;
use rustix::stdio::stdin;
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, isatty, tcgetattr,
    tcsetattr,
};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The user's settings and ours, while ours are in force.
static SAVED: Mutex<Option<(Termios, Termios)>> = Mutex::new(None);

/// Whether the alternate screen belongs to the guest.
static SCREEN: AtomicBool = AtomicBool::new(false);
/// How often the terminal has been taken again.
static RESUMED: AtomicUsize = AtomicUsize::new(0);

/// Switches to the alternate screen, now and after each stop in the background.
pub fn enter_screen() {
    SCREEN.store(true, Ordering::Relaxed);
    switch_screen("\x1b[?1049h");
}

/// How often the terminal has been taken again: what it shows is unknown after each time.
pub fn resumed() -> usize {
    RESUMED.load(Ordering::Relaxed)
}

fn switch_screen(sequence: &str) {
    if SCREEN.load(Ordering::Relaxed) {
        report::print(sequence);
    }
}

/// Puts the terminal into raw mode; nothing happens if stdin is none. `signal`: Ctrl-C and its like keep their effect.
pub fn enter(signal: bool) {
    if !isatty(stdin()) {
        return;
    }
    let Ok(original) = tcgetattr(stdin()) else { return };
    let mut raw = original.clone();
    raw.input_modes -= InputModes::IGNBRK
        | InputModes::BRKINT
        | InputModes::PARMRK
        | InputModes::ISTRIP
        | InputModes::INLCR
        | InputModes::IGNCR
        | InputModes::ICRNL
        | InputModes::IXON;
    raw.output_modes |= OutputModes::OPOST;
    raw.local_modes -= LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::IEXTEN;
    if !signal {
        raw.local_modes -= LocalModes::ISIG;
    }
    raw.control_modes -= ControlModes::CSIZE | ControlModes::PARENB;
    raw.control_modes |= ControlModes::CS8;
    raw.special_codes[SpecialCodeIndex::VMIN] = 1;
    raw.special_codes[SpecialCodeIndex::VTIME] = 0;
    *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some((original, raw));
    resume();
}

/// Gives the terminal back as it was found. May be called at any time, from any thread, more than once.
pub fn restore() {
    switch_screen("\x1b[0m\x1b[?25h\x1b[?1049l");
    if let Some((original, _)) = &*SAVED.lock().unwrap_or_else(PoisonError::into_inner) {
        // The terminal may be gone; then nothing is left to restore.
        let _ = tcsetattr(stdin(), OptionalActions::Now, original);
    }
}

/// Takes the terminal again after a stop in the background.
pub fn resume() {
    if let Some((_, raw)) = &*SAVED.lock().unwrap_or_else(PoisonError::into_inner) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, raw);
    }
    switch_screen("\x1b[?1049h");
    RESUMED.fetch_add(1, Ordering::Relaxed);
}
