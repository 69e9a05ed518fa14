//! What is constant in the VGA BIOS: the video parameter table, the modes, the colours.
//!
//! Register values are those of IBM's VGA: IBM PS/2 and PC BIOS Interface Technical Reference (video parameter table, 64 bytes for
//! each entry), IBM Personal System/2 Hardware Interface Technical Reference (register values by mode).

/// Bytes of an entry of the video parameter table: columns, rows less one, character height, page size in bytes, sequencer 1-4,
/// miscellaneous output, CRT controller 00h-18h, attribute controller 00h-13h, graphics controller 0-8.
pub const PARAMETERS_SIZE: usize = 64;

/// Offsets in an entry of the video parameter table.
pub mod parameter {
    pub const COLUMNS: i32 = 0;
    pub const ROWS: i32 = 1;
    pub const HEIGHT: i32 = 2;
    pub const PAGE_SIZE: i32 = 3;
    pub const SEQUENCER: i32 = 5;
    pub const MISCELLANEOUS: i32 = 9;
    pub const CRTC: i32 = 10;
}

/// Horizontal timing: CRT controller 00h-05h and 13h (offset), sequencer 1 (clocking mode).
struct Horizontal {
    crtc: [u8; 6],
    offset: u8,
    clocking: u8,
}

/// Vertical timing: CRT controller 06h, 07h, 10h-12h, 15h and 16h, and the miscellaneous output register with its polarities.
struct Vertical {
    total: u8,
    overflow: u8,
    sync: [u8; 2],
    display_end: u8,
    blank: [u8; 2],
    miscellaneous: u8,
}

const H320: Horizontal = Horizontal { crtc: [0x2D, 0x27, 0x28, 0x90, 0x2B, 0x80], offset: 0x14, clocking: 0x09 };
const H640: Horizontal = Horizontal { crtc: [0x5F, 0x4F, 0x50, 0x82, 0x54, 0x80], offset: 0x28, clocking: 0x01 };
/// Text: 40 and 80 columns of 8 dots; a clocking mode without bit 0 makes them 9 dots.
const T40: Horizontal = Horizontal { crtc: [0x2D, 0x27, 0x28, 0x90, 0x2B, 0xA0], offset: 0x14, clocking: 0x09 };
const T80: Horizontal = Horizontal { crtc: [0x5F, 0x4F, 0x50, 0x82, 0x55, 0x81], offset: 0x28, clocking: 0x01 };

const V400: Vertical = Vertical {
    total: 0xBF,
    overflow: 0x1F,
    sync: [0x9C, 0x8E],
    display_end: 0x8F,
    blank: [0x96, 0xB9],
    miscellaneous: 0x63,
};
const V350: Vertical = Vertical {
    total: 0xBF,
    overflow: 0x1F,
    sync: [0x83, 0x85],
    display_end: 0x5D,
    blank: [0x63, 0xBA],
    miscellaneous: 0xA3,
};
const V480: Vertical = Vertical {
    total: 0x0B,
    overflow: 0x3E,
    sync: [0xEA, 0x8C],
    display_end: 0xDF,
    blank: [0xE7, 0x04],
    miscellaneous: 0xE3,
};

/// The attribute controller's palette registers: CGA's sixteen colours, as CGA's and as EGA's bits.
const PALETTE_CGA: [u8; 16] =
    [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17];
const PALETTE_EGA: [u8; 16] =
    [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3A, 0x3B, 0x3C, 0x3D, 0x3E, 0x3F];
/// CGA graphics in four colours and in two.
const PALETTE_FOUR: [u8; 16] =
    [0x00, 0x13, 0x15, 0x17, 0x02, 0x04, 0x06, 0x07, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17];
const PALETTE_TWO_CGA: [u8; 16] = two(0x17);
const PALETTE_MONO_TEXT: [u8; 16] =
    [0x00, 0x08, 0x08, 0x08, 0x08, 0x08, 0x08, 0x08, 0x10, 0x18, 0x18, 0x18, 0x18, 0x18, 0x18, 0x18];
