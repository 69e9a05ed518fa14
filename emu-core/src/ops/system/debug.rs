//! MOV to and from debug registers (SDM Vol. 3B 18.2).

use super::control::register_width;
use super::privileged;
use crate::cpu::control::CR4_DE;
use crate::cpu::fault::{self, Fault};
use crate::decode::insn::Insn;
use crate::exec::Vcpu;
use crate::exec::run::{DR6_BD, DR7_GD};

/// MOV r, DRn
pub fn read(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let number = open(cpu, insn.ops[1].reg)?;
    cpu.state.regs.set(insn.ops[0].reg, register_width(insn), cpu.state.dr[number]);
    Ok(())
}

/// MOV DRn, r
pub fn write(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let number = open(cpu, insn.ops[0].reg)?;
    let value = cpu.state.regs.get(insn.ops[1].reg, register_width(insn));
    if number >= 6 && value >> 32 != 0 {
        return Err(Fault::gp0());
    }
    cpu.state.dr[number] = match number {
        6 => (value & 0xe00f) | 0xffff_0ff0,
        7 => (value & 0xffff_23ff) | 0x400,
        _ => value,
    };
    cpu.mode_changed();
    Ok(())
}

/// Checks that debug register `number` may be accessed; the register that it stands for.
fn open(cpu: &mut Vcpu, number: u8) -> Result<usize, Fault> {
    let number = match number {
        4 | 5 if cpu.state.cr4 & CR4_DE == 0 => number + 2,
        0..=3 | 6 | 7 => number,
        _ => return Err(Fault::ud()),
    };
    privileged(cpu)?;
    if cpu.state.dr[7] & DR7_GD != 0 {
        cpu.state.dr[6] |= DR6_BD;
        return Err(Fault::plain(fault::DB));
    }
    Ok(usize::from(number))
}
