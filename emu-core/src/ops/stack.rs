//! The stack as instructions use it: SS:rSP, with the stack's own address size (SDM Vol. 1 6.2).

use crate::cpu::Width;
use crate::cpu::fault::Fault;
use crate::cpu::regs::{RSP, RegFile};
use crate::cpu::segment::Seg;
use crate::exec::Vcpu;
use crate::mmu::walk::Access;

impl Vcpu {
    /// rSP in the stack's address size.
    pub fn sp(&self) -> u64 {
        self.state.regs.get(RegFile::slot(RSP), self.state.stack_width())
    }

    /// Sets rSP in the stack's address size; what lies above stays, except that a 32-bit write clears the upper half.
    pub fn set_sp(&mut self, value: u64) {
        let width = self.state.stack_width();
        self.state.regs.set(RegFile::slot(RSP), width, value);
    }

    /// Adds to rSP in the stack's address size.
    pub fn adjust_sp(&mut self, by: i64) {
        let sp = self.sp().wrapping_add(by as u64);
        self.set_sp(sp);
    }

    /// Reads `width` bytes at `offset` above the stack pointer.
    ///
    /// # Errors
    /// #SS(0), #PF, #AC.
    pub fn stack_read(&mut self, offset: i64, width: Width) -> Result<u64, Fault> {
        let at = self.sp().wrapping_add(offset as u64) & self.state.stack_width().mask();
        let linear = self.seg_linear(Seg::Ss, at, width.bytes(), Access::Read)?;
        self.load_width(linear, width)
    }

    /// Writes `width` bytes at `offset` from the stack pointer.
    ///
    /// # Errors
    /// #SS(0), #PF, #AC.
    pub fn stack_write(&mut self, offset: i64, width: Width, value: u64) -> Result<(), Fault> {
        let at = self.sp().wrapping_add(offset as u64) & self.state.stack_width().mask();
        let linear = self.seg_linear(Seg::Ss, at, width.bytes(), Access::Write)?;
        self.store_width(linear, width, value)
    }

    /// Pushes the low `width` bytes of `value`.
    ///
    /// # Errors
    /// #SS(0), #PF, #AC; rSP is then unchanged.
    pub fn push(&mut self, width: Width, value: u64) -> Result<(), Fault> {
        self.stack_write(-(width.bytes() as i64), width, value)?;
        self.adjust_sp(-(width.bytes() as i64));
        Ok(())
    }

    /// Pops `width` bytes.
    ///
    /// # Errors
    /// #SS(0), #PF, #AC; rSP is then unchanged.
    pub fn pop(&mut self, width: Width) -> Result<u64, Fault> {
        let value = self.stack_read(0, width)?;
        self.adjust_sp(width.bytes() as i64);
        Ok(value)
    }
}
