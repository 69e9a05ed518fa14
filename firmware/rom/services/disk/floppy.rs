//! INT 13h, floppy drives 00h and 01h.
//!
//! | AH | |
//! |---|---|
//! | 00 | reset |
//! | 01 | AH = status of the last operation, 40:41 |
//! | 02, 03, 04 | read, write, verify AL sectors; CH, CL, DH = cylinder, sector, head; ES:BX = buffer. AL = sectors done |
//! | 05 | format a track; CH, DH = cylinder, head; ES:BX = four bytes for each sector |
//! | 08 | BL = type, CH, CL, DH = last cylinder, sector, head, DL = drives, ES:DI = parameter table |
//! | 15 | AH = 0 no drive, 1 a drive, 2 one with a change line |
//! | 16 | AH = 06 if the medium has been changed, 80h if there is none |
//! | 17, 18 | medium to be formatted: AL = DASD type; or CH, CL = last cylinder, sector, which gives ES:DI = parameter table |
//!
//! A request goes to the controller track by track. Interrupt vector 1Eh points to the parameter table, whose step rate, motor time and
//! format parameters are used. A sector that crosses a boundary of 64 KiB, which DMA cannot do, gives status 09h (IBM Personal
//! System/2 and Personal Computer BIOS Interface Technical Reference, INT 13h, diskette; IBM PC/AT Technical Reference).

use super::tables::{emulation, status, *};
use crate::rom::asm::*;
use crate::rom::layout::{BDA_SEGMENT, bda};

/// Where software that knows IBM's BIOS finds INT 13h for diskettes, and the parameter table.
const ENTRY: u16 = 0xEC59;
const TABLE: u16 = 0xEFC7;
/// Sectors of a track, gap for reading, gap for formatting: by type in CMOS.
const TYPES: [(u8, u8, u8); 7] = [
    (18, 0x1B, 0x6C),
    (9, 0x2A, 0x50),
    (15, 0x1B, 0x54),
    (9, 0x2A, 0x50),
    (18, 0x1B, 0x6C),
    (36, 0x1B, 0x54),
    (36, 0x1B, 0x54),
];
const TABLE_SIZE: u32 = 11;
/// 8237 modes: to memory, from memory; single transfers on channel 2.
const TO_MEMORY: i32 = 0x46;
const FROM_MEMORY: i32 = 0x4A;
const TRIES: i32 = 3;

/// The diskette parameter table of a drive: step rate and head times, motor time in ticks, sector size, sectors, gap, data length,
/// gap and filler for formatting, settle time in ms, motor start in eighths of a second.
fn table((sectors, gap, format_gap): (u8, u8, u8)) -> [u8; TABLE_SIZE as usize] {
    [0xDF, 0x02, 0x25, 2, sectors, gap, 0xFF, format_gap, 0xF6, 15, 8]
}

pub fn emit(rom: &mut Rom) {
    rom.entry(ENTRY, "int13");
    rom.fixed(TABLE, &table(TYPES[0]));
    setup(rom);
    functions(rom);
    transfer(rom);
    format(rom);
}

