//! INT 15h AH=C2h, pointing device, and INT 74h (IRQ 12), which hands its packets to the program.
//!
//! | AL | service | in | returns |
//! |---|---|---|---|
//! | 00 | switch | BH = 0 off, 1 on | |
//! | 01 | reset | | BL = AAh, BH = 0 |
//! | 02 | sample rate | BH = 0 to 6: 10, 20, 40, 60, 80, 100, 200 a second | |
//! | 03 | resolution | BH = 0 to 3: 1, 2, 4, 8 counts per mm | |
//! | 04 | type | | BH = device identifier |
//! | 05 | initialise | BH = bytes in a packet, 1 to 8 | as 01 |
//! | 06 | status, scaling | BH = 0: BL, CL, DL = status, resolution, rate; 1: scaling 1:1; 2: 2:1 | |
//! | 07 | handler | ES:BX, called far with status, X, Y, Z on the stack, as words | |
//!
//! CF is set on errors, AH = 1 (function), 2 (value), 3 (device), 5 (no handler). IBM PS/2 BIOS Interface Technical Reference, INT 15h; the commands
//! are those of the PS/2 mouse, sent through the 8042's D4h.

use crate::rom::asm::*;
use crate::rom::layout::{BDA_SEGMENT, bda, ebda};

const BAD_FUNCTION: u32 = 1;
const BAD_VALUE: u32 = 2;
const BAD_DEVICE: u32 = 3;
const NO_HANDLER: u32 = 5;

/// 8042: status bits (output full, input full, from the mouse), commands, bits of the command byte.
const OUTPUT_FULL: u32 = 0x01;
const INPUT_FULL: u32 = 0x02;
const FROM_MOUSE: u32 = 0x20;
const READ_COMMAND_BYTE: u32 = 0x20;
const WRITE_COMMAND_BYTE: u32 = 0x60;
const ENABLE_MOUSE: u32 = 0xA8;
const TO_MOUSE: u32 = 0xD4;
const MOUSE_INTERRUPT: u32 = 0x02;
const MOUSE_OFF: u32 = 0x20;

/// What the mouse answers.
const ACKNOWLEDGE: u32 = 0xFA;

/// Second flag byte: bit 7 a handler is there, bits 2-0 bytes in a packet less one. First: bits 2-0 bytes so far.
const FLAGS: i32 = ebda::MOUSE_FLAGS;
const FLAGS_2: i32 = ebda::MOUSE_FLAGS + 1;
const HANDLER: u32 = 0x80;

pub fn emit(rom: &mut Rom) {
    services(rom);
    device(rom);
    interrupt(rom);
}

fn services(rom: &mut Rom) {
    asm! { rom;
        // The services run with interrupts off, so that answers are not taken for packets. DS = EBDA.
        label("mouse");
        cli();
        mov(ds, word_ptr(bda::EBDA));
        dispatch_al(&[
            (0, ".switch"),
            (1, ".reset"),
            (2, ".rate"),
            (3, ".resolution"),
            (4, ".identify"),
            (5, ".initialise"),
            (6, ".status"),
            (7, ".handler"),
        ]);
        mov(ah, BAD_FUNCTION);
        jmp("service.fail_ah");
        label(".bad_value");
        mov(ah, BAD_VALUE);
        jmp("service.fail_ah");
        label(".bad_device");
        mov(ah, BAD_DEVICE);
        jmp("service.fail_ah");

        label(".switch");
        cmp(bh, 1);
        ja(".bad_value");
        je(".on");
        mov(al, 0xF5);
        call("mouse.command");
        jc(".bad_device");
        jmp("service.ok_ah0");
        label(".on");
        test(byte_ptr(FLAGS_2), HANDLER);
        mov(ah, NO_HANDLER);
        jz("service.fail_ah");
        and(byte_ptr(FLAGS), 0xF8);
        call("mouse.open");
        mov(al, 0xF4);
        call("mouse.command");
        jc(".bad_device");
        jmp("service.ok_ah0");

        label(".initialise");
        dec(bh);
        cmp(bh, 7);
        ja(".bad_value");
        and(byte_ptr(FLAGS_2), HANDLER);
        or(byte_ptr(FLAGS_2), bh);
        label(".reset");
        and(byte_ptr(FLAGS), 0xF8);
        call("mouse.open");
        mov(al, 0xFF);
        call("mouse.command");
        jc(".bad_device");
        call("mouse.answer");
        jc(".bad_device");
        mov(frame::bl(), al);
        call("mouse.answer");
        jc(".bad_device");
        mov(frame::bh(), al);
        jmp("service.ok_ah0");

        label(".rate");
        cmp(bh, 6);
        ja(".bad_value");
        movzx(bx, bh);
        mov(bl, byte_ptr(bx + rom.at("mouse.rates")).cs());
        mov(al, 0xF3);
        jmp(".set");
        label(".resolution");
        cmp(bh, 3);
        ja(".bad_value");
        mov(bl, bh);
        mov(al, 0xE8);
        label(".set");
        call("mouse.command");
        jc(".bad_device");
        mov(al, bl);
        label(".send");
        call("mouse.command");
        jc(".bad_device");
        jmp("service.ok_ah0");

        label(".identify");
        mov(al, 0xF2);
        call("mouse.command");
        jc(".bad_device");
        call("mouse.answer");
        jc(".bad_device");
        mov(frame::bh(), al);
        jmp("service.ok_ah0");

        label(".status");
        mov(al, 0xE5);
        add(al, bh);
        cmp(bh, 2);
        ja(".bad_value");
        test(bh, bh);
        jnz(".send");
        mov(al, 0xE9);
        call("mouse.command");
        jc(".bad_device");
        call("mouse.answer");
        mov(frame::bl(), al);
        call("mouse.answer");
        mov(frame::cl(), al);
        call("mouse.answer");
        mov(frame::dl(), al);
        jc(".bad_device");
        jmp("service.ok_ah0");

        label(".handler");
        mov(ax, es);
        mov(word_ptr(ebda::MOUSE_HANDLER), bx);
        mov(word_ptr(ebda::MOUSE_HANDLER + 2), ax);
        and(byte_ptr(FLAGS_2), !HANDLER as i32 & 0xFF);
        or(ax, bx);
        jz("service.ok_ah0");
        or(byte_ptr(FLAGS_2), HANDLER);
        jmp("service.ok_ah0");

        label("mouse.rates");
        db(&[10, 20, 40, 60, 80, 100, 200]);
    }
}

