//! The block device: VIRTIO 1.2, 5.2.
//!
//! ```text
//!  request:  0 type (4) | 4 reserved (4) | 8 sector (8) | data, read or written | status (1): 0 OK, 1 IOERR, 2 UNSUPP
//! ```
//! As many requests are under way as the driver makes available, as far as their data fit into [`MOST_DATA`]. Deliberately absent:
//! several queues, secure erase, zones, and SCSI commands of the legacy interface, which were optional.

use super::queue::{Chain, QueueError};
use super::{Kind, VirtioContext, VirtioDevice};
use crate::storage::block::{Disk, DiskState, LONGEST, Media, Request, SECTOR};
use crate::storage::ide::Geometry;
use emu_core::bus::Notifier;
use emu_core::clock::Instant;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Descriptors of the queue, if nothing else is said.
pub const QUEUE_SIZE: u16 = 256;
/// Bytes of the identification string.
pub const SERIAL: usize = 20;
/// Bytes of data under way at most; requests beyond wait.
const MOST_DATA: u64 = 16 << 20;
/// Sectors of a discard or write of zeros at most: 2 GiB.
const MOST_SECTORS: u32 = 0x3f_ffff;
const HEADER: usize = 16;
/// Bytes of a discard's or write of zeros' range.
const RANGE: usize = 16;

/// Feature bits (5.2.3).
mod feature {
    pub const SEG_MAX: u64 = 1 << 2;
    pub const GEOMETRY: u64 = 1 << 4;
    pub const RO: u64 = 1 << 5;
    pub const BLK_SIZE: u64 = 1 << 6;
    pub const FLUSH: u64 = 1 << 9;
    pub const TOPOLOGY: u64 = 1 << 10;
    pub const CONFIG_WCE: u64 = 1 << 11;
    pub const DISCARD: u64 = 1 << 13;
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// Offset of `writeback` in the configuration structure.
const WRITEBACK: usize = 32;
const CONFIG: usize = 60;

/// What a request is to do, by the specification's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Operation {
    In,
    Out,
    Flush,
    GetId,
    Discard,
    WriteZeroes,
}

impl Operation {
    fn decode(value: u32) -> Option<Operation> {
        match value {
            0 => Some(Operation::In),
            1 => Some(Operation::Out),
            4 => Some(Operation::Flush),
            8 => Some(Operation::GetId),
            11 => Some(Operation::Discard),
            13 => Some(Operation::WriteZeroes),
            _ => None,
        }
    }
}

/// What the status byte says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ok = 0,
    IoErr = 1,
    Unsupp = 2,
}

/// How a block device is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockConfig {
    /// What the driver reads as the identification string; cut to [`SERIAL`] bytes.
    pub serial: String,
    /// Descriptors of the queue: a power of two of at least 4.
    pub queue_size: u16,
    /// Bytes of a logical block: a power of two of at least 512.
    pub logical_block: u32,
    /// Bytes of a physical block: as large or larger.
    pub physical_block: u32,
    /// Writes are durable only after a flush, until the driver says otherwise.
    pub write_cache: bool,
    /// The driver may change that.
    pub config_wce: bool,
    /// Offers discards.
    pub discard: bool,
    /// Offers writes of zeros.
    pub write_zeroes: bool,
}

impl Default for BlockConfig {
    fn default() -> BlockConfig {
        BlockConfig {
            serial: String::new(),
            queue_size: QUEUE_SIZE,
            logical_block: SECTOR as u32,
            physical_block: SECTOR as u32,
            write_cache: true,
            config_wce: true,
            discard: true,
            write_zeroes: true,
        }
    }
}

/// A request that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// What the disk calls its parts.
    tag: u64,
    chain: Chain,
    operation: Operation,
    /// Where its data are on the disk, in bytes.
    offset: u64,
    /// Bytes of data.
    len: u64,
    /// How many of them the disk has been asked for.
    started: u64,
    /// How many have come or gone.
    finished: u64,
    /// Parts that are with the disk.
    parts: u32,
    /// A flush follows.
    durable: bool,
    /// A part has failed.
    failed: bool,
}

