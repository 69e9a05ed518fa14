//! Makes an initramfs for a Linux guest: `mkinitramfs --busybox FILE --out FILE [--init SCRIPT]` packs a static busybox,
//! `mkinitramfs --program FILE --out FILE` a static program that is process 1 itself.

use std::path::PathBuf;
use std::process::ExitCode;

use emu_tests::initramfs;

const USAGE: &str = "usage: mkinitramfs (--busybox FILE [--init SCRIPT] | --program FILE) --out FILE";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("mkinitramfs: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let (mut busybox, mut program, mut init, mut out) = (None, None, None, None);
    let mut arguments = std::env::args_os().skip(1);
    while let Some(option) = arguments.next() {
        let slot = match option.to_str() {
            Some("--busybox") => &mut busybox,
            Some("--program") => &mut program,
            Some("--init") => &mut init,
            Some("--out") => &mut out,
            _ => return Err(format!("unknown option {option:?}; {USAGE}")),
        };
        *slot = Some(PathBuf::from(arguments.next().ok_or_else(|| format!("{option:?} needs a file; {USAGE}"))?));
    }
    let read = |path: PathBuf| std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()));

    let archive = match (busybox, program, init) {
        (Some(busybox), None, None) => initramfs::busybox(&read(busybox)?, initramfs::BUSYBOX_INIT),
        (Some(busybox), None, Some(init)) => {
            initramfs::busybox(&read(busybox)?, &String::from_utf8_lossy(&read(init)?))
        }
        (None, Some(program), None) => initramfs::single_program(&read(program)?),
        _ => return Err(USAGE.to_owned()),
    };
    let out = out.ok_or_else(|| USAGE.to_owned())?;
    let bytes = archive.map_err(|error| error.to_string())?;
    std::fs::write(&out, bytes).map_err(|error| format!("{}: {error}", out.display()))
}
