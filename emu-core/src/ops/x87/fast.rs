//! Specialised handlers of x87 instructions.
//!
//! They use [`quick`], which answers only for normal operands and results; everything else, a stack fault, a pending
//! exception and every TLB miss becomes the unspecialised function. `tests/tests/fp_host.rs` runs instructions through
//! here. `imm` of an op is the instruction's distance from the start of the block, for FIP; `r0` is a stack register,
//! and `r1` the segment of a memory operand, for FDS.

use super::status;
use crate::cpu::regs::{BLOCK_RIP, ZERO};
use crate::cpu::segment::Seg;
use crate::decode::insn::{Insn, Kind, undefined};
use crate::exec::cache::ModeKey;
use crate::exec::handlers::unspecialised;
use crate::exec::thread::{Exit, Handler, Op, OpRef, dispatch};
use crate::exec::{Vcpu, mode};
use crate::mmu::access::Scalar as _;
use crate::ops::fast::form::{A32, A64, A64I, linear};
use crate::ops::fast::{address_form, operands};
use crate::softfloat::x87::quick::{self, Add, Computed, Div, DivR, Mul, Operation, Sub, SubR};
use crate::softfloat::x87::{self, F80};
use iced_x86::Mnemonic as M;

/// The specialised op for instruction `n` of `insns`; `None` if there is none.
pub fn select(key: ModeKey, insns: &[Insn], n: usize) -> Option<Op> {
    let insn = insns.get(n)?;
    if key & mode::FPU == 0 || std::ptr::fn_addr_eq(insn.exec, undefined as crate::ops::Exec) {
        return None;
    }
    let handler = if insn.ops[0].kind == Kind::Mem {
        let form = match address_form(key, insn)? {
            A64 => 0,
            A64I => 1,
            A32 => 2,
            _ => return None,
        };
        memory_handlers(insn)?[form]
    } else {
        register_handler(insn)?
    };
    let mut op = Op::new(handler, n as u16);
    operands(insn, &mut op)?;
    if op.seg != ZERO {
        return None;
    }
    op.imm = i32::from(insn.block_offset);
    op.r1 = insn.mem.seg as u8;
    if insn.ops[0].kind != Kind::Mem {
        // The register that is not ST(0), if there is one.
        let [first, second, ..] = insn.ops;
        op.r0 = match (first.kind, second.kind) {
            (Kind::St, Kind::St) if first.reg == 0 => second.reg,
            (Kind::St, _) => first.reg,
            (Kind::Gpr, _) => first.reg,
            _ => 1,
        };
    }
    Some(op)
}

/// Memory addressed as `A64`, `A64I` and `A32`.
type Forms = [Handler; 3];

macro_rules! forms {
    ($handler:ident $(, $parameter:ty)*) => {{
        let forms: Forms =
            [$handler::<$($parameter,)* A64>, $handler::<$($parameter,)* A64I>, $handler::<$($parameter,)* A32>];
        forms
    }};
}

fn memory_handlers(insn: &Insn) -> Option<Forms> {
    Some(match (insn.code.mnemonic(), insn.ops[0].size) {
        (M::Fld, 4) => forms!(load, u32),
        (M::Fld, 8) => forms!(load, u64),
        (M::Fild, 2) => forms!(load_int, i16),
        (M::Fild, 4) => forms!(load_int, i32),
        (M::Fild, 8) => forms!(load_int, i64),
        (M::Fst, 4) => forms!(store, u32, Keep),
        (M::Fst, 8) => forms!(store, u64, Keep),
        (M::Fstp, 4) => forms!(store, u32, Pop),
        (M::Fstp, 8) => forms!(store, u64, Pop),
        (M::Fld, 10) => forms!(load_extended),
        (M::Fstp, 10) => forms!(store_extended),
        (M::Fcom, 4) => forms!(compare_memory, u32, Keep),
        (M::Fcom, 8) => forms!(compare_memory, u64, Keep),
        (M::Fcomp, 4) => forms!(compare_memory, u32, Pop),
        (M::Fcomp, 8) => forms!(compare_memory, u64, Pop),
        (M::Fist, 4) => forms!(store_int, i32, Keep),
        (M::Fistp, 2) => forms!(store_int, i16, Pop),
        (M::Fistp, 4) => forms!(store_int, i32, Pop),
        (M::Fistp, 8) => forms!(store_int, i64, Pop),
        (M::Fadd, 4) => forms!(arithmetic_memory, Add, u32),
        (M::Fadd, 8) => forms!(arithmetic_memory, Add, u64),
        (M::Fsub, 4) => forms!(arithmetic_memory, Sub, u32),
        (M::Fsub, 8) => forms!(arithmetic_memory, Sub, u64),
        (M::Fsubr, 4) => forms!(arithmetic_memory, SubR, u32),
        (M::Fsubr, 8) => forms!(arithmetic_memory, SubR, u64),
        (M::Fmul, 4) => forms!(arithmetic_memory, Mul, u32),
        (M::Fmul, 8) => forms!(arithmetic_memory, Mul, u64),
        (M::Fdiv, 4) => forms!(arithmetic_memory, Div, u32),
        (M::Fdiv, 8) => forms!(arithmetic_memory, Div, u64),
        (M::Fdivr, 4) => forms!(arithmetic_memory, DivR, u32),
        (M::Fdivr, 8) => forms!(arithmetic_memory, DivR, u64),
        (M::Fldcw, _) => forms!(load_control),
        (M::Fnstcw, _) => forms!(store_control),
        _ => return None,
    })
}

