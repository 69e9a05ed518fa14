//! The MultiProcessor tables (Intel's MultiProcessor Specification 1.4), by which systems without ACPI find the APICs, those of courses for one.
//!
//! The floating pointer (4.1) and the configuration table (4.2) are made when the image is built and lie in the F-segment. POST fills in what the
//! processor says of itself, or takes the pointer away where there is no local APIC.
//!
//! | entry | tells |
//! |---|---|
//! | processor | the one that starts; further ones are in ACPI's tables only |
//! | bus | 0 PCI, 1 ISA |
//! | I/O APIC | number 0, at FEC00000h |
//! | I/O interrupts | pins A to D of each PCI slot, as `pci` routes them; ISA's, of which IRQ 0 is at input 2 |
//! | local interrupts | the 8259s at LINT0, NMI at LINT1 |

use super::pci::{PIRQS, SCI_IRQ};
use crate::rom::asm::*;
use crate::rom::services::pnp::close;

const LOCAL_APIC: u32 = 0xFEE0_0000;
const IO_APIC: u32 = 0xFEC0_0000;
const CPUID_APIC: i32 = 1 << 9;
/// Specification 1.4.
const REVISION: u8 = 4;
const PCI: u8 = 0;
const ISA: u8 = 1;
/// The header, and the processor's entry behind it with its fields: version of the local APIC, signature, features.
const HEADER: usize = 44;
const APIC_VERSION: i32 = HEADER as i32 + 2;
const SIGNATURE: i32 = HEADER as i32 + 4;
const FEATURES: i32 = HEADER as i32 + 8;
/// Where the header has its length and its checksum.
const LENGTH: i32 = 4;
const CHECKSUM: i32 = 7;
/// The I/O APIC as the PC has it.
const IO_APIC_VERSION: u8 = 0x20;
/// Active high, trigger mode of the bus.
const ACTIVE_HIGH: u8 = 1;
/// Types of interrupts: vectored, NMI, from the 8259s.
const INT: u8 = 0;
const NMI: u8 = 1;
const EXT_INT: u8 = 3;
const ALL_APICS: u8 = 0xFF;
/// The function of the power management, whose pin A is the SCI's, is in this slot.
const BRIDGE: u8 = 1;

/// The tables, in the F-segment.
pub fn emit_tables(rom: &mut Rom) {
    let mut pointer = b"_MP_".to_vec();
    pointer.extend(rom.linear("mp.table").to_le_bytes());
    // Its length in units of 16 bytes; there is a table; no IMCR.
    pointer.extend([1, REVISION, 0, 0, 0, 0, 0, 0]);
    close(&mut pointer, 10);
    asm! { rom;
        align(16);
        label("mp.pointer");
        db(&pointer);
        label("mp.table");
        db(&table());
    }
}

fn table() -> Vec<u8> {
    let mut entries = vec![
        // Enabled, and the one that starts.
        [&[0, 0, 0, 3][..], &[0; 16]].concat(),
        [&[1, PCI][..], b"PCI   "].concat(),
        [&[1, ISA][..], b"ISA   "].concat(),
        [&[2, 0, IO_APIC_VERSION, 1][..], &IO_APIC.to_le_bytes()].concat(),
    ];
    let mut taken = vec![2, SCI_IRQ as u8];
    taken.extend(PIRQS);
    for slot in 1..32u8 {
        for pin in 0..4 {
            let irq = match (slot, pin) {
                (BRIDGE, 0) => SCI_IRQ as u8,
                _ => PIRQS[usize::from(slot - 1 + pin) % PIRQS.len()],
            };
            entries.push(vec![3, INT, ACTIVE_HIGH, 0, PCI, slot << 2 | pin, 0, irq]);
        }
    }
    for irq in (0..16).filter(|irq| !taken.contains(irq)) {
        entries.push(vec![3, INT, 0, 0, ISA, irq, 0, if irq == 0 { 2 } else { irq }]);
    }
    entries.push(vec![4, EXT_INT, 0, 0, ISA, 0, 0, 0]);
    entries.push(vec![4, NMI, 0, 0, ISA, 0, ALL_APICS, 1]);

    let mut table = b"PCMP\0\0".to_vec();
    table.extend([REVISION, 0]);
    table.extend(b"EMU     PC          ");
    // No table of the maker's.
    table.extend([0; 6]);
    table.extend((entries.len() as u16).to_le_bytes());
    table.extend(LOCAL_APIC.to_le_bytes());
    // No extended entries.
    table.extend([0; 4]);
    assert_eq!(table.len(), HEADER);
    table.extend(entries.concat());
    let length = table.len() as u16;
    table[LENGTH as usize..][..2].copy_from_slice(&length.to_le_bytes());
    close(&mut table, CHECKSUM as usize);
    table
}

pub fn emit_flat(rom: &mut Rom) {
    let table = rom.linear("mp.table") as i32;
    let pointer = rom.linear("mp.pointer") as i32;
    asm! { rom;
        label("mp.setup");
        probe_cpuid();
        jz(".none");
        mov(eax, 1);
        cpuid();
        test(edx, CPUID_APIC);
        jz(".none");
        mov(dword_ptr(table + SIGNATURE), eax);
        mov(dword_ptr(table + FEATURES), edx);
        mov(eax, dword_ptr(LOCAL_APIC + 0x30));
        mov(byte_ptr(table + APIC_VERSION), al);
        mov(byte_ptr(table + CHECKSUM), 0);
        mov(edi, table as u32);
        movzx(ecx, word_ptr(table + LENGTH));
        call("tables.sum");
        sub(byte_ptr(table + CHECKSUM), bl);
        ret();
        label(".none");
        mov(dword_ptr(pointer), 0);
        ret();
    }
}
