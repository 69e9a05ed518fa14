//! The MultiProcessor tables (Intel's MultiProcessor Specification 1.4) of kernels that the board boots itself: how systems that know no ACPI, those
//! of courses for one, find the APICs. A BIOS makes its own.
//!
//! ```text
//!  F8000  floating pointer (4.1)      F8010  configuration table (4.2):
//!         processor    bus 0 PCI, bus 1 ISA    I/O APIC 0    interrupts of PCI slots, of ISA    8259s and NMI at LINT0 and LINT1
//! ```

use super::post::PIRQ_IRQS;
use crate::intc::{ioapic, lapic};
use emu_core::mem::GuestMemory;

/// Where the F-segment has the tables, behind SMBIOS's.
const PLACE: u64 = 0xf_8000;
const POINTER: usize = 16;
const HEADER: usize = 44;
/// Specification 1.4.
const REVISION: u8 = 4;
const PCI: u8 = 0;
const ISA: u8 = 1;
const LOCAL_APIC_VERSION: u8 = 0x14;
const IO_APIC_VERSION: u8 = 0x20;
/// The processor is usable, and the one that starts.
const BOOT_PROCESSOR: u8 = 3;
/// Polarity: active high; the trigger mode is the bus's.
const ACTIVE_HIGH: u8 = 1;
/// Types of interrupts: vectored, NMI, from the 8259s.
const INT: u8 = 0;
const NMI: u8 = 1;
const EXT_INT: u8 = 3;
const ALL_APICS: u8 = 0xff;
/// Power management interrupts by pin A of this slot.
const BRIDGE: u8 = 1;
const SCI_IRQ: u8 = 9;

/// Puts the tables into `memory`. `processor`: CPUID's signature and feature flags (leaf 1, EAX and EDX).
pub fn place(memory: &GuestMemory, processor: [u32; 2]) {
    let mut pointer = b"_MP_".to_vec();
    pointer.extend((PLACE as u32 + POINTER as u32).to_le_bytes());
    pointer.extend([1, REVISION, 0, 0, 0, 0, 0, 0]);
    close(&mut pointer, 10);
    memory.write(PLACE, &[pointer, table(processor)].concat());
}

fn table(processor: [u32; 2]) -> Vec<u8> {
    let identity = processor.map(u32::to_le_bytes).concat();
    let mut entries = vec![
        [&[0, 0, LOCAL_APIC_VERSION, BOOT_PROCESSOR][..], &identity, &[0; 8]].concat(),
        [&[1, PCI][..], b"PCI   "].concat(),
        [&[1, ISA][..], b"ISA   "].concat(),
        [&[2, 0, IO_APIC_VERSION, 1][..], &(ioapic::REGION.base as u32).to_le_bytes()].concat(),
    ];
    for slot in 1..32u8 {
        for pin in 0..4 {
            let irq = match (slot, pin) {
                (BRIDGE, 0) => SCI_IRQ,
                _ => PIRQ_IRQS[usize::from(slot - 1 + pin) % PIRQ_IRQS.len()],
            };
            entries.push(vec![3, INT, ACTIVE_HIGH, 0, PCI, slot << 2 | pin, 0, irq]);
        }
    }
    // IRQ 2 is the second 8259's; IRQ 0 arrives at its input.
    let of_isa = (0..16).filter(|irq| *irq != 2 && *irq != SCI_IRQ && !PIRQ_IRQS.contains(irq));
    entries.extend(of_isa.map(|irq| vec![3, INT, 0, 0, ISA, irq, 0, if irq == 0 { 2 } else { irq }]));
    entries.push(vec![4, EXT_INT, 0, 0, ISA, 0, 0, 0]);
    entries.push(vec![4, NMI, 0, 0, ISA, 0, ALL_APICS, 1]);

    let body = entries.concat();
    let mut table = b"PCMP".to_vec();
    table.extend(((HEADER + body.len()) as u16).to_le_bytes());
    table.extend([REVISION, 0]);
    table.extend(b"EMU     PC          ");
    // No table of the maker's.
    table.extend([0; 6]);
    table.extend((entries.len() as u16).to_le_bytes());
    table.extend((lapic::DEFAULT_BASE as u32).to_le_bytes());
    // No extended entries.
    table.extend([0; 4]);
    table.extend(body);
    close(&mut table, 7);
    table
}

/// Makes the bytes' sum zero by the one at `checksum`.
fn close(bytes: &mut [u8], checksum: usize) {
    bytes[checksum] = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointer_leads_to_a_table_with_as_many_entries_as_it_says() {
        let memory = GuestMemory::new(1 << 20, 0).unwrap();
        place(&memory, [0x0663, 0x0781_abfb]);
        let mut bytes = vec![0; 0x1000];
        memory.read(PLACE, &mut bytes);
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!((&bytes[..4], sum(&bytes[..16])), (&b"_MP_"[..], 0));
        assert_eq!(u32::from_le_bytes(bytes[4..8].try_into().unwrap()), 0xf_8010);
        let half = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        let table = &bytes[16..16 + half(16 + 4)];
        assert_eq!((&table[..4], sum(table)), (&b"PCMP"[..], 0));
        let (mut at, mut kinds) = (HEADER, [0; 5]);
        while at < table.len() {
            kinds[usize::from(table[at])] += 1;
            at += if table[at] == 0 { 20 } else { 8 };
        }
        assert_eq!(kinds, [1, 2, 1, 31 * 4 + 12, 2]);
        assert_eq!(kinds.iter().sum::<usize>(), half(16 + 34));
        assert_eq!(table[HEADER + 4..HEADER + 8], 0x0663u32.to_le_bytes());
    }
}
