//! INT 10h, AH=01h-04h, 06h-0Ah, 0Ch-0Eh, 13h: the cursor, characters, dots.
//!
//! | AH | takes | returns |
//! |---|---|---|
//! | 01h | CH = first line of the cursor (bit 5: none), CL = last | |
//! | 02h | BH = page, DH = row, DL = column | |
//! | 03h | BH = page | CX = shape, DH = row, DL = column |
//! | 04h | | AH = 0: the light pen is not there |
//! | 06h, 07h | AL = rows to scroll up, down (0: all), BH = attribute, CH, CL, DH, DL = corners | |
//! | 08h | BH = page | AL = character, AH = attribute (text) |
//! | 09h | AL = character, BH = page, BL = attribute or colour, CX = count | |
//! | 0Ah | as 09h, attributes stay in text | |
//! | 0Ch | AL = colour (bit 7: exclusive or), BH = page, CX = column, DX = line | |
//! | 0Dh | BH = page, CX = column, DX = line | AL = colour |
//! | 0Eh | AL = character, BL = colour (graphics) | |
//! | 13h | AL = bit 0: the cursor moves, bit 1: attributes in the string; BH = page, BL = attribute, CX = characters, DX = position, ES:BP = string | |
//!
//! The teletype writes to the page that is shown, as IBM's does whatever BH says.

use super::hardware::port;
use super::local;
use super::tables::Model;
use crate::rom::asm::*;
use crate::rom::layout::bda;

pub fn emit(rom: &mut Rom) {
    emit_cursor(rom);
    emit_scroll(rom);
    emit_cells(rom);
    emit_string(rom);
    emit_dots(rom);
}

fn emit_cursor(rom: &mut Rom) {
    asm! { rom;
        label("int10.shape");
        mov(word_ptr(bda::VIDEO_CURSOR_SHAPE), cx);
        call("cursor.shape");
        jmp("service.done");

        // Loads the cursor's lines from 40:60. With emulation on (40:87 bit 0), lines of an 8-line character are scaled to the
        // character's height; the underline of two lines stays one, at the bottom. Changes AX, BX, CX, DX.
        label("cursor.shape");
        mov(bx, word_ptr(bda::VIDEO_CURSOR_SHAPE));
        and(bx, 0x3F1F);
        test(byte_ptr(bda::VIDEO_CONTROL), 1);
        jnz(".load");
        mov(cx, word_ptr(bda::VIDEO_CHARACTER_HEIGHT));
        cmp(cx, 8);
        jbe(".load");
        cmp(bl, 8);
        jae(".load");
        cmp(bh, 0x20);
        jae(".load");
        mov(dl, bl);
        sub(dl, bh);
        mov(al, bl);
        call(".scale");
        mov(bl, al);
        cmp(dl, 1);
        je(".underline");
        mov(al, bh);
        call(".scale");
        mov(bh, al);
        jmp(".load");
        label(".underline");
        mov(bh, bl);
        dec(bh);
        label(".load");
        mov(al, 0x0A);
        jmp("crtc.pair");
        label(".scale");
        inc(ax);
        mov(ah, 0);
        push(dx);
        mul(cx);
        pop(dx);
        shr(ax, 3);
        dec(ax);
        ret();

        label("int10.position");
        mov(local::page(), bh);
        call("cursor.set");
        jmp("service.done");

        label("int10.where");
        mov(local::page(), bh);
        call("cursor.get");
        mov(frame::dx(), dx);
        mov(ax, word_ptr(bda::VIDEO_CURSOR_SHAPE));
        mov(frame::cx(), ax);
        jmp("service.done");

        label("int10.light_pen");
        mov(frame::ah(), 0);
        jmp("service.done");
    }
}

fn emit_scroll(rom: &mut Rom) {
    asm! { rom;
        label("int10.scroll");
        mov(local::lines(), al);
        mov(local::attribute(), bh);
        mov(local::top(), ch);
        mov(local::left(), cl);
        mov(local::bottom(), dh);
        mov(local::right(), dl);
        mov(al, byte_ptr(bda::VIDEO_PAGE));
        mov(local::page(), al);
        call("draw.setup");
        sub(ah, 6);
        call("scroll");
        jmp("service.done");
    }
}

fn emit_cells(rom: &mut Rom) {
    asm! { rom;
        label("int10.read");
        mov(local::page(), bh);
        call("draw.setup");
        call("cursor.get");
        call("cell.read");
        mov(frame::ax(), ax);
        jmp("service.done");

        label("int10.write");
        mov(local::page(), bh);
        mov(local::attribute(), bl);
        xor(ah, 0x0A);
        mov(local::with_attribute(), ah);
        call("draw.setup");
        call("cursor.get");
        jcxz(".done");
        label(".next");
        push(cx);
        call("cell.write");
        pop(cx);
        inc(dl);
        cmp(dl, byte_ptr(bda::VIDEO_COLUMNS));
        jb(".on");
        mov(dl, 0);
        inc(dh);
        cmp(dh, byte_ptr(bda::VIDEO_ROWS));
        ja(".done");
        label(".on");
        loop_(".next");
        label(".done");
        jmp("service.done");

        label("int10.teletype");
        mov(ah, byte_ptr(bda::VIDEO_PAGE));
        mov(local::page(), ah);
        mov(local::attribute(), bl);
        mov(local::with_attribute(), 0);
        call("draw.setup");
        call("teletype");
        jmp("service.done");
    }
}

