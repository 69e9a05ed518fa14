//! INT 13h AH=41h to 4Eh, the extensions for large disks and removable media.
//!
//! | AH | in | out |
//! |---|---|---|
//! | 41 | BX = 55AAh | BX = AA55h, AH = 30h (EDD-3), CX = 7 (42h-44h and 47h-48h; locking; 48h with parameter table) |
//! | 42, 43, 44, 47 | DS:SI = packet: size, 0, blocks (word), buffer (far pointer), first block (64 bits) | blocks in the packet = done |
//! | 45 | AL = 0 lock, 1 unlock, 2 ask | AL = 1 if locked |
//! | 46 | | ejects the medium |
//! | 48 | DS:SI = buffer, first word its size | parameters, and the device path from 42h bytes on |
//! | 49 | | AH = 06 if the medium may have been changed |
//! | 4E | AL = 0-6 | sets transfer modes: nothing to do |
//!
//! BIOS Enhanced Disk Drive Services 3.0 (T13/1226DT), section 8. The flat 64-bit buffer address of EDD-3 (8.2) is refused: real
//! mode does not reach it.

use super::tables::{drive, status, *};
use crate::rom::asm::*;

/// Most locks on a drive.
const MOST_LOCKS: i32 = 255;

pub fn emit(rom: &mut Rom) {
    transfers(rom);
    media(rom);
    parameters(rom);
}

fn transfers(rom: &mut Rom) {
    asm! { rom;
        label("edd.check");
        cmp(frame::bx(), 0x55AA);
        jne(".invalid");
        mov(frame::bx(), 0xAA55);
        mov(frame::cx(), 0x0007);
        mov(frame::ah(), 0x30);
        jmp("service.ok");
        label(".invalid");
        mov(ah, status::INVALID);
        jmp("disk.end");

        label("edd.read");
        mov(bl, READ);
        jmp("edd.transfer");
        label("edd.verify");
        mov(bl, VERIFY);
        jmp("edd.transfer");
        label("edd.write");
        // AL bit 0 or value 2 asks for a verified write, which drives do by themselves.
        cmp(frame::al(), 2);
        ja("edd.check.invalid");
        mov(bl, WRITE);
        label("edd.transfer");
        mov(byte_ptr(REQUEST_ACTION), bl);
        mov(es, frame::ds());
        mov(bx, frame::si());
        cmp(byte_ptr(bx).es(), 0x10);
        jb("edd.check.invalid");
        call("edd.packet");
        mov(di, word_ptr(bx + 4).es());
        mov(ax, word_ptr(bx + 6).es());
        mov(cx, di);
        and(cx, ax);
        inc(cx);
        jz(".none");
        mov(es, ax);
        call("disk.request");
        jmp(".done");
        label(".none");
        mov(word_ptr(REQUEST_DONE), 0);
        mov(ah, status::INVALID);
        stc();
        label(".done");
        mov(es, frame::ds());
        mov(bx, frame::si());
        mov(cx, word_ptr(REQUEST_DONE));
        mov(word_ptr(bx + 2).es(), cx);
        jc("disk.end");
        jmp("disk.ok");

        label("edd.seek");
        mov(es, frame::ds());
        mov(bx, frame::si());
        cmp(byte_ptr(bx).es(), 0x10);
        jb("edd.check.invalid");
        call("edd.packet");
        mov(eax, dword_ptr(REQUEST_LBA));
        mov(edx, dword_ptr(REQUEST_LBA + 4));
        sub(eax, dword_ptr(si + drive::BLOCKS));
        sbb(edx, dword_ptr(si + drive::BLOCKS + 4));
        jb("disk.ok");
        jmp("edd.check.invalid");

        // Blocks and first block from the packet at ES:BX.
        label("edd.packet");
        mov(ax, word_ptr(bx + 2).es());
        mov(word_ptr(REQUEST_COUNT), ax);
        mov(eax, dword_ptr(bx + 8).es());
        mov(dword_ptr(REQUEST_LBA), eax);
        mov(eax, dword_ptr(bx + 12).es());
        mov(dword_ptr(REQUEST_LBA + 4), eax);
        ret();
    }
}

