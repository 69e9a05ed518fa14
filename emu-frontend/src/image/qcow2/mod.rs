//! qcow2, versions 2 and 3, as `docs/interop/qcow2.rst` of QEMU describes it.
//!
//! ```text
//!  header -> L1 table -> L2 tables -> clusters of data, zeros, compressed data, or the backing image
//!        \-> refcount table -> refcount blocks                 (refcount.rs)
//!        \-> snapshots, each with an L1 table of its own       (snapshot.rs)
//! ```
//! Data is written at once; tables are changed in memory and brought to the file by [`Qcow2::flush`], in an order
//! (`write_back`) in which the file is consistent at any moment, whatever of the last writes a loss of power takes: a
//! cluster may be counted though nothing refers to it, never the other way round. So a guest's flush costs two of the
//! host's if tables have changed, else one. The dirty bit is set only while snapshots are made and taken back.
//!
//! Deliberately absent: external data files, extended L2 entries, bitmaps (they are dropped when the image is written,
//! as their autoclear bit allows), saved machine states of snapshots, and AES as of version 1.

pub mod check;
mod compress;
pub mod create;
pub mod header;
pub mod refcount;
pub mod snapshot;
mod table;
#[cfg(test)]
mod tests;
mod write;

use crate::image::check::CheckResult;
use crate::image::cipher::SectorCipher;
use crate::image::layer::{Extent, ExtentKind, Layer, data_in, read_padded};
use crate::image::storage::{Storage, located, read_exact};
use crate::image::{Format, invalid, luks};
use emu_devices::storage::block::{Image, Located};
use header::{Header, incompatible};
use refcount::Refcounts;
use std::collections::{BTreeSet, HashSet};
use std::io;
use table::{Cluster, OFFSET, Tables, classify};

/// An open image.
pub struct Qcow2 {
    file: Box<dyn Storage>,
    header: Header,
    read_only: bool,
    l1: Vec<u64>,
    l1_dirty: BTreeSet<usize>,
    tables: Tables,
    refcounts: Refcounts,
    /// Nothing at or behind this host offset has ever been written: it reads as zeros.
    untouched: u64,
    /// Numbers of clusters that hold L2 tables and refcount blocks: guests' data never goes there.
    structures: HashSet<u64>,
    backing: Option<Box<dyn Layer>>,
    cipher: Option<Box<dyn SectorCipher>>,
    /// The compressed cluster that was read last: its entry and contents.
    unpacked: Option<(u64, Vec<u8>)>,
    /// Where the next compressed cluster goes, if there is room in the cluster of the last one.
    packed_end: u64,
    /// Something has been found or failed that makes further writes unsafe.
    broken: bool,
}

/// What [`Qcow2::open`] is to do with a dirty image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dirty {
    /// Repair it, if it is opened for writing.
    Repair,
    /// Leave it, for a check.
    Leave,
}

impl Qcow2 {
    /// Opens the image in `file`, read-only if that is.
    ///
    /// # Errors
    /// It is no qcow2 image, is corrupt and would be written to, or has features that this program does not have.
    pub fn open(mut file: Box<dyn Storage>, dirty: Dirty) -> io::Result<Qcow2> {
        let header = Header::read(file.as_mut())?;
        let read_only = file.is_read_only();
        if header.incompatible & incompatible::CORRUPT != 0 && !read_only && dirty == Dirty::Repair {
            return Err(invalid("qcow2: Image is corrupt; cannot be opened read/write"));
        }
        let l1 = read_l1(file.as_mut(), header.l1_offset, header.l1_size)?;
        let refcounts = Refcounts::read(
            file.as_mut(),
            header.cluster_bits,
            header.refcount_order,
            header.refcount_table_offset,
            header.refcount_table_clusters,
        )?;
        let untouched = file.len().next_multiple_of(1 << header.cluster_bits);
        let mut image = Qcow2 {
            file,
            header,
            read_only,
            l1,
            l1_dirty: BTreeSet::new(),
            tables: Tables::default(),
            refcounts,
            untouched,
            structures: HashSet::new(),
            backing: None,
            cipher: None,
            unpacked: None,
            packed_end: 0,
            broken: false,
        };
        if !read_only && dirty == Dirty::Repair {
            image.prepare_for_writing()?;
        }
        Ok(image)
    }

