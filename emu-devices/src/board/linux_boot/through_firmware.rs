//! A Linux kernel as fw_cfg offers it to firmware, whose option ROM puts the parts in place and enters the setup code: the items of QEMU's
//! `-kernel`, at the addresses that boot.rst and QEMU's own loader have for each protocol.
//!
//! ```text
//!  loaded low:        1_0000h kernel    9_0000h setup code    ..9_a000h command line
//!  before 2.02:       9_0000h setup code    ..9_a000h command line    10_0000h kernel
//!  since:             1_0000h setup code     2_0000h command line     10_0000h kernel
//! ```

use super::{LinuxBootError, LinuxKernel, LinuxOptions, place_initrd, put};
use crate::board::fw_cfg::{FwCfg, key};
use crate::board::memory_map;

/// What firmware may keep for its tables at the end of RAM.
pub const FIRMWARE_ROOM: u64 = 0x2_8000;
const SETUP_LOW: u32 = 0x1_0000;
const SETUP_HIGH: u32 = 0x9_0000;
const COMMAND_LINE: u32 = 0x2_0000;
/// Bytes for it there: up to where firmware has its own data while it starts the kernel.
const COMMAND_LINE_ROOM: u32 = 0x1_0000;
/// Where the command line ends if it is behind the setup code, and how much room it has.
const COMMAND_LINE_END: u32 = 0x9_a000;
const OLD_COMMAND_LINE_ROOM: u32 = 0x1000;
const KERNEL_LOW: u32 = 0x1_0000;
const KERNEL_HIGH: u32 = 0x10_0000;
/// vid_mode: what `vga=` names, and text.
const VIDEO_MODES: [(&str, u16); 3] = [("normal", 0xffff), ("ext", 0xfffe), ("ask", 0xfffd)];

/// The parts and where they go (physical addresses).
#[derive(Clone, Debug)]
pub struct KernelParts {
    setup: (u32, Vec<u8>),
    command_line: (u32, Vec<u8>),
    kernel: (u32, Vec<u8>),
    initrd: (u32, Vec<u8>),
}

impl LinuxKernel {
    /// The parts for firmware to load, on a machine with `low_ram` bytes of RAM below 4 GiB.
    ///
    /// # Errors
    /// Something does not fit.
    pub fn through_firmware(&self, low_ram: u64, options: &LinuxOptions) -> Result<KernelParts, LinuxBootError> {
        let header = &self.header;
        let recent = header.loaded_high && header.protocol >= 0x202;
        let room = if recent { COMMAND_LINE_ROOM } else { OLD_COMMAND_LINE_ROOM };
        self.check_command_line(options.command_line, room as usize)?;
        let mut command_line = options.command_line.to_vec();
        command_line.push(0);
        let (setup_at, command_line_at) = match recent {
            true => (SETUP_LOW, COMMAND_LINE),
            // Aligned to 16 bytes, as the setup code's stack will be below it.
            false => (SETUP_HIGH, (COMMAND_LINE_END - command_line.len() as u32) & !0xf),
        };
        let (kernel_at, ceiling) = match header.loaded_high {
            true => (KERNEL_HIGH, low_ram),
            false => (KERNEL_LOW, SETUP_HIGH.into()),
        };
        let end = self.kernel_end(kernel_at.into());
        if end > ceiling {
            return Err(LinuxBootError::KernelDoesNotFit { needed: end, available: ceiling });
        }
        let floor = end.max(memory_map::HIGH_MEMORY);
        let top = low_ram.saturating_sub(FIRMWARE_ROOM);
        let initrd_at = place_initrd(options.initrd, floor, header, top)? as u32;

        let mut setup = self.setup.clone();
        put(&mut setup, 0x1fa, 2, video_mode(options.command_line).into());
        put(&mut setup, 0x210, 1, 0xff); // type_of_loader: without a registered number
        put(&mut setup, 0x218, 4, initrd_at.into());
        put(&mut setup, 0x21c, 4, options.initrd.len() as u64);
        let offset = u64::from(command_line_at - setup_at);
        if header.protocol >= 0x201 {
            put(&mut setup, 0x224, 2, offset - 0x200); // heap_end_ptr
            setup[0x211] |= 0x80; // CAN_USE_HEAP
        }
        if header.protocol >= 0x202 {
            put(&mut setup, 0x228, 4, command_line_at.into());
        } else {
            put(&mut setup, 0x20, 2, 0xa33f);
            put(&mut setup, 0x22, 2, offset);
        }
        Ok(KernelParts {
            setup: (setup_at, setup),
            command_line: (command_line_at, command_line),
            kernel: (kernel_at, self.payload.clone()),
            initrd: (initrd_at, options.initrd.to_vec()),
        })
    }
}

