//! What a storage device and the file behind it agree on.
//!
//! ```text
//!  device --submit--> Disk --jobs--> worker thread --> Image (file, memory, overlay)
//!     ^                 |                  |
//!     +--finished(now)--+ <---results------+--> Notifier: the device is polled
//!  monitor --> Media: insert, eject, information
//! ```
//! An [`Image`] may block; only the worker calls it, so a slow file never stalls the vCPU. Requests are carried out in
//! the order of submission, even if the device has lost interest in an earlier one. In real time a request finishes when
//! the worker has; in deterministic time at an instant that follows from the requests alone, for which the machine then
//! waits. Requests that were cancelled and are not yet carried out take room: with more than [`MOST_CANCELLED`] of it, new ones fail.
//! Data are in the request and its completion, or stay in guest memory, from where the worker takes them and where it puts them in real
//! time; in deterministic time they move when a request is submitted and when it has finished ([`Disk::enqueue_read`]).
//!
//! A device has one request under way ([`Disk::submit`], [`Disk::finished`]) or as many as it likes, each with a
//! tag of its own ([`Disk::enqueue`], [`Disk::completed`]). It does three things:
//!
//! ```text
//!  attached:  disk.set_notifier(notifier)
//!  poll_at:   disk.poll_at(), or an earlier deadline of its own
//!  poll:      while let Some(completion) = disk.finished(cx.now) { .. }      (a status register may look too)
//! ```
//! Deliberately absent: requests that overtake each other, and write-back caching, which the host does.

mod request;
mod together;
mod worker;

pub use request::{Completion, PendingRequest, Request};

use super::throttle::{Limits, Throttle};
use crate::scatter::Scatter;
use crate::shared::Shared;
use emu_core::bus::Notifier;
use emu_core::clock::{ClockMode, Instant};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::Duration;
use thiserror::Error;
use together::Helper;
use worker::Worker;

/// Bytes of a sector: the unit in which a request may partly succeed, and up to which an image is padded with zeros.
pub const SECTOR: u64 = 512;
/// The longest request, in bytes. Devices break longer transfers up.
pub const LONGEST: usize = 1 << 20;
/// Bytes that cancelled requests may have that the worker has still to carry out, where each counts more than its data: a guest that
/// resets its controller again and again must not fill the host's memory with writes.
const MOST_CANCELLED: u64 = 64 << 20;
/// Buffers that a disk keeps for its next requests: new memory of a mebibyte costs the host more than copying as much.
const MOST_SPARES: usize = 4;
/// Deterministic time: what each request takes at least, in nanoseconds.
const LATENCY: u64 = 100_000;
/// Deterministic time: nanoseconds for each byte of data, which makes 100 MB/s.
const BYTE_TIME: u64 = 10;

/// The contents of a disk, diskette or disc. Methods may block. The worker never asks for anything beyond
/// [`Image::len`] rounded up to a [`SECTOR`], and reads only what is below [`Image::len`].
pub trait Image: Send {
    /// Bytes. Constant but for writes into a last, partial sector, which complete it.
    fn len(&self) -> u64;

    /// Whether there is nothing in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name of its format.
    fn format_name(&self) -> &'static str {
        "raw"
    }

    /// Whether [`Image::write_at`] always fails.
    fn is_read_only(&self) -> bool;

    /// Whether each read and write takes so much time of its own, beside its data's, that it is better not broken up.
    fn prefers_whole(&self) -> bool {
        false
    }

    /// Where the first of `len` bytes from `offset` lie on the host as they are, to be read or, with `to_write`, overwritten there, which
    /// does what [`Image::read_at`] or [`Image::write_at`] would. It holds until the image is used again. `None`: nowhere.
    fn locate(&mut self, _offset: u64, _len: u64, _to_write: bool) -> Option<Located> {
        None
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// The host cannot read all of it.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// The host cannot write all of it; some may have been written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Returns when everything written so far would survive a loss of power.
    ///
    /// # Errors
    /// The host cannot promise that.
    fn flush(&mut self) -> io::Result<()>;

    /// The guest does not need these bytes any more; what they read as afterwards is open.
    ///
    /// # Errors
    /// The host refuses.
    fn discard(&mut self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    /// Writes what this image has on top of another one into that, and is empty afterwards.
    ///
    /// # Errors
    /// There is no other, or it cannot be written.
    fn commit(&mut self) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "the image has no backing file"))
    }

    /// Makes `len` bytes from `offset` zeros. With `unmap` they need not have room on the host any more.
    ///
    /// # Errors
    /// As [`Image::write_at`].
    fn write_zeroes(&mut self, offset: u64, len: u64, _unmap: bool) -> io::Result<()> {
        let zeros = vec![0; len.min(64 << 10) as usize];
        let mut at = offset;
        while at < offset + len {
            let n = (offset + len - at).min(zeros.len() as u64);
            self.write_at(at, &zeros[..n as usize])?;
            at += n;
        }
        Ok(())
    }
}

