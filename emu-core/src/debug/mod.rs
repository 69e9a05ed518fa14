//! What a person sees of a processor: its registers, what it did, and cases that say what it should do.

pub mod case;
pub mod registers;
pub mod trace;
