//! Instruction cases: one instruction, what it starts with and what it must come to, on one line.
//!
//! ```text
//!  bits 32
//!  [01 d8] "add eax,ebx"    eax=1, ebx=0xffffffff => eax=0, cf=1, zf=1
//!  [f7 f1] "div ecx"        ecx=0 => #DE
//!  [88 07] "mov [edi],al"   edi=0x20000, al=5 => [0x20000]=05
//! ```
//! Left of `=>`: general registers of any width, XMM registers, flags, MXCSR, memory as bytes. Right of it: the same, or
//! the exception, perhaps with its error code. General and XMM registers that the right side does not name must stay as
//! they were; of flags, MXCSR and memory only what is named is looked at. The quoted text must be what iced-x86's NASM
//! formatter says of the bytes, blanks aside. Every case runs by single step, as part of a block, and in compiled code
//! ([`Case::run_compiled`]). Deliberately absent: jumps, x87, privileges below 0; those are tests of their own.

mod compiled;

pub use compiled::Around;

use crate::bus::Bus;
use crate::clock::{Clock, ClockMode};
use crate::cpu::control::{CR0_MP, CR0_PE, CR0_PG, CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_PAE, EFER_LMA, EFER_LME};
use crate::cpu::fault::Fault;
use crate::cpu::model::CpuModel;
use crate::cpu::rflags;
use crate::cpu::segment::{Seg, Segment};
use crate::cpu::{CpuState, Width};
use crate::exec::postmortem::vector_name;
use crate::exec::{RunExit, Vcpu};
use crate::irq::CpuPins;
use crate::mem::GuestMemory;
use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};
use std::sync::Arc;

/// Where the instruction lies; memory operands must keep away from this page.
const CODE: u64 = 0x8040;
/// Page tables for 64-bit cases.
const TABLES: u64 = 0x1000;
const RAM: u64 = 1 << 20;
const STACK: u64 = 0x8_0000;
const HLT: u8 = 0xf4;

/// A case as it stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// 16, 32 or 64.
    pub bits: u32,
    /// The instruction.
    pub bytes: Vec<u8>,
    /// Its NASM text.
    pub assembly: String,
    before: Vec<(Place, u128)>,
    after: Vec<(Place, u128)>,
    exception: Option<(u8, Option<u32>)>,
}

/// What a line of a file of cases is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Empty, or a comment that begins with `#`.
    Blank,
    /// `bits 16`, `bits 32` or `bits 64`: holds for the cases that follow.
    Bits(u32),
    /// A case.
    Case(Case),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Register number, byte offset in it, width.
    General(u8, u8, Width),
    Xmm(u8),
    /// A mask of RFLAGS.
    Flag(u64),
    Mxcsr,
    /// Address and number of bytes, at most 16.
    Memory(u64, u8),
}

impl Line {
    /// Reads one line; `bits` is the code size in force.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(line: &str, bits: u32) -> Result<Line, String> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(Line::Blank);
        }
        if let Some(size) = line.strip_prefix("bits ") {
            let size = size.trim().parse().ok().filter(|n| [16, 32, 64].contains(n));
            return size.map(Line::Bits).ok_or_else(|| "expected bits 16, bits 32 or bits 64".into());
        }
        Case::parse(line, bits).map(Line::Case)
    }
}

impl Case {
    fn parse(line: &str, bits: u32) -> Result<Case, String> {
        let shape = "expected [BYTES] \"TEXT\" before => after";
        let (bytes, rest) = line.strip_prefix('[').and_then(|l| l.split_once(']')).ok_or(shape)?;
        let bytes = hexadecimal(bytes).filter(|b| (1..=15).contains(&b.len())).ok_or("expected 1 to 15 bytes")?;
        let (assembly, rest) = rest.trim().strip_prefix('"').and_then(|r| r.split_once('"')).ok_or(shape)?;
        let (before, after) = rest.split_once("=>").ok_or(shape)?;
        let (exception, after) = match after.trim().strip_prefix('#') {
            Some(name) => {
                let (name, rest) = name.split_once(',').unwrap_or((name, ""));
                (Some(exception(name.trim())?), rest)
            }
            None => (None, after),
        };
        let case = Case {
            bits,
            bytes,
            assembly: assembly.into(),
            before: assignments(before)?,
            after: assignments(after)?,
            exception,
        };
        case.check_assembly()?;
        Ok(case)
    }

