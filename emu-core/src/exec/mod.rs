//! The virtual processor and its run loop.
//!
//! ```text
//!  run: events (reset, NMI, INTR, debug traps) -> one step, if something watches single instructions
//!                                              -> lookup -> threaded code until it leaves -> again
//! ```

pub mod cache;
pub mod descriptor;
pub mod handlers;
pub mod interrupt;
pub mod postmortem;
pub mod region;
pub mod run;
pub mod stack;
pub mod task_switch;
pub mod thread;

use crate::bus::Bus;
use crate::cpu::control::{CR0_EM, CR0_TS, CR4_OSFXSR};
use crate::cpu::fault::Fault;
use crate::cpu::model::CpuModel;
use crate::cpu::regs::RDX;
use crate::cpu::segment::{Seg, Segment};
use crate::cpu::{CpuState, Width, cpuid};
use crate::debug::trace;
use crate::decode::insn::Insn;
use crate::irq::{CpuPins, IrqLine};
use crate::mem::{GuestMemory, Offset, chunk_mask};
use crate::mmu::context::Contexts;
use crate::mmu::tlb::Tlb;
use crate::mmu::walk::Access;
use cache::{BlockCache, ModeKey};
use iced_x86::Code;
use std::collections::HashMap;
use std::sync::Arc;
use thread::{Exit, OpRef};

/// Counters, for `emu dev stats`.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Data accesses that took the slow path.
    pub tlb_misses: u64,
    /// Blocks decoded.
    pub blocks: u64,
    /// Instructions decoded into blocks.
    pub decoded: u64,
    /// Returns of threaded code to the dispatcher.
    pub leaves: u64,
    /// Instructions executed one by one.
    pub steps: u64,
    /// Instructions executed by their unspecialised function.
    pub slow: u64,
    /// Which these were: one in [`SAMPLED`] of them is counted here.
    pub slow_sample: HashMap<Code, u64>,
    /// Exceptions and interrupts delivered.
    pub delivered: u64,
    /// Overwritten blocks of which only the instructions that had changed were decoded again.
    pub revived: u64,
    /// Stores that hit decoded code.
    pub invalidations: u64,
    /// Regions compiled and installed.
    pub regions: u64,
    /// Guest instructions compiled.
    pub compiled: u64,
    /// Microseconds spent on compiling them.
    pub compile_micros: u64,
    /// Bytes of memory of all regions that were installed.
    pub region_bytes: u64,
    /// Instructions that compiled regions executed.
    pub region_instructions: u64,
    /// Exits of compiled regions, by [`region::exit`].
    pub region_exits: [u64; region::exit::NAMES.len()],
    /// How often all regions were given up because their code had reached its size.
    pub region_evictions: u64,
}

/// One in so many is looked at for [`Stats::slow_sample`]; odd, so that loops do not always show the same one.
pub const SAMPLED: u64 = 61;

impl Stats {
    #[cold]
    fn sample(&mut self, insn: &Insn) {
        *self.slow_sample.entry(insn.code).or_default() += 1;
    }
}

/// Bits of [`ModeKey`].
pub mod mode {
    /// Code size: 0 for 16 bits, 1 for 32, 2 for 64.
    pub const CODE: u16 = 3;
    /// Stack pointer size, likewise.
    pub const STACK_SHIFT: u32 = 2;
    /// CS, DS, ES and SS need no checks: 64-bit mode, or flat segments.
    pub const FLAT: u16 = 1 << 4;
    /// x87 instructions need no check of CR0.EM and CR0.TS.
    pub const FPU: u16 = 1 << 5;
    /// SSE instructions need no check of CR0.EM, CR0.TS and CR4.OSFXSR.
    pub const SSE: u16 = 1 << 6;
    /// FS covers all 4 GiB from wherever its base is, for reading and writing.
    pub const FLAT_FS: u16 = 1 << 7;
    /// Likewise GS.
    pub const FLAT_GS: u16 = 1 << 8;
}

