//! x87 and SSE floating-point instructions against the host processor: random instructions on random register stacks,
//! control words and operands, run natively between FXRSTOR and FXSAVE, and in threaded code.
//!
//! `FP_HOST_CASES` sets the number of cases and `FP_HOST_SEED` repeats a run. Unmasked SSE exceptions and instructions
//! behind a pending x87 exception would trap here and are left to other tests.
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

use std::arch::asm;
use std::sync::Arc;

use emu_core::bus::Bus;
use emu_core::clock::{Clock, ClockMode};
use emu_core::cpu::control::{CR0_PE, CR4_OSFXSR, CR4_OSXMMEXCPT, EFER_LMA, EFER_LME};
use emu_core::cpu::model::CpuModel;
use emu_core::cpu::segment::{Seg, Segment};
use emu_core::cpu::xmm::Xmm;
use emu_core::exec::Vcpu;
use emu_core::irq::CpuPins;
use emu_core::mem::GuestMemory;
use emu_core::softfloat::F80;
use fastrand::Rng;
use iced_x86::{Decoder, DecoderOptions};

const CODE: u64 = 0x1000;
const DATA: u64 = 0x3000;
const ARITHMETIC_FLAGS: u64 = 0x8D5;

/// Everything that goes into and comes out of an instruction.
#[derive(Clone, Debug, PartialEq)]
struct Case {
    control: u16,
    status: u16,
    /// One bit for each register that is not empty.
    tags: u8,
    /// From ST(0).
    st: [F80; 8],
    mxcsr: u32,
    xmm: [Xmm; 16],
    memory: [u8; 16],
    rax: u64,
    flags: u64,
}

#[repr(C, align(16))]
struct FxArea([u8; 512]);

impl Case {
    fn to_area(&self) -> FxArea {
        let mut area = FxArea([0; 512]);
        area.0[0..2].copy_from_slice(&self.control.to_le_bytes());
        area.0[2..4].copy_from_slice(&self.status.to_le_bytes());
        area.0[4] = self.tags;
        area.0[24..28].copy_from_slice(&self.mxcsr.to_le_bytes());
        for n in 0..8 {
            area.0[32 + 16 * n..42 + 16 * n].copy_from_slice(&self.st[n].to_le_bytes());
        }
        for n in 0..16 {
            area.0[160 + 16 * n..176 + 16 * n].copy_from_slice(&self.xmm[n].0);
        }
        area
    }

    fn read_area(&mut self, area: &FxArea) {
        self.control = u16::from_le_bytes([area.0[0], area.0[1]]);
        self.status = u16::from_le_bytes([area.0[2], area.0[3]]);
        self.tags = area.0[4];
        self.mxcsr = u32::from_le_bytes(std::array::from_fn(|n| area.0[24 + n]));
        self.st = std::array::from_fn(|i| F80::from_le_bytes(std::array::from_fn(|n| area.0[32 + 16 * i + n])));
        self.xmm = std::array::from_fn(|i| Xmm(std::array::from_fn(|n| area.0[160 + 16 * i + n])));
    }
}

/// An executable page of the host.
struct HostCode(memmap2::Mmap);

impl HostCode {
    fn new(code: &[u8]) -> Self {
        let mut map = memmap2::MmapMut::map_anon(64).expect("an anonymous page");
        map[..code.len()].copy_from_slice(code);
        map[code.len()] = 0xC3;
        HostCode(map.make_exec().expect("an executable page"))
    }

