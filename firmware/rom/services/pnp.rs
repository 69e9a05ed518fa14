//! The Plug and Play installation check, which option ROMs get in ES:DI and look for (Plug and Play BIOS Specification 1.0A, 4.4), and the PCI
//! interrupt routing table (Microsoft's PCI IRQ Routing Table Specification 1.0).
//!
//! There are no Plug and Play run-time functions: the entry points answer 82h, FUNCTION_NOT_SUPPORTED.

use crate::rom::asm::*;

const FUNCTION_NOT_SUPPORTED: u32 = 0x82;
/// The PCI-to-ISA bridge routes: device 1, function 0; it is compatible with the 82371FB.
const ROUTER: u8 = 1 << 3;
const COMPATIBLE: u32 = 0x122E_8086;
/// PIRQRCA, the first link; and which IRQs a link can use.
const FIRST_LINK: u8 = 0x60;
const IRQS: u16 = 0xDEF8;
/// Devices with an entry: all but the host bridge.
const DEVICES: std::ops::Range<u8> = 1..32;
/// Bytes of the routing table's header and of an entry; of all entries.
const ROUTING_HEADER: u16 = 32;
const ROUTING_ENTRY: u16 = 16;
pub const ROUTING_SIZE: u32 = ROUTING_ENTRY as u32 * (DEVICES.end - DEVICES.start) as u32;

pub fn emit(rom: &mut Rom) {
    let entry = rom.offset("pnp.entry");
    let mut header = Vec::new();
    header.extend(b"$PnP\x10\x21");
    // Control field, checksum, event notification flag's address.
    header.extend([0; 2 + 1 + 4]);
    for (segment, wide) in [(0xF000u32, false), (0xF_0000, true)] {
        header.extend(entry.to_le_bytes());
        header.extend(&segment.to_le_bytes()[..if wide { 4 } else { 2 }]);
    }
    // OEM identifier, data segments.
    header.extend([0; 4]);
    header.extend(0xF000u16.to_le_bytes());
    header.extend(0xF_0000u32.to_le_bytes());
    close(&mut header, 8);

    let mut routing = Vec::new();
    routing.extend(b"$PIR\x00\x01");
    routing.extend((ROUTING_HEADER + ROUTING_SIZE as u16).to_le_bytes());
    // The router's bus and function, no IRQ exclusive to PCI.
    routing.extend([0, ROUTER, 0, 0]);
    routing.extend(COMPATIBLE.to_le_bytes());
    routing.extend([0; 16]);
    for device in DEVICES {
        routing.extend([0, device << 3]);
        for pin in 0..4 {
            routing.push(FIRST_LINK + (device - 1 + pin) % 4);
            routing.extend(IRQS.to_le_bytes());
        }
        routing.extend([device, 0]);
    }
    close(&mut routing, 31);

    asm! { rom;
        label("pnp.entry");
        mov(ax, FUNCTION_NOT_SUPPORTED);
        retf();
        align(16);
        label("pnp.header");
        db(&header);
        align(16);
        label("pci.routing");
        db(&routing[..usize::from(ROUTING_HEADER)]);
        label("pci.routing.entries");
        db(&routing[usize::from(ROUTING_HEADER)..]);
    }
}

/// Makes the bytes' sum zero by the one at `checksum`.
pub fn close(table: &mut [u8], checksum: usize) {
    table[checksum] = 0;
    table[checksum] = table.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
}
