//! How characters and dots get into video memory and out of it, by the mode's [`Model`].
//!
//! A *line* is a row of text, or one line of dots in graphics. A column is that of a character. The four operations on lines are reached
//! through tables by model.

use super::hardware::port;
use super::tables::{Model, mode};
use super::{local, own};
use crate::rom::asm::*;
use crate::rom::layout::bda;

pub fn emit(rom: &mut Rom) {
    emit_setup(rom);
    emit_addresses(rom);
    emit_copy(rom);
    emit_fill(rom);
    emit_put(rom);
    emit_get(rom);
    emit_banked(rom);
}

fn emit_setup(rom: &mut Rom) {
    asm! { rom;
        // Finds out how to draw in the current mode on `local::page`. Keeps all registers.
        label("draw.setup");
        pushad();
        mov(local::bank(), -1);
        mov(al, local::page());
        and(al, 7);
        movzx(ax, al);
        mul(word_ptr(bda::VIDEO_PAGE_SIZE));
        mov(local::start(), ax);
        mov(ax, word_ptr(bda::VIDEO_CHARACTER_HEIGHT));
        mov(local::height(), ax);
        mov(ax, word_ptr(bda::VIDEO_COLUMNS));
        mov(local::pitch(), ax);
        test(byte_ptr(own::VBE_MODE + 1), 0x3F);
        jnz(".vbe");
        mov(al, byte_ptr(bda::VIDEO_MODE));
        call("mode.find");
        jnc(".known");
        mov(si, u32::from(rom.offset("video.modes")) + 3 * mode::SIZE as u32);
        label(".known");
        mov(ax, word_ptr(si + mode::MODEL).cs());
        mov(local::model(), al);
        mov(local::bits(), ah);
        mov(bx, word_ptr(si + mode::SEGMENT).cs());
        mov(local::segment(), bx);
        cmp(al, Model::Planar as u32);
        je(".done");
        ja(".linear");
        cmp(al, Model::Cga as u32);
        je(".cga");
        shl(local::pitch(), 1);
        mov(local::height(), 1);
        jmp(".done");
        label(".cga");
        mov(local::pitch(), 80);
        jmp(".done");
        label(".linear");
        mov(local::pitch(), 320);
        jmp(".done");
        label(".vbe");
        mov(local::segment(), 0xA000u32);
        mov(al, 3);
        call("dispi.read");
        mov(local::bits(), al);
        mov(local::model(), Model::Planar as u32);
        mov(cx, ax);
        mov(al, 6);
        call("dispi.read");
        mov(bx, ax);
        shr(bx, 3);
        cmp(cl, 4);
        je(".pitch");
        mov(local::model(), Model::Banked as u32);
        add(cl, 7);
        shr(cl, 3);
        movzx(cx, cl);
        mul(cx);
        mov(bx, ax);
        label(".pitch");
        mov(local::pitch(), bx);
        label(".done");
        popad();
        ret();

        // The operation of the mode's model, from the table of four-letter words at BX; all registers but BX are as they were.
        label("draw.operation");
        push(ax);
        movzx(ax, local::model());
        shl(ax, 1);
        add(bx, ax);
        mov(bx, word_ptr(bx).cs());
        pop(ax);
        ret();
    }
    let tables: [(&str, [&str; 5]); 4] = [
        ("draw.copies", ["copy.simple", "copy.simple", "copy.planar", "copy.simple", "copy.banked"]),
        ("draw.fills", ["fill.text", "fill.cga", "fill.planar", "fill.linear", "fill.banked"]),
        ("draw.puts", ["put.none", "put.cga", "put.planar", "put.linear", "put.banked"]),
        ("draw.gets", ["put.none", "get.cga", "get.planar", "get.linear", "get.banked"]),
    ];
    for (name, operations) in tables {
        asm! { rom; label(name); }
        for operation in operations {
            asm! { rom; dw(&[rom.offset(operation)]); }
        }
    }
}

