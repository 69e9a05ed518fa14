//! Displays: what shows the guest's screen to the user and takes the user's keys.

pub mod cp437;
pub mod curses;
pub mod picture;
#[cfg(feature = "window")]
mod scale;
pub mod typist;
#[cfg(feature = "window")]
pub mod window;
