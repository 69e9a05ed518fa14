//! Segments: loads, limits, types, call gates, far transfers, big real mode, the I/O permission bitmap.

use emu_core::cpu::fault;
use emu_core::cpu::regs::{RAX, RBX, RCX, RDI, RDX, RSI, RSP};
use emu_core::cpu::rflags::{IOPL, ZF};
use emu_core::cpu::segment::{Seg, Segment, system};
use emu_tests::machine::*;
use iced_x86::code_asm::*;

/// Runs `mov seg, selector` at level `cpl` with the GDT entry `raw` at that selector; the fault and its error code.
fn load(cpl: u8, selector: u16, raw: u64, stack: bool) -> Option<(u8, u64)> {
    let mut m = Machine::new_protected();
    m.set_descriptor(selector, raw);
    if cpl == 3 {
        m.user(32);
    }
    m.assemble(32, CODE, |a| {
        a.mov(eax, u32::from(selector))?;
        if stack {
            a.mov(ss, eax)?;
        } else {
            a.mov(ds, eax)?;
        }
        a.int(0x80)
    });
    let vector = m.run_to_fault();
    (vector != 0x80).then(|| (vector, m.pushed(0)))
}

const FREE3: u16 = FREE_SELECTOR | 3;
const GP_FREE: Option<(u8, u64)> = Some((fault::GP, FREE_SELECTOR as u64));

#[test]
fn data_segment_load_checks_type_privilege_presence() {
    let flat = |access| descriptor(0, 0xf_ffff, access, G_DB);
    let cases = [
        (0, FREE_SELECTOR, flat(0x93), None),
        (0, FREE_SELECTOR, flat(0x91), None),
        (0, FREE_SELECTOR, flat(0x9b), None),
        (0, FREE_SELECTOR, flat(0x99), GP_FREE),
        (0, FREE_SELECTOR, flat(0x13), Some((fault::NP, FREE_SELECTOR as u64))),
        (0, FREE_SELECTOR, flat(0x89), GP_FREE),
        (3, FREE3, flat(0xf3), None),
        (3, FREE3, flat(0xd3), GP_FREE),
        (3, FREE_SELECTOR, flat(0xf3), None),
        (0, FREE3, flat(0x93), GP_FREE),
        (3, FREE3, flat(0x9f), None),
        (3, FREE3, flat(0x9b), GP_FREE),
        (3, FREE3, flat(0xfb), None),
        (0, 0x0000, 0, None),
        (0, 0x0003, 0, None),
        (0, 0x1004, 0, Some((fault::GP, 0x1004))),
    ];
    for (cpl, selector, raw, expected) in cases {
        assert_eq!(load(cpl, selector, raw, false), expected, "CPL {cpl}, {selector:#x}, {raw:#x}");
    }
}

#[test]
fn stack_segment_load_demands_the_exact_level() {
    let flat = |access| descriptor(0, 0xf_ffff, access, G_DB);
    let cases = [
        (0, FREE_SELECTOR, flat(0x93), None),
        (0, FREE_SELECTOR, flat(0x91), GP_FREE),
        (0, FREE_SELECTOR, flat(0x9b), GP_FREE),
        (0, FREE3, flat(0x93), GP_FREE),
        (0, FREE_SELECTOR, flat(0xf3), GP_FREE),
        (0, FREE_SELECTOR, flat(0x13), Some((fault::SS, FREE_SELECTOR as u64))),
        (0, 0, 0, Some((fault::GP, 0))),
        (3, FREE3, flat(0xf3), None),
        (3, FREE_SELECTOR, flat(0xf3), GP_FREE),
    ];
    for (cpl, selector, raw, expected) in cases {
        assert_eq!(load(cpl, selector, raw, true), expected, "CPL {cpl}, {selector:#x}, {raw:#x}");
    }
}

