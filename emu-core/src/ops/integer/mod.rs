//! Integer instructions that touch nothing but general registers, flags and memory.

use super::Exec;
use crate::cpu::fault::Fault;
use crate::decode::insn::Insn;
use crate::exec::Vcpu;
use iced_x86::Mnemonic;

/// The rows of this group.
pub fn exec(m: Mnemonic) -> Option<Exec> {
    Some(match m {
        Mnemonic::Nop | Mnemonic::Endbr64 | Mnemonic::Endbr32 => nop,
        _ => return None,
    })
}

fn nop(_: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    Ok(())
}
