//! Code that changes code: the next instruction, an earlier one, another function, through an alias, by DMA.
//!
//! Each store has to be seen by the very next instruction that executes, as on real processors since the Pentium Pro
//! (SDM Vol. 3A 9.1.3 asks for a jump in between; processors do without), whatever has been decoded, fused or linked.

use emu_core::cpu::fault;
use emu_core::cpu::regs::{RAX, RBX, RCX, RDX, RSP};
use emu_tests::machine::*;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// A function that the program below calls after each change.
const FUNCTION: u64 = FREE;
/// What the program copies into it, [`SLOT`] bytes a version.
const VERSIONS: u64 = FREE + 0x1000;
const SLOT: u64 = 16;

/// Runs `program` in 64-bit mode with the ordinary and with the one-by-one way of execution; RAX and RDX of both.
fn both(setup: impl Fn(&mut Machine), program: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>) -> (u64, u64) {
    let [fast, slow] = [false, true].map(|single_steps| {
        let mut m = Machine::new_long();
        m.cpu.single_steps = single_steps;
        setup(&mut m);
        m.assemble(64, CODE, &program);
        m.run();
        assert_eq!(m.caught(), None, "{}", m.cpu.registers());
        (m.reg(RAX), m.reg(RDX))
    });
    assert_eq!(fast, slow);
    fast
}

fn assembled(program: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let mut a = CodeAssembler::new(64).unwrap();
    program(&mut a).unwrap();
    a.assemble(FUNCTION).unwrap()
}

/// Copies each version in turn over the function and calls it, `rounds` times over; RAX and RDX at the end.
fn alternate(rounds: u32, versions: &[Vec<u8>]) -> (u64, u64) {
    let count = versions.len() as u32;
    both(
        |m| {
            for (n, version) in versions.iter().enumerate() {
                assert!(version.len() <= SLOT as usize);
                m.write(VERSIONS + SLOT * n as u64, version);
            }
        },
        |a| {
            let (mut top, mut next) = (a.create_label(), a.create_label());
            a.xor(eax, eax)?;
            a.xor(edx, edx)?;
            a.mov(r8d, rounds)?;
            a.set_label(&mut top)?;
            a.xor(ebx, ebx)?;
            a.set_label(&mut next)?;
            a.mov(ecx, ebx)?;
            a.shl(ecx, 4)?;
            a.mov(r9, qword_ptr(rcx + VERSIONS))?;
            a.mov(r10, qword_ptr(rcx + (VERSIONS + 8)))?;
            a.mov(qword_ptr(FUNCTION), r9)?;
            a.mov(qword_ptr(FUNCTION + 8), r10)?;
            a.mov(ecx, FUNCTION as u32)?;
            a.call(rcx)?;
            a.inc(ebx)?;
            a.cmp(ebx, count)?;
            a.jb(next)?;
            a.dec(r8d)?;
            a.jne(top)?;
            a.hlt()
        },
    )
}

#[test]
fn changed_operand_is_seen_at_each_call() {
    let add = |n: u32| {
        assembled(|a| {
            a.add(eax, n as i32)?;
            a.ret()
        })
    };
    assert_eq!(alternate(50, &[add(0x1000), add(0x2000), add(0x0400_0000)]).0, 50 * 0x0400_3000);
}

#[test]
fn changed_immediates_of_every_size_are_seen_with_their_sign() {
    // A store into the immediate alone before each call: bytes of a word, a doubleword, and one that is sign-extended.
    let patched = |code: &[u8], at: u64, size: u64, values: [u32; 3]| {
        let (sum, _) = both(
            |m| m.write(FUNCTION, code),
            |a| {
                a.xor(eax, eax)?;
                a.mov(ecx, FUNCTION as u32)?;
                for value in values.into_iter().cycle().take(12) {
                    a.mov(edx, value)?;
                    match size {
                        1 => a.mov(byte_ptr(FUNCTION + at), dl)?,
                        2 => a.mov(word_ptr(FUNCTION + at), dx)?,
                        _ => a.mov(dword_ptr(FUNCTION + at), edx)?,
                    }
                    a.call(rcx)?;
                }
                a.hlt()
            },
        );
        sum
    };
    // add rax, imm8 / add ax, imm16 / add rax, imm32 / mov eax, imm32 with only its high half stored.
    assert_eq!(patched(&[0x48, 0x83, 0xc0, 0, 0xc3], 3, 1, [0x7f, 0xff, 0x80]), (4 * (127 - 1 - 128i64)) as u64);
    assert_eq!(patched(&[0x66, 0x05, 0, 0, 0xc3], 2, 2, [0x7fff, 0xffff, 3]), (4 * 0x8001) & 0xffff);
    assert_eq!(
        patched(&[0x48, 0x05, 0, 0, 0, 0, 0xc3], 2, 4, [5, u32::MAX - 1, 1 << 31]),
        (4 * (3 - (1i64 << 31))) as u64
    );
    assert_eq!(patched(&[0xb8, 0x34, 0x12, 0, 0, 0xc3], 3, 2, [1, 2, 0x8765]), 0x8765_1234);
}

