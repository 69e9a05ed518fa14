//! Threaded code: decoded instructions as handlers with their operands, each of which ends by calling the next.
//!
//! ```text
//!  block:   enter | op | op | op | jump ----link----> enter | op | ...
//! ```
//! In optimised builds a handler's last act is a call that the compiler turns into a jump, so that the stack stays flat;
//! in unoptimised builds it returns the next op to a loop instead (`emu_tail` is set by build.rs).
//!
//! `unsafe` is allowed here, a departure from the design that ARCHITECTURE.md explains: an op reaches its neighbour and
//! its block through pointers. All rest on one invariant, kept by [`super::cache`]: **a block, its ops and its
//! instructions never move, and are freed only by [`super::cache::BlockCache::collect`], which runs only when no
//! handler is on the stack.** Stale blocks stay readable until then.

#![allow(unsafe_code)]

use super::Vcpu;
use super::cache::Block;
use crate::cpu::regs::Slot;
use std::cell::Cell;
use std::ops::Deref;
use std::ptr::NonNull;

/// Executes one op and what follows it.
pub type Handler = fn(&mut Vcpu, OpRef) -> Exit;

/// One step of threaded code, half a cache line.
#[repr(C, align(32))]
pub struct Op {
    /// What executes it.
    pub handler: Cell<Handler>,
    /// Slot of the first register operand.
    pub r0: Slot,
    /// Slot of the second register operand.
    pub r1: Slot,
    /// Slot of the base of a memory operand.
    pub base: Slot,
    /// Slot of its index.
    pub index: Slot,
    /// log2 of its scale.
    pub shift: u8,
    /// Slot of its segment's base.
    pub seg: Slot,
    /// Which instruction of the block this is.
    pub insn: u16,
    /// Displacement of the memory operand.
    pub disp: i32,
    /// Immediate; for jumps, the target as a distance from the start of the block.
    pub imm: i32,
    /// Jumps: the entry of the target block, null until linked. Entries: the block itself.
    link: Cell<*const ()>,
}

impl Op {
    /// An op of `handler` for instruction `insn` of its block, without operands.
    pub fn new(handler: Handler, insn: u16) -> Op {
        use crate::cpu::regs::ZERO;
        Op {
            handler: Cell::new(handler),
            r0: ZERO,
            r1: ZERO,
            base: ZERO,
            index: ZERO,
            shift: 0,
            seg: ZERO,
            insn,
            disp: 0,
            imm: 0,
            link: Cell::new(std::ptr::null()),
        }
    }

    /// A 64-bit immediate that takes the place of displacement and immediate.
    #[inline(always)]
    pub fn wide(&self) -> u64 {
        u64::from(self.disp as u32) << 32 | u64::from(self.imm as u32)
    }

    /// Forgets the target of a jump. Not for the entry of a block.
    pub fn unlink(&self) {
        self.link.set(std::ptr::null());
    }

    /// Sets what [`Op::wide`] returns.
    pub fn set_wide(&mut self, value: u64) {
        self.disp = (value >> 32) as i32;
        self.imm = value as i32;
    }
}

/// A reference to an op that is good as long as handlers run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct OpRef(NonNull<Op>);

impl Deref for OpRef {
    type Target = Op;
    #[inline(always)]
    fn deref(&self) -> &Op {
        // SAFETY: by the module's invariant the op outlives every use of an `OpRef`.
        unsafe { self.0.as_ref() }
    }
}

impl OpRef {
    /// The entry of `block`.
    pub fn entry(block: &Block) -> OpRef {
        let ops: &[Op] = &block.ops;
        assert!(ops.len() >= 2, "a block has an entry and a last op");
        OpRef(NonNull::from(ops).cast())
    }

    /// The following op of the block. Not for the last op of a block, which leaves the block instead.
    #[inline(always)]
    pub fn next(self) -> OpRef {
        // SAFETY: blocks end in an op whose handler never calls `next` (`decode::block::finish` asserts it by
        // construction: the last op is a jump, a leaving op or the fall-through), so there is one behind this.
        OpRef(unsafe { self.0.add(1) })
    }

    /// Links a jump to the entry of its target.
    pub fn link_to(self, target: OpRef) {
        self.link.set(target.0.as_ptr() as *const ());
    }

    /// The entry that a jump is linked to.
    #[inline(always)]
    pub fn linked(self) -> Option<OpRef> {
        NonNull::new(self.link.get() as *mut Op).map(OpRef)
    }

    /// Marks an entry op as that of `block`.
    pub fn set_block(self, block: &Block) {
        self.link.set(std::ptr::from_ref(block).cast());
    }

    /// The block of an entry op.
    #[inline(always)]
    pub fn block<'a>(self) -> &'a Block {
        // SAFETY: only called on entry ops of finished blocks (`Vcpu::block` holds nothing else), whose link is their
        // block; by the module's invariant the block is alive while handlers run. The lifetime ends within the handler.
        unsafe { &*(self.link.get() as *const Block) }
    }
}

/// Why threaded code came back to the dispatcher. In unoptimised builds also the op to go on with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Exit(usize);

impl Exit {
    /// Go on at `state.rip`.
    pub const LOOKUP: Exit = Exit(0);
    /// The budget does not cover the block at `state.rip`.
    pub const BUDGET: Exit = Exit(1);
    /// `Vcpu::fault` holds a fault of the instruction at `state.rip`.
    pub const FAULT: Exit = Exit(2);
}

/// Continues with `op`: the last act of a handler.
#[inline(always)]
pub fn dispatch(cpu: &mut Vcpu, op: OpRef) -> Exit {
    #[cfg(emu_tail)]
    {
        (op.handler.get())(cpu, op)
    }
    #[cfg(not(emu_tail))]
    {
        let _ = cpu;
        Exit(op.0.as_ptr() as usize)
    }
}

/// Runs threaded code from `op` until it leaves.
pub fn run(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let exit = (op.handler.get())(cpu, op);
    #[cfg(not(emu_tail))]
    let exit = {
        let mut exit = exit;
        while exit.0 > Exit::FAULT.0 {
            let Some(next) = NonNull::new(exit.0 as *mut Op).map(OpRef) else { break };
            exit = (next.handler.get())(cpu, next);
        }
        exit
    };
    exit
}
