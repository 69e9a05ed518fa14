//! Delivery of exceptions and interrupts, IRET, shadows and single steps, in every mode.

use emu_core::cpu::control::CR4_VME;
use emu_core::cpu::fault;
use emu_core::cpu::regs::{RAX, RBX, RCX, RSP};
use emu_core::cpu::rflags::{AC, IF, IOPL, NT, RF, TF, VIF, VIP, VM};
use emu_core::cpu::segment::{Seg, system};
use emu_core::irq::{CpuPins, InterruptSource};
use emu_tests::machine::*;
use iced_x86::code_asm::*;
use std::sync::Arc;

/// An interrupt controller that always answers with one vector.
struct Always(u8, Arc<CpuPins>);

impl InterruptSource for Always {
    fn acknowledge(&self) -> Option<u8> {
        self.1.take(CpuPins::INTR);
        Some(self.0)
    }
}

fn raise_interrupt(m: &mut Machine, vector: u8) {
    m.cpu.bus.set_interrupt_source(Arc::new(Always(vector, m.cpu.pins.clone())));
    m.cpu.pins.raise(CpuPins::INTR);
}

#[test]
fn real_mode_int_pushes_flags_cs_ip_and_iret_returns() {
    let mut m = Machine::new(2);
    m.write32(4 * 0x21, 0x1000_0100);
    m.assemble(16, CODE, |a| {
        a.sti()?;
        a.int(0x21)?;
        a.hlt()
    });
    m.assemble(16, CODE + 0x100, |a| {
        a.mov(bx, sp)?;
        a.pushf()?;
        a.pop(cx)?;
        a.iret()
    });
    m.run();
    assert_eq!(m.reg(RBX), 0x8000 - 6);
    assert_eq!(m.reg(RCX) & (IF | TF), 0);
    assert_eq!(m.read16(STACK0 - 6), 3, "IP behind the INT");
    assert_eq!(m.read16(STACK0 - 4), 0x1000);
    assert_ne!(u64::from(m.read16(STACK0 - 2)) & IF, 0);
    assert_eq!(m.reg(RSP), 0x8000);
    assert!(m.cpu.state.has(IF));
    assert_eq!(m.cpu.state.rip, 4);
}

#[test]
fn real_mode_vector_beyond_the_ivt_limit_is_a_gp() {
    let mut m = Machine::new(2);
    m.catch_all();
    m.cpu.state.idtr.limit = 0x7f;
    m.assemble(16, CODE, |a| a.int(0x20));
    assert_eq!(m.run_to_fault(), fault::GP);
    assert_eq!(m.pushed(0), 0, "IP of the INT itself");
}

#[test]
fn protected_fault_same_level_pushes_three_and_error_code() {
    let mut m = Machine::new_protected();
    m.assemble(32, CODE, |a| {
        a.nop()?;
        a.mov(eax, 0x1234)?;
        a.mov(ds, eax)
    });
    assert_eq!(m.run_to_fault(), fault::GP);
    assert_eq!(m.pushed(0), 0x1234);
    assert_eq!(m.pushed(1), CODE + 6);
    assert_eq!(m.pushed(2), u64::from(CODE32));
    assert_eq!(m.reg(RSP), STACK0 - 16);
    assert_ne!(m.pushed(3) & RF, 0);
}

#[test]
fn protected_int_from_level_3_switches_to_the_tss_stack_and_back() {
    let mut m = Machine::new_protected();
    m.user(32);
    m.assemble(32, CODE, |a| {
        a.mov(eax, 1)?;
        a.int(0x80)?;
        a.mov(ecx, eax)?;
        a.ud2()
    });
    m.assemble(32, CODE + 0x100, |a| {
        a.mov(ebx, esp)?;
        a.inc(eax)?;
        a.iretd()
    });
    m.set_gate(0x80, gate(system::INTERRUPT_GATE32, CODE32, CODE as u32 + 0x100, 3, 0));
    assert_eq!(m.run_to_fault(), fault::UD);
    assert_eq!(m.reg(RCX), 2);
    assert_eq!(m.reg(RBX), INNER_STACK0 - 20);
    let frame: Vec<u32> = (0..5).map(|n| m.read32(INNER_STACK0 - 20 + 4 * n)).collect();
    assert_eq!(frame[1..2], [u32::from(USER_CODE32) | 3]);
    assert_eq!(frame[3..], [STACK3 as u32, u32::from(USER_DATA) | 3]);
}

