//! VBE modes with a pixel in one, two, three or four neighbouring bytes.

use crate::video::vga::vbe::Depth;

/// Where the pixels are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Offset of the first pixel.
    pub start: usize,
    /// Bytes from row to row.
    pub pitch: usize,
    /// Their format; never [`Depth::Planar4`].
    pub depth: Depth,
}

/// Five bits to eight.
fn widen_5(value: u32) -> u32 {
    value << 3 | value >> 2
}

/// Six bits to eight.
fn widen_6(value: u32) -> u32 {
    value << 2 | value >> 4
}

impl Packed {
    /// Words that `width` pixels take.
    pub fn words(&self, width: usize) -> usize {
        (width * self.depth.bits()).div_ceil(32)
    }

    /// Draws a row of `words`.
    pub fn draw(&self, words: &[u32], palette: &[u32; 256], pixels: &mut [u32]) {
        let byte = |i: usize| words[i / 4] >> (8 * (i % 4)) & 0xff;
        for (x, pixel) in pixels.iter_mut().enumerate() {
            *pixel = match self.depth {
                Depth::Planar4 | Depth::Indexed8 => palette[byte(x) as usize],
                Depth::Rgb555 => {
                    let v = words[x / 2] >> (16 * (x % 2));
                    widen_5(v >> 10 & 0x1f) << 16 | widen_5(v >> 5 & 0x1f) << 8 | widen_5(v & 0x1f)
                }
                Depth::Rgb565 => {
                    let v = words[x / 2] >> (16 * (x % 2));
                    widen_5(v >> 11 & 0x1f) << 16 | widen_6(v >> 5 & 0x3f) << 8 | widen_5(v & 0x1f)
                }
                Depth::Rgb888 => byte(3 * x + 2) << 16 | byte(3 * x + 1) << 8 | byte(3 * x),
                Depth::Xrgb8888 => words[x] & 0xff_ffff,
            };
        }
    }
}
