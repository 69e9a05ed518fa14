//! The one way out: whatever ends the emulator, the terminal, files and sockets are left as they should be.
//!
//! [`request`] stops the machine first, so that its last output is complete; [`leave`] ends the process.

use crate::char::terminal;
use crate::log;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::Duration;

/// How long a destination that takes no output is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the machine may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

type Action = Box<dyn FnOnce(Duration) + Send>;
/// Given the reason.
type Stop = Box<dyn Fn(&str) + Send + Sync>;

static ACTIONS: Mutex<Vec<Action>> = Mutex::new(Vec::new());
static FILES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
static STOP: OnceLock<Stop> = OnceLock::new();
static LEAVING: Mutex<()> = Mutex::new(());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `action` before the process ends; it may take as long as makes progress within the given time.
pub fn at_exit(action: impl FnOnce(Duration) + Send + 'static) {
    lock(&ACTIONS).push(Box::new(action));
}

/// Removes the file at `path` when the process ends.
pub fn remove_at_exit(path: &Path) {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    lock(&FILES).push(path);
}

/// How [`request`] makes the machine's thread end its run, upon which that thread calls [`leave`]; it is given the reason.
/// The first one counts.
pub fn set_stop(stop: impl Fn(&str) + Send + Sync + 'static) {
    // Set once by the one machine of this process.
    let _ = STOP.set(Box::new(stop));
}

/// Ends the emulator on the user's behalf, with status 0. For any thread but the machine's own. `reason`: QEMU's word for
/// it, for clients of QMP.
pub fn request(reason: &str) -> ! {
    if let Some(stop) = STOP.get() {
        stop(reason);
        std::thread::sleep(STOP_TIMEOUT);
    }
    leave(0)
}

/// Ends the process. Of several threads that call this, the first one decides the status.
pub fn leave(status: i32) -> ! {
    let _first = match LEAVING.try_lock() {
        Ok(guard) => guard,
        // Another thread is ending the process already.
        Err(TryLockError::WouldBlock) => loop {
            std::thread::park();
        },
        Err(TryLockError::Poisoned(guard)) => guard.into_inner(),
    };
    let actions = std::mem::take(&mut *lock(&ACTIONS));
    actions.into_iter().for_each(|action| action(PATIENCE));
    log::flush();
    clean_up();
    std::process::exit(status)
}

fn clean_up() {
    terminal::restore();
    if let Ok(files) = FILES.try_lock() {
        // A file that somebody else has removed is as good as removed.
        files.iter().for_each(|file| drop(std::fs::remove_file(file)));
    }
}

/// After a panic in any thread: the terminal is restored before the message, and the process ends with status 101.
pub fn install_panic_hook() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // Locks may be held by the panicking code itself, so nothing is drained here.
        clean_up();
        report(info);
        std::process::exit(101);
    }));
}
