//! Internal snapshots: `docs/interop/qcow2.rst`, "Snapshots".
//!
//! A snapshot is a copy of the L1 table; every table and cluster that it refers to has one more reference. The header
//! names the snapshot table, so that one write of a sector makes a snapshot come or go; before it all counts are as
//! high as they need to be with both tables, afterwards they go down.

use super::header::{LONGEST_L1, MOST_SNAPSHOTS};
use super::table::{COMPRESSED, COPIED, OFFSET};
use super::{Qcow2, read_l1};
use crate::image::invalid;
use crate::image::storage::{is_hole, read_exact};
use std::collections::HashSet;
use std::io;
use std::time::Duration;

/// Bytes of an entry before its strings.
const FIXED: usize = 40;
/// The longest snapshot table, in bytes.
const LONGEST_TABLE: usize = 64 << 20;
/// The most extra data of an entry.
const LONGEST_EXTRA: u32 = 1024;

/// A snapshot's entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Where its L1 table is.
    pub l1_offset: u64,
    /// Entries of it.
    pub l1_size: u32,
    /// Its unique id, a number.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Since 1970.
    pub date: Duration,
    /// The guest's time, in nanoseconds.
    pub vm_clock: u64,
    /// Bytes of a saved machine.
    pub vm_state_size: u64,
    /// The disk's size.
    pub disk_size: u64,
    /// Instructions that had run, or all ones.
    pub icount: u64,
    /// Extra data that this program does not know.
    extra: Vec<u8>,
}

impl Qcow2 {
    /// The snapshots.
    ///
    /// # Errors
    /// Their table is damaged.
    pub fn snapshots(&mut self) -> io::Result<Vec<Snapshot>> {
        self.read_snapshots().map(|(list, _)| list)
    }

    /// Bytes of the snapshot table.
    pub(super) fn snapshot_table_len(&mut self) -> io::Result<u64> {
        self.read_snapshots().map(|(_, len)| len)
    }

