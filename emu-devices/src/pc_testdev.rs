//! The test device of kvm-unit-tests (`-device pc-testdev`): registers with which CPU test suites try out the machine.
//!
//! Follows QEMU's `pc-testdev`:
//!
//! ```text
//!  E0h-E3h      a dword that reads back as written, in any size
//!  E4h-E7h      a page address to take away and give back (host pages here never move: nothing to do)
//!  E8h-EBh      the dword of E0h, byte accesses only
//!  2000h-2017h  the level of IRQ 0 to 23
//!  FF000000h    64 KiB of device memory
//! ```
//! Deliberately absent: lines beyond those the board gives.

use emu_core::device::{Access, Device, DeviceContext, Region, ResetKind, ports};
use emu_core::irq::IrqLine;
use serde::{Deserialize, Serialize};

/// Where the board maps the memory, with tag [`MEMORY_TAG`].
pub const MEMORY: Region = Region { base: 0xff00_0000, len: 0x1_0000 };
/// The tag of [`MEMORY`].
pub const MEMORY_TAG: u32 = 4;

/// What an access reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    /// Bits of the dword from this one.
    Dword(u32),
    FlushPage,
    Irq(usize),
    Memory(usize),
}

impl Register {
    fn decode(access: Access) -> Register {
        match access.region {
            0 | 2 => Register::Dword(8 * (access.offset as u32 & 3)),
            1 => Register::FlushPage,
            3 => Register::Irq(access.offset as usize),
            _ => Register::Memory(access.offset as usize),
        }
    }
}

/// All guest-visible state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestdevState {
    /// The dword of E0h.
    pub dword: u32,
    /// The device memory.
    pub memory: Vec<u8>,
    /// Levels of the interrupt lines, by bit.
    pub irqs: u32,
}

/// The device.
pub struct PcTestdev {
    state: TestdevState,
    irqs: Vec<IrqLine>,
}

impl PcTestdev {
    /// A device that drives `irqs`, from IRQ 0 on.
    pub fn new(irqs: Vec<IrqLine>) -> PcTestdev {
        let state = TestdevState { dword: 0, memory: vec![0; MEMORY.len as usize], irqs: 0 };
        PcTestdev { state, irqs }
    }

    fn drive_irqs(&self) {
        for (n, line) in self.irqs.iter().enumerate().take(32) {
            line.set(self.state.irqs & 1 << n != 0);
        }
    }
}

/// The low `size` bytes.
fn mask(size: u8) -> u64 {
    u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)))
}

impl Device for PcTestdev {
    const ID: &'static str = "pc-testdev";
    type State = TestdevState;
    const PORTS: &'static [Region] = &[ports(0xe0, 4), ports(0xe4, 4), ports(0xe8, 4), ports(0x2000, 24)];

    fn read(&mut self, _cx: &mut DeviceContext, access: Access) -> u64 {
        match Register::decode(access) {
            Register::Dword(shift) => u64::from(self.state.dword >> shift),
            Register::FlushPage | Register::Irq(_) => 0,
            Register::Memory(offset) => {
                let bytes = self.state.memory.iter().skip(offset).take(access.size.into());
                bytes.rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
            }
        }
    }

    fn write(&mut self, _cx: &mut DeviceContext, access: Access, value: u64) {
        let value = value & mask(access.size);
        match Register::decode(access) {
            Register::Dword(shift) => {
                let field = (mask(access.size) as u32) << shift;
                self.state.dword = self.state.dword & !field | (value as u32) << shift & field;
            }
            Register::FlushPage => {}
            Register::Irq(n) => {
                let bit = 1 << (n & 31);
                self.state.irqs = if value != 0 { self.state.irqs | bit } else { self.state.irqs & !bit };
                self.drive_irqs();
            }
            Register::Memory(offset) => {
                let bytes = self.state.memory.iter_mut().skip(offset);
                for (byte, new) in bytes.zip(&value.to_le_bytes()[..usize::from(access.size).min(8)]) {
                    *byte = *new;
                }
            }
        }
    }

    fn reset(&mut self, _cx: &mut DeviceContext, _kind: ResetKind) {
        self.state.dword = 0;
        self.state.memory.fill(0);
        self.state.irqs = 0;
        self.drive_irqs();
    }

    fn state(&self) -> TestdevState {
        self.state.clone()
    }

    fn set_state(&mut self, mut state: TestdevState) {
        state.memory.resize(MEMORY.len as usize, 0);
        self.state = state;
    }

    fn restored(&mut self, _cx: &mut DeviceContext) {
        self.drive_irqs();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbench::{Bench, World};
    use emu_core::device::Space;

    #[test]
    fn testdev_dword_reads_back_in_any_size() {
        let mut bench = Bench::new(PcTestdev::new(Vec::new()));
        bench.out32(0xe0, 0x1234_5678);
        bench.out8(0xe1, 0xaa);
        assert_eq!((bench.in32(0xe0), bench.in16(0xe2), bench.in8(0xe9)), (0x1234_aa78, 0x1234, 0xaa));
    }

    #[test]
    fn testdev_irq_ports_drive_levels() {
        let world = World::new(1 << 20);
        let irq = world.irq_recorder();
        let lines = (0..16).map(|pin| irq.line(pin)).collect();
        let mut bench = Bench::in_world(PcTestdev::new(lines), &world);
        bench.out8(0x2005, 1);
        bench.out8(0x2017, 1);
        bench.out8(0x2005, 0);
        let changes: Vec<_> = irq.take().into_iter().map(|c| (c.pin, c.high)).collect();
        assert_eq!(changes, [(5, true), (5, false)]);
    }

    #[test]
    fn testdev_memory_keeps_what_is_written() {
        let mut bench = Bench::new(PcTestdev::new(Vec::new()));
        bench.map(Space::Memory, MEMORY, MEMORY_TAG);
        bench.write(Space::Memory, 0xff00_0ffd, 8, 0x8877_6655_4433_2211);
        assert_eq!(bench.read(Space::Memory, 0xff00_0ffe, 4), 0x5544_3322);
        assert_eq!(bench.read(Space::Memory, 0xff00_ffff, 1), 0);
    }
}
