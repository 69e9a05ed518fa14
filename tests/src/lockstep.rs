//! A processor for random programs that run interpreted and compiled in lockstep.

use emu_core::bus::Bus;
use emu_core::clock::{Clock, ClockMode};
use emu_core::cpu::control::{CR0_PE, CR0_PG, CR4_OSFXSR, CR4_PAE, EFER_LMA, EFER_LME};
use emu_core::cpu::model::CpuModel;
use emu_core::cpu::regs::{RBP, RSP};
use emu_core::cpu::segment::{Seg, Segment};
use emu_core::exec::Vcpu;
use emu_core::irq::CpuPins;
use emu_core::mem::GuestMemory;
use std::sync::Arc;

/// Where the program lies, and begins.
pub const CODE: u64 = 0x1000;
/// Where its data lie: RBP.
pub const DATA: u64 = 0x2_0000;
/// The first stack pointer.
pub const STACK: u64 = 0x4_0000;
/// Bytes of memory.
pub const MEMORY: usize = 2 << 20;

/// The number in the environment variable `name`.
pub fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A processor about to execute `code`, of 32 or 64 `bits`, in flat segments without an IDT: a fault ends the run.
///
/// # Panics
/// The host has no memory left.
pub fn processor(model: CpuModel, code: &[u8], bits: u32, data: &[u8]) -> Vcpu {
    let memory = Arc::new(GuestMemory::new(MEMORY as u64, 0).expect("memory for a guest"));
    memory.write(CODE, code);
    memory.write(DATA, data);
    let clock = Clock::new(ClockMode::Icount { shift: 0 });
    let mut cpu = Vcpu::new(Arc::new(model), Arc::new(Bus::new(memory, Arc::new(CpuPins::default()), clock)));
    cpu.state.cr0 |= CR0_PE;
    cpu.state.cr4 |= CR4_OSFXSR;
    for seg in Seg::ALL {
        let attributes = match (seg, bits) {
            (Seg::Cs, 64) => 0xa09b,
            (Seg::Cs, _) => 0xc09b,
            _ => 0xc093,
        };
        cpu.state.set_segment(seg, Segment { selector: 8, base: 0, limit: u32::MAX, attributes, unusable: false });
    }
    if bits == 64 {
        page_tables(&mut cpu);
    }
    cpu.state.rip = CODE;
    cpu.state.regs.set_gpr(RSP, STACK);
    cpu.state.regs.set_gpr(RBP, DATA);
    cpu.mode_changed();
    cpu
}

/// Maps the first 2 MiB one to one, but for a page among the data.
fn page_tables(cpu: &mut Vcpu) {
    const TABLES: u64 = 0x8_0000;
    let entry = |at: u64, value: u64| cpu.memory.write(at, &value.to_le_bytes());
    entry(TABLES, (TABLES + 0x1000) | 3);
    entry(TABLES + 0x1000, (TABLES + 0x2000) | 3);
    entry(TABLES + 0x2000, (TABLES + 0x3000) | 3);
    for page in 0..512 {
        let present = u64::from(page != (DATA >> 12) + 5) * 3;
        entry(TABLES + 0x3000 + page * 8, page << 12 | present);
    }
    cpu.state.cr3 = TABLES;
    cpu.state.cr4 |= CR4_PAE;
    cpu.state.msrs.efer |= EFER_LME | EFER_LMA;
    cpu.state.cr0 |= CR0_PG;
}
