//! Hardware task switches: JMP, CALL, IRET, interrupts, busy bits, links, faults before and after the switch.

use emu_core::cpu::control::CR0_TS;
use emu_core::cpu::fault;
use emu_core::cpu::regs::{RAX, RBX, RSP};
use emu_core::cpu::rflags::{NT, VM};
use emu_core::cpu::segment::{Seg, system};
use emu_tests::machine::*;
use iced_x86::code_asm::*;

/// The second task's TSS, its selector and its stack.
const TSS2: u64 = FREE;
const TASK2: u16 = FREE_SELECTOR;
const STACK_OF_2: u32 = FREE as u32 + 0x8000;
/// A task gate to it.
const GATE2: u16 = FREE_SELECTOR + 8;

/// A machine whose second task starts at `CODE + 0x100` at level 0.
fn two_tasks() -> Machine {
    let mut m = Machine::new_protected();
    m.set_descriptor(TASK2, descriptor(TSS2 as u32, 0x67, 0x89, 0));
    m.set_descriptor(GATE2, gate(system::TASK_GATE, TASK2, 0, 3, 0));
    for (at, value) in [(0x20, CODE as u32 + 0x100), (0x24, 2), (0x28, 0xaaaa), (0x38, STACK_OF_2)] {
        m.write32(TSS2 + at, value);
    }
    for (n, selector) in [DATA, CODE32, DATA, DATA, DATA, 0].into_iter().enumerate() {
        m.write32(TSS2 + 0x48 + 4 * n as u64, u32::from(selector));
    }
    m
}

fn far(a: &mut CodeAssembler, opcode: u8, selector: u16) -> Result<(), iced_x86::IcedError> {
    a.db(&[opcode, 0, 0, 0, 0])?;
    a.db(&selector.to_le_bytes())
}

fn access_byte(m: &Machine, selector: u16) -> u8 {
    m.read::<1>(GDT + u64::from(selector) + 5)[0]
}

#[test]
fn jmp_saves_the_old_task_and_moves_the_busy_bit() {
    for selector in [TASK2, GATE2] {
        let mut m = two_tasks();
        m.assemble(32, CODE, |a| {
            a.mov(eax, 0x1111)?;
            a.mov(ebx, 0x2222)?;
            far(a, 0xea, selector)
        });
        m.assemble(32, CODE + 0x100, |a| a.hlt());
        m.run();
        assert_eq!(m.reg(RAX), 0xaaaa);
        assert_eq!(m.reg(RSP), u64::from(STACK_OF_2));
        assert_eq!(m.cpu.state.tr.selector, TASK2);
        assert_ne!(m.cpu.state.cr0 & CR0_TS, 0);
        assert_eq!((access_byte(&m, TSS_SELECTOR), access_byte(&m, TASK2)), (0x89, 0x8b));
        assert_eq!(m.read32(TSS + 0x20), CODE as u32 + 17);
        assert_eq!(m.read32(TSS + 0x28), 0x1111);
        assert_eq!(m.read32(TSS + 0x34), 0x2222);
        assert_eq!(m.read16(TSS + 0x4c), CODE32);
        assert!(!m.cpu.state.has(NT));
        assert!(m.cpu.state.segment(Seg::Gs).unusable);
    }
}

#[test]
fn call_nests_and_iret_returns() {
    let mut m = two_tasks();
    m.assemble(32, CODE, |a| {
        a.mov(eax, 5)?;
        far(a, 0x9a, TASK2)?;
        a.inc(eax)?;
        a.hlt()
    });
    m.assemble(32, CODE + 0x100, |a| {
        a.pushfd()?;
        a.pop(edx)?;
        a.mov(dword_ptr(FREE as u32 + 0x1000), edx)?;
        a.iretd()?;
        // Where the task goes on if it is called again.
        a.hlt()
    });
    m.run();
    assert_eq!(m.reg(RAX), 6);
    assert_ne!(u64::from(m.read32(FREE + 0x1000)) & NT, 0);
    assert_eq!(m.read16(TSS2), TSS_SELECTOR, "the link");
    assert_eq!(u64::from(m.read32(TSS2 + 0x24)) & NT, 0, "NT is cleared in what IRET saves");
    assert_eq!((access_byte(&m, TSS_SELECTOR), access_byte(&m, TASK2)), (0x8b, 0x89));
    assert_eq!(m.cpu.state.tr.selector, TSS_SELECTOR);
}

