//! The state of a vCPU at the entry point of a kernel that the board has loaded itself, without firmware.
//!
//! Plain values, so that loaders know no vCPU and a vCPU knows no loader. Segment attributes have the layout of SDM
//! Vol. 3C 25.4.1, which is that of bits 8 to 23 of a descriptor's second doubleword:
//!
//! ```text
//!  15 14  13 12  11    8 7 6   5 4 3    0
//!  G  D/B L  AVL reserved P DPL   S type
//! ```

use emu_core::mem::{GuestMemory, PCI_HOLE};

/// Where the loaders' GDT lies.
pub const GDT: u64 = 0x1000;
/// Where the loaders' page tables lie: one PML4, one PDPT and four page directories.
pub const PAGE_TABLES: u64 = 0x2000;
const PCI_HOLE_SIZE: u64 = (1 << 32) - PCI_HOLE;
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
const TASK: u16 = 0x20;

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BootSegment {
    /// The visible selector.
    pub selector: u16,
    /// Linear address of its first byte.
    pub base: u64,
    /// Last valid offset, in bytes.
    pub limit: u32,
    /// Access rights, as drawn above.
    pub attributes: u16,
}

/// Base and limit of a descriptor table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BootTable {
    /// Linear address.
    pub base: u64,
    /// Last valid offset, in bytes.
    pub limit: u16,
}

/// Registers at a kernel's entry point. Everything that is not listed has its reset value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootState {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15: in the order of their encoding.
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// ES, CS, SS, DS, FS, GS: in the order of their encoding.
    pub segments: [BootSegment; 6],
    /// Local descriptor table.
    pub ldtr: BootSegment,
    /// Task register.
    pub tr: BootSegment,
    /// Global descriptor table.
    pub gdtr: BootTable,
    /// Interrupt descriptor table.
    pub idtr: BootTable,
    /// Control register 0.
    pub cr0: u64,
    /// Control register 3.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// Model-specific registers that firmware would have written, to be skipped where the model lacks them.
    pub msrs: Vec<(u32, u64)>,
}

/// Indices into [`BootState::gpr`].
pub mod gpr {
    /// EAX.
    pub const EAX: usize = 0;
    /// EBX.
    pub const EBX: usize = 3;
    /// ESP.
    pub const ESP: usize = 4;
    /// ESI.
    pub const ESI: usize = 6;
}

impl BootState {
    /// Real mode, all data segments equal.
    pub fn real(cs: u16, ip: u16, ds: u16, sp: u16) -> BootState {
        let segment = |selector: u16, attributes| BootSegment {
            selector,
            base: u64::from(selector) << 4,
            limit: 0xffff,
            attributes,
        };
        let data = segment(ds, 0x93);
        let mut state = BootState {
            rip: u64::from(ip),
            rflags: 2,
            segments: [data, segment(cs, 0x9b), data, data, data, data],
            ldtr: BootSegment { limit: 0xffff, attributes: 0x82, ..BootSegment::default() },
            tr: BootSegment { limit: 0xffff, attributes: 0x8b, ..BootSegment::default() },
            idtr: BootTable { base: 0, limit: 0x3ff },
            cr0: 0x10,
            ..BootState::default()
        };
        state.gpr[gpr::ESP] = u64::from(sp);
        state
    }

    /// Flat 32-bit protected mode without paging: CS 10h, the other segments 18h, from a GDT that is written to
    /// [`GDT`].
    pub fn protected(memory: &GuestMemory, entry: u32) -> BootState {
        // Null, unused, flat 4 GiB code and data, and a 32-bit TSS at 0 for those who look.
        let gdt: [u64; 5] = [0, 0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x0000_8b00_0000_0067];
        write_table(memory, GDT, &gdt);
        let flat = |selector, attributes| BootSegment { selector, base: 0, limit: u32::MAX, attributes };
        let data = flat(DATA, 0xc093);
        BootState {
            rip: u64::from(entry),
            rflags: 2,
            segments: [data, flat(CODE, 0xc09b), data, data, data, data],
            ldtr: BootSegment { limit: 0xffff, attributes: 0x82, ..BootSegment::default() },
            tr: BootSegment { selector: TASK, base: 0, limit: 0x67, attributes: 0x8b },
            gdtr: BootTable { base: GDT, limit: size_of_val(&gdt) as u16 - 1 },
            idtr: BootTable::default(),
            cr0: 0x11,
            ..BootState::default()
        }
    }

    /// 64-bit mode with the first 4 GiB mapped to themselves by 2 MiB pages at [`PAGE_TABLES`].
    pub fn long(memory: &GuestMemory, entry: u64) -> BootState {
        let mut state = BootState::protected(memory, 0);
        write_table(memory, GDT + u64::from(CODE), &[0x00af_9b00_0000_ffff]);
        const PRESENT_WRITABLE: u64 = 3;
        const PAGE_SIZE: u64 = 1 << 7;
        let pdpt = PAGE_TABLES + 0x1000;
        let directories = PAGE_TABLES + 0x2000;
        write_table(memory, PAGE_TABLES, &[pdpt | PRESENT_WRITABLE]);
        let pdpt_entries: [u64; 4] = std::array::from_fn(|i| (directories + 0x1000 * i as u64) | PRESENT_WRITABLE);
        write_table(memory, pdpt, &pdpt_entries);
        let pages: Vec<u64> = (0..4 * 512).map(|i| (i << 21) | PAGE_SIZE | PRESENT_WRITABLE).collect();
        write_table(memory, directories, &pages);
        state.segments[1].attributes = 0xa09b;
        state.rip = entry;
        state.cr0 = 0x8000_0011;
        state.cr3 = PAGE_TABLES;
        state.cr4 = 1 << 5;
        state.efer = 0x500;
        state
    }
}

/// What firmware leaves in the MTRRs (SDM Vol. 3A 12.11) of a processor with `physical_bits` address bits: write-back but
/// for legacy video memory and the PCI hole.
pub fn firmware_mtrrs(physical_bits: u32) -> Vec<(u32, u64)> {
    const WB: u64 = 0x0606_0606_0606_0606;
    const WP: u64 = 0x0505_0505_0505_0505;
    let mut msrs = vec![(0x250, WB), (0x258, WB), (0x259, 0)];
    msrs.extend((0x268..=0x26f).map(|msr| (msr, WP)));
    // IA32_MTRR_PHYSBASE0 and MASK0: [3 GiB, 4 GiB) uncacheable.
    let mask = (1u64 << physical_bits.clamp(32, 52)) - PCI_HOLE_SIZE;
    msrs.extend([(0x200, PCI_HOLE), (0x201, mask | 0x800), (0x2ff, 0xc06)]);
    msrs
}

fn write_table(memory: &GuestMemory, address: u64, entries: &[u64]) {
    let bytes: Vec<u8> = entries.iter().flat_map(|e| e.to_le_bytes()).collect();
    memory.write(address, &bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_mode_tables_map_the_last_page_below_4_gib_to_itself() {
        let memory = GuestMemory::new(0x10_0000, 0).unwrap();
        let state = BootState::long(&memory, 0x10_0200);
        let entry = |table: u64, index: u64| {
            let mut bytes = [0; 8];
            memory.read(table + 8 * index, &mut bytes);
            u64::from_le_bytes(bytes)
        };
        let pdpt = entry(state.cr3, 0) & !0xfff;
        let directory = entry(pdpt, 3) & !0xfff;
        assert_eq!(entry(directory, 511), 0xffe0_0083);
        assert_eq!(entry(pdpt, 4), 0);
        assert_eq!(entry(GDT, 2), 0x00af_9b00_0000_ffff);
    }
}
