//! Moves between XMM registers, general registers and memory, whole or in part.

use super::super::backend::V;
use super::super::{Flags, Lower};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, F32X4, F64, F64X2, I8, I8X16, I16, I16X8, I32, I32X4, I64, I64X2};
use cranelift_codegen::ir::{InstBuilder, Type, Value};
use emu_core::cpu::Width;
use emu_core::decode::insn::{Insn, Kind};
use iced_x86::{Code, Mnemonic as M};

/// The kinds of moves.
#[derive(Clone, Copy)]
pub enum Move {
    /// 16 bytes.
    Full { aligned: bool },
    /// MOVSS and MOVSD: registers are merged, what comes from memory is extended with zeros.
    Scalar(Type),
    /// MOVD and MOVQ: the lowest lane of this type, extended with zeros.
    Low(Type),
    /// A half of a register from or to memory.
    Half { high: bool },
    /// A general register or memory to a lane of this type.
    Insert(Type),
    /// A lane of this type to a general register or memory.
    Extract(Type),
    /// The top bits of lanes of this type to a general register.
    Signs(Type),
    /// INSERTPS.
    InsertSingle,
    /// PTEST.
    Test,
}

/// The move that `insn` is. One of its first two operands is an XMM register.
pub fn find(insn: &Insn) -> Option<Move> {
    let memory = insn.ops[0].kind == Kind::Mem || insn.ops[1].kind == Kind::Mem;
    Some(match insn.code.mnemonic() {
        M::Movaps | M::Movapd | M::Movdqa => Move::Full { aligned: true },
        M::Movups | M::Movupd | M::Movdqu | M::Lddqu => Move::Full { aligned: false },
        // One processor cannot see that a store is non-temporal.
        M::Movntps | M::Movntpd | M::Movntdq | M::Movntdqa => Move::Full { aligned: true },
        M::Movss => Move::Scalar(F32),
        M::Movsd if matches!(insn.code, Code::Movsd_xmm_xmmm64 | Code::Movsd_xmmm64_xmm) => Move::Scalar(F64),
        M::Movd => Move::Low(I32),
        M::Movq => Move::Low(I64),
        M::Movlps | M::Movlpd if memory => Move::Half { high: false },
        M::Movhps | M::Movhpd if memory => Move::Half { high: true },
        M::Pinsrb => Move::Insert(I8X16),
        M::Pinsrw => Move::Insert(I16X8),
        M::Pinsrd => Move::Insert(I32X4),
        M::Pinsrq => Move::Insert(I64X2),
        M::Pextrb => Move::Extract(I8X16),
        M::Pextrw => Move::Extract(I16X8),
        M::Pextrd | M::Extractps => Move::Extract(I32X4),
        M::Pextrq => Move::Extract(I64X2),
        M::Pmovmskb => Move::Signs(I8X16),
        M::Movmskps => Move::Signs(I32X4),
        M::Movmskpd => Move::Signs(I64X2),
        M::Insertps => Move::InsertSingle,
        M::Ptest => Move::Test,
        _ => return None,
    })
}