fn setup(rom: &mut Rom) {
    asm! { rom;
        // POST: what CMOS says there is. DS = BIOS data area, interrupts off.
        label("floppy.setup");
        mov(ax, ds);
        mov(es, ax);
        mov(ds, word_ptr(bda::EBDA));
        mov(byte_ptr(FLOPPY_RESET), 1);
        cmos_read(0x10);
        mov(ah, al);
        and(ah, 0x0F);
        shr(al, 4);
        mov(word_ptr(FLOPPY_TYPES), ax);
        // Types that are not known are 1.44 MB drives.
        xor(bx, bx);
        label(".drive");
        mov(al, byte_ptr(bx + FLOPPY_TYPES));
        test(al, al);
        jz(".none");
        cmp(al, 6);
        jbe(".known");
        mov(byte_ptr(bx + FLOPPY_TYPES), 4);
        label(".known");
        lea(cx, word_ptr(bx + 1));
        mov(byte_ptr(FLOPPY_COUNT), cl);
        // 80 tracks, change line, determined.
        mov(ah, 0x04);
        cmp(al, 1);
        je(".info");
        mov(ah, 0x07);
        label(".info");
        lea(cx, word_ptr(bx));
        shl(cl, 2);
        shl(ah, cl);
        or(byte_ptr(bda::FLOPPY_INFO).es(), ah);
        label(".none");
        inc(bx);
        cmp(bx, 2);
        jb(".drive");
        and(byte_ptr(bda::EQUIPMENT).es(), 0x3E);
        mov(al, byte_ptr(FLOPPY_COUNT));
        sub(al, 1);
        jb(".vector");
        shl(al, 6);
        or(al, 1);
        or(byte_ptr(bda::EQUIPMENT).es(), al);
        in_byte(0x21);
        and(al, 0xBF);
        out(0x21, al);
        label(".vector");
        push(0);
        pop(ds);
        mov(dword_ptr(0x1E * 4), 0xF000_0000 | u32::from(TABLE));
        ret();

        // AL = byte AL of the parameter table at interrupt vector 1Eh.
        label("floppy.parameter");
        push(ds);
        push(si);
        push(0);
        pop(ds);
        lds(si, dword_ptr(0x1E * 4));
        movzx(ax, al);
        add(si, ax);
        mov(al, byte_ptr(si));
        pop(si);
        pop(ds);
        ret();
        align(2);
        label("floppy.tables");
    }
    for drive in TYPES {
        asm! { rom; db(&table(drive)); }
    }
}

