//! ATA disks: finding them, and moving sectors with programmed input and output.
//!
//! ATA/ATAPI-6 (T13/1410D): sections 7 (registers), 8 (commands IDENTIFY DEVICE, READ/WRITE SECTOR(S) and MULTIPLE with their
//! EXT forms, READ VERIFY, SET MULTIPLE MODE), 9.1 (signatures after reset), 9.5 and 9.6 (PIO protocols).
//!
//! Drives are driven with interrupts off (nIEN) and polled; a block of READ MULTIPLE goes to memory with one REP INSD. Bus
//! master DMA is left to operating systems: it would save little here, and needs a descriptor table below 4 GiB for every call.
//!
//! Internal routines take the drive's record in SI and the EBDA's segment in DS; ES:DI is the buffer. They may change EAX,
//! EBX, ECX, EDX and DI.

use super::tables::{drive, status, *};
use crate::rom::asm::*;

/// Status register bits.
const BSY: i32 = 0x80;
const DF: i32 = 0x20;
const DRQ: i32 = 0x08;
const ERR: i32 = 0x01;

/// Device control register: interrupts off, and soft reset. Bit 3 is set as it always was on AT controllers.
const NIEN: i32 = 0x0A;
const SRST: i32 = 0x0E;
const INTERRUPTS_ON: i32 = 0x08;

/// Status reads until a drive counts as hung: half a minute at the speed of an ISA bus.
const PATIENCE: i32 = 0x0200_0000;
/// Status reads that a drive gets to come out of reset when it may not be there at all.
const RESET_PATIENCE: i32 = 0x0010_0000;

/// Most sectors that one command moves.
const CHUNK: i32 = 128;
/// Most sectors that are asked for in a block of READ MULTIPLE.
const BEST_MULTIPLE: i32 = 16;

/// Where IDENTIFY data goes during POST.
pub const SCRATCH_SEGMENT: i32 = 0x07C0;

pub fn emit(rom: &mut Rom) {
    transfer(rom);
    registers(rom);
    detect(rom);
    identify(rom);
    geometry(rom);
}