fn media(rom: &mut Rom) {
    asm! { rom;
        label("edd.lock");
        cmp(byte_ptr(si + drive::KIND), drive::ATAPI);
        jne(".fixed");
        mov(al, frame::al());
        mov(cl, byte_ptr(si + drive::LOCKS));
        cmp(al, 0);
        je(".lock");
        cmp(al, 1);
        je(".unlock");
        cmp(al, 2);
        jne("edd.check.invalid");
        label(".state");
        cmp(byte_ptr(si + drive::LOCKS), 0);
        setne(al);
        mov(frame::al(), al);
        jmp("disk.ok");
        label(".lock");
        cmp(cl, MOST_LOCKS);
        je(".full");
        inc(byte_ptr(si + drive::LOCKS));
        jmp(".tell");
        label(".unlock");
        test(cl, cl);
        jz(".not_locked");
        dec(byte_ptr(si + drive::LOCKS));
        label(".tell");
        call("atapi.prevent");
        jc("disk.end");
        jmp(".state");
        label(".not_locked");
        mov(ah, status::NOT_LOCKED);
        jmp("disk.end");
        label(".full");
        mov(ah, status::LOCKS_FULL);
        jmp("disk.end");
        label(".fixed");
        // Locking what cannot be removed is no error.
        mov(frame::al(), 1);
        jmp("disk.ok");

        label("edd.eject");
        cmp(byte_ptr(si + drive::KIND), drive::ATAPI);
        jne(".fixed");
        cmp(byte_ptr(si + drive::LOCKS), 0);
        jne(".locked");
        call("atapi.eject");
        jnc("disk.ok");
        mov(ah, status::EJECT_FAILED);
        jmp("disk.end");
        label(".locked");
        mov(ah, status::LOCKED);
        jmp("disk.end");
        label(".fixed");
        mov(ah, status::NOT_REMOVABLE);
        jmp("disk.end");

        label("edd.changed");
        cmp(byte_ptr(si + drive::KIND), drive::ATAPI);
        jne("disk.ok");
        call("atapi.test_ready");
        jnc("disk.ok");
        mov(ah, status::CHANGED);
        jmp("disk.end");

        label("edd.hardware");
        cmp(frame::al(), 6);
        ja("edd.check.invalid");
        // All of these modes are the drive's own affair: AL = 0, "affects this drive only".
        mov(frame::al(), 0);
        jmp("disk.ok");
    }
}

