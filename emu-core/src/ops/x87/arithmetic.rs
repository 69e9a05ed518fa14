//! Arithmetic, comparison and transcendental instructions.

use super::{Exec, load_float, load_int, status};
use crate::cpu::fault::Fault;
use crate::decode::insn::{Insn, Kind};
use crate::exec::Vcpu;
use crate::softfloat::x87::{self, Class, F80, Quotient, X87Env};
use crate::softfloat::{Relation, flags};
use iced_x86::Mnemonic;

/// The rows of this file.
pub fn exec(m: Mnemonic) -> Option<Exec> {
    Some(match m {
        Mnemonic::Fadd => float::<Add, false>,
        Mnemonic::Faddp => float::<Add, true>,
        Mnemonic::Fiadd => integer::<Add>,
        Mnemonic::Fsub => float::<Sub, false>,
        Mnemonic::Fsubp => float::<Sub, true>,
        Mnemonic::Fisub => integer::<Sub>,
        Mnemonic::Fsubr => float::<SubR, false>,
        Mnemonic::Fsubrp => float::<SubR, true>,
        Mnemonic::Fisubr => integer::<SubR>,
        Mnemonic::Fmul => float::<Mul, false>,
        Mnemonic::Fmulp => float::<Mul, true>,
        Mnemonic::Fimul => integer::<Mul>,
        Mnemonic::Fdiv => float::<Div, false>,
        Mnemonic::Fdivp => float::<Div, true>,
        Mnemonic::Fidiv => integer::<Div>,
        Mnemonic::Fdivr => float::<DivR, false>,
        Mnemonic::Fdivrp => float::<DivR, true>,
        Mnemonic::Fidivr => integer::<DivR>,

        Mnemonic::Fcom => compare::<0, true>,
        Mnemonic::Fcomp => compare::<1, true>,
        Mnemonic::Fcompp => compare::<2, true>,
        Mnemonic::Ficom => compare_int::<0>,
        Mnemonic::Ficomp => compare_int::<1>,
        Mnemonic::Fucom => compare::<0, false>,
        Mnemonic::Fucomp => compare::<1, false>,
        Mnemonic::Fucompp => compare::<2, false>,
        Mnemonic::Fcomi => compare_flags::<0, true>,
        Mnemonic::Fcomip => compare_flags::<1, true>,
        Mnemonic::Fucomi => compare_flags::<0, false>,
        Mnemonic::Fucomip => compare_flags::<1, false>,
        Mnemonic::Ftst => test,
        Mnemonic::Fxam => examine,

        Mnemonic::Fsqrt => |cpu, insn| unary(cpu, insn, x87::sqrt),
        Mnemonic::Frndint => |cpu, insn| unary(cpu, insn, x87::round_to_integral),
        Mnemonic::F2xm1 => |cpu, insn| unary(cpu, insn, x87::exp2_minus_1),
        Mnemonic::Fscale => scale,
        Mnemonic::Fprem => |cpu, insn| remainder(cpu, insn, x87::partial_remainder),
        Mnemonic::Fprem1 => |cpu, insn| remainder(cpu, insn, x87::ieee_remainder),
        Mnemonic::Fyl2x => |cpu, insn| binary_pop(cpu, insn, x87::log2_times),
        Mnemonic::Fyl2xp1 => |cpu, insn| binary_pop(cpu, insn, x87::log2_plus_1_times),
        Mnemonic::Fpatan => |cpu, insn| binary_pop(cpu, insn, |env, x, y| x87::arc_tangent(env, y, x)),
        Mnemonic::Fsin => |cpu, insn| reduced(cpu, insn, x87::sine),
        Mnemonic::Fcos => |cpu, insn| reduced(cpu, insn, x87::cosine),
        Mnemonic::Fsincos => |cpu, insn| reduced_push(cpu, insn, x87::sine_cosine),
        Mnemonic::Fptan => |cpu, insn| reduced_push(cpu, insn, x87::tangent),
        Mnemonic::Fxtract => |cpu, insn| reduced_push(cpu, insn, |env, a| Some(x87::extract(env, a))),
        _ => return None,
    })
}

/// A two-operand operation, `a` being the destination.
pub(super) trait Operation {
    fn apply(env: &mut X87Env, a: F80, b: F80) -> F80;
}

