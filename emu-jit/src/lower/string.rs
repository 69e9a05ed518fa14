//! String instructions without repetition. Repetitions are the interpreter's, which moves whole pages.
//!
//! They are translated for ascending addresses: where DF is set, the interpreter executes them.

use super::Lower;
use super::backend::V;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};
use emu_core::cpu::Width;
use emu_core::cpu::regs::{RAX, RDI, RSI, RegFile};
use emu_core::cpu::rflags::{DF, FlagOp};
use emu_core::decode::insn::{Insn, Kind, prefix};
use emu_core::exec::region::layout;
use emu_core::ops::backend::Backend;
use iced_x86::Mnemonic as M;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Move,
    Store,
    Load,
    Scan,
    Compare,
}

fn operation(insn: &Insn) -> Option<Operation> {
    // MOVSD and CMPSD are SSE instructions too.
    if insn.ops.iter().any(|operand| operand.kind == Kind::Xmm) {
        return None;
    }
    Some(match insn.code.mnemonic() {
        M::Movsb | M::Movsw | M::Movsd | M::Movsq => Operation::Move,
        M::Stosb | M::Stosw | M::Stosd | M::Stosq => Operation::Store,
        M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => Operation::Load,
        M::Scasb | M::Scasw | M::Scasd | M::Scasq => Operation::Scan,
        M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq => Operation::Compare,
        _ => return None,
    })
}

/// Whether `insn` is a string instruction that may be repeated.
pub fn is_repeated(insn: &Insn) -> bool {
    insn.prefixes & (prefix::REP | prefix::REPNE) != 0 && operation(insn).is_some()
}

/// Whether `insn` is translated here.
pub fn translates(insn: &Insn) -> bool {
    operation(insn).is_some() && !is_repeated(insn) && insn.addr.bits() == u32::from(insn.code_bits)
}

impl Lower<'_> {
    /// Translates the current instruction, which [`translates`] knows.
    pub fn string_instruction(&mut self) {
        let Some(operation) = operation(self.insn) else {
            debug_assert!(false, "only what is known comes here");
            return;
        };
        let width = Width::from_bytes(usize::from(self.insn.mem_size()));
        self.prepare_to_leave();
        let flags = self.load(I64, layout::SYSTEM_FLAGS);
        let down = self.b.ins().band_imm_s(flags, DF as i64);
        let up = self.b.ins().icmp_imm_s(IntCC::Equal, down, 0);
        self.step_unless(up);
        let accumulator = RegFile::slot(RAX);
        match operation {
            Operation::Move => {
                let from = self.element(RSI, width, false);
                let to = self.element(RDI, width, true);
                let value = self.load_host(width, from);
                self.store_host(value, to);
            }
            Operation::Store => {
                let to = self.element(RDI, width, true);
                let value = self.register(accumulator, width);
                let value = self.narrow(value, width);
                self.store_host(value, to);
            }
            Operation::Load => {
                let from = self.element(RSI, width, false);
                let value = self.load_host(width, from);
                self.set_register(accumulator, width, V::of(value, width));
            }
            Operation::Scan => {
                let at = self.element(RDI, width, false);
                let y = self.load_host(width, at);
                let x = self.register(accumulator, width);
                self.compare_elements(x, V::of(y, width), width);
            }
            Operation::Compare => {
                let to = self.element(RDI, width, false);
                let from = self.element(RSI, width, false);
                let (x, y) = (self.load_host(width, from), self.load_host(width, to));
                self.compare_elements(V::of(x, width), V::of(y, width), width);
            }
        }
        if !matches!(operation, Operation::Store | Operation::Scan) {
            self.advance(RSI, width);
        }
        if operation != Operation::Load {
            self.advance(RDI, width);
        }
    }

    /// rSI or rDI, cut to the address size.
    fn index(&mut self, register: u8) -> Value {
        let all = self.register64(RegFile::slot(register));
        self.cut_sum(all, all, 0)
    }

    /// The host address of the element at rSI or rDI.
    fn element(&mut self, register: u8, width: Width, write: bool) -> Value {
        let address = self.index(register);
        // At rDI it is ES's, which is flat.
        let linear = if register == RSI { self.linear_of(address) } else { address };
        self.host(linear, width.bytes(), write)
    }

    /// Moves rSI or rDI to the next element.
    fn advance(&mut self, register: u8, width: Width) {
        let before = self.index(register);
        let distance = width.bytes() as i64;
        let sum = self.b.ins().iadd_imm_s(before, distance);
        self.note_sum(sum, before, distance);
        let sum = self.cut_sum(sum, before, distance);
        self.define(register, sum);
    }

    fn compare_elements(&mut self, x: V, y: V, width: Width) {
        let (a, b) = (self.narrow(x, width), self.narrow(y, width));
        let r = self.b.ins().isub(a, b);
        self.set_flags(FlagOp::Sub, x, y, V::of(r, width));
    }
}
