//! Instructions of the protection model: LDTR and TR, access checks, ARPL and BOUND (SDM Vol. 2; Vol. 3A 5.10).

use super::Exec;
use crate::cpu::Width;
use crate::cpu::fault::{self, Fault};
use crate::cpu::rflags::ZF;
use crate::cpu::segment::{Segment, system};
use crate::decode::insn::{Insn, Kind};
use crate::exec::Vcpu;
use crate::exec::descriptor::{is_null, rpl};
use crate::mmu::walk::Access;
use iced_x86::Mnemonic;

/// The rows of this group.
pub fn exec(m: Mnemonic) -> Option<Exec> {
    Some(match m {
        Mnemonic::Lldt => lldt,
        Mnemonic::Ltr => ltr,
        Mnemonic::Sldt => sldt,
        Mnemonic::Str => str,
        Mnemonic::Lar => lar,
        Mnemonic::Lsl => lsl,
        Mnemonic::Verr => verr,
        Mnemonic::Verw => verw,
        Mnemonic::Arpl => arpl,
        Mnemonic::Bound => bound,
        _ => return None,
    })
}

/// The 16-bit value of operand `n`, a register or memory.
fn read16(cpu: &mut Vcpu, insn: &Insn, n: usize) -> Result<u16, Fault> {
    if insn.ops[n].kind == Kind::Mem {
        let linear = cpu.linear(insn, 2, Access::Read)?;
        cpu.load(linear)
    } else {
        Ok(cpu.state.regs.get16(insn.ops[n].reg))
    }
}

/// #UD in real-address and virtual-8086 mode, which know no selectors.
fn need_protected(cpu: &Vcpu) -> Result<(), Fault> {
    if cpu.state.real_or_v86() { Err(Fault::ud()) } else { Ok(()) }
}

fn need_level_0(cpu: &Vcpu) -> Result<(), Fault> {
    need_protected(cpu)?;
    if cpu.state.cpl != 0 { Err(Fault::gp0()) } else { Ok(()) }
}

fn lldt(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    need_level_0(cpu)?;
    let selector = read16(cpu, insn, 0)?;
    if is_null(selector) {
        cpu.state.ldtr = Segment::null(selector);
        return Ok(());
    }
    let ldt = table_segment(cpu, selector, &[system::LDT])?;
    cpu.state.ldtr = ldt;
    Ok(())
}

fn ltr(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    need_level_0(cpu)?;
    let selector = read16(cpu, insn, 0)?;
    if is_null(selector) {
        return Err(Fault::gp0());
    }
    let kinds: &[u8] = if cpu.state.long_mode() {
        &[system::TSS32_AVAILABLE]
    } else {
        &[system::TSS16_AVAILABLE, system::TSS32_AVAILABLE]
    };
    let mut tss = table_segment(cpu, selector, kinds)?;
    cpu.set_busy(selector, true)?;
    tss.attributes |= u16::from(system::BUSY);
    cpu.state.tr = tss;
    Ok(())
}

/// A present system segment of one of `kinds` in the GDT.
fn table_segment(cpu: &mut Vcpu, selector: u16, kinds: &[u8]) -> Result<Segment, Fault> {
    let bad = Fault::selector(fault::GP, selector);
    if selector & 4 != 0 {
        return Err(bad);
    }
    let segment = cpu.system_segment(selector, fault::GP)?;
    if segment.is(Segment::S) || !kinds.contains(&segment.kind()) {
        return Err(bad);
    }
    if !segment.is(Segment::P) {
        return Err(Fault::selector(fault::NP, selector));
    }
    if cpu.state.long_mode() && !cpu.state.canonical(segment.base) {
        return Err(bad);
    }
    Ok(segment)
}

fn sldt(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    store_selector(cpu, insn, cpu.state.ldtr.selector)
}

fn str(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    store_selector(cpu, insn, cpu.state.tr.selector)
}

fn store_selector(cpu: &mut Vcpu, insn: &Insn, selector: u16) -> Result<(), Fault> {
    need_protected(cpu)?;
    cpu.user_mode_prevented()?;
    if insn.ops[0].kind == Kind::Mem {
        let linear = cpu.linear(insn, 2, Access::Write)?;
        return cpu.store(linear, selector);
    }
    let width = Width::from_bytes(usize::from(insn.ops[0].size));
    cpu.state.regs.set(insn.ops[0].reg, width, u64::from(selector));
    Ok(())
}

