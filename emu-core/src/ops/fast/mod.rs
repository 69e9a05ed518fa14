//! Specialised handlers: the hot forms of integer instructions, made from their [`Semantics`] for each kind and width of
//! operands, so that a handler runs without decoding anything.
//!
//! A handler that meets a TLB miss, a page crossing, or anything else out of the ordinary has changed nothing yet and
//! becomes [`handlers::unspecialised`], which does the whole instruction again with all checks. The cases under
//! `tests/insn` run through both.

pub mod form;
pub mod jump;
pub mod simd;

use crate::cpu::Width;
use crate::cpu::regs::{SEG_BASE, ZERO};
use crate::cpu::segment::Seg;
use crate::decode::insn::{Insn, Kind};
use crate::exec::cache::ModeKey;
use crate::exec::mode;
use crate::exec::thread::{Handler, Op};
use crate::ops::integer::{alu, shift};
use crate::ops::{sse_fp, x87};
use form::{A32, A32S, A64, A64I, A64S, IMM, MEM, REG, pick_alu, pick_cmov, pick_extend, pick_reg_imm, pick_unary};
use iced_x86::Mnemonic as M;

/// The specialised op for instruction `n` of `insns`; `None` if there is none.
pub fn select(key: ModeKey, insns: &[Insn], n: usize) -> Option<Op> {
    // What a form says of an instruction does not tell whether the model has it.
    if key & mode::FLAT == 0 || key & mode::CODE == 0 || insns[n].is_undefined() {
        return None;
    }
    if let Some(found) = jump::select(key, insns, n) {
        return Some(found);
    }
    if let Some(found) = simd::select(key, insns, n).or_else(|| sse_fp::fast::select(key, insns, n)) {
        return Some(found);
    }
    if let Some(found) = x87::fast::select(key, insns, n) {
        return Some(found);
    }
    let insn = &insns[n];
    if insn.locked() {
        return None;
    }
    if insn.code == iced_x86::Code::Mov_r64_imm64 {
        let mut op = Op::new(form::mov_wide, n as u16);
        op.r0 = insn.ops[0].reg;
        op.set_wide(insn.imm);
        return Some(op);
    }
    if matches!(insn.code.mnemonic(), M::Nop | M::Endbr64 | M::Endbr32 | M::Pause) {
        return Some(Op::new(form::nop, n as u16));
    }
    let handler = handler(key, insn)?;
    let mut op = Op::new(handler, n as u16);
    operands(insn, &mut op)?;
    Some(op)
}

/// Fills in the operands; `None` if one does not fit.
pub fn operands(insn: &Insn, op: &mut Op) -> Option<()> {
    for (n, operand) in insn.ops.iter().enumerate() {
        match operand.kind {
            Kind::Gpr | Kind::Xmm | Kind::Mmx => match n {
                0 => op.r0 = operand.reg,
                1 => op.r1 = operand.reg,
                _ => {}
            },
            Kind::Mem => {
                op.base = insn.mem.base;
                op.index = insn.mem.index;
                op.shift = insn.mem.shift;
                op.seg = segment_slot(insn);
                op.disp = i32::try_from(insn.mem.disp).ok()?;
            }
            Kind::Imm => op.imm = i32::try_from(insn.imm as i64).ok()?,
            _ => {}
        }
    }
    Some(())
}

fn segment_slot(insn: &Insn) -> u8 {
    match insn.mem.seg {
        Seg::Fs | Seg::Gs => SEG_BASE + 8 * insn.mem.seg as u8,
        _ => ZERO,
    }
}

/// How the memory operand of `insn` is addressed in the mode `key`; `None` if only the unspecialised way does.
pub fn address_form(key: u16, insn: &Insn) -> Option<u8> {
    let based = matches!(insn.mem.seg, Seg::Fs | Seg::Gs);
    match (insn.addr, key & mode::CODE == 2) {
        (Width::B8, true) if based => Some(A64S),
        (Width::B8, true) if insn.mem.index == ZERO => Some(A64),
        (Width::B8, true) => Some(A64I),
        (Width::B4, true) if !based => Some(A32),
        (Width::B4, false) if insn.mem.seg == Seg::Cs => None,
        (Width::B4, false) if insn.mem.seg == Seg::Fs => (key & mode::FLAT_FS != 0).then_some(A32S),
        (Width::B4, false) if insn.mem.seg == Seg::Gs => (key & mode::FLAT_GS != 0).then_some(A32S),
        (Width::B4, false) => Some(A32),
        _ => None,
    }
}

