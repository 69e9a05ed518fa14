//! The backend that builds CLIF: [`emu_core::ops::backend::Backend`] says what its operations mean.
//!
//! Values keep the type that they come in as long as that makes no difference, since every extension costs an
//! instruction.

use super::flags::{Flags, InstOp, Rotate, Shift};
use super::memory::int;
use super::{Callee, Lower};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{Block, InstBuilder, InstructionData, Opcode, Value};
use emu_core::cpu::Width;
use emu_core::cpu::regs::{BLOCK_RIP, RAX, RBP, RDX, RegFile, Slot, ZERO};
use emu_core::cpu::rflags::{CF, FlagOp, OF};
use emu_core::decode::insn::{Insn, Kind};
use emu_core::ops::backend::Backend;
use iced_x86::{Code, Mnemonic};
use std::convert::Infallible;

/// A value: 64 bits, or what stands for them.
#[derive(Clone, Copy, Debug)]
pub enum V {
    /// All 64 bits.
    Wide(Value),
    /// Sign-extended from a width of less than 64 bits.
    Narrow(Value, Width),
    /// A constant.
    Imm(u64),
    /// 0 or 1, in 8 bits.
    Flag(Value),
    /// The sum, or difference, of two sign-extended values, and perhaps of a carry: one bit more than the width.
    Sum { subtract: bool, x: Leaf, y: Leaf, carry: Option<Value>, width: Width },
}

/// An operand of [`V::Sum`], of its width.
#[derive(Clone, Copy, Debug)]
pub enum Leaf {
    /// A value of that width.
    Narrow(Value),
    /// A constant.
    Imm(u64),
}

impl V {
    /// A value of `width`, sign-extended.
    pub fn of(value: Value, width: Width) -> V {
        if width == Width::B8 { V::Wide(value) } else { V::Narrow(value, width) }
    }

    fn leaf(self, width: Width) -> Option<Leaf> {
        match self {
            V::Narrow(value, w) if w == width => Some(Leaf::Narrow(value)),
            V::Imm(value) => Some(Leaf::Imm(value)),
            _ => None,
        }
    }
}

/// Instructions without [`emu_core::ops::backend::Semantics`] that are translated by hand here.
pub fn is_special(insn: &Insn) -> bool {
    use Mnemonic as M;
    match insn.code.mnemonic() {
        M::Nop | M::Endbr32 | M::Endbr64 | M::Pause | M::Reservednop | M::Lfence | M::Sfence | M::Mfence => true,
        M::Prefetchnta | M::Prefetcht0 | M::Prefetcht1 | M::Prefetcht2 | M::Prefetch | M::Prefetchw => true,
        M::Cbw | M::Cwde | M::Cdqe | M::Cwd | M::Cdq | M::Cqo => true,
        M::Mul | M::Div | M::Idiv => true,
        M::Imul => insn.ops[1].kind == Kind::None,
        M::Leave => insn.width.bits() == u32::from(insn.code_bits),
        _ => false,
    }
}

