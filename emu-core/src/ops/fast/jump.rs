//! Near transfers of control and the stack, specialised; fused comparisons and jumps; links between blocks.

use super::form::{A64, F, Fast, Form, IMM, Miss, REG};
use super::stack_matches;
use crate::cpu::Width;
use crate::cpu::regs::{BLOCK_RIP, RSP};
use crate::decode::insn::{Insn, Kind};
use crate::exec::cache::ModeKey;
use crate::exec::handlers::{chain, unspecialised};
use crate::exec::thread::{Exit, Handler, Op, OpRef, dispatch};
use crate::exec::{Vcpu, mode};
use crate::ops::backend::Semantics;
use crate::ops::fast::form::handle;
use crate::ops::integer::alu;
use iced_x86::Mnemonic as M;

/// Goes to the target of a jump op: through its link, which is made on first use.
#[inline(always)]
pub fn take<const W: usize>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let target = cpu.state.regs.get64(BLOCK_RIP).wrapping_add(op.imm as u64) & Width::from_bytes(W).mask();
    match op.linked() {
        Some(entry) => {
            cpu.state.regs.set64(BLOCK_RIP, target);
            dispatch(cpu, entry)
        }
        None => link(cpu, op, target),
    }
}

/// Links a jump if its target lies in the same page, where no change of mappings can part the two; goes there.
#[cold]
#[inline(never)]
fn link(cpu: &mut Vcpu, op: OpRef, target: u64) -> Exit {
    let from = cpu.state.regs.get64(BLOCK_RIP);
    if from >> 12 != target >> 12 {
        return chain(cpu, target);
    }
    match cpu.linkable(target) {
        Some(entry) => {
            op.link_to(entry);
            cpu.state.regs.set64(BLOCK_RIP, target);
            dispatch(cpu, entry)
        }
        None => {
            cpu.state.rip = target;
            Exit::LOOKUP
        }
    }
}

/// The end of a block whose last instruction does not jump.
pub fn fall_through<const W: usize>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    take::<W>(cpu, op)
}

fn jmp<const W: usize>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    take::<W>(cpu, op)
}

/// Jcc: the op behind it is the fall-through.
fn jcc<const CC: u8, const W: usize>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    if cpu.state.flags.condition(CC) { take::<W>(cpu, op) } else { take::<W>(cpu, op.next()) }
}

/// CMP, TEST and the like together with the Jcc behind it. Operands are as in the comparison's own form; the op behind
/// this one is the jump's, and the fall-through follows that.
fn fused<S: Semantics, T: Form, const CC: u8, const W: usize>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    match S::run(&mut Fast::<T>::new(cpu, op)) {
        Ok(()) => {
            let jump = op.next();
            if cpu.state.flags.condition(CC) { take::<W>(cpu, jump) } else { take::<W>(cpu, jump.next()) }
        }
        Err(Miss) => unspecialised(cpu, op),
    }
}

#[inline(always)]
fn push_return<const W: usize>(cpu: &mut Vcpu, back: u64) -> bool {
    let width = Width::from_bytes(W);
    let sp = cpu.state.regs.gpr(RSP).wrapping_sub(width.bytes()) & width.mask();
    let Some(host) = cpu.host_write(sp, width.bytes()) else { return false };
    if W == 8 {
        host.write(back);
    } else {
        host.write(back as u32);
    }
    cpu.state.regs.set_gpr(RSP, sp);
    true
}

/// CALL: `disp` is the return address as a distance from the start of the block.
fn call<const W: usize>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let back = cpu.state.regs.get64(BLOCK_RIP).wrapping_add(op.disp as u64);
    if push_return::<W>(cpu, back) { take::<W>(cpu, op) } else { unspecialised(cpu, op) }
}

/// CALL through a register: `disp` as in [`call`].
fn call_register<const W: usize>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let target = cpu.state.regs.get64(op.r0) & Width::from_bytes(W).mask();
    let back = cpu.state.regs.get64(BLOCK_RIP).wrapping_add(op.disp as u64);
    // A target that the jump cache knows is canonical and within limits.
    let Some(entry) = cpu.cache.jump(target, cpu.jump_tag) else { return unspecialised(cpu, op) };
    if !push_return::<W>(cpu, back) {
        return unspecialised(cpu, op);
    }
    cpu.state.regs.set64(BLOCK_RIP, target);
    dispatch(cpu, entry)
}

fn jmp_register<const W: usize>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let target = cpu.state.regs.get64(op.r0) & Width::from_bytes(W).mask();
    let Some(entry) = cpu.cache.jump(target, cpu.jump_tag) else { return unspecialised(cpu, op) };
    cpu.state.regs.set64(BLOCK_RIP, target);
    dispatch(cpu, entry)
}

