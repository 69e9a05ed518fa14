//! Boots from CD and diskette through firmware, the built-in BIOS and SeaBIOS: GRUB's rescue images to their prompt, which
//! takes typed keys and lists drives, and Debian's kernels by isolinux to a shell on the serial console and power-off.
//!
//! `scripts/guests.sh` fetches the images; xorriso makes the CDs. `EMU_TEST_MACHINE=qemu` runs the same on QEMU, with SeaBIOS
//! in the place of the built-in BIOS.

use emu_tests::guest::{Guest, GuestError, Machine, cached};
use emu_tests::screen::ScreenGuest;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Enough for a host that is busy with other things.
const GRUB_LIMIT: Duration = Duration::from_secs(300);
const LINUX_LIMIT: Duration = Duration::from_secs(600);

#[derive(Clone, Copy)]
enum Bios {
    BuiltIn,
    SeaBios,
}

impl Bios {
    fn arguments(self) -> Result<Vec<OsString>, GuestError> {
        Ok(match self {
            Bios::BuiltIn => vec![],
            Bios::SeaBios => vec!["-bios".into(), cached("firmware", "bios-256k.bin")?.into()],
        })
    }
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("emu-boot-firmware-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary folder");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left in a temporary folder harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn machine() -> Result<Machine, GuestError> {
    Machine::under_test().map_err(GuestError::new)
}

/// GRUB's menu, then its prompt, then what `ls` shows.
fn grub(bios: Bios, drive: &[OsString], listed: &str) {
    let converse = || -> Result<(), GuestError> {
        let mut arguments = bios.arguments()?;
        arguments.extend_from_slice(drive);
        let mut guest = ScreenGuest::start(&machine()?, &arguments, GRUB_LIMIT)?;
        guest.expect("GNU GRUB")?;
        guest.keys(&["c"])?;
        guest.expect("grub>")?;
        guest.keys(&["l", "s", "ret"])?;
        let screen = guest.expect(listed)?;
        assert!(screen.contains("grub> ls\n"), "{screen}");
        assert!(guest.quit()?.success());
        Ok(())
    };
    converse().unwrap_or_else(|error| panic!("{error}"));
}

fn grub_cd(bios: Bios) {
    let disc = cached("firmware", "grub-rescue-cdrom.iso").unwrap_or_else(|error| panic!("{error}"));
    grub(bios, &["-boot".into(), "d".into(), "-cdrom".into(), disc.into()], "(cd)");
}

#[test]
fn grub_cd_lists_drives_under_the_built_in_bios() {
    grub_cd(Bios::BuiltIn);
}

#[test]
fn grub_cd_lists_drives_under_seabios() {
    grub_cd(Bios::SeaBios);
}

#[test]
fn grub_floppy_lists_drives_under_seabios() {
    let floppy = cached("firmware", "grub-rescue-floppy.img").unwrap_or_else(|error| panic!("{error}"));
    let drive = ["-boot".into(), "a".into(), "-snapshot".into(), "-fda".into(), floppy.into()];
    grub(Bios::SeaBios, &drive, "(fd0)");
}

/// A CD that isolinux boots Debian's kernel from, with busybox as its initramfs.
fn isolinux_cd(folder: &Path, arch: &str) -> Result<PathBuf, GuestError> {
    let failed = |what: &str, error: &dyn std::fmt::Display| GuestError::new(format!("{what}: {error}"));
    let tree = folder.join("tree");
    let (from, loader) = (tree.join("isolinux"), "firmware");
    fs::create_dir_all(&from).map_err(|error| failed("a folder for the CD", &error))?;
    for (place, name) in [(loader, "isolinux.bin"), (loader, "ldlinux.c32"), (arch, "linux"), (arch, "busybox.cpio")] {
        fs::copy(cached(place, name)?, from.join(name)).map_err(|error| failed(name, &error))?;
    }
    let configuration = "DEFAULT linux\nPROMPT 0\nLABEL linux\n  KERNEL linux\n  INITRD busybox.cpio\n  \
                         APPEND console=ttyS0 quiet\n";
    fs::write(from.join("isolinux.cfg"), configuration).map_err(|error| failed("isolinux.cfg", &error))?;
    let disc = folder.join("cd.iso");
    let options = "-as mkisofs -quiet -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 \
                   -boot-info-table -o";
    let made = Command::new("xorriso").args(options.split(' ')).arg(&disc).arg(&tree).output();
    let made = made.map_err(|error| failed("cannot run xorriso (package xorriso)", &error))?;
    match made.status.success() {
        true => Ok(disc),
        false => Err(failed("xorriso", &String::from_utf8_lossy(&made.stderr))),
    }
}

fn linux_cd(bios: Bios, arch: &str, name: &str) {
    let folder = Folder::new(name);
    let converse = || -> Result<(), GuestError> {
        let mut command = machine()?.command();
        command.args(bios.arguments()?).args(["-m", "512", "-boot", "d", "-cdrom"]);
        command.arg(isolinux_cd(&folder.0, arch)?);
        let mut guest = Guest::start(&mut command, LINUX_LIMIT)?;
        let mut step = |line: &str, answer: &str| {
            guest.expect("emu# ")?;
            guest.send_line(line)?;
            guest.expect(answer)
        };
        step("echo $((6 * 7)) on $(uname -m)", if arch == "amd64" { "42 on x86_64" } else { "42 on i686" })?;
        step("echo timers: $(dmesg | grep -c 'ACPI: PM-Timer')", "timers: 1")?;
        step("echo complaints: $(dmesg | grep -c -e 'ACPI.*[Ee]rror' -e BUG:)", "complaints: 0")?;
        step("poweroff -f", "reboot: Power down")?;
        let status = guest.wait()?;
        assert!(status.success(), "{}", guest.errors());
        Ok(())
    };
    converse().unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn linux_amd64_cd_boots_under_the_built_in_bios() {
    linux_cd(Bios::BuiltIn, "amd64", "amd64-built-in");
}

#[test]
fn linux_amd64_cd_boots_under_seabios() {
    linux_cd(Bios::SeaBios, "amd64", "amd64-seabios");
}

#[test]
fn linux_i386_cd_boots_under_the_built_in_bios() {
    linux_cd(Bios::BuiltIn, "i386", "i386-built-in");
}

#[test]
fn linux_i386_cd_boots_under_seabios() {
    linux_cd(Bios::SeaBios, "i386", "i386-seabios");
}
