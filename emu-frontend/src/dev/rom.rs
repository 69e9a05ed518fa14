//! `emu dev rom`: the built-in ROM images, for other machines and for looking at.

use crate::cli::error::StartError;
use clap::Args;
use std::path::PathBuf;

/// Which image, and where it goes.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The file to write: 128 KiB of system BIOS for -bios, or with --vga the VGA BIOS, an option ROM
    #[arg(required_unless_present = "map")]
    file: Option<PathBuf>,
    /// The VGA BIOS instead of the system BIOS
    #[arg(long)]
    vga: bool,
    /// Print the image's symbols, 'segment:offset name' to a line (32-bit code with segment 0)
    #[arg(long)]
    map: bool,
}

/// Writes the image; returns what goes to stdout.
///
/// # Errors
/// The file cannot be written.
pub fn run(arguments: &Arguments) -> Result<String, StartError> {
    let (image, map) =
        if arguments.vga { (firmware::VGA_BIOS, firmware::VGA_BIOS_MAP) } else { (firmware::BIOS, firmware::BIOS_MAP) };
    if let Some(path) = &arguments.file {
        std::fs::write(path, image)
            .map_err(|error| StartError::Other(format!("dev: cannot write {}: {error}", path.display())))?;
    }
    Ok(if arguments.map { map.to_owned() } else { String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rom_writes_the_image_and_prints_its_symbols() {
        let file = std::env::temp_dir().join(format!("emu-rom-{}", std::process::id()));
        let printed = run(&Arguments { file: Some(file.clone()), vga: false, map: true }).unwrap();
        let written = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(written, firmware::BIOS);
        assert!(printed.lines().any(|line| line.starts_with("E000:") && line.ends_with(" reset")), "{printed}");
    }

    #[test]
    fn rom_names_the_file_that_cannot_be_written() {
        let file = std::env::temp_dir().join("no such folder").join("rom.bin");
        let error = run(&Arguments { file: Some(file), vga: true, map: false }).unwrap_err().to_string();
        assert!(error.contains("no such folder") && error.lines().count() == 1, "{error}");
    }
}
