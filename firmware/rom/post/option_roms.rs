//! Option ROMs: copies them to C0000 and up and initialises them, the VGA BIOS first.
//!
//! PCI Firmware Specification 3.0, 5.1 (ROM images, code type 0) and Plug and Play BIOS Specification 1.0A, 3 (expansion header,
//! BEV, BCV). They come, in this order, from fw_cfg's `vgaroms/`, from VGA functions on PCI, from other functions on PCI, and from fw_cfg's
//! `genroms/`. A BEV goes on the list of what can be booted; a BCV is called at once. ROMs that a machine has at C0000 already, without
//! any of these, are scanned for in steps of 2 KiB.

use crate::rom::asm::*;
use crate::rom::layout::{BDA_SEGMENT, bda, system};
use crate::rom::post::{fw_cfg, scratch};

const FIRST: u32 = 0xC_0000;
const END: u32 = 0xE_0000;
/// INT 10h's AX for 80x25 text.
const VIDEO_MODE: u32 = 3;
const STEP: u32 = 0x800;
const SIGNATURE: u32 = 0xAA55;
/// Base class and subclass of VGA-compatible controllers.
const CLASS_VGA: u32 = 0x0300;
const PNP: u32 = u32::from_le_bytes(*b"$PnP");
/// Fields of an option ROM, and of its expansion header.
const PNP_HEADER: i32 = 0x1A;
const BCV: i32 = 0x16;
const BEV: i32 = 0x1A;

pub fn emit(rom: &mut Rom) {
    // Variables of the 32-bit half, seen from real mode.
    let variables = rom.linear("roms.free") >> 4;
    let free = (rom.linear("roms.free") & 0xF) as i32;
    asm! { rom;
        label("roms.run");
        label(".next");
        mov(eax, rom.linear("roms.next"));
        call("flat.call");
        test(ax, ax);
        jz("roms.scan");
        call("roms.initialise");
        // The first one is the VGA BIOS, which leaves it to us to set a mode.
        mov(ax, es);
        cmp(ax, FIRST >> 4);
        jne(".placed");
        push(es);
        mov(ax, VIDEO_MODE);
        int(0x10);
        pop(es);
        label(".placed");
        // What the ROM keeps after initialisation is its size; the next one follows.
        mov(ax, es);
        movzx(eax, ax);
        shl(eax, 4);
        movzx(ecx, byte_ptr(2).es());
        shl(ecx, 9);
        cmp(word_ptr(0).es(), SIGNATURE as i32);
        jne(".next");
        add(eax, ecx);
        add(eax, STEP - 1);
        and(eax, -(STEP as i32));
        push(variables);
        pop(ds);
        mov(dword_ptr(free), eax);
        jmp(".next");

        // ROMs that are there without having been copied: on machines whose ROM area is not RAM.
        label("roms.scan");
        push(variables);
        pop(ds);
        cmp(dword_ptr(free), FIRST);
        jne(".done");
        mov(ax, FIRST >> 4);
        label(".next");
        mov(es, ax);
        mov(bx, STEP >> 4);
        cmp(word_ptr(0).es(), SIGNATURE as i32);
        jne(".skip");
        mov(bl, byte_ptr(2).es());
        mov(bh, 0);
        shl(bx, 5);
        add(bx, (STEP >> 4) - 1);
        and(bx, -((STEP >> 4) as i32));
        jz(".done");
        push(ax);
        push(bx);
        xor(dx, dx);
        mov(cx, system::BEV_FIXED as u32);
        call("roms.initialise");
        pop(bx);
        pop(ax);
        label(".skip");
        add(ax, bx);
        cmp(ax, END >> 4);
        jb(".next");
        label(".done");
        ret();

        // Initialises the ROM in segment AX, of PCI function DX, from CX (system::BEV_SOURCE); returns its segment in ES.
        label("roms.initialise");
        call("flat.big");
        push(cx);
        mov(es, ax);
        push(es);
        mov(si, ax);
        mov(ax, dx);
        mov(bx, 0xFFFF);
        mov(dx, bx);
        push(0xF000);
        pop(es);
        mov(di, u32::from(rom.offset("pnp.header")));
        xor(bp, bp);
        mov(ds, bp);
        push(cs);
        push(u32::from(rom.offset(".initialised")));
        push(si);
        push(3);
        retf();
        label(".initialised");
        cli();
        cld();
        pop(es);
        pop(cx);
        cmp(word_ptr(0).es(), SIGNATURE as i32);
        jne(".done");
        mov(bx, word_ptr(PNP_HEADER).es());
        cmp(dword_ptr(bx).es(), PNP as i32);
        jne(".done");
        cmp(word_ptr(bx + BEV).es(), 0);
        je(".no_bev");
        // One more to boot.
        push(i32::from(BDA_SEGMENT));
        pop(ds);
        mov(ds, word_ptr(bda::EBDA));
        movzx(si, byte_ptr(system::BEV_COUNT));
        cmp(si, system::BEVS);
        jae(".done");
        inc(byte_ptr(system::BEV_COUNT));
        shl(si, 3);
        mov(ax, word_ptr(bx + BEV).es());
        mov(word_ptr(si + system::BEV), ax);
        mov(word_ptr(si + (system::BEV + 2)), es);
        mov(word_ptr(si + system::BEV_SOURCE), cx);
        label(".no_bev");
        cmp(word_ptr(bx + BCV).es(), 0);
        je(".done");
        push(es);
        push(cs);
        push(u32::from(rom.offset(".connected")));
        push(es);
        push(word_ptr(bx + BCV).es());
        push(0xF000);
        pop(es);
        mov(di, u32::from(rom.offset("pnp.header")));
        retf();
        label(".connected");
        cli();
        cld();
        pop(es);
        label(".done");
        ret();
    }
}

