//! INT 10h, AH=11h: fonts.
//!
//! | AL | takes | does |
//! |---|---|---|
//! | 00h, 10h | BH = bytes to the character, BL = block, CX = count, DX = first, ES:BP = font | loads a font for text |
//! | 01h, 11h; 02h, 12h; 04h, 14h | BL = block | loads the 8x14, 8x8, 8x16 font |
//! | 03h | BL = character map select | the blocks that bit 3 of attributes chooses from |
//! | 20h | ES:BP = font | INT 1Fh: CGA graphics' upper half |
//! | 21h | ES:BP = font, CX = bytes to the character, BL = rows (0: DL, 1: 14, 2: 25, 3: 43) | INT 43h: the font of graphics modes |
//! | 22h, 23h, 24h | BL, DL as above | the 8x14, 8x8, 8x16 font for graphics |
//! | 30h | BH = 0: INT 1Fh, 1: INT 43h, 2: 8x14, 3: 8x8, 4: its upper half, 5: 9x14, 6: 8x16, 7: 9x16 | ES:BP = font, CX = bytes to the character on the screen, DL = rows less one |
//!
//! 10h-14h also change the height of characters on the screen. The fonts need no other shapes for 9 dots, so 5 and 7 name empty lists.

use super::hardware::port;
use crate::rom::asm::*;
use crate::rom::layout::bda;

pub fn emit(rom: &mut Rom) {
    emit_load(rom);
    emit_height(rom);
    emit_graphics(rom);
    emit_information(rom);
}

fn emit_load(rom: &mut Rom) {
    asm! { rom;
        label("int10.font");
        dispatch_al(&[(0x03, ".select"), (0x20, ".upper"), (0x30, "font.information")]);
        mov(ah, al);
        and(al, 0x0F);
        cmp(ah, 0x20);
        jae("font.graphics");
        cmp(ah, 0x15);
        jae(".done");
        mov(si, frame::bp_());
        cmp(al, 0);
        je(".load");
        call("font.rom");
        jc(".done");
        mov(cx, 256);
        xor(dx, dx);
        label(".load");
        push(bx);
        call("font.load");
        pop(bx);
        test(frame::al(), 0x10);
        jz(".done");
        movzx(ax, bh);
        call("font.height");
        label(".done");
        jmp("service.done");

        label(".select");
        mov(ah, bl);
        mov(al, 3);
        out_ax(port::SEQUENCER);
        jmp("service.done");

        label(".upper");
        mov(ax, frame::bp_());
        mov(cx, es);
        mov(bx, 0x1F * 4);
        call("font.vector");
        jmp("service.done");

        // ES:SI, BH = the ROM's font that AL names as AH=11h does (1, 2, 4), or CF. Changes AX.
        label("font.rom");
        push(cs);
        pop(es);
        mov(bh, 14);
        mov(si, u32::from(rom.offset("font.8x14")));
        cmp(al, 1);
        je(".found");
        mov(bh, 8);
        mov(si, u32::from(rom.offset("font.8x8")));
        cmp(al, 2);
        je(".found");
        mov(bh, 16);
        mov(si, u32::from(rom.offset("font.8x16")));
        cmp(al, 4);
        je(".found");
        stc();
        label(".found");
        ret();

        // Loads the ROM's font of AL lines into block 0. Changes all but BP, DS.
        label("font.load_rom");
        call("font.of_height");
        call("font.rom");
        xor(bl, bl);
        mov(cx, 256);
        xor(dx, dx);
        jmp("font.load");

        // AL = what AH=11h calls the font of AL lines.
        label("font.of_height");
        mov(ah, 1);
        cmp(al, 14);
        je(".done");
        inc(ah);
        cmp(al, 8);
        je(".done");
        mov(ah, 4);
        label(".done");
        mov(al, ah);
        ret();

        // Loads CX characters of BH bytes from ES:SI, the first is DX, into block BL: plane 2, 32 bytes to the character.
        // Changes AX, BX, CX, DX, SI, DI, ES.
        label("font.load");
        push(ds);
        push(es);
        pop(ds);
        // Blocks 4 to 7 lie between blocks 0 to 3.
        mov(ah, bl);
        and(ah, 3);
        shl(ah, 6);
        and(bl, 4);
        shl(bl, 3);
        or(ah, bl);
        mov(al, 0);
        shl(dx, 5);
        add(ax, dx);
        mov(di, ax);
        mov(ax, 0xA000u32);
        mov(es, ax);
        // Registers as they are now are put back afterwards.
        call(".save");
        push(ax);
        indexed(port::SEQUENCER, 2, 0x04);
        indexed(port::SEQUENCER, 4, 0x06);
        indexed(port::GRAPHICS, 5, 0x00);
        indexed(port::GRAPHICS, 6, 0x04);
        movzx(bx, bh);
        jcxz(".loaded");
        label(".character");
        push(cx);
        push(di);
        mov(cx, bx);
        rep().movsb();
        pop(di);
        pop(cx);
        add(di, 32);
        loop_(".character");
        label(".loaded");
        pop(ax);
        push(ax);
        mov(al, 4);
        out_ax(port::SEQUENCER);
        indexed(port::SEQUENCER, 2, 0x03);
        pop(ax);
        // Odd/even memory belongs to text; otherwise nothing but the memory mode tells, and graphics' own values come back.
        mov(bh, al);
        test(ah, 4);
        jz(".text");
        indexed(port::SEQUENCER, 2, 0x0F);
        indexed(port::GRAPHICS, 5, 0x00);
        jmp(".map");
        label(".text");
        indexed(port::GRAPHICS, 5, 0x10);
        label(".map");
        mov(ah, bh);
        mov(al, 6);
        out_ax(port::GRAPHICS);
        pop(ds);
        ret();
        // AH = the sequencer's memory mode, AL = the graphics controller's miscellaneous register. Changes DX.
        label(".save");
        mov(dx, u32::from(port::SEQUENCER));
        mov(al, 4);
        out(dx, al);
        inc(dx);
        in_(al, dx);
        mov(ah, al);
        mov(dx, u32::from(port::GRAPHICS));
        mov(al, 6);
        out(dx, al);
        inc(dx);
        in_(al, dx);
        ret();
    }
}

