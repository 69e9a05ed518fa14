//! Device paths: a register access from the guest's instruction to the device and back, and the devices' own work.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use emu_benches::bare;
use emu_core::clock::Instant;
use emu_core::device::Space;
use emu_core::irq::{CpuPins, IrqLine};
use emu_devices::char::MemoryBackend;
use emu_devices::char::uart16550::Uart16550;
use emu_devices::intc::pic::Pic;
use emu_devices::testbench::{Bench, World};
use emu_devices::timer::pit::Pit;
use emu_devices::video::vga::{self, Vga};
use emu_devices::video::{Damage, Frame, VgaConfig};
use iced_x86::code_asm::*;

/// IN from a port that nobody decodes: instruction, permission check, bus, and back.
fn port_access(c: &mut Criterion) {
    const INSTRUCTIONS: u64 = 100_000;
    let mut cpu = bare::cpu(|a| {
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        a.in_(al, 0x80)?;
        a.jmp(top)
    });
    let mut group = c.benchmark_group("bus");
    group.throughput(Throughput::Elements(INSTRUCTIONS / 2));
    group.bench_function("undecoded_port", |bencher| {
        bencher.iter(|| bare::run(black_box(&mut cpu), INSTRUCTIONS));
    });
    group.finish();
}

fn registers(c: &mut Criterion) {
    let mut group = c.benchmark_group("devices");

    let mut uart = Bench::new(Uart16550::new(IrqLine::unconnected(), Box::new(MemoryBackend::new())));
    group.bench_function("uart_line_status", |bencher| bencher.iter(|| black_box(uart.in8(5))));

    let mut pit = Bench::new(Pit::new(IrqLine::unconnected()));
    pit.out8(0x43, 0x34);
    pit.out8(0x40, 0xff);
    pit.out8(0x40, 0xff);
    group.bench_function("pit_latch_and_read", |bencher| {
        bencher.iter(|| {
            pit.out8(0x43, 0);
            black_box((pit.in8(0x40), pit.in8(0x40)))
        });
    });
    group.bench_function("pit_tick", |bencher| bencher.iter(|| pit.advance(black_box(1_000_000))));

    let mut pic = Bench::new(Pic::new(IrqLine::unconnected()));
    group.bench_function("pic_mask", |bencher| {
        bencher.iter(|| {
            pic.out8(0x21, black_box(0xfb));
            black_box(pic.in8(0x21))
        });
    });
    group.finish();
}

/// A VGA on the bench, with its window and mode 3 or, with `vbe`, 1024x768 in 32 bits.
fn vga(vbe: bool) -> Bench<Vga> {
    let config = VgaConfig::default();
    let world = World::with_extra(1 << 20, vga::extra_memory(&config));
    let card = Vga::new(&config, world.memory().clone(), Arc::new(CpuPins::default()));
    let mut bench = Bench::in_world(card, &world);
    bench.map(Space::Memory, vga::WINDOW, vga::WINDOW_TAG);
    bench.out8(0x3c2, 0x67);
    for (index, value) in [(1, 0x4f), (7, 0x1f), (9, 0x4f), (0x12, 0x8f), (0x13, 0x28), (0x17, 0xa3), (0x18, 0xff)] {
        bench.out16(0x3d4, value << 8 | index);
    }
    bench.out16(0x3c4, 0x0302);
    bench.out16(0x3ce, 0x0e06);
    bench.out16(0x3ce, 0xff08);
    if vbe {
        for (index, value) in [(1, 1024), (2, 768), (3, 32), (4, 0x41)] {
            bench.out16(0x1ce, index);
            bench.out16(0x1cf, value);
        }
    }
    bench.out8(0x3c0, 0x20);
    bench
}

/// What a front end pays for each refresh: nothing has changed, or every line has.
fn refresh(c: &mut Criterion) {
    let mut group = c.benchmark_group("refresh");
    for (name, vbe) in [("text_80x25", false), ("vbe_1024x768x32", true)] {
        let mut bench = vga(vbe);
        let (display, mut frame) = (bench.device.display(), Frame::default());
        display.refresh(Instant(0), &mut frame);
        group.bench_function(format!("{name}_unchanged"), |bencher| {
            bencher.iter(|| assert_eq!(display.refresh(Instant(0), &mut frame), Damage::None));
        });
        let mut mask = 0;
        group.bench_function(format!("{name}_all"), |bencher| {
            bencher.iter(|| {
                mask ^= 1;
                bench.out8(0x3c6, 0xfe | mask);
                bench.out8(0x3c8, 1);
                (0..3).for_each(|_| bench.out8(0x3c9, mask));
                assert_eq!(display.refresh(Instant(0), &mut frame), Damage::All);
            });
        });
    }
    group.finish();

    let mut bench = vga(false);
    let mut group = c.benchmark_group("vga");
    group.bench_function("window_write_doubleword", |bencher| {
        bencher.iter(|| bench.write(Space::Memory, 0xb_8000, 4, black_box(0x0741_0742)));
    });
    group.finish();
}

criterion_group!(benches, port_access, registers, refresh);
criterion_main!(benches);
