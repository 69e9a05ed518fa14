//! The VGA BIOS, an option ROM at C000:0000 for the adapter that QEMU calls `VGA` (PCI 1234:1111): INT 10h.
//!
//! Its size and checksum are filled in when the image is made. Registers of the functions are documented at the head of each source;
//! they follow IBM's PS/2 and PC BIOS Interface Technical Reference (INT 10h) and VESA's BIOS Extension 3.0.

mod cells;
mod characters;
mod draw;
mod font;
mod fonts;
mod hardware;
mod info;
mod modes;
mod palette;
mod state;
mod tables;
mod vbe;
mod vbe_state;

pub use font::FONT_8X16;

use crate::rom::asm::*;
use crate::rom::layout::{BDA_SEGMENT, bda};

/// Fields of the BIOS data area that are ours, in a range that is otherwise reserved.
mod own {
    /// The VBE mode with the flags that it was set with (word); 0: none.
    pub const VBE_MODE: i32 = 0xBA;
    /// The display's power state of AX=4F10h.
    pub const POWER: i32 = 0xB9;
}

/// What functions keep on the stack below the caller's frame; see [`crate::rom::asm::frame`].
mod local {
    use crate::rom::asm::{AsmMemoryOperand, bp, byte_ptr, dword_ptr, fword_ptr, word_ptr};

    macro_rules! fields {
        ($($name:ident $size:ident $offset:literal;)*) => {
            $(pub fn $name() -> AsmMemoryOperand {
                $size(bp - $offset)
            })*
        };
    }
    // The page, whether the attribute counts, the attribute or colour; the rectangle that scrolls.
    fields! {
        page byte_ptr 1; with_attribute byte_ptr 2; attribute byte_ptr 3; lines byte_ptr 4;
        left byte_ptr 5; right byte_ptr 6; top byte_ptr 7; bottom byte_ptr 8;
    }
    // What `draw.setup` finds: Model, bits to the dot, segment, bytes from line to line, lines of a character (1 for text), where the
    // page begins.
    fields! { model byte_ptr 9; bits byte_ptr 10; segment word_ptr 12; pitch word_ptr 14; height word_ptr 16; start word_ptr 18; }
    // The bank that the window shows; scratch.
    fields! { bank word_ptr 20; count word_ptr 22; colour dword_ptr 28; }

    // The caller's GDTR, in `flat.enter`.
    fields! { gdtr fword_ptr 36; }

    /// Bytes of all.
    pub const SIZE: i32 = 40;
}

pub fn emit(rom: &mut Rom) {
    asm! { rom;
        // Option ROM header (Plug and Play BIOS Specification 1.0A, 3.2): signature, size, entry point for initialisation.
        db(&[0x55, 0xAA, 0]);
        jmp("rom.init");
        align(0x18);
        dw(&[rom.offset("rom.pci")]);
        zeros(4);
        // Old software looks here for the maker whose interface this is.
        db(b"IBM VGA compatible BIOS of emu\0");
        align(4);
        // PCI data structure (PCI Firmware Specification 3.0, 5.1.2): vendor, device, length, class, length in blocks, x86, last image.
        label("rom.pci");
        db(b"PCIR");
        dw(&[0x1234, 0x1111, 0, 0x18]);
        db(&[0, 0x00, 0x00, 0x03]);
        dw(&[rom.offset("rom.end").div_ceil(512), 1]);
        db(&[0, 0x80]);
        dw(&[0]);
    }
    emit_init(rom);
    emit_dispatch(rom);
    rom.service_ends();
    hardware::emit(rom);
    modes::emit(rom);
    draw::emit(rom);
    cells::emit(rom);
    characters::emit(rom);
    palette::emit(rom);
    fonts::emit(rom);
    info::emit(rom);
    state::emit(rom);
    vbe::emit(rom);
    vbe_state::emit(rom);
    emit_tables(rom);
}

/// Initialisation: AX = the adapter's PCI address. All registers are kept.
fn emit_init(rom: &mut Rom) {
    asm! { rom;
        label("rom.init");
        pushf();
        pushad();
        push(ds);
        push(es);
        cld();
        cli();
        push(cs);
        pop(es);
        // The image lies in memory that can be written until POST protects it (PCI Firmware Specification 3.0, 5.2.1.21).
        mov(word_ptr(rom.at("pci.address")).es(), ax);
        xor(ax, ax);
        mov(ds, ax);
        // INT 10h, with the one before it at 42h; 1Dh, CRT controller values of CGA's modes; 1Fh and 43h, fonts.
        mov(eax, dword_ptr(0x10 * 4));
        mov(dword_ptr(0x42 * 4), eax);
        mov(ax, cs);
        shl(eax, 16);
        mov(ax, u32::from(rom.offset("int10")));
        mov(dword_ptr(0x10 * 4), eax);
        mov(ax, u32::from(rom.offset("cga.parameters")));
        mov(dword_ptr(0x1D * 4), eax);
        mov(ax, u32::from(rom.offset("font.8x8")) + 1024);
        mov(dword_ptr(0x1F * 4), eax);
        mov(ax, u32::from(rom.offset("font.8x16")));
        mov(dword_ptr(0x43 * 4), eax);
        push(i32::from(BDA_SEGMENT));
        pop(ds);
        mov(ax, u32::from(rom.offset("save.pointer")));
        mov(dword_ptr(bda::VIDEO_SAVE_POINTER), eax);
        and(byte_ptr(bda::EQUIPMENT), 0xCFu32);
        or(byte_ptr(bda::EQUIPMENT), 0x20);
        // 256 KiB; switches of a colour display; 400 lines, VGA active; a VGA with a colour display.
        mov(byte_ptr(bda::VIDEO_CONTROL), 0x60);
        mov(byte_ptr(bda::VIDEO_SWITCHES), 0xF9u32);
        mov(byte_ptr(bda::VIDEO_FLAGS), 0x51);
        mov(byte_ptr(bda::VIDEO_COMBINATION), 0x0B);
        mov(word_ptr(own::VBE_MODE), 0);
        mov(byte_ptr(own::POWER), 0);
        call("pci.find");
        call("edid.fetch");
        call("rom.balance");
        mov(ax, 0x0003);
        int(0x10);
        pop(es);
        pop(ds);
        popad();
        popf();
        retf();

        // Makes the image's sum zero again. Changes AX, BX, CX, SI.
        label("rom.balance");
        movzx(cx, byte_ptr(2).cs());
        shl(cx, 9);
        xor(si, si);
        xor(al, al);
        label(".next");
        add(al, byte_ptr(si).cs());
        inc(si);
        loop_(".next");
        sub(byte_ptr(si - 1).es(), al);
        ret();
    }
}

