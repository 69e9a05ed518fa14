//! Text modes: characters from plane 0, attributes from plane 1, fonts from plane 2.
//!
//! ```text
//!  source word:  24 ninth dot | 23..16 dots | 15..8 attribute | 7..0 character
//! ```

use super::scan::{Line, Scan};
use super::{CursorPlace, Phase, VideoMemory};
use crate::video::vga::state::VgaState;
use crate::video::{Cell, TextScreen};

/// A text mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Which addresses.
    pub scan: Scan,
    fonts: [usize; 2],
    nine_dots: bool,
    line_graphics: bool,
    blink: bool,
    underline: u8,
    palette: [u8; 16],
    /// Not part of what all lines have in common, but of where the source is gathered from.
    cursor: Cursor,
}

/// The cursor. Moving it changes lines, not the picture, so that all are equal.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    location: u16,
    rows: Option<(u8, u8)>,
}

impl PartialEq for Cursor {
    fn eq(&self, _: &Cursor) -> bool {
        true
    }
}

impl Eq for Cursor {}

impl Text {
    /// The mode that the registers describe.
    pub fn new(state: &VgaState, scan: Scan) -> Text {
        Text {
            scan,
            fonts: state.sequencer.fonts(),
            nine_dots: state.sequencer.character_dots() == 9,
            line_graphics: state.attribute.line_graphics(),
            blink: state.attribute.blink(),
            underline: state.crtc.underline(),
            palette: state.attribute.palette(),
            cursor: Cursor { location: state.crtc.cursor_location(), rows: state.crtc.cursor_rows() },
        }
    }

    /// Where the cursor is and which rows of dots it has, if any.
    pub fn cursor(&self) -> Option<CursorPlace> {
        self.cursor.rows.map(|rows| (self.cursor.location, rows))
    }

    /// The source of `line`.
    pub fn gather(&self, line: Line, phase: Phase, planes: &[u8], words: &mut [u32]) {
        let cursor = self.cursor.rows.filter(|(first, last)| phase.cursor && (*first..=*last).contains(&line.row));
        let cursor = cursor.map(|_| usize::from(self.cursor.location.wrapping_sub(line.counter)));
        for (column, word) in words.iter_mut().enumerate() {
            let at = 4 * self.scan.address(line, column);
            let (character, attribute) = (planes[at], planes[at + 1]);
            let font = self.fonts[usize::from(attribute >> 3 & 1)];
            let glyph = font + 32 * usize::from(character) + usize::from(line.row);
            let mut dots = planes[4 * glyph + 2];
            let mut ninth = self.line_graphics && (0xc0..0xe0).contains(&character) && dots & 1 != 0;
            if attribute & 7 == 1 && line.row == self.underline {
                (dots, ninth) = (0xff, true);
            }
            if self.blink && attribute & 0x80 != 0 && !phase.blink {
                (dots, ninth) = (0, false);
            }
            if cursor == Some(column) {
                (dots, ninth) = (0xff, true);
            }
            *word = u32::from_le_bytes([character, attribute, dots, ninth.into()]);
        }
    }

    /// The colours in the DAC of the dots of `words`.
    pub fn draw(&self, words: &[u32], indices: &mut Vec<u8>) {
        indices.clear();
        let backgrounds = if self.blink { 7 } else { 15 };
        for word in words {
            let [_, attribute, dots, ninth] = word.to_le_bytes();
            let foreground = self.palette[usize::from(attribute & 15)];
            let background = self.palette[usize::from(attribute >> 4 & backgrounds)];
            let colour = |on: bool| if on { foreground } else { background };
            indices.extend((0..8).rev().map(|bit| colour(dots >> bit & 1 != 0)));
            if self.nine_dots {
                indices.push(colour(ninth != 0));
            }
        }
    }

    /// The characters of a screen of `height` lines.
    pub fn screen(&self, height: usize, memory: &impl VideoMemory) -> TextScreen {
        let row_height = self.scan.row_height();
        let lines = self.scan.lines(height);
        let (columns, rows) = (self.scan.columns, (height / row_height).max(1));
        let mut screen = TextScreen { columns, rows, blink: self.blink, ..TextScreen::default() };
        for (row, line) in lines.iter().step_by(row_height).take(rows).enumerate() {
            for column in 0..columns {
                let mut bytes = [0; 2];
                memory.read(4 * self.scan.address(*line, column), &mut bytes);
                screen.cells.push(Cell { character: bytes[0], attribute: bytes[1] });
            }
            let cursor = usize::from(self.cursor.location.wrapping_sub(line.counter));
            if cursor < columns && self.cursor.rows.is_some() {
                screen.cursor = Some((cursor, row));
            }
        }
        screen
    }
}
