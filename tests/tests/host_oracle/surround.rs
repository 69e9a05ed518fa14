//! What stands around an instruction in compiled code.
//!
//! ```text
//!  alone:       nop, nop, I, jmp $                  (two instructions of three have to be translated ones)
//!  surrounded:  first:  dec [passes]; js inside     taken the second time
//!               back:   xchg; perhaps what has the host's FPU be the guest's in this region; jmp or jns first
//!               inside: registers change places, flags are made: all are values of the translation
//!                       I
//!                       registers change places again, conditions are stored as bytes, jcc behind
//!                       nop
//!               behind: jmp $
//! ```
//! If I jumps, what follows it is at its target too.

use crate::native::State;
use crate::{LEAD, SCRATCH, TAKEN};
use fastrand::Rng;

const CF: u64 = 1;
const PF: u64 = 4;
const AF: u64 = 0x10;
const ZF: u64 = 0x40;
const SF: u64 = 0x80;
const OF: u64 = 0x800;
const ARITHMETIC: u64 = CF | PF | AF | ZF | SF | OF;

/// Registers that change places; the last two exist in 64-bit code only.
const PAIRS: [(usize, usize); 5] = [(0, 3), (1, 2), (4, 5), (6, 7), (8, 9)];
/// Conditions that are looked at behind the instruction.
const CONDITIONS: usize = 3;

/// Bytes of [`SCRATCH`]: how often the way back is still taken, an operand, the low flags, and conditions that were seen.
const PASSES: u32 = SCRATCH as u32;
const OPERAND: u32 = PASSES + 1;
const LOW_FLAGS: u32 = PASSES + 2;
const SEEN: u32 = PASSES + 3;
/// How many these are.
pub const SCRATCH_BYTES: usize = 3 + CONDITIONS;
/// Behind them, zero.
const ZERO: u32 = PASSES + 16;
/// What XMM0 was, and the x87 control word.
const KEPT: u32 = PASSES + 32;

/// What makes the flags that the instruction finds.
#[derive(Clone, Copy)]
enum Maker {
    /// INC and SAHF: any flags.
    Sahf,
    /// CMP with this.
    Cmp(u8),
    /// INC: CF is left alone.
    Inc,
    /// ROL by one: all but CF and OF are those of the DEC before.
    Rol,
    /// TEST with this.
    Test(u8),
}

/// What stands around an instruction.
pub struct Surroundings {
    /// Code that ends where the instruction begins.
    pub before: Vec<u8>,
    /// Code that begins behind the instruction, and at its target.
    pub behind: Vec<u8>,
    /// `None` if nothing is done.
    maker: Option<Maker>,
    bits: u32,
    conditions: [u8; CONDITIONS],
}

impl Surroundings {
    /// Nothing that does anything.
    pub fn nothing(bits: u32) -> Surroundings {
        let behind = vec![0xeb, 0xfe];
        Surroundings { before: vec![0x90, 0x90], behind, maker: None, bits, conditions: [0; CONDITIONS] }
    }

    /// Other blocks.
    pub fn blocks(bits: u32, rng: &mut Rng) -> Surroundings {
        let maker = match rng.u8(..6) {
            0 | 1 => Maker::Sahf,
            2 => Maker::Cmp(rng.u8(..)),
            3 => Maker::Inc,
            4 => Maker::Rol,
            _ => Maker::Test(rng.u8(..)),
        };
        let conditions = std::array::from_fn(|_| rng.u8(..16));
        let mut around = Surroundings { before: Vec::new(), behind: Vec::new(), maker: Some(maker), bits, conditions };
        around.before = around.lead_in(maker, rng);
        around.behind = around.lead_out(rng);
        assert!(around.before.len() <= LEAD as usize, "there is no room for {:x?}", around.before);
        assert!(around.behind.len() + 15 <= TAKEN as usize, "there is no room for {:x?}", around.behind);
        around
    }

    /// An instruction with the opcode `opcode`, the register field `register`, and the memory at `address`.
    fn absolute(&self, code: &mut Vec<u8>, opcode: &[u8], register: u8, address: u32) {
        code.extend(opcode);
        if self.bits == 64 {
            code.extend([register << 3 | 4, 0x25]);
        } else {
            code.push(register << 3 | 5);
        }
        code.extend(address.to_le_bytes());
    }

    fn exchange(&self, code: &mut Vec<u8>, (a, b): (usize, usize)) {
        if self.bits == 64 {
            code.push(if a < 8 { 0x48 } else { 0x4d });
        }
        code.extend([0x87, 0xc0 | (a as u8 & 7) << 3 | b as u8 & 7]);
    }

