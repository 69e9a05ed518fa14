//! Floating-point arithmetic, comparisons and conversions, by the host's FPU.
//!
//! While such a region runs, the host's MXCSR is the guest's, whose exceptions are all masked (`Lower::region` sees to
//! both): so rounding, FTZ, DAZ and the flags that stick are right by construction, as long as the host executes each
//! operation of the guest, and no others that could raise a flag. CLIF's operations are pure, so one whose result
//! nothing uses would be dropped: [`super::Vectors`] keeps account of results that have not been stored, and what goes
//! to a general register is stored at once. Operands stay in their order, which tells the NaN that wins: the CLIF made
//! here never has a load as the first operand, for which alone Cranelift would swap them.
//!
//! Absent, and so executed by the interpreter's function: RCP and RSQRT, whose tables differ between processors,
//! ADDSUB, DPPS and DPPD, which no operation of CLIF is, and what converts from and to MMX registers; everything on hosts
//! that are no x86.

use super::super::backend::V;
use super::super::{Callee, Flags, Lower};
use super::slot;
use crate::flow;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, F32X4, F64, F64X2, I8X16, I32, I32X4, I64, I64X2};
use cranelift_codegen::ir::{InstBuilder, Type, Value};
use emu_core::cpu::Width;
use emu_core::cpu::regs::RegFile;
use emu_core::decode::insn::{Insn, Kind};
use emu_core::exec::region::layout;
use emu_core::ops::integer::jump_condition;
use iced_x86::{Code, Mnemonic as M};

/// A computation on lanes of one float type.
#[derive(Clone, Copy)]
pub enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    Sqrt,
}

/// What an instruction computes. Types are those of its float lanes.
#[derive(Clone, Copy)]
pub enum Float {
    /// On all lanes.
    Packed(Type, Arithmetic),
    /// On the lowest.
    Scalar(Type, Arithmetic),
    /// On neighbouring lanes.
    Horizontal(Type, Arithmetic),
    /// CMPPS, CMPPD.
    ComparePacked(Type),
    /// CMPSS, CMPSD.
    CompareScalar(Type),
    /// COMIS, UCOMIS.
    Flags(Type),
    /// CVTSI2SS, CVTSI2SD.
    FromInteger(Type),
    /// CVTSS2SI, CVTSD2SI: rounds as MXCSR says.
    ToInteger(Type),
    /// CVTTSS2SI, CVTTSD2SI.
    Truncate(Type),
    /// CVTSS2SD, CVTSD2SS, from this type.
    Convert(Type),
    /// Between vectors of different lanes.
    Lanes(Conversion),
    /// ROUNDSS, ROUNDSD.
    RoundScalar(Type),
    /// ROUNDPS, ROUNDPD.
    RoundPacked(Type),
}

/// From one kind of lanes to another.
#[derive(Clone, Copy)]
pub enum Conversion {
    SinglesToDoubles,
    DoublesToSingles,
    DwordsToSingles,
    DwordsToDoubles,
    TruncateSingles,
    TruncateDoubles,
    RoundSingles,
    RoundDoubles,
}