    fn check_assembly(&self) -> Result<(), String> {
        let mut decoder = Decoder::with_ip(self.bits, &self.bytes, CODE, DecoderOptions::NONE);
        let instruction = decoder.decode();
        let mut text = String::new();
        NasmFormatter::new().format(&instruction, &mut text);
        let plain = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
        if instruction.is_invalid() || plain(&text) == plain(&self.assembly) {
            return Ok(());
        }
        Err(format!("the bytes are \"{text}\""))
    }

    /// Runs the case by single step and as part of a block.
    ///
    /// # Errors
    /// What differs from what the case says, and in which way of running.
    pub fn run(&self) -> Result<(), String> {
        self.run_one(true).map_err(|e| format!("by single step: {e}"))?;
        self.run_one(false).map_err(|e| format!("in a block: {e}"))
    }

    fn run_one(&self, single_steps: bool) -> Result<(), String> {
        let mut cpu = machine(self.bits).map_err(|e| e.to_string())?;
        cpu.single_steps = single_steps;
        cpu.memory.write(CODE, &[self.bytes.as_slice(), &[HLT]].concat());
        for (place, value) in &self.before {
            place.set(&mut cpu, *value);
        }
        cpu.mode_changed();
        let mut expected = cpu.state.clone();
        for (place, value) in &self.after {
            place.set_state(&mut expected, *value);
        }
        let exit = cpu.run(1000);
        match (exit, self.exception) {
            (RunExit::TripleFault, wanted) => check_exception(&cpu, wanted)?,
            (RunExit::Halted, Some((vector, _))) => return Err(format!("{} did not come", vector_name(vector))),
            (RunExit::Halted, None) => {}
            (other, _) => return Err(format!("the instruction does not come to its end: {other:?}")),
        }
        self.check_state(&cpu, &expected)
    }

    fn check_state(&self, cpu: &Vcpu, expected: &CpuState) -> Result<(), String> {
        for n in 0..16 {
            let (is, wanted) = (cpu.state.regs.gpr(n), expected.regs.gpr(n));
            if is != wanted {
                return Err(format!("{} is {is:#x}, expected {wanted:#x}", GENERAL[usize::from(n)]));
            }
            let (is, wanted) = (cpu.state.xmm[usize::from(n)], expected.xmm[usize::from(n)]);
            if is != wanted {
                return Err(format!("xmm{n} is {:#x}, expected {:#x}", u128::from(is), u128::from(wanted)));
            }
        }
        for (place, wanted) in &self.after {
            let is = place.get(cpu);
            if is != *wanted {
                return Err(format!("{place:?} is {is:#x}, expected {wanted:#x}"));
            }
        }
        Ok(())
    }
}

fn check_exception(cpu: &Vcpu, wanted: Option<(u8, Option<u32>)>) -> Result<(), String> {
    let Some(Fault::Exception { vector, error, .. }) = cpu.chain.first().map(|raised| raised.fault) else {
        return Err("the processor shut down without an exception".into());
    };
    match wanted {
        Some((v, code)) if v == vector && (code.is_none() || code == error) => Ok(()),
        _ => Err(format!("raises {} with error code {error:x?}", vector_name(vector))),
    }
}

/// A processor in ring 0 with flat segments at the case's instruction; any exception shuts it down.
fn machine(bits: u32) -> std::io::Result<Vcpu> {
    let memory = Arc::new(GuestMemory::new(RAM, 0)?);
    let bus = Bus::new(memory.clone(), Arc::new(CpuPins::default()), Clock::new(ClockMode::Icount { shift: 0 }));
    let mut cpu = Vcpu::new(Arc::new(CpuModel::max()), Arc::new(bus));
    let s = &mut cpu.state;
    let code = match bits {
        16 => 0x008f_9b00_0000_ffff,
        32 => 0x00cf_9b00_0000_ffff,
        _ => 0x00af_9b00_0000_ffff,
    };
    s.cr0 |= CR0_PE | CR0_MP;
    s.cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
    for seg in Seg::ALL {
        s.set_segment(seg, Segment::from_descriptor(0x10, 0x00cf_9300_0000_ffff));
    }
    s.set_segment(Seg::Cs, Segment::from_descriptor(8, code));
    if bits == 64 {
        // One 2 MiB page: present, writable, large.
        for (at, entry) in [(0, TABLES + 0x1003), (0x1000, TABLES + 0x2003), (0x2000, 0x83)] {
            memory.write(TABLES + at, &u64::to_le_bytes(entry));
        }
        s.cr3 = TABLES;
        s.cr4 |= CR4_PAE;
        s.cr0 |= CR0_PG;
        s.msrs.efer = EFER_LME | EFER_LMA;
    }
    s.idtr.limit = 0;
    s.rip = CODE;
    s.regs.set_gpr(crate::cpu::regs::RSP, STACK);
    cpu.flush_tlb(false);
    cpu.mode_changed();
    Ok(cpu)
}

