//! `emu dev disasm`: NASM syntax, one instruction a line, with address and bytes.

use super::number;
use crate::cli::error::StartError;
use clap::Args;
use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, NasmFormatter};
use std::fmt::Write;
use std::path::PathBuf;

/// Where code comes from.
#[derive(Args, Debug)]
pub struct Source {
    /// Raw file
    #[arg(required_unless_present = "hex", conflicts_with = "hex")]
    file: Option<PathBuf>,
    /// Hexadecimal bytes instead of a file; spaces are ignored
    #[arg(long, value_name = "BYTES")]
    hex: Option<String>,
}

impl Source {
    /// All bytes.
    ///
    /// # Errors
    /// The file cannot be read, or the text is not hexadecimal.
    pub fn bytes(&self) -> Result<Vec<u8>, StartError> {
        match (&self.hex, &self.file) {
            (Some(text), _) => parse_hex(text).ok_or_else(|| {
                StartError::value("-hex", text, "expected pairs of hexadecimal digits, such as '0f 05'")
            }),
            (None, Some(path)) => {
                std::fs::read(path).map_err(|e| StartError::Other(format!("dev: cannot read {}: {e}", path.display())))
            }
            (None, None) => Ok(Vec::new()),
        }
    }
}

/// What to disassemble.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Code size: 16, 32 or 64
    #[arg(long, default_value = "32", value_parser = ["16", "32", "64"])]
    bits: String,
    /// Address of the first instruction
    #[arg(long, default_value = "0", value_parser = number)]
    at: u64,
    /// Where in the file to begin
    #[arg(long, default_value = "0", value_parser = number)]
    offset: u64,
    /// How many bytes
    #[arg(long, value_parser = number)]
    length: Option<u64>,
}

/// The listing.
///
/// # Errors
/// No bytes where the arguments say.
pub fn run(arguments: &Arguments) -> Result<String, StartError> {
    let bytes = arguments.source.bytes()?;
    let start = usize::try_from(arguments.offset).unwrap_or(usize::MAX);
    let Some(rest) = bytes.get(start..) else {
        let problem = format!("the file has {} bytes", bytes.len());
        return Err(StartError::value("-offset", arguments.offset.to_string(), problem));
    };
    let length = arguments.length.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX).min(rest.len());
    let bits = arguments.bits.parse().unwrap_or(32);
    Ok(list(&rest[..length], bits, arguments.at.wrapping_add(arguments.offset)))
}

fn list(code: &[u8], bits: u32, address: u64) -> String {
    let mut decoder = Decoder::with_ip(bits, code, address, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut text = String::new();
    while decoder.can_decode() {
        let start = decoder.position();
        decoder.decode_out(&mut instruction);
        let mut bytes = String::new();
        for byte in &code[start..decoder.position()] {
            let _ = write!(bytes, "{byte:02x}");
        }
        let width = if bits == 64 { 16 } else { 8 };
        let _ = writeln!(text, "{:0width$x}  {bytes:<24}{}", instruction.ip(), assembly(&instruction));
    }
    text
}

/// NASM text, or `(bad)`.
pub fn assembly(instruction: &Instruction) -> String {
    let mut text = String::from("(bad)");
    if !instruction.is_invalid() {
        text.clear();
        NasmFormatter::new().format(instruction, &mut text);
    }
    text
}

/// Pairs of hexadecimal digits with blanks between them.
pub fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |c: char| c.to_digit(16);
    digits.chunks(2).map(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listing_shows_address_bytes_and_nasm_text() {
        assert_eq!(
            list(&[0x01, 0xd8, 0xf4], 32, 0x100),
            "00000100  01d8                    add eax,ebx\n00000102  f4                      hlt\n"
        );
        assert_eq!(list(&[0x01, 0xd8], 16, 0), "00000000  01d8                    add ax,bx\n");
        assert_eq!(list(&[0x48, 0x01, 0xd8], 64, 0), "0000000000000000  4801d8                  add rax,rbx\n");
    }

    #[test]
    fn truncated_and_invalid_code_ends_with_a_mark() {
        assert!(list(&[0x0f], 32, 0).contains("(bad)"));
        assert!(list(&[0xff, 0xff], 32, 0).contains("(bad)"));
    }

    #[test]
    fn hexadecimal_text_is_parsed_with_blanks_and_refused_otherwise() {
        assert_eq!(parse_hex("0F 05"), Some(vec![0x0f, 5]));
        assert_eq!(parse_hex("f"), None);
        assert_eq!(parse_hex("zz"), None);
    }
}
