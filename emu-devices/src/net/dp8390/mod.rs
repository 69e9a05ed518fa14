//! The DP8390 network interface controller with the memory and ports of an NE2000 card around it.
//!
//! National Semiconductor DP8390D/NS32490D data sheet (July 1995): 6 (local DMA), 7 (reception), 8 (transmission), 9 (remote DMA), 10
//! (registers), 12 (loopback), and Application Note 937 for what loopback leaves in the status registers. The card, after Novell's NE2000:
//!
//! ```text
//!  ports                 memory that DMA sees
//!  00-0F  registers      0000-001F  station address PROM: each byte twice, 57h 57h at its end
//!  10-17  data port      4000-7FFF  packet buffer
//!  18-1F  reset          elsewhere FFh
//! ```
//! A frame that finds the ring full waits on the cable for [`PATIENCE`], as behind a switch, and overflows the ring only then: otherwise a host that is faster
//! than 10 Mbit/s would have every driver recover from overflows all the time. Frames from the cable are padded to 60 bytes, so that
//! runts do not occur but in loopback. Deliberately absent: collisions, deferral, FIFO thresholds and the time that bits take; the cable has no errors.

mod receive;
mod registers;
mod transmit;

use super::{MacAddress, NetBackend};
use emu_core::bus::Notifier;
use emu_core::clock::Instant;
use emu_core::device::{Access, DeviceContext, ResetKind};
use emu_core::irq::IrqLine;
use registers::{ReadRegister, WriteRegister};
use serde::{Deserialize, Serialize};

/// Ports of a card.
pub const PORTS: u16 = 0x20;
/// How long a frame waits for room in the ring before it overflows it, in nanoseconds.
pub const PATIENCE: u64 = 100_000_000;

/// Where DMA sees the packet buffer.
const BUFFER: u16 = 0x4000;
const BUFFER_SIZE: usize = 0x4000;
const PROM_SIZE: usize = 0x20;
/// Frames taken from the cable in one poll: so that no storm keeps the guest from running.
const BURST: usize = 64;

/// Command register bits.
mod cr {
    pub const STP: u8 = 1 << 0;
    pub const STA: u8 = 1 << 1;
    pub const TXP: u8 = 1 << 2;
    /// Remote DMA commands, and their place.
    pub const RD: u8 = 7 << 3;
    pub const REMOTE_READ: u8 = 1 << 3;
    pub const REMOTE_WRITE: u8 = 2 << 3;
    pub const SEND_PACKET: u8 = 3 << 3;
    /// Abort or complete remote DMA, whatever the lower two bits say.
    pub const ABORT: u8 = 4 << 3;
}

/// Interrupt status register bits.
mod isr {
    pub const PRX: u8 = 1 << 0;
    pub const PTX: u8 = 1 << 1;
    pub const RXE: u8 = 1 << 2;
    pub const OVW: u8 = 1 << 4;
    pub const CNT: u8 = 1 << 5;
    pub const RDC: u8 = 1 << 6;
    pub const RST: u8 = 1 << 7;
}

/// Data configuration register bits.
mod dcr {
    /// Word transfers.
    pub const WTS: u8 = 1 << 0;
    /// Byte order: the high byte is on the lower data lines.
    pub const BOS: u8 = 1 << 1;
    pub const LAS: u8 = 1 << 2;
    /// Loopback select: 0 for loopback.
    pub const LS: u8 = 1 << 3;
    /// The Send Packet command is executed.
    pub const ARM: u8 = 1 << 4;
}

/// Transmit configuration register bits.
mod tcr {
    /// Inhibit CRC.
    pub const CRC: u8 = 1 << 0;
    pub const LB: u8 = 3 << 1;
}

/// Receive configuration register bits.
mod rcr {
    pub const AR: u8 = 1 << 1;
    pub const AB: u8 = 1 << 2;
    pub const AM: u8 = 1 << 3;
    pub const PRO: u8 = 1 << 4;
    pub const MON: u8 = 1 << 5;
}