#[test]
fn protected_16_bit_gate_pushes_words() {
    let mut m = Machine::new_protected();
    m.assemble(32, CODE, |a| {
        a.int(0x40)?;
        a.hlt()
    });
    // 16-bit gates reach 64 KiB only.
    m.assemble(32, 0x8000, |a| {
        a.mov(ebx, esp)?;
        a.mov(esp, STACK0 as u32)?;
        a.hlt()
    });
    m.set_gate(0x40, gate(system::TRAP_GATE16, CODE32, 0x8000, 0, 0));
    m.run();
    assert_eq!(m.reg(RBX), STACK0 - 6);
    assert_eq!(m.read16(STACK0 - 6), CODE as u16 + 2);
    assert_eq!(m.read16(STACK0 - 4), CODE32);
}

#[test]
fn software_interrupt_checks_dpl_but_exception_does_not() {
    let mut m = Machine::new_protected();
    m.user(32);
    m.set_gate(0x50, gate(system::INTERRUPT_GATE32, CODE32, HANDLERS as u32 + 0x500, 0, 0));
    m.assemble(32, CODE, |a| a.int(0x50));
    assert_eq!(m.run_to_fault(), fault::GP);
    assert_eq!(m.pushed(0), 0x50 * 8 + 2, "IDT bit, no EXT");

    let mut m = Machine::new_protected();
    m.user(32);
    m.set_gate(fault::UD, gate(system::INTERRUPT_GATE32, CODE32, HANDLERS as u32 + 16 * 6, 0, 0));
    m.assemble(32, CODE, |a| a.ud2());
    assert_eq!(m.run_to_fault(), fault::UD);
}

#[test]
fn fault_while_delivering_has_ext_set() {
    let mut m = Machine::new_protected();
    m.set_gate(fault::UD, 0x0000_0e00_0008_0000);
    m.assemble(32, CODE, |a| a.ud2());
    assert_eq!(m.run_to_fault(), fault::NP);
    assert_eq!(m.pushed(0), 6 * 8 + 2 + 1);
    assert_eq!(m.pushed(1), CODE);
}

#[test]
fn contributory_fault_while_delivering_gp_is_a_double_fault() {
    let mut m = Machine::new_protected();
    m.set_gate(fault::GP, 0);
    m.assemble(32, CODE, |a| a.int(0xff));
    m.cpu.state.idtr.limit = 0x7f7;
    assert_eq!(m.run_to_fault(), fault::DF);
    assert_eq!(m.pushed(0), 0);
}

