//! Interrupt controllers.

pub mod ioapic;
pub mod lapic;
pub mod pic;
pub mod wired_or;
