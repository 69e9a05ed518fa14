//! Conversations with the MC146818.

use super::*;
use crate::testbench::{Bench, IrqRecorder, World};
use std::sync::Arc;

/// 2026-11-23 12:34:56, a Monday.
const START: i64 = 1_795_437_296;

struct Rig {
    bench: Bench<Rtc>,
    irq: Arc<IrqRecorder>,
}

fn rig_at(seconds: i64, nanos: u32) -> Rig {
    let world = World::new(1 << 20);
    let irq = world.irq_recorder();
    Rig { bench: Bench::in_world(Rtc::new(irq.line(8), StartTime { seconds, nanos }), &world), irq }
}

fn rig() -> Rig {
    rig_at(START, 0)
}

impl Rig {
    fn get(&mut self, index: u8) -> u8 {
        self.bench.out8(0x70, index);
        self.bench.in8(0x71)
    }

    fn set(&mut self, index: u8, value: u8) {
        self.bench.out8(0x70, index);
        self.bench.out8(0x71, value);
    }

    /// Century, year, month, day, hour, minute, second as the registers show them.
    fn time(&mut self) -> [u8; 7] {
        [0x32, 9, 8, 7, 4, 2, 0].map(|index| self.get(index))
    }
}

#[test]
fn rtc_shows_start_time_in_bcd_and_advances_with_virtual_time() {
    let mut r = rig();
    assert_eq!(r.time(), [0x20, 0x26, 0x11, 0x23, 0x12, 0x34, 0x56]);
    assert_eq!((r.get(6), r.get(0x37)), (2, 0x20));
    r.bench.advance(4_000_000_000);
    assert_eq!(r.time(), [0x20, 0x26, 0x11, 0x23, 0x12, 0x35, 0x00]);
    r.bench.advance(86_400 * 1_000_000_000);
    assert_eq!(r.time()[3], 0x24);
    assert_eq!(r.get(6), 3);
}

#[test]
fn rtc_fraction_of_start_time_sets_the_phase() {
    let mut r = rig_at(START, 250_000_000);
    r.bench.advance(749_999_999);
    assert_eq!(r.get(0), 0x56);
    r.bench.advance(1);
    assert_eq!(r.get(0), 0x57);
}

#[test]
fn rtc_century_rolls_over_at_new_year() {
    let mut r = rig_at(4_102_444_799, 0);
    assert_eq!(r.time(), [0x20, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59]);
    r.bench.advance(1_000_000_000);
    assert_eq!(r.time(), [0x21, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00]);
}

#[test]
fn rtc_binary_and_12_hour_modes_encode() {
    let mut r = rig();
    r.set(0x0b, 0x80);
    r.set(4, 0x81);
    r.set(0x0b, 0x00);
    assert_eq!(r.get(4), 0x81);
    r.bench.advance(11 * 3600 * 1_000_000_000);
    assert_eq!(r.get(4), 0x12);
    let mut r = rig();
    r.set(0x0b, 0x86);
    for (index, value) in [(4, 23), (2, 59), (0, 58), (7, 31), (8, 12), (9, 99), (0x32, 19)] {
        r.set(index, value);
    }
    r.set(0x0b, 0x06);
    r.bench.advance(2_000_000_000);
    assert_eq!(r.time(), [20, 0, 1, 1, 0, 0, 0]);
}

#[test]
fn rtc_set_bit_freezes_registers_and_clears_uie() {
    let mut r = rig();
    r.set(0x0b, 0x92);
    assert_eq!(r.get(0x0b), 0x82);
    r.bench.advance(5_000_000_000);
    assert_eq!(r.get(0), 0x56);
    assert_eq!(r.get(0x0a) & 0x80, 0);
    assert_eq!(r.get(0x0c), 0x40, "only the periodic tap runs on");
    r.set(7, 0x30);
    r.set(8, 0x02);
    assert_eq!((r.get(7), r.get(8)), (0x30, 0x02), "plain bytes while stopped");
    r.set(0x0b, 0x02);
    assert_eq!((r.get(7), r.get(8)), (0x02, 0x03), "30 February is 2 March");
}