#[test]
fn segment_load_sets_the_accessed_bit() {
    let mut m = Machine::new_protected();
    m.set_descriptor(FREE_SELECTOR, descriptor(0, 0xf_ffff, 0x92, G_DB));
    m.assemble(32, CODE, |a| {
        a.mov(eax, u32::from(FREE_SELECTOR))?;
        a.mov(fs, eax)?;
        a.hlt()
    });
    m.run();
    assert_eq!(m.read::<1>(GDT + u64::from(FREE_SELECTOR) + 5), [0x93]);
}

/// Reads or writes 4 bytes at `offset` of a data segment; the fault.
fn access(raw: u64, offset: u32, write: bool) -> Option<u8> {
    let mut m = Machine::new_protected();
    m.set_descriptor(FREE_SELECTOR, raw);
    m.assemble(32, CODE, |a| {
        a.mov(eax, u32::from(FREE_SELECTOR))?;
        a.mov(fs, eax)?;
        a.mov(ebx, offset)?;
        if write {
            a.mov(dword_ptr(ebx).fs(), ecx)?;
        } else {
            a.mov(ecx, dword_ptr(ebx).fs())?;
        }
        a.int(0x80)
    });
    Some(m.run_to_fault()).filter(|v| *v != 0x80)
}

#[test]
fn limits_hold_to_the_byte() {
    let up = descriptor(FREE as u32, 0x2fff, 0x93, DB);
    assert_eq!(access(up, 0x2ffc, true), None);
    assert_eq!(access(up, 0x2ffd, true), Some(fault::GP));
    assert_eq!(access(up, 0xffff_ffff, false), Some(fault::GP));
    let pages = descriptor(FREE as u32, 2, 0x93, G_DB);
    assert_eq!(access(pages, 0x2ffc, true), None);
    assert_eq!(access(pages, 0x2ffd, false), Some(fault::GP));
}

#[test]
fn expand_down_segments_are_valid_above_the_limit() {
    let down16 = descriptor(FREE as u32, 0x0fff, 0x97, 0);
    assert_eq!(access(down16, 0x0fff, true), Some(fault::GP));
    assert_eq!(access(down16, 0x1000, true), None);
    assert_eq!(access(down16, 0xfffc, true), None);
    assert_eq!(access(down16, 0xfffd, true), Some(fault::GP));
    let down32 = descriptor(FREE as u32, 0x0fff, 0x97, DB);
    assert_eq!(access(down32, 0xffff, true), None);
    assert_eq!(access(down32, 0x0ffe, false), Some(fault::GP));
}

#[test]
fn read_only_and_execute_only_segments_refuse_writes_and_reads() {
    assert_eq!(access(descriptor(FREE as u32, 0xffff, 0x91, DB), 0, true), Some(fault::GP));
    assert_eq!(access(descriptor(FREE as u32, 0xffff, 0x91, DB), 0, false), None);
    assert_eq!(access(descriptor(FREE as u32, 0xffff, 0x9b, DB), 0, true), Some(fault::GP));
    assert_eq!(access(descriptor(FREE as u32, 0xffff, 0x9b, DB), 0, false), None);
}

#[test]
fn null_segment_faults_on_use_only() {
    let mut m = Machine::new_protected();
    m.assemble(32, CODE, |a| {
        a.xor(eax, eax)?;
        a.mov(gs, eax)?;
        a.mov(ecx, 5)?;
        a.mov(ecx, dword_ptr(0x500).gs())
    });
    assert_eq!(m.run_to_fault(), fault::GP);
    assert_eq!(m.pushed(0), 0);
    assert_eq!(m.reg(RCX), 5);
}

