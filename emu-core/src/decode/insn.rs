//! One decoded instruction, in the form that instruction functions read.
//!
//! iced-x86 decodes; this module only repacks its answer so that registers are [`Slot`]s, sizes are at hand, and the
//! function that executes the instruction is found. Facts about instructions (flow control, flags, features) are not
//! repeated here: ask iced-x86 by [`Insn::code`].

use crate::cpu::Width;
use crate::cpu::regs::{BLOCK_RIP, RegFile, Slot, ZERO};
use crate::cpu::segment::Seg;
use crate::exec::Vcpu;
use crate::ops::Exec;
use crate::{cpu::fault::Fault, ops::table};
use iced_x86::{Code, Instruction, MemorySize, OpKind, Register};

/// The kinds of operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// No operand.
    None,
    /// A general register; `reg` is its [`Slot`] (AH..BH included).
    Gpr,
    /// Memory, described by [`Insn::mem`].
    Mem,
    /// [`Insn::imm`], sign-extended.
    Imm,
    /// [`Insn::imm2`].
    Imm2,
    /// An XMM register; `reg` is its number.
    Xmm,
    /// An MMX register; `reg` is its number.
    Mmx,
    /// An x87 stack register; `reg` is its number relative to TOP.
    St,
    /// A segment register; `reg` is its number.
    Seg,
    /// A control register; `reg` is its number.
    Cr,
    /// A debug register; `reg` is its number.
    Dr,
    /// A relative branch target; [`Insn::imm`] is the distance from the next instruction.
    Near,
    /// A far pointer: [`Insn::imm`] is the offset, [`Insn::imm2`] the selector.
    Far,
}

/// An explicit operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// What it is.
    pub kind: Kind,
    /// Which register, by kind.
    pub reg: u8,
    /// Its size in bytes.
    pub size: u8,
}

/// A memory operand: `seg:[base + (index << shift) + disp]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mem {
    /// Slot of the base ([`ZERO`] if absent, [`BLOCK_RIP`] if RIP-relative, where `disp` is from the block's start).
    pub base: Slot,
    /// Slot of the index, [`ZERO`] if absent.
    pub index: Slot,
    /// log2 of the scale.
    pub shift: u8,
    /// The segment, with overrides applied.
    pub seg: Seg,
    /// Displacement, sign-extended; for moffs the whole address.
    pub disp: i64,
}

/// Prefix bits of [`Insn::prefixes`].
pub mod prefix {
    /// LOCK.
    pub const LOCK: u8 = 1;
    /// REP, REPE, XRELEASE.
    pub const REP: u8 = 2;
    /// REPNE, XACQUIRE.
    pub const REPNE: u8 = 4;
}

/// One decoded instruction.
#[derive(Clone, Copy)]
pub struct Insn {
    /// The function that executes it.
    pub exec: Exec,
    /// Immediate, sign-extended to 64 bits; branch distance; far offset.
    pub imm: u64,
    /// The memory operand, if any operand is [`Kind::Mem`] (string instructions: of the DS:rSI side).
    pub mem: Mem,
    /// Explicit operands in Intel order.
    pub ops: [Operand; 4],
    /// iced-x86's code.
    pub code: Code,
    /// Second immediate: ENTER's level, EXTRQ's, a far selector.
    pub imm2: u16,
    /// Offset of the first byte from the start of the block.
    pub block_offset: u16,
    /// Instructions of the block that follow this one.
    pub after: u16,
    /// Length in bytes, 1 to 15.
    pub len: u8,
    /// Size of the operation: that of the first operand, or of the implied one.
    pub width: Width,
    /// Size of addresses: 2, 4 or 8.
    pub addr: Width,
    /// See [`prefix`].
    pub prefixes: u8,
    /// Whether the address size is that of the mode's code: 16, 32 or 64 bits.
    pub code_bits: u8,
}

impl Insn {
    /// Repacks `i`. `block_ip` is the address given to the decoder for the first byte of the block.
    pub fn new(i: &Instruction, block_ip: u64, code_bits: u32) -> Insn {
        let row = table::row(i);
        let block_offset = i.ip().wrapping_sub(block_ip) as u16;
        let mut insn = Insn {
            exec: row.exec,
            imm: 0,
            mem: Mem { base: ZERO, index: ZERO, shift: 0, seg: Seg::Ds, disp: 0 },
            ops: [Operand { kind: Kind::None, reg: 0, size: 0 }; 4],
            code: i.code(),
            imm2: 0,
            block_offset,
            after: 0,
            len: i.len() as u8,
            width: Width::B4,
            addr: Width::from_bytes(code_bits as usize / 8),
            prefixes: 0,
            code_bits: code_bits as u8,
        };
        if i.has_lock_prefix() {
            insn.prefixes |= prefix::LOCK;
        }
        if i.has_rep_prefix() {
            insn.prefixes |= prefix::REP;
        }
        if i.has_repne_prefix() {
            insn.prefixes |= prefix::REPNE;
        }
        for n in 0..i.op_count().min(4) {
            insn.ops[n as usize] = insn.operand(i, n, block_ip);
        }
        insn.width = Width::from_bytes(usize::from(insn.operation_size(i)));
        insn
    }

