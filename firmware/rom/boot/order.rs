//! The boot order and the settings of the menu, as fw_cfg and CMOS RAM have them.
//!
//! | fw_cfg (QEMU's docs/specs/fw_cfg.rst, `-boot` in its manual) | |
//! |---|---|
//! | item 0Eh | whether there is a menu |
//! | `etc/boot-menu-wait` | how long the menu is offered, in milliseconds (word; 2500) |
//! | `etc/boot-fail-wait` | when to restart with nothing to boot, in milliseconds (doubleword; FFFFFFFFh never) |
//! | `bootorder` | device paths, one to a line |

use super::*;
use crate::rom::post::{fw_cfg, scratch};
use crate::rom::services::disk::tables::{DRIVE_SLOTS, VIRTIO_DRIVES, VIRTIO_SLOTS, drive};

/// How long the menu is offered unless fw_cfg says something else.
const MENU_WAIT: u32 = 2500;
const KEY_BOOT_MENU: u32 = 0x0E;
/// A place of a drive that no drive has.
const NO_PLACE: i32 = 0x80;

pub fn emit(rom: &mut Rom) {
    setup(rom);
    order(rom);
}

/// The boot order, at POST.
fn setup(rom: &mut Rom) {
    asm! { rom;
        label("boot.setup");
        push(i32::from(BDA_SEGMENT));
        pop(ds);
        mov(ds, word_ptr(bda::EBDA));
        mov(word_ptr(system::BOOT_COUNT), 0);
        mov(word_ptr(system::BOOT_CHOICE), 0);
        mov(eax, rom.linear("boot.waits"));
        call("flat.call");
        mov(dword_ptr(system::MENU_WAIT), eax);
        mov(dword_ptr(system::FAIL_WAIT), ecx);
        mov(eax, rom.linear("boot.load"));
        call("flat.call");
        test(eax, eax);
        jz(".cmos");
        mov(bx, (scratch::FILE >> 4) as i32);
        mov(es, bx);
        xor(si, si);
        mov(bp, ax);
        call("boot.lines");
        label(".cmos");
        cmos_read(0x38);
        mov(ah, al);
        shr(ah, 4);
        cmos_read(0x3D);
        // AX = the order, first in the lowest nibble.
        test(ax, ax);
        jnz(".order");
        mov(ax, HARD_DISK | FLOPPY << 4 | CD << 8 | ROM_ENTRY << 12);
        label(".order");
        test(ax, ax);
        jz(".done");
        push(ax);
        and(ax, 0xF);
        cmp(al, ROM_ENTRY);
        ja(".skip");
        test(al, al);
        jz(".skip");
        call("boot.add");
        label(".skip");
        pop(ax);
        shr(ax, 4);
        jmp(".order");
        label(".done");
        ret();

        // Adds kind AL, number AH to the order, of the EBDA in DS.
        label("boot.add");
        movzx(di, byte_ptr(system::BOOT_COUNT));
        cmp(di, system::BOOTS);
        jae(".full");
        inc(byte_ptr(system::BOOT_COUNT));
        shl(di, 1);
        mov(word_ptr(di + system::BOOT), ax);
        label(".full");
        ret();
    }
}

