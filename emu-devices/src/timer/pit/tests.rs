//! Conversations with the 8254 and port 61h.

use super::*;
use crate::testbench::{Bench, IrqRecorder, World};
use std::sync::Arc;

struct Rig {
    bench: Bench<Pit>,
    irq: Arc<IrqRecorder>,
}

fn rig() -> Rig {
    let world = World::new(1 << 20);
    let irq = world.irq_recorder();
    Rig { bench: Bench::in_world(Pit::new(irq.line(0)), &world), irq }
}

impl Rig {
    /// To the first instant of the tick `n` after this one.
    fn ticks(&mut self, n: u64) {
        let tick = self.bench.now().ticks(CLOCK) + n;
        self.bench.advance_to(Instant::from_ticks(tick, CLOCK));
    }

    fn program(&mut self, control: u8, count: u16) {
        let port = 0x40 + u16::from(control >> 6);
        self.bench.out8(0x43, control);
        self.bench.out8(port, count as u8);
        self.bench.out8(port, (count >> 8) as u8);
    }

    fn count(&mut self, n: u16) -> u16 {
        self.bench.out8(0x43, (n as u8) << 6);
        u16::from_le_bytes([self.bench.in8(0x40 + n), self.bench.in8(0x40 + n)])
    }

    /// The status byte of a counter.
    fn status(&mut self, n: u16) -> u8 {
        self.bench.out8(0x43, 0xe0 | 2 << n);
        self.bench.in8(0x40 + n)
    }

    fn out(&mut self, n: u16) -> bool {
        self.status(n) & 0x80 != 0
    }

    /// OUT of counter `n` and its count in each of the next `ticks` clocks.
    fn wave(&mut self, n: u16, ticks: usize) -> Vec<(bool, u16)> {
        (0..ticks)
            .map(|_| {
                self.ticks(1);
                (self.out(n), self.count(n))
            })
            .collect()
    }
}

#[test]
fn pit_mode0_out_rises_n_plus_1_clocks_after_the_write() {
    let mut r = rig();
    r.program(0x30, 4);
    assert!(!r.out(0));
    let expected = [(false, 4), (false, 3), (false, 2), (false, 1), (true, 0), (true, 0xffff), (true, 0xfffe)];
    assert_eq!(r.wave(0, 7), expected);
}

#[test]
fn pit_mode0_first_byte_stops_and_lowers_out() {
    let mut r = rig();
    r.program(0x30, 2);
    r.ticks(5);
    assert!(r.out(0));
    r.bench.out8(0x40, 0x10);
    assert!(!r.out(0));
    let stopped = r.count(0);
    r.ticks(50);
    assert_eq!(r.count(0), stopped);
    r.bench.out8(0x40, 0);
    r.ticks(16);
    assert!(!r.out(0));
    r.ticks(1);
    assert!(r.out(0));
}

#[test]
fn pit_mode0_gate_pauses_the_count_but_not_the_load() {
    let mut r = rig();
    r.program(0xb0, 5);
    r.ticks(10);
    assert_eq!(r.count(2), 5);
    r.bench.out8(0x61, 1);
    assert_eq!(r.wave(2, 3), [(false, 4), (false, 3), (false, 2)]);
    r.bench.out8(0x61, 0);
    assert_eq!(r.wave(2, 2), [(false, 2), (false, 2)]);
    r.bench.out8(0x61, 1);
    assert_eq!(r.wave(2, 2), [(false, 1), (true, 0)]);
}

#[test]
fn pit_mode1_gate_triggers_and_retriggers_the_pulse() {
    let mut r = rig();
    r.program(0xb2, 3);
    r.ticks(20);
    assert!(r.out(2));
    r.bench.out8(0x61, 1);
    assert!(r.out(2));
    assert_eq!(r.wave(2, 2), [(false, 3), (false, 2)]);
    r.bench.out8(0x61, 0);
    r.bench.out8(0x61, 1);
    assert_eq!(r.wave(2, 5), [(false, 3), (false, 2), (false, 1), (true, 0), (true, 0xffff)]);
}

#[test]
fn pit_mode2_is_low_for_one_clock_in_n() {
    let mut r = rig();
    r.program(0x34, 3);
    let expected = [(true, 3), (true, 2), (false, 1), (true, 3), (true, 2), (false, 1), (true, 3)];
    assert_eq!(r.wave(0, 7), expected);
}

#[test]
fn pit_mode2_new_count_waits_for_the_end_of_the_period() {
    let mut r = rig();
    r.program(0x34, 4);
    r.ticks(2);
    r.bench.out8(0x40, 2);
    r.bench.out8(0x40, 0);
    assert_eq!(r.status(0) & 0x40, 0x40, "null count");
    assert_eq!(r.wave(0, 5), [(true, 2), (false, 1), (true, 2), (false, 1), (true, 2)]);
    assert_eq!(r.status(0) & 0x40, 0);
}