#[test]
fn exception_through_a_task_gate_pushes_the_error_code_there() {
    let mut m = two_tasks();
    m.set_gate(fault::GP, gate(system::TASK_GATE, TASK2, 0, 0, 0));
    m.assemble(32, CODE, |a| {
        a.mov(eax, 0x77f8)?;
        a.mov(fs, eax)
    });
    m.assemble(32, CODE + 0x100, |a| {
        a.pop(ebx)?;
        a.hlt()
    });
    m.run();
    assert_eq!(m.reg(RBX), 0x77f8);
    assert_eq!(m.read32(TSS + 0x20), CODE as u32 + 5, "the faulting instruction");
    assert_eq!(m.read16(TSS2), TSS_SELECTOR);
}

#[test]
fn task_of_16_bit_tss_has_no_fs_gs_and_words() {
    let mut m = two_tasks();
    m.set_descriptor(TASK2, descriptor(TSS2 as u32, 0x2b, 0x81, 0));
    m.write(TSS2, &[0; 0x68]);
    m.assemble(16, 0x8000, |a| a.hlt());
    for (at, value) in [(0x0e, 0x8000u16), (0x10, 2), (0x12, 0xbeef), (0x1a, 0x7000)] {
        m.write16(TSS2 + at, value);
    }
    for (n, selector) in [DATA16, CODE16, DATA16, DATA16].into_iter().enumerate() {
        m.write16(TSS2 + 0x22 + 2 * n as u64, selector);
    }
    m.assemble(32, CODE, |a| {
        a.mov(eax, ds)?;
        a.mov(fs, eax)?;
        far(a, 0xea, TASK2)
    });
    m.run();
    assert_eq!(m.reg(RAX), 0xbeef);
    assert_eq!(m.reg(RSP), 0x7000);
    assert_eq!(m.cpu.state.segment(Seg::Fs).selector, 0);
    assert_eq!(m.cpu.state.code_bits(), 16);
}

#[test]
fn busy_short_and_absent_tss_fault_in_the_old_task() {
    let cases = [
        (descriptor(TSS2 as u32, 0x67, 0x8b, 0), fault::GP),
        (descriptor(TSS2 as u32, 0x66, 0x89, 0), fault::TS),
        (descriptor(TSS2 as u32, 0x67, 0x09, 0), fault::NP),
    ];
    for (raw, vector) in cases {
        let mut m = two_tasks();
        m.set_descriptor(TASK2, raw);
        m.assemble(32, CODE, |a| far(a, 0x9a, TASK2));
        assert_eq!(m.run_to_fault(), vector);
        assert_eq!(m.pushed(0), u64::from(TASK2));
        assert_eq!(m.pushed(1), CODE);
        assert_eq!(m.cpu.state.tr.selector, TSS_SELECTOR);
        assert_eq!(access_byte(&m, TSS_SELECTOR), 0x8b);
    }
}

#[test]
fn bad_selector_in_the_new_tss_faults_in_the_new_task() {
    let flat = |access| descriptor(0, 0xf_ffff, access, G_DB);
    let own = FREE_SELECTOR + 16;
    // (offset in the TSS, selector, descriptor) -> (vector, error code)
    let cases = [
        (0x54, own, flat(0x13), fault::NP),
        (0x54, own, flat(0x99), fault::TS),
        (0x48, own, descriptor(0, 0x67, 0x89, 0), fault::TS),
        (0x60, own, flat(0x93), fault::TS),
    ];
    for (at, selector, raw, vector) in cases {
        let mut m = two_tasks();
        m.set_descriptor(own, raw);
        m.write32(TSS2 + at, u32::from(selector));
        m.assemble(32, CODE, |a| far(a, 0xea, TASK2));
        // The stack of the new task is not loaded when its LDT is bad: a task of its own takes the fault.
        if at == 0x60 {
            let tss3 = FREE + 0x2000;
            m.set_descriptor(own + 8, descriptor(tss3 as u32, 0x67, 0x89, 0));
            let image = m.read::<0x68>(TSS2);
            m.write(tss3, &image);
            m.write32(tss3 + 0x60, 0);
            m.write32(tss3 + 0x20, HANDLERS as u32 + 160);
            m.set_gate(fault::TS, gate(system::TASK_GATE, own + 8, 0, 0, 0));
            assert_eq!(m.run_to_fault(), vector);
            assert_eq!(m.pushed(0), u64::from(selector));
            assert_eq!(m.read32(TSS2 + 0x20), CODE as u32 + 0x100, "saved again at its first instruction");
            continue;
        }
        assert_eq!(m.run_to_fault(), vector, "{at:#x}");
        assert_eq!(m.pushed(0), u64::from(selector));
        assert_eq!(m.pushed(1), CODE + 0x100, "the new task's first instruction");
        assert_eq!(m.cpu.state.tr.selector, TASK2);
    }
}