#[test]
fn segment_that_becomes_null_or_short_faults_at_its_next_use() {
    let flat = descriptor(FREE as u32, 0xf_ffff, 0x93, G_DB);
    let short = descriptor(FREE as u32, 0xff, 0x93, DB);
    for (selector, second) in [(0, 0), (FREE_SELECTOR + 8, short)] {
        let mut m = Machine::new_protected();
        m.set_descriptor(FREE_SELECTOR, flat);
        if selector != 0 {
            m.set_descriptor(selector, second);
        }
        // The same instructions first with one segment, then with the other.
        m.assemble(32, CODE, |a| {
            let mut again = a.create_label();
            a.mov(ebx, u32::from(FREE_SELECTOR))?;
            a.mov(gs, ebx)?;
            // Something else that decides how memory is accessed changes, and changes back.
            a.mov(ds, ebx)?;
            a.mov(eax, u32::from(DATA))?;
            a.mov(ds, eax)?;
            a.set_label(&mut again)?;
            a.mov(gs, ebx)?;
            a.mov(dword_ptr(0x500).gs(), ebx)?;
            a.mov(ebx, u32::from(selector))?;
            a.jmp(again)
        });
        assert_eq!(m.run_to_fault(), fault::GP, "{selector:#x}");
        assert!(m.cpu.executed() < 20, "{selector:#x}: {} instructions", m.cpu.executed());
        assert_eq!(m.pushed(0), 0);
        assert_eq!(m.reg(RBX), u64::from(selector));
    }
}

#[test]
fn stack_limit_violation_is_ss_and_leaves_sp() {
    let mut m = Machine::new_protected();
    m.set_descriptor(FREE_SELECTOR, descriptor(FREE as u32, 0x0fff, 0x97, DB));
    let handler = HANDLERS as u32 + 16 * 12;
    m.set_gate(fault::SS, gate(system::INTERRUPT_GATE32, CODE32, handler, 3, 0));
    // The handler of level 0 cannot push on the same stack, so the fault must come from level 3.
    m.set_descriptor(FREE_SELECTOR, descriptor(FREE as u32, 0x0fff, 0xf7, DB));
    m.user(32);
    m.assemble(32, CODE, |a| {
        a.mov(eax, u32::from(FREE3))?;
        a.mov(ss, eax)?;
        a.mov(esp, 0x1003)?;
        a.push(eax)
    });
    assert_eq!(m.run_to_fault(), fault::SS);
    assert_eq!(m.pushed(0), 0);
    assert_eq!(m.pushed(4), 0x1003);
}

#[test]
fn big_real_mode_keeps_limits_of_protected_mode() {
    let mut m = Machine::new(8);
    m.protected();
    m.real();
    m.catch_all();
    let mut big = Segment::real(0);
    big.limit = u32::MAX;
    m.cpu.state.set_segment(Seg::Ds, big);
    m.cpu.mode_changed();
    m.write32(0x50_0000, 0x1234_5678);
    m.assemble(16, CODE, |a| {
        a.mov(ebx, 0x50_0000)?;
        a.mov(eax, dword_ptr(ebx))?;
        // Loading the selector keeps the limit.
        a.xor(cx, cx)?;
        a.mov(ds, cx)?;
        a.mov(edx, dword_ptr(ebx))?;
        a.mov(es, cx)?;
        a.mov(edx, dword_ptr(ebx).es())
    });
    assert_eq!(m.run_to_fault(), fault::GP, "ES still has 64 KiB");
    assert_eq!(m.reg(RAX), 0x1234_5678);
    assert_eq!(m.reg(RDX), 0x1234_5678);
}

#[test]
fn real_mode_word_at_ffff_is_a_gp() {
    let mut m = Machine::new(2);
    m.catch_all();
    m.assemble(16, CODE, |a| {
        a.mov(bx, 0xffff)?;
        a.mov(ax, word_ptr(bx))
    });
    assert_eq!(m.run_to_fault(), fault::GP);
}

