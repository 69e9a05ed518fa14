//! Graphics modes: the shift registers and the attribute controller.

use super::Phase;
use crate::video::vga::graphics::ShiftMode;
use crate::video::vga::state::VgaState;

/// How a word of four planes becomes eight dots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dots {
    shift: ShiftMode,
    eight_bits: bool,
    palette: [u8; 16],
}

impl Dots {
    /// As the registers say.
    pub fn new(state: &VgaState, phase: Phase) -> Dots {
        let mut palette = state.attribute.palette();
        if state.attribute.blink() && !phase.blink {
            // Dots of plane 3 lose its bit every other time.
            palette.copy_within(0..8, 8);
        }
        let vbe = state.vbe.enabled();
        Dots {
            shift: if vbe { ShiftMode::Planar } else { state.graphics.shift_mode() },
            eight_bits: state.attribute.eight_bit_colour() && !vbe,
            palette,
        }
    }

    /// The colours in the DAC of the dots of `words`.
    pub fn draw(&self, words: &[u32], indices: &mut Vec<u8>) {
        indices.clear();
        for word in words {
            let groups = self.groups(*word);
            indices.extend(match self.eight_bits {
                true => std::array::from_fn(|i| groups[i & !1] << 4 | groups[i | 1]),
                false => groups.map(|group| self.palette[usize::from(group)]),
            });
        }
    }

    /// Eight groups of four bits.
    fn groups(&self, word: u32) -> [u8; 8] {
        let planes = word.to_le_bytes();
        std::array::from_fn(|i| match self.shift {
            ShiftMode::Planar => (0..4).fold(0, |group, plane| group | (planes[plane] >> (7 - i) & 1) << plane),
            ShiftMode::Interleaved => {
                let shift = 6 - 2 * (i & 3);
                (planes[i >> 2] >> shift & 3) | (planes[2 + (i >> 2)] >> shift & 3) << 2
            }
            ShiftMode::Packed => planes[i >> 1] >> (4 * (!i & 1)) & 0x0f,
        })
    }
}
