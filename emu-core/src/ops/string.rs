//! String instructions and their repetition (SDM Vol. 1 7.3.9; Vol. 2B, REP).
//!
//! ```text
//!  REP MOVS:   [ page-wise copy | one element | page-wise copy | ... ]  bounded, then events, then again
//! ```
//! Each repetition ends in a state that software could have reached by single steps: rCX, rSI and rDI count finished
//! iterations at faults and at interrupts alike. Ascending runs within pages of memory are copied at once
//! ([`Vcpu::copy_ascending`]); everything else goes element by element. `tests/tests/strings.rs` compares the two.
//! What a repetition costs of the budget must not depend on what the TLB has: that is not the same in both tiers.
//! Between iterations RF is set, as the processor does (SDM Vol. 3B 18.3.1.1).

use super::Exec;
use crate::cpu::Width;
use crate::cpu::fault::Fault;
use crate::cpu::regs::{RAX, RCX, RDI, RDX, RSI, RegFile};
use crate::cpu::rflags::{DF, FlagOp, RF, TF};
use crate::cpu::segment::Seg;
use crate::decode::insn::{Insn, prefix};
use crate::exec::Vcpu;
use crate::exec::run::DR6_BS;
use crate::mmu::walk::Access;
use iced_x86::Mnemonic;

/// What one call does at most before it gives way to events: in the unit of the run's budget, so that virtual time and
/// deadlines keep up with long repetitions. An element is one, and so are [`BULK`] bytes that are moved together.
const CHUNK: u64 = 2048;

/// See [`CHUNK`].
const BULK: u64 = 64;

/// Bytes that a comparing instruction looks at together.
const WINDOW: usize = 256;

/// The rows of this group. MOVSD and CMPSD share their mnemonics with SSE: the table asks only for string forms.
pub fn exec(m: Mnemonic) -> Option<Exec> {
    Some(match m {
        Mnemonic::Movsb | Mnemonic::Movsw | Mnemonic::Movsd | Mnemonic::Movsq => movs,
        Mnemonic::Stosb | Mnemonic::Stosw | Mnemonic::Stosd | Mnemonic::Stosq => stos,
        Mnemonic::Lodsb | Mnemonic::Lodsw | Mnemonic::Lodsd | Mnemonic::Lodsq => lods,
        Mnemonic::Scasb | Mnemonic::Scasw | Mnemonic::Scasd | Mnemonic::Scasq => scas,
        Mnemonic::Cmpsb | Mnemonic::Cmpsw | Mnemonic::Cmpsd | Mnemonic::Cmpsq => cmps,
        Mnemonic::Insb | Mnemonic::Insw | Mnemonic::Insd => ins,
        Mnemonic::Outsb | Mnemonic::Outsw | Mnemonic::Outsd => outs,
        _ => return None,
    })
}

/// What one call of an instruction's body has done.
struct Progress {
    /// Finished iterations.
    done: u64,
    /// The condition of REPE or REPNE has ended the repetition.
    stop: bool,
}

const ONE: Progress = Progress { done: 1, stop: false };

/// Executes `body` once, or as often as a REP prefix and rCX say. `body` does at least one and at most as many
/// iterations as it is told, moves rSI and rDI, and on a fault has done none.
fn repeat(
    cpu: &mut Vcpu,
    insn: &Insn,
    body: impl Fn(&mut Vcpu, &Insn, u64) -> Result<Progress, Fault>,
) -> Result<(), Fault> {
    if insn.prefixes & (prefix::REP | prefix::REPNE) == 0 {
        return body(cpu, insn, 1).map(|_| ());
    }
    let rcx = RegFile::slot(RCX);
    let single = cpu.state.has(TF);
    let mut count = cpu.state.regs.get(rcx, insn.addr);
    let mut left = if single { 1 } else { CHUNK };
    // The instruction itself has been paid for.
    let mut paid = 1;
    while count != 0 {
        let most = if single { 1 } else { count };
        let progress = body(cpu, insn, most)?;
        count -= progress.done;
        cpu.state.regs.set(rcx, insn.addr, count);
        let cost = if progress.done == 1 { 1 } else { progress.done * width(insn).bytes() / BULK + 1 };
        cpu.budget = (cpu.budget - (cost - paid) as i64).max(0);
        left = left.saturating_sub(cost);
        paid = 0;
        if count == 0 || progress.stop {
            break;
        }
        if left == 0 || cpu.leave || cpu.budget == 0 {
            cpu.state.system_flags |= RF;
            if single {
                cpu.state.pending_debug |= DR6_BS;
            }
            return Err(Fault::Retry);
        }
    }
    Ok(())
}

/// The size of an element: that of the memory operand.
fn width(insn: &Insn) -> Width {
    Width::from_bytes(usize::from(insn.mem_size()))
}

fn index(cpu: &Vcpu, insn: &Insn, register: u8) -> u64 {
    cpu.state.regs.get(RegFile::slot(register), insn.addr)
}

