//! POST: from the reset vector to INT 19h.

mod flat;
pub mod ivt;
mod reset;

use super::asm::Rom;
use super::debug;

/// The 16-bit half, in E000.
pub fn emit(rom: &mut Rom) {
    reset::emit(rom);
    ivt::emit(rom);
    flat::emit(rom);
}

/// The 32-bit half.
pub fn emit_flat(rom: &mut Rom) {
    flat::emit_flat(rom);
    debug::emit_flat(rom);
}
