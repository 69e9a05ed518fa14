use super::*;
use crate::video::Cell;

/// Memory for tests.
struct Bytes(Vec<u8>);

impl VideoMemory for Bytes {
    fn read(&self, offset: usize, bytes: &mut [u8]) {
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = self.0[(offset + i) % self.0.len()];
        }
    }
}

const SHOWN: Phase = Phase { cursor: true, blink: true };
const HIDDEN: Phase = Phase { cursor: false, blink: false };

fn memory() -> Bytes {
    Bytes(vec![0; 1 << 20])
}

fn out(state: &mut VgaState, index_port: u16, index: u8, value: u8) {
    state.write_port(index_port, index, Instant::ZERO);
    state.write_port(index_port + 1, value, Instant::ZERO);
}

fn attribute(state: &mut VgaState, index: u8, value: u8) {
    state.read_port(0x3da, Instant::ZERO);
    state.write_port(0x3c0, index | 0x20, Instant::ZERO);
    state.write_port(0x3c0, value, Instant::ZERO);
}

/// `columns` characters by `lines`, on; the palette is one to one, and colour n of the DAC is blue n in 6 bits.
fn registers(columns: u8, lines: u8) -> VgaState {
    let mut state = VgaState::default();
    state.write_port(0x3c2, 0x63, Instant::ZERO);
    for (index, value) in [(1, columns - 1), (0x12, lines - 1), (0x18, 0xff), (7, 0x10), (9, 0x40), (0x17, 0xe3)] {
        out(&mut state, 0x3d4, index, value);
    }
    out(&mut state, 0x3d4, 0x13, columns / 2);
    out(&mut state, 0x3c4, 1, 1);
    for i in 0..16 {
        attribute(&mut state, i, i);
    }
    attribute(&mut state, 0x12, 0x0f);
    state.write_port(0x3c8, 0, Instant::ZERO);
    for i in 0..=255 {
        [0, 0, i].iter().for_each(|value| state.write_port(0x3c9, *value, Instant::ZERO));
    }
    state
}

fn graphics(columns: u8, lines: u8) -> VgaState {
    let mut state = registers(columns, lines);
    out(&mut state, 0x3ce, 6, 5);
    out(&mut state, 0x3c4, 4, 6);
    state
}

fn refresh(state: &VgaState, phase: Phase, memory: &Bytes, frame: &mut Frame) -> Damage {
    Picture::new(state, phase).draw(phase, memory, frame)
}

fn draw(state: &VgaState, phase: Phase, memory: &Bytes) -> Frame {
    let mut frame = Frame::default();
    assert_eq!(refresh(state, phase, memory, &mut frame), Damage::All);
    frame
}

/// Colour numbers of a row, from pixels as [`registers`] has them.
fn row(frame: &Frame, y: usize) -> Vec<u8> {
    frame.pixels[y * frame.width..(y + 1) * frame.width].iter().map(|pixel| (pixel >> 2) as u8 & 0x3f).collect()
}

