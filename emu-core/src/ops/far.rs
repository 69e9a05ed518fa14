//! Far transfers of control.

use crate::cpu::fault::Fault;
use crate::decode::insn::Insn;
use crate::exec::Vcpu;

/// JMP far
pub fn jmp(_: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    Err(Fault::ud())
}

/// CALL far
pub fn call(_: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    Err(Fault::ud())
}
