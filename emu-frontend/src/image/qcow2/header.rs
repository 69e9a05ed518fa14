//! The header and its extensions: `docs/interop/qcow2.rst` of QEMU, "Header", "Header extensions".

use crate::image::invalid;
use crate::image::storage::{Storage, read_exact};
use std::io;

const MAGIC: &[u8; 4] = b"QFI\xfb";
/// Bytes of a version 2 header.
pub const V2_LENGTH: usize = 72;
/// Bytes of a version 3 header as this program writes it.
pub const V3_LENGTH: usize = 112;
/// The longest L1 table, in bytes.
pub const LONGEST_L1: u64 = 32 << 20;
/// The longest refcount table, in bytes.
pub const LONGEST_REFCOUNT_TABLE: u64 = 8 << 20;
/// The longest encryption header, in bytes: LUKS version 1 needs two MiB.
const LONGEST_ENCRYPTION: u64 = 64 << 20;
/// The most snapshots.
pub const MOST_SNAPSHOTS: u32 = 65_536;
const LONGEST_BACKING_NAME: u32 = 1023;

/// Incompatible features.
pub mod incompatible {
    /// Refcounts may be wrong.
    pub const DIRTY: u64 = 1 << 0;
    /// Tables may be wrong: no writes.
    pub const CORRUPT: u64 = 1 << 1;
    /// The guest's data is in another file.
    pub const DATA_FILE: u64 = 1 << 2;
    /// The compression type field is not 0.
    pub const COMPRESSION: u64 = 1 << 3;
    /// L2 entries of 16 bytes with subclusters.
    pub const EXTENDED_L2: u64 = 1 << 4;
}

/// Compatible features: refcounts may be updated late.
pub const LAZY_REFCOUNTS: u64 = 1 << 0;

/// Header extension types.
mod extension {
    pub const END: u32 = 0;
    pub const BACKING_FORMAT: u32 = 0xe279_2aca;
    pub const FEATURE_NAMES: u32 = 0x6803_f857;
    pub const ENCRYPTION: u32 = 0x0537_be77;
}

/// How clusters are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Raw deflate.
    #[default]
    Zlib,
    /// One Zstandard frame.
    Zstd,
}

/// What the first cluster says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// The backing image, as it was written.
    pub backing: Option<String>,
    /// Its format, as it was written.
    pub backing_format: Option<String>,
    /// log2 of the cluster size: 9 to 21.
    pub cluster_bits: u32,
    /// The disk's size in bytes.
    pub size: u64,
    /// 0: none, 1: AES, 2: LUKS.
    pub crypt_method: u32,
    /// L1 entries.
    pub l1_size: u32,
    /// Where they are.
    pub l1_offset: u64,
    /// Where the refcount table is.
    pub refcount_table_offset: u64,
    /// Its length in clusters.
    pub refcount_table_clusters: u32,
    /// Number of snapshots.
    pub snapshots: u32,
    /// Where their table is.
    pub snapshots_offset: u64,
    /// [`incompatible`].
    pub incompatible: u64,
    /// Compatible features.
    pub compatible: u64,
    /// Features that go when somebody writes who does not know them.
    pub autoclear: u64,
    /// log2 of the refcounts' width.
    pub refcount_order: u32,
    /// How clusters are compressed.
    pub compression: Compression,
    /// Where the LUKS header is, and its length.
    pub encryption: Option<(u64, u64)>,
    /// Other extensions: type and contents.
    pub extensions: Vec<(u32, Vec<u8>)>,
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap_or_default())
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap_or_default())
}

