use super::*;
use crate::testbench::{Bench, IrqRecorder, World};
use emu_core::device::Space;

const CONF: u64 = 0x10;
const STATUS: u64 = 0x20;
const COUNTER: u64 = 0xf0;

fn timer(n: u64) -> u64 {
    0x100 + 0x20 * n
}

fn bench() -> (Bench<Hpet>, Arc<IrqRecorder>) {
    let world = World::new(1 << 20);
    let recorder = world.irq_recorder();
    let inputs = (0..24).map(|i| recorder.line(100 + i)).collect();
    let hpet = Hpet::new(HpetLines { irq0: recorder.line(0), irq8: recorder.line(8), inputs });
    let mut bench = Bench::in_world(hpet, &world);
    bench.map(Space::Memory, REGION, 0);
    (bench, recorder)
}

fn read(bench: &mut Bench<Hpet>, offset: u64) -> u64 {
    bench.read(Space::Memory, REGION.base + offset, 8)
}

fn write(bench: &mut Bench<Hpet>, offset: u64, value: u64) {
    bench.write(Space::Memory, REGION.base + offset, 8, value);
}

#[test]
fn capabilities_tell_10_ns_three_timers_and_legacy_replacement() {
    let (mut bench, _) = bench();
    assert_eq!(read(&mut bench, 0), 0x0098_9680_8086_a201);
    assert_eq!(bench.read(Space::Memory, REGION.base + 4, 4), 10_000_000);
    assert_eq!(read(&mut bench, timer(0)), 0x00ff_0104_0000_0030);
    assert_eq!(read(&mut bench, timer(3)), 0);
}

#[test]
fn counter_counts_while_enabled_and_can_be_set() {
    let (mut bench, _) = bench();
    bench.advance(1000);
    assert_eq!(read(&mut bench, COUNTER), 0);
    write(&mut bench, COUNTER, 0xffff_ffff);
    write(&mut bench, CONF, ENABLE);
    bench.advance(10);
    assert_eq!(read(&mut bench, COUNTER), 0x1_0000_0000);
    assert_eq!(bench.read(Space::Memory, REGION.base + COUNTER + 4, 4), 1);
    write(&mut bench, CONF, 0);
    bench.advance(500);
    assert_eq!(read(&mut bench, COUNTER), 0x1_0000_0000);
}

#[test]
fn one_shot_fires_once_at_its_comparator() {
    let (mut bench, recorder) = bench();
    write(&mut bench, CONF, ENABLE);
    write(&mut bench, timer(2), conf::INTERRUPT | 20 << 9);
    write(&mut bench, timer(2) + 8, 300);
    bench.advance(100_000);
    let changes: Vec<_> = recorder.take().iter().map(|c| (c.at.0, c.pin, c.high)).collect();
    assert_eq!(changes, [(3000, 120, true), (3000, 120, false)]);
}

#[test]
fn route_that_is_not_offered_is_not_taken() {
    let (mut bench, _) = bench();
    write(&mut bench, timer(0), 5 << 9);
    assert_eq!(read(&mut bench, timer(0)) & conf::ROUTE, 0);
    write(&mut bench, timer(0), 16 << 9);
    write(&mut bench, timer(0), 5 << 9);
    assert_eq!(read(&mut bench, timer(0)) & conf::ROUTE, 16 << 9);
}

#[test]
fn periodic_timer_programmed_as_linux_does_keeps_its_beat_in_legacy_mode() {
    let (mut bench, recorder) = bench();
    write(&mut bench, CONF, ENABLE | LEGACY);
    bench.advance(50);
    let conf = conf::PERIODIC | conf::SET_ACCUMULATOR | conf::INTERRUPT | conf::FORCE_32;
    bench.write(Space::Memory, REGION.base + timer(0), 4, conf);
    bench.write(Space::Memory, REGION.base + timer(0) + 8, 4, 105);
    bench.write(Space::Memory, REGION.base + timer(0) + 8, 4, 100);
    bench.advance_to(Instant(4000));
    let rises: Vec<_> = recorder.take().iter().filter(|c| c.high).map(|c| (c.at.0, c.pin)).collect();
    assert_eq!(rises, [(1050, 0), (2050, 0), (3050, 0)]);
    // Late polls drop ticks but keep the phase.
    bench.advance_late(4000);
    assert_eq!(recorder.take_rises(0), 1);
    assert_eq!(bench.device.poll_at(), Some(Instant(8050)));
}

#[test]
fn legacy_replacement_cuts_off_the_8254_and_the_clock() {
    let (mut bench, recorder) = bench();
    let core = bench.device.core();
    core.set_level(pin::PIT, true);
    core.set_level(pin::RTC, true);
    assert_eq!(recorder.take().len(), 2);
    write(&mut bench, CONF, LEGACY);
    assert_eq!(recorder.take().len(), 2, "both fall");
    core.set_level(pin::PIT, false);
    assert_eq!(recorder.take().len(), 0);
    write(&mut bench, CONF, 0);
    assert_eq!(recorder.take_rises(8), 1);
}

#[test]
fn level_interrupt_stays_until_its_status_is_cleared() {
    let (mut bench, recorder) = bench();
    write(&mut bench, CONF, ENABLE);
    write(&mut bench, timer(1), conf::INTERRUPT | conf::LEVEL | 17 << 9);
    write(&mut bench, timer(1) + 8, 10);
    bench.advance(100);
    assert_eq!((recorder.take_rises(117), read(&mut bench, STATUS)), (1, 2));
    write(&mut bench, STATUS, 1);
    assert_eq!(recorder.take().len(), 0);
    write(&mut bench, STATUS, 2);
    assert_eq!((recorder.take().len(), read(&mut bench, STATUS)), (1, 0));
}

#[test]
fn comparator_of_32_bits_matches_again_after_a_round() {
    let (mut bench, recorder) = bench();
    write(&mut bench, CONF, ENABLE);
    write(&mut bench, timer(0), conf::INTERRUPT | conf::FORCE_32 | 2 << 9);
    write(&mut bench, timer(0) + 8, 7);
    bench.advance_to(Instant::from_ticks((1 << 32) + 7, HZ));
    assert_eq!(recorder.take_rises(102), 2);
}

#[test]
fn random_accesses_neither_panic_nor_hang() {
    let (mut bench, _) = bench();
    let mut seed = 0x1234_5678_9abc_def1u64;
    for _ in 0..50_000 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let offset = (seed >> 20) % 0x180;
        bench.write(Space::Memory, REGION.base + offset, 1 << (seed & 3), seed >> (seed >> 32 & 63));
        bench.read(Space::Memory, REGION.base + offset, 8);
        bench.advance_late(seed >> 8 & 0xffff);
    }
    bench.set_now_far();
}

impl Bench<Hpet> {
    /// Near the end of time nothing overflows.
    fn set_now_far(&mut self) {
        self.world.set_now(Instant(u64::MAX - 5));
        self.poll();
        write(self, CONF, ENABLE);
        read(self, COUNTER);
    }
}
