//! The window in a real X server: what it shows, its hotkeys, and that keyboard and mouse reach the guest.
#![cfg(feature = "window")]

mod desk;
mod guest;

use desk::{Desk, Picture, SCREEN, await_some};
use guest::{Emulator, PATIENCE, Stream, temporary};
use std::path::Path;
use std::time::{Duration, Instant};

/// Keys by their Linux numbers (linux/input-event-codes.h).
mod code {
    pub const S: u8 = 31;
    pub const D: u8 = 32;
    pub const F: u8 = 33;
    pub const G: u8 = 34;
    pub const P: u8 = 25;
    pub const Q: u8 = 16;
    pub const A: u8 = 30;
    pub const CTRL: u8 = 29;
    pub const ALT: u8 = 56;
}

/// Every key of a 105-key keyboard: its Linux number, and what it sends in set 1 when it goes down and up.
const KEYS: &[(u8, &str)] = &[
    (1, "01 81 "),
    (2, "02 82 "),
    (3, "03 83 "),
    (4, "04 84 "),
    (5, "05 85 "),
    (6, "06 86 "),
    (7, "07 87 "),
    (8, "08 88 "),
    (9, "09 89 "),
    (10, "0a 8a "),
    (11, "0b 8b "),
    (12, "0c 8c "),
    (13, "0d 8d "),
    (14, "0e 8e "),
    (15, "0f 8f "),
    (16, "10 90 "),
    (17, "11 91 "),
    (18, "12 92 "),
    (19, "13 93 "),
    (20, "14 94 "),
    (21, "15 95 "),
    (22, "16 96 "),
    (23, "17 97 "),
    (24, "18 98 "),
    (25, "19 99 "),
    (26, "1a 9a "),
    (27, "1b 9b "),
    (28, "1c 9c "),
    (29, "1d 9d "),
    (30, "1e 9e "),
    (31, "1f 9f "),
    (32, "20 a0 "),
    (33, "21 a1 "),
    (34, "22 a2 "),
    (35, "23 a3 "),
    (36, "24 a4 "),
    (37, "25 a5 "),
    (38, "26 a6 "),
    (39, "27 a7 "),
    (40, "28 a8 "),
    (41, "29 a9 "),
    (42, "2a aa "),
    (43, "2b ab "),
    (44, "2c ac "),
    (45, "2d ad "),
    (46, "2e ae "),
    (47, "2f af "),
    (48, "30 b0 "),
    (49, "31 b1 "),
    (50, "32 b2 "),
    (51, "33 b3 "),
    (52, "34 b4 "),
    (53, "35 b5 "),
    (54, "36 b6 "),
    (55, "37 b7 "),
    (56, "38 b8 "),
    (57, "39 b9 "),
    (58, "3a ba "),
    (59, "3b bb "),
    (60, "3c bc "),
    (61, "3d bd "),
    (62, "3e be "),
    (63, "3f bf "),
    (64, "40 c0 "),
    (65, "41 c1 "),
    (66, "42 c2 "),
    (67, "43 c3 "),
    (68, "44 c4 "),
    (69, "45 c5 "),
    (70, "46 c6 "),
    (71, "47 c7 "),
    (72, "48 c8 "),
    (73, "49 c9 "),
    (74, "4a ca "),
    (75, "4b cb "),
    (76, "4c cc "),
    (77, "4d cd "),
    (78, "4e ce "),
    (79, "4f cf "),
    (80, "50 d0 "),
    (81, "51 d1 "),
    (82, "52 d2 "),
    (83, "53 d3 "),
    (86, "56 d6 "),
    (87, "57 d7 "),
    (88, "58 d8 "),
    // Behind the prefix E0: the keypad's Enter and divide, right Control and Alt, the navigation keys, the logo keys.
    (96, "e0 1c e0 9c "),
    (97, "e0 1d e0 9d "),
    (98, "e0 35 e0 b5 "),
    (100, "e0 38 e0 b8 "),
    (102, "e0 47 e0 c7 "),
    (103, "e0 48 e0 c8 "),
    (104, "e0 49 e0 c9 "),
    (105, "e0 4b e0 cb "),
    (106, "e0 4d e0 cd "),
    (107, "e0 4f e0 cf "),
    (108, "e0 50 e0 d0 "),
    (109, "e0 51 e0 d1 "),
    (110, "e0 52 e0 d2 "),
    (111, "e0 53 e0 d3 "),
    (125, "e0 5b e0 db "),
    (126, "e0 5c e0 dc "),
    (127, "e0 5d e0 dd "),
    // Print Screen, and Pause, which has no release.
    (99, "e0 2a e0 37 e0 b7 e0 aa "),
    (119, "e1 1d 45 e1 9d c5 "),
];

