//! Stack frames that far transfers and interrupts push and pop.
//!
//! A frame is collected first and written at once: either all of it reaches memory, or a fault leaves memory and
//! registers as they were.

use super::Vcpu;
use crate::cpu::Width;
use crate::cpu::fault::{self, Fault};
use crate::cpu::regs::RSP;
use crate::cpu::rflags::AC;
use crate::cpu::segment::{Seg, Segment};
use crate::mmu::walk::{Access, Privilege};

/// The largest frame: a 32-bit call gate with 31 parameters.
const CAPACITY: usize = 35 * 4;

/// Values of one width, to be pushed together.
pub struct Frame {
    bytes: [u8; CAPACITY],
    start: usize,
    width: Width,
}

impl Frame {
    /// A frame of `width`-sized values.
    pub fn new(width: Width) -> Frame {
        Frame { bytes: [0; CAPACITY], start: CAPACITY, width }
    }

    /// Adds a value below the others. A frame has room for 35 doublewords or 17 quadwords.
    pub fn push(&mut self, value: u64) {
        let n = self.width as usize;
        let start = self.start.saturating_sub(n);
        self.bytes[start..start + n].copy_from_slice(&value.to_le_bytes()[..n]);
        self.start = start;
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// A stack to push on, current or about to become current.
#[derive(Clone, Copy, Debug)]
pub struct Stack {
    /// SS.
    pub ss: Segment,
    /// RSP; outside 64-bit code only the low `width` of it counts.
    pub sp: u64,
    /// Width of the stack pointer. [`Width::B8`] stands for 64-bit mode: no segment checks.
    pub width: Width,
    /// Under whose privilege the frame is written.
    pub privilege: Privilege,
    /// The error code of a #SS that pushing raises.
    pub error: u32,
}

impl Stack {
    /// A stack in `ss`, which is about to be loaded for code at privilege `cpl` outside 64-bit mode. Pushing beyond
    /// its limit raises #SS with its selector.
    pub fn new(ss: Segment, sp: u64, cpl: u8) -> Stack {
        let width = if ss.is(Segment::DB) { Width::B4 } else { Width::B2 };
        Stack { ss, sp, width, privilege: privilege_of(cpl), error: u32::from(ss.selector & !3) }
    }

    fn moved(&self, by: u64) -> u64 {
        let mask = self.width.mask();
        let kept = if self.width == Width::B2 { self.sp & !mask } else { 0 };
        kept | (self.sp.wrapping_sub(by) & mask)
    }
}

/// The privilege of explicit accesses by code at level `cpl`.
pub fn privilege_of(cpl: u8) -> Privilege {
    if cpl == 3 { Privilege::User } else { Privilege::Supervisor }
}

impl Vcpu {
    /// The stack that the running code uses.
    pub fn current_stack(&self) -> Stack {
        Stack {
            ss: *self.state.segment(Seg::Ss),
            sp: self.state.regs.gpr(RSP),
            width: self.state.stack_width(),
            privilege: self.privilege(),
            error: 0,
        }
    }

    /// Writes `frame` onto `stack`; the value for RSP. Nothing is written unless all of it can be.
    ///
    /// # Errors
    /// #SS with the stack's error code, #PF.
    pub fn push_frame(&mut self, stack: &Stack, frame: &Frame) -> Result<u64, Fault> {
        let bytes = frame.bytes();
        let len = bytes.len() as u64;
        let mask = stack.width.mask();
        let sp = stack.sp & mask;
        if sp >= len || sp == 0 || stack.width == Width::B8 {
            let linear = self.stack_linear(stack, sp.wrapping_sub(len) & mask, len)?;
            self.check_frame_alignment(stack, linear, frame.width)?;
            self.write_bytes(linear, bytes, self.frame_privilege(stack))?;
            self.watch(linear, len, Access::Write);
            return Ok(stack.moved(len));
        }
        // The stack pointer wraps within the frame: value by value, all checked before the first is written.
        let step = frame.width as usize;
        let place = |n: usize| stack.sp.wrapping_sub((n * step) as u64) & mask;
        let count = bytes.len() / step;
        for n in 1..=count {
            let linear = self.stack_linear(stack, place(n), step as u64)?;
            self.probe(linear, step, Access::Write, stack.privilege)?;
        }
        for (n, value) in (1..=count).zip(bytes.rchunks(step)) {
            let linear = self.stack_linear(stack, place(n), step as u64)?;
            self.write_bytes(linear, value, stack.privilege)?;
        }
        Ok(stack.moved(len))
    }

    /// Far calls of level 3 to level 3 are subject to alignment checks; pushes on an inner stack never are.
    fn check_frame_alignment(&self, stack: &Stack, linear: u64, width: Width) -> Result<(), Fault> {
        if stack.privilege == Privilege::User { self.check_alignment(linear, width.bytes()) } else { Ok(()) }
    }

    /// Pushes on an inner stack are explicit accesses; without EFLAGS.AC their rights are those of implicit ones, which
    /// the TLB knows at any level.
    fn frame_privilege(&self, stack: &Stack) -> Privilege {
        match stack.privilege {
            Privilege::Supervisor if !self.state.has(AC) => Privilege::Implicit,
            other => other,
        }
    }

    fn stack_linear(&self, stack: &Stack, offset: u64, len: u64) -> Result<u64, Fault> {
        let error = Fault::with_code(fault::SS, stack.error);
        if stack.width == Width::B8 {
            let last = offset.wrapping_add(len - 1);
            let canonical = self.state.canonical(offset) && self.state.canonical(last);
            return if canonical { Ok(offset) } else { Err(error) };
        }
        let usable = self.state.real_or_v86() || !stack.ss.unusable;
        if !usable || !stack.ss.covers(offset, len) {
            return Err(error);
        }
        Ok(stack.ss.base.wrapping_add(offset) & 0xffff_ffff)
    }
}
