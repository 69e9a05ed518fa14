//! Decoding of a run of instructions into a [`Block`]: within one page, up to the first transfer of control.

use super::insn::{Insn, Kind, undefined};
use crate::debug::trace;
use crate::exec::Vcpu;
use crate::exec::cache::Block;
use crate::exec::handlers;
use crate::exec::thread::Op;
use crate::mem::Offset;
use crate::ops::Exec;
use crate::ops::fast::jump;
use iced_x86::{Code, Decoder, DecoderError, FlowControl, Instruction, Mnemonic};

/// Instructions in a block at most.
const MOST: usize = 64;

/// Decodes a block from `bytes`, which lie at `offset` in RAM and are at least 15 or end where the page does. If the
/// first instruction crosses into the next page, or is longer than 15 bytes, the block has no instructions and executes
/// it by itself.
pub fn decode(cpu: &Vcpu, offset: Offset, bytes: &[u8]) -> Box<Block> {
    let bits = cpu.state.code_bits();
    let mut decoder = Decoder::with_ip(bits, bytes, 0, cpu.model.decoder_options());
    let mut insns = Vec::new();
    let mut iced = Instruction::default();
    while insns.len() < MOST && decoder.can_decode() {
        let start = decoder.position();
        decoder.decode_out(&mut iced);
        if iced.is_invalid() {
            if decoder.last_error() == DecoderError::NoMoreBytes {
                break;
            }
            insns.push(invalid(start as u16, bits));
            break;
        }
        let mut insn = Insn::new(&iced, 0, bits);
        insn.note_x87_opcode(&bytes[start..]);
        insns.push(admit(cpu, insn, &iced));
        if iced.flow_control() != FlowControl::Next {
            break;
        }
    }
    let count = insns.len();
    for (n, insn) in insns.iter_mut().enumerate() {
        insn.after = (count - 1 - n) as u16;
    }
    let Some(last) = insns.last() else {
        let ops = Box::new([Op::new(handlers::single, 0), Op::new(handlers::fall_through, 0)]);
        return Box::new(Block::new(ops, Box::new([]), offset, &bytes[..bytes.len().min(15)]));
    };
    let len = usize::from(last.block_offset) + usize::from(last.len);
    let mut ops = vec![Op::new(handlers::enter, 0)];
    ops[0].imm = count as i32;
    ops.extend((0..count).map(|n| handlers::specialise(cpu, &insns, n)));
    // Whatever the last instruction is, the op behind it leaves: `OpRef::next` relies on it.
    let leave = jump::pick_fall_through(cpu.mode).unwrap_or(handlers::fall_through);
    let mut last = Op::new(leave, (count - 1) as u16);
    last.imm = len as i32;
    ops.push(last);
    Box::new(Block::new(ops.into(), insns.into(), offset, &bytes[..len]))
}

/// Makes a stale block what `bytes` at its place say now, if its instructions still begin where they did: only those that
/// have changed are decoded, and all links are kept. `false` leaves it unfinished, to be decoded anew.
pub fn refresh(cpu: &Vcpu, block: &mut Block, bytes: &[u8]) -> bool {
    let Some(now) = bytes.get(..block.len).filter(|_| !block.insns.is_empty()) else { return false };
    let bits = cpu.state.code_bits();
    let count = block.insns.len();
    for n in 0..count {
        let Insn { block_offset, len, after, .. } = block.insns[n];
        let start = usize::from(block_offset);
        let range = start..start + usize::from(len);
        if block.bytes[range.clone()] == now[range.clone()] {
            continue;
        }
        let mut decoder = Decoder::with_ip(bits, &bytes[start..], start as u64, cpu.model.decoder_options());
        let iced = decoder.decode();
        let leaves = iced.flow_control() != FlowControl::Next;
        if iced.is_invalid() || iced.len() != usize::from(len) || (leaves && n + 1 < count) {
            return false;
        }
        let mut insn = Insn::new(&iced, 0, bits);
        insn.note_x87_opcode(&bytes[start..]);
        insn.after = after;
        block.insns[n] = admit(cpu, insn, &iced);
        block.bytes[range.clone()].copy_from_slice(&now[range]);
        // The instruction before may be, or have been, fused with this one.
        for n in n.saturating_sub(1)..=n {
            block.ops[n + 1] = handlers::specialise(cpu, &block.insns, n);
        }
    }
    block.ops[0].handler.set(handlers::enter);
    true
}

/// `insn`, or #UD in its place if the model lacks it or its LOCK prefix is not allowed.
pub fn admit(cpu: &Vcpu, mut insn: Insn, iced: &Instruction) -> Insn {
    let known = iced.cpuid_features().iter().all(|f| cpu.model.has(*f));
    let lock_ok =
        !iced.has_lock_prefix() || (insn.code.op_code().can_use_lock_prefix() && insn.ops[0].kind == Kind::Mem);
    if !known || !lock_ok {
        insn.exec = undefined;
    } else if std::ptr::fn_addr_eq(insn.exec, undefined as Exec) && !is_defined_to_fault(iced) {
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
