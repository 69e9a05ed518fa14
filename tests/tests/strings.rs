//! String instructions: the page-wise fast path against element-wise moves, faults and interruptions in the middle.

use emu_core::cpu::fault;
use emu_core::cpu::regs::{RAX, RCX, RDI, RSI};
use emu_core::cpu::rflags::{DF, TF, ZF};
use emu_tests::machine::*;
use iced_x86::code_asm::*;

const RF: u64 = emu_core::cpu::rflags::RF;

/// What REP MOVS of `count` elements of `size` bytes must do to `memory`.
fn reference(memory: &mut [u8], from: usize, to: usize, size: usize, count: usize, down: bool) {
    for n in 0..count {
        let (f, t) = if down { (from - n * size, to - n * size) } else { (from + n * size, to + n * size) };
        let element = memory[f..f + size].to_vec();
        memory[t..t + size].copy_from_slice(&element);
    }
}

fn rep_movs(a: &mut CodeAssembler, size: usize) -> Result<(), iced_x86::IcedError> {
    match size {
        1 => a.rep().movsb(),
        2 => a.rep().movsw(),
        4 => a.rep().movsd(),
        _ => a.rep().movsq(),
    }
}

#[test]
fn movs_any_overlap_matches_element_wise_moves() {
    let mut random = fastrand::Rng::with_seed(1);
    for round in 0..400 {
        let mut m = Machine::new_long();
        let size = [1, 2, 4, 8][round % 4];
        let down = random.u8(0..4) == 0;
        let count = random.usize(0..3000);
        let near = random.bool();
        let mut memory: Vec<u8> = (0..0x2_0000).map(|_| random.u8(..)).collect();
        let from = 0xa000 + random.usize(0..0x2000);
        let to = if near { from + random.usize(0..40) - 20 } else { 0xa000 + random.usize(0..0x4000) };
        let (from, to) = if down { (from, to) } else { (from - 0x8000, to - 0x8000) };
        m.write(FREE, &memory);
        m.assemble(64, CODE, |a| {
            if down {
                a.std()?;
            }
            rep_movs(a, size)?;
            a.hlt()
        });
        m.set_reg(RSI, FREE + from as u64);
        m.set_reg(RDI, FREE + to as u64);
        m.set_reg(RCX, count as u64);
        m.run();
        reference(&mut memory, from, to, size, count, down);
        let mut got = vec![0; memory.len()];
        m.memory.read(FREE, &mut got);
        assert!(got == memory, "size {size}, count {count}, from {from:#x}, to {to:#x}, down {down}");
        let moved = (count * size) as u64;
        let moved = if down { moved.wrapping_neg() } else { moved };
        assert_eq!(m.reg(RCX), 0);
        assert_eq!(m.reg(RSI), (FREE + from as u64).wrapping_add(moved));
        assert_eq!(m.reg(RDI), (FREE + to as u64).wrapping_add(moved));
    }
}

#[test]
fn stos_every_width_fills_exactly_its_range() {
    for size in [1usize, 2, 4, 8] {
        let mut m = Machine::new_long();
        let count = 2000;
        m.assemble(64, CODE, |a| {
            match size {
                1 => a.rep().stosb()?,
                2 => a.rep().stosw()?,
                4 => a.rep().stosd()?,
                _ => a.rep().stosq()?,
            }
            a.hlt()
        });
        m.set_reg(RAX, 0x8877_6655_4433_2211);
        m.set_reg(RDI, FREE + 3);
        m.set_reg(RCX, count);
        m.run();
        let mut got = vec![0; size * count as usize + 6];
        m.memory.read(FREE, &mut got);
        let pattern = 0x8877_6655_4433_2211u64.to_le_bytes();
        for (n, byte) in got.iter().enumerate() {
            let inside = (3..got.len() - 3).contains(&n);
            assert_eq!(*byte, if inside { pattern[(n - 3) % size] } else { 0 }, "size {size}, byte {n}");
        }
        assert_eq!(m.reg(RDI), FREE + 3 + size as u64 * count);
    }
}

