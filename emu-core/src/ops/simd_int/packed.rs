//! How packed operations are tied to instructions: one type per operation, one function for each form of operand.
//!
//! A row names a type; its [`Packed`], [`Insert`] or [`Extract`] implementation is a pure function of values. The
//! functions here fetch operands and store results for any mode; [`crate::ops::fast::simd`] does the same as specialised
//! handlers, and both are reached through the same [`Row`].

use super::check;
use super::pair::Pair;
use crate::cpu::fault::Fault;
use crate::cpu::xmm::Xmm;
use crate::decode::insn::{Insn, Kind, undefined};
use crate::exec::Vcpu;
use crate::exec::thread::Handler;
use crate::mmu::walk::Access;
use crate::ops::fast::simd;
use crate::ops::{Exec, mmx};

/// `xmm = f(xmm, xmm/memory/immediate)`.
pub trait Packed {
    /// Bytes of a memory source: 2, 4, 8 or 16.
    const MEMORY: u64 = 16;
    /// A memory source must be a multiple of its size.
    const ALIGNED: bool = Self::MEMORY == 16;
    /// The result.
    fn apply(p: Pair) -> Xmm;
    /// The result of the MMX form, which most operations have from their low halves.
    #[inline(always)]
    fn apply_mmx(p: Pair) -> u64 {
        Self::apply(p).get64(0)
    }
}

/// `xmm = f(xmm, general register/memory)`.
pub trait Insert {
    /// Bytes of the source.
    const SIZE: u64;
    /// The result.
    fn apply(dst: Xmm, src: u64, imm: u8) -> Xmm;
}

/// `general register/memory = f(xmm)`.
pub trait Extract {
    /// Bytes of a memory destination. A register is written zero-extended.
    const SIZE: u64;
    /// The result.
    fn apply(src: Xmm, imm: u8) -> u64;
}

/// The handlers of an instruction's forms with memory, for the addressing of `simd::addressing`.
pub type MemoryHandlers = [Handler; 3];

/// What the tables say of one mnemonic: the function for all forms, and specialised handlers for those that have one.
#[derive(Clone, Copy)]
pub struct Row {
    /// Executes any form.
    pub exec: Exec,
    /// `xmm, xmm`
    pub register: Option<Handler>,
    /// `xmm, memory`
    pub load: Option<MemoryHandlers>,
    /// `xmm, immediate`
    pub count: Option<Handler>,
    /// `xmm, general register`
    pub insert: Option<Handler>,
    /// `memory, xmm`
    pub store: Option<MemoryHandlers>,
    /// `general register, xmm`
    pub extract: Option<Handler>,
}

impl Row {
    /// A row without specialised handlers.
    pub const fn plain(exec: Exec) -> Row {
        Row { exec, register: None, load: None, count: None, insert: None, store: None, extract: None }
    }

    /// An operation on a register and a register or memory.
    pub fn packed<P: Packed>() -> Row {
        Row { register: Some(simd::register::<P>), load: Some(simd::load_handlers::<P>()), ..Row::plain(packed::<P>) }
    }

    /// A shift, whose count may be an immediate.
    pub fn shift<P: Packed>() -> Row {
        Row { count: Some(simd::count::<P>), ..Row::packed::<P>() }
    }

    /// A move between registers (`R`), from memory (`L`), and to memory (`S`).
    pub fn scalar_move<R: Packed, L: Packed, S: Extract>() -> Row {
        Row {
            register: Some(simd::register::<R>),
            load: Some(simd::load_handlers::<L>()),
            store: Some(simd::store_handlers::<S>()),
            ..Row::plain(scalar_move::<R, L, S>)
        }
    }

    /// A move of 16 bytes in either direction.
    pub fn full_move<P: Packed>() -> Row {
        Row { store: Some(simd::store16_handlers::<P>()), ..Row { exec: full_move::<P>, ..Row::packed::<P>() } }
    }

    /// A general register or memory into an XMM register.
    pub fn insert<I: Insert>() -> Row {
        Row { insert: Some(simd::insert::<I>), ..Row::plain(insert::<I>) }
    }

    /// An XMM register to a general register or memory.
    pub fn extract<E: Extract>() -> Row {
        Row { extract: Some(simd::extract::<E>), store: Some(simd::store_handlers::<E>()), ..Row::plain(extract::<E>) }
    }
}