/// A virtual processor: architectural state and everything derived from it.
#[repr(C)]
pub struct Vcpu {
    /// What software can see.
    pub state: CpuState,
    /// Instructions that may still be started in this call of [`Vcpu::run`].
    pub(crate) budget: i64,
    /// Entry of the block that is running.
    pub(crate) block: Option<OpRef>,
    /// The address space and mode under which jump-cache entries are valid.
    pub(crate) jump_tag: u64,
    /// Mode of blocks to look up.
    pub(crate) mode: ModeKey,
    /// Something happened that the dispatcher must look at before the next instruction.
    pub(crate) leave: bool,
    /// Translations.
    pub(crate) tlb: Tlb,
    /// Decoded code.
    pub(crate) cache: BlockCache,
    /// Instructions granted to the current run.
    pub(crate) granted: i64,
    /// Instructions of the running block behind the current one, which the budget has already paid.
    pub(crate) after: i64,
    /// Address of the instruction that is executing, for faults.
    pub insn_rip: u64,
    /// The faults of the last delivery, first to last.
    pub(crate) chain: Vec<postmortem::Raised>,
    /// Where the dispatcher has been.
    pub(crate) recent: postmortem::Recent,
    /// The fault that made threaded code leave.
    pub(crate) fault: Option<Fault>,
    /// Address spaces whose translations are kept.
    pub(crate) contexts: Contexts,
    pub(crate) fetch: run::FetchCache,
    pub(crate) singles: run::Singles,
    /// TF was set when the instruction began that runs by itself now: a trap follows it.
    pub(crate) single_step: bool,
    /// A data breakpoint is armed in DR7.
    pub(crate) watching: bool,
    /// The bus.
    pub bus: Arc<Bus>,
    /// Guest memory.
    pub memory: Arc<GuestMemory>,
    /// The FERR# output: an unmasked x87 exception is pending while CR0.NE is 0. A PC wires it to IRQ 13.
    pub ferr: IrqLine,
    /// Asynchronous signals.
    pub pins: Arc<CpuPins>,
    /// What this processor can do.
    pub model: Arc<CpuModel>,
    /// Counters.
    pub stats: Stats,
    /// The compiled tier, if there is one.
    pub(crate) compiler: Option<Box<dyn region::Compiler>>,
    pub(crate) regions: region::Regions,
    /// See there.
    pub x87_on_host: region::X87OnHost,
    /// Executes every instruction by itself and by its unspecialised function, for comparison with the fast way.
    pub single_steps: bool,
}

/// Why [`Vcpu::run`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunExit {
    /// The budget is used up.
    Budget,
    /// Halted, and nothing is pending.
    Halted,
    /// [`CpuPins::EXIT`] was raised.
    Requested,
    /// Shut down by a triple fault.
    TripleFault,
}

impl Vcpu {
    /// A processor of `model` after power-on.
    pub fn new(model: Arc<CpuModel>, bus: Arc<Bus>) -> Vcpu {
        let mut cpu = Vcpu {
            state: CpuState::reset(),
            budget: 0,
            block: None,
            jump_tag: 0,
            mode: 0,
            leave: false,
            tlb: Tlb::default(),
            cache: BlockCache::default(),
            granted: 0,
            after: 0,
            insn_rip: 0,
            chain: Vec::new(),
            recent: postmortem::Recent::default(),
            fault: None,
            contexts: Contexts::default(),
            fetch: run::FetchCache::default(),
            singles: run::Singles::default(),
            single_step: false,
            watching: false,
            memory: bus.memory().clone(),
            ferr: IrqLine::unconnected(),
            pins: bus.pins().clone(),
            bus,
            model,
            stats: Stats::default(),
            compiler: None,
            regions: region::Regions::default(),
            x87_on_host: region::X87OnHost::default(),
            single_steps: false,
        };
        cpu.mode_changed();
        cpu
    }

    /// Processor reset (power-on values, caches dropped).
    pub fn reset(&mut self) {
        self.restart(CpuState::reset());
    }

    /// INIT: a reset that keeps floating-point and model-specific registers.
    pub(crate) fn init(&mut self) {
        self.restart(self.state.init());
    }

    fn restart(&mut self, state: CpuState) {
        trace::reset(self);
        let random = self.state.random.clone();
        self.state = state;
        self.state.random = random;
        self.state.regs.set_gpr(RDX, u64::from(cpuid::signature(&self.model)));
        self.flush_tlb(false);
        self.forget_contexts();
        self.mode_changed();
    }

