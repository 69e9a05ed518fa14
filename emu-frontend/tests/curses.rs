//! `-display curses` on a pseudo-terminal: the built-in firmware's monitor is read and typed to as its user would.

mod guest;

use guest::PATIENCE;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A terminal that draws what it is sent, as far as emu draws: ECMA-48's CUP and ED, and characters.
struct Terminal {
    master: OwnedFd,
    /// Our own handle on the program's side, so that its settings can be looked at when the program has gone.
    slave: OwnedFd,
    pending: Vec<u8>,
    rows: Vec<Vec<char>>,
    at: (usize, usize),
    /// Everything that came, for what is no text.
    seen: Vec<u8>,
}

/// More than any size in these tests.
const GRID: (usize, usize) = (200, 100);

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Terminal {
    fn open(columns: u16, rows: u16) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap();
        let slave = open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        tcsetwinsize(&slave, size(columns, rows)).unwrap();
        let rows = vec![vec![' '; GRID.0]; GRID.1];
        Terminal { master, slave, pending: Vec::new(), rows, at: (0, 0), seen: Vec::new() }
    }

    /// Starts emu with this as its terminal.
    fn start(&self, arguments: &[&str]) -> Child {
        let side = || Stdio::from(self.slave.try_clone().unwrap());
        // setsid of util-linux: a terminal of the test's own caller must not be taken for this one.
        let mut command = Command::new("setsid");
        command.args(["--ctty", env!("CARGO_BIN_EXE_emu"), "-display", "curses", "-m", "16"]);
        command.args(guest::accelerator()).args(arguments);
        command.stdin(side()).stdout(side()).stderr(Stdio::piped()).spawn().expect("setsid (package util-linux) starts")
    }

    fn resize(&self, columns: u16, rows: u16) {
        tcsetwinsize(&self.slave, size(columns, rows)).unwrap();
    }

    fn type_keys(&self, keys: &[u8]) {
        File::from(self.master.try_clone().unwrap()).write_all(keys).unwrap();
    }

    /// Takes what comes until `done`.
    fn draw_until(&mut self, what: &str, done: impl Fn(&Terminal) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} does not come:\n{}", self.text());
            let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 50_000_000 })).unwrap();
            if !fds[0].revents().is_empty() {
                let mut buffer = [0; 4096];
                let n = rustix::io::read(&self.master, &mut buffer).unwrap();
                self.draw(&buffer[..n]);
            }
        }
    }

    fn expect(&mut self, text: &str) {
        self.draw_until(&format!("{text:?}"), |terminal| terminal.text().contains(text));
    }

    fn text(&self) -> String {
        let lines = self.rows.iter().map(|row| row.iter().collect::<String>().trim_end().to_string());
        lines.collect::<Vec<_>>().join("\n").trim_end().to_string()
    }

    fn has_seen(&self, sequence: &str) -> bool {
        self.seen.windows(sequence.len()).any(|w| w == sequence.as_bytes())
    }

    fn draw(&mut self, bytes: &[u8]) {
        self.seen.extend(bytes);
        self.pending.extend(bytes);
        let pending = std::mem::take(&mut self.pending);
        // A character or an escape sequence may come in pieces.
        let whole = match std::str::from_utf8(&pending) {
            Ok(text) => text.len(),
            Err(e) => e.valid_up_to(),
        };
        let mut text = std::str::from_utf8(&pending[..whole]).expect("it is whole");
        while let Some(character) = text.chars().next() {
            if let Some(sequence) = text.strip_prefix("\x1b[") {
                let Some(end) = sequence.find(|c: char| c.is_ascii_alphabetic()) else { break };
                self.control(&sequence[..end], sequence.as_bytes()[end]);
                text = &sequence[end + 1..];
                continue;
            }
            if text == "\x1b" {
                break;
            }
            text = &text[character.len_utf8()..];
            let (x, y) = self.at;
            self.rows[y][x] = character;
            self.at.0 = (x + 1).min(GRID.0 - 1);
        }
        let left = whole - text.len();
        self.pending = pending[left..].to_vec();
    }

    fn control(&mut self, parameters: &str, letter: u8) {
        match letter {
            b'H' => {
                let mut numbers = parameters.split(';').map(|n| n.parse::<usize>().unwrap_or(1).max(1) - 1);
                let (row, column) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
                self.at = (column.min(GRID.0 - 1), row.min(GRID.1 - 1));
            }
            b'J' => self.rows.iter_mut().for_each(|row| row.fill(' ')),
            _ => {}
        }
    }
}