fn emit_addresses(rom: &mut Rom) {
    asm! { rom;
        // EDI = where column CL of line AX begins; in `Banked` modes from the start of video memory. Changes nothing else.
        label("line.address");
        push(eax);
        push(ebx);
        push(edx);
        movzx(ebx, cl);
        cmp(local::model(), Model::Banked as u32);
        je(".banked");
        cmp(local::model(), Model::Cga as u32);
        je(".cga");
        mul(local::pitch());
        cmp(local::model(), Model::Planar as u32);
        je(".add");
        cmp(local::model(), Model::Text as u32);
        je(".text");
        shl(bx, 2);
        label(".text");
        shl(bx, 1);
        label(".add");
        add(ax, bx);
        add(ax, local::start());
        movzx(edi, ax);
        jmp(".done");
        label(".cga");
        // Odd lines are in the second 8 KiB; a character is as many bytes wide as a dot has bits.
        mov(dl, al);
        shr(ax, 1);
        imul_3(ax, ax, 80);
        test(dl, 1);
        jz(".even");
        add(ax, 0x2000);
        label(".even");
        add(ax, bx);
        cmp(local::bits(), 2);
        jne(".one_bit");
        add(ax, bx);
        label(".one_bit");
        movzx(edi, ax);
        jmp(".done");
        label(".banked");
        movzx(eax, ax);
        movzx(edx, local::pitch());
        imul_2(eax, edx);
        movzx(edx, local::bits());
        add(dl, 7);
        and(dl, 0x38);
        imul_2(ebx, edx);
        add(eax, ebx);
        mov(edi, eax);
        label(".done");
        pop(edx);
        pop(ebx);
        pop(eax);
        ret();

        // CX = bytes from `local::left` to `local::right` on a line. Changes AX.
        label("line.width");
        movzx(cx, local::right());
        sub(cl, local::left());
        inc(cx);
        movzx(ax, local::model());
        cmp(al, Model::Planar as u32);
        je(".done");
        cmp(al, Model::Text as u32);
        je(".twice");
        cmp(al, Model::Linear as u32);
        je(".eight");
        cmp(al, Model::Banked as u32);
        je(".banked");
        cmp(local::bits(), 2);
        jne(".done");
        label(".twice");
        shl(cx, 1);
        label(".done");
        ret();
        label(".eight");
        shl(cx, 3);
        ret();
        label(".banked");
        mov(al, local::bits());
        add(al, 7);
        and(al, 0x38);
        push(dx);
        mul(cx);
        pop(dx);
        mov(cx, ax);
        ret();
    }
}

fn emit_copy(rom: &mut Rom) {
    asm! { rom;
        // Copies line AX to line DX, from `local::left` to `local::right`. Keeps AX and DX; so do all operations on lines.
        label("copy.planar");
        push(ax);
        push(dx);
        // Write mode 1 copies all planes through the latches.
        indexed(port::GRAPHICS, 5, 1);
        indexed(port::SEQUENCER, 2, 0x0F);
        pop(dx);
        pop(ax);
        call("copy.simple");
        push(ax);
        push(dx);
        indexed(port::GRAPHICS, 5, 0);
        pop(dx);
        pop(ax);
        ret();

        label("copy.simple");
        push(ax);
        push(dx);
        push(ds);
        mov(cl, local::left());
        call("line.address");
        mov(si, di);
        mov(ax, dx);
        call("line.address");
        call("line.width");
        mov(es, local::segment());
        mov(ds, local::segment());
        // The latches hold a byte of each plane: no words there.
        cmp(local::model(), Model::Planar as u32);
        je(".bytes");
        mov(ax, cx);
        shr(cx, 2);
        rep().movsd();
        mov(cx, ax);
        and(cx, 3);
        label(".bytes");
        rep().movsb();
        pop(ds);
        pop(dx);
        pop(ax);
        ret();

        // Through the linear framebuffer if the processor is in real mode; else by the window, sixteen bytes at a time by way of the
        // stack, since there is one window only.
        label("copy.banked");
        push(ax);
        push(dx);
        mov(cl, local::left());
        call("line.address");
        mov(esi, edi);
        mov(ax, dx);
        call("line.address");
        call("line.width");
        push(fs);
        call("flat.enter");
        jc(".windows");
        push(cx);
        call("vbe.framebuffer");
        pop(cx);
        add(esi, eax);
        add(edi, eax);
        // Eight dots are a multiple of eight bytes.
        shr(cx, 2);
        label(".flat");
        mov(eax, dword_ptr(esi).fs());
        mov(dword_ptr(edi).fs(), eax);
        add(esi, 4);
        add(edi, 4);
        loop_(".flat");
        pop(fs);
        pop(dx);
        pop(ax);
        ret();
        label(".windows");
        pop(fs);
        mov(es, local::segment());
        label(".next");
        push(edi);
        mov(edi, esi);
        mov(dl, 0);
        label(".read");
        call("banked.read");
        push(ax);
        inc(dx);
        cmp(dl, 16);
        jb(".read");
        mov(esi, edi);
        mov(bx, sp);
        mov(edi, dword_ptr(bx + 32).ss());
        add(bx, 30);
        label(".write");
        mov(al, byte_ptr(bx).ss());
        sub(bx, 2);
        jcxz(".skip");
        call("banked.write");
        dec(cx);
        label(".skip");
        dec(dl);
        jnz(".write");
        add(sp, 36);
        or(cx, cx);
        jnz(".next");
        pop(dx);
        pop(ax);
        ret();
    }
}

