//! Comparisons: CMPxx predicates, COMISx and UCOMISx, MINxx and MAXxx.

use super::super::{Relation, flags};
use super::{Scalar, SseEnv};

/// The comparison predicates of CMPPS and its relatives: the imm8 values 0-7 (SDM Vol. 2A, table 3-1). The other 24 that
/// VEX encodings have are absent until AVX is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predicate {
    Equal,
    LessThan,
    LessOrEqual,
    Unordered,
    NotEqual,
    NotLessThan,
    NotLessOrEqual,
    Ordered,
}

impl Predicate {
    /// Decodes imm8; legacy encodings use its low three bits only.
    #[inline(always)]
    pub const fn from_imm8(imm8: u8) -> Self {
        match imm8 & 7 {
            0 => Self::Equal,
            1 => Self::LessThan,
            2 => Self::LessOrEqual,
            3 => Self::Unordered,
            4 => Self::NotEqual,
            5 => Self::NotLessThan,
            6 => Self::NotLessOrEqual,
            _ => Self::Ordered,
        }
    }

    const fn signals_on_quiet_nan(self) -> bool {
        matches!(self, Self::LessThan | Self::LessOrEqual | Self::NotLessThan | Self::NotLessOrEqual)
    }

    #[inline(always)]
    pub(super) const fn holds(self, relation: Relation) -> bool {
        let positive = match self {
            Self::Equal | Self::NotEqual => matches!(relation, Relation::Equal),
            Self::LessThan | Self::NotLessThan => matches!(relation, Relation::Less),
            Self::LessOrEqual | Self::NotLessOrEqual => matches!(relation, Relation::Less | Relation::Equal),
            Self::Unordered | Self::Ordered => matches!(relation, Relation::Unordered),
        };
        let inverted = matches!(self, Self::NotEqual | Self::NotLessThan | Self::NotLessOrEqual | Self::Ordered);
        positive != inverted
    }
}

#[inline(always)]
fn compare<T: Scalar>(env: &mut SseEnv, a: T, b: T, signals_on_quiet_nan: bool) -> Relation {
    if a.is_nan() || b.is_nan() {
        if signals_on_quiet_nan || a.is_signalling() || b.is_signalling() {
            env.raise(flags::IE);
        }
        return Relation::Unordered;
    }
    let (a, b) = if a.is_denormal() || b.is_denormal() { denormal_operands(env, a, b) } else { (a, b) };
    if T::host_less(a, b) {
        Relation::Less
    } else if T::host_equal(a, b) {
        Relation::Equal
    } else {
        Relation::Greater
    }
}

/// Zeroes denormal operands under DAZ, else raises DE.
#[cold]
fn denormal_operands<T: Scalar>(env: &mut SseEnv, a: T, b: T) -> (T, T) {
    if env.daz() {
        let zeroed = |x: T| if x.is_denormal() { T::from_bits(x.into() & T::SIGN.into()) } else { x };
        (zeroed(a), zeroed(b))
    } else {
        env.raise(flags::DE);
        (a, b)
    }
}

/// COMISS, COMISD: a quiet NaN is invalid too.
#[inline(always)]
pub fn compare_ordered<T: Scalar>(env: &mut SseEnv, a: T, b: T) -> Relation {
    compare(env, a, b, true)
}

/// UCOMISS, UCOMISD: only a signalling NaN is invalid.
#[inline(always)]
pub fn compare_unordered<T: Scalar>(env: &mut SseEnv, a: T, b: T) -> Relation {
    compare(env, a, b, false)
}

/// Whether `predicate` holds between `a` and `b` (CMPSS and its relatives; the instruction makes a mask of it).
#[inline(always)]
pub fn compare_predicate<T: Scalar>(env: &mut SseEnv, predicate: Predicate, a: T, b: T) -> bool {
    predicate.holds(compare(env, a, b, predicate.signals_on_quiet_nan()))
}

/// MINSS and its relatives: the second operand unless the first is less. So it is for NaNs, which are not made quiet,
/// and for two zeros.
#[inline(always)]
pub fn min<T: Scalar>(env: &mut SseEnv, a: T, b: T) -> T {
    select(env, a, b, |a, b| T::host_less(a, b))
}

/// MAXSS and its relatives: the second operand unless the first is greater.
#[inline(always)]
pub fn max<T: Scalar>(env: &mut SseEnv, a: T, b: T) -> T {
    select(env, a, b, |a, b| T::host_less(b, a))
}

#[inline(always)]
fn select<T: Scalar>(env: &mut SseEnv, a: T, b: T, first: impl Fn(T, T) -> bool) -> T {
    if a.is_nan() || b.is_nan() {
        env.raise(flags::IE);
        // DAZ applies to an operand that is returned, too.
        return if b.is_denormal() { denormal_operand_of_nan(env, b) } else { b };
    }
    let (a, b) = if a.is_denormal() || b.is_denormal() { denormal_operands(env, a, b) } else { (a, b) };
    if first(a, b) { a } else { b }
}

#[cold]
fn denormal_operand_of_nan<T: Scalar>(env: &SseEnv, b: T) -> T {
    if env.daz() { T::from_bits(b.into() & T::SIGN.into()) } else { b }
}