/// Bytes on the host that several threads may move from and to guest memory at once. What takes the host long fails instead: a guest
/// that cancels a request waits for the piece that is moved just then.
pub trait HostBytes: Send + Sync {
    /// Fills the `part` of `room` from `offset`.
    ///
    /// # Errors
    /// The host cannot read all of it, or it is not for memory; something may be there all the same.
    fn read_to(&self, offset: u64, room: &Scatter, part: Range<usize>) -> io::Result<()>;

    /// Writes the `part` of `data` at `offset`.
    ///
    /// # Errors
    /// The host cannot write all of it, or it is not in memory; some may have been written.
    fn write_from(&self, offset: u64, data: &Scatter, part: Range<usize>) -> io::Result<()>;
}

/// A run of an image's bytes on the host.
#[derive(Clone)]
pub struct Located {
    /// What they lie in.
    pub bytes: Arc<dyn HostBytes>,
    /// Where in it, in bytes.
    pub offset: u64,
    /// How many there are, at least 1.
    pub len: u64,
}

/// What an error of the host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The guest is told.
    Report,
    /// The guest is told that all is well.
    Ignore,
    /// The machine stops, and the request is tried again when it goes on.
    Stop,
    /// As [`OnError::Stop`] if the host has no more room, else as [`OnError::Report`].
    Enospc,
}

/// What errors do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorPolicy {
    /// Of reads.
    pub read: OnError,
    /// Of everything else.
    pub write: OnError,
}

impl Default for ErrorPolicy {
    fn default() -> ErrorPolicy {
        ErrorPolicy { read: OnError::Report, write: OnError::Enospc }
    }
}

/// A request that has failed and waits for the machine to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// The drive's name.
    pub drive: String,
    /// It is a read.
    pub is_read: bool,
    /// The host has no more room.
    pub no_space: bool,
    /// Why.
    pub reason: String,
}

/// Who stops the machine.
pub type StopHandler = Arc<dyn Fn(&Stall) + Send + Sync>;

/// Where a worker waits for the machine to go on.
#[derive(Default)]
struct Gate {
    /// How often requests were to be tried again, and whether nobody will any more.
    state: Mutex<(u64, bool)>,
    changed: Condvar,
}

impl Gate {
    fn change(&self, f: impl FnOnce(&mut (u64, bool))) {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    fn state(&self) -> (u64, bool) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until somebody wants a request tried again after `tries`; whether it is to be.
    fn wait(&self, tries: u64) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.changed.wait_while(state, |(now, ended)| *now == tries && !*ended);
        !state.unwrap_or_else(PoisonError::into_inner).1
    }

    /// Waits for `time`, or until the end; whether that has come.
    fn pause(&self, time: Duration) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(state, time, |(_, ended)| !*ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.1
    }
}

/// The guest-visible state of a disk that no register of its device shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskState {
    /// The requests under way, oldest first: tag, request, and when it is due in deterministic time.
    pub pending: Vec<(u64, PendingRequest, Instant)>,
    /// The guest has locked the medium in.
    pub locked: bool,
    /// The tray is open.
    pub tray_open: bool,
}

/// Why a medium cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MediaError {
    /// The drive has a fixed medium.
    #[error("Device '{0}' is not removable")]
    NotRemovable(String),
    /// The guest has locked the medium in. The guest has been asked to open the tray.
    #[error("Device '{0}' is locked and force was not specified, wait for tray to open and try again")]
    Locked(String),
}

/// A drive as the user sees it, for `info block`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaInfo {
    /// The drive's id: `ide0-hd0`, `ide1-cd0`, `floppy0`, or what `id=` says.
    pub name: String,
    /// The medium's file; `None`: no medium.
    pub file: Option<String>,
    /// The medium's format.
    pub format: &'static str,
    /// The medium's length in bytes, 0 without one.
    pub len: u64,
    /// The medium refuses writes.
    pub read_only: bool,
    /// The medium can be changed.
    pub removable: bool,
    /// The guest has locked the medium in.
    pub locked: bool,
    /// The tray is open.
    pub tray_open: bool,
}

