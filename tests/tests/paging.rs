//! Programs that meet the page tables: error codes, CR2, accessed and dirty bits, protections, and what a fault leaves.
//! SDM Vol. 3A chapter 5.

use emu_core::cpu::control::{CR0_PG, CR0_WP, CR4_PSE, CR4_SMAP, CR4_SMEP};
use emu_core::cpu::fault;
use emu_core::cpu::regs::{RAX, RBX, RCX, RDI, RDX, RSI, RSP};
use emu_core::cpu::rflags::AC;
use emu_tests::machine::*;
use iced_x86::code_asm::*;

/// A page table for the 2 MiB at [`WINDOW`].
const TABLE: u64 = FREE + 0x8000;
/// Linear addresses that [`TABLE`] maps.
const WINDOW: u64 = 0x3fe0_0000;
/// A frame to map there.
const FRAME: u64 = FREE + 0x1_0000;

const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const A: u64 = 0x20;
const D: u64 = 0x40;
const NX: u64 = 1 << 63;

/// Bits of a page fault's error code (SDM Vol. 3A 5.7): present, write, user, reserved bit, instruction fetch.
const PF_P: u64 = 1;
const PF_W: u64 = 2;
const PF_U: u64 = 4;
const PF_RSVD: u64 = 8;
const PF_I: u64 = 16;

/// A machine in 64-bit mode with page `n` of the window mapped by `entries[n]`.
fn window(entries: &[u64]) -> Machine {
    let mut m = Machine::new_long();
    m.write64(PAGE_TABLES + 0x2000 + 8 * 511, TABLE + 7);
    for (n, entry) in entries.iter().enumerate() {
        m.write64(TABLE + 8 * n as u64, *entry);
    }
    m.set_reg(RBX, WINDOW);
    m
}

/// Runs to a page fault; its error code.
fn page_fault(m: &mut Machine) -> u64 {
    assert_eq!(m.run_to_fault(), fault::PF, "{}", m.cpu.registers());
    m.pushed(0)
}

#[test]
fn error_code_tells_presence_write_privilege_and_fetch() {
    let read = |a: &mut CodeAssembler| a.mov(eax, dword_ptr(rbx));
    let write = |a: &mut CodeAssembler| a.mov(dword_ptr(rbx), eax);
    let fetch = |a: &mut CodeAssembler| a.jmp(rbx);
    type Program = fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>;
    let cases: [(u64, bool, Program, u64); 9] = [
        (0, false, read, 0),
        (0, false, write, PF_W),
        (0, true, read, PF_U),
        (0, true, write, PF_U | PF_W),
        (0, true, fetch, PF_U | PF_I),
        (FRAME | P | W, true, read, PF_P | PF_U),
        (FRAME | P | U, true, write, PF_P | PF_U | PF_W),
        (FRAME | P | U | NX, true, fetch, PF_P | PF_U | PF_I),
        (FRAME | P | U | 1 << 51, true, read, PF_P | PF_U | PF_RSVD),
    ];
    for (entry, user, program, expected) in cases {
        let mut m = window(&[entry]);
        m.assemble(64, CODE, program);
        if user {
            m.user(64);
        }
        assert_eq!(page_fault(&mut m), expected, "entry {entry:#x}, user {user}");
        assert_eq!(m.cpu.state.cr2, WINDOW);
        let rip = if expected & PF_I != 0 { WINDOW } else { CODE };
        assert_eq!(m.pushed(1), rip, "entry {entry:#x}");
    }
}

#[test]
fn accessed_and_dirty_bits_follow_the_accesses() {
    let mut m = window(&[FRAME | P | W, FRAME | P | W, FRAME | P | W, FRAME | P | W]);
    m.assemble(64, CODE, |a| {
        a.mov(eax, dword_ptr(rbx))?;
        a.mov(dword_ptr(rbx + 0x1000), eax)?;
        a.mov(eax, dword_ptr(rbx + 0x2000))?;
        a.mov(dword_ptr(rbx + 0x2000), eax)?;
        a.hlt()
    });
    m.run();
    let bits = [0, 8, 16, 24].map(|at| m.read64(TABLE + at) & (A | D));
    assert_eq!(bits, [A, A | D, A | D, 0]);
    assert_eq!(m.read64(PAGE_TABLES + 0x2000 + 8 * 511) & (A | D), A, "a directory entry has no dirty bit");
}

