//! The forms of handlers: kinds of operands, widths and ways of addressing as compile-time constants.

use crate::cpu::Width;
use crate::cpu::rflags::FlagOp;
use crate::exec::Vcpu;
use crate::exec::handlers::unspecialised;
use crate::exec::thread::{Exit, Handler, OpRef, dispatch};
use crate::mmu::access::HostPtr;
use crate::ops::backend::{Backend, Semantics, plain_operations};
use crate::ops::integer::alu;
use std::marker::PhantomData;

/// A register operand.
pub const REG: u8 = 0;
/// A memory operand.
pub const MEM: u8 = 1;
/// An immediate operand.
pub const IMM: u8 = 2;

/// `[base + disp]`, 64 bits.
pub const A64: u8 = 0;
/// `[base + index * scale + disp]`, 64 bits.
pub const A64I: u8 = 1;
/// The same behind the base of FS or GS.
pub const A64S: u8 = 2;
/// `[base + index * scale + disp]`, 32 bits, in a flat segment.
pub const A32: u8 = 3;
/// The same behind the base of FS or GS.
pub const A32S: u8 = 4;

/// No entry is there, or a plain access is not allowed: the unspecialised function must look.
pub struct Miss;

/// A form, as constants.
pub trait Form {
    /// Kind of operand 0.
    const DST: u8;
    /// Kind of operand 1.
    const SRC: u8;
    /// Size of operand 0 and of the operation.
    const W: Width;
    /// Size of operand 1.
    const SW: Width;
    /// How memory is addressed.
    const A: u8;
}

/// The form with these constants; widths in bytes.
pub struct F<const DST: u8, const SRC: u8, const W: usize, const SW: usize, const A: u8>;
impl<const DST: u8, const SRC: u8, const W: usize, const SW: usize, const A: u8> Form for F<DST, SRC, W, SW, A> {
    const DST: u8 = DST;
    const SRC: u8 = SRC;
    const W: Width = Width::from_bytes(W);
    const SW: Width = Width::from_bytes(SW);
    const A: u8 = A;
}

/// The linear address of the memory operand of `op`.
#[inline(always)]
pub fn linear<const A: u8>(cpu: &Vcpu, op: OpRef) -> u64 {
    let regs = &cpu.state.regs;
    let mut at = regs.get64(op.base).wrapping_add(op.disp as u64);
    if A != A64 {
        at = at.wrapping_add(regs.get64(op.index) << (op.shift & 3));
    }
    match A {
        A64S => at.wrapping_add(regs.get64(op.seg)),
        A32 => at & 0xffff_ffff,
        A32S => at.wrapping_add(regs.get64(op.seg)) & 0xffff_ffff,
        _ => at,
    }
}

#[inline(always)]
fn load(at: HostPtr, width: Width) -> u64 {
    match width {
        Width::B1 => at.read::<u8>() as i8 as u64,
        Width::B2 => at.read::<u16>() as i16 as u64,
        Width::B4 => at.read::<u32>() as i32 as u64,
        Width::B8 => at.read::<u64>(),
    }
}

#[inline(always)]
fn store(at: HostPtr, width: Width, value: u64) {
    match width {
        Width::B1 => at.write(value as u8),
        Width::B2 => at.write(value as u16),
        Width::B4 => at.write(value as u32),
        Width::B8 => at.write(value),
    }
}

/// A backend that executes one form and gives up where it does not suffice.
pub struct Fast<'a, T: Form> {
    cpu: &'a mut Vcpu,
    op: OpRef,
    open: Option<HostPtr>,
    form: PhantomData<T>,
}

impl<'a, T: Form> Fast<'a, T> {
    /// For the operands of `op`.
    #[inline(always)]
    pub fn new(cpu: &'a mut Vcpu, op: OpRef) -> Fast<'a, T> {
        Fast { cpu, op, open: None, form: PhantomData }
    }
}

impl<T: Form> Backend for Fast<'_, T> {
    type Trap = Miss;
    plain_operations!();

    #[inline(always)]
    fn width(&self) -> Width {
        T::W
    }

    #[inline(always)]
    fn read(&mut self, n: usize) -> Result<u64, Miss> {
        let (kind, width) = match n {
            0 => (T::DST, T::W),
            1 => (T::SRC, T::SW),
            _ => (IMM, T::W),
        };
        match kind {
            REG => {
                let slot = if n == 0 { self.op.r0 } else { self.op.r1 };
                Ok(width.sext(self.cpu.state.regs.get(slot, width)))
            }
            MEM => {
                let at = address::<T>(self.cpu, self.op);
                match self.cpu.host_read(at, width.bytes()) {
                    Some(host) => Ok(load(host, width)),
                    None => Err(Miss),
                }
            }
            _ => Ok(self.op.imm as u64),
        }
    }

    #[inline(always)]
    fn write(&mut self, n: usize, value: u64) -> Result<(), Miss> {
        let (kind, width) = if n == 0 { (T::DST, T::W) } else { (T::SRC, T::SW) };
        if kind == MEM {
            let at = address::<T>(self.cpu, self.op);
            match self.cpu.host_write(at, width.bytes()) {
                Some(host) => {
                    store(host, width, value);
                    Ok(())
                }
                None => Err(Miss),
            }
        } else {
            let slot = if n == 0 { self.op.r0 } else { self.op.r1 };
            self.cpu.state.regs.set(slot, width, value);
            Ok(())
        }
    }

