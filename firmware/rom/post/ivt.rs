//! The interrupt vector table: handlers that services registered with `vector`, for the rest an IRET or, for hardware
//! interrupts, an end of interrupt.

use crate::rom::asm::*;

/// IBM's dummy return, which software looks for.
const DUMMY: u16 = 0xFF53;

pub fn emit(rom: &mut Rom) {
    asm! { rom;
        // Fills the table. Changes AX, BX, CX, SI, DI; ES and DS become 0.
        label("ivt.setup");
        xor(ax, ax);
        mov(es, ax);
        xor(di, di);
        mov(ax, 0xF000);
        shl(eax, 16);
        mov(ax, u32::from(DUMMY));
        mov(cx, 0x78);
        rep().stosd();
        // Vectors from 78h on belong to the user, and are zero.
        xor(eax, eax);
        mov(cx, 0x88);
        rep().stosd();
        mov(ax, 0xF000);
        mov(ds, ax);
        mov(si, u32::from(rom.offset("ivt.table")));
        label(".next");
        lodsw();
        cmp(ax, -1);
        je(".done");
        mov(bx, ax);
        shl(bx, 2);
        lodsw();
        mov(word_ptr(bx).es(), ax);
        lodsw();
        mov(word_ptr(bx + 2).es(), ax);
        jmp(".next");
        label(".done");
        xor(ax, ax);
        mov(ds, ax);
        ret();
    }
}

/// The table of registered vectors: number, offset, segment; -1 ends it. And the handlers of unexpected interrupts.
pub fn emit_table(rom: &mut Rom) {
    rom.fixed(DUMMY, &[0xCF]);
    asm! { rom;
        label("irq.master");
        push(ax);
        out_byte(0x20, 0x20);
        pop(ax);
        iret();
        label("irq.slave");
        push(ax);
        out_byte(0xA0, 0x20);
        out_byte(0x20, 0x20);
        pop(ax);
        iret();
        // IRQ 9, to which software connects as if it were IRQ 2; and the coprocessor's error, which is INT 02h for programs of the PC.
        label("irq.second");
        push(ax);
        out_byte(0xA0, 0x20);
        pop(ax);
        int(0x0A);
        iret();
        label("irq.coprocessor");
        push(ax);
        out_byte(0xF0, 0);
        out_byte(0xA0, 0x20);
        out_byte(0x20, 0x20);
        pop(ax);
        int(0x02);
        iret();
        align(2);
        label("ivt.table");
    }
    let masters = (0x08..0x10).map(|number| (number, "irq.master".to_owned()));
    let slaves = (0x70..0x78).map(|number| (number, "irq.slave".to_owned()));
    let redirected = [(0x71, "irq.second".to_owned()), (0x75, "irq.coprocessor".to_owned())];
    // Registered handlers come last and so win.
    for (number, symbol) in masters.chain(slaves).chain(redirected).chain(rom.vectors()) {
        asm! { rom; dw(&[u16::from(number), rom.offset(&symbol), rom.segment(&symbol)]); }
    }
    asm! { rom; dw(&[0xFFFF]); }
}
