//! From registers and memory to pixels.
//!
//! A picture is the part of the registers that decides what all lines have in common. For each line the *source* is
//! gathered, the words of memory that decide its dots; only lines whose source differs from the frame's shadow of it
//! are drawn. So writes need no tracking, whoever makes them. In text modes the source holds character, attribute, dots
//! of the font and cursor, so that all of them are noticed alike.

mod dots;
mod packed;
mod scan;
mod text;

use super::state::VgaState;
use super::timing::Timing;
use super::vbe::Depth;
use crate::video::{Damage, Frame, MAX_HEIGHT, MAX_WIDTH};
use dots::Dots;
use emu_core::clock::Instant;
use packed::Packed;
use scan::Scan;
pub use text::Text;

/// The size of the black picture without retraces: that of text mode.
const NO_SIGNAL: (usize, usize) = (720, 400);

/// Video memory: reads wrap at its end.
pub trait VideoMemory {
    /// Copies out from `offset`, which wraps.
    fn read(&self, offset: usize, bytes: &mut [u8]);
}

/// A text cursor's location and rows of dots.
type CursorPlace = (u16, (u8, u8));

/// What a frame shows, to tell what has changed since.
#[derive(Clone, Debug, Default)]
pub struct Shadow {
    picture: Option<Picture>,
    /// The sources of all lines, one after the other.
    source: Vec<u32>,
    /// A copy of the planes, and what they were before, when that was drawn.
    planes: Vec<u8>,
    before: Vec<u8>,
    /// What else lines were gathered from: the phase and the text cursor.
    gathered: Option<(Phase, Option<CursorPlace>)>,
}

/// What all lines have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    content: Content,
    palette: Box<[u32; 256]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    /// Black.
    Blank,
    Text(Text),
    /// The graphics modes of VGA and its forebears.
    Dots(Scan, Dots),
    /// VBE with 16 colours.
    Planar {
        start: usize,
        pitch: usize,
        pan: usize,
        dots: Dots,
    },
    Packed(Packed),
}

/// Whether what blinks is to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// The cursor.
    pub cursor: bool,
    /// Characters and dots.
    pub blink: bool,
}

impl Phase {
    /// At `now`: the cursor changes every 8 frames, characters every 16.
    pub fn new(state: &VgaState, now: Instant) -> Phase {
        let frames = Timing::new(state).frames(now);
        Phase { cursor: frames & 8 == 0, blink: frames & 16 == 0 }
    }
}

impl Picture {
    /// The picture that the registers describe.
    pub fn new(state: &VgaState, phase: Phase) -> Picture {
        let palette = Box::new(state.dac.palette(state.vbe.eight_bit_dac()));
        let dark = !state.attribute.screen_on() || state.sequencer.screen_off();
        if let Some(mode) = state.vbe.mode() {
            let (x, y) = mode.offset;
            let content = match mode.depth {
                _ if dark => Content::Blank,
                Depth::Planar4 => Content::Planar {
                    start: y * mode.pitch + x / 8 * 4,
                    pitch: mode.pitch,
                    pan: x % 8,
                    dots: Dots::new(state, phase),
                },
                depth => {
                    Content::Packed(Packed { start: y * mode.pitch + x * depth.bits() / 8, pitch: mode.pitch, depth })
                }
            };
            return Picture { width: mode.width, height: mode.height, content, palette };
        }
        if !state.crtc.running() {
            return Picture { width: NO_SIGNAL.0, height: NO_SIGNAL.1, content: Content::Blank, palette };
        }
        let scan = Scan::new(state);
        let (width, height) = (scan.width().min(MAX_WIDTH), state.crtc.lines().min(MAX_HEIGHT));
        let content = match state.graphics.graphics_mode() {
            _ if dark => Content::Blank,
            true => Content::Dots(scan, Dots::new(state, phase)),
            false => Content::Text(Text::new(state, scan)),
        };
        Picture { width, height, content, palette }
    }

    /// The text mode, if it is one, and its lines.
    pub fn text(&self) -> Option<(&Text, usize)> {
        match &self.content {
            Content::Text(text) => Some((text, self.height)),
            _ => None,
        }
    }

