//! Executable files in ELF form, as kernels are: System V ABI, "Object Files", with 32 and 64 bits, for x86.
//!
//! A file is validated whole before a byte of it is loaded. Deliberately absent: sections, relocation, dynamic linking.

use super::place::{PlaceError, Placement};
use emu_core::mem::GuestMemory;
use thiserror::Error;

/// The most program headers that are looked at. Kernels have about ten.
const MAX_HEADERS: u64 = 256;
const PT_LOAD: u64 = 1;
const PT_NOTE: u64 = 4;
const EM_386: u64 = 3;
const EM_X86_64: u64 = 62;

/// What is wrong with an ELF file.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ElfError {
    /// A header field with an impossible value.
    #[error("the ELF header's field {field} is {value:#x}; accepted: {accepted}")]
    Field {
        /// Name of the field in the ABI.
        field: &'static str,
        /// What it holds.
        value: u64,
        /// What would be accepted.
        accepted: &'static str,
    },
    /// A part of the file that is not there.
    #[error("the ELF file is truncated: {what} ends at byte {end}, the file at {len}")]
    Truncated {
        /// Which part.
        what: &'static str,
        /// One past its last byte.
        end: u64,
        /// Bytes in the file.
        len: u64,
    },
    /// No entry point below 4 GiB.
    #[error("the ELF file's entry point {0:#x} is not below 4 GiB in physical memory")]
    Entry(u64),
}

/// A program header of type PT_LOAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    offset: u64,
    physical: u64,
    linear: u64,
    file_size: u64,
    memory_size: u64,
}

/// A validated file.
#[derive(Clone, Debug)]
pub struct Elf<'a> {
    file: &'a [u8],
    segments: Vec<Segment>,
    notes: Vec<&'a [u8]>,
    entry: u32,
}

impl<'a> Elf<'a> {
    /// Whether `file` claims to be one.
    pub fn detect(file: &[u8]) -> bool {
        file.starts_with(b"\x7fELF")
    }

    /// Validates `file`.
    ///
    /// # Errors
    /// It is damaged, or not for this processor.
    pub fn parse(file: &'a [u8]) -> Result<Elf<'a>, ElfError> {
        let wide = check_identity(file)?;
        let word = if wide { 8 } else { 4 };
        // Offsets of e_entry and e_phoff, then of what follows e_flags.
        let (entry, headers) = (le(file, 24, word), le(file, 24 + u64::from(word), word));
        let after_flags = if wide { 52 } else { 40 };
        let (size, count) = (le(file, after_flags + 2, 2), le(file, after_flags + 4, 2));
        let smallest = if wide { 56 } else { 32 };
        if size < smallest {
            return Err(field("e_phentsize", size, "at least the size of a program header"));
        }
        if count == 0 || count > MAX_HEADERS {
            return Err(field("e_phnum", count, "1 to 256"));
        }
        let range = |what, start: u64, len: u64| {
            let end = start.saturating_add(len);
            if end > file.len() as u64 {
                return Err(ElfError::Truncated { what, end, len: file.len() as u64 });
            }
            Ok(&file[start as usize..end as usize])
        };
        range("the program header table", headers, size * count)?;
        let (mut segments, mut notes) = (Vec::new(), Vec::new());
        for i in 0..count {
            let at = headers + i * size;
            // p_flags is second in the 64-bit form and last but one in the 32-bit form.
            let get = |n: u64| if wide { le(file, at + 8 * n, 8) } else { le(file, at + 4 * n, 4) };
            let segment =
                Segment { offset: get(1), linear: get(2), physical: get(3), file_size: get(4), memory_size: get(5) };
            match le(file, at, 4) {
                PT_LOAD if segment.memory_size > 0 => {
                    range("a segment", segment.offset, segment.file_size)?;
                    if segment.file_size > segment.memory_size {
                        return Err(field("p_filesz", segment.file_size, "at most p_memsz"));
                    }
                    segments.push(segment);
                }
                PT_NOTE => notes.push(range("a note segment", segment.offset, segment.file_size)?),
                _ => {}
            }
        }
        if segments.is_empty() {
            return Err(field("e_phnum", count, "with at least one segment of type PT_LOAD that is not empty"));
        }
        // An entry point in linear memory is one in the segment that is loaded there.
        let within = segments.iter().find(|s| entry.wrapping_sub(s.linear) < s.memory_size);
        let physical = within.map_or(entry, |s| entry.wrapping_sub(s.linear).wrapping_add(s.physical));
        let entry = u32::try_from(physical).map_err(|_| ElfError::Entry(physical))?;
        Ok(Elf { file, segments, notes, entry })
    }

    /// Physical address of the entry point.
    pub fn entry(&self) -> u32 {
        self.entry
    }

    /// Physical address of the first byte that is loaded.
    pub fn start(&self) -> u64 {
        self.segments.iter().map(|segment| segment.physical).min().unwrap_or(0)
    }

    /// The descriptor of the first note with this name (without its NUL) and type.
    pub fn note(&self, name: &[u8], kind: u32) -> Option<&'a [u8]> {
        self.notes.iter().find_map(|segment| {
            let mut at = 0u64;
            while at + 12 <= segment.len() as u64 {
                let (name_size, size) = (le(segment, at, 4), le(segment, at + 4, 4));
                let name_at = at + 12;
                let start = name_at + name_size.next_multiple_of(4);
                let end = start + size;
                if end > segment.len() as u64 {
                    return None;
                }
                let found = &segment[name_at as usize..(name_at + name_size) as usize];
                if le(segment, at + 8, 4) == u64::from(kind) && found.strip_suffix(b"\0") == Some(name) {
                    return Some(&segment[start as usize..end as usize]);
                }
                at = end.next_multiple_of(4);
            }
            None
        })
    }

