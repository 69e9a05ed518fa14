//! The adapter's registers (IBM Personal System/2 Hardware Interface Technical Reference, Video Subsystem): loading a whole mode, the
//! attribute controller, the DAC, and the adapter's place on the PCI bus.

use super::tables::{PARAMETERS_SIZE, parameter};
use crate::rom::asm::*;
use crate::rom::layout::bda;

/// Ports. The CRT controller and input status 1 are at 3Bxh or 3Dxh: 40:63 says which.
pub mod port {
    pub const ATTRIBUTE: u16 = 0x3C0;
    pub const MISCELLANEOUS: u16 = 0x3C2;
    pub const SEQUENCER: u16 = 0x3C4;
    pub const DAC_MASK: u16 = 0x3C6;
    pub const DAC_READ: u16 = 0x3C7;
    pub const DAC_WRITE: u16 = 0x3C8;
    pub const DAC_DATA: u16 = 0x3C9;
    pub const MISCELLANEOUS_READ: u16 = 0x3CC;
    pub const GRAPHICS: u16 = 0x3CE;
    pub const PCI_ADDRESS: u16 = 0xCF8;
    pub const PCI_DATA: u16 = 0xCFC;
}

impl Rom {
    /// Writes a constant into a register of the sequencer or graphics controller. Changes AX and DX.
    pub fn indexed(&mut self, port: u16, register: u8, value: u8) -> Emitted {
        self.mov(ax, u32::from(value) << 8 | u32::from(register))?;
        self.out_ax(port)
    }
}

pub fn emit(rom: &mut Rom) {
    emit_load(rom);
    emit_attribute(rom);
    emit_dac(rom);
    emit_pci(rom);
}

fn emit_load(rom: &mut Rom) {
    asm! { rom;
        // ES:DI = entry AL of the video parameter table that the save pointer table names.
        label("parameters.find");
        movzx(ax, al);
        imul_3(ax, ax, PARAMETERS_SIZE as i32);
        les(di, dword_ptr(bda::VIDEO_SAVE_POINTER));
        les(di, dword_ptr(di).es());
        add(di, ax);
        ret();

        // Loads all registers but the DAC from the entry at ES:DI, with the screen off. Sets 40:63. Changes AX, BX, CX, DX, SI.
        label("registers.load");
        indexed(port::SEQUENCER, 0, 1);
        mov(ah, byte_ptr(di + parameter::SEQUENCER).es());
        or(ah, 0x20);
        mov(al, 1);
        out(dx, ax);
        mov(cx, 3);
        lea(si, word_ptr(di + (parameter::SEQUENCER + 1)));
        call(".registers");
        mov(al, byte_ptr(di + parameter::MISCELLANEOUS).es());
        out_al(port::MISCELLANEOUS);
        mov(bx, 0x3D4);
        test(al, 1);
        jnz(".colour");
        mov(bl, 0xB4u32);
        label(".colour");
        mov(word_ptr(bda::VIDEO_CRTC), bx);
        indexed(port::SEQUENCER, 0, 3);
        // The CRT controller's first registers are locked by bit 7 of 11h.
        mov(dx, bx);
        mov(ax, 0x0011);
        out(dx, ax);
        lea(si, word_ptr(di + parameter::CRTC));
        mov(cx, 25);
        xor(al, al);
        call(".registers");
        // The palette registers and the border stay if loading them is disabled (INT 10h, AX=1200h, BL=31h).
        call("attribute.reset");
        mov(dx, u32::from(port::ATTRIBUTE));
        xor(bx, bx);
        label(".attribute");
        mov(al, bl);
        cmp(al, 0x10);
        jb(".palette");
        cmp(al, 0x11);
        jne(".write");
        label(".palette");
        test(byte_ptr(bda::VIDEO_FLAGS), 0x08);
        jnz(".next");
        label(".write");
        out(dx, al);
        mov(al, byte_ptr(bx + si).es());
        out(dx, al);
        label(".next");
        inc(bx);
        cmp(bx, 20);
        jb(".attribute");
        mov(al, 0x14);
        out(dx, al);
        mov(al, 0);
        out(dx, al);
        add(si, bx);
        mov(dx, u32::from(port::GRAPHICS));
        mov(cx, 9);
        xor(al, al);
        // Writes CX bytes from ES:SI to registers AL and following of the index port DX.
        label(".registers");
        cmp(dx, i32::from(port::SEQUENCER));
        jne(".indexed");
        mov(al, 2);
        label(".indexed");
        mov(ah, byte_ptr(si).es());
        out(dx, ax);
        inc(si);
        inc(ax);
        loop_(".indexed");
        ret();

        // Turns the screen on. Changes AX and DX.
        label("screen.on");
        mov(dx, u32::from(port::SEQUENCER));
        mov(al, 1);
        out(dx, al);
        inc(dx);
        in_(al, dx);
        and(al, 0xDFu32);
        out(dx, al);
        label("attribute.on");
        call("attribute.reset");
        mov(al, 0x20);
        out_al(port::ATTRIBUTE);
        ret();
    }
}

