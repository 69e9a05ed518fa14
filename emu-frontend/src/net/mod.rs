//! Networks: what cards of `-device` hang on, by id.

use emu_devices::net::NetBackend;
use std::collections::BTreeMap;

/// The back ends that no card has been plugged into yet.
pub type NetBackends = BTreeMap<String, Box<dyn NetBackend>>;
