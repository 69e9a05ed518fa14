//! Packed integer operations, logic, shuffles, blends and shifts: a row for each mnemonic.

use super::super::Lower;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8X16, I16, I16X8, I32X4, I64X2};
use cranelift_codegen::ir::{InstBuilder, Type, Value};
use emu_core::decode::insn::{Insn, Kind};
use iced_x86::Mnemonic as M;
use std::array::from_fn;

/// How the result comes about. Values are 16 bytes of any lanes.
#[derive(Clone, Copy)]
enum Apply {
    /// From source and immediate.
    Unary(fn(&mut Lower<'_>, Value, u8) -> Value),
    /// From destination, source and immediate.
    Binary(fn(&mut Lower<'_>, Value, Value, u8) -> Value),
    /// The destination's lanes shifted by the source, which may be an immediate.
    Shift(Shift, Type),
    /// The destination's bytes shifted by the immediate.
    Bytes(Shift),
}

#[derive(Clone, Copy)]
enum Shift {
    Left,
    Right,
    Arithmetic,
}

/// What is known of a mnemonic.
#[derive(Clone, Copy)]
pub struct Row {
    /// Bytes of a memory source, which must be aligned if it has 16.
    size: u8,
    apply: Apply,
}

const fn row_of(apply: Apply) -> Row {
    Row { size: 16, apply }
}

const fn unary(apply: fn(&mut Lower<'_>, Value, u8) -> Value) -> Row {
    row_of(Apply::Unary(apply))
}

const fn binary(apply: fn(&mut Lower<'_>, Value, Value, u8) -> Value) -> Row {
    row_of(Apply::Binary(apply))
}

/// One CLIF instruction on both operands.
macro_rules! direct {
    ($lanes:ident $op:ident) => {
        binary(|l, a, b, _| {
            let (a, b) = (l.lanes($lanes, a), l.lanes($lanes, b));
            l.b.ins().$op(a, b)
        })
    };
}

/// A comparison.
macro_rules! compare {
    ($lanes:ident $cc:ident) => {
        binary(|l, a, b, _| {
            let (a, b) = (l.lanes($lanes, a), l.lanes($lanes, b));
            l.b.ins().icmp(IntCC::$cc, a, b)
        })
    };
}

/// The lanes with these numbers, where the source's come behind those of the destination.
macro_rules! pick {
    (|$imm:pat_param| $picks:expr) => {
        binary(|l, a, b, $imm| l.pick(a, b, $picks))
    };
}

/// The source's lanes with these numbers.
macro_rules! pick_source {
    (|$imm:pat_param| $picks:expr) => {
        unary(|l, a, $imm| l.pick(a, a, $picks))
    };
}

/// The source's low lanes of this type, each widened this often to twice its size.
macro_rules! widen {
    ($size:literal $op:ident $lanes:ident $steps:literal) => {
        Row {
            size: $size,
            apply: Apply::Unary(|l, a, _| {
                let mut value = l.lanes($lanes, a);
                for _ in 0..$steps {
                    value = l.b.ins().$op(value);
                }
                value
            }),
        }
    };
}

/// Neighbouring lanes combined, first those of the destination.
macro_rules! horizontal {
    ($lanes:ident $op:ident) => {
        binary(|l, a, b, _| {
            let (even, odd) = l.neighbours($lanes, a, b);
            l.b.ins().$op(even, odd)
        })
    };
}

/// The row of `insn`, one of whose first two operands is an XMM register.
pub fn row(insn: &Insn) -> Option<Row> {
    let [first, second, ..] = insn.ops;
    let row = find(insn.code.mnemonic())?;
    let source = match row.apply {
        Apply::Bytes(_) => second.kind == Kind::Imm,
        Apply::Shift(..) => matches!(second.kind, Kind::Xmm | Kind::Mem | Kind::Imm),
        _ => matches!(second.kind, Kind::Xmm | Kind::Mem),
    };
    (first.kind == Kind::Xmm && source).then_some(row)
}

fn find(mnemonic: M) -> Option<Row> {
    // Some operations are x86's alone, and CLIF knows them only there.
    let x86 = cfg!(target_arch = "x86_64");
    Some(match mnemonic {
        M::Paddb => direct!(I8X16 iadd),
        M::Paddw => direct!(I16X8 iadd),
        M::Paddd => direct!(I32X4 iadd),
        M::Paddq => direct!(I64X2 iadd),
        M::Psubb => direct!(I8X16 isub),
        M::Psubw => direct!(I16X8 isub),
        M::Psubd => direct!(I32X4 isub),
        M::Psubq => direct!(I64X2 isub),
        M::Paddsb => direct!(I8X16 sadd_sat),
        M::Paddsw => direct!(I16X8 sadd_sat),
        M::Paddusb => direct!(I8X16 uadd_sat),
        M::Paddusw => direct!(I16X8 uadd_sat),
        M::Psubsb => direct!(I8X16 ssub_sat),
        M::Psubsw => direct!(I16X8 ssub_sat),
        M::Psubusb => direct!(I8X16 usub_sat),
        M::Psubusw => direct!(I16X8 usub_sat),
        M::Pavgb => direct!(I8X16 avg_round),
        M::Pavgw => direct!(I16X8 avg_round),
        M::Pminub => direct!(I8X16 umin),
        M::Pminuw => direct!(I16X8 umin),
        M::Pminud => direct!(I32X4 umin),
        M::Pminsb => direct!(I8X16 smin),
        M::Pminsw => direct!(I16X8 smin),
        M::Pminsd => direct!(I32X4 smin),
        M::Pmaxub => direct!(I8X16 umax),
        M::Pmaxuw => direct!(I16X8 umax),
        M::Pmaxud => direct!(I32X4 umax),
        M::Pmaxsb => direct!(I8X16 smax),
        M::Pmaxsw => direct!(I16X8 smax),
        M::Pmaxsd => direct!(I32X4 smax),
        M::Pcmpeqb => compare!(I8X16 Equal),
        M::Pcmpeqw => compare!(I16X8 Equal),
        M::Pcmpeqd => compare!(I32X4 Equal),
        M::Pcmpeqq => compare!(I64X2 Equal),
        M::Pcmpgtb => compare!(I8X16 SignedGreaterThan),
        M::Pcmpgtw => compare!(I16X8 SignedGreaterThan),
        M::Pcmpgtd => compare!(I32X4 SignedGreaterThan),
        M::Pcmpgtq => compare!(I64X2 SignedGreaterThan),
        M::Pmullw => direct!(I16X8 imul),
        M::Pmulld => direct!(I32X4 imul),
        M::Pmulhw => binary(|l, a, b, _| l.multiply_high(true, a, b)),
        M::Pmulhuw => binary(|l, a, b, _| l.multiply_high(false, a, b)),
        M::Pmuludq => binary(|l, a, b, _| l.multiply_even(false, a, b)),
        M::Pmuldq => binary(|l, a, b, _| l.multiply_even(true, a, b)),
        M::Pmulhrsw if x86 => direct!(I16X8 x86_pmulhrsw),
        M::Pmaddwd => binary(|l, a, b, _| l.multiply_add(a, b)),
        // Unsigned bytes of the destination, which CLIF wants second, times signed ones of the source.
        M::Pmaddubsw if x86 => binary(|l, a, b, _| l.b.ins().x86_pmaddubsw(b, a)),
        M::Psadbw => binary(|l, a, b, _| l.sum_of_differences(a, b)),
        M::Pabsb => unary(|l, a, _| l.absolute(I8X16, a)),
        M::Pabsw => unary(|l, a, _| l.absolute(I16X8, a)),
        M::Pabsd => unary(|l, a, _| l.absolute(I32X4, a)),
        M::Psignb => binary(|l, a, b, _| l.sign(I8X16, a, b)),
        M::Psignw => binary(|l, a, b, _| l.sign(I16X8, a, b)),
        M::Psignd => binary(|l, a, b, _| l.sign(I32X4, a, b)),
        M::Phaddw => horizontal!(I16X8 iadd),
        M::Phaddd => horizontal!(I32X4 iadd),
        M::Phaddsw => horizontal!(I16X8 sadd_sat),
        M::Phsubw => horizontal!(I16X8 isub),
        M::Phsubd => horizontal!(I32X4 isub),
        M::Phsubsw => horizontal!(I16X8 ssub_sat),

        M::Pand | M::Andps | M::Andpd => direct!(I8X16 band),
        M::Por | M::Orps | M::Orpd => direct!(I8X16 bor),
        M::Pxor | M::Xorps | M::Xorpd => direct!(I8X16 bxor),
        M::Pandn | M::Andnps | M::Andnpd => binary(|l, a, b, _| l.b.ins().band_not(b, a)),

        M::Psllw => row_of(Apply::Shift(Shift::Left, I16X8)),
        M::Pslld => row_of(Apply::Shift(Shift::Left, I32X4)),
        M::Psllq => row_of(Apply::Shift(Shift::Left, I64X2)),
        M::Psrlw => row_of(Apply::Shift(Shift::Right, I16X8)),
        M::Psrld => row_of(Apply::Shift(Shift::Right, I32X4)),
        M::Psrlq => row_of(Apply::Shift(Shift::Right, I64X2)),
        M::Psraw => row_of(Apply::Shift(Shift::Arithmetic, I16X8)),
        M::Psrad => row_of(Apply::Shift(Shift::Arithmetic, I32X4)),
        M::Pslldq => row_of(Apply::Bytes(Shift::Left)),
        M::Psrldq => row_of(Apply::Bytes(Shift::Right)),
        M::Palignr => binary(|l, a, b, n| {
            if n <= 16 {
                return l.window(b, a, n);
            }
            let zeros = l.zeros();
            l.window(a, zeros, n.min(32) - 16)
        }),

        M::Punpcklbw => pick!(|_| [0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23]),
        M::Punpckhbw => pick!(|_| [8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31]),
        M::Punpcklwd => pick!(|_| [0, 8, 1, 9, 2, 10, 3, 11]),
        M::Punpckhwd => pick!(|_| [4, 12, 5, 13, 6, 14, 7, 15]),
        M::Punpckldq | M::Unpcklps => pick!(|_| [0, 4, 1, 5]),
        M::Punpckhdq | M::Unpckhps => pick!(|_| [2, 6, 3, 7]),
        M::Punpcklqdq | M::Unpcklpd | M::Movlhps => pick!(|_| [0, 2]),
        M::Punpckhqdq | M::Unpckhpd => pick!(|_| [1, 3]),
        M::Movhlps => binary(|l, a, b, _| l.pick(b, a, [1, 3])),
        M::Shufps => pick!(|imm| [imm & 3, imm >> 2 & 3, (imm >> 4 & 3) + 4, (imm >> 6) + 4]),
        M::Shufpd => pick!(|imm| [imm & 1, (imm >> 1 & 1) + 2]),
        M::Pblendw => pick!(|imm| from_fn::<u8, 8, _>(|n| n as u8 + 8 * (imm >> n & 1))),
        M::Blendps => pick!(|imm| from_fn::<u8, 4, _>(|n| n as u8 + 4 * (imm >> n & 1))),
        M::Blendpd => pick!(|imm| from_fn::<u8, 2, _>(|n| n as u8 + 2 * (imm >> n & 1))),
        M::Pshufd => pick_source!(|imm| from_fn::<u8, 4, _>(|n| imm >> (2 * n) & 3)),
        M::Pshuflw => pick_source!(|imm| from_fn::<u8, 8, _>(|n| if n < 4 { imm >> (2 * n) & 3 } else { n as u8 })),
        M::Pshufhw => {
            pick_source!(|imm| from_fn::<u8, 8, _>(|n| if n < 4 { n as u8 } else { 4 + (imm >> (2 * (n - 4)) & 3) }))
        }
        M::Movsldup => pick_source!(|_| [0, 0, 2, 2]),
        M::Movshdup => pick_source!(|_| [1, 1, 3, 3]),
        M::Movddup => Row { size: 8, ..pick_source!(|_| [0, 0]) },
        M::Pshufb if x86 => binary(|l, a, b, _| l.b.ins().x86_pshufb(a, b)),
        M::Pshufb => binary(|l, a, b, _| {
            let mask = l.bytes([0x8f; 16]);
            let control = l.b.ins().band(b, mask);
            l.b.ins().swizzle(a, control)
        }),
        M::Pblendvb => binary(|l, a, b, _| l.blend(I8X16, a, b)),
        M::Blendvps => binary(|l, a, b, _| l.blend(I32X4, a, b)),
        M::Blendvpd => binary(|l, a, b, _| l.blend(I64X2, a, b)),

        M::Packsswb => direct!(I16X8 snarrow),
        M::Packssdw => direct!(I32X4 snarrow),
        M::Packuswb => direct!(I16X8 unarrow),
        M::Packusdw => direct!(I32X4 unarrow),
        M::Pmovsxbw => widen!(8 swiden_low I8X16 1),
        M::Pmovsxbd => widen!(4 swiden_low I8X16 2),
        M::Pmovsxbq => widen!(2 swiden_low I8X16 3),
        M::Pmovsxwd => widen!(8 swiden_low I16X8 1),
        M::Pmovsxwq => widen!(4 swiden_low I16X8 2),
        M::Pmovsxdq => widen!(8 swiden_low I32X4 1),
        M::Pmovzxbw => widen!(8 uwiden_low I8X16 1),
        M::Pmovzxbd => widen!(4 uwiden_low I8X16 2),
        M::Pmovzxbq => widen!(2 uwiden_low I8X16 3),
        M::Pmovzxwd => widen!(8 uwiden_low I16X8 1),
        M::Pmovzxwq => widen!(4 uwiden_low I16X8 2),
        M::Pmovzxdq => widen!(8 uwiden_low I32X4 1),
        _ => return None,
    })
}

/// PXOR of a register with itself and its likes: the result does not depend on the register.
fn clears(insn: &Insn) -> bool {
    let [first, second, ..] = insn.ops;
    let mnemonic = insn.code.mnemonic();
    second.kind == Kind::Xmm && first.reg == second.reg && matches!(mnemonic, M::Pxor | M::Xorps | M::Xorpd)
}

impl Lower<'_> {
    /// Translates the current instruction.
    pub fn packed(&mut self, row: Row) {
        let insn = self.insn;
        let (dst, imm) = (insn.ops[0].reg, insn.imm as u8);
        if clears(insn) {
            let value = self.zeros();
            self.define_vector(dst, value);
            return;
        }
        let value = match row.apply {
            Apply::Unary(apply) => {
                let a = self.source(1, row.size, true);
                apply(self, a, imm)
            }
            Apply::Binary(apply) => {
                let b = self.source(1, row.size, true);
                let a = self.vector(dst);
                apply(self, a, b, imm)
            }
            Apply::Shift(kind, lanes) if insn.ops[1].kind == Kind::Imm => self.shift_by_immediate(kind, lanes, imm),
            Apply::Shift(kind, lanes) => self.shift_by_register(kind, lanes),
            Apply::Bytes(kind) => {
                let n = imm.min(16);
                let a = self.vector(dst);
                let zeros = self.zeros();
                match kind {
                    Shift::Left => self.window(zeros, a, 16 - n),
                    _ => self.window(a, zeros, n),
                }
            }
        };
        self.define_vector(dst, value);
    }

    /// Bytes of `a` and `b`, which count on from 16.
    fn shuffle(&mut self, a: Value, b: Value, mask: [u8; 16]) -> Value {
        let (a, b) = (self.lanes(I8X16, a), self.lanes(I8X16, b));
        let mask = self.b.func.dfg.immediates.push(mask.as_slice().into());
        self.b.ins().shuffle(a, b, mask)
    }

    /// `N` lanes of `a` and `b`, which count on from `N`.
    pub fn pick<const N: usize>(&mut self, a: Value, b: Value, picks: [u8; N]) -> Value {
        let size = 16 / N;
        self.shuffle(a, b, from_fn(|n| picks[n / size] * size as u8 + (n % size) as u8))
    }

    /// 16 bytes of `a` and `b` together from byte `n` on, at most 16.
    fn window(&mut self, a: Value, b: Value, n: u8) -> Value {
        match n {
            0 => a,
            16 => b,
            _ => self.shuffle(a, b, from_fn(|byte| byte as u8 + n)),
        }
    }

    /// The even and the odd lanes of `a` and then `b`.
    pub fn neighbours(&mut self, lanes: Type, a: Value, b: Value) -> (Value, Value) {
        let halves = [0, 1].map(|odd| match lanes.lane_count() {
            8 => self.pick(a, b, from_fn::<u8, 8, _>(|n| 2 * n as u8 + odd)),
            4 => self.pick(a, b, from_fn::<u8, 4, _>(|n| 2 * n as u8 + odd)),
            _ => self.pick(a, b, from_fn::<u8, 2, _>(|n| 2 * n as u8 + odd)),
        });
        (self.lanes(lanes, halves[0]), self.lanes(lanes, halves[1]))
    }

    fn absolute(&mut self, lanes: Type, a: Value) -> Value {
        let a = self.lanes(lanes, a);
        self.b.ins().iabs(a)
    }

    /// PSIGN: `a` with its sign changed where `b` is negative, zero where `b` is.
    fn sign(&mut self, lanes: Type, a: Value, b: Value) -> Value {
        let (a, b, zeros) = (self.lanes(lanes, a), self.lanes(lanes, b), self.zeros());
        let zeros = self.lanes(lanes, zeros);
        let negative = self.b.ins().icmp(IntCC::SignedGreaterThan, zeros, b);
        let flipped = self.b.ins().bxor(a, negative);
        let signed = self.b.ins().isub(flipped, negative);
        let zero = self.b.ins().icmp(IntCC::Equal, b, zeros);
        self.b.ins().band_not(signed, zero)
    }

    /// The high halves of products of words.
    fn multiply_high(&mut self, signed: bool, a: Value, b: Value) -> Value {
        let (a, b) = (self.lanes(I16X8, a), self.lanes(I16X8, b));
        let low = [a, b].map(|v| if signed { self.b.ins().swiden_low(v) } else { self.b.ins().uwiden_low(v) });
        let high = [a, b].map(|v| if signed { self.b.ins().swiden_high(v) } else { self.b.ins().uwiden_high(v) });
        let [low, high] = [low, high].map(|[a, b]| {
            let product = self.b.ins().imul(a, b);
            if signed { self.b.ins().sshr_imm_s(product, 16) } else { self.b.ins().ushr_imm_s(product, 16) }
        });
        if signed { self.b.ins().snarrow(low, high) } else { self.b.ins().unarrow(low, high) }
    }

    /// The products of the even doublewords.
    fn multiply_even(&mut self, signed: bool, a: Value, b: Value) -> Value {
        let [a, b] = [a, b].map(|v| {
            let even = self.pick(v, v, [0, 2, 0, 2]);
            let even = self.lanes(I32X4, even);
            if signed { self.b.ins().swiden_low(even) } else { self.b.ins().uwiden_low(even) }
        });
        self.b.ins().imul(a, b)
    }

    /// PMADDWD.
    fn multiply_add(&mut self, a: Value, b: Value) -> Value {
        let (a, b) = (self.lanes(I16X8, a), self.lanes(I16X8, b));
        let low = [a, b].map(|v| self.b.ins().swiden_low(v));
        let high = [a, b].map(|v| self.b.ins().swiden_high(v));
        let [low, high] = [low, high].map(|[a, b]| self.b.ins().imul(a, b));
        self.b.ins().iadd_pairwise(low, high)
    }

    /// PSADBW.
    fn sum_of_differences(&mut self, a: Value, b: Value) -> Value {
        let (above, below) = (self.b.ins().usub_sat(a, b), self.b.ins().usub_sat(b, a));
        let differences = self.b.ins().bor(above, below);
        // Sums of two bytes in words, of four in doublewords, of eight in quadwords: no carry reaches the neighbour.
        let words = self.lanes(I16X8, differences);
        let mask = self.bytes(from_fn(|n| if n % 2 == 0 { 0xff } else { 0 }));
        let mask = self.lanes(I16X8, mask);
        let (low, high) = (self.b.ins().band(words, mask), self.b.ins().ushr_imm_s(words, 8));
        let pairs = self.b.ins().iadd(low, high);
        let mut sums = self.lanes(I64X2, pairs);
        for bits in [32, 16] {
            let upper = self.b.ins().ushr_imm_s(sums, bits);
            sums = self.b.ins().iadd(sums, upper);
        }
        let mask = self.bytes(from_fn(|n| if n % 8 < 2 { 0xff } else { 0 }));
        let mask = self.lanes(I64X2, mask);
        self.b.ins().band(sums, mask)
    }

    /// `b` where the lanes of XMM0 have their top bit set, else `a`.
    fn blend(&mut self, lanes: Type, a: Value, b: Value) -> Value {
        let (control, zeros) = (self.vector(0), self.zeros());
        let [control, zeros, a, b] = [control, zeros, a, b].map(|v| self.lanes(lanes, v));
        let chosen = self.b.ins().icmp(IntCC::SignedGreaterThan, zeros, control);
        self.b.ins().bitselect(chosen, b, a)
    }

    fn shift_lanes(&mut self, kind: Shift, value: Value, count: Value) -> Value {
        match kind {
            Shift::Left => self.b.ins().ishl(value, count),
            Shift::Right => self.b.ins().ushr(value, count),
            Shift::Arithmetic => self.b.ins().sshr(value, count),
        }
    }

    fn shift_by_immediate(&mut self, kind: Shift, lanes: Type, count: u8) -> Value {
        let last = lanes.lane_bits() as u8 - 1;
        if count > last && !matches!(kind, Shift::Arithmetic) {
            return self.zeros();
        }
        let value = self.vector(self.insn.ops[0].reg);
        let value = self.lanes(lanes, value);
        let count = self.b.ins().iconst(I16, i64::from(count.min(last)));
        self.shift_lanes(kind, value, count)
    }

    /// The count is the low half of the source; one beyond the lane clears it, or fills it with its sign.
    fn shift_by_register(&mut self, kind: Shift, lanes: Type) -> Value {
        let last = i64::from(lanes.lane_bits()) - 1;
        let source = self.source(1, 16, true);
        let source = self.lanes(I64X2, source);
        let count = self.b.ins().extractlane(source, 0);
        let value = self.vector(self.insn.ops[0].reg);
        let value = self.lanes(lanes, value);
        let beyond = self.b.ins().icmp_imm_u(IntCC::UnsignedGreaterThan, count, last);
        if matches!(kind, Shift::Arithmetic) {
            let most = self.b.ins().iconst(cranelift_codegen::ir::types::I64, last);
            let count = self.b.ins().select(beyond, most, count);
            return self.shift_lanes(kind, value, count);
        }
        let shifted = self.shift_lanes(kind, value, count);
        let zeros = self.zeros();
        let zeros = self.lanes(lanes, zeros);
        self.b.ins().select(beyond, zeros, shifted)
    }
}