const PALETTE_MONO: [u8; 16] =
    [0x00, 0x08, 0x00, 0x00, 0x18, 0x18, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00, 0x18, 0x00, 0x00];
const PALETTE_TWO: [u8; 16] = two(0x3F);
const PALETTE_PLAIN: [u8; 16] =
    [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F];

const fn two(foreground: u8) -> [u8; 16] {
    let mut palette = [foreground; 16];
    palette[0] = 0;
    palette
}

/// One entry of the video parameter table by parts.
struct Parameters {
    columns: u8,
    rows: u8,
    height: u8,
    page_size: u16,
    horizontal: Horizontal,
    vertical: Vertical,
    /// Sequencer 2 and 4: map mask, memory mode.
    sequencer: [u8; 2],
    monochrome: bool,
    /// CRT controller 09h-0Bh: maximum scan line, cursor start and end.
    cell: [u8; 3],
    /// CRT controller 14h and 17h: underline location, mode control.
    underline: u8,
    mode_control: u8,
    palette: [u8; 16],
    /// Attribute controller 10h, 12h, 13h: mode control, colour plane enable, pel panning.
    attribute: [u8; 3],
    /// Graphics controller 5-7: mode, miscellaneous, colour don't care.
    graphics: [u8; 3],
}

impl Parameters {
    fn bytes(self) -> [u8; PARAMETERS_SIZE] {
        let (h, v) = (self.horizontal, self.vertical);
        // 9 dots to the character take the 28 MHz clock.
        let clock = if h.clocking & 1 == 0 { 0x04 } else { 0x00 };
        let mut bytes = vec![self.columns, self.rows - 1, self.height];
        bytes.extend(self.page_size.to_le_bytes());
        bytes.extend([h.clocking, self.sequencer[0], 0, self.sequencer[1]]);
        bytes.push((v.miscellaneous | clock) & !u8::from(self.monochrome));
        bytes.extend(h.crtc);
        bytes.extend([v.total, v.overflow, 0]);
        bytes.extend(self.cell);
        bytes.extend([0; 4]);
        bytes.extend(v.sync);
        bytes.extend([v.display_end, h.offset, self.underline]);
        bytes.extend(v.blank);
        bytes.extend([self.mode_control, 0xFF]);
        bytes.extend(self.palette);
        bytes.extend([self.attribute[0], 0, self.attribute[1], self.attribute[2]]);
        bytes.extend([0; 5]);
        bytes.extend(self.graphics);
        bytes.push(0xFF);
        bytes.try_into().expect("an entry has 64 bytes")
    }
}

/// A text mode of 25 rows on 200 (each shown twice), 350 or 400 lines.
fn text(columns: u8, lines: u16, monochrome: bool) -> [u8; PARAMETERS_SIZE] {
    let nine = lines == 400 || monochrome;
    let timing = if columns == 40 { T40 } else { T80 };
    let clocking = timing.clocking & !u8::from(nine);
    let (height, vertical, cell) = match lines {
        200 => (8, V400, [0xC7, 0x06, 0x07]),
        350 => (14, V350, [0x4D, 0x0B, 0x0C]),
        _ => (16, V400, [0x4F, 0x0D, 0x0E]),
    };
    Parameters {
        columns,
        rows: 25,
        height,
        page_size: if columns == 40 { 0x0800 } else { 0x1000 },
        horizontal: Horizontal { clocking, ..timing },
        vertical,
        sequencer: [0x03, 0x02],
        monochrome,
        cell,
        underline: if monochrome { height - 1 } else { 0x1F },
        mode_control: 0xA3,
        palette: match (monochrome, lines) {
            (true, _) => PALETTE_MONO_TEXT,
            (false, 200) => PALETTE_CGA,
            (false, _) => PALETTE_EGA,
        },
        attribute: [
            if monochrome {
                0x0E
            } else if nine {
                0x0C
            } else {
                0x08
            },
            0x0F,
            if nine { 0x08 } else { 0x00 },
        ],
        graphics: [0x10, if monochrome { 0x0A } else { 0x0E }, 0x00],
    }
    .bytes()
}

