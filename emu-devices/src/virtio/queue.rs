//! The split virtqueue: Virtual I/O Device (VIRTIO) Version 1.2, 2.7, from the device's side.
//!
//! ```text
//!  descriptor table  16 bytes each: 0 address (8) | 8 length (4) | 12 flags: 1 NEXT, 2 WRITE, 4 INDIRECT (2) | 14 next (2)
//!  available ring    0 flags: 1 NO_INTERRUPT | 2 idx | 4 ring of heads (2 each) | used_event
//!  used ring         0 flags: 1 NO_NOTIFY    | 2 idx | 4 ring of id and length (4 each) | avail_event
//! ```
//! A driver is not trusted. A chain has at most as many descriptors as its table has entries, an indirect table at most [`LONGEST_CHAIN`];
//! all buffers lie in memory, and together have less than 4 GiB. Whatever breaks that is a [`QueueError`], after which the device does
//! nothing until it is reset.
//!
//! rust-vmm's `virtio-queue` is not used: its `vm-memory` hands out references and pointers into guest memory, which
//! [`GuestMemory`] never does since writes have to invalidate decoded code and BARs move, so that each access would go through an
//! adapter about as long as this file. Deliberately absent: packed rings and `queue_reset`.

use crate::scatter::{self, Scatter, Segment};
use emu_core::mem::GuestMemory;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use thiserror::Error;

/// Descriptors of a chain at most, where an indirect table has more than the queue.
pub const LONGEST_CHAIN: u16 = 1024;
/// No vector: messages are not sent.
pub const NO_VECTOR: u16 = 0xffff;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const NO_INTERRUPT: u16 = 1;
const NO_NOTIFY: u16 = 1;
const DESCRIPTOR: u64 = 16;

/// What a driver has done to its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QueueError {
    /// More buffers are available than there are descriptors.
    #[error("the index of available buffers went from {0} to {1}")]
    IndexJump(u16, u16),
    /// A descriptor's number is beyond its table.
    #[error("descriptor {0} does not exist")]
    NoSuchDescriptor(u16),
    /// A chain is longer than its table, so it is a loop.
    #[error("a chain of descriptors has no end")]
    Loop,
    /// A buffer does not lie in memory, or is empty.
    #[error("a buffer of {len:#x} bytes at {address:#x} is not in memory")]
    NoMemory {
        /// Guest-physical.
        address: u64,
        /// In bytes.
        len: u32,
    },
    /// A chain's buffers have 4 GiB or more.
    #[error("a chain is longer than 4 GiB")]
    TooLong,
    /// A buffer to read follows one to write.
    #[error("a buffer for the device to read follows one for it to write")]
    Order,
    /// An indirect table is empty, too long, not in whole descriptors, inside another one, followed by a descriptor, or was not agreed on.
    #[error("an indirect table of {0:#x} bytes is not allowed there")]
    Indirect(u32),
    /// The device cannot make sense of what a buffer holds.
    #[error("{0}")]
    Contents(&'static str),
}

/// What of a queue is saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueState {
    /// Descriptors: a power of two.
    pub size: u16,
    /// The driver has set it up.
    pub ready: bool,
    /// The descriptor table's address.
    pub descriptors: u64,
    /// The available ring's address.
    pub available: u64,
    /// The used ring's address.
    pub used: u64,
    /// The available buffer that is taken next.
    pub next_available: u16,
    /// How many buffers have been used.
    pub next_used: u16,
    /// `next_used` when the driver was last asked whether it wants an interrupt.
    pub signalled: Option<u16>,
    /// The MSI-X vector.
    pub vector: u16,
    /// Whether the device wants to hear of new buffers.
    pub notified: bool,
}

impl QueueState {
    /// A queue of `size` descriptors as a reset of the device leaves it.
    fn after_reset(size: u16) -> QueueState {
        QueueState {
            size,
            ready: false,
            descriptors: 0,
            available: 0,
            used: 0,
            next_available: 0,
            next_used: 0,
            signalled: None,
            vector: NO_VECTOR,
            notified: true,
        }
    }
}

/// A chain of descriptors that the driver has made available.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// The number of its first descriptor, by which it is given back.
    pub head: u16,
    segments: Vec<Segment>,
    /// How many of the segments are to be read; the others are to be written.
    readable: usize,
}

impl Chain {
    fn readable(&self) -> &[Segment] {
        // A saved chain may say anything.
        &self.segments[..self.readable.min(self.segments.len())]
    }

    fn writable(&self) -> &[Segment] {
        &self.segments[self.readable.min(self.segments.len())..]
    }

    /// Bytes for the device to read.
    pub fn readable_len(&self) -> usize {
        scatter::total(self.readable())
    }

