//! The 16550A asynchronous receiver/transmitter, clocked at 1.8432 MHz as in a PC.
//!
//! Follows the PC16550D data sheet (National Semiconductor TL/C/8652).
//!
//! ```text
//!  guest --THR--> [wire, host side] --> CharBackend
//!  guest <--RBR-- [receiver FIFO, 16] <--one byte per character time-- CharBackend
//! ```
//! The receiver runs at the programmed speed in virtual time, but not slower than 115200 baud, so that nobody waits for a
//! console left at 9600; it takes from the back end only what it has room for, so that nothing is lost. The transmitter runs at the host's speed: a byte leaves at once, and THRE stays clear only
//! while the back end is full. Deliberately absent: DMA signalling pins, parity and framing errors (a back end has
//! none), and the gating of the interrupt by OUT2 that some PC boards have and QEMU's `pc` has not.

use super::{CharBackend, LineParameters, ModemInputs, ModemOutputs, Parity};
use emu_core::bus::Notifier;
use emu_core::clock::Instant;
use emu_core::device::{Access, Device, DeviceContext, ResetKind};
use emu_core::irq::IrqLine;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Crystal, in hertz.
const CLOCK: u64 = 1_843_200;

/// Nanoseconds between received characters at most: those of 10 bits at 115200 baud.
const SLOWEST_ARRIVAL: u64 = 10 * 1_000_000_000 / 115_200;

/// Bytes in the receiver FIFO.
const FIFO: usize = 16;

/// Bytes that wait for a full back end before a guest that ignores THRE loses some.
const WIRE: usize = 4096;

/// Interrupt Enable Register.
mod ier {
    pub const RECEIVED_DATA: u8 = 1 << 0;
    pub const THR_EMPTY: u8 = 1 << 1;
    pub const LINE_STATUS: u8 = 1 << 2;
    pub const MODEM_STATUS: u8 = 1 << 3;
    pub const WRITABLE: u8 = 0x0f;
}

/// FIFO Control Register.
mod fcr {
    pub const ENABLE: u8 = 1 << 0;
    pub const RESET_RECEIVER: u8 = 1 << 1;
    pub const KEPT: u8 = 0xc9;
}

/// Line Control Register.
mod lcr {
    pub const TWO_STOP_BITS: u8 = 1 << 2;
    pub const PARITY_ENABLE: u8 = 1 << 3;
    pub const EVEN_PARITY: u8 = 1 << 4;
    pub const STICK_PARITY: u8 = 1 << 5;
    pub const SET_BREAK: u8 = 1 << 6;
    pub const DLAB: u8 = 1 << 7;
}

/// Modem Control Register.
mod mcr {
    pub const DTR: u8 = 1 << 0;
    pub const RTS: u8 = 1 << 1;
    pub const OUT1: u8 = 1 << 2;
    pub const OUT2: u8 = 1 << 3;
    pub const LOOP: u8 = 1 << 4;
    pub const WRITABLE: u8 = 0x1f;
}

/// Line Status Register.
mod lsr {
    pub const DATA_READY: u8 = 1 << 0;
    pub const OVERRUN: u8 = 1 << 1;
    pub const BREAK: u8 = 1 << 4;
    pub const THR_EMPTY: u8 = 1 << 5;
    pub const TRANSMITTER_EMPTY: u8 = 1 << 6;
    pub const FIFO_ERROR: u8 = 1 << 7;
}

/// Modem Status Register.
mod msr {
    pub const DELTA_CTS: u8 = 1 << 0;
    pub const DELTA_DSR: u8 = 1 << 1;
    pub const TRAILING_EDGE_RI: u8 = 1 << 2;
    pub const DELTA_DCD: u8 = 1 << 3;
    pub const CTS: u8 = 1 << 4;
    pub const DSR: u8 = 1 << 5;
    pub const RI: u8 = 1 << 6;
    pub const DCD: u8 = 1 << 7;
}

/// The register that an access reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    /// Receiver Buffer on reads, Transmitter Holding on writes.
    Data,
    DivisorLow,
    DivisorHigh,
    InterruptEnable,
    /// Interrupt Identification on reads, FIFO Control on writes.
    InterruptIdFifoControl,
    LineControl,
    ModemControl,
    LineStatus,
    ModemStatus,
    Scratch,
}

