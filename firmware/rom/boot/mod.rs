//! INT 19h, bootstrap, and INT 18h, nothing to boot.
//!
//! | | |
//! |---|---|
//! | INT 19h | loads the first sector of what is to be booted to 0000:7C00 and jumps there with DL = BIOS drive number; does not return |
//! | INT 18h | what a boot sector calls that cannot go on: the next device, and when there is none, the ROM monitor |
//!
//! The order is first that of fw_cfg's file `bootorder`, whose lines are Open Firmware device paths as QEMU writes them; then that of CMOS
//! registers 3Dh (first and second in the low and high nibble) and 38h (third in the high nibble), where 1 is floppy, 2 hard disk, 3 CD-ROM,
//! 4 network. Without either: hard disk, floppy, CD-ROM, boot entries of option ROMs. `-boot menu=on` lets the user choose (`menu`).
//!
//! A disk that is chosen from the menu or named by `bootorder` becomes drive 80h, and those before it move up. With nothing to boot, fw_cfg's file
//! `etc/boot-fail-wait` may ask for a restart after so many milliseconds.

use crate::rom::asm::*;
use crate::rom::layout::{BDA_SEGMENT, STACK_TOP, bda, system};

mod menu;
mod order;

pub use order::emit_flat;

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
const DRIVE_PLACE: u32 = 5;
/// Nothing behind this one is booted.
const HALT: u32 = 6;
/// The ROM monitor, which only the menu offers.
const MONITOR: u32 = 7;
/// A wait that never ends or a menu that is not wanted, for what is in milliseconds else.
const NEVER: i32 = -1;

pub fn emit(rom: &mut Rom) {
    order::emit(rom);
    menu::emit(rom);
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
        // What the user has chosen comes first, once.
        xor(ax, ax);
        xchg(word_ptr(system::BOOT_CHOICE), ax);
        test(ax, ax);
        jnz(".kind");
        movzx(si, byte_ptr(system::BOOT_NEXT));
        mov(ax, si);
        cmp(al, byte_ptr(system::BOOT_COUNT));
        jae("boot.nothing");
        inc(byte_ptr(system::BOOT_NEXT));
        shl(si, 1);
        mov(ax, word_ptr(si + system::BOOT));
        label(".kind");
        dispatch_al(&[
            (FLOPPY as u8, ".floppy"),
            (HARD_DISK as u8, ".hard_disk"),
            (CD as u8, ".cd"),
            (ROM_ENTRY as u8, ".rom"),
            (DRIVE_PLACE as u8, ".place"),
            (HALT as u8, "boot.nothing"),
            (MONITOR as u8, "boot.monitor"),
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
        call("boot.disk");
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
        shl(si, 3);
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
        mov(ax, i32::from(BDA_SEGMENT));
        mov(ds, ax);
        mov(ds, word_ptr(bda::EBDA));
        mov(eax, dword_ptr(system::FAIL_WAIT));
        cmp(eax, NEVER);
        je("boot.monitor");
        mov(si, u32::from(rom.text("Restarting...\r\n")));
        call("boot.say");
        call("boot.deadline");
        label(".wait");
        sti();
        hlt();
        call("boot.due");
        jc(".wait");
        jmp("monitor.reboot");
        label("boot.monitor");
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

        // Boots the drive at place AH, as `disk.number` has it, or returns.
        label("boot.place");
        call_far("disk.number");
        jc(".no");
        cmp(dl, FIRST_CD);
        jae("boot.cd");
        jmp("boot.disk");
        label(".no");
        ret();

        // Makes hard disk DL the first one and boots it, or returns.
        label("boot.disk");
        call_far("disk.first");
        mov(dl, FIRST_HARD_DISK);
        mov(si, u32::from(rom.text("Booting from hard disk...\r\n")));
        jmp("boot.sector");
    }
}
