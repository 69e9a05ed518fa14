//! What is booted when there are several drives: `-boot order=`, `once=`, `bootindex=`, and the boot menu, on the screen and on the serial console.
//!
//! Each medium's boot sector leaves by isa-debug-exit with a number of its own, so that the exit status tells which one ran, as which drive.

use emu_tests::eltorito::{self, Emulation};
use emu_tests::guest::{Guest, GuestError, Machine, accelerator, cached};
use emu_tests::screen::ScreenGuest;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);
const FLOPPY: u8 = 1;
const FIRST_DISK: u8 = 2;
const SECOND_DISK: u8 = 3;
const CD: u8 = 4;
/// Added when the drive number is not the expected one.
const OTHER_DRIVE: u8 = 0x40;

/// A boot sector that leaves with `number`, if it was booted as drive `drive`; or one that resets the machine.
fn boot_sector(number: u8, drive: u32, reset: bool) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(16)?;
    let mut leave = a.create_label();
    if reset {
        a.mov(al, 0xFE)?;
        a.out(0x64, al)?;
        a.hlt()?;
    }
    a.mov(al, u32::from(number))?;
    a.cmp(dl, drive)?;
    a.je(leave)?;
    a.add(al, u32::from(OTHER_DRIVE))?;
    a.set_label(&mut leave)?;
    a.out(0xF4, al)?;
    a.hlt()?;
    let mut sector = a.assemble(0x7C00)?;
    sector.resize(510, 0);
    sector.extend([0x55, 0xAA]);
    Ok(sector)
}

/// A machine with a diskette drive, two hard disks and a CD-ROM drive.
struct Drives {
    folder: PathBuf,
    arguments: Vec<OsString>,
}

