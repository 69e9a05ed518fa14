//! Refcounts, and the clusters that are given out and taken back.
//!
//! ```text
//!  refcount table --> block: counts of clusters 0 ..      (its own among them: every block that this program
//!                 \-> block: counts of the next ones       makes is the first cluster of those that it counts)
//! ```
//! All changes are made in memory; `write_back` brings them to the file in an order in which the file never refers to a
//! cluster that its refcounts call free. A cluster that is freed keeps its count until the file does not refer to it
//! any more ([`Refcounts::free_later`]), so that nothing is written over what the file as it is on the host may show.

use crate::image::invalid;
use crate::image::storage::{Storage, is_hole, read_exact};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::ops::Range;

/// Bytes of blocks that are kept though they could be read again.
const KEPT: usize = 4 << 20;

/// A block of counts in memory.
struct Block {
    bytes: Vec<u8>,
    /// Bytes that the file does not have yet.
    dirty: Option<Range<usize>>,
    /// The table in the file does not refer to it yet.
    fresh: bool,
    used: u64,
}

impl Block {
    fn touch(&mut self, clock: u64) -> &mut Block {
        self.used = clock;
        self
    }

    /// Sets a count.
    fn change(&mut self, order: u32, place: usize, count: u64) {
        let changed = set(&mut self.bytes, order, place, count);
        self.dirty = Some(match self.dirty.take() {
            None => changed,
            Some(old) => old.start.min(changed.start)..old.end.max(changed.end),
        });
    }
}

/// The refcounts of an image.
pub struct Refcounts {
    cluster_bits: u32,
    order: u32,
    table_offset: u64,
    /// Offsets of blocks, 0 for none.
    table: Vec<u64>,
    blocks: BTreeMap<usize, Block>,
    clock: u64,
    /// No cluster below is free, but for those that are freed.
    hint: u64,
    /// Clusters that lose a reference when the file does not need them any more.
    later: Vec<u64>,
}

impl Refcounts {
    /// Reads the table.
    ///
    /// # Errors
    /// It is not there, or has impossible entries.
    pub fn read(
        file: &mut dyn Storage,
        cluster_bits: u32,
        order: u32,
        table_offset: u64,
        clusters: u32,
    ) -> io::Result<Refcounts> {
        let mut bytes = vec![0; (clusters as usize) << cluster_bits];
        read_exact(file, table_offset, &mut bytes)
            .map_err(|e| io::Error::new(e.kind(), format!("Could not read reference count table: {e}")))?;
        let table: Vec<u64> =
            bytes.chunks_exact(8).map(|b| u64::from_be_bytes(b.try_into().unwrap_or_default())).collect();
        Ok(Refcounts {
            cluster_bits,
            order,
            table_offset,
            table,
            blocks: BTreeMap::new(),
            clock: 0,
            hint: 0,
            later: Vec::new(),
        })
    }

    /// log2 of the counts in a block.
    pub fn block_bits(&self) -> u32 {
        self.cluster_bits + 3 - self.order
    }

    /// The largest count.
    pub fn largest(&self) -> u64 {
        if self.order == 6 { u64::MAX } else { (1 << (1 << self.order)) - 1 }
    }

    /// The blocks' offsets, 0 for none.
    pub fn table(&self) -> &[u64] {
        &self.table
    }

    /// Where the table is in the file.
    pub fn table_offset(&self) -> u64 {
        self.table_offset
    }

    /// The table's length in clusters.
    pub fn table_clusters(&self) -> u64 {
        (self.table.len() as u64 * 8) >> self.cluster_bits
    }

    /// Whether `write_back` has anything to do for refcounts.
    pub fn is_dirty(&self) -> bool {
        !self.later.is_empty() || self.blocks.values().any(|block| block.fresh || block.dirty.is_some())
    }

    /// Bytes of changed blocks.
    pub fn dirty_bytes(&self) -> usize {
        self.blocks.values().filter(|block| block.fresh || block.dirty.is_some()).count() << self.cluster_bits
    }

    fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// An entry's block offset, checked; `None`: there is no block.
    fn block_offset(&self, index: usize) -> io::Result<Option<u64>> {
        match self.table.get(index) {
            None | Some(0) => Ok(None),
            Some(offset) if offset.is_multiple_of(self.cluster()) && offset >> 63 == 0 => Ok(Some(*offset)),
            Some(offset) => Err(invalid(format!("refcount block offset {offset:#x} is invalid"))),
        }
    }