fn emit_height(rom: &mut Rom) {
    asm! { rom;
        // Makes characters on the screen AX lines high: maximum scan line, cursor, underline, rows, page size. Changes all but BP, DS.
        label("font.height");
        or(ax, ax);
        jz(".done");
        cmp(ax, 32);
        ja(".done");
        mov(word_ptr(bda::VIDEO_CHARACTER_HEIGHT), ax);
        mov(bx, ax);
        // The underline of monochrome text is on the last line.
        mov(dx, word_ptr(bda::VIDEO_CRTC));
        cmp(dl, 0xB4u32);
        jne(".colour");
        mov(ah, bl);
        dec(ah);
        mov(al, 0x14);
        out(dx, ax);
        label(".colour");
        mov(al, 9);
        out(dx, al);
        inc(dx);
        in_(al, dx);
        dec(dx);
        mov(cl, al);
        and(al, 0xE0u32);
        mov(ah, bl);
        dec(ah);
        or(ah, al);
        mov(al, 9);
        out(dx, ax);
        // Lines of the screen, from the vertical display end: half of them if each is shown twice.
        mov(al, 0x12);
        out(dx, al);
        inc(dx);
        in_(al, dx);
        mov(ch, al);
        dec(dx);
        mov(al, 7);
        out(dx, al);
        inc(dx);
        in_(al, dx);
        xor(ah, ah);
        test(al, 0x02);
        jz(".bit8");
        inc(ah);
        label(".bit8");
        test(al, 0x40);
        jz(".bit9");
        add(ah, 2);
        label(".bit9");
        mov(al, ch);
        inc(ax);
        test(cl, 0x80u32);
        jz(".single");
        shr(ax, 1);
        label(".single");
        xor(dx, dx);
        div(bx);
        dec(ax);
        mov(byte_ptr(bda::VIDEO_ROWS), al);
        inc(ax);
        mul(word_ptr(bda::VIDEO_COLUMNS));
        shl(ax, 1);
        or(ax, 0x00FF);
        inc(ax);
        mov(word_ptr(bda::VIDEO_PAGE_SIZE), ax);
        call("cursor.shape");
        label(".done");
        ret();
    }
}

