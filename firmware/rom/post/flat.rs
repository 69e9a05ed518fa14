//! Calling 32-bit code from POST and back.
//!
//! `flat.call` (16-bit, E000, SS = 0) calls the routine at physical address EAX in flat 32-bit protected mode with
//! interrupts off, on the same stack, and returns what it leaves in the general registers, except EBP. DS and ES are kept.

use crate::rom::asm::*;

const CODE32: u16 = 0x08;
const DATA32: u32 = 0x10;
const CODE16: u16 = 0x18;
const DATA16: u32 = 0x20;

/// Descriptors: null, 32-bit code and data of 4 GiB, 16-bit code at E0000, 16-bit data at 0.
const GDT: [u64; 5] = [0, 0x00CF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, 0x0000_9B0E_0000_FFFF, 0x0000_9300_0000_FFFF];

pub fn emit(rom: &mut Rom) {
    asm! { rom;
        label("flat.call");
        push(ds);
        push(es);
        pushfd();
        cli();
        lgdt(ptr(rom.at("flat.gdtr")).cs());
        mov(ebp, cr0);
        or(bp, 1);
        mov(cr0, ebp);
        jmp_far32(CODE32, rom.linear("flat.enter"));
        label("flat.leave");
        mov(bp, DATA16);
        mov(ds, bp);
        mov(es, bp);
        mov(ss, bp);
        mov(ebp, cr0);
        and(bp, 0xFFFE);
        mov(cr0, ebp);
        jmp_far("flat.real");
        label("flat.real");
        mov(bp, 0);
        mov(ss, bp);
        popfd();
        pop(es);
        pop(ds);
        ret();

        // Gives DS, ES, FS and GS limits of 4 GiB, which they keep in real mode: option ROMs may rely on that while they initialise (PCI
        // Firmware Specification 3.0, 5.2.1.22). Keeps all registers but these, which become 0.
        label("flat.big");
        pushfd();
        push(eax);
        cli();
        lgdt(ptr(rom.at("flat.gdtr")).cs());
        mov(eax, cr0);
        or(al, 1);
        mov(cr0, eax);
        mov(ax, DATA32);
        mov(ds, ax);
        mov(es, ax);
        mov(fs, ax);
        mov(gs, ax);
        mov(eax, cr0);
        and(al, 0xFE);
        mov(cr0, eax);
        xor(ax, ax);
        mov(ds, ax);
        mov(es, ax);
        mov(fs, ax);
        mov(gs, ax);
        pop(eax);
        popfd();
        ret();

        align(8);
        label("flat.gdt");
        dq(&GDT);
        label("flat.gdtr");
        dw(&[GDT.len() as u16 * 8 - 1]);
        dd(&[rom.linear("flat.gdt")]);
    }
}

pub fn emit_flat(rom: &mut Rom) {
    asm! { rom;
        label("flat.enter");
        mov(bp, DATA32);
        mov(ds, bp);
        mov(es, bp);
        mov(ss, bp);
        movzx(esp, sp);
        call(eax);
        jmp_far_to(CODE16, u32::from(rom.offset("flat.leave")));
    }
}