impl Drives {
    /// `cd_resets`: the CD starts the machine anew instead of leaving.
    fn new(name: &str, cd_resets: bool) -> Drives {
        let folder = std::env::temp_dir().join(format!("emu-boot-menu-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        let mut arguments: Vec<OsString> =
            ["-snapshot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"].map(Into::into).into();
        let sector = |number, drive, reset| boot_sector(number, drive, reset).expect("it can be encoded");
        let sized = |mut image: Vec<u8>, size| {
            image.resize(size, 0);
            image
        };
        for (option, image) in [
            ("-fda", sized(sector(FLOPPY, 0, false), 1440 << 10)),
            ("-hda", sized(sector(FIRST_DISK, 0x80, false), 1 << 20)),
            ("-hdb", sized(sector(SECOND_DISK, 0x80, false), 2 << 20)),
            ("-cdrom", eltorito::disc(Emulation::None, &sector(CD, 0xE0, cd_resets), 1)),
        ] {
            let file = folder.join(&option[1..]);
            fs::write(&file, image).expect("an image");
            arguments.extend([option.into(), file.into()]);
        }
        Drives { folder, arguments }
    }

    /// The same media, but hda, hdb and cdrom are drives without a place, for `-device` to name.
    fn without_places(name: &str) -> Drives {
        let mut drives = Drives::new(name, false);
        for id in ["hda", "hdb", "cdrom"] {
            let option = drives.arguments.iter().position(|argument| argument.to_str() == Some(&format!("-{id}")));
            let option = option.expect("an option for each");
            let file = drives.folder.join(id);
            drives.arguments[option] = "-drive".into();
            drives.arguments[option + 1] = format!("if=none,id={id},format=raw,file={}", file.display()).into();
        }
        drives
    }

    /// The number that the machine leaves with.
    fn booted(&self, options: &[&str]) -> u8 {
        let Machine::Emu(emu) = machine() else { unreachable!("machine() gives nothing else") };
        let mut command = std::process::Command::new(emu);
        command.args(["-display", "none"]).args(accelerator()).args(&self.arguments).args(options);
        let status = Guest::start(&mut command, LIMIT).and_then(|mut guest| guest.wait());
        number(status.unwrap_or_else(|error| panic!("{options:?}: {error}")).code())
    }
}

impl Drop for Drives {
    fn drop(&mut self) {
        // What is left in a temporary folder harms nobody.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn number(status: Option<i32>) -> u8 {
    status.map_or(0, |status| (status >> 1) as u8)
}

fn machine() -> Machine {
    match Machine::under_test() {
        Ok(Machine::Emu(emu)) => Machine::Emu(emu),
        Ok(Machine::Qemu) => panic!("these are emu's own BIOS and its answers"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn order_chooses_among_drives() {
    let drives = Drives::new("order", false);
    for (order, number) in [("a", FLOPPY), ("c", FIRST_DISK), ("d", CD), ("nda", CD), ("order=ca", FIRST_DISK)] {
        assert_eq!(drives.booted(&["-boot", order]), number, "{order}");
    }
    assert_eq!(drives.booted(&[]), FIRST_DISK);
}

#[test]
fn boot_indexes_choose_among_drives_that_devices_have() {
    let drives = Drives::without_places("bootindex");
    let seabios = cached("firmware", "bios-256k.bin").unwrap_or_else(|error| panic!("{error}"));
    let seabios = ["-bios", seabios.to_str().expect("a path in UTF-8")];
    for firmware in [&[][..], &seabios] {
        for (devices, number) in [
            (["ide-hd,drive=hda", "ide-hd,drive=hdb,bootindex=0", "ide-cd,drive=cdrom"], SECOND_DISK),
            (["ide-hd,drive=hda,bootindex=2", "ide-hd,drive=hdb", "ide-cd,drive=cdrom,bootindex=1"], CD),
            (["ide-hd,drive=hda", "ide-hd,drive=hdb,bus=ide.1,unit=1", "ide-cd,drive=cdrom"], FIRST_DISK),
            (
                ["ide-hd,drive=hda", "virtio-blk-pci,drive=hdb,bootindex=0", "ide-cd,drive=cdrom,bootindex=1"],
                SECOND_DISK,
            ),
            (["virtio-blk-pci,drive=hdb", "ide-cd,drive=cdrom", "virtio-blk-pci,drive=hda,bootindex=0"], FIRST_DISK),
            // Empty drives and disks behind the one with the index are no obstacles.
            (["ide-cd,bootindex=0", "ide-hd,drive=hdb,unit=1,bus=ide.1,bootindex=5", "ide-hd,drive=hda"], SECOND_DISK),
        ] {
            let options = [firmware, &devices.map(|device| ["-device", device]).concat()].concat();
            assert_eq!(drives.booted(&options), number, "{options:?}");
        }
    }
}

#[test]
fn once_is_for_the_first_start_only() {
    let drives = Drives::new("once", true);
    assert_eq!(drives.booted(&["-boot", "order=a,once=d"]), FLOPPY, "the CD starts the machine anew");
}

#[test]
fn menu_that_nobody_wants_goes_away() {
    let drives = Drives::new("alone", false);
    assert_eq!(drives.booted(&["-boot", "menu=on,splash-time=200,order=d"]), CD);
}

/// Opens the menu by `open`, and presses the key of the line of the menu that contains `line`.
fn choose(bios: Option<PathBuf>, [open, menu, line]: [&str; 3]) -> Result<u8, GuestError> {
    let drives = Drives::new(&format!("choose-{}-{}", bios.is_some(), line.replace([' ', '/'], "-")), false);
    let mut arguments = drives.arguments.clone();
    arguments.extend(["-boot", "menu=on,splash-time=60000"].map(Into::into));
    if let Some(bios) = bios {
        arguments.extend(["-bios".into(), bios.into()]);
    }
    let mut guest = ScreenGuest::start(&machine(), &arguments, LIMIT)?;
    guest.expect("oot menu")?;
    guest.keys(&[open])?;
    guest.expect(menu)?;
    let screen = guest.expect(line)?;
    let row = screen.lines().find(|row| row.contains(line)).unwrap_or_default();
    let key: String = row.trim_start().chars().take(1).collect();
    // The machine may be gone before the monitor answers.
    let _ = guest.keys(&[&key]);
    Ok(number(guest.wait()?.code()))
}

#[test]
fn menu_on_the_screen_boots_what_is_chosen() {
    for (open, line, number) in [
        ("esc", "Diskette drive A", FLOPPY),
        ("f12", "80h", FIRST_DISK),
        ("esc", "81h", SECOND_DISK),
        ("esc", "CD-ROM E0h", CD),
    ] {
        let chosen = choose(None, [open, "Boot from:", line]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(chosen, number, "{line}");
    }
}

#[test]
fn menu_of_seabios_is_offered_too() {
    let bios = cached("firmware", "bios-256k.bin").unwrap_or_else(|error| panic!("{error}"));
    let chosen = choose(Some(bios), ["esc", "Select boot device", "DVD/CD"]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(chosen, CD);
}

#[test]
fn menu_on_the_serial_console_boots_what_is_chosen() {
    let drives = Drives::new("serial", false);
    let converse = || -> Result<u8, GuestError> {
        let mut command = machine().command();
        command.args(&drives.arguments).args(["-boot", "menu=on,splash-time=60000"]);
        let mut guest = Guest::start(&mut command, LIMIT)?;
        guest.expect("for the boot menu.")?;
        guest.send_line("\x1b")?;
        guest.expect("3  Hard disk 81h")?;
        guest.expect("ROM monitor")?;
        guest.send_line("3")?;
        Ok(number(guest.wait()?.code()))
    };
    assert_eq!(converse().unwrap_or_else(|error| panic!("{error}")), SECOND_DISK);
}

#[test]
fn virtio_disks_are_booted_behind_those_on_ide() {
    let mut drives = Drives::new("virtio", false);
    // The media alone, without the options that make drives of them.
    drives.arguments.truncate(3);
    let booted = |options: &[&str]| drives.booted(options);
    let image = |name: &str, rest: &str| format!("file={}/{name},format=raw,{rest}", drives.folder.display());
    let (first, second) = (image("hda", "if=none,id=a"), image("hdb", "if=none,id=b"));
    for device in ["virtio-blk-pci,drive=b", "virtio-blk-pci,drive=b,disable-legacy=on,logical_block_size=512,addr=1e"]
    {
        assert_eq!(booted(&["-drive", &second, "-device", device]), SECOND_DISK, "{device}");
    }
    let [early, late] = ["virtio-blk-pci,drive=a,addr=8", "virtio-blk-pci,drive=b,addr=9"];
    assert_eq!(booted(&["-drive", &first, "-drive", &second, "-device", late, "-device", early]), FIRST_DISK);
    let behind = ["-drive", &image("hda", "if=virtio"), "-drive", &image("hdb", "if=ide")];
    assert_eq!(booted(&behind), SECOND_DISK);
    // Other blocks than INT 13h knows: nothing is booted, as from a disk without the interface that the BIOS drives.
    for device in [
        "virtio-blk-pci,drive=b,logical_block_size=4096,physical_block_size=4096",
        "virtio-blk-pci,drive=b,disable-modern=on",
    ] {
        let options = ["-no-reboot", "-drive", &second, "-device", device, "-boot", "reboot-timeout=100"];
        assert_eq!(booted(&options), 0, "{device}");
    }
}

#[test]
fn with_nothing_to_boot_the_machine_may_start_anew() {
    let mut command = machine().command();
    command.args(["-boot", "reboot-timeout=300"]);
    // -no-reboot ends it at the reset.
    let status = Guest::start(&mut command, LIMIT).and_then(|mut guest| guest.wait());
    assert!(status.unwrap_or_else(|error| panic!("{error}")).success());
}
