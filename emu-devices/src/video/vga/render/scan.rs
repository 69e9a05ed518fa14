//! Which addresses make up each line: row scan and address counters, panning, split screen.

use crate::video::vga::crtc::Addressing;
use crate::video::vga::state::VgaState;

/// What the CRT controller does alike for characters and dots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Characters in a line.
    pub columns: usize,
    /// Dots of a character.
    dots: usize,
    /// Pixels of a dot.
    pub dot_width: usize,
    start: u16,
    row_offset: u16,
    preset_row: u8,
    last_row: u8,
    doubled: bool,
    line_compare: usize,
    pan: usize,
    split_is_not_panned: bool,
    addressing: Addressing,
}

/// What one line shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Address counter at its first character.
    pub counter: u16,
    /// Row scan counter.
    pub row: u8,
    /// Dots that are cut off at the left.
    pub pan: usize,
}

impl Scan {
    /// The scan that the registers describe.
    pub fn new(state: &VgaState) -> Scan {
        let crtc = &state.crtc;
        let dots = if state.graphics.graphics_mode() { 8 } else { state.sequencer.character_dots() };
        Scan {
            columns: crtc.columns(),
            dots,
            dot_width: if state.sequencer.half_dot_clock() { 2 } else { 1 },
            start: crtc.start_address().wrapping_add(crtc.byte_panning().into()),
            row_offset: crtc.row_offset(),
            preset_row: crtc.preset_row_scan(),
            last_row: crtc.maximum_scan_line(),
            doubled: crtc.doubled(),
            line_compare: crtc.line_compare(),
            pan: state.attribute.panning(dots),
            split_is_not_panned: state.attribute.split_is_not_panned(),
            addressing: if state.sequencer.chain_4() { crtc.packed_addressing() } else { crtc.addressing() },
        }
    }

    /// Pixels of a line.
    pub fn width(&self) -> usize {
        self.columns * self.dots * self.dot_width
    }

    /// Lines of a character row.
    pub fn row_height(&self) -> usize {
        (usize::from(self.last_row) + 1) << u32::from(self.doubled)
    }

    /// The first `height` lines of a frame.
    pub fn lines(&self, height: usize) -> Vec<Line> {
        let mut line = Line { counter: self.start, row: self.preset_row, pan: self.pan };
        let mut second = false;
        (0..height)
            .map(|y| {
                let shown = line;
                if self.doubled && !second {
                    second = true;
                } else {
                    second = false;
                    if line.row == self.last_row {
                        line.row = 0;
                        line.counter = line.counter.wrapping_add(self.row_offset);
                    } else {
                        // Five bits: a preset behind the last row takes the long way round.
                        line.row = (line.row + 1) & 0x1f;
                    }
                }
                if y == self.line_compare {
                    line = Line { counter: 0, row: 0, pan: if self.split_is_not_panned { 0 } else { self.pan } };
                    second = false;
                }
                shown
            })
            .collect()
    }

    /// The address in the planes of character `column` of `line`.
    #[inline]
    pub fn address(&self, line: Line, column: usize) -> usize {
        self.addressing.address(line.counter, column, line.row)
    }

    /// The four planes' bytes along `line`.
    pub fn gather(&self, line: Line, planes: &[u8], words: &mut [u32]) {
        for (column, word) in words.iter_mut().enumerate() {
            let at = 4 * self.address(line, column);
            *word = planes[at..at + 4].iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
    }
}
