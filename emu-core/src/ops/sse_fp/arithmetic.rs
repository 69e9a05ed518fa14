//! Arithmetic, scalar and packed: ADD, SUB, MUL, DIV, MIN, MAX, SQRT, RCP, RSQRT, ROUND, ADDSUB, HADD, HSUB, DPPS, DPPD.

use super::FpLane;
use crate::cpu::fault::Fault;
use crate::cpu::xmm::Xmm;
use crate::decode::insn::Insn;
use crate::exec::Vcpu;
use crate::ops::Exec;
use crate::softfloat::sse::{self, RoundControl, Scalar, SseEnv};
use iced_x86::Mnemonic;

/// The rows of this file.
pub fn exec(m: Mnemonic) -> Option<Exec> {
    Some(match m {
        Mnemonic::Addps => packed::<Add, u32, 4>,
        Mnemonic::Addpd => packed::<Add, u64, 2>,
        Mnemonic::Addss => scalar::<Add, u32>,
        Mnemonic::Addsd => scalar::<Add, u64>,
        Mnemonic::Subps => packed::<Sub, u32, 4>,
        Mnemonic::Subpd => packed::<Sub, u64, 2>,
        Mnemonic::Subss => scalar::<Sub, u32>,
        Mnemonic::Subsd => scalar::<Sub, u64>,
        Mnemonic::Mulps => packed::<Mul, u32, 4>,
        Mnemonic::Mulpd => packed::<Mul, u64, 2>,
        Mnemonic::Mulss => scalar::<Mul, u32>,
        Mnemonic::Mulsd => scalar::<Mul, u64>,
        Mnemonic::Divps => packed::<Div, u32, 4>,
        Mnemonic::Divpd => packed::<Div, u64, 2>,
        Mnemonic::Divss => scalar::<Div, u32>,
        Mnemonic::Divsd => scalar::<Div, u64>,
        Mnemonic::Minps => packed::<Min, u32, 4>,
        Mnemonic::Minpd => packed::<Min, u64, 2>,
        Mnemonic::Minss => scalar::<Min, u32>,
        Mnemonic::Minsd => scalar::<Min, u64>,
        Mnemonic::Maxps => packed::<Max, u32, 4>,
        Mnemonic::Maxpd => packed::<Max, u64, 2>,
        Mnemonic::Maxss => scalar::<Max, u32>,
        Mnemonic::Maxsd => scalar::<Max, u64>,
        Mnemonic::Sqrtps => packed::<Sqrt, u32, 4>,
        Mnemonic::Sqrtpd => packed::<Sqrt, u64, 2>,
        Mnemonic::Sqrtss => scalar::<Sqrt, u32>,
        Mnemonic::Sqrtsd => scalar::<Sqrt, u64>,
        Mnemonic::Rcpps => |cpu, insn| approximate::<4>(cpu, insn, sse::rcp),
        Mnemonic::Rcpss => |cpu, insn| approximate::<1>(cpu, insn, sse::rcp),
        Mnemonic::Rsqrtps => |cpu, insn| approximate::<4>(cpu, insn, sse::rsqrt),
        Mnemonic::Rsqrtss => |cpu, insn| approximate::<1>(cpu, insn, sse::rsqrt),
        Mnemonic::Roundps => round_packed::<u32, 4>,
        Mnemonic::Roundpd => round_packed::<u64, 2>,
        Mnemonic::Roundss => round_scalar::<u32>,
        Mnemonic::Roundsd => round_scalar::<u64>,
        Mnemonic::Addsubps => add_sub::<u32, 4>,
        Mnemonic::Addsubpd => add_sub::<u64, 2>,
        Mnemonic::Haddps => horizontal::<Add, u32, 4>,
        Mnemonic::Haddpd => horizontal::<Add, u64, 2>,
        Mnemonic::Hsubps => horizontal::<Sub, u32, 4>,
        Mnemonic::Hsubpd => horizontal::<Sub, u64, 2>,
        Mnemonic::Dpps => dot_product_single,
        Mnemonic::Dppd => dot_product_double,
        _ => return None,
    })
}

/// A lane operation; those with one operand use `b`.
pub(super) trait Operation {
    fn apply<T: Scalar>(env: &mut SseEnv, a: T, b: T) -> T;
}

macro_rules! operations {
    ($($name:ident($a:ident, $b:ident) = $function:ident($($operand:ident),*);)*) => {$(
        pub(super) struct $name;
        impl Operation for $name {
            #[inline(always)]
            fn apply<T: Scalar>(env: &mut SseEnv, $a: T, $b: T) -> T {
                sse::$function(env, $($operand),*)
            }
        }
    )*};
}

operations! {
    Add(a, b) = add(a, b);
    Sub(a, b) = sub(a, b);
    Mul(a, b) = mul(a, b);
    Div(a, b) = div(a, b);
    Min(a, b) = min(a, b);
    Max(a, b) = max(a, b);
    Sqrt(_a, b) = sqrt(b);
}

/// The operation on all lanes.
#[inline(always)]
pub(super) fn lanes<O: Operation, T: FpLane, const N: usize>(env: &mut SseEnv, a: Xmm, b: Xmm) -> Xmm {
    let (a, b) = (a.lanes::<T, N>(), b.lanes::<T, N>());
    Xmm::from_lanes::<T, N>(std::array::from_fn(|n| O::apply(env, a[n], b[n])))
}

fn packed<O: Operation, T: FpLane, const N: usize>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.sse_begin()?;
    let b = cpu.packed_source(insn, 1)?;
    let mut env = SseEnv::new(cpu.state.mxcsr);
    let result = lanes::<O, T, N>(&mut env, cpu.xmm(insn, 0), b);
    cpu.sse_finish(env)?;
    *cpu.xmm_mut(insn) = result;
    Ok(())
}

