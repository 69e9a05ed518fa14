//! The x86 CPU, guest memory and device interfaces of emu. Knows no device, no compiled tier and no host I/O.
//!
//! See ARCHITECTURE.md for the map of modules and the recipes for adding an instruction or a device.

pub mod bus;
pub mod clock;
pub mod cpu;
pub mod debug;
pub mod decode;
pub mod device;
pub mod exec;
pub mod irq;
pub mod mem;
pub mod mmu;
pub mod ops;
pub mod softfloat;
