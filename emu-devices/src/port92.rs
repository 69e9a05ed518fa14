//! System Control Port A (92h): the fast A20 gate and the fast reset of the PS/2.
//!
//! Follows the 82371SB (PIIX3) data sheet 4.4, "Port 92 register". The A20 gate has two masters, this port and the
//! keyboard controller; as in QEMU's `pc`, whichever was written last decides.

use emu_core::device::{Access, Device, DeviceContext, Region, Request, ResetKind, ports};
use serde::{Deserialize, Serialize};

/// Pulse INIT: a rise resets.
const FAST_INIT: u8 = 1 << 0;
/// The A20 gate is open.
const FAST_A20: u8 = 1 << 1;

/// The register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port92State {
    /// Bits 0 and 1 as written.
    pub value: u8,
}

/// The port.
#[derive(Clone, Copy, Debug, Default)]
pub struct Port92 {
    state: Port92State,
}

impl Device for Port92 {
    const ID: &'static str = "port92";
    type State = Port92State;
    const PORTS: &'static [Region] = &[ports(0x92, 1)];
    const WIDEST_ACCESS: u8 = 1;

    fn read(&mut self, _cx: &mut DeviceContext, _access: Access) -> u64 {
        u64::from(self.state.value)
    }

    fn write(&mut self, cx: &mut DeviceContext, _access: Access, value: u64) {
        let value = value as u8 & (FAST_INIT | FAST_A20);
        let rise = value & !self.state.value;
        self.state.value = value;
        cx.request(Request::A20(value & FAST_A20 != 0));
        if rise & FAST_INIT != 0 {
            cx.request(Request::Reset);
        }
    }

    fn reset(&mut self, _cx: &mut DeviceContext, _kind: ResetKind) {
        self.state = Port92State::default();
    }

    fn state(&self) -> Port92State {
        self.state
    }

    fn set_state(&mut self, state: Port92State) {
        self.state = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbench::Bench;

    #[test]
    fn port92_bit_1_drives_a20_and_reads_back() {
        let mut bench = Bench::new(Port92::default());
        bench.out8(0x92, 0x02);
        assert_eq!(bench.in8(0x92), 0x02);
        bench.out8(0x92, 0xfc);
        assert_eq!(bench.in8(0x92), 0x00);
        assert_eq!(bench.take_requests(), [Request::A20(true), Request::A20(false)]);
    }

    #[test]
    fn port92_rise_of_bit_0_resets_once() {
        let mut bench = Bench::new(Port92::default());
        bench.out8(0x92, 0x01);
        bench.out8(0x92, 0x01);
        let resets = bench.take_requests().into_iter().filter(|r| *r == Request::Reset).count();
        assert_eq!(resets, 1);
        bench.reset(ResetKind::Warm);
        assert_eq!(bench.in8(0x92), 0);
    }
}
