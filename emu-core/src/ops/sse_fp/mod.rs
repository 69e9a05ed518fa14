//! Floating-point instructions of SSE to SSE4.2 (SDM Vol. 1 chapters 10 to 12), on [`crate::softfloat::sse`].
//!
//! Every instruction collects the exceptions of all its lanes in one [`SseEnv`] before anything is written; an unmasked
//! one ends it in #XM with MXCSR telling why. Moves, shuffles, blends and bitwise logic are absent: they do not look at
//! values and live with the integer SIMD instructions.

mod arithmetic;
mod compare;
mod convert;
pub mod fast;

pub use compare::relation_flags;

use super::Exec;
use crate::cpu::control::{CR0_EM, CR0_TS, CR4_OSFXSR, CR4_OSXMMEXCPT};
use crate::cpu::fault::{self, Fault};
use crate::cpu::xmm::{Lane, Xmm};
use crate::decode::insn::{Insn, Kind};
use crate::exec::Vcpu;
use crate::mmu::access;
use crate::mmu::walk::Access;
use crate::softfloat::sse::{Scalar, SseEnv, mxcsr};
use iced_x86::Mnemonic;

/// The rows of this group. CMPSD, whose mnemonic a string instruction shares, is [`CMPSD`].
pub fn exec(m: Mnemonic) -> Option<Exec> {
    arithmetic::exec(m).or_else(|| compare::exec(m)).or_else(|| convert::exec(m)).or(match m {
        Mnemonic::Ldmxcsr => Some(load_mxcsr as Exec),
        Mnemonic::Stmxcsr => Some(store_mxcsr),
        _ => None,
    })
}

/// CMPSD with XMM operands.
pub const CMPSD: Exec = compare::CMPSD;

/// Single (`u32`) and double (`u64`) lanes.
pub trait FpLane: Scalar + Lane + access::Scalar {
    /// The lowest lane.
    fn low(v: &Xmm) -> Self;
    /// Replaces the lowest lane.
    fn set_low(v: &mut Xmm, value: Self);
}

impl FpLane for u32 {
    #[inline(always)]
    fn low(v: &Xmm) -> u32 {
        v.get32(0)
    }
    #[inline(always)]
    fn set_low(v: &mut Xmm, value: u32) {
        v.set32(0, value);
    }
}

impl FpLane for u64 {
    #[inline(always)]
    fn low(v: &Xmm) -> u64 {
        v.get64(0)
    }
    #[inline(always)]
    fn set_low(v: &mut Xmm, value: u64) {
        v.set64(0, value);
    }
}

impl Vcpu {
    /// What every SSE instruction does first: #UD or #NM.
    #[inline]
    fn sse_begin(&self) -> Result<(), Fault> {
        if self.state.cr0 & (CR0_EM | CR0_TS) == 0 && self.state.cr4 & CR4_OSFXSR != 0 {
            return Ok(());
        }
        let undefined = self.state.cr0 & CR0_EM != 0 || self.state.cr4 & CR4_OSFXSR == 0;
        Err(if undefined { Fault::ud() } else { Fault::plain(fault::NM) })
    }

    /// Ends a computation: MXCSR, or #XM (#UD if the system does not handle it).
    #[inline]
    fn sse_finish(&mut self, env: SseEnv) -> Result<(), Fault> {
        match env.finish() {
            Ok(mxcsr) => {
                self.state.mxcsr = mxcsr;
                Ok(())
            }
            Err(unmasked) => {
                self.state.mxcsr = unmasked.mxcsr;
                let handled = self.state.cr4 & CR4_OSXMMEXCPT != 0;
                Err(if handled { Fault::plain(fault::XM) } else { Fault::ud() })
            }
        }
    }

    /// An XMM register operand.
    #[inline]
    fn xmm(&self, insn: &Insn, operand: usize) -> Xmm {
        self.state.xmm[usize::from(insn.ops[operand].reg & 15)]
    }

    /// The destination, operand 0.
    #[inline]
    fn xmm_mut(&mut self, insn: &Insn) -> &mut Xmm {
        &mut self.state.xmm[usize::from(insn.ops[0].reg & 15)]
    }

    /// A 128-bit source operand; memory must be aligned.
    #[inline]
    fn packed_source(&mut self, insn: &Insn, operand: usize) -> Result<Xmm, Fault> {
        if insn.ops[operand].kind != Kind::Mem {
            return Ok(self.xmm(insn, operand));
        }
        let linear = self.linear(insn, 16, Access::Read)?;
        if !linear.is_multiple_of(16) {
            return Err(Fault::gp0());
        }
        self.load(linear)
    }

    /// The lowest lane of a register, or memory of its size.
    #[inline]
    fn low_source<T: FpLane>(&mut self, insn: &Insn, operand: usize) -> Result<T, Fault> {
        if insn.ops[operand].kind != Kind::Mem {
            return Ok(T::low(&self.xmm(insn, operand)));
        }
        let linear = self.linear(insn, <T as access::Scalar>::SIZE, Access::Read)?;
        self.load(linear)
    }
}

fn load_mxcsr(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.sse_begin()?;
    let linear = cpu.linear(insn, 4, Access::Read)?;
    let value: u32 = cpu.load(linear)?;
    if value & !mxcsr::VALID != 0 {
        return Err(Fault::gp0());
    }
    cpu.state.mxcsr = value;
    Ok(())
}

fn store_mxcsr(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.sse_begin()?;
    let linear = cpu.linear(insn, 4, Access::Write)?;
    cpu.store(linear, cpu.state.mxcsr)
}
