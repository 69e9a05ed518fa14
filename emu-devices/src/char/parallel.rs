//! The parallel printer port LPT1.
//!
//! Follows IBM Personal System/2 Hardware Interface Technical Reference, "Parallel Port Controller", in compatible mode: a
//! rise of STROBE in the control register hands the byte in the data latch to the printer, which is a character back end.
//! A printer that is full is busy. An interrupt, if enabled, follows each byte, and lasts until the status is read.
//! Deliberately absent: input through the data port, and EPP and ECP of IEEE 1284, whose registers read as nothing.

use super::CharBackend;
use emu_core::bus::Notifier;
use emu_core::device::{Access, Device, DeviceContext, Region, ResetKind, ports};
use emu_core::irq::IrqLine;
use serde::{Deserialize, Serialize};

/// The ports of LPT1.
pub const LPT1: Region = ports(0x378, 3);

/// Bits of the status register. Those named NOT are low when they apply.
mod status {
    pub const NOT_BUSY: u8 = 1 << 7;
    pub const NOT_ACKNOWLEDGE: u8 = 1 << 6;
    pub const SELECTED: u8 = 1 << 4;
    pub const NOT_ERROR: u8 = 1 << 3;
    pub const NOT_INTERRUPT: u8 = 1 << 2;
    /// Bits 0 and 1, which read as ones.
    pub const RESERVED: u8 = 3;
}

/// Bits of the control register.
mod control {
    pub const STROBE: u8 = 1 << 0;
    pub const NOT_INITIALISE: u8 = 1 << 2;
    pub const SELECT: u8 = 1 << 3;
    pub const INTERRUPT: u8 = 1 << 4;
    /// Bits 6 and 7, which read as ones.
    pub const RESERVED: u8 = 3 << 6;
    /// What a reset leaves.
    pub const RESET: u8 = NOT_INITIALISE | SELECT;
}

/// Guest-visible state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParallelState {
    /// The data latch.
    pub data: u8,
    /// The control register.
    pub control: u8,
    /// A byte that the printer has not taken yet: it is busy.
    pub printing: Option<u8>,
    /// An interrupt that no read of the status has ended.
    pub interrupt: bool,
}

impl Default for ParallelState {
    fn default() -> ParallelState {
        ParallelState { data: 0, control: control::RESET, printing: None, interrupt: false }
    }
}

/// The port. Its registers are mapped by the board.
pub struct Parallel {
    state: ParallelState,
    irq: IrqLine,
    backend: Box<dyn CharBackend>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    Data,
    Status,
    Control,
}

impl Register {
    fn decode(access: Access) -> Register {
        match access.offset {
            0 => Register::Data,
            1 => Register::Status,
            _ => Register::Control,
        }
    }
}

impl Parallel {
    /// A port that interrupts by `irq`, with the printer `backend`.
    pub fn new(irq: IrqLine, backend: Box<dyn CharBackend>) -> Parallel {
        Parallel { state: ParallelState::default(), irq, backend }
    }

    fn status(&self) -> u8 {
        let busy = if self.state.printing.is_some() { 0 } else { status::NOT_BUSY };
        let interrupt = if self.state.interrupt { 0 } else { status::NOT_INTERRUPT };
        let printer = status::NOT_ACKNOWLEDGE | status::SELECTED | status::NOT_ERROR;
        busy | interrupt | printer | status::RESERVED
    }

    fn print(&mut self) {
        if let Some(byte) = self.state.printing
            && self.backend.write(&[byte]) == 1
        {
            self.state.printing = None;
            self.state.interrupt |= self.state.control & control::INTERRUPT != 0;
            self.drive_irq();
        }
    }

    fn drive_irq(&self) {
        self.irq.set(self.state.interrupt);
    }
}

impl Device for Parallel {
    const ID: &'static str = "parallel";
    type State = ParallelState;
    const WIDEST_ACCESS: u8 = 1;

    fn read(&mut self, _cx: &mut DeviceContext, access: Access) -> u64 {
        u64::from(match Register::decode(access) {
            Register::Data => self.state.data,
            Register::Status => {
                let value = self.status();
                self.state.interrupt = false;
                self.drive_irq();
                value
            }
            Register::Control => self.state.control | control::RESERVED,
        })
    }

