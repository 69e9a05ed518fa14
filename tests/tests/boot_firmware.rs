//! Boots from CD and diskette through firmware, the built-in BIOS, SeaBIOS and Bochs' BIOS: GRUB's rescue images to their prompt, which
//! takes typed keys and lists drives, and Debian's kernels by isolinux to a shell on the serial console and power-off. The same
//! kernels through `-kernel` with `-bios` (through SeaBIOS it is the installer: tests/boot), and one of ours that only a BIOS can start.
//!
//! `scripts/guests.sh` fetches the images; xorriso makes the CDs. `EMU_TEST_MACHINE=qemu` runs the same on QEMU, with SeaBIOS
//! in the place of the built-in BIOS.

use emu_tests::guest::{Guest, GuestError, Machine, cached};
use emu_tests::screen::ScreenGuest;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Enough for a host that is busy with other things.
const GRUB_LIMIT: Duration = Duration::from_secs(300);
const LINUX_LIMIT: Duration = Duration::from_secs(600);

#[derive(Clone, Copy)]
enum Firmware {
    BuiltIn,
    SeaBios,
    Bochs,
    /// Bochs' BIOS of 64 KiB, which knows of no PCI.
    BochsLegacy,
}

impl Firmware {
    fn arguments(self) -> Result<Vec<OsString>, GuestError> {
        Ok(match self {
            Firmware::BuiltIn => vec![],
            Firmware::SeaBios => vec!["-bios".into(), cached("firmware", "bios-256k.bin")?.into()],
            Firmware::Bochs => vec!["-bios".into(), cached("firmware", "BIOS-bochs-latest")?.into()],
            Firmware::BochsLegacy => vec!["-bios".into(), cached("firmware", "BIOS-bochs-legacy")?.into()],
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
fn grub(bios: Firmware, drive: &[OsString], listed: &str) {
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

fn grub_cd(bios: Firmware) {
    let disc = cached("firmware", "grub-rescue-cdrom.iso").unwrap_or_else(|error| panic!("{error}"));
    grub(bios, &["-boot".into(), "d".into(), "-cdrom".into(), disc.into()], "(cd)");
}

#[test]
fn grub_cd_lists_drives_under_the_built_in_bios() {
    grub_cd(Firmware::BuiltIn);
}

#[test]
fn grub_cd_lists_drives_under_seabios() {
    grub_cd(Firmware::SeaBios);
}

#[test]
fn grub_cd_lists_drives_under_bochs_bios() {
    grub_cd(Firmware::Bochs);
}

fn grub_floppy(bios: Firmware) {
    let floppy = cached("firmware", "grub-rescue-floppy.img").unwrap_or_else(|error| panic!("{error}"));
    let drive = ["-boot".into(), "a".into(), "-snapshot".into(), "-fda".into(), floppy.into()];
    grub(bios, &drive, "(fd0)");
}

#[test]
fn grub_floppy_lists_drives_under_the_built_in_bios() {
    grub_floppy(Firmware::BuiltIn);
}

#[test]
fn grub_floppy_lists_drives_under_bochs_bios() {
    grub_floppy(Firmware::Bochs);
}

#[test]
fn grub_floppy_lists_drives_under_seabios() {
    grub_floppy(Firmware::SeaBios);
}

/// Diskette and disk: the image is one that starts from either. QEMU's own machine has no VGA BIOS where this BIOS looks for it.
#[test]
fn grub_lists_drives_under_bochs_legacy_bios() {
    if let Ok(Machine::Qemu) = machine() {
        return;
    }
    grub_floppy(Firmware::BochsLegacy);
    let image = cached("firmware", "grub-rescue-floppy.img").unwrap_or_else(|error| panic!("{error}"));
    let drive = ["-boot".into(), "c".into(), "-snapshot".into(), "-hda".into(), image.into()];
    grub(Firmware::BochsLegacy, &drive, "(hd0)");
}

/// What SMBIOS is to tell, and how Linux shows what it was told.
const DMI_OPTIONS: [&str; 8] = [
    "-uuid",
    "12345678-9abc-def0-1234-56789abcdef0",
    "-smbios",
    "type=0,vendor=Boots",
    "-smbios",
    "type=1,manufacturer=Acme,product=Road,,runner",
    "-smbios",
    "type=3,serial=C 77",
];
const DMI_QUESTION: &str =
    "cd /sys/class/dmi/id; echo dmi: $(cat bios_vendor sys_vendor product_name product_uuid chassis_serial)";
const DMI_ANSWER: &str = "dmi: Boots Acme Road,runner 12345678-9abc-def0-1234-56789abcdef0 C 77";

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
                         APPEND console=ttyS0 quiet cryptomgr.notests\n";
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

fn linux_cd(bios: Firmware, arch: &str, name: &str) {
    let folder = Folder::new(name);
    let converse = || -> Result<(), GuestError> {
        let mut command = machine()?.command();
        command.args(bios.arguments()?).args(["-m", "512", "-boot", "d", "-cdrom"]);
        command.arg(isolinux_cd(&folder.0, arch)?);
        // One architecture is told what to say of the machine; the other sees what is said without that.
        let told = arch == "amd64";
        if told {
            command.args(DMI_OPTIONS);
        }
        let mut guest = Guest::start(&mut command, LINUX_LIMIT)?;
        let mut step = |line: &str, answer: &str| {
            guest.expect("emu# ")?;
            guest.send_line(line)?;
            guest.expect(answer)
        };
        step("echo $((6 * 7)) on $(uname -m)", if arch == "amd64" { "42 on x86_64" } else { "42 on i686" })?;
        step("echo timers: $(dmesg | grep -c 'ACPI: PM-Timer')", "timers: 1")?;
        // Firmware tells its own name, and the machine's defaults.
        let vendor = match (bios, machine()?) {
            (Firmware::BuiltIn, Machine::Emu(_)) => "dmi: emu",
            _ => "dmi: SeaBIOS",
        };
        if told {
            step(DMI_QUESTION, DMI_ANSWER)?;
        } else {
            step("echo dmi: $(cat /sys/class/dmi/id/bios_vendor)", vendor)?;
        }
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
    linux_cd(Firmware::BuiltIn, "amd64", "amd64-built-in");
}

#[test]
fn linux_amd64_cd_boots_under_seabios() {
    linux_cd(Firmware::SeaBios, "amd64", "amd64-seabios");
}

#[test]
fn linux_i386_cd_boots_under_the_built_in_bios() {
    linux_cd(Firmware::BuiltIn, "i386", "i386-built-in");
}

#[test]
fn linux_i386_cd_boots_under_seabios() {
    linux_cd(Firmware::SeaBios, "i386", "i386-seabios");
}

/// Has the machine start through firmware from a file, the built-in one's from `folder`.
fn firmware_from_file(bios: Firmware, folder: &Path, command: &mut Command) -> Result<(), GuestError> {
    match (bios, machine()?) {
        (Firmware::BuiltIn, Machine::Emu(emu)) => {
            let file = folder.join("bios.bin");
            let written = Command::new(emu).args(["dev", "rom"]).arg(&file).status();
            assert!(written.is_ok_and(|status| status.success()));
            command.arg("-bios").arg(file);
        }
        (bios, _) => {
            command.args(bios.arguments()?);
        }
    }
    Ok(())
}

/// The shell of busybox as the initramfs of a kernel that `-kernel` hands to the built-in BIOS from a file. A program's write to the
/// isa-debug-exit device ends the machine: 15h becomes exit status (15h << 1) | 1.
fn linux_through_the_built_in_bios(arch: &str) {
    let folder = Folder::new(&format!("kernel-{arch}"));
    let converse = || -> Result<(), GuestError> {
        let mut command = machine()?.command();
        firmware_from_file(Firmware::BuiltIn, &folder.0, &mut command)?;
        command.args(["-m", "512", "-append", "console=ttyS0 quiet panic=-1 cryptomgr.notests"]);
        command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-kernel"]);
        command.arg(cached(arch, "linux")?).arg("-initrd").arg(cached(arch, "busybox.cpio")?);
        command.args(DMI_OPTIONS);
        let mut guest = Guest::start(&mut command, LINUX_LIMIT)?;
        guest.expect("emu# ")?;
        guest.send_line("echo $((6 * 7)) on $(uname -m)")?;
        guest.expect(if arch == "amd64" { "42 on x86_64" } else { "42 on i686" })?;
        guest.expect("emu# ")?;
        guest.send_line(DMI_QUESTION)?;
        guest.expect(DMI_ANSWER)?;
        guest.expect("emu# ")?;
        guest.send_line(r"printf '\025' | dd of=/dev/port bs=1 seek=244 count=1")?;
        assert_eq!(guest.wait()?.code(), Some(43), "{}", guest.errors());
        Ok(())
    };
    converse().unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn kernel_amd64_boots_through_the_built_in_bios_and_leaves_by_the_debug_exit() {
    linux_through_the_built_in_bios("amd64");
}

#[test]
fn kernel_i386_boots_through_the_built_in_bios_and_leaves_by_the_debug_exit() {
    linux_through_the_built_in_bios("i386");
}

/// A kernel of boot protocol 2.00 that is loaded low: its setup code says what it finds of command line, kernel proper and RAM disk through
/// INT 14h, and leaves by isa-debug-exit.
fn old_kernel() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(16)?;
    let (mut next, mut done) = (a.create_label(), a.create_label());
    // DS is the setup code's segment; the command line is at DS:[22h].
    a.mov(si, word_ptr(0x22))?;
    a.set_label(&mut next)?;
    a.lodsb()?;
    a.test(al, al)?;
    a.jz(done)?;
    a.mov(ah, 1)?;
    a.xor(dx, dx)?;
    a.int(0x14)?;
    a.jmp(next)?;
    a.set_label(&mut done)?;
    // The sum of the kernel proper's and the RAM disk's first words; INT 15h AH=87h fetches the latter.
    a.mov(ax, 0x1000)?;
    a.mov(es, ax)?;
    a.mov(cx, word_ptr(0).es())?;
    a.push(cx)?;
    a.push(ds)?;
    a.pop(es)?;
    a.mov(si, 0x1000)?;
    a.mov(eax, dword_ptr(0x218))?;
    a.mov(word_ptr(si + 0x12), ax)?;
    a.shr(eax, 16)?;
    a.mov(byte_ptr(si + 0x14), al)?;
    a.mov(word_ptr(si + 0x10), 0xFFFF)?;
    a.mov(byte_ptr(si + 0x15), 0x93)?;
    a.mov(byte_ptr(si + 0x17), ah)?;
    // Its buffer is at 9000h:1100h.
    a.mov(word_ptr(si + 0x18), 0xFFFF)?;
    a.mov(word_ptr(si + 0x1A), 0x1100)?;
    a.mov(word_ptr(si + 0x1C), 0x9309)?;
    a.mov(word_ptr(si + 0x1E), 0)?;
    a.mov(cx, 1)?;
    a.mov(ah, 0x87)?;
    a.int(0x15)?;
    a.pop(ax)?;
    a.add(ax, word_ptr(0x1100))?;
    a.out(0xF4, ax)?;
    let code = a.assemble(0x230)?;

    let mut file = vec![0; 5 * 512];
    file[0x1F1] = 4;
    file[0x1F4] = 1;
    file[0x1FE..0x206].copy_from_slice(b"\x55\xAA\xEB\x2EHdrS");
    file[0x207] = 2;
    file[0x230..0x230 + code.len()].copy_from_slice(&code);
    file.extend([0x12; 16]);
    Ok(file)
}

#[test]
fn kernel_that_starts_in_16_bit_code_gets_a_bios() {
    let folder = Folder::new("old-kernel");
    let (kernel, initrd) = (folder.0.join("kernel"), folder.0.join("initrd"));
    fs::write(&kernel, old_kernel().expect("it can be encoded")).expect("a file");
    fs::write(&initrd, [0x21; 5000]).expect("a file");
    for bios in [Firmware::BuiltIn, Firmware::SeaBios] {
        let converse = || -> Result<(), GuestError> {
            let mut command = machine()?.command();
            command.args(bios.arguments()?).arg("-kernel").arg(&kernel).arg("-initrd").arg(&initrd);
            command.args(["-append", "old but alive.", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
            let mut guest = Guest::start(&mut command, GRUB_LIMIT)?;
            guest.expect("old but alive.")?;
            // 1212h + 2121h, doubled and one more: the low byte is the status.
            assert_eq!(guest.wait()?.code(), Some((0x3333 << 1 | 1) & 0xFF), "{}", guest.errors());
            Ok(())
        };
        converse().unwrap_or_else(|error| panic!("{error}"));
    }
}

/// A hard disk of 12 cylinders, 4 heads, 9 sectors. Its MBR moves to 0000:0600 and starts the boot sector of the active partition, which says
/// what drive it was booted from and what INT 13h AH=08h tells of it, and reads the rest of its text from the disk's last track.
fn bootable_disk() -> Result<Vec<u8>, IcedError> {
    const CYLINDERS: u8 = 12;
    const HEADS: u8 = 4;
    const SECTORS: u8 = 9;
    const TRACK: usize = SECTORS as usize * 512;
    let mut a = CodeAssembler::new(16)?;
    let (mut moved, mut failed) = (a.create_label(), a.create_label());
    a.cli()?;
    a.xor(ax, ax)?;
    a.mov(ds, ax)?;
    a.mov(es, ax)?;
    a.mov(ss, ax)?;
    a.mov(sp, 0x7C00)?;
    a.sti()?;
    a.cld()?;
    a.mov(si, 0x7C00)?;
    a.mov(di, 0x600)?;
    a.mov(cx, 256)?;
    a.rep().movsw()?;
    a.jmp(moved)?;
    // A near jump leads to the same place in the copy once CS:IP is there.
    a.set_label(&mut moved)?;
    a.push(0)?;
    a.push(0x600 + 0x40)?;
    a.retf()?;
    let mut mbr = a.assemble(0x7C00)?;
    assert!(mbr.len() <= 0x40);
    mbr.resize(0x40, 0);
    let mut a = CodeAssembler::new(16)?;
    a.mov(dh, byte_ptr(0x7BE + 1))?;
    a.mov(cx, word_ptr(0x7BE + 2))?;
    a.mov(bx, 0x7C00)?;
    a.mov(ax, 0x0201)?;
    a.int(0x13)?;
    a.jc(failed)?;
    a.mov(si, 0x7BE)?;
    a.push(0)?;
    a.push(0x7C00)?;
    a.retf()?;
    a.set_label(&mut failed)?;
    a.hlt()?;
    a.jmp(failed)?;
    mbr.extend(a.assemble(0x640)?);
    mbr.resize(0x1BE, 0);
    // Active, from the second track to the end.
    let sectors = u32::from(CYLINDERS) * u32::from(HEADS) * u32::from(SECTORS);
    mbr.extend([0x80, 1, 1, 0, 0x06, HEADS - 1, SECTORS, CYLINDERS - 1]);
    mbr.extend([u32::from(SECTORS), sectors - u32::from(SECTORS)].map(u32::to_le_bytes).concat());
    mbr.resize(0x1FE, 0);
    mbr.extend([0x55, 0xAA]);

    let mut a = CodeAssembler::new(16)?;
    let [mut say, mut said, mut hexadecimal, mut digit, mut character] = std::array::from_fn(|_| a.create_label());
    a.mov(bl, dl)?;
    a.call(hexadecimal)?;
    a.push(dx)?;
    a.mov(ah, 8)?;
    a.int(0x13)?;
    a.push(cx)?;
    for register in [dh, dl] {
        a.mov(bl, register)?;
        a.call(hexadecimal)?;
    }
    a.pop(cx)?;
    for register in [ch, cl] {
        a.mov(bl, register)?;
        a.call(hexadecimal)?;
    }
    // The last track but its first sector, which begins in the middle of one of the CD's.
    a.pop(dx)?;
    a.push(0)?;
    a.pop(es)?;
    a.mov(dh, u32::from(HEADS - 1))?;
    a.mov(cx, u32::from(CYLINDERS - 1) << 8 | 2)?;
    a.mov(bx, 0x9000)?;
    a.mov(ax, 0x0200 | u32::from(SECTORS - 1))?;
    a.int(0x13)?;
    a.mov(bl, al)?;
    a.call(hexadecimal)?;
    a.mov(si, 0x9000)?;
    a.call(say)?;
    a.mov(al, 0x12)?;
    a.out(0xF4, al)?;
    // The string at SI.
    a.set_label(&mut say)?;
    a.lodsb()?;
    a.test(al, al)?;
    a.jz(said)?;
    a.call(character)?;
    a.jmp(say)?;
    a.set_label(&mut said)?;
    a.ret()?;
    // Two digits for BL.
    a.set_label(&mut hexadecimal)?;
    a.mov(al, bl)?;
    a.shr(al, 4)?;
    a.call(digit)?;
    a.mov(al, bl)?;
    a.and(al, 15)?;
    a.set_label(&mut digit)?;
    a.add(al, i32::from(b'0'))?;
    a.cmp(al, i32::from(b'9'))?;
    a.jbe(character)?;
    a.add(al, 7)?;
    a.set_label(&mut character)?;
    a.push(dx)?;
    a.mov(ah, 1)?;
    a.xor(dx, dx)?;
    a.int(0x14)?;
    a.pop(dx)?;
    a.ret()?;
    let boot_sector = a.assemble(0x7C00)?;

    let mut disk = mbr;
    disk.resize(sectors as usize * 512, 0);
    disk[TRACK..TRACK + boot_sector.len()].copy_from_slice(&boot_sector);
    disk[TRACK + 0x1FE..TRACK + 0x200].copy_from_slice(&[0x55, 0xAA]);
    let text = [b'.'; TRACK - 512 - 14].iter().chain(b" the last one\0").copied().collect::<Vec<u8>>();
    let last = disk.len() - text.len();
    disk[last..].copy_from_slice(&text);
    Ok(disk)
}

/// A CD whose boot image is a hard disk, beside a real disk, which moves on.
#[test]
fn cd_that_emulates_a_hard_disk_boots() {
    let folder = Folder::new("hard-disk-cd");
    let (tree, disc, disk) = (folder.0.join("tree"), folder.0.join("cd.iso"), folder.0.join("disk"));
    fs::create_dir_all(&tree).expect("a folder");
    fs::write(tree.join("disk.img"), bootable_disk().expect("it can be encoded")).expect("a file");
    fs::write(&disk, vec![0; 10 << 20]).expect("a file");
    let options = "-as mkisofs -quiet -b disk.img -c boot.cat -hard-disk-boot -o";
    let made = Command::new("xorriso").args(options.split(' ')).arg(&disc).arg(&tree).output();
    let made = made.expect("xorriso (package xorriso)");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // Drive 80h; last head 3, 2 disks, last cylinder 11, 9 sectors; 8 sectors were read. SeaBIOS counts the image's drive twice, and keeps
    // the last cylinder to itself.
    for (bios, told) in [(Firmware::BuiltIn, "8003020B0908."), (Firmware::SeaBios, "8003030A0908.")] {
        let converse = || -> Result<(), GuestError> {
            let machine = machine()?;
            let told = if let Machine::Qemu = machine { "8003030A0908." } else { told };
            let mut command = machine.command();
            command.args(bios.arguments()?).args(["-boot", "d", "-cdrom"]).arg(&disc).arg("-hda").arg(&disk);
            command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
            let mut guest = Guest::start(&mut command, GRUB_LIMIT)?;
            guest.expect(told)?;
            guest.expect("... the last one")?;
            assert_eq!(guest.wait()?.code(), Some(0x12 << 1 | 1), "{}", guest.errors());
            Ok(())
        };
        converse().unwrap_or_else(|error| panic!("{error}"));
    }
}

/// How a kernel that starts in protected mode is told things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Multiboot,
    Pvh,
}

/// An ELF file whose code writes command line and first module, which ends with a zero, to COM1, and leaves by isa-debug-exit with the MiB of the
/// RAM that the memory map has at 1 MiB; with FFh if anything is wrong.
fn protected_kernel(protocol: Protocol) -> Result<Vec<u8>, IcedError> {
    const START: u32 = 0x10_0000;
    const HEADER: u32 = 12;
    let mut a = CodeAssembler::new(32)?;
    let [mut next, mut found, mut failed, mut say, mut wait, mut said] = std::array::from_fn(|_| a.create_label());
    a.mov(esp, 0x8_0000)?;
    // Where the structure has the command line, the list of modules, the map.
    let (line, modules, map) = match protocol {
        Protocol::Multiboot => {
            a.cmp(eax, 0x2BAD_B002)?;
            (16, 24, 48)
        }
        Protocol::Pvh => {
            a.cmp(dword_ptr(ebx), 0x336E_C578)?;
            (24, 16, 40)
        }
    };
    a.jne(failed)?;
    a.mov(esi, dword_ptr(ebx + line))?;
    a.call(say)?;
    a.mov(esi, dword_ptr(ebx + modules))?;
    a.mov(esi, dword_ptr(esi))?;
    a.call(say)?;
    if protocol == Protocol::Pvh {
        a.mov(esi, dword_ptr(ebx + 32))?;
        a.cmp(dword_ptr(esi), u32::from_le_bytes(*b"RSD "))?;
        a.jne(failed)?;
    }
    a.mov(esi, dword_ptr(ebx + map))?;
    // Entries of 24 bytes in both; Multiboot's begin with their size.
    let (bytes, address) = if protocol == Protocol::Multiboot { (44, 4) } else { (48, 0) };
    a.mov(ecx, dword_ptr(ebx + bytes))?;
    if protocol == Protocol::Pvh {
        a.imul_3(ecx, ecx, 24)?;
    }
    a.set_label(&mut next)?;
    a.cmp(dword_ptr(esi + address), START)?;
    a.je(found)?;
    a.add(esi, 24)?;
    a.sub(ecx, 24)?;
    a.ja(next)?;
    a.set_label(&mut failed)?;
    a.mov(al, 0xFFu32)?;
    a.out(0xF4, al)?;
    a.set_label(&mut found)?;
    a.mov(eax, dword_ptr(esi + address + 8))?;
    a.shr(eax, 20)?;
    a.out(0xF4, al)?;
    a.set_label(&mut say)?;
    a.lodsb()?;
    a.test(al, al)?;
    a.jz(said)?;
    a.mov(ah, al)?;
    a.mov(dx, 0x3FD)?;
    a.set_label(&mut wait)?;
    a.in_(al, dx)?;
    a.test(al, 0x20)?;
    a.jz(wait)?;
    a.mov(al, ah)?;
    a.mov(dx, 0x3F8)?;
    a.out(dx, al)?;
    a.jmp(say)?;
    a.set_label(&mut said)?;
    a.ret()?;
    let code = a.assemble(u64::from(START + HEADER))?;

    let magic = if protocol == Protocol::Multiboot { 0x1BAD_B002u32 } else { 0 };
    let mut contents: Vec<u8> = [magic, 0, 0u32.wrapping_sub(magic)].map(u32::to_le_bytes).concat();
    contents.extend(code);
    let note = [&[4u32, 4, 18].map(u32::to_le_bytes).concat()[..], b"Xen\0", &(START + HEADER).to_le_bytes()].concat();
    // The header; a segment to load, with 16 KiB of zeros behind it; the note.
    let (file, size) = (52 + 2 * 32, contents.len() as u32);
    let mut elf = b"\x7FELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    elf.extend([1, START + HEADER, 52, 0, 0].map(u32::to_le_bytes).concat());
    elf.extend([52u16, 32, 2, 0, 0, 0].map(u16::to_le_bytes).concat());
    elf.extend([1, file, START, START, size, size + 0x4000, 7, 4].map(u32::to_le_bytes).concat());
    elf.extend([4, file + size, 0, 0, note.len() as u32, note.len() as u32, 4, 4].map(u32::to_le_bytes).concat());
    elf.extend(contents);
    elf.extend(note);
    Ok(elf)
}

#[test]
fn kernels_that_start_in_protected_mode_boot_through_firmware() {
    let folder = Folder::new("protected-kernel");
    let (kernel, module) = (folder.0.join("kernel"), folder.0.join("module"));
    fs::write(&module, b" It has a module.\0").expect("a file");
    for protocol in [Protocol::Multiboot, Protocol::Pvh] {
        fs::write(&kernel, protected_kernel(protocol).expect("it can be encoded")).expect("a file");
        for bios in [Firmware::BuiltIn, Firmware::SeaBios] {
            let converse = || -> Result<(), GuestError> {
                let mut command = machine()?.command();
                firmware_from_file(bios, &folder.0, &mut command)?;
                command.arg("-kernel").arg(&kernel).arg("-initrd").arg(&module).args(["-m", "64"]);
                command.args(["-append", "through firmware.", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
                let mut guest = Guest::start(&mut command, GRUB_LIMIT)?;
                guest.expect("through firmware. It has a module.")?;
                // Firmware keeps something at the end of the 63 MiB.
                assert_eq!(guest.wait()?.code(), Some(62 << 1 | 1), "{protocol:?}: {}", guest.errors());
                Ok(())
            };
            converse().unwrap_or_else(|error| panic!("{protocol:?}: {error}"));
        }
    }
}
