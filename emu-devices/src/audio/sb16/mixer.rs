//! The CT1745 mixer: volumes, and the choice of interrupt and DMA channels.
//!
//! Follows the Creative "Sound Blaster Series Hardware Programming Guide", chapter 4.

use serde::{Deserialize, Serialize};

/// Volumes of the CT1745 have 5 bits at the top of a byte, 2 dB each: -62 dB to 0 dB.
const FULL: u8 = 31;

/// Registers that matter to the digital voice.
mod reg {
    pub const RESET: u8 = 0x00;
    pub const MASTER: u8 = 0x30;
    pub const VOICE: u8 = 0x32;
    pub const OUTPUT_GAIN: u8 = 0x41;
    pub const IRQ: u8 = 0x80;
    pub const DMA: u8 = 0x81;
    pub const IRQ_STATUS: u8 = 0x82;
}

/// SB Pro registers and the pair of 5-bit registers that each is a view of.
const LEGACY: [(u8, u8); 5] = [(0x04, 0x32), (0x22, 0x30), (0x26, 0x34), (0x28, 0x36), (0x2e, 0x38)];

/// Register values after a mixer reset, and which bits can be written.
const DEFAULTS: [(u8, u8, u8); 24] = [
    (0x0a, 0x00, 0x07),
    (0x30, 0xc0, 0xf8),
    (0x31, 0xc0, 0xf8),
    (0x32, 0xc0, 0xf8),
    (0x33, 0xc0, 0xf8),
    (0x34, 0xc0, 0xf8),
    (0x35, 0xc0, 0xf8),
    (0x36, 0x00, 0xf8),
    (0x37, 0x00, 0xf8),
    (0x38, 0x00, 0xf8),
    (0x39, 0x00, 0xf8),
    (0x3a, 0x00, 0xf8),
    (0x3b, 0x00, 0xc0),
    (0x3c, 0x1f, 0x1f),
    (0x3d, 0x15, 0x7f),
    (0x3e, 0x0b, 0x7f),
    (0x3f, 0x00, 0xc0),
    (0x40, 0x00, 0xc0),
    (0x41, 0x00, 0xc0),
    (0x42, 0x00, 0xc0),
    (0x43, 0x00, 0x01),
    (0x44, 0x80, 0xf0),
    (0x45, 0x80, 0xf0),
    (0x46, 0x80, 0xf0),
];

/// The chip's registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ct1745 {
    /// The index at port 2x4h.
    pub index: u8,
    /// Registers 30h to 47h.
    values: Vec<u8>,
    /// Register 0Ah, the microphone as the SB Pro sees it.
    microphone: u8,
    /// Register 80h: one bit for each of IRQ 2, 5, 7, 10.
    pub irq: u8,
    /// Register 81h: a bit for each DMA channel.
    pub dma: u8,
}

impl Ct1745 {
    /// After power-on, with the jumpers at `irq` and `dma`.
    pub fn new(irq: u8, dma: u8) -> Ct1745 {
        let mut mixer = Ct1745 { index: 0, values: vec![0; 24], microphone: 0, irq, dma };
        mixer.reset();
        mixer
    }

    /// Brings a deserialised mixer within its bounds.
    pub fn sanitise(&mut self) {
        self.values.resize(24, 0);
    }

    fn reset(&mut self) {
        for (register, value, _) in DEFAULTS {
            self.store(register, value);
        }
        self.store(0x47, 0x80);
    }

    fn load(&self, register: u8) -> u8 {
        self.values.get(usize::from(register.wrapping_sub(0x30))).copied().unwrap_or(0)
    }

    fn store(&mut self, register: u8, value: u8) {
        if register == 0x0a {
            self.microphone = value;
        } else if let Some(place) = self.values.get_mut(usize::from(register.wrapping_sub(0x30))) {
            *place = value;
        }
    }

    /// The data port; `status`: the interrupts that are pending.
    pub fn read(&self, status: u8) -> u8 {
        match self.index {
            reg::IRQ => self.irq | 0xf0,
            reg::DMA => self.dma,
            reg::IRQ_STATUS => status,
            0x0a => self.microphone,
            index => match LEGACY.into_iter().find(|(legacy, _)| *legacy == index) {
                Some((_, left)) => self.load(left) & 0xf0 | self.load(left + 1) >> 4,
                None => self.load(index),
            },
        }
    }

    /// The data port.
    pub fn write(&mut self, value: u8) {
        match self.index {
            reg::RESET => self.reset(),
            reg::IRQ => self.irq = value & 0x0f,
            reg::DMA => self.dma = value & 0xeb,
            0x47 => self.store(0x47, value & 0xf0),
            index => {
                if let Some((_, left)) = LEGACY.into_iter().find(|(legacy, _)| *legacy == index) {
                    self.store(left, value & 0xf0 | 0x08);
                    self.store(left + 1, value << 4 | 0x08);
                } else if let Some((_, _, mask)) = DEFAULTS.into_iter().find(|(register, ..)| *register == index) {
                    self.store(index, value & mask);
                }
            }
        }
    }

    /// How loud the digital voice is, left and right: 1 for full scale.
    pub fn voice_gain(&self) -> [f32; 2] {
        [0, 1].map(|side| {
            let volume = |register: u8| {
                let level = self.load(register + side) >> 3;
                10f32.powf(f32::from(FULL - level) * -2.0 / 20.0)
            };
            let gain = f32::from(1u8 << (self.load(reg::OUTPUT_GAIN + side) >> 6));
            volume(reg::MASTER) * volume(reg::VOICE) * gain
        })
    }
}
