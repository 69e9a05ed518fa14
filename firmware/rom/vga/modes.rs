//! INT 10h, AH=00h, 05h, 0Fh: modes and pages.
//!
//! | AH | takes | returns |
//! |---|---|---|
//! | 00h | AL = mode; bit 7: video memory is not cleared | AL = 30h (modes 0-5, 7), 3Fh (6), 20h (above), as clones do |
//! | 05h | AL = page | |
//! | 0Fh | | AL = mode, bit 7 as it was set; AH = columns; BH = page |
//!
//! Text modes have 200, 350 or 400 lines as 40:89 bits 7 and 4 say (AH=12h, BL=30h). Registers come from the table that 40:A8 points to;
//! the other areas of the save pointer table (palette, fonts of the user's) are not used.

use super::own;
use super::tables::{Model, mode, parameter};
use crate::rom::asm::*;
use crate::rom::layout::bda;

pub fn emit(rom: &mut Rom) {
    emit_services(rom);
    emit_set(rom);
    emit_bda(rom);
}

fn emit_services(rom: &mut Rom) {
    asm! { rom;
        label("int10.set_mode");
        call("mode.set");
        mov(al, frame::al());
        and(al, 0x7F);
        mov(ah, 0x20);
        cmp(al, 7);
        ja(".done");
        mov(ah, 0x3F);
        cmp(al, 6);
        je(".done");
        mov(ah, 0x30);
        label(".done");
        mov(frame::al(), ah);
        jmp("service.done");

        label("int10.page");
        cmp(al, 8);
        jae(".done");
        mov(byte_ptr(bda::VIDEO_PAGE), al);
        movzx(ax, al);
        mul(word_ptr(bda::VIDEO_PAGE_SIZE));
        mov(word_ptr(bda::VIDEO_PAGE_START), ax);
        mov(bx, ax);
        mov(al, byte_ptr(bda::VIDEO_MODE));
        call("mode.find");
        jc(".done");
        cmp(byte_ptr(si + mode::MODEL).cs(), Model::Planar as u32);
        je(".start");
        // Text counts words.
        shr(bx, 1);
        label(".start");
        mov(al, 0x0C);
        call("crtc.pair");
        call("cursor.show");
        label(".done");
        jmp("service.done");

        label("int10.get_mode");
        mov(al, byte_ptr(bda::VIDEO_CONTROL));
        and(al, 0x80u32);
        or(al, byte_ptr(bda::VIDEO_MODE));
        mov(frame::al(), al);
        mov(al, byte_ptr(bda::VIDEO_COLUMNS));
        mov(frame::ah(), al);
        mov(al, byte_ptr(bda::VIDEO_PAGE));
        mov(frame::bh(), al);
        jmp("service.done");

        // Writes BX into the CRT controller's registers AL (high) and AL + 1 (low). Changes AX and DX.
        label("crtc.pair");
        mov(dx, word_ptr(bda::VIDEO_CRTC));
        mov(ah, bh);
        out(dx, ax);
        inc(ax);
        mov(ah, bl);
        out(dx, ax);
        ret();

        // CS:SI = the mode AL, or CF. Keeps the rest.
        label("mode.find");
        mov(si, u32::from(rom.offset("video.modes")));
        label(".next");
        cmp(byte_ptr(si).cs(), 0xFFu32);
        je(".none");
        cmp(byte_ptr(si).cs(), al);
        je(".found");
        add(si, mode::SIZE);
        jmp(".next");
        label(".none");
        stc();
        label(".found");
        ret();
    }
}