macro_rules! operations {
    ($($name:ident($a:ident, $b:ident) = $function:ident($x:ident, $y:ident);)*) => {$(
        pub(super) struct $name;
        impl Operation for $name {
            #[inline(always)]
            fn apply(env: &mut X87Env, $a: F80, $b: F80) -> F80 {
                x87::$function(env, $x, $y)
            }
        }
    )*};
}

operations! {
    Add(a, b) = add(a, b);
    Sub(a, b) = sub(a, b);
    SubR(a, b) = sub(b, a);
    Mul(a, b) = mul(a, b);
    Div(a, b) = div(a, b);
    DivR(a, b) = div(b, a);
}

/// Raises DE for a denormal memory operand, unless something of higher priority was found.
fn denormal_operand(env: &mut X87Env, other: F80) {
    let nan = matches!(other.class(), Class::QuietNan | Class::SignallingNan | Class::Unsupported);
    if !nan && env.raised() & (flags::IE | flags::ZE) == 0 {
        env.raise(flags::DE);
    }
}

/// FADD and its relatives with a memory or two register operands.
fn float<O: Operation, const POP: bool>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_begin()?;
    if insn.ops[0].kind == Kind::Mem {
        let (b, denormal) = load_float(cpu, insn)?;
        operate::<O>(cpu, insn, 0, 0, Some((b, denormal)), false);
    } else {
        operate::<O>(cpu, insn, insn.ops[0].reg, insn.ops[1].reg, None, POP);
    }
    Ok(())
}

/// FIADD and its relatives.
fn integer<O: Operation>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_begin()?;
    let b = x87::from_int(load_int(cpu, insn)?);
    operate::<O>(cpu, insn, 0, 0, Some((b, false)), false);
    Ok(())
}

/// `ST(dst) = ST(dst) op ST(src)`, or with a memory operand in the place of the source.
fn operate<O: Operation>(cpu: &mut Vcpu, insn: &Insn, dst: u8, src: u8, memory: Option<(F80, bool)>, pop: bool) {
    let fpu = &cpu.state.fpu;
    if fpu.is_empty(dst) || fpu.is_empty(src) {
        if cpu.x87_stack_fault(insn, false) {
            cpu.state.fpu.set_st(dst, F80::INDEFINITE);
            if pop {
                cpu.state.fpu.pop();
            }
        }
        return;
    }
    let a = fpu.st(dst);
    let (b, denormal) = memory.unwrap_or((fpu.st(src), false));
    let mut env = X87Env::new(fpu.control);
    let result = O::apply(&mut env, a, b);
    if denormal {
        denormal_operand(&mut env, a);
    }
    if !cpu.x87_finish(insn, &env) {
        cpu.state.fpu.set_st(dst, result);
        if pop {
            cpu.state.fpu.pop();
        }
    }
}

/// An instruction that replaces ST(0) by a function of it.
fn unary(cpu: &mut Vcpu, insn: &Insn, function: fn(&mut X87Env, F80) -> F80) -> Result<(), Fault> {
    cpu.x87_begin()?;
    if cpu.state.fpu.is_empty(0) {
        if cpu.x87_stack_fault(insn, false) {
            cpu.state.fpu.set_st(0, F80::INDEFINITE);
        }
        return Ok(());
    }
    let mut env = X87Env::new(cpu.state.fpu.control);
    let result = function(&mut env, cpu.state.fpu.st(0));
    if !cpu.x87_finish(insn, &env) {
        cpu.state.fpu.set_st(0, result);
    }
    Ok(())
}

fn scale(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_begin()?;
    operate::<Scale>(cpu, insn, 0, 1, None, false);
    Ok(())
}

operations! {
    Scale(a, b) = scale(a, b);
}

/// FYL2X and its relatives: `ST(1) = f(ST(0), ST(1))`, then pop.
fn binary_pop(cpu: &mut Vcpu, insn: &Insn, function: fn(&mut X87Env, F80, F80) -> F80) -> Result<(), Fault> {
    cpu.x87_begin()?;
    let fpu = &cpu.state.fpu;
    if fpu.is_empty(0) || fpu.is_empty(1) {
        if cpu.x87_stack_fault(insn, false) {
            cpu.state.fpu.set_st(1, F80::INDEFINITE);
            cpu.state.fpu.pop();
        }
        return Ok(());
    }
    let mut env = X87Env::new(fpu.control);
    let result = function(&mut env, fpu.st(0), fpu.st(1));
    if !cpu.x87_finish(insn, &env) {
        cpu.state.fpu.set_st(1, result);
        cpu.state.fpu.pop();
    }
    Ok(())
}

