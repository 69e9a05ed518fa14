//! Segment registers.

use crate::cpu::fault::Fault;
use crate::decode::insn::Insn;
use crate::exec::Vcpu;

/// MOV to and from a segment register
pub fn mov(_: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    Err(Fault::ud())
}

/// PUSH of a segment register
pub fn push(_: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    Err(Fault::ud())
}

/// POP of a segment register
pub fn pop(_: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    Err(Fault::ud())
}
