//! The binary `emu`.
mod cli;
mod log;
fn main() {}
