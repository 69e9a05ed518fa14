//! Conversations with the controller, as drivers hold them: through the PIIX4, on the test bench.

use super::*;
use crate::pci::PciFunction;
use crate::pci::config::ConfigSpace;
use crate::pci::piix4::{Piix4Pm, SMBBA, SMBHSTCFG, SMBUS_ON_IRQ9, SMBUS_TAG};
use crate::shared::Shared;
use crate::testbench::{Bench, IrqRecorder, World};
use emu_core::device::{Device, Request, ResetKind, Space, ports};
use emu_core::irq::IrqLine;
use std::sync::Arc;

const BASE: u16 = 0x700;
const QUICK: u8 = 0;
const BYTE: u8 = 1 << 2;
const BYTE_DATA: u8 = 2 << 2;
const WORD_DATA: u8 = 3 << 2;
const BLOCK_DATA: u8 = 5 << 2;
/// The first EEPROM's address byte for writes and for reads.
const WRITE: u8 = 0xa0;
const READ: u8 = 0xa1;

struct Rig {
    bench: Bench<Piix4Pm>,
    config: Shared<ConfigSpace>,
    irq: Arc<IrqRecorder>,
}

impl Rig {
    fn new() -> Rig {
        let world = World::new(1 << 20);
        let irq = world.irq_recorder();
        let function = Piix4Pm::new(IrqLine::unconnected(), irq.line(9));
        let config = function.config();
        let mut bench = Bench::in_world(function, &world);
        bench.map(Space::Port, ports(BASE, SIZE as u16), SMBUS_TAG);
        config.lock().write(SMBBA, 4, BASE.into());
        config.lock().write(SMBHSTCFG, 1, SMBUS_ON_IRQ9.into());
        bench.poll();
        Rig { bench, config, irq }
    }

    /// Starts a transaction; status once it has ended, which is cleared, and the bits that it took.
    fn transact(&mut self, address: u8, control: u8) -> (u8, u64) {
        self.bench.out8(BASE + 4, address);
        self.bench.out8(BASE + 2, control | control::START);
        assert_eq!(self.bench.in8(BASE), status::HOST_BUSY);
        let start = self.bench.now();
        let end = self.bench.device.poll_at().expect("it ends");
        self.bench.advance_to(end);
        let status = self.bench.in8(BASE);
        self.bench.out8(BASE, 0x1e);
        assert_eq!(self.bench.in8(BASE), 0);
        (status, end.nanos_since(start) / BIT)
    }

    fn set(&mut self, command: u8, data: [u8; 2]) {
        for (port, value) in [(3, command), (5, data[0]), (6, data[1])] {
            self.bench.out8(BASE + port, value);
        }
    }

    fn data(&mut self) -> [u8; 2] {
        self.bench.in16(BASE + 5).to_le_bytes()
    }
}

#[test]
fn controller_is_decoded_where_firmware_puts_it_and_only_while_enabled() {
    let mut rig = Rig::new();
    let region = ports(BASE, 16);
    let map = Request::Map { space: Space::Port, region, tag: SMBUS_TAG };
    assert!(rig.bench.take_requests().contains(&map));
    let config = rig.config.lock();
    // SMBREV is 0.
    assert_eq!((config.read(SMBBA, 4), config.byte(SMBHSTCFG), config.byte(0xd6)), (0x701, 9, 0));
    drop(config);
    rig.config.lock().write(SMBHSTCFG, 1, 8);
    rig.bench.poll();
    assert_eq!(rig.bench.take_requests(), [Request::Unmap { tag: SMBUS_TAG }]);
}

#[test]
fn bytes_and_words_are_written_and_read_back() {
    let mut rig = Rig::new();
    rig.set(0x10, [0x5a, 0x99]);
    assert_eq!(rig.transact(WRITE, BYTE_DATA), (status::INTER, 29));
    rig.set(0x11, [0x34, 0x12]);
    assert_eq!(rig.transact(WRITE, WORD_DATA), (status::INTER, 38));
    rig.set(0x10, [0, 0x77]);
    assert_eq!(rig.transact(READ, BYTE_DATA), (status::INTER, 38));
    assert_eq!(rig.data(), [0x5a, 0x77]);
    rig.set(0x10, [0, 0]);
    assert_eq!(rig.transact(READ, WORD_DATA), (status::INTER, 47));
    assert_eq!(rig.data(), [0x5a, 0x34]);
    // Send byte sets the address, receive byte goes on from there.
    rig.set(0x12, [0, 0]);
    assert_eq!(rig.transact(WRITE, BYTE), (status::INTER, 20));
    assert_eq!(rig.transact(READ, BYTE), (status::INTER, 20));
    assert_eq!(rig.data(), [0x12, 0]);
    // Another EEPROM is another one.
    rig.set(0x10, [1, 1]);
    assert_eq!(rig.transact(READ + 2, BYTE_DATA), (status::INTER, 38));
    assert_eq!(rig.data(), [0, 1]);
}

