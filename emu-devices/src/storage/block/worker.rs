//! The thread that has a disk's image: it carries requests out, tells of them, and waits where the machine has to go on first.

use super::together::{Direction, Helper, Outcome};
use super::{Claim, Completion, Gate, Image, Job, LONGEST, OnError, Request, SECTOR, Slot, Spares, Stall};
use crate::shared::Shared;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

/// Bytes that are copied from or to guest memory at a time, unless the image prefers otherwise: so few that they are still in the host's
/// cache then.
const PIECE: usize = 128 << 10;

/// What has the image, on a thread of its own.
pub(super) struct Worker {
    pub slot: Shared<Slot>,
    pub gate: Arc<Gate>,
    pub results: Sender<(u64, Option<Completion>)>,
    pub spares: Spares,
    pub claim: Claim,
    pub image: Option<Box<dyn Image>>,
    pub helper: Helper,
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
            let (spares, claim, helper) = (&self.spares, &self.claim, &mut self.helper);
            let completion = Operation { image: image.as_mut(), spares, claim, helper, sequence }.perform(request);
            let Some(error) = &completion.error else { return completion };
            let (name, policy, stop) = {
                let slot = self.slot.lock();
                (slot.info.name.clone(), slot.policy, slot.stop.clone())
            };
            tracing::warn!(target: "guest_errors", "{name}: {error}");
            let is_read = matches!(request, Request::Read { .. } | Request::ReadTo { .. });
            let no_space = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            match (if is_read { policy.read } else { policy.write }, stop) {
                (OnError::Ignore, _) => {
                    let done = request.len();
                    return Completion { data: vec![0; if is_read { done } else { 0 }], done, error: None };
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

/// What a request is carried out with.
struct Operation<'a> {
    image: &'a mut dyn Image,
    spares: &'a Spares,
    claim: &'a Claim,
    helper: &'a mut Helper,
    sequence: u64,
}

impl Operation<'_> {
    /// Carries `request` out.
    fn perform(&mut self, request: &Request) -> Completion {
        let (offset, len, writes) = match *request {
            Request::Read { offset, .. } | Request::ReadTo { offset, .. } => (offset, request.len() as u64, false),
            Request::Write { offset, .. } | Request::WriteFrom { offset, .. } => (offset, request.len() as u64, true),
            Request::Discard { offset, len } | Request::WriteZeroes { offset, len, .. } => (offset, len, true),
            Request::Flush => (0, 0, false),
        };
        let end = self.image.len().next_multiple_of(SECTOR);
        if request.len() > LONGEST || offset.checked_add(len).is_none_or(|e| e > end) {
            return Completion::failed(io::ErrorKind::InvalidInput);
        }
        if writes && self.image.is_read_only() {
            return Completion::failed(io::ErrorKind::ReadOnlyFilesystem);
        }
        match request {
            Request::Read { len, .. } => {
                let mut data = self.spares.take(*len);
                let (done, result) = read(self.image, offset, &mut data);
                data.truncate(done);
                Completion { data, done, error: result.err() }
            }
            Request::Write { data, .. } => {
                let (done, result) = write(self.image, offset, data);
                Completion { data: Vec::new(), done, error: result.err() }
            }
            Request::ReadTo { room, .. } => self.together(offset, Direction::To(room.clone())).unwrap_or_else(|| {
                self.in_pieces(room.len(), |operation, at, piece| {
                    let (done, result) = read(operation.image, offset + at as u64, piece);
                    operation.claim.with(operation.sequence, || room.write(at, &piece[..done]))?;
                    Some((done, result))
                })
            }),
            Request::WriteFrom { data, .. } => {
                self.together(offset, Direction::From(data.clone())).unwrap_or_else(|| {
                    self.in_pieces(data.len(), |operation, at, piece| {
                        operation.claim.with(operation.sequence, || data.read(at, piece))?;
                        Some(write(operation.image, offset + at as u64, piece))
                    })
                })
            }
            Request::WriteZeroes { unmap, .. } => {
                Completion::without_data(self.image.write_zeroes(offset, len, *unmap))
            }
            Request::Discard { .. } => Completion::without_data(self.image.discard(offset, len)),
            Request::Flush => Completion::without_data(self.image.flush()),
        }
    }

    /// Moves data without a copy in between; `None` if that cannot be.
    fn together(&mut self, offset: u64, direction: Direction) -> Option<Completion> {
        let len = direction.place().len();
        match self.helper.transfer(self.image, offset, direction, (self.sequence, self.claim))? {
            Outcome::Done => Some(Completion { done: len, ..Completion::default() }),
            Outcome::Cancelled => Some(Completion::default()),
            Outcome::Failed => None,
        }
    }

    /// Calls `f` for each piece of `len` bytes with its place and a buffer for it, until it fails or, when the request has been
    /// cancelled, returns `None`.
    fn in_pieces(
        &mut self,
        len: usize,
        mut f: impl FnMut(&mut Self, usize, &mut [u8]) -> Option<(usize, io::Result<()>)>,
    ) -> Completion {
        let piece = if self.image.prefers_whole() { LONGEST } else { PIECE };
        let mut buffer = self.spares.take(len.min(piece));
        let mut completion = Completion::default();
        while completion.done < len && completion.error.is_none() {
            let n = (len - completion.done).min(piece);
            let Some((done, result)) = f(self, completion.done, &mut buffer[..n]) else { break };
            completion.done += done;
            completion.error = result.err();
        }
        self.spares.give(buffer);
        completion
    }
}

/// Reads with zeros for what the last sector lacks. After an error it is tried again sector by sector, to find how far it goes: bytes
/// read and the error.
fn read(image: &mut dyn Image, offset: u64, buffer: &mut [u8]) -> (usize, io::Result<()>) {
    let mut read = |offset: u64, buffer: &mut [u8]| {
        let there = image.len().saturating_sub(offset).min(buffer.len() as u64) as usize;
        buffer[there..].fill(0);
        if there > 0 { image.read_at(offset, &mut buffer[..there]) } else { Ok(()) }
    };
    match read(offset, buffer) {
        Ok(()) => (buffer.len(), Ok(())),
        Err(_) => sectors(buffer.len(), |range| read(offset + range.start as u64, &mut buffer[range])),
    }
}

/// Writes in the same way.
fn write(image: &mut dyn Image, offset: u64, bytes: &[u8]) -> (usize, io::Result<()>) {
    match image.write_at(offset, bytes) {
        Ok(()) => (bytes.len(), Ok(())),
        Err(_) => sectors(bytes.len(), |range| image.write_at(offset + range.start as u64, &bytes[range])),
    }
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