    /// Bytes for the device to write.
    pub fn writable_len(&self) -> usize {
        scatter::total(self.writable())
    }

    /// Copies what the driver has put into the chain, from its byte `offset`, into `bytes`; how many bytes there were.
    pub fn read(&self, memory: &GuestMemory, offset: usize, bytes: &mut [u8]) -> usize {
        scatter::read(memory, self.readable(), offset, bytes)
    }

    /// As many bytes as `buffer` has, from byte `offset`; `None` if there are fewer.
    pub fn read_array<const N: usize>(&self, memory: &GuestMemory, offset: usize) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        (self.read(memory, offset, &mut bytes) == N).then_some(bytes)
    }

    /// Copies `bytes` to byte `offset` of the room that the driver has given; how many fitted.
    pub fn write(&self, memory: &GuestMemory, offset: usize, bytes: &[u8]) -> usize {
        scatter::write(memory, self.writable(), offset, bytes)
    }

    /// `len` bytes of what the driver has put into the chain, from byte `offset`.
    pub fn source(&self, memory: &Arc<GuestMemory>, offset: usize, len: usize) -> Scatter {
        Scatter::new(memory, self.readable(), offset, len)
    }

    /// `len` bytes of the room that the driver has given, from byte `offset`.
    pub fn destination(&self, memory: &Arc<GuestMemory>, offset: usize, len: usize) -> Scatter {
        Scatter::new(memory, self.writable(), offset, len)
    }
}

/// One virtqueue.
#[derive(Clone, Debug)]
pub struct Queue {
    /// What is saved.
    pub state: QueueState,
    max: u16,
    indirect: bool,
    event_idx: bool,
    /// The driver's index, as last seen: buffers up to there can be taken without another look.
    available_index: u16,
    /// `next_used` as the driver sees it.
    published: u16,
}

impl Queue {
    /// A queue of at most `max` descriptors, a power of two.
    pub fn new(max: u16) -> Queue {
        Queue {
            state: QueueState::after_reset(max),
            max,
            indirect: false,
            event_idx: false,
            available_index: 0,
            published: 0,
        }
    }

    /// As after a reset of the device.
    pub fn reset(&mut self) {
        self.state = QueueState::after_reset(self.max);
        (self.available_index, self.published) = (0, 0);
    }

    /// Descriptors at most.
    pub fn max(&self) -> u16 {
        self.max
    }

    /// What device and driver have agreed on: indirect tables, and event indices.
    pub fn set_features(&mut self, indirect: bool, event_idx: bool) {
        (self.indirect, self.event_idx) = (indirect, event_idx);
    }

    /// The driver asks for fewer descriptors. What is not a power of two up to [`Queue::max`] is lost.
    pub fn set_size(&mut self, size: u16) {
        if size.is_power_of_two() && size <= self.max {
            self.state.size = size;
        }
    }

    /// Restores what was saved; a size that is impossible becomes the largest.
    pub fn set_state(&mut self, state: QueueState) {
        self.state = state;
        if !self.state.size.is_power_of_two() || self.state.size > self.max {
            self.state.size = self.max;
        }
        (self.available_index, self.published) = (self.state.next_available, self.state.next_used);
    }

    /// The next chain that the driver has made available; `None` if there is none.
    ///
    /// # Errors
    /// The driver has broken the rules.
    pub fn pop(&mut self, memory: &GuestMemory) -> Result<Option<Chain>, QueueError> {
        if !self.has_available(memory)? {
            return Ok(None);
        }
        let slot = u64::from(self.state.next_available & (self.state.size - 1));
        let head = read_u16(memory, self.state.available.wrapping_add(4 + 2 * slot));
        let chain = self.chain(memory, head)?;
        self.state.next_available = self.state.next_available.wrapping_add(1);
        Ok(Some(chain))
    }

    /// Whether the driver has made a chain available.
    ///
    /// # Errors
    /// Its index is impossible.
    pub fn has_available(&mut self, memory: &GuestMemory) -> Result<bool, QueueError> {
        if !self.state.ready {
            return Ok(false);
        }
        if self.available_index == self.state.next_available {
            let index = read_u16(memory, self.state.available.wrapping_add(2));
            // A buffer that the driver has not seen to be used keeps its descriptor. So no more than the queue holds are under way, and no
            // more are taken at a time, however the driver, or the device itself by a buffer that lies there, changes the index.
            let all = index.wrapping_sub(self.published);
            if index.wrapping_sub(self.state.next_available) > self.state.size || all > self.state.size {
                return Err(QueueError::IndexJump(self.state.next_available, index));
            }
            self.available_index = index;
        }
        Ok(self.available_index != self.state.next_available)
    }

    /// Gives the last chain back that was taken: the next [`Queue::pop`] returns it again.
    pub fn unpop(&mut self) {
        self.state.next_available = self.state.next_available.wrapping_sub(1);
    }

