//! The dispatcher: events, lookup of blocks, single steps, and what follows a fault.

use super::cache::Block;
use super::interrupt::Source;
use super::postmortem::Raised;
use super::thread::{self, Exit, OpRef};
use super::{RunExit, Vcpu};
use crate::cpu::Activity;
use crate::cpu::fault::{self, Fault};
use crate::cpu::regs::BLOCK_RIP;
use crate::cpu::rflags::{IF, RF, TF};
use crate::cpu::segment::Seg;
use crate::debug::trace;
use crate::decode::block::{self, Decoding};
use crate::decode::insn::Insn;
use crate::irq::CpuPins;
use crate::mem::Offset;
use crate::mmu::walk::{Access, walk};
use iced_x86::{Decoder, DecoderError, FlowControl};

/// DR6.BS: a single-step trap.
pub const DR6_BS: u64 = 1 << 14;
/// DR6.BD: an access to a debug register while DR7.GD is set.
pub const DR6_BD: u64 = 1 << 13;
/// DR7.GD: any access to a debug register faults.
pub const DR7_GD: u64 = 1 << 13;
/// IA32_DEBUGCTL.LBR: last-branch records. Kept without effect, and cleared by #DB like BTF.
const DEBUGCTL_LBR: u64 = 1 << 0;
/// IA32_DEBUGCTL.BTF: RFLAGS.TF steps from branch to branch (SDM Vol. 3B 18.4.3).
const DEBUGCTL_BTF: u64 = 1 << 1;
/// DR6.BT: a task switch to a TSS with its T bit set.
pub const DR6_BT: u64 = 1 << 15;

const FETCH_ENTRIES: usize = 64;

/// Recent translations of code pages: page address with the number of its address space in the low bits, and where the
/// page is.
pub struct FetchCache([(u64, Offset); FETCH_ENTRIES]);

impl Default for FetchCache {
    fn default() -> FetchCache {
        FetchCache([(u64::MAX, 0); FETCH_ENTRIES])
    }
}

impl FetchCache {
    /// Drops what belongs to the address space `tag` ([`crate::mmu::context`]).
    pub fn clear(&mut self, tag: u64) {
        for entry in &mut self.0 {
            if entry.0 & 0xfff == tag {
                *entry = (u64::MAX, 0);
            }
        }
    }
}

/// Bytes of the longest block that is refreshed rather than decoded anew.
const REFRESHED: usize = 128;

const SINGLES: usize = 256;

/// Instructions that were decoded one by one, found again by their bytes.
pub struct Singles(Box<[Option<Single>]>);

#[derive(Clone, Copy)]
struct Single {
    bits: u32,
    bytes: [u8; 15],
    insn: Insn,
}

/// What [`Singles`] knows of some bytes.
enum Known<'a> {
    /// They begin with this instruction.
    Whole(&'a Insn),
    /// They are the beginning of an instruction, so that more have to be fetched.
    Beginning,
    No,
}

impl Default for Singles {
    fn default() -> Singles {
        Singles(vec![None; SINGLES].into())
    }
}

impl Singles {
    fn find(&self, rip: u64, bits: u32, bytes: &[u8]) -> Known<'_> {
        let Some(single) = self.0[rip as usize % SINGLES].as_ref().filter(|single| single.bits == bits) else {
            return Known::No;
        };
        let len = usize::from(single.insn.len);
        let first = len.min(bytes.len());
        match bytes[..first] == single.bytes[..first] {
            true if first == len => Known::Whole(&single.insn),
            true => Known::Beginning,
            false => Known::No,
        }
    }

    fn keep(&mut self, rip: u64, bits: u32, from: &[u8], insn: Insn) {
        let mut bytes = [0; 15];
        bytes[..from.len()].copy_from_slice(from);
        self.0[rip as usize % SINGLES] = Some(Single { bits, bytes, insn });
    }
}

enum Lookup {
    Block(OpRef),
    Step,
}

impl Vcpu {
    /// Executes at most `budget` instructions, exactly as many unless something else ends the run first.
    pub fn run(&mut self, budget: u64) -> RunExit {
        self.granted = budget.min(i64::MAX as u64 / 2) as i64;
        self.budget = self.granted;
        self.after = 0;
        let exit = self.run_inner();
        self.after = -1;
        exit
    }

    /// Instructions that the last [`Vcpu::run`] has executed.
    pub fn executed(&self) -> u64 {
        (self.granted - self.budget) as u64
    }

