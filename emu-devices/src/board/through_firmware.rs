//! Kernels as fw_cfg offers them to firmware, whose option ROM puts them in place and enters them: Linux kernels ([`LinuxKernel`]'s own parts)
//! and kernels that start in protected mode, for the ROM `multiboot` of the crate `firmware`.
//!
//! The latter go, with their modules and all that they are told, into one piece that the loaders for starts without firmware make in memory of
//! its own. Beside it lies a plan for the ROM, four dwords: what the kernel is, its entry point, EAX, EBX. The ROM adds what only firmware
//! knows: memory map and sizes, ACPI's root pointer.
//!
//! [`LinuxKernel`]: super::linux_boot::LinuxKernel

use super::boot_state::{BootState, gpr};
use super::fw_cfg::{FwCfg, key};
use super::kernel::{Kernel, KernelError, KernelOptions};
use super::linux_boot::{FIRMWARE_ROOM, LinuxOptions};
use super::memory_map::HIGH_MEMORY;
use emu_core::mem::{GuestMemory, PAGE};

/// Where the ROM wants its plan, and what the first field says.
const PLAN: u32 = 0x8000;
const MULTIBOOT: u32 = 1;
const PVH: u32 = 2;

/// What a loader has made: the state to start in, and the memory (physical addresses) that it has filled.
pub struct Loaded {
    /// Registers at the entry point.
    pub state: BootState,
    /// First byte of the kernel.
    pub start: u64,
    /// One past the last byte of all.
    pub end: u64,
}

impl Kernel {
    /// Puts what firmware needs to start it into fw_cfg, on a machine with `low_ram` bytes of RAM below 4 GiB.
    ///
    /// # Errors
    /// Something does not fit, the kernel wants to be where firmware is, or firmware cannot start such kernels.
    pub fn offer(&self, low_ram: u64, options: &KernelOptions, device: &mut FwCfg) -> Result<(), KernelError> {
        if let Kernel::Linux(kernel) = self {
            let (command_line, initrd) = (&options.command_line, &options.initrd);
            let options = LinuxOptions { command_line, initrd, ..LinuxOptions::default() };
            kernel.through_firmware(low_ram, &options)?.describe(device);
            return Ok(());
        }
        let ram = low_ram.saturating_sub(FIRMWARE_ROOM) / PAGE * PAGE;
        let memory = GuestMemory::new(ram, 0).map_err(|_| KernelError::TooLittleMemory)?;
        let (kind, loaded) = match self {
            Kernel::Multiboot(kernel) => (MULTIBOOT, kernel.place(&memory, options)?),
            Kernel::Pvh(kernel) => (PVH, kernel.place(&memory, options, 0)?),
            Kernel::Linux(_) | Kernel::Multiboot2(_) => return Err(KernelError::WithoutFirmwareOnly),
        };
        if loaded.start < HIGH_MEMORY {
            return Err(KernelError::Low(loaded.start));
        }
        let mut bytes = vec![0; (loaded.end - loaded.start) as usize];
        memory.read(loaded.start, &mut bytes);
        device.set_part(key::KERNEL, loaded.start as u32, bytes);
        let state = loaded.state;
        let plan = [kind, state.rip as u32, state.gpr[gpr::EAX] as u32, state.gpr[gpr::EBX] as u32];
        device.set_part(key::SETUP, PLAN, plan.map(u32::to_le_bytes).concat());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::elf::sample;

    const RAM: u64 = 16 << 20;

    fn multiboot(physical: u32) -> Kernel {
        let mut code: Vec<u8> = [0x1bad_b002u32, 0, 0xe452_4ffe].map(u32::to_le_bytes).concat();
        code.resize(64, 0x90);
        Kernel::parse(&sample::elf32(physical, &code, 0x3000, physical + 12)).unwrap()
    }

    #[test]
    fn multiboot_kernel_is_one_piece_from_its_first_byte_to_its_information() {
        let mut device = FwCfg::new(RAM, 1);
        let options = KernelOptions { name: "k".into(), command_line: b"x=1".to_vec(), ..Default::default() };
        multiboot(0x20_0000).offer(RAM, &options, &mut device).unwrap();
        let word = |key: u16| u32::from_le_bytes(device.item(key)[..4].try_into().unwrap());
        assert_eq!(word(key::KERNEL[0]), 0x20_0000);
        let data = device.item(key::KERNEL[2]);
        assert_eq!(data.len(), word(key::KERNEL[1]) as usize);
        assert_eq!(data[12..64], [0x90; 52]);
        assert!(data[64..0x3040].iter().all(|byte| *byte == 0), "zeros behind the contents");
        let plan: Vec<u32> =
            device.item(key::SETUP[2]).chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
        assert_eq!(plan[..3], [MULTIBOOT, 0x20_000c, 0x2bad_b002]);
        let information = (plan[3] - 0x20_0000) as usize;
        let line = u32::from_le_bytes(data[information + 16..][..4].try_into().unwrap()) - 0x20_0000;
        assert!(data[line as usize..].starts_with(b"k x=1\0"));
    }

    #[test]
    fn kernels_that_firmware_cannot_start_are_refused() {
        let mut device = FwCfg::new(RAM, 1);
        let low = multiboot(0x1_0000).offer(RAM, &KernelOptions::default(), &mut device);
        assert_eq!(low, Err(KernelError::Low(0x1_0000)));
        let large = multiboot(0xfe_0000).offer(RAM, &KernelOptions::default(), &mut device);
        assert!(large.unwrap_err().to_string().contains("0xfe0000"), "firmware keeps the end of memory");
    }
}
