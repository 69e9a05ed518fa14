//! Decoding of a run of instructions into a [`Block`]: within one page, up to the first transfer of control; or of one that
//! crosses into the next page.

use super::insn::{Insn, Kind, undefined};
use crate::cpu::Width;
use crate::cpu::model::CpuModel;
use crate::debug::trace;
use crate::exec::Vcpu;
use crate::exec::cache::{Block, ModeKey, Patch, Tail, ends_indirectly};
use crate::exec::handlers;
use crate::exec::thread::{Handler, Op};
use crate::mem::Offset;
use crate::ops::fast::jump;
use iced_x86::{Code, ConstantOffsets, Decoder, DecoderError, FlowControl, Instruction, Mnemonic};

/// Instructions that are decoded again in a block that was overwritten; if more have changed, the whole block is.
const REFRESHED: usize = 3;

/// Instructions in a block at most.
const MOST: usize = 64;

/// What besides the bytes decides how a block is decoded.
#[derive(Clone, Copy)]
pub struct Decoding<'a> {
    /// Code size: 16, 32 or 64 bits.
    pub bits: u32,
    /// Mode of the block.
    pub mode: ModeKey,
    /// What the processor can do.
    pub model: &'a CpuModel,
}

impl<'a> Decoding<'a> {
    /// As `cpu` decodes now.
    pub fn of(cpu: &'a Vcpu) -> Decoding<'a> {
        Decoding { bits: cpu.state.code_bits(), mode: cpu.mode, model: &cpu.model }
    }

    fn decoder<'b>(&self, bytes: &'b [u8], ip: u64) -> Decoder<'b> {
        Decoder::with_ip(self.bits, bytes, ip, self.model.decoder_options())
    }
}

/// Decodes a block from `bytes`, which lie at `offset` in RAM and are at least 15 or end where the page does. If the
/// first instruction crosses into the next page, or is longer than 15 bytes, the block has no instructions and executes
/// it by itself; [`decode_crossing`] may know better.
pub fn decode(cx: Decoding, offset: Offset, bytes: &[u8]) -> Box<Block> {
    let insns = decode_run(cx, bytes, MOST);
    let Some(last) = insns.last() else {
        let ops = Box::new([Op::new(handlers::single, 0), Op::new(handlers::fall_through, 0)]);
        return Box::new(Block::new(ops, Box::new([]), offset, &bytes[..bytes.len().min(15)]));
    };
    let len = usize::from(last.block_offset) + usize::from(last.len);
    let ops = threaded(cx, handlers::enter, &insns, len);
    Box::new(Block::new(ops, insns.into(), offset, &bytes[..len]))
}

/// Decodes the block of one instruction from `bytes`, of which the first `first` lie at `offset` in RAM and end where the
/// page does, and the others at `tail`. `None` if there is no such instruction.
pub fn decode_crossing(cx: Decoding, offset: Offset, first: usize, tail: Offset, bytes: &[u8]) -> Option<Box<Block>> {
    let insns = decode_run(cx, bytes, 1);
    let len = usize::from(insns.first().filter(|insn| insn.code != Code::INVALID)?.len);
    let rest = len.checked_sub(first).filter(|rest| *rest != 0)?;
    let ops = threaded(cx, handlers::crossing, &insns, len);
    let mut block = Block::new(ops, insns.into(), offset, &bytes[..len]);
    block.len = first;
    block.tail = Some(Tail { offset: tail, len: rest });
    Some(Box::new(block))
}

/// Decodes at most `most` instructions of a block from `bytes`.
fn decode_run(cx: Decoding, bytes: &[u8], most: usize) -> Vec<Insn> {
    let bits = cx.bits;
    let mut decoder = cx.decoder(bytes, 0);
    let mut insns = Vec::new();
    let mut iced = Instruction::default();
    while insns.len() < most && decoder.can_decode() {
        let start = decoder.position();
        decoder.decode_out(&mut iced);
        if iced.is_invalid() {
            if decoder.last_error() == DecoderError::NoMoreBytes {
                break;
            }
            let mut undefined = invalid(start as u16, bits);
            // All bytes that were looked at: with another one among them it may be an instruction.
            undefined.len = (decoder.position() - start).clamp(1, 15) as u8;
            insns.push(undefined);
            break;
        }
        let mut insn = Insn::new(&iced, 0, bits);
        insn.note_x87_opcode(&bytes[start..]);
        insns.push(admit(cx.model, insn, &iced));
        if iced.flow_control() != FlowControl::Next {
            break;
        }
    }
    let count = insns.len();
    for (n, insn) in insns.iter_mut().enumerate() {
        insn.after = (count - 1 - n) as u16;
    }
    insns
}

/// The ops of a block of `insns`, which are `len` bytes long, behind the entry.
fn threaded(cx: Decoding, entry: Handler, insns: &[Insn], len: usize) -> Box<[Op]> {
    let count = insns.len();
    let mut ops = vec![Op::new(entry, 0)];
    ops[0].imm = count as i32;
    ops.extend((0..count).map(|n| handlers::specialise(cx.mode, insns, n)));
    // Whatever the last instruction is, the op behind it leaves: `OpRef::next` relies on it.
    let leave = jump::pick_fall_through(cx.mode).unwrap_or(handlers::fall_through);
    let mut last = Op::new(leave, (count - 1) as u16);
    last.imm = len as i32;
    ops.push(last);
    ops.into()
}

