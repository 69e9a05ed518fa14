//! What `-drive` says about the image and the way to it: format, cache, discards, backing files, errors, limits.

use super::error::StartError;
use super::value::{KeyValues, parse_size};
use crate::image::Format;
use crate::image::drive::{DetectZeroes, DriveOptions};
use crate::image::open::Cache;
use emu_devices::storage::block::{ErrorPolicy, OnError};
use emu_devices::storage::throttle::{Direction, Limit, Limits};
use std::time::Duration;

/// A drive's block layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockSpec {
    /// How the image is opened and used.
    pub image: DriveOptions,
    /// What errors do.
    pub errors: ErrorPolicy,
    /// How fast it may be.
    pub limits: Limits,
    /// The id of the passphrase of an encrypted image.
    pub secret: Option<String>,
}

/// Takes the block layer's keys from a drive's; `snapshot` and what is read-only are the caller's.
///
/// # Errors
/// A wrong value.
pub fn parse(v: &mut KeyValues, warnings: &mut Vec<String>) -> Result<BlockSpec, StartError> {
    let mut spec = BlockSpec::default();
    let open = &mut spec.image.open;
    open.format = take_format(v, "format")?;
    open.cache = match v.take("cache")? {
        None => Cache::default(),
        Some(name) => Cache::named(&name).ok_or_else(|| {
            v.error(format!("'cache={name}': expected none, writeback, unsafe, directsync, writethrough"))
        })?,
    };
    open.cache.direct = v.take_bool("cache.direct")?.unwrap_or(open.cache.direct);
    open.cache.no_flush = v.take_bool("cache.no-flush")?.unwrap_or(open.cache.no_flush);
    open.backing.file = v.take("backing.file.filename")?;
    open.backing.format = take_format(v, "backing.driver")?;
    open.backing.anywhere = match v.take("backing-files")?.as_deref() {
        None | Some("folder") => false,
        Some("any") => true,
        Some(other) => return Err(v.error(format!("'backing-files={other}': expected folder or any"))),
    };
    spec.image.discard = match v.take("discard")?.as_deref() {
        None | Some("ignore" | "off") => false,
        Some("unmap" | "on") => true,
        Some(other) => return Err(v.error(format!("'discard={other}': expected unmap or ignore"))),
    };
    spec.image.detect_zeroes = match v.take("detect-zeroes")?.as_deref() {
        None | Some("off") => DetectZeroes::Off,
        Some("on") => DetectZeroes::On,
        Some("unmap") if !spec.image.discard => {
            return Err(v.error("'detect-zeroes=unmap' needs discard=unmap"));
        }
        Some("unmap") => DetectZeroes::Unmap,
        Some(other) => return Err(v.error(format!("'detect-zeroes={other}': expected off, on or unmap"))),
    };
    match v.take("aio")?.as_deref() {
        None | Some("threads") => {}
        Some(other @ ("native" | "io_uring")) => {
            warnings.push(format!("-drive: aio={other} is not implemented; aio=threads is used"));
        }
        Some(other) => return Err(v.error(format!("'aio={other}': expected threads"))),
    }
    let action = |key: &str, text: Option<String>, default: OnError, v: &KeyValues| match text.as_deref() {
        None => Ok(default),
        Some("report") => Ok(OnError::Report),
        Some("ignore") => Ok(OnError::Ignore),
        Some("stop") => Ok(OnError::Stop),
        Some("enospc") if key == "werror" => Ok(OnError::Enospc),
        Some(other) => {
            let enospc = if key == "werror" { ", enospc" } else { "" };
            Err(v.error(format!("'{key}={other}': expected report, ignore, stop{enospc}")))
        }
    };
    if let Some(seconds) = v.take_number("reconnect-delay", 86_400)? {
        spec.image.open.reconnect = Duration::from_secs(seconds);
    }
    let key = v.take("encrypt.key-secret")?.or(v.take("key-secret")?);
    match v.take("encrypt.format")?.as_deref() {
        None | Some("luks") => spec.secret = key,
        Some(other) => return Err(v.error(format!("'encrypt.format={other}' is not implemented; implemented: luks"))),
    }
    let (write, read) = (v.take("werror")?, v.take("rerror")?);
    spec.errors.write = action("werror", write, OnError::Enospc, v)?;
    spec.errors.read = action("rerror", read, OnError::Report, v)?;
    spec.limits = parse_limits(v)?;
    Ok(spec)
}