struct Slot {
    info: MediaInfo,
    /// The medium has been changed or taken out, or the tray moved, by the user.
    changed: bool,
    eject_requested: bool,
    notifier: Option<Notifier>,
    policy: ErrorPolicy,
    stop: Option<StopHandler>,
    throttle: Throttle,
}

enum Job {
    Request(u64, Request),
    Insert(Box<dyn Image>),
    Remove,
    /// Flush, and answer when that and all before is done.
    Settle(Sender<io::Result<()>>),
    /// Write what the image has into the one below it.
    Commit(Sender<io::Result<()>>),
}

/// The user's handle on a drive. Clones are the same drive.
#[derive(Clone)]
pub struct Media {
    slot: Shared<Slot>,
    jobs: Sender<Job>,
    gate: Arc<Gate>,
}

impl Media {
    /// What `info block` shows.
    pub fn info(&self) -> MediaInfo {
        self.slot.lock().info.clone()
    }

    /// Puts `image`, known as `file`, in place of the medium that is there. The tray is closed afterwards.
    ///
    /// # Errors
    /// The drive's medium is fixed, or locked and `force` is not set.
    pub fn insert(&self, file: &str, image: Box<dyn Image>, force: bool) -> Result<(), MediaError> {
        self.take_out(force)?;
        self.put(file, image);
        // The drive may have been looked at while it was empty.
        self.slot.lock().changed = true;
        self.notify();
        Ok(())
    }

    /// Opens the tray and takes the medium out.
    ///
    /// # Errors
    /// The drive's medium is fixed, or locked and `force` is not set.
    pub fn eject(&self, force: bool) -> Result<(), MediaError> {
        self.take_out(force)?;
        self.notify();
        Ok(())
    }

    /// Waits until all that devices have submitted is written and durable; for the end of the process.
    ///
    /// # Errors
    /// The flush failed, or takes longer than `patience`.
    pub fn settle(&self, patience: Duration) -> io::Result<()> {
        let (sender, receiver) = channel();
        // A request that waits for the machine to go on fails instead.
        self.gate.change(|(_, ended)| *ended = true);
        if self.jobs.send(Job::Settle(sender)).is_err() {
            return Ok(());
        }
        receiver.recv_timeout(patience).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// What errors do from now on.
    pub fn set_error_policy(&self, policy: ErrorPolicy) {
        self.slot.lock().policy = policy;
    }

    /// Who stops the machine when an error is to do that. Until there is somebody, such errors are reported.
    pub fn set_stop_handler(&self, handler: StopHandler) {
        self.slot.lock().stop = Some(handler);
    }

    /// The machine goes on: a request that has failed is tried again.
    pub fn retry(&self) {
        self.gate.change(|(tries, _)| *tries += 1);
    }

    /// The drive's limits.
    pub fn limits(&self) -> Limits {
        self.slot.lock().throttle.limits()
    }

    /// Changes the drive's limits.
    pub fn set_limits(&self, limits: Limits) {
        self.slot.lock().throttle.set(limits);
    }

    /// Writes what the medium's image has on top of another one into that. Waits for it.
    ///
    /// # Errors
    /// There is no other, or it cannot be written.
    pub fn commit(&self) -> io::Result<()> {
        let (sender, receiver) = channel();
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.jobs.send(Job::Commit(sender)).map_err(|_| gone())?;
        receiver.recv().unwrap_or_else(|_| Err(gone()))
    }

    fn take_out(&self, force: bool) -> Result<(), MediaError> {
        let mut slot = self.slot.lock();
        let Slot { info, changed, eject_requested, .. } = &mut *slot;
        if !info.removable {
            return Err(MediaError::NotRemovable(info.name.clone()));
        }
        if info.locked && !info.tray_open && !force {
            *eject_requested = true;
            let (name, notifier) = (info.name.clone(), slot.notifier.clone());
            drop(slot);
            if let Some(notifier) = notifier {
                notifier.notify();
            }
            return Err(MediaError::Locked(name));
        }
        *changed = true;
        info.tray_open = true;
        info.locked = false;
        if info.file.take().is_some() {
            info.len = 0;
            info.read_only = false;
            // Without a worker there is no image either.
            let _ = self.jobs.send(Job::Remove);
        }
        Ok(())
    }

    fn put(&self, file: &str, image: Box<dyn Image>) {
        let mut slot = self.slot.lock();
        slot.info.file = Some(file.into());
        slot.info.len = image.len();
        slot.info.format = image.format_name();
        slot.info.read_only = image.is_read_only();
        slot.info.tray_open = false;
        // Without a worker every request fails.
        let _ = self.jobs.send(Job::Insert(image));
    }

    fn notify(&self) {
        let notifier = self.slot.lock().notifier.clone();
        if let Some(notifier) = notifier {
            notifier.notify();
        }
    }
}

/// Buffers of requests that have finished.
#[derive(Clone, Default)]
struct Spares(Arc<Mutex<Vec<Vec<u8>>>>);

impl Spares {
    /// A buffer of `len` bytes, which hold anything.
    fn take(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        buffer.resize(len, 0);
        buffer
    }

