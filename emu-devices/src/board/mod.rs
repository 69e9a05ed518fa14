//! The board: what wires a PC together, what starts a kernel on it, and the loop that runs it.

pub mod acpi;
pub mod boot_state;
pub mod kernel;
pub mod linux_boot;
pub mod machine;
pub mod memory_map;
pub mod pc;
pub mod post;
mod vcpu;
