//! Conversations with the 8042 and what is plugged into it.

use super::*;
use crate::input::{Button, Key};
use crate::testbench::{Bench, IrqRecorder, World};
use std::sync::Arc;

struct Rig {
    bench: Bench<I8042>,
    input: InputQueue,
    irq: Arc<IrqRecorder>,
}

fn rig() -> Rig {
    let world = World::new(1 << 20);
    let irq = world.irq_recorder();
    let input = InputQueue::new();
    let mut bench = Bench::in_world(I8042::new(irq.line(1), irq.line(12), input.clone()), &world);
    assert_eq!(bench.take_requests(), [Request::A20(true)]);
    Rig { bench, input, irq }
}

impl Rig {
    /// A command to the controller and its data.
    fn command(&mut self, command: u8, data: &[u8]) {
        self.bench.out8(0x64, command);
        for byte in data {
            self.bench.out8(0x60, *byte);
        }
    }

    /// All bytes that come within ten milliseconds, with whether they are the mouse's.
    fn drain(&mut self) -> Vec<(u8, bool)> {
        let mut bytes = Vec::new();
        for _ in 0..100 {
            let status = self.bench.in8(0x64);
            if status & 1 != 0 {
                bytes.push((self.bench.in8(0x60), status & 0x20 != 0));
            }
            self.bench.advance(BYTE_TIME);
        }
        bytes
    }

    fn keyboard_bytes(&mut self) -> Vec<u8> {
        self.drain().into_iter().map(|(byte, auxiliary)| (!auxiliary).then_some(byte).expect("keyboard")).collect()
    }

    fn mouse_bytes(&mut self) -> Vec<u8> {
        self.drain().into_iter().map(|(byte, auxiliary)| auxiliary.then_some(byte).expect("mouse")).collect()
    }

    fn key(&mut self, key: Key, pressed: bool) {
        self.input.send(InputEvent::Key { key, pressed });
        self.bench.poll();
    }

    fn ask_keyboard(&mut self, byte: u8) -> Vec<u8> {
        self.bench.out8(0x60, byte);
        self.keyboard_bytes()
    }

    fn ask_mouse(&mut self, byte: u8) -> Vec<u8> {
        self.command(0xd4, &[byte]);
        self.mouse_bytes()
    }
}

#[test]
fn i8042_answers_linux_controller_probe() {
    let mut r = rig();
    assert_eq!(r.bench.in8(0x64) & 0x11, 0x10, "empty and not locked");
    r.command(0xaa, &[]);
    assert_eq!(r.keyboard_bytes(), [0x55]);
    r.command(0x20, &[]);
    assert_eq!(r.keyboard_bytes(), [0x65]);
    r.command(0x60, &[0x74]);
    r.command(0x20, &[]);
    assert_eq!(r.keyboard_bytes(), [0x74]);
    r.command(0xab, &[]);
    assert_eq!(r.keyboard_bytes(), [0x00]);
    r.command(0xa9, &[]);
    assert_eq!(r.keyboard_bytes(), [0x00]);
    r.command(0xa8, &[]);
    r.command(0x20, &[]);
    assert_eq!(r.keyboard_bytes(), [0x54]);
    r.command(0xa7, &[]);
    r.command(0x20, &[]);
    assert_eq!(r.keyboard_bytes(), [0x74]);
}

#[test]
fn i8042_auxiliary_loop_returns_the_byte_and_interrupts() {
    let mut r = rig();
    r.command(0x60, &[0x47]);
    r.irq.take();
    r.command(0xd3, &[0xa5]);
    assert_eq!(r.bench.in8(0x64) & 0x21, 0x21);
    assert_eq!(r.irq.take_rises(12), 1);
    assert_eq!(r.bench.in8(0x60), 0xa5);
    for value in [0xf0, 0x56, 0xa4] {
        r.command(0xd3, &[value]);
        assert_eq!(r.bench.in8(0x60), value, "not a multiplexer");
    }
}

#[test]
fn i8042_answers_linux_keyboard_probe_translated() {
    let mut r = rig();
    assert_eq!(r.ask_keyboard(0xf2), [0xfa, 0xab, 0x41]);
    assert_eq!(r.ask_keyboard(0xed), [0xfa]);
    assert_eq!(r.ask_keyboard(0x02), [0xfa]);
    assert!(r.input.leds().num_lock);
    assert_eq!(r.ask_keyboard(0xf3), [0xfa]);
    assert_eq!(r.ask_keyboard(0x00), [0xfa]);
    assert_eq!(r.ask_keyboard(0xf4), [0xfa]);
    assert_eq!(r.ask_keyboard(0xff), [0xfa, 0xaa]);
    assert_eq!(r.ask_keyboard(0xf0), [0xfa]);
    assert_eq!(r.ask_keyboard(0x00), [0xfa, 0x41], "set 2, translated");
}

#[test]
fn i8042_keys_arrive_translated_with_an_interrupt_each() {
    let mut r = rig();
    r.key(Key::Up, true);
    r.key(Key::Up, false);
    assert_eq!(r.keyboard_bytes(), [0xe0, 0x48, 0xe0, 0xc8]);
    assert_eq!(r.irq.take_rises(1), 4);
    r.command(0x60, &[0x25]);
    r.key(Key::Up, true);
    assert_eq!(r.keyboard_bytes(), [0xe0, 0x75]);
}

