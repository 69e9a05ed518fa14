//! Reporting of x87 exceptions, and the environment's four layouts.

use super::environment::Format;
use super::status;
use crate::bus::Bus;
use crate::clock::{Clock, ClockMode};
use crate::cpu::control::{CR0_EM, CR0_MP, CR0_NE, CR0_PE, CR0_TS};
use crate::cpu::fault::{self, Fault};
use crate::cpu::model::CpuModel;
use crate::exec::Vcpu;
use crate::irq::CpuPins;
use crate::mem::GuestMemory;
use std::sync::Arc;

const FDIVP: &[u8] = &[0xDE, 0xF9];
const FLD1: &[u8] = &[0xD9, 0xE8];
const FLDZ: &[u8] = &[0xD9, 0xEE];
const FNSTSW_AX: &[u8] = &[0xDF, 0xE0];
const FNCLEX: &[u8] = &[0xDB, 0xE2];
const FNINIT: &[u8] = &[0xDB, 0xE3];
const FWAIT: &[u8] = &[0x9B];
/// FNSTENV [0x100] with 16-bit addressing.
const FNSTENV: &[u8] = &[0xD9, 0x36, 0x00, 0x01];

/// A processor in real mode, code at 0:1000h, division by zero unmasked.
fn processor() -> Vcpu {
    let memory = Arc::new(GuestMemory::new(1 << 20, 0).expect("guest memory"));
    let clock = Clock::new(ClockMode::Icount { shift: 0 });
    let bus = Arc::new(Bus::new(memory, Arc::new(CpuPins::default()), clock));
    let mut cpu = Vcpu::new(Arc::new(CpuModel::max()), bus);
    let cs = crate::cpu::segment::Segment::real(0);
    cpu.state.set_segment(crate::cpu::segment::Seg::Cs, cs);
    cpu.state.fpu.init();
    cpu.state.fpu.set_control(0x37B);
    cpu.mode_changed();
    cpu
}

fn execute(cpu: &mut Vcpu, code: &[u8]) -> Result<(), Fault> {
    cpu.memory.write(0x1000, code);
    cpu.state.rip = 0x1000;
    cpu.state.regs.set64(crate::cpu::regs::BLOCK_RIP, 0x1000);
    let insn = cpu.fetch_one(0x1000)?;
    cpu.execute(&insn)
}

fn divide_by_zero(cpu: &mut Vcpu) {
    for code in [FLD1, FLDZ, FDIVP] {
        assert_eq!(execute(cpu, code), Ok(()));
    }
}

#[test]
fn unmasked_exception_waits_for_the_next_waiting_instruction() {
    let mut cpu = processor();
    cpu.state.cr0 |= CR0_NE;
    divide_by_zero(&mut cpu);
    // Nothing was popped, the opcode is that of the culprit, and instructions that do not wait go on.
    assert_eq!((cpu.state.fpu.top, cpu.state.fpu.opcode), (6, 0x6F9));
    assert_eq!(execute(&mut cpu, FNSTSW_AX), Ok(()));
    assert_eq!(cpu.state.regs.get16(0) & 0x80FF, 0x8084);
    for waiting in [FWAIT, FLD1, FDIVP] {
        assert_eq!(execute(&mut cpu, waiting), Err(Fault::plain(fault::MF)));
    }
    assert!(!cpu.ferr.is_high());
    assert_eq!(execute(&mut cpu, FNCLEX), Ok(()));
    assert_eq!(execute(&mut cpu, FWAIT), Ok(()));
}

#[test]
fn unmasked_exception_without_ne_drives_ferr_until_it_is_cleared() {
    let mut cpu = processor();
    divide_by_zero(&mut cpu);
    assert!(cpu.ferr.is_high());
    assert_eq!(execute(&mut cpu, FWAIT), Ok(()));
    assert_eq!(execute(&mut cpu, FNINIT), Ok(()));
    assert!(!cpu.ferr.is_high());
}

#[test]
fn storing_the_environment_masks_what_was_pending() {
    let mut cpu = processor();
    cpu.state.cr0 |= CR0_NE;
    divide_by_zero(&mut cpu);
    assert_eq!(execute(&mut cpu, FNSTENV), Ok(()));
    let mut image = [0; 14];
    cpu.memory.read(0x100, &mut image);
    assert_eq!(u16::from_le_bytes([image[0], image[1]]), 0x37B);
    assert_eq!(u16::from_le_bytes([image[2], image[3]]) & 0x80FF, 0x8084);
    assert_eq!(cpu.state.fpu.status & (status::ES | status::B), 0);
    assert_eq!(execute(&mut cpu, FWAIT), Ok(()));
}

#[test]
fn device_not_available_depends_on_em_ts_and_mp() {
    let nm = Err(Fault::plain(fault::NM));
    for (cr0, x87, wait) in [
        (0, Ok(()), Ok(())),
        (CR0_MP, Ok(()), Ok(())),
        (CR0_TS, nm, Ok(())),
        (CR0_EM, nm, Ok(())),
        (CR0_TS | CR0_MP, nm, nm),
    ] {
        let mut cpu = processor();
        cpu.state.cr0 |= cr0;
        assert_eq!(execute(&mut cpu, FNINIT), x87, "FNINIT with CR0 {cr0:x}");
        assert_eq!(execute(&mut cpu, FLD1), x87, "FLD1 with CR0 {cr0:x}");
        assert_eq!(execute(&mut cpu, FWAIT), wait, "FWAIT with CR0 {cr0:x}");
    }
}

#[test]
fn environment_layouts_restore_what_they_hold() {
    let mut cpu = processor();
    let fpu = &mut cpu.state.fpu;
    fpu.set_tag_word(0b11_00_00_11_11_11_00_11);
    fpu.set_status_word(0x2841);
    fpu.opcode = 0x123;
    (fpu.fip, fpu.fcs, fpu.fdp, fpu.fds) = (0x4567, 0x1000, 0x89AB, 0x2000);
    let before = cpu.state.fpu.clone();
    for (protected, words) in [(false, true), (false, false), (true, true), (true, false)] {
        cpu.state.cr0 = if protected { CR0_PE } else { 0 };
        let format = Format::of(&cpu, words);
        let image = format.store(&before);
        let mut after = before.clone();
        after.init();
        format.load(&mut after, &image[..format.len()]);
        assert_eq!(
            (after.control, after.status, after.top, after.empty),
            (before.control, before.status, 5, before.empty)
        );
        if protected {
            assert_eq!((after.fip, after.fcs, after.fdp, after.fds), (0x4567, 0x1000, 0x89AB, 0x2000));
        } else {
            // Linear addresses.
            assert_eq!((after.fip, after.fdp), (0x14567, 0x289AB));
        }
        assert_eq!(after.opcode, if protected && words { 0 } else { 0x123 });
    }
}