    fn give(&self, buffer: Vec<u8>) {
        let mut spares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spares.len() < MOST_SPARES && (1..=LONGEST).contains(&buffer.capacity()) {
            spares.push(buffer);
        }
    }
}

/// Up to which request the worker must not touch guest memory any more. Whoever copies reads it meanwhile.
#[derive(Clone, Default)]
struct Claim(Arc<RwLock<u64>>);

impl Claim {
    /// Ends the worker's right to guest memory for all requests up to number `sequence`. Waits for copies that are under way.
    fn end(&self, sequence: u64) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = sequence;
    }

    /// What `copy` returns; `None`, without calling it, if the right of request `sequence` has ended.
    fn with<R>(&self, sequence: u64, copy: impl FnOnce() -> R) -> Option<R> {
        let ended = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (sequence > *ended).then(copy)
    }
}

/// A request whose completion the device still wants.
struct Current {
    sequence: u64,
    tag: u64,
    request: Request,
    due: Instant,
    /// The worker has not been asked: the request fails.
    refused: bool,
}

/// A request whose completion nobody wants any more.
struct Cancelled {
    sequence: u64,
    cost: u64,
    due: Instant,
}

/// A device's end of a drive.
pub struct Disk {
    media: Media,
    results: Receiver<(u64, Option<Completion>)>,
    spares: Spares,
    claim: Claim,
    deterministic: bool,
    /// The worker waits for the machine to go on.
    stalled: bool,
    sequence: u64,
    /// Oldest first.
    current: VecDeque<Current>,
    /// Older than those, oldest first.
    cancelled: VecDeque<Cancelled>,
}

impl Disk {
    /// A drive called `name` without a medium, in a machine whose time is `clock`.
    ///
    /// # Errors
    /// The host has no more threads.
    pub fn new(name: &str, removable: bool, clock: ClockMode) -> io::Result<Disk> {
        let (jobs, queue) = channel();
        let (sender, results) = channel();
        let info = MediaInfo {
            name: name.into(),
            file: None,
            format: "raw",
            len: 0,
            read_only: false,
            removable,
            locked: false,
            tray_open: false,
        };
        let slot = Shared::new(Slot {
            info,
            changed: false,
            eject_requested: false,
            notifier: None,
            policy: ErrorPolicy::default(),
            stop: None,
            throttle: Throttle::default(),
        });
        let gate = Arc::new(Gate::default());
        let deterministic = clock != ClockMode::Realtime;
        let spares = Spares::default();
        let claim = Claim::default();
        let mut worker = Worker {
            slot: slot.clone(),
            gate: gate.clone(),
            results: sender,
            spares: spares.clone(),
            claim: claim.clone(),
            image: None,
            helper: Helper::new(name),
        };
        let started = (!deterministic).then(std::time::Instant::now);
        let work = move || worker.work(&queue, started);
        std::thread::Builder::new().name(format!("disk {name}")).spawn(work)?;
        Ok(Disk {
            media: Media { slot, jobs, gate },
            results,
            spares,
            claim,
            deterministic,
            stalled: false,
            sequence: 0,
            current: VecDeque::new(),
            cancelled: VecDeque::new(),
        })
    }

    /// The same with `image`, known as `file`, in it.
    ///
    /// # Errors
    /// As [`Disk::new`].
    pub fn with_image(
        name: &str,
        removable: bool,
        clock: ClockMode,
        file: &str,
        image: Box<dyn Image>,
    ) -> io::Result<Disk> {
        let disk = Disk::new(name, removable, clock)?;
        disk.media.put(file, image);
        Ok(disk)
    }

