//! CPUID, the time-stamp counter, performance counters, random numbers.

use super::msr::MICROCODE_REVISION;
use crate::cpu::control::{CR4_PCE, CR4_TSD};
use crate::cpu::cpuid;
use crate::cpu::fault::Fault;
use crate::cpu::regs::{RAX, RBX, RCX, RDX, RegFile};
use crate::cpu::rflags::{ARITH, CF};
use crate::decode::insn::Insn;
use crate::exec::Vcpu;

/// CPUID
pub fn cpuid(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    let leaf = cpu.state.regs.get32(RegFile::slot(RAX));
    let subleaf = cpu.state.regs.get32(RegFile::slot(RCX));
    let pending = cpu.pending_instructions();
    let apic_base = match cpu.bus.read_msr(super::msr::index::APIC_BASE, pending) {
        Some(Ok(base)) => Some(base),
        _ => None,
    };
    let [eax, ebx, ecx, edx] = cpuid::query(&cpu.model, &cpu.state, apic_base, leaf, subleaf);
    if leaf == 1 {
        // How software reads the microcode revision (SDM Vol. 3A 10.11.7.1).
        cpu.state.msrs.bios_sign_id = MICROCODE_REVISION;
    }
    for (register, value) in [(RAX, eax), (RBX, ebx), (RCX, ecx), (RDX, edx)] {
        cpu.state.regs.set_gpr(register, u64::from(value));
    }
    Ok(())
}

/// RDTSC
pub fn rdtsc(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    if cpu.state.cr4 & CR4_TSD != 0 && cpu.state.cpl > 0 {
        return Err(Fault::gp0());
    }
    let tsc = cpu.tsc();
    cpu.set_edx_eax(tsc);
    Ok(())
}

/// RDTSCP
pub fn rdtscp(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    rdtsc(cpu, insn)?;
    cpu.state.regs.set_gpr(RCX, cpu.state.msrs.tsc_aux);
    Ok(())
}

/// RDPID
pub fn rdpid(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.state.regs.set(insn.ops[0].reg, insn.width, cpu.state.msrs.tsc_aux);
    Ok(())
}

/// RDPMC: no model has counters.
pub fn rdpmc(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    let allowed = cpu.state.cpl == 0 || cpu.state.cr4 & CR4_PCE != 0;
    tracing::debug!(target: "unimp", allowed, counter = cpu.state.regs.gpr(RCX) as u32, "RDPMC");
    Err(Fault::gp0())
}

/// RDRAND, RDSEED: always succeed.
pub fn rdrand(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let value = cpu.state.random.number();
    cpu.state.regs.set(insn.ops[0].reg, insn.width, value);
    cpu.state.flags.replace(ARITH, CF);
    Ok(())
}
