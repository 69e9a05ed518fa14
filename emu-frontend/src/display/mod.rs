//! Displays: what shows the guest's screen to the user and takes the user's keys.

pub mod picture;
pub mod typist;
