//! The handlers that every block needs: entry, exits, and the one that calls an instruction's unspecialised function.

use super::Vcpu;
use super::cache::ModeKey;
use super::region;
use super::thread::{Exit, Op, OpRef, dispatch};
use crate::cpu::fault::Fault;
use crate::cpu::regs::BLOCK_RIP;
use crate::decode::insn::Insn;
use crate::ops::fast;

/// The entry of a block: pays for its instructions.
pub fn enter(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let left = cpu.budget - i64::from(op.imm);
    if left < 0 {
        return over_budget(cpu);
    }
    cpu.budget = left;
    cpu.block = Some(op);
    dispatch(cpu, op.next())
}

/// The entry of a block of one instruction that crosses into the next page: as [`enter`] if that is the page it was.
pub fn crossing(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let rip = cpu.state.regs.get64(BLOCK_RIP);
    if !cpu.holds_tail(op, rip) {
        return cpu.tear(op);
    }
    region::note(cpu, op);
    enter(cpu, op)
}

/// The entry of a block that stands for one instruction which crosses into the next page, where segments have limits.
pub fn single(cpu: &mut Vcpu, _: OpRef) -> Exit {
    cpu.state.rip = cpu.state.regs.get64(BLOCK_RIP);
    step(cpu)
}

/// Executes the instruction at `state.rip` by itself, and goes on behind it.
pub fn step(cpu: &mut Vcpu) -> Exit {
    if cpu.budget <= 0 {
        return Exit::BUDGET;
    }
    cpu.step();
    if cpu.leave || cpu.mode & super::mode::FLAT == 0 {
        return Exit::LOOKUP;
    }
    let target = cpu.state.rip;
    chain(cpu, target)
}

#[cold]
#[inline(never)]
fn over_budget(cpu: &mut Vcpu) -> Exit {
    cpu.state.rip = cpu.state.regs.get64(BLOCK_RIP);
    Exit::BUDGET
}

impl Vcpu {
    /// Decodes the block of `op` anew: its second page is another one now.
    #[cold]
    #[inline(never)]
    fn tear(&mut self, op: OpRef) -> Exit {
        let block = op.block();
        block.stale.set(true);
        block.cool();
        op.handler.set(stale);
        self.regions.invalidate(block.offset);
        stale(self, op)
    }
}

/// The entry of a block that has been overwritten: links still lead here.
pub fn stale(cpu: &mut Vcpu, op: OpRef) -> Exit {
    match op.block().newest() {
        Some(entry) => dispatch(cpu, entry),
        None => renew(cpu),
    }
}

/// Goes to the block that is to be decoded anew at the start of the running one.
#[cold]
#[inline(never)]
fn renew(cpu: &mut Vcpu) -> Exit {
    let rip = cpu.state.regs.get64(BLOCK_RIP);
    match cpu.linkable(rip) {
        Some(entry) => dispatch(cpu, entry),
        None => {
            cpu.state.rip = rip;
            Exit::LOOKUP
        }
    }
}

/// The end of a block whose last instruction does not jump, where blocks are not linked.
pub fn fall_through(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let mask = if cpu.mode & super::mode::CODE == 2 { u64::MAX } else { 0xffff_ffff };
    cpu.state.rip = cpu.state.regs.get64(BLOCK_RIP).wrapping_add(op.imm as u64) & mask;
    Exit::LOOKUP
}

/// Goes on at `target` without the dispatcher if the jump cache knows it.
#[inline(always)]
pub fn chain(cpu: &mut Vcpu, target: u64) -> Exit {
    match cpu.cache.jump(target, cpu.jump_tag) {
        Some(entry) => {
            cpu.state.regs.set64(BLOCK_RIP, target);
            dispatch(cpu, entry)
        }
        None => {
            cpu.state.rip = target;
            Exit::LOOKUP
        }
    }
}

/// Executes an instruction by its unspecialised function: what has no handler of its own, and every handler's way out
/// when an access misses the TLB or faults.
#[inline(never)]
pub fn unspecialised(cpu: &mut Vcpu, op: OpRef) -> Exit {
    match perform(cpu, op) {
        Outcome::Next => dispatch(cpu, op.next()),
        Outcome::Jump => {
            let target = cpu.state.rip;
            chain(cpu, target)
        }
        Outcome::Lookup => Exit::LOOKUP,
        Outcome::Fault => Exit::FAULT,
    }
}

/// How it goes on behind an instruction of a block.
pub enum Outcome {
    /// With the next of the block.
    Next,
    /// At `state.rip`, as a block's last instruction says.
    Jump,
    /// At `state.rip`, after the dispatcher has looked.
    Lookup,
    /// With `Vcpu::fault`.
    Fault,
}

/// The part of [`unspecialised`] that has the function's result on its stack: a frame of its own, because one with such
/// a local cannot end in a tail call.
#[inline(never)]
fn perform(cpu: &mut Vcpu, op: OpRef) -> Outcome {
    match current(cpu, op) {
        Some(insn) => complete(cpu, insn),
        None => Outcome::Lookup,
    }
}

/// Executes an instruction of a block that has paid for all of its own; what is not executed is given back.
#[inline(always)]
pub fn complete(cpu: &mut Vcpu, insn: &Insn) -> Outcome {
    match cpu.execute(insn) {
        Ok(()) => {
            if cpu.leave {
                cpu.refund(i64::from(insn.after));
                Outcome::Lookup
            } else if insn.after == 0 {
                Outcome::Jump
            } else {
                Outcome::Next
            }
        }
        Err(Fault::Retry) => {
            cpu.refund(i64::from(insn.after));
            Outcome::Lookup
        }
        Err(fault) => {
            cpu.refund(i64::from(insn.after) + 1);
            cpu.leave_with(fault);
            Outcome::Fault
        }
    }
}

/// The instruction of `op` in the running block.
#[inline(always)]
pub fn current<'a>(cpu: &Vcpu, op: OpRef) -> Option<&'a Insn> {
    cpu.block.and_then(|entry| entry.block::<'a>().insns.get(usize::from(op.insn)))
}

/// The op of instruction `n` of `insns`.
pub fn specialise(mode: ModeKey, insns: &[Insn], n: usize) -> Op {
    fast::select(mode, insns, n).unwrap_or_else(|| Op::new(unspecialised, n as u16))
}