    fn run_inner(&mut self) -> RunExit {
        loop {
            self.leave = false;
            if let Some(exit) = self.events() {
                return exit;
            }
            if self.budget <= 0 {
                return RunExit::Budget;
            }
            if self.must_step() {
                self.step();
                continue;
            }
            match self.lookup(self.state.rip) {
                Ok(Lookup::Block(entry)) => {
                    // RF lasts for one instruction and matters only to breakpoints, of which none is armed here.
                    self.state.system_flags &= !RF;
                    self.state.regs.set64(BLOCK_RIP, self.state.rip);
                    let exit = thread::run(self, entry);
                    self.after = 0;
                    self.stats.leaves += 1;
                    if exit == Exit::FAULT {
                        if let Some(fault) = self.fault.take() {
                            self.raise(fault);
                        }
                    } else if exit == Exit::BUDGET {
                        // Fewer instructions are left than the block has: the last ones go one by one.
                        while self.budget > 0 && !self.leave {
                            self.step();
                        }
                    }
                }
                Ok(Lookup::Step) => self.step(),
                Err(fault) => {
                    self.insn_rip = self.state.rip;
                    self.raise(fault);
                }
            }
        }
    }

    /// Whether the next instruction must run by itself: something is to happen right behind it.
    fn must_step(&self) -> bool {
        let s = &self.state;
        s.interrupt_shadow || s.has(TF) || s.dr[7] & 0xff != 0 || self.single_steps || trace::wants_steps()
    }

    /// Takes what is pending between two instructions (SDM Vol. 3A table 6-2).
    fn events(&mut self) -> Option<RunExit> {
        let pins = self.pins.get();
        if pins & !CpuPins::INTR != 0 {
            if pins & CpuPins::FLUSH != 0 {
                self.pins.take(CpuPins::FLUSH);
                self.flush_tlb(false);
            }
            if pins & CpuPins::CODE_WRITTEN != 0 {
                self.pins.take(CpuPins::CODE_WRITTEN);
                for (offset, len) in self.memory.take_code_writes() {
                    self.code_written(offset, len);
                }
            }
            if pins & CpuPins::EXIT != 0 {
                self.pins.take(CpuPins::EXIT);
                return Some(RunExit::Requested);
            }
            if pins & CpuPins::INIT != 0 {
                self.pins.take(CpuPins::INIT);
                self.init();
            }
        }
        if self.cache.is_full() {
            self.collect_blocks(true);
        }
        if self.compiler.as_ref().is_some_and(|compiler| compiler.ready()) {
            self.install_regions();
        }
        if self.state.activity == Activity::Shutdown {
            return Some(RunExit::TripleFault);
        }
        if self.state.pending_debug != 0 && !self.state.debug_shadow {
            self.state.dr[6] |= std::mem::take(&mut self.state.pending_debug);
            self.insn_rip = self.state.rip;
            // A debug exception ends HLT too.
            self.state.activity = Activity::Running;
            self.raise(Fault::plain(fault::DB));
        }
        if pins & CpuPins::NMI != 0 && !self.state.nmi_blocked && !self.state.debug_shadow {
            self.pins.take(CpuPins::NMI);
            self.state.activity = Activity::Running;
            self.deliver(fault::NMI, Source::External);
            self.state.nmi_blocked = true;
        } else if self.pins.get() & CpuPins::INTR != 0
            && self.state.has(IF)
            && !self.state.interrupt_shadow
            && let Some(vector) = self.bus.acknowledge_interrupt()
        {
            self.state.activity = Activity::Running;
            self.deliver(vector, Source::External);
        }
        match self.state.activity {
            Activity::Running => None,
            Activity::Halted => Some(RunExit::Halted),
            Activity::Shutdown => Some(RunExit::TripleFault),
        }
    }

    fn deliver(&mut self, vector: u8, source: Source) {
        self.insn_rip = self.state.rip;
        self.state.monitor_armed = false;
        self.budget -= 1;
        self.stats.delivered += 1;
        if let Err(fault) = self.interrupt(vector, source, None) {
            self.state.rip = self.insn_rip;
            self.raise(fault);
        }
        self.leave = true;
    }

