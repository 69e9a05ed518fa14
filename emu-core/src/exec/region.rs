//! Regions: hot blocks that a compiled tier executes as one, and how they are found, installed and given up.
//!
//! ```text
//!  entry op:  warm --often enough--> enter, and a Source goes to the Compiler (another thread compiles it)
//!             ready --> compiled --calls--> code of the region --leaves with an exit--> chain | lookup | step ...
//!             a member is overwritten --> the entry op is warm again, the code is freed when nothing can run it
//! ```
//! This module knows nothing of how code is made. A region's code reads and writes the vCPU at the places that
//! [`layout`] names. It obeys the rules of threaded code: it pays for a block before its first instruction, and where it
//! leaves, everything architectural is in the vCPU and the budget has been given back for what was not executed.

use super::cache::{JUMP_BITS, ModeKey, Ready, jump_index};
use super::handlers::{Outcome, complete, enter, step};
use super::thread::{Exit, OpRef, dispatch};
use super::{Vcpu, mode};
use crate::cpu::regs::BLOCK_RIP;
use crate::decode::insn::{Insn, Kind};
use crate::mem::Offset;
use crate::mmu::walk::inspect;
use crate::softfloat::sse::mxcsr;
use iced_x86::FlowControl;
use std::collections::HashMap;
use std::time::Duration;

/// Executions of a block after which it is worth a place in a region: a share of [`Compiler::threshold`].
const WARM_SHARE: u32 = 8;
/// Instructions in a region at most.
const INSNS: usize = 200;
/// Blocks in a region at most.
const BLOCKS: usize = 48;

/// Why a region's code came back: its return value.
pub mod exit {
    /// Go on at `state.rip`, which is within limits.
    pub const CHAIN: u64 = 0;
    /// Something has to be looked at before going on at `state.rip`.
    pub const LOOKUP: u64 = 1;
    /// The budget does not cover the block at `state.rip`.
    pub const BUDGET: u64 = 2;
    /// The interpreter has to execute the instruction at `state.rip`.
    pub const STEP: u64 = 3;
    /// `Vcpu::fault` holds a fault of the instruction at `state.rip`.
    pub const FAULT: u64 = 4;
    /// The region is not valid here, and nothing has been done: interpret the block.
    pub const INTERPRET: u64 = 5;
    /// What each means, in the order of their numbers.
    pub const NAMES: [&str; 6] = [
        "to other code",
        "for a look at events",
        "by the end of the budget",
        "for one instruction",
        "by a fault",
        "without beginning",
    ];
}

/// Where compiled code finds things: distances in bytes from the start of the [`Vcpu`].
pub mod layout {
    use super::{JUMP_BITS, Regions, Vcpu, Way, X87OnHost};
    use crate::cpu::CpuState;
    use crate::cpu::fpu::FpuState;
    use crate::cpu::rflags::LazyFlags;
    use crate::cpu::segment::Seg;
    use crate::exec::Stats;
    use crate::mmu::tlb::{Entry, Tlb};
    use std::mem::offset_of;

