use super::*;
use crate::net::MemoryNetwork;
use crate::net::NicConfig;
use crate::net::ethernet::frame_check_sequence;
use crate::net::ne2k_isa::Ne2kIsa;
use crate::testbench::{Bench, IrqRecorder, World};
use emu_core::device::{Device, Space, ports};
use std::sync::Arc;

const BASE: u16 = 0x300;
const DATA: u16 = BASE + 0x10;
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

struct Card {
    bench: Bench<Ne2kIsa>,
    cable: MemoryNetwork,
    irq: Arc<IrqRecorder>,
}

impl Card {
    /// A card after power-on.
    fn off() -> Card {
        let world = World::new(1 << 20);
        let (cable, irq) = (MemoryNetwork::new(), world.irq_recorder());
        let nic = NicConfig { mac: MacAddress(MAC), backend: Box::new(cable.clone()), rom: Arc::new([]) };
        let mut bench = Bench::in_world(Ne2kIsa::new(nic, irq.line(0)), &world);
        bench.map(Space::Port, ports(BASE, PORTS), 0);
        Card { bench, cable, irq }
    }

    /// A card that has been initialised as the data sheet says (11): words, a ring from page 46h to 80h, started, broadcasts.
    fn on() -> Card {
        let mut card = Card::off();
        card.set(0x00, 0x21);
        card.set(0x0e, 0x49);
        for (register, value) in [(0x0a, 0), (0x0b, 0), (0x0c, 0x04), (0x0d, 0x02), (0x04, 0x40)] {
            card.set(register, value);
        }
        for (register, value) in [(0x01, 0x46), (0x02, 0x80), (0x03, 0x46), (0x07, 0xff), (0x0f, 0x7f)] {
            card.set(register, value);
        }
        card.set(0x00, 0x61);
        (0..6).for_each(|i| card.set(1 + i, MAC[usize::from(i)]));
        (0..8).for_each(|i| card.set(8 + i, 0));
        card.set(0x07, 0x47);
        card.set(0x00, 0x22);
        card.set(0x0d, 0x00);
        card
    }

    fn set(&mut self, register: u16, value: u8) {
        self.bench.out8(BASE + register, value);
    }

    fn get(&mut self, register: u16) -> u8 {
        self.bench.in8(BASE + register)
    }

    /// A register of page 1.
    fn page1(&mut self, register: u16) -> u8 {
        self.set(0, 0x62);
        let value = self.get(register);
        self.set(0, 0x22);
        value
    }

    fn remote(&mut self, at: u16, len: u16, command: u8) {
        for (register, value) in
            [(0x08, at as u8), (0x09, (at >> 8) as u8), (0x0a, len as u8), (0x0b, (len >> 8) as u8)]
        {
            self.set(register, value);
        }
        self.set(0, command);
    }

    fn read(&mut self, at: u16, len: u16) -> Vec<u8> {
        self.remote(at, len, 0x0a);
        (0..len / 2).flat_map(|_| self.bench.in16(DATA).to_le_bytes()).collect()
    }

    fn write(&mut self, at: u16, bytes: &[u8]) {
        self.remote(at, bytes.len() as u16, 0x12);
        bytes.chunks(2).for_each(|pair| self.bench.out16(DATA, u16::from_le_bytes([pair[0], pair[1]])));
    }

    fn deliver(&mut self, frame: &[u8]) {
        self.cable.deliver(frame);
        self.bench.poll();
    }
}

fn frame(to: [u8; 6], len: usize) -> Vec<u8> {
    let mut frame = to.to_vec();
    frame.extend((6..len).map(|i| i as u8));
    frame
}

#[test]
fn prom_holds_the_address_twice_and_the_signature_of_an_ne2000() {
    let mut card = Card::off();
    card.set(0, 0x21);
    card.set(0x0e, 0x48);
    card.remote(0, 32, 0x0a);
    let bytes: Vec<u8> = (0..32).map(|_| card.bench.in8(DATA)).collect();
    let twice: Vec<u8> = MAC.iter().flat_map(|byte| [*byte, *byte]).collect();
    assert_eq!(bytes[..12], twice);
    assert_eq!(bytes[28..], [0x57; 4]);
    assert_eq!(card.get(7) & 0x40, 0x40, "RDC");
}