fn wait(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    panic!("emu does not end");
}

#[test]
fn text_mode_is_shown_keys_reach_the_guest_and_the_terminal_is_given_back() {
    let mut terminal = Terminal::open(80, 25);
    let before = tcgetattr(terminal.slave.as_fd()).unwrap();
    let mut emu = terminal.start(&[]);
    terminal.expect("help");
    assert!(terminal.has_seen("\x1b[?1049h"));
    assert!(!tcgetattr(&terminal.slave).unwrap().local_modes.contains(LocalModes::ICANON));
    // Letters, Shift, and the keys beside them.
    terminal.type_keys(b"frobNICATE 1*2\x7f3;");
    terminal.expect("frobNICATE 1*3;");
    terminal.type_keys(b"\r");
    terminal.type_keys(b"cpuid\r");
    terminal.expect("cpuid\n");
    // The escape character twice is one for the guest, and the emulator goes on.
    terminal.type_keys(b"\x01\x01");
    terminal.type_keys(b"\x01x");
    assert_eq!(wait(&mut emu), Some(0));
    terminal.draw_until("the old screen", |terminal| terminal.has_seen("\x1b[?1049l"));
    assert!(terminal.has_seen("\x1b[?25h"));
    let after = tcgetattr(terminal.slave.as_fd()).unwrap();
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
}

#[test]
fn terminal_of_any_size_and_a_changing_one_is_no_problem() {
    let mut terminal = Terminal::open(0, 0);
    let mut emu = terminal.start(&[]);
    // Nothing can be shown, and keys reach the guest all the same.
    terminal.draw_until("the alternate screen", |terminal| terminal.has_seen("\x1b[?1049h"));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(terminal.text(), "");
    terminal.resize(80, 25);
    terminal.expect("help");
    terminal.type_keys(b"unseen");
    terminal.expect("unseen");
    let whole = terminal.text();
    // A smaller one shows the corner, and nothing beyond it.
    terminal.resize(20, 5);
    let corner: Vec<String> =
        whole.lines().take(5).map(|l| l.chars().take(20).collect::<String>().trim_end().into()).collect();
    let corner = corner.join("\n").trim_end().to_string();
    terminal.draw_until("the corner", |terminal| terminal.text() == corner);
    for (columns, rows) in [(1, 1), (65535, 1), (0, 25), (0, 0), (1, 65535)] {
        terminal.resize(columns, rows);
        std::thread::sleep(Duration::from_millis(100));
    }
    terminal.resize(120, 40);
    terminal.draw_until("the whole screen", |terminal| terminal.text() == whole);
    terminal.type_keys(b"\x01x");
    assert_eq!(wait(&mut emu), Some(0));
}

#[test]
fn control_alt_delete_restarts_the_guest() {
    let mut terminal = Terminal::open(80, 25);
    let mut emu = terminal.start(&[]);
    terminal.expect("help");
    terminal.type_keys(b"something");
    terminal.expect("something");
    terminal.type_keys(b"\x01d");
    terminal.draw_until("a fresh screen", |terminal| {
        terminal.text().contains("help") && !terminal.text().contains("something")
    });
    terminal.type_keys(b"\x01x");
    assert_eq!(wait(&mut emu), Some(0));
}

#[test]
fn terminal_that_goes_away_ends_the_emulator() {
    let mut terminal = Terminal::open(80, 25);
    let mut emu = terminal.start(&[]);
    terminal.expect("help");
    drop(terminal);
    assert_eq!(wait(&mut emu), Some(0));
}
