//! What straight integer instructions are written against, so that each is written once.
//!
//! A [`Semantics`] describes one instruction by operations of a [`Backend`], whose values are plain integers in the
//! interpreter and will be SSA values in a compiled tier. Hence the rules for such code: no Rust `if` on a guest value
//! (use [`Backend::select`]), no side effect before the last operation that can trap, at most one operand open at a time.
//!
//! All values are 64 bits wide and stand for operands of a smaller width sign-extended, unless an operation says otherwise.

use crate::cpu::Width;
use crate::cpu::fault::Fault;
use crate::cpu::rflags::FlagOp;
use crate::decode::insn::{Insn, Kind};
use crate::exec::Vcpu;
use crate::mmu::walk::Access;

/// Executes, or builds code for, one instruction at a time.
pub trait Backend {
    /// A 64-bit value.
    type V: Copy;
    /// Why the instruction does not complete here.
    type Trap;

    /// The size of the operation.
    fn width(&self) -> Width;
    /// A constant.
    fn imm(&mut self, value: u64) -> Self::V;
    /// Reads operand `n`, sign-extended from its own size.
    fn read(&mut self, n: usize) -> Result<Self::V, Self::Trap>;
    /// Writes operand `n`, cut to its own size.
    fn write(&mut self, n: usize, value: Self::V) -> Result<(), Self::Trap>;
    /// Reads operand `n` and makes sure that [`Backend::commit`] can write it.
    fn open(&mut self, n: usize) -> Result<Self::V, Self::Trap>;
    /// Writes the operand that was opened; atomically with the read if the instruction is locked.
    fn commit(&mut self, n: usize, value: Self::V) -> Result<(), Self::Trap>;
    /// The effective address of the memory operand.
    fn address(&mut self) -> Self::V;
    /// Reads the value on top of the stack.
    fn peek(&mut self) -> Result<Self::V, Self::Trap>;
    /// Moves the stack pointer up by the operation's size.
    fn drop_top(&mut self);
    /// Pushes a value of the operation's size.
    fn push(&mut self, value: Self::V) -> Result<(), Self::Trap>;

