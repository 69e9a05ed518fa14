//! A PS/2 keyboard: the device at the far end of the cable to the 8042.
//!
//! Follows the IBM PS/2 Hardware Interface Technical Reference, "Keyboards (101- and 102-key)": commands, three scan
//! code sets, typematic repeat. Deliberately absent: the time that a byte takes on the cable (the controller's affair)
//! and that of the self-test.

use super::{Key, Leds, keys::Translator};
use emu_core::clock::Instant;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Bytes of scan codes that the keyboard keeps for a busy host.
const BUFFER: usize = 16;

const ACK: u8 = 0xfa;
const RESEND: u8 = 0xfe;
const SELF_TEST_PASSED: u8 = 0xaa;
const ECHO: u8 = 0xee;
const ID: [u8; 2] = [0xab, 0x83];
const BREAK: u8 = 0xf0;

/// Power-on typematic rate: 500 ms, then 10.9 characters a second.
const DEFAULT_RATE: u8 = 0x2b;

/// A byte from the host that is not an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    SetLeds,
    Echo,
    SelectScanCodeSet,
    ReadId,
    SetRate,
    Enable,
    DefaultDisable,
    SetDefault,
    SetAllKeys(KeyType),
    SetKeys(KeyType),
    Resend,
    Reset,
    Invalid,
}

impl Command {
    fn decode(byte: u8) -> Command {
        match byte {
            0xed => Command::SetLeds,
            0xee => Command::Echo,
            0xf0 => Command::SelectScanCodeSet,
            0xf2 => Command::ReadId,
            0xf3 => Command::SetRate,
            0xf4 => Command::Enable,
            0xf5 => Command::DefaultDisable,
            0xf6 => Command::SetDefault,
            0xf7 => Command::SetAllKeys(KeyType::TYPEMATIC),
            0xf8 => Command::SetAllKeys(KeyType::MAKE_BREAK),
            0xf9 => Command::SetAllKeys(KeyType::MAKE),
            0xfa => Command::SetAllKeys(KeyType::TYPEMATIC_MAKE_BREAK),
            0xfb => Command::SetKeys(KeyType::TYPEMATIC),
            0xfc => Command::SetKeys(KeyType::MAKE_BREAK),
            0xfd => Command::SetKeys(KeyType::MAKE),
            0xfe => Command::Resend,
            0xff => Command::Reset,
            _ => Command::Invalid,
        }
    }
}

/// What a key of set 3 sends besides its make code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyType {
    /// It repeats.
    repeats: bool,
    /// It tells of its release.
    breaks: bool,
}

impl KeyType {
    const MAKE: KeyType = KeyType { repeats: false, breaks: false };
    const MAKE_BREAK: KeyType = KeyType { repeats: false, breaks: true };
    const TYPEMATIC: KeyType = KeyType { repeats: true, breaks: false };
    const TYPEMATIC_MAKE_BREAK: KeyType = KeyType { repeats: true, breaks: true };
}

/// The command whose argument the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Argument {
    /// Set/Reset Status Indicators.
    Leds,
    /// Select Alternate Scan Codes.
    ScanCodeSet,
    /// Set Typematic Rate/Delay.
    Rate,
    /// Set Key Type; further codes follow.
    Keys(KeyType),
}

/// All state of the keyboard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyboardState {
    /// Keys are scanned.
    pub scanning: bool,
    /// Scan code set, 1 to 3.
    pub set: u8,
    /// Lights: bit 0 scroll, 1 num, 2 caps.
    pub leds: u8,
    /// Typematic rate and delay as set by command F3h.
    pub rate: u8,
    /// Set 3: key types by code.
    pub key_types: Vec<KeyType>,
    /// An argument is expected.
    pub argument: Option<Argument>,
    /// Answers to commands, ahead of scan codes.
    pub answers: VecDeque<u8>,
    /// Scan codes.
    pub codes: VecDeque<u8>,
    /// Keys that are down.
    pub held: Vec<Key>,
    /// Print Screen went down with Alt, or Pause with Control.
    pub alternate: bool,
    /// The key that repeats, and when.
    pub repeat: Option<(Key, Instant)>,
    /// The byte sent last, for Resend.
    pub last: u8,
}

impl Default for KeyboardState {
    fn default() -> KeyboardState {
        KeyboardState {
            scanning: true,
            set: 2,
            leds: 0,
            rate: DEFAULT_RATE,
            key_types: default_key_types(),
            argument: None,
            answers: VecDeque::new(),
            codes: VecDeque::new(),
            held: Vec::new(),
            alternate: false,
            repeat: None,
            last: 0,
        }
    }
}

