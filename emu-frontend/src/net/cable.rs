//! A network cable: a NIC at its near end, a thread of a back end at its far end.
//!
//! ```text
//!             outbound: what the guest has sent ------->
//!  NIC <-> NearEnd                                      FarEnd <-> thread of the back end
//!             <------- inbound: what the NIC has not asked for yet
//! ```
//! Each direction has a lock that is held for as long as it takes to move one buffer, so that a vCPU never waits for the host's
//! network. Buffers go round: what one end has read, the other fills anew. The far end's thread sleeps in its poll, from which it is
//! woken by the first frame and not by those that follow before it has looked; the NIC is notified only when it has asked in vain.
//! Rate limits ([`super::throttle`]) and captures ([`super::dump`]) are the far end's business.

use super::dump::Dump;
use super::throttle::{Direction, Limits, Throttle};
use emu_core::bus::Notifier;
use emu_devices::net::{LONGEST_FRAME, NetBackend, QUEUE};
use mio::Waker;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Frames of the guest that wait for the far end's thread, and their bytes; what is beyond that is lost.
const OUTBOUND_FRAMES: usize = 1024;
const OUTBOUND_BYTES: usize = 4 << 20;
/// Buffers that are kept for later frames, and how large ones.
const SPARE_BUFFERS: usize = 256;
const SPARE_SIZE: usize = 4096;
/// Bytes of an Ethernet header.
pub const ETHERNET_HEADER: usize = 14;

#[derive(Default)]
struct Outbound {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    spare: Vec<Vec<u8>>,
    /// The far end's thread is in its poll, or will be without looking again.
    asleep: bool,
}

#[derive(Default)]
struct Inbound {
    frames: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    bell: Bell,
    /// The NIC has asked for a frame when there was none.
    starved: bool,
    /// The far end waits for room.
    wants_room: bool,
}

/// Who is told that frames have come.
#[derive(Clone, Default)]
enum Bell {
    #[default]
    Nobody,
    Nic(Notifier),
    Hub(Arc<Waker>),
}

impl Bell {
    fn ring(&self) {
        match self {
            Bell::Nobody => {}
            Bell::Nic(notifier) => notifier.notify(),
            // A hub that is gone needs no waking.
            Bell::Hub(waker) => drop(waker.wake()),
        }
    }
}

struct Cable {
    waker: Arc<Waker>,
    outbound: Mutex<Outbound>,
    inbound: Mutex<Inbound>,
    unplugged: AtomicBool,
    /// The far end takes TCP packets that are longer than frames are.
    long_packets: AtomicBool,
    near_is_gone: AtomicBool,
    limits: Mutex<Limits>,
    /// Counts changes of `limits`.
    limits_set: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cable {
    fn notify(&self) {
        let bell = lock(&self.inbound).bell.clone();
        bell.ring();
    }

    fn wake(&self) {
        // A poll that is gone needs no waking.
        let _ = self.waker.wake();
    }
}

/// A new cable. `waker` wakes the thread that has the far end.
pub fn cable(waker: Arc<Waker>, limits: Limits) -> (NearEnd, FarEnd) {
    let inbound = Inbound { starved: true, ..Inbound::default() };
    let cable = Arc::new(Cable {
        waker,
        outbound: Mutex::default(),
        inbound: Mutex::new(inbound),
        unplugged: AtomicBool::new(false),
        long_packets: AtomicBool::new(false),
        near_is_gone: AtomicBool::new(false),
        limits: Mutex::new(limits),
        limits_set: AtomicU64::new(0),
    });
    let far = FarEnd {
        cable: cable.clone(),
        taken: VecDeque::new(),
        batch: Vec::new(),
        spare: Vec::new(),
        queued: 0,
        throttle: Throttle::new(limits),
        limits_seen: 0,
        dumps: Vec::new(),
        again: None,
    };
    (NearEnd(cable), far)
}

/// What a NIC has.
pub struct NearEnd(Arc<Cable>);

impl NearEnd {
    /// By which monitors reach the cable.
    pub fn plug(&self) -> Plug {
        Plug(self.0.clone())
    }

