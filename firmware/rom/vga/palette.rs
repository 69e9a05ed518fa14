//! INT 10h, AH=0Bh and 10h: colours.
//!
//! | AX | takes | returns |
//! |---|---|---|
//! | 0B.. | BH = 0: BL = border (text), background and intensity (CGA graphics); BH = 1: BL = palette of mode 4 | |
//! | 1000 | BL = palette register, BH = value | |
//! | 1001 | BH = border | |
//! | 1002 | ES:DX = 16 palette registers and border | |
//! | 1003 | BL = 1: bit 7 of attributes blinks, 0: it is the background's intensity | |
//! | 1007 | BL = palette register | BH = value |
//! | 1008 | | BH = border |
//! | 1009 | ES:DX = 17 bytes | the palette registers and border there |
//! | 1010 | BX = colour, DH, CH, CL = red, green, blue | |
//! | 1012 | BX = first colour, CX = count, ES:DX = triples | |
//! | 1013 | BL = 0: BH = paging mode; 1: BH = page of colours | |
//! | 1015 | BL = colour | DH, CH, CL |
//! | 1017 | as 1012 | the triples at ES:DX |
//! | 1018, 1019 | BL = mask of the DAC | BL |
//! | 101A | | BL = paging mode, BH = page |
//! | 101B | BX = first colour, CX = count: grey | |

use super::hardware::port;
use crate::rom::asm::*;
use crate::rom::layout::bda;

pub fn emit(rom: &mut Rom) {
    emit_cga(rom);
    emit_registers(rom);
    emit_dac(rom);
}

fn emit_cga(rom: &mut Rom) {
    asm! { rom;
        label("int10.cga_palette");
        mov(cl, byte_ptr(bda::VIDEO_PALETTE_REGISTER));
        or(bh, bh);
        jnz(".palette");
        // The register's low five bits are the colour and its palette's intensity.
        mov(al, bl);
        and(al, 0x1F);
        and(cl, 0xE0u32);
        or(cl, al);
        mov(byte_ptr(bda::VIDEO_PALETTE_REGISTER), cl);
        mov(ah, bl);
        and(ah, 0x0F);
        test(ah, 0x08);
        jz(".dim");
        add(ah, 0x08);
        label(".dim");
        mov(al, 0x11);
        push(ax);
        call("attribute.write");
        pop(ax);
        mov(cl, byte_ptr(bda::VIDEO_MODE));
        cmp(cl, 3);
        jbe(".done");
        cmp(cl, 7);
        je(".done");
        mov(al, 0);
        call("attribute.write");
        mov(cx, 0xEF10u32);
        jmp(".three");
        label(".palette");
        and(cl, 0xDFu32);
        and(bl, 1);
        jz(".first");
        or(cl, 0x20);
        label(".first");
        mov(byte_ptr(bda::VIDEO_PALETTE_REGISTER), cl);
        mov(al, byte_ptr(bda::VIDEO_MODE));
        cmp(al, 4);
        jb(".done");
        cmp(al, 7);
        je(".done");
        mov(cx, 0xFE01u32);
        // Bits CL of registers 1 to 3 become those of BL.
        label(".three");
        and(bl, cl);
        mov(bh, 1);
        label(".next");
        mov(al, bh);
        call("attribute.read");
        and(al, ch);
        or(al, bl);
        mov(ah, al);
        mov(al, bh);
        call("attribute.write");
        inc(bh);
        cmp(bh, 4);
        jb(".next");
        label(".done");
        jmp("service.done");
    }
}