    fn prepare_for_writing(&mut self) -> io::Result<()> {
        // The search for a free cluster goes through all blocks: that there are as many as the file has room for bounds it.
        let mut blocks = HashSet::new();
        if !self.refcounts.table().iter().filter(|offset| **offset != 0).all(|offset| blocks.insert(*offset)) {
            return Err(self.found_corrupt("a refcount block counts two ranges of clusters"));
        }
        if let Err(e) = self.distinct_tables(&self.l1) {
            return Err(self.found_corrupt(e.to_string()));
        }
        if self.header.incompatible & incompatible::DIRTY != 0 {
            self.check_structures(check::Fix::All)?;
            self.set_incompatible(incompatible::DIRTY, false)?;
        }
        if self.header.autoclear != 0 {
            self.header.autoclear = 0;
            self.file.write_at(88, &[0; 8])?;
        }
        self.find_structures();
        Ok(())
    }

    fn find_structures(&mut self) {
        let bits = self.header.cluster_bits;
        let tables = self.l1.iter().map(|entry| entry & OFFSET);
        let all = tables.chain(self.refcounts.table().iter().copied()).filter(|offset| *offset != 0);
        self.structures = all.map(|offset| offset >> bits).collect();
    }

    /// What its header says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Has its data decrypted and encrypted, if it is encrypted.
    ///
    /// # Errors
    /// There is no passphrase, or a wrong one, or the header is not one that this program reads.
    pub fn unlock(&mut self, secret: Option<&[u8]>) -> io::Result<()> {
        if self.header.crypt_method == 0 {
            return Ok(());
        }
        let Some(secret) = secret else {
            return Err(invalid("Parameter 'encrypt.key-secret' is required for cipher"));
        };
        let Some((offset, len)) = self.header.encryption else {
            return Err(invalid("the image is encrypted, but has no encryption header"));
        };
        let file = &mut self.file;
        let unlocked = luks::unlock(
            |at, bytes| match (at.checked_add(bytes.len() as u64), offset.checked_add(at)) {
                (Some(end), Some(at)) if end <= len => read_exact(file.as_mut(), at, bytes),
                _ => Err(invalid("the encryption header is damaged")),
            },
            secret,
        )?;
        self.cipher = Some(Box::new(unlocked.cipher));
        Ok(())
    }

    /// Changes the names of the backing image in the header.
    ///
    /// # Errors
    /// They do not fit, or the host refuses.
    fn set_names(&mut self, name: Option<&str>, format: Option<&str>) -> io::Result<()> {
        self.write_back()?;
        let mut header = self.header.clone();
        header.backing = name.map(Into::into);
        header.backing_format = format.map(Into::into);
        self.write_header(header)
    }

    /// Writes a whole header.
    fn write_header(&mut self, header: Header) -> io::Result<()> {
        let mut bytes = header.to_bytes()?;
        bytes.resize((bytes.len().next_multiple_of(512)).min(1 << header.cluster_bits), 0);
        self.file.write_at(0, &bytes)?;
        self.file.flush()?;
        self.header = header;
        Ok(())
    }

    fn set_incompatible(&mut self, bit: u64, on: bool) -> io::Result<()> {
        if self.header.version < 3 {
            return Ok(());
        }
        let old = self.header.incompatible;
        let new = if on { old | bit } else { old & !bit };
        if new != old {
            self.header.incompatible = new;
            self.file.write_at(72, &new.to_be_bytes())?;
            self.file.flush()?;
        }
        Ok(())
    }

    /// Something impossible has been found: marks the image, and lets nobody write to it any more.
    fn found_corrupt(&mut self, what: impl Into<String>) -> io::Error {
        let what = what.into();
        if !self.read_only && !self.broken {
            tracing::error!("qcow2: {what}; further writes to the image are refused");
            self.broken = true;
            if let Err(e) = self.set_incompatible(incompatible::CORRUPT, true) {
                tracing::error!("qcow2: the image cannot be marked as corrupt: {e}");
            }
        }
        invalid(format!("qcow2: {what}"))
    }

    fn cluster(&self) -> u64 {
        1 << self.header.cluster_bits
    }

    /// Guest bytes that an L2 table maps.
    fn table_reach(&self) -> u64 {
        1 << (2 * self.header.cluster_bits - 3)
    }

    /// L1 index, L2 index.
    fn indices(&self, offset: u64) -> (usize, usize) {
        let bits = self.header.cluster_bits;
        let l2_bits = bits - 3;
        ((offset >> (bits + l2_bits)) as usize, (offset >> bits) as usize & ((1 << l2_bits) - 1))
    }

