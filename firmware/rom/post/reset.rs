//! The reset vector and the order of POST.

use crate::rom::asm::*;
use crate::rom::layout::{BASE_MEMORY_KIB, BDA_SEGMENT, EBDA_SEGMENT, STACK_TOP, bda};

/// Where the processor starts, in F000; and IBM's POST entry.
const RESET_VECTOR: u16 = 0xFFF0;
const POST_ENTRY: u16 = 0xE05B;
/// Release date and machine model (AT) at their fixed places.
const DATE: u16 = 0xFFF5;
const DATE_TEXT: &[u8; 8] = b"01/01/26";
const MODEL: u16 = 0xFFFE;
const MODEL_AT: u8 = 0xFC;

pub fn emit(rom: &mut Rom) {
    let [low, high] = rom.offset("reset").to_le_bytes();
    let jump = [0xEA, low, high, 0x00, 0xE0];
    rom.fixed(RESET_VECTOR, &jump);
    rom.fixed(POST_ENTRY, &jump);
    rom.fixed(DATE, DATE_TEXT);
    rom.fixed(MODEL, &[MODEL_AT]);
    asm! { rom;
        label("reset");
        cli();
        cld();
        xor(ax, ax);
        mov(ss, ax);
        mov(sp, u32::from(STACK_TOP));
        call("ivt.setup");
        call("bda.setup");
        debug("emu BIOS");
        int(0x19);

        label("bda.setup");
        mov(ax, u32::from(BDA_SEGMENT));
        mov(ds, ax);
        mov(word_ptr(bda::MEMORY_KIB), u32::from(BASE_MEMORY_KIB));
        mov(word_ptr(bda::EBDA), u32::from(EBDA_SEGMENT));
        ret();
    }
}