fn emit_attribute(rom: &mut Rom) {
    asm! { rom;
        // The attribute controller takes an index next. Changes AL and DX.
        label("attribute.reset");
        mov(dx, word_ptr(bda::VIDEO_CRTC));
        add(dx, 6);
        in_(al, dx);
        ret();

        // Writes AH to register AL. Changes AL and DX.
        label("attribute.write");
        push(ax);
        call("attribute.reset");
        pop(ax);
        mov(dx, u32::from(port::ATTRIBUTE));
        out(dx, al);
        mov(al, ah);
        out(dx, al);
        jmp("attribute.on");

        // AL = register AL. Changes AH and DX.
        label("attribute.read");
        push(ax);
        call("attribute.reset");
        pop(ax);
        out_al(port::ATTRIBUTE);
        inc(dx);
        in_(al, dx);
        push(ax);
        call("attribute.on");
        pop(ax);
        ret();
    }
}

fn emit_dac(rom: &mut Rom) {
    asm! { rom;
        // Loads the colours of index BL, and black after them, unless that is disabled. Changes all but BP, DS, ES.
        label("colours.load");
        test(byte_ptr(bda::VIDEO_FLAGS), 0x08);
        jnz(".done");
        movzx(bx, bl);
        shl(bx, 2);
        add(bx, i32::from(rom.offset("video.colours") as i16));
        mov(si, word_ptr(bx).cs());
        mov(cx, word_ptr(bx + 2).cs());
        mov(bx, 768);
        sub(bx, cx);
        mov(al, 0xFFu32);
        out_al(port::DAC_MASK);
        mov(al, 0);
        out_al(port::DAC_WRITE);
        inc(dx);
        label(".next");
        mov(al, byte_ptr(si).cs());
        inc(si);
        out(dx, al);
        loop_(".next");
        mov(cx, bx);
        jcxz(".grey");
        xor(al, al);
        label(".black");
        out(dx, al);
        loop_(".black");
        label(".grey");
        test(byte_ptr(bda::VIDEO_FLAGS), 0x02);
        jz(".done");
        xor(bx, bx);
        mov(cx, 256);
        jmp("colours.grey");
        label(".done");
        ret();

        // Makes CX colours from BX on grey. Changes AX, BX, CX, DX, SI, DI.
        label("colours.grey");
        jcxz(".done");
        label(".next");
        call("colour.read");
        call("colour.grey");
        call("colour.write");
        inc(bx);
        loop_(".next");
        label(".done");
        ret();

        // DI = red, SI = green, AX = blue of colour BL. Changes DX.
        label("colour.read");
        mov(al, bl);
        out_al(port::DAC_READ);
        mov(dx, u32::from(port::DAC_DATA));
        xor(ax, ax);
        in_(al, dx);
        mov(di, ax);
        in_(al, dx);
        mov(si, ax);
        in_(al, dx);
        ret();

        // Makes a colour the grey of its brightness: 30% red, 59% green, 11% blue. Changes DX.
        label("colour.grey");
        imul_3(di, di, 77);
        imul_3(si, si, 151);
        imul_3(ax, ax, 28);
        add(ax, di);
        add(ax, si);
        add(ax, 128);
        shr(ax, 8);
        mov(di, ax);
        mov(si, ax);
        ret();

        // Colour BL = DI, SI, AX. Changes DX.
        label("colour.write");
        push(ax);
        mov(al, bl);
        out_al(port::DAC_WRITE);
        inc(dx);
        mov(ax, di);
        out(dx, al);
        mov(ax, si);
        out(dx, al);
        pop(ax);
        out(dx, al);
        ret();
    }
}

fn emit_pci(rom: &mut Rom) {
    asm! { rom;
        // Makes sure that ES:pci.address is the adapter's: looks for it on bus 0 if not. Changes EAX, EBX, CX, DX.
        label("pci.find");
        xor(cl, cl);
        call("pci.read");
        cmp(eax, 0x1111_1234);
        je(".done");
        mov(word_ptr(rom.at("pci.address")).es(), 0);
        label(".next");
        call("pci.read");
        cmp(eax, 0x1111_1234);
        je(".done");
        add(word_ptr(rom.at("pci.address")).es(), 8);
        cmp(byte_ptr(rom.at("pci.address")).es(), 0);
        jne(".next");
        label(".done");
        ret();

        // EAX = register CL of the adapter's configuration space (PCI Local Bus 3.0, 3.2.2.3.2). Changes EBX and DX.
        label("pci.read");
        movzx(ebx, word_ptr(rom.at("pci.address")).cs());
        shl(ebx, 8);
        or(ebx, 0x8000_0000u32);
        mov(bl, cl);
        mov(eax, ebx);
        out_eax(port::PCI_ADDRESS);
        in_eax(port::PCI_DATA);
        ret();

        label("pci.address");
        dw(&[0]);
    }
}