/// Moves rSI or rDI by `elements`.
fn advance(cpu: &mut Vcpu, insn: &Insn, register: u8, elements: u64) {
    let by = width(insn).bytes() * elements;
    let at = index(cpu, insn, register);
    let next = if cpu.state.has(DF) { at.wrapping_sub(by) } else { at.wrapping_add(by) };
    cpu.state.regs.set(RegFile::slot(register), insn.addr, next & insn.addr.mask());
}

/// The linear address of the current element at rSI or rDI.
fn element(cpu: &mut Vcpu, insn: &Insn, register: u8, access: Access) -> Result<u64, Fault> {
    let seg = if register == RDI { Seg::Es } else { insn.mem.seg };
    let offset = index(cpu, insn, register);
    cpu.seg_linear(seg, offset, width(insn).bytes(), access)
}

/// The linear address of the current element and how many elements, at most `most`, lie ahead of it within its page,
/// the segment's limit and the address size; `None` if that is none or the direction is down.
fn run_ahead(cpu: &mut Vcpu, insn: &Insn, register: u8, most: u64, access: Access) -> Option<(u64, u64)> {
    if cpu.state.has(DF) {
        return None;
    }
    let size = width(insn).bytes();
    let seg = if register == RDI { Seg::Es } else { insn.mem.seg };
    let offset = index(cpu, insn, register);
    let linear = cpu.seg_linear(seg, offset, size, access).ok()?;
    let to_wrap = (insn.addr.mask() - offset).saturating_add(1) / size;
    let in_page = (0x1000 - (linear & 0xfff)) / size;
    let n = most.min(to_wrap).min(in_page);
    let whole = n > 0 && cpu.seg_linear(seg, offset, n * size, access).is_ok();
    whole.then_some((linear, n))
}

fn movs(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    repeat(cpu, insn, |cpu, insn, most| {
        if most > 1
            && let Some(done) = copy_run(cpu, insn, most)
        {
            return Ok(Progress { done, stop: false });
        }
        let from = element(cpu, insn, RSI, Access::Read)?;
        let value = cpu.load_width(from, width(insn))?;
        let to = element(cpu, insn, RDI, Access::Write)?;
        cpu.store_width(to, width(insn), value)?;
        advance(cpu, insn, RSI, 1);
        advance(cpu, insn, RDI, 1);
        Ok(ONE)
    })
}

fn copy_run(cpu: &mut Vcpu, insn: &Insn, most: u64) -> Option<u64> {
    let size = width(insn).bytes();
    let (from, n) = run_ahead(cpu, insn, RSI, most, Access::Read)?;
    let (to, n) = run_ahead(cpu, insn, RDI, n, Access::Write)?;
    if !cpu.copy_ascending(from, to, n * size, size) && !cpu.copy_through_buffer(from, to, n * size, size) {
        return None;
    }
    advance(cpu, insn, RSI, n);
    advance(cpu, insn, RDI, n);
    Some(n)
}

fn stos(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    repeat(cpu, insn, |cpu, insn, most| {
        let value = cpu.state.regs.gpr(RAX);
        if most > 1
            && let Some((to, n)) = run_ahead(cpu, insn, RDI, most, Access::Write)
            && (cpu.fill_ascending(to, value, width(insn), n) || cpu.fill_through_buffer(to, value, width(insn), n))
        {
            advance(cpu, insn, RDI, n);
            return Ok(Progress { done: n, stop: false });
        }
        let to = element(cpu, insn, RDI, Access::Write)?;
        cpu.store_width(to, width(insn), value)?;
        advance(cpu, insn, RDI, 1);
        Ok(ONE)
    })
}

fn lods(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    repeat(cpu, insn, |cpu, insn, _| {
        let from = element(cpu, insn, RSI, Access::Read)?;
        let value = cpu.load_width(from, width(insn))?;
        cpu.state.regs.set(RegFile::slot(RAX), width(insn), value);
        advance(cpu, insn, RSI, 1);
        Ok(ONE)
    })
}

/// Sets the flags of comparing `x` with `y`; whether the prefix ends the repetition there.
fn compare(cpu: &mut Vcpu, insn: &Insn, x: u64, y: u64) -> bool {
    let width = width(insn);
    let (x, y) = (width.sext(x), width.sext(y));
    cpu.state.flags.set(FlagOp::Sub, x, y, width.sext(x.wrapping_sub(y)));
    (x == y) == (insn.prefixes & prefix::REPNE != 0)
}

/// Element `n` of `bytes`.
fn pick(bytes: &[u8], n: usize, size: usize) -> u64 {
    let mut value = [0; 8];
    value[..size].copy_from_slice(&bytes[n * size..(n + 1) * size]);
    u64::from_le_bytes(value)
}

/// What elements are compared with.
enum Other<'a> {
    Value(u64),
    Bytes(&'a [u8]),
}

/// The first element of `bytes` that is, or is not, equal to its counterpart.
fn first(bytes: &[u8], other: Other, size: usize, until_equal: bool) -> Option<usize> {
    match size {
        1 => first_of::<1>(bytes, other, until_equal),
        2 => first_of::<2>(bytes, other, until_equal),
        4 => first_of::<4>(bytes, other, until_equal),
        _ => first_of::<8>(bytes, other, until_equal),
    }
}

