//! From a name to an image: its storage, its format, and what lies below it.
//!
//! Which other files an image may name is decided here. The image is data that a guest, or whoever made it, has
//! written; the file that it calls its backing image is opened only if it lies in the folder of the image that the user
//! named, or below, links followed, and is an ordinary file; or if the user names it, or allows others
//! ([`Backing`]). The same goes for the extents of VMDK images. A backing image whose format nobody has named is not asked for further files.

use crate::image::file::{FileMode, FileStorage};
use crate::image::layer::Layer;
use crate::image::qcow2::{Dirty, Qcow2};
use crate::image::raw::Raw;
use crate::image::storage::Storage;
use crate::image::{Format, luks, nbd, probe, vdi, vhdx, vmdk, vpc};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The most images on top of each other: more are a loop.
const DEEPEST: usize = 200;
/// Bytes that formats are recognised by.
const PROBE: usize = 2048;

/// What writes to an image are worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cache {
    /// They are durable when they return.
    pub writethrough: bool,
    /// The host's page cache is left out.
    pub direct: bool,
    /// Flushes do nothing.
    pub no_flush: bool,
}

impl Cache {
    /// By QEMU's name.
    pub fn named(name: &str) -> Option<Cache> {
        let (writethrough, direct, no_flush) = match name {
            "writeback" => (false, false, false),
            "writethrough" => (true, false, false),
            "none" | "off" => (false, true, false),
            "directsync" => (true, true, false),
            "unsafe" => (false, false, true),
            _ => return None,
        };
        Some(Cache { writethrough, direct, no_flush })
    }
}

/// Which backing image is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backing {
    /// This, instead of what the image says.
    pub file: Option<String>,
    /// Its format, instead of what the image says.
    pub format: Option<Format>,
    /// Whatever the image says.
    pub anywhere: bool,
    /// None: only the image itself.
    pub none: bool,
}

/// How an image is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// Its format; `None`: what it looks like.
    pub format: Option<Format>,
    /// No writes.
    pub read_only: bool,
    /// What writes are worth.
    pub cache: Cache,
    /// What lies below.
    pub backing: Backing,
    /// Though others write to it.
    pub unlocked: bool,
    /// Nothing of an encrypted image's data is wanted.
    pub for_info: bool,
    /// Damage is not repaired on opening, and does not prevent it.
    pub for_check: bool,
    /// The passphrase of encrypted images.
    pub secret: Option<Vec<u8>>,
    /// How long a broken connection to a server is tried anew.
    pub reconnect: Duration,
}

/// Where a file that an image names may be.
struct Rule<'a> {
    /// The folder of the image that the user named; `None`: anywhere.
    folder: Option<PathBuf>,
    options: &'a OpenOptions,
    depth: usize,
}

/// Opens the image called `name` and what lies below it.
///
/// # Errors
/// One line that does not name the image.
pub fn open(name: &str, options: &OpenOptions, warnings: &mut Vec<String>) -> Result<Box<dyn Layer>, String> {
    let storage = open_storage(name, options, options.read_only)?;
    let folder = match options.backing.anywhere {
        true => None,
        false => folder_of(name),
    };
    let rule = Rule { folder, options, depth: 0 };
    let (mut layer, named) = open_format(storage, options.format, options, name, warnings)?;
    let below = match (&options.backing, named) {
        (Backing { none: true, .. }, _) => None,
        (Backing { file: Some(file), format, .. }, named) => {
            let format = format.or(named.and_then(|(_, format)| format));
            Some(open_named_backing(file, format, options, warnings)?)
        }
        (_, Some((file, format))) => Some(open_backing(name, &file, format, &rule, warnings)?),
        (_, None) => None,
    };
    if below.is_some() {
        layer.set_backing(below).map_err(|e| e.to_string())?;
    }
    Ok(layer)
}

/// Opens what the user calls the backing image.
fn open_named_backing(
    file: &str,
    format: Option<Format>,
    options: &OpenOptions,
    warnings: &mut Vec<String>,
) -> Result<Box<dyn Layer>, String> {
    let below = OpenOptions {
        format,
        read_only: true,
        backing: Backing { anywhere: options.backing.anywhere, ..Backing::default() },
        for_check: false,
        ..options.clone()
    };
    open(file, &below, warnings).map_err(|e| format!("Could not open backing file: '{file}': {e}"))
}

/// Opens what the image called `above` calls its backing image.
fn open_backing(
    above: &str,
    file: &str,
    format: Option<Format>,
    rule: &Rule,
    warnings: &mut Vec<String>,
) -> Result<Box<dyn Layer>, String> {
    let wrong = |problem: String| format!("Could not open backing file: '{file}': {problem}");
    if rule.depth >= DEEPEST {
        return Err(wrong(format!("more than {DEEPEST} images on top of each other")));
    }
    let outside = "it is not in the folder of the image that names it; backing.file.filename=FILE names it, backing-files=any allows it";
    let path = resolve_within(above, file, rule.folder.as_deref(), outside).map_err(wrong)?;
    if !path.is_file() {
        return Err(wrong("it is not a file".into()));
    }
    let name = path.display().to_string();
    let options = OpenOptions { for_check: false, ..rule.options.clone() };
    let storage = open_storage(&name, &options, true).map_err(wrong)?;
    let (mut layer, named) = open_format(storage, format, &options, &name, warnings).map_err(wrong)?;
    if let Some((next, next_format)) = named {
        if format.is_none() {
            return Err(wrong(
                "it has a backing file itself, and its format is not named in the image above it".into(),
            ));
        }
        let deeper = Rule { folder: rule.folder.clone(), options: rule.options, depth: rule.depth + 1 };
        let below = open_backing(&name, &next, next_format, &deeper, warnings)?;
        layer.set_backing(Some(below)).map_err(|e| wrong(e.to_string()))?;
    }
    Ok(layer)
}