fn jmp_memory<const A: u8, const W: usize>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let width = Width::from_bytes(W);
    let at = super::form::linear::<A>(cpu, op);
    let Some(host) = cpu.host_read(at, width.bytes()) else { return unspecialised(cpu, op) };
    let target = if W == 8 { host.read::<u64>() } else { u64::from(host.read::<u32>()) };
    let Some(entry) = cpu.cache.jump(target, cpu.jump_tag) else { return unspecialised(cpu, op) };
    cpu.state.regs.set64(BLOCK_RIP, target);
    dispatch(cpu, entry)
}

/// RET, with `imm` further bytes to drop.
fn ret<const W: usize>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    let width = Width::from_bytes(W);
    let sp = cpu.state.regs.gpr(RSP) & width.mask();
    let Some(host) = cpu.host_read(sp, width.bytes()) else { return unspecialised(cpu, op) };
    let target = if W == 8 { host.read::<u64>() } else { u64::from(host.read::<u32>()) };
    let Some(entry) = cpu.cache.jump(target, cpu.jump_tag) else { return unspecialised(cpu, op) };
    let sp = sp.wrapping_add(width.bytes()).wrapping_add(op.imm as u64) & width.mask();
    cpu.state.regs.set_gpr(RSP, sp);
    cpu.state.regs.set64(BLOCK_RIP, target);
    dispatch(cpu, entry)
}

/// PUSH of a register or an immediate.
pub fn pick_push(d: u8, width: Width, insn: &Insn) -> Option<Handler> {
    if width != Width::from_bytes(usize::from(insn.code_bits) / 8) {
        return None;
    }
    Some(match (d, width) {
        (REG, Width::B8) => handle::<alu::Push, F<REG, REG, 8, 8, A64>> as Handler,
        (REG, Width::B4) => handle::<alu::Push, F<REG, REG, 4, 4, A64>>,
        (IMM, Width::B8) => handle::<alu::Push, F<IMM, REG, 8, 8, A64>>,
        (IMM, Width::B4) => handle::<alu::Push, F<IMM, REG, 4, 4, A64>>,
        _ => return None,
    })
}

/// POP to a register.
pub fn pick_pop(width: Width) -> Option<Handler> {
    match width {
        Width::B8 => Some(handle::<alu::Pop, F<REG, REG, 8, 8, A64>>),
        Width::B4 => Some(handle::<alu::Pop, F<REG, REG, 4, 4, A64>>),
        _ => None,
    }
}

/// The fall-through handler for the mode `key`; `None` where blocks are not linked.
pub fn pick_fall_through(key: u16) -> Option<Handler> {
    match (key & mode::FLAT != 0, key & mode::CODE) {
        (true, 2) => Some(fall_through::<8>),
        (true, 1) => Some(fall_through::<4>),
        _ => None,
    }
}

/// The distance from the start of the block to the target of a relative branch.
fn target(insn: &Insn) -> Option<i32> {
    let next = i64::from(insn.block_offset) + i64::from(insn.len);
    i32::try_from((insn.imm as i64).checked_add(next)?).ok()
}