impl Header {
    /// Reads and checks the header of `file`.
    ///
    /// # Errors
    /// It is no qcow2 image, or one with features that this program does not have.
    pub fn read(file: &mut dyn Storage) -> io::Result<Header> {
        let mut b = [0; V3_LENGTH];
        let there = file.len().min(V3_LENGTH as u64) as usize;
        if there < V2_LENGTH {
            return Err(invalid("Image is not in qcow2 format"));
        }
        read_exact(file, 0, &mut b[..there])?;
        if &b[..4] != MAGIC {
            return Err(invalid("Image is not in qcow2 format"));
        }
        let mut h = Header {
            version: be32(&b, 4),
            cluster_bits: be32(&b, 20),
            size: be64(&b, 24),
            crypt_method: be32(&b, 32),
            l1_size: be32(&b, 36),
            l1_offset: be64(&b, 40),
            refcount_table_offset: be64(&b, 48),
            refcount_table_clusters: be32(&b, 56),
            snapshots: be32(&b, 60),
            snapshots_offset: be64(&b, 64),
            refcount_order: 4,
            ..Header::default()
        };
        let mut length = V2_LENGTH as u64;
        match h.version {
            2 => {}
            3 => {
                h.incompatible = be64(&b, 72);
                h.compatible = be64(&b, 80);
                h.autoclear = be64(&b, 88);
                h.refcount_order = be32(&b, 96);
                length = u64::from(be32(&b, 100));
                if length > 104 && b[104] != 0 {
                    h.compression = match b[104] {
                        1 => Compression::Zstd,
                        other => return Err(invalid(format!("Unknown compression type: {other}"))),
                    };
                }
            }
            other => return Err(invalid(format!("Unsupported qcow2 version {other}"))),
        }
        if !(9..=21).contains(&h.cluster_bits) {
            return Err(invalid(format!("Unsupported cluster size: 2^{}", h.cluster_bits)));
        }
        let cluster = 1u64 << h.cluster_bits;
        if h.version == 3 && (length < 104 || length > cluster) {
            return Err(invalid(format!("qcow2 header length {length} is wrong")));
        }
        h.check_features()?;
        h.check_tables()?;
        h.read_extensions(file, length, &b)?;
        Ok(h)
    }

    fn check_features(&self) -> io::Result<()> {
        use incompatible::{COMPRESSION, CORRUPT, DATA_FILE, DIRTY, EXTENDED_L2};
        let known = DIRTY | CORRUPT | COMPRESSION;
        for (bit, name) in [(DATA_FILE, "an external data file"), (EXTENDED_L2, "extended L2 entries")] {
            if self.incompatible & bit != 0 {
                return Err(invalid(format!("the image uses {name}, which is not implemented")));
            }
        }
        let unknown = self.incompatible & !(known | DATA_FILE | EXTENDED_L2);
        if unknown != 0 {
            return Err(invalid(format!("Unsupported qcow2 feature(s): {unknown:#x}")));
        }
        if (self.compression != Compression::Zlib) != (self.incompatible & COMPRESSION != 0) {
            return Err(invalid("the compression type and its feature bit contradict each other"));
        }
        if self.refcount_order > 6 {
            return Err(invalid("Reference count entry width too large; may not exceed 64 bits"));
        }
        match self.crypt_method {
            0 | 2 => Ok(()),
            1 => Err(invalid("encryption with AES as of qcow2 version 1 is not implemented; LUKS is")),
            other => Err(invalid(format!("Unsupported encryption method {other}"))),
        }
    }

    fn check_tables(&self) -> io::Result<()> {
        let cluster = 1u64 << self.cluster_bits;
        let table = |name: &str, offset: u64, bytes: u64, longest: u64| match () {
            () if bytes > longest => Err(invalid(format!("{name} too large"))),
            () if !offset.is_multiple_of(cluster) || offset.checked_add(bytes).is_none_or(|end| end >> 63 != 0) => {
                Err(invalid(format!("{name} offset {offset:#x} is invalid")))
            }
            () => Ok(()),
        };
        let l1_bytes = u64::from(self.l1_size) * 8;
        table("Active L1 table", self.l1_offset, l1_bytes, LONGEST_L1)?;
        let refcount_bytes = u64::from(self.refcount_table_clusters) << self.cluster_bits;
        if self.refcount_table_clusters == 0 {
            return Err(invalid("Image does not contain a reference count table"));
        }
        table("Reference count table", self.refcount_table_offset, refcount_bytes, LONGEST_REFCOUNT_TABLE)?;
        if self.snapshots > MOST_SNAPSHOTS {
            return Err(invalid("Snapshot table too large"));
        }
        table("Snapshot table", self.snapshots_offset, 0, 0)?;
        // Offsets of guests fit into 63 bits.
        if self.size >> 62 != 0 || self.l1_needed(self.size) > u64::from(self.l1_size) {
            return Err(invalid("L1 table is too small"));
        }
        Ok(())
    }

    /// L1 entries for `size` bytes.
    pub fn l1_needed(&self, size: u64) -> u64 {
        size.div_ceil(1 << (2 * self.cluster_bits - 3))
    }

