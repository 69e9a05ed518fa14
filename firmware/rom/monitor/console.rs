//! Screen, keyboard and COM1; lines, words and numbers. Writing keeps all registers.

use super::state;
use crate::rom::asm::*;
use crate::rom::layout::{BDA_SEGMENT, bda};

/// Line status: a byte has come.
const DATA_READY: i32 = 0x01;
/// Looks at keyboard and line before the processor halts until the next interrupt.
const POLLS: u32 = 500;

pub fn emit(rom: &mut Rom) {
    writing(rom);
    reading(rom);
    words(rom);
}

fn writing(rom: &mut Rom) {
    asm! { rom;
        // AL, with the current colour if it is not a control character.
        label("monitor.char");
        pushad();
        push(ax);
        cmp(al, 0x20);
        jb(".control");
        mov(ah, 0x09);
        movzx(bx, byte_ptr(state::COLOUR));
        mov(cx, 1);
        int(0x10);
        label(".control");
        pop(ax);
        push(ax);
        mov(ah, 0x0E);
        mov(bx, 7);
        int(0x10);
        pop(ax);
        mov(ah, 0x01);
        xor(dx, dx);
        int(0x14);
        popad();
        ret();

        // The string at CS:SI, at DS:SI.
        label("monitor.text");
        pushad();
        label(".next");
        mov(al, byte_ptr(si).cs());
        inc(si);
        test(al, al);
        jz("monitor.text_ds.done");
        call("monitor.char");
        jmp(".next");
        label("monitor.text_ds");
        pushad();
        label(".next");
        lodsb();
        test(al, al);
        jz(".done");
        call("monitor.char");
        jmp(".next");
        label(".done");
        popad();
        ret();

        label("monitor.newline");
        say("\r\n");
        ret();
        label("monitor.space");
        say(" ");
        ret();

        // EAX, AX, AL in hexadecimal digits.
        label("monitor.hex32");
        ror(eax, 16);
        call("monitor.hex16");
        ror(eax, 16);
        label("monitor.hex16");
        xchg(al, ah);
        call("monitor.hex8");
        xchg(al, ah);
        label("monitor.hex8");
        push(ax);
        shr(al, 4);
        call("monitor.digit");
        pop(ax);
        label("monitor.digit");
        push(ax);
        and(al, 0x0F);
        cmp(al, 10);
        jb(".decimal");
        add(al, 7);
        label(".decimal");
        add(al, 0x30);
        call("monitor.char");
        pop(ax);
        ret();

        // EAX in decimal.
        label("monitor.decimal");
        pushad();
        mov(ebx, 10);
        xor(cx, cx);
        label(".divide");
        xor(edx, edx);
        div(ebx);
        push(dx);
        inc(cx);
        test(eax, eax);
        jnz(".divide");
        label(".digit");
        pop(ax);
        call("monitor.digit");
        loop_(".digit");
        popad();
        ret();
    }
}

fn reading(rom: &mut Rom) {
    asm! { rom;
        // AL = the next character from keyboard or COM1. Changes AX, CX, DX.
        label("monitor.key");
        mov(cx, POLLS);
        label(".poll");
        call("monitor.poll");
        jnz(".done");
        loop_(".poll");
        sti();
        hlt();
        jmp("monitor.key");
        label(".done");
        ret();

        // ZF if neither keyboard nor COM1 has a character; else AL = it, AH = its scan code, 0 from COM1. Changes AX, DX.
        label("monitor.poll");
        mov(ah, 0x11);
        int(0x16);
        jnz(".keyboard");
        push(i32::from(BDA_SEGMENT));
        pop(es);
        cmp(word_ptr(bda::COM_PORTS).es(), 0);
        je(".none");
        mov(ah, 0x03);
        xor(dx, dx);
        int(0x14);
        test(ah, DATA_READY);
        jz(".none");
        mov(ah, 0x02);
        xor(dx, dx);
        int(0x14);
        mov(ah, 0);
        jmp(".some");
        label(".keyboard");
        mov(ah, 0x10);
        int(0x16);
        label(".some");
        // ZF clear, whatever the character is.
        test(sp, sp);
        label(".none");
        ret();

        // Reads a line to state::LINE, zero-terminated.
        label("monitor.read");
        mov(di, state::LINE);
        label(".next");
        call("monitor.key");
        cmp(al, 0x0D);
        je(".done");
        cmp(al, 0x08);
        je(".back");
        cmp(al, 0x7F);
        je(".back");
        cmp(al, 0x1B);
        je(".all");
        cmp(al, 0x03);
        je(".all");
        cmp(al, 0x20);
        jb(".next");
        cmp(al, 0x7F);
        ja(".next");
        cmp(di, state::LINE + state::LINE_SIZE - 1);
        jae(".next");
        mov(byte_ptr(di), al);
        inc(di);
        call("monitor.char");
        jmp(".next");
        label(".back");
        cmp(di, state::LINE);
        je(".next");
        dec(di);
        say("\x08 \x08");
        jmp(".next");
        label(".all");
        cmp(di, state::LINE);
        je(".next");
        dec(di);
        say("\x08 \x08");
        jmp(".all");
        label(".done");
        mov(byte_ptr(di), 0);
        jmp("monitor.newline");
    }
}

fn words(rom: &mut Rom) {
    asm! { rom;
        // Skips blanks at SI. ZF at the line's end. Changes AL.
        label("monitor.skip");
        mov(al, byte_ptr(si));
        cmp(al, 0x20);
        jne(".done");
        inc(si);
        jmp("monitor.skip");
        label(".done");
        test(al, al);
        ret();

        // ZF if the word at SI is the one at CS:DI, and SI behind it. Changes AX, DI.
        label("monitor.match");
        push(si);
        label(".next");
        lodsb();
        mov(ah, byte_ptr(di).cs());
        inc(di);
        test(ah, ah);
        jz(".end");
        or(al, 0x20);
        cmp(al, ah);
        je(".next");
        pop(si);
        ret();
        label(".end");
        dec(si);
        pop(di);
        test(al, al);
        jz(".done");
        cmp(al, 0x20);
        je(".done");
        mov(si, di);
        label(".done");
        ret();

        // EAX = the number at SI, which goes behind it; CF if there is none. Changes CX.
        label("monitor.number");
        call("monitor.skip");
        xor(ecx, ecx);
        cmp(word_ptr(si), 0x7830);
        jne(".first");
        add(si, 2);
        label(".first");
        push(si);
        label(".next");
        mov(al, byte_ptr(si));
        sub(al, 0x30);
        cmp(al, 9);
        jbe(".digit");
        or(al, 0x20);
        sub(al, 0x31);
        cmp(al, 5);
        ja(".end");
        add(al, 10);
        label(".digit");
        shl(ecx, 4);
        or(cl, al);
        inc(si);
        jmp(".next");
        label(".end");
        mov(eax, ecx);
        pop(cx);
        cmp(si, cx);
        jne(".some");
        stc();
        ret();
        label(".some");
        clc();
        ret();

        // EAX = the address at SI. CF if there is none. Changes EBX, CX.
        label("monitor.address");
        call("monitor.number");
        jc(".done");
        cmp(byte_ptr(si), u32::from(b':'));
        clc();
        jne(".done");
        inc(si);
        movzx(ebx, ax);
        shl(ebx, 4);
        call("monitor.number");
        jc(".done");
        movzx(eax, ax);
        add(eax, ebx);
        clc();
        label(".done");
        ret();
    }
}
