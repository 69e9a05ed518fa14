//! Helpers that the integration tests share.

pub mod boot_case;
pub mod eltorito;
pub mod events;
pub mod guest;
pub mod host;
pub mod initramfs;
pub mod lan;
pub mod lockstep;
pub mod machine;
pub mod packet_driver;
pub mod picture;
pub mod realmode;
pub mod screen;
