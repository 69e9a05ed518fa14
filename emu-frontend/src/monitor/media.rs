//! Monitor commands about drives and their media.

use super::arguments::Arguments;
use super::error;
use crate::image;
use crate::remote::Remote;
use emu_devices::storage::block::Media;
use std::fmt::Write as _;
use std::path::Path;

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
    let raw = match medium.format {
        None => false,
        Some("raw") => true,
        Some(other) => return Err(format!("Unknown driver '{other}'")),
    };
    let info = media.info();
    let read_only = match medium.read_only_mode {
        None | Some("retain") => info.file.is_none() || info.read_only,
        Some("read-only") => true,
        Some("read-write") => false,
        Some(other) => return Err(format!("invalid parameter value: {other}")),
    };
    let mode = image::Mode { read_only, raw, ..image::Mode::default() };
    let image = image::open(Path::new(medium.file), mode).map_err(|problem| {
        format!("Could not open '{}': {}", medium.file, problem.split(" (os error").next().unwrap_or_default())
    })?;
    media.insert(medium.file, image, medium.force).map_err(|e| e.to_string())
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
                writeln!(text, "{}: {file} (raw{})", info.name, if info.read_only { ", read-only" } else { "" })
            }
            None => writeln!(text, "{}: [not inserted]", info.name),
        };
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
