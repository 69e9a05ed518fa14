//! How much memory there is, which of it tables take, and the map that INT 15h AX=E820h tells.
//!
//! Sizes come from CMOS (30h/31h KiB above 1 MiB; 34h/35h 64 KiB units above 16 MiB; 5Bh to 5Dh those above 4 GiB) and from
//! fw_cfg's `etc/e820`, whose entries have E820's own layout. Tables are taken from the top of memory below 4 GiB.

use crate::rom::asm::*;
use crate::rom::layout::{BASE_MEMORY_KIB, BIOS_AREA};
use crate::rom::post::scratch;

/// Entries of the map, and their size.
const ENTRIES: u32 = 32;
pub const ENTRY: i32 = 20;
const RAM: u32 = 1;
const RESERVED: u32 = 2;
/// Below 4 GiB, from here on there is flash memory.
const FLASH: u32 = 0xFFFC_0000;

pub fn emit_flat(rom: &mut Rom) {
    asm! { rom;
        align(4);
        // Where memory below 4 GiB ends, and where tables begin.
        label("memory.end");
        dd(&[0]);
        label("memory.top");
        dd(&[0]);
        label("memory.count");
        dd(&[0]);
        label("memory.map");
        zeros(ENTRIES as usize * ENTRY as usize);

        label("memory.setup");
        cmos_read(0x35);
        mov(ah, al);
        cmos_read(0x34);
        movzx(eax, ax);
        shl(eax, 16);
        jz(".small");
        add(eax, 0x100_0000);
        jmp(".found");
        label(".small");
        cmos_read(0x31);
        mov(ah, al);
        cmos_read(0x30);
        movzx(eax, ax);
        shl(eax, 10);
        add(eax, 0x10_0000);
        label(".found");
        mov(dword_ptr(rom.at("memory.end")), eax);
        mov(dword_ptr(rom.at("memory.top")), eax);
        ret();

        // Takes ECX bytes, aligned to EBX (a power of two): EAX = their address. Changes EBX.
        label("memory.take");
        mov(eax, dword_ptr(rom.at("memory.top")));
        sub(eax, ecx);
        neg(ebx);
        and(eax, ebx);
        mov(dword_ptr(rom.at("memory.top")), eax);
        ret();

        // Makes the map, once nothing more is taken.
        label("memory.finish");
        and(dword_ptr(rom.at("memory.top")), -0x1000);
        mov(dword_ptr(rom.at("memory.count")), 0);
        xor(eax, eax);
        mov(ecx, u32::from(BASE_MEMORY_KIB) * 1024);
        mov(edx, RAM);
        call("memory.add");
        mov(eax, u32::from(BASE_MEMORY_KIB) * 1024);
        mov(ecx, 0xA_0000);
        mov(edx, RESERVED);
        call("memory.add");
        mov(eax, BIOS_AREA);
        mov(ecx, 0x10_0000);
        mov(edx, RESERVED);
        call("memory.add");
        mov(eax, 0x10_0000);
        mov(ecx, dword_ptr(rom.at("memory.top")));
        mov(edx, RAM);
        call("memory.add");
        mov(eax, dword_ptr(rom.at("memory.top")));
        mov(ecx, dword_ptr(rom.at("memory.end")));
        mov(edx, RESERVED);
        call("memory.add");
        mov(eax, FLASH);
        xor(ecx, ecx);
        mov(edx, RESERVED);
        call("memory.add");
        mov(esi, rom.linear("memory.file"));
        call("fwcfg.load");
        jc("memory.high");
        // Entries of the file: what is not RAM, and what is above 4 GiB.
        xor(edx, edx);
        mov(ecx, ENTRY);
        div(ecx);
        mov(ebx, eax);
        mov(esi, scratch::FILE);
        label(".next");
        test(ebx, ebx);
        jz(".done");
        dec(ebx);
        cmp(dword_ptr(esi + 16), RAM);
        jne(".copy");
        cmp(dword_ptr(esi + 4), 0);
        je(".skip");
        label(".copy");
        call("memory.slot");
        jc(".done");
        mov(ecx, ENTRY / 4);
        rep().movsd();
        jmp(".next");
        label(".skip");
        add(esi, ENTRY);
        jmp(".next");
        label(".done");
        ret();

        // Without the file, CMOS tells how much there is above 4 GiB.
        label("memory.high");
        cmos_read(0x5D);
        movzx(ebx, al);
        shl(ebx, 16);
        cmos_read(0x5C);
        mov(bh, al);
        cmos_read(0x5B);
        mov(bl, al);
        test(ebx, ebx);
        jz(".none");
        call("memory.slot");
        mov(dword_ptr(edi), 0);
        mov(dword_ptr(edi + 4), 1);
        mov(eax, ebx);
        shl(eax, 16);
        mov(dword_ptr(edi + 8), eax);
        shr(ebx, 16);
        mov(dword_ptr(edi + 12), ebx);
        mov(dword_ptr(edi + 16), RAM);
        label(".none");
        ret();

        // Adds EAX to ECX (0: 4 GiB), of type EDX, unless it is empty.
        label("memory.add");
        sub(ecx, eax);
        jz(".empty");
        call("memory.slot");
        mov(dword_ptr(edi), eax);
        mov(dword_ptr(edi + 4), 0);
        mov(dword_ptr(edi + 8), ecx);
        mov(dword_ptr(edi + 12), 0);
        mov(dword_ptr(edi + 16), edx);
        label(".empty");
        ret();

        // The next free entry in EDI; CF set if there is none.
        label("memory.slot");
        cmp(dword_ptr(rom.at("memory.count")), ENTRIES);
        jae(".full");
        imul_3(edi, dword_ptr(rom.at("memory.count")), ENTRY);
        add(edi, rom.linear("memory.map"));
        inc(dword_ptr(rom.at("memory.count")));
        clc();
        ret();
        label(".full");
        stc();
        ret();

        label("memory.file");
        asciz("etc/e820");
    }
}
