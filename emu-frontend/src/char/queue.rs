//! The two queues of a character device: input for one front end, output to the host.
//!
//! Both are bounded. A full input queue stops the reader thread, and with it the sender on the host; a full output queue
//! accepts nothing more, so that the guest's UART stays busy until the host has caught up. No byte is lost either way.

use emu_core::bus::Notifier;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that a queue holds at most.
const CAPACITY: usize = 64 << 10;

/// What a front end receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A byte.
    Byte(u8),
    /// A break condition.
    Break,
    /// The user switched to this front end.
    Focus,
    /// Somebody is there: at the start, or a client that has just connected.
    Opened,
}

/// Input on its way to one front end.
#[derive(Default)]
pub struct Inbox {
    state: Mutex<InState>,
    /// Signalled on arrival and on removal.
    changed: Condvar,
}

#[derive(Default)]
struct InState {
    queue: VecDeque<Input>,
    notifier: Option<Notifier>,
    ended: bool,
    /// The front end is a monitor, which waits for input.
    waits: bool,
    /// It has taken something to work on, and has not come back for more.
    works: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inbox {
    /// Adds `input`, waiting while the queue is full.
    pub fn push(&self, input: impl IntoIterator<Item = Input>) {
        let mut input = input.into_iter().peekable();
        while input.peek().is_some() {
            let mut state = lock(&self.state);
            while state.queue.len() >= CAPACITY {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let room = CAPACITY - state.queue.len();
            state.queue.extend(input.by_ref().take(room));
            self.changed.notify_all();
            let notifier = state.notifier.clone();
            drop(state);
            if let Some(notifier) = notifier {
                notifier.notify();
            }
        }
    }

    /// No more input will come.
    pub fn end(&self) {
        lock(&self.state).ended = true;
        self.changed.notify_all();
    }

    /// Bytes up to the next break, without waiting; how many.
    pub fn read(&self, buffer: &mut [u8]) -> usize {
        let mut state = lock(&self.state);
        let mut count = 0;
        while count < buffer.len() {
            match state.queue.front() {
                Some(Input::Byte(byte)) => {
                    buffer[count] = *byte;
                    count += 1;
                }
                Some(Input::Focus | Input::Opened) => {}
                Some(Input::Break) | None => break,
            }
            state.queue.pop_front();
        }
        if count > 0 {
            self.changed.notify_all();
        }
        count
    }

    /// Whether a break is next; consumes it.
    pub fn take_break(&self) -> bool {
        let mut state = lock(&self.state);
        let found = state.queue.front() == Some(&Input::Break);
        if found {
            state.queue.pop_front();
            // What follows the break may be read now.
            if let Some(notifier) = state.notifier.as_ref().filter(|_| !state.queue.is_empty()) {
                notifier.notify();
            }
        }
        found
    }

    /// Waits for the next input; `None` when no more will come.
    pub fn wait(&self) -> Option<Input> {
        let mut state = lock(&self.state);
        loop {
            (state.waits, state.works) = (true, !state.queue.is_empty());
            if let Some(input) = state.queue.pop_front() {
                self.changed.notify_all();
                return Some(input);
            }
            if state.ended {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether a monitor is still at work on what has arrived. A guest that leaves its input unread is not.
    pub fn is_busy(&self) -> bool {
        let state = lock(&self.state);
        state.waits && (state.works || !state.queue.is_empty())
    }

    /// Whom to tell about arrivals.
    pub fn set_notifier(&self, notifier: Notifier) {
        lock(&self.state).notifier = Some(notifier);
    }
}

/// Output on its way to the host, from all front ends of a character device.
#[derive(Default)]
pub struct Outbox {
    state: Mutex<OutState>,
    /// Signalled on arrival, on removal and when a chunk has been written.
    changed: Condvar,
}

#[derive(Default)]
struct OutState {
    queue: VecDeque<u8>,
    /// The writer thread holds bytes that it has not written yet.
    writing: bool,
    /// Chunks written so far, to tell slowness from standstill.
    chunks: u64,
    /// The process is ending: what comes now is dropped.
    closed: bool,
    /// Who was refused and wants to hear of room.
    refused: Vec<Notifier>,
}

impl Outbox {
    /// Takes as many bytes as fit, from the front; tells `notifier` once there is room again if not all did.
    pub fn offer(&self, bytes: &[u8], notifier: Option<&Notifier>) -> usize {
        let mut state = lock(&self.state);
        if state.closed {
            return bytes.len();
        }
        let count = bytes.len().min(CAPACITY - state.queue.len());
        state.queue.extend(&bytes[..count]);
        if count < bytes.len()
            && let Some(notifier) = notifier
            && state.refused.is_empty()
        {
            state.refused.push(notifier.clone());
        }
        if count > 0 {
            self.changed.notify_all();
        }
        count
    }

    /// Takes all bytes or, if they do not fit, none.
    pub fn offer_whole(&self, bytes: &[u8]) {
        let mut state = lock(&self.state);
        if !state.closed && bytes.len() <= CAPACITY - state.queue.len() {
            state.queue.extend(bytes);
            self.changed.notify_all();
        }
    }

    /// Takes all bytes, waiting for room. Not for device code.
    pub fn write(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.offer(bytes, None)..];
            if !bytes.is_empty() {
                let state = lock(&self.state);
                if state.queue.len() >= CAPACITY {
                    drop(self.changed.wait(state).unwrap_or_else(PoisonError::into_inner));
                }
            }
        }
    }

    /// Hands output to `sink` for ever. Runs on a thread of its own.
    pub fn pump(&self, mut sink: impl FnMut(&[u8])) -> ! {
        let mut chunk = Vec::new();
        loop {
            let mut state = lock(&self.state);
            while state.queue.is_empty() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            chunk.clear();
            chunk.extend(state.queue.drain(..));
            state.writing = true;
            drop(state);
            sink(&chunk);
            let mut state = lock(&self.state);
            state.writing = false;
            state.chunks += 1;
            self.changed.notify_all();
            let refused = std::mem::take(&mut state.refused);
            drop(state);
            refused.iter().for_each(Notifier::notify);
        }
    }

    /// Whether everything is written.
    pub fn is_drained(&self) -> bool {
        let state = lock(&self.state);
        state.queue.is_empty() && !state.writing
    }

    /// Takes no more, and waits until everything is written as long as there is progress within each `patience`.
    pub fn drain(&self, patience: Duration) {
        let mut state = lock(&self.state);
        state.closed = true;
        let (mut chunks, mut deadline) = (state.chunks, Instant::now() + patience);
        while !state.queue.is_empty() || state.writing {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            if state.chunks != chunks {
                (chunks, deadline) = (state.chunks, Instant::now() + patience);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn bytes(text: &str) -> Vec<Input> {
        text.bytes().map(Input::Byte).collect()
    }

    #[test]
    fn break_is_seen_after_the_bytes_before_it_and_before_those_after_it() {
        let inbox = Inbox::default();
        inbox.push(bytes("ab"));
        inbox.push([Input::Break]);
        inbox.push(bytes("c"));
        let mut buffer = [0; 8];
        assert!(!inbox.take_break());
        assert_eq!(inbox.read(&mut buffer), 2);
        assert_eq!(inbox.read(&mut buffer), 0);
        assert!(inbox.take_break());
        assert!(!inbox.take_break());
        assert_eq!(inbox.read(&mut buffer), 1);
        assert_eq!(buffer[0], b'c');
    }

    #[test]
    fn full_inbox_makes_the_sender_wait_and_loses_nothing() {
        let inbox = Arc::new(Inbox::default());
        let sender = inbox.clone();
        let thread = std::thread::spawn(move || {
            sender.push((0..200_000u32).map(|i| Input::Byte(i as u8)));
            sender.end();
        });
        let mut expected = 0u32;
        while let Some(input) = inbox.wait() {
            assert_eq!(input, Input::Byte(expected as u8));
            expected += 1;
        }
        assert_eq!(expected, 200_000);
        thread.join().unwrap();
    }

    #[test]
    fn full_outbox_refuses_and_drains_in_order() {
        let outbox = Arc::new(Outbox::default());
        let data: Vec<u8> = (0..CAPACITY + 10).map(|i| (i % 251) as u8).collect();
        assert_eq!(outbox.offer(&data, None), CAPACITY);
        assert_eq!(outbox.offer(&data[CAPACITY..], None), 0);
        let written = Arc::new(Mutex::new(Vec::new()));
        let (pump, sink) = (outbox.clone(), written.clone());
        std::thread::spawn(move || pump.pump(|chunk| lock(&sink).extend_from_slice(chunk)));
        outbox.write(&data[CAPACITY..]);
        outbox.drain(Duration::from_secs(5));
        assert_eq!(*lock(&written), data);
    }

    #[test]
    fn drain_gives_up_on_a_sink_that_stands_still() {
        let outbox = Arc::new(Outbox::default());
        outbox.write(b"x");
        let pump = outbox.clone();
        std::thread::spawn(move || pump.pump(|_| std::thread::sleep(Duration::from_secs(60))));
        let start = Instant::now();
        outbox.drain(Duration::from_millis(50));
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}