#[test]
fn pit_mode2_gate_raises_out_and_restarts() {
    let mut r = rig();
    r.bench.out8(0x61, 1);
    r.program(0xb4, 3);
    r.ticks(3);
    assert!(!r.out(2));
    r.bench.out8(0x61, 0);
    assert!(r.out(2));
    r.ticks(9);
    r.bench.out8(0x61, 1);
    assert_eq!(r.wave(2, 3), [(true, 3), (true, 2), (false, 1)]);
}

#[test]
fn pit_mode3_even_count_is_symmetric() {
    let mut r = rig();
    r.program(0x36, 4);
    let expected = [(true, 4), (true, 2), (false, 4), (false, 2), (true, 4), (true, 2), (false, 4)];
    assert_eq!(r.wave(0, 7), expected);
}

#[test]
fn pit_mode3_odd_count_is_asymmetric() {
    let mut r = rig();
    r.program(0x36, 5);
    let expected = [(true, 4), (true, 2), (true, 0), (false, 4), (false, 2), (true, 4), (true, 2), (true, 0)];
    assert_eq!(r.wave(0, 8), expected);
}

#[test]
fn pit_mode3_new_count_waits_for_the_half_cycle() {
    let mut r = rig();
    r.program(0x36, 8);
    r.ticks(1);
    r.bench.out8(0x40, 4);
    r.bench.out8(0x40, 0);
    let out: Vec<bool> = r.wave(0, 8).into_iter().map(|(out, _)| out).collect();
    assert_eq!(out, [true, true, true, false, false, true, true, false]);
}

#[test]
fn pit_mode4_strobes_once_for_one_clock() {
    let mut r = rig();
    r.program(0x38, 3);
    let expected = [(true, 3), (true, 2), (true, 1), (false, 0), (true, 0xffff), (true, 0xfffe)];
    assert_eq!(r.wave(0, 6), expected);
    r.ticks(0x20000);
    assert!(r.out(0));
    assert_eq!(r.irq.take_rises(0), 2, "the control word and the end of the strobe");
}

#[test]
fn pit_mode5_strobes_after_a_trigger() {
    let mut r = rig();
    r.program(0xba, 2);
    r.ticks(10);
    assert!(r.out(2));
    r.bench.out8(0x61, 1);
    assert_eq!(r.wave(2, 4), [(true, 2), (true, 1), (false, 0), (true, 0xffff)]);
}

#[test]
fn pit_bcd_counts_in_decimal() {
    let mut r = rig();
    r.program(0x31, 0x1000);
    r.ticks(2);
    assert_eq!(r.count(0), 0x0999);
    r.program(0x31, 0);
    r.ticks(2);
    assert_eq!(r.count(0), 0x9999);
    r.ticks(9999);
    assert!(r.out(0));
}

#[test]
fn pit_count_zero_is_65536() {
    let mut r = rig();
    r.program(0x34, 0);
    r.irq.take();
    let start = r.bench.now().ticks(CLOCK);
    r.ticks(0x10001);
    let rise = r.irq.take().into_iter().find(|c| c.high).unwrap();
    assert_eq!(rise.at.ticks(CLOCK) - start, 0x10001);
}

#[test]
fn pit_single_byte_access_clears_the_other_byte() {
    let mut r = rig();
    r.bench.out8(0x43, 0x10);
    r.bench.out8(0x40, 0x80);
    r.ticks(1);
    assert_eq!((r.bench.in8(0x40), r.bench.in8(0x40)), (0x80, 0x80));
    r.bench.out8(0x43, 0x20);
    r.bench.out8(0x40, 0x02);
    r.ticks(2);
    assert_eq!(r.bench.in8(0x40), 0x01, "0200h less one");
}

#[test]
fn pit_latch_holds_until_read_and_ignores_another() {
    let mut r = rig();
    r.program(0x34, 0x1234);
    r.ticks(1);
    r.bench.out8(0x43, 0x00);
    r.ticks(0x100);
    r.bench.out8(0x43, 0x00);
    assert_eq!((r.bench.in8(0x40), r.bench.in8(0x40)), (0x34, 0x12));
    assert_eq!((r.bench.in8(0x40), r.bench.in8(0x40)), (0x34, 0x11));
}