/// The descriptor of `selector` if the running code may see it: present in its table, and not more privileged. `None`
/// clears ZF in the instructions that ask.
fn visible(cpu: &mut Vcpu, selector: u16) -> Result<Option<(u64, Segment)>, Fault> {
    if is_null(selector) {
        return Ok(None);
    }
    let Some(linear) = cpu.descriptor_address(selector, 8) else { return Ok(None) };
    let raw = cpu.load_system(linear, Width::B8)?;
    let segment = Segment::from_descriptor(selector, raw);
    let hidden = !segment.is_conforming_code() && segment.dpl() < cpu.state.cpl.max(rpl(selector));
    Ok((!hidden).then_some((raw, segment)))
}

fn set_zf(cpu: &mut Vcpu, zf: bool) {
    cpu.state.flags.replace(ZF, if zf { ZF } else { 0 });
}

/// Stores what LAR and LSL found in the first operand, or only clears ZF.
fn answer(cpu: &mut Vcpu, insn: &Insn, found: Option<u64>) -> Result<(), Fault> {
    if let Some(value) = found {
        let width = Width::from_bytes(usize::from(insn.ops[0].size));
        cpu.state.regs.set(insn.ops[0].reg, width, value);
    }
    set_zf(cpu, found.is_some());
    Ok(())
}

/// Whether LAR (and without `gates` LSL) answers for a system descriptor of type `kind`.
fn has_rights(kind: u8, long: bool, gates: bool) -> bool {
    match kind {
        system::LDT | system::TSS32_AVAILABLE | system::TSS32_BUSY => true,
        system::TSS16_AVAILABLE | system::TSS16_BUSY => !long,
        system::CALL_GATE32 => gates,
        system::CALL_GATE16 | system::TASK_GATE => gates && !long,
        _ => false,
    }
}

fn lar(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    need_protected(cpu)?;
    let selector = read16(cpu, insn, 1)?;
    let long = cpu.state.long_mode();
    let found = visible(cpu, selector)?
        .filter(|(_, s)| s.is(Segment::S) || has_rights(s.kind(), long, true))
        .map(|(raw, _)| raw >> 32 & 0x00f0_ff00);
    answer(cpu, insn, found)
}

fn lsl(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    need_protected(cpu)?;
    let selector = read16(cpu, insn, 1)?;
    let long = cpu.state.long_mode();
    let found = visible(cpu, selector)?
        .filter(|(_, s)| s.is(Segment::S) || has_rights(s.kind(), long, false))
        .map(|(_, s)| u64::from(s.limit));
    answer(cpu, insn, found)
}

fn verr(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    need_protected(cpu)?;
    let selector = read16(cpu, insn, 0)?;
    let found = visible(cpu, selector)?;
    let readable = |s: &Segment| s.is(Segment::S) && (!s.is(Segment::CODE) || s.is(Segment::RW));
    set_zf(cpu, found.is_some_and(|(_, s)| readable(&s)));
    Ok(())
}

fn verw(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    need_protected(cpu)?;
    let selector = read16(cpu, insn, 0)?;
    let found = visible(cpu, selector)?;
    set_zf(cpu, found.is_some_and(|(_, s)| s.is_writable_data()));
    Ok(())
}

fn arpl(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    need_protected(cpu)?;
    let source = cpu.state.regs.get16(insn.ops[1].reg);
    let selector = read16(cpu, insn, 0)?;
    let raise = rpl(selector) < rpl(source);
    if raise {
        let adjusted = (selector & !3) | (source & 3);
        if insn.ops[0].kind == Kind::Mem {
            let linear = cpu.linear(insn, 2, Access::Write)?;
            cpu.store(linear, adjusted)?;
        } else {
            cpu.state.regs.set16(insn.ops[0].reg, adjusted);
        }
    }
    set_zf(cpu, raise);
    Ok(())
}

/// BOUND: #BR unless lower <= index <= upper, signed.
fn bound(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let width = Width::from_bytes(usize::from(insn.ops[0].size));
    let linear = cpu.linear(insn, 2 * width.bytes(), Access::Read)?;
    let signed = |value: u64| width.sext(value) as i64;
    let lower = signed(cpu.load_width(linear, width)?);
    let upper = signed(cpu.load_width(cpu.wrap_linear(linear.wrapping_add(width.bytes())), width)?);
    let index = signed(cpu.state.regs.get(insn.ops[0].reg, width));
    if index < lower || index > upper { Err(Fault::plain(fault::BR)) } else { Ok(()) }
}
