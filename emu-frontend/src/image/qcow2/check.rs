//! The check of an image's structures, and their repair.
//!
//! What the header leads to is counted in memory and compared with the refcounts of the file. Where those are too low,
//! all are written anew behind the end, and the header is made to name them; where they are too high, they go down.
//! However often an image names a table, and however large its holes are, time and memory follow from the room that it takes on the host.

use super::Qcow2;
use super::header::{LONGEST_REFCOUNT_TABLE, incompatible};
use super::refcount::{Refcounts, set};
use super::table::{COPIED, Cluster, OFFSET, classify};
use crate::image::check::CheckResult;
use crate::image::invalid;
use crate::image::storage::Storage;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::io;

/// What a check may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fix {
    /// Nothing.
    Nothing,
    /// Counts that are too high.
    Leaks,
    /// All that can be.
    All,
}

/// Counts of a chunk of this many clusters are kept together.
const CHUNK: u64 = 512;
/// Chunks at most, which is a gigabyte of counts, of 16 TiB in clusters of 64 KiB.
const MOST_CHUNKS: usize = 1 << 19;

/// References counted, sparse: a file's length says nothing about its room.
#[derive(Default)]
struct Counts(BTreeMap<u64, Vec<u32>>);

impl Counts {
    fn add(&mut self, cluster: u64, times: u32) -> io::Result<()> {
        let many = self.0.len() >= MOST_CHUNKS;
        let chunk = match self.0.entry(cluster / CHUNK) {
            Entry::Occupied(chunk) => chunk.into_mut(),
            Entry::Vacant(_) if many => return Err(invalid("the image refers to more clusters than can be counted")),
            Entry::Vacant(place) => place.insert(vec![0; CHUNK as usize]),
        };
        let count = &mut chunk[(cluster % CHUNK) as usize];
        *count = count.saturating_add(times);
        Ok(())
    }

    fn get(&self, cluster: u64) -> u64 {
        self.0.get(&(cluster / CHUNK)).map_or(0, |chunk| u64::from(chunk[(cluster % CHUNK) as usize]))
    }

    fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.within(0, u64::MAX)
    }

    /// Those of `len` clusters from `start`.
    fn within(&self, start: u64, len: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let end = start.saturating_add(len);
        let chunks = self.0.range(start / CHUNK..=end / CHUNK);
        chunks
            .flat_map(|(c, chunk)| chunk.iter().zip(c * CHUNK..).map(|(count, cluster)| (cluster, u64::from(*count))))
            .filter(move |(cluster, count)| *count > 0 && (start..end).contains(cluster))
    }
}

/// Which clusters the file counts, and which of them once: without this, entries in a bad order would have blocks read again and again.
#[derive(Default)]
pub(super) struct Marks(BTreeMap<u64, [[u64; CHUNK as usize / 64]; 2]>);

impl Marks {
    fn add(&mut self, cluster: u64, count: u64) {
        let words = self.0.entry(cluster / CHUNK).or_default();
        let (word, bit) = ((cluster % CHUNK / 64) as usize, 1 << (cluster % 64));
        words[0][word] |= bit;
        words[1][word] |= if count == 1 { bit } else { 0 };
    }

    fn has(&self, which: usize, cluster: u64) -> bool {
        let words = self.0.get(&(cluster / CHUNK));
        words.is_some_and(|words| words[which][(cluster % CHUNK / 64) as usize] >> (cluster % 64) & 1 != 0)
    }

    fn any(&self, cluster: u64) -> bool {
        self.has(0, cluster)
    }

    pub(super) fn once(&self, cluster: u64) -> bool {
        self.has(1, cluster)
    }
}

/// A check at work. An image may name a table thousands of times: each is looked at once, for all of them.
struct Checker<'a> {
    image: &'a mut Qcow2,
    counts: Counts,
    marks: Marks,
    result: CheckResult,
    /// How often L2 tables are named.
    tables: BTreeMap<u64, u32>,
    /// The end of the guest's last cluster in the file, to see what is scattered.
    next: Option<u64>,
}