    /// Delivers a fault of the instruction at `insn_rip`, with double and triple faults (SDM Vol. 3A table 6-5).
    pub(crate) fn raise(&mut self, first: Fault) {
        self.leave = true;
        self.state.interrupt_shadow = false;
        self.state.debug_shadow = false;
        self.state.monitor_armed = false;
        self.chain.clear();
        let mut current = first;
        let mut previous: Option<u8> = None;
        loop {
            let (vector, error, address) = match current {
                Fault::Exception { vector, error, address } => (vector, error, address),
                Fault::Retry => return,
                Fault::Shutdown => {
                    self.state.activity = Activity::Shutdown;
                    return;
                }
            };
            self.chain.push(Raised {
                fault: current,
                at: (self.state.segment(Seg::Cs).selector, self.insn_rip),
                rsp: self.state.regs.gpr(crate::cpu::regs::RSP),
            });
            let vector = match previous {
                Some(fault::DF) if contributory(vector) || vector == fault::PF => {
                    self.state.activity = Activity::Shutdown;
                    tracing::error!(target: "cpu_reset", vector, "triple fault");
                    return;
                }
                Some(before)
                    if (contributory(before) && contributory(vector))
                        || (before == fault::PF && (contributory(vector) || vector == fault::PF)) =>
                {
                    fault::DF
                }
                _ => vector,
            };
            let error = if vector == fault::DF { Some(0) } else { error };
            if vector == fault::PF {
                self.state.cr2 = address;
            }
            if vector == fault::DB {
                // Or the handler could not touch the debug registers.
                self.state.dr[7] &= !DR7_GD;
                self.state.msrs.debugctl &= !(DEBUGCTL_LBR | DEBUGCTL_BTF);
            }
            self.budget -= 1;
            self.stats.delivered += 1;
            self.state.rip = if vector == fault::DB { self.state.rip } else { self.insn_rip };
            match self.interrupt(vector, Source::Exception, error) {
                Ok(()) => return,
                Err(next) => {
                    previous = Some(vector);
                    current = next;
                }
            }
        }
    }

    /// Executes one instruction with everything that single steps, shadows and breakpoints demand.
    pub fn step(&mut self) {
        self.stats.steps += 1;
        trace::step(self);
        let budget = self.budget;
        let rip = self.state.rip;
        self.insn_rip = rip;
        if self.state.dr[7] & 0xff != 0 && !self.state.has(RF) && self.code_breakpoint(rip) {
            self.raise(Fault::plain(fault::DB));
            return;
        }
        self.single_step = self.state.has(TF);
        self.state.interrupt_shadow = false;
        self.state.debug_shadow = false;
        let had_rf = self.state.has(RF);
        let mut branched = false;
        let result = self.fetch_one(rip).and_then(|insn| {
            self.budget -= 1;
            self.state.regs.set64(BLOCK_RIP, rip);
            // An instruction's fault pushes RF set; only completion clears it, unless it loaded RF itself.
            self.state.system_flags &= !RF;
            self.execute(&insn)?;
            branched = insn.code.flow_control() != FlowControl::Next
                && self.state.rip != self.insn_rip.wrapping_add(u64::from(insn.len));
            Ok(())
        });
        match result {
            Ok(()) => {
                // With BTF only what has branched is a step.
                if self.single_step && (branched || self.state.msrs.debugctl & DEBUGCTL_BTF == 0) {
                    self.state.pending_debug |= DR6_BS;
                }
            }
            Err(fault) => {
                if had_rf {
                    self.state.system_flags |= RF;
                }
                if fault != Fault::Retry {
                    // Delivery is what counts. A fault of the fetch has used nothing yet.
                    self.budget = budget;
                }
                self.raise(fault);
            }
        }
    }

    fn code_breakpoint(&mut self, rip: u64) -> bool {
        let linear = self.code_linear(rip);
        let dr7 = self.state.dr[7];
        let mut hit = 0;
        for n in 0..4 {
            let armed = dr7 >> (2 * n) & 3 != 0 && dr7 >> (16 + 4 * n) & 15 == 0;
            if armed && self.state.dr[n] == linear {
                hit |= 1 << n;
            }
        }
        self.state.dr[6] |= hit;
        hit != 0
    }

    pub(crate) fn code_linear(&self, rip: u64) -> u64 {
        if self.state.code64() { rip } else { self.state.segment(Seg::Cs).base.wrapping_add(rip) & 0xffff_ffff }
    }

