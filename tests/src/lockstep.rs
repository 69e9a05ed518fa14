//! A processor for random programs that run interpreted and compiled in lockstep.

use emu_core::bus::Bus;
use emu_core::clock::{Clock, ClockMode};
use emu_core::cpu::control::{CR0_PE, CR0_PG, CR4_OSFXSR, CR4_PAE, EFER_LMA, EFER_LME};
use emu_core::cpu::model::CpuModel;
use emu_core::cpu::regs::{RBP, RSP};
use emu_core::cpu::segment::{Seg, Segment};
use emu_core::exec::region::Compiler;
use emu_core::exec::{RunExit, Vcpu};
use emu_core::irq::CpuPins;
use emu_core::mem::GuestMemory;
use fastrand::Rng;
use iced_x86::code_asm::{CodeAssembler, CodeLabel};
use iced_x86::{Code, Decoder, DecoderOptions, Formatter, IcedError, Instruction, NasmFormatter, OpKind, Register};
use std::fmt::{Debug, Display};
use std::ops::Range;
use std::sync::Arc;

/// Where the program lies, and begins.
pub const CODE: u64 = 0x1000;
/// Where its data lie: RBP.
pub const DATA: u64 = 0x2_0000;
/// Page tables of 64-bit code, from the top down, a page each.
pub const TABLES: u64 = 0x8_0000;
/// The first stack pointer.
pub const STACK: u64 = 0x4_0000;
/// Bytes of memory.
pub const MEMORY: usize = 2 << 20;

/// The number in the environment variable `name`.
pub fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A processor about to execute `code`, of 32 or 64 `bits`, in flat segments without an IDT: a fault ends the run.
///
/// # Panics
/// The host has no memory left.
pub fn processor(model: CpuModel, code: &[u8], bits: u32, data: &[u8]) -> Vcpu {
    let memory = Arc::new(GuestMemory::new(MEMORY as u64, 0).expect("memory for a guest"));
    memory.write(CODE, code);
    memory.write(DATA, data);
    let clock = Clock::new(ClockMode::Icount { shift: 0 });
    let mut cpu = Vcpu::new(Arc::new(model), Arc::new(Bus::new(memory, Arc::new(CpuPins::default()), clock)));
    cpu.state.cr0 |= CR0_PE;
    cpu.state.cr4 |= CR4_OSFXSR;
    for seg in Seg::ALL {
        let attributes = match (seg, bits) {
            (Seg::Cs, 64) => 0xa09b,
            (Seg::Cs, _) => 0xc09b,
            _ => 0xc093,
        };
        cpu.state.set_segment(seg, Segment { selector: 8, base: 0, limit: u32::MAX, attributes, unusable: false });
    }
    if bits == 64 {
        page_tables(&mut cpu);
    }
    cpu.state.rip = CODE;
    cpu.state.regs.set_gpr(RSP, STACK);
    cpu.state.regs.set_gpr(RBP, DATA);
    cpu.mode_changed();
    cpu
}

/// Maps the first 2 MiB one to one, but for a page among the data.
fn page_tables(cpu: &mut Vcpu) {
    let entry = |at: u64, value: u64| cpu.memory.write(at, &value.to_le_bytes());
    entry(TABLES, (TABLES + 0x1000) | 3);
    entry(TABLES + 0x1000, (TABLES + 0x2000) | 3);
    entry(TABLES + 0x2000, (TABLES + 0x3000) | 3);
    for page in 0..512 {
        let present = u64::from(page != (DATA >> 12) + 5) * 3;
        entry(TABLES + 0x3000 + page * 8, page << 12 | present);
    }
    cpu.state.cr3 = TABLES;
    cpu.state.cr4 |= CR4_PAE;
    cpu.state.msrs.efer |= EFER_LME | EFER_LMA;
    cpu.state.cr0 |= CR0_PG;
}

