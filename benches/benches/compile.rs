//! What compiling costs, by the size of the region. Criterion's elements are guest instructions.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use emu_benches::bare::{self, CODE, DATA};
use emu_core::exec::region::Source;
use emu_jit::Translator;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// Bytes within which the code ends.
const ROOM: u64 = 4096;

/// A loop of `count` instructions as compilers make them: about one in three accesses memory, one in ten branches.
fn mixed(a: &mut CodeAssembler, count: usize) -> Result<(), IcedError> {
    let mut top = a.create_label();
    a.mov(rbx, DATA)?;
    a.set_label(&mut top)?;
    let mut n = 1;
    while n + 1 < count {
        match n % 10 {
            0 => a.mov(eax, dword_ptr(rbx + rcx * 4 + 16))?,
            1 => a.add(edx, eax)?,
            2 => a.lea(rsi, rdx + rax * 2 + 7)?,
            3 => a.mov(qword_ptr(rbx + 64), rsi)?,
            4 => a.shr(edx, 5)?,
            5 => a.xor(edi, edx)?,
            6 => a.movzx(r8d, byte_ptr(rbx + rdi))?,
            7 => a.imul_2(r8d, edx)?,
            8 => a.cmp(r8d, 1000)?,
            _ => a.je(top)?,
        }
        n += 1;
    }
    a.jmp(top)
}

fn source(count: usize) -> Source {
    let mut cpu = bare::cpu(|a| mixed(a, count));
    cpu.region_at(CODE, CODE + ROOM).expect("the code is flat and in RAM")
}

fn regions(c: &mut Criterion) {
    for level in ["none", "speed"] {
        let mut group = c.benchmark_group(format!("compile/{level}"));
        group.sample_size(20);
        let mut translator = Translator::optimising(level).expect("the host has a compiler");
        for count in [10, 50, 200] {
            let source = source(count);
            let instructions: usize = source.blocks.iter().map(|block| block.insns.len()).sum();
            group.throughput(Throughput::Elements(instructions as u64));
            group.bench_function(BenchmarkId::from_parameter(count), |b| {
                b.iter(|| translator.compile(black_box(&source)).map_or(0, |region| region.size()));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, regions);
criterion_main!(benches);