#[test]
fn call_gate_to_inner_level_copies_parameters_and_ret_releases_them() {
    let mut m = Machine::new_protected();
    m.set_descriptor(FREE_SELECTOR, gate(system::CALL_GATE32, CODE32, CODE as u32 + 0x100, 3, 3));
    m.user(32);
    m.assemble(32, CODE, |a| {
        a.push(11)?;
        a.push(22)?;
        a.push(33)?;
        // CALL far, the offset is ignored.
        a.db(&[0x9a, 0xef, 0xbe, 0xad, 0xde])?;
        a.db(&FREE3.to_le_bytes())?;
        a.mov(ecx, esp)?;
        a.ud2()
    });
    m.assemble(32, CODE + 0x100, |a| {
        a.mov(ebx, esp)?;
        a.mov(eax, dword_ptr(esp + 8))?;
        a.mov(edx, dword_ptr(esp + 16))?;
        a.mov(esi, dword_ptr(esp + 20))?;
        a.db(&[0xca, 12, 0])
    });
    assert_eq!(m.run_to_fault(), fault::UD);
    assert_eq!(m.reg(RBX), INNER_STACK0 - 4 * 7);
    assert_eq!(m.reg(RAX), 33);
    assert_eq!(m.reg(RDX), 11);
    assert_eq!(m.reg(RSI), STACK3 - 12);
    assert_eq!(m.reg(RCX), STACK3);
}

#[test]
fn call_gate_16_bit_pushes_words() {
    let mut m = Machine::new_protected();
    m.set_descriptor(FREE_SELECTOR, gate(system::CALL_GATE16, CODE32, 0x8000, 3, 1));
    m.user(32);
    m.assemble(32, CODE, |a| {
        a.push(0x2222_1111)?;
        a.db(&[0x9a, 0, 0, 0, 0])?;
        a.db(&FREE3.to_le_bytes())
    });
    m.assemble(32, 0x8000, |a| a.hlt());
    m.run();
    assert_eq!(m.reg(RSP), INNER_STACK0 - 10);
    let words = m.read::<10>(INNER_STACK0 - 10);
    let words: Vec<u16> = words.chunks(2).map(|w| u16::from_le_bytes([w[0], w[1]])).collect();
    assert_eq!(words, [CODE as u16 + 12, USER_CODE32 | 3, 0x1111, STACK3 as u16 - 4, USER_DATA | 3]);
}

#[test]
fn call_gate_in_long_mode_uses_rsp0_and_quadwords() {
    let mut m = Machine::new_long();
    m.set_descriptor(FREE_SELECTOR, gate(system::CALL_GATE32, CODE64, CODE as u32 + 0x100, 3, 0));
    m.set_descriptor(FREE_SELECTOR + 8, 0);
    m.user(64);
    m.write32(FREE, 0);
    m.write16(FREE + 4, FREE3);
    m.assemble(64, CODE, |a| {
        a.mov(rbx, FREE)?;
        // CALL m16:32
        a.db(&[0xff, 0x1b])?;
        a.ud2()
    });
    m.assemble(64, CODE + 0x100, |a| {
        a.mov(rcx, rsp)?;
        a.mov(rsi, qword_ptr(rsp))?;
        a.mov(rdi, qword_ptr(rsp + 16))?;
        a.mov(eax, ss)?;
        a.db(&[0x48, 0xcb])
    });
    assert_eq!(m.run_to_fault(), fault::UD);
    assert_eq!(m.reg(RCX), INNER_STACK0 - 32);
    assert_eq!(m.reg(RAX), 0);
    assert_eq!(m.reg(RSI), CODE + 12);
    assert_eq!(m.reg(RDI), STACK3);
    assert_eq!(m.pushed(3), STACK3, "the stack of level 3 again");
}

