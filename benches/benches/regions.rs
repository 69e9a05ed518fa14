//! Compiled regions against the interpreter, on loops of vector and floating-point code. Criterion's elements are guest
//! instructions.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use emu_benches::bare::{self, DATA};
use emu_jit::Immediate;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

const INSTRUCTIONS: u64 = 1_000_000;

type Program = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// Blends two rows of bytes: unpack, multiply, add, shift, pack.
fn blend(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    a.mov(rbx, DATA)?;
    a.pxor(xmm7, xmm7)?;
    a.set_label(&mut top)?;
    a.movdqa(xmm0, xmmword_ptr(rbx + rcx))?;
    a.movdqa(xmm2, xmmword_ptr(rbx + rcx + 0x4000))?;
    a.movdqa(xmm1, xmm0)?;
    a.movdqa(xmm3, xmm2)?;
    a.punpcklbw(xmm0, xmm7)?;
    a.punpckhbw(xmm1, xmm7)?;
    a.punpcklbw(xmm2, xmm7)?;
    a.punpckhbw(xmm3, xmm7)?;
    a.pmullw(xmm0, xmm5)?;
    a.pmullw(xmm1, xmm5)?;
    a.pmullw(xmm2, xmm6)?;
    a.pmullw(xmm3, xmm6)?;
    a.paddw(xmm0, xmm2)?;
    a.paddw(xmm1, xmm3)?;
    a.psrlw(xmm0, 8)?;
    a.psrlw(xmm1, 8)?;
    a.packuswb(xmm0, xmm1)?;
    a.movdqa(xmmword_ptr(rbx + rcx), xmm0)?;
    a.add(ecx, 16)?;
    a.and(ecx, 0x3fff)?;
    a.jmp(top)
}

/// Adds up products of words.
fn dot_product(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    a.mov(rbx, DATA)?;
    a.set_label(&mut top)?;
    a.movdqu(xmm0, xmmword_ptr(rbx + rcx + 3))?;
    a.pmaddwd(xmm0, xmmword_ptr(rbx + rcx + 0x4000))?;
    a.paddd(xmm1, xmm0)?;
    a.add(ecx, 16)?;
    a.and(ecx, 0x3fff)?;
    a.jmp(top)
}

/// The inner loop of a Mandelbrot set in double precision, on a point that never leaves.
fn mandelbrot(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut top, mut next) = (a.create_label(), a.create_label());
    a.mov(eax, 4)?;
    a.cvtsi2sd(xmm5, eax)?;
    a.mov(eax, -1)?;
    a.cvtsi2sd(xmm6, eax)?;
    a.mov(eax, 3)?;
    a.cvtsi2sd(xmm7, eax)?;
    a.divsd(xmm6, xmm7)?;
    a.divsd(xmm5, xmm7)?;
    a.mulsd(xmm5, xmm7)?;
    a.divsd(xmm7, xmm5)?;
    a.divsd(xmm7, xmm5)?;
    a.set_label(&mut top)?;
    a.movapd(xmm2, xmm0)?;
    a.mulsd(xmm2, xmm2)?;
    a.movapd(xmm3, xmm1)?;
    a.mulsd(xmm3, xmm3)?;
    a.movapd(xmm4, xmm2)?;
    a.addsd(xmm4, xmm3)?;
    a.comisd(xmm4, xmm5)?;
    a.ja(next)?;
    a.mulsd(xmm1, xmm0)?;
    a.addsd(xmm1, xmm1)?;
    a.addsd(xmm1, xmm7)?;
    a.subsd(xmm2, xmm3)?;
    a.movapd(xmm0, xmm2)?;
    a.addsd(xmm0, xmm6)?;
    a.inc(ecx)?;
    a.jne(top)?;
    a.set_label(&mut next)?;
    a.xorpd(xmm0, xmm0)?;
    a.xorpd(xmm1, xmm1)?;
    a.jmp(top)
}

/// `y += a * x` in packed single precision.
fn saxpy(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    a.mov(rbx, DATA)?;
    a.mov(eax, 3)?;
    a.cvtsi2ss(xmm2, eax)?;
    a.shufps(xmm2, xmm2, 0)?;
    a.rcpps(xmm2, xmm2)?;
    a.set_label(&mut top)?;
    a.movaps(xmm0, xmmword_ptr(rbx + rcx))?;
    a.mulps(xmm0, xmm2)?;
    a.addps(xmm0, xmmword_ptr(rbx + rcx + 0x4000))?;
    a.movaps(xmmword_ptr(rbx + rcx + 0x4000), xmm0)?;
    a.add(ecx, 16)?;
    a.and(ecx, 0x3fff)?;
    a.jmp(top)
}

fn programs(c: &mut Criterion) {
    let programs: [(&str, Program); 4] =
        [("blend", blend), ("dot_product", dot_product), ("mandelbrot", mandelbrot), ("saxpy", saxpy)];
    for (tier, compiles) in [("interpreted", false), ("compiled", true)] {
        let mut group = c.benchmark_group(tier);
        group.throughput(Throughput::Elements(INSTRUCTIONS));
        for (name, program) in programs {
            let mut cpu = bare::cpu(program);
            // Values that differ, and whose products do not.
            for n in 0..0x2000u64 {
                cpu.memory.write(DATA + 4 * n, &(1.0 + n as f32 / 8192.0).to_le_bytes());
            }
            if compiles {
                cpu.set_compiler(Some(Box::new(Immediate::new(100).expect("the host has a compiler"))));
            }
            bare::run(&mut cpu, INSTRUCTIONS);
            group.bench_function(name, |b| b.iter(|| bare::run(black_box(&mut cpu), INSTRUCTIONS)));
        }
        group.finish();
    }
}

criterion_group!(benches, programs);
criterion_main!(benches);
