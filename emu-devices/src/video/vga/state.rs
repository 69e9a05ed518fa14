//! All registers of the card together: which port is which, and the processor's window on the planes.
//!
//! ```text
//!  3B4 3B5 3BA or 3D4 3D5 3DA  by miscellaneous output bit 0: CRT controller, input status 1 (read), feature control (write)
//!  3C0 3C1 attribute   3C2 misc. output (write), input status 0 (read)   3C3 video enable   3C4 3C5 sequencer
//!  3C6 to 3C9 DAC      3CA feature control (read)   3CC misc. output (read)   3CE 3CF graphics controller
//! ```
//! In memory the planes are interleaved: byte `4 * address + plane`. Chain-4 memory is packed, as most cards but IBM's
//! have it: four neighbouring bytes are the four planes at one address, so that it is linear.

use super::attribute::Attribute;
use super::crtc::Crtc;
use super::dac::Dac;
use super::graphics::Graphics;
use super::sequencer::Sequencer;
use super::timing::Timing;
use super::vbe::{Depth, Vbe};
use emu_core::clock::Instant;
use serde::{Deserialize, Serialize};

/// Miscellaneous output, bit 0: the registers are at 3Dxh, not 3Bxh.
const COLOUR_PORTS: u8 = 0x01;
/// Miscellaneous output, bit 1: the processor may access memory.
const MEMORY_ENABLE: u8 = 0x02;
/// Input status 0, bit 4: a colour monitor loads the DAC's outputs.
const MONITOR_SENSE: u8 = 0x10;
/// Input status 0, bit 7: the vertical interrupt is pending.
const INTERRUPT_PENDING: u8 = 0x80;
/// Bytes of a plane of a VGA.
pub const PLANE: usize = 0x1_0000;

/// All guest-visible registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VgaState {
    /// Miscellaneous output.
    pub misc: u8,
    /// Feature control.
    pub feature: u8,
    /// Video subsystem enable, which is stored only.
    pub video_enable: u8,
    /// Sequencer.
    pub sequencer: Sequencer,
    /// CRT controller.
    pub crtc: Crtc,
    /// Graphics controller.
    pub graphics: Graphics,
    /// Attribute controller.
    pub attribute: Attribute,
    /// DAC.
    pub dac: Dac,
    /// VBE display interface.
    pub vbe: Vbe,
    /// Retraces from here on make the vertical interrupt pending.
    interrupt_since: Instant,
}

impl Default for VgaState {
    fn default() -> VgaState {
        VgaState {
            misc: 0,
            feature: 0,
            video_enable: 1,
            sequencer: Sequencer::default(),
            crtc: Crtc::default(),
            graphics: Graphics::default(),
            attribute: Attribute::default(),
            dac: Dac::default(),
            vbe: Vbe::default(),
            interrupt_since: Instant::ZERO,
        }
    }
}

/// A byte-wide register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    CrtcIndex,
    CrtcData,
    /// Input status 1; written: feature control.
    InputStatus1,
    Attribute,
    AttributeRead,
    /// Input status 0; written: miscellaneous output.
    InputStatus0,
    VideoEnable,
    SequencerIndex,
    SequencerData,
    PelMask,
    /// DAC state; written: read address.
    DacState,
    DacWriteAddress,
    DacData,
    FeatureRead,
    MiscRead,
    GraphicsIndex,
    GraphicsData,
}

impl Port {
    fn decode(port: u16, misc: u8) -> Option<Port> {
        let crtc = if misc & COLOUR_PORTS != 0 { 0x3d0 } else { 0x3b0 };
        Some(match port {
            0x3c0 => Port::Attribute,
            0x3c1 => Port::AttributeRead,
            0x3c2 => Port::InputStatus0,
            0x3c3 => Port::VideoEnable,
            0x3c4 => Port::SequencerIndex,
            0x3c5 => Port::SequencerData,
            0x3c6 => Port::PelMask,
            0x3c7 => Port::DacState,
            0x3c8 => Port::DacWriteAddress,
            0x3c9 => Port::DacData,
            0x3ca => Port::FeatureRead,
            0x3cc => Port::MiscRead,
            0x3ce => Port::GraphicsIndex,
            0x3cf => Port::GraphicsData,
            _ if port & 0xfff0 != crtc => return None,
            _ => match port & 0xf {
                // The index is decoded at every even port, the data at every odd one, as on the CGA.
                0x0 | 0x2 | 0x4 | 0x6 => Port::CrtcIndex,
                0x1 | 0x3 | 0x5 | 0x7 => Port::CrtcData,
                0xa => Port::InputStatus1,
                _ => return None,
            },
        })
    }
}

/// What of memory an access of the processor reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The byte at this offset, past the graphics controller.
    Linear(usize),
    /// The four planes at an address.
    Planes {
        /// Offset of plane 0's byte in memory.
        offset: usize,
        /// Planes that a write may reach.
        write: u8,
        /// The plane that a read sees.
        read: u8,
    },
}