impl Lower<'_> {
    /// A constant of a width.
    fn constant(&mut self, value: u64, width: Width) -> Value {
        self.b.ins().iconst(int(width), (value & width.mask()) as i64)
    }

    fn leaf(&mut self, leaf: Leaf, width: Width) -> Value {
        match leaf {
            Leaf::Narrow(value) => value,
            Leaf::Imm(value) => self.constant(value, width),
        }
    }

    fn sum(&mut self, subtract: bool, x: Value, y: Value, carry: Option<Value>, width: Width) -> Value {
        let r = if subtract { self.b.ins().isub(x, y) } else { self.b.ins().iadd(x, y) };
        let Some(carry) = carry else { return r };
        let carry = if width == Width::B1 { carry } else { self.b.ins().uextend(int(width), carry) };
        if subtract { self.b.ins().isub(r, carry) } else { self.b.ins().iadd(r, carry) }
    }

    /// All 64 bits.
    pub fn wide(&mut self, v: V) -> Value {
        match v {
            V::Wide(value) => value,
            V::Narrow(value, _) => self.b.ins().sextend(I64, value),
            V::Imm(value) => self.b.ins().iconst(I64, value as i64),
            V::Flag(value) => self.b.ins().uextend(I64, value),
            V::Sum { subtract, x, y, carry, width } => {
                let [x, y] = [x, y].map(|leaf| match leaf {
                    Leaf::Narrow(value) => V::of(value, width),
                    Leaf::Imm(value) => V::Imm(value),
                });
                let (x, y) = (self.wide(x), self.wide(y));
                self.sum(subtract, x, y, carry, Width::B8)
            }
        }
    }

    /// The low `width`.
    pub fn narrow(&mut self, v: V, width: Width) -> Value {
        if width == Width::B8 {
            return self.wide(v);
        }
        match v {
            V::Wide(value) => self.b.ins().ireduce(int(width), value),
            V::Narrow(value, w) if w == width => value,
            V::Narrow(value, w) if w > width => self.b.ins().ireduce(int(width), value),
            V::Narrow(value, _) => self.b.ins().sextend(int(width), value),
            V::Imm(value) => self.constant(value, width),
            V::Flag(value) if width == Width::B1 => value,
            V::Flag(value) => self.b.ins().uextend(int(width), value),
            V::Sum { subtract, x, y, carry, width: w } if w == width => {
                let (x, y) = (self.leaf(x, width), self.leaf(y, width));
                self.sum(subtract, x, y, carry, width)
            }
            V::Sum { .. } => {
                let value = self.wide(v);
                self.b.ins().ireduce(int(width), value)
            }
        }
    }

    /// The width in which both can be had, if it is less than 64 bits and one of them has it.
    fn common(a: V, b: V) -> Option<Width> {
        match (a, b) {
            (V::Narrow(_, x), V::Narrow(_, y)) => (x == y).then_some(x),
            (V::Narrow(_, x), V::Imm(value)) | (V::Imm(value), V::Narrow(_, x)) => {
                (x.sext(value) == value).then_some(x)
            }
            (V::Flag(_), V::Flag(_)) => Some(Width::B1),
            _ => None,
        }
    }

    /// Both in one type in which they compare as their 64 bits do, signed and unsigned.
    pub fn alike(&mut self, a: V, b: V) -> (Value, Value) {
        let width = Self::common(a, b).unwrap_or(Width::B8);
        (self.narrow(a, width), self.narrow(b, width))
    }

    /// Whether both are known to be the same.
    fn same(&self, a: V, b: V) -> bool {
        match (a, b) {
            (V::Wide(a), V::Wide(b)) => a == b,
            (V::Narrow(a, v), V::Narrow(b, w)) => {
                v == w && (a == b || self.reduced(a).is_some_and(|whole| self.reduced(b) == Some(whole)))
            }
            _ => false,
        }
    }

    /// An operation bit by bit.
    pub fn bits(&mut self, a: V, b: V, op: InstOp) -> V {
        if let (V::Imm(a), V::Imm(b)) = (a, b) {
            return V::Imm(match op {
                InstOp::And => a & b,
                InstOp::Or => a | b,
                InstOp::Xor => a ^ b,
            });
        }
        if self.same(a, b) {
            return if matches!(op, InstOp::Xor) { V::Imm(0) } else { a };
        }
        let flags = matches!((a, b), (V::Flag(_), V::Flag(_)));
        let width = Self::common(a, b).unwrap_or(Width::B8);
        let (x, y) = (self.narrow(a, width), self.narrow(b, width));
        let r = match op {
            InstOp::And => self.b.ins().band(x, y),
            InstOp::Or => self.b.ins().bor(x, y),
            InstOp::Xor => self.b.ins().bxor(x, y),
        };
        if flags { V::Flag(r) } else { V::of(r, width) }
    }

    /// The sign as an 8-bit 0 or 1.
    pub fn negative(&mut self, v: V) -> Value {
        let (x, zero) = self.alike(v, V::Imm(0));
        self.b.ins().icmp(IntCC::SignedLessThan, x, zero)
    }

    /// The 64 bits of the register file at `slot`, which is no high byte.
    pub fn register64(&mut self, slot: Slot) -> Value {
        match slot {
            ZERO => self.b.ins().iconst(I64, 0),
            BLOCK_RIP => self.rip(self.block.delta),
            _ => self.b.use_var(self.registers[usize::from(slot >> 3) & 15]),
        }
    }

    /// A general register of `width`; a slot that is odd is AH, CH, DH or BH.
    pub fn register(&mut self, slot: Slot, width: Width) -> V {
        let all = self.b.use_var(self.registers[usize::from(slot >> 3) & 15]);
        let all = if slot & 1 != 0 { self.b.ins().ushr_imm_s(all, 8) } else { all };
        let value = self.narrow(V::Wide(all), width);
        V::of(value, width)
    }

    /// Writes a general register of `width`; a slot that is odd is AH, CH, DH or BH.
    pub fn set_register(&mut self, slot: Slot, width: Width, v: V) {
        let number = slot >> 3 & 15;
        let value = match width {
            Width::B8 => self.wide(v),
            Width::B4 => self.unsigned(v, Width::B4),
            _ => {
                let old = self.b.use_var(self.registers[usize::from(number)]);
                let shift = if slot & 1 != 0 { 8 } else { 0 };
                let kept = self.b.ins().band_imm_s(old, !(width.mask() << shift) as i64);
                let new = self.unsigned(v, width);
                let new = if shift == 0 { new } else { self.b.ins().ishl_imm_s(new, shift) };
                self.b.ins().bor(kept, new)
            }
        };
        self.define(number, value);
    }

    /// Gives general register `number` a new value, which is stored later.
    pub fn define(&mut self, number: u8, value: Value) {
        self.b.def_var(self.registers[usize::from(number)], value);
        self.pending |= 1 << number;
    }

    /// `a + b` or `a - b`.
    fn add_or_subtract(&mut self, subtract: bool, a: V, b: V) -> V {
        let width = self.insn.width;
        match (a, b) {
            (V::Imm(a), V::Imm(b)) if subtract => return V::Imm(a.wrapping_sub(b)),
            (V::Imm(a), V::Imm(b)) => return V::Imm(a.wrapping_add(b)),
            (V::Sum { subtract: before, x, y, carry: None, width }, V::Flag(carry)) if before == subtract => {
                return V::Sum { subtract, x, y, carry: Some(carry), width };
            }
            _ if subtract && self.same(a, b) => return V::Imm(0),
            _ => {}
        }
        if width != Width::B8
            && let (Some(x), Some(y)) = (a.leaf(width), b.leaf(width))
        {
            return V::Sum { subtract, x, y, carry: None, width };
        }
        let distance = match b {
            V::Imm(value) if subtract => Some((value as i64).wrapping_neg()),
            V::Imm(value) => Some(value as i64),
            _ => None,
        };
        let (a, b) = (self.wide(a), self.wide(b));
        let sum = self.sum(subtract, a, b, None, Width::B8);
        if let Some(distance) = distance {
            self.note_sum(sum, a, distance);
        }
        V::Wide(sum)
    }

    fn shift(&mut self, a: V, n: V, by: impl Fn(&mut Self, Value, Value) -> Value) -> V {
        let x = self.wide(a);
        let count = match n {
            V::Narrow(value, _) | V::Wide(value) | V::Flag(value) => value,
            V::Imm(value) => self.b.ins().iconst(I64, (value & 63) as i64),
            V::Sum { .. } => self.wide(n),
        };
        V::Wide(by(self, x, count))
    }

    /// Translates the current instruction if it [`is_special`].
    pub fn special(&mut self) {
        use Mnemonic as M;
        let insn = self.insn;
        let (a, d) = (RegFile::slot(RAX), RegFile::slot(RDX));
        match insn.code.mnemonic() {
            M::Cbw | M::Cwde | M::Cdqe => {
                let (from, to) = match insn.code {
                    Code::Cbw => (Width::B1, Width::B2),
                    Code::Cwde => (Width::B2, Width::B4),
                    _ => (Width::B4, Width::B8),
                };
                let value = self.register(a, from);
                self.set_register(a, to, value);
            }
            M::Cwd | M::Cdq | M::Cqo => {
                let width = match insn.code {
                    Code::Cwd => Width::B2,
                    Code::Cdq => Width::B4,
                    _ => Width::B8,
                };
                let value = self.register(a, width);
                let value = self.narrow(value, width);
                let sign = self.b.ins().sshr_imm_s(value, i64::from(width.bits()) - 1);
                self.set_register(d, width, V::of(sign, width));
            }
            M::Mfence => {
                self.b.ins().fence();
            }
            M::Mul | M::Imul => self.multiply(insn.code.mnemonic() == M::Imul),
            M::Div | M::Idiv => self.divide(insn.code.mnemonic() == M::Idiv),
            M::Leave => {
                let rbp = RegFile::slot(RBP);
                let frame = self.register64(rbp);
                let frame = self.cut(frame);
                let host = self.host(frame, insn.width.bytes(), false);
                let value = self.load_host(insn.width, host);
                let sp = self.b.ins().iadd_imm_s(frame, insn.width.bytes() as i64);
                self.note_sum(sp, frame, insn.width.bytes() as i64);
                self.set_stack_pointer(sp);
                self.set_register(rbp, insn.width, V::of(value, insn.width));
            }
            _ => {}
        }
    }

    /// Translates the current instruction if it is a shift or a rotation by a constant that changes flags.
    pub fn shift_by_constant(&mut self) -> bool {
        use Mnemonic as M;
        let insn = self.insn;
        let width = insn.width;
        let count = insn.imm as u32 & if width == Width::B8 { 63 } else { 31 };
        let mnemonic = insn.code.mnemonic();
        let known = matches!(mnemonic, M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror);
        if !known || insn.ops[1].kind != Kind::Imm || count == 0 || count >= width.bits() {
            return false;
        }
        let Ok(x) = self.open(0);
        let x = self.narrow(x, width);
        let n = i64::from(count);
        let r = match mnemonic {
            M::Shl | M::Sal => self.b.ins().ishl_imm_s(x, n),
            M::Shr => self.b.ins().ushr_imm_s(x, n),
            M::Sar => self.b.ins().sshr_imm_s(x, n),
            M::Rol => self.b.ins().rotl_imm_s(x, n),
            _ => self.b.ins().rotr_imm_s(x, n),
        };
        let Ok(()) = self.commit(0, V::of(r, width));
        self.flags = match mnemonic {
            M::Shl | M::Sal => Flags::Shift(Shift::Left, x, count, r, width),
            M::Shr => Flags::Shift(Shift::Right, x, count, r, width),
            M::Sar => Flags::Shift(Shift::Arithmetic, x, count, r, width),
            M::Rol => Flags::Rotate(Rotate::Left, r, width, self.keep_flags()),
            _ => Flags::Rotate(Rotate::Right, r, width, self.keep_flags()),
        };
        true
    }

    /// The low 32 bits of an address. Those of a sum are a sum of its operands': the host extends what it adds in 32 bits.
    /// An address is a sum of up to three, one of them shifted.
    pub fn half(&mut self, value: Value, depth: u32) -> Value {
        let dfg = &self.b.func.dfg;
        let value = dfg.resolve_aliases(value);
        if let Some(constant) = self.constant_of(value) {
            return self.constant(constant, Width::B4);
        }
        let inst = dfg.value_def(value).inst();
        let operation = inst.filter(|_| depth != 0).map(|inst| (dfg.insts[inst].opcode(), dfg.inst_args(inst)));
        match operation {
            Some((Opcode::Iadd, &[x, y])) => {
                let (x, y) = (self.half(x, depth - 1), self.half(y, depth - 1));
                self.b.ins().iadd(x, y)
            }
            Some((Opcode::Ishl, &[x, count])) if self.constant_of(count).is_some() => {
                let x = self.half(x, depth - 1);
                self.b.ins().ishl(x, count)
            }
            _ => self.b.ins().ireduce(I32, value),
        }
    }

    /// The 64 bits of which `value` is the low part, if it has been made so.
    pub fn reduced(&self, value: Value) -> Option<Value> {
        let dfg = &self.b.func.dfg;
        let inst = dfg.value_def(value).inst()?;
        (dfg.insts[inst].opcode() == Opcode::Ireduce).then(|| dfg.resolve_aliases(dfg.inst_args(inst)[0]))
    }

    /// A constant that `value` is known to be.
    fn constant_of(&self, value: Value) -> Option<u64> {
        let dfg = &self.b.func.dfg;
        match dfg.insts[dfg.value_def(value).inst()?] {
            InstructionData::UnaryImm { opcode: Opcode::Iconst, imm } => Some(imm.bits() as u64),
            _ => None,
        }
    }

    /// How many low bits of `value` may not be zero: as far as a few instructions tell.
    pub fn bits_of(&self, value: Value) -> u32 {
        self.bits_within(value, 4)
    }

    fn bits_within(&self, value: Value, depth: u32) -> u32 {
        let dfg = &self.b.func.dfg;
        let value = dfg.resolve_aliases(value);
        let all = dfg.value_type(value).bits();
        let Some(inst) = dfg.value_def(value).inst().filter(|_| depth != 0) else { return all };
        let args = dfg.inst_args(inst);
        let of = |n: usize| self.bits_within(args[n], depth - 1);
        match dfg.insts[inst].opcode() {
            Opcode::Iconst => {
                let constant = self.constant_of(value).unwrap_or(u64::MAX);
                (64 - constant.leading_zeros()).min(all)
            }
            Opcode::Uextend => of(0),
            Opcode::Uload8 => 8,
            Opcode::Uload16 => 16,
            Opcode::Uload32 => 32,
            Opcode::Band => of(0).min(of(1)),
            Opcode::Bor | Opcode::Bxor => of(0).max(of(1)),
            Opcode::Ireduce => of(0).min(all),
            Opcode::Ushr => match self.constant_of(args[1]) {
                Some(count) if count < u64::from(all) => of(0).saturating_sub(count as u32),
                _ => all,
            },
            _ => all,
        }
    }

    /// Whether the value that general register `number` gets now is lost before anything can see it.
    fn is_overwritten(&self, number: u8) -> bool {
        use Mnemonic as M;
        for (insn, facts) in self.block.insns.iter().zip(&self.flow.blocks[self.number].insns).skip(self.at + 1) {
            let own = insn.ops[0].kind == Kind::Gpr && insn.ops[0].reg == RegFile::slot(number);
            let source = match insn.ops[1].kind {
                Kind::Imm => true,
                Kind::Gpr => insn.ops[1].reg >> 3 & 15 != number,
                _ => return false,
            };
            if insn.code.mnemonic() == M::Mov && insn.width >= Width::B4 && own && source {
                return true;
            }
            // What has only registers and constants does not leave the region.
            let harmless =
                matches!(insn.code.mnemonic(), M::Mov | M::Test | M::Cmp | M::Add | M::Sub | M::Xor | M::And | M::Or);
            if !harmless || insn.ops[0].kind != Kind::Gpr || facts.uses >> number & 1 != 0 {
                return false;
            }
        }
        false
    }

    /// Operand 0, register or memory.
    fn operand(&mut self) -> V {
        let Ok(value) = self.read(0);
        value
    }

    /// Where the low and the high half of products and dividends are: rDX:rAX, of bytes in AX.
    fn halves(&self) -> (Slot, Slot) {
        let low = RegFile::slot(RAX);
        (low, if self.insn.width == Width::B1 { low + 1 } else { RegFile::slot(RDX) })
    }

    fn multiply(&mut self, signed: bool) {
        let width = self.insn.width;
        let (a, d) = self.halves();
        let x = self.operand();
        let y = self.register(a, width);
        let (low, high, fits);
        if width == Width::B8 {
            let (x, y) = (self.wide(x), self.wide(y));
            low = self.b.ins().imul(x, y);
            if signed {
                high = self.b.ins().smulhi(x, y);
                let sign = self.b.ins().sshr_imm_s(low, 63);
                fits = self.b.ins().icmp(IntCC::Equal, high, sign);
            } else {
                high = self.b.ins().umulhi(x, y);
                fits = self.b.ins().icmp_imm_s(IntCC::Equal, high, 0);
            }
        } else {
            let (x, y) = match signed {
                true => (self.wide(x), self.wide(y)),
                false => (self.unsigned(x, width), self.unsigned(y, width)),
            };
            let product = self.b.ins().imul(x, y);
            low = self.narrow(V::Wide(product), width);
            let upper = self.b.ins().ushr_imm_s(product, i64::from(width.bits()));
            high = self.narrow(V::Wide(upper), width);
            let back = if signed { self.b.ins().sextend(I64, low) } else { self.b.ins().uextend(I64, low) };
            fits = self.b.ins().icmp(IntCC::Equal, back, product);
        }
        self.set_register(a, width, V::of(low, width));
        self.set_register(d, width, V::of(high, width));
        let bits = self.select(V::Flag(fits), V::Imm(0), V::Imm(CF | OF));
        self.flags = Flags::Parts(bits, V::of(low, width));
    }

    /// DIV and IDIV of dividends that fit 64 bits; the interpreter has the others, and the faults.
    fn divide(&mut self, signed: bool) {
        let width = self.insn.width;
        let (a, d) = self.halves();
        self.prepare_to_leave();
        let divisor = self.operand();
        let divisor = if signed { self.wide(divisor) } else { self.unsigned(divisor, width) };
        if width == Width::B4 && self.high_follows(signed) {
            self.divide_dwords(signed, divisor);
            return;
        }
        let low = self.register(a, width);
        let low = self.unsigned(low, width);
        let high = self.register(d, width);
        let dividend = if width == Width::B8 && self.high_follows(signed) {
            low
        } else if width == Width::B8 {
            let high = self.wide(high);
            let expected = if signed { self.b.ins().sshr_imm_s(low, 63) } else { self.b.ins().iconst(I64, 0) };
            let short = self.b.ins().icmp(IntCC::Equal, high, expected);
            self.step_unless(short);
            low
        } else {
            let high = if signed { self.wide(high) } else { self.unsigned(high, width) };
            let high = self.b.ins().ishl_imm_s(high, i64::from(width.bits()));
            self.b.ins().bor(high, low)
        };
        let divides = self.b.ins().icmp_imm_s(IntCC::NotEqual, divisor, 0);
        self.step_unless(divides);
        // Narrower dividends have no quotient that is too large for 64 bits.
        if signed && width >= Width::B4 {
            let divides = self.b.ins().icmp_imm_s(IntCC::NotEqual, divisor, -1);
            let higher = self.b.ins().icmp_imm_s(IntCC::NotEqual, dividend, i64::MIN);
            let fits = self.b.ins().bor(divides, higher);
            self.step_unless(fits);
        }
        let quotient = if signed { self.b.ins().sdiv(dividend, divisor) } else { self.b.ins().udiv(dividend, divisor) };
        if width != Width::B8 {
            let cut = self.narrow(V::Wide(quotient), width);
            let back = if signed { self.b.ins().sextend(I64, cut) } else { self.b.ins().uextend(I64, cut) };
            let fits = self.b.ins().icmp(IntCC::Equal, back, quotient);
            self.step_unless(fits);
        }
        let product = self.b.ins().imul(quotient, divisor);
        let remainder = self.b.ins().isub(dividend, product);
        self.set_register(a, width, V::Wide(quotient));
        self.set_register(d, width, V::Wide(remainder));
    }
}

