//! What the blocks of a region need of each other: who leads where, which registers are used and written, and where the
//! flags have to be in the vCPU.

use emu_core::cpu::Width;
use emu_core::cpu::regs::RSP;
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
    /// The number of the smallest loop that it is part of.
    pub innermost: Option<usize>,
}

/// A loop.
pub struct Loop {
    /// Its blocks.
    pub blocks: Vec<usize>,
    /// General registers that it writes.
    pub writes: Registers,
    /// Those of them that do not only move by small constants.
    pub jumps: Registers,
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
    /// Its loops.
    pub loops: Vec<Loop>,
}

impl Flow {
    /// The smallest loop that block `n` is part of.
    pub fn innermost(&self, n: usize) -> Option<&Loop> {
        self.blocks[n].innermost.map(|number| &self.loops[number])
    }
}

/// A register that moves by no more than so much in an instruction walks through memory.
const STEP: i64 = 64;

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

/// Of the general registers `writes`, which `insn` writes, those that it does more to than to add a small constant.
fn jumps(insn: &Insn, writes: Registers) -> Registers {
    use Mnemonic as M;
    let own = match insn.ops[0].kind {
        Kind::Gpr if insn.width >= Width::B4 => 1 << (insn.ops[0].reg >> 3 & 15),
        _ => 0,
    };
    let small = (insn.imm as i64).unsigned_abs() <= STEP as u64;
    let steps = match insn.code.mnemonic() {
        M::Add | M::Sub if insn.ops[1].kind == Kind::Imm && small => own,
        M::Inc | M::Dec => own,
        M::Push | M::Call | M::Ret | M::Pop => 1 << RSP & !if insn.code.mnemonic() == M::Pop { own } else { 0 },
        _ => 0,
    };
    writes & !steps
}

/// The loops of `blocks`: of each edge back to a block that the way from the entry has passed, the blocks on ways to it from
/// there. The number of the smallest goes to each block.
fn find_loops(source: &Source, blocks: &mut [BlockFacts]) -> Vec<Loop> {
    let mut before = vec![Vec::new(); blocks.len()];
    for (n, block) in blocks.iter().enumerate() {
        for to in &block.successors {
            before[*to].push(n);
        }
    }
    // Depth first: blocks on the way here, with the number of their next successor.
    let mut back = Vec::new();
    let mut seen = vec![false; blocks.len()];
    let mut way = vec![(0, 0)];
    seen[0] = true;
    while let Some((n, next)) = way.last_mut() {
        let Some(to) = blocks[*n].successors.get(*next).copied() else {
            way.pop();
            continue;
        };
        *next += 1;
        if way.iter().any(|(passed, _)| *passed == to) {
            let from = way.last().map_or(0, |(n, _)| *n);
            back.push((from, to));
        } else if !std::mem::replace(&mut seen[to], true) {
            way.push((to, 0));
        }
    }
    let mut loops = Vec::new();
    for (from, head) in back {
        let mut members = vec![head];
        let mut queue = vec![from];
        while let Some(n) = queue.pop() {
            if !members.contains(&n) {
                members.push(n);
                queue.extend(&before[n]);
            }
        }
        let (mut writes, mut jumping) = (0, 0);
        for n in &members {
            for (insn, facts) in source.blocks[*n].insns.iter().zip(&blocks[*n].insns) {
                writes |= facts.writes;
                jumping |= jumps(insn, facts.writes);
            }
        }
        loops.push(Loop { blocks: members, writes, jumps: jumping });
    }
    loops.sort_by_key(|found| found.blocks.len());
    for (number, found) in loops.iter().enumerate() {
        for n in &found.blocks {
            blocks[*n].innermost.get_or_insert(number);
        }
    }
    loops
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
    let loops = find_loops(source, &mut blocks);
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
    Flow { blocks, uses, vector_uses, computes, uses_x87, return_sites, loops }
}