/// Set 3's types at power-on: modifiers make and break, locks and function keys make only, others repeat.
fn default_key_types() -> Vec<KeyType> {
    let mut types = vec![KeyType::TYPEMATIC; 256];
    for key in Key::ALL {
        let kind = match key {
            Key::ShiftLeft | Key::ShiftRight | Key::ControlLeft | Key::AltLeft | Key::CapsLock => KeyType::MAKE_BREAK,
            Key::Escape | Key::PrintScreen | Key::ScrollLock | Key::Pause | Key::NumLock => KeyType::MAKE,
            Key::ControlRight | Key::AltRight | Key::Insert | Key::Home | Key::End => KeyType::MAKE,
            Key::PageUp | Key::PageDown | Key::KeypadEnter => KeyType::MAKE,
            key if (Key::F1..=Key::F12).contains(key) => KeyType::MAKE,
            _ => continue,
        };
        types[usize::from(key.set3())] = kind;
    }
    types
}

/// The keyboard.
#[derive(Clone, Debug, Default)]
pub struct Ps2Keyboard {
    state: KeyboardState,
}

impl Ps2Keyboard {
    /// Its state.
    pub fn state(&self) -> &KeyboardState {
        &self.state
    }

    /// Replaces its state.
    pub fn set_state(&mut self, mut state: KeyboardState) {
        state.key_types.resize(256, KeyType::TYPEMATIC);
        state.answers.truncate(BUFFER);
        state.codes.truncate(BUFFER);
        state.held.truncate(Key::ALL.len());
        state.set = state.set.clamp(1, 3);
        self.state = state;
    }

    /// Power-on.
    pub fn reset(&mut self) {
        let held = std::mem::take(&mut self.state.held);
        self.state = KeyboardState { held, ..KeyboardState::default() };
    }

    /// The lights.
    pub fn leds(&self) -> Leds {
        let on = |bit: u8| self.state.leds & 1 << bit != 0;
        Leds { scroll_lock: on(0), num_lock: on(1), caps_lock: on(2) }
    }

    /// Whether a byte waits for the host.
    pub fn has_byte(&self) -> bool {
        !self.state.answers.is_empty() || !self.state.codes.is_empty()
    }

    /// The next byte for the host.
    pub fn next_byte(&mut self) -> Option<u8> {
        let s = &mut self.state;
        let byte = s.answers.pop_front().or_else(|| s.codes.pop_front())?;
        if byte != RESEND {
            s.last = byte;
        }
        Some(byte)
    }

    /// A byte from the host.
    pub fn write(&mut self, byte: u8) {
        // A new command drops the answers to the one before.
        self.state.answers.clear();
        match self.state.argument.take() {
            // "If a command is received instead of the option byte, it is processed."
            Some(argument) if byte < 0x80 || matches!(argument, Argument::Keys(_)) && byte < 0xed => {
                self.argument(argument, byte);
            }
            _ => self.command(Command::decode(byte)),
        }
    }

    fn argument(&mut self, argument: Argument, byte: u8) {
        let s = &mut self.state;
        s.answers.push_back(ACK);
        match argument {
            Argument::Leds => s.leds = byte & 7,
            Argument::Rate => s.rate = byte & 0x7f,
            Argument::ScanCodeSet => match byte {
                0 => s.answers.push_back(s.set),
                1..=3 => {
                    s.set = byte;
                    s.codes.clear();
                }
                _ => s.answers[0] = RESEND,
            },
            Argument::Keys(kind) => {
                s.key_types[usize::from(byte)] = kind;
                s.argument = Some(argument);
            }
        }
    }

    fn command(&mut self, command: Command) {
        let s = &mut self.state;
        let mut answer = |bytes: &[u8]| s.answers.extend(bytes);
        match command {
            Command::Echo => answer(&[ECHO]),
            Command::Invalid => answer(&[RESEND]),
            Command::Resend => {
                let last = s.last;
                s.answers.push_back(last);
            }
            Command::ReadId => answer(&[&[ACK][..], &ID].concat()),
            Command::Reset => {
                answer(&[ACK, SELF_TEST_PASSED]);
                let answers = std::mem::take(&mut s.answers);
                self.reset();
                self.state.answers = answers;
            }
            _ => answer(&[ACK]),
        }
        let s = &mut self.state;
        match command {
            Command::SetLeds => s.argument = Some(Argument::Leds),
            Command::SelectScanCodeSet => s.argument = Some(Argument::ScanCodeSet),
            Command::SetRate => s.argument = Some(Argument::Rate),
            Command::SetKeys(kind) => {
                s.argument = Some(Argument::Keys(kind));
                s.codes.clear();
            }
            Command::Enable => {
                s.scanning = true;
                s.codes.clear();
            }
            Command::DefaultDisable => self.set_default(false),
            Command::SetDefault => self.set_default(true),
            Command::SetAllKeys(kind) => {
                s.key_types.fill(kind);
                s.codes.clear();
            }
            Command::Echo | Command::ReadId | Command::Resend | Command::Reset | Command::Invalid => {}
        }
    }

