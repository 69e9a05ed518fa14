//! PCI BIOS, in real mode (INT 1Ah AH=B1h) and, through the BIOS32 service directory, for 32-bit code.
//!
//! | AL | service | in | returns |
//! |---|---|---|---|
//! | 01 | installation check | | AH = 0, AL = 1 (configuration mechanism 1), BX = 0210h, CL = 0 (last bus), EDX = "PCI " |
//! | 02 | find device | CX device, DX vendor, SI index | BX = bus and function |
//! | 03 | find class | ECX class code, SI index | BX |
//! | 08, 09, 0A | read configuration byte, word, dword | BX, DI register | CL, CX, ECX |
//! | 0B, 0C, 0D | write | BX, DI, CL, CX, ECX | |
//! | 0E | routing options | ES:(E)DI = size of a buffer (word), its far address | the `$PIR` table's entries, their size, BX = 0: no IRQ is PCI's alone |
//! | others | | | AH = 81h |
//!
//! AH is 0, 81h (function not supported), 83h (bad vendor), 86h (device not found), 87h (bad register) or 89h (buffer too small); CF is set unless it is 0. PCI BIOS Specification
//! 2.1; Standard BIOS 32-bit Service Directory Proposal 0.4. The code is written once and assembled for both. Absent: special cycles, setting
//! an interrupt's route, buses other than the first. In real mode 01 returns the 32-bit entry point in EDI, too.

use super::pnp::{ROUTING_SIZE, close};
use crate::rom::asm::*;

const VERSION: u32 = 0x0210;
const SIGNATURE: u32 = u32::from_le_bytes(*b"PCI ");
const UNSUPPORTED: u32 = 0x81;
const BAD_VENDOR: u32 = 0x83;
const NOT_FOUND: u32 = 0x86;
const BAD_REGISTER: u32 = 0x87;
const BUFFER_TOO_SMALL: u32 = 0x89;
/// The directory's services: "$PCI"; and its answer for others.
const PCI_SERVICE: u32 = u32::from_le_bytes(*b"$PCI");
const NO_SERVICE: u32 = 0x80;
/// What a caller maps: from here to 1 MiB.
const BASE: u32 = 0xE_0000;
const LENGTH: u32 = 0x2_0000;

/// The real-mode routine and the directory's header.
pub fn emit(rom: &mut Rom) {
    functions(rom, "pci.bios");
    let mut header = b"_32_".to_vec();
    header.extend(rom.linear("bios32.directory").to_le_bytes());
    header.extend([0, 1]);
    header.resize(16, 0);
    close(&mut header, 10);
    asm! { rom;
        align(16);
        label("bios32.header");
        db(&header);
    }
}

/// The 32-bit routines. They are called wherever the caller has mapped them, so they use relative addresses only.
pub fn emit_flat(rom: &mut Rom) {
    asm! { rom;
        label("bios32.directory");
        test(bl, bl);
        jnz(".unknown");
        cmp(eax, PCI_SERVICE);
        jne(".unknown");
        mov(ebx, BASE);
        mov(ecx, LENGTH);
        mov(edx, rom.linear("bios32.pci").wrapping_sub(BASE));
        mov(al, 0);
        retf();
        label(".unknown");
        mov(al, NO_SERVICE);
        retf();

        label("bios32.pci");
        call("pci.bios32");
        retf();
    }
    functions(rom, "pci.bios32");
}

