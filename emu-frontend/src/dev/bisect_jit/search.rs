//! The search: a guest is run again and again from its start, interpreted and with a choice of its regions compiled.
//!
//! ```text
//!  all regions        --------+---------+----X           which checkpoint is the first where both differ?
//!  the first n        --------+---------+----X           what is the least n with which they still differ there?
//!  the first n        --------+---------+--X             after how many instructions, exactly?
//!  region n, cut      --------+---------+--X             how much of the block that ran there does it take?
//! ```
//! Each step relies on runs being alike up to where they are made to differ: compilation is immediate, time is counted in
//! instructions, and all runs stop at the same checkpoints. A compiled block is paid for before its first instruction, so a
//! guest that is stopped within it interprets it: hence both agree up to the end of the block that is to blame.

use super::filter::{Choice, Cut, Filter, Seen};
use crate::cli::error::StartError;
use crate::dev::lockstep::portrait;
use emu_core::exec::Vcpu;
use emu_core::exec::region::{Compiler, Source};
use std::fmt::Write;
use std::sync::Arc;

/// Bytes of RAM that are compared at a time.
const CHUNK: usize = 1 << 16;

/// A guest that runs alike each time.
pub trait Guest {
    /// Its processor.
    fn cpu(&mut self) -> &mut Vcpu;
    /// Instructions since its start.
    fn retired(&mut self) -> u64;
    /// Runs until `target` instructions have retired; `false` if the guest has ended before.
    fn advance(&mut self, target: u64) -> Result<bool, StartError>;
}

/// What a search needs.
pub struct Search<'a> {
    /// Makes a guest at its start.
    pub guest: &'a dyn Fn() -> Result<Box<dyn Guest + 'a>, StartError>,
    /// Makes the compiler under suspicion, which compiles at once.
    pub compiler: &'a dyn Fn() -> Result<Box<dyn Compiler>, StartError>,
    /// Instructions between checkpoints, at least 1.
    pub every: u64,
    /// Is told what goes on.
    pub progress: &'a dyn Fn(&str),
}

/// What a search has found.
pub enum Verdict {
    /// Both run alike.
    Agree {
        /// Instructions that were compared.
        instructions: u64,
        /// Regions that were compiled.
        regions: u64,
    },
    /// They differ, but not because of compiled code, or not each time: why that is known.
    Unclear(String),
    /// Compiled code is to blame.
    Parted(Box<Culprit>),
}

/// What the first run comes to.
enum First {
    /// A difference at a checkpoint.
    Difference(u64),
    /// None.
    End(Verdict),
}

/// What is to blame.
pub struct Culprit {
    /// They differ first after so many instructions.
    pub instructions: u64,
    /// What differs then.
    pub difference: String,
    /// Which region it takes, in the order in which they were compiled, counted from 1.
    pub number: u64,
    /// That region.
    pub region: Source,
    /// The block that ran, and the instruction in it without which there is no difference; `None` if the region has not
    /// just run: then how it is entered, left or given up is to blame.
    pub place: Option<(usize, usize)>,
}

impl<'a> Search<'a> {
    /// Looks for the first difference within `instructions`.
    ///
    /// # Errors
    /// A guest or a compiler cannot be made, or a guest cannot go on.
    pub fn run(&self, instructions: u64) -> Result<Verdict, StartError> {
        let target = match self.first_seen(instructions)? {
            First::Difference(target) => target,
            First::End(verdict) => return Ok(verdict),
        };
        let target = self.first_checkpoint(target)?;
        (self.progress)(&format!("they differ at the checkpoint after {target} instructions"));
        let regions = self.at(Choice::ALL, target)?.seen.asked();
        let first = |n| Choice { first: n, cut: None };
        if self.differ(first(0), target)? {
            return Ok(Verdict::Unclear(format!("they differ before {target} instructions without compiled code")));
        }
        if regions == 0 || !self.differ(first(regions), target)? {
            return Ok(Verdict::Unclear(format!("they differ before {target} instructions, but not each time")));
        }
        let number = least(0, regions, |n| self.differ(first(n), target))?;
        (self.progress)(&format!("it takes region {number} of {regions}"));
        let choice = first(number);
        let before = (target - 1) / self.every * self.every;
        let low = if self.differ(choice, before)? { 0 } else { before };
        let instructions = least(low, target, |n| self.differ(choice, n))?;
        let mut pair = self.at(choice, instructions)?;
        let (difference, region) = (pair.difference(true), pair.seen.last());
        let (Some(difference), Some(region)) = (difference, region) else {
            return Ok(Verdict::Unclear(format!("they differ before {target} instructions, but not each time")));
        };
        (self.progress)(&format!("they differ first after {instructions} instructions"));
        let rip = self.at(choice, instructions - 1)?.plain.cpu().state.rip;
        let place = self.place(&region, rip, number, instructions)?;
        Ok(Verdict::Parted(Box::new(Culprit { instructions, difference, number, region, place })))
    }

