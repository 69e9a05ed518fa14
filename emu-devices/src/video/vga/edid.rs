//! What the monitor says about itself: VESA Enhanced EDID Standard, release A, revision 2 (EDID 1.4), one block.

/// Bytes of the block.
pub const SIZE: usize = 128;

/// Horizontal pixels and aspect ratio (0: 16:10, 1: 4:3, 2: 5:4, 3: 16:9) of the standard timings, all at 60 Hz.
const STANDARD: [(usize, u8); 8] =
    [(1920, 0), (1920, 3), (1680, 0), (1600, 1), (1440, 0), (1280, 2), (1280, 3), (1152, 1)];

/// A monitor that prefers 1280x800 at 60 Hz.
pub fn block() -> [u8; SIZE] {
    let mut block = [0; SIZE];
    block[1..7].fill(0xff);
    // Manufacturer "EMU": three letters of five bits. Product 1, no serial number.
    let letters = b"EMU".iter().fold(0u16, |code, letter| code << 5 | u16::from(letter - b'@'));
    block[8..10].copy_from_slice(&letters.to_be_bytes());
    block[10] = 1;
    // Model year 2024, EDID 1.4; digital input of 8 bits; 34 by 21 cm; gamma 2.2; sRGB, preferred timing is native.
    block[16..25].copy_from_slice(&[0xff, 34, 1, 4, 0xa5, 34, 21, 120, 0x06]);
    // Chromaticities of sRGB.
    block[25..35].copy_from_slice(&[0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54]);
    // 640x480, 800x600 and 1024x768 at 60 Hz.
    block[35..38].copy_from_slice(&[0x21, 0x08, 0x00]);
    for (i, (width, aspect)) in STANDARD.into_iter().enumerate() {
        block[38 + 2 * i..40 + 2 * i].copy_from_slice(&[(width / 8 - 31) as u8, aspect << 6]);
    }
    // CVT 1280x800: 83.5 MHz; blanks 400 and 31; syncs 72+128 and 3+6; 340 by 212 mm; negative, positive.
    block[54..72].copy_from_slice(&[
        0x9e, 0x20, 0x00, 0x90, 0x51, 0x20, 0x1f, 0x30, 0x48, 0x80, 0x36, 0x00, 0x54, 0xd4, 0x10, 0x00, 0x00, 0x1c,
    ]);
    // Range limits: 50 to 125 Hz, 30 to 160 kHz, 400 MHz.
    block[72..90].copy_from_slice(b"\0\0\0\xfd\0\x32\x7d\x1e\xa0\x28\x00\x0a      ");
    block[90..108].copy_from_slice(b"\0\0\0\xfc\0emu monitor\n ");
    block[111] = 0x10; // a dummy descriptor
    block[127] = block.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)).wrapping_neg();
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_sums_to_zero_and_names_its_maker() {
        let block = block();
        assert_eq!(block.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        assert_eq!(block[..8], [0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
        assert_eq!(block[8..10], [0x15, 0xb5]);
        assert_eq!(usize::from(block[56]) | usize::from(block[58] >> 4) << 8, 1280);
        assert_eq!(usize::from(block[59]) | usize::from(block[61] >> 4) << 8, 800);
    }
}
