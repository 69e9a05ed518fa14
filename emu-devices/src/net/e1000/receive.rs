//! Reception: manual 3.2 (descriptors, filters, checksums), 13.4.22 (RCTL), 13.5 (address filters).
//!
//! ```text
//!  63                                    0
//!  | buffer address                      |
//!  | special | errors | status | sum | length |
//! ```

use super::*;
use crate::net::checksum;
use crate::net::ethernet::{self, BROADCAST, MIN_FRAME};

/// Descriptor status bits.
mod rdesc {
    /// Done.
    pub const DD: u8 = 1 << 0;
    /// End of packet.
    pub const EOP: u8 = 1 << 1;
    /// The packet had a VLAN tag.
    pub const VP: u8 = 1 << 3;
    /// The checksum of TCP or UDP was computed.
    pub const TCPCS: u8 = 1 << 5;
    /// The checksum of IP was computed.
    pub const IPCS: u8 = 1 << 6;
    /// The address filter was not exact.
    pub const PIF: u8 = 1 << 7;
    /// Errors: TCP or UDP checksum, IP checksum.
    pub const TCPE: u8 = 1 << 5;
    pub const IPE: u8 = 1 << 6;
}

/// RXCSUM bits: checksums of IP, and of TCP and UDP.
const IPOFL: u32 = 1 << 8;
const TUOFL: u32 = 1 << 9;
/// Frames taken from the cable in one go.
const BURST: usize = 128;
/// Frame without LPE, with a VLAN tag, and with it, both without frame check sequence.
const LONGEST: usize = 1518;
const LONGEST_JUMBO: usize = 16_384 - 4;

/// How a frame passed the filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match {
    Exact,
    Inexact,
}

impl E1000 {
    /// Takes what the cable has.
    pub(super) fn receive(&mut self, cx: &mut DeviceContext) {
        self.more_received = false;
        let mut received = false;
        let mut small = false;
        for turn in 0.. {
            if turn == BURST {
                self.more_received = true;
                break;
            }
            let mut frame = std::mem::take(&mut self.frame);
            let there = self.waiting_until.is_some() || self.backend.receive(&mut frame);
            let taken = there && self.receive_frame(cx, &mut frame, &mut received, &mut small);
            self.frame = frame;
            if !taken {
                break;
            }
        }
        if !received {
            return;
        }
        let r = &mut self.registers;
        if Self::start_timers(&mut r.rx_timers, r.rdtr, r.radv, cx.now) {
            self.raise(cause::RXT0);
        }
        if small {
            self.raise(cause::SRPD);
        }
        let r = &self.registers;
        let threshold = r.rx.descriptors() >> (1 + (r.rctl >> rctl::RDMTS_SHIFT & 3).min(2));
        if r.rx.available() <= threshold {
            self.raise(cause::RXDMT0);
        }
    }

    /// Takes one frame; `false` if it goes on waiting for descriptors.
    fn receive_frame(
        &mut self,
        cx: &mut DeviceContext,
        frame: &mut Vec<u8>,
        received: &mut bool,
        small: &mut bool,
    ) -> bool {
        let r = &self.registers;
        let heard = r.link && r.rctl & rctl::EN != 0 && self.is_master() && !self.loops();
        let Some(how) = heard.then(|| self.filter(frame)).flatten() else {
            self.waiting_until = None;
            return true;
        };
        if !self.fits(frame.len()) {
            let until = *self.waiting_until.get_or_insert(cx.now.plus_nanos(PATIENCE));
            if cx.now < until {
                return false;
            }
            self.waiting_until = None;
            self.registers.statistics.missed();
            self.raise(cause::RXO);
            return true;
        }
        self.waiting_until = None;
        let limit = if self.registers.rctl & rctl::LPE != 0 { LONGEST_JUMBO } else { LONGEST };
        if frame.len() > limit {
            self.registers.statistics.too_long();
            return true;
        }
        *received |= self.store(cx, frame, how);
        *small |= frame.len() + 4 <= self.registers.rsrpd as usize;
        true
    }

    /// Whether what is sent comes back instead of reaching the cable.
    pub(super) fn loops(&self) -> bool {
        self.registers.rctl & rctl::LBM != 0 || self.registers.phy.loops()
    }

    /// A frame that was sent in loopback.
    pub(super) fn receive_own(&mut self, cx: &mut DeviceContext, sent: &[u8]) {
        if self.registers.rctl & rctl::EN == 0 || !self.is_master() {
            return;
        }
        let mut frame = sent.to_vec();
        if let Some(how) = self.filter(&frame).filter(|_| self.fits(sent.len()))
            && self.store(cx, &mut frame, how)
        {
            let r = &mut self.registers;
            if Self::start_timers(&mut r.rx_timers, r.rdtr, r.radv, cx.now) {
                self.raise(cause::RXT0);
            }
        }
    }

