//! Booting from CD-ROM, and the drive that a boot image on a CD stands for.
//!
//! "El Torito" Bootable CD-ROM Format Specification 1.0 (Phoenix, IBM, 1995): section 2 (boot catalog), 3 (media types), 4 and 5 (INT 13h
//! and booting). Only the catalog's initial entry is booted; section entries are for other platforms, or for software to choose from by the
//! functions in `eltorito_calls`.

use super::tables::{drive, emulation, status, *};
use crate::rom::asm::*;
use crate::rom::layout::{BDA_SEGMENT, bda};

/// Where volume descriptor and catalog are read to while booting: 800h to FFFh.
const SCRATCH: i32 = 0x80;
/// The block of the boot record volume descriptor.
pub const BOOT_RECORD: i32 = 17;
/// Where an image without load segment goes.
pub const DEFAULT_SEGMENT: i32 = 0x07C0;

pub fn emit(rom: &mut Rom) {
    boot(rom);
    emulate(rom);
    transfer(rom);
}

fn boot(rom: &mut Rom) {
    let identifier = rom.bytes(b"\0CD001\x01EL TORITO SPECIFICATION\0".to_vec());
    asm! { rom;
        // Loads the boot image of CD-ROM drive DL (E0h and up), far call. Returns CF clear, DL = the drive to boot with, BX = the
        // segment of its code; or CF and AH = status, 0 if the CD is not bootable. May change all registers but BP, SS and SP.
        label("eltorito.boot");
        push(i32::from(BDA_SEGMENT));
        pop(ds);
        mov(ds, word_ptr(bda::EBDA));
        call("disk.find");
        mov(ah, status::INVALID);
        jc(".out");
        mov(word_ptr(emulation::CD), si);
        mov(byte_ptr(emulation::DRIVE), dl);
        // A disc that has just been put in takes a while.
        mov(bh, 8);
        label(".ready");
        push(bx);
        call("atapi.test_ready");
        pop(bx);
        jnc(".read");
        cmp(ah, status::NOT_READY);
        jne(".soon");
        // Spinning up: half a minute at most.
        call("disk.pause");
        dec(bh);
        jnz(".ready");
        jmp(".error");
        label(".soon");
        sub(bh, 2);
        ja(".ready");
        label(".error");
        stc();
        label(".out");
        retf();

        label(".read");
        mov(eax, BOOT_RECORD);
        call("eltorito.block");
        jc(".out");
        // The identifiers, up to the first of the zeros that fill the second one.
        push(si);
        mov(si, u32::from(identifier));
        mov(cx, 31);
        xor(di, di);
        label(".compare");
        mov(al, byte_ptr(si).cs());
        inc(si);
        cmp(al, byte_ptr(di).es());
        jne(".differs");
        inc(di);
        loop_(".compare");
        // All equal: INC has changed ZF.
        test(cx, cx);
        label(".differs");
        pop(si);
        jne(".unbootable");
        mov(eax, dword_ptr(0x47).es());
        call("eltorito.block");
        jc(".out");
        // Validation entry: header, key, and a sum of zero.
        cmp(byte_ptr(0).es(), 1);
        jne(".unbootable");
        cmp(word_ptr(0x1E).es(), 0xAA55);
        jne(".unbootable");
        xor(ax, ax);
        xor(di, di);
        mov(cx, 16);
        label(".sum");
        add(ax, word_ptr(di).es());
        add(di, 2);
        loop_(".sum");
        test(ax, ax);
        jnz(".unbootable");
        // Initial entry.
        cmp(byte_ptr(0x20).es(), 0x88);
        je(".bootable");
        label(".unbootable");
        xor(ah, ah);
        stc();
        retf();

        label(".bootable");
        mov(byte_ptr(emulation::SIZE), PACKET_SIZE);
        mov(al, byte_ptr(0x21).es());
        and(al, 0x0F);
        cmp(al, 4);
        ja(".unbootable");
        mov(byte_ptr(emulation::MEDIA), al);
        mov(bx, word_ptr(0x22).es());
        test(bx, bx);
        jnz(".segment");
        mov(bx, DEFAULT_SEGMENT);
        label(".segment");
        mov(word_ptr(emulation::LOAD_SEGMENT), bx);
        mov(cx, word_ptr(0x26).es());
        test(cx, cx);
        jnz(".sectors");
        // No image loads nothing; at least the first sector is there.
        inc(cx);
        label(".sectors");
        mov(word_ptr(emulation::LOAD_SECTORS), cx);
        mov(eax, dword_ptr(0x28).es());
        mov(dword_ptr(emulation::IMAGE_LBA), eax);
        mov(word_ptr(emulation::BUFFER), 0);
        mov(al, byte_ptr(si + drive::CHANNEL));
        mov(byte_ptr(emulation::CONTROLLER), al);
        xor(ax, ax);
        cmp(byte_ptr(si + drive::SELECT), 0xA0);
        setne(al);
        mov(word_ptr(emulation::DEVICE), ax);
        mov(eax, dword_ptr(emulation::IMAGE_LBA));
        call("eltorito.load");
        jc("eltorito.boot.out");
        mov(byte_ptr(emulation::BOOTED), 1);
        cmp(byte_ptr(emulation::MEDIA), 0);
        je(".loaded");
        mov(eax, dword_ptr(emulation::IMAGE_LBA));
        call("eltorito.partition");
        jc("eltorito.boot.out");
        call("eltorito.emulate");
        label(".loaded");
        mov(dl, byte_ptr(emulation::DRIVE));
        mov(bx, word_ptr(emulation::LOAD_SEGMENT));
        clc();
        retf();

        // Reads the first CX sectors of 512 bytes of the image at block EAX to BX:0. CF and AH as from atapi.read. Changes all but BX, SI, BP.
        label("eltorito.load");
        push(bx);
        movzx(edx, cx);
        shl(edx, 9);
        mov(dword_ptr(REQUEST_BYTES), edx);
        mov(dword_ptr(REQUEST_SKIP), 0);
        add(cx, 3);
        shr(cx, 2);
        mov(es, bx);
        xor(di, di);
        call("atapi.read");
        pop(bx);
        ret();

        // Reads the end of the first sector of the image at block EAX, with its partitions, to `PARTITIONS`. CF and AH as from atapi.read.
        // Changes all but SI, BP.
        label("eltorito.partition");
        mov(dword_ptr(REQUEST_BYTES), PARTITIONS_SIZE);
        mov(dword_ptr(REQUEST_SKIP), 512 - PARTITIONS_SIZE);
        mov(cx, 1);
        push(ds);
        pop(es);
        mov(di, PARTITIONS);
        jmp("atapi.read");

        // Reads block EAX to the scratch segment, which is left in ES. CF and AH as from atapi.read.
        label("eltorito.block");
        push(dx);
        push(SCRATCH);
        pop(es);
        xor(di, di);
        mov(dword_ptr(REQUEST_SKIP), 0);
        mov(dword_ptr(REQUEST_BYTES), 2048);
        mov(cx, 1);
        call("atapi.read");
        push(SCRATCH);
        pop(es);
        pop(dx);
        ret();
    }
}

