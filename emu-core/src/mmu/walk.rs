//! The page walk (SDM Vol. 3A chapter 4): every paging mode, permissions, accessed and dirty bits, page-fault errors.
//!
//! ```text
//!                 5-level  56..48 PML5   47..39 PML4   38..30 PDPT   29..21 PD   20..12 PT   11..0
//!                 4-level                47..39 PML4   38..30 PDPT   29..21 PD   20..12 PT   11..0
//!                 PAE                                  31..30 PDPTE  29..21 PD   20..12 PT   11..0
//!                 32-bit                                             31..22 PD   21..12 PT   11..0
//! ```
//! Entries are read and checked first; accessed and dirty bits are set only when the access is permitted, each by an
//! atomic exchange that starts the walk again if another processor or device has changed the entry. The four PAE
//! PDPTEs are those that were loaded with CR3 ([`Vcpu::load_pdptes`]), not those in memory (SDM Vol. 3A 4.4.1).
//!
//! Deliberately absent: protection keys, shadow-stack pages, linear-address masking.

use crate::cpu::control::{CR0_WP, CR4_LA57, CR4_PAE, CR4_PGE, CR4_PSE, CR4_SMAP, CR4_SMEP, EFER_NXE};
use crate::cpu::fault::Fault;
use crate::cpu::features::Feature;
use crate::cpu::rflags::AC;
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

/// Bits of paging-structure entries.
pub mod entry {
    #![allow(missing_docs)]
    pub const P: u64 = 1 << 0;
    pub const RW: u64 = 1 << 1;
    pub const US: u64 = 1 << 2;
    pub const A: u64 = 1 << 5;
    pub const D: u64 = 1 << 6;
    /// Page size, in entries above page tables.
    pub const PS: u64 = 1 << 7;
    pub const G: u64 = 1 << 8;
    pub const XD: u64 = 1 << 63;
}

/// Bits of a page-fault error code (SDM Vol. 3A 4.7).
pub mod error {
    #![allow(missing_docs)]
    pub const P: u32 = 1 << 0;
    pub const WR: u32 = 1 << 1;
    pub const US: u32 = 1 << 2;
    pub const RSVD: u32 = 1 << 3;
    pub const ID: u32 = 1 << 4;
}

use entry::{A, D, G, P, PS, RW, US, XD};

/// Levels that a walk can have.
const LEVELS: usize = 5;

/// The structures' shape in one paging mode.
#[derive(Clone, Copy)]
struct Shape {
    /// Bytes of an entry: 4 or 8.
    entry: u8,
    /// log2 of the entries in a table.
    index_bits: u32,
    /// The level that the walk starts at: 1 is a page table, 2 a page directory.
    top: u32,
    /// Address of the first table.
    root: PhysAddr,
}

/// An entry that a walk went through.
#[derive(Clone, Copy, Default)]
struct Used {
    at: PhysAddr,
    value: u64,
}

/// What a walk finds before it looks at the kind of access.
struct Found {
    phys: PhysAddr,
    size: PageSize,
    global: bool,
    user: bool,
    write: bool,
    execute: bool,
    used: [Used; LEVELS],
    depth: usize,
}

/// Why a walk finds nothing.
enum Missing {
    NotPresent,
    Reserved,
}

/// Translates `linear`, setting accessed and dirty bits as the access demands.
///
/// # Errors
/// #PF with its error code; CR2 is set when the fault is delivered.
pub fn walk(cpu: &mut Vcpu, linear: u64, access: Access, privilege: Privilege) -> Result<Translation, Fault> {
    if !cpu.state.paging() {
        return Ok(Translation { phys: linear, readable: true, writable: true, global: false, size: PageSize::Small });
    }
    loop {
        let found = match find(cpu, linear) {
            Ok(found) => found,
            Err(Missing::NotPresent) => return Err(page_fault(cpu, linear, access, privilege, 0)),
            Err(Missing::Reserved) => {
                return Err(page_fault(cpu, linear, access, privilege, error::P | error::RSVD));
            }
        };
        let rights = Rights::of(cpu, &found, privilege);
        let allowed = match access {
            Access::Read => rights.read,
            Access::Write => rights.write,
            Access::Execute => rights.execute,
        };
        if !allowed {
            return Err(page_fault(cpu, linear, access, privilege, error::P));
        }
        if let Some(dirty) = mark_used(cpu, &found, access == Access::Write) {
            return Ok(Translation {
                phys: found.phys,
                readable: rights.read,
                writable: rights.write && dirty,
                global: found.global,
                size: found.size,
            });
        }
    }
}

