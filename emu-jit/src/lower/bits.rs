//! Bit tests and scans, exchanges, and flags, selectors and bytes that are moved: what [`emu_core::ops::integer::bits`] has by hand, and
//! some of what is in `emu_core::ops::bmi` and `emu_core::ops::flags`.
//!
//! LOCK makes no difference: one vCPU executes one instruction after the other, and alignment is the TLB's matter.

use super::backend::V;
use super::flags::Flags;
use super::memory::int;
use super::{Callee, Lower};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8, I16, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use emu_core::cpu::Width;
use emu_core::cpu::regs::{RAX, RBX, RCX, RDX, RegFile, Slot};
use emu_core::cpu::rflags::{AF, CF, DF, FlagOp, OF, PF, RF, SF, VM, ZF};
use emu_core::cpu::segment::Seg;
use emu_core::decode::insn::{Insn, Kind};
use emu_core::exec::region::{exit, layout};
use emu_core::ops::backend::{Backend, Semantics};
use emu_core::ops::integer::alu;
use iced_x86::Mnemonic as M;

/// AH.
const AH: Slot = RegFile::slot(RAX) + 1;

/// Whether `insn` is translated here.
pub fn translates(insn: &Insn) -> bool {
    let memory = insn.ops[0].kind == Kind::Mem;
    match insn.code.mnemonic() {
        M::Bsf | M::Bsr | M::Tzcnt | M::Lzcnt | M::Popcnt | M::Bt | M::Bts | M::Btr | M::Btc => true,
        M::Cmpxchg | M::Cmpxchg8b | M::Cmpxchg16b => true,
        M::Cld | M::Std | M::Clc | M::Stc | M::Cmc | M::Sahf | M::Lahf | M::Pushfd | M::Pushfq => true,
        M::Popfd | M::Popfq | M::Cli | M::Stac | M::Clac | M::Xlatb => true,
        // At the end of a block it casts a shadow on another one.
        M::Sti => insn.after != 0,
        M::Xchg => memory,
        _ => reads_segment(insn),
    }
}

/// Whether `insn` is a MOV from a segment register.
pub fn reads_segment(insn: &Insn) -> bool {
    insn.code.mnemonic() == M::Mov && insn.ops[1].kind == Kind::Seg && segment(insn).is_some()
}

