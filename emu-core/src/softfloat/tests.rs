//! Directed cases that need no x86 host. `tests/tests/softfloat_host.rs` compares millions of random ones.

use super::flags::{DE, IE, OE, PE, UE, ZE};
use super::sse::{self, Predicate, RoundControl, SseEnv, mxcsr};
use super::x87::{self, Class, F80, Quotient, X87Env};
use super::{Relation, Rounding};

const SNAN: u32 = 0x7F80_0001;
const QNAN: u32 = 0x7FC0_1234;
const DENORMAL: u32 = 1;

fn single(value: f32) -> u32 {
    value.to_bits()
}

/// The result and the flags of one operation under `control` (beside the masks of all exceptions).
fn sse(control: u32, operation: impl Fn(&mut SseEnv) -> u32) -> (u32, u32) {
    let mut env = SseEnv::new(mxcsr::RESET | control);
    (operation(&mut env), env.raised())
}

fn rounding(rounding: Rounding) -> u32 {
    (rounding as u32) << mxcsr::RC_SHIFT
}

#[test]
fn sse_nan_operands_first_one_wins_quieted() {
    assert_eq!(sse(0, |env| sse::add(env, SNAN, QNAN)), (SNAN | 0x40_0000, IE));
    assert_eq!(sse(0, |env| sse::add(env, QNAN, SNAN)), (QNAN, IE));
    assert_eq!(sse(0, |env| sse::mul(env, single(1.0), QNAN)), (QNAN, 0));
    // A NaN keeps a denormal from being reported.
    assert_eq!(sse(0, |env| sse::mul(env, DENORMAL, QNAN)), (QNAN, 0));
    // MIN and MAX return the second operand as it is.
    assert_eq!(sse(0, |env| sse::min(env, single(1.0), SNAN)), (SNAN, IE));
    assert_eq!(sse(0, |env| sse::max(env, QNAN, single(1.0))), (single(1.0), IE));
}

#[test]
fn sse_invalid_operations_give_the_default_nan() {
    let infinity = single(f32::INFINITY);
    let default = 0xFFC0_0000;
    assert_eq!(sse(0, |env| sse::sub(env, infinity, infinity)), (default, IE));
    assert_eq!(sse(0, |env| sse::mul(env, 0, infinity)), (default, IE));
    assert_eq!(sse(0, |env| sse::div(env, 0, 0)), (default, IE));
    assert_eq!(sse(0, |env| sse::sqrt(env, single(-1.0))), (default, IE));
    assert_eq!(sse(0, |env| sse::div(env, single(-1.0), 0)), (single(f32::NEG_INFINITY), ZE));
}

#[test]
fn sse_exact_zero_sum_is_negative_only_when_rounding_down() {
    let sum = |control| sse(control, |env| sse::add(env, single(1.5), single(-1.5)));
    assert_eq!(sum(0), (0, 0));
    assert_eq!(sum(rounding(Rounding::Down)), (1 << 31, 0));
    assert_eq!(sum(rounding(Rounding::Up)), (0, 0));
}

#[test]
fn sse_overflow_and_underflow_follow_rounding_ftz_and_daz() {
    let largest = single(f32::MAX);
    let overflow = |control| sse(control, |env| sse::add(env, largest, largest));
    assert_eq!(overflow(0), (single(f32::INFINITY), OE | PE));
    assert_eq!(overflow(rounding(Rounding::Zero)), (largest, OE | PE));
    let tiny = single(f32::MIN_POSITIVE);
    let inexact = |control| sse(control, |env| sse::mul(env, tiny | 1, single(0.5)));
    assert_eq!(inexact(0), (tiny / 2, UE | PE));
    assert_eq!(inexact(mxcsr::FTZ), (0, UE | PE));
    // An exact denormal result is no underflow, but FTZ flushes it.
    assert_eq!(sse(0, |env| sse::mul(env, tiny, single(0.5))), (tiny / 2, 0));
    assert_eq!(sse(mxcsr::FTZ, |env| sse::mul(env, tiny, single(0.5))), (0, UE | PE));
    assert_eq!(sse(0, |env| sse::mul(env, DENORMAL, single(2.0))), (2, DE));
    assert_eq!(sse(mxcsr::DAZ, |env| sse::mul(env, DENORMAL, single(2.0))), (0, 0));
}

