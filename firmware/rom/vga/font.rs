//! The character generator: code page 437 in cells of 8x16, 8x14 and 8x8 dots, one byte per row, bit 7 leftmost, as the VGA BIOS
//! interface lays fonts out (IBM PS/2 and PC BIOS Interface Technical Reference, INT 10h AH=11h).
//!
//! Where the glyphs come from (all of it is put together while the crate compiles):
//!
//! | size | letters, digits, punctuation, symbols | lines and corners (B3h-DAh) | what those fonts lack |
//! |---|---|---|---|
//! | 8x16 | Spleen 8x16, copyright Frederic Cambus, BSD 2-Clause (crate `spleen-font`; licence in `SPLEEN-LICENSE`) | [`box_glyph`] | [`ART_8X16`] |
//! | 8x14 | the 8x16 glyph without its first and last row | [`box_glyph`] | as 8x16 |
//! | 8x8 | font8x8, public domain (crate `font8x8`, MIT) | [`box_glyph`] | [`ART_8X8`] |

use font8x8::legacy::{BASIC_LEGACY, BLOCK_LEGACY, GREEK_LEGACY, LATIN_LEGACY, MISC_LEGACY};

/// Unicode scalar values of code page 437's 256 glyphs, control codes shown as the symbols that the adapter draws for them.
/// 00h and FFh are blank.
const CP437: [u16; 256] = {
    let mut table = [0; 256];
    let text = concat!(
        " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼",
        " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~⌂",
        "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀",
        "αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■ ",
    )
    .as_bytes();
    let (mut at, mut code) = (0, 0);
    while code < 256 {
        let first = text[at] as u16;
        let (value, length) = match first {
            0..0x80 => (first, 1),
            0x80..0xE0 => ((first & 0x1F) << 6 | (text[at + 1] & 0x3F) as u16, 2),
            _ => ((first & 0x0F) << 12 | ((text[at + 1] & 0x3F) as u16) << 6 | (text[at + 2] & 0x3F) as u16, 3),
        };
        table[code] = value;
        at += length;
        code += 1;
    }
    assert!(at == text.len());
    table
};

/// The 8x16 font: 256 glyphs of 16 rows.
pub static FONT_8X16: [u8; 4096] = font_8x16();
/// The 8x14 font: 256 glyphs of 14 rows.
pub static FONT_8X14: [u8; 3584] = font_8x14();
/// The 8x8 font: 256 glyphs of 8 rows.
pub static FONT_8X8: [u8; 2048] = font_8x8();

const fn font_8x16() -> [u8; 4096] {
    let mut font = [0; 4096];
    let mut code = 0;
    while code < 256 {
        if let Some(arms) = box_arms(code) {
            let mut row = 0;
            while row < 16 {
                font[code * 16 + row] = box_glyph(arms, 16, row);
                row += 1;
            }
        } else {
            let art = find(&NAMES_8X16, CP437[code]);
            let spleen = spleen_glyph(CP437[code]);
            let mut row = 0;
            while row < 16 {
                font[code * 16 + row] = match (art, spleen) {
                    (Some(index), _) => art_row(&ART_8X16, 16, index, row),
                    (None, Some(glyph)) => spleen_font::FONT_8X16[4 + glyph * 16 + row],
                    (None, None) => panic!("a glyph of the 8x16 font has no source"),
                };
                row += 1;
            }
        }
        code += 1;
    }
    font
}

const fn font_8x14() -> [u8; 3584] {
    let mut font = [0; 3584];
    let mut code = 0;
    while code < 256 {
        let mut row = 0;
        while row < 14 {
            font[code * 14 + row] = match box_arms(code) {
                Some(arms) => box_glyph(arms, 14, row),
                None => FONT_8X16[code * 16 + 1 + row],
            };
            row += 1;
        }
        code += 1;
    }
    font
}

const fn font_8x8() -> [u8; 2048] {
    let mut font = [0; 2048];
    let mut code = 0;
    while code < 256 {
        let scalar = CP437[code];
        let art = find(&NAMES_8X8, scalar);
        let mut row = 0;
        while row < 8 {
            font[code * 8 + row] = match (box_arms(code), art) {
                (Some(arms), _) => box_glyph(arms, 8, row),
                (None, Some(index)) => art_row(&ART_8X8, 8, index, row),
                // font8x8 keeps the leftmost dot in bit 0.
                (None, None) => font8x8_glyph(scalar)[row].reverse_bits(),
            };
            row += 1;
        }
        code += 1;
    }
    font
}

