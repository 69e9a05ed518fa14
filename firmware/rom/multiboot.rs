//! The option ROM that starts a Multiboot or PVH kernel which fw_cfg holds: what `-kernel` goes through when there is firmware.
//!
//! A boot entry as in `linuxboot`, whose loader it shares. The board has put the kernel with its modules and all that it is told into one
//! piece (the part "kernel proper"); what only firmware knows is added here:
//!
//! | | Multiboot 1 (Multiboot Specification 0.6.96, 3.3) | PVH (Xen's "x86/HVM direct boot ABI") |
//! |---|---|---|
//! | memory map, from INT 15h AX=E820h | mmap_length, mmap_addr | memmap_paddr, memmap_entries |
//! | memory sizes, from INT 12h and INT 15h AX=E801h | mem_lower, mem_upper | |
//! | ACPI's root pointer, which is searched for | | rsdp_paddr |
//!
//! The part "setup code" is a plan of four dwords: which of the two it is, the entry point, EAX, EBX.

use super::linuxboot::{KERNEL, SETUP, STACK, header, load};
use crate::rom::asm::*;

/// The plan (segment 0), and what its first field is for Multiboot; anything else is PVH.
const PLAN: i32 = 0x8000;
const MULTIBOOT: i32 = 1;
const ENTRY: i32 = PLAN + 4;
const EAX: i32 = PLAN + 8;
const EBX: i32 = PLAN + 12;
/// What is found out (dwords, segment 0).
const LOWER: i32 = PLAN + 16;
const UPPER: i32 = PLAN + 20;
const RSDP: i32 = PLAN + 24;
const MAP_SIZE: i32 = PLAN + 28;
/// The memory map, in low memory, which the kernel can use when it has read it: entries of 24 bytes. Multiboot's begin with their size without
/// that field, PVH's end with zeros.
const MAP: i32 = 0x9000;
const MAP_END: i32 = MAP + 128 * MAP_ENTRY;
const MAP_ENTRY: i32 = 24;
const MAP_ENTRY_SIZE: i32 = 20;
const SMAP: u32 = 0x534D_4150;

/// Null, flat data and code of 4 GiB.
const GDT: [u64; 3] = [0, 0x00CF_9300_0000_FFFF, 0x00CF_9B00_0000_FFFF];
const DATA: u32 = 8;
const CODE: i32 = 16;

pub fn emit(rom: &mut Rom) {
    header(rom, "Multiboot or PVH kernel of -kernel", "multiboot");
    start(rom);
    memory(rom);
    root_pointer(rom);
    load(rom);
}

fn start(rom: &mut Rom) {
    asm! { rom;
        label("multiboot");
        cld();
        cli();
        xor(eax, eax);
        mov(ds, ax);
        mov(es, ax);
        mov(ss, ax);
        mov(esp, STACK);
        sti();
        // Nothing to load: what comes next in the boot order.
        mov(ax, SETUP.1);
        call("linuxboot.word");
        test(eax, eax);
        jnz(".found");
        int(0x18);
        label(".found");
        for_part(&SETUP);
        call("linuxboot.part");
        call("multiboot.sizes");
        call("multiboot.map");
        call("multiboot.root_pointer");
        for_part(&KERNEL);
        call("linuxboot.part");
        mov(ax, 0x2401);
        int(0x15);

        // The machine state of both: 32-bit protected mode, flat segments, no paging, interrupts off.
        cli();
        xor(eax, eax);
        mov(ax, cs);
        shl(eax, 4);
        add(eax, u32::from(rom.offset("multiboot.gdt")));
        push(eax);
        push(GDT.len() as i32 * 8 - 1);
        mov(bp, sp);
        lgdt(ptr(bp));
        add(sp, 6);
        mov(eax, cr0);
        or(al, 1);
        mov(cr0, eax);
        mov(ax, DATA);
        mov(ds, ax);
        mov(es, ax);
        mov(fs, ax);
        mov(gs, ax);
        mov(ss, ax);
        mov(ebx, dword_ptr(EBX));
        cmp(byte_ptr(PLAN), MULTIBOOT);
        jne(".pvh");
        mov(eax, dword_ptr(LOWER));
        mov(dword_ptr(ebx + 4), eax);
        mov(eax, dword_ptr(UPPER));
        mov(dword_ptr(ebx + 8), eax);
        mov(eax, dword_ptr(MAP_SIZE));
        mov(dword_ptr(ebx + 44), eax);
        mov(dword_ptr(ebx + 48), MAP);
        jmp(".go");
        label(".pvh");
        mov(eax, dword_ptr(RSDP));
        mov(dword_ptr(ebx + 32), eax);
        mov(dword_ptr(ebx + 36), 0);
        mov(dword_ptr(ebx + 40), MAP);
        mov(dword_ptr(ebx + 44), 0);
        mov(eax, dword_ptr(MAP_SIZE));
        xor(edx, edx);
        mov(ecx, MAP_ENTRY);
        div(ecx);
        mov(dword_ptr(ebx + 48), eax);
        label(".go");
        mov(eax, dword_ptr(EAX));
        mov(ecx, dword_ptr(ENTRY));
        // A far return with 32 bits of each.
        push(0);
        push(CODE);
        push(ecx);
        db(&[0x66, 0xCB]);

        align(8);
        label("multiboot.gdt");
        dq(&GDT);
    }
}