fn emulate(rom: &mut Rom) {
    asm! { rom;
        // Starts the emulation that the specification packet describes; `PARTITIONS` has been read. Changes all but BP.
        label("eltorito.emulate");
        mov(si, EMULATED);
        mov(byte_ptr(si + drive::KIND), drive::IMAGE);
        mov(word_ptr(si + drive::BLOCK_SIZE), 512);
        mov(byte_ptr(si + drive::TRANSLATION), 0);
        mov(word_ptr(si + drive::MODEL), 0);
        mov(byte_ptr(emulation::DRIVE), 0);
        mov(bx, 80);
        mov(cx, 2);
        mov(dx, 15);
        mov(al, byte_ptr(emulation::MEDIA));
        cmp(al, 2);
        jb(".geometry");
        mov(dx, 18);
        je(".geometry");
        mov(dx, 36);
        cmp(al, 4);
        jb(".geometry");
        // A hard disk: its first partition ends where the disk does.
        mov(byte_ptr(emulation::DRIVE), 0x80);
        movzx(cx, byte_ptr(PARTITIONS + 5));
        inc(cx);
        mov(bh, byte_ptr(PARTITIONS + 6));
        mov(dl, bh);
        and(dx, 0x3F);
        shr(bh, 6);
        mov(bl, byte_ptr(PARTITIONS + 7));
        inc(bx);
        label(".geometry");
        mov(word_ptr(si + drive::CYLINDERS), bx);
        mov(word_ptr(si + drive::LOGICAL_CYLINDERS), bx);
        mov(word_ptr(si + drive::HEADS), cx);
        mov(word_ptr(si + drive::LOGICAL_HEADS), cx);
        mov(word_ptr(si + drive::SECTORS), dx);
        mov(word_ptr(si + drive::LOGICAL_SECTORS), dx);
        // The packet has them as INT 13h AH=08h does.
        lea(ax, word_ptr(bx - 1));
        mov(byte_ptr(emulation::CYLINDER), al);
        shl(ah, 6);
        or(ah, dl);
        mov(byte_ptr(emulation::SECTOR), ah);
        mov(al, cl);
        dec(al);
        mov(byte_ptr(emulation::HEAD), al);
        movzx(eax, bx);
        movzx(ecx, cx);
        movzx(edx, dx);
        imul_2(eax, ecx);
        imul_2(eax, edx);
        mov(dword_ptr(si + drive::BLOCKS), eax);
        mov(dword_ptr(si + drive::BLOCKS + 4), 0);
        cmp(byte_ptr(emulation::ACTIVE), 0);
        jne(".counted");
        mov(byte_ptr(emulation::ACTIVE), 1);
        mov(al, 1);
        call("eltorito.count");
        label(".counted");
        ret();

        // One drive more or less in the BDA: AL = 1 or -1. Keeps SI.
        label("eltorito.count");
        push(es);
        push(i32::from(BDA_SEGMENT));
        pop(es);
        cmp(byte_ptr(emulation::DRIVE), 0);
        je(".floppy");
        add(byte_ptr(bda::DISK_COUNT).es(), al);
        jmp(".done");
        label(".floppy");
        add(al, byte_ptr(FLOPPY_COUNT));
        cmp(al, byte_ptr(FLOPPY_COUNT));
        ja(".set");
        mov(al, byte_ptr(FLOPPY_COUNT));
        label(".set");
        and(byte_ptr(bda::EQUIPMENT).es(), 0x3E);
        test(al, al);
        jz(".done");
        dec(al);
        and(al, 3);
        shl(al, 6);
        or(al, 1);
        or(byte_ptr(bda::EQUIPMENT).es(), al);
        label(".done");
        pop(es);
        ret();
    }
}