/// The glyph of a scalar value in Spleen's PSF version 1 file: a 4-byte head (magic 36h 04h, mode, rows), 512 glyphs, then for each
/// glyph the UTF-16 values that it stands for, ended by FFFFh (Linux `psf` documentation).
const fn spleen_glyph(scalar: u16) -> Option<usize> {
    let file = spleen_font::FONT_8X16;
    assert!(file[0] == 0x36 && file[1] == 0x04 && file[2] & 3 == 3 && file[3] == 16);
    let (mut at, mut glyph) = (4 + 512 * 16, 0);
    while at + 1 < file.len() {
        let value = file[at] as u16 | (file[at + 1] as u16) << 8;
        if value == 0xFFFF {
            glyph += 1;
        } else if value == scalar {
            return Some(glyph);
        }
        at += 2;
    }
    None
}

/// A glyph of font8x8 by scalar value.
const fn font8x8_glyph(scalar: u16) -> [u8; 8] {
    match scalar {
        0x20A7 => MISC_LEGACY[0],
        0x0192 => MISC_LEGACY[1],
        0x00AA => MISC_LEGACY[2],
        0x00BA => MISC_LEGACY[3],
        0x2310 => MISC_LEGACY[4],
        0x2265 => MISC_LEGACY[5],
        0x2264 => MISC_LEGACY[6],
        0x00..0x80 => BASIC_LEGACY[scalar as usize],
        0xA0..0x100 => LATIN_LEGACY[scalar as usize - 0xA0],
        0x390..0x3CA => GREEK_LEGACY[scalar as usize - 0x390],
        0x2580..0x25A0 => BLOCK_LEGACY[scalar as usize - 0x2580],
        _ => panic!("a glyph of the 8x8 font has no source"),
    }
}

const fn find(names: &[u16], scalar: u16) -> Option<usize> {
    let mut index = 0;
    while index < names.len() {
        if names[index] == scalar {
            return Some(index);
        }
        index += 1;
    }
    None
}

/// One row of a drawn glyph. The art stands in bands of eight glyphs, nine columns each.
const fn art_row(art: &[&str], height: usize, index: usize, row: usize) -> u8 {
    let line = art[index / 8 * height + row].as_bytes();
    let (mut byte, mut column) = (0, 0);
    while column < 8 {
        byte = byte << 1 | (line[index % 8 * 9 + column] == b'#') as u8;
        column += 1;
    }
    byte
}

/// Which lines leave the centre of a line-drawing character: none, one or two.
#[derive(Clone, Copy)]
struct Arms {
    up: u8,
    down: u8,
    left: u8,
    right: u8,
}

/// The arms of code page 437's line-drawing characters, or `None` for other codes.
const fn box_arms(code: usize) -> Option<Arms> {
    // Up, down, left, right, for B3h to DAh; block elements follow.
    const ARMS: [u16; 40] = [
        0x1100, 0x1110, 0x1120, 0x2210, 0x0210, 0x0120, 0x2220, 0x2200, 0x0220, 0x2020, 0x2010, 0x1020, 0x0110, 0x1001,
        0x1011, 0x0111, 0x1101, 0x0011, 0x1111, 0x1102, 0x2201, 0x2002, 0x0202, 0x2022, 0x0222, 0x2202, 0x0022, 0x2222,
        0x1022, 0x2011, 0x0122, 0x0211, 0x2001, 0x1002, 0x0102, 0x0201, 0x2211, 0x1122, 0x1010, 0x0101,
    ];
    if code < 0xB3 || code > 0xDA {
        return None;
    }
    let arms = ARMS[code - 0xB3];
    Some(Arms {
        up: (arms >> 12) as u8,
        down: (arms >> 8 & 3) as u8,
        left: (arms >> 4 & 3) as u8,
        right: (arms & 3) as u8,
    })
}

/// A row of a line-drawing character. A single vertical line is columns 3 and 4, a double one 1, 2 and 5, 6; a single horizontal line
/// is one row in the middle, a double one the rows above and below it.
const fn box_glyph(arms: Arms, height: usize, row: usize) -> u8 {
    let middle = height / 2 - 1;
    let mut byte = 0;
    let mut column = 0;
    while column < 8 {
        let across = Stroke { first: [3, 1, 5], last: [4, 2, 6], at: column };
        let along = Stroke { first: [middle, middle - 1, middle + 1], last: [middle, middle - 1, middle + 1], at: row };
        let dot = arm(arms.up, arms.down, arms.left, arms.right, across, along, true)
            || arm(arms.down, arms.up, arms.left, arms.right, across, along, false)
            || arm(arms.left, arms.right, arms.up, arms.down, along, across, true)
            || arm(arms.right, arms.left, arms.up, arms.down, along, across, false);
        byte = byte << 1 | dot as u8;
        column += 1;
    }
    byte
}

/// Where lines of one direction are, measured across them: the single line, then the two of a double line; and where the dot is.
#[derive(Clone, Copy)]
struct Stroke {
    first: [usize; 3],
    last: [usize; 3],
    at: usize,
}

