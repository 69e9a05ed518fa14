//! Conversations with the 8259A pair.

use super::*;
use crate::testbench::{Bench, IrqRecorder, World};

struct Rig {
    bench: Bench<Pic>,
    pair: Arc<PicPair>,
    intr: Arc<IrqRecorder>,
}

/// A pair initialised as a BIOS does: vectors 08h and 70h, ICW4 as given, nothing masked.
fn rig_with(icw4: u8) -> Rig {
    let world = World::new(1 << 20);
    let intr = world.irq_recorder();
    let mut bench = Bench::in_world(Pic::new(intr.line(0)), &world);
    for (port, base, icw3) in [(0x20, 0x08, 4), (0xa0, 0x70, 2)] {
        bench.out8(port, 0x11);
        bench.out8(port + 1, base);
        bench.out8(port + 1, icw3);
        bench.out8(port + 1, icw4);
    }
    let pair = bench.device.pair();
    Rig { bench, pair, intr }
}

fn rig() -> Rig {
    rig_with(0x01)
}

impl Rig {
    fn pulse(&self, irq: u32) {
        self.pair.set_level(irq, true);
        self.pair.set_level(irq, false);
    }

    fn intr(&self) -> bool {
        self.bench.device.pair.lock().intr.is_high()
    }

    fn inta(&self) -> u8 {
        self.pair.acknowledge().unwrap()
    }

    fn isr(&mut self, port: u16) -> u8 {
        self.bench.out8(port, 0x0b);
        self.bench.in8(port)
    }

    fn irr(&mut self, port: u16) -> u8 {
        self.bench.out8(port, 0x0a);
        self.bench.in8(port)
    }
}

#[test]
fn pic_edge_is_latched_and_acknowledged_with_its_vector() {
    let mut r = rig();
    r.pulse(3);
    assert!(r.intr());
    assert_eq!(r.irr(0x20), 0x08);
    assert_eq!(r.inta(), 0x0b);
    assert!(!r.intr());
    assert_eq!((r.irr(0x20), r.isr(0x20)), (0, 0x08));
    r.bench.out8(0x20, 0x20);
    assert_eq!(r.isr(0x20), 0);
}

#[test]
fn pic_held_edge_line_interrupts_once() {
    let mut r = rig();
    r.pair.set_level(4, true);
    assert_eq!(r.inta(), 0x0c);
    r.bench.out8(0x20, 0x20);
    assert!(!r.intr());
    r.pair.set_level(4, false);
    r.pair.set_level(4, true);
    assert!(r.intr());
}

#[test]
fn pic_slave_request_sets_both_in_service_bits() {
    let mut r = rig();
    r.pulse(8);
    assert_eq!(r.inta(), 0x70);
    assert_eq!((r.isr(0x20), r.isr(0xa0)), (0x04, 0x01));
    r.pulse(12);
    assert!(!r.intr(), "IR4 of the slave is below IR0 in service");
    r.bench.out8(0xa0, 0x20);
    assert!(!r.intr(), "the master still serves the slave");
    r.bench.out8(0x20, 0x20);
    assert!(r.intr());
    assert_eq!(r.inta(), 0x74);
}

#[test]
fn pic_higher_priority_preempts_and_lower_waits() {
    let mut r = rig();
    r.pulse(4);
    assert_eq!(r.inta(), 0x0c);
    r.pulse(6);
    assert!(!r.intr());
    r.pulse(1);
    assert_eq!(r.inta(), 0x09);
    assert_eq!(r.isr(0x20), 0x12);
    r.bench.out8(0x20, 0x20);
    assert_eq!(r.isr(0x20), 0x10, "non-specific EOI ends the highest");
    r.bench.out8(0x20, 0x64);
    assert_eq!(r.inta(), 0x0e);
}