fn transfer(rom: &mut Rom) {
    asm! { rom;
        // A request on the emulated drive: sectors of 512 bytes of the image. ES:DI = buffer. CF and AH as from disk.request.
        label("eltorito.transfer");
        movzx(ecx, word_ptr(REQUEST_COUNT));
        test(cx, cx);
        jz(".nothing");
        mov(eax, ecx);
        shl(eax, 9);
        mov(dword_ptr(REQUEST_BYTES), eax);
        mov(eax, dword_ptr(REQUEST_LBA));
        mov(edx, eax);
        and(edx, 3);
        add(cx, dx);
        shl(edx, 9);
        mov(dword_ptr(REQUEST_SKIP), edx);
        add(cx, 3);
        shr(cx, 2);
        shr(eax, 2);
        add(eax, dword_ptr(emulation::IMAGE_LBA));
        cmp(byte_ptr(REQUEST_ACTION), VERIFY);
        jne(".read");
        mov(dword_ptr(REQUEST_BYTES), 0);
        label(".read");
        push(si);
        mov(si, word_ptr(emulation::CD));
        call("atapi.read");
        pop(si);
        jc(".failed");
        mov(cx, word_ptr(REQUEST_COUNT));
        mov(word_ptr(REQUEST_DONE), cx);
        label(".nothing");
        xor(ah, ah);
        label(".failed");
        ret();
    }
}
