//! The seat of minifb alone, where there is no X server.
//!
//! minifb reports keys there by their place. It neither keeps the pointer within the window nor fills the screen nor changes
//! its size, so the mouse moves as far as the window reaches, and the user chooses its size. Buttons and wheel are looked at
//! once a frame.

use super::{SeatEvent, open_view};
use emu_devices::input::{Button, Key};
use minifb::{InputCallback, MouseButton, MouseMode};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::rc::Rc;
use std::time::Duration;

/// minifb's names of buttons.
const BUTTONS: [(MouseButton, Button); 5] = [
    (MouseButton::Left, Button::Left),
    (MouseButton::Right, Button::Right),
    (MouseButton::Middle, Button::Middle),
    (MouseButton::Back, Button::Side),
    (MouseButton::Forward, Button::Extra),
];

/// There is nothing that minifb would have to be kept from.
pub fn leave_input_method(_: &[OsString]) {}

/// The host's windows, which need no connection.
pub struct Server;

impl Server {
    /// There is nothing to connect to.
    ///
    /// # Errors
    /// None.
    pub fn connect() -> minifb::Result<Server> {
        Ok(Server)
    }

    /// Opens the window.
    ///
    /// # Errors
    /// The host refuses, or the window is to fill the screen.
    pub fn open(self, size: (usize, usize), full_screen: bool) -> minifb::Result<Seat> {
        if full_screen {
            return Err(minifb::Error::WindowCreate("it cannot fill the screen on this host".into()));
        }
        let mut view = open_view(size)?;
        let typed = Rc::new(RefCell::new(Vec::new()));
        view.set_input_callback(Box::new(Keys(typed.clone())));
        Ok(Seat { view, typed, down: BTreeSet::new(), pressed: [false; 5], pointer: None, active: true })
    }
}

/// Keys in the order in which they went down and up.
struct Keys(Rc<RefCell<Vec<(minifb::Key, bool)>>>);

impl InputCallback for Keys {
    fn add_char(&mut self, _: u32) {}

    fn set_key_state(&mut self, key: minifb::Key, pressed: bool) {
        self.0.borrow_mut().push((key, pressed));
    }
}

/// The window, and the user's hands.
pub struct Seat {
    view: minifb::Window,
    typed: Rc<RefCell<Vec<(minifb::Key, bool)>>>,
    /// Keys that are down: hosts repeat them.
    down: BTreeSet<Key>,
    pressed: [bool; BUTTONS.len()],
    /// Where the pointer was, while the guest has the mouse.
    pointer: Option<(f32, f32)>,
    active: bool,
}

impl Seat {
    /// Waits for `patience`, and tells what the user has done.
    ///
    /// # Errors
    /// None.
    pub fn wait(&mut self, patience: Duration) -> minifb::Result<Vec<SeatEvent>> {
        std::thread::sleep(patience);
        self.view.update();
        let mut events = Vec::new();
        for (key, pressed) in self.typed.take() {
            let Some(key) = key_of(key) else { continue };
            let news = if pressed { self.down.insert(key) } else { self.down.remove(&key) };
            events.extend(news.then_some(SeatEvent::Key { key, pressed }));
        }
        for ((theirs, button), was) in BUTTONS.into_iter().zip(&mut self.pressed) {
            let pressed = self.view.get_mouse_down(theirs);
            if std::mem::replace(was, pressed) != pressed {
                events.push(SeatEvent::Button { button, pressed });
            }
        }
        if let Some((_, lines)) = self.view.get_scroll_wheel() {
            events.push(SeatEvent::Wheel(-lines.round() as i32));
        }
        if let Some((x, y)) = self.pointer
            && let Some((to_x, to_y)) = self.view.get_unscaled_mouse_pos(MouseMode::Clamp)
        {
            self.pointer = Some((to_x, to_y));
            events.push(SeatEvent::Motion { dx: f64::from(to_x - x), dy: f64::from(to_y - y) });
        }
        if std::mem::replace(&mut self.active, self.view.is_active()) && !self.active {
            self.down.clear();
            events.push(SeatEvent::FocusLost);
        }
        Ok(events)
    }

