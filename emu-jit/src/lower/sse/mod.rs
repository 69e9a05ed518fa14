//! SSE to SSE4.2.
//!
//! XMM registers are SSA variables like the general ones, of 16 bytes; lanes are a matter of each operation. What an
//! instruction with one row in [`packed`] does is a function of its operands' values. What is absent here is executed by
//! the interpreter's function: whatever [`translates`] does not know, MMX, and all of SSE where CR0 and CR4 forbid it.

mod moves;
mod packed;

use super::Lower;
use super::memory::guest;
use crate::flow::Registers;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, F32X4, F64, F64X2, I8X16, I16, I32, I32X4, I64};
use cranelift_codegen::ir::{Endianness, InstBuilder, MemFlagsData, Type, Value};
use cranelift_frontend::{FunctionBuilder, Variable};
use emu_core::decode::insn::{Insn, Kind};
use emu_core::exec::cache::ModeKey;
use emu_core::exec::mode;
use emu_core::exec::region::layout;
use moves::Move;
use packed::Row;

/// What is known of the XMM registers while translating.
pub struct Vectors {
    variables: Vec<Variable>,
    /// Registers that have been written since they were last stored.
    pub pending: Registers,
}

impl Vectors {
    /// Nothing is known, and nothing is loaded.
    pub fn new(b: &mut FunctionBuilder<'_>) -> Vectors {
        Vectors { variables: (0..16).map(|_| b.declare_var(I8X16)).collect(), pending: 0 }
    }
}

/// How an instruction is translated.
#[derive(Clone, Copy)]
enum Op {
    Move(Move),
    Packed(Row),
}

fn op(insn: &Insn) -> Option<Op> {
    let [first, second, ..] = insn.ops;
    if first.kind != Kind::Xmm && second.kind != Kind::Xmm {
        return None;
    }
    let fits = |kind| matches!(kind, Kind::Xmm | Kind::Gpr | Kind::Mem | Kind::Imm);
    if !fits(first.kind) || !fits(second.kind) {
        return None;
    }
    moves::find(insn).map(Op::Move).or_else(|| packed::row(insn).map(Op::Packed))
}

/// Whether `insn` is translated in the mode `key`.
pub fn translates(key: ModeKey, insn: &Insn) -> bool {
    key & mode::SSE != 0 && op(insn).is_some()
}

fn slot(n: u8) -> usize {
    layout::XMM + 16 * usize::from(n & 15)
}

impl Lower<'_> {
    /// Translates the current instruction, which [`translates`] knows.
    pub fn vector_instruction(&mut self) {
        match op(self.insn) {
            Some(Op::Move(found)) => self.move_vector(found),
            Some(Op::Packed(row)) => self.packed(row),
            None => debug_assert!(false, "only what is known comes here"),
        }
    }

    /// Loads the registers in `mask` from the vCPU.
    pub fn load_vectors(&mut self, mask: Registers) {
        for n in (0..16).filter(|n| mask >> n & 1 != 0) {
            let value = self.load(I8X16, slot(n));
            self.b.def_var(self.vectors.variables[usize::from(n)], value);
        }
    }

    /// Stores the registers that have been written.
    pub fn store_vectors(&mut self) {
        let mask = std::mem::take(&mut self.vectors.pending);
        for n in (0..16).filter(|n| mask >> n & 1 != 0) {
            let value = self.b.use_var(self.vectors.variables[usize::from(n)]);
            self.store(value, slot(n));
        }
    }

    /// Register `n`.
    fn vector(&mut self, n: u8) -> Value {
        self.b.use_var(self.vectors.variables[usize::from(n & 15)])
    }

    /// Gives register `n` a new value, which is stored later.
    fn define_vector(&mut self, n: u8, value: Value) {
        let value = self.lanes(I8X16, value);
        self.b.def_var(self.vectors.variables[usize::from(n & 15)], value);
        self.vectors.pending |= 1 << (n & 15);
    }

    /// The same 16 bytes as lanes of another type.
    fn lanes(&mut self, kind: Type, value: Value) -> Value {
        if self.b.func.dfg.value_type(value) == kind {
            return value;
        }
        self.b.ins().bitcast(kind, MemFlagsData::new().with_endianness(Endianness::Little), value)
    }

    fn zeros(&mut self) -> Value {
        self.bytes([0; 16])
    }

    /// A constant.
    fn bytes(&mut self, bytes: [u8; 16]) -> Value {
        let constant = self.b.func.dfg.constants.insert(bytes.as_slice().into());
        self.b.ins().vconst(I8X16, constant)
    }

    /// The host address of 16 bytes of the memory operand.
    fn host_vector(&mut self, aligned: bool, write: bool) -> Value {
        let linear = self.linear();
        if aligned {
            self.store_registers();
            let low = self.b.ins().band_imm_s(linear, 15);
            let fits = self.b.ins().icmp_imm_s(IntCC::Equal, low, 0);
            self.step_unless(fits);
        }
        self.host(linear, 16, write)
    }

    /// Loads a scalar, of a float or integer type.
    fn load_scalar(&mut self, kind: Type) -> Value {
        let linear = self.linear();
        let host = self.host(linear, u64::from(kind.bytes()), false);
        self.b.ins().load(kind, guest(), host, 0)
    }

    /// Stores a scalar.
    fn store_scalar(&mut self, value: Value) {
        let size = self.b.func.dfg.value_type(value).bytes();
        let linear = self.linear();
        let host = self.host(linear, u64::from(size), true);
        self.store_host(value, host);
    }

    /// A scalar in the lowest lane, the rest zero.
    fn extended(&mut self, value: Value) -> Value {
        let (kind, value) = match self.b.func.dfg.value_type(value) {
            F32 => (F32X4, value),
            F64 => (F64X2, value),
            I64 => (cranelift_codegen::ir::types::I64X2, value),
            I32 => (I32X4, value),
            _ => (I32X4, self.b.ins().uextend(I32, value)),
        };
        self.b.ins().scalar_to_vector(kind, value)
    }

    /// A source operand, of `size` bytes in memory, where the rest is zero.
    fn source(&mut self, operand: usize, size: u8, aligned: bool) -> Value {
        let operand = self.insn.ops[operand & 3];
        if operand.kind == Kind::Xmm {
            return self.vector(operand.reg);
        }
        let kind = match size {
            2 => I16,
            4 => F32,
            8 => F64,
            _ => {
                let host = self.host_vector(aligned, false);
                return self.b.ins().load(I8X16, guest(), host, 0);
            }
        };
        let value = self.load_scalar(kind);
        let value = self.extended(value);
        self.lanes(I8X16, value)
    }
}
