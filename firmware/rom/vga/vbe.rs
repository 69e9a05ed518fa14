//! INT 10h, AH=4Fh: VESA BIOS Extension 3.0 on Bochs's DISPI interface (ports 1CEh and 1CFh).
//!
//! | AL | takes | returns |
//! |---|---|---|
//! | 00h | ES:DI = 256 bytes, 512 beginning with `VBE2` | what the controller is |
//! | 01h | CX = mode, ES:DI = 256 bytes | what the mode is |
//! | 02h | BX = mode, bit 14: linear, bit 15: memory is not cleared | |
//! | 03h | | BX = mode and bits |
//! | 04h | DL = 0 size, 1 save, 2 restore; CX = states, ES:BX = area | BX = blocks |
//! | 05h | BH = 0 set, 1 get; BL = window, DX = bank | DX |
//! | 06h | BL = 0 set in dots, 1 get, 2 set in bytes, 3 get the most; CX | BX = bytes, CX = dots, DX = lines |
//! | 07h | BL = 0 or 80h set, 1 get; CX = column, DX = line | CX, DX; BH = 0 |
//! | 08h | BL = 0 set, 1 get; BH = bits of the DAC | BH |
//! | 09h | BL = 0 or 80h set, 1 get; CX = count, DX = first, ES:DI = blue, green, red, 0 | |
//! | 0Ah | BL = 0 | ES:DI, CX = protected-mode interface |
//! | 0Bh | BL = 0, ECX = Hz, DX = mode | ECX: all clocks are as good |
//! | 10h, 15h | display power, EDID: `vbe_state.rs` | |
//!
//! AX = 004Fh: done, 014Fh: failed, 034Fh: not in this mode, 0100h: there is no such function. Refresh rates (bit 11 of modes) do not matter to the adapter.

use super::hardware::port;
use super::tables::{COLOURS_256, PARAMETERS_LINEAR, PARAMETERS_PLANAR};
use super::{local, own};
use crate::rom::asm::*;
use crate::rom::layout::bda;

/// Ports of the DISPI interface.
pub const INDEX: u16 = 0x1CE;
pub const DATA: u16 = 0x1CF;
/// Its registers.
pub mod dispi {
    pub const XRES: u32 = 1;
    pub const YRES: u32 = 2;
    pub const BPP: u32 = 3;
    pub const ENABLE: u32 = 4;
    pub const BANK: u32 = 5;
    pub const VIRTUAL_WIDTH: u32 = 6;
    pub const X_OFFSET: u32 = 8;
    pub const Y_OFFSET: u32 = 9;
    pub const MEMORY: u32 = 10;
}
/// Bits of `ENABLE`.
const ENABLED: u32 = 0x01;
const CAPABILITIES: u32 = 0x02;
const EIGHT_BIT_DAC: u32 = 0x20;
/// Where the linear framebuffer is if the PCI bus does not say.
const FRAMEBUFFER: u32 = 0xE000_0000;

/// Mode number, width, height, bits to the dot.
type Mode = (u16, u16, u16, u8);

/// VESA's modes 100h-11Bh that the adapter has, then Bochs's from 140h on.
fn modes() -> Vec<Mode> {
    let mut modes = vec![(0x100, 640, 400, 8), (0x101, 640, 480, 8), (0x102, 800, 600, 4), (0x103, 800, 600, 8)];
    modes.extend([(0x104, 1024, 768, 4), (0x105, 1024, 768, 8), (0x106, 1280, 1024, 4), (0x107, 1280, 1024, 8)]);
    for (index, (width, height)) in
        [(320, 200), (640, 480), (800, 600), (1024, 768), (1280, 1024)].into_iter().enumerate()
    {
        for (depth, bits) in [15, 16, 24].into_iter().enumerate() {
            modes.push((0x10D + index as u16 * 3 + depth as u16, width, height, bits));
        }
    }
    modes.extend([(0x11C, 1600, 1200, 8), (0x11D, 1600, 1200, 15), (0x11E, 1600, 1200, 16), (0x11F, 1600, 1200, 24)]);
    let thirty_two = [(320, 200), (640, 400), (640, 480), (800, 600), (1024, 768), (1280, 1024)];
    modes.extend(thirty_two.into_iter().zip(0x140..).map(|((width, height), number)| (number, width, height, 32)));
    modes.extend([(0x146, 320, 200, 8), (0x147, 1600, 1200, 32), (0x148, 1152, 864, 8)]);
    let wide = [
        (1152, 864),
        (1280, 768),
        (1280, 800),
        (1280, 960),
        (1440, 900),
        (1400, 1050),
        (1680, 1050),
        (1920, 1200),
        (2560, 1600),
    ];
    let mut number = 0x149;
    for (index, (width, height)) in wide.into_iter().enumerate() {
        for bits in [15, 16, 24, 32] {
            modes.push((number, width, height, bits));
            number += 1;
        }
        if index + 1 == wide.len() {
            assert_eq!(number, 0x16D);
        }
    }
    number = 0x16D;
    for (width, height) in [(1280, 720), (1920, 1080)] {
        for bits in [15, 16, 24, 32] {
            modes.push((number, width, height, bits));
            number += 1;
        }
    }
    for (width, height) in [(1280, 720), (1280, 800), (1920, 1080), (1920, 1200), (2560, 1600)] {
        modes.push((number, width, height, 8));
        number += 1;
    }
    modes
}