    fn operand(&mut self, i: &Instruction, n: u32, block_ip: u64) -> Operand {
        let none = Operand { kind: Kind::None, reg: 0, size: 0 };
        match i.op_kind(n) {
            OpKind::Register => register(i.op_register(n)),
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                let size = match i.op_kind(n) {
                    OpKind::NearBranch16 => 2,
                    OpKind::NearBranch32 => 4,
                    _ => 8,
                };
                let distance = i.near_branch_target().wrapping_sub(i.next_ip());
                self.imm = Width::from_bytes(size as usize).sext(distance);
                Operand { kind: Kind::Near, reg: 0, size }
            }
            OpKind::FarBranch16 | OpKind::FarBranch32 => {
                let wide = i.op_kind(n) == OpKind::FarBranch32;
                self.imm = u64::from(if wide { i.far_branch32() } else { u32::from(i.far_branch16()) });
                self.imm2 = i.far_branch_selector();
                Operand { kind: Kind::Far, reg: 0, size: if wide { 4 } else { 2 } }
            }
            OpKind::Immediate8_2nd => {
                self.imm2 = u16::from(i.immediate8_2nd());
                Operand { kind: Kind::Imm2, reg: 0, size: 1 }
            }
            OpKind::Immediate8 => self.immediate(i.immediate8() as i8 as u64, 1),
            OpKind::Immediate16 => self.immediate(i.immediate16() as i16 as u64, 2),
            OpKind::Immediate32 => self.immediate(i.immediate32() as i32 as u64, 4),
            OpKind::Immediate64 => self.immediate(i.immediate64(), 8),
            OpKind::Immediate8to16 | OpKind::Immediate8to32 | OpKind::Immediate8to64 | OpKind::Immediate32to64 => {
                self.immediate(i.immediate(n), 8)
            }
            OpKind::Memory => self.memory(i, block_ip),
            // String instructions: the source side carries the segment; the destination is ES:rDI always.
            kind => match kind {
                OpKind::MemorySegSI | OpKind::MemorySegDI => self.string(i, Width::B2),
                OpKind::MemorySegESI | OpKind::MemorySegEDI => self.string(i, Width::B4),
                OpKind::MemorySegRSI | OpKind::MemorySegRDI => self.string(i, Width::B8),
                OpKind::MemoryESDI => self.string_destination(i, Width::B2),
                OpKind::MemoryESEDI => self.string_destination(i, Width::B4),
                OpKind::MemoryESRDI => self.string_destination(i, Width::B8),
                _ => none,
            },
        }
    }

    fn immediate(&mut self, value: u64, size: u8) -> Operand {
        self.imm = value;
        Operand { kind: Kind::Imm, reg: 0, size }
    }

    fn memory(&mut self, i: &Instruction, block_ip: u64) -> Operand {
        let base = i.memory_base();
        self.mem = Mem {
            base: slot(base),
            index: slot(i.memory_index()),
            shift: i.memory_index_scale().trailing_zeros() as u8,
            seg: segment(i.memory_segment()),
            disp: i.memory_displacement64() as i64,
        };
        // iced-x86 has added the address of the next instruction to a RIP-relative displacement.
        if base == Register::RIP || base == Register::EIP {
            self.mem.disp = (i.memory_displacement64().wrapping_sub(block_ip)) as i64;
        } else if i.memory_displ_size() != 8 && self.code_bits != 64 {
            self.mem.disp = i.memory_displacement32() as i32 as i64;
        }
        self.addr = address_size(i, self.code_bits);
        Operand { kind: Kind::Mem, reg: 0, size: memory_size(i) }
    }

    fn string(&mut self, i: &Instruction, addr: Width) -> Operand {
        self.addr = addr;
        self.mem.seg = segment(i.memory_segment());
        Operand { kind: Kind::Mem, reg: 0, size: memory_size(i) }
    }

    fn string_destination(&mut self, i: &Instruction, addr: Width) -> Operand {
        self.addr = addr;
        Operand { kind: Kind::Mem, reg: 1, size: memory_size(i) }
    }

    /// Bytes of the operation: those of the first operand, unless that is none of a value's.
    fn operation_size(&self, i: &Instruction) -> u8 {
        use iced_x86::Mnemonic as M;
        match i.mnemonic() {
            // Their only operand tells less than the operand-size prefix, which iced-x86 folds into the stack's change.
            M::Push
            | M::Pushf
            | M::Pushfd
            | M::Pushfq
            | M::Pusha
            | M::Pushad
            | M::Popa
            | M::Popad
            | M::Enter
            | M::Leave => {
                let change = i.stack_pointer_increment().unsigned_abs() as u8;
                match i.mnemonic() {
                    M::Pusha | M::Popa => 2,
                    M::Pushad | M::Popad => 4,
                    M::Enter | M::Leave => {
                        use Code::*;
                        match i.code() {
                            Enterw_imm16_imm8 | Leavew => 2,
                            Enterd_imm16_imm8 | Leaved => 4,
                            _ => 8,
                        }
                    }
                    _ => change,
                }
            }
            M::Pop if self.ops[0].kind == Kind::Seg => i.stack_pointer_increment().unsigned_abs() as u8,
            _ => match self.ops[0].kind {
                Kind::None => i.stack_pointer_increment().unsigned_abs().clamp(0, 8) as u8,
                _ => self.ops[0].size,
            },
        }
    }

    /// Keeps the 11-bit opcode of an x87 instruction (for FOP) in `imm2`, which no such instruction uses. `bytes` begin
    /// with the instruction.
    pub fn note_x87_opcode(&mut self, bytes: &[u8]) {
        let is_prefix =
            |byte: &u8| matches!(byte, 0x26 | 0x2E | 0x36 | 0x3E | 0x40..=0x4F | 0x64..=0x67 | 0xF0 | 0xF2 | 0xF3);
        let mut opcode = bytes.iter().skip_while(|byte| is_prefix(byte));
        if let (Some(escape @ 0xD8..=0xDF), Some(modrm)) = (opcode.next(), opcode.next()) {
            self.imm2 = u16::from(escape & 7) << 8 | u16::from(*modrm);
        }
    }

    /// Where its bytes are in its block.
    pub fn range(&self) -> std::ops::Range<usize> {
        let start = usize::from(self.block_offset);
        start..start + usize::from(self.len)
    }

    /// The size of operand `n`: that of the operation where memory has none of its own.
    pub fn operand_width(&self, n: usize) -> Width {
        let operand = &self.ops[n & 3];
        match operand.kind {
            Kind::Mem if operand.size == 0 => self.width,
            _ => Width::from_bytes(usize::from(operand.size)),
        }
    }

    /// The bytes of the memory operand.
    pub fn mem_size(&self) -> u8 {
        self.ops.iter().find(|o| o.kind == Kind::Mem).map_or(0, |o| o.size)
    }

    /// It raises #UD: there is no such instruction, or not on this model.
    pub fn is_undefined(&self) -> bool {
        std::ptr::fn_addr_eq(self.exec, undefined as Exec)
    }

    /// Has a LOCK prefix.
    #[inline(always)]
    pub fn locked(&self) -> bool {
        self.prefixes & prefix::LOCK != 0
    }
}