fn emit_set(rom: &mut Rom) {
    asm! { rom;
        // Sets mode AL (bit 7: memory is not cleared). Does nothing if there is none. Changes all but BP and DS.
        label("mode.set");
        mov(ah, al);
        and(al, 0x7F);
        call("mode.find");
        jc(".none");
        push(ax);
        call("dispi.off");
        pop(ax);
        mov(word_ptr(own::VBE_MODE), 0);
        call("mode.lines");
        mov(al, byte_ptr(bx + si + mode::PARAMETERS).cs());
        mov(bl, byte_ptr(si + mode::COLOURS).cs());
        call("mode.load");
        test(ah, 0x80u32);
        jnz(".kept");
        call("mode.clear");
        label(".kept");
        call("mode.fill_bda");
        cmp(byte_ptr(si + mode::MODEL).cs(), Model::Text as u32);
        jne(".graphics");
        mov(al, byte_ptr(bda::VIDEO_CHARACTER_HEIGHT));
        call("font.load_rom");
        label(".graphics");
        mov(al, byte_ptr(bda::VIDEO_CHARACTER_HEIGHT));
        call("font.set_graphics");
        jmp("screen.on");
        label(".none");
        ret();

        // BX = which of the three entries of mode SI counts. 200 lines of text in colour have CGA's colours: see `mode.load`.
        label("mode.lines");
        mov(bx, 2);
        test(byte_ptr(bda::VIDEO_FLAGS), 0x10);
        jnz(".done");
        dec(bx);
        test(byte_ptr(bda::VIDEO_FLAGS), 0x80u32);
        jz(".done");
        dec(bx);
        label(".done");
        ret();

        // Loads the parameters of index AL and the colours of index BL; ES:DI = the parameters. Keeps AX and SI.
        label("mode.load");
        push(ax);
        push(si);
        push(bx);
        call("parameters.find");
        call("registers.load");
        pop(bx);
        push(di);
        push(es);
        // Text in 200 lines uses CGA's palette bits.
        cmp(byte_ptr(di + (parameter::CRTC + 9)).es(), 0xC7u32);
        jne(".colours");
        xor(bl, bl);
        label(".colours");
        call("colours.load");
        pop(es);
        pop(di);
        pop(si);
        pop(ax);
        ret();

        // Clears video memory for mode SI. Changes CX.
        label("mode.clear");
        push(ax);
        push(di);
        push(es);
        mov(es, word_ptr(si + mode::SEGMENT).cs());
        xor(di, di);
        mov(cx, 0x4000);
        mov(ax, 0x0720);
        mov(dl, byte_ptr(si + mode::MODEL).cs());
        cmp(dl, Model::Text as u32);
        je(".fill");
        xor(ax, ax);
        cmp(dl, Model::Cga as u32);
        je(".fill");
        mov(ch, 0x80u32);
        label(".fill");
        rep().stosw();
        pop(es);
        pop(di);
        pop(ax);
        ret();
    }
}

fn emit_bda(rom: &mut Rom) {
    asm! { rom;
        // The BIOS data area's fields for mode SI (bit 7 of AH: memory is not cleared) with the parameters ES:DI. Changes AX, BX, CX.
        label("mode.fill_bda");
        mov(al, byte_ptr(si).cs());
        mov(byte_ptr(bda::VIDEO_MODE), al);
        mov(bx, word_ptr(si + mode::CGA).cs());
        mov(word_ptr(bda::VIDEO_MODE_REGISTER), bx);
        xor(cx, cx);
        cmp(byte_ptr(si + mode::MODEL).cs(), Model::Text as u32);
        jne(".shape");
        mov(cx, 0x0607);
        label(".shape");
        call("bda.from_parameters");
        ret();

        // What every mode has; CX = cursor shape.
        label("bda.from_parameters");
        mov(word_ptr(bda::VIDEO_CURSOR_SHAPE), cx);
        and(ah, 0x80u32);
        and(byte_ptr(bda::VIDEO_CONTROL), 0x7F);
        or(byte_ptr(bda::VIDEO_CONTROL), ah);
        movzx(ax, byte_ptr(di + parameter::COLUMNS).es());
        mov(word_ptr(bda::VIDEO_COLUMNS), ax);
        mov(al, byte_ptr(di + parameter::ROWS).es());
        mov(byte_ptr(bda::VIDEO_ROWS), al);
        movzx(ax, byte_ptr(di + parameter::HEIGHT).es());
        mov(word_ptr(bda::VIDEO_CHARACTER_HEIGHT), ax);
        mov(ax, word_ptr(di + parameter::PAGE_SIZE).es());
        mov(word_ptr(bda::VIDEO_PAGE_SIZE), ax);
        xor(ax, ax);
        mov(word_ptr(bda::VIDEO_PAGE_START), ax);
        mov(byte_ptr(bda::VIDEO_PAGE), al);
        mov(bx, 16);
        label(".cursor");
        sub(bx, 2);
        mov(word_ptr(bx + bda::VIDEO_CURSORS), ax);
        or(bx, bx);
        jnz(".cursor");
        ret();
    }
}
