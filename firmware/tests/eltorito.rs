//! INT 13h of a CD with boot images under QEMU, where it is installed; `guest` tells how.
//!
//! ```text
//!  sectors of 2 KiB:   16 primary volume descriptor   17 boot record   18 end of descriptors   19 boot catalog
//!                      20.. the program (no emulation)   30.. a hard disk   60.. a diskette
//! ```

mod guest;

use guest::{BUFFER, Program, program, run};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

const SECTOR: usize = 2048;
const CATALOG: u8 = 19;
const PROGRAM: u8 = 20;
const DISK: u8 = 30;
const DISKETTE: u8 = 60;
/// Geometry of the hard disk, as its partition tells it.
const HEADS: u8 = 4;
const SECTORS: u8 = 5;
const CYLINDERS: u8 = 5;
/// Sectors of 512 bytes of the program that are loaded.
const LOADED: u8 = 8;
/// Where the program keeps its packets.
const PACKET: u32 = 0x6000;

/// A boot sector that reports DL, the number of disks, and the first words of sectors 2 and 20 of its drive (the latter by CHS 0/3/5).
fn disk_boot_sector() -> Result<Vec<u8>, IcedError> {
    program(0x7C00, |p| {
        p.0.movzx(ecx, dl)?;
        p.report(&[ecx])?;
        p.0.push(dx)?;
        p.call(0x13, 0x0800)?;
        p.0.movzx(ecx, cx)?;
        p.0.movzx(edx, dx)?;
        p.report(&[ecx, edx])?;
        p.0.pop(dx)?;
        p.0.mov(ax, 0)?;
        p.0.mov(es, ax)?;
        for (sector, head) in [(2u32, 0u32), (5, 3)] {
            p.0.mov(cx, sector)?;
            p.0.mov(dh, head)?;
            p.0.mov(bx, BUFFER)?;
            p.call(0x13, 0x0201)?;
            p.report_carry()?;
            p.0.mov(eax, dword_ptr(BUFFER))?;
            p.report_eax()?;
        }
        Ok(())
    })
}