/// Where `linear` lies, for debuggers: no permissions are checked and no bits set. `None` if nothing is mapped there.
pub fn inspect(cpu: &Vcpu, linear: u64) -> Option<PhysAddr> {
    let phys = if cpu.state.paging() { find(cpu, linear).ok()?.phys } else { linear };
    Some(phys & cpu.memory.a20_mask())
}

/// What may be done with a page (SDM Vol. 3A 4.6).
struct Rights {
    read: bool,
    write: bool,
    execute: bool,
}

impl Rights {
    fn of(cpu: &Vcpu, found: &Found, privilege: Privilege) -> Rights {
        let s = &cpu.state;
        if privilege == Privilege::User {
            return Rights { read: found.user, write: found.user && found.write, execute: found.user && found.execute };
        }
        let override_smap = privilege == Privilege::Supervisor && s.has(AC);
        let read = !found.user || s.cr4 & CR4_SMAP == 0 || override_smap;
        Rights {
            read,
            write: read && (found.write || s.cr0 & CR0_WP == 0),
            execute: found.execute && !(found.user && s.cr4 & CR4_SMEP != 0),
        }
    }
}

fn page_fault(cpu: &Vcpu, linear: u64, access: Access, privilege: Privilege, mut code: u32) -> Fault {
    let s = &cpu.state;
    if access == Access::Write {
        code |= error::WR;
    }
    if privilege == Privilege::User {
        code |= error::US;
    }
    let fetches_are_told = s.cr4 & CR4_SMEP != 0 || (s.cr4 & CR4_PAE != 0 && s.msrs.efer & EFER_NXE != 0);
    if access == Access::Execute && fetches_are_told {
        code |= error::ID;
    }
    tracing::trace!(target: "mmu", linear = format_args!("{linear:#x}"), ?access, ?privilege, code, "page fault");
    Fault::page(linear, code)
}

fn find(cpu: &Vcpu, linear: u64) -> Result<Found, Missing> {
    let s = &cpu.state;
    let physical = (1u64 << cpu.model.physical_bits()) - 1;
    let wide = s.cr4 & CR4_PAE != 0;
    let long = s.long_mode();
    let nxe = s.msrs.efer & EFER_NXE != 0;
    // Bits that must be clear in every entry.
    let always_reserved = match (wide, long) {
        (false, _) => 0,
        (true, false) => !physical & !XD | if nxe { 0 } else { XD },
        (true, true) => (!physical & 0x000f_ffff_ffff_ffff) | if nxe { 0 } else { XD },
    };
    let shape = if !wide {
        Shape { entry: 4, index_bits: 10, top: 2, root: s.cr3 & 0xffff_f000 }
    } else if long {
        let top = if s.cr4 & CR4_LA57 != 0 { 5 } else { 4 };
        Shape { entry: 8, index_bits: 9, top, root: s.cr3 & physical & !0xfff }
    } else {
        // Loaded PDPTEs were checked for reserved bits when they were loaded.
        let pdpte = s.pdptes[(linear >> 30 & 3) as usize];
        if pdpte & P == 0 {
            return Err(Missing::NotPresent);
        }
        Shape { entry: 8, index_bits: 9, top: 2, root: pdpte & physical & !0xfff }
    };

    let (mut user, mut write, mut execute) = (true, true, true);
    let mut used = [Used::default(); LEVELS];
    let mut depth = 0;
    let mut table = shape.root;
    let mut level = shape.top;
    loop {
        let shift = 12 + shape.index_bits * (level - 1);
        let index = linear >> shift & ((1 << shape.index_bits) - 1);
        let at = (table + index * u64::from(shape.entry)) & cpu.memory.a20_mask();
        let value = read_entry(cpu, at, shape.entry);
        used[depth] = Used { at, value };
        depth += 1;
        if value & P == 0 {
            return Err(Missing::NotPresent);
        }
        if value & always_reserved != 0 {
            return Err(Missing::Reserved);
        }
        user &= value & US != 0;
        write &= value & RW != 0;
        execute &= value & XD == 0;
        let leaf = level == 1 || (value & PS != 0 && maps_page(cpu, &shape, level)?);
        if !leaf {
            table = value & physical & !0xfff;
            level -= 1;
            continue;
        }
        let within = (1u64 << shift) - 1;
        let frame = if level == 1 {
            value & physical & !0xfff
        } else if shape.entry == 4 {
            large_frame_32(cpu, value)?
        } else {
            // Bit 12 is PAT; the bits between it and the frame must be clear.
            if value & within & !0x1fff != 0 {
                return Err(Missing::Reserved);
            }
            value & physical & !within
        };
        return Ok(Found {
            phys: frame | (linear & within),
            size: match level {
                1 => PageSize::Small,
                2 => PageSize::Large,
                _ => PageSize::Huge,
            },
            global: value & G != 0 && s.cr4 & CR4_PGE != 0,
            user,
            write,
            execute,
            used,
            depth,
        });
    }
}

