//! Commands that tell what is in the machine: processor, PCI functions, ACPI tables, memory map, clock.

use super::{BRIGHT, TEXT, state};
use crate::rom::asm::*;
use crate::rom::layout::EBDA_SEGMENT;

/// Leaves that `cpuid` shows of each range at most.
const LEAVES: u32 = 0x20;
/// Entries that `acpi` shows at most.
const TABLES: u32 = 64;
/// Class and subclass of PCI functions with a name.
const CLASSES: [(u16, &str); 10] = [
    (0x0101, "IDE controller"),
    (0x0106, "SATA controller"),
    (0x0200, "Ethernet controller"),
    (0x0300, "VGA controller"),
    (0x0401, "audio device"),
    (0x0600, "host bridge"),
    (0x0601, "ISA bridge"),
    (0x0604, "PCI bridge"),
    (0x0680, "bridge"),
    (0x0C03, "USB controller"),
];

pub fn emit(rom: &mut Rom) {
    processor(rom);
    pci(rom);
    acpi(rom);
    memory(rom);
    clock(rom);
}

fn processor(rom: &mut Rom) {
    asm! { rom;
        label("monitor.cpuid");
        call("monitor.skip");
        jnz(".one");
        say(" ");
        call("monitor.brand");
        call("monitor.newline");
        probe_cpuid();
        jz(".done");
        call("monitor.registers");
        xor(esi, esi);
        call("monitor.leaves");
        mov(esi, 0x8000_0000u32);
        // All leaves from ESI to the last that it names.
        label("monitor.leaves");
        mov(eax, esi);
        cpuid();
        mov(edi, eax);
        sub(eax, esi);
        cmp(eax, LEAVES);
        ja(".done");
        label(".next");
        xor(ecx, ecx);
        call("monitor.leaf");
        inc(esi);
        cmp(esi, edi);
        jbe(".next");
        label(".done");
        ret();
        label("monitor.cpuid.done");
        ret();
        label("monitor.cpuid.one");
        call("monitor.number");
        jc("monitor.wrong");
        push(eax);
        call("monitor.number");
        mov(ebx, eax);
        jnc(".sub");
        xor(ebx, ebx);
        label(".sub");
        probe_cpuid();
        pop(esi);
        jz("monitor.cpuid.done");
        mov(ecx, ebx);
        call("monitor.registers");
        label("monitor.leaf");
        push(edi);
        mov(eax, esi);
        cpuid();
        mov(edi, eax);
        mov(eax, esi);
        call("monitor.space");
        call("monitor.hex32");
    }
    for register in [edi, ebx, ecx, edx] {
        asm! { rom;
            say("  ");
            mov(eax, register);
            call("monitor.hex32");
        }
    }
    asm! { rom;
        call("monitor.newline");
        pop(edi);
        ret();
        label("monitor.registers");
        colour(BRIGHT);
        say(" leaf      eax       ebx       ecx       edx\r\n");
        colour(TEXT);
        ret();
    }
}

