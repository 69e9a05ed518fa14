//! INT 13h, disks: which drive, which function; hard disks and CD-ROM drives. Floppy drives' functions are in `floppy`.
//!
//! Drives 00h and 01h are floppy drives, 80h and up hard disks in the order in which `ata` and then `virtio` find them, E0h and up
//! CD-ROM drives.
//! After a boot from a CD with an image (`eltorito`), the image is 00h or 80h and the real drives follow. INT 40h has the real diskette drives.
//!
//! | AH | hard disk |
//! |---|---|
//! | 00, 0D | reset |
//! | 01 | AH = status of the last operation |
//! | 02, 03, 04 | read, write, verify AL sectors; CH, CL = cylinder and sector, DH = head, ES:BX = buffer. AL = sectors done |
//! | 05 | format a track: nothing to do on a drive of today |
//! | 08 | CH, CL = last cylinder and sector, DH = last head, DL = number of drives |
//! | 09, 0C, 10, 11, 14 | set parameters, seek, test ready, recalibrate, diagnose |
//! | 15 | AH = 3, CX:DX = sectors |
//! | 41-49, 4E | EDD extensions: `edd` |
//! | 4A-4D | El Torito: `eltorito_calls` |
//!
//! Returns CF and the status in AH, which is also kept in 40:74 (IBM Personal System/2 and Personal Computer BIOS Interface
//! Technical Reference, INT 13h).

use super::tables::{drive, emulation, status, *};
use crate::rom::asm::*;
use crate::rom::layout::{BDA_SEGMENT, bda};

/// Most sectors that functions 02 to 04 accept.
const MOST_SECTORS: i32 = 128;

pub fn emit(rom: &mut Rom) {
    entry(rom);
    functions(rom);
    requests(rom);
    rom.entry(0xE3FE, "int13");
}

fn entry(rom: &mut Rom) {
    asm! { rom;
        service("int13");
        sti();
        mov(ds, word_ptr(bda::EBDA));
        cmp(ah, 0x4A);
        jb(".drive");
        cmp(ah, 0x4D);
        jbe("eltorito.function");
        label(".drive");
        cmp(byte_ptr(emulation::ACTIVE), 0);
        je(".real");
        cmp(dl, byte_ptr(emulation::DRIVE));
        jne(".others");
        mov(si, EMULATED);
        jmp("disk.function");
        label(".others");
        // Disks or diskette drives, whichever the image is, count from the one after it. CD-ROM drives stay where they are.
        cmp(dl, 0xE0);
        jae(".real");
        mov(bl, dl);
        xor(bl, byte_ptr(emulation::DRIVE));
        test(bl, 0x80);
        jnz(".real");
        dec(dl);
        label(".real");
        cmp(dl, 0x80);
        jb("floppy.function");
        call("disk.find");
        jnc("disk.function");
        mov(ah, status::INVALID);
        // Function 15h tells of a drive that is not there by AH = 0.
        cmp(frame::ah(), 0x15);
        jne("disk.end");
        mov(frame::ax(), 0);
        mov(frame::cx(), 0);
        mov(frame::dx(), 0);
        jmp("service.fail");
        vector(0x13, "int13");

        // Diskette drives alone, and those that are there, as programs call them that get round what hooks INT 13h.
        service("int40");
        sti();
        mov(ds, word_ptr(bda::EBDA));
        jmp("floppy.function");
        vector(0x40, "int40");

        // The record of drive DL, in SI. CF if there is none. Changes BX.
        label("disk.find");
        movzx(bx, dl);
        cmp(bl, 0xE0);
        jae(".cd");
        sub(bl, 0x80);
        cmp(bl, byte_ptr(DISK_COUNT));
        jae(".none");
        add(bx, bx);
        mov(si, word_ptr(bx + DISK_MAP));
        clc();
        ret();
        label(".cd");
        sub(bl, 0xE0);
        cmp(bl, byte_ptr(CD_COUNT));
        jae(".none");
        add(bx, bx);
        mov(si, word_ptr(bx + CD_MAP));
        clc();
        ret();
        label(".none");
        stc();
        ret();

        // The ends of functions: AH = status, which is also kept in the BDA.
        label("disk.ok");
        xor(ah, ah);
        label("disk.end");
        push(i32::from(BDA_SEGMENT));
        pop(ds);
        mov(byte_ptr(bda::DISK_STATUS), ah);
        mov(frame::ah(), ah);
        test(ah, ah);
        jz("service.ok");
        jmp("service.fail");
    }
}

