//! The host's physical keys as keys of a PC keyboard: by place, whatever the host's layout prints on them.

use crate::display::typist::key_of_scan_code;
use emu_devices::input::Key;

/// The PC key in the place of the key that Linux numbers `code` (linux/input-event-codes.h); `None` for keys that a
/// 105-key keyboard has not.
pub fn from_linux(code: u32) -> Option<Key> {
    Some(match code {
        // Linux has numbered the keys of the first PC keyboards by what they send.
        1..=88 => return key_of_scan_code(code as u8),
        96 => Key::KeypadEnter,
        97 => Key::ControlRight,
        98 => Key::KeypadDivide,
        99 => Key::PrintScreen,
        100 => Key::AltRight,
        102 => Key::Home,
        103 => Key::Up,
        104 => Key::PageUp,
        105 => Key::Left,
        106 => Key::Right,
        107 => Key::End,
        108 => Key::Down,
        109 => Key::PageDown,
        110 => Key::Insert,
        111 => Key::Delete,
        116 => Key::Power,
        119 => Key::Pause,
        125 => Key::MetaLeft,
        126 => Key::MetaRight,
        127 => Key::Menu,
        142 => Key::Sleep,
        143 => Key::Wake,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_key_has_one_place() {
        let keys: Vec<Key> = (0..1000).filter_map(from_linux).collect();
        assert_eq!(keys.iter().copied().collect::<BTreeSet<_>>(), Key::ALL.iter().copied().collect());
        assert_eq!(keys.len(), Key::ALL.len());
        assert_eq!(from_linux(30), Some(Key::A));
        assert_eq!(from_linux(86), Some(Key::Less));
    }
}
