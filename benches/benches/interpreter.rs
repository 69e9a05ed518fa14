//! Speed of the interpreter on small endless programs. Criterion's elements are guest instructions: 400 Melem/s is the target for
//! integer loops on the class of machine that the project measures on.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use emu_benches::bare::{self, CODE, DATA};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

const INSTRUCTIONS: u64 = 1_000_000;

type Program = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// Register arithmetic, and a loop that ends with a compared branch.
fn arithmetic(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    a.mov(ecx, 1_000_000)?;
    a.set_label(&mut top)?;
    a.lea(rax, rax + rcx * 4 + 7)?;
    a.xor(edx, eax)?;
    a.shl(edx, 3)?;
    a.sub(rbx, rdx)?;
    a.imul_2(esi, edx)?;
    a.add(edi, esi)?;
    a.dec(ecx)?;
    a.jne(top)?;
    a.jmp(CODE)
}

/// Three loads and a store for each pass, within a few pages.
fn memory(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    a.mov(rbx, DATA)?;
    a.set_label(&mut top)?;
    a.mov(eax, dword_ptr(rbx + rcx * 4))?;
    a.add(eax, dword_ptr(rbx + rcx * 4 + 64))?;
    a.xor(eax, dword_ptr(rbx + 8192))?;
    a.mov(dword_ptr(rbx + rcx * 4 + 32), eax)?;
    a.inc(ecx)?;
    a.and(ecx, 1023)?;
    a.jmp(top)
}

/// Calls, returns, pushes and pops.
fn calls(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut top, mut function) = (a.create_label(), a.create_label());
    a.set_label(&mut top)?;
    a.call(function)?;
    a.add(eax, 3)?;
    a.jmp(top)?;
    a.set_label(&mut function)?;
    a.push(rbx)?;
    a.mov(ebx, eax)?;
    a.lea(eax, ebx + 5)?;
    a.pop(rbx)?;
    a.ret()
}

/// Branches that depend on pseudo-random data.
fn branches(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut top, mut odd, mut join) = (a.create_label(), a.create_label(), a.create_label());
    a.set_label(&mut top)?;
    a.imul_3(eax, eax, 1_664_525)?;
    a.add(eax, 1_013_904_223)?;
    a.test(eax, 0x1_0000)?;
    a.jne(odd)?;
    a.add(ebx, eax)?;
    a.jmp(join)?;
    a.set_label(&mut odd)?;
    a.xor(ebx, eax)?;
    a.set_label(&mut join)?;
    a.cmp(ebx, 1000)?;
    a.jae(top)?;
    a.inc(edx)?;
    a.jmp(top)
}

/// An indirect jump through a table of four targets.
fn indirect(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    let mut targets: [CodeLabel; 4] = std::array::from_fn(|_| a.create_label());
    for (n, target) in targets.iter().enumerate() {
        a.lea(rax, qword_ptr(*target))?;
        a.mov(qword_ptr(DATA + 8 * n as u64), rax)?;
    }
    a.mov(rbx, DATA)?;
    a.set_label(&mut top)?;
    a.imul_3(ecx, ecx, 1_664_525)?;
    a.add(ecx, 1_013_904_223)?;
    a.mov(edx, ecx)?;
    a.shr(edx, 30)?;
    a.jmp(qword_ptr(rbx + rdx * 8))?;
    for target in &mut targets {
        a.set_label(target)?;
        a.inc(esi)?;
        a.jmp(top)?;
    }
    Ok(())
}

/// Scalar double precision.
fn sse_scalar(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    a.mov(eax, 3)?;
    a.cvtsi2sd(xmm0, eax)?;
    a.cvtsi2sd(xmm1, eax)?;
    a.set_label(&mut top)?;
    a.movapd(xmm2, xmm0)?;
    a.mulsd(xmm2, xmm1)?;
    a.addsd(xmm2, xmm1)?;
    a.subsd(xmm2, xmm0)?;
    a.divsd(xmm2, xmm1)?;
    a.jmp(top)
}

