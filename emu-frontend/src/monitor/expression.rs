//! Expressions in arguments of monitor commands, with the grammar of QEMU's monitor:
//!
//! ```text
//!  sum     = logic { (+|-) logic }        logic = product { (&|'|'|^) product }
//!  product = unary { (*|/|%) unary }      unary = [+|-|~] unary | ( sum ) | 'c' | $register | number
//! ```
//! Numbers are decimal, `0x` hexadecimal, or octal with a leading 0.

use emu_core::cpu::CpuState;
use emu_core::cpu::segment::Seg;

/// Parentheses and signs that may be open at the same time.
const DEPTH: usize = 64;

/// The value of a register by the name that follows `$`.
pub type Registers<'a> = &'a dyn Fn(&str) -> Option<u64>;

/// Reads an expression from the front of `text`; its value and the rest of the text.
///
/// # Errors
/// The line that QEMU prints.
pub fn parse<'t>(text: &'t str, registers: Registers) -> Result<(i64, &'t str), String> {
    let mut parser = Parser { rest: text, registers, depth: 0 };
    parser.skip_spaces();
    let value = parser.sum()?;
    Ok((value, parser.rest))
}

struct Parser<'t, 'r> {
    rest: &'t str,
    registers: Registers<'r>,
    depth: usize,
}

impl Parser<'_, '_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn advance(&mut self) {
        let mut chars = self.rest.chars();
        chars.next();
        self.rest = chars.as_str();
        self.skip_spaces();
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn sum(&mut self) -> Result<i64, String> {
        let mut value = self.logic()?;
        while let Some(operator @ ('+' | '-')) = self.peek() {
            self.advance();
            let right = self.logic()?;
            value = if operator == '+' { value.wrapping_add(right) } else { value.wrapping_sub(right) };
        }
        Ok(value)
    }

    fn logic(&mut self) -> Result<i64, String> {
        let mut value = self.product()?;
        while let Some(operator @ ('&' | '|' | '^')) = self.peek() {
            self.advance();
            let right = self.product()?;
            value = match operator {
                '&' => value & right,
                '|' => value | right,
                _ => value ^ right,
            };
        }
        Ok(value)
    }

    fn product(&mut self) -> Result<i64, String> {
        let mut value = self.unary()?;
        while let Some(operator @ ('*' | '/' | '%')) = self.peek() {
            self.advance();
            let right = self.unary()?;
            value = match operator {
                '*' => value.wrapping_mul(right),
                _ if right == 0 => return Err("division by zero".into()),
                '/' => value.wrapping_div(right),
                _ => value.wrapping_rem(right),
            };
        }
        Ok(value)
    }

    fn unary(&mut self) -> Result<i64, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err("expression too deep".into());
        }
        let value = self.operand();
        self.depth -= 1;
        value
    }

    fn operand(&mut self) -> Result<i64, String> {
        match self.peek() {
            Some('+') => {
                self.advance();
                self.unary()
            }
            Some('-') => {
                self.advance();
                Ok(self.unary()?.wrapping_neg())
            }
            Some('~') => {
                self.advance();
                Ok(!self.unary()?)
            }
            Some('(') => {
                self.advance();
                let value = self.sum()?;
                if self.peek() != Some(')') {
                    return Err("')' expected".into());
                }
                self.advance();
                Ok(value)
            }
            Some('\'') => {
                let mut chars = self.rest.chars();
                chars.next();
                let value = chars.next().ok_or("character constant expected")?;
                if chars.next() != Some('\'') {
                    return Err("missing terminating ' character".into());
                }
                self.rest = chars.as_str();
                self.skip_spaces();
                Ok(i64::from(u32::from(value)))
            }
            Some('$') => {
                let end = self.rest[1..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                let (name, rest) = self.rest[1..].split_at(end.unwrap_or(self.rest.len() - 1));
                let value = (self.registers)(name).ok_or("unknown register")?;
                self.rest = rest;
                self.skip_spaces();
                Ok(value as i64)
            }
            None => Err("unexpected end of expression".into()),
            Some(_) => self.number(),
        }
    }

    fn number(&mut self) -> Result<i64, String> {
        let (digits, radix) = match self.rest.strip_prefix("0x").or_else(|| self.rest.strip_prefix("0X")) {
            Some(hex) if hex.starts_with(|c: char| c.is_ascii_hexdigit()) => (hex, 16),
            _ if self.rest.starts_with('0') => (self.rest, 8),
            _ => (self.rest, 10),
        };
        let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
        if end == 0 {
            let wrong = self.peek().unwrap_or(' ');
            return Err(format!("invalid char '{wrong}' in expression"));
        }
        let value = u64::from_str_radix(&digits[..end], radix).map_err(|_| "number too large")?;
        self.rest = &digits[end..];
        self.skip_spaces();
        Ok(value as i64)
    }
}