    #[inline(always)]
    fn open(&mut self, n: usize) -> Result<u64, Miss> {
        if (if n == 0 { T::DST } else { T::SRC }) != MEM {
            return self.read(n);
        }
        let at = address::<T>(self.cpu, self.op);
        match self.cpu.host_write(at, T::W.bytes()) {
            Some(host) => {
                self.open = Some(host);
                Ok(load(host, T::W))
            }
            None => Err(Miss),
        }
    }

    #[inline(always)]
    fn commit(&mut self, n: usize, value: u64) -> Result<(), Miss> {
        match self.open {
            Some(host) => {
                store(host, T::W, value);
                Ok(())
            }
            None => self.write(n, value),
        }
    }

    #[inline(always)]
    fn address(&mut self) -> u64 {
        address::<T>(self.cpu, self.op)
    }

    #[inline(always)]
    fn peek(&mut self) -> Result<u64, Miss> {
        let sp = self.cpu.state.regs.gpr(crate::cpu::regs::RSP);
        match self.cpu.host_read(sp & T::W.mask(), T::W.bytes()) {
            Some(host) => Ok(load(host, T::W)),
            None => Err(Miss),
        }
    }

    #[inline(always)]
    fn drop_top(&mut self) {
        let sp = self.cpu.state.regs.gpr(crate::cpu::regs::RSP).wrapping_add(T::W.bytes());
        self.cpu.state.regs.set_gpr(crate::cpu::regs::RSP, sp & T::W.mask());
    }

    #[inline(always)]
    fn push(&mut self, value: u64) -> Result<(), Miss> {
        let sp = self.cpu.state.regs.gpr(crate::cpu::regs::RSP).wrapping_sub(T::W.bytes()) & T::W.mask();
        match self.cpu.host_write(sp, T::W.bytes()) {
            Some(host) => {
                store(host, T::W, value);
                self.cpu.state.regs.set_gpr(crate::cpu::regs::RSP, sp);
                Ok(())
            }
            None => Err(Miss),
        }
    }
}

#[inline(always)]
fn address<T: Form>(cpu: &Vcpu, op: OpRef) -> u64 {
    match T::A {
        A64 => linear::<A64>(cpu, op),
        A64I => linear::<A64I>(cpu, op),
        A64S => linear::<A64S>(cpu, op),
        A32 => linear::<A32>(cpu, op),
        _ => linear::<A32S>(cpu, op),
    }
}

/// The handler of one instruction in one form.
pub fn handle<S: Semantics, T: Form>(cpu: &mut Vcpu, op: OpRef) -> Exit {
    match S::run(&mut Fast::<T>::new(cpu, op)) {
        Ok(()) => dispatch(cpu, op.next()),
        Err(Miss) => unspecialised(cpu, op),
    }
}

macro_rules! by_address {
    ($a:expr, $s:ty, $d:ident, $src:ident, $w:literal, $sw:literal) => {
        Some(match $a {
            A64 => handle::<$s, F<$d, $src, $w, $sw, A64>> as Handler,
            A64I => handle::<$s, F<$d, $src, $w, $sw, A64I>>,
            A64S => handle::<$s, F<$d, $src, $w, $sw, A64S>>,
            A32 => handle::<$s, F<$d, $src, $w, $sw, A32>>,
            _ => handle::<$s, F<$d, $src, $w, $sw, A32S>>,
        })
    };
}

macro_rules! by_width {
    ($width:expr, $a:expr, $s:ty, $d:ident, $src:ident) => {
        match $width {
            Width::B1 => by_address!($a, $s, $d, $src, 1, 1),
            Width::B2 => by_address!($a, $s, $d, $src, 2, 2),
            Width::B4 => by_address!($a, $s, $d, $src, 4, 4),
            Width::B8 => by_address!($a, $s, $d, $src, 8, 8),
        }
    };
    ($width:expr, $s:ty, $d:ident, $src:ident) => {
        Some(match $width {
            Width::B1 => handle::<$s, F<$d, $src, 1, 1, A64>> as Handler,
            Width::B2 => handle::<$s, F<$d, $src, 2, 2, A64>>,
            Width::B4 => handle::<$s, F<$d, $src, 4, 4, A64>>,
            Width::B8 => handle::<$s, F<$d, $src, 8, 8, A64>>,
        })
    };
}

/// Two operands of the same size: register or memory, and register, memory or immediate.
pub fn pick_alu<S: Semantics>(d: u8, s: u8, width: Width, a: u8) -> Option<Handler> {
    match (d, s) {
        (REG, REG) => by_width!(width, S, REG, REG),
        (REG, IMM) => by_width!(width, S, REG, IMM),
        (REG, MEM) => by_width!(width, a, S, REG, MEM),
        (MEM, REG) => by_width!(width, a, S, MEM, REG),
        (MEM, IMM) => by_width!(width, a, S, MEM, IMM),
        _ => None,
    }
}