fn functions(rom: &mut Rom) {
    // What can be formatted: drive types (as a mask), last cylinder, sectors, media state, type whose parameter table fits.
    let formats: Vec<u8> = [
        [0x02, 39, 9, 0x93, 1],
        [0x02, 39, 8, 0x93, 1],
        [0x04, 39, 9, 0x74, 1],
        [0x04, 39, 8, 0x74, 1],
        [0x04, 79, 15, 0x15, 2],
        [0x78, 79, 9, 0x97, 3],
        [0x70, 79, 18, 0x17, 4],
        [0x60, 79, 36, 0xD7, 5],
        [0; 5],
    ]
    .concat();
    let formats = rom.bytes(formats);
    asm! { rom;
        // DS = EBDA; AX and DX as the caller's, except for drives behind an image.
        label("floppy.function");
        push(i32::from(BDA_SEGMENT));
        pop(es);
        movzx(bx, dl);
        cmp(ah, 0x08);
        je("floppy.parameters");
        cmp(ah, 0x01);
        je("floppy.last_status");
        cmp(bl, 2);
        jae(".no_drive");
        cmp(byte_ptr(bx + FLOPPY_TYPES), 0);
        je(".no_drive");
        dispatch_ah(&[
            (0x00, "floppy.reset"), (0x02, "floppy.transfer"), (0x03, "floppy.transfer"), (0x04, "floppy.transfer"),
            (0x05, "floppy.format"), (0x15, "floppy.type"), (0x16, "floppy.changed"),
            (0x17, "floppy.dasd"), (0x18, "floppy.media"),
        ]);
        label("floppy.invalid");
        mov(ah, status::INVALID);
        jmp("floppy.end");
        label("floppy.function.no_drive");
        cmp(ah, 0);
        je("floppy.ok");
        cmp(ah, 0x15);
        mov(ah, status::TIMEOUT);
        jne("floppy.end");
        mov(frame::ah(), 0);
        jmp("service.ok");

        label("floppy.ok");
        mov(ah, 0);
        // The end of a function: AH = status, which is also kept in the BDA. The motor turns for a while.
        label("floppy.end");
        push(i32::from(BDA_SEGMENT));
        pop(es);
        mov(byte_ptr(bda::FLOPPY_STATUS).es(), ah);
        cmp(byte_ptr(bda::FLOPPY_TIMEOUT).es(), 0xFF);
        jne(".still");
        mov(al, 2);
        mov(cl, ah);
        call("floppy.parameter");
        mov(ah, cl);
        mov(byte_ptr(bda::FLOPPY_TIMEOUT).es(), al);
        label(".still");
        mov(frame::ah(), ah);
        test(ah, ah);
        jz("service.ok");
        jmp("service.fail");

        label("floppy.reset");
        call("fdc.reset");
        jc("floppy.end");
        jmp("floppy.ok");

        label("floppy.last_status");
        mov(ah, byte_ptr(bda::FLOPPY_STATUS).es());
        mov(frame::ah(), ah);
        test(ah, ah);
        jz("service.ok");
        jmp("service.fail");

        label("floppy.parameters");
        mov(al, byte_ptr(FLOPPY_COUNT));
        // The image's drive counts, too.
        cmp(byte_ptr(emulation::ACTIVE), 0);
        je(".count");
        cmp(byte_ptr(emulation::DRIVE), 0);
        jne(".count");
        inc(al);
        label(".count");
        mov(frame::dl(), al);
        mov(frame::dh(), 0);
        mov(frame::cx(), 0);
        mov(frame::bx(), 0);
        mov(frame::al(), 0);
        cmp(bl, 2);
        jae("floppy.invalid");
        movzx(ax, byte_ptr(bx + FLOPPY_TYPES));
        test(al, al);
        jz("floppy.invalid");
        mov(frame::bx(), ax);
        mov(frame::dh(), 1);
        call("floppy.table");
        mov(al, byte_ptr(si + 4).cs());
        mov(frame::cl(), al);
        mov(frame::ch(), 79);
        cmp(frame::bl(), 1);
        jne("floppy.ok");
        mov(frame::ch(), 39);
        jmp("floppy.ok");

        // The caller's ES:DI = the parameter table for type AL, SI = its offset. Changes AX.
        label("floppy.table");
        mov(ah, TABLE_SIZE);
        mul(ah);
        add(ax, u32::from(rom.offset("floppy.tables")));
        mov(si, ax);
        mov(frame::di(), ax);
        mov(ax, cs);
        mov(frame::es(), ax);
        ret();

        label("floppy.type");
        mov(al, byte_ptr(bx + FLOPPY_TYPES));
        mov(byte_ptr(bda::FLOPPY_STATUS).es(), 0);
        mov(frame::ah(), 1);
        cmp(al, 1);
        je("service.ok");
        mov(frame::ah(), 2);
        jmp("service.ok");

        label("floppy.changed");
        call("floppy.select");
        jc("floppy.end");
        jmp("floppy.ok");

        label("floppy.dasd");
        mov(ah, 0x93);
        cmp(al, 1);
        je(".set");
        mov(ah, 0x74);
        cmp(al, 2);
        je(".set");
        mov(ah, 0x15);
        cmp(al, 3);
        je(".set");
        mov(ah, 0x97);
        cmp(al, 4);
        jne("floppy.invalid");
        label(".set");
        push(ax);
        call("floppy.present");
        pop(cx);
        jc("floppy.end");
        mov(byte_ptr(bx + bda::FLOPPY_MEDIA).es(), ch);
        mov(byte_ptr(bx + FLOPPY_SECTORS), 0);
        jmp("floppy.ok");

        label("floppy.media");
        call("floppy.present");
        jc("floppy.end");
        mov(cl, byte_ptr(bx + FLOPPY_TYPES));
        mov(al, 1);
        shl(al, cl);
        mov(dx, frame::cx());
        mov(si, u32::from(formats));
        label(".next");
        mov(ah, byte_ptr(si).cs());
        test(ah, ah);
        jz(".unknown");
        test(ah, al);
        jz(".other");
        cmp(dh, byte_ptr(si + 1).cs());
        jne(".other");
        cmp(dl, byte_ptr(si + 2).cs());
        je(".found");
        label(".other");
        add(si, 5);
        jmp(".next");
        label(".found");
        mov(al, byte_ptr(si + 3).cs());
        mov(byte_ptr(bx + bda::FLOPPY_MEDIA).es(), al);
        mov(byte_ptr(bx + FLOPPY_SECTORS), dl);
        mov(al, byte_ptr(si + 4).cs());
        call("floppy.table");
        jmp("floppy.ok");
        label(".unknown");
        mov(ah, status::MEDIA_TYPE);
        jmp("floppy.end");

        // Makes the drive ready whatever was in it before.
        label("floppy.present");
        call("floppy.select");
        jnc(".done");
        cmp(ah, status::CHANGED);
        je(".done");
        stc();
        label(".done");
        ret();
    }
}

