//! The check of an image's structures, and their repair.
//!
//! What the header leads to is counted in memory and compared with the refcounts of the file. Where those are too low,
//! all are written anew behind the end, and the header is made to name them; where they are too high, they go down.

use super::Qcow2;
use super::header::{LONGEST_REFCOUNT_TABLE, incompatible};
use super::refcount::{Refcounts, set};
use super::table::{COMPRESSED, COPIED, Cluster, OFFSET, classify};
use crate::image::check::CheckResult;
use crate::image::invalid;
use crate::image::storage::read_exact;
use std::collections::BTreeMap;
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
const CHUNK: u64 = 4096;

/// References counted, sparse: a file's length says nothing about its room.
#[derive(Default)]
struct Counts(BTreeMap<u64, Vec<u32>>);

impl Counts {
    fn add(&mut self, cluster: u64) {
        let chunk = self.0.entry(cluster / CHUNK).or_insert_with(|| vec![0; CHUNK as usize]);
        let count = &mut chunk[(cluster % CHUNK) as usize];
        *count = count.saturating_add(1);
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

/// A check at work.
struct Checker<'a> {
    image: &'a mut Qcow2,
    counts: Counts,
    result: CheckResult,
    /// The end of the guest's last cluster in the file, to see what is scattered.
    next: Option<u64>,
}

impl Qcow2 {
    /// Compares the refcounts with what they count, and repairs them.
    ///
    /// # Errors
    /// The host cannot read or write.
    pub fn check_structures(&mut self, fix: Fix) -> io::Result<CheckResult> {
        if !self.read_only && !self.broken {
            self.write_back_all()?;
        }
        let mut checker =
            Checker { image: self, counts: Counts::default(), result: CheckResult::default(), next: None };
        checker.count_everything()?;
        let Checker { counts, mut result, .. } = checker;
        let bits = self.header.cluster_bits;
        let mut too_low = Vec::new();
        let mut too_high = Vec::new();
        for (cluster, count) in counts.iter() {
            let stored = self.refcounts.get(self.file.as_mut(), cluster)?;
            match stored {
                _ if stored < count => {
                    result.problems.push(format!("ERROR cluster {cluster} refcount={stored} reference={count}"));
                    too_low.push(cluster);
                }
                _ if stored > count => too_high.push((cluster, stored, count)),
                _ => {}
            }
        }
        // What is counted, but not referred to.
        let block = 1u64 << self.refcounts.block_bits();
        for index in 0..self.refcounts.table().len() {
            let offset = self.refcounts.table()[index];
            if offset == 0 || !offset.is_multiple_of(1 << bits) || offset >= self.file.len() {
                continue;
            }
            for (i, stored) in self.refcounts.counts(self.file.as_mut(), index)? {
                let cluster = index as u64 * block + i;
                if counts.get(cluster) == 0 {
                    too_high.push((cluster, stored, 0));
                }
            }
        }
        too_high.sort_unstable();
        let last = counts.iter().last().map_or(0, |(cluster, _)| cluster + 1);
        let last = too_high.last().map_or(last, |(cluster, ..)| last.max(cluster + 1));
        result.image_end = last << bits;
        result.leaks = too_high.len() as u64;
        result.corruptions += too_low.len() as u64;
        let fixable = result.refcount_errors + too_low.len() as u64;
        if fix == Fix::All && fixable > 0 {
            self.rebuild_refcounts(counts)?;
            result.corruptions -= fixable;
            result.corruptions_fixed += fixable;
            result.leaks_fixed += std::mem::take(&mut result.leaks);
        } else {
            for (cluster, stored, count) in &too_high {
                result.problems.push(format!("Leaked cluster {cluster} refcount={stored} reference={count}"));
            }
            if fix != Fix::Nothing {
                for (cluster, _, count) in too_high {
                    self.refcounts.lower(self.file.as_mut(), cluster, count)?;
                }
                result.leaks_fixed += std::mem::take(&mut result.leaks);
            }
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
        own.for_each(|cluster| counts.add(cluster));
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
    fn corrupt(&mut self, what: String) {
        self.result.corruptions += 1;
        self.result.problems.push(what);
    }

    /// Counts the clusters of `len` bytes at `offset`.
    fn count(&mut self, offset: u64, len: u64, what: &str) {
        let bits = self.image.header.cluster_bits;
        if len == 0 {
            return;
        }
        if offset.checked_add(len).is_none_or(|end| end >> 56 != 0) {
            return self.corrupt(format!("ERROR: {what} at {offset:#x} is beyond what a file can hold"));
        }
        for cluster in offset >> bits..=(offset + len - 1) >> bits {
            self.counts.add(cluster);
        }
    }

    fn count_everything(&mut self) -> io::Result<()> {
        let header = self.image.header.clone();
        let cluster = 1u64 << header.cluster_bits;
        self.count(0, cluster, "the header");
        let active = self.image.l1.clone();
        self.result.total_clusters = header.size.div_ceil(cluster);
        self.count(header.l1_offset, u64::from(header.l1_size) * 8, "the L1 table");
        self.count_l1(&active, true)?;
        match self.image.snapshots() {
            Ok(list) => {
                let len = self.image.snapshot_table_len()?;
                self.count(header.snapshots_offset, len, "the snapshot table");
                for snapshot in list {
                    match self.image.snapshot_l1(&snapshot) {
                        Ok(l1) => {
                            self.count(snapshot.l1_offset, u64::from(snapshot.l1_size) * 8, "a snapshot's L1 table");
                            self.count_l1(&l1, false)?;
                        }
                        Err(e) => self.corrupt(format!("ERROR snapshot {}: {e}", snapshot.id)),
                    }
                }
            }
            Err(e) => self.corrupt(format!("ERROR snapshot table: {e}")),
        }
        if let Some((offset, len)) = header.encryption {
            self.count(offset, len, "the encryption header");
        }
        self.count(
            header.refcount_table_offset,
            u64::from(header.refcount_table_clusters) * cluster,
            "the refcount table",
        );
        let len = self.image.file.len();
        for (i, offset) in self.image.refcounts.table().to_vec().into_iter().enumerate() {
            if offset == 0 {
                continue;
            }
            if !offset.is_multiple_of(cluster) || offset >= len {
                self.result.refcount_errors += 1;
                self.corrupt(format!("ERROR refcount block {i} is not cluster aligned or outside the file"));
                continue;
            }
            self.count(offset, cluster, "a refcount block");
        }
        Ok(())
    }

    fn count_l1(&mut self, l1: &[u64], active: bool) -> io::Result<()> {
        let cluster = self.image.cluster();
        let bits = self.image.header.cluster_bits;
        for (i, entry) in l1.iter().enumerate() {
            let table = entry & OFFSET;
            if table == 0 {
                continue;
            }
            if !table.is_multiple_of(cluster) {
                self.corrupt(format!("ERROR l2_offset={table:x}: Table is not cluster aligned; L1 entry corrupted"));
                continue;
            }
            self.count(table, cluster, "an L2 table");
            let mut bytes = vec![0; cluster as usize];
            if read_exact(self.image.file.as_mut(), table, &mut bytes).is_err() {
                self.corrupt(format!("ERROR: L2 table {table:#x} is outside the file"));
                continue;
            }
            if active {
                self.check_copied("l1_entry", i, *entry, table >> bits)?;
            }
            for (j, entry) in bytes.chunks_exact(8).enumerate() {
                let entry = u64::from_be_bytes(entry.try_into().unwrap_or_default());
                self.count_entry(entry, active, j)?;
            }
        }
        Ok(())
    }

    fn count_entry(&mut self, entry: u64, active: bool, index: usize) -> io::Result<()> {
        let cluster = self.image.cluster();
        let bits = self.image.header.cluster_bits;
        match classify(&self.image.header, entry) {
            Err(e) => self.corrupt(format!("ERROR: {e}; L2 entry corrupted")),
            Ok(Cluster::Unallocated | Cluster::Zero(None)) => {}
            Ok(Cluster::Compressed { offset, len }) => {
                if entry & COPIED != 0 {
                    self.corrupt(format!(
                        "ERROR: cluster {}: copied flag must never be set for compressed clusters",
                        offset >> bits
                    ));
                }
                self.count(offset, len, "a compressed cluster");
                if active {
                    self.result.allocated_clusters += 1;
                    self.result.compressed_clusters += 1;
                    self.result.fragmented_clusters += 1;
                }
            }
            Ok(Cluster::Normal(offset) | Cluster::Zero(Some(offset))) => {
                self.count(offset, cluster, "a data cluster");
                if active {
                    self.result.allocated_clusters += 1;
                    if self.next.is_some_and(|next| next != offset) {
                        self.result.fragmented_clusters += 1;
                    }
                    self.next = Some(offset + cluster);
                    self.check_copied("l2_entry", index, entry, offset >> bits)?;
                }
            }
        }
        debug_assert!(entry & COMPRESSED == 0 || entry != 0);
        Ok(())
    }

    fn check_copied(&mut self, what: &str, index: usize, entry: u64, cluster: u64) -> io::Result<()> {
        let refcount = match self.image.refcounts.get(self.image.file.as_mut(), cluster) {
            Ok(refcount) => refcount,
            // Its block is damaged, which is counted elsewhere.
            Err(_) => return Ok(()),
        };
        if (refcount == 1) != (entry & COPIED != 0) {
            self.result.copied_errors += 1;
            self.corrupt(format!("ERROR OFLAG_COPIED: {what} {index}={entry:x} refcount={refcount}"));
        }
        Ok(())
    }
}