#[test]
fn jmp_to_conforming_code_keeps_the_level() {
    let mut m = Machine::new_protected();
    m.set_descriptor(FREE_SELECTOR, descriptor(0, 0xf_ffff, 0x9f, G_DB));
    m.user(32);
    m.assemble(32, CODE, |a| {
        a.db(&[0xea])?;
        a.dd(&[CODE as u32 + 0x100])?;
        a.db(&FREE_SELECTOR.to_le_bytes())
    });
    m.assemble(32, CODE + 0x100, |a| {
        a.mov(eax, cs)?;
        a.ud2()
    });
    assert_eq!(m.run_to_fault(), fault::UD);
    assert_eq!(m.reg(RAX), u64::from(FREE3));
    assert_eq!(m.cpu.state.cpl, 0);
}

#[test]
fn far_jmp_faults_name_the_selector() {
    let flat = |access, flags| descriptor(0, 0xf_ffff, access, flags);
    let free = u64::from(FREE_SELECTOR);
    let cases = [
        (0, 0, fault::GP, 0),
        (FREE_SELECTOR, flat(0x93, G_DB), fault::GP, free),
        (FREE_SELECTOR, flat(0x1b, G_DB), fault::NP, free),
        (FREE_SELECTOR, flat(0xfb, G_DB), fault::GP, free),
        (FREE3, flat(0x9b, G_DB), fault::GP, free),
        (FREE_SELECTOR, descriptor(0, 0xff, 0x9b, DB), fault::GP, 0),
        (FREE_SELECTOR, gate(system::CALL_GATE32, DATA, 0, 0, 0), fault::GP, u64::from(DATA)),
        (FREE3, gate(system::CALL_GATE32, CODE32, 0, 0, 0), fault::GP, free),
        (FREE_SELECTOR, gate(system::CALL_GATE32, CODE32, 0, 0, 0) & !(1 << 47), fault::NP, free),
        (FREE_SELECTOR, gate(system::INTERRUPT_GATE32, CODE32, 0, 0, 0), fault::GP, free),
    ];
    for (selector, raw, vector, code) in cases {
        let mut m = Machine::new_protected();
        m.set_descriptor(FREE_SELECTOR, raw);
        m.assemble(32, CODE, |a| {
            a.db(&[0xea])?;
            a.dd(&[CODE as u32 + 0x100])?;
            a.db(&selector.to_le_bytes())
        });
        assert_eq!((m.run_to_fault(), m.pushed(0)), (vector, code), "{selector:#x} {raw:#x}");
        assert_eq!(m.pushed(1), CODE);
    }
}

#[test]
fn far_call_and_ret_between_64_bit_and_compatibility_code() {
    let mut m = Machine::new_long();
    m.write32(FREE, CODE as u32 + 0x100);
    m.write16(FREE + 4, CODE32);
    m.assemble(64, CODE, |a| {
        a.mov(rbx, FREE)?;
        a.db(&[0xff, 0x1b])?;
        a.hlt()
    });
    m.assemble(32, CODE + 0x100, |a| {
        // 32-bit only: INC EAX.
        a.db(&[0x40])?;
        a.mov(ecx, esp)?;
        a.retf()
    });
    m.run();
    assert_eq!(m.reg(RAX), 1);
    assert_eq!(m.reg(RCX), STACK0 - 8);
    assert_eq!(m.reg(RSP), STACK0);
    assert!(m.cpu.state.code64());
}

#[test]
fn retf_to_outer_level_checks_the_stack_segment() {
    for (selector, vector, code) in
        [(0, fault::GP, 0), (DATA | 3, fault::GP, DATA), (USER_DATA, fault::GP, USER_DATA), (0x1f0, fault::GP, 0x1f0)]
    {
        let mut m = Machine::new_protected();
        m.cpu.state.gdtr.limit = 0xff;
        m.assemble(32, CODE, |a| {
            a.push(i32::from(selector))?;
            a.push(0)?;
            a.push(i32::from(USER_CODE32) | 3)?;
            a.push(CODE as i32)?;
            a.retf()
        });
        assert_eq!((m.run_to_fault(), m.pushed(0)), (vector, u64::from(code)));
        assert_eq!(m.reg(RSP), STACK0 - 32);
    }
}

