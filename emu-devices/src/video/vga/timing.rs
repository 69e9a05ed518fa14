//! Where the beam is: from the dot clock, the CRT controller's totals and virtual time.
//!
//! ```text
//!   0      display     retrace     total
//!   +---------+---------+-----+------+   lines, and in each the characters displayed and blank
//! ```
//! Frames are counted from power-on, so that a mode change may cut one short. Modes of the VBE interface, which has no
//! timing, are shown 60 times a second.

use super::state::VgaState;
use emu_core::clock::Instant;

/// Miscellaneous output, bits 2 and 3: Hz. The last two are external on IBM's card and nothing here.
const DOT_CLOCKS: [u64; 4] = [25_175_000, 28_322_000, 25_175_000, 25_175_000];

/// A frame's timing. Horizontal values are periods of the dot clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    clock: u64,
    line: u64,
    displayed: u64,
    lines: u64,
    displayed_lines: u64,
    retrace: u64,
    retrace_lines: u64,
}

/// The beam at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beam {
    /// In a part of the frame that is displayed.
    pub displaying: bool,
    /// In vertical retrace.
    pub vertical_retrace: bool,
}

impl Timing {
    /// The timing that the registers describe.
    pub fn new(state: &VgaState) -> Timing {
        if let Some(mode) = state.vbe.mode() {
            let (width, height) = (mode.width as u64, mode.height as u64);
            let (line, lines) = (width + width / 4, height + height / 20 + 3);
            let retrace = height + 1;
            return Timing {
                clock: 60 * line * lines,
                line,
                displayed: width,
                lines,
                displayed_lines: height,
                retrace,
                retrace_lines: 2,
            };
        }
        let crtc = &state.crtc;
        let text = !state.graphics.graphics_mode();
        let character = if text { state.sequencer.character_dots() } else { 8 } as u64;
        let character = if state.sequencer.half_dot_clock() { 2 * character } else { character };
        let (retrace, retrace_lines) = crtc.vertical_retrace();
        Timing {
            clock: DOT_CLOCKS[usize::from(state.misc >> 2 & 3)],
            line: crtc.horizontal_total() as u64 * character,
            displayed: crtc.columns() as u64 * character,
            lines: crtc.vertical_total() as u64,
            displayed_lines: crtc.lines() as u64,
            retrace: retrace as u64,
            retrace_lines: retrace_lines as u64,
        }
    }

    /// Dot clocks of a frame.
    fn frame(&self) -> u64 {
        self.line * self.lines
    }

    /// Where the beam is at `now`.
    pub fn beam(&self, now: Instant) -> Beam {
        let dot = now.ticks(self.clock) % self.frame();
        let (line, column) = (dot / self.line, dot % self.line);
        Beam {
            displaying: line < self.displayed_lines && column < self.displayed,
            vertical_retrace: line >= self.retrace && line - self.retrace < self.retrace_lines,
        }
    }

    /// Frames that have begun before `now`.
    pub fn frames(&self, now: Instant) -> u64 {
        now.ticks(self.clock) / self.frame()
    }

    /// Vertical retraces that have begun until `now`.
    pub fn retraces(&self, now: Instant) -> u64 {
        if self.retrace >= self.lines {
            return 0;
        }
        let first = self.retrace * self.line;
        (now.ticks(self.clock) + self.frame() - first) / self.frame()
    }
}
