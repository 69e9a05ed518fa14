//! The floppy disk controller: commands, results, interrupts, seeks, DMA channel 2.
//!
//! Intel 82077AA and 82078 data sheets (registers, command set), 8237A data sheet (mode, mask, flip-flop), IBM PC/AT Technical Reference
//! (page registers).
//!
//! Internal routines take the drive, 0 or 1, in BX, the EBDA's segment in DS and the BIOS data area's in ES. They keep BX and BP and
//! may change all other registers; what fails returns CF and the status in AH. Interrupts must be on.
//!
//! Deliberately absent: waiting for a motor to come up to speed. Emulated drives turn at once; on others the first attempts fail and the
//! retries take long enough. PERPENDICULAR MODE, which real 2.88 MB drives would need.

use super::tables::{status, *};
use crate::rom::asm::*;
use crate::rom::layout::{BDA_SEGMENT, bda};

const DIGITAL_OUTPUT: i32 = 0x3F2;
const MAIN_STATUS: i32 = 0x3F4;
/// Digital Output Register: interrupts and DMA on, not in reset.
const DMA_GATE: i32 = 0x08;
const NOT_RESET: i32 = 0x04;
/// Commands; with MFM where there is density.
const SPECIFY: i32 = 0x03;
const RECALIBRATE: i32 = 0x07;
const SENSE_INTERRUPT: i32 = 0x08;
const SEEK: i32 = 0x0F;
const READ_ID: i32 = 0x4A;
/// In 40:3E: IRQ 6 has come.
const INTERRUPTED: i32 = 0x80;
/// Toggles of the refresh bit, 15 us each, until the controller counts as hung: 4 s.
const PATIENCE: i32 = 0x4_0000;

pub fn emit(rom: &mut Rom) {
    rom.entry(0xEF57, "int0e");
    asm! { rom;
        // IRQ 6.
        label("int0e");
        push(ax);
        push(ds);
        push(i32::from(BDA_SEGMENT));
        pop(ds);
        or(byte_ptr(bda::FLOPPY_RECALIBRATED), INTERRUPTED);
        out_byte(0x20, 0x20);
        pop(ds);
        pop(ax);
        iret();
        vector(0x0E, "int0e");

        // Sends the CX bytes at FLOPPY_COMMAND.
        label("fdc.command");
        and(byte_ptr(bda::FLOPPY_RECALIBRATED).es(), !INTERRUPTED & 0xFF);
        mov(si, FLOPPY_COMMAND);
        label(".next");
        mov(dx, MAIN_STATUS);
        xor(di, di);
        label(".wait");
        in_(al, dx);
        and(al, 0xC0);
        cmp(al, 0x80);
        je(".ready");
        dec(di);
        jnz(".wait");
        jmp("fdc.stuck");
        label(".ready");
        inc(dx);
        lodsb();
        out(dx, al);
        loop_(".next");
        clc();
        ret();

        // Fetches the result phase's bytes to 40:42.
        label("fdc.result");
        mov(si, bda::FLOPPY_CONTROLLER_STATUS);
        mov(cx, 7);
        label(".next");
        mov(dx, MAIN_STATUS);
        xor(di, di);
        label(".wait");
        in_(al, dx);
        test(al, 0x80);
        jnz(".ready");
        dec(di);
        jnz(".wait");
        jmp("fdc.stuck");
        label(".ready");
        test(al, 0x40);
        jz(".done");
        inc(dx);
        in_(al, dx);
        mov(byte_ptr(si).es(), al);
        inc(si);
        loop_(".next");
        label(".done");
        clc();
        ret();

        // The controller takes no command or gives no result.
        label("fdc.stuck");
        mov(byte_ptr(FLOPPY_RESET), 1);
        mov(ah, status::CONTROLLER);
        stc();
        ret();
    }
    waiting(rom);
    heads(rom);
}

