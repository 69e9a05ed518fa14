//! Instructions that wait, order or move cached data: HLT, MONITOR, MWAIT, cache control, fences, prefetches.
//!
//! emu has no caches and executes in order, so most of these only check their privilege and operands. MWAIT waits for an
//! interrupt like HLT, since nothing but an interrupt can change memory on a machine with one processor.

use super::privileged;
use crate::cpu::fault::Fault;
use crate::cpu::regs::{RAX, RCX};
use crate::cpu::{Activity, Width};
use crate::decode::insn::Insn;
use crate::exec::Vcpu;
use crate::mmu::walk::Access;
use iced_x86::Code;

/// HLT
pub fn hlt(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    privileged(cpu)?;
    cpu.state.activity = Activity::Halted;
    cpu.leave = true;
    Ok(())
}

/// MONITOR
pub fn monitor(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    if cpu.state.cpl != 0 {
        return Err(Fault::ud());
    }
    if cpu.state.regs.gpr(RCX) as u32 != 0 {
        return Err(Fault::gp0());
    }
    let width = match insn.code {
        Code::Monitorw => Width::B2,
        Code::Monitord => Width::B4,
        _ => Width::B8,
    };
    let offset = cpu.state.regs.gpr(RAX) & width.mask();
    let linear = cpu.seg_linear(insn.mem.seg, offset, 1, Access::Read)?;
    cpu.load::<u8>(linear)?;
    cpu.state.monitor_armed = true;
    Ok(())
}

/// MWAIT
pub fn mwait(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    if cpu.state.cpl != 0 {
        return Err(Fault::ud());
    }
    // ECX bit 0 would be the extension that CPUID 5 does not report.
    if cpu.state.regs.gpr(RCX) as u32 != 0 {
        return Err(Fault::gp0());
    }
    if std::mem::take(&mut cpu.state.monitor_armed) {
        cpu.state.activity = Activity::Halted;
        cpu.leave = true;
    }
    Ok(())
}

/// INVD, WBINVD, WBNOINVD
pub fn write_back(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    privileged(cpu)
}

/// CLFLUSH, CLFLUSHOPT, CLWB: fault as a read of a byte does.
pub fn cache_line(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let linear = cpu.linear(insn, 1, Access::Read)?;
    let privilege = cpu.privilege();
    cpu.probe(linear, 1, Access::Read, privilege)
}

/// MFENCE. Loads and stores of their kinds are in order already, so that LFENCE and SFENCE do nothing.
pub fn fence(_: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    Ok(())
}

/// SERIALIZE
pub fn serialize(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    fence(cpu, insn)
}

/// Prefetches and hints, which never fault.
pub fn none(_: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    Ok(())
}
