//! x87 and MMX in compiled regions against the interpreter: loops of random instructions with every rounding and
//! precision, stacks that over- and underflow, exceptions that are masked or not, and operands that are NaNs, infinities,
//! denormals and zeros, run by both in lockstep; after every run all registers, what empty ones hold included, and
//! memory have to be the same.
//!
//! ```text
//!  REGION_PROGRAMS=100000   how many programs
//!  REGION_SEED=123          the first one's seed; each has the number of the one before plus one
//! ```

use emu_core::cpu::control::CR0_NE;
use emu_core::cpu::fpu::St;
use emu_core::exec::{RunExit, Vcpu};
use emu_jit::Immediate;
use emu_tests::lockstep::{CODE, Pair, blank, branch, see, seeds, set_memory};
use fastrand::Rng;
use iced_x86::code_asm::*;
use iced_x86::{Code, CpuidFeature, Encoder, IcedError, Instruction, Mnemonic, OpCodeOperandKind, OpKind, Register};

const DATA_BYTES: usize = 0x1000;
const DEFAULT_PROGRAMS: u64 = 150;

/// The instructions with the x87 FPU's registers, and those that are met next to them.
fn codes() -> Vec<Code> {
    use CpuidFeature as F;
    use Mnemonic as M;
    let fits = |code: &Code| {
        let info = code.op_code();
        let features = [F::FPU, F::FPU287, F::FPU387, F::CMOV, F::MMX, F::SSE3, F::SSE];
        let operands = info.op_kinds();
        let x87 = matches!(
            code.cpuid_features(),
            [F::FPU | F::FPU287 | F::FPU387 | F::MMX, ..] | [F::FXSR, ..] | [_, F::FPU, ..]
        );
        let other = matches!(code.mnemonic(), M::Emms | M::Fisttp | M::Addsd | M::Mulss | M::Cvtsi2sd);
        info.is_instruction()
            && (x87 || other)
            && (code.cpuid_features().iter().all(|feature| features.contains(feature)) || other)
            && operands.iter().all(|kind| operand_fits(*kind))
            && code.mnemonic() != M::Maskmovq
    };
    Code::values().filter(fits).collect()
}

fn operand_fits(kind: OpCodeOperandKind) -> bool {
    use OpCodeOperandKind as K;
    matches!(
        kind,
        K::st0
            | K::sti_opcode
            | K::mem
            | K::ax
            | K::mm_reg
            | K::mm_or_mem
            | K::r32_or_mem
            | K::r64_or_mem
            | K::xmm_reg
            | K::xmm_or_mem
            | K::imm8
    )
}

/// A random form of `code`.
fn instruction(code: Code, bits: u32, rng: &mut Rng) -> Option<Instruction> {
    use OpCodeOperandKind as K;
    let info = code.op_code();
    let mut insn = blank(code, bits)?;
    for n in 0..info.op_count() {
        let kind = info.op_kind(n);
        let memory = match kind {
            K::mem => true,
            K::mm_or_mem | K::xmm_or_mem | K::r32_or_mem | K::r64_or_mem => rng.bool(),
            _ => false,
        };
        if memory {
            // What loads all state has a place of its own; the last bytes are in a page that is not there.
            let at = match rng.u8(..64) {
                0 => 0x4ff0 + rng.i32(0..32),
                1..32 => rng.i32(0..DATA_BYTES as i32 - 16) & !15,
                _ => rng.i32(0..DATA_BYTES as i32 - 16),
            };
            set_memory(&mut insn, n, bits, at);
            continue;
        }
        match kind {
            K::imm8 => {
                insn.set_op_kind(n, OpKind::Immediate8);
                insn.set_immediate8(rng.u8(..40));
            }
            K::st0 => insn.set_op_register(n, Register::ST0),
            K::sti_opcode => insn.set_op_register(n, Register::ST0 + rng.u32(..8) % 5),
            K::ax => insn.set_op_register(n, Register::AX),
            K::mm_reg | K::mm_or_mem => insn.set_op_register(n, Register::MM0 + rng.u32(..8)),
            K::xmm_reg | K::xmm_or_mem => insn.set_op_register(n, Register::XMM0 + rng.u32(..4)),
            K::r32_or_mem => insn.set_op_register(n, Register::EBX),
            _ => insn.set_op_register(n, Register::RBX),
        }
    }
    Encoder::new(bits).encode(&insn, CODE).is_ok().then_some(insn)
}