/// CGA's graphics: 320x200 in four colours, 640x200 in two.
fn cga(two_colours: bool) -> [u8; PARAMETERS_SIZE] {
    Parameters {
        columns: if two_colours { 80 } else { 40 },
        rows: 25,
        height: 8,
        page_size: 0x4000,
        horizontal: if two_colours { H640 } else { H320 },
        vertical: V400,
        sequencer: if two_colours { [0x01, 0x06] } else { [0x03, 0x02] },
        monochrome: false,
        cell: [0xC1, 0x00, 0x00],
        underline: 0x00,
        mode_control: if two_colours { 0xC2 } else { 0xA2 },
        palette: if two_colours { PALETTE_TWO_CGA } else { PALETTE_FOUR },
        attribute: [0x01, if two_colours { 0x01 } else { 0x03 }, 0x00],
        graphics: if two_colours { [0x00, 0x0D, 0x0F] } else { [0x30, 0x0F, 0x0F] },
    }
    .bytes()
}

/// EGA's and VGA's graphics, one bit to the dot in each plane.
fn planar(horizontal: Horizontal, vertical: Vertical, palette: [u8; 16]) -> Parameters {
    let columns = horizontal.offset * 2;
    let (rows, height, page_size, maximum_scan_line, underline, mode_control) = match (vertical.display_end, columns) {
        (0x8F, 40) => (25, 8, 0x2000, 0xC0, 0x00, 0xE3),
        (0x8F, _) => (25, 8, 0x4000, 0xC0, 0x00, 0xE3),
        (0x5D, _) => (25, 14, 0x8000, 0x40, 0x0F, 0xE3),
        _ => (30, 16, 0xA000, 0x40, 0x00, 0xC3),
    };
    Parameters {
        columns,
        rows,
        height,
        page_size,
        horizontal,
        vertical,
        sequencer: [0x0F, 0x06],
        monochrome: false,
        cell: [maximum_scan_line, 0x00, 0x00],
        underline,
        mode_control,
        palette,
        attribute: [0x01, 0x0F, 0x00],
        graphics: [0x00, 0x05, 0x0F],
    }
}

/// 640x350 on a monochrome monitor, in planes 0 and 2.
fn monochrome_graphics() -> Parameters {
    Parameters {
        monochrome: true,
        attribute: [0x0B, 0x05, 0x00],
        graphics: [0x00, 0x05, 0x05],
        ..planar(H640, V350, PALETTE_MONO)
    }
}

/// 320x200 in 256 colours, a byte to the dot.
fn linear() -> Parameters {
    Parameters {
        columns: 40,
        page_size: 0x2000,
        sequencer: [0x0F, 0x0E],
        cell: [0x41, 0x00, 0x00],
        underline: 0x40,
        mode_control: 0xA3,
        attribute: [0x41, 0x0F, 0x00],
        graphics: [0x40, 0x05, 0x0F],
        ..planar(H640, V400, PALETTE_PLAIN)
    }
}

/// The video parameter table in IBM's order: modes 0-10h (0Fh and 10h being EGA's with 64 KiB), 0Fh, 10h, text modes of 350 lines, of
/// 400 lines, 11h, 12h, 13h.
pub fn parameters() -> Vec<[u8; PARAMETERS_SIZE]> {
    let unused = [0; PARAMETERS_SIZE];
    vec![
        text(40, 200, false),
        text(40, 200, false),
        text(80, 200, false),
        text(80, 200, false),
        cga(false),
        cga(false),
        cga(true),
        text(80, 350, true),
        unused,
        unused,
        unused,
        unused,
        unused,
        planar(H320, V400, PALETTE_CGA).bytes(),
        planar(H640, V400, PALETTE_CGA).bytes(),
        monochrome_graphics().bytes(),
        planar(H640, V350, PALETTE_EGA).bytes(),
        monochrome_graphics().bytes(),
        planar(H640, V350, PALETTE_EGA).bytes(),
        text(40, 350, false),
        text(40, 350, false),
        text(80, 350, false),
        text(80, 350, false),
        text(40, 400, false),
        text(80, 400, false),
        text(80, 400, true),
        planar(H640, V480, PALETTE_TWO).bytes(),
        planar(H640, V480, PALETTE_EGA).bytes(),
        linear().bytes(),
    ]
}