/// One operand, register or memory.
pub fn pick_unary<S: Semantics>(d: u8, width: Width, a: u8) -> Option<Handler> {
    match d {
        REG => by_width!(width, S, REG, REG),
        _ => by_width!(width, a, S, MEM, REG),
    }
}

/// A register and a narrower register or memory operand.
pub fn pick_extend<S: Semantics>(s: u8, width: Width, from: Width, a: u8) -> Option<Handler> {
    match (s, width, from) {
        (REG, Width::B4, Width::B1) => Some(handle::<S, F<REG, REG, 4, 1, A64>>),
        (REG, Width::B8, Width::B1) => Some(handle::<S, F<REG, REG, 8, 1, A64>>),
        (REG, Width::B4, Width::B2) => Some(handle::<S, F<REG, REG, 4, 2, A64>>),
        (REG, Width::B8, Width::B2) => Some(handle::<S, F<REG, REG, 8, 2, A64>>),
        (REG, Width::B8, Width::B4) => Some(handle::<S, F<REG, REG, 8, 4, A64>>),
        (MEM, Width::B4, Width::B1) => by_address!(a, S, REG, MEM, 4, 1),
        (MEM, Width::B8, Width::B1) => by_address!(a, S, REG, MEM, 8, 1),
        (MEM, Width::B4, Width::B2) => by_address!(a, S, REG, MEM, 4, 2),
        (MEM, Width::B8, Width::B2) => by_address!(a, S, REG, MEM, 8, 2),
        (MEM, Width::B8, Width::B4) => by_address!(a, S, REG, MEM, 8, 4),
        _ => None,
    }
}

/// A register of 4 or 8 bytes and a register or memory operand of the same size.
pub fn pick_wide<S: Semantics>(s: u8, width: Width, a: u8) -> Option<Handler> {
    match (s, width) {
        (REG, Width::B4) => Some(handle::<S, F<REG, REG, 4, 4, A64>>),
        (REG, Width::B8) => Some(handle::<S, F<REG, REG, 8, 8, A64>>),
        (MEM, Width::B4) => by_address!(a, S, REG, MEM, 4, 4),
        (MEM, Width::B8) => by_address!(a, S, REG, MEM, 8, 8),
        _ => None,
    }
}

/// CMOVcc.
pub fn pick_cmov<const CC: u8>(s: u8, width: Width, a: u8) -> Option<Handler> {
    pick_wide::<alu::Cmov<CC>>(s, width, a)
}

/// A register, and an immediate or CL: shifts and rotates.
pub fn pick_reg_imm<S: Semantics>(s: u8, width: Width) -> Option<Handler> {
    Some(match (s, width) {
        (IMM, Width::B1) => handle::<S, F<REG, IMM, 1, 1, A64>> as Handler,
        (IMM, Width::B2) => handle::<S, F<REG, IMM, 2, 1, A64>>,
        (IMM, Width::B4) => handle::<S, F<REG, IMM, 4, 1, A64>>,
        (IMM, Width::B8) => handle::<S, F<REG, IMM, 8, 1, A64>>,
        (_, Width::B1) => handle::<S, F<REG, REG, 1, 1, A64>>,
        (_, Width::B2) => handle::<S, F<REG, REG, 2, 1, A64>>,
        (_, Width::B4) => handle::<S, F<REG, REG, 4, 1, A64>>,
        (_, Width::B8) => handle::<S, F<REG, REG, 8, 1, A64>>,
    })
}

/// SETcc of a register.
pub fn set<const CC: u8>() -> Handler {
    handle::<alu::Set<CC>, F<REG, REG, 1, 1, A64>>
}

/// XCHG of two registers.
pub fn pick_xchg(width: Width) -> Option<Handler> {
    by_width!(width, alu::Xchg, REG, REG)
}

/// LEA: segment bases do not count.
pub fn pick_lea(width: Width, a: u8) -> Option<Handler> {
    Some(match (width, a) {
        (Width::B4, A64) => handle::<alu::Lea, F<REG, MEM, 4, 4, A64>> as Handler,
        (Width::B4, A64I | A64S) => handle::<alu::Lea, F<REG, MEM, 4, 4, A64I>>,
        (Width::B4, _) => handle::<alu::Lea, F<REG, MEM, 4, 4, A32>>,
        (Width::B8, A64) => handle::<alu::Lea, F<REG, MEM, 8, 8, A64>>,
        (Width::B8, A64I | A64S) => handle::<alu::Lea, F<REG, MEM, 8, 8, A64I>>,
        (Width::B8, _) => handle::<alu::Lea, F<REG, MEM, 8, 8, A32>>,
        _ => return None,
    })
}

/// MOV of an immediate to a 64-bit register.
pub fn mov_wide(cpu: &mut Vcpu, op: OpRef) -> Exit {
    cpu.state.regs.set64(op.r0, op.wide());
    dispatch(cpu, op.next())
}

/// NOP of any length.
pub fn nop(cpu: &mut Vcpu, op: OpRef) -> Exit {
    dispatch(cpu, op.next())
}