/// What the interpreter executes even in compiled code, and what leaves little of the state before: less of these.
fn is_rare(code: Code) -> bool {
    use Mnemonic as M;
    let sweeping = matches!(
        code.mnemonic(),
        M::Fldenv | M::Frstor | M::Fxrstor | M::Fnsave | M::Fnstenv | M::Fxsave | M::Fninit | M::Emms | M::Ffree
    );
    sweeping
        || code.cpuid_features().contains(&CpuidFeature::MMX)
        || matches!(code.mnemonic(), M::Fldcw | M::Fincstp | M::Fdecstp | M::Ffreep | M::Fnclex)
}

/// A loop without end.
fn program(rng: &mut Rng, bits: u32, codes: &[Code]) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(bits)?;
    let mut top = a.create_label();
    a.set_label(&mut top)?;
    a.nop()?;
    let chosen: Vec<Code> = (0..rng.usize(1..30))
        .map(|_| {
            let code = codes[rng.usize(..codes.len())];
            if is_rare(code) && rng.u8(..4) != 0 { codes[rng.usize(..codes.len())] } else { code }
        })
        .collect();
    let base = if bits == 64 { rbp + 0 } else { ebp + 0 };
    for _ in 0..rng.usize(1..12) {
        let mut skip = a.create_label();
        if rng.u8(..3) == 0 {
            branch(&mut a, rng, skip)?;
        }
        for _ in 0..rng.usize(1..6) {
            let at = rng.i32(0..DATA_BYTES as i32 - 16);
            // Keeps the stack from being full or empty all the time.
            match rng.u8(..16) {
                0 => a.fld(tbyte_ptr(base + (at & !15)))?,
                1 => a.fld(qword_ptr(base + at))?,
                2 => a.fild(dword_ptr(base + at))?,
                3 => a.fstp(qword_ptr(base + at))?,
                4 => a.fistp(dword_ptr(base + at))?,
                5 => a.fstp(st1)?,
                _ => {}
            }
            if let Some(insn) = instruction(chosen[rng.usize(..chosen.len())], bits, rng) {
                a.add_instruction(insn)?;
                if insn.rflags_modified() != 0 && rng.bool() {
                    branch(&mut a, rng, skip)?;
                }
            }
        }
        match rng.u8(..24) {
            0 => a.setb(bl)?,
            1 => a.adc(eax, edx)?,
            2 => a.inc(esi)?,
            3 => a.add(eax, 0x1234_5678)?,
            4 => a.fnstsw(ax)?,
            5 => a.fldcw(word_ptr(base + DATA_BYTES as i32 + 2 * rng.i32(0..16)))?,
            6 => {
                a.fnstsw(ax)?;
                a.sahf()?;
            }
            7 => a.fnstsw(word_ptr(base + rng.i32(0..DATA_BYTES as i32 - 4)))?,
            _ => {}
        }
        a.set_label(&mut skip)?;
        // A label needs an instruction of its own.
        a.nop()?;
    }
    a.jmp(top)?;
    a.assemble(CODE)
}

/// An 80-bit value that is worth computing with.
fn extended(rng: &mut Rng) -> St {
    const ONE: u64 = 1 << 63;
    let sign = rng.u16(..2) << 15;
    let (exponent, significand) = match rng.u8(..14) {
        0 => (0, 0),
        1 => (0x7fff, ONE),
        2 => (0x7fff, ONE | 1 << 62 | rng.u64(..1 << 62)),
        3 => (0x7fff, ONE | rng.u64(1..1 << 62)),
        4 => (0, rng.u64(..)),
        // Unsupported: no integer bit.
        5 => (rng.u16(1..0x8000), rng.u64(..) >> 1),
        6 => (rng.u16(0x7ffc..0x7fff), ONE | rng.u64(..)),
        7 => (rng.u16(1..0x48), ONE | rng.u64(..)),
        8 | 9 => (0x3fff + rng.u16(..64), ONE | rng.u64(..) << rng.u32(..64)),
        10 => (0x3fff, ONE),
        _ => (rng.u16(0x3ff0..0x4010), ONE | rng.u64(..)),
    };
    St { sign_exp: sign | exponent, significand }
}

