//! Text modes in the terminal (crossterm), as QEMU's display of this name. Graphics modes show their resolution.
//!
//! Keys reach the guest as those of a US keyboard. With the escape character Ctrl-A: `x` quits, `d` sends Ctrl-Alt-Del, and
//! Ctrl-A once more is a Ctrl-A for the guest. Deliberately absent: the mouse, and keys that a terminal does not tell
//! (releases, Shift alone).

mod keys;

use super::cp437;
use super::typist::Typist;
use crate::char::terminal;
use crate::cli::error::StartError;
use crate::exit;
use crate::remote::Remote;
use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use crossterm::queue;
use crossterm::style::{Attribute, Color, Print, SetAttribute, SetBackgroundColor, SetForegroundColor};
use crossterm::terminal::{Clear, ClearType};
use emu_devices::input::Key;
use emu_devices::video::{Cell, Frame, TextScreen};
use rustix::termios::isatty;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between looks at the guest's screen.
const FRAME_TIME: Duration = Duration::from_millis(30);
/// Between looks at the resolution of a graphics mode, which has the card draw a picture.
const GRAPHICS_TIME: Duration = Duration::from_secs(1);
/// How long a key is held: long enough for the guest to see each of many that are pasted.
const HOLD: Duration = Duration::from_millis(10);
/// The terminal's number for each of the PC's colours.
const COLOURS: [u8; 8] = [0, 4, 2, 6, 1, 5, 3, 7];

/// Shows the machine behind `remote` in the terminal from now on. `escape`: the escape character.
///
/// # Errors
/// There is no terminal.
pub fn start(remote: Arc<Remote>, escape: Option<u8>) -> Result<(), StartError> {
    let failed = |problem: &str| StartError::value("display", "curses", problem);
    if !isatty(rustix::stdio::stdin()) || !isatty(rustix::stdio::stdout()) {
        return Err(failed("needs a terminal as standard input and output"));
    }
    terminal::enter(false);
    terminal::enter_screen();
    let body = move || {
        let mut screen = Screen { remote, escape, escaped: false, shown: Shown::default(), graphics: None };
        // A terminal that is gone ends the emulator, as a window that is closed does.
        let _ = screen.serve(&mut io::stdout());
        exit::request("host-ui");
    };
    let thread = std::thread::Builder::new().name("curses".into()).spawn(body);
    thread.map(drop).map_err(|e| failed(&format!("cannot start the thread: {e}")))
}

struct Screen {
    remote: Arc<Remote>,
    escape: Option<u8>,
    escaped: bool,
    shown: Shown,
    /// The last resolution, and when to look again.
    graphics: Option<(Instant, String)>,
}

/// What the terminal shows.
#[derive(Default)]
struct Shown {
    text: Option<TextScreen>,
    line: Option<String>,
    /// Columns and rows of the terminal.
    size: (u16, u16),
    /// How often the terminal had been resumed then.
    resumed: usize,
}

impl Screen {
    fn serve(&mut self, out: &mut impl Write) -> io::Result<()> {
        loop {
            self.look(out)?;
            while event::poll(FRAME_TIME)? {
                match event::read()? {
                    Event::Key(key) if key.kind != KeyEventKind::Release => self.key(key),
                    Event::Resize(..) => break,
                    _ => {}
                }
            }
        }
    }

    fn look(&mut self, out: &mut impl Write) -> io::Result<()> {
        let size = crossterm::terminal::size()?;
        let resumed = terminal::resumed();
        if size != self.shown.size || resumed != self.shown.resumed {
            self.shown = Shown { size, resumed, ..Shown::default() };
        }
        match self.remote.display.as_ref().and_then(|display| display.text()) {
            Some(text) => self.shown.show_text(out, text)?,
            None => {
                let line = self.graphics_line();
                self.shown.show_line(out, line)?;
            }
        }
        out.flush()
    }

    fn graphics_line(&mut self) -> String {
        let Some(display) = &self.remote.display else { return "This machine has no graphics card".into() };
        match &self.graphics {
            Some((until, line)) if Instant::now() < *until => line.clone(),
            _ => {
                let mut frame = Frame::default();
                display.refresh(self.remote.time().0, &mut frame);
                let line = format!("{} x {} Graphic mode", frame.width, frame.height);
                self.graphics = Some((Instant::now() + GRAPHICS_TIME, line.clone()));
                line
            }
        }
    }

    fn key(&mut self, event: KeyEvent) {
        let typist: &Typist = &self.remote.typist;
        if std::mem::take(&mut self.escaped) {
            match keys::control_code(&event) {
                Some(code) if Some(code) == self.escape => {}
                _ => match event.code {
                    event::KeyCode::Char('x') => exit::request("host-ui"),
                    event::KeyCode::Char('d') => {
                        return typist.stroke(vec![Key::ControlLeft, Key::AltLeft, Key::Delete], HOLD);
                    }
                    _ => return,
                },
            }
        } else if self.escape.is_some() && keys::control_code(&event) == self.escape {
            self.escaped = true;
            return;
        }
        if let Some(keys) = keys::keys(&event) {
            typist.stroke(keys, HOLD);
        }
    }
}

impl Shown {
    /// Shows a line instead of a text screen, as far as it fits.
    fn show_line(&mut self, out: &mut impl Write, line: String) -> io::Result<()> {
        if self.line.as_ref() == Some(&line) {
            return Ok(());
        }
        let (columns, rows) = self.size;
        let column = columns.saturating_sub(line.chars().count() as u16) / 2;
        queue!(out, SetAttribute(Attribute::Reset), Clear(ClearType::All), Hide)?;
        if rows > 0 {
            let fitting: String = line.chars().take(columns.into()).collect();
            queue!(out, MoveTo(column, rows / 2), Print(fitting))?;
        }
        *self = Shown { line: Some(line), size: self.size, resumed: self.resumed, text: None };
        Ok(())
    }

