//! `emu dev clif` and `emu dev asm`: what a compiled region becomes.

use super::disasm::{Source, assembly};
use super::{bare_machine, number};
use crate::cli::error::StartError;
use clap::Args;
use emu_jit::Translator;
use iced_x86::{Decoder, DecoderOptions};
use std::fmt::Write;

/// Below the tables and descriptors of the bare machine.
const LIMIT: u64 = 0xa_0000;

/// What to compile.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Code size: 32 or 64
    #[arg(long, default_value = "64", value_parser = ["32", "64"])]
    bits: String,
    /// Address of the first byte, below 640 KiB
    #[arg(long, default_value = "0x8000", value_parser = number)]
    at: u64,
    /// Distance in bytes from there to where the region is entered
    #[arg(long, default_value = "0", value_parser = number)]
    entry: u64,
}

/// What to show.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Cranelift's intermediate language.
    Clif,
    /// The host's instructions.
    Host,
}

/// The region that begins at the entry, guest instructions beside what each becomes.
///
/// # Errors
/// No bytes, no room for them, or nothing there that can be compiled.
pub fn run(arguments: &Arguments, show: Show) -> Result<String, StartError> {
    let bytes = arguments.source.bytes()?;
    let bits: u32 = arguments.bits.parse().unwrap_or(64);
    let end = arguments.at.saturating_add(bytes.len() as u64);
    if end > LIMIT {
        let problem = format!("the code has to end below {LIMIT:#x}");
        return Err(StartError::value("-at", format!("{:#x}", arguments.at), problem));
    }
    let start = arguments.at.saturating_add(arguments.entry);
    let mut cpu = bare_machine(bits, start)?;
    cpu.memory.write(arguments.at, &bytes);
    let source = (start < end).then(|| cpu.region_at(start, end)).flatten().ok_or_else(|| {
        StartError::value("-entry", arguments.entry.to_string(), "there is no code that can be compiled")
    })?;
    let listing = Translator::new().and_then(|mut translator| translator.listing(&source));
    let listing = listing.map_err(|problem| StartError::Other(format!("dev: {problem}")))?;
    let guest: Vec<String> = source
        .blocks
        .iter()
        .flat_map(|block| {
            block.insns.iter().map(move |insn| {
                let ip = start.wrapping_add_signed(block.delta) + u64::from(insn.block_offset);
                let mut decoder = Decoder::with_ip(bits, &block.bytes[insn.range()], ip, DecoderOptions::NONE);
                format!("{ip:#x} {}", assembly(&decoder.decode()))
            })
        })
        .collect();
    let name = |n: Option<usize>| n.and_then(|n| guest.get(n)).map_or("(entry, exits)", String::as_str);
    let mut text = String::new();
    let mut last = None;
    // Writing to a string cannot fail.
    match show {
        Show::Clif => {
            for line in listing.clif.lines() {
                let place = line.trim_start().strip_prefix('@').and_then(|rest| {
                    usize::from_str_radix(rest.split_whitespace().next().unwrap_or_default(), 16).ok()
                });
                if place.is_some() && place != last {
                    let _ = writeln!(text, "{}", name(place));
                    last = place;
                }
                let _ = writeln!(text, "    {line}");
            }
        }
        Show::Host => {
            let total: usize = listing.host.iter().map(|(_, code)| code.len()).sum();
            let _ = writeln!(text, "{} guest instructions, {total} bytes of host code", guest.len());
            let mut at = 0;
            let mut shown = None;
            for (n, code) in &listing.host {
                if !code.is_empty() && shown != Some(*n) {
                    let _ = writeln!(text, "{}", name(*n));
                    shown = Some(*n);
                }
                host(&mut text, code, at);
                at += code.len() as u64;
            }
        }
    }
    Ok(text)
}

/// The host's instructions; where nothing here disassembles them, their bytes.
fn host(text: &mut String, code: &[u8], at: u64) {
    if cfg!(target_arch = "x86_64") {
        let mut decoder = Decoder::with_ip(64, code, at, DecoderOptions::NONE);
        while decoder.can_decode() {
            let instruction = decoder.decode();
            let _ = writeln!(text, "    {:5x}  {}", instruction.ip(), assembly(&instruction));
        }
        return;
    }
    for (n, word) in code.chunks(4).enumerate() {
        let _ = write!(text, "    {:5x} ", at + 4 * n as u64);
        for byte in word {
            let _ = write!(text, " {byte:02x}");
        }
        text.push('\n');
    }
}
