//! The devices of a PC.

pub mod board;
pub mod char;
pub mod intc;
pub mod port92;
pub mod shared;
pub mod testbench;
pub mod timer;
