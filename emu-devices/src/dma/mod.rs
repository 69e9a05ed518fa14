//! Direct memory access by ISA devices.

pub mod i8237;