#[test]
fn pic_masked_request_waits_in_irr() {
    let mut r = rig();
    r.bench.out8(0x21, 0xff);
    r.pulse(0);
    assert!(!r.intr());
    assert_eq!((r.irr(0x20), r.bench.in8(0x21)), (1, 0xff));
    r.bench.out8(0x21, 0xfe);
    assert!(r.intr());
}

#[test]
fn pic_level_follows_its_line_and_repeats() {
    let mut r = rig();
    r.bench.out8(0x4d1, 0xff);
    assert_eq!(r.bench.in8(0x4d1), 0xde);
    r.bench.out8(0x4d0, 0xff);
    assert_eq!(r.bench.in8(0x4d0), 0xf8);
    r.pair.set_level(11, true);
    assert_eq!(r.inta(), 0x73);
    assert_eq!(r.irr(0xa0), 0x08, "still requested");
    r.bench.out8(0xa0, 0x20);
    r.bench.out8(0x20, 0x20);
    assert!(r.intr());
    r.pair.set_level(11, false);
    assert!(!r.irr(0xa0) & 0x08 != 0);
}

#[test]
fn pic_level_gone_before_acknowledge_is_spurious_7() {
    let mut r = rig();
    r.bench.out8(0x4d0, 0x20);
    r.pair.set_level(5, true);
    r.pair.set_level(5, false);
    assert!(!r.intr());
    assert_eq!(r.inta(), 0x0f);
    assert_eq!(r.isr(0x20), 0);
}

#[test]
fn pic_slave_level_gone_before_acknowledge_is_spurious_15() {
    let mut r = rig();
    r.bench.out8(0x4d1, 0x04);
    r.pair.set_level(10, true);
    r.pair.set_level(10, false);
    // The cascade input is edge-triggered, so the master still has the request.
    assert_eq!(r.inta(), 0x77);
    assert_eq!((r.isr(0x20), r.isr(0xa0)), (0x04, 0));
}

#[test]
fn pic_automatic_eoi_leaves_nothing_in_service_and_rotates() {
    let mut r = rig_with(0x03);
    r.pulse(2 + 1);
    assert_eq!(r.inta(), 0x0b);
    assert_eq!(r.isr(0x20), 0);
    r.bench.out8(0x20, 0x80);
    r.pulse(0);
    r.pulse(5);
    assert_eq!(r.inta(), 0x08);
    r.pulse(0);
    assert_eq!(r.inta(), 0x0d, "IR0 is lowest now");
    assert_eq!(r.inta(), 0x08);
}

#[test]
fn pic_rotation_on_eoi_and_set_priority_change_the_order() {
    let mut r = rig();
    r.pulse(4);
    assert_eq!(r.inta(), 0x0c);
    r.bench.out8(0x20, 0xa0);
    r.pulse(3);
    r.pulse(6);
    assert_eq!(r.inta(), 0x0e, "IR4 is lowest, so IR5, 6, 7, 0.. come first");
    r.bench.out8(0x20, 0xe6);
    assert_eq!(r.isr(0x20), 0);
    r.bench.out8(0x20, 0xc2);
    r.pulse(1);
    assert_eq!(r.inta(), 0x0b, "IR2 is lowest, so IR3 is highest");
}

#[test]
fn pic_special_mask_mode_lets_lower_levels_through() {
    let mut r = rig();
    r.pulse(1);
    assert_eq!(r.inta(), 0x09);
    r.pulse(6);
    assert!(!r.intr());
    r.bench.out8(0x20, 0x68);
    r.bench.out8(0x21, 0x02);
    assert!(r.intr());
    assert_eq!(r.inta(), 0x0e);
    r.bench.out8(0x20, 0x20);
    assert_eq!(r.isr(0x20), 0x02, "non-specific EOI spares the masked level");
    r.bench.out8(0x20, 0x20);
    assert_eq!(r.isr(0x20), 0x02);
    r.bench.out8(0x20, 0x48);
    r.bench.out8(0x20, 0x20);
    assert_eq!(r.isr(0x20), 0);
}

