use super::*;
use crate::net::checksum::sum;
use crate::net::{MacAddress, MemoryNetwork};
use crate::testbench::{Bench, IrqRecorder, World};
use emu_core::device::Region;
use std::sync::Arc;

const BASE: u64 = 0xfe00_0000;
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const RX_RING: u64 = 0x1_0000;
const TX_RING: u64 = 0x2_0000;
const RX_BUFFERS: u64 = 0x10_0000;
const TX_BUFFER: u64 = 0x8_0000;
const SLOTS: u64 = 64;

struct Card {
    bench: Bench<E1000>,
    cable: MemoryNetwork,
    irq: Arc<IrqRecorder>,
    tail: u32,
}

impl Card {
    fn off() -> Card {
        let world = World::new(4 << 20);
        let (cable, irq) = (MemoryNetwork::new(), world.irq_recorder());
        let nic = NicConfig { mac: MacAddress(MAC), backend: Box::new(cable.clone()), rom: Arc::new([]) };
        let host = Host { memory: world.memory().clone(), pins: Arc::default() };
        let mut bench = Bench::in_world(E1000::new(nic, irq.line(0), host), &world);
        bench.map(Space::Memory, Region { base: BASE, len: REGISTERS.into() }, BAR_TAG);
        bench.map(Space::Port, Region { base: 0xc000, len: PORTS.into() }, PORT_TAG);
        bench.device.config().lock().write(reg::COMMAND, 2, 7);
        Card { bench, cable, irq, tail: 0 }
    }

    /// A card with both rings, all but one receive descriptor given to it, and all interrupts it needs.
    fn on() -> Card {
        let mut card = Card::off();
        for i in 0..SLOTS {
            let address = RX_BUFFERS + 2048 * i;
            card.bench.world.memory().write(RX_RING + 16 * i, &address.to_le_bytes());
        }
        for (register, value) in [
            (0x2800, RX_RING as u32),
            (0x2804, 0),
            (0x2808, 16 * SLOTS as u32),
            (0x2818, SLOTS as u32 - 1),
            (0x3800, TX_RING as u32),
            (0x3808, 16 * SLOTS as u32),
            (0x5000, 0x300),
            (0x0400, 0x0a),
            (0x0100, 0x0400_8002),
            (0x00d0, 0x9f),
        ] {
            card.set(register, value);
        }
        card
    }

    fn get(&mut self, register: u64) -> u32 {
        self.bench.read(Space::Memory, BASE + register, 4) as u32
    }

    fn set(&mut self, register: u64, value: u32) {
        self.bench.write(Space::Memory, BASE + register, 4, value.into());
    }

    fn phy(&mut self, register: u32) -> u16 {
        self.set(0x20, 2 << 26 | 1 << 21 | register << 16);
        let value = self.get(0x20);
        assert_eq!(value >> 28, 1);
        value as u16
    }

    fn set_phy(&mut self, register: u32, value: u16) {
        self.set(0x20, 1 << 26 | 1 << 21 | register << 16 | u32::from(value));
    }

    fn memory(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.bench.world.memory().read(at, &mut bytes);
        bytes
    }

    fn deliver(&mut self, frame: &[u8]) {
        self.cable.deliver(frame);
        self.bench.poll();
    }

    /// Length, checksum, status, errors and special of a receive descriptor.
    fn received(&self, slot: u64) -> (usize, u8, u8, u16) {
        let d = self.memory(RX_RING + 16 * slot + 8, 8);
        (u16::from_le_bytes([d[0], d[1]]).into(), d[4], d[5], u16::from_le_bytes([d[6], d[7]]))
    }

    fn frame_in(&self, slot: u64) -> Vec<u8> {
        self.memory(RX_BUFFERS + 2048 * slot, self.received(slot).0)
    }

    /// Appends a transmit descriptor.
    fn push(&mut self, address: u64, second: u64) {
        let at = TX_RING + 16 * u64::from(self.tail);
        self.bench.world.memory().write(at, &[address.to_le_bytes(), second.to_le_bytes()].concat());
        self.tail = (self.tail + 1) % SLOTS as u32;
    }

    fn ring_bell(&mut self) -> Vec<Vec<u8>> {
        self.set(0x3818, self.tail);
        self.cable.take_sent()
    }

    fn data(&mut self, bytes: &[u8]) {
        self.bench.world.memory().write(TX_BUFFER, bytes);
    }
}

fn frame(to: [u8; 6], len: usize) -> Vec<u8> {
    let mut frame = to.to_vec();
    frame.extend((6..len).map(|i| i as u8));
    frame
}

