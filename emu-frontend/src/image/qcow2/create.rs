//! New images.
//!
//! ```text
//!  cluster 0   1               2                  3...
//!  header      refcount table  refcount block 0   L1 table
//! ```

use super::header::{Compression, Header, LAZY_REFCOUNTS, LONGEST_L1, incompatible};
use super::refcount::set;
use crate::image::invalid;
use crate::image::storage::Storage;
use std::io;

/// What a new image is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The disk's size in bytes, a multiple of 512.
    pub size: u64,
    /// 2 or 3.
    pub version: u32,
    /// Bytes, a power of two from 512 to 2 MiB.
    pub cluster_size: u64,
    /// 1, 2, 4, 8, 16, 32 or 64.
    pub refcount_bits: u32,
    /// Sets the compatible feature.
    pub lazy_refcounts: bool,
    /// For compressed clusters.
    pub compression: Compression,
    /// Name and format of the backing image.
    pub backing: Option<(String, Option<String>)>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            size: 0,
            version: 3,
            cluster_size: 64 << 10,
            refcount_bits: 16,
            lazy_refcounts: false,
            compression: Compression::Zlib,
            backing: None,
        }
    }
}

/// Writes an empty image to `file`, which is empty. `luks` is a LUKS header, for an encrypted one.
///
/// # Errors
/// The options contradict each other, or the host refuses.
pub fn create(file: &mut dyn Storage, options: &Options, luks: Option<&[u8]>) -> io::Result<()> {
    let o = options;
    let power = |n: u64, from: u64, to: u64| n.is_power_of_two() && (from..=to).contains(&n);
    if !power(o.cluster_size, 512, 2 << 20) {
        return Err(invalid("Cluster size must be a power of two between 512 and 2048k"));
    }
    if !power(u64::from(o.refcount_bits), 1, 64) {
        return Err(invalid("Refcount width must be a power of two and may not exceed 64 bits"));
    }
    if o.version == 2 && o.refcount_bits != 16 {
        return Err(invalid(
            "Different refcount widths than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)",
        ));
    }
    if o.version == 2 && o.lazy_refcounts {
        return Err(invalid(
            "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)",
        ));
    }
    if o.version == 2 && o.compression == Compression::Zstd {
        return Err(invalid(
            "Non-zlib compression type is only supported with compatibility level 1.1 and above (use compat=1.1 or greater)",
        ));
    }
    let bits = o.cluster_size.trailing_zeros();
    let mut header = Header {
        version: o.version,
        backing: o.backing.as_ref().map(|(name, _)| name.clone()),
        backing_format: o.backing.as_ref().and_then(|(_, format)| format.clone()),
        cluster_bits: bits,
        size: o.size,
        refcount_table_offset: o.cluster_size,
        refcount_table_clusters: 1,
        l1_offset: 3 * o.cluster_size,
        compatible: if o.lazy_refcounts { LAZY_REFCOUNTS } else { 0 },
        incompatible: if o.compression == Compression::Zstd { incompatible::COMPRESSION } else { 0 },
        refcount_order: o.refcount_bits.trailing_zeros(),
        compression: o.compression,
        ..Header::default()
    };
    let l1 = header.l1_needed(o.size).max(1);
    if l1 * 8 > LONGEST_L1 {
        return Err(invalid("Image is too big for the cluster size"));
    }
    header.l1_size = l1 as u32;
    let l1_clusters = (l1 * 8).div_ceil(o.cluster_size);
    // The refcount block counts the clusters of all these; small clusters need several.
    let luks_clusters = luks.map_or(0, |luks| (luks.len() as u64).div_ceil(o.cluster_size));
    let per_block = o.cluster_size * 8 / u64::from(o.refcount_bits);
    let (mut blocks, mut table) = (1, 1);
    while blocks * per_block < 1 + table + blocks + l1_clusters + luks_clusters {
        blocks += 1;
        table = (blocks * 8).div_ceil(o.cluster_size);
    }
    header.refcount_table_clusters = table as u32;
    let first_block = (1 + table) * o.cluster_size;
    header.l1_offset = first_block + blocks * o.cluster_size;
    let used = 1 + table + blocks + l1_clusters + luks_clusters;
    if let Some(luks) = luks {
        let at = header.l1_offset + l1_clusters * o.cluster_size;
        header.crypt_method = 2;
        header.encryption = Some((at, luks.len() as u64));
        file.write_at(at, luks)?;
    }
    let mut entries = vec![0; (table * o.cluster_size) as usize];
    for block in 0..blocks {
        let at = first_block + block * o.cluster_size;
        entries[block as usize * 8..][..8].copy_from_slice(&at.to_be_bytes());
        let mut bytes = vec![0; o.cluster_size as usize];
        for i in 0..per_block.min(used.saturating_sub(block * per_block)) {
            set(&mut bytes, header.refcount_order, i as usize, 1);
        }
        file.write_at(at, &bytes)?;
    }
    file.write_at(header.refcount_table_offset, &entries)?;
    file.write_at(header.l1_offset, &vec![0; (l1_clusters * o.cluster_size) as usize])?;
    file.flush()?;
    let mut bytes = header.to_bytes()?;
    bytes.resize(bytes.len().next_multiple_of(512).min(o.cluster_size as usize), 0);
    file.write_at(0, &bytes)?;
    file.set_len(used * o.cluster_size)?;
    file.flush()
}
