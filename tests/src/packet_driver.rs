//! A DOS-style packet driver for the NE2000, and a program that uses it: a ROM of 64 KiB that takes the place of a BIOS.
//!
//! The driver serves INT 60h after FTP Software's Packet Driver Specification 1.09: AH = 2 access_type (for all types, ES:DI the receiver),
//! 4 send_pkt (DS:SI, CX), 6 get_address (ES:DI, CX); it calls the receiver twice for each frame, with AX = 0 for a buffer and AX = 1 when that is filled.
//! It drives the card by ports alone: a card for the ISA bus at 300h with IRQ 3. The program announces itself by a broadcast, then sends back each frame that it
//! gets, with the addresses swapped, and ends the machine at a frame of type [`END`].
//!
//! ```text
//!  0000:0600 variables    0000:0800 the announcement    0000:1000 16 buffers of 1536 bytes    0000:F000 stack    F000:0000 this ROM
//! ```

use iced_x86::code_asm::*;
use iced_x86::{BlockEncoderOptions, IcedError};

/// Types of the program's announcement and of the frame that ends it.
pub const ANNOUNCEMENT: u16 = 0x88b5;
pub const END: u16 = 0x88b6;

const ROM_SIZE: usize = 64 << 10;
/// Where a processor starts.
const RESET: usize = 0xfff0;
const SEGMENT: u32 = 0xf000;
const IO: i32 = 0x300;
const DATA: i32 = IO + 0x10;
const IRQ_VECTOR: u32 = 0x0b;
const DRIVER_VECTOR: u32 = 0x60;
/// The receive ring, and the page that frames are sent from.
const PSTART: i32 = 0x46;
const PSTOP: i32 = 0x80;
const TPSR: i32 = 0x40;

/// Variables: the receiver, whether a frame is being sent, the next page of the ring, its header.
const RECEIVER: u32 = 0x600;
const SENDING: u32 = 0x604;
const NEXT: u32 = 0x605;
const HEADER: u32 = 0x606;
/// The card's address; which buffers have been filled, and emptied; how long what is in each is.
const ADDRESS: u32 = 0x610;
const FILLED: u32 = 0x618;
const EMPTIED: u32 = 0x61a;
const LENGTHS: u32 = 0x640;
const FRAME: u32 = 0x800;
const BUFFERS: u32 = 0x1000;
const BUFFER_SHIFT: u32 = 9;
const STACK: u32 = 0xf000;
const EXIT: i32 = 0xf4;

/// Offsets that instructions hold as numbers.
#[derive(Clone, Copy, Default)]
struct Entries {
    interrupt: u32,
    driver: u32,
    receiver: u32,
}

/// The ROM.
///
/// # Errors
/// The program cannot be assembled: an error in it.
pub fn rom() -> Result<Vec<u8>, IcedError> {
    let (_, entries) = assemble(Entries::default())?;
    let (code, _) = assemble(entries)?;
    let mut rom = vec![0xff; ROM_SIZE];
    rom[..code.len()].copy_from_slice(&code);
    rom[RESET..RESET + 5].copy_from_slice(&[0xea, 0, 0, 0, 0xf0]);
    Ok(rom)
}

/// `OUT port, AL` with `value` in AL.
fn out(a: &mut CodeAssembler, port: i32, value: i32) -> Result<(), IcedError> {
    a.mov(dx, port)?;
    a.mov(al, value)?;
    a.out(dx, al)
}

/// `OUT port, AL`, with AL as it is.
fn out_al(a: &mut CodeAssembler, port: i32) -> Result<(), IcedError> {
    a.mov(dx, port)?;
    a.out(dx, al)
}

fn input(a: &mut CodeAssembler, port: i32) -> Result<(), IcedError> {
    a.mov(dx, port)?;
    a.in_(al, dx)
}

