//! The thread that compiles.

use crate::lower::Translator;
use emu_core::exec::region::{Compiled, Compiler, Source};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};

/// Executions of a block before its region is compiled: about what an interpreted execution costs less than a compiled
/// one, into what compiling costs (ARCHITECTURE.md has the figures).
const THRESHOLD: u32 = 1000;

/// Sources that may wait for the worker; further ones are refused until it has caught up.
const WAITING: usize = 256;

type Answer = (u64, Option<Box<dyn Compiled>>);

/// The Cranelift tier: compiles regions on a thread of its own.
pub struct Jit {
    requests: Option<Sender<Source>>,
    answers: Receiver<Answer>,
    /// Requests that the worker has not begun.
    waiting: Arc<AtomicUsize>,
    /// Answers that have not been taken.
    finished: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Jit {
    /// Starts the worker.
    ///
    /// # Errors
    /// If Cranelift has no back end for this host, or no thread can be made: a line for the user.
    pub fn new() -> Result<Jit, String> {
        let mut translator = Translator::new()?;
        let (requests, inbox) = channel::<Source>();
        let (outbox, answers) = channel::<Answer>();
        let waiting = Arc::new(AtomicUsize::new(0));
        let finished = Arc::new(AtomicUsize::new(0));
        let (begun, done) = (waiting.clone(), finished.clone());
        let work = move || {
            for source in inbox {
                begun.fetch_sub(1, Ordering::Relaxed);
                let ticket = source.ticket;
                let compiled = translator.compile(source);
                if outbox.send((ticket, compiled)).is_err() {
                    return;
                }
                done.fetch_add(1, Ordering::Release);
            }
        };
        let thread = std::thread::Builder::new()
            .name("jit".into())
            .spawn(work)
            .map_err(|error| format!("the thread that compiles cannot be started: {error}"))?;
        Ok(Jit { requests: Some(requests), answers, waiting, finished, thread: Some(thread) })
    }
}

impl Compiler for Jit {
    fn threshold(&self) -> u32 {
        THRESHOLD
    }

    fn request(&mut self, source: Source) -> bool {
        if self.waiting.load(Ordering::Relaxed) >= WAITING {
            return false;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.requests.as_ref().is_some_and(|requests| requests.send(source).is_ok())
    }

    fn ready(&self) -> bool {
        self.finished.load(Ordering::Acquire) != 0
    }

    fn take(&mut self) -> Option<Answer> {
        match self.answers.try_recv() {
            Ok(answer) => {
                self.finished.fetch_sub(1, Ordering::Relaxed);
                Some(answer)
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }
}

impl Drop for Jit {
    fn drop(&mut self) {
        // The worker ends when its inbox is closed; what it is compiling now it finishes.
        self.requests = None;
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
    answers: VecDeque<Answer>,
}

impl Immediate {
    /// Compiles blocks that have run `threshold` times.
    ///
    /// # Errors
    /// As [`Jit::new`].
    pub fn new(threshold: u32) -> Result<Immediate, String> {
        Ok(Immediate { translator: Translator::new()?, threshold, answers: VecDeque::new() })
    }
}

impl Compiler for Immediate {
    fn threshold(&self) -> u32 {
        self.threshold
    }

    fn request(&mut self, source: Source) -> bool {
        let ticket = source.ticket;
        let compiled = self.translator.compile(source);
        self.answers.push_back((ticket, compiled));
        true
    }

    fn ready(&self) -> bool {
        !self.answers.is_empty()
    }

    fn take(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }
}