/// Offsets and size of a mode in the ROM.
const WIDTH: i32 = 2;
const HEIGHT: i32 = 4;
const BITS: i32 = 6;
const SIZE: i32 = 7;

// What `vbe.limits` finds, in the places of what drawing finds.
fn max_width() -> AsmMemoryOperand {
    local::height()
}
fn max_height() -> AsmMemoryOperand {
    local::pitch()
}
fn max_bits() -> AsmMemoryOperand {
    local::start()
}
/// In blocks of 64 KiB.
fn memory() -> AsmMemoryOperand {
    local::count()
}

pub fn emit(rom: &mut Rom) {
    emit_dispatch(rom);
    emit_dispi(rom);
    emit_information(rom);
    emit_mode_information(rom);
    emit_set(rom);
    emit_window(rom);
    emit_lines(rom);
    emit_dac(rom);
    asm! { rom; label("vbe.modes"); }
    for (number, width, height, bits) in modes() {
        asm! { rom; dw(&[number, width, height]); db(&[bits]); }
    }
    asm! { rom;
        dw(&[0xFFFF]);
        label("vbe.oem");
        asciz("emu VBE BIOS");
        label("vbe.vendor");
        asciz("emu");
        label("vbe.product");
        asciz("emu VGA");
        label("vbe.revision");
        asciz(env!("CARGO_PKG_VERSION"));
    }
}

fn emit_dispatch(rom: &mut Rom) {
    asm! { rom;
        label("int10.vbe");
        dispatch_al(&[
            (0x00, "vbe.information"), (0x01, "vbe.mode_information"), (0x02, "vbe.set"), (0x03, "vbe.get"), (0x04, "vbe.state"),
            (0x05, "vbe.bank"), (0x06, "vbe.line_length"), (0x07, "vbe.display_start"), (0x08, "vbe.dac_width"), (0x09, "vbe.palette"),
            (0x0A, "vbe.protected"), (0x0B, "vbe.clock"), (0x10, "vbe.power"), (0x15, "vbe.ddc"),
        ]);
        label("vbe.unknown");
        mov(frame::ax(), 0x0100);
        jmp("service.done");
        label("vbe.fail");
        mov(frame::ax(), 0x014F);
        jmp("service.done");
        label("vbe.ok");
        mov(frame::ax(), 0x004F);
        jmp("service.done");
    }
}