/// The path of `file` as the image called `above` names it.
///
/// # Errors
/// It is no file's name.
pub fn resolve(above: &str, file: &str) -> Result<PathBuf, String> {
    let file = file.strip_prefix("file:").unwrap_or(file);
    if is_url(file) || file.starts_with("json:") {
        return Err("an image may name files only".into());
    }
    let above = Path::new(above.strip_prefix("file:").unwrap_or(above));
    Ok(above.parent().unwrap_or(Path::new("")).join(file))
}

/// As [`resolve`], for what is there and has to be in `folder` or below, links followed.
///
/// # Errors
/// The host's, or `outside`.
fn resolve_within(above: &str, file: &str, folder: Option<&Path>, outside: &str) -> Result<PathBuf, String> {
    let path = resolve(above, file)?;
    let real = path.canonicalize().map_err(|e| e.to_string())?;
    match folder {
        Some(folder) if !real.starts_with(folder) => Err(outside.into()),
        _ => Ok(path),
    }
}

/// Whether a name begins with a protocol.
fn is_url(name: &str) -> bool {
    let colon = name.find(':').unwrap_or(usize::MAX);
    colon < name.find('/').unwrap_or(name.len())
}

fn folder_of(name: &str) -> Option<PathBuf> {
    let path = Path::new(name.strip_prefix("file:").unwrap_or(name));
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    // What the user named may be a link; both folders are the user's.
    let folder = real.parent().map(Path::to_owned).unwrap_or_default();
    let apparent = path.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
    let apparent = apparent.and_then(|p| p.canonicalize().ok());
    Some(apparent.filter(|apparent| folder.starts_with(apparent)).unwrap_or(folder))
}

/// Opens the bytes called `name`.
///
/// # Errors
/// One line that does not name them.
pub fn open_storage(name: &str, options: &OpenOptions, read_only: bool) -> Result<Box<dyn Storage>, String> {
    if nbd::is_url(name) {
        return Ok(Box::new(nbd::NbdStorage::open(name, read_only, options.reconnect)?));
    }
    let Cache { direct, no_flush, .. } = options.cache;
    let mode = FileMode { read_only, direct, no_flush, unlocked: options.unlocked };
    let path = name.strip_prefix("file:").unwrap_or(name);
    Ok(Box::new(FileStorage::open(Path::new(path), mode)?))
}

/// The backing image that an image names, and the format that it gives it.
type Named = Option<(String, Option<Format>)>;

fn open_format(
    mut storage: Box<dyn Storage>,
    format: Option<Format>,
    options: &OpenOptions,
    name: &str,
    warnings: &mut Vec<String>,
) -> Result<(Box<dyn Layer>, Named), String> {
    let format_or_guess = match format {
        Some(format) => format,
        None => {
            let mut head = vec![0; storage.len().min(PROBE as u64) as usize];
            storage.read_at(0, &mut head).map_err(|e| e.to_string())?;
            probe(&head)
        }
    };
    match format_or_guess {
        Format::Raw => {
            let guessed = format.is_none() && !storage.is_read_only();
            if guessed {
                warnings.push(format!(
                    "the image format of '{name}' was not specified and looks like raw; writes that would make it look like another are refused (format=raw allows them)"
                ));
            }
            Ok((Box::new(Raw::new(storage, guessed)), None))
        }
        Format::Vmdk => {
            let read_only = storage.is_read_only();
            let sibling = |file: &str| {
                let folder = if options.backing.anywhere { None } else { folder_of(name) };
                let outside = "it is not in the image's folder; backing-files=any allows it";
                let path = resolve_within(name, file, folder.as_deref(), outside)?;
                open_storage(&path.display().to_string(), options, read_only)
            };
            Ok((vmdk::open(storage, &sibling).map_err(|e| e.to_string())?, None))
        }
        Format::Vdi => Ok((Box::new(vdi::open(storage).map_err(|e| e.to_string())?), None)),
        Format::Luks => {
            let image = luks::Luks::open(storage, options.secret.as_deref()).map_err(|e| e.to_string())?;
            Ok((Box::new(image), None))
        }
        Format::Vhdx => Ok((Box::new(vhdx::open(storage).map_err(|e| e.to_string())?), None)),
        Format::Vpc => Ok((vpc::open(storage).map_err(|e| e.to_string())?, None)),
        Format::Qcow2 => {
            let dirty = if options.for_check { Dirty::Leave } else { Dirty::Repair };
            let mut image = Qcow2::open(storage, dirty).map_err(|e| e.to_string())?;
            if !options.for_info && !options.for_check {
                image.unlock(options.secret.as_deref()).map_err(|e| e.to_string())?;
            }
            let header = image.header();
            let named = match (&header.backing, &header.backing_format) {
                (Some(file), None) => Some((file.clone(), None)),
                (Some(file), Some(format)) => {
                    let known = Format::named(format).ok_or_else(|| format!("Unknown driver '{format}'"))?;
                    Some((file.clone(), Some(known)))
                }
                (None, _) => None,
            };
            Ok((Box::new(image), named))
        }
    }
}