/// A guest that prints what keyboard and mouse send, in a window on `desk`.
fn listening_guest(name: &str, desk: &Desk) -> (Emulator, u32) {
    guest_that_obeys(b"k", name, desk)
}

/// A guest that has been given a letter that turns its mouse on.
fn guest_that_obeys(letter: &[u8], name: &str, desk: &Desk) -> (Emulator, u32) {
    let arguments = ["-display", "window", "-serial", "stdio", "-monitor", "none", "-name", "guest7"];
    let mut emu = Emulator::start_with(name, &arguments, &[("DISPLAY", &desk.display)]);
    emu.output.expect("ready\n");
    emu.type_keys(letter);
    // The mouse acknowledges.
    emu.output.expect("mfa ");
    let window = desk.await_window("emu");
    (emu, window)
}

/// A guest in a window on `desk`, with a monitor on stdin.
fn monitored_guest(name: &str, desk: &Desk, folder: &Path) -> (Emulator, u32) {
    shown_guest(name, desk, folder, &["-display", "window"])
}

/// The same with a display of the test's own choice.
fn shown_guest(name: &str, desk: &Desk, folder: &Path, display: &[&str]) -> (Emulator, u32) {
    let mut emu = Emulator::launch(name, |command| {
        command.args(["-monitor", "stdio"]).args(display).env("DISPLAY", &desk.display).current_dir(folder)
    });
    emu.output.expect("(qemu) ");
    let window = desk.await_window("emu");
    (emu, window)
}

fn monitor(emu: &mut Emulator, line: &str) -> String {
    emu.type_keys(format!("{line}\n").as_bytes());
    emu.output.expect("\r\n");
    emu.output.expect("(qemu) ").trim_end_matches("(qemu) ").into()
}

fn read_ppm(path: &Path) -> Option<Picture> {
    let bytes = std::fs::read(path).ok()?;
    let mut lines = bytes.splitn(4, |byte| *byte == b'\n');
    let (magic, size, _, samples) = (lines.next()?, lines.next()?, lines.next()?, lines.next()?);
    let (width, height) = std::str::from_utf8(size).ok()?.split_once(' ')?;
    let (width, height) = (width.parse().ok()?, height.parse().ok()?);
    (magic == b"P6" && samples.len() == 3 * width * height).then(|| Picture { width, height, pixels: pixels(samples) })
}

fn read_png(path: &Path) -> Option<Picture> {
    let mut reader = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(path).ok()?)).read_info().ok()?;
    let mut samples = vec![0; reader.output_buffer_size()?];
    let info = reader.next_frame(&mut samples).ok()?;
    Some(Picture { width: info.width as usize, height: info.height as usize, pixels: pixels(&samples) })
}

fn pixels(samples: &[u8]) -> Vec<u32> {
    samples.chunks_exact(3).map(|rgb| u32::from_be_bytes([0, rgb[0], rgb[1], rgb[2]])).collect()
}

/// `picture` as large as it fits into `width` by `height`, in the middle of black, by nearest pixels.
fn scaled(picture: &Picture, width: usize, height: usize) -> Picture {
    let wide = width * picture.height > height * picture.width;
    let (w, h) = match wide {
        true => (height * picture.width / picture.height, height),
        false => (width, width * picture.height / picture.width),
    };
    let (left, top) = ((width - w) / 2, (height - h) / 2);
    let mut pixels = vec![0; width * height];
    for y in 0..h {
        for x in 0..w {
            let source = y * picture.height / h * picture.width + x * picture.width / w;
            pixels[(top + y) * width + left + x] = picture.pixels[source];
        }
    }
    Picture { width, height, pixels }
}