impl Register {
    fn decode(access: Access, dlab: bool) -> Register {
        match (access.offset & 7, dlab) {
            (0, false) => Register::Data,
            (0, true) => Register::DivisorLow,
            (1, false) => Register::InterruptEnable,
            (1, true) => Register::DivisorHigh,
            (2, _) => Register::InterruptIdFifoControl,
            (3, _) => Register::LineControl,
            (4, _) => Register::ModemControl,
            (5, _) => Register::LineStatus,
            (6, _) => Register::ModemStatus,
            (_, _) => Register::Scratch,
        }
    }
}

/// Interrupt sources in order of priority, with their IIR codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    LineStatus = 0x06,
    ReceivedData = 0x04,
    CharacterTimeout = 0x0c,
    ThrEmpty = 0x02,
    ModemStatus = 0x00,
}

/// A character in the receiver with its LSR error bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// The character.
    pub byte: u8,
    /// LSR bits that belong to it.
    pub errors: u8,
}

/// All guest-visible state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UartState {
    /// Interrupt Enable Register.
    pub ier: u8,
    /// FIFO Control Register: enable, DMA mode, trigger level.
    pub fcr: u8,
    /// Line Control Register.
    pub lcr: u8,
    /// Modem Control Register.
    pub mcr: u8,
    /// Scratch Register.
    pub scr: u8,
    /// Divisor Latch.
    pub divisor: u16,
    /// Modem Status Register.
    pub msr: u8,
    /// Sticky error bits of the Line Status Register.
    pub errors: u8,
    /// Received characters, the oldest first.
    pub receiver: VecDeque<Received>,
    /// Characters that a full back end has not taken yet.
    pub wire: VecDeque<u8>,
    /// The THR-empty interrupt is pending.
    pub thr_empty: bool,
    /// The character timeout has passed.
    pub timeout: bool,
    /// The last time a character entered or left the receiver FIFO.
    pub activity: Instant,
    /// When the next character can have arrived.
    pub next_receive: Instant,
}

impl Default for UartState {
    /// As after a master reset, at 9600 baud.
    fn default() -> UartState {
        UartState {
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            scr: 0,
            divisor: 12,
            msr: 0,
            errors: 0,
            receiver: VecDeque::new(),
            wire: VecDeque::new(),
            thr_empty: false,
            timeout: false,
            activity: Instant::ZERO,
            next_receive: Instant::ZERO,
        }
    }
}

impl UartState {
    fn fifo_enabled(&self) -> bool {
        self.fcr & fcr::ENABLE != 0
    }

    fn looped(&self) -> bool {
        self.mcr & mcr::LOOP != 0
    }

    fn capacity(&self) -> usize {
        if self.fifo_enabled() { FIFO } else { 1 }
    }

    fn trigger(&self) -> usize {
        match (self.fifo_enabled(), self.fcr >> 6) {
            (false, _) | (true, 0) => 1,
            (true, 1) => 4,
            (true, 2) => 8,
            (true, _) => 14,
        }
    }

    fn parameters(&self) -> LineParameters {
        let baud = CLOCK.checked_div(16 * u64::from(self.divisor)).unwrap_or(0);
        let parity = match (self.lcr & lcr::STICK_PARITY != 0, self.lcr & lcr::EVEN_PARITY != 0) {
            _ if self.lcr & lcr::PARITY_ENABLE == 0 => Parity::None,
            (false, false) => Parity::Odd,
            (false, true) => Parity::Even,
            (true, false) => Parity::Mark,
            (true, true) => Parity::Space,
        };
        LineParameters {
            baud: baud as u32,
            data_bits: 5 + (self.lcr & 3),
            parity,
            two_stop_bits: self.lcr & lcr::TWO_STOP_BITS != 0,
        }
    }

    /// Nanoseconds for a character from start bit to stop bit.
    fn character_time(&self) -> u64 {
        let p = self.parameters();
        let bits = 2 + u64::from(p.data_bits) + u64::from(p.parity != Parity::None) + u64::from(p.two_stop_bits);
        u64::from(self.divisor.max(1)) * 16 * bits * 1_000_000_000 / CLOCK
    }

    /// When the character timeout passes, if it has not.
    fn timeout_at(&self) -> Option<Instant> {
        let armed = self.fifo_enabled() && !self.receiver.is_empty() && !self.timeout;
        armed.then(|| self.activity.plus_nanos(4 * self.character_time()))
    }