/// FPREM and FPREM1.
fn remainder(cpu: &mut Vcpu, insn: &Insn, function: fn(&mut X87Env, F80, F80) -> x87::Remainder) -> Result<(), Fault> {
    cpu.x87_begin()?;
    let fpu = &cpu.state.fpu;
    if fpu.is_empty(0) || fpu.is_empty(1) {
        cpu.state.fpu.set_condition(status::C2, false);
        if cpu.x87_stack_fault(insn, false) {
            cpu.state.fpu.set_st(0, F80::INDEFINITE);
        }
        return Ok(());
    }
    let mut env = X87Env::new(fpu.control);
    let result = function(&mut env, fpu.st(0), fpu.st(1));
    let written = !cpu.x87_finish(insn, &env);
    cpu.state.fpu.set_condition(status::C2, written && result.quotient == Quotient::Incomplete);
    if written {
        let fpu = &mut cpu.state.fpu;
        fpu.set_st(0, result.value);
        let quotient = match result.quotient {
            Quotient::Absent => return Ok(()),
            Quotient::Incomplete => 0,
            Quotient::Bits(bits) => bits,
        };
        fpu.set_condition(status::C0, quotient & 4 != 0);
        fpu.set_condition(status::C1, quotient & 1 != 0);
        fpu.set_condition(status::C3, quotient & 2 != 0);
    }
    Ok(())
}

/// FSIN and FCOS: C2 tells an operand that is out of range.
fn reduced(cpu: &mut Vcpu, insn: &Insn, function: fn(&mut X87Env, F80) -> Option<F80>) -> Result<(), Fault> {
    cpu.x87_begin()?;
    if cpu.state.fpu.is_empty(0) {
        cpu.state.fpu.set_condition(status::C2, false);
        if cpu.x87_stack_fault(insn, false) {
            cpu.state.fpu.set_st(0, F80::INDEFINITE);
        }
        return Ok(());
    }
    let mut env = X87Env::new(cpu.state.fpu.control);
    let result = function(&mut env, cpu.state.fpu.st(0));
    cpu.state.fpu.set_condition(status::C2, result.is_none());
    if !cpu.x87_finish(insn, &env)
        && let Some(value) = result
    {
        cpu.state.fpu.set_st(0, value);
    }
    Ok(())
}

/// FSINCOS, FPTAN and FXTRACT: the first result replaces ST(0), the second is pushed.
fn reduced_push(
    cpu: &mut Vcpu,
    insn: &Insn,
    function: fn(&mut X87Env, F80) -> Option<(F80, F80)>,
) -> Result<(), Fault> {
    cpu.x87_begin()?;
    let underflow = cpu.state.fpu.is_empty(0);
    let reports_range = insn.code != iced_x86::Code::Fxtract;
    if underflow || !cpu.state.fpu.is_empty(7) {
        if reports_range {
            cpu.state.fpu.set_condition(status::C2, false);
        }
        if cpu.x87_stack_fault(insn, !underflow) {
            cpu.state.fpu.set_st(0, F80::INDEFINITE);
            cpu.state.fpu.push(F80::INDEFINITE);
        }
        return Ok(());
    }
    let mut env = X87Env::new(cpu.state.fpu.control);
    let result = function(&mut env, cpu.state.fpu.st(0));
    if reports_range {
        cpu.state.fpu.set_condition(status::C2, result.is_none());
    }
    if !cpu.x87_finish(insn, &env)
        && let Some((first, second)) = result
    {
        cpu.state.fpu.set_st(0, first);
        cpu.state.fpu.push(second);
    }
    Ok(())
}

fn relation<const ORDERED: bool>(env: &mut X87Env, a: F80, b: F80) -> Relation {
    if ORDERED { x87::compare_ordered(env, a, b) } else { x87::compare_unordered(env, a, b) }
}