fn emit_graphics(rom: &mut Rom) {
    asm! { rom;
        label("font.graphics");
        cmp(ah, 0x24);
        ja("int10.font.done");
        cmp(al, 1);
        jne(".rom");
        mov(si, frame::bp_());
        jmp(".set");
        label(".rom");
        // 22h, 23h, 24h are 8x14, 8x8, 8x16, which font loading calls 1, 2, 4.
        push(bx);
        dec(al);
        cmp(al, 3);
        jne(".number");
        inc(al);
        label(".number");
        call("font.rom");
        movzx(cx, bh);
        pop(bx);
        label(".set");
        mov(word_ptr(bda::VIDEO_CHARACTER_HEIGHT), cx);
        dec(dl);
        mov(al, 13);
        cmp(bl, 1);
        je(".rows");
        mov(al, 24);
        cmp(bl, 2);
        je(".rows");
        mov(al, 42);
        cmp(bl, 3);
        je(".rows");
        mov(al, dl);
        or(bl, bl);
        jnz(".vector");
        label(".rows");
        mov(byte_ptr(bda::VIDEO_ROWS), al);
        label(".vector");
        mov(ax, si);
        mov(cx, es);
        mov(bx, 0x43 * 4);
        call("font.vector");
        jmp("service.done");

        // The font for graphics becomes the ROM's of AL lines. Changes all but BP, DS.
        label("font.set_graphics");
        push(si);
        call("font.of_height");
        call("font.rom");
        mov(ax, si);
        mov(cx, es);
        mov(bx, 0x43 * 4);
        call("font.vector");
        pop(si);
        ret();

        // The interrupt vector at 0000:BX = CX:AX.
        label("font.vector");
        push(ds);
        push(0);
        pop(ds);
        mov(word_ptr(bx), ax);
        mov(word_ptr(bx + 2), cx);
        pop(ds);
        ret();
    }
}

fn emit_information(rom: &mut Rom) {
    asm! { rom;
        label("font.information");
        mov(ax, word_ptr(bda::VIDEO_CHARACTER_HEIGHT));
        mov(frame::cx(), ax);
        mov(al, byte_ptr(bda::VIDEO_ROWS));
        mov(frame::dl(), al);
        cmp(bh, 7);
        ja(".done");
        movzx(bx, bh);
        shl(bx, 1);
        cmp(bl, 4);
        jb(".vector");
        mov(ax, word_ptr(bx + rom.at("font.pointers")).cs());
        mov(frame::bp_(), ax);
        mov(frame::es(), cs);
        label(".done");
        jmp("service.done");
        label(".vector");
        mov(bx, word_ptr(bx + rom.at("font.pointers")).cs());
        push(0);
        pop(ds);
        mov(eax, dword_ptr(bx));
        mov(frame::bp_(), ax);
        shr(eax, 16);
        mov(frame::es(), ax);
        jmp("service.done");

        label("font.pointers");
        dw(&[0x1F * 4, 0x43 * 4, rom.offset("font.8x14"), rom.offset("font.8x8"), rom.offset("font.8x8") + 1024, rom.offset("font.empty"),
            rom.offset("font.8x16"), rom.offset("font.empty")]);
        label("font.empty");
        db(&[0]);
    }
}
