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
use crate::decode::insn::Insn;
use crate::exec::Vcpu;
use alu::{Cmov, Set};
use iced_x86::Mnemonic as M;

/// The rows of this group.
pub fn exec(m: M) -> Option<Exec> {
    Some(match m {
        M::Add => of::<alu::Add>,
        M::Adc => of::<alu::Adc>,
        M::Sub => of::<alu::Sub>,
        M::Sbb => of::<alu::Sbb>,
        M::Cmp => of::<alu::Cmp>,
        M::And => of::<alu::And>,
        M::Or => of::<alu::Or>,
        M::Xor => of::<alu::Xor>,
        M::Test => of::<alu::Test>,
        M::Inc => of::<alu::Inc>,
        M::Dec => of::<alu::Dec>,
        M::Neg => of::<alu::Neg>,
        M::Not => of::<alu::Not>,
        M::Mov | M::Movsx | M::Movsxd => of::<alu::Mov>,
        M::Movzx => bits::movzx,
        M::Lea => of::<alu::Lea>,
        M::Xchg => bits::xchg,
        M::Xadd => bits::xadd,
        M::Bswap => of::<alu::Bswap>,
        M::Imul => muldiv::imul,
        M::Mul => muldiv::mul,
        M::Div => muldiv::div,
        M::Idiv => muldiv::idiv,
        M::Shl | M::Sal => of::<shift::Shl>,
        M::Shr => of::<shift::Shr>,
        M::Sar => of::<shift::Sar>,
        M::Rol => of::<shift::Rol>,
        M::Ror => of::<shift::Ror>,
        M::Rcl => of::<shift::Rcl>,
        M::Rcr => of::<shift::Rcr>,
        M::Shld => of::<shift::DoubleShift<true>>,
        M::Shrd => of::<shift::DoubleShift<false>>,
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
        M::Push => of::<alu::Push>,
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
        _ => return condition_code(m),
    })
}

macro_rules! by_condition {
    ($m:expr; $($cc:literal $set:ident $cmov:ident $jcc:ident;)*) => {
        match $m {
            $(M::$set => Some(of::<Set<$cc>> as Exec),
            M::$cmov => Some(of::<Cmov<$cc>> as Exec),
            M::$jcc => Some(control::jcc::<$cc> as Exec),)*
            _ => None,
        }
    };
}

fn condition_code(m: M) -> Option<Exec> {
    by_condition! { m;
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
}

fn nop(_: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    Ok(())
}