    fn set_default(&mut self, scanning: bool) {
        let s = &mut self.state;
        s.scanning = scanning;
        s.rate = DEFAULT_RATE;
        s.set = 2;
        s.key_types = default_key_types();
        s.codes.clear();
        s.repeat = None;
    }

    /// A key goes down or up.
    pub fn key(&mut self, key: Key, pressed: bool, now: Instant) {
        let s = &mut self.state;
        let was = s.held.contains(&key);
        if pressed == was {
            return;
        }
        if pressed {
            let held = |keys: [Key; 2]| keys.iter().any(|k| s.held.contains(k));
            match key {
                Key::PrintScreen => s.alternate = held([Key::AltLeft, Key::AltRight]),
                Key::Pause => s.alternate = held([Key::ControlLeft, Key::ControlRight]),
                _ => {}
            }
            s.held.push(key);
        } else {
            s.held.retain(|k| *k != key);
        }
        if !s.scanning {
            return;
        }
        if pressed {
            let repeats = key != Key::Pause && (s.set != 3 || self.key_type(key).repeats);
            self.state.repeat = repeats.then(|| (key, now.plus_nanos(self.delay())));
        } else if s.repeat.is_some_and(|(repeating, _)| repeating == key) {
            s.repeat = None;
        }
        self.send(key, pressed);
    }

    fn key_type(&self, key: Key) -> KeyType {
        self.state.key_types[usize::from(key.set3())]
    }

    /// Nanoseconds before the first repeat.
    fn delay(&self) -> u64 {
        (u64::from(self.state.rate >> 5 & 3) + 1) * 250_000_000
    }

    /// Nanoseconds between repeats: (8 + A) * 2^B / 240 seconds.
    fn period(&self) -> u64 {
        let (a, b) = (u64::from(self.state.rate & 7), self.state.rate >> 3 & 3);
        ((8 + a) << b) * 1_000_000_000 / 240
    }

    fn send(&mut self, key: Key, pressed: bool) {
        let s = &mut self.state;
        let sequence = match s.set {
            3 => match (key.set3(), pressed) {
                (0, _) => return,
                (code, true) => vec![code],
                (code, false) if s.key_types[usize::from(code)].breaks => vec![BREAK, code],
                (_, false) => return,
            },
            1 => Translator::translate_all(&key.set2_sequence(pressed, s.alternate)),
            _ => key.set2_sequence(pressed, s.alternate),
        };
        // The last place is for the overrun code, which stands for everything that is lost until there is room.
        let overrun = if s.set == 1 { 0xff } else { 0x00 };
        if s.codes.len() + sequence.len() < BUFFER {
            s.codes.extend(sequence);
        } else if !sequence.is_empty() && s.codes.back() != Some(&overrun) && s.codes.len() < BUFFER {
            s.codes.push_back(overrun);
        }
    }

    /// When [`Ps2Keyboard::poll`] wants to run.
    pub fn poll_at(&self) -> Option<Instant> {
        self.state.repeat.filter(|_| self.state.scanning).map(|(_, at)| at)
    }

