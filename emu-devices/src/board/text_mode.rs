//! What a VGA BIOS would leave behind for kernels that the board boots without firmware: mode 3, 80x25 characters.
//!
//! Register values are those of IBM VGA/XGA Technical Reference, "BIOS Video Modes", for mode 3+ with 9x16 dots.

use super::post::{VGA, config_write};
use crate::pci::config::{command, reg};
use emu_core::bus::Bus;

/// One past the last address at which the frame buffer may lie: below the registers of the chip set.
const FRAME_BUFFER_END: u32 = 0xfe00_0000;
/// Where the register block is put.
const REGISTERS: u32 = 0xfebf_0000;
const TEXT: u64 = 0xb_8000;
const FONTS: u64 = 0xa_0000;

const SEQUENCER: [u8; 5] = [0x03, 0x00, 0x03, 0x00, 0x02];
const CRTC: [u8; 25] = [
    0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00, 0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f,
    0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff,
];
const GRAPHICS: [u8; 9] = [0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x0f, 0xff];
const ATTRIBUTE: [u8; 21] = [
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0x00, 0x0f,
    0x08, 0x00,
];

/// Places the card of `memory` bytes, sets mode 3, loads `font` (16 bytes for each character) and clears the screen.
pub fn initialise(bus: &Bus, memory: u32, font: &[u8]) {
    let out = |port: u16, value: u8| bus.port_write(port, 1, value.into(), 0);
    let indexed = |port: u16, values: &[u8]| {
        for (index, value) in values.iter().enumerate() {
            bus.port_write(port, 2, u32::from(*value) << 8 | index as u32, 0);
        }
    };
    config_write(bus, VGA, reg::BAR0, 4, FRAME_BUFFER_END - memory);
    config_write(bus, VGA, reg::BAR0 + 8, 4, REGISTERS);
    config_write(bus, VGA, reg::COMMAND, 2, (command::IO | command::MEMORY).into());

    // Dark, 28 MHz, colour ports, memory enabled; the CRT controller's registers are open.
    out(0x3c2, 0x67);
    indexed(0x3c4, &SEQUENCER);
    bus.port_write(0x3d4, 2, 0x0011, 0);
    indexed(0x3d4, &CRTC);
    indexed(0x3ce, &GRAPHICS);
    bus.port_read(0x3da, 1, 0);
    for (index, value) in ATTRIBUTE.iter().enumerate() {
        out(0x3c0, index as u8);
        out(0x3c0, *value);
    }
    out(0x3c6, 0xff);
    out(0x3c8, 0);
    for colour in 0..64u8 {
        // Red, green, blue: two thirds from bits 2 to 0, one third from bits 5 to 3.
        for bit in [2, 1, 0] {
            out(0x3c9, (colour >> bit & 1) * 0x2a + (colour >> (bit + 3) & 1) * 0x15);
        }
    }

    // Plane 2 by itself at A0000h, then as it was.
    for (port, index, value) in [(0x3c4, 2, 0x04), (0x3c4, 4, 0x06), (0x3ce, 5, 0x00), (0x3ce, 6, 0x04)] {
        bus.port_write(port, 2, value << 8 | index, 0);
    }
    for (character, dots) in font.chunks_exact(16).take(256).enumerate() {
        for (row, byte) in dots.iter().enumerate() {
            bus.memory_write(FONTS + (32 * character + row) as u64, 1, (*byte).into(), 0);
        }
    }
    indexed(0x3c4, &SEQUENCER);
    indexed(0x3ce, &GRAPHICS);
    (0..0x8000).step_by(8).for_each(|at| bus.memory_write(TEXT + at, 8, 0x0720_0720_0720_0720, 0));
    // The screen on.
    bus.port_read(0x3da, 1, 0);
    out(0x3c0, 0x20);
    data_area(bus);
}

/// The video part of the BIOS data area.
fn data_area(bus: &Bus) {
    let memory = bus.memory();
    let mut equipment = [0];
    memory.read(0x410, &mut equipment);
    // 80x25 in colour.
    memory.write(0x410, &[equipment[0] & !0x30 | 0x20]);
    // Mode, columns, bytes of a page; cursor shape; CRT controller's port and the CGA's mode registers.
    memory.write(0x449, &[0x03, 80, 0, 0x00, 0x10]);
    memory.write(0x460, &[0x0e, 0x0d, 0x00, 0xd4, 0x03, 0x29, 0x30]);
    // Rows less one, lines of a character, video state, switches.
    memory.write(0x484, &[24, 16, 0, 0x60, 0xf9]);
}
