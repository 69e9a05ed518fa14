//! x87 instructions (SDM Vol. 1 chapter 8, Vol. 2 instruction pages), on the arithmetic of [`crate::softfloat::x87`].
//!
//! Every instruction goes through the same stations:
//!
//! ```text
//!  begin: #NM, #MF --> memory operand --> stack check --> operation in an X87Env --> finish: flags, C1, pending --> pop
//! ```
//! What an unmasked exception prevents is prevented at `finish`; the fault itself is that of the next waiting
//! instruction. Where CR0.NE is 0 it is reported on the FERR# wire instead, as on a PC.
//!
//! FOP, FIP and FDP: instruction and data pointers follow every non-control instruction; the opcode only an instruction
//! that leaves an unmasked exception, as processors without the compatibility mode of SDM Vol. 1 8.1.9.1 do.

mod arithmetic;
mod control;
mod environment;
pub mod fast;
mod load_store;
mod stack;
mod state;
#[cfg(test)]
mod tests;

use super::Exec;
use crate::cpu::control::{CR0_EM, CR0_MP, CR0_NE, CR0_TS};
use crate::cpu::fault::{self, Fault};
use crate::cpu::rflags::IF;
use crate::cpu::segment::Seg;
use crate::decode::insn::{Insn, Kind};
use crate::exec::Vcpu;
use crate::irq::CpuPins;
use crate::mmu::walk::Access;
use crate::softfloat::F80;
use crate::softfloat::x87::{self, X87Env};
use iced_x86::Mnemonic;

/// The rows of this group.
pub fn exec(m: Mnemonic) -> Option<Exec> {
    arithmetic::exec(m).or_else(|| load_store::exec(m)).or_else(|| control::exec(m)).or_else(|| state::exec(m))
}

/// Bits of the status word (SDM Vol. 1, 8.1.3).
mod status {
    /// Stack fault.
    pub const SF: u16 = 1 << 6;
    /// Exception summary.
    pub const ES: u16 = 1 << 7;
    pub const C0: u16 = 1 << 8;
    pub const C1: u16 = 1 << 9;
    pub const C2: u16 = 1 << 10;
    pub const C3: u16 = 1 << 14;
    /// Busy: a copy of ES.
    pub const B: u16 = 1 << 15;
    /// First bit of TOP.
    pub const TOP_SHIFT: u32 = 11;
}

impl Vcpu {
    /// #NM if the FPU is emulated or holds another task's state.
    #[inline]
    fn x87_available(&self) -> Result<(), Fault> {
        if self.state.cr0 & (CR0_EM | CR0_TS) == 0 { Ok(()) } else { Err(Fault::plain(fault::NM)) }
    }

    /// What waiting instructions do first: #NM, then an exception that an earlier instruction left.
    #[inline]
    pub(crate) fn x87_begin(&mut self) -> Result<(), Fault> {
        self.x87_available()?;
        if self.state.fpu.status & status::ES != 0 { self.x87_pending() } else { Ok(()) }
    }

    /// Reports a pending exception: #MF, or by way of FERR# and the interrupt controller.
    #[cold]
    fn x87_pending(&mut self) -> Result<(), Fault> {
        if self.state.cr0 & CR0_NE != 0 {
            return Err(Fault::plain(fault::MF));
        }
        self.ferr.set(true);
        self.after_bus();
        // The processor waits for the interrupt that FERR# causes. One that cannot come is not waited for: a handler
        // that has written port F0h (IGNNE#) goes on here.
        if self.pins.get() & CpuPins::INTR != 0 && self.state.has(IF) {
            return Err(Fault::Retry);
        }
        Ok(())
    }

    /// Records where the running non-control instruction and its memory operand are.
    #[inline]
    fn x87_note(&mut self, insn: &Insn) {
        self.state.fpu.fip = self.insn_rip;
        self.state.fpu.fcs = self.state.segment(Seg::Cs).selector;
        if insn.ops[0].kind == Kind::Mem {
            self.state.fpu.fdp = self.effective(&insn.mem, insn.addr);
            self.state.fpu.fds = self.state.segment(insn.mem.seg).selector;
        }
    }

    /// Ends a computation: flags, C1, and the opcode if an exception is pending now. True if the result is not to be
    /// written.
    #[inline]
    fn x87_finish(&mut self, insn: &Insn, env: &X87Env) -> bool {
        self.x87_note(insn);
        let fpu = &mut self.state.fpu;
        fpu.set_condition(status::C1, env.rounded_up());
        if env.raised() != 0 {
            self.x87_raise(insn, env.raised() as u16);
        }
        env.aborted()
    }

    /// Sets exception flags and makes those that are not masked pending.
    fn x87_raise(&mut self, insn: &Insn, raised: u16) {
        let fpu = &mut self.state.fpu;
        fpu.status |= raised;
        if raised & !fpu.control & 0x3F != 0 {
            fpu.status |= status::ES | status::B;
            fpu.opcode = insn.imm2 & 0x7FF;
            if self.state.cr0 & CR0_NE == 0 {
                self.ferr.set(true);
                self.after_bus();
            }
        }
    }

    /// A stack fault. True if it is masked, so that the indefinite value takes the place of the result.
    #[cold]
    fn x87_stack_fault(&mut self, insn: &Insn, overflow: bool) -> bool {
        self.x87_note(insn);
        self.state.fpu.set_condition(status::C1, overflow);
        self.x87_raise(insn, status::SF | 1);
        self.state.fpu.control & 1 != 0
    }
}

/// The value of the memory operand in single or double precision, and whether it is denormal. Conversion itself raises
/// nothing here: a signalling NaN stays one for the operation to find.
fn load_float(cpu: &mut Vcpu, insn: &Insn) -> Result<(F80, bool), Fault> {
    let size = insn.ops[0].size;
    let linear = cpu.linear(insn, u64::from(size), Access::Read)?;
    Ok(if size == 4 {
        x87::widen_single(cpu.load::<u32>(linear)?)
    } else {
        x87::widen_double(cpu.load::<u64>(linear)?)
    })
}

/// The value of the integer memory operand, sign-extended.
fn load_int(cpu: &mut Vcpu, insn: &Insn) -> Result<i64, Fault> {
    let size = insn.ops[0].size;
    let linear = cpu.linear(insn, u64::from(size), Access::Read)?;
    Ok(match size {
        2 => i64::from(cpu.load::<u16>(linear)? as i16),
        4 => i64::from(cpu.load::<u32>(linear)? as i32),
        _ => cpu.load::<u64>(linear)? as i64,
    })
}

/// WAIT, FWAIT.
fn wait(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    if cpu.state.cr0 & (CR0_MP | CR0_TS) == CR0_MP | CR0_TS {
        return Err(Fault::plain(fault::NM));
    }
    if cpu.state.fpu.status & status::ES != 0 { cpu.x87_pending() } else { Ok(()) }
}