    /// The entry for the guest's `offset`, 0 without a table.
    fn entry(&mut self, offset: u64) -> io::Result<u64> {
        let (i, j) = self.indices(offset);
        match self.l1.get(i).map_or(0, |entry| entry & OFFSET) {
            0 => Ok(0),
            table => Ok(self.tables.get(self.file.as_mut(), &self.header, table)?.entries[j]),
        }
    }

    /// What is at `offset`, and for how many bytes the same goes on, in one piece of the file.
    fn map(&mut self, offset: u64, max: u64) -> io::Result<(Cluster, u64)> {
        let cluster = self.cluster();
        let within = offset & (cluster - 1);
        let (i, j) = self.indices(offset);
        let table = self.l1.get(i).map_or(0, |entry| entry & OFFSET);
        if table == 0 {
            return Ok((Cluster::Unallocated, max.min(self.table_reach() - (offset & (self.table_reach() - 1)))));
        }
        let table = self.tables.get(self.file.as_mut(), &self.header, table)?;
        let first = classify(&self.header, table.entries[j])?;
        let mut len = cluster - within;
        if !matches!(first, Cluster::Compressed { .. }) {
            for entry in &table.entries[j + 1..] {
                if len >= max {
                    break;
                }
                let same = match (first, classify(&self.header, *entry)?) {
                    (Cluster::Normal(at), Cluster::Normal(next)) => at + within + len == next,
                    (Cluster::Zero(Some(at)), Cluster::Zero(Some(next))) => at + within + len == next,
                    (first, next) => first == next && matches!(first, Cluster::Unallocated | Cluster::Zero(None)),
                };
                if !same {
                    break;
                }
                len += cluster;
            }
        }
        let first = match first {
            Cluster::Normal(at) => Cluster::Normal(at + within),
            Cluster::Zero(Some(at)) => Cluster::Zero(Some(at + within)),
            other => other,
        };
        Ok((first, len.min(max)))
    }

    /// Reads data of the file at a host offset.
    fn read_data(&mut self, host: u64, buffer: &mut [u8]) -> io::Result<()> {
        let Some(cipher) = &mut self.cipher else { return self.file.read_at(host, buffer) };
        let (start, end) = (host & !511, (host + buffer.len() as u64).next_multiple_of(512));
        if (start, end) == (host, host + buffer.len() as u64) {
            self.file.read_at(host, buffer)?;
            cipher.decrypt(host / 512, buffer);
            return Ok(());
        }
        let mut sectors = vec![0; (end - start) as usize];
        self.file.read_at(start, &mut sectors)?;
        cipher.decrypt(start / 512, &mut sectors);
        let from = (host - start) as usize;
        buffer.copy_from_slice(&sectors[from..from + buffer.len()]);
        Ok(())
    }

    /// The contents of the compressed cluster of `entry`.
    fn unpack(&mut self, entry: u64, offset: u64, len: u64) -> io::Result<&[u8]> {
        if self.unpacked.as_ref().is_none_or(|(known, _)| *known != entry) {
            let mut packed = vec![0; len as usize];
            self.file.read_at(offset, &mut packed)?;
            let cluster = self.cluster() as usize;
            let bytes = compress::unpack(self.header.compression, &packed, cluster)?;
            self.unpacked = Some((entry, bytes));
        }
        Ok(self.unpacked.as_ref().map(|(_, bytes)| bytes.as_slice()).unwrap_or_default())
    }

    fn read_backing(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match &mut self.backing {
            Some(backing) => read_padded(backing.as_mut(), offset, buffer),
            None => {
                buffer.fill(0);
                Ok(())
            }
        }
    }

    /// Whether what the backing image has at `offset` is beyond its end, or there is none.
    fn backing_is_absent(&self, offset: u64) -> bool {
        self.backing.as_ref().is_none_or(|backing| offset >= backing.len())
    }