fn scalar<O: Operation, T: FpLane>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.sse_begin()?;
    let b: T = cpu.low_source(insn, 1)?;
    let mut env = SseEnv::new(cpu.state.mxcsr);
    let result = O::apply(&mut env, T::low(&cpu.xmm(insn, 0)), b);
    cpu.sse_finish(env)?;
    T::set_low(cpu.xmm_mut(insn), result);
    Ok(())
}

/// RCP and RSQRT of the lowest `N` lanes.
fn approximate<const N: usize>(cpu: &mut Vcpu, insn: &Insn, function: fn(u32) -> u32) -> Result<(), Fault> {
    cpu.sse_begin()?;
    if N == 1 {
        let b = cpu.low_source(insn, 1)?;
        cpu.xmm_mut(insn).set32(0, function(b));
    } else {
        let b = cpu.packed_source(insn, 1)?;
        *cpu.xmm_mut(insn) = Xmm::from_lanes(b.lanes::<u32, 4>().map(function));
    }
    Ok(())
}

fn round_packed<T: FpLane, const N: usize>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.sse_begin()?;
    let b = cpu.packed_source(insn, 1)?;
    let control = RoundControl::from_imm8(insn.imm as u8);
    let mut env = SseEnv::new(cpu.state.mxcsr);
    let result = b.lanes::<T, N>().map(|value| sse::round_to_integral(&mut env, value, control));
    cpu.sse_finish(env)?;
    *cpu.xmm_mut(insn) = Xmm::from_lanes(result);
    Ok(())
}

fn round_scalar<T: FpLane>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.sse_begin()?;
    let b: T = cpu.low_source(insn, 1)?;
    let mut env = SseEnv::new(cpu.state.mxcsr);
    let result = sse::round_to_integral(&mut env, b, RoundControl::from_imm8(insn.imm as u8));
    cpu.sse_finish(env)?;
    T::set_low(cpu.xmm_mut(insn), result);
    Ok(())
}

/// ADDSUBPS and ADDSUBPD: even lanes are subtracted, odd ones added.
fn add_sub<T: FpLane, const N: usize>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.sse_begin()?;
    let b = cpu.packed_source(insn, 1)?.lanes::<T, N>();
    let a = cpu.xmm(insn, 0).lanes::<T, N>();
    let mut env = SseEnv::new(cpu.state.mxcsr);
    let result: [T; N] =
        std::array::from_fn(
            |n| {
                if n % 2 == 0 { sse::sub(&mut env, a[n], b[n]) } else { sse::add(&mut env, a[n], b[n]) }
            },
        );
    cpu.sse_finish(env)?;
    *cpu.xmm_mut(insn) = Xmm::from_lanes(result);
    Ok(())
}

/// HADDPS and its relatives: neighbouring lanes, first those of the destination, then those of the source.
fn horizontal<O: Operation, T: FpLane, const N: usize>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.sse_begin()?;
    let b = cpu.packed_source(insn, 1)?.lanes::<T, N>();
    let a = cpu.xmm(insn, 0).lanes::<T, N>();
    let mut env = SseEnv::new(cpu.state.mxcsr);
    let result: [T; N] = std::array::from_fn(|n| {
        let (from, pair) = if n < N / 2 { (&a, n) } else { (&b, n - N / 2) };
        O::apply(&mut env, from[2 * pair], from[2 * pair + 1])
    });
    cpu.sse_finish(env)?;
    *cpu.xmm_mut(insn) = Xmm::from_lanes(result);
    Ok(())
}

/// The products that the high half of the immediate selects; exceptions of each step end the instruction there.
fn products<T: FpLane, const N: usize>(cpu: &mut Vcpu, insn: &Insn) -> Result<[T; N], Fault> {
    let b = cpu.packed_source(insn, 1)?.lanes::<T, N>();
    let a = cpu.xmm(insn, 0).lanes::<T, N>();
    step(cpu, |env| {
        std::array::from_fn(|n| if insn.imm >> (4 + n) & 1 != 0 { sse::mul(env, a[n], b[n]) } else { T::from_bits(0) })
    })
}

fn step<R>(cpu: &mut Vcpu, compute: impl FnOnce(&mut SseEnv) -> R) -> Result<R, Fault> {
    let mut env = SseEnv::new(cpu.state.mxcsr);
    let result = compute(&mut env);
    cpu.sse_finish(env)?;
    Ok(result)
}

fn dot_product_single(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.sse_begin()?;
    let p: [u32; 4] = products(cpu, insn)?;
    // Every lane adds for itself, so that lanes differ in which NaN they choose: the orders are those of processors.
    let pairs: [u32; 4] = step(cpu, |env| std::array::from_fn(|n| sse::add(env, p[n ^ 1], p[n])))?;
    let sums: [u32; 4] = step(cpu, |env| std::array::from_fn(|n| sse::add(env, pairs[n], pairs[n ^ 2])))?;
    let result: [u32; 4] = std::array::from_fn(|n| if insn.imm >> n & 1 != 0 { sums[n] } else { 0 });
    *cpu.xmm_mut(insn) = Xmm::from_lanes(result);
    Ok(())
}

fn dot_product_double(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.sse_begin()?;
    let p: [u64; 2] = products(cpu, insn)?;
    let sums: [u64; 2] = step(cpu, |env| std::array::from_fn(|n| sse::add(env, p[n], p[n ^ 1])))?;
    let result: [u64; 2] = std::array::from_fn(|n| if insn.imm >> n & 1 != 0 { sums[n] } else { 0 });
    *cpu.xmm_mut(insn) = Xmm::from_lanes(result);
    Ok(())
}