#[test]
fn inner_stack_faults_name_the_right_selector() {
    let cases: &[(u16, Option<u64>, u8, u64)] = &[
        (0, None, fault::TS, 0),
        (USER_DATA, None, fault::TS, USER_DATA as u64),
        (DATA | 1, None, fault::TS, DATA as u64),
        (0x1f0, None, fault::TS, 0x1f0),
        (FREE_SELECTOR, Some(descriptor(0, 0xf_ffff, 0x13, G_DB)), fault::SS, FREE_SELECTOR as u64),
        (FREE_SELECTOR, Some(descriptor(0, 0x1000, 0x93, DB)), fault::SS, FREE_SELECTOR as u64),
    ];
    for (selector, raw, vector, code) in cases {
        let mut m = Machine::new_protected();
        m.cpu.state.gdtr.limit = 0xff;
        if let Some(raw) = raw {
            m.set_descriptor(*selector, *raw);
        }
        m.write16(TSS + 8, *selector);
        // The fault itself cannot use the broken stack: its handler is conforming code, which stays at level 3.
        m.set_descriptor(FREE_SELECTOR + 8, descriptor(0, 0xf_ffff, 0x9f, G_DB));
        for vector in [fault::TS, fault::SS] {
            let handler = HANDLERS as u32 + 16 * u32::from(vector);
            m.set_gate(vector, gate(system::INTERRUPT_GATE32, FREE_SELECTOR + 8, handler, 0, 0));
        }
        m.user(32);
        m.assemble(32, CODE, |a| a.int(0x80));
        // HLT at level 3 faults again; stop at the handler instead by looping there.
        for vector in [fault::TS, fault::SS] {
            m.write(HANDLERS + 16 * u64::from(vector), &[0xeb, 0xfe]);
        }
        m.cpu.run(1000);
        assert_eq!(m.cpu.state.rip, HANDLERS + 16 * u64::from(*vector), "stack selector {selector:#x}");
        assert_eq!(m.pushed(0), *code, "error code for stack selector {selector:#x}");
        assert_eq!(m.pushed(1), CODE);
    }
}

#[test]
fn page_fault_while_pushing_changes_nothing() {
    let mut m = Machine::new_long();
    let table = PAGE_TABLES + 0x3000;
    for n in 0..512u64 {
        m.write64(table + 8 * n, n << 12 | 7);
    }
    m.write64(PAGE_TABLES + 0x2000, table | 7);
    // A frame across the boundary of a present and a missing page.
    m.write64(table + 8 * (FREE / 0x1000), 0);
    m.cpu.flush_tlb(false);
    m.write(FREE + 0x1000, &[0xaa; 16]);
    m.write64(TSS + 0x24, INNER_STACK0);
    let page_fault = HANDLERS as u32 + 16 * 14;
    m.set_gate(fault::PF, gate(system::INTERRUPT_GATE32, CODE64, page_fault, 0, 1));
    m.assemble(64, CODE, |a| {
        a.mov(rsp, FREE + 0x1010)?;
        a.int(0x80)
    });
    assert_eq!(m.run_to_fault(), fault::PF);
    assert_eq!(m.read::<16>(FREE + 0x1000), [0xaa; 16], "no part of the frame was written");
    assert_eq!(m.pushed(4), FREE + 0x1010, "RSP of the INT");
    assert_eq!(m.pushed(1), CODE + 10, "RIP of the INT");
    assert_eq!(m.cpu.state.cr2 & !0xfff, FREE);
}

#[test]
fn long_mode_frame_is_aligned_and_always_has_the_stack() {
    let mut m = Machine::new_long();
    m.assemble(64, CODE, |a| {
        a.mov(rsp, STACK0 - 3)?;
        a.int(0x80)
    });
    assert_eq!(m.run_to_fault(), 0x80);
    assert_eq!(m.reg(RSP), ((STACK0 - 3) & !15) - 40);
    assert_eq!(m.pushed(3), STACK0 - 3);
    assert_eq!(m.pushed(4), u64::from(DATA));
}

#[test]
fn long_mode_from_level_3_uses_rsp0_and_null_ss_and_iretq_restores() {
    for bits in [32u32, 64] {
        let mut m = Machine::new_long();
        m.user(bits);
        m.assemble(bits, CODE, |a| {
            a.int(0x80)?;
            a.ud2()
        });
        m.assemble(64, CODE + 0x100, |a| {
            a.mov(rbx, rsp)?;
            a.mov(ecx, ss)?;
            a.iretq()
        });
        m.set_gate(0x80, gate(system::INTERRUPT_GATE32, CODE64, CODE as u32 + 0x100, 3, 0));
        assert_eq!(m.run_to_fault(), fault::UD);
        assert_eq!(m.reg(RBX), INNER_STACK0 - 40);
        assert_eq!(m.reg(RCX), 0);
        assert_eq!(m.pushed(0), CODE + 2);
        let code = if bits == 64 { USER_CODE64 } else { USER_CODE32 };
        assert_eq!(m.pushed(1), u64::from(code) | 3);
        assert_eq!(m.pushed(3), STACK3);
        assert_eq!(m.pushed(4), u64::from(USER_DATA) | 3);
    }
}

