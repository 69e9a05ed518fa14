//! A compiler that compiles only the first so many regions that are asked for, and can leave instructions out of the last.

use emu_core::exec::region::{Answer, Compiler, Refusal, Source};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Which regions are compiled.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// So many, in the order in which they are asked for. Two guests whose choices differ run alike up to the first
    /// region that only one of them has.
    pub first: u64,
    /// What is left of the last of them.
    pub cut: Option<Cut>,
}

impl Choice {
    /// All regions.
    pub const ALL: Choice = Choice { first: u64::MAX, cut: None };
}

/// A block that ends early.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Its number in the region.
    pub block: usize,
    /// So many of its instructions are left; if none, the region does without the block.
    pub insns: usize,
}

/// What a [`Filter`] has seen.
#[derive(Default)]
pub struct Seen {
    asked: AtomicU64,
    last: Mutex<Option<Source>>,
}

impl Seen {
    /// How many regions were asked for.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// The last region that the choice has compiled, whole.
    pub fn last(&self) -> Option<Source> {
        // Nothing panics while it holds the lock.
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// See the module's documentation. It compiles at once if `inner` does.
pub struct Filter {
    inner: Box<dyn Compiler>,
    choice: Choice,
    seen: Arc<Seen>,
    refused: VecDeque<u64>,
}

impl Filter {
    /// What `choice` leaves of the requests goes to `inner`.
    pub fn new(inner: Box<dyn Compiler>, choice: Choice, seen: Arc<Seen>) -> Filter {
        Filter { inner, choice, seen, refused: VecDeque::new() }
    }
}

impl Compiler for Filter {
    fn threshold(&self) -> u32 {
        self.inner.threshold()
    }

    fn capacity(&self) -> usize {
        self.inner.capacity()
    }

    fn request(&mut self, mut source: Source) -> bool {
        let number = self.seen.asked.fetch_add(1, Ordering::Relaxed);
        if number >= self.choice.first {
            self.refused.push_back(source.ticket);
            return true;
        }
        if number + 1 == self.choice.first {
            *self.seen.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(source.clone());
            match self.choice.cut {
                Some(Cut { block, insns: 0 }) => drop(source.blocks.remove(block)),
                Some(Cut { block, insns }) => source.blocks[block].truncate(insns),
                None => {}
            }
        }
        self.inner.request(source)
    }

    fn ready(&self) -> bool {
        !self.refused.is_empty() || self.inner.ready()
    }

    fn take(&mut self) -> Option<(u64, Answer)> {
        match self.refused.pop_front() {
            Some(ticket) => Some((ticket, Err(Refusal::Never))),
            None => self.inner.take(),
        }
    }
}
