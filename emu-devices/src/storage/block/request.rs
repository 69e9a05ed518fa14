//! What a device asks of its disk, and what comes of it.

use crate::scatter::{Scatter, Segment};
use crate::storage::throttle::Direction;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;

/// Bytes that a request counts beside its data while it takes room.
const REQUEST: u64 = 4096;

/// What a device asks of its disk.
#[derive(Clone, Debug)]
pub enum Request {
    /// Read `len` bytes from `offset`.
    Read {
        /// In bytes.
        offset: u64,
        /// At most [`LONGEST`](super::LONGEST).
        len: usize,
    },
    /// Write `data`, at most [`LONGEST`](super::LONGEST) bytes, at `offset`.
    Write {
        /// In bytes.
        offset: u64,
        /// What to write.
        data: Arc<Vec<u8>>,
    },
    /// Fill `room` from `offset`, while the device does not cancel it.
    ReadTo {
        /// In bytes.
        offset: u64,
        /// At most [`LONGEST`](super::LONGEST) bytes.
        room: Scatter,
    },
    /// Write at `offset` what `data` are when the worker gets there, unless the device has cancelled it by then.
    WriteFrom {
        /// In bytes.
        offset: u64,
        /// At most [`LONGEST`](super::LONGEST) bytes.
        data: Scatter,
    },
    /// Make all earlier writes durable.
    Flush,
    /// The bytes are not needed any more. Takes no time for data, however long it is.
    Discard {
        /// In bytes.
        offset: u64,
        /// In bytes.
        len: u64,
    },
    /// Make the bytes zeros.
    WriteZeroes {
        /// In bytes.
        offset: u64,
        /// In bytes.
        len: u64,
        /// They need not have room on the host.
        unmap: bool,
    },
}

impl Request {
    /// What limits of the rate count it as.
    pub(super) fn throttled(&self) -> Option<(Direction, u64)> {
        match self {
            Request::Read { .. } | Request::ReadTo { .. } => Some((Direction::Read, self.len() as u64)),
            Request::Write { .. } | Request::WriteFrom { .. } => Some((Direction::Write, self.len() as u64)),
            Request::WriteZeroes { .. } => Some((Direction::Write, 0)),
            Request::Flush | Request::Discard { .. } => None,
        }
    }

    /// Bytes of data that move.
    pub(super) fn len(&self) -> usize {
        match self {
            Request::Read { len, .. } => *len,
            Request::Write { data, .. } => data.len(),
            Request::ReadTo { room: place, .. } | Request::WriteFrom { data: place, .. } => place.len(),
            Request::Flush | Request::Discard { .. } | Request::WriteZeroes { .. } => 0,
        }
    }

    /// Bytes of the host's memory that it may take until it is carried out.
    pub(super) fn cost(&self) -> u64 {
        let data = match self {
            Request::ReadTo { room: place, .. } | Request::WriteFrom { data: place, .. } => {
                place.runs() * size_of::<Segment>()
            }
            other => other.len(),
        };
        REQUEST + data as u64
    }
}

/// What came of a request.
#[derive(Debug, Default)]
pub struct Completion {
    /// What was read, `done` bytes; empty for other requests, and where it is in guest memory already.
    pub data: Vec<u8>,
    /// Bytes read or written before the error: whole sectors, or the whole request.
    pub done: usize,
    /// Why the rest was not.
    pub error: Option<io::Error>,
}

impl Completion {
    pub(super) fn failed(error: impl Into<io::Error>) -> Completion {
        Completion { error: Some(error.into()), ..Completion::default() }
    }

    pub(super) fn without_data(result: io::Result<()>) -> Completion {
        Completion { error: result.err(), ..Completion::default() }
    }
}

/// A request that is under way, as a snapshot keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PendingRequest {
    /// Bytes to read.
    Read {
        /// In bytes.
        offset: u64,
        /// In bytes.
        len: usize,
    },
    /// Bytes to write.
    Write {
        /// In bytes.
        offset: u64,
        /// What to write.
        data: Vec<u8>,
    },
    /// A flush.
    Flush,
    /// Bytes that are not needed.
    Discard {
        /// In bytes.
        offset: u64,
        /// In bytes.
        len: u64,
    },
    /// Bytes that become zeros.
    WriteZeroes {
        /// In bytes.
        offset: u64,
        /// In bytes.
        len: u64,
        /// They need not have room on the host.
        unmap: bool,
    },
}

impl From<&Request> for PendingRequest {
    fn from(request: &Request) -> PendingRequest {
        match *request {
            Request::Read { offset, len } => PendingRequest::Read { offset, len },
            Request::Write { offset, ref data } => PendingRequest::Write { offset, data: data.as_ref().clone() },
            Request::ReadTo { offset, ref room } => PendingRequest::Read { offset, len: room.len() },
            Request::WriteFrom { offset, ref data } => {
                let mut bytes = vec![0; data.len()];
                data.read(0, &mut bytes);
                PendingRequest::Write { offset, data: bytes }
            }
            Request::Flush => PendingRequest::Flush,
            Request::Discard { offset, len } => PendingRequest::Discard { offset, len },
            Request::WriteZeroes { offset, len, unmap } => PendingRequest::WriteZeroes { offset, len, unmap },
        }
    }
}

impl From<PendingRequest> for Request {
    fn from(pending: PendingRequest) -> Request {
        match pending {
            PendingRequest::Read { offset, len } => Request::Read { offset, len },
            PendingRequest::Write { offset, data } => Request::Write { offset, data: Arc::new(data) },
            PendingRequest::Flush => Request::Flush,
            PendingRequest::Discard { offset, len } => Request::Discard { offset, len },
            PendingRequest::WriteZeroes { offset, len, unmap } => Request::WriteZeroes { offset, len, unmap },
        }
    }
}