#[test]
fn ist_replaces_the_stack_even_without_change_of_level() {
    let mut m = Machine::new_long();
    m.write64(TSS + 0x24 + 8, FREE + 0x2008);
    m.set_gate(fault::UD, gate(system::INTERRUPT_GATE32, CODE64, HANDLERS as u32 + 96, 0, 2));
    m.assemble(64, CODE, |a| a.ud2());
    assert_eq!(m.run_to_fault(), fault::UD);
    assert_eq!(m.reg(RSP), FREE + 0x2000 - 40);
    assert_eq!(m.cpu.state.segment(Seg::Ss).selector, DATA);
}

#[test]
fn interrupt_waits_for_the_instruction_after_sti() {
    let mut m = Machine::new_protected();
    raise_interrupt(&mut m, 0x30);
    m.assemble(32, CODE, |a| {
        a.xor(eax, eax)?;
        a.sti()?;
        a.inc(eax)?;
        a.inc(eax)?;
        a.hlt()
    });
    assert_eq!(m.run_to_fault(), 0x30);
    assert_eq!(m.reg(RAX), 1);
}

#[test]
fn interrupt_waits_for_the_instruction_after_mov_ss() {
    let mut m = Machine::new_protected();
    m.cpu.state.system_flags |= IF;
    m.assemble(32, CODE, |a| {
        a.mov(ecx, ss)?;
        a.mov(ss, ecx)?;
        a.inc(eax)?;
        a.inc(eax)?;
        a.hlt()
    });
    assert_eq!(m.cpu.run(1), emu_core::exec::RunExit::Budget);
    raise_interrupt(&mut m, 0x30);
    // The budget ends between MOV SS and INC: the shadow must survive that too.
    m.cpu.pins.take(CpuPins::INTR);
    m.cpu.run(1);
    m.cpu.pins.raise(CpuPins::INTR);
    assert_eq!(m.run_to_fault(), 0x30);
    assert_eq!(m.reg(RAX), 1);
}

#[test]
fn popf_enabling_interrupts_has_no_shadow() {
    let mut m = Machine::new_protected();
    raise_interrupt(&mut m, 0x30);
    m.assemble(32, CODE, |a| {
        a.xor(eax, eax)?;
        a.push(0x202)?;
        a.popfd()?;
        a.inc(eax)?;
        a.hlt()
    });
    assert_eq!(m.run_to_fault(), 0x30);
    assert_eq!(m.reg(RAX), 0);
}

#[test]
fn sti_hlt_wakes_with_the_return_address_behind_hlt() {
    let mut m = Machine::new_protected();
    raise_interrupt(&mut m, 0x30);
    m.assemble(32, CODE, |a| {
        a.sti()?;
        a.hlt()
    });
    assert_eq!(m.run_to_fault(), 0x30);
    assert_eq!(m.pushed(0), CODE + 2);
}

#[test]
fn nmi_blocks_nmi_until_iret() {
    let mut m = Machine::new_protected();
    m.assemble(32, CODE, |a| {
        a.nop()?;
        a.nop()?;
        a.hlt()
    });
    m.assemble(32, HANDLERS + 16 * 2, |a| {
        a.inc(eax)?;
        a.inc(ebx)?;
        a.iretd()
    });
    m.cpu.pins.raise(CpuPins::NMI);
    m.cpu.run(2);
    m.cpu.pins.raise(CpuPins::NMI);
    m.cpu.run(1);
    assert_eq!(m.reg(RAX), 1, "the second one waits");
    m.run();
    assert_eq!(m.reg(RAX), 2);
    assert_eq!(m.reg(RBX), 2);
    assert!(!m.cpu.state.nmi_blocked);
}