/// Gives the guest's empty screen a colour by which it is told from the bars around it, and no cursor that blinks.
fn paint(emu: &mut Emulator) {
    // Colour 0, the background, becomes red with some green: DAC write address, then three times six bits.
    let colour = ["o /b 0x3c8 0", "o /b 0x3c9 63", "o /b 0x3c9 16", "o /b 0x3c9 0"];
    // The CRT controller's Cursor Start Register: cursor off.
    for command in colour.into_iter().chain(["o /b 0x3d4 0x0a", "o /b 0x3d5 0x20"]) {
        assert_eq!(monitor(emu, command), "");
    }
}

/// Waits until the window shows what `screendump` saves, scaled to its own size.
fn expect_guests_screen(emu: &mut Emulator, desk: &Desk, window: u32, size: (usize, usize)) -> Picture {
    expect_screen(emu, desk, window, size, |guest| guest.pixels[0] == 0x00ff_4100)
}

/// The same for a screen that is the one that is wanted.
fn expect_screen(
    emu: &mut Emulator,
    desk: &Desk,
    window: u32,
    size: (usize, usize),
    is_wanted: impl Fn(&Picture) -> bool,
) -> Picture {
    // Each desk has a display of its own, and tests run side by side.
    let path = temporary(&format!("window{}.ppm", desk.display.trim_start_matches(':')));
    let deadline = Instant::now() + PATIENCE;
    loop {
        monitor(emu, &format!("screendump {}", path.display()));
        let shown = desk.picture(window);
        if let Some(guest) = read_ppm(&path)
            && is_wanted(&guest)
            && (shown.width, shown.height) == size
            && shown == scaled(&guest, size.0, size.1)
        {
            std::fs::remove_file(path).unwrap();
            return guest;
        }
        let (width, height) = (shown.width, shown.height);
        assert!(Instant::now() < deadline, "the window, {width} by {height}, does not show the guest's screen");
    }
}

#[test]
fn window_shows_what_screendump_saves_in_every_size() {
    let desk = Desk::set_up("sizes");
    let (mut emu, window) = monitored_guest("sizes", &desk, &std::env::temp_dir());
    assert!(monitor(&mut emu, "info status").contains("VM status: running"));
    paint(&mut emu);
    expect_guests_screen(&mut emu, &desk, window, (720, 400));
    // Bars above and below, bars on both sides, smaller than the guest's screen, whole multiples in one direction.
    for (width, height) in [(900, 700), (1000, 300), (300, 300), (720, 600)] {
        desk.resize(window, width, height);
        expect_guests_screen(&mut emu, &desk, window, (width as usize, height as usize));
    }
    emu.type_keys(b"quit\n");
    assert_eq!(emu.wait(), Some(0));
}

#[test]
fn window_follows_the_guests_resolution_until_its_user_chooses_a_size() {
    let desk = Desk::set_up("resolution");
    let (mut emu, window) = monitored_guest("resolution", &desk, &std::env::temp_dir());
    paint(&mut emu);
    expect_guests_screen(&mut emu, &desk, window, (720, 400));
    // Bochs VBE extensions: index at 1CEh, data at 1CFh; registers 1 to 4 are width, height, bits and enable. Here with the
    // linear frame buffer and without clearing it, so that there is something to see.
    let set_mode = |emu: &mut Emulator, width: usize, height: usize| {
        for (index, value) in [(4, 0), (1, width), (2, height), (3, 32), (4, 0xc1)] {
            monitor(emu, &format!("o /h 0x1ce {index}"));
            monitor(emu, &format!("o /h 0x1cf {value}"));
        }
    };
    let of = |width, height| move |guest: &Picture| (guest.width, guest.height) == (width, height);
    for (width, height) in [(640, 480), (800, 600)] {
        set_mode(&mut emu, width, height);
        expect_screen(&mut emu, &desk, window, (width, height), of(width, height));
    }
    desk.resize(window, 500, 500);
    // Not before emu knows of it.
    expect_screen(&mut emu, &desk, window, (500, 500), of(800, 600));
    set_mode(&mut emu, 640, 400);
    expect_screen(&mut emu, &desk, window, (500, 500), of(640, 400));
}

