//! Instructions that load and store segment registers (SDM Vol. 2, MOV, PUSH, POP, LDS/LES/LFS/LGS/LSS).

use super::Exec;
use crate::cpu::Width;
use crate::cpu::fault::Fault;
use crate::cpu::segment::Seg;
use crate::decode::insn::{Insn, Kind};
use crate::exec::Vcpu;
use crate::mmu::walk::Access;
use iced_x86::Mnemonic;

/// The rows of this group, besides MOV, PUSH and POP.
pub fn exec(m: Mnemonic) -> Option<Exec> {
    Some(match m {
        Mnemonic::Les => load_far::<{ Seg::Es as u8 }>,
        Mnemonic::Lds => load_far::<{ Seg::Ds as u8 }>,
        Mnemonic::Lss => load_far::<{ Seg::Ss as u8 }>,
        Mnemonic::Lfs => load_far::<{ Seg::Fs as u8 }>,
        Mnemonic::Lgs => load_far::<{ Seg::Gs as u8 }>,
        _ => return None,
    })
}

/// The segment register with number `n`; CS cannot be loaded and numbers above 5 do not exist, but decode as such.
fn register(n: u8) -> Result<Seg, Fault> {
    Seg::ALL.get(usize::from(n)).copied().ok_or(Fault::ud())
}

/// MOV to and from a segment register
pub fn mov(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    if insn.ops[0].kind == Kind::Seg {
        let seg = register(insn.ops[0].reg)?;
        if seg == Seg::Cs {
            return Err(Fault::ud());
        }
        let selector = match insn.ops[1].kind {
            Kind::Mem => {
                let linear = cpu.linear(insn, 2, Access::Read)?;
                cpu.load::<u16>(linear)?
            }
            _ => cpu.state.regs.get16(insn.ops[1].reg),
        };
        return load(cpu, insn, seg, selector);
    }
    let selector = cpu.state.segment(register(insn.ops[1].reg)?).selector;
    if insn.ops[0].kind == Kind::Mem {
        let linear = cpu.linear(insn, 2, Access::Write)?;
        return cpu.store(linear, selector);
    }
    cpu.state.regs.set(insn.ops[0].reg, Width::from_bytes(usize::from(insn.ops[0].size)), u64::from(selector));
    Ok(())
}

fn load(cpu: &mut Vcpu, insn: &Insn, seg: Seg, selector: u16) -> Result<(), Fault> {
    let value = cpu.checked_segment(seg, selector)?;
    cpu.load_segment(seg, value);
    if seg == Seg::Ss {
        shadow(cpu, insn);
    }
    Ok(())
}

/// After MOV SS and POP SS neither interrupts nor debug traps are taken before the next instruction is through.
fn shadow(cpu: &mut Vcpu, insn: &Insn) {
    if cpu.must_look_after(insn) {
        cpu.state.interrupt_shadow = true;
        cpu.state.debug_shadow = true;
        cpu.leave = true;
    }
}

impl Vcpu {
    /// Whether something could come between `insn` and the next instruction. If the next one follows in the same block
    /// and nothing is pending, nothing can, and an interrupt shadow needs no record.
    pub fn must_look_after(&self, insn: &Insn) -> bool {
        insn.after == 0 || self.something_waits()
    }

    /// Whether something is to happen between two instructions.
    pub(crate) fn something_waits(&self) -> bool {
        self.leave || self.pins.get() != 0 || self.state.pending_debug != 0
    }
}

/// PUSH of a segment register: a 16-bit move, whatever the operand size takes from the stack (SDM Vol. 2B, PUSH).
pub fn push(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let selector = cpu.state.segment(register(insn.ops[0].reg)?).selector;
    let size = insn.width.bytes() as i64;
    // Only 64-bit pushes write more than the selector.
    let written = if insn.width == Width::B8 { Width::B8 } else { Width::B2 };
    cpu.stack_write(-size, written, u64::from(selector))?;
    cpu.adjust_sp(-size);
    Ok(())
}

/// POP of a segment register
pub fn pop(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let seg = register(insn.ops[0].reg)?;
    let selector = cpu.stack_read(0, insn.width)? as u16;
    let value = cpu.checked_segment(seg, selector)?;
    // The stack pointer moves in the size of the old SS.
    cpu.adjust_sp(insn.width.bytes() as i64);
    cpu.load_segment(seg, value);
    if seg == Seg::Ss {
        shadow(cpu, insn);
    }
    Ok(())
}

/// LES, LDS, LSS, LFS, LGS. LSS casts no interrupt shadow: it exists to load rSP in the same instruction.
fn load_far<const SEG: u8>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let seg = register(SEG)?;
    let (offset, selector, width) = cpu.load_far_pointer(insn)?;
    let value = cpu.checked_segment(seg, selector)?;
    cpu.load_segment(seg, value);
    cpu.state.regs.set(insn.ops[0].reg, width, offset);
    Ok(())
}
