//! ACPI and SMBIOS tables from fw_cfg.
//!
//! ACPI comes as files and a script that places and links them, `etc/table-loader`: entries of 128 bytes, little-endian, as
//! QEMU's `hw/acpi/bios-linker-loader.c` documents them:
//!
//! ```text
//!  0 command   1 ALLOCATE     4 file[56]  60 alignment (4)  64 zone (1): 1 high memory, 2 F-segment
//!              2 ADD_POINTER  4 file[56]  60 file pointed to[56]  116 offset (4)  120 size (1)
//!              3 ADD_CHECKSUM 4 file[56]  60 offset (4)  64 start (4)  68 length (4)
//! ```
//! Other commands (WRITE_POINTER tells the hypervisor an address) are skipped. SMBIOS: `etc/smbios/smbios-anchor`, an entry point of
//! version 2 or 3 (SMBIOS 3.6, 5.2), and `etc/smbios/smbios-tables`.

use crate::rom::asm::*;
use crate::rom::post::scratch;

const COMMAND: i32 = 128;
const NAME: i32 = 56;
/// Files that the script can place, and what is noted of each: pointer to the name in the script, address, size.
const FILES: u32 = 32;
const FILE: i32 = 12;
/// Bytes for tables in the F-segment.
const SEGMENT_POOL: u32 = 0x400;

pub fn emit_pool(rom: &mut Rom) {
    asm! { rom;
        align(16);
        label("tables.pool");
        zeros(SEGMENT_POOL as usize);
    }
}

pub fn emit_flat(rom: &mut Rom) {
    asm! { rom;
        align(4);
        // The next free byte in the F-segment; files placed; where the script's next command is, and its end.
        label("tables.free");
        dd(&[0]);
        label("tables.count");
        dd(&[0]);
        label("tables.next");
        dd(&[0]);
        label("tables.end");
        dd(&[0]);
        label("tables.files");
        zeros(FILES as usize * FILE as usize);
    }
    acpi(rom);
    smbios(rom);
}