/// Rows of packed operations: `Mnemonic => |p| result;`, optionally with the bytes of the memory operand, and with the
/// MMX form where that is not simply the low half.
macro_rules! packed_rows {
    ($constructor:ident: $($name:ident $(($bytes:literal))? $(mmx($mmx:expr))? => $apply:expr;)*) => {
        $(
            #[doc = concat!("See the row of `", stringify!($name), "`.")]
            pub struct $name;
            impl $crate::ops::simd_int::packed::Packed for $name {
                $(const MEMORY: u64 = $bytes;)?
                #[inline(always)]
                fn apply(p: $crate::ops::simd_int::pair::Pair) -> $crate::cpu::xmm::Xmm {
                    $crate::ops::simd_int::packed::call(p, $apply)
                }
                $(
                    #[inline(always)]
                    fn apply_mmx(p: $crate::ops::simd_int::pair::Pair) -> u64 {
                        $crate::ops::simd_int::packed::call(p, $mmx)
                    }
                )?
            }
        )*
        /// The rows of this file.
        pub fn row(m: iced_x86::Mnemonic) -> Option<$crate::ops::simd_int::packed::Row> {
            Some(match m {
                $(iced_x86::Mnemonic::$name => $crate::ops::simd_int::packed::Row::$constructor::<$name>(),)*
                _ => return None,
            })
        }
    };
}
pub(crate) use packed_rows;

/// Calls a row's closure; being an argument here is what gives its parameter a type.
#[inline(always)]
pub fn call<R>(p: Pair, f: impl FnOnce(Pair) -> R) -> R {
    f(p)
}

/// Number of an XMM operand.
#[inline(always)]
pub fn xmm(insn: &Insn, operand: usize) -> usize {
    usize::from(insn.ops[operand].reg & 15)
}

/// Reads the memory operand, zero-extended.
pub fn load(cpu: &mut Vcpu, insn: &Insn, size: u64, aligned: bool) -> Result<Xmm, Fault> {
    let linear = cpu.linear(insn, size, Access::Read)?;
    if aligned && !linear.is_multiple_of(size) {
        return Err(Fault::gp0());
    }
    match size {
        16 => cpu.load::<Xmm>(linear),
        _ => Ok(scalar(load_scalar(cpu, linear, size)?)),
    }
}

/// A zero-extended scalar.
#[inline(always)]
pub fn scalar(value: u64) -> Xmm {
    let mut v = Xmm::default();
    v.set64(0, value);
    v
}

/// Reads 1, 2, 4 or 8 bytes at a linear address.
pub fn load_scalar(cpu: &mut Vcpu, linear: u64, size: u64) -> Result<u64, Fault> {
    cpu.load_width(linear, crate::cpu::Width::from_bytes(size as usize))
}

/// The source: operand 1, of `size` bytes in memory.
fn source(cpu: &mut Vcpu, insn: &Insn, size: u64, aligned: bool) -> Result<Xmm, Fault> {
    match insn.ops[1].kind {
        Kind::Xmm => Ok(cpu.state.xmm[xmm(insn, 1)]),
        Kind::Mem => load(cpu, insn, size, aligned),
        _ => Ok(scalar(u64::from(insn.imm as u8))),
    }
}

/// The SSE and MMX forms of a packed operation.
fn packed<P: Packed>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    if insn.ops[0].kind == Kind::Mmx {
        return mmx::packed::<P>(cpu, insn);
    }
    check(cpu)?;
    let src = source(cpu, insn, P::MEMORY, P::ALIGNED)?;
    let d = xmm(insn, 0);
    let xmm0 = cpu.state.xmm[0];
    cpu.state.xmm[d] = P::apply(Pair { dst: cpu.state.xmm[d], src, imm: insn.imm as u8, xmm0 });
    Ok(())
}

fn scalar_move<R: Packed, L: Packed, S: Extract>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    match (insn.ops[0].kind, insn.ops[1].kind) {
        (Kind::Mem, _) => extract::<S>(cpu, insn),
        (_, Kind::Mem) => packed::<L>(cpu, insn),
        _ => packed::<R>(cpu, insn),
    }
}

fn full_move<P: Packed>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    if insn.ops[0].kind != Kind::Mem {
        return packed::<P>(cpu, insn);
    }
    check(cpu)?;
    let linear = cpu.linear(insn, 16, Access::Write)?;
    if P::ALIGNED && !linear.is_multiple_of(16) {
        return Err(Fault::gp0());
    }
    let value = cpu.state.xmm[xmm(insn, 1)];
    cpu.store(linear, value)
}

/// See [`Insert`].
pub fn insert<I: Insert>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    check(cpu)?;
    let src = match insn.ops[1].kind {
        Kind::Gpr => cpu.state.regs.get64(insn.ops[1].reg),
        Kind::Mem => {
            let linear = cpu.linear(insn, I::SIZE, Access::Read)?;
            load_scalar(cpu, linear, I::SIZE)?
        }
        _ => return undefined(cpu, insn),
    };
    let d = xmm(insn, 0);
    cpu.state.xmm[d] = I::apply(cpu.state.xmm[d], src, insn.imm as u8);
    Ok(())
}

/// See [`Extract`].
pub fn extract<E: Extract>(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    check(cpu)?;
    let value = E::apply(cpu.state.xmm[xmm(insn, 1)], insn.imm as u8);
    if insn.ops[0].kind == Kind::Gpr {
        cpu.state.regs.set64(insn.ops[0].reg, value);
        return Ok(());
    }
    let linear = cpu.linear(insn, E::SIZE, Access::Write)?;
    cpu.store_width(linear, crate::cpu::Width::from_bytes(E::SIZE as usize), value)
}