#[test]
fn i8042_byte_can_be_read_again_until_the_next() {
    let mut r = rig();
    r.key(Key::A, true);
    r.key(Key::A, false);
    assert_eq!((r.bench.in8(0x60), r.bench.in8(0x60), r.bench.in8(0x64) & 1), (0x1e, 0x1e, 0));
    r.bench.advance(BYTE_TIME);
    assert_eq!((r.bench.in8(0x64) & 1, r.bench.in8(0x60)), (1, 0x9e));
}

#[test]
fn i8042_disabled_keyboard_waits_and_a_write_enables_it() {
    let mut r = rig();
    r.command(0xad, &[]);
    r.key(Key::A, true);
    assert_eq!(r.drain(), []);
    assert_eq!(r.ask_keyboard(0xee), [0xee, 0x1e]);
}

#[test]
fn i8042_interrupts_follow_the_command_byte() {
    let mut r = rig();
    r.command(0x60, &[0x44]);
    r.irq.take();
    r.key(Key::A, true);
    assert_eq!(r.irq.take_rises(1), 0);
    assert_eq!(r.bench.in8(0x64) & 1, 1);
    r.command(0x60, &[0x45]);
    assert_eq!(r.irq.take_rises(1), 1, "the byte still waits");
}

#[test]
fn i8042_mouse_identifies_streams_and_interrupts() {
    let mut r = rig();
    r.command(0x60, &[0x47]);
    assert_eq!(r.ask_mouse(0xff), [0xfa, 0xaa, 0x00]);
    assert_eq!(r.ask_mouse(0xf2), [0xfa, 0x00]);
    for rate in [200, 200, 80] {
        assert_eq!(r.ask_mouse(0xf3), [0xfa]);
        assert_eq!(r.ask_mouse(rate), [0xfa]);
    }
    assert_eq!(r.ask_mouse(0xf2), [0xfa, 0x04]);
    assert_eq!(r.ask_mouse(0xf4), [0xfa]);
    r.irq.take();
    r.input.send(InputEvent::Motion { dx: 7, dy: -2 });
    r.input.send(InputEvent::Button { button: Button::Left, pressed: true });
    r.bench.poll();
    assert_eq!(r.mouse_bytes(), [0x09, 7, 2, 0]);
    assert_eq!(r.irq.take_rises(12), 4);
}

#[test]
fn i8042_output_port_drives_a20_and_reset() {
    let mut r = rig();
    r.command(0xd0, &[]);
    assert_eq!(r.bench.in8(0x60), 0xcf);
    r.command(0xd1, &[0xcd]);
    r.command(0xd1, &[0xcf]);
    r.command(0xdd, &[]);
    r.command(0xdf, &[]);
    let a20 = [false, true, false, true].map(Request::A20);
    assert_eq!(r.bench.take_requests(), a20);
    r.command(0xd1, &[0xfe]);
    assert_eq!(r.bench.take_requests(), [Request::A20(true), Request::Reset]);
    r.command(0xff, &[]);
    assert_eq!(r.bench.take_requests(), []);
    r.command(0xfe, &[]);
    assert_eq!(r.bench.take_requests(), [Request::Reset]);
}

#[test]
fn i8042_held_key_repeats_in_virtual_time() {
    let mut r = rig();
    r.key(Key::A, true);
    let mut count = 0;
    for _ in 0..15_000 {
        if r.bench.in8(0x64) & 1 != 0 {
            assert_eq!(r.bench.in8(0x60), 0x1e);
            count += 1;
        }
        r.bench.advance(BYTE_TIME);
    }
    assert_eq!(count, 12, "once, and 10.9 times a second after half a second");
}

#[test]
fn i8042_input_queue_is_bounded() {
    let r = rig();
    let sent = (0..5000).filter(|_| r.input.send(InputEvent::Wheel(1))).count();
    assert_eq!(sent, 1024);
}

#[test]
fn i8042_restored_state_still_has_its_byte() {
    let mut r = rig();
    r.key(Key::A, true);
    let mut other = rig();
    r.bench.copy_state_to(&mut other.bench);
    assert_eq!(other.irq.take_rises(1), 1);
    assert_eq!(other.bench.in8(0x60), 0x1e);
    assert_eq!(other.bench.device.state().keyboard.held, [Key::A]);
}

#[test]
fn queue_tells_when_the_guest_has_read_all_codes() {
    let mut r = rig();
    assert!(r.input.is_read());
    r.input.send(InputEvent::Key { key: Key::A, pressed: true });
    assert!(!r.input.is_read());
    r.bench.poll();
    assert!(!r.input.is_read());
    assert_eq!(r.keyboard_bytes(), [0x1e]);
    assert!(r.input.is_read());
    // A mouse that waits keeps nobody from typing.
    r.command(0xd4, &[0xf4]);
    r.bench.advance(BYTE_TIME);
    assert!(r.input.is_read());
}