/// The register called `name`, without `$`, as the mode of the processor sees it.
pub fn register(state: &CpuState, name: &str) -> Option<u64> {
    const LEGACY: [&str; 8] = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"];
    let wide = |name: &str| match name.strip_prefix('r') {
        Some(number) if number.starts_with(|c: char| c.is_ascii_digit()) => {
            number.parse::<u8>().ok().filter(|n| (8..16).contains(n))
        }
        Some(rest) => LEGACY.iter().position(|n| *n == rest).map(|n| n as u8),
        None => None,
    };
    let narrow = |name: &str| name.strip_prefix('e').and_then(|rest| LEGACY.iter().position(|n| *n == rest));
    let segment = |seg| Some(u64::from(state.segment(seg).selector));
    if let Some(n) = wide(name) {
        return Some(state.regs.gpr(n));
    }
    if let Some(n) = narrow(name) {
        // QEMU's names for the whole registers.
        let value = state.regs.gpr(n as u8);
        return Some(if state.long_mode() { value } else { value & 0xffff_ffff });
    }
    match name {
        "sp" => Some(state.regs.gpr(4)),
        "fp" => Some(state.regs.gpr(5)),
        "eip" | "rip" => Some(state.rip),
        "pc" => Some(state.segment(Seg::Cs).base.wrapping_add(state.rip)),
        "eflags" | "rflags" => Some(state.rflags()),
        "cs" => segment(Seg::Cs),
        "ds" => segment(Seg::Ds),
        "es" => segment(Seg::Es),
        "ss" => segment(Seg::Ss),
        "fs" => segment(Seg::Fs),
        "gs" => segment(Seg::Gs),
        "cr0" => Some(state.cr0),
        "cr2" => Some(state.cr2),
        "cr3" => Some(state.cr3),
        "cr4" => Some(state.cr4),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<i64, String> {
        parse(text, &|name| (name == "eax").then_some(7)).map(|(value, _)| value)
    }

    #[test]
    fn operators_bind_as_in_qemu() {
        assert_eq!(value("1+2*3"), Ok(7));
        assert_eq!(value("(1+2)*3-0x10"), Ok(-7));
        assert_eq!(value("~0 & 017"), Ok(15));
        assert_eq!(value("'A' + $eax"), Ok(72));
        assert_eq!(value("1 + 1|2"), Ok(4));
    }

    #[test]
    fn errors_are_those_of_qemu() {
        for (text, error) in [
            ("", "unexpected end of expression"),
            ("1+", "unexpected end of expression"),
            ("b", "invalid char 'b' in expression"),
            ("$foo", "unknown register"),
            ("1/0", "division by zero"),
            ("(1", "')' expected"),
        ] {
            assert_eq!(value(text), Err(error.into()), "{text}");
        }
        assert!(value(&"(".repeat(100_000)).is_err());
    }

    #[test]
    fn registers_of_the_processor_are_known() {
        let mut state = CpuState::reset();
        state.regs.set_gpr(3, 0x1234);
        assert_eq!(register(&state, "ebx"), Some(0x1234));
        assert_eq!(register(&state, "rbx"), Some(0x1234));
        assert_eq!(register(&state, "eip"), Some(0xfff0));
        assert_eq!(register(&state, "pc"), Some(0xffff_fff0));
        assert_eq!(register(&state, "r16"), None);
        assert_eq!(register(&state, "xyz"), None);
    }
}