/// Device paths.
fn order(rom: &mut Rom) {
    asm! { rom;
        // Adds what the lines at ES:SI, BP bytes, name.
        label("boot.lines");
        label(".line");
        cmp(si, bp);
        jae(".done");
        // DX: place so far; BX: the kind, once known.
        xor(bx, bx);
        xor(dx, dx);
        label(".character");
        cmp(si, bp);
        jae(".end");
        mov(eax, dword_ptr(si).es());
        inc(si);
        cmp(al, u32::from(b'\n'));
        je(".end");
        test(al, al);
        jz(".end");
        cmp(eax, u32::from_le_bytes(*b"/rom"));
        je(".rom");
        cmp(eax, u32::from_le_bytes(*b"/eth"));
        je(".ethernet");
        cmp(eax, u32::from_le_bytes(*b"/scs"));
        je(".virtio");
        cmp(eax, u32::from_le_bytes(*b"HALT"));
        je(".halt");
        cmp(eax, u32::from_le_bytes(*b"ppy@"));
        je(".floppy");
        cmp(eax, u32::from_le_bytes(*b"ive@"));
        je(".channel");
        cmp(eax, u32::from_le_bytes(*b"isk@"));
        je(".unit");
        jmp(".character");
        label(".ethernet");
        call("boot.function");
        jmp(".entry");
        label(".virtio");
        call("boot.virtio");
        mov(dl, al);
        jmp(".character");
        label(".rom");
        call("boot.named");
        label(".entry");
        jc(".character");
        mov(bl, ROM_ENTRY);
        mov(bh, al);
        jmp(".character");
        label(".halt");
        mov(bl, HALT);
        jmp(".character");
        label(".floppy");
        mov(bl, FLOPPY);
        call("boot.digit");
        mov(bh, al);
        jmp(".character");
        label(".channel");
        call("boot.digit");
        shl(al, 1);
        mov(dl, al);
        jmp(".character");
        label(".unit");
        mov(bl, DRIVE_PLACE);
        call("boot.digit");
        add(al, dl);
        mov(bh, al);
        jmp(".character");
        label(".end");
        mov(ax, bx);
        test(al, al);
        jz(".line");
        call("boot.add");
        jmp(".line");
        label(".done");
        ret();

        // AL = the boot entry of the ROM whose file's name is at ES:SI behind "rom@"; CF if there is none. Changes AH, CX, DI.
        label("boot.named");
        push(bx);
        push(fs);
        mov(cx, scratch::DIRECTORY >> 4);
        mov(fs, cx);
        mov(al, 0);
        label(".next");
        cmp(al, byte_ptr(system::BEV_COUNT));
        jae(".none");
        movzx(bx, al);
        shl(bx, 3);
        mov(di, word_ptr(bx + system::BEV_SOURCE));
        cmp(di, system::BEV_FIXED);
        je(".skip");
        sub(di, system::BEV_FILE);
        jb(".skip");
        shl(di, 6);
        add(di, fw_cfg::ENTRY_NAME);
        push(si);
        add(si, 4);
        label(".compare");
        mov(cl, byte_ptr(di).fs());
        test(cl, cl);
        jz(".end");
        cmp(cl, byte_ptr(si).es());
        jne(".differs");
        inc(di);
        inc(si);
        jmp(".compare");
        label(".end");
        // The line must end there, too.
        cmp(byte_ptr(si).es(), u32::from(b'\n'));
        pop(si);
        jbe(".found");
        jmp(".skip");
        label(".differs");
        pop(si);
        label(".skip");
        inc(al);
        jmp(".next");
        label(".found");
        clc();
        jmp(".done");
        label(".none");
        stc();
        label(".done");
        pop(fs);
        pop(bx);
        ret();

        // AL = the boot entry of the ROM of the function at ES:SI behind "ethernet@", DEVICE or DEVICE,FUNCTION; CF if there is none.
        // Changes AH, CX, DI.
        label("boot.function");
        push(bx);
        lea(di, word_ptr(si + 9));
        call("boot.devfn");
        mov(al, 0);
        label(".next");
        cmp(al, byte_ptr(system::BEV_COUNT));
        jae(".none");
        movzx(bx, al);
        shl(bx, 3);
        cmp(word_ptr(bx + system::BEV_SOURCE), cx);
        je(".found");
        inc(al);
        jmp(".next");
        label(".none");
        stc();
        label(".found");
        pop(bx);
        ret();

        // AL = the place of the virtio disk of the function at ES:SI behind "scsi@"; one that no drive has if there is none. Changes AH,
        // CX, DI.
        label("boot.virtio");
        push(bx);
        lea(di, word_ptr(si + 5));
        call("boot.devfn");
        mov(al, DRIVE_SLOTS);
        mov(bx, VIRTIO_DRIVES);
        label(".next");
        cmp(byte_ptr(bx + drive::KIND), drive::VIRTIO);
        jne(".none");
        cmp(word_ptr(bx + drive::FUNCTION), cx);
        je(".found");
        add(bx, drive::RECORD);
        inc(al);
        cmp(al, DRIVE_SLOTS + VIRTIO_SLOTS);
        jb(".next");
        label(".none");
        mov(al, NO_PLACE);
        label(".found");
        pop(bx);
        ret();

        // CX = the function that DEVICE or DEVICE,FUNCTION at ES:DI names, hexadecimal. Changes AX, DI.
        label("boot.devfn");
        xor(cx, cx);
        label(".digit");
        mov(al, byte_ptr(di).es());
        sub(al, u32::from(b'0'));
        cmp(al, 9);
        jbe(".value");
        or(al, 0x20);
        sub(al, u32::from(b'a' - b'0'));
        cmp(al, 5);
        ja(".end");
        add(al, 10);
        label(".value");
        shl(cx, 4);
        or(cl, al);
        inc(di);
        jmp(".digit");
        label(".end");
        shl(cx, 3);
        cmp(byte_ptr(di).es(), u32::from(b','));
        jne(".whole");
        mov(al, byte_ptr(di + 1).es());
        and(al, 7);
        or(cl, al);
        label(".whole");
        ret();

        // AL = the digit behind the four characters whose second one is at ES:SI, at most 3.
        label("boot.digit");
        mov(al, byte_ptr(si + 3).es());
        and(al, 3);
        ret();
    }
}

