//! Typing for the user: key names as `sendkey` takes them, and keys that are held for some time.

use emu_devices::input::{InputEvent, InputQueue, Key};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// The time for which `sendkey` holds keys unless told otherwise.
pub const DEFAULT_HOLD: Duration = Duration::from_millis(100);
/// Keys of one combination at most, as in QEMU.
const MOST_KEYS: usize = 16;

/// Combinations that wait to be typed at most; further ones are lost, as on a keyboard whose buffer is full.
const WAITING: usize = 4096;
/// How long a guest may leave keys unread before the next ones are typed all the same.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between looks whether it has read them.
const LOOK: Duration = Duration::from_millis(2);

/// Names that QEMU knows besides [`Key::name`].
const ALIASES: &[(&str, Key)] = &[
    ("kp_comma", Key::KeypadDecimal),
    ("asterisk", Key::KeypadMultiply),
    ("sysrq", Key::PrintScreen),
    ("compose", Key::Menu),
];

/// The key of a name, or of a set 1 scan code `0x01` to `0xff`, with bit 7 for an E0 prefix.
pub fn parse_key(name: &str) -> Option<Key> {
    if let Some(code) = name.strip_prefix("0x").and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
        return key_of_scan_code(code);
    }
    Key::from_name(name).or_else(|| ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, key)| *key))
}

/// The key with that scan code in set 1, with bit 7 for an E0 prefix.
pub fn key_of_scan_code(code: u8) -> Option<Key> {
    Key::ALL.iter().copied().find(|key| qemu_number(*key) == Some(code))
}

/// A key's scan code in set 1, with bit 7 for an E0 prefix.
fn qemu_number(key: Key) -> Option<u8> {
    match emu_devices::input::keys::Translator::translate_all(&key.set2_sequence(true, false)).as_slice() {
        [code] => Some(*code),
        [0xe0, code] => Some(code | 0x80),
        _ => None,
    }
}

/// The keys of a combination such as `ctrl-alt-delete`, or the part of it that is no key.
pub fn parse_combination(text: &str) -> Result<Vec<Key>, String> {
    let mut keys = Vec::new();
    for name in text.split('-') {
        // QEMU's old notation for the one key whose name is a sign.
        let name = if name == "<" { "less" } else { name };
        keys.push(parse_key(name).ok_or_else(|| name.to_string())?);
    }
    if keys.len() > MOST_KEYS { Err(text.to_string()) } else { Ok(keys) }
}

/// Sends events, or says that no machine takes them by dropping them.
pub fn press(input: &InputQueue, key: Key, pressed: bool) {
    // A full queue belongs to a guest that does not listen.
    let _ = input.send(InputEvent::Key { key, pressed });
}

/// Presses keys, holds them, and releases them in the opposite order, one combination after the other. A guest that is
/// slow to read them is waited for: a keyboard holds 16 codes, which is little on a busy host. The thread that does it
/// starts with the first one.
pub struct Typist {
    input: InputQueue,
    strokes: std::sync::Mutex<Option<SyncSender<Stroke>>>,
}

struct Stroke {
    keys: Vec<Key>,
    hold: Duration,
}

impl Typist {
    /// A typist at `input`.
    pub fn new(input: InputQueue) -> Typist {
        Typist { input, strokes: std::sync::Mutex::default() }
    }

    /// Presses `keys` when all earlier ones are released; does not wait for that.
    pub fn stroke(&self, keys: Vec<Key>, hold: Duration) {
        let mut strokes = self.strokes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let sender = strokes.get_or_insert_with(|| start(self.input.clone()));
        // Without a thread there is nobody to type.
        let _ = sender.try_send(Stroke { keys, hold });
    }
}

fn start(input: InputQueue) -> SyncSender<Stroke> {
    let (sender, receiver) = sync_channel::<Stroke>(WAITING);
    let body = move || {
        for stroke in receiver {
            wait_for_guest(&input);
            stroke.keys.iter().for_each(|key| press(&input, *key, true));
            std::thread::sleep(stroke.hold);
            stroke.keys.iter().rev().for_each(|key| press(&input, *key, false));
        }
    };
    // A host without threads cannot type; the guest goes on.
    let _ = std::thread::Builder::new().name("typist".into()).spawn(body);
    sender
}

fn wait_for_guest(input: &InputQueue) {
    let deadline = Instant::now() + PATIENCE;
    while !input.is_read() && Instant::now() < deadline {
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations_are_split_and_wrong_names_are_told() {
        assert_eq!(parse_combination("ctrl-alt-f1"), Ok(vec![Key::ControlLeft, Key::AltLeft, Key::F1]));
        assert_eq!(parse_combination("shift-<"), Ok(vec![Key::ShiftLeft, Key::Less]));
        assert_eq!(parse_combination("ctrl-foo"), Err("foo".into()));
        assert_eq!(parse_combination(""), Err(String::new()));
    }

    #[test]
    fn scan_codes_name_keys() {
        assert_eq!(parse_key("0x1e"), Some(Key::A));
        assert_eq!(parse_key("0xd3"), Some(Key::Delete));
        assert_eq!(parse_key("0x00"), None);
    }
}