/// Talking to the mouse. All routines change AX and CX only.
fn device(rom: &mut Rom) {
    asm! { rom;
        // Lets the mouse talk: port on, interrupt on.
        label("mouse.open");
        mov(al, ENABLE_MOUSE);
        call("mouse.controller");
        mov(al, READ_COMMAND_BYTE);
        call("mouse.controller");
        call("mouse.answer");
        mov(ah, al);
        or(ah, MOUSE_INTERRUPT);
        and(ah, !MOUSE_OFF as i32 & 0xFF);
        mov(al, WRITE_COMMAND_BYTE);
        call("mouse.controller");
        call("mouse.ready");
        mov(al, ah);
        out(0x60, al);
        call("mouse.ready");
        // IRQ 12, through the cascade.
        in_byte(0xA1);
        and(al, 0xEF);
        out(0xA1, al);
        ret();

        // Sends AL to the mouse: CF set unless it acknowledges. Packets that come first are dropped.
        label("mouse.command");
        push(bx);
        mov(ah, al);
        mov(al, TO_MOUSE);
        call("mouse.controller");
        call("mouse.ready");
        mov(al, ah);
        out(0x60, al);
        mov(bl, 8);
        label(".next");
        call("mouse.answer");
        jc(".done");
        cmp(al, ACKNOWLEDGE);
        je(".done");
        dec(bl);
        jnz(".next");
        stc();
        label(".done");
        pop(bx);
        ret();

        // Sends AL to the 8042.
        label("mouse.controller");
        push(ax);
        call("mouse.ready");
        pop(ax);
        out(0x64, al);
        ret();
        // Waits until the 8042 takes a byte. Changes AL, CX.
        label("mouse.ready");
        xor(cx, cx);
        label(".next");
        in_byte(0x64);
        test(al, INPUT_FULL);
        loopne(".next");
        ret();
        // AL = the next byte from the 8042; CF set if there is none within a quarter of a second. Keeps AH, BX.
        label("mouse.answer");
        push(edx);
        push(ax);
        // The refresh bit changes 66,000 times a second.
        mov(dx, 16_500);
        in_byte(0x61);
        mov(ah, al);
        label(".next");
        in_byte(0x64);
        test(al, OUTPUT_FULL);
        jnz(".full");
        in_byte(0x61);
        xor(al, ah);
        test(al, 0x10);
        jz(".next");
        xor(ah, 0x10);
        dec(dx);
        jnz(".next");
        pop(ax);
        pop(edx);
        stc();
        ret();
        label(".full");
        pop(ax);
        in_byte(0x60);
        pop(edx);
        clc();
        ret();
    }
}

fn interrupt(rom: &mut Rom) {
    asm! { rom;
        label("int74");
        pushad();
        push(ds);
        push(es);
        cld();
        push(i32::from(BDA_SEGMENT));
        pop(ds);
        mov(ds, word_ptr(bda::EBDA));
        in_byte(0x64);
        and(al, OUTPUT_FULL | FROM_MOUSE);
        cmp(al, OUTPUT_FULL | FROM_MOUSE);
        jne(".end");
        in_byte(0x60);
        test(byte_ptr(FLAGS_2), HANDLER);
        jz(".end");
        movzx(bx, byte_ptr(FLAGS));
        and(bx, 7);
        mov(byte_ptr(bx + ebda::MOUSE_PACKET), al);
        mov(al, byte_ptr(FLAGS_2));
        and(al, 7);
        inc(byte_ptr(FLAGS));
        cmp(bl, al);
        jb(".end");
        and(byte_ptr(FLAGS), 0xF8);
        out_byte(0xA0, 0x20);
        out_byte(0x20, 0x20);
        movzx(ax, byte_ptr(ebda::MOUSE_PACKET));
        push(ax);
        mov(al, byte_ptr(ebda::MOUSE_PACKET + 1));
        push(ax);
        mov(al, byte_ptr(ebda::MOUSE_PACKET + 2));
        push(ax);
        push(0);
        sti();
        call(dword_ptr(ebda::MOUSE_HANDLER));
        cli();
        add(sp, 8);
        jmp(".done");
        label(".end");
        out_byte(0xA0, 0x20);
        out_byte(0x20, 0x20);
        label(".done");
        pop(es);
        pop(ds);
        popad();
        iret();
        vector(0x74, "int74");
    }
}
