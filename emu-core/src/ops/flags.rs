//! Instructions that read and write RFLAGS directly (SDM Vol. 2: CLI, STI, PUSHF, POPF and the single-flag ones).
//!
//! Who may change IF, and whether VIF stands for it, is decided in [`interrupt_flag`]: SDM Vol. 3A 20.3 (VME) and 20.4
//! (PVI), and the tables of CLI and STI.

use super::Exec;
use crate::cpu::Width;
use crate::cpu::control::{CR4_PVI, CR4_VME};
use crate::cpu::fault::Fault;
use crate::cpu::regs::{RAX, RegFile};
use crate::cpu::rflags::{AC, AF, ARITH, CF, DF, ID, IF, IOPL, NT, PF, RF, SF, TF, VIF, VIP, VM, ZF};
use crate::decode::insn::Insn;
use crate::exec::Vcpu;
use crate::irq::CpuPins;
use iced_x86::Mnemonic;

/// The rows of this group.
pub fn exec(m: Mnemonic) -> Option<Exec> {
    Some(match m {
        Mnemonic::Salc => salc,
        Mnemonic::Clc => clc,
        Mnemonic::Stc => stc,
        Mnemonic::Cmc => cmc,
        Mnemonic::Cld => cld,
        Mnemonic::Std => std,
        Mnemonic::Cli => cli,
        Mnemonic::Sti => sti,
        Mnemonic::Lahf => lahf,
        Mnemonic::Sahf => sahf,
        Mnemonic::Pushf | Mnemonic::Pushfd | Mnemonic::Pushfq => pushf,
        Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => popf,
        _ => return None,
    })
}

/// AH as a register slot.
const AH: u8 = RegFile::slot(RAX) + 1;

/// SALC (D6), which every processor has and no manual used to mention: AL is all ones if CF is set, else zero.
fn salc(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    let al = if cpu.state.flags.cf() { 0xff } else { 0 };
    cpu.state.regs.set8(RegFile::slot(RAX), al);
    Ok(())
}

fn clc(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    cpu.state.flags.replace(CF, 0);
    Ok(())
}

fn stc(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    cpu.state.flags.replace(CF, CF);
    Ok(())
}

fn cmc(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    let flipped = if cpu.state.flags.cf() { 0 } else { CF };
    cpu.state.flags.replace(CF, flipped);
    Ok(())
}

fn cld(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    cpu.state.system_flags &= !DF;
    Ok(())
}

fn std(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    cpu.state.system_flags |= DF;
    Ok(())
}

fn lahf(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    let flags = cpu.state.rflags();
    cpu.state.regs.set8(AH, flags as u8);
    Ok(())
}

fn sahf(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    let bits = u64::from(cpu.state.regs.get8(AH));
    cpu.state.flags.replace(SF | ZF | AF | PF | CF, bits);
    Ok(())
}

/// The flag that CLI and STI change: IF, or VIF where the virtual one stands for it.
///
/// # Errors
/// #GP(0) where neither may be changed.
fn interrupt_flag(cpu: &Vcpu) -> Result<u64, Fault> {
    let s = &cpu.state;
    let virtual_ok = if s.v86() { s.cr4 & CR4_VME != 0 } else { s.cr4 & CR4_PVI != 0 && s.cpl == 3 };
    if !s.protected() || s.cpl <= s.iopl() {
        Ok(IF)
    } else if virtual_ok {
        Ok(VIF)
    } else {
        Err(Fault::gp0())
    }
}

fn cli(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    let flag = interrupt_flag(cpu)?;
    cpu.state.system_flags &= !flag;
    Ok(())
}

fn sti(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let flag = interrupt_flag(cpu)?;
    if flag == VIF {
        if cpu.state.has(VIP) {
            return Err(Fault::gp0());
        }
    } else if !cpu.state.has(IF) && cpu.must_look_after(insn) {
        cpu.state.interrupt_shadow = true;
        cpu.leave = true;
    }
    cpu.state.system_flags |= flag;
    Ok(())
}

/// Whether this code runs in virtual-8086 mode without the right to touch the real IF.
fn virtual_flags(cpu: &Vcpu) -> bool {
    cpu.state.v86() && cpu.state.iopl() < 3
}

fn pushf(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let mut flags = cpu.state.rflags() & !(VM | RF);
    if virtual_flags(cpu) {
        if cpu.state.cr4 & CR4_VME == 0 || insn.width != Width::B2 {
            return Err(Fault::gp0());
        }
        flags = flags & !IF | IOPL | if cpu.state.has(VIF) { IF } else { 0 };
    }
    cpu.push(insn.width, flags)
}

fn popf(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    // iced-x86 counts the operand size as the change of the stack pointer.
    let width = insn.width;
    let is_virtual = virtual_flags(cpu);
    if is_virtual && (cpu.state.cr4 & CR4_VME == 0 || width != Width::B2) {
        return Err(Fault::gp0());
    }
    let mut mask = changeable(cpu);
    let mut value = cpu.stack_read(0, width)?;
    if width == Width::B2 {
        mask &= 0xffff;
        value &= 0xffff;
    } else {
        mask |= RF;
        value &= !RF;
    }
    if is_virtual {
        // The program's IF is VIF; enabling it while an interrupt waits for it is for the monitor to see.
        if value & TF != 0 || (value & IF != 0 && cpu.state.has(VIP)) {
            return Err(Fault::gp0());
        }
        mask |= VIF;
        value |= if value & IF != 0 { VIF } else { 0 };
    }
    cpu.adjust_sp(width.bytes() as i64);
    replace(cpu, mask, value);
    Ok(())
}

/// Flags that POPF changes outside virtual-8086 mode, besides RF.
fn changeable(cpu: &Vcpu) -> u64 {
    let s = &cpu.state;
    let plain = ARITH | TF | DF | NT | AC | ID;
    if !s.protected() || s.cpl == 0 {
        plain | IOPL | IF
    } else if s.cpl <= s.iopl() {
        plain | IF
    } else {
        plain
    }
}

/// Replaces the flags in `mask` by those of `value`.
fn replace(cpu: &mut Vcpu, mask: u64, value: u64) {
    let before = cpu.state.system_flags;
    let kept = cpu.state.rflags() & !mask;
    cpu.state.set_rflags(kept | (value & mask));
    let after = cpu.state.system_flags;
    if (before ^ after) & AC != 0 {
        cpu.mode_changed();
    }
    // Single steps and interrupts that wait for IF are the dispatcher's.
    if after & TF != 0 || (after & IF != 0 && cpu.pins.get() & CpuPins::INTR != 0) {
        cpu.leave = true;
    }
}

impl Vcpu {
    /// POPFD and POPFQ outside virtual-8086 mode, but for the stack, for compiled code. Whether that may go on behind it.
    pub fn pop_flags(&mut self, value: u64) -> bool {
        let mask = changeable(self) | RF;
        replace(self, mask, value & !RF);
        !self.leave
    }

    /// CLI for compiled code; whether it has been done.
    pub fn clear_interrupt_flag(&mut self) -> bool {
        let real = interrupt_flag(self) == Ok(IF);
        if real {
            self.state.system_flags &= !IF;
        }
        real
    }

    /// STI for compiled code, in the midst of a block; whether it has been done.
    pub fn set_interrupt_flag(&mut self) -> bool {
        // The shadow that it casts matters only where something is waiting.
        let quiet = self.state.has(IF) || !self.something_waits();
        let real = quiet && interrupt_flag(self) == Ok(IF);
        if real {
            self.state.system_flags |= IF;
        }
        real
    }
}
