//! PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM (SDM Vol. 2B 4.1).

use super::check;
use super::packed::{Row, load, xmm};
use crate::cpu::fault::Fault;
use crate::cpu::regs::{RAX, RCX, RDX, RegFile};
use crate::cpu::rflags::{CF, OF, SF, ZF};
use crate::cpu::xmm::Xmm;
use crate::decode::insn::{Insn, Kind};
use crate::exec::Vcpu;
use iced_x86::{Code, Mnemonic};

/// The rows of this file.
pub fn row(m: Mnemonic) -> Option<Row> {
    Some(Row::plain(match m {
        Mnemonic::Pcmpestri | Mnemonic::Pcmpestri64 => pcmpestri,
        Mnemonic::Pcmpestrm | Mnemonic::Pcmpestrm64 => pcmpestrm,
        Mnemonic::Pcmpistri => pcmpistri,
        Mnemonic::Pcmpistrm => pcmpistrm,
        _ => return None,
    }))
}

/// The elements of a fragment and how many of them are valid.
struct Fragment {
    elements: [i32; 16],
    valid: usize,
}

/// The immediate's format field: bit 0 words, bit 1 signed.
fn elements(v: Xmm, imm: u8) -> [i32; 16] {
    let mut r = [0; 16];
    match imm & 3 {
        0 => r = v.lanes::<u8, 16>().map(i32::from),
        2 => r = v.lanes::<i8, 16>().map(i32::from),
        1 => r[..8].copy_from_slice(&v.lanes::<u16, 8>().map(i32::from)),
        _ => r[..8].copy_from_slice(&v.lanes::<i16, 8>().map(i32::from)),
    }
    r
}

/// Elements of a register.
fn count(imm: u8) -> usize {
    if imm & 1 == 0 { 16 } else { 8 }
}

/// The comparison with its polarity: IntRes2.
fn compare(a: &Fragment, b: &Fragment, imm: u8) -> u32 {
    let n = count(imm);
    let (x, y) = (&a.elements, &b.elements);
    let mut result = 0u32;
    for j in 0..n {
        let bit = match imm >> 2 & 3 {
            // Equal any.
            0 => j < b.valid && (0..a.valid).any(|i| x[i] == y[j]),
            // Ranges: pairs of a lower and an upper bound.
            1 => j < b.valid && (0..a.valid / 2).any(|i| x[2 * i] <= y[j] && y[j] <= x[2 * i + 1]),
            // Equal each: behind both ends everything is equal.
            2 => match (j < a.valid, j < b.valid) {
                (true, true) => x[j] == y[j],
                (left, right) => left == right,
            },
            // Equal ordered: `a` occurs in `b` at `j`.
            _ => (0..n - j).all(|i| i >= a.valid || (j + i < b.valid && x[i] == y[j + i])),
        };
        result |= u32::from(bit) << j;
    }
    let all = (1u32 << n) - 1;
    match imm >> 4 & 3 {
        1 => !result & all,
        3 => result ^ ((1u32 << b.valid) - 1),
        _ => result,
    }
}

/// Compares and sets the flags.
fn run(cpu: &mut Vcpu, imm: u8, a: Fragment, b: Fragment) -> u32 {
    let result = compare(&a, &b, imm);
    let n = count(imm);
    let bit = |set: bool, flag: u64| if set { flag } else { 0 };
    cpu.state
        .flags
        .set_bits(bit(result != 0, CF) | bit(b.valid < n, ZF) | bit(a.valid < n, SF) | bit(result & 1 != 0, OF));
    result
}

fn operands(cpu: &mut Vcpu, insn: &Insn) -> Result<(Xmm, Xmm), Fault> {
    check(cpu)?;
    let b = match insn.ops[1].kind {
        Kind::Xmm => cpu.state.xmm[xmm(insn, 1)],
        _ => load(cpu, insn, 16, false)?,
    };
    Ok((cpu.state.xmm[xmm(insn, 0)], b))
}

/// Lengths in EAX and EDX (RAX and RDX with REX.W), absolute and saturated.
fn explicit(cpu: &mut Vcpu, insn: &Insn) -> Result<u32, Fault> {
    let (a, b) = operands(cpu, insn)?;
    let imm = insn.imm as u8;
    let wide = matches!(insn.code, Code::Pcmpestri64_xmm_xmmm128_imm8 | Code::Pcmpestrm64_xmm_xmmm128_imm8);
    let length = |cpu: &Vcpu, register: u8| {
        let slot = RegFile::slot(register);
        let value = if wide { cpu.state.regs.get64(slot) as i64 } else { i64::from(cpu.state.regs.get32(slot) as i32) };
        value.unsigned_abs().min(count(imm) as u64) as usize
    };
    let a = Fragment { elements: elements(a, imm), valid: length(cpu, RAX) };
    let b = Fragment { elements: elements(b, imm), valid: length(cpu, RDX) };
    Ok(run(cpu, imm, a, b))
}

/// Fragments end before their first zero.
fn implicit(cpu: &mut Vcpu, insn: &Insn) -> Result<u32, Fault> {
    let (a, b) = operands(cpu, insn)?;
    let imm = insn.imm as u8;
    let fragment = |v: Xmm| {
        let elements = elements(v, imm);
        let n = count(imm);
        Fragment { elements, valid: elements[..n].iter().position(|e| *e == 0).unwrap_or(n) }
    };
    Ok(run(cpu, imm, fragment(a), fragment(b)))
}

/// The index of the lowest, or with bit 6 of the immediate the highest set bit, in ECX.
fn set_index(cpu: &mut Vcpu, imm: u8, result: u32) {
    let index = match result {
        0 => count(imm) as u32,
        _ if imm & 0x40 != 0 => 31 - result.leading_zeros(),
        _ => result.trailing_zeros(),
    };
    cpu.state.regs.set32(RegFile::slot(RCX), index);
}

/// The bits, or with bit 6 of the immediate masks as wide as the elements, in XMM0.
fn set_mask(cpu: &mut Vcpu, imm: u8, result: u32) {
    let mut r = Xmm::default();
    if imm & 0x40 == 0 {
        r.set32(0, result);
    } else {
        let width = 16 / count(imm);
        for (n, byte) in r.0.iter_mut().enumerate() {
            *byte = if result >> (n / width) & 1 != 0 { 0xff } else { 0 };
        }
    }
    cpu.state.xmm[0] = r;
}

fn pcmpestri(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let result = explicit(cpu, insn)?;
    set_index(cpu, insn.imm as u8, result);
    Ok(())
}

fn pcmpestrm(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let result = explicit(cpu, insn)?;
    set_mask(cpu, insn.imm as u8, result);
    Ok(())
}

fn pcmpistri(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let result = implicit(cpu, insn)?;
    set_index(cpu, insn.imm as u8, result);
    Ok(())
}

fn pcmpistrm(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let result = implicit(cpu, insn)?;
    set_mask(cpu, insn.imm as u8, result);
    Ok(())
}