    /// The address and VLAN filters: manual 3.2.1 and 9.3.
    fn filter(&self, frame: &[u8]) -> Option<Match> {
        let r = &self.registers;
        if r.rctl & rctl::VFE != 0
            && let Some(tag) = self.vlan_tag(frame)
        {
            let id = usize::from(tag & 0xfff);
            if r.vfta[id >> 5] >> (id & 31) & 1 == 0 {
                return None;
            }
        }
        let destination = ethernet::destination(frame);
        let group = destination[0] & 1 != 0;
        let everything = if group { rctl::MPE } else { rctl::UPE };
        if r.rctl & everything != 0 || destination == BROADCAST && r.rctl & rctl::BAM != 0 {
            return Some(if destination == BROADCAST { Match::Exact } else { Match::Inexact });
        }
        let [a, b, c, d, e, f] = destination;
        let (low, high) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, 0, 0x80]));
        if r.ra.chunks_exact(2).any(|pair| pair == [low, high]) {
            return Some(Match::Exact);
        }
        let shift = [4, 3, 2, 0][(r.rctl >> rctl::MO_SHIFT & 3) as usize];
        let hash = usize::from(u16::from_le_bytes([e, f]) >> shift & 0xfff);
        (group && r.mta[hash >> 5] >> (hash & 31) & 1 != 0).then_some(Match::Inexact)
    }

    /// The tag of a frame of a VLAN.
    fn vlan_tag(&self, frame: &[u8]) -> Option<u16> {
        let field = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
        if u32::from(field(12)?) == self.registers.vet { field(14) } else { None }
    }

    /// Bytes of each buffer.
    fn buffer_size(&self) -> usize {
        let r = self.registers.rctl;
        let size = 2048 >> (r >> rctl::BSIZE_SHIFT & 3);
        match (r & rctl::BSEX != 0, size) {
            // With 2048 this is reserved.
            (true, 256..=1024) => 16 * size,
            _ => size,
        }
    }

    /// Whether there are descriptors for a frame of `len` bytes.
    fn fits(&self, len: usize) -> bool {
        let needed = (len.max(MIN_FRAME) + 4).div_ceil(self.buffer_size());
        self.registers.rx.available() as usize >= needed
    }

    /// Writes a frame to the buffers of descriptors; `false` if those had no buffers.
    fn store(&mut self, cx: &mut DeviceContext, frame: &mut Vec<u8>, how: Match) -> bool {
        if frame.len() < MIN_FRAME {
            frame.resize(MIN_FRAME, 0);
        }
        self.registers.statistics.received(frame);
        let mut status = rdesc::DD | if how == Match::Inexact { rdesc::PIF } else { 0 };
        let mut special = 0;
        let (mut sum, mut errors) = (0, 0);
        self.check(frame, &mut status, &mut errors, &mut sum);
        if let (Some(tag), true) = (self.vlan_tag(frame), self.registers.ctrl & ctrl::VME != 0) {
            status |= rdesc::VP;
            special = tag;
            frame.copy_within(0..12, 4);
            frame.drain(..4);
        }
        if self.registers.rctl & rctl::SECRC == 0 {
            let crc = ethernet::frame_check_sequence(frame);
            frame.extend(crc);
        }
        let size = self.buffer_size();
        let mut left = frame.as_slice();
        while !left.is_empty() {
            if self.registers.rx.available() == 0 {
                return false;
            }
            let at = self.registers.rx.address();
            let mut buffer = [0; 8];
            cx.memory.read(at, &mut buffer);
            let buffer = u64::from_le_bytes(buffer);
            let len = left.len().min(size);
            let mut descriptor = [0; 8];
            // A descriptor without a buffer is passed over: manual 3.2.
            let mut flags = status;
            if buffer != 0 {
                let (now, later) = left.split_at(len);
                cx.memory.write(buffer, now);
                left = later;
                descriptor[..2].copy_from_slice(&(len as u16).to_le_bytes());
                descriptor[2..4].copy_from_slice(&sum.to_le_bytes());
            }
            if left.is_empty() {
                flags |= rdesc::EOP;
                descriptor[5] = errors;
                descriptor[6..].copy_from_slice(&special.to_le_bytes());
            } else {
                flags &= rdesc::DD;
            }
            descriptor[4] = flags;
            cx.memory.write(at.wrapping_add(8), &descriptor);
            self.registers.rx.advance();
        }
        true
    }

    /// Computes checksums: manual 3.2.9.
    fn check(&self, frame: &[u8], status: &mut u8, errors: &mut u8, sum: &mut u16) {
        let start = (self.registers.rxcsum & 0xff) as usize;
        *sum = frame.get(start..).map_or(0, checksum::sum).swap_bytes();
        if self.registers.rxcsum & (IPOFL | TUOFL) == 0 {
            return;
        }
        let at = if self.vlan_tag(frame).is_some() { 16 } else { 12 };
        let Some(&[high, low]) = frame.get(at..at + 2) else { return };
        let verdict = checksum::verify(frame, u16::from_be_bytes([high, low]), at + 2);
        if let (Some(good), true) = (verdict.ip, self.registers.rxcsum & IPOFL != 0) {
            *status |= rdesc::IPCS;
            *errors |= if good { 0 } else { rdesc::IPE };
        }
        if let (Some(good), true) = (verdict.transport, self.registers.rxcsum & TUOFL != 0) {
            *status |= rdesc::TCPCS;
            *errors |= if good { 0 } else { rdesc::TCPE };
        }
    }
}