const LEGACY: u64 = 0x0b << 24;
const DATA_DESCRIPTOR: u64 = 0x29 << 24 | 1 << 20;

#[test]
fn power_on_shows_address_link_and_phy() {
    let mut card = Card::off();
    assert_eq!((card.get(0x5400), card.get(0x5404)), (0x1200_5452, 0x8000_5634));
    assert_eq!(card.get(0x08) & 3, 3);
    assert_eq!((card.phy(2), card.phy(3)), (0x0141, 0x0c20));
    assert_eq!((card.phy(1), card.phy(17)), (0x796d, 0xac00));
    card.set(0x14, 0x0001);
    assert_eq!(card.get(0x14), 0x5452_0010);
    // Another place on MDIO, and the port BAR.
    card.set(0x20, 2 << 26 | 2 << 21);
    assert_eq!(card.get(0x20) >> 28, 5);
    card.bench.out32(0xc000, 0x5400);
    assert_eq!((card.bench.in32(0xc000), card.bench.in32(0xc004)), (0x5400, 0x1200_5452));
}

#[test]
fn negotiation_takes_the_link_away_for_a_moment() {
    let mut card = Card::on();
    card.set_phy(0, 0x9140);
    assert_eq!((card.get(0x08) & 2, card.phy(1) & 0x24, card.get(0xc0)), (0, 0, 4));
    card.bench.advance(NEGOTIATION);
    assert_eq!((card.get(0x08) & 2, card.get(0xc0)), (2, 4));
    // The link bit of PSTATUS latches the loss.
    assert_eq!((card.phy(1) & 0x24, card.phy(1) & 0x24), (0x20, 0x24));
    card.cable.set_link(false);
    assert_eq!((card.get(0x08) & 2, card.get(0xc0)), (2, 0));
    card.bench.poll();
    assert_eq!((card.get(0x08) & 2, card.get(0xc0)), (0, 4));
    card.deliver(&frame(MAC, 100));
    assert_eq!(card.received(0).1, 0);
}

#[test]
fn legacy_descriptor_sends_and_reports() {
    let mut card = Card::on();
    card.irq.take();
    let bytes = frame([2; 6], 100);
    card.data(&bytes);
    card.push(TX_BUFFER, LEGACY | 100);
    assert_eq!(card.ring_bell(), [bytes]);
    assert_eq!(card.memory(TX_RING + 12, 1), [1]);
    assert_eq!((card.get(0x3810), card.irq.take_rises(0), card.get(0xc0)), (1, 1, 0x03));
    assert_eq!(card.irq.take().last().map(|change| change.high), Some(false));
    // Short packets are padded; several descriptors are one packet.
    card.push(TX_BUFFER, 20);
    card.push(TX_BUFFER + 20, LEGACY | 10);
    assert_eq!(card.ring_bell()[0].len(), 60);
    // Statistics: two frames, one of 64 bytes, one of 104.
    assert_eq!([card.get(0x4080), card.get(0x4080), card.get(0x40d8), card.get(0x40dc)], [2, 0, 1, 1]);
}

#[test]
fn legacy_checksum_is_inserted() {
    let mut card = Card::on();
    let mut bytes = frame([2; 6], 100);
    bytes[50..52].fill(0);
    card.data(&bytes);
    // CSO 50, CSS 14.
    card.push(TX_BUFFER, 14 << 40 | (LEGACY | 4 << 24) | 50 << 16 | 100);
    let sent = card.ring_bell().remove(0);
    assert_eq!(sum(&sent[14..]), 0xffff);
    assert_eq!(sent[..50], bytes[..50]);
    // Offsets beyond the packet do nothing.
    card.push(TX_BUFFER, 255 << 40 | (LEGACY | 4 << 24) | 255 << 16 | 100);
    assert_eq!(card.ring_bell(), [bytes]);
}

