//! INT 19h, bootstrap, and INT 18h, nothing to boot.
//!
//! | | |
//! |---|---|
//! | INT 19h | loads the first sector of what is to be booted to 0000:7C00 and jumps there with DL = BIOS drive number; does not return |
//! | INT 18h | what a boot sector calls that cannot go on: the next device, and when there is none, the ROM monitor |
//!
//! The order is first that of fw_cfg's file `bootorder`, whose lines are Open Firmware device paths as QEMU writes them; then that of CMOS
//! registers 3Dh (first and second in the low and high nibble) and 38h (third in the high nibble), where 1 is floppy, 2 hard disk, 3 CD-ROM,
//! 4 network. Without either: hard disk, floppy, CD-ROM, boot entries of option ROMs.

use crate::rom::asm::*;
use crate::rom::layout::{BDA_SEGMENT, STACK_TOP, bda, system};
use crate::rom::post::scratch;

/// Where software that knows IBM's BIOS finds INT 19h in F000.
const ENTRY: u16 = 0xE6F2;
/// Where boot sectors are loaded (segment 0), and the signature in their last word.
const BOOT_SECTOR: u32 = 0x7C00;
const SIGNATURE: u32 = 0xAA55;
const FIRST_HARD_DISK: u32 = 0x80;
const FIRST_CD: u32 = 0xE0;

/// What an entry of the boot order is; its number counts drives, or boot entries of option ROMs.
const FLOPPY: u32 = 1;
const HARD_DISK: u32 = 2;
const CD: u32 = 3;
const ROM_ENTRY: u32 = 4;
/// A drive on an ATA channel, by place: twice the channel, plus one for the slave.
const ATA_PLACE: u32 = 5;
/// Nothing behind this one is booted.
const HALT: u32 = 6;

pub fn emit(rom: &mut Rom) {
    setup(rom);
    order(rom);
    start(rom);
}

/// The entry point in F000, where there is room for a near jump only.
pub fn emit_entry(rom: &mut Rom) {
    rom.entry(ENTRY, "boot.entry");
    asm! { rom;
        label("boot.entry");
        jmp_far("int19");
    }
}

/// The boot order, at POST.
fn setup(rom: &mut Rom) {
    asm! { rom;
        label("boot.setup");
        push(i32::from(BDA_SEGMENT));
        pop(ds);
        mov(ds, word_ptr(bda::EBDA));
        mov(word_ptr(system::BOOT_COUNT), 0);
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
        je(".rom");
        cmp(eax, u32::from_le_bytes(*b"HALT"));
        je(".halt");
        cmp(eax, u32::from_le_bytes(*b"ppy@"));
        je(".floppy");
        cmp(eax, u32::from_le_bytes(*b"ive@"));
        je(".channel");
        cmp(eax, u32::from_le_bytes(*b"isk@"));
        je(".unit");
        jmp(".character");
        label(".rom");
        mov(bl, ROM_ENTRY);
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
        mov(bl, ATA_PLACE);
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

        // AL = the digit behind the four characters whose second one is at ES:SI, at most 3.
        label("boot.digit");
        mov(al, byte_ptr(si + 3).es());
        and(al, 3);
        ret();
    }
}

