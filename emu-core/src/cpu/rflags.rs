//! RFLAGS: the bits (SDM Vol. 1 3.4.3) and the lazy form of the six arithmetic flags.

use serde::{Deserialize, Serialize};

/// Carry.
pub const CF: u64 = 1 << 0;
/// Parity of the low byte of the result: set if even.
pub const PF: u64 = 1 << 2;
/// Auxiliary carry out of bit 3.
pub const AF: u64 = 1 << 4;
/// Zero.
pub const ZF: u64 = 1 << 6;
/// Sign.
pub const SF: u64 = 1 << 7;
/// Single-step trap.
pub const TF: u64 = 1 << 8;
/// Interrupt enable.
pub const IF: u64 = 1 << 9;
/// Direction of string operations.
pub const DF: u64 = 1 << 10;
/// Overflow.
pub const OF: u64 = 1 << 11;
/// I/O privilege level, two bits.
pub const IOPL: u64 = 3 << 12;
/// Nested task.
pub const NT: u64 = 1 << 14;
/// Resume: instruction breakpoints are off for one instruction.
pub const RF: u64 = 1 << 16;
/// Virtual-8086 mode.
pub const VM: u64 = 1 << 17;
/// Alignment check, and SMAP override.
pub const AC: u64 = 1 << 18;
/// Virtual interrupt flag.
pub const VIF: u64 = 1 << 19;
/// Virtual interrupt pending.
pub const VIP: u64 = 1 << 20;
/// CPUID is available.
pub const ID: u64 = 1 << 21;
/// The bit that always reads as one.
pub const FIXED: u64 = 1 << 1;
/// The six arithmetic flags.
pub const ARITH: u64 = CF | PF | AF | ZF | SF | OF;
/// All bits that exist besides [`FIXED`] and [`ARITH`].
pub const SYSTEM: u64 = TF | IF | DF | IOPL | NT | RF | VM | AC | VIF | VIP | ID;

/// What last set the arithmetic flags. `x` and `y` are its operands and `r` its result, all sign-extended from the
/// operation's width to 64 bits, so that signed and unsigned comparisons need no width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum FlagOp {
    /// `r = x + y`
    Add,
    /// `r = x + y + 1`
    AddCarry,
    /// `r = x - y`. A logic operation is `Sub` with `x = r`, `y = 0`.
    Sub,
    /// `r = x - y - 1`
    SubBorrow,
    /// `r = x + 1`, `y = 1`, CF kept in [`LazyFlags::carry`].
    Inc,
    /// `r = x - 1`, `y = 1`, CF kept in [`LazyFlags::carry`].
    Dec,
    /// ZF, SF and PF from `r`; CF, OF and AF are bits of `y` at their places in RFLAGS.
    Parts,
    /// All six are bits of `y` at their places in RFLAGS.
    Bits,
}

/// The arithmetic flags, not yet computed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[repr(C)]
pub struct LazyFlags {
    /// The result.
    pub r: u64,
    /// The first operand.
    pub x: u64,
    /// The second operand.
    pub y: u64,
    /// What was done.
    pub op: FlagOp,
    /// CF from before an [`FlagOp::Inc`] or [`FlagOp::Dec`].
    pub carry: bool,
}

impl Default for LazyFlags {
    fn default() -> LazyFlags {
        LazyFlags { r: 0, x: 0, y: 0, op: FlagOp::Bits, carry: false }
    }
}

impl LazyFlags {
    /// Flags set by an operation.
    #[inline(always)]
    pub fn set(&mut self, op: FlagOp, x: u64, y: u64, r: u64) {
        self.op = op;
        self.x = x;
        self.y = y;
        self.r = r;
    }

    /// Flags of a logic result: CF, OF and AF clear.
    #[inline(always)]
    pub fn set_logic(&mut self, r: u64) {
        self.set(FlagOp::Sub, r, 0, r);
    }

    /// Flags given as RFLAGS bits.
    #[inline(always)]
    pub fn set_bits(&mut self, bits: u64) {
        self.op = FlagOp::Bits;
        self.y = bits;
    }