fn emit_dispatch(rom: &mut Rom) {
    asm! { rom;
        service("int10");
        sti();
        sub(sp, local::SIZE);
        dispatch_ah(&[
            (0x0E, "int10.teletype"), (0x09, "int10.write"), (0x02, "int10.position"), (0x03, "int10.where"), (0x0F, "int10.get_mode"),
            (0x06, "int10.scroll"), (0x07, "int10.scroll"), (0x0A, "int10.write"), (0x08, "int10.read"), (0x00, "int10.set_mode"),
            (0x01, "int10.shape"), (0x04, "int10.light_pen"), (0x05, "int10.page"), (0x0B, "int10.cga_palette"),
            (0x0C, "int10.write_dot"), (0x0D, "int10.read_dot"), (0x10, "int10.palette"), (0x11, "int10.font"),
            (0x12, "int10.select"), (0x13, "int10.string"), (0x1A, "int10.combination"), (0x1B, "int10.functionality"),
            (0x1C, "int10.state"), (0x4F, "int10.vbe"),
        ]);
        // Other functions change nothing.
        jmp("service.done");
    }
}

fn emit_tables(rom: &mut Rom) {
    asm! { rom;
        align(4);
        // Save pointer table (INT 10h, AH=00h): video parameters; then areas that nobody has given us; secondary table.
        label("save.pointer");
        dw(&[rom.offset("video.parameters"), 0xC000, 0, 0, 0, 0, 0, 0, rom.offset("save.secondary"), 0xC000]);
        zeros(8);
        // Secondary save pointer table: length, display combination table.
        label("save.secondary");
        dw(&[0x1A, rom.offset("display.combinations"), 0xC000]);
        zeros(20);
        // Display combination table: entries, version, highest code, then pairs of displays, that in use first.
        label("display.combinations");
        db(&[16, 1, 8, 0, 0, 0, 1, 0, 2, 0, 1, 2, 4, 0, 1, 4, 5, 0, 5, 2, 6, 0, 6, 1, 6, 5, 8, 0, 8, 1, 7, 0, 7, 2, 7, 6]);
        label("video.parameters");
    }
    for entry in tables::parameters() {
        asm! { rom; db(&entry); }
    }
    asm! { rom; label("video.modes"); }
    for mode in tables::modes() {
        asm! { rom; db(&mode.bytes()); }
    }
    asm! { rom;
        db(&[0xFF]);
        // INT 1Dh: the 6845's registers in CGA's modes (40 columns, 80 columns, graphics, monochrome), page sizes, columns, mode register.
        label("cga.parameters");
        db(&[0x38, 0x28, 0x2D, 0x0A, 0x1F, 0x06, 0x19, 0x1C, 0x02, 0x07, 0x06, 0x07, 0, 0, 0, 0]);
        db(&[0x71, 0x50, 0x5A, 0x0A, 0x1F, 0x06, 0x19, 0x1C, 0x02, 0x07, 0x06, 0x07, 0, 0, 0, 0]);
        db(&[0x38, 0x28, 0x2D, 0x0A, 0x7F, 0x06, 0x64, 0x70, 0x02, 0x01, 0x06, 0x07, 0, 0, 0, 0]);
        db(&[0x61, 0x50, 0x52, 0x0F, 0x19, 0x06, 0x19, 0x19, 0x02, 0x0D, 0x0B, 0x0C, 0, 0, 0, 0]);
        dw(&[0x0800, 0x1000, 0x4000, 0x4000]);
        db(&[40, 40, 80, 80, 40, 40, 80, 80]);
        db(&[0x2C, 0x28, 0x2D, 0x29, 0x2A, 0x2E, 0x1E, 0x29]);
    }
    let colours = tables::colours();
    asm! { rom; label("video.colours"); }
    for (index, colours) in colours.iter().enumerate() {
        asm! { rom; dw(&[rom.offset(&format!("video.colours{index}")), colours.len() as u16 * 3]); }
    }
    for (index, colours) in colours.iter().enumerate() {
        asm! { rom; label(&format!("video.colours{index}")); db(&colours.concat()); }
    }
    asm! { rom;
        label("font.8x16");
        db(&font::FONT_8X16);
        label("font.8x14");
        db(&font::FONT_8X14);
        label("font.8x8");
        db(&font::FONT_8X8);
        label("rom.end");
    }
}
