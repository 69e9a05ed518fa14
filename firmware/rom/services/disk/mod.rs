//! INT 13h: hard disks and CD-ROM drives on the two ATA channels (`ata`, `atapi`, `edd`), virtio disks (`virtio`), boot images on CDs (`eltorito`, `eltorito_calls`), and floppy drives
//! (`floppy`, `medium`, `fdc`).

mod ata;
mod atapi;
mod edd;
mod eltorito;
mod eltorito_calls;
mod fdc;
mod floppy;
mod int13;
mod medium;
mod setup;
pub mod tables;
mod virtio;

use crate::rom::asm::*;
use crate::rom::layout::{BDA_SEGMENT, bda};

pub fn emit(rom: &mut Rom) {
    int13::emit(rom);
    ata::emit(rom);
    atapi::emit(rom);
    virtio::emit(rom);
    edd::emit(rom);
    eltorito::emit(rom);
    eltorito_calls::emit(rom);
    floppy::emit(rom);
    medium::emit(rom);
    fdc::emit(rom);
    setup::emit(rom);
    asm! { rom;
        // DL = the number of the drive at place AH: twice the channel, plus one for the slave, and behind those the virtio disks. CF if
        // there is none. Far; changes AX, BX, CX, SI, DS.
        label("disk.number");
        push(i32::from(BDA_SEGMENT));
        pop(ds);
        mov(ds, word_ptr(bda::EBDA));
        mov(al, tables::drive::RECORD);
        mul(ah);
        add(ax, tables::DRIVES);
        mov(dl, 0x80);
        mov(si, tables::DISK_MAP);
        mov(cl, byte_ptr(tables::DISK_COUNT));
        call("disk.place");
        jnc(".found");
        mov(dl, 0xE0);
        mov(si, tables::CD_MAP);
        mov(cl, byte_ptr(tables::CD_COUNT));
        call("disk.place");
        label(".found");
        retf();
        // Counts DL up to the number of record AX in the CL words at SI.
        label("disk.place");
        sub(cl, 1);
        jb(".none");
        cmp(ax, word_ptr(si));
        je(".found");
        add(si, 2);
        inc(dl);
        jmp("disk.place");
        label(".none");
        stc();
        label(".found");
        ret();
    }
}