#[test]
fn close_button_ends_the_emulator_unless_it_is_told_otherwise() {
    let desk = Desk::set_up("close");
    let (mut emu, window) = monitored_guest("close", &desk, &std::env::temp_dir());
    desk.close(window);
    assert_eq!(emu.wait(), Some(0));
    let display = ["-display", "gtk,window-close=off", "-full-screen"];
    let (mut emu, window) = shown_guest("close-off", &desk, &std::env::temp_dir(), &display);
    await_some("the full screen", || (desk.place(window) == (0, 0, SCREEN.0, SCREEN.1)).then_some(()));
    for _ in 0..2 {
        desk.close(window);
        std::thread::sleep(Duration::from_millis(300));
        assert!(monitor(&mut emu, "info status").contains("VM status: running"));
    }
    emu.type_keys(b"quit\n");
    assert_eq!(emu.wait(), Some(0));
}

#[test]
fn full_screen_key_fills_the_screen_and_gives_it_back() {
    let desk = Desk::set_up("full-screen");
    let (mut emu, window) = monitored_guest("full-screen", &desk, &std::env::temp_dir());
    paint(&mut emu);
    expect_guests_screen(&mut emu, &desk, window, (720, 400));
    desk.chord(&[code::CTRL, code::ALT, code::F]);
    let whole = (0, 0, SCREEN.0, SCREEN.1);
    await_some("the full screen", || (desk.place(window) == whole).then_some(()));
    expect_guests_screen(&mut emu, &desk, window, (SCREEN.0.into(), SCREEN.1.into()));
    desk.chord(&[code::CTRL, code::ALT, code::F]);
    await_some("the window", || (desk.place(window) != whole).then_some(()));
    expect_guests_screen(&mut emu, &desk, window, (720, 400));
}