fn register_handler(insn: &Insn) -> Option<Handler> {
    let to_st0 = insn.ops[0].reg == 0;
    macro_rules! to_either {
        ($operation:ty) => {
            if to_st0 { arithmetic::<$operation, ToSt0> } else { arithmetic::<$operation, ToSti> }
        };
    }
    Some(match insn.code.mnemonic() {
        M::Fadd => to_either!(Add),
        M::Fsub => to_either!(Sub),
        M::Fsubr => to_either!(SubR),
        M::Fmul => to_either!(Mul),
        M::Fdiv => to_either!(Div),
        M::Fdivr => to_either!(DivR),
        M::Faddp => arithmetic::<Add, ToStiPop>,
        M::Fsubp => arithmetic::<Sub, ToStiPop>,
        M::Fsubrp => arithmetic::<SubR, ToStiPop>,
        M::Fmulp => arithmetic::<Mul, ToStiPop>,
        M::Fdivp => arithmetic::<Div, ToStiPop>,
        M::Fdivrp => arithmetic::<DivR, ToStiPop>,
        M::Fld => load_register,
        M::Fst => store_register::<Keep>,
        M::Fstp => store_register::<Pop>,
        M::Fxch => exchange,
        M::Fchs => sign::<Negate>,
        M::Fabs => sign::<Absolute>,
        M::Fld1 => constant::<One>,
        M::Fldz => constant::<Zero>,
        M::Fsqrt => square_root,
        M::Fcom | M::Fucom => compare_codes::<0>,
        M::Fcomp | M::Fucomp => compare_codes::<1>,
        M::Fcompp | M::Fucompp => compare_codes::<2>,
        M::Fcomi | M::Fucomi => compare::<Keep>,
        M::Fcomip | M::Fucomip => compare::<Pop>,
        M::Fnstsw => store_status,
        _ => return None,
    })
}

/// Whether an instruction pops.
trait Popping {
    const POP: bool;
}
struct Keep;
struct Pop;
impl Popping for Keep {
    const POP: bool = false;
}
impl Popping for Pop {
    const POP: bool = true;
}

/// Which of ST(0) and ST(i) is the destination, and whether the instruction pops.
trait Direction {
    const TO_ST0: bool;
    const POP: bool;
}
struct ToSt0;
struct ToSti;
struct ToStiPop;
impl Direction for ToSt0 {
    const TO_ST0: bool = true;
    const POP: bool = false;
}
impl Direction for ToSti {
    const TO_ST0: bool = false;
    const POP: bool = false;
}
impl Direction for ToStiPop {
    const TO_ST0: bool = false;
    const POP: bool = true;
}

/// Goes on with the next instruction, or to the unspecialised function.
#[inline(always)]
fn finish(cpu: &mut Vcpu, op: OpRef, done: Option<()>) -> Exit {
    match done {
        Some(()) => dispatch(cpu, op.next()),
        None => unspecialised(cpu, op),
    }
}

