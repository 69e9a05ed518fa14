//! The block cache: decoded blocks by physical address and mode, and which of them a store invalidates.

use super::thread::{Op, OpRef};
use crate::decode::insn::Insn;
use crate::mem::Offset;
use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// What besides its bytes decides how a block is decoded and specialised. See [`super::Vcpu::mode_changed`].
pub type ModeKey = u16;

/// A run of decoded instructions within one page.
pub struct Block {
    /// Threaded code: an entry op, one for each instruction, a last op that leaves. Of an instruction that crosses the
    /// page: only an entry that executes it by itself.
    pub ops: Box<[Op]>,
    /// The instructions.
    pub insns: Box<[Insn]>,
    /// Where the first byte lies in RAM.
    pub offset: Offset,
    /// Bytes of all instructions; of one that crosses the page, those in its first page.
    pub len: usize,
    /// The bytes that the instructions were decoded from.
    pub bytes: Box<[u8]>,
    /// Overwritten, unreachable by lookup; freed at the next collection.
    pub stale: Cell<bool>,
    /// Stale blocks: the entry of the block that has taken the place of this one.
    pub successor: Cell<Option<OpRef>>,
}

impl Block {
    /// A live block of `bytes`, which lie at `offset`.
    pub fn new(ops: Box<[Op]>, insns: Box<[Insn]>, offset: Offset, bytes: &[u8]) -> Block {
        let (stale, successor) = (Cell::new(false), Cell::new(None));
        Block { ops, insns, offset, len: bytes.len(), bytes: bytes.into(), stale, successor }
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

const JUMP_BITS: u32 = 12;

#[derive(Clone, Copy)]
struct Jump {
    rip: u64,
    tag: u64,
    entry: Option<OpRef>,
}

const NO_JUMP: Jump = Jump { rip: 0, tag: u64::MAX, entry: None };

/// All decoded blocks of one vCPU.
pub struct BlockCache {
    blocks: Map<u64, Box<Block>>,
    pages: Map<usize, Vec<u64>>,
    /// Boxed because links still lead to them: they must not move.
    #[allow(clippy::vec_box)]
    graveyard: Vec<Box<Block>>,
    /// Stale blocks without a successor, by their key: they come back to life when little of them has changed. Boxed
    /// for the same reason.
    orphans: Map<u64, Box<Block>>,
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
            orphans: Map::default(),
            jumps: jumps.try_into().unwrap_or_else(|_| unreachable!("the length is 1 << JUMP_BITS")),
            capacity: 300_000,
            instructions: 0,
        }
    }
}

fn key(offset: Offset, mode: ModeKey) -> u64 {
    (offset as u64) << 16 | u64::from(mode)
}

/// Address spaces that run the same program use different entries: the tag's low bits are the space's number.
#[inline(always)]
fn jump_index(rip: u64, tag: u64) -> usize {
    ((rip ^ rip >> JUMP_BITS ^ tag) as usize) & ((1 << JUMP_BITS) - 1)
}

impl BlockCache {
    /// The entry of the block at `offset` in `mode`.
    pub fn find(&self, offset: Offset, mode: ModeKey) -> Option<OpRef> {
        self.blocks.get(&key(offset, mode)).map(|block| OpRef::entry(block))
    }

    /// Adds a block; its entry.
    pub fn insert(&mut self, mode: ModeKey, block: Box<Block>) -> OpRef {
        let key = key(block.offset, mode);
        self.instructions += block.insns.len().max(1);
        let entry = OpRef::entry(&block);
        entry.set_block(&block);
        if let Some(orphan) = self.orphans.remove(&key) {
            orphan.successor.set(Some(entry));
            self.graveyard.push(orphan);
        }
        self.enter(key, block);
        entry
    }

    fn enter(&mut self, key: u64, block: Box<Block>) {
        self.pages.entry(block.offset >> 12).or_default().push(key);
        if let Some(old) = self.blocks.insert(key, block) {
            self.graveyard.push(old);
        }
    }

    /// Takes the stale block at `offset` in `mode` out, to be changed and put back by [`BlockCache::revive`] or
    /// [`BlockCache::bury`]. Only between instructions: nothing of a stale block executes then.
    pub fn take_stale(&mut self, offset: Offset, mode: ModeKey) -> Option<Box<Block>> {
        self.orphans.remove(&key(offset, mode))
    }

    /// Makes a block that was stale, and is what its bytes say again, live; its entry. Links to it hold.
    pub fn revive(&mut self, mode: ModeKey, block: Box<Block>) -> OpRef {
        block.stale.set(false);
        let entry = OpRef::entry(&block);
        self.enter(key(block.offset, mode), block);
        entry
    }

    /// Puts a stale block back, which the next one of its place succeeds.
    pub fn bury(&mut self, mode: ModeKey, block: Box<Block>) {
        self.orphans.insert(key(block.offset, mode), block);
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

    /// Makes blocks that overlap `len` bytes at `offset` (within one page) stale; whether blocks remain in the page.
    /// Entries of stale blocks are redirected by `retire`.
    pub fn invalidate(&mut self, offset: Offset, len: usize, retire: impl Fn(&Block)) -> bool {
        let Some(keys) = self.pages.get_mut(&(offset >> 12)) else { return false };
        let blocks = &mut self.blocks;
        let orphans = &mut self.orphans;
        keys.retain(|key| {
            let start = (*key >> 16) as usize;
            let Some(block) = blocks.get(key) else { return false };
            let overlaps = offset < start + block.len && start < offset + len;
            if overlaps && let Some(block) = blocks.remove(key) {
                block.stale.set(true);
                retire(&block);
                orphans.insert(*key, block);
            }
            !overlaps
        });
        let remain = !keys.is_empty();
        if !remain {
            self.pages.remove(&(offset >> 12));
        }
        remain
    }

    /// The ranges of all blocks in the page of `offset`.
    pub fn ranges(&self, offset: Offset) -> impl Iterator<Item = (Offset, usize)> + '_ {
        self.pages.get(&(offset >> 12)).into_iter().flatten().filter_map(|key| {
            let start = (*key >> 16) as usize;
            self.blocks.get(key).map(|block| (start, block.len))
        })
    }

    /// Whether it is time for [`BlockCache::collect`].
    pub fn is_full(&self) -> bool {
        self.instructions > self.capacity
    }

    /// Frees all blocks, stale ones too. Only when no handler is on the stack. Returns the pages that held code.
    pub fn collect(&mut self) -> Vec<Offset> {
        self.blocks.clear();
        self.graveyard.clear();
        self.orphans.clear();
        self.jumps.fill(NO_JUMP);
        self.instructions = 0;
        self.pages.drain().map(|(page, _)| page << 12).collect()
    }

    /// Live blocks.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether no block is live.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }
}
