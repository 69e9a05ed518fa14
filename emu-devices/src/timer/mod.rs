//! Timers.

pub mod pit;