    fn check_range(&self, offset: u64, len: u64) -> io::Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.header.size.next_multiple_of(512) => Ok(()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

/// Reads an L1 table.
fn read_l1(file: &mut dyn Storage, offset: u64, entries: u32) -> io::Result<Vec<u64>> {
    let mut bytes = vec![0; entries as usize * 8];
    if !bytes.is_empty() {
        read_exact(file, offset, &mut bytes)
            .map_err(|e| io::Error::new(e.kind(), format!("Could not read L1 table: {e}")))?;
    }
    Ok(bytes.chunks_exact(8).map(|b| u64::from_be_bytes(b.try_into().unwrap_or_default())).collect())
}

impl Image for Qcow2 {
    fn len(&self) -> u64 {
        self.header.size
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn locate(&mut self, offset: u64, len: u64, to_write: bool) -> Option<Located> {
        self.check_range(offset, len).ok()?;
        if self.cipher.is_some() {
            return None;
        }
        // Errors show when the request is carried out otherwise.
        let (host, len) = match to_write {
            true => self.overwritable(offset, len).ok()??,
            false => match self.map(offset, len).ok()? {
                (Cluster::Normal(host), len) => (host, len),
                (Cluster::Unallocated, len) => return self.backing.as_mut()?.locate(offset, len, false),
                _ => return None,
            },
        };
        located(self.file.as_ref(), host, len, to_write)
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.check_range(offset, buffer.len() as u64)?;
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let (cluster, len) = self.map(at, (buffer.len() - done) as u64)?;
            let part = &mut buffer[done..done + len as usize];
            match cluster {
                Cluster::Unallocated => self.read_backing(at, part)?,
                Cluster::Zero(_) => part.fill(0),
                Cluster::Normal(host) => self.read_data(host, part)?,
                Cluster::Compressed { offset: host, len: packed } => {
                    let entry = self.entry(at)?;
                    let within = (at & (self.cluster() - 1)) as usize;
                    let bytes = self.unpack(entry, host, packed)?;
                    part.copy_from_slice(&bytes[within..within + part.len()]);
                }
            }
            done += len as usize;
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_range(offset, bytes.len() as u64)?;
        self.write(offset, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.read_only { Ok(()) } else { self.write_back() }
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.check_range(offset, len)?;
        self.unmap(offset, len)
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.check_range(offset, len)?;
        self.zero(offset, len, unmap)
    }
}

impl Layer for Qcow2 {
    fn format(&self) -> Format {
        Format::Qcow2
    }

    fn extent(&mut self, offset: u64, max: u64) -> io::Result<Extent> {
        let max = max.min(self.len().saturating_sub(offset).max(1));
        let (cluster, len) = self.map(offset, max)?;
        let kind = match cluster {
            Cluster::Unallocated => ExtentKind::Absent,
            Cluster::Zero(at) => ExtentKind::Zero { at },
            Cluster::Normal(at) if self.cipher.is_none() => return data_in(self.file.as_mut(), at, len),
            Cluster::Normal(_) => ExtentKind::Data { at: None, compressed: false, hole: false },
            Cluster::Compressed { .. } => ExtentKind::Data { at: None, compressed: true, hole: false },
        };
        Ok(Extent { len, kind })
    }

    fn resize(&mut self, len: u64) -> io::Result<()> {
        self.set_size(len)
    }

    fn backing(&mut self) -> Option<&mut (dyn Layer + 'static)> {
        self.backing.as_deref_mut()
    }

    fn set_backing(&mut self, below: Option<Box<dyn Layer>>) -> io::Result<()> {
        self.backing = below;
        Ok(())
    }

    fn take_backing(&mut self) -> Option<Box<dyn Layer>> {
        self.backing.take()
    }

    fn names_backing(&self) -> Option<(String, Option<Format>)> {
        let format = self.header.backing_format.as_deref().and_then(Format::named);
        self.header.backing.clone().map(|file| (file, format))
    }

    fn make_empty(&mut self) -> io::Result<()> {
        self.clear()
    }

    fn as_qcow2(&mut self) -> Option<&mut Qcow2> {
        Some(self)
    }

    fn check(&mut self, fix: check::Fix) -> Option<io::Result<CheckResult>> {
        Some(self.check_structures(fix))
    }

    fn rename_backing(&mut self, name: Option<&str>, format: Option<&str>) -> io::Result<()> {
        self.set_names(name, format)
    }

    fn is_encrypted(&self) -> bool {
        self.header.crypt_method != 0
    }

    fn write_compressed(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_range(offset, bytes.len() as u64)?;
        self.write_packed(offset, bytes)
    }

    fn cluster_size(&self) -> u64 {
        self.cluster()
    }

    fn allocated(&self) -> u64 {
        self.file.allocated()
    }
}

impl Drop for Qcow2 {
    fn drop(&mut self) {
        if !self.read_only
            && let Err(e) = self.write_back_all()
        {
            tracing::error!("qcow2: not everything is in the file: {e}");
        }
    }
}
