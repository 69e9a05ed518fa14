//! The debug exit port: a guest write ends the emulator with a status made from the value.
//!
//! Follows QEMU's `isa-debug-exit`: status `(value << 1) | 1`, which is never 0, so that a test can tell it from an
//! ordinary power-off. Reads return 0.

use emu_core::device::{Access, Device, DeviceContext, Region, Request, ResetKind, ports};
use serde::{Deserialize, Serialize};

/// Nothing to save.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebugExitState {}

/// The port.
#[derive(Clone, Copy, Debug, Default)]
pub struct DebugExit;

impl DebugExit {
    /// Where the port is unless `iobase` and `iosize` say otherwise.
    pub const DEFAULT: Region = ports(0x501, 2);
}

impl Device for DebugExit {
    const ID: &'static str = "isa-debug-exit";
    type State = DebugExitState;

    fn read(&mut self, _cx: &mut DeviceContext, _access: Access) -> u64 {
        0
    }

    fn write(&mut self, cx: &mut DeviceContext, _access: Access, value: u64) {
        cx.request(Request::Exit((value as i32) << 1 | 1));
    }

    fn reset(&mut self, _cx: &mut DeviceContext, _kind: ResetKind) {}

    fn state(&self) -> DebugExitState {
        DebugExitState {}
    }

    fn set_state(&mut self, _state: DebugExitState) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbench::Bench;
    use emu_core::device::Space;

    #[test]
    fn debug_exit_write_requests_an_odd_status() {
        let mut bench = Bench::new(DebugExit);
        bench.map(Space::Port, DebugExit::DEFAULT, 0);
        bench.out8(0x501, 0x10);
        bench.out16(0x501, 0x1234);
        assert_eq!(bench.in16(0x501), 0);
        assert_eq!(bench.take_requests(), [Request::Exit(33), Request::Exit(0x2469)]);
    }
}
