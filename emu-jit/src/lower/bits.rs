//! Bit tests and scans, exchanges, and flags that are moved: what [`emu_core::ops::integer::bits`] has by hand, and
//! some of what is in `emu_core::ops::bmi` and `emu_core::ops::flags`.
//!
//! LOCK makes no difference: one vCPU executes one instruction after the other, and alignment is the TLB's matter.

use super::backend::V;
use super::flags::Flags;
use super::memory::int;
use super::{Callee, Lower};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use emu_core::cpu::Width;
use emu_core::cpu::regs::{RAX, RegFile, Slot};
use emu_core::cpu::rflags::{AF, CF, DF, FlagOp, OF, PF, SF, ZF};
use emu_core::decode::insn::{Insn, Kind};
use emu_core::exec::region::layout;
use emu_core::ops::backend::{Backend, Semantics};
use emu_core::ops::integer::alu;
use iced_x86::Mnemonic as M;

/// AH.
const AH: Slot = RegFile::slot(RAX) + 1;

/// Whether `insn` is translated here.
pub fn translates(insn: &Insn) -> bool {
    let memory = insn.ops[0].kind == Kind::Mem;
    match insn.code.mnemonic() {
        M::Bsf | M::Bsr | M::Tzcnt | M::Lzcnt | M::Popcnt | M::Cmpxchg | M::Cld | M::Std | M::Sahf => true,
        M::Bt | M::Bts | M::Btr | M::Btc => memory || insn.width >= Width::B4,
        M::Xchg => memory,
        _ => false,
    }
}

