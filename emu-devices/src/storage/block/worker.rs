//! The thread that has a disk's image: it carries requests out, tells of them, and waits where the machine has to go on first.

use super::{Completion, Gate, Image, Job, LONGEST, OnError, Request, SECTOR, Slot, Spares, Stall};
use crate::shared::Shared;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

/// What has the image, on a thread of its own.
pub(super) struct Worker {
    pub slot: Shared<Slot>,
    pub gate: Arc<Gate>,
    pub results: Sender<(u64, Option<Completion>)>,
    pub spares: Spares,
    pub image: Option<Box<dyn Image>>,
}

impl Worker {
    /// Until nobody is left who could submit. In real time, limits are those of the time since `started`.
    pub fn work(&mut self, queue: &Receiver<Job>, started: Option<std::time::Instant>) {
        while let Ok(job) = queue.recv() {
            match job {
                Job::Request(sequence, request) => {
                    if let Some(started) = started {
                        self.wait_for_turn(&request, started);
                    }
                    let completion = self.carry_out(sequence, &request);
                    // The device is to be the only one who has the data.
                    drop(request);
                    // The device may be gone.
                    let _ = self.results.send((sequence, Some(completion)));
                    self.notify();
                }
                Job::Insert(new) => self.image = Some(new),
                Job::Remove => {
                    if let Some(Err(error)) = self.image.take().map(|mut old| old.flush()) {
                        tracing::warn!(target: "guest_errors", "{}: flush: {error}", self.slot.lock().info.name);
                    }
                }
                Job::Settle(answer) => {
                    // Whoever asked may have lost patience.
                    let _ = answer.send(self.image.as_mut().map_or(Ok(()), |image| image.flush()));
                }
                Job::Commit(answer) => {
                    let missing = || Err(io::ErrorKind::NotFound.into());
                    let _ = answer.send(self.image.as_mut().map_or_else(missing, |image| image.commit()));
                }
            }
        }
    }

    fn notify(&self) {
        let notifier = self.slot.lock().notifier.clone();
        if let Some(notifier) = notifier {
            notifier.notify();
        }
    }

    fn wait_for_turn(&self, request: &Request, started: std::time::Instant) {
        let Some((direction, bytes)) = request.throttled() else { return };
        loop {
            let admitted = self.slot.lock().throttle.admit(started.elapsed(), direction, bytes);
            match admitted {
                Ok(()) => return,
                // Limits may be changed meanwhile.
                Err(wait) if self.gate.pause(wait.min(Duration::from_millis(100))) => return,
                Err(_) => {}
            }
        }
    }

    /// Until it has succeeded, or the guest is to be told that it has failed.
    fn carry_out(&mut self, sequence: u64, request: &Request) -> Completion {
        loop {
            let (tries, ended) = self.gate.state();
            let Some(image) = &mut self.image else { return Completion::failed(io::ErrorKind::NotFound) };
            let completion = perform(image.as_mut(), request, &self.spares);
            let Some(error) = &completion.error else { return completion };
            let (name, policy, stop) = {
                let slot = self.slot.lock();
                (slot.info.name.clone(), slot.policy, slot.stop.clone())
            };
            tracing::warn!(target: "guest_errors", "{name}: {error}");
            let is_read = matches!(request, Request::Read { .. });
            let no_space = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            match (if is_read { policy.read } else { policy.write }, stop) {
                (OnError::Ignore, _) => {
                    let (data, done) = match request {
                        Request::Read { len, .. } => (vec![0; *len], *len),
                        other => (Vec::new(), other.len()),
                    };
                    return Completion { data, done, error: None };
                }
                (OnError::Report, _) | (_, None) => return completion,
                (OnError::Enospc, _) if !no_space => return completion,
                // What the guest asks for beyond the end is no matter of the host.
                _ if error.kind() == io::ErrorKind::InvalidInput || ended => return completion,
                (_, Some(stop)) => {
                    let _ = self.results.send((sequence, None));
                    self.notify();
                    stop(&Stall { drive: name, is_read, no_space, reason: error.to_string() });
                    if !self.gate.wait(tries) {
                        return completion;
                    }
                }
            }
        }
    }
}

/// Carries a request out. After an error it is tried again sector by sector, to find how far it goes.
fn perform(image: &mut dyn Image, request: &Request, spares: &Spares) -> Completion {
    let end = image.len().next_multiple_of(SECTOR);
    let within = |offset: u64, len: u64| offset.checked_add(len).is_some_and(|e| e <= end);
    let inside = |offset: u64, len: usize| len <= LONGEST && within(offset, len as u64);
    match *request {
        Request::Read { offset, len } if inside(offset, len) => {
            let mut data = spares.take(len);
            let mut result = read(image, offset, &mut data);
            let mut done = len;
            if result.is_err() {
                (done, result) = sectors(len, |range| read(image, offset + range.start as u64, &mut data[range]));
                data.truncate(done);
            }
            Completion { data, done, error: result.err() }
        }
        Request::Write { offset, ref data } if inside(offset, data.len()) => {
            if image.is_read_only() {
                return Completion::failed(io::ErrorKind::ReadOnlyFilesystem);
            }
            let mut result = image.write_at(offset, data);
            let mut done = data.len();
            if result.is_err() {
                (done, result) = sectors(data.len(), |range| image.write_at(offset + range.start as u64, &data[range]));
            }
            Completion { data: Vec::new(), done, error: result.err() }
        }
        Request::Discard { offset, len } | Request::WriteZeroes { offset, len, .. } if within(offset, len) => {
            if image.is_read_only() {
                return Completion::failed(io::ErrorKind::ReadOnlyFilesystem);
            }
            let error = match *request {
                Request::WriteZeroes { unmap, .. } => image.write_zeroes(offset, len, unmap),
                _ => image.discard(offset, len),
            };
            Completion { error: error.err(), ..Completion::default() }
        }
        Request::Read { .. } | Request::Write { .. } | Request::Discard { .. } | Request::WriteZeroes { .. } => {
            Completion::failed(io::ErrorKind::InvalidInput)
        }
        Request::Flush => Completion { error: image.flush().err(), ..Completion::default() },
    }
}

/// Reads with zeros for what the last sector lacks.
fn read(image: &mut dyn Image, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let there = image.len().saturating_sub(offset).min(buffer.len() as u64) as usize;
    buffer[there..].fill(0);
    if there > 0 { image.read_at(offset, &mut buffer[..there]) } else { Ok(()) }
}

/// Calls `f` sector by sector until it fails; bytes done and the last result.
fn sectors(len: usize, mut f: impl FnMut(std::ops::Range<usize>) -> io::Result<()>) -> (usize, io::Result<()>) {
    for start in (0..len).step_by(SECTOR as usize) {
        if let Err(error) = f(start..(start + SECTOR as usize).min(len)) {
            return (start, Err(error));
        }
    }
    (len, Ok(()))
}
