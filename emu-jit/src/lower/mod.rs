//! From the blocks of a region to host code, by way of Cranelift's CLIF.
//!
//! Guest registers are SSA variables, loaded once where the region is entered; what is written goes to the vCPU too before
//! the next place where the region may be left, so that ways out are short: they are most of the code, and register
//! allocation is most of the time. Flags are what set them last, as in the interpreter, but known while translating. An instruction that [`is_foreign`] is executed
//! by the interpreter's function, with all state in the vCPU. An access that misses the TLB leaves the region before its
//! instruction has changed anything; the interpreter executes that.

mod backend;
mod bits;
mod bmi;
mod control;
mod flags;
mod memory;
pub mod sse;
mod string;
pub mod x87;

use crate::flow::{self, Facts, Flow, Registers};
use crate::runtime::{Foreign, Gate, Region};
use backend::V;
use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8, I32, I64};
use cranelift_codegen::ir::{
    AbiParam, Block, Function, InstBuilder, MemFlagsData, Signature, SourceLoc, UserFuncName, Value,
};
use cranelift_codegen::isa::{self, CallConv, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};
use emu_core::cpu::Width;
use emu_core::cpu::regs::{BLOCK_RIP, RegFile};
use emu_core::decode::insn::{Insn, Kind};
use emu_core::exec::cache::ModeKey;
use emu_core::exec::mode;
use emu_core::exec::region::{Answer, Refusal, Source, SourceBlock, exit, layout};
use emu_core::ops::backend::Semantics;
use emu_core::ops::fast::{address_form, stack_matches};
use emu_core::ops::integer::{self, Visitor};
use emu_core::softfloat::sse::mxcsr;
use flags::Flags;
use iced_x86::{FlowControl, Mnemonic};
use memory::{Checked, Guess, Place, Via};
use std::collections::HashMap;
use std::time::Instant;

/// A region is left to the interpreter if more than one instruction in so many calls its function: the call costs more than
/// the interpreter's way to the next handler. A repeated string instruction does enough by itself.
const FOREIGN_SHARE: usize = 3;

/// Compiles regions, one after the other.
pub struct Translator {
    isa: OwnedTargetIsa,
    gate: Gate,
    context: Context,
    builder: FunctionBuilderContext,
}

impl Translator {
    /// For the host's processor.
    ///
    /// # Errors
    /// If Cranelift has no back end for it.
    pub fn new() -> Result<Translator, String> {
        Translator::optimising("none")
    }

    /// With Cranelift's setting `opt_level`: `none`, `speed` or `speed_and_size`.
    ///
    /// # Errors
    /// As [`Translator::new`]; or there is no such level.
    pub fn optimising(level: &str) -> Result<Translator, String> {
        let host = cranelift_native::builder();
        Translator::with(host.map_err(|error| format!("compiled code is not supported here: {error}"))?, level)
    }

    /// For x86-64 processors with SSE4.2 and POPCNT, whatever else the host's has: so that what is made can be compared
    /// with what was made elsewhere. For [`Translator::listing`] only.
    ///
    /// # Errors
    /// The host is none, so that there is no back end for them.
    pub fn baseline() -> Result<Translator, String> {
        let mut baseline = isa::lookup_by_name("x86_64-unknown-unknown").map_err(|error| error.to_string())?;
        baseline.enable("x86-64-v2").map_err(|error| error.to_string())?;
        Translator::with(baseline, "none")
    }

    fn with(target: isa::Builder, level: &str) -> Result<Translator, String> {
        let mut flags = settings::builder();
        let verifier = if cfg!(debug_assertions) { "true" } else { "false" };
        // The last is what regions need to end in a jump to another.
        for (name, value) in [
            ("opt_level", level),
            ("enable_verifier", verifier),
            ("unwind_info", "false"),
            ("preserve_frame_pointers", "true"),
        ] {
            flags.set(name, value).map_err(|error| format!("Cranelift: {error}"))?;
        }
        let isa = target.finish(settings::Flags::new(flags)).map_err(|error| format!("Cranelift: {error}"))?;
        let (mut context, mut builder) = (Context::new(), FunctionBuilderContext::new());
        let gate = gate(&isa, &mut context, &mut builder)?;
        Ok(Translator { isa, gate, context, builder })
    }

