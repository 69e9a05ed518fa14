//! `emu img resize`, `rebase`, `commit` and `compare`.

use super::output::{Progress, size};
use super::{Failure, How, Opening, Outcome, cache, format};
use crate::image::Format;
use crate::image::drive::copy_down;
use crate::image::layer::{ExtentKind, Layer, extent_in_chain, is_zero, read_padded};
use crate::report;

/// Bytes that are compared or copied at once.
const STEP: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
pub struct ResizeArguments {
    #[command(flatten)]
    opening: Opening,
    /// The image's format
    #[arg(short = 'f', value_name = "FORMAT")]
    format: Option<String>,
    /// Cut data off
    #[arg(long)]
    shrink: bool,
    /// Say nothing
    #[arg(short = 'q')]
    quiet: bool,
    /// The image
    file: String,
    /// The new size, or how much more (+) or less (-)
    #[arg(allow_hyphen_values = true)]
    size: String,
}

/// Changes an image's size.
pub fn resize(a: &ResizeArguments) -> Outcome {
    let how = How { format: format(a.format.as_ref())?, ..How::default() };
    let mut image = a.opening.open(&a.file, &how)?;
    let now = image.len();
    let new = match a.size.split_at_checked(1) {
        Some(("+", more)) => now.checked_add(size(more)?).filter(|new| new >> 62 == 0),
        Some(("-", less)) => now.checked_sub(size(less)?).filter(|new| *new > 0),
        _ => Some(size(&a.size)?),
    };
    let Some(new) = new else { return Err(Failure::new("New image size must be positive")) };
    if new < now && !a.shrink {
        return Err(Failure::new("Use the --shrink option to perform a shrink operation."));
    }
    image.resize(new)?;
    image.flush()?;
    if !a.quiet {
        report::print("Image resized.\n");
    }
    Ok(0)
}

#[derive(Debug, clap::Args)]
pub struct RebaseArguments {
    #[command(flatten)]
    opening: Opening,
    /// The image's format
    #[arg(short = 'f', value_name = "FORMAT")]
    format: Option<String>,
    /// The new backing image; '' for none
    #[arg(short = 'b', value_name = "FILE")]
    backing: String,
    /// The new backing image's format
    #[arg(short = 'F', value_name = "FORMAT")]
    backing_format: Option<String>,
    /// Only the name changes: the contents are the same
    #[arg(short = 'u')]
    unsafe_rebase: bool,
    /// Show progress
    #[arg(short = 'p')]
    progress: bool,
    /// Say nothing
    #[arg(short = 'q')]
    quiet: bool,
    /// The cache
    #[arg(short = 't', value_name = "CACHE")]
    cache: Option<String>,
    /// The image
    file: String,
}

/// Gives an image another backing image.
pub fn rebase(a: &RebaseArguments) -> Outcome {
    let how = How {
        format: format(a.format.as_ref())?,
        cache: cache(a.cache.as_ref(), "writeback")?,
        no_backing: a.unsafe_rebase,
        ..How::default()
    };
    let backing_format = format(a.backing_format.as_ref())?;
    if !a.backing.is_empty() && backing_format.is_none() {
        return Err(Failure::new("the backing file's format is missing: -F FORMAT names it"));
    }
    let mut image = a.opening.open(&a.file, &how)?;
    if image.format() != Format::Qcow2 {
        return Err(Failure::new(format!("'{}' images have no backing files", image.format().name())));
    }
    if !a.unsafe_rebase {
        let mut new = match a.backing.as_str() {
            "" => None,
            name => {
                let path = crate::image::open::resolve(&a.file, name).map_err(Failure::new)?;
                let how = How { format: backing_format, read_only: true, ..How::default() };
                Some(a.opening.open(&path.display().to_string(), &how)?)
            }
        };
        keep_differences(image.as_mut(), &mut new, &mut Progress::new(a.progress && !a.quiet, u64::MAX))?;
        image.flush()?;
        if a.progress && !a.quiet {
            report::print("\n");
        }
    }
    let name = Some(a.backing.as_str()).filter(|name| !name.is_empty());
    let format_name = backing_format.filter(|_| name.is_some()).map(Format::name);
    image.rename_backing(name, format_name)?;
    Ok(0)
}

/// Writes into `image` what it has from its backing image and would have otherwise from `new`.
fn keep_differences(
    image: &mut dyn Layer,
    new: &mut Option<Box<dyn Layer>>,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let len = image.len();
    let (mut old, mut other) = (vec![0; STEP as usize], vec![0; STEP as usize]);
    let unit = image.cluster_size().max(512) as usize;
    let mut at = 0;
    while at < len {
        progress.at((u128::from(at) * u128::from(u64::MAX) / u128::from(len.max(1))) as u64);
        let extent = image.extent(at, len - at)?;
        if extent.kind != ExtentKind::Absent {
            at += extent.len;
            continue;
        }
        let n = extent.len.min(STEP) as usize;
        let (old, other) = (&mut old[..n], &mut other[..n]);
        image.read_at(at, old)?;
        match new {
            Some(new) => read_padded(new.as_mut(), at, other)?,
            None => other.fill(0),
        }
        for (i, (old, other)) in old.chunks(unit).zip(other.chunks(unit)).enumerate() {
            let offset = at + (i * unit) as u64;
            match old != other {
                true if is_zero(old) => image.write_zeroes(offset, old.len() as u64, true)?,
                true => image.write_at(offset, old)?,
                false => {}
            }
        }
        at += n as u64;
    }
    progress.at(u64::MAX);
    Ok(())
}

