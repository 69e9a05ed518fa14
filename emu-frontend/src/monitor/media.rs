//! Monitor commands about drives and their media.

use super::arguments::Arguments;
use super::error;
use crate::image;
use crate::image::Format;
use crate::image::drive::DriveOptions;
use crate::image::open::OpenOptions;
use crate::remote::Remote;
use emu_devices::storage::block::Media;
use emu_devices::storage::throttle::{Limit, Limits};
use std::fmt::Write as _;

fn find<'a>(machine: &'a Remote, name: &str) -> Result<&'a Media, String> {
    let found = machine.media.iter().find(|media| media.info().name == name);
    found.ok_or_else(|| format!("Device '{name}' not found"))
}

fn answer(result: Result<(), String>) -> String {
    result.map_or_else(|problem| error(&problem), |()| String::new())
}

pub fn eject(machine: &Remote, arguments: &Arguments) -> String {
    answer(take_out(machine, arguments.text("device").unwrap_or_default(), arguments.flag("force")))
}

/// Takes the medium out of the drive called `name`.
///
/// # Errors
/// QEMU's words.
pub fn take_out(machine: &Remote, name: &str, force: bool) -> Result<(), String> {
    find(machine, name)?.eject(force).map_err(|e| e.to_string())
}

pub fn change(machine: &Remote, arguments: &Arguments) -> String {
    answer(insert(
        machine,
        arguments.text("device").unwrap_or_default(),
        &Medium {
            file: arguments.text("filename").unwrap_or_default(),
            format: arguments.text("format"),
            read_only_mode: arguments.text("read-only-mode"),
            force: arguments.flag("force"),
        },
    ))
}

/// What is to be put into a drive.
pub struct Medium<'t> {
    /// The image.
    pub file: &'t str,
    /// Its format; `None`: raw, unless it looks otherwise.
    pub format: Option<&'t str>,
    /// `retain`, `read-only` or `read-write`. What was read-only stays so, and an empty drive takes its first medium
    /// read-only, unless this says otherwise.
    pub read_only_mode: Option<&'t str>,
    /// Though the guest has locked the medium that is there.
    pub force: bool,
}

/// Puts a medium into the drive called `name`.
///
/// # Errors
/// QEMU's words.
pub fn insert(machine: &Remote, name: &str, medium: &Medium) -> Result<(), String> {
    let media = find(machine, name)?;
    let format = match medium.format {
        None => None,
        Some(name) => Some(Format::named(name).ok_or_else(|| format!("Unknown driver '{name}'"))?),
    };
    let info = media.info();
    let read_only = match medium.read_only_mode {
        None | Some("retain") => info.file.is_none() || info.read_only,
        Some("read-only") => true,
        Some("read-write") => false,
        Some(other) => return Err(format!("invalid parameter value: {other}")),
    };
    let open = OpenOptions { format, read_only, ..OpenOptions::default() };
    let options = DriveOptions { open, ..DriveOptions::default() };
    let image = image::medium::open(medium.file, &options, &mut Vec::new()).map_err(|problem| {
        format!("Could not open '{}': {}", medium.file, problem.split(" (os error").next().unwrap_or_default())
    })?;
    media.insert(medium.file, image, medium.force).map_err(|e| e.to_string())
}

/// Writes what the images of one drive, or of all, have into those below them.
pub fn commit(machine: &Remote, arguments: &Arguments) -> String {
    match arguments.text("device").unwrap_or_default() {
        "all" => {
            // Those with nothing below are no mistake.
            let results = machine.media.iter().map(|media| (media.info(), media.commit()));
            let failed = results.filter(|(info, result)| info.file.is_some() && result.as_ref().is_err_and(is_failure));
            failed.map(|(info, result)| error(&commit_error(&info.name, result))).collect()
        }
        name => answer(find(machine, name).and_then(|media| {
            let result = media.commit();
            if result.is_ok() { Ok(()) } else { Err(commit_error(name, result)) }
        })),
    }
}

fn is_failure(error: &std::io::Error) -> bool {
    error.to_string() != "the image has no backing file"
}

fn commit_error(name: &str, result: std::io::Result<()>) -> String {
    let problem = result.err().map(|e| e.to_string()).unwrap_or_default();
    format!("'commit' error for '{name}': {problem}")
}

/// Changes a drive's limits.
pub fn set_throttle(machine: &Remote, arguments: &Arguments) -> String {
    let values: Result<Vec<u64>, String> = ["bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"]
        .iter()
        .map(|name| {
            let text = arguments.text(name).unwrap_or_default();
            crate::cli::value::parse_size(text, 1).ok_or_else(|| format!("Parameter '{name}' expects a number"))
        })
        .collect();
    answer(values.and_then(|values| {
        let limit = |average| Limit { average, ..Limit::default() };
        let limits = Limits {
            bytes: [limit(values[0]), limit(values[1]), limit(values[2])],
            operations: [limit(values[3]), limit(values[4]), limit(values[5])],
            operation_size: 0,
        };
        let media = find(machine, arguments.text("device").unwrap_or_default())?;
        match limits.problem() {
            Some(problem) => Err(problem.into()),
            None => {
                media.set_limits(limits);
                Ok(())
            }
        }
    }))
}

/// The drives and what is in them.
pub fn info(machine: &Remote, arguments: &Arguments) -> String {
    let wanted = arguments.text("device");
    let mut text = String::new();
    let drives = machine.media.iter().map(Media::info).filter(|info| wanted.is_none_or(|name| name == info.name));
    for info in drives {
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = match &info.file {
            Some(file) => {
                let read_only = if info.read_only { ", read-only" } else { "" };
                writeln!(text, "{}: {file} ({}{read_only})", info.name, info.format)
            }
            None => writeln!(text, "{}: [not inserted]", info.name),
        };
        let limits = find(machine, &info.name).map(Media::limits).unwrap_or_default();
        if limits != Limits::default() {
            let ([bps, bps_rd, bps_wr], [iops, iops_rd, iops_wr]) =
                (limits.bytes.map(|l| l.average), limits.operations.map(|l| l.average));
            let _ = writeln!(
                text,
                "    I/O throttling:   bps={bps} bps_rd={bps_rd} bps_wr={bps_wr} iops={iops} iops_rd={iops_rd} iops_wr={iops_wr}"
            );
        }
        if info.removable {
            let lock = if info.locked { "locked" } else { "not locked" };
            let tray = if info.tray_open { "open" } else { "closed" };
            let _ = writeln!(text, "    Removable device: {lock}, tray {tray}");
        }
    }
    match wanted {
        Some(name) if text.is_empty() => error(&format!("Device '{name}' not found")),
        _ => text,
    }
}