fn kind(insn: &Insn, n: usize) -> Option<u8> {
    match insn.ops[n & 3].kind {
        Kind::Gpr => Some(REG),
        Kind::Mem => Some(MEM),
        Kind::Imm => Some(IMM),
        _ => None,
    }
}

fn handler(key: u16, insn: &Insn) -> Option<Handler> {
    let width = insn.width;
    let has_mem = insn.ops.iter().any(|o| o.kind == Kind::Mem);
    let a = if has_mem { address_form(key, insn)? } else { A64 };
    let d = kind(insn, 0)?;
    let m = insn.code.mnemonic();
    let two = |pick: fn(u8, u8, Width, u8) -> Option<Handler>| pick(d, kind(insn, 1)?, width, a);
    match m {
        M::Add => two(pick_alu::<alu::Add>),
        M::Adc => two(pick_alu::<alu::Adc>),
        M::Sub => two(pick_alu::<alu::Sub>),
        M::Sbb => two(pick_alu::<alu::Sbb>),
        M::Cmp => two(pick_alu::<alu::Cmp>),
        M::And => two(pick_alu::<alu::And>),
        M::Or => two(pick_alu::<alu::Or>),
        M::Xor => two(pick_alu::<alu::Xor>),
        M::Test => two(pick_alu::<alu::Test>),
        M::Mov => two(pick_alu::<alu::Mov>),
        M::Inc => pick_unary::<alu::Inc>(d, width, a),
        M::Dec => pick_unary::<alu::Dec>(d, width, a),
        M::Neg => pick_unary::<alu::Neg>(d, width, a),
        M::Not => pick_unary::<alu::Not>(d, width, a),
        M::Bswap => pick_unary::<alu::Bswap>(d, width, a),
        M::Movzx | M::Movsx | M::Movsxd => {
            let from = Width::from_bytes(usize::from(insn.ops[1].size));
            let s = kind(insn, 1)?;
            match (m, from) {
                (M::Movzx, Width::B1) => pick_extend::<alu::MovZero8>(s, width, from, a),
                (M::Movzx, _) => pick_extend::<alu::MovZero16>(s, width, from, a),
                _ => pick_extend::<alu::Mov>(s, width, from, a),
            }
        }
        M::Lea => form::pick_lea(width, a),
        M::Imul if insn.ops[2].kind == Kind::Imm => form::pick_wide::<alu::Imul3>(kind(insn, 1)?, width, a),
        M::Imul if insn.ops[1].kind != Kind::None => form::pick_wide::<alu::Imul2>(kind(insn, 1)?, width, a),
        M::Shl | M::Sal => shift_handler::<shift::Shl>(insn),
        M::Shr => shift_handler::<shift::Shr>(insn),
        M::Sar => shift_handler::<shift::Sar>(insn),
        M::Rol => shift_handler::<shift::Rol>(insn),
        M::Ror => shift_handler::<shift::Ror>(insn),
        M::Xchg if !has_mem => form::pick_xchg(width),
        M::Push if stack_matches(key) => jump::pick_push(d, width, insn),
        M::Pop if stack_matches(key) && d == REG => jump::pick_pop(width),
        _ => condition_code(m, d, insn, a),
    }
}

/// The stack pointer has the size of the code.
pub fn stack_matches(key: u16) -> bool {
    key >> mode::STACK_SHIFT & 3 == key & mode::CODE
}

fn shift_handler<S: crate::ops::backend::Semantics>(insn: &Insn) -> Option<Handler> {
    if insn.ops[0].kind != Kind::Gpr {
        return None;
    }
    pick_reg_imm::<S>(kind(insn, 1)?, insn.width)
}

macro_rules! by_condition {
    ($m:expr, $d:expr, $insn:expr, $a:expr; $($cc:literal $set:ident $cmov:ident;)*) => {
        match $m {
            $(M::$set if $d == REG => Some(form::set::<$cc>()),
            M::$cmov => pick_cmov::<$cc>(kind($insn, 1)?, $insn.width, $a),)*
            _ => None,
        }
    };
}

fn condition_code(m: M, d: u8, insn: &Insn, a: u8) -> Option<Handler> {
    by_condition! { m, d, insn, a;
        0 Seto Cmovo;
        1 Setno Cmovno;
        2 Setb Cmovb;
        3 Setae Cmovae;
        4 Sete Cmove;
        5 Setne Cmovne;
        6 Setbe Cmovbe;
        7 Seta Cmova;
        8 Sets Cmovs;
        9 Setns Cmovns;
        10 Setp Cmovp;
        11 Setnp Cmovnp;
        12 Setl Cmovl;
        13 Setge Cmovge;
        14 Setle Cmovle;
        15 Setg Cmovg;
    }
}
