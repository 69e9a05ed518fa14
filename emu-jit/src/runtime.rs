//! What compiled code needs while it runs: memory that is executable, and the functions that it calls.
//!
//! `unsafe` is allowed here: code and the addresses in it are raw by nature.

#![allow(unsafe_code)]

use emu_core::decode::insn::Insn;
use emu_core::exec::Vcpu;
use emu_core::exec::region::{Code, Compiled};
use memmap2::{Mmap, MmapMut};
use std::time::Duration;

/// Executes one instruction by the interpreter; see [`Vcpu::execute_for_region`].
pub extern "C" fn execute(cpu: &mut Vcpu, insn: *const Insn) -> u64 {
    // SAFETY: compiled code passes only addresses of instructions in the box that its own `Region` holds (`lower`
    // takes them from there), and it runs only while that region lives.
    let insn = unsafe { &*insn };
    cpu.execute_for_region(insn)
}

/// Condition `cc` of the flags in the vCPU, as 0 or 1.
pub extern "C" fn condition(cpu: &mut Vcpu, cc: u64) -> u64 {
    u64::from(cpu.state.flags.condition(cc as u8 & 15))
}

/// Replaces CF and OF of the flags in the vCPU.
pub extern "C" fn set_cf_of(cpu: &mut Vcpu, bits: u64) -> u64 {
    cpu.state.flags.set_cf_of(bits);
    0
}

/// Replaces CF of the flags in the vCPU.
pub extern "C" fn set_carry(cpu: &mut Vcpu, carry: u64) -> u64 {
    cpu.state.flags.set_cf(carry != 0);
    0
}

/// A region's code, and what the code refers to.
pub struct Region {
    memory: Mmap,
    /// The instructions, which the code passes to [`execute`].
    insns: Vec<Box<[Insn]>>,
    effort: Duration,
}

impl Region {
    /// Puts `code` into memory of its own, which is writable first and executable then, never both.
    ///
    /// # Errors
    /// The host has no memory left.
    pub fn new(code: &[u8], insns: Vec<Box<[Insn]>>, effort: Duration) -> std::io::Result<Region> {
        let mut memory = MmapMut::map_anon(code.len().max(1))?;
        memory[..code.len()].copy_from_slice(code);
        Ok(Region { memory: memory.make_exec()?, insns, effort })
    }
}

impl Compiled for Region {
    fn code(&self) -> Code {
        // SAFETY: `memory` begins with a function that Cranelift made for the signature of `Code` (`lower::signature`)
        // and is executable as long as `self` lives; the vCPU calls it no longer than that.
        unsafe { std::mem::transmute::<*const u8, Code>(self.memory.as_ptr()) }
    }

    fn size(&self) -> usize {
        self.memory.len().next_multiple_of(4096)
    }

    fn instructions(&self) -> usize {
        self.insns.iter().map(|insns| insns.len()).sum()
    }

    fn effort(&self) -> Duration {
        self.effort
    }
}