/// What `insn` computes, if this host can; one of its first two operands is an XMM register.
pub fn find(insn: &Insn) -> Option<Float> {
    use Arithmetic::{Add, Div, Max, Min, Mul, Sqrt, Sub};
    if !cfg!(target_arch = "x86_64") {
        return None;
    }
    Some(match insn.code.mnemonic() {
        M::Addps => Float::Packed(F32X4, Add),
        M::Addpd => Float::Packed(F64X2, Add),
        M::Addss => Float::Scalar(F32, Add),
        M::Addsd => Float::Scalar(F64, Add),
        M::Subps => Float::Packed(F32X4, Sub),
        M::Subpd => Float::Packed(F64X2, Sub),
        M::Subss => Float::Scalar(F32, Sub),
        M::Subsd => Float::Scalar(F64, Sub),
        M::Mulps => Float::Packed(F32X4, Mul),
        M::Mulpd => Float::Packed(F64X2, Mul),
        M::Mulss => Float::Scalar(F32, Mul),
        M::Mulsd => Float::Scalar(F64, Mul),
        M::Divps => Float::Packed(F32X4, Div),
        M::Divpd => Float::Packed(F64X2, Div),
        M::Divss => Float::Scalar(F32, Div),
        M::Divsd => Float::Scalar(F64, Div),
        M::Minps => Float::Packed(F32X4, Min),
        M::Minpd => Float::Packed(F64X2, Min),
        M::Minss => Float::Scalar(F32, Min),
        M::Minsd => Float::Scalar(F64, Min),
        M::Maxps => Float::Packed(F32X4, Max),
        M::Maxpd => Float::Packed(F64X2, Max),
        M::Maxss => Float::Scalar(F32, Max),
        M::Maxsd => Float::Scalar(F64, Max),
        M::Sqrtps => Float::Packed(F32X4, Sqrt),
        M::Sqrtpd => Float::Packed(F64X2, Sqrt),
        M::Sqrtss => Float::Scalar(F32, Sqrt),
        M::Sqrtsd => Float::Scalar(F64, Sqrt),
        M::Haddps => Float::Horizontal(F32X4, Add),
        M::Haddpd => Float::Horizontal(F64X2, Add),
        M::Hsubps => Float::Horizontal(F32X4, Sub),
        M::Hsubpd => Float::Horizontal(F64X2, Sub),
        M::Cmpps => Float::ComparePacked(F32X4),
        M::Cmppd => Float::ComparePacked(F64X2),
        M::Cmpss => Float::CompareScalar(F32),
        M::Cmpsd if insn.code == Code::Cmpsd_xmm_xmmm64_imm8 => Float::CompareScalar(F64),
        M::Comiss | M::Ucomiss => Float::Flags(F32),
        M::Comisd | M::Ucomisd => Float::Flags(F64),
        M::Cvtsi2ss => Float::FromInteger(F32),
        M::Cvtsi2sd => Float::FromInteger(F64),
        M::Cvtss2si => Float::ToInteger(F32),
        M::Cvtsd2si => Float::ToInteger(F64),
        M::Cvttss2si => Float::Truncate(F32),
        M::Cvttsd2si => Float::Truncate(F64),
        M::Cvtss2sd => Float::Convert(F32),
        M::Cvtsd2ss => Float::Convert(F64),
        M::Cvtps2pd => Float::Lanes(Conversion::SinglesToDoubles),
        M::Cvtpd2ps => Float::Lanes(Conversion::DoublesToSingles),
        M::Cvtdq2ps => Float::Lanes(Conversion::DwordsToSingles),
        M::Cvtdq2pd => Float::Lanes(Conversion::DwordsToDoubles),
        M::Cvttps2dq => Float::Lanes(Conversion::TruncateSingles),
        M::Cvttpd2dq => Float::Lanes(Conversion::TruncateDoubles),
        M::Cvtps2dq => Float::Lanes(Conversion::RoundSingles),
        M::Cvtpd2dq => Float::Lanes(Conversion::RoundDoubles),
        M::Roundss => Float::RoundScalar(F32),
        M::Roundsd => Float::RoundScalar(F64),
        M::Roundps => Float::RoundPacked(F32X4),
        M::Roundpd => Float::RoundPacked(F64X2),
        _ => return None,
    })
}

/// The predicates of CMPPS and its relatives (SDM Vol. 2A table 3-1).
fn predicate(imm: u8) -> FloatCC {
    match imm & 7 {
        0 => FloatCC::Equal,
        1 => FloatCC::LessThan,
        2 => FloatCC::LessThanOrEqual,
        3 => FloatCC::Unordered,
        4 => FloatCC::NotEqual,
        5 => FloatCC::UnorderedOrGreaterThanOrEqual,
        6 => FloatCC::UnorderedOrGreaterThan,
        _ => FloatCC::Ordered,
    }
}

/// The vector whose lanes have the type `kind`.
pub fn vector_of(kind: Type) -> Type {
    if kind == F32 { F32X4 } else { F64X2 }
}

