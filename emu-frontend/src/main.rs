//! The binary `emu`.
fn main() {}
