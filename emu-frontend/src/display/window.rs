//! The guest's screen in a window of the host, with its keyboard and mouse (winit and softbuffer).
//!
//! The event loop owns the process's first thread, as some hosts demand; the machine runs on another. Nothing is drawn
//! while the guest changes nothing. Deliberately absent: menus, clipboard, several screens, Wayland without XWayland.

mod keys;

use super::picture::{self, PictureFormat};
use super::scale;
use super::typist::{DEFAULT_HOLD, press};
use crate::cli::display::{self, HOTKEYS, WindowOptions};
use crate::cli::error::StartError;
use crate::remote::Remote;
use crate::{exit, report};
use emu_devices::input::{Button, InputEvent, Key};
use emu_devices::video::{Damage, Frame};
use softbuffer::{Context, Surface};
use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use winit::application::ApplicationHandler;
use winit::dpi::PhysicalSize;
use winit::event::{DeviceEvent, DeviceId, ElementState, MouseButton, MouseScrollDelta, StartCause, WindowEvent};
use winit::event_loop::{ActiveEventLoop, ControlFlow, EventLoop};
use winit::keyboard::PhysicalKey;
use winit::window::{CursorGrabMode, Fullscreen, Window, WindowId};

/// Between looks at the guest's screen.
const FRAME_TIME: Duration = Duration::from_millis(16);
/// The same while nobody sees the window.
const HIDDEN_TIME: Duration = Duration::from_millis(250);
/// Between looks at the machine's state and speed, for the title.
const TITLE_TIME: Duration = Duration::from_millis(1000);
/// The window until the guest has a picture.
const FIRST_SIZE: (u32, u32) = (720, 400);
/// Pixels that touchpads report for a notch of a wheel.
const NOTCH: f64 = 40.0;

/// An event loop for a window, before there is a machine.
pub struct Host(EventLoop<()>);

impl Host {
    /// Connects to the host's windows.
    ///
    /// # Errors
    /// There are none.
    pub fn connect() -> Result<Host, StartError> {
        if !display::host_has_screen() {
            return Err(StartError::option("display", "there is no X server: DISPLAY is not set; nearest is curses"));
        }
        EventLoop::new().map(Host).map_err(|e| StartError::option("display", format!("cannot open a window: {e}")))
    }

    /// Shows the machine behind `remote` until the emulator ends.
    pub fn run(self, remote: Arc<Remote>, options: WindowOptions) -> ! {
        let mut screen = Screen {
            remote,
            options,
            view: None,
            frame: Frame::default(),
            down: BTreeSet::new(),
            swallowed: BTreeSet::new(),
            grabbed: false,
            hidden: false,
            resized: false,
            wheel: 0.0,
            motion: (0.0, 0.0),
            twins: Twins::default(),
            speed: Speed::default(),
            next_title: Instant::now(),
        };
        if let Err(e) = self.0.run_app(&mut screen) {
            report::complain(&format!("the window is gone: {e}"));
        }
        exit::request("host-ui")
    }
}

struct View {
    window: Rc<Window>,
    surface: Surface<Rc<Window>, Rc<Window>>,
}

struct Screen {
    remote: Arc<Remote>,
    options: WindowOptions,
    view: Option<View>,
    frame: Frame,
    /// Keys that the guest knows to be down.
    down: BTreeSet<Key>,
    /// Keys that were hotkeys when they went down: their release is not the guest's either.
    swallowed: BTreeSet<Key>,
    grabbed: bool,
    hidden: bool,
    /// The user has chosen the window's size.
    resized: bool,
    /// Parts of notches and pixels that have not been told yet.
    wheel: f64,
    motion: (f64, f64),
    twins: Twins,
    speed: Speed,
    next_title: Instant,
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

/// Motion that the host tells twice.
///
/// X servers deliver a raw event to a client that has selected it, and once more to the client that has grabbed the
/// pointer if its grab reports other events as usual (`owner_events`), as winit's does. The two follow each other.
#[derive(Default)]
struct Twins {
    /// The mouse is taken by such a grab.
    expected: bool,
    last: Option<(f64, f64)>,
}

impl Twins {
    /// Whether `delta` is the second of two.
    fn is_second(&mut self, delta: (f64, f64)) -> bool {
        let second = self.expected && self.last == Some(delta);
        self.last = (!second).then_some(delta);
        second
    }
}

impl Screen {
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