    /// Translates `source` to CLIF, in the context; the instructions that it refers to.
    fn translate(&mut self, source: &Source) -> Foreign {
        let flow = flow::analyse(source);
        self.context.clear();
        self.context.func = Function::with_name_signature(UserFuncName::default(), signature(CallConv::Tail, 1));
        let builder = FunctionBuilder::new(&mut self.context.func, &mut self.builder);
        let mut lower = Lower::new(builder, self.isa.default_call_conv(), source, &flow);
        lower.region();
        lower.b.seal_all_blocks();
        lower.b.finalize(self.isa.frontend_config());
        lower.foreign
    }

    /// What becomes of `source`.
    ///
    /// # Errors
    /// Cranelift cannot compile it.
    pub fn listing(&mut self, source: &Source) -> Result<Listing, String> {
        self.translate(source);
        let clif = self.context.func.display().to_string();
        let compiled = self
            .context
            .compile(&*self.isa, &mut ControlPlane::default())
            .map_err(|error| format!("Cranelift: {:?}", error.inner))?;
        let code = compiled.code_buffer();
        let mut host = Vec::new();
        let mut at = 0;
        for place in compiled.buffer.get_srclocs_sorted() {
            let (start, end) = (place.start as usize, place.end as usize);
            if at < start {
                host.push((None, code[at..start].to_vec()));
            }
            host.push(((!place.loc.is_default()).then_some(place.loc.bits() as usize), code[start..end].to_vec()));
            at = end;
        }
        host.push((None, code[at..].to_vec()));
        Ok(Listing { clif, host })
    }

    /// Compiles `source`, if that is worth it.
    ///
    /// # Errors
    /// Too much of it would call the interpreter's functions; or it cannot be done now.
    pub fn compile(&mut self, source: &Source) -> Answer {
        let insns = || source.blocks.iter().flat_map(|block| &block.insns);
        let foreign = insns().filter(|insn| is_foreign(source.mode, insn) && !string::is_repeated(insn)).count();
        if foreign * FOREIGN_SHARE > insns().count() { Err(Refusal::Never) } else { self.compile_always(source) }
    }

    /// Compiles `source`, whether that is worth it or not.
    ///
    /// # Errors
    /// It cannot be done now.
    pub fn compile_always(&mut self, source: &Source) -> Answer {
        let begun = Instant::now();
        let foreign = self.translate(source);
        let compiled = match self.context.compile(&*self.isa, &mut ControlPlane::default()) {
            Ok(compiled) => compiled,
            Err(error) => {
                debug_assert!(false, "{:?} in {}", error.inner, error.func.display());
                tracing::error!("a region of {} blocks cannot be compiled: {:?}", source.blocks.len(), error.inner);
                return Err(Refusal::Never);
            }
        };
        let instructions = source.blocks.iter().map(|block| block.insns.len()).sum();
        match Region::new(compiled.code_buffer(), &self.gate, foreign, instructions, begun.elapsed()) {
            Ok(region) => Ok(Box::new(region)),
            Err(error) => {
                tracing::error!("no memory for compiled code: {error}");
                Err(Refusal::Later)
            }
        }
    }
}

/// A region's translation, to look at.
pub struct Listing {
    /// The CLIF. `@` with a hexadecimal number names the guest instruction that a line belongs to.
    pub clif: String,
    /// Pieces of host code in order, each with the number of its guest instruction, counted through all blocks.
    pub host: Vec<(Option<usize>, Vec<u8>)>,
}

