//! The guest's screen in a window of the host, with its keyboard and mouse (minifb).
//!
//! This is what the window shows and what the user's hands do to the machine. minifb opens the window, fills it and titles
//! it; the *seat* does what minifb cannot: where there is an X server, `x11`, elsewhere `plain`, which has minifb alone.
//!
//! The window owns the process's first thread, as some hosts demand; the machine runs on another. Nothing is drawn while
//! the guest changes nothing. Deliberately absent: menus, clipboard, several screens, Wayland without XWayland.

#[cfg(all(unix, not(target_os = "macos")))]
mod keys;
#[cfg(any(test, not(all(unix, not(target_os = "macos")))))]
#[cfg_attr(all(unix, not(target_os = "macos")), expect(dead_code, reason = "compiled to keep it right"))]
mod plain;
#[cfg(all(unix, not(target_os = "macos")))]
mod x11;

use super::picture::{self, PictureFormat};
use super::scale;
use super::typist::{DEFAULT_HOLD, press};
use crate::cli::display::{self, HOTKEYS, WindowOptions};
use crate::cli::error::StartError;
use crate::remote::Remote;
use crate::{exit, report};
use emu_devices::input::{Button, InputEvent, Key};
use emu_devices::video::{Damage, Frame};
pub use host::leave_input_method;
use host::{Seat, Server};
#[cfg(not(all(unix, not(target_os = "macos"))))]
use plain as host;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
#[cfg(all(unix, not(target_os = "macos")))]
use x11 as host;

/// Between looks at the guest's screen.
const FRAME_TIME: Duration = Duration::from_millis(16);
/// The same while nobody sees the window.
const HIDDEN_TIME: Duration = Duration::from_millis(250);
/// Between looks at the machine's state and speed, for the title.
const TITLE_TIME: Duration = Duration::from_millis(1000);
/// The window until the guest has a picture.
const FIRST_SIZE: (usize, usize) = (720, 400);

/// What the user, or the host, has done to the window.
#[derive(Debug)]
enum SeatEvent {
    Key {
        key: Key,
        pressed: bool,
    },
    Button {
        button: Button,
        pressed: bool,
    },
    /// Notches towards the user.
    Wheel(i32),
    /// Pixels to the right and down, or parts of them.
    Motion {
        dx: f64,
        dy: f64,
    },
    /// The keyboard is another window's.
    FocusLost,
    /// Some of the window can be seen, or nothing.
    Visible(bool),
    /// What the window has shown may be gone.
    Exposed,
}

/// A window of minifb's, which neither scales nor waits: we do.
fn open_view((width, height): (usize, usize)) -> minifb::Result<minifb::Window> {
    let options = minifb::WindowOptions {
        resize: true,
        scale_mode: minifb::ScaleMode::UpperLeft,
        ..minifb::WindowOptions::default()
    };
    let mut view = minifb::Window::new("emu", width, height, options)?;
    view.set_target_fps(0);
    Ok(view)
}

/// The host's windows, before there is a machine.
pub struct Host(Server);

impl Host {
    /// Connects to the host's windows.
    ///
    /// # Errors
    /// There are none.
    pub fn connect() -> Result<Host, StartError> {
        if !display::host_has_screen() {
            return Err(StartError::option("display", "there is no X server: DISPLAY is not set; nearest is curses"));
        }
        Server::connect().map(Host).map_err(|e| StartError::option("display", format!("cannot open a window: {e}")))
    }

    /// Shows the machine behind `remote` until the emulator ends.
    pub fn run(self, remote: Arc<Remote>, options: WindowOptions) -> ! {
        let seat = match self.0.open(FIRST_SIZE, options.full_screen) {
            Ok(seat) => seat,
            Err(e) => {
                report::complain(&format!("cannot open a window: {e}"));
                exit::leave(1);
            }
        };
        Screen::new(seat, remote, options).run()
    }
}

/// Ends the emulator as its user would.
fn give_up(problem: &dyn Display) -> ! {
    report::complain(&format!("the window is gone: {problem}"));
    exit::request("host-ui")
}

struct Screen {
    seat: Seat,
    remote: Arc<Remote>,
    options: WindowOptions,
    frame: Frame,
    /// What the window shows: the frame in the window's size.
    pixels: Vec<u32>,
    size: (usize, usize),
    /// That is out of date.
    damaged: bool,
    /// Keys and buttons that the guest knows to be down.
    down: BTreeSet<Key>,
    clicked: Vec<Button>,
    /// Keys that were hotkeys when they went down: their release is not the guest's either.
    swallowed: BTreeSet<Key>,
    grabbed: bool,
    hidden: bool,
    /// The user has chosen the window's size.
    resized: bool,
    /// Parts of pixels that have not been told yet.
    motion: (f64, f64),
    speed: Speed,
    title: String,
}

