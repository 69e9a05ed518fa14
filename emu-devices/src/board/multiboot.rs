//! Multiboot kernels: Multiboot Specification 0.6.96 (version 1).
//!
//! The kernel is an ELF file of 32 or 64 bits, entered in 32-bit protected mode either way, or a flat file whose header
//! has the address fields (the "a.out kludge"). Information that is passed: memory sizes and map, boot device, command
//! line, modules, loader name. Deliberately absent: video modes (a wish for one is ignored), drives, APM.

use super::boot_state::{BootState, gpr};
use super::elf::{Elf, ElfError};
use super::kernel::{KernelOptions, Module};
use super::memory_map::{EBDA, HIGH_MEMORY, memory_map};
use super::place::{PlaceError, Placement};
use super::through_firmware::Loaded;
use emu_core::mem::GuestMemory;
use thiserror::Error;

const MAGIC: u32 = 0x1bad_b002;
const BOOTED_MAGIC: u64 = 0x2bad_b002;
/// The header lies within the first bytes of the file, on a 4-byte boundary.
const SEARCH: usize = 8192;
const HEADER: usize = 12;
const ADDRESS_FIELDS: usize = 20;

/// Header flags.
mod wants {
    /// Requirements that a loader must know: page-aligned modules, memory information, video mode.
    pub const KNOWN: u32 = 0b111;
    pub const REQUIREMENTS: u32 = 0xffff;
    pub const ADDRESSES: u32 = 1 << 16;
}

/// Information structure flags.
const HAS_MEMORY: u32 = 1 << 0;
const HAS_BOOT_DEVICE: u32 = 1 << 1;
const HAS_COMMAND_LINE: u32 = 1 << 2;
const HAS_MODULES: u32 = 1 << 3;
const HAS_MEMORY_MAP: u32 = 1 << 6;
const HAS_LOADER_NAME: u32 = 1 << 9;
const INFORMATION: usize = 0x58;

pub(super) const LOADER_NAME: &[u8] = b"emu\0";

/// What is wrong with a Multiboot kernel.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MultibootError {
    /// A requirement from a later specification.
    #[error("the Multiboot header's flags {0:#x} require features of bits 3 to 15; accepted: bits 0, 1, 2 and 16")]
    Flags(u32),
    /// Address fields that contradict each other.
    #[error("the Multiboot header's field {field} is {value:#x}; accepted: {accepted}")]
    Address {
        /// Name in the specification.
        field: &'static str,
        /// What it holds.
        value: u32,
        /// What would be accepted.
        accepted: &'static str,
    },
    /// Part of the file is missing.
    #[error("the Multiboot kernel is truncated: its header asks for {expected} bytes, the file has {actual}")]
    Truncated {
        /// Bytes promised.
        expected: u64,
        /// Bytes in the file.
        actual: u64,
    },
    /// Neither ELF nor address fields.
    #[error("the Multiboot kernel is no ELF file, and its header has no address fields (flag 16)")]
    NoFormat,
    /// The ELF file is bad.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// It does not fit into memory.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

/// A validated kernel file.
#[derive(Clone, Debug)]
pub struct MultibootKernel {
    file: Vec<u8>,
    flat: Option<Flat>,
}

/// What the address fields come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flat {
    offset: usize,
    load_size: usize,
    memory_size: u64,
    load_address: u32,
    entry: u32,
}

impl MultibootKernel {
    /// Whether `file` has a Multiboot header.
    pub fn detect(file: &[u8]) -> bool {
        find_header(file).is_some()
    }

