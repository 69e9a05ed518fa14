//! SSE to SSE4.2.
//!
//! XMM registers are SSA variables like the general ones, of 16 bytes; lanes are a matter of each operation. What an
//! instruction with one row in [`packed`] does is a function of its operands' values. What is absent here is executed by
//! the interpreter's function: whatever [`translates`] does not know, MMX, and all of SSE where CR0 and CR4 forbid it.

mod float;
mod moves;
mod packed;

use super::memory::{Place, guest};
use super::{Callee, Lower};
use crate::flow::Registers;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, F32X4, F64, F64X2, I8X16, I16, I32, I32X4, I64};
use cranelift_codegen::ir::{Endianness, InstBuilder, MemFlagsData, Type, Value};
use cranelift_frontend::{FunctionBuilder, Variable};
use emu_core::decode::insn::{Insn, Kind};
use emu_core::exec::cache::ModeKey;
use emu_core::exec::mode;
use emu_core::exec::region::layout;
use float::{Float, vector_of};
use iced_x86::Mnemonic;
use moves::Move;
use packed::Row;

/// What is known of the XMM registers while translating.
pub struct Vectors {
    variables: Vec<Variable>,
    /// Registers that have been written since they were last stored.
    pub pending: Registers,
    /// The lowest lanes of registers that were written alone: they are put together with the rest when that is asked
    /// for, so that scalar code does without.
    low: [Option<Low>; 16],
    /// Pending registers with results of the FPU that no other result depends on.
    unsecured: Registers,
    /// Registers that the current instruction has read.
    read: Registers,
    /// The current instruction computes with floats.
    computes: bool,
    /// Addresses that are known to be multiples of 16.
    aligned: Vec<Place>,
}

/// The lowest lane of a register.
#[derive(Clone, Copy)]
struct Low {
    /// A float.
    value: Value,
    kind: Type,
    /// The variable does not have it.
    stale: bool,
    /// What the vCPU has of the other lanes is old.
    rest_pending: bool,
}

impl Vectors {
    /// Nothing is known, and nothing is loaded.
    pub fn new(b: &mut FunctionBuilder<'_>) -> Vectors {
        Vectors {
            variables: (0..16).map(|_| b.declare_var(I8X16)).collect(),
            pending: 0,
            low: [None; 16],
            unsecured: 0,
            read: 0,
            computes: false,
            aligned: Vec::new(),
        }
    }
}

/// How an instruction is translated.
#[derive(Clone, Copy)]
enum Op {
    Move(Move),
    Packed(Row),
    Float(Float),
    /// By the interpreter's function, which accesses nothing but XMM registers; whether it computes with floats.
    Rare {
        computes: bool,
    },
}

impl Op {
    /// It depends on MXCSR.
    fn computes(self) -> bool {
        matches!(self, Op::Float(_) | Op::Rare { computes: true })
    }
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
    moves::find(insn)
        .map(Op::Move)
        .or_else(|| packed::row(insn).map(Op::Packed))
        .or_else(|| float::find(insn).map(Op::Float))
        .or_else(|| rare(insn))
}

/// What is not worth a translation, but should not need all state in the vCPU: only where all operands are registers.
fn rare(insn: &Insn) -> Option<Op> {
    use Mnemonic as M;
    let computes = match insn.code.mnemonic() {
        M::Addsubps | M::Addsubpd | M::Dpps | M::Dppd => true,
        M::Rcpss | M::Rcpps | M::Rsqrtss | M::Rsqrtps | M::Phminposuw | M::Mpsadbw => false,
        M::Aesenc | M::Aesenclast | M::Aesdec | M::Aesdeclast | M::Aesimc | M::Aeskeygenassist | M::Pclmulqdq => false,
        M::Sha1rnds4 | M::Sha1nexte | M::Sha1msg1 | M::Sha1msg2 => false,
        M::Sha256rnds2 | M::Sha256msg1 | M::Sha256msg2 => false,
        _ => return None,
    };
    let registers = insn.ops.iter().all(|operand| matches!(operand.kind, Kind::Xmm | Kind::Imm | Kind::None));
    registers.then_some(Op::Rare { computes })
}