fn functions(rom: &mut Rom) {
    asm! { rom;
        // DS = EBDA, SI = record, AX and DX as the caller's, except for the number of an emulated drive.
        label("disk.function");
        dispatch_ah(&[
            (0x02, "disk.read"), (0x03, "disk.write"), (0x04, "disk.verify"),
            (0x42, "edd.read"), (0x43, "edd.write"), (0x44, "edd.verify"),
            (0x00, "disk.reset"), (0x0D, "disk.reset"), (0x01, "disk.last_status"), (0x08, "disk.parameters"),
            (0x15, "disk.type"), (0x05, "disk.ok"), (0x09, "disk.ok"), (0x0C, "disk.seek"), (0x10, "disk.ready"),
            (0x11, "disk.ok"), (0x14, "disk.diagnose"),
            (0x41, "edd.check"), (0x45, "edd.lock"), (0x46, "edd.eject"), (0x47, "edd.seek"), (0x48, "edd.parameters"),
            (0x49, "edd.changed"), (0x4E, "edd.hardware"),
        ]);
        mov(ah, status::INVALID);
        jmp("disk.end");

        label("disk.reset");
        cmp(byte_ptr(si + drive::KIND), drive::ATA);
        jne("disk.ok");
        call("ata.reset");
        jc("disk.end");
        jmp("disk.ok");

        // A reset only where one is needed: when the drive is stuck in a command.
        label("ata.reset");
        mov(dx, word_ptr(si + drive::PORT));
        add(dx, 6);
        mov(al, byte_ptr(si + drive::SELECT));
        out(dx, al);
        inc(dx);
        in_(al, dx);
        test(al, 0x88);
        jz(".done");
        mov(dx, word_ptr(si + drive::CONTROL));
        mov(al, 0x0E);
        out(dx, al);
        in_(al, dx);
        in_(al, dx);
        in_(al, dx);
        in_(al, dx);
        in_(al, dx);
        mov(al, 0x08);
        out(dx, al);
        call("ata.wait");
        jc(".done");
        // Reset undoes SET MULTIPLE MODE.
        mov(al, byte_ptr(si + drive::MULTIPLE));
        call("ata.set_multiple");
        clc();
        label(".done");
        ret();

        label("disk.last_status");
        push(i32::from(BDA_SEGMENT));
        pop(ds);
        mov(ah, byte_ptr(bda::DISK_STATUS));
        jmp("disk.end");

        label("disk.read");
        mov(bl, READ);
        jmp("disk.chs");
        label("disk.write");
        mov(bl, WRITE);
        jmp("disk.chs");
        label("disk.verify");
        mov(bl, VERIFY);
        label("disk.chs");
        mov(byte_ptr(REQUEST_ACTION), bl);
        // No geometry, no cylinders.
        cmp(byte_ptr(si + drive::KIND), drive::ATAPI);
        je(".invalid");
        movzx(ax, frame::al());
        cmp(ax, MOST_SECTORS);
        ja(".invalid");
        test(ax, ax);
        jz(".invalid");
        mov(word_ptr(REQUEST_COUNT), ax);
        call("disk.address");
        jc(".invalid");
        mov(es, frame::es());
        mov(di, frame::bx());
        call("disk.request");
        mov(cl, byte_ptr(REQUEST_DONE));
        mov(frame::al(), cl);
        jc("disk.end");
        jmp("disk.ok");
        label(".invalid");
        mov(ah, status::INVALID);
        mov(frame::al(), 0);
        jmp("disk.end");

        // The block that the caller's CX and DH name, into REQUEST_LBA. CF if there is none.
        label("disk.address");
        mov(cx, frame::cx());
        mov(al, cl);
        and(ax, 0x3F);
        jz(".bad");
        cmp(ax, word_ptr(si + drive::LOGICAL_SECTORS));
        ja(".bad");
        dec(ax);
        movzx(edi, ax);
        xchg(cl, ch);
        shr(ch, 6);
        cmp(cx, word_ptr(si + drive::LOGICAL_CYLINDERS));
        jae(".bad");
        movzx(eax, cx);
        movzx(bx, frame::dh());
        cmp(bx, word_ptr(si + drive::LOGICAL_HEADS));
        jae(".bad");
        movzx(ecx, word_ptr(si + drive::LOGICAL_HEADS));
        imul_2(eax, ecx);
        movzx(ebx, bx);
        add(eax, ebx);
        movzx(ecx, word_ptr(si + drive::LOGICAL_SECTORS));
        imul_2(eax, ecx);
        add(eax, edi);
        mov(dword_ptr(REQUEST_LBA), eax);
        mov(dword_ptr(REQUEST_LBA + 4), 0);
        clc();
        ret();
        label(".bad");
        stc();
        ret();

        label("disk.parameters");
        cmp(byte_ptr(si + drive::KIND), drive::ATAPI);
        je(".invalid");
        mov(cx, word_ptr(si + drive::LOGICAL_CYLINDERS));
        dec(cx);
        xchg(cl, ch);
        shl(cl, 6);
        or(cl, byte_ptr(si + drive::LOGICAL_SECTORS));
        mov(frame::cx(), cx);
        mov(al, byte_ptr(si + drive::LOGICAL_HEADS));
        dec(al);
        mov(frame::dh(), al);
        mov(frame::al(), 0);
        // The image's drive counts, too.
        test(frame::dl(), 0x80);
        jz(".floppies");
        mov(al, byte_ptr(DISK_COUNT));
        cmp(byte_ptr(emulation::ACTIVE), 0);
        je(".count");
        cmp(byte_ptr(emulation::DRIVE), 0x80);
        jne(".count");
        inc(al);
        label(".count");
        mov(frame::dl(), al);
        jmp("disk.ok");
        label(".floppies");
        // An image of a floppy: its type, and the standard parameter table.
        mov(al, byte_ptr(FLOPPY_COUNT));
        inc(al);
        mov(frame::dl(), al);
        mov(al, byte_ptr(emulation::MEDIA));
        and(al, 0x0F);
        // Media types 1, 2, 3 are drive types 2, 4, 5 (ours for 2.88M).
        add(al, al);
        cmp(al, 6);
        jne(".type");
        dec(al);
        label(".type");
        movzx(bx, al);
        mov(frame::bx(), bx);
        push(0);
        pop(ds);
        les(di, dword_ptr(0x1E * 4));
        mov(frame::di(), di);
        mov(frame::es(), es);
        jmp("disk.ok");
        label(".invalid");
        mov(ah, status::INVALID);
        jmp("disk.end");

        label("disk.type");
        test(frame::dl(), 0x80);
        jz(".floppy");
        cmp(byte_ptr(si + drive::KIND), drive::ATAPI);
        je("disk.parameters.invalid");
        // The sectors that CHS reaches.
        movzx(eax, word_ptr(si + drive::LOGICAL_CYLINDERS));
        movzx(ecx, word_ptr(si + drive::LOGICAL_HEADS));
        imul_2(eax, ecx);
        movzx(ecx, word_ptr(si + drive::LOGICAL_SECTORS));
        imul_2(eax, ecx);
        mov(frame::dx(), ax);
        shr(eax, 16);
        mov(frame::cx(), ax);
        push(i32::from(BDA_SEGMENT));
        pop(ds);
        mov(byte_ptr(bda::DISK_STATUS), 0);
        mov(frame::ax(), 0x0300);
        jmp("service.ok");
        label(".floppy");
        // Without change line.
        mov(frame::ah(), 1);
        jmp("service.ok");

        label("disk.seek");
        call("disk.address");
        jnc("disk.ok");
        mov(ah, status::INVALID);
        jmp("disk.end");

        label("disk.ready");
        cmp(byte_ptr(si + drive::KIND), drive::ATA);
        jne("disk.ok");
        mov(al, byte_ptr(si + drive::SELECT));
        call("ata.select");
        jc(".not");
        test(al, 0x40);
        jnz("disk.ok");
        label(".not");
        mov(ah, status::NOT_READY);
        jmp("disk.end");

        label("disk.diagnose");
        mov(frame::al(), 0);
        jmp("disk.ok");
    }
}

