//! Linux bzImage loading: Documentation/arch/x86/boot.rst of the kernel, protocol 2.00 to 2.15.
//!
//! Without firmware, the 64-bit entry point is taken where kernel and processor have one, else the 32-bit one. Low memory then:
//!
//! ```text
//!  1000h GDT   2000h page tables   9_0000h boot_params   9_8000h command line   9_fc00h EBDA
//! ```
//! With firmware, an option ROM starts the 16-bit setup code, which calls the BIOS (`through_firmware`). Kernels before protocol 2.02 and
//! those not loaded high know no other way.
//!
//! Deliberately absent: protocols before 2.00, the EFI handover protocol, kexec's setup_data, and gzip of anything but the kernel itself.

use super::boot_state::{BootState, gpr};
use super::memory_map::{self, memory_map};
use emu_core::mem::GuestMemory;
use thiserror::Error;
pub use through_firmware::{FIRMWARE_ROOM, KernelParts};

/// Where boot_params goes, and setup code with the 16-bit entry point.
const BOOT_PARAMS: u64 = 0x9_0000;
const COMMAND_LINE: u64 = 0x9_8000;
const COMMAND_LINE_ROOM: usize = (memory_map::EBDA - COMMAND_LINE) as usize;

const SECTOR: usize = 512;
const MIN_FILE: usize = 0x250;

/// What is wrong with a kernel, an initial RAM disk or a command line.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LinuxBootError {
    /// No "HdrS" or boot flag.
    #[error("not a Linux bzImage: it lacks the boot flag AA55h or the header \"HdrS\"")]
    NotLinux,
    /// Cut off.
    #[error("the Linux kernel is truncated: its header promises {expected} bytes, the file has {actual}")]
    Truncated {
        /// Bytes promised.
        expected: u64,
        /// Bytes in the file.
        actual: u64,
    },
    /// Nonsense in the header.
    #[error("the Linux kernel's header field {field} is {value:#x}; accepted: {accepted}")]
    Header {
        /// Name of the field in boot.rst.
        field: &'static str,
        /// What it holds.
        value: u64,
        /// What would be accepted.
        accepted: &'static str,
    },
    /// The kernel calls the BIOS, and is started without one.
    #[error("the Linux kernel starts in 16-bit code, which needs a BIOS")]
    NeedsBios,
    /// Too little RAM for the kernel.
    #[error(
        "the Linux kernel needs RAM up to {needed:#x}, the machine has {available:#x} bytes below 4 GiB; give it more with -m"
    )]
    KernelDoesNotFit {
        /// End of the kernel's initial memory.
        needed: u64,
        /// Low RAM.
        available: u64,
    },
    /// No room for the initial RAM disk.
    #[error(
        "the initial RAM disk of {size} bytes does not fit into RAM between {floor:#x} and {ceiling:#x}; give the machine more with -m"
    )]
    InitrdDoesNotFit {
        /// Bytes of the file.
        size: u64,
        /// First address behind the kernel.
        floor: u64,
        /// Last address that the kernel accepts, or the end of RAM.
        ceiling: u64,
    },
    /// Command line too long.
    #[error("the kernel command line has {length} bytes; this kernel accepts at most {limit}")]
    CommandLineTooLong {
        /// Bytes given.
        length: usize,
        /// Bytes accepted.
        limit: usize,
    },
    /// NUL in the command line.
    #[error("the kernel command line contains a NUL byte; accepted: any other byte")]
    CommandLineNul,
}

/// What a kernel is to be started with.
#[derive(Clone, Debug, Default)]
pub struct LinuxOptions<'a> {
    /// Without a terminating NUL.
    pub command_line: &'a [u8],
    /// The initial RAM disk; empty for none.
    pub initrd: &'a [u8],
    /// Physical address of the ACPI RSDP; 0 for none.
    pub rsdp: u64,
    /// Whether the processor has long mode.
    pub long_mode: bool,
    /// Whether a VGA adapter shows 80x25 text, so that the kernel may use it as console.
    pub vga_text: bool,
}

/// A validated kernel image.
#[derive(Clone, Debug)]
pub struct LinuxKernel {
    header: SetupHeader,
    /// Boot sector and setup code.
    setup: Vec<u8>,
    /// The protected-mode kernel.
    payload: Vec<u8>,
}

/// The fields of struct setup_header that a boot loader reads, with the defaults that boot.rst gives for older protocols.
#[derive(Clone, Copy, Debug)]
struct SetupHeader {
    protocol: u16,
    loaded_high: bool,
    code32_start: u32,
    initrd_addr_max: u32,
    cmdline_size: u32,
    relocatable: bool,
    pref_address: u64,
    init_size: u32,
    entry_64: bool,
    /// One past the last byte of the header, from the start of the file.
    end: usize,
}

