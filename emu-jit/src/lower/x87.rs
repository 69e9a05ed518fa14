//! x87 instructions.
//!
//! While a region with such instructions runs, the host's x87 unit holds the guest's registers (`runtime::x87`), and an
//! instruction is a call of the stub that executes it there. What is left to do here is the memory operand, the
//! pointers to the last instruction and operand, and the flags. Instructions whose results are the processor's
//! own (the transcendental ones), and those that empty registers, store or load all state, are the interpreter's.

use super::flags::Flags;
use super::{Callee, Lower, V};
use crate::runtime::x87::{self, ES};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I16, I64};
use cranelift_codegen::ir::{AbiParam, InstBuilder, Signature, Value};
use cranelift_codegen::isa::CallConv;
use emu_core::cpu::Width;
use emu_core::cpu::rflags::{CF, PF, ZF};
use emu_core::cpu::segment::Seg;
use emu_core::decode::insn::{Insn, Kind};
use emu_core::exec::cache::ModeKey;
use emu_core::exec::mode;
use emu_core::exec::region::layout;
use iced_x86::Mnemonic;

/// Masks of the control word.
const MASKS: i64 = 0x3f;

/// Codes of the status word that an instruction sets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Codes {
    /// None, but where it finds an empty register.
    None,
    C1,
    All,
}

/// How an instruction is translated.
#[derive(Clone, Copy)]
enum Way {
    /// By its stub.
    Stub(Codes),
    /// By its stub, which returns RFLAGS.
    Relation,
    /// By its stub, if the condition holds.
    Move(u8),
    LoadControl,
    StoreControl,
    StatusWord,
    Wait,
}

fn way(insn: &Insn) -> Option<Way> {
    use Mnemonic as M;
    Some(match insn.code.mnemonic() {
        M::Fld | M::Fild | M::Fld1 | M::Fldl2t | M::Fldl2e | M::Fldpi | M::Fldlg2 | M::Fldln2 | M::Fldz => {
            Way::Stub(Codes::C1)
        }
        M::Fst | M::Fstp | M::Fist | M::Fistp | M::Fisttp => Way::Stub(Codes::C1),
        M::Fadd | M::Faddp | M::Fiadd | M::Fmul | M::Fmulp | M::Fimul => Way::Stub(Codes::C1),
        M::Fsub | M::Fsubp | M::Fisub | M::Fsubr | M::Fsubrp | M::Fisubr => Way::Stub(Codes::C1),
        M::Fdiv | M::Fdivp | M::Fidiv | M::Fdivr | M::Fdivrp | M::Fidivr => Way::Stub(Codes::C1),
        M::Fxch | M::Fchs | M::Fabs | M::Fsqrt | M::Frndint | M::Fscale => Way::Stub(Codes::C1),
        M::Fcom | M::Fcomp | M::Fcompp | M::Ficom | M::Ficomp => Way::Stub(Codes::All),
        M::Fucom | M::Fucomp | M::Fucompp | M::Ftst | M::Fxam => Way::Stub(Codes::All),
        M::Fnop => Way::Stub(Codes::None),
        M::Fcomi | M::Fcomip | M::Fucomi | M::Fucomip => Way::Relation,
        M::Fcmovb => Way::Move(2),
        M::Fcmovnb => Way::Move(3),
        M::Fcmove => Way::Move(4),
        M::Fcmovne => Way::Move(5),
        M::Fcmovbe => Way::Move(6),
        M::Fcmovnbe => Way::Move(7),
        M::Fcmovu => Way::Move(10),
        M::Fcmovnu => Way::Move(11),
        M::Fldcw => Way::LoadControl,
        M::Fnstcw => Way::StoreControl,
        M::Fnstsw => Way::StatusWord,
        M::Wait => Way::Wait,
        _ => return None,
    })
}

/// Whether `insn` is translated in the mode `key`: only on hosts that have an x87 unit.
pub fn translates(key: ModeKey, insn: &Insn) -> bool {
    cfg!(target_arch = "x86_64") && key & mode::FPU != 0 && way(insn).is_some() && x87::stub(0).is_some()
}