fn requests(rom: &mut Rom) {
    asm! { rom;
        // Carries out the request on whatever the drive is. ES:DI = buffer. Returns CF and the status in AH.
        label("disk.request");
        mov(word_ptr(REQUEST_DONE), 0);
        // All of it must be on the drive.
        movzx(eax, word_ptr(REQUEST_COUNT));
        xor(edx, edx);
        add(eax, dword_ptr(REQUEST_LBA));
        adc(edx, dword_ptr(REQUEST_LBA + 4));
        jc(".beyond");
        cmp(edx, dword_ptr(si + drive::BLOCKS + 4));
        ja(".beyond");
        jb(".inside");
        cmp(eax, dword_ptr(si + drive::BLOCKS));
        ja(".beyond");
        label(".inside");
        call("disk.normalise");
        cmp(byte_ptr(si + drive::KIND), drive::ATA);
        je("ata.transfer");
        cmp(byte_ptr(si + drive::KIND), drive::VIRTIO);
        je("virtio.transfer");
        cmp(byte_ptr(REQUEST_ACTION), WRITE);
        je(".protected");
        cmp(byte_ptr(si + drive::KIND), drive::IMAGE);
        je("eltorito.transfer");
        jmp("atapi.transfer");
        label(".beyond");
        mov(ah, status::INVALID);
        stc();
        ret();
        label(".protected");
        mov(ah, status::WRITE_PROTECTED);
        stc();
        ret();

        // The next command's blocks, AX at most, in REQUEST_CHUNK; ZF set if none is left.
        label("disk.chunk");
        mov(cx, word_ptr(REQUEST_COUNT));
        sub(cx, word_ptr(REQUEST_DONE));
        jz(".none");
        cmp(ax, cx);
        jbe(".size");
        mov(ax, cx);
        label(".size");
        mov(word_ptr(REQUEST_CHUNK), ax);
        test(ax, ax);
        label(".none");
        ret();

        // EAX blocks, fewer than 65536, are done.
        label("disk.advance");
        add(word_ptr(REQUEST_DONE), ax);
        add(dword_ptr(REQUEST_LBA), eax);
        adc(dword_ptr(REQUEST_LBA + 4), 0);
        ret();

        // The same address as ES:DI with DI as small as it gets, so that a block never passes the end of the segment. Above
        // FFFF0h the segment stays FFFFh. Changes AX and CX.
        label("disk.normalise");
        mov(ax, di);
        shr(ax, 4);
        mov(cx, es);
        add(ax, cx);
        jc(".high");
        mov(es, ax);
        and(di, 0x0F);
        ret();
        label(".high");
        not(cx);
        shl(cx, 4);
        sub(di, cx);
        mov(cx, 0xFFFF);
        mov(es, cx);
        ret();
    }
}
