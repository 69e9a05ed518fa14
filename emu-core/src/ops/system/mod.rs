//! System instructions.

use crate::cpu::fault::Fault;
use crate::decode::insn::Insn;
use crate::exec::Vcpu;

/// MOV to and from control and debug registers
pub fn mov_control(_: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    Err(Fault::ud())
}