    /// The offset in RAM of the code at `linear`, `None` if it is not in RAM or ROM.
    pub(crate) fn translate_code(&mut self, linear: u64) -> Result<Option<Offset>, Fault> {
        let user = self.state.cpl == 3;
        let tag = (linear & !0xfff) | self.contexts.fetch_tag(user);
        let slot = (linear >> 12) as usize % FETCH_ENTRIES;
        let (cached, page) = self.fetch.0[slot];
        if cached == tag {
            return Ok(Some(page | (linear & 0xfff) as usize));
        }
        let t = walk(self, linear, Access::Execute, self.privilege())?;
        let phys = t.phys & self.memory.a20_mask();
        let backing = self.memory.resolve(phys);
        if let Some(offset) = backing.read {
            self.fetch.0[slot] = (tag, offset & !0xfff);
            self.contexts.note_code(user, linear, &t);
        }
        Ok(backing.read)
    }

    fn lookup(&mut self, rip: u64) -> Result<Lookup, Fault> {
        if let Some(entry) = self.cache.jump(rip, self.jump_tag).filter(|entry| !entry.block().stale.get()) {
            return Ok(Lookup::Block(entry));
        }
        self.recent.note(rip);
        self.check_rip(rip, 1)?;
        let linear = self.code_linear(rip);
        let Some(offset) = self.translate_code(linear)? else { return Ok(Lookup::Step) };
        let entry = match self.cache.find(offset, self.mode) {
            Some(entry) => entry,
            None => match self.decode_block(offset, rip) {
                Some(entry) => entry,
                None => return Ok(Lookup::Step),
            },
        };
        let len = entry.block().len as u64;
        if self.mode & super::mode::FLAT == 0 {
            // The limit is checked for the whole block; where it does not hold, instructions check it one by one.
            if self.check_rip(rip, len).is_err() {
                return Ok(Lookup::Step);
            }
        } else {
            self.cache.set_jump(rip, self.jump_tag, entry);
        }
        Ok(Lookup::Block(entry))
    }

    /// Frees decoded code, besides what compiled regions consist of, if `keep` says so and that is not too much. Only when
    /// none is on the stack.
    pub(super) fn collect_blocks(&mut self, keep: bool) {
        self.block = None;
        if !keep {
            self.regions.clear();
        }
        let (emptied, keeps) = self.cache.collect(self.regions.survivors());
        if !keeps {
            self.regions.clear();
        }
        for page in emptied {
            self.memory.forget_code(page);
        }
    }

    /// Decodes the block at `rip`, which lies at `offset`; `None` for an instruction of which the second page is not there.
    fn decode_block(&mut self, offset: Offset, rip: u64) -> Option<OpRef> {
        let entry = match self.revive_block(offset) {
            Some(entry) => entry,
            None => {
                let mut bytes = [0; 512];
                let n = (0x1000 - (offset & 0xfff)).min(bytes.len());
                self.memory.ram().read(offset, &mut bytes[..n]);
                let mut block = block::decode(Decoding::of(self), offset, &bytes[..n]);
                if !block.insns.is_empty() {
                    block.ops[0].handler.set(self.entry_handler());
                } else if self.mode & super::mode::FLAT != 0 {
                    block = self.decode_crossing(offset, rip)?;
                }
                self.stats.blocks += 1;
                self.stats.decoded += block.insns.len() as u64;
                self.cache.insert(self.mode, block)
            }
        };
        let block = entry.block();
        trace::block(self, rip, &block.bytes);
        if self.memory.mark_code(offset, block.len) {
            self.tlb.protect(offset);
        }
        if let Some(tail) = block.tail
            && self.memory.mark_code(tail.offset, tail.len)
        {
            self.tlb.protect(tail.offset);
        }
        let (head, rest) = block.bytes.split_at(block.len.min(block.bytes.len()));
        let rest_changed = block.tail.is_some_and(|tail| self.memory.recheck_code(tail.offset, rest));
        if self.memory.recheck_code(offset, head) || rest_changed {
            self.pins.raise(CpuPins::CODE_WRITTEN);
        }
        Some(entry)
    }

    /// Decodes the instruction at `rip`, which begins at `offset` and goes on in the next page.
    fn decode_crossing(&mut self, offset: Offset, rip: u64) -> Option<Box<Block>> {
        let first = 0x1000 - (offset & 0xfff);
        let tail = self.tail_at(rip.wrapping_add(first as u64))?;
        let mut bytes = [0; 15];
        let (head, rest) = bytes.split_at_mut_checked(first)?;
        self.memory.ram().read(offset, head);
        self.memory.ram().read(tail, rest);
        block::decode_crossing(Decoding::of(self), offset, first, tail, &bytes)
    }

    /// Where the page lies in RAM that begins at `rip`, if code may be fetched there.
    fn tail_at(&mut self, rip: u64) -> Option<Offset> {
        self.check_rip(rip, 1).ok()?;
        let linear = self.wrap_linear(self.code_linear(rip));
        self.translate_code(linear).ok()?
    }