/// The segment register that is operand 1.
fn segment(insn: &Insn) -> Option<Seg> {
    Seg::ALL.get(usize::from(insn.ops[1].reg)).copied()
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
            M::Cmpxchg8b => self.compare_exchange_pair(Width::B4),
            M::Cmpxchg16b => self.compare_exchange_pair(Width::B8),
            M::Cld | M::Std => {
                let flags = self.load(I64, layout::SYSTEM_FLAGS);
                let flags = match self.insn.code.mnemonic() {
                    M::Cld => self.b.ins().band_imm_s(flags, !(DF as i64)),
                    _ => self.b.ins().bor_imm_s(flags, DF as i64),
                };
                self.store(flags, layout::SYSTEM_FLAGS);
            }
            M::Clc | M::Stc => {
                let carry = self.b.ins().iconst(I8, i64::from(self.insn.code.mnemonic() == M::Stc));
                self.replace_carry(carry);
            }
            M::Cmc => {
                let carry = self.carry_flag();
                let carry = self.b.ins().bxor_imm_s(carry, 1);
                self.replace_carry(carry);
            }
            M::Lahf => {
                let flags = self.all_flags();
                self.set_register(AH, Width::B1, V::Wide(flags));
            }
            M::Pushfd | M::Pushfq => {
                let flags = self.all_flags();
                let flags = self.b.ins().band_imm_s(flags, !((VM | RF) as i64));
                self.push_value(flags);
            }
            M::Popfd | M::Popfq => self.pop_flags(),
            M::Cli => self.system_flag(Callee::ClearInterruptFlag, 0),
            M::Sti => self.system_flag(Callee::SetInterruptFlag, 0),
            M::Stac | M::Clac => {
                self.system_flag(Callee::AllowUserPages, i64::from(self.insn.code.mnemonic() == M::Stac));
                // Accesses have other rights from here on.
                self.load_bank();
                self.forget_pages();
            }
            M::Xlatb => {
                let table = self.register64(RegFile::slot(RBX));
                let index = self.register(RegFile::slot(RAX), Width::B1);
                let index = self.unsigned(index, Width::B1);
                let mut address = self.b.ins().iadd(table, index);
                if self.insn.addr != Width::B8 {
                    address = self.low_half(address);
                }
                let linear = self.linear_of(address);
                let host = self.host(linear, 1, false);
                let value = self.load_host(Width::B1, host);
                self.set_register(RegFile::slot(RAX), Width::B1, V::of(value, Width::B1));
            }
            M::Mov => {
                let selector = self.load(I16, segment(self.insn).map_or(0, layout::selector));
                let selector = self.b.ins().uextend(I64, selector);
                let Ok(()) = self.write(0, V::Wide(selector));
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

    /// All flags at their places in RFLAGS.
    fn all_flags(&mut self) -> Value {
        self.store_flags();
        let zero = self.b.ins().iconst(I64, 0);
        self.call(Callee::Flags, zero)
    }

    /// POPFD and POPFQ.
    fn pop_flags(&mut self) {
        let Ok(value) = self.peek();
        self.drop_top();
        self.store_registers();
        let value = self.wide(value);
        let stays = self.call(Callee::PopFlags, value);
        self.flags = Flags::Memory;
        let (hot, cold) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(cold);
        self.b.ins().brif(stays, hot, &[], cold, &[]);
        self.begin(cold);
        self.store_x87_note();
        let next = self.rip(self.block.delta + self.insn.range().end as i64);
        self.settle(next, i64::from(self.insn.after));
        self.leave(exit::LOOKUP);
        self.begin(hot);
    }

    /// CLI and its like, by a function that tells whether it could.
    fn system_flag(&mut self, function: Callee, argument: i64) {
        self.store_registers();
        let argument = self.b.ins().iconst(I64, argument);
        let done = self.call(function, argument);
        self.step_unless(done);
    }

    /// Operand 1, zero-extended.
    fn scanned(&mut self) -> Value {
        let Ok(value) = self.read(1);
        self.unsigned(value, self.insn.width)
    }

    /// Writes `value` to the general register of `width` at `slot` if `condition`, 8 bits, is not zero; otherwise all 64
    /// bits of it stay.
    fn set_register_if(&mut self, condition: Value, slot: Slot, width: Width, value: V) {
        let number = slot >> 3 & 15;
        let before = self.register64(RegFile::slot(number));
        self.set_register(slot, width, value);
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
        self.set_register_if(found, self.insn.ops[0].reg, self.insn.width, V::Wide(r));
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
            self.set_register_if(equal, insn.ops[0].reg, width, source);
        }
        let different = self.b.ins().bxor_imm_s(equal, 1);
        self.set_register_if(different, RegFile::slot(RAX), width, old);
        let difference = self.sub(accumulator, old);
        let r = self.sext(width, difference);
        self.set_flags(FlagOp::Sub, accumulator, old, r);
    }

    /// CMPXCHG8B and CMPXCHG16B, of two halves of `width`: memory is written in either case, and ZF alone of the flags.
    fn compare_exchange_pair(&mut self, width: Width) {
        let linear = self.linear();
        self.store_registers();
        if width == Width::B8 {
            let misaligned = self.b.ins().band_imm_s(linear, 15);
            let aligned = self.b.ins().icmp_imm_s(IntCC::Equal, misaligned, 0);
            self.step_unless(aligned);
        }
        let host = self.host(linear, 2 * width.bytes(), true);
        let above = self.b.ins().iadd_imm_s(host, width.bytes() as i64);
        let halves = [(host, RAX, RBX), (above, RDX, RCX)].map(|(host, expected, new)| {
            let old = self.load_host(width, host);
            let [expected, new] = [expected, new].map(|n| {
                let value = self.register(RegFile::slot(n), width);
                self.narrow(value, width)
            });
            (host, old, self.b.ins().icmp(IntCC::Equal, old, expected), new)
        });
        let equal = self.b.ins().band(halves[0].2, halves[1].2);
        for (host, old, _, new) in halves {
            let value = self.b.ins().select(equal, new, old);
            self.store_host(value, host);
        }
        let different = self.b.ins().bxor_imm_s(equal, 1);
        self.set_register_if(different, RegFile::slot(RAX), width, V::of(halves[0].1, width));
        self.set_register_if(different, RegFile::slot(RDX), width, V::of(halves[1].1, width));
        self.store_flags();
        self.flags = Flags::Memory;
        let zero = self.b.ins().uextend(I64, equal);
        self.call(Callee::SetZf, zero);
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
                    address = self.low_half(address);
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