impl Lower<'_> {
    /// Translates the current instruction.
    pub fn float(&mut self, what: Float) {
        let insn = self.insn;
        let dst = insn.ops[0].reg;
        match what {
            Float::Packed(lanes, op) => {
                let b = self.float_lanes(1, 16, lanes);
                let r = if matches!(op, Arithmetic::Sqrt) {
                    self.b.ins().sqrt(b)
                } else {
                    let a = self.float_lanes(0, 16, lanes);
                    self.compute(op, a, b)
                };
                self.define_vector(dst, r);
            }
            Float::Scalar(kind, op) => {
                let b = self.scalar(1, kind);
                let r = if matches!(op, Arithmetic::Sqrt) {
                    self.b.ins().sqrt(b)
                } else {
                    let a = self.low(dst, kind);
                    self.compute(op, a, b)
                };
                self.define_low(dst, r);
            }
            Float::Horizontal(lanes, op) => {
                let b = self.source(1, 16, true);
                let a = self.vector(dst);
                let integers = if lanes == F32X4 { I32X4 } else { I64X2 };
                let (even, odd) = self.neighbours(integers, a, b);
                let (even, odd) = (self.lanes(lanes, even), self.lanes(lanes, odd));
                let r = self.compute(op, even, odd);
                self.define_vector(dst, r);
            }
            Float::ComparePacked(lanes) => {
                let b = self.float_lanes(1, 16, lanes);
                let a = self.float_lanes(0, 16, lanes);
                let r = self.b.ins().fcmp(predicate(insn.imm as u8), a, b);
                self.define_vector(dst, r);
            }
            Float::CompareScalar(kind) => {
                let b = self.scalar(1, kind);
                let a = self.low(dst, kind);
                // As vectors, because only those have predicates that raise for quiet NaNs. Zeros raise nothing.
                let (a, b) = (self.extended(a), self.extended(b));
                let r = self.b.ins().fcmp(predicate(insn.imm as u8), a, b);
                let r = self.lanes(vector_of(kind), r);
                let r = self.b.ins().extractlane(r, 0);
                self.define_low(dst, r);
            }
            Float::Flags(kind) => {
                let b = self.scalar(1, kind);
                let a = self.low(dst, kind);
                self.compare_floats(a, b);
                self.flags = Flags::Compared(a, b);
            }
            Float::FromInteger(kind) => {
                let source = insn.ops[1];
                let width = Width::from_bytes(usize::from(source.size));
                let value = match source.kind {
                    Kind::Mem => self.load_scalar(super::super::memory::int(width)),
                    _ => {
                        let value = self.register(source.reg, width);
                        self.narrow(value, width)
                    }
                };
                let r = self.b.ins().fcvt_from_sint(kind, value);
                self.define_low(dst, r);
            }
            Float::ToInteger(kind) => {
                let value = self.scalar(1, kind);
                let bits = match kind {
                    F32 => {
                        let bits = self.b.ins().bitcast(I32, super::little_endian(), value);
                        self.b.ins().uextend(I64, bits)
                    }
                    _ => self.b.ins().bitcast(I64, super::little_endian(), value),
                };
                let callee = match (kind, insn.ops[0].size) {
                    (F32, 8) => Callee::SingleToQword,
                    (F32, _) => Callee::SingleToDword,
                    (_, 8) => Callee::DoubleToQword,
                    _ => Callee::DoubleToDword,
                };
                let r = self.call(callee, bits);
                self.define_at_once(r);
            }
            Float::Truncate(kind) => self.truncate(kind),
            Float::Convert(kind) => {
                let value = self.scalar(1, kind);
                let r = if kind == F32 { self.b.ins().fpromote(F64, value) } else { self.b.ins().fdemote(F32, value) };
                self.define_low(dst, r);
            }
            Float::Lanes(conversion) => {
                let r = self.convert_lanes(conversion);
                self.define_vector(dst, r);
            }
            Float::RoundScalar(kind) => {
                let value = self.scalar(1, kind);
                self.in_place(dst, value, if kind == F32 { 0 } else { 1 });
                let r = self.load(kind, slot(dst));
                self.define_low(dst, r);
            }
            Float::RoundPacked(lanes) => {
                let value = self.source(1, 16, true);
                self.in_place(dst, value, if lanes == F32X4 { 2 } else { 3 });
                let r = self.load(I8X16, slot(dst));
                self.define_vector(dst, r);
            }
        }
    }

    fn compute(&mut self, op: Arithmetic, a: Value, b: Value) -> Value {
        match op {
            Arithmetic::Add => self.b.ins().fadd(a, b),
            Arithmetic::Sub => self.b.ins().fsub(a, b),
            Arithmetic::Mul => self.b.ins().fmul(a, b),
            Arithmetic::Div => self.b.ins().fdiv(a, b),
            Arithmetic::Sqrt => self.b.ins().sqrt(b),
            // Cranelift makes MINSS, MINPS and so on of these: not all that they do for NaNs, zeros and DAZ could be said
            // in CLIF, but that they are what the guest has makes it right.
            Arithmetic::Min => {
                let less = self.b.ins().fcmp(FloatCC::LessThan, a, b);
                self.choose(less, a, b)
            }
            Arithmetic::Max => {
                let less = self.b.ins().fcmp(FloatCC::LessThan, b, a);
                self.choose(less, a, b)
            }
        }
    }

    fn choose(&mut self, first: Value, a: Value, b: Value) -> Value {
        let kind = self.b.func.dfg.value_type(a);
        if kind.is_vector() {
            let first = self.lanes(kind, first);
            self.b.ins().bitselect(first, a, b)
        } else {
            self.b.ins().select(first, a, b)
        }
    }

    /// An operand as lanes.
    fn float_lanes(&mut self, operand: usize, size: u8, lanes: Type) -> Value {
        let value = self.source(operand, size, true);
        self.lanes(lanes, value)
    }

    /// The lowest lane of an operand, or memory of its size.
    fn scalar(&mut self, operand: usize, kind: Type) -> Value {
        let operand = self.insn.ops[operand & 3];
        if operand.kind == Kind::Xmm { self.low(operand.reg, kind) } else { self.load_scalar(kind) }
    }

    /// Writes an integer to the destination, a general register, and stores it: nothing else may use the result.
    fn define_at_once(&mut self, value: Value) {
        let first = self.insn.ops[0];
        let width = Width::from_bytes(usize::from(first.size));
        let value = if width == Width::B8 || self.b.func.dfg.value_type(value) == I64 {
            value
        } else {
            self.b.ins().uextend(I64, value)
        };
        self.set_register(first.reg, Width::B8, V::Wide(value));
        self.store(value, layout::REGS + usize::from(RegFile::slot(first.reg >> 3 & 15)));
    }

    fn truncate(&mut self, kind: Type) {
        let value = self.scalar(1, kind);
        if self.insn.ops[0].size != 8 {
            let vector = self.extended(value);
            let dwords = self.truncate_lanes(vector);
            let r = self.b.ins().extractlane(dwords, 0);
            self.define_at_once(r);
            return;
        }
        // CLIF's conversion saturates; whatever may be out of range goes another way. The sign is shifted out.
        let (bits, limit) = match kind {
            F32 => {
                let bits = self.b.ins().bitcast(I32, super::little_endian(), value);
                (self.b.ins().uextend(I64, bits), (127u64 + 63) << 24)
            }
            _ => (self.b.ins().bitcast(I64, super::little_endian(), value), (1023u64 + 63) << 53),
        };
        let mut magnitude = self.b.ins().ishl_imm_s(bits, 1);
        if kind == F32 {
            magnitude = self.b.ins().band_imm_s(magnitude, 0xffff_ffff);
        }
        let limit = self.b.ins().iconst(I64, limit as i64);
        let fits = self.b.ins().icmp(IntCC::UnsignedLessThan, magnitude, limit);
        let [hot, cold, after] = [(); 3].map(|()| self.b.create_block());
        self.b.set_cold_block(cold);
        let r = self.b.append_block_param(after, I64);
        self.b.ins().brif(fits, hot, &[], cold, &[]);
        self.begin(cold);
        let callee = if kind == F32 { Callee::TruncateSingle } else { Callee::TruncateDouble };
        let exact = self.call(callee, bits);
        self.b.ins().jump(after, &[exact.into()]);
        self.begin(hot);
        let inside = self.b.ins().fcvt_to_sint_sat(I64, value);
        self.b.ins().jump(after, &[inside.into()]);
        self.begin(after);
        self.define_at_once(r);
    }

    /// Raises what COMIS and UCOMIS raise, once and for all: the conditions of [`Flags::Compared`] are comparisons too,
    /// but perhaps none of them is asked for.
    fn compare_floats(&mut self, a: Value, b: Value) {
        let signals = matches!(self.insn.code.mnemonic(), M::Comiss | M::Comisd);
        if !signals && self.condition_follows() {
            return;
        }
        let unordered = self.b.ins().fcmp(FloatCC::Unordered, a, b);
        if !signals {
            // Where nothing is looked for as long as the flags are not stored.
            self.store(unordered, layout::FLAGS_CARRY);
            return;
        }
        let (cold, after) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(cold);
        self.b.ins().brif(unordered, cold, &[], after, &[]);
        self.begin(cold);
        // COMIS raises for quiet NaNs, as this comparison does; zeros raise nothing.
        let (a, b) = (self.extended(a), self.extended(b));
        let less = self.b.ins().fcmp(FloatCC::LessThan, a, b);
        let less = self.lanes(I64X2, less);
        let less = self.b.ins().extractlane(less, 0);
        self.store(less, layout::FLAGS_X);
        self.b.ins().jump(after, &[]);
        self.begin(after);
    }

    /// Whether the next instruction is a branch on a flag that comparisons set.
    fn condition_follows(&self) -> bool {
        let next = self.block.insns.iter().find(|next| usize::from(next.block_offset) == self.insn.range().end);
        let condition = next.filter(|next| flow::is_near(next)).and_then(|next| jump_condition(next.code.mnemonic()));
        condition.is_some_and(|cc| matches!(cc >> 1, 1 | 2 | 3 | 5 | 7))
    }

    /// To doublewords, the integer indefinite where a lane is out of range. Of two doubles the rest is zero.
    fn truncate_lanes(&mut self, value: Value) -> Value {
        if self.b.func.dfg.value_type(value) == F32X4 {
            return self.b.ins().x86_cvtt2dq(I32X4, value);
        }
        let wide = self.b.ins().x86_cvtt2dq(I64X2, value);
        // Cranelift knows only this constant here, and not under a cast.
        let zeros = self.b.func.dfg.constants.insert([0; 16].as_slice().into());
        let zeros = self.b.ins().vconst(I64X2, zeros);
        self.b.ins().snarrow(wide, zeros)
    }

    fn convert_lanes(&mut self, conversion: Conversion) -> Value {
        let dst = self.insn.ops[0].reg;
        match conversion {
            Conversion::SinglesToDoubles => {
                let value = self.float_lanes(1, 8, F32X4);
                self.b.ins().fvpromote_low(value)
            }
            Conversion::DoublesToSingles => {
                let value = self.float_lanes(1, 16, F64X2);
                self.b.ins().fvdemote(value)
            }
            Conversion::DwordsToSingles => {
                let value = self.float_lanes(1, 16, I32X4);
                self.b.ins().fcvt_from_sint(F32X4, value)
            }
            Conversion::DwordsToDoubles => {
                let value = self.float_lanes(1, 8, I32X4);
                let wide = self.b.ins().swiden_low(value);
                self.b.ins().fcvt_from_sint(F64X2, wide)
            }
            Conversion::TruncateSingles => {
                let value = self.float_lanes(1, 16, F32X4);
                self.truncate_lanes(value)
            }
            Conversion::TruncateDoubles => {
                let value = self.float_lanes(1, 16, F64X2);
                self.truncate_lanes(value)
            }
            Conversion::RoundSingles | Conversion::RoundDoubles => {
                let value = self.source(1, 16, true);
                self.in_place(dst, value, if matches!(conversion, Conversion::RoundSingles) { 4 } else { 5 });
                self.load(I8X16, slot(dst))
            }
        }
    }

    /// Has [`crate::runtime::packed_float`] do `what` with `value`, in the place of register `dst` in the vCPU.
    fn in_place(&mut self, dst: u8, value: Value, what: u64) {
        self.store(value, slot(dst));
        let argument = what << 8 | (self.insn.imm & 15) << 4 | u64::from(dst & 15);
        let argument = self.b.ins().iconst(I64, argument as i64);
        self.call(Callee::PackedFloat, argument);
    }
}