/// All guest-visible state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dp8390State {
    /// Command register.
    pub cr: u8,
    /// Whether the start bit came after the last stop bit.
    pub started: bool,
    /// Interrupt status register.
    pub isr: u8,
    /// Interrupt mask register.
    pub imr: u8,
    /// Data configuration register.
    pub dcr: u8,
    /// Transmit configuration register.
    pub tcr: u8,
    /// Transmit status register.
    pub tsr: u8,
    /// Receive configuration register.
    pub rcr: u8,
    /// Receive status register.
    pub rsr: u8,
    /// Page start and page stop registers: the receive ring.
    pub pstart: u8,
    /// One past the last page of the ring.
    pub pstop: u8,
    /// Boundary pointer: the first page that is not to be overwritten.
    pub bnry: u8,
    /// Current page: where the next frame goes.
    pub curr: u8,
    /// Transmit page start.
    pub tpsr: u8,
    /// Transmit byte count.
    pub tbcr: u16,
    /// Remote start address, which remote DMA moves: CRDA.
    pub rsar: u16,
    /// Remote byte count, which remote DMA counts down.
    pub rbcr: u16,
    /// The page that a Send Packet command moves the boundary pointer to when it is done.
    pub sending_to: Option<u8>,
    /// Current local DMA address.
    pub clda: u16,
    /// Remote and local next packet pointers, and the address counter: for diagnosis only.
    pub remote_next: u8,
    /// See `remote_next`.
    pub local_next: u8,
    /// See `remote_next`.
    pub address_counter: u16,
    /// Physical address.
    pub par: [u8; 6],
    /// Multicast hash bits.
    pub mar: [u8; 8],
    /// Tally counters: frame alignment errors, CRC errors, missed packets.
    pub tallies: [u8; 3],
    /// What the last loopback has left in the FIFO.
    pub fifo: [u8; 8],
    /// The next byte that is read from it.
    pub fifo_position: u8,
    /// The packet buffer.
    pub buffer: Vec<u8>,
}

impl Default for Dp8390State {
    fn default() -> Dp8390State {
        Dp8390State {
            cr: cr::ABORT | cr::STP,
            started: false,
            isr: isr::RST,
            imr: 0,
            dcr: dcr::LAS,
            tcr: 0,
            tsr: 0,
            rcr: 0,
            rsr: 0,
            pstart: 0,
            pstop: 0,
            bnry: 0,
            curr: 0,
            tpsr: 0,
            tbcr: 0,
            rsar: 0,
            rbcr: 0,
            sending_to: None,
            clda: 0,
            remote_next: 0,
            local_next: 0,
            address_counter: 0,
            par: [0; 6],
            mar: [0; 8],
            tallies: [0; 3],
            fifo: [0; 8],
            fifo_position: 0,
            buffer: vec![0; BUFFER_SIZE],
        }
    }
}

/// What differs between cards: the registers of page 3 and the two reserved ones of page 0.
pub trait Extension: Send {
    /// A read of register `offset` (0Ah and 0Bh of page 0; 1 to Fh of page 3).
    fn read(&self, page: u8, offset: u8) -> u8;
    /// A write to a register of page 3.
    fn write(&mut self, offset: u8, value: u8);
}

/// The DP8390D alone: nothing is there.
impl Extension for () {
    fn read(&self, _page: u8, _offset: u8) -> u8 {
        0xff
    }

    fn write(&mut self, _offset: u8, _value: u8) {}
}

/// A controller on its card.
pub struct Dp8390<E> {
    state: Dp8390State,
    /// The card's own registers.
    pub extension: E,
    prom: [u8; PROM_SIZE],
    backend: Box<dyn NetBackend>,
    irq: IrqLine,
    /// The frame that is being received; if `waiting_until` is set, it waits for room.
    frame: Vec<u8>,
    waiting_until: Option<Instant>,
    /// More frames wait on the cable than one poll took.
    more: bool,
    /// The frame that is being sent.
    outgoing: Vec<u8>,
}

impl<E: Extension> Dp8390<E> {
    /// A card with the address `mac`, that drives `irq`.
    pub fn new(mac: MacAddress, backend: Box<dyn NetBackend>, irq: IrqLine, extension: E) -> Dp8390<E> {
        let mut prom = [0x57; PROM_SIZE];
        for (i, byte) in prom.iter_mut().enumerate().take(0x1c) {
            *byte = mac.0.get(i / 2).copied().unwrap_or(0);
        }
        Dp8390 {
            state: Dp8390State::default(),
            extension,
            prom,
            backend,
            irq,
            frame: Vec::new(),
            waiting_until: None,
            more: false,
            outgoing: Vec::new(),
        }
    }

