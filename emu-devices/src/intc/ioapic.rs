//! The I/O APIC: Intel 82093AA data sheet (290566-001), with the EOI register of version 20h as in QEMU.
//!
//! ```text
//!  IOREGSEL FEC00000h   IOWIN FEC00010h   EOIR FEC00040h
//!  redirection entry:  63..56 destination | 16 mask | 15 level | 14 remote IRR | 13 polarity | 12 status
//!                      | 11 logical | 10..8 delivery mode | 7..0 vector
//! ```
//! Input levels are true levels: a polarity bit does not invert them, since emulated wires have no polarity (as in QEMU).
//! Deliberately absent: the APIC bus arbitration ID, which reads as the ID.

use super::lapic::EoiListener;
use crate::shared::Shared;
use emu_core::device::{Access, Device, DeviceContext, Region, ResetKind};
use emu_core::irq::{IrqInput, MsiSink};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Where its registers are.
pub const REGION: Region = Region { base: 0xfec0_0000, len: 0x1000 };
/// Inputs.
pub const PINS: usize = 24;

const VERSION: u32 = 0x20;
const MASKED: u64 = 1 << 16;
const LEVEL: u64 = 1 << 15;
const REMOTE_IRR: u64 = 1 << 14;
const LOGICAL: u64 = 1 << 11;
const READ_ONLY: u64 = REMOTE_IRR | 1 << 12;
const WRITABLE: u64 = 0xff00_0000_0001_afff;
const EXT_INT: u64 = 7;

/// All guest-visible state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoApicState {
    /// I/O register select.
    pub select: u8,
    /// Identification, bits 27 to 24.
    pub id: u8,
    /// Redirection table.
    pub redirection: [u64; PINS],
    /// Levels of the inputs, one bit each.
    pub lines: u32,
    /// Inputs that ask for a message: levels that are high, edges not sent yet.
    pub requests: u32,
}

impl Default for IoApicState {
    fn default() -> IoApicState {
        IoApicState { select: 0, id: 0, redirection: [MASKED; PINS], lines: 0, requests: 0 }
    }
}

/// A message on its way to local APICs.
type Message = (u64, u32);

impl IoApicState {
    fn set_line(&mut self, pin: usize, high: bool) -> Option<Message> {
        let bit = 1 << pin;
        let rose = high && self.lines & bit == 0;
        self.lines = if high { self.lines | bit } else { self.lines & !bit };
        match self.redirection[pin] & LEVEL != 0 {
            true => self.requests = self.requests & !bit | self.lines & bit,
            // Data sheet 3.2.4, Interrupt Mask: edges at a masked input are not held pending.
            false if rose && self.redirection[pin] & MASKED == 0 => self.requests |= bit,
            false => return None,
        }
        self.service(pin)
    }

    /// Sends what `pin` requests and may send.
    fn service(&mut self, pin: usize) -> Option<Message> {
        let entry = self.redirection[pin];
        let level = entry & LEVEL != 0;
        let bit = 1 << pin;
        if self.requests & bit == 0 || entry & MASKED != 0 || (level && entry & REMOTE_IRR != 0) {
            return None;
        }
        if level && entry >> 8 & 7 != EXT_INT {
            self.redirection[pin] |= REMOTE_IRR;
        } else {
            self.requests &= !bit;
        }
        let destination = entry >> 56 << 12;
        let logical = if entry & LOGICAL != 0 { 1 << 2 } else { 0 };
        let trigger = if level { 3 << 14 } else { 0 };
        Some((0xfee0_0000 | destination | logical, entry as u32 & 0x7ff | trigger))
    }

    fn end_of_interrupt(&mut self, vector: u8) -> Vec<Message> {
        let mut messages = Vec::new();
        for pin in 0..PINS {
            let entry = self.redirection[pin];
            if entry as u8 == vector && entry & (LEVEL | REMOTE_IRR) == LEVEL | REMOTE_IRR {
                self.redirection[pin] &= !REMOTE_IRR;
                messages.extend(self.service(pin));
            }
        }
        messages
    }

