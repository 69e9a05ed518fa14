//! The coprocessor error latch (port F0h): how a PC turns FERR# into IRQ 13.
//!
//! Follows the 82371SB (PIIX3) data sheet 4.6, "Coprocessor Error Register": FERR# going active raises IRQ 13 until port
//! F0h is written. Used while CR0.NE is 0. Deliberately absent: IGNNE#, which the write also asserts; the vCPU goes on
//! anyway where no interrupt can come.

use crate::shared::Shared;
use emu_core::device::{Access, Device, DeviceContext, Region, ResetKind, ports};
use emu_core::irq::{IrqInput, IrqLine};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The latch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoprocessorState {
    /// IRQ 13 is raised.
    pub error: bool,
    /// The level of FERR#, whose rise counts.
    pub ferr: bool,
}

/// What FERR# drives.
pub struct CoprocessorCore {
    state: Shared<CoprocessorState>,
    irq13: IrqLine,
}

impl IrqInput for CoprocessorCore {
    fn set_level(&self, _pin: u32, high: bool) {
        let mut state = self.state.lock();
        state.error |= high && !state.ferr;
        state.ferr = high;
        self.irq13.set(state.error);
    }
}

/// The port.
pub struct Coprocessor(Arc<CoprocessorCore>);

impl Coprocessor {
    /// A latch that drives `irq13`.
    pub fn new(irq13: IrqLine) -> Coprocessor {
        Coprocessor(Arc::new(CoprocessorCore { state: Shared::default(), irq13 }))
    }

    /// The wire for the processor's FERR#.
    pub fn ferr(&self) -> IrqLine {
        IrqLine::new(vec![(self.0.clone(), 0)])
    }
}

impl Device for Coprocessor {
    const ID: &'static str = "coprocessor";
    type State = CoprocessorState;
    const PORTS: &'static [Region] = &[ports(0xF0, 2)];
    const WIDEST_ACCESS: u8 = 1;

    fn read(&mut self, _cx: &mut DeviceContext, _access: Access) -> u64 {
        0xFF
    }

    fn write(&mut self, _cx: &mut DeviceContext, access: Access, _value: u64) {
        if access.offset == 0 {
            let mut state = self.0.state.lock();
            state.error = false;
            self.0.irq13.set(false);
        }
    }

    fn reset(&mut self, _cx: &mut DeviceContext, _kind: ResetKind) {
        *self.0.state.lock() = CoprocessorState::default();
        self.0.irq13.set(false);
    }

    fn state(&self) -> CoprocessorState {
        *self.0.state.lock()
    }

    fn set_state(&mut self, state: CoprocessorState) {
        *self.0.state.lock() = state;
    }

    fn restored(&mut self, _cx: &mut DeviceContext) {
        let error = self.0.state.lock().error;
        self.0.irq13.set(error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbench::{Bench, World};

    #[test]
    fn coprocessor_rise_of_ferr_holds_irq13_until_port_f0_is_written() {
        let world = World::new(0);
        let recorder = world.irq_recorder();
        let device = Coprocessor::new(recorder.line(13));
        let ferr = device.ferr();
        let mut bench = Bench::in_world(device, &world);
        ferr.set(true);
        assert_eq!(recorder.take_rises(13), 1);
        bench.out8(0xF1, 0);
        assert!(bench.with(|device, _| device.state().error));
        bench.out8(0xF0, 0);
        assert!(!bench.with(|device, _| device.state().error));
        // FERR# stays active until the handler clears the exception; only the next rise counts.
        ferr.set(false);
        ferr.set(true);
        assert_eq!(recorder.take_rises(13), 1);
    }
}
