//! The block cache: decoded blocks by physical address and mode, and which of them a store invalidates.

use super::region::{Code, is_indirect};
use super::thread::{Op, OpRef};
use crate::cpu::Width;
use crate::decode::insn::Insn;
use crate::mem::Offset;
use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// What besides its bytes decides how a block is decoded and specialised. See [`super::Vcpu::mode_changed`].
pub type ModeKey = u16;

/// An immediate operand whose value nothing but the instruction's result depends on.
#[derive(Clone, Copy, Debug)]
pub struct Patch {
    /// Which instruction of the block has it.
    pub insn: u16,
    /// Distance of its first byte from the start of the block.
    pub at: u16,
    /// Bytes: 1, 2 or 4.
    pub width: Width,
}

/// A run of decoded instructions within one page, or one instruction that crosses into the next page.
pub struct Block {
    /// Threaded code: an entry op, one for each instruction, a last op that leaves. Where segments have limits, an
    /// instruction that crosses the page has none: the entry executes it by itself.
    pub ops: Box<[Op]>,
    /// The instructions.
    pub insns: Box<[Insn]>,
    /// Where the first byte lies in RAM.
    pub offset: Offset,
    /// Bytes of all instructions; of one that crosses the page, those in its first page.
    pub len: usize,
    /// Of one that crosses the page: the rest.
    pub tail: Option<Tail>,
    /// The tag and RIP for which the tail was found to be where the next page begins.
    pub tail_valid: Cell<(u64, u64)>,
    /// The bytes that the instructions were decoded from.
    pub bytes: Box<[u8]>,
    /// Its last instruction is an indirect jump or call.
    pub indirect: bool,
    /// The immediate that was overwritten last: it is about to be again.
    pub patch: Option<Patch>,
    /// Overwritten, unreachable by lookup; freed at the next collection.
    pub stale: Cell<bool>,
    /// Stale blocks: the entry of the block that has taken the place of this one.
    pub successor: Cell<Option<OpRef>>,
    /// How often it has run, as far as that is counted.
    pub heat: Cell<u32>,
    /// The compiled code that begins here, where the entry leads to such.
    pub region: Cell<Option<Ready>>,
    /// A region that it is part of is being compiled.
    pub awaited: Cell<bool>,
    /// It survives the collection that is going on.
    kept: Cell<bool>,
    /// Where its indirect jump or call has led lately.
    pub targets: Cell<Targets>,
}

/// The bytes of an instruction in the second of its two pages.
#[derive(Clone, Copy, Debug)]
pub struct Tail {
    /// Where the page lies in RAM.
    pub offset: Offset,
    /// How many they are.
    pub len: usize,
}

/// Compiled code, and where it is known to be what memory holds.
#[derive(Clone, Copy)]
pub struct Ready {
    /// What to call.
    pub code: Code,
    /// Its region's number.
    pub id: usize,
    /// The code lies in one page: it is right wherever its entry is.
    pub anywhere: bool,
    /// Else: the address space and mode, and RIP at the entry, for which all its pages have been looked up.
    pub valid: Option<(u64, u64)>,
}

/// Targets of an indirect branch that are remembered at most.
pub const TARGETS: usize = 8;

/// Addresses that an indirect branch has led to, in the order of their first use; zeros behind them.
pub type Targets = [u64; TARGETS];

/// Whether the last of a block's instructions is an indirect jump or call.
pub fn ends_indirectly(insns: &[Insn]) -> bool {
    insns.last().is_some_and(|last| is_indirect(last.code.flow_control()))
}

impl Block {
    /// A live block of `bytes`, which lie at `offset`.
    pub fn new(ops: Box<[Op]>, insns: Box<[Insn]>, offset: Offset, bytes: &[u8]) -> Block {
        let (stale, successor) = (Cell::new(false), Cell::new(None));
        let indirect = ends_indirectly(&insns);
        Block {
            ops,
            insns,
            indirect,
            offset,
            len: bytes.len(),
            tail: None,
            tail_valid: Cell::new((u64::MAX, 0)),
            bytes: bytes.into(),
            patch: None,
            stale,
            successor,
            heat: Cell::new(0),
            region: Cell::new(None),
            awaited: Cell::new(false),
            kept: Cell::new(false),
            targets: Cell::new([0; TARGETS]),
        }
    }

