//! Conversations with the 16550A.

use super::*;
use crate::char::MemoryBackend;
use crate::testbench::{Bench, IrqRecorder, World};
use emu_core::device::{Space, ports};
use std::sync::Arc;

const RBR: u16 = 0x3f8;
const THR: u16 = 0x3f8;
const IER: u16 = 0x3f9;
const IIR: u16 = 0x3fa;
const FCR: u16 = 0x3fa;
const LCR: u16 = 0x3fb;
const MCR: u16 = 0x3fc;
const LSR: u16 = 0x3fd;
const MSR: u16 = 0x3fe;
const SCR: u16 = 0x3ff;

/// A character at 115200 baud 8N1, rounded up.
const CHARACTER: u64 = 86_806;

struct Rig {
    bench: Bench<Uart16550>,
    far: MemoryBackend,
    irq: Arc<IrqRecorder>,
}

/// A UART at 115200 8N1, FIFOs as `fifo` says, all interrupts that `enable` says.
fn rig(fifo: u8, enable: u8) -> Rig {
    let world = World::new(1 << 20);
    let irq = world.irq_recorder();
    let far = MemoryBackend::new();
    let mut bench = Bench::in_world(Uart16550::new(irq.line(4), Box::new(far.clone())), &world);
    bench.map(Space::Port, ports(0x3f8, 8), 0);
    bench.out8(LCR, 0x83);
    bench.out16(RBR, 1);
    bench.out8(LCR, 0x03);
    bench.out8(FCR, fifo);
    bench.advance(1);
    bench.in8(MSR);
    bench.out8(IER, enable);
    Rig { bench, far, irq }
}

impl Rig {
    fn high(&self) -> bool {
        self.bench.device.irq.is_high()
    }

    /// The far end sends and the machine polls, as after a notification.
    fn send(&mut self, bytes: &[u8]) {
        self.far.send(bytes);
        self.bench.poll();
    }
}

#[test]
fn uart_divisor_and_line_control_reach_the_back_end() {
    let mut r = rig(0, 0);
    assert_eq!(r.far.parameters().baud, 115_200);
    r.bench.out8(LCR, 0x80);
    r.bench.out8(RBR, 0x60);
    assert_eq!((r.bench.in8(RBR), r.bench.in8(IER)), (0x60, 0));
    r.bench.out8(LCR, 0x1e);
    let expected = LineParameters { baud: 1200, data_bits: 7, parity: Parity::Even, two_stop_bits: true };
    assert_eq!(r.far.parameters(), expected);
    r.bench.out8(LCR, 0x5e);
    assert!(r.far.is_breaking());
}

#[test]
fn uart_transmit_leaves_at_once_and_interrupts() {
    let mut r = rig(0x01, 0);
    assert_eq!(r.bench.in8(LSR), 0x60);
    r.bench.out8(IER, 0x02);
    assert!(r.high(), "enabling with an empty THR interrupts");
    assert_eq!(r.bench.in8(IIR), 0xc2);
    assert!(!r.high());
    assert_eq!(r.bench.in8(IIR), 0xc1);
    r.irq.take();
    for byte in b"hi" {
        r.bench.out8(THR, *byte);
    }
    assert_eq!(r.irq.take_rises(4), 2, "each write is a new edge");
    assert_eq!(r.far.take_output(), b"hi");
}

#[test]
fn uart_full_back_end_holds_thre_and_loses_nothing() {
    let mut r = rig(0x01, 0x02);
    r.bench.in8(IIR);
    r.far.set_room(Some(3));
    for byte in 0..100 {
        r.bench.out8(THR, byte);
    }
    assert_eq!(r.bench.in8(LSR), 0);
    assert!(!r.high());
    r.bench.out8(FCR, 0x07);
    r.far.set_room(None);
    r.bench.poll();
    assert_eq!(r.bench.in8(LSR), 0x60);
    assert!(r.high());
    assert_eq!(r.far.take_output(), (0..100).collect::<Vec<u8>>());
}

#[test]
fn uart_guest_that_ignores_thre_is_bounded() {
    let mut r = rig(0x01, 0);
    r.far.set_room(Some(0));
    for _ in 0..WIRE + 1000 {
        r.bench.out8(THR, 0);
    }
    assert_eq!(r.bench.device.state().wire.len(), WIRE);
}

#[test]
fn uart_receive_without_fifo_is_one_byte_at_a_time() {
    let mut r = rig(0, 0x01);
    r.send(b"ab");
    assert!(r.high());
    assert_eq!(r.bench.in8(IIR), 0x04);
    assert_eq!(r.bench.in8(LSR), 0x61);
    r.bench.advance(10 * CHARACTER);
    assert_eq!(r.far.unread(), 1);
    assert_eq!(r.bench.in8(RBR), b'a');
    assert!(r.high(), "the far end sends on at once");
    assert_eq!(r.bench.in8(RBR), b'b');
    assert!(!r.high());
    assert_eq!((r.bench.in8(LSR), r.bench.in8(RBR)), (0x60, 0));
}

