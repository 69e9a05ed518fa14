//! INT 13h AH=4Ah to 4Dh: software chooses among the boot images of a CD.
//!
//! | AX | in | |
//! |---|---|---|
//! | 4A00 | DS:SI = specification packet | the image that it describes becomes drive 00h or 80h |
//! | 4B00 | DL = drive or 7Fh for all, DS:SI = 13h bytes | ends the emulation, returns the specification packet |
//! | 4B01 | DL, DS:SI | returns the specification packet |
//! | 4C00 | DS:SI = specification packet | as 4A00h, and boots the image, or one without emulation; returns only if that fails |
//! | 4D00 | DL, DS:SI = command packet: 8, sectors, buffer (far pointer), first sector (word) | reads the boot catalog |
//!
//! "El Torito" Bootable CD-ROM Format Specification 1.0 (Phoenix, IBM, 1995), section 6; a packet's fields are in `tables::emulation`.
//! The CD-ROM drive is the one that the packet's controller and device specification name. A packet is refused whose drive is not the one
//! of its media type: 00h for a diskette, 80h for a disk. The buffer for caching is not used.

use super::eltorito::{BOOT_RECORD, DEFAULT_SEGMENT};
use super::tables::{drive, emulation, status, *};
use crate::rom::asm::*;
use crate::rom::layout::STACK_TOP;

/// Offset of a field of a packet.
const fn field(place: i32) -> i32 {
    place - EMULATION
}

pub fn emit(rom: &mut Rom) {
    status(rom);
    choose(rom);
    catalog(rom);
}

fn status(rom: &mut Rom) {
    asm! { rom;
        label("eltorito.function");
        cmp(ah, 0x4B);
        je(".status");
        cmp(al, 0);
        jne(".invalid");
        cmp(ah, 0x4C);
        jb("eltorito.initiate");
        je("eltorito.reboot");
        jmp("eltorito.catalog");

        label(".status");
        cmp(al, 1);
        ja(".invalid");
        call("eltorito.named");
        jc(".invalid");
        mov(es, frame::ds());
        mov(di, frame::si());
        mov(si, EMULATION);
        mov(cx, PACKET_SIZE);
        rep().movsb();
        cmp(frame::al(), 0);
        jne("disk.ok");
        call("eltorito.end");
        jmp("disk.ok");
        label(".invalid");
        mov(ah, status::INVALID);
        jmp("disk.end");

        // CF unless DL names what was booted from a CD: the image's drive, the CD-ROM drive, or 7Fh for all. Changes AX, BX, SI.
        label("eltorito.named");
        cmp(byte_ptr(emulation::BOOTED), 1);
        jb(".no");
        cmp(dl, 0x7F);
        je(".yes");
        cmp(dl, byte_ptr(emulation::DRIVE));
        je(".yes");
        cmp(dl, 0xE0);
        jb(".no");
        call("disk.find");
        jc(".no");
        cmp(si, word_ptr(emulation::CD));
        jne(".other");
        label(".yes");
        clc();
        label(".no");
        ret();
        label(".other");
        stc();
        ret();

        // Ends the emulation, if there is one. Changes AL. Keeps SI.
        label("eltorito.end");
        cmp(byte_ptr(emulation::ACTIVE), 0);
        je(".ended");
        mov(byte_ptr(emulation::ACTIVE), 0);
        mov(al, 0xFF);
        call("eltorito.count");
        label(".ended");
        ret();
    }
}