/// No exception is pending, and the registers named are not empty.
#[inline(always)]
fn ready(cpu: &Vcpu, registers: &[u8]) -> Option<()> {
    let fpu = &cpu.state.fpu;
    let empty = registers.iter().fold(false, |empty, i| empty | fpu.is_empty(*i));
    (fpu.status & status::ES == 0 && !empty).then_some(())
}

/// There is room for a push.
#[inline(always)]
fn ready_to_push(cpu: &Vcpu) -> Option<()> {
    let fpu = &cpu.state.fpu;
    (fpu.status & status::ES == 0 && fpu.is_empty(7)).then_some(())
}

/// Records the instruction's address, and sets C1 and PE.
#[inline(always)]
fn note(cpu: &mut Vcpu, op: OpRef, up: bool, inexact: bool) {
    let mask = if cpu.mode & mode::CODE == 2 { u64::MAX } else { 0xFFFF_FFFF };
    let state = &mut cpu.state;
    state.fpu.fip = state.regs.get64(BLOCK_RIP).wrapping_add(op.imm as u64) & mask;
    state.fpu.fcs = state.segment(Seg::Cs).selector;
    let raised = if inexact { crate::softfloat::flags::PE as u16 } else { 0 };
    state.fpu.status = (state.fpu.status & !status::C1) | u16::from(up) << status::C1.trailing_zeros() | raised;
}

/// Records the memory operand. In flat segments its offset is its linear address.
#[inline(always)]
fn note_data(cpu: &mut Vcpu, op: OpRef, linear: u64) {
    cpu.state.fpu.fdp = linear;
    cpu.state.fpu.fds = cpu.state.segment(Seg::ALL[usize::from(op.r1) % 6]).selector;
}

/// Memory operands of loads.
trait Loaded {
    type Bits: crate::mmu::access::Scalar;
    fn widen(bits: Self::Bits) -> Option<F80>;
}

impl Loaded for u32 {
    type Bits = u32;
    #[inline(always)]
    fn widen(bits: u32) -> Option<F80> {
        quick::from_scalar(bits)
    }
}
impl Loaded for u64 {
    type Bits = u64;
    #[inline(always)]
    fn widen(bits: u64) -> Option<F80> {
        quick::from_scalar(bits)
    }
}
impl Loaded for i16 {
    type Bits = u16;
    #[inline(always)]
    fn widen(bits: u16) -> Option<F80> {
        Some(x87::from_int(i64::from(bits as i16)))
    }
}
impl Loaded for i32 {
    type Bits = u32;
    #[inline(always)]
    fn widen(bits: u32) -> Option<F80> {
        Some(x87::from_int(i64::from(bits as i32)))
    }
}
impl Loaded for i64 {
    type Bits = u64;
    #[inline(always)]
    fn widen(bits: u64) -> Option<F80> {
        Some(x87::from_int(bits as i64))
    }
}

/// The memory operand as an extended value, and where it is.
#[inline(always)]
fn memory<T: Loaded, const A: u8>(cpu: &Vcpu, op: OpRef) -> Option<(F80, u64)> {
    let linear = linear::<A>(cpu, op);
    let bits = cpu.host_read(linear, T::Bits::SIZE)?.read::<T::Bits>();
    Some((T::widen(bits)?, linear))
}

#[inline(always)]
fn push_memory<T: Loaded, const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Option<()> {
    ready_to_push(cpu)?;
    let (value, linear) = memory::<T, A>(cpu, op)?;
    note(cpu, op, false, false);
    note_data(cpu, op, linear);
    cpu.state.fpu.push(value);
    Some(())
}

/// FLD m32fp, m64fp.
fn load<T: Loaded, const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = push_memory::<T, A>(cpu, op);
    finish(cpu, op, done)
}

/// FILD.
fn load_int<T: Loaded, const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = push_memory::<T, A>(cpu, op);
    finish(cpu, op, done)
}

/// Memory operands of stores.
trait Stored: crate::mmu::access::Scalar {
    fn narrow(control: u16, a: F80) -> Option<Computed<Self>>;
}
impl Stored for u32 {
    #[inline(always)]
    fn narrow(control: u16, a: F80) -> Option<Computed<u32>> {
        quick::to_scalar(control, a)
    }
}
impl Stored for u64 {
    #[inline(always)]
    fn narrow(control: u16, a: F80) -> Option<Computed<u64>> {
        quick::to_scalar(control, a)
    }
}

