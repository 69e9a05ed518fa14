use super::*;
use crate::testbench::Bench;
use std::sync::atomic::{AtomicU32, Ordering};

const EOI: u64 = 0xb0;
const SVR: u64 = 0xf0;
const ESR: u64 = 0x280;
const ICR: u64 = 0x300;
const LVT_TIMER: u64 = 0x320;
const LVT_LINT0: u64 = 0x350;
const INITIAL: u64 = 0x380;
const CURRENT: u64 = 0x390;
const DIVIDE: u64 = 0x3e0;

struct Board {
    bench: Bench<Lapic>,
    core: Arc<LapicCore>,
    pins: Arc<CpuPins>,
}

/// An enabled APIC at its default address.
fn board() -> Board {
    let pins = Arc::new(CpuPins::default());
    let lapic = Lapic::new(0, pins.clone(), LapicFeatures { x2apic: true, tsc_deadline: true });
    let core = lapic.core();
    let mut bench = Bench::new(lapic);
    assert!(bench.take_requests().contains(&Request::Map {
        space: Space::Memory,
        region: Region { base: DEFAULT_BASE, len: 0x1000 },
        tag: 0
    }));
    bench.map(Space::Memory, Region { base: DEFAULT_BASE, len: 0x1000 }, 0);
    let mut board = Board { bench, core, pins };
    board.write(SVR, 0x1ff);
    board
}

impl Board {
    fn read(&mut self, offset: u64) -> u32 {
        self.bench.read(Space::Memory, DEFAULT_BASE + offset, 4) as u32
    }

    fn write(&mut self, offset: u64, value: u32) {
        self.bench.write(Space::Memory, DEFAULT_BASE + offset, 4, value.into());
    }

    fn intr(&self) -> bool {
        self.pins.get() & CpuPins::INTR != 0
    }

    fn wrmsr(&mut self, msr: u32, value: u64) -> Option<Result<(), MsrFault>> {
        self.bench.with(|d, cx| d.write_msr(cx, msr, value))
    }

    fn rdmsr(&mut self, msr: u32) -> Option<Result<u64, MsrFault>> {
        self.bench.with(|d, cx| d.read_msr(cx, msr))
    }
}

fn message(vector: u8, level: bool) -> u32 {
    u32::from(vector) | if level { 0xc000 } else { 0 }
}

#[test]
fn vectors_of_higher_class_interrupt_and_equal_class_waits_for_eoi() {
    let mut b = board();
    b.core.deliver(DEFAULT_BASE, message(0x41, false));
    assert!(b.intr());
    assert_eq!(b.core.acknowledge(), Some(0x41));
    assert!(!b.intr());
    assert_eq!(b.read(0xa0), 0x40);
    b.core.deliver(DEFAULT_BASE, message(0x4f, false));
    assert!(!b.intr(), "same class");
    b.core.deliver(DEFAULT_BASE, message(0x50, false));
    assert_eq!(b.core.acknowledge(), Some(0x50));
    b.write(EOI, 0);
    assert!(!b.intr());
    b.write(EOI, 0);
    assert_eq!(b.core.acknowledge(), Some(0x4f));
}

#[test]
fn task_priority_and_cr8_hold_back_their_class() {
    let mut b = board();
    b.core.deliver(DEFAULT_BASE, message(0x35, false));
    b.write(0x80, 0x30);
    assert!(!b.intr());
    assert_eq!(b.core.acknowledge(), None);
    b.bench.with(|d, cx| d.set_cr8(cx, 2));
    assert_eq!(b.read(0x80), 0x20);
    assert_eq!(b.bench.device.cr8(), 2);
    assert_eq!(b.core.acknowledge(), Some(0x35));
}

#[derive(Default)]
struct Ends(AtomicU32);

impl EoiListener for Ends {
    fn end_of_interrupt(&self, vector: u8) {
        self.0.store(vector.into(), Ordering::Relaxed);
    }
}