/// What of the device is saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockState {
    /// The disk.
    pub disk: DiskState,
    /// Requests under way, oldest first.
    pub pending: Vec<Pending>,
    /// The next request's tag.
    pub next_tag: u64,
    /// Bytes of data that are with the disk.
    pub under_way: u64,
    /// `writeback`.
    pub writeback: bool,
}

/// A block device.
pub struct Block {
    disk: Disk,
    config: BlockConfig,
    pending: VecDeque<Pending>,
    next_tag: u64,
    under_way: u64,
    writeback: bool,
}

impl Block {
    /// A device for `disk`.
    pub fn new(disk: Disk, config: BlockConfig) -> Block {
        let writeback = config.write_cache;
        Block { disk, config, pending: VecDeque::new(), next_tag: 0, under_way: 0, writeback }
    }

    /// The user's handle on its disk.
    pub fn media(&self) -> Media {
        self.disk.media()
    }

    fn bytes(&self) -> u64 {
        self.disk.sectors() * SECTOR
    }

    /// Starts what there is to start, first of all the rest of a request that is too long to be started at once.
    fn work(&mut self, cx: &mut VirtioContext) {
        loop {
            while self.under_way < MOST_DATA && self.start_part(cx) {}
            let all_started = self.pending.back().is_none_or(|last| last.started >= last.len);
            if !all_started || self.under_way >= MOST_DATA {
                return;
            }
            let Some(chain) = cx.pop(0) else { return };
            self.accept(cx, chain);
        }
    }

    /// Asks the disk for the next part of the newest request; `false` if it has been asked for all.
    fn start_part(&mut self, cx: &mut VirtioContext) -> bool {
        let Some(pending) = self.pending.back_mut() else { return false };
        let left = pending.len.saturating_sub(pending.started);
        if left == 0 {
            return false;
        }
        let n = left.min(LONGEST as u64);
        let offset = pending.offset.saturating_add(pending.started);
        let (at, len) = (pending.started as usize, n as usize);
        match pending.operation {
            Operation::In => {
                let room = pending.chain.destination(cx.memory, at, len);
                self.disk.enqueue_read(cx.now, pending.tag, offset, room);
            }
            _ => {
                let data = pending.chain.source(cx.memory, HEADER + at, len);
                self.disk.enqueue_write(cx.now, pending.tag, offset, data);
            }
        }
        (pending.started, pending.parts) = (pending.started + n, pending.parts.saturating_add(1));
        self.under_way = self.under_way.saturating_add(n);
        if pending.started >= pending.len && pending.durable {
            self.disk.enqueue(cx.now, pending.tag, Request::Flush);
            pending.parts = pending.parts.saturating_add(1);
        }
        true
    }

    /// Looks at a request's header, and starts it or finishes it at once.
    fn accept(&mut self, cx: &mut VirtioContext, chain: Chain) {
        let room = chain.writable_len();
        let header = chain.read_array::<HEADER>(cx.memory, 0);
        let (Some(header), 1..) = (header, room) else {
            return cx.fail(QueueError::Contents("a block request lacks its header or its status"));
        };
        let header = u128::from_le_bytes(header);
        let sector = (header >> 64) as u64;
        let data = (chain.readable_len() - HEADER) as u64;
        match Operation::decode(header as u32) {
            Some(Operation::In) => self.transfer(cx, chain, Operation::In, sector, room as u64 - 1),
            Some(Operation::Out) => self.transfer(cx, chain, Operation::Out, sector, data),
            Some(Operation::Flush) => self.enqueue(cx, chain, Operation::Flush, Request::Flush),
            Some(Operation::GetId) => {
                let mut id = [0; SERIAL];
                let serial = self.config.serial.as_bytes();
                let n = serial.len().min(SERIAL);
                id[..n].copy_from_slice(&serial[..n]);
                let n = chain.write(cx.memory, 0, &id[..(room - 1).min(SERIAL)]);
                finish(cx, &chain, Status::Ok, n);
            }
            Some(operation @ (Operation::Discard | Operation::WriteZeroes)) => {
                match self.range(cx, &chain, operation, data) {
                    Ok(request) => self.enqueue(cx, chain, operation, request),
                    Err(status) => finish(cx, &chain, status, 0),
                }
            }
            None => finish(cx, &chain, Status::Unsupp, 0),
        }
    }