/// The seeds of the programs to try: `default` of them from a random one on, unless `REGION_SEED` and `REGION_PROGRAMS` say
/// otherwise. Tells the first.
pub fn seeds(default: u64) -> Range<u64> {
    let first = setting("REGION_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("REGION_SEED={first}");
    first..first + setting("REGION_PROGRAMS").unwrap_or(default)
}

/// The instructions of `code`, one a line.
pub fn listing(code: &[u8], bits: u32) -> String {
    let mut decoder = Decoder::with_ip(bits, code, CODE, DecoderOptions::NONE);
    let mut text = String::new();
    let mut formatter = NasmFormatter::new();
    for insn in &mut decoder {
        text.push_str(&format!("\n{:x} ", insn.ip()));
        formatter.format(&insn, &mut text);
    }
    text
}

/// An instruction of `code` without operands yet, if it exists in code of `bits`.
pub fn blank(code: Code, bits: u32) -> Option<Instruction> {
    let info = code.op_code();
    let mut insn = Instruction::new();
    insn.set_code(code);
    (if bits == 64 { info.mode64() } else { info.mode32() }).then_some(insn)
}

/// Makes operand `n` of `insn` the memory `at` bytes behind the start of the data.
pub fn set_memory(insn: &mut Instruction, n: u32, bits: u32, at: i32) {
    insn.set_op_kind(n, OpKind::Memory);
    insn.set_memory_base(if bits == 64 { Register::RBP } else { Register::EBP });
    insn.set_memory_displacement64(at as i64 as u64);
    insn.set_memory_displ_size(if bits == 64 { 8 } else { 4 });
}

/// A conditional jump to `to`.
///
/// # Errors
/// The assembler has no room.
pub fn branch(a: &mut CodeAssembler, rng: &mut Rng, to: CodeLabel) -> Result<(), IcedError> {
    match rng.u8(..8) {
        0 => a.jp(to),
        1 => a.jnp(to),
        2 => a.ja(to),
        3 => a.jb(to),
        4 => a.jne(to),
        5 => a.jbe(to),
        6 => a.js(to),
        _ => a.jle(to),
    }
}

/// What all comparisons look at behind a run.
#[derive(PartialEq, Debug)]
pub struct Seen {
    exit: RunExit,
    executed: u64,
    rip: u64,
    flags: u64,
    regs: [u64; 16],
}

/// What is seen of `cpu` behind a run that ended with `exit`.
pub fn see(cpu: &Vcpu, exit: RunExit) -> Seen {
    Seen {
        exit,
        executed: cpu.executed(),
        rip: cpu.state.rip,
        flags: cpu.state.rflags(),
        regs: std::array::from_fn(|n| cpu.state.regs.gpr(n as u8)),
    }
}

/// Two processors with the same program, of which one compiles.
pub struct Pair {
    /// The one that interprets.
    pub plain: Vcpu,
    /// The one that compiles.
    pub compiled: Vcpu,
    seed: u64,
    code: Vec<u8>,
    bits: u32,
    runs: u32,
    /// Instructions that each has executed.
    pub executed: u64,
}

impl Pair {
    /// With a program of `bits` and its data; `seed` is what the program can be had from again.
    ///
    /// # Panics
    /// The host has no memory left.
    pub fn new(seed: u64, code: Vec<u8>, bits: u32, data: &[u8], compiler: Box<dyn Compiler>) -> Pair {
        let [plain, mut compiled] = [(); 2].map(|()| processor(CpuModel::max(), &code, bits, data));
        compiled.set_compiler(Some(compiler));
        Pair { plain, compiled, seed, code, bits, runs: 0, executed: 0 }
    }

    /// Both.
    pub fn each(&mut self) -> [&mut Vcpu; 2] {
        [&mut self.plain, &mut self.compiled]
    }

    /// Runs both for `budget` instructions; how that ended. `about` tells more of a run that fails.
    ///
    /// # Panics
    /// `see` shows a difference between the two.
    pub fn run<S: PartialEq + Debug>(
        &mut self,
        budget: u64,
        see: impl Fn(&Vcpu, RunExit) -> S,
        about: impl Display,
    ) -> RunExit {
        let exit = self.plain.run(budget);
        let expected = see(&self.plain, exit);
        let exit_compiled = self.compiled.run(budget);
        let actual = see(&self.compiled, exit_compiled);
        assert_eq!(actual, expected, "{}: run {}{about}, {}", self.name(), self.runs, self.program());
        self.runs += 1;
        self.executed += self.plain.executed();
        exit
    }

    /// Compares the memories.
    ///
    /// # Panics
    /// They differ.
    pub fn compare_memory(&self) {
        let [a, b] = [&self.plain, &self.compiled].map(|cpu| {
            let mut bytes = vec![0; MEMORY];
            cpu.memory.read(0, &mut bytes);
            bytes
        });
        let differs = a.iter().zip(&b).position(|(a, b)| a != b);
        assert_eq!(differs, None, "{}: memory differs, {}", self.name(), self.program());
    }

    fn name(&self) -> String {
        format!("REGION_SEED={} REGION_PROGRAMS=1", self.seed)
    }

    fn program(&self) -> String {
        format!("{} bits: {}", self.bits, listing(&self.code, self.bits))
    }
}