    fn release_all(&mut self) {
        for key in std::mem::take(&mut self.down) {
            press(&self.remote.input, key, false);
        }
        self.swallowed.clear();
    }

    fn carry_out(&mut self, hotkey: Hotkey) {
        match hotkey {
            Hotkey::Grab => self.grab(!self.grabbed),
            Hotkey::FullScreen => {
                if let Some(view) = &self.view {
                    let wanted = view.window.fullscreen().is_none().then_some(Fullscreen::Borderless(None));
                    view.window.set_fullscreen(wanted);
                }
            }
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
        let Some(view) = &self.view else { return };
        let mode = |mode| view.window.set_cursor_grab(mode).is_ok();
        let locked = wanted && mode(CursorGrabMode::Locked);
        let confined = wanted && !locked && mode(CursorGrabMode::Confined);
        if locked || confined || !wanted && mode(CursorGrabMode::None) {
            self.twins = Twins { expected: confined && cfg!(target_os = "linux"), last: None };
            self.grabbed = wanted;
            view.window.set_cursor_visible(!wanted);
            self.show_title();
        }
    }

    fn button(&mut self, button: MouseButton, pressed: bool) {
        if !self.grabbed {
            // The click that takes the mouse is not the guest's.
            if pressed {
                self.grab(true);
            }
            return;
        }
        let button = match button {
            MouseButton::Left => Button::Left,
            MouseButton::Right => Button::Right,
            MouseButton::Middle => Button::Middle,
            MouseButton::Back => Button::Side,
            MouseButton::Forward => Button::Extra,
            MouseButton::Other(_) => return,
        };
        self.remote.input.send(InputEvent::Button { button, pressed });
    }

    fn scroll(&mut self, delta: MouseScrollDelta) {
        // The host counts away from the user, the guest towards them.
        self.wheel -= match delta {
            MouseScrollDelta::LineDelta(_, lines) => f64::from(lines),
            MouseScrollDelta::PixelDelta(at) => at.y / NOTCH,
        };
        let notches = self.wheel.trunc();
        self.wheel -= notches;
        if self.grabbed && notches != 0.0 {
            self.remote.input.send(InputEvent::Wheel(notches as i32));
        }
    }

    fn show_title(&mut self) {
        let Some(view) = &self.view else { return };
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
        view.window.set_title(&format!("emu{name} - {state}{mouse} - {HOTKEYS}"));
    }

    /// Looks whether the guest's screen has changed, and draws it then.
    fn look(&mut self) {
        let Some(display) = self.remote.display.clone() else { return };
        let (now, _) = self.remote.time();
        let before = (self.frame.width, self.frame.height);
        let damage = display.refresh(now, &mut self.frame);
        let Some(view) = &self.view else { return };
        let size = (self.frame.width, self.frame.height);
        if before != size && !self.resized && view.window.fullscreen().is_none() && size.0 > 0 && size.1 > 0 {
            // The answer comes at once or as an event.
            let _ = view.window.request_inner_size(PhysicalSize::new(size.0 as u32, size.1 as u32));
        }
        if damage != Damage::None {
            view.window.request_redraw();
        }
    }

    fn draw(&mut self) {
        let Some(view) = &mut self.view else { return };
        let size = view.window.inner_size();
        let (Some(width), Some(height)) = (NonZeroU32::new(size.width), NonZeroU32::new(size.height)) else { return };
        let drawn = view.surface.resize(width, height).and_then(|()| {
            let mut buffer = view.surface.buffer_mut()?;
            scale::fit(&self.frame, &mut buffer, size.width as usize, size.height as usize);
            buffer.present()
        });
        if let Err(e) = drawn {
            report::complain(&format!("cannot draw: {e}"));
            exit::request("host-ui");
        }
    }

    fn open(&self, event_loop: &ActiveEventLoop) -> Result<View, Box<dyn std::error::Error>> {
        let full_screen = self.options.full_screen.then_some(Fullscreen::Borderless(None));
        let attributes = Window::default_attributes()
            .with_title("emu")
            .with_inner_size(PhysicalSize::new(FIRST_SIZE.0, FIRST_SIZE.1))
            .with_fullscreen(full_screen);
        let window = Rc::new(event_loop.create_window(attributes)?);
        let context = Context::new(window.clone())?;
        let surface = Surface::new(&context, window.clone())?;
        Ok(View { window, surface })
    }
}

impl ApplicationHandler for Screen {
    fn resumed(&mut self, event_loop: &ActiveEventLoop) {
        if self.view.is_some() {
            return;
        }
        match self.open(event_loop) {
            Ok(view) => self.view = Some(view),
            Err(e) => {
                report::complain(&format!("cannot open a window: {e}"));
                exit::leave(1);
            }
        }
        self.show_title();
    }

