//! Video: what a graphics card shows, as front ends see it, and the cards.
//!
//! A card is a [`emu_core::device::Device`] on the machine's thread; its [`Display`] is a handle on the same state that
//! front ends call from theirs, whenever they want a picture. Nothing is pushed, so that a card without viewers costs
//! nothing.

pub mod vga;

use emu_core::clock::Instant;
use std::ops::Range;

/// The most pixels in a row of a [`Frame`].
pub const MAX_WIDTH: usize = 2560;
/// The most rows of a [`Frame`].
pub const MAX_HEIGHT: usize = 1600;

/// What a graphics card is built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VgaConfig {
    /// Bytes of video memory: a power of two from 1 MiB to 256 MiB.
    pub memory: u32,
    /// The image in the expansion ROM: a VGA BIOS. `None`: no ROM.
    pub rom: Option<Vec<u8>>,
    /// The font that the board loads when it starts a kernel without firmware: 16 bytes for each of 256 characters. Empty:
    /// none.
    pub font: Vec<u8>,
}

impl Default for VgaConfig {
    /// 16 MiB, no ROM and no font.
    fn default() -> VgaConfig {
        VgaConfig { memory: 16 << 20, rom: None, font: Vec::new() }
    }
}

/// One picture as a monitor shows it: `width * height` pixels `0x00RRGGBB` in rows from the top.
///
/// Each viewer keeps its own frame and gives it to [`Display::refresh`] again and again. Begin with `Frame::default()`; what
/// is not public tells the card what this frame shows already.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// Pixels in a row, at most [`MAX_WIDTH`].
    pub width: usize,
    /// Rows, at most [`MAX_HEIGHT`].
    pub height: usize,
    /// The pixels. To be left alone between refreshes.
    pub pixels: Vec<u32>,
    shadow: vga::render::Shadow,
}

/// What of a frame has changed since it was refreshed last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Nothing.
    None,
    /// Some or all pixels of these rows; size and all other rows are as they were.
    Lines(Range<usize>),
    /// Everything, perhaps the size too.
    All,
}

/// A character of a text screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// In the guest's font: code page 437 unless the guest loads another.
    pub character: u8,
    /// Foreground in bits 0 to 3, background in bits 4 to 6 or, if characters cannot blink, 4 to 7.
    pub attribute: u8,
}

/// A text mode as characters, for terminals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextScreen {
    /// Characters in a row.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
    /// `columns * rows` characters in rows from the top.
    pub cells: Vec<Cell>,
    /// Column and row of the cursor, if it is on and on the screen.
    pub cursor: Option<(usize, usize)>,
    /// Bit 7 of attributes makes the character blink instead of brightening its background.
    pub blink: bool,
}

/// What a graphics card shows. Called from other threads than the machine's.
pub trait Display: Send + Sync {
    /// Brings `frame` up to date with the picture at virtual time `now`, on which blinking depends.
    fn refresh(&self, now: Instant, frame: &mut Frame) -> Damage;
    /// The characters, if the card is in a text mode.
    fn text(&self) -> Option<TextScreen>;
}
