//! The value syntax of QEMU's options: comma lists, sizes, switches.
//!
//! `first,key=value,flag,noflag` with `,,` for a comma inside a value. A bare first element is the value of the option's
//! implied key; other bare elements are switches: `server` is `server=on`, `nowait` is `wait=off`.

use super::error::{StartError, nearest};

/// The value of one option, taken apart. Keys are consumed by `take*`; [`KeyValues::finish`] complains about the rest.
#[derive(Debug)]
pub struct KeyValues {
    option: String,
    text: String,
    pairs: Vec<(String, Option<String>)>,
    /// Keys that have been asked for, to name the nearest when an unknown one is left.
    asked: Vec<String>,
}

impl KeyValues {
    /// Takes `text` apart. A first element without `=` becomes the value of `implied`.
    pub fn parse(option: &str, text: &str, implied: &str) -> KeyValues {
        let mut pairs: Vec<(String, Option<String>)> = Vec::new();
        for (i, element) in split_commas(text).into_iter().enumerate() {
            // A key ends at the first `=`; what looks like a key but holds a path or colon is a bare first value.
            match element.split_once('=') {
                Some((key, value)) if i > 0 || is_key(key) => pairs.push((key.into(), Some(value.into()))),
                _ if i == 0 && !implied.is_empty() => pairs.push((implied.into(), Some(element))),
                _ if element.is_empty() => {}
                _ => pairs.push((element, None)),
            }
        }
        KeyValues { option: option.into(), text: text.into(), pairs, asked: Vec::new() }
    }

    /// An error about this option's value as a whole.
    pub fn error(&self, problem: impl Into<String>) -> StartError {
        StartError::value(&self.option, &self.text, problem)
    }

    /// Whether any element is the word `help`, bare or as the implied value.
    pub fn asks_for_help(&self) -> bool {
        self.pairs.iter().any(|(k, v)| match v {
            None => k == "help" || k == "?",
            Some(v) => v == "help" || v == "?",
        })
    }

    /// The last value of `key`, consumed.
    pub fn take(&mut self, key: &str) -> Result<Option<String>, StartError> {
        self.asked.push(key.into());
        let mut found = None;
        let mut bare = false;
        self.pairs.retain(|(k, v)| {
            if k == key {
                bare = v.is_none();
                found = v.clone();
            }
            k != key
        });
        if bare { Err(self.error(format!("'{key}' needs a value: {key}=..."))) } else { Ok(found) }
    }

    /// Gives `key` a value for where the text gives none.
    pub fn set_default(&mut self, key: &str, value: &str) {
        self.pairs.insert(0, (key.into(), Some(value.into())));
    }

    /// All values of `key` in their order, consumed.
    pub fn take_all(&mut self, key: &str) -> Result<Vec<String>, StartError> {
        self.asked.push(key.into());
        let mut found = Vec::new();
        let mut bare = false;
        self.pairs.retain(|(k, v)| {
            if k == key {
                bare |= v.is_none();
                found.extend(v.clone());
            }
            k != key
        });
        if bare { Err(self.error(format!("'{key}' needs a value: {key}=..."))) } else { Ok(found) }
    }

    /// The last value of `key` as a switch: `on`/`off`, `yes`/`no`, `true`/`false`, a bare `key`, or a bare `nokey`.
    pub fn take_bool(&mut self, key: &str) -> Result<Option<bool>, StartError> {
        self.asked.push(key.into());
        let negated = format!("no{key}");
        let mut found = None;
        let mut wrong = None;
        self.pairs.retain(|(k, v)| {
            let hit = match v {
                Some(text) if k == key => {
                    match parse_bool(text) {
                        Some(on) => found = Some(on),
                        None => wrong = Some(text.clone()),
                    }
                    true
                }
                None if k == key || *k == negated => {
                    found = Some(k == key);
                    true
                }
                _ => false,
            };
            !hit
        });
        match wrong {
            Some(text) => Err(self.error(format!("'{key}={text}' is not a switch: expected on or off"))),
            None => Ok(found),
        }
    }

    /// The last value of `key` as an unsigned number not above `max`, decimal or `0x` hexadecimal.
    pub fn take_number(&mut self, key: &str, max: u64) -> Result<Option<u64>, StartError> {
        let Some(text) = self.take(key)? else { return Ok(None) };
        match parse_number(&text) {
            Some(n) if n <= max => Ok(Some(n)),
            _ => Err(self.error(format!("'{key}={text}' is not a number from 0 to {max:#x}"))),
        }
    }

    /// Complains if an element is left that nothing has asked for.
    pub fn finish(&self) -> Result<(), StartError> {
        let Some((key, _)) = self.pairs.first() else { return Ok(()) };
        let hint = match nearest(key, self.asked.iter().map(String::as_str)) {
            Some(near) => format!("; nearest is '{near}'"),
            None if self.asked.is_empty() => String::new(),
            None => format!("; known: {}", self.asked.join(", ")),
        };
        Err(self.error(format!("unknown property '{key}'{hint}")))
    }
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// Splits at single commas; a doubled comma is a comma.
pub fn split_commas(text: &str) -> Vec<String> {
    let mut elements = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == ',' && chars.next_if_eq(&',').is_none() {
            elements.push(String::new());
        } else if let Some(last) = elements.last_mut() {
            last.push(c);
        }
    }
    elements
}

