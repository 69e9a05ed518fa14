//! How many host instructions compiled code takes for loops that guests are full of, against the table `tests/idioms.txt`: so
//! that a change which makes them longer is seen, and one that makes them shorter is recorded.
//!
//! ```text
//!  BLESS=1 cargo test -p emu-tests --test idioms     writes the table anew, where the change is as it should be
//! ```
//! The code is made for a baseline of x86-64 processors and not run, so the table is the same on every such host.

#![cfg(target_arch = "x86_64")]

use emu_core::cpu::model::CpuModel;
use emu_jit::Translator;
use emu_tests::lockstep::{CODE, processor};
use iced_x86::code_asm::*;
use iced_x86::{Decoder, DecoderOptions, FlowControl, IcedError, Instruction};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What the counts of an idiom may differ by without being a change: 5 %, but at least one instruction.
const TOLERANCE: usize = 20;

/// A loop: it is given the label of its first instruction and ends with a branch there.
type Body = fn(&mut CodeAssembler, CodeLabel) -> Result<(), IcedError>;

/// A guest's loop.
struct Idiom {
    name: &'static str,
    bits: u32,
    body: Body,
}

const IDIOMS: &[Idiom] = &[
    Idiom {
        name: "load_add_store_32",
        bits: 32,
        body: |a, top| {
            a.mov(eax, dword_ptr(esi))?;
            a.add(eax, dword_ptr(edi))?;
            a.mov(dword_ptr(edi), eax)?;
            a.add(esi, 4)?;
            a.add(edi, 4)?;
            a.dec(ecx)?;
            a.jne(top)
        },
    },
    Idiom {
        name: "load_add_store_64",
        bits: 64,
        body: |a, top| {
            a.mov(rax, qword_ptr(rsi))?;
            a.add(rax, qword_ptr(rdi))?;
            a.mov(qword_ptr(rdi), rax)?;
            a.add(rsi, 8)?;
            a.add(rdi, 8)?;
            a.dec(ecx)?;
            a.jne(top)
        },
    },
    Idiom {
        name: "read_modify_write",
        bits: 64,
        body: |a, top| {
            a.add(dword_ptr(rbx + 8), eax)?;
            a.inc(qword_ptr(rsi + rcx * 8))?;
            a.dec(ecx)?;
            a.jne(top)
        },
    },
    Idiom {
        name: "fields_of_a_structure",
        bits: 64,
        body: |a, top| {
            a.mov(rax, qword_ptr(rbx + 8))?;
            a.mov(rdx, qword_ptr(rbx + 16))?;
            a.add(rax, rdx)?;
            a.mov(qword_ptr(rbx + 24), rax)?;
            a.mov(rbx, qword_ptr(rbx))?;
            a.test(rbx, rbx)?;
            a.jne(top)
        },
    },
    Idiom {
        name: "compare_and_branch",
        bits: 64,
        body: |a, top| {
            let mut skip = a.create_label();
            a.cmp(eax, ebx)?;
            a.jl(skip)?;
            a.inc(edx)?;
            a.set_label(&mut skip)?;
            a.add(eax, 3)?;
            a.dec(ecx)?;
            a.jne(top)
        },
    },
    Idiom {
        name: "call_and_return",
        bits: 64,
        body: |a, top| {
            let (mut function, mut over) = (a.create_label(), a.create_label());
            a.call(function)?;
            a.dec(ecx)?;
            a.jne(top)?;
            a.jmp(over)?;
            a.set_label(&mut function)?;
            a.lea(eax, rax + rbx)?;
            a.ret()?;
            a.set_label(&mut over)
        },
    },
    Idiom {
        name: "push_and_pop",
        bits: 64,
        body: |a, top| {
            a.push(rax)?;
            a.push(rbx)?;
            a.pop(rax)?;
            a.pop(rbx)?;
            a.dec(ecx)?;
            a.jne(top)
        },
    },
    Idiom {
        name: "search_for_a_byte",
        bits: 64,
        body: |a, top| {
            a.movzx(eax, byte_ptr(rsi))?;
            a.inc(rsi)?;
            a.test(al, al)?;
            a.jne(top)
        },
    },
    Idiom {
        name: "shifts_and_carry",
        bits: 64,
        body: |a, top| {
            a.shl(eax, 1)?;
            a.adc(edx, edx)?;
            a.rol(ebx, 5)?;
            a.shr(edi, cl)?;
            a.xor(eax, ebx)?;
            a.dec(ecx)?;
            a.jne(top)
        },
    },
    Idiom {
        name: "conditions_as_values",
        bits: 64,
        body: |a, top| {
            a.cmp(eax, ebx)?;
            a.setg(dl)?;
            a.cmovl(eax, ebx)?;
            a.sub(esi, edi)?;
            a.sbb(edi, edi)?;
            a.dec(ecx)?;
            a.jne(top)
        },
    },
    Idiom {
        name: "multiply_and_divide",
        bits: 64,
        body: |a, top| {
            a.imul_3(eax, eax, 7)?;
            a.xor(edx, edx)?;
            a.div(ebx)?;
            a.dec(ecx)?;
            a.jne(top)
        },
    },
    Idiom {
        name: "copy_by_16_bytes",
        bits: 64,
        body: |a, top| {
            a.movdqu(xmm0, xmmword_ptr(rsi))?;
            a.movdqu(xmmword_ptr(rdi), xmm0)?;
            a.add(rsi, 16)?;
            a.add(rdi, 16)?;
            a.sub(rcx, 1)?;
            a.jne(top)
        },
    },
    Idiom {
        name: "sum_of_products",
        bits: 64,
        body: |a, top| {
            a.movsd_2(xmm0, qword_ptr(rsi + rax * 8))?;
            a.mulsd(xmm0, qword_ptr(rdi + rax * 8))?;
            a.addsd(xmm1, xmm0)?;
            a.inc(rax)?;
            a.cmp(rax, rbx)?;
            a.jb(top)
        },
    },
    Idiom {
        name: "packed_bytes",
        bits: 64,
        body: |a, top| {
            a.movdqa(xmm0, xmmword_ptr(rsi))?;
            a.pcmpeqb(xmm0, xmm1)?;
            a.pmovmskb(eax, xmm0)?;
            a.add(rsi, 16)?;
            a.test(eax, eax)?;
            a.je(top)
        },
    },
    Idiom {
        name: "x87_sum_of_products",
        bits: 32,
        body: |a, top| {
            a.fld(qword_ptr(esi))?;
            a.fmul(qword_ptr(edi))?;
            a.faddp(st1, st0)?;
            a.add(esi, 8)?;
            a.add(edi, 8)?;
            a.dec(ecx)?;
            a.jne(top)
        },
    },
    Idiom {
        name: "string_load_and_store",
        bits: 32,
        body: |a, top| {
            a.lodsb()?;
            a.xor(al, dl)?;
            a.stosb()?;
            a.dec(ecx)?;
            a.jne(top)
        },
    },
    Idiom {
        name: "checksum_by_loop",
        bits: 32,
        body: |a, top| {
            a.lodsw()?;
            a.add(dx, ax)?;
            a.adc(dx, 0)?;
            a.loop_(top)
        },
    },
    Idiom {
        name: "digits_of_a_word",
        bits: 32,
        body: |a, top| {
            a.mov(edx, 0)?;
            a.div(bx)?;
            a.mov(byte_ptr(edi), dl)?;
            a.dec(edi)?;
            a.test(ax, ax)?;
            a.jne(top)
        },
    },
    Idiom {
        name: "long_addition",
        bits: 64,
        body: |a, top| {
            a.mov(rax, qword_ptr(rsi + rcx * 8))?;
            a.adc(rax, qword_ptr(rdi + rcx * 8))?;
            a.mov(qword_ptr(rbx + rcx * 8), rax)?;
            a.cmc()?;
            a.inc(rcx)?;
            a.jne(top)
        },
    },
    Idiom {
        name: "bit_fields",
        bits: 64,
        body: |a, top| {
            a.shlx(rax, rbx, rcx)?;
            a.andn(rdx, rsi, rax)?;
            a.bzhi(rdx, rdx, rdi)?;
            a.blsr(rbx, rbx)?;
            a.jne(top)
        },
    },
    Idiom {
        name: "exchange_of_a_pair",
        bits: 64,
        body: |a, top| {
            a.lea(rbx, rax + 64)?;
            a.lea(rcx, rdx + 1)?;
            a.cmpxchg16b(xmmword_ptr(rsi))?;
            a.jne(top)
        },
    },
    Idiom {
        name: "flags_saved",
        bits: 64,
        body: |a, top| {
            a.pushfq()?;
            a.pop(rax)?;
            a.test(eax, 0x200)?;
            a.jne(top)
        },
    },
    Idiom {
        name: "locked_exchange",
        bits: 64,
        body: |a, top| {
            a.mov(eax, dword_ptr(rbx))?;
            a.lea(edx, rax + 1)?;
            a.lock().cmpxchg(dword_ptr(rbx), edx)?;
            a.jne(top)
        },
    },
];

