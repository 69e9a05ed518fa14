//! What a person sees of a processor.

pub mod registers;