fn emit_registers(rom: &mut Rom) {
    asm! { rom;
        label("int10.palette");
        dispatch_al(&[
            (0x00, ".set"), (0x01, ".set_border"), (0x02, ".set_all"), (0x03, ".blink"), (0x07, ".get"), (0x08, ".get_border"),
            (0x09, ".get_all"), (0x10, "dac.set"), (0x12, "dac.set_block"), (0x13, "dac.page"), (0x15, "dac.get"), (0x17, "dac.get_block"),
            (0x18, "dac.set_mask"), (0x19, "dac.get_mask"), (0x1A, "dac.get_page"), (0x1B, "dac.grey"),
        ]);
        jmp("service.done");

        label(".set_border");
        mov(bl, 0x11);
        label(".set");
        cmp(bl, 0x14);
        ja(".done");
        mov(al, bl);
        mov(ah, bh);
        call("attribute.write");
        label(".done");
        jmp("service.done");

        label(".set_all");
        mov(si, dx);
        xor(bl, bl);
        label(".next");
        lods_es();
        mov(ah, al);
        mov(al, bl);
        call("attribute.write");
        inc(bl);
        cmp(bl, 0x10);
        jb(".next");
        mov(al, 0x11);
        mov(ah, byte_ptr(si).es());
        call("attribute.write");
        jmp("service.done");

        // Mode control, bit 3.
        label(".blink");
        mov(al, 0x10);
        call("attribute.read");
        and(al, 0xF7u32);
        and(byte_ptr(bda::VIDEO_MODE_REGISTER), 0xDFu32);
        test(bl, 1);
        jz(".steady");
        or(al, 0x08);
        or(byte_ptr(bda::VIDEO_MODE_REGISTER), 0x20);
        label(".steady");
        mov(ah, al);
        mov(al, 0x10);
        call("attribute.write");
        jmp("service.done");

        label(".get_border");
        mov(bl, 0x11);
        label(".get");
        cmp(bl, 0x14);
        ja(".done");
        mov(al, bl);
        call("attribute.read");
        mov(frame::bh(), al);
        jmp("service.done");

        label(".get_all");
        mov(di, dx);
        xor(bl, bl);
        label(".read");
        mov(al, bl);
        call("attribute.read");
        stosb();
        inc(bl);
        cmp(bl, 0x10);
        jb(".read");
        mov(al, 0x11);
        call("attribute.read");
        stosb();
        jmp("service.done");
    }
}

fn emit_dac(rom: &mut Rom) {
    asm! { rom;
        label("dac.set");
        movzx(di, dh);
        movzx(si, ch);
        movzx(ax, cl);
        call("colour.set");
        jmp("service.done");

        // Writes colour BL, as grey if greys are to be summed (40:89 bit 1).
        label("colour.set");
        test(byte_ptr(bda::VIDEO_FLAGS), 0x02);
        jz("colour.write");
        call("colour.grey");
        jmp("colour.write");

        label("dac.set_block");
        jcxz(".done");
        label(".next");
        push(dx);
        mov(si, dx);
        movzx(di, byte_ptr(si).es());
        movzx(ax, byte_ptr(si + 2).es());
        movzx(si, byte_ptr(si + 1).es());
        call("colour.set");
        pop(dx);
        add(dx, 3);
        inc(bx);
        loop_(".next");
        label(".done");
        jmp("service.done");

        label("dac.get");
        call("colour.read");
        mov(frame::cl(), al);
        mov(ax, si);
        mov(frame::ch(), al);
        mov(ax, di);
        mov(frame::dh(), al);
        jmp("service.done");

        label("dac.get_block");
        mov(di, dx);
        mov(al, bl);
        out_al(port::DAC_READ);
        mov(dx, u32::from(port::DAC_DATA));
        jcxz(".done");
        label(".next");
        in_(al, dx);
        stosb();
        in_(al, dx);
        stosb();
        in_(al, dx);
        stosb();
        loop_(".next");
        label(".done");
        jmp("service.done");

        // Paging: mode control, bit 7: 16 pages of 16 colours instead of 4 of 64.
        label("dac.page");
        mov(al, 0x10);
        call("attribute.read");
        test(bl, 1);
        jnz(".page");
        or(bl, bl);
        jnz(".done");
        and(al, 0x7F);
        shl(bh, 7);
        or(al, bh);
        mov(ah, al);
        mov(al, 0x10);
        jmp(".write");
        label(".page");
        mov(ah, bh);
        test(al, 0x80u32);
        jnz(".sixteen");
        shl(ah, 2);
        label(".sixteen");
        and(ah, 0x0F);
        mov(al, 0x14);
        label(".write");
        call("attribute.write");
        label(".done");
        jmp("service.done");

        label("dac.get_page");
        mov(al, 0x14);
        call("attribute.read");
        and(al, 0x0F);
        mov(bh, al);
        mov(al, 0x10);
        call("attribute.read");
        mov(bl, 1);
        test(al, 0x80u32);
        jnz(".sixteen");
        shr(bh, 2);
        dec(bl);
        label(".sixteen");
        mov(frame::bx(), bx);
        jmp("service.done");

        label("dac.set_mask");
        mov(al, bl);
        out_al(port::DAC_MASK);
        jmp("service.done");

        label("dac.get_mask");
        in_al(port::DAC_MASK);
        mov(frame::bl(), al);
        jmp("service.done");

        label("dac.grey");
        call("colours.grey");
        jmp("service.done");
    }
}
