//! Writing: where data goes, what becomes of what it replaces, and the order in which tables reach the file.

use super::Qcow2;
use super::compress;
use super::header::{LONGEST_L1, incompatible};
use super::table::{COMPRESSED, COPIED, Cluster, OFFSET, ZERO, classify};
use crate::image::invalid;
use crate::image::layer::{is_zero, read_padded};
use std::io;
use std::ops::Range;

/// Bytes of changed tables in memory that have them written though nobody has flushed.
const MOST_DIRTY: usize = 8 << 20;
/// The same for clusters that wait to be freed.
const MOST_WAITING: usize = 1 << 16;

/// Whether an L2 entry names data that nobody shares.
fn is_own(entry: u64) -> bool {
    entry & COPIED != 0 && entry & (COMPRESSED | ZERO) == 0 && entry & OFFSET != 0
}

impl Qcow2 {
    /// Brings everything to the file, durably, in steps after each of which the file is consistent:
    ///
    /// ```text
    ///  1  new refcount blocks       | flush, if there are any
    ///  2  refcount table, refcounts, new L2 tables (and the guest's data, before) | flush
    ///  3  L2 entries, L1 entries    | flush
    ///  4  counts of what those referred to before go down: in memory, for the next time
    /// ```
    /// A write that is torn leaves a mixture of old and new entries, each of which is valid, because an entry lies
    /// within a sector.
    pub(super) fn write_back(&mut self) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        if self.broken {
            return Err(invalid("qcow2: the image is marked as corrupt"));
        }
        let file = self.file.as_mut();
        let fresh = self.refcounts.write_fresh(file)?;
        if !fresh.is_empty() {
            file.flush()?;
            self.refcounts.write_entries(file, &fresh)?;
            let bits = self.header.cluster_bits;
            self.structures.extend(fresh.iter().map(|index| self.refcounts.table()[*index] >> bits));
        }
        self.refcounts.write_dirty(file)?;
        self.tables.write_fresh(file)?;
        file.flush()?;
        if self.tables.dirty_bytes() > 0 || !self.l1_dirty.is_empty() {
            self.tables.write_dirty(file)?;
            while let Some(index) = self.l1_dirty.first().copied() {
                file.write_at(self.header.l1_offset + 8 * index as u64, &self.l1[index].to_be_bytes())?;
                self.l1_dirty.remove(&index);
            }
            file.flush()?;
            self.tables.settled(self.header.cluster_bits);
        }
        self.free_waiting()
    }

    /// Step 4. What is free now is given back to the host.
    fn free_waiting(&mut self) -> io::Result<()> {
        let waiting = self.refcounts.take_waiting();
        if waiting.is_empty() {
            return Ok(());
        }
        let free = self.refcounts.free_waiting(self.file.as_mut(), &waiting)?;
        let bits = self.header.cluster_bits;
        let mut runs: Vec<Range<u64>> = Vec::new();
        for cluster in free {
            self.structures.remove(&cluster);
            if self.packed_end.checked_sub(1).is_some_and(|last| last >> bits == cluster) {
                self.packed_end = 0;
            }
            match runs.last_mut() {
                Some(run) if run.end == cluster => run.end += 1,
                _ => runs.push(cluster..cluster + 1),
            }
        }
        for run in runs {
            self.file.discard(run.start << bits, (run.end - run.start) << bits)?;
        }
        Ok(())
    }

    /// As [`Qcow2::write_back`], until no count waits to go down.
    pub(super) fn write_back_all(&mut self) -> io::Result<()> {
        self.write_back()?;
        if self.refcounts.is_dirty() {
            self.write_back()?;
        }
        Ok(())
    }

    pub(super) fn limit_memory(&mut self) -> io::Result<()> {
        let bytes = self.tables.dirty_bytes() + self.refcounts.dirty_bytes();
        if bytes > MOST_DIRTY.max(8 << self.header.cluster_bits) || self.refcounts.waiting() > MOST_WAITING {
            self.write_back()?;
        }
        Ok(())
    }

    fn check_writable(&self) -> io::Result<()> {
        match () {
            () if self.read_only => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            () if self.broken => Err(invalid("qcow2: the image is marked as corrupt")),
            () => Ok(()),
        }
    }

    /// Up to `most` clusters in a row: the host offset, how many, and whether they have never been written.
    fn allocate_some(&mut self, most: u64) -> io::Result<(u64, u64, bool)> {
        let found = match self.refcounts.allocate_some(self.file.as_mut(), most)? {
            Some(found) => found,
            None => {
                self.grow_refcount_table(1)?;
                let found = self.refcounts.allocate_some(self.file.as_mut(), most)?;
                found.ok_or(io::ErrorKind::StorageFull)?
            }
        };
        let (first, count) = found;
        let fresh = self.allocated(first, count)?;
        Ok((first << self.header.cluster_bits, count, fresh))
    }

    /// `count` clusters in a row; their host offset.
    pub(super) fn allocate(&mut self, count: u64) -> io::Result<u64> {
        let first = match self.refcounts.allocate(self.file.as_mut(), count)? {
            Some(first) => first,
            None => {
                self.grow_refcount_table(count)?;
                self.refcounts.allocate(self.file.as_mut(), count)?.ok_or(io::ErrorKind::StorageFull)?
            }
        };
        self.allocated(first, count)?;
        Ok(first << self.header.cluster_bits)
    }

    /// Checks what has been allocated, and tells whether it has never been written.
    fn allocated(&mut self, first: u64, count: u64) -> io::Result<bool> {
        let bits = self.header.cluster_bits;
        let (start, end) = (first << bits, (first + count) << bits);
        if end >> 56 != 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Some(what) = self.overlap(start, end - start) {
            return Err(self.found_corrupt(format!("{what} is counted as free")));
        }
        let fresh = start >= self.untouched;
        self.untouched = self.untouched.max(end);
        Ok(fresh)
    }

    fn grow_refcount_table(&mut self, more: u64) -> io::Result<()> {
        self.write_back_all()?;
        let old = self.refcounts.grow(self.file.as_mut(), more)?;
        let bits = self.header.cluster_bits;
        self.header.refcount_table_offset = self.refcounts.table_offset();
        self.header.refcount_table_clusters = self.refcounts.table_clusters() as u32;
        let mut fields = self.header.refcount_table_offset.to_be_bytes().to_vec();
        fields.extend(self.header.refcount_table_clusters.to_be_bytes());
        self.file.write_at(48, &fields)?;
        self.file.flush()?;
        self.untouched = self.untouched.max(self.file.len().next_multiple_of(1 << bits));
        for cluster in old {
            self.refcounts.decrement(self.file.as_mut(), cluster)?;
        }
        self.find_structures();
        Ok(())
    }

    /// What of the image's own structures lies in these bytes of the file.
    fn overlap(&self, host: u64, len: u64) -> Option<&'static str> {
        let h = &self.header;
        let cluster = self.cluster();
        let crossing = |start: u64, bytes: u64| host < start.saturating_add(bytes) && start < host + len;
        let table_bytes = u64::from(h.refcount_table_clusters) * cluster;
        let l1_bytes = (u64::from(h.l1_size) * 8).next_multiple_of(cluster);
        let (crypt, crypt_bytes) = h.encryption.unwrap_or((0, 0));
        match () {
            () if crossing(0, cluster) => Some("the header"),
            () if crossing(h.l1_offset, l1_bytes) => Some("the L1 table"),
            () if crossing(h.refcount_table_offset, table_bytes) => Some("the refcount table"),
            () if crypt != 0 && crossing(crypt, crypt_bytes.next_multiple_of(cluster)) => Some("the encryption header"),
            () if h.snapshots > 0 && crossing(h.snapshots_offset, cluster) => Some("the snapshot table"),
            () => {
                let clusters = host / cluster..=(host + len - 1) / cluster;
                clusters.into_iter().any(|c| self.structures.contains(&c)).then_some("an L2 table or a refcount block")
            }
        }
    }

    /// Writes guests' data at a host offset, encrypted if the image is.
    fn write_data(&mut self, host: u64, bytes: &[u8]) -> io::Result<()> {
        if let Some(what) = self.overlap(host, bytes.len() as u64) {
            return Err(self.found_corrupt(format!("data would be written over {what} at {host:#x}")));
        }
        let Some(cipher) = &mut self.cipher else { return self.file.write_at(host, bytes) };
        let mut secret = bytes.to_vec();
        cipher.encrypt(host / 512, &mut secret);
        self.file.write_at(host, &secret)
    }

    /// The L2 table for `offset`, which may be changed: there is one, and no snapshot shares it.
    fn own_table(&mut self, offset: u64) -> io::Result<u64> {
        let (i, _) = self.indices(offset);
        let entry = *self.l1.get(i).ok_or(io::ErrorKind::InvalidInput)?;
        let old = entry & OFFSET;
        if old != 0 && entry & COPIED != 0 {
            return Ok(old);
        }
        let entries = match old {
            0 => vec![0; 1 << (self.header.cluster_bits - 3)],
            old => self.tables.get(self.file.as_mut(), &self.header, old)?.entries.clone(),
        };
        let new = self.allocate(1)?;
        self.tables.add(new, entries);
        self.structures.insert(new >> self.header.cluster_bits);
        self.l1[i] = new | COPIED;
        self.l1_dirty.insert(i);
        if old != 0 {
            self.refcounts.free_later(old >> self.header.cluster_bits);
        }
        Ok(new)
    }

    /// Sets the entry for `offset` in its own table, and lets go of what the old one referred to.
    fn replace(&mut self, table: u64, offset: u64, entry: u64) -> io::Result<()> {
        let (_, j) = self.indices(offset);
        let table = self.tables.get(self.file.as_mut(), &self.header, table)?;
        let old = table.entries[j];
        table.set(j, entry);
        let packed = (old | entry) & COMPRESSED != 0;
        if packed && old != entry || old & OFFSET != entry & OFFSET {
            self.unpacked = None;
            for cluster in self.clusters_of(old)? {
                self.refcounts.free_later(cluster);
            }
        }
        Ok(())
    }

    /// Numbers of the host's clusters that an L2 entry refers to.
    pub(super) fn clusters_of(&self, entry: u64) -> io::Result<Range<u64>> {
        let bits = self.header.cluster_bits;
        Ok(match classify(&self.header, entry)? {
            Cluster::Unallocated | Cluster::Zero(None) => 0..0,
            Cluster::Zero(Some(at)) | Cluster::Normal(at) => at >> bits..(at >> bits) + 1,
            Cluster::Compressed { offset, len } => offset >> bits..((offset + len - 1) >> bits) + 1,
        })
    }

    /// Writes guests' data.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        if self.cipher.is_some() && (!offset.is_multiple_of(512) || !bytes.len().is_multiple_of(512)) {
            return self.write_padded(offset, bytes);
        }
        let mut done = 0;
        while done < bytes.len() {
            done += self.write_run(offset + done as u64, &bytes[done..])?;
            self.limit_memory()?;
        }
        Ok(())
    }

    /// Writes what are not whole sectors to an encrypted image.
    fn write_padded(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let start = offset & !511;
        let end = (offset + bytes.len() as u64).next_multiple_of(512);
        let mut sectors = vec![0; (end - start) as usize];
        read_padded(self, start, &mut sectors)?;
        let from = (offset - start) as usize;
        sectors[from..from + bytes.len()].copy_from_slice(bytes);
        self.write(start, &sectors)
    }

    /// Where the first of `len` bytes for `offset`, whose table is at `table`, may be written without a change of tables, and how many;
    /// `None`: nowhere.
    fn in_place(&mut self, table: u64, offset: u64, len: u64) -> io::Result<Option<(u64, u64)>> {
        let cluster = self.cluster();
        let within = offset & (cluster - 1);
        let (_, j) = self.indices(offset);
        let entries = &self.tables.get(self.file.as_mut(), &self.header, table)?.entries[j..];
        let Cluster::Normal(at) = classify(&self.header, entries[0])? else { return Ok(None) };
        let wanted = (within + len).div_ceil(cluster) as usize;
        let run = entries.iter().take(wanted).zip(0u64..);
        let run = run.take_while(|(e, n)| is_own(**e) && **e & OFFSET == at + n * cluster).count() as u64;
        Ok((run > 0).then(|| (at + within, len.min(run * cluster - within))))
    }

    /// Where the first of `len` bytes for `offset` may be written as [`Qcow2::write`] would, and how many; `None`: tables would change.
    pub(super) fn overwritable(&mut self, offset: u64, len: u64) -> io::Result<Option<(u64, u64)>> {
        self.check_writable()?;
        let (i, _) = self.indices(offset);
        let entry = self.l1.get(i).copied().unwrap_or_default();
        if entry & OFFSET == 0 || entry & COPIED == 0 {
            return Ok(None);
        }
        let found = self.in_place(entry & OFFSET, offset, len)?;
        Ok(found.filter(|(host, len)| self.overlap(*host, *len).is_none()))
    }

    /// Writes as much as goes to one place of the file; how much.
    fn write_run(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let cluster = self.cluster();
        let within = offset & (cluster - 1);
        let table_at = self.own_table(offset)?;
        let (_, j) = self.indices(offset);
        if let Some((host, n)) = self.in_place(table_at, offset, bytes.len() as u64)? {
            self.write_data(host, &bytes[..n as usize])?;
            return Ok(n as usize);
        }
        let table = self.tables.get(self.file.as_mut(), &self.header, table_at)?;
        let first = table.entries[j];
        let wanted = (within + bytes.len() as u64).div_ceil(cluster);
        let here = &table.entries[j..table.entries.len().min(j + wanted as usize)];
        // A zero cluster with room of its own is filled where it is.
        if let Cluster::Zero(Some(at)) = classify(&self.header, first)?
            && first & COPIED != 0
        {
            let n = bytes.len().min((cluster - within) as usize);
            let mut whole = vec![0; cluster as usize];
            whole[within as usize..within as usize + n].copy_from_slice(&bytes[..n]);
            self.write_data(at, &whole)?;
            self.replace(table_at, offset, at | COPIED)?;
            return Ok(n);
        }
        let most = here.iter().take_while(|entry| !is_own(**entry)).count() as u64;
        let (host, count, fresh) = self.allocate_some(most)?;
        let n = bytes.len().min((count * cluster - within) as usize);
        if let Err(error) = self.fill_new(host, count, fresh, offset, &bytes[..n]) {
            for c in 0..count {
                // Nothing refers to them.
                self.refcounts.decrement(self.file.as_mut(), (host >> self.header.cluster_bits) + c)?;
            }
            return Err(error);
        }
        for c in 0..count {
            self.replace(table_at, offset - within + c * cluster, (host + c * cluster) | COPIED)?;
        }
        Ok(n)
    }

    /// Writes `bytes` for the guest's `offset` into `count` new clusters at `host`, with what was there around them.
    fn fill_new(&mut self, host: u64, count: u64, fresh: bool, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let cluster = self.cluster();
        let within = offset & (cluster - 1);
        let end = within + bytes.len() as u64;
        let (head, tail) = (offset - within, count * cluster - end);
        if within == 0 && tail == 0 {
            return self.write_data(host, bytes);
        }
        let mut whole = vec![0; (count * cluster) as usize];
        if within > 0 {
            read_padded(self, head, &mut whole[..within as usize])?;
        }
        if tail > 0 {
            read_padded(self, offset + bytes.len() as u64, &mut whole[end as usize..])?;
        }
        // What has never been written reads as zeros already.
        let zeros = is_zero(&whole[..within as usize]) && is_zero(&whole[end as usize..]);
        if fresh && zeros && self.cipher.is_none() {
            return self.write_data(host + within, bytes);
        }
        whole[within as usize..end as usize].copy_from_slice(bytes);
        self.write_data(host, &whole)
    }

    /// Makes a range zeros.
    pub(super) fn zero(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.check_writable()?;
        let cluster = self.cluster();
        let mut at = offset;
        while at < offset + len {
            let left = offset + len - at;
            let (kind, mapped) = self.map(at, left)?;
            let absent = kind == Cluster::Unallocated && self.backing_is_absent(at);
            if matches!(kind, Cluster::Zero(None)) || absent {
                at += mapped;
                continue;
            }
            let within = at & (cluster - 1);
            // The last cluster may reach beyond the image's end.
            let whole = within == 0 && (left >= cluster || offset + len >= self.header.size);
            let n = left.min(cluster - within);
            if !whole || self.header.version == 2 {
                if self.header.version == 2 && whole && self.backing.is_none() {
                    let table = self.own_table(at)?;
                    self.replace(table, at, 0)?;
                } else if !matches!(kind, Cluster::Zero(_)) {
                    self.write(at, &vec![0; n as usize])?;
                }
            } else {
                let table = self.own_table(at)?;
                let (_, j) = self.indices(at);
                let old = self.tables.get(self.file.as_mut(), &self.header, table)?.entries[j];
                let keep = !unmap && old & COPIED != 0 && old & COMPRESSED == 0 && old & OFFSET != 0;
                let entry = if keep { old | ZERO } else { ZERO };
                self.replace(table, at, entry)?;
            }
            self.limit_memory()?;
            at += n;
        }
        Ok(())
    }

    /// Gives back the clusters that lie within a range.
    pub(super) fn unmap(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let cluster = self.cluster();
        let end = offset + len;
        let mut at = offset.next_multiple_of(cluster);
        while at < end && (at + cluster <= end || end >= self.header.size) {
            let (kind, mapped) = self.map(at, end - at)?;
            if matches!(kind, Cluster::Zero(None) | Cluster::Unallocated) {
                at += mapped.next_multiple_of(cluster);
                continue;
            }
            // Without zero clusters, the backing image would show.
            let entry = match (self.backing_is_absent(at), self.header.version) {
                (true, _) => 0,
                (false, 2) => return Ok(()),
                (false, _) => ZERO,
            };
            let table = self.own_table(at)?;
            self.replace(table, at, entry)?;
            self.limit_memory()?;
            at += cluster;
        }
        Ok(())
    }

    /// Gives every cluster of the range that has none its room, which reads as zeros: for `preallocation=`.
    ///
    /// # Errors
    /// The host refuses.
    pub fn preallocate(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let cluster = self.cluster();
        let mut at = offset & !(cluster - 1);
        while at < offset + len {
            let table = self.own_table(at)?;
            let (_, j) = self.indices(at);
            let entries = &self.tables.get(self.file.as_mut(), &self.header, table)?.entries[j..];
            let wanted = (offset + len - at).div_ceil(cluster) as usize;
            let free = entries.iter().take(wanted).take_while(|entry| **entry == 0).count() as u64;
            if free == 0 {
                at += cluster;
                continue;
            }
            let (host, count, fresh) = self.allocate_some(free)?;
            if !fresh || self.cipher.is_some() {
                for c in 0..count {
                    self.write_data(host + c * cluster, &vec![0; cluster as usize])?;
                }
            }
            for c in 0..count {
                self.replace(table, at + c * cluster, (host + c * cluster) | COPIED)?;
            }
            self.limit_memory()?;
            at += count * cluster;
        }
        self.write_back()?;
        let end = self.untouched;
        if self.file.len() < end { self.file.set_len(end) } else { Ok(()) }
    }

    /// Changes the size.
    pub(super) fn set_size(&mut self, size: u64) -> io::Result<()> {
        self.check_writable()?;
        if !size.is_multiple_of(512) {
            return Err(invalid("The new size must be a multiple of 512"));
        }
        let old = self.header.size;
        if size < old {
            return self.shrink(size);
        }
        let needed = self.header.l1_needed(size);
        if needed * 8 > LONGEST_L1 {
            return Err(invalid("the new size is too large for this cluster size"));
        }
        self.write_back()?;
        if needed > u64::from(self.header.l1_size) {
            let mut l1 = self.l1.clone();
            l1.resize(needed as usize, 0);
            self.move_l1(l1, size)?;
        } else {
            self.header.size = size;
            self.file.write_at(24, &size.to_be_bytes())?;
            self.file.flush()?;
        }
        // The backing image does not show in what is new.
        let backing_end = self.backing.as_ref().map_or(0, |backing| backing.len()).min(size);
        if backing_end > old {
            self.zero(old, backing_end - old, true)?;
            self.write_back()?;
        }
        Ok(())
    }

    /// Has the header name `l1`, written to new clusters, and `size`; the old table is freed.
    pub(super) fn move_l1(&mut self, l1: Vec<u64>, size: u64) -> io::Result<()> {
        let bits = self.header.cluster_bits;
        let clusters = (l1.len() as u64 * 8).div_ceil(self.cluster()).max(1);
        let at = self.allocate(clusters)?;
        let mut bytes: Vec<u8> = l1.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        bytes.resize((clusters << bits) as usize, 0);
        self.file.write_at(at, &bytes)?;
        self.write_back()?;
        let old = (self.header.l1_offset, u64::from(self.header.l1_size) * 8);
        self.header.l1_size = l1.len() as u32;
        self.header.l1_offset = at;
        self.header.size = size;
        self.l1 = l1;
        // Size, L1 size and L1 offset are in one sector.
        let mut fields = size.to_be_bytes().to_vec();
        fields.extend(self.header.crypt_method.to_be_bytes());
        fields.extend(self.header.l1_size.to_be_bytes());
        fields.extend(at.to_be_bytes());
        self.file.write_at(24, &fields)?;
        self.file.flush()?;
        if old.1 > 0 {
            for cluster in old.0 >> bits..(old.0 + old.1).div_ceil(1 << bits) {
                self.refcounts.decrement(self.file.as_mut(), cluster)?;
            }
        }
        Ok(())
    }

    fn shrink(&mut self, size: u64) -> io::Result<()> {
        let cluster = self.cluster();
        // What is cut off is gone, whatever the backing image has; what is left of the last cluster becomes zeros, for
        // when the image grows again.
        let first = size.next_multiple_of(cluster);
        if first > size && size < self.header.size {
            let n = (first - size).min(self.header.size.next_multiple_of(512) - size);
            self.zero(size, n, true)?;
        }
        let mut at = first;
        while at < self.header.size {
            let (kind, mapped) = self.map(at, self.header.size - at)?;
            if kind == Cluster::Unallocated {
                at += mapped.next_multiple_of(cluster);
                continue;
            }
            let table = self.own_table(at)?;
            self.replace(table, at, 0)?;
            self.limit_memory()?;
            at += cluster;
        }
        // Their tables.
        let kept = self.header.l1_needed(size) as usize;
        for i in kept..self.l1.len() {
            let table = self.l1[i] & OFFSET;
            if table != 0 {
                self.write_back()?;
                self.l1[i] = 0;
                self.l1_dirty.insert(i);
                self.tables.remove(table);
                self.refcounts.free_later(table >> self.header.cluster_bits);
            }
        }
        self.write_back()?;
        self.header.size = size;
        self.file.write_at(24, &size.to_be_bytes())?;
        self.file.flush()?;
        self.write_back_all()
    }

    /// Writes a cluster compressed, behind the last one that was, or plainly if that makes it no shorter.
    pub(super) fn write_packed(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        let cluster = self.cluster();
        let whole = bytes.len() as u64 == cluster || offset + bytes.len() as u64 >= self.header.size;
        if !offset.is_multiple_of(cluster) || !whole || self.cipher.is_some() {
            return self.write(offset, bytes);
        }
        let mut padded = bytes.to_vec();
        padded.resize(cluster as usize, 0);
        let Some(packed) = compress::pack(self.header.compression, &padded)? else { return self.write(offset, bytes) };
        let len = packed.len() as u64;
        let bits = self.header.cluster_bits;
        // It may begin in what the last one has left of its cluster, and reach into the next.
        let shared = self.refcounts.largest() > 1;
        let room = if shared { self.packed_end.next_multiple_of(cluster) - self.packed_end } else { 0 };
        let host = if room > 0 && len <= room {
            self.packed_end
        } else {
            let new = self.allocate(1)?;
            if room > 0 && new == self.packed_end + room { self.packed_end } else { new }
        };
        let (first, last) = (host >> bits, (host + len - 1) >> bits);
        // One reference for each cluster that it touches; a new one has its own already.
        if !host.is_multiple_of(cluster) {
            self.refcounts.increment(self.file.as_mut(), first)?;
            debug_assert!(last <= first + 1);
        }
        self.file.write_at(host, &packed)?;
        self.packed_end = host + len;
        let table = self.own_table(offset)?;
        let shift = 62 - (bits - 8);
        let sectors = (host + len - 1) / 512 - host / 512;
        if host >> shift != 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.replace(table, offset, COMPRESSED | sectors << shift | host)?;
        self.limit_memory()
    }

    /// Removes everything from the image, so that the backing image shows: for `commit`.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.check_writable()?;
        self.write_back_all()?;
        let cluster = self.cluster();
        let mut at = 0;
        while at < self.header.size {
            let (kind, mapped) = self.map(at, self.header.size - at)?;
            if kind == Cluster::Unallocated {
                at += mapped.next_multiple_of(cluster);
                continue;
            }
            let table = self.own_table(at)?;
            self.replace(table, at, 0)?;
            self.limit_memory()?;
            at += cluster;
        }
        self.write_back_all()
    }

    /// Does `work`, during which the refcounts may be wrong.
    pub(super) fn dirtily<R>(&mut self, work: impl FnOnce(&mut Qcow2) -> io::Result<R>) -> io::Result<R> {
        self.check_writable()?;
        self.write_back_all()?;
        self.set_incompatible(incompatible::DIRTY, true)?;
        let result = work(self)?;
        self.write_back_all()?;
        self.set_incompatible(incompatible::DIRTY, false)?;
        Ok(result)
    }
}
