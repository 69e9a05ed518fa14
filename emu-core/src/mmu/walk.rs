//! The page walk (SDM Vol. 3A chapter 4).

use crate::cpu::fault::Fault;
use crate::exec::Vcpu;
use crate::mem::PhysAddr;
use crate::mmu::tlb::PageSize;

/// What an access wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Data read.
    Read,
    /// Data write.
    Write,
    /// Instruction fetch.
    Execute,
}

/// Under whose privilege an access is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// A user-mode access: CPL 3 and not implicit.
    User,
    /// An explicit supervisor access: SMAP applies unless EFLAGS.AC is set.
    Supervisor,
    /// An implicit supervisor access (descriptor tables, TSS): SMAP applies whatever EFLAGS.AC.
    Implicit,
}

/// A successful walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Where the linear address lies, before the A20 gate.
    pub phys: PhysAddr,
    /// The page may be read with this privilege (always true for a successful data access).
    pub readable: bool,
    /// Writes with this privilege need no further walk: permitted and the dirty bit is set.
    pub writable: bool,
    /// Survives a write to CR3.
    pub global: bool,
    /// The page's size.
    pub size: PageSize,
}

/// Translates `linear`, setting accessed and dirty bits as the access demands.
///
/// # Errors
/// #PF with its error code; CR2 is set when the fault is delivered.
pub fn walk(cpu: &mut Vcpu, linear: u64, _access: Access, _privilege: Privilege) -> Result<Translation, Fault> {
    if !cpu.state.paging() {
        return Ok(Translation { phys: linear, readable: true, writable: true, global: false, size: PageSize::Small });
    }
    Err(Fault::page(linear, 0))
}
