//! Arithmetic, logic and moves.

use crate::cpu::Width;
use crate::cpu::rflags::{CF, FlagOp, OF};
use crate::ops::backend::{Backend, Semantics};

macro_rules! semantics {
    ($(#[doc = $doc:literal] $name:ident($b:ident) $body:block)*) => {$(
        #[doc = $doc]
        pub struct $name;
        impl Semantics for $name {
            #[inline(always)]
            fn run<B: Backend>($b: &mut B) -> Result<(), B::Trap> {
                $body
                Ok(())
            }
        }
    )*};
}
pub(crate) use semantics;

semantics! {
    /// ADD
    Add(b) {
        let x = b.open(0)?;
        let y = b.read(1)?;
        let sum = b.add(x, y);
        let r = b.sext(b.width(), sum);
        b.commit(0, r)?;
        b.set_flags(FlagOp::Add, x, y, r);
    }
    /// ADC
    Adc(b) {
        let x = b.open(0)?;
        let y = b.read(1)?;
        let carry = b.carry();
        let sum = b.add(x, y);
        let sum = b.add(sum, carry);
        let r = b.sext(b.width(), sum);
        b.commit(0, r)?;
        b.set_flags_carry(carry, FlagOp::Add, FlagOp::AddCarry, x, y, r);
    }
    /// SUB
    Sub(b) {
        let x = b.open(0)?;
        let y = b.read(1)?;
        let difference = b.sub(x, y);
        let r = b.sext(b.width(), difference);
        b.commit(0, r)?;
        b.set_flags(FlagOp::Sub, x, y, r);
    }
    /// SBB
    Sbb(b) {
        let x = b.open(0)?;
        let y = b.read(1)?;
        let carry = b.carry();
        let difference = b.sub(x, y);
        let difference = b.sub(difference, carry);
        let r = b.sext(b.width(), difference);
        b.commit(0, r)?;
        b.set_flags_carry(carry, FlagOp::Sub, FlagOp::SubBorrow, x, y, r);
    }
    /// CMP
    Cmp(b) {
        let x = b.read(0)?;
        let y = b.read(1)?;
        let difference = b.sub(x, y);
        let r = b.sext(b.width(), difference);
        b.set_flags(FlagOp::Sub, x, y, r);
    }
    /// AND
    And(b) {
        let x = b.open(0)?;
        let y = b.read(1)?;
        let r = b.and(x, y);
        b.commit(0, r)?;
        logic(b, r);
    }
    /// OR
    Or(b) {
        let x = b.open(0)?;
        let y = b.read(1)?;
        let r = b.or(x, y);
        b.commit(0, r)?;
        logic(b, r);
    }
    /// XOR
    Xor(b) {
        let x = b.open(0)?;
        let y = b.read(1)?;
        let r = b.xor(x, y);
        b.commit(0, r)?;
        logic(b, r);
    }
    /// TEST
    Test(b) {
        let x = b.read(0)?;
        let y = b.read(1)?;
        let r = b.and(x, y);
        logic(b, r);
    }
    /// INC
    Inc(b) {
        let x = b.open(0)?;
        let one = b.imm(1);
        let sum = b.add(x, one);
        let r = b.sext(b.width(), sum);
        b.commit(0, r)?;
        b.set_flags(FlagOp::Inc, x, one, r);
    }
    /// DEC
    Dec(b) {
        let x = b.open(0)?;
        let one = b.imm(1);
        let difference = b.sub(x, one);
        let r = b.sext(b.width(), difference);
        b.commit(0, r)?;
        b.set_flags(FlagOp::Dec, x, one, r);
    }
    /// NEG
    Neg(b) {
        let y = b.open(0)?;
        let zero = b.imm(0);
        let difference = b.sub(zero, y);
        let r = b.sext(b.width(), difference);
        b.commit(0, r)?;
        b.set_flags(FlagOp::Sub, zero, y, r);
    }
    /// NOT
    Not(b) {
        let x = b.open(0)?;
        let ones = b.imm(u64::MAX);
        let r = b.xor(x, ones);
        b.commit(0, r)?;
    }
    /// MOV between general registers, memory and immediates; MOVSX; MOVSXD
    Mov(b) {
        let value = b.read(1)?;
        b.write(0, value)?;
    }
    /// MOVZX from 8 bits
    MovZero8(b) {
        let value = b.read(1)?;
        let value = b.zext(Width::B1, value);
        b.write(0, value)?;
    }
    /// MOVZX from 16 bits
    MovZero16(b) {
        let value = b.read(1)?;
        let value = b.zext(Width::B2, value);
        b.write(0, value)?;
    }
    /// LEA
    Lea(b) {
        let address = b.address();
        b.write(0, address)?;
    }
    /// XCHG
    Xchg(b) {
        let x = b.open(0)?;
        let y = b.read(1)?;
        b.commit(0, y)?;
        b.write(1, x)?;
    }
    /// XADD
    Xadd(b) {
        let x = b.open(0)?;
        let y = b.read(1)?;
        let sum = b.add(x, y);
        let r = b.sext(b.width(), sum);
        // The sum comes first, as a locked store may have to be tried again.
        b.commit(0, r)?;
        b.write(1, x)?;
        b.set_flags(FlagOp::Add, x, y, r);
    }
    /// BSWAP
    Bswap(b) {
        let x = b.open(0)?;
        let r = b.bswap(b.width(), x);
        b.commit(0, r)?;
    }
    /// IMUL with two or three operands: the last two are the factors
    Imul2(b) {
        let x = b.read(0)?;
        let y = b.read(1)?;
        let r = product(b, x, y);
        b.write(0, r)?;
    }
    /// IMUL with an immediate
    Imul3(b) {
        let x = b.read(1)?;
        let y = b.read(2)?;
        let r = product(b, x, y);
        b.write(0, r)?;
    }
    /// PUSH of a register, memory or immediate
    Push(b) {
        let value = b.read(0)?;
        b.push(value)?;
    }
    /// POP to a register
    Pop(b) {
        let value = b.peek()?;
        b.drop_top();
        b.write(0, value)?;
    }
}

