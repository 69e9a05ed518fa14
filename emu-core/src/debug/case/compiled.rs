//! A case in compiled code: as the only instruction of a region, and in the midst of one of several blocks.
//!
//! ```text
//!  alone:       nop, nop, I, jmp $                  (two instructions of three have to be translated ones)
//!  surrounded:  first:  dec [passes]; js inside     taken the second time
//!               back:   xchg; jmp first
//!               inside: registers change places, the flags are made anew: both are values of the translation
//!                       I
//!                       registers change places again, flags are stored as bytes, jno behind
//!                       nop
//!               behind: jmp $
//! ```
//! The case runs as often as it takes until all of it is compiled, then once more, by compiled code alone.

use super::{CODE, Case, Place, check_exception, machine};
use crate::cpu::regs::{RAX, RBX, RCX, RDI, RDX, RSI};
use crate::cpu::rflags::{CF, OF, PF, SF, ZF};
use crate::exec::region::{Compiler, exit};
use crate::exec::{RunExit, Vcpu};
use crate::softfloat::sse::mxcsr::MASKS;

/// Bytes that the code around the instruction uses, and that cases must keep away from.
const PASSES: u32 = 0x5_0000;
const OVERFLOW: u32 = PASSES + 1;
const OTHER_FLAGS: u32 = PASSES + 2;
const SEEN_FLAGS: u32 = PASSES + 3;
/// More than any case takes.
const BUDGET: u64 = 1000;
/// Registers that change places.
const PAIRS: [(u8, u8); 3] = [(RAX, RBX), (RCX, RDX), (RSI, RDI)];
/// Flags that are looked at behind the instruction, with the low digit of the opcode of their SETcc.
const SEEN: [(u64, u8); 5] = [(OF, 0), (CF, 2), (ZF, 4), (SF, 8), (PF, 10)];

/// What stands around the instruction in its region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Around {
    /// Nothing that does anything.
    Nothing,
    /// Other blocks, and instructions that use the same registers and flags.
    Blocks,
}

/// Code, and what has to be known of it.
struct Program {
    bits: u32,
    bytes: Vec<u8>,
    /// Where it lies, and begins.
    start: u64,
    /// Where it ends, in a loop.
    end: u64,
    /// Instructions executed before the case's, and behind it at least.
    around: [u64; 2],
    /// There is code around that has registers change places.
    exchanges: bool,
}

impl Program {
    fn new(case: &Case, around: Around) -> Program {
        // What is around is code of 32 or 64 bits.
        let blocks = around == Around::Blocks && case.bits != 16;
        let mut program =
            Program { bits: case.bits, bytes: Vec::new(), start: 0, end: 0, around: [2, 0], exchanges: blocks };
        if blocks {
            program.lead_in();
        } else {
            program.bytes.extend([0x90, 0x90]);
        }
        program.start = CODE - program.bytes.len() as u64;
        program.bytes.extend(&case.bytes);
        if blocks {
            program.lead_out();
        }
        program.end = program.start + program.bytes.len() as u64;
        program.bytes.extend([0xeb, 0xfe]);
        program
    }

    /// An instruction with the opcode `opcode`, the register field `register`, and the memory at `address`.
    fn absolute(&mut self, opcode: &[u8], register: u8, address: u32) {
        self.bytes.extend(opcode);
        if self.bits == 64 {
            self.bytes.extend([register << 3 | 4, 0x25]);
        } else {
            self.bytes.push(register << 3 | 5);
        }
        self.bytes.extend(address.to_le_bytes());
    }

    fn exchange(&mut self, (a, b): (u8, u8)) {
        if self.bits == 64 {
            self.bytes.push(0x48);
        }
        self.bytes.extend([0x87, 0xc0 | a << 3 | b]);
    }

    fn lead_in(&mut self) {
        // DEC, and JS over the next block.
        self.absolute(&[0xfe], 1, PASSES);
        let back = if self.bits == 64 { 5 } else { 4 };
        self.bytes.extend([0x78, back]);
        self.exchange(PAIRS[0]);
        let distance = self.bytes.len() as u8 + 2;
        self.bytes.extend([0xeb, distance.wrapping_neg()]);
        for pair in PAIRS.iter().skip(1) {
            self.exchange(*pair);
        }
        // INC makes OF, SAHF the others.
        self.absolute(&[0xfe], 0, OVERFLOW);
        self.absolute(&[0x86], 4, OTHER_FLAGS);
        self.bytes.push(0x9e);
        self.absolute(&[0x86], 4, OTHER_FLAGS);
        self.around[0] = 2 + 2 + 2 + (PAIRS.len() as u64 - 1) + 4;
    }

    fn lead_out(&mut self) {
        for pair in PAIRS {
            self.exchange(pair);
        }
        for (n, (_, condition)) in SEEN.iter().enumerate() {
            self.absolute(&[0x0f, 0x90 | condition], 0, SEEN_FLAGS + n as u32);
        }
        self.bytes.extend([0x71, 1, 0x90]);
        self.around[1] = (PAIRS.len() + SEEN.len() + 1) as u64;
    }
}