#[test]
fn uart_receive_runs_at_line_speed() {
    let mut r = rig(0x01, 0);
    r.send(b"abcd");
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(r.bench.device.state.receiver.len());
        r.bench.advance(CHARACTER);
    }
    assert_eq!(seen, [1, 2, 3, 4]);
}

#[test]
fn uart_receive_at_9600_baud_arrives_as_at_115200() {
    let mut r = rig(0x01, 0);
    r.bench.out8(LCR, 0x83);
    r.bench.out8(RBR, 12);
    r.bench.out8(LCR, 0x03);
    r.send(b"abcd");
    r.bench.advance(3 * CHARACTER);
    assert_eq!(r.bench.device.state.receiver.len(), 4);
}

#[test]
fn uart_trigger_level_decides_when_data_interrupts() {
    for (bits, level) in [(0x00, 1), (0x40, 4), (0x80, 8), (0xc0, 14)] {
        let mut r = rig(0x01 | bits, 0x01);
        let start = r.bench.now();
        r.send(&[0x55; 16]);
        r.bench.advance(20 * CHARACTER);
        let rise = r.irq.take().into_iter().find(|c| c.high).unwrap();
        let characters = rise.at.nanos_since(start) / (CHARACTER - 10);
        assert_eq!(characters, level - 1);
        assert_eq!(r.bench.in8(IIR), 0xc4);
        for _ in 0..16 - level {
            r.bench.in8(RBR);
        }
        assert!(r.high());
        r.bench.in8(RBR);
        assert!(!r.high());
    }
}

#[test]
fn uart_character_timeout_comes_after_four_character_times() {
    let mut r = rig(0xc1, 0x01);
    let start = r.bench.now();
    r.send(b"xyz");
    r.bench.advance(20 * CHARACTER);
    let rise = r.irq.take()[0];
    let characters = rise.at.nanos_since(start) as f64 / CHARACTER as f64;
    assert!((characters - 6.0).abs() < 0.01, "two more characters, then four: {characters}");
    assert_eq!(r.bench.in8(IIR), 0xcc);
    assert_eq!(r.bench.in8(RBR), b'x');
    assert!(!r.high());
    r.bench.advance(4 * CHARACTER + 4);
    assert_eq!(r.bench.in8(IIR), 0xcc, "again for those left behind");
}

#[test]
fn uart_late_poll_takes_all_that_has_arrived() {
    let mut r = rig(0x01, 0x01);
    r.send(&[1; 40]);
    r.bench.advance_late(5 * CHARACTER);
    assert_eq!(r.bench.device.state.receiver.len(), 6);
    r.bench.advance_late(100 * CHARACTER);
    assert_eq!(r.bench.device.state.receiver.len(), 16);
    assert_eq!(r.bench.in8(LSR) & lsr::OVERRUN, 0);
    assert_eq!(r.bench.device.poll_at(), None, "a full FIFO waits for the guest");
}

#[test]
fn uart_notification_after_idle_does_not_burst() {
    let mut r = rig(0x01, 0x01);
    r.bench.advance(1_000_000_000);
    r.send(b"abc");
    assert_eq!(r.bench.device.state.receiver.len(), 1);
}

#[test]
fn uart_break_raises_line_status_with_its_character() {
    let mut r = rig(0x01, 0x05);
    r.far.send(b"a");
    r.far.send_break();
    r.send(b"");
    r.bench.advance(CHARACTER);
    assert_eq!(r.bench.in8(IIR), 0xc4, "not yet at the head of the FIFO");
    assert_eq!(r.bench.in8(LSR), 0xe1);
    assert_eq!(r.bench.in8(RBR), b'a');
    assert_eq!(r.bench.in8(IIR), 0xc6);
    assert_eq!(r.bench.in8(LSR), 0xf1);
    assert_eq!(r.bench.in8(LSR), 0x61);
    assert_eq!(r.bench.in8(RBR), 0);
}

#[test]
fn uart_loopback_returns_data_and_modem_lines() {
    let mut r = rig(0, 0);
    r.bench.out8(MCR, 0x1a);
    assert_eq!(r.bench.in8(MSR) & 0xf0, 0x90);
    assert_eq!(r.far.modem_outputs(), ModemOutputs::default());
    r.bench.out8(THR, 0xae);
    assert_eq!(r.bench.in8(LSR), 0x61);
    r.bench.out8(THR, 0xaf);
    assert_eq!(r.bench.in8(LSR), 0x63);
    assert_eq!(r.bench.in8(RBR), 0xaf, "without FIFO an overrun destroys the older");
    assert_eq!(r.far.take_output(), b"");
    r.bench.out8(MCR, 0x0b);
    assert_eq!(r.far.modem_outputs(), ModemOutputs { dtr: true, rts: true });
}