fn emit_dispi(rom: &mut Rom) {
    asm! { rom;
        // AX = DISPI register AL. Changes DX.
        label("dispi.read");
        mov(ah, 0);
        out_ax(INDEX);
        inc(dx);
        in_(ax, dx);
        ret();

        // DISPI register AL = DX. Changes AX and DX.
        label("dispi.write");
        push(dx);
        mov(ah, 0);
        out_ax(INDEX);
        inc(dx);
        pop(ax);
        out(dx, ax);
        ret();

        // Standard VGA modes. Changes AX and DX.
        label("dispi.off");
        mov(al, dispi::ENABLE);
        xor(dx, dx);
        jmp("dispi.write");

        // What the adapter can do at most, into the locals. Changes AX, BX, DX.
        label("vbe.limits");
        mov(al, dispi::ENABLE);
        call("dispi.read");
        mov(bx, ax);
        or(ax, CAPABILITIES);
        mov(dx, ax);
        mov(al, dispi::ENABLE);
        call("dispi.write");
        mov(al, dispi::XRES);
        call("dispi.read");
        mov(max_width(), ax);
        mov(al, dispi::YRES);
        call("dispi.read");
        mov(max_height(), ax);
        mov(al, dispi::BPP);
        call("dispi.read");
        mov(max_bits(), ax);
        mov(al, dispi::ENABLE);
        mov(dx, bx);
        call("dispi.write");
        mov(al, dispi::MEMORY);
        call("dispi.read");
        mov(memory(), ax);
        ret();

        // Whether mode SI fits into the limits: CF if not; else EAX = bytes to the line, EDX = bytes of the screen.
        label("vbe.fits");
        mov(ax, word_ptr(si + WIDTH).cs());
        cmp(max_width(), ax);
        jb(".no");
        mov(ax, word_ptr(si + HEIGHT).cs());
        cmp(max_height(), ax);
        jb(".no");
        movzx(ax, byte_ptr(si + BITS).cs());
        cmp(max_bits(), ax);
        jb(".no");
        call("vbe.pitch");
        movzx(edx, word_ptr(si + HEIGHT).cs());
        imul_2(edx, eax);
        push(eax);
        mov(eax, edx);
        // Planes are behind one another.
        cmp(byte_ptr(si + BITS).cs(), 4);
        jne(".packed");
        shl(eax, 2);
        label(".packed");
        dec(eax);
        shr(eax, 16);
        cmp(ax, memory());
        pop(eax);
        jae(".no");
        clc();
        ret();
        label(".no");
        stc();
        ret();

        // EAX = bytes to the line of mode SI.
        label("vbe.pitch");
        push(edx);
        movzx(edx, word_ptr(si + WIDTH).cs());
        movzx(eax, byte_ptr(si + BITS).cs());
        cmp(al, 4);
        jne(".packed");
        mov(eax, edx);
        shr(eax, 3);
        pop(edx);
        ret();
        label(".packed");
        add(ax, 7);
        shr(ax, 3);
        imul_2(eax, edx);
        pop(edx);
        ret();

        // CS:SI = mode BX, which fits, or CF; EAX and EDX as `vbe.fits` has them.
        label("vbe.find");
        push(bx);
        call("vbe.limits");
        pop(bx);
        mov(si, u32::from(rom.offset("vbe.modes")));
        label(".next");
        mov(ax, word_ptr(si).cs());
        cmp(ax, -1);
        je(".none");
        cmp(ax, bx);
        je("vbe.fits");
        add(si, SIZE);
        jmp(".next");
        label(".none");
        stc();
        ret();
    }
}

fn emit_information(rom: &mut Rom) {
    asm! { rom;
        label("vbe.information");
        mov(ecx, dword_ptr(di).es());
        push(di);
        push(di);
        push(ecx);
        xor(ax, ax);
        mov(cx, 128);
        rep().stosw();
        pop(ecx);
        pop(di);
        call("vbe.limits");
        mov(dword_ptr(di).es(), u32::from_le_bytes(*b"VESA"));
        mov(word_ptr(di + 4).es(), 0x0300);
        mov(word_ptr(di + 6).es(), u32::from(rom.offset("vbe.oem")));
        mov(word_ptr(di + 8).es(), cs);
        // The DAC can have 8 bits.
        mov(byte_ptr(di + 0x0A).es(), 1);
        lea(ax, word_ptr(di + 0x22));
        mov(word_ptr(di + 0x0E).es(), ax);
        mov(word_ptr(di + 0x10).es(), es);
        mov(ax, memory());
        mov(word_ptr(di + 0x12).es(), ax);
        cmp(ecx, u32::from_le_bytes(*b"VBE2"));
        jne(".modes");
        mov(word_ptr(di + 0x14).es(), 1);
        mov(word_ptr(di + 0x16).es(), u32::from(rom.offset("vbe.vendor")));
        mov(word_ptr(di + 0x18).es(), cs);
        mov(word_ptr(di + 0x1A).es(), u32::from(rom.offset("vbe.product")));
        mov(word_ptr(di + 0x1C).es(), cs);
        mov(word_ptr(di + 0x1E).es(), u32::from(rom.offset("vbe.revision")));
        mov(word_ptr(di + 0x20).es(), cs);
        label(".modes");
        pop(di);
        add(di, 0x22);
        mov(si, u32::from(rom.offset("vbe.modes")));
        label(".next");
        mov(ax, word_ptr(si).cs());
        cmp(ax, -1);
        je(".end");
        push(ax);
        call("vbe.fits");
        pop(ax);
        jc(".skip");
        stosw();
        label(".skip");
        add(si, SIZE);
        jmp(".next");
        label(".end");
        stosw();
        jmp("vbe.ok");
    }
}

