//! POST: from the reset vector to INT 19h.
//!
//! `reset.rs` has the order of things. 32-bit code does what needs no BIOS services: chip set, memory, PCI, tables.

mod chipset;
mod flat;
pub mod fw_cfg;
pub mod ivt;
pub mod memory;
pub mod mp;
mod option_roms;
mod pci;
mod pmm;
mod reset;
pub mod tables;

use super::asm::*;
use super::debug;

/// Scratch memory of POST: physical addresses.
pub mod scratch {
    /// A DMA command to fw_cfg (16 bytes).
    pub const FW_CFG_COMMAND: u32 = 0x600;
    /// fw_cfg's directory.
    pub const DIRECTORY: u32 = 0x1_0000;
    pub const DIRECTORY_ENTRIES: u32 = 0x200;
    /// A file from fw_cfg.
    pub const FILE: u32 = 0x2_0000;
    pub const FILE_SIZE: u32 = 0x4_0000;
}

/// The 16-bit half, in E000.
pub fn emit(rom: &mut Rom) {
    reset::emit(rom);
    ivt::emit(rom);
    flat::emit(rom);
    option_roms::emit(rom);
    pmm::emit(rom);
}

/// The 32-bit half.
pub fn emit_flat(rom: &mut Rom) {
    flat::emit_flat(rom);
    asm! { rom;
        // Everything that comes before services are set up.
        label("post.flat");
        call("chipset.shadow");
        call("chipset.setup");
        call("memory.setup");
        call("fwcfg.setup");
        call("pci.setup");
        call("chipset.processor");
        call("tables.acpi");
        call("tables.smbios");
        call("mp.setup");
        call("memory.finish");
        ret();
    }
    chipset::emit_flat(rom);
    memory::emit_flat(rom);
    fw_cfg::emit_flat(rom);
    pci::emit_flat(rom);
    tables::emit_flat(rom);
    mp::emit_flat(rom);
    option_roms::emit_flat(rom);
    debug::emit_flat(rom);
}
