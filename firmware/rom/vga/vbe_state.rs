//! VBE's functions around the mode: state (04h), the protected-mode interface (0Ah), clocks (0Bh), power (10h, VBE/PM 1.0) and what the
//! display says of itself (15h, VBE/DDC 1.1).
//!
//! | AL, BL | takes | returns |
//! |---|---|---|
//! | 10h, 00h | | BL = 10h, BH = 07h: standby, suspend, off |
//! | 10h, 01h | BH = 0 on, 1, 2, 4 standby, suspend, off | |
//! | 10h, 02h | | BH |
//! | 15h, 00h | | BH = 1 second for a block, BL = 02h: DDC2 |
//! | 15h, 01h | DX = block 0, ES:DI = 128 bytes | EDID |
//!
//! The EDID is the one at the start of the adapter's third base address register (QEMU's `docs/specs/standard-vga`), copied while the
//! adapter is initialised; without it, one of a display of 1024x768.

use super::vbe::{DATA, INDEX, dispi};
use super::{local, own};
use crate::rom::asm::*;

/// Bytes of an EDID block.
const EDID_SIZE: u32 = 128;

pub fn emit(rom: &mut Rom) {
    emit_state(rom);
    emit_power(rom);
    emit_edid(rom);
    emit_protected(rom);
}

fn emit_state(rom: &mut Rom) {
    asm! { rom;
        label("vbe.state");
        and(cx, 0x0F);
        cmp(dl, 1);
        jb(".size");
        je(".save");
        cmp(dl, 2);
        jne("vbe.fail");
        call("state.restore");
        jmp("vbe.ok");
        label(".save");
        call("state.save");
        jmp("vbe.ok");
        label(".size");
        call("state.size");
        mov(frame::bx(), ax);
        jmp("vbe.ok");

        label("vbe.clock");
        or(bl, bl);
        jnz("vbe.fail");
        mov(bx, dx);
        and(bx, 0x3FFF);
        call("vbe.find");
        jc("vbe.fail");
        jmp("vbe.ok");
    }
}

fn emit_power(rom: &mut Rom) {
    asm! { rom;
        label("vbe.power");
        cmp(bl, 1);
        je(".set");
        ja(".get");
        mov(frame::bx(), 0x0710);
        jmp("vbe.ok");
        // The screen is off in all states but the first; which one it is, is remembered.
        label(".set");
        mov(ah, 0x20);
        cmp(bh, 4);
        ja("vbe.fail");
        or(bh, bh);
        jnz(".off");
        mov(ah, 0);
        label(".off");
        mov(byte_ptr(own::POWER), bh);
        mov(dx, 0x3C4);
        mov(al, 1);
        out(dx, al);
        inc(dx);
        in_(al, dx);
        and(al, 0xDFu32);
        or(al, ah);
        out(dx, al);
        jmp("vbe.ok");
        label(".get");
        cmp(bl, 2);
        jne("vbe.fail");
        mov(al, byte_ptr(own::POWER));
        mov(frame::bh(), al);
        jmp("vbe.ok");
    }
}