    fn receive(&mut self, now: Instant, character: Received) {
        if self.receiver.len() >= self.capacity() {
            self.errors |= lsr::OVERRUN;
            if !self.fifo_enabled() {
                self.receiver.clear();
                self.receiver.push_back(character);
            }
            return;
        }
        if self.receiver.is_empty() {
            self.errors |= character.errors;
        }
        self.receiver.push_back(character);
        self.activity = now;
        self.timeout = false;
    }

    fn line_status(&self) -> u8 {
        let mut status = self.errors;
        if !self.receiver.is_empty() {
            status |= lsr::DATA_READY;
        }
        if self.wire.is_empty() {
            status |= lsr::THR_EMPTY | lsr::TRANSMITTER_EMPTY;
        }
        if self.fifo_enabled() && self.receiver.iter().any(|c| c.errors != 0) {
            status |= lsr::FIFO_ERROR;
        }
        status
    }

    /// The modem inputs in MSR positions as the receiver side sees them: the far end's, or our own in loopback.
    fn modem_lines(&self, far: ModemInputs) -> u8 {
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        if self.looped() {
            bit(self.mcr & mcr::RTS != 0, msr::CTS)
                | bit(self.mcr & mcr::DTR != 0, msr::DSR)
                | bit(self.mcr & mcr::OUT1 != 0, msr::RI)
                | bit(self.mcr & mcr::OUT2 != 0, msr::DCD)
        } else {
            bit(far.cts, msr::CTS) | bit(far.dsr, msr::DSR) | bit(far.ri, msr::RI) | bit(far.dcd, msr::DCD)
        }
    }

    /// Takes over the modem inputs and notes what changed.
    fn sample_modem_lines(&mut self, far: ModemInputs) {
        let lines = self.modem_lines(far);
        let changed = lines ^ (self.msr & 0xf0);
        let mut deltas = self.msr & 0x0f;
        for (line, delta) in [(msr::CTS, msr::DELTA_CTS), (msr::DSR, msr::DELTA_DSR), (msr::DCD, msr::DELTA_DCD)] {
            if changed & line != 0 {
                deltas |= delta;
            }
        }
        if changed & msr::RI != 0 && lines & msr::RI == 0 {
            deltas |= msr::TRAILING_EDGE_RI;
        }
        self.msr = lines | deltas;
    }

    /// The enabled pending source of highest priority.
    fn source(&self) -> Option<Source> {
        let on = |bit: u8| self.ier & bit != 0;
        if on(ier::LINE_STATUS) && self.errors != 0 {
            Some(Source::LineStatus)
        } else if on(ier::RECEIVED_DATA) && self.receiver.len() >= self.trigger() {
            Some(Source::ReceivedData)
        } else if on(ier::RECEIVED_DATA) && self.timeout {
            Some(Source::CharacterTimeout)
        } else if on(ier::THR_EMPTY) && self.thr_empty {
            Some(Source::ThrEmpty)
        } else if on(ier::MODEM_STATUS) && self.msr & 0x0f != 0 {
            Some(Source::ModemStatus)
        } else {
            None
        }
    }

    fn reset_receiver(&mut self) {
        self.receiver.clear();
        self.timeout = false;
        self.errors &= lsr::OVERRUN;
    }
}

/// One UART, its interrupt line and what is at the other end of the cable. Its eight ports are mapped by the board.
pub struct Uart16550 {
    state: UartState,
    irq: IrqLine,
    backend: Box<dyn CharBackend>,
    /// The back end may have input; false from an empty read to the next notification.
    expecting: bool,
}

impl Uart16550 {
    /// A UART with interrupt output `irq`.
    pub fn new(irq: IrqLine, backend: Box<dyn CharBackend>) -> Uart16550 {
        Uart16550 { state: UartState::default(), irq, backend, expecting: true }
    }

    fn drive_irq(&self) {
        self.irq.set(self.state.source().is_some());
    }

    /// Brings what depends on time up to `now`.
    fn refresh(&mut self, now: Instant) {
        if self.state.timeout_at().is_some_and(|at| at <= now) {
            self.state.timeout = true;
        }
    }

