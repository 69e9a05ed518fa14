//! The binary `emu`.
mod char;
mod cli;
mod daemon;
mod dev;
mod exit;
mod log;
mod monitor;
mod report;
mod signals;
fn main() {}