    fn read_window(&self) -> u32 {
        match self.select {
            0 | 2 => u32::from(self.id) << 24,
            1 => (PINS as u32 - 1) << 16 | VERSION,
            index @ 0x10..=0x3f => {
                let entry = self.redirection[usize::from(index - 0x10) / 2];
                (entry >> (32 * (index & 1))) as u32
            }
            _ => 0,
        }
    }

    fn write_window(&mut self, value: u32) -> Option<Message> {
        match self.select {
            0 => self.id = (value >> 24) as u8 & 0xf,
            index @ 0x10..=0x3f => {
                let pin = usize::from(index - 0x10) / 2;
                let shift = 32 * (index & 1);
                let old = self.redirection[pin];
                let written = old & !(0xffff_ffff << shift) | u64::from(value) << shift;
                let mut new = written & WRITABLE | old & READ_ONLY;
                if new & LEVEL == 0 {
                    new &= !REMOTE_IRR;
                }
                self.redirection[pin] = new;
                // An entry that becomes level-triggered asks for what its line says.
                if new & LEVEL != 0 {
                    self.requests = self.requests & !(1 << pin) | self.lines & (1 << pin);
                }
                return self.service(pin);
            }
            _ => {}
        }
        None
    }
}

/// The I/O APIC as lines and local APICs see it: inputs 0 to 23.
pub struct IoApicCore {
    state: Shared<IoApicState>,
    sink: Arc<dyn MsiSink>,
}

impl IoApicCore {
    /// The registers, for monitors.
    pub fn inspect(&self) -> IoApicState {
        self.state.lock().clone()
    }

    fn send(&self, messages: impl IntoIterator<Item = Message>) {
        for (address, data) in messages {
            self.sink.deliver(address, data);
        }
    }
}

impl IrqInput for IoApicCore {
    fn set_level(&self, pin: u32, high: bool) {
        if (pin as usize) < PINS {
            let message = self.state.lock().set_line(pin as usize, high);
            self.send(message);
        }
    }
}

impl EoiListener for IoApicCore {
    fn end_of_interrupt(&self, vector: u8) {
        let messages = self.state.lock().end_of_interrupt(vector);
        self.send(messages);
    }
}

/// The I/O APIC as a device.
pub struct IoApic {
    core: Arc<IoApicCore>,
}

impl IoApic {
    /// An I/O APIC that sends its messages to `sink`.
    pub fn new(sink: Arc<dyn MsiSink>) -> IoApic {
        IoApic { core: Arc::new(IoApicCore { state: Shared::default(), sink }) }
    }

    /// Its inputs, and the listener of EOI broadcasts.
    pub fn core(&self) -> Arc<IoApicCore> {
        self.core.clone()
    }
}

impl Device for IoApic {
    const ID: &'static str = "ioapic";
    type State = IoApicState;
    const WIDEST_ACCESS: u8 = 4;

    fn read(&mut self, _cx: &mut DeviceContext, access: Access) -> u64 {
        let state = self.core.state.lock();
        match access.offset {
            0x00 => state.select.into(),
            0x10 => state.read_window().into(),
            _ => 0,
        }
    }

    fn write(&mut self, _cx: &mut DeviceContext, access: Access, value: u64) {
        match access.offset {
            0x00 => self.core.state.lock().select = value as u8,
            0x10 if access.size == 4 => {
                let message = self.core.state.lock().write_window(value as u32);
                self.core.send(message);
            }
            0x40 => self.core.end_of_interrupt(value as u8),
            _ => {}
        }
    }

    /// Both kinds are RESET; the inputs keep the levels that devices drive.
    fn reset(&mut self, _cx: &mut DeviceContext, _kind: ResetKind) {
        let mut state = self.core.state.lock();
        *state = IoApicState { lines: state.lines, ..IoApicState::default() };
    }

    fn state(&self) -> IoApicState {
        self.core.state.lock().clone()
    }

    fn set_state(&mut self, state: IoApicState) {
        *self.core.state.lock() = state;
    }
}

#[cfg(test)]
mod tests;
