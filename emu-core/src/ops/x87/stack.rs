//! The register stack: access relative to TOP, tags, and the words that describe them (SDM Vol. 1, 8.1.2 to 8.1.7).

use super::status;
use crate::cpu::fpu::FpuState;
use crate::softfloat::x87::Class;
use crate::softfloat::{F80, Relation};

impl FpuState {
    #[inline(always)]
    fn physical(&self, i: u8) -> usize {
        usize::from(self.top.wrapping_add(i) & 7)
    }

    /// ST(i), whether or not it is empty.
    #[inline(always)]
    pub(super) fn st(&self, i: u8) -> F80 {
        self.r[self.physical(i)]
    }

    /// Writes ST(i), which is not empty then.
    #[inline(always)]
    pub(super) fn set_st(&mut self, i: u8, value: F80) {
        let n = self.physical(i);
        self.r[n] = value;
        self.empty &= !(1 << n);
    }

    #[inline(always)]
    pub(super) fn is_empty(&self, i: u8) -> bool {
        self.empty >> self.physical(i) & 1 != 0
    }

    /// Marks ST(i) empty.
    #[inline(always)]
    pub(super) fn free(&mut self, i: u8) {
        self.empty |= 1 << self.physical(i);
    }

    /// Pushes without a check.
    #[inline(always)]
    pub(super) fn push(&mut self, value: F80) {
        self.top = self.top.wrapping_sub(1) & 7;
        self.set_st(0, value);
    }

    /// Pops without a check.
    #[inline(always)]
    pub(super) fn pop(&mut self) {
        self.free(0);
        self.top = (self.top + 1) & 7;
    }

    /// Sets or clears a condition code.
    #[inline(always)]
    pub(super) fn set_condition(&mut self, bit: u16, on: bool) {
        self.status = self.status & !bit | if on { bit } else { 0 };
    }

    /// Sets C3, C2 and C0 as comparisons do.
    #[inline(always)]
    pub(super) fn set_relation(&mut self, relation: Relation) {
        let codes = match relation {
            Relation::Greater => 0,
            Relation::Less => status::C0,
            Relation::Equal => status::C3,
            Relation::Unordered => status::C3 | status::C2 | status::C0,
        };
        self.status = self.status & !(status::C3 | status::C2 | status::C0) | codes;
    }

    /// The status word with TOP.
    pub(super) fn status_word(&self) -> u16 {
        self.status | u16::from(self.top) << status::TOP_SHIFT
    }

    /// Sets the status word and TOP. ES and B follow from flags and masks.
    pub(super) fn set_status_word(&mut self, value: u16) {
        self.top = (value >> status::TOP_SHIFT & 7) as u8;
        self.status = value & !(7 << status::TOP_SHIFT);
        self.update_summary();
    }

    /// Sets the control word; bit 6 always reads as one, bits 7 and 13 to 15 as zero.
    pub(super) fn set_control(&mut self, value: u16) {
        self.control = value & 0x1F7F | 0x40;
        self.update_summary();
    }

    /// Derives ES and B: an exception flag is set that is not masked.
    pub(super) fn update_summary(&mut self) {
        let pending = self.status & !self.control & 0x3F != 0;
        self.set_condition(status::ES, pending);
        self.set_condition(status::B, pending);
    }

    /// The full tag word: two bits for each physical register.
    pub(super) fn tag_word(&self) -> u16 {
        (0..8).rev().fold(0, |word, n| {
            let tag = if self.empty >> n & 1 != 0 {
                3
            } else {
                match self.r[n].class() {
                    Class::Normal => 0,
                    Class::Zero => 1,
                    _ => 2,
                }
            };
            word << 2 | tag
        })
    }

    /// Sets the tags from a full tag word, of which only "empty" counts.
    pub(super) fn set_tag_word(&mut self, word: u16) {
        self.empty = (0..8).fold(0, |empty, n| empty | u8::from(word >> (2 * n) & 3 == 3) << n);
    }

    /// FNINIT (the registers keep their contents).
    pub(super) fn init(&mut self) {
        *self = FpuState {
            r: self.r,
            control: crate::softfloat::x87::control::INITIAL,
            status: 0,
            top: 0,
            empty: 0xFF,
            opcode: 0,
            fip: 0,
            fcs: 0,
            fdp: 0,
            fds: 0,
        };
    }
}