    /// Repeats the key that is held.
    pub fn poll(&mut self, now: Instant) {
        if let Some((key, at)) = self.state.repeat
            && self.state.scanning
            && at <= now
        {
            // A late repeat is one repeat: nobody wants a burst.
            self.state.repeat = Some((key, now.plus_nanos(self.period())));
            if self.state.codes.is_empty() {
                self.send(key, true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(keyboard: &mut Ps2Keyboard) -> Vec<u8> {
        std::iter::from_fn(|| keyboard.next_byte()).collect()
    }

    fn ask(keyboard: &mut Ps2Keyboard, bytes: &[u8]) -> Vec<u8> {
        bytes
            .iter()
            .flat_map(|byte| {
                keyboard.write(*byte);
                drain(keyboard)
            })
            .collect()
    }

    #[test]
    fn keyboard_commands_answer_as_documented() {
        let mut k = Ps2Keyboard::default();
        assert_eq!(ask(&mut k, &[0xff]), [0xfa, 0xaa]);
        assert_eq!(ask(&mut k, &[0xf2]), [0xfa, 0xab, 0x83]);
        assert_eq!(ask(&mut k, &[0xee]), [0xee]);
        assert_eq!(ask(&mut k, &[0xed, 0x05]), [0xfa, 0xfa]);
        assert_eq!(k.leds(), Leds { scroll_lock: true, num_lock: false, caps_lock: true });
        assert_eq!(ask(&mut k, &[0xf0, 0x00]), [0xfa, 0xfa, 0x02]);
        assert_eq!(ask(&mut k, &[0xf0, 0x03, 0xf0, 0x00]), [0xfa, 0xfa, 0xfa, 0xfa, 0x03]);
        assert_eq!(ask(&mut k, &[0xf0, 0x07]), [0xfa, 0xfe]);
        assert_eq!(ask(&mut k, &[0x12]), [0xfe]);
        assert_eq!(ask(&mut k, &[0xf4, 0xfe]), [0xfa, 0xfa]);
        assert_eq!(ask(&mut k, &[0xed, 0xf4]), [0xfa, 0xfa], "a command instead of an argument");
    }

    #[test]
    fn keyboard_sets_send_make_and_break() {
        for (set, make, release) in
            [(1, vec![0x1e], vec![0x9e]), (2, vec![0x1c], vec![0xf0, 0x1c]), (3, vec![0x1c], vec![])]
        {
            let mut k = Ps2Keyboard::default();
            ask(&mut k, &[0xf0, set]);
            k.key(Key::A, true, Instant::ZERO);
            assert_eq!(drain(&mut k), make);
            k.key(Key::A, true, Instant::ZERO);
            assert!(drain(&mut k).is_empty(), "host repeats are ignored");
            k.key(Key::A, false, Instant::ZERO);
            assert_eq!(drain(&mut k), release);
        }
    }

    #[test]
    fn keyboard_set_3_key_types_follow_commands() {
        let mut k = Ps2Keyboard::default();
        ask(&mut k, &[0xf0, 0x03, 0xfa]);
        k.key(Key::A, true, Instant::ZERO);
        k.key(Key::A, false, Instant::ZERO);
        assert_eq!(drain(&mut k), [0x1c, 0xf0, 0x1c]);
        assert_eq!(ask(&mut k, &[0xfd, 0x1c, 0x84, 0xf4]), [0xfa, 0xfa, 0xfa, 0xfa]);
        k.key(Key::A, true, Instant::ZERO);
        assert_eq!(k.poll_at(), None);
        k.key(Key::A, false, Instant::ZERO);
        assert_eq!(drain(&mut k), [0x1c]);
    }

    #[test]
    fn keyboard_held_key_repeats_at_the_programmed_rate() {
        let mut k = Ps2Keyboard::default();
        ask(&mut k, &[0xf3, 0x00]);
        k.key(Key::A, true, Instant::ZERO);
        assert_eq!(drain(&mut k), [0x1c]);
        let mut times = Vec::new();
        while let Some(at) = k.poll_at().filter(|at| at.0 < 400_000_000) {
            k.poll(at);
            assert_eq!(drain(&mut k), [0x1c]);
            times.push(at.0 / 1_000_000);
        }
        assert_eq!(times, [250, 283, 316, 349, 383]);
        k.key(Key::A, false, Instant(400_000_000));
        assert_eq!((drain(&mut k), k.poll_at()), (vec![0xf0, 0x1c], None));
    }

    #[test]
    fn keyboard_full_buffer_ends_in_one_overrun_code() {
        let mut k = Ps2Keyboard::default();
        for key in [Key::Up, Key::Down, Key::Left, Key::Right, Key::Home, Key::End] {
            k.key(key, true, Instant::ZERO);
            k.key(key, false, Instant::ZERO);
        }
        let bytes = drain(&mut k);
        assert_eq!(bytes.len(), BUFFER);
        assert_eq!(bytes.iter().filter(|b| **b == 0).count(), 1);
        assert_eq!(bytes.last(), Some(&0));
    }

    #[test]
    fn keyboard_disabled_sends_nothing() {
        let mut k = Ps2Keyboard::default();
        ask(&mut k, &[0xf5]);
        k.key(Key::A, true, Instant::ZERO);
        assert!(!k.has_byte());
        ask(&mut k, &[0xf4]);
        k.key(Key::A, false, Instant::ZERO);
        assert_eq!(drain(&mut k), [0xf0, 0x1c]);
    }

    #[test]
    fn keyboard_alt_print_screen_is_sysrq_even_if_alt_leaves_first() {
        let mut k = Ps2Keyboard::default();
        k.key(Key::AltLeft, true, Instant::ZERO);
        k.key(Key::PrintScreen, true, Instant::ZERO);
        k.key(Key::AltLeft, false, Instant::ZERO);
        k.key(Key::PrintScreen, false, Instant::ZERO);
        assert_eq!(drain(&mut k), [0x11, 0x84, 0xf0, 0x11, 0xf0, 0x84]);
    }
}