fn first_of<const N: usize>(bytes: &[u8], other: Other, until_equal: bool) -> Option<usize> {
    let (elements, _) = bytes.as_chunks::<N>();
    match other {
        Other::Value(value) => {
            let mut wanted = [0; N];
            wanted.copy_from_slice(&value.to_le_bytes()[..N]);
            elements.iter().position(|e| (*e == wanted) == until_equal)
        }
        Other::Bytes(others) => {
            let (others, _) = others.as_chunks::<N>();
            elements.iter().zip(others).position(|(a, b)| (a == b) == until_equal)
        }
    }
}

fn scas(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let size = width(insn).bytes();
    let before = cpu.state.flags;
    let result = repeat(cpu, insn, |cpu, insn, most| {
        let value = cpu.state.regs.gpr(RAX) & width(insn).mask();
        let mut window = [0; WINDOW];
        if most > 1
            && let Some((at, n)) = run_ahead(cpu, insn, RDI, most.min(WINDOW as u64 / size), Access::Read)
            && cpu.copy_out(at, &mut window[..(n * size) as usize])
        {
            let until_equal = insn.prefixes & prefix::REPNE != 0;
            let (n, size) = (n as usize, size as usize);
            let last = first(&window[..n * size], Other::Value(value), size, until_equal).unwrap_or(n - 1);
            let stop = compare(cpu, insn, value, pick(&window, last, size));
            let done = last as u64 + 1;
            advance(cpu, insn, RDI, done);
            return Ok(Progress { done, stop });
        }
        let at = element(cpu, insn, RDI, Access::Read)?;
        let other = cpu.load_width(at, width(insn))?;
        let stop = compare(cpu, insn, value, other);
        advance(cpu, insn, RDI, 1);
        Ok(Progress { done: 1, stop })
    });
    keep_flags_on_fault(cpu, before, result)
}

fn cmps(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let size = width(insn).bytes();
    let before = cpu.state.flags;
    let result = repeat(cpu, insn, |cpu, insn, most| {
        let (mut left, mut right) = ([0; WINDOW], [0; WINDOW]);
        if most > 1
            && let Some((at, n)) = run_ahead(cpu, insn, RSI, most.min(WINDOW as u64 / size), Access::Read)
            && let Some((to, n)) = run_ahead(cpu, insn, RDI, n, Access::Read)
            && cpu.copy_out(to, &mut right[..(n * size) as usize])
            && cpu.copy_out(at, &mut left[..(n * size) as usize])
        {
            let until_equal = insn.prefixes & prefix::REPNE != 0;
            let (n, size) = (n as usize, size as usize);
            let bytes = n * size;
            let last = first(&left[..bytes], Other::Bytes(&right[..bytes]), size, until_equal).unwrap_or(n - 1);
            let stop = compare(cpu, insn, pick(&left, last, size), pick(&right, last, size));
            let done = last as u64 + 1;
            advance(cpu, insn, RSI, done);
            advance(cpu, insn, RDI, done);
            return Ok(Progress { done, stop });
        }
        // Most processors look at the destination first, which shows when both fault.
        let at = element(cpu, insn, RDI, Access::Read)?;
        let y = cpu.load_width(at, width(insn))?;
        let at = element(cpu, insn, RSI, Access::Read)?;
        let x = cpu.load_width(at, width(insn))?;
        let stop = compare(cpu, insn, x, y);
        advance(cpu, insn, RSI, 1);
        advance(cpu, insn, RDI, 1);
        Ok(Progress { done: 1, stop })
    });
    keep_flags_on_fault(cpu, before, result)
}

/// A fault in a repeated comparison restores the flags from before the instruction (SDM Vol. 2B, REP).
fn keep_flags_on_fault(
    cpu: &mut Vcpu,
    before: crate::cpu::rflags::LazyFlags,
    result: Result<(), Fault>,
) -> Result<(), Fault> {
    if matches!(result, Err(fault) if fault != Fault::Retry) {
        cpu.state.flags = before;
    }
    result
}

fn ins(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let port = cpu.state.regs.get16(RegFile::slot(RDX));
    let width = width(insn);
    cpu.check_port(port, width.bytes())?;
    repeat(cpu, insn, |cpu, insn, _| {
        // Reading the port has effects: memory must be known to take the value.
        let to = element(cpu, insn, RDI, Access::Write)?;
        cpu.open(to, width.bytes())?;
        let value = cpu.bus.port_read(port, width as u8, cpu.pending_instructions());
        cpu.store_width(to, width, u64::from(value))?;
        advance(cpu, insn, RDI, 1);
        cpu.after_bus();
        Ok(ONE)
    })
}

fn outs(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let port = cpu.state.regs.get16(RegFile::slot(RDX));
    let width = width(insn);
    cpu.check_port(port, width.bytes())?;
    repeat(cpu, insn, |cpu, insn, _| {
        let from = element(cpu, insn, RSI, Access::Read)?;
        let value = cpu.load_width(from, width)?;
        cpu.bus.port_write(port, width as u8, value as u32, cpu.pending_instructions());
        advance(cpu, insn, RSI, 1);
        cpu.after_bus();
        Ok(ONE)
    })
}