fn emit_mode_information(rom: &mut Rom) {
    asm! { rom;
        label("vbe.mode_information");
        mov(bx, cx);
        and(bx, 0x3FFF);
        call("vbe.find");
        jc("vbe.fail");
        push(eax);
        push(edx);
        push(di);
        xor(ax, ax);
        mov(cx, 128);
        rep().stosw();
        pop(di);
        pop(ecx);
        // Pages: how often the screen fits into memory.
        cmp(byte_ptr(si + BITS).cs(), 4);
        jne(".pages");
        shl(ecx, 2);
        label(".pages");
        movzx(eax, memory());
        shl(eax, 16);
        xor(edx, edx);
        div(ecx);
        dec(eax);
        cmp(eax, 255);
        jbe(".few");
        mov(al, 255u32);
        label(".few");
        mov(byte_ptr(di + 0x1D).es(), al);
        mov(byte_ptr(di + 0x34).es(), al);
        mov(byte_ptr(di + 0x35).es(), al);
        pop(eax);
        mov(word_ptr(di + 0x10).es(), ax);
        mov(word_ptr(di + 0x32).es(), ax);
        // Supported, with text output, colour, graphics; the window is one of 64 KiB at A000.
        mov(word_ptr(di).es(), 0x001F);
        mov(byte_ptr(di + 2).es(), 0x07);
        mov(word_ptr(di + 4).es(), 64);
        mov(word_ptr(di + 6).es(), 64);
        mov(word_ptr(di + 8).es(), 0xA000u32);
        mov(word_ptr(di + 0x0C).es(), u32::from(rom.offset("vbe.window")));
        mov(word_ptr(di + 0x0E).es(), cs);
        mov(ax, word_ptr(si + WIDTH).cs());
        mov(word_ptr(di + 0x12).es(), ax);
        mov(ax, word_ptr(si + HEIGHT).cs());
        mov(word_ptr(di + 0x14).es(), ax);
        mov(word_ptr(di + 0x16).es(), 0x1008);
        movzx(bx, byte_ptr(si + BITS).cs());
        mov(byte_ptr(di + 0x19).es(), bl);
        mov(word_ptr(di + 0x1A).es(), 0x0301);
        mov(byte_ptr(di + 0x18).es(), 4);
        mov(byte_ptr(di + 0x1E).es(), 1);
        // The highest clock, in Hz.
        mov(dword_ptr(di + 0x3E).es(), 400_000_000u32);
        cmp(bl, 4);
        je(".done");
        or(byte_ptr(di).es(), 0x80u32);
        mov(byte_ptr(di + 0x18).es(), 1);
        mov(byte_ptr(di + 0x1B).es(), 4);
        push(di);
        push(bx);
        call("vbe.framebuffer");
        pop(bx);
        pop(di);
        mov(dword_ptr(di + 0x28).es(), eax);
        cmp(bl, 8);
        je(".done");
        mov(byte_ptr(di + 0x1B).es(), 6);
        mov(si, u32::from(rom.offset("vbe.masks")));
        label(".mask");
        cmp(byte_ptr(si).cs(), bl);
        je(".masks");
        add(si, 9);
        jmp(".mask");
        label(".masks");
        mov(eax, dword_ptr(si + 1).cs());
        mov(dword_ptr(di + 0x1F).es(), eax);
        mov(dword_ptr(di + 0x36).es(), eax);
        mov(eax, dword_ptr(si + 5).cs());
        mov(dword_ptr(di + 0x23).es(), eax);
        mov(dword_ptr(di + 0x3A).es(), eax);
        // What is left of 32 bits is the program's.
        cmp(bl, 32);
        jne(".done");
        mov(byte_ptr(di + 0x27).es(), 0x02);
        label(".done");
        jmp("vbe.ok");

        // EAX = physical address of the linear framebuffer: the first base address register. Changes EBX, CX, DX.
        label("vbe.framebuffer");
        mov(cl, 0x10);
        call("pci.read");
        and(al, 0xF0u32);
        jz(".test");
        cmp(eax, 0xFFFF_FFF0u32);
        jne(".done");
        label(".default");
        mov(eax, FRAMEBUFFER);
        label(".done");
        ret();
        label(".test");
        or(eax, eax);
        jz(".default");
        ret();

        // Bits to the dot; size and position of red, green, blue, and what is left.
        label("vbe.masks");
        db(&[15, 5, 10, 5, 5, 5, 0, 1, 15]);
        db(&[16, 5, 11, 6, 5, 5, 0, 0, 0]);
        db(&[24, 8, 16, 8, 8, 8, 0, 0, 0]);
        db(&[32, 8, 16, 8, 8, 8, 0, 8, 24]);
    }
}

