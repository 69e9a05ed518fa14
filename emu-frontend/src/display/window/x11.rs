//! The seat at an X server: keys by their place, the pointer, full screen and the window's size.
//!
//! minifb opens the window and fills it, on a connection of its own. This is a second connection to the same server, which
//! selects events of that window, as any client may: minifb tells neither where a key is nor when a button went down, and
//! cannot take the pointer. Follows the X Window System Protocol (X11R7.7), the X Input Extension 2.1 (XI2) and the
//! Extended Window Manager Hints 1.5 (EWMH).
//!
//! A server that delivers an event as XI2's does not deliver it as the core protocol's too, so that minifb and the host's
//! input methods receive no keys. Deliberately absent: pointers whose motion is absolute, such as tablets.

use super::{SeatEvent, keys, open_view};
use emu_devices::input::Button;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::error::Error;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};
use x11rb::connection::Connection;
use x11rb::protocol::Event;
use x11rb::protocol::xinput::{
    ConnectionExt as _, Device, EventMask as DeviceMask, Fp3232, KeyEventFlags, RawMotionEvent, XIEventMask,
};
use x11rb::protocol::xproto::{
    AtomEnum, ChangeWindowAttributesAux, ClientMessageEvent, ConfigureWindowAux, ConnectionExt as _, EventMask,
    GrabMode, GrabStatus, PropMode, Visibility, Window,
};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

/// Between minifb's own looks at its connection, which alone learns of the window's close button.
const UPDATE_TIME: Duration = Duration::from_millis(100);
/// Name and class of the window (Inter-Client Communication Conventions Manual, WM_CLASS).
const CLASS: &[u8] = b"emu\0emu\0";
/// Where Xlib looks for an input method, and its word for none of them (XSetLocaleModifiers(3)).
const MODIFIERS: &str = "XMODIFIERS";
const NO_INPUT_METHOD: &str = "@im=none";
/// X's number of the key that Linux knows as 0.
const FIRST_KEY: u32 = 8;
/// `_NET_WM_STATE_ADD` and `_NET_WM_STATE_TOGGLE` (EWMH, _NET_WM_STATE).
const STATE_ADD: u32 = 1;
const STATE_TOGGLE: u32 = 2;
/// Of whatever kind the error is: nothing is asked that could fail otherwise.
const GONE: &str = "the X server has ended the connection";
/// A normal application (EWMH, "Source indication in requests").
const FROM_APPLICATION: u32 = 1;

x11rb::atom_manager! {
    /// Names that the server has numbers for.
    Atoms: AtomsCookie {
        _NET_WM_STATE,
        _NET_WM_STATE_FULLSCREEN,
    }
}

/// Starts the process anew, with the same `arguments`, without the input method that the environment names, if it names
/// one. minifb opens that, and does not survive if it does not run.
pub fn leave_input_method(arguments: &[OsString]) {
    let named = std::env::var_os(MODIFIERS).is_some_and(|value| !value.is_empty() && value != NO_INPUT_METHOD);
    let (Some((name, rest)), true) = (arguments.split_first(), named) else { return };
    let Ok(program) = std::env::current_exe() else { return };
    // This returns only if it fails, and most input methods do run.
    let _ = Command::new(program).arg0(name).args(rest).env(MODIFIERS, NO_INPUT_METHOD).exec();
}

/// A connection to the host's X server, without a window yet.
pub struct Server {
    connection: RustConnection,
    root: Window,
    atoms: Atoms,
}

