//! Monitor commands that read memory and ports: `x`, `xp`, `print`, `i`, `o`, `memsave`, `pmemsave`, `sum`, `gva2gpa`.

use super::arguments::Arguments;
use super::format::{Format, Notation};
use super::{error, reason};
use crate::remote::Remote;
use emu_core::exec::Vcpu;
use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};
use std::fmt::Write as _;
use std::io::{BufWriter, Write as _};

/// Bytes that one command shows at most.
const MOST: usize = 1 << 20;
/// Bytes that are copied at a time while the machine waits.
const CHUNK: usize = 1 << 20;
const LONGEST_INSTRUCTION: usize = 15;

/// Which addresses are meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    Linear,
    Physical,
}

impl Space {
    fn read(self, cpu: &Vcpu, address: u64, bytes: &mut [u8], unit: usize) -> bool {
        match self {
            Space::Linear => cpu.peek(address, bytes, unit),
            Space::Physical => {
                cpu.peek_physical(address, bytes, unit);
                true
            }
        }
    }
}

/// Asks the guest to get along with this many MiB.
pub fn balloon(machine: &Remote, arguments: &Arguments) -> String {
    let target = arguments.number("value").and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
    match (&machine.balloon, target) {
        (None, _) => super::error(super::info::NO_BALLOON),
        (_, None) => super::error("Parameter 'target' expects a size"),
        (Some(balloon), Some(target)) => {
            balloon.set_target(target.saturating_mul(1 << 20));
            String::new()
        }
    }
}

pub fn examine(machine: &Remote, arguments: &Arguments) -> String {
    dump(machine, arguments, Space::Linear)
}

pub fn examine_physical(machine: &Remote, arguments: &Arguments) -> String {
    dump(machine, arguments, Space::Physical)
}

fn dump(machine: &Remote, arguments: &Arguments, space: Space) -> String {
    let (format, address) = (arguments.format, arguments.number("addr").unwrap_or(0) as u64);
    let shown = machine.call(move |machine| match format.notation {
        Notation::Instruction => disassemble(machine.processor(), space, address, format.count),
        _ => values(machine.processor(), space, address, format),
    });
    shown.unwrap_or_default()
}

fn values(cpu: &Vcpu, space: Space, mut address: u64, format: Format) -> String {
    let width = format.width();
    let mut left = (format.count as usize).saturating_mul(width).min(MOST);
    let row = if width == 1 { 8 } else { 16 };
    let mut text = String::new();
    while left > 0 {
        let mut bytes = vec![0; left.min(row)];
        let _ = write!(text, "{address:016x}:");
        if !space.read(cpu, address, &mut bytes, width) {
            return text + " Cannot access memory\n";
        }
        for value in bytes.chunks(width) {
            let mut whole = [0; 8];
            whole[..value.len()].copy_from_slice(value);
            let _ = write!(text, " {}", format.column(u64::from_le_bytes(whole)));
        }
        text.push('\n');
        address = address.wrapping_add(bytes.len() as u64);
        left -= bytes.len();
    }
    text
}

fn disassemble(cpu: &Vcpu, space: Space, mut address: u64, count: u32) -> String {
    let mut formatter = NasmFormatter::new();
    let mut text = String::new();
    for _ in 0..count.min((MOST / LONGEST_INSTRUCTION) as u32) {
        let mut bytes = [0; LONGEST_INSTRUCTION];
        // The last instruction before a hole is shorter than the longest one.
        let Some(len) = (1..=LONGEST_INSTRUCTION).rev().find(|len| space.read(cpu, address, &mut bytes[..*len], 1))
        else {
            let _ = writeln!(text, "0x{address:08x}: unable to read memory");
            break;
        };
        let mut decoder = Decoder::with_ip(cpu.state.code_bits(), &bytes[..len], address, DecoderOptions::NONE);
        let instruction = decoder.decode();
        let len = if instruction.is_invalid() { 1 } else { instruction.len() };
        let mut code = String::new();
        for byte in &bytes[..len] {
            let _ = write!(code, "{byte:02x} ");
        }
        let mut words = String::new();
        match instruction.is_invalid() {
            true => words.push_str("(bad)"),
            false => formatter.format(&instruction, &mut words),
        }
        let _ = writeln!(text, "0x{address:08x}:  {code:<24} {words}");
        address = address.wrapping_add(len as u64);
    }
    text
}

