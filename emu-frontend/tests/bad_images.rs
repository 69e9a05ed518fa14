//! Images that are absent, refused by the host, too short, no disk at all, in use, or on a full disk: one line, the BIOS's own
//! words, or an I/O error for the guest; and nothing lost.

mod guest;

use guest::{Emulator, receive_al, send_bl, send_digit, temporary};
use iced_x86::IcedError;
use iced_x86::code_asm::{CodeAssembler, ah, al, ax, bl, byte_ptr, ch, cx, di, dl, ds, dx, es, si, sp, ss, word_ptr};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SECTOR: usize = 512;
/// Where the boot sector is loaded, and where it has its buffer and its disk address packet.
const LOAD_ADDRESS: u64 = 0x7c00;
const BUFFER: u32 = 0x8000;
const PACKET: u32 = 0x7000;
const DRIVE: u32 = 0x7010;

/// A boot sector that obeys on COM1: `r` and a 16-bit sector number reads the sector and prints its first byte, `w` and a
/// number fills the sector with `Z`; both print `E` and the status if that fails. `q` powers off.
fn boot_sector() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(16)?;
    let (mut next, mut send, mut receive, mut hex, mut nibble) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label(), a.create_label());
    let (mut transfer, mut failed, mut not_off) = (a.create_label(), a.create_label(), a.create_label());
    a.xor(ax, ax)?;
    a.mov(ds, ax)?;
    a.mov(es, ax)?;
    a.mov(ss, ax)?;
    a.mov(sp, LOAD_ADDRESS as i32)?;
    a.mov(byte_ptr(DRIVE), dl)?;
    for character in b"booted\n" {
        a.mov(bl, i32::from(*character))?;
        a.call(send)?;
    }
    a.set_label(&mut next)?;
    a.call(receive)?;
    a.mov(ch, al)?;
    a.cmp(al, i32::from(b'q'))?;
    a.jne(not_off)?;
    a.mov(dx, 0x604)?;
    a.mov(ax, 0x2000)?;
    a.out(dx, ax)?;
    a.set_label(&mut not_off)?;
    // The packet of the extended services: one sector to BUFFER, from the sector that is received.
    a.mov(word_ptr(PACKET), 0x10)?;
    a.mov(word_ptr(PACKET + 2), 1)?;
    a.mov(word_ptr(PACKET + 4), BUFFER as i32)?;
    a.mov(word_ptr(PACKET + 6), 0)?;
    a.call(receive)?;
    a.mov(byte_ptr(PACKET + 8), al)?;
    a.call(receive)?;
    a.mov(byte_ptr(PACKET + 9), al)?;
    for word in [10, 12, 14] {
        a.mov(word_ptr(PACKET + word), 0)?;
    }
    a.mov(bl, ch)?;
    a.mov(ah, 0x42)?;
    a.cmp(bl, i32::from(b'w'))?;
    a.jne(transfer)?;
    a.mov(di, BUFFER as i32)?;
    a.mov(cx, SECTOR as i32)?;
    a.mov(al, i32::from(b'Z'))?;
    a.cld()?;
    a.rep().stosb()?;
    a.mov(ax, 0x4300)?;
    a.set_label(&mut transfer)?;
    a.mov(dl, byte_ptr(DRIVE))?;
    a.mov(si, PACKET as i32)?;
    a.int(0x13)?;
    a.jc(failed)?;
    a.mov(al, byte_ptr(BUFFER))?;
    a.call(hex)?;
    a.jmp(next)?;
    a.set_label(&mut failed)?;
    a.mov(bl, i32::from(b'E'))?;
    a.call(send)?;
    a.mov(al, ah)?;
    a.call(hex)?;
    a.jmp(next)?;

    // Prints AL and a line end.
    a.set_label(&mut hex)?;
    a.mov(bl, al)?;
    a.push(ax)?;
    a.shr(bl, 4)?;
    a.call(nibble)?;
    a.pop(ax)?;
    a.mov(bl, al)?;
    a.and(bl, 15)?;
    a.call(nibble)?;
    a.mov(bl, i32::from(b'\n'))?;
    a.jmp(send)?;
    send_digit(&mut a, &mut nibble, send)?;
    send_bl(&mut a, &mut send)?;
    receive_al(&mut a, &mut receive)?;
    a.ret()?;
    let mut code = a.assemble(LOAD_ADDRESS)?;
    assert!(code.len() <= SECTOR - 2, "{} bytes", code.len());
    code.resize(SECTOR - 2, 0);
    code.extend([0x55, 0xaa]);
    Ok(code)
}