#[inline(always)]
fn write<T: crate::mmu::access::Scalar, const A: u8>(
    cpu: &mut Vcpu,
    op: OpRef,
    result: Computed<T>,
    pop: bool,
) -> Option<()> {
    let linear = linear::<A>(cpu, op);
    cpu.host_write(linear, T::SIZE)?.write(result.value);
    note(cpu, op, result.up, result.inexact);
    note_data(cpu, op, linear);
    if pop {
        cpu.state.fpu.pop();
    }
    Some(())
}

/// FST and FSTP m32fp, m64fp.
fn store<T: Stored, P: Popping, const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = ready(cpu, &[0])
        .and_then(|()| T::narrow(cpu.state.fpu.control, cpu.state.fpu.st(0)))
        .and_then(|result| write::<T, A>(cpu, op, result, P::POP));
    finish(cpu, op, done)
}

/// FIST and FISTP.
fn store_int<T: Loaded, P: Popping, const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let bits = T::Bits::SIZE as u32 * 8;
    let done = ready(cpu, &[0])
        .and_then(|()| quick::to_int(cpu.state.fpu.control, cpu.state.fpu.st(0), bits, false))
        .and_then(|Computed { value, inexact, up }| {
            let value = T::Bits::from_u128(u128::from(value as u64));
            write::<T::Bits, A>(cpu, op, Computed { value, inexact, up }, P::POP)
        });
    finish(cpu, op, done)
}

/// FADD m32fp, m64fp and their relatives.
fn arithmetic_memory<O: Operation, T: Loaded, const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = ready(cpu, &[0]).and_then(|()| {
        let (b, linear) = memory::<T, A>(cpu, op)?;
        let result = O::apply(cpu.state.fpu.control, cpu.state.fpu.st(0), b)?;
        note(cpu, op, result.up, result.inexact);
        note_data(cpu, op, linear);
        cpu.state.fpu.set_st(0, result.value);
        Some(())
    });
    finish(cpu, op, done)
}

/// FADD and its relatives with two registers.
fn arithmetic<O: Operation, D: Direction>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let (dst, src) = if D::TO_ST0 { (0, op.r0) } else { (op.r0, 0) };
    let done = ready(cpu, &[dst, src]).and_then(|()| {
        let fpu = &cpu.state.fpu;
        let result = O::apply(fpu.control, fpu.st(dst), fpu.st(src))?;
        note(cpu, op, result.up, result.inexact);
        cpu.state.fpu.set_st(dst, result.value);
        if D::POP {
            cpu.state.fpu.pop();
        }
        Some(())
    });
    finish(cpu, op, done)
}

/// FLD ST(i).
fn load_register(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = ready(cpu, &[op.r0]).and_then(|()| ready_to_push(cpu)).map(|()| {
        let value = cpu.state.fpu.st(op.r0);
        note(cpu, op, false, false);
        cpu.state.fpu.push(value);
    });
    finish(cpu, op, done)
}

/// FST and FSTP ST(i).
fn store_register<P: Popping>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = ready(cpu, &[0]).map(|()| {
        note(cpu, op, false, false);
        let fpu = &mut cpu.state.fpu;
        let value = fpu.st(0);
        fpu.set_st(op.r0, value);
        if P::POP {
            fpu.pop();
        }
    });
    finish(cpu, op, done)
}

fn exchange(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = ready(cpu, &[0, op.r0]).map(|()| {
        note(cpu, op, false, false);
        let fpu = &mut cpu.state.fpu;
        let (a, b) = (fpu.st(0), fpu.st(op.r0));
        fpu.set_st(op.r0, a);
        fpu.set_st(0, b);
    });
    finish(cpu, op, done)
}

/// FCHS and FABS.
trait Sign {
    fn apply(a: F80) -> F80;
}
struct Negate;
struct Absolute;
impl Sign for Negate {
    #[inline(always)]
    fn apply(a: F80) -> F80 {
        a.negated()
    }
}
impl Sign for Absolute {
    #[inline(always)]
    fn apply(a: F80) -> F80 {
        a.abs()
    }
}

fn sign<S: Sign>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = ready(cpu, &[0]).map(|()| {
        note(cpu, op, false, false);
        let value = S::apply(cpu.state.fpu.st(0));
        cpu.state.fpu.set_st(0, value);
    });
    finish(cpu, op, done)
}

