//! SSE in compiled regions against the interpreter: loops of random instructions with every rounding, FTZ and DAZ, flags
//! and operands that are NaNs, infinities, denormals and zeros, run by both in lockstep; after every run registers,
//! MXCSR, flags and memory have to be the same.
//!
//! ```text
//!  REGION_PROGRAMS=100000   how many programs
//!  REGION_SEED=123          the first one's seed; each has the number of the one before plus one
//! ```

use emu_core::cpu::model::CpuModel;
use emu_core::cpu::xmm::Xmm;
use emu_core::exec::{RunExit, Vcpu};
use emu_jit::Immediate;
use emu_tests::lockstep::{CODE, DATA, Pair, blank, branch, processor, see, seeds, set_memory};
use fastrand::Rng;
use iced_x86::code_asm::*;
use iced_x86::{
    Code, CpuidFeature, Encoder, EncodingKind, IcedError, Instruction, Mnemonic, OpCodeOperandKind, OpKind, Register,
};

const DATA_BYTES: usize = 0x1000;
const DEFAULT_PROGRAMS: u64 = 200;
/// All exceptions masked.
const MASKS: u32 = 0x1f80;

/// The instructions with XMM registers.
fn codes() -> Vec<Code> {
    use CpuidFeature as F;
    use Mnemonic as M;
    use OpCodeOperandKind as K;
    let fits = |code: &Code| {
        let info = code.op_code();
        let features = [F::SSE, F::SSE2, F::SSE3, F::SSSE3, F::SSE4_1, F::SSE4_2, F::AES, F::PCLMULQDQ, F::SHA];
        let operands = info.op_kinds();
        info.is_instruction()
            && info.encoding() == EncodingKind::Legacy
            && code.cpuid_features().iter().all(|feature| features.contains(feature))
            && operands.iter().any(|kind| matches!(kind, K::xmm_reg | K::xmm_rm | K::xmm_or_mem))
            && operands.iter().all(|kind| operand_fits(*kind))
            // Its address is a register of which nothing is known.
            && code.mnemonic() != M::Maskmovdqu
    };
    Code::values().filter(fits).collect()
}

fn operand_fits(kind: OpCodeOperandKind) -> bool {
    use OpCodeOperandKind as K;
    matches!(
        kind,
        K::xmm_reg
            | K::xmm_rm
            | K::xmm_or_mem
            | K::mem
            | K::r32_reg
            | K::r64_reg
            | K::r32_or_mem
            | K::r64_or_mem
            | K::r32_rm
            | K::r64_rm
            | K::imm8
    )
}

/// A random form of `code`.
fn instruction(code: Code, bits: u32, rng: &mut Rng) -> Option<Instruction> {
    use OpCodeOperandKind as K;
    let info = code.op_code();
    let mut insn = blank(code, bits)?;
    // Few registers, so that values meet.
    let xmm = [0, 1, 2, 3, 4, if bits == 64 { 9 } else { 5 }];
    let gpr = [0, 2, 3, 6, if bits == 64 { 9 } else { 7 }];
    for n in 0..info.op_count() {
        let kind = info.op_kind(n);
        let memory = match kind {
            K::mem => true,
            K::xmm_or_mem | K::r32_or_mem | K::r64_or_mem => rng.u8(..3) == 0,
            _ => false,
        };
        if memory {
            let aligned = rng.u8(..32) != 0 || code.mnemonic() == Mnemonic::Movntdq;
            let mut at = rng.i32(0..DATA_BYTES as i32 - 32);
            if aligned {
                at &= !15;
            }
            set_memory(&mut insn, n, bits, at);
            continue;
        }
        match kind {
            K::imm8 => {
                insn.set_op_kind(n, OpKind::Immediate8);
                insn.set_immediate8(if rng.bool() { rng.u8(..) } else { rng.u8(..17) });
            }
            K::xmm_reg | K::xmm_rm | K::xmm_or_mem => {
                insn.set_op_register(n, Register::XMM0 + xmm[rng.usize(..xmm.len())]);
            }
            K::r32_reg | K::r32_or_mem | K::r32_rm => {
                insn.set_op_register(n, Register::EAX + gpr[rng.usize(..gpr.len())]);
            }
            _ => insn.set_op_register(n, Register::RAX + gpr[rng.usize(..gpr.len())]),
        }
    }
    Encoder::new(bits).encode(&insn, CODE).is_ok().then_some(insn)
}

