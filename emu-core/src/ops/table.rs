//! The instruction table: from a mnemonic to the function that executes it.
//!
//! Each group of instructions keeps its rows beside its functions, as `pub fn exec(m: Mnemonic) -> Option<Exec>`, and
//! [`GROUPS`] lists the groups. Adding an instruction is one row there and one function. Moves to and from segment,
//! control and debug registers share their mnemonics with the plain ones and are told apart here.

use super::{Exec, segment, simd_int, sse_fp, system};
use crate::decode::insn::undefined;
use iced_x86::{Code, Instruction, Mnemonic, OpKind};

/// What the table says of an instruction.
#[derive(Clone, Copy)]
pub struct Row {
    /// Executes any form.
    pub exec: Exec,
}

/// The groups' rows.
const GROUPS: &[fn(Mnemonic) -> Option<Exec>] = &[
    super::integer::exec,
    super::bmi::exec,
    simd_int::exec,
    super::mmx::exec,
    super::interrupt::exec,
    super::far::exec,
    segment::exec,
    super::flags::exec,
    super::io::exec,
    system::exec,
    super::protection::exec,
    super::sse_fp::exec,
    super::x87::exec,
];

/// The row of `i`; #UD for what emu does not have.
pub fn row(i: &Instruction) -> Row {
    let m = i.mnemonic();
    // MOVSD and CMPSD are mnemonics of SSE too.
    if i.is_string_instruction() {
        return Row { exec: super::string::exec(m).unwrap_or(undefined) };
    }
    let exec = special_register(i).or_else(|| shared_mnemonic(i)).or_else(|| GROUPS.iter().find_map(|rows| rows(m)));
    Row { exec: exec.unwrap_or(undefined) }
}

/// MOV, PUSH and POP of a segment, control or debug register.
fn special_register(i: &Instruction) -> Option<Exec> {
    if !matches!(i.mnemonic(), Mnemonic::Mov | Mnemonic::Push | Mnemonic::Pop) {
        return None;
    }
    (0..i.op_count()).filter(|n| i.op_kind(*n) == OpKind::Register).find_map(|n| {
        let register = i.op_register(n);
        if register.is_segment_register() {
            Some(match i.mnemonic() {
                Mnemonic::Mov => segment::mov as Exec,
                Mnemonic::Push => segment::push,
                _ => segment::pop,
            })
        } else if register.is_cr() || register.is_dr() || register.is_tr() {
            Some(system::mov_control)
        } else {
            None
        }
    })
}

/// SSE instructions that share their mnemonic with a string instruction.
fn shared_mnemonic(i: &Instruction) -> Option<Exec> {
    match i.code() {
        Code::Cmpsd_xmm_xmmm64_imm8 => Some(sse_fp::CMPSD),
        code => simd_int::shared_mnemonic(code).map(|row| row.exec),
    }
}