    fn block(&mut self, file: &mut dyn Storage, index: usize) -> io::Result<Option<&mut Block>> {
        let Some(offset) = self.block_offset(index)? else { return Ok(None) };
        self.clock += 1;
        if !self.blocks.contains_key(&index) {
            let mut bytes = vec![0; 1 << self.cluster_bits];
            read_exact(file, offset, &mut bytes)?;
            self.blocks.insert(index, Block { bytes, dirty: None, fresh: false, used: 0 });
            self.trim(index);
        }
        let clock = self.clock;
        let block = self.blocks.get_mut(&index);
        Ok(block.map(|block| block.touch(clock)))
    }

    /// Forgets what was used longest ago and is in the file.
    fn trim(&mut self, keep: usize) {
        while (self.blocks.len() << self.cluster_bits) > KEPT.max(4 << self.cluster_bits) {
            let clean = self.blocks.iter().filter(|(i, block)| **i != keep && !block.fresh && block.dirty.is_none());
            let Some(oldest) = clean.min_by_key(|(_, block)| block.used).map(|(i, _)| *i) else { return };
            self.blocks.remove(&oldest);
        }
    }

    /// How often cluster number `cluster` is referred to.
    ///
    /// # Errors
    /// Its block cannot be read.
    pub fn get(&mut self, file: &mut dyn Storage, cluster: u64) -> io::Result<u64> {
        let (order, bits) = (self.order, self.block_bits());
        let index = usize::try_from(cluster >> bits).unwrap_or(usize::MAX);
        let block = self.block(file, index)?;
        Ok(block.map_or(0, |block| get(&block.bytes, order, (cluster & ((1 << bits) - 1)) as usize)))
    }

    /// Makes the counts of the block number `index` that are not 0 what `f` says, given the cluster and its count.
    ///
    /// # Errors
    /// The block cannot be read.
    pub fn visit(
        &mut self,
        file: &mut dyn Storage,
        index: usize,
        mut f: impl FnMut(u64, u64) -> u64,
    ) -> io::Result<()> {
        let (order, per_word, first) = (self.order, 64 >> self.order, (index as u64) << self.block_bits());
        let Some(block) = self.block(file, index)? else { return Ok(()) };
        let mut lowest = u64::MAX;
        for word in 0..block.bytes.len() / 8 {
            if block.bytes[8 * word..8 * word + 8] == [0; 8] {
                continue;
            }
            for place in word * per_word..(word + 1) * per_word {
                let old = get(&block.bytes, order, place);
                let cluster = first + place as u64;
                let new = if old > 0 { f(cluster, old) } else { 0 };
                if new != old {
                    block.change(order, place, new);
                    lowest = lowest.min(cluster);
                }
            }
        }
        self.hint = self.hint.min(lowest);
        Ok(())
    }

    /// The numbers of the blocks that are where they can be and have anything in them; of those in one place, the first.
    pub fn sound_blocks(&self, file: &mut dyn Storage) -> Vec<usize> {
        let mut places = HashSet::new();
        let mut all = Vec::new();
        for (index, offset) in self.table.iter().enumerate() {
            let in_file = offset.is_multiple_of(self.cluster()) && *offset != 0 && *offset < file.len();
            if (in_file || self.blocks.contains_key(&index)) && places.insert(*offset) {
                // A hole takes no time.
                let hole = |file: &mut dyn Storage| is_hole(file, *offset, self.cluster());
                if self.blocks.contains_key(&index) || !hole(file) {
                    all.push(index);
                }
            }
        }
        all
    }

    /// Sets the count of cluster number `cluster`, which has a block.
    fn set(&mut self, file: &mut dyn Storage, cluster: u64, count: u64) -> io::Result<()> {
        let (order, bits) = (self.order, self.block_bits());
        let index = usize::try_from(cluster >> bits).unwrap_or(usize::MAX);
        let Some(block) = self.block(file, index)? else {
            return Err(invalid(format!("cluster {cluster} has no refcount block")));
        };
        block.change(order, (cluster & ((1 << bits) - 1)) as usize, count);
        Ok(())
    }

    /// One more reference to `cluster`.
    ///
    /// # Errors
    /// There are as many as can be counted, or the host refuses.
    pub fn increment(&mut self, file: &mut dyn Storage, cluster: u64) -> io::Result<()> {
        let count = self.get(file, cluster)?;
        if count == self.largest() {
            return Err(invalid(format!("the refcount of cluster {cluster} cannot become larger than {count}")));
        }
        self.set(file, cluster, count + 1)
    }

    /// One reference less to `cluster`, at once: nothing in the file refers to it.
    ///
    /// # Errors
    /// There is none, or the host refuses.
    pub fn decrement(&mut self, file: &mut dyn Storage, cluster: u64) -> io::Result<u64> {
        let count = self.get(file, cluster)?;
        if count == 0 {
            return Err(invalid(format!("cluster {cluster} is freed, but its refcount is 0")));
        }
        self.set(file, cluster, count - 1)?;
        if count == 1 {
            self.hint = self.hint.min(cluster);
        }
        Ok(count - 1)
    }