/// `on`, `yes`, `true`, `y` or `off`, `no`, `false`, `n`.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "on" | "yes" | "true" | "y" => Some(true),
        "off" | "no" | "false" | "n" => Some(false),
        _ => None,
    }
}

/// A decimal or `0x` hexadecimal number.
pub fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) if !hex.starts_with('+') => u64::from_str_radix(hex, 16).ok(),
        None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

/// A size in bytes: a decimal number, perhaps with a fraction, and a suffix B, K, M, G, T, P or E; `unit` bytes without
/// a suffix. Hexadecimal numbers take no suffix.
pub fn parse_size(text: &str, unit: u64) -> Option<u64> {
    if text.starts_with("0x") || text.starts_with("0X") {
        return parse_number(text)?.checked_mul(unit);
    }
    let (digits, unit) = match text.chars().last()? {
        '0'..='9' => (text, unit),
        suffix => {
            let power = "BKMGTPE".find(suffix.to_ascii_uppercase())?;
            (&text[..text.len() - 1], 1u64 << (10 * power))
        }
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || fraction.len() > 18 || !(whole.bytes().chain(fraction.bytes())).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut total = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    if !fraction.is_empty() {
        let scale = 10u128.pow(fraction.len() as u32);
        let part = u128::from(unit) * fraction.parse::<u128>().ok()? / scale;
        total = total.checked_add(u64::try_from(part).ok()?)?;
    }
    Some(total)
}

/// `bytes` as a short size that [`parse_size`] reads back.
pub fn show_size(bytes: u64) -> String {
    for (i, suffix) in "EPTGMK".chars().enumerate() {
        let unit = 1u64 << (10 * (6 - i));
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{}{suffix}", bytes / unit);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> KeyValues {
        KeyValues::parse("x", text, "name")
    }

    #[test]
    fn comma_list_first_bare_value_and_doubled_commas_are_understood() {
        let mut v = list("a,,b,path=/x,,y,flag,nowait,n=0x10");
        assert_eq!(v.take("name").unwrap().as_deref(), Some("a,b"));
        assert_eq!(v.take("path").unwrap().as_deref(), Some("/x,y"));
        assert_eq!(v.take_bool("flag").unwrap(), Some(true));
        assert_eq!(v.take_bool("wait").unwrap(), Some(false));
        assert_eq!(v.take_number("n", 16).unwrap(), Some(16));
        v.finish().unwrap();
    }

    #[test]
    fn key_that_may_be_repeated_keeps_its_order() {
        let mut v = list("a,fwd=1,x=2,fwd=3");
        assert_eq!(v.take_all("fwd").unwrap(), ["1", "3"]);
        assert!(v.take_all("fwd").unwrap().is_empty() && list("a,fwd").take_all("fwd").is_err());
    }

    #[test]
    fn first_element_with_key_is_not_the_implied_value() {
        let mut v = list("name=pc,accel=tcg");
        assert_eq!(v.take("name").unwrap().as_deref(), Some("pc"));
        let mut v = list("accel=tcg");
        assert_eq!(v.take("name").unwrap(), None);
    }

    #[test]
    fn left_over_key_is_an_error_that_names_the_nearest() {
        let mut v = list("a,iobse=1");
        v.take("name").unwrap();
        v.take("iobase").unwrap();
        assert_eq!(v.finish().unwrap_err().to_string(), "-x a,iobse=1: unknown property 'iobse'; nearest is 'iobase'");
    }

    #[test]
    fn switch_with_a_wrong_word_and_number_out_of_range_are_errors() {
        assert!(list("a,b=maybe").take_bool("b").is_err());
        assert!(list("a,b=17").take_number("b", 16).is_err());
        assert!(list("a,b=-1").take_number("b", 16).is_err());
        assert!(list("a,b").take("b").is_err());
    }

    #[test]
    fn sizes_follow_their_suffix_and_overflow_is_refused() {
        let mib = 1 << 20;
        assert_eq!(parse_size("512", mib), Some(512 << 20));
        assert_eq!(parse_size("1.5G", mib), Some(3 << 29));
        assert_eq!(parse_size("64k", mib), Some(64 << 10));
        assert_eq!(parse_size("7B", mib), Some(7));
        assert_eq!(parse_size("0x10", mib), Some(16 << 20));
        for wrong in ["", "G", "-1", "1 G", "16E", "1x", "1.G.", "99999999999999999999", "+5"] {
            assert_eq!(parse_size(wrong, mib), None, "{wrong}");
        }
    }

    #[test]
    fn shown_sizes_parse_back() {
        for n in [1, 1023, 1024, 1 << 20, 3 << 30, (1 << 20) + 1] {
            assert_eq!(parse_size(&show_size(n), 1), Some(n));
        }
    }
}
