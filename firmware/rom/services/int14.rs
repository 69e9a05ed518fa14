//! INT 14h, serial ports, and INT 17h, parallel ports.
//!
//! | AH | INT 14h, DX = port 0 to 3 | in | returns |
//! |---|---|---|---|
//! | 00 | initialise | AL: bits 7-5 rate (110, 150, 300, 600, 1200, 2400, 4800, 9600), 4-3 parity, 2 stop bits, 1-0 word length | AH = line status, AL = modem status |
//! | 01 | send | AL | AH = line status, bit 7 set on time-out |
//! | 02 | receive | | AL, AH = line status, bit 7 set on time-out |
//! | 03 | status | | as 00 |
//!
//! | AH | INT 17h, DX = port 0 to 2 | in | returns |
//! |---|---|---|---|
//! | 00 | print | AL | AH = status: 80h ready, 40h acknowledge, 20h no paper, 10h selected, 08h error, 01h time-out |
//! | 01 | initialise | | AH |
//! | 02 | status | | AH |
//!
//! IBM PS/2 and PC BIOS Interface Technical Reference, INT 14h and 17h. Time-outs count in quarters of a second.

use crate::rom::asm::*;
use crate::rom::layout::{BDA_SEGMENT, bda};

/// Where software that knows IBM's BIOS finds the services in F000, and the table of divisors.
const ENTRY_14: u16 = 0xE739;
const ENTRY_17: u16 = 0xEFD2;
const DIVISORS_PLACE: u16 = 0xE729;
const DIVISORS: [u16; 8] = [0x0417, 0x0300, 0x0180, 0x00C0, 0x0060, 0x0030, 0x0018, 0x000C];
/// Where ports are looked for.
const SERIAL: [u16; 4] = [0x3F8, 0x2F8, 0x3E8, 0x2E8];
const PARALLEL: [u16; 3] = [0x378, 0x278, 0x3BC];
/// Periods of the refresh bit in a quarter of a second.
const QUARTER: u32 = 16_500;

pub fn emit(rom: &mut Rom) {
    rom.entry(ENTRY_14, "int14");
    rom.entry(ENTRY_17, "int17");
    rom.fixed(DIVISORS_PLACE, &DIVISORS.map(u16::to_le_bytes).concat());
    serial(rom);
    parallel(rom);
    setup(rom);
}

fn serial(rom: &mut Rom) {
    asm! { rom;
        service("int14");
        sti();
        cmp(dx, 3);
        ja("service.done");
        mov(si, dx);
        mov(cl, byte_ptr(si + bda::COM_TIMEOUTS));
        shl(si, 1);
        mov(dx, word_ptr(si + bda::COM_PORTS));
        test(dx, dx);
        jz("service.done");
        dispatch_ah(&[(0, ".initialise"), (1, ".send"), (2, ".receive"), (3, ".status")]);
        jmp("service.done");
        vector(0x14, "int14");

        label(".initialise");
        movzx(bx, al);
        shr(bl, 4);
        and(bl, 0x0E);
        mov(ah, al);
        add(dx, 3);
        mov(al, 0x80);
        out(dx, al);
        sub(dx, 3);
        mov(al, byte_ptr(bx + i32::from(DIVISORS_PLACE)).cs());
        out(dx, al);
        inc(dx);
        mov(al, byte_ptr(bx + (i32::from(DIVISORS_PLACE) + 1)).cs());
        out(dx, al);
        add(dx, 2);
        mov(al, ah);
        and(al, 0x1F);
        out(dx, al);
        sub(dx, 2);
        mov(al, 0);
        out(dx, al);
        dec(dx);
        label(".status");
        add(dx, 5);
        in_(al, dx);
        mov(ah, al);
        inc(dx);
        in_(al, dx);
        mov(frame::ax(), ax);
        jmp("service.done");

        // Sending: DTR and RTS, then the transmitter's holding register empties.
        label(".send");
        mov(bl, al);
        add(dx, 4);
        mov(al, 3);
        out(dx, al);
        inc(dx);
        mov(bh, 0x20);
        call("ports.wait");
        jc(".timeout");
        sub(dx, 5);
        mov(al, bl);
        out(dx, al);
        mov(frame::ah(), ah);
        jmp("service.done");
        label(".receive");
        add(dx, 4);
        mov(al, 1);
        out(dx, al);
        inc(dx);
        mov(bh, 0x01);
        call("ports.wait");
        jc(".timeout");
        sub(dx, 5);
        in_(al, dx);
        and(ah, 0x1E);
        mov(frame::ax(), ax);
        jmp("service.done");
        label(".timeout");
        or(ah, 0x80);
        mov(frame::ah(), ah);
        jmp("service.done");

        // Waits until one of the bits BH of port DX is set: AH = what it reads. CF set after CL quarters of a second. Changes AL,
        // CX, SI, DI.
        label("ports.wait");
        movzx(di, cl);
        inc(di);
        mov(si, QUARTER);
        in_byte(0x61);
        mov(ch, al);
        label(".next");
        in_(al, dx);
        mov(ah, al);
        test(al, bh);
        jnz(".ready");
        in_byte(0x61);
        xor(al, ch);
        test(al, 0x10);
        jz(".next");
        xor(ch, 0x10);
        dec(si);
        jnz(".next");
        mov(si, QUARTER);
        dec(di);
        jnz(".next");
        stc();
        ret();
        label(".ready");
        clc();
        ret();
    }
}

