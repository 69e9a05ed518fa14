//! The debug console at port E9h: what the BIOS says while it works. Reading the port tells whether it is there.
//!
//! All routines are in F000, keep all registers, and are called far (`call_far`) from elsewhere; a string is at CS:SI of the
//! *caller's* section, so pass its segment in DS.

use crate::rom::asm::*;

/// The console's port; it reads as its own number.
const PORT: u16 = 0xE9;

impl Rom {
    /// Writes a line to the debug console from 16-bit code. Keeps all registers.
    pub fn debug(&mut self, text: &str) -> Result<(), iced_x86::IcedError> {
        let text = self.text(text);
        asm! { self;
            push(ds);
            push(si);
            push(cs);
            pop(ds);
            mov(si, u32::from(text));
            call_far("debug.line");
            pop(si);
            pop(ds);
        }
        Ok(())
    }
}

/// Routines for 16-bit code.
pub fn emit(rom: &mut Rom) {
    asm! { rom;
        // The zero-terminated string at DS:SI and a line end.
        label("debug.line");
        pushf();
        pushad();
        cld();
        in_al(PORT);
        cmp(al, u32::from(PORT));
        jne(".done");
        label(".next");
        lodsb();
        cmp(al, 0);
        je(".end");
        out(dx, al);
        jmp(".next");
        label(".end");
        mov(al, u32::from(b'\n'));
        out(dx, al);
        label(".done");
        popad();
        popf();
        retf();
    }
}

/// Routines for 32-bit code.
pub fn emit_flat(rom: &mut Rom) {
    asm! { rom;
        // The zero-terminated string at ESI and a line end.
        label("debug.flat_line");
        pushad();
        in_al(PORT);
        cmp(al, u32::from(PORT));
        jne(".done");
        label(".next");
        mov(al, byte_ptr(esi));
        inc(esi);
        cmp(al, 0);
        je(".end");
        out(dx, al);
        jmp(".next");
        label(".end");
        mov(al, u32::from(b'\n'));
        out(dx, al);
        label(".done");
        popad();
        ret();
    }
}