fn transfer(rom: &mut Rom) {
    asm! { rom;
        label("floppy.transfer");
        // 02, 03, 04 are READ, WRITE, VERIFY.
        sub(ah, 2);
        mov(byte_ptr(REQUEST_ACTION), ah);
        mov(ah, 0);
        mov(word_ptr(REQUEST_COUNT), ax);
        mov(word_ptr(REQUEST_DONE), 0);
        mov(frame::al(), 0);
        test(ax, ax);
        jz("floppy.invalid");
        cmp(frame::dh(), 1);
        ja("floppy.invalid");
        call("floppy.place");
        call("floppy.ready");
        jc("floppy.end");
        label(".chunk");
        mov(byte_ptr(FLOPPY_TRIES), TRIES);
        // No more than the track has, no more than DMA can do at once.
        movzx(ax, byte_ptr(bx + FLOPPY_SECTORS));
        movzx(cx, byte_ptr(FLOPPY_SECTOR));
        jcxz(".not_there");
        sub(ax, cx);
        jae(".inside");
        label(".not_there");
        mov(ah, status::NOT_FOUND);
        jmp(".end");
        label(".inside");
        inc(ax);
        mov(cx, word_ptr(REQUEST_COUNT));
        sub(cx, word_ptr(REQUEST_DONE));
        cmp(ax, cx);
        jbe(".track");
        mov(ax, cx);
        label(".track");
        cmp(byte_ptr(REQUEST_ACTION), VERIFY);
        je(".size");
        mov(cx, word_ptr(FLOPPY_ADDRESS));
        neg(cx);
        // 0 is all of 64 KiB.
        jz(".size");
        shr(cx, 9);
        cmp(ax, cx);
        jbe(".size");
        mov(ax, cx);
        test(ax, ax);
        jnz(".size");
        mov(ah, status::DMA_BOUNDARY);
        jmp(".end");
        label(".size");
        mov(word_ptr(REQUEST_CHUNK), ax);
        label(".try");
        call("floppy.chunk");
        jnc(".done");
        cmp(ah, status::WRITE_PROTECTED);
        je(".end");
        dec(byte_ptr(FLOPPY_TRIES));
        jz(".end");
        // Another medium, or none, ends the request; otherwise the head starts again from track 0.
        call("fdc.lost");
        call("floppy.ready");
        jnc(".try");
        jmp(".end");
        label(".done");
        mov(ax, word_ptr(REQUEST_CHUNK));
        add(word_ptr(REQUEST_DONE), ax);
        movzx(eax, ax);
        shl(eax, 9);
        add(dword_ptr(FLOPPY_ADDRESS), eax);
        mov(ax, word_ptr(REQUEST_DONE));
        cmp(ax, word_ptr(REQUEST_COUNT));
        jae(".all");
        mov(al, byte_ptr(REQUEST_CHUNK));
        add(al, byte_ptr(FLOPPY_SECTOR));
        mov(byte_ptr(FLOPPY_SECTOR), al);
        cmp(al, byte_ptr(bx + FLOPPY_SECTORS));
        jbe(".chunk");
        mov(byte_ptr(FLOPPY_SECTOR), 1);
        xor(byte_ptr(FLOPPY_HEAD), 1);
        jnz(".chunk");
        inc(byte_ptr(FLOPPY_CYLINDER));
        jmp(".chunk");
        label(".all");
        mov(ah, 0);
        label(".end");
        mov(al, byte_ptr(REQUEST_DONE));
        mov(frame::al(), al);
        jmp("floppy.end");

        // Cylinder, head, sector and buffer of the caller. Changes EAX, ECX.
        label("floppy.place");
        mov(cx, frame::cx());
        mov(byte_ptr(FLOPPY_CYLINDER), ch);
        mov(byte_ptr(FLOPPY_SECTOR), cl);
        mov(al, frame::dh());
        mov(byte_ptr(FLOPPY_HEAD), al);
        movzx(eax, frame::es());
        shl(eax, 4);
        movzx(ecx, frame::bx());
        add(eax, ecx);
        mov(dword_ptr(FLOPPY_ADDRESS), eax);
        ret();

        // The head over the request's cylinder; drive and head in the command.
        label("floppy.seek");
        mov(al, byte_ptr(FLOPPY_CYLINDER));
        test(byte_ptr(bx + bda::FLOPPY_MEDIA).es(), 0x20);
        jz(".single");
        add(al, al);
        label(".single");
        call("fdc.seek");
        jc(".done");
        mov(al, byte_ptr(FLOPPY_HEAD));
        shl(al, 2);
        or(al, bl);
        mov(byte_ptr(FLOPPY_COMMAND + 1), al);
        label(".done");
        ret();

        // One attempt at the chunk.
        label("floppy.chunk");
        call("floppy.seek");
        jc(".failed");
        mov(al, byte_ptr(FLOPPY_CYLINDER));
        mov(byte_ptr(FLOPPY_COMMAND + 2), al);
        mov(al, byte_ptr(FLOPPY_HEAD));
        mov(byte_ptr(FLOPPY_COMMAND + 3), al);
        mov(al, byte_ptr(FLOPPY_SECTOR));
        mov(byte_ptr(FLOPPY_COMMAND + 4), al);
        // The last sector of the chunk is the last of the track, for the controller.
        add(al, byte_ptr(REQUEST_CHUNK));
        dec(al);
        mov(byte_ptr(FLOPPY_COMMAND + 6), al);
        mov(al, byte_ptr(REQUEST_ACTION));
        cmp(al, VERIFY);
        je("floppy.verify");
        mov(byte_ptr(FLOPPY_COMMAND + 5), 2);
        mov(byte_ptr(FLOPPY_COMMAND + 7), 0x1B);
        mov(byte_ptr(FLOPPY_COMMAND + 8), 0xFF);
        // READ DATA or WRITE DATA, MFM, one side.
        mov(byte_ptr(FLOPPY_COMMAND), 0x46);
        cmp(al, READ);
        mov(al, TO_MEMORY);
        je(".dma");
        mov(byte_ptr(FLOPPY_COMMAND), 0x45);
        mov(al, FROM_MEMORY);
        label(".dma");
        mov(cx, word_ptr(REQUEST_CHUNK));
        shl(cx, 9);
        call("fdc.dma");
        mov(cx, 9);
        call("fdc.finish");
        label(".failed");
        ret();
    }
}