fn acpi(rom: &mut Rom) {
    asm! { rom;
        label("tables.acpi");
        mov(dword_ptr(rom.at("tables.free")), rom.linear("tables.pool"));
        mov(dword_ptr(rom.at("tables.count")), 0);
        mov(esi, rom.linear("tables.script"));
        call("fwcfg.load");
        jc(".done");
        and(eax, -COMMAND);
        add(eax, scratch::FILE);
        mov(dword_ptr(rom.at("tables.end")), eax);
        mov(dword_ptr(rom.at("tables.next")), scratch::FILE);
        label(".next");
        mov(esi, dword_ptr(rom.at("tables.next")));
        cmp(esi, dword_ptr(rom.at("tables.end")));
        jae(".done");
        add(dword_ptr(rom.at("tables.next")), COMMAND);
        lodsd();
        dec(eax);
        jz(".allocate");
        dec(eax);
        jz(".pointer");
        dec(eax);
        jz(".checksum");
        jmp(".next");
        label(".done");
        ret();

        label(".allocate");
        mov(ecx, rom.linear("tables.count"));
        cmp(dword_ptr(ecx), FILES);
        jae(".next");
        mov(byte_ptr(esi + (NAME - 1)), 0);
        push(esi);
        call("fwcfg.find");
        pop(esi);
        jc(".next");
        mov(ecx, eax);
        mov(ebx, dword_ptr(esi + NAME));
        mov(al, byte_ptr(esi + (NAME + 4)));
        call("tables.take");
        jc(".next");
        imul_3(edi, dword_ptr(rom.at("tables.count")), FILE);
        inc(dword_ptr(rom.at("tables.count")));
        add(edi, rom.linear("tables.files"));
        mov(dword_ptr(edi), esi);
        mov(dword_ptr(edi + 4), eax);
        mov(dword_ptr(edi + 8), ecx);
        mov(edi, eax);
        call("fwcfg.read");
        jmp(".next");

        label(".pointer");
        lea(edi, ptr(esi + NAME));
        push(esi);
        mov(esi, edi);
        call("tables.find");
        pop(esi);
        jc(".next");
        push(eax);
        call("tables.find");
        pop(edx);
        jc(".next");
        // EAX, EBX = address and size of the file to change, EDX = what to add.
        mov(edi, dword_ptr(esi + (116 - 4)));
        movzx(ecx, byte_ptr(esi + (120 - 4)));
        call("tables.within");
        jc(".next");
        cmp(cl, 8);
        ja(".next");
        add(edi, eax);
        // Byte by byte with carry, as sizes are 1, 2, 4 or 8. JECXZ and DEC leave CF alone, and SHR only sees zeros.
        xor(ebx, ebx);
        label(".add");
        jecxz(".next");
        movzx(eax, byte_ptr(edi));
        add(eax, ebx);
        movzx(ebx, dl);
        add(eax, ebx);
        mov(byte_ptr(edi), al);
        movzx(ebx, ah);
        shr(edx, 8);
        inc(edi);
        dec(ecx);
        jmp(".add");

        label(".checksum");
        call("tables.find");
        jc(".next");
        mov(edi, dword_ptr(esi + NAME));
        mov(ecx, 1);
        call("tables.within");
        jc(".next");
        push(edi);
        mov(edi, dword_ptr(esi + (NAME + 4)));
        mov(ecx, dword_ptr(esi + (NAME + 8)));
        call("tables.within");
        pop(edx);
        jc(".next");
        add(edx, eax);
        add(edi, eax);
        call("tables.sum");
        sub(byte_ptr(edx), bl);
        jmp(".next");

        // Takes ECX bytes aligned to EBX in zone AL: EAX = their address; CF set if there is no room. Changes EDX.
        label("tables.take");
        cmp(al, 2);
        je(".segment");
        call("memory.take");
        clc();
        ret();
        label(".segment");
        mov(eax, dword_ptr(rom.at("tables.free")));
        dec(ebx);
        add(eax, ebx);
        not(ebx);
        and(eax, ebx);
        cmp(ecx, SEGMENT_POOL);
        ja(".full");
        lea(edx, ptr(eax + ecx));
        cmp(edx, rom.linear("tables.pool") + SEGMENT_POOL);
        ja(".full");
        mov(dword_ptr(rom.at("tables.free")), edx);
        clc();
        ret();
        label(".full");
        stc();
        ret();

        // The placed file whose name is at ESI: EAX = address, EBX = size; CF set if there is none. Changes ECX, EDI.
        label("tables.find");
        mov(ecx, dword_ptr(rom.at("tables.count")));
        mov(ebx, rom.linear("tables.files"));
        label(".next");
        jecxz(".none");
        push(ecx);
        push(esi);
        mov(edi, dword_ptr(ebx));
        mov(ecx, NAME - 1);
        label(".compare");
        lodsb();
        scasb();
        jne(".differ");
        test(al, al);
        loopne(".compare");
        pop(esi);
        pop(ecx);
        mov(eax, dword_ptr(ebx + 4));
        mov(ebx, dword_ptr(ebx + 8));
        clc();
        ret();
        label(".differ");
        pop(esi);
        pop(ecx);
        add(ebx, FILE);
        dec(ecx);
        jmp(".next");
        label(".none");
        stc();
        ret();

        // CF set unless ECX bytes from offset EDI are within EBX bytes.
        label("tables.within");
        push(edi);
        add(edi, ecx);
        jc(".no");
        cmp(ebx, edi);
        label(".no");
        pop(edi);
        ret();

        // BL = the sum of ECX bytes at EDI. Changes ECX, EDI.
        label("tables.sum");
        xor(ebx, ebx);
        jecxz(".done");
        label(".next");
        add(bl, byte_ptr(edi));
        inc(edi);
        loop_(".next");
        label(".done");
        ret();

        label("tables.script");
        asciz("etc/table-loader");
    }
}