    fn chain(&self, memory: &GuestMemory, head: u16) -> Result<Chain, QueueError> {
        let mut chain = Chain { head, segments: Vec::new(), readable: 0 };
        let (mut table, mut entries, mut next, mut left) =
            (self.state.descriptors, self.state.size, head, self.state.size);
        let mut bytes = 0u32;
        let mut inside = false;
        loop {
            if next >= entries {
                return Err(QueueError::NoSuchDescriptor(next));
            }
            left = left.checked_sub(1).ok_or(QueueError::Loop)?;
            let descriptor = Descriptor::read(memory, table.wrapping_add(DESCRIPTOR * u64::from(next)));
            let Descriptor { address, len, flags, .. } = descriptor;
            if flags & INDIRECT != 0 {
                let size = u64::from(len);
                let count = size / DESCRIPTOR;
                let fits = size.is_multiple_of(DESCRIPTOR) && (1..=u64::from(LONGEST_CHAIN)).contains(&count);
                if !self.indirect || inside || flags & NEXT != 0 || !fits {
                    return Err(QueueError::Indirect(len));
                }
                if !memory.is_writable_memory(address, size) {
                    return Err(QueueError::NoMemory { address, len });
                }
                (table, entries, next, left, inside) = (address, count as u16, 0, count as u16, true);
                continue;
            }
            if len == 0 || !memory.is_writable_memory(address, len.into()) {
                return Err(QueueError::NoMemory { address, len });
            }
            bytes = bytes.checked_add(len).ok_or(QueueError::TooLong)?;
            match flags & WRITE != 0 {
                false if chain.readable < chain.segments.len() => return Err(QueueError::Order),
                false => chain.readable += 1,
                true => {}
            }
            chain.segments.push(Segment { address, len });
            if flags & NEXT == 0 {
                return Ok(chain);
            }
            next = descriptor.next;
        }
    }

    /// Gives a chain back, into which `len` bytes have been written. The driver sees it after [`Queue::publish`].
    pub fn push(&mut self, memory: &GuestMemory, head: u16, len: u32) {
        if !self.state.ready {
            return;
        }
        let slot = u64::from(self.state.next_used & (self.state.size - 1));
        let element = u64::from(head) | u64::from(len) << 32;
        memory.write(self.state.used.wrapping_add(4 + 8 * slot), &element.to_le_bytes());
        self.state.next_used = self.state.next_used.wrapping_add(1);
    }

    /// Shows the driver what has been pushed, and tells it from when on it has to notify; whether it wants an interrupt.
    pub fn publish(&mut self, memory: &GuestMemory) -> bool {
        if !self.state.ready {
            return false;
        }
        if self.event_idx && self.state.notified {
            // avail_event (2.7.10): behind the used ring.
            let at = self.state.used.wrapping_add(4 + 8 * u64::from(self.state.size));
            if read_u16(memory, at) != self.state.next_available {
                memory.write(at, &self.state.next_available.to_le_bytes());
            }
        }
        let new = self.state.next_used;
        if new == self.published {
            return false;
        }
        memory.write(self.state.used.wrapping_add(2), &new.to_le_bytes());
        self.published = new;
        if !self.event_idx {
            return read_u16(memory, self.state.available) & NO_INTERRUPT == 0;
        }
        // 2.7.7.1: an interrupt if the index has moved beyond used_event, which is behind the available ring.
        let event = read_u16(memory, self.state.available.wrapping_add(4 + 2 * u64::from(self.state.size)));
        let old = self.state.signalled.replace(new);
        old.is_none_or(|old| new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old))
    }

    /// Says whether the device wants to hear of new buffers: without need it does not, so that the driver saves the exits.
    pub fn want_notifications(&mut self, memory: &GuestMemory, on: bool) {
        if self.state.notified == on {
            return;
        }
        self.state.notified = on;
        if self.state.ready && !self.event_idx {
            let flags = if on { 0 } else { NO_NOTIFY };
            memory.write(self.state.used, &flags.to_le_bytes());
        }
    }
}

struct Descriptor {
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    fn read(memory: &GuestMemory, at: u64) -> Descriptor {
        let mut bytes = [0; DESCRIPTOR as usize];
        memory.read(at, &mut bytes);
        let all = u128::from_le_bytes(bytes);
        Descriptor {
            address: all as u64,
            len: (all >> 64) as u32,
            flags: (all >> 96) as u16,
            next: (all >> 112) as u16,
        }
    }
}

fn read_u16(memory: &GuestMemory, address: u64) -> u16 {
    let mut bytes = [0; 2];
    memory.read(address, &mut bytes);
    u16::from_le_bytes(bytes)
}