impl KernelParts {
    /// Puts them into fw_cfg.
    pub fn describe(self, device: &mut FwCfg) {
        for (keys, (address, data)) in [
            (key::SETUP, self.setup),
            (key::COMMAND_LINE, self.command_line),
            (key::KERNEL, self.kernel),
            (key::INITRD, self.initrd),
        ] {
            device.set_part(keys, address, data);
        }
    }
}

/// What the last `vga=` of a command line says: a word of [`VIDEO_MODES`] or a number.
fn video_mode(command_line: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(command_line);
    let word = text.split_ascii_whitespace().filter_map(|word| word.strip_prefix("vga=")).next_back();
    let number = |word: &str| match word.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    };
    word.and_then(|word| {
        VIDEO_MODES.iter().find(|(name, _)| *name == word).map(|(_, mode)| *mode).or_else(|| number(word))
    })
    .unwrap_or(VIDEO_MODES[0].1)
}

#[cfg(test)]
mod tests {
    use super::super::tests::image;
    use super::*;

    const RAM: u64 = 64 << 20;

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    fn parts(protocol: u64, loaded_high: bool, options: &LinuxOptions) -> KernelParts {
        let mut file = image(1000);
        put(&mut file, 0x206, 2, protocol);
        put(&mut file, 0x211, 1, loaded_high.into());
        LinuxKernel::parse(&file).unwrap().through_firmware(RAM, options).unwrap()
    }

    #[test]
    fn kernel_of_today_has_setup_low_and_initrd_below_firmwares_tables() {
        let options = LinuxOptions { command_line: b"quiet vga=0x317", initrd: &[1; 5000], ..Default::default() };
        let parts = parts(0x20f, true, &options);
        assert_eq!((parts.setup.0, parts.command_line.0, parts.kernel.0), (0x1_0000, 0x2_0000, 0x10_0000));
        assert_eq!(parts.initrd.0, 0x3fd_6000);
        assert_eq!((word(&parts.setup.1, 0x218), word(&parts.setup.1, 0x21c)), (0x3fd_6000, 5000));
        assert_eq!((word(&parts.setup.1, 0x228), parts.command_line.1), (0x2_0000, b"quiet vga=0x317\0".to_vec()));
        assert_eq!((word(&parts.setup.1, 0x224) & 0xffff, parts.setup.1[0x211]), (0xfe00, 0x81));
        assert_eq!(word(&parts.setup.1, 0x1fa) & 0xffff, 0x317);
        assert_eq!((parts.setup.1.len(), parts.kernel.1.len()), (5 * 512, 1008));
    }

    #[test]
    fn old_protocols_have_setup_at_90000_and_a_command_line_behind_it() {
        let options = LinuxOptions { command_line: b"root=0", ..Default::default() };
        for (protocol, high, kernel_at) in
            [(0x200, false, 0x1_0000), (0x201, true, 0x10_0000), (0x203, false, 0x1_0000)]
        {
            let parts = parts(protocol, high, &options);
            assert_eq!((parts.setup.0, parts.command_line.0, parts.kernel.0), (0x9_0000, 0x9_9ff0, kernel_at));
            match protocol {
                0x203 => assert_eq!(word(&parts.setup.1, 0x228), 0x9_9ff0),
                _ => assert_eq!(word(&parts.setup.1, 0x20), 0x9ff0_a33f),
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut file = image(0x8_0010);
        put(&mut file, 0x206, 2, 0x200);
        put(&mut file, 0x211, 1, 0);
        put(&mut file, 0x1f4, 2, 0x8001);
        let kernel = LinuxKernel::parse(&file).unwrap();
        let error = kernel.through_firmware(RAM, &LinuxOptions::default()).unwrap_err();
        assert_eq!(error, LinuxBootError::KernelDoesNotFit { needed: 0x9_0010, available: 0x9_0000 });
        let kernel = LinuxKernel::parse(&image(100)).unwrap();
        let initrd = vec![0; 48 << 20];
        let error = kernel.through_firmware(RAM, &LinuxOptions { initrd: &initrd, ..Default::default() }).unwrap_err();
        assert!(matches!(error, LinuxBootError::InitrdDoesNotFit { .. }));
    }

    #[test]
    fn video_modes_are_words_and_numbers() {
        for (line, mode) in
            [("", 0xffff), ("vga=ask", 0xfffd), ("vga=ext vga=5", 5), ("vga=0x1234", 0x1234), ("vga=x", 0xffff)]
        {
            assert_eq!(video_mode(line.as_bytes()), mode, "{line}");
        }
    }
}