impl LinuxKernel {
    /// Whether `file` claims to be a Linux kernel.
    pub fn detect(file: &[u8]) -> bool {
        le(file, 0x1fe, 2) == 0xaa55 && le(file, 0x202, 4) == u64::from(u32::from_le_bytes(*b"HdrS"))
    }

    /// Validates `file`.
    ///
    /// # Errors
    /// It is no bzImage, or a damaged one.
    pub fn parse(file: &[u8]) -> Result<LinuxKernel, LinuxBootError> {
        if !LinuxKernel::detect(file) {
            return Err(LinuxBootError::NotLinux);
        }
        if file.len() < MIN_FILE {
            return Err(LinuxBootError::Truncated { expected: MIN_FILE as u64, actual: file.len() as u64 });
        }
        let header = SetupHeader::parse(file)?;
        let setup_sectors = match file[0x1f1] {
            0 => 4,
            n => usize::from(n),
        };
        let setup_size = (setup_sectors + 1) * SECTOR;
        // Paragraphs. Protocols before 2.04 have 16 bits; what is above them is another field.
        let syssize = le(file, 0x1f4, if header.protocol >= 0x204 { 4 } else { 2 });
        // Some tools leave the padding of the last paragraph out.
        let expected = setup_size as u64 + (syssize * 16).max(16) - 15;
        if (file.len() as u64) < expected || file.len() <= setup_size {
            return Err(LinuxBootError::Truncated { expected, actual: file.len() as u64 });
        }
        if header.end > setup_size {
            return Err(LinuxBootError::Header {
                field: "setup_sects",
                value: setup_sectors as u64,
                accepted: "at least as many sectors as hold the header",
            });
        }
        Ok(LinuxKernel { header, setup: file[..setup_size].to_vec(), payload: file[setup_size..].to_vec() })
    }

    /// Whether the kernel can be started in 16-bit setup code only, which needs a BIOS.
    pub fn needs_bios(&self) -> bool {
        !self.header.loaded_high || self.header.protocol < 0x202
    }

    /// Puts the kernel, its parameters and its RAM disk into `memory`; the state to start it in.
    ///
    /// # Errors
    /// Something does not fit, or the kernel needs a BIOS.
    pub fn load(&self, memory: &GuestMemory, options: &LinuxOptions) -> Result<BootState, LinuxBootError> {
        if self.needs_bios() {
            return Err(LinuxBootError::NeedsBios);
        }
        let header = &self.header;
        self.check_command_line(options.command_line, COMMAND_LINE_ROOM)?;
        let load_address = u64::from(header.code32_start);
        let end = self.kernel_end(load_address);
        if end > memory.low_ram() {
            return Err(LinuxBootError::KernelDoesNotFit { needed: end, available: memory.low_ram() });
        }
        let initrd = place_initrd(options.initrd, end.max(memory_map::HIGH_MEMORY), header, memory.low_ram())?;

        memory.write(load_address, &self.payload);
        memory.write(initrd, options.initrd);
        let mut command_line = options.command_line.to_vec();
        command_line.push(0);
        memory.write(COMMAND_LINE, &command_line);

        let mut params = self.boot_params(memory, options);
        put(&mut params, 0x210, 1, 0xff); // type_of_loader: without a registered number
        put(&mut params, 0x218, 4, initrd);
        put(&mut params, 0x21c, 4, options.initrd.len() as u64);
        put(&mut params, 0x228, 4, COMMAND_LINE);
        memory.write(BOOT_PARAMS, &params);

        let mut state = if header.entry_64 && options.long_mode {
            BootState::long(memory, load_address + 0x200)
        } else {
            BootState::protected(memory, load_address as u32)
        };
        state.gpr[gpr::ESI] = BOOT_PARAMS;
        Ok(state)
    }

    /// `room`: bytes for the command line and its final zero.
    fn check_command_line(&self, command_line: &[u8], room: usize) -> Result<(), LinuxBootError> {
        let limit = (self.header.cmdline_size as usize).min(room - 1);
        if command_line.len() > limit {
            return Err(LinuxBootError::CommandLineTooLong { length: command_line.len(), limit });
        }
        if command_line.contains(&0) {
            return Err(LinuxBootError::CommandLineNul);
        }
        Ok(())
    }

    /// One past the last byte that the kernel touches before it knows the memory map.
    fn kernel_end(&self, load_address: u64) -> u64 {
        let image = load_address + self.payload.len() as u64;
        // A relocatable kernel loaded below its preferred address moves there.
        let start = match self.header.relocatable {
            true => load_address.max(self.header.pref_address),
            false => load_address,
        };
        image.max(start.saturating_add(u64::from(self.header.init_size)))
    }