#[test]
fn changed_operation_of_the_same_length_is_seen() {
    let plus = assembled(|a| {
        a.add(eax, 1000)?;
        a.ret()
    });
    let minus = assembled(|a| {
        a.sub(eax, 1)?;
        a.nop()?;
        a.nop()?;
        a.ret()
    });
    let xor = assembled(|a| {
        a.xor(edx, 0x5555)?;
        a.ret()
    });
    assert_eq!(alternate(31, &[plus, minus, xor]), (31 * 999, 0x5555));
}

#[test]
fn changed_lengths_move_the_instructions_behind() {
    let long = assembled(|a| {
        a.add(eax, 0x1_0000)?;
        a.inc(edx)?;
        a.ret()
    });
    let short = assembled(|a| {
        a.inc(eax)?;
        a.add(edx, 0x100)?;
        a.ret()
    });
    assert_eq!(alternate(20, &[long, short]), (20 * 0x1_0001, 20 * 0x101));
}

#[test]
fn comparison_fused_with_its_jump_changes_in_either_half() {
    // CMP and the jump behind it run as one; each version differs from the one before in one of them.
    let version = |bound: i32, above: bool, compare: bool| {
        assembled(move |a| {
            let mut out = a.create_label();
            if compare {
                a.cmp(ecx, bound)?
            } else {
                a.add(ecx, bound)?
            };
            if above {
                a.ja(out)?
            } else {
                a.jb(out)?
            };
            a.inc(eax)?;
            a.set_label(&mut out)?;
            a.inc(edx)?;
            a.ret()
        })
    };
    // ECX holds the function's address. Not taken, hence counted in EAX: JA on CMP with more; JB on CMP with less; JB on
    // ADD without carry.
    let (more, less) = (0x7fff_ffff, 0x1000);
    let versions = [
        version(more, true, true),
        version(less, true, true),
        version(less, false, true),
        version(more, false, true),
        version(more, false, false),
        version(more, true, false),
    ];
    assert_eq!(alternate(25, &versions), (25 * 3, 25 * 6));
}

#[test]
fn linked_jump_goes_to_its_new_target() {
    let jump = |skip: usize| {
        assembled(move |a| {
            let mut targets: [CodeLabel; 3] = std::array::from_fn(|_| a.create_label());
            a.jmp(targets[skip])?;
            for target in &mut targets {
                a.set_label(target)?;
                a.inc(eax)?;
            }
            a.ret()
        })
    };
    assert_eq!(alternate(30, &[jump(0), jump(2), jump(1)]).0, 30 * 6);
}

#[test]
fn last_instruction_of_a_block_becomes_an_ordinary_one_and_back() {
    let early = assembled(|a| {
        a.inc(eax)?;
        a.ret()?;
        a.inc(edx)?;
        a.ret()
    });
    let late = assembled(|a| {
        a.inc(eax)?;
        a.nop()?;
        a.inc(edx)?;
        a.ret()
    });
    assert_eq!(alternate(40, &[early, late]), (80, 40));
}

#[test]
fn next_instruction_is_overwritten_within_its_block() {
    let (sum, count) = both(
        |_| {},
        |a| {
            let (mut top, mut next) = (a.create_label(), a.create_label());
            a.lea(rbx, qword_ptr(next))?;
            a.xor(eax, eax)?;
            a.xor(edx, edx)?;
            a.mov(ecx, 200)?;
            a.set_label(&mut top)?;
            a.mov(byte_ptr(rbx + 1), cl)?;
            a.set_label(&mut next)?;
            a.add(al, 0)?;
            a.inc(edx)?;
            a.dec(ecx)?;
            a.jne(top)?;
            a.hlt()
        },
    );
    assert_eq!((sum, count), ((200 * 201 / 2) & 0xff, 200));
}

#[test]
fn string_store_over_itself_is_seen_behind_the_repetition() {
    // REP STOSB fills the INC EAX behind it with NOPs.
    let (sum, other) = both(
        |_| {},
        |a| {
            let mut behind = a.create_label();
            a.lea(rdi, qword_ptr(behind))?;
            a.mov(eax, 0x90)?;
            a.mov(ecx, 4)?;
            a.rep().stosb()?;
            a.set_label(&mut behind)?;
            a.inc(eax)?;
            a.inc(eax)?;
            a.mov(edx, 7)?;
            a.hlt()
        },
    );
    assert_eq!((sum, other), (0x90, 7));
}