    /// Loads the segments at their physical addresses; one past the last byte.
    ///
    /// # Errors
    /// A segment is not in RAM, or the segments together are larger than RAM.
    pub fn load(&self, memory: &GuestMemory) -> Result<u64, PlaceError> {
        let mut placement = Placement::new(memory);
        for segment in &self.segments {
            placement.reserve(segment.physical, segment.memory_size)?;
        }
        for segment in &self.segments {
            let bytes = &self.file[segment.offset as usize..(segment.offset + segment.file_size) as usize];
            placement.fill(segment.physical, bytes, segment.memory_size);
        }
        Ok(placement.end())
    }
}

/// Whether it is a 64-bit file, and that it is one for x86 at all.
fn check_identity(file: &[u8]) -> Result<bool, ElfError> {
    let (class, data) = (le(file, 4, 1), le(file, 5, 1));
    let wide = match class {
        1 => false,
        2 => true,
        _ => return Err(field("EI_CLASS", class, "1 (ELF32) or 2 (ELF64)")),
    };
    let header = if wide { 64 } else { 52 };
    if file.len() < header {
        return Err(ElfError::Truncated { what: "the header", end: header as u64, len: file.len() as u64 });
    }
    if data != 1 {
        return Err(field("EI_DATA", data, "1 (little-endian)"));
    }
    match le(file, 18, 2) {
        EM_386 | EM_X86_64 => {}
        machine => return Err(field("e_machine", machine, "3 (80386) or 62 (x86-64)")),
    }
    match le(file, 16, 2) {
        2 | 3 => Ok(wide),
        kind => Err(field("e_type", kind, "2 (executable) or 3 (shared object without relocations)")),
    }
}

fn field(field: &'static str, value: u64, accepted: &'static str) -> ElfError {
    ElfError::Field { field, value, accepted }
}

/// The little-endian value of `size` bytes at `offset`; bytes behind the end are zero.
fn le(bytes: &[u8], offset: u64, size: u8) -> u64 {
    let byte = |i: u64| usize::try_from(offset.saturating_add(i)).ok().and_then(|at| bytes.get(at)).copied();
    (0..u64::from(size)).rev().fold(0, |value, i| value << 8 | u64::from(byte(i).unwrap_or(0)))
}

