//! The reset vector and the order of POST.
//!
//! A reset that leaves protected mode goes on where the program wants: CMOS register 0Fh says 5 (after an end of interrupt) or 0Ah, and
//! 0040:0067 says where (IBM PC/AT Technical Reference, shutdown status).

use crate::rom::asm::*;
use crate::rom::layout::{BASE_MEMORY_KIB, BDA_SEGMENT, EBDA_KIB, EBDA_SEGMENT, STACK_TOP, bda, ebda};

/// Where the processor starts, in F000; and IBM's POST entry.
const RESET_VECTOR: u16 = 0xFFF0;
const POST_ENTRY: u16 = 0xE05B;
/// Release date and machine model (AT) at their fixed places.
const DATE: u16 = 0xFFF5;
const DATE_TEXT: &[u8; 8] = b"01/01/26";
const MODEL: u16 = 0xFFFE;
const MODEL_AT: u8 = 0xFC;
/// CMOS registers, with NMI off while the first is written: shutdown status, equipment.
const SHUTDOWN: u8 = 0x0F;
const EQUIPMENT: u8 = 0x14;
/// Equipment word: first video mode 80x25 in colour.
const COLOUR_80: u32 = 0x20;

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
        cmos_read(SHUTDOWN);
        mov(bl, al);
        out_byte(0x70, SHUTDOWN);
        out_byte(0x71, 0);
        mov(ax, u32::from(BDA_SEGMENT));
        mov(ds, ax);
        cmp(bl, 0x0A);
        je(".resume");
        cmp(bl, 5);
        jne(".cold");
        out_byte(0x20, 0x20);
        label(".resume");
        jmp(dword_ptr(bda::RESUME));
        label(".cold");
        xor(ax, ax);
        mov(ss, ax);
        mov(esp, u32::from(STACK_TOP));
        mov(eax, rom.linear("post.flat"));
        call("flat.call");
        call("ivt.setup");
        call("bda.setup");
    }
    for routine in ["timer.setup", "keyboard.setup"] {
        rom.hook(routine);
    }
    asm! { rom;
        call("pmm.setup");
        call("roms.run");
        xor(ax, ax);
        mov(ds, ax);
        mov(es, ax);
    }
    for routine in ["ports.setup", "disk.setup"] {
        rom.hook(routine);
    }
    asm! { rom;
        call("pmm.end");
        call("boot.setup");
        mov(eax, rom.linear("chipset.lock"));
        call("flat.call");
        debug("emu BIOS: POST done");
        call("boot.menu");
        int(0x19);

        label("bda.setup");
        xor(eax, eax);
        mov(di, 0x400);
        mov(cx, 0x100 / 4);
        rep().stosd();
        push(i32::from(EBDA_SEGMENT));
        pop(es);
        xor(di, di);
        mov(cx, u32::from(EBDA_KIB) * 256);
        rep().stosd();
        mov(byte_ptr(ebda::SIZE).es(), u32::from(EBDA_KIB));
        mov(ax, u32::from(BDA_SEGMENT));
        mov(ds, ax);
        mov(word_ptr(bda::MEMORY_KIB), u32::from(BASE_MEMORY_KIB));
        mov(word_ptr(bda::EBDA), u32::from(EBDA_SEGMENT));
        mov(word_ptr(bda::KEYBOARD_HEAD), bda::KEYBOARD_BUFFER);
        mov(word_ptr(bda::KEYBOARD_TAIL), bda::KEYBOARD_BUFFER);
        mov(word_ptr(bda::KEYBOARD_START), bda::KEYBOARD_BUFFER);
        mov(word_ptr(bda::KEYBOARD_END), bda::KEYBOARD_BUFFER + 32);
        cmos_read(EQUIPMENT);
        mov(ah, 0);
        or(al, COLOUR_80);
        mov(word_ptr(bda::EQUIPMENT), ax);
        xor(ax, ax);
        mov(ds, ax);
        mov(es, ax);
        ret();
    }
}