impl Lower<'_> {
    /// Whether rDX is known to be what zero or sign extension of rAX makes of it.
    fn high_follows(&mut self, signed: bool) -> bool {
        let width = self.insn.width;
        let [low, mut high] = [RAX, RDX].map(|n| self.b.use_var(self.registers[usize::from(n)]));
        let dfg = &self.b.func.dfg;
        if !signed {
            return self.bits_of(high) == 0;
        }
        if width != Width::B8 {
            let Some(inst) = dfg.value_def(high).inst().filter(|inst| dfg.insts[*inst].opcode() == Opcode::Uextend)
            else {
                return false;
            };
            high = dfg.resolve_aliases(dfg.inst_args(inst)[0]);
        }
        let Some(inst) = dfg.value_def(high).inst().filter(|inst| dfg.insts[*inst].opcode() == Opcode::Sshr) else {
            return false;
        };
        let [of, count] = [0, 1].map(|n| dfg.resolve_aliases(dfg.inst_args(inst)[n]));
        let whole = if width == Width::B8 { Some(of) } else { self.reduced(of) };
        whole == Some(low) && self.constant_of(count) == Some(u64::from(width.bits()) - 1)
    }

    /// DIV and IDIV of 32 bits by 32, which is what compilers make of them. The divisor comes extended to 64.
    fn divide_dwords(&mut self, signed: bool, divisor: Value) {
        let (a, d) = (RegFile::slot(RAX), RegFile::slot(RDX));
        let divisor = self.b.ins().ireduce(I32, divisor);
        let low = self.register(a, Width::B4);
        let low = self.narrow(low, Width::B4);
        let divides = self.b.ins().icmp_imm_s(IntCC::NotEqual, divisor, 0);
        self.step_unless(divides);
        if signed {
            let divides = self.b.ins().icmp_imm_s(IntCC::NotEqual, divisor, -1);
            let higher = self.b.ins().icmp_imm_s(IntCC::NotEqual, low, i64::from(i32::MIN));
            let fits = self.b.ins().bor(divides, higher);
            self.step_unless(fits);
        }
        if self.is_overwritten(RAX) {
            let remainder = if signed { self.b.ins().srem(low, divisor) } else { self.b.ins().urem(low, divisor) };
            self.set_register(d, Width::B4, V::of(remainder, Width::B4));
            return;
        }
        let quotient = if signed { self.b.ins().sdiv(low, divisor) } else { self.b.ins().udiv(low, divisor) };
        let product = self.b.ins().imul(quotient, divisor);
        let remainder = self.b.ins().isub(low, product);
        self.set_register(a, Width::B4, V::of(quotient, Width::B4));
        self.set_register(d, Width::B4, V::of(remainder, Width::B4));
    }
}

