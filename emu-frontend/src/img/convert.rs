//! `emu img convert`.

use super::create::NewImage;
use super::output::{Progress, size};
use super::{Failure, How, Opening, Outcome, cache, format};
use crate::image::Format;
use crate::image::layer::{Layer, extent_in_chain, is_zero, read_padded};

/// Bytes that are copied at once, but for compressed clusters.
const STEP: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    opening: Opening,
    /// The sources' format
    #[arg(short = 'f', value_name = "FORMAT")]
    format: Option<String>,
    /// The target's format
    #[arg(short = 'O', value_name = "FORMAT", default_value = "raw")]
    output_format: String,
    /// Options of the target's format: key=value,...
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<String>,
    /// Compress
    #[arg(short = 'c')]
    compress: bool,
    /// Show progress
    #[arg(short = 'p')]
    progress: bool,
    /// Say nothing
    #[arg(short = 'q')]
    quiet: bool,
    /// Write into a target that is there
    #[arg(short = 'n')]
    no_create: bool,
    /// Runs of zeros that are at least so long stay holes; 0: none do
    #[arg(short = 'S', value_name = "SIZE", default_value = "4k")]
    sparse: String,
    /// The target's backing image, which holds what does not differ
    #[arg(short = 'B', value_name = "FILE")]
    backing: Option<String>,
    /// The target's backing image's format
    #[arg(short = 'F', value_name = "FORMAT")]
    backing_format: Option<String>,
    /// The cache of the target
    #[arg(short = 't', value_name = "CACHE")]
    cache: Option<String>,
    /// The cache of the sources
    #[arg(short = 'T', value_name = "CACHE")]
    source_cache: Option<String>,
    /// Coroutines; there is one
    #[arg(short = 'm', value_name = "NUMBER")]
    coroutines: Option<String>,
    /// Out of order; it is in order
    #[arg(short = 'W')]
    out_of_order: bool,
    /// The sources, one behind the other, and the target
    #[arg(required = true, num_args = 2..)]
    files: Vec<String>,
}

/// Copies.
pub fn run(a: &Arguments) -> Outcome {
    let Some((target_name, source_names)) = a.files.split_last() else { return Ok(1) };
    let output = Format::named(&a.output_format)
        .ok_or_else(|| Failure::new(format!("Unknown file format '{}'", a.output_format)))?;
    if a.compress && output != Format::Qcow2 {
        return Err(Failure::new("Compression not supported for this file format"));
    }
    let how = How {
        format: format(a.format.as_ref())?,
        read_only: true,
        cache: cache(a.source_cache.as_ref(), "writeback")?,
        ..How::default()
    };
    let mut sources = source_names.iter().map(|name| a.opening.open(name, &how)).collect::<Result<Vec<_>, _>>()?;
    let total: u64 = sources.iter().map(|source| source.len().next_multiple_of(512)).sum();
    let sparse = if a.sparse == "0" { 0 } else { size(&a.sparse)? };
    let mut target = if a.no_create {
        let how = How { format: Some(output), cache: cache(a.cache.as_ref(), "unsafe")?, ..How::default() };
        let target = a.opening.open(target_name, &how)?;
        if target.len() < total {
            return Err(Failure::new("Output file is smaller than input file"));
        }
        target
    } else {
        let mut new = NewImage::new(output, &a.options)?;
        if new.size == 0 {
            new.size = total;
        }
        if new.size < total {
            return Err(Failure::new("Output file is smaller than input file"));
        }
        if let Some(backing) = &a.backing {
            new.backing = Some((backing.clone(), a.backing_format.clone()));
        }
        let with_backing = new.backing.is_some();
        let mut target = new.make(target_name)?;
        if with_backing {
            drop(target);
            let how = How { format: Some(output), ..How::default() };
            target = a.opening.open(target_name, &how)?;
        }
        target
    };
    let mut progress = Progress::new(a.progress && !a.quiet, total);
    let mut base = 0;
    for source in &mut sources {
        copy(source.as_mut(), target.as_mut(), base, a, sparse, &mut |done| progress.at(done))?;
        base += source.len().next_multiple_of(512);
    }
    target.flush()?;
    progress.end();
    Ok(0)
}

/// Copies `source` to `base` of `target`, which is empty unless it was there before.
fn copy(
    source: &mut dyn Layer,
    target: &mut dyn Layer,
    base: u64,
    a: &Arguments,
    sparse: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Failure> {
    let len = source.len();
    let padded = len.next_multiple_of(512);
    let cluster = target.cluster_size();
    let has_backing = target.backing().is_some();
    // What the target's backing image has already need not be there twice.
    let must_clear = a.no_create || has_backing;
    let mut buffer = vec![0; STEP.max(cluster) as usize];
    let mut below = vec![0; if has_backing { buffer.len() } else { 0 }];
    let mut at = 0;
    while at < padded {
        progress(base + at);
        let step = if a.compress { cluster } else { STEP };
        let n = (padded - at).min(step - at % step);
        if at < len {
            let (extent, _) = extent_in_chain(source, at, (len - at).min(1 << 40))?;
            let skippable = extent.kind.is_zeros();
            if skippable && sparse > 0 && !has_backing {
                let whole = if a.compress { extent.len - extent.len % cluster } else { extent.len };
                let whole = if at + extent.len >= len { padded - at } else { whole };
                if whole > 0 {
                    if must_clear {
                        target.write_zeroes(base + at, whole, true)?;
                    }
                    at += whole;
                    continue;
                }
            }
        }
        let part = &mut buffer[..n as usize];
        read_padded(source, at, part).map_err(|e| Failure::new(format!("error while reading at byte {at}: {e}")))?;
        if has_backing {
            let old = &mut below[..n as usize];
            target.read_at(base + at, old)?;
            if old == part {
                at += n;
                continue;
            }
        }
        let failed = |e: std::io::Error| Failure::new(format!("error while writing at byte {at}: {e}"));
        if a.compress {
            match is_zero(part) && !must_clear {
                true => {}
                false => target.write_compressed(base + at, part).map_err(failed)?,
            }
        } else if sparse == 0 {
            target.write_at(base + at, part).map_err(failed)?;
        } else {
            write_sparse(target, base + at, part, sparse, must_clear).map_err(failed)?;
        }
        at += n;
    }
    progress(base + padded);
    Ok(())
}

/// Writes `bytes` but for runs of zeros of at least `sparse` bytes, in multiples of 4 KiB.
fn write_sparse(
    target: &mut dyn Layer,
    offset: u64,
    bytes: &[u8],
    sparse: u64,
    must_clear: bool,
) -> std::io::Result<()> {
    let unit = (sparse.next_multiple_of(4096) as usize).max(4096);
    let mut at = 0;
    while at < bytes.len() {
        let zero = is_zero(&bytes[at..(at + unit).min(bytes.len())]);
        let mut end = (at + unit).min(bytes.len());
        while end < bytes.len() && is_zero(&bytes[end..(end + unit).min(bytes.len())]) == zero {
            end = (end + unit).min(bytes.len());
        }
        match zero {
            false => target.write_at(offset + at as u64, &bytes[at..end])?,
            true if must_clear => target.write_zeroes(offset + at as u64, (end - at) as u64, true)?,
            true => {}
        }
        at = end;
    }
    Ok(())
}
