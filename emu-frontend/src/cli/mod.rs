//! The command line: QEMU's options and value syntax, one definition, one configuration out of it.

mod chardev;
pub mod config;
mod cpu;
mod devices;
pub mod error;
mod machine;
mod options;
mod time;
mod value;