    /// The register file: add a slot.
    pub const REGS: usize = offset_of!(Vcpu, state) + offset_of!(CpuState, regs);
    const FLAGS: usize = offset_of!(Vcpu, state) + offset_of!(CpuState, flags);
    /// Result of the operation that set the flags, 8 bytes.
    pub const FLAGS_R: usize = FLAGS + offset_of!(LazyFlags, r);
    /// Its first operand, 8 bytes.
    pub const FLAGS_X: usize = FLAGS + offset_of!(LazyFlags, x);
    /// Its second operand, 8 bytes.
    pub const FLAGS_Y: usize = FLAGS + offset_of!(LazyFlags, y);
    /// What it was, one byte.
    pub const FLAGS_OP: usize = FLAGS + offset_of!(LazyFlags, op);
    /// CF from before INC or DEC, one byte.
    pub const FLAGS_CARRY: usize = FLAGS + offset_of!(LazyFlags, carry);
    /// The flags besides the arithmetic ones, 8 bytes.
    pub const SYSTEM_FLAGS: usize = offset_of!(Vcpu, state) + offset_of!(CpuState, system_flags);
    /// RIP, 8 bytes.
    pub const RIP: usize = offset_of!(Vcpu, state) + offset_of!(CpuState, rip);
    /// MXCSR, 4 bytes.
    pub const MXCSR: usize = offset_of!(Vcpu, state) + offset_of!(CpuState, mxcsr);
    /// XMM registers, 16 bytes each.
    pub const XMM: usize = offset_of!(Vcpu, state) + offset_of!(CpuState, xmm);
    const FPU: usize = offset_of!(Vcpu, state) + offset_of!(CpuState, fpu);
    /// Control word of the x87 FPU, 2 bytes.
    pub const X87_CONTROL: usize = FPU + offset_of!(FpuState, control);
    /// Its status word, 2 bytes.
    pub const X87_STATUS: usize = FPU + offset_of!(FpuState, status);
    /// Its instruction pointer, 8 bytes.
    pub const X87_FIP: usize = FPU + offset_of!(FpuState, fip);
    /// The selector of that, 2 bytes.
    pub const X87_FCS: usize = FPU + offset_of!(FpuState, fcs);
    /// Its data pointer, 8 bytes.
    pub const X87_FDP: usize = FPU + offset_of!(FpuState, fdp);
    /// The selector of that, 2 bytes.
    pub const X87_FDS: usize = FPU + offset_of!(FpuState, fds);
    /// [`X87OnHost::c1`], one byte.
    pub const X87_HAS_C1: usize = offset_of!(Vcpu, x87_on_host) + offset_of!(X87OnHost, c1);
    /// [`X87OnHost::codes`], one byte.
    pub const X87_HAS_CODES: usize = offset_of!(Vcpu, x87_on_host) + offset_of!(X87OnHost, codes);
    /// [`X87OnHost::scattered`], one byte.
    pub const X87_SCATTERED: usize = offset_of!(Vcpu, x87_on_host) + offset_of!(X87OnHost, scattered);
    /// The selector of a segment register, 2 bytes.
    pub const fn selector(seg: Seg) -> usize {
        offset_of!(Vcpu, state) + CpuState::selector_offset(seg)
    }
    /// Instructions that may still be started, 8 bytes.
    pub const BUDGET: usize = offset_of!(Vcpu, budget);
    /// Address of the TLB's entries, a pointer.
    pub const TLB_ENTRIES: usize = offset_of!(Vcpu, tlb) + offset_of!(Tlb, entries);
    /// Index of the first entry of the current bank, a pointer-sized integer.
    pub const TLB_START: usize = offset_of!(Vcpu, tlb) + offset_of!(Tlb, start);
    /// Bytes of a TLB entry, a power of two.
    pub const TLB_ENTRY: usize = size_of::<Entry>();
    /// Entries of a bank, a power of two.
    pub const TLB_BANK: usize = 1 << crate::mmu::tlb::BITS;
    /// Address of the ways to other regions, a pointer.
    pub const WAYS: usize = offset_of!(Vcpu, regions) + offset_of!(Regions, ways);
    /// Bytes of a way, a power of two.
    pub const WAY: usize = size_of::<Way>();
    /// A way's number is this many low bits of RIP, of RIP shifted right by as many, and of the tag, exclusively ORed.
    pub const WAY_BITS: u32 = JUMP_BITS;
    /// In a way: RIP, 8 bytes.
    pub const WAY_RIP: usize = offset_of!(Way, rip);
    /// In a way: the tag, 8 bytes.
    pub const WAY_TAG: usize = offset_of!(Way, tag);
    /// In a way: the address of the code, a pointer.
    pub const WAY_AT: usize = offset_of!(Way, at);
    /// The tag under which ways are good, 8 bytes.
    pub const JUMP_TAG: usize = offset_of!(Vcpu, jump_tag);
    /// How often regions were left for other code, 8 bytes.
    pub const CHAINED: usize =
        offset_of!(Vcpu, stats) + offset_of!(Stats, region_exits) + 8 * super::exit::CHAIN as usize;
    /// In an entry: the tag for reads.
    pub const READ_TAG: usize = offset_of!(Entry, read_tag);
    /// In an entry: the tag for writes.
    pub const WRITE_TAG: usize = offset_of!(Entry, write_tag);
    /// In an entry: what makes a linear address a host address.
    pub const ADDEND: usize = offset_of!(Entry, addend);
}

/// What has to be known of the x87 FPU while the host's has the guest's registers, in a region.
#[derive(Default)]
pub struct X87OnHost {
    /// The guest's TOP minus the host's, modulo 8.
    pub turn: u8,
    /// The registers that are not empty need not be the top ones.
    pub scattered: bool,
    /// The host's C1 is the guest's: an instruction has set it.
    pub c1: bool,
    /// So are C0, C2 and C3.
    pub codes: bool,
}

