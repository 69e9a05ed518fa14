//! INT 08h (IRQ 0, 18.2 times a second) with INT 1Ch, and INT 70h (IRQ 8, the clock) with INT 4Ah.
//!
//! | interrupt | does |
//! |---|---|
//! | 08 | counts 40:6C, which starts again at midnight and then sets 40:70; turns floppy motors off after their time (40:40); calls INT 1Ch |
//! | 1C | for programs; an IRET until one takes it |
//! | 70 | periodic: counts the time of INT 15h AH=83h down by 976 microseconds; alarm: calls INT 4Ah |
//!
//! IBM PC/AT Technical Reference, BIOS listing: system timer, real-time clock.

use crate::rom::asm::*;
use crate::rom::layout::{BDA_SEGMENT, bda};

/// Where software that knows IBM's BIOS finds INT 08h in F000.
const ENTRY: u16 = 0xFEA5;
/// Ticks of a day.
const DAY: u32 = 0x18_00B0;
/// The 8254's input frequency; 65536 of its periods are a tick.
const FREQUENCY: u32 = 1_193_182;
/// CMOS registers and bits of the clock.
const STATUS_C: u8 = 0x0C;
const PERIODIC: u32 = 0x40;
const ALARM: u32 = 0x20;
/// Microseconds of a period at 1024 Hz.
const PERIOD: u32 = 976;

pub fn emit(rom: &mut Rom) {
    rom.entry(ENTRY, "int08");
    asm! { rom;
        label("int08");
        push(eax);
        push(ds);
        push(i32::from(BDA_SEGMENT));
        pop(ds);
        mov(eax, dword_ptr(bda::TICKS));
        inc(eax);
        cmp(eax, DAY);
        jb(".same_day");
        xor(eax, eax);
        mov(byte_ptr(bda::MIDNIGHT), 1);
        label(".same_day");
        mov(dword_ptr(bda::TICKS), eax);
        call("floppy.tick");
        int(0x1C);
        cli();
        out_byte(0x20, 0x20);
        pop(ds);
        pop(eax);
        iret();
        vector(0x08, "int08");

        label("int70");
        pushad();
        push(ds);
        push(es);
        push(i32::from(BDA_SEGMENT));
        pop(ds);
        cmos_read(STATUS_C);
        mov(bl, al);
        test(bl, PERIODIC);
        jz(".alarm");
        cmp(byte_ptr(bda::WAIT_ACTIVE), 0);
        je(".alarm");
        sub(dword_ptr(bda::WAIT_COUNT), PERIOD);
        jae(".alarm");
        les(di, dword_ptr(bda::WAIT_FLAG));
        or(byte_ptr(di).es(), 0x80);
        mov(byte_ptr(bda::WAIT_ACTIVE), 0);
        mov(ah, PERIODIC);
        call("clock.disable");
        label(".alarm");
        test(bl, ALARM);
        jz(".done");
        int(0x4A);
        label(".done");
        cli();
        out_byte(0xA0, 0x20);
        out_byte(0x20, 0x20);
        pop(es);
        pop(ds);
        popad();
        iret();
        vector(0x70, "int70");
        label("int4a");
        iret();
        vector(0x4A, "int4a");

        // POST: ticks from the clock's time; IRQ 0 on.
        label("timer.setup");
        push(i32::from(BDA_SEGMENT));
        pop(ds);
        cmos_read(0x04);
        call("timer.binary");
        imul_3(ebx, eax, 3600);
        cmos_read(0x02);
        call("timer.binary");
        imul_3(eax, eax, 60);
        add(ebx, eax);
        cmos_read(0x00);
        call("timer.binary");
        add(eax, ebx);
        mov(ecx, FREQUENCY);
        mul(ecx);
        shrd(eax, edx, 16);
        cmp(eax, DAY);
        jb(".fits");
        xor(eax, eax);
        label(".fits");
        mov(dword_ptr(bda::TICKS), eax);
        in_byte(0x21);
        and(al, 0xFE);
        out(0x21, al);
        retf();

        // EAX = the binary value of BCD AL.
        label("timer.binary");
        mov(ah, al);
        and(al, 0x0F);
        shr(ah, 4);
        aad(10);
        movzx(eax, al);
        ret();
    }
}