/// Files for the tests of this module and of those that load them.
#[cfg(test)]
pub(super) mod sample {
    /// An ELF32 file with one segment: `contents` at `physical`, with `extra` zeros behind.
    pub fn elf32(physical: u32, contents: &[u8], extra: u32, entry: u32) -> Vec<u8> {
        let mut file = b"\x7fELF\x01\x01\x01".to_vec();
        file.resize(16, 0);
        for half in [2u16, 3] {
            file.extend(half.to_le_bytes());
        }
        for word in [1, entry, 52, 0, 0] {
            file.extend(u32::to_le_bytes(word));
        }
        for half in [52u16, 32, 1, 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        let len = contents.len() as u32;
        for word in [1, 84, physical, physical, len, len + extra, 7, 4] {
            file.extend(u32::to_le_bytes(word));
        }
        file.extend(contents);
        file
    }

    /// An ELF64 file with a segment linked 2 GiB above `physical` and a note segment.
    pub fn elf64(physical: u64, contents: &[u8], note: &[u8]) -> Vec<u8> {
        let linear = physical + 0xffff_ffff_8000_0000;
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        for word in [linear + 4, 64, 0] {
            file.extend(u64::to_le_bytes(word));
        }
        file.extend([0; 4]);
        for half in [64u16, 56, 2, 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        let (start, len) = (64 + 2 * 56, contents.len() as u64);
        for (kind, offset, address, size) in [(1, start, physical, len), (4, start + len, 0, note.len() as u64)] {
            let linear = if kind == 1 { linear } else { 0 };
            for word in [kind | 7 << 32, offset, linear, address, size, size, 4] {
                file.extend(u64::to_le_bytes(word));
            }
        }
        file.extend(contents);
        file.extend(note);
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elf32_is_loaded_and_its_bss_zeroed() {
        let memory = GuestMemory::new(0x40_0000, 0).unwrap();
        memory.write(0x10_0000, &[0xff; 64]);
        let file = sample::elf32(0x10_0000, b"kernel", 10, 0x10_0002);
        let elf = Elf::parse(&file).unwrap();
        assert_eq!((elf.entry(), elf.load(&memory)), (0x10_0002, Ok(0x10_0010)));
        let mut bytes = [0; 17];
        memory.read(0x10_0000, &mut bytes);
        assert_eq!(&bytes, b"kernel\0\0\0\0\0\0\0\0\0\0\xff");
    }

    #[test]
    fn elf64_in_high_linear_memory_enters_at_its_physical_address() {
        let note = [&4u32.to_le_bytes()[..], &4u32.to_le_bytes(), &18u32.to_le_bytes(), b"Xen\0\x34\x12\0\0"].concat();
        let file = sample::elf64(0x20_0000, b"12345678", &note);
        let elf = Elf::parse(&file).unwrap();
        assert_eq!(elf.entry(), 0x20_0004);
        assert_eq!(elf.note(b"Xen", 18), Some(&[0x34, 0x12, 0, 0][..]));
        assert_eq!((elf.note(b"Xen", 17), elf.note(b"Xe", 18)), (None, None));
    }

    #[test]
    fn segments_outside_of_ram_are_refused() {
        let memory = GuestMemory::new(0x40_0000, 0).unwrap();
        for (physical, extra) in
            [(0x40_0000, 0), (0x3f_ffff, 9), (0x9_fff8, 1), (0xf_0000, 0), (0x10_0000, 0xffff_0000)]
        {
            let file = sample::elf32(physical, b"12345678", extra, physical);
            assert!(Elf::parse(&file).unwrap().load(&memory).is_err(), "{physical:#x}");
        }
    }

    #[test]
    fn damaged_files_never_panic() {
        let memory = GuestMemory::new(0x40_0000, 0).unwrap();
        let good =
            [sample::elf32(0x10_0000, &[0x90; 100], 50, 0x10_0000), sample::elf64(0x10_0000, &[0x90; 64], &[4; 40])];
        let mut seed = 1u64;
        for file in good {
            for len in 0..file.len() {
                let _ = Elf::parse(&file[..len]).map(|elf| elf.load(&memory));
            }
            for _ in 0..20_000 {
                let mut bad = file.clone();
                for _ in 0..3 {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let at = (seed >> 40) as usize % bad.len();
                    bad[at] = (seed >> 33) as u8;
                }
                if let Ok(elf) = Elf::parse(&bad) {
                    let _ = elf.load(&memory);
                    elf.note(b"Xen", 18);
                }
            }
        }
    }
}