/// Sizes of memory and the memory map. All registers may change.
fn memory(rom: &mut Rom) {
    asm! { rom;
        label("multiboot.sizes");
        int(0x12);
        movzx(eax, ax);
        mov(dword_ptr(LOWER), eax);
        // From 1 MiB to the first hole: KiB below 16 MiB, units of 64 KiB above.
        xor(ecx, ecx);
        xor(edx, edx);
        mov(ax, 0xE801);
        int(0x15);
        movzx(ecx, cx);
        movzx(edx, dx);
        shl(edx, 6);
        add(ecx, edx);
        mov(dword_ptr(UPPER), ecx);
        ret();

        label("multiboot.map");
        xor(ebx, ebx);
        mov(di, MAP);
        label(".next");
        push(di);
        mov(dword_ptr(di), MAP_ENTRY_SIZE);
        mov(dword_ptr(di + MAP_ENTRY_SIZE), 0);
        cmp(byte_ptr(PLAN), MULTIBOOT);
        jne(".place");
        add(di, MAP_ENTRY - MAP_ENTRY_SIZE);
        label(".place");
        mov(eax, 0xE820);
        mov(edx, SMAP);
        mov(ecx, MAP_ENTRY_SIZE);
        int(0x15);
        pop(di);
        jc(".done");
        cmp(eax, SMAP as i32);
        jne(".done");
        add(di, MAP_ENTRY);
        cmp(di, MAP_END);
        jae(".done");
        test(ebx, ebx);
        jnz(".next");
        label(".done");
        sub(di, MAP);
        movzx(edi, di);
        mov(dword_ptr(MAP_SIZE), edi);
        ret();
    }
}

/// ACPI 6.5, 5.2.5.1: the root pointer is in the first KiB of the EBDA or in the last 128 KiB below 1 MiB, on a boundary of 16 bytes.
fn root_pointer(rom: &mut Rom) {
    asm! { rom;
        label("multiboot.root_pointer");
        mov(ax, word_ptr(0x40E));
        mov(cx, 0x400 / 16);
        call(".search");
        je(".found");
        mov(ax, 0xE000);
        mov(cx, 0x2000);
        call(".search");
        je(".found");
        xor(ax, ax);
        label(".found");
        movzx(eax, ax);
        shl(eax, 4);
        mov(dword_ptr(RSDP), eax);
        push(ds);
        pop(es);
        ret();
        // ZF if it is in one of CX paragraphs from AX on: in AX.
        label(".search");
        mov(es, ax);
        cmp(dword_ptr(0).es(), u32::from_le_bytes(*b"RSD "));
        jne(".other");
        cmp(dword_ptr(4).es(), u32::from_le_bytes(*b"PTR "));
        jne(".other");
        mov(dx, 20);
        xor(di, di);
        xor(bl, bl);
        label(".sum");
        add(bl, byte_ptr(di).es());
        inc(di);
        dec(dx);
        jnz(".sum");
        test(bl, bl);
        jz(".end");
        label(".other");
        inc(ax);
        loop_(".search");
        // Not zero: none.
        or(al, 1);
        label(".end");
        ret();
    }
}