/// Index of mode 12h in the video parameter table: what VBE's planar modes begin with.
pub const PARAMETERS_PLANAR: u8 = 0x1B;
/// Index of mode 13h: what VBE's packed modes begin with.
pub const PARAMETERS_LINEAR: u8 = 0x1C;

/// How dots lie in video memory.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Model {
    /// A character and an attribute.
    Text = 0,
    /// One or two bits to the dot, odd lines 2000h bytes after even ones.
    Cga = 1,
    /// One bit to the dot in each of four planes.
    Planar = 2,
    /// A byte to the dot.
    Linear = 3,
    /// VBE: one to four bytes to the dot, through a window of 64 KiB.
    Banked = 4,
}

/// A mode of INT 10h, AH=00h, as it lies in the ROM.
pub struct Mode {
    pub number: u8,
    pub model: Model,
    /// Bits to the dot (in all planes together).
    pub bits: u8,
    /// Index in the video parameter table; of a text mode, those with 200, 350, 400 lines.
    pub parameters: [u8; 3],
    pub segment: u16,
    /// Index of the colours in [`colours`].
    pub colours: u8,
    /// What CGA's mode and palette registers would hold (40:65, 40:66).
    pub cga: [u8; 2],
}

/// Offsets in a [`Mode`] in the ROM.
pub mod mode {
    pub const MODEL: i32 = 1;
    pub const PARAMETERS: i32 = 3;
    pub const SEGMENT: i32 = 6;
    pub const COLOURS: i32 = 8;
    pub const CGA: i32 = 9;
    pub const SIZE: i32 = 11;
}

impl Mode {
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.number, self.model as u8, self.bits];
        bytes.extend(self.parameters);
        bytes.extend(self.segment.to_le_bytes());
        bytes.push(self.colours);
        bytes.extend(self.cga);
        bytes
    }
}

const COLOURS_CGA: u8 = 0;
const COLOURS_EGA: u8 = 1;
const COLOURS_MONO: u8 = 2;
/// Index in [`colours`] of mode 13h's 256 colours.
pub const COLOURS_256: u8 = 3;

/// The modes of INT 10h, AH=00h.
pub fn modes() -> Vec<Mode> {
    let mode = |number, model, bits, parameters, segment, colours, cga| Mode {
        number,
        model,
        bits,
        parameters,
        segment,
        colours,
        cga,
    };
    let text = |number, parameters, cga| mode(number, Model::Text, 4, parameters, 0xB800, COLOURS_EGA, [cga, 0x30]);
    let cga = |number, bits, registers| mode(number, Model::Cga, bits, [number; 3], 0xB800, COLOURS_CGA, registers);
    let graphics = |number, model, bits, parameters, colours| {
        mode(number, model, bits, [parameters; 3], 0xA000, colours, [0x29, 0x30])
    };
    vec![
        text(0x00, [0x00, 0x13, 0x17], 0x2C),
        text(0x01, [0x01, 0x14, 0x17], 0x28),
        text(0x02, [0x02, 0x15, 0x18], 0x2D),
        text(0x03, [0x03, 0x16, 0x18], 0x29),
        cga(0x04, 2, [0x2A, 0x30]),
        cga(0x05, 2, [0x2E, 0x30]),
        cga(0x06, 1, [0x1E, 0x3F]),
        mode(0x07, Model::Text, 4, [0x19, 0x07, 0x19], 0xB000, COLOURS_MONO, [0x29, 0x30]),
        graphics(0x0D, Model::Planar, 4, 0x0D, COLOURS_CGA),
        graphics(0x0E, Model::Planar, 4, 0x0E, COLOURS_CGA),
        graphics(0x0F, Model::Planar, 2, 0x11, COLOURS_MONO),
        graphics(0x10, Model::Planar, 4, 0x12, COLOURS_EGA),
        graphics(0x11, Model::Planar, 1, 0x1A, COLOURS_EGA),
        graphics(0x12, Model::Planar, 4, 0x1B, COLOURS_EGA),
        graphics(0x13, Model::Linear, 8, 0x1C, COLOURS_256),
    ]
}