impl Lower<'_> {
    /// Translates the current instruction if it is one of these; whether it is.
    pub fn bit_instruction(&mut self) -> bool {
        if !translates(self.insn) {
            return false;
        }
        match self.insn.code.mnemonic() {
            M::Bt | M::Bts | M::Btr | M::Btc => self.bit_test(),
            M::Bsf | M::Bsr => self.scan(),
            M::Tzcnt | M::Lzcnt => self.count_zeros(),
            M::Popcnt => {
                let x = self.scanned();
                let count = self.b.ins().popcnt(x);
                self.set_register(self.insn.ops[0].reg, self.insn.width, V::Wide(count));
                let none = self.b.ins().icmp_imm_s(IntCC::Equal, x, 0);
                let bits = self.select(V::Flag(none), V::Imm(ZF), V::Imm(0));
                self.flags = Flags::Bits(self.wide(bits));
            }
            M::Cmpxchg => self.compare_exchange(),
            M::Cld | M::Std => {
                let flags = self.load(I64, layout::SYSTEM_FLAGS);
                let flags = match self.insn.code.mnemonic() {
                    M::Cld => self.b.ins().band_imm_s(flags, !(DF as i64)),
                    _ => self.b.ins().bor_imm_s(flags, DF as i64),
                };
                self.store(flags, layout::SYSTEM_FLAGS);
            }
            M::Sahf => {
                let overflow = self.condition_flag(0);
                let overflow = self.b.ins().uextend(I64, overflow);
                let overflow = self.b.ins().ishl_imm_s(overflow, i64::from(OF.trailing_zeros()));
                let new = self.register(AH, Width::B1);
                let new = self.unsigned(new, Width::B1);
                let new = self.b.ins().band_imm_s(new, (SF | ZF | AF | PF | CF) as i64);
                self.flags = Flags::Bits(self.b.ins().bor(new, overflow));
            }
            _ => {
                let Ok(()) = alu::Xchg::run(self);
            }
        }
        true
    }

    /// Operand 1, zero-extended.
    fn scanned(&mut self) -> Value {
        let Ok(value) = self.read(1);
        self.unsigned(value, self.insn.width)
    }

    /// Writes `value` to the general register at `slot` if `condition`, 8 bits, is not zero; otherwise all 64 bits of it
    /// stay.
    fn set_register_if(&mut self, condition: Value, slot: Slot, value: V) {
        let number = slot >> 3 & 15;
        let before = self.register64(RegFile::slot(number));
        self.set_register(slot, self.insn.width, value);
        let after = self.register64(RegFile::slot(number));
        let result = self.b.ins().select(condition, after, before);
        self.define(number, result);
    }

    /// BSF and BSR.
    fn scan(&mut self) {
        let x = self.scanned();
        let found = self.b.ins().icmp_imm_s(IntCC::NotEqual, x, 0);
        let r = if self.insn.code.mnemonic() == M::Bsf {
            self.b.ins().ctz(x)
        } else {
            let zeros = self.b.ins().clz(x);
            // 63 minus that, of a number that is less than 64.
            self.b.ins().bxor_imm_s(zeros, 63)
        };
        self.set_register_if(found, self.insn.ops[0].reg, V::Wide(r));
        self.flags = Flags::Op(FlagOp::Sub, V::Flag(found), V::Imm(0), V::Flag(found));
    }

    /// TZCNT and LZCNT, which leave the other flags alone.
    fn count_zeros(&mut self) {
        let width = self.insn.width;
        let bits = i64::from(width.bits());
        let x = self.scanned();
        let r = match (self.insn.code.mnemonic(), width) {
            (M::Tzcnt, Width::B8) => self.b.ins().ctz(x),
            (M::Tzcnt, _) => {
                let stop = self.b.ins().bor_imm_s(x, 1 << bits);
                self.b.ins().ctz(stop)
            }
            _ => {
                let zeros = self.b.ins().clz(x);
                self.b.ins().iadd_imm_s(zeros, bits - 64)
            }
        };
        self.set_register(self.insn.ops[0].reg, width, V::Wide(r));
        self.store_flags();
        self.flags = Flags::Memory;
        let none = self.b.ins().icmp_imm_s(IntCC::Equal, x, 0);
        let zero = self.b.ins().icmp_imm_s(IntCC::Equal, r, 0);
        let none = self.b.ins().uextend(I64, none);
        let zero = self.b.ins().uextend(I64, zero);
        let zero = self.b.ins().ishl_imm_s(zero, i64::from(ZF.trailing_zeros()));
        let bits = self.b.ins().bor(none, zero);
        self.call(Callee::SetCfZf, bits);
    }

    /// CMPXCHG: memory is written in either case.
    fn compare_exchange(&mut self) {
        let insn = self.insn;
        let width = insn.width;
        let accumulator = self.register(RegFile::slot(RAX), width);
        let source = self.register(insn.ops[1].reg, width);
        let Ok(old) = self.open(0);
        let (x, y) = (self.narrow(accumulator, width), self.narrow(old, width));
        let equal = self.b.ins().icmp(IntCC::Equal, x, y);
        if insn.ops[0].kind == Kind::Mem {
            let new = self.select(V::Flag(equal), source, old);
            let Ok(()) = self.commit(0, new);
        } else {
            self.set_register_if(equal, insn.ops[0].reg, source);
        }
        let different = self.b.ins().bxor_imm_s(equal, 1);
        self.set_register_if(different, RegFile::slot(RAX), old);
        let difference = self.sub(accumulator, old);
        let r = self.sext(width, difference);
        self.set_flags(FlagOp::Sub, accumulator, old, r);
    }

    /// BT, BTS, BTR and BTC. A register bit offset reaches beyond a memory operand, in units of its size.
    fn bit_test(&mut self) {
        let insn = self.insn;
        let width = insn.width;
        let Ok(offset) = self.read(1);
        let writes = insn.code.mnemonic() != M::Bt;
        let host = (insn.ops[0].kind == Kind::Mem).then(|| {
            let mut address = self.effective();
            if insn.ops[1].kind == Kind::Gpr {
                let offset = self.wide(offset);
                let units = self.b.ins().sshr_imm_s(offset, i64::from(width.bits().trailing_zeros()));
                let distance = self.b.ins().ishl_imm_s(units, i64::from(width.bytes().trailing_zeros()));
                address = self.b.ins().iadd(address, distance);
                if insn.addr != Width::B8 {
                    address = self.b.ins().band_imm_s(address, 0xffff_ffff);
                }
            }
            let linear = self.linear_of(address);
            self.host(linear, width.bytes(), writes)
        });
        let x = match host {
            Some(host) => self.load_host(width, host),
            None => {
                let x = self.register(insn.ops[0].reg, width);
                self.narrow(x, width)
            }
        };
        // CLIF's shifts count modulo the width, as these do.
        let count = match offset {
            V::Imm(value) => self.b.ins().iconst(int(width), (value & u64::from(width.bits() - 1)) as i64),
            offset => self.narrow(offset, width),
        };
        let moved = self.b.ins().ushr(x, count);
        let low = self.b.ins().ireduce(I8, moved);
        let carry = self.b.ins().band_imm_s(low, 1);
        if writes {
            let one = self.b.ins().iconst(int(width), 1);
            let mask = self.b.ins().ishl(one, count);
            let r = match insn.code.mnemonic() {
                M::Bts => self.b.ins().bor(x, mask),
                M::Btr => self.b.ins().band_not(x, mask),
                _ => self.b.ins().bxor(x, mask),
            };
            match host {
                Some(host) => self.store_host(r, host),
                None => self.set_register(insn.ops[0].reg, width, V::of(r, width)),
            }
        }
        self.replace_carry(carry);
    }
}
