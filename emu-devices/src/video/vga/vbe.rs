//! The VBE display interface of Bochs ("VBE DISPI", vbe_display_api.txt), version 5 (B0C5h): index at 1CEh, data at 1CFh
//! and 1D0h.
//!
//! Registers can be set in any order while it is off; when it is on they are brought within memory and size at each
//! write. Then it governs size, depth and addresses, and the VGA's registers only the palette. Deliberately absent:
//! banks apart for reading and writing, 32 KiB banks, and DDC (the EDID is in the memory BAR).

use crate::video::{MAX_HEIGHT, MAX_WIDTH};
use serde::{Deserialize, Serialize};

/// What the ID register says first.
const NEWEST_ID: u16 = 0xb0c5;
/// Bytes of a bank.
pub const BANK: usize = 0x1_0000;

/// Bits of the enable register.
mod enable {
    pub const ENABLED: u16 = 0x01;
    pub const GETCAPS: u16 = 0x02;
    pub const EIGHT_BIT_DAC: u16 = 0x20;
    pub const NOCLEARMEM: u16 = 0x80;
}

/// A register, as the index names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    Id,
    Xres,
    Yres,
    Bpp,
    Enable,
    Bank,
    VirtWidth,
    VirtHeight,
    XOffset,
    YOffset,
    VideoMemory64k,
}

impl Register {
    const ALL: [Register; 11] = [
        Register::Id,
        Register::Xres,
        Register::Yres,
        Register::Bpp,
        Register::Enable,
        Register::Bank,
        Register::VirtWidth,
        Register::VirtHeight,
        Register::XOffset,
        Register::YOffset,
        Register::VideoMemory64k,
    ];

    fn decode(index: u16) -> Option<Register> {
        Register::ALL.get(usize::from(index)).copied()
    }
}

/// Bits of a pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// 16 colours in four planes.
    Planar4,
    /// 256 colours.
    Indexed8,
    /// 5, 5 and 5 bits.
    Rgb555,
    /// 5, 6 and 5 bits.
    Rgb565,
    /// Blue, green, red: a byte each.
    Rgb888,
    /// Blue, green, red, unused: a byte each.
    Xrgb8888,
}

impl Depth {
    fn decode(bpp: u16) -> Option<Depth> {
        Some(match bpp {
            4 => Depth::Planar4,
            8 => Depth::Indexed8,
            15 => Depth::Rgb555,
            16 => Depth::Rgb565,
            24 => Depth::Rgb888,
            32 => Depth::Xrgb8888,
            _ => return None,
        })
    }

    /// Bits that a pixel takes in memory.
    pub fn bits(self) -> usize {
        match self {
            Depth::Planar4 => 4,
            Depth::Indexed8 => 8,
            Depth::Rgb555 | Depth::Rgb565 => 16,
            Depth::Rgb888 => 24,
            Depth::Xrgb8888 => 32,
        }
    }
}

/// A display mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VbeMode {
    /// Pixels in a row, a multiple of 8.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Pixel format.
    pub depth: Depth,
    /// Bytes from row to row; with [`Depth::Planar4`] of all four planes together.
    pub pitch: usize,
    /// First pixel that is shown: column and row.
    pub offset: (usize, usize),
}

/// The interface's registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vbe {
    /// Index register, 1CEh.
    pub index: u16,
    id: u16,
    xres: u16,
    yres: u16,
    bpp: u16,
    enable: u16,
    bank: u16,
    virt_width: u16,
    x_offset: u16,
    y_offset: u16,
}

impl Default for Vbe {
    fn default() -> Vbe {
        Vbe {
            index: 0,
            id: NEWEST_ID,
            xres: 0,
            yres: 0,
            bpp: 0,
            enable: 0,
            bank: 0,
            virt_width: 0,
            x_offset: 0,
            y_offset: 0,
        }
    }
}

/// `value` as a number of pixels that planes and monitors can take.
fn pixels(value: u16, max: usize) -> u16 {
    (usize::from(value) & !7).clamp(8, max) as u16
}

