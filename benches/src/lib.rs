//! Helpers that the benches share: the in-guest benchmark's program, the machines that run it, and the arithmetic of the results.

pub mod machine;
pub mod program;
pub mod report;