    /// Replaces the flags in `mask` by those of `bits`.
    pub fn replace(&mut self, mask: u64, bits: u64) {
        let kept = self.bits() & !mask;
        self.set_bits(kept | (bits & mask));
    }

    /// Replaces CF and OF, as rotates do; `bits` holds them at their places in RFLAGS.
    #[inline(always)]
    pub fn set_cf_of(&mut self, bits: u64) {
        let af = if self.af() { AF } else { 0 };
        match self.op {
            FlagOp::Bits => self.y = (self.y & !(CF | OF)) | bits,
            _ => {
                self.op = FlagOp::Parts;
                self.y = bits | af;
            }
        }
    }

    /// Replaces CF alone, as bit tests do.
    #[inline(always)]
    pub fn set_cf(&mut self, carry: bool) {
        let of = if self.of() { OF } else { 0 };
        self.set_cf_of(of | u64::from(carry));
    }

    /// Carry.
    #[inline(always)]
    pub fn cf(&self) -> bool {
        match self.op {
            FlagOp::Sub => self.x < self.y,
            FlagOp::Add => self.r < self.x,
            FlagOp::AddCarry => self.r <= self.x,
            FlagOp::SubBorrow => self.x <= self.y,
            FlagOp::Inc | FlagOp::Dec => self.carry,
            FlagOp::Parts | FlagOp::Bits => self.y & CF != 0,
        }
    }

    /// Zero.
    #[inline(always)]
    pub fn zf(&self) -> bool {
        match self.op {
            FlagOp::Bits => self.y & ZF != 0,
            _ => self.r == 0,
        }
    }

    /// Sign.
    #[inline(always)]
    pub fn sf(&self) -> bool {
        match self.op {
            FlagOp::Bits => self.y & SF != 0,
            _ => (self.r as i64) < 0,
        }
    }

    /// Overflow.
    #[inline(always)]
    pub fn of(&self) -> bool {
        match self.op {
            FlagOp::Sub | FlagOp::SubBorrow | FlagOp::Dec => ((self.x ^ self.y) & (self.x ^ self.r)) >> 63 != 0,
            FlagOp::Add | FlagOp::AddCarry | FlagOp::Inc => ((self.x ^ self.r) & (self.y ^ self.r)) >> 63 != 0,
            FlagOp::Parts | FlagOp::Bits => self.y & OF != 0,
        }
    }

    /// Parity.
    #[inline(always)]
    pub fn pf(&self) -> bool {
        match self.op {
            FlagOp::Bits => self.y & PF != 0,
            _ => (self.r as u8).count_ones() & 1 == 0,
        }
    }

    /// Auxiliary carry.
    #[inline(always)]
    pub fn af(&self) -> bool {
        match self.op {
            FlagOp::Parts | FlagOp::Bits => self.y & AF != 0,
            _ => (self.x ^ self.y ^ self.r) & 0x10 != 0,
        }
    }

    /// All six, at their places in RFLAGS.
    pub fn bits(&self) -> u64 {
        if self.op == FlagOp::Bits {
            return self.y & ARITH;
        }
        let bit = |set: bool, mask: u64| if set { mask } else { 0 };
        bit(self.cf(), CF)
            | bit(self.pf(), PF)
            | bit(self.af(), AF)
            | bit(self.zf(), ZF)
            | bit(self.sf(), SF)
            | bit(self.of(), OF)
    }

    /// The condition code `cc`, 0 to 15, as encoded in Jcc (SDM Vol. 2 B.1.4.7).
    #[inline(always)]
    pub fn condition(&self, cc: u8) -> bool {
        let value = match cc >> 1 & 7 {
            0 => self.of(),
            1 => self.cf(),
            2 => self.zf(),
            3 => match self.op {
                FlagOp::Sub => self.x <= self.y,
                _ => self.cf() || self.zf(),
            },
            4 => self.sf(),
            5 => self.pf(),
            6 => match self.op {
                FlagOp::Sub => (self.x as i64) < (self.y as i64),
                _ => self.sf() != self.of(),
            },
            _ => match self.op {
                FlagOp::Sub => (self.x as i64) <= (self.y as i64),
                _ => self.zf() || self.sf() != self.of(),
            },
        };
        value != (cc & 1 != 0)
    }
}
