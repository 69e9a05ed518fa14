//! Reception: DP8390D data sheet 7.
//!
//! ```text
//!  PSTART        BNRY                  CURR         PSTOP
//!    | free .......| read by the host    | free ......|   each page 256 bytes
//!                                        +-- status, next page, count low, count high, frame, CRC
//! ```
//! CURR = BNRY means that the ring is empty, as the data sheet initialises it; so a frame that would leave CURR there overflows.

use super::*;
use crate::net::ethernet::{self, BROADCAST, MIN_FRAME};

/// Receive status register bits.
mod rsr {
    pub const PRX: u8 = 1 << 0;
    pub const CRC: u8 = 1 << 1;
    pub const MPA: u8 = 1 << 4;
    /// A group address.
    pub const PHY: u8 = 1 << 5;
    /// Receiver disabled: monitor mode.
    pub const DIS: u8 = 1 << 6;
}

/// Bytes in front of a frame in the ring.
const HEADER: usize = 4;
const CRC: usize = 4;

impl<E: Extension> Dp8390<E> {
    /// Takes what the cable has.
    pub(super) fn receive(&mut self, now: Instant) {
        self.more = false;
        for _ in 0..BURST {
            let mut frame = std::mem::take(&mut self.frame);
            let there = self.waiting_until.is_some() || self.backend.receive(&mut frame);
            self.frame = frame;
            if !there {
                return;
            }
            if !self.receive_frame(now) {
                return;
            }
        }
        self.more = true;
    }

    /// Takes `self.frame` from the cable; `false` if it goes on waiting for room in the ring.
    fn receive_frame(&mut self, now: Instant) -> bool {
        let heard = self.state.started && !self.in_loopback();
        if !heard || !self.accepts(ethernet::destination(&self.frame)) {
            self.waiting_until = None;
            return true;
        }
        if self.frame.len() < MIN_FRAME {
            self.frame.resize(MIN_FRAME, 0);
        }
        let group = if self.frame[0] & 1 != 0 { rsr::PHY } else { 0 };
        if self.state.rcr & rcr::MON != 0 {
            self.waiting_until = None;
            self.state.rsr = rsr::MPA | rsr::DIS | group;
            self.tally(2);
            return true;
        }
        if !self.fits(self.frame.len()) {
            let until = *self.waiting_until.get_or_insert(now.plus_nanos(PATIENCE));
            if now < until {
                // A driver that has taken some frames and acknowledged them all waits for one more to come, for which there is no room
                // before it takes what is there.
                self.state.isr |= isr::PRX;
                return false;
            }
        }
        self.waiting_until = None;
        let crc = ethernet::frame_check_sequence(&self.frame);
        self.frame.extend(crc);
        self.store(group);
        true
    }

    /// Whether TCR and DCR ask for loopback, in which nothing is heard of the cable.
    pub(super) fn in_loopback(&self) -> bool {
        self.state.tcr & tcr::LB != 0
    }

    /// Address recognition: data sheet 10.3, "Receive Configuration Register".
    pub(super) fn accepts(&self, destination: [u8; 6]) -> bool {
        let s = &self.state;
        if destination[0] & 1 == 0 {
            return s.rcr & rcr::PRO != 0 || destination == s.par;
        }
        if destination == BROADCAST && s.rcr & rcr::AB != 0 {
            return true;
        }
        let hash = ethernet::multicast_hash(destination);
        s.rcr & rcr::AM != 0 && s.mar[usize::from(hash >> 3)] >> (hash & 7) & 1 != 0
    }

    fn next_page(&self, page: u8) -> u8 {
        let next = page.wrapping_add(1);
        if next == self.state.pstop { self.state.pstart } else { next }
    }

    /// Whether a frame of `len` bytes, without CRC, fits into the ring.
    ///
    /// Linux's driver keeps the boundary one page behind what it reads: below the ring, where the chip never meets it, while it reads at the
    /// start. A wire of 10 Mbit/s does not fill the ring meanwhile, but this cable does; so the boundary then counts as the ring's last page.
    fn fits(&self, len: usize) -> bool {
        let s = &self.state;
        let boundary = if s.bnry.wrapping_add(1) == s.pstart { s.pstop.wrapping_sub(1) } else { s.bnry };
        let mut page = s.curr;
        for _ in 0..(HEADER + len + CRC).div_ceil(256) {
            page = self.next_page(page);
            if page == boundary {
                return false;
            }
        }
        true
    }

    /// Writes `self.frame`, which has its CRC, to the ring, as far as there is room.
    fn store(&mut self, group: u8) {
        let frame = std::mem::take(&mut self.frame);
        let first = u16::from(self.state.curr) << 8;
        let mut page = self.state.curr;
        let mut at = first | HEADER as u16;
        let mut left = frame.as_slice();
        let mut room = 256 - HEADER;
        loop {
            let (now, later) = left.split_at(room.min(left.len()));
            for byte in now {
                self.set_memory(at, *byte);
                at = at.wrapping_add(1);
            }
            self.state.clda = at;
            page = self.next_page(page);
            if page == self.state.bnry {
                self.overflow();
                self.frame = frame;
                return;
            }
            (left, room) = (later, 256);
            if left.is_empty() {
                break;
            }
            at = u16::from(page) << 8;
        }
        let status = rsr::PRX | group;
        let [low, high] = (frame.len() as u16).to_le_bytes();
        for (i, byte) in [status, page, low, high].into_iter().enumerate() {
            self.set_memory(first | i as u16, byte);
        }
        self.state.rsr = status;
        self.state.curr = page;
        self.state.local_next = page;
        self.state.isr |= isr::PRX;
        self.frame = frame;
    }

    /// Data sheet 7, "Buffer Ring Overflow": reception is aborted, RST tells of it until the host makes room.
    fn overflow(&mut self) {
        self.state.isr |= isr::OVW | isr::RST;
        self.state.rsr = rsr::MPA | self.state.rsr & rsr::DIS;
        self.tally(2);
    }

    /// What the receiver makes of a frame that comes back in loopback: data sheet 12 and Application Note 937, 5 and 6. `frame` has its CRC;
    /// `checked`: software made it, so that the receiver can check it.
    pub(super) fn loop_back(&mut self, frame: &[u8], checked: bool) {
        // The last bytes stay in the FIFO, with the count behind them.
        for (i, byte) in frame.iter().enumerate().skip(frame.len().saturating_sub(8)) {
            self.state.fifo[i & 7] = *byte;
        }
        let [low, high] = (frame.len() as u16).to_le_bytes();
        for (i, byte) in [low, high, high].into_iter().enumerate() {
            self.state.fifo[(frame.len() + i) & 7] = byte;
        }
        self.state.fifo_position = 0;
        let destination = ethernet::destination(frame);
        let group = if destination[0] & 1 != 0 { rsr::PHY } else { 0 };
        let runt = frame.len() < MIN_FRAME + CRC && self.state.rcr & rcr::AR == 0;
        let split = frame.len().saturating_sub(CRC);
        let good = checked && ethernet::frame_check_sequence(&frame[..split]) == frame[split..];
        if !self.accepts(destination) || good && !runt {
            // A frame for others leaves no error behind; PRX of the ISR needs a frame in memory.
            self.state.rsr = rsr::PRX | group;
        } else {
            self.state.rsr = rsr::CRC | group;
            self.state.isr |= isr::RXE;
            self.tally(1);
        }
    }
}
