//! Moves between XMM registers, general registers and memory, whole or in part.

use super::check;
use super::packed::{self, Extract, Insert, Packed, Row, load, scalar, xmm};
use super::pair::Pair;
use crate::cpu::fault::Fault;
use crate::cpu::regs::{RDI, RegFile};
use crate::cpu::rflags::{CF, ZF};
use crate::cpu::xmm::{Lane, Xmm};
use crate::decode::insn::{Insn, Kind};
use crate::exec::Vcpu;
use crate::mmu::walk::Access;
use crate::ops::mmx;
use iced_x86::Mnemonic;

/// 16 bytes, aligned in memory.
struct Aligned;
impl Packed for Aligned {
    #[inline(always)]
    fn apply(p: Pair) -> Xmm {
        p.src
    }
}

/// 16 bytes anywhere.
struct Unaligned;
impl Packed for Unaligned {
    const ALIGNED: bool = false;
    #[inline(always)]
    fn apply(p: Pair) -> Xmm {
        p.src
    }
}

/// The low `BYTES` bytes, the rest zero.
struct Low<const BYTES: u64>;
impl<const BYTES: u64> Packed for Low<BYTES> {
    const MEMORY: u64 = BYTES;
    #[inline(always)]
    fn apply(p: Pair) -> Xmm {
        scalar(if BYTES == 4 { u64::from(p.src.get32(0)) } else { p.src.get64(0) })
    }
}

/// The low `BYTES` bytes, the rest kept.
struct Merge<const BYTES: u64>;
impl<const BYTES: u64> Packed for Merge<BYTES> {
    const MEMORY: u64 = BYTES;
    #[inline(always)]
    fn apply(p: Pair) -> Xmm {
        let mut r = p.dst;
        if BYTES == 4 {
            r.set32(0, p.src.get32(0));
        } else {
            r.set64(0, p.src.get64(0));
        }
        r
    }
}

/// 8 bytes of memory into the high half, the low half kept.
struct MergeHigh;
impl Packed for MergeHigh {
    const MEMORY: u64 = 8;
    #[inline(always)]
    fn apply(p: Pair) -> Xmm {
        p.with64(1, p.src.get64(0))
    }
}

macro_rules! inserts {
    ($($name:ident $bytes:literal |$dst:pat_param, $src:ident, $imm:pat_param| $apply:expr;)*) => {$(
        struct $name;
        impl Insert for $name {
            const SIZE: u64 = $bytes;
            #[inline(always)]
            fn apply($dst: Xmm, $src: u64, $imm: u8) -> Xmm {
                $apply
            }
        }
    )*};
}

inserts! {
    FromGpr32 4 |_, src, _| scalar(src & 0xffff_ffff);
    FromGpr64 8 |_, src, _| scalar(src);
    InsertByte 1 |dst, src, imm| replace::<u8, 16>(dst, imm, src as u8);
    InsertWord 2 |dst, src, imm| replace::<u16, 8>(dst, imm, src as u16);
    InsertDword 4 |dst, src, imm| replace::<u32, 4>(dst, imm, src as u32);
    InsertQword 8 |dst, src, imm| replace::<u64, 2>(dst, imm, src);
}

/// `dst` with one lane replaced; the upper bits of `n` are ignored.
#[inline(always)]
fn replace<T: Lane, const N: usize>(dst: Xmm, n: u8, value: T) -> Xmm {
    let mut lanes = dst.lanes::<T, N>();
    lanes[usize::from(n) % N] = value;
    Xmm::from_lanes(lanes)
}

macro_rules! extracts {
    ($($name:ident $bytes:literal |$src:ident, $imm:pat_param| $apply:expr;)*) => {$(
        struct $name;
        impl Extract for $name {
            const SIZE: u64 = $bytes;
            #[inline(always)]
            fn apply($src: Xmm, $imm: u8) -> u64 {
                $apply
            }
        }
    )*};
}

