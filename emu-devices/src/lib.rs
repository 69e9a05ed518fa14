//! The devices of a PC.

pub mod char;
pub mod testbench;