/// A block of a region to be.
#[derive(Clone)]
pub struct SourceBlock {
    /// Distance of its first byte from the first byte of the region, in linear addresses.
    pub delta: i64,
    /// Its code.
    pub bytes: Box<[u8]>,
    /// Its instructions.
    pub insns: Box<[Insn]>,
    /// Blocks that its indirect jump or call probably leads to, by their distances.
    pub targets: Vec<i64>,
}

/// What to compile: blocks, the first of which is the entry.
#[derive(Clone)]
pub struct Source {
    /// Names the request in the answer.
    pub ticket: u64,
    /// RIP where it was entered when it was asked for: a name for it, as the code may be mapped elsewhere too.
    pub rip: u64,
    /// The mode in which the code runs.
    pub mode: ModeKey,
    /// The blocks.
    pub blocks: Vec<SourceBlock>,
}

/// A region's code.
#[derive(Clone, Copy)]
pub struct Code {
    /// What calls it, by its address; it returns one of [`exit`], perhaps of another region that this one went on to.
    pub enter: extern "C" fn(&mut Vcpu, usize) -> u64,
    /// Its address.
    pub at: usize,
}

/// The result of compiling a [`Source`]; its code is good as long as this lives.
pub trait Compiled: Send {
    /// What to call, only on the kind of vCPU and in the mode that the source named.
    fn code(&self) -> Code;
    /// Bytes of memory.
    fn size(&self) -> usize;
    /// Guest instructions in it.
    fn instructions(&self) -> usize;
    /// How long it took to make.
    fn effort(&self) -> Duration;
}

/// Why there is no code for a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not this time: it may be asked for again.
    Later,
    /// The interpreter is quicker.
    Never,
}

/// What has become of a request.
pub type Answer = Result<Box<dyn Compiled>, Refusal>;

/// A compiled tier.
pub trait Compiler: Send {
    /// Executions of a block before the region that begins there is asked for; at least 1.
    fn threshold(&self) -> u32;
    /// Bytes of code at most: beyond, all regions are given up.
    fn capacity(&self) -> usize;
    /// Takes a source to compile; does not wait. Whether it was taken.
    fn request(&mut self, source: Source) -> bool;
    /// Whether [`Compiler::take`] has something; cheap.
    fn ready(&self) -> bool;
    /// A finished region by its ticket.
    fn take(&mut self) -> Option<(u64, Answer)>;
}

struct Region {
    compiled: Option<Box<dyn Compiled>>,
    entry: OpRef,
    members: Box<[OpRef]>,
    /// Pages besides that of the entry: distance in bytes, and where they lie in RAM.
    pages: Box<[(i64, Offset)]>,
    dead: bool,
    /// Numbers of the ways that lead to it or led to it, [`WAYS_KNOWN`] at most; a region with as many may have more.
    ways: Vec<usize>,
}

impl Region {
    /// It is not valid any more, or never will be.
    fn die(&mut self, warm: u32) {
        self.dead = true;
        self.release(warm);
    }

    /// Nobody waits for its members any more: they may ask for regions of their own, once they have run often enough
    /// from now on in spite of this one.
    fn release(&self, warm: u32) {
        for member in &self.members {
            let block = member.block();
            if block.awaited.replace(false) {
                block.heat.set(block.heat.get().min(warm));
            }
        }
    }
}

/// Compiled code by where it is entered and under which tag (`Vcpu::jump_tag`): it is what memory holds there.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(32))]
struct Way {
    rip: u64,
    tag: u64,
    /// [`Code::at`].
    at: usize,
}

/// Of a region that runs in more address spaces than that, ways are not remembered.
const WAYS_KNOWN: usize = 64;

/// No tag is like this one's.
const NO_WAY: Way = Way { rip: 0, tag: u64::MAX, at: 0 };

/// The regions of one vCPU.
pub struct Regions {
    /// Ways from region to region, as in the jump cache.
    ways: Box<[Way; 1 << JUMP_BITS]>,
    list: Vec<Region>,
    /// Regions by the page of each member.
    pages: HashMap<usize, Vec<usize>>,
    /// Requests by ticket: the region that is waiting for its code.
    waiting: HashMap<u64, usize>,
    tickets: u64,
    /// Places in `list` whose region is dead and freed.
    free: Vec<usize>,
    /// Executions that make a block hot.
    hot: u32,
    /// Bytes of code, and how many there may be.
    size: usize,
    capacity: usize,
    /// Regions that have code.
    ready: usize,
    /// A region's code is running.
    running: bool,
    /// Dead regions whose code has not been freed.
    unburied: Vec<usize>,
}