/// A loop without end.
fn program(rng: &mut Rng, bits: u32, codes: &[Code]) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(bits)?;
    let mut top = a.create_label();
    a.set_label(&mut top)?;
    a.nop()?;
    // Either a few instructions mixed by chance, or all kinds.
    let chosen: Vec<Code> = (0..rng.usize(1..30)).map(|_| codes[rng.usize(..codes.len())]).collect();
    for _ in 0..rng.usize(1..12) {
        let mut skip = a.create_label();
        if rng.u8(..3) == 0 {
            branch(&mut a, rng, skip)?;
        }
        for _ in 0..rng.usize(1..5) {
            if let Some(insn) = instruction(chosen[rng.usize(..chosen.len())], bits, rng) {
                a.add_instruction(insn)?;
                if insn.rflags_modified() != 0 && rng.bool() {
                    branch(&mut a, rng, skip)?;
                }
            }
        }
        let base = if bits == 64 { rbp + 0 } else { ebp + 0 };
        match rng.u8(..24) {
            0 => a.setb(bl)?,
            1 => a.adc(eax, edx)?,
            2 => a.inc(esi)?,
            3 => a.add(eax, 0x1234_5678)?,
            4 => a.pushfd_or_q(bits)?,
            5 => a.stmxcsr(dword_ptr(base + rng.i32(0..DATA_BYTES as i32 - 4)))?,
            6 => a.ldmxcsr(dword_ptr(base + DATA_BYTES as i32 + 4 * rng.i32(0..16)))?,
            7..16 => a.movups(xmm(rng), xmmword_ptr(base + rng.i32(0..DATA_BYTES as i32 - 16)))?,
            _ => {}
        }
        a.set_label(&mut skip)?;
        // A label needs an instruction of its own.
        a.nop()?;
    }
    a.jmp(top)?;
    a.assemble(CODE)
}

fn xmm(rng: &mut Rng) -> AsmRegisterXmm {
    [xmm0, xmm1, xmm2, xmm3, xmm4][rng.usize(..5)]
}

/// Pushes the flags and takes them off again as a number.
trait PushFlags {
    fn pushfd_or_q(&mut self, bits: u32) -> Result<(), IcedError>;
}

impl PushFlags for CodeAssembler {
    fn pushfd_or_q(&mut self, bits: u32) -> Result<(), IcedError> {
        if bits == 64 {
            self.pushfq()?;
            self.pop(rdx)
        } else {
            self.pushfd()?;
            self.pop(edx)
        }
    }
}

/// 16 bytes that are worth computing with.
fn value(rng: &mut Rng) -> Xmm {
    let single = |rng: &mut Rng| -> u32 {
        let sign = rng.u32(..2) << 31;
        sign | match rng.u8(..12) {
            0 => 0,
            1 => 0x7f80_0000,
            2 => 0x7fc0_0000 | rng.u32(..0x40_0000),
            3 => 0x7f80_0000 | rng.u32(1..0x40_0000),
            4 => rng.u32(1..0x80_0000),
            5 => 0x7f7f_ffff,
            6 => 0x0080_0000 + rng.u32(..4),
            7 => (rng.i32(-70..70) as f32 / 2.0).to_bits() & 0x7fff_ffff,
            8 => 0x4f00_0000,
            9 => rng.u32(..0x7fff_ffff),
            _ => rng.f32().to_bits(),
        }
    };
    let double = |rng: &mut Rng| -> u64 {
        let sign = rng.u64(..2) << 63;
        sign | match rng.u8(..12) {
            0 => 0,
            1 => 0x7ff0 << 48,
            2 => 0x7ff8 << 48 | rng.u64(..1 << 50),
            3 => 0x7ff0 << 48 | rng.u64(1..1 << 50),
            4 => rng.u64(1..1 << 52),
            5 => 0x7fef_ffff_ffff_ffff,
            6 => (1 << 52) + rng.u64(..4),
            7 => (f64::from(rng.i32(-70..70)) / 2.0).to_bits() & !(1 << 63),
            8 => [0x43e0, 0x41e0, 0x47e0, 0x3810][rng.usize(..4)] << 48,
            9 => rng.u64(..) >> 1,
            _ => rng.f64().to_bits(),
        }
    };
    match rng.u8(..5) {
        0 => Xmm::from(rng.u128(..)),
        1 => Xmm::from_lanes([0u16; 8].map(|_| [0u16, 1, 0x7fff, 0x8000, 0xffff, 0x80, 0xff][rng.usize(..7)])),
        2 => Xmm::from_lanes([0; 4].map(|_: u32| single(rng))),
        _ => Xmm::from_lanes([0; 2].map(|_: u64| double(rng))),
    }
}