#[test]
fn reset_port_stops_the_controller_and_sets_rst() {
    let mut card = Card::on();
    assert_eq!(card.get(7), 0);
    let value = card.get(0x1f);
    card.set(0x1f, value);
    assert_eq!((card.get(0), card.get(7)), (0x21, 0x80));
    // RST cannot be cleared but by a start.
    card.set(7, 0xff);
    assert_eq!(card.get(7), 0x80);
    card.set(0, 0x22);
    assert_eq!(card.get(7), 0);
}

#[test]
fn remote_dma_wraps_at_the_end_of_the_ring_and_completes_with_rdc() {
    let mut card = Card::on();
    card.write(0x7ffe, &[1, 2, 3, 4]);
    assert_eq!(card.get(7), 0x40);
    assert_eq!(card.irq.take_rises(0), 1);
    assert_eq!((card.get(8), card.get(9)), (0x02, 0x46), "CRDA");
    assert_eq!(card.read(0x4600, 2), [3, 4]);
    assert_eq!(card.read(0x7ffe, 4), [1, 2, 3, 4]);
    // Beyond its count, and outside of the buffer, there is nothing.
    assert_eq!(card.bench.in16(DATA), 0xffff);
    card.write(0x8000, &[9, 9]);
    assert_eq!(card.read(0x8000, 2), [0xff, 0xff]);
}

#[test]
fn data_port_takes_words_bytes_and_double_words() {
    let mut card = Card::on();
    card.remote(0x4000, 6, 0x12);
    card.bench.out32(DATA, 0x4433_2211);
    card.bench.out16(DATA, 0x6655);
    assert_eq!(card.get(7), 0x40);
    card.remote(0x4000, 6, 0x0a);
    assert_eq!((card.bench.in32(DATA), card.bench.in16(DATA)), (0x4433_2211, 0x6655));
    // Byte transfers.
    card.set(0x0e, 0x48);
    card.remote(0x4001, 3, 0x0a);
    assert_eq!((card.bench.in8(DATA), card.bench.in16(DATA)), (0x22, 0x4433));
    // Byte order of the 68000.
    card.set(0x0e, 0x4b);
    card.remote(0x4000, 2, 0x0a);
    assert_eq!(card.bench.in16(DATA), 0x1122);
}

#[test]
fn odd_count_of_words_completes_and_zero_completes_at_once() {
    let mut card = Card::on();
    card.remote(0x4000, 3, 0x12);
    card.bench.out16(DATA, 1);
    assert_eq!(card.get(7), 0);
    card.bench.out16(DATA, 2);
    assert_eq!(card.get(7), 0x40);
    card.set(7, 0x40);
    card.remote(0x4000, 0, 0x0a);
    assert_eq!(card.get(7), 0x40);
    // Abort.
    card.set(7, 0x40);
    card.remote(0x4000, 4, 0x12);
    card.set(0, 0x22);
    card.bench.out16(DATA, 5);
    assert_eq!(card.get(7), 0);
}

#[test]
fn frame_is_sent_and_ptx_interrupts() {
    let mut card = Card::on();
    let frame = frame([2; 6], 64);
    card.write(0x4000, &frame);
    card.set(7, 0x40);
    card.irq.take();
    for (register, value) in [(0x05, 64), (0x06, 0), (0x04, 0x40), (0x00, 0x26)] {
        card.set(register, value);
    }
    assert_eq!(card.cable.take_sent(), [frame]);
    assert_eq!((card.get(0), card.get(4) & 0xfd, card.get(7)), (0x22, 0x01, 0x02));
    assert_eq!(card.irq.take_rises(0), 1);
    card.set(7, 0x02);
    assert_eq!(card.irq.take().last().map(|change| change.high), Some(false));
}

#[test]
fn frame_with_the_crc_of_software_is_sent_only_if_that_is_right() {
    let mut card = Card::on();
    let mut frame = frame([2; 6], 60);
    let crc = frame_check_sequence(&frame);
    frame.extend(crc);
    card.write(0x4000, &frame);
    for (register, value) in [(0x0d, 0x01), (0x05, 64), (0x06, 0), (0x00, 0x26)] {
        card.set(register, value);
    }
    assert_eq!(card.cable.take_sent(), [&frame[..60]]);
    card.write(0x4010, &[0, 0]);
    card.set(0x00, 0x26);
    assert!(card.cable.take_sent().is_empty());
}