fn emit_edid(rom: &mut Rom) {
    asm! { rom;
        label("vbe.ddc");
        cmp(bl, 1);
        ja("vbe.fail");
        je(".read");
        mov(frame::bx(), 0x0102);
        jmp("vbe.ok");
        label(".read");
        or(dx, dx);
        jnz("vbe.fail");
        mov(si, u32::from(rom.offset("edid")));
        mov(cx, EDID_SIZE);
        push(cs);
        pop(ds);
        rep().movsb();
        jmp("vbe.ok");

        // Copies the adapter's EDID to ES:edid. Changes EAX, EBX, ECX, DX, SI, DI.
        label("edid.fetch");
        mov(cl, 0x18);
        call("pci.read");
        and(al, 0xF0u32);
        or(eax, eax);
        jz(".none");
        cmp(eax, 0xFFFF_FFF0u32);
        je(".none");
        mov(ecx, eax);
        push(fs);
        push(bp);
        mov(bp, sp);
        sub(sp, local::SIZE);
        call("flat.enter");
        jc(".done");
        cmp(dword_ptr(ecx).fs(), 0xFFFF_FF00u32);
        jne(".done");
        mov(di, u32::from(rom.offset("edid")));
        mov(bx, EDID_SIZE / 4);
        label(".next");
        mov(eax, dword_ptr(ecx).fs());
        stosd();
        add(ecx, 4);
        dec(bx);
        jnz(".next");
        label(".done");
        mov(sp, bp);
        pop(bp);
        pop(fs);
        label(".none");
        ret();

        // Lets FS reach all memory from address 0, or CF in virtual-8086 mode. It keeps its limit when it is loaded again, which only
        // lets more through than before. Changes EAX and BX.
        label("flat.enter");
        smsw(ax);
        test(al, 1);
        stc();
        jnz(".done");
        pushf();
        cli();
        sgdt(local::gdtr());
        lgdt(fword_ptr(rom.at("flat.gdt")).cs());
        mov(eax, cr0);
        or(al, 1);
        mov(cr0, eax);
        mov(bx, 8);
        mov(fs, bx);
        and(al, 0xFEu32);
        mov(cr0, eax);
        lgdt(local::gdtr());
        xor(bx, bx);
        mov(fs, bx);
        popf();
        clc();
        label(".done");
        ret();

        align(4);
        label("flat.descriptors");
        dd(&[0, 0, 0x0000_FFFF, 0x00CF_9300]);
        label("flat.gdt");
        dw(&[15]);
        dd(&[rom.linear("flat.descriptors")]);
        label("edid");
        db(&edid());
    }
}