fn emit_string(rom: &mut Rom) {
    asm! { rom;
        label("int10.string");
        mov(local::page(), bh);
        mov(local::attribute(), bl);
        mov(local::with_attribute(), 1);
        call("draw.setup");
        // The position where the cursor is now, for functions that leave it there.
        push(dx);
        call("cursor.get");
        pop(ax);
        push(dx);
        mov(dx, ax);
        call("cursor.set");
        mov(si, frame::bp_());
        jcxz(".done");
        label(".next");
        push(cx);
        mov(es, frame::es());
        lods_es();
        test(frame::al(), 2);
        jz(".plain");
        mov(ah, al);
        lods_es();
        xchg(al, ah);
        mov(local::attribute(), ah);
        label(".plain");
        push(si);
        call("teletype");
        pop(si);
        pop(cx);
        loop_(".next");
        label(".done");
        pop(dx);
        test(frame::al(), 1);
        jnz(".moved");
        call("cursor.set");
        label(".moved");
        jmp("service.done");
    }
}

impl Rom {
    /// AL = the byte at ES:SI, which moves on.
    pub fn lods_es(&mut self) -> Emitted {
        self.mov(al, byte_ptr(si).es())?;
        self.inc(si)
    }
}

fn emit_dots(rom: &mut Rom) {
    asm! { rom;
        // ES:DI = the byte of the dot in column CX of line DX, CL = how far to shift it right; in `Banked` modes EDI only.
        // Changes AX, BX, CX, DX.
        label("dot.find");
        mov(local::page(), bh);
        call("draw.setup");
        mov(bx, cx);
        xor(cl, cl);
        mov(ax, dx);
        call("line.address");
        mov(es, local::segment());
        mov(cx, bx);
        mov(al, local::model());
        cmp(al, Model::Banked as u32);
        je(".banked");
        cmp(al, Model::Linear as u32);
        je(".linear");
        cmp(al, Model::Cga as u32);
        jne(".eight");
        cmp(local::bits(), 2);
        jne(".eight");
        shr(bx, 2);
        add(di, bx);
        not(cl);
        and(cl, 3);
        shl(cl, 1);
        ret();
        label(".eight");
        shr(bx, 3);
        add(di, bx);
        not(cl);
        and(cl, 7);
        ret();
        label(".linear");
        add(di, bx);
        mov(cl, 0);
        ret();
        label(".banked");
        movzx(eax, local::bits());
        add(al, 7);
        shr(al, 3);
        movzx(ebx, bx);
        imul_2(eax, ebx);
        add(edi, eax);
        ret();

        label("int10.write_dot");
        mov(local::attribute(), al);
        call("dot.find");
        dispatch_model([".text", ".cga", ".planar", ".linear"]);
        mov(al, local::attribute());
        call("banked.colour");
        mov(edx, local::colour());
        call("banked.dot");
        label(".text");
        jmp("service.done");
        label(".linear");
        mov(al, local::attribute());
        stosb();
        jmp("service.done");
        label(".cga");
        mov(bl, 1);
        cmp(local::bits(), 2);
        jne(".mask");
        mov(bl, 3);
        label(".mask");
        mov(al, local::attribute());
        and(al, bl);
        shl(al, cl);
        shl(bl, cl);
        test(local::attribute(), 0x80u32);
        jnz(".xor");
        not(bl);
        and(byte_ptr(di).es(), bl);
        or(byte_ptr(di).es(), al);
        jmp("service.done");
        label(".xor");
        xor(byte_ptr(di).es(), al);
        jmp("service.done");
        label(".planar");
        mov(ax, 0x0108);
        shl(ah, cl);
        out_ax(port::GRAPHICS);
        mov(ah, local::attribute());
        and(ah, 0x0F);
        mov(al, 0);
        out(dx, ax);
        mov(ax, 0x0F01);
        out(dx, ax);
        test(local::attribute(), 0x80u32);
        jz(".set");
        mov(ax, 0x1803);
        out(dx, ax);
        label(".set");
        mov(al, byte_ptr(di).es());
        mov(byte_ptr(di).es(), al);
        call("planar.restore");
        jmp("service.done");

        label("int10.read_dot");
        call("dot.find");
        dispatch_model([".text", ".cga", ".planar", ".linear"]);
        call("banked.fetch");
        mov(al, dl);
        jmp(".done");
        label(".text");
        jmp("service.done");
        label(".linear");
        mov(al, byte_ptr(di).es());
        jmp(".done");
        label(".cga");
        mov(al, byte_ptr(di).es());
        shr(al, cl);
        mov(ah, 1);
        cmp(local::bits(), 2);
        jne(".mask");
        mov(ah, 3);
        label(".mask");
        and(al, ah);
        jmp(".done");
        label(".planar");
        // Plane 3 first, so that plane 0 becomes bit 0.
        xor(bl, bl);
        mov(ax, 0x0304);
        label(".plane");
        out_ax(port::GRAPHICS);
        mov(bh, byte_ptr(di).es());
        shr(bh, cl);
        and(bh, 1);
        shl(bl, 1);
        or(bl, bh);
        sub(ah, 1);
        jae(".plane");
        indexed(port::GRAPHICS, 4, 0);
        mov(al, bl);
        label(".done");
        mov(frame::al(), al);
        jmp("service.done");
    }
}

impl Rom {
    /// Jumps by the mode's model, and goes on for `Banked`. Changes AL.
    fn dispatch_model(&mut self, [text, cga, planar, linear]: [&str; 4]) -> Emitted {
        self.mov(al, local::model())?;
        self.dispatch_al(&[
            (Model::Text as u8, text),
            (Model::Cga as u8, cga),
            (Model::Planar as u8, planar),
            (Model::Linear as u8, linear),
        ])
    }
}
