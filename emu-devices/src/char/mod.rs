//! Character devices and the back ends behind them.
//!
//! A [`CharBackend`] is the far end of a serial cable: bytes in, bytes out, modem lines. Devices call it in the middle of
//! register accesses, so nothing in it may block. Host back ends (terminal, pty, socket, file) live in `emu-frontend`;
//! here are only those that need no host: [`NullBackend`] and [`MemoryBackend`].

pub mod debug_exit;
pub mod debugcon;
pub mod parallel;
pub mod uart16550;

use emu_core::bus::Notifier;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

/// Parity of a serial frame (16550D data sheet, Line Control Register bits 3 to 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Parity {
    /// No parity bit.
    #[default]
    None,
    /// Odd.
    Odd,
    /// Even.
    Even,
    /// Always 1.
    Mark,
    /// Always 0.
    Space,
}

/// How a serial port frames its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LineParameters {
    /// Bits per second; 0 if the guest has not programmed a divisor.
    pub baud: u32,
    /// Data bits, 5 to 8.
    pub data_bits: u8,
    /// Parity bit.
    pub parity: Parity,
    /// More than one stop bit (1.5 with 5 data bits, otherwise 2).
    pub two_stop_bits: bool,
}

impl Default for LineParameters {
    fn default() -> LineParameters {
        LineParameters { baud: 9600, data_bits: 8, parity: Parity::None, two_stop_bits: false }
    }
}

/// The modem lines that the guest drives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ModemOutputs {
    /// Data terminal ready.
    pub dtr: bool,
    /// Request to send.
    pub rts: bool,
}

/// The modem lines that the far end drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModemInputs {
    /// Clear to send.
    pub cts: bool,
    /// Data set ready.
    pub dsr: bool,
    /// Ring indicator.
    pub ri: bool,
    /// Data carrier detect.
    pub dcd: bool,
}

impl Default for ModemInputs {
    /// A terminal that is there and ready.
    fn default() -> ModemInputs {
        ModemInputs { cts: true, dsr: true, ri: false, dcd: true }
    }
}

/// The far end of a character device. No method blocks.
pub trait CharBackend: Send {
    /// Takes bytes from the guest; how many it accepted, from the front. After accepting fewer than offered, the back
    /// end notifies once it can take more.
    fn write(&mut self, bytes: &[u8]) -> usize;

    /// Puts bytes for the guest into `buffer`; how many. After returning fewer than asked for, the back end notifies
    /// once there are more.
    fn read(&mut self, buffer: &mut [u8]) -> usize;

    /// Given once, when the device is plugged in: to be called, from any thread, when input arrives, when output can be
    /// taken again, and when a modem input changes.
    fn set_notifier(&mut self, _notifier: Notifier) {}

    /// The guest reprogrammed speed or framing.
    fn set_parameters(&mut self, _parameters: LineParameters) {}

    /// The guest changed its modem lines.
    fn set_modem_outputs(&mut self, _outputs: ModemOutputs) {}

    /// The far end's modem lines now.
    fn modem_inputs(&mut self) -> ModemInputs {
        ModemInputs::default()
    }

    /// The guest starts (`true`) or ends sending a break.
    fn set_break(&mut self, _on: bool) {}

    /// Whether the far end has sent a break since the last call. It comes after all bytes that were read so far.
    fn take_break(&mut self) -> bool {
        false
    }
}

/// Swallows output, never has input.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullBackend;

impl CharBackend for NullBackend {
    fn write(&mut self, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn read(&mut self, _buffer: &mut [u8]) -> usize {
        0
    }
}

/// A far end in memory, for tests and for embedding: clones share one cable.
#[derive(Clone, Default)]
pub struct MemoryBackend {
    cable: Arc<Mutex<Cable>>,
}

#[derive(Default)]
struct Cable {
    output: Vec<u8>,
    /// How many more bytes may be written; `None` for any number.
    room: Option<usize>,
    input: VecDeque<u8>,
    break_in: bool,
    breaking: bool,
    parameters: LineParameters,
    outputs: ModemOutputs,
    inputs: ModemInputs,
    notifier: Option<Notifier>,
}

impl MemoryBackend {
    /// A cable with nothing on it, a ready far end and room for any output.
    pub fn new() -> MemoryBackend {
        MemoryBackend::default()
    }