#[derive(Debug, clap::Args)]
pub struct CommitArguments {
    #[command(flatten)]
    opening: Opening,
    /// The image's format
    #[arg(short = 'f', value_name = "FORMAT")]
    format: Option<String>,
    /// The image is not emptied
    #[arg(short = 'd')]
    keep: bool,
    /// Show progress
    #[arg(short = 'p')]
    progress: bool,
    /// Say nothing
    #[arg(short = 'q')]
    quiet: bool,
    /// The cache
    #[arg(short = 't', value_name = "CACHE")]
    cache: Option<String>,
    /// The image
    file: String,
}

/// Writes what an image has on top of its backing image into that.
pub fn commit(a: &CommitArguments) -> Outcome {
    let cache = cache(a.cache.as_ref(), "writeback")?;
    // Once with what is below, by which the rules for that are applied.
    let how = How { format: format(a.format.as_ref())?, cache, ..How::default() };
    let mut image = a.opening.open(&a.file, &how)?;
    let Some((name, backing_format)) = image.names_backing() else {
        return Err(Failure::new("Image does not have a backing file"));
    };
    drop(image.take_backing());
    let path = crate::image::open::resolve(&a.file, &name).map_err(Failure::new)?;
    let below = How { format: backing_format, cache, ..How::default() };
    let mut base = a.opening.open(&path.display().to_string(), &below)?;
    let mut progress = Progress::new(a.progress && !a.quiet, image.len());
    copy_down(image.as_mut(), base.as_mut(), |done| progress.at(done))?;
    drop(base);
    if !a.keep {
        image.make_empty()?;
    }
    if a.progress && !a.quiet {
        progress.end();
    }
    if !a.quiet {
        report::print("Image committed.\n");
    }
    Ok(0)
}

#[derive(Debug, clap::Args)]
pub struct CompareArguments {
    #[command(flatten)]
    opening: Opening,
    /// The first image's format
    #[arg(short = 'f', value_name = "FORMAT")]
    format: Option<String>,
    /// The second image's format
    #[arg(short = 'F', value_name = "FORMAT")]
    second_format: Option<String>,
    /// Sizes count as well
    #[arg(short = 's')]
    strict: bool,
    /// Show progress
    #[arg(short = 'p')]
    progress: bool,
    /// Say nothing
    #[arg(short = 'q')]
    quiet: bool,
    /// The cache
    #[arg(short = 'T', value_name = "CACHE")]
    cache: Option<String>,
    /// The first image
    first: String,
    /// The second image
    second: String,
}

/// Compares: 0 if they hold the same, 1 if not, more if that cannot be told.
pub fn compare(a: &CompareArguments) -> Outcome {
    compare_images(a).map_err(|failure| failure.with_status(2))
}

fn compare_images(a: &CompareArguments) -> Outcome {
    let cache = cache(a.cache.as_ref(), "writeback")?;
    let how = |name: Option<&String>| {
        Ok::<_, Failure>(How { format: format(name)?, read_only: true, cache, ..How::default() })
    };
    let mut first = a.opening.open(&a.first, &how(a.format.as_ref())?)?;
    let mut second = a.opening.open(&a.second, &how(a.second_format.as_ref())?)?;
    let say = |text: &str| {
        if !a.quiet {
            report::print(text);
        }
    };
    let (len, longest) = (first.len().min(second.len()), first.len().max(second.len()));
    if a.strict && len != longest {
        say("Strict mode: Image size mismatch!\n");
        return Ok(1);
    }
    let mut progress = Progress::new(a.progress && !a.quiet, longest);
    let (mut one, mut other) = (vec![0; STEP as usize], vec![0; STEP as usize]);
    let mut at = 0;
    while at < longest {
        progress.at(at);
        let mut zeros = longest - at;
        let mut both_zero = true;
        for image in [&mut first, &mut second] {
            let len = image.len();
            if at < len {
                let (extent, _) = extent_in_chain(image.as_mut(), at, len - at)?;
                both_zero &= extent.kind.is_zeros();
                zeros = zeros.min(extent.len);
            }
        }
        if both_zero {
            at += zeros;
            continue;
        }
        let n = (longest - at).min(STEP) as usize;
        let (one, other) = (&mut one[..n], &mut other[..n]);
        read_padded(first.as_mut(), at, one)?;
        read_padded(second.as_mut(), at, other)?;
        if let Some(place) = one.iter().zip(other.iter()).position(|(a, b)| a != b) {
            let place = at + place as u64;
            // What one image has behind the other's end is zeros or a mismatch.
            say(&format!("Content mismatch at offset {}!\n", place - place % 512));
            return Ok(1);
        }
        at += n as u64;
    }
    if a.progress && !a.quiet {
        progress.end();
    }
    if len != longest {
        say("Warning: Image size mismatch!\n");
    }
    say("Images are identical.\n");
    Ok(0)
}