/// An Ethernet, IPv4 and TCP header, as a driver leaves them for segmentation, and `len` bytes of data.
fn tcp(len: usize) -> Vec<u8> {
    let mut bytes = [vec![2; 6], MAC.to_vec(), vec![8, 0]].concat();
    bytes.extend([0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
    bytes.extend([0x30, 0x39, 0, 80, 0xff, 0xff, 0xff, 0x00, 0, 0, 0, 1, 0x50, 0x19, 0x20, 0, 0, 0, 0, 0]);
    // The pseudo header without a length.
    let pseudo = crate::net::checksum::add(sum(&bytes[26..34]), 6);
    bytes[50..52].copy_from_slice(&pseudo.to_be_bytes());
    bytes.extend((0..len).map(|i| (i % 251) as u8));
    bytes
}

#[test]
fn tcp_is_segmented_with_headers_and_checksums() {
    let mut card = Card::on();
    let bytes = tcp(3000);
    card.data(&bytes);
    // Context: IP at 14 to 33, TCP from 34, TSE, TCP, IPv4, DEXT; headers of 54 bytes, MSS 1460.
    let first = 14 | 24 << 8 | 33 << 16 | 34 << 32 | 50 << 40;
    card.push(first, 1460 << 48 | 54 << 40 | 0x27 << 24 | 3000);
    card.push(TX_BUFFER, 3 << 40 | (DATA_DESCRIPTOR & !(1 << 24) | 4 << 24) | 54);
    card.push(TX_BUFFER + 54, 3 << 40 | DATA_DESCRIPTOR | 4 << 24 | 3000);
    let sent = card.ring_bell();
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [1514, 1514, 134]);
    let mut data = Vec::new();
    for (i, segment) in sent.iter().enumerate() {
        let verdict = crate::net::checksum::verify(segment, 0x0800, 14);
        assert_eq!((verdict.ip, verdict.transport), (Some(true), Some(true)), "{i}");
        assert_eq!(segment[18..20], (0x1234 + i as u16).to_be_bytes());
        assert_eq!(segment[38..42], 0xffff_ff00u32.wrapping_add(1460 * i as u32).to_be_bytes());
        assert_eq!(segment[47], if i == 2 { 0x19 } else { 0x10 });
        data.extend_from_slice(&segment[54..]);
    }
    assert_eq!(data, bytes[54..]);
    assert_eq!(card.get(0x40f8), 1);
}

#[test]
fn checksums_of_a_data_descriptor_are_inserted_and_vlan_tags_put_in() {
    let mut card = Card::on();
    card.set(0x00, ctrl::FD | ctrl::SLU | ctrl::VME);
    let mut bytes = tcp(100);
    bytes[16..18].copy_from_slice(&140u16.to_be_bytes());
    let pseudo = crate::net::checksum::add(sum(&bytes[50..52]), 120);
    bytes[50..52].copy_from_slice(&pseudo.to_be_bytes());
    card.data(&bytes);
    card.push(14 | 24 << 8 | 33 << 16 | 34 << 32 | 50 << 40, 0x20 << 24);
    card.push(TX_BUFFER, 0x2005 << 48 | 3 << 40 | DATA_DESCRIPTOR | 0x40 << 24 | 154);
    let sent = card.ring_bell().remove(0);
    assert_eq!(sent[12..16], [0x81, 0x00, 0x20, 0x05]);
    let verdict = crate::net::checksum::verify(&sent, 0x0800, 18);
    assert_eq!((verdict.ip, verdict.transport), (Some(true), Some(true)));
}

#[test]
fn transmit_interrupt_is_delayed_by_tidv_and_at_most_by_tadv() {
    let mut card = Card::on();
    card.set(0x00d8, 2);
    card.set(0x3820, 8);
    card.set(0x382c, 12);
    card.irq.take();
    let send = |card: &mut Card| {
        card.push(TX_BUFFER, LEGACY | 0x80 << 24 | 60);
        card.ring_bell();
    };
    send(&mut card);
    card.bench.advance(7 * DELAY_UNIT);
    send(&mut card);
    card.bench.advance(5 * DELAY_UNIT - 1);
    assert_eq!(card.irq.take_rises(0), 0);
    card.bench.advance(1);
    assert_eq!((card.irq.take_rises(0), card.get(0xc0) & 1), (1, 1));
    // Without TADV, the timer starts anew each time; the flush bit ends it.
    card.set(0x382c, 0);
    send(&mut card);
    card.bench.advance(7 * DELAY_UNIT);
    send(&mut card);
    card.bench.advance(7 * DELAY_UNIT);
    assert_eq!(card.irq.take_rises(0), 0);
    card.set(0x3820, 8 | FPD);
    assert_eq!(card.irq.take_rises(0), 1);
}

#[test]
fn frame_is_received_with_status_and_interrupt() {
    let mut card = Card::on();
    card.irq.take();
    let mut expected = frame(MAC, 42);
    card.deliver(&expected);
    expected.resize(60, 0);
    assert_eq!((card.received(0), card.frame_in(0)), ((60, 0x03, 0, 0), expected));
    assert_eq!((card.get(0x2810), card.irq.take_rises(0), card.get(0xc0)), (1, 1, 0x80));
    // With its CRC.
    card.set(0x0100, 0x0000_8002);
    let broadcast = frame([0xff; 6], 100);
    card.deliver(&broadcast);
    let crc = crate::net::ethernet::frame_check_sequence(&broadcast);
    assert_eq!(card.frame_in(1), [broadcast, crc.to_vec()].concat());
    assert_eq!([card.get(0x4074), card.get(0x4078), card.get(0x4088)], [2, 1, 168]);
}

#[test]
fn receive_checksums_are_told() {
    let mut card = Card::on();
    let mut bytes = tcp(100);
    bytes[..6].copy_from_slice(&MAC);
    bytes[16..18].copy_from_slice(&140u16.to_be_bytes());
    let header = !sum(&bytes[14..34]);
    bytes[24..26].copy_from_slice(&header.to_be_bytes());
    let total = !crate::net::checksum::add(sum(&bytes[34..]), 120);
    bytes[50..52].copy_from_slice(&total.to_be_bytes());
    card.deliver(&bytes);
    assert_eq!(card.received(0), (154, 0x63, 0, 0));
    bytes[60] ^= 1;
    card.deliver(&bytes);
    assert_eq!(card.received(1), (154, 0x63, 0x20, 0));
    card.set(0x5000, 0);
    card.deliver(&bytes);
    assert_eq!(card.received(2), (154, 0x03, 0, 0));
}

#[test]
fn frames_span_buffers_and_long_ones_need_lpe() {
    let mut card = Card::on();
    // Buffers of 256 bytes.
    card.set(0x0100, 0x0403_8002);
    let bytes = frame(MAC, 600);
    card.deliver(&bytes);
    let parts: Vec<_> = (0..3).map(|slot| card.received(slot)).collect();
    assert_eq!(parts, [(256, 1, 0, 0), (256, 1, 0, 0), (88, 3, 0, 0)]);
    assert_eq!((0..3).flat_map(|slot| card.frame_in(slot)).collect::<Vec<_>>(), bytes);
    card.set(0x0100, 0x0400_8002);
    card.deliver(&frame(MAC, 1519));
    assert_eq!((card.get(0x2810), card.get(0x40ac)), (3, 1));
    card.set(0x0100, 0x0400_8022);
    card.deliver(&frame(MAC, 9000));
    assert_eq!((card.get(0x2810), card.received(7).0), (8, 9000 - 4 * 2048));
}

#[test]
fn filters_let_through_what_they_are_set_for() {
    let group = [0x01, 0x00, 0x5e, 0x00, 0x00, 0xfb];
    let hash = 0xfb00u32 >> 4 & 0xfff;
    // RCTL; own, another's, second own address, broadcast, group in the table, group that is not.
    for (rctl, accepted) in [
        (0x0002, [true, false, true, false, true, false]),
        (0x8002, [true, false, true, true, true, false]),
        (0x800a, [true, true, true, true, true, false]),
        (0x8012, [true, false, true, true, true, true]),
        (0x8000, [false; 6]),
    ] {
        let own = [0x52, 0x54, 0, 0, 0, 9];
        let destinations = [MAC, [2; 6], own, [0xff; 6], group, [0x33, 0x33, 0, 0, 0, 1]];
        for (destination, accepted) in destinations.into_iter().zip(accepted) {
            let mut card = Card::on();
            card.set(0x5408, 0x0000_5452);
            card.set(0x540c, 0x8000_0900);
            card.set(0x5200 + u64::from(4 * (hash >> 5)), 1 << (hash & 31));
            card.set(0x0100, rctl);
            card.deliver(&frame(destination, 100));
            assert_eq!(card.received(0).1 & 1 == 1, accepted, "RCTL {rctl:#x}, {destination:x?}");
        }
    }
}

#[test]
fn vlan_tags_are_filtered_and_taken_out() {
    let mut card = Card::on();
    let mut bytes = frame(MAC, 100);
    bytes[12..16].copy_from_slice(&[0x81, 0x00, 0x20, 0x05]);
    card.set(0x00, ctrl::FD | ctrl::SLU | ctrl::VME);
    card.set(0x0100, 0x0404_8002);
    card.deliver(&bytes);
    assert_eq!(card.received(0).1, 0);
    card.set(0x5600, 1 << 5);
    card.deliver(&bytes);
    assert_eq!(card.received(0), (96, 0x0b, 0, 0x2005));
    assert_eq!(card.frame_in(0), [&bytes[..12], &bytes[16..]].concat());
}

#[test]
fn frames_wait_for_descriptors_and_are_lost_only_after_some_time() {
    let mut card = Card::on();
    (0..70).for_each(|_| card.deliver(&frame(MAC, 100)));
    assert_eq!((card.get(0x2810), card.cable.waiting()), (63, 6));
    assert_eq!(card.get(0xc0), 0x90, "RXT0 and RXDMT0");
    card.set(0x2818, 62);
    assert_eq!((card.get(0x2810), card.cable.waiting()), (6, 0));
    card.set(0x2818, 6);
    card.deliver(&frame(MAC, 100));
    card.bench.advance(PATIENCE - 1);
    assert_eq!((card.get(0xc0) & 0x40, card.get(0x4010)), (0, 0));
    card.bench.advance(1);
    assert_eq!((card.get(0xc0) & 0x40, card.get(0x4010)), (0x40, 1));
}

#[test]
fn receive_interrupts_are_delayed_and_throttled() {
    let mut card = Card::on();
    card.irq.take();
    card.set(0x2820, 10);
    card.deliver(&frame(MAC, 100));
    card.bench.advance(10 * DELAY_UNIT - 1);
    assert_eq!(card.irq.take_rises(0), 0);
    card.bench.advance(1);
    assert_eq!((card.irq.take_rises(0), card.get(0xc0)), (1, 0x80));
    // At most one interrupt in 1000 units.
    card.set(0x2820, 0);
    card.set(0x00c4, 1000);
    card.deliver(&frame(MAC, 100));
    assert_eq!((card.irq.take_rises(0), card.get(0xc0)), (1, 0x80));
    card.deliver(&frame(MAC, 100));
    card.bench.advance(1000 * ITR_UNIT - 1);
    assert_eq!(card.irq.take_rises(0), 0);
    card.bench.advance(1);
    assert_eq!(card.irq.take_rises(0), 1);
}

#[test]
fn loopback_of_the_phy_returns_frames_without_a_cable() {
    let mut card = Card::on();
    card.set_phy(0, 0x4140);
    let bytes = frame(MAC, 100);
    card.data(&bytes);
    card.push(TX_BUFFER, LEGACY | 100);
    assert!(card.ring_bell().is_empty());
    assert_eq!(card.frame_in(0), bytes);
}

#[test]
fn absurd_rings_do_no_harm() {
    for (len, head, tail) in [(0, 0, 5), (0xf_ff80, 0xffff, 0), (0xf_ff80, 0, 0xfff7), (128, 9, 1), (128, 0, 0xffff)] {
        let mut card = Card::on();
        for ring in [0x2800, 0x3800] {
            card.set(ring, 0xffff_ff00);
            card.set(ring + 4, 0xffff_ffff);
            card.set(ring + 8, len);
            card.set(ring + 0x10, head);
            card.set(ring + 0x18, tail);
        }
        card.deliver(&frame(MAC, 1000));
        card.bench.advance(2 * PATIENCE);
    }
    // A packet without end, of the largest descriptors, over memory that reads as device registers.
    let mut card = Card::on();
    (0..40).for_each(|_| card.push(BASE, 0x20 << 24 | 1 << 20 | 0xf_ffff));
    card.push(BASE, 1 << 48 | 255 << 40 | 0x24 << 24);
    card.push(BASE, 3 << 40 | DATA_DESCRIPTOR | 4 << 24);
    let sent = card.ring_bell();
    assert!(sent.len() < 300_000 && !sent.is_empty());
    assert_eq!(card.get(0x3810), card.tail);
}

#[test]
fn nothing_moves_without_bus_mastery() {
    let mut card = Card::on();
    card.bench.device.config().lock().write(reg::COMMAND, 2, 3);
    card.push(TX_BUFFER, LEGACY | 100);
    assert!(card.ring_bell().is_empty());
    card.deliver(&frame(MAC, 100));
    assert_eq!(card.received(0).1, 0);
}

#[test]
fn reset_bit_keeps_the_phy_and_loads_the_address() {
    let mut card = Card::on();
    card.set(0x5400, 0);
    card.set(0x00, ctrl::RST);
    assert_eq!((card.get(0x5400), card.get(0x0100), card.get(0x08) & 2), (0x1200_5452, 0, 2));
}

#[test]
fn state_is_saved_and_restored() {
    let mut card = Card::on();
    card.deliver(&frame(MAC, 200));
    card.push(TX_BUFFER, 100);
    card.ring_bell();
    let mut other = Card::off();
    card.bench.copy_state_to(&mut other.bench);
    assert_eq!(other.irq.take_rises(0), 1);
    assert_eq!(other.bench.device.state(), card.bench.device.state());
}
