//! The instruction table: from a mnemonic to the function that executes it.
//!
//! Each group of instructions keeps its rows beside its functions, as `pub fn exec(m: Mnemonic) -> Option<Exec>`, and
//! [`GROUPS`] lists the groups. Adding an instruction is one row there and one function.

use super::Exec;
use crate::decode::insn::undefined;
use iced_x86::{Instruction, Mnemonic};

/// What the table says of an instruction.
#[derive(Clone, Copy)]
pub struct Row {
    /// Executes any form.
    pub exec: Exec,
}

/// The groups' rows.
const GROUPS: &[fn(Mnemonic) -> Option<Exec>] = &[super::integer::exec];

/// The row of `i`'s mnemonic; #UD for what emu does not have.
pub fn row(i: &Instruction) -> Row {
    let m = i.mnemonic();
    Row { exec: GROUPS.iter().find_map(|rows| rows(m)).unwrap_or(undefined) }
}
