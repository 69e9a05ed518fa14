//! State that a device shares with the wires and siblings that reach it in the middle of another device's access.
//!
//! Interrupt controllers, the APIC pair and PCI configuration spaces are driven from two sides: by the guest through
//! [`emu_core::device::Device`], and by other devices through lines and messages. Both sides hold the same [`Shared`].
//! It serialises as the value inside, so that it can be a device's `State`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::{Arc, Mutex, MutexGuard};

/// A counted reference to locked state. Locks are held for the length of one register access and never across a call
/// into another device.
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

    /// Moves what `other` holds into this value, so that every holder of this value sees it.
    pub fn replace(&self, other: Shared<T>)
    where
        T: Clone,
    {
        let value = other.lock().clone();
        *self.lock() = value;
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Shared<T> {
        Shared(self.0.clone())
    }
}

impl<T: Serialize> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.lock().serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Shared<T>, D::Error> {
        T::deserialize(deserializer).map(Shared::new)
    }
}
