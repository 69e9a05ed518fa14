//! The engine itself: loops, links, self-modifying code, budgets.

use super::*;
use crate::bus::Bus;
use crate::clock::{Clock, ClockMode};
use crate::cpu::control::CR0_PE;
use crate::cpu::regs::{RAX, RCX};
use crate::mem::GuestMemory;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

fn flat32(code: &[u8]) -> Vcpu {
    let memory = Arc::new(GuestMemory::new(1 << 20, 0).unwrap());
    memory.write(0x1000, code);
    let clock = Clock::new(ClockMode::Icount { shift: 0 });
    let bus = Arc::new(Bus::new(memory, Arc::new(CpuPins::default()), clock));
    let mut cpu = Vcpu::new(Arc::new(CpuModel::max()), bus);
    cpu.state.cr0 |= CR0_PE;
    for seg in Seg::ALL {
        let attributes = if seg == Seg::Cs { 0xc09b } else { 0xc093 };
        let value = Segment { selector: 8, base: 0, limit: u32::MAX, attributes, unusable: false };
        cpu.state.set_segment(seg, value);
    }
    cpu.state.rip = 0x1000;
    cpu.mode_changed();
    cpu
}

fn assemble(f: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let mut a = CodeAssembler::new(32).unwrap();
    f(&mut a).unwrap();
    a.assemble(0x1000).unwrap()
}

#[test]
fn loop_runs_exactly_its_budget() {
    let code = assemble(|a| {
        let mut top = a.create_label();
        a.mov(ecx, 1000)?;
        a.set_label(&mut top)?;
        a.add(eax, ecx)?;
        a.dec(ecx)?;
        a.jne(top)?;
        a.jmp(0x1000u64)
    });
    let mut cpu = flat32(&code);
    assert_eq!(cpu.run(1 + 3 * 1000), RunExit::Budget);
    assert_eq!(cpu.executed(), 3001);
    assert_eq!(cpu.state.regs.gpr(RCX), 0);
    assert_eq!(cpu.state.regs.gpr(RAX), 500_500);
    for budget in [1, 2, 3, 5, 7, 11] {
        cpu.run(budget);
        assert_eq!(cpu.executed(), budget);
    }
}

#[test]
fn store_into_next_instruction_takes_effect_at_once() {
    let code = assemble(|a| {
        a.mov(byte_ptr(0x1008), 7)?;
        a.mov(eax, 1)?;
        let mut here = a.create_label();
        a.set_label(&mut here)?;
        a.jmp(here)
    });
    let mut cpu = flat32(&code);
    cpu.run(10);
    assert_eq!(cpu.state.regs.gpr(RAX), 7);
}

#[test]
fn code_that_is_overwritten_all_the_time_sees_every_store() {
    let code = assemble(|a| {
        let mut top = a.create_label();
        a.mov(ecx, 1000)?;
        a.set_label(&mut top)?;
        // Six bytes from 1005h on; the immediate of the next instruction follows its opcode at 100Bh.
        a.mov(dword_ptr(0x100c), ecx)?;
        a.mov(eax, 0)?;
        a.add(ebx, eax)?;
        a.dec(ecx)?;
        a.jne(top)?;
        let mut here = a.create_label();
        a.set_label(&mut here)?;
        a.jmp(here)
    });
    let mut cpu = flat32(&code);
    cpu.run(1 + 5 * 1000);
    assert_eq!(cpu.state.regs.gpr(crate::cpu::regs::RBX), 500_500);
}

#[test]
fn calls_and_returns_balance() {
    let code = assemble(|a| {
        let mut top = a.create_label();
        let mut function = a.create_label();
        a.mov(esp, 0x8000)?;
        a.mov(ecx, 100)?;
        a.set_label(&mut top)?;
        a.call(function)?;
        a.dec(ecx)?;
        a.jne(top)?;
        let mut here = a.create_label();
        a.set_label(&mut here)?;
        a.jmp(here)?;
        a.set_label(&mut function)?;
        a.push(ecx)?;
        a.add(eax, dword_ptr(esp))?;
        a.pop(edx)?;
        a.ret()
    });
    let mut cpu = flat32(&code);
    cpu.run(2000);
    assert_eq!(cpu.state.regs.gpr(RAX), 5050);
    assert_eq!(cpu.state.regs.gpr(crate::cpu::regs::RSP), 0x8000);
}
