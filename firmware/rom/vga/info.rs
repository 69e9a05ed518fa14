//! INT 10h, AH=12h, 1Ah, 1Bh: what the adapter is, and how it behaves.
//!
//! | AH, BL | takes | returns |
//! |---|---|---|
//! | 12h, 10h | | BH = 0 colour, 1 monochrome; BL = 3 (256 KiB); CH = feature bits, CL = switches |
//! | 12h, 20h | | printing the screen: INT 05h stays the system BIOS's, which knows the rows |
//! | 12h, 30h | AL = 0, 1, 2: text modes have 200, 350, 400 lines from the next mode set on | AL = 12h, like all that follow |
//! | 12h, 31h | AL = 0: modes load their colours, 1: they do not | |
//! | 12h, 32h | AL = 0: video memory and registers are on, 1: off | |
//! | 12h, 33h | AL = 0: colours are summed to greys, 1: they are not | |
//! | 12h, 34h | AL = 0: cursor shapes are scaled, 1: they are not | |
//! | 12h, 35h | AL = 0-3: switches displays, of which there is one | |
//! | 12h, 36h | AL = 0: the screen is on, 1: off | |
//! | 1A00h | | AL = 1Ah, BL = display in use, BH = other display |
//! | 1A01h | BL, BH | AL = 1Ah |
//! | 1Bh | BX = 0, ES:DI = 64 bytes | AL = 1Bh, state of the adapter there |

use super::hardware::port;
use crate::rom::asm::*;
use crate::rom::layout::bda;

pub fn emit(rom: &mut Rom) {
    emit_select(rom);
    emit_combination(rom);
    emit_functionality(rom);
}

fn emit_select(rom: &mut Rom) {
    asm! { rom;
        label("int10.select");
        cmp(bl, 0x10);
        je(".information");
        cmp(bl, 0x30);
        jb(".done");
        cmp(bl, 0x36);
        ja(".done");
        cmp(bl, 0x30);
        je(".lines");
        cmp(bl, 0x35);
        je(".known");
        cmp(al, 1);
        ja(".done");
        mov(ah, al);
        cmp(bl, 0x31);
        je(".colours");
        cmp(bl, 0x32);
        je(".memory");
        cmp(bl, 0x33);
        je(".grey");
        cmp(bl, 0x34);
        je(".cursor");
        // The sequencer's screen off bit.
        shl(ah, 5);
        mov(dx, u32::from(port::SEQUENCER));
        mov(al, 1);
        out(dx, al);
        inc(dx);
        in_(al, dx);
        and(al, 0xDFu32);
        or(al, ah);
        out(dx, al);
        jmp(".known");

        label(".information");
        xor(bx, bx);
        cmp(byte_ptr(bda::VIDEO_CRTC), 0xB4u32);
        jne(".colour");
        inc(bh);
        label(".colour");
        mov(bl, 3);
        mov(frame::bx(), bx);
        mov(al, byte_ptr(bda::VIDEO_SWITCHES));
        mov(ah, al);
        and(al, 0x0F);
        shr(ah, 4);
        mov(frame::cx(), ax);
        label(".done");
        jmp("service.done");

        // 40:89 bits 7 and 4, and the switches of a card that shows so many lines.
        label(".lines");
        mov(bx, 0x8008u32);
        cmp(al, 1);
        jb(".set");
        mov(bx, 0x0009);
        je(".set");
        mov(bx, 0x1009);
        cmp(al, 2);
        ja(".done");
        label(".set");
        and(byte_ptr(bda::VIDEO_FLAGS), 0x6F);
        or(byte_ptr(bda::VIDEO_FLAGS), bh);
        and(byte_ptr(bda::VIDEO_SWITCHES), 0xF0u32);
        or(byte_ptr(bda::VIDEO_SWITCHES), bl);
        jmp(".known");

        label(".colours");
        shl(ah, 3);
        and(byte_ptr(bda::VIDEO_FLAGS), 0xF7u32);
        or(byte_ptr(bda::VIDEO_FLAGS), ah);
        jmp(".known");

        // The miscellaneous output register's RAM enable.
        label(".memory");
        xor(ah, 1);
        shl(ah, 1);
        in_al(port::MISCELLANEOUS_READ);
        and(al, 0xFDu32);
        or(al, ah);
        out_al(port::MISCELLANEOUS);
        jmp(".known");

        label(".grey");
        xor(ah, 1);
        shl(ah, 1);
        and(byte_ptr(bda::VIDEO_FLAGS), 0xFDu32);
        or(byte_ptr(bda::VIDEO_FLAGS), ah);
        jmp(".known");

        label(".cursor");
        and(byte_ptr(bda::VIDEO_CONTROL), 0xFEu32);
        or(byte_ptr(bda::VIDEO_CONTROL), ah);

        label(".known");
        mov(frame::al(), 0x12);
        jmp("service.done");
    }
}