impl Default for Regions {
    fn default() -> Regions {
        let ways: Box<[Way]> = vec![NO_WAY; 1 << JUMP_BITS].into();
        Regions {
            ways: ways.try_into().unwrap_or_else(|_| unreachable!("the length is 1 << JUMP_BITS")),
            list: Vec::new(),
            pages: HashMap::new(),
            waiting: HashMap::new(),
            tickets: 0,
            free: Vec::new(),
            hot: 0,
            size: 0,
            capacity: 0,
            ready: 0,
            running: false,
            unburied: Vec::new(),
        }
    }
}

impl SourceBlock {
    /// Leaves the first `count` instructions.
    pub fn truncate(&mut self, count: usize) {
        let lost = self.insns.len().saturating_sub(count) as u16;
        let mut insns = std::mem::take(&mut self.insns).into_vec();
        insns.truncate(count);
        insns.iter_mut().for_each(|insn| insn.after -= lost);
        self.bytes = insns.last().map_or_else(Box::default, |last| self.bytes[..last.range().end].into());
        self.insns = insns.into();
    }
}

impl Regions {
    /// Executions after which a block is worth a place in a region.
    fn warm(&self) -> u32 {
        self.hot / WARM_SHARE
    }

    /// Whether the region that begins with `entry` is being compiled.
    fn awaits_code_for(&self, entry: OpRef) -> bool {
        self.waiting.values().any(|id| self.list[*id].entry == entry && !self.list[*id].dead)
    }

    /// Whether compiled code is on the stack.
    pub(super) fn running(&self) -> bool {
        self.running
    }

    /// Gives up the regions that have a stale member in the page of `offset`.
    pub(super) fn invalidate(&mut self, offset: Offset) {
        let before = self.unburied.len();
        let warm = self.warm();
        let Some(regions) = self.pages.get_mut(&(offset >> 12)) else { return };
        regions.retain(|id| {
            let region = &mut self.list[*id];
            if !region.dead && region.members.iter().any(|member| member.block().stale.get()) {
                region.die(warm);
                self.unburied.push(*id);
                region.entry.block().region.set(None);
                if !region.entry.block().stale.get() {
                    count_anew(region.entry);
                }
            }
            !region.dead
        });
        for id in self.unburied.split_off(before) {
            self.close_ways(id);
            self.unburied.push(id);
        }
    }

    /// Nothing leads to the code of region `id` any more, besides what is running.
    fn close_ways(&mut self, id: usize) {
        let Regions { ways, list, .. } = self;
        let region = &list[id];
        let Some(at) = region.compiled.as_ref().map(|compiled| compiled.code().at) else { return };
        if region.ways.len() == WAYS_KNOWN {
            ways.fill(NO_WAY);
        }
        for number in &region.ways {
            if ways[*number].at == at {
                ways[*number] = NO_WAY;
            }
        }
    }

    /// Has compiled code find region `id` by `way`.
    fn open_way(&mut self, id: usize, way: Way) {
        let number = jump_index(way.rip, way.tag);
        if self.ways[number] == way {
            return;
        }
        self.ways[number] = way;
        let known = &mut self.list[id].ways;
        if known.len() < WAYS_KNOWN && !known.contains(&number) {
            known.push(number);
        }
    }

    /// Frees the code of dead regions. Only when no compiled code is on the stack.
    fn bury(&mut self) {
        for id in std::mem::take(&mut self.unburied) {
            // One that still waits for its code is freed when that comes.
            if let Some(compiled) = self.list[id].compiled.take() {
                self.size -= compiled.size();
                self.ready -= 1;
                self.retire(id);
            }
        }
    }

    /// Gives the place of a dead region away that nothing waits for.
    fn retire(&mut self, id: usize) {
        self.forget_members(id);
        self.free.push(id);
    }

    fn forget_members(&mut self, id: usize) {
        let members = std::mem::take(&mut self.list[id].members);
        for page in members.iter().flat_map(|member| member.block().pages()) {
            if let Some(of_page) = self.pages.get_mut(&page) {
                of_page.retain(|other| *other != id);
                if of_page.is_empty() {
                    self.pages.remove(&page);
                }
            }
        }
    }

    /// The blocks of all regions that live, when the others are about to be freed. Only when no compiled code is on the
    /// stack.
    pub(super) fn survivors(&mut self) -> impl Iterator<Item = OpRef> {
        self.bury();
        for id in 0..self.list.len() {
            if self.list[id].dead {
                self.forget_members(id);
            }
        }
        self.list.iter().flat_map(|region| region.members.iter().copied())
    }

