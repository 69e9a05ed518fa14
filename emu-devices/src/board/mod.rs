//! The board: what wires a PC together, what starts a kernel on it, and the loop that runs it.

pub mod acpi;
pub mod boot_state;
pub mod elf;
pub mod expansion;
pub mod firmware;
pub mod fw_cfg;
pub mod kernel;
pub mod linux_boot;
pub mod machine;
pub mod memory_map;
mod mp;
pub mod multiboot;
pub mod multiboot2;
pub mod pc;
pub mod place;
pub mod post;
pub mod pvh;
pub mod rom;
pub mod smbios;
pub mod text_mode;
pub mod through_firmware;
mod vcpu;