    /// Whether the second page of the block of `entry`, which begins at `rip`, is where it was when the block was decoded.
    pub(super) fn holds_tail(&mut self, entry: OpRef, rip: u64) -> bool {
        let block = entry.block();
        let now = (self.jump_tag, rip);
        if block.tail_valid.get() == now {
            return true;
        }
        let Some(tail) = block.tail else { return true };
        let holds = self.tail_at(rip.wrapping_add(block.len as u64)) == Some(tail.offset);
        if holds {
            block.tail_valid.set(now);
        }
        holds
    }

    /// The stale block at `offset`, if it can be made what its bytes say now.
    fn revive_block(&mut self, offset: Offset) -> Option<OpRef> {
        let cx = Decoding { bits: self.state.code_bits(), mode: self.mode, model: &self.model };
        let ram = self.memory.ram();
        let entry = self.cache.revive(offset, self.mode, |block| {
            // The last instruction may have become longer.
            let mut bytes = [0; REFRESHED + 15];
            let n = (block.len + 15).min(0x1000 - (offset & 0xfff));
            if block.len > REFRESHED {
                return false;
            }
            ram.read(offset, &mut bytes[..n]);
            block::refresh(cx, block, &bytes[..n])
        })?;
        self.stats.revived += 1;
        Some(entry)
    }

    /// The block at `rip`, to link a jump to; `None` if the dispatcher must look at it.
    pub(crate) fn linkable(&mut self, rip: u64) -> Option<OpRef> {
        match self.lookup(rip) {
            Ok(Lookup::Block(entry)) => Some(entry),
            _ => None,
        }
    }

    /// #GP(0) if `len` bytes of code at `rip` are beyond CS's limit or not canonical.
    fn check_rip(&self, rip: u64, len: u64) -> Result<(), Fault> {
        let ok = if self.state.code64() {
            self.state.canonical(rip) && self.state.canonical(rip.wrapping_add(len - 1))
        } else {
            rip.wrapping_add(len - 1) <= u64::from(self.state.segment(Seg::Cs).limit)
        };
        if ok { Ok(()) } else { Err(Fault::gp0()) }
    }

    /// Fetches and decodes the instruction at `rip`, wherever it lies.
    pub(crate) fn fetch_one(&mut self, rip: u64) -> Result<Insn, Fault> {
        let mut bytes = [0u8; 15];
        let mut n = 0;
        let bits = self.state.code_bits();
        loop {
            // One more page's worth of bytes; faults there count only if the instruction needs them.
            let at = rip.wrapping_add(n as u64);
            self.check_rip(at, 1)?;
            let linear = self.wrap_linear(self.code_linear(at));
            let mut end = (15 - n).min((0x1000 - (linear & 0xfff)) as usize);
            while end > 1 && self.check_rip(at, end as u64).is_err() {
                end -= 1;
            }
            match self.translate_code(linear)? {
                Some(offset) => self.memory.ram().read(offset, &mut bytes[n..n + end]),
                None => {
                    let phys = walk(self, linear, Access::Execute, self.privilege())?.phys & self.memory.a20_mask();
                    for (i, byte) in bytes[n..n + end].iter_mut().enumerate() {
                        *byte = self.bus.memory_read(phys + i as u64, 1, self.pending_instructions()) as u8;
                    }
                }
            }
            n += end;
            match self.singles.find(rip, bits, &bytes[..n]) {
                Known::Whole(insn) => return Ok(*insn),
                Known::Beginning => continue,
                Known::No => {}
            }
            let mut decoder = Decoder::with_ip(bits, &bytes[..n], rip, self.model.decoder_options());
            let insn = decoder.decode();
            if !insn.is_invalid() {
                let mut repacked = Insn::new(&insn, rip, bits);
                repacked.note_x87_opcode(&bytes);
                let insn = block::admit(&self.model, repacked, &insn);
                self.singles.keep(rip, bits, &bytes[..n], insn);
                return Ok(insn);
            }
            if decoder.last_error() != DecoderError::NoMoreBytes {
                return Ok(block::invalid(0, bits));
            }
            if n == 15 {
                // Longer than 15 bytes (SDM Vol. 2A 2.3.11).
                return Err(Fault::gp0());
            }
        }
    }
}

fn contributory(vector: u8) -> bool {
    matches!(vector, fault::DE | fault::TS | fault::NP | fault::SS | fault::GP)
}
