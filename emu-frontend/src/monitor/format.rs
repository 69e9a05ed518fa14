//! The format of `x`, `xp`, `print`, `i` and `o`: `/`, a count, a format letter and a size letter, as in gdb; and numbers
//! printed by it. A format that is not given is that of the last command.

/// How values are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    /// `o`
    Octal,
    /// `d`
    Decimal,
    /// `u`
    Unsigned,
    /// `x`
    Hexadecimal,
    /// `c`
    Character,
    /// `i`: disassembled.
    Instruction,
}

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// How many values.
    pub count: u32,
    /// How they are shown.
    pub notation: Notation,
    /// Bytes of each: 1, 2, 4 or 8.
    pub size: usize,
}

impl Default for Format {
    fn default() -> Format {
        Format { count: 1, notation: Notation::Hexadecimal, size: 4 }
    }
}

impl Format {
    /// Reads what follows the `/`; the format and the rest of the line.
    ///
    /// # Errors
    /// An unknown letter.
    pub fn parse(text: &str, last: Format) -> Result<(Format, &str), String> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let count = if digits == 0 { 1 } else { text[..digits].parse().unwrap_or(u32::MAX) };
        let mut format = Format { count, ..last };
        let mut rest = &text[digits..];
        while let Some(letter) = rest.chars().next().filter(|c| !c.is_whitespace()) {
            match letter {
                'o' => format.notation = Notation::Octal,
                'd' => format.notation = Notation::Decimal,
                'u' => format.notation = Notation::Unsigned,
                'x' => format.notation = Notation::Hexadecimal,
                'c' => format.notation = Notation::Character,
                'i' => format.notation = Notation::Instruction,
                'b' => format.size = 1,
                'h' => format.size = 2,
                'w' => format.size = 4,
                'g' | 'L' => format.size = 8,
                _ => return Err(format!("invalid char in format: '{letter}'")),
            }
            rest = &rest[1..];
        }
        Ok((format, rest))
    }

    /// Bytes of a value: characters are bytes.
    pub fn width(&self) -> usize {
        if self.notation == Notation::Character { 1 } else { self.size }
    }

    /// A value of [`Format::width`] bytes, padded so that columns line up.
    pub fn column(&self, value: u64) -> String {
        let bits = self.width() * 8;
        match self.notation {
            Notation::Octal => format!("{:>1$}", octal(value), bits.div_ceil(3)),
            Notation::Decimal if self.size == 8 => format!("{:>1$}", value as i64, (bits * 10).div_ceil(33)),
            Notation::Decimal | Notation::Unsigned => format!("{value:>0$}", (bits * 10).div_ceil(33)),
            Notation::Hexadecimal | Notation::Instruction => format!("0x{value:00$x}", bits / 4),
            Notation::Character => character(value as u8),
        }
    }

    /// The value of an expression.
    pub fn plain(&self, value: i64) -> String {
        match self.notation {
            Notation::Octal => octal(value as u64),
            // An expression is no instruction: QEMU shows it in decimal.
            Notation::Decimal | Notation::Instruction => value.to_string(),
            Notation::Unsigned => (value as u64).to_string(),
            // C's "%#x" gives no prefix to zero.
            Notation::Hexadecimal if value == 0 => "0".into(),
            Notation::Hexadecimal => format!("{value:#x}"),
            Notation::Character => character(value as u8),
        }
    }
}

fn octal(value: u64) -> String {
    if value == 0 { "0".into() } else { format!("0{value:o}") }
}

fn character(byte: u8) -> String {
    match byte {
        b'\'' => "'\\''".into(),
        b'\\' => "'\\\\'".into(),
        b'\n' => "'\\n'".into(),
        b'\r' => "'\\r'".into(),
        0x20..=0x7e => format!("'{}'", byte as char),
        _ => format!("'\\x{byte:02x}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(text: &str) -> Format {
        Format::parse(text, Format::default()).unwrap().0
    }

    #[test]
    fn formats_keep_what_is_not_given() {
        assert_eq!(format("4xb"), Format { count: 4, notation: Notation::Hexadecimal, size: 1 });
        assert_eq!(format("i"), Format { count: 1, notation: Notation::Instruction, size: 4 });
        let (after, rest) = Format::parse("2d 7", format("4xg")).unwrap();
        assert_eq!((after, rest), (Format { count: 2, notation: Notation::Decimal, size: 8 }, " 7"));
        assert_eq!(Format::parse("2z 0", after), Err("invalid char in format: 'z'".into()));
    }

    #[test]
    fn columns_are_those_of_qemu() {
        assert_eq!(format("xb").column(0xea), "0xea");
        assert_eq!(format("dw").column(14_703_594), "  14703594");
        assert_eq!(format("uh").column(224), "  224");
        assert_eq!(format("ob").column(0o133), "0133");
        assert_eq!(format("c").column(0xf0), "'\\xf0'");
        assert_eq!(format("dg").column(u64::MAX), "                  -1");
        let plain = |text: &str, value| format(text).plain(value);
        assert_eq!((plain("x", 7), plain("x", 0), plain("c", 65)), ("0x7".into(), "0".into(), "'A'".into()));
        assert_eq!((plain("i", 10), plain("o", 8), plain("u", -1)), ("10".into(), "010".into(), u64::MAX.to_string()));
    }
}