fn emit_fill(rom: &mut Rom) {
    asm! { rom;
        // Fills line AX with spaces in `local::attribute`, or with that colour. Keeps AX.
        label("fill.text");
        push(ax);
        call("fill.start");
        shr(cx, 1);
        mov(ah, local::attribute());
        mov(al, b' ' as u32);
        rep().stosw();
        pop(ax);
        ret();

        label("fill.cga");
        push(ax);
        call("fill.start");
        mov(al, local::attribute());
        call("colour.spread");
        rep().stosb();
        pop(ax);
        ret();

        label("fill.linear");
        push(ax);
        call("fill.start");
        mov(al, local::attribute());
        rep().stosb();
        pop(ax);
        ret();

        label("fill.planar");
        push(ax);
        push(dx);
        call("fill.start");
        indexed(port::SEQUENCER, 2, 0x0F);
        mov(ah, local::attribute());
        mov(al, 0);
        out_ax(port::GRAPHICS);
        indexed(port::GRAPHICS, 1, 0x0F);
        rep().stosb();
        call("planar.restore");
        pop(dx);
        pop(ax);
        ret();

        label("fill.banked");
        push(ax);
        push(dx);
        mov(cl, local::left());
        call("line.address");
        movzx(cx, local::right());
        sub(cl, local::left());
        inc(cx);
        shl(cx, 3);
        mov(es, local::segment());
        mov(al, local::attribute());
        call("banked.colour");
        label(".next");
        mov(edx, local::colour());
        call("banked.dot");
        loop_(".next");
        pop(dx);
        pop(ax);
        ret();

        // ES:DI = where the rectangle begins on line AX, CX = its bytes. Changes AX.
        label("fill.start");
        mov(cl, local::left());
        call("line.address");
        call("line.width");
        mov(es, local::segment());
        ret();

        // AL = a byte of dots in colour AL of a CGA mode.
        label("colour.spread");
        and(al, 3);
        cmp(local::bits(), 2);
        je(".two_bits");
        and(al, 1);
        neg(al);
        ret();
        label(".two_bits");
        push(bx);
        mov(bl, 0x55);
        mul(bl);
        pop(bx);
        ret();

        // The graphics controller's registers as graphics modes have them. Changes AX and DX.
        label("planar.restore");
        indexed(port::GRAPHICS, 1, 0);
        indexed(port::GRAPHICS, 0, 0);
        indexed(port::GRAPHICS, 3, 0);
        indexed(port::GRAPHICS, 5, 0);
        indexed(port::GRAPHICS, 8, 0xFF);
        indexed(port::SEQUENCER, 2, 0x0F);
        ret();
    }
}

