//! JSON values in a stream of bytes, and values as QEMU prints them.

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};
use serde_json::{Serializer, Value};
use std::io;

/// The largest value a client may send, in bytes.
const LIMIT: usize = 1 << 20;

/// Cuts what a client sends into values. Line ends and spaces between them do not count, and a value may extend over
/// several lines; what is no object or array ends with its line.
#[derive(Debug, Default)]
pub struct Splitter {
    value: Vec<u8>,
    /// Brackets that are open.
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// The value is larger than it may be; its end is awaited without keeping it.
    overlong: bool,
}

impl Splitter {
    /// Takes one byte; the value that it ends, or what is wrong with that.
    pub fn push(&mut self, byte: u8) -> Option<Result<Value, String>> {
        if self.value.is_empty() && byte.is_ascii_whitespace() {
            return None;
        }
        if self.value.len() < LIMIT {
            self.value.push(byte);
        } else {
            self.overlong = true;
        }
        let ended = if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            // A string of JSON has no line end within: the value is broken, and the next line is another.
            byte == b'\n'
        } else {
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            self.depth == 0 && matches!(byte, b'}' | b']' | b'\n')
        };
        if !ended {
            return None;
        }
        let whole = std::mem::take(self);
        if whole.overlong {
            return Some(Err(format!("JSON parse error, value of more than {LIMIT} bytes")));
        }
        Some(serde_json::from_slice(&whole.value).map_err(|e| format!("JSON parse error, {e}")))
    }
}

/// Puts a space behind commas and colons, as QEMU does.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: serde_json::ser::CharEscape,
    ) -> io::Result<()> {
        CompactFormatter.write_char_escape(writer, escape)
    }
}

/// `value` as a line that ends with CR LF, or with `pretty` as several.
pub fn show(value: &Value, pretty: bool) -> String {
    let mut bytes = Vec::new();
    let shown = if pretty {
        value.serialize(&mut Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    ")))
    } else {
        value.serialize(&mut Serializer::with_formatter(&mut bytes, Spaced))
    };
    // Neither a `Value` nor memory to write to can fail.
    debug_assert!(shown.is_ok());
    bytes.extend_from_slice(b"\r\n");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn values(text: &str) -> Vec<Result<Value, String>> {
        let mut splitter = Splitter::default();
        text.bytes().filter_map(|byte| splitter.push(byte)).collect()
    }

    #[test]
    fn values_are_cut_by_their_brackets_not_by_lines() {
        let found = values("\r\n{\"a\": \"}\\\"{\"}{\"b\":\n[1, {}]}  [2]\r\n{\"c\"");
        assert_eq!(found, [Ok(json!({"a": "}\"{"})), Ok(json!({"b": [1, {}]})), Ok(json!([2]))]);
    }

    #[test]
    fn broken_value_is_one_error_and_the_next_one_is_read() {
        for broken in ["xyz\n", "{bad}", "\"abc\n", "{\"a\n", "}", "{\"a\": }"] {
            let found = values(&format!("{broken} {{\"b\": 1}}"));
            assert!(found[0].as_ref().is_err_and(|e| e.starts_with("JSON parse error, ")), "{broken}: {found:?}");
            assert_eq!(found[1..], [Ok(json!({"b": 1}))], "{broken}");
        }
    }

    #[test]
    fn deep_and_long_values_are_refused() {
        let found = values(&format!("{}{}", "[".repeat(1000), "]".repeat(1000)));
        assert!(matches!(found.as_slice(), [Err(_)]));
        let found = values(&format!("{{\"a\": \"{}\"}}{{}}", "x".repeat(LIMIT)));
        assert!(matches!(found.as_slice(), [Err(_), Ok(_)]));
    }

    #[test]
    fn values_are_shown_with_spaces_behind_commas_and_colons() {
        let value = json!({"a": [1, "x\n"], "b": {}});
        assert_eq!(show(&value, false), "{\"a\": [1, \"x\\n\"], \"b\": {}}\r\n");
        assert_eq!(show(&json!([1]), true), "[\n    1\n]\r\n");
    }
}