#[test]
fn tf_traps_after_each_instruction_with_tf_clear_in_the_handler() {
    let mut m = Machine::new_protected();
    m.assemble(32, CODE, |a| {
        a.pushfd()?;
        a.or(dword_ptr(esp), TF as u32)?;
        a.popfd()?;
        a.nop()?;
        a.mov(ecx, ss)?;
        a.mov(ss, ecx)?;
        a.nop()?;
        a.hlt()?;
        a.int(0x80)
    });
    m.assemble(32, HANDLERS + 16, |a| {
        a.pop(edx)?;
        a.mov(dword_ptr(FREE as u32 + ebx * 4), edx)?;
        a.push(edx)?;
        a.inc(ebx)?;
        a.iretd()
    });
    assert_eq!(m.run_to_fault(), 0x80);
    let traps: Vec<u64> = (0..m.reg(RBX)).map(|n| u64::from(m.read32(FREE + 4 * n)) - CODE).collect();
    // Behind NOP, MOV ECX, then, because MOV SS holds traps back, the NOP after it, then HLT, which the trap ends.
    assert_eq!(traps, [10, 12, 15, 16]);
    assert_ne!(m.cpu.state.dr[6] & 1 << 14, 0);
}

#[test]
fn tf_with_btf_traps_behind_taken_branches_only_and_clears_btf() {
    let mut m = Machine::new_protected();
    m.assemble(32, CODE, |a| {
        let (mut first, mut second) = (a.create_label(), a.create_label());
        a.mov(ecx, 0x1d9)?;
        a.xor(edx, edx)?;
        a.mov(eax, 2)?;
        a.wrmsr()?;
        a.pushfd()?;
        a.or(dword_ptr(esp), TF as u32)?;
        a.popfd()?;
        a.nop()?;
        a.cmp(eax, 3)?;
        a.je(first)?;
        a.jmp(second)?;
        a.nop()?;
        a.set_label(&mut first)?;
        a.nop()?;
        a.set_label(&mut second)?;
        a.hlt()
    });
    assert_eq!(m.run_to_fault(), fault::DB);
    assert_eq!(m.read::<1>(m.pushed(0)), [0xf4], "at the target of the jump that is taken");
    assert_eq!(m.cpu.state.msrs.debugctl, 0);
    assert_ne!(m.cpu.state.dr[6] & 1 << 14, 0);
}

#[test]
fn init_keeps_floating_point_and_model_specific_registers() {
    let mut m = Machine::new_long();
    m.assemble(64, CODE, |a| {
        a.fldpi()?;
        a.mov(eax, 0x1f00)?;
        a.mov(dword_ptr(FREE), eax)?;
        a.ldmxcsr(dword_ptr(FREE))?;
        a.mov(ecx, 0x277)?;
        a.mov(eax, 0x0106)?;
        a.xor(edx, edx)?;
        a.wrmsr()?;
        a.hlt()
    });
    m.cpu.state.cr4 |= emu_core::cpu::control::CR4_OSFXSR;
    m.cpu.mode_changed();
    m.run();
    let before = m.cpu.state.clone();
    m.cpu.pins.raise(CpuPins::INIT);
    m.cpu.run(0);
    let s = &m.cpu.state;
    assert_eq!((s.segment(Seg::Cs).base, s.rip), (0xffff_0000, 0xfff0));
    assert_eq!((s.cr0, s.cr3, s.cr4, s.msrs.efer), (before.cr0 & 0x6000_0000 | 0x10, 0, 0, 0));
    assert_eq!((s.mxcsr, s.msrs.pat, s.fpu.top), (0x1f00, 0x0106, before.fpu.top));
    assert_eq!(s.regs.gpr(emu_core::cpu::regs::RDX) >> 8 & 15, 6, "EDX tells the family");
}