    /// The far end takes TCP packets that are longer than frames are.
    pub fn allow_long_packets(&self) {
        self.0.long_packets.store(true, Ordering::Relaxed);
    }

    /// Has `waker` woken instead of a NIC, when frames have come.
    pub fn set_waker(&self, waker: Arc<Waker>) {
        lock(&self.0.inbound).bell = Bell::Hub(waker);
        self.0.notify();
    }
}

impl Drop for NearEnd {
    fn drop(&mut self) {
        self.0.near_is_gone.store(true, Ordering::Release);
        self.0.wake();
    }
}

impl NetBackend for NearEnd {
    fn send(&mut self, frame: &[u8]) -> bool {
        let cable = &self.0;
        if !(ETHERNET_HEADER..=LONGEST_FRAME).contains(&frame.len()) || cable.unplugged.load(Ordering::Relaxed) {
            return false;
        }
        let mut outbound = lock(&cable.outbound);
        if outbound.frames.len() >= OUTBOUND_FRAMES || outbound.bytes + frame.len() > OUTBOUND_BYTES {
            return false;
        }
        let mut buffer = outbound.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(frame);
        outbound.bytes += buffer.len();
        outbound.frames.push_back(buffer);
        let asleep = std::mem::replace(&mut outbound.asleep, false);
        drop(outbound);
        if asleep {
            cable.wake();
        }
        true
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> bool {
        let cable = &self.0;
        let mut inbound = lock(&cable.inbound);
        let Some(next) = inbound.frames.pop_front() else {
            inbound.starved = true;
            return false;
        };
        let used = std::mem::replace(frame, next);
        if inbound.spare.len() < SPARE_BUFFERS && (1..=SPARE_SIZE).contains(&used.capacity()) {
            inbound.spare.push(used);
        }
        let wake = inbound.wants_room && inbound.frames.len() <= QUEUE / 2;
        if wake {
            inbound.wants_room = false;
        }
        drop(inbound);
        if wake {
            cable.wake();
        }
        true
    }

    fn set_notifier(&mut self, notifier: Notifier) {
        lock(&self.0.inbound).bell = Bell::Nic(notifier);
        // Frames may have come before.
        self.0.notify();
    }

    fn link_up(&self) -> bool {
        !self.0.unplugged.load(Ordering::Relaxed)
    }

    fn takes_long_packets(&self) -> bool {
        self.0.long_packets.load(Ordering::Relaxed)
    }
}

/// A cable as monitors have it in hand.
#[derive(Clone)]
pub struct Plug(Arc<Cable>);

impl Plug {
    /// Plugs the cable in or pulls it out; what is under way is lost then.
    pub fn set_link(&self, up: bool) {
        self.0.unplugged.store(!up, Ordering::Relaxed);
        if !up {
            lock(&self.0.inbound).frames.clear();
            let mut outbound = lock(&self.0.outbound);
            outbound.frames.clear();
            outbound.bytes = 0;
        }
        self.0.notify();
        self.0.wake();
    }

    /// Whether it is plugged in.
    pub fn link_up(&self) -> bool {
        !self.0.unplugged.load(Ordering::Relaxed)
    }

    /// The rates that it is limited to.
    pub fn limits(&self) -> Limits {
        *lock(&self.0.limits)
    }

    /// Limits it to other rates from now on.
    pub fn set_limits(&self, limits: Limits) {
        *lock(&self.0.limits) = limits;
        self.0.limits_set.fetch_add(1, Ordering::Release);
        self.0.wake();
    }
}

/// What the thread of a back end has.
pub struct FarEnd {
    cable: Arc<Cable>,
    /// Frames of the guest that are this end's already.
    taken: VecDeque<Vec<u8>>,
    /// Frames for the guest that [`FarEnd::flush`] hands over.
    batch: Vec<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    /// Frames in the NIC's queue when last looked: there cannot be more now.
    queued: usize,
    throttle: Throttle,
    limits_seen: u64,
    dumps: Vec<Dump>,
    /// When the limits let something pass that they did not let pass when last asked.
    again: Option<Instant>,
}

impl FarEnd {
    /// Captures all frames from now on.
    pub fn add_dump(&mut self, dump: Dump) {
        self.dumps.push(dump);
    }

