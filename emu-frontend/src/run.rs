//! One machine from its configuration to its exit status.
//!
//! What can be wrong with files, ports and sockets is found before the terminal changes hands and the guest starts.

use crate::char::Characters;
use crate::cli::boot_order::boot_first;
use crate::cli::config::{BootFiles, Config};
#[cfg(feature = "window")]
use crate::cli::display::DisplayKind;
use crate::cli::error::StartError;
use crate::cli::value::show_size;
#[cfg(feature = "window")]
use crate::display::window;
use crate::{daemon, exit, report, signals};
use emu_devices::board::firmware::FirmwareConfig;
use emu_devices::board::kernel::{Kernel, KernelError, KernelOptions, Module, parse_modules};
use emu_devices::board::pc::PcBoot;
use emu_devices::board::rom::Rom;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The largest kernel file: room for debug information beyond what is loaded.
const KERNEL_LIMIT: u64 = 1 << 31;
/// More than any ROM has, so that the board's own message tells what would fit.
const ROM_LIMIT: u64 = 64 << 20;
/// The VGA BIOS that goes with firmware from a file.
const VGA_BIOS: &str = "vgabios-stdvga.bin";
/// fw_cfg's files with the option ROMs that start a Linux kernel and others.
const LINUX_ROM: &str = "genroms/linuxboot.bin";
const MULTIBOOT_ROM: &str = "genroms/multiboot.bin";
/// Where Debian's packages put firmware: searched behind the folders of `-L`.
const DATA_DIRS: [&str; 4] = ["/usr/share/seabios", "/usr/share/qemu", "/usr/share/bochs", "/usr/lib/ipxe/qemu"];

/// The files of a boot, read and recognised.
#[derive(Clone)]
pub struct BootImages {
    /// What starts.
    pub boot: PcBoot,
    /// The VGA BIOS for the card's expansion ROM, where firmware would run it.
    pub vga_rom: Option<Vec<u8>>,
    /// What firmware is told.
    pub firmware: FirmwareConfig,
}

/// Runs a machine until it ends, and the process with it. `arguments` are those of the process.
///
/// # Errors
/// The machine cannot start.
pub fn run(config: Config, arguments: &[OsString]) -> Result<String, StartError> {
    #[cfg(feature = "window")]
    if matches!(config.display, DisplayKind::Window(_)) {
        window::leave_input_method(arguments);
    }
    if config.daemonize {
        daemon::detach(arguments)?;
    }
    exit::install_panic_hook();
    signals::start()?;
    config.log.start(config.log_file.as_deref())?;
    if let Some(name) = config.process_name.as_deref().and_then(|n| CString::new(n).ok()) {
        // A name is for the user's eyes only.
        let _ = rustix::thread::set_name(&name);
    }
    let images = read_images(&config.boot, config.memory)?;
    if let Some(path) = &config.pidfile {
        daemon::write_pid(path)?;
    }
    let characters = Characters::open(&config.chardevs, config.escape)?;
    config.warnings.iter().for_each(|w| report::complain(&format!("warning: {w}")));
    crate::machine::run(config, images, characters)
}

/// Reads the files of a boot.
///
/// # Errors
/// A file cannot be read, or the kernel is none.
pub fn read_images(files: &BootFiles, memory: u64) -> Result<BootImages, StartError> {
    let mut firmware = files.firmware.clone();
    for (name, path) in &files.fw_cfg {
        firmware.files.push((name.clone(), read_file("fw_cfg", path, ROM_LIMIT)?));
    }
    let kernel = files.kernel.as_ref().map(|path| read_kernel(files, path, memory)).transpose()?;
    let kernel = match kernel {
        // A kernel starts without firmware unless the user wants firmware or the kernel needs it.
        Some((kernel, options)) if files.bios.is_none() && !matches!(&kernel, Kernel::Linux(k) if k.needs_bios()) => {
            return Ok(BootImages { boot: PcBoot::Kernel(Box::new(kernel), options), vga_rom: None, firmware });
        }
        Some((Kernel::Multiboot2(_), options)) => {
            let problem = KernelError::WithoutFirmwareOnly.to_string();
            return Err(StartError::value("kernel", options.name, problem));
        }
        Some((kernel, options)) => {
            let (name, rom) = match kernel {
                Kernel::Linux(_) => (LINUX_ROM, ::firmware::LINUXBOOT),
                _ => (MULTIBOOT_ROM, ::firmware::MULTIBOOT),
            };
            offer_kernel(&mut firmware, name, rom);
            Some((Box::new(kernel), options))
        }
        None => None,
    };
    let (rom, vga_rom) = read_firmware(files)?;
    Ok(BootImages { boot: PcBoot::Firmware { rom, kernel }, vga_rom: Some(vga_rom), firmware })
}

