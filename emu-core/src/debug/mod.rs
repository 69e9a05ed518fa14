//! What a person sees of a processor: its registers, its memory, what it did, and cases that say what it should do.

pub mod case;
pub mod memory;
pub mod registers;
pub mod trace;