#[test]
fn sse_unmasked_exception_hides_those_detected_after_it() {
    // Lane one divides by zero, unmasked; lane two is inexact.
    let mut env = SseEnv::new(mxcsr::RESET & !(ZE << mxcsr::MASK_SHIFT));
    sse::div(&mut env, single(1.0), 0);
    sse::div(&mut env, single(1.0), single(3.0));
    let unmasked = env.finish().expect_err("division by zero is not masked");
    assert_eq!(unmasked.mxcsr & 0x3F, ZE);
}

#[test]
fn sse_sticky_precision_flag_makes_no_difference_to_results() {
    let operands = [0.1, 1.0 / 3.0, 1e10, -7.25, 3.0f64].map(f64::to_bits);
    for a in operands {
        for b in operands {
            for operation in [sse::add::<u64>, sse::sub, sse::mul, sse::div] {
                let mut clear = SseEnv::new(mxcsr::RESET);
                let mut sticky = SseEnv::new(mxcsr::RESET | PE);
                assert_eq!(operation(&mut clear, a, b), operation(&mut sticky, a, b));
                assert_eq!(clear.raised() & !PE, sticky.raised() & !PE);
            }
        }
    }
}

#[test]
fn sse_predicates_signal_as_their_names_say() {
    let mut env = SseEnv::new(mxcsr::RESET);
    assert!(sse::compare_predicate(&mut env, Predicate::Unordered, QNAN, single(1.0)));
    assert_eq!(env.raised(), 0);
    assert!(sse::compare_predicate(&mut env, Predicate::NotLessThan, QNAN, single(1.0)));
    assert_eq!(env.raised(), IE);
    assert_eq!(sse::compare_unordered(&mut env, 1u32 << 31, 0), Relation::Equal);
}

#[test]
fn sse_conversions_round_and_saturate_to_the_indefinite() {
    let mut env = SseEnv::new(mxcsr::RESET);
    assert_eq!(sse::to_int(&mut env, 2.5f64.to_bits(), 32), 2);
    assert_eq!(sse::to_int_truncated(&mut env, (-2.9f64).to_bits(), 64), -2);
    assert_eq!(env.raised(), PE);
    assert_eq!(sse::to_int(&mut env, 2147483648f64.to_bits(), 32), i64::from(i32::MIN));
    assert_eq!(env.raised(), PE | IE);
    let up = RoundControl { rounding: Some(Rounding::Up), suppress_precision: true };
    let mut env = SseEnv::new(mxcsr::RESET);
    assert_eq!(sse::round_to_integral(&mut env, single(1.25), up), single(2.0));
    assert_eq!(sse::round_to_integral(&mut env, single(-0.25), up), single(-0.0));
    assert_eq!(env.raised(), 0);
}

#[test]
fn sse_reciprocal_approximations_are_within_documented_error() {
    for n in 1..1000u16 {
        let value = f32::from(n) * 0.37;
        let reciprocal = f32::from_bits(sse::rcp(single(value)));
        let root = f32::from_bits(sse::rsqrt(single(value)));
        assert!((reciprocal * value - 1.0).abs() <= 1.5 / 4096.0, "{value}");
        assert!((root * value.sqrt() - 1.0).abs() <= 1.5 / 4096.0, "{value}");
    }
}

fn extended(value: f64) -> F80 {
    x87::from_double(&mut X87Env::new(x87::control::INITIAL), value.to_bits())
}

fn double(value: F80) -> f64 {
    f64::from_bits(x87::to_double(&mut X87Env::new(x87::control::INITIAL), value))
}

#[test]
fn x87_classes_of_unsupported_encodings_are_invalid_operands() {
    let unnormal = F80::new(0x4000, 1);
    assert_eq!(unnormal.class(), Class::Unsupported);
    let mut env = X87Env::new(x87::control::INITIAL);
    assert_eq!(x87::add(&mut env, unnormal, F80::ONE), F80::INDEFINITE);
    assert_eq!(env.raised(), IE);
    // A pseudo-denormal is a denormal operand with the value that it reads as.
    let mut env = X87Env::new(x87::control::INITIAL);
    let pseudo = F80::new(0, 1 << 63);
    assert_eq!(x87::add(&mut env, pseudo, F80::ZERO), F80::new(1, 1 << 63));
    assert_eq!(env.raised(), DE);
}

#[test]
fn x87_two_nans_larger_significand_wins() {
    let small = F80::new(0x7FFF, 0xC000_0000_0000_0001);
    let large = F80::new(0xFFFF, 0xC000_0000_0000_0002);
    let mut env = X87Env::new(x87::control::INITIAL);
    assert_eq!(x87::mul(&mut env, small, large), large);
    let signalling = F80::new(0x7FFF, 0xBFFF_FFFF_FFFF_FFFF);
    assert_eq!(x87::mul(&mut env, signalling, small), small);
    assert_eq!(env.raised(), IE);
}