fn assemble(entries: Entries) -> Result<(Vec<u8>, Entries), IcedError> {
    let mut a = CodeAssembler::new(16)?;
    let a = &mut a;
    let mut interrupt = a.create_label();
    let mut driver = a.create_label();
    let mut receiver = a.create_label();
    let mut remote = a.create_label();

    start(a, entries, remote)?;
    program(a, entries)?;
    driver_entry(a, &mut driver, remote)?;
    interrupt_entry(a, &mut interrupt, remote)?;
    set_up_remote(a, &mut remote)?;
    receiver_entry(a, &mut receiver)?;

    let result = a.assemble_options(0, BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
    let at = |label: &CodeLabel| result.label_ip(label).map(|ip| ip as u32);
    let entries = Entries { interrupt: at(&interrupt)?, driver: at(&driver)?, receiver: at(&receiver)? };
    Ok((result.inner.code_buffer, entries))
}

/// Interrupt controller, vectors, and the card.
fn start(a: &mut CodeAssembler, entries: Entries, remote: CodeLabel) -> Result<(), IcedError> {
    a.cli()?;
    a.cld()?;
    a.xor(ax, ax)?;
    a.mov(ds, ax)?;
    a.mov(es, ax)?;
    a.mov(ss, ax)?;
    a.mov(sp, STACK)?;
    for (port, value) in [(0x20, 0x11), (0x21, 0x08), (0x21, 0x04), (0x21, 0x01), (0x21, 0xf7)] {
        out(a, port, value)?;
    }
    for (vector, offset) in [(IRQ_VECTOR, entries.interrupt), (DRIVER_VECTOR, entries.driver)] {
        a.mov(word_ptr(4 * vector), offset)?;
        a.mov(word_ptr(4 * vector + 2), SEGMENT)?;
    }
    a.mov(byte_ptr(SENDING), 0)?;
    a.mov(word_ptr(RECEIVER + 2), 0)?;
    a.mov(word_ptr(FILLED), 0)?;
    a.mov(word_ptr(EMPTIED), 0)?;
    // Reset; wait for RST.
    input(a, IO + 0x1f)?;
    out_al(a, IO + 0x1f)?;
    let mut wait = a.create_label();
    a.set_label(&mut wait)?;
    input(a, IO + 7)?;
    a.test(al, 0x80)?;
    a.jz(wait)?;
    // Stopped, words, no loopback select, in loopback until all is set up.
    for (register, value) in [(0x00, 0x21), (0x0e, 0x49), (0x0a, 0), (0x0b, 0), (0x0c, 0x04), (0x0d, 0x02)] {
        out(a, IO + register, value)?;
    }
    for (register, value) in [(0x01, PSTART), (0x02, PSTOP), (0x03, PSTART), (0x07, 0xff), (0x0f, 0x1f)] {
        out(a, IO + register, value)?;
    }
    // The address out of the PROM, whose bytes are there twice.
    a.mov(cx, 12)?;
    a.xor(bx, bx)?;
    a.mov(ah, 0x0a)?;
    a.call(remote)?;
    a.mov(di, ADDRESS)?;
    a.mov(cx, 6)?;
    a.mov(dx, DATA)?;
    let mut next = a.create_label();
    a.set_label(&mut next)?;
    a.in_(ax, dx)?;
    a.stosb()?;
    a.loop_(next)?;
    // Page 1: physical address, no groups, CURR.
    out(a, IO, 0x61)?;
    a.mov(si, ADDRESS)?;
    a.mov(cx, 6)?;
    a.mov(dx, IO + 1)?;
    let mut next = a.create_label();
    a.set_label(&mut next)?;
    a.outsb()?;
    a.inc(dx)?;
    a.loop_(next)?;
    out(a, IO + 7, PSTART + 1)?;
    a.mov(byte_ptr(NEXT), PSTART + 1)?;
    out(a, IO, 0x22)?;
    out(a, IO + 0x0d, 0x00)?;
    a.sti()
}

/// The program: announces itself, then sends back what comes.
fn program(a: &mut CodeAssembler, entries: Entries) -> Result<(), IcedError> {
    a.push(cs)?;
    a.pop(es)?;
    a.mov(di, entries.receiver)?;
    a.mov(ah, 2)?;
    a.int(DRIVER_VECTOR as i32)?;
    a.xor(ax, ax)?;
    a.mov(es, ax)?;
    a.mov(di, FRAME + 6)?;
    a.mov(cx, 6)?;
    a.mov(ah, 6)?;
    a.int(DRIVER_VECTOR as i32)?;
    for at in [0, 2, 4] {
        a.mov(word_ptr(FRAME + at), 0xffff)?;
    }
    a.mov(word_ptr(FRAME + 12), u32::from(ANNOUNCEMENT.swap_bytes()))?;
    a.mov(si, FRAME)?;
    a.mov(cx, 60)?;
    a.mov(ah, 4)?;
    a.int(DRIVER_VECTOR as i32)?;

    let mut wait = a.create_label();
    let mut there = a.create_label();
    let mut end = a.create_label();
    a.set_label(&mut wait)?;
    a.cli()?;
    a.mov(bx, word_ptr(EMPTIED))?;
    a.cmp(bx, word_ptr(FILLED))?;
    a.jne(there)?;
    // Nothing comes between these two.
    a.sti()?;
    a.hlt()?;
    a.jmp(wait)?;
    a.set_label(&mut there)?;
    a.sti()?;
    buffer(a, si)?;
    a.cmp(word_ptr(si + 12), u32::from(END.swap_bytes()) as i32)?;
    a.je(end)?;
    // To whom it came from, from us.
    a.mov(di, si)?;
    a.push(si)?;
    a.add(si, 6)?;
    a.mov(cx, 3)?;
    a.rep().movsw()?;
    a.mov(si, ADDRESS)?;
    a.mov(cx, 3)?;
    a.rep().movsw()?;
    a.pop(si)?;
    a.mov(bx, word_ptr(EMPTIED))?;
    a.and(bx, 15)?;
    a.shl(bx, 1)?;
    a.mov(cx, word_ptr(bx + LENGTHS as i32))?;
    a.mov(ah, 4)?;
    a.int(DRIVER_VECTOR as i32)?;
    a.inc(word_ptr(EMPTIED))?;
    a.jmp(wait)?;
    a.set_label(&mut end)?;
    out(a, EXIT, 0)?;
    a.hlt()
}

/// The address of buffer BX, counted modulo 16, in `register`; BX is lost.
fn buffer(a: &mut CodeAssembler, register: AsmRegister16) -> Result<(), IcedError> {
    a.and(bx, 15)?;
    a.mov(register, bx)?;
    a.shl(register, 1)?;
    a.add(register, bx)?;
    a.shl(register, BUFFER_SHIFT)?;
    a.add(register, BUFFERS)
}

/// INT 60h. Carry is not touched: nothing here fails.
fn driver_entry(a: &mut CodeAssembler, entry: &mut CodeLabel, remote: CodeLabel) -> Result<(), IcedError> {
    let mut send = a.create_label();
    let mut get_address = a.create_label();
    let mut done = a.create_label();
    a.set_label(entry)?;
    a.cmp(ah, 4)?;
    a.je(send)?;
    a.cmp(ah, 6)?;
    a.je(get_address)?;
    a.mov(word_ptr(RECEIVER), di)?;
    a.mov(word_ptr(RECEIVER + 2), es)?;
    a.iret()?;

    a.set_label(&mut get_address)?;
    a.mov(si, ADDRESS)?;
    a.rep().movsb()?;
    a.iret()?;

    a.set_label(&mut send)?;
    a.pusha()?;
    // The frame before has to be gone; the interrupt tells.
    let mut wait = a.create_label();
    let mut free = a.create_label();
    a.set_label(&mut wait)?;
    a.cmp(byte_ptr(SENDING), 0)?;
    a.je(free)?;
    a.sti()?;
    a.nop()?;
    a.cli()?;
    a.jmp(wait)?;
    a.set_label(&mut free)?;
    a.mov(bp, cx)?;
    a.inc(cx)?;
    a.and(cx, -2)?;
    a.mov(bx, TPSR << 8)?;
    a.mov(ah, 0x12)?;
    a.push(cx)?;
    a.call(remote)?;
    a.pop(cx)?;
    a.shr(cx, 1)?;
    a.mov(dx, DATA)?;
    a.rep().outsw()?;
    out(a, IO + 4, TPSR)?;
    a.mov(ax, bp)?;
    out_al(a, IO + 5)?;
    a.mov(al, ah)?;
    out_al(a, IO + 6)?;
    a.mov(byte_ptr(SENDING), 1)?;
    out(a, IO, 0x26)?;
    a.jmp(done)?;
    a.set_label(&mut done)?;
    a.popa()?;
    a.iret()
}

/// IRQ 3.
fn interrupt_entry(a: &mut CodeAssembler, entry: &mut CodeLabel, remote: CodeLabel) -> Result<(), IcedError> {
    let mut next = a.create_label();
    let mut frames = a.create_label();
    let mut no_frames = a.create_label();
    let mut skip = a.create_label();
    let mut keep = a.create_label();
    let mut end = a.create_label();
    a.set_label(entry)?;
    a.pusha()?;
    a.push(ds)?;
    a.push(es)?;
    a.xor(ax, ax)?;
    a.mov(ds, ax)?;
    a.cld()?;
    a.set_label(&mut next)?;
    input(a, IO + 7)?;
    a.and(al, 0x1f)?;
    a.jz(end)?;
    a.out(dx, al)?;
    a.test(al, 0x0a)?;
    a.jz(frames)?;
    a.mov(byte_ptr(SENDING), 0)?;

    // All frames between NEXT and CURR.
    a.set_label(&mut frames)?;
    out(a, IO, 0x62)?;
    input(a, IO + 7)?;
    a.mov(bl, al)?;
    out(a, IO, 0x22)?;
    a.mov(bh, byte_ptr(NEXT))?;
    a.cmp(bl, bh)?;
    a.je(no_frames)?;
    a.mov(bl, 0)?;
    a.mov(cx, 4)?;
    a.mov(ah, 0x0a)?;
    a.call(remote)?;
    a.push(ds)?;
    a.pop(es)?;
    a.mov(di, HEADER)?;
    a.mov(dx, DATA)?;
    a.insw()?;
    a.insw()?;
    // A buffer for it, without its CRC.
    a.mov(cx, word_ptr(HEADER + 2))?;
    a.sub(cx, 4)?;
    a.xor(ax, ax)?;
    a.call(dword_ptr(RECEIVER))?;
    a.mov(ax, es)?;
    a.or(ax, di)?;
    a.jz(skip)?;
    a.mov(bl, 4)?;
    a.push(cx)?;
    a.push(di)?;
    a.inc(cx)?;
    a.and(cx, -2)?;
    a.mov(ah, 0x0a)?;
    a.push(cx)?;
    a.call(remote)?;
    a.pop(cx)?;
    a.shr(cx, 1)?;
    a.mov(dx, DATA)?;
    a.rep().insw()?;
    a.pop(si)?;
    a.pop(cx)?;
    a.mov(ax, 1)?;
    a.call(dword_ptr(RECEIVER))?;
    a.set_label(&mut skip)?;
    // BNRY is one page behind.
    a.mov(al, byte_ptr(HEADER + 1))?;
    a.mov(byte_ptr(NEXT), al)?;
    a.dec(al)?;
    a.cmp(al, PSTART)?;
    a.jae(keep)?;
    a.mov(al, PSTOP - 1)?;
    a.set_label(&mut keep)?;
    out_al(a, IO + 3)?;
    a.jmp(frames)?;

    a.set_label(&mut no_frames)?;
    a.jmp(next)?;
    a.set_label(&mut end)?;
    out(a, 0x20, 0x20)?;
    a.pop(es)?;
    a.pop(ds)?;
    a.popa()?;
    a.iret()
}

/// Starts remote DMA of CX bytes at BX by command AH; AX and DX are lost.
fn set_up_remote(a: &mut CodeAssembler, entry: &mut CodeLabel) -> Result<(), IcedError> {
    a.set_label(entry)?;
    a.mov(al, cl)?;
    out_al(a, IO + 0x0a)?;
    a.mov(al, ch)?;
    out_al(a, IO + 0x0b)?;
    a.mov(al, bl)?;
    out_al(a, IO + 8)?;
    a.mov(al, bh)?;
    out_al(a, IO + 9)?;
    a.mov(al, ah)?;
    out_al(a, IO)?;
    a.ret()
}

/// The program's receiver: a buffer (AX = 0), or it is filled (AX = 1). ES = 0 everywhere here.
fn receiver_entry(a: &mut CodeAssembler, entry: &mut CodeLabel) -> Result<(), IcedError> {
    let mut filled = a.create_label();
    let mut full = a.create_label();
    a.set_label(entry)?;
    a.push(bx)?;
    a.test(ax, ax)?;
    a.jnz(filled)?;
    a.mov(es, ax)?;
    a.mov(bx, word_ptr(FILLED))?;
    a.mov(di, bx)?;
    a.sub(di, word_ptr(EMPTIED))?;
    a.cmp(di, 16)?;
    a.jae(full)?;
    a.push(bx)?;
    a.and(bx, 15)?;
    a.shl(bx, 1)?;
    a.mov(word_ptr(bx + LENGTHS as i32), cx)?;
    a.pop(bx)?;
    buffer(a, di)?;
    a.pop(bx)?;
    a.retf()?;
    a.set_label(&mut full)?;
    a.xor(di, di)?;
    a.pop(bx)?;
    a.retf()?;
    a.set_label(&mut filled)?;
    a.inc(word_ptr(FILLED))?;
    a.pop(bx)?;
    a.retf()
}