#[test]
fn eoi_is_broadcast_for_level_triggered_vectors_only() {
    let mut b = board();
    let ends = Arc::new(Ends::default());
    b.core.connect_eoi(ends.clone());
    b.core.deliver(DEFAULT_BASE, message(0x60, false));
    assert_eq!(b.core.acknowledge(), Some(0x60));
    b.write(EOI, 0);
    assert_eq!(ends.0.load(Ordering::Relaxed), 0);
    b.core.deliver(DEFAULT_BASE, message(0x60, true));
    assert_eq!(b.core.acknowledge(), Some(0x60));
    assert_eq!(b.read(0x180 + 0x30), 1);
    b.write(EOI, 0);
    assert_eq!(ends.0.load(Ordering::Relaxed), 0x60);
}

struct FakePic;

impl InterruptSource for FakePic {
    fn acknowledge(&self) -> Option<u8> {
        Some(0x08)
    }
}

#[test]
fn virtual_wire_passes_8259_interrupts_until_lint0_is_masked() {
    let mut b = board();
    b.core.connect_pic(Arc::new(FakePic));
    b.bench.reset(ResetKind::Cold);
    b.core.set_level(pin::LINT0, true);
    assert!(b.intr());
    assert_eq!(b.core.acknowledge(), Some(0x08));
    b.write(LVT_LINT0, 0x1_0700);
    assert!(!b.intr());
    assert_eq!(b.core.acknowledge(), None);
    // A disabled APIC leaves the pin to the 8259 pair.
    assert_eq!(b.wrmsr(IA32_APIC_BASE, DEFAULT_BASE | BASE_BSP), Some(Ok(())));
    assert_eq!(b.core.acknowledge(), Some(0x08));
    assert_eq!(b.bench.take_requests().pop(), Some(Request::Unmap { tag: 0 }));
}

#[test]
fn level_triggered_lint0_is_taken_again_after_eoi_while_high() {
    let mut b = board();
    b.write(LVT_LINT0, 0x8051);
    b.core.set_level(pin::LINT0, true);
    assert_eq!(b.core.acknowledge(), Some(0x51));
    assert_eq!(b.read(LVT_LINT0), 0xc051);
    assert!(!b.intr());
    b.write(EOI, 0);
    assert_eq!(b.core.acknowledge(), Some(0x51));
    b.core.set_level(pin::LINT0, false);
    b.write(EOI, 0);
    assert!(!b.intr());
    assert_eq!(b.read(LVT_LINT0), 0x8051);
}

#[test]
fn lint1_as_nmi_pulls_the_nmi_pin() {
    let mut b = board();
    b.core.set_level(pin::LINT1, true);
    assert_eq!(b.pins.take(CpuPins::NMI), 0);
    b.core.set_level(pin::LINT1, false);
    b.write(0x360, 0x400);
    b.core.set_level(pin::LINT1, true);
    assert_eq!(b.pins.take(CpuPins::NMI), CpuPins::NMI);
}

#[test]
fn one_shot_timer_fires_once_after_the_divided_count() {
    let mut b = board();
    b.write(LVT_TIMER, 0x30);
    b.write(DIVIDE, 0x3); // by 16
    b.write(INITIAL, 100);
    b.bench.advance(160);
    assert_eq!(b.read(CURRENT), 90);
    b.bench.advance(1439);
    assert_eq!(b.read(CURRENT), 1);
    assert!(!b.intr());
    b.bench.advance(1);
    assert_eq!((b.read(CURRENT), b.core.acknowledge()), (0, Some(0x30)));
    b.write(EOI, 0);
    b.bench.advance(10_000);
    assert!(!b.intr());
}

#[test]
fn periodic_timer_reloads_and_drops_ticks_that_nobody_polled_for() {
    let mut b = board();
    b.write(DIVIDE, 0xb); // by 1
    b.write(LVT_TIMER, 0x2_0030);
    b.write(INITIAL, 1000);
    for _ in 0..3 {
        b.bench.advance(1000);
        assert_eq!((b.read(CURRENT), b.core.acknowledge()), (1000, Some(0x30)));
        b.write(EOI, 0);
    }
    b.bench.advance_late(5500);
    assert_eq!((b.read(CURRENT), b.core.acknowledge()), (500, Some(0x30)));
    b.write(EOI, 0);
    assert!(!b.intr());
    assert_eq!(b.bench.device.poll_at(), Some(Instant(9000)));
    b.write(INITIAL, 0);
    assert_eq!(b.bench.device.poll_at(), None);
}