    /// Numbers of the pages that it lies in.
    pub fn pages(&self) -> impl Iterator<Item = usize> + use<> {
        std::iter::once(self.offset >> 12).chain(self.tail.map(|tail| tail.offset >> 12))
    }

    /// Where its bytes lie in RAM, and how many are there.
    fn pieces(&self) -> impl Iterator<Item = (Offset, usize)> + use<> {
        std::iter::once((self.offset, self.len)).chain(self.tail.map(|tail| (tail.offset, tail.len)))
    }

    /// Begins to count its executions anew, without compiled code.
    pub fn cool(&self) {
        self.heat.set(0);
        self.region.set(None);
    }

    /// Remembers that its last instruction, an indirect branch, has led to `rip`.
    pub fn note_target(&self, rip: u64) {
        let mut targets = self.targets.get();
        if let Some(free) = targets.iter_mut().find(|target| **target == 0 || **target == rip) {
            *free = rip;
            self.targets.set(targets);
        }
    }

    /// The entry of the block that has taken this stale one's place by now.
    pub fn newest(&self) -> Option<OpRef> {
        let mut at = self.successor.get()?;
        while at.block().stale.get() {
            at = at.block().successor.get()?;
        }
        // The next time it is one step.
        self.successor.set(Some(at));
        Some(at)
    }
}

/// A fast hash for keys that are already spread.
#[derive(Default)]
pub struct MixHasher(u64);

impl Hasher for MixHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
}

type Map<K, V> = HashMap<K, V, BuildHasherDefault<MixHasher>>;

/// A kernel that creates a process goes through some thousand blocks: with 12 bits, one in ten of them found its place taken by another.
pub(super) const JUMP_BITS: u32 = 14;

#[derive(Clone, Copy)]
struct Jump {
    rip: u64,
    tag: u64,
    entry: Option<OpRef>,
}

const NO_JUMP: Jump = Jump { rip: 0, tag: u64::MAX, entry: None };

/// All decoded blocks of one vCPU.
pub struct BlockCache {
    /// Stale blocks stay until another takes their place: they come back to life when little of them has changed.
    blocks: Map<u64, Box<Block>>,
    /// The entries of the blocks in `blocks`, by page.
    pages: Map<usize, Vec<OpRef>>,
    /// Boxed because links still lead to them: they must not move.
    #[allow(clippy::vec_box)]
    graveyard: Vec<Box<Block>>,
    jumps: Box<[Jump; 1 << JUMP_BITS]>,
    /// Decoded instructions, about 90 bytes each, that lead to a collection of everything.
    capacity: usize,
    instructions: usize,
}

impl Default for BlockCache {
    fn default() -> BlockCache {
        let jumps: Box<[Jump]> = vec![NO_JUMP; 1 << JUMP_BITS].into();
        BlockCache {
            blocks: Map::default(),
            pages: Map::default(),
            graveyard: Vec::new(),
            jumps: jumps.try_into().unwrap_or_else(|_| unreachable!("the length is 1 << JUMP_BITS")),
            capacity: 400_000,
            instructions: 0,
        }
    }
}

fn key(offset: Offset, mode: ModeKey) -> u64 {
    (offset as u64) << 16 | u64::from(mode)
}

/// Address spaces that run the same program use different entries: the tag's low bits are the space's number.
#[inline(always)]
pub(super) fn jump_index(rip: u64, tag: u64) -> usize {
    ((rip ^ rip >> JUMP_BITS ^ tag) as usize) & ((1 << JUMP_BITS) - 1)
}

impl BlockCache {
    /// The entry of the live block at `offset` in `mode`.
    pub fn find(&self, offset: Offset, mode: ModeKey) -> Option<OpRef> {
        self.blocks.get(&key(offset, mode)).filter(|block| !block.stale.get()).map(|block| OpRef::entry(block))
    }