    /// The user's handle.
    pub fn media(&self) -> Media {
        self.media.clone()
    }

    /// Whom to notify of completions and changed media.
    pub fn set_notifier(&mut self, notifier: Notifier) {
        self.media.slot.lock().notifier = Some(notifier);
    }

    /// Bytes on the medium, not rounded; `None` without a medium or with an open tray.
    pub fn len(&self) -> Option<u64> {
        let slot = self.media.slot.lock();
        (slot.info.file.is_some() && !slot.info.tray_open).then_some(slot.info.len)
    }

    /// Whether the medium has no bytes or is absent.
    pub fn is_empty(&self) -> bool {
        self.len().unwrap_or(0) == 0
    }

    /// Sectors of 512 bytes on the medium, the last one padded; 0 without a medium.
    pub fn sectors(&self) -> u64 {
        self.len().unwrap_or(0).div_ceil(SECTOR)
    }

    /// Whether the medium refuses writes.
    pub fn is_read_only(&self) -> bool {
        self.media.slot.lock().info.read_only
    }

    /// Whether the medium can be changed.
    pub fn is_removable(&self) -> bool {
        self.media.slot.lock().info.removable
    }

    /// Whether the user has changed the medium or moved the tray since the last call.
    pub fn take_change(&mut self) -> bool {
        std::mem::take(&mut self.media.slot.lock().changed)
    }

    /// Whether the user has asked for a locked medium since the last call.
    pub fn take_eject_request(&mut self) -> bool {
        std::mem::take(&mut self.media.slot.lock().eject_requested)
    }

    /// The guest locks the medium in, or lets it go.
    pub fn set_locked(&mut self, locked: bool) {
        self.media.slot.lock().info.locked = locked;
    }

    /// Whether the guest has locked the medium in.
    pub fn is_locked(&self) -> bool {
        self.media.slot.lock().info.locked
    }

    /// The guest opens or closes the tray; the medium stays on it.
    pub fn set_tray(&mut self, open: bool) {
        self.media.slot.lock().info.tray_open = open;
    }

    /// Whether the tray is open.
    pub fn is_tray_open(&self) -> bool {
        self.media.slot.lock().info.tray_open
    }

    /// A buffer of `len` bytes for a request's data. They hold anything.
    pub fn buffer(&self, len: usize) -> Vec<u8> {
        self.spares.take(len)
    }

    /// Takes a buffer back, or what a completion has brought, so that the next request need not have new memory.
    pub fn recycle(&self, buffer: Vec<u8>) {
        self.spares.give(buffer);
    }

    /// Starts `request`. What is under way is carried out before, and its completion forgotten.
    pub fn submit(&mut self, now: Instant, request: Request) {
        self.cancel();
        self.enqueue(now, 0, request);
    }

    /// Reads into `room` from `offset` of the disk, behind what is under way. In real time the worker puts it there; in deterministic
    /// time the device does with what the completion brings, as it does after [`Disk::set_state`].
    pub fn enqueue_read(&mut self, now: Instant, tag: u64, offset: u64, room: Scatter) {
        let request = match self.deterministic {
            true => Request::Read { offset, len: room.len() },
            false => Request::ReadTo { offset, room },
        };
        self.enqueue(now, tag, request);
    }

    /// Writes `data` at `offset` of the disk, behind what is under way. They are taken now in deterministic time, and in real time when
    /// the worker gets there.
    pub fn enqueue_write(&mut self, now: Instant, tag: u64, offset: u64, data: Scatter) {
        let request = match self.deterministic {
            true => {
                let mut bytes = self.buffer(data.len());
                data.read(0, &mut bytes);
                Request::Write { offset, data: Arc::new(bytes) }
            }
            false => Request::WriteFrom { offset, data },
        };
        self.enqueue(now, tag, request);
    }

    /// Starts `request` behind those that are under way. `tag` is what [`Disk::completed`] calls it.
    pub fn enqueue(&mut self, now: Instant, tag: u64, request: Request) {
        self.forget_finished(now);
        let mut start = self.current.back().map_or(now, |last| last.due.max(now));
        if self.deterministic
            && let Some((direction, bytes)) = request.throttled()
        {
            // Limits hold in the guest's time.
            let throttle = &mut self.media.slot.lock().throttle;
            while let Err(wait) = throttle.admit(Duration::from_nanos(start.0), direction, bytes) {
                start = start.plus_nanos(wait.as_nanos() as u64);
            }
        }
        let due = start.plus_nanos(LATENCY + BYTE_TIME * request.len() as u64);
        self.start(tag, request, due);
    }