    /// Whether the close button has not been pressed yet.
    pub fn is_open(&self) -> bool {
        self.view.is_open()
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (usize, usize) {
        self.view.get_size()
    }

    /// Shows pixels, as many as [`Seat::size`] says.
    ///
    /// # Errors
    /// They are fewer.
    pub fn show(&mut self, pixels: &[u32], (width, height): (usize, usize)) -> minifb::Result<()> {
        self.view.update_with_buffer(pixels, width, height)
    }

    /// Titles the window.
    ///
    /// # Errors
    /// None.
    pub fn set_title(&mut self, title: &str) -> minifb::Result<()> {
        self.view.set_title(title);
        Ok(())
    }

    /// The size is the user's.
    pub fn resize(&mut self, _: (usize, usize)) {}

    /// Never.
    pub fn is_full_screen(&self) -> bool {
        false
    }

    /// Does nothing.
    pub fn toggle_full_screen(&mut self) {}

    /// Tells the pointer's motion, while it is within the window, and hides it; or no longer. Always done.
    pub fn grab(&mut self, wanted: bool) -> bool {
        self.pointer = self.view.get_unscaled_mouse_pos(MouseMode::Clamp).filter(|_| wanted);
        self.view.set_cursor_visibility(!wanted);
        true
    }
}

fn key_of(key: minifb::Key) -> Option<Key> {
    use minifb::Key as Host;
    Some(match key {
        Host::Escape => Key::Escape,
        Host::F1 => Key::F1,
        Host::F2 => Key::F2,
        Host::F3 => Key::F3,
        Host::F4 => Key::F4,
        Host::F5 => Key::F5,
        Host::F6 => Key::F6,
        Host::F7 => Key::F7,
        Host::F8 => Key::F8,
        Host::F9 => Key::F9,
        Host::F10 => Key::F10,
        Host::F11 => Key::F11,
        Host::F12 => Key::F12,
        Host::ScrollLock => Key::ScrollLock,
        Host::Pause => Key::Pause,
        Host::Backquote => Key::Grave,
        Host::Key1 => Key::Digit1,
        Host::Key2 => Key::Digit2,
        Host::Key3 => Key::Digit3,
        Host::Key4 => Key::Digit4,
        Host::Key5 => Key::Digit5,
        Host::Key6 => Key::Digit6,
        Host::Key7 => Key::Digit7,
        Host::Key8 => Key::Digit8,
        Host::Key9 => Key::Digit9,
        Host::Key0 => Key::Digit0,
        Host::Minus => Key::Minus,
        Host::Equal => Key::Equal,
        Host::Backspace => Key::Backspace,
        Host::Tab => Key::Tab,
        Host::Q => Key::Q,
        Host::W => Key::W,
        Host::E => Key::E,
        Host::R => Key::R,
        Host::T => Key::T,
        Host::Y => Key::Y,
        Host::U => Key::U,
        Host::I => Key::I,
        Host::O => Key::O,
        Host::P => Key::P,
        Host::LeftBracket => Key::BracketLeft,
        Host::RightBracket => Key::BracketRight,
        Host::Backslash => Key::Backslash,
        Host::CapsLock => Key::CapsLock,
        Host::A => Key::A,
        Host::S => Key::S,
        Host::D => Key::D,
        Host::F => Key::F,
        Host::G => Key::G,
        Host::H => Key::H,
        Host::J => Key::J,
        Host::K => Key::K,
        Host::L => Key::L,
        Host::Semicolon => Key::Semicolon,
        Host::Apostrophe => Key::Apostrophe,
        Host::Enter => Key::Enter,
        Host::LeftShift => Key::ShiftLeft,
        Host::Z => Key::Z,
        Host::X => Key::X,
        Host::C => Key::C,
        Host::V => Key::V,
        Host::B => Key::B,
        Host::N => Key::N,
        Host::M => Key::M,
        Host::Comma => Key::Comma,
        Host::Period => Key::Dot,
        Host::Slash => Key::Slash,
        Host::RightShift => Key::ShiftRight,
        Host::LeftCtrl => Key::ControlLeft,
        Host::LeftSuper => Key::MetaLeft,
        Host::LeftAlt => Key::AltLeft,
        Host::Space => Key::Space,
        Host::RightAlt => Key::AltRight,
        Host::RightSuper => Key::MetaRight,
        Host::Menu => Key::Menu,
        Host::RightCtrl => Key::ControlRight,
        Host::Insert => Key::Insert,
        Host::Home => Key::Home,
        Host::PageUp => Key::PageUp,
        Host::Delete => Key::Delete,
        Host::End => Key::End,
        Host::PageDown => Key::PageDown,
        Host::Up => Key::Up,
        Host::Left => Key::Left,
        Host::Down => Key::Down,
        Host::Right => Key::Right,
        Host::NumLock => Key::NumLock,
        Host::NumPadSlash => Key::KeypadDivide,
        Host::NumPadAsterisk => Key::KeypadMultiply,
        Host::NumPadMinus => Key::KeypadSubtract,
        Host::NumPadPlus => Key::KeypadAdd,
        Host::NumPadEnter => Key::KeypadEnter,
        Host::NumPadDot => Key::KeypadDecimal,
        Host::NumPad0 => Key::Keypad0,
        Host::NumPad1 => Key::Keypad1,
        Host::NumPad2 => Key::Keypad2,
        Host::NumPad3 => Key::Keypad3,
        Host::NumPad4 => Key::Keypad4,
        Host::NumPad5 => Key::Keypad5,
        Host::NumPad6 => Key::Keypad6,
        Host::NumPad7 => Key::Keypad7,
        Host::NumPad8 => Key::Keypad8,
        Host::NumPad9 => Key::Keypad9,
        // Print Screen, the key beside the left Shift, and the power keys have no name in minifb.
        Host::F13 | Host::F14 | Host::F15 | Host::Unknown | Host::Count => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_minifb_are_keys_of_a_pc() {
        assert_eq!(key_of(minifb::Key::Z), Some(Key::Z));
        assert_eq!(key_of(minifb::Key::F15), None);
    }
}
