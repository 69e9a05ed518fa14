//! Decimal arithmetic and table look-up: AAA, AAS, AAM, AAD, DAA, DAS, XLAT (SDM Vol. 2A).
//!
//! Flags that the SDM calls undefined follow the result in AL, or are clear; after AAD they are those of the addition.

use crate::cpu::fault::{self, Fault};
use crate::cpu::regs::{RAX, RBX, RegFile};
use crate::cpu::rflags::{AF, CF, FlagOp};
use crate::decode::insn::Insn;
use crate::exec::Vcpu;
use crate::mmu::walk::Access;
use crate::ops::Exec;
use iced_x86::Mnemonic as M;

/// The rows of this group.
pub fn exec(m: M) -> Option<Exec> {
    Some(match m {
        M::Aaa => aaa,
        M::Aas => aas,
        M::Aam => aam,
        M::Aad => aad,
        M::Daa => daa,
        M::Das => das,
        M::Xlatb => xlat,
        _ => return None,
    })
}

const AL: u8 = RegFile::slot(RAX);
const AH: u8 = AL + 1;

/// Flags of the result in AL, with CF and AF given.
fn set_flags(cpu: &mut Vcpu, result: u8, carry: bool, adjust: bool) {
    let bits = if carry { CF } else { 0 } | if adjust { AF } else { 0 };
    let r = result as i8 as u64;
    cpu.state.flags.set(FlagOp::Parts, r, bits, r);
}

/// Whether the low digit of AL needs correction.
fn low_digit(cpu: &Vcpu) -> bool {
    cpu.state.regs.get8(AL) & 15 > 9 || cpu.state.flags.af()
}

fn aaa(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    ascii_adjust(cpu, 0x106)
}

fn aas(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    ascii_adjust(cpu, 0u16.wrapping_sub(0x106))
}

fn ascii_adjust(cpu: &mut Vcpu, correction: u16) -> Result<(), Fault> {
    let adjust = low_digit(cpu);
    let mut ax = cpu.state.regs.get16(AL);
    if adjust {
        ax = ax.wrapping_add(correction);
    }
    set_flags(cpu, ax as u8, adjust, adjust);
    cpu.state.regs.set16(AL, ax & 0xff0f);
    Ok(())
}

fn aam(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let al = cpu.state.regs.get8(AL);
    let base = insn.imm as u8;
    let (Some(high), Some(low)) = (al.checked_div(base), al.checked_rem(base)) else {
        return Err(Fault::plain(fault::DE));
    };
    cpu.state.regs.set8(AH, high);
    cpu.state.regs.set8(AL, low);
    set_flags(cpu, low, false, false);
    Ok(())
}

fn aad(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let product = cpu.state.regs.get8(AH).wrapping_mul(insn.imm as u8);
    let al = cpu.state.regs.get8(AL);
    let result = al.wrapping_add(product);
    cpu.state.regs.set16(AL, u16::from(result));
    // As ADD AL, product would leave them.
    let (x, y) = (al as i8 as u64, product as i8 as u64);
    let r = result as i8 as u64;
    cpu.state.flags.set(FlagOp::Add, x, y, r);
    Ok(())
}

fn daa(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    let old = cpu.state.regs.get8(AL);
    let adjust = low_digit(cpu);
    let carry = old > 0x99 || cpu.state.flags.cf();
    let correction = if adjust { 6 } else { 0 } + if carry { 0x60 } else { 0 };
    finish_decimal(cpu, old.wrapping_add(correction), carry, adjust)
}

fn das(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    let old = cpu.state.regs.get8(AL);
    let adjust = low_digit(cpu);
    let carry = old > 0x99 || cpu.state.flags.cf();
    let correction = if adjust { 6 } else { 0 } + if carry { 0x60 } else { 0 };
    // The borrow of the lower digit's correction counts even if the upper digit needs none.
    let borrow = adjust && old < 6;
    finish_decimal(cpu, old.wrapping_sub(correction), carry || borrow, adjust)
}

fn finish_decimal(cpu: &mut Vcpu, al: u8, carry: bool, adjust: bool) -> Result<(), Fault> {
    set_flags(cpu, al, carry, adjust);
    cpu.state.regs.set8(AL, al);
    Ok(())
}

fn xlat(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let offset = cpu.state.regs.gpr(RBX).wrapping_add(u64::from(cpu.state.regs.get8(AL))) & insn.addr.mask();
    let linear = cpu.seg_linear(insn.mem.seg, offset, 1, Access::Read)?;
    let value = cpu.load::<u8>(linear)?;
    cpu.state.regs.set8(AL, value);
    Ok(())
}