impl Stroke {
    const fn on(self, line: usize) -> bool {
        self.first[line] <= self.at && self.at <= self.last[line]
    }
}

/// Whether a dot belongs to the arm that comes from an edge towards the centre, `from_start` from the top or left one. `opposite` is
/// the arm across the centre, `before` and `after` are the arms to its sides; `lines` are its own lines, `ends` the crossing ones.
const fn arm(own: u8, opposite: u8, before: u8, after: u8, lines: Stroke, ends: Stroke, from_start: bool) -> bool {
    let (near, far) = if from_start { (1, 2) } else { (2, 1) };
    if own == 1 {
        let end = match (before == 2 || after == 2, before == after) {
            (false, _) => 0,
            (true, _) if opposite != 0 => far,
            // A single line meets a double one from the side at its near line; around a corner it goes on to the far one.
            (true, true) => near,
            (true, false) => far,
        };
        return lines.on(0) && reaches(ends, end, from_start);
    }
    if own != 2 {
        return false;
    }
    // Of a double arm, each line turns into the side it is on, passes through, or ends at the far side of a corner.
    let mut line = 1;
    while line <= 2 {
        let (side, other) = if line == 1 { (before, after) } else { (after, before) };
        let end = match (side, other) {
            (2, _) => near,
            (_, 2) => far,
            _ if side == 0 && other == 0 => far,
            _ => 0,
        };
        let end = if opposite == 2 && side != 2 { far } else { end };
        if lines.on(line) && reaches(ends, end, from_start) {
            return true;
        }
        line += 1;
    }
    false
}

/// Whether a dot lies between an edge and a crossing line, that line included.
const fn reaches(ends: Stroke, line: usize, from_start: bool) -> bool {
    if from_start { ends.at <= ends.last[line] } else { ends.at >= ends.first[line] }
}

/// What [`ART_8X16`] holds, in order: scalar values that Spleen's console file has no glyph of its own for.
const NAMES_8X16: [u16; 13] =
    [0x03B1, 0x03A3, 0x03C3, 0x03C4, 0x0398, 0x03B4, 0x03C6, 0x03B5, 0x221F, 0x25BA, 0x25C4, 0x25B2, 0x25BC];

#[rustfmt::skip]
const ART_8X16: [&str; 32] = [
    // α       Σ        σ        τ        Θ        δ        φ        ε
    "........ ........ ........ ........ ........ ........ ........ ........",
    "........ ........ ........ ........ ........ ........ ........ ........",
    "........ #######. ........ ........ ..###... ..####.. ........ ........",
    "........ ##...##. ........ ........ .##.##.. .##..... ...##... ........",
    "........ .##..... ........ ........ ##...##. ..##.... ...##... ........",
    ".###.##. ..##.... .######. .######. ##...##. ...##... .######. ..####..",
    "##.###.. ...##... ##.##... #..##... #######. ..####.. ##.##.## .##..##.",
    "##..##.. ..##.... ##..##.. ...##... ##...##. .##..##. ##.##.## .##.....",
    "##..##.. .##..... ##..##.. ...##... ##...##. ##...##. ##.##.## ..###...",
    "##..##.. ##...... ##..##.. ...##... ##...##. ##...##. ##.##.## .##.....",
    "##.###.. ##...##. ##..##.. ...##.#. .##.##.. .##.##.. .######. .##..##.",
    ".###.##. #######. .####... ....##.. ..###... ..###... ...##... ..####..",
    "........ ........ ........ ........ ........ ........ ...##... ........",
    "........ ........ ........ ........ ........ ........ ...##... ........",
    "........ ........ ........ ........ ........ ........ ........ ........",
    "........ ........ ........ ........ ........ ........ ........ ........",
    // ∟       ►        ◄        ▲        ▼
    "........ ........ ........ ........ ........",
    "........ #....... ......#. ........ ........",
    "........ ##...... .....##. ........ ........",
    "........ ###..... ....###. ...#.... ........",
    "........ ####.... ...####. ..###... #######.",
    "##...... ######.. .######. ..###... #######.",
    "##...... #######. #######. .#####.. .#####..",
    "##...... ######.. .######. .#####.. .#####..",
    "##...... ####.... ...####. #######. ..###...",
    "##...... ###..... ....###. #######. ..###...",
    "#######. ##...... .....##. ........ ...#....",
    "#######. #....... ......#. ........ ........",
    "........ ........ ........ ........ ........",
    "........ ........ ........ ........ ........",
    "........ ........ ........ ........ ........",
    "........ ........ ........ ........ ........",
];

