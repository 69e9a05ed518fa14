//! Timers.

pub mod acpi_pm;
pub mod pit;