/// x87 arithmetic.
fn x87(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    a.fninit()?;
    a.fldpi()?;
    a.fld1()?;
    a.set_label(&mut top)?;
    a.fadd_2(st0, st1)?;
    a.fmul_2(st0, st1)?;
    a.fsub_2(st0, st1)?;
    a.fdiv_2(st0, st1)?;
    a.jmp(top)
}

/// Integer SIMD.
fn sse_integer(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    a.mov(rbx, DATA)?;
    a.set_label(&mut top)?;
    a.movdqa(xmm0, xmmword_ptr(rbx))?;
    a.paddw(xmm0, xmm1)?;
    a.pmullw(xmm1, xmm0)?;
    a.punpcklbw(xmm2, xmm0)?;
    a.pxor(xmm2, xmm1)?;
    a.movdqa(xmmword_ptr(rbx + 16), xmm2)?;
    a.jmp(top)
}

/// Changes an operand of a function before each call, as inline caches do.
fn patch_operand(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut top, mut function) = (a.create_label(), a.create_label());
    a.lea(rbx, qword_ptr(function))?;
    a.set_label(&mut top)?;
    a.inc(ecx)?;
    a.mov(byte_ptr(rbx + 1), cl)?;
    a.call(rbx)?;
    a.add(edx, eax)?;
    a.jmp(top)?;
    while a.instructions().len() < 100 {
        a.nop()?;
    }
    a.set_label(&mut function)?;
    a.mov(eax, 0)?;
    a.ret()
}

/// Code that writes into its own next instruction.
fn modify_next(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut top, mut next) = (a.create_label(), a.create_label());
    a.lea(rbx, qword_ptr(next))?;
    a.set_label(&mut top)?;
    a.inc(ecx)?;
    a.mov(byte_ptr(rbx + 1), cl)?;
    a.set_label(&mut next)?;
    a.mov(eax, 0)?;
    a.add(edx, eax)?;
    a.jmp(top)
}

fn programs(c: &mut Criterion) {
    let programs: [(&str, Program); 10] = [
        ("arithmetic", arithmetic),
        ("memory", memory),
        ("calls", calls),
        ("branches", branches),
        ("indirect", indirect),
        ("sse_scalar", sse_scalar),
        ("x87", x87),
        ("sse_integer", sse_integer),
        ("patch_operand", patch_operand),
        ("modify_next", modify_next),
    ];
    let mut group = c.benchmark_group("interpreter");
    group.throughput(Throughput::Elements(INSTRUCTIONS));
    for (name, program) in programs {
        let mut cpu = bare::cpu(program);
        group.bench_function(name, |bencher| bencher.iter(|| bare::run(black_box(&mut cpu), INSTRUCTIONS)));
    }
    group.finish();
}

/// String instructions, by the byte: what REP buys.
fn strings(c: &mut Criterion) {
    const BYTES: u64 = 64 << 10;
    let mut group = c.benchmark_group("strings");
    group.throughput(Throughput::Bytes(BYTES));
    let programs: [(&str, Program); 3] = [
        ("rep_movsb", |a| {
            a.mov(rsi, DATA)?;
            a.mov(rdi, DATA + 2 * BYTES)?;
            a.mov(ecx, BYTES as u32)?;
            a.rep().movsb()?;
            a.jmp(CODE)
        }),
        ("rep_stosq", |a| {
            a.mov(rdi, DATA)?;
            a.mov(ecx, BYTES as u32 / 8)?;
            a.rep().stosq()?;
            a.jmp(CODE)
        }),
        ("repe_cmpsb", |a| {
            a.mov(rsi, DATA)?;
            a.mov(rdi, DATA + 2 * BYTES)?;
            a.mov(ecx, BYTES as u32)?;
            a.repe().cmpsb()?;
            a.jmp(CODE)
        }),
    ];
    for (name, program) in programs {
        let mut cpu = bare::cpu(program);
        // One pass, by however many instructions the engine counts for it: up to the jump that ends it.
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                loop {
                    cpu.run(1);
                    if cpu.state.rip == CODE {
                        break;
                    }
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, programs, strings);
criterion_main!(benches);
