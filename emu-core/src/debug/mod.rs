//! What a person sees of a processor: its registers, and how it came to a triple fault.

pub mod faults;
pub mod registers;
