//! Character cells: the cursor, writing and reading a cell, scrolling, the teletype. What the functions of `characters.rs` are made of.

use super::local;
use super::tables::Model;
use crate::rom::asm::*;
use crate::rom::layout::bda;

pub fn emit(rom: &mut Rom) {
    emit_cursor(rom);
    emit_cell(rom);
    emit_glyph(rom);
    emit_scroll(rom);
    emit_teletype(rom);
}

fn emit_cursor(rom: &mut Rom) {
    asm! { rom;
        // DX = row and column of the cursor on `local::page`. Changes BX.
        label("cursor.get");
        call("cursor.slot");
        mov(dx, word_ptr(bx + bda::VIDEO_CURSORS));
        ret();

        // Moves the cursor on `local::page` to DX. Changes BX.
        label("cursor.set");
        call("cursor.slot");
        mov(word_ptr(bx + bda::VIDEO_CURSORS), dx);
        shr(bx, 1);
        cmp(bl, byte_ptr(bda::VIDEO_PAGE));
        je("cursor.show");
        ret();

        label("cursor.slot");
        mov(bl, local::page());
        and(bl, 7);
        movzx(bx, bl);
        shl(bx, 1);
        ret();

        // Shows the cursor of the page that is shown. Changes BX.
        label("cursor.show");
        push(ax);
        push(cx);
        push(dx);
        movzx(bx, byte_ptr(bda::VIDEO_PAGE));
        and(bl, 7);
        shl(bx, 1);
        mov(cx, word_ptr(bx + bda::VIDEO_CURSORS));
        movzx(ax, ch);
        mul(word_ptr(bda::VIDEO_COLUMNS));
        mov(ch, 0);
        add(ax, cx);
        mov(bx, word_ptr(bda::VIDEO_PAGE_START));
        shr(bx, 1);
        add(bx, ax);
        mov(al, 0x0E);
        call("crtc.pair");
        pop(dx);
        pop(cx);
        pop(ax);
        ret();
    }
}

fn emit_cell(rom: &mut Rom) {
    asm! { rom;
        // Writes character AL at row and column DX, with `local::attribute` if `local::with_attribute` says so or in graphics.
        // Changes BX, CX, SI, DI, ES.
        label("cell.write");
        cmp(local::model(), Model::Text as u32);
        jne("glyph.draw");
        push(ax);
        call("cell.address");
        pop(ax);
        mov(byte_ptr(di).es(), al);
        cmp(local::with_attribute(), 0);
        je(".done");
        mov(ah, local::attribute());
        mov(byte_ptr(di + 1).es(), ah);
        label(".done");
        ret();

        // AL = the character at DX, AH = its attribute in text modes. Changes BX, CX, SI, DI, ES.
        label("cell.read");
        cmp(local::model(), Model::Text as u32);
        jne("glyph.read");
        call("cell.address");
        mov(ax, word_ptr(di).es());
        ret();

        // ES:DI = the cell at DX of a text mode. Changes AX, CX.
        label("cell.address");
        movzx(ax, dh);
        mov(cl, dl);
        call("line.address");
        mov(es, local::segment());
        ret();
    }
}