    /// `a + b`
    fn add(&mut self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`
    fn sub(&mut self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`, low half
    fn mul(&mut self, a: Self::V, b: Self::V) -> Self::V;
    /// High half of the signed product.
    fn mul_high(&mut self, a: Self::V, b: Self::V) -> Self::V;
    /// `a & b`
    fn and(&mut self, a: Self::V, b: Self::V) -> Self::V;
    /// `a | b`
    fn or(&mut self, a: Self::V, b: Self::V) -> Self::V;
    /// `a ^ b`
    fn xor(&mut self, a: Self::V, b: Self::V) -> Self::V;
    /// `a << (n & 63)`
    fn shl(&mut self, a: Self::V, n: Self::V) -> Self::V;
    /// `a >> (n & 63)`, zeros from above
    fn shr(&mut self, a: Self::V, n: Self::V) -> Self::V;
    /// `a >> (n & 63)`, sign from above
    fn sar(&mut self, a: Self::V, n: Self::V) -> Self::V;
    /// Sign-extends the low `width` of `a`.
    fn sext(&mut self, width: Width, a: Self::V) -> Self::V;
    /// Zero-extends the low `width` of `a`.
    fn zext(&mut self, width: Width, a: Self::V) -> Self::V;
    /// 1 if equal, else 0
    fn eq(&mut self, a: Self::V, b: Self::V) -> Self::V;
    /// `b` if `c` is zero, else `a`
    fn select(&mut self, c: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// Reverses the bytes of the low `width` of `a`.
    fn bswap(&mut self, width: Width, a: Self::V) -> Self::V;

    /// CF as 0 or 1.
    fn carry(&mut self) -> Self::V;
    /// Condition `cc` (0 to 15) as 0 or 1.
    fn condition(&mut self, cc: u8) -> Self::V;
    /// Notes the operation that the arithmetic flags come from.
    fn set_flags(&mut self, op: FlagOp, x: Self::V, y: Self::V, r: Self::V);
    /// As [`Backend::set_flags`] with `one` if `carry` is 1, with `zero` if it is 0.
    fn set_flags_carry(&mut self, carry: Self::V, zero: FlagOp, one: FlagOp, x: Self::V, y: Self::V, r: Self::V);
    /// As [`Backend::set_flags`] with [`FlagOp::Parts`] unless `c` is zero.
    fn set_parts_if(&mut self, c: Self::V, bits: Self::V, r: Self::V);
    /// Replaces CF and OF by those bits of `bits` unless `c` is zero.
    fn set_cf_of_if(&mut self, c: Self::V, bits: Self::V);
    /// Replaces CF by 0 or 1.
    fn set_carry(&mut self, c: Self::V);
}

/// One instruction.
pub trait Semantics {
    /// Executes it.
    fn run<B: Backend>(b: &mut B) -> Result<(), B::Trap>;
}

/// The operations on plain integers, for backends whose values are `u64` and that hold a vCPU as `self.cpu`.
macro_rules! plain_operations {
    () => {
        type V = u64;
        #[inline(always)]
        fn imm(&mut self, value: u64) -> u64 {
            value
        }
        #[inline(always)]
        fn add(&mut self, a: u64, b: u64) -> u64 {
            a.wrapping_add(b)
        }
        #[inline(always)]
        fn sub(&mut self, a: u64, b: u64) -> u64 {
            a.wrapping_sub(b)
        }
        #[inline(always)]
        fn mul(&mut self, a: u64, b: u64) -> u64 {
            a.wrapping_mul(b)
        }
        #[inline(always)]
        fn mul_high(&mut self, a: u64, b: u64) -> u64 {
            ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64
        }
        #[inline(always)]
        fn and(&mut self, a: u64, b: u64) -> u64 {
            a & b
        }
        #[inline(always)]
        fn or(&mut self, a: u64, b: u64) -> u64 {
            a | b
        }
        #[inline(always)]
        fn xor(&mut self, a: u64, b: u64) -> u64 {
            a ^ b
        }
        #[inline(always)]
        fn shl(&mut self, a: u64, n: u64) -> u64 {
            a << (n & 63)
        }
        #[inline(always)]
        fn shr(&mut self, a: u64, n: u64) -> u64 {
            a >> (n & 63)
        }
        #[inline(always)]
        fn sar(&mut self, a: u64, n: u64) -> u64 {
            ((a as i64) >> (n & 63)) as u64
        }
        #[inline(always)]
        fn sext(&mut self, width: Width, a: u64) -> u64 {
            width.sext(a)
        }
        #[inline(always)]
        fn zext(&mut self, width: Width, a: u64) -> u64 {
            a & width.mask()
        }
        #[inline(always)]
        fn eq(&mut self, a: u64, b: u64) -> u64 {
            u64::from(a == b)
        }
        #[inline(always)]
        fn select(&mut self, c: u64, a: u64, b: u64) -> u64 {
            if c != 0 { a } else { b }
        }
        #[inline(always)]
        fn bswap(&mut self, width: Width, a: u64) -> u64 {
            // With 16 bits the result is undefined; processors give zero.
            if width == Width::B2 { 0 } else { width.sext(a.swap_bytes() >> (64 - width.bits())) }
        }
        #[inline(always)]
        fn carry(&mut self) -> u64 {
            u64::from(self.cpu.state.flags.cf())
        }
        #[inline(always)]
        fn condition(&mut self, cc: u8) -> u64 {
            u64::from(self.cpu.state.flags.condition(cc))
        }
        #[inline(always)]
        fn set_flags(&mut self, op: FlagOp, x: u64, y: u64, r: u64) {
            if matches!(op, FlagOp::Inc | FlagOp::Dec) {
                self.cpu.state.flags.carry = self.cpu.state.flags.cf();
            }
            self.cpu.state.flags.set(op, x, y, r);
        }
        #[inline(always)]
        fn set_flags_carry(&mut self, carry: u64, zero: FlagOp, one: FlagOp, x: u64, y: u64, r: u64) {
            self.cpu.state.flags.set(if carry != 0 { one } else { zero }, x, y, r);
        }
        #[inline(always)]
        fn set_parts_if(&mut self, c: u64, bits: u64, r: u64) {
            if c != 0 {
                self.cpu.state.flags.set(FlagOp::Parts, r, bits, r);
            }
        }
        #[inline(always)]
        fn set_cf_of_if(&mut self, c: u64, bits: u64) {
            if c != 0 {
                self.cpu.state.flags.set_cf_of(bits);
            }
        }
        #[inline(always)]
        fn set_carry(&mut self, c: u64) {
            self.cpu.state.flags.set_cf(c != 0);
        }
    };
}

pub(crate) use plain_operations;

/// Executes any form of an instruction in any mode, with all checks.
pub struct Slow<'a> {
    cpu: &'a mut Vcpu,
    insn: &'a Insn,
    /// The linear address and the value of the operand that was opened.
    open: (u64, u64),
}

/// The unspecialised function of an instruction.
pub fn exec<S: Semantics>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    S::run(&mut Slow { cpu, insn, open: (0, 0) })
}

