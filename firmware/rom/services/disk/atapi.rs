//! ATAPI CD-ROM drives: command packets, reading blocks of 2048 bytes, sense data.
//!
//! ATA/ATAPI-6 (T13/1410D), 9.8 (PACKET protocol, PIO); SFF-8020i 10.8 (READ(10), REQUEST SENSE, START/STOP UNIT, PREVENT/ALLOW
//! MEDIUM REMOVAL, TEST UNIT READY). Registers as in `ata`.
//!
//! A command's answer is taken in three parts: `REQUEST_SKIP` bytes are dropped, `REQUEST_BYTES` go to ES:DI, the rest is dropped.
//! So sectors of 512 bytes come out of blocks of 2048 without a buffer in between.

use super::tables::{drive, status, *};
use crate::rom::asm::*;
use crate::rom::layout::{BDA_SEGMENT, bda};

const ERR: i32 = 0x01;
const DF: i32 = 0x20;
const DRQ: i32 = 0x08;
const NIEN: i32 = 0x0A;

/// Most bytes of one data block: 31 blocks of 2048 bytes.
const BURST: i32 = 0xF800;
/// Times that a command is tried while the drive says that the medium has changed, or that it is getting ready.
const ATTEMPTS: i32 = 8;

pub fn emit(rom: &mut Rom) {
    reading(rom);
    packet(rom);
    commands(rom);
}

fn reading(rom: &mut Rom) {
    asm! { rom;
        // The request on a CD-ROM drive. ES:DI = buffer. Returns CF and the status in AH.
        label("atapi.transfer");
        movzx(ecx, word_ptr(REQUEST_COUNT));
        test(cx, cx);
        jz(".nothing");
        mov(eax, ecx);
        shl(eax, 11);
        mov(dword_ptr(REQUEST_SKIP), 0);
        mov(dword_ptr(REQUEST_BYTES), eax);
        cmp(byte_ptr(REQUEST_ACTION), VERIFY);
        jne(".read");
        // To verify is to read and to keep nothing.
        mov(dword_ptr(REQUEST_BYTES), 0);
        label(".read");
        mov(eax, dword_ptr(REQUEST_LBA));
        call("atapi.read");
        jc(".failed");
        mov(cx, word_ptr(REQUEST_COUNT));
        mov(word_ptr(REQUEST_DONE), cx);
        label(".nothing");
        xor(ah, ah);
        label(".failed");
        ret();

        // READ(10): CX blocks from EAX, as REQUEST_SKIP and REQUEST_BYTES say. Returns CF and the status in AH.
        label("atapi.read");
        mov(bl, ATTEMPTS);
        label(".again");
        push(eax);
        push(ecx);
        push(ebx);
        push(es);
        push(di);
        push(dword_ptr(REQUEST_SKIP));
        push(dword_ptr(REQUEST_BYTES));
        call("atapi.clear");
        mov(byte_ptr(PACKET), 0x28);
        bswap(eax);
        mov(dword_ptr(PACKET + 2), eax);
        xchg(cl, ch);
        mov(word_ptr(PACKET + 7), cx);
        call("atapi.packet");
        jc(".failed");
        // The drive must have sent it all.
        mov(ah, status::CONTROLLER);
        cmp(dword_ptr(REQUEST_BYTES), 1);
        cmc();
        jc(".short");
        add(sp, 8);
        pop(di);
        pop(es);
        jmp(".clean");
        label(".failed");
        call("atapi.sense");
        label(".short");
        pop(dword_ptr(REQUEST_BYTES));
        pop(dword_ptr(REQUEST_SKIP));
        pop(di);
        pop(es);
        stc();
        label(".clean");
        mov(dh, ah);
        pop(ebx);
        pop(ecx);
        pop(eax);
        jnc(".done");
        cmp(dh, status::CHANGED);
        je(".retry");
        cmp(dh, status::NOT_READY);
        jne(".give_up");
        call("disk.pause");
        label(".retry");
        dec(bl);
        jnz(".again");
        label(".give_up");
        mov(ah, dh);
        stc();
        label(".done");
        ret();
    }
}