extracts! {
    Low32 4 |src, _| u64::from(src.get32(0));
    Low64 8 |src, _| src.get64(0);
    High64 8 |src, _| src.get64(1);
    ExtractByte 1 |src, imm| u64::from(src.0[usize::from(imm & 15)]);
    ExtractWord 2 |src, imm| u64::from(src.lanes::<u16, 8>()[usize::from(imm & 7)]);
    ExtractDword 4 |src, imm| u64::from(src.get32(usize::from(imm & 3)));
    ExtractQword 8 |src, imm| src.get64(usize::from(imm & 1));
    ByteSigns 4 |src, _| {
        // Gathers the top bits of eight bytes in the top byte of a product.
        let eight = |v: u64| (v >> 7 & 0x0101_0101_0101_0101).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        eight(src.get64(0)) | eight(src.get64(1)) << 8
    };
    SingleSigns 4 |src, _| (0..4).map(|n| u64::from(src.get32(n) >> 31) << n).sum();
    DoubleSigns 4 |src, _| src.get64(0) >> 63 | src.get64(1) >> 63 << 1;
}

/// The rows of this file.
pub fn row(m: Mnemonic) -> Option<Row> {
    Some(match m {
        Mnemonic::Movaps | Mnemonic::Movapd | Mnemonic::Movdqa => Row::full_move::<Aligned>(),
        Mnemonic::Movups | Mnemonic::Movupd | Mnemonic::Movdqu | Mnemonic::Lddqu => Row::full_move::<Unaligned>(),
        // Non-temporal hints have no effect that software could see on one processor.
        Mnemonic::Movntps | Mnemonic::Movntpd | Mnemonic::Movntdq | Mnemonic::Movntdqa => Row::full_move::<Aligned>(),
        Mnemonic::Movss => Row::scalar_move::<Merge<4>, Low<4>, Low32>(),
        Mnemonic::Movlps | Mnemonic::Movlpd => Row::scalar_move::<Merge<8>, Merge<8>, Low64>(),
        Mnemonic::Movhps | Mnemonic::Movhpd => Row::scalar_move::<MergeHigh, MergeHigh, High64>(),
        Mnemonic::Movd => {
            Row { exec: movd, extract: Row::extract::<Low32>().extract, ..row_from_gpr::<FromGpr32, 4>() }
        }
        Mnemonic::Movq => {
            Row { exec: movq, extract: Row::extract::<Low64>().extract, ..row_from_gpr::<FromGpr64, 8>() }
        }
        Mnemonic::Pinsrb => Row::insert::<InsertByte>(),
        Mnemonic::Pinsrw => Row { exec: pinsrw, ..Row::insert::<InsertWord>() },
        Mnemonic::Pinsrd => Row::insert::<InsertDword>(),
        Mnemonic::Pinsrq => Row::insert::<InsertQword>(),
        Mnemonic::Pextrb => Row::extract::<ExtractByte>(),
        Mnemonic::Pextrw => Row { exec: pextrw, ..Row::extract::<ExtractWord>() },
        Mnemonic::Pextrd | Mnemonic::Extractps => Row::extract::<ExtractDword>(),
        Mnemonic::Pextrq => Row::extract::<ExtractQword>(),
        Mnemonic::Pmovmskb => Row { exec: pmovmskb, ..Row::extract::<ByteSigns>() },
        Mnemonic::Movmskps => Row::extract::<SingleSigns>(),
        Mnemonic::Movmskpd => Row::extract::<DoubleSigns>(),
        Mnemonic::Insertps => Row::plain(insertps),
        Mnemonic::Ptest => Row::plain(ptest),
        Mnemonic::Maskmovdqu => Row::plain(maskmovdqu),
        Mnemonic::Movq2dq => Row::plain(mmx::movq2dq),
        Mnemonic::Movdq2q => Row::plain(mmx::movdq2q),
        _ => return None,
    })
}

/// MOVSD of SSE2, whose mnemonic is also a string instruction's.
pub fn movsd() -> Row {
    Row::scalar_move::<Merge<8>, Low<8>, Low64>()
}

fn row_from_gpr<I: Insert, const BYTES: u64>() -> Row {
    Row {
        insert: Row::insert::<I>().insert,
        store: match BYTES {
            4 => Row::extract::<Low32>().store,
            _ => Row::extract::<Low64>().store,
        },
        ..Row::packed::<Low<BYTES>>()
    }
}

