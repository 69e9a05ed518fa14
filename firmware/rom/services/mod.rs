//! Run-time services in F000: one file per interrupt.

mod apm;
pub mod disk;
mod int05;
mod int11;
mod int12;
mod int14;
mod int15;
mod int1a;
mod keyboard;
mod mouse;
mod pci_bios;
pub mod pnp;
mod timer;

use super::asm::Rom;

/// All services.
pub fn emit(rom: &mut Rom) {
    rom.service_ends();
    disk::emit(rom);
    int05::emit(rom);
    int11::emit(rom);
    int12::emit(rom);
    int14::emit(rom);
    int15::emit(rom);
    apm::emit(rom);
    keyboard::emit(rom);
    mouse::emit(rom);
    timer::emit(rom);
    int1a::emit(rom);
    pci_bios::emit(rom);
    pnp::emit(rom);
}

/// Services for 32-bit code.
pub fn emit_flat(rom: &mut Rom) {
    apm::emit_flat(rom);
    pci_bios::emit_flat(rom);
}