/// The pointers to the last instruction and operand, which are not in the vCPU yet.
#[derive(Clone, Copy)]
pub struct Note {
    /// The instruction, from the start of the region.
    distance: i64,
    /// The last operand in memory since the pointers were stored.
    data: Option<(Value, Seg)>,
}

/// What is known of the x87 unit while translating a block.
#[derive(Default)]
pub struct Unit {
    note: Option<Note>,
    /// An instruction of this block has set C1.
    c1: bool,
    /// And the other codes.
    codes: bool,
    /// So many registers from ST(0) on are valid, or a stack fault has been flagged.
    valid: u8,
}

impl Lower<'_> {
    /// Leaves the region to the interpreter where an exception is not masked, or is pending.
    pub fn require_x87_masks(&mut self) {
        let control = self.load(I16, layout::X87_CONTROL);
        let unmasked = self.b.ins().band_imm_s(control, MASKS);
        let unmasked = self.b.ins().bxor_imm_s(unmasked, MASKS);
        let status = self.load(I16, layout::X87_STATUS);
        let pending = self.b.ins().band_imm_s(status, i64::from(ES));
        let either = self.b.ins().bor(unmasked, pending);
        let fits = self.b.ins().icmp_imm_s(IntCC::Equal, either, 0);
        self.interpret_unless(fits);
    }

    /// Translates the current instruction, which [`translates`] knows.
    pub fn x87_instruction(&mut self) {
        let insn = self.insn;
        let Some(way) = way(insn) else {
            debug_assert!(false, "only what is known comes here");
            return;
        };
        let operand = (insn.ops[0].kind == Kind::Mem).then(|| self.x87_operand());
        match way {
            Way::Stub(codes) => {
                self.x87_depth();
                self.x87_stub(operand.map(|(_, host)| host));
                self.x87_note(operand.map(|(address, _)| address));
                self.x87_codes(codes);
            }
            Way::Relation => {
                self.x87_depth();
                let flags = self.x87_call(&[], self.convention, true);
                self.x87_note(None);
                self.flags = match flags {
                    Some(flags) => Flags::Bits(self.b.ins().band_imm_s(flags, (CF | PF | ZF) as i64)),
                    None => Flags::Memory,
                };
            }
            Way::Move(cc) => {
                let condition = self.condition_flag(cc);
                let condition = self.b.ins().uextend(I64, condition);
                self.x87_stub(Some(condition));
                self.x87_note(None);
            }
            Way::LoadControl => {
                let Some((_, host)) = operand else { return };
                let value = self.load_host(Width::B2, host);
                let masks = self.b.ins().band_imm_s(value, MASKS);
                let masked = self.b.ins().icmp_imm_s(IntCC::Equal, masks, MASKS);
                self.step_unless(masked);
                self.x87_stub(Some(host));
                // As in `FpuState::set_control`.
                let value = self.b.ins().band_imm_s(value, 0x1f7f);
                let value = self.b.ins().bor_imm_s(value, 0x40);
                self.store(value, layout::X87_CONTROL);
            }
            Way::StoreControl => {
                let Some((_, host)) = operand else { return };
                let value = self.load(I16, layout::X87_CONTROL);
                self.store_host(value, host);
            }
            Way::StatusWord => {
                let zero = self.b.ins().iconst(I64, 0);
                let word = self.call(Callee::X87StatusWord, zero);
                match operand {
                    Some((_, host)) => {
                        let word = self.b.ins().ireduce(I16, word);
                        self.store_host(word, host);
                    }
                    None => self.set_register(insn.ops[0].reg, Width::B2, V::Wide(word)),
                }
            }
            // Nothing is pending.
            Way::Wait => {}
        }
    }

    /// The effective address of the memory operand, and its host address.
    fn x87_operand(&mut self) -> (Value, Value) {
        use Mnemonic as M;
        let insn = self.insn;
        let write =
            matches!(insn.code.mnemonic(), M::Fst | M::Fstp | M::Fist | M::Fistp | M::Fisttp | M::Fnstcw | M::Fnstsw);
        let address = self.effective();
        let linear = self.linear_of(address);
        let host = self.host(linear, u64::from(insn.ops[0].size), write);
        (address, host)
    }

    /// Calls the current instruction's stub, which changes no register of the host's but those of the x87 unit.
    fn x87_stub(&mut self, argument: Option<Value>) {
        self.x87_call(argument.as_slice(), CallConv::PreserveAll, false);
    }

    fn x87_call(&mut self, arguments: &[Value], convention: CallConv, returns: bool) -> Option<Value> {
        let mut signature = Signature::new(convention);
        signature.params.extend(arguments.iter().map(|_| AbiParam::new(I64)));
        signature.returns.extend(returns.then(|| AbiParam::new(I64)));
        let signature = self.b.import_signature(signature);
        let stub = x87::stub(self.insn.imm2).unwrap_or_default();
        let stub = self.b.ins().iconst(I64, stub as i64);
        let call = self.b.ins().call_indirect(signature, stub, arguments);
        self.b.inst_results(call).first().copied()
    }

    /// Follows which registers are valid. A store to one that is empty fills it without a fault; where that may be, tags
    /// have to be looked at when the host's unit is left.
    fn x87_depth(&mut self) {
        use Mnemonic as M;
        let insn = self.insn;
        let mnemonic = insn.code.mnemonic();
        let named = insn.ops.iter().filter(|operand| operand.kind == Kind::St).map(|operand| operand.reg + 1).max();
        let named = named.unwrap_or(0);
        let stores = matches!(mnemonic, M::Fst | M::Fstp);
        if stores && named > self.x87.valid.max(1) {
            self.store_byte(1, layout::X87_SCATTERED);
        }
        let pushes = matches!(
            mnemonic,
            M::Fld | M::Fild | M::Fld1 | M::Fldl2t | M::Fldl2e | M::Fldpi | M::Fldlg2 | M::Fldln2 | M::Fldz
        );
        let pops = match mnemonic {
            M::Fstp | M::Fistp | M::Fisttp | M::Faddp | M::Fmulp | M::Fsubp | M::Fsubrp | M::Fdivp | M::Fdivrp => 1,
            M::Fcomp | M::Ficomp | M::Fucomp | M::Fcomip | M::Fucomip => 1,
            M::Fcompp | M::Fucompp => 2,
            _ => 0,
        };
        let valid = if stores { self.x87.valid } else { self.x87.valid.max(named).max(pops) };
        self.x87.valid = (valid + u8::from(pushes)).min(8).saturating_sub(pops);
    }

    /// Notes that the current instruction is the last one, and its operand.
    fn x87_note(&mut self, address: Option<Value>) {
        let before = self.x87.note.and_then(|note| note.data);
        self.x87.note = Some(Note {
            distance: self.block.delta + i64::from(self.insn.block_offset),
            data: address.map(|address| (address, self.insn.mem.seg)).or(before),
        });
    }

    /// Stores the pointers to the last instruction and operand, if they are not in the vCPU.
    pub fn store_x87_note(&mut self) {
        let Some(note) = self.x87.note else { return };
        let rip = self.rip(note.distance);
        self.store(rip, layout::X87_FIP);
        let selector = self.load(I16, layout::selector(Seg::Cs));
        self.store(selector, layout::X87_FCS);
        if let Some((address, seg)) = note.data {
            self.store(address, layout::X87_FDP);
            let selector = self.load(I16, layout::selector(seg));
            self.store(selector, layout::X87_FDS);
        }
    }

    /// As [`Lower::store_x87_note`], on all ways that lead on from here.
    pub fn settle_x87_note(&mut self) {
        self.store_x87_note();
        self.x87.note = None;
    }

    /// Notes that the host's codes are the guest's.
    fn x87_codes(&mut self, codes: Codes) {
        if codes != Codes::None && !std::mem::replace(&mut self.x87.c1, true) {
            self.store_byte(1, layout::X87_HAS_C1);
        }
        if codes == Codes::All && !std::mem::replace(&mut self.x87.codes, true) {
            self.store_byte(1, layout::X87_HAS_CODES);
        }
    }

    /// Nothing is known where ways meet, or when the host's unit has been left and entered.
    pub fn forget_x87(&mut self) {
        debug_assert!(self.x87.note.is_none(), "pointers are stored where blocks end");
        self.x87 = Unit::default();
    }
}
