//! The CRT controller: IBM VGA/XGA Technical Reference, "CRT Controller Registers"; the two read-only registers behind
//! the documented ones are those of "Undocumented VGA" that software uses to read latches and the 3C0h flip-flop.
//!
//! ```text
//!  line counter --> row scan counter --> memory address counter --> byte, word, doubleword mode --> plane address
//! ```
//! Deliberately absent: skews, blanking registers (the picture is what is displayed, without border), the light pen.

use serde::{Deserialize, Serialize};

/// Register indices.
mod index {
    pub const HORIZONTAL_TOTAL: usize = 0x00;
    pub const HORIZONTAL_DISPLAY_END: usize = 0x01;
    pub const VERTICAL_TOTAL: usize = 0x06;
    pub const OVERFLOW: usize = 0x07;
    pub const PRESET_ROW_SCAN: usize = 0x08;
    pub const MAXIMUM_SCAN_LINE: usize = 0x09;
    pub const CURSOR_START: usize = 0x0a;
    pub const CURSOR_END: usize = 0x0b;
    pub const START_ADDRESS_HIGH: usize = 0x0c;
    pub const START_ADDRESS_LOW: usize = 0x0d;
    pub const CURSOR_LOCATION_HIGH: usize = 0x0e;
    pub const CURSOR_LOCATION_LOW: usize = 0x0f;
    pub const VERTICAL_RETRACE_START: usize = 0x10;
    pub const VERTICAL_RETRACE_END: usize = 0x11;
    pub const VERTICAL_DISPLAY_END: usize = 0x12;
    pub const OFFSET: usize = 0x13;
    pub const UNDERLINE_LOCATION: usize = 0x14;
    pub const MODE_CONTROL: usize = 0x17;
    pub const LINE_COMPARE: usize = 0x18;
}

/// Documented registers.
const REGISTERS: usize = 0x19;
/// Vertical retrace end, bit 7: registers 0 to 7 are write-protected, but for bit 4 of the overflow register.
const PROTECT: u8 = 0x80;
/// Vertical retrace end, bit 4: 0 clears the vertical interrupt and keeps it clear.
const INTERRUPT_RELEASED: u8 = 0x10;
/// Vertical retrace end, bit 5: 1 disables the vertical interrupt.
const INTERRUPT_DISABLED: u8 = 0x20;

/// The CRT controller's registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crtc {
    /// Address register, 3D4h.
    pub index: u8,
    registers: [u8; REGISTERS],
}

/// How the memory address counter becomes an address in the planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addressing {
    /// Doubleword, word or byte mode: the counter is shifted left by 2, 1 or 0.
    shift: u8,
    /// Word mode: the counter's bit that comes out at bit 0, 13 or 15.
    wrap_bit: u8,
    /// Row scan counter bits 0 and 1 replace address bits 13 and 14.
    replace: [bool; 2],
    /// The counter advances every 1, 2 or 4 characters: log2.
    count: u8,
}

impl Addressing {
    /// Each plane byte after another, whatever the row scan counter says.
    pub const LINEAR: Addressing = Addressing { shift: 0, wrap_bit: 15, replace: [false; 2], count: 0 };

    /// The address in the planes, 16 bits, of character `column` of a row that begins at `counter`, in row scan `row`.
    #[inline]
    pub fn address(self, counter: u16, column: usize, row: u8) -> usize {
        let counter = usize::from(counter.wrapping_add((column >> self.count) as u16));
        let mut address = match self.shift {
            0 => counter,
            1 => counter << 1 | counter >> self.wrap_bit & 1,
            _ => counter << 2 | counter >> 14 & 3,
        };
        for (i, replace) in self.replace.into_iter().enumerate() {
            if replace {
                let bit = 1 << (13 + i);
                address = address & !bit | if row >> i & 1 != 0 { bit } else { 0 };
            }
        }
        address & 0xffff
    }
}

impl Crtc {
    /// Reads the data register, 3D5h. `latch`: what the read map select register makes of the graphics controller's
    /// latches; `attribute`: index and flip-flop of the attribute controller.
    pub fn read(&self, latch: u8, attribute: (u8, bool)) -> u8 {
        match self.index {
            0x22 => latch,
            0x24 => u8::from(attribute.1) << 7,
            0x26 => attribute.0,
            index => self.registers.get(usize::from(index)).copied().unwrap_or(0),
        }
    }

    /// Writes the data register, 3D5h.
    pub fn write(&mut self, value: u8) {
        let index = usize::from(self.index);
        let protected = self.registers[index::VERTICAL_RETRACE_END] & PROTECT != 0;
        let Some(register) = self.registers.get_mut(index) else { return };
        *register = match index {
            index::OVERFLOW if protected => *register & !0x10 | value & 0x10,
            0..=index::OVERFLOW if protected => *register,
            // Bit 4 is reserved.
            index::MODE_CONTROL => value & 0xef,
            index::UNDERLINE_LOCATION => value & 0x7f,
            index::PRESET_ROW_SCAN | index::CURSOR_END => value & 0x7f,
            index::CURSOR_START => value & 0x3f,
            _ => value,
        };
    }

    /// A ten-bit vertical value: its low byte, and the bits of the overflow register that are its bits 8 and 9.
    fn vertical(&self, low: usize, bit_8: u8, bit_9: u8) -> usize {
        let overflow = usize::from(self.registers[index::OVERFLOW]);
        usize::from(self.registers[low]) | (overflow >> bit_8 & 1) << 8 | (overflow >> bit_9 & 1) << 9
    }

