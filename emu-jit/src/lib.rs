//! The compiled tiers of emu.
//!
//! ```text
//!  vCPU thread                                       worker thread
//!  Vcpu: a block is hot, gather a region --Source--> flow: who leads where, which registers and flags matter
//!                                                    lower: CLIF, by the same semantics as the interpreter's
//!        install at the block's entry  <--Compiled-- Cranelift, then memory that is executable
//! ```
//! The vCPU never waits: it interprets until the code is there. What regions are, and when they are given up, is in
//! [`emu_core::exec::region`].

mod flow;
mod lower;
mod runtime;
mod worker;

pub use lower::{Listing, Translator};
pub use worker::{CAPACITY, Immediate, Jit};