/// The system BIOS and the VGA BIOS.
fn read_firmware(files: &BootFiles) -> Result<(Rom, Vec<u8>), StartError> {
    let Some(bios) = &files.bios else {
        let rom = Rom::new(::firmware::BIOS.to_vec()).map_err(|e| StartError::Other(e.to_string()))?;
        return Ok((rom, ::firmware::VGA_BIOS.to_vec()));
    };
    let image = read_file("bios", &find_data_file(bios, &files.data_dirs), ROM_LIMIT)?;
    let rom = Rom::new(image).map_err(|e| StartError::value("bios", bios.display().to_string(), e.to_string()))?;
    // Without its usual companion, our own: it needs nothing of the firmware that calls it.
    let vga_rom = match find_data_file(Path::new(VGA_BIOS), &files.data_dirs) {
        path if path.exists() => read_file("vga", &path, ROM_LIMIT)?,
        _ => ::firmware::VGA_BIOS.to_vec(),
    };
    Ok((rom, vga_rom))
}

/// Gives firmware an option ROM that starts kernels, and puts it in front of everything else that is to be booted.
fn offer_kernel(firmware: &mut FirmwareConfig, name: &str, rom: &[u8]) {
    firmware.files.push((name.into(), rom.to_vec()));
    boot_first(firmware, &[format!("/rom@{name}")]);
}

/// A kernel, and what goes with it.
fn read_kernel(files: &BootFiles, path: &Path, memory: u64) -> Result<(Kernel, KernelOptions), StartError> {
    let file = read_file("kernel", path, KERNEL_LIMIT)?;
    let name = path.display().to_string();
    let kernel = Kernel::parse(&file).map_err(|e| StartError::value("kernel", name.as_str(), e.to_string()))?;
    let mut options = KernelOptions { name, command_line: files.append.clone().into_bytes(), ..Default::default() };
    match &files.initrd {
        Some(list) if kernel.takes_modules() => {
            for (path, entry) in parse_modules(&list.to_string_lossy()) {
                let contents = read_file("initrd", Path::new(&path), memory)?;
                options.modules.push(Module { contents, command_line: entry.into_bytes() });
            }
        }
        Some(path) => options.initrd = read_file("initrd", path, memory)?,
        None => {}
    }
    Ok((kernel, options))
}

/// The file that `name` stands for: itself if there is such a file, else the first of that name in `folders` and in the
/// folders of Debian's packages. Itself, again, if there is none, for the message.
pub fn find_data_file(name: &Path, folders: &[PathBuf]) -> PathBuf {
    let standard = DATA_DIRS.iter().map(PathBuf::from);
    let mut places = folders.iter().cloned().chain(standard).map(|folder| folder.join(name));
    match name.exists() {
        true => name.to_path_buf(),
        false => places.find(|path| path.exists()).unwrap_or_else(|| name.to_path_buf()),
    }
}

/// The whole of a file of at most `limit` bytes, which may be a pipe.
///
/// # Errors
/// It cannot be read, is empty, or is too large.
pub fn read_file(option: &str, path: &Path, limit: u64) -> Result<Vec<u8>, StartError> {
    let error = |problem: String| StartError::value(option, path.display().to_string(), problem);
    let cannot = |e: std::io::Error| error(format!("cannot read: {e}"));
    let file = File::open(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(cannot)?;
    match bytes.len() as u64 {
        0 => Err(error("the file is empty".into())),
        n if n > limit => Err(error(format!("the file is too large; the limit is {}", show_size(limit)))),
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_comes_first_in_firmwares_boot_order() {
        let order = |files: Vec<(String, Vec<u8>)>| {
            let mut firmware = FirmwareConfig { files, ..FirmwareConfig::default() };
            offer_kernel(&mut firmware, LINUX_ROM, ::firmware::LINUXBOOT);
            let found = firmware.files.iter().find(|(name, _)| name == "bootorder").map(|(_, order)| order.clone());
            assert!(firmware.files.iter().any(|(name, rom)| name == LINUX_ROM && rom == ::firmware::LINUXBOOT));
            found.unwrap()
        };
        assert_eq!(order(vec![]), b"/rom@genroms/linuxboot.bin\0");
        assert_eq!(order(vec![("bootorder".into(), b"HALT\0".to_vec())]), b"/rom@genroms/linuxboot.bin\nHALT\0");
    }
}