fn format(rom: &mut Rom) {
    asm! { rom;
        label("floppy.format");
        cmp(frame::dh(), 1);
        ja("floppy.invalid");
        call("floppy.place");
        call("floppy.select");
        jc("floppy.end");
        // A medium that nobody has described is formatted as what it is.
        test(byte_ptr(bx + bda::FLOPPY_MEDIA).es(), 0x10);
        jnz(".described");
        call("floppy.ready");
        jc("floppy.end");
        label(".described");
        call("floppy.rate");
        mov(al, 4);
        call("floppy.parameter");
        movzx(cx, al);
        mov(ah, status::INVALID);
        jcxz(".end");
        shl(cx, 2);
        mov(ax, word_ptr(FLOPPY_ADDRESS));
        add(ax, cx);
        jnc(".fits");
        jz(".fits");
        mov(ah, status::DMA_BOUNDARY);
        jmp(".end");
        label(".fits");
        push(cx);
        call("floppy.seek");
        pop(cx);
        jc(".end");
        push(cx);
        mov(al, FROM_MEMORY);
        call("fdc.dma");
        pop(cx);
        // FORMAT TRACK, MFM: sector size, sectors, gap, filler.
        mov(byte_ptr(FLOPPY_COMMAND), 0x4D);
        shr(cx, 2);
        mov(byte_ptr(FLOPPY_COMMAND + 3), cl);
        mov(al, 3);
        call("floppy.parameter");
        mov(byte_ptr(FLOPPY_COMMAND + 2), al);
        mov(al, 7);
        call("floppy.parameter");
        mov(byte_ptr(FLOPPY_COMMAND + 4), al);
        mov(al, 8);
        call("floppy.parameter");
        mov(byte_ptr(FLOPPY_COMMAND + 5), al);
        mov(cx, 6);
        call("fdc.finish");
        jnc("floppy.ok");
        label(".end");
        jmp("floppy.end");
    }
}
