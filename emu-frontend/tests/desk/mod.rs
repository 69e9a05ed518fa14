//! A desk for tests of the window: an X server without a screen of glass (Xvfb), a window manager (openbox), and hands on
//! keyboard and mouse (the extension XTEST).

use crate::guest::{PATIENCE, temporary};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use x11rb::connection::Connection;
use x11rb::protocol::xproto::{
    AtomEnum, ClientMessageEvent, ConfigureWindowAux, ConnectionExt as _, CreateWindowAux, Drawable, EventMask,
    ImageFormat, InputFocus, KeyButMask, Window, WindowClass,
};
use x11rb::protocol::xtest::ConnectionExt as _;
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

/// Width and height of the screen.
pub const SCREEN: (u16, u16) = (1024, 768);

/// No key and no button of the window manager's own, so that all of them are the window's.
const RULES: &str = r#"<openbox_config xmlns="http://openbox.org/3.4/rc"><keyboard/><mouse/></openbox_config>"#;

/// Kinds of events, as XTEST takes them.
const KEY: u8 = x11rb::protocol::xproto::KEY_PRESS_EVENT;
const BUTTON: u8 = x11rb::protocol::xproto::BUTTON_PRESS_EVENT;
const MOTION: u8 = x11rb::protocol::xproto::MOTION_NOTIFY_EVENT;

/// The desk; cleared when dropped.
pub struct Desk {
    /// The value of DISPLAY.
    pub display: String,
    connection: RustConnection,
    root: Window,
    rules: PathBuf,
    manager: Child,
    server: Child,
}

/// Pixels as XRGB.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    pub pixels: Vec<u32>,
}