    fn read_extensions(&mut self, file: &mut dyn Storage, length: u64, fixed: &[u8]) -> io::Result<()> {
        let cluster = 1u64 << self.cluster_bits;
        let (backing_offset, backing_size) = (be64(fixed, 8), be32(fixed, 16));
        let mut end = cluster.min(file.len());
        if backing_offset != 0 {
            if backing_size > LONGEST_BACKING_NAME || backing_offset.saturating_add(backing_size.into()) > cluster {
                return Err(invalid("Backing file name too long"));
            }
            end = end.min(backing_offset);
            let mut name = vec![0; backing_size as usize];
            read_exact(file, backing_offset, &mut name)?;
            if !name.is_empty() {
                self.backing =
                    Some(String::from_utf8(name).map_err(|_| invalid("the backing file's name is not UTF-8"))?);
            }
        }
        let mut at = length;
        while at + 8 <= end {
            let mut head = [0; 8];
            read_exact(file, at, &mut head)?;
            let (kind, len) = (be32(&head, 0), u64::from(be32(&head, 4)));
            if kind == extension::END {
                break;
            }
            at += 8;
            if len > end - at {
                return Err(invalid("Header extension too large"));
            }
            let mut contents = vec![0; len as usize];
            read_exact(file, at, &mut contents)?;
            at += len.next_multiple_of(8);
            match kind {
                extension::BACKING_FORMAT => self.backing_format = String::from_utf8(contents).ok(),
                extension::FEATURE_NAMES => {}
                extension::ENCRYPTION if contents.len() == 16 => {
                    let (start, len) = (be64(&contents, 0), be64(&contents, 8));
                    if !start.is_multiple_of(cluster) || start >> 62 != 0 || len > LONGEST_ENCRYPTION {
                        return Err(invalid("the place of the encryption header is impossible"));
                    }
                    self.encryption = Some((start, len));
                }
                _ => self.extensions.push((kind, contents)),
            }
        }
        Ok(())
    }

    /// The bytes of the first cluster up to where they matter.
    ///
    /// # Errors
    /// Names and extensions do not fit into a cluster.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let length = if self.version == 2 { V2_LENGTH } else { V3_LENGTH };
        let mut b = vec![0; length];
        let mut put = |at: usize, bytes: &[u8]| b[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, MAGIC);
        put(4, &self.version.to_be_bytes());
        put(20, &self.cluster_bits.to_be_bytes());
        put(24, &self.size.to_be_bytes());
        put(32, &self.crypt_method.to_be_bytes());
        put(36, &self.l1_size.to_be_bytes());
        put(40, &self.l1_offset.to_be_bytes());
        put(48, &self.refcount_table_offset.to_be_bytes());
        put(56, &self.refcount_table_clusters.to_be_bytes());
        put(60, &self.snapshots.to_be_bytes());
        put(64, &self.snapshots_offset.to_be_bytes());
        if self.version == 3 {
            put(72, &self.incompatible.to_be_bytes());
            put(80, &self.compatible.to_be_bytes());
            put(88, &self.autoclear.to_be_bytes());
            put(96, &self.refcount_order.to_be_bytes());
            put(100, &(V3_LENGTH as u32).to_be_bytes());
            put(104, &[u8::from(self.compression == Compression::Zstd)]);
        }
        let mut extension = |kind: u32, contents: &[u8]| {
            b.extend(kind.to_be_bytes());
            b.extend((contents.len() as u32).to_be_bytes());
            b.extend(contents);
            b.resize(b.len().next_multiple_of(8), 0);
        };
        if let Some(format) = self.backing_format.as_ref().filter(|_| self.backing.is_some()) {
            extension(extension::BACKING_FORMAT, format.as_bytes());
        }
        if let Some((offset, len)) = self.encryption {
            extension(extension::ENCRYPTION, &[offset.to_be_bytes(), len.to_be_bytes()].concat());
        }
        for (kind, contents) in &self.extensions {
            extension(*kind, contents);
        }
        extension(extension::END, &[]);
        if let Some(name) = &self.backing {
            let at = b.len() as u64;
            b[8..16].copy_from_slice(&at.to_be_bytes());
            b[16..20].copy_from_slice(&(name.len() as u32).to_be_bytes());
            b.extend(name.as_bytes());
        }
        let longest_name = LONGEST_BACKING_NAME as usize;
        if b.len() > 1 << self.cluster_bits || self.backing.as_ref().is_some_and(|name| name.len() > longest_name) {
            return Err(invalid("Backing file name too long"));
        }
        Ok(b)
    }
}