#[test]
fn write_protection_binds_the_supervisor_only_with_wp() {
    for (wp, expected) in [(false, None), (true, Some(PF_P | PF_W))] {
        let mut m = window(&[FRAME | P]);
        m.cpu.state.cr0 = m.cpu.state.cr0 & !CR0_WP | if wp { CR0_WP } else { 0 };
        m.cpu.mode_changed();
        m.assemble(64, CODE, |a| {
            a.mov(eax, dword_ptr(rbx))?;
            a.mov(dword_ptr(rbx), 7)?;
            a.hlt()
        });
        match expected {
            None => {
                m.run();
                assert_eq!(m.caught(), None);
                assert_eq!(m.read32(FRAME), 7);
            }
            Some(code) => {
                assert_eq!(page_fault(&mut m), code);
                assert_eq!(m.read32(FRAME), 0);
            }
        }
    }
}

#[test]
fn smep_and_smap_keep_the_supervisor_out_of_user_pages() {
    // The program and its stack lie in a page of the supervisor's.
    let window = |entries: &[u64]| {
        let mut m = window(entries);
        m.write64(PAGE_TABLES + 0x2000, 0x83);
        m
    };
    let mut m = window(&[FRAME | P | W | U]);
    m.write(FRAME, &[0xc3]);
    m.cpu.state.cr4 |= CR4_SMEP;
    m.cpu.mode_changed();
    m.assemble(64, CODE, |a| a.call(rbx));
    assert_eq!(page_fault(&mut m), PF_P | PF_I);

    for (ac, faults) in [(false, true), (true, false)] {
        let mut m = window(&[FRAME | P | W | U]);
        m.cpu.state.cr4 |= CR4_SMAP;
        if ac {
            m.cpu.state.system_flags |= AC;
        }
        m.cpu.mode_changed();
        m.assemble(64, CODE, |a| {
            a.mov(eax, dword_ptr(rbx))?;
            a.hlt()
        });
        if faults {
            assert_eq!(page_fault(&mut m), PF_P);
        } else {
            m.run();
            assert_eq!(m.caught(), None);
        }
    }
}

#[test]
fn store_across_two_pages_changes_nothing_if_the_second_faults() {
    let mut m = window(&[FRAME | P | W, 0]);
    m.write32(FRAME + 0xffc, 0x1111_1111);
    m.assemble(64, CODE, |a| {
        a.mov(rax, -1i64)?;
        a.mov(qword_ptr(rbx + 0xffc), rax)?;
        a.hlt()
    });
    assert_eq!(page_fault(&mut m), PF_W);
    assert_eq!(m.cpu.state.cr2, WINDOW + 0x1000, "the first byte that cannot be written");
    assert_eq!(m.read32(FRAME + 0xffc), 0x1111_1111);
}

#[test]
fn push_that_faults_leaves_the_stack_pointer() {
    let mut m = window(&[0, FRAME | P | W]);
    m.assemble(64, CODE, |a| {
        a.lea(rsp, qword_ptr(rbx + 0x1000))?;
        a.push(rax)
    });
    // The handler needs a stack of its own.
    m.write64(TSS + 36, STACK0);
    let gate_of = |vector: u64| IDT + 16 * vector + 4;
    let raw = m.read32(gate_of(u64::from(fault::PF))) | 1;
    m.write32(gate_of(u64::from(fault::PF)), raw);
    assert_eq!(page_fault(&mut m), PF_W);
    assert_eq!(m.cpu.state.cr2, WINDOW + 0xff8);
    assert_eq!(m.pushed(4), WINDOW + 0x1000, "RSP as before the PUSH");
    assert_ne!(m.reg(RSP), WINDOW + 0x1000);
}

