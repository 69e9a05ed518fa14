//! The command line: QEMU's options and value syntax, one definition, one configuration out of it.

pub mod action;
pub mod audio;
pub mod block;
pub mod boot_order;
pub mod cards;
pub mod chardev;
pub mod config;
pub mod cpu;
pub mod devices;
pub mod display;
pub mod drive;
pub mod error;
pub mod firmware;
pub mod ide;
pub mod machine;
pub mod net;
pub mod net_socket;
pub mod net_user;
pub mod objects;
pub mod options;
pub mod smbios;
pub mod time;
pub mod value;
pub mod virtio;