impl VgaState {
    /// Reads a byte-wide port; `None`: it is not decoded.
    pub fn read_port(&mut self, port: u16, now: Instant) -> Option<u8> {
        Some(match Port::decode(port, self.misc)? {
            Port::CrtcIndex => self.crtc.index,
            Port::CrtcData => {
                let latch = self.graphics.latches.to_le_bytes()[usize::from(self.graphics.read_map() & 3)];
                self.crtc.read(latch, (self.attribute.index, self.attribute.data_next))
            }
            Port::InputStatus1 => {
                self.attribute.data_next = false;
                let beam = Timing::new(self).beam(now);
                u8::from(!beam.displaying) | u8::from(beam.vertical_retrace) << 3
            }
            Port::Attribute => self.attribute.index,
            Port::AttributeRead => self.attribute.read(),
            Port::InputStatus0 => MONITOR_SENSE | if self.interrupt_pending(now) { INTERRUPT_PENDING } else { 0 },
            Port::VideoEnable => self.video_enable,
            Port::SequencerIndex => self.sequencer.index,
            Port::SequencerData => self.sequencer.read(),
            Port::PelMask => self.dac.mask,
            Port::DacState => self.dac.state(),
            Port::DacWriteAddress => self.dac.address(),
            Port::DacData => self.dac.read(self.vbe.eight_bit_dac()),
            Port::FeatureRead => self.feature,
            Port::MiscRead => self.misc,
            Port::GraphicsIndex => self.graphics.index,
            Port::GraphicsData => self.graphics.read(),
        })
    }

    /// Writes a byte-wide port.
    pub fn write_port(&mut self, port: u16, value: u8, now: Instant) {
        let Some(port) = Port::decode(port, self.misc) else { return };
        match port {
            Port::CrtcIndex => self.crtc.index = value,
            Port::CrtcData => {
                let armed = self.crtc.interrupt_armed();
                self.crtc.write(value);
                if !armed && self.crtc.interrupt_armed() {
                    self.interrupt_since = now;
                }
            }
            Port::InputStatus1 => self.feature = value,
            Port::Attribute => self.attribute.write(value),
            Port::InputStatus0 => self.misc = value,
            Port::VideoEnable => self.video_enable = value,
            Port::SequencerIndex => self.sequencer.index = value,
            Port::SequencerData => self.sequencer.write(value),
            Port::PelMask => self.dac.mask = value,
            Port::DacState => self.dac.set_read_address(value),
            Port::DacWriteAddress => self.dac.set_write_address(value),
            Port::DacData => self.dac.write(value, self.vbe.eight_bit_dac()),
            Port::GraphicsIndex => self.graphics.index = value,
            Port::GraphicsData => self.graphics.write(value),
            Port::AttributeRead | Port::FeatureRead | Port::MiscRead => {}
        }
    }

    fn interrupt_pending(&self, now: Instant) -> bool {
        let timing = Timing::new(self);
        self.crtc.interrupt_armed() && timing.retraces(now) > timing.retraces(self.interrupt_since)
    }

    /// What physical address `address` between A0000h and BFFFFh reaches in `memory` bytes; `None`: nothing here.
    pub fn window(&self, address: u64, memory: usize) -> Option<Window> {
        let depth = self.vbe.mode().map(|mode| mode.depth);
        if let Some(depth) = depth.filter(|depth| *depth != Depth::Planar4) {
            debug_assert!(depth.bits() >= 8);
            let offset = usize::try_from(address.checked_sub(0xa_0000)?).ok()?;
            return (offset < super::vbe::BANK).then(|| Window::Linear((self.vbe.bank_offset() + offset) % memory));
        }
        let aperture = self.graphics.aperture();
        let offset = address.wrapping_sub(aperture.start);
        if self.misc & MEMORY_ENABLE == 0 || offset >= aperture.len {
            return None;
        }
        let offset = offset as usize;
        let mask = self.sequencer.map_mask();
        if self.sequencer.chain_4() {
            let plane = (offset & 3) as u8;
            return Some(Window::Planes {
                offset: offset & !3 & (4 * PLANE - 1),
                write: mask & 1 << plane,
                read: plane,
            });
        }
        let odd = (offset & 1) as u8;
        let write = if self.sequencer.odd_even() { mask & 0x5 << odd } else { mask };
        let read = match (self.graphics.odd_even_reads(), self.graphics.read_map()) {
            (true, map) => map & 2 | odd,
            (false, map) => map & 3,
        };
        let address = match self.graphics.chain_odd_even() {
            // Of the 128 KiB of the whole window, bit 16 takes the place of bit 0.
            true => offset & !1 & (PLANE - 1) | offset >> 16 & 1,
            false => offset & (PLANE - 1),
        };
        let address = if depth.is_some() { (self.vbe.bank_offset() + address) % (memory / 4) } else { address };
        Some(Window::Planes { offset: 4 * address, write, read })
    }

    /// Brings a restored state within its bounds, for `memory` bytes.
    pub fn sanitise(&mut self, memory: usize) {
        self.dac.sanitise();
        self.vbe.sanitise(memory);
    }
}