    /// Shows the cells that have changed, as far as they fit, and the cursor.
    fn show_text(&mut self, out: &mut impl Write, text: TextScreen) -> io::Result<()> {
        if self.text.as_ref() == Some(&text) {
            return Ok(());
        }
        let same_shape = |old: &&TextScreen| {
            (old.columns, old.rows, old.blink, old.cells.len())
                == (text.columns, text.rows, text.blink, text.cells.len())
        };
        let old = self.text.as_ref().filter(same_shape);
        if old.is_none() {
            queue!(out, SetAttribute(Attribute::Reset), Clear(ClearType::All))?;
        }
        let characters = cp437::table();
        let (columns, rows) = (usize::from(self.size.0), usize::from(self.size.1));
        let mut attribute = None;
        // Where the terminal's cursor is after the last character.
        let mut at = None;
        for (index, cell) in text.cells.iter().enumerate() {
            let (column, row) = (index % text.columns.max(1), index / text.columns.max(1));
            let seen = column < columns && row < rows && row < text.rows;
            if !seen || old.is_some_and(|old| old.cells[index] == *cell) {
                continue;
            }
            if at != Some((column, row)) {
                queue!(out, MoveTo(column as u16, row as u16))?;
            }
            if attribute != Some(cell.attribute) {
                set_attribute(out, *cell, text.blink)?;
                attribute = Some(cell.attribute);
            }
            queue!(out, Print(characters[usize::from(cell.character)]))?;
            // At the right edge terminals differ.
            at = (column + 1 < columns).then_some((column + 1, row));
        }
        match text.cursor.filter(|(column, row)| *column < columns && *row < rows) {
            Some((column, row)) => queue!(out, MoveTo(column as u16, row as u16), Show)?,
            None => queue!(out, Hide)?,
        }
        self.line = None;
        self.text = Some(text);
        Ok(())
    }
}

fn set_attribute(out: &mut impl Write, cell: Cell, blink: bool) -> io::Result<()> {
    let colour = |nibble: u8| Color::AnsiValue(COLOURS[usize::from(nibble & 7)] | nibble & 8);
    let background = cell.attribute >> 4 & if blink { 7 } else { 15 };
    queue!(out, SetAttribute(Attribute::Reset))?;
    if blink && cell.attribute & 0x80 != 0 {
        queue!(out, SetAttribute(Attribute::SlowBlink))?;
    }
    queue!(out, SetForegroundColor(colour(cell.attribute & 15)), SetBackgroundColor(colour(background)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(characters: &[u8], attribute: u8) -> TextScreen {
        TextScreen {
            columns: 2,
            rows: characters.len() / 2,
            cells: characters.iter().map(|character| Cell { character: *character, attribute }).collect(),
            cursor: Some((1, 0)),
            blink: true,
        }
    }

    fn shown() -> Shown {
        Shown { size: (80, 25), ..Shown::default() }
    }

    fn after(shown: &mut Shown, text: TextScreen) -> String {
        let mut out = Vec::new();
        shown.show_text(&mut out, text).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_is_shown_in_unicode_with_colours_and_cursor() {
        let out = after(&mut shown(), text(&[b'A', 0xb3, 0xdb, b' '], 0x1e));
        // Yellow on blue: the PC's 14 and 1 are the terminal's 11 and 4.
        assert!(out.contains("\x1b[38;5;11m\x1b[48;5;4mA│\x1b[2;1H█ "), "{out:?}");
        assert!(out.ends_with("\x1b[1;2H\x1b[?25h"), "{out:?}");
    }

    #[test]
    fn only_cells_that_changed_are_sent() {
        let mut shown = shown();
        after(&mut shown, text(b"abcd", 7));
        assert_eq!(after(&mut shown, text(b"abcd", 7)), "");
        let out = after(&mut shown, text(b"abxd", 7));
        assert!(out.contains("\x1b[2;1H") && out.contains('x') && !out.contains('a') && !out.contains('d'), "{out:?}");
    }

    #[test]
    fn blink_bit_blinks_or_brightens() {
        let blinking = after(&mut shown(), text(b"ab", 0x94));
        assert!(blinking.contains("\x1b[5m") && blinking.contains("\x1b[48;5;4m"), "{blinking:?}");
        let bright = after(&mut shown(), TextScreen { blink: false, ..text(b"ab", 0x94) });
        assert!(!bright.contains("\x1b[5m") && bright.contains("\x1b[48;5;12m"), "{bright:?}");
    }

    #[test]
    fn small_terminal_shows_the_corner_and_lines_replace_text() {
        let mut shown = Shown { size: (1, 1), ..Shown::default() };
        let out = after(&mut shown, text(b"abcd", 7));
        assert!(out.contains('a') && !out.contains('b') && !out.contains('c') && out.ends_with("\x1b[?25l"), "{out:?}");
        for (size, seen) in [((1, 1), "6"), ((80, 25), "640 x 480 Graphic mode"), ((0, 25), ""), ((80, 0), "")] {
            let mut shown = Shown { size, ..Shown::default() };
            let mut out = Vec::new();
            shown.show_line(&mut out, "640 x 480 Graphic mode".into()).unwrap();
            let out = String::from_utf8(out).unwrap();
            assert_eq!((out.rsplit(['H', 'l']).next(), shown.text), (Some(seen), None), "{out:?}");
        }
        shown.show_line(&mut Vec::new(), String::new()).unwrap();
        assert!(shown.text.is_none());
    }
}