/// The routine `name`: registers as above; keeps all others.
fn functions(rom: &mut Rom, name: &str) {
    asm! { rom;
        label(name);
        dispatch_al(&[
            (0x01, ".check"),
            (0x02, ".device"),
            (0x03, ".class"),
            (0x08, ".read_byte"),
            (0x09, ".read_word"),
            (0x0A, ".read_dword"),
            (0x0B, ".write_byte"),
            (0x0C, ".write_word"),
            (0x0D, ".write_dword"),
            (0x0E, ".routing"),
        ]);
        mov(ah, UNSUPPORTED);
        label(".fail");
        stc();
        ret();
        label(".bad_register");
        mov(ah, BAD_REGISTER);
        jmp(".fail");

        label(".check");
        mov(bx, VERSION);
        mov(cl, 0);
        mov(edx, SIGNATURE);
        mov(ax, 0x0001);
        clc();
        ret();

        label(".device");
        mov(ah, BAD_VENDOR);
        cmp(dx, -1);
        je(".fail");
        push(ebp);
        push(edx);
        push(edi);
        push(esi);
        movzx(ebp, cx);
        shl(ebp, 16);
        mov(bp, dx);
        xor(di, di);
        jmp(".search");
        label(".class");
        push(ebp);
        push(edx);
        push(edi);
        push(esi);
        mov(ebp, ecx);
        shl(ebp, 8);
        mov(di, 8);
        // EBP is what is wanted, DI the register that has it; SI counts the matches before the wanted one.
        label(".search");
        xor(bx, bx);
        label(".next");
        call(".address");
        in_(eax, dx);
        cmp(di, 0);
        je(".compare");
        mov(al, 0);
        label(".compare");
        cmp(eax, ebp);
        jne(".other");
        sub(si, 1);
        jb(".found");
        label(".other");
        // Function 0 of a device with one function answers for function 0 only, and one that is not there for none.
        test(bl, 7);
        jnz(".more");
        push(edi);
        mov(di, 0x0C);
        call(".address");
        pop(edi);
        in_(eax, dx);
        cmp(eax, -1);
        je(".skip");
        test(eax, 1 << 23);
        jnz(".more");
        label(".skip");
        or(bl, 7);
        label(".more");
        inc(bl);
        jnz(".next");
        mov(ah, NOT_FOUND);
        stc();
        jmp(".end");
        label(".found");
        mov(ah, 0);
        clc();
        label(".end");
        pop(esi);
        pop(edi);
        pop(edx);
        pop(ebp);
        ret();

        label(".read_byte");
        push(edx);
        call(".address");
        in_(al, dx);
        mov(cl, al);
        jmp(".done");
        label(".read_word");
        test(di, 1);
        jnz(".bad_register");
        push(edx);
        call(".address");
        in_(ax, dx);
        mov(cx, ax);
        jmp(".done");
        label(".read_dword");
        test(di, 3);
        jnz(".bad_register");
        push(edx);
        call(".address");
        in_(eax, dx);
        mov(ecx, eax);
        jmp(".done");
        label(".write_byte");
        push(edx);
        call(".address");
        mov(al, cl);
        out(dx, al);
        jmp(".done");
        label(".write_word");
        test(di, 1);
        jnz(".bad_register");
        push(edx);
        call(".address");
        mov(ax, cx);
        out(dx, ax);
        jmp(".done");
        label(".write_dword");
        test(di, 3);
        jnz(".bad_register");
        push(edx);
        call(".address");
        mov(eax, ecx);
        out(dx, eax);
        label(".done");
        pop(edx);
        mov(ah, 0);
        clc();
        ret();

        label(".routing");
    }
    if rom.bits() == 32 {
        routing32(rom)
    } else {
        routing16(rom)
    }
    asm! { rom;
        // Selects register DI of function BX; DX = the port to reach it by. Changes EAX.
        label(".address");
        movzx(eax, bx);
        shl(eax, 8);
        mov(dx, di);
        and(dl, 0xFC);
        mov(al, dl);
        or(eax, 0x8000_0000u32 as i32);
        mov(dx, 0xCF8);
        out(dx, eax);
        mov(dx, di);
        and(dx, 3);
        add(dx, 0xCFC);
        ret();
    }
}

fn routing16(rom: &mut Rom) {
    asm! { rom;
        mov(bx, 0);
        push(cx);
        mov(cx, ROUTING_SIZE);
        xchg(word_ptr(di).es(), cx);
        cmp(cx, ROUTING_SIZE);
        pop(cx);
        mov(ah, BUFFER_TOO_SMALL);
        jb(".fail");
        pushad();
        push(es);
        les(di, dword_ptr(di + 2).es());
        mov(si, u32::from(rom.offset("pci.routing.entries")));
        mov(cx, ROUTING_SIZE);
        cld();
        db(&[0x2E, 0xF3, 0xA4]);
        pop(es);
        popad();
        mov(ah, 0);
        clc();
        ret();
    }
}

/// The code is wherever the caller has mapped it, and the table as far from it as ever.
fn routing32(rom: &mut Rom) {
    let distance = rom.linear("pci.routing.entries").wrapping_sub(rom.linear(".here"));
    asm! { rom;
        mov(bx, 0);
        push(ecx);
        mov(cx, ROUTING_SIZE);
        xchg(word_ptr(edi).es(), cx);
        cmp(cx, ROUTING_SIZE);
        pop(ecx);
        mov(ah, BUFFER_TOO_SMALL);
        jb(".fail");
        pushad();
        push(es);
        call(".here");
        label(".here");
        pop(esi);
        add(esi, distance as i32);
        les(edi, fword_ptr(edi + 2).es());
        mov(ecx, ROUTING_SIZE);
        cld();
        db(&[0x2E, 0xF3, 0xA4]);
        pop(es);
        popad();
        mov(ah, 0);
        clc();
        ret();
    }
}
