//! LGDT, LIDT, SGDT, SIDT (SDM Vol. 2).
//!
//! ```text
//!  offset 0: limit, 2 bytes    offset 2: base, 8 bytes in 64-bit mode, else 4, of which LGDT and LIDT with a 16-bit
//!                              operand size use 3
//! ```

use super::{canonical, privileged};
use crate::cpu::Width;
use crate::cpu::fault::Fault;
use crate::cpu::segment::TableRegister;
use crate::decode::insn::Insn;
use crate::exec::Vcpu;
use crate::mmu::walk::Access;
use iced_x86::Code;

/// LGDT
pub fn lgdt(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.state.gdtr = load(cpu, insn)?;
    Ok(())
}

/// LIDT
pub fn lidt(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.state.idtr = load(cpu, insn)?;
    Ok(())
}

/// SGDT
pub fn sgdt(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    store(cpu, insn, cpu.state.gdtr)
}

/// SIDT
pub fn sidt(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    store(cpu, insn, cpu.state.idtr)
}

fn base_width(insn: &Insn) -> Width {
    if insn.code_bits == 64 { Width::B8 } else { Width::B4 }
}

fn load(cpu: &mut Vcpu, insn: &Insn) -> Result<TableRegister, Fault> {
    privileged(cpu)?;
    let width = base_width(insn);
    let linear = cpu.linear(insn, 2 + width.bytes(), Access::Read)?;
    let limit = cpu.load::<u16>(linear)?;
    let at = cpu.wrap_linear(linear.wrapping_add(2));
    let mut base = cpu.load_width(at, width)?;
    if matches!(insn.code, Code::Lgdt_m1632_16 | Code::Lidt_m1632_16) {
        base &= 0x00ff_ffff;
    }
    canonical(cpu, base)?;
    Ok(TableRegister { base, limit })
}

fn store(cpu: &mut Vcpu, insn: &Insn, table: TableRegister) -> Result<(), Fault> {
    cpu.user_mode_prevented()?;
    let width = base_width(insn);
    let size = 2 + width.bytes();
    let linear = cpu.linear(insn, size, Access::Write)?;
    let bytes = (u128::from(table.base) << 16 | u128::from(table.limit)).to_le_bytes();
    let privilege = cpu.privilege();
    cpu.write_bytes(linear, &bytes[..size as usize], privilege)
}
