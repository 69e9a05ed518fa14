//! The thread that compiles.

use crate::lower::Translator;
use emu_core::exec::region::{Answer, Compiler, Refusal, Source, SourceBlock};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Executions of a block before its region is compiled: about what an interpreted execution costs less than a compiled
/// one, into what compiling costs (ARCHITECTURE.md has the figures).
const THRESHOLD: u32 = 1000;

/// Bytes of code at most, unless the user says otherwise.
pub const CAPACITY: usize = 64 << 20;

/// Sources that may wait for the worker; the oldest are given up for newer ones.
const WAITING: usize = 256;

/// How long a source may wait. What is still executed asks again before long; the rest, such as what a system does
/// once while it starts, would be compiled for nothing, beside a vCPU that may share the core.
const PATIENCE: Duration = Duration::from_millis(200);

/// Under stress, one region of so many is compiled whole.
const WHOLE: u64 = 8;

/// Instructions of the others at most, if their first block has no more.
const SHORT: usize = 24;

type Finished = (u64, Answer);

/// A core that the vCPU wants too it has for 3 of 10 parts of the time. With less, hot code waits for too long on a busy host.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 4;

/// Lets the vCPU go first where the two share a core. Only on Linux is this a matter of one thread.
fn step_back() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!("the thread that compiles keeps its priority: {error}");
    }
}

/// What the vCPU's thread and the worker share.
#[derive(Default)]
struct Shared {
    work: Mutex<Work>,
    /// The worker waits here for sources.
    more: Condvar,
    /// Answers that have not been taken.
    finished: AtomicUsize,
}

#[derive(Default)]
struct Work {
    /// The newest, which is the last, is compiled first: it is the code that runs now. With each, when it was asked for.
    sources: VecDeque<(Source, Instant)>,
    answers: Vec<Finished>,
    closed: bool,
}