/// A folder that goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = temporary(name);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A disk of `len` bytes that boots, its other sectors filled with `a`.
    fn disk(&self, name: &str, len: usize) -> PathBuf {
        let mut bytes = boot_sector().unwrap();
        bytes.resize(len, b'a');
        self.file(name, &bytes)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The one line on stderr of `command`, which must fail with status 1.
fn refusal_of(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{command:?}: {text}");
    assert_eq!(text.matches('\n').count(), 1, "{command:?}: {text}");
    text.trim_end().strip_prefix("emu: ").unwrap_or_else(|| panic!("{text}")).into()
}

fn emu(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_emu"));
    command.args(["-m", "16", "-display", "none"]).args(arguments);
    command
}

fn refusal(arguments: &[&str]) -> String {
    refusal_of(emu(arguments))
}

/// A command as somebody whom file permissions bind, root or not.
fn bound(arguments: &[&str]) -> Command {
    if !rustix::process::geteuid().is_root() {
        return emu(arguments);
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-dac_override,-dac_read_search", env!("CARGO_BIN_EXE_emu")]);
    command.args(["-m", "16", "-display", "none"]).args(arguments);
    command
}

/// A machine that has booted the sector above.
struct Guest(Emulator);

impl Guest {
    fn boot(command: Command) -> Guest {
        let mut emu = Emulator::spawn(command, None);
        emu.output.expect("booted\n");
        Guest(emu)
    }

    fn ask(&mut self, letter: u8, sector: u16) -> String {
        let [low, high] = sector.to_le_bytes();
        self.0.type_keys(&[letter, low, high]);
        self.0.output.expect("\n").trim_end().to_string()
    }

    fn finish(mut self) {
        self.0.type_keys(b"q");
        assert_eq!(self.0.wait(), Some(0));
    }
}

#[test]
fn what_the_host_refuses_is_told_in_one_line() {
    let folder = Folder::new("refused");
    let (absent, place) = (folder.0.join("absent"), text(&folder.0));
    let disk = folder.disk("disk", 4 * SECTOR);
    let empty = folder.file("empty", b"");
    let fifo = folder.0.join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    for option in ["-hda", "-hdb", "-cdrom", "-fda"] {
        assert_eq!(
            refusal(&[option, text(&absent)]),
            format!("{option} {}: cannot open: No such file or directory (os error 2)", absent.display())
        );
        assert_eq!(refusal(&[option, place]), format!("{option} {place}: is a directory, not an image"));
        assert_eq!(refusal(&[option, text(&empty)]), format!("{option} {}: the image is empty", empty.display()));
        assert_eq!(
            refusal(&[option, text(&fifo)]),
            format!("{option} {}: is neither a file nor a block device", fifo.display())
        );
    }
    fs::set_permissions(&disk, fs::Permissions::from_mode(0o000)).unwrap();
    for option in ["-hda", "-cdrom"] {
        let line = refusal_of(bound(&[option, text(&disk)]));
        assert!(line.starts_with(&format!("{option} {}: cannot open", disk.display())), "{line}");
        assert!(line.contains("Permission denied"), "{line}");
    }
}

#[test]
fn read_only_file_is_no_hard_disk_but_snapshot_diskette_and_cd() {
    let folder = Folder::new("read-only");
    let disk = folder.disk("disk", 2880 * SECTOR);
    fs::set_permissions(&disk, fs::Permissions::from_mode(0o444)).unwrap();
    let before = fs::read(&disk).unwrap();
    let line = refusal_of(bound(&["-hda", text(&disk)]));
    assert!(line.contains("cannot open for writing") && line.contains("snapshot=on leaves the file alone"), "{line}");
    let mut guest = Guest::boot(bound(&["-hda", text(&disk), "-snapshot", "-serial", "stdio"]));
    assert_eq!((guest.ask(b'w', 1), guest.ask(b'r', 1)), ("5a".into(), "5a".into()));
    guest.finish();
    // A diskette whose tab is set: INT 13h status 03h.
    let drive = format!("file={},if=floppy,readonly=on", disk.display());
    let guest = Guest::boot(bound(&["-drive", &drive, "-serial", "stdio"]));
    guest.finish();
    assert!(fs::read(&disk).unwrap() == before);
}

#[test]
fn image_that_ends_within_a_sector_is_padded_with_zeros_and_completed_by_a_write() {
    let folder = Folder::new("truncated");
    let disk = folder.disk("disk", SECTOR + 100);
    let mut guest = Guest::boot(emu(&["-hda", text(&disk), "-serial", "stdio"]));
    assert_eq!(guest.ask(b'r', 1), "61");
    // There is no sector behind it.
    assert!(guest.ask(b'r', 2).starts_with('E'));
    assert!(guest.ask(b'w', 2).starts_with('E'));
    assert_eq!(fs::metadata(&disk).unwrap().len(), (SECTOR + 100) as u64);
    assert_eq!(guest.ask(b'w', 1), "5a");
    guest.finish();
    let after = fs::read(&disk).unwrap();
    assert_eq!(after[..SECTOR], boot_sector().unwrap());
    assert_eq!(after[SECTOR..], [b'Z'; SECTOR]);
}

#[test]
fn image_that_shrinks_under_the_guest_is_an_error_for_it_and_no_more() {
    let folder = Folder::new("shrinks");
    let disk = folder.disk("disk", 64 * SECTOR);
    let mut guest = Guest::boot(emu(&["-hda", text(&disk), "-serial", "stdio"]));
    assert_eq!(guest.ask(b'r', 63), "61");
    File::options().write(true).open(&disk).unwrap().set_len(32 * SECTOR as u64).unwrap();
    assert!(guest.ask(b'r', 63).starts_with('E'));
    assert_eq!(guest.ask(b'r', 31), "61");
    guest.finish();
}

#[test]
fn oversize_images_work_as_disks_and_are_refused_as_diskettes() {
    let folder = Folder::new("oversize");
    // Three terabytes with holes: more than 28-bit sector numbers, and 32-bit ones, reach.
    let disk = folder.disk("disk", 4 * SECTOR);
    File::options().write(true).open(&disk).unwrap().set_len(3 << 40).unwrap();
    let mut guest = Guest::boot(emu(&["-hda", text(&disk), "-serial", "stdio"]));
    assert_eq!((guest.ask(b'r', 3), guest.ask(b'r', 4)), ("61".into(), "00".into()));
    guest.finish();
    let line = refusal(&["-fda", text(&disk)]);
    assert!(
        line.ends_with("an image of 3298534883328 bytes is no diskette; the largest is of 2949120 bytes"),
        "{line}"
    );
}

#[test]
fn what_is_no_boot_disk_ends_in_the_firmwares_own_words() {
    let folder = Folder::new("unbootable");
    let blank = folder.file("blank", &[0; 64 * SECTOR]);
    // A disc: zeros where a disk has its boot sector, and volume descriptors that name no boot image.
    let mut disc = vec![0; 40 * 2048];
    disc[16 * 2048..][..6].copy_from_slice(b"\x01CD001");
    disc[17 * 2048..][..6].copy_from_slice(b"\xffCD001");
    let disc = folder.file("disc", &disc);
    let unsigned = folder.disk("unsigned", 64 * SECTOR);
    File::options().write(true).open(&unsigned).unwrap().write_all_at(&[0, 0], SECTOR as u64 - 2).unwrap();
    for arguments in [["-hda", text(&blank)], ["-hda", text(&disc)], ["-hda", text(&unsigned)], ["-cdrom", text(&disc)]]
    {
        let mut command = emu(&arguments);
        command.args(["-serial", "stdio"]);
        let mut emu = Emulator::spawn(command, None);
        emu.output.expect("There is nothing to boot");
    }
}

#[test]
fn image_in_use_is_refused_and_the_one_who_has_it_does_not_notice() {
    let folder = Folder::new("in-use");
    let disk = folder.disk("disk", 64 * SECTOR);
    let name = text(&disk);
    let mut guest = Guest::boot(emu(&["-hda", name, "-serial", "stdio"]));
    let by_writer = format!("-hda {name}: the image is in use by another drive or process");
    assert_eq!(refusal(&["-hda", name]), by_writer);
    let reading = ": the image is in use by a drive or process that writes to it";
    assert_eq!(refusal(&["-hda", name, "-snapshot"]), format!("-hda {name}{reading}"));
    assert_eq!(refusal(&["-cdrom", name]), format!("-cdrom {name}{reading}"));
    assert_eq!((guest.ask(b'w', 5), guest.ask(b'r', 5)), ("5a".into(), "5a".into()));
    guest.finish();
    // Twice in one machine.
    assert_eq!(
        refusal(&["-hda", name, "-hdb", name]),
        format!("-hdb {name}: the image is in use by another drive or process")
    );
    // Readers share.
    let first = Guest::boot(emu(&["-hda", name, "-snapshot", "-serial", "stdio"]));
    let second = Guest::boot(emu(&["-hda", name, "-snapshot", "-cdrom", name, "-serial", "stdio"]));
    first.finish();
    second.finish();
}

#[test]
fn contradictory_drives_are_refused_by_option_and_value() {
    let folder = Folder::new("contradictory");
    let disk = folder.disk("disk", 64 * SECTOR);
    let name = text(&disk);
    for (properties, problem) in [
        ("index=0,bus=1", "'index' cannot be used with 'bus' and 'unit'"),
        ("if=floppy,media=cdrom", "a diskette drive takes no CD-ROM"),
        ("readonly=on", "an IDE hard disk cannot be read-only; snapshot=on leaves the file alone"),
        ("media=tape", "'media=tape': expected disk or cdrom"),
        ("format=qcow9", "'format=qcow9' is not implemented; implemented: raw, qcow2"),
        ("index=9", "'index=9'"),
    ] {
        let drive = format!("file={name},{properties}");
        let line = refusal(&["-drive", &drive]);
        assert!(line.starts_with(&format!("-drive {drive}: ")) && line.contains(problem), "{line}");
    }
    let line = refusal(&["-hda", name, "-drive", &format!("file={name},index=0")]);
    assert!(line.contains("drive with bus=0, unit=0 exists: -hda"), "{line}");
    let qcow2 = folder.file("qcow2", b"QFI\xfb\0\0\0\x03");
    let line = refusal(&["-hda", text(&qcow2)]);
    assert!(line.contains("Image is not in qcow2 format"), "{line}");
}

#[test]
fn full_host_disk_is_an_io_error_for_the_guest_and_nothing_is_lost() {
    let folder = Folder::new("full");
    let disk = folder.disk("disk", 64 * SECTOR);
    // A limit on the size of files stands in for a full disk: setrlimit(2), RLIMIT_FSIZE. Sectors from 32 on cannot be
    // written.
    let limited = |sectors: usize, arguments: &[&str]| {
        let mut command = Command::new("prlimit");
        command.args([&format!("--fsize={}", sectors * SECTOR), env!("CARGO_BIN_EXE_emu")]);
        command.args(["-m", "16", "-display", "none", "-serial", "stdio"]).args(arguments);
        command
    };
    let mut guest = Guest::boot(limited(32, &["-hda", text(&disk)]));
    assert_eq!(guest.ask(b'w', 5), "5a");
    assert!(guest.ask(b'w', 40).starts_with('E'));
    // The guest goes on, reads the old contents, and writes where there is room.
    assert_eq!((guest.ask(b'r', 40), guest.ask(b'r', 5)), ("61".into(), "5a".into()));
    assert_eq!((guest.ask(b'w', 6), guest.ask(b'r', 6)), ("5a".into(), "5a".into()));
    guest.finish();
    let after = fs::read(&disk).unwrap();
    let sectors: Vec<u8> = after.chunks(SECTOR).map(|sector| sector[0]).collect();
    assert_eq!(
        (sectors.len(), sectors[4], sectors[5], sectors[6], sectors[7], sectors[40]),
        (64, b'a', b'Z', b'Z', b'a', b'a')
    );
    // The temporary file of a snapshot grows as it is written to, by 16 KiB; its tables take 80 KiB.
    let mut guest = Guest::boot(limited(6 * 32, &["-hda", text(&disk), "-snapshot"]));
    let answers: Vec<String> = (1..64).map(|sector| guest.ask(b'w', sector)).collect();
    assert_eq!(answers[0], "5a");
    assert!(answers[62].starts_with('E'), "{answers:?}");
    for (sector, answer) in (1..64).zip(&answers) {
        let wanted = if answer == "5a" || [5, 6].contains(&sector) { "5a" } else { "61" };
        assert_eq!(guest.ask(b'r', sector), wanted, "{sector}");
    }
    guest.finish();
    assert!(fs::read(&disk).unwrap() == after);
}
