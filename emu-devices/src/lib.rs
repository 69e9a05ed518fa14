//! The devices of a PC.

pub mod char;
pub mod intc;
pub mod testbench;
