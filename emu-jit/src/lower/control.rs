//! Ways out of a block.

use super::{Flags, Lower, Start, V, signature};
use crate::flow;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value};
use cranelift_codegen::isa::CallConv;
use emu_core::cpu::Width;
use emu_core::cpu::regs::{BLOCK_RIP, RCX, RegFile};
use emu_core::decode::insn::{Insn, Kind};
use emu_core::exec::region::{exit, layout};
use emu_core::ops::integer::jump_condition;
use iced_x86::{Code, FlowControl, Mnemonic};

/// Blocks behind calls that a return is compared with.
const GUESSES: usize = 4;

/// A near jump or call through a register or memory, with the size of the code.
pub fn is_indirect(insn: &Insn) -> bool {
    use iced_x86::Code::{Call_rm32, Call_rm64, Jmp_rm32, Jmp_rm64};
    match insn.code {
        Call_rm64 | Jmp_rm64 => insn.code_bits == 64,
        Call_rm32 | Jmp_rm32 => insn.code_bits == 32,
        _ => false,
    }
}

/// The width of the counter of LOOPcc or J(E|R)CXZ; `None` for other instructions.
pub fn count_width(insn: &Insn) -> Option<Width> {
    use Code::*;
    Some(match insn.code {
        Loop_rel8_16_CX | Loop_rel8_32_CX | Loope_rel8_16_CX | Loope_rel8_32_CX => Width::B2,
        Loopne_rel8_16_CX | Loopne_rel8_32_CX | Jcxz_rel8_16 | Jcxz_rel8_32 => Width::B2,
        Loop_rel8_16_ECX | Loop_rel8_32_ECX | Loop_rel8_64_ECX => Width::B4,
        Loope_rel8_16_ECX | Loope_rel8_32_ECX | Loope_rel8_64_ECX => Width::B4,
        Loopne_rel8_16_ECX | Loopne_rel8_32_ECX | Loopne_rel8_64_ECX => Width::B4,
        Jecxz_rel8_16 | Jecxz_rel8_32 | Jecxz_rel8_64 => Width::B4,
        Loop_rel8_16_RCX | Loop_rel8_64_RCX | Loope_rel8_16_RCX | Loope_rel8_64_RCX => Width::B8,
        Loopne_rel8_16_RCX | Loopne_rel8_64_RCX | Jrcxz_rel8_16 | Jrcxz_rel8_64 => Width::B8,
        _ => return None,
    })
}

