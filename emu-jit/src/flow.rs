//! What the blocks of a region need of each other: who leads where, which registers are used and written, and where the
//! flags have to be in the vCPU.

use emu_core::cpu::Width;
use emu_core::decode::insn::{Insn, Kind};
use emu_core::exec::cache::ModeKey;
use emu_core::exec::region::{Source, SourceBlock};
use emu_core::ops::fast::stack_matches;
use iced_x86::{
    Decoder, DecoderOptions, FlowControl, InstructionInfoFactory, InstructionInfoOptions, Mnemonic, OpAccess,
    RflagsBits,
};

/// General or XMM registers, a bit each.
pub type Registers = u16;

/// What is known of an instruction besides its [`Insn`].
#[derive(Clone, Copy, Default)]
pub struct Facts {
    /// General registers that it may write.
    pub writes: Registers,
    /// General registers that it may read or write.
    pub uses: Registers,
    /// XMM registers that it may write.
    pub vector_writes: Registers,
    /// XMM registers that it may read or write.
    pub vector_uses: Registers,
    /// All arithmetic flags are defined by it alone, whatever they were.
    pub sets_flags: bool,
    /// It may leave the region, or reads a flag.
    pub needs_flags: bool,
}

/// What is known of a block.
#[derive(Default)]
pub struct BlockFacts {
    /// Of each instruction.
    pub insns: Vec<Facts>,
    /// Blocks of the region that it leads to.
    pub successors: Vec<usize>,
    /// Blocks of the region that lead to it; the way into the region counts too.
    pub predecessors: usize,
    /// The flags have to be in the vCPU when it begins, unless the translation still knows them.
    pub flags_in: bool,
}

/// What is known of a region.
pub struct Flow {
    /// Of each block.
    pub blocks: Vec<BlockFacts>,
    /// Registers that any block uses.
    pub uses: Registers,
    /// XMM registers that any block uses.
    pub vector_uses: Registers,
    /// Something in it computes by the host's FPU.
    pub computes: bool,
    /// Something in it is executed by the host's x87 unit.
    pub uses_x87: bool,
    /// Blocks behind calls that the region follows: where its returns probably lead.
    pub return_sites: Vec<usize>,
}

/// The arithmetic flags.
const FLAGS: u32 = RflagsBits::OF | RflagsBits::SF | RflagsBits::ZF | RflagsBits::AF | RflagsBits::CF | RflagsBits::PF;

/// The distance from the region's start to the target of a near branch at the end of `block`.
pub fn target(block: &SourceBlock, last: &Insn) -> i64 {
    next(block, last).wrapping_add(last.imm as i64)
}

/// The distance from the region's start to the instruction behind `last`.
pub fn next(block: &SourceBlock, last: &Insn) -> i64 {
    block.delta + last.range().end as i64
}

/// Whether `insn` is a relative branch with an operand of the size of the code.
pub fn is_near(insn: &Insn) -> bool {
    insn.ops[0].kind == Kind::Near && insn.ops[0].size == insn.code_bits / 8
}

/// A return with the size of the code.
pub fn is_return(insn: &Insn) -> bool {
    use iced_x86::Code::{Retnd, Retnd_imm16, Retnq, Retnq_imm16};
    match insn.code {
        Retnq | Retnq_imm16 => insn.code_bits == 64,
        Retnd | Retnd_imm16 => insn.code_bits == 32,
        _ => false,
    }
}

