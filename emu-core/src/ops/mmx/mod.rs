//! MMX (SDM Vol. 1 chapter 9, and SSE's, SSE2's and SSSE3's extensions of it).
//!
//! The operations themselves are those of [`super::simd_int`], on the low halves of its operands; here is what MMX does
//! differently: its registers are the x87 ones, and touching them makes TOP zero and all tags valid (SDM Vol. 3A 12.2).

use super::Exec;
use super::simd_int::moves::store_masked;
use super::simd_int::packed::{self, Packed, load, load_scalar, scalar, xmm};
use super::simd_int::pair::Pair;
use super::simd_int::{self};
use crate::cpu::Width;
use crate::cpu::control::{CR0_EM, CR0_TS};
use crate::cpu::fault::{self, Fault};
use crate::cpu::xmm::Xmm;
use crate::decode::insn::{Insn, Kind};
use crate::exec::{Vcpu, mode};
use crate::mmu::walk::Access;
use iced_x86::Mnemonic;

#[cfg(test)]
mod tests;

/// The rows of instructions that exist only as MMX; the others are with their SSE forms.
pub fn exec(m: Mnemonic) -> Option<Exec> {
    Some(match m {
        Mnemonic::Emms => emms,
        Mnemonic::Movntq => movntq,
        Mnemonic::Maskmovq => maskmovq,
        _ => return None,
    })
}

/// The summary of unmasked exceptions in the x87 status word.
const ES: u16 = 1 << 7;

/// Raises what MMX instructions raise before they look at operands: #UD if CR0.EM is set, #NM if CR0.TS is set, #MF if an
/// x87 exception is pending (SDM Vol. 3A 12.5).
///
/// # Errors
/// As said.
pub fn check(cpu: &Vcpu) -> Result<(), Fault> {
    if cpu.mode & mode::FPU == 0 {
        if cpu.state.cr0 & CR0_EM != 0 {
            return Err(Fault::ud());
        }
        if cpu.state.cr0 & CR0_TS != 0 {
            return Err(Fault::plain(fault::NM));
        }
    }
    if cpu.state.fpu.status & ES != 0 {
        return Err(Fault::plain(fault::MF));
    }
    Ok(())
}

fn write(cpu: &mut Vcpu, register: u8, value: u64) {
    cpu.state.fpu.enter_mmx();
    cpu.state.fpu.set_mmx(register, value);
}

/// Operand 1: an MMX register, memory, or an immediate count.
fn source(cpu: &mut Vcpu, insn: &Insn) -> Result<u64, Fault> {
    match insn.ops[1].kind {
        Kind::Mmx => Ok(cpu.state.fpu.mmx(insn.ops[1].reg)),
        Kind::Mem => Ok(load(cpu, insn, u64::from(insn.mem_size()), false)?.get64(0)),
        _ => Ok(u64::from(insn.imm as u8)),
    }
}

/// The MMX form of a packed operation.
pub(super) fn packed<P: Packed>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    check(cpu)?;
    let src = scalar(source(cpu, insn)?);
    let dst = scalar(cpu.state.fpu.mmx(insn.ops[0].reg));
    let result = P::apply_mmx(Pair { dst, src, imm: insn.imm as u8, xmm0: Xmm::default() });
    write(cpu, insn.ops[0].reg, result);
    Ok(())
}

fn emms(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    check(cpu)?;
    cpu.state.fpu.enter_mmx();
    cpu.state.fpu.empty = 0xff;
    Ok(())
}

/// MOVD between an MMX register and a 32-bit register or memory.
pub(super) fn movd(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    general(cpu, insn, Width::B4)
}

/// MOVQ between an MMX register and an MMX register, a 64-bit register or memory.
pub(super) fn movq(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    general(cpu, insn, Width::B8)
}

fn general(cpu: &mut Vcpu, insn: &Insn, width: Width) -> Result<(), Fault> {
    check(cpu)?;
    let [dst, src, ..] = insn.ops;
    let value = match src.kind {
        Kind::Mmx => cpu.state.fpu.mmx(src.reg),
        Kind::Gpr => cpu.state.regs.get(src.reg, width),
        _ => {
            let linear = cpu.linear(insn, width.bytes(), Access::Read)?;
            load_scalar(cpu, linear, width.bytes())?
        }
    };
    match dst.kind {
        Kind::Mmx => write(cpu, dst.reg, value),
        Kind::Gpr => {
            cpu.state.regs.set(dst.reg, width, value);
            cpu.state.fpu.enter_mmx();
        }
        _ => {
            let linear = cpu.linear(insn, width.bytes(), Access::Write)?;
            cpu.store_width(linear, width, value)?;
            cpu.state.fpu.enter_mmx();
        }
    }
    Ok(())
}

fn movntq(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    general(cpu, insn, Width::B8)
}

fn maskmovq(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    check(cpu)?;
    let value = cpu.state.fpu.mmx(insn.ops[1].reg).to_le_bytes();
    let mask = cpu.state.fpu.mmx(insn.ops[2].reg).to_le_bytes();
    store_masked(cpu, insn, &value, &mask)?;
    cpu.state.fpu.enter_mmx();
    Ok(())
}

pub(super) fn pinsrw(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    check(cpu)?;
    let word = match insn.ops[1].kind {
        Kind::Gpr => u64::from(cpu.state.regs.get16(insn.ops[1].reg)),
        _ => load(cpu, insn, 2, false)?.get64(0),
    };
    let shift = 16 * (insn.imm as u32 & 3);
    let old = cpu.state.fpu.mmx(insn.ops[0].reg);
    write(cpu, insn.ops[0].reg, old & !(0xffff << shift) | word << shift);
    Ok(())
}

pub(super) fn pextrw(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    check(cpu)?;
    let word = cpu.state.fpu.mmx(insn.ops[1].reg) >> (16 * (insn.imm as u32 & 3)) & 0xffff;
    cpu.state.regs.set64(insn.ops[0].reg, word);
    cpu.state.fpu.enter_mmx();
    Ok(())
}

pub(super) fn pmovmskb(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    check(cpu)?;
    let bytes = cpu.state.fpu.mmx(insn.ops[1].reg).to_le_bytes();
    let bits = (0..8).map(|n| u64::from(bytes[n] >> 7) << n).sum();
    cpu.state.regs.set64(insn.ops[0].reg, bits);
    cpu.state.fpu.enter_mmx();
    Ok(())
}

pub(super) fn movq2dq(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    simd_int::check(cpu)?;
    check(cpu)?;
    let value = cpu.state.fpu.mmx(insn.ops[1].reg);
    cpu.state.xmm[xmm(insn, 0)] = packed::scalar(value);
    cpu.state.fpu.enter_mmx();
    Ok(())
}

pub(super) fn movdq2q(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    simd_int::check(cpu)?;
    check(cpu)?;
    let value = cpu.state.xmm[xmm(insn, 1)].get64(0);
    write(cpu, insn.ops[0].reg, value);
    Ok(())
}