/// Looks until `look` finds something.
///
/// # Panics
/// It does not come.
pub fn await_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Desk {
    /// Sets up a desk for the test called `name`.
    pub fn set_up(name: &str) -> Desk {
        let mut command = Command::new("Xvfb");
        let (width, height) = SCREEN;
        command.args(["-displayfd", "1", "-screen", "0", &format!("{width}x{height}x24")]);
        let mut server =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("Xvfb (package xvfb) starts");
        let mut number = String::new();
        let output = server.stdout.take().expect("stdout is piped");
        BufReader::new(output).read_line(&mut number).expect("Xvfb tells its number");
        let display = format!(":{}", number.trim());
        let rules = temporary(&format!("{name}.xml"));
        std::fs::write(&rules, RULES).unwrap();
        let mut command = Command::new("openbox");
        command.arg("--config-file").arg(&rules).env("DISPLAY", &display).stderr(Stdio::null());
        let manager = command.spawn().expect("openbox (package openbox) starts");
        let (connection, screen) = x11rb::connect(Some(&display)).expect("the X server takes clients");
        let root = connection.setup().roots[screen].root;
        let desk = Desk { display, connection, root, rules, manager, server };
        desk.await_manager();
        desk
    }

    /// Waits until the window manager takes care of windows. While it starts, it may forget some that are to be shown.
    fn await_manager(&self) {
        let (root, probe) = (self.root, self.connection.generate_id().unwrap());
        let (class, own) = (WindowClass::INPUT_OUTPUT, CreateWindowAux::new());
        self.connection.create_window(0, probe, root, 0, 0, 1, 1, 0, class, x11rb::COPY_FROM_PARENT, &own).unwrap();
        await_some("the window manager", || {
            self.connection.map_window(probe).unwrap();
            // Inter-Client Communication Conventions Manual 4.1.3.1: set for each window by its manager.
            self.property(probe, "WM_STATE")
        });
        self.connection.destroy_window(probe).unwrap();
        await_some("the window manager to forget", || {
            self.property(root, "_NET_CLIENT_LIST").is_none_or(|list| list.is_empty()).then_some(())
        });
    }

    fn property(&self, window: Window, name: &str) -> Option<Vec<u8>> {
        let atom = self.connection.intern_atom(false, name.as_bytes()).ok()?.reply().ok()?.atom;
        let property = self.connection.get_property(false, window, atom, AtomEnum::ANY, 0, 1024).ok()?.reply().ok()?;
        (!property.value.is_empty()).then_some(property.value)
    }

    /// The title of `window`.
    pub fn title(&self, window: Window) -> String {
        let title = self.property(window, "_NET_WM_NAME").unwrap_or_default();
        String::from_utf8_lossy(&title).into_owned()
    }

    /// Waits for a title with `part` in it.
    pub fn await_title(&self, window: Window, part: &str) -> String {
        await_some(&format!("a title with {part:?}"), || Some(self.title(window)).filter(|title| title.contains(part)))
    }

    fn find(&self, window: Window, title: &str) -> Option<Window> {
        if self.title(window).starts_with(title) {
            return Some(window);
        }
        let tree = self.connection.query_tree(window).ok()?.reply().ok()?;
        tree.children.into_iter().find_map(|child| self.find(child, title))
    }

    /// Waits for the window whose title begins with `title` to have the keyboard.
    pub fn await_window(&self, title: &str) -> Window {
        let window = await_some("the window", || self.find(self.root, title));
        await_some("the focus", || (self.focus() == window).then_some(()));
        // The window's own look at the focus and at its place: the server has told it, but it may not have listened yet.
        await_some("the title", || self.title(window).contains(" - ").then_some(()));
        window
    }

    fn focus(&self) -> Window {
        self.connection.get_input_focus().unwrap().reply().unwrap().focus
    }

    /// Takes the keyboard away from all windows, or gives it to `window`.
    pub fn set_focus(&self, window: Option<Window>) {
        let to = window.unwrap_or(self.root);
        // A window that is not visible yet cannot have it; the error is of no interest.
        let request = self.connection.set_input_focus(InputFocus::PARENT, to, x11rb::CURRENT_TIME);
        let _ = request.unwrap().check();
    }

    fn fake(&self, kind: u8, detail: u8, x: i16, y: i16) {
        self.connection.xtest_fake_input(kind, detail, x11rb::CURRENT_TIME, self.root, x, y, 0).unwrap();
        self.connection.sync().unwrap();
    }

    /// Presses or releases the key that Linux knows as `code` (linux/input-event-codes.h).
    pub fn key(&self, code: u8, pressed: bool) {
        self.fake(if pressed { KEY } else { KEY + 1 }, code + 8, 0, 0);
    }

    /// Presses and releases keys: all down, then all up in the opposite order.
    pub fn chord(&self, codes: &[u8]) {
        codes.iter().for_each(|code| self.key(*code, true));
        codes.iter().rev().for_each(|code| self.key(*code, false));
    }

    /// Presses or releases a mouse button; X counts from 1.
    pub fn button(&self, button: u8, pressed: bool) {
        self.fake(if pressed { BUTTON } else { BUTTON + 1 }, button, 0, 0);
    }

    /// Presses and releases a mouse button.
    pub fn click(&self, button: u8) {
        self.button(button, true);
        self.button(button, false);
    }

    /// Moves the pointer to a place on the screen.
    pub fn point(&self, x: i16, y: i16) {
        self.fake(MOTION, 0, x, y);
    }

    /// Moves the pointer from where it is.
    pub fn shift(&self, dx: i16, dy: i16) {
        self.fake(MOTION, 1, dx, dy);
    }

    /// Where the pointer is on the screen.
    pub fn pointer(&self) -> (i16, i16) {
        let pointer = self.connection.query_pointer(self.root).unwrap().reply().unwrap();
        assert_eq!(pointer.mask, KeyButMask::from(0u16), "nothing is held");
        (pointer.root_x, pointer.root_y)
    }

    /// Left, top, width and height of a window's inside, on the screen.
    pub fn place(&self, window: Window) -> (i16, i16, u16, u16) {
        let size = self.connection.get_geometry(window).unwrap().reply().unwrap();
        let at = self.connection.translate_coordinates(window, self.root, 0, 0).unwrap().reply().unwrap();
        (at.dst_x, at.dst_y, size.width, size.height)
    }

    /// Asks a window to close, as the button of its frame does (ICCCM, WM_DELETE_WINDOW).
    pub fn close(&self, window: Window) {
        let atom = |name: &[u8]| self.connection.intern_atom(false, name).unwrap().reply().unwrap().atom;
        let data = [atom(b"WM_DELETE_WINDOW"), x11rb::CURRENT_TIME, 0, 0, 0];
        let message = ClientMessageEvent::new(32, window, atom(b"WM_PROTOCOLS"), data);
        self.connection.send_event(false, window, EventMask::NO_EVENT, message).unwrap();
        self.connection.sync().unwrap();
    }

    /// Takes a window away from its program.
    pub fn destroy(&self, window: Window) {
        self.connection.kill_client(window).unwrap();
        self.connection.sync().unwrap();
    }

    /// Ends the X server.
    pub fn unplug(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.server);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.server.wait().unwrap();
    }

    /// Gives a window another size, as its user would.
    pub fn resize(&self, window: Window, width: u32, height: u32) {
        let size = ConfigureWindowAux::new().x(0).y(0).width(width).height(height);
        self.connection.configure_window(window, &size).unwrap();
        self.connection.sync().unwrap();
    }

    /// Exchanges what the layout prints on two keys.
    pub fn exchange_keys(&self, one: u8, other: u8) {
        let of = |code: u8| self.connection.get_keyboard_mapping(code + 8, 1).unwrap().reply().unwrap();
        let (first, second) = (of(one), of(other));
        let set = |code: u8, keysyms: &[u32], per: u8| {
            self.connection.change_keyboard_mapping(1, code + 8, per, keysyms).unwrap();
        };
        set(one, &second.keysyms, second.keysyms_per_keycode);
        set(other, &first.keysyms, first.keysyms_per_keycode);
        self.connection.sync().unwrap();
    }

    /// What a window shows.
    pub fn picture(&self, window: Drawable) -> Picture {
        await_some("a picture", || {
            let size = self.connection.get_geometry(window).ok()?.reply().ok()?;
            let image = self.connection.get_image(ImageFormat::Z_PIXMAP, window, 0, 0, size.width, size.height, !0);
            // Fails while the window changes its size or is not wholly on the screen.
            let data = image.ok()?.reply().ok()?.data;
            let pixel = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]);
            let pixels = data.chunks_exact(4).map(pixel).collect();
            Some(Picture { width: size.width.into(), height: size.height.into(), pixels })
        })
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        for process in [&mut self.manager, &mut self.server] {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = std::fs::remove_file(&self.rules);
    }
}