fn waiting(rom: &mut Rom) {
    asm! { rom;
        // Waits for the interrupt.
        label("fdc.wait");
        mov(ecx, PATIENCE);
        mov(ah, 0);
        label(".next");
        test(byte_ptr(bda::FLOPPY_RECALIBRATED).es(), INTERRUPTED);
        jnz(".came");
        in_byte(0x61);
        and(al, 0x10);
        cmp(al, ah);
        je(".next");
        mov(ah, al);
        dec(ecx);
        jnz(".next");
        mov(byte_ptr(FLOPPY_RESET), 1);
        mov(ah, status::TIMEOUT);
        stc();
        ret();
        label(".came");
        and(byte_ptr(bda::FLOPPY_RECALIBRATED).es(), !INTERRUPTED & 0xFF);
        ret();

        // SENSE INTERRUPT STATUS.
        label("fdc.sense");
        mov(byte_ptr(FLOPPY_COMMAND), SENSE_INTERRUPT);
        mov(cx, 1);
        call("fdc.command");
        jnc("fdc.result");
        ret();

        // Resets the controller, and tells it step rate and head times of the parameter table.
        label("fdc.reset");
        mov(byte_ptr(FLOPPY_RESET), 0);
        and(byte_ptr(bda::FLOPPY_RECALIBRATED).es(), 0x70);
        call("fdc.output");
        and(al, !NOT_RESET & 0xFF);
        out(dx, al);
        // Some microseconds.
        mov(cx, 8);
        label(".pause");
        in_byte(0x61);
        loop_(".pause");
        call("fdc.output");
        call("fdc.wait");
        jc("fdc.sense.failed");
        mov(cx, 4);
        label(".sense");
        push(cx);
        call("fdc.sense");
        pop(cx);
        jc("fdc.sense.failed");
        loop_(".sense");
        mov(byte_ptr(FLOPPY_COMMAND), SPECIFY);
        mov(al, 0);
        call("floppy.parameter");
        mov(byte_ptr(FLOPPY_COMMAND + 1), al);
        mov(al, 1);
        call("floppy.parameter");
        // DMA is what all else relies on.
        and(al, 0xFE);
        mov(byte_ptr(FLOPPY_COMMAND + 2), al);
        mov(cx, 3);
        jmp("fdc.command");
        label("fdc.sense.failed");
        ret();

        // Selects the drive; motors as 40:3F says. AL = what the Digital Output Register got, DX = its port.
        label("fdc.output");
        mov(al, byte_ptr(bda::FLOPPY_MOTORS).es());
        shl(al, 4);
        or(al, bl);
        or(al, DMA_GATE | NOT_RESET);
        mov(dx, DIGITAL_OUTPUT);
        out(dx, al);
        ret();

        // INT 08h: motors go off when 40:40 has counted down. DS = BIOS data area; changes AL.
        label("floppy.tick");
        cmp(byte_ptr(bda::FLOPPY_TIMEOUT), 0);
        je(".idle");
        dec(byte_ptr(bda::FLOPPY_TIMEOUT));
        jnz(".idle");
        and(byte_ptr(bda::FLOPPY_MOTORS), 0xF0);
        push(dx);
        mov(dx, DIGITAL_OUTPUT);
        mov(al, DMA_GATE | NOT_RESET);
        out(dx, al);
        pop(dx);
        label(".idle");
        ret();
    }
}