    /// Must be called after any change of: segment registers, CPL, RFLAGS.VM/AC, CR0, CR4, EFER, DR7.
    pub fn mode_changed(&mut self) {
        let s = &self.state;
        let size = |width: Width| match width {
            Width::B8 => 2,
            Width::B4 => 1,
            _ => 0,
        };
        let mut key = match s.code_bits() {
            64 => 2,
            32 => 1,
            _ => 0,
        };
        key |= size(s.stack_width()) << mode::STACK_SHIFT;
        let cs = s.segment(Seg::Cs);
        let flat = s.code64()
            || (s.protected()
                && !s.v86()
                && cs.base == 0
                && cs.limit == u32::MAX
                && cs.is(Segment::RW)
                && [Seg::Ds, Seg::Es, Seg::Ss].iter().all(|seg| s.segment(*seg).is_flat_data()));
        if flat {
            key |= mode::FLAT;
        }
        // In 64-bit mode nothing but their bases counts.
        let covers = |seg| flat && !s.code64() && s.segment(seg).covers_all();
        if covers(Seg::Fs) {
            key |= mode::FLAT_FS;
        }
        if covers(Seg::Gs) {
            key |= mode::FLAT_GS;
        }
        if s.cr0 & (CR0_EM | CR0_TS) == 0 {
            key |= mode::FPU;
            if s.cr4 & CR4_OSFXSR != 0 {
                key |= mode::SSE;
            }
        }
        self.watching =
            s.dr[7] & 0xff != 0 && (0..4).any(|n| s.dr[7] >> (2 * n) & 3 != 0 && s.dr[7] >> (16 + 4 * n) & 3 != 0);
        self.mode = key;
        self.retag();
        self.select_bank();
        self.leave = true;
    }

    /// Instructions of this run that have retired before the current one: what the clock does not know yet.
    pub fn pending_instructions(&self) -> u64 {
        (self.granted - self.budget - self.after - 1).max(0) as u64
    }

    /// Virtual time at the current instruction.
    pub fn now(&self) -> crate::clock::Instant {
        self.bus.now_after(self.pending_instructions())
    }

    /// After any access to the bus: leave threaded code if that has raised a signal.
    pub(crate) fn after_bus(&mut self) {
        let pins = self.pins.get();
        if pins & !CpuPins::INTR != 0 || (pins & CpuPins::INTR != 0 && self.state.has(crate::cpu::rflags::IF)) {
            self.leave = true;
        }
    }

    /// A store has hit decoded code: makes the blocks it overlaps stale.
    pub(crate) fn code_written(&mut self, offset: Offset, len: usize) {
        self.stats.invalidations += 1;
        let mut chunks = 0;
        self.cache.invalidate(
            offset,
            len,
            |entry| {
                entry.handler.set(handlers::stale);
                entry.block().cool();
            },
            |start, len| chunks |= chunk_mask(start, len.min(0x1000 - (start & 0xfff))),
        );
        self.memory.set_code(offset, chunks);
        self.regions.invalidate(offset);
        // Entries of other blocks notice by themselves; the rest of this one must not run, nor that of a region.
        if self.regions.running() || self.block.is_some_and(|entry| entry.block().stale.get()) {
            self.leave = true;
        }
    }

    /// Notes a data breakpoint hit (SDM Vol. 3B 18.2.4) for the #DB after this instruction.
    pub(crate) fn watch(&mut self, linear: u64, size: u64, access: Access) {
        if !self.watching {
            return;
        }
        for n in 0..4 {
            let dr7 = self.state.dr[7];
            let kind = dr7 >> (16 + 4 * n) & 3;
            let len = [1, 2, 8, 4][(dr7 >> (18 + 4 * n) & 3) as usize];
            let wanted = kind == 3 || (kind == 1 && access == Access::Write);
            let start = self.state.dr[n] & !(len - 1);
            let hit = start < linear.wrapping_add(size) && linear < start.wrapping_add(len);
            if dr7 >> (2 * n) & 3 != 0 && wanted && hit {
                self.state.pending_debug |= 1 << n;
                self.leave = true;
            }
        }
    }

    /// Executes `insn` by its unspecialised function. On success `state.rip` is where to go on; on a fault it is the
    /// instruction's own address.
    pub(crate) fn execute(&mut self, insn: &Insn) -> Result<(), Fault> {
        let start = self.state.regs.get64(crate::cpu::regs::BLOCK_RIP).wrapping_add(u64::from(insn.block_offset));
        let mask = if insn.code_bits == 64 { u64::MAX } else { 0xffff_ffff };
        self.insn_rip = start & mask;
        self.state.rip = start.wrapping_add(u64::from(insn.len)) & mask;
        self.after = i64::from(insn.after);
        self.stats.slow += 1;
        if self.stats.slow.is_multiple_of(SAMPLED) {
            self.stats.sample(insn);
        }
        let result = (insn.exec)(self, insn);
        if result.is_err() {
            self.state.rip = self.insn_rip;
        }
        result
    }

    /// Leaves the current block early: instructions behind the current one were not executed.
    pub(crate) fn refund(&mut self, instructions: i64) {
        self.budget += instructions;
        self.after = 0;
    }

    pub(crate) fn leave_with(&mut self, fault: Fault) -> Exit {
        self.fault = Some(fault);
        Exit::FAULT
    }
}

#[cfg(test)]
mod tests;
