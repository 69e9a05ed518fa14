//! The monitor's first screen: BIOS, processor, memory, drives.

use super::{BRIGHT, HEADING, TEXT, state};
use crate::rom::asm::*;
use crate::rom::services::disk::tables::{CD_COUNT, CD_MAP, DISK_COUNT, DISK_MAP, FLOPPY_TYPES, drive};

pub fn emit(rom: &mut Rom) {
    let sizes: Vec<u16> =
        ["none", "360 KB", "1.2 MB", "720 KB", "1.44 MB", "2.88 MB", "2.88 MB"].map(|size| rom.text(size)).to_vec();
    asm! { rom;
        label("monitor.cls");
        mov(ax, 0x0003);
        int(0x10);
        ret();

        label("monitor.banner");
        call("monitor.cls");
        mov(ax, 0x0920);
        mov(bx, HEADING);
        mov(cx, 80);
        int(0x10);
        colour(HEADING);
        say(concat!(" emu BIOS ", env!("CARGO_PKG_VERSION"), "                                                     ROM monitor\r\n"));
        colour(TEXT);
        say("\r\n Processor  ");
        colour(BRIGHT);
        call("monitor.brand");
        colour(TEXT);
        say("\r\n Memory     ");
        colour(BRIGHT);
        int(0x12);
        movzx(eax, ax);
        call("monitor.decimal");
        colour(TEXT);
        say(" KiB base, ");
        colour(BRIGHT);
        call("monitor.extended");
        call("monitor.decimal");
        colour(TEXT);
        say(" KiB extended\r\n Drives     ");
        mov(byte_ptr(state::INDENT), 0);
        xor(bx, bx);
        label(".floppy");
        movzx(di, byte_ptr(bx + FLOPPY_TYPES));
        test(di, di);
        jz(".no_floppy");
        call("monitor.indent");
        mov(al, bl);
        call("monitor.hex8");
        say("h  ");
        colour(BRIGHT);
        add(di, di);
        mov(si, word_ptr(di + rom.at(".sizes")).cs());
        call("monitor.text");
        say(" diskette");
        colour(TEXT);
        call("monitor.newline");
        label(".no_floppy");
        inc(bx);
        cmp(bx, 2);
        jb(".floppy");
        mov(bx, DISK_MAP);
        mov(cl, byte_ptr(DISK_COUNT));
        mov(ch, 0x80);
        call("monitor.drives");
        mov(bx, CD_MAP);
        mov(cl, byte_ptr(CD_COUNT));
        mov(ch, 0xE0);
        call("monitor.drives");
        cmp(byte_ptr(state::INDENT), 0);
        jne(".drives");
        say("none\r\n");
        label(".drives");
        say("\r\n There is nothing to boot. ");
        colour(BRIGHT);
        say("help");
        colour(TEXT);
        say(" lists the commands, here and on COM1.\r\n");
        ret();
        label(".sizes");
        dw(&sizes);

        // CL drives, the first of which is CH, with their records' offsets at BX.
        label("monitor.drives");
        sub(cl, 1);
        jb(".done");
        mov(di, word_ptr(bx));
        add(bx, 2);
        call("monitor.indent");
        mov(al, ch);
        inc(ch);
        call("monitor.hex8");
        say("h  ");
        colour(BRIGHT);
        lea(si, word_ptr(di + drive::MODEL));
        call("monitor.text_ds");
        colour(TEXT);
        mov(si, di);
        call("monitor.capacity");
        jmp("monitor.drives");
        label(".done");
        ret();

        // Ends the line of the drive whose record is at SI, with its size if it is a disk. Changes EAX, EDX.
        label("monitor.capacity");
        cmp(byte_ptr(si + drive::KIND), drive::ATAPI);
        je(".size");
        say(", ");
        mov(eax, dword_ptr(si + drive::BLOCKS));
        mov(edx, dword_ptr(si + drive::BLOCKS + 4));
        shrd(eax, edx, 11);
        call("monitor.decimal");
        say(" MiB");
        label(".size");
        jmp("monitor.newline");

        // Before all lines but the first.
        label("monitor.indent");
        cmp(byte_ptr(state::INDENT), 0);
        mov(byte_ptr(state::INDENT), 1);
        je(".first");
        say("            ");
        label(".first");
        ret();

        // EAX = extended memory in KiB, as INT 15h AX=E801h has it.
        label("monitor.extended");
        mov(ax, 0xE801);
        xor(cx, cx);
        xor(dx, dx);
        int(0x15);
        movzx(eax, cx);
        movzx(edx, dx);
        shl(edx, 6);
        add(eax, edx);
        ret();

        // The processor's brand string without leading blanks, or its vendor. Processors without CPUID are 486s.
        label("monitor.brand");
        probe_cpuid();
        jz(".old");
        mov(eax, 0x8000_0000u32);
        cpuid();
        cmp(eax, 0x8000_0004u32 as i32);
        jb(".vendor");
        mov(di, state::BUFFER);
        mov(esi, 0x8000_0002u32);
        label(".leaf");
        mov(eax, esi);
        cpuid();
        mov(dword_ptr(di), eax);
        mov(dword_ptr(di + 4), ebx);
        mov(dword_ptr(di + 8), ecx);
        mov(dword_ptr(di + 12), edx);
        add(di, 16);
        inc(esi);
        cmp(esi, 0x8000_0005u32 as i32);
        jb(".leaf");
        mov(byte_ptr(di), 0);
        mov(si, state::BUFFER);
        call("monitor.skip");
        jnz("monitor.text_ds");
        label(".vendor");
        xor(eax, eax);
        cpuid();
        mov(dword_ptr(state::BUFFER), ebx);
        mov(dword_ptr(state::BUFFER + 4), edx);
        mov(dword_ptr(state::BUFFER + 8), ecx);
        mov(byte_ptr(state::BUFFER + 12), 0);
        mov(si, state::BUFFER);
        jmp("monitor.text_ds");
        label(".old");
        say("without CPUID");
        ret();
    }
}
