//! INT 15h AH=53h, Advanced Power Management: in real mode, and in protected mode through the entry points that functions 02 and 03 tell.
//!
//! | AL | service | in | returns |
//! |---|---|---|---|
//! | 00 | installation check | | AX = 0102h, BX = "PM", CX = 3: 16-bit and 32-bit protected-mode interfaces |
//! | 01, 04 | connect in real mode, disconnect | | |
//! | 02 | connect in 16-bit protected mode | | AX, CX = segments of code and data, BX = entry point, SI, DI = their lengths |
//! | 03 | connect in 32-bit protected mode | | AX, CX, DX = segments of 32-bit code, 16-bit code and data, EBX = entry point, ESI = lengths of code (high: 16-bit), DI of data |
//! | 05, 06 | CPU idle, busy | | idle: after the next interrupt |
//! | 07 | set power state | BX = 1 (all devices), CX = 0 to 3 | off (3) does not return; from standby and suspend the machine is back at once |
//! | 08, 0D, 0F | enable power management, engage it | | |
//! | 0A | power status | BX = 1 | BH = 1 (mains), BL = FFh, CH = 80h (no battery), CL = FFh, DX = FFFFh |
//! | 0B | next event | | CF, AH = 80h: none |
//! | 0C | power state | BX = 1 | CX = 0 (ready) |
//! | 0E | driver version | CX | AX = 0102h |
//! | 10 | capabilities | | BL = 0 (batteries), CX = 0 |
//! | others | | | CF, AH = 0Ch |
//!
//! Other devices than all of them have no states of their own: CF, AH = 09h. Whether an interface is connected is not kept: a second connection is no error.
//! APM BIOS Interface Specification 1.2, 4.6. The code is written once and assembled for both. Power goes off through PIIX4's PM1 control register (82371AB
//! datasheet, 7.2), SLP_TYP 0.

use crate::rom::asm::*;

const VERSION: u32 = 0x0102;
const SIGNATURE: u32 = 0x504D;
/// The protected-mode interfaces that there are.
const INTERFACES: u32 = 0x03;
const UNKNOWN_DEVICE: u32 = 0x09;
const OUT_OF_RANGE: u32 = 0x0A;
const NOT_SUPPORTED: u32 = 0x0C;
const NO_EVENT: u32 = 0x80;
/// PM1 control, and its SLP_EN bit.
const PM1_CONTROL: u32 = 0x604;
const SLEEP: u32 = 0x2000;
/// Where the 32-bit code's segment begins, as real mode counts, and how long it is.
const FLAT_SEGMENT: u32 = 0xE800;
const FLAT_LENGTH: u32 = 0x8000;
const LENGTH: u32 = 0xFFFF;

pub fn emit(rom: &mut Rom) {
    asm! { rom;
        label("apm");
        call("apm.call");
        mov(frame::eax(), eax);
        mov(frame::ebx(), ebx);
        mov(frame::ecx(), ecx);
        mov(frame::edx(), edx);
        mov(frame::esi(), esi);
        mov(frame::edi(), edi);
        jc("service.fail");
        jmp("service.ok");

        label("apm.entry");
        call("apm.call");
        retf();
    }
    functions(rom, "apm.call");
}

/// The 32-bit entry point, which is called wherever the caller has mapped it.
pub fn emit_flat(rom: &mut Rom) {
    asm! { rom;
        label("apm.entry32");
        call("apm.call32");
        retf();
    }
    functions(rom, "apm.call32");
}

/// The routine `name`: registers as above; keeps all others.
fn functions(rom: &mut Rom, name: &str) {
    let entry = u32::from(rom.offset("apm.entry"));
    let entry32 = rom.linear("apm.entry32").wrapping_sub(FLAT_SEGMENT << 4);
    asm! { rom;
        label(name);
        dispatch_al(&[
            (0x00, ".check"),
            (0x01, ".ok"),
            (0x02, ".connect"),
            (0x03, ".connect32"),
            (0x04, ".ok"),
            (0x05, ".idle"),
            (0x06, ".ok"),
            (0x07, ".set"),
            (0x08, ".ok"),
            (0x0A, ".status"),
            (0x0B, ".event"),
            (0x0C, ".get"),
            (0x0D, ".ok"),
            (0x0E, ".version"),
            (0x0F, ".ok"),
            (0x10, ".capabilities"),
        ]);
        mov(ah, NOT_SUPPORTED);
        label(".fail");
        stc();
        ret();
        label(".check");
        mov(bx, SIGNATURE);
        mov(cx, INTERFACES);
        label(".version");
        mov(ax, VERSION);
        clc();
        ret();
        label(".connect");
        mov(ax, 0xF000);
        mov(bx, entry);
        mov(cx, 0xF000);
        mov(si, LENGTH);
        mov(di, LENGTH);
        clc();
        ret();
        label(".connect32");
        mov(ax, FLAT_SEGMENT);
        mov(ebx, entry32);
        mov(cx, 0xF000);
        mov(dx, 0xF000);
        mov(esi, LENGTH << 16 | FLAT_LENGTH);
        mov(di, LENGTH);
        clc();
        ret();
        label(".idle");
        pushf();
        sti();
        hlt();
        popf();
        jmp(".ok");
        label(".set");
        cmp(bx, 1);
        jne(".device");
        cmp(cx, 3);
        jb(".ok");
        mov(ah, OUT_OF_RANGE);
        ja(".fail");
        push(dx);
        mov(ax, SLEEP);
        mov(dx, PM1_CONTROL);
        out(dx, ax);
        pop(dx);
        jmp(".ok");
        label(".get");
        cmp(bx, 1);
        jne(".device");
        mov(cx, 0);
        label(".ok");
        mov(ah, 0);
        clc();
        ret();
        label(".device");
        mov(ah, UNKNOWN_DEVICE);
        jmp(".fail");
        label(".status");
        cmp(bx, 1);
        jne(".device");
        mov(bx, 0x01FF);
        mov(cx, 0x80FF);
        mov(dx, 0xFFFF);
        jmp(".ok");
        label(".event");
        mov(ah, NO_EVENT);
        jmp(".fail");
        label(".capabilities");
        mov(bl, 0);
        mov(cx, 0);
        jmp(".ok");
    }
}