fn parameters(rom: &mut Rom) {
    asm! { rom;
        label("edd.parameters");
        mov(es, frame::ds());
        mov(di, frame::si());
        mov(bx, word_ptr(di).es());
        cmp(bx, 26);
        jb("edd.check.invalid");
        cmp(byte_ptr(si + drive::KIND), drive::ATAPI);
        je(".removable");
        // Information flags: DMA boundaries handled, CHS valid.
        mov(word_ptr(di + 2).es(), 0x0003);
        mov(eax, dword_ptr(si + drive::BLOCKS));
        mov(edx, dword_ptr(si + drive::BLOCKS + 4));
        movzx(ecx, word_ptr(si + drive::CYLINDERS));
        // A geometry that reaches less than the whole disk is not valid (8.7): beyond 15,482,880 sectors there is none.
        test(edx, edx);
        jnz(".no_chs");
        cmp(eax, 63 * 16 * 16_383);
        ja(".no_chs");
        mov(dword_ptr(di + 4).es(), ecx);
        movzx(ecx, word_ptr(si + drive::HEADS));
        mov(dword_ptr(di + 8).es(), ecx);
        movzx(ecx, word_ptr(si + drive::SECTORS));
        mov(dword_ptr(di + 12).es(), ecx);
        jmp(".capacity");
        label(".no_chs");
        mov(word_ptr(di + 2).es(), 0x0001);
        mov(dword_ptr(di + 4).es(), 16_383);
        mov(dword_ptr(di + 8).es(), 16);
        mov(dword_ptr(di + 12).es(), 63);
        jmp(".capacity");
        label(".removable");
        // Removable, with change line, lockable, CHS set to the most and not valid.
        mov(word_ptr(di + 2).es(), 0x0074);
        mov(dword_ptr(di + 4).es(), -1);
        mov(dword_ptr(di + 8).es(), -1);
        mov(dword_ptr(di + 12).es(), -1);
        mov(eax, -1);
        mov(edx, -1);
        label(".capacity");
        mov(dword_ptr(di + 16).es(), eax);
        mov(dword_ptr(di + 20).es(), edx);
        mov(ax, word_ptr(si + drive::BLOCK_SIZE));
        mov(word_ptr(di + 24).es(), ax);
        cmp(bx, 30);
        jb(".size_26");
        // Only drives on the ATA channels have a table and a path.
        cmp(byte_ptr(si + drive::KIND), drive::IMAGE);
        jae(".no_table");
        call("edd.table");
        mov(word_ptr(di + 26).es(), EDD_TABLE);
        mov(word_ptr(di + 28).es(), ds);
        cmp(bx, 66);
        jb(".size_30");
        call("edd.path");
        cmp(bx, 74);
        jae(".size_74");
        mov(word_ptr(di).es(), 66);
        jmp("disk.ok");
        label(".size_74");
        mov(word_ptr(di).es(), 74);
        jmp("disk.ok");
        label(".no_table");
        mov(dword_ptr(di + 26).es(), -1);
        label(".size_30");
        mov(word_ptr(di).es(), 30);
        jmp("disk.ok");
        label(".size_26");
        mov(word_ptr(di).es(), 26);
        jmp("disk.ok");

        // Fills in the device parameter table extension (8.7.1) of the record at SI. Keeps BX, ES, DI.
        label("edd.table");
        mov(ax, word_ptr(si + drive::PORT));
        mov(word_ptr(EDD_TABLE), ax);
        mov(ax, word_ptr(si + drive::CONTROL));
        mov(word_ptr(EDD_TABLE + 2), ax);
        mov(al, byte_ptr(si + drive::SELECT));
        and(al, 0x10);
        or(al, 0xE0);
        mov(byte_ptr(EDD_TABLE + 4), al);
        mov(byte_ptr(EDD_TABLE + 5), 0xCB);
        mov(al, byte_ptr(si + drive::CHANNEL));
        add(al, 14);
        mov(byte_ptr(EDD_TABLE + 6), al);
        mov(al, byte_ptr(si + drive::MULTIPLE));
        mov(byte_ptr(EDD_TABLE + 7), al);
        // No DMA, PIO mode 4 is possible.
        mov(word_ptr(EDD_TABLE + 8), 0x0400);
        // Hardware specific options: LBA 10h, CHS translation 08h, type in bits 10-9; removable 20h, ATAPI 40h; 32-bit PIO 80h.
        mov(ax, 0x00E0);
        cmp(byte_ptr(si + drive::KIND), drive::ATAPI);
        je(".options");
        mov(ax, 0x0090);
        mov(cl, byte_ptr(si + drive::TRANSLATION));
        test(cl, cl);
        jz(".options");
        or(al, 0x08);
        // Bit-shifting is 0 and LBA-assisted 1 in bits 10-9.
        cmp(cl, 1);
        jne(".options");
        or(ah, 0x02);
        label(".options");
        cmp(byte_ptr(si + drive::MULTIPLE), 1);
        jbe(".no_multiple");
        or(al, 0x04);
        label(".no_multiple");
        mov(word_ptr(EDD_TABLE + 10), ax);
        mov(word_ptr(EDD_TABLE + 12), 0);
        mov(byte_ptr(EDD_TABLE + 14), 0x11);
        push(si);
        mov(si, EDD_TABLE);
        mov(cx, 15);
        call("edd.checksum");
        pop(si);
        mov(byte_ptr(EDD_TABLE + 15), al);
        ret();

        // What CX bytes at DS:SI lack to a sum of 0, in AL.
        label("edd.checksum");
        xor(al, al);
        label(".next");
        sub(al, byte_ptr(si));
        inc(si);
        loop_(".next");
        ret();

        // The device path (8.7.2) at ES:DI+30, for a result of BX bytes: on the PCI bus, function 1 of the PIIX3; ATA or ATAPI.
        label("edd.path");
        mov(word_ptr(di + 30).es(), 0xBEDD);
        mov(byte_ptr(di + 32).es(), 36);
        mov(byte_ptr(di + 33).es(), 0);
        mov(word_ptr(di + 34).es(), 0);
        mov(dword_ptr(di + 36).es(), u32::from_le_bytes(*b"PCI "));
        mov(dword_ptr(di + 40).es(), u32::from_le_bytes(*b"ATA "));
        mov(dword_ptr(di + 44).es(), u32::from_le_bytes(*b"    "));
        cmp(byte_ptr(si + drive::KIND), drive::ATAPI);
        jne(".interface");
        mov(dword_ptr(di + 40).es(), u32::from_le_bytes(*b"ATAP"));
        mov(dword_ptr(di + 44).es(), u32::from_le_bytes(*b"I   "));
        label(".interface");
        // Bus 0, device 1, function 1, and which channel.
        mov(dword_ptr(di + 48).es(), 0x0001_0100);
        movzx(eax, byte_ptr(si + drive::CHANNEL));
        mov(byte_ptr(di + 51).es(), al);
        mov(dword_ptr(di + 52).es(), 0);
        // The device on the channel: 0 or 1.
        xor(eax, eax);
        cmp(byte_ptr(si + drive::SELECT), 0xA0);
        setne(al);
        mov(dword_ptr(di + 56).es(), eax);
        mov(dword_ptr(di + 60).es(), 0);
        push(bx);
        mov(cx, 35);
        cmp(bx, 74);
        mov(bx, 65);
        jb(".sum");
        mov(byte_ptr(di + 32).es(), 44);
        mov(dword_ptr(di + 64).es(), 0);
        mov(dword_ptr(di + 68).es(), 0);
        mov(word_ptr(di + 72).es(), 0);
        mov(cx, 43);
        mov(bx, 73);
        label(".sum");
        push(ds);
        push(si);
        push(es);
        pop(ds);
        lea(si, word_ptr(di + 30));
        call("edd.checksum");
        mov(byte_ptr(bx + di), al);
        pop(si);
        pop(ds);
        pop(bx);
        ret();
    }
}