#[test]
fn store_through_another_mapping_of_the_page_is_seen() {
    let (sum, _) = both(
        |m| {
            // The page of the function also at 1 GiB less 2 MiB.
            m.write64(PAGE_TABLES + 0x2000 + 8 * 511, 0x83);
            m.write(
                FUNCTION,
                &assembled(|a| {
                    a.add(eax, 1)?;
                    a.ret()
                }),
            );
        },
        |a| {
            let mut top = a.create_label();
            a.xor(eax, eax)?;
            a.mov(ecx, 1)?;
            a.mov(edx, FUNCTION as u32)?;
            a.set_label(&mut top)?;
            a.mov(byte_ptr(0x3fe0_0000u64 + FUNCTION + 1), cl)?;
            a.call(rdx)?;
            a.inc(ecx)?;
            a.cmp(ecx, 101)?;
            a.jb(top)?;
            a.hlt()
        },
    );
    assert_eq!(sum, 100 * 101 / 2);
}

#[test]
fn code_is_run_from_where_page_tables_point_now() {
    // Two pages hold different functions; one address leads to them in turn.
    let (sum, other) = both(
        |m| {
            // Page 3fe00000h through a table of 4 KiB pages.
            let table = FREE + 0x8000;
            m.write64(PAGE_TABLES + 0x2000 + 8 * 511, table + 3);
            m.write(
                FREE + 0x2000,
                &assembled(|a| {
                    a.inc(eax)?;
                    a.ret()
                }),
            );
            m.write(
                FREE + 0x3000,
                &assembled(|a| {
                    a.inc(edx)?;
                    a.ret()
                }),
            );
        },
        |a| {
            let mut top = a.create_label();
            a.xor(eax, eax)?;
            a.xor(edx, edx)?;
            a.mov(ecx, 60)?;
            a.mov(ebx, 0x3fe0_0000)?;
            a.mov(esi, (FREE + 0x2003) as u32)?;
            a.set_label(&mut top)?;
            a.mov(qword_ptr(FREE + 0x8000), rsi)?;
            a.invlpg(byte_ptr(rbx))?;
            a.call(rbx)?;
            a.xor(esi, 0x1000)?;
            a.dec(ecx)?;
            a.jne(top)?;
            a.hlt()
        },
    );
    assert_eq!((sum, other), (30, 30));
}

/// Sets page 3fe00000h up: the last bytes of it, in free memory, are `head`, the first of the page behind it `tail`, and of
/// another page that may take its place `other`. The entry for the page behind is at `FREE + 0x8008`.
fn map_crossing(m: &mut Machine, head: &[u8], tail: &[u8], other: &[u8]) {
    let table = FREE + 0x8000;
    m.write64(PAGE_TABLES + 0x2000 + 8 * 511, table + 3);
    m.write64(table, FREE + 0x2003);
    m.write64(table + 8, FREE + 0x3003);
    m.write(FREE + 0x3000 - head.len() as u64, head);
    m.write(FREE + 0x3000, tail);
    m.write(FREE + 0x4000, other);
}

#[test]
fn instruction_across_two_pages_changes_in_its_second_one() {
    // MOV EAX,imm32; RET. The upper half of the immediate lies in the second page, which is one of two in turn; one of
    // these is written to besides.
    let (value, sum) = both(
        |m| map_crossing(m, &[0xb8, 1, 0], &[0, 0, 0xc3], &[1, 0, 0xc3]),
        |a| {
            let mut top = a.create_label();
            a.xor(edx, edx)?;
            a.mov(ecx, 60)?;
            a.mov(ebx, 0x3fe0_0ffd)?;
            a.mov(esi, (FREE + 0x3003) as u32)?;
            a.mov(edi, (FREE + 0x3003) as u32 ^ (FREE + 0x4003) as u32)?;
            a.set_label(&mut top)?;
            a.mov(qword_ptr(FREE + 0x8008), rsi)?;
            a.invlpg(byte_ptr(rbx + 3))?;
            a.call(rbx)?;
            a.add(edx, eax)?;
            a.call(rbx)?;
            a.inc(byte_ptr(FREE + 0x3000))?;
            a.xor(esi, edi)?;
            a.dec(ecx)?;
            a.jne(top)?;
            a.hlt()
        },
    );
    // Every other time what has been written by then: 0, 2, 4 ... 58.
    assert_eq!((value, sum), (0x1_0001, 60 + ((30 * 29 + 30) << 16)));
}

