//! System instructions: control, debug and model-specific registers, descriptor-table registers, fast system calls,
//! identification, time, caches and hints (SDM Vol. 2; Vol. 3A 2.8).
//!
//! Deliberately absent: virtual-machine extensions, SGX, system-management mode (RSM is #UD), transactional memory.

pub mod bcd;
pub mod control;
pub mod debug;
pub mod fast_call;
pub mod hint;
pub mod identify;
pub mod msr;
pub mod table_register;

use super::Exec;
use crate::cpu::fault::Fault;
use crate::decode::insn::{Insn, Kind, undefined};
use crate::exec::Vcpu;
use iced_x86::Mnemonic as M;

/// The rows of this group.
pub fn exec(m: M) -> Option<Exec> {
    Some(match m {
        M::Lgdt => table_register::lgdt,
        M::Lidt => table_register::lidt,
        M::Sgdt => table_register::sgdt,
        M::Sidt => table_register::sidt,
        M::Smsw => control::smsw,
        M::Lmsw => control::lmsw,
        M::Clts => control::clts,
        M::Invlpg => control::invlpg,
        M::Invpcid => control::invpcid,
        M::Xgetbv => control::xgetbv,
        M::Xsetbv => control::xsetbv,
        M::Stac => control::stac,
        M::Clac => control::clac,
        M::Rdmsr => msr::rdmsr,
        M::Wrmsr => msr::wrmsr,
        M::Rdfsbase | M::Rdgsbase => msr::read_base,
        M::Wrfsbase | M::Wrgsbase => msr::write_base,
        M::Swapgs => msr::swapgs,
        M::Syscall => fast_call::syscall,
        M::Sysret | M::Sysretq => fast_call::sysret,
        M::Sysenter => fast_call::sysenter,
        M::Sysexit | M::Sysexitq => fast_call::sysexit,
        M::Cpuid => identify::cpuid,
        M::Rdtsc => identify::rdtsc,
        M::Rdtscp => identify::rdtscp,
        M::Rdpid => identify::rdpid,
        M::Rdpmc => identify::rdpmc,
        M::Rdrand | M::Rdseed => identify::rdrand,
        M::Hlt => hint::hlt,
        M::Monitor => hint::monitor,
        M::Mwait => hint::mwait,
        M::Invd | M::Wbinvd | M::Wbnoinvd => hint::write_back,
        M::Clflush | M::Clflushopt | M::Clwb => hint::cache_line,
        M::Mfence => hint::fence,
        M::Lfence | M::Sfence => hint::none,
        M::Prefetchnta | M::Prefetcht0 | M::Prefetcht1 | M::Prefetcht2 | M::Prefetch | M::Prefetchw => hint::none,
        M::Prefetchwt1 | M::Cldemote | M::Rdsspd | M::Rdsspq => hint::none,
        M::Serialize => hint::serialize,
        M::Ud0 | M::Ud1 | M::Ud2 | M::Rsm => undefined,
        _ => return bcd::exec(m),
    })
}

/// MOV to and from control and debug registers.
///
/// # Errors
/// What the register demands; #UD for those that do not exist.
pub fn mov_control(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    match (insn.ops[0].kind, insn.ops[1].kind) {
        (_, Kind::Cr) => control::read(cpu, insn),
        (Kind::Cr, _) => control::write(cpu, insn),
        (_, Kind::Dr) => debug::read(cpu, insn),
        (Kind::Dr, _) => debug::write(cpu, insn),
        // Test registers went away with the Pentium.
        _ => Err(Fault::ud()),
    }
}

/// #GP(0) unless the processor runs at CPL 0.
fn privileged(cpu: &Vcpu) -> Result<(), Fault> {
    if cpu.state.cpl == 0 { Ok(()) } else { Err(Fault::gp0()) }
}

/// #GP(0) unless `address` is canonical.
fn canonical(cpu: &Vcpu, address: u64) -> Result<(), Fault> {
    if cpu.state.canonical(address) { Ok(()) } else { Err(Fault::gp0()) }
}