fn choose(rom: &mut Rom) {
    asm! { rom;
        label("eltorito.initiate");
        call("eltorito.accept");
        jc("disk.end");
        // An image without emulation can only be booted.
        mov(ah, status::INVALID);
        test(al, al);
        jz("disk.end");
        mov(eax, dword_ptr(di + field(emulation::IMAGE_LBA)).es());
        call("eltorito.partition");
        jc("disk.end");
        call("eltorito.take");
        call("eltorito.emulate");
        jmp("disk.ok");

        label("eltorito.reboot");
        call("eltorito.accept");
        jc("disk.end");
        test(al, al);
        jz(".plain");
        mov(eax, dword_ptr(di + field(emulation::IMAGE_LBA)).es());
        call("eltorito.partition");
        jc("disk.end");
        mov(ah, status::INVALID);
        cmp(word_ptr(PARTITIONS + PARTITIONS_SIZE - 2), 0xAA55u32);
        jne("disk.end");
        label(".plain");
        call("eltorito.caller");
        mov(eax, dword_ptr(di + field(emulation::IMAGE_LBA)).es());
        mov(bx, word_ptr(di + field(emulation::LOAD_SEGMENT)).es());
        mov(cx, word_ptr(di + field(emulation::LOAD_SECTORS)).es());
        test(bx, bx);
        jnz(".segment");
        mov(bx, DEFAULT_SEGMENT);
        label(".segment");
        cmp(cx, 1);
        adc(cx, 0);
        call("eltorito.take");
        mov(word_ptr(emulation::LOAD_SEGMENT), bx);
        mov(word_ptr(emulation::LOAD_SECTORS), cx);
        // What is loaded may overwrite the caller's stack.
        mov(dx, ss);
        push(0);
        pop(ss);
        mov(sp, u32::from(STACK_TOP));
        push(dx);
        push(bp);
        call("eltorito.load");
        jnc(".loaded");
        pop(bp);
        pop(ss);
        mov(sp, bp);
        jmp("disk.end");
        label(".loaded");
        cmp(byte_ptr(emulation::MEDIA), 0);
        je(".start");
        push(bx);
        call("eltorito.emulate");
        pop(bx);
        label(".start");
        mov(dl, byte_ptr(emulation::DRIVE));
        mov(dh, 0);
        xor(ax, ax);
        mov(ds, ax);
        mov(es, ax);
        mov(esp, u32::from(STACK_TOP));
        sti();
        cmp(bx, DEFAULT_SEGMENT);
        je(".usual");
        push(bx);
        push(0);
        retf();
        label(".usual");
        jmp_far_to(0, (DEFAULT_SEGMENT << 4) as u32);

        // ES:DI = the caller's packet.
        label("eltorito.caller");
        mov(es, frame::ds());
        mov(di, frame::si());
        ret();

        // Looks at the caller's packet, which ES:DI is left at. Returns AL = media type, SI = the CD-ROM drive's record, DL = its number;
        // or CF and AH = status. Changes BX, CX.
        label("eltorito.accept");
        call("eltorito.caller");
        cmp(byte_ptr(di).es(), PACKET_SIZE);
        jb(".bad");
        mov(bx, CD_MAP);
        mov(cl, byte_ptr(CD_COUNT));
        mov(dl, 0xDF);
        label(".next");
        sub(cl, 1);
        jb(".bad");
        inc(dl);
        mov(si, word_ptr(bx));
        add(bx, 2);
        mov(al, byte_ptr(si + drive::CHANNEL));
        cmp(al, byte_ptr(di + field(emulation::CONTROLLER)).es());
        jne(".next");
        mov(al, byte_ptr(si + drive::SELECT));
        shr(al, 4);
        xor(al, byte_ptr(di + field(emulation::DEVICE)).es());
        test(al, 1);
        jnz(".next");
        mov(al, byte_ptr(di + field(emulation::MEDIA)).es());
        and(al, 0x0F);
        jz(".good");
        cmp(al, 4);
        ja(".bad");
        sete(ah);
        shl(ah, 7);
        cmp(ah, byte_ptr(di + field(emulation::DRIVE)).es());
        jne(".bad");
        label(".good");
        clc();
        ret();
        label(".bad");
        mov(ah, status::INVALID);
        stc();
        ret();

        // Ends what is being emulated, and makes the caller's packet ours. SI = the CD-ROM drive's record. Keeps EAX, BX, CX, SI.
        label("eltorito.take");
        push(eax);
        push(cx);
        push(si);
        call("eltorito.end");
        call("eltorito.number");
        push(dx);
        mov(word_ptr(emulation::CD), si);
        push(ds);
        push(ds);
        pop(es);
        mov(ds, frame::ds());
        mov(si, frame::si());
        mov(di, EMULATION);
        mov(cx, PACKET_SIZE);
        rep().movsb();
        pop(ds);
        pop(dx);
        mov(byte_ptr(emulation::SIZE), PACKET_SIZE);
        mov(byte_ptr(emulation::BOOTED), 1);
        and(byte_ptr(emulation::MEDIA), 0x0F);
        jnz(".emulated");
        mov(byte_ptr(emulation::DRIVE), dl);
        label(".emulated");
        pop(si);
        pop(cx);
        pop(eax);
        ret();

        // DL = number of the CD-ROM drive with the record SI, which is one of them. Changes nothing else.
        label("eltorito.number");
        push(bx);
        mov(dl, 0xE0);
        mov(bx, CD_MAP);
        label(".next");
        cmp(si, word_ptr(bx));
        je(".found");
        inc(dl);
        add(bx, 2);
        jmp(".next");
        label(".found");
        pop(bx);
        ret();
    }
}

fn catalog(rom: &mut Rom) {
    asm! { rom;
        label("eltorito.catalog");
        call("eltorito.named");
        jc("eltorito.function.invalid");
        call("eltorito.caller");
        cmp(byte_ptr(di).es(), 8);
        jb("eltorito.function.invalid");
        cmp(byte_ptr(di + 1).es(), 0);
        je("eltorito.function.invalid");
        // Where it is, says the boot record at 47h; the drive sends words.
        mov(si, word_ptr(emulation::CD));
        mov(eax, BOOT_RECORD);
        mov(dword_ptr(REQUEST_SKIP), 0x46);
        mov(dword_ptr(REQUEST_BYTES), 6);
        mov(cx, 1);
        push(ds);
        pop(es);
        mov(di, PARTITIONS);
        call("atapi.read");
        jc("disk.end");
        call("eltorito.caller");
        movzx(eax, word_ptr(di + 6).es());
        add(eax, dword_ptr(PARTITIONS + 1));
        movzx(ecx, byte_ptr(di + 1).es());
        mov(edx, ecx);
        shl(edx, 11);
        mov(dword_ptr(REQUEST_BYTES), edx);
        mov(dword_ptr(REQUEST_SKIP), 0);
        les(di, dword_ptr(di + 2).es());
        push(eax);
        push(cx);
        call("disk.normalise");
        pop(cx);
        pop(eax);
        call("atapi.read");
        jc("disk.end");
        jmp("disk.ok");
    }
}
