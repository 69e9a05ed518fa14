//! What a person sees of a processor: its registers, and what it did.

pub mod registers;
pub mod trace;
