//! Memory as a person at a debugger or monitor sees it: without permissions, faults, or accessed and dirty bits.
//!
//! Page tables follow SDM Vol. 3A chapter 4, as [`crate::mmu::walk`] does, but whole tables are gone through, and
//! entries with reserved bits are shown like others.

use crate::cpu::control::{CR4_LA57, CR4_PAE, CR4_PSE};
use crate::exec::Vcpu;
use crate::mem::PhysAddr;
use crate::mmu::walk::{self, entry};

const PAGE: u64 = 0x1000;
/// Page-table entries that [`Vcpu::mappings`] looks at, at most: tables may point at themselves.
const ENTRY_LIMIT: u32 = 1 << 22;
/// The frame in an entry of 8 bytes.
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// A page that is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its first linear address.
    pub linear: u64,
    /// Its first physical address.
    pub physical: PhysAddr,
    /// Its size in bytes.
    pub size: u64,
    /// The entry that maps it, as it is in memory.
    pub entry: u64,
    /// User mode may access it, as all levels say.
    pub user: bool,
    /// Writes are allowed, as all levels say.
    pub write: bool,
}

/// One table on the way down.
#[derive(Clone, Copy)]
struct Table {
    at: PhysAddr,
    /// 1: its entries map pages of 4 KiB.
    level: u32,
    /// The linear address that its first entry is about.
    linear: u64,
    user: bool,
    write: bool,
}

impl Vcpu {
    /// Reads physical memory. Devices are read in accesses of at most `unit` (1, 2, 4 or 8) bytes, which may have the
    /// side effects that a guest's access has.
    pub fn peek_physical(&self, address: PhysAddr, bytes: &mut [u8], unit: usize) {
        let mut done = 0;
        while done < bytes.len() {
            let at = address.wrapping_add(done as u64);
            let left = bytes.len() - done;
            if self.memory.resolve(at).read.is_some() {
                let len = left.min((PAGE - at % PAGE) as usize);
                self.memory.read(at, &mut bytes[done..done + len]);
                done += len;
            } else {
                let len = unit.clamp(1, 8).min(left).min(1 << at.trailing_zeros().min(3));
                let len = if len.is_power_of_two() { len } else { 1 };
                let value = self.bus.memory_read(at, len as u8, 0).to_le_bytes();
                bytes[done..done + len].copy_from_slice(&value[..len]);
                done += len;
            }
        }
    }

    /// Reads linear memory as [`Vcpu::peek_physical`] does; `false` if nothing is mapped at some of it.
    pub fn peek(&self, linear: u64, bytes: &mut [u8], unit: usize) -> bool {
        let mut done = 0;
        while done < bytes.len() {
            let at = linear.wrapping_add(done as u64);
            let Some(physical) = self.physical(at) else { return false };
            let len = (bytes.len() - done).min((PAGE - at % PAGE) as usize);
            self.peek_physical(physical, &mut bytes[done..done + len], unit);
            done += len;
        }
        true
    }

    /// Where the current page tables map a linear address; `None` if nowhere.
    pub fn physical(&self, linear: u64) -> Option<PhysAddr> {
        walk::inspect(self, if self.state.long_mode() { linear } else { linear & 0xffff_ffff })
    }

    /// Calls `visit` for each page that the current page tables map, in the order of addresses, until it returns
    /// `false`. `None` if paging is off.
    pub fn mappings(&self, mut visit: impl FnMut(&Mapping) -> bool) -> Option<()> {
        let s = &self.state;
        if !s.paging() {
            return None;
        }
        let mut left = ENTRY_LIMIT;
        let root = |at, level, linear| Table { at, level, linear, user: true, write: true };
        if s.long_mode() {
            let level = if s.cr4 & CR4_LA57 != 0 { 5 } else { 4 };
            self.visit_table(root(s.cr3 & FRAME, level, 0), &mut left, &mut visit);
        } else if s.cr4 & CR4_PAE != 0 {
            for (i, pdpte) in s.pdptes.iter().enumerate().filter(|(_, pdpte)| **pdpte & entry::P != 0) {
                if !self.visit_table(root(pdpte & FRAME, 2, (i as u64) << 30), &mut left, &mut visit) {
                    break;
                }
            }
        } else {
            self.visit_table(root(s.cr3 & 0xffff_f000, 2, 0), &mut left, &mut visit);
        }
        Some(())
    }