#[test]
fn pop_ss_and_lss_change_the_stack_in_one_piece() {
    let mut m = Machine::new_protected();
    m.set_descriptor(FREE_SELECTOR, descriptor(0, 0xf_ffff, 0x93, 0x8));
    m.write32(FREE, 0x1234_8000);
    m.write16(FREE + 4, FREE_SELECTOR);
    m.assemble(32, CODE, |a| {
        a.lss(esp, fword_ptr(FREE as u32))?;
        // SS is a 16-bit segment now: only SP moves.
        a.push(7)?;
        a.mov(eax, esp)?;
        a.hlt()
    });
    m.run();
    assert_eq!(m.reg(RAX), 0x1234_7ffc);
    assert_eq!(m.read32(0x7ffc), 7);
}

#[test]
fn port_access_follows_iopl_and_bitmap() {
    let run = |iopl: u64, bitmap: &dyn Fn(&mut Machine), size: u8| {
        let mut m = Machine::new_protected();
        m.user(32);
        m.cpu.state.system_flags |= iopl << 12 & IOPL;
        bitmap(&mut m);
        m.assemble(32, CODE, |a| {
            a.mov(dx, 0x3f)?;
            match size {
                1 => a.in_(al, dx)?,
                2 => a.in_(ax, dx)?,
                _ => a.in_(eax, dx)?,
            }
            a.int(0x80)
        });
        m.run_to_fault()
    };
    let all = |_: &mut Machine| {};
    let allow_3f = |m: &mut Machine| m.write8(TSS + 0x68 + 7, 0x7f);
    let allow_3f_40 = |m: &mut Machine| m.write16(TSS + 0x68 + 7, 0xfe7f);
    assert_eq!(run(0, &all, 1), fault::GP);
    assert_eq!(run(3, &all, 4), 0x80);
    assert_eq!(run(0, &allow_3f, 1), 0x80);
    assert_eq!(run(0, &allow_3f, 2), fault::GP);
    assert_eq!(run(0, &allow_3f_40, 2), 0x80);
    assert_eq!(run(0, &allow_3f_40, 4), fault::GP);
    assert_eq!(run(0, &|m| m.write16(TSS + 0x66, 0xffff), 1), fault::GP, "no bitmap");
}

#[test]
fn lar_lsl_verr_verw_see_what_the_level_may_see() {
    // (raw, level 3?) -> LAR, LSL, VERR, VERW
    let cases = [
        (descriptor(0, 0xf_ffff, 0xf3, G_DB), [true, true, true, true]),
        (descriptor(0, 0xf_ffff, 0xf1, G_DB), [true, true, true, false]),
        (descriptor(0, 0xf_ffff, 0xf9, G_DB), [true, true, false, false]),
        (descriptor(0, 0xf_ffff, 0x93, G_DB), [false; 4]),
        (descriptor(0, 0xf_ffff, 0x9f, G_DB), [true, true, true, false]),
        (descriptor(0, 0x67, 0xe9, 0), [true, true, false, false]),
        (gate(system::CALL_GATE32, CODE32, 0, 3, 0), [true, false, false, false]),
        (gate(system::INTERRUPT_GATE32, CODE32, 0, 3, 0), [false; 4]),
    ];
    for (raw, expected) in cases {
        let mut m = Machine::new_protected();
        m.set_descriptor(FREE_SELECTOR, raw);
        m.user(32);
        m.assemble(32, CODE, |a| {
            a.mov(ecx, u32::from(FREE3))?;
            a.xor(ebx, ebx)?;
            a.lar(eax, ecx)?;
            a.sete(bl)?;
            a.lsl(edx, ecx)?;
            a.sete(bh)?;
            a.xor(esi, esi)?;
            a.verr(cx)?;
            a.sete(cl)?;
            a.int(0x80)
        });
        assert_eq!(m.run_to_fault(), 0x80);
        assert_eq!([m.reg(RBX) & 1, m.reg(RBX) >> 8 & 1, m.reg(RCX) & 1].map(|b| b != 0), expected[..3], "{raw:#x}");
        if expected[0] {
            assert_eq!(m.reg(RAX), raw >> 32 & 0xf0_ff00);
        }
        if expected[1] {
            assert_eq!(m.reg(RDX), u64::from(Segment::from_descriptor(0, raw).limit));
        }
        let mut m = Machine::new_protected();
        m.set_descriptor(FREE_SELECTOR, raw);
        m.user(32);
        m.assemble(32, CODE, |a| {
            a.mov(ecx, u32::from(FREE3))?;
            a.verw(cx)?;
            a.int(0x80)
        });
        m.run_to_fault();
        assert_eq!(m.pushed(2) & ZF != 0, expected[3], "VERW {raw:#x}");
    }
}