    /// Takes the characters that have arrived by `now`.
    fn fetch(&mut self, now: Instant) {
        let s = &mut self.state;
        if s.looped() {
            return;
        }
        let time = s.character_time().min(SLOWEST_ARRIVAL);
        while s.receiver.len() < s.capacity() && s.next_receive <= now {
            let mut byte = [0];
            let character = if self.backend.read(&mut byte) == 1 {
                Received { byte: byte[0], errors: 0 }
            } else if self.backend.take_break() {
                Received { byte: 0, errors: lsr::BREAK }
            } else {
                self.expecting = false;
                return;
            };
            let arrival = s.next_receive;
            s.receive(arrival, character);
            s.next_receive = arrival.plus_nanos(time);
        }
    }

    /// Offers the back end what is on the wire.
    fn send(&mut self) {
        if self.state.wire.is_empty() {
            return;
        }
        while !self.state.wire.is_empty() {
            let (front, _) = self.state.wire.as_slices();
            let taken = self.backend.write(front).min(front.len());
            if taken == 0 {
                return;
            }
            self.state.wire.drain(..taken);
        }
        self.state.thr_empty = true;
    }

    fn transmit(&mut self, now: Instant, byte: u8) {
        self.state.thr_empty = false;
        self.drive_irq();
        if self.state.looped() {
            self.state.receive(now, Received { byte, errors: 0 });
            self.state.thr_empty = true;
        } else {
            if self.state.wire.len() < WIRE {
                self.state.wire.push_back(byte);
            }
            self.send();
        }
    }

    fn read_data(&mut self, now: Instant) -> u8 {
        let s = &mut self.state;
        let full = s.receiver.len() >= s.capacity();
        let Some(character) = s.receiver.pop_front() else { return 0 };
        if let Some(next) = s.receiver.front() {
            s.errors |= next.errors;
        }
        s.activity = now;
        s.timeout = false;
        if full {
            // The far end waited for room and sends on at once.
            s.next_receive = s.next_receive.max(now);
        }
        if self.expecting {
            self.fetch(now);
        }
        character.byte
    }

    fn read_line_status(&mut self) -> u8 {
        let status = self.state.line_status();
        self.state.errors = 0;
        if let Some(front) = self.state.receiver.front_mut() {
            front.errors = 0;
        }
        status
    }

    fn read_interrupt_id(&mut self) -> u8 {
        let source = self.state.source();
        if source == Some(Source::ThrEmpty) {
            self.state.thr_empty = false;
        }
        let fifos = if self.state.fifo_enabled() { 0xc0 } else { 0 };
        fifos | source.map_or(0x01, |s| s as u8)
    }

    fn write_fifo_control(&mut self, value: u8) {
        let s = &mut self.state;
        if (value ^ s.fcr) & fcr::ENABLE != 0 || value & (fcr::ENABLE | fcr::RESET_RECEIVER) == 0x03 {
            s.reset_receiver();
        }
        // The other bits can only be programmed together with the enable bit. Characters on the wire have left the
        // transmitter FIFO, so its reset has nothing to do.
        s.fcr = if value & fcr::ENABLE != 0 { value & fcr::KEPT } else { 0 };
    }

    fn write_modem_control(&mut self, value: u8) {
        self.state.mcr = value & mcr::WRITABLE;
        self.show_modem_outputs();
        self.state.sample_modem_lines(self.backend.modem_inputs());
        self.expecting = true;
    }

    /// In loopback the output pins are inactive.
    fn show_modem_outputs(&mut self) {
        let on = |bit: u8| self.state.mcr & (bit | mcr::LOOP) == bit;
        self.backend.set_modem_outputs(ModemOutputs { dtr: on(mcr::DTR), rts: on(mcr::RTS) });
    }

    fn write_interrupt_enable(&mut self, value: u8) {
        let enabled = value & !self.state.ier & ier::THR_EMPTY != 0;
        self.state.ier = value & ier::WRITABLE;
        if enabled && self.state.wire.is_empty() {
            self.state.thr_empty = true;
        }
    }

    fn write_line_control(&mut self, value: u8) {
        let changed = value ^ self.state.lcr;
        self.state.lcr = value;
        if changed & lcr::SET_BREAK != 0 {
            self.backend.set_break(value & lcr::SET_BREAK != 0);
        }
        if changed & !(lcr::SET_BREAK | lcr::DLAB) != 0 {
            self.backend.set_parameters(self.state.parameters());
        }
    }