#[test]
fn uart_loopback_fifo_overrun_keeps_the_older() {
    let mut r = rig(0x01, 0x04);
    r.bench.out8(MCR, 0x10);
    for byte in 0..17 {
        r.bench.out8(THR, byte);
    }
    assert_eq!(r.bench.in8(IIR), 0xc6);
    assert_eq!(r.bench.in8(LSR), 0x63);
    let all: Vec<u8> = (0..16).map(|_| r.bench.in8(RBR)).collect();
    assert_eq!(all, (0..16).collect::<Vec<u8>>());
}

#[test]
fn uart_modem_changes_set_deltas_until_read() {
    let mut r = rig(0, 0x08);
    assert_eq!(r.bench.in8(MSR), 0xb0);
    r.far.set_modem_inputs(ModemInputs { cts: false, dsr: true, ri: true, dcd: true });
    r.bench.poll();
    assert!(r.high());
    assert_eq!(r.bench.in8(IIR), 0x00);
    assert_eq!(r.bench.in8(MSR), 0xe1, "RI counts on its trailing edge only");
    assert!(!r.high());
    r.far.set_modem_inputs(ModemInputs { cts: false, dsr: true, ri: false, dcd: false });
    r.bench.poll();
    assert_eq!(r.bench.in8(MSR), 0x2c);
}

#[test]
fn uart_interrupts_identify_in_order_of_priority() {
    let mut r = rig(0, 0x0f);
    r.far.set_modem_inputs(ModemInputs { cts: false, ..ModemInputs::default() });
    r.far.send_break();
    r.bench.poll();
    assert_eq!(r.bench.in8(IIR), 0x06);
    r.bench.in8(LSR);
    assert_eq!(r.bench.in8(IIR), 0x04);
    r.bench.in8(RBR);
    assert_eq!(r.bench.in8(IIR), 0x02);
    assert_eq!(r.bench.in8(IIR), 0x00);
    r.bench.in8(MSR);
    assert_eq!(r.bench.in8(IIR), 0x01);
}

#[test]
fn uart_identifies_as_16550a_to_linux() {
    let mut r = rig(0, 0);
    r.bench.out8(IER, 0xff);
    assert_eq!(r.bench.in8(IER), 0x0f);
    r.bench.out8(IER, 0);
    r.bench.out8(SCR, 0xa5);
    assert_eq!(r.bench.in8(SCR), 0xa5);
    r.bench.out8(FCR, 0x01);
    assert_eq!(r.bench.in8(IIR) >> 6, 3);
    r.bench.out8(LCR, 0x80);
    assert_ne!(r.bench.in8(FCR), 0, "no EFR");
    r.bench.out8(FCR, 0x21);
    assert_eq!(r.bench.in8(IIR) & 0x20, 0, "no 64-byte FIFO");
    r.bench.out8(LCR, 0);
    r.bench.out8(FCR, 0);
    assert_eq!(r.bench.in8(IIR), 0x01);
}

#[test]
fn uart_fifo_mode_change_empties_the_receiver() {
    let mut r = rig(0x01, 0x01);
    r.send(b"a");
    r.bench.out8(FCR, 0x00);
    assert!(!r.high());
    assert_eq!(r.bench.in8(LSR), 0x60);
}

#[test]
fn uart_restored_state_drives_irq_and_goes_on() {
    let mut r = rig(0x41, 0x01);
    r.send(b"abcd");
    r.bench.advance(2 * CHARACTER);
    let mut other = rig(0, 0);
    other.bench.world.set_now(r.bench.now());
    r.bench.copy_state_to(&mut other.bench);
    assert!(!other.high());
    other.far.send(b"e");
    other.bench.advance(CHARACTER);
    assert!(other.high());
    let all: Vec<u8> = (0..4).map(|_| other.bench.in8(RBR)).collect();
    assert_eq!(all, b"abce");
}

#[test]
fn uart_reset_returns_to_power_on_but_keeps_the_wire() {
    let mut r = rig(0xc1, 0x0f);
    r.far.set_room(Some(0));
    r.bench.out8(THR, b'!');
    r.bench.reset(ResetKind::Warm);
    assert_eq!(r.bench.in8(IER), 0);
    assert_eq!(r.bench.in8(IIR), 0x01);
    assert_eq!(r.bench.in8(MSR), 0xb0);
    r.far.set_room(None);
    r.bench.poll();
    assert_eq!(r.far.take_output(), b"!");
}