const GENERAL: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

impl Place {
    fn named(name: &str) -> Option<Place> {
        let flag = match name {
            "cf" => rflags::CF,
            "pf" => rflags::PF,
            "af" => rflags::AF,
            "zf" => rflags::ZF,
            "sf" => rflags::SF,
            "of" => rflags::OF,
            "df" => rflags::DF,
            "if" => rflags::IF,
            _ => 0,
        };
        if flag != 0 {
            return Some(Place::Flag(flag));
        }
        if name == "mxcsr" {
            return Some(Place::Mxcsr);
        }
        if let Some(n) = name.strip_prefix("xmm") {
            return n.parse().ok().filter(|n| *n < 16).map(Place::Xmm);
        }
        general(name)
    }

    fn set_state(self, state: &mut CpuState, value: u128) {
        match self {
            Place::General(n, byte, width) => {
                let mask = width.mask() << (8 * byte);
                let old = state.regs.gpr(n);
                state.regs.set_gpr(n, old & !mask | (value as u64) << (8 * byte) & mask);
            }
            Place::Xmm(n) => state.xmm[usize::from(n)] = value.into(),
            Place::Flag(mask) => {
                let flags = state.rflags();
                state.set_rflags(if value != 0 { flags | mask } else { flags & !mask });
            }
            Place::Mxcsr => state.mxcsr = value as u32,
            Place::Memory(..) => {}
        }
    }

    fn set(self, cpu: &mut Vcpu, value: u128) {
        match self {
            Place::Memory(address, len) => {
                cpu.memory.write(address, &value.to_le_bytes()[..usize::from(len)]);
            }
            _ => self.set_state(&mut cpu.state, value),
        }
    }

    fn get(self, cpu: &Vcpu) -> u128 {
        match self {
            Place::General(n, byte, width) => u128::from(cpu.state.regs.gpr(n) >> (8 * byte) & width.mask()),
            Place::Xmm(n) => cpu.state.xmm[usize::from(n)].into(),
            Place::Flag(mask) => u128::from(cpu.state.rflags() & mask != 0),
            Place::Mxcsr => cpu.state.mxcsr.into(),
            Place::Memory(address, len) => {
                let mut bytes = [0; 16];
                cpu.memory.read(address, &mut bytes[..usize::from(len)]);
                u128::from_le_bytes(bytes)
            }
        }
    }
}

/// A general register of any width.
fn general(name: &str) -> Option<Place> {
    const BYTES: [&str; 8] = ["al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil"];
    const HIGH: [&str; 4] = ["ah", "ch", "dh", "bh"];
    let number = |names: &[&str]| names.iter().position(|n| *n == name).map(|n| n as u8);
    if let Some(n) = number(&GENERAL) {
        return Some(Place::General(n, 0, Width::B8));
    }
    if let Some(n) = number(&BYTES) {
        return Some(Place::General(n, 0, Width::B1));
    }
    if let Some(n) = number(&HIGH) {
        return Some(Place::General(n, 1, Width::B1));
    }
    let position = |wanted: &str| GENERAL.iter().position(|n| *n == wanted).map(|n| n as u8);
    if let Some(rest) = name.strip_prefix('e') {
        return position(&format!("r{rest}")).map(|n| Place::General(n, 0, Width::B4));
    }
    for (suffix, width) in [('d', Width::B4), ('w', Width::B2), ('b', Width::B1)] {
        if let Some(n) = name.strip_suffix(suffix).and_then(position).filter(|n| *n >= 8) {
            return Some(Place::General(n, 0, width));
        }
    }
    position(&format!("r{name}")).filter(|n| *n < 8).map(|n| Place::General(n, 0, Width::B2))
}