/// The request: moves `REQUEST_COUNT` sectors from or to `REQUEST_LBA`.
fn transfer(rom: &mut Rom) {
    asm! { rom;
        // Carries out the request with ES:DI as buffer. Returns CF and the status in AH; REQUEST_DONE sectors have been moved.
        label("ata.transfer");
        mov(word_ptr(REQUEST_DONE), 0);
        mov(dx, word_ptr(si + drive::CONTROL));
        mov(al, NIEN);
        out(dx, al);
        label(".chunk");
        mov(ax, CHUNK);
        call("disk.chunk");
        jz(".done");
        call("ata.start");
        jc(".failed");
        cmp(byte_ptr(REQUEST_ACTION), VERIFY);
        je(".verified");
        label(".burst");
        call("ata.wait");
        jc(".failed");
        test(al, ERR | DF);
        jnz(".error");
        test(al, DRQ);
        jz(".error");
        movzx(cx, byte_ptr(REQUEST_BURST));
        cmp(cx, word_ptr(REQUEST_CHUNK));
        jbe(".move");
        mov(cx, word_ptr(REQUEST_CHUNK));
        label(".move");
        push(cx);
        shl(cx, 7);
        mov(dx, word_ptr(si + drive::PORT));
        cmp(byte_ptr(REQUEST_ACTION), WRITE);
        je(".write");
        rep().insd();
        jmp(".moved");
        label(".write");
        push(ds);
        push(si);
        push(es);
        pop(ds);
        mov(si, di);
        rep().outsd();
        mov(di, si);
        pop(si);
        pop(ds);
        label(".moved");
        call("disk.normalise");
        pop(cx);
        movzx(eax, cx);
        call("disk.advance");
        sub(word_ptr(REQUEST_CHUNK), cx);
        jnz(".burst");
        // The command ends here: a write may still fail.
        call("ata.wait");
        jc(".failed");
        test(al, ERR | DF);
        jnz(".error");
        jmp(".chunk");

        label(".verified");
        call("ata.wait");
        jc(".failed");
        test(al, ERR | DF);
        jnz(".error");
        movzx(eax, word_ptr(REQUEST_CHUNK));
        call("disk.advance");
        jmp(".chunk");

        label(".done");
        call("ata.finish");
        xor(ah, ah);
        ret();
        label(".error");
        call("ata.error");
        label(".failed");
        push(ax);
        call("ata.finish");
        pop(ax);
        stc();
        ret();

        // Lets the drive interrupt again. Reading the status drops an interrupt that the last command left behind.
        label("ata.finish");
        mov(dx, word_ptr(si + drive::PORT));
        add(dx, 7);
        in_(al, dx);
        mov(dx, word_ptr(si + drive::CONTROL));
        mov(al, INTERRUPTS_ON);
        out(dx, al);
        ret();

        // The INT 13h status, in AH, for a command that ended with ERR, DF or without the data asked for (status in AL).
        label("ata.error");
        mov(ah, status::CONTROLLER);
        test(al, ERR);
        jz(".known");
        mov(dx, word_ptr(si + drive::PORT));
        inc(dx);
        in_(al, dx);
        mov(ah, status::CRC);
        test(al, 0x40);
        jnz(".known");
        mov(ah, status::NOT_FOUND);
        test(al, 0x10);
        jnz(".known");
        mov(ah, status::BAD_SECTOR);
        test(al, 0x80);
        jnz(".known");
        mov(ah, status::INVALID);
        test(al, 0x04);
        jnz(".known");
        mov(ah, status::ADDRESS_MARK);
        test(al, 0x01);
        jnz(".known");
        mov(ah, status::CONTROLLER);
        label(".known");
        ret();
    }
}

