//! The keys of a 105-key PS/2 keyboard and their scan codes.
//!
//! Follows the IBM PS/2 Hardware Interface Technical Reference, "Keyboards (101- and 102-key)", Scan Code Sets 1 to 3.
//! Set 1 is not tabulated: it is what the 8042's translation makes of set 2. Deliberately absent: the shift codes that
//! sets 1 and 2 wrap around the navigation keys while Num Lock is on.

use serde::{Deserialize, Serialize};

macro_rules! keys {
    ($($key:ident $name:literal $set2:literal $set3:literal,)*) => {
        /// A key, named after what a US layout prints on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Key {
            $(
                #[doc = concat!("`", $name, "`")]
                $key,
            )*
        }

        impl Key {
            /// All keys.
            pub const ALL: &'static [Key] = &[$(Key::$key,)*];

            /// The name that QEMU's `sendkey` uses.
            pub fn name(self) -> &'static str {
                match self { $(Key::$key => $name,)* }
            }

            /// Code in set 2, with E0h in the high byte if it has that prefix.
            fn set2(self) -> u16 {
                match self { $(Key::$key => $set2,)* }
            }

            /// Code in set 3.
            pub fn set3(self) -> u8 {
                match self { $(Key::$key => $set3,)* }
            }
        }
    };
}