impl Server {
    /// Connects to the server that DISPLAY names.
    ///
    /// # Errors
    /// There is none, or it is too old.
    pub fn connect() -> Result<Server, Box<dyn Error>> {
        let display = std::env::var("DISPLAY").unwrap_or_default();
        let (connection, screen) = x11rb::connect(None).map_err(|e| format!("X server '{display}': {e}"))?;
        let setup = connection.setup();
        let (root, depth) = (setup.roots[screen].root, setup.roots[screen].root_depth);
        let bits = setup.pixmap_formats.iter().find(|format| format.depth == depth).map(|format| format.bits_per_pixel);
        // minifb cannot draw elsewhere, and does not end well where it cannot.
        if !matches!((depth, bits), (24 | 32, Some(32))) {
            return Err(format!("X server '{display}': the screen has {depth} bits a pixel, not 24").into());
        }
        let version = connection.xinput_xi_query_version(2, 1).ok().and_then(|cookie| cookie.reply().ok());
        // From this version on, whoever has selected raw motion receives it while the pointer is grabbed, too.
        if version.is_none_or(|version| (version.major_version, version.minor_version) < (2, 1)) {
            return Err(format!("X server '{display}': it has no X Input Extension 2.1").into());
        }
        let atoms = Atoms::new(&connection)?.reply()?;
        Ok(Server { connection, root, atoms })
    }

    /// Opens the window.
    ///
    /// # Errors
    /// X's client libraries, which minifb loads, are missing, or the server refuses.
    pub fn open(self, size: (usize, usize), full_screen: bool) -> Result<Seat, Box<dyn Error>> {
        let Server { connection, root, atoms } = self;
        let mut view = open_view(size)?;
        // What minifb calls a pointer is the window's number, of 29 bits.
        let window = view.get_window_handle() as usize as Window;
        // The window manager is to learn of the window before it learns what to do with it.
        view.update();
        let core =
            EventMask::STRUCTURE_NOTIFY | EventMask::VISIBILITY_CHANGE | EventMask::EXPOSURE | EventMask::FOCUS_CHANGE;
        let attributes = ChangeWindowAttributesAux::new().event_mask(core);
        connection.change_window_attributes(window, &attributes)?.check()?;
        connection.change_property8(PropMode::REPLACE, window, AtomEnum::WM_CLASS, AtomEnum::STRING, CLASS)?;
        let seat = Seat {
            view,
            connection,
            root,
            window,
            atoms,
            stale: false,
            next_update: Instant::now(),
            events: Vec::new(),
        };
        let keys = XIEventMask::KEY_PRESS | XIEventMask::KEY_RELEASE;
        seat.select(window, keys | XIEventMask::BUTTON_PRESS | XIEventMask::BUTTON_RELEASE)?;
        if full_screen {
            seat.change_full_screen(STATE_ADD)?;
        }
        Ok(seat)
    }
}

/// The window, and the user's hands.
pub struct Seat {
    view: minifb::Window,
    connection: RustConnection,
    root: Window,
    window: Window,
    atoms: Atoms,
    /// The window has changed, and minifb has not heard of it yet.
    stale: bool,
    next_update: Instant,
    /// What has not been told yet.
    events: Vec<SeatEvent>,
}