#[test]
fn tf_makes_no_trap_behind_int_n() {
    let mut m = Machine::new_protected();
    m.assemble(32, CODE, |a| {
        a.pushfd()?;
        a.or(dword_ptr(esp), TF as u32)?;
        a.popfd()?;
        a.int(0x40)?;
        a.nop()
    });
    m.assemble(32, HANDLERS + 0x400, |a| {
        a.inc(eax)?;
        a.iretd()
    });
    // The first trap comes behind the instruction that IRET returns to.
    assert_eq!(m.run_to_fault(), fault::DB);
    assert_eq!(m.reg(RAX), 1);
    assert_eq!(m.pushed(0), CODE + 12);
}

#[test]
fn iret_to_outer_level_nulls_data_segments_it_may_not_use() {
    let mut m = Machine::new_protected();
    m.assemble(32, CODE, |a| {
        a.push(u32::from(USER_DATA) as i32 | 3)?;
        a.push(STACK3 as i32)?;
        a.pushfd()?;
        a.push(u32::from(USER_CODE32) as i32 | 3)?;
        a.push(CODE as i32 + 0x100)?;
        a.mov(eax, u32::from(USER_DATA) | 3)?;
        a.mov(es, eax)?;
        a.iretd()
    });
    m.assemble(32, CODE + 0x100, |a| {
        a.mov(eax, ds)?;
        a.mov(ebx, es)?;
        a.ud2()
    });
    assert_eq!(m.run_to_fault(), fault::UD);
    assert_eq!(m.reg(RAX), 0);
    assert_eq!(m.reg(RBX), u64::from(USER_DATA) | 3);
}

#[test]
fn iret_at_level_3_changes_neither_iopl_nor_if() {
    let mut m = Machine::new_protected();
    m.user(32);
    m.assemble(32, CODE, |a| {
        a.push((IF | IOPL | AC | TF) as i32 & !(TF as i32))?;
        a.push(i32::from(USER_CODE32) | 3)?;
        a.push(CODE as i32 + 0x100)?;
        a.iretd()
    });
    m.assemble(32, CODE + 0x100, |a| a.ud2());
    assert_eq!(m.run_to_fault(), fault::UD);
    assert_eq!(m.pushed(2) & (IF | IOPL | AC), AC);
}

#[test]
fn v86_fault_pushes_all_segments_and_iret_goes_back() {
    let mut m = Machine::new_protected();
    m.v86(0);
    m.assemble(16, CODE, |a| {
        a.mov(ax, 0x1111)?;
        a.mov(ds, ax)?;
        a.mov(ax, 0x2222)?;
        a.mov(gs, ax)?;
        a.cli()?;
        a.mov(bx, ds)?;
        a.ud2()
    });
    // The monitor steps over the CLI.
    m.assemble(32, HANDLERS + 16 * 13, |a| {
        a.add(esp, 4)?;
        a.inc(dword_ptr(esp))?;
        a.mov(ecx, esp)?;
        a.mov(edx, ds)?;
        a.iretd()
    });
    assert_eq!(m.run_to_fault(), fault::UD);
    assert_eq!(m.reg(RBX) & 0xffff, 0x1111, "DS again after the return");
    assert_eq!(m.reg(RCX), INNER_STACK0 - 36);
    assert_eq!(m.reg(2), 0, "DS is null in the monitor");
    assert_eq!(m.read32(INNER_STACK0 - 12), 0x1111);
    assert_eq!(m.read32(INNER_STACK0 - 4), 0x2222);
    assert_ne!(m.pushed(2) & VM, 0);
    assert!(!m.cpu.state.v86());
}

#[test]
fn v86_int_with_iopl_3_enters_the_monitor() {
    let mut m = Machine::new_protected();
    m.v86(3);
    m.assemble(16, CODE, |a| a.int(0x21));
    assert_eq!(m.run_to_fault(), 0x21);
    let mut m = Machine::new_protected();
    m.v86(2);
    m.assemble(16, CODE, |a| a.int(0x21));
    assert_eq!(m.run_to_fault(), fault::GP);
    assert_eq!(m.pushed(0), 0);
}