    fn new_events(&mut self, event_loop: &ActiveEventLoop, cause: StartCause) {
        if matches!(cause, StartCause::WaitCancelled { .. }) {
            return;
        }
        let now = Instant::now();
        if now >= self.next_title {
            self.next_title = now + TITLE_TIME;
            self.show_title();
        }
        self.look();
        let wait = if self.hidden { HIDDEN_TIME } else { FRAME_TIME };
        event_loop.set_control_flow(ControlFlow::WaitUntil(now + wait));
    }

    fn window_event(&mut self, _: &ActiveEventLoop, _: WindowId, event: WindowEvent) {
        match event {
            WindowEvent::CloseRequested if self.options.close => exit::request("host-ui"),
            WindowEvent::RedrawRequested => self.draw(),
            WindowEvent::Resized(size) => {
                let own = (size.width as usize, size.height as usize) == (self.frame.width, self.frame.height);
                let first = (size.width, size.height) == FIRST_SIZE;
                self.resized = !own && !first;
                if let Some(view) = &self.view {
                    view.window.request_redraw();
                }
            }
            WindowEvent::Occluded(hidden) => self.hidden = hidden,
            WindowEvent::Focused(false) => {
                self.release_all();
                self.grab(false);
            }
            // Keys that were down before the window had the focus are none of the guest's business, nor are the
            // host's repeats: the keyboard repeats by itself.
            WindowEvent::KeyboardInput { event, is_synthetic, .. } if !event.repeat => {
                let pressed = event.state == ElementState::Pressed;
                if let PhysicalKey::Code(code) = event.physical_key
                    && let Some(key) = keys::key(code)
                    && !(is_synthetic && pressed)
                {
                    self.key(key, pressed);
                }
            }
            WindowEvent::MouseInput { state, button, .. } => self.button(button, state == ElementState::Pressed),
            WindowEvent::MouseWheel { delta, .. } => self.scroll(delta),
            _ => {}
        }
    }

    fn device_event(&mut self, _: &ActiveEventLoop, _: DeviceId, event: DeviceEvent) {
        if let DeviceEvent::MouseMotion { delta: (dx, dy) } = event
            && self.grabbed
            && !self.twins.is_second((dx, dy))
        {
            let (x, y) = (self.motion.0 + dx, self.motion.1 + dy);
            self.motion = (x.fract(), y.fract());
            self.remote.input.send(InputEvent::Motion { dx: x as i32, dy: y as i32 });
        }
    }
}