#[test]
fn pit_read_back_returns_status_before_count() {
    let mut r = rig();
    r.program(0x34, 0x1234);
    r.program(0xb6, 0x4321);
    r.ticks(1);
    r.bench.out8(0x61, 1);
    r.bench.out8(0x43, 0xca);
    assert_eq!(r.bench.in8(0x40), 0xb4);
    assert_eq!((r.bench.in8(0x40), r.bench.in8(0x40)), (0x34, 0x12));
    assert_eq!(r.bench.in8(0x42), 0xb6);
    assert_eq!((r.bench.in8(0x42), r.bench.in8(0x42)), (0x20, 0x43));
    assert_eq!(r.status(1), 0x70, "never programmed: null count");
}

#[test]
fn pit_control_word_drops_latches_and_half_written_counts() {
    let mut r = rig();
    r.program(0x34, 0x1234);
    r.ticks(1);
    r.bench.out8(0x43, 0x00);
    r.bench.in8(0x40);
    r.bench.out8(0x40, 0xff);
    r.program(0x34, 0x5678);
    r.ticks(1);
    assert_eq!((r.bench.in8(0x40), r.bench.in8(0x40)), (0x78, 0x56));
}

#[test]
fn pit_irq0_keeps_exact_time_for_an_hour_of_bios_ticks() {
    let mut r = rig();
    r.program(0x36, 0);
    r.irq.take();
    r.bench.advance(3_600_000_000_000);
    let ticks = 3600 * CLOCK / 0x10000;
    assert_eq!(r.irq.take_rises(0) as u64, ticks);
}

#[test]
fn pit_late_polls_lose_no_ticks() {
    let mut r = rig();
    r.program(0x34, 1193);
    r.irq.take();
    let mut late = 0;
    for _ in 0..200 {
        late = (late * 7 + 3) % 23;
        r.bench.advance_late(late * 500_000);
        r.bench.advance(20_000_000);
    }
    r.bench.advance(200_000_000);
    assert_eq!(r.bench.device.state.owed, 0);
    let due = (r.bench.now().ticks(CLOCK) - 1) / 1193;
    let rises = r.irq.take_rises(0) as u64;
    assert_eq!(rises, due);
}

#[test]
fn pit_debt_is_bounded_and_forgiven_by_reprogramming() {
    let mut r = rig();
    r.program(0x34, 2);
    r.bench.advance_late(3_600_000_000_000);
    assert_eq!(r.bench.device.state.owed, OWED);
    r.program(0x30, 100);
    assert_eq!(r.bench.device.state.owed, 0);
}

#[test]
fn pit_arbitrary_polling_sees_the_same_as_exact_polling() {
    let mut random = fastrand::Rng::with_seed(8254);
    for _ in 0..300 {
        let (mut exact, mut lazy) = (rig(), rig());
        let mode = random.u8(0..6);
        let control = 0xb0 | mode << 1 | random.u8(0..2);
        let count = random.u16(2..40);
        for r in [&mut exact, &mut lazy] {
            r.bench.out8(0x61, 1);
            r.program(control, count);
        }
        for _ in 0..20 {
            if random.u8(0..5) == 0 {
                let gate = random.u8(0..2);
                exact.bench.out8(0x61, gate);
                lazy.bench.out8(0x61, gate);
            }
            let n = random.u64(1..90);
            for _ in 0..n {
                exact.ticks(1);
                exact.bench.in8(0x61);
            }
            lazy.ticks(n);
            let pair = |r: &mut Rig| (r.status(2), r.count(2));
            assert_eq!(pair(&mut exact), pair(&mut lazy), "control {control:02x} count {count:x}");
        }
    }
}

#[test]
fn port61_refresh_bit_toggles_every_15_microseconds() {
    let mut r = rig();
    let mut toggles = 0;
    let mut last = r.bench.in8(0x61) & 0x10;
    for _ in 0..1000 {
        r.bench.advance(1000);
        let now = r.bench.in8(0x61) & 0x10;
        toggles += u32::from(now != last);
        last = now;
    }
    assert!((65..=67).contains(&toggles), "{toggles}");
}

#[test]
fn port61_keeps_four_bits_and_shows_out2() {
    let mut r = rig();
    r.bench.out8(0x61, 0xff);
    assert_eq!(r.bench.in8(0x61) & 0xcf, 0x0f);
    r.program(0xb0, 100);
    assert_eq!(r.bench.in8(0x61) & 0x20, 0);
    r.ticks(101);
    assert_eq!(r.bench.in8(0x61) & 0x20, 0x20);
}

#[test]
fn pit_restored_state_continues_the_wave() {
    let mut r = rig();
    r.program(0x36, 1000);
    r.ticks(700);
    let mut other = rig();
    other.bench.world.set_now(r.bench.now());
    r.bench.copy_state_to(&mut other.bench);
    assert_eq!(r.wave(0, 10), other.wave(0, 10));
    assert_eq!(r.bench.device.poll_at(), other.bench.device.poll_at());
}