/// Task file: waiting, selecting, starting commands.
fn registers(rom: &mut Rom) {
    let commands = rom.bytes(vec![0x20, 0x30, 0x40, 0xC4, 0xC5, 0x40, 0x24, 0x34, 0x42, 0x29, 0x39, 0x42]);
    asm! { rom;
        // Waits until the drive is not busy. Returns its status in AL; CF and AH = 80h if it stays busy.
        label("ata.wait");
        mov(ecx, PATIENCE);
        label("ata.wait_ecx");
        // The alternate status takes the 400 ns that the status may need to become valid.
        mov(dx, word_ptr(si + drive::CONTROL));
        in_(al, dx);
        mov(dx, word_ptr(si + drive::PORT));
        add(dx, 7);
        label(".read");
        in_(al, dx);
        test(al, BSY);
        jz(".ready");
        dec(ecx);
        jnz(".read");
        mov(ah, status::TIMEOUT);
        stc();
        label(".ready");
        ret();

        // Selects the drive with the device register's value in AL. CF and AH as from ata.wait.
        label("ata.select");
        push(ax);
        call("ata.wait");
        pop(cx);
        jc(".done");
        mov(al, cl);
        dec(dx);
        out(dx, al);
        call("ata.wait");
        label(".done");
        ret();

        // Starts the command for the current chunk. CF and AH as from ata.wait.
        label("ata.start");
        mov(byte_ptr(REQUEST_BURST), 1);
        // BX = index into the table of commands: action, +3 for multiple, +6 for 48 bits.
        movzx(bx, byte_ptr(REQUEST_ACTION));
        mov(al, byte_ptr(si + drive::MULTIPLE));
        cmp(al, 1);
        jbe(".single");
        mov(byte_ptr(REQUEST_BURST), al);
        add(bx, 3);
        label(".single");
        // 48 bits are needed if the chunk ends beyond block 0FFFFFFFh.
        mov(eax, dword_ptr(REQUEST_LBA));
        movzx(ecx, word_ptr(REQUEST_CHUNK));
        add(eax, ecx);
        jc(".wide");
        cmp(dword_ptr(REQUEST_LBA + 4), 0);
        jne(".wide");
        cmp(eax, 0x1000_0000);
        ja(".wide");
        test(byte_ptr(si + drive::FLAGS), drive::LBA);
        jz(".chs");
        mov(al, byte_ptr(REQUEST_LBA + 3));
        or(al, 0x40);
        or(al, byte_ptr(si + drive::SELECT));
        call("ata.select");
        jc("ata.start.out");
        mov(ecx, dword_ptr(REQUEST_LBA));
        label(".low");
        // ECX = sector number, cylinder low and high; DX = status register.
        sub(dx, 5);
        mov(al, byte_ptr(REQUEST_CHUNK));
        out(dx, al);
        inc(dx);
        mov(al, cl);
        out(dx, al);
        inc(dx);
        mov(al, ch);
        out(dx, al);
        inc(dx);
        shr(ecx, 16);
        mov(al, cl);
        out(dx, al);
        add(dx, 2);
        mov(al, byte_ptr(bx + i32::from(commands)).cs());
        mov(byte_ptr(REQUEST_COMMAND), al);
        out(dx, al);
        clc();
        label(".out");
        ret();

        label(".wide");
        add(bx, 6);
        mov(al, byte_ptr(si + drive::SELECT));
        or(al, 0x40);
        call("ata.select");
        jc(".out");
        // The registers hold two bytes each: the high ones are written first.
        sub(dx, 5);
        mov(al, byte_ptr(REQUEST_CHUNK + 1));
        out(dx, al);
        inc(dx);
        mov(al, byte_ptr(REQUEST_LBA + 3));
        out(dx, al);
        inc(dx);
        mov(al, byte_ptr(REQUEST_LBA + 4));
        out(dx, al);
        inc(dx);
        mov(al, byte_ptr(REQUEST_LBA + 5));
        out(dx, al);
        add(dx, 2);
        mov(ecx, dword_ptr(REQUEST_LBA));
        jmp(".low");

        // A drive without LBA: its own geometry.
        label(".chs");
        push(ebx);
        mov(eax, dword_ptr(REQUEST_LBA));
        xor(edx, edx);
        movzx(ecx, word_ptr(si + drive::SECTORS));
        div(ecx);
        inc(dx);
        mov(bl, dl);
        xor(edx, edx);
        movzx(ecx, word_ptr(si + drive::HEADS));
        div(ecx);
        // EAX = cylinder, DX = head, BL = sector.
        shl(eax, 8);
        mov(al, bl);
        pop(ebx);
        push(eax);
        mov(al, dl);
        or(al, byte_ptr(si + drive::SELECT));
        call("ata.select");
        pop(ecx);
        jc(".out");
        jmp(".low");
    }
}