/// The colours that modes begin with, red, green and blue: CGA's 64 (bits: blue, green, red, unused, intensity), EGA's 64 (blue, green,
/// red, and each at a third), 64 of monochrome, and mode 13h's 256.
pub fn colours() -> [Vec<[u8; 3]>; 4] {
    [
        (0..64).map(cga_colour).collect(),
        (0..64).map(ega_colour).collect(),
        (0..64).map(mono_colour).collect(),
        colours_256(),
    ]
}

fn cga_colour(index: u8) -> [u8; 3] {
    let base = if index & 0x10 != 0 { 0x15 } else { 0 };
    let [red, green, blue] = [4, 2, 1].map(|bit| base + if index & bit != 0 { 0x2A } else { 0 });
    // Dark yellow is brown, as on IBM's colour display.
    if index & 0x17 == 6 { [red, 0x15, blue] } else { [red, green, blue] }
}

fn ega_colour(index: u8) -> [u8; 3] {
    [2, 1, 0].map(|bit| (index >> bit & 1) * 0x2A + (index >> (bit + 3) & 1) * 0x15)
}

fn mono_colour(index: u8) -> [u8; 3] {
    [[0x00, 0x2A, 0x00, 0x3F][usize::from(index >> 3 & 3)]; 3]
}

/// CGA's sixteen, sixteen greys, three intensities of three saturations of 24 hues, black.
fn colours_256() -> Vec<[u8; 3]> {
    const GREYS: [u8; 16] =
        [0x00, 0x05, 0x08, 0x0B, 0x0E, 0x11, 0x14, 0x18, 0x1C, 0x20, 0x24, 0x28, 0x2D, 0x32, 0x38, 0x3F];
    const LEVELS: [[u8; 5]; 9] = [
        [0x00, 0x10, 0x1F, 0x2F, 0x3F],
        [0x1F, 0x27, 0x2F, 0x37, 0x3F],
        [0x2D, 0x31, 0x36, 0x3A, 0x3F],
        [0x00, 0x07, 0x0E, 0x15, 0x1C],
        [0x0E, 0x11, 0x15, 0x18, 0x1C],
        [0x14, 0x16, 0x18, 0x1A, 0x1C],
        [0x00, 0x04, 0x08, 0x0C, 0x10],
        [0x08, 0x0A, 0x0C, 0x0E, 0x10],
        [0x0B, 0x0C, 0x0D, 0x0F, 0x10],
    ];
    // Around the colour circle from blue by way of red and green: each sixth raises or lowers one component in four steps.
    let hue = |step: usize| -> [usize; 3] {
        let part = step % 4;
        match step / 4 {
            0 => [part, 0, 4],
            1 => [4, 0, 4 - part],
            2 => [4, part, 0],
            3 => [4 - part, 4, 0],
            4 => [0, 4, part],
            _ => [0, 4 - part, 4],
        }
    };
    let mut colours: Vec<_> = (0..16).map(|index| cga_colour(index & 7 | (index & 8) << 1)).collect();
    colours.extend(GREYS.map(|grey| [grey; 3]));
    colours.extend(LEVELS.iter().flat_map(|levels| (0..24).map(move |step| hue(step).map(|level| levels[level]))));
    colours.resize(256, [0; 3]);
    colours
}
