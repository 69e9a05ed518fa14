//! INT 05h, print screen, which INT 09h calls for the Print Screen key.
//!
//! | | |
//! |---|---|
//! | returns | the status at 0050:0000: 0, nothing is being printed and nothing went wrong |
//!
//! Deliberately absent: printing. A program that wants it brings its own handler (IBM PC/AT Technical Reference, INT 05h).

use crate::rom::asm::*;

/// Where software that knows IBM's BIOS finds the service in F000.
const ENTRY: u16 = 0xFF54;
const STATUS_SEGMENT: i32 = 0x50;

pub fn emit(rom: &mut Rom) {
    asm! { rom;
        label("int05");
        push(ds);
        push(STATUS_SEGMENT);
        pop(ds);
        mov(byte_ptr(0), 0);
        pop(ds);
        iret();
        vector(0x05, "int05");
    }
    rom.entry(ENTRY, "int05");
}