fn control(rng: &mut Rng) -> u32 {
    match rng.u8(..4) {
        0 => MASKS | rng.u32(..) & 0xe040,
        // All of them: rounding, FTZ, DAZ, flags.
        1 | 2 => MASKS | rng.u32(..) & 0xe07f,
        _ => MASKS | rng.u32(..) & 0x3f,
    }
}

/// What is compared behind a run.
fn see_all(cpu: &Vcpu, exit: RunExit) -> impl PartialEq + std::fmt::Debug + use<> {
    (see(cpu, exit), cpu.state.mxcsr, cpu.state.xmm)
}

#[test]
fn random_sse_code_comes_to_the_same_in_both_tiers() {
    let codes = codes();
    assert!(codes.len() > 250, "{} instructions", codes.len());
    let (mut programs, mut regions, mut total) = (0u64, 0, 0);
    for seed in seeds(DEFAULT_PROGRAMS) {
        let rng = &mut Rng::with_seed(seed);
        let bits = if rng.u8(..4) != 0 { 64 } else { 32 };
        let code = program(rng, bits, &codes).unwrap();
        programs += 1;
        // Behind the data are valid values for LDMXCSR.
        let mut data: Vec<u8> = (0..DATA_BYTES / 16).flat_map(|_| value(rng).0).collect();
        for _ in 0..16 {
            let unmasked = if rng.u8(..40) == 0 { 1 << rng.u8(7..13) } else { 0 };
            data.extend((control(rng) & !unmasked).to_le_bytes());
        }
        let compiler = Immediate::new(rng.u32(1..4)).unwrap();
        let mut pair = Pair::new(seed, code, bits, &data, Box::new(compiler));
        for _ in 0..20 {
            let unmasked = if rng.u8(..40) == 0 { 1 << rng.u8(7..13) } else { 0 };
            let mxcsr = control(rng) & !unmasked;
            let values: [Xmm; 16] = std::array::from_fn(|_| value(rng));
            for cpu in pair.each() {
                cpu.state.mxcsr = mxcsr;
                cpu.state.xmm = values;
            }
            for n in [0, 1, 2, 3, 6, 7, 9] {
                let value = if rng.bool() { rng.u64(..) } else { rng.i8(..) as u64 };
                let value = if bits == 64 { value } else { value & 0xffff_ffff };
                pair.each().into_iter().for_each(|cpu| cpu.state.regs.set_gpr(n, value));
            }
            // Short runs tell most of flags that stick.
            let most = if rng.bool() { 40 } else { 400 };
            let budget = rng.u64(1..most);
            let exit = pair.run(budget, see_all, format_args!(" with MXCSR {mxcsr:#x}"));
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

/// Nothing is cached of page 0, whose addresses look like an empty entry's but for the low bits.
#[test]
fn a_misaligned_access_faults_where_nothing_is_cached_in_both_tiers() {
    let mut a = CodeAssembler::new(32).unwrap();
    let mut top = a.create_label();
    a.set_label(&mut top).unwrap();
    a.movaps(xmm0, xmmword_ptr(ebx)).unwrap();
    a.jmp(top).unwrap();
    let code = a.assemble(CODE).unwrap();
    for compiles in [false, true] {
        for low in 1..16 {
            let mut cpu = processor(CpuModel::max(), &code, 32, &[]);
            if compiles {
                cpu.set_compiler(Some(Box::new(Immediate::new(1).unwrap())));
            }
            cpu.state.regs.set_gpr(3, DATA);
            assert_eq!(cpu.run(10), RunExit::Budget);
            cpu.state.regs.set_gpr(3, low);
            assert_eq!(cpu.run(10), RunExit::TripleFault, "address {low}, compiles: {compiles}");
        }
    }
}
