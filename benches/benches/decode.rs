//! What a block costs before it first runs: decoding and specialising.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use emu_benches::bare;
use emu_core::decode::block::{self, Decoding};
use iced_x86::code_asm::*;

/// Straight-line code as compilers make it, 32 instructions.
fn code() -> Vec<u8> {
    let mut assembler = CodeAssembler::new(64).expect("64 is a code size");
    (0..4)
        .try_for_each(|n| {
            let a = &mut assembler;
            a.push(rbx)?;
            a.mov(rbx, rdi)?;
            a.mov(eax, dword_ptr(rbx + 8 * n))?;
            a.lea(rcx, qword_ptr(rbx + rax * 4 + 16))?;
            a.add(eax, 0x1234)?;
            a.movzx(edx, al)?;
            a.mov(qword_ptr(rsp + 24), rcx)?;
            a.pop(rbx)
        })
        .and_then(|()| assembler.assemble(bare::CODE))
        .expect("the program is correct")
}

fn decode(c: &mut Criterion) {
    let cpu = bare::cpu(|a| a.nop());
    let code = code();
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(32));
    group.bench_function("block_of_32", |bencher| {
        bencher.iter(|| block::decode(Decoding::of(black_box(&cpu)), bare::CODE as usize, black_box(&code)));
    });
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