#[test]
fn tsc_deadline_fires_at_its_count_and_reads_zero_afterwards() {
    let mut b = board();
    assert_eq!(b.wrmsr(IA32_TSC_DEADLINE, 500), Some(Ok(())));
    assert_eq!(b.rdmsr(IA32_TSC_DEADLINE), Some(Ok(0)), "ignored in other modes");
    b.write(LVT_TIMER, 0x4_0032);
    b.bench.with(|d, cx| d.set_tsc_offset(cx, 10_000));
    assert_eq!(b.wrmsr(IA32_TSC_DEADLINE, 10_500), Some(Ok(())));
    assert_eq!(b.rdmsr(IA32_TSC_DEADLINE), Some(Ok(10_500)));
    b.bench.advance(499);
    assert!(!b.intr());
    b.bench.advance(1);
    assert_eq!(b.core.acknowledge(), Some(0x32));
    assert_eq!(b.rdmsr(IA32_TSC_DEADLINE), Some(Ok(0)));
    // A deadline in the past fires at once.
    b.write(EOI, 0);
    assert_eq!(b.wrmsr(IA32_TSC_DEADLINE, 1), Some(Ok(())));
    b.bench.advance(0);
    assert_eq!(b.core.acknowledge(), Some(0x32));
}

#[test]
fn masked_timer_counts_without_interrupting() {
    let mut b = board();
    b.write(DIVIDE, 0xb);
    b.write(LVT_TIMER, 0x1_0030);
    b.write(INITIAL, 50);
    b.bench.advance(100);
    assert_eq!((b.read(CURRENT), b.intr()), (0, false));
}

#[test]
fn ipis_reach_this_processor_by_every_destination_that_names_it() {
    let mut b = board();
    let take = |b: &mut Board, high: u32, low: u32| {
        b.write(ICR + 0x10, high);
        b.write(ICR, low);
        let vector = b.core.acknowledge();
        b.write(EOI, 0);
        vector
    };
    assert_eq!(take(&mut b, 0, 0x4_4040), Some(0x40), "self");
    assert_eq!(take(&mut b, 0, 0x8_4040), Some(0x40), "all including self");
    assert_eq!(take(&mut b, 0, 0xc_4040), None, "all excluding self");
    assert_eq!(take(&mut b, 0, 0x4040), Some(0x40), "physical ID 0");
    assert_eq!(take(&mut b, 0x0100_0000, 0x4040), None, "physical ID 1");
    assert_eq!(take(&mut b, 0xff00_0000, 0x4040), Some(0x40), "broadcast");
    b.write(0xd0, 0x0400_0000);
    assert_eq!(take(&mut b, 0x0600_0000, 0x4840), Some(0x40), "flat logical");
    assert_eq!(take(&mut b, 0x0100_0000, 0x4840), None, "flat logical, other bit");
    b.write(0xe0, 0x0fff_ffff);
    b.write(0xd0, 0x3400_0000);
    assert_eq!(take(&mut b, 0x3c00_0000, 0x4940), Some(0x40), "cluster logical, lowest priority");
    assert_eq!(take(&mut b, 0x2c00_0000, 0x4840), None, "another cluster");
    assert_eq!(take(&mut b, 0, 0xc500), None, "INIT level assert");
    assert_eq!(b.pins.take(CpuPins::INIT), CpuPins::INIT);
    assert_eq!(b.read(SVR), 0xff, "INIT disables");
}

#[test]
fn illegal_vectors_and_registers_are_reported_by_the_error_register() {
    let mut b = board();
    b.write(0x370, 0xfe);
    b.write(ICR, 0x4_4005);
    assert_eq!(b.core.acknowledge(), Some(0xfe));
    assert_eq!(b.read(ESR), 0, "before a write");
    b.write(ESR, 0);
    assert_eq!(b.read(ESR), esr::SEND_ILLEGAL_VECTOR);
    b.core.deliver(DEFAULT_BASE, message(3, false));
    b.read(0x3f0);
    b.write(ESR, 0);
    assert_eq!(b.read(ESR), esr::RECEIVE_ILLEGAL_VECTOR | esr::ILLEGAL_REGISTER);
}