fn heads(rom: &mut Rom) {
    asm! { rom;
        // Moves the head to cylinder AL (the drive's own), from track 0 if it is not known where it is.
        label("fdc.seek");
        push(ax);
        mov(al, 1);
        mov(cl, bl);
        shl(al, cl);
        test(byte_ptr(bda::FLOPPY_RECALIBRATED).es(), al);
        pop(ax);
        jnz(".known");
        push(ax);
        call("fdc.recalibrate");
        pop(cx);
        jc(".done");
        mov(al, cl);
        label(".known");
        cmp(al, byte_ptr(bx + bda::FLOPPY_TRACKS).es());
        je(".done");
        mov(byte_ptr(bx + bda::FLOPPY_TRACKS).es(), al);
        mov(byte_ptr(FLOPPY_COMMAND), SEEK);
        mov(byte_ptr(FLOPPY_COMMAND + 1), bl);
        mov(byte_ptr(FLOPPY_COMMAND + 2), al);
        mov(cx, 3);
        call("fdc.move");
        jnc(".done");
        call("fdc.lost");
        mov(ah, status::SEEK);
        stc();
        label(".done");
        ret();

        // Where the head is is no longer known. Changes AL, CL.
        label("fdc.lost");
        mov(al, 0xFE);
        mov(cl, bl);
        rol(al, cl);
        and(byte_ptr(bda::FLOPPY_RECALIBRATED).es(), al);
        ret();

        // Moves the head to track 0. One RECALIBRATE makes 79 steps at most on some controllers, so there are two.
        label("fdc.recalibrate");
        call(".once");
        jnc(".done");
        call(".once");
        jnc(".done");
        mov(ah, status::SEEK);
        stc();
        ret();
        label(".once");
        mov(byte_ptr(FLOPPY_COMMAND), RECALIBRATE);
        mov(byte_ptr(FLOPPY_COMMAND + 1), bl);
        mov(cx, 2);
        call("fdc.move");
        jc(".done");
        mov(byte_ptr(bx + bda::FLOPPY_TRACKS).es(), 0);
        mov(al, 1);
        mov(cl, bl);
        shl(al, cl);
        or(byte_ptr(bda::FLOPPY_RECALIBRATED).es(), al);
        label(".done");
        ret();

        // A command of CX bytes that moves the head. CF if it does not end as it should.
        label("fdc.move");
        call("fdc.command");
        jc(".done");
        call("fdc.wait");
        jc(".done");
        call("fdc.sense");
        jc(".done");
        mov(al, byte_ptr(bda::FLOPPY_CONTROLLER_STATUS).es());
        and(al, 0xE0);
        cmp(al, 0x20);
        je(".done");
        stc();
        label(".done");
        ret();

        // READ ID under head 0. The result is at 40:42; CF and AH as from fdc.finish.
        label("fdc.read_id");
        mov(byte_ptr(FLOPPY_COMMAND), READ_ID);
        mov(byte_ptr(FLOPPY_COMMAND + 1), bl);
        mov(cx, 2);
        // Carries out a command of CX bytes that has a result phase.
        label("fdc.finish");
        call("fdc.command");
        jc(".done");
        call("fdc.wait");
        jc(".done");
        call("fdc.result");
        jc(".done");
        test(byte_ptr(bda::FLOPPY_CONTROLLER_STATUS).es(), 0xC0);
        jz(".done");
        // Status Register 1 tells why.
        mov(al, byte_ptr(bda::FLOPPY_CONTROLLER_STATUS + 1).es());
        mov(ah, status::WRITE_PROTECTED);
        test(al, 0x02);
        jnz(".failed");
        mov(ah, status::ADDRESS_MARK);
        test(al, 0x01);
        jnz(".failed");
        mov(ah, status::CRC);
        test(al, 0x20);
        jnz(".failed");
        mov(ah, status::OVERRUN);
        test(al, 0x10);
        jnz(".failed");
        mov(ah, status::NOT_FOUND);
        test(al, 0x84);
        jnz(".failed");
        mov(ah, status::CONTROLLER);
        label(".failed");
        stc();
        label(".done");
        ret();

        // DMA channel 2: mode AL, CX bytes at FLOPPY_ADDRESS, which do not cross a boundary of 64 KiB.
        label("fdc.dma");
        mov(ah, al);
        out_byte(0x0A, 0x06);
        out(0x0C, al);
        mov(al, ah);
        out(0x0B, al);
        mov(al, byte_ptr(FLOPPY_ADDRESS));
        out(0x04, al);
        mov(al, byte_ptr(FLOPPY_ADDRESS + 1));
        out(0x04, al);
        mov(al, byte_ptr(FLOPPY_ADDRESS + 2));
        out(0x81, al);
        dec(cx);
        mov(al, cl);
        out(0x05, al);
        mov(al, ch);
        out(0x05, al);
        out_byte(0x0A, 0x02);
        ret();
    }
}