keys! {
    Escape "esc" 0x76 0x08,
    F1 "f1" 0x05 0x07,
    F2 "f2" 0x06 0x0f,
    F3 "f3" 0x04 0x17,
    F4 "f4" 0x0c 0x1f,
    F5 "f5" 0x03 0x27,
    F6 "f6" 0x0b 0x2f,
    F7 "f7" 0x83 0x37,
    F8 "f8" 0x0a 0x3f,
    F9 "f9" 0x01 0x47,
    F10 "f10" 0x09 0x4f,
    F11 "f11" 0x78 0x56,
    F12 "f12" 0x07 0x5e,
    PrintScreen "print" 0xe07c 0x57,
    ScrollLock "scroll_lock" 0x7e 0x5f,
    Pause "pause" 0xe177 0x62,
    Grave "grave_accent" 0x0e 0x0e,
    Digit1 "1" 0x16 0x16,
    Digit2 "2" 0x1e 0x1e,
    Digit3 "3" 0x26 0x26,
    Digit4 "4" 0x25 0x25,
    Digit5 "5" 0x2e 0x2e,
    Digit6 "6" 0x36 0x36,
    Digit7 "7" 0x3d 0x3d,
    Digit8 "8" 0x3e 0x3e,
    Digit9 "9" 0x46 0x46,
    Digit0 "0" 0x45 0x45,
    Minus "minus" 0x4e 0x4e,
    Equal "equal" 0x55 0x55,
    Backspace "backspace" 0x66 0x66,
    Tab "tab" 0x0d 0x0d,
    Q "q" 0x15 0x15,
    W "w" 0x1d 0x1d,
    E "e" 0x24 0x24,
    R "r" 0x2d 0x2d,
    T "t" 0x2c 0x2c,
    Y "y" 0x35 0x35,
    U "u" 0x3c 0x3c,
    I "i" 0x43 0x43,
    O "o" 0x44 0x44,
    P "p" 0x4d 0x4d,
    BracketLeft "bracket_left" 0x54 0x54,
    BracketRight "bracket_right" 0x5b 0x5b,
    Backslash "backslash" 0x5d 0x5c,
    CapsLock "caps_lock" 0x58 0x14,
    A "a" 0x1c 0x1c,
    S "s" 0x1b 0x1b,
    D "d" 0x23 0x23,
    F "f" 0x2b 0x2b,
    G "g" 0x34 0x34,
    H "h" 0x33 0x33,
    J "j" 0x3b 0x3b,
    K "k" 0x42 0x42,
    L "l" 0x4b 0x4b,
    Semicolon "semicolon" 0x4c 0x4c,
    Apostrophe "apostrophe" 0x52 0x52,
    Enter "ret" 0x5a 0x5a,
    ShiftLeft "shift" 0x12 0x12,
    Less "less" 0x61 0x13,
    Z "z" 0x1a 0x1a,
    X "x" 0x22 0x22,
    C "c" 0x21 0x21,
    V "v" 0x2a 0x2a,
    B "b" 0x32 0x32,
    N "n" 0x31 0x31,
    M "m" 0x3a 0x3a,
    Comma "comma" 0x41 0x41,
    Dot "dot" 0x49 0x49,
    Slash "slash" 0x4a 0x4a,
    ShiftRight "shift_r" 0x59 0x59,
    ControlLeft "ctrl" 0x14 0x11,
    MetaLeft "meta_l" 0xe01f 0x8b,
    AltLeft "alt" 0x11 0x19,
    Space "spc" 0x29 0x29,
    AltRight "alt_r" 0xe011 0x39,
    MetaRight "meta_r" 0xe027 0x8c,
    Menu "menu" 0xe02f 0x8d,
    ControlRight "ctrl_r" 0xe014 0x58,
    Insert "insert" 0xe070 0x67,
    Home "home" 0xe06c 0x6e,
    PageUp "pgup" 0xe07d 0x6f,
    Delete "delete" 0xe071 0x64,
    End "end" 0xe069 0x65,
    PageDown "pgdn" 0xe07a 0x6d,
    Up "up" 0xe075 0x63,
    Left "left" 0xe06b 0x61,
    Down "down" 0xe072 0x60,
    Right "right" 0xe074 0x6a,
    NumLock "num_lock" 0x77 0x76,
    KeypadDivide "kp_divide" 0xe04a 0x77,
    KeypadMultiply "kp_multiply" 0x7c 0x7e,
    KeypadSubtract "kp_subtract" 0x7b 0x84,
    KeypadAdd "kp_add" 0x79 0x7c,
    KeypadEnter "kp_enter" 0xe05a 0x79,
    KeypadDecimal "kp_decimal" 0x71 0x71,
    Keypad0 "kp_0" 0x70 0x70,
    Keypad1 "kp_1" 0x69 0x69,
    Keypad2 "kp_2" 0x72 0x72,
    Keypad3 "kp_3" 0x7a 0x7a,
    Keypad4 "kp_4" 0x6b 0x6b,
    Keypad5 "kp_5" 0x73 0x73,
    Keypad6 "kp_6" 0x74 0x74,
    Keypad7 "kp_7" 0x6c 0x6c,
    Keypad8 "kp_8" 0x75 0x75,
    Keypad9 "kp_9" 0x7d 0x7d,
    Power "power" 0xe037 0x00,
    Sleep "sleep" 0xe03f 0x00,
    Wake "wake" 0xe05e 0x00,
}

/// Prefix of a release in sets 2 and 3.
const BREAK: u8 = 0xf0;

impl Key {
    /// The key of that [`Key::name`].
    pub fn from_name(name: &str) -> Option<Key> {
        Key::ALL.iter().copied().find(|key| key.name() == name)
    }

    /// What the key sends in set 2 when it goes down or up. `alternate`: Print Screen with Alt, or Pause with Control.
    pub fn set2_sequence(self, pressed: bool, alternate: bool) -> Vec<u8> {
        match (self, alternate, pressed) {
            (Key::PrintScreen, false, true) => vec![0xe0, 0x12, 0xe0, 0x7c],
            (Key::PrintScreen, false, false) => vec![0xe0, BREAK, 0x7c, 0xe0, BREAK, 0x12],
            (Key::PrintScreen, true, true) => vec![0x84],
            (Key::PrintScreen, true, false) => vec![BREAK, 0x84],
            (Key::Pause, false, true) => vec![0xe1, 0x14, 0x77, 0xe1, BREAK, 0x14, BREAK, 0x77],
            (Key::Pause, true, true) => vec![0xe0, 0x7e, 0xe0, BREAK, 0x7e],
            // Pause sends its release along with its press.
            (Key::Pause, _, false) => Vec::new(),
            _ => {
                let [prefix, code] = self.set2().to_be_bytes();
                let bytes = [prefix, if pressed { 0 } else { BREAK }, code];
                bytes.into_iter().filter(|byte| *byte != 0).collect()
            }
        }
    }
}