    /// Whether the NIC is gone, so that the thread may end.
    pub fn near_is_gone(&self) -> bool {
        self.cable.near_is_gone.load(Ordering::Acquire)
    }

    /// The next frame of the guest, if there is one that the limits let pass. Buffers go back by [`FarEnd::recycle`].
    pub fn next(&mut self) -> Option<Vec<u8>> {
        if self.taken.is_empty() {
            let mut outbound = lock(&self.cable.outbound);
            std::mem::swap(&mut outbound.frames, &mut self.taken);
            outbound.bytes = 0;
            while outbound.spare.len() < SPARE_BUFFERS {
                let Some(buffer) = self.spare.pop() else { break };
                outbound.spare.push(buffer);
            }
        }
        let len = self.taken.front()?.len();
        if !self.pass(Direction::Write, len) {
            return None;
        }
        let frame = self.taken.pop_front()?;
        self.dumps.iter_mut().for_each(|dump| dump.frame(&frame));
        Some(frame)
    }

    /// Takes back the buffer of a frame that has been read.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS && (1..=SPARE_SIZE).contains(&buffer.capacity()) {
            self.spare.push(buffer);
        }
    }

    /// An empty buffer for a frame.
    pub fn buffer(&mut self) -> Vec<u8> {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer
    }

    /// How many more frames [`FarEnd::deliver`] has room for. Once there is none, the thread is woken when there is again.
    pub fn room(&mut self) -> usize {
        if self.queued + self.batch.len() >= QUEUE {
            self.flush();
            let mut inbound = lock(&self.cable.inbound);
            self.queued = inbound.frames.len();
            inbound.wants_room = self.queued >= QUEUE;
        }
        if !self.pass(Direction::Read, 0) {
            return 0;
        }
        QUEUE.saturating_sub(self.queued + self.batch.len())
    }

    /// Whether the NIC has taken all that was for it.
    pub fn is_drained(&mut self) -> bool {
        self.batch.is_empty() && lock(&self.cable.inbound).frames.is_empty()
    }

    /// Gives the guest a frame, which is lost if there is no room.
    pub fn deliver(&mut self, frame: Vec<u8>) {
        if frame.len() > LONGEST_FRAME || self.queued + self.batch.len() >= QUEUE && self.room() == 0 {
            return self.recycle(frame);
        }
        self.pass(Direction::Read, frame.len());
        self.dumps.iter_mut().for_each(|dump| dump.frame(&frame));
        self.batch.push(frame);
    }

