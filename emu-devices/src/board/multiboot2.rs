//! Multiboot 2 kernels: Multiboot2 Specification 2.0, for the i386 architecture.
//!
//! The kernel is an ELF file or a flat one with an address tag, entered in 32-bit protected mode. Information tags that
//! are passed: command line, loader name, modules, memory sizes and map, ACPI root pointer, load address. Deliberately
//! absent: EFI and MIPS entry points, framebuffers, relocation (a relocatable kernel is loaded where it was linked).

use super::boot_state::{BootState, gpr};
use super::elf::{Elf, ElfError};
use super::kernel::KernelOptions;
use super::memory_map::memory_map;
use super::multiboot::{LOADER_NAME, command_line, memory_sizes, place_modules, terminated};
use super::place::{PlaceError, Placement};
use emu_core::mem::GuestMemory;
use thiserror::Error;

const MAGIC: u32 = 0xe852_50d6;
const BOOTED_MAGIC: u64 = 0x36d7_6289;
/// The header lies within the first bytes of the file, on an 8-byte boundary.
const SEARCH: usize = 32768;
const HEADER: usize = 16;
const ARCHITECTURE_I386: u32 = 0;

/// Header tags.
mod tag {
    pub const END: u32 = 0;
    pub const INFORMATION_REQUEST: u32 = 1;
    pub const ADDRESS: u32 = 2;
    pub const ENTRY_ADDRESS: u32 = 3;
    pub const RELOCATABLE: u32 = 10;
    pub const OPTIONAL: u32 = 1 << 16;
}

/// Information tags.
mod info {
    pub const COMMAND_LINE: u32 = 1;
    pub const LOADER_NAME: u32 = 2;
    pub const MODULE: u32 = 3;
    pub const MEMORY_SIZES: u32 = 4;
    pub const MEMORY_MAP: u32 = 6;
    pub const ACPI_OLD: u32 = 14;
    pub const ACPI_NEW: u32 = 15;
    pub const LOAD_ADDRESS: u32 = 21;
    /// The last one that the specification has.
    pub const LAST: u32 = 21;
}

/// What is wrong with a Multiboot 2 kernel.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Multiboot2Error {
    /// A header field with a value that cannot be served.
    #[error("the Multiboot 2 header's field {field} is {value:#x}; accepted: {accepted}")]
    Field {
        /// Name in the specification.
        field: &'static str,
        /// What it holds.
        value: u64,
        /// What would be accepted.
        accepted: &'static str,
    },
    /// Part of the file is missing.
    #[error("the Multiboot 2 kernel is truncated: its header asks for {expected} bytes, the file has {actual}")]
    Truncated {
        /// Bytes promised.
        expected: u64,
        /// Bytes in the file.
        actual: u64,
    },
    /// Neither ELF nor address tag.
    #[error("the Multiboot 2 kernel is no ELF file, and its header has no address tag and entry address tag")]
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
pub struct Multiboot2Kernel {
    file: Vec<u8>,
    flat: Option<Flat>,
    entry: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flat {
    offset: usize,
    load_size: usize,
    memory_size: u64,
    load_address: u32,
}

impl Multiboot2Kernel {
    /// Whether `file` has a Multiboot 2 header.
    pub fn detect(file: &[u8]) -> bool {
        find_header(file).is_some()
    }

    /// Validates `file`.
    ///
    /// # Errors
    /// It is no Multiboot 2 kernel, or a damaged one.
    pub fn parse(file: &[u8]) -> Result<Multiboot2Kernel, Multiboot2Error> {
        let header = find_header(file).ok_or(Multiboot2Error::NoFormat)?;
        let architecture = word(file, header + 4);
        if architecture != ARCHITECTURE_I386 {
            return Err(wrong("architecture", architecture, "0 (i386)"));
        }
        let (mut flat, mut entry) = (None, None);
        for (kind, required, at, size) in tags(file, header)? {
            match kind {
                tag::INFORMATION_REQUEST if required => {
                    let mut requests = (at + 8..at + size).step_by(4).map(|at| word(file, at));
                    if let Some(unknown) = requests.find(|request| *request > info::LAST) {
                        return Err(wrong("mbi_tag_types", unknown, "information tags 0 to 21"));
                    }
                }
                tag::ADDRESS => flat = Some(Flat::parse(file, header, at)?),
                tag::ENTRY_ADDRESS => entry = Some(word(file, at + 8)),
                // Console, framebuffer, module alignment, EFI and relocation: nothing to do without EFI.
                _ if kind <= tag::RELOCATABLE || !required => {}
                _ => return Err(wrong("type", kind, "tags 0 to 10, or optional ones")),
            }
        }
        match (&flat, entry) {
            (Some(_), Some(_)) => {}
            _ if Elf::detect(file) => {
                Elf::parse(file)?;
            }
            _ => return Err(Multiboot2Error::NoFormat),
        }
        Ok(Multiboot2Kernel { file: file.to_vec(), flat: flat.filter(|_| entry.is_some()), entry })
    }

