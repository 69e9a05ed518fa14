//! What `-kernel` takes: which format a file has.

use super::boot_state::BootState;
use super::linux_boot::{LinuxBootError, LinuxKernel, LinuxOptions};
use emu_core::mem::GuestMemory;
use thiserror::Error;

/// Why a kernel cannot be booted.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KernelError {
    /// No known format.
    #[error("not a kernel: {size} bytes without the header of a Linux bzImage")]
    Unknown {
        /// Bytes in the file.
        size: usize,
    },
    /// The kernel calls the BIOS, and there is none.
    #[error(
        "the Linux kernel starts in 16-bit code that needs a BIOS; accepted without one: kernels loaded high (bzImage)"
    )]
    NeedsBios,
    /// A Linux kernel.
    #[error(transparent)]
    Linux(#[from] LinuxBootError),
}

/// A kernel file of a known format, validated as far as that goes without a machine.
#[derive(Clone, Debug)]
pub enum Kernel {
    /// A Linux bzImage.
    Linux(LinuxKernel),
}

/// What a kernel is started with, whatever its format.
#[derive(Clone, Debug, Default)]
pub struct KernelOptions {
    /// `-append`.
    pub command_line: Vec<u8>,
    /// `-initrd`: the RAM disk.
    pub initrd: Vec<u8>,
}

impl Kernel {
    /// Finds out what `file` is.
    ///
    /// # Errors
    /// It is nothing that can be booted.
    pub fn parse(file: &[u8]) -> Result<Kernel, KernelError> {
        if LinuxKernel::detect(file) {
            let kernel = LinuxKernel::parse(file)?;
            return if kernel.needs_bios() { Err(KernelError::NeedsBios) } else { Ok(Kernel::Linux(kernel)) };
        }
        Err(KernelError::Unknown { size: file.len() })
    }

    /// Puts it into `memory`; the state to start it in. `rsdp`: where the ACPI tables are found.
    ///
    /// # Errors
    /// Something does not fit.
    pub fn load(
        &self,
        memory: &GuestMemory,
        options: &KernelOptions,
        rsdp: u64,
        long_mode: bool,
    ) -> Result<BootState, KernelError> {
        match self {
            Kernel::Linux(kernel) => Ok(kernel.load(
                memory,
                &LinuxOptions {
                    command_line: &options.command_line,
                    initrd: &options.initrd,
                    rsdp,
                    long_mode,
                    vga_text: false,
                },
            )?),
        }
    }
}