fn facts(info: &mut InstructionInfoFactory, key: ModeKey, insn: &Insn, bytes: &[u8]) -> Facts {
    let mut decoder = Decoder::new(u32::from(insn.code_bits), bytes, DecoderOptions::NONE);
    let iced = decoder.decode();
    let mut facts = Facts::default();
    for used in info.info_options(&iced, InstructionInfoOptions::NO_MEMORY_USAGE).used_registers() {
        let register = used.register();
        let (uses, writes) = if register.is_gpr() {
            (&mut facts.uses, &mut facts.writes)
        } else if register.is_xmm() {
            (&mut facts.vector_uses, &mut facts.vector_writes)
        } else {
            continue;
        };
        let bit = 1 << (register.full_register().number() & 15);
        *uses |= bit;
        if !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess | OpAccess::None) {
            *writes |= bit;
        }
    }
    // These are not said to use the registers that they load.
    if matches!(
        iced.mnemonic(),
        Mnemonic::Fxrstor
            | Mnemonic::Fxrstor64
            | Mnemonic::Xrstor
            | Mnemonic::Xrstor64
            | Mnemonic::Xrstors
            | Mnemonic::Xrstors64
    ) {
        facts.vector_writes = Registers::MAX;
    }
    // A count in a register may be zero, which changes no flag.
    let by_count = matches!(
        iced.mnemonic(),
        Mnemonic::Shl | Mnemonic::Sal | Mnemonic::Shr | Mnemonic::Sar | Mnemonic::Shld | Mnemonic::Shrd
    ) && (insn.ops[1].kind == Kind::Gpr
        || insn.ops[2].kind == Kind::Gpr
        || insn.imm & (if insn.width == Width::B8 { 0x3f } else { 0x1f }) == 0);
    // Manuals call these flags undefined; here they stay as they were.
    let keeps = matches!(iced.mnemonic(), Mnemonic::Div | Mnemonic::Idiv | Mnemonic::Tzcnt | Mnemonic::Lzcnt);
    facts.sets_flags = !by_count && !keeps && iced.rflags_modified() & FLAGS == FLAGS;
    let touches_memory = insn.ops.iter().any(|operand| operand.kind == Kind::Mem) && iced.mnemonic() != Mnemonic::Lea;
    let partly = iced.rflags_modified() & FLAGS != 0 && !facts.sets_flags;
    // These may be left to the interpreter.
    let privileged = matches!(iced.mnemonic(), Mnemonic::Cli | Mnemonic::Sti | Mnemonic::Stac | Mnemonic::Clac);
    facts.needs_flags = touches_memory
        || partly
        || privileged
        || iced.rflags_read() & FLAGS != 0
        || iced.stack_pointer_increment() != 0
        || crate::lower::is_foreign(key, insn);
    facts
}

/// Looks at `source`.
pub fn analyse(source: &Source) -> Flow {
    let mut info = InstructionInfoFactory::new();
    let place = |delta: i64| source.blocks.iter().position(|block| block.delta == delta);
    let mut blocks = Vec::new();
    let mut return_sites = Vec::new();
    for block in &source.blocks {
        let insns =
            block.insns.iter().map(|insn| facts(&mut info, source.mode, insn, &block.bytes[insn.range()])).collect();
        blocks.push(BlockFacts { insns, ..BlockFacts::default() });
        let Some(last) = block.insns.last() else { continue };
        let followed = match last.code.flow_control() {
            FlowControl::Call => is_near(last) && place(target(block, last)).is_some(),
            FlowControl::IndirectCall => block.targets.iter().any(|target| place(*target).is_some()),
            _ => false,
        };
        if followed {
            return_sites.extend(place(next(block, last)));
        }
    }
    return_sites.sort_unstable();
    return_sites.dedup();
    for (n, block) in source.blocks.iter().enumerate() {
        let Some(last) = block.insns.last() else { continue };
        let matches = stack_matches(source.mode);
        let mut to = Vec::new();
        match last.code.flow_control() {
            FlowControl::Next => to.extend(place(next(block, last))),
            FlowControl::ConditionalBranch if is_near(last) && !crate::lower::is_foreign(source.mode, last) => {
                to.extend(place(target(block, last)));
                to.extend(place(next(block, last)));
            }
            FlowControl::UnconditionalBranch if is_near(last) => to.extend(place(target(block, last))),
            FlowControl::Call if is_near(last) && matches => to.extend(place(target(block, last))),
            FlowControl::Return if is_return(last) && matches => to.extend(&return_sites),
            FlowControl::IndirectBranch | FlowControl::IndirectCall if !crate::lower::is_foreign(source.mode, last) => {
                to.extend(block.targets.iter().filter_map(|target| place(*target)));
            }
            _ => {}
        }
        blocks[n].successors = to;
    }
    blocks[0].predecessors = 1;
    for n in 0..blocks.len() {
        for to in blocks[n].successors.clone() {
            blocks[to].predecessors += 1;
        }
    }
    let all = |of: fn(&Facts) -> Registers| {
        blocks.iter().flat_map(|block| &block.insns).fold(0, |all, facts| all | of(facts))
    };
    let (uses, vector_uses) = (all(|facts| facts.uses), all(|facts| facts.vector_uses));
    for block in &mut blocks {
        let decisive = block.insns.iter().find(|facts| facts.needs_flags || facts.sets_flags);
        // A block that neither needs nor sets them hands them on; and where that leaves the region, all has to be right.
        block.flags_in = decisive.is_none_or(|facts| facts.needs_flags);
    }
    let any = |of: fn(ModeKey, &Insn) -> bool| {
        source.blocks.iter().flat_map(|block| &block.insns).any(|insn| of(source.mode, insn))
    };
    let (computes, uses_x87) = (any(crate::lower::sse::computes), any(crate::lower::x87::translates));
    Flow { blocks, uses, vector_uses, computes, uses_x87, return_sites }
}
