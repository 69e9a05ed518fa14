//! Timers.

pub mod acpi_pm;
pub mod hpet;
pub mod pit;