    fn add(&mut self, region: Region) -> usize {
        let Some(id) = self.free.pop() else {
            self.list.push(region);
            return self.list.len() - 1;
        };
        self.list[id] = region;
        id
    }

    /// Forgets everything. Only when no compiled code is on the stack; the caller sees to the entries.
    pub(super) fn clear(&mut self) {
        debug_assert!(!self.running);
        self.ways.fill(NO_WAY);
        self.list.clear();
        self.pages.clear();
        self.waiting.clear();
        self.free.clear();
        self.unburied.clear();
        (self.size, self.ready) = (0, 0);
    }

    /// The entries that lead to compiled code, or will.
    fn entries(&self) -> impl Iterator<Item = OpRef> {
        self.list.iter().filter(|region| !region.dead).map(|region| region.entry)
    }
}

/// The entry of a block that is counted: as [`enter`].
pub fn warm(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let block = op.block();
    let heat = block.heat.get() + 1;
    block.heat.set(heat);
    if heat >= cpu.regions.hot {
        return hot(cpu, op);
    }
    note_way(cpu);
    enter(cpu, op)
}

/// Counts an execution of the block of `op`, which never begins a region.
pub(super) fn note(cpu: &Vcpu, op: OpRef) {
    if cpu.compiler.is_some() {
        let block = op.block();
        block.heat.set(block.heat.get().saturating_add(1));
        note_way(cpu);
    }
}

/// Remembers the way from the block before, if that ends with an indirect branch.
#[inline(always)]
fn note_way(cpu: &Vcpu) {
    let Some(before) = cpu.block else { return };
    let block = before.block();
    if block.indirect {
        block.note_target(cpu.state.regs.get64(BLOCK_RIP));
    }
}

/// An indirect jump or call.
pub(super) fn is_indirect(control: FlowControl) -> bool {
    matches!(control, FlowControl::IndirectBranch | FlowControl::IndirectCall)
}

/// Has the executions of the block of `entry` counted from now on.
fn count_anew(entry: OpRef) {
    entry.block().cool();
    entry.handler.set(warm);
}

#[cold]
#[inline(never)]
fn hot(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let block = op.block();
    if block.awaited.get() {
        // Most ways here will soon be in the region that is being compiled.
        block.heat.set(cpu.regions.warm());
        return enter(cpu, op);
    }
    // No more counting, whatever comes of it.
    op.handler.set(enter);
    cpu.request_region(op);
    // A compiler that does not work in the background has finished.
    if cpu.compiler.as_ref().is_some_and(|compiler| compiler.ready()) {
        cpu.install_regions();
    }
    dispatch(cpu, op)
}

/// The entry of a region.
pub fn compiled(cpu: &mut Vcpu, mut op: OpRef) -> Exit {
    loop {
        match cpu.run_regions(op) {
            exit::CHAIN => {}
            exit::LOOKUP => return Exit::LOOKUP,
            exit::BUDGET => return Exit::BUDGET,
            exit::FAULT => return Exit::FAULT,
            exit::INTERPRET => return interpret(cpu),
            _ => return step(cpu),
        }
        let target = cpu.state.rip;
        let Some(entry) = cpu.cache.jump(target, cpu.jump_tag) else { return Exit::LOOKUP };
        cpu.state.regs.set64(BLOCK_RIP, target);
        if entry.block().region.get().is_none() {
            return dispatch(cpu, entry);
        }
        op = entry;
    }
}

/// Interprets the block at the register file's [`BLOCK_RIP`], to which a region belongs that is not valid now.
fn interpret(cpu: &mut Vcpu) -> Exit {
    let rip = cpu.state.regs.get64(BLOCK_RIP);
    match cpu.cache.jump(rip, cpu.jump_tag) {
        Some(entry) if !entry.block().stale.get() => enter(cpu, entry),
        // The dispatcher sees to it that the jump cache knows it the next time.
        _ => {
            cpu.state.rip = rip;
            Exit::LOOKUP
        }
    }
}

impl Vcpu {
    /// Compiles hot code with `compiler` from now on; `None` for interpreting alone. Only between runs.
    pub fn set_compiler(&mut self, compiler: Option<Box<dyn Compiler>>) {
        self.regions.hot = compiler.as_ref().map_or(u32::MAX, |compiler| compiler.threshold());
        self.regions.capacity = compiler.as_ref().map_or(0, |compiler| compiler.capacity());
        self.compiler = compiler;
        self.collect_blocks(false);
    }