fn emit_set(rom: &mut Rom) {
    asm! { rom;
        label("vbe.set");
        mov(cx, bx);
        and(bx, 0x01FF);
        cmp(bh, 0);
        jne(".extended");
        // A mode of AH=00h.
        mov(al, bl);
        and(al, 0x7F);
        call("mode.find");
        jc("vbe.fail");
        and(ch, 0x80u32);
        or(al, ch);
        call("mode.set");
        jmp("vbe.ok");
        label(".extended");
        call("vbe.find");
        jc("vbe.fail");
        push(cx);
        push(bx);
        call("dispi.off");
        // VGA registers as in mode 13h, or in 12h if there are planes, with their colours.
        mov(ax, u32::from(PARAMETERS_LINEAR));
        mov(bl, u32::from(COLOURS_256));
        cmp(byte_ptr(si + BITS).cs(), 4);
        jne(".load");
        mov(al, u32::from(PARAMETERS_PLANAR));
        mov(bl, 1);
        label(".load");
        call("mode.load");
        pop(bx);
        pop(ax);
        push(ax);
        push(bx);
        mov(cx, 0x0607);
        call("bda.from_parameters");
        movzx(ecx, word_ptr(si + WIDTH).cs());
        shr(cx, 3);
        mov(word_ptr(bda::VIDEO_COLUMNS), cx);
        movzx(eax, word_ptr(si + HEIGHT).cs());
        shr(ax, 4);
        dec(ax);
        mov(byte_ptr(bda::VIDEO_ROWS), al);
        mov(word_ptr(bda::VIDEO_CHARACTER_HEIGHT), 16);
        mov(word_ptr(bda::VIDEO_PAGE_SIZE), 0);
        mov(al, 16);
        call("font.set_graphics");
        mov(dx, word_ptr(si + WIDTH).cs());
        mov(al, dispi::XRES);
        call("dispi.write");
        mov(dx, word_ptr(si + HEIGHT).cs());
        mov(al, dispi::YRES);
        call("dispi.write");
        movzx(dx, byte_ptr(si + BITS).cs());
        mov(al, dispi::BPP);
        call("dispi.write");
        pop(bx);
        pop(cx);
        // Bits 15 and 14 of the mode are 7 and 6 here.
        movzx(dx, ch);
        and(dl, 0xC0u32);
        or(dl, ENABLED);
        mov(al, dispi::ENABLE);
        call("dispi.write");
        mov(ax, cx);
        and(ax, 0xC000u32);
        or(ax, bx);
        mov(word_ptr(own::VBE_MODE), ax);
        // The BIOS data area's byte has no room for the number.
        mov(byte_ptr(bda::VIDEO_MODE), 0x7F);
        call("screen.on");
        jmp("vbe.ok");

        label("vbe.get");
        mov(ax, word_ptr(own::VBE_MODE));
        or(ax, ax);
        jnz(".known");
        mov(ah, byte_ptr(bda::VIDEO_CONTROL));
        and(ah, 0x80u32);
        mov(al, byte_ptr(bda::VIDEO_MODE));
        label(".known");
        mov(frame::bx(), ax);
        jmp("vbe.ok");
    }
}

