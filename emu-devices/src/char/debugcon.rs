//! The debug console: a port whose bytes go to a character back end.
//!
//! Follows the port E9h convention of Bochs, as QEMU's `isa-debugcon` has it: a read returns E9h, by which guests find
//! it. Deliberately absent: input, interrupts.

use super::CharBackend;
use emu_core::bus::Notifier;
use emu_core::device::{Access, Device, DeviceContext, ResetKind};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The port at which guests look for the console, and what it reads as.
pub const PORT: u16 = 0xe9;

/// Bytes that wait for a full back end before some are lost.
const WIRE: usize = 4096;

/// Bytes that the back end has not taken yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebugconState {
    /// The oldest first.
    pub wire: VecDeque<u8>,
}

/// The console. Its one port is mapped by the board.
pub struct Debugcon {
    state: DebugconState,
    backend: Box<dyn CharBackend>,
}

impl Debugcon {
    /// A console on `backend`.
    pub fn new(backend: Box<dyn CharBackend>) -> Debugcon {
        Debugcon { state: DebugconState::default(), backend }
    }

    fn send(&mut self) {
        while !self.state.wire.is_empty() {
            let (front, _) = self.state.wire.as_slices();
            match self.backend.write(front).min(front.len()) {
                0 => return,
                taken => self.state.wire.drain(..taken),
            };
        }
    }
}

impl Device for Debugcon {
    const ID: &'static str = "debugcon";
    type State = DebugconState;
    const WIDEST_ACCESS: u8 = 1;

    fn read(&mut self, _cx: &mut DeviceContext, _access: Access) -> u64 {
        u64::from(PORT)
    }

    fn write(&mut self, _cx: &mut DeviceContext, _access: Access, value: u64) {
        if self.state.wire.len() < WIRE {
            self.state.wire.push_back(value as u8);
        }
        self.send();
    }

    fn poll(&mut self, _cx: &mut DeviceContext) {
        self.send();
    }

    /// What was written has left the guest and is not lost.
    fn reset(&mut self, _cx: &mut DeviceContext, _kind: ResetKind) {}

    fn attached(&mut self, notifier: Notifier) {
        self.backend.set_notifier(notifier);
    }

    fn state(&self) -> DebugconState {
        self.state.clone()
    }

    fn set_state(&mut self, mut state: DebugconState) {
        state.wire.truncate(WIRE);
        self.state = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::char::MemoryBackend;
    use crate::testbench::Bench;
    use emu_core::device::{Space, ports};

    fn rig() -> (Bench<Debugcon>, MemoryBackend) {
        let far = MemoryBackend::new();
        let mut bench = Bench::new(Debugcon::new(Box::new(far.clone())));
        bench.map(Space::Port, ports(PORT, 1), 0);
        (bench, far)
    }

    #[test]
    fn debugcon_reads_e9_and_passes_bytes_on() {
        let (mut bench, far) = rig();
        assert_eq!(bench.in8(PORT), 0xe9);
        for byte in b"hello" {
            bench.out8(PORT, *byte);
        }
        assert_eq!(far.take_output(), b"hello");
    }

    #[test]
    fn debugcon_full_back_end_keeps_order_and_bound() {
        let (mut bench, far) = rig();
        far.set_room(Some(1));
        for i in 0..10_000u32 {
            bench.out8(PORT, i as u8);
        }
        assert_eq!(bench.device.state().wire.len(), WIRE);
        far.set_room(None);
        bench.poll();
        let output = far.take_output();
        assert_eq!(output.len(), 1 + WIRE);
        assert!(output.iter().enumerate().all(|(i, b)| *b == i as u8));
    }
}