impl Lower<'_> {
    /// The transfer of control at the end of the current block.
    pub fn branch(&mut self) {
        let (block, insn) = (self.block, self.insn);
        let next = flow::next(block, insn);
        let counted = count_width(insn).map(|width| self.count(width));
        // Before ways part.
        self.store_vectors();
        self.settle_x87_note();
        let condition = counted.or_else(|| Some(self.condition_flag(jump_condition(insn.code.mnemonic())?)));
        if let Some(condition) = condition {
            let taken = flow::target(block, insn);
            let (yes, no) = (self.b.create_block(), self.b.create_block());
            self.b.ins().brif(condition, yes, &[], no, &[]);
            let (flags, pending) = (self.flags, self.pending);
            self.begin(yes);
            self.go(taken);
            (self.flags, self.pending) = (flags, pending);
            self.begin(no);
            self.go(next);
            return;
        }
        match insn.code.flow_control() {
            FlowControl::UnconditionalBranch => self.go(flow::target(block, insn)),
            FlowControl::Call => {
                let back = self.rip(next);
                self.push_value(back);
                self.go(flow::target(block, insn));
            }
            FlowControl::Return => self.go_back(),
            _ => {
                let width = self.code_width();
                let target = match insn.ops[0].kind {
                    Kind::Mem => {
                        let linear = self.linear();
                        let host = self.host(linear, width.bytes(), false);
                        V::of(self.load_host(width, host), width)
                    }
                    _ => self.register(insn.ops[0].reg, width),
                };
                let target = self.unsigned(target, width);
                self.check(target);
                if insn.code.mnemonic() == Mnemonic::Call {
                    let back = self.rip(next);
                    self.push_value(back);
                }
                self.guess(target, &block.targets);
            }
        }
    }

    /// Counts for LOOPcc; whether that or J(E|R)CXZ jumps, as an 8-bit 0 or 1.
    fn count(&mut self, width: Width) -> Value {
        let counter = RegFile::slot(RCX);
        let count = self.register(counter, width);
        let count = self.narrow(count, width);
        let condition = match self.insn.code.mnemonic() {
            Mnemonic::Jcxz | Mnemonic::Jecxz | Mnemonic::Jrcxz => {
                return self.b.ins().icmp_imm_s(IntCC::Equal, count, 0);
            }
            Mnemonic::Loope => Some(4),
            Mnemonic::Loopne => Some(5),
            _ => None,
        };
        let left = self.b.ins().iadd_imm_s(count, -1);
        self.set_register(counter, width, V::of(left, width));
        let more = self.b.ins().icmp_imm_s(IntCC::NotEqual, left, 0);
        let Some(cc) = condition else { return more };
        let flag = self.condition_flag(cc);
        self.b.ins().band(more, flag)
    }

    /// A near return.
    fn go_back(&mut self) {
        let width = self.code_width();
        let insn = self.insn;
        let sp = self.stack_pointer();
        let host = self.host(sp, width.bytes(), false);
        let target = V::of(self.load_host(width, host), width);
        let target = self.unsigned(target, width);
        self.check(target);
        let dropped = if insn.ops[0].kind == Kind::Imm { insn.imm & 0xffff } else { 0 };
        let behind = self.b.ins().iadd_imm_s(sp, (width.bytes() + dropped) as i64);
        self.note_sum(behind, sp, (width.bytes() + dropped) as i64);
        self.set_stack_pointer(behind);
        let sites: Vec<i64> =
            self.flow.return_sites.iter().take(GUESSES).map(|site| self.source.blocks[*site].delta).collect();
        self.guess(target, &sites);
    }

    /// Goes to `target`: inside the region if it is at one of the distances `guesses`.
    fn guess(&mut self, target: Value, guesses: &[i64]) {
        self.store_vectors();
        let (flags, pending) = (self.flags, self.pending);
        for delta in guesses.iter().copied() {
            if !self.source.blocks.iter().any(|block| block.delta == delta) {
                continue;
            }
            let guess = self.rip(delta);
            let right = self.b.ins().icmp(IntCC::Equal, target, guess);
            let (yes, no) = (self.b.create_block(), self.b.create_block());
            self.b.ins().brif(right, yes, &[], no, &[]);
            self.begin(yes);
            self.go(delta);
            (self.flags, self.pending) = (flags, pending);
            self.begin(no);
        }
        self.chain(target);
    }

    /// Leaves the target of an indirect branch to the interpreter if it may not be canonical.
    fn check(&mut self, target: Value) {
        if !self.wide_code() {
            return;
        }
        let up = self.b.ins().ishl_imm_s(target, 16);
        let down = self.b.ins().sshr_imm_s(up, 16);
        let canonical = self.b.ins().icmp(IntCC::Equal, down, target);
        self.prepare_to_leave();
        self.step_unless(canonical);
    }

    /// Leaves the region for the code at `target`.
    fn chain(&mut self, target: Value) {
        self.settle(target, 0);
        self.b.ins().jump(self.onward, &[target.into()]);
    }

    /// The block [`Lower::onward`]: to the region at the target, if there is one.
    pub fn go_onward(&mut self) {
        self.begin(self.onward);
        if self.float.is_some() {
            // The host's FPU has to be given back first.
            self.leave(exit::CHAIN);
            return;
        }
        let target = self.b.block_params(self.onward)[0];
        let tag = self.load(I64, layout::JUMP_TAG);
        let above = self.b.ins().ushr_imm_s(target, i64::from(layout::WAY_BITS));
        let number = self.b.ins().bxor(target, above);
        let number = self.b.ins().bxor(number, tag);
        let at = self.b.ins().ishl_imm_s(number, i64::from(layout::WAY.trailing_zeros()));
        let at = self.b.ins().band_imm_s(at, (((1 << layout::WAY_BITS) - 1) * layout::WAY) as i64);
        let ways = self.load(I64, layout::WAYS);
        let way = self.b.ins().iadd(ways, at);
        let field = |lower: &mut Self, at: usize| lower.b.ins().load(I64, MemFlagsData::trusted(), way, at as i32);
        let rip = field(self, layout::WAY_RIP);
        let here = self.b.ins().icmp(IntCC::Equal, rip, target);
        let (known, found, unknown) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(unknown);
        self.b.ins().brif(here, known, &[], unknown, &[]);
        self.begin(known);
        let valid = field(self, layout::WAY_TAG);
        let now = self.b.ins().icmp(IntCC::Equal, valid, tag);
        self.b.ins().brif(now, found, &[], unknown, &[]);

        self.begin(found);
        let chained = self.load(I64, layout::CHAINED);
        let chained = self.b.ins().iadd_imm_s(chained, 1);
        self.store(chained, layout::CHAINED);
        self.store(target, layout::REGS + usize::from(BLOCK_RIP));
        let code = field(self, layout::WAY_AT);
        let region = self.b.import_signature(signature(CallConv::Tail, 1));
        self.b.ins().return_call_indirect(region, code, &[self.cpu]);

        self.begin(unknown);
        self.leave(exit::CHAIN);
    }

    /// Goes to the code at `distance` from the start of the region: inside it, if it is there.
    pub fn go(&mut self, distance: i64) {
        self.settle_x87_note();
        let Some(n) = self.source.blocks.iter().position(|block| block.delta == distance) else {
            let target = self.rip(distance);
            self.chain(target);
            return;
        };
        self.store_vectors();
        let waiting = self.may_wait(n);
        self.store_general(self.pending & !waiting);
        // Pay for it.
        let cost = self.source.blocks[n].insns.len() as i64;
        let budget = self.b.use_var(self.budget);
        let left = self.b.ins().iadd_imm_s(budget, -cost);
        let short = self.b.ins().icmp_imm_s(IntCC::SignedLessThan, left, 0);
        let (over, paid) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(over);
        self.b.ins().brif(short, over, &[], paid, &[]);
        self.begin(over);
        let target = self.rip(distance);
        let pending = self.pending;
        self.settle(target, 0);
        self.pending = pending;
        self.store(target, layout::REGS + usize::from(BLOCK_RIP));
        self.leave(exit::BUDGET);
        self.begin(paid);
        self.b.def_var(self.budget, left);
        let facts = &self.flow.blocks[n];
        let start = if facts.predecessors == 1 {
            Start { block: n, flags: self.flags, checked: self.checked.clone(), pending: self.pending }
        } else {
            if facts.flags_in {
                self.store_flags();
            }
            Start { block: n, flags: Flags::Memory, checked: Vec::new(), pending: waiting }
        };
        self.queue.push(start);
        self.b.ins().jump(self.clif[n], &[]);
    }

    /// A value of `width` as the low part of 64 bits.
    pub fn unsigned(&mut self, value: V, width: Width) -> Value {
        if let V::Imm(value) = value {
            return self.b.ins().iconst(I64, (value & width.mask()) as i64);
        }
        let narrow = self.narrow(value, width);
        if width == Width::B8 {
            return narrow;
        }
        // Where the rest is known to be zero there is nothing to do.
        let all = match value {
            V::Wide(all) => Some(all),
            _ => self.reduced(narrow),
        };
        match all {
            Some(all) if self.bits_of(all) <= width.bits() => all,
            _ => self.b.ins().uextend(I64, narrow),
        }
    }
}
