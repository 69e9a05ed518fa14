//! Network interface cards and the cables in them.
//!
//! ```text
//!  NIC --send(frame)--> NetBackend        the back end's own thread talks to the host
//!   ^                       |
//!   +---- receive() <-------+--> Notifier: the NIC is polled when frames wait
//! ```
//! A frame is an Ethernet frame from the destination address to the end of its data, without preamble and frame check
//! sequence, not padded. A NIC that has no room for a frame does not ask for it: so the queue behind the cable fills, and who sends
//! over TCP is slowed down. Back ends that reach the host are in `emu-frontend/src/net`; here is [`MemoryNetwork`], for tests.

pub mod checksum;
pub mod dp8390;
pub mod e1000;
pub mod ethernet;
pub mod ne2k_isa;
pub mod ne2k_pci;

use emu_core::bus::Notifier;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::shared::Shared;

/// The longest frame that a cable carries, in bytes: what a GSO packet of 64 KiB takes with its headers. Back ends drop longer ones.
pub const LONGEST_FRAME: usize = 65_550;
/// How many frames a back end keeps for a NIC that does not ask for them.
pub const QUEUE: usize = 256;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address of the NIC with this number, if nothing else is said: 52:54:00:12:34:56 and following, as QEMU counts.
    pub fn numbered(number: u8) -> MacAddress {
        MacAddress([0x52, 0x54, 0x00, 0x12, 0x34, 0x56u8.wrapping_add(number)])
    }

    /// Whether frames to it go to several stations, or all.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, last] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{last:02x}")
    }
}

/// The far end of a network cable. No method blocks.
pub trait NetBackend: Send {
    /// Takes a frame from the guest. Like a cable it loses what the far end has no room for; `false` then.
    fn send(&mut self, frame: &[u8]) -> bool;

    /// The next frame for the guest, in place of what is in `frame`; `false` if there is none, after which the back end notifies once there is one.
    fn receive(&mut self, frame: &mut Vec<u8>) -> bool;

    /// Given once, when the NIC is plugged in: to be called, from any thread, when a frame has come and when the link has changed.
    fn set_notifier(&mut self, _notifier: Notifier) {}

    /// Whether the cable is plugged in at both ends.
    fn link_up(&self) -> bool {
        true
    }

    /// Whether the far end is in this process, so that no other station sees what is on the cable: TCP packets may be sent whole that are
    /// longer than the medium's frames, with right checksums, up to [`LONGEST_FRAME`]; and the checksums of what comes are right.
    fn takes_long_packets(&self) -> bool {
        false
    }
}

/// A cable that leads nowhere: all is lost, nothing comes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unconnected;

impl NetBackend for Unconnected {
    fn send(&mut self, _frame: &[u8]) -> bool {
        true
    }

    fn receive(&mut self, _frame: &mut Vec<u8>) -> bool {
        false
    }
}

/// A far end in memory, for tests and for embedding: clones share one cable.
#[derive(Clone, Default)]
pub struct MemoryNetwork(Shared<Cable>);

#[derive(Default)]
struct Cable {
    sent: Vec<Vec<u8>>,
    waiting: VecDeque<Vec<u8>>,
    unplugged: bool,
    long_packets: bool,
    notifier: Option<Notifier>,
}

impl MemoryNetwork {
    /// A cable with nothing on it.
    pub fn new() -> MemoryNetwork {
        MemoryNetwork::default()
    }

    /// Takes the frames that the guest has sent so far.
    pub fn take_sent(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0.lock().sent)
    }

    /// Sends a frame to the guest.
    pub fn deliver(&self, frame: &[u8]) {
        self.change(|cable| cable.waiting.push_back(frame.to_vec()));
    }

    /// Frames that the guest's NIC has not asked for yet.
    pub fn waiting(&self) -> usize {
        self.0.lock().waiting.len()
    }

    /// Plugs the cable in, or pulls it out.
    pub fn set_link(&self, up: bool) {
        self.change(|cable| cable.unplugged = !up);
    }

    /// Takes long TCP packets from now on, or does not, as at first.
    pub fn take_long_packets(&self, on: bool) {
        self.change(|cable| cable.long_packets = on);
    }

    fn change(&self, f: impl FnOnce(&mut Cable)) {
        let notifier = {
            let mut cable = self.0.lock();
            f(&mut cable);
            cable.notifier.clone()
        };
        if let Some(notifier) = notifier {
            notifier.notify();
        }
    }
}

impl NetBackend for MemoryNetwork {
    fn send(&mut self, frame: &[u8]) -> bool {
        let mut cable = self.0.lock();
        if cable.unplugged || frame.len() > LONGEST_FRAME {
            return false;
        }
        cable.sent.push(frame.to_vec());
        true
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> bool {
        let Some(next) = self.0.lock().waiting.pop_front() else { return false };
        *frame = next;
        true
    }

    fn set_notifier(&mut self, notifier: Notifier) {
        self.0.lock().notifier = Some(notifier);
    }

    fn link_up(&self) -> bool {
        !self.0.lock().unplugged
    }

    fn takes_long_packets(&self) -> bool {
        self.0.lock().long_packets
    }
}

/// Which NIC, for whoever builds a board.
pub struct NicConfig {
    /// Its address.
    pub mac: MacAddress,
    /// What its cable leads to.
    pub backend: Box<dyn NetBackend>,
    /// The image of its option ROM, in whole units of 2 KiB; empty: it has none.
    pub rom: Arc<[u8]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_network_carries_frames_both_ways_until_the_cable_is_pulled() {
        let far = MemoryNetwork::new();
        let mut near: Box<dyn NetBackend> = Box::new(far.clone());
        assert!(near.send(b"to the far end"));
        assert_eq!(far.take_sent(), [b"to the far end"]);
        far.deliver(b"first");
        far.deliver(b"second");
        let mut frame = b"something longer than that".to_vec();
        assert!(near.receive(&mut frame));
        assert_eq!((frame.as_slice(), far.waiting()), (b"first".as_slice(), 1));
        far.set_link(false);
        assert!(!near.link_up() && !near.send(b"lost"));
        assert!(far.take_sent().is_empty());
    }

    #[test]
    fn addresses_are_numbered_as_qemu_does() {
        assert_eq!(MacAddress::numbered(1).to_string(), "52:54:00:12:34:57");
        assert!(!MacAddress::numbered(0).is_group());
    }
}
