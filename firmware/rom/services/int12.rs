//! INT 12h, base memory.
//!
//! | | |
//! |---|---|
//! | returns | AX = KiB of memory below the EBDA |

use crate::rom::asm::*;
use crate::rom::layout::{BDA_SEGMENT, bda};

/// Where software that knows IBM's BIOS finds the service in F000.
const ENTRY: u16 = 0xF841;

pub fn emit(rom: &mut Rom) {
    asm! { rom;
        label("int12");
        sti();
        push(ds);
        push(i32::from(BDA_SEGMENT));
        pop(ds);
        mov(ax, word_ptr(bda::MEMORY_KIB));
        pop(ds);
        iret();
        vector(0x12, "int12");
    }
    rom.entry(ENTRY, "int12");
}
