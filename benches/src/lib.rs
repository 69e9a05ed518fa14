//! Helpers that the benches share: a bare processor, the in-guest benchmark, the machines that run it, the throughput of devices, and the arithmetic of the results.

pub mod bare;
pub mod machine;
pub mod program;
pub mod report;
pub mod throughput;
