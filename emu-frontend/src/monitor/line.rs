//! The monitor's input line: echo, backspace, Ctrl-U, Ctrl-C. Deliberately absent: history and completion.

/// Longest line, in bytes.
const LIMIT: usize = 4096;

/// A line that is being typed.
#[derive(Default)]
pub struct Line {
    text: String,
    /// Inside an escape sequence of a cursor key.
    escape: Escape,
    /// The last byte ended a line with CR, so that an LF that follows belongs to it.
    after_cr: bool,
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
            (Escape::Sequence, 0x40..=0x7e) => self.escape = Escape::None,
            (Escape::Sequence, _) => {}
            (Escape::None, 0x1b) => self.escape = Escape::Started,
            (Escape::None, b'\n') if after_cr => {}
            (Escape::None, b'\r' | b'\n') => return Edit::Done(std::mem::take(&mut self.text)),
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
    fn cursor_keys_are_swallowed_and_cr_lf_is_one_line_end() {
        assert_eq!(lines(b"a\x1b[Ab\x1b[1;5Cc\r\nd\n"), ["abc", "d"]);
    }
}