impl Backend for Slow<'_> {
    type Trap = Fault;
    plain_operations!();

    fn width(&self) -> Width {
        self.insn.width
    }

    fn read(&mut self, n: usize) -> Result<u64, Fault> {
        let operand = self.insn.ops[n & 3];
        let width = self.insn.operand_width(n);
        Ok(match operand.kind {
            Kind::Gpr => width.sext(self.cpu.state.regs.get(operand.reg, width)),
            Kind::Mem => {
                let linear = self.cpu.linear(self.insn, width.bytes(), Access::Read)?;
                width.sext(self.cpu.load_width(linear, width)?)
            }
            Kind::Imm2 => u64::from(self.insn.imm2),
            Kind::Seg => {
                u64::from(self.cpu.state.segment(crate::cpu::segment::Seg::ALL[usize::from(operand.reg) % 6]).selector)
            }
            _ => self.insn.imm,
        })
    }

    fn write(&mut self, n: usize, value: u64) -> Result<(), Fault> {
        let operand = self.insn.ops[n & 3];
        let width = self.insn.operand_width(n);
        if operand.kind == Kind::Mem {
            let linear = self.cpu.linear(self.insn, width.bytes(), Access::Write)?;
            self.cpu.store_width(linear, width, value)
        } else {
            self.cpu.state.regs.set(operand.reg, width, value);
            Ok(())
        }
    }

    fn open(&mut self, n: usize) -> Result<u64, Fault> {
        let operand = self.insn.ops[n & 3];
        if operand.kind != Kind::Mem {
            return self.read(n);
        }
        let width = self.insn.operand_width(n);
        let linear = self.cpu.linear(self.insn, width.bytes(), Access::Write)?;
        self.cpu.open(linear, width.bytes())?;
        let value = width.sext(self.cpu.load_width(linear, width)?);
        self.open = (linear, value);
        Ok(value)
    }

    fn commit(&mut self, n: usize, value: u64) -> Result<(), Fault> {
        if self.insn.ops[n & 3].kind != Kind::Mem {
            return self.write(n, value);
        }
        let (linear, old) = self.open;
        let width = self.insn.operand_width(n);
        if self.insn.locked() {
            self.cpu.store_locked(linear, width, old, value)
        } else {
            self.cpu.store_width(linear, width, value)
        }
    }

    fn address(&mut self) -> u64 {
        self.cpu.effective(&self.insn.mem, self.insn.addr)
    }

    fn peek(&mut self) -> Result<u64, Fault> {
        let width = self.insn.width;
        Ok(width.sext(self.cpu.stack_read(0, width)?))
    }

    fn drop_top(&mut self) {
        self.cpu.adjust_sp(self.insn.width.bytes() as i64);
    }

    fn push(&mut self, value: u64) -> Result<(), Fault> {
        self.cpu.push(self.insn.width, value)
    }
}