fn emit_combination(rom: &mut Rom) {
    asm! { rom;
        label("int10.combination");
        cmp(al, 1);
        ja(".done");
        je(".set");
        call("combination.get");
        mov(frame::bx(), ax);
        jmp(".known");
        // The index of the pair, in either order.
        label(".set");
        mov(ax, bx);
        mov(cx, 16);
        xor(bx, bx);
        label(".search");
        cmp(ax, word_ptr(bx + (rom.at("display.combinations") + 4)).cs());
        je(".found");
        add(bx, 2);
        loop_(".search");
        jmp(".known");
        label(".found");
        shr(bx, 1);
        mov(byte_ptr(bda::VIDEO_COMBINATION), bl);
        label(".known");
        mov(frame::al(), 0x1A);
        label(".done");
        jmp("service.done");

        // AL = display in use, AH = other display. Changes BX.
        label("combination.get");
        mov(ax, 0xFFFFu32);
        movzx(bx, byte_ptr(bda::VIDEO_COMBINATION));
        cmp(bx, 16);
        jae(".done");
        shl(bx, 1);
        mov(ax, word_ptr(bx + (rom.at("display.combinations") + 4)).cs());
        label(".done");
        ret();
    }
}

fn emit_functionality(rom: &mut Rom) {
    asm! { rom;
        label("int10.functionality");
        or(bx, bx);
        jnz(".done");
        mov(frame::al(), 0x1B);
        // Static functionality table, 40:49-66, rows, height, displays.
        mov(ax, u32::from(rom.offset("functionality")));
        stosw();
        mov(ax, cs);
        stosw();
        mov(si, bda::VIDEO_MODE);
        mov(cx, 30);
        rep().movsb();
        mov(al, byte_ptr(bda::VIDEO_ROWS));
        inc(ax);
        stosb();
        mov(ax, word_ptr(bda::VIDEO_CHARACTER_HEIGHT));
        stosw();
        call("combination.get");
        stosw();
        // Colours and pages.
        mov(al, byte_ptr(bda::VIDEO_MODE));
        mov(si, u32::from(rom.offset("functionality.modes")));
        label(".mode");
        cmp(byte_ptr(si).cs(), 0xFFu32);
        je(".found");
        cmp(byte_ptr(si).cs(), al);
        je(".found");
        add(si, 5);
        jmp(".mode");
        label(".found");
        mov(ax, word_ptr(si + 1).cs());
        stosw();
        mov(al, byte_ptr(si + 3).cs());
        stosb();
        // Lines: 0-3 for 200, 350, 400, 480; text modes as they are set.
        mov(al, byte_ptr(si + 4).cs());
        cmp(al, 4);
        jne(".lines");
        mov(al, 2);
        cmp(byte_ptr(bda::VIDEO_CHARACTER_HEIGHT), 16);
        je(".lines");
        test(byte_ptr(bda::VIDEO_FLAGS), 0x10);
        jnz(".lines");
        dec(al);
        test(byte_ptr(bda::VIDEO_FLAGS), 0x80u32);
        jz(".lines");
        dec(al);
        label(".lines");
        stosb();
        // Character blocks.
        mov(dx, u32::from(port::SEQUENCER));
        mov(al, 3);
        out(dx, al);
        inc(dx);
        in_(al, dx);
        mov(ah, al);
        mov(cl, al);
        and(ax, 0x1003);
        shr(ah, 2);
        or(al, ah);
        stosb();
        mov(al, cl);
        mov(ah, cl);
        shr(al, 2);
        and(ax, 0x2003);
        shr(ah, 3);
        or(al, ah);
        stosb();
        // All modes on all displays; cursor emulation, greys, default colours, blinking as they are.
        mov(al, 0x01);
        mov(ah, byte_ptr(bda::VIDEO_FLAGS));
        test(ah, 0x02);
        jz(".no_grey");
        or(al, 0x02);
        label(".no_grey");
        test(ah, 0x08);
        jz(".default");
        or(al, 0x08);
        label(".default");
        test(byte_ptr(bda::VIDEO_CONTROL), 0x01);
        jnz(".plain");
        or(al, 0x10);
        label(".plain");
        test(byte_ptr(bda::VIDEO_MODE_REGISTER), 0x20);
        jz(".steady");
        or(al, 0x20);
        label(".steady");
        stosb();
        xor(ax, ax);
        stosw();
        stosb();
        // 256 KiB; save pointer table: a display combination table.
        mov(al, 3);
        stosb();
        mov(al, 0x20);
        stosb();
        xor(ax, ax);
        mov(cx, 13);
        rep().stosb();
        label(".done");
        jmp("service.done");

        // Static functionality table: modes, scan lines, character blocks, functions, save pointer functions.
        label("functionality");
        db(&[0xFF, 0xE0, 0x0F, 0, 0, 0, 0, 0x07, 0x02, 0x08, 0xFF, 0x0E, 0, 0, 0x20, 0]);
        // Mode, colours, pages, lines.
        label("functionality.modes");
    }
    let modes: [(u8, u16, u8, u8); 15] = [
        (0, 16, 8, 4),
        (1, 16, 8, 4),
        (2, 16, 8, 4),
        (3, 16, 8, 4),
        (4, 4, 1, 0),
        (5, 4, 1, 0),
        (6, 2, 1, 0),
        (7, 0, 8, 4),
        (0x0D, 16, 8, 0),
        (0x0E, 16, 4, 0),
        (0x0F, 0, 2, 1),
        (0x10, 16, 2, 1),
        (0x11, 2, 1, 3),
        (0x12, 16, 1, 3),
        (0x13, 256, 1, 0),
    ];
    for (mode, colours, pages, lines) in modes {
        let [low, high] = colours.to_le_bytes();
        asm! { rom; db(&[mode, low, high, pages, lines]); }
    }
    asm! { rom; db(&[0xFF, 0, 1, 1, 3]); }
}