fn parallel(rom: &mut Rom) {
    asm! { rom;
        service("int17");
        sti();
        cmp(dx, 2);
        ja("service.done");
        mov(si, dx);
        mov(cl, byte_ptr(si + bda::LPT_TIMEOUTS));
        shl(si, 1);
        mov(dx, word_ptr(si + bda::LPT_PORTS));
        test(dx, dx);
        jz("service.done");
        dispatch_ah(&[(0, ".print"), (1, ".initialise"), (2, ".status")]);
        jmp("service.done");
        vector(0x17, "int17");

        label(".print");
        out(dx, al);
        inc(dx);
        mov(bh, 0x80);
        call("ports.wait");
        jc(".timeout");
        // Strobe.
        inc(dx);
        mov(al, 0x0D);
        out(dx, al);
        mov(al, 0x0C);
        out(dx, al);
        sub(dx, 2);
        jmp(".status");
        label(".timeout");
        and(ah, 0xF8);
        xor(ah, 0x48);
        or(ah, 1);
        mov(frame::ah(), ah);
        jmp("service.done");
        label(".initialise");
        add(dx, 2);
        mov(al, 0x08);
        out(dx, al);
        mov(al, 0x0C);
        out(dx, al);
        sub(dx, 2);
        label(".status");
        inc(dx);
        in_(al, dx);
        and(al, 0xF8);
        // ACK and ERROR are low when active.
        xor(al, 0x48);
        mov(frame::ah(), al);
        jmp("service.done");
    }
}

fn setup(rom: &mut Rom) {
    asm! { rom;
        // POST: which ports there are. A serial port keeps its interrupt enable register, a parallel one its data.
        label("ports.setup");
        push(i32::from(BDA_SEGMENT));
        pop(ds);
        mov(di, bda::COM_PORTS);
        xor(bx, bx);
    }
    for port in SERIAL {
        let next = rom.fresh();
        asm! { rom;
            mov(al, 0x02);
            out_al(port + 1);
            in_(al, dx);
            cmp(al, 0x02);
            jne(&next);
            mov(al, 0);
            out(dx, al);
            mov(word_ptr(di), u32::from(port));
            mov(byte_ptr(bx + bda::COM_TIMEOUTS), 1);
            add(di, 2);
            inc(bx);
            label(&next);
        }
    }
    asm! { rom;
        mov(cl, bl);
        mov(di, bda::LPT_PORTS);
        xor(bx, bx);
    }
    for port in PARALLEL {
        let next = rom.fresh();
        asm! { rom;
            mov(al, 0xAA);
            out_al(port);
            in_(al, dx);
            cmp(al, 0xAA);
            jne(&next);
            mov(word_ptr(di), u32::from(port));
            mov(byte_ptr(bx + bda::LPT_TIMEOUTS), 20);
            add(di, 2);
            inc(bx);
            label(&next);
        }
    }
    asm! { rom;
        // Equipment: serial ports in bits 11-9, parallel ports in bits 15-14.
        mov(ah, bl);
        shl(ah, 6);
        shl(cl, 1);
        or(ah, cl);
        or(byte_ptr(bda::EQUIPMENT + 1), ah);
        retf();
    }
}
