use super::{BIOS, LINUXBOOT, MULTIBOOT, VGA_BIOS};
use iced_x86::{Code, Decoder, DecoderOptions};

/// The byte at F000:`offset`.
const F000: usize = 0x10000;

#[test]
fn reset_vector_jumps_into_the_image() {
    assert_eq!(BIOS.len(), 0x20000);
    let jump = Decoder::with_ip(16, &BIOS[F000 + 0xFFF0..], 0xFFF0, DecoderOptions::NONE).decode();
    assert_eq!(jump.code(), Code::Jmp_ptr1616);
    assert_eq!(jump.far_branch_selector(), 0xE000);
    assert_ne!(BIOS[usize::from(jump.far_branch16())], 0);
}

#[test]
fn entry_points_jump_below_the_fixed_area() {
    for offset in [0xE3FEu16, 0xE6F2, 0xE739, 0xE82E, 0xE987, 0xEFD2, 0xF841, 0xF84D, 0xF859, 0xFE6E, 0xFEA5, 0xFF54] {
        let jump =
            Decoder::with_ip(16, &BIOS[F000 + usize::from(offset)..], offset.into(), DecoderOptions::NONE).decode();
        assert_eq!(jump.code(), Code::Jmp_rel16, "{offset:04X}");
        assert!(jump.near_branch16() < 0xE000, "{offset:04X}");
    }
}

#[test]
fn option_roms_have_signature_length_and_checksum() {
    for image in [VGA_BIOS, LINUXBOOT, MULTIBOOT] {
        assert_eq!(image[..2], [0x55, 0xAA]);
        assert_eq!(image.len(), usize::from(image[2]) * 512);
        assert_eq!(sum(image), 0);
    }
}

#[test]
fn roms_that_start_kernels_have_a_boot_entry_and_a_name() {
    for (rom, name) in [(LINUXBOOT, &b"Linux kernel"[..]), (MULTIBOOT, b"Multiboot")] {
        let word = |at: usize| usize::from(u16::from_le_bytes([rom[at], rom[at + 1]]));
        let header = word(0x1A);
        assert_eq!(rom[header..header + 4], *b"$PnP");
        assert_eq!(sum(&rom[header..header + 32]), 0);
        assert!(rom[word(header + 0x10)..].starts_with(name));
        assert_eq!((word(header + 0x16), word(header + 0x1A)), (0, header + 32));
        assert_eq!(rom[6], 0xCB, "initialisation returns far");
    }
}

#[test]
fn tables_in_the_f_segment_have_good_checksums() {
    for (signature, checked) in [(b"$PnP", 33), (b"_32_", 16), (b"$PIR", 528), (b"_MP_", 16)] {
        let at = (F000..BIOS.len()).step_by(16).find(|at| BIOS[*at..].starts_with(signature)).unwrap();
        assert_eq!(sum(&BIOS[at..at + checked]), 0, "{signature:?}");
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}
