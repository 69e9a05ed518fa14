//! Monitor commands that act as the user at keyboard, mouse and screen.

use super::arguments::Arguments;
use super::{error, reason};
use crate::display::picture::{self, PictureFormat};
use crate::display::typist::{self, DEFAULT_HOLD};
use crate::remote::Remote;
use emu_devices::input::{Button, InputEvent};
use std::path::Path;
use std::time::Duration;

pub fn send_key(machine: &Remote, arguments: &Arguments) -> String {
    let keys = match typist::parse_combination(arguments.text("keys").unwrap_or_default()) {
        Ok(keys) => keys,
        Err(wrong) => return format!("invalid parameter: {wrong}\n"),
    };
    // A negative time is none, as in QEMU's own arithmetic.
    let hold = arguments.number("hold_ms").map(|ms| Duration::from_millis(ms.clamp(0, 60_000) as u64));
    machine.typist.stroke(keys, hold.unwrap_or(DEFAULT_HOLD));
    String::new()
}

pub fn mouse_move(machine: &Remote, arguments: &Arguments) -> String {
    // Words that are no numbers count as 0, as in QEMU.
    let number = |name| arguments.text(name).and_then(|text| text.parse::<i32>().ok()).unwrap_or(0);
    let (dx, dy, dz) = (number("dx"), number("dy"), number("dz"));
    machine.input.send(InputEvent::Motion { dx, dy });
    if dz != 0 {
        machine.input.send(InputEvent::Wheel(dz.saturating_neg()));
    }
    String::new()
}

pub fn mouse_button(machine: &Remote, arguments: &Arguments) -> String {
    let wanted = arguments.number("state").unwrap_or(0) as u32;
    let before = machine.buttons.swap(wanted, std::sync::atomic::Ordering::Relaxed);
    for (bit, button) in [(1, Button::Left), (2, Button::Middle), (4, Button::Right)] {
        if (before ^ wanted) & bit != 0 {
            machine.input.send(InputEvent::Button { button, pressed: wanted & bit != 0 });
        }
    }
    String::new()
}

/// There is one mouse, and it has the number that `info mice` shows.
pub fn mouse_set(_: &Remote, arguments: &Arguments) -> String {
    match arguments.number("index") {
        Some(0) => String::new(),
        index => format!("Mouse at index '{}' not found\n", index.unwrap_or(0)),
    }
}

pub fn screendump(machine: &Remote, arguments: &Arguments) -> String {
    let path = Path::new(arguments.text("filename").unwrap_or_default());
    let format = match arguments.text("format") {
        None => PictureFormat::of(path),
        Some(name) => match PictureFormat::from_name(name) {
            Some(format) => format,
            None => return error(&format!("invalid parameter value: {name}")),
        },
    };
    let Some(frame) = machine.picture() else {
        return error("There is no console to take a screendump from");
    };
    match picture::save(&frame, path, format) {
        Ok(()) => String::new(),
        Err(e) => error(&format!("failed to open file '{}': {}", path.display(), reason(&e))),
    }
}
