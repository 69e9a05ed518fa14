//! Specialised handlers.

use crate::decode::insn::Insn;
use crate::exec::Vcpu;
use crate::exec::thread::Op;

/// The specialised op for instruction `n` of `insns` and how many instructions it covers; `None` if there is none.
pub fn select(_cpu: &Vcpu, _insns: &[Insn], _n: usize) -> Option<(Op, usize)> {
    None
}
