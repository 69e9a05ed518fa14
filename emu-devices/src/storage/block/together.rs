//! Transfers between the host and guest memory without a copy in between, long ones by two threads.
//!
//! ```text
//!  worker --Transfer--> helper          both: take the next piece, move it, take the next ...
//!     +-- moves pieces, then waits for the one that the helper has in hand
//! ```
//! Only what lies on the host just as the guest has it ([`Image::locate`]) can be moved so. After an error, the disk's thread does it all
//! again by itself, to find out how far it goes. A helper that is late, because the host has no core for it, finds less to do. It has no
//! part in writes: file systems let one thread at a time write to a file.

use super::{Claim, Image, Located};
use crate::scatter::Scatter;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes of the shortest transfer that is moved so: a copy of less is as cheap as a list of where to put it.
const SMALLEST: usize = 16 << 10;
/// Bytes of the shortest read that is worth waking the helper.
const LONG: usize = 256 << 10;
/// Bytes of a piece: few enough that nobody waits long for the last one, or for a copy when requests are cancelled.
const PIECE: u64 = 128 << 10;

/// Where data come from or go to.
pub(super) enum Direction {
    /// From the host.
    To(Scatter),
    /// To the host.
    From(Scatter),
}

impl Direction {
    /// Where they are in guest memory.
    pub fn place(&self) -> &Scatter {
        match self {
            Direction::To(place) | Direction::From(place) => place,
        }
    }
}

/// What came of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All has been moved.
    Done,
    /// The host refused a piece; others may have been moved.
    Failed,
    /// The device has cancelled the request meanwhile.
    Cancelled,
}

/// A piece, and where it is in guest memory.
struct Piece {
    host: Located,
    at: usize,
}

struct Progress {
    next: usize,
    /// Pieces that somebody moves just now.
    in_hand: usize,
    outcome: Outcome,
}

/// A transfer that is under way.
struct Transfer {
    direction: Direction,
    sequence: u64,
    claim: Claim,
    pieces: Vec<Piece>,
    progress: Mutex<Progress>,
    idle: Condvar,
}

impl Transfer {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves pieces until there are none left that nobody has taken.
    fn help(&self) {
        let mut progress = self.progress();
        while let Some(piece) = self.pieces.get(progress.next).filter(|_| progress.outcome == Outcome::Done) {
            progress.next += 1;
            progress.in_hand += 1;
            drop(progress);
            let outcome = self.carry(piece);
            progress = self.progress();
            progress.in_hand -= 1;
            if outcome != Outcome::Done {
                progress.outcome = outcome;
            }
        }
        if progress.in_hand == 0 {
            self.idle.notify_one();
        }
    }

    fn carry(&self, piece: &Piece) -> Outcome {
        let Located { bytes, offset, len } = &piece.host;
        let part = piece.at..piece.at + *len as usize;
        let moved = self.claim.with(self.sequence, || match &self.direction {
            Direction::To(room) => bytes.read_to(*offset, room, part),
            Direction::From(data) => bytes.write_from(*offset, data, part),
        });
        match moved {
            Some(Ok(())) => Outcome::Done,
            Some(Err(_)) => Outcome::Failed,
            None => Outcome::Cancelled,
        }
    }

    /// Waits until nobody moves a piece any more.
    fn wait(&self) -> Outcome {
        let progress = self.idle.wait_while(self.progress(), |progress| progress.in_hand > 0);
        progress.unwrap_or_else(PoisonError::into_inner).outcome
    }
}

/// A disk's second thread. It starts when it is first needed, and ends with the disk's first.
pub(super) struct Helper {
    name: String,
    transfers: Option<Sender<Arc<Transfer>>>,
    /// The host has no core or no thread for it.
    refused: bool,
}

impl Helper {
    /// The helper of the disk called `name`.
    pub fn new(name: &str) -> Helper {
        let refused = std::thread::available_parallelism().is_ok_and(|n| n.get() == 1);
        Helper { name: name.into(), transfers: None, refused }
    }

    /// Moves data between guest memory and `image`, from its byte `offset`, for request number `sequence`. `None`, and nothing is moved:
    /// the data are few, or do not lie on the host as the guest has them.
    pub fn transfer(
        &mut self,
        image: &mut dyn Image,
        offset: u64,
        direction: Direction,
        (sequence, claim): (u64, &Claim),
    ) -> Option<Outcome> {
        let len = direction.place().len();
        let writes = matches!(direction, Direction::From(_));
        if len < SMALLEST || offset + len as u64 > image.len() {
            return None;
        }
        let pieces = pieces(image, offset, len as u64, writes)?;
        let progress = Mutex::new(Progress { next: 0, in_hand: 0, outcome: Outcome::Done });
        let claim = claim.clone();
        let transfer = Arc::new(Transfer { direction, sequence, claim, pieces, progress, idle: Condvar::new() });
        if !writes && len >= LONG {
            self.wake(&transfer);
        }
        transfer.help();
        Some(transfer.wait())
    }

    /// Has the helper look at `transfer`, if there can be one.
    fn wake(&mut self, transfer: &Arc<Transfer>) {
        if self.transfers.is_none() && !self.refused {
            let (sender, receiver) = channel::<Arc<Transfer>>();
            let work = move || receiver.iter().for_each(|transfer| transfer.help());
            let started = std::thread::Builder::new().name(format!("help {}", self.name)).spawn(work);
            self.refused = started.is_err();
            self.transfers = started.is_ok().then_some(sender);
        }
        if let Some(transfers) = &self.transfers {
            // It lives as long as the sender.
            let _ = transfers.send(transfer.clone());
        }
    }
}

/// The pieces of `len` bytes from `offset`; `None` if some of them do not lie on the host.
fn pieces(image: &mut dyn Image, offset: u64, len: u64, to_write: bool) -> Option<Vec<Piece>> {
    let mut pieces = Vec::with_capacity(len.div_ceil(PIECE) as usize);
    let mut at = 0;
    while at < len {
        let Located { bytes, offset: host, len: run } = image.locate(offset + at, len - at, to_write)?;
        let start = at;
        let end = at + run.min(len - at);
        while at < end {
            let n = PIECE.min(end - at);
            let host = Located { bytes: bytes.clone(), offset: host + (at - start), len: n };
            pieces.push(Piece { host, at: at as usize });
            at += n;
        }
    }
    Some(pieces)
}
