//! What is in a floppy drive: the change line, and finding out data rate, steps and sectors of a medium.
//!
//! The drive's state is in 40:90 and 40:91 (IBM PC/AT Technical Reference, BIOS data area): bits 7:6 data rate as the controller
//! takes it, 5 two steps to a cylinder, 4 the medium is known, 2:0 what it is. Registers as in `fdc`.

use super::tables::{status, *};
use crate::rom::asm::*;
use crate::rom::layout::bda;

/// Digital Input Register: change line in bit 7. Written, it takes the data rate.
const DIGITAL_INPUT: i32 = 0x3F7;
/// Bits of the media state.
const KNOWN: i32 = 0x10;
const TWO_STEPS: i32 = 0x20;
/// VERIFY, MFM.
const VERIFY_COMMAND: i32 = 0x56;

pub fn emit(rom: &mut Rom) {
    // For each type in CMOS, what media can be in the drive: states to try, and 0.
    let states = rom.bytes(
        [
            [0, 0, 0, 0],
            [0x93, 0, 0, 0],
            [0x15, 0x54, 0, 0],
            [0x97, 0, 0, 0],
            [0x17, 0x97, 0, 0],
            [0x17, 0xD7, 0x97, 0],
            [0x17, 0xD7, 0x97, 0],
        ]
        .concat(),
    );
    // For each data rate, sectors that a track may have, the most first, and 0.
    let sectors = rom.bytes([[21, 18, 15, 0], [9, 8, 0, 0], [9, 8, 0, 0], [36, 0, 0, 0]].concat());
    asm! { rom;
        // Makes the drive ready: controller, motor, change line. CF: AH = 06h if there is another medium than the known one, 80h if there
        // is none.
        label("floppy.select");
        mov(byte_ptr(bda::FLOPPY_TIMEOUT).es(), 0xFF);
        mov(al, 1);
        mov(cl, bl);
        shl(al, cl);
        or(byte_ptr(bda::FLOPPY_MOTORS).es(), al);
        call("fdc.output");
        cmp(byte_ptr(FLOPPY_RESET), 0);
        je(".working");
        call("fdc.reset");
        jc(".done");
        label(".working");
        // 360 KB drives have no change line.
        cmp(byte_ptr(bx + FLOPPY_TYPES), 1);
        jbe(".same");
        mov(dx, DIGITAL_INPUT);
        in_(al, dx);
        test(al, 0x80);
        jz(".same");
        // Only a step with a medium in the drive clears it.
        call("fdc.lost");
        mov(al, 1);
        call("fdc.seek");
        jc(".done");
        mov(al, 0);
        call("fdc.seek");
        jc(".done");
        mov(al, byte_ptr(bx + bda::FLOPPY_MEDIA).es());
        and(byte_ptr(bx + bda::FLOPPY_MEDIA).es(), !KNOWN & 0xFF);
        mov(byte_ptr(bx + FLOPPY_SECTORS), 0);
        mov(cl, al);
        mov(dx, DIGITAL_INPUT);
        in_(al, dx);
        mov(ah, status::TIMEOUT);
        test(al, 0x80);
        jnz(".failed");
        mov(ah, status::CHANGED);
        test(cl, KNOWN);
        jz(".same");
        label(".failed");
        stc();
        ret();
        label(".same");
        clc();
        label(".done");
        ret();

        // The data rate of the drive's medium.
        label("floppy.rate");
        mov(al, byte_ptr(bx + bda::FLOPPY_MEDIA).es());
        and(al, 0xC0);
        mov(byte_ptr(bda::FLOPPY_RATE).es(), al);
        shr(al, 6);
        mov(dx, DIGITAL_INPUT);
        out(dx, al);
        ret();

        // Makes the drive ready for a medium that is known.
        label("floppy.ready");
        call("floppy.select");
        jc(".done");
        test(byte_ptr(bx + bda::FLOPPY_MEDIA).es(), KNOWN);
        jz(".unknown");
        call("floppy.rate");
        cmp(byte_ptr(bx + FLOPPY_SECTORS), 0);
        je("floppy.count");
        clc();
        label(".done");
        ret();
        label(".unknown");
        movzx(si, byte_ptr(bx + FLOPPY_TYPES));
        shl(si, 2);
        label(".state");
        mov(al, byte_ptr(si + i32::from(states)).cs());
        test(al, al);
        jz(".unreadable");
        push(si);
        and(al, !KNOWN & 0xFF);
        mov(byte_ptr(bx + bda::FLOPPY_MEDIA).es(), al);
        call("floppy.rate");
        mov(al, 0);
        call("fdc.seek");
        jc(".next");
        call("fdc.read_id");
        label(".next");
        pop(si);
        jnc(".found");
        inc(si);
        cmp(byte_ptr(FLOPPY_RESET), 0);
        je(".state");
        push(si);
        call("fdc.reset");
        pop(si);
        jnc(".state");
        ret();
        label(".unreadable");
        mov(ah, status::ADDRESS_MARK);
        stc();
        ret();
        label(".found");
        // A diskette of 40 cylinders has its cylinder 1 under the third step of a 1.2 MB drive.
        mov(al, byte_ptr(bx + bda::FLOPPY_MEDIA).es());
        cmp(al, 0x44);
        jne(".known");
        mov(al, 2);
        call("fdc.seek");
        jc("floppy.ready.done");
        call("fdc.read_id");
        jc(".known");
        cmp(byte_ptr(bda::FLOPPY_CONTROLLER_STATUS + 3).es(), 1);
        jne(".known");
        or(byte_ptr(bx + bda::FLOPPY_MEDIA).es(), TWO_STEPS);
        label(".known");
        or(byte_ptr(bx + bda::FLOPPY_MEDIA).es(), KNOWN);

        // How many sectors the first track has: the last one that can be verified.
        label("floppy.count");
        movzx(si, byte_ptr(bx + bda::FLOPPY_MEDIA).es());
        shr(si, 6);
        shl(si, 2);
        label(".next");
        mov(al, byte_ptr(si + i32::from(sectors)).cs());
        test(al, al);
        jz("floppy.ready.unreadable");
        push(si);
        push(ax);
        mov(al, 0);
        call("fdc.seek");
        pop(ax);
        jc(".tried");
        push(ax);
        mov(byte_ptr(FLOPPY_COMMAND + 2), 0);
        mov(byte_ptr(FLOPPY_COMMAND + 1), bl);
        mov(byte_ptr(FLOPPY_COMMAND + 3), 0);
        mov(byte_ptr(FLOPPY_COMMAND + 4), al);
        mov(byte_ptr(FLOPPY_COMMAND + 6), al);
        call("floppy.verify");
        pop(ax);
        label(".tried");
        pop(si);
        jnc(".found");
        inc(si);
        jmp(".next");
        label(".found");
        mov(byte_ptr(bx + FLOPPY_SECTORS), al);
        ret();

        // VERIFY, whose cylinder, head, first and last sector are in the command.
        label("floppy.verify");
        mov(byte_ptr(FLOPPY_COMMAND), VERIFY_COMMAND);
        mov(byte_ptr(FLOPPY_COMMAND + 5), 2);
        mov(byte_ptr(FLOPPY_COMMAND + 7), 0x1B);
        mov(byte_ptr(FLOPPY_COMMAND + 8), 0xFF);
        mov(cx, 9);
        jmp("fdc.finish");
    }
}
