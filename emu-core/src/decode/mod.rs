//! From bytes to instructions ([`insn::Insn`]) and blocks of them.

pub mod block;
pub mod insn;
