//! The monitor's input line: echo, backspace, Ctrl-U, Ctrl-C, and earlier lines by the cursor keys up and down or Ctrl-P and
//! Ctrl-N. Deliberately absent: completion, and editing within the line.

use std::collections::VecDeque;

/// Longest line, in bytes.
const LIMIT: usize = 4096;
/// Earlier lines that are kept, as in QEMU.
const EARLIER: usize = 64;

/// A line that is being typed.
#[derive(Default)]
pub struct Line {
    text: String,
    /// Inside an escape sequence of a cursor key.
    escape: Escape,
    /// The last byte ended a line with CR, so that an LF that follows belongs to it.
    after_cr: bool,
    /// Earlier lines, the oldest first.
    earlier: VecDeque<String>,
    /// How far back in them the user is; 0: at the line that is being typed.
    back: usize,
    /// That line, while the user looks at others.
    draft: String,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    Started,
    Sequence,
}

/// What a key did.
#[derive(Debug, PartialEq, Eq)]
pub enum Edit {
    /// Show this.
    Echo(String),
    /// The line is complete.
    Done(String),
}

impl Line {
    /// What has been typed so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Takes one byte from the keyboard.
    pub fn edit(&mut self, byte: u8) -> Edit {
        let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
        match (self.escape, byte) {
            (Escape::Started, b'[') => self.escape = Escape::Sequence,
            (Escape::Started, _) => self.escape = Escape::None,
            // A control sequence ends with a byte from 40h to 7Eh (ECMA-48 5.4).
            (Escape::Sequence, 0x40..=0x7e) => {
                self.escape = Escape::None;
                match byte {
                    b'A' => return self.go(self.back + 1),
                    b'B' => return self.go(self.back.saturating_sub(1)),
                    _ => {}
                }
            }
            (Escape::Sequence, _) => {}
            (Escape::None, 0x1b) => self.escape = Escape::Started,
            (Escape::None, b'\n') if after_cr => {}
            (Escape::None, b'\r' | b'\n') => return Edit::Done(self.finish()),
            (Escape::None, 0x10) => return self.go(self.back + 1),
            (Escape::None, 0x0e) => return self.go(self.back.saturating_sub(1)),
            (Escape::None, 0x08 | 0x7f) => {
                if self.text.pop().is_some() {
                    return Edit::Echo("\x08 \x08".into());
                }
            }
            // Ctrl-C and Ctrl-U give up the line.
            (Escape::None, 0x03 | 0x15) => {
                let width = self.text.len();
                self.text.clear();
                return Edit::Echo("\x08 \x08".repeat(width));
            }
            (Escape::None, 0x20..=0x7e) if self.text.len() < LIMIT => {
                self.text.push(byte as char);
                return Edit::Echo((byte as char).into());
            }
            (Escape::None, _) => {}
        }
        Edit::Echo(String::new())
    }

    fn finish(&mut self) -> String {
        self.back = 0;
        if !self.text.is_empty() && self.earlier.back() != Some(&self.text) {
            if self.earlier.len() == EARLIER {
                self.earlier.pop_front();
            }
            self.earlier.push_back(self.text.clone());
        }
        std::mem::take(&mut self.text)
    }

    /// Shows the line that is `back` lines ago, if there is one.
    fn go(&mut self, back: usize) -> Edit {
        if back == self.back || back > self.earlier.len() {
            return Edit::Echo(String::new());
        }
        let shown = std::mem::take(&mut self.text);
        let erase = "\x08 \x08".repeat(shown.len());
        if self.back == 0 {
            self.draft = shown;
        }
        self.back = back;
        self.text = match back {
            0 => std::mem::take(&mut self.draft),
            _ => self.earlier[self.earlier.len() - back].clone(),
        };
        Edit::Echo(erase + &self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(keys: &[u8]) -> Vec<String> {
        let mut line = Line::default();
        let edits = keys.iter().map(|k| line.edit(*k));
        edits.filter_map(|e| if let Edit::Done(text) = e { Some(text) } else { None }).collect()
    }

    #[test]
    fn backspace_and_control_u_edit_the_line() {
        assert_eq!(lines(b"stot\x7fp\r"), ["stop"]);
        assert_eq!(lines(b"garbage\x15quit\n"), ["quit"]);
        assert_eq!(lines(b"\x7f\x7fq\r"), ["q"]);
    }

    #[test]
    fn earlier_lines_come_back_and_the_unfinished_one_too() {
        assert_eq!(lines(b"one\rtwo\r\x1b[A\r\x10\x10\r"), ["one", "two", "two", "one"]);
        assert_eq!(lines(b"one\rtwo\rthr\x10\x10\x10\x0e\x1b[B\x0eee\r"), ["one", "two", "three"]);
        assert_eq!(lines(b"stop\r\r\x10 now\r"), ["stop", "", "stop now"]);
        let mut line = Line::default();
        (0..1000).for_each(|n| drop(format!("{n}\r").bytes().map(|key| line.edit(key)).collect::<Vec<_>>()));
        assert_eq!(line.earlier.len(), EARLIER);
        assert_eq!(line.edit(0x10), Edit::Echo("999".into()));
        assert_eq!(line.edit(0x10), Edit::Echo("\x08 \x08\x08 \x08\x08 \x08998".into()));
    }

    #[test]
    fn other_cursor_keys_are_swallowed_and_cr_lf_is_one_line_end() {
        assert_eq!(lines(b"a\x1b[Ab\x1b[1;5Cc\r\nd\n"), ["abc", "d"]);
    }
}
