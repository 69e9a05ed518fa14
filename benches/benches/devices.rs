//! Device paths: a register access from the guest's instruction to the device and back, and the devices' own work.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use emu_benches::bare;
use emu_core::irq::IrqLine;
use emu_devices::char::MemoryBackend;
use emu_devices::char::uart16550::Uart16550;
use emu_devices::intc::pic::Pic;
use emu_devices::testbench::Bench;
use emu_devices::timer::pit::Pit;
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

criterion_group!(benches, port_access, registers);
criterion_main!(benches);