/// EDID 1.3 (VESA E-EDID, release A) of a colour display whose best mode is 1024x768 at 60 Hz.
fn edid() -> Vec<u8> {
    let mut block = vec![0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00];
    // Maker "EMU", product 1, serial number 0, made in 2026; version 1.3.
    block.extend([0x15, 0xB5, 0x01, 0x00, 0, 0, 0, 0, 0, 36, 1, 3]);
    // Analogue, 32 by 24 cm, gamma 2.2, RGB, first timing preferred; sRGB's chromaticities.
    block.extend([0x08, 32, 24, 120, 0x0A, 0xEE, 0x91, 0xA3, 0x54, 0x4C, 0x99, 0x26, 0x0F, 0x50, 0x54]);
    // Established timings: 640x480, 800x600, 1024x768, all at 60 Hz.
    block.extend([0x21, 0x08, 0x00]);
    // Standard timings at 60 Hz: 1280x1024, 1600x1200, 1920x1080.
    block.extend([0x81, 0x80, 0xA9, 0x40, 0xD1, 0xC0]);
    block.extend([0x01; 10]);
    // VESA's timing of 1024x768 at 60 Hz: 65 MHz, 1344x806 in all.
    block.extend([
        0x64, 0x19, 0x00, 0x40, 0x41, 0x00, 0x26, 0x30, 0x18, 0x88, 0x36, 0x00, 0x40, 0xF0, 0x10, 0x00, 0x00, 0x18,
    ]);
    // 50-125 Hz, 30-160 kHz, up to 400 MHz; name.
    block.extend([0, 0, 0, 0xFD, 0, 50, 125, 30, 160, 40, 0, 0x0A, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20]);
    block.extend(b"\0\0\0\xFC\0emu display\n ");
    block.extend([0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    block.push(0);
    let sum = block.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    block.push(sum.wrapping_neg());
    assert_eq!(block.len(), EDID_SIZE as usize);
    block
}

fn emit_protected(rom: &mut Rom) {
    let code = protected_interface().unwrap_or_else(|error| panic!("VBE's protected-mode interface: {error}"));
    let length = u32::try_from(code.len()).expect("it is short");
    asm! { rom;
        label("vbe.protected");
        or(bl, bl);
        jnz("vbe.fail");
        mov(frame::es(), cs);
        mov(frame::di(), u32::from(rom.offset("vbe.interface")));
        mov(frame::cx(), length);
        jmp("vbe.ok");
        align(4);
        label("vbe.interface");
        db(&code);
    }
}

/// The protected-mode interface (VBE 3.0, function 0Ah): offsets of functions 05h, 07h and 09h and of the list of ports, then
/// position-independent 32-bit code that ends with near returns.
fn protected_interface() -> Result<Vec<u8>, iced_x86::IcedError> {
    let mut bodies = Vec::new();
    for emit in [set_window, set_display_start, set_palette] {
        let mut code = CodeAssembler::new(32)?;
        emit(&mut code)?;
        bodies.push(code.assemble(0)?);
    }
    // The ports, then no memory.
    let ports: Vec<u8> =
        [INDEX, DATA, 0x3C8, 0x3C9, 0xFFFF, 0xFFFF].iter().flat_map(|port| port.to_le_bytes()).collect();
    bodies.push(ports);
    let mut offset = 8u16;
    let mut interface = Vec::new();
    for body in &bodies {
        interface.extend(offset.to_le_bytes());
        offset += body.len() as u16;
    }
    interface.extend(bodies.concat());
    Ok(interface)
}

/// Writes DISPI register `register` from `value`; DX and AX change.
fn write_dispi(code: &mut CodeAssembler, register: u32, value: AsmRegister16) -> Emitted {
    code.mov(dx, u32::from(INDEX))?;
    code.mov(ax, register)?;
    code.out(dx, ax)?;
    code.inc(dx)?;
    code.mov(ax, value)?;
    code.out(dx, ax)
}

fn read_dispi(code: &mut CodeAssembler, register: u32) -> Emitted {
    code.mov(dx, u32::from(INDEX))?;
    code.mov(ax, register)?;
    code.out(dx, ax)?;
    code.inc(dx)?;
    code.in_(ax, dx)
}

/// BH = 0 set, 1 get; DX = bank.
fn set_window(code: &mut CodeAssembler) -> Emitted {
    let mut get = code.create_label();
    let mut done = code.create_label();
    code.push(ecx)?;
    code.test(bh, 1)?;
    code.jnz(get)?;
    code.mov(ecx, edx)?;
    write_dispi(code, dispi::BANK, cx)?;
    code.mov(edx, ecx)?;
    code.jmp(done)?;
    code.set_label(&mut get)?;
    read_dispi(code, dispi::BANK)?;
    code.movzx(edx, ax)?;
    code.set_label(&mut done)?;
    code.pop(ecx)?;
    code.mov(ax, 0x004F)?;
    code.ret()
}

/// DX:CX = where the screen begins in video memory, in doublewords.
fn set_display_start(code: &mut CodeAssembler) -> Emitted {
    code.pushad()?;
    code.movzx(ecx, cx)?;
    code.shl(edx, 16)?;
    code.or(ecx, edx)?;
    code.shl(ecx, 2)?;
    // Bytes to the dot and to the line.
    read_dispi(code, dispi::BPP)?;
    code.movzx(ebx, ax)?;
    code.add(ebx, 7)?;
    code.shr(ebx, 3)?;
    read_dispi(code, dispi::VIRTUAL_WIDTH)?;
    code.movzx(esi, ax)?;
    code.imul_2(esi, ebx)?;
    code.mov(eax, ecx)?;
    code.xor(edx, edx)?;
    code.div(esi)?;
    code.mov(ecx, eax)?;
    code.mov(eax, edx)?;
    code.xor(edx, edx)?;
    code.div(ebx)?;
    code.mov(ebx, eax)?;
    write_dispi(code, dispi::X_OFFSET, bx)?;
    write_dispi(code, dispi::Y_OFFSET, cx)?;
    code.popad()?;
    code.mov(ax, 0x004F)?;
    code.ret()
}

/// CX = count, DX = first, ES:EDI = blue, green, red, 0.
fn set_palette(code: &mut CodeAssembler) -> Emitted {
    let mut next = code.create_label();
    let mut done = code.create_label();
    code.pushad()?;
    code.movzx(ecx, cx)?;
    code.mov(eax, edx)?;
    code.mov(dx, 0x3C8)?;
    code.out(dx, al)?;
    code.inc(dx)?;
    code.jecxz(done)?;
    code.set_label(&mut next)?;
    for component in [2, 1, 0] {
        code.mov(al, byte_ptr(edi + component).es())?;
        code.out(dx, al)?;
    }
    code.add(edi, 4)?;
    code.dec(ecx)?;
    code.jnz(next)?;
    code.set_label(&mut done)?;
    code.popad()?;
    code.mov(ax, 0x004F)?;
    code.ret()
}