fn emit_window(rom: &mut Rom) {
    asm! { rom;
        label("vbe.bank");
        cmp(word_ptr(own::VBE_MODE), 0);
        je("vbe.fail");
        // There are no windows in linear modes.
        test(byte_ptr(own::VBE_MODE + 1), 0x40);
        jnz(".linear");
        push(cs);
        call("vbe.window");
        mov(frame::dx(), dx);
        cmp(ax, 0x004F);
        je("vbe.ok");
        jmp("vbe.fail");
        label(".linear");
        mov(frame::ax(), 0x034F);
        jmp("service.done");

        // The window function: registers as in function 05h; a far call. Changes AX and DX only.
        label("vbe.window");
        or(bl, bl);
        jnz(".fail");
        cmp(bh, 1);
        ja(".fail");
        je(".get");
        push(dx);
        mov(al, dispi::MEMORY);
        call("dispi.read");
        pop(dx);
        cmp(dx, ax);
        jae(".fail");
        push(dx);
        mov(al, dispi::BANK);
        call("dispi.write");
        pop(dx);
        jmp(".ok");
        label(".get");
        mov(al, dispi::BANK);
        call("dispi.read");
        mov(dx, ax);
        label(".ok");
        mov(ax, 0x004F);
        retf();
        label(".fail");
        mov(ax, 0x014F);
        retf();
    }
}

fn emit_lines(rom: &mut Rom) {
    asm! { rom;
        label("vbe.line_length");
        cmp(word_ptr(own::VBE_MODE), 0);
        je("vbe.fail");
        mov(al, dispi::MEMORY);
        call("dispi.read");
        mov(memory(), ax);
        call("vbe.dot_bits");
        // BL: the subfunction; SI = bits to the dot in a line.
        cmp(bl, 3);
        ja("vbe.fail");
        cmp(bl, 1);
        je(".report");
        jb(".dots");
        cmp(bl, 3);
        je(".most");
        // Bytes to dots: those that fill so many bytes.
        movzx(eax, cx);
        shl(eax, 3);
        movzx(ecx, si);
        xor(edx, edx);
        add(eax, ecx);
        dec(eax);
        div(ecx);
        cmp(eax, 0xFFFF);
        ja("vbe.fail");
        mov(cx, ax);
        label(".dots");
        push(cx);
        mov(al, dispi::XRES);
        call("dispi.read");
        pop(cx);
        cmp(cx, ax);
        jb("vbe.fail");
        // A line of planes is whole bytes; dots and bytes of a line are told in 16 bits; and the lines of the screen must fit.
        movzx(ecx, cx);
        add(ecx, 7);
        and(ecx, -8);
        cmp(ecx, 0xFFFF);
        ja("vbe.fail");
        mov(eax, ecx);
        movzx(edx, si);
        imul_2(eax, edx);
        shr(eax, 3);
        cmp(eax, 0xFFFF);
        ja("vbe.fail");
        push(cx);
        call(".lines");
        push(ax);
        mov(al, dispi::YRES);
        call("dispi.read");
        mov(bx, ax);
        pop(ax);
        pop(cx);
        cmp(ax, bx);
        jb("vbe.fail");
        mov(dx, cx);
        mov(al, dispi::VIRTUAL_WIDTH);
        call("dispi.write");
        label(".report");
        mov(al, dispi::VIRTUAL_WIDTH);
        call("dispi.read");
        mov(cx, ax);
        label(".answer");
        mov(frame::cx(), cx);
        push(cx);
        call(".lines");
        mov(frame::dx(), ax);
        pop(cx);
        movzx(eax, cx);
        movzx(ecx, si);
        imul_2(eax, ecx);
        shr(eax, 3);
        mov(frame::bx(), ax);
        jmp("vbe.ok");
        // As wide as memory is for the screen's height, at most what 16 bits of bytes and of dots say.
        label(".most");
        mov(al, dispi::YRES);
        call("dispi.read");
        movzx(ecx, ax);
        movzx(eax, memory());
        shl(eax, 19);
        movzx(edx, si);
        imul_2(ecx, edx);
        xor(edx, edx);
        div(ecx);
        mov(edx, 0x7FFF8u32);
        push(eax);
        movzx(ecx, si);
        mov(eax, edx);
        xor(edx, edx);
        div(ecx);
        mov(edx, eax);
        pop(eax);
        cmp(eax, edx);
        jbe(".fits");
        mov(eax, edx);
        label(".fits");
        cmp(eax, 0xFFF8);
        jbe(".few");
        mov(ax, 0xFFF8u32);
        label(".few");
        and(ax, -8);
        mov(cx, ax);
        jmp(".answer");

        // AX = lines of CX dots that memory has. Changes ECX, EDX.
        label(".lines");
        movzx(eax, memory());
        shl(eax, 19);
        movzx(ecx, cx);
        movzx(edx, si);
        imul_2(ecx, edx);
        xor(edx, edx);
        div(ecx);
        cmp(eax, 0xFFFF);
        jbe(".some");
        mov(ax, 0xFFFFu32);
        label(".some");
        ret();

        // SI = bits to the dot as they lie in a line: 1 in planes (whose number memory is divided by), else 8, 16, 24, 32. Changes AX.
        label("vbe.dot_bits");
        push(dx);
        mov(al, dispi::BPP);
        call("dispi.read");
        pop(dx);
        add(al, 7);
        and(ax, 0x38);
        mov(si, ax);
        push(dx);
        mov(al, dispi::BPP);
        call("dispi.read");
        pop(dx);
        cmp(al, 4);
        jne(".done");
        mov(si, 1);
        shr(memory(), 2);
        label(".done");
        ret();

        label("vbe.display_start");
        cmp(word_ptr(own::VBE_MODE), 0);
        je("vbe.fail");
        and(bl, 0x7F);
        cmp(bl, 1);
        ja("vbe.fail");
        je(".get");
        push(dx);
        mov(dx, cx);
        mov(al, dispi::X_OFFSET);
        call("dispi.write");
        pop(dx);
        mov(al, dispi::Y_OFFSET);
        call("dispi.write");
        jmp("vbe.ok");
        label(".get");
        mov(al, dispi::X_OFFSET);
        call("dispi.read");
        mov(frame::cx(), ax);
        mov(al, dispi::Y_OFFSET);
        call("dispi.read");
        mov(frame::dx(), ax);
        mov(frame::bh(), 0);
        jmp("vbe.ok");
    }
}