    /// Words of a line's source.
    fn stride(&self) -> usize {
        match &self.content {
            Content::Blank => 0,
            Content::Text(text) => text.scan.columns + 1,
            Content::Dots(scan, _) => scan.columns + 1,
            Content::Planar { .. } => self.width / 8 + 1,
            Content::Packed(packed) => packed.words(self.width),
        }
    }

    /// Brings `frame` up to date.
    pub fn draw(self, phase: Phase, memory: &impl VideoMemory, frame: &mut Frame) -> Damage {
        let (width, height, stride) = (self.width, self.height, self.stride());
        let mut shadow = std::mem::take(&mut frame.shadow);
        let same_size = (frame.width, frame.height) == (width, height) && frame.pixels.len() == width * height;
        let all = !same_size || shadow.picture.as_ref() != Some(&self);
        if all {
            (frame.width, frame.height) = (width, height);
            frame.pixels.clear();
            frame.pixels.resize(width * height, 0);
            shadow.source.clear();
            shadow.source.resize(stride * height, 0);
        }
        let lines = match &self.content {
            Content::Text(Text { scan, .. }) | Content::Dots(scan, _) => {
                std::mem::swap(&mut shadow.planes, &mut shadow.before);
                shadow.planes.resize(4 * super::state::PLANE, 0);
                memory.read(0, &mut shadow.planes);
                // Most often nothing has changed, and no line needs to be gathered to see it.
                let gathered = Some((phase, self.text().and_then(|(text, _)| text.cursor())));
                if !all && shadow.gathered == gathered && shadow.planes == shadow.before {
                    frame.shadow = shadow;
                    return Damage::None;
                }
                shadow.gathered = gathered;
                scan.lines(height)
            }
            _ => Vec::new(),
        };
        let mut source = vec![0; stride];
        let mut indices = Vec::new();
        let mut bytes = Vec::new();
        let mut changed: Option<(usize, usize)> = None;
        let drawn = if stride == 0 { 0 } else { height };
        for y in 0..drawn {
            let line = lines.get(y).copied().unwrap_or_default();
            match &self.content {
                Content::Blank => {}
                Content::Text(text) => text.gather(line, phase, &shadow.planes, &mut source),
                Content::Dots(scan, _) => scan.gather(line, &shadow.planes, &mut source),
                Content::Planar { start, pitch, .. } => gather(memory, start + y * pitch, &mut bytes, &mut source),
                Content::Packed(p) => gather(memory, p.start + y * p.pitch, &mut bytes, &mut source),
            }
            let old = &mut shadow.source[y * stride..(y + 1) * stride];
            if !all && *old == *source {
                continue;
            }
            old.copy_from_slice(&source);
            changed = Some((changed.map_or(y, |(first, _)| first), y));
            let pixels = &mut frame.pixels[y * width..(y + 1) * width];
            let (pan, dot_width) = match &self.content {
                Content::Blank => continue,
                Content::Packed(packed) => {
                    packed.draw(&source, &self.palette, pixels);
                    continue;
                }
                Content::Text(text) => {
                    text.draw(&source, &mut indices);
                    (line.pan, text.scan.dot_width)
                }
                Content::Dots(scan, dots) => {
                    dots.draw(&source, &mut indices);
                    (line.pan, scan.dot_width)
                }
                Content::Planar { pan, dots, .. } => {
                    dots.draw(&source, &mut indices);
                    (*pan, 1)
                }
            };
            let colours = indices.iter().skip(pan).map(|index| self.palette[usize::from(*index)]);
            if dot_width == 1 {
                pixels.iter_mut().zip(colours).for_each(|(pixel, colour)| *pixel = colour);
            } else {
                pixels.chunks_mut(dot_width).zip(colours).for_each(|(dot, colour)| dot.fill(colour));
            }
        }
        shadow.picture = Some(self);
        frame.shadow = shadow;
        match (all, changed) {
            (true, _) => Damage::All,
            (false, Some((first, last))) => Damage::Lines(first..last + 1),
            (false, None) => Damage::None,
        }
    }
}

/// Words of memory from byte `offset`.
fn gather(memory: &impl VideoMemory, offset: usize, bytes: &mut Vec<u8>, words: &mut [u32]) {
    bytes.resize(4 * words.len(), 0);
    memory.read(offset, bytes);
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
    }
}

#[cfg(test)]
mod tests;
