//! SSE to SSE4.2 besides floating-point arithmetic: packed integers, and moves, logic, shuffles and blends of all types
//! (SDM Vol. 1 chapters 10 to 12, Vol. 2 for each mnemonic).
//!
//! Each instruction is one row with one pure function of its operands' values ([`packed`]); the MMX form of an
//! instruction shares its row. Floating-point arithmetic and conversions are elsewhere. AVX is absent: its encodings
//! have mnemonics of their own, which have no rows and so raise #UD.

pub mod arith;
pub mod moves;
pub mod packed;
pub mod pair;
pub mod shift;
pub mod shuffle;
#[cfg(test)]
mod tests;
pub mod text;

use super::{Exec, crypto};
use crate::cpu::control::{CR0_EM, CR0_TS, CR4_OSFXSR};
use crate::cpu::fault::{self, Fault};
use crate::exec::{Vcpu, mode};
use iced_x86::{Code, Mnemonic};
use packed::Row;

/// The row of a mnemonic.
pub fn row(m: Mnemonic) -> Option<Row> {
    [arith::row, shift::row, shuffle::row, moves::row, text::row, crypto::row].iter().find_map(|rows| rows(m))
}

/// The row of an instruction that shares its mnemonic with a string instruction.
pub fn shared_mnemonic(code: Code) -> Option<Row> {
    matches!(code, Code::Movsd_xmm_xmmm64 | Code::Movsd_xmmm64_xmm).then(moves::movsd)
}

/// The row of an instruction.
pub fn row_of(code: Code) -> Option<Row> {
    shared_mnemonic(code).or_else(|| row(code.mnemonic()))
}

/// The rows of this group.
pub fn exec(m: Mnemonic) -> Option<Exec> {
    row(m).map(|row| row.exec)
}

/// Raises what SSE instructions raise before they look at operands: #UD if CR0.EM is set or CR4.OSFXSR clear, #NM if
/// CR0.TS is set (SDM Vol. 3A 13.1).
///
/// # Errors
/// As said.
#[inline(always)]
pub fn check(cpu: &Vcpu) -> Result<(), Fault> {
    if cpu.mode & mode::SSE != 0 { Ok(()) } else { Err(unavailable(cpu)) }
}

#[cold]
fn unavailable(cpu: &Vcpu) -> Fault {
    let s = &cpu.state;
    if s.cr0 & CR0_EM != 0 || s.cr4 & CR4_OSFXSR == 0 {
        Fault::ud()
    } else {
        debug_assert!(s.cr0 & CR0_TS != 0, "mode::SSE is clear for one of three reasons");
        Fault::plain(fault::NM)
    }
}