#[test]
fn transmission_of_nothing_and_of_everything_ends() {
    let mut card = Card::on();
    card.set(0x00, 0x26);
    assert_eq!((card.get(7), card.cable.take_sent().len()), (0x02, 0));
    for (register, value) in [(0x05, 0xff), (0x06, 0xff), (0x04, 0xff), (0x00, 0x26)] {
        card.set(register, value);
    }
    assert_eq!(card.cable.take_sent()[0].len(), 65_535);
    // Not while it is stopped.
    card.set(0, 0x25);
    assert!(card.cable.take_sent().is_empty());
}

#[test]
fn frame_is_received_with_header_and_crc_and_padded() {
    let mut card = Card::on();
    let mut expected = frame(MAC, 42);
    card.deliver(&expected);
    assert_eq!((card.get(7), card.get(0x0c), card.page1(7)), (0x01, 0x01, 0x48));
    assert_eq!(card.irq.take_rises(0), 1);
    expected.resize(60, 0);
    let crc = frame_check_sequence(&expected);
    expected.extend(crc);
    assert_eq!(card.read(0x4700, 4), [0x01, 0x48, 64, 0]);
    assert_eq!(card.read(0x4704, 64), expected);
    let mut broadcast = frame([0xff; 6], 600);
    card.deliver(&broadcast);
    assert_eq!(card.read(0x4800, 4), [0x21, 0x4b, 0x5c, 0x02]);
    let crc = frame_check_sequence(&broadcast);
    broadcast.extend(crc);
    assert_eq!(card.read(0x4804, 604), broadcast);
}

#[test]
fn driver_whose_boundary_is_a_page_behind_what_it_reads_gets_every_frame_of_a_fast_cable() {
    // As Linux's: while it reads at the start of the ring, the boundary is below the ring.
    let mut card = Card::on();
    let frames: Vec<Vec<u8>> = (0..100).map(|i| frame(MAC, 600).into_iter().chain([i, 0]).collect()).collect();
    frames.iter().for_each(|frame| card.deliver(frame));
    let mut page = 0x47;
    let mut starts = 0;
    for frame in &frames {
        starts += u32::from(page == 0x46);
        let next = if page + 3 < 0x80 { page + 3 } else { page + 3 - 0x3a };
        assert_eq!(card.read(u16::from(page) << 8, 4), [0x01, next, 0x5e, 0x02]);
        assert_eq!(card.read(u16::from(page) << 8 | 4, 602), *frame);
        page = next;
        card.set(3, page - 1);
    }
    assert_eq!((starts, card.get(7) & 0x10), (2, 0), "times at the start, overflows");
}

#[test]
fn received_frame_wraps_around_the_ring() {
    let mut card = Card::on();
    card.set(0, 0x62);
    card.set(7, 0x7f);
    card.set(0, 0x22);
    card.set(3, 0x7e);
    let frame = frame(MAC, 400);
    card.deliver(&frame);
    assert_eq!(card.page1(7), 0x47);
    assert_eq!(card.read(0x7f00, 4), [0x01, 0x47, 0x94, 0x01]);
    // Remote DMA wraps as well.
    assert_eq!(card.read(0x7f04, 400), frame);
    assert_eq!(card.read(0x4600, 148), frame[252..]);
}

#[test]
fn addresses_are_recognised_as_the_receive_configuration_says() {
    let group = [0x01, 0x00, 0x5e, 0x00, 0x00, 0xfb];
    let hash = crate::net::ethernet::multicast_hash(group);
    // RCR; whether own, another's, broadcast, a group whose hash bit is set, one whose bit is not.
    for (rcr, accepted) in [
        (0x00, [true, false, false, false, false]),
        (0x04, [true, false, true, false, false]),
        (0x08, [true, false, false, true, false]),
        (0x10, [true, true, false, false, false]),
        (0x1c, [true, true, true, true, false]),
    ] {
        let destinations = [MAC, [2; 6], [0xff; 6], group, [0x01, 0x00, 0x5e, 0x00, 0x00, 0xfc]];
        for (destination, accepted) in destinations.into_iter().zip(accepted) {
            let mut card = Card::on();
            card.set(0x0c, rcr);
            card.set(0, 0x62);
            card.set(8 + u16::from(hash >> 3), 1 << (hash & 7));
            card.set(0, 0x22);
            card.deliver(&frame(destination, 100));
            assert_eq!(card.get(7) == 1, accepted, "RCR {rcr:#x}, {destination:x?}");
        }
    }
}

