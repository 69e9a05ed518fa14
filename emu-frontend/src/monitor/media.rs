//! Monitor commands about drives and their media.

use super::arguments::Arguments;
use super::error;
use crate::image;
use crate::remote::Remote;
use emu_devices::storage::block::Media;
use std::fmt::Write as _;
use std::path::Path;

fn find<'a>(machine: &'a Remote, arguments: &Arguments) -> Result<&'a Media, String> {
    let name = arguments.text("device").unwrap_or_default();
    let found = machine.media.iter().find(|media| media.info().name == name);
    found.ok_or_else(|| error(&format!("Device '{name}' not found")))
}

pub fn eject(machine: &Remote, arguments: &Arguments) -> String {
    match find(machine, arguments).map(|media| media.eject(arguments.flag("force"))) {
        Ok(Ok(())) => String::new(),
        Ok(Err(e)) => error(&e.to_string()),
        Err(answer) => answer,
    }
}

/// Puts a raw image into a drive. What was read-only stays so, and an empty drive takes its first medium read-only,
/// unless the line says otherwise.
pub fn change(machine: &Remote, arguments: &Arguments) -> String {
    let media = match find(machine, arguments) {
        Ok(media) => media,
        Err(answer) => return answer,
    };
    let name = arguments.text("filename").unwrap_or_default();
    let raw = match arguments.text("format") {
        None => false,
        Some("raw") => true,
        Some(other) => return error(&format!("Unknown driver '{other}'")),
    };
    let info = media.info();
    let read_only = match arguments.text("read-only-mode") {
        None | Some("retain") => info.file.is_none() || info.read_only,
        Some("read-only") => true,
        Some("read-write") => false,
        Some(other) => return error(&format!("invalid parameter value: {other}")),
    };
    match image::open(Path::new(name), image::Mode { read_only, raw, ..image::Mode::default() }) {
        Ok(image) => media
            .insert(name, image, arguments.flag("force"))
            .map_or_else(|e| error(&e.to_string()), |()| String::new()),
        Err(problem) => {
            error(&format!("Could not open '{name}': {}", problem.split(" (os error").next().unwrap_or_default()))
        }
    }
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
