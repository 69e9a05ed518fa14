//! Compiled regions against the interpreter: random programs with loops, calls, faults, self-modification, interrupts and
//! ends of the budget anywhere, run by both in lockstep; after every run all state has to be the same. In half of the
//! programs a fault is the end; the others handle it.
//!
//! ```text
//!  REGION_PROGRAMS=100000   how many programs
//!  REGION_SEED=123          the first one's seed; each has the number of the one before plus one
//! ```

mod generate;

use emu_core::cpu::model::CpuModel;
use emu_core::exec::RunExit;
use emu_core::irq::CpuPins;
use emu_jit::Immediate;
use emu_tests::events;
use emu_tests::lockstep::{CODE, Pair, processor, see, seeds};
use fastrand::Rng;
use iced_x86::code_asm::*;

const DEFAULT_PROGRAMS: u64 = 400;

#[test]
fn random_programs_come_to_the_same_in_both_tiers() {
    let seeds = seeds(DEFAULT_PROGRAMS);
    let count = seeds.end - seeds.start;
    let (mut programs, mut regions, mut evictions, mut total) = (0u64, 0, 0, 0);
    let [mut faults, mut interrupts] = [0; 2];
    for seed in seeds {
        let rng = &mut Rng::with_seed(seed);
        let bits = if rng.bool() { 64 } else { 32 };
        // Some programs have a form that does not exist.
        let handles = rng.bool();
        let Ok((code, blocks)) = generate::program(rng, bits, handles) else { continue };
        programs += 1;
        let data: Vec<u8> = (0..0x8000).map(|_| rng.u8(..)).collect();
        // Some have no room for more than one region: all are given up again and again.
        let (capacity, threshold) =
            if rng.u8(..32) == 0 { (4096, rng.u32(30..100)) } else { (emu_jit::CAPACITY, rng.u32(1..40)) };
        let compiler = Immediate::with_capacity(threshold, capacity).unwrap();
        let mut pair = Pair::new(seed, code, bits, &data, Box::new(compiler));
        for n in 0..16 {
            if !matches!(n, 4 | 5) {
                let value = if rng.bool() { rng.u64(..) } else { rng.u64(..64) }
                    & if bits == 64 { u64::MAX } else { 0xffff_ffff };
                pair.each().into_iter().for_each(|cpu| cpu.state.regs.set_gpr(n, value));
            }
        }
        if handles {
            pair.each().into_iter().for_each(|cpu| events::install(cpu, bits, &blocks));
        }
        let (runs, most) = if handles { (40, 1200) } else { (12, 4000) };
        for _ in 0..runs {
            let pin = [0, CpuPins::INTR, CpuPins::NMI][rng.usize(..if handles { 3 } else { 1 })];
            pair.each().into_iter().for_each(|cpu| cpu.pins.raise(pin));
            if pair.run(rng.u64(1..most), |cpu, exit| (see(cpu, exit), cpu.state.cr2), "") != RunExit::Budget {
                break;
            }
        }
        if handles {
            let [more_faults, more_interrupts] = events::counts(&pair.plain);
            faults += more_faults;
            interrupts += more_interrupts;
        }
        pair.compare_memory();
        total += pair.executed;
        regions += pair.compiled.stats.regions;
        evictions += pair.compiled.stats.region_evictions;
    }
    println!("{programs} programs, {total} instructions, {regions} regions, {evictions} times all were given up");
    println!("{faults} faults and {interrupts} interrupts were handled");
    assert!(count < 100 || (regions > evictions && evictions > 0), "nothing was compiled, or there was room for all");
    assert!(count < 100 || (faults > 1000 && interrupts > 100), "{faults} faults and {interrupts} interrupts");
    assert!(programs > count / 4, "too few programs could be assembled");
}

/// Both ways to the division set flags that the branch behind it reads.
#[test]
fn a_division_leaves_the_flags_alone_in_both_tiers() {
    let code = || -> Result<Vec<u8>, iced_x86::IcedError> {
        let mut a = CodeAssembler::new(32)?;
        let (mut top, mut divide) = (a.create_label(), a.create_label());
        a.set_label(&mut top)?;
        a.inc(ecx)?;
        a.test(cl, 1)?;
        a.je(divide)?;
        a.cmp(ecx, 0)?;
        a.set_label(&mut divide)?;
        a.mov(edx, 0)?;
        a.div(ebx)?;
        a.je(top)?;
        a.inc(esi)?;
        a.jmp(top)?;
        a.assemble(CODE)
    };
    let code = code().unwrap();
    let seen = [false, true].map(|compiles| {
        let mut cpu = processor(CpuModel::max(), &code, 32, &[]);
        cpu.state.regs.set_gpr(3, 1);
        if compiles {
            cpu.set_compiler(Some(Box::new(Immediate::new(1).unwrap())));
        }
        let exit = cpu.run(1000);
        see(&cpu, exit)
    });
    assert_eq!(seen[1], seen[0]);
}