/// FLD1 and FLDZ.
trait Constant {
    const VALUE: F80;
}
struct One;
struct Zero;
impl Constant for One {
    const VALUE: F80 = F80::ONE;
}
impl Constant for Zero {
    const VALUE: F80 = F80::ZERO;
}

fn constant<C: Constant>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = ready_to_push(cpu).map(|()| {
        note(cpu, op, false, false);
        cpu.state.fpu.push(C::VALUE);
    });
    finish(cpu, op, done)
}

/// FCOMI and its relatives; ordered and unordered differ only for NaNs, which are not handled here.
fn compare<P: Popping>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = ready(cpu, &[0, op.r0]).and_then(|()| {
        let relation = quick::relation(cpu.state.fpu.st(0), cpu.state.fpu.st(op.r0))?;
        let c1 = cpu.state.fpu.status & status::C1 != 0;
        note(cpu, op, c1, false);
        cpu.state.flags.set_bits(crate::ops::sse_fp::relation_flags(relation));
        if P::POP {
            cpu.state.fpu.pop();
        }
        Some(())
    });
    finish(cpu, op, done)
}

fn square_root(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = ready(cpu, &[0]).and_then(|()| {
        let result = quick::sqrt(cpu.state.fpu.control, cpu.state.fpu.st(0))?;
        note(cpu, op, result.up, result.inexact);
        cpu.state.fpu.set_st(0, result.value);
        Some(())
    });
    finish(cpu, op, done)
}

/// FCOM and FUCOM with a register, and the forms that pop.
fn compare_codes<const POPS: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = ready(cpu, &[0, op.r0]).and_then(|()| {
        let relation = quick::relation(cpu.state.fpu.st(0), cpu.state.fpu.st(op.r0))?;
        note(cpu, op, false, false);
        cpu.state.fpu.set_relation(relation);
        for _ in 0..POPS {
            cpu.state.fpu.pop();
        }
        Some(())
    });
    finish(cpu, op, done)
}

/// FCOM and FCOMP m32fp, m64fp.
fn compare_memory<T: Loaded, P: Popping, const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = ready(cpu, &[0]).and_then(|()| {
        let (b, linear) = memory::<T, A>(cpu, op)?;
        let relation = quick::relation(cpu.state.fpu.st(0), b)?;
        note(cpu, op, false, false);
        note_data(cpu, op, linear);
        cpu.state.fpu.set_relation(relation);
        if P::POP {
            cpu.state.fpu.pop();
        }
        Some(())
    });
    finish(cpu, op, done)
}

/// FLD m80fp.
fn load_extended<const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = ready_to_push(cpu).and_then(|()| {
        let linear = linear::<A>(cpu, op);
        let significand = cpu.host_read(linear, 8)?.read::<u64>();
        let sign_exp = cpu.host_read(linear.wrapping_add(8), 2)?.read::<u16>();
        note(cpu, op, false, false);
        note_data(cpu, op, linear);
        cpu.state.fpu.push(F80 { sign_exp, significand });
        Some(())
    });
    finish(cpu, op, done)
}

/// FSTP m80fp.
fn store_extended<const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = ready(cpu, &[0]).and_then(|()| {
        let linear = linear::<A>(cpu, op);
        let value = cpu.state.fpu.st(0);
        let (low, high) = (cpu.host_write(linear, 8)?, cpu.host_write(linear.wrapping_add(8), 2)?);
        low.write(value.significand);
        high.write(value.sign_exp);
        note(cpu, op, false, false);
        note_data(cpu, op, linear);
        cpu.state.fpu.pop();
        Some(())
    });
    finish(cpu, op, done)
}

/// FNSTSW AX.
fn store_status(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let word = cpu.state.fpu.status_word();
    cpu.state.regs.set16(op.r0, word);
    dispatch(cpu, op.next())
}

fn load_control<const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = ready(cpu, &[]).and_then(|()| {
        let value = cpu.host_read(linear::<A>(cpu, op), 2)?.read::<u16>();
        cpu.state.fpu.set_control(value);
        Some(())
    });
    finish(cpu, op, done)
}

fn store_control<const A: u8>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let done = cpu.host_write(linear::<A>(cpu, op), 2).map(|at| at.write(cpu.state.fpu.control));
    finish(cpu, op, done)
}