#[test]
fn monitor_mode_counts_frames_without_storing_them() {
    let mut card = Card::on();
    card.set(0x0c, 0x24);
    assert_eq!(card.get(0x0c), 0x40, "DIS");
    (0..3).for_each(|_| card.deliver(&frame(MAC, 100)));
    card.deliver(&frame([2; 6], 100));
    assert_eq!((card.get(7), card.get(0x0c), card.page1(7)), (0, 0x50, 0x47));
    assert_eq!((card.get(0x0f), card.get(0x0f)), (3, 0));
    // Counters interrupt from 128 on and stop at 192.
    (0..127).for_each(|_| card.deliver(&frame(MAC, 100)));
    assert_eq!(card.get(7), 0);
    card.deliver(&frame(MAC, 100));
    assert_eq!(card.get(7), 0x20);
    (0..100).for_each(|_| card.deliver(&frame(MAC, 100)));
    assert_eq!(card.get(0x0f), 192);
    card.set(0x0c, 0x04);
    assert_eq!(card.get(0x0c) & 0x40, 0);
}

#[test]
fn full_ring_holds_frames_back_and_overflows_only_after_some_time() {
    let mut card = Card::on();
    // 58 pages, six for each frame; the tenth would end at BNRY.
    (0..11).for_each(|_| card.deliver(&frame(MAC, 1514)));
    assert_eq!((card.get(7), card.page1(7), card.cable.waiting()), (0x01, 0x7d, 1));
    assert_eq!(card.bench.device.poll_at(), Some(card.bench.now().plus_nanos(PATIENCE)));
    // Who acknowledges without taking them all is told again.
    card.set(7, 0x01);
    assert_eq!(card.get(7), 0x01);
    card.bench.advance(PATIENCE / 2);
    // The host makes room: the frame that waited comes in, and the next one waits.
    card.set(3, 0x4c);
    assert_eq!((card.get(7), card.page1(7), card.cable.waiting()), (0x01, 0x49, 0));
    card.bench.advance(PATIENCE - 1);
    assert_eq!(card.get(7), 0x01);
    card.bench.advance(1);
    assert_eq!((card.get(7), card.get(0x0c)), (0x91, 0x10));
    assert_eq!((card.get(0x0f), card.page1(7)), (1, 0x49));
    // RST goes when room has been made.
    card.set(3, 0x52);
    assert_eq!(card.get(7), 0x11);
}

#[test]
fn overflow_recovery_of_the_data_sheet_works() {
    let mut card = Card::on();
    (0..10).for_each(|_| card.deliver(&frame(MAC, 1514)));
    card.bench.advance(PATIENCE);
    assert_eq!(card.get(7) & 0x10, 0x10);
    // 7, "Overflow": stop, clear the byte counts, loopback, start, remove frames, clear OVW, leave loopback.
    for (register, value) in [(0, 0x21), (0x0a, 0), (0x0b, 0), (0x0d, 0x02), (0, 0x22)] {
        card.set(register, value);
    }
    card.set(3, 0x46);
    card.set(0, 0x62);
    card.set(7, 0x47);
    card.set(0, 0x22);
    card.set(7, 0x10);
    card.set(0x0d, 0x00);
    card.set(7, 0xff);
    card.deliver(&frame(MAC, 1514));
    assert_eq!((card.get(7), card.page1(7)), (0x01, 0x4d));
}

#[test]
fn send_packet_command_transfers_one_frame_and_advances_the_boundary() {
    let mut card = Card::on();
    card.set(3, 0x47);
    let sent = frame(MAC, 300);
    card.deliver(&sent);
    card.set(7, 0xff);
    card.set(0x0e, 0x59);
    card.set(0, 0x1a);
    let bytes: Vec<u8> = (0..152).flat_map(|_| card.bench.in16(DATA).to_le_bytes()).collect();
    assert_eq!(bytes[..4], [0x01, 0x49, 0x30, 0x01]);
    assert_eq!(bytes[4..304], sent);
    assert_eq!((card.get(7), card.get(3)), (0x40, 0x49));
}

