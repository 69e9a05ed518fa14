//! What a terminal sends for a key, as the keys of a US keyboard that are down then.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use emu_devices::input::Key;

/// The keys to press together; `None` for what a PC keyboard cannot type.
pub fn keys(event: &KeyEvent) -> Option<Vec<Key>> {
    let mut modifiers = event.modifiers;
    let key = match event.code {
        KeyCode::Char(character) => {
            // A terminal tells Ctrl-\ to Ctrl-_ by the digits that send the same codes on a VT220.
            let character = match (modifiers.contains(KeyModifiers::CONTROL), character) {
                (true, '4') => '\\',
                (true, '5') => ']',
                (true, '7') => '-',
                _ => character,
            };
            let (key, shift) = typed(character)?;
            modifiers.set(KeyModifiers::SHIFT, shift);
            key
        }
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Enter => Key::Enter,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => {
            modifiers.insert(KeyModifiers::SHIFT);
            Key::Tab
        }
        KeyCode::Delete => Key::Delete,
        KeyCode::Insert => Key::Insert,
        KeyCode::Esc => Key::Escape,
        KeyCode::F(number @ 1..=12) => Key::from_name(&format!("f{number}"))?,
        _ => return None,
    };
    let held = [
        (KeyModifiers::SHIFT, Key::ShiftLeft),
        (KeyModifiers::CONTROL, Key::ControlLeft),
        (KeyModifiers::ALT, Key::AltLeft),
    ];
    let held = held.into_iter().filter(|(modifier, _)| modifiers.contains(*modifier)).map(|(_, key)| key);
    Some(held.chain([key]).collect())
}

/// The control character (1 to 26) that a key is.
pub fn control_code(event: &KeyEvent) -> Option<u8> {
    match event.code {
        KeyCode::Char(letter @ 'a'..='z') if event.modifiers.contains(KeyModifiers::CONTROL) => {
            Some(letter as u8 - b'a' + 1)
        }
        _ => None,
    }
}

/// The key that types `character` on a US keyboard, and whether with Shift.
fn typed(character: char) -> Option<(Key, bool)> {
    const SIGNS: &str = "`-=[]\\;',./";
    const SHIFTED: &str = "~_+{}|:\"<>?";
    const SIGN_KEYS: [Key; 11] = [
        Key::Grave,
        Key::Minus,
        Key::Equal,
        Key::BracketLeft,
        Key::BracketRight,
        Key::Backslash,
        Key::Semicolon,
        Key::Apostrophe,
        Key::Comma,
        Key::Dot,
        Key::Slash,
    ];
    if character.is_ascii_alphanumeric() {
        let name = character.to_ascii_lowercase().to_string();
        return Key::from_name(&name).map(|key| (key, character.is_ascii_uppercase()));
    }
    if character == ' ' {
        return Some((Key::Space, false));
    }
    if let Some(digit) = ")!@#$%^&*(".find(character) {
        return Key::from_name(&digit.to_string()).map(|key| (key, true));
    }
    if let Some(n) = SIGNS.find(character) {
        return Some((SIGN_KEYS[n], false));
    }
    SHIFTED.find(character).map(|n| (SIGN_KEYS[n], true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(code: KeyCode, modifiers: KeyModifiers) -> Option<String> {
        let keys = keys(&KeyEvent::new(code, modifiers))?;
        Some(keys.iter().map(|key| key.name()).collect::<Vec<_>>().join("-"))
    }

    #[test]
    fn characters_are_typed_on_a_us_keyboard() {
        let plain = KeyModifiers::NONE;
        assert_eq!(names(KeyCode::Char('a'), plain).as_deref(), Some("a"));
        assert_eq!(names(KeyCode::Char('A'), KeyModifiers::SHIFT).as_deref(), Some("shift-a"));
        assert_eq!(names(KeyCode::Char('&'), plain).as_deref(), Some("shift-7"));
        assert_eq!(names(KeyCode::Char('?'), plain).as_deref(), Some("shift-slash"));
        assert_eq!(names(KeyCode::Char('ä'), plain), None);
        assert!((' '..='~').all(|c| names(KeyCode::Char(c), plain).is_some()));
    }

    #[test]
    fn modifiers_and_function_keys_are_held_together() {
        assert_eq!(names(KeyCode::F(12), KeyModifiers::ALT).as_deref(), Some("alt-f12"));
        let both = KeyModifiers::CONTROL | KeyModifiers::ALT;
        assert_eq!(names(KeyCode::Char('c'), both).as_deref(), Some("ctrl-alt-c"));
        assert_eq!(names(KeyCode::BackTab, KeyModifiers::NONE).as_deref(), Some("shift-tab"));
        assert_eq!(names(KeyCode::Char('4'), KeyModifiers::CONTROL).as_deref(), Some("ctrl-backslash"));
        assert_eq!(control_code(&KeyEvent::new(KeyCode::Char('a'), KeyModifiers::CONTROL)), Some(1));
    }
}