#[test]
fn repeated_move_stops_at_the_page_that_faults() {
    let mut m = window(&[FRAME | P | W, 0]);
    m.set_reg(RSI, FREE);
    m.set_reg(RDI, WINDOW + 0xf00);
    m.set_reg(RCX, 0x200);
    m.write(FREE, &[0x5a; 0x200]);
    m.assemble(64, CODE, |a| {
        a.rep().movsb()?;
        a.hlt()
    });
    assert_eq!(page_fault(&mut m), PF_W);
    assert_eq!((m.reg(RCX), m.reg(RSI), m.reg(RDI)), (0x100, FREE + 0x100, WINDOW + 0x1000));
    assert_eq!(m.pushed(1), CODE);
    assert_eq!(m.read::<0x100>(FRAME + 0xf00), [0x5a; 0x100]);
}

#[test]
fn stale_translation_serves_until_invlpg() {
    let mut m = window(&[FRAME | P | W]);
    m.write32(FRAME, 1);
    m.write32(FRAME + 0x1000, 2);
    m.assemble(64, CODE, |a| {
        a.mov(eax, dword_ptr(rbx))?;
        a.mov(esi, TABLE as u32)?;
        a.add(qword_ptr(rsi), 0x1000)?;
        a.invlpg(byte_ptr(rbx))?;
        a.mov(edx, dword_ptr(rbx))?;
        a.hlt()
    });
    m.run();
    assert_eq!((m.reg(RAX), m.reg(RDX)), (1, 2));
}

#[test]
fn page_fault_handler_that_maps_the_page_lets_the_instruction_through() {
    let mut m = window(&[0; 16]);
    m.assemble(64, HANDLERS + 16 * u64::from(fault::PF), |a| a.jmp(FREE));
    m.assemble(64, FREE, |a| {
        // Maps the frame wherever it is missing and counts.
        a.push(rax)?;
        a.mov(rax, cr2)?;
        a.shr(rax, 12)?;
        a.and(eax, 0x1ff)?;
        a.mov(qword_ptr(rax * 8 + TABLE), (FRAME | P | W) as i32)?;
        a.inc(edx)?;
        a.pop(rax)?;
        a.add(rsp, 8)?;
        a.iretq()
    });
    m.assemble(64, CODE, |a| {
        let mut top = a.create_label();
        a.xor(edx, edx)?;
        a.mov(ecx, 16)?;
        a.set_label(&mut top)?;
        a.inc(dword_ptr(rbx + 0x10))?;
        a.add(rbx, 0x1000)?;
        a.dec(ecx)?;
        a.jne(top)?;
        a.hlt()
    });
    m.run();
    assert_eq!(m.caught(), None);
    assert_eq!((m.reg(RDX), m.read32(FRAME + 0x10)), (16, 16));
}

#[test]
fn legacy_paging_with_large_and_small_pages() {
    // 32-bit paging: the first 4 MiB as one large page, the next through a table.
    let mut m = Machine::new_protected();
    let (directory, table) = (FREE + 0x8000, FREE + 0x9000);
    m.write32(directory, 0x80 | 7);
    m.write32(directory + 4, table as u32 | 7);
    m.write32(table, FRAME as u32 | 7);
    m.write32(FRAME + 0x20, 0x1234_5678);
    m.cpu.state.cr4 |= CR4_PSE;
    m.cpu.mode_changed();
    m.assemble(32, CODE, |a| {
        a.mov(eax, directory as u32)?;
        a.mov(cr3, eax)?;
        a.mov(eax, cr0)?;
        a.or(eax, CR0_PG as u32 as i32)?;
        a.mov(cr0, eax)?;
        a.mov(edx, dword_ptr(0x40_0020))?;
        a.mov(dword_ptr(0x40_1000), eax)?;
        a.hlt()
    });
    assert_eq!(page_fault(&mut m), PF_W);
    assert_eq!(m.cpu.state.cr2, 0x40_1000);
    assert_eq!(m.reg(RDX), 0x1234_5678);
    assert_eq!(u64::from(m.read32(directory)) & (A | D), A | D, "the handler's stack lies in it");
}
