//! What the system BIOS has for protected mode, under QEMU, where it is installed; `guest` tells how: the way in by INT 15h AH=89h, the BIOS32
//! directory with the PCI BIOS, APM.

mod guest;

use guest::{BUFFER, EXIT, Program, run_boot_sector};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// Where the second sector goes: the descriptors, then 32-bit code.
const SECOND: u32 = 0x8000;
const CODE: u32 = SECOND + 0x80;
/// The far pointer to APM.
const APM: u32 = 0x6000;
/// The PCI BIOS's buffer for routing options: size and far pointer, and what it points to.
const ROUTING: u32 = 0x6010;
const ROUTES: u32 = BUFFER;
/// Selectors of flat data and code, and of APM's code.
const FLAT_DATA: u32 = 0x20;
const APM_CODE: u32 = 0x40;

fn descriptor(base: u32, limit: u16, access: u8, flags: u8) -> [u8; 8] {
    let [limit_low, limit_high] = limit.to_le_bytes();
    let [b0, b1, b2, b3] = base.to_le_bytes();
    [limit_low, limit_high, b0, b1, b2, access, flags, b3]
}

fn descriptors() -> Vec<u8> {
    let data = descriptor(0, 0xFFFF, 0x93, 0xCF);
    let none = [0; 8];
    let table = descriptor(SECOND, 0x7F, 0x93, 0);
    [none, table, none, data, data, data, descriptor(0, 0xFFFF, 0x9B, 0xCF), none, descriptor(0, 0x7FFF, 0x9B, 0x40)]
        .concat()
}

/// Runs with flat segments of 4 GiB.
fn protected() -> Result<Vec<u8>, IcedError> {
    let mut p = Program(CodeAssembler::new(32)?);
    let mut next = p.0.create_label();
    p.0.movzx(eax, ah)?;
    p.report_eax()?;
    p.0.mov(eax, cs)?;
    p.report_eax()?;
    p.0.in_(al, 0x21)?;
    p.0.movzx(eax, al)?;
    p.report_eax()?;
    // The directory, whose services are called far.
    p.0.mov(esi, 0xF_0000 - 16)?;
    p.0.set_label(&mut next)?;
    p.0.add(esi, 16)?;
    p.0.cmp(dword_ptr(esi), u32::from_le_bytes(*b"_32_"))?;
    p.0.jne(next)?;
    p.0.mov(esi, dword_ptr(esi + 4))?;
    p.0.mov(eax, u32::from_le_bytes(*b"none"))?;
    p.0.xor(ebx, ebx)?;
    p.0.push(cs)?;
    p.0.call(esi)?;
    p.0.movzx(eax, al)?;
    p.report_eax()?;
    p.0.mov(eax, u32::from_le_bytes(*b"$PCI"))?;
    p.0.xor(ebx, ebx)?;
    p.0.push(cs)?;
    p.0.call(esi)?;
    p.0.movzx(eax, al)?;
    p.report(&[eax, ebx, ecx])?;
    p.0.lea(ebp, dword_ptr(ebx + edx))?;
    p.0.mov(eax, 0xB101)?;
    p.0.push(cs)?;
    p.0.call(ebp)?;
    p.report_carry()?;
    p.report(&[edx])?;
    // The host bridge's identity.
    p.0.mov(eax, 0xB10A)?;
    p.0.xor(ebx, ebx)?;
    p.0.xor(edi, edi)?;
    p.0.push(cs)?;
    p.0.call(ebp)?;
    p.report(&[ecx])?;
    // Routing options, with too little room, then with enough.
    p.0.mov(dword_ptr(ROUTING + 2), ROUTES)?;
    p.0.mov(word_ptr(ROUTING + 6), FLAT_DATA)?;
    for size in [16, 0x300u32] {
        p.0.mov(word_ptr(ROUTING), size)?;
        p.0.mov(eax, 0xB10E)?;
        p.0.xor(ebx, ebx)?;
        p.0.mov(edi, ROUTING)?;
        p.0.push(cs)?;
        p.0.call(ebp)?;
        p.0.movzx(eax, ah)?;
        p.0.movzx(ecx, word_ptr(ROUTING))?;
        p.report(&[eax, ecx])?;
    }
    p.0.mov(eax, dword_ptr(ROUTES))?;
    p.report_eax()?;
    // APM, in a segment of its own.
    p.0.mov(eax, 0x5300)?;
    p.0.mov(ebx, 0)?;
    p.0.xor(ecx, ecx)?;
    p.0.call(fword_ptr(APM))?;
    p.report_carry()?;
    p.0.movzx(eax, ax)?;
    p.0.movzx(ebx, bx)?;
    p.report(&[eax, ebx, ecx])?;
    p.0.mov(eax, 0x530A)?;
    p.0.mov(ebx, 1)?;
    p.0.call(fword_ptr(APM))?;
    p.0.movzx(ebx, bx)?;
    p.report(&[ebx])?;
    p.0.xor(eax, eax)?;
    p.0.out(EXIT as i32, al)?;
    p.0.assemble(u64::from(CODE))
}