#[test]
fn movs_16_bit_address_wraps_at_64_kib() {
    let mut m = Machine::new(2);
    m.write(0x9_fffc, b"abcd");
    m.write(0x9_0000, b"efgh");
    m.assemble(16, CODE, |a| {
        a.mov(ax, 0x9000)?;
        a.mov(ds, ax)?;
        a.mov(ax, 0x7000)?;
        a.mov(es, ax)?;
        a.mov(si, 0xfffc)?;
        a.mov(di, 0xfffe)?;
        a.mov(cx, 8)?;
        a.rep().movsb()?;
        a.hlt()
    });
    m.run();
    assert_eq!(m.read::<2>(0x7_fffe), *b"ab");
    assert_eq!(m.read::<6>(0x7_0000), *b"cdefgh");
    assert_eq!(m.reg(RSI) & 0xffff, 4);
    assert_eq!(m.reg(RDI) & 0xffff, 6);
}

#[test]
fn movs_page_fault_leaves_state_of_last_finished_iteration() {
    let mut m = Machine::new_long();
    // The second page of the destination is not present.
    let table = PAGE_TABLES + 0x3000;
    for n in 0..512u64 {
        m.write64(table + 8 * n, n << 12 | 7);
    }
    m.write64(PAGE_TABLES + 0x2000, table | 7);
    m.write64(table + 8 * (FREE / 0x1000 + 1), 0);
    m.cpu.flush_tlb(false);
    m.write(FREE + 0x8000, &[0x5a; 0x2000]);
    m.assemble(64, CODE, |a| a.rep().movsd());
    m.set_reg(RSI, FREE + 0x8000);
    m.set_reg(RDI, FREE + 2);
    m.set_reg(RCX, 0x700);
    assert_eq!(m.run_to_fault(), fault::PF);
    // 1023 elements fit; the next one crosses into the missing page and must not be written in part.
    assert_eq!(m.reg(RCX), 0x700 - 1023);
    assert_eq!(m.reg(RDI), FREE + 2 + 4 * 1023);
    assert_eq!(m.reg(RSI), FREE + 0x8000 + 4 * 1023);
    assert_eq!(m.read::<4>(FREE + 0xffc), [0x5a, 0x5a, 0, 0]);
    assert_eq!(m.cpu.state.cr2, FREE + 0x1000);
    assert_eq!(m.pushed(0), 2, "error code: write, not present, supervisor");
    assert_eq!(m.pushed(1), CODE, "RIP of the instruction itself");
    assert_ne!(m.pushed(3) & RF, 0, "RF in the flags of a fault");
}

#[test]
fn movs_limit_violation_stops_at_the_limit() {
    let mut m = Machine::new_protected();
    m.set_descriptor(FREE_SELECTOR, descriptor(FREE as u32, 99, 0x93, DB));
    m.assemble(32, CODE, |a| {
        a.mov(eax, u32::from(FREE_SELECTOR))?;
        a.mov(es, eax)?;
        a.mov(ecx, 1000)?;
        a.xor(edi, edi)?;
        a.mov(esi, (FREE + 0x1000) as u32)?;
        a.rep().movsw()
    });
    m.write(FREE + 0x1000, &[7; 200]);
    assert_eq!(m.run_to_fault(), fault::GP);
    assert_eq!(m.pushed(0), 0);
    assert_eq!(m.reg(RDI), 100);
    assert_eq!(m.reg(RCX), 950);
    assert_eq!(m.read::<2>(FREE + 99), [7, 0]);
}