    /// Data move between disk and memory: whole logical blocks, inside of the disk.
    fn transfer(&mut self, cx: &mut VirtioContext, chain: Chain, operation: Operation, sector: u64, len: u64) {
        let offset = sector.checked_mul(SECTOR);
        let block = u64::from(self.config.logical_block);
        let inside = |offset: u64| {
            offset.checked_add(len).is_some_and(|end| end <= self.bytes())
                && offset.is_multiple_of(block)
                && len.is_multiple_of(block)
        };
        let refused = operation == Operation::Out && self.disk.is_read_only();
        match offset.filter(|offset| inside(*offset) && !refused) {
            None => finish(cx, &chain, Status::IoErr, 0),
            Some(_) if len == 0 => finish(cx, &chain, Status::Ok, 0),
            Some(offset) => {
                // Without a way to flush, a driver takes what is written for durable (5.2.6.2).
                let can_flush = cx.has(feature::FLUSH | feature::CONFIG_WCE);
                let durable = operation == Operation::Out && !(self.writeback && can_flush);
                self.remember(chain, operation, offset, len, durable);
            }
        }
    }

    /// The range of a discard or a write of zeros (5.2.6.2: one, within the limits).
    fn range(&self, cx: &VirtioContext, chain: &Chain, operation: Operation, data: u64) -> Result<Request, Status> {
        let offered =
            self.features() & if operation == Operation::Discard { feature::DISCARD } else { feature::WRITE_ZEROES };
        if offered == 0 {
            return Err(Status::Unsupp);
        }
        let Some(range) = chain.read_array::<RANGE>(cx.memory, HEADER).filter(|_| data == RANGE as u64) else {
            return Err(Status::IoErr);
        };
        let range = u128::from_le_bytes(range);
        let (sector, sectors, flags) = (range as u64, (range >> 64) as u32, (range >> 96) as u32);
        let unmap = flags & 1 != 0;
        // Discards have no flags.
        if flags & !1 != 0 || unmap && operation == Operation::Discard {
            return Err(Status::Unsupp);
        }
        let len = u64::from(sectors) * SECTOR;
        let offset =
            sector.checked_mul(SECTOR).filter(|offset| offset.checked_add(len).is_some_and(|e| e <= self.bytes()));
        let block = u64::from(self.config.logical_block);
        let Some(offset) = offset
            .filter(|offset| sectors <= MOST_SECTORS && offset.is_multiple_of(block) && len.is_multiple_of(block))
        else {
            return Err(Status::IoErr);
        };
        Ok(match operation {
            Operation::Discard => Request::Discard { offset, len },
            _ => Request::WriteZeroes { offset, len, unmap },
        })
    }

    fn remember(&mut self, chain: Chain, operation: Operation, offset: u64, len: u64, durable: bool) -> u64 {
        let tag = self.next_tag;
        self.next_tag = tag.wrapping_add(1);
        self.pending.push_back(Pending {
            tag,
            chain,
            operation,
            offset,
            len,
            started: 0,
            finished: 0,
            parts: 0,
            durable,
            failed: false,
        });
        tag
    }

    /// Starts a request without data.
    fn enqueue(&mut self, cx: &mut VirtioContext, chain: Chain, operation: Operation, request: Request) {
        let tag = self.remember(chain, operation, 0, 0, false);
        self.disk.enqueue(cx.now, tag, request);
        if let Some(pending) = self.pending.back_mut() {
            pending.parts = 1;
        }
    }

    /// Takes what the disk has finished, which is in the order of requests.
    fn collect(&mut self, cx: &mut VirtioContext) {
        while let Some((tag, completion)) = self.disk.completed(cx.now) {
            let Some(pending) = self.pending.front_mut().filter(|pending| pending.tag == tag) else { continue };
            pending.parts = pending.parts.saturating_sub(1);
            pending.failed |= completion.error.is_some();
            let part = pending.len.saturating_sub(pending.finished).min(LONGEST as u64);
            if pending.operation == Operation::In {
                let room = (pending.chain.writable_len() as u64).saturating_sub(1).saturating_sub(pending.finished);
                let data = &completion.data[..completion.data.len().min(room as usize)];
                pending.chain.write(cx.memory, pending.finished as usize, data);
            }
            self.disk.recycle(completion.data);
            self.under_way = self.under_way.saturating_sub(part);
            pending.finished += part;
            if pending.parts > 0 || pending.started < pending.len {
                continue;
            }
            if let Some(done) = self.pending.pop_front() {
                let status = if done.failed { Status::IoErr } else { Status::Ok };
                let read = if done.operation == Operation::In { done.len as usize } else { 0 };
                finish(cx, &done.chain, status, read);
            }
        }
    }
}