    /// Gives the back end the means to announce frames.
    pub fn attached(&mut self, notifier: Notifier) {
        self.backend.set_notifier(notifier);
    }

    /// A guest read of a port.
    pub fn read(&mut self, access: Access) -> u64 {
        match access.offset {
            0x00..0x10 => {
                // Registers are 8 bits wide: the bus splits what is wider.
                let end = access.offset + u64::from(access.size);
                (access.offset..end.min(0x10))
                    .enumerate()
                    .fold(0, |value, (i, offset)| value | u64::from(self.read_register(offset as u8)) << (8 * i))
            }
            0x10..0x18 => self.read_data(access.size),
            0x18..0x20 => {
                self.chip_reset();
                0
            }
            _ => u64::MAX,
        }
    }

    /// A guest write to a port.
    pub fn write(&mut self, cx: &mut DeviceContext, access: Access, value: u64) {
        let bytes = value.to_le_bytes().into_iter().enumerate().take(access.size.into());
        match access.offset {
            0x00..0x10 => {
                let within = bytes.filter(|(i, _)| access.offset + (*i as u64) < 0x10);
                within.for_each(|(i, byte)| self.write_register(access.offset as u8 + i as u8, byte));
            }
            // No word of it makes room in the ring.
            0x10..0x18 => return self.write_data(access.size, value),
            // 18h to 1Fh: the second half of a reset, whose line goes back.
            _ => {}
        }
        self.receive(cx.now);
        self.drive_irq();
    }

    /// When [`Dp8390::poll`] wants to run.
    pub fn poll_at(&self) -> Option<Instant> {
        if self.more { Some(Instant::ZERO) } else { self.waiting_until }
    }

    /// Takes frames from the cable.
    pub fn poll(&mut self, now: Instant) {
        self.receive(now);
        self.drive_irq();
    }

    /// The reset pin, or a read of the reset port: data sheet 10.3, "Reset". Other registers stay.
    fn chip_reset(&mut self) {
        let s = &mut self.state;
        s.cr = cr::ABORT | cr::STP;
        s.started = false;
        s.sending_to = None;
        s.isr = isr::RST;
        s.imr = 0;
        s.dcr |= dcr::LAS;
        s.tcr &= !tcr::LB;
        self.drive_irq();
    }

    /// The machine's reset: registers that the chip's reset does not reach keep their values unless the power was off.
    pub fn reset(&mut self, kind: ResetKind) {
        if kind == ResetKind::Cold {
            self.state = Dp8390State::default();
        }
        self.waiting_until = None;
        self.chip_reset();
    }

    /// What is saved.
    pub fn state(&self) -> Dp8390State {
        self.state.clone()
    }

    /// Restores what was saved.
    pub fn set_state(&mut self, state: Dp8390State) {
        self.state = state;
        self.state.buffer.resize(BUFFER_SIZE, 0);
        self.state.fifo_position &= 7;
        self.state.cr &= !cr::TXP;
        self.waiting_until = None;
        self.drive_irq();
    }

    fn drive_irq(&self) {
        self.irq.set(self.state.isr & self.state.imr & 0x7f != 0);
    }

    /// Counts an event. Data sheet 10.3, "Network Tally Counters": they stop at 192, and interrupt from 128 on.
    fn tally(&mut self, counter: usize) {
        let tally = &mut self.state.tallies[counter];
        *tally = tally.saturating_add(1).min(192);
        if *tally >= 128 {
            self.state.isr |= isr::CNT;
        }
    }

    /// A byte as DMA sees it.
    fn memory(&self, address: u16) -> u8 {
        match address {
            0..0x20 => self.prom[usize::from(address)],
            BUFFER..0x8000 => self.state.buffer[usize::from(address - BUFFER)],
            _ => 0xff,
        }
    }

    fn set_memory(&mut self, address: u16, value: u8) {
        if let BUFFER..0x8000 = address {
            self.state.buffer[usize::from(address - BUFFER)] = value;
        }
    }

    /// The address behind `address` for DMA that follows the ring.
    fn next_in_ring(&self, address: u16) -> u16 {
        let next = address.wrapping_add(1);
        if next == u16::from(self.state.pstop) << 8 { u16::from(self.state.pstart) << 8 } else { next }
    }