/// There is no IDT, so that a fault shuts the processor down.
#[test]
fn instructions_outside_the_model_are_undefined_in_both_tiers() {
    let code = || -> Result<Vec<u8>, iced_x86::IcedError> {
        let mut a = CodeAssembler::new(32)?;
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        a.inc(eax)?;
        a.cmove(ecx, ebx)?;
        a.jmp(top)?;
        a.assemble(CODE)
    };
    let code = code().unwrap();
    for (model, expected) in [("pentium", RunExit::TripleFault), ("pentium3", RunExit::Budget)] {
        for compiles in [false, true] {
            let mut cpu = processor(CpuModel::parse(model).unwrap(), &code, 32, &[]);
            if compiles {
                cpu.set_compiler(Some(Box::new(Immediate::new(1).unwrap())));
            }
            assert_eq!(cpu.run(1000), expected, "{model}, compiles: {compiles}");
        }
    }
}

#[test]
fn regions_outlive_a_flood_of_other_code() {
    /// More instructions than are kept decoded.
    const FLOOD: usize = 450_000;
    const FLOOD_AT: u64 = 0x10_0000;
    let code = || -> Result<Vec<u8>, iced_x86::IcedError> {
        let mut a = CodeAssembler::new(32)?;
        let [mut outer, mut inner, mut add] = [(); 3].map(|()| a.create_label());
        a.mov(ecx, 3)?;
        a.set_label(&mut outer)?;
        a.mov(edx, 1000)?;
        a.set_label(&mut inner)?;
        a.call(add)?;
        a.dec(edx)?;
        a.jne(inner)?;
        a.mov(ebx, FLOOD_AT as u32)?;
        a.call(ebx)?;
        a.dec(ecx)?;
        a.jne(outer)?;
        a.hlt()?;
        a.set_label(&mut add)?;
        a.inc(eax)?;
        a.ret()?;
        a.assemble(CODE)
    };
    let mut cpu = processor(CpuModel::max(), &code().unwrap(), 32, &[]);
    let mut flood = vec![0x90; FLOOD];
    flood.push(0xc3);
    cpu.memory.write(FLOOD_AT, &flood);
    cpu.set_compiler(Some(Box::new(Immediate::new(50).unwrap())));
    assert_eq!(cpu.run(1200), RunExit::Budget);
    let compiled = (cpu.stats.regions, cpu.compiled_code());
    assert_ne!(compiled.0, 0);
    assert_eq!(cpu.run(10_000_000), RunExit::Halted);
    assert!(cpu.stats.decoded as usize > 2 * FLOOD, "the flood is decoded anew: {}", cpu.stats.decoded);
    assert_eq!((cpu.stats.regions, cpu.compiled_code()), compiled);
    assert_eq!(cpu.state.regs.gpr(0), 3000);
    // All but the first of three thousand rounds were compiled.
    assert!(cpu.stats.region_instructions > 2900 * 5, "{}", cpu.stats.region_instructions);
}

/// Looking for what to compile does not touch the page tables: the next page has no code that runs.
#[test]
fn a_branch_that_is_never_taken_leaves_its_page_unaccessed_in_both_tiers() {
    let code = || -> Result<Vec<u8>, iced_x86::IcedError> {
        let mut a = CodeAssembler::new(64)?;
        let (mut top, mut next_page) = (a.create_label(), a.create_label());
        a.set_label(&mut top)?;
        a.or(eax, 1)?;
        a.test(eax, eax)?;
        a.je(next_page)?;
        a.jmp(top)?;
        a.nops_with_size(0x1000)?;
        a.set_label(&mut next_page)?;
        a.nop()?;
        a.assemble(CODE)
    };
    let code = code().unwrap();
    let tables = [false, true].map(|compiles| {
        let mut cpu = processor(CpuModel::max(), &code, 64, &[]);
        if compiles {
            cpu.set_compiler(Some(Box::new(Immediate::new(1).unwrap())));
        }
        assert_eq!(cpu.run(1000), RunExit::Budget);
        let mut entries = vec![0; 0x4000];
        cpu.memory.read(0x8_0000, &mut entries);
        entries
    });
    assert!(tables[0] == tables[1], "accessed bits differ");
}
