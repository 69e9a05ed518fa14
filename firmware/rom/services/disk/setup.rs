//! POST's part of INT 13h: finds the drives and fills in the tables that software looks at.
//!
//! Interrupt vectors 41h and 46h point to the fixed disk parameter tables of drives 80h and 81h (IBM Personal System/2 and
//! Personal Computer BIOS Interface Technical Reference, "Fixed Disk Parameter Table"), which are in the EBDA. A translated disk's
//! table has A0h in byte 3, the disk's own geometry behind it, and a checksum (BIOS Enhanced Disk Drive 3.0, annex B).

use super::tables::{drive, emulation, *};
use crate::rom::asm::*;
use crate::rom::layout::{BDA_SEGMENT, bda, ebda};

pub fn emit(rom: &mut Rom) {
    asm! { rom;
        // Called far by POST. All registers may change, but SS and SP.
        label("disk.setup");
        push(i32::from(BDA_SEGMENT));
        pop(ds);
        mov(ds, word_ptr(bda::EBDA));
        push(ds);
        pop(es);
        cld();
        mov(di, ebda::DISK);
        mov(cx, BYTES);
        xor(al, al);
        rep().stosb();
        mov(byte_ptr(emulation::ACTIVE), 0);
        call("ata.detect");
        call("virtio.detect");
        call("disk.tables");
        mov(al, byte_ptr(DISK_COUNT));
        push(i32::from(BDA_SEGMENT));
        pop(ds);
        mov(byte_ptr(bda::DISK_COUNT), al);
        mov(byte_ptr(bda::DISK_STATUS), 0);
        call("floppy.setup");
        retf();

        // Makes drive DL (80h and up) drive 80h, and those before it one more. Far; DS = EBDA; changes AX, BX, CX, DX, SI, DI.
        label("disk.first");
        movzx(bx, dl);
        sub(bl, 0x80);
        jz(".done");
        cmp(bl, byte_ptr(DISK_COUNT));
        jae(".done");
        add(bx, bx);
        mov(ax, word_ptr(bx + DISK_MAP));
        label(".next");
        mov(cx, word_ptr(bx + (DISK_MAP - 2)));
        mov(word_ptr(bx + DISK_MAP), cx);
        sub(bx, 2);
        jnz(".next");
        mov(word_ptr(DISK_MAP), ax);
        call("disk.tables");
        label(".done");
        retf();

        // The parameter tables of drives 80h and 81h.
        label("disk.tables");
        mov(si, word_ptr(DISK_MAP));
        mov(di, ebda::DISK_TABLES);
        mov(bx, 0x41 * 4);
        cmp(byte_ptr(DISK_COUNT), 1);
        jb(".done");
        call("disk.table");
        mov(si, word_ptr(DISK_MAP + 2));
        mov(di, ebda::DISK_TABLES + 16);
        mov(bx, 0x46 * 4);
        cmp(byte_ptr(DISK_COUNT), 2);
        jb(".done");
        call("disk.table");
        label(".done");
        ret();

        // The parameter table of the disk at SI, at DI; the vector at 0:BX points to it.
        label("disk.table");
        push(es);
        push(0);
        pop(es);
        mov(word_ptr(bx).es(), di);
        mov(word_ptr(bx + 2).es(), ds);
        pop(es);
        mov(ax, word_ptr(si + drive::LOGICAL_CYLINDERS));
        mov(word_ptr(di), ax);
        mov(ax, word_ptr(si + drive::LOGICAL_HEADS));
        mov(byte_ptr(di + 2), al);
        mov(word_ptr(di + 3), 0);
        // No write precompensation; control byte: retries, and more than eight heads.
        mov(word_ptr(di + 5), 0xFFFF);
        mov(byte_ptr(di + 7), 0);
        mov(cx, word_ptr(si + drive::HEADS));
        mov(al, 0xC0);
        cmp(cl, 8);
        jbe(".control");
        or(al, 0x08);
        label(".control");
        mov(byte_ptr(di + 8), al);
        mov(ax, word_ptr(si + drive::CYLINDERS));
        mov(word_ptr(di + 9), ax);
        mov(byte_ptr(di + 11), cl);
        mov(word_ptr(di + 12), ax);
        mov(al, byte_ptr(si + drive::LOGICAL_SECTORS));
        mov(byte_ptr(di + 14), al);
        mov(byte_ptr(di + 15), 0);
        cmp(byte_ptr(si + drive::TRANSLATION), 0);
        je(".done");
        mov(byte_ptr(di + 3), 0xA0);
        mov(al, byte_ptr(si + drive::SECTORS));
        mov(byte_ptr(di + 4), al);
        push(si);
        mov(si, di);
        mov(cx, 15);
        call("edd.checksum");
        pop(si);
        mov(byte_ptr(di + 15), al);
        label(".done");
        ret();
    }
}
