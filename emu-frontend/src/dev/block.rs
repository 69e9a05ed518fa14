//! `emu dev block`: a decoded block with its threaded code.

use super::disasm::{Source, assembly};
use super::{bare_machine, number};
use crate::cli::error::StartError;
use clap::Args;
use emu_core::decode::block::{self, Decoding};
use emu_core::exec::handlers;
use emu_core::exec::thread::Handler;
use iced_x86::Decoder;
use std::fmt::Write;

/// What to decode.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Code size: 16, 32 or 64
    #[arg(long, default_value = "32", value_parser = ["16", "32", "64"])]
    bits: String,
    /// Address of the first instruction, below 1 MiB
    #[arg(long, default_value = "0x8000", value_parser = number)]
    at: u64,
}

/// The block.
///
/// # Errors
/// No bytes, or an address without RAM.
pub fn run(arguments: &Arguments) -> Result<String, StartError> {
    let bytes = arguments.source.bytes()?;
    let bits: u32 = arguments.bits.parse().unwrap_or(32);
    let limit = if bits == 16 { 0x1_0000 } else { 0xa_0000 };
    if arguments.at >= limit {
        return Err(StartError::value("-at", format!("{:#x}", arguments.at), format!("must be below {limit:#x}")));
    }
    let cpu = bare_machine(bits, arguments.at)?;
    // A block ends where its page does.
    let room = 0x1000 - (arguments.at as usize & 0xfff);
    let code = &bytes[..bytes.len().min(room)];
    let block = block::decode(Decoding::of(&cpu), arguments.at as usize, code);
    let mut text = format!("{} bytes, {} instructions\n", block.len, block.insns.len());
    for (n, op) in block.ops.iter().enumerate() {
        let first = usize::from(op.insn);
        let end = block.ops.get(n + 1).map_or(block.insns.len(), |next| usize::from(next.insn));
        let handler = op.handler.get();
        let is = |other: Handler| std::ptr::fn_addr_eq(handler, other);
        let last = n + 1 == block.ops.len();
        let kind = match () {
            () if is(handlers::enter) => "entry",
            () if last => "leave",
            () if is(handlers::unspecialised) => "function",
            () => "handler",
        };
        // Writing to a string cannot fail.
        let _ = write!(text, "{kind:<10}");
        if kind == "handler" || kind == "function" {
            let fused = block.insns.get(first..end.max(first + 1)).unwrap_or_default();
            for insn in fused {
                let start = usize::from(insn.block_offset);
                let end = (start + usize::from(insn.len)).min(code.len());
                let ip = arguments.at + start as u64;
                let mut decoder = Decoder::with_ip(bits, &code[start..end], ip, cpu.model.decoder_options());
                let _ = write!(text, "{:#x} {}; ", ip, assembly(&decoder.decode()));
            }
            let _ = write!(text, "r0={} r1={} base={} index={} imm={:#x}", op.r0, op.r1, op.base, op.index, op.imm);
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    Ok(text)
}
