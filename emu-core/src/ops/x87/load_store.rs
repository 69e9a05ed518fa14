//! Loads, stores, constants and conditional moves.

use super::{Exec, load_int, status};
use crate::cpu::fault::Fault;
use crate::decode::insn::{Insn, Kind};
use crate::exec::Vcpu;
use crate::mmu::walk::Access;
use crate::softfloat::flags;
use crate::softfloat::x87::{self, Constant, F80, X87Env};
use iced_x86::Mnemonic;

/// The rows of this file.
pub fn exec(m: Mnemonic) -> Option<Exec> {
    Some(match m {
        Mnemonic::Fld => load,
        Mnemonic::Fild => load_integer,
        Mnemonic::Fbld => load_decimal,
        Mnemonic::Fld1 => |cpu, insn| load_constant(cpu, insn, Constant::One),
        Mnemonic::Fldl2t => |cpu, insn| load_constant(cpu, insn, Constant::Log2Of10),
        Mnemonic::Fldl2e => |cpu, insn| load_constant(cpu, insn, Constant::Log2OfE),
        Mnemonic::Fldpi => |cpu, insn| load_constant(cpu, insn, Constant::Pi),
        Mnemonic::Fldlg2 => |cpu, insn| load_constant(cpu, insn, Constant::Log10Of2),
        Mnemonic::Fldln2 => |cpu, insn| load_constant(cpu, insn, Constant::LnOf2),
        Mnemonic::Fldz => |cpu, insn| load_constant(cpu, insn, Constant::Zero),
        Mnemonic::Fst => store::<false>,
        // FSTPNCE is D9 D8+i, which all processors execute as FSTP, without its stack fault.
        Mnemonic::Fstp => store::<true>,
        Mnemonic::Fstpnce => store_no_check,
        Mnemonic::Fist => store_integer::<false, false>,
        Mnemonic::Fistp => store_integer::<true, false>,
        Mnemonic::Fisttp => store_integer::<true, true>,
        Mnemonic::Fbstp => store_decimal,
        Mnemonic::Fxch => exchange,
        Mnemonic::Fchs => |cpu, insn| sign(cpu, insn, F80::negated),
        Mnemonic::Fabs => |cpu, insn| sign(cpu, insn, F80::abs),
        Mnemonic::Fcmovb => |cpu, insn| conditional_move(cpu, insn, 2),
        Mnemonic::Fcmovnb => |cpu, insn| conditional_move(cpu, insn, 3),
        Mnemonic::Fcmove => |cpu, insn| conditional_move(cpu, insn, 4),
        Mnemonic::Fcmovne => |cpu, insn| conditional_move(cpu, insn, 5),
        Mnemonic::Fcmovbe => |cpu, insn| conditional_move(cpu, insn, 6),
        Mnemonic::Fcmovnbe => |cpu, insn| conditional_move(cpu, insn, 7),
        Mnemonic::Fcmovu => |cpu, insn| conditional_move(cpu, insn, 10),
        Mnemonic::Fcmovnu => |cpu, insn| conditional_move(cpu, insn, 11),
        _ => return None,
    })
}

/// Reads ten bytes.
fn load_ten(cpu: &mut Vcpu, insn: &Insn) -> Result<[u8; 10], Fault> {
    let linear = cpu.linear(insn, 10, Access::Read)?;
    cpu.check_alignment(linear, 8)?;
    let mut bytes = [0; 10];
    if let Some(at) = cpu.host_read(linear, 16) {
        bytes.copy_from_slice(&at.read::<u128>().to_le_bytes()[..10]);
    } else {
        cpu.read_bytes(linear, &mut bytes, cpu.privilege())?;
        cpu.watch(linear, 10, Access::Read);
    }
    Ok(bytes)
}

/// Writes ten bytes, all or none.
fn store_ten(cpu: &mut Vcpu, insn: &Insn, bytes: [u8; 10]) -> Result<(), Fault> {
    let linear = cpu.linear(insn, 10, Access::Write)?;
    cpu.check_alignment(linear, 8)?;
    cpu.write_bytes(linear, &bytes, cpu.privilege())?;
    cpu.watch(linear, 10, Access::Write);
    Ok(())
}

