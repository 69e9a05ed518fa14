//! The devices of a PC.

pub mod audio;
pub mod board;
pub mod char;
pub mod coprocessor;
pub mod dma;
#[cfg(test)]
mod hostile;
pub mod input;
pub mod intc;
pub mod net;
pub mod pc_testdev;
pub mod pci;
pub mod port92;
pub mod rtc;
pub mod scatter;
pub mod shared;
pub mod smbus;
pub mod storage;
pub mod testbench;
pub mod timer;
pub mod video;
pub mod virtio;