    /// Puts kernel, modules and information into `memory`; the state to start it in. `rsdp`: the ACPI root pointer.
    ///
    /// # Errors
    /// Something does not fit.
    pub fn load(&self, memory: &GuestMemory, options: &KernelOptions, rsdp: u64) -> Result<BootState, Multiboot2Error> {
        // First, since a kernel may be loaded over the GDT, which it may not rely on.
        let mut state = BootState::protected(memory, 0);
        let (entry, mut placement) = match &self.flat {
            Some(flat) => {
                let mut placement = Placement::new(memory);
                placement.reserve(flat.load_address.into(), flat.memory_size)?;
                let bytes = &self.file[flat.offset..flat.offset + flat.load_size];
                placement.fill(flat.load_address.into(), bytes, flat.memory_size);
                (flat.load_address, placement)
            }
            None => {
                let elf = Elf::parse(&self.file)?;
                (elf.entry(), Placement::behind(memory, elf.load(memory)?))
            }
        };
        let modules = place_modules(&mut placement, &options.modules)?;
        let mut information = Information::default();
        information.add(info::COMMAND_LINE, &[&command_line(options)]);
        information.add(info::LOADER_NAME, &[LOADER_NAME]);
        for ((start, end), module) in modules.iter().zip(&options.modules) {
            let line = terminated(&module.command_line);
            information.add(info::MODULE, &[&start.to_le_bytes(), &end.to_le_bytes(), &line]);
        }
        let [lower, upper] = memory_sizes(memory);
        information.add(info::MEMORY_SIZES, &[&lower.to_le_bytes(), &upper.to_le_bytes()]);
        let mut map = [24u32.to_le_bytes(), 0u32.to_le_bytes()].concat();
        for range in memory_map(memory) {
            map.extend(range.start.to_le_bytes());
            map.extend(range.len.to_le_bytes());
            map.extend((range.kind as u64).to_le_bytes());
        }
        information.add(info::MEMORY_MAP, &[&map]);
        if rsdp != 0 {
            let mut pointer = [0; 36];
            memory.read(rsdp, &mut pointer);
            information.add(info::ACPI_OLD, &[&pointer[..20]]);
            information.add(info::ACPI_NEW, &[&pointer]);
        }
        let load_address = self.flat.map_or(entry, |flat| flat.load_address);
        information.add(info::LOAD_ADDRESS, &[&load_address.to_le_bytes()]);
        let at = placement.append("the Multiboot 2 information", &information.finish())?;
        state.rip = self.entry.unwrap_or(entry).into();
        state.gpr[gpr::EAX] = BOOTED_MAGIC;
        state.gpr[gpr::EBX] = at.into();
        Ok(state)
    }
}

/// The tags of the header at `header`: type, whether they are required, offset and size.
fn tags(file: &[u8], header: usize) -> Result<Vec<(u32, bool, usize, usize)>, Multiboot2Error> {
    let length = word(file, header + 8) as usize;
    let end = header.saturating_add(length);
    if end > file.len() {
        return Err(Multiboot2Error::Truncated { expected: end as u64, actual: file.len() as u64 });
    }
    let mut tags = Vec::new();
    let mut at = header + HEADER;
    while at + 8 <= end {
        let (kind, size) = (word(file, at), word(file, at + 4) as usize);
        if size < 8 || size > end - at {
            return Err(wrong("size", size as u32, "8 up to what is left of header_length"));
        }
        let number = kind & 0xffff;
        let shortest = match number {
            tag::END => return Ok(tags),
            tag::ADDRESS => 24,
            tag::ENTRY_ADDRESS => 12,
            _ => 8,
        };
        if size < shortest {
            return Err(wrong("size", size as u32, "24 for an address tag, 12 for an entry address tag"));
        }
        tags.push((number, kind & tag::OPTIONAL == 0, at, size));
        at += size.next_multiple_of(8);
    }
    Ok(tags)
}

impl Flat {
    fn parse(file: &[u8], header: usize, at: usize) -> Result<Flat, Multiboot2Error> {
        let [header_address, load, load_end, bss_end] = [8, 12, 16, 20].map(|offset| word(file, at + offset));
        // -1 means that the file is loaded from its first byte.
        let offset = match load {
            u32::MAX => 0,
            _ if load > header_address => return Err(wrong("load_addr", load, "at most header_addr, or -1")),
            _ => match header.checked_sub((header_address - load) as usize) {
                Some(offset) => offset,
                None => return Err(wrong("header_addr", header_address, "load_addr plus at most the header's offset")),
            },
        };
        let load = if load == u32::MAX { header_address.wrapping_sub(header as u32) } else { load };
        let load_size = match load_end {
            0 => file.len() - offset,
            _ if load_end < load => return Err(wrong("load_end_addr", load_end, "0 or at least load_addr")),
            _ => (load_end - load) as usize,
        };
        let expected = offset as u64 + load_size as u64;
        if expected > file.len() as u64 {
            return Err(Multiboot2Error::Truncated { expected, actual: file.len() as u64 });
        }
        let memory_size = match bss_end {
            0 => load_size as u64,
            _ if u64::from(bss_end) < u64::from(load) + load_size as u64 => {
                return Err(wrong("bss_end_addr", bss_end, "0 or at least load_end_addr"));
            }
            _ => u64::from(bss_end - load),
        };
        Ok(Flat { offset, load_size, memory_size, load_address: load })
    }
}

/// The information structure under construction.
#[derive(Default)]
struct Information(Vec<u8>);

impl Information {
    fn add(&mut self, kind: u32, parts: &[&[u8]]) {
        if self.0.is_empty() {
            self.0.resize(8, 0);
        }
        let size: usize = parts.iter().map(|part| part.len()).sum();
        self.0.extend(kind.to_le_bytes());
        self.0.extend((size as u32 + 8).to_le_bytes());
        parts.iter().for_each(|part| self.0.extend_from_slice(part));
        self.0.resize(self.0.len().next_multiple_of(8), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add(0, &[]);
        let size = (self.0.len() as u32).to_le_bytes();
        self.0[..4].copy_from_slice(&size);
        self.0
    }
}

fn find_header(file: &[u8]) -> Option<usize> {
    let end = file.len().min(SEARCH).saturating_sub(HEADER - 1);
    (0..end).step_by(8).find(|at| {
        let sum = (0..4).fold(0u32, |sum, i| sum.wrapping_add(word(file, at + 4 * i)));
        word(file, *at) == MAGIC && sum == 0
    })
}

fn wrong(field: &'static str, value: u32, accepted: &'static str) -> Multiboot2Error {
    Multiboot2Error::Field { field, value: value.into(), accepted }
}

fn word(bytes: &[u8], offset: usize) -> u32 {
    let byte = |i: usize| bytes.get(offset + i).copied().unwrap_or(0);
    u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::elf::sample;
    use crate::board::kernel::Module;

    fn header(tags: &[u32]) -> Vec<u8> {
        let length = (HEADER + 4 * tags.len() + 8) as u32;
        let checksum = 0u32.wrapping_sub(MAGIC).wrapping_sub(length);
        let words = [MAGIC, 0, length, checksum];
        words.iter().chain(tags).chain(&[0, 8]).flat_map(|w| w.to_le_bytes()).collect()
    }

    fn information(memory: &GuestMemory, state: &BootState) -> Vec<(u32, Vec<u8>)> {
        let mut bytes = vec![0; 4096];
        memory.read(state.gpr[gpr::EBX], &mut bytes);
        let mut at = 8;
        let mut tags = Vec::new();
        while at < word(&bytes, 0) as usize {
            let size = word(&bytes, at + 4) as usize;
            tags.push((word(&bytes, at), bytes[at + 8..at + size].to_vec()));
            at += size.next_multiple_of(8);
        }
        tags
    }

    #[test]
    fn elf_kernel_gets_its_information_tags() {
        let memory = GuestMemory::new(0x100_0000, 0).unwrap();
        memory.write(0xe_0000, b"RSD PTR ");
        let file = sample::elf64(0x10_0000, &header(&[]), &[]);
        let options = KernelOptions {
            name: "k".into(),
            command_line: b"x y".to_vec(),
            modules: vec![Module { contents: b"module".to_vec(), command_line: b"m".to_vec() }],
            ..KernelOptions::default()
        };
        let state = Multiboot2Kernel::parse(&file).unwrap().load(&memory, &options, 0xe_0000).unwrap();
        assert_eq!((state.rip, state.gpr[gpr::EAX]), (0x10_0004, BOOTED_MAGIC));
        let tags = information(&memory, &state);
        let kinds: Vec<u32> = tags.iter().map(|t| t.0).collect();
        assert_eq!(kinds, [1, 2, 3, 4, 6, 14, 15, 21, 0]);
        assert_eq!(tags[0].1, b"k x y\0");
        assert_eq!((&tags[2].1[8..], word(&tags[2].1, 4) - word(&tags[2].1, 0)), (&b"m\0"[..], 6));
        assert_eq!(word(&tags[3].1, 4), 15 * 1024);
        assert_eq!((&tags[5].1[..8], tags[6].1.len()), (&b"RSD PTR "[..], 36));
    }

    #[test]
    fn flat_kernel_is_loaded_by_address_and_entry_tags() {
        let memory = GuestMemory::new(0x100_0000, 0).unwrap();
        let tags = [2, 24, 0x20_0000, 0x20_0000, 0, 0x20_1000, 3, 12, 0x20_0044, 0];
        let file = [header(&tags), vec![0x90; 64]].concat();
        let state = Multiboot2Kernel::parse(&file).unwrap().load(&memory, &KernelOptions::default(), 0).unwrap();
        assert_eq!(state.rip, 0x20_0044);
        assert!(state.gpr[gpr::EBX] >= 0x20_1000);
    }

    #[test]
    fn unknown_requirements_are_refused_and_optional_ones_ignored() {
        // The sample's contents begin at an odd multiple of 4.
        let contents = |tags: &[u32]| [vec![0; 4], header(tags)].concat();
        let parse = |tags: &[u32]| Multiboot2Kernel::parse(&sample::elf32(0x10_0000, &contents(tags), 0, 0x10_0000));
        assert!(parse(&[5, 20, 80, 25, 0, 0]).is_ok());
        assert!(parse(&[77 | tag::OPTIONAL, 8]).is_ok());
        let field = |tags: &[u32]| match parse(tags).unwrap_err() {
            Multiboot2Error::Field { field, .. } => field,
            other => panic!("{other}"),
        };
        assert_eq!(field(&[77, 8]), "type");
        assert_eq!(field(&[1, 12, 99, 0]), "mbi_tag_types");
        assert_eq!(field(&[5, 4]), "size");
        assert_eq!(field(&[2, 16, 0, 0]), "size");
    }

    #[test]
    fn damaged_files_never_panic() {
        let memory = GuestMemory::new(0x40_0000, 0).unwrap();
        let tags = [2, 24, 0x20_0000, 0x20_0000, 0, 0x20_1000, 3, 12, 0x20_0044, 0, 1, 12, 3, 0];
        let good = [header(&tags), vec![0x90; 64]].concat();
        (0..good.len()).for_each(|len| drop(Multiboot2Kernel::parse(&good[..len])));
        let mut seed = 3u64;
        for _ in 0..50_000 {
            let mut bad = good.clone();
            for _ in 0..2 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                bad[HEADER + (seed >> 40) as usize % 64] = (seed >> 33) as u8;
            }
            if let Ok(kernel) = Multiboot2Kernel::parse(&bad) {
                let _ = kernel.load(&memory, &KernelOptions::default(), 0);
            }
        }
    }
}
