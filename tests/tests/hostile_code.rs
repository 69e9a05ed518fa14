//! Random bytes as code, descriptors, gates and TSSs in every mode: whatever happens, it happens in the guest.

use emu_core::cpu::segment::{Seg, system};
use emu_core::exec::RunExit;
use emu_tests::machine::*;
use fastrand::Rng;
use std::time::{Duration, Instant};

/// How long each mode is tried.
const TIME: Duration = Duration::from_millis(300);

fn try_mode(seed: u64, set_up: impl Fn(&mut Machine, &mut Rng)) {
    let mut random = Rng::with_seed(seed);
    let end = Instant::now() + TIME;
    let mut m = Machine::new(2);
    let fresh = m.cpu.state.clone();
    while Instant::now() < end {
        m.cpu.state = fresh.clone();
        m.cpu.flush_tlb(false);
        m.protected();
        m.catch_all();
        set_up(&mut m, &mut random);
        for n in 0..16 {
            let value = match random.u8(..4) {
                0 => random.u64(..),
                1 => random.u64(..0x20_0000),
                2 => random.u64(..0x400),
                _ => (random.u32(..) as i32) as u64,
            };
            if n != 4 || random.u8(..8) == 0 {
                m.set_reg(n, value);
            }
        }
        // Selectors are of interest in BX, and an interesting opcode comes more often than by chance.
        m.set_reg(3, u64::from(random.u16(..0x100)));
        let mut code = [0; 256];
        random.fill(&mut code);
        for n in (0..code.len() - 8).step_by(8) {
            const OPCODES: [&[u8]; 24] = [
                &[0x8e, 0xdb],
                &[0x8e, 0xd3],
                &[0x8e, 0xe3],
                &[0x0f, 0x00, 0xdb],
                &[0x0f, 0x00, 0xd3],
                &[0xcb],
                &[0xca],
                &[0xcf],
                &[0x66, 0xcf],
                &[0x48, 0xcf],
                &[0xcd],
                &[0xcc],
                &[0xf1],
                &[0x9a],
                &[0xea],
                &[0xff, 0x1c, 0x24],
                &[0xff, 0x2c, 0x24],
                &[0xf3, 0xa4],
                &[0xf3, 0x66, 0xab],
                &[0xf2, 0xa6],
                &[0x9d],
                &[0xfb],
                &[0xf3, 0x6c],
                &[0x0f, 0x00, 0xe3],
            ];
            if random.bool() {
                let opcode = OPCODES[random.usize(..OPCODES.len())];
                code[n..n + opcode.len()].copy_from_slice(opcode);
            }
        }
        let at = m.cpu.state.segment(Seg::Cs).base + m.cpu.state.rip;
        m.write(at, &code);
        // The stack holds selectors and addresses of interest too.
        for n in 0..64 {
            let value = if random.bool() { u64::from(random.u16(..0x100)) } else { CODE + random.u64(..0x200) };
            m.write64(STACK0 - 0x100 + 8 * n, value);
            m.write64(STACK3 - 0x100 + 8 * n, value);
        }
        let exit = m.cpu.run(random.u64(..300));
        assert!(matches!(exit, RunExit::Budget | RunExit::Halted | RunExit::TripleFault), "{exit:?}");
        assert!(m.cpu.executed() <= 300);
    }
}

/// Makes a few descriptors, gates and TSS fields random.
fn disturb(m: &mut Machine, random: &mut Rng) {
    for _ in 0..random.u8(..6) {
        let selector = random.u16(..0x100) & !7;
        let kinds = [
            system::CALL_GATE16,
            system::CALL_GATE32,
            system::TASK_GATE,
            system::INTERRUPT_GATE32,
            system::TRAP_GATE16,
        ];
        let any = gate(kinds[random.usize(..5)], random.u16(..0x100), CODE as u32 + random.u32(..0x100), 3, 31);
        let tss = descriptor(TSS as u32 + random.u32(..0x200), random.u32(..0x200), 0x81 + random.u8(..16), 0);
        let raw =
            [random.u64(..), any, tss, descriptor(random.u32(..), random.u32(..), random.u8(..), 4)][random.usize(..4)];
        if random.bool() {
            m.set_descriptor(selector, raw);
        } else {
            m.set_gate(random.u8(..), raw);
        }
    }
    if random.bool() {
        let at = TSS + random.u64(..0x80);
        m.write16(at, random.u16(..));
    }
    if random.u8(..8) == 0 {
        let bit = 1 << random.u32(8..22);
        m.cpu.state.system_flags ^= bit & emu_core::cpu::rflags::SYSTEM & !emu_core::cpu::rflags::VM;
    }
}

#[test]
fn real_mode_survives_random_code() {
    try_mode(1, |m, _| {
        m.real();
        m.catch_all();
    });
}

#[test]
fn protected_mode_survives_random_code_and_descriptors() {
    try_mode(2, disturb);
}

#[test]
fn level_3_survives_random_code_and_descriptors() {
    try_mode(3, |m, random| {
        disturb(m, random);
        m.user(32);
    });
}

#[test]
fn v86_survives_random_code_and_descriptors() {
    try_mode(4, |m, random| {
        disturb(m, random);
        m.cpu.state.cr4 |= random.u64(..4);
        m.v86(random.u64(..4));
    });
}

#[test]
fn long_mode_survives_random_code_and_descriptors() {
    for (seed, bits) in [(5, 0), (6, 32), (7, 64)] {
        try_mode(seed, |m, random| {
            m.long();
            m.catch_all();
            disturb(m, random);
            if bits != 0 {
                m.user(bits);
            }
        });
    }
}