/// A function of `parameters` integers, the first of which is the address of the vCPU, that returns one.
fn signature(convention: CallConv, parameters: usize) -> Signature {
    let mut signature = Signature::new(convention);
    signature.params.resize(parameters, AbiParam::new(I64));
    signature.returns.push(AbiParam::new(I64));
    signature
}

/// Makes the gate: regions end in jumps to other regions, which takes a convention that the host's compiler does not have.
fn gate(isa: &OwnedTargetIsa, context: &mut Context, builder: &mut FunctionBuilderContext) -> Result<Gate, String> {
    context.func = Function::with_name_signature(UserFuncName::default(), signature(isa.default_call_conv(), 2));
    let mut b = FunctionBuilder::new(&mut context.func, builder);
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    b.seal_block(entry);
    let (cpu, at) = (b.block_params(entry)[0], b.block_params(entry)[1]);
    let region = b.import_signature(signature(CallConv::Tail, 1));
    let call = b.ins().call_indirect(region, at, &[cpu]);
    let code = b.inst_results(call)[0];
    b.ins().return_(&[code]);
    b.finalize(isa.frontend_config());
    let compiled = context
        .compile(&**isa, &mut ControlPlane::default())
        .map_err(|error| format!("Cranelift: {:?}", error.inner))?;
    Gate::new(compiled.code_buffer()).map_err(|error| format!("no memory for compiled code: {error}"))
}

/// Whether the interpreter's function executes `insn` in the mode `key`, because it is not translated.
pub fn is_foreign(key: ModeKey, insn: &Insn) -> bool {
    if insn.is_undefined() {
        return true;
    }
    if sse::translates(key, insn) || x87::translates(key, insn) {
        return false;
    }
    match insn.code.flow_control() {
        FlowControl::Next => {}
        FlowControl::ConditionalBranch => {
            let known = integer::jump_condition(insn.code.mnemonic()).is_some() || control::count_width(insn).is_some();
            return !known || !flow::is_near(insn);
        }
        FlowControl::UnconditionalBranch | FlowControl::Call => {
            return !flow::is_near(insn) && !control::is_indirect(insn);
        }
        FlowControl::Return => return !flow::is_return(insn),
        FlowControl::IndirectBranch | FlowControl::IndirectCall => return !control::is_indirect(insn),
        _ => return true,
    }
    if bits::reads_segment(insn) {
        return false;
    }
    let plain = insn.ops.iter().all(|operand| {
        matches!(operand.kind, Kind::None | Kind::Gpr | Kind::Mem | Kind::Imm | Kind::Imm2 | Kind::Near)
    });
    let translated = backend::is_special(insn)
        || bits::translates(insn)
        || bmi::translates(insn)
        || string::translates(insn)
        || integer::semantics(insn, Exists).is_some();
    !plain || !translated
}

struct Exists;

impl Visitor for Exists {
    type Result = ();
    fn visit<S: Semantics>(self) {}
}

/// What translated code calls: functions of [`crate::runtime`].
#[derive(Clone, Copy)]
enum Callee {
    Execute,
    Condition,
    SetCfOf,
    SetCarry,
    SetCfZf,
    SetZf,
    Flags,
    PopFlags,
    ClearInterruptFlag,
    SetInterruptFlag,
    AllowUserPages,
    EnterFloat,
    LeaveFloat,
    ExecuteInFloat,
    Compute,
    ComputeInFloat,
    SingleToDword,
    SingleToQword,
    DoubleToDword,
    DoubleToQword,
    TruncateSingle,
    TruncateDouble,
    PackedFloat,
    EnterX87,
    LeaveX87,
    X87StatusWord,
    ExecuteInX87,
    ExecuteInBoth,
}

/// A block, with what is known where it begins.
struct Start {
    block: usize,
    flags: Flags,
    checked: Vec<Checked>,
    /// General registers that may not have been stored.
    pending: Registers,
}