#[test]
fn planar_dots_take_a_bit_of_each_plane() {
    let state = graphics(2, 2);
    let mut memory = memory();
    memory.0[..4].copy_from_slice(&[0b1010_0000, 0b1100_0000, 0b1000_0001, 0b1000_0001]);
    memory.0[8..12].copy_from_slice(&[0xff, 0, 0xff, 0]);
    let frame = draw(&state, SHOWN, &memory);
    assert_eq!((frame.width, frame.height), (16, 2));
    assert_eq!(row(&frame, 0), [15, 2, 1, 0, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(row(&frame, 1)[..8], [5; 8]);
}

#[test]
fn panning_and_start_address_move_the_picture_and_line_compare_splits_it() {
    let mut state = graphics(2, 4);
    let mut memory = memory();
    memory.0[0] = 0xff;
    memory.0[4 * 100 + 4] = 0x80;
    out(&mut state, 0x3d4, 0x0d, 100);
    attribute(&mut state, 0x13, 3);
    for (index, value) in [(0x18, 1), (7, 0), (9, 0)] {
        out(&mut state, 0x3d4, index, value);
    }
    let frame = draw(&state, SHOWN, &memory);
    assert_eq!(row(&frame, 0).iter().position(|dot| *dot != 0), Some(5));
    assert_eq!(row(&frame, 2), [1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    // Pel panning compatibility: the lower part stays.
    attribute(&mut state, 0x10, 0x21);
    assert_eq!(row(&draw(&state, SHOWN, &memory), 2)[..9], [1, 1, 1, 1, 1, 1, 1, 1, 0]);
}

#[test]
fn cga_dots_take_two_bits_and_banks_alternate_by_line() {
    let mut state = graphics(2, 4);
    out(&mut state, 0x3ce, 5, 0x20);
    // Rows of two lines, the second at 2000h; two bytes of the processor are one address in word mode.
    for (index, value) in [(9, 0x41), (0x17, 0xa2)] {
        out(&mut state, 0x3d4, index, value);
    }
    let mut memory = memory();
    memory.0[0] = 0b00_01_10_11;
    memory.0[1] = 0b11_00_00_01;
    memory.0[4 * 0x2000] = 0b01_01_01_01;
    memory.0[4 * 4] = 0b10_10_10_10;
    let frame = draw(&state, SHOWN, &memory);
    assert_eq!(row(&frame, 0)[..8], [0, 1, 2, 3, 3, 0, 0, 1]);
    assert_eq!(row(&frame, 1)[..5], [1, 1, 1, 1, 0]);
    assert_eq!(row(&frame, 2)[..5], [2, 2, 2, 2, 0]);
}

#[test]
fn mode_13h_and_mode_x_show_256_colours_of_two_dots_on_two_lines() {
    let mut state = graphics(4, 4);
    out(&mut state, 0x3ce, 5, 0x40);
    attribute(&mut state, 0x10, 0x41);
    // Doubleword mode and chain-4, then byte mode without.
    for (chain, underline, mode) in [(0x0e, 0x40, 0xa3), (0x06, 0x00, 0xe3)] {
        out(&mut state, 0x3c4, 4, chain);
        out(&mut state, 0x3d4, 0x14, underline);
        out(&mut state, 0x3d4, 0x17, mode);
        out(&mut state, 0x3d4, 9, 0x41);
        let mut memory = memory();
        (0..32).for_each(|i| memory.0[i] = i as u8 + 1);
        let frame = draw(&state, SHOWN, &memory);
        let expected: Vec<u8> = (1..17).flat_map(|colour| [colour, colour]).collect();
        assert_eq!((row(&frame, 0), row(&frame, 1)), (expected.clone(), expected));
        assert_eq!(row(&frame, 2)[..4], [17, 17, 18, 18]);
    }
}

/// Two characters by 16 lines: "A" in colour 2 on 1, and a line character in 3 on 0.
fn text() -> (VgaState, Bytes) {
    let mut state = registers(2, 16);
    out(&mut state, 0x3c4, 1, 0);
    for (index, value) in [(9, 0x4f), (0x17, 0xa3), (0x0a, 0x20), (0x14, 0x1f)] {
        out(&mut state, 0x3d4, index, value);
    }
    attribute(&mut state, 0x10, 0x0c);
    attribute(&mut state, 0x13, 0x08);
    let mut memory = memory();
    memory.0[..2].copy_from_slice(&[b'A', 0x12]);
    memory.0[8..10].copy_from_slice(&[0xc4, 0x03]);
    memory.0[4 * (32 * 0x41 + 2) + 2] = 0x81;
    memory.0[4 * (32 * 0xc4 + 2) + 2] = 0x0f;
    (state, memory)
}

#[test]
fn text_has_nine_dots_the_last_of_which_repeats_in_line_characters() {
    let (mut state, mut memory) = text();
    let frame = draw(&state, SHOWN, &memory);
    assert_eq!((frame.width, frame.height), (18, 16));
    assert_eq!(row(&frame, 2), [2, 1, 1, 1, 1, 1, 1, 2, 1, 0, 0, 0, 0, 3, 3, 3, 3, 3]);
    assert_eq!(row(&frame, 3)[..2], [1, 1]);
    // Eight dots, and the second font for characters with attribute bit 3.
    out(&mut state, 0x3c4, 1, 1);
    out(&mut state, 0x3c4, 3, 0x04);
    attribute(&mut state, 0x13, 0);
    memory.0[1] = 0x0a;
    memory.0[4 * (0x4000 + 32 * 0x41 + 2) + 2] = 0xff;
    let frame = draw(&state, SHOWN, &memory);
    assert_eq!(row(&frame, 2), [10, 10, 10, 10, 10, 10, 10, 10, 0, 0, 0, 0, 3, 3, 3, 3]);
}

#[test]
fn half_dot_clock_doubles_the_width() {
    let (mut state, memory) = text();
    out(&mut state, 0x3c4, 1, 8);
    let frame = draw(&state, SHOWN, &memory);
    assert_eq!((frame.width, row(&frame, 2)[..6].to_vec()), (36, vec![2, 2, 1, 1, 1, 1]));
}

#[test]
fn cursor_blinking_and_underline_change_single_lines() {
    let (mut state, mut memory) = text();
    let mut frame = draw(&state, SHOWN, &memory);
    assert_eq!(refresh(&state, HIDDEN, &memory, &mut frame), Damage::None);
    // The cursor at the second character, lines 13 and 14.
    for (index, value) in [(0x0a, 13), (0x0b, 14), (0x0f, 1)] {
        out(&mut state, 0x3d4, index, value);
    }
    assert_eq!(refresh(&state, SHOWN, &memory, &mut frame), Damage::Lines(13..15));
    assert_eq!(row(&frame, 13)[8..], [1, 3, 3, 3, 3, 3, 3, 3, 3, 3]);
    assert_eq!(refresh(&state, HIDDEN, &memory, &mut frame), Damage::Lines(13..15));
    assert_eq!(row(&frame, 13)[9..], [0; 9]);
    // Attribute bit 7 blinks, and is background if it may not.
    memory.0[1] = 0x92;
    assert_eq!(refresh(&state, HIDDEN, &memory, &mut frame), Damage::Lines(0..16));
    assert_eq!(row(&frame, 2)[..9], [1; 9]);
    assert_eq!(refresh(&state, Phase { cursor: false, blink: true }, &memory, &mut frame), Damage::Lines(2..3));
    attribute(&mut state, 0x10, 0x04);
    assert_eq!(refresh(&state, HIDDEN, &memory, &mut frame), Damage::All);
    assert_eq!(row(&frame, 2)[..3], [2, 9, 9]);
    // Underline: colour 1 at the underline location.
    memory.0[1] = 0x71;
    out(&mut state, 0x3d4, 0x14, 15);
    refresh(&state, HIDDEN, &memory, &mut frame);
    assert_eq!((row(&frame, 15)[..9].to_vec(), row(&frame, 14)[0]), (vec![1; 9], 7));
}

#[test]
fn preset_row_scan_scrolls_by_lines() {
    let (mut state, memory) = text();
    out(&mut state, 0x3d4, 8, 2);
    assert_eq!(row(&draw(&state, SHOWN, &memory), 0)[..2], [2, 1]);
}

#[test]
fn cursor_that_moves_or_goes_changes_lines_while_memory_stays() {
    let (mut state, memory) = text();
    for (index, value) in [(0x0a, 13), (0x0b, 14), (0x0f, 1)] {
        out(&mut state, 0x3d4, index, value);
    }
    let mut frame = draw(&state, SHOWN, &memory);
    for (index, value) in [(0x0f, 0), (0x0a, 0x20)] {
        out(&mut state, 0x3d4, index, value);
        assert_eq!(refresh(&state, SHOWN, &memory, &mut frame), Damage::Lines(13..15));
        assert_eq!(refresh(&state, SHOWN, &memory, &mut frame), Damage::None);
        assert_eq!(frame.pixels, draw(&state, SHOWN, &memory).pixels);
    }
}

#[test]
fn text_is_readable_as_characters() {
    let (mut state, memory) = text();
    for (index, value) in [(0x0a, 13), (0x0b, 14), (0x0f, 1)] {
        out(&mut state, 0x3d4, index, value);
    }
    let picture = Picture::new(&state, SHOWN);
    let (text, height) = picture.text().expect("a text mode");
    let screen = text.screen(height, &memory);
    assert_eq!((screen.columns, screen.rows, screen.cursor, screen.blink), (2, 1, Some((1, 0)), true));
    assert_eq!(screen.cells[0], Cell { character: b'A', attribute: 0x12 });
    assert_eq!(screen.cells[1], Cell { character: 0xc4, attribute: 3 });
}

#[test]
fn palette_goes_through_colour_select_and_the_pel_mask() {
    let mut state = graphics(1, 1);
    let mut memory = memory();
    memory.0[0] = 0x80;
    attribute(&mut state, 0x14, 0x06);
    attribute(&mut state, 0x10, 0x81);
    // Bits 7 to 4 from colour select: 61h; of 256 colours of 6 bits the low ones are blue.
    assert_eq!(row(&draw(&state, SHOWN, &memory), 0)[0], 0x21);
    state.write_port(0x3c6, 0x0f, Instant::ZERO);
    assert_eq!(row(&draw(&state, SHOWN, &memory), 0)[0], 0x01);
}

#[test]
fn dark_screens_are_black_and_there_is_a_size_without_a_signal() {
    let mut state = graphics(2, 2);
    let mut memory = memory();
    memory.0.fill(0xff);
    out(&mut state, 0x3c4, 1, 0x21);
    let mut frame = draw(&state, SHOWN, &memory);
    assert_eq!((frame.width, frame.height, frame.pixels[0]), (16, 2, 0));
    assert_eq!(refresh(&state, HIDDEN, &memory, &mut frame), Damage::None);
    let frame = draw(&VgaState::default(), SHOWN, &memory);
    assert_eq!((frame.width, frame.height, frame.pixels.iter().all(|p| *p == 0)), (720, 400, true));
}

#[test]
fn vbe_modes_of_every_depth_show_their_pixels() {
    let cases: [(u16, [u8; 8], [u32; 2]); 5] = [
        (8, [0x3f, 0x01, 0, 0, 0, 0, 0, 0], [0x00_00ff, 0x00_0004]),
        (15, [0x00, 0x7c, 0xff, 0x03, 0, 0, 0, 0], [0xff_0000, 0x00_ffff]),
        (16, [0x00, 0xf8, 0xe0, 0x07, 0, 0, 0, 0], [0xff_0000, 0x00_ff00]),
        (24, [0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0, 0], [0x03_0201, 0x06_0504]),
        (32, [0x01, 0x02, 0x03, 0xff, 0x04, 0x05, 0x06, 0], [0x03_0201, 0x06_0504]),
    ];
    for (bpp, bytes, expected) in cases {
        let mut state = registers(2, 2);
        let mut memory = memory();
        for (index, value) in [(1, 16), (2, 4), (3, bpp), (4, 0x41), (6, 24), (8, 8), (9, 1)] {
            state.vbe.write(index, value, memory.0.len());
        }
        let bytes_per_pixel = usize::from(bpp).div_ceil(8);
        let start = (24 + 8) * bytes_per_pixel;
        memory.0[start..start + 8].copy_from_slice(&bytes);
        let mut frame = draw(&state, SHOWN, &memory);
        assert_eq!((frame.width, frame.height), (16, 4));
        assert_eq!(frame.pixels[..2], expected, "{bpp} bits");
        memory.0[start + 24 * bytes_per_pixel] ^= 0x55;
        assert_eq!(refresh(&state, SHOWN, &memory, &mut frame), Damage::Lines(1..2));
    }
    let mut state = registers(2, 2);
    let mut memory = memory();
    for (index, value) in [(1, 16), (2, 2), (3, 4), (4, 1), (6, 24), (8, 3)] {
        state.vbe.write(index, value, memory.0.len());
    }
    memory.0[1] = 0b0001_0000;
    assert_eq!(row(&draw(&state, SHOWN, &memory), 0)[..2], [2, 0]);
}

#[test]
fn another_frame_is_drawn_whole() {
    let (state, memory) = text();
    let mut first = draw(&state, SHOWN, &memory);
    let second = draw(&state, SHOWN, &memory);
    assert_eq!(refresh(&state, SHOWN, &memory, &mut first), Damage::None);
    assert_eq!(first.pixels, second.pixels);
}
