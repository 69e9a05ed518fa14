//! Bit manipulation with VEX encodings, ADX, and moves that reverse bytes: what [`emu_core::ops::bmi`] has besides scans
//! and counts, which are in [`super::bits`]. PDEP, PEXT and CRC32 are loops there, and called.

use super::Lower;
use super::backend::V;
use super::flags::Flags;
use super::memory::int;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};
use emu_core::cpu::Width;
use emu_core::cpu::regs::{RDX, RegFile};
use emu_core::cpu::rflags::ZF;
use emu_core::decode::insn::Insn;
use emu_core::ops::backend::Backend;
use iced_x86::Mnemonic as M;

/// Whether `insn` is translated here.
pub fn translates(insn: &Insn) -> bool {
    matches!(
        insn.code.mnemonic(),
        M::Andn
            | M::Bextr
            | M::Blsi
            | M::Blsmsk
            | M::Blsr
            | M::Bzhi
            | M::Mulx
            | M::Rorx
            | M::Sarx
            | M::Shlx
            | M::Shrx
            | M::Adcx
            | M::Adox
            | M::Movbe
            | M::Movnti
    )
}

impl Lower<'_> {
    /// Translates the current instruction if it is one of these; whether it is.
    pub fn bmi_instruction(&mut self) -> bool {
        if !translates(self.insn) {
            return false;
        }
        match self.insn.code.mnemonic() {
            M::Andn => {
                let (x, y) = (self.narrow_source(1), self.narrow_source(2));
                let r = self.b.ins().band_not(y, x);
                self.set_result(r, V::Imm(0));
            }
            M::Bextr => self.extract_bits(),
            M::Blsi | M::Blsmsk | M::Blsr => self.lowest_bit(),
            M::Bzhi => self.zero_high_bits(),
            M::Mulx => self.multiply_without_flags(),
            M::Rorx | M::Sarx | M::Shlx | M::Shrx => self.shift_without_flags(),
            M::Adcx | M::Adox => self.add_with_one_flag(),
            M::Movbe => {
                let x = self.narrow_source(1);
                let r = match self.insn.width {
                    Width::B2 => self.b.ins().rotl_imm_s(x, 8),
                    _ => self.b.ins().bswap(x),
                };
                let Ok(()) = self.write(0, V::of(r, self.insn.width));
            }
            _ => {
                let Ok(value) = self.read(1);
                let Ok(()) = self.write(0, value);
            }
        }
        true
    }

    /// Operand `n`, of the width of the operation.
    fn narrow_source(&mut self, n: usize) -> Value {
        let Ok(value) = self.read(n);
        self.narrow(value, self.insn.width)
    }

    /// Writes the destination, and flags: ZF and SF of `r`, CF as given; OF is clear.
    fn set_result(&mut self, r: Value, carry: V) {
        let r = V::of(r, self.insn.width);
        let Ok(()) = self.write(0, r);
        self.flags = Flags::Parts(carry, r);
    }

    /// BLSI, BLSMSK and BLSR.
    fn lowest_bit(&mut self) {
        let x = self.narrow_source(1);
        let one_less = self.b.ins().iadd_imm_s(x, -1);
        let (r, carry) = match self.insn.code.mnemonic() {
            M::Blsi => {
                let negated = self.b.ins().ineg(x);
                (self.b.ins().band(x, negated), IntCC::NotEqual)
            }
            M::Blsmsk => (self.b.ins().bxor(x, one_less), IntCC::Equal),
            _ => (self.b.ins().band(x, one_less), IntCC::Equal),
        };
        let carry = self.b.ins().icmp_imm_s(carry, x, 0);
        self.set_result(r, V::Flag(carry));
    }

    /// The low `count` bits, a number of less than 256, are ones.
    fn low_bits(&mut self, count: Value) -> Value {
        let one = self.b.ins().iconst(I64, 1);
        let bit = self.b.ins().ishl(one, count);
        let bits = self.b.ins().iadd_imm_s(bit, -1);
        let all = self.b.ins().iconst(I64, -1);
        let some = self.b.ins().icmp_imm_u(IntCC::UnsignedLessThan, count, 64);
        self.b.ins().select(some, bits, all)
    }

    /// Operand `n`, zero-extended.
    fn wide_source(&mut self, n: usize) -> Value {
        let Ok(value) = self.read(n);
        self.unsigned(value, self.insn.width)
    }

    /// BEXTR: the start in bits 7:0 of operand 2, the length in 15:8.
    fn extract_bits(&mut self) {
        let (x, control) = (self.wide_source(1), self.wide_source(2));
        let start = self.b.ins().band_imm_s(control, 0xff);
        let length = self.b.ins().ushr_imm_s(control, 8);
        let length = self.b.ins().band_imm_s(length, 0xff);
        let moved = self.b.ins().ushr(x, start);
        let zero = self.b.ins().iconst(I64, 0);
        let within = self.b.ins().icmp_imm_u(IntCC::UnsignedLessThan, start, 64);
        let moved = self.b.ins().select(within, moved, zero);
        let mask = self.low_bits(length);
        let r = self.b.ins().band(moved, mask);
        let Ok(()) = self.write(0, V::Wide(r));
        let none = self.b.ins().icmp_imm_s(IntCC::Equal, r, 0);
        let bits = self.select(V::Flag(none), V::Imm(ZF), V::Imm(0));
        self.flags = Flags::Bits(self.wide(bits));
    }

    /// BZHI
    fn zero_high_bits(&mut self) {
        let (x, index) = (self.wide_source(1), self.wide_source(2));
        let index = self.b.ins().band_imm_s(index, 0xff);
        let mask = self.low_bits(index);
        let r = self.b.ins().band(x, mask);
        let last = i64::from(self.insn.width.bits()) - 1;
        let carry = self.b.ins().icmp_imm_u(IntCC::UnsignedGreaterThan, index, last);
        let r = self.narrow(V::Wide(r), self.insn.width);
        self.set_result(r, V::Flag(carry));
    }

    /// MULX. If both destinations are the same register, it gets the high half.
    fn multiply_without_flags(&mut self) {
        let insn = self.insn;
        let width = insn.width;
        let y = self.wide_source(2);
        let x = self.register(RegFile::slot(RDX), width);
        let x = self.unsigned(x, width);
        let low = self.b.ins().imul(x, y);
        let high = match width {
            Width::B8 => self.b.ins().umulhi(x, y),
            _ => self.b.ins().ushr_imm_s(low, 32),
        };
        self.set_register(insn.ops[1].reg, width, V::Wide(low));
        self.set_register(insn.ops[0].reg, width, V::Wide(high));
    }

    /// RORX, SARX, SHLX and SHRX. CLIF's shifts count modulo the width, as these do.
    fn shift_without_flags(&mut self) {
        let width = self.insn.width;
        let x = self.narrow_source(1);
        let r = if self.insn.code.mnemonic() == M::Rorx {
            self.b.ins().rotr_imm_s(x, (self.insn.imm & u64::from(width.bits() - 1)) as i64)
        } else {
            let count = self.narrow_source(2);
            match self.insn.code.mnemonic() {
                M::Sarx => self.b.ins().sshr(x, count),
                M::Shlx => self.b.ins().ishl(x, count),
                _ => self.b.ins().ushr(x, count),
            }
        };
        let Ok(()) = self.write(0, V::of(r, width));
    }

    /// ADCX and ADOX: additions whose carry in and out is CF or OF, and which leave the other flags alone.
    fn add_with_one_flag(&mut self) {
        let width = self.insn.width;
        let by_carry = self.insn.code.mnemonic() == M::Adcx;
        let (y, x) = (self.narrow_source(1), self.narrow_source(0));
        let carry = self.condition_flag(if by_carry { 2 } else { 0 });
        let carry = self.b.ins().uextend(int(width), carry);
        let sum = self.b.ins().iadd(x, y);
        let over = self.b.ins().icmp(IntCC::UnsignedLessThan, sum, x);
        let r = self.b.ins().iadd(sum, carry);
        let over_again = self.b.ins().icmp(IntCC::UnsignedLessThan, r, sum);
        let out = self.b.ins().bor(over, over_again);
        let Ok(()) = self.write(0, V::of(r, width));
        if by_carry {
            self.replace_carry(out);
        } else {
            let kept = self.carry_flag();
            let bits = self.carry_overflow_bits(kept, out);
            self.replace_carry_overflow(bits);
        }
    }
}
