//! INT 10h, AH=1Ch, and what VBE's function 04h shares with it: saving and restoring the adapter's state.
//!
//! | AL | takes | returns |
//! |---|---|---|
//! | 00h | CX = states | AL = 1Ch, BX = blocks of 64 bytes |
//! | 01h, 02h | CX = states, ES:BX = area | AL = 1Ch; saved there, restored from there |
//!
//! States: bit 0 registers, bit 1 BIOS data area, bit 2 DAC; VBE's bit 3, the DISPI interface. Each state's blocks follow the one before.

use super::hardware::port;
use super::own;
use crate::rom::asm::*;
use crate::rom::layout::bda;

/// Blocks of each state.
const BLOCKS: [u32; 4] = [1, 1, 13, 1];
/// Where the parts of the registers are in their block: miscellaneous output, sequencer, CRT controller, attribute controller,
/// graphics controller, the CRT controller's port.
const SEQUENCER: i32 = 1;
const CRTC: i32 = SEQUENCER + 5;
const ATTRIBUTE: i32 = CRTC + 25;
const GRAPHICS: i32 = ATTRIBUTE + 21;
const CRTC_PORT: i32 = GRAPHICS + 9;

pub fn emit(rom: &mut Rom) {
    asm! { rom;
        label("int10.state");
        and(cx, 7);
        cmp(al, 1);
        jb(".size");
        je(".save");
        cmp(al, 2);
        jne(".done");
        call("state.restore");
        jmp(".known");
        label(".save");
        call("state.save");
        jmp(".known");
        label(".size");
        call("state.size");
        mov(frame::bx(), ax);
        label(".known");
        mov(frame::al(), 0x1C);
        label(".done");
        jmp("service.done");

        // AX = blocks of the states CX.
        label("state.size");
        xor(ax, ax);
    }
    for (bit, blocks) in BLOCKS.iter().enumerate() {
        let skip = format!(".without{bit}");
        asm! { rom;
            test(cl, 1 << bit);
            jz(&skip);
            add(ax, *blocks);
            label(&skip);
        }
    }
    asm! { rom; ret(); }
    emit_save(rom);
    emit_restore(rom);
}

fn emit_save(rom: &mut Rom) {
    asm! { rom;
        // Saves the states CX at ES:BX. Changes all but BP, DS, ES.
        label("state.save");
        mov(di, bx);
        push(cx);
        test(cl, 1);
        jz(".bda");
        push(di);
        in_al(port::MISCELLANEOUS_READ);
        stosb();
        mov(dx, u32::from(port::SEQUENCER));
        mov(cx, 5);
        call(".indexed");
        mov(dx, word_ptr(bda::VIDEO_CRTC));
        mov(cx, 25);
        call(".indexed");
        xor(bx, bx);
        label(".attribute");
        mov(al, bl);
        call("attribute.read");
        stosb();
        inc(bx);
        cmp(bl, 21);
        jb(".attribute");
        mov(dx, u32::from(port::GRAPHICS));
        mov(cx, 9);
        call(".indexed");
        mov(ax, word_ptr(bda::VIDEO_CRTC));
        stosw();
        pop(di);
        add(di, 64);
        label(".bda");
        pop(cx);
        push(cx);
        test(cl, 2);
        jz(".dac");
        push(di);
        mov(si, bda::VIDEO_MODE);
        mov(cx, 30);
        rep().movsb();
        mov(si, bda::VIDEO_ROWS);
        mov(cx, 7);
        rep().movsb();
        mov(eax, dword_ptr(bda::VIDEO_SAVE_POINTER));
        stosd();
        mov(ax, word_ptr(own::VBE_MODE));
        stosw();
        push(ds);
        push(0);
        pop(ds);
        mov(eax, dword_ptr(0x1F * 4));
        stosd();
        mov(eax, dword_ptr(0x43 * 4));
        stosd();
        pop(ds);
        pop(di);
        add(di, 64);
        label(".dac");
        pop(cx);
        push(cx);
        test(cl, 4);
        jz(".dispi");
        push(di);
        in_al(port::DAC_MASK);
        stosb();
        mov(al, 0);
        out_al(port::DAC_READ);
        mov(dx, u32::from(port::DAC_DATA));
        mov(cx, 768);
        label(".colour");
        in_(al, dx);
        stosb();
        loop_(".colour");
        pop(di);
        add(di, 13 * 64);
        label(".dispi");
        pop(cx);
        test(cl, 8);
        jz(".done");
        mov(bl, 1);
        label(".word");
        mov(al, bl);
        call("dispi.read");
        stosw();
        inc(bx);
        cmp(bl, 10);
        jb(".word");
        label(".done");
        ret();

        // Stores CX registers of the index port DX.
        label(".indexed");
        xor(ah, ah);
        label(".register");
        mov(al, ah);
        out(dx, al);
        inc(dx);
        in_(al, dx);
        dec(dx);
        stosb();
        inc(ah);
        loop_(".register");
        ret();
    }
}