    fn pairs(&self) -> &'static [(usize, usize)] {
        &PAIRS[..if self.bits == 64 { 5 } else { 4 }]
    }

    /// XMM0 and XMM1 change places.
    fn exchange_vectors(code: &mut Vec<u8>) {
        for operands in [0xc1, 0xc8, 0xc1] {
            // PXOR
            code.extend([0x66, 0x0f, 0xef, operands]);
        }
    }

    fn lead_in(&self, maker: Maker, rng: &mut Rng) -> Vec<u8> {
        let mut code = Vec::new();
        // DEC, and JS over the next block.
        self.absolute(&mut code, &[0xfe], 1, PASSES);
        code.extend([0x78, 0]);
        let start = code.len();
        self.exchange(&mut code, PAIRS[0]);
        if rng.u8(..3) == 0 {
            // MOVUPS, MOVSS, ADDSS of XMM0 to itself, and MOVUPS.
            self.absolute(&mut code, &[0x0f, 0x11], 0, KEPT);
            self.absolute(&mut code, &[0xf3, 0x0f, 0x10], 0, ZERO);
            code.extend([0xf3, 0x0f, 0x58, 0xc0]);
            self.absolute(&mut code, &[0x0f, 0x10], 0, KEPT);
        }
        if rng.u8(..3) == 0 {
            // FNSTCW leaves the pointers to the last instruction and operand alone.
            self.absolute(&mut code, &[0xd9], 7, KEPT);
        }
        let distance = code.len() as u8 + 2;
        // With JNS, which is taken too, there are two ways inside, and flags are not known there.
        code.extend([if rng.bool() { 0xeb } else { 0x79 }, distance.wrapping_neg()]);
        code[start - 1] = (code.len() - start) as u8;
        for pair in &self.pairs()[1..] {
            self.exchange(&mut code, *pair);
        }
        Self::exchange_vectors(&mut code);
        match maker {
            Maker::Sahf => {
                self.absolute(&mut code, &[0xfe], 0, OPERAND);
                self.absolute(&mut code, &[0x86], 4, LOW_FLAGS); // XCHG with AH
                code.push(0x9e);
                self.absolute(&mut code, &[0x86], 4, LOW_FLAGS);
            }
            Maker::Cmp(with) => {
                self.absolute(&mut code, &[0x80], 7, OPERAND);
                code.push(with);
            }
            Maker::Inc => self.absolute(&mut code, &[0xfe], 0, OPERAND),
            Maker::Rol => self.absolute(&mut code, &[0xd0], 0, OPERAND),
            Maker::Test(with) => {
                self.absolute(&mut code, &[0xf6], 0, OPERAND);
                code.push(with);
            }
        }
        code
    }

    fn lead_out(&self, rng: &mut Rng) -> Vec<u8> {
        let mut code = Vec::new();
        for pair in self.pairs() {
            self.exchange(&mut code, *pair);
        }
        Self::exchange_vectors(&mut code);
        for (n, condition) in self.conditions.iter().enumerate() {
            self.absolute(&mut code, &[0x0f, 0x90 | condition], 0, SEEN + n as u32);
        }
        // Jcc over a NOP.
        code.extend([0x70 | rng.u8(..16), 1, 0x90, 0xeb, 0xfe]);
        code
    }

    /// Where the code behind the instruction ends, from where that begins.
    pub fn end(&self) -> u64 {
        self.behind.len() as u64 - 2
    }

    /// Makes the flags of `state` what the instruction will find, and tells the bytes at [`SCRATCH`] that lead to them.
    pub fn prepare(&self, state: &mut State, rng: &mut Rng) -> [u8; SCRATCH_BYTES] {
        let mut scratch = [0; SCRATCH_BYTES];
        let Some(maker) = self.maker else { return scratch };
        let flag = |condition: bool, flag: u64| if condition { flag } else { 0 };
        let of_result = |r: u8| flag(r == 0, ZF) | flag(r >= 0x80, SF) | flag(r.count_ones().is_multiple_of(2), PF);
        let before = state.flags;
        let m = [0, 0x7f, 0x80, 0xff, rng.u8(..), rng.u8(..)][rng.usize(..6)];
        let (operand, flags) = match maker {
            Maker::Sahf => (if before & OF == 0 { 0 } else { 0x7f }, before),
            Maker::Cmp(with) => {
                let r = m.wrapping_sub(with);
                let overflow = (m ^ with) & (m ^ r) >= 0x80;
                let adjust = u64::from(m ^ with ^ r) & AF;
                (m, of_result(r) | flag(m < with, CF) | flag(overflow, OF) | adjust)
            }
            Maker::Inc => {
                let r = m.wrapping_add(1);
                (m, of_result(r) | before & CF | flag(m == 0x7f, OF) | flag(m & 15 == 15, AF))
            }
            Maker::Rol => {
                let r = m.rotate_left(1);
                let (carry, sign) = (r & 1 != 0, r >= 0x80);
                // Of 0 less 1.
                (m, SF | PF | AF | flag(carry, CF) | flag(carry != sign, OF))
            }
            // AF is undefined, and clear here.
            Maker::Test(with) => (m, of_result(m & with)),
        };
        state.flags = before & !ARITHMETIC | flags & ARITHMETIC;
        scratch[..3].copy_from_slice(&[1, operand, before as u8]);
        scratch
    }

    /// Has registers change places as the code does.
    pub fn exchange_in(&self, state: &mut State) {
        if self.maker.is_none() {
            return;
        }
        self.pairs().iter().for_each(|(a, b)| state.gpr.swap(*a, *b));
        let (xmm0, xmm1) = state.fx.0[160..192].split_at_mut(16);
        xmm0.swap_with_slice(xmm1);
    }

    /// What the code behind the instruction, which has left `flags`, should have seen and has not.
    pub fn look_back(&self, flags: u64, scratch: &[u8; SCRATCH_BYTES], differences: &mut Vec<String>) {
        if self.maker.is_none() {
            return;
        }
        for (condition, seen) in self.conditions.iter().zip(&scratch[3..]) {
            let has = |mask: u64| flags & mask != 0;
            let less = has(SF) != has(OF);
            let holds = match condition >> 1 {
                0 => has(OF),
                1 => has(CF),
                2 => has(ZF),
                3 => has(CF | ZF),
                4 => has(SF),
                5 => has(PF),
                6 => less,
                _ => less || has(ZF),
            } != (condition & 1 != 0);
            if *seen != u8::from(holds) {
                differences.push(format!("condition {condition:x} of the flags {flags:x} was seen as {seen}"));
            }
        }
    }
}