fn movd(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    match (insn.ops[0].kind, insn.ops[1].kind) {
        (Kind::Mmx, _) | (_, Kind::Mmx) => mmx::movd(cpu, insn),
        (Kind::Xmm, _) => packed::insert::<FromGpr32>(cpu, insn),
        _ => packed::extract::<Low32>(cpu, insn),
    }
}

fn movq(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    match (insn.ops[0].kind, insn.ops[1].kind) {
        (Kind::Mmx, _) | (_, Kind::Mmx) => mmx::movq(cpu, insn),
        (Kind::Xmm, Kind::Xmm) => (Row::packed::<Low<8>>().exec)(cpu, insn),
        (Kind::Xmm, _) => packed::insert::<FromGpr64>(cpu, insn),
        _ => packed::extract::<Low64>(cpu, insn),
    }
}

fn pinsrw(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    match insn.ops[0].kind {
        Kind::Mmx => mmx::pinsrw(cpu, insn),
        _ => packed::insert::<InsertWord>(cpu, insn),
    }
}

fn pextrw(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    match insn.ops[1].kind {
        Kind::Mmx => mmx::pextrw(cpu, insn),
        _ => packed::extract::<ExtractWord>(cpu, insn),
    }
}

fn pmovmskb(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    match insn.ops[1].kind {
        Kind::Mmx => mmx::pmovmskb(cpu, insn),
        _ => packed::extract::<ByteSigns>(cpu, insn),
    }
}

/// The immediate: source lane in bits 7:6 (registers only), destination lane in 5:4, lanes to clear in 3:0.
fn insertps(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    check(cpu)?;
    let imm = insn.imm as u8;
    let value = match insn.ops[1].kind {
        Kind::Xmm => cpu.state.xmm[xmm(insn, 1)].get32(usize::from(imm >> 6)),
        _ => load(cpu, insn, 4, false)?.get32(0),
    };
    let dst = &mut cpu.state.xmm[xmm(insn, 0)];
    dst.set32(usize::from(imm >> 4 & 3), value);
    for n in 0..4 {
        if imm >> n & 1 != 0 {
            dst.set32(n, 0);
        }
    }
    Ok(())
}

fn ptest(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    check(cpu)?;
    let src = match insn.ops[1].kind {
        Kind::Xmm => cpu.state.xmm[xmm(insn, 1)],
        _ => load(cpu, insn, 16, true)?,
    };
    let (dst, src) = (u128::from(cpu.state.xmm[xmm(insn, 0)]), u128::from(src));
    let zf = if dst & src == 0 { ZF } else { 0 };
    let cf = if !dst & src == 0 { CF } else { 0 };
    cpu.state.flags.set_bits(zf | cf);
    Ok(())
}

fn maskmovdqu(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    check(cpu)?;
    let value = cpu.state.xmm[xmm(insn, 1)];
    let mask = cpu.state.xmm[xmm(insn, 2)];
    store_masked(cpu, insn, &value.0, &mask.0)
}

/// Stores the bytes of `value` whose mask has its top bit set at `seg:rDI`; those that are not selected cannot fault.
pub fn store_masked(cpu: &mut Vcpu, insn: &Insn, value: &[u8], mask: &[u8]) -> Result<(), Fault> {
    let address = cpu.state.regs.get64(RegFile::slot(RDI));
    let selected = |n: &usize| mask[*n] & 0x80 != 0;
    let linear = |cpu: &mut Vcpu, n: usize| {
        cpu.seg_linear(insn.mem.seg, address.wrapping_add(n as u64) & insn.addr.mask(), 1, Access::Write)
    };
    let privilege = cpu.privilege();
    for n in (0..value.len()).filter(selected) {
        let at = linear(cpu, n)?;
        cpu.probe(at, 1, Access::Write, privilege)?;
    }
    for n in (0..value.len()).filter(selected) {
        let at = linear(cpu, n)?;
        cpu.store(at, value[n])?;
    }
    Ok(())
}