/// What an idiom takes.
struct Counts {
    /// Guest instructions of the region.
    guest: usize,
    /// Host instructions of the shortest way around the loop.
    around: usize,
    /// Host instructions of the region.
    all: usize,
}

fn counts(translator: &mut Translator, idiom: &Idiom) -> Counts {
    let code = || -> Result<Vec<u8>, IcedError> {
        let mut a = CodeAssembler::new(idiom.bits)?;
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        (idiom.body)(&mut a, top)?;
        // Where the loop ends.
        a.hlt()?;
        a.assemble(CODE)
    };
    let code = code().expect("a loop that can be encoded");
    let mut cpu = processor(CpuModel::max(), &code, idiom.bits, &[]);
    // Without the HLT, which only the interpreter executes.
    let source = cpu.region_at(CODE, CODE + code.len() as u64 - 1).expect("flat code in RAM");
    let listing = translator.listing(&source).unwrap_or_else(|problem| panic!("{}: {problem}", idiom.name));
    let bytes: Vec<u8> = listing.host.into_iter().flat_map(|(_, code)| code).collect();
    let host: Vec<Instruction> = Decoder::with_ip(64, &bytes, 0, DecoderOptions::NONE).into_iter().collect();
    let guest = source.blocks.iter().map(|block| block.insns.len()).sum();
    Counts { guest, around: around(&host).unwrap_or_else(|| panic!("{}: no loop", idiom.name)), all: host.len() }
}