/// Whether `insn` is translated in the mode `key`.
pub fn translates(key: ModeKey, insn: &Insn) -> bool {
    key & mode::SSE != 0 && host_suffices() && op(insn).is_some()
}

/// On x86, some of what is made here needs SSE4.1, as Cranelift does for some of what is made of it.
fn host_suffices() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("sse4.1");
    #[cfg(not(target_arch = "x86_64"))]
    return true;
}

/// Whether `insn` is translated in the mode `key` to operations of the host's FPU.
pub fn computes(key: ModeKey, insn: &Insn) -> bool {
    translates(key, insn) && op(insn).is_some_and(Op::computes)
}

/// For casts from one type to another.
fn little_endian() -> MemFlagsData {
    MemFlagsData::new().with_endianness(Endianness::Little)
}

fn slot(n: u8) -> usize {
    layout::XMM + 16 * usize::from(n & 15)
}

impl Lower<'_> {
    /// Translates the current instruction, which [`translates`] knows.
    pub fn vector_instruction(&mut self) {
        let found = op(self.insn);
        self.vectors.read = 0;
        self.vectors.computes = found.is_some_and(Op::computes);
        match found {
            Some(Op::Move(found)) => self.move_vector(found),
            Some(Op::Packed(row)) => self.packed(row),
            Some(Op::Float(what)) => self.float(what),
            Some(Op::Rare { .. }) => self.rare(),
            None => debug_assert!(false, "only what is known comes here"),
        }
    }

    /// Has the interpreter's function execute the current instruction, with its registers in the vCPU.
    fn rare(&mut self) {
        let insn = self.insn;
        // SHA256RNDS2 reads register 0 besides.
        let operands = insn.ops.iter().filter(|operand| operand.kind == Kind::Xmm).map(|operand| operand.reg & 15);
        for n in operands.chain([0]) {
            if self.vectors.pending >> n & 1 != 0 {
                self.store_vector(n);
            }
        }
        let callee = if self.flow.computes { Callee::ComputeInFloat } else { Callee::Compute };
        let kept = self.foreign.keep(insn);
        let kept = self.b.ins().iconst(I64, kept as i64);
        self.call(callee, kept);
        self.load_vectors(1 << (insn.ops[0].reg & 15));
    }

    /// Loads the registers in `mask` from the vCPU.
    pub fn load_vectors(&mut self, mask: Registers) {
        for n in (0..16).filter(|n| mask >> n & 1 != 0) {
            let value = self.load(I8X16, slot(n));
            self.b.def_var(self.vectors.variables[usize::from(n)], value);
            self.vectors.low[usize::from(n)] = None;
        }
    }

    /// What is known of lanes and addresses ends where ways meet.
    pub fn forget_lanes(&mut self) {
        debug_assert!(self.vectors.pending == 0, "registers are stored where blocks end");
        self.vectors.low = [None; 16];
        self.vectors.aligned.clear();
    }

    /// Stores the registers that have been written.
    pub fn store_vectors(&mut self) {
        let mask = self.vectors.pending;
        for n in (0..16).filter(|n| mask >> n & 1 != 0) {
            self.store_vector(n);
        }
    }

    fn store_vector(&mut self, n: u8) {
        self.put_together(n);
        match &mut self.vectors.low[usize::from(n)] {
            Some(Low { value, rest_pending: false, .. }) => {
                let value = *value;
                self.store(value, slot(n));
            }
            low => {
                if let Some(low) = low {
                    low.rest_pending = false;
                }
                let value = self.b.use_var(self.vectors.variables[usize::from(n)]);
                self.store(value, slot(n));
            }
        }
        self.vectors.pending &= !(1 << n);
        self.vectors.unsecured &= !(1 << n);
    }

    /// Gives the variable of register `n` its lowest lane.
    fn put_together(&mut self, n: u8) {
        let variable = self.vectors.variables[usize::from(n)];
        let Some(low @ Low { stale: true, .. }) = &mut self.vectors.low[usize::from(n)] else { return };
        low.stale = false;
        let (value, kind) = (low.value, low.kind);
        let old = self.b.use_var(variable);
        let old = self.lanes(vector_of(kind), old);
        let new = self.b.ins().insertlane(old, value, 0);
        let new = self.lanes(I8X16, new);
        self.b.def_var(variable, new);
    }

    /// Register `n`.
    fn vector(&mut self, n: u8) -> Value {
        let n = n & 15;
        self.vectors.read |= 1 << n;
        self.put_together(n);
        self.b.use_var(self.vectors.variables[usize::from(n)])
    }

    /// The lowest lane of register `n`, a float.
    fn low(&mut self, n: u8, kind: Type) -> Value {
        let n = n & 15;
        if let Some(low) = self.vectors.low[usize::from(n)]
            && low.kind == kind
        {
            self.vectors.read |= 1 << n;
            return low.value;
        }
        let value = self.vector(n);
        let value = self.lanes(vector_of(kind), value);
        self.b.ins().extractlane(value, 0)
    }

    /// Register `n` is about to change: stores it if its value is a result that nothing would use then.
    fn replaces(&mut self, n: u8) {
        let bit = 1 << n;
        let used = self.vectors.computes && self.vectors.read & bit != 0;
        if self.vectors.unsecured & bit != 0 && !used {
            self.store_vector(n);
        }
        if self.vectors.computes {
            self.vectors.unsecured |= bit;
        }
    }

    /// Gives register `n` a new value, which is stored later.
    fn define_vector(&mut self, n: u8, value: Value) {
        let n = n & 15;
        self.replaces(n);
        let value = self.lanes(I8X16, value);
        self.b.def_var(self.vectors.variables[usize::from(n)], value);
        self.vectors.low[usize::from(n)] = None;
        self.vectors.pending |= 1 << n;
    }

    /// Gives the lowest lane of register `n` a new value, a float.
    fn define_low(&mut self, n: u8, value: Value) {
        let n = n & 15;
        self.replaces(n);
        let kind = self.b.func.dfg.value_type(value);
        let rest_pending = match self.vectors.low[usize::from(n)] {
            Some(low) if low.kind == kind => low.rest_pending,
            _ => {
                self.put_together(n);
                self.vectors.pending >> n & 1 != 0
            }
        };
        self.vectors.low[usize::from(n)] = Some(Low { value, kind, stale: true, rest_pending });
        self.vectors.pending |= 1 << n;
    }

    /// Gives register `n` the value of register `from`.
    fn copy_vector(&mut self, n: u8, from: u8) {
        let (n, from) = (n & 15, from & 15);
        if n == from {
            return;
        }
        self.replaces(n);
        let value = self.b.use_var(self.vectors.variables[usize::from(from)]);
        self.b.def_var(self.vectors.variables[usize::from(n)], value);
        self.vectors.low[usize::from(n)] =
            self.vectors.low[usize::from(from)].map(|low| Low { rest_pending: true, ..low });
        self.vectors.pending |= 1 << n;
    }

    /// The same 16 bytes as lanes of another type.
    fn lanes(&mut self, kind: Type, value: Value) -> Value {
        if self.b.func.dfg.value_type(value) == kind {
            return value;
        }
        self.b.ins().bitcast(kind, little_endian(), value)
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
        let place = self.place(linear);
        let known = |known: &Place| known.0 == place.0 && known.1.wrapping_sub(place.1) & 15 == 0;
        if aligned && !self.vectors.aligned.iter().any(known) {
            self.vectors.aligned.push(place);
            self.prepare_to_leave();
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