pub fn emit_flat(rom: &mut Rom) {
    asm! { rom;
        align(16);
        // Where the next ROM goes; which source is next: 0 vgaroms, 1 VGA functions, 2 other functions, 3 genroms; how far in it.
        label("roms.free");
        dd(&[FIRST]);
        label("roms.source");
        dd(&[0]);
        label("roms.position");
        dd(&[0]);
        label("roms.no_room");
        asciz("emu BIOS: an option ROM does not fit below E0000");

        // Copies the next ROM: AX = its segment, DX = its PCI function, CX = where it is from (system::BEV_SOURCE). AX = 0: there are no more.
        label("roms.next");
        mov(eax, dword_ptr(rom.at("roms.source")));
        test(eax, eax);
        mov(ebp, u32::from_le_bytes(*b"vgar"));
        jz(".files");
        cmp(eax, 2);
        jbe(".functions");
        mov(ebp, u32::from_le_bytes(*b"genr"));
        cmp(eax, 3);
        je(".files");
        xor(eax, eax);
        ret();
        label(".source");
        inc(dword_ptr(rom.at("roms.source")));
        mov(dword_ptr(rom.at("roms.position")), 0);
        jmp("roms.next");

        // Files whose name starts with EBP and "oms/".
        label(".files");
        mov(eax, dword_ptr(rom.at("roms.position")));
        cmp(eax, dword_ptr(rom.at("fwcfg.count")));
        jae(".source");
        inc(dword_ptr(rom.at("roms.position")));
        shl(eax, 6);
        lea(edi, ptr(eax + scratch::DIRECTORY as i32));
        cmp(dword_ptr(edi + fw_cfg::ENTRY_NAME), ebp);
        jne(".files");
        cmp(dword_ptr(edi + (fw_cfg::ENTRY_NAME + 4)), u32::from_le_bytes(*b"oms/"));
        jne(".files");
        call("fwcfg.select");
        mov(ecx, eax);
        call("roms.room");
        jc(".files");
        push(edi);
        call("fwcfg.read");
        pop(eax);
        shr(eax, 4);
        xor(edx, edx);
        mov(ecx, dword_ptr(rom.at("roms.position")));
        dec(ecx);
        or(ecx, system::BEV_FILE);
        ret();

        label(".functions");
        mov(ebx, dword_ptr(rom.at("roms.position")));
        cmp(ebx, 0x100);
        jae(".source");
        inc(dword_ptr(rom.at("roms.position")));
        shl(ebx, 8);
        or(ebx, 0x8000_0000u32 as i32);
        call("pci.read");
        cmp(ax, -1);
        je(".functions");
        mov(bl, 0x08);
        call("pci.read");
        shr(eax, 16);
        cmp(eax, CLASS_VGA);
        setne(al);
        inc(al);
        cmp(al, byte_ptr(rom.at("roms.source")));
        jne(".functions");
        mov(bl, 0x0C);
        call("pci.read");
        test(eax, 0x7F_0000);
        jnz(".functions");
        mov(bl, 0x30);
        call("pci.read");
        and(eax, 0xFFFF_F800u32 as i32);
        jz(".functions");
        mov(esi, eax);
        inc(eax);
        call("pci.write");
        call("roms.image");
        pushfd();
        xor(eax, eax);
        call("pci.read");
        and(al, 0xFE);
        call("pci.write");
        popfd();
        jc(".functions");
        mov(eax, edi);
        shr(eax, 4);
        movzx(edx, bh);
        mov(ecx, edx);
        ret();

        // Copies the image for PCs from the ROM at ESI: EDI = where to; CF set if there is none or no room.
        label("roms.image");
        mov(ebp, 16);
        label(".next");
        cmp(word_ptr(esi), SIGNATURE as i32);
        jne(".none");
        movzx(edi, word_ptr(esi + 0x18));
        add(edi, esi);
        cmp(dword_ptr(edi), u32::from_le_bytes(*b"PCIR"));
        jne(".none");
        cmp(byte_ptr(edi + 0x14), 0);
        je(".found");
        test(byte_ptr(edi + 0x15), 0x80);
        jnz(".none");
        movzx(eax, word_ptr(edi + 0x10));
        shl(eax, 9);
        jz(".none");
        add(esi, eax);
        dec(ebp);
        jnz(".next");
        label(".none");
        stc();
        ret();
        label(".found");
        movzx(ecx, byte_ptr(esi + 2));
        shl(ecx, 9);
        call("roms.room");
        jc(".done");
        push(edi);
        shr(ecx, 2);
        rep().movsd();
        pop(edi);
        clc();
        label(".done");
        ret();

        // EDI = where ECX bytes can go; CF set if there is no room.
        label("roms.room");
        mov(edi, dword_ptr(rom.at("roms.free")));
        cmp(ecx, END - FIRST);
        ja(".full");
        lea(eax, ptr(edi + ecx));
        cmp(eax, END);
        ja(".full");
        clc();
        ret();
        label(".full");
        push(esi);
        mov(esi, rom.linear("roms.no_room"));
        call("debug.flat_line");
        pop(esi);
        stc();
        ret();
    }
}
