//! The floating-point library against the host processor: random operands of every class under every rounding mode,
//! precision, FTZ, DAZ and (for the x87, whose exceptions are reported late) every set of exception masks.
//!
//! `SOFTFLOAT_CASES` sets the number of cases per operation and `SOFTFLOAT_SEED` repeats a run.
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

use std::arch::asm;

use emu_core::softfloat::sse::{self, Predicate, RoundControl, SseEnv};
use emu_core::softfloat::x87::{self, F80, X87Env};
use emu_core::softfloat::{Relation, flags};
use fastrand::Rng;

const CASES: u32 = 100_000;

fn cases() -> u32 {
    std::env::var("SOFTFLOAT_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(CASES)
}

/// A generator whose seed is printed, so that a failure can be repeated.
fn generator() -> Rng {
    let seed = std::env::var("SOFTFLOAT_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("SOFTFLOAT_SEED={seed}");
    Rng::with_seed(seed)
}

// Operands.

/// A significand field of `bits` bits: zero, ones, few bits set, or anything.
fn fraction(rng: &mut Rng, bits: u32) -> u64 {
    let mask = (1u64 << bits) - 1;
    mask & match rng.u32(..8) {
        0 => 0,
        1 => mask,
        2 => 1 << rng.u32(..bits),
        3 => rng.u64(..) << rng.u32(..bits),
        4 => mask << rng.u32(..bits),
        5 => 1 << (bits - 1) | rng.u64(..4),
        _ => rng.u64(..),
    }
}

/// A biased exponent: zero, the maximum, near the ends, near the bias, or anything.
fn exponent(rng: &mut Rng, bits: u32) -> u64 {
    let maximum = (1u64 << bits) - 1;
    let bias = maximum >> 1;
    match rng.u32(..12) {
        0 => 0,
        1 => maximum,
        2 => rng.u64(..4),
        3 => maximum - rng.u64(..4),
        4 => rng.u64(..=maximum),
        5 => bias / 2 + rng.u64(..8),
        6 => bias + bias / 2 + rng.u64(..8),
        7 | 8 => bias + rng.u64(..70) - 35,
        _ => bias + rng.u64(..8) - 4,
    }
}

fn single(rng: &mut Rng) -> u32 {
    (rng.u32(..2) << 31) | (exponent(rng, 8) as u32) << 23 | fraction(rng, 23) as u32
}

fn double(rng: &mut Rng) -> u64 {
    (rng.u64(..2) << 63) | exponent(rng, 11) << 52 | fraction(rng, 52)
}

fn extended(rng: &mut Rng) -> F80 {
    let exponent = exponent(rng, 15) as u16;
    let unusual = rng.u32(..24) == 0;
    let integer_bit = (exponent != 0) != unusual;
    F80::new((rng.u16(..2) << 15) | exponent, u64::from(integer_bit) << 63 | fraction(rng, 63))
}

/// The second operand of a pair is often related to the first, so that sums cancel and quotients are exact.
fn related(rng: &mut Rng, a: F80) -> F80 {
    match rng.u32(..6) {
        0 => F80::new(a.sign_exp ^ (rng.u16(..2) << 15), a.significand ^ rng.u64(..4)),
        1 => F80::new((a.sign_exp ^ 0x8000).wrapping_add(rng.u16(..3)), a.significand),
        _ => extended(rng),
    }
}

fn mxcsr(rng: &mut Rng) -> u32 {
    // All masked; any rounding, FTZ and DAZ, and any sticky flags.
    let plain = rng.u32(..3) == 0;
    0x1F80 | if plain { rng.u32(..64) } else { rng.u32(..0x10000) & 0xE07F }
}

fn control_word(rng: &mut Rng, masks: u16) -> u16 {
    let precision = [0x300, 0x300, 0x200, 0x000][rng.usize(..4)];
    0x40 | masks | precision | (rng.u16(..4) << 10)
}

fn exception_masks(rng: &mut Rng) -> u16 {
    if rng.u32(..3) == 0 { rng.u16(..64) } else { 0x3F }
}

// SSE.

macro_rules! sse_host {
    ($($name:ident $text:literal $bits:ty, $register:ident;)*) => {$(
        /// Runs the instruction with `mxcsr`; gives the low lane of the destination and MXCSR afterwards.
        fn $name(mxcsr: u32, a: $bits, b: $bits) -> ($bits, u32) {
            let (mut out, mut saved) = (mxcsr, 0u32);
            let mut r = <$register>::from_bits(a);
            // SAFETY: MXCSR has all exceptions masked and is restored; only the named registers and locals change.
            unsafe {
                asm!("stmxcsr [{saved}]", "ldmxcsr [{out}]", $text, "stmxcsr [{out}]", "ldmxcsr [{saved}]",
                    saved = in(reg) &raw mut saved, out = in(reg) &raw mut out,
                    out("rax") _, inout("xmm0") r, in("xmm1") <$register>::from_bits(b), options(nostack));
            }
            (r.to_bits(), out)
        }
    )*};
}

sse_host! {
    addss "addss xmm0, xmm1" u32, f32;
    subss "subss xmm0, xmm1" u32, f32;
    mulss "mulss xmm0, xmm1" u32, f32;
    divss "divss xmm0, xmm1" u32, f32;
    minss "minss xmm0, xmm1" u32, f32;
    maxss "maxss xmm0, xmm1" u32, f32;
    sqrtss "sqrtss xmm0, xmm1" u32, f32;
    addsd "addsd xmm0, xmm1" u64, f64;
    subsd "subsd xmm0, xmm1" u64, f64;
    mulsd "mulsd xmm0, xmm1" u64, f64;
    divsd "divsd xmm0, xmm1" u64, f64;
    minsd "minsd xmm0, xmm1" u64, f64;
    maxsd "maxsd xmm0, xmm1" u64, f64;
    sqrtsd "sqrtsd xmm0, xmm1" u64, f64;
    rcpss "rcpss xmm0, xmm1" u32, f32;
    rsqrtss "rsqrtss xmm0, xmm1" u32, f32;
    cmpss_0 "cmpss xmm0, xmm1, 0" u32, f32;
    cmpss_1 "cmpss xmm0, xmm1, 1" u32, f32;
    cmpss_2 "cmpss xmm0, xmm1, 2" u32, f32;
    cmpss_3 "cmpss xmm0, xmm1, 3" u32, f32;
    cmpss_4 "cmpss xmm0, xmm1, 4" u32, f32;
    cmpss_5 "cmpss xmm0, xmm1, 5" u32, f32;
    cmpss_6 "cmpss xmm0, xmm1, 6" u32, f32;
    cmpss_7 "cmpss xmm0, xmm1, 7" u32, f32;
    cmpsd_0 "cmpsd xmm0, xmm1, 0" u64, f64;
    cmpsd_1 "cmpsd xmm0, xmm1, 1" u64, f64;
    cmpsd_2 "cmpsd xmm0, xmm1, 2" u64, f64;
    cmpsd_3 "cmpsd xmm0, xmm1, 3" u64, f64;
    cmpsd_4 "cmpsd xmm0, xmm1, 4" u64, f64;
    cmpsd_5 "cmpsd xmm0, xmm1, 5" u64, f64;
    cmpsd_6 "cmpsd xmm0, xmm1, 6" u64, f64;
    cmpsd_7 "cmpsd xmm0, xmm1, 7" u64, f64;
    cvtsd2ss "cvtsd2ss xmm0, xmm0" u64, f64;
    cvtss2sd "cvtss2sd xmm0, xmm1; movq xmm0, xmm0" u64, f64;
    cvtss2si "cvtss2si rax, xmm1; movq xmm0, rax" u64, f64;
    cvtss2si_32 "cvtss2si eax, xmm1; cdqe; movq xmm0, rax" u64, f64;
    cvttss2si "cvttss2si rax, xmm1; movq xmm0, rax" u64, f64;
    cvttss2si_32 "cvttss2si eax, xmm1; cdqe; movq xmm0, rax" u64, f64;
    cvtsd2si "cvtsd2si rax, xmm1; movq xmm0, rax" u64, f64;
    cvtsd2si_32 "cvtsd2si eax, xmm1; cdqe; movq xmm0, rax" u64, f64;
    cvttsd2si "cvttsd2si rax, xmm1; movq xmm0, rax" u64, f64;
    cvttsd2si_32 "cvttsd2si eax, xmm1; cdqe; movq xmm0, rax" u64, f64;
    cvtsi2ss "movq rax, xmm1; pxor xmm0, xmm0; cvtsi2ss xmm0, rax" u64, f64;
    cvtsi2sd "movq rax, xmm1; cvtsi2sd xmm0, rax" u64, f64;
    roundss_0 "roundss xmm0, xmm1, 0" u32, f32;
    roundss_1 "roundss xmm0, xmm1, 1" u32, f32;
    roundss_2 "roundss xmm0, xmm1, 2" u32, f32;
    roundss_3 "roundss xmm0, xmm1, 3" u32, f32;
    roundss_4 "roundss xmm0, xmm1, 4" u32, f32;
    roundss_9 "roundss xmm0, xmm1, 9" u32, f32;
    roundsd_0 "roundsd xmm0, xmm1, 0" u64, f64;
    roundsd_1 "roundsd xmm0, xmm1, 1" u64, f64;
    roundsd_2 "roundsd xmm0, xmm1, 2" u64, f64;
    roundsd_3 "roundsd xmm0, xmm1, 3" u64, f64;
    roundsd_4 "roundsd xmm0, xmm1, 4" u64, f64;
    roundsd_9 "roundsd xmm0, xmm1, 9" u64, f64;
}

/// Compares one operation over random operands and environments.
fn sse_check<T: sse::Scalar, R: Into<u64>>(
    rng: &mut Rng,
    name: &str,
    operand: fn(&mut Rng) -> T,
    host: fn(u32, T, T) -> (R, u32),
    ours: impl Fn(&mut SseEnv, T, T) -> u64,
) {
    for _ in 0..cases() {
        let (a, mxcsr) = (operand(rng), mxcsr(rng));
        let b = match rng.u32(..8) {
            0 => a,
            1 => T::from_bits(a.into() ^ T::SIGN.into() ^ rng.u64(..4)),
            _ => operand(rng),
        };
        let (expected, expected_mxcsr) = host(mxcsr, a, b);
        let mut env = SseEnv::new(mxcsr);
        let result = ours(&mut env, a, b);
        let result_mxcsr = env.finish().expect("all exceptions are masked");
        let expected: u64 = expected.into();
        assert!(
            (result, result_mxcsr) == (expected, expected_mxcsr),
            "{name} {a:x?}, {b:x?} mxcsr {mxcsr:04x}: {result:x} mxcsr {result_mxcsr:04x}, \
             the host gives {expected:x} mxcsr {expected_mxcsr:04x}"
        );
    }
}

/// An operand near the integer limits half of the time.
fn near_integer_limits(rng: &mut Rng) -> u64 {
    if rng.bool() {
        return double(rng);
    }
    let power = [0, 1, 31, 32, 52, 53, 62, 63, 64][rng.usize(..9)];
    let value = 2f64.powi(power) + f64::from(rng.i32(-4..=4)) * 0.25;
    (if rng.bool() { -value } else { value }).to_bits()
}

#[test]
fn sse_arithmetic_random_operands_match_host() {
    let rng = &mut generator();
    sse_check(rng, "addss", single, addss, |env, a, b| sse::add(env, a, b).into());
    sse_check(rng, "subss", single, subss, |env, a, b| sse::sub(env, a, b).into());
    sse_check(rng, "mulss", single, mulss, |env, a, b| sse::mul(env, a, b).into());
    sse_check(rng, "divss", single, divss, |env, a, b| sse::div(env, a, b).into());
    sse_check(rng, "sqrtss", single, sqrtss, |env, _, b| sse::sqrt(env, b).into());
    sse_check(rng, "minss", single, minss, |env, a, b| sse::min(env, a, b).into());
    sse_check(rng, "maxss", single, maxss, |env, a, b| sse::max(env, a, b).into());
    sse_check(rng, "addsd", double, addsd, sse::add);
    sse_check(rng, "subsd", double, subsd, sse::sub);
    sse_check(rng, "mulsd", double, mulsd, sse::mul);
    sse_check(rng, "divsd", double, divsd, sse::div);
    sse_check(rng, "sqrtsd", double, sqrtsd, |env, _, b| sse::sqrt(env, b));
    sse_check(rng, "minsd", double, minsd, sse::min);
    sse_check(rng, "maxsd", double, maxsd, sse::max);
}

#[test]
fn sse_compare_random_operands_match_host() {
    let rng = &mut generator();
    let singles = [cmpss_0, cmpss_1, cmpss_2, cmpss_3, cmpss_4, cmpss_5, cmpss_6, cmpss_7];
    let doubles = [cmpsd_0, cmpsd_1, cmpsd_2, cmpsd_3, cmpsd_4, cmpsd_5, cmpsd_6, cmpsd_7];
    for imm8 in 0..8u8 {
        let predicate = Predicate::from_imm8(imm8);
        sse_check(rng, "cmpss", single, singles[usize::from(imm8)], |env, a, b| {
            if sse::compare_predicate(env, predicate, a, b) { u32::MAX.into() } else { 0 }
        });
        sse_check(rng, "cmpsd", double, doubles[usize::from(imm8)], |env, a, b| {
            if sse::compare_predicate(env, predicate, a, b) { u64::MAX } else { 0 }
        });
    }
}

#[test]
fn sse_conversions_random_operands_match_host() {
    let rng = &mut generator();
    fn single_operand(rng: &mut Rng) -> u64 {
        let near = near_integer_limits(rng);
        if rng.bool() { single(rng).into() } else { (f64::from_bits(near) as f32).to_bits().into() }
    }
    fn integer(rng: &mut Rng) -> u64 {
        rng.u64(..) >> rng.u32(..64) ^ if rng.bool() { u64::MAX } else { 0 }
    }
    let low = |x: u64| x as u32;
    sse_check(
        rng,
        "cvtsd2ss",
        double,
        |m, a, b| (cvtsd2ss(m, a, b).0 as u32, cvtsd2ss(m, a, b).1),
        |env, a, _| sse::double_to_single(env, a).into(),
    );
    sse_check(rng, "cvtss2sd", single_operand, cvtss2sd, |env, _, b| sse::single_to_double(env, low(b)));
    sse_check(rng, "cvtss2si r64", single_operand, cvtss2si, |env, _, b| sse::to_int(env, low(b), 64) as u64);
    sse_check(rng, "cvtss2si r32", single_operand, cvtss2si_32, |env, _, b| sse::to_int(env, low(b), 32) as u64);
    sse_check(rng, "cvttss2si r64", single_operand, cvttss2si, |env, _, b| {
        sse::to_int_truncated(env, low(b), 64) as u64
    });
    sse_check(rng, "cvttss2si r32", single_operand, cvttss2si_32, |env, _, b| {
        sse::to_int_truncated(env, low(b), 32) as u64
    });
    sse_check(rng, "cvtsd2si r64", near_integer_limits, cvtsd2si, |env, _, b| sse::to_int(env, b, 64) as u64);
    sse_check(rng, "cvtsd2si r32", near_integer_limits, cvtsd2si_32, |env, _, b| sse::to_int(env, b, 32) as u64);
    sse_check(rng, "cvttsd2si r64", near_integer_limits, cvttsd2si, |env, _, b| {
        sse::to_int_truncated(env, b, 64) as u64
    });
    sse_check(rng, "cvttsd2si r32", near_integer_limits, cvttsd2si_32, |env, _, b| {
        sse::to_int_truncated(env, b, 32) as u64
    });
    sse_check(rng, "cvtsi2ss", integer, cvtsi2ss, |env, _, b| sse::int_to_float::<u32>(env, b as i64).into());
    sse_check(rng, "cvtsi2sd", integer, cvtsi2sd, |env, _, b| sse::int_to_float::<u64>(env, b as i64));
}

#[test]
fn sse_round_random_operands_match_host() {
    let rng = &mut generator();
    let singles = [roundss_0, roundss_1, roundss_2, roundss_3, roundss_4, roundss_9];
    let doubles = [roundsd_0, roundsd_1, roundsd_2, roundsd_3, roundsd_4, roundsd_9];
    for (index, imm8) in [0, 1, 2, 3, 4, 9].into_iter().enumerate() {
        let control = RoundControl::from_imm8(imm8);
        sse_check(rng, "roundss", single, singles[index], |env, _, b| sse::round_to_integral(env, b, control).into());
        sse_check(rng, "roundsd", near_integer_limits, doubles[index], |env, _, b| {
            sse::round_to_integral(env, b, control)
        });
    }
}

#[test]
fn sse_reciprocals_match_intel_hosts_exactly_and_others_within_bounds() {
    let rng = &mut generator();
    let vendor = std::arch::x86_64::__cpuid(0);
    let exact = vendor.ebx == u32::from_le_bytes(*b"Genu");
    for case in 0..cases() + 4096 {
        let a = if case < 4096 { (case << 12) | 0x3F80_0000 } else { single(rng) };
        for (ours, host) in [(sse::rcp(a), rcpss(0x1F80, 0, a).0), (sse::rsqrt(a), rsqrtss(0x1F80, 0, a).0)] {
            let error = (f32::from_bits(ours) / f32::from_bits(host) - 1.0).abs();
            assert!(ours == host || (!exact && error < 3.0 / 4096.0), "{a:08x}: {ours:08x}, the host gives {host:08x}");
        }
    }
}

// x87.

/// What an x87 instruction left behind: ST(0), ST(1) if `two` results were asked for, and the status word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HostX87 {
    st0: F80,
    st1: F80,
    status: u16,
}

type HostFunction = fn(u16, F80, F80) -> HostX87;

macro_rules! x87_host {
    ($($name:ident $text:literal;)*) => {$(
        /// Runs the instruction with ST(0) = `a`, ST(1) = `b`.
        fn $name(control: u16, a: F80, b: F80) -> HostX87 {
            let mut first = [0u8; 16];
            let mut second = [0u8; 16];
            first[..10].copy_from_slice(&a.to_le_bytes());
            second[..10].copy_from_slice(&b.to_le_bytes());
            let status: u16;
            let masked = x87::control::INITIAL;
            // SAFETY: FNINIT leaves the x87 as the ABI wants it; exceptions are cleared by FNCLEX and masked again
            // before the next waiting instruction; memory accesses stay in the two arrays and the control words.
            unsafe {
                asm!("fninit", "fld tbyte ptr [{b}]", "fld tbyte ptr [{a}]", "fldcw [{control}]", $text,
                    "fnstsw ax", "fnclex", "fldcw [{masked}]", "fstp tbyte ptr [{a}]", "fstp tbyte ptr [{b}]", "fninit",
                    a = in(reg) first.as_mut_ptr(), b = in(reg) second.as_mut_ptr(),
                    control = in(reg) &raw const control, masked = in(reg) &raw const masked,
                    out("ax") status, out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _, options(nostack));
            }
            let value = |bytes: [u8; 16]| {
                let mut ten = [0; 10];
                ten.copy_from_slice(&bytes[..10]);
                F80::from_le_bytes(ten)
            };
            HostX87 { st0: value(first), st1: value(second), status }
        }
    )*};
}

x87_host! {
    fadd "fadd st(0), st(1)";
    fsub "fsub st(0), st(1)";
    fmul "fmul st(0), st(1)";
    fdiv "fdiv st(0), st(1)";
    fsqrt "fsqrt";
    fprem "fprem";
    fprem1 "fprem1";
    fscale "fscale";
    frndint "frndint";
    fcom "fcom st(1)";
    fucom "fucom st(1)";
    fxtract "fstp st(1); fxtract";
    fsin "fsin";
    fcos "fcos";
    fsincos "fstp st(1); fsincos";
    fptan "fstp st(1); fptan";
    f2xm1 "f2xm1";
    fyl2x "fyl2x; fldz; fxch";
    fyl2xp1 "fyl2xp1; fldz; fxch";
    fpatan "fpatan; fldz; fxch";
    fld1 "fstp st(0); fld1";
    fldl2t "fstp st(0); fldl2t";
    fldl2e "fstp st(0); fldl2e";
    fldpi "fstp st(0); fldpi";
    fldlg2 "fstp st(0); fldlg2";
    fldln2 "fstp st(0); fldln2";
}

/// Whether the host may answer otherwise than Intel's processors: AMD's FSCALE, FPREM and the like also report an
/// underflow that is unmasked, and wrap the exponent, where they hand a denormal operand through (SDM Vol. 1 4.9.1.5
/// asks for it only where the result is computed).
fn unmasked_underflow_of_denormals(control: u16, a: F80, b: F80) -> bool {
    let denormal = |x: F80| x.sign_exp & 0x7FFF == 0 && x.significand != 0;
    let unmasked = u32::from(control) & flags::UE == 0;
    emu_tests::host::vendor() != emu_tests::host::Vendor::Intel && unmasked && (denormal(a) || denormal(b))
}

/// Compares one operation that gives one value.
fn x87_check(rng: &mut Rng, name: &str, host: HostFunction, ours: impl Fn(&mut X87Env, F80, F80) -> F80) {
    for _ in 0..cases() {
        let a = extended(rng);
        let b = related(rng, a);
        let masks = exception_masks(rng);
        let control = control_word(rng, masks);
        if unmasked_underflow_of_denormals(control, a, b) {
            continue;
        }
        let expected = host(control, a, b);
        let mut env = X87Env::new(control);
        let result = ours(&mut env, a, b);
        let result = if env.aborted() { a } else { result };
        let raised = u32::from(expected.status) & flags::ALL;
        let c1 = expected.status & 0x200 != 0;
        assert!(
            result == expected.st0 && env.raised() == raised && env.rounded_up() == c1,
            "{name} {a:x?}, {b:x?} control {control:04x}: {result:x?} raised {:02x} C1 {}, the host gives {expected:x?}",
            env.raised(),
            env.rounded_up(),
        );
    }
}

#[test]
fn x87_arithmetic_random_operands_match_host() {
    let rng = &mut generator();
    x87_check(rng, "fadd", fadd, x87::add);
    x87_check(rng, "fsub", fsub, x87::sub);
    x87_check(rng, "fmul", fmul, x87::mul);
    x87_check(rng, "fdiv", fdiv, x87::div);
    x87_check(rng, "fsqrt", fsqrt, |env, a, _| x87::sqrt(env, a));
    x87_check(rng, "frndint", frndint, |env, a, _| x87::round_to_integral(env, a));
    x87_check(rng, "fscale", fscale, x87::scale);
}

#[test]
fn x87_remainder_random_operands_match_host() {
    let rng = &mut generator();
    type Ours = fn(&mut X87Env, F80, F80) -> x87::Remainder;
    let pairs: [(&str, HostFunction, Ours); 2] =
        [("fprem", fprem, x87::partial_remainder), ("fprem1", fprem1, x87::ieee_remainder)];
    for (name, host, ours) in pairs {
        for _ in 0..cases() {
            let a = extended(rng);
            let b = related(rng, a);
            let masks = exception_masks(rng);
            let control = control_word(rng, masks);
            if unmasked_underflow_of_denormals(control, a, b) {
                continue;
            }
            let expected = host(control, a, b);
            let mut env = X87Env::new(control);
            let result = ours(&mut env, a, b);
            let value = if env.aborted() { a } else { result.value };
            let condition = match result.quotient {
                _ if env.aborted() => expected.status & 0x4700,
                x87::Quotient::Bits(q) => {
                    u16::from(q & 1) << 9 | u16::from(q >> 1 & 1) << 14 | u16::from(q >> 2 & 1) << 8
                }
                x87::Quotient::Incomplete => 0x400,
                x87::Quotient::Absent => 0,
            };
            let raised = u32::from(expected.status) & flags::ALL;
            assert!(
                value == expected.st0 && env.raised() == raised && condition == expected.status & 0x4700,
                "{name} {a:x?}, {b:x?} control {control:04x}: {result:x?} raised {:02x}, the host gives {expected:x?}",
                env.raised(),
            );
        }
    }
}

#[test]
fn x87_compare_random_operands_match_host() {
    let rng = &mut generator();
    type Ours = fn(&mut X87Env, F80, F80) -> Relation;
    let pairs: [(&str, HostFunction, Ours); 2] =
        [("fcom", fcom, x87::compare_ordered), ("fucom", fucom, x87::compare_unordered)];
    for (name, host, ours) in pairs {
        for _ in 0..cases() {
            let a = extended(rng);
            let b = related(rng, a);
            let control = control_word(rng, 0x3F);
            let expected = host(control, a, b);
            let mut env = X87Env::new(control);
            let relation = ours(&mut env, a, b);
            let condition = match relation {
                Relation::Greater => 0,
                Relation::Less => 0x100,
                Relation::Equal => 0x4000,
                Relation::Unordered => 0x4500,
            };
            assert_eq!(
                (condition | env.raised() as u16, a, b),
                (expected.status & 0x473F, a, b),
                "{name} {a:x?}, {b:x?}: {relation:?}"
            );
        }
    }
}

#[test]
fn x87_extract_random_operands_match_host() {
    let rng = &mut generator();
    for _ in 0..cases() {
        let a = extended(rng);
        let control = control_word(rng, 0x3F);
        let expected = fxtract(control, a, F80::ZERO);
        let mut env = X87Env::new(control);
        let (exponent, significand) = x87::extract(&mut env, a);
        assert_eq!(
            (significand, exponent, env.raised() as u16),
            (expected.st0, expected.st1, expected.status & 0x3F),
            "fxtract {a:x?}"
        );
    }
}

macro_rules! x87_store_host {
    ($($name:ident $text:literal;)*) => {$(
        /// Stores `a` with the instruction; gives the ten bytes at the destination, zeroed before, and the status word.
        fn $name(control: u16, a: F80) -> ([u8; 10], u16) {
            let mut memory = [0u8; 16];
            let source = a.to_le_bytes();
            let status: u16;
            let masked = x87::control::INITIAL;
            // SAFETY: as in `x87_host`; the instruction writes at most ten bytes at `memory`.
            unsafe {
                asm!("fninit", "fld tbyte ptr [{source}]", "fldcw [{control}]", $text,
                    "fnstsw ax", "fnclex", "fldcw [{masked}]", "fninit",
                    source = in(reg) source.as_ptr(), memory = in(reg) memory.as_mut_ptr(),
                    control = in(reg) &raw const control, masked = in(reg) &raw const masked,
                    out("ax") status, out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _, options(nostack));
            }
            let mut ten = [0; 10];
            ten.copy_from_slice(&memory[..10]);
            (ten, status)
        }
    )*};
}

x87_store_host! {
    fstp_m32 "fstp dword ptr [{memory}]";
    fstp_m64 "fstp qword ptr [{memory}]";
    fistp_m16 "fistp word ptr [{memory}]";
    fistp_m32 "fistp dword ptr [{memory}]";
    fistp_m64 "fistp qword ptr [{memory}]";
    fisttp_m16 "fisttp word ptr [{memory}]";
    fisttp_m32 "fisttp dword ptr [{memory}]";
    fisttp_m64 "fisttp qword ptr [{memory}]";
    fbstp_m80 "fbstp tbyte ptr [{memory}]";
}

#[test]
fn x87_stores_random_operands_match_host() {
    let rng = &mut generator();
    fn bytes<const N: usize>(value: [u8; N]) -> [u8; 10] {
        let mut ten = [0; 10];
        ten[..N].copy_from_slice(&value);
        ten
    }
    fn low<const N: usize>(value: i64) -> [u8; 10] {
        bytes::<N>(std::array::from_fn(|index| value.to_le_bytes()[index]))
    }
    type Host = fn(u16, F80) -> ([u8; 10], u16);
    type Ours = fn(&mut X87Env, F80) -> [u8; 10];
    let stores: [(&str, Host, Ours); 9] = [
        ("fstp m32", fstp_m32, |env, a| bytes(x87::to_single(env, a).to_le_bytes())),
        ("fstp m64", fstp_m64, |env, a| bytes(x87::to_double(env, a).to_le_bytes())),
        ("fistp m16", fistp_m16, |env, a| low::<2>(x87::to_int(env, a, 16))),
        ("fistp m32", fistp_m32, |env, a| low::<4>(x87::to_int(env, a, 32))),
        ("fistp m64", fistp_m64, |env, a| low::<8>(x87::to_int(env, a, 64))),
        ("fisttp m16", fisttp_m16, |env, a| low::<2>(x87::to_int_truncated(env, a, 16))),
        ("fisttp m32", fisttp_m32, |env, a| low::<4>(x87::to_int_truncated(env, a, 32))),
        ("fisttp m64", fisttp_m64, |env, a| low::<8>(x87::to_int_truncated(env, a, 64))),
        ("fbstp", fbstp_m80, x87::to_bcd),
    ];
    for (name, host, ours) in stores {
        for case in 0..cases() {
            let a = match case % 3 {
                0 => extended(rng),
                1 => x87::from_double(&mut X87Env::new(0x37F), near_integer_limits(rng)),
                // Around the ends of single and double precision, of 16 bits and of 18 digits.
                _ => {
                    let base = [0x3C01, 0x3BCD, 0x43FE, 0x3F81, 0x3F6A, 0x407E, 0x400D, 0x403A][rng.usize(..8)];
                    F80::new((base + rng.u16(..3)) | (rng.u16(..2) << 15), 1 << 63 | fraction(rng, 63))
                }
            };
            let masks = exception_masks(rng);
            let control = control_word(rng, masks);
            let (expected, status) = host(control, a);
            let mut env = X87Env::new(control);
            let result = ours(&mut env, a);
            let result = if env.store_aborted() { [0; 10] } else { result };
            assert!(
                result == expected
                    && env.raised() == u32::from(status) & flags::ALL
                    && env.rounded_up() == (status & 0x200 != 0),
                "{name} {a:x?} control {control:04x}: {result:x?} raised {:02x} C1 {}, \
                 the host gives {expected:x?} status {status:04x}",
                env.raised(),
                env.rounded_up(),
            );
        }
    }
}

macro_rules! x87_load_host {
    ($($name:ident $text:literal;)*) => {$(
        /// Loads from memory with the instruction; gives ST(0) and the status word.
        fn $name(memory: &[u8; 10]) -> (F80, u16) {
            let mut destination = [0u8; 10];
            let status: u16;
            // SAFETY: as in `x87_host`; the instruction reads at most ten bytes at `memory`.
            unsafe {
                asm!("fninit", $text, "fnstsw ax", "fstp tbyte ptr [{destination}]", "fninit",
                    memory = in(reg) memory.as_ptr(), destination = in(reg) destination.as_mut_ptr(),
                    out("ax") status, out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _, options(nostack));
            }
            (F80::from_le_bytes(destination), status)
        }
    )*};
}

x87_load_host! {
    fld_m32 "fld dword ptr [{memory}]";
    fld_m64 "fld qword ptr [{memory}]";
    fild_m64 "fild qword ptr [{memory}]";
    fbld_m80 "fbld tbyte ptr [{memory}]";
}

#[test]
fn x87_loads_random_operands_match_host() {
    let rng = &mut generator();
    type Host = fn(&[u8; 10]) -> (F80, u16);
    type Ours = fn(&mut X87Env, &[u8; 10]) -> F80;
    fn eight(bytes: &[u8; 10]) -> [u8; 8] {
        std::array::from_fn(|index| bytes[index])
    }
    let loads: [(&str, Host, Ours); 4] = [
        ("fld m32", fld_m32, |env, m| x87::from_single(env, u64::from_le_bytes(eight(m)) as u32)),
        ("fld m64", fld_m64, |env, m| x87::from_double(env, u64::from_le_bytes(eight(m)))),
        ("fild m64", fild_m64, |_, m| x87::from_int(i64::from_le_bytes(eight(m)))),
        ("fbld", fbld_m80, |_, m| x87::from_bcd(*m)),
    ];
    for (name, host, ours) in loads {
        for _ in 0..cases() {
            let mut memory = [0; 10];
            let bits = match name {
                "fld m32" => single(rng).into(),
                "fld m64" => double(rng),
                _ => rng.u64(..) >> rng.u32(..64),
            };
            memory[..8].copy_from_slice(&bits.to_le_bytes());
            if name == "fbld" {
                memory = std::array::from_fn(|_| rng.u8(..10) | rng.u8(..10) << 4);
                memory[9] = rng.u8(..2) << 7;
            }
            let (expected, status) = host(&memory);
            let mut env = X87Env::new(x87::control::INITIAL);
            let result = ours(&mut env, &memory);
            assert!(
                result == expected && env.raised() == u32::from(status) & flags::ALL,
                "{name} {memory:x?}: {result:x?} raised {:02x}, the host gives {expected:x?} status {status:04x}",
                env.raised(),
            );
        }
    }
}

/// The distance of two values in units in the last place; none if they differ in kind.
fn ulps(a: F80, b: F80) -> Option<u64> {
    let key = |x: F80| {
        let magnitude = i128::from(x.sign_exp & 0x7FFF) << 63 | i128::from(x.significand & (u64::MAX >> 1));
        if x.is_negative() { -magnitude } else { magnitude }
    };
    u64::try_from((key(a) - key(b)).unsigned_abs()).ok()
}

type Transcendental = fn(&mut X87Env, F80, F80) -> Option<(F80, F80)>;

/// Compares to one unit in the last place, and reports how many results are the same to the last bit.
fn transcendental_check(
    rng: &mut Rng,
    name: &str,
    operands: fn(&mut Rng) -> (F80, F80),
    host: HostFunction,
    ours: Transcendental,
) {
    let mut identical = 0;
    for case in 0..cases() {
        let special = case % 4 == 0;
        let (a, b) = if special { (extended(rng), extended(rng)) } else { operands(rng) };
        let control = if special { 0x37F | rng.u16(..4) << 10 } else { 0x37F };
        let domain = match name {
            "f2xm1" => (a.sign_exp & 0x7FFF) < 0x3FFF || a.class() == x87::Class::Unsupported,
            "fyl2xp1" => (a.sign_exp & 0x7FFF) < 0x3FFD,
            _ => true,
        };
        if !domain {
            continue;
        }
        let expected = host(control, a, b);
        let mut env = X87Env::new(control);
        let result = ours(&mut env, a, b);
        let expected_value = (expected.status & 0x400 == 0).then_some((expected.st0, expected.st1));
        let close = match (result, expected_value) {
            (None, None) => true,
            (Some(x), Some(y)) => ulps(x.0, y.0).is_some_and(|d| d <= 1) && ulps(x.1, y.1).is_some_and(|d| d <= 1),
            _ => false,
        };
        // At the ends of the exponent range the last bit decides about underflow and overflow.
        let ignored = [expected.st0, expected.st1].iter().fold(0, |ignored, value| {
            ignored
                | match value.sign_exp & 0x7FFF {
                    0 | 1 => flags::UE,
                    0x7FFE.. => flags::OE,
                    _ => 0,
                }
        });
        let raised = u32::from(expected.status) & flags::ALL & !ignored;
        identical += u32::from(result == expected_value);
        assert!(
            close && env.raised() & !ignored == raised,
            "{name} {a:x?}, {b:x?} control {control:04x}: {result:x?} raised {:02x}, the host gives {expected:x?}",
            env.raised(),
        );
    }
    println!("{name}: {identical} of {} identical", cases());
}

#[test]
fn x87_transcendentals_random_operands_match_host_within_one_unit() {
    let rng = &mut generator();
    fn spread(rng: &mut Rng, lowest: u16, highest: u16) -> F80 {
        F80::new((rng.u16(..2) << 15) | rng.u16(lowest..=highest), 1 << 63 | rng.u64(..))
    }
    fn angle(rng: &mut Rng) -> (F80, F80) {
        let small = rng.bool();
        (if small { spread(rng, 0x3FF0, 0x4003) } else { spread(rng, 0x3FC0, 0x403D) }, F80::ONE)
    }
    fn fraction(rng: &mut Rng) -> (F80, F80) {
        (spread(rng, 0x3FC0, 0x3FFE), spread(rng, 0x3F00, 0x40FF))
    }
    fn point(rng: &mut Rng) -> (F80, F80) {
        let near = rng.bool();
        let x = spread(rng, 0x3FFF, 0x3FFF);
        (x, if near { spread(rng, 0x3FF8, 0x4006) } else { spread(rng, 0x3F00, 0x40FF) })
    }
    fn positive(rng: &mut Rng) -> (F80, F80) {
        let near = rng.bool();
        let x = if near { spread(rng, 0x3FFE, 0x3FFF) } else { spread(rng, 0x0001, 0x7FFE) };
        (x.abs(), spread(rng, 0x3F00, 0x40FF))
    }
    transcendental_check(rng, "fsin", angle, fsin, |env, a, b| x87::sine(env, a).map(|x| (x, b)));
    transcendental_check(rng, "fcos", angle, fcos, |env, a, b| x87::cosine(env, a).map(|x| (x, b)));
    transcendental_check(rng, "fptan", angle, fptan, |env, a, _| {
        x87::tangent(env, a).map(|(tangent, one)| (one, tangent))
    });
    transcendental_check(rng, "fsincos", angle, fsincos, |env, a, _| {
        x87::sine_cosine(env, a).map(|(sine, cosine)| (cosine, sine))
    });
    transcendental_check(rng, "f2xm1", fraction, f2xm1, |env, a, b| Some((x87::exp2_minus_1(env, a), b)));
    transcendental_check(rng, "fyl2x", positive, fyl2x, |env, a, b| Some((x87::log2_times(env, a, b), F80::ZERO)));
    transcendental_check(rng, "fyl2xp1", fraction, fyl2xp1, |env, a, b| {
        Some((x87::log2_plus_1_times(env, a, b), F80::ZERO))
    });
    transcendental_check(rng, "fpatan", point, fpatan, |env, a, b| Some((x87::arc_tangent(env, b, a), F80::ZERO)));
}

#[test]
fn x87_constants_all_roundings_match_host() {
    use x87::Constant::{LnOf2, Log2Of10, Log2OfE, Log10Of2, One, Pi};
    let pairs: [(x87::Constant, HostFunction); 6] =
        [(One, fld1), (Log2Of10, fldl2t), (Log2OfE, fldl2e), (Pi, fldpi), (Log10Of2, fldlg2), (LnOf2, fldln2)];
    for (constant, host) in pairs {
        for rc in 0..4 {
            let control = 0x37F | rc << 10;
            let expected = host(control, F80::ZERO, F80::ZERO);
            assert_eq!(x87::constant(&X87Env::new(control), constant), expected.st0, "{constant:?} rounding {rc}");
        }
    }
}