fn packet(rom: &mut Rom) {
    asm! { rom;
        // Sends the packet and takes the answer. CF if it fails, which is when the sense data tell why.
        label("atapi.packet");
        mov(dx, word_ptr(si + drive::CONTROL));
        mov(al, NIEN);
        out(dx, al);
        mov(al, byte_ptr(si + drive::SELECT));
        call("ata.select");
        jc(".failed");
        sub(dx, 6);
        mov(al, 0);
        out(dx, al);
        add(dx, 3);
        mov(al, BURST & 0xFF);
        out(dx, al);
        inc(dx);
        mov(al, BURST >> 8);
        out(dx, al);
        add(dx, 2);
        mov(al, 0xA0);
        out(dx, al);
        call("ata.wait");
        jc(".failed");
        test(al, ERR | DF);
        jnz(".failed");
        test(al, DRQ);
        jz(".failed");
        push(si);
        mov(dx, word_ptr(si + drive::PORT));
        mov(si, PACKET);
        mov(cx, 6);
        rep().outsw();
        pop(si);
        label(".phase");
        call("ata.wait");
        jc(".failed");
        test(al, ERR | DF);
        jnz(".failed");
        test(al, DRQ);
        jz(".done");
        call("atapi.take");
        jmp(".phase");
        label(".done");
        call("ata.finish");
        clc();
        ret();
        label(".failed");
        call("ata.finish");
        stc();
        ret();

        // One block of data.
        label("atapi.take");
        mov(dx, word_ptr(si + drive::PORT));
        add(dx, 5);
        in_(al, dx);
        mov(ch, al);
        dec(dx);
        in_(al, dx);
        mov(cl, al);
        movzx(ecx, cx);
        sub(dx, 4);
        mov(eax, dword_ptr(REQUEST_SKIP));
        cmp(eax, ecx);
        jbe(".skip");
        mov(eax, ecx);
        label(".skip");
        sub(dword_ptr(REQUEST_SKIP), eax);
        sub(ecx, eax);
        push(cx);
        mov(cx, ax);
        call(".drop");
        pop(cx);
        mov(eax, dword_ptr(REQUEST_BYTES));
        cmp(eax, ecx);
        jbe(".keep");
        mov(eax, ecx);
        label(".keep");
        sub(dword_ptr(REQUEST_BYTES), eax);
        sub(ecx, eax);
        push(cx);
        mov(cx, ax);
        test(cl, 3);
        jnz(".words");
        shr(cx, 2);
        rep().insd();
        jmp(".kept");
        label(".words");
        inc(cx);
        shr(cx, 1);
        rep().insw();
        label(".kept");
        call("disk.normalise");
        pop(cx);
        label(".drop");
        inc(cx);
        shr(cx, 1);
        jz(".dropped");
        label(".word");
        in_(ax, dx);
        loop_(".word");
        label(".dropped");
        ret();
    }
}

fn commands(rom: &mut Rom) {
    asm! { rom;
        // An empty packet. Keeps all registers.
        label("atapi.clear");
        mov(dword_ptr(PACKET), 0);
        mov(dword_ptr(PACKET + 4), 0);
        mov(dword_ptr(PACKET + 8), 0);
        ret();

        // A command without data: AL = code, AH = byte 4. Returns CF and the status in AH.
        label("atapi.simple");
        call("atapi.clear");
        mov(byte_ptr(PACKET), al);
        mov(byte_ptr(PACKET + 4), ah);
        mov(dword_ptr(REQUEST_SKIP), 0);
        mov(dword_ptr(REQUEST_BYTES), 0);
        call("atapi.packet");
        jc("atapi.sense");
        ret();

        label("atapi.test_ready");
        xor(ax, ax);
        jmp("atapi.simple");
        label("atapi.eject");
        mov(ax, 0x021B);
        jmp("atapi.simple");
        // Locks the door while anybody holds a lock.
        label("atapi.prevent");
        cmp(byte_ptr(si + drive::LOCKS), 0);
        setne(ah);
        mov(al, 0x1E);
        jmp("atapi.simple");

        // Asks for the sense data of a command that has failed. Returns CF set, and the status that they stand for in AH.
        label("atapi.sense");
        push(es);
        push(di);
        mov(word_ptr(SENSE + 2), 0);
        mov(word_ptr(SENSE + 12), 0);
        call("atapi.clear");
        mov(byte_ptr(PACKET), 0x03);
        mov(byte_ptr(PACKET + 4), 18);
        mov(dword_ptr(REQUEST_SKIP), 0);
        mov(dword_ptr(REQUEST_BYTES), 18);
        push(ds);
        pop(es);
        mov(di, SENSE);
        call("atapi.packet");
        pop(di);
        pop(es);
        mov(ah, status::TIMEOUT);
        jc(".done");
        mov(al, byte_ptr(SENSE + 2));
        and(al, 0x0F);
        cmp(al, 2);
        je(".not_ready");
        mov(ah, status::CRC);
        cmp(al, 3);
        je(".done");
        mov(ah, status::CHANGED);
        cmp(al, 6);
        je(".done");
        mov(ah, status::CONTROLLER);
        cmp(al, 5);
        jne(".done");
        mov(ah, status::INVALID);
        cmp(byte_ptr(SENSE + 12), 0x21);
        jne(".done");
        mov(ah, status::NOT_FOUND);
        jmp(".done");
        label(".not_ready");
        mov(ah, status::NO_MEDIA);
        cmp(byte_ptr(SENSE + 12), 0x3A);
        je(".done");
        mov(ah, status::NOT_READY);
        label(".done");
        stc();
        ret();

        // Three ticks of the timer, or a million reads of a port when the timer stands still. Keeps all registers.
        label("disk.pause");
        push(ds);
        push(eax);
        push(ecx);
        push(i32::from(BDA_SEGMENT));
        pop(ds);
        mov(ecx, 0x0010_0000);
        mov(ah, byte_ptr(bda::TICKS));
        label(".wait");
        in_(al, 0x61);
        mov(al, byte_ptr(bda::TICKS));
        sub(al, ah);
        cmp(al, 3);
        jae(".over");
        dec(ecx);
        jnz(".wait");
        label(".over");
        pop(ecx);
        pop(eax);
        pop(ds);
        ret();
    }
}