/// POST: looks at both channels.
fn detect(rom: &mut Rom) {
    asm! { rom;
        // Finds the drives, fills in their records. DS = EBDA, all registers may change.
        label("ata.detect");
        mov(word_ptr(DISK_COUNT), 0);
        mov(si, DRIVES);
        mov(bx, 0x1F0);
        mov(cx, 0x3F6);
        mov(dl, 0);
        call("ata.channel");
        mov(bx, 0x170);
        mov(cx, 0x376);
        mov(dl, 1);
        call("ata.channel");
        ret();

        // One channel: BX = command block, CX = control, DL = its number, SI = the first of its two records, moved on.
        label("ata.channel");
        push(si);
        mov(ah, 0xA0);
        label(".fill");
        mov(byte_ptr(si + drive::KIND), 0);
        mov(byte_ptr(si + drive::FLAGS), 0);
        mov(byte_ptr(si + drive::LOCKS), 0);
        mov(word_ptr(si + drive::PORT), bx);
        mov(word_ptr(si + drive::CONTROL), cx);
        mov(byte_ptr(si + drive::SELECT), ah);
        mov(byte_ptr(si + drive::CHANNEL), dl);
        mov(byte_ptr(si + drive::MULTIPLE), 1);
        add(si, drive::RECORD);
        add(ah, 0x10);
        cmp(ah, 0xC0);
        jne(".fill");
        pop(si);
        // Nothing drives the bus of a channel that is not there.
        lea(dx, word_ptr(bx + 7));
        in_(al, dx);
        cmp(al, 0xFF);
        je(".absent");
        mov(dx, cx);
        mov(al, SRST);
        out(dx, al);
        // At least 5 us: five accesses to the bus.
        in_(al, dx);
        in_(al, dx);
        in_(al, dx);
        in_(al, dx);
        in_(al, dx);
        mov(al, NIEN);
        out(dx, al);
        in_(al, dx);
        in_(al, dx);
        call("ata.signature");
        add(si, drive::RECORD);
        call("ata.signature");
        sub(si, drive::RECORD);
        call("ata.found");
        add(si, drive::RECORD);
        call("ata.found");
        mov(dx, word_ptr(si + drive::CONTROL));
        mov(al, INTERRUPTS_ON);
        out(dx, al);
        add(si, drive::RECORD);
        ret();
        label(".absent");
        add(si, drive::RECORD * 2);
        ret();

        // What the drive's registers say after reset, for the record at SI.
        label("ata.signature");
        mov(dx, word_ptr(si + drive::PORT));
        add(dx, 6);
        mov(al, byte_ptr(si + drive::SELECT));
        out(dx, al);
        mov(ecx, RESET_PATIENCE);
        call("ata.wait_ecx");
        jc(".nothing");
        sub(dx, 5);
        in_(al, dx);
        cmp(al, 1);
        jne(".nothing");
        inc(dx);
        in_(al, dx);
        cmp(al, 1);
        jne(".nothing");
        inc(dx);
        in_(al, dx);
        mov(cl, al);
        inc(dx);
        in_(al, dx);
        mov(ch, al);
        mov(al, drive::ATA);
        test(cx, cx);
        jz(".something");
        mov(al, drive::ATAPI);
        cmp(cx, 0xEB14);
        je(".something");
        label(".nothing");
        mov(al, 0);
        label(".something");
        mov(byte_ptr(si + drive::KIND), al);
        ret();

        // Enters the drive into the tables if it answers to IDENTIFY.
        label("ata.found");
        cmp(byte_ptr(si + drive::KIND), 0);
        je(".none");
        call("ata.identify");
        jc(".not");
        mov(bx, DISK_MAP);
        mov(di, DISK_COUNT);
        cmp(byte_ptr(si + drive::KIND), drive::ATA);
        je(".enter");
        mov(bx, CD_MAP);
        mov(di, CD_COUNT);
        label(".enter");
        movzx(ax, byte_ptr(di));
        inc(byte_ptr(di));
        add(bx, ax);
        add(bx, ax);
        mov(word_ptr(bx), si);
        label(".none");
        ret();
        label(".not");
        mov(byte_ptr(si + drive::KIND), 0);
        ret();
    }
}