fn emit_restore(rom: &mut Rom) {
    asm! { rom;
        // Restores the states CX from ES:BX. Changes all but BP, DS, ES.
        label("state.restore");
        mov(si, bx);
        // The DISPI interface first (it is behind the others), since enabling it changes VGA registers.
        test(cl, 8);
        jz(".registers");
        push(cx);
        and(cl, 7);
        call("state.size");
        pop(cx);
        shl(ax, 6);
        mov(di, si);
        add(di, ax);
        call("dispi.off");
        mov(bl, 1);
        label(".word");
        cmp(bl, 4);
        je(".skip");
        mov(al, bl);
        mov(dx, word_ptr(di).es());
        call("dispi.write");
        label(".skip");
        add(di, 2);
        inc(bx);
        cmp(bl, 4);
        jne(".not_depth");
        // Enabled once size and depth are known, with memory kept; offsets and banks count from then on.
        mov(dx, word_ptr(di).es());
        or(dl, 0x80u32);
        mov(al, 4);
        call("dispi.write");
        label(".not_depth");
        cmp(bl, 10);
        jb(".word");
        label(".registers");
        test(cl, 1);
        jz(".bda");
        push(cx);
        mov(bx, word_ptr(si + CRTC_PORT).es());
        mov(word_ptr(bda::VIDEO_CRTC), bx);
        push(si);
        indexed(port::SEQUENCER, 0, 1);
        mov(al, byte_ptr(si).es());
        out_al(port::MISCELLANEOUS);
        add(si, SEQUENCER + 1);
        mov(dx, u32::from(port::SEQUENCER));
        mov(ah, 1);
        mov(cx, 4);
        call(".indexed");
        indexed(port::SEQUENCER, 0, 3);
        mov(dx, bx);
        mov(ax, 0x0011);
        out(dx, ax);
        xor(ah, ah);
        mov(cx, 25);
        call(".indexed");
        xor(bx, bx);
        label(".attribute");
        mov(al, bl);
        mov(ah, byte_ptr(si).es());
        call("attribute.write");
        inc(si);
        inc(bx);
        cmp(bl, 21);
        jb(".attribute");
        mov(dx, u32::from(port::GRAPHICS));
        xor(ah, ah);
        mov(cx, 9);
        call(".indexed");
        pop(si);
        add(si, 64);
        pop(cx);
        label(".bda");
        push(cx);
        test(cl, 2);
        jz(".dac");
        push(es);
        push(ds);
        push(es);
        push(ds);
        pop(es);
        pop(ds);
        push(si);
        mov(di, bda::VIDEO_MODE);
        mov(cx, 30);
        rep().movsb();
        mov(di, bda::VIDEO_ROWS);
        mov(cx, 7);
        rep().movsb();
        mov(di, bda::VIDEO_SAVE_POINTER);
        movsd();
        mov(di, own::VBE_MODE);
        movsw();
        push(0);
        pop(es);
        mov(di, 0x1F * 4);
        movsd();
        mov(di, 0x43 * 4);
        movsd();
        pop(si);
        pop(ds);
        pop(es);
        add(si, 64);
        label(".dac");
        pop(cx);
        test(cl, 4);
        jz(".done");
        mov(al, byte_ptr(si).es());
        inc(si);
        out_al(port::DAC_MASK);
        mov(al, 0);
        out_al(port::DAC_WRITE);
        inc(dx);
        mov(cx, 768);
        label(".colour");
        lods_es();
        out(dx, al);
        loop_(".colour");
        label(".done");
        ret();

        // Writes CX registers of the index port DX, from AH on.
        label(".indexed");
        mov(al, ah);
        mov(ah, byte_ptr(si).es());
        push(ax);
        out(dx, ax);
        pop(ax);
        inc(si);
        mov(ah, al);
        inc(ah);
        loop_(".indexed");
        ret();
    }
}
