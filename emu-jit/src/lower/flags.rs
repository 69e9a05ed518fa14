//! The arithmetic flags while translating: what set them last, as [`emu_core::cpu::rflags::LazyFlags`] has it at run time.

use super::backend::V;
use super::{Callee, Lower};
use cranelift_codegen::ir::condcodes::{CondCode, FloatCC, IntCC};
use cranelift_codegen::ir::types::{I8, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use emu_core::cpu::Width;
use emu_core::cpu::rflags::{AF, CF, FlagOp, OF, PF, SF, ZF};
use emu_core::exec::region::layout;

/// What is known of the flags at a place of the translation.
#[derive(Clone, Copy)]
pub enum Flags {
    /// They are in the vCPU.
    Memory,
    /// An operation, its operands and its result.
    Op(FlagOp, V, V, V),
    /// INC or DEC, with CF from before.
    Count(FlagOp, V, V, V, Before),
    /// A shift by a constant that is not zero: its operand and its result, of that width.
    Shift(Shift, Value, u32, Value, Width),
    /// A rotation by a constant that is not zero, its result, and what the other flags are.
    Rotate(Rotate, Value, Width, Before),
    /// The second operation if the value is 1, the first if it is 0.
    Either(Value, [FlagOp; 2], V, V, V),
    /// [`FlagOp::Parts`]: the bits, and the result.
    Parts(V, V),
    /// ZF and CF as 0 or 1; the others are clear.
    Tested(Value, Value),
    /// As COMIS has set them for these floats.
    Compared(Value, Value),
    /// All at their places in 64 bits.
    Bits(Value),
}

/// Flags from before, which are looked at only if somebody asks: a number in [`Lower::befores`].
#[derive(Clone, Copy)]
pub struct Before(usize);

/// Which shift.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shift {
    /// SHL
    Left,
    /// SHR
    Right,
    /// SAR
    Arithmetic,
}

/// Which rotation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rotate {
    /// ROL
    Left,
    /// ROR
    Right,
}