    fn write(&mut self, _cx: &mut DeviceContext, access: Access, value: u64) {
        let value = value as u8;
        match Register::decode(access) {
            Register::Data => self.state.data = value,
            Register::Status => {}
            Register::Control => {
                let strobe = value & !self.state.control & control::STROBE != 0;
                self.state.control = value & !control::RESERVED;
                // A busy printer does not look at its data lines.
                if strobe && self.state.printing.is_none() {
                    self.state.printing = Some(self.state.data);
                    self.print();
                }
                if value & control::INTERRUPT == 0 {
                    self.state.interrupt = false;
                    self.drive_irq();
                }
            }
        }
    }

    fn poll(&mut self, _cx: &mut DeviceContext) {
        self.print();
    }

    /// The printer keeps what it is printing.
    fn reset(&mut self, _cx: &mut DeviceContext, _kind: ResetKind) {
        self.state = ParallelState { printing: self.state.printing, ..ParallelState::default() };
        self.drive_irq();
    }

    fn attached(&mut self, notifier: Notifier) {
        self.backend.set_notifier(notifier);
    }

    fn state(&self) -> ParallelState {
        self.state.clone()
    }

    fn set_state(&mut self, state: ParallelState) {
        self.state = state;
        self.state.control &= !control::RESERVED;
    }

    fn restored(&mut self, _cx: &mut DeviceContext) {
        self.drive_irq();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::char::MemoryBackend;
    use crate::testbench::{Bench, IrqRecorder, World};
    use emu_core::device::Space;
    use std::sync::Arc;

    const DATA: u16 = 0x378;
    const STATUS: u16 = 0x379;
    const CONTROL: u16 = 0x37a;

    fn rig() -> (Bench<Parallel>, MemoryBackend, Arc<IrqRecorder>) {
        let (world, far) = (World::new(1 << 20), MemoryBackend::new());
        let irq = world.irq_recorder();
        let mut bench = Bench::in_world(Parallel::new(irq.line(7), Box::new(far.clone())), &world);
        bench.map(Space::Port, LPT1, 0);
        irq.take();
        (bench, far, irq)
    }

    fn strobe(bench: &mut Bench<Parallel>, byte: u8, control: u8) {
        bench.out8(DATA, byte);
        bench.out8(CONTROL, control | 1);
        bench.out8(CONTROL, control);
    }

    #[test]
    fn parallel_prints_a_byte_at_each_rise_of_strobe() {
        let (mut bench, far, irq) = rig();
        assert_eq!((bench.in8(DATA), bench.in8(STATUS), bench.in8(CONTROL)), (0, 0xdf, 0xcc));
        for byte in b"hello" {
            strobe(&mut bench, *byte, 0x0c);
        }
        // Held, it is one rise.
        bench.out8(CONTROL, 0x0d);
        bench.out8(CONTROL, 0x0d);
        assert_eq!(far.take_output(), b"helloo");
        assert_eq!((bench.in8(DATA), bench.in8(CONTROL), irq.take_rises(7)), (b'o', 0xcd, 0));
    }

    #[test]
    fn parallel_is_busy_until_the_printer_has_taken_the_byte() {
        let (mut bench, far, _) = rig();
        far.set_room(Some(1));
        strobe(&mut bench, b'a', 0x0c);
        strobe(&mut bench, b'b', 0x0c);
        assert_eq!(bench.in8(STATUS) & status::NOT_BUSY, 0);
        // What comes meanwhile is lost.
        strobe(&mut bench, b'c', 0x0c);
        far.set_room(None);
        bench.poll();
        assert_eq!(bench.in8(STATUS), 0xdf);
        assert_eq!(far.take_output(), b"ab");
    }

    #[test]
    fn parallel_interrupts_after_a_byte_until_its_status_is_read() {
        let (mut bench, _, irq) = rig();
        strobe(&mut bench, b'a', 0x1c);
        assert_eq!(irq.take_rises(7), 1);
        assert_eq!((bench.in8(STATUS), bench.in8(STATUS)), (0xdb, 0xdf));
        assert!(irq.take().last().is_some_and(|change| !change.high));
        strobe(&mut bench, b'b', 0x1c);
        bench.out8(CONTROL, 0x0c);
        assert!(irq.take().last().is_some_and(|change| !change.high));
        assert_eq!(bench.in8(STATUS), 0xdf);
    }
}