#[test]
fn software_disable_masks_the_lvt_and_drops_messages() {
    let mut b = board();
    b.write(LVT_TIMER, 0x30);
    b.write(SVR, 0xff);
    assert_eq!(b.read(LVT_TIMER), 0x1_0030);
    b.write(LVT_TIMER, 0x31);
    assert_eq!(b.read(LVT_TIMER), 0x1_0031);
    b.core.deliver(DEFAULT_BASE, message(0x40, false));
    b.write(SVR, 0x1ff);
    assert!(!b.intr());
}

#[test]
fn x2apic_mode_follows_the_state_diagram_and_faults_on_reserved_bits() {
    let mut b = board();
    let xapic = DEFAULT_BASE | BASE_EN | BASE_BSP;
    assert_eq!(b.rdmsr(0x802), Some(Err(MsrFault)));
    assert_eq!(b.wrmsr(IA32_APIC_BASE, xapic | 1), Some(Err(MsrFault)));
    assert_eq!(b.wrmsr(IA32_APIC_BASE, DEFAULT_BASE | BASE_EXTD), Some(Err(MsrFault)));
    assert_eq!(b.wrmsr(IA32_APIC_BASE, xapic | BASE_EXTD), Some(Ok(())));
    assert_eq!(b.wrmsr(IA32_APIC_BASE, xapic), Some(Err(MsrFault)));
    assert_eq!(b.rdmsr(0x80d), Some(Ok(1)));
    assert_eq!(b.rdmsr(0x80e), Some(Err(MsrFault)));
    assert_eq!(b.wrmsr(0x802, 0), Some(Err(MsrFault)));
    assert_eq!(b.wrmsr(0x80b, 1), Some(Err(MsrFault)));
    assert_eq!(b.wrmsr(0x80f, 0x1ff), Some(Ok(())));
    assert_eq!(b.wrmsr(0x83f, 0x77), Some(Ok(())));
    assert_eq!(b.core.acknowledge(), Some(0x77));
    assert_eq!(b.wrmsr(0x80b, 0), Some(Ok(())));
    assert_eq!(b.wrmsr(0x830, 0xffff_ffff_0000_0078), Some(Ok(())));
    assert_eq!(b.core.acknowledge(), Some(0x78));
    assert_eq!(b.rdmsr(0x830), Some(Ok(0xffff_ffff_0000_0078)));
    assert_eq!(b.rdmsr(0x10), None);
}

#[test]
fn state_survives_a_round_trip_and_drives_intr_anew() {
    let b = board();
    b.core.deliver(DEFAULT_BASE, message(0x91, true));
    let json = serde_json::to_string(&b.bench.device.state()).unwrap();
    let mut other = board();
    other.bench.device.set_state(serde_json::from_str(&json).unwrap());
    assert!(!other.intr());
    other.bench.with(|d, cx| d.restored(cx));
    assert!(other.intr());
    assert_eq!(other.bench.device.state(), b.bench.device.state());
}

#[test]
fn random_accesses_neither_panic_nor_leave_a_deadline_in_the_past() {
    let mut b = board();
    let mut seed = 88_172_645_463_325_252u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..50_000 {
        let (offset, value) = (random() % 0x1000, random() as u32);
        let size = 1 << (random() % 4);
        if offset + size <= 0x1000 {
            b.bench.write(Space::Memory, DEFAULT_BASE + offset, size as u8, value.into());
            b.bench.read(Space::Memory, DEFAULT_BASE + offset, size as u8);
        }
        b.core.deliver(DEFAULT_BASE | u64::from(value & 0xf_f004), random() as u32);
        let _ = b.wrmsr(0x800 + (value & 0xff), random());
        let _ = b.rdmsr(0x800 + (value & 0xff));
        b.core.acknowledge();
        b.bench.advance_late(random() % 10_000);
    }
}