    /// The first handler of a block that is decoded now.
    pub(crate) fn entry_handler(&self) -> super::thread::Handler {
        if self.compiler.is_some() && self.mode & mode::FLAT != 0 && self.mode & mode::CODE != 0 { warm } else { enter }
    }

    /// Regions that have code, the bytes of that, and how many there may be; `None` without a compiler.
    pub fn compiled_code(&self) -> Option<(usize, usize, usize)> {
        self.compiler.as_ref().map(|_| (self.regions.ready, self.regions.size, self.regions.capacity))
    }

    /// Runs the region of `op`, and those that it leads to as far as they are known; the exit of the last.
    fn run_regions(&mut self, op: OpRef) -> u64 {
        let Some(region) = op.block().region.get() else { return exit::INTERPRET };
        let rip = self.state.regs.get64(BLOCK_RIP);
        let valid = region.anywhere || region.valid == Some((self.jump_tag, rip)) || self.revalidate(op, region);
        if !valid {
            return exit::INTERPRET;
        }
        self.regions.open_way(region.id, Way { rip, tag: self.jump_tag, at: region.code.at });
        // No block of the interpreter is behind what comes next.
        self.block = None;
        self.regions.running = true;
        let budget = self.budget;
        let Code { enter, mut at } = region.code;
        let exit = loop {
            let exit = enter(self, at);
            self.stats.region_exits[exit as usize % exit::NAMES.len()] += 1;
            if exit != exit::CHAIN {
                break exit;
            }
            // Most regions look here themselves.
            let rip = self.state.rip;
            let way = &self.regions.ways[jump_index(rip, self.jump_tag)];
            if way.rip != rip || way.tag != self.jump_tag {
                break exit;
            }
            self.state.regs.set64(BLOCK_RIP, rip);
            at = way.at;
        };
        self.regions.running = false;
        self.stats.region_instructions += (budget - self.budget) as u64;
        exit
    }

    /// Whether the pages of the region of `op` are where it was compiled for, seen from here.
    #[cold]
    fn revalidate(&mut self, op: OpRef, region: Ready) -> bool {
        let rip = self.state.regs.get64(BLOCK_RIP);
        let pages = self.regions.list[region.id].pages.clone();
        let matches = pages.iter().all(|(distance, offset)| {
            let linear = self.wrap_linear(self.code_linear(rip.wrapping_add(*distance as u64))) & !0xfff;
            matches!(self.translate_code(linear), Ok(Some(found)) if found == *offset)
        });
        if matches {
            op.block().region.set(Some(Ready { valid: Some((self.jump_tag, rip)), ..region }));
        }
        matches
    }

    /// Asks for the region that begins with the block of `op`, which is about to run.
    fn request_region(&mut self, op: OpRef) {
        let rip = self.state.regs.get64(BLOCK_RIP);
        let Some(gathered) = self.gather(op, rip, &|cpu, rip| cpu.warm_block(rip)) else { return };
        let Some(compiler) = &mut self.compiler else { return };
        let ticket = self.regions.tickets;
        self.regions.tickets += 1;
        let blocks = gathered.blocks;
        if !compiler.request(Source { ticket, rip, mode: self.mode, blocks }) {
            // Later, perhaps.
            count_anew(op);
            return;
        }
        let pages: Vec<usize> = gathered.members.iter().flat_map(|member| member.block().pages()).collect();
        for member in &gathered.members[1..] {
            member.block().awaited.set(true);
        }
        let id = self.regions.add(Region {
            compiled: None,
            entry: op,
            members: gathered.members.into(),
            pages: gathered.pages.into(),
            dead: false,
            ways: Vec::new(),
        });
        for page in pages {
            let of_page = self.regions.pages.entry(page).or_default();
            if of_page.last() != Some(&id) {
                of_page.push(id);
            }
        }
        self.regions.waiting.insert(ticket, id);
    }

    /// The region that begins at `rip`, as if all code between it and `end` were hot; `None` if nothing can be decoded
    /// there, or what is there is never compiled: code of 16 bits, or with segments that are not flat.
    pub fn region_at(&mut self, rip: u64, end: u64) -> Option<Source> {
        if self.mode & mode::FLAT == 0 || self.mode & mode::CODE == 0 {
            return None;
        }
        let entry = self.linkable(rip)?;
        let within = rip..end;
        let find = |cpu: &mut Vcpu, rip| if within.contains(&rip) { cpu.linkable(rip) } else { None };
        let gathered = self.gather(entry, rip, &find)?;
        (!gathered.blocks.is_empty()).then_some(Source { ticket: 0, rip, mode: self.mode, blocks: gathered.blocks })
    }