    /// Validates `file`.
    ///
    /// # Errors
    /// It is no Multiboot kernel, or a damaged one.
    pub fn parse(file: &[u8]) -> Result<MultibootKernel, MultibootError> {
        let header = find_header(file).ok_or(MultibootError::NoFormat)?;
        let flags = word(file, header + 4);
        if flags & wants::REQUIREMENTS & !wants::KNOWN != 0 {
            return Err(MultibootError::Flags(flags));
        }
        if flags & wants::ADDRESSES == 0 {
            if !Elf::detect(file) {
                return Err(MultibootError::NoFormat);
            }
            Elf::parse(file)?;
            return Ok(MultibootKernel { file: file.to_vec(), flat: None });
        }
        let end = (header + HEADER + ADDRESS_FIELDS) as u64;
        if (file.len() as u64) < end {
            return Err(MultibootError::Truncated { expected: end, actual: file.len() as u64 });
        }
        let flat = Flat::parse(file, header)?;
        Ok(MultibootKernel { file: file.to_vec(), flat: Some(flat) })
    }

    /// Puts kernel, modules and information into `memory`; the state to start it in.
    ///
    /// # Errors
    /// Something does not fit.
    pub fn load(&self, memory: &GuestMemory, options: &KernelOptions) -> Result<BootState, MultibootError> {
        Ok(self.place(memory, options)?.state)
    }

    /// The same, and what of `memory` is used.
    ///
    /// # Errors
    /// Something does not fit.
    pub fn place(&self, memory: &GuestMemory, options: &KernelOptions) -> Result<Loaded, MultibootError> {
        // First, since a kernel may be loaded over the GDT, which it may not rely on.
        let mut state = BootState::protected(memory, 0);
        let (entry, start, mut placement) = match &self.flat {
            Some(flat) => {
                let mut placement = Placement::new(memory);
                placement.reserve(flat.load_address.into(), flat.memory_size)?;
                let bytes = &self.file[flat.offset..flat.offset + flat.load_size];
                placement.fill(flat.load_address.into(), bytes, flat.memory_size);
                (flat.entry, flat.load_address.into(), placement)
            }
            None => {
                let elf = Elf::parse(&self.file)?;
                (elf.entry(), elf.start(), Placement::behind(memory, elf.load(memory)?))
            }
        };
        let information = pass_information(&mut placement, memory, options)?;
        state.rip = entry.into();
        state.gpr[gpr::EAX] = BOOTED_MAGIC;
        state.gpr[gpr::EBX] = information.into();
        Ok(Loaded { state, start, end: placement.end() })
    }
}

impl Flat {
    fn parse(file: &[u8], header: usize) -> Result<Flat, MultibootError> {
        let field = |n: usize| word(file, header + HEADER + 4 * n);
        let (header_address, load, load_end, bss_end, entry) = (field(0), field(1), field(2), field(3), field(4));
        let wrong = |field, value, accepted| Err(MultibootError::Address { field, value, accepted });
        if header_address < load {
            return wrong("load_addr", load, "at most header_addr");
        }
        let before = (header_address - load) as usize;
        let Some(offset) = header.checked_sub(before) else {
            return wrong("header_addr", header_address, "load_addr plus at most the header's offset in the file");
        };
        let load_size = match load_end {
            0 => file.len() - offset,
            _ if load_end < load => return wrong("load_end_addr", load_end, "0 or at least load_addr"),
            _ => (load_end - load) as usize,
        };
        let expected = offset as u64 + load_size as u64;
        if expected > file.len() as u64 {
            return Err(MultibootError::Truncated { expected, actual: file.len() as u64 });
        }
        let memory_size = match bss_end {
            0 => load_size as u64,
            _ if u64::from(bss_end) < u64::from(load) + load_size as u64 => {
                return wrong("bss_end_addr", bss_end, "0 or at least load_end_addr");
            }
            _ => u64::from(bss_end - load),
        };
        if u64::from(entry.wrapping_sub(load)) >= memory_size {
            return wrong("entry_addr", entry, "an address within the loaded kernel");
        }
        Ok(Flat { offset, load_size, memory_size, load_address: load, entry })
    }
}