    /// Goes through one table and those below it; whether to go on.
    fn visit_table(&self, table: Table, left: &mut u32, visit: &mut impl FnMut(&Mapping) -> bool) -> bool {
        let wide = self.state.cr4 & CR4_PAE != 0;
        let (bits, bytes) = if wide { (9, 8) } else { (10, 4) };
        let span = PAGE << (bits * (table.level - 1));
        for index in 0..1u64 << bits {
            if *left == 0 {
                return false;
            }
            *left -= 1;
            let at = (table.at + index * bytes) & self.memory.a20_mask();
            let mut raw = [0; 8];
            self.memory.read(at, &mut raw[..bytes as usize]);
            let value = u64::from_le_bytes(raw);
            // What no memory backs reads as all ones, which is no entry of anybody.
            if value & entry::P == 0 || self.memory.resolve(at).read.is_none() {
                continue;
            }
            let linear = self.sign_extend(table.linear + index * span);
            let user = table.user && value & entry::US != 0;
            let write = table.write && value & entry::RW != 0;
            let large = value & entry::PS != 0 && table.level <= 3 && (wide || self.state.cr4 & CR4_PSE != 0);
            let go_on = if table.level > 1 && !large {
                let at = value & if wide { FRAME } else { 0xffff_f000 };
                self.visit_table(Table { at, level: table.level - 1, linear, user, write }, left, visit)
            } else {
                let physical = match (wide, large) {
                    (true, _) => value & FRAME & !(span - 1),
                    (false, false) => value & 0xffff_f000,
                    // PSE-36: SDM Vol. 3A table 4-4.
                    (false, true) => (value >> 13 & 0xff) << 32 | value & 0xffc0_0000,
                };
                visit(&Mapping { linear, physical, size: span, entry: value, user, write })
            };
            if !go_on {
                return false;
            }
        }
        true
    }

    fn sign_extend(&self, linear: u64) -> u64 {
        let bits = match (self.state.long_mode(), self.state.cr4 & CR4_LA57 != 0) {
            (false, _) => return linear,
            (true, false) => 48,
            (true, true) => 57,
        };
        ((linear << (64 - bits)) as i64 >> (64 - bits)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Bus;
    use crate::clock::{Clock, ClockMode};
    use crate::cpu::control::{CR0_PE, CR0_PG, EFER_LMA, EFER_LME};
    use crate::cpu::model::CpuModel;
    use crate::irq::CpuPins;
    use crate::mem::GuestMemory;
    use std::sync::Arc;

    const RW_US: u64 = entry::P | entry::RW | entry::US;

    fn cpu() -> Vcpu {
        let memory = Arc::new(GuestMemory::new(0x80_0000, 0).unwrap());
        let bus = Bus::new(memory, Arc::new(CpuPins::default()), Clock::new(ClockMode::Icount { shift: 0 }));
        Vcpu::new(Arc::new(CpuModel::parse("max").unwrap()), Arc::new(bus))
    }

    fn long_cpu() -> Vcpu {
        let mut cpu = cpu();
        cpu.state.cr0 = CR0_PE | CR0_PG;
        cpu.state.cr3 = 0x1000;
        cpu.state.cr4 = CR4_PAE;
        cpu.state.msrs.efer = EFER_LME | EFER_LMA;
        for (at, value) in [
            (0x1000, 0x2000 | RW_US),
            (0x1ff8, 0x2000 | RW_US),
            (0x2000, 0x3000 | RW_US),
            (0x3000, 0x4000 | entry::P | entry::RW),
            (0x3008, 0x20_0000 | RW_US | entry::PS),
            (0x4008, 0x5000 | entry::P),
        ] {
            cpu.memory.write(at, &u64::to_le_bytes(value));
        }
        cpu
    }

    fn all(cpu: &Vcpu) -> Vec<Mapping> {
        let mut found = Vec::new();
        let on = cpu.mappings(|m| {
            found.push(*m);
            true
        });
        assert_eq!(on.is_some(), cpu.state.paging());
        found
    }

    #[test]
    fn mappings_of_long_mode_combine_rights_and_extend_signs() {
        let found = all(&long_cpu());
        assert_eq!(found.len(), 4);
        let small = found[0];
        assert_eq!((small.linear, small.physical, small.size), (0x1000, 0x5000, 0x1000));
        assert!(!small.user && !small.write);
        let large = found[1];
        assert_eq!((large.linear, large.physical, large.size), (0x20_0000, 0x20_0000, 0x20_0000));
        assert!(large.user && large.write);
        assert_eq!(found[2].linear, 0xffff_ff80_0000_1000);
    }

    #[test]
    fn tables_that_point_at_themselves_end_and_paging_off_has_no_mappings() {
        let mut cpu = long_cpu();
        for index in 0..512 {
            cpu.memory.write(0x1000 + 8 * index, &(0x1000 | RW_US).to_le_bytes());
        }
        let mut count = 0u64;
        cpu.mappings(|_| {
            count += 1;
            true
        });
        assert!(count > 0 && count <= u64::from(ENTRY_LIMIT));
        cpu.state.cr0 = 0;
        assert!(all(&cpu).is_empty());
    }

    #[test]
    fn peek_reads_across_pages_and_stops_at_holes() {
        let cpu = long_cpu();
        cpu.memory.write(0x5ffe, &[1, 2]);
        let mut bytes = [0; 2];
        assert!(cpu.peek(0x1ffe, &mut bytes, 4));
        assert_eq!(bytes, [1, 2]);
        assert!(!cpu.peek(0x1fff, &mut bytes, 4));
        cpu.peek_physical(0xf000_0001, &mut bytes, 4);
        assert_eq!(bytes, [0xff, 0xff]);
    }
}