fn assignments(text: &str) -> Result<Vec<(Place, u128)>, String> {
    text.split(',').map(str::trim).filter(|a| !a.is_empty()).map(assignment).collect()
}

fn assignment(text: &str) -> Result<(Place, u128), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("'{text}': expected PLACE=VALUE"))?;
    let (name, value) = (name.trim(), value.trim());
    if let Some(address) = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
        let address = number(address).filter(|a| *a < u128::from(RAM - 16));
        let bytes = hexadecimal(value).filter(|b| (1..=16).contains(&b.len()));
        let (Some(address), Some(bytes)) = (address, bytes) else {
            return Err(format!("'{text}': expected [ADDRESS]=BYTES, address below 1 MiB, at most 16 bytes"));
        };
        let mut whole = [0; 16];
        whole[..bytes.len()].copy_from_slice(&bytes);
        return Ok((Place::Memory(address as u64, bytes.len() as u8), u128::from_le_bytes(whole)));
    }
    let place = Place::named(name).ok_or_else(|| format!("'{name}' is no register or flag"))?;
    let value = number(value).ok_or_else(|| format!("'{value}' is no number"))?;
    Ok((place, value))
}

/// `GP(0)`, `DE`: vector and error code.
fn exception(text: &str) -> Result<(u8, Option<u32>), String> {
    let (name, code) = match text.split_once('(') {
        Some((name, code)) => (name, code.strip_suffix(')').and_then(number).and_then(|n| u32::try_from(n).ok())),
        None => (text, None),
    };
    let wanted = format!("#{name}");
    let vector = (0..22).find(|v| vector_name(*v) == wanted);
    vector.map(|v| (v, code)).ok_or_else(|| format!("'#{text}' is no exception"))
}

fn number(text: &str) -> Option<u128> {
    match text.strip_prefix("0x") {
        Some(hex) => u128::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> =
        text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let pairs = digits.chunks(2);
    digits.len().is_multiple_of(2).then(|| pairs.map(|p| (p[0] << 4 | p[1]) as u8).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(line: &str, bits: u32) -> Case {
        match Line::parse(line, bits) {
            Ok(Line::Case(case)) => case,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn right_cases_pass_in_every_mode() {
        case("[01 d8] \"add eax, ebx\" eax=1, ebx=0xffffffff => eax=0, cf=1, zf=1, of=0", 32).run().unwrap();
        case("[01 d8] \"add ax,bx\" eax=0x10001, bx=2 => ax=3", 16).run().unwrap();
        case("[48 01 d8] \"add rax,rbx\" rax=1, rbx=0x100000000 => rax=0x100000001, cf=0", 64).run().unwrap();
        case("[88 07] \"mov [edi],al\" edi=0x20000, al=5 => [0x20000]=05", 32).run().unwrap();
        case("[f7 f1] \"div ecx\" ecx=0 => #DE", 32).run().unwrap();
    }

    #[test]
    fn wrong_expectations_are_told() {
        let wrong = |line| case(line, 32).run().unwrap_err();
        assert_eq!(wrong("[40] \"inc eax\" eax=1 => eax=3"), "by single step: rax is 0x2, expected 0x3");
        assert_eq!(wrong("[40] \"inc eax\" eax=1 =>"), "by single step: rax is 0x2, expected 0x1");
        assert_eq!(wrong("[40] \"inc eax\" => #GP(0)"), "by single step: #GP did not come");
        assert!(wrong("[0f 0b] \"ud2\" => #GP").contains("raises #UD"));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in
            ["x", "[01 d8] \"sub eax,ebx\" =>", "[] \"\" =>", "[90] \"nop\" q=1 =>", "[90] \"nop\" => #XX", "bits 8"]
        {
            assert!(Line::parse(line, 32).is_err(), "{line}");
        }
        assert_eq!(Line::parse("# note", 32), Ok(Line::Blank));
        assert_eq!(Line::parse("bits 64", 32), Ok(Line::Bits(64)));
    }
}