#[test]
fn arpl_raises_the_rpl_only() {
    let mut m = Machine::new_protected();
    m.assemble(32, CODE, |a| {
        a.mov(eax, 0x101)?;
        a.mov(ecx, 3)?;
        a.arpl(ax, cx)?;
        a.sete(bl)?;
        a.arpl(ax, dx)?;
        a.sete(bh)?;
        a.hlt()
    });
    m.run();
    assert_eq!(m.reg(RAX), 0x103);
    assert_eq!(m.reg(RBX) & 0xffff, 1);
}

#[test]
fn bound_is_a_fault_at_the_instruction() {
    for (index, inside) in [(-5i32, true), (-6, false), (7, true), (8, false)] {
        let mut m = Machine::new_protected();
        m.write32(FREE, -5i32 as u32);
        m.write32(FREE + 4, 7);
        m.assemble(32, CODE, |a| {
            a.mov(eax, index)?;
            a.bound(eax, dword_ptr(FREE as u32))?;
            a.int(0x80)
        });
        assert_eq!(m.run_to_fault() == 0x80, inside, "{index}");
        if !inside {
            assert_eq!((m.caught(), m.pushed(0)), (Some(fault::BR), CODE + 5));
        }
    }
}

#[test]
fn ltr_marks_busy_and_refuses_a_busy_tss() {
    let mut m = Machine::new_protected();
    m.set_descriptor(FREE_SELECTOR, descriptor(FREE as u32, 0x67, 0x89, 0));
    m.assemble(32, CODE, |a| {
        a.mov(eax, u32::from(FREE_SELECTOR))?;
        a.ltr(ax)?;
        a.str(ecx)?;
        a.ltr(ax)
    });
    assert_eq!(m.run_to_fault(), fault::GP);
    assert_eq!(m.pushed(0), u64::from(FREE_SELECTOR));
    assert_eq!(m.reg(RCX), u64::from(FREE_SELECTOR));
    assert_eq!(m.read::<1>(GDT + u64::from(FREE_SELECTOR) + 5), [0x8b]);
}

#[test]
fn lldt_descriptors_are_found_through_ti() {
    let mut m = Machine::new_protected();
    m.set_descriptor(FREE_SELECTOR, descriptor(FREE as u32, 0x0f, 0x82, 0));
    m.write64(FREE + 8, descriptor(0x1234_0000, 0, 0x93, DB));
    m.assemble(32, CODE, |a| {
        a.mov(eax, u32::from(FREE_SELECTOR))?;
        a.lldt(ax)?;
        a.mov(ecx, 0x0c)?;
        a.mov(fs, ecx)?;
        a.mov(ecx, 0x14)?;
        a.mov(fs, ecx)
    });
    assert_eq!(m.run_to_fault(), fault::GP);
    assert_eq!(m.pushed(0), 0x14);
    assert_eq!(m.cpu.state.segment(Seg::Fs).base, 0x1234_0000);
}