/// The length of the loop: of the shortest way from its first instruction, the first that anything branches back to, to
/// itself. Ways by which pages are new or something is due are longer, or lead out of the region.
fn around(host: &[Instruction]) -> Option<usize> {
    let find = |ip: u64| host.binary_search_by_key(&ip, Instruction::ip).ok();
    let branch = |insn: &Instruction| match insn.flow_control() {
        FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => find(insn.near_branch_target()),
        _ => None,
    };
    let tops = host.iter().enumerate().filter_map(|(at, insn)| branch(insn).filter(|target| *target <= at));
    let top = tops.min()?;
    let (mut reached, mut edge) = (vec![false; host.len()], vec![top]);
    for count in 1..=host.len() {
        let mut next = Vec::new();
        for at in edge {
            let falls = match host[at].flow_control() {
                FlowControl::Next | FlowControl::ConditionalBranch | FlowControl::Call | FlowControl::IndirectCall => {
                    (at + 1 < host.len()).then_some(at + 1)
                }
                _ => None,
            };
            next.extend(
                branch(&host[at]).into_iter().chain(falls).filter(|to| !std::mem::replace(&mut reached[*to], true)),
            );
        }
        if reached[top] {
            return Some(count);
        }
        edge = next;
    }
    None
}

fn table() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("idioms.txt")
}

/// Whether a count is that of the table, nearly.
fn near(count: usize, recorded: usize) -> bool {
    count.abs_diff(recorded) <= (recorded / TOLERANCE).max(1)
}

#[test]
fn idioms_take_as_many_host_instructions_as_recorded() {
    let mut translator = Translator::baseline().expect("the host is an x86-64 one");
    let found: Vec<Counts> = IDIOMS.iter().map(|idiom| counts(&mut translator, idiom)).collect();
    if std::env::var_os("BLESS").is_some() {
        let mut text =
            String::from("# Written by BLESS=1 cargo test -p emu-tests --test idioms, which explains the columns.\n");
        let _ = writeln!(text, "{:<24}{:>8}{:>8}{:>8}", "# idiom", "guest", "around", "all");
        for (idiom, counts) in IDIOMS.iter().zip(&found) {
            let _ = writeln!(text, "{:<24}{:>8}{:>8}{:>8}", idiom.name, counts.guest, counts.around, counts.all);
        }
        std::fs::write(table(), text).expect("the table can be written");
        return;
    }
    let text = std::fs::read_to_string(table()).expect("the table is part of the source");
    let recorded: Vec<Vec<&str>> =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_whitespace().collect()).collect();
    let names: Vec<&str> = recorded.iter().filter_map(|line| line.first().copied()).collect();
    let expected: Vec<&str> = IDIOMS.iter().map(|idiom| idiom.name).collect();
    assert_eq!(names, expected, "tests/idioms.txt is of other idioms: BLESS=1 writes it anew");
    let mut differences = String::new();
    for (counts, line) in found.iter().zip(&recorded) {
        let numbers: Vec<usize> = line[1..].iter().map(|word| word.parse().expect("a number")).collect();
        if counts.guest != numbers[0] || !near(counts.around, numbers[1]) || !near(counts.all, numbers[2]) {
            let now = [counts.guest, counts.around, counts.all];
            let _ = writeln!(differences, "{}: {now:?} instead of {numbers:?}", line[0]);
        }
    }
    assert!(
        differences.is_empty(),
        "guest, loop and region in instructions differ; if that is meant: BLESS=1 cargo test -p emu-tests --test idioms\n{differences}"
    );
}
