//! What `-kernel` takes: which format a file has, and what goes with it.

use super::boot_state::BootState;
use super::elf::Elf;
use super::linux_boot::{LinuxBootError, LinuxKernel, LinuxOptions};
use super::multiboot::{MultibootError, MultibootKernel};
use super::multiboot2::{Multiboot2Error, Multiboot2Kernel};
use super::pvh::{PvhError, PvhKernel};
use emu_core::mem::GuestMemory;
use thiserror::Error;

/// Why a kernel cannot be booted.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KernelError {
    /// No known format.
    #[error("not a kernel; accepted: a Linux bzImage, a Multiboot 1 or 2 image, an ELF file with a PVH note")]
    Unknown,
    /// A Linux kernel.
    #[error(transparent)]
    Linux(#[from] LinuxBootError),
    /// A Multiboot kernel.
    #[error(transparent)]
    Multiboot(#[from] MultibootError),
    /// A Multiboot 2 kernel.
    #[error(transparent)]
    Multiboot2(#[from] Multiboot2Error),
    /// A PVH kernel.
    #[error(transparent)]
    Pvh(#[from] PvhError),
    /// No firmware has a way to start it.
    #[error("a Multiboot 2 kernel starts without -bios only")]
    WithoutFirmwareOnly,
    /// The kernel would overwrite firmware while that loads it.
    #[error("the kernel is loaded at {0:#x}; with -bios it must be loaded at 0x100000 or above")]
    Low(u64),
    /// Firmware's own data leave nothing, or the host has no memory left.
    #[error("there is no memory to load the kernel into")]
    TooLittleMemory,
}

/// A kernel file of a known format, validated as far as that goes without a machine.
#[derive(Clone, Debug)]
pub enum Kernel {
    /// A Linux bzImage.
    Linux(LinuxKernel),
    /// A Multiboot 1 image.
    Multiboot(MultibootKernel),
    /// A Multiboot 2 image.
    Multiboot2(Multiboot2Kernel),
    /// An ELF file with a PVH note.
    Pvh(PvhKernel),
}

/// A file that goes with a Multiboot kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Module {
    /// Its bytes.
    pub contents: Vec<u8>,
    /// Its name and arguments, as the kernel sees them.
    pub command_line: Vec<u8>,
}

/// What a kernel is started with, whatever its format.
#[derive(Clone, Debug, Default)]
pub struct KernelOptions {
    /// The kernel's name, which Multiboot kernels see in front of their command line.
    pub name: String,
    /// `-append`.
    pub command_line: Vec<u8>,
    /// `-initrd`: the RAM disk, for kernels that do not take modules.
    pub initrd: Vec<u8>,
    /// `-initrd`: the modules, for kernels that do.
    pub modules: Vec<Module>,
}

impl Kernel {
    /// Finds out what `file` is.
    ///
    /// # Errors
    /// It is nothing that can be booted.
    pub fn parse(file: &[u8]) -> Result<Kernel, KernelError> {
        if LinuxKernel::detect(file) {
            return Ok(Kernel::Linux(LinuxKernel::parse(file)?));
        }
        if MultibootKernel::detect(file) {
            return Ok(Kernel::Multiboot(MultibootKernel::parse(file)?));
        }
        if Multiboot2Kernel::detect(file) {
            return Ok(Kernel::Multiboot2(Multiboot2Kernel::parse(file)?));
        }
        if Elf::detect(file) {
            return Ok(Kernel::Pvh(PvhKernel::parse(file)?));
        }
        Err(KernelError::Unknown)
    }

    /// Whether `-initrd` is a list of modules ([`parse_modules`]) and not one RAM disk.
    pub fn takes_modules(&self) -> bool {
        matches!(self, Kernel::Multiboot(_) | Kernel::Multiboot2(_))
    }

    /// Puts it into `memory`; the state to start it in. `rsdp`: where the ACPI tables are
    /// found; `vga_text`: a VGA shows text mode 3.
    ///
    /// # Errors
    /// Something does not fit.
    pub fn load(
        &self,
        memory: &GuestMemory,
        options: &KernelOptions,
        rsdp: u64,
        long_mode: bool,
        vga_text: bool,
    ) -> Result<BootState, KernelError> {
        Ok(match self {
            Kernel::Linux(kernel) => {
                let (command_line, initrd) = (&options.command_line, &options.initrd);
                kernel.load(memory, &LinuxOptions { command_line, initrd, rsdp, long_mode, vga_text })?
            }
            Kernel::Multiboot(kernel) => kernel.load(memory, options)?,
            Kernel::Multiboot2(kernel) => kernel.load(memory, options, rsdp)?,
            Kernel::Pvh(kernel) => kernel.load(memory, options, rsdp)?,
        })
    }
}

/// The modules that `-initrd` lists, as QEMU reads it: separated by commas (two of them stand for one), each a file name
/// and, behind a space, arguments. File names, and whole entries as the kernel is to see them.
pub fn parse_modules(list: &str) -> Vec<(String, String)> {
    let mut entries = vec![String::new()];
    let mut characters = list.chars().peekable();
    while let Some(c) = characters.next() {
        if c == ',' && characters.next_if_eq(&',').is_none() {
            entries.push(String::new());
        } else if let Some(entry) = entries.last_mut() {
            entry.push(c);
        }
    }
    entries
        .into_iter()
        .map(|entry| entry.trim_start().to_owned())
        .filter(|entry| !entry.is_empty())
        .map(|entry| (entry.split(' ').next().unwrap_or_default().to_owned(), entry))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_refused_in_one_line() {
        let error = Kernel::parse(b"#!/bin/sh\necho hello\n").unwrap_err();
        assert_eq!(error, KernelError::Unknown);
        assert!(!error.to_string().contains('\n'));
        assert_eq!(Kernel::parse(&[]).unwrap_err(), KernelError::Unknown);
    }

    #[test]
    fn module_lists_are_split_at_single_commas() {
        let names = |list| parse_modules(list).into_iter().collect::<Vec<_>>();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(names("a b c, d,e,,f"), [pair("a", "a b c"), pair("d", "d"), pair("e,f", "e,f")]);
        assert_eq!(names(""), []);
    }
}