/// The 8042's translation of set 2 to set 1 (IBM AT Technical Reference, "Keyboard Controller", scan code translation).
/// Codes from 80h up are passed on, but for F7 and Alt-Print Screen.
const SET_2_TO_1: [u8; 128] = [
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59, // 00
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b, // 10
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d, // 20
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f, // 30
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61, // 40
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, // 50
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, // 60
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54, // 70
];

/// Translates a stream of set 2 to set 1, byte by byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Translator {
    released: bool,
}

impl Translator {
    /// What a byte of set 2 becomes; `None` if it only prefixes the next one.
    pub fn translate(&mut self, byte: u8) -> Option<u8> {
        if byte == BREAK {
            self.released = true;
            return None;
        }
        let code = match byte {
            0x83 => 0x41,
            0x84 => 0x54,
            0x80.. => byte,
            _ => SET_2_TO_1[usize::from(byte)],
        };
        Some(if std::mem::take(&mut self.released) { code | 0x80 } else { code })
    }

    /// A whole sequence.
    pub fn translate_all(bytes: &[u8]) -> Vec<u8> {
        let mut translator = Translator::default();
        bytes.iter().filter_map(|byte| translator.translate(*byte)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn set1(key: Key, pressed: bool) -> Vec<u8> {
        Translator::translate_all(&key.set2_sequence(pressed, false))
    }

    #[test]
    fn keys_known_codes_in_set_1() {
        assert_eq!(set1(Key::Escape, true), [0x01]);
        assert_eq!(set1(Key::A, false), [0x9e]);
        assert_eq!(set1(Key::F7, true), [0x41]);
        assert_eq!(set1(Key::F7, false), [0xc1]);
        assert_eq!(set1(Key::Up, false), [0xe0, 0xc8]);
        assert_eq!(set1(Key::Less, true), [0x56]);
        assert_eq!(set1(Key::MetaLeft, true), [0xe0, 0x5b]);
        assert_eq!(set1(Key::PrintScreen, true), [0xe0, 0x2a, 0xe0, 0x37]);
        assert_eq!(set1(Key::PrintScreen, false), [0xe0, 0xb7, 0xe0, 0xaa]);
        assert_eq!(set1(Key::Pause, true), [0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5]);
        assert_eq!(Translator::translate_all(&Key::PrintScreen.set2_sequence(true, true)), [0x54]);
        assert_eq!(Translator::translate_all(&Key::Pause.set2_sequence(true, true)), [0xe0, 0x46, 0xe0, 0xc6]);
    }

    #[test]
    fn keys_rows_of_a_keyboard_are_consecutive_in_set_1() {
        let rows: [(u8, &str); 4] = [
            (0x02, "1 2 3 4 5 6 7 8 9 0 minus equal"),
            (0x10, "q w e r t y u i o p"),
            (0x1e, "a s d f g h j k l"),
            (0x2c, "z x c v b n m comma dot slash"),
        ];
        for (first, names) in rows {
            for (i, name) in names.split(' ').enumerate() {
                assert_eq!(set1(Key::from_name(name).unwrap(), true), [first + i as u8], "{name}");
            }
        }
    }

    #[test]
    fn keys_codes_and_names_are_unique() {
        let names: BTreeSet<_> = Key::ALL.iter().map(|k| k.name()).collect();
        let set2: BTreeSet<_> = Key::ALL.iter().map(|k| k.set2_sequence(true, false)).collect();
        let set3: BTreeSet<_> = Key::ALL.iter().map(|k| k.set3()).filter(|c| *c != 0).collect();
        assert_eq!((names.len(), set2.len(), set3.len()), (Key::ALL.len(), Key::ALL.len(), Key::ALL.len() - 3));
    }
}