fn emit_dac(rom: &mut Rom) {
    asm! { rom;
        label("vbe.dac_width");
        cmp(bl, 1);
        ja("vbe.fail");
        // Direct colours have no use for it (VBE 3.0, 4.11).
        cmp(word_ptr(own::VBE_MODE), 0);
        je(".palette");
        mov(al, dispi::BPP);
        call("dispi.read");
        cmp(al, 8);
        ja("vbe.bank.linear");
        label(".palette");
        mov(al, dispi::ENABLE);
        call("dispi.read");
        cmp(bl, 1);
        je(".get");
        // Nearest that there is: 8 or 6 bits. The memory must not be cleared.
        mov(dx, ax);
        and(dl, !EIGHT_BIT_DAC & 0xFF);
        or(dl, 0x80u32);
        cmp(bh, 8);
        jb(".six");
        or(dl, EIGHT_BIT_DAC);
        label(".six");
        mov(ax, dx);
        push(ax);
        mov(al, dispi::ENABLE);
        call("dispi.write");
        pop(ax);
        label(".get");
        mov(bh, 6);
        test(al, EIGHT_BIT_DAC);
        jz(".done");
        mov(bh, 8);
        label(".done");
        mov(frame::bh(), bh);
        jmp("vbe.ok");

        label("vbe.palette");
        and(bl, 0x7F);
        cmp(bl, 1);
        ja("vbe.fail");
        je(".get");
        mov(al, dl);
        out_al(port::DAC_WRITE);
        inc(dx);
        jcxz(".done");
        label(".set");
        mov(al, byte_ptr(di + 2).es());
        out(dx, al);
        mov(al, byte_ptr(di + 1).es());
        out(dx, al);
        mov(al, byte_ptr(di).es());
        out(dx, al);
        add(di, 4);
        loop_(".set");
        jmp("vbe.ok");
        label(".get");
        mov(al, dl);
        out_al(port::DAC_READ);
        mov(dx, u32::from(port::DAC_DATA));
        jcxz(".done");
        label(".next");
        in_(al, dx);
        mov(byte_ptr(di + 2).es(), al);
        in_(al, dx);
        mov(byte_ptr(di + 1).es(), al);
        in_(al, dx);
        mov(byte_ptr(di).es(), al);
        mov(byte_ptr(di + 3).es(), 0);
        add(di, 4);
        loop_(".next");
        label(".done");
        jmp("vbe.ok");
    }
}