/// IDENTIFY DEVICE and IDENTIFY PACKET DEVICE.
fn identify(rom: &mut Rom) {
    asm! { rom;
        // Fills in the record at SI. CF if the drive does not answer.
        label("ata.identify");
        mov(al, byte_ptr(si + drive::SELECT));
        call("ata.select");
        jc(".failed");
        mov(al, 0xEC);
        cmp(byte_ptr(si + drive::KIND), drive::ATA);
        je(".command");
        mov(al, 0xA1);
        label(".command");
        out(dx, al);
        call("ata.wait");
        jc(".failed");
        test(al, ERR | DF);
        jnz(".failed");
        test(al, DRQ);
        jnz(".data");
        label(".failed");
        stc();
        ret();
        label(".data");
        push(SCRATCH_SEGMENT);
        pop(es);
        xor(di, di);
        mov(cx, 256);
        mov(dx, word_ptr(si + drive::PORT));
        rep().insw();
        // Model: words 27-46, two characters each, the first in the high byte; trailing blanks go.
        lea(bx, word_ptr(si + drive::MODEL));
        mov(di, 27 * 2);
        mov(cx, 20);
        label(".model");
        mov(ax, word_ptr(di).es());
        xchg(al, ah);
        mov(word_ptr(bx), ax);
        add(bx, 2);
        add(di, 2);
        loop_(".model");
        label(".trim");
        mov(byte_ptr(bx), 0);
        dec(bx);
        lea(ax, word_ptr(si + drive::MODEL));
        cmp(bx, ax);
        jb(".trimmed");
        cmp(byte_ptr(bx), 0x20);
        jbe(".trim");
        label(".trimmed");
        cmp(byte_ptr(si + drive::KIND), drive::ATAPI);
        je(".packet");
        mov(word_ptr(si + drive::BLOCK_SIZE), 512);
        mov(ax, word_ptr(2).es());
        mov(word_ptr(si + drive::CYLINDERS), ax);
        mov(ax, word_ptr(3 * 2).es());
        mov(word_ptr(si + drive::HEADS), ax);
        mov(ax, word_ptr(6 * 2).es());
        mov(word_ptr(si + drive::SECTORS), ax);
        // A drive without a geometry gets one, since software divides by it.
        cmp(word_ptr(si + drive::HEADS), 0);
        je(".no_geometry");
        test(ax, ax);
        jnz(".capacity");
        label(".no_geometry");
        mov(word_ptr(si + drive::HEADS), 16);
        mov(word_ptr(si + drive::SECTORS), 63);
        label(".capacity");
        test(word_ptr(49 * 2).es(), 0x200);
        jz(".chs_capacity");
        or(byte_ptr(si + drive::FLAGS), drive::LBA);
        mov(eax, dword_ptr(60 * 2).es());
        xor(edx, edx);
        test(word_ptr(83 * 2).es(), 0x400);
        jz(".blocks");
        or(byte_ptr(si + drive::FLAGS), drive::LBA48);
        mov(eax, dword_ptr(100 * 2).es());
        mov(edx, dword_ptr(102 * 2).es());
        jmp(".blocks");
        label(".chs_capacity");
        movzx(eax, word_ptr(si + drive::CYLINDERS));
        movzx(edx, word_ptr(si + drive::HEADS));
        imul_2(eax, edx);
        movzx(edx, word_ptr(si + drive::SECTORS));
        mul(edx);
        label(".blocks");
        mov(dword_ptr(si + drive::BLOCKS), eax);
        mov(dword_ptr(si + drive::BLOCKS + 4), edx);
        mov(al, byte_ptr(47 * 2).es());
        call("ata.set_multiple");
        call("ata.translate");
        clc();
        ret();
        label(".packet");
        mov(word_ptr(si + drive::BLOCK_SIZE), 2048);
        mov(dword_ptr(si + drive::BLOCKS), -1);
        mov(dword_ptr(si + drive::BLOCKS + 4), -1);
        clc();
        ret();

        // SET MULTIPLE MODE with the most sectors, AL, that the drive offers, up to our own limit. The record says what it agreed to.
        label("ata.set_multiple");
        mov(byte_ptr(si + drive::MULTIPLE), 1);
        cmp(al, BEST_MULTIPLE);
        jbe(".offer");
        mov(al, BEST_MULTIPLE);
        label(".offer");
        cmp(al, 1);
        jbe(".done");
        push(ax);
        mov(al, byte_ptr(si + drive::SELECT));
        call("ata.select");
        pop(bx);
        jc(".done");
        mov(al, bl);
        sub(dx, 5);
        out(dx, al);
        add(dx, 5);
        mov(al, 0xC6);
        out(dx, al);
        call("ata.wait");
        jc(".done");
        test(al, ERR | DF);
        jnz(".done");
        mov(byte_ptr(si + drive::MULTIPLE), bl);
        label(".done");
        ret();
    }
}

