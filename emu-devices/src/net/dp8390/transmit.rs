//! Transmission: DP8390D data sheet 8, and 12 for loopback.

use super::*;
use crate::net::ethernet;

/// Transmit status register bits.
mod tsr {
    pub const PTX: u8 = 1 << 0;
    /// Not documented but for Realtek's controllers, where it is always set; AN 937 shows both.
    pub const ALWAYS: u8 = 1 << 1;
    /// Carrier sense lost.
    pub const CRS: u8 = 1 << 4;
    /// Collision detect heartbeat missing.
    pub const CDH: u8 = 1 << 6;
}

impl<E: Extension> Dp8390<E> {
    /// Sends the frame at TPSR, at once.
    pub(super) fn transmit(&mut self) {
        let mut frame = std::mem::take(&mut self.outgoing);
        frame.clear();
        let mode = (self.state.tcr & tcr::LB) >> 1;
        let start = u16::from(self.state.tpsr) << 8;
        let loops = mode != 0 && self.state.dcr & dcr::LS == 0;
        if loops && self.state.dcr & dcr::WTS != 0 {
            // Only one byte of each word goes round: data sheet 12, "Restrictions During Loopback".
            let odd = u16::from(self.state.dcr & dcr::BOS == 0);
            frame.extend((0..self.state.tbcr / 2).map(|i| self.memory(start.wrapping_add(2 * i + odd))));
        } else {
            self.fetch(start, self.state.tbcr, &mut frame);
        }
        self.state.clda = start.wrapping_add(self.state.tbcr);
        let by_software = self.state.tcr & tcr::CRC != 0;
        if loops {
            self.state.tsr = tsr::ALWAYS
                | tsr::PTX
                | match mode {
                    1 => tsr::CRS | tsr::CDH,
                    2 => tsr::CDH,
                    _ => 0,
                };
            if mode == 3 {
                self.send(&frame, by_software);
            }
            if !by_software {
                let crc = ethernet::frame_check_sequence(&frame);
                frame.extend(crc);
            }
            self.loop_back(&frame, by_software);
        } else {
            self.state.tsr = tsr::ALWAYS | tsr::PTX;
            self.send(&frame, by_software);
        }
        self.state.isr |= isr::PTX;
        self.outgoing = frame;
    }

    /// Puts `frame` on the cable. Its last four bytes are its CRC if software made one; where that is wrong, no station takes the frame.
    fn send(&mut self, frame: &[u8], by_software: bool) {
        let frame = match frame.split_last_chunk() {
            Some((data, crc)) if by_software && ethernet::frame_check_sequence(data) == *crc => data,
            _ if by_software => return,
            _ => frame,
        };
        if !frame.is_empty() {
            self.backend.send(frame);
        }
    }

    /// Appends `len` bytes of card memory from `start`, wrapping at 64 KiB.
    fn fetch(&self, start: u16, len: u16, frame: &mut Vec<u8>) {
        let within = usize::from(start.wrapping_sub(BUFFER));
        match self.state.buffer.get(within..within + usize::from(len)) {
            Some(bytes) => frame.extend_from_slice(bytes),
            None => frame.extend((0..len).map(|i| self.memory(start.wrapping_add(i)))),
        }
    }
}