#[test]
fn protected_mode_finds_its_services() {
    let code = protected().expect("the code can be encoded");
    let mut sectors = descriptors();
    sectors.resize((CODE - SECOND) as usize, 0);
    sectors.extend(code);
    assert!(sectors.len() <= 0x400);
    sectors.resize(0x7F * 512, 0);
    let Some((words, _)) = run_boot_sector(&sectors, |p| {
        p.0.mov(bx, SECOND)?;
        p.0.mov(cx, 2)?;
        p.0.mov(dh, 0)?;
        p.call(0x13, 0x0202)?;
        p.report_carry()?;
        // The same routing options in real mode, far from where the BIOS is.
        p.0.mov(dword_ptr(ROUTING + 2), ROUTES)?;
        p.0.mov(word_ptr(ROUTING), 0x300)?;
        p.0.mov(di, ROUTING)?;
        p.0.xor(bx, bx)?;
        p.call(0x1A, 0xB10E)?;
        p.report_carry()?;
        p.0.mov(eax, dword_ptr(ROUTES))?;
        p.report_eax()?;
        p.0.mov(dword_ptr(ROUTES), 0)?;
        p.0.xor(bx, bx)?;
        p.call(0x15, 0x5303)?;
        p.report_carry()?;
        p.0.mov(dword_ptr(APM), ebx)?;
        p.0.mov(word_ptr(APM + 4), APM_CODE)?;
        p.0.movzx(eax, ax)?;
        p.0.shl(eax, 4)?;
        p.0.or(dword_ptr(SECOND + APM_CODE + 2), eax)?;
        p.0.mov(si, SECOND)?;
        p.0.mov(bx, 0x2820)?;
        p.0.mov(esp, 0x7000)?;
        p.call(0x15, 0x8900)?;
        // 32-bit code from here: mov ecx, CODE; jmp ecx.
        p.0.db(&[&[0xB9][..], &CODE.to_le_bytes(), &[0xFF, 0xE1]].concat())
    }) else {
        return;
    };
    // The first device: its address, its first link, the IRQs for that.
    let route = u32::from_le_bytes([0, 8, 0x60, 0xF8]);
    assert_eq!(words[..4], [0, 0, route, 0]);
    assert_eq!(words[4..7], [0, 0x30, 0xFF]);
    assert_eq!(words[7..11], [0x80, 0, 0xE_0000, 0x2_0000]);
    assert_eq!(words[11..14], [0, u32::from_le_bytes(*b"PCI "), 0x1237_8086]);
    assert_eq!(words[14..19], [0x89, 31 * 16, 0, 31 * 16, route]);
    assert_eq!(words[19..], [0, 0x0102, 0x504D, 3, 0x01FF]);
}
