//! Keyboards and mice, and the queue by which a user's input reaches them.

pub mod i8042;
pub mod keys;
pub mod ps2_keyboard;
pub mod ps2_mouse;

pub use keys::Key;

use emu_core::bus::Notifier;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

/// Events that wait for the machine at most; further ones are dropped.
const WAITING: usize = 1024;

/// A button of a mouse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Button {
    /// The first.
    Left,
    /// The second.
    Right,
    /// The wheel's.
    Middle,
    /// The fourth, "back".
    Side,
    /// The fifth, "forward".
    Extra,
}

/// Something that a user does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputEvent {
    /// A key goes down or up. Repeats of a key that is down are ignored: the keyboard repeats by itself.
    Key {
        /// Which.
        key: Key,
        /// Down.
        pressed: bool,
    },
    /// The mouse moves, in counts: right and down are positive.
    Motion {
        /// To the right.
        dx: i32,
        /// Down.
        dy: i32,
    },
    /// The wheel turns, in notches; towards the user is positive.
    Wheel(i32),
    /// A mouse button goes down or up.
    Button {
        /// Which.
        button: Button,
        /// Down.
        pressed: bool,
    },
}

/// The keyboard's indicator lights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leds {
    /// Scroll Lock.
    pub scroll_lock: bool,
    /// Num Lock.
    pub num_lock: bool,
    /// Caps Lock.
    pub caps_lock: bool,
}

/// Where displays and monitors put a user's input. Clones are the same queue.
#[derive(Clone, Default)]
pub struct InputQueue {
    shared: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<InputEvent>,
    /// The keyboard or its controller holds codes that the guest has not read.
    unread: bool,
    leds: Leds,
    notifier: Option<Notifier>,
}

impl InputQueue {
    /// An empty queue.
    pub fn new() -> InputQueue {
        InputQueue::default()
    }

    /// Sends an event; whether there was room.
    pub fn send(&self, event: InputEvent) -> bool {
        let notifier = {
            let mut waiting = self.lock();
            if waiting.events.len() >= WAITING {
                return false;
            }
            waiting.events.push_back(event);
            waiting.notifier.clone()
        };
        if let Some(notifier) = notifier {
            notifier.notify();
        }
        true
    }

    /// Whether the guest has read all that the keyboard had to send, so that nothing of what comes next gets lost.
    pub fn is_read(&self) -> bool {
        let waiting = self.lock();
        waiting.events.is_empty() && !waiting.unread
    }

    fn set_unread(&self, unread: bool) {
        self.lock().unread = unread;
    }

    /// The lights as the guest has set them.
    pub fn leds(&self) -> Leds {
        self.lock().leds
    }

    fn set_notifier(&self, notifier: Notifier) {
        self.lock().notifier = Some(notifier);
    }

    fn set_leds(&self, leds: Leds) {
        self.lock().leds = leds;
    }

    fn take(&self) -> VecDeque<InputEvent> {
        std::mem::take(&mut self.lock().events)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