    fn read_data(&mut self, size: u8) -> u64 {
        let word = self.state.dcr & dcr::WTS != 0;
        let remote = self.state.cr & cr::RD;
        let reading = [cr::REMOTE_READ, cr::SEND_PACKET].contains(&remote);
        let mut value = 0;
        for i in 0..if word { size.div_ceil(2) } else { size } {
            if !reading || self.state.rbcr == 0 {
                return u64::MAX;
            }
            let low = u64::from(self.memory(self.state.rsar));
            if word {
                let high = u64::from(self.memory(self.next_in_ring(self.state.rsar)));
                let pair = if self.state.dcr & dcr::BOS != 0 { low << 8 | high } else { high << 8 | low };
                value |= pair << (16 * i);
                self.advance_remote(2);
            } else {
                value |= low << (8 * i);
                self.advance_remote(1);
            }
        }
        value
    }

    fn write_data(&mut self, size: u8, value: u64) {
        let word = self.state.dcr & dcr::WTS != 0;
        let bytes = value.to_le_bytes();
        for i in 0..usize::from(if word { size.div_ceil(2) } else { size }) {
            if self.state.cr & cr::RD != cr::REMOTE_WRITE || self.state.rbcr == 0 {
                return;
            }
            let at = self.state.rsar;
            if word {
                let swapped = self.state.dcr & dcr::BOS != 0;
                let (first, second) = if swapped { (1, 0) } else { (0, 1) };
                self.set_memory(at, bytes[2 * i + first]);
                self.set_memory(self.next_in_ring(at), bytes[2 * i + second]);
                self.advance_remote(2);
            } else {
                self.set_memory(at, bytes[i]);
                self.advance_remote(1);
            }
        }
    }

    /// Moves remote DMA on by a transfer of 1 or 2 bytes.
    fn advance_remote(&mut self, bytes: u16) {
        for _ in 0..bytes {
            self.state.rsar = self.next_in_ring(self.state.rsar);
        }
        self.state.rbcr = self.state.rbcr.saturating_sub(bytes);
        self.state.address_counter = self.state.rsar;
        if self.state.rbcr == 0 {
            self.remote_complete();
        }
    }

    fn remote_complete(&mut self) {
        self.state.isr |= isr::RDC;
        if let Some(next) = self.state.sending_to.take() {
            self.set_boundary(next);
        }
        self.drive_irq();
    }

    fn set_boundary(&mut self, page: u8) {
        self.state.bnry = page;
        // RST also tells of an overflow until frames have been removed: data sheet 10.3, ISR.
        if self.state.started {
            self.state.isr &= !isr::RST;
        }
    }

    fn read_register(&mut self, offset: u8) -> u8 {
        let s = &mut self.state;
        match ReadRegister::decode(s.cr >> 6, offset) {
            ReadRegister::Cr => s.cr,
            ReadRegister::Clda0 => s.clda as u8,
            ReadRegister::Clda1 => (s.clda >> 8) as u8,
            ReadRegister::Bnry => s.bnry,
            ReadRegister::Tsr => s.tsr,
            ReadRegister::Ncr => 0,
            ReadRegister::Fifo => {
                let byte = s.fifo[usize::from(s.fifo_position & 7)];
                s.fifo_position = (s.fifo_position + 1) & 7;
                byte
            }
            ReadRegister::Isr => s.isr,
            ReadRegister::Crda0 => s.rsar as u8,
            ReadRegister::Crda1 => (s.rsar >> 8) as u8,
            ReadRegister::Rsr => s.rsr,
            ReadRegister::Cntr(counter) => std::mem::take(&mut s.tallies[usize::from(counter % 3)]),
            ReadRegister::Par(i) => s.par[usize::from(i % 6)],
            ReadRegister::Curr => s.curr,
            ReadRegister::Mar(i) => s.mar[usize::from(i & 7)],
            ReadRegister::Pstart => s.pstart,
            ReadRegister::Pstop => s.pstop,
            ReadRegister::RemoteNextPacket => s.remote_next,
            ReadRegister::LocalNextPacket => s.local_next,
            ReadRegister::Tpsr => s.tpsr,
            ReadRegister::AddressCounterHigh => (s.address_counter >> 8) as u8,
            ReadRegister::AddressCounterLow => s.address_counter as u8,
            ReadRegister::Rcr => s.rcr | 0xc0,
            ReadRegister::Tcr => s.tcr | 0xe0,
            ReadRegister::Dcr => s.dcr | 0x80,
            ReadRegister::Imr => s.imr | 0x80,
            ReadRegister::Extension { page, offset } => self.extension.read(page, offset),
            ReadRegister::Reserved => 0xff,
        }
    }

