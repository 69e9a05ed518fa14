//! Arguments of monitor commands: what a command takes is a list of [`Parameter`]s, and what is wrong with a line is told
//! in QEMU's words.

use super::expression::{self, Registers};
use super::format::Format;

/// What kind of word an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A switch of one letter, such as `-f`.
    Flag(char),
    /// A switch of one letter with a word, such as `-f png`.
    Option(char),
    /// A word, perhaps in quotation marks.
    Text,
    /// The name of a host file.
    File,
    /// The name of a drive.
    Device,
    /// An expression.
    Number,
    /// `/` with a count, a format letter and a size letter, before all other arguments.
    Format,
}

/// One argument of a command.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// For `help`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// It may be left out.
    pub optional: bool,
}

/// An argument that must be given.
pub const fn required(name: &'static str, kind: Kind) -> Parameter {
    Parameter { name, kind, optional: false }
}

/// An argument that may be left out.
pub const fn optional(name: &'static str, kind: Kind) -> Parameter {
    Parameter { name, kind, optional: true }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Text(String),
    Number(i64),
    Flag,
}

/// The arguments of one line, by the names of their parameters.
#[derive(Debug, Default)]
pub struct Arguments {
    values: Vec<(&'static str, Value)>,
    /// The format, the given or the last one.
    pub format: Format,
}

impl Arguments {
    /// The word given for `name`.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.iter().find_map(|(n, value)| match value {
            Value::Text(text) if *n == name => Some(text.as_str()),
            _ => None,
        })
    }

    /// The number given for `name`.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.values.iter().find_map(|(n, value)| match value {
            Value::Number(number) if *n == name => Some(*number),
            _ => None,
        })
    }

    /// Whether the switch `name` is given.
    pub fn flag(&self, name: &str) -> bool {
        self.values.iter().any(|(n, value)| *n == name && *value == Value::Flag)
    }

    /// Reads `line`, what follows the command's name; `last`: the format of the last command that had one.
    ///
    /// # Errors
    /// The line that QEMU prints; `name` is the command's with its aliases, `a|b`.
    pub fn parse(
        name: &str,
        parameters: &[Parameter],
        line: &str,
        last: Format,
        registers: Registers,
    ) -> Result<Arguments, String> {
        let mut arguments = Arguments { values: Vec::new(), format: last };
        let mut rest = line.trim_start();
        for parameter in parameters {
            let value = match parameter.kind {
                Kind::Format => {
                    if let Some(text) = rest.strip_prefix('/') {
                        (arguments.format, rest) = Format::parse(text, last)?;
                        rest = rest.trim_start();
                    } else {
                        arguments.format = Format { count: 1, ..last };
                    }
                    continue;
                }
                Kind::Flag(letter) => match switch(rest, letter) {
                    Some(after) => {
                        rest = after;
                        Value::Flag
                    }
                    None => continue,
                },
                Kind::Option(letter) => match switch(rest, letter) {
                    Some(after) => Value::Text(word(after, &mut rest)?.ok_or(format!("{name}: string expected"))?),
                    None => continue,
                },
                Kind::Text | Kind::File | Kind::Device => match word(rest, &mut rest)? {
                    Some(text) => Value::Text(text),
                    None if parameter.optional => continue,
                    None => {
                        let what = match parameter.kind {
                            Kind::File => "filename",
                            Kind::Device => "block device name",
                            _ => "string",
                        };
                        return Err(format!("{name}: {what} expected"));
                    }
                },
                Kind::Number if rest.is_empty() && parameter.optional => continue,
                Kind::Number => {
                    let (value, after) = expression::parse(rest, registers)?;
                    rest = after;
                    Value::Number(value)
                }
            };
            arguments.values.push((parameter.name, value));
        }
        match rest.trim_start() {
            "" => Ok(arguments),
            _ => Err(format!("{name}: extraneous characters at the end of line")),
        }
    }
}

/// What follows the switch `-letter`, if the line begins with it.
fn switch(line: &str, letter: char) -> Option<&str> {
    let after = line.strip_prefix('-')?.strip_prefix(letter)?;
    (after.is_empty() || after.starts_with(char::is_whitespace)).then(|| after.trim_start())
}

/// Takes a word from the front of `line`, in double quotation marks if it holds spaces; `None` at the end of the line.
fn word<'t>(line: &'t str, rest: &mut &'t str) -> Result<Option<String>, String> {
    let line = line.trim_start();
    if line.is_empty() {
        *rest = line;
        return Ok(None);
    }
    let Some(quoted) = line.strip_prefix('"') else {
        let end = line.find(char::is_whitespace).unwrap_or(line.len());
        *rest = line[end..].trim_start();
        return Ok(Some(line[..end].into()));
    };
    let mut text = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next() {
            None => return Err("unterminated string".into()),
            Some('"') => break,
            Some('\\') => match chars.next() {
                Some('n') => text.push('\n'),
                Some('r') => text.push('\r'),
                Some(c @ ('\\' | '\'' | '"')) => text.push(c),
                Some(c) => return Err(format!("unsupported escape code: '\\{c}'")),
                None => return Err("unterminated string".into()),
            },
            Some(c) => text.push(c),
        }
    }
    *rest = chars.as_str().trim_start();
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EJECT: &[Parameter] = &[optional("force", Kind::Flag('f')), required("device", Kind::Device)];

    fn parse(parameters: &[Parameter], line: &str) -> Result<Arguments, String> {
        Arguments::parse("eject", parameters, line, Format::default(), &|_| None)
    }

    #[test]
    fn flags_words_and_quoted_words_are_told_apart() {
        let a = parse(EJECT, " -f ide1-cd0").unwrap();
        assert!(a.flag("force"));
        assert_eq!(a.text("device"), Some("ide1-cd0"));
        let a = parse(EJECT, "\"a \\\"b\"  ").unwrap();
        assert!(!a.flag("force"));
        assert_eq!(a.text("device"), Some("a \"b"));
    }

    #[test]
    fn errors_are_those_of_qemu() {
        let line = |line| parse(EJECT, line).unwrap_err();
        assert_eq!(line(""), "eject: block device name expected");
        assert_eq!(line("a b"), "eject: extraneous characters at the end of line");
        assert_eq!(line("\"a"), "unterminated string");
        let number = &[required("address", Kind::Number)];
        assert_eq!(parse(number, "").unwrap_err(), "unexpected end of expression");
        assert_eq!(parse(number, "x").unwrap_err(), "invalid char 'x' in expression");
    }
}