impl Lower<'_> {
    /// Translates the current instruction.
    pub fn move_vector(&mut self, what: Move) {
        let insn = self.insn;
        let [first, second, ..] = insn.ops;
        let imm = insn.imm as u8;
        match what {
            Move::Full { aligned } if first.kind == Kind::Mem => {
                let host = self.host_vector(aligned, true);
                let value = self.vector(second.reg);
                self.store_host(value, host);
            }
            Move::Full { .. } if second.kind == Kind::Xmm => self.copy_vector(first.reg, second.reg),
            Move::Full { aligned } => {
                let value = self.source(1, 16, aligned);
                self.define_vector(first.reg, value);
            }
            Move::Scalar(kind) if first.kind == Kind::Mem => {
                let value = self.low(second.reg, kind);
                self.store_scalar(value);
            }
            Move::Scalar(kind) if second.kind == Kind::Mem => {
                let value = self.load_scalar(kind);
                let value = self.extended(value);
                self.define_vector(first.reg, value);
            }
            Move::Scalar(kind) => {
                let value = self.low(second.reg, kind);
                self.define_low(first.reg, value);
            }
            Move::Low(kind) => self.move_low(kind),
            Move::Half { high } if first.kind == Kind::Mem => {
                let value = self.lane(second.reg, F64X2, u8::from(high));
                self.store_scalar(value);
            }
            Move::Half { high } => {
                let value = self.load_scalar(F64);
                self.replace(first.reg, F64X2, u8::from(high), value);
            }
            Move::Insert(lanes) => {
                let kind = lanes.lane_type();
                let value = match second.kind {
                    Kind::Mem => self.load_scalar(kind),
                    _ => {
                        let width = Width::from_bytes(kind.bytes() as usize);
                        let value = self.register(second.reg, width);
                        self.narrow(value, width)
                    }
                };
                self.replace(first.reg, lanes, imm & (lanes.lane_count() - 1) as u8, value);
            }
            Move::Extract(lanes) => {
                let value = self.lane(second.reg, lanes, imm & (lanes.lane_count() - 1) as u8);
                self.extract(value);
            }
            Move::Signs(lanes) => {
                let value = self.vector(second.reg);
                let value = self.lanes(lanes, value);
                let bits = self.b.ins().vhigh_bits(I32, value);
                self.extract(bits);
            }
            Move::InsertSingle => {
                let value = match second.kind {
                    Kind::Mem => self.load_scalar(F32),
                    _ => self.lane(second.reg, F32X4, imm >> 6),
                };
                let old = self.vector(first.reg);
                let old = self.lanes(F32X4, old);
                let new = self.b.ins().insertlane(old, value, imm >> 4 & 3);
                let new = self.lanes(I8X16, new);
                let value = if imm & 15 == 0 {
                    new
                } else {
                    let zeros = self.zeros();
                    self.pick(new, zeros, std::array::from_fn::<u8, 4, _>(|n| n as u8 + 4 * (imm >> n & 1)))
                };
                self.define_vector(first.reg, value);
            }
            Move::Test => {
                let src = self.source(1, 16, true);
                let dst = self.vector(first.reg);
                let both = self.b.ins().band(dst, src);
                let rest = self.b.ins().band_not(src, dst);
                let [zero, carry] = [both, rest].map(|value| {
                    let value = self.lanes(I64X2, value);
                    let (low, high) = (self.b.ins().extractlane(value, 0), self.b.ins().extractlane(value, 1));
                    let all = self.b.ins().bor(low, high);
                    self.b.ins().icmp_imm_s(IntCC::Equal, all, 0)
                });
                self.flags = Flags::Tested(zero, carry);
            }
        }
    }

    /// MOVD and MOVQ.
    fn move_low(&mut self, kind: Type) {
        let [first, second, ..] = self.insn.ops;
        let float = if kind == I32 { F32 } else { F64 };
        match (first.kind, second.kind) {
            (Kind::Mem, _) => {
                let value = self.low(second.reg, float);
                self.store_scalar(value);
            }
            (Kind::Gpr, _) => {
                let lanes = if kind == I32 { I32X4 } else { I64X2 };
                let value = self.lane(second.reg, lanes, 0);
                self.extract(value);
            }
            (_, source) => {
                let value = match source {
                    Kind::Mem => self.load_scalar(float),
                    Kind::Xmm => self.low(second.reg, float),
                    _ => {
                        let width = Width::from_bytes(kind.bytes() as usize);
                        let value = self.register(second.reg, width);
                        self.narrow(value, width)
                    }
                };
                let value = self.extended(value);
                self.define_vector(first.reg, value);
            }
        }
    }

    /// Lane `n` of a register as lanes of `lanes`.
    fn lane(&mut self, reg: u8, lanes: Type, n: u8) -> Value {
        let value = self.vector(reg);
        let value = self.lanes(lanes, value);
        self.b.ins().extractlane(value, n)
    }

    /// Replaces a lane of a register.
    fn replace(&mut self, reg: u8, lanes: Type, n: u8, value: Value) {
        let old = self.vector(reg);
        let old = self.lanes(lanes, old);
        let new = self.b.ins().insertlane(old, value, n);
        self.define_vector(reg, new);
    }

    /// Writes an integer to the destination: a general register, where it is extended with zeros, or memory.
    fn extract(&mut self, value: Value) {
        let first = self.insn.ops[0];
        if first.kind == Kind::Mem {
            self.store_scalar(value);
            return;
        }
        let wide = match self.b.func.dfg.value_type(value) {
            I64 => value,
            I8 | I16 | I32 => self.b.ins().uextend(I64, value),
            _ => return,
        };
        self.set_register(first.reg, Width::B8, V::Wide(wide));
    }
}