fn emit_put(rom: &mut Rom) {
    asm! { rom;
        // Draws the eight dots of BL, the leftmost in bit 7, at column CL of line AX: set dots in `local::attribute`, others black; with
        // bit 7 of the attribute, set dots change the colours that are there. Keeps AX, BX, CX.
        label("put.none");
        ret();

        label("put.cga");
        push(ax);
        push(bx);
        push(dx);
        call("line.address");
        mov(es, local::segment());
        mov(al, local::attribute());
        call("colour.spread");
        mov(dl, al);
        mov(dh, al);
        mov(ax, bx);
        mov(ah, al);
        cmp(local::bits(), 2);
        jne(".mask");
        // Each bit becomes two; the left half comes first in memory.
        push(cx);
        mov(cx, 8);
        xor(ax, ax);
        label(".bit");
        shl(ax, 2);
        shl(bl, 1);
        jnc(".clear");
        or(al, 3);
        label(".clear");
        loop_(".bit");
        pop(cx);
        xchg(al, ah);
        label(".mask");
        and(ax, dx);
        test(local::attribute(), 0x80u32);
        jz(".store");
        xor(al, byte_ptr(di).es());
        xor(ah, byte_ptr(di + 1).es());
        label(".store");
        stosb();
        cmp(local::bits(), 2);
        jne(".done");
        mov(al, ah);
        stosb();
        label(".done");
        pop(dx);
        pop(bx);
        pop(ax);
        ret();

        // Planes in the colour take the dots, set/reset keeps the others at zero.
        label("put.planar");
        push(ax);
        push(dx);
        call("line.address");
        mov(es, local::segment());
        mov(ah, local::attribute());
        not(ah);
        and(ah, 0x0F);
        mov(al, 1);
        out_ax(port::GRAPHICS);
        test(local::attribute(), 0x80u32);
        jz(".store");
        indexed(port::GRAPHICS, 3, 0x18);
        label(".store");
        mov(al, byte_ptr(di).es());
        mov(byte_ptr(di).es(), bl);
        call("planar.restore");
        pop(dx);
        pop(ax);
        ret();

        label("put.linear");
        push(ax);
        push(bx);
        push(cx);
        call("line.address");
        mov(es, local::segment());
        mov(cx, 8);
        label(".dot");
        xor(al, al);
        shl(bl, 1);
        jnc(".black");
        mov(al, local::attribute());
        label(".black");
        stosb();
        loop_(".dot");
        pop(cx);
        pop(bx);
        pop(ax);
        ret();

        label("put.banked");
        push(ax);
        push(bx);
        push(cx);
        push(dx);
        call("line.address");
        mov(es, local::segment());
        mov(al, local::attribute());
        call("banked.colour");
        mov(cx, 8);
        label(".dot");
        xor(edx, edx);
        shl(bl, 1);
        jnc(".black");
        mov(edx, local::colour());
        label(".black");
        call("banked.dot");
        loop_(".dot");
        pop(dx);
        pop(cx);
        pop(bx);
        pop(ax);
        ret();
    }
}

fn emit_get(rom: &mut Rom) {
    asm! { rom;
        // BL = which of the eight dots at column CL of line AX are not black. Keeps AX and CX.
        label("get.cga");
        push(ax);
        push(cx);
        call("line.address");
        mov(es, local::segment());
        mov(ax, word_ptr(di).es());
        mov(bl, al);
        cmp(local::bits(), 2);
        jne(".done");
        xchg(al, ah);
        mov(cx, 8);
        label(".bit");
        shl(bl, 1);
        test(ah, 0xC0u32);
        jz(".black");
        inc(bl);
        label(".black");
        shl(ax, 2);
        loop_(".bit");
        label(".done");
        pop(cx);
        pop(ax);
        ret();

        // Read mode 1 compares with a colour: black.
        label("get.planar");
        push(ax);
        push(dx);
        call("line.address");
        mov(es, local::segment());
        indexed(port::GRAPHICS, 2, 0);
        indexed(port::GRAPHICS, 5, 0x08);
        mov(bl, byte_ptr(di).es());
        not(bl);
        indexed(port::GRAPHICS, 5, 0);
        pop(dx);
        pop(ax);
        ret();

        label("get.linear");
        push(ax);
        push(cx);
        call("line.address");
        mov(es, local::segment());
        mov(cx, 8);
        label(".dot");
        shl(bl, 1);
        cmp(byte_ptr(di).es(), 0);
        je(".black");
        inc(bl);
        label(".black");
        inc(di);
        loop_(".dot");
        pop(cx);
        pop(ax);
        ret();

        label("get.banked");
        push(ax);
        push(cx);
        push(dx);
        call("line.address");
        mov(es, local::segment());
        mov(cx, 8);
        label(".dot");
        call("banked.fetch");
        shl(bl, 1);
        or(edx, edx);
        jz(".black");
        inc(bl);
        label(".black");
        loop_(".dot");
        pop(dx);
        pop(cx);
        pop(ax);
        ret();
    }
}