#[test]
fn screenshot_key_saves_what_the_guest_shows() {
    let desk = Desk::set_up("screenshot");
    let folder = temporary("screenshot");
    std::fs::create_dir_all(&folder).unwrap();
    let (mut emu, window) = monitored_guest("screenshot", &desk, &folder);
    paint(&mut emu);
    let guest = expect_guests_screen(&mut emu, &desk, window, (720, 400));
    for number in 1..=2 {
        let keys = [code::CTRL, code::ALT, code::S];
        keys.iter().for_each(|key| desk.key(*key, true));
        // For longer than X waits before it repeats a key (660 ms): a repetition is not another screenshot.
        std::thread::sleep(Duration::from_millis(900));
        keys.iter().rev().for_each(|key| desk.key(*key, false));
        let name = format!("emu-screenshot-{number}.png");
        emu.errors.expect(&format!("emu: screenshot saved as {name}\n"));
        assert!(read_png(&folder.join(&name)) == Some(guest.clone()), "{name} shows something else");
    }
    assert!(!folder.join("emu-screenshot-3.png").exists());
    drop(emu);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn pause_key_stops_and_continues_and_the_title_tells() {
    let desk = Desk::set_up("pause");
    let (mut emu, window) = monitored_guest("pause", &desk, &std::env::temp_dir());
    let title = desk.await_title(window, " million instructions/s - ");
    for hotkey in ["G mouse", "F full screen", "S screenshot", "D Ctrl-Alt-Del", "P pause", "Q quit"] {
        assert!(title.contains(hotkey), "{title}");
    }
    // A guest that never halts has a speed, once there is something to compare with.
    await_some("the speed", || (!desk.title(window).contains(" 0 million")).then_some(()));
    desk.chord(&[code::CTRL, code::ALT, code::P]);
    desk.await_title(window, "emu - paused - ");
    assert!(monitor(&mut emu, "info status").contains("VM status: paused"));
    desk.chord(&[code::CTRL, code::ALT, code::P]);
    desk.await_title(window, " million instructions/s - ");
    assert!(monitor(&mut emu, "info status").contains("VM status: running"));
    // The monitor's own stop is told as well.
    monitor(&mut emu, "stop");
    desk.await_title(window, "emu - paused - ");
}

#[test]
fn quit_key_ends_with_status_0() {
    let desk = Desk::set_up("quit");
    let (mut emu, _) = listening_guest("quit", &desk);
    desk.chord(&[code::CTRL, code::ALT, code::Q]);
    assert_eq!(emu.wait(), Some(0));
}

#[test]
fn window_needs_no_input_method_that_the_environment_names() {
    let desk = Desk::set_up("input-method");
    let arguments = ["-display", "window", "-serial", "stdio", "-monitor", "none"];
    let environment = [("DISPLAY", desk.display.as_str()), ("XMODIFIERS", "@im=missing")];
    let mut emu = Emulator::start_with("input-method", &arguments, &environment);
    emu.output.expect("ready\n");
    desk.await_window("emu");
    desk.chord(&[code::CTRL, code::ALT, code::Q]);
    assert_eq!(emu.wait(), Some(0));
}

#[test]
fn every_key_is_the_pc_key_in_its_place() {
    let desk = Desk::set_up("keys");
    let (mut emu, _) = listening_guest("keys", &desk);
    for (code, sent) in KEYS {
        desk.chord(&[*code]);
        assert_eq!(emu.output.expect(sent), *sent, "key {code}");
    }
    // Modifiers are held while others are typed, and a layout that exchanges A and Q changes nothing.
    desk.chord(&[42, 97, code::A]);
    let held = "2a e0 1d 1e 9e e0 9d aa ";
    assert_eq!(emu.output.expect(held), held);
    desk.exchange_keys(code::A, code::Q);
    desk.chord(&[code::A]);
    assert_eq!(emu.output.expect("1e 9e "), "1e 9e ");
}

#[test]
fn control_alt_delete_key_types_all_three_and_hotkeys_are_not_the_guests() {
    let desk = Desk::set_up("ctrl-alt-del");
    let (mut emu, _) = listening_guest("ctrl-alt-del", &desk);
    desk.key(code::CTRL, true);
    desk.key(code::ALT, true);
    desk.key(code::D, true);
    // Keys that are down already are not pressed again, and are up when the combination is.
    let typed = "1d 38 e0 53 e0 d3 b8 9d ";
    assert_eq!(emu.output.expect(typed), typed);
    desk.key(code::D, false);
    desk.key(code::ALT, false);
    desk.key(code::CTRL, false);
    desk.chord(&[code::A]);
    assert_eq!(emu.output.expect("1e 9e "), "1e 9e ");
}

#[test]
fn keys_that_are_held_when_the_window_loses_the_keyboard_are_released() {
    let desk = Desk::set_up("focus");
    let (mut emu, window) = listening_guest("focus", &desk);
    desk.key(42, true);
    assert_eq!(emu.output.expect("2a "), "2a ");
    desk.set_focus(None);
    assert_eq!(emu.output.expect("aa "), "aa ");
    desk.key(42, false);
    desk.set_focus(Some(window));
    desk.chord(&[code::A]);
    assert_eq!(emu.output.expect("1e 9e "), "1e 9e ");
}

#[test]
fn click_takes_the_mouse_and_the_key_gives_it_back() {
    let desk = Desk::set_up("mouse");
    let (mut emu, window) = listening_guest("mouse", &desk);
    let (left, top, ..) = desk.place(window);
    desk.point(left + 100, top + 100);
    // Neither motion before the click, nor the click itself, is the guest's.
    desk.shift(1, 1);
    desk.button(1, true);
    desk.await_title(window, "Ctrl-Alt-G releases the mouse");
    desk.button(1, false);
    let before = desk.pointer();
    for _ in 0..2 {
        desk.shift(3, 2);
        assert_eq!(emu.output.expect("m28 m03 mfe "), "m28 m03 mfe ");
    }
    let after = desk.pointer();
    assert_eq!((after.0 - before.0, after.1 - before.1), (6, 4));
    for (button, flags) in [(1, "m09"), (3, "m0a"), (2, "m0c")] {
        desk.button(button, true);
        let packet = format!("{flags} m00 m00 ");
        assert_eq!(emu.output.expect(&packet), packet);
        desk.button(button, false);
        assert_eq!(emu.output.expect("m08 m00 m00 "), "m08 m00 m00 ");
    }
    // The pointer stays within the window, and pushing against its edge is still motion.
    desk.shift(-900, -700);
    emu.output.expect("m");
    let (x, y) = desk.pointer();
    assert_eq!((x, y), (left, top));
    std::thread::sleep(Duration::from_millis(300));
    desk.shift(-3, -2);
    emu.output.expect("m18 mfd m02 ");
    desk.chord(&[code::CTRL, code::ALT, code::G]);
    emu.output.expect("b8 9d ");
    let released = || (!desk.title(window).contains("releases the mouse")).then_some(());
    await_some("a title of a free mouse", released);
    desk.point(0, 0);
    assert_eq!(desk.pointer(), (0, 0));
    // What the guest receives next is a key: no motion, and no release of the hotkey.
    std::thread::sleep(Duration::from_millis(200));
    desk.chord(&[code::A]);
    assert_eq!(emu.output.expect("1e 9e "), "1e 9e ");
}

#[test]
fn wheel_and_side_buttons_reach_the_guest_and_short_clicks_are_not_lost() {
    let desk = Desk::set_up("wheel");
    let (mut emu, window) = guest_that_obeys(b"K", "wheel", &desk);
    let (left, top, ..) = desk.place(window);
    desk.point(left + 100, top + 100);
    // Without the mouse there is no wheel, and a wheel is no click.
    desk.click(4);
    desk.click(1);
    desk.await_title(window, "Ctrl-Alt-G releases the mouse");
    for (button, packets) in [
        (4, "m08 m00 m00 m0f "),
        (5, "m08 m00 m00 m01 "),
        (8, "m08 m00 m00 m10 m08 m00 m00 m00 "),
        (9, "m08 m00 m00 m20 m08 m00 m00 m00 "),
    ] {
        desk.click(button);
        assert_eq!(emu.output.expect(packets), packets, "button {button}");
    }
    for _ in 0..5 {
        desk.click(1);
    }
    let clicks = "m09 m00 m00 m00 m08 m00 m00 m00 ".repeat(5);
    assert_eq!(emu.output.expect(&clicks), clicks);
    // A button that is down when the mouse is given back is up for the guest.
    desk.button(3, true);
    emu.output.expect("m0a m00 m00 m00 ");
    desk.chord(&[code::CTRL, code::ALT, code::G]);
    // Bytes of the keyboard may come between this and the other three.
    emu.output.expect("m08 ");
    desk.button(3, false);
}

#[test]
fn window_that_is_destroyed_and_server_that_ends_end_the_emulator_in_order() {
    for (name, reason) in
        [("destroyed", "another program has destroyed it"), ("unplugged", "the X server has ended the connection")]
    {
        // If minifb is talking to the server just then, Xlib ends the process, with status 1 and in words of its own. That
        // is rare: a paused guest is drawn when its window has another size, and then minifb has little to say.
        let in_order = (0..3).any(|_| {
            let mut desk = Desk::set_up(name);
            let (mut emu, window) = monitored_guest(name, &desk, &std::env::temp_dir());
            paint(&mut emu);
            monitor(&mut emu, "stop");
            desk.await_title(window, "emu - paused - ");
            desk.resize(window, 300, 300);
            expect_guests_screen(&mut emu, &desk, window, (300, 300));
            std::thread::sleep(Duration::from_millis(30));
            match name {
                "destroyed" => desk.destroy(window),
                _ => desk.unplug(),
            }
            let status = emu.wait();
            let errors = std::mem::replace(&mut emu.errors, Stream::of(std::io::empty())).rest();
            let errors = String::from_utf8_lossy(&errors);
            match status {
                Some(0) => assert_eq!(errors, format!("emu: the window is gone: {reason}\n")),
                _ => assert!(status == Some(1) && errors.starts_with('X'), "{errors}"),
            }
            status == Some(0)
        });
        assert!(in_order, "{name}");
    }
}