impl Seat {
    /// Waits until the user does something, or for `patience`.
    ///
    /// # Errors
    /// The server or the window is gone.
    pub fn wait(&mut self, patience: Duration) -> Result<Vec<SeatEvent>, Box<dyn Error>> {
        let end = Instant::now() + patience;
        loop {
            // What the server has sent along with a reply waits here already.
            self.listen()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stale || !self.events.is_empty() {
                break;
            }
            let mut files = [PollFd::new(self.connection.stream(), PollFlags::IN)];
            match poll(&mut files, Some(&Timespec::try_from(left)?)) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        if self.stale || Instant::now() >= self.next_update {
            self.make_sure()?;
            self.update();
        }
        Ok(std::mem::take(&mut self.events))
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
    /// They are fewer, or the server or the window is gone.
    pub fn show(&mut self, pixels: &[u32], (width, height): (usize, usize)) -> Result<(), Box<dyn Error>> {
        self.make_sure()?;
        // Which updates as well.
        self.next_update = Instant::now() + UPDATE_TIME;
        Ok(self.view.update_with_buffer(pixels, width, height)?)
    }

    /// Titles the window.
    ///
    /// # Errors
    /// The server or the window is gone.
    pub fn set_title(&mut self, title: &str) -> Result<(), Box<dyn Error>> {
        self.make_sure()?;
        self.view.set_title(title);
        // Which sends it.
        self.update();
        Ok(())
    }

    /// Asks for a window of that size.
    pub fn resize(&mut self, (width, height): (usize, usize)) {
        let size = ConfigureWindowAux::new().width(width as u32).height(height as u32);
        // Fails only if the server is gone, as the next two do, and `wait` tells that.
        let _ = self.connection.configure_window(self.window, &size).and_then(|_| self.connection.flush());
    }

    /// Whether the window manager has the window fill the screen.
    pub fn is_full_screen(&self) -> bool {
        let state = self.atoms._NET_WM_STATE;
        let property = self.connection.get_property(false, self.window, state, AtomEnum::ATOM, 0, 1024);
        let Some(states) = property.ok().and_then(|cookie| cookie.reply().ok()) else { return false };
        states.value32().is_some_and(|mut states| states.any(|state| state == self.atoms._NET_WM_STATE_FULLSCREEN))
    }

    /// Has the window fill the screen, or no longer.
    pub fn toggle_full_screen(&mut self) {
        let _ = self.change_full_screen(STATE_TOGGLE);
    }

    /// Takes the pointer, so that it stays within the window, unseen, and tells its motion; or gives it back. Tells
    /// whether that has been done.
    pub fn grab(&mut self, wanted: bool) -> bool {
        let done = if wanted { self.take_pointer() } else { self.give_pointer() };
        let done = done.unwrap_or(false);
        if done && self.make_sure().is_ok() {
            self.view.set_cursor_visibility(!wanted);
        }
        done
    }

    fn take_pointer(&self) -> Result<bool, Box<dyn Error>> {
        let buttons = EventMask::BUTTON_PRESS | EventMask::BUTTON_RELEASE;
        let (mode, window) = (GrabMode::ASYNC, self.window);
        // A button that is down has grabbed the pointer for XI2, which the core protocol would not take it from.
        self.connection.ungrab_pointer(x11rb::CURRENT_TIME)?;
        // Not reported as usual (`owner_events`): raw motion would come twice.
        let grab = self.connection.grab_pointer(
            false,
            window,
            buttons,
            mode,
            mode,
            window,
            x11rb::NONE,
            x11rb::CURRENT_TIME,
        )?;
        // Another client may have it, or the window may not be visible.
        let taken = grab.reply()?.status == GrabStatus::SUCCESS;
        if taken {
            self.select(self.root, XIEventMask::RAW_MOTION)?;
        }
        Ok(taken)
    }

    fn give_pointer(&self) -> Result<bool, Box<dyn Error>> {
        self.connection.ungrab_pointer(x11rb::CURRENT_TIME)?;
        self.select(self.root, XIEventMask::from(0u32))?;
        Ok(true)
    }

    /// Selects events of all keyboards or pointers.
    fn select(&self, window: Window, events: XIEventMask) -> Result<(), Box<dyn Error>> {
        let mask = DeviceMask { deviceid: Device::ALL_MASTER.into(), mask: vec![events] };
        Ok(self.connection.xinput_xi_select_events(window, &[mask])?.check()?)
    }

    fn change_full_screen(&self, action: u32) -> Result<(), Box<dyn Error>> {
        let data = [action, self.atoms._NET_WM_STATE_FULLSCREEN, 0, FROM_APPLICATION, 0];
        let message = ClientMessageEvent::new(32, self.window, self.atoms._NET_WM_STATE, data);
        let to_manager = EventMask::SUBSTRUCTURE_NOTIFY | EventMask::SUBSTRUCTURE_REDIRECT;
        Ok(self.connection.send_event(false, self.root, to_manager, message)?.check()?)
    }

    /// Takes what the server has sent.
    fn listen(&mut self) -> Result<(), Box<dyn Error>> {
        while let Some(event) = self.connection.poll_for_event().map_err(|_| GONE)? {
            let event = self.translate(event)?;
            self.events.extend(event);
        }
        Ok(())
    }

    /// Makes sure, before minifb talks to the server, that there is one, and the window. Xlib, by which minifb does so,
    /// ends the process at once where this ends in an error.
    fn make_sure(&mut self) -> Result<(), Box<dyn Error>> {
        self.connection.sync().map_err(|_| GONE)?;
        self.listen()
    }

    /// Has minifb read its events, which waits for the server: it knows then whatever this connection knows.
    fn update(&mut self) {
        self.stale = false;
        self.next_update = Instant::now() + UPDATE_TIME;
        self.view.update();
    }

    fn translate(&mut self, event: Event) -> Result<Option<SeatEvent>, Box<dyn Error>> {
        Ok(match event {
            // Guests' keyboards repeat by themselves.
            Event::XinputKeyPress(key) if key.flags.contains(KeyEventFlags::KEY_REPEAT) => None,
            Event::XinputKeyPress(event) => key(event.detail, true),
            Event::XinputKeyRelease(event) => key(event.detail, false),
            // XI2's while the pointer is free, the core protocol's while it is grabbed.
            Event::XinputButtonPress(event) => button(event.detail, true),
            Event::XinputButtonRelease(event) => button(event.detail, false),
            Event::ButtonPress(event) => button(event.detail.into(), true),
            Event::ButtonRelease(event) => button(event.detail.into(), false),
            Event::XinputRawMotion(event) => Some(motion(&event)),
            Event::FocusOut(_) => Some(SeatEvent::FocusLost),
            Event::VisibilityNotify(event) => Some(SeatEvent::Visible(event.state != Visibility::FULLY_OBSCURED)),
            Event::UnmapNotify(_) => Some(SeatEvent::Visible(false)),
            Event::Expose(event) => (event.count == 0).then_some(SeatEvent::Exposed),
            Event::ConfigureNotify(_) => {
                self.stale = true;
                None
            }
            Event::DestroyNotify(_) => return Err("another program has destroyed it".into()),
            _ => None,
        })
    }
}

fn key(code: u32, pressed: bool) -> Option<SeatEvent> {
    let key = keys::from_linux(code.checked_sub(FIRST_KEY)?)?;
    Some(SeatEvent::Key { key, pressed })
}

/// A button by its logical number; X counts what a wheel does as buttons.
fn button(number: u32, pressed: bool) -> Option<SeatEvent> {
    let button = match number {
        1 => Button::Left,
        2 => Button::Middle,
        3 => Button::Right,
        4 => return pressed.then_some(SeatEvent::Wheel(-1)),
        5 => return pressed.then_some(SeatEvent::Wheel(1)),
        8 => Button::Side,
        9 => Button::Extra,
        _ => return None,
    };
    Some(SeatEvent::Button { button, pressed })
}

/// Motion before the server has accelerated it. Only axes that moved have a value, in order; the first two are x and y.
fn motion(event: &RawMotionEvent) -> SeatEvent {
    let moved = event.valuator_mask.first().copied().unwrap_or(0);
    let mut values = event.axisvalues_raw.iter();
    let mut axis = |bit| if moved & bit != 0 { values.next().map_or(0.0, number) } else { 0.0 };
    let (dx, dy) = (axis(1), axis(2));
    SeatEvent::Motion { dx, dy }
}

fn number(value: &Fp3232) -> f64 {
    f64::from(value.integral) + f64::from(value.frac) / 2f64.powi(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_motion_takes_the_first_two_axes_that_moved() {
        let event = |mask: u32, values: &[(i32, u32)]| RawMotionEvent {
            valuator_mask: vec![mask],
            axisvalues_raw: values.iter().map(|(integral, frac)| Fp3232 { integral: *integral, frac: *frac }).collect(),
            ..RawMotionEvent::default()
        };
        let of = |mask, values: &[_]| match motion(&event(mask, values)) {
            SeatEvent::Motion { dx, dy } => (dx, dy),
            other => panic!("{other:?}"),
        };
        assert_eq!(of(0b11, &[(3, 0), (-2, 0x8000_0000)]), (3.0, -1.5));
        assert_eq!(of(0b10, &[(7, 0)]), (0.0, 7.0));
        assert_eq!(of(0b1001, &[(5, 0), (120, 0)]), (5.0, 0.0));
        assert_eq!(of(0b1000, &[(120, 0)]), (0.0, 0.0));
    }
}