/// The translation of one region.
pub struct Lower<'f> {
    b: FunctionBuilder<'f>,
    /// How functions of the runtime are called.
    convention: CallConv,
    source: &'f Source,
    flow: &'f Flow,
    /// Address of the vCPU.
    cpu: Value,
    /// Address of the first TLB entry of the current bank.
    bank: Variable,
    /// RIP where the region was entered.
    start: Value,
    registers: Vec<Variable>,
    vectors: sse::Vectors,
    x87: x87::Unit,
    /// Instructions that may still be started.
    budget: Variable,
    /// The start of each block.
    clif: Vec<Block>,
    /// Blocks to translate, with what is known there.
    queue: Vec<Start>,
    /// The block and instruction that are being translated, and their numbers.
    block: &'f SourceBlock,
    number: usize,
    insn: &'f Insn,
    at: usize,
    flags: Flags,
    /// What is known of addresses.
    places: HashMap<Value, Place>,
    /// Accesses whose page is known to be in the TLB here.
    checked: Vec<Checked>,
    /// Pages that accesses in loops expect.
    guesses: Vec<Guess>,
    /// What the address that was made last is made of.
    via: Option<Via>,
    /// Instructions for the interpreter's functions.
    foreign: Foreign,
    /// Flags that others leave in part as they were.
    befores: Vec<Flags>,
    /// Registers that have been written since they were last stored.
    pending: Registers,
    /// Where accesses that miss leave: its parameter is what [`Lower::step_in`] packs.
    step: Block,
    /// Where it goes on to other code, all state being in the vCPU: its parameter is the target.
    onward: Block,
    /// Where everything leaves while the host's FPU works as the guest's: its parameter is the exit.
    float: Option<Block>,
    /// The host address of the operand that was opened.
    open: Option<Value>,
}

