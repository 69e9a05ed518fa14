//! Multiplication and division with implied registers, and the sign extensions that prepare them.

use super::alu;
use super::bits::operand;
use crate::cpu::Width;
use crate::cpu::fault::{self, Fault};
use crate::cpu::regs::{RAX, RDX, RegFile, Slot};
use crate::cpu::rflags::{CF, FlagOp, OF};
use crate::decode::insn::{Insn, Kind};
use crate::exec::Vcpu;
use crate::ops::backend;

const A: Slot = RegFile::slot(RAX);
const D: Slot = RegFile::slot(RDX);

/// Writes a double-width value to AX or rDX:rAX.
fn set_pair(cpu: &mut Vcpu, width: Width, value: u128) {
    if width == Width::B1 {
        cpu.state.regs.set16(A, value as u16);
    } else {
        cpu.state.regs.set(A, width, value as u64 & width.mask());
        cpu.state.regs.set(D, width, (value >> width.bits()) as u64 & width.mask());
    }
}

fn pair(cpu: &Vcpu, width: Width) -> u128 {
    if width == Width::B1 {
        u128::from(cpu.state.regs.get16(A))
    } else {
        u128::from(cpu.state.regs.get(D, width)) << width.bits() | u128::from(cpu.state.regs.get(A, width))
    }
}

fn set_product_flags(cpu: &mut Vcpu, width: Width, low: u64, overflow: bool) {
    let r = width.sext(low);
    cpu.state.flags.set(FlagOp::Parts, r, if overflow { CF | OF } else { 0 }, r);
}

/// MUL
pub fn mul(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let width = insn.width;
    let x = operand(cpu, insn, 0, width)?;
    let product = u128::from(x) * u128::from(cpu.state.regs.get(A, width));
    set_pair(cpu, width, product);
    set_product_flags(cpu, width, product as u64, product >> width.bits() != 0);
    Ok(())
}

/// IMUL with one, two or three operands
pub fn imul(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    if insn.ops[2].kind != Kind::None {
        return backend::exec::<alu::Imul3>(cpu, insn);
    }
    if insn.ops[1].kind != Kind::None {
        return backend::exec::<alu::Imul2>(cpu, insn);
    }
    let width = insn.width;
    let x = width.sext(operand(cpu, insn, 0, width)?) as i64;
    let y = width.sext(cpu.state.regs.get(A, width)) as i64;
    let product = i128::from(x) * i128::from(y);
    set_pair(cpu, width, product as u128);
    let low = width.sext(product as u64) as i64;
    set_product_flags(cpu, width, low as u64, i128::from(low) != product);
    Ok(())
}

/// DIV
pub fn div(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let width = insn.width;
    let divisor = operand(cpu, insn, 0, width)?;
    let dividend = pair(cpu, width);
    if divisor == 0 || (dividend >> width.bits()) as u64 >= divisor {
        return Err(Fault::plain(fault::DE));
    }
    let (quotient, remainder) = match u64::try_from(dividend) {
        Ok(small) => (small / divisor, small % divisor),
        Err(_) => ((dividend / u128::from(divisor)) as u64, (dividend % u128::from(divisor)) as u64),
    };
    set_quotient(cpu, width, quotient, remainder);
    Ok(())
}

/// IDIV
pub fn idiv(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let width = insn.width;
    let divisor = i128::from(width.sext(operand(cpu, insn, 0, width)?) as i64);
    let unused = 128 - 2 * width.bits();
    let dividend = ((pair(cpu, width) << unused) as i128) >> unused;
    // The most negative 128-bit dividend by -1 overflows i128 itself.
    let (Some(quotient), Some(remainder)) = (dividend.checked_div(divisor), dividend.checked_rem(divisor)) else {
        return Err(Fault::plain(fault::DE));
    };
    if i128::from(width.sext(quotient as u64) as i64) != quotient {
        return Err(Fault::plain(fault::DE));
    }
    set_quotient(cpu, width, quotient as u64, remainder as u64);
    Ok(())
}

fn set_quotient(cpu: &mut Vcpu, width: Width, quotient: u64, remainder: u64) {
    if width == Width::B1 {
        cpu.state.regs.set16(A, (remainder as u16) << 8 | (quotient as u16 & 0xff));
    } else {
        cpu.state.regs.set(A, width, quotient & width.mask());
        cpu.state.regs.set(D, width, remainder & width.mask());
    }
}

/// CBW, CWDE, CDQE
pub fn extend_rax(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let (from, to) = match insn.code {
        iced_x86::Code::Cbw => (Width::B1, Width::B2),
        iced_x86::Code::Cwde => (Width::B2, Width::B4),
        _ => (Width::B4, Width::B8),
    };
    let value = from.sext(cpu.state.regs.get(A, from));
    cpu.state.regs.set(A, to, value & to.mask());
    Ok(())
}

/// CWD, CDQ, CQO
pub fn extend_to_rdx(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let width = match insn.code {
        iced_x86::Code::Cwd => Width::B2,
        iced_x86::Code::Cdq => Width::B4,
        _ => Width::B8,
    };
    let sign = ((width.sext(cpu.state.regs.get(A, width)) as i64) >> 63) as u64;
    cpu.state.regs.set(D, width, sign & width.mask());
    Ok(())
}
