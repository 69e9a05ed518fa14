//! The physical memory map that loaders hand to kernels, as BIOS INT 15h AX=E820h would report it.

use emu_core::mem::GuestMemory;

/// Where conventional memory ends and the extended BIOS data area begins.
pub const EBDA: u64 = 0x9_fc00;
/// Where the board puts firmware tables (ACPI) for kernels that it boots itself: shadow RAM up to 1 MiB.
pub const FIRMWARE_TABLES: u64 = 0xe_0000;
/// Where extended memory begins.
pub const HIGH_MEMORY: u64 = 0x10_0000;

/// The kind of an address range (ACPI 6.5, table 15.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RangeKind {
    /// AddressRangeMemory.
    Ram = 1,
    /// AddressRangeReserved.
    Reserved = 2,
}

/// One address range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First physical address.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// What it is.
    pub kind: RangeKind,
}

/// The ranges of `memory`, in ascending order.
pub fn memory_map(memory: &GuestMemory) -> Vec<Range> {
    let mut map = Vec::new();
    let mut push = |start: u64, end: u64, kind| {
        if end > start {
            map.push(Range { start, len: end - start, kind });
        }
    };
    let low = memory.low_ram();
    push(0, low.min(EBDA), RangeKind::Ram);
    push(EBDA, 0xa_0000, RangeKind::Reserved);
    push(FIRMWARE_TABLES, HIGH_MEMORY, RangeKind::Reserved);
    push(HIGH_MEMORY, low, RangeKind::Ram);
    push(0xfffc_0000, 1 << 32, RangeKind::Reserved);
    push(1 << 32, (1 << 32) + memory.high_ram(), RangeKind::Ram);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_map_of_small_and_large_machines_holds_all_usable_ram() {
        for size in [0x10_0000, 0x800_0000, 0x1_4000_0000u64] {
            let memory = GuestMemory::new(size, 0).unwrap();
            let map = memory_map(&memory);
            let ram: u64 = map.iter().filter(|r| r.kind == RangeKind::Ram).map(|r| r.len).sum();
            assert_eq!(ram, size - (HIGH_MEMORY - EBDA));
            assert!(map.windows(2).all(|w| w[0].start + w[0].len <= w[1].start));
        }
    }
}
