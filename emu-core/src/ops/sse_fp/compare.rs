//! CMPxx, COMISx and UCOMISx.

use super::FpLane;
use crate::cpu::fault::Fault;
use crate::cpu::rflags::{CF, PF, ZF};
use crate::cpu::xmm::Xmm;
use crate::decode::insn::Insn;
use crate::exec::Vcpu;
use crate::ops::Exec;
use crate::softfloat::Relation;
use crate::softfloat::sse::{self, Predicate, SseEnv};
use iced_x86::Mnemonic;

/// The rows of this file.
pub fn exec(m: Mnemonic) -> Option<Exec> {
    Some(match m {
        Mnemonic::Cmpps => packed::<u32, 4>,
        Mnemonic::Cmppd => packed::<u64, 2>,
        Mnemonic::Cmpss => scalar::<u32>,
        Mnemonic::Comiss => flags::<u32, true>,
        Mnemonic::Comisd => flags::<u64, true>,
        Mnemonic::Ucomiss => flags::<u32, false>,
        Mnemonic::Ucomisd => flags::<u64, false>,
        _ => return None,
    })
}

pub const CMPSD: Exec = scalar::<u64>;

/// ZF, PF and CF as COMISS and FCOMI set them; the other arithmetic flags are cleared.
#[inline(always)]
pub fn relation_flags(relation: Relation) -> u64 {
    match relation {
        Relation::Greater => 0,
        Relation::Less => CF,
        Relation::Equal => ZF,
        Relation::Unordered => ZF | PF | CF,
    }
}

/// All ones where the predicate holds.
fn mask<T: FpLane>(env: &mut SseEnv, predicate: Predicate, a: T, b: T) -> T {
    T::from_bits(if sse::compare_predicate(env, predicate, a, b) { u64::MAX } else { 0 })
}

fn packed<T: FpLane, const N: usize>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.sse_begin()?;
    let b = cpu.packed_source(insn, 1)?.lanes::<T, N>();
    let a = cpu.xmm(insn, 0).lanes::<T, N>();
    let predicate = Predicate::from_imm8(insn.imm as u8);
    let mut env = SseEnv::new(cpu.state.mxcsr);
    let result: [T; N] = std::array::from_fn(|n| mask(&mut env, predicate, a[n], b[n]));
    cpu.sse_finish(env)?;
    *cpu.xmm_mut(insn) = Xmm::from_lanes(result);
    Ok(())
}

fn scalar<T: FpLane>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.sse_begin()?;
    let b: T = cpu.low_source(insn, 1)?;
    let mut env = SseEnv::new(cpu.state.mxcsr);
    let result = mask(&mut env, Predicate::from_imm8(insn.imm as u8), T::low(&cpu.xmm(insn, 0)), b);
    cpu.sse_finish(env)?;
    T::set_low(cpu.xmm_mut(insn), result);
    Ok(())
}

fn flags<T: FpLane, const ORDERED: bool>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.sse_begin()?;
    let b: T = cpu.low_source(insn, 1)?;
    let a = T::low(&cpu.xmm(insn, 0));
    let mut env = SseEnv::new(cpu.state.mxcsr);
    let relation = if ORDERED { sse::compare_ordered(&mut env, a, b) } else { sse::compare_unordered(&mut env, a, b) };
    cpu.sse_finish(env)?;
    cpu.state.flags.set_bits(relation_flags(relation));
    Ok(())
}