/// Instructions a second, from one look to the next.
#[derive(Default)]
struct Speed {
    last: Option<(Instant, u64)>,
}

impl Speed {
    /// Million instructions a second since the last call.
    fn look(&mut self, instructions: u64) -> f64 {
        let now = Instant::now();
        let (then, before) = self.last.replace((now, instructions)).unwrap_or((now, instructions));
        let seconds = now.duration_since(then).as_secs_f64();
        if seconds > 0.0 { instructions.saturating_sub(before) as f64 / seconds / 1e6 } else { 0.0 }
    }
}

/// What Ctrl-Alt and a key do.
#[derive(Clone, Copy)]
enum Hotkey {
    Grab,
    FullScreen,
    Screenshot,
    CtrlAltDel,
    Pause,
    Quit,
}

impl Hotkey {
    fn of(key: Key) -> Option<Hotkey> {
        match key {
            Key::G => Some(Hotkey::Grab),
            Key::F => Some(Hotkey::FullScreen),
            Key::S => Some(Hotkey::Screenshot),
            Key::D => Some(Hotkey::CtrlAltDel),
            Key::P => Some(Hotkey::Pause),
            Key::Q => Some(Hotkey::Quit),
            _ => None,
        }
    }
}

impl Screen {
    fn new(seat: Seat, remote: Arc<Remote>, options: WindowOptions) -> Screen {
        Screen {
            size: seat.size(),
            seat,
            remote,
            options,
            frame: Frame::default(),
            pixels: Vec::new(),
            damaged: true,
            down: BTreeSet::new(),
            clicked: Vec::new(),
            swallowed: BTreeSet::new(),
            grabbed: false,
            hidden: false,
            resized: false,
            motion: (0.0, 0.0),
            speed: Speed::default(),
            title: String::new(),
        }
    }

    fn run(mut self) -> ! {
        let (mut next_title, mut next_look) = (Instant::now(), Instant::now());
        loop {
            let now = Instant::now();
            if now >= next_title {
                next_title = now + TITLE_TIME;
                self.show_title();
            }
            if now >= next_look {
                self.look();
                next_look = now + if self.hidden { HIDDEN_TIME } else { FRAME_TIME };
            }
            self.follow_size();
            if self.damaged {
                self.draw();
            }
            match self.seat.wait(next_look.saturating_duration_since(Instant::now())) {
                Ok(events) => events.into_iter().for_each(|event| self.handle(event)),
                Err(e) => give_up(&e),
            }
            if self.options.close && !self.seat.is_open() {
                exit::request("host-ui");
            }
        }
    }

    fn handle(&mut self, event: SeatEvent) {
        match event {
            SeatEvent::Key { key, pressed } => self.key(key, pressed),
            SeatEvent::Button { button, pressed } => self.button(button, pressed),
            SeatEvent::Wheel(notches) if self.grabbed => {
                self.remote.input.send(InputEvent::Wheel(notches));
            }
            SeatEvent::Motion { dx, dy } if self.grabbed => {
                let (x, y) = (self.motion.0 + dx, self.motion.1 + dy);
                self.motion = (x.fract(), y.fract());
                self.remote.input.send(InputEvent::Motion { dx: x as i32, dy: y as i32 });
            }
            SeatEvent::Wheel(_) | SeatEvent::Motion { .. } => {}
            SeatEvent::FocusLost => {
                self.release_keys();
                self.grab(false);
            }
            SeatEvent::Visible(visible) => self.hidden = !visible,
            SeatEvent::Exposed => self.damaged = true,
        }
    }

    fn key(&mut self, key: Key, pressed: bool) {
        if !pressed {
            if !self.swallowed.remove(&key) && self.down.remove(&key) {
                press(&self.remote.input, key, false);
            }
            return;
        }
        let held = |left, right| self.down.contains(&left) || self.down.contains(&right);
        let prefix = held(Key::ControlLeft, Key::ControlRight) && held(Key::AltLeft, Key::AltRight);
        match Hotkey::of(key).filter(|_| prefix) {
            Some(hotkey) => {
                self.swallowed.insert(key);
                self.carry_out(hotkey);
            }
            None => {
                self.down.insert(key);
                press(&self.remote.input, key, true);
            }
        }
    }