/// The format that `key` names.
fn take_format(v: &mut KeyValues, key: &str) -> Result<Option<Format>, StartError> {
    let Some(name) = v.take(key)? else { return Ok(None) };
    match Format::named(&name) {
        Some(format) => Ok(Some(format)),
        None => Err(v.error(format!("'{key}={name}' is not implemented; implemented: {}", format_names()))),
    }
}

/// All formats, for messages.
pub fn format_names() -> String {
    Format::ALL.map(Format::name).join(", ")
}

/// `throttling.bps-total=` and so on; `bps=`, `bps_rd=`, `bps_max=` and so on are the same.
fn parse_limits(v: &mut KeyValues) -> Result<Limits, StartError> {
    let mut limits = Limits::default();
    for (unit, set) in [("bps", &mut limits.bytes), ("iops", &mut limits.operations)] {
        for (direction, limit) in Direction::ALL.into_iter().zip(set) {
            let (new, old) = match direction {
                Direction::Total => ("total", ""),
                Direction::Read => ("read", "_rd"),
                Direction::Write => ("write", "_wr"),
            };
            let mut take = |new_end: &str, old_end: &str, old_mid: &str| -> Result<Option<u64>, StartError> {
                let new = format!("throttling.{unit}-{new}{new_end}");
                let old = format!("{unit}{old_mid}{old}{old_end}");
                let (new_text, old_text) = (v.take(&new)?, v.take(&old)?);
                let Some(text) = new_text.or(old_text) else { return Ok(None) };
                let value = parse_size(&text, 1).ok_or_else(|| v.error(format!("'{new}={text}' is not a number")))?;
                Ok(Some(value))
            };
            let average = take("", "", "")?.unwrap_or(0);
            // The old keys are bps_max, bps_rd_max.
            let burst = take("-max", "_max", "")?.unwrap_or(0);
            let burst_length = take("-max-length", "_max_length", "")?.unwrap_or(1);
            *limit = Limit { average, burst, burst_length };
        }
    }
    let size = v.take("throttling.iops-size")?.or(v.take("iops_size")?);
    if let Some(text) = size {
        limits.operation_size =
            parse_size(&text, 1).ok_or_else(|| v.error(format!("'throttling.iops-size={text}' is not a size")))?;
    }
    match limits.problem() {
        None => Ok(limits),
        Some(problem) => Err(v.error(problem)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BlockSpec, String> {
        let mut v = KeyValues::parse("drive", text, "");
        let spec = parse(&mut v, &mut Vec::new()).map_err(|e| e.line())?;
        v.finish().map_err(|e| e.line())?;
        Ok(spec)
    }

    #[test]
    fn limits_are_read_by_new_and_old_names() {
        let new = read(
            "throttling.bps-total=1M,throttling.bps-total-max=2M,throttling.bps-total-max-length=5,throttling.iops-read=7,throttling.iops-size=4k",
        );
        let old = read("bps=1M,bps_max=2M,bps_max_length=5,iops_rd=7,iops_size=4k");
        let limits = new.as_ref().unwrap().limits;
        assert_eq!(limits.bytes[0], Limit { average: 1 << 20, burst: 2 << 20, burst_length: 5 });
        assert_eq!((limits.operations[1].average, limits.operation_size), (7, 4096));
        assert_eq!(new, old);
    }

    #[test]
    fn block_keys_are_read_and_wrong_ones_refused_in_one_line() {
        let spec = read("format=qcow2,cache=none,discard=unmap,detect-zeroes=unmap,werror=stop,rerror=ignore,backing.file.filename=/b,backing.driver=raw").unwrap();
        assert_eq!((spec.image.open.format, spec.image.open.cache.direct), (Some(Format::Qcow2), true));
        assert_eq!((spec.image.discard, spec.image.detect_zeroes), (true, DetectZeroes::Unmap));
        assert_eq!((spec.errors.write, spec.errors.read), (OnError::Stop, OnError::Ignore));
        assert_eq!(spec.image.open.backing.file.as_deref(), Some("/b"));
        for (text, part) in [
            ("format=qcow3", "'format=qcow3' is not implemented; implemented: raw, qcow2"),
            ("rerror=enospc", "expected report, ignore, stop"),
            ("detect-zeroes=unmap", "needs discard=unmap"),
            ("cache=some", "expected none, writeback"),
            ("iops=5,iops_rd=5", "cannot be used at the same time"),
            ("bps=x", "is not a number"),
            ("backing-files=all", "expected folder or any"),
        ] {
            let line = read(text).unwrap_err();
            assert!(line.contains(part), "{line}");
        }
    }
}
