//! INT 13h on floppy drives under QEMU, where it is installed; `guest` tells how.

mod guest;

use guest::{BUFFER, run_boot_floppy};
use iced_x86::code_asm::*;

/// A diskette's sectors behind the first: sector n, from 1, holds the word n over and over.
fn sectors(count: u16) -> Vec<u8> {
    (1..count).flat_map(|n| [n.to_le_bytes(); 256].concat()).collect()
}

/// Sectors of a track and drive type, for each size that QEMU has drives for.
const SIZES: [(u16, u16, u32); 3] = [(1440 * 2, 18, 4), (720 * 2, 9, 4), (2880 * 2, 36, 5)];

#[test]
fn boot_sector_reads_across_tracks_and_tells_the_drive() {
    for (size, track, kind) in SIZES {
        let Some((words, _)) = run_boot_floppy(&sectors(size), "", |p| {
            p.0.movzx(edx, dl)?;
            p.report(&[edx])?;
            // The last two sectors of track 0 and the first two of the next, which is the other side's; into DMA's next 64 KiB.
            p.0.mov(ax, 0x1000)?;
            p.0.mov(es, ax)?;
            p.0.mov(bx, 0xFC00)?;
            p.0.mov(ecx, u32::from(track) - 1)?;
            p.0.mov(dx, 0)?;
            p.call(0x13, 0x0204)?;
            p.report_carry()?;
            p.report(&[eax])?;
            p.0.mov(ax, es)?;
            p.0.mov(ds, ax)?;
            p.0.mov(eax, dword_ptr(0xFC00))?;
            p.report_eax()?;
            p.0.mov(ax, 0x2000)?;
            p.0.mov(ds, ax)?;
            p.0.mov(eax, dword_ptr(0x3FC))?;
            p.report_eax()?;
            p.0.xor(ebx, ebx)?;
            p.0.xor(ecx, ecx)?;
            p.0.xor(edx, edx)?;
            p.call(0x13, 0x0800)?;
            p.report_carry()?;
            p.report(&[ebx, ecx, edx])?;
            p.0.mov(dl, 0)?;
            p.call(0x13, 0x1500)?;
            p.report(&[eax])?;
            p.call(0x11, 0)?;
            p.report(&[eax])
        }) else {
            return;
        };
        let first = u32::from(track) - 2;
        assert_eq!(words[..3], [0, 0, 4], "{size}: {words:x?}");
        assert_eq!(words[3..5], [first * 0x1_0001, (first + 3) * 0x1_0001], "{size}");
        let last = if kind == 5 { 36 } else { 18 };
        assert_eq!(words[5..9], [0, kind, 79 << 8 | last, 0x0101], "{size}: {words:x?}");
        assert_eq!(words[9] >> 8, 2, "a change line");
        assert_eq!(words[10] & 0xC1, 1, "one drive");
    }
}

/// QEMU takes FORMAT TRACK without doing it, so only the status is looked at.
#[test]
fn floppy_is_written_verified_and_formatted() {
    let Some((words, disk)) = run_boot_floppy(&sectors(2880), "", |p| {
        p.0.mov(bx, BUFFER)?;
        p.0.mov(dword_ptr(BUFFER), 0xCAFE_BABEu32)?;
        p.0.mov(cx, 0x4F12)?;
        p.0.mov(dx, 0x100)?;
        p.call(0x13, 0x0301)?;
        p.report_carry()?;
        p.call(0x13, 0x0401)?;
        p.report_carry()?;
        p.report(&[eax])?;
        // The medium type, then cylinder 2, head 0: 18 IDs.
        p.0.mov(cx, 0x4F12)?;
        p.0.mov(dx, 0)?;
        p.call(0x13, 0x1800)?;
        p.report_carry()?;
        p.0.movzx(eax, byte_ptr(di + 4).es())?;
        p.report_eax()?;
        p.0.mov(ax, 0)?;
        p.0.mov(es, ax)?;
        for sector in 0..18 {
            p.0.mov(dword_ptr(BUFFER + 4 * sector), 0x0200_0002 | (sector + 1) << 16)?;
        }
        p.0.mov(cx, 0x0201)?;
        p.call(0x13, 0x0512)?;
        p.report_carry()
    }) else {
        return;
    };
    assert_eq!(words, [0, 0, 1, 0, 18, 0]);
    assert_eq!(disk[2879 * 512..][..4], [0xBE, 0xBA, 0xFE, 0xCA]);
}

#[test]
fn floppy_errors_have_their_status() {
    let Some((words, _)) = run_boot_floppy(&sectors(2880), ",readonly=on", |p| {
        p.0.mov(bx, BUFFER)?;
        // Sector 19, sector 0, head 2, no sectors, a protected medium, a buffer across 64 KiB, an unknown function, no drive.
        for (function, place, head, buffer) in [
            (0x0201, 19, 0, BUFFER),
            (0x0201, 0, 0, BUFFER),
            (0x0201, 1, 0x200, BUFFER),
            (0x0200, 1, 0, BUFFER),
            (0x0301, 1, 0, BUFFER),
            (0x0201, 1, 0, 0xFF00),
            (0x4100, 1, 0, BUFFER),
            (0x0201, 1, 1, BUFFER),
        ] {
            p.0.mov(cx, place)?;
            p.0.mov(dx, head)?;
            p.0.mov(bx, buffer)?;
            p.call(0x13, function)?;
            p.0.sbb(al, al)?;
            p.0.movzx(eax, ax)?;
            p.report_eax()?;
        }
        p.0.movzx(eax, byte_ptr(0x441))?;
        p.report_eax()
    }) else {
        return;
    };
    assert_eq!(words, [0x04FF, 0x04FF, 0x01FF, 0x01FF, 0x03FF, 0x09FF, 0x01FF, 0x80FF, 0x80]);
}