    /// One reference less to `cluster` as soon as the file does not refer to it any more.
    pub fn free_later(&mut self, cluster: u64) {
        self.later.push(cluster);
    }

    /// Clusters that wait for that.
    pub fn waiting(&self) -> usize {
        self.later.len()
    }

    /// How many times `cluster` waits to lose a reference.
    pub fn take_waiting(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.later)
    }

    /// Has the file referred to `clusters` no longer: they are freed. Those that are free now.
    ///
    /// # Errors
    /// The host refuses.
    pub fn free_waiting(&mut self, file: &mut dyn Storage, clusters: &[u64]) -> io::Result<BTreeSet<u64>> {
        let mut free = BTreeSet::new();
        for cluster in clusters {
            if self.decrement(file, *cluster)? == 0 {
                free.insert(*cluster);
            }
        }
        Ok(free)
    }

    /// Finds `count` free clusters in a row and counts one reference to each; the first one's number. `None`: the table
    /// has to grow first.
    ///
    /// # Errors
    /// The host refuses.
    pub fn allocate(&mut self, file: &mut dyn Storage, count: u64) -> io::Result<Option<u64>> {
        let bits = self.block_bits();
        let (mut start, mut at) = (self.hint, self.hint);
        while at < start + count {
            let index = usize::try_from(at >> bits).unwrap_or(usize::MAX);
            match self.table.get(index) {
                // A run that is longer than what a block counts would meet the place of another new block.
                Some(0) if count < 1 << bits => {
                    let own = self.add_block(index);
                    if start <= own {
                        start = own + 1;
                        at = start;
                    }
                }
                None | Some(0) => return Ok(None),
                Some(_) => match self.next_free(file, at)? {
                    free if free > at => (start, at) = (free, free),
                    _ => at += 1,
                },
            }
        }
        if start == self.hint || count == 1 {
            self.hint = start + count;
        }
        for cluster in start..start + count {
            self.increment(file, cluster)?;
        }
        Ok(Some(start))
    }

    /// The first free cluster from `at` on, or the end of the block that counts it.
    fn next_free(&mut self, file: &mut dyn Storage, at: u64) -> io::Result<u64> {
        let (order, count) = (self.order, 1usize << self.block_bits());
        let first = at & !(count as u64 - 1);
        let index = usize::try_from(at >> self.block_bits()).unwrap_or(usize::MAX);
        let Some(block) = self.block(file, index)? else { return Ok(at) };
        let mut place = (at - first) as usize;
        while place < count {
            // A block of single bits counts millions.
            if order == 0 && place.is_multiple_of(64) && block.bytes[place / 8..place / 8 + 8] == [0xff; 8] {
                place += 64;
            } else if get(&block.bytes, order, place) == 0 {
                break;
            } else {
                place += 1;
            }
        }
        Ok(first + place as u64)
    }

    /// Finds up to `most` free clusters in a row, the first that are free, and counts one reference to each: the first
    /// one's number, and how many. `None`: the table has to grow first.
    ///
    /// # Errors
    /// The host refuses.
    pub fn allocate_some(&mut self, file: &mut dyn Storage, most: u64) -> io::Result<Option<(u64, u64)>> {
        let Some(start) = self.allocate(file, 1)? else { return Ok(None) };
        let mut count = 1;
        while count < most && self.table.get(((start + count) >> self.block_bits()) as usize).is_some_and(|b| *b != 0) {
            if self.get(file, start + count)? != 0 {
                break;
            }
            self.increment(file, start + count)?;
            count += 1;
        }
        self.hint = start + count;
        Ok(Some((start, count)))
    }

    /// Adds the block number `index`, whose own place is the first that it counts; that cluster's number.
    fn add_block(&mut self, index: usize) -> u64 {
        let cluster = (index as u64) << self.block_bits();
        let mut bytes = vec![0; 1 << self.cluster_bits];
        set(&mut bytes, self.order, 0, 1);
        self.table[index] = cluster << self.cluster_bits;
        self.blocks.insert(index, Block { bytes, dirty: None, fresh: true, used: self.clock });
        cluster
    }

    /// Writes blocks that the table in the file does not refer to; whether there were any.
    ///
    /// # Errors
    /// The host refuses.
    pub fn write_fresh(&mut self, file: &mut dyn Storage) -> io::Result<Vec<usize>> {
        let mut written = Vec::new();
        for (index, block) in self.blocks.iter_mut().filter(|(_, block)| block.fresh) {
            file.write_at(self.table[*index], &block.bytes)?;
            block.dirty = None;
            written.push(*index);
        }
        Ok(written)
    }

    /// Has the table in the file refer to the blocks `written`, which are durable.
    ///
    /// # Errors
    /// The host refuses.
    pub fn write_entries(&mut self, file: &mut dyn Storage, written: &[usize]) -> io::Result<()> {
        for index in written {
            file.write_at(self.table_offset + 8 * *index as u64, &self.table[*index].to_be_bytes())?;
        }
        for index in written {
            if let Some(block) = self.blocks.get_mut(index) {
                block.fresh = false;
            }
        }
        Ok(())
    }

    /// Writes the changed parts of the other blocks.
    ///
    /// # Errors
    /// The host refuses.
    pub fn write_dirty(&mut self, file: &mut dyn Storage) -> io::Result<()> {
        for (index, block) in &mut self.blocks {
            let Some(dirty) = block.dirty.clone().filter(|_| !block.fresh) else { continue };
            let (start, end) = (dirty.start & !511, dirty.end.next_multiple_of(512).min(block.bytes.len()));
            file.write_at(self.table[*index] + start as u64, &block.bytes[start..end])?;
            block.dirty = None;
        }
        self.trim(usize::MAX);
        Ok(())
    }

    /// A table with room for `more` clusters behind all that this one can count: it, its blocks and their counts are
    /// written behind those too. Everything has been written back before. The old table's clusters are to be freed
    /// when the header names the new one.
    ///
    /// # Errors
    /// It would be too large, or the host refuses.
    pub fn grow(&mut self, file: &mut dyn Storage, more: u64) -> io::Result<Range<u64>> {
        let bits = self.block_bits();
        let first_block = self.table.len();
        let first = (first_block as u64) << bits;
        // Room for the clusters, for the blocks that count them, and for the table itself; half as much again.
        let per_cluster = self.cluster() / 8;
        let mut entries = first_block as u64 + (more >> bits) + 2;
        let mut own = 0;
        for _ in 0..8 {
            let grown = (entries + entries / 2).next_multiple_of(per_cluster);
            own = grown / per_cluster;
            let blocks = (own + more).div_ceil((1 << bits) - 1) + 1;
            entries = entries.max(first_block as u64 + blocks + 2);
        }
        let entries = (own * per_cluster) as usize;
        if entries as u64 * 8 > super::header::LONGEST_REFCOUNT_TABLE {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the refcount table cannot grow any more"));
        }
        let mut blocks = 1;
        while (blocks << bits) < blocks + own + more {
            blocks += 1;
        }
        let old = self.table_offset >> self.cluster_bits;
        let old = old..old + self.table_clusters();
        let mut table = self.table.clone();
        table.resize(entries, 0);
        let mut added = Vec::new();
        for i in 0..blocks {
            let mut bytes = vec![0; 1 << self.cluster_bits];
            for at in 0..1u64 << bits {
                if (i << bits) + at < blocks + own {
                    set(&mut bytes, self.order, at as usize, 1);
                }
            }
            table[first_block + i as usize] = (first + i) << self.cluster_bits;
            file.write_at((first + i) << self.cluster_bits, &bytes)?;
            added.push((first_block + i as usize, Block { bytes, dirty: None, fresh: false, used: self.clock }));
        }
        let table_offset = (first + blocks) << self.cluster_bits;
        let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        file.write_at(table_offset, &bytes)?;
        file.flush()?;
        self.table = table;
        self.table_offset = table_offset;
        self.blocks.extend(added);
        Ok(old)
    }
}

/// Reads one count of a block.
pub fn get(bytes: &[u8], order: u32, index: usize) -> u64 {
    match order {
        0..=2 => {
            let width = 1 << order;
            let bit = index * width;
            u64::from(bytes[bit / 8] >> (bit % 8)) & ((1 << width) - 1)
        }
        _ => {
            let width = 1 << (order - 3);
            bytes[index * width..(index + 1) * width].iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
        }
    }
}

/// Sets one count of a block; the bytes that have changed.
pub fn set(bytes: &mut [u8], order: u32, index: usize, count: u64) -> Range<usize> {
    match order {
        0..=2 => {
            let width = 1 << order;
            let bit = index * width;
            let mask = ((1u16 << width) - 1) as u8;
            let byte = &mut bytes[bit / 8];
            *byte = *byte & !(mask << (bit % 8)) | (count as u8 & mask) << (bit % 8);
            bit / 8..bit / 8 + 1
        }
        _ => {
            let width = 1 << (order - 3);
            let range = index * width..(index + 1) * width;
            bytes[range.clone()].copy_from_slice(&count.to_be_bytes()[8 - width..]);
            range
        }
    }
}