/// Whether PS at `level` above the page tables means a page. It is ignored, or reserved, where no such pages exist.
fn maps_page(cpu: &Vcpu, shape: &Shape, level: u32) -> Result<bool, Missing> {
    match (shape.entry, level) {
        (4, _) => Ok(cpu.state.cr4 & CR4_PSE != 0),
        (_, 2) => Ok(true),
        (_, 3) if cpu.model.supports(Feature::Pdpe1gb) => Ok(true),
        _ => Err(Missing::Reserved),
    }
}

/// The frame of a 4 MiB page: bits 31:22, and with PSE-36 bits 39:32 from bits 20:13 (SDM Vol. 3A table 4-4).
///
/// ```text
///  31      22  21  20        13  12   11    0
///  frame       0   frame 39:32   PAT  flags
/// ```
fn large_frame_32(cpu: &Vcpu, value: u64) -> Result<PhysAddr, Missing> {
    let high = value >> 13 & 0x1ff;
    let width = if cpu.model.supports(Feature::Pse36) { cpu.model.physical_bits().clamp(32, 40) - 32 } else { 0 };
    if high >> width != 0 {
        return Err(Missing::Reserved);
    }
    Ok(high << 32 | (value & 0xffc0_0000))
}

/// Sets the accessed bits, and the dirty bit of the last entry for a write. Whether the page is dirty now; `None` if an
/// entry has changed since it was read.
fn mark_used(cpu: &mut Vcpu, found: &Found, write: bool) -> Option<bool> {
    let size = if cpu.state.cr4 & CR4_PAE != 0 { 8 } else { 4 };
    let last = found.depth - 1;
    let mut dirty = false;
    for (n, used) in found.used[..found.depth].iter().enumerate() {
        let mut wanted = used.value | A;
        if n == last {
            wanted |= if write { D } else { 0 };
            dirty = wanted & D != 0;
        }
        if wanted != used.value && !exchange_entry(cpu, used.at, size, used.value, wanted) {
            return None;
        }
    }
    Some(dirty)
}

fn read_entry(cpu: &Vcpu, at: PhysAddr, size: u8) -> u64 {
    match cpu.memory.resolve(at).read {
        Some(offset) => cpu.memory.ram().read_le(offset, size),
        None => cpu.bus.memory_read(at, size, cpu.pending_instructions()),
    }
}

/// Replaces an entry if it is still `old`. One in ROM or device memory, of which nothing else is known, is just written.
fn exchange_entry(cpu: &mut Vcpu, at: PhysAddr, size: u8, old: u64, new: u64) -> bool {
    match cpu.memory.resolve(at).write {
        Some(offset) => {
            let done = cpu.memory.ram().compare_exchange(offset, size, old, new);
            if done && cpu.memory.holds_code(offset, usize::from(size)) {
                cpu.code_written(offset, usize::from(size));
            }
            done
        }
        None => {
            cpu.bus.memory_write(at, size, new, cpu.pending_instructions());
            true
        }
    }
}

impl Vcpu {
    /// Reads the four PAE PDPTEs at `cr3` (SDM Vol. 3A 4.4.1). They take effect with [`crate::cpu::CpuState::pdptes`].
    ///
    /// # Errors
    /// #GP(0) if a present one has a reserved bit set.
    pub fn load_pdptes(&self, cr3: u64) -> Result<[u64; 4], Fault> {
        let physical = (1u64 << self.model.physical_bits()) - 1;
        let reserved = !physical | 0x1e6;
        let mut pdptes = [0; 4];
        for (n, pdpte) in pdptes.iter_mut().enumerate() {
            let at = ((cr3 & 0xffff_ffe0) + 8 * n as u64) & self.memory.a20_mask();
            *pdpte = read_entry(self, at, 8);
            if *pdpte & P != 0 && *pdpte & reserved != 0 {
                return Err(Fault::gp0());
            }
        }
        Ok(pdptes)
    }
}

#[cfg(test)]
mod tests;