    fn run(&self, case: &Case) -> Case {
        let mut out = case.clone();
        let area = case.to_area();
        let mut result = FxArea([0; 512]);
        let memory = (&raw mut out.memory).cast::<u8>();
        let mut aligned = FxArea([0; 512]);
        aligned.0[..16].copy_from_slice(&case.memory);
        // SAFETY: the code is one floating-point instruction that reads or writes at most ten bytes x87 or 16 bytes
        // SSE at RDI, RAX and flags, and a RET; all FP registers are declared, and their modes are put back.
        unsafe {
            asm!(
                "fxrstor64 [rsi]", "push {flags}", "popfq", "call {code}", "pushfq", "pop {flags}",
                "fxsave64 [rdx]", "fninit", "ldmxcsr [{default}]",
                code = in(reg) self.0.as_ptr(), flags = inout(reg) case.flags | 2 => out.flags,
                default = in(reg) &raw const DEFAULT_MXCSR,
                inout("rax") case.rax => out.rax, in("rdi") aligned.0.as_mut_ptr(), in("rsi") area.0.as_ptr(),
                in("rdx") result.0.as_mut_ptr(),
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _, out("st(4)") _, out("st(5)") _,
                out("st(6)") _, out("st(7)") _,
            );
        }
        let _ = memory;
        out.memory.copy_from_slice(&aligned.0[..16]);
        out.flags &= ARITHMETIC_FLAGS;
        out.read_area(&result);
        out
    }
}

static DEFAULT_MXCSR: u32 = 0x1F80;

/// A processor in 64-bit mode without paging, which is all that these instructions need.
fn processor() -> Vcpu {
    let memory = Arc::new(GuestMemory::new(1 << 20, 0).expect("guest memory"));
    let bus = Arc::new(Bus::new(memory, Arc::new(CpuPins::default()), Clock::new(ClockMode::Icount { shift: 0 })));
    let mut cpu = Vcpu::new(Arc::new(CpuModel::max()), bus);
    cpu.state.cr0 |= CR0_PE | emu_core::cpu::control::CR0_NE;
    cpu.state.cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
    cpu.state.msrs.efer = EFER_LME | EFER_LMA;
    let code = Segment { selector: 8, base: 0, limit: u32::MAX, attributes: 0xA09B, unusable: false };
    cpu.state.set_segment(Seg::Cs, code);
    cpu.mode_changed();
    cpu
}

fn run_guest(cpu: &mut Vcpu, code: &[u8], case: &Case) -> Case {
    let mut bytes = code.to_vec();
    bytes.extend([0xEB, 0xFE]);
    cpu.memory.write(CODE, &bytes);
    cpu.memory.write(DATA, &case.memory);
    cpu.pins.raise(CpuPins::CODE_WRITTEN);
    cpu.state.rip = CODE;
    cpu.state.set_rflags(case.flags | 2);
    cpu.state.regs.set_gpr(0, case.rax);
    cpu.state.regs.set_gpr(7, DATA);
    cpu.state.xmm = case.xmm;
    cpu.state.mxcsr = case.mxcsr;
    let fpu = &mut cpu.state.fpu;
    fpu.control = case.control;
    fpu.status = case.status & !0x3800;
    fpu.top = (case.status >> 11 & 7) as u8;
    fpu.empty = !case.tags;
    for i in 0..8 {
        fpu.r[(usize::from(fpu.top) + i) & 7] = case.st[i];
    }
    let exit = cpu.run(2);
    assert_eq!(exit, emu_core::exec::RunExit::Budget, "{code:02x?} {case:x?}");
    let fpu = &cpu.state.fpu;
    let mut memory = [0; 16];
    cpu.memory.read(DATA, &mut memory);
    Case {
        control: fpu.control,
        status: fpu.status | u16::from(fpu.top) << 11,
        tags: !fpu.empty,
        st: std::array::from_fn(|i| fpu.r[(usize::from(fpu.top) + i) & 7]),
        mxcsr: cpu.state.mxcsr,
        xmm: cpu.state.xmm,
        memory,
        rax: cpu.state.regs.gpr(0),
        flags: cpu.state.rflags() & ARITHMETIC_FLAGS,
    }
}