#[inline(always)]
fn logic<B: Backend>(b: &mut B, r: B::V) {
    let zero = b.imm(0);
    b.set_flags(FlagOp::Sub, r, zero, r);
}

/// The signed product cut to the operation's width, with CF and OF if that loses bits.
#[inline(always)]
fn product<B: Backend>(b: &mut B, x: B::V, y: B::V) -> B::V {
    let width = b.width();
    let low = b.mul(x, y);
    let r = b.sext(width, low);
    let fits = if width == Width::B8 {
        let high = b.mul_high(x, y);
        let n = b.imm(63);
        let sign = b.sar(r, n);
        b.eq(high, sign)
    } else {
        b.eq(low, r)
    };
    let none = b.imm(0);
    let both = b.imm(CF | OF);
    let bits = b.select(fits, none, both);
    b.set_flags(FlagOp::Parts, r, bits, r);
    r
}

/// SETcc, CMOVcc: one type for each condition code.
pub struct Set<const CC: u8>;
impl<const CC: u8> Semantics for Set<CC> {
    #[inline(always)]
    fn run<B: Backend>(b: &mut B) -> Result<(), B::Trap> {
        let c = b.condition(CC);
        b.write(0, c)
    }
}

/// CMOVcc: the source is read, and may fault, whatever the condition; a 32-bit destination is zero-extended always.
pub struct Cmov<const CC: u8>;
impl<const CC: u8> Semantics for Cmov<CC> {
    #[inline(always)]
    fn run<B: Backend>(b: &mut B) -> Result<(), B::Trap> {
        let new = b.read(1)?;
        let old = b.read(0)?;
        let c = b.condition(CC);
        let r = b.select(c, new, old);
        b.write(0, r)
    }
}
