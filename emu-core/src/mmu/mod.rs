//! From linear addresses to bytes: the TLB, the page walk behind it, and the accesses of instructions.

pub mod access;
pub mod context;
pub mod tlb;
pub mod walk;