impl Backend for Lower<'_> {
    type V = V;
    type Trap = Infallible;

    fn width(&self) -> Width {
        self.insn.width
    }

    fn imm(&mut self, value: u64) -> V {
        V::Imm(value)
    }

    fn read(&mut self, n: usize) -> Result<V, Infallible> {
        let operand = self.insn.ops[n & 3];
        let width = self.insn.operand_width(n);
        Ok(match operand.kind {
            Kind::Gpr => self.register(operand.reg, width),
            Kind::Mem => {
                let linear = self.linear();
                let host = self.host(linear, width.bytes(), false);
                V::of(self.load_host(width, host), width)
            }
            Kind::Imm2 => V::Imm(u64::from(self.insn.imm2)),
            _ => V::Imm(self.insn.imm),
        })
    }

    fn write(&mut self, n: usize, value: V) -> Result<(), Infallible> {
        let operand = self.insn.ops[n & 3];
        let width = self.insn.operand_width(n);
        if operand.kind == Kind::Mem {
            let linear = self.linear();
            let host = self.host(linear, width.bytes(), true);
            let value = self.narrow(value, width);
            self.store_host(value, host);
        } else {
            self.set_register(operand.reg, width, value);
        }
        Ok(())
    }

    fn open(&mut self, n: usize) -> Result<V, Infallible> {
        if self.insn.ops[n & 3].kind != Kind::Mem {
            return self.read(n);
        }
        let width = self.insn.operand_width(n);
        let linear = self.linear();
        let host = self.host(linear, width.bytes(), true);
        self.open = Some(host);
        Ok(V::of(self.load_host(width, host), width))
    }

    fn commit(&mut self, n: usize, value: V) -> Result<(), Infallible> {
        match self.open {
            Some(host) if self.insn.ops[n & 3].kind == Kind::Mem => {
                let width = self.insn.operand_width(n);
                let value = self.narrow(value, width);
                self.store_host(value, host);
                Ok(())
            }
            _ => self.write(n, value),
        }
    }

    fn address(&mut self) -> V {
        V::Wide(self.effective())
    }

    fn peek(&mut self) -> Result<V, Infallible> {
        let width = self.insn.width;
        let sp = self.stack_pointer();
        let host = self.host(sp, width.bytes(), false);
        Ok(V::of(self.load_host(width, host), width))
    }

    fn drop_top(&mut self) {
        let top = self.stack_pointer();
        let sp = self.b.ins().iadd_imm_s(top, self.insn.width.bytes() as i64);
        self.note_sum(sp, top, self.insn.width.bytes() as i64);
        self.set_stack_pointer(sp);
    }

    fn push(&mut self, value: V) -> Result<(), Infallible> {
        let value = self.wide(value);
        self.push_value(value);
        Ok(())
    }

    fn add(&mut self, a: V, b: V) -> V {
        self.add_or_subtract(false, a, b)
    }

    fn sub(&mut self, a: V, b: V) -> V {
        self.add_or_subtract(true, a, b)
    }

    fn mul(&mut self, a: V, b: V) -> V {
        let (a, b) = (self.wide(a), self.wide(b));
        V::Wide(self.b.ins().imul(a, b))
    }

    fn mul_high(&mut self, a: V, b: V) -> V {
        let (a, b) = (self.wide(a), self.wide(b));
        V::Wide(self.b.ins().smulhi(a, b))
    }

    fn and(&mut self, a: V, b: V) -> V {
        self.bits(a, b, InstOp::And)
    }

    fn or(&mut self, a: V, b: V) -> V {
        self.bits(a, b, InstOp::Or)
    }

    fn xor(&mut self, a: V, b: V) -> V {
        self.bits(a, b, InstOp::Xor)
    }

    fn shl(&mut self, a: V, n: V) -> V {
        if let (V::Imm(a), V::Imm(n)) = (a, n) {
            return V::Imm(a << (n & 63));
        }
        self.shift(a, n, |lower, x, n| lower.b.ins().ishl(x, n))
    }

    fn shr(&mut self, a: V, n: V) -> V {
        match (a, n) {
            (V::Imm(a), V::Imm(n)) => V::Imm(a >> (n & 63)),
            (a, V::Imm(63)) => V::Flag(self.negative(a)),
            _ => self.shift(a, n, |lower, x, n| lower.b.ins().ushr(x, n)),
        }
    }

    fn sar(&mut self, a: V, n: V) -> V {
        if let (V::Imm(a), V::Imm(n)) = (a, n) {
            return V::Imm(((a as i64) >> (n & 63)) as u64);
        }
        self.shift(a, n, |lower, x, n| lower.b.ins().sshr(x, n))
    }

    fn sext(&mut self, width: Width, a: V) -> V {
        match a {
            V::Imm(value) => V::Imm(width.sext(value)),
            V::Narrow(_, w) if w <= width => a,
            _ => {
                let value = self.narrow(a, width);
                V::of(value, width)
            }
        }
    }

    fn zext(&mut self, width: Width, a: V) -> V {
        match a {
            V::Imm(value) => V::Imm(value & width.mask()),
            V::Flag(_) => a,
            _ => V::Wide(self.unsigned(a, width)),
        }
    }

    fn eq(&mut self, a: V, b: V) -> V {
        let (a, b) = self.alike(a, b);
        V::Flag(self.b.ins().icmp(IntCC::Equal, a, b))
    }

    fn select(&mut self, c: V, a: V, b: V) -> V {
        let c = match c {
            V::Imm(0) => return b,
            V::Imm(_) => return a,
            V::Flag(value) => value,
            c => {
                let (c, zero) = self.alike(c, V::Imm(0));
                self.b.ins().icmp(IntCC::NotEqual, c, zero)
            }
        };
        let width = Self::common(a, b).filter(|_| !matches!(a, V::Flag(_))).unwrap_or(Width::B8);
        let (a, b) = (self.narrow(a, width), self.narrow(b, width));
        V::of(self.b.ins().select(c, a, b), width)
    }

    fn bswap(&mut self, width: Width, a: V) -> V {
        // With 16 bits the result is undefined; processors give zero.
        if width < Width::B4 {
            return V::Imm(0);
        }
        let value = self.narrow(a, width);
        V::of(self.b.ins().bswap(value), width)
    }

    fn carry(&mut self) -> V {
        V::Flag(self.carry_flag())
    }

    fn condition(&mut self, cc: u8) -> V {
        V::Flag(self.condition_flag(cc))
    }

    fn set_flags(&mut self, op: FlagOp, x: V, y: V, r: V) {
        self.flags = match op {
            FlagOp::Inc | FlagOp::Dec => {
                // CF is what it was before the first of several.
                let before = match self.flags {
                    Flags::Count(.., before) => before,
                    _ => self.keep_flags(),
                };
                Flags::Count(op, x, y, r, before)
            }
            FlagOp::Parts => Flags::Parts(y, r),
            _ => Flags::Op(op, x, y, r),
        };
    }

    fn set_flags_carry(&mut self, carry: V, zero: FlagOp, one: FlagOp, x: V, y: V, r: V) {
        self.flags = match carry {
            V::Imm(0) => Flags::Op(zero, x, y, r),
            V::Imm(_) => Flags::Op(one, x, y, r),
            carry => Flags::Either(self.narrow(carry, Width::B1), [zero, one], x, y, r),
        };
    }

    fn set_parts_if(&mut self, c: V, bits: V, r: V) {
        match c {
            V::Imm(0) => {}
            V::Imm(_) => self.flags = Flags::Parts(bits, r),
            c => {
                self.store_flags();
                let after = self.if_not_zero(c);
                self.flags = Flags::Parts(bits, r);
                self.store_flags();
                self.b.ins().jump(after, &[]);
                self.begin(after);
                self.flags = Flags::Memory;
            }
        }
    }

    fn set_cf_of_if(&mut self, c: V, bits: V) {
        match c {
            V::Imm(0) => {}
            V::Imm(_) => {
                let bits = self.wide(bits);
                self.replace_carry_overflow(bits);
            }
            c => {
                self.store_flags();
                self.flags = Flags::Memory;
                let bits = self.wide(bits);
                let after = self.if_not_zero(c);
                self.call(Callee::SetCfOf, bits);
                self.b.ins().jump(after, &[]);
                self.begin(after);
            }
        }
    }

    fn set_carry(&mut self, c: V) {
        let carry = self.narrow(c, Width::B1);
        self.replace_carry(carry);
    }
}

impl Lower<'_> {
    /// Begins a block for what happens only if `c` is not zero; the block behind it.
    fn if_not_zero(&mut self, c: V) -> Block {
        let (c, zero) = self.alike(c, V::Imm(0));
        let c = self.b.ins().icmp(IntCC::NotEqual, c, zero);
        let (yes, after) = (self.b.create_block(), self.b.create_block());
        self.b.ins().brif(c, yes, &[], after, &[]);
        self.begin(yes);
        after
    }
}