fn emit_banked(rom: &mut Rom) {
    asm! { rom;
        // Makes the window show the byte EDI. Changes nothing.
        label("banked.select");
        push(eax);
        mov(eax, edi);
        shr(eax, 16);
        cmp(ax, local::bank());
        je(".done");
        mov(local::bank(), ax);
        push(dx);
        mov(dx, ax);
        mov(al, 5);
        call("dispi.write");
        pop(dx);
        label(".done");
        pop(eax);
        ret();

        // Writes AL at EDI, and goes on to the next.
        label("banked.write");
        call("banked.select");
        mov(byte_ptr(di).es(), al);
        inc(edi);
        ret();

        // Reads AL at EDI, and goes on to the next.
        label("banked.read");
        call("banked.select");
        mov(al, byte_ptr(di).es());
        inc(edi);
        ret();

        // Writes a dot of colour EDX at EDI, and goes on to the next. Changes EDX.
        label("banked.dot");
        push(ax);
        push(cx);
        movzx(cx, local::bits());
        add(cl, 7);
        shr(cl, 3);
        label(".byte");
        mov(al, dl);
        call("banked.write");
        shr(edx, 8);
        loop_(".byte");
        pop(cx);
        pop(ax);
        ret();

        // EDX = the dot at EDI; goes on to the next.
        label("banked.fetch");
        push(eax);
        push(ebx);
        push(cx);
        xor(edx, edx);
        xor(cx, cx);
        mov(bl, local::bits());
        add(bl, 7);
        and(bl, 0x38);
        label(".byte");
        xor(eax, eax);
        call("banked.read");
        shl(eax, cl);
        or(edx, eax);
        add(cl, 8);
        cmp(cl, bl);
        jb(".byte");
        pop(cx);
        pop(ebx);
        pop(eax);
        ret();

        // `local::colour` = how a dot of colour AL is stored. Changes AX.
        label("banked.colour");
        push(ebx);
        movzx(ebx, al);
        cmp(local::bits(), 8);
        jbe(".done");
        and(bl, 0x0F);
        shl(bx, 2);
        mov(al, local::bits());
        cmp(al, 15);
        je(".fifteen");
        cmp(al, 16);
        je(".sixteen");
        mov(ebx, dword_ptr(bx + rom.at("colours.24")).cs());
        jmp(".done");
        label(".fifteen");
        mov(ebx, dword_ptr(bx + rom.at("colours.15")).cs());
        jmp(".done");
        label(".sixteen");
        mov(ebx, dword_ptr(bx + rom.at("colours.16")).cs());
        label(".done");
        mov(local::colour(), ebx);
        pop(ebx);
        ret();
    }
    // CGA's sixteen colours by depth.
    let colours = &super::tables::colours()[3][..16];
    let depth = |[red, green, blue]: [u32; 3]| {
        colours
            .iter()
            .map(|colour| {
                let part = |index: usize, bits: u32| {
                    if bits == 8 {
                        u32::from(colour[index]) << 2 | u32::from(colour[index]) >> 4
                    } else {
                        u32::from(colour[index]) >> (6 - bits)
                    }
                };
                part(0, red) << (green + blue) | part(1, green) << blue | part(2, blue)
            })
            .collect::<Vec<_>>()
    };
    asm! { rom;
        label("colours.15");
        dd(&depth([5, 5, 5]));
        label("colours.16");
        dd(&depth([5, 6, 5]));
        label("colours.24");
        dd(&depth([8, 8, 8]));
    }
}