/// 16 bytes for all kinds of operands.
fn value(rng: &mut Rng) -> [u8; 16] {
    let mut bytes = [0; 16];
    match rng.u8(..5) {
        0 => rng.fill(&mut bytes),
        1 => {
            for lane in bytes.chunks_exact_mut(8) {
                let double = match rng.u8(..6) {
                    0 => rng.u64(..),
                    1 => (0x7ff0 << 48) | rng.u64(..1 << 52),
                    2 => rng.u64(..1 << 52),
                    3 => f64::from(rng.i32(-70..70)).to_bits(),
                    _ => ((rng.f64() - 0.5) * 100.0).to_bits(),
                };
                lane.copy_from_slice(&double.to_le_bytes());
            }
        }
        2 => {
            for lane in bytes.chunks_exact_mut(4) {
                let single = match rng.u8(..5) {
                    0 => rng.u32(..),
                    1 => 0x7f80_0000 | rng.u32(..1 << 23),
                    2 => rng.u32(..1 << 23),
                    _ => ((rng.f32() - 0.5) * 100.0).to_bits(),
                };
                lane.copy_from_slice(&single.to_le_bytes());
            }
        }
        _ => bytes[..10].copy_from_slice(&extended(rng).to_le_bytes()),
    }
    bytes
}

/// A control word; now and then one that masks not all exceptions.
fn control(rng: &mut Rng) -> u16 {
    let unmasked = if rng.u8(..20) == 0 { 1 << rng.u8(..6) } else { 0 };
    (0x37f ^ [0, 0x300, 0x100, 0x200][rng.usize(..4)] | rng.u16(..4) << 10) & !unmasked
}

/// What is compared behind a run.
fn see_all(cpu: &Vcpu, exit: RunExit) -> impl PartialEq + std::fmt::Debug + use<> {
    (see(cpu, exit), cpu.state.mxcsr, format!("{:x?}", cpu.state.fpu))
}

#[test]
fn random_x87_code_comes_to_the_same_in_both_tiers() {
    let codes = codes();
    assert!(codes.len() > 180, "{} instructions", codes.len());
    let (mut programs, mut regions, mut total) = (0u64, 0, 0);
    for seed in seeds(DEFAULT_PROGRAMS) {
        let rng = &mut Rng::with_seed(seed);
        let bits = if rng.bool() { 64 } else { 32 };
        let code = program(rng, bits, &codes).unwrap();
        programs += 1;
        let mut data: Vec<u8> = (0..DATA_BYTES / 16).flat_map(|_| value(rng)).collect();
        // Behind the data are values for FLDCW.
        for _ in 0..16 {
            data.extend(control(rng).to_le_bytes());
        }
        let compiler = Immediate::new(rng.u32(1..4)).unwrap();
        let mut pair = Pair::new(seed, code, bits, &data, Box::new(compiler));
        let ne = rng.bool();
        for cpu in pair.each() {
            if ne {
                cpu.state.cr0 |= CR0_NE;
            }
            cpu.mode_changed();
        }
        for _ in 0..20 {
            let mut fpu = pair.plain.state.fpu.clone();
            if rng.bool() {
                fpu.r = std::array::from_fn(|_| extended(rng));
                fpu.control = control(rng);
                // C0 to C3, and flags that are masked.
                fpu.status = rng.u16(..) & 0x4700 | rng.u16(..) & fpu.control & 0x3f & rng.u16(..);
                fpu.top = rng.u8(..8);
                let valid = rng.u32(..9);
                fpu.empty = match rng.u8(..6) {
                    0 => rng.u8(..),
                    _ => ((0xff00u16 << valid >> 8) as u8).rotate_left(u32::from(fpu.top)),
                };
            }
            for cpu in pair.each() {
                cpu.state.fpu = fpu.clone();
            }
            for n in [0, 2, 3, 6] {
                let value = if bits == 64 { rng.u64(..) } else { u64::from(rng.u32(..)) };
                pair.each().into_iter().for_each(|cpu| cpu.state.regs.set_gpr(n, value));
            }
            let most = if rng.bool() { 40 } else { 400 };
            let budget = rng.u64(1..most);
            let exit = pair.run(budget, see_all, format_args!(" from {fpu:x?}"));
            if exit != RunExit::Budget {
                break;
            }
        }
        pair.compare_memory();
        total += pair.executed;
        regions += pair.compiled.stats.regions;
    }
    println!("{programs} programs, {total} instructions, {regions} regions");
}