impl Qcow2 {
    /// Compares the refcounts with what they count, and repairs them.
    ///
    /// # Errors
    /// The host cannot read or write, or the image refers to more than can be.
    pub fn check_structures(&mut self, fix: Fix) -> io::Result<CheckResult> {
        if !self.read_only && !self.broken {
            self.write_back_all()?;
        }
        let marks = self.marks()?;
        let mut checker = Checker {
            image: self,
            counts: Counts::default(),
            marks,
            result: CheckResult::default(),
            tables: BTreeMap::new(),
            next: None,
        };
        checker.count_everything()?;
        let Checker { counts, marks, mut result, .. } = checker;
        let bits = self.header.cluster_bits;
        let mut too_low = 0;
        for (cluster, count) in counts.iter() {
            let stored = match () {
                () if !marks.any(cluster) => 0,
                () if marks.once(cluster) => 1,
                () => self.refcounts.get(self.file.as_mut(), cluster)?,
            };
            if stored < count {
                result.note(|| format!("ERROR cluster {cluster} refcount={stored} reference={count}"));
                too_low += 1;
            }
        }
        result.corruptions += too_low;
        let fixable = result.refcount_errors + too_low;
        let rebuild = fix == Fix::All && fixable > 0;
        // What is counted too often, or not referred to at all.
        let mut last = counts.iter().last().map_or(0, |(cluster, _)| cluster + 1);
        let blocks = self.refcounts.sound_blocks(self.file.as_mut());
        for index in &blocks {
            self.refcounts.visit(self.file.as_mut(), *index, |cluster, stored| {
                let count = counts.get(cluster);
                if stored > count {
                    result.leaks += 1;
                    last = last.max(cluster + 1);
                    if !rebuild {
                        result.note(|| format!("Leaked cluster {cluster} refcount={stored} reference={count}"));
                    }
                }
                stored
            })?;
        }
        result.image_end = last << bits;
        if rebuild {
            self.rebuild_refcounts(counts)?;
            result.corruptions -= fixable;
            result.corruptions_fixed += fixable;
            result.leaks_fixed += std::mem::take(&mut result.leaks);
        } else if fix != Fix::Nothing && result.leaks > 0 {
            for index in blocks {
                self.refcounts.visit(self.file.as_mut(), index, |cluster, stored| stored.min(counts.get(cluster)))?;
                self.limit_memory()?;
            }
            result.leaks_fixed += std::mem::take(&mut result.leaks);
        }
        if result.leaks_fixed + result.corruptions_fixed + result.copied_errors > 0 && fix != Fix::Nothing {
            self.update_copied()?;
            result.corruptions -= result.copied_errors;
            result.corruptions_fixed += result.copied_errors;
        }
        if fix != Fix::Nothing {
            self.write_back_all()?;
            if result.corruptions == 0 && fix == Fix::All {
                self.broken = false;
                self.set_incompatible(incompatible::CORRUPT | incompatible::DIRTY, false)?;
            }
        }
        Ok(result)
    }

    /// What the file's refcounts say.
    pub(super) fn marks(&mut self) -> io::Result<Marks> {
        let mut marks = Marks::default();
        for index in self.refcounts.sound_blocks(self.file.as_mut()) {
            self.refcounts.visit(self.file.as_mut(), index, |cluster, count| {
                marks.add(cluster, count);
                count
            })?;
        }
        Ok(marks)
    }