/// Makes a stale block what `bytes` at its place say now, if its instructions still begin where they did: only those that
/// have changed are decoded, and all links are kept. `false` leaves it unfinished, to be decoded anew.
pub fn refresh(cx: Decoding, block: &mut Block, bytes: &[u8]) -> bool {
    let Some(now) = bytes.get(..block.len).filter(|_| !block.insns.is_empty() && block.tail.is_none()) else {
        return false;
    };
    if patch(block, now) {
        block.ops[0].handler.set(handlers::enter);
        return true;
    }
    let changed = |insn: &Insn| block.bytes[insn.range()] != now[insn.range()];
    // Another program in the same page is not worth a comparison of instructions.
    if block.insns.iter().filter(|insn| changed(insn)).take(REFRESHED + 1).count() > REFRESHED {
        return false;
    }
    let count = block.insns.len();
    for n in 0..count {
        let before = &block.insns[n];
        let range = before.range();
        let start = range.start;
        if block.bytes[range.clone()] == now[range.clone()] {
            continue;
        }
        let mut decoder = cx.decoder(&bytes[start..], start as u64);
        let iced = decoder.decode();
        let leaves = iced.flow_control() != FlowControl::Next;
        if iced.is_invalid() || iced.len() != range.len() || (leaves && n + 1 < count) {
            return false;
        }
        let mut insn = Insn::new(&iced, 0, cx.bits);
        insn.note_x87_opcode(&bytes[start..]);
        insn.after = before.after;
        let jumps = [before.code, insn.code].iter().any(|code| code.flow_control() == FlowControl::ConditionalBranch);
        block.insns[n] = admit(cx.model, insn, &iced);
        block.indirect = ends_indirectly(&block.insns);
        block.bytes[range.clone()].copy_from_slice(&now[range]);
        block.ops[n + 1] = handlers::specialise(cx.mode, &block.insns, n);
        block.patch = immediate(n, start, &iced, &decoder.get_constant_offsets(&iced));
        // The instruction before may be, or have been, fused with this one.
        if jumps && n > 0 {
            block.ops[n] = handlers::specialise(cx.mode, &block.insns, n - 1);
        }
    }
    block.ops[0].handler.set(handlers::enter);
    true
}

/// Puts the new value of the immediate that was overwritten last into its instruction, if nothing else has changed.
fn patch(block: &mut Block, now: &[u8]) -> bool {
    let Some(Patch { insn, at, width }) = block.patch else { return false };
    let (n, at) = (usize::from(insn), usize::from(at));
    let end = at + width.bytes() as usize;
    if block.bytes[..at] != now[..at] || block.bytes[end..] != now[end..] {
        return false;
    }
    block.bytes[at..end].copy_from_slice(&now[at..end]);
    let mut value = [0; 8];
    value[..end - at].copy_from_slice(&now[at..end]);
    let value = width.sext(u64::from_le_bytes(value));
    block.insns[n].imm = value;
    block.ops[n + 1].imm = value as i32;
    true
}

/// The immediate of instruction `n`, which begins at `start`, if it is a plain operand that every handler of the
/// instruction takes from [`Insn::imm`] or [`Op::imm`] as it is.
fn immediate(n: usize, start: usize, iced: &Instruction, offsets: &ConstantOffsets) -> Option<Patch> {
    use Mnemonic::{Adc, Add, And, Cmp, Mov, Or, Sbb, Sub, Test, Xor};
    let width = match offsets.immediate_size() {
        1 => Width::B1,
        2 => Width::B2,
        4 => Width::B4,
        _ => return None,
    };
    matches!(iced.mnemonic(), Adc | Add | And | Cmp | Mov | Or | Sbb | Sub | Test | Xor).then(|| Patch {
        insn: n as u16,
        at: (start + offsets.immediate_offset()) as u16,
        width,
    })
}

/// `insn`, or #UD in its place if the model lacks it or its LOCK prefix is not allowed.
pub fn admit(model: &CpuModel, mut insn: Insn, iced: &Instruction) -> Insn {
    let known = iced.cpuid_features().iter().all(|f| model.has(*f));
    let lock_ok =
        !iced.has_lock_prefix() || (insn.code.op_code().can_use_lock_prefix() && insn.ops[0].kind == Kind::Mem);
    if !known || !lock_ok {
        insn.exec = undefined;
    } else if insn.is_undefined() && !is_defined_to_fault(iced) {
        trace::unimplemented(iced);
    }
    insn
}

/// UD0, UD1 and UD2 raise #UD by definition.
fn is_defined_to_fault(iced: &Instruction) -> bool {
    matches!(iced.mnemonic(), Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2)
}

/// The instruction that stands for undecodable bytes at `block_offset`.
pub fn invalid(block_offset: u16, bits: u32) -> Insn {
    let mut insn = Insn::new(&Instruction::default(), 0, bits);
    insn.code = Code::INVALID;
    insn.exec = undefined;
    insn.block_offset = block_offset;
    insn.len = 1;
    insn
}