/// Pushes a value unless the stack is full.
fn push(cpu: &mut Vcpu, insn: &Insn, env: X87Env, value: F80) {
    if !cpu.state.fpu.is_empty(7) {
        if cpu.x87_stack_fault(insn, true) {
            cpu.state.fpu.push(F80::INDEFINITE);
        }
    } else {
        // An unmasked denormal operand is reported, but loaded all the same.
        cpu.x87_finish(insn, &env);
        if env.unmasked() & flags::IE == 0 {
            cpu.state.fpu.push(value);
        }
    }
}

/// FLD.
fn load(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_begin()?;
    let mut env = X87Env::new(cpu.state.fpu.control);
    let value = match (insn.ops[0].kind, insn.ops[0].size) {
        (Kind::Mem, 4) => {
            let linear = cpu.linear(insn, 4, Access::Read)?;
            x87::from_single(&mut env, cpu.load(linear)?)
        }
        (Kind::Mem, 8) => {
            let linear = cpu.linear(insn, 8, Access::Read)?;
            x87::from_double(&mut env, cpu.load(linear)?)
        }
        (Kind::Mem, _) => F80::from_le_bytes(load_ten(cpu, insn)?),
        _ => {
            let i = insn.ops[0].reg;
            if cpu.state.fpu.is_empty(i) {
                if cpu.x87_stack_fault(insn, false) {
                    cpu.state.fpu.push(F80::INDEFINITE);
                }
                return Ok(());
            }
            cpu.state.fpu.st(i)
        }
    };
    push(cpu, insn, env, value);
    Ok(())
}

fn load_integer(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_begin()?;
    let value = x87::from_int(load_int(cpu, insn)?);
    push(cpu, insn, X87Env::new(cpu.state.fpu.control), value);
    Ok(())
}

fn load_decimal(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_begin()?;
    let value = x87::from_bcd(load_ten(cpu, insn)?);
    push(cpu, insn, X87Env::new(cpu.state.fpu.control), value);
    Ok(())
}

fn load_constant(cpu: &mut Vcpu, insn: &Insn, constant: Constant) -> Result<(), Fault> {
    cpu.x87_begin()?;
    let env = X87Env::new(cpu.state.fpu.control);
    push(cpu, insn, env, x87::constant(&env, constant));
    Ok(())
}

/// What a store does with ST(0): the value for memory, unless an exception prevents it. Flags are not yet set, because
/// the memory access may still fault.
enum Store<T> {
    StackFault,
    Value(X87Env, T),
}

fn prepare<T>(cpu: &Vcpu, convert: impl FnOnce(&mut X87Env, F80) -> T) -> Store<T> {
    let fpu = &cpu.state.fpu;
    if fpu.is_empty(0) {
        return Store::StackFault;
    }
    let mut env = X87Env::new(fpu.control);
    let value = convert(&mut env, fpu.st(0));
    Store::Value(env, value)
}

/// Writes what [`prepare`] has found, sets flags and pops.
fn complete<T>(
    cpu: &mut Vcpu,
    insn: &Insn,
    store: Store<T>,
    indefinite: T,
    pop: bool,
    write: impl FnOnce(&mut Vcpu, T) -> Result<(), Fault>,
) -> Result<(), Fault> {
    match store {
        Store::StackFault => {
            let masked = cpu.state.fpu.control & 1 != 0;
            if masked {
                write(cpu, indefinite)?;
            }
            cpu.x87_stack_fault(insn, false);
            if masked && pop {
                cpu.state.fpu.pop();
            }
        }
        Store::Value(env, value) => {
            let aborted = env.store_aborted();
            if !aborted {
                write(cpu, value)?;
            }
            cpu.x87_finish(insn, &env);
            if pop && !aborted {
                cpu.state.fpu.pop();
            }
        }
    }
    Ok(())
}

/// FST and FSTP.
fn store<const POP: bool>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_begin()?;
    match (insn.ops[0].kind, insn.ops[0].size) {
        (Kind::Mem, 4) => {
            let linear = cpu.linear(insn, 4, Access::Write)?;
            let store = prepare(cpu, x87::to_single);
            complete(cpu, insn, store, 0xFFC0_0000, POP, |cpu, value| cpu.store(linear, value))
        }
        (Kind::Mem, 8) => {
            let linear = cpu.linear(insn, 8, Access::Write)?;
            let store = prepare(cpu, x87::to_double);
            complete(cpu, insn, store, 0xFFF8 << 48, POP, |cpu, value| cpu.store(linear, value))
        }
        (Kind::Mem, _) => {
            let store = prepare(cpu, |_, value| value);
            complete(cpu, insn, store, F80::INDEFINITE, POP, |cpu, value| store_ten(cpu, insn, value.to_le_bytes()))
        }
        _ => {
            let store = prepare(cpu, |_, value| value);
            complete(cpu, insn, store, F80::INDEFINITE, POP, |cpu, value| {
                cpu.state.fpu.set_st(insn.ops[0].reg, value);
                Ok(())
            })
        }
    }
}