fn interesting_bits(rng: &mut Rng, exponent_bits: u32, fraction_bits: u32) -> u64 {
    let maximum = (1u64 << exponent_bits) - 1;
    let exponent = match rng.u32(..8) {
        0 => 0,
        1 => maximum,
        2 => rng.u64(..=maximum),
        3 => maximum - rng.u64(..3),
        _ => maximum / 2 - 8 + rng.u64(..40),
    };
    let mask = (1u64 << fraction_bits) - 1;
    let fraction = match rng.u32(..5) {
        0 => 0,
        1 => mask,
        2 => rng.u64(..) << rng.u32(..fraction_bits),
        _ => rng.u64(..),
    };
    (rng.u64(..2) << exponent_bits | exponent) << fraction_bits | fraction & mask
}

fn extended(rng: &mut Rng) -> F80 {
    let exponent = match rng.u32(..10) {
        0 => 0,
        1 => 0x7FFF,
        2 => rng.u16(..0x8000),
        3 => 0x7FFE,
        _ => 0x3FFF - 20 + rng.u16(..60),
    };
    let integer_bit = (exponent != 0) != (rng.u32(..30) == 0);
    let fraction = match rng.u32(..5) {
        0 => 0,
        1 => u64::MAX >> 1,
        2 => (rng.u64(..) << rng.u32(..63)) & (u64::MAX >> 1),
        _ => rng.u64(..) >> 1,
    };
    F80::new(exponent | rng.u16(..2) << 15, u64::from(integer_bit) << 63 | fraction)
}

fn random_memory(rng: &mut Rng) -> [u8; 16] {
    match rng.u32(..4) {
        0 => {
            let mut bytes = rng.u128(..).to_le_bytes();
            bytes[..10].copy_from_slice(&extended(rng).to_le_bytes());
            bytes
        }
        1 => Xmm::from_lanes::<u64, 2>(std::array::from_fn(|_| interesting_bits(rng, 11, 52))).0,
        2 => Xmm::from_lanes::<u32, 4>(std::array::from_fn(|_| interesting_bits(rng, 8, 23) as u32)).0,
        // Packed decimal digits, also valid as anything else.
        _ => std::array::from_fn(|n| if n == 9 { rng.u8(..2) << 7 } else { rng.u8(..10) | rng.u8(..10) << 4 }),
    }
}

fn random_case(rng: &mut Rng) -> Case {
    let masks = if rng.u32(..3) == 0 { rng.u16(..64) } else { 0x3F };
    let precision = [0x300, 0x300, 0x200, 0x000][rng.usize(..4)];
    Case {
        control: 0x40 | masks | precision | rng.u16(..4) << 10,
        // Nothing pending; any other flag, condition code and TOP.
        status: (rng.u16(..64) & masks) | rng.u16(..) & 0x7F40,
        tags: if rng.u32(..4) == 0 { rng.u8(..) } else { !(1 << rng.u32(..8)) },
        st: std::array::from_fn(|_| extended(rng)),
        mxcsr: 0x1F80 | rng.u32(..0x10000) & 0xE07F,
        xmm: std::array::from_fn(|_| Xmm(random_memory(rng))),
        memory: random_memory(rng),
        rax: rng.u64(..) >> rng.u32(..64),
        flags: rng.u64(..) & ARITHMETIC_FLAGS,
    }
}

fn x87_instruction(rng: &mut Rng) -> Vec<u8> {
    let escape = 0xD8 + rng.u8(..8);
    if rng.bool() {
        return vec![escape, 0xC0 + rng.u8(..64)];
    }
    // [rdi]; environment and register images hold addresses and have tests of their own.
    let operation = rng.u8(..8);
    if matches!((escape, operation), (0xD9 | 0xDD, 4 | 6)) {
        return vec![escape, 7];
    }
    vec![escape, operation << 3 | 7]
}

