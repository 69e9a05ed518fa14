//! Control of the FPU: initialisation, control and status words, stack pointer, and saving of environment and registers.

use super::environment::Format;
use super::{Exec, status, wait};
use crate::cpu::fault::Fault;
use crate::decode::insn::{Insn, Kind};
use crate::exec::Vcpu;
use crate::mmu::walk::Access;
use crate::softfloat::F80;
use iced_x86::Mnemonic;

/// The rows of this file.
pub fn exec(m: Mnemonic) -> Option<Exec> {
    Some(match m {
        Mnemonic::Wait => wait,
        Mnemonic::Fninit => initialise,
        Mnemonic::Fnclex => clear_exceptions,
        Mnemonic::Fnop => nop,
        // 8087 and 80287 instructions, which do nothing since the 80387.
        Mnemonic::Fneni | Mnemonic::Fndisi | Mnemonic::Fnsetpm | Mnemonic::Frstpm => nop_no_wait,
        Mnemonic::Fldcw => load_control,
        Mnemonic::Fnstcw => store_control,
        Mnemonic::Fnstsw => store_status,
        Mnemonic::Fincstp => |cpu, insn| rotate(cpu, insn, 1),
        Mnemonic::Fdecstp => |cpu, insn| rotate(cpu, insn, 7),
        Mnemonic::Ffree => free::<false>,
        Mnemonic::Ffreep => free::<true>,
        Mnemonic::Fldenv => load_environment,
        Mnemonic::Fnstenv => store_environment,
        Mnemonic::Frstor => restore,
        Mnemonic::Fnsave => save,
        _ => return None,
    })
}

impl Vcpu {
    /// FERR# is released when no exception is pending any more.
    pub(super) fn x87_update_ferr(&mut self) {
        if self.state.fpu.status & status::ES == 0 {
            self.ferr.set(false);
        }
    }
}

fn initialise(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    cpu.x87_available()?;
    cpu.state.fpu.init();
    cpu.x87_update_ferr();
    Ok(())
}

fn clear_exceptions(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    cpu.x87_available()?;
    cpu.state.fpu.status &= status::C0 | status::C1 | status::C2 | status::C3;
    cpu.x87_update_ferr();
    Ok(())
}

fn nop(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_begin()?;
    cpu.x87_note(insn);
    Ok(())
}

fn nop_no_wait(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    cpu.x87_available()
}

fn load_control(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_begin()?;
    let linear = cpu.linear(insn, 2, Access::Read)?;
    let value = cpu.load(linear)?;
    cpu.state.fpu.set_control(value);
    Ok(())
}

fn store_control(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_available()?;
    let linear = cpu.linear(insn, 2, Access::Write)?;
    cpu.store(linear, cpu.state.fpu.control)
}

/// FNSTSW m16 and FNSTSW AX.
fn store_status(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_available()?;
    let word = cpu.state.fpu.status_word();
    if insn.ops[0].kind == Kind::Mem {
        let linear = cpu.linear(insn, 2, Access::Write)?;
        return cpu.store(linear, word);
    }
    cpu.state.regs.set16(insn.ops[0].reg, word);
    Ok(())
}

/// FINCSTP and FDECSTP.
fn rotate(cpu: &mut Vcpu, insn: &Insn, by: u8) -> Result<(), Fault> {
    cpu.x87_begin()?;
    cpu.x87_note(insn);
    let fpu = &mut cpu.state.fpu;
    fpu.top = (fpu.top + by) & 7;
    fpu.set_condition(status::C1, false);
    Ok(())
}

/// FFREE and the undocumented FFREEP, which pops afterwards.
fn free<const POP: bool>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_begin()?;
    cpu.x87_note(insn);
    let fpu = &mut cpu.state.fpu;
    fpu.free(insn.ops[0].reg);
    fpu.set_condition(status::C1, false);
    if POP {
        fpu.pop();
    }
    Ok(())
}

fn load_environment(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_begin()?;
    let format = Format::of(cpu, insn.ops[0].size == 14);
    let mut image = [0; 28];
    let image = &mut image[..format.len()];
    let linear = cpu.linear(insn, image.len() as u64, Access::Read)?;
    cpu.check_alignment(linear, format.unit())?;
    cpu.read_bytes(linear, image, cpu.privilege())?;
    cpu.watch(linear, image.len() as u64, Access::Read);
    format.load(&mut cpu.state.fpu, image);
    cpu.x87_update_ferr();
    Ok(())
}

/// FNSTENV: all exceptions are masked afterwards.
fn store_environment(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_available()?;
    let format = Format::of(cpu, insn.ops[0].size == 14);
    let image = format.store(&cpu.state.fpu);
    let len = format.len();
    let linear = cpu.linear(insn, len as u64, Access::Write)?;
    cpu.check_alignment(linear, format.unit())?;
    cpu.write_bytes(linear, &image[..len], cpu.privilege())?;
    cpu.watch(linear, len as u64, Access::Write);
    let masked = cpu.state.fpu.control | 0x3F;
    cpu.state.fpu.set_control(masked);
    cpu.x87_update_ferr();
    Ok(())
}

/// FRSTOR: environment and registers, ST(0) first.
fn restore(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_begin()?;
    let format = Format::of(cpu, insn.ops[0].size == 94);
    let mut image = [0; 108];
    let len = format.len() + 80;
    let image = &mut image[..len];
    let linear = cpu.linear(insn, len as u64, Access::Read)?;
    cpu.check_alignment(linear, format.unit())?;
    cpu.read_bytes(linear, image, cpu.privilege())?;
    cpu.watch(linear, len as u64, Access::Read);
    let (environment, registers) = image.split_at(format.len());
    let fpu = &mut cpu.state.fpu;
    format.load(fpu, environment);
    for (i, bytes) in registers.chunks_exact(10).enumerate() {
        let mut ten = [0; 10];
        ten.copy_from_slice(bytes);
        let n = (usize::from(fpu.top) + i) & 7;
        fpu.r[n] = F80::from_le_bytes(ten);
    }
    cpu.x87_update_ferr();
    Ok(())
}

/// FNSAVE: then as FNINIT.
fn save(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_available()?;
    let format = Format::of(cpu, insn.ops[0].size == 94);
    let len = format.len();
    let mut image = [0; 108];
    image[..28].copy_from_slice(&format.store(&cpu.state.fpu));
    for i in 0..8 {
        let at = len + 10 * usize::from(i);
        image[at..at + 10].copy_from_slice(&cpu.state.fpu.st(i).to_le_bytes());
    }
    let image = &image[..len + 80];
    let linear = cpu.linear(insn, image.len() as u64, Access::Write)?;
    cpu.check_alignment(linear, format.unit())?;
    cpu.write_bytes(linear, image, cpu.privilege())?;
    cpu.watch(linear, image.len() as u64, Access::Write);
    cpu.state.fpu.init();
    cpu.x87_update_ferr();
    Ok(())
}