/// FSTPNCE: FSTP ST(i) that does not check for an empty source.
fn store_no_check(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_begin()?;
    cpu.x87_note(insn);
    let fpu = &mut cpu.state.fpu;
    if !fpu.is_empty(0) {
        let value = fpu.st(0);
        fpu.set_st(insn.ops[0].reg, value);
    }
    fpu.set_condition(status::C1, false);
    fpu.pop();
    Ok(())
}

/// FIST, FISTP and FISTTP.
fn store_integer<const POP: bool, const TRUNCATE: bool>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_begin()?;
    let size = insn.ops[0].size;
    let bits = u32::from(size) * 8;
    let linear = cpu.linear(insn, u64::from(size), Access::Write)?;
    let store =
        prepare(
            cpu,
            |env, value| {
                if TRUNCATE { x87::to_int_truncated(env, value, bits) } else { x87::to_int(env, value, bits) }
            },
        );
    complete(cpu, insn, store, i64::MIN >> (64 - bits), POP, |cpu, value| match size {
        2 => cpu.store(linear, value as u16),
        4 => cpu.store(linear, value as u32),
        _ => cpu.store(linear, value as u64),
    })
}

/// FBSTP.
fn store_decimal(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_begin()?;
    let store = prepare(cpu, x87::to_bcd);
    complete(cpu, insn, store, x87::BCD_INDEFINITE, true, |cpu, value| store_ten(cpu, insn, value))
}

/// FXCH.
fn exchange(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_begin()?;
    // iced-x86 gives both operands, ST(0) first.
    let i = if insn.ops[1].kind == Kind::St { insn.ops[1].reg } else { insn.ops[0].reg };
    let fpu = &cpu.state.fpu;
    let (empty_0, empty_i) = (fpu.is_empty(0), fpu.is_empty(i));
    if (empty_0 || empty_i) && !cpu.x87_stack_fault(insn, false) {
        return Ok(());
    }
    if !(empty_0 || empty_i) {
        cpu.x87_note(insn);
        cpu.state.fpu.set_condition(status::C1, false);
    }
    let fpu = &mut cpu.state.fpu;
    let a = if empty_0 { F80::INDEFINITE } else { fpu.st(0) };
    let b = if empty_i { F80::INDEFINITE } else { fpu.st(i) };
    fpu.set_st(i, a);
    fpu.set_st(0, b);
    Ok(())
}

/// FCHS and FABS, which raise nothing for any operand.
fn sign(cpu: &mut Vcpu, insn: &Insn, function: fn(F80) -> F80) -> Result<(), Fault> {
    cpu.x87_begin()?;
    if cpu.state.fpu.is_empty(0) {
        if cpu.x87_stack_fault(insn, false) {
            cpu.state.fpu.set_st(0, F80::INDEFINITE);
        }
        return Ok(());
    }
    cpu.x87_note(insn);
    let fpu = &mut cpu.state.fpu;
    let value = function(fpu.st(0));
    fpu.set_st(0, value);
    fpu.set_condition(status::C1, false);
    Ok(())
}

/// FCMOVcc, whose condition is numbered as that of Jcc.
fn conditional_move(cpu: &mut Vcpu, insn: &Insn, condition: u8) -> Result<(), Fault> {
    cpu.x87_begin()?;
    let i = insn.ops[1].reg;
    let fpu = &cpu.state.fpu;
    if fpu.is_empty(0) || fpu.is_empty(i) {
        if cpu.x87_stack_fault(insn, false) {
            cpu.state.fpu.set_st(0, F80::INDEFINITE);
        }
        return Ok(());
    }
    cpu.x87_note(insn);
    if cpu.state.flags.condition(condition) {
        let value = cpu.state.fpu.st(i);
        cpu.state.fpu.set_st(0, value);
    }
    Ok(())
}