fn sse_instruction(rng: &mut Rng) -> Vec<u8> {
    const OPCODES: [u8; 21] = [
        0x2A, 0x2C, 0x2D, 0x2E, 0x2F, 0x51, 0x52, 0x53, 0x58, 0x59, 0x5A, 0x5B, 0x5C, 0x5D, 0x5E, 0x5F, 0x7C, 0x7D,
        0xC2, 0xD0, 0xE6,
    ];
    let mut code = Vec::new();
    match rng.u32(..4) {
        0 => {}
        n => code.push([0, 0x66, 0xF3, 0xF2][n as usize]),
    }
    let in_memory = rng.bool();
    let rex = rng.bool();
    if rng.u32(..6) == 0 {
        // ROUNDPS .. ROUNDSD, DPPS, DPPD; only with 66.
        code = vec![0x66];
        if rex {
            code.push(0x40 | rng.u8(..8) & if in_memory { 0xE } else { 0xF });
        }
        let modrm = if in_memory { rng.u8(..8) << 3 | 7 } else { 0xC0 | rng.u8(..64) };
        code.extend([0x0F, 0x3A, [0x08, 0x09, 0x0A, 0x0B, 0x40, 0x41][rng.usize(..6)], modrm, rng.u8(..)]);
        return code;
    }
    let opcode = OPCODES[rng.usize(..OPCODES.len())];
    // Only RAX among the general registers.
    let (reg, rm) = match opcode {
        0x2A => (rng.u8(..8), 0),
        0x2C | 0x2D => (0, rng.u8(..8)),
        _ => (rng.u8(..8), rng.u8(..8)),
    };
    if rex {
        let wide = rng.u8(..2) << 3;
        let extend = if matches!(opcode, 0x2A | 0x2C | 0x2D) { 0 } else { rng.u8(..8) & if in_memory { 6 } else { 7 } };
        code.push(0x40 | wide | extend);
    }
    code.extend([0x0F, opcode, if in_memory { reg << 3 | 7 } else { 0xC0 | reg << 3 | rm }]);
    if opcode == 0xC2 {
        code.push(rng.u8(..8));
    }
    code
}

/// Results that differ within the architecture: the transcendentals' last bit, and codes left undefined.
fn comparable(code: &[u8], mut ours: Case, host: &Case) -> Case {
    if emu_tests::host::vendor() != emu_tests::host::Vendor::Intel {
        let mnemonic = Decoder::new(64, code, DecoderOptions::NONE).decode().mnemonic();
        for (a, b) in ours.xmm.iter_mut().zip(&host.xmm) {
            if emu_tests::host::equally_right(mnemonic, a.0, b.0) {
                *a = *b;
            }
        }
    }
    let transcendental = matches!(code, [0xD9, 0xF0..=0xF3 | 0xF9 | 0xFB | 0xFE | 0xFF]);
    if transcendental {
        for (a, b) in ours.st.iter_mut().zip(&host.st) {
            let near = a.sign_exp == b.sign_exp && a.significand.abs_diff(b.significand) <= 1;
            let binade = a.sign_exp.abs_diff(b.sign_exp) == 1;
            if near || binade {
                *a = *b;
            }
        }
        // C1, and underflow and overflow at the very ends.
        ours.status = ours.status & !0x0218 | host.status & 0x0218;
    }
    ours
}