#[test]
fn rtc_divider_reset_delays_the_first_update_by_half_a_second() {
    let mut r = rig();
    r.bench.advance(300_000_000);
    r.set(0x0a, 0x76);
    r.bench.advance(10_000_000_000);
    assert_eq!(r.get(0), 0x56);
    r.set(0x0a, 0x26);
    r.bench.advance(499_999_999);
    assert_eq!(r.get(0), 0x56);
    r.bench.advance(1);
    assert_eq!(r.get(0), 0x57);
    r.bench.advance(1_000_000_000);
    assert_eq!(r.get(0), 0x58);
}

#[test]
fn rtc_weekday_register_is_independent_of_the_date() {
    let mut r = rig();
    r.set(6, 7);
    r.bench.advance(86_400 * 1_000_000_000);
    assert_eq!(r.get(6), 1);
}

#[test]
fn rtc_uip_precedes_the_update() {
    let mut r = rig();
    r.bench.advance(1_000_000_000 - UPDATE - 1);
    assert_eq!(r.get(0x0a), 0x26);
    r.bench.advance(1);
    assert_eq!(r.get(0x0a), 0xa6);
    r.bench.advance(UPDATE - 1);
    assert_eq!((r.get(0x0a), r.get(0)), (0xa6, 0x56));
    r.bench.advance(1);
    assert_eq!((r.get(0x0a), r.get(0)), (0x26, 0x57));
}

#[test]
fn rtc_update_ended_interrupts_each_second_when_acknowledged() {
    let mut r = rig();
    r.set(0x0b, 0x12);
    let mut interrupts = 0;
    for _ in 0..50 {
        r.bench.advance(100_000_000);
        if r.bench.device.irq8.is_high() {
            interrupts += 1;
            assert_eq!(r.get(0x0c) & 0x90, 0x90);
            assert_eq!(r.get(0x0c) & 0x90, 0);
        }
    }
    assert_eq!(interrupts, 5);
    assert_eq!(r.irq.take_rises(8), 5);
}

#[test]
fn rtc_periodic_rates_are_exact() {
    let hertz = [256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2];
    for (rate, hz) in (1..=15).zip(hertz) {
        let mut r = rig();
        r.set(0x0a, 0x20 | rate);
        r.get(0x0c);
        r.set(0x0b, 0x42);
        let mut count = 0;
        while let Some(at) = r.bench.device.poll_at().filter(|at| at.0 <= 1_000_000_000) {
            r.bench.advance_to(at);
            assert_eq!(r.get(0x0c) & 0xc0, 0xc0);
            count += 1;
        }
        assert_eq!(count, hz, "rate {rate}");
    }
}

#[test]
fn rtc_rate_zero_never_interrupts() {
    let mut r = rig();
    r.set(0x0a, 0x20);
    r.set(0x0b, 0x42);
    assert_eq!(r.bench.device.poll_at(), None);
}

#[test]
fn rtc_late_periodic_ticks_are_repaid_after_acknowledge() {
    let mut r = rig();
    r.set(0x0a, 0x26);
    r.get(0x0c);
    r.set(0x0b, 0x42);
    let mut count = 0;
    let mut late = 0;
    for _ in 0..100 {
        late = (late * 5 + 3) % 11;
        count += u64::from(r.get(0x0c) & 0x40 != 0);
        r.bench.advance_late(late * 700_000);
        for _ in 0..100 {
            if r.get(0x0c) & 0x40 != 0 {
                count += 1;
            }
            r.bench.advance(200_000);
        }
    }
    assert_eq!(r.bench.device.state.owed, 0);
    let due = (u128::from(r.bench.now().0) * 1024 / 1_000_000_000) as u64;
    assert!(due - count <= 1, "{count} of {due}");
}