    /// The zero page: Documentation/arch/x86/zero-page.rst.
    fn boot_params(&self, memory: &GuestMemory, options: &LinuxOptions) -> Vec<u8> {
        let mut params = vec![0; 4096];
        params[0x1f1..self.header.end].copy_from_slice(&self.setup[0x1f1..self.header.end]);
        let extended_kib = (memory.low_ram().saturating_sub(memory_map::HIGH_MEMORY)) / 1024;
        put(&mut params, 0x02, 2, extended_kib.min(0xfc00)); // screen_info.ext_mem_k
        if options.vga_text {
            put(&mut params, 0x06, 1, 3); // orig_video_mode
            put(&mut params, 0x07, 1, 80); // orig_video_cols
            put(&mut params, 0x0e, 1, 25); // orig_video_lines
            put(&mut params, 0x0f, 1, 1); // orig_video_isVGA
            put(&mut params, 0x10, 2, 16); // orig_video_points
        }
        put(&mut params, 0x70, 8, options.rsdp); // acpi_rsdp_addr
        put(&mut params, 0x1e0, 4, extended_kib); // alt_mem_k
        put(&mut params, 0x1fa, 2, 0xffff); // vid_mode: normal
        let map = memory_map(memory);
        put(&mut params, 0x1e8, 1, map.len() as u64);
        for (i, range) in map.iter().enumerate() {
            let at = 0x2d0 + 20 * i;
            put(&mut params, at, 8, range.start);
            put(&mut params, at + 8, 8, range.len);
            put(&mut params, at + 16, 4, range.kind as u64);
        }
        params
    }
}

impl SetupHeader {
    fn parse(file: &[u8]) -> Result<SetupHeader, LinuxBootError> {
        let protocol = le(file, 0x206, 2) as u16;
        if !(0x200..0x300).contains(&protocol) {
            return Err(LinuxBootError::Header {
                field: "version",
                value: protocol.into(),
                accepted: "protocols 2.00 to 2.255, as 0x200 to 0x2ff",
            });
        }
        let since = |version: u16, offset, size, before| match protocol >= version {
            true => le(file, offset, size),
            false => before,
        };
        let loaded_high = file[0x211] & 1 != 0;
        let code32_start = le(file, 0x214, 4) as u32;
        let relocatable = since(0x205, 0x234, 1, 0) != 0;
        if loaded_high && u64::from(code32_start) < memory_map::HIGH_MEMORY {
            return Err(LinuxBootError::Header {
                field: "code32_start",
                value: code32_start.into(),
                accepted: "an address of at least 0x100000 in a kernel that is loaded high",
            });
        }
        // The header ends behind the jump over it, and at the latest where boot_params has another field.
        let end = (0x202 + usize::from(file[0x201])).clamp(0x230, 0x290).min(file.len());
        Ok(SetupHeader {
            protocol,
            loaded_high,
            code32_start,
            initrd_addr_max: since(0x203, 0x22c, 4, 0x37ff_ffff) as u32,
            cmdline_size: since(0x206, 0x238, 4, 255) as u32,
            relocatable,
            pref_address: since(0x20a, 0x258, 8, u64::from(code32_start)),
            init_size: since(0x20a, 0x260, 4, 0) as u32,
            entry_64: since(0x20c, 0x236, 2, 0) & 1 != 0,
            end,
        })
    }
}

/// As high as kernel and RAM, which ends at `top`, allow, page-aligned. 0 for none.
fn place_initrd(initrd: &[u8], floor: u64, header: &SetupHeader, top: u64) -> Result<u64, LinuxBootError> {
    if initrd.is_empty() {
        return Ok(0);
    }
    let ceiling = top.min(u64::from(header.initrd_addr_max) + 1);
    let size = initrd.len() as u64;
    match ceiling.checked_sub(size).map(|start| start & !0xfff) {
        Some(start) if start >= floor => Ok(start),
        _ => Err(LinuxBootError::InitrdDoesNotFit { size, floor, ceiling }),
    }
}

/// The little-endian value of `size` bytes at `offset`; bytes behind the end are zero.
fn le(bytes: &[u8], offset: usize, size: usize) -> u64 {
    (0..size).rev().fold(0, |value, i| value << 8 | u64::from(bytes.get(offset + i).copied().unwrap_or(0)))
}

fn put(bytes: &mut [u8], offset: usize, size: usize, value: u64) {
    bytes[offset..offset + size].copy_from_slice(&value.to_le_bytes()[..size]);
}

mod through_firmware;

#[cfg(test)]
mod tests;