#[test]
fn nothing_is_heard_while_stopped_or_in_loopback() {
    let mut card = Card::on();
    card.set(0, 0x21);
    card.deliver(&frame(MAC, 100));
    card.set(0, 0x22);
    card.set(0x0d, 0x02);
    card.deliver(&frame(MAC, 100));
    card.set(0x0d, 0x00);
    assert_eq!((card.get(7), card.page1(7), card.cable.waiting()), (0, 0x47, 0));
}

/// Loopback of a frame of 60 bytes, by byte; TSR, RSR, ISR and FIFO.
fn looped(tcr: u8, to: [u8; 6], crc: Option<[u8; 4]>) -> ([u8; 3], Vec<u8>, usize) {
    let mut card = Card::on();
    let mut frame = frame(to, 60);
    frame.extend(crc.into_iter().flatten());
    card.write(0x4000, &frame);
    card.set(7, 0x7f);
    for (register, value) in [(0x0e, 0x40), (0x0d, tcr), (0x05, frame.len() as u8), (0x06, 0), (0, 0x26)] {
        card.set(register, value);
    }
    let status = [card.get(4), card.get(0x0c), card.get(7)];
    let fifo = (0..8).map(|_| card.get(6)).collect();
    (status, fifo, card.cable.take_sent().len())
}

#[test]
fn loopback_leaves_status_and_fifo_as_application_note_937_says() {
    let crc = frame_check_sequence(&frame(MAC, 60));
    let fifo = [vec![64, 0, 0, 59], crc.to_vec()].concat();
    assert_eq!(looped(0x02, MAC, None), ([0x53, 0x02, 0x06], fifo.clone(), 0));
    assert_eq!(looped(0x04, MAC, None), ([0x43, 0x02, 0x06], fifo.clone(), 0));
    // The third mode reaches the cable.
    assert_eq!(looped(0x06, MAC, None), ([0x03, 0x02, 0x06], fifo.clone(), 1));
    assert_eq!(looped(0x02, [2; 6], None).0, [0x53, 0x01, 0x02]);
    // The receiver checks the CRC of software, for frames to its own address.
    assert_eq!(looped(0x03, MAC, Some(crc)), ([0x53, 0x01, 0x02], fifo, 0));
    assert_eq!(looped(0x03, MAC, Some([0; 4])).0, [0x53, 0x02, 0x06]);
    assert_eq!(looped(0x03, [2; 6], Some([0; 4])).0, [0x53, 0x01, 0x02]);
}

#[test]
fn pages_hold_the_registers_of_the_data_sheet() {
    let mut card = Card::on();
    assert_eq!((card.page1(1), card.page1(6)), (MAC[0], MAC[5]));
    card.set(0, 0xa2);
    let page2: Vec<u8> = [1, 2, 4, 0xc, 0xd, 0xe, 0xf].into_iter().map(|register| card.get(register)).collect();
    assert_eq!(page2, [0x46, 0x80, 0x40, 0xc4, 0xe0, 0xc9, 0xff]);
    // What Linux's `ne` looks for: a counter that reading clears, where MAR5 is in page 1.
    card.set(0, 0x61);
    card.set(0x0d, 0xff);
    card.set(0, 0x20);
    card.get(0x0d);
    assert_eq!(card.get(0x0d), 0);
    assert_eq!(card.get(0x0a), 0xff, "no ID on the ISA card");
}

#[test]
fn ring_beyond_memory_loses_frames_and_nothing_else() {
    let mut card = Card::on();
    for (pstart, pstop, curr) in [(0x00, 0x00, 0xff), (0xf0, 0x10, 0xf0), (0x90, 0x90, 0x90), (0x46, 0x46, 0x46)] {
        card.set(0, 0x62);
        card.set(7, curr);
        card.set(0, 0x22);
        card.set(1, pstart);
        card.set(2, pstop);
        (0..20).for_each(|_| card.deliver(&frame(MAC, 65_550)));
        card.bench.advance(10 * PATIENCE);
        card.read(0x0000, 0xfffe);
    }
}

#[test]
fn state_is_saved_and_restored() {
    let mut card = Card::on();
    card.deliver(&frame(MAC, 200));
    let mut other = Card::off();
    card.bench.copy_state_to(&mut other.bench);
    assert_eq!(other.irq.take_rises(0), 1);
    assert_eq!(other.bench.device.state(), card.bench.device.state());
    assert_eq!(other.read(0x4704, 200), frame(MAC, 200));
}