    /// The blocks of a region that begins with that of `entry`. Where other regions begin it ends, besides in a loop: what
    /// leads back to the entry stays together.
    fn gather(&mut self, entry: OpRef, rip: u64, find: &Find) -> Option<Gathered> {
        let all = self.follow(entry, rip, find)?;
        let loops = all.that_lead_back();
        let begins = |regions: &Regions, op: OpRef| op.block().region.get().is_some() || regions.awaits_code_for(op);
        if all.members.iter().zip(&loops).skip(1).all(|(op, leads_back)| *leads_back || !begins(&self.regions, *op)) {
            return Some(all);
        }
        let kept: Vec<u64> = all.addresses.iter().zip(&loops).filter_map(|(at, leads)| leads.then_some(*at)).collect();
        self.follow(entry, rip, &|cpu, at| find(cpu, at).filter(|op| kept.contains(&at) || !begins(&cpu.regions, *op)))
    }

    /// Follows branches, falls and direct calls from the block of `entry` through blocks that `find` knows.
    fn follow(&mut self, entry: OpRef, rip: u64, find: &Find) -> Option<Gathered> {
        let size = if self.mode & mode::CODE == 2 { 8 } else { 4 };
        let mask = if size == 8 { u64::MAX } else { 0xffff_ffff };
        let mut found = Gathered::default();
        let mut known = vec![rip];
        let mut queue = std::collections::VecDeque::from([(rip, entry)]);
        let mut count = 0;
        while let Some((at, op)) = queue.pop_front() {
            let block = op.block();
            let last = block.insns.last()?;
            if found.members.len() == BLOCKS || (count != 0 && count + block.insns.len() > INSNS) {
                break;
            }
            count += block.insns.len();
            let distance = at.wrapping_sub(rip) as i64;
            let page = (at & !0xfff).wrapping_sub(rip & !0xfff) as i64;
            let offset = block.offset & !0xfff;
            found.note_page(page, offset);
            if let Some(tail) = block.tail {
                found.note_page(page.wrapping_add(0x1000), tail.offset);
            }
            let (bytes, insns) = (block.bytes.clone(), block.insns.clone());
            let mut targets = Vec::new();
            let next = at.wrapping_add(last.range().end as u64) & mask;
            let target = next.wrapping_add(last.imm) & mask;
            let near = last.ops[0].kind == Kind::Near && last.ops[0].size == size;
            let mut successors = Vec::new();
            match last.code.flow_control() {
                FlowControl::Next => successors.push(next),
                FlowControl::ConditionalBranch if near => successors.extend([target, next]),
                FlowControl::UnconditionalBranch if near => successors.push(target),
                FlowControl::Call if near => successors.extend([target, next]),
                control if is_indirect(control) => {
                    successors.extend(block.targets.get().into_iter().take_while(|target| *target != 0));
                    targets.extend(successors.iter().map(|target| target.wrapping_sub(rip) as i64));
                    if control == FlowControl::IndirectCall && !successors.is_empty() {
                        successors.push(next);
                    }
                }
                _ => {}
            }
            found.members.push(op);
            found.addresses.push(at);
            found.blocks.push(SourceBlock { delta: distance, bytes, insns, targets });
            for successor in &successors {
                if known.contains(successor) {
                    continue;
                }
                let Some(op) = find(self, *successor) else {
                    // The way back from a call that is not followed is not taken here.
                    if last.code.flow_control() == FlowControl::Call {
                        break;
                    }
                    continue;
                };
                known.push(*successor);
                queue.push_back((*successor, op));
            }
            found.successors.push(successors);
        }
        Some(found)
    }

    /// The block at `rip` if it is decoded and has run often enough.
    fn warm_block(&mut self, rip: u64) -> Option<OpRef> {
        let linear = self.wrap_linear(self.code_linear(rip));
        // Not by a fetch, which would set accessed bits for code that may never run.
        let offset = self.memory.resolve(inspect(self, linear)?).read?;
        let op = self.cache.find(offset, self.mode)?;
        let block = op.block();
        let warm = block.heat.get() >= self.regions.warm() && !block.insns.is_empty();
        let may_run = warm && matches!(self.translate_code(linear), Ok(Some(found)) if found == offset);
        (may_run && self.holds_tail(op, rip)).then_some(op)
    }

