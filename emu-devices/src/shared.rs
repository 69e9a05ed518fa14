//! State that a device shares with the wires and siblings that reach it in the middle of another device's access.

use std::sync::{Arc, Mutex, MutexGuard};

/// A counted reference to locked state: interrupt controllers and PCI configuration spaces are reached by the guest
/// through [`emu_core::device::Device`] and by other devices through lines and messages.
#[derive(Debug, Default)]
pub struct Shared<T>(Arc<Mutex<T>>);

impl<T> Shared<T> {
    /// Shares `value`.
    pub fn new(value: T) -> Shared<T> {
        Shared(Arc::new(Mutex::new(value)))
    }

    /// Locks the state. A panic elsewhere does not poison it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Shared<T> {
        Shared(self.0.clone())
    }
}