/// Jumps, calls, returns, and comparisons that the next instruction jumps on.
pub fn select(key: ModeKey, insns: &[Insn], n: usize) -> Option<Op> {
    let insn = &insns[n];
    let wide = key & mode::CODE == 2;
    let size = if wide { 8 } else { 4 };
    let full = insn.ops[0].size == size;
    let m = insn.code.mnemonic();
    let simple = |handler: Handler| Op::new(handler, n as u16);
    let next = i32::from(insn.block_offset) + i32::from(insn.len);
    match m {
        M::Jmp if insn.ops[0].kind == Kind::Near && full => {
            let mut op = simple(if wide { jmp::<8> } else { jmp::<4> });
            op.imm = target(insn)?;
            Some(op)
        }
        M::Jmp if insn.ops[0].kind == Kind::Gpr && full => {
            let mut op = simple(if wide { jmp_register::<8> } else { jmp_register::<4> });
            op.r0 = insn.ops[0].reg;
            Some(op)
        }
        M::Jmp if insn.ops[0].kind == Kind::Mem && full => {
            let handler: Handler = match (super::address_form(key, insn)?, wide) {
                (super::form::A64, true) => jmp_memory::<{ super::form::A64 }, 8>,
                (super::form::A64I, true) => jmp_memory::<{ super::form::A64I }, 8>,
                (super::form::A32, false) => jmp_memory::<{ super::form::A32 }, 4>,
                _ => return None,
            };
            let mut op = simple(handler);
            super::operands(insn, &mut op)?;
            Some(op)
        }
        M::Call if insn.ops[0].kind == Kind::Near && full && stack_matches(key) => {
            let mut op = simple(if wide { call::<8> } else { call::<4> });
            op.imm = target(insn)?;
            op.disp = next;
            Some(op)
        }
        M::Call if insn.ops[0].kind == Kind::Gpr && full && stack_matches(key) => {
            let mut op = simple(if wide { call_register::<8> } else { call_register::<4> });
            op.r0 = insn.ops[0].reg;
            op.disp = next;
            Some(op)
        }
        M::Ret if stack_matches(key) => {
            use iced_x86::Code::{Retnd, Retnd_imm16, Retnq, Retnq_imm16};
            let mut op = match insn.code {
                Retnq | Retnq_imm16 if wide => simple(ret::<8>),
                Retnd | Retnd_imm16 if !wide => simple(ret::<4>),
                _ => return None,
            };
            op.imm = if insn.ops[0].kind == Kind::Imm { (insn.imm & 0xffff) as i32 } else { 0 };
            Some(op)
        }
        _ => match condition(insn) {
            Some(cc) if full => {
                let mut op = simple(if wide { pick_jcc::<8>(cc) } else { pick_jcc::<4>(cc) });
                op.imm = target(insn)?;
                Some(op)
            }
            Some(_) => None,
            None => {
                let jump = insns.get(n + 1)?;
                let cc = condition(jump)?;
                if jump.ops[0].size != size || insn.locked() {
                    return None;
                }
                let handler = if wide { pick_fused::<8>(insn, cc)? } else { pick_fused::<4>(insn, cc)? };
                let mut op = simple(handler);
                super::operands(insn, &mut op)?;
                Some(op)
            }
        },
    }
}

/// The condition code of a Jcc.
fn condition(insn: &Insn) -> Option<u8> {
    crate::ops::integer::jump_condition(insn.code.mnemonic())
}

macro_rules! for_condition {
    ($cc:expr, $make:ident) => {
        match $cc {
            0 => $make!(0),
            1 => $make!(1),
            2 => $make!(2),
            3 => $make!(3),
            4 => $make!(4),
            5 => $make!(5),
            6 => $make!(6),
            7 => $make!(7),
            8 => $make!(8),
            9 => $make!(9),
            10 => $make!(10),
            11 => $make!(11),
            12 => $make!(12),
            13 => $make!(13),
            14 => $make!(14),
            _ => $make!(15),
        }
    };
}

fn pick_jcc<const W: usize>(cc: u8) -> Handler {
    macro_rules! make {
        ($cc:literal) => {
            jcc::<$cc, W>
        };
    }
    for_condition!(cc, make)
}

fn pick_fused<const W: usize>(insn: &Insn, cc: u8) -> Option<Handler> {
    macro_rules! by_form {
        ($s:ty) => {{
            macro_rules! rr4 {
                ($cc:literal) => {
                    fused::<$s, F<REG, REG, 4, 4, A64>, $cc, W> as Handler
                };
            }
            macro_rules! rr8 {
                ($cc:literal) => {
                    fused::<$s, F<REG, REG, 8, 8, A64>, $cc, W> as Handler
                };
            }
            macro_rules! rr1 {
                ($cc:literal) => {
                    fused::<$s, F<REG, REG, 1, 1, A64>, $cc, W> as Handler
                };
            }
            macro_rules! ri4 {
                ($cc:literal) => {
                    fused::<$s, F<REG, IMM, 4, 4, A64>, $cc, W> as Handler
                };
            }
            macro_rules! ri8 {
                ($cc:literal) => {
                    fused::<$s, F<REG, IMM, 8, 8, A64>, $cc, W> as Handler
                };
            }
            macro_rules! ri1 {
                ($cc:literal) => {
                    fused::<$s, F<REG, IMM, 1, 1, A64>, $cc, W> as Handler
                };
            }
            Some(match (insn.ops[0].kind, insn.ops[1].kind, insn.width) {
                (Kind::Gpr, Kind::Gpr, Width::B4) => for_condition!(cc, rr4),
                (Kind::Gpr, Kind::Gpr, Width::B8) => for_condition!(cc, rr8),
                (Kind::Gpr, Kind::Gpr, Width::B1) => for_condition!(cc, rr1),
                (Kind::Gpr, Kind::Imm, Width::B4) => for_condition!(cc, ri4),
                (Kind::Gpr, Kind::Imm, Width::B8) => for_condition!(cc, ri8),
                (Kind::Gpr, Kind::Imm, Width::B1) => for_condition!(cc, ri1),
                _ => return None,
            })
        }};
    }
    match insn.code.mnemonic() {
        M::Cmp => by_form!(alu::Cmp),
        M::Test => by_form!(alu::Test),
        _ => None,
    }
}