#[test]
fn repe_cmps_stops_behind_the_difference() {
    for size in [1u64, 2, 4, 8] {
        for differs_at in [0u64, 1, 63, 300, 999] {
            let mut m = Machine::new_long();
            m.write(FREE, &[9; 0x2100]);
            m.write(FREE + 0x4000, &[9; 0x2100]);
            m.write(FREE + 5 + differs_at * size + size - 1, &[1]);
            m.assemble(64, CODE, |a| {
                match size {
                    1 => a.repe().cmpsb()?,
                    2 => a.repe().cmpsw()?,
                    4 => a.repe().cmpsd()?,
                    _ => a.repe().cmpsq()?,
                }
                a.hlt()
            });
            m.set_reg(RSI, FREE + 5);
            m.set_reg(RDI, FREE + 0x4000 + 11);
            m.set_reg(RCX, 1000);
            m.run();
            assert_eq!(m.reg(RCX), 1000 - differs_at - 1);
            assert_eq!(m.reg(RSI), FREE + 5 + (differs_at + 1) * size);
            let flags = m.cpu.state.rflags();
            assert_eq!(flags & (ZF | 1), 1, "1 is below 9");
        }
    }
}

#[test]
fn repne_scas_finds_the_terminator() {
    for distance in [0u64, 1, 100, 255, 256, 5000] {
        let mut m = Machine::new_protected();
        m.write(FREE + 7, &vec![b'x'; distance as usize]);
        m.assemble(32, CODE, |a| {
            a.mov(edi, (FREE + 7) as u32)?;
            a.mov(ecx, -1)?;
            a.xor(eax, eax)?;
            a.repne().scasb()?;
            a.hlt()
        });
        m.run();
        assert_eq!(m.reg(RDI), FREE + 7 + distance + 1);
        assert_eq!(m.reg(RCX), u64::from(u32::MAX) - distance - 1);
        assert_ne!(m.cpu.state.rflags() & ZF, 0);
    }
}

#[test]
fn rep_count_zero_changes_nothing() {
    let mut m = Machine::new_long();
    m.assemble(64, CODE, |a| {
        a.mov(rdi, 0x1234_5678_9abc_def0u64)?;
        a.mov(rcx, 0xffff_ffff_0000_0000u64)?;
        // 32-bit addresses: the count is ECX.
        a.db(&[0x67, 0xf3, 0xaa])?;
        a.hlt()
    });
    m.run();
    assert_eq!(m.reg(RDI), 0x1234_5678_9abc_def0);
    assert_eq!(m.reg(RCX), 0xffff_ffff_0000_0000);
}

#[test]
fn rep_under_tf_traps_after_each_iteration() {
    let mut m = Machine::new_protected();
    m.assemble(32, CODE, |a| {
        a.mov(ecx, 3)?;
        a.mov(edi, FREE as u32)?;
        a.pushfd()?;
        a.or(dword_ptr(esp), TF as u32)?;
        a.popfd()?;
        a.rep().stosb()?;
        a.nop()?;
        a.int(0x80)
    });
    // The handler counts traps and notes ECX of each.
    m.assemble(32, HANDLERS + 16 * u64::from(fault::DB), |a| {
        a.mov(dword_ptr(FREE as u32 + 0x100 + ebx * 4), ecx)?;
        a.inc(ebx)?;
        a.iretd()
    });
    assert_eq!(m.run_to_fault(), 0x80);
    // Three iterations and the NOP.
    assert_eq!(m.reg(3), 4);
    assert_eq!([0, 4, 8, 12].map(|n| m.read32(FREE + 0x100 + n)), [2, 1, 0, 0]);
}

#[test]
fn stos_over_the_following_instruction_runs_the_new_bytes() {
    let mut m = Machine::new_protected();
    m.assemble(32, CODE, |a| {
        a.mov(eax, 0x9090_9090u32)?;
        a.mov(ecx, 2)?;
        a.lea(edi, dword_ptr(CODE as u32 + 0x40))?;
        a.jmp(CODE + 0x3e)
    });
    m.assemble(32, CODE + 0x3e, |a| {
        a.rep().stosd()?;
        // Overwritten by NOPs before it runs.
        a.mov(ebx, 1)?;
        a.hlt()
    });
    m.write(CODE + 0x48, &[0xf4]);
    m.run();
    assert_eq!(m.reg(3), 0);
}