/// The function of instructions that do not exist, or not on this model.
pub fn undefined(_: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    Err(Fault::ud())
}

fn memory_size(i: &Instruction) -> u8 {
    match i.memory_size() {
        // LEA and the like: the size of the register counts.
        MemorySize::Unknown => 0,
        size => size.size().min(255) as u8,
    }
}

fn address_size(i: &Instruction, code_bits: u8) -> Width {
    let by_register = |r: Register| match r.size() {
        2 => Some(Width::B2),
        4 => Some(Width::B4),
        8 => Some(Width::B8),
        _ => None,
    };
    let from = |r: Register| if r == Register::None { None } else { by_register(r) };
    from(i.memory_base()).or_else(|| from(i.memory_index())).unwrap_or_else(|| match i.memory_displ_size() {
        2 => Width::B2,
        4 => Width::B4,
        8 => Width::B8,
        _ => Width::from_bytes(usize::from(code_bits) / 8),
    })
}

/// The segment register that `r` is; DS for none.
pub fn segment(r: Register) -> Seg {
    match r {
        Register::ES => Seg::Es,
        Register::CS => Seg::Cs,
        Register::SS => Seg::Ss,
        Register::FS => Seg::Fs,
        Register::GS => Seg::Gs,
        _ => Seg::Ds,
    }
}

/// The slot of a general register of any size; [`ZERO`] for none, [`BLOCK_RIP`] for RIP and EIP.
pub fn slot(r: Register) -> Slot {
    match r {
        Register::None => ZERO,
        Register::RIP | Register::EIP => BLOCK_RIP,
        Register::AH | Register::CH | Register::DH | Register::BH => RegFile::slot(r as u8 - Register::AH as u8) + 1,
        r if r.is_gpr() => RegFile::slot(r.full_register().number() as u8),
        _ => ZERO,
    }
}

fn register(r: Register) -> Operand {
    let size = r.size() as u8;
    if r.is_gpr() {
        Operand { kind: Kind::Gpr, reg: slot(r), size }
    } else {
        let kind = if r.is_xmm() {
            Kind::Xmm
        } else if r.is_mm() {
            Kind::Mmx
        } else if r.is_st() {
            Kind::St
        } else if r.is_segment_register() {
            Kind::Seg
        } else if r.is_cr() {
            Kind::Cr
        } else if r.is_dr() {
            Kind::Dr
        } else {
            Kind::None
        };
        Operand { kind, reg: r.number() as u8, size }
    }
}
