//! Integer instructions that touch nothing but general registers, flags, memory and the near stack.

pub mod alu;
pub mod bits;
pub mod control;
pub mod muldiv;
pub mod shift;
pub mod stack;

use super::Exec;
use super::backend::exec as of;
use crate::cpu::fault::Fault;
use crate::decode::insn::{Insn, Kind};
use crate::exec::Vcpu;
use crate::ops::backend::Semantics;
use alu::{Cmov, Set};
use iced_x86::Mnemonic as M;

/// Something that is done with the [`Semantics`] of an instruction.
pub trait Visitor {
    /// What comes of it.
    type Result;
    /// Called with the semantics.
    fn visit<S: Semantics>(self) -> Self::Result;
}

/// Takes the unspecialised function.
struct Unspecialised;

impl Visitor for Unspecialised {
    type Result = Exec;
    fn visit<S: Semantics>(self) -> Exec {
        of::<S>
    }
}

/// Has `visitor` visit the semantics of `insn`, if they are written against [`super::backend::Backend`].
pub fn semantics<V: Visitor>(insn: &Insn, visitor: V) -> Option<V::Result> {
    Some(match insn.code.mnemonic() {
        M::Movzx if insn.ops[1].size == 1 => visitor.visit::<alu::MovZero8>(),
        M::Movzx => visitor.visit::<alu::MovZero16>(),
        M::Imul if insn.ops[2].kind != Kind::None => visitor.visit::<alu::Imul3>(),
        M::Imul if insn.ops[1].kind != Kind::None => visitor.visit::<alu::Imul2>(),
        M::Xchg if insn.ops.iter().all(|operand| operand.kind != Kind::Mem) => visitor.visit::<alu::Xchg>(),
        M::Xadd if insn.ops[0] != insn.ops[1] => visitor.visit::<alu::Xadd>(),
        M::Pop if insn.ops[0].kind == Kind::Gpr => visitor.visit::<alu::Pop>(),
        m => return of_mnemonic(m, visitor),
    })
}

/// As [`semantics`] where the mnemonic decides.
fn of_mnemonic<V: Visitor>(m: M, visitor: V) -> Option<V::Result> {
    Some(match m {
        M::Add => visitor.visit::<alu::Add>(),
        M::Adc => visitor.visit::<alu::Adc>(),
        M::Sub => visitor.visit::<alu::Sub>(),
        M::Sbb => visitor.visit::<alu::Sbb>(),
        M::Cmp => visitor.visit::<alu::Cmp>(),
        M::And => visitor.visit::<alu::And>(),
        M::Or => visitor.visit::<alu::Or>(),
        M::Xor => visitor.visit::<alu::Xor>(),
        M::Test => visitor.visit::<alu::Test>(),
        M::Inc => visitor.visit::<alu::Inc>(),
        M::Dec => visitor.visit::<alu::Dec>(),
        M::Neg => visitor.visit::<alu::Neg>(),
        M::Not => visitor.visit::<alu::Not>(),
        M::Mov | M::Movsx | M::Movsxd => visitor.visit::<alu::Mov>(),
        M::Lea => visitor.visit::<alu::Lea>(),
        M::Bswap => visitor.visit::<alu::Bswap>(),
        M::Shl | M::Sal => visitor.visit::<shift::Shl>(),
        M::Shr => visitor.visit::<shift::Shr>(),
        M::Sar => visitor.visit::<shift::Sar>(),
        M::Rol => visitor.visit::<shift::Rol>(),
        M::Ror => visitor.visit::<shift::Ror>(),
        M::Rcl => visitor.visit::<shift::Rcl>(),
        M::Rcr => visitor.visit::<shift::Rcr>(),
        M::Shld => visitor.visit::<shift::DoubleShift<true>>(),
        M::Shrd => visitor.visit::<shift::DoubleShift<false>>(),
        M::Push => visitor.visit::<alu::Push>(),
        _ => return condition_code(m, visitor),
    })
}

/// The rows of this group.
pub fn exec(m: M) -> Option<Exec> {
    of_mnemonic(m, Unspecialised).or_else(|| jump_on_condition(m)).or_else(|| other(m))
}

fn other(m: M) -> Option<Exec> {
    Some(match m {
        M::Movzx => bits::movzx,
        M::Xchg => bits::xchg,
        M::Xadd => bits::xadd,
        M::Imul => muldiv::imul,
        M::Mul => muldiv::mul,
        M::Div => muldiv::div,
        M::Idiv => muldiv::idiv,
        M::Bt => bits::bit_test::<{ bits::TEST }>,
        M::Bts => bits::bit_test::<{ bits::SET }>,
        M::Btr => bits::bit_test::<{ bits::RESET }>,
        M::Btc => bits::bit_test::<{ bits::COMPLEMENT }>,
        M::Bsf => bits::bsf,
        M::Bsr => bits::bsr,
        M::Cmpxchg => bits::cmpxchg,
        M::Cmpxchg8b | M::Cmpxchg16b => bits::cmpxchg_double,
        M::Cbw | M::Cwde | M::Cdqe => muldiv::extend_rax,
        M::Cwd | M::Cdq | M::Cqo => muldiv::extend_to_rdx,
        M::Pop => stack::pop,
        M::Pusha | M::Pushad => stack::pusha,
        M::Popa | M::Popad => stack::popa,
        M::Enter => stack::enter,
        M::Leave => stack::leave,
        M::Call => control::call,
        M::Jmp => control::jmp,
        M::Ret => control::ret,
        M::Loop | M::Loope | M::Loopne => control::loop_,
        M::Jcxz | M::Jecxz | M::Jrcxz => control::jcxz,
        M::Nop | M::Endbr64 | M::Endbr32 | M::Pause | M::Reservednop => nop,
        _ => return None,
    })
}

macro_rules! by_condition {
    ($($cc:literal $set:ident $cmov:ident $jcc:ident;)*) => {
        fn condition_code<V: Visitor>(m: M, visitor: V) -> Option<V::Result> {
            match m {
                $(M::$set => Some(visitor.visit::<Set<$cc>>()),
                M::$cmov => Some(visitor.visit::<Cmov<$cc>>()),)*
                _ => None,
            }
        }

        fn jump_on_condition(m: M) -> Option<Exec> {
            match m {
                $(M::$jcc => Some(control::jcc::<$cc> as Exec),)*
                _ => None,
            }
        }

        /// The condition code of a Jcc.
        pub fn jump_condition(m: M) -> Option<u8> {
            match m {
                $(M::$jcc => Some($cc),)*
                _ => None,
            }
        }
    };
}

by_condition! {
    0 Seto Cmovo Jo;
    1 Setno Cmovno Jno;
    2 Setb Cmovb Jb;
    3 Setae Cmovae Jae;
    4 Sete Cmove Je;
    5 Setne Cmovne Jne;
    6 Setbe Cmovbe Jbe;
    7 Seta Cmova Ja;
    8 Sets Cmovs Js;
    9 Setns Cmovns Jns;
    10 Setp Cmovp Jp;
    11 Setnp Cmovnp Jnp;
    12 Setl Cmovl Jl;
    13 Setge Cmovge Jge;
    14 Setle Cmovle Jle;
    15 Setg Cmovg Jg;
}

fn nop(_: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    Ok(())
}