/// What [`ART_8X8`] holds, in order: scalar values that font8x8 has no glyph for.
const NAMES_8X8: [u16; 40] = [
    0x263A, 0x263B, 0x2665, 0x2666, 0x2663, 0x2660, 0x2022, 0x25D8, 0x25CB, 0x25D9, 0x2642, 0x2640, 0x266A, 0x266B,
    0x263C, 0x25BA, 0x25C4, 0x2195, 0x203C, 0x25AC, 0x21A8, 0x2191, 0x2193, 0x2192, 0x2190, 0x221F, 0x2194, 0x25B2,
    0x25BC, 0x2302, 0x221E, 0x2229, 0x2261, 0x2320, 0x2321, 0x2248, 0x2219, 0x221A, 0x207F, 0x25A0,
];

#[rustfmt::skip]
const ART_8X8: [&str; 40] = [
    // ☺       ☻        ♥        ♦        ♣        ♠        •        ◘
    ".######. .######. .##.##.. ...#.... ..###... ...#.... ........ ########",
    "#......# ######## #######. ..###... ..###... ..###... ........ ########",
    "#.#..#.# ##.##.## #######. .#####.. #######. .#####.. ...##... ###..###",
    "#......# ######## #######. #######. #######. #######. ..####.. ##....##",
    "#.####.# ##....## .#####.. .#####.. ##.#.##. #######. ..####.. ##....##",
    "#..##..# ###..### ..###... ..###... ...#.... ...#.... ...##... ###..###",
    ".######. .######. ...#.... ...#.... ..###... ..###... ........ ########",
    "........ ........ ........ ........ ........ ........ ........ ########",
    // ○       ◙        ♂        ♀        ♪        ♫        ☼        ►
    "........ ######## ....#### ..####.. ..###### .####### ...##... #.......",
    "..####.. ##....## .....### .##..##. ..##..## .##...## ##.##.## ###.....",
    ".##..##. #..##..# ....##.# .##..##. ..###### .####### ..####.. #####...",
    ".#....#. #.####.# .#####.. ..####.. ..##.... .##...## .##..##. #######.",
    ".#....#. #.####.# ##..##.. ...##... ..##.... .##...## .##..##. #####...",
    ".##..##. #..##..# ##..##.. .######. .###.... .##..### ..####.. ###.....",
    "..####.. ##....## ##..##.. ...##... ####.... ###..##. ##.##.## #.......",
    "........ ######## .####... ...##... ###..... ##...... ...##... ........",
    // ◄       ↕        ‼        ▬        ↨        ↑        ↓        →
    "......#. ...##... .##..##. ........ ...##... ...##... ...##... ........",
    "....###. ..####.. .##..##. ........ ..####.. ..####.. ...##... ...##...",
    "..#####. .######. .##..##. ........ .######. .######. ...##... ....##..",
    "#######. ...##... .##..##. ........ ...##... ...##... ...##... #######.",
    "..#####. ...##... .##..##. .######. ...##... ...##... .######. ....##..",
    "....###. .######. ........ .######. .######. ...##... ..####.. ...##...",
    "......#. ..####.. .##..##. .######. ..####.. ...##... ...##... ........",
    "........ ...##... ........ ........ ######## ........ ........ ........",
    // ←       ∟        ↔        ▲        ▼        ⌂        ∞        ∩
    "........ ........ ........ ........ ........ ........ ........ ..###...",
    "..##.... ##...... ..#..#.. ...##... ######## ...#.... ........ .##.##..",
    ".##..... ##...... .##..##. ..####.. ######## ..###... .######. ##...##.",
    "#######. ##...... ######## .######. .######. .##.##.. ##.##.## ##...##.",
    ".##..... #######. .##..##. ######## ..####.. ##...##. ##.##.## ##...##.",
    "..##.... ........ ..#..#.. ######## ...##... ##...##. .######. ##...##.",
    "........ ........ ........ ........ ........ #######. ........ ##...##.",
    "........ ........ ........ ........ ........ ........ ........ ........",
    // ≡       ⌠        ⌡        ≈        ∙        √        ⁿ       ■
    "........ ....###. ...##... ........ ........ ....#### .####... ........",
    ".######. ...##.## ...##... .###.##. ........ ....##.. .##.##.. ........",
    "........ ...##.## ...##... ##.###.. ........ ....##.. .##.##.. ..####..",
    ".######. ...##... ...##... ........ ...##... ....##.. .##.##.. ..####..",
    "........ ...##... ...##... .###.##. ...##... ###.##.. ........ ..####..",
    ".######. ...##... ##.##... ##.###.. ........ .##.##.. ........ ..####..",
    "........ ...##... ##.##... ........ ........ ..####.. ........ ........",
    "........ ...##... .###.... ........ ........ ...###.. ........ ........",
];