impl Vbe {
    /// Reads the register that `index` names. `memory`: bytes of video memory.
    pub fn read(&self, index: u16, memory: usize) -> u16 {
        let caps = self.enable & enable::GETCAPS != 0;
        match Register::decode(index) {
            Some(Register::Id) => self.id,
            Some(Register::Xres) => {
                if caps {
                    MAX_WIDTH as u16
                } else {
                    self.xres
                }
            }
            Some(Register::Yres) => {
                if caps {
                    MAX_HEIGHT as u16
                } else {
                    self.yres
                }
            }
            Some(Register::Bpp) => {
                if caps {
                    32
                } else {
                    self.bpp
                }
            }
            Some(Register::Enable) => self.enable,
            Some(Register::Bank) => self.bank,
            Some(Register::VirtWidth) => self.virt_width,
            Some(Register::VirtHeight) => self.mode().map_or(0, |mode| (memory / mode.pitch).min(0xffff) as u16),
            Some(Register::XOffset) => self.x_offset,
            Some(Register::YOffset) => self.y_offset,
            Some(Register::VideoMemory64k) => (memory / BANK).min(0xffff) as u16,
            None => 0,
        }
    }

    /// Writes the register that `index` names. Whether the picture is now to be cleared.
    pub fn write(&mut self, index: u16, value: u16, memory: usize) -> bool {
        let mut clear = false;
        match Register::decode(index) {
            Some(Register::Id) if (0xb0c0..=NEWEST_ID).contains(&value) => self.id = value,
            Some(Register::Xres) => self.xres = value,
            Some(Register::Yres) => self.yres = value,
            Some(Register::Bpp) => self.bpp = value,
            Some(Register::Enable) => {
                let turned_on = value & enable::ENABLED != 0 && !self.enabled();
                if turned_on {
                    (self.virt_width, self.x_offset, self.y_offset) = (0, 0, 0);
                    clear = value & enable::NOCLEARMEM == 0;
                }
                self.bank = 0;
                self.enable = value;
            }
            Some(Register::Bank) => self.bank = (usize::from(value) % (memory / BANK).max(1)) as u16,
            Some(Register::VirtWidth) => self.virt_width = value,
            Some(Register::XOffset) => self.x_offset = value,
            Some(Register::YOffset) => self.y_offset = value,
            // Read-only; the height of the virtual screen follows from memory.
            Some(Register::Id | Register::VirtHeight | Register::VideoMemory64k) | None => {}
        }
        self.sanitise(memory);
        clear
    }

    /// Brings the registers of a mode that is on within bounds: a size that a monitor takes, in memory.
    pub fn sanitise(&mut self, memory: usize) {
        if !self.enabled() {
            return;
        }
        let depth = Depth::decode(self.bpp).unwrap_or_else(|| {
            self.bpp = 8;
            Depth::Indexed8
        });
        self.xres = pixels(self.xres, MAX_WIDTH);
        self.yres = self.yres.clamp(1, MAX_HEIGHT as u16);
        // Rows of the least width that fit tell how many there can be at most; then the width gives way to the height.
        let rows = (memory * 8 / (usize::from(self.xres) * depth.bits())).max(1);
        self.yres = self.yres.min(rows.min(MAX_HEIGHT) as u16);
        let widest = (memory * 8 / (usize::from(self.yres) * depth.bits())).min(0xfff8);
        self.virt_width = pixels(self.virt_width.max(self.xres), widest & !7);
        let pitch = usize::from(self.virt_width) * depth.bits() / 8;
        self.x_offset = self.x_offset.min(self.virt_width - self.xres);
        self.y_offset = usize::from(self.y_offset).min((memory / pitch).saturating_sub(self.yres.into())) as u16;
    }

    /// A mode is on.
    pub fn enabled(&self) -> bool {
        self.enable & enable::ENABLED != 0
    }

    /// The DAC takes components of 8 bits.
    pub fn eight_bit_dac(&self) -> bool {
        self.enable & enable::EIGHT_BIT_DAC != 0
    }

    /// Where the window at A0000h begins: in memory, or with 4 bits for each pixel in the planes.
    pub fn bank_offset(&self) -> usize {
        usize::from(self.bank) * BANK
    }

    /// The mode that is on.
    pub fn mode(&self) -> Option<VbeMode> {
        let depth = Depth::decode(self.bpp).filter(|_| self.enabled())?;
        Some(VbeMode {
            width: usize::from(self.xres).clamp(8, MAX_WIDTH),
            height: usize::from(self.yres).clamp(1, MAX_HEIGHT),
            depth,
            pitch: (usize::from(self.virt_width) * depth.bits() / 8).max(4),
            offset: (self.x_offset.into(), self.y_offset.into()),
        })
    }
}