    /// Adds a block; its entry.
    pub fn insert(&mut self, mode: ModeKey, block: Box<Block>) -> OpRef {
        self.instructions += block.insns.len().max(1);
        let entry = OpRef::entry(&block);
        entry.set_block(&block);
        let pages = block.pages();
        if let Some(old) = self.blocks.insert(key(block.offset, mode), block) {
            let stale = OpRef::entry(&old);
            for page in old.pages() {
                self.pages.entry(page).or_default().retain(|other| *other != stale);
            }
            old.successor.set(Some(entry));
            self.graveyard.push(old);
        }
        for page in pages {
            self.pages.entry(page).or_default().push(entry);
        }
        entry
    }

    /// Brings the stale block at `offset` in `mode` back to life if `refresh` can make it what its bytes say now; its
    /// entry. Links to it hold. Only between instructions: nothing of a stale block executes then, so it may change.
    pub fn revive(&mut self, offset: Offset, mode: ModeKey, refresh: impl FnOnce(&mut Block) -> bool) -> Option<OpRef> {
        let block = self.blocks.get_mut(&key(offset, mode)).filter(|block| block.stale.get())?;
        if !refresh(block) {
            return None;
        }
        block.stale.set(false);
        Some(OpRef::entry(block))
    }

    /// The block that `rip` led to last under `tag` (address space and mode).
    #[inline(always)]
    pub fn jump(&self, rip: u64, tag: u64) -> Option<OpRef> {
        let jump = &self.jumps[jump_index(rip, tag)];
        if jump.rip == rip && jump.tag == tag { jump.entry } else { None }
    }

    /// Remembers where `rip` leads under `tag`.
    pub fn set_jump(&mut self, rip: u64, tag: u64, entry: OpRef) {
        self.jumps[jump_index(rip, tag)] = Jump { rip, tag, entry: Some(entry) };
    }

    /// Makes blocks that overlap `len` bytes at `offset` (within one page) stale, their entries being redirected by
    /// `retire`, and calls `keep` with the range of each of the others.
    pub fn invalidate(&self, offset: Offset, len: usize, retire: impl Fn(OpRef), mut keep: impl FnMut(Offset, usize)) {
        for entry in self.pages.get(&(offset >> 12)).into_iter().flatten() {
            let block = entry.block();
            if block.stale.get() {
                continue;
            }
            let overlaps = |(start, size): (Offset, usize)| offset < start + size && start < offset + len;
            if block.pieces().any(overlaps) {
                block.stale.set(true);
                retire(*entry);
            } else {
                for (start, size) in block.pieces().filter(|(start, _)| start >> 12 == offset >> 12) {
                    keep(start, size);
                }
            }
        }
    }

    /// Whether it is time for [`BlockCache::collect`].
    pub fn is_full(&self) -> bool {
        self.instructions > self.capacity
    }

    /// Frees all blocks but those of `kept`, which are live; all, if these are too many. Only when no handler is on the
    /// stack. Returns the pages that hold code no more, and whether any block was kept.
    pub fn collect(&mut self, kept: impl Iterator<Item = OpRef>) -> (Vec<Offset>, bool) {
        let mut instructions = 0;
        for entry in kept {
            let block = entry.block();
            debug_assert!(!block.stale.get(), "a block that is kept is live");
            if !block.kept.replace(true) {
                instructions += block.insns.len().max(1);
            }
        }
        if instructions > self.capacity / 2 {
            instructions = 0;
        }
        let keeps = instructions != 0;
        let mut emptied = Vec::new();
        self.pages.retain(|page, entries| {
            entries.retain(|entry| keeps && entry.block().kept.get());
            if entries.is_empty() {
                emptied.push(page << 12);
            }
            !entries.is_empty()
        });
        self.blocks.retain(|_, block| keeps && block.kept.replace(false));
        self.graveyard.clear();
        self.jumps.fill(NO_JUMP);
        self.instructions = instructions;
        // What is kept may be linked to what is gone.
        for block in self.blocks.values() {
            for op in &block.ops[1..] {
                op.unlink();
            }
        }
        (emptied, keeps)
    }
}
