//! The VGA BIOS, an option ROM at C000:0000. Its size and checksum are filled in when the image is made.

use crate::rom::asm::*;

pub fn emit(rom: &mut Rom) {
    asm! { rom;
        // Option ROM header (Plug and Play BIOS Specification 1.0A, 3.2): signature, size, entry point for initialisation.
        db(&[0x55, 0xAA, 0]);
        jmp("init");
        label("init");
        retf();
    }
}