    /// New refcounts, as counted, behind the end of the file.
    fn rebuild_refcounts(&mut self, mut counts: Counts) -> io::Result<()> {
        let bits = self.header.cluster_bits;
        let (order, largest) = (self.header.refcount_order, self.refcounts.largest());
        let block_bits = self.refcounts.block_bits();
        // The old ones are given up.
        let old = self.header.refcount_table_offset >> bits;
        let old_clusters = old..old + self.refcounts.table_clusters();
        let old_blocks: Vec<u64> = self.refcounts.table().iter().copied().filter(|o| *o != 0).collect();
        let mut down = |cluster: u64| {
            if let Some(count) = counts.0.get_mut(&(cluster / CHUNK)) {
                let count = &mut count[(cluster % CHUNK) as usize];
                *count = count.saturating_sub(1);
            }
        };
        old_clusters.for_each(&mut down);
        old_blocks.iter().filter(|o| o.is_multiple_of(1 << bits)).for_each(|o| down(o >> bits));
        let start = (self.file.len().next_multiple_of(1 << bits) >> bits)
            .max(counts.iter().last().map_or(0, |(cluster, _)| cluster + 1));
        let mut needed: Vec<u64> = counts.iter().map(|(cluster, _)| cluster >> block_bits).collect();
        needed.dedup();
        // Blocks and the table itself count as well.
        let (mut blocks, mut table_clusters) = (needed.len() as u64, 1);
        let per_cluster = 1u64 << (bits - 3);
        loop {
            let end = start + blocks + table_clusters;
            let first = start >> block_bits;
            let mut all = needed.clone();
            all.extend(first..=(end - 1) >> block_bits);
            all.sort_unstable();
            all.dedup();
            let entries = ((end - 1) >> block_bits).max(all.last().copied().unwrap_or(0)) + 1;
            let (b, t) = (all.len() as u64, entries.div_ceil(per_cluster));
            if t << bits > LONGEST_REFCOUNT_TABLE {
                return Err(invalid("the refcount table would be too large"));
            }
            if b <= blocks && t <= table_clusters {
                needed = all;
                break;
            }
            (blocks, table_clusters) = (blocks.max(b), table_clusters.max(t));
        }
        let own = (start..start + needed.len() as u64).chain(start + blocks..start + blocks + table_clusters);
        for cluster in own {
            counts.add(cluster, 1)?;
        }
        let mut table = vec![0u64; (table_clusters * per_cluster) as usize];
        for (number, index) in needed.iter().enumerate() {
            let at = (start + number as u64) << bits;
            let mut bytes = vec![0; 1 << bits];
            for (cluster, count) in counts.within(index << block_bits, 1 << block_bits) {
                set(&mut bytes, order, (cluster & ((1 << block_bits) - 1)) as usize, count.min(largest));
            }
            self.file.write_at(at, &bytes)?;
            table[*index as usize] = at;
        }
        let table_offset = (start + blocks) << bits;
        let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        self.file.write_at(table_offset, &bytes)?;
        self.file.flush()?;
        self.header.refcount_table_offset = table_offset;
        self.header.refcount_table_clusters = table_clusters as u32;
        let mut fields = table_offset.to_be_bytes().to_vec();
        fields.extend((table_clusters as u32).to_be_bytes());
        self.file.write_at(48, &fields)?;
        self.file.flush()?;
        self.refcounts = Refcounts::read(self.file.as_mut(), bits, order, table_offset, table_clusters as u32)?;
        self.untouched = self.file.len().next_multiple_of(1 << bits);
        self.find_structures();
        Ok(())
    }
}