fn pci(rom: &mut Rom) {
    asm! { rom;
        // EAX = register DL (a multiple of 4) of the function whose configuration address is EBX. Changes DX.
        label("monitor.config");
        mov(eax, ebx);
        mov(al, dl);
        out_eax(0xCF8);
        in_eax(0xCFC);
        ret();

        label("monitor.pci");
        call("monitor.skip");
        jnz(".one");
        xor(ebx, ebx);
        mov(ax, 0xB101);
        xor(cx, cx);
        int(0x1A);
        // EDI = the address behind the last bus.
        movzx(edi, cl);
        inc(edi);
        shl(edi, 16);
        or(edi, 0x8000_0000u32 as i32);
        mov(ebx, 0x8000_0000u32);
        label(".function");
        mov(dl, 0);
        call("monitor.config");
        cmp(ax, -1);
        je(".absent");
        call("monitor.show");
        // One function only, unless the header type says more.
        test(bx, 0x0700);
        jnz(".next");
        mov(dl, 0x0C);
        call("monitor.config");
        test(eax, 0x80_0000);
        jnz(".next");
        label(".skip");
        add(ebx, 0x700);
        jmp(".next");
        label(".absent");
        test(bx, 0x0700);
        jz(".skip");
        label(".next");
        add(ebx, 0x100);
        cmp(ebx, edi);
        jb(".function");
        ret();

        // BUS:DEVICE.FUNCTION: all of its registers.
        label(".one");
        call("monitor.number");
        jc("monitor.wrong");
        movzx(ebx, al);
        shl(ebx, 5);
        cmp(byte_ptr(si), u32::from(b':'));
        jne("monitor.wrong");
        inc(si);
        push(ebx);
        call("monitor.number");
        pop(ebx);
        jc("monitor.wrong");
        and(eax, 0x1F);
        or(ebx, eax);
        shl(ebx, 3);
        cmp(byte_ptr(si), u32::from(b'.'));
        jne("monitor.wrong");
        inc(si);
        push(ebx);
        call("monitor.number");
        pop(ebx);
        jc("monitor.wrong");
        and(eax, 7);
        or(ebx, eax);
        shl(ebx, 8);
        or(ebx, 0x8000_0000u32 as i32);
        xor(cx, cx);
        label(".row");
        call("monitor.space");
        mov(al, cl);
        call("monitor.hex8");
        call("monitor.space");
        label(".register");
        mov(dl, cl);
        call("monitor.config");
        mov(dx, 4);
        label(".byte");
        call("monitor.space");
        call("monitor.hex8");
        shr(eax, 8);
        dec(dx);
        jnz(".byte");
        add(cl, 4);
        test(cl, 0x0F);
        jnz(".register");
        call("monitor.newline");
        test(cl, cl);
        jnz(".row");
        ret();

        // A line on the function at EBX; its identity is in EAX.
        label("monitor.show");
        push(eax);
        call("monitor.space");
        mov(eax, ebx);
        shr(eax, 16);
        call("monitor.hex8");
        say(":");
        mov(al, bh);
        shr(al, 3);
        call("monitor.hex8");
        say(".");
        mov(al, bh);
        and(al, 7);
        call("monitor.digit");
        say("  ");
        pop(eax);
        call("monitor.hex16");
        say(":");
        shr(eax, 16);
        call("monitor.hex16");
        say("  ");
        mov(dl, 0x08);
        call("monitor.config");
        shr(eax, 16);
        call("monitor.hex16");
        say("  ");
        mov(si, u32::from(rom.offset(".classes")));
        label(".class");
        mov(cx, word_ptr(si).cs());
        jcxz(".named");
        add(si, 4);
        cmp(ax, cx);
        jne(".class");
        mov(si, word_ptr(si - 2).cs());
        colour(BRIGHT);
        call("monitor.text");
        colour(TEXT);
        label(".named");
        jmp("monitor.newline");
        label(".classes");
    }
    for (class, name) in CLASSES {
        let name = rom.text(name);
        asm! { rom; dw(&[class, name]); }
    }
    asm! { rom; dw(&[0]); }
}

