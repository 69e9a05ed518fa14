//! Monitor commands about drives and their media.

use super::arguments::Arguments;
use super::error;
use crate::remote::Remote;
use emu_devices::storage::block::Media;
use std::fmt::Write as _;

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