impl Shared {
    fn work(&self) -> MutexGuard<'_, Work> {
        // Nothing panics while it holds the lock.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next source; `None` at the end.
    fn next(&self) -> Option<Source> {
        let mut work = self.work();
        loop {
            if work.closed {
                return None;
            }
            self.give_up_old_ones(&mut work, Instant::now());
            if let Some((source, _)) = work.sources.pop_back() {
                return Some(source);
            }
            work = self.more.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Refuses what was asked for longer ago than [`PATIENCE`].
    fn give_up_old_ones(&self, work: &mut Work, now: Instant) {
        while work.sources.front().is_some_and(|(_, asked)| now.saturating_duration_since(*asked) > PATIENCE) {
            self.give_up_the_oldest(work);
        }
    }

    fn give_up_the_oldest(&self, work: &mut Work) {
        if let Some((source, _)) = work.sources.pop_front() {
            work.answers.push((source.ticket, Err(Refusal::Later)));
            self.finished.fetch_add(1, Ordering::Release);
        }
    }

    fn finish(&self, answer: Finished) {
        self.work().answers.push(answer);
        self.finished.fetch_add(1, Ordering::Release);
    }
}

/// The Cranelift tier: compiles regions on a thread of its own.
pub struct Jit {
    capacity: usize,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Jit {
    /// Starts the worker. There are at most `capacity` bytes of code.
    ///
    /// # Errors
    /// If Cranelift has no back end for this host, or no thread can be made: a line for the user.
    pub fn new(capacity: usize) -> Result<Jit, String> {
        let mut translator = Translator::new()?;
        let shared = Arc::new(Shared::default());
        let worker = shared.clone();
        let work = move || {
            step_back();
            while let Some(source) = worker.next() {
                let ticket = source.ticket;
                worker.finish((ticket, translator.compile(&source)));
            }
        };
        let thread = std::thread::Builder::new()
            .name("jit".into())
            .spawn(work)
            .map_err(|error| format!("the thread that compiles cannot be started: {error}"))?;
        Ok(Jit { capacity, shared, thread: Some(thread) })
    }
}

impl Compiler for Jit {
    fn threshold(&self) -> u32 {
        THRESHOLD
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn request(&mut self, source: Source) -> bool {
        let mut work = self.shared.work();
        work.sources.push_back((source, Instant::now()));
        if work.sources.len() > WAITING {
            self.shared.give_up_the_oldest(&mut work);
        }
        drop(work);
        self.shared.more.notify_one();
        true
    }

    fn ready(&self) -> bool {
        self.shared.finished.load(Ordering::Acquire) != 0
    }

    fn take(&mut self) -> Option<Finished> {
        let answer = self.shared.work().answers.pop()?;
        self.shared.finished.fetch_sub(1, Ordering::Relaxed);
        Some(answer)
    }
}

impl Drop for Jit {
    fn drop(&mut self) {
        // What the worker is compiling now it finishes.
        self.shared.work().closed = true;
        self.shared.more.notify_one();
        if let Some(thread) = self.thread.take() {
            // A worker that panicked has said so on stderr; there is nothing to add.
            drop(thread.join());
        }
    }
}

/// Compiles at once, on the vCPU's thread, whatever has run `threshold` times: for tests, where every run is to be the same.
pub struct Immediate {
    translator: Translator,
    threshold: u32,
    capacity: usize,
    /// Most regions are cut short.
    stressed: bool,
    /// Even what the interpreter executes faster is compiled.
    everything: bool,
    answers: VecDeque<Finished>,
}

impl Immediate {
    /// Compiles blocks that have run `threshold` times.
    ///
    /// # Errors
    /// As [`Jit::new`].
    pub fn new(threshold: u32) -> Result<Immediate, String> {
        Immediate::with_capacity(threshold, CAPACITY)
    }

    /// The same, with at most `capacity` bytes of code.
    ///
    /// # Errors
    /// As [`Jit::new`].
    pub fn with_capacity(threshold: u32, capacity: usize) -> Result<Immediate, String> {
        let translator = Translator::new()?;
        let (stressed, everything) = (false, false);
        Ok(Immediate { translator, threshold, capacity, stressed, everything, answers: VecDeque::new() })
    }

    /// The same as [`Immediate::new`], for regions too that are hardly more than calls of the interpreter's functions.
    ///
    /// # Errors
    /// As [`Jit::new`].
    pub fn of_everything(threshold: u32) -> Result<Immediate, String> {
        Ok(Immediate { everything: true, ..Immediate::new(threshold)? })
    }

    /// The same for a guest under stress, with little room and a low threshold: most regions are a few blocks only, which
    /// take little time to compile, are left and entered all the time, and begin and end where others do not.
    ///
    /// # Errors
    /// As [`Jit::new`].
    pub fn stressed(threshold: u32, capacity: usize) -> Result<Immediate, String> {
        Ok(Immediate { stressed: true, ..Immediate::with_capacity(threshold, capacity)? })
    }
}

/// Leaves of `source` the blocks that have [`SHORT`] instructions together, or the first one.
fn cut_short(source: &mut Source) {
    let mut count = 0;
    let mut fit = |block: &SourceBlock| {
        count += block.insns.len();
        count <= SHORT
    };
    let blocks = source.blocks.iter().position(|block| !fit(block)).unwrap_or(source.blocks.len());
    source.blocks.truncate(blocks.max(1));
}

impl Compiler for Immediate {
    fn threshold(&self) -> u32 {
        self.threshold
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn request(&mut self, mut source: Source) -> bool {
        let ticket = source.ticket;
        if self.stressed && !ticket.is_multiple_of(WHOLE) {
            cut_short(&mut source);
        }
        let compiled = match self.everything {
            true => self.translator.compile_always(&source),
            false => self.translator.compile(&source),
        };
        self.answers.push_back((ticket, compiled));
        true
    }

    fn ready(&self) -> bool {
        !self.answers.is_empty()
    }

    fn take(&mut self) -> Option<Finished> {
        self.answers.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(ticket: u64) -> Source {
        Source { ticket, rip: 0, mode: 0, blocks: Vec::new() }
    }

    #[test]
    fn sources_that_waited_too_long_are_refused_and_the_newest_is_next() {
        let shared = Shared::default();
        let start = Instant::now();
        let later = start + PATIENCE + Duration::from_millis(1);
        let mut work = shared.work();
        work.sources.extend([(source(1), start), (source(2), later), (source(3), later)]);
        shared.give_up_old_ones(&mut work, later);
        assert!(matches!(work.answers[..], [(1, Err(Refusal::Later))]));
        drop(work);
        assert_eq!(shared.finished.load(Ordering::Relaxed), 1);
        assert_eq!(shared.next().map(|source| source.ticket), Some(3));
    }
}