impl Lower<'_> {
    /// Keeps the flags as they are now.
    pub fn keep_flags(&mut self) -> Before {
        self.befores.push(self.flags);
        Before(self.befores.len() - 1)
    }

    /// What `ask` says of the flags `before`.
    fn of_before<T>(&mut self, before: Before, ask: impl FnOnce(&mut Self) -> T) -> T {
        let now = std::mem::replace(&mut self.flags, self.befores[before.0]);
        let answer = ask(self);
        self.flags = now;
        answer
    }

    /// CF of a shift (see [`emu_core::ops::integer`]).
    fn shift_carry(&mut self, kind: Shift, x: Value, count: u32, width: Width) -> Value {
        let out = match kind {
            Shift::Left => i64::from(width.bits()) - i64::from(count),
            _ => i64::from(count) - 1,
        };
        self.bit_at(x, out)
    }

    /// Bit `n` of a value of any width, as an 8-bit 0 or 1.
    fn bit_at(&mut self, x: Value, n: i64) -> Value {
        let moved = if n == 0 { x } else { self.b.ins().ushr_imm_s(x, n) };
        let low = if self.b.func.dfg.value_type(moved) == I8 { moved } else { self.b.ins().ireduce(I8, moved) };
        self.b.ins().band_imm_s(low, 1)
    }

    /// CF of a rotation.
    fn rotate_carry(&mut self, kind: Rotate, r: Value, width: Width) -> Value {
        self.bit_at(r, if kind == Rotate::Left { 0 } else { i64::from(width.bits()) - 1 })
    }

    /// OF of a rotation.
    fn rotate_overflow(&mut self, kind: Rotate, r: Value, width: Width) -> Value {
        let top = i64::from(width.bits()) - 1;
        let a = self.bit_at(r, top);
        let b = self.bit_at(r, if kind == Rotate::Left { 0 } else { top - 1 });
        self.b.ins().bxor(a, b)
    }

    /// CF and OF at their places in RFLAGS.
    pub fn carry_overflow_bits(&mut self, carry: Value, overflow: Value) -> Value {
        let carry = self.b.ins().uextend(I64, carry);
        let overflow = self.b.ins().uextend(I64, overflow);
        let overflow = self.b.ins().ishl_imm_s(overflow, i64::from(OF.trailing_zeros()));
        self.b.ins().bor(carry, overflow)
    }

    /// Makes flags that depend on others what can be stored.
    fn simplify(&mut self) {
        match self.flags {
            Flags::Shift(_, _, _, r, width) => {
                let (carry, overflow) = (self.carry_flag(), self.overflow_flag());
                let bits = self.carry_overflow_bits(carry, overflow);
                self.flags = Flags::Parts(V::Wide(bits), V::of(r, width));
            }
            Flags::Rotate(.., before) => {
                let (carry, overflow) = (self.carry_flag(), self.overflow_flag());
                let bits = self.carry_overflow_bits(carry, overflow);
                self.flags = self.befores[before.0];
                self.replace_carry_overflow(bits);
            }
            _ => {}
        }
    }

    /// Puts the flags into the vCPU, if they are not there. What is known of them stays the same.
    pub fn store_flags(&mut self) {
        let known = self.flags;
        self.simplify();
        self.store_simple_flags();
        self.flags = known;
    }

    fn store_simple_flags(&mut self) {
        let (x, y, r) = match self.flags {
            Flags::Shift(..) | Flags::Rotate(..) => unreachable!("these have been simplified"),
            Flags::Memory => return,
            Flags::Bits(bits) => {
                self.store_byte(FlagOp::Bits as u8, layout::FLAGS_OP);
                self.store(bits, layout::FLAGS_Y);
                return;
            }
            Flags::Tested(..) | Flags::Compared(..) => {
                let mut bits = self.b.ins().iconst(I64, 0);
                for (cc, bit) in [(4, ZF), (2, CF), (10, PF)] {
                    let flag = self.tested(cc);
                    let flag = self.b.ins().uextend(I64, flag);
                    let flag = self.b.ins().ishl_imm_s(flag, i64::from(bit.trailing_zeros()));
                    bits = self.b.ins().bor(bits, flag);
                }
                self.store_byte(FlagOp::Bits as u8, layout::FLAGS_OP);
                self.store(bits, layout::FLAGS_Y);
                return;
            }
            Flags::Op(op, x, y, r) => {
                self.store_byte(op as u8, layout::FLAGS_OP);
                (Some(x), y, r)
            }
            Flags::Count(op, x, y, r, before) => {
                let carry = self.of_before(before, Self::carry_flag);
                self.store(carry, layout::FLAGS_CARRY);
                self.store_byte(op as u8, layout::FLAGS_OP);
                (Some(x), y, r)
            }
            Flags::Either(which, ops, x, y, r) => {
                let [zero, one] = ops.map(|op| self.b.ins().iconst(I8, i64::from(op as u8)));
                let op = self.b.ins().select(which, one, zero);
                self.store(op, layout::FLAGS_OP);
                (Some(x), y, r)
            }
            Flags::Parts(bits, r) => {
                self.store_byte(FlagOp::Parts as u8, layout::FLAGS_OP);
                (None, bits, r)
            }
        };
        if let Some(x) = x {
            let x = self.wide(x);
            self.store(x, layout::FLAGS_X);
        }
        let y = self.wide(y);
        self.store(y, layout::FLAGS_Y);
        let r = self.wide(r);
        self.store(r, layout::FLAGS_R);
    }

    /// Condition `cc` of the flags in the vCPU.
    fn flag_in_memory(&mut self, cc: u8) -> Value {
        let cc = self.b.ins().iconst(I64, i64::from(cc));
        let result = self.call(Callee::Condition, cc);
        self.b.ins().ireduce(I8, result)
    }

    fn compare(&mut self, cc: IntCC, a: V, b: V) -> Value {
        let (a, b) = self.alike(a, b);
        self.b.ins().icmp(cc, a, b)
    }

    fn bit(&mut self, bits: V, mask: u64) -> Value {
        if let V::Imm(bits) = bits {
            return self.b.ins().iconst(I8, i64::from(bits & mask != 0));
        }
        let bits = self.wide(bits);
        let bit = self.b.ins().band_imm_s(bits, mask as i64);
        self.b.ins().icmp_imm_s(IntCC::NotEqual, bit, 0)
    }

    /// Overflow, where it follows from operands and result: of a subtraction or of an addition.
    fn overflow(&mut self, subtract: bool, x: V, y: V, r: V) -> Value {
        let a = self.bits(x, if subtract { y } else { r }, InstOp::Xor);
        let b = self.bits(if subtract { x } else { y }, r, InstOp::Xor);
        let both = self.bits(a, b, InstOp::And);
        self.negative(both)
    }

    fn is_subtraction(op: FlagOp) -> bool {
        matches!(op, FlagOp::Sub | FlagOp::SubBorrow | FlagOp::Dec)
    }

    /// CF as 0 or 1.
    pub fn carry_flag(&mut self) -> Value {
        match self.flags {
            Flags::Memory => self.flag_in_memory(2),
            Flags::Op(FlagOp::Sub, x, y, _) => self.compare(IntCC::UnsignedLessThan, x, y),
            Flags::Op(FlagOp::SubBorrow, x, y, _) => self.compare(IntCC::UnsignedLessThanOrEqual, x, y),
            Flags::Op(FlagOp::AddCarry, x, _, r) => self.compare(IntCC::UnsignedLessThanOrEqual, r, x),
            Flags::Op(_, x, _, r) => self.compare(IntCC::UnsignedLessThan, r, x),
            Flags::Count(.., before) => self.of_before(before, Self::carry_flag),
            Flags::Shift(kind, x, count, _, width) => self.shift_carry(kind, x, count, width),
            Flags::Rotate(kind, r, width, _) => self.rotate_carry(kind, r, width),
            Flags::Either(which, ops, x, y, r) => {
                let (a, b) = if Self::is_subtraction(ops[0]) { (x, y) } else { (r, x) };
                let less = self.compare(IntCC::UnsignedLessThan, a, b);
                let not_more = self.compare(IntCC::UnsignedLessThanOrEqual, a, b);
                self.b.ins().select(which, not_more, less)
            }
            Flags::Parts(bits, _) => self.bit(bits, CF),
            Flags::Tested(..) | Flags::Compared(..) | Flags::Bits(..) => self.tested(2),
        }
    }

    /// OF as 0 or 1.
    fn overflow_flag(&mut self) -> Value {
        match self.flags {
            Flags::Memory => self.flag_in_memory(0),
            Flags::Op(op, x, y, r) | Flags::Count(op, x, y, r, _) | Flags::Either(_, [op, _], x, y, r) => {
                self.overflow(Self::is_subtraction(op), x, y, r)
            }
            Flags::Parts(bits, _) => self.bit(bits, OF),
            Flags::Shift(kind, x, count, r, width) => {
                let top = i64::from(width.bits()) - 1;
                match kind {
                    Shift::Left => {
                        let carry = self.shift_carry(kind, x, count, width);
                        let sign = self.bit_at(r, top);
                        self.b.ins().bxor(sign, carry)
                    }
                    Shift::Right => self.bit_at(x, top),
                    Shift::Arithmetic => self.b.ins().iconst(I8, 0),
                }
            }
            Flags::Rotate(kind, r, width, _) => self.rotate_overflow(kind, r, width),
            Flags::Tested(..) | Flags::Compared(..) | Flags::Bits(..) => self.tested(0),
        }
    }

    fn result(&self) -> Option<V> {
        Self::result_of(&self.befores, self.flags)
    }

    /// The result that SF, ZF and PF come from.
    fn result_of(befores: &[Flags], flags: Flags) -> Option<V> {
        match flags {
            Flags::Memory | Flags::Tested(..) | Flags::Compared(..) | Flags::Bits(..) => None,
            Flags::Op(_, _, _, r) | Flags::Count(_, _, _, r, _) | Flags::Either(_, _, _, _, r) | Flags::Parts(_, r) => {
                Some(r)
            }
            Flags::Shift(.., r, width) => Some(V::of(r, width)),
            Flags::Rotate(.., before) => Self::result_of(befores, befores[before.0]),
        }
    }

    /// Condition `cc` (SDM Vol. 2 B.1.4.7) as 0 or 1.
    pub fn condition_flag(&mut self, cc: u8) -> Value {
        if matches!(self.flags, Flags::Tested(..) | Flags::Compared(..) | Flags::Bits(..)) {
            return self.tested(cc);
        }
        if let Flags::Rotate(.., before) = self.flags {
            match cc >> 1 & 7 {
                0 | 1 => {}
                2 | 4 | 5 => return self.of_before(before, |lower| lower.condition_flag(cc)),
                _ => {
                    self.simplify();
                    return self.condition_flag(cc);
                }
            }
        }
        let r = match (self.result(), self.flags) {
            (Some(r), _) => r,
            (None, Flags::Rotate(..)) => V::Imm(0),
            (None, _) => return self.flag_in_memory(cc),
        };
        let not = cc & 1 != 0;
        let choose = |yes: IntCC| if not { yes.complement() } else { yes };
        let zero = V::Imm(0);
        let value = match (cc >> 1 & 7, self.flags) {
            (1, Flags::Op(FlagOp::Sub, x, y, _)) => return self.compare(choose(IntCC::UnsignedLessThan), x, y),
            (2, Flags::Op(FlagOp::Sub, x, y, _)) => return self.compare(choose(IntCC::Equal), x, y),
            (3, Flags::Op(FlagOp::Sub, x, y, _)) => return self.compare(choose(IntCC::UnsignedLessThanOrEqual), x, y),
            (6, Flags::Op(FlagOp::Sub, x, y, _)) => return self.compare(choose(IntCC::SignedLessThan), x, y),
            (7, Flags::Op(FlagOp::Sub, x, y, _)) => return self.compare(choose(IntCC::SignedLessThanOrEqual), x, y),
            (2, _) => return self.compare(choose(IntCC::Equal), r, zero),
            (4, _) => return self.compare(choose(IntCC::SignedLessThan), r, zero),
            (0, _) => self.overflow_flag(),
            (1, _) => self.carry_flag(),
            (3, _) => {
                let carry = self.carry_flag();
                let equal = self.compare(IntCC::Equal, r, zero);
                self.b.ins().bor(carry, equal)
            }
            (5, _) => {
                let low = self.narrow(r, emu_core::cpu::Width::B1);
                let ones = self.b.ins().popcnt(low);
                let odd = self.b.ins().band_imm_s(ones, 1);
                self.b.ins().bxor_imm_s(odd, 1)
            }
            (n, _) => {
                let sign = self.compare(IntCC::SignedLessThan, r, zero);
                let overflow = self.overflow_flag();
                let less = self.b.ins().bxor(sign, overflow);
                if n == 6 {
                    less
                } else {
                    let equal = self.compare(IntCC::Equal, r, zero);
                    self.b.ins().bor(less, equal)
                }
            }
        };
        if not { self.b.ins().bxor_imm_s(value, 1) } else { value }
    }

    /// Condition `cc` of the flags `bits`.
    fn condition_of_bits(&mut self, cc: u8, bits: Value) -> Value {
        let looked_at = match cc >> 1 & 7 {
            0 => OF,
            1 => CF,
            2 => ZF,
            3 => CF | ZF,
            4 => SF,
            5 => PF,
            6 => SF,
            _ => SF | ZF,
        };
        // The last two want SF to differ from OF.
        let bits = if cc < 12 {
            bits
        } else {
            let overflow = self.b.ins().band_imm_s(bits, OF as i64);
            let overflow = self.b.ins().ushr_imm_s(overflow, i64::from(OF.trailing_zeros() - SF.trailing_zeros()));
            self.b.ins().bxor(bits, overflow)
        };
        let value = self.bit(V::Wide(bits), looked_at);
        if cc & 1 == 0 { value } else { self.b.ins().bxor_imm_s(value, 1) }
    }

    /// Condition `cc` of flags of which only ZF, CF and PF may be set, or of [`Flags::Bits`].
    fn tested(&mut self, cc: u8) -> Value {
        if let Flags::Bits(bits) = self.flags {
            return self.condition_of_bits(cc, bits);
        }
        let value = match (cc >> 1 & 7, self.flags) {
            (0 | 4 | 6, _) | (5, Flags::Tested(..)) => self.b.ins().iconst(I8, 0),
            (which, Flags::Compared(a, b)) => {
                // Each is one flag of the host's comparison.
                let condition = match which {
                    1 => FloatCC::UnorderedOrLessThan,
                    3 => FloatCC::UnorderedOrLessThanOrEqual,
                    5 => FloatCC::Unordered,
                    _ => FloatCC::UnorderedOrEqual,
                };
                return self.b.ins().fcmp(if cc & 1 == 0 { condition } else { condition.complement() }, a, b);
            }
            (1, Flags::Tested(_, carry)) => carry,
            (3, Flags::Tested(zero, carry)) => self.b.ins().bor(zero, carry),
            (_, Flags::Tested(zero, _)) => zero,
            _ => self.b.ins().iconst(I8, 0),
        };
        if cc & 1 == 0 { value } else { self.b.ins().bxor_imm_s(value, 1) }
    }

    /// Puts flags into the vCPU that cannot be changed in part.
    fn settle_tested(&mut self) {
        if matches!(self.flags, Flags::Tested(..) | Flags::Compared(..) | Flags::Bits(..)) {
            self.store_flags();
            self.flags = Flags::Memory;
        }
    }

    /// Puts flags into the vCPU of which only some are known here.
    fn settle_partial(&mut self) {
        if matches!(self.flags, Flags::Rotate(..)) && self.result().is_none() {
            self.store_flags();
            self.flags = Flags::Memory;
        }
    }

    /// AF at its place in RFLAGS, in 64 bits. Not for flags in the vCPU.
    fn adjust_bit(&mut self) -> Value {
        match self.flags {
            Flags::Memory | Flags::Tested(..) | Flags::Compared(..) | Flags::Bits(..) => self.b.ins().iconst(I64, 0),
            Flags::Op(_, x, y, r) | Flags::Count(_, x, y, r, _) | Flags::Either(_, _, x, y, r) => {
                let (x, y, r) = (self.wide(x), self.wide(y), self.wide(r));
                let all = self.b.ins().bxor(x, y);
                let all = self.b.ins().bxor(all, r);
                self.b.ins().band_imm_s(all, AF as i64)
            }
            Flags::Parts(bits, _) => {
                let bits = self.wide(bits);
                self.b.ins().band_imm_s(bits, AF as i64)
            }
            Flags::Shift(..) => self.b.ins().iconst(I64, 0),
            Flags::Rotate(.., before) => self.of_before(before, Self::adjust_bit),
        }
    }

    /// Replaces CF and OF by those of `bits`.
    pub fn replace_carry_overflow(&mut self, bits: Value) {
        self.settle_tested();
        self.settle_partial();
        match self.result() {
            Some(r) => {
                let adjust = self.adjust_bit();
                let bits = self.b.ins().bor(bits, adjust);
                self.flags = Flags::Parts(V::Wide(bits), r);
            }
            None => {
                self.call(Callee::SetCfOf, bits);
            }
        }
    }

    /// Replaces CF by `carry`, an 8-bit 0 or 1.
    pub fn replace_carry(&mut self, carry: Value) {
        self.settle_tested();
        self.settle_partial();
        let carry = self.b.ins().uextend(I64, carry);
        if self.result().is_none() {
            self.call(Callee::SetCarry, carry);
            return;
        }
        let overflow = self.overflow_flag();
        let overflow = self.b.ins().uextend(I64, overflow);
        let overflow = self.b.ins().ishl_imm_s(overflow, i64::from(OF.trailing_zeros()));
        let bits = self.b.ins().bor(carry, overflow);
        self.replace_carry_overflow(bits);
    }
}

/// Operations bit by bit.
#[derive(Clone, Copy)]
pub enum InstOp {
    /// `a & b`
    And,
    /// `a | b`
    Or,
    /// `a ^ b`
    Xor,
}