/// Sector n (from 0) is filled with `mark` plus n, but for the first one, which is `code`.
fn image(code: Vec<u8>, mark: u8, sectors: u8) -> Vec<u8> {
    let mut image: Vec<u8> = (0..sectors).flat_map(|n| [mark + n; 512]).collect();
    image[..512].fill(0);
    image[..code.len()].copy_from_slice(&code);
    image[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
    image
}

fn disc(write: impl FnOnce(&mut Program) -> Result<(), IcedError>) -> Vec<u8> {
    let mut disc = vec![0; 220 * SECTOR];
    let mut put = |sector: u8, offset: usize, bytes: &[u8]| {
        let at = SECTOR * usize::from(sector) + offset;
        disc[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(16, 0, b"\x01CD001\x01");
    put(17, 0, b"\x00CD001\x01EL TORITO SPECIFICATION");
    put(17, 0x47, &[CATALOG]);
    put(18, 0, b"\xffCD001\x01");
    // Validation entry, initial entry; a section with the other images.
    put(CATALOG, 0, &[1]);
    put(CATALOG, 0x1C, &[0xAA, 0x55, 0x55, 0xAA]);
    put(CATALOG, 0x20, &[0x88, 0, 0, 0, 0, 0, LOADED, 0, PROGRAM]);
    put(CATALOG, 0x40, &[0x91, 0, 2, 0]);
    put(CATALOG, 0x60, &[0x88, 4, 0, 0, 0, 0, 1, 0, DISK]);
    put(CATALOG, 0x80, &[0x88, 2, 0, 0, 0, 0, 1, 0, DISKETTE]);
    let code = program(0x7C00, write).expect("the program can be encoded");
    assert!(code.len() <= usize::from(LOADED) * 512, "the program has {} bytes", code.len());
    put(PROGRAM, 0, &code);
    let mut disk =
        image(disk_boot_sector().expect("the boot sector can be encoded"), 0x40, HEADS * SECTORS * CYLINDERS);
    // One partition, active, from the second track to the end.
    disk[0x1BE..0x1CE].copy_from_slice(&[
        0x80,
        1,
        1,
        0,
        6,
        HEADS - 1,
        SECTORS,
        CYLINDERS - 1,
        SECTORS,
        0,
        0,
        0,
        95,
        0,
        0,
        0,
    ]);
    put(DISK, 0, &disk);
    put(DISKETTE, 0, &image(vec![], 0x80, 72));
    disc
}

/// What the program reports that a CD with these images boots.
fn run_disc(drives: &[&str], write: impl FnOnce(&mut Program) -> Result<(), IcedError>) -> Option<Vec<u32>> {
    let options: Vec<_> = drives.iter().map(|&drive| ("-drive", drive)).collect();
    let cd = [("-drive", "file=cd.iso,format=raw,if=ide,index=2,media=cdrom"), ("-boot", "d")];
    run(&[&cd[..], &options[..]].concat(), &[("cd.iso", &disc(write)), ("hd.img", &[0x77; 512 * 2000])])
}

/// Fills in a specification packet for an image.
fn packet(p: &mut Program, media: u32, drive: u32, image: u8) -> Result<(), IcedError> {
    // Secondary channel, master; nothing of the rest but the block.
    p.0.mov(dword_ptr(PACKET), 0x0100_0013 | media << 8 | drive << 16)?;
    p.0.mov(dword_ptr(PACKET + 4), u32::from(image))?;
    for offset in [8, 12, 16] {
        p.0.mov(dword_ptr(PACKET + offset), 0)?;
    }
    p.0.mov(si, PACKET)
}

/// Reports CF and AH.
fn report_status(p: &mut Program) -> Result<(), IcedError> {
    p.report_carry()?;
    p.0.movzx(eax, ah)?;
    p.report_eax()
}

const DRIVE: &str = "file=hd.img,format=raw,if=ide,index=0";

#[test]
fn images_of_a_cd_come_and_go() {
    let Some(words) = run_disc(&[DRIVE], |p| {
        p.0.movzx(ebx, dl)?;
        p.report(&[ebx])?;
        // The catalog's first sector, from its section header on; and one that the drive has not got.
        p.0.mov(dword_ptr(PACKET), 0x0000_0108 | BUFFER << 16)?;
        p.0.mov(dword_ptr(PACKET + 4), 0)?;
        p.0.mov(si, PACKET)?;
        p.call(0x13, 0x4D00)?;
        report_status(p)?;
        p.0.mov(ebx, dword_ptr(BUFFER + 0x40))?;
        p.report(&[ebx])?;
        p.0.mov(word_ptr(PACKET + 6), 0x4000)?;
        p.call(0x13, 0x4D00)?;
        p.report_carry()?;
        // The hard disk, before which 80h is the real one.
        for present in [false, true, false] {
            if present {
                packet(p, 4, 0x80, DISK)?;
                p.call(0x13, 0x4A00)?;
                report_status(p)?;
            }
            p.0.mov(dx, 0x80)?;
            p.call(0x13, 0x0800)?;
            p.0.movzx(edx, dl)?;
            p.report(&[edx])?;
            p.0.mov(dx, 0x0080)?;
            p.0.mov(cx, 3)?;
            p.0.mov(bx, BUFFER)?;
            p.call(0x13, 0x0201)?;
            p.0.movzx(ebx, byte_ptr(BUFFER))?;
            p.report(&[ebx])?;
            if present {
                // The real one and the CD-ROM drive can still be reached.
                p.0.mov(dx, 0x0081)?;
                p.call(0x13, 0x1000)?;
                p.report_carry()?;
                p.0.mov(dx, 0x00E0)?;
                p.0.mov(bx, 0x55AA)?;
                p.call(0x13, 0x4100)?;
                p.report_carry()?;
                p.0.mov(dx, 0x0080)?;
                p.0.mov(si, PACKET + 0x20)?;
                p.call(0x13, 0x4B00)?;
                report_status(p)?;
                for offset in [0, 4, 8, 16] {
                    p.0.mov(eax, dword_ptr(PACKET + 0x20 + offset))?;
                    p.report_eax()?;
                }
            }
        }
        // The diskette comes while there is no such drive.
        packet(p, 2, 0, DISKETTE)?;
        p.call(0x13, 0x4A00)?;
        report_status(p)?;
        p.0.mov(dx, 0)?;
        p.0.mov(cx, 4)?;
        p.0.mov(bx, BUFFER)?;
        p.call(0x13, 0x0201)?;
        p.0.movzx(ebx, byte_ptr(BUFFER))?;
        p.report(&[ebx])?;
        // Not a drive of the image's; then all.
        p.0.mov(dx, 1)?;
        p.0.mov(si, PACKET + 0x20)?;
        p.call(0x13, 0x4B00)?;
        report_status(p)?;
        p.0.mov(dx, 0x7F)?;
        p.call(0x13, 0x4B00)?;
        report_status(p)
    }) else {
        return;
    };
    let (header, count) = (&words[..5], &words[5..]);
    assert_eq!(header, [0xE0, 0, 0, 0x0002_0091, 1]);
    assert_eq!(count[..4], [1, 0x77, 0, 0], "80h is the real disk, then the image");
    assert_eq!(count[4..8], [2, 0x42, 0, 0], "two disks, and the CD-ROM drive");
    let geometry = u32::from_le_bytes([CYLINDERS - 1, SECTORS, HEADS - 1, 0]);
    assert_eq!(count[8..10], [0, 0]);
    assert_eq!(count[10..13], [0x0180_0413, u32::from(DISK), 0]);
    assert_eq!(count[13] & 0xFF_FFFF, geometry);
    assert_eq!(count[14..16], [1, 0x77]);
    assert_eq!(count[16..], [0, 0, 0x83, 1, 1, 0, 0]);
}

#[test]
fn packets_that_make_no_sense_are_refused() {
    let Some(words) = run_disc(&[], |p| {
        // A size that is too small; media types that do not fit the drive or that there are not; a controller that is not there.
        for (media, drive, size, controller) in [
            (4u32, 0x80u32, 0x12u32, 1u32),
            (4, 0, 0x13, 1),
            (2, 0x80, 0x13, 1),
            (5, 0x80, 0x13, 1),
            (0, 0xE0, 0x13, 1),
            (4, 0x80, 0x13, 0),
        ] {
            packet(p, media, drive, DISK)?;
            p.0.mov(byte_ptr(PACKET), size)?;
            p.0.mov(byte_ptr(PACKET + 3), controller)?;
            p.call(0x13, 0x4A00)?;
            report_status(p)?;
        }
        // An image behind the disc's end; a sub-function that there is not; an image without signature cannot be booted.
        packet(p, 4, 0x80, DISK)?;
        p.0.mov(dword_ptr(PACKET + 4), 100_000)?;
        p.call(0x13, 0x4A00)?;
        p.report_carry()?;
        p.call(0x13, 0x4A01)?;
        p.report_carry()?;
        packet(p, 4, 0x80, DISK + 2)?;
        p.call(0x13, 0x4C00)?;
        report_status(p)
    }) else {
        return;
    };
    assert_eq!(words, [[1; 12].as_slice(), &[1; 4]].concat());
}

#[test]
fn hard_disk_image_is_booted_on_demand() {
    let Some(words) = run_disc(&[DRIVE], |p| {
        packet(p, 4, 0x80, DISK)?;
        p.0.mov(word_ptr(PACKET + 14), 1)?;
        p.call(0x13, 0x4C00)?;
        report_status(p)
    }) else {
        return;
    };
    assert_eq!(words, booted());
}

/// What `disk_boot_sector` reports: drive 80h, its geometry, two disks in all; sectors that are filled with their number.
fn booted() -> [u32; 7] {
    let last = u32::from(CYLINDERS - 1) << 8 | u32::from(SECTORS);
    [0x80, last, u32::from(HEADS - 1) << 8 | 2, 0, 0x4141_4141, 0, 0x4040_4040 + 19 * 0x0101_0101]
}
