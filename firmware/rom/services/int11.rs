//! INT 11h, equipment list.
//!
//! | | |
//! |---|---|
//! | returns | AX = equipment word: bit 0 diskette drives there, 1 coprocessor, 2 pointing device, 5:4 first video mode, 7:6 diskette drives minus one, 11:9 serial ports, 15:14 parallel ports |

use crate::rom::asm::*;
use crate::rom::layout::{BDA_SEGMENT, bda};

/// Where software that knows IBM's BIOS finds the service in F000.
const ENTRY: u16 = 0xF84D;

pub fn emit(rom: &mut Rom) {
    asm! { rom;
        label("int11");
        sti();
        push(ds);
        push(i32::from(BDA_SEGMENT));
        pop(ds);
        mov(ax, word_ptr(bda::EQUIPMENT));
        pop(ds);
        iret();
        vector(0x11, "int11");
    }
    rom.entry(ENTRY, "int11");
}