/// The geometry that INT 13h works with.
fn geometry(rom: &mut Rom) {
    asm! { rom;
        // CMOS register 39h says how QEMU wants each of four disks translated, two bits each. If it says nothing, or if what
        // it says would hide cylinders, the usual rule decides: none up to 1024 cylinders, "large" up to 131072 tracks, LBA.
        label("ata.translate");
        mov(al, 0x39);
        out(0x70, al);
        in_(al, 0x71);
        mov(cl, byte_ptr(si + drive::CHANNEL));
        add(cl, cl);
        cmp(byte_ptr(si + drive::SELECT), 0xA0);
        je(".master");
        inc(cl);
        label(".master");
        add(cl, cl);
        shr(al, cl);
        and(al, 3);
        jnz(".decided");
        // Also for disks of which CMOS says nothing, with AL = 0.
        label(".usual");
        cmp(word_ptr(si + drive::CYLINDERS), 1024);
        jbe(".decided");
        movzx(eax, word_ptr(si + drive::CYLINDERS));
        movzx(ecx, word_ptr(si + drive::HEADS));
        imul_2(ecx, eax);
        mov(al, 2);
        cmp(ecx, 131_072);
        jbe(".decided");
        mov(al, 1);
        label(".decided");
        mov(byte_ptr(si + drive::TRANSLATION), al);
        cmp(al, 1);
        je(".lba");
        movzx(ebx, word_ptr(si + drive::CYLINDERS));
        movzx(ecx, word_ptr(si + drive::HEADS));
        mov(dx, word_ptr(si + drive::SECTORS));
        test(al, al);
        jz(".store");
        cmp(al, 3);
        jne(".halve");
        // Revised "large": 15 heads, so that doubling ends at 240 and not at 256.
        cmp(cx, 16);
        jne(".halve");
        cmp(bx, 61_439);
        jbe(".fifteen");
        mov(bx, 61_439);
        label(".fifteen");
        push(edx);
        mov(eax, ebx);
        shl(eax, 4);
        xor(edx, edx);
        mov(ecx, 15);
        div(ecx);
        mov(ebx, eax);
        pop(edx);
        label(".halve");
        cmp(ebx, 1024);
        jbe(".store");
        cmp(cx, 127);
        ja(".store");
        shr(ebx, 1);
        shl(cx, 1);
        jmp(".halve");

        label(".lba");
        // 63 sectors, and the fewest of 16, 32, 64, 128, 255 heads that leave 1024 cylinders or less.
        mov(eax, dword_ptr(si + drive::BLOCKS));
        mov(ecx, 255);
        cmp(dword_ptr(si + drive::BLOCKS + 4), 0);
        jne(".most");
        cmp(eax, 63 * 255 * 1024);
        jae(".most");
        xor(edx, edx);
        mov(ebx, 63);
        div(ebx);
        // EAX = tracks.
        mov(ecx, 16);
        label(".heads");
        mov(edx, ecx);
        shl(edx, 10);
        cmp(eax, edx);
        jbe(".enough");
        shl(cx, 1);
        cmp(cx, 256);
        jb(".heads");
        mov(cx, 255);
        label(".enough");
        xor(edx, edx);
        div(ecx);
        mov(ebx, eax);
        jmp(".lba_store");
        label(".most");
        mov(ebx, 1024);
        label(".lba_store");
        mov(dx, 63);
        label(".store");
        cmp(ebx, 1024);
        jbe(".fits");
        mov(bx, 1024);
        label(".fits");
        mov(word_ptr(si + drive::LOGICAL_CYLINDERS), bx);
        mov(word_ptr(si + drive::LOGICAL_HEADS), cx);
        mov(word_ptr(si + drive::LOGICAL_SECTORS), dx);
        ret();
    }
}