    /// Installs what the compiler has finished. Only from the dispatcher.
    pub(super) fn install_regions(&mut self) {
        self.regions.bury();
        while let Some((ticket, compiled)) = self.compiler.as_mut().and_then(|compiler| compiler.take()) {
            let Some(id) = self.regions.waiting.remove(&ticket) else { continue };
            let warm = self.regions.warm();
            let region = &mut self.regions.list[id];
            let compiled = match compiled {
                Ok(compiled) => compiled,
                Err(refusal) => {
                    if !region.dead {
                        region.die(warm);
                        if refusal == Refusal::Later {
                            count_anew(region.entry);
                        }
                    }
                    self.regions.retire(id);
                    continue;
                }
            };
            self.stats.compiled += compiled.instructions() as u64;
            self.stats.compile_micros += compiled.effort().as_micros() as u64;
            if region.dead {
                self.regions.retire(id);
                continue;
            }
            self.stats.regions += 1;
            self.stats.region_bytes += compiled.size() as u64;
            self.regions.size += compiled.size();
            self.regions.ready += 1;
            region.release(warm);
            let (code, anywhere) = (compiled.code(), region.pages.is_empty());
            region.compiled = Some(compiled);
            region.entry.block().region.set(Some(Ready { code, id, anywhere, valid: None }));
            region.entry.handler.set(self::compiled);
        }
        if self.regions.size > self.regions.capacity {
            self.stats.region_evictions += 1;
            for region in &self.regions.list {
                region.release(0);
            }
            for entry in self.regions.entries() {
                count_anew(entry);
            }
            self.regions.clear();
        }
    }

    /// Executes `insn`, of the block at the register file's [`BLOCK_RIP`], for compiled code that has stored all state.
    /// 0 if it is to go on behind it, else 1 + the [`exit`] to leave with. A region may rely on masks in MXCSR that were
    /// set where it was entered: it is left when one is cleared.
    pub fn execute_for_region(&mut self, insn: &Insn) -> u64 {
        let masked = self.state.mxcsr & mxcsr::MASKS;
        match complete(self, insn) {
            Outcome::Next if masked & !self.state.mxcsr != 0 => self.leave_region_behind(insn),
            Outcome::Next => 0,
            Outcome::Jump => 1 + exit::CHAIN,
            Outcome::Lookup => 1 + exit::LOOKUP,
            Outcome::Fault => 1 + exit::FAULT,
        }
    }

    /// For a region that cannot go on behind `insn`, which [`Vcpu::execute_for_region`] has executed: what that would
    /// have returned.
    pub fn leave_region_behind(&mut self, insn: &Insn) -> u64 {
        self.refund(i64::from(insn.after));
        1 + exit::LOOKUP
    }
}

/// What finds the block at an address.
type Find<'a> = dyn Fn(&mut Vcpu, u64) -> Option<OpRef> + 'a;

#[derive(Default)]
struct Gathered {
    members: Vec<OpRef>,
    /// Of each member.
    addresses: Vec<u64>,
    /// Where each leads, calls to both what they call and what is behind them.
    successors: Vec<Vec<u64>>,
    blocks: Vec<SourceBlock>,
    pages: Vec<(i64, Offset)>,
}

impl Gathered {
    /// Whether each member leads back to the first. A return leads behind all calls.
    fn that_lead_back(&self) -> Vec<bool> {
        let ends_in = |n: usize, control: FlowControl| {
            self.blocks[n].insns.last().is_some_and(|last| last.code.flow_control() == control)
        };
        let calls = |n: &usize| ends_in(*n, FlowControl::Call) || ends_in(*n, FlowControl::IndirectCall);
        let behind: Vec<u64> =
            (0..self.members.len()).filter(calls).filter_map(|n| self.successors[n].last().copied()).collect();
        let mut leads = vec![false; self.members.len()];
        loop {
            let mut more = false;
            for n in 0..self.members.len() {
                let ways = if ends_in(n, FlowControl::Return) { &behind } else { &self.successors[n] };
                let to = |way: &u64| {
                    *way == self.addresses[0]
                        || self.addresses.iter().zip(&leads).any(|(at, leads)| *leads && at == way)
                };
                if !leads[n] && ways.iter().any(to) {
                    leads[n] = true;
                    more = true;
                }
            }
            if !more {
                return leads;
            }
        }
    }

    /// Notes that the page at `distance` from that of the entry lies at `offset`.
    fn note_page(&mut self, distance: i64, offset: Offset) {
        if distance != 0 && !self.pages.iter().any(|(known, _)| *known == distance) {
            self.pages.push((distance, offset));
        }
    }
}