#[test]
fn fp_instructions_random_states_match_host() {
    let environment = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = environment("FP_HOST_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("FP_HOST_SEED={seed}");
    let rng = &mut Rng::with_seed(seed);
    let mut cpu = processor();
    let mut failures = 0;
    for _ in 0..environment("FP_HOST_CASES").unwrap_or(3_000) {
        let code = if rng.bool() { x87_instruction(rng) } else { sse_instruction(rng) };
        let iced = Decoder::new(64, &code, DecoderOptions::NONE).decode();
        if iced.is_invalid() || iced.len() != code.len() {
            continue;
        }
        let host_code = HostCode::new(&code);
        for _ in 0..16 {
            let case = random_case(rng);
            let host = host_code.run(&case);
            let ours = comparable(&code, run_guest(&mut cpu, &code, &case), &host);
            if ours != host {
                failures += 1;
                report(&iced.to_string(), &code, &case, &ours, &host);
                break;
            }
        }
        assert!(failures < 12, "too many differences");
    }
    assert_eq!(failures, 0);
}

fn report(name: &str, code: &[u8], case: &Case, ours: &Case, host: &Case) {
    println!(
        "{name} {code:02x?} control {:04x} status {:04x} tags {:02x} mxcsr {:04x}",
        case.control, case.status, case.tags, case.mxcsr
    );
    macro_rules! field {
        ($($field:ident)*) => {$(
            if ours.$field != host.$field {
                let (before, ours, host) = (case.$field, ours.$field, host.$field);
                println!("  {} {before:x?}: {ours:x?}, the host gives {host:x?}", stringify!($field));
            }
        )*};
    }
    field!(control status tags mxcsr memory rax flags);
    for n in 0..8 {
        if ours.st[n] != host.st[n] {
            println!("  ST({n}) {:x?}, the host gives {:x?}", ours.st[n], host.st[n]);
        }
    }
    if code[0] >= 0xD8 {
        println!("  before {:x?} {:x?} {:x?}", case.st[0], case.st[1], case.memory);
    }
    for n in 0..16 {
        if ours.xmm[n] != host.xmm[n] {
            println!("  XMM{n} {:x?}: {:x?}, the host gives {:x?}", case.xmm[n].0, ours.xmm[n].0, host.xmm[n].0);
        }
    }
}

/// A save area: the legacy region and the XSAVE header.
#[derive(Clone, PartialEq)]
#[repr(C, align(64))]
struct SaveArea([u8; 576]);

macro_rules! save_host {
    ($($name:ident $restore:literal $save:literal;)*) => {$(
        /// Restores from `source` and saves over `destination`, components x87 and SSE.
        fn $name(source: &SaveArea, destination: &mut SaveArea) {
            // SAFETY: the areas have the size and alignment that the instructions want for two components; all
            // registers that are restored are declared, and modes are put back.
            unsafe {
                asm!($restore, "mov eax, 3", "xor edx, edx", $save, "fninit", "ldmxcsr [{default}]",
                    default = in(reg) &raw const DEFAULT_MXCSR,
                    in("rsi") source.0.as_ptr(), in("rdi") destination.0.as_mut_ptr(),
                    inout("eax") 3 => _, inout("edx") 0 => _,
                    out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                    out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                    out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _, out("st(4)") _, out("st(5)") _,
                    out("st(6)") _, out("st(7)") _,
                );
            }
        }
    )*};
}

save_host! {
    fxrstor_fxsave "fxrstor [rsi]" "fxsave [rdi]";
    fxrstor64_fxsave64 "fxrstor64 [rsi]" "fxsave64 [rdi]";
    xrstor_xsave "xrstor [rsi]" "xsave [rdi]";
    xrstor64_xsave64 "xrstor64 [rsi]" "xsave64 [rdi]";
    xrstor64_xsavec64 "xrstor64 [rsi]" "xsavec64 [rdi]";
}

#[test]
fn state_images_random_contents_match_host() {
    if !std::is_x86_feature_detected!("xsavec") {
        return;
    }
    const SOURCE: u64 = 0x4000;
    let rng = &mut Rng::new();
    let mut cpu = processor();
    cpu.state.cr4 |= emu_core::cpu::control::CR4_OSXSAVE;
    cpu.state.xcr0 = 3;
    type Host = fn(&SaveArea, &mut SaveArea);
    let pairs: [(&str, Host, &[u8]); 5] = [
        ("fxsave", fxrstor_fxsave, &[0x0F, 0xAE, 0x0E, 0x0F, 0xAE, 0x07]),
        ("fxsave64", fxrstor64_fxsave64, &[0x48, 0x0F, 0xAE, 0x0E, 0x48, 0x0F, 0xAE, 0x07]),
        ("xsave", xrstor_xsave, &[0x0F, 0xAE, 0x2E, 0x0F, 0xAE, 0x27]),
        ("xsave64", xrstor64_xsave64, &[0x48, 0x0F, 0xAE, 0x2E, 0x48, 0x0F, 0xAE, 0x27]),
        ("xsavec64", xrstor64_xsavec64, &[0x48, 0x0F, 0xAE, 0x2E, 0x48, 0x0F, 0xC7, 0x27]),
    ];
    for (name, host, code) in pairs {
        for _ in 0..200 {
            let mut case = random_case(rng);
            case.mxcsr &= 0xFFFF;
            let mut source = SaveArea([0; 576]);
            source.0[..512].copy_from_slice(&case.to_area().0);
            // The last instruction and operand: canonical, and a selector that fits.
            for at in [8, 16] {
                source.0[at..at + 4].copy_from_slice(&rng.u32(..).to_le_bytes());
            }
            source.0[512] = rng.u8(..4);
            let mut expected = SaveArea([0xA5; 576]);
            // Old headers must be valid ones.
            expected.0[512..].fill(0);
            let mut ours = expected.clone();
            host(&source, &mut expected);
            let mut bytes = code.to_vec();
            bytes.extend([0xEB, 0xFE]);
            cpu.memory.write(CODE, &bytes);
            cpu.memory.write(SOURCE, &source.0);
            cpu.memory.write(DATA, &ours.0);
            cpu.pins.raise(CpuPins::CODE_WRITTEN);
            cpu.state.rip = CODE;
            for (register, value) in [(0, 3), (2, 0), (6, SOURCE), (7, DATA)] {
                cpu.state.regs.set_gpr(register, value);
            }
            assert_eq!(cpu.run(3), emu_core::exec::RunExit::Budget, "{name}");
            cpu.memory.read(DATA, &mut ours.0);
            // AMD's store the last instruction and operand only with an exception pending, and a mask of their own
            // (APM Vol. 5 FXSAVE).
            let intel = emu_tests::host::vendor() == emu_tests::host::Vendor::Intel;
            for at in (0..576).filter(|at| intel || !matches!(at, 6..24 | 28..32)) {
                assert_eq!(ours.0[at], expected.0[at], "{name}: byte {at} of the image, XSTATE_BV {}", source.0[512]);
            }
        }
    }
}

/// Runs every kind of FP instruction for so long that a handler which does not end in a tail call would overflow the
/// small stack of this test's thread.
#[test]
fn fp_handlers_long_runs_keep_the_stack_flat() {
    let run = || {
        let rng = &mut Rng::with_seed(1);
        let mut cpu = processor();
        for _ in 0..400 {
            let code = if rng.bool() { x87_instruction(rng) } else { sse_instruction(rng) };
            let iced = Decoder::new(64, &code, DecoderOptions::NONE).decode();
            if iced.is_invalid() || iced.len() != code.len() {
                continue;
            }
            let mut bytes: Vec<u8> = std::iter::repeat_n(code, 30).flatten().collect();
            let back = -(bytes.len() as i32) - 5;
            bytes.push(0xE9);
            bytes.extend(back.to_le_bytes());
            cpu.memory.write(CODE, &bytes);
            cpu.pins.raise(CpuPins::CODE_WRITTEN);
            cpu.state.rip = CODE;
            cpu.state.regs.set_gpr(7, DATA);
            cpu.state.mxcsr = 0x1FA0;
            cpu.state.fpu.control = 0x37F;
            cpu.state.fpu.status = 0;
            assert_eq!(cpu.run(5_000), emu_core::exec::RunExit::Budget, "{iced}");
        }
    };
    let thread = std::thread::Builder::new().stack_size(128 << 10).spawn(run).expect("a thread");
    thread.join().expect("no failure in the thread");
}