    fn release_keys(&mut self) {
        for key in std::mem::take(&mut self.down) {
            press(&self.remote.input, key, false);
        }
        self.swallowed.clear();
    }

    fn carry_out(&mut self, hotkey: Hotkey) {
        match hotkey {
            Hotkey::Grab => self.grab(!self.grabbed),
            Hotkey::FullScreen => self.seat.toggle_full_screen(),
            Hotkey::Screenshot => self.screenshot(),
            Hotkey::CtrlAltDel => {
                self.remote.typist.stroke(vec![Key::ControlLeft, Key::AltLeft, Key::Delete], DEFAULT_HOLD);
            }
            Hotkey::Pause => {
                match self.remote.is_paused() {
                    Some(true) => {
                        if let Err(problem) = self.remote.cont() {
                            report::complain(&problem);
                        }
                    }
                    _ => self.remote.stop(),
                }
                self.show_title();
            }
            Hotkey::Quit => exit::request("host-ui"),
        }
    }

    /// Saves the picture under the first free name in the current folder.
    fn screenshot(&self) {
        let names = (1..10_000).map(|n| PathBuf::from(format!("emu-screenshot-{n}.png")));
        let Some(path) = names.into_iter().find(|path| !path.exists()) else { return };
        match picture::save(&self.frame, &path, PictureFormat::Png) {
            Ok(()) => report::complain(&format!("screenshot saved as {}", path.display())),
            Err(e) => report::complain(&format!("cannot save {}: {e}", path.display())),
        }
    }

    /// Takes the host's mouse, or gives it back.
    fn grab(&mut self, wanted: bool) {
        if wanted == self.grabbed || !self.seat.grab(wanted) {
            return;
        }
        self.grabbed = wanted;
        for button in std::mem::take(&mut self.clicked) {
            self.remote.input.send(InputEvent::Button { button, pressed: false });
        }
        self.show_title();
    }

    fn button(&mut self, button: Button, pressed: bool) {
        match (self.grabbed, pressed) {
            // The click that takes the mouse is not the guest's.
            (false, true) => self.grab(true),
            (true, true) => {
                self.clicked.push(button);
                self.remote.input.send(InputEvent::Button { button, pressed });
            }
            (_, false) => {
                if let Some(at) = self.clicked.iter().position(|clicked| *clicked == button) {
                    self.clicked.swap_remove(at);
                    self.remote.input.send(InputEvent::Button { button, pressed });
                }
            }
        }
    }

    fn show_title(&mut self) {
        let name = match self.remote.identity.name.as_str() {
            "" => String::new(),
            name => format!(" ({name})"),
        };
        let (_, instructions) = self.remote.time();
        let speed = self.speed.look(instructions);
        let state = match self.remote.is_paused() {
            Some(true) => "paused".into(),
            _ => format!("{speed:.0} million instructions/s"),
        };
        let mouse = if self.grabbed { " - Ctrl-Alt-G releases the mouse" } else { "" };
        let title = format!("emu{name} - {state}{mouse} - {HOTKEYS}");
        if title != self.title {
            self.seat.set_title(&title).unwrap_or_else(|e| give_up(&e));
            self.title = title;
        }
    }

    /// Looks whether the guest's screen has changed.
    fn look(&mut self) {
        let Some(display) = self.remote.display.clone() else { return };
        let (now, _) = self.remote.time();
        let before = (self.frame.width, self.frame.height);
        self.damaged |= display.refresh(now, &mut self.frame) != Damage::None;
        let size = (self.frame.width, self.frame.height);
        if before != size && !self.resized && size.0 > 0 && size.1 > 0 && !self.seat.is_full_screen() {
            self.seat.resize(size);
        }
    }

    /// Looks whether the window has another size.
    fn follow_size(&mut self) {
        let size = self.seat.size();
        if size != self.size {
            self.size = size;
            self.resized = size != (self.frame.width, self.frame.height) && size != FIRST_SIZE;
            self.damaged = true;
        }
    }

    fn draw(&mut self) {
        self.damaged = false;
        let (width, height) = self.size;
        self.pixels.resize(width * height, 0);
        scale::fit(&self.frame, &mut self.pixels, width, height);
        self.seat.show(&self.pixels, self.size).unwrap_or_else(|e| give_up(&e));
    }
}