#[test]
fn x87_precision_control_rounds_and_c1_tells_the_direction() {
    let third = |control| {
        let mut env = X87Env::new(control);
        let value = x87::div(&mut env, F80::ONE, extended(3.0));
        (value.significand, env.rounded_up(), env.raised())
    };
    assert_eq!(third(0x37F), (0xAAAA_AAAA_AAAA_AAAB, true, PE));
    assert_eq!(third(0x27F), (0xAAAA_AAAA_AAAA_A800, false, PE));
    assert_eq!(third(0x07F), (0xAAAA_AB00_0000_0000, true, PE));
    assert_eq!(third(0xF7F), (0xAAAA_AAAA_AAAA_AAAA, false, PE));
}

#[test]
fn x87_unmasked_overflow_adjusts_the_exponent() {
    let largest = F80::new(0x7FFE, u64::MAX);
    let mut env = X87Env::new(x87::control::INITIAL & !(OE as u16));
    let value = x87::mul(&mut env, largest, extended(2.0));
    assert_eq!(value, F80::new(0x7FFF - 24576, u64::MAX));
    assert_eq!((env.raised(), env.aborted(), env.store_aborted()), (OE, false, true));
}

#[test]
fn x87_remainders_differ_in_the_rounding_of_the_quotient() {
    let mut env = X87Env::new(x87::control::INITIAL);
    let truncated = x87::partial_remainder(&mut env, extended(7.0), extended(4.0));
    assert_eq!((double(truncated.value), truncated.quotient), (3.0, Quotient::Bits(1)));
    let nearest = x87::ieee_remainder(&mut env, extended(7.0), extended(4.0));
    assert_eq!((double(nearest.value), nearest.quotient), (-1.0, Quotient::Bits(2)));
    let partial = x87::partial_remainder(&mut env, extended(1e30), extended(3.0));
    assert_eq!(partial.quotient, Quotient::Incomplete);
}

#[test]
fn x87_integers_and_decimals_round_trip() {
    let mut env = X87Env::new(x87::control::INITIAL);
    for value in [0, 1, -1, 999_999_999_999_999_999, -123_456_789, 42] {
        let extended = x87::from_int(value);
        assert_eq!(x87::to_int(&mut env, extended, 64), value);
        let digits = x87::to_bcd(&mut env, extended);
        assert_eq!(x87::to_int(&mut env, x87::from_bcd(digits), 64), value);
    }
    assert_eq!(env.raised(), 0);
    assert_eq!(x87::to_bcd(&mut env, x87::from_int(1_000_000_000_000_000_000)), x87::BCD_INDEFINITE);
    assert_eq!(x87::to_int(&mut env, x87::from_int(32768), 16), i64::from(i16::MIN));
    assert_eq!(env.raised(), IE);
}

#[test]
fn x87_transcendentals_agree_with_the_host_library() {
    let mut env = X87Env::new(x87::control::INITIAL);
    let near = |ours: F80, expected: f64| {
        let ours = double(ours);
        assert!((ours - expected).abs() <= expected.abs() * 1e-15, "{ours} {expected}");
    };
    for n in 1..200 {
        let value = f64::from(n) * 0.0731;
        near(x87::sine(&mut env, extended(value)).expect("in range"), value.sin());
        near(x87::cosine(&mut env, extended(value)).expect("in range"), value.cos());
        near(x87::log2_times(&mut env, extended(value), F80::ONE), value.log2());
        near(x87::arc_tangent(&mut env, extended(-value), extended(-1.25)), (-value).atan2(-1.25));
        near(x87::exp2_minus_1(&mut env, extended(value / 15.0)), (value / 15.0 * std::f64::consts::LN_2).exp_m1());
        near(
            x87::log2_plus_1_times(&mut env, extended(value / 60.0), F80::ONE),
            (value / 60.0).ln_1p() / std::f64::consts::LN_2,
        );
    }
    assert_eq!(x87::sine(&mut env, extended(9.3e18)), None);
    // Exact cases.
    assert_eq!(double(x87::log2_times(&mut env, extended(0.125), extended(2.0))), -6.0);
    assert_eq!(double(x87::exp2_minus_1(&mut env, extended(-1.0))), -0.5);
    assert_eq!(x87::cosine(&mut env, F80::ZERO), Some(F80::ONE));
}