    /// Takes what the guest has sent so far.
    pub fn take_output(&self) -> Vec<u8> {
        std::mem::take(&mut self.lock().output)
    }

    /// Sends bytes to the guest.
    pub fn send(&self, bytes: &[u8]) {
        self.change(|c| c.input.extend(bytes));
    }

    /// Sends a break to the guest.
    pub fn send_break(&self) {
        self.change(|c| c.break_in = true);
    }

    /// Lets the guest write this many more bytes before the back end is full; `None` for any number.
    pub fn set_room(&self, bytes: Option<usize>) {
        self.change(|c| c.room = bytes);
    }

    /// Drives the far end's modem lines.
    pub fn set_modem_inputs(&self, inputs: ModemInputs) {
        self.change(|c| c.inputs = inputs);
    }

    /// Bytes that the guest has not read yet.
    pub fn unread(&self) -> usize {
        self.lock().input.len()
    }

    /// The modem lines that the guest drives.
    pub fn modem_outputs(&self) -> ModemOutputs {
        self.lock().outputs
    }

    /// How the guest frames its bytes.
    pub fn parameters(&self) -> LineParameters {
        self.lock().parameters
    }

    /// Whether the guest is sending a break.
    pub fn is_breaking(&self) -> bool {
        self.lock().breaking
    }

    fn change(&self, f: impl FnOnce(&mut Cable)) {
        let notifier = {
            let mut cable = self.lock();
            f(&mut cable);
            cable.notifier.clone()
        };
        if let Some(notifier) = notifier {
            notifier.notify();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Cable> {
        self.cable.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl CharBackend for MemoryBackend {
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut cable = self.lock();
        let n = cable.room.map_or(bytes.len(), |room| room.min(bytes.len()));
        cable.output.extend(&bytes[..n]);
        if let Some(room) = &mut cable.room {
            *room -= n;
        }
        n
    }

    fn read(&mut self, buffer: &mut [u8]) -> usize {
        let mut cable = self.lock();
        let n = cable.input.len().min(buffer.len());
        for (slot, byte) in buffer.iter_mut().zip(cable.input.drain(..n)) {
            *slot = byte;
        }
        n
    }

    fn set_notifier(&mut self, notifier: Notifier) {
        self.lock().notifier = Some(notifier);
    }

    fn set_parameters(&mut self, parameters: LineParameters) {
        self.lock().parameters = parameters;
    }

    fn set_modem_outputs(&mut self, outputs: ModemOutputs) {
        self.lock().outputs = outputs;
    }

    fn modem_inputs(&mut self) -> ModemInputs {
        self.lock().inputs
    }

    fn set_break(&mut self, on: bool) {
        self.lock().breaking = on;
    }

    fn take_break(&mut self) -> bool {
        let mut cable = self.lock();
        cable.input.is_empty() && std::mem::take(&mut cable.break_in)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_backend_full_accepts_the_front_only() {
        let far = MemoryBackend::new();
        let mut near = far.clone();
        far.set_room(Some(2));
        assert_eq!(near.write(b"abc"), 2);
        assert_eq!(near.write(b"c"), 0);
        far.set_room(None);
        assert_eq!(near.write(b"c"), 1);
        assert_eq!(far.take_output(), b"abc");
    }

    #[test]
    fn memory_backend_break_follows_the_bytes_before_it() {
        let far = MemoryBackend::new();
        let mut near = far.clone();
        far.send(b"x");
        far.send_break();
        assert!(!near.take_break());
        let mut buffer = [0; 4];
        assert_eq!(near.read(&mut buffer), 1);
        assert!(near.take_break());
        assert!(!near.take_break());
    }
}