    /// The snapshots, and how long their table is in the file: strings that are not UTF-8 may be longer here than there.
    fn read_snapshots(&mut self) -> io::Result<(Vec<Snapshot>, u64)> {
        let mut list = Vec::new();
        let mut at = self.header.snapshots_offset;
        for _ in 0..self.header.snapshots {
            let mut fixed = [0; FIXED];
            read_exact(self.file.as_mut(), at, &mut fixed)?;
            let be32 = |i: usize| u32::from_be_bytes(fixed[i..i + 4].try_into().unwrap_or_default());
            let be64 = |i: usize| u64::from_be_bytes(fixed[i..i + 8].try_into().unwrap_or_default());
            let id_len = usize::from(u16::from_be_bytes([fixed[12], fixed[13]]));
            let name_len = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
            let extra_len = be32(36);
            if extra_len > LONGEST_EXTRA {
                return Err(invalid("a snapshot has too much extra data"));
            }
            let mut rest = vec![0; extra_len as usize + id_len + name_len];
            read_exact(self.file.as_mut(), at + FIXED as u64, &mut rest)?;
            let (extra, strings) = rest.split_at(extra_len as usize);
            let (id, name) = strings.split_at(id_len);
            let extra64 = |i: usize| extra.get(i..i + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
            let nanos = be32(20).min(999_999_999);
            list.push(Snapshot {
                l1_offset: be64(0),
                l1_size: be32(8),
                id: String::from_utf8_lossy(id).into_owned(),
                name: String::from_utf8_lossy(name).into_owned(),
                date: Duration::new(u64::from(be32(16)), nanos),
                vm_clock: be64(24),
                vm_state_size: extra64(0).unwrap_or(u64::from(be32(32))),
                disk_size: extra64(8).unwrap_or(self.header.size),
                icount: extra64(16).unwrap_or(u64::MAX),
                extra: extra.get(24..).unwrap_or_default().to_vec(),
            });
            at += (FIXED as u64 + rest.len() as u64).next_multiple_of(8);
            if at - self.header.snapshots_offset > LONGEST_TABLE as u64 {
                return Err(invalid("Snapshot table too large"));
            }
        }
        Ok((list, at - self.header.snapshots_offset))
    }

    /// The snapshot whose id or, failing that, name is `which`.
    fn find(list: &[Snapshot], which: &str) -> Option<usize> {
        list.iter().position(|s| s.id == which).or_else(|| list.iter().position(|s| s.name == which))
    }

    /// Whether a snapshot's L1 table can be one.
    pub(super) fn check_snapshot_l1(&self, snapshot: &Snapshot) -> io::Result<()> {
        let aligned = snapshot.l1_offset.is_multiple_of(self.cluster()) && snapshot.l1_offset >> 62 == 0;
        match u64::from(snapshot.l1_size) * 8 <= LONGEST_L1 && aligned {
            true => Ok(()),
            false => Err(invalid(format!("the L1 table of snapshot {} is impossible", snapshot.id))),
        }
    }

    /// A snapshot's L1 table.
    fn snapshot_l1(&mut self, snapshot: &Snapshot) -> io::Result<Vec<u64>> {
        self.check_snapshot_l1(snapshot)?;
        read_l1(self.file.as_mut(), snapshot.l1_offset, snapshot.l1_size)
    }

    /// Takes a snapshot called `name`.
    ///
    /// # Errors
    /// Counts or tables cannot grow, or the host refuses.
    pub fn create_snapshot(&mut self, name: &str, date: Duration) -> io::Result<()> {
        let mut list = self.snapshots()?;
        if list.len() >= MOST_SNAPSHOTS as usize {
            return Err(invalid("there are too many snapshots"));
        }
        let id = list.iter().filter_map(|s| s.id.parse::<u64>().ok()).max().unwrap_or(0).saturating_add(1);
        self.dirtily(|image| {
            let l1 = image.l1.clone();
            let clusters = (l1.len() as u64 * 8).div_ceil(image.cluster()).max(1);
            let at = image.allocate(clusters)?;
            image.count_references(&l1)?;
            image.update_copied()?;
            let mut bytes: Vec<u8> = image.l1.iter().flat_map(|entry| (entry & !COPIED).to_be_bytes()).collect();
            bytes.resize((clusters << image.header.cluster_bits) as usize, 0);
            image.file.write_at(at, &bytes)?;
            list.push(Snapshot {
                l1_offset: at,
                l1_size: l1.len() as u32,
                id: id.to_string(),
                name: name.into(),
                date,
                disk_size: image.header.size,
                ..Snapshot::default()
            });
            image.write_snapshots(&list)
        })
    }

    /// Goes back to the snapshot that `which` names.
    ///
    /// # Errors
    /// There is none, its tables are damaged, or the host refuses.
    pub fn apply_snapshot(&mut self, which: &str) -> io::Result<()> {
        let list = self.snapshots()?;
        let Some(snapshot) = Qcow2::find(&list, which).map(|i| list[i].clone()) else { return Err(no_snapshot()) };
        let mut l1 = self.snapshot_l1(&snapshot)?;
        for entry in &mut l1 {
            *entry &= !COPIED;
        }
        let needed = self.header.l1_needed(snapshot.disk_size);
        if snapshot.disk_size >> 62 != 0 || needed * 8 > LONGEST_L1 {
            return Err(invalid("the snapshot's disk is too large"));
        }
        l1.resize(l1.len().max(needed as usize), 0);
        self.distinct_tables(&l1)?;
        self.dirtily(|image| {
            image.count_references(&l1)?;
            let old = image.l1.clone();
            image.move_l1(l1, snapshot.disk_size)?;
            image.drop_references(&old)?;
            image.tables.clear();
            image.update_copied()?;
            image.find_structures();
            Ok(())
        })
    }

    /// Deletes the snapshot that `which` names.
    ///
    /// # Errors
    /// There is none, its tables are damaged, or the host refuses.
    pub fn delete_snapshot(&mut self, which: &str) -> io::Result<()> {
        let mut list = self.snapshots()?;
        let Some(index) = Qcow2::find(&list, which) else { return Err(no_snapshot()) };
        let snapshot = list.remove(index);
        let l1 = self.snapshot_l1(&snapshot)?;
        self.distinct_tables(&l1)?;
        self.dirtily(|image| {
            image.write_snapshots(&list)?;
            image.drop_references(&l1)?;
            let bits = image.header.cluster_bits;
            let end = snapshot.l1_offset + (u64::from(snapshot.l1_size) * 8).max(1);
            for cluster in snapshot.l1_offset >> bits..end.div_ceil(1 << bits) {
                image.refcounts.decrement(image.file.as_mut(), cluster)?;
            }
            image.update_copied()
        })
    }

    /// Writes a new snapshot table, has the header name it, and frees the old one.
    fn write_snapshots(&mut self, list: &[Snapshot]) -> io::Result<()> {
        let mut bytes = Vec::new();
        let cut = |text: &str| text.as_bytes()[..text.len().min(usize::from(u16::MAX))].to_vec();
        for s in list {
            let (id, name) = (cut(&s.id), cut(&s.name));
            bytes.extend(s.l1_offset.to_be_bytes());
            bytes.extend(s.l1_size.to_be_bytes());
            bytes.extend((id.len() as u16).to_be_bytes());
            bytes.extend((name.len() as u16).to_be_bytes());
            bytes.extend((s.date.as_secs() as u32).to_be_bytes());
            bytes.extend(s.date.subsec_nanos().to_be_bytes());
            bytes.extend(s.vm_clock.to_be_bytes());
            bytes.extend(u32::try_from(s.vm_state_size).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend((24 + s.extra.len() as u32).to_be_bytes());
            bytes.extend(s.vm_state_size.to_be_bytes());
            bytes.extend(s.disk_size.to_be_bytes());
            bytes.extend(s.icount.to_be_bytes());
            bytes.extend(&s.extra);
            bytes.extend(id);
            bytes.extend(name);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        if bytes.len() > LONGEST_TABLE {
            return Err(invalid("the snapshot table would be too large"));
        }
        let bits = self.header.cluster_bits;
        let old = (self.header.snapshots_offset, self.snapshot_table_len()?);
        let at = match bytes.len() as u64 {
            0 => 0,
            len => {
                let at = self.allocate(len.div_ceil(self.cluster()))?;
                self.file.write_at(at, &bytes)?;
                at
            }
        };
        self.write_back()?;
        self.header.snapshots = list.len() as u32;
        self.header.snapshots_offset = at;
        // Number and offset are in one sector.
        let mut fields = self.header.snapshots.to_be_bytes().to_vec();
        fields.extend(at.to_be_bytes());
        self.file.write_at(60, &fields)?;
        self.file.flush()?;
        if old.1 > 0 {
            for cluster in old.0 >> bits..(old.0 + old.1).div_ceil(1 << bits) {
                self.refcounts.decrement(self.file.as_mut(), cluster)?;
            }
        }
        Ok(())
    }

    /// One more reference to all that `l1` refers to.
    fn count_references(&mut self, l1: &[u64]) -> io::Result<()> {
        for entry in self.distinct_tables(l1)? {
            let entries = self.entries_of(entry)?;
            for entry in entries {
                for cluster in self.clusters_of(entry)? {
                    self.refcounts.increment(self.file.as_mut(), cluster)?;
                }
            }
            self.refcounts.increment(self.file.as_mut(), entry >> self.header.cluster_bits)?;
        }
        Ok(())
    }

    /// One reference less, at once: the header does not lead to `l1` any more.
    fn drop_references(&mut self, l1: &[u64]) -> io::Result<()> {
        for entry in self.distinct_tables(l1)? {
            let entries = self.entries_of(entry)?;
            for entry in entries {
                for cluster in self.clusters_of(entry)? {
                    self.refcounts.decrement(self.file.as_mut(), cluster)?;
                }
            }
            self.refcounts.decrement(self.file.as_mut(), entry >> self.header.cluster_bits)?;
        }
        Ok(())
    }

    /// The L2 tables that `l1` names.
    ///
    /// # Errors
    /// It names one twice: no image is like that, and work on it would have no end.
    pub(super) fn distinct_tables(&self, l1: &[u64]) -> io::Result<Vec<u64>> {
        let mut known = HashSet::new();
        let tables: Vec<u64> = l1.iter().map(|entry| entry & OFFSET).filter(|table| *table != 0).collect();
        match tables.iter().all(|table| known.insert(*table)) {
            true => Ok(tables),
            false => Err(invalid("an L2 table maps two ranges of the disk")),
        }
    }

    /// The entries of the L2 table at `table`; none if that is a hole of the file.
    fn entries_of(&mut self, table: u64) -> io::Result<Vec<u64>> {
        let len = self.cluster();
        if !self.tables.contains(table) && is_hole(self.file.as_mut(), table, len) {
            return Ok(Vec::new());
        }
        Ok(self.tables.get(self.file.as_mut(), &self.header, table)?.entries.clone())
    }

    /// Makes the COPIED flags of the active tables tell whether the refcount is 1.
    pub(super) fn update_copied(&mut self) -> io::Result<()> {
        let marks = self.marks()?;
        let bits = self.header.cluster_bits;
        let mut known = HashSet::new();
        for i in 0..self.l1.len() {
            let offset = self.l1[i] & OFFSET;
            if offset == 0 {
                continue;
            }
            let entry = if marks.once(offset >> bits) { offset | COPIED } else { offset };
            if self.l1[i] != entry {
                self.l1[i] = entry;
                self.l1_dirty.insert(i);
            }
            if !known.insert(offset) {
                continue;
            }
            for (j, entry) in self.entries_of(offset)?.into_iter().enumerate() {
                if entry & COMPRESSED != 0 || entry & OFFSET == 0 {
                    continue;
                }
                let new = if marks.once((entry & OFFSET) >> bits) { entry | COPIED } else { entry & !COPIED };
                if new != entry {
                    self.tables.get(self.file.as_mut(), &self.header, offset)?.set(j, new);
                }
            }
            if self.tables.dirty_bytes() > 8 << 20 {
                self.write_back()?;
            }
        }
        Ok(())
    }
}

fn no_snapshot() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "No such file or directory")
}
