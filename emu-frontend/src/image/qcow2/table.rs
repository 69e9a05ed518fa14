//! L1 and L2 entries, and the L2 tables that are kept in memory.

use super::header::Header;
use crate::image::invalid;
use crate::image::storage::{Storage, read_exact};
use std::collections::HashMap;
use std::io;
use std::ops::Range;

/// The refcount is exactly 1: the cluster may be written in place.
pub const COPIED: u64 = 1 << 63;
/// Compressed.
pub const COMPRESSED: u64 = 1 << 62;
/// Reads as zeros (version 3).
pub const ZERO: u64 = 1;
/// Host offset of L1 entries, L2 entries.
pub const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// Bytes of tables that are kept though they could be read again.
const KEPT: usize = 4 << 20;

/// What an L2 entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cluster {
    /// Nothing: look at the backing image.
    Unallocated,
    /// Zeros, perhaps with room in the file.
    Zero(Option<u64>),
    /// Data at this host offset.
    Normal(u64),
    /// Compressed data.
    Compressed {
        /// Host offset, in bytes.
        offset: u64,
        /// At most so many bytes.
        len: u64,
    },
}

/// Takes an entry apart.
///
/// # Errors
/// It is impossible.
pub fn classify(header: &Header, entry: u64) -> io::Result<Cluster> {
    if entry & COMPRESSED != 0 {
        let shift = 62 - (header.cluster_bits - 8);
        let offset = entry & ((1 << shift) - 1) & ((1 << 56) - 1);
        let sectors = (entry >> shift & ((1 << (header.cluster_bits - 8)) - 1)) + 1;
        return Ok(Cluster::Compressed { offset, len: sectors * 512 - (offset & 511) });
    }
    let offset = entry & OFFSET;
    if !offset.is_multiple_of(1 << header.cluster_bits) {
        return Err(invalid(format!("cluster offset {offset:#x} is not aligned")));
    }
    match (entry & ZERO != 0, offset) {
        (true, _) if header.version == 2 => Err(invalid("zero cluster in a version 2 image")),
        (true, 0) => Ok(Cluster::Zero(None)),
        (true, offset) => Ok(Cluster::Zero(Some(offset))),
        (false, 0) => Ok(Cluster::Unallocated),
        (false, offset) => Ok(Cluster::Normal(offset)),
    }
}

/// An L2 table in memory.
pub struct Table {
    /// Its entries.
    pub entries: Vec<u64>,
    /// Those that the file does not have yet.
    dirty: Option<Range<usize>>,
    /// Nothing in the file refers to it yet.
    fresh: bool,
    used: u64,
}

impl Table {
    /// Sets an entry.
    pub fn set(&mut self, index: usize, entry: u64) {
        if self.entries[index] == entry {
            return;
        }
        self.entries[index] = entry;
        self.dirty = Some(match self.dirty.take() {
            None => index..index + 1,
            Some(old) => old.start.min(index)..old.end.max(index + 1),
        });
    }

    fn is_changed(&self) -> bool {
        self.fresh || self.dirty.is_some()
    }
}

/// The L2 tables in memory, by host offset.
#[derive(Default)]
pub struct Tables {
    map: HashMap<u64, Table>,
    clock: u64,
}

impl Tables {
    /// The table at `offset`, read if it is not there. What has changed stays.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn get(&mut self, file: &mut dyn Storage, header: &Header, offset: u64) -> io::Result<&mut Table> {
        self.clock += 1;
        if !self.map.contains_key(&offset) {
            if !offset.is_multiple_of(1 << header.cluster_bits) {
                return Err(invalid(format!("L2 table offset {offset:#x} is not aligned")));
            }
            let mut bytes = vec![0; 1 << header.cluster_bits];
            read_exact(file, offset, &mut bytes)?;
            let entries = bytes.chunks_exact(8).map(|b| u64::from_be_bytes(b.try_into().unwrap_or_default())).collect();
            self.trim(header.cluster_bits);
            self.map.insert(offset, Table { entries, dirty: None, fresh: false, used: 0 });
        }
        let clock = self.clock;
        match self.map.get_mut(&offset) {
            Some(table) => {
                table.used = clock;
                Ok(table)
            }
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Whether the table at `offset` is in memory.
    pub fn contains(&self, offset: u64) -> bool {
        self.map.contains_key(&offset)
    }

    /// A new table at `offset`.
    pub fn add(&mut self, offset: u64, entries: Vec<u64>) {
        self.map.insert(offset, Table { entries, dirty: None, fresh: true, used: self.clock });
    }

    /// Forgets the table at `offset`, which is about to be freed.
    pub fn remove(&mut self, offset: u64) {
        self.map.remove(&offset);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.map.clear();
    }

    fn trim(&mut self, cluster_bits: u32) {
        let most = (KEPT >> cluster_bits).max(4);
        while self.map.len() > most {
            let clean = self.map.iter().filter(|(_, table)| !table.is_changed());
            let Some(oldest) = clean.min_by_key(|(_, table)| table.used).map(|(offset, _)| *offset) else { return };
            self.map.remove(&oldest);
        }
    }

    /// Bytes of changed tables.
    pub fn dirty_bytes(&self) -> usize {
        self.map.values().filter(|table| table.is_changed()).map(|table| table.entries.len() * 8).sum()
    }

    /// Writes the tables that nothing in the file refers to.
    ///
    /// # Errors
    /// The host refuses.
    pub fn write_fresh(&mut self, file: &mut dyn Storage) -> io::Result<()> {
        for (offset, table) in self.map.iter_mut().filter(|(_, table)| table.fresh) {
            let bytes: Vec<u8> = table.entries.iter().flat_map(|entry| entry.to_be_bytes()).collect();
            file.write_at(*offset, &bytes)?;
            table.dirty = None;
        }
        Ok(())
    }

    /// Writes what has changed of the others.
    ///
    /// # Errors
    /// The host refuses.
    pub fn write_dirty(&mut self, file: &mut dyn Storage) -> io::Result<()> {
        for (offset, table) in &mut self.map {
            if let Some(dirty) = table.dirty.clone() {
                // Whole sectors.
                let (start, end) = (dirty.start & !63, dirty.end.next_multiple_of(64).min(table.entries.len()));
                let bytes: Vec<u8> = table.entries[start..end].iter().flat_map(|entry| entry.to_be_bytes()).collect();
                file.write_at(offset + 8 * start as u64, &bytes)?;
                table.dirty = None;
            }
        }
        Ok(())
    }

    /// The file refers to all of them now.
    pub fn settled(&mut self, cluster_bits: u32) {
        for table in self.map.values_mut() {
            table.fresh = false;
        }
        self.trim(cluster_bits);
    }
}