#[test]
fn instruction_across_two_pages_faults_when_its_second_one_goes() {
    let mut m = Machine::new_long();
    map_crossing(&mut m, &[0xb8, 1, 0], &[0, 0, 0xc3], &[]);
    m.assemble(64, CODE, |a| {
        let mut top = a.create_label();
        a.mov(ecx, 10)?;
        a.mov(ebx, 0x3fe0_0ffd)?;
        a.set_label(&mut top)?;
        a.call(rbx)?;
        a.dec(ecx)?;
        a.jne(top)?;
        a.mov(qword_ptr(FREE + 0x8008), ecx)?;
        a.invlpg(byte_ptr(rbx + 3))?;
        a.jmp(rbx)
    });
    assert_eq!(m.run_to_fault(), fault::PF);
    assert_eq!((m.cpu.state.cr2, m.pushed(1)), (0x3fe0_1000, 0x3fe0_0ffd));
}

#[test]
fn write_from_outside_is_seen_at_the_next_run() {
    let mut m = Machine::new_long();
    m.assemble(64, CODE, |a| {
        a.add(eax, 1)?;
        a.hlt()
    });
    m.set_reg(RAX, 0);
    for n in 1..=20u8 {
        m.write8(CODE + 1, n);
        m.cpu.state.rip = CODE;
        m.run();
    }
    assert_eq!(m.reg(RAX), 20 * 21 / 2);
}

#[test]
fn random_changes_execute_as_one_by_one() {
    // Functions of eight three-byte instructions and a RET: before each call one instruction, sometimes two bytes across
    // two of them, is replaced.
    const CHOICES: [[u8; 3]; 10] = [
        [0x83, 0xc0, 0x01], // add eax, 1
        [0x83, 0xea, 0x03], // sub edx, 3
        [0x6b, 0xc0, 0x05], // imul eax, eax, 5
        [0x83, 0xf8, 0x40], // cmp eax, 40h
        [0x90, 0x72, 0x00], // nop; jb +0
        [0x76, 0x01, 0x90], // jbe +1; nop
        [0x0f, 0xc8, 0x90], // bswap eax; nop
        [0x75, 0x01, 0xf8], // jne +1; clc
        [0x31, 0xd0, 0x42], // xor eax, edx; a REX prefix for what follows
        [0x8d, 0x50, 0x11], // lea edx, [rax + 11h]
    ];
    let mut random = fastrand::Rng::with_seed(20);
    for round in 0..20 {
        let changes: Vec<(u64, [u8; 3])> =
            (0..200).map(|_| (random.u64(0..8), CHOICES[random.usize(..CHOICES.len())])).collect();
        let [fast, slow] = [false, true].map(|single_steps| {
            let mut m = Machine::new_long();
            m.cpu.single_steps = single_steps;
            m.write(FUNCTION, &[0x90; 24]);
            m.write(FUNCTION + 24, &[0xc3]);
            m.assemble(64, CODE, |a| {
                let mut top = a.create_label();
                a.set_label(&mut top)?;
                // The change: RBX to where, ESI what.
                a.mov(ebx, dword_ptr(r8))?;
                a.mov(esi, dword_ptr(r8 + 4))?;
                a.mov(word_ptr(rbx), si)?;
                a.shr(esi, 16)?;
                a.mov(byte_ptr(rbx + 2), sil)?;
                a.call(r9)?;
                a.add(r8, 8)?;
                a.dec(r10d)?;
                a.jne(top)?;
                a.hlt()
            });
            for (n, (slot, bytes)) in changes.iter().enumerate() {
                let at = VERSIONS + 8 * n as u64;
                m.write32(at, (FUNCTION + 3 * slot) as u32);
                m.write(at + 4, bytes);
            }
            for (register, value) in [(8, VERSIONS), (9, FUNCTION), (10, changes.len() as u64), (RAX, 1), (RDX, 2)] {
                m.set_reg(register, value);
            }
            m.run();
            (m.caught(), [RAX, RBX, RCX, RDX, RSP, 8, 10].map(|n| m.reg(n)), m.cpu.executed())
        });
        assert_eq!(fast, slow, "round {round}");
    }
}

/// What makes bytes undefined may be the second of them: FE with another operation than INC and DEC.
#[test]
fn undefined_bytes_become_an_instruction_when_a_later_one_changes() {
    let mut m = Machine::new_protected();
    m.write(FUNCTION, &[0xfe, 0xd8, 0xf4]);
    m.assemble(32, CODE, |a| {
        a.mov(byte_ptr(FUNCTION + 1), cl)?;
        a.mov(ebx, FUNCTION as u32)?;
        a.jmp(ebx)
    });
    m.set_reg(RCX, 0xd8);
    assert_eq!(m.run_to_fault(), fault::UD);
    m.cpu.state.rip = CODE;
    m.set_reg(RAX, 6);
    m.set_reg(RCX, 0xc0);
    m.run();
    assert_eq!((m.caught(), m.reg(RAX)), (None, 7));
}
