//! Conversions between single, double and integers in XMM, MMX and general registers.

use super::FpLane;
use crate::cpu::fault::Fault;
use crate::cpu::xmm::Xmm;
use crate::decode::insn::{Insn, Kind};
use crate::exec::Vcpu;
use crate::mmu::walk::Access;
use crate::ops::Exec;
use crate::softfloat::sse::{self, SseEnv};
use iced_x86::Mnemonic;

/// The rows of this file.
pub fn exec(m: Mnemonic) -> Option<Exec> {
    Some(match m {
        Mnemonic::Cvtsi2ss => from_register::<u32>,
        Mnemonic::Cvtsi2sd => from_register::<u64>,
        Mnemonic::Cvtss2si => to_register::<u32, false>,
        Mnemonic::Cvttss2si => to_register::<u32, true>,
        Mnemonic::Cvtsd2si => to_register::<u64, false>,
        Mnemonic::Cvttsd2si => to_register::<u64, true>,
        Mnemonic::Cvtss2sd => single_to_double,
        Mnemonic::Cvtsd2ss => double_to_single,
        Mnemonic::Cvtps2pd => packed_single_to_double,
        Mnemonic::Cvtpd2ps => packed_double_to_single,
        Mnemonic::Cvtdq2ps => dwords_to_single,
        Mnemonic::Cvtdq2pd => dwords_to_double,
        Mnemonic::Cvtps2dq => |cpu, insn| single_to_dwords(cpu, insn, sse::to_int),
        Mnemonic::Cvttps2dq => |cpu, insn| single_to_dwords(cpu, insn, sse::to_int_truncated),
        Mnemonic::Cvtpd2dq => |cpu, insn| double_to_dwords(cpu, insn, sse::to_int),
        Mnemonic::Cvttpd2dq => |cpu, insn| double_to_dwords(cpu, insn, sse::to_int_truncated),
        Mnemonic::Cvtpi2ps => mmx_to_single,
        Mnemonic::Cvtpi2pd => mmx_to_double,
        Mnemonic::Cvtps2pi => |cpu, insn| single_to_mmx(cpu, insn, sse::to_int),
        Mnemonic::Cvttps2pi => |cpu, insn| single_to_mmx(cpu, insn, sse::to_int_truncated),
        Mnemonic::Cvtpd2pi => |cpu, insn| double_to_mmx(cpu, insn, sse::to_int),
        Mnemonic::Cvttpd2pi => |cpu, insn| double_to_mmx(cpu, insn, sse::to_int_truncated),
        _ => return None,
    })
}

/// One of the two float-to-integer conversions.
type ToInt<T> = fn(&mut SseEnv, T, u32) -> i64;

/// Computes in a fresh environment and ends the computation.
fn compute<R>(cpu: &mut Vcpu, function: impl FnOnce(&mut SseEnv) -> R) -> Result<R, Fault> {
    let mut env = SseEnv::new(cpu.state.mxcsr);
    let result = function(&mut env);
    cpu.sse_finish(env)?;
    Ok(result)
}

/// Two doublewords as the sign-extended integers they are.
fn dwords(value: u64) -> [i64; 2] {
    [i64::from(value as i32), i64::from((value >> 32) as i32)]
}

/// Two integers of 32 bits side by side.
fn join(values: [i64; 2]) -> u64 {
    u64::from(values[0] as u32) | (values[1] as u64) << 32
}

fn from_register<T: FpLane>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.sse_begin()?;
    let source = insn.ops[1];
    let bits = match (source.kind, source.size) {
        (Kind::Mem, size) => {
            let linear = cpu.linear(insn, u64::from(size), Access::Read)?;
            cpu.load_width(linear, crate::cpu::Width::from_bytes(usize::from(size)))?
        }
        _ => cpu.state.regs.get64(source.reg),
    };
    let value = if source.size == 4 { i64::from(bits as i32) } else { bits as i64 };
    let result: T = compute(cpu, |env| sse::int_to_float(env, value))?;
    T::set_low(cpu.xmm_mut(insn), result);
    Ok(())
}

fn to_register<T: FpLane, const TRUNCATE: bool>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.sse_begin()?;
    let value: T = cpu.low_source(insn, 1)?;
    let destination = insn.ops[0];
    let bits = u32::from(destination.size) * 8;
    let result =
        compute(
            cpu,
            |env| {
                if TRUNCATE { sse::to_int_truncated(env, value, bits) } else { sse::to_int(env, value, bits) }
            },
        )?;
    if destination.size == 4 {
        cpu.state.regs.set32(destination.reg, result as u32);
    } else {
        cpu.state.regs.set64(destination.reg, result as u64);
    }
    Ok(())
}

fn single_to_double(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.sse_begin()?;
    let value = cpu.low_source(insn, 1)?;
    let result = compute(cpu, |env| sse::single_to_double(env, value))?;
    cpu.xmm_mut(insn).set64(0, result);
    Ok(())
}

fn double_to_single(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.sse_begin()?;
    let value = cpu.low_source(insn, 1)?;
    let result = compute(cpu, |env| sse::double_to_single(env, value))?;
    cpu.xmm_mut(insn).set32(0, result);
    Ok(())
}