/// Has registers change places.
fn exchange(cpu: &mut Vcpu) {
    for (a, b) in PAIRS {
        let (x, y) = (cpu.state.regs.gpr(a), cpu.state.regs.gpr(b));
        cpu.state.regs.set_gpr(a, y);
        cpu.state.regs.set_gpr(b, x);
    }
}

/// Checks what the code behind the instruction has seen, and gives the registers their places again.
fn look_back(cpu: &mut Vcpu, program: &Program) -> Result<(), String> {
    if !program.exchanges {
        return Ok(());
    }
    exchange(cpu);
    let flags = cpu.state.rflags();
    let mut seen = [0; SEEN.len()];
    cpu.memory.read(u64::from(SEEN_FLAGS), &mut seen);
    let wanted = SEEN.map(|(flag, _)| u8::from(flags & flag != 0));
    if seen == wanted {
        Ok(())
    } else {
        Err(format!("of the flags {SEEN:x?}, {wanted:?} is set, but {seen:?} was seen"))
    }
}

impl Case {
    /// Why compiled code never executes the case's instruction, if it does not.
    fn is_never_compiled(&self) -> Option<&'static str> {
        let unmasked = |(place, value): &(Place, u128)| *place == Place::Mxcsr && *value as u32 & MASKS != MASKS;
        match self.bits {
            16 => Some("code of 16 bits is not compiled"),
            _ if self.before.iter().any(unmasked) => Some("with unmasked exceptions, floats are the interpreter's"),
            _ => None,
        }
    }

    /// Runs the case in a region that `compiler` makes at once.
    ///
    /// # Errors
    /// What differs from what the case says; or it was not compiled code that executed it, where that is compiled at all
    /// (code of 16 bits is not, nor are floats with unmasked exceptions).
    pub fn run_compiled(&self, compiler: Box<dyn Compiler>, around: Around) -> Result<(), String> {
        let program = Program::new(self, around);
        let mut cpu = machine(self.bits).map_err(|error| error.to_string())?;
        // The first instruction to execute is not the case's own.
        cpu.state.rip = program.start;
        cpu.memory.write(program.start, &program.bytes);
        let rounds = compiler.threshold() + 2;
        cpu.set_compiler(Some(compiler));
        let start = cpu.state.clone();
        for round in 0..rounds {
            cpu.state = start.clone();
            for (place, _) in self.after.iter().filter(|(place, _)| matches!(place, Place::Memory(..))) {
                place.set(&mut cpu, 0);
            }
            for (place, value) in &self.before {
                place.set(&mut cpu, *value);
            }
            cpu.mode_changed();
            self.run_round(&mut cpu, &program, round + 1 == rounds)
                .map_err(|error| format!("in a region with {around:?} around, round {round}: {error}"))?;
        }
        Ok(())
    }

    fn run_round(&self, cpu: &mut Vcpu, program: &Program, last: bool) -> Result<(), String> {
        let mut expected = cpu.state.clone();
        for (place, value) in &self.after {
            place.set_state(&mut expected, *value);
        }
        if program.exchanges {
            let flags = cpu.state.rflags();
            let overflow = if flags & OF != 0 { 0x7f } else { 0 };
            cpu.memory.write(u64::from(PASSES), &[1, overflow, flags as u8]);
            exchange(cpu);
        }
        let (exits, instructions) = (cpu.stats.region_exits, cpu.stats.region_instructions);
        let exit = cpu.run(BUDGET);
        match (exit, self.exception) {
            (RunExit::TripleFault, wanted) => {
                check_exception(cpu, wanted)?;
                let at = cpu.chain.first().map_or(0, |raised| raised.at.1);
                if at != CODE {
                    return Err(format!("the exception comes at {at:#x}, expected {CODE:#x}"));
                }
            }
            (RunExit::Budget, None) if cpu.state.rip == program.end => look_back(cpu, program)?,
            (other, _) => return Err(format!("it ends at {:#x}: {other:?}", cpu.state.rip)),
        }
        self.check_state(cpu, &expected)?;
        if last {
            let mut left = cpu.stats.region_exits;
            left.iter_mut().zip(exits).for_each(|(now, before)| *now -= before);
            self.check_tier(program, &left, cpu.stats.region_instructions - instructions)?;
        }
        Ok(())
    }

    /// Checks that it was compiled code: how it was left how often, and what it has executed.
    fn check_tier(&self, program: &Program, left: &[u64], instructions: u64) -> Result<(), String> {
        let count = |exit: u64| left[exit as usize];
        let [before, behind] = program.around;
        if let Some(reason) = self.is_never_compiled() {
            let told = format!("compiled code executed {instructions} instructions, although {reason}");
            // The blocks before may be compiled without it.
            let others = if program.exchanges { before } else { 0 };
            return if instructions <= others { Ok(()) } else { Err(told) };
        }
        // What faults may be left to the interpreter, which raises the fault.
        let (executed, steps) = match self.exception {
            Some(_) => (before, 1),
            None => (before + 1 + behind, 0),
        };
        if instructions < executed || count(exit::STEP) > steps || count(exit::INTERPRET) != 0 {
            return Err(format!("compiled code executed {instructions} instructions, not {executed}: {left:?}"));
        }
        Ok(())
    }
}