fn emit_glyph(rom: &mut Rom) {
    asm! { rom;
        // DS:SI = the glyph of character AL. CGA's modes have the upper half at INT 1Fh. Changes BX.
        label("glyph.find");
        xor(bx, bx);
        mov(ds, bx);
        mov(bl, al);
        cmp(local::model(), Model::Cga as u32);
        jne(".all");
        shl(bl, 1);
        jc(".upper");
        shr(bl, 1);
        label(".all");
        lds(si, dword_ptr(0x43 * 4));
        jmp(".add");
        label(".upper");
        shr(bl, 1);
        lds(si, dword_ptr(0x1F * 4));
        label(".add");
        imul_2(bx, local::height());
        add(si, bx);
        ret();

        // Draws character AL at DX in a graphics mode. Changes BX, CX, SI, DI, ES.
        label("glyph.draw");
        push(ds);
        push(dx);
        push(ax);
        call("glyph.find");
        mov(cl, dl);
        movzx(ax, dh);
        mul(local::height());
        mov(bx, u32::from(rom.offset("draw.puts")));
        call("draw.operation");
        mov(dx, bx);
        mov(bx, local::height());
        mov(local::count(), bx);
        label(".line");
        mov(bl, byte_ptr(si));
        inc(si);
        call(dx);
        inc(ax);
        dec(local::count());
        jnz(".line");
        pop(ax);
        pop(dx);
        pop(ds);
        ret();

        // AL = the character whose glyph stands at DX in a graphics mode, 0 if none does; AH = 0. Changes BX, CX, SI, DI, ES.
        label("glyph.read");
        push(ds);
        push(dx);
        cmp(local::height(), 32);
        ja(".none");
        sub(sp, 32);
        mov(si, sp);
        mov(cl, dl);
        movzx(ax, dh);
        mul(local::height());
        mov(bx, u32::from(rom.offset("draw.gets")));
        call("draw.operation");
        mov(dx, bx);
        mov(bx, local::height());
        mov(local::count(), bx);
        label(".line");
        call(dx);
        mov(byte_ptr(si).ss(), bl);
        inc(si);
        inc(ax);
        dec(local::count());
        jnz(".line");
        mov(di, sp);
        push(ss);
        pop(es);
        xor(ax, ax);
        label(".compare");
        push(di);
        call("glyph.find");
        mov(cx, local::height());
        repe().cmpsb();
        pop(di);
        je(".found");
        inc(al);
        jnz(".compare");
        label(".found");
        add(sp, 32);
        jmp(".done");
        label(".none");
        xor(ax, ax);
        label(".done");
        pop(dx);
        pop(ds);
        ret();
    }
}

fn emit_scroll(rom: &mut Rom) {
    asm! { rom;
        // Scrolls the rectangle of the locals on `local::page` by `local::lines` rows, all if that is 0 or too many: up, or down if AH is
        // not 0. Changes AX, BX, CX, DX, SI, DI, ES.
        label("scroll");
        mov(al, byte_ptr(bda::VIDEO_ROWS));
        cmp(al, local::bottom());
        jae(".bottom");
        mov(local::bottom(), al);
        label(".bottom");
        mov(al, byte_ptr(bda::VIDEO_COLUMNS));
        dec(al);
        cmp(al, local::right());
        jae(".right");
        mov(local::right(), al);
        label(".right");
        mov(al, local::right());
        cmp(al, local::left());
        jb(".done");
        // AL = rows of the rectangle.
        mov(al, local::bottom());
        sub(al, local::top());
        jb(".done");
        inc(al);
        mov(cl, local::lines());
        or(cl, cl);
        jz(".all");
        cmp(cl, al);
        jb(".some");
        label(".all");
        mov(cl, al);
        label(".some");
        mov(local::lines(), cl);
        sub(al, cl);
        or(ah, ah);
        mov(ah, 0);
        mul_height(ax);
        mov(local::count(), ax);
        jnz(".down");
        // From the top down: DX takes what AX has.
        movzx(dx, local::top());
        movzx(ax, local::top());
        add(al, cl);
        mul_height(dx);
        mul_height(ax);
        mov(bx, 1);
        jmp(".go");
        label(".down");
        movzx(dx, local::bottom());
        movzx(ax, local::bottom());
        inc(dx);
        inc(ax);
        sub(al, cl);
        mul_height(dx);
        mul_height(ax);
        dec(dx);
        dec(ax);
        mov(bx, -1);
        label(".go");
        push(bx);
        label(".copy");
        cmp(local::count(), 0);
        je(".copied");
        mov(bx, u32::from(rom.offset("draw.copies")));
        call("draw.operation");
        call(bx);
        pop(bx);
        push(bx);
        add(ax, bx);
        add(dx, bx);
        dec(local::count());
        jmp(".copy");
        label(".copied");
        movzx(ax, local::lines());
        mul_height(ax);
        mov(local::count(), ax);
        mov(ax, dx);
        label(".fill");
        mov(bx, u32::from(rom.offset("draw.fills")));
        call("draw.operation");
        call(bx);
        pop(bx);
        push(bx);
        add(ax, bx);
        dec(local::count());
        jnz(".fill");
        pop(bx);
        label(".done");
        ret();
    }
}

