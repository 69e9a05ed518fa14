//! INT 15h AH=53h, Advanced Power Management: the real-mode interface, and what shuts the machine down.
//!
//! | AL | service | in | returns |
//! |---|---|---|---|
//! | 00 | installation check | BX = 0 | AX = 0102h, BX = "PM", CX = 0: real-mode interface only |
//! | 01, 04 | connect, disconnect | BX = 0 | |
//! | 05, 06 | CPU idle, busy | | idle: after the next interrupt |
//! | 07 | set power state | BX = 1 (all devices), CX = 3 (off) | does not return |
//! | 08, 0D, 0F | enable power management, engage it | | |
//! | 0A | power status | BX = 1 | BH = 1 (mains), BL = FFh, CH = 80h (no battery), CL = FFh, DX = FFFFh |
//! | 0B | next event | | CF, AH = 80h: none |
//! | 0E | driver version | CX | AX = 0102h |
//! | others | | | CF, AH = 0Ch |
//!
//! APM BIOS Interface Specification 1.2, 4.6. Power goes off through PIIX4's PM1 control register (82371AB datasheet, 7.2), SLP_TYP 0.

use crate::rom::asm::*;

const VERSION: u32 = 0x0102;
const NOT_SUPPORTED: u32 = 0x0C;
const NO_EVENT: u32 = 0x80;
/// PM1 control, and its SLP_EN bit.
const PM1_CONTROL: u16 = 0x604;
const SLEEP: u32 = 0x2000;

pub fn emit(rom: &mut Rom) {
    asm! { rom;
        label("apm");
        dispatch_al(&[
            (0x00, ".check"),
            (0x01, "service.ok_ah0"),
            (0x04, "service.ok_ah0"),
            (0x05, ".idle"),
            (0x06, "service.ok_ah0"),
            (0x07, ".state"),
            (0x08, "service.ok_ah0"),
            (0x0A, ".status"),
            (0x0B, ".event"),
            (0x0D, "service.ok_ah0"),
            (0x0E, ".version"),
            (0x0F, "service.ok_ah0"),
        ]);
        label(".unsupported");
        mov(ah, NOT_SUPPORTED);
        jmp("service.fail_ah");
        label(".check");
        mov(frame::bx(), 0x504D);
        mov(frame::cx(), 0);
        label(".version");
        mov(frame::ax(), VERSION);
        jmp("service.ok");
        label(".idle");
        sti();
        hlt();
        jmp("service.ok_ah0");
        label(".state");
        cmp(bx, 1);
        jne(".unsupported");
        cmp(cx, 3);
        jne(".unsupported");
        mov(ax, SLEEP);
        out_ax(PM1_CONTROL);
        jmp("service.ok_ah0");
        label(".status");
        mov(frame::bx(), 0x01FF);
        mov(frame::cx(), 0x80FF);
        mov(frame::dx(), 0xFFFF);
        jmp("service.ok_ah0");
        label(".event");
        mov(ah, NO_EVENT);
        jmp("service.fail_ah");
    }
}