/// FCOM, FUCOM and the forms that pop `POPS` times.
fn compare<const POPS: u8, const ORDERED: bool>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_begin()?;
    let memory = if insn.ops[0].kind == Kind::Mem { Some(load_float(cpu, insn)?) } else { None };
    // FCOMPP and FUCOMPP name no operand and mean ST(1).
    let other = if insn.ops[1].kind == Kind::St { insn.ops[1].reg } else { u8::from(memory.is_none()) };
    let fpu = &cpu.state.fpu;
    if fpu.is_empty(0) || (memory.is_none() && fpu.is_empty(other)) {
        compare_empty::<POPS>(cpu, insn);
        return Ok(());
    }
    let a = fpu.st(0);
    let (b, denormal) = memory.unwrap_or((fpu.st(other), false));
    let mut env = X87Env::new(fpu.control);
    let relation = relation::<ORDERED>(&mut env, a, b);
    if denormal {
        denormal_operand(&mut env, a);
    }
    finish_compare::<POPS>(cpu, insn, &env, relation);
    Ok(())
}

fn compare_int<const POPS: u8>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_begin()?;
    let b = x87::from_int(load_int(cpu, insn)?);
    if cpu.state.fpu.is_empty(0) {
        compare_empty::<POPS>(cpu, insn);
        return Ok(());
    }
    let mut env = X87Env::new(cpu.state.fpu.control);
    let relation = x87::compare_ordered(&mut env, cpu.state.fpu.st(0), b);
    finish_compare::<POPS>(cpu, insn, &env, relation);
    Ok(())
}

fn compare_empty<const POPS: u8>(cpu: &mut Vcpu, insn: &Insn) {
    cpu.state.fpu.set_relation(Relation::Unordered);
    if cpu.x87_stack_fault(insn, false) {
        for _ in 0..POPS {
            cpu.state.fpu.pop();
        }
    }
}

fn finish_compare<const POPS: u8>(cpu: &mut Vcpu, insn: &Insn, env: &X87Env, relation: Relation) {
    // The codes are set whether or not an unmasked exception keeps the stack from being popped.
    cpu.state.fpu.set_relation(relation);
    if !cpu.x87_finish(insn, env) {
        for _ in 0..POPS {
            cpu.state.fpu.pop();
        }
    }
}

/// FCOMI and its relatives: the relation goes to ZF, PF and CF; OF, SF and AF are cleared, and C1 stays.
fn compare_flags<const POPS: u8, const ORDERED: bool>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_begin()?;
    let other = insn.ops[1].reg;
    let fpu = &cpu.state.fpu;
    let c1 = fpu.status & status::C1 != 0;
    let (relation, done) = if fpu.is_empty(0) || fpu.is_empty(other) {
        (Relation::Unordered, cpu.x87_stack_fault(insn, false))
    } else {
        let mut env = X87Env::new(fpu.control);
        let relation = relation::<ORDERED>(&mut env, fpu.st(0), fpu.st(other));
        let done = !cpu.x87_finish(insn, &env);
        cpu.state.fpu.set_condition(status::C1, c1);
        (relation, done)
    };
    // As with FCOM, the flags are set even if an unmasked exception keeps the stack from being popped.
    cpu.state.flags.set_bits(crate::ops::sse_fp::relation_flags(relation));
    if done && POPS != 0 {
        cpu.state.fpu.pop();
    }
    Ok(())
}

/// FTST.
fn test(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_begin()?;
    if cpu.state.fpu.is_empty(0) {
        compare_empty::<0>(cpu, insn);
        return Ok(());
    }
    let mut env = X87Env::new(cpu.state.fpu.control);
    let relation = x87::compare_ordered(&mut env, cpu.state.fpu.st(0), F80::ZERO);
    finish_compare::<0>(cpu, insn, &env, relation);
    Ok(())
}

/// FXAM.
fn examine(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.x87_begin()?;
    cpu.x87_note(insn);
    let fpu = &mut cpu.state.fpu;
    let value = fpu.st(0);
    let codes = if fpu.is_empty(0) {
        status::C3 | status::C0
    } else {
        match value.class() {
            Class::Unsupported => 0,
            Class::QuietNan | Class::SignallingNan => status::C0,
            Class::Normal => status::C2,
            Class::Infinity => status::C2 | status::C0,
            Class::Zero => status::C3,
            Class::Denormal => status::C3 | status::C2,
        }
    };
    fpu.status = fpu.status & !(status::C3 | status::C2 | status::C0) | codes;
    fpu.set_condition(status::C1, value.is_negative());
    Ok(())
}