fn acpi(rom: &mut Rom) {
    asm! { rom;
        label("monitor.acpi");
        call("monitor.flat");
        mov(esi, u32::from(EBDA_SEGMENT) << 4);
        label(".search");
        cmp(dword_ptr(esi).fs(), u32::from_le_bytes(*b"RSD ") as i32);
        jne(".not");
        cmp(dword_ptr(esi + 4).fs(), u32::from_le_bytes(*b"PTR ") as i32);
        je(".found");
        label(".not");
        add(esi, 16);
        cmp(esi, 0xA_0000);
        jne(".range");
        mov(esi, 0xE_0000);
        label(".range");
        cmp(esi, 0x10_0000);
        jb(".search");
        say("There are no ACPI tables.\r\n");
        ret();
        label(".found");
        colour(BRIGHT);
        say(" table  address   length    OEM\r\n");
        colour(TEXT);
        say(" RSDP   ");
        mov(eax, esi);
        call("monitor.hex32");
        say("            ");
        lea(edi, ptr(esi + 9));
        call("monitor.oem");
        mov(ebx, dword_ptr(esi + 16).fs());
        call("monitor.table");
        mov(ecx, dword_ptr(ebx + 4).fs());
        sub(ecx, 36);
        jb(".done");
        shr(ecx, 2);
        cmp(ecx, TABLES);
        jbe(".few");
        mov(ecx, TABLES);
        label(".few");
        lea(esi, ptr(ebx + 36));
        label(".entry");
        test(ecx, ecx);
        jz(".done");
        dec(ecx);
        mov(ebx, dword_ptr(esi).fs());
        add(esi, 4);
        call("monitor.table");
        cmp(dword_ptr(ebx).fs(), u32::from_le_bytes(*b"FACP") as i32);
        jne(".entry");
        // The fixed table points to two more.
        push(ebx);
        mov(ebx, dword_ptr(ebx + 40).fs());
        call("monitor.table");
        pop(ebx);
        mov(ebx, dword_ptr(ebx + 36).fs());
        call("monitor.table");
        jmp(".entry");
        label(".done");
        ret();

        // A line on the table at EBX, unless that is 0. Changes EAX, EDI.
        label("monitor.table");
        test(ebx, ebx);
        jz(".none");
        call("monitor.space");
        mov(edi, ebx);
        mov(dl, 4);
        call("monitor.characters");
        say("   ");
        mov(eax, ebx);
        call("monitor.hex32");
        say("  ");
        mov(eax, dword_ptr(ebx + 4).fs());
        call("monitor.hex32");
        say("  ");
        lea(edi, ptr(ebx + 10));
        // FACS has no OEM.
        cmp(dword_ptr(ebx).fs(), u32::from_le_bytes(*b"FACS") as i32);
        je("monitor.newline");
        label("monitor.oem");
        mov(dl, 6);
        call("monitor.characters");
        jmp("monitor.newline");
        label("monitor.table.none");
        ret();

        // DL characters at EDI.
        label("monitor.characters");
        mov(al, byte_ptr(edi).fs());
        inc(edi);
        cmp(al, 0x20);
        jae(".printable");
        mov(al, 0x20);
        label(".printable");
        call("monitor.char");
        dec(dl);
        jnz("monitor.characters");
        ret();
    }
}

fn memory(rom: &mut Rom) {
    let kinds: Vec<u16> =
        ["?", "RAM", "reserved", "ACPI tables", "ACPI non-volatile", "bad"].map(|kind| rom.text(kind)).to_vec();
    asm! { rom;
        label("monitor.e820");
        colour(BRIGHT);
        say(" from              to                type\r\n");
        colour(TEXT);
        xor(ebx, ebx);
        label(".next");
        push(ds);
        pop(es);
        mov(eax, 0xE820);
        mov(edx, 0x534D_4150);
        mov(ecx, 20);
        mov(di, state::BUFFER);
        int(0x15);
        jc(".done");
        call("monitor.space");
        mov(ecx, dword_ptr(state::BUFFER));
        mov(edx, dword_ptr(state::BUFFER + 4));
        call("monitor.hex64");
        add(ecx, dword_ptr(state::BUFFER + 8));
        adc(edx, dword_ptr(state::BUFFER + 12));
        sub(ecx, 1);
        sbb(edx, 0);
        call("monitor.hex64");
        movzx(si, byte_ptr(state::BUFFER + 16));
        cmp(si, 5);
        jbe(".known");
        xor(si, si);
        label(".known");
        add(si, si);
        mov(si, word_ptr(si + rom.at(".kinds")).cs());
        call("monitor.text");
        call("monitor.newline");
        test(ebx, ebx);
        jnz(".next");
        label(".done");
        ret();
        label(".kinds");
        dw(&kinds);

        // EDX:ECX and two blanks. Changes EAX.
        label("monitor.hex64");
        mov(eax, edx);
        call("monitor.hex32");
        mov(eax, ecx);
        call("monitor.hex32");
        say("  ");
        ret();
    }
}

fn clock(rom: &mut Rom) {
    asm! { rom;
        label("monitor.time");
        mov(ah, 0x04);
        int(0x1A);
        jc(".stopped");
        call("monitor.space");
        mov(ax, cx);
        call("monitor.hex16");
        say("-");
        mov(al, dh);
        call("monitor.hex8");
        say("-");
        mov(al, dl);
        call("monitor.hex8");
        say("  ");
        mov(ah, 0x02);
        int(0x1A);
        mov(al, ch);
        call("monitor.hex8");
        say(":");
        mov(al, cl);
        call("monitor.hex8");
        say(":");
        mov(al, dh);
        call("monitor.hex8");
        jmp("monitor.newline");
        label(".stopped");
        say("The clock stands still.\r\n");
        ret();
    }
}