#[test]
fn task_can_enter_level_3_and_v86() {
    let mut m = two_tasks();
    for (n, selector) in [USER_DATA, USER_CODE32, USER_DATA, USER_DATA, 0, 0].into_iter().enumerate() {
        m.write32(TSS2 + 0x48 + 4 * n as u64, u32::from(selector) | 3);
    }
    m.write32(TSS2 + 4, INNER_STACK0 as u32);
    m.write32(TSS2 + 8, u32::from(DATA));
    m.assemble(32, CODE, |a| far(a, 0xea, TASK2));
    m.assemble(32, CODE + 0x100, |a| a.ud2());
    assert_eq!(m.run_to_fault(), fault::UD);
    assert_eq!(m.pushed(1), u64::from(USER_CODE32) | 3);

    let mut m = two_tasks();
    m.write32(TSS2 + 0x20, 0x100);
    m.write32(TSS2 + 0x24, VM as u32 | 2);
    m.write32(TSS2 + 0x4c, (CODE >> 4) as u32);
    m.write32(TSS2 + 0x50, 0x3000);
    m.write32(TSS2 + 4, INNER_STACK0 as u32);
    m.write32(TSS2 + 8, u32::from(DATA));
    m.assemble(32, CODE, |a| far(a, 0xea, TASK2));
    m.assemble(16, CODE + 0x100, |a| a.ud2());
    assert_eq!(m.run_to_fault(), fault::UD);
    assert_ne!(m.pushed(2) & VM, 0);
    assert_eq!(m.pushed(0), 0x100);
}

#[test]
fn t_bit_traps_before_the_first_instruction() {
    let mut m = two_tasks();
    m.write16(TSS2 + 0x64, 1);
    m.assemble(32, CODE, |a| far(a, 0xea, TASK2));
    assert_eq!(m.run_to_fault(), fault::DB);
    assert_eq!(m.pushed(0), CODE + 0x100);
    assert_ne!(m.cpu.state.dr[6] & 1 << 15, 0);
}

#[test]
fn iret_to_a_link_that_is_not_busy_is_a_ts() {
    let mut m = two_tasks();
    m.cpu.state.system_flags |= NT;
    m.write16(TSS, TASK2);
    m.assemble(32, CODE, |a| a.iretd());
    assert_eq!(m.run_to_fault(), fault::TS);
    assert_eq!(m.pushed(0), u64::from(TASK2));
    assert_eq!(m.pushed(1), CODE);
}

#[test]
fn switch_loads_cr3() {
    let mut m = two_tasks();
    // Both address spaces map the first 4 MiB one to one by a large page; the second maps the next 4 MiB there too.
    for (directory, second) in [(0x9000u64, 0x83 | 0x40_0000), (0xa000, 0x83)] {
        m.write32(directory, 0x83);
        m.write32(directory + 4, second);
    }
    m.write32(TSS2 + 0x1c, 0xa000);
    m.write32(FREE + 0x5000, 0x1234);
    m.assemble(32, CODE, |a| {
        a.mov(eax, 0x9000)?;
        a.mov(cr3, eax)?;
        a.mov(eax, cr4)?;
        a.or(eax, 0x10)?;
        a.mov(cr4, eax)?;
        a.mov(eax, cr0)?;
        a.or(eax, 0x8000_0000u32)?;
        a.mov(cr0, eax)?;
        far(a, 0xea, TASK2)
    });
    m.assemble(32, CODE + 0x100, |a| {
        a.mov(ebx, dword_ptr(0x40_0000 + FREE as u32 + 0x5000))?;
        a.hlt()
    });
    m.run();
    assert_eq!(m.reg(RBX), 0x1234);
    assert_eq!(m.cpu.state.cr3, 0xa000);
}