/// INT 19h and 18h.
fn start(rom: &mut Rom) {
    asm! { rom;
        label("int19");
        mov(ax, i32::from(BDA_SEGMENT));
        mov(ds, ax);
        mov(ds, word_ptr(bda::EBDA));
        mov(byte_ptr(system::BOOT_NEXT), 0);
        jmp("int18");
        vector(0x19, "int19");

        label("int18");
        xor(ax, ax);
        mov(ss, ax);
        mov(esp, u32::from(STACK_TOP));
        cld();
        sti();
        mov(ax, i32::from(BDA_SEGMENT));
        mov(ds, ax);
        mov(ds, word_ptr(bda::EBDA));
        movzx(si, byte_ptr(system::BOOT_NEXT));
        mov(ax, si);
        cmp(al, byte_ptr(system::BOOT_COUNT));
        jae("boot.nothing");
        inc(byte_ptr(system::BOOT_NEXT));
        shl(si, 1);
        mov(ax, word_ptr(si + system::BOOT));
        dispatch_al(&[
            (FLOPPY as u8, ".floppy"),
            (HARD_DISK as u8, ".hard_disk"),
            (CD as u8, ".cd"),
            (ROM_ENTRY as u8, ".rom"),
            (ATA_PLACE as u8, ".place"),
            (HALT as u8, "boot.nothing"),
        ]);
        jmp("int18");
        label(".floppy");
        mov(dl, ah);
        mov(si, u32::from(rom.text("Booting from floppy disk...\r\n")));
        call("boot.sector");
        jmp("int18");
        label(".hard_disk");
        mov(dl, ah);
        add(dl, FIRST_HARD_DISK);
        mov(si, u32::from(rom.text("Booting from hard disk...\r\n")));
        call("boot.sector");
        jmp("int18");
        label(".cd");
        mov(dl, ah);
        add(dl, FIRST_CD);
        call("boot.cd");
        jmp("int18");
        label(".rom");
        movzx(si, ah);
        cmp(ah, byte_ptr(system::BEV_COUNT));
        jae("int18");
        shl(si, 2);
        mov(eax, dword_ptr(si + system::BEV));
        push(cs);
        push(u32::from(rom.offset("int18")));
        push(eax);
        push(i32::from(0xF000u16 as i16));
        pop(es);
        mov(di, u32::from(rom.offset("pnp.header")));
        retf();
        label(".place");
        call("boot.place");
        jmp("int18");
        vector(0x18, "int18");

        // Boots the sector of drive DL, saying what is at CS:SI, or returns.
        label("boot.sector");
        xor(ax, ax);
        mov(es, ax);
        mov(di, 3);
        label(".again");
        mov(bx, BOOT_SECTOR);
        mov(word_ptr(bx + 0x1FE).es(), 0);
        mov(ax, 0x0201);
        mov(cx, 1);
        mov(dh, 0);
        pushad();
        int(0x13);
        popad();
        jnc(".read");
        // A drive that has just been reset or whose medium has changed says so once.
        pushad();
        mov(ah, 0);
        int(0x13);
        popad();
        dec(di);
        jnz(".again");
        ret();
        label(".read");
        cmp(word_ptr(BOOT_SECTOR + 0x1FE).es(), SIGNATURE as i32);
        jne(".no");
        call("boot.say");
        xor(bx, bx);
        jmp("boot.jump");
        label(".no");
        ret();

        // Starts the code at BX:7C00 (BX = 0) or BX:0 with DL as it is.
        label("boot.jump");
        xor(ax, ax);
        mov(ds, ax);
        mov(es, ax);
        mov(dh, 0);
        test(bx, bx);
        jnz(".segment");
        jmp_far_to(0, BOOT_SECTOR);
        label(".segment");
        push(bx);
        push(0);
        retf();

        // Writes the string at CS:SI to the screen.
        label("boot.say");
        pushad();
        label(".next");
        mov(al, byte_ptr(si).cs());
        inc(si);
        test(al, al);
        jz(".done");
        mov(ah, 0x0E);
        mov(bx, 7);
        push(si);
        int(0x10);
        pop(si);
        jmp(".next");
        label(".done");
        popad();
        ret();

        label("boot.nothing");
        mov(si, u32::from(rom.text("No bootable device.\r\n")));
        call("boot.say");
        debug("No bootable device");
    }
    rom.hook("monitor.run");
    asm! { rom;
        label(".halt");
        sti();
        hlt();
        jmp(".halt");
    }
    drives(rom);
}

/// Drives by place, and CD-ROMs.
fn drives(rom: &mut Rom) {
    asm! { rom;
        // Boots CD-ROM drive DL, or returns.
        label("boot.cd");
        xor(ax, ax);
        mov(ds, ax);
        mov(es, ax);
        call_far("eltorito.boot");
        jc(".no");
        mov(si, u32::from(rom.text("Booting from CD-ROM...\r\n")));
        call("boot.say");
        cmp(bx, (BOOT_SECTOR >> 4) as i32);
        jne("boot.jump");
        xor(bx, bx);
        jmp("boot.jump");
        label(".no");
        ret();

        // Boots what is at place AH of the ATA channels, or returns.
        label("boot.place");
        call_far("disk.number");
        jc(".no");
        cmp(dl, FIRST_CD);
        jae("boot.cd");
        mov(si, u32::from(rom.text("Booting from hard disk...\r\n")));
        jmp("boot.sector");
        label(".no");
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
        label("boot.file");
        asciz("bootorder");
    }
}