/// A virtual-8086 task with VME on, all interrupts redirected to itself, INT 21h at 1000:0100.
fn vme(iopl: u64) -> Machine {
    let mut m = Machine::new_protected();
    m.cpu.state.cr4 |= CR4_VME;
    m.write16(TSS + 0x66, 0x68 + 32);
    m.write(TSS + 0x68, &[0; 32]);
    m.write32(4 * 0x21, 0x1000_0100);
    m.v86(iopl);
    m
}

#[test]
fn vme_redirects_int_to_the_program_with_the_virtual_flag() {
    let mut m = vme(0);
    m.assemble(16, CODE, |a| {
        a.sti()?;
        a.int(0x21)?;
        a.ud2()
    });
    m.assemble(16, CODE + 0x100, |a| {
        a.pushf()?;
        a.pop(bx)?;
        a.iret()
    });
    assert_eq!(m.run_to_fault(), fault::UD);
    assert_eq!(u64::from(m.read16(STACK3 - 2)) & (IF | IOPL), IF | IOPL, "pushed: IF stands for VIF, IOPL 3");
    assert_eq!(m.reg(RBX) & IF, 0, "VIF is clear in the handler");
    assert_eq!(m.pushed(2) & (VIF | IF), VIF, "and set again after IRET");
}

#[test]
fn vme_sti_with_pending_interrupt_traps() {
    let mut m = vme(0);
    m.cpu.state.system_flags |= VIP;
    m.assemble(16, CODE, |a| a.sti());
    assert_eq!(m.run_to_fault(), fault::GP);
    let mut m = vme(0);
    m.write8(TSS + 0x68 + 4, 2);
    m.assemble(16, CODE, |a| a.int(0x21));
    assert_eq!(m.run_to_fault(), fault::GP, "the bitmap sends INT 21h to the monitor, which IOPL 0 forbids");
}

#[test]
fn iret_with_nt_in_long_mode_is_a_gp() {
    let mut m = Machine::new_long();
    m.cpu.state.system_flags |= NT;
    m.assemble(64, CODE, |a| a.iretq());
    assert_eq!(m.run_to_fault(), fault::GP);
    assert_eq!(m.pushed(0), 0);
}

#[test]
fn iretq_to_non_canonical_rip_is_a_gp_at_the_iret() {
    let mut m = Machine::new_long();
    m.assemble(64, CODE, |a| {
        a.push(i32::from(DATA))?;
        a.push(0x1000)?;
        a.push(2)?;
        a.push(i32::from(CODE64))?;
        a.mov(rax, 0x8000_0000_0000u64)?;
        a.push(rax)?;
        a.iretq()
    });
    assert_eq!(m.run_to_fault(), fault::GP);
    assert_eq!(m.pushed(3) & 0xffff_0000, RF, "the flags of the faulting code, not those popped");
    assert_eq!(m.pushed(4), STACK0 - 40);
}

#[test]
fn int3_and_into_are_traps_and_int1_ignores_dpl() {
    let mut m = Machine::new_protected();
    m.user(32);
    m.set_gate(fault::DB, gate(system::INTERRUPT_GATE32, CODE32, HANDLERS as u32 + 16, 0, 0));
    m.assemble(32, CODE, |a| a.int1());
    assert_eq!(m.run_to_fault(), fault::DB);
    assert_eq!(m.pushed(0), CODE + 1);
    let mut m = Machine::new_protected();
    m.assemble(32, CODE, |a| {
        a.mov(al, 0x7f)?;
        a.inc(al)?;
        a.into()
    });
    assert_eq!(m.run_to_fault(), fault::OF);
    assert_eq!(m.pushed(0), CODE + 5);
}