/// CVTPS2PD: two singles, 64 bits of memory.
fn packed_single_to_double(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.sse_begin()?;
    let value: u64 = cpu.low_source(insn, 1)?;
    let singles = [value as u32, (value >> 32) as u32];
    let result = compute(cpu, |env| singles.map(|single| sse::single_to_double(env, single)))?;
    *cpu.xmm_mut(insn) = Xmm::from_lanes(result);
    Ok(())
}

/// CVTPD2PS: the high half of the destination is cleared.
fn packed_double_to_single(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.sse_begin()?;
    let value = cpu.packed_source(insn, 1)?.lanes::<u64, 2>();
    let [low, high] = compute(cpu, |env| value.map(|double| sse::double_to_single(env, double)))?;
    *cpu.xmm_mut(insn) = Xmm::from_lanes([low, high, 0, 0]);
    Ok(())
}

fn dwords_to_single(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.sse_begin()?;
    let value = cpu.packed_source(insn, 1)?.lanes::<i32, 4>();
    let result: [u32; 4] = compute(cpu, |env| value.map(|int| sse::int_to_float(env, i64::from(int))))?;
    *cpu.xmm_mut(insn) = Xmm::from_lanes(result);
    Ok(())
}

/// CVTDQ2PD: exact.
fn dwords_to_double(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.sse_begin()?;
    let value: u64 = cpu.low_source(insn, 1)?;
    let result: [u64; 2] = compute(cpu, |env| dwords(value).map(|int| sse::int_to_float(env, int)))?;
    *cpu.xmm_mut(insn) = Xmm::from_lanes(result);
    Ok(())
}

fn single_to_dwords(cpu: &mut Vcpu, insn: &Insn, to_int: ToInt<u32>) -> Result<(), Fault> {
    cpu.sse_begin()?;
    let value = cpu.packed_source(insn, 1)?.lanes::<u32, 4>();
    let result = compute(cpu, |env| value.map(|single| to_int(env, single, 32) as i32))?;
    *cpu.xmm_mut(insn) = Xmm::from_lanes(result);
    Ok(())
}

/// CVTPD2DQ: the high half of the destination is cleared.
fn double_to_dwords(cpu: &mut Vcpu, insn: &Insn, to_int: ToInt<u64>) -> Result<(), Fault> {
    cpu.sse_begin()?;
    let value = cpu.packed_source(insn, 1)?.lanes::<u64, 2>();
    let result = compute(cpu, |env| value.map(|double| to_int(env, double, 32)))?;
    *cpu.xmm_mut(insn) = Xmm::from_lanes([join(result), 0]);
    Ok(())
}

/// The MMX register or memory source of CVTPI2PS and CVTPI2PD.
fn mmx_source(cpu: &mut Vcpu, insn: &Insn) -> Result<[i64; 2], Fault> {
    let value = if insn.ops[1].kind == Kind::Mem {
        let linear = cpu.linear(insn, 8, Access::Read)?;
        cpu.load(linear)?
    } else {
        cpu.state.fpu.mmx(insn.ops[1].reg)
    };
    Ok(dwords(value))
}

/// The source of CVTPI2PS and CVTPI2PD as floating-point lanes. They leave the x87 alone if it is memory.
fn from_mmx<T: FpLane>(cpu: &mut Vcpu, insn: &Insn) -> Result<[T; 2], Fault> {
    cpu.sse_begin()?;
    let mmx = insn.ops[1].kind != Kind::Mem;
    if mmx {
        cpu.x87_begin()?;
    }
    let value = mmx_source(cpu, insn)?;
    let result = compute(cpu, |env| value.map(|int| sse::int_to_float(env, int)))?;
    if mmx {
        cpu.state.fpu.enter_mmx();
    }
    Ok(result)
}

fn mmx_to_single(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let [low, high] = from_mmx::<u32>(cpu, insn)?;
    let destination = cpu.xmm_mut(insn);
    destination.set32(0, low);
    destination.set32(1, high);
    Ok(())
}

fn mmx_to_double(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let result = from_mmx::<u64>(cpu, insn)?;
    *cpu.xmm_mut(insn) = Xmm::from_lanes(result);
    Ok(())
}

/// CVTPS2PI and CVTTPS2PI: two singles, 64 bits of memory.
fn single_to_mmx(cpu: &mut Vcpu, insn: &Insn, to_int: ToInt<u32>) -> Result<(), Fault> {
    cpu.sse_begin()?;
    cpu.x87_begin()?;
    let value: u64 = cpu.low_source(insn, 1)?;
    let singles = [value as u32, (value >> 32) as u32];
    let result = compute(cpu, |env| singles.map(|single| to_int(env, single, 32)))?;
    write_mmx(cpu, insn, join(result));
    Ok(())
}

/// CVTPD2PI and CVTTPD2PI.
fn double_to_mmx(cpu: &mut Vcpu, insn: &Insn, to_int: ToInt<u64>) -> Result<(), Fault> {
    cpu.sse_begin()?;
    cpu.x87_begin()?;
    let value = cpu.packed_source(insn, 1)?.lanes::<u64, 2>();
    let result = compute(cpu, |env| value.map(|double| to_int(env, double, 32)))?;
    write_mmx(cpu, insn, join(result));
    Ok(())
}

fn write_mmx(cpu: &mut Vcpu, insn: &Insn, value: u64) {
    cpu.state.fpu.enter_mmx();
    cpu.state.fpu.set_mmx(insn.ops[0].reg, value);
}