#[test]
fn pic_special_fully_nested_mode_lets_the_slave_preempt_itself() {
    let mut r = rig_with(0x11);
    r.pulse(12);
    assert_eq!(r.inta(), 0x74);
    r.pulse(14);
    assert!(!r.intr());
    r.pulse(9);
    assert!(r.intr());
    assert_eq!(r.inta(), 0x71);
    assert_eq!((r.isr(0x20), r.isr(0xa0)), (0x04, 0x12));
}

#[test]
fn pic_poll_acknowledges_on_the_next_read_only() {
    let mut r = rig();
    r.bench.out8(0x20, 0x0c);
    assert_eq!(r.bench.in8(0x20), 0);
    r.pulse(7);
    r.bench.out8(0x20, 0x0c);
    assert_eq!(r.bench.in8(0x20), 0x87);
    assert!(!r.intr());
    assert_eq!(r.isr(0x20), 0x80);
    r.bench.out8(0x20, 0x20);
    r.pulse(9);
    r.bench.out8(0x20, 0x0c);
    assert_eq!(r.bench.in8(0x21), 0x82);
    r.bench.out8(0xa0, 0x0c);
    assert_eq!(r.bench.in8(0xa0), 0x81);
    assert_eq!(r.isr(0xa0), 0x02);
}

#[test]
fn pic_slave_polled_directly_takes_its_request_from_the_master() {
    let mut r = rig();
    r.pulse(9);
    assert!(r.intr());
    r.bench.out8(0xa0, 0x0c);
    assert_eq!(r.bench.in8(0xa0), 0x81);
    assert!(!r.intr());
}

#[test]
fn pic_icw1_clears_mask_service_and_edges_but_not_elcr() {
    let mut r = rig();
    r.bench.out8(0x4d0, 0x80);
    r.pulse(3);
    r.inta();
    r.pulse(4);
    r.bench.out8(0x21, 0x55);
    r.bench.out8(0x20, 0x11);
    assert_eq!((r.irr(0x20), r.isr(0x20), r.bench.in8(0x4d0)), (0, 0, 0x80));
    for value in [0x20, 0x04, 0x01, 0x00] {
        r.bench.out8(0x21, value);
    }
    r.pulse(4);
    assert_eq!(r.inta(), 0x24);
}

#[test]
fn pic_single_without_icw4_expects_icw2_only() {
    let mut r = rig_with(0x03);
    r.bench.out8(0x20, 0x12);
    r.bench.out8(0x21, 0x47);
    r.bench.out8(0x21, 0xf0);
    assert_eq!(r.bench.in8(0x21), 0xf0);
    r.pulse(0);
    assert_eq!(r.inta(), 0x40, "the low three bits of ICW2 are the level");
    assert_eq!(r.isr(0x20), 1, "no ICW4: no automatic EOI");
}

#[test]
fn pic_word_write_reaches_both_ports() {
    let mut r = rig();
    r.bench.out16(0x20, 0xfb0b);
    assert_eq!(r.bench.in16(0x20), 0xfb00);
}

#[test]
fn pic_restored_state_drives_intr_again() {
    let r = rig();
    r.pulse(9);
    let mut other = rig();
    r.bench.copy_state_to(&mut other.bench);
    assert!(other.intr());
    assert_eq!(other.intr.take_rises(0), 1);
    assert_eq!(other.inta(), 0x71);
}

#[test]
fn pic_pin_2_and_beyond_is_not_connected() {
    let r = rig();
    r.pulse(2);
    r.pulse(16);
    r.pulse(u32::MAX);
    assert!(!r.intr());
}

#[test]
fn pic_reset_keeps_line_levels_and_forgets_the_rest() {
    let mut r = rig();
    r.pair.set_level(4, true);
    r.bench.reset(ResetKind::Warm);
    assert!(!r.intr());
    let state = r.bench.device.state();
    assert_eq!(state.master, ChipState { lines: 0x10, lowest: 7, ..ChipState::default() });
}
