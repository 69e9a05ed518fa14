//! PVH kernels: ELF files with the note XEN_ELFNOTE_PHYS32_ENTRY (Xen's "x86/HVM direct boot ABI", docs/misc/pvh.pandoc).
//!
//! The kernel starts in 32-bit protected mode with EBX pointing to struct hvm_start_info, version 1.

use super::boot_state::{BootState, gpr};
use super::elf::{Elf, ElfError};
use super::kernel::{KernelOptions, Module};
use super::memory_map::memory_map;
use super::multiboot::{place_modules, terminated};
use super::place::{PlaceError, Placement};
use super::through_firmware::Loaded;
use emu_core::mem::GuestMemory;
use thiserror::Error;

const PHYS32_ENTRY: u32 = 18;
const START_MAGIC: u32 = 0x336e_c578;

/// What is wrong with a PVH kernel.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PvhError {
    /// The note is missing or too short.
    #[error(
        "the ELF file has no usable PVH entry note (name \"Xen\", type 18, 4 or 8 bytes below 4 GiB) and no Multiboot header"
    )]
    NoEntry,
    /// The ELF file is bad.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// It does not fit into memory.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

/// A validated kernel file.
#[derive(Clone, Debug)]
pub struct PvhKernel {
    file: Vec<u8>,
    entry: u32,
}

impl PvhKernel {
    /// Validates `file`.
    ///
    /// # Errors
    /// It is no ELF file, a damaged one, or has no PVH entry point.
    pub fn parse(file: &[u8]) -> Result<PvhKernel, PvhError> {
        let elf = Elf::parse(file)?;
        let entry = match elf.note(b"Xen", PHYS32_ENTRY) {
            Some(&[a, b, c, d]) | Some(&[a, b, c, d, 0, 0, 0, 0]) => u32::from_le_bytes([a, b, c, d]),
            _ => return Err(PvhError::NoEntry),
        };
        Ok(PvhKernel { file: file.to_vec(), entry })
    }

    /// Puts kernel, modules and start information into `memory`; the state to start it in. The RAM disk is the first
    /// module. `rsdp`: the ACPI root pointer.
    ///
    /// # Errors
    /// Something does not fit.
    pub fn load(&self, memory: &GuestMemory, options: &KernelOptions, rsdp: u64) -> Result<BootState, PvhError> {
        Ok(self.place(memory, options, rsdp)?.state)
    }

    /// The same, and what of `memory` is used.
    ///
    /// # Errors
    /// Something does not fit.
    pub fn place(&self, memory: &GuestMemory, options: &KernelOptions, rsdp: u64) -> Result<Loaded, PvhError> {
        let mut state = BootState::protected(memory, self.entry);
        let elf = Elf::parse(&self.file)?;
        let mut placement = Placement::behind(memory, elf.load(memory)?);
        let mut modules = Vec::new();
        if !options.initrd.is_empty() {
            modules.push(Module { contents: options.initrd.clone(), command_line: Vec::new() });
        }
        let placed = place_modules(&mut placement, &modules)?;
        let line = placement.append("the command line", &terminated(&options.command_line))?;
        let list: Vec<u8> = placed
            .iter()
            .flat_map(|(start, end)| [u64::from(*start), u64::from(end - start), 0, 0])
            .flat_map(u64::to_le_bytes)
            .collect();
        let list = placement.append("the module list", &list)?;
        let ranges = memory_map(memory);
        let map: Vec<u8> = ranges
            .iter()
            .flat_map(|range| [range.start, range.len, range.kind as u64])
            .flat_map(u64::to_le_bytes)
            .collect();
        let map = placement.append("the memory map", &map)?;
        let mut start = Vec::new();
        for word in [START_MAGIC, 1, 0, placed.len() as u32] {
            start.extend(word.to_le_bytes());
        }
        for address in [list.into(), line.into(), rsdp, map.into(), ranges.len() as u64] {
            start.extend(u64::to_le_bytes(address));
        }
        state.gpr[gpr::EBX] = placement.append("the start information", &start)?.into();
        Ok(Loaded { state, start: elf.start(), end: placement.end() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::elf::sample;

    fn note(descriptor: &[u8]) -> Vec<u8> {
        [&4u32.to_le_bytes()[..], &(descriptor.len() as u32).to_le_bytes(), &18u32.to_le_bytes(), b"Xen\0", descriptor]
            .concat()
    }

    #[test]
    fn kernel_starts_at_its_note_with_start_information() {
        let memory = GuestMemory::new(0x100_0000, 0).unwrap();
        let file = sample::elf64(0x10_0000, &[0x90; 64], &note(&[0x20, 0, 0x10, 0, 0, 0, 0, 0]));
        let options =
            KernelOptions { command_line: b"console=ttyS0".to_vec(), initrd: vec![7; 10], ..Default::default() };
        let state = PvhKernel::parse(&file).unwrap().load(&memory, &options, 0xe_0000).unwrap();
        assert_eq!(state.rip, 0x10_0020);
        let mut start = [0; 56];
        memory.read(state.gpr[gpr::EBX], &mut start);
        let word = |at: usize| u32::from_le_bytes(start[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(4), word(12), word(32), word(48)), (START_MAGIC, 1, 1, 0xe_0000, 5));
        let mut line = [0; 14];
        memory.read(word(24).into(), &mut line);
        assert_eq!(&line, b"console=ttyS0\0");
        let mut module = [0; 16];
        memory.read(word(16).into(), &mut module);
        assert_eq!(module[8], 10);
    }

    #[test]
    fn elf_without_a_usable_note_is_refused() {
        let parse = |descriptor: &[u8]| PvhKernel::parse(&sample::elf64(0x10_0000, &[0; 8], &note(descriptor)));
        assert_eq!(parse(&[1, 2]).unwrap_err(), PvhError::NoEntry);
        assert_eq!(parse(&[0, 0, 0, 0, 1, 0, 0, 0]).unwrap_err(), PvhError::NoEntry);
        assert_eq!(PvhKernel::parse(&sample::elf32(0x10_0000, &[0], 0, 0)).unwrap_err(), PvhError::NoEntry);
    }
}