impl Checker<'_> {
    fn corrupt(&mut self, what: impl FnOnce() -> String) {
        self.result.corruptions += 1;
        self.result.note(what);
    }

    /// Counts the clusters of `len` bytes at `offset`, `times` times.
    fn count(&mut self, offset: u64, len: u64, times: u32) -> io::Result<()> {
        let bits = self.image.header.cluster_bits;
        if len == 0 {
            return Ok(());
        }
        // The last cluster need not be there as a whole.
        let limit = self.image.file.len().saturating_add(1 << bits);
        if offset.checked_add(len).is_none_or(|end| end >= limit) {
            self.corrupt(|| {
                let what = "counting reference for region exceeding the end of the file by one cluster or more";
                format!("ERROR: {what}: offset {offset:#x} size {len:#x}")
            });
            return Ok(());
        }
        (offset >> bits..=(offset + len - 1) >> bits).try_for_each(|cluster| self.counts.add(cluster, times))
    }

    fn count_everything(&mut self) -> io::Result<()> {
        let header = self.image.header.clone();
        let cluster = 1u64 << header.cluster_bits;
        self.count(0, cluster, 1)?;
        self.result.total_clusters = header.size.div_ceil(cluster);
        self.count(header.l1_offset, u64::from(header.l1_size) * 8, 1)?;
        let mut active = Vec::new();
        for (i, entry) in self.image.l1.clone().into_iter().enumerate() {
            if self.count_l1_entry(entry) {
                let table = entry & OFFSET;
                self.check_copied("l1_entry", i, entry, table >> header.cluster_bits);
                if self.tables[&table] == 1 {
                    active.push(table);
                }
            }
        }
        self.count_snapshots()?;
        if let Some((offset, len)) = header.encryption {
            self.count(offset, len, 1)?;
        }
        self.count(header.refcount_table_offset, u64::from(header.refcount_table_clusters) * cluster, 1)?;
        let len = self.image.file.len();
        let mut places = HashSet::new();
        for (i, offset) in self.image.refcounts.table().to_vec().into_iter().enumerate() {
            if offset == 0 {
                continue;
            }
            let wrong = match () {
                () if !offset.is_multiple_of(cluster) || offset >= len => "not cluster aligned or outside the file",
                () if !places.insert(offset) => "where another one is",
                () => {
                    self.count(offset, cluster, 1)?;
                    continue;
                }
            };
            self.result.refcount_errors += 1;
            self.corrupt(|| format!("ERROR refcount block {i} is {wrong}"));
        }
        let mut tables = std::mem::take(&mut self.tables);
        for table in active {
            if let Some(times) = tables.remove(&table) {
                self.count_l2(table, times, true)?;
            }
        }
        tables.into_iter().try_for_each(|(table, times)| self.count_l2(table, times, false))
    }

    /// Notes the L2 table that an L1 entry names, if it names one.
    fn count_l1_entry(&mut self, entry: u64) -> bool {
        let table = entry & OFFSET;
        if table == 0 {
            return false;
        }
        if !table.is_multiple_of(self.image.cluster()) {
            self.corrupt(|| format!("ERROR l2_offset={table:x}: Table is not cluster aligned; L1 entry corrupted"));
            return false;
        }
        let times = self.tables.entry(table).or_default();
        *times = times.saturating_add(1);
        true
    }

    fn count_snapshots(&mut self) -> io::Result<()> {
        let list = match self.image.snapshots() {
            Ok(list) => list,
            Err(e) => {
                self.corrupt(|| format!("ERROR snapshot table: {e}"));
                return Ok(());
            }
        };
        let len = self.image.snapshot_table_len()?;
        self.count(self.image.header.snapshots_offset, len, 1)?;
        // Where their L1 tables are: the end of each by its beginning.
        let mut places = BTreeMap::new();
        for snapshot in list {
            let (start, len) = (snapshot.l1_offset, u64::from(snapshot.l1_size) * 8);
            let fault = match self.image.check_snapshot_l1(&snapshot) {
                Err(e) => Some(e.to_string()),
                Ok(()) if len == 0 => continue,
                Ok(()) => {
                    let before = places.range(..start + len).next_back();
                    let crossing = before.is_some_and(|(_, end)| *end > start);
                    crossing.then(|| "its L1 table lies over another one".into())
                }
            };
            let fault = fault.or_else(|| {
                places.insert(start, start + len);
                let mut entries = Vec::new();
                let read = numbers(self.image.file.as_mut(), start, len, |_, entry| entries.push(entry));
                for entry in entries {
                    self.count_l1_entry(entry);
                }
                read.err().map(|e| e.to_string())
            });
            match fault {
                Some(fault) => self.corrupt(|| format!("ERROR snapshot {}: {fault}", snapshot.id)),
                None => self.count(start, len, 1)?,
            }
        }
        Ok(())
    }

    /// Counts what the L2 table at `table` refers to, which is named `times` times.
    fn count_l2(&mut self, table: u64, times: u32, active: bool) -> io::Result<()> {
        let cluster = self.image.cluster();
        self.count(table, cluster, times)?;
        let mut entries = Vec::new();
        if numbers(self.image.file.as_mut(), table, cluster, |j, entry| entries.push((j, entry))).is_err() {
            self.corrupt(|| format!("ERROR: L2 table {table:#x} is outside the file"));
            return Ok(());
        }
        entries.into_iter().try_for_each(|(j, entry)| self.count_entry(entry, times, active, j))
    }

    fn count_entry(&mut self, entry: u64, times: u32, active: bool, index: usize) -> io::Result<()> {
        let cluster = self.image.cluster();
        let bits = self.image.header.cluster_bits;
        match classify(&self.image.header, entry) {
            Err(e) => self.corrupt(|| format!("ERROR: {e}; L2 entry corrupted")),
            Ok(Cluster::Unallocated | Cluster::Zero(None)) => {}
            Ok(Cluster::Compressed { offset, len }) => {
                if entry & COPIED != 0 {
                    self.corrupt(|| {
                        let number = offset >> bits;
                        format!("ERROR: cluster {number}: copied flag must never be set for compressed clusters")
                    });
                }
                self.count(offset, len, times)?;
                if active {
                    self.result.allocated_clusters += 1;
                    self.result.compressed_clusters += 1;
                    self.result.fragmented_clusters += 1;
                }
            }
            Ok(Cluster::Normal(offset) | Cluster::Zero(Some(offset))) => {
                self.count(offset, cluster, times)?;
                if active {
                    self.result.allocated_clusters += 1;
                    if self.next.is_some_and(|next| next != offset) {
                        self.result.fragmented_clusters += 1;
                    }
                    self.next = Some(offset + cluster);
                    self.check_copied("l2_entry", index, entry, offset >> bits);
                }
            }
        }
        Ok(())
    }

    fn check_copied(&mut self, what: &str, index: usize, entry: u64, cluster: u64) {
        if self.marks.once(cluster) == (entry & COPIED != 0) {
            return;
        }
        let image = &mut *self.image;
        let mut refcount = || image.refcounts.get(image.file.as_mut(), cluster).unwrap_or_default();
        self.result.copied_errors += 1;
        self.result.corruptions += 1;
        self.result.note(|| format!("ERROR OFLAG_COPIED: {what} {index}={entry:x} refcount={}", refcount()));
    }
}

/// Calls `f` with those of the numbers in `len` bytes at `offset` that are not 0, and their indices. Holes take no time.
fn numbers(file: &mut dyn Storage, offset: u64, len: u64, mut f: impl FnMut(usize, u64)) -> io::Result<()> {
    if offset.checked_add(len).is_none_or(|end| end > file.len()) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut buffer = vec![0; len.min(64 << 10) as usize];
    let mut at = 0;
    while at < len {
        let (data, there) = file.extent(offset + at, len - at).unwrap_or((true, len - at));
        if !data && there >= 8 {
            at += there & !7;
            continue;
        }
        let n = there.max(1).next_multiple_of(8).min(len - at).min(buffer.len() as u64);
        let part = &mut buffer[..n as usize];
        file.read_at(offset + at, part)?;
        for (i, bytes) in part.chunks_exact(8).enumerate() {
            match u64::from_be_bytes(bytes.try_into().unwrap_or_default()) {
                0 => {}
                number => f((at / 8) as usize + i, number),
            }
        }
        at += n;
    }
    Ok(())
}