impl Rom {
    /// Multiplies a register by the lines of a character; ZF stays.
    fn mul_height(&mut self, register: AsmRegister16) -> Emitted {
        self.pushf()?;
        self.imul_2(register, local::height())?;
        self.popf()
    }
}

/// Ticks of the 1.193182 MHz clock in a period of the bell's tone, and of the refresh signal (15 us high, 15 us low) in its length.
const BELL_PERIOD: u16 = 1331;
const BELL_EDGES: u32 = 12000;

fn emit_teletype(rom: &mut Rom) {
    asm! { rom;
        // Writes AL at the cursor of `local::page` and moves on; bell, backspace, line feed, carriage return do what they say.
        // `draw.setup` has been called. Changes all but BP, DS.
        label("teletype");
        call("cursor.get");
        dispatch_al(&[(0x07, "bell"), (0x08, ".back"), (0x0A, ".feed"), (0x0D, ".return")]);
        call("cell.write");
        inc(dl);
        cmp(dl, byte_ptr(bda::VIDEO_COLUMNS));
        jb("cursor.set");
        mov(dl, 0);
        label(".feed");
        inc(dh);
        cmp(dh, byte_ptr(bda::VIDEO_ROWS));
        jbe("cursor.set");
        mov(dh, byte_ptr(bda::VIDEO_ROWS));
        call("cursor.set");
        // The new row has the attribute of the last one, in graphics it is black.
        mov(al, local::attribute());
        push(ax);
        xor(ax, ax);
        cmp(local::model(), Model::Text as u32);
        jne(".attribute");
        call("cell.address");
        mov(al, byte_ptr(di + 1).es());
        label(".attribute");
        mov(local::attribute(), al);
        xor(ax, ax);
        mov(local::left(), al);
        mov(local::top(), al);
        mov(local::right(), 0xFFu32);
        mov(local::bottom(), 0xFFu32);
        mov(local::lines(), 1);
        call("scroll");
        pop(ax);
        mov(local::attribute(), al);
        ret();
        label(".back");
        or(dl, dl);
        jz(".stay");
        dec(dl);
        label(".stay");
        jmp("cursor.set");
        label(".return");
        mov(dl, 0);
        jmp("cursor.set");

        // A short tone: channel 2 of the timer in mode 3, through the speaker gate. Timed by the refresh signal at port 61h, bit 4; a board
        // without it does not hang.
        label("bell");
        out_byte(0x43, 0xB6);
        out_byte(0x42, BELL_PERIOD as u8);
        out_byte(0x42, (BELL_PERIOD >> 8) as u8);
        in_byte(0x61);
        push(ax);
        or(al, 3);
        out_port(0x61);
        mov(cx, BELL_EDGES);
        mov(ah, al);
        label(".edge");
        mov(bx, 0x0400);
        label(".wait");
        in_byte(0x61);
        xor(al, ah);
        test(al, 0x10);
        jnz(".next");
        dec(bx);
        jnz(".wait");
        label(".next");
        xor(ah, al);
        loop_(".edge");
        pop(ax);
        and(al, 0xFCu32);
        out_port(0x61);
        ret();
    }
}

impl Rom {
    /// Writes AL to a port below 100h.
    fn out_port(&mut self, port: i32) -> Emitted {
        self.out(port, al)
    }
}