#[test]
fn movs_down_with_df_copies_backwards() {
    let mut m = Machine::new_protected();
    m.cpu.state.system_flags |= DF;
    m.write(FREE, &[1, 2, 3, 4]);
    m.assemble(32, CODE, |a| {
        a.mov(esi, (FREE + 3) as u32)?;
        a.mov(edi, (FREE + 4) as u32)?;
        a.mov(ecx, 4)?;
        a.rep().movsb()?;
        a.hlt()
    });
    m.run();
    assert_eq!(m.read::<5>(FREE), [1, 1, 2, 3, 4]);
}

#[test]
fn movs_between_pages_that_compete_for_a_tlb_entry_copies_all() {
    // 4 MiB apart: the same entry of the TLB.
    let mut m = Machine::new(16);
    m.long();
    m.catch_all();
    let mut random = fastrand::Rng::with_seed(2);
    let source: Vec<u8> = (0..0x3000).map(|_| random.u8(..)).collect();
    m.write(0x40_0800, &source);
    m.assemble(64, CODE, |a| {
        a.rep().movsd()?;
        a.hlt()
    });
    m.set_reg(RSI, 0x40_0800);
    m.set_reg(RDI, 0x80_0801);
    m.set_reg(RCX, 0x3000 / 4);
    m.run();
    let mut got = vec![0; 0x3000];
    m.memory.read(0x80_0801, &mut got);
    assert!(got == source);
    assert_eq!(m.reg(RDI), 0x80_3801);
}

#[test]
fn movs_onto_decoded_code_runs_the_new_code() {
    let mut m = Machine::new_protected();
    let target = FREE + 0x100;
    m.assemble(32, target, |a| {
        a.mov(ebx, 1)?;
        a.ret()
    });
    m.assemble(32, FREE + 0x1100, |a| {
        a.mov(ebx, 2)?;
        a.ret()
    });
    m.assemble(32, CODE, |a| {
        a.mov(eax, target as u32)?;
        a.call(eax)?;
        a.mov(esi, (FREE + 0x1100) as u32)?;
        a.mov(edi, target as u32)?;
        a.mov(ecx, 6)?;
        a.rep().movsb()?;
        a.call(eax)?;
        a.hlt()
    });
    m.run();
    assert_eq!(m.reg(3), 2);
}

/// The two tiers do not have the same in the TLB, but have to come to the same virtual time.
#[test]
fn repetitions_cost_the_same_whatever_the_tlb_has() {
    let mut m = Machine::new_long();
    m.assemble(64, CODE, |a| {
        for distance in [0x3000, 24] {
            a.mov(esi, FREE as u32)?;
            a.mov(edi, FREE as u32 + distance)?;
            a.mov(ecx, 2500)?;
            a.rep().movsd()?;
        }
        a.mov(edi, FREE as u32)?;
        a.mov(eax, 0x1234_5678)?;
        a.mov(ecx, 1500)?;
        a.rep().stosd()?;
        a.mov(edi, FREE as u32)?;
        a.mov(ecx, 1500)?;
        a.repe().scasd()?;
        a.mov(esi, FREE as u32)?;
        a.mov(edi, FREE as u32)?;
        a.mov(ecx, 1500)?;
        a.repe().cmpsd()?;
        a.hlt()
    });
    let [cold, warm, flushed] = [true, false, true].map(|flush| {
        if flush {
            m.cpu.flush_tlb(false);
        }
        m.cpu.state.rip = CODE;
        m.run();
        m.cpu.executed()
    });
    assert_eq!((cold, cold), (warm, flushed));
    // 38,000 bytes, 64 of them a unit.
    assert!(cold > 38_000 / 64, "{cold}");
}