    fn start(&mut self, tag: u64, request: Request, due: Instant) {
        let refused = self.cancelled.iter().map(|cancelled| cancelled.cost).sum::<u64>() > MOST_CANCELLED;
        self.sequence += 1;
        self.current.push_back(Current { sequence: self.sequence, tag, request: request.clone(), due, refused });
        if refused {
            return self.media.notify();
        }
        // If the worker is gone, so are the results, and `completed` says so.
        let _ = self.media.jobs.send(Job::Request(self.sequence, request));
    }

    /// Whether a request is under way.
    pub fn is_busy(&self) -> bool {
        !self.current.is_empty()
    }

    /// Forgets what is under way, as a reset does. Writes are carried out all the same, besides what is still in guest memory, which
    /// is neither read nor written any more.
    pub fn cancel(&mut self) {
        self.claim.end(self.sequence);
        for Current { sequence, request, due, refused, .. } in self.current.drain(..) {
            if !refused {
                self.cancelled.push_back(Cancelled { sequence, cost: request.cost(), due });
            }
        }
    }

    /// Forgets cancelled requests that have been carried out; in deterministic time those that were due by `now`.
    fn forget_finished(&mut self, now: Instant) {
        while let Some(&Cancelled { sequence, due, .. }) = self.cancelled.front() {
            if self.deterministic && now < due {
                return;
            }
            match self.next_result() {
                Some((finished, _)) if finished >= sequence => drop(self.cancelled.pop_front()),
                _ => return,
            }
        }
    }

    /// When to look at [`Disk::finished`] next; `None` if nothing is under way or the notifier will tell.
    pub fn poll_at(&self) -> Option<Instant> {
        self.current.front().filter(|_| self.deterministic && !self.stalled).map(|current| current.due)
    }

    /// What has come of the request under way, if it has finished by `now`. Call it from `poll`, at least.
    pub fn finished(&mut self, now: Instant) -> Option<Completion> {
        self.completed(now).map(|(_, completion)| completion)
    }

    /// The tag of the oldest request under way and what has come of it, if it has finished by `now`.
    pub fn completed(&mut self, now: Instant) -> Option<(u64, Completion)> {
        let &Current { sequence, due, refused, .. } = self.current.front()?;
        if self.deterministic && now < due {
            return None;
        }
        let completion = if refused {
            Completion::failed(io::ErrorKind::ResourceBusy)
        } else {
            loop {
                let (finished, completion) = self.next_result()?;
                if finished >= sequence {
                    break completion;
                }
                self.cancelled.pop_front();
            }
        };
        let Current { tag, request, .. } = self.current.pop_front()?;
        if let Request::Write { data, .. } = request
            && let Ok(buffer) = Arc::try_unwrap(data)
        {
            self.spares.give(buffer);
        }
        Some((tag, completion))
    }

    /// The number of the request that the worker has carried out next, and what came of it; in deterministic time this waits for it.
    /// `None`: it has not yet, or waits for the machine to go on. A worker that is gone has carried out all there is, in vain.
    fn next_result(&mut self) -> Option<(u64, Completion)> {
        let result = match self.deterministic && !self.stalled {
            true => self.results.recv().map_err(|_| TryRecvError::Disconnected),
            false => self.results.try_recv(),
        };
        match result {
            Ok((sequence, Some(completion))) => {
                self.stalled = false;
                Some((sequence, completion))
            }
            Ok((_, None)) => {
                self.stalled = true;
                None
            }
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some((u64::MAX, Completion::failed(io::ErrorKind::BrokenPipe))),
        }
    }

    /// What a snapshot keeps.
    pub fn state(&self) -> DiskState {
        let pending = self.current.iter().map(|current| (current.tag, (&current.request).into(), current.due));
        let slot = self.media.slot.lock();
        DiskState { pending: pending.collect(), locked: slot.info.locked, tray_open: slot.info.tray_open }
    }

    /// Takes over a saved state; what was under way is started again.
    pub fn set_state(&mut self, state: DiskState) {
        self.cancel();
        {
            let mut slot = self.media.slot.lock();
            slot.info.locked = state.locked && slot.info.removable;
            slot.info.tray_open = state.tray_open && slot.info.removable;
        }
        for (tag, pending, due) in state.pending {
            self.start(tag, pending.into(), due);
        }
    }
}

#[cfg(test)]
mod tests;
