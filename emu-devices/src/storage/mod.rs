//! Storage: what devices and host files agree on ([`block`]), and the devices.

pub mod block;
pub mod fdc;
pub mod ide;
pub mod image;
pub mod throttle;