/// Routines for 32-bit code.
pub fn emit_flat(rom: &mut Rom) {
    asm! { rom;
        // Loads the file of the boot order to scratch memory: EAX = its size, at most 32 KiB; 0 if there is none.
        label("boot.load");
        mov(esi, rom.linear("boot.file"));
        call("fwcfg.load");
        jc(".none");
        cmp(eax, 0x8000);
        jbe(".done");
        label(".none");
        xor(eax, eax);
        label(".done");
        ret();
        // EAX = how long the menu is offered, ECX = when to restart with nothing to boot: milliseconds, or FFFFFFFFh.
        label("boot.waits");
        // Option ROMs may have used the memory where the directory was.
        call("fwcfg.setup");
        mov(esi, NEVER);
        mov(edi, NEVER);
        cmp(dword_ptr(rom.at("fwcfg.count")), 0);
        je(".none");
        mov(eax, KEY_BOOT_MENU);
        call("fwcfg.word");
        test(ax, ax);
        jz(".no_menu");
        mov(eax, MENU_WAIT);
        mov(esi, rom.linear("boot.menu_file"));
        call("boot.number");
        movzx(esi, ax);
        jmp(".menu");
        label(".no_menu");
        mov(esi, NEVER);
        label(".menu");
        push(esi);
        mov(eax, NEVER);
        mov(esi, rom.linear("boot.fail_file"));
        call("boot.number");
        mov(edi, eax);
        pop(esi);
        label(".none");
        mov(eax, esi);
        mov(ecx, edi);
        ret();

        // EAX = the number in the file named at ESI, or as it is if there is no such file. Changes EBX, ECX, EDX, EDI.
        label("boot.number");
        push(eax);
        mov(dword_ptr(scratch::FILE), 0);
        call("fwcfg.load");
        pop(edx);
        mov(eax, edx);
        jc(".done");
        mov(eax, dword_ptr(scratch::FILE));
        label(".done");
        ret();

        label("boot.file");
        asciz("bootorder");
        label("boot.menu_file");
        asciz("etc/boot-menu-wait");
        label("boot.fail_file");
        asciz("etc/boot-fail-wait");
    }
}