    /// The checkpoint at which registers are seen to differ; for the last one, memory counts too.
    fn first_seen(&self, instructions: u64) -> Result<First, StartError> {
        let mut pair = self.pair(Choice::ALL)?;
        let mut target = 0;
        loop {
            target = (target + self.every).min(instructions);
            let last = !pair.advance(target)? || target == instructions;
            if pair.difference(last).is_some() {
                return Ok(First::Difference(target));
            }
            if last {
                let (instructions, regions) = (pair.plain.retired(), pair.compiled.cpu().stats.regions);
                return Ok(First::End(Verdict::Agree { instructions, regions }));
            }
        }
    }

    /// The first checkpoint at which anything differs, where something does at `seen`.
    fn first_checkpoint(&self, seen: u64) -> Result<u64, StartError> {
        let last = seen.div_ceil(self.every);
        let at = |n: u64| (n * self.every).min(seen);
        // Most differences are seen at once.
        if last == 1 || !self.differ(Choice::ALL, at(last - 1))? {
            return Ok(seen);
        }
        Ok(at(least(0, last - 1, |n| self.differ(Choice::ALL, at(n)))?))
    }

    /// The instruction of `region` before whose end at `rip` both agree.
    fn place(&self, region: &Source, rip: u64, number: u64, target: u64) -> Result<Option<(usize, usize)>, StartError> {
        for (block, source) in region.blocks.iter().enumerate() {
            let start = region.rip.wrapping_add_signed(source.delta);
            if rip.wrapping_sub(start) >= source.bytes.len() as u64 {
                continue;
            }
            let choice = |insns| Choice { first: number, cut: Some(Cut { block, insns }) };
            // Blocks can overlap. Without the first there is no region, and no difference.
            if block != 0 && self.differ(choice(0), target)? {
                continue;
            }
            let all = source.insns.len() as u64;
            let needed = least(0, all, |insns| self.differ(choice(insns as usize), target))?;
            return Ok(Some((block, needed as usize - 1)));
        }
        Ok(None)
    }

    fn differ(&self, choice: Choice, target: u64) -> Result<bool, StartError> {
        Ok(self.at(choice, target)?.difference(true).is_some())
    }

    /// Both guests after `target` instructions, having stopped at each checkpoint before.
    fn at(&self, choice: Choice, target: u64) -> Result<Pair<'a>, StartError> {
        let mut pair = self.pair(choice)?;
        let mut at = 0;
        while at < target {
            at = (at + self.every).min(target);
            if !pair.advance(at)? {
                break;
            }
        }
        Ok(pair)
    }

    fn pair(&self, choice: Choice) -> Result<Pair<'a>, StartError> {
        let seen = Arc::new(Seen::default());
        let mut compiled = (self.guest)()?;
        let filter = Filter::new((self.compiler)()?, choice, seen.clone());
        compiled.cpu().set_compiler(Some(Box::new(filter)));
        Ok(Pair { plain: (self.guest)()?, compiled, seen })
    }
}

/// The least number above `low` for which `holds`, as it does for `high`.
fn least(mut low: u64, mut high: u64, holds: impl Fn(u64) -> Result<bool, StartError>) -> Result<u64, StartError> {
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if holds(middle)? { high = middle } else { low = middle }
    }
    Ok(high)
}

/// The same guest twice.
struct Pair<'a> {
    plain: Box<dyn Guest + 'a>,
    compiled: Box<dyn Guest + 'a>,
    seen: Arc<Seen>,
}

impl Pair<'_> {
    fn advance(&mut self, target: u64) -> Result<bool, StartError> {
        let plain = self.plain.advance(target)?;
        Ok(self.compiled.advance(target)? && plain)
    }

    /// What differs between the processors and, if asked for, the memories.
    fn difference(&mut self, memory: bool) -> Option<String> {
        let mut text = String::new();
        // Writing to a string cannot fail.
        for (compiled, plain) in portrait(self.compiled.cpu()).iter().zip(portrait(self.plain.cpu())) {
            if *compiled != plain {
                let _ = write!(text, "compiled {compiled} | interpreted {plain}; ");
            }
        }
        let (compiled, plain) = (self.compiled.retired(), self.plain.retired());
        if compiled != plain {
            let _ = write!(text, "instructions: compiled {compiled} | interpreted {plain}; ");
        }
        if let Some(at) = memory.then(|| self.memory_difference()).flatten() {
            let _ = write!(text, "RAM from byte {at:#x}; ");
        }
        (!text.is_empty()).then(|| text.trim_end_matches("; ").to_string())
    }

    /// The first byte of RAM that differs.
    fn memory_difference(&mut self) -> Option<usize> {
        let (plain, compiled) = (self.plain.cpu().memory.clone(), self.compiled.cpu().memory.clone());
        let (mut a, mut b) = (vec![0; CHUNK], vec![0; CHUNK]);
        let len = plain.ram().len();
        (0..len).step_by(CHUNK).find_map(|start| {
            let size = CHUNK.min(len - start);
            plain.ram().read(start, &mut a[..size]);
            compiled.ram().read(start, &mut b[..size]);
            if a == b {
                return None;
            }
            a.iter().zip(&b).position(|(a, b)| a != b).map(|at| start + at)
        })
    }
}