impl<'f> Lower<'f> {
    fn new(mut b: FunctionBuilder<'f>, convention: CallConv, source: &'f Source, flow: &'f Flow) -> Lower<'f> {
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let cpu = b.block_params(entry)[0];
        let registers = (0..16).map(|_| b.declare_var(I64)).collect();
        let vectors = sse::Vectors::new(&mut b);
        let budget = b.declare_var(I64);
        let clif = source.blocks.iter().map(|_| b.create_block()).collect();
        let block = &source.blocks[0];
        let insn = &block.insns[0];
        let (flags, pending) = (Flags::Memory, 0);
        let step = b.create_block();
        b.append_block_param(step, I64);
        let (bank, start) = (b.declare_var(I64), cpu);
        let onward = b.create_block();
        b.append_block_param(onward, I64);
        Lower {
            b,
            convention,
            source,
            flow,
            cpu,
            bank,
            start,
            registers,
            vectors,
            x87: x87::Unit::default(),
            budget,
            clif,
            queue: Vec::new(),
            block,
            number: 0,
            insn,
            at: 0,
            flags,
            places: HashMap::new(),
            checked: Vec::new(),
            guesses: Vec::new(),
            via: None,
            foreign: Foreign::default(),
            befores: Vec::new(),
            pending,
            step,
            onward,
            float: None,
            open: None,
        }
    }

    /// Translates everything.
    fn region(&mut self) {
        if self.flow.computes {
            self.require_masks();
        }
        if self.flow.uses_x87 {
            self.require_x87_masks();
        }
        self.start = self.load(I64, layout::REGS + usize::from(BLOCK_RIP));
        let budget = self.load(I64, layout::BUDGET);
        let cost = self.source.blocks[0].insns.len() as i64;
        let left = self.b.ins().iadd_imm_s(budget, -cost);
        let (paid, over) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(over);
        let short = self.b.ins().icmp_imm_s(IntCC::SignedLessThan, left, 0);
        self.b.ins().brif(short, over, &[], paid, &[]);
        self.begin(over);
        self.store(self.start, layout::RIP);
        self.leave(exit::BUDGET);

        self.begin(paid);
        self.b.def_var(self.budget, left);
        if self.flow.computes || self.flow.uses_x87 {
            let zero = self.b.ins().iconst(I64, 0);
            if self.flow.computes {
                self.call(Callee::EnterFloat, zero);
            }
            if self.flow.uses_x87 {
                self.call(Callee::EnterX87, zero);
            }
            let out = self.b.create_block();
            self.b.append_block_param(out, I64);
            self.float = Some(out);
        }
        self.load_bank();
        self.load_registers(self.flow.uses);
        self.load_vectors(self.flow.vector_uses);
        self.declare_guesses();
        self.b.ins().jump(self.clif[0], &[]);
        self.queue.push(Start { block: 0, flags: Flags::Memory, checked: Vec::new(), pending: self.may_wait(0) });
        let mut done = vec![false; self.source.blocks.len()];
        while let Some(start) = self.queue.pop() {
            let n = start.block;
            if std::mem::replace(&mut done[n], true) {
                continue;
            }
            if self.flow.blocks[n].predecessors == 1 {
                self.begin(self.clif[n]);
            } else {
                self.b.switch_to_block(self.clif[n]);
            }
            self.flags = start.flags;
            self.checked = start.checked;
            self.pending = start.pending;
            self.block = &self.source.blocks[n];
            self.number = n;
            self.translate(n);
        }
        self.leave_for_step();
        self.go_onward();
        // A block that nothing leads to any more (a return site whose call turned out otherwise) is never entered.
        for (n, done) in done.into_iter().enumerate() {
            if !done {
                self.b.switch_to_block(self.clif[n]);
                self.b.set_cold_block(self.clif[n]);
                self.leave(exit::LOOKUP);
            }
        }
        if let Some(out) = self.float {
            self.begin(out);
            let zero = self.b.ins().iconst(I64, 0);
            if self.flow.computes {
                self.call(Callee::LeaveFloat, zero);
            }
            if self.flow.uses_x87 {
                self.call(Callee::LeaveX87, zero);
            }
            let code = self.b.block_params(out)[0];
            self.b.ins().return_(&[code]);
        }
    }

    /// Finds the bank of the TLB that is the current one now.
    fn load_bank(&mut self) {
        let entries = self.load(I64, layout::TLB_ENTRIES);
        let first = self.load(I64, layout::TLB_START);
        let first = self.b.ins().ishl_imm_s(first, i64::from(layout::TLB_ENTRY.trailing_zeros()));
        let bank = self.b.ins().iadd(entries, first);
        self.b.def_var(self.bank, bank);
    }

    /// Leaves the region to the interpreter where an exception of the FPU is not masked.
    fn require_masks(&mut self) {
        let mxcsr = self.load(I32, layout::MXCSR);
        let masks = self.b.ins().band_imm_s(mxcsr, i64::from(mxcsr::MASKS));
        let masked = self.b.ins().icmp_imm_s(IntCC::Equal, masks, i64::from(mxcsr::MASKS));
        self.interpret_unless(masked);
    }

    /// Goes on in a new block if `valid` is not zero; else leaves the region before it has begun, to the interpreter.
    fn interpret_unless(&mut self, valid: Value) {
        let (yes, no) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(no);
        self.b.ins().brif(valid, yes, &[], no, &[]);
        self.begin(no);
        self.leave(exit::INTERPRET);
        self.begin(yes);
    }

    /// Goes on in `block`, to which all ways are known: variables need no parameters there.
    fn begin(&mut self, block: Block) {
        self.b.switch_to_block(block);
        self.b.seal_block(block);
    }

    fn translate(&mut self, n: usize) {
        self.forget_lanes();
        self.forget_x87();
        let insns = &self.source.blocks[n].insns;
        let first: usize = self.source.blocks[..n].iter().map(|block| block.insns.len()).sum();
        for (k, insn) in insns.iter().enumerate() {
            self.b.set_srcloc(SourceLoc::new((first + k) as u32));
            self.insn = insn;
            self.at = k;
            self.open = None;
            self.via = None;
            let facts = self.flow.blocks[n].insns[k];
            let ends = k + 1 == insns.len();
            if is_foreign(self.source.mode, insn) || !self.addressable() {
                self.execute(facts, ends);
                if ends && insn.code.flow_control() != FlowControl::Next {
                    // The function never comes back to go on: it has left by `exit::CHAIN`.
                    self.leave(exit::CHAIN);
                    return;
                }
            } else if insn.code.flow_control() != FlowControl::Next {
                self.branch();
                return;
            } else if sse::translates(self.source.mode, insn) {
                self.vector_instruction();
            } else if x87::translates(self.source.mode, insn) {
                self.x87_instruction();
            } else if string::translates(insn) {
                self.string_instruction();
            } else if self.extends_memory() {
                self.extend_memory();
            } else if !self.shift_by_constant() && !self.bit_instruction() && !self.bmi_instruction() {
                match integer::semantics(insn, Run(self)) {
                    Some(()) => {}
                    None => self.special(),
                }
            }
        }
        if let Some(last) = insns.last() {
            self.go(flow::next(self.block, last));
        }
    }

    /// Whether the memory operand, if there is one, and the stack, if it is used, are accessed as compiled code does.
    fn addressable(&self) -> bool {
        let insn = self.insn;
        let memory = insn.ops.iter().any(|operand| operand.kind == Kind::Mem);
        let stack = matches!(
            insn.code.mnemonic(),
            Mnemonic::Push
                | Mnemonic::Pop
                | Mnemonic::Call
                | Mnemonic::Ret
                | Mnemonic::Leave
                | Mnemonic::Pushfd
                | Mnemonic::Pushfq
                | Mnemonic::Popfd
                | Mnemonic::Popfq
        );
        let key = self.source.mode;
        (!memory || address_form(key, insn).is_some())
            && (!stack
                || (stack_matches(key)
                    && (matches!(
                        insn.code.flow_control(),
                        FlowControl::Call | FlowControl::IndirectCall | FlowControl::Return
                    ) || insn.width.bits() == u32::from(insn.code_bits))))
    }

    fn wide_code(&self) -> bool {
        self.source.mode & mode::CODE == 2
    }

    /// The size of addresses, and of the stack pointer where the two match.
    fn code_width(&self) -> Width {
        if self.wide_code() { Width::B8 } else { Width::B4 }
    }

    /// The low 32 bits, zero-extended.
    fn low_half(&mut self, value: Value) -> Value {
        if self.bits_of(value) <= 32 {
            return value;
        }
        let low = self.half(value, 3);
        self.b.ins().uextend(I64, low)
    }

    /// An address cut to the size of the code.
    fn cut(&mut self, address: Value) -> Value {
        if self.wide_code() { address } else { self.low_half(address) }
    }

    /// RIP at `distance` from the start of the region.
    fn rip(&mut self, distance: i64) -> Value {
        let rip = self.b.ins().iadd_imm_s(self.start, distance);
        self.cut(rip)
    }

    fn load(&mut self, kind: cranelift_codegen::ir::Type, at: usize) -> Value {
        self.b.ins().load(kind, MemFlagsData::trusted(), self.cpu, at as i32)
    }

    fn store(&mut self, value: Value, at: usize) {
        self.b.ins().store(MemFlagsData::trusted(), value, self.cpu, at as i32);
    }

    fn store_byte(&mut self, value: u8, at: usize) {
        let value = self.b.ins().iconst(I8, i64::from(value));
        self.store(value, at);
    }

    fn load_registers(&mut self, mask: Registers) {
        for n in (0..16).filter(|n| mask >> n & 1 != 0) {
            let value = self.load(I64, layout::REGS + usize::from(RegFile::slot(n)));
            self.b.def_var(self.registers[usize::from(n)], value);
        }
    }

    /// Stores the registers that have been written: before any place where the region may be left.
    fn store_registers(&mut self) {
        self.store_vectors();
        self.store_general(self.pending);
    }

    /// Stores the general registers in `mask`.
    fn store_general(&mut self, mask: Registers) {
        self.pending &= !mask;
        for n in (0..16).filter(|n| mask >> n & 1 != 0) {
            let value = self.b.use_var(self.registers[usize::from(n)]);
            self.store(value, layout::REGS + usize::from(RegFile::slot(n)));
        }
    }

    /// General registers that need not have been stored where block `n` begins: what its loop writes is stored where the
    /// loop is left, and not in each turn.
    fn may_wait(&self, n: usize) -> Registers {
        self.flow.innermost(n).map_or(0, |found| found.writes)
    }

    /// Before a place where the region may be left: registers are stored here, or in loops there.
    fn prepare_to_leave(&mut self) {
        if self.flow.innermost(self.number).is_some() {
            self.store_vectors();
        } else {
            self.store_registers();
        }
    }

    /// Puts everything architectural into the vCPU, with `rip` to go on at and `refund` instructions given back.
    fn settle(&mut self, rip: Value, refund: i64) {
        self.store_registers();
        self.store_flags();
        let budget = self.b.use_var(self.budget);
        let budget = if refund == 0 { budget } else { self.b.ins().iadd_imm_s(budget, refund) };
        self.store(budget, layout::BUDGET);
        self.store(rip, layout::RIP);
    }

    fn leave(&mut self, code: u64) {
        let code = self.b.ins().iconst(I64, code as i64);
        match self.float {
            Some(out) => self.b.ins().jump(out, &[code.into()]),
            None => self.b.ins().return_(&[code]),
        };
    }

    /// Goes on in a new block if `stay` is not zero; else leaves the region for the interpreter to execute the current
    /// instruction, of which nothing has been done yet. The caller has called [`Lower::prepare_to_leave`] before.
    fn step_unless(&mut self, stay: Value) {
        debug_assert!(self.vectors.pending == 0, "registers are stored before an instruction changes any");
        let (hot, cold) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(cold);
        self.b.ins().brif(stay, hot, &[], cold, &[]);
        self.begin(cold);
        let pending = self.pending;
        self.store_registers();
        self.pending = pending;
        self.store_flags();
        self.store_x87_note();
        let distance = self.block.delta + i64::from(self.insn.block_offset);
        let packed = self.b.ins().iconst(I64, distance << 8 | (i64::from(self.insn.after) + 1));
        self.b.ins().jump(self.step, &[packed.into()]);
        self.begin(hot);
    }

    /// The block [`Lower::step`].
    fn leave_for_step(&mut self) {
        self.begin(self.step);
        self.b.set_cold_block(self.step);
        let packed = self.b.block_params(self.step)[0];
        let refund = self.b.ins().band_imm_s(packed, 0xff);
        let budget = self.b.use_var(self.budget);
        let budget = self.b.ins().iadd(budget, refund);
        self.store(budget, layout::BUDGET);
        let distance = self.b.ins().sshr_imm_s(packed, 8);
        let rip = self.b.ins().iadd(self.start, distance);
        let rip = self.cut(rip);
        self.store(rip, layout::RIP);
        self.leave(exit::STEP);
    }

    fn call(&mut self, callee: Callee, argument: Value) -> Value {
        let address = match callee {
            Callee::Execute => crate::runtime::execute as *const () as usize,
            Callee::Condition => crate::runtime::condition as *const () as usize,
            Callee::SetCfOf => crate::runtime::set_cf_of as *const () as usize,
            Callee::SetCarry => crate::runtime::set_carry as *const () as usize,
            Callee::SetCfZf => crate::runtime::set_cf_zf as *const () as usize,
            Callee::SetZf => crate::runtime::set_zero as *const () as usize,
            Callee::Flags => crate::runtime::flags as *const () as usize,
            Callee::PopFlags => crate::runtime::pop_flags as *const () as usize,
            Callee::ClearInterruptFlag => crate::runtime::clear_interrupt_flag as *const () as usize,
            Callee::SetInterruptFlag => crate::runtime::set_interrupt_flag as *const () as usize,
            Callee::AllowUserPages => crate::runtime::allow_user_pages as *const () as usize,
            Callee::EnterFloat => crate::runtime::enter_float as *const () as usize,
            Callee::LeaveFloat => crate::runtime::leave_float as *const () as usize,
            Callee::ExecuteInFloat => crate::runtime::execute_in_float as *const () as usize,
            Callee::Compute => crate::runtime::compute as *const () as usize,
            Callee::ComputeInFloat => crate::runtime::compute_in_float as *const () as usize,
            Callee::SingleToDword => crate::runtime::single_to_dword as *const () as usize,
            Callee::SingleToQword => crate::runtime::single_to_qword as *const () as usize,
            Callee::DoubleToDword => crate::runtime::double_to_dword as *const () as usize,
            Callee::DoubleToQword => crate::runtime::double_to_qword as *const () as usize,
            Callee::TruncateSingle => crate::runtime::truncate_single as *const () as usize,
            Callee::TruncateDouble => crate::runtime::truncate_double as *const () as usize,
            Callee::PackedFloat => crate::runtime::packed_float as *const () as usize,
            Callee::EnterX87 => crate::runtime::x87::enter as *const () as usize,
            Callee::LeaveX87 => crate::runtime::x87::leave as *const () as usize,
            Callee::X87StatusWord => crate::runtime::x87::status_word as *const () as usize,
            Callee::ExecuteInX87 => crate::runtime::x87::execute_in_x87 as *const () as usize,
            Callee::ExecuteInBoth => crate::runtime::x87::execute_in_both as *const () as usize,
        };
        let signature = self.b.import_signature(signature(self.convention, 2));
        let address = self.b.ins().iconst(I64, address as i64);
        let call = self.b.ins().call_indirect(signature, address, &[self.cpu, argument]);
        self.b.inst_results(call)[0]
    }

    /// Has the interpreter's function execute the current instruction.
    fn execute(&mut self, facts: Facts, ends: bool) {
        self.settle_x87_note();
        self.forget_x87();
        let start = self.rip(self.block.delta);
        self.settle(start, 0);
        self.store(start, layout::REGS + usize::from(BLOCK_RIP));
        self.flags = Flags::Memory;
        // It may change what the TLB has.
        self.forget_pages();
        let kept = self.foreign.keep(self.insn);
        let insn = self.b.ins().iconst(I64, kept as i64);
        // What the second returns with anything but zero has left the guest's FPU.
        let callee = match (self.flow.computes, self.flow.uses_x87) {
            (false, false) => Callee::Execute,
            (true, false) => Callee::ExecuteInFloat,
            (false, true) => Callee::ExecuteInX87,
            (true, true) => Callee::ExecuteInBoth,
        };
        let result = self.call(callee, insn);
        let (out, next) = (self.b.create_block(), self.b.create_block());
        if !ends {
            self.b.set_cold_block(out);
        }
        self.b.ins().brif(result, out, &[], next, &[]);
        self.begin(out);
        let code = self.b.ins().iadd_imm_s(result, -1);
        self.b.ins().return_(&[code]);
        self.begin(next);
        self.load_registers(facts.writes & self.flow.uses);
        self.load_vectors(facts.vector_writes & self.flow.vector_uses);
        let budget = self.load(I64, layout::BUDGET);
        self.b.def_var(self.budget, budget);
    }
}

/// Translates the semantics that it visits.
struct Run<'a, 'f>(&'a mut Lower<'f>);

impl Visitor for Run<'_, '_> {
    type Result = ();
    fn visit<S: Semantics>(self) {
        // Nothing traps while translating: an access that misses leaves at run time.
        let Ok(()) = S::run(self.0);
    }
}