fn smbios(rom: &mut Rom) {
    let bios = bios_information();
    let ours = bios.len() as u32;
    asm! { rom;
        // EBP = address of the tables, EDI = bytes that ours add to them.
        label("tables.smbios");
        mov(esi, rom.linear("tables.smbios_tables"));
        call("fwcfg.find");
        jc(".done");
        mov(ecx, eax);
        add(ecx, ours);
        mov(ebx, 16);
        call("memory.take");
        mov(ebp, eax);
        mov(edi, eax);
        mov(esi, rom.linear("tables.smbios_bios"));
        sub(ecx, ours);
        push(ecx);
        mov(ecx, ours);
        rep().movsb();
        pop(ecx);
        mov(esi, edi);
        call("fwcfg.read");
        // ESI and EDI are the ends of the file's structures. Does one of them describe the BIOS?
        mov(edx, esi);
        label(".structure");
        cmp(edx, edi);
        jae(".ours");
        cmp(byte_ptr(edx), 0);
        je(".theirs");
        movzx(eax, byte_ptr(edx + 1));
        add(edx, eax);
        label(".strings");
        cmp(edx, edi);
        jae(".ours");
        inc(edx);
        cmp(word_ptr(edx - 1), 0);
        jne(".strings");
        inc(edx);
        jmp(".structure");
        label(".theirs");
        mov(ebp, esi);
        xor(edi, edi);
        jmp(".anchor");
        label(".ours");
        mov(edi, ours);
        label(".anchor");
        push(ebp);
        push(edi);
        mov(esi, rom.linear("tables.smbios_anchor"));
        call("fwcfg.load");
        pop(edx);
        pop(ebp);
        jc(".done");
        push(edx);
        mov(ecx, eax);
        mov(ebx, 16);
        mov(al, 2);
        call("tables.take");
        pop(edx);
        jc(".done");
        mov(edi, eax);
        push(eax);
        mov(esi, scratch::FILE);
        rep().movsb();
        pop(esi);
        cmp(dword_ptr(esi), u32::from_le_bytes(*b"_SM_"));
        jne(".version3");
        mov(dword_ptr(esi + 0x18), ebp);
        add(word_ptr(esi + 0x16), dx);
        cmp(edx, 1);
        sbb(word_ptr(esi + 0x1C), -1);
        cmp(word_ptr(esi + 8), dx);
        jae(".largest");
        mov(word_ptr(esi + 8), dx);
        label(".largest");
        // The intermediate checksum from "_DMI_" on, then the whole one.
        mov(byte_ptr(esi + 0x15), 0);
        lea(edi, ptr(esi + 0x10));
        mov(ecx, 0x0F);
        call("tables.sum");
        sub(byte_ptr(esi + 0x15), bl);
        mov(byte_ptr(esi + 4), 0);
        mov(edi, esi);
        movzx(ecx, byte_ptr(esi + 5));
        call("tables.sum");
        sub(byte_ptr(esi + 4), bl);
        ret();
        label(".version3");
        mov(dword_ptr(esi + 0x10), ebp);
        add(dword_ptr(esi + 0x0C), edx);
        mov(byte_ptr(esi + 5), 0);
        mov(edi, esi);
        movzx(ecx, byte_ptr(esi + 6));
        call("tables.sum");
        sub(byte_ptr(esi + 5), bl);
        label(".done");
        ret();

        label("tables.smbios_anchor");
        asciz("etc/smbios/smbios-anchor");
        label("tables.smbios_tables");
        asciz("etc/smbios/smbios-tables");
        label("tables.smbios_bios");
        db(&bios);
    }
}

/// SMBIOS structure type 0 (SMBIOS 3.6, 7.1), for when the machine's tables have none.
fn bios_information() -> Vec<u8> {
    // Characteristics: PCI, Plug and Play, shadowing, boot from CD, selectable boot, EDD; then ACPI.
    let characteristics: u64 = [7, 9, 12, 15, 16, 19].iter().map(|bit| 1 << bit).sum();
    let mut structure = vec![0, 0x18, 0, 0];
    // Strings 1 and 2: vendor and version; the segment; string 3: the date; size in 64 KiB, less one.
    structure.extend([1, 2, 0x00, 0xE0, 3, 1]);
    structure.extend(characteristics.to_le_bytes());
    // BIOS release 0.1, no embedded controller.
    structure.extend([0x01, 0x00, 0, 1, 0xFF, 0xFF]);
    for text in ["emu", env!("CARGO_PKG_VERSION"), "01/01/2026"] {
        structure.extend(text.bytes());
        structure.push(0);
    }
    structure.push(0);
    structure
}