    /// Vertical values count in this many lines.
    fn line_unit(&self) -> usize {
        if self.registers[index::MODE_CONTROL] & 4 != 0 { 2 } else { 1 }
    }

    /// Characters in a line with its blanks.
    pub fn horizontal_total(&self) -> usize {
        usize::from(self.registers[index::HORIZONTAL_TOTAL]) + 5
    }

    /// Characters that are displayed.
    pub fn columns(&self) -> usize {
        usize::from(self.registers[index::HORIZONTAL_DISPLAY_END]) + 1
    }

    /// Lines in a frame with its blanks.
    pub fn vertical_total(&self) -> usize {
        (self.vertical(index::VERTICAL_TOTAL, 0, 5) + 2) * self.line_unit()
    }

    /// Lines that are displayed.
    pub fn lines(&self) -> usize {
        (self.vertical(index::VERTICAL_DISPLAY_END, 1, 6) + 1) * self.line_unit()
    }

    /// First line of vertical retrace, and how many there are.
    pub fn vertical_retrace(&self) -> (usize, usize) {
        let start = self.vertical(index::VERTICAL_RETRACE_START, 2, 7);
        let end = usize::from(self.registers[index::VERTICAL_RETRACE_END]);
        // Retrace ends when the low four bits of the line counter match.
        let length = match end.wrapping_sub(start) & 0x0f {
            0 => 16,
            n => n,
        };
        (start * self.line_unit(), length * self.line_unit())
    }

    /// The line behind which the address counter starts again at 0.
    pub fn line_compare(&self) -> usize {
        let bit_9 = usize::from(self.registers[index::MAXIMUM_SCAN_LINE] >> 6 & 1) << 9;
        (self.vertical(index::LINE_COMPARE, 4, 4) & 0x1ff | bit_9) * self.line_unit()
    }

    /// Each line is displayed twice.
    pub fn doubled(&self) -> bool {
        self.registers[index::MAXIMUM_SCAN_LINE] & 0x80 != 0
    }

    /// The last row scan of a character row.
    pub fn maximum_scan_line(&self) -> u8 {
        self.registers[index::MAXIMUM_SCAN_LINE] & 0x1f
    }

    /// The row scan at which a frame begins.
    pub fn preset_row_scan(&self) -> u8 {
        self.registers[index::PRESET_ROW_SCAN] & 0x1f
    }

    /// Characters by which panning moves, beside the dots of the attribute controller.
    pub fn byte_panning(&self) -> u8 {
        self.registers[index::PRESET_ROW_SCAN] >> 5 & 3
    }

    fn word(&self, high: usize) -> u16 {
        u16::from_be_bytes([self.registers[high], self.registers[high + 1]])
    }

    /// What the address counter starts with.
    pub fn start_address(&self) -> u16 {
        const { assert!(index::START_ADDRESS_LOW == index::START_ADDRESS_HIGH + 1) }
        self.word(index::START_ADDRESS_HIGH)
    }

    /// By how much the address counter advances for each row.
    pub fn row_offset(&self) -> u16 {
        u16::from(self.registers[index::OFFSET]) * 2
    }

    /// What the address counter holds at the cursor's character.
    pub fn cursor_location(&self) -> u16 {
        const { assert!(index::CURSOR_LOCATION_LOW == index::CURSOR_LOCATION_HIGH + 1) }
        self.word(index::CURSOR_LOCATION_HIGH)
    }

    /// First and last row scan of the cursor; `None`: it is off. There is none if the first is behind the last.
    pub fn cursor_rows(&self) -> Option<(u8, u8)> {
        let start = self.registers[index::CURSOR_START];
        let rows = (start & 0x1f, self.registers[index::CURSOR_END] & 0x1f);
        (start & 0x20 == 0 && rows.0 <= rows.1).then_some(rows)
    }

    /// The row scan of underlines.
    pub fn underline(&self) -> u8 {
        self.registers[index::UNDERLINE_LOCATION] & 0x1f
    }

    /// How the address counter becomes an address.
    pub fn addressing(&self) -> Addressing {
        let mode = self.registers[index::MODE_CONTROL];
        let underline = self.registers[index::UNDERLINE_LOCATION];
        Addressing {
            shift: match (underline & 0x40 != 0, mode & 0x40 != 0) {
                (true, _) => 2,
                (false, false) => 1,
                (false, true) => 0,
            },
            wrap_bit: if mode & 0x20 != 0 { 15 } else { 13 },
            replace: [mode & 1 == 0, mode & 2 == 0],
            count: match (underline & 0x20 != 0, mode & 8 != 0) {
                (true, _) => 2,
                (false, true) => 1,
                (false, false) => 0,
            },
        }
    }

    /// [`Crtc::addressing`] for chain-4 memory, which is packed here: four neighbours share a plane address, so that
    /// doubleword mode has nothing to shift.
    pub fn packed_addressing(&self) -> Addressing {
        let addressing = self.addressing();
        Addressing { shift: if addressing.shift == 2 { 0 } else { addressing.shift }, ..addressing }
    }

    /// The retraces are generated at all: a monitor shows nothing without.
    pub fn running(&self) -> bool {
        self.registers[index::MODE_CONTROL] & 0x80 != 0
    }

    /// The vertical interrupt may become pending: it is enabled and not held clear.
    pub fn interrupt_armed(&self) -> bool {
        self.registers[index::VERTICAL_RETRACE_END] & (INTERRUPT_RELEASED | INTERRUPT_DISABLED) == INTERRUPT_RELEASED
    }
}