    fn write_register(&mut self, offset: u8, value: u8) {
        let s = &mut self.state;
        let high = |register: &mut u16| *register = *register & 0xff | u16::from(value) << 8;
        let low = |register: &mut u16| *register = *register & 0xff00 | u16::from(value);
        match WriteRegister::decode(s.cr >> 6, offset) {
            WriteRegister::Cr => self.command(value),
            WriteRegister::Pstart => s.pstart = value,
            WriteRegister::Pstop => s.pstop = value,
            WriteRegister::Bnry => self.set_boundary(value),
            WriteRegister::Tpsr => s.tpsr = value,
            WriteRegister::Tbcr0 => low(&mut s.tbcr),
            WriteRegister::Tbcr1 => high(&mut s.tbcr),
            // RST cannot be written.
            WriteRegister::Isr => s.isr &= !(value & !isr::RST),
            WriteRegister::Rsar0 => low(&mut s.rsar),
            WriteRegister::Rsar1 => high(&mut s.rsar),
            WriteRegister::Rbcr0 => low(&mut s.rbcr),
            WriteRegister::Rbcr1 => high(&mut s.rbcr),
            WriteRegister::Rcr => {
                s.rcr = value & 0x3f;
                // DIS: receiver disabled by monitor mode.
                s.rsr = s.rsr & !0x40 | if value & rcr::MON != 0 { 0x40 } else { 0 };
            }
            WriteRegister::Tcr => s.tcr = value & 0x1f,
            WriteRegister::Dcr => s.dcr = value & 0x7f,
            WriteRegister::Imr => s.imr = value & 0x7f,
            WriteRegister::Par(i) => s.par[usize::from(i % 6)] = value,
            WriteRegister::Curr => s.curr = value,
            WriteRegister::Mar(i) => s.mar[usize::from(i & 7)] = value,
            WriteRegister::Clda0 => low(&mut s.clda),
            WriteRegister::Clda1 => high(&mut s.clda),
            WriteRegister::RemoteNextPacket => s.remote_next = value,
            WriteRegister::LocalNextPacket => s.local_next = value,
            WriteRegister::AddressCounterHigh => high(&mut s.address_counter),
            WriteRegister::AddressCounterLow => low(&mut s.address_counter),
            WriteRegister::Extension(offset) => self.extension.write(offset, value),
            WriteRegister::Reserved => {}
        }
    }

    /// A write to the command register: data sheet 10.3, "Command Register".
    fn command(&mut self, value: u8) {
        let s = &mut self.state;
        s.cr = value & !cr::TXP;
        if value & cr::STP != 0 {
            s.started = false;
            s.isr |= isr::RST;
        } else if value & cr::STA != 0 {
            s.started = true;
            s.isr &= !isr::RST;
        }
        match value & cr::RD {
            0 => {}
            cr::REMOTE_READ | cr::REMOTE_WRITE => {
                s.sending_to = None;
                s.remote_next = (s.rsar >> 8) as u8;
                if s.rbcr == 0 {
                    s.isr |= isr::RDC;
                }
            }
            cr::SEND_PACKET => self.send_packet(),
            _ => s.sending_to = None,
        }
        if value & cr::TXP != 0 && self.state.started {
            self.transmit();
        }
    }

    /// The Send Packet command (data sheet 9, "Send Packet Command"): a remote read of the frame at the boundary pointer, which moves on afterwards.
    fn send_packet(&mut self) {
        if self.state.dcr & dcr::ARM == 0 || self.state.sending_to.is_some() {
            return;
        }
        let start = u16::from(self.state.bnry) << 8;
        let [next, low, high] = [1, 2, 3].map(|i| self.memory(start | i));
        self.state.rsar = start;
        self.state.rbcr = u16::from_le_bytes([low, high]);
        self.state.remote_next = next;
        self.state.sending_to = Some(next);
        if self.state.rbcr == 0 {
            self.remote_complete();
        }
    }
}

#[cfg(test)]
mod tests;
