//! Address translation: hits, misses that walk four levels, flushes. Elements are guest instructions.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use emu_benches::bare::{self, DATA, RAM};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

const INSTRUCTIONS: u64 = 500_000;

/// Reads `span` bytes from DATA on with a step of `stride`, again and again: four instructions for each read.
fn stride(span: u64, stride: u32) -> impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError> {
    move |a| {
        let (mut top, mut next) = (a.create_label(), a.create_label());
        a.mov(rbx, DATA + span)?;
        a.set_label(&mut top)?;
        a.mov(rax, DATA)?;
        a.set_label(&mut next)?;
        a.mov(edx, dword_ptr(rax))?;
        a.add(rax, stride as i32)?;
        a.cmp(rax, rbx)?;
        a.jb(next)?;
        a.jmp(top)
    }
}

fn translation(c: &mut Criterion) {
    let mut group = c.benchmark_group("mmu");
    group.throughput(Throughput::Elements(INSTRUCTIONS));

    let mut near = bare::cpu(stride(16 << 10, 64));
    group.bench_function("four_pages", |bencher| bencher.iter(|| bare::run(black_box(&mut near), INSTRUCTIONS)));

    // More pages than any table of translations holds.
    let mut far = bare::cpu(stride(RAM - DATA, 4096));
    group.bench_function("every_page", |bencher| bencher.iter(|| bare::run(black_box(&mut far), INSTRUCTIONS)));

    let mut crossing = bare::cpu(|a| {
        let mut top = a.create_label();
        a.mov(rbx, DATA)?;
        a.set_label(&mut top)?;
        a.mov(rax, qword_ptr(rbx + 4092))?;
        a.mov(qword_ptr(rbx + 8188), rax)?;
        a.jmp(top)
    });
    group.bench_function("page_crossing", |bencher| {
        bencher.iter(|| bare::run(black_box(&mut crossing), INSTRUCTIONS));
    });

    // What a context switch costs: a new CR3, then a few pages of code and data again.
    let mut switches = bare::cpu(|a| {
        let (mut top, mut next) = (a.create_label(), a.create_label());
        a.mov(rbx, DATA)?;
        a.set_label(&mut top)?;
        a.mov(rax, cr3)?;
        a.mov(cr3, rax)?;
        a.mov(ecx, 8)?;
        a.set_label(&mut next)?;
        a.mov(eax, ecx)?;
        a.shl(eax, 12)?;
        a.add(dword_ptr(rbx + rax), ecx)?;
        a.dec(ecx)?;
        a.jne(next)?;
        a.jmp(top)
    });
    group.bench_function("cr3_reload", |bencher| bencher.iter(|| bare::run(black_box(&mut switches), INSTRUCTIONS)));
    group.finish();
}

criterion_group!(benches, translation);
criterion_main!(benches);
