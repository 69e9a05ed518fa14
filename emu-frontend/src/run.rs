//! One machine from its configuration to its exit status.
//!
//! What can be wrong with files, ports and sockets is found before the terminal changes hands and the guest starts.

use crate::char::Characters;
use crate::cli::config::{BootFiles, Config};
use crate::cli::error::StartError;
use crate::cli::value::show_size;
use crate::{daemon, exit, report, signals};
use emu_devices::board::firmware::FirmwareConfig;
use emu_devices::board::kernel::{Kernel, KernelOptions, Module, parse_modules};
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
/// Where Debian's packages put firmware: searched behind the folders of `-L`.
const DATA_DIRS: [&str; 3] = ["/usr/share/seabios", "/usr/share/qemu", "/usr/share/bochs"];

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
    if let Some(bios) = &files.bios {
        let image = read_file("bios", &find_data_file(bios, &files.data_dirs), ROM_LIMIT)?;
        let rom = Rom::new(image).map_err(|e| StartError::value("bios", bios.display().to_string(), e.to_string()))?;
        // Without its usual companion, our own: it needs nothing of the firmware that calls it.
        let vga_rom = match find_data_file(Path::new(VGA_BIOS), &files.data_dirs) {
            path if path.exists() => read_file("vga", &path, ROM_LIMIT)?,
            _ => ::firmware::VGA_BIOS.to_vec(),
        };
        return Ok(BootImages { boot: PcBoot::Firmware(rom), vga_rom: Some(vga_rom), firmware });
    }
    let Some(kernel) = &files.kernel else {
        let rom = Rom::new(::firmware::BIOS.to_vec()).map_err(|e| StartError::Other(e.to_string()))?;
        return Ok(BootImages { boot: PcBoot::Firmware(rom), vga_rom: Some(::firmware::VGA_BIOS.to_vec()), firmware });
    };
    let file = read_file("kernel", kernel, KERNEL_LIMIT)?;
    let name = kernel.display().to_string();
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
    Ok(BootImages { boot: PcBoot::Kernel(Box::new(kernel), options), vga_rom: None, firmware })
}

/// The file that `name` stands for: itself if there is such a file, else the first of that name in `folders` and in the
/// folders of Debian's packages. Itself, again, if there is none, for the message.
fn find_data_file(name: &Path, folders: &[PathBuf]) -> PathBuf {
    let standard = DATA_DIRS.iter().map(PathBuf::from);
    let mut places = folders.iter().cloned().chain(standard).map(|folder| folder.join(name));
    match name.exists() {
        true => name.to_path_buf(),
        false => places.find(|path| path.exists()).unwrap_or_else(|| name.to_path_buf()),
    }
}

/// The whole of a file of at most `limit` bytes, which may be a pipe.
fn read_file(option: &str, path: &Path, limit: u64) -> Result<Vec<u8>, StartError> {
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