    /// Lets the NIC see what has been delivered.
    pub fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if self.cable.unplugged.load(Ordering::Relaxed) {
            self.batch.clear();
            return;
        }
        let mut inbound = lock(&self.cable.inbound);
        inbound.frames.extend(self.batch.drain(..));
        self.queued = inbound.frames.len();
        self.spare.append(&mut inbound.spare);
        let starved = std::mem::replace(&mut inbound.starved, false);
        let bell = if starved { inbound.bell.clone() } else { Bell::Nobody };
        drop(inbound);
        self.spare.truncate(SPARE_BUFFERS);
        bell.ring();
    }

    /// To be called before the thread sleeps: when it has to look again by itself (`Some` of the past: at once, as there is something).
    pub fn sleep_until(&mut self) -> Option<Instant> {
        self.flush();
        for dump in &mut self.dumps {
            dump.flush();
        }
        let limited = self.again.take();
        let mut outbound = lock(&self.cable.outbound);
        if limited.is_none() && !(outbound.frames.is_empty() && self.taken.is_empty()) {
            return Some(Instant::now());
        }
        outbound.asleep = true;
        limited
    }

    /// Whether `bytes` may pass now, and counts them if so; nothing is counted for 0 bytes.
    fn pass(&mut self, direction: Direction, bytes: usize) -> bool {
        let set = self.cable.limits_set.load(Ordering::Acquire);
        if set != self.limits_seen {
            self.limits_seen = set;
            self.throttle = Throttle::new(*lock(&self.cable.limits));
        }
        if self.throttle.is_off() {
            return true;
        }
        let now = Instant::now();
        match self.throttle.wait(direction, now) {
            // What is delivered regardless is an answer of a few bytes; it counts all the same.
            Some(when) if bytes == 0 || direction == Direction::Write => {
                self.again = Some(self.again.map_or(when, |again| again.min(when)));
                false
            }
            _ => {
                self.throttle.count(direction, bytes);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll, Token};
    use std::time::Duration;

    fn ends() -> (NearEnd, FarEnd, Poll) {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (near, far) = cable(waker, Limits::default());
        (near, far, poll)
    }

    fn woken(poll: &mut Poll) -> bool {
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        !events.is_empty()
    }

    #[test]
    fn frames_go_both_ways_and_the_thread_is_woken_once() {
        let (mut near, mut far, mut poll) = ends();
        assert!(far.sleep_until().is_none());
        assert!(near.send(&[1; 60]) && woken(&mut poll));
        assert!(near.send(&[2; 60]) && !woken(&mut poll));
        assert!(far.sleep_until().is_some());
        let frame = far.next().unwrap();
        assert_eq!(frame, [1; 60]);
        far.recycle(frame);
        assert_eq!((far.next().unwrap(), far.next()), (vec![2; 60], None));
        far.deliver(vec![3; 60]);
        let mut frame = Vec::new();
        assert!(!near.receive(&mut frame));
        far.flush();
        assert!(near.receive(&mut frame) && frame == [3; 60]);
        assert!(!near.receive(&mut frame));
    }

    #[test]
    fn full_queue_loses_frames_and_wakes_who_waits_for_room() {
        let (mut near, mut far, mut poll) = ends();
        for n in 0..QUEUE + 10 {
            assert_eq!(far.room() > 0, n < QUEUE);
            far.deliver(vec![n as u8; 60]);
        }
        far.flush();
        let mut frame = Vec::new();
        for n in 0..QUEUE {
            assert!(near.receive(&mut frame));
            assert_eq!(frame[0], n as u8);
            assert_eq!(woken(&mut poll), n + 1 == QUEUE / 2, "{n}");
        }
        assert!(!near.receive(&mut frame) && far.room() == QUEUE);
        for _ in 0..OUTBOUND_FRAMES {
            assert!(near.send(&[0; 60]));
        }
        assert!(!near.send(&[0; 60]));
    }

    #[test]
    fn pulled_cable_loses_everything_and_sends_of_wrong_lengths_are_refused() {
        let (mut near, mut far, _poll) = ends();
        let plug = near.plug();
        assert!(!near.send(&[0; 13]) && !near.send(&vec![0; LONGEST_FRAME + 1]));
        assert!(near.send(&[0; 60]));
        plug.set_link(false);
        assert!(!near.link_up() && !near.send(&[0; 60]) && far.next().is_none());
        far.deliver(vec![0; 60]);
        far.flush();
        assert!(!near.receive(&mut Vec::new()));
        plug.set_link(true);
        assert!(near.link_up() && near.send(&[0; 60]));
        drop(near);
        assert!(far.near_is_gone());
    }

    #[test]
    fn limits_hold_back_what_is_too_much_until_later() {
        let (mut near, mut far, _poll) = ends();
        let mut limits = Limits::default();
        limits.set("bps-write", 10_000).unwrap();
        near.plug().set_limits(limits);
        for _ in 0..4 {
            assert!(near.send(&[0; 1000]));
        }
        // A tenth of a second's worth may pass at once, and the frame that goes beyond it.
        assert!(far.next().is_some() && far.next().is_some() && far.next().is_none());
        let wait = far.sleep_until().unwrap().duration_since(Instant::now());
        assert!(wait > Duration::from_millis(20) && wait < Duration::from_millis(200), "{wait:?}");
        near.plug().set_limits(Limits::default());
        assert!(far.next().is_some() && far.next().is_some());
    }
}
