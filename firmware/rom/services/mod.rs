//! Run-time services in F000: one file per interrupt.

mod int11;
mod int12;
mod pnp;

use super::asm::Rom;

/// All services.
pub fn emit(rom: &mut Rom) {
    rom.service_ends();
    int11::emit(rom);
    int12::emit(rom);
    pnp::emit(rom);
}
