//! INT 1Ah, clock, and the door to the PCI BIOS.
//!
//! | AH | service | in | returns |
//! |---|---|---|---|
//! | 00 | read ticks | | CX:DX ticks since midnight, AL = midnights since the last call |
//! | 01 | set ticks | CX:DX | |
//! | 02 | read time | | CH, CL, DH = hours, minutes, seconds (BCD), DL = daylight saving |
//! | 03 | set time | CH, CL, DH, DL | |
//! | 04 | read date | | CH, CL, DH, DL = century, year, month, day (BCD) |
//! | 05 | set date | CH, CL, DH, DL | |
//! | 06 | set alarm | CH, CL, DH | CF set if one is set |
//! | 07 | cancel alarm | | |
//! | B1 | PCI BIOS: `pci_bios.rs` | | |
//! | others | | | CF set |
//!
//! IBM PC/AT Technical Reference, real-time clock; MC146818 datasheet. The alarm's interrupt 4Ah comes from INT 70h.

use crate::rom::asm::*;
use crate::rom::layout::bda;

/// Where software that knows IBM's BIOS finds the service in F000.
const ENTRY: u16 = 0xFE6E;
/// CMOS registers of the clock.
const SECONDS: u8 = 0x00;
const ALARM_SECONDS: u8 = 0x01;
const MINUTES: u8 = 0x02;
const ALARM_MINUTES: u8 = 0x03;
const HOURS: u8 = 0x04;
const ALARM_HOURS: u8 = 0x05;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const STATUS_A: u8 = 0x0A;
const STATUS_B: u8 = 0x0B;
const CENTURY: u8 = 0x32;
/// Bits of status B: set (stops updates), alarm interrupt, 24 hours, daylight saving.
const SET: u32 = 0x80;
const ALARM: u32 = 0x20;
const HOURS_24: u32 = 0x02;
const DAYLIGHT: u32 = 0x01;

pub fn emit(rom: &mut Rom) {
    rom.entry(ENTRY, "int1a");
    asm! { rom;
        service("int1a");
        dispatch_ah(&[
            (0x00, ".read_ticks"),
            (0x01, ".set_ticks"),
            (0x02, ".read_time"),
            (0x03, ".set_time"),
            (0x04, ".read_date"),
            (0x05, ".set_date"),
            (0x06, ".set_alarm"),
            (0x07, ".cancel_alarm"),
            (0xB1, ".pci"),
        ]);
        jmp("service.fail");
        vector(0x1A, "int1a");

        label(".read_ticks");
        mov(eax, dword_ptr(bda::TICKS));
        mov(frame::dx(), ax);
        shr(eax, 16);
        mov(frame::cx(), ax);
        xor(al, al);
        xchg(byte_ptr(bda::MIDNIGHT), al);
        mov(frame::al(), al);
        jmp("service.ok_ah0");
        label(".set_ticks");
        mov(word_ptr(bda::TICKS), dx);
        mov(word_ptr(bda::TICKS + 2), cx);
        mov(byte_ptr(bda::MIDNIGHT), 0);
        jmp("service.ok_ah0");

        label(".read_time");
        call("clock.settle");
        cmos_read(HOURS);
        mov(frame::ch(), al);
        cmos_read(MINUTES);
        mov(frame::cl(), al);
        cmos_read(SECONDS);
        mov(frame::dh(), al);
        cmos_read(STATUS_B);
        and(al, DAYLIGHT);
        mov(frame::dl(), al);
        jmp("service.ok_ah0");
        label(".read_date");
        call("clock.settle");
        cmos_read(CENTURY);
        mov(frame::ch(), al);
        cmos_read(YEAR);
        mov(frame::cl(), al);
        cmos_read(MONTH);
        mov(frame::dh(), al);
        cmos_read(DAY);
        mov(frame::dl(), al);
        jmp("service.ok_ah0");

        label(".set_time");
        call("clock.stop");
        mov(ah, ch);
        mov(al, HOURS as i32);
        call("clock.write");
        mov(ah, cl);
        mov(al, MINUTES as i32);
        call("clock.write");
        mov(ah, dh);
        mov(al, SECONDS as i32);
        call("clock.write");
        cmos_read(STATUS_B);
        and(al, !(SET | DAYLIGHT) as i32 & 0xFF);
        or(al, HOURS_24);
        and(dl, DAYLIGHT);
        or(al, dl);
        mov(ah, al);
        mov(al, STATUS_B as i32);
        call("clock.write");
        jmp("service.ok_ah0");
        label(".set_date");
        call("clock.stop");
        mov(ah, ch);
        mov(al, CENTURY as i32);
        call("clock.write");
        mov(ah, cl);
        mov(al, YEAR as i32);
        call("clock.write");
        mov(ah, dh);
        mov(al, MONTH as i32);
        call("clock.write");
        mov(ah, dl);
        mov(al, DAY as i32);
        call("clock.write");
        mov(ah, SET);
        call("clock.disable");
        jmp("service.ok_ah0");

        label(".set_alarm");
        cmos_read(STATUS_B);
        test(al, ALARM);
        jnz("service.fail");
        mov(ah, ch);
        mov(al, ALARM_HOURS as i32);
        call("clock.write");
        mov(ah, cl);
        mov(al, ALARM_MINUTES as i32);
        call("clock.write");
        mov(ah, dh);
        mov(al, ALARM_SECONDS as i32);
        call("clock.write");
        in_byte(0xA1);
        and(al, 0xFE);
        out(0xA1, al);
        mov(ah, ALARM);
        call("clock.enable");
        jmp("service.ok_ah0");
        label(".cancel_alarm");
        mov(ah, ALARM);
        call("clock.disable");
        jmp("service.ok_ah0");

        label(".pci");
        cmp(al, 0x01);
        jne(".call");
        mov(frame::edi(), rom.linear("bios32.pci"));
        label(".call");
        call("pci.bios");
        // The installation check returns AL, too.
        mov(frame::ah(), ah);
        jc(".returned");
        cmp(frame::al(), 0x01);
        jne(".kept");
        mov(frame::al(), al);
        label(".kept");
        clc();
        label(".returned");
        mov(frame::ebx(), ebx);
        mov(frame::ecx(), ecx);
        mov(frame::edx(), edx);
        jc("service.fail");
        jmp("service.ok");

        // Waits until no update is near; two seconds pass at most. Changes AX, CX.
        label("clock.settle");
        xor(cx, cx);
        label(".next");
        cmos_read(STATUS_A);
        test(al, 0x80);
        loopne(".next");
        ret();
        // Stops updates.
        label("clock.stop");
        mov(ah, SET);
        // Sets the bits AH of status B. Changes AX.
        label("clock.enable");
        cmos_read(STATUS_B);
        or(ah, al);
        mov(al, STATUS_B as i32);
        jmp("clock.write");
        // Clears the bits AH of status B. Changes AX.
        label("clock.disable");
        not(ah);
        cmos_read(STATUS_B);
        and(ah, al);
        mov(al, STATUS_B as i32);
        // Writes AH to CMOS register AL.
        label("clock.write");
        out(0x70, al);
        mov(al, ah);
        out(0x71, al);
        ret();
    }
}