/// Writes the status behind everything else, and gives the request back with `len` bytes of data.
fn finish(cx: &mut VirtioContext, chain: &Chain, status: Status, len: usize) {
    chain.write(cx.memory, chain.writable_len().saturating_sub(1), &[status as u8]);
    cx.push(0, chain.head, len + 1);
}

impl VirtioDevice for Block {
    const ID: &'static str = "virtio-blk";
    const KIND: Kind = Kind { device: 2, transitional: 0x1001, class: 0x01_0000 };
    type State = BlockState;

    fn features(&self) -> u64 {
        let mut all = feature::SEG_MAX | feature::GEOMETRY | feature::BLK_SIZE | feature::FLUSH | feature::TOPOLOGY;
        let read_only = self.disk.is_read_only();
        for (on, bit) in [
            (read_only, feature::RO),
            (self.config.config_wce, feature::CONFIG_WCE),
            (self.config.discard && !read_only, feature::DISCARD),
            (self.config.write_zeroes && !read_only, feature::WRITE_ZEROES),
        ] {
            all |= if on { bit } else { 0 };
        }
        all
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![self.config.queue_size.next_power_of_two().clamp(4, 1024)]
    }

    /// `struct virtio_blk_config` (5.2.4).
    fn config(&self, _features: u64) -> Vec<u8> {
        let geometry = Geometry::of(self.disk.sectors());
        let exponent = (self.config.physical_block / self.config.logical_block).max(1).ilog2() as u8;
        let mut all = Vec::with_capacity(CONFIG);
        all.extend(self.disk.sectors().to_le_bytes());
        // size_max, which is not offered; seg_max: without header and status.
        all.extend(0u32.to_le_bytes());
        all.extend((u32::from(self.queue_sizes()[0]) - 2).to_le_bytes());
        all.extend(geometry.cylinders.to_le_bytes());
        all.extend([geometry.heads, geometry.sectors]);
        all.extend(self.config.logical_block.to_le_bytes());
        // Topology: no offset, and no preferred sizes.
        all.extend([exponent, 0, 0, 0, 0, 0, 0, 0]);
        all.extend([u8::from(self.writeback), 0, 1, 0]);
        let granularity = self.config.logical_block / SECTOR as u32;
        for word in [MOST_SECTORS, 1, granularity, MOST_SECTORS, 1] {
            all.extend(word.to_le_bytes());
        }
        all.extend([1, 0, 0, 0]);
        all
    }

    fn write_config(&mut self, cx: &mut VirtioContext, offset: usize, bytes: &[u8]) {
        let there = WRITEBACK.checked_sub(offset).and_then(|at| bytes.get(at));
        if let Some(byte) = there.filter(|_| cx.has(feature::CONFIG_WCE)) {
            self.writeback = byte & 1 != 0;
        }
    }

    fn notified(&mut self, cx: &mut VirtioContext, _queue: usize) {
        self.work(cx);
    }

    fn poll_at(&self) -> Option<Instant> {
        self.disk.poll_at()
    }

    fn poll(&mut self, cx: &mut VirtioContext) {
        self.collect(cx);
        self.work(cx);
    }

    fn reset(&mut self) {
        self.disk.cancel();
        self.pending.clear();
        self.under_way = 0;
        self.writeback = self.config.write_cache;
    }

    fn attached(&mut self, notifier: Notifier) {
        self.disk.set_notifier(notifier);
    }

    fn state(&self) -> BlockState {
        BlockState {
            disk: self.disk.state(),
            pending: self.pending.iter().cloned().collect(),
            next_tag: self.next_tag,
            under_way: self.under_way,
            writeback: self.writeback,
        }
    }

    fn set_state(&mut self, state: BlockState) {
        self.disk.set_state(state.disk);
        self.pending = state.pending.into();
        (self.next_tag, self.under_way, self.writeback) = (state.next_tag, state.under_way, state.writeback);
    }
}

#[cfg(test)]
mod tests;