pub fn print(_: &Remote, arguments: &Arguments) -> String {
    arguments.format.plain(arguments.number("val").unwrap_or(0)) + "\n"
}

/// The BSD checksum of physical memory, as `sum -r` computes it. Addresses and sizes have 32 bits, as QEMU's.
pub fn sum(machine: &Remote, arguments: &Arguments) -> String {
    let (start, size) = (arguments.number("start").unwrap_or(0) as u32, arguments.number("size").unwrap_or(0) as u32);
    let mut sum = 0u16;
    let end = u64::from(start) + u64::from(size);
    for address in (u64::from(start)..end).step_by(CHUNK) {
        let len = (end - address).min(CHUNK as u64) as usize;
        let chunk = machine.call(move |machine| {
            let mut bytes = vec![0; len];
            Space::Physical.read(machine.processor(), address, &mut bytes, 1);
            bytes
        });
        // Without a machine there is no memory to sum up.
        let Some(bytes) = chunk else { break };
        sum = bytes.iter().fold(sum, |sum, byte| sum.rotate_right(1).wrapping_add(u16::from(*byte)));
    }
    format!("{sum:05}\n")
}

pub fn physical_address(machine: &Remote, arguments: &Arguments) -> String {
    let address = arguments.number("addr").unwrap_or(0) as u64;
    match machine.call(move |machine| machine.processor().physical(address)).flatten() {
        // C's "%#x" gives no prefix to zero.
        Some(0) => "gpa: 0\n".into(),
        Some(physical) => format!("gpa: {physical:#x}\n"),
        None => "Unmapped\n".into(),
    }
}

pub fn port_in(machine: &Remote, arguments: &Arguments) -> String {
    let (port, size, letter) = port(arguments);
    let index = arguments.number("index");
    let value = machine.call(move |machine| {
        let (bus, mut port) = (machine.bus(), port);
        if let Some(index) = index {
            bus.port_write(port, 1, index as u32 & 0xff, 0);
            port = port.wrapping_add(1);
        }
        (port, bus.port_read(port, size, 0))
    });
    match value {
        Some((port, value)) => format!("port{letter}[0x{port:04x}] = 0x{value:00$x}\n", 2 * usize::from(size)),
        None => String::new(),
    }
}

pub fn port_out(machine: &Remote, arguments: &Arguments) -> String {
    let (port, size, _) = port(arguments);
    let value = arguments.number("val").unwrap_or(0) as u32;
    machine.call(move |machine| machine.bus().port_write(port, size, value, 0));
    String::new()
}

fn port(arguments: &Arguments) -> (u16, u8, char) {
    let (size, letter) = match arguments.format.size {
        1 => (1, 'b'),
        2 => (2, 'w'),
        _ => (4, 'l'),
    };
    (arguments.number("addr").unwrap_or(0) as u16, size, letter)
}

pub fn save(machine: &Remote, arguments: &Arguments) -> String {
    save_to_file(machine, arguments, Space::Linear)
}

pub fn save_physical(machine: &Remote, arguments: &Arguments) -> String {
    save_to_file(machine, arguments, Space::Physical)
}

fn save_to_file(machine: &Remote, arguments: &Arguments, space: Space) -> String {
    let (mut address, mut left) =
        (arguments.number("val").unwrap_or(0) as u64, arguments.number("size").unwrap_or(0) as u64);
    let name = arguments.text("filename").unwrap_or_default();
    let mut file = match std::fs::File::create(name) {
        Ok(file) => BufWriter::new(file),
        Err(e) => return error(&format!("Could not open '{name}': {}", reason(&e))),
    };
    while left > 0 {
        let len = left.min(CHUNK as u64) as usize;
        let chunk = machine.call(move |machine| {
            let mut bytes = vec![0; len];
            space.read(machine.processor(), address, &mut bytes, 4).then_some(bytes)
        });
        let Some(Some(bytes)) = chunk else {
            return error(&format!("Invalid addr 0x{address:016x}/size {left} specified"));
        };
        if let Err(e) = file.write_all(&bytes) {
            return error(&format!("Could not write '{name}': {}", reason(&e)));
        }
        address = address.wrapping_add(len as u64);
        left -= len as u64;
    }
    match file.flush() {
        Ok(()) => String::new(),
        Err(e) => error(&format!("Could not write '{name}': {}", reason(&e))),
    }
}