#[test]
fn blocks_go_through_the_array_whose_index_a_read_of_control_clears() {
    let mut rig = Rig::new();
    rig.bench.in8(BASE + 2);
    (1..=5).for_each(|byte| rig.bench.out8(BASE + 7, byte));
    rig.set(0x20, [4, 0]);
    assert_eq!(rig.transact(WRITE, BLOCK_DATA), (status::INTER, 65));
    // The count was written at 20h, and is what a reader of that block finds there.
    rig.set(0x20, [9, 0]);
    assert_eq!(rig.transact(READ, BLOCK_DATA), (status::INTER, 74));
    assert_eq!(rig.data()[0], 4);
    rig.bench.in8(BASE + 2);
    let read: Vec<u8> = (0..5).map(|_| rig.bench.in8(BASE + 7)).collect();
    assert_eq!(read, [1, 2, 3, 4, 5]);
    // A count beyond what the protocol allows ends with the array.
    rig.set(0x20, [0xff, 0]);
    assert_eq!(rig.transact(WRITE, BYTE_DATA).0, status::INTER);
    assert_eq!(rig.transact(READ, BLOCK_DATA), (status::INTER, 9 * 36 + 2));
    assert_eq!(rig.data()[0], 0xff);
    // No byte at all is none.
    rig.set(0x80, [0, 0]);
    assert_eq!(rig.transact(READ, BLOCK_DATA), (status::INTER, 38));
}

#[test]
fn nobody_at_an_address_and_reserved_protocols_are_device_errors() {
    let mut rig = Rig::new();
    for address in [0x00, 0x20, 0x9e, 0xb0, 0xb1, 0xff] {
        for protocol in [QUICK, BYTE, BYTE_DATA, WORD_DATA, BLOCK_DATA] {
            assert_eq!(rig.transact(address, protocol), (status::DEV_ERR, 11), "{address:#x} {protocol}");
        }
    }
    for address in 0xa0..0xb0 {
        assert_eq!(rig.transact(address, QUICK), (status::INTER, 11), "{address:#x}");
    }
    for protocol in [4, 6, 7] {
        assert_eq!(rig.transact(READ, protocol << 2).0, status::DEV_ERR);
    }
}

#[test]
fn interrupt_comes_when_it_is_enabled_and_chosen_and_stays_until_cleared() {
    let mut rig = Rig::new();
    rig.transact(READ, QUICK);
    assert!(rig.irq.take().is_empty());
    for address in [READ, 0x20] {
        rig.bench.out8(BASE + 4, address);
        rig.bench.out8(BASE + 2, control::START | control::INTEREN);
        let end = rig.bench.device.poll_at().expect("it ends");
        rig.bench.advance(1_000_000);
        let rises = rig.irq.take();
        assert_eq!(rises.len(), 1);
        assert_eq!((rises[0].at, rises[0].high), (end, true));
        // Until all causes are cleared, START has no effect.
        rig.bench.out8(BASE + 2, control::START | control::INTEREN);
        assert_eq!(rig.bench.in8(BASE) & status::HOST_BUSY, 0);
        rig.bench.out8(BASE, 0xff);
        assert_eq!(rig.irq.take().len(), 1);
    }
    // As SMI#, which there is not.
    rig.config.lock().write(SMBHSTCFG, 1, 1);
    rig.bench.poll();
    assert_eq!(rig.transact(READ, QUICK | control::INTEREN).0, status::INTER);
    assert!(rig.irq.take().is_empty());
}

#[test]
fn kill_stops_a_transaction_and_its_result_is_lost() {
    let mut rig = Rig::new();
    rig.set(0x30, [0x42, 0]);
    rig.transact(WRITE, BYTE_DATA);
    rig.set(0x30, [0, 0]);
    rig.bench.out8(BASE + 4, READ);
    rig.bench.out8(BASE + 2, BYTE_DATA | control::START | control::INTEREN);
    // What it uses cannot be changed under it.
    rig.set(0x31, [7, 7]);
    assert_eq!(rig.bench.in8(BASE + 3), 0x30);
    rig.bench.advance(5 * BIT);
    assert_eq!(rig.bench.in8(BASE), status::HOST_BUSY);
    rig.bench.out8(BASE + 2, BYTE_DATA | control::KILL | control::INTEREN);
    assert_eq!((rig.bench.in8(BASE), rig.irq.take_rises(9)), (status::FAILED, 1));
    assert_eq!(rig.bench.in8(BASE + 2), BYTE_DATA | control::KILL | control::INTEREN);
    rig.bench.advance(1_000_000);
    assert_eq!((rig.bench.in8(BASE), rig.data()), (status::FAILED, [0, 0]));
    rig.bench.out8(BASE + 2, 0);
    rig.bench.out8(BASE, status::FAILED);
    assert_eq!(rig.transact(READ, BYTE_DATA).0, status::INTER);
    assert_eq!(rig.data()[0], 0x42);
}

#[test]
fn reset_clears_the_registers_and_not_the_memories_and_a_snapshot_keeps_all() {
    let mut rig = Rig::new();
    rig.set(0x40, [0x42, 0]);
    rig.transact(WRITE, BYTE_DATA);
    rig.set(0x40, [0, 0]);
    rig.bench.out8(BASE + 4, READ);
    rig.bench.out8(BASE + 2, BYTE_DATA | control::START);
    let mut other = Rig::new();
    rig.bench.copy_state_to(&mut other.bench);
    other.bench.advance(1_000_000);
    assert_eq!((other.bench.in8(BASE), other.data()), (status::INTER, [0x42, 0]));
    rig.bench.reset(ResetKind::Warm);
    assert_eq!((rig.bench.in8(BASE), rig.bench.in8(BASE + 3)), (0, 0));
    rig.set(0x40, [0, 0]);
    rig.transact(READ, BYTE_DATA);
    assert_eq!(rig.data()[0], 0x42);
}