/// The offset of a header with a correct checksum.
fn find_header(file: &[u8]) -> Option<usize> {
    let end = file.len().min(SEARCH).saturating_sub(HEADER - 1);
    (0..end).step_by(4).find(|at| {
        let sum = word(file, *at).wrapping_add(word(file, at + 4)).wrapping_add(word(file, at + 8));
        word(file, *at) == MAGIC && sum == 0
    })
}

/// The command line as QEMU gives it: the kernel's name first.
pub(super) fn command_line(options: &KernelOptions) -> Vec<u8> {
    let mut line = options.name.clone().into_bytes();
    if !options.command_line.is_empty() {
        line.push(b' ');
        line.extend(&options.command_line);
    }
    terminated(&line)
}

/// `line` up to its first NUL, and one NUL.
pub(super) fn terminated(line: &[u8]) -> Vec<u8> {
    line.iter().copied().take_while(|b| *b != 0).chain([0]).collect()
}

/// Puts modules behind the kernel: first and one past the last address of each.
pub(super) fn place_modules(placement: &mut Placement, modules: &[Module]) -> Result<Vec<(u32, u32)>, PlaceError> {
    modules
        .iter()
        .map(|module| {
            let start = placement.append("a module", &module.contents)?;
            Ok((start, start + module.contents.len() as u32))
        })
        .collect()
}

/// Kibibytes below 640 KiB, and from 1 MiB to the first hole.
pub(super) fn memory_sizes(memory: &GuestMemory) -> [u32; 2] {
    let upper = memory.low_ram().saturating_sub(HIGH_MEMORY) / 1024;
    [(EBDA / 1024) as u32, upper as u32]
}

/// The information structure and what it points to, in one piece; where.
fn pass_information(
    placement: &mut Placement,
    memory: &GuestMemory,
    options: &KernelOptions,
) -> Result<u32, PlaceError> {
    let modules = place_modules(placement, &options.modules)?;
    let base = placement.end().max(HIGH_MEMORY).next_multiple_of(emu_core::mem::PAGE) as u32;
    let mut bytes = vec![0; INFORMATION];
    let mut append = |data: &[u8]| {
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let at = base.wrapping_add(bytes.len() as u32);
        bytes.extend_from_slice(data);
        at
    };
    let line = append(&command_line(options));
    let name = append(LOADER_NAME);
    let mut list = Vec::new();
    for ((start, end), module) in modules.iter().zip(&options.modules) {
        let string = append(&terminated(&module.command_line));
        [*start, *end, string, 0].iter().for_each(|w| list.extend(w.to_le_bytes()));
    }
    let list = append(&list);
    let map: Vec<u8> = memory_map(memory)
        .iter()
        .flat_map(|range| {
            let kind = range.kind as u32;
            [&20u32.to_le_bytes()[..], &range.start.to_le_bytes(), &range.len.to_le_bytes(), &kind.to_le_bytes()]
                .concat()
        })
        .collect();
    let map_at = append(&map);
    let [lower, upper] = memory_sizes(memory);
    let flags = HAS_MEMORY | HAS_BOOT_DEVICE | HAS_COMMAND_LINE | HAS_MODULES | HAS_MEMORY_MAP | HAS_LOADER_NAME;
    // Boot device: the first hard disk, no partition.
    let fields = [flags, lower, upper, 0x8000_ffff, line, modules.len() as u32, list];
    fields.iter().enumerate().for_each(|(i, field)| put(&mut bytes, 4 * i, *field));
    put(&mut bytes, 44, map.len() as u32);
    put(&mut bytes, 48, map_at);
    put(&mut bytes, 64, name);
    placement.append("the Multiboot information", &bytes)
}

fn word(bytes: &[u8], offset: usize) -> u32 {
    let byte = |i: usize| bytes.get(offset + i).copied().unwrap_or(0);
    u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)])
}

fn put(bytes: &mut [u8], offset: usize, value: u32) {
    bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests;