#[test]
fn rtc_alarm_matches_once_a_day_and_wildcards_more_often() {
    let cases = [([0x12, 0x35, 0x30], 34, 86_400), ([0xff, 0x35, 0x30], 34, 3600), ([0xc0, 0xc0, 0x30], 34, 60)];
    for (alarm, first, then) in cases {
        let mut r = rig();
        for (index, value) in [5, 3, 1].into_iter().zip(alarm) {
            r.set(index, value);
        }
        r.set(0x0b, 0x22);
        r.bench.advance((first + 2 * then) * 1_000_000_000 - 1);
        assert_eq!(r.get(0x0c) & 0xb0, 0xb0);
        assert_eq!(r.irq.take().first().unwrap().at, Instant(first * 1_000_000_000));
        r.bench.advance(1);
        assert_eq!(r.get(0x0c) & 0xa0, 0xa0);
    }
}

#[test]
fn rtc_alarm_every_second_and_impossible_alarm() {
    let mut r = rig();
    for index in [1, 3, 5] {
        r.set(index, 0xff);
    }
    r.set(0x0b, 0x22);
    assert_eq!(r.bench.device.poll_at(), Some(Instant(1_000_000_000)));
    r.set(1, 0x99);
    assert_eq!(r.bench.device.poll_at(), None);
}

#[test]
fn rtc_flags_rise_without_their_enable_bits() {
    let mut r = rig();
    r.bench.advance(2_000_000_000);
    assert_eq!(r.get(0x0c), 0x50);
    assert!(r.irq.take().is_empty());
    r.bench.advance(2_000_000_000);
    r.set(0x0b, 0x12);
    assert!(r.bench.device.irq8.is_high(), "enabling a flag that is up interrupts");
}

#[test]
fn rtc_reset_keeps_time_and_ram() {
    let mut r = rig();
    r.set(0x40, 0x5a);
    r.set(0x0b, 0x7a);
    r.bench.advance(3_000_000_000);
    r.bench.reset(ResetKind::Warm);
    assert!(!r.bench.device.irq8.is_high());
    assert_eq!((r.get(0x0b), r.get(0x0c), r.get(0x0d), r.get(0x40)), (0x02, 0, 0x80, 0x5a));
    assert_eq!(r.get(0), 0x59);
}

#[test]
fn rtc_index_port_masks_nmi_and_is_write_only() {
    let mut r = rig();
    r.bench.out8(0x70, 0x8f);
    assert!(r.bench.device.nmi_masked());
    assert_eq!(r.bench.in8(0x70), 0xff);
    r.bench.out8(0x71, 0x0a);
    assert_eq!(r.get(0x0f), 0x0a);
    assert!(!r.bench.device.nmi_masked());
}

#[test]
fn rtc_extended_bank_is_separate() {
    let mut r = rig();
    r.set(0x40, 1);
    r.bench.out8(0x72, 0xc0);
    r.bench.out8(0x73, 2);
    assert_eq!((r.get(0x40), r.bench.in8(0x72), r.bench.in8(0x73)), (1, 0x40, 2));
}

#[test]
fn rtc_restored_state_goes_on() {
    let mut r = rig();
    r.set(0x0b, 0x72);
    r.bench.advance(1_234_567_890);
    let mut other = rig_at(0, 0);
    other.bench.world.set_now(r.bench.now());
    r.bench.copy_state_to(&mut other.bench);
    assert!(other.bench.device.irq8.is_high());
    assert_eq!(other.time(), r.time());
    assert_eq!(other.get(0x0c), r.get(0x0c));
    assert_eq!(other.bench.device.poll_at(), r.bench.device.poll_at());
}

#[test]
fn rtc_ram_that_the_user_sets_is_there_at_the_next_access_and_can_be_overwritten() {
    let world = World::new(1 << 20);
    let rtc = Rtc::new(world.irq_recorder().line(8), StartTime { seconds: START, nanos: 0 });
    let patch = rtc.patch();
    let mut bench = Bench::in_world(rtc, &world);
    bench.out8(0x70, 0x3d);
    patch.set_byte(0x3d, 0x21);
    patch.set_byte(0x3d, 0x31);
    assert_eq!(bench.in8(0x71), 0x31);
    patch.set_byte(0x3d, 0x11);
    bench.out8(0x71, 0x42);
    assert_eq!(bench.in8(0x71), 0x42);
}
