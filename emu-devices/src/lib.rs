//! The devices of a PC.