    fn write_divisor(&mut self, divisor: u16) {
        self.state.divisor = divisor;
        self.backend.set_parameters(self.state.parameters());
    }
}

impl Device for Uart16550 {
    const ID: &'static str = "uart16550";
    type State = UartState;
    const WIDEST_ACCESS: u8 = 1;

    fn read(&mut self, cx: &mut DeviceContext, access: Access) -> u64 {
        self.refresh(cx.now);
        let value = match Register::decode(access, self.state.lcr & lcr::DLAB != 0) {
            Register::Data => self.read_data(cx.now),
            Register::DivisorLow => self.state.divisor as u8,
            Register::DivisorHigh => (self.state.divisor >> 8) as u8,
            Register::InterruptEnable => self.state.ier,
            Register::InterruptIdFifoControl => self.read_interrupt_id(),
            Register::LineControl => self.state.lcr,
            Register::ModemControl => self.state.mcr,
            Register::LineStatus => self.read_line_status(),
            Register::ModemStatus => {
                self.state.sample_modem_lines(self.backend.modem_inputs());
                let value = self.state.msr;
                self.state.msr &= 0xf0;
                value
            }
            Register::Scratch => self.state.scr,
        };
        self.drive_irq();
        u64::from(value)
    }

    fn write(&mut self, cx: &mut DeviceContext, access: Access, value: u64) {
        self.refresh(cx.now);
        let value = value as u8;
        let divisor = self.state.divisor;
        match Register::decode(access, self.state.lcr & lcr::DLAB != 0) {
            Register::Data => self.transmit(cx.now, value),
            Register::DivisorLow => self.write_divisor(divisor & 0xff00 | u16::from(value)),
            Register::DivisorHigh => self.write_divisor(divisor & 0x00ff | u16::from(value) << 8),
            Register::InterruptEnable => self.write_interrupt_enable(value),
            Register::InterruptIdFifoControl => self.write_fifo_control(value),
            Register::LineControl => self.write_line_control(value),
            Register::ModemControl => self.write_modem_control(value),
            // "Writing to the LSR is for factory testing"; MSR has no effect worth having.
            Register::LineStatus | Register::ModemStatus => {}
            Register::Scratch => self.state.scr = value,
        }
        self.drive_irq();
    }

    fn poll_at(&self) -> Option<Instant> {
        let s = &self.state;
        let waiting = self.expecting && !s.looped() && s.receiver.len() < s.capacity();
        let receive = waiting.then_some(s.next_receive);
        let wanted = s.ier & ier::RECEIVED_DATA != 0 && s.receiver.len() < s.trigger();
        let timeout = s.timeout_at().filter(|_| wanted);
        receive.into_iter().chain(timeout).min()
    }

    fn poll(&mut self, cx: &mut DeviceContext) {
        if !self.expecting {
            self.expecting = true;
            self.state.next_receive = self.state.next_receive.max(cx.now);
        }
        self.state.sample_modem_lines(self.backend.modem_inputs());
        self.send();
        self.fetch(cx.now);
        self.refresh(cx.now);
        self.drive_irq();
    }

    /// A master reset. What is on the wire has left the UART and is not lost.
    fn reset(&mut self, cx: &mut DeviceContext, _kind: ResetKind) {
        let wire = std::mem::take(&mut self.state.wire);
        self.state = UartState { wire, activity: cx.now, next_receive: cx.now, ..UartState::default() };
        self.state.msr = self.state.modem_lines(self.backend.modem_inputs());
        self.expecting = true;
        self.backend.set_parameters(self.state.parameters());
        self.backend.set_break(false);
        self.show_modem_outputs();
        self.drive_irq();
    }

    fn attached(&mut self, notifier: Notifier) {
        self.backend.set_notifier(notifier);
    }

    fn state(&self) -> UartState {
        self.state.clone()
    }

    fn set_state(&mut self, mut state: UartState) {
        state.receiver.truncate(FIFO);
        state.wire.truncate(WIRE);
        self.state = state;
    }

    fn restored(&mut self, _cx: &mut DeviceContext) {
        self.expecting = true;
        self.backend.set_parameters(self.state.parameters());
        self.backend.set_break(self.state.lcr & lcr::SET_BREAK != 0);
        self.show_modem_outputs();
        self.drive_irq();
    }
}

#[cfg(test)]
mod tests;
