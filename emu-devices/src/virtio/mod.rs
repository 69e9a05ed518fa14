//! Virtio: Virtual I/O Device (VIRTIO) Version 1.2 (OASIS), and the legacy interface of 0.9.5 beside it.
//!
//! ```text
//!  driver in the guest --registers--> pci::VirtioPci --notified, poll--> VirtioDevice (block, net, ...)
//!            \---------- rings in guest memory ---- queue::Queue <--pop, push--/
//! ```
//! A device knows its queues and its configuration structure; all that drivers do to set it up is the transport's, [`pci`]. After each
//! call of a device, the transport publishes what the device has pushed, and interrupts where the driver wants it. So a device works
//! through all that is there, and the driver hears of it once.
//!
//! Deliberately absent: packed rings, several vCPUs' queue pairs, notification data, and transports other than PCI.

pub mod balloon;
pub mod block;
pub mod console;
pub mod net;
pub mod pci;
pub mod queue;
pub mod rng;

#[cfg(test)]
pub mod driver;
#[cfg(test)]
mod hostile;

use crate::pci::option_rom::{self, Host};
use crate::pci::{DevFn, PciBus};
use crate::storage::block::Media;
use balloon::{Balloon, BalloonControl};
use block::Block;
use console::Console;
use emu_core::bus::{Bus, Notifier};
use emu_core::clock::Instant;
use emu_core::mem::GuestMemory;
use net::Net;
use pci::{Interrupts, VirtioOptions, VirtioPci};
use queue::{Chain, Queue, QueueError};
use rng::Rng;
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;

/// Feature bits that do not depend on the device (clause 6).
pub mod feature {
    /// Legacy only: descriptors may be laid out in any way. Every device here takes them so.
    pub const ANY_LAYOUT: u64 = 1 << 27;
    /// Indirect descriptor tables.
    pub const RING_INDIRECT_DESC: u64 = 1 << 28;
    /// used_event and avail_event.
    pub const RING_EVENT_IDX: u64 = 1 << 29;
    /// The interface of version 1.
    pub const VERSION_1: u64 = 1 << 32;
}

/// Bits of the device status (2.1).
pub mod status {
    /// The driver has noticed the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// It knows how to drive it.
    pub const DRIVER: u8 = 2;
    /// It is ready.
    pub const DRIVER_OK: u8 = 4;
    /// Features are agreed on.
    pub const FEATURES_OK: u8 = 8;
    /// The device has given up.
    pub const DEVICE_NEEDS_RESET: u8 = 64;
    /// The driver has given up.
    pub const FAILED: u8 = 128;
}

/// What a kind of device is on PCI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The virtio device ID (clause 5).
    pub device: u16,
    /// The PCI device ID of the transitional device (4.1.2.1).
    pub transitional: u16,
    /// PCI class, subclass and programming interface.
    pub class: u32,
}

/// A virtio device, without its transport.
pub trait VirtioDevice: Send + 'static {
    /// The name under which its state is saved.
    const ID: &'static str;
    /// What it is on PCI.
    const KIND: Kind;
    /// What of it is saved.
    type State: Serialize + DeserializeOwned;

    /// The features that it offers, beside those of [`feature`].
    fn features(&self) -> u64;

    /// The most descriptors of each queue: powers of two.
    fn queue_sizes(&self) -> Vec<u16>;

    /// The device configuration structure, of a constant length, under the `features` that the driver has accepted so far.
    fn config(&self, features: u64) -> Vec<u8>;

    /// The driver writes `bytes` at `offset` of the structure, all within it.
    fn write_config(&mut self, _cx: &mut VirtioContext, _offset: usize, _bytes: &[u8]) {}

    /// The driver has made chains available in `queue`, or just says so.
    fn notified(&mut self, cx: &mut VirtioContext, queue: usize);

    /// As [`emu_core::device::Device::poll_at`].
    fn poll_at(&self) -> Option<Instant> {
        None
    }

    /// A deadline has passed, a back end has announced something, or the driver has just got ready.
    fn poll(&mut self, _cx: &mut VirtioContext) {}

    /// Reset by the driver, or of the machine. Chains that were taken are forgotten, not given back.
    fn reset(&mut self);

    /// As [`emu_core::device::Device::attached`].
    fn attached(&mut self, _notifier: Notifier) {}

    /// What is saved.
    fn state(&self) -> Self::State;

    /// Restores what was saved.
    fn set_state(&mut self, state: Self::State);
}

/// What a device may touch while it works.
pub struct VirtioContext<'a> {
    /// Virtual time.
    pub now: Instant,
    /// Guest memory.
    pub memory: &'a Arc<GuestMemory>,
    /// The features agreed on.
    pub features: u64,
    queues: &'a mut [Queue],
    /// The driver is ready, and nothing has gone wrong.
    live: bool,
    config_changed: bool,
    error: Option<QueueError>,
}

impl VirtioContext<'_> {
    /// Whether the driver has accepted a feature.
    pub fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    /// Whether the driver is ready, so that chains can be taken.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Takes the next chain of `queue`; `None` if there is none. A driver that breaks the rules gets nothing more.
    pub fn pop(&mut self, queue: usize) -> Option<Chain> {
        let taken = match self.queues.get_mut(queue) {
            Some(queue) if self.live => queue.pop(self.memory),
            _ => Ok(None),
        };
        taken.unwrap_or_else(|error| {
            self.fail(error);
            None
        })
    }

    /// Whether there is a chain to take.
    pub fn has_available(&mut self, queue: usize) -> bool {
        let there = match self.queues.get_mut(queue) {
            Some(queue) if self.live => queue.has_available(self.memory),
            _ => Ok(false),
        };
        there.unwrap_or_else(|error| {
            self.fail(error);
            false
        })
    }

    /// Leaves the chain that was taken last where it was.
    pub fn unpop(&mut self, queue: usize) {
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.unpop();
        }
    }

    /// Gives a chain back, into which `len` bytes have been written.
    pub fn push(&mut self, queue: usize, head: u16, len: usize) {
        if let Some(queue) = self.queues.get_mut(queue).filter(|_| self.live) {
            queue.push(self.memory, head, len as u32);
        }
    }

    /// Says whether the device wants to hear of new buffers in `queue`.
    pub fn want_notifications(&mut self, queue: usize, on: bool) {
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.want_notifications(self.memory, on);
        }
    }

    /// Tells the driver that the configuration structure has changed.
    pub fn config_changed(&mut self) {
        self.config_changed = true;
    }

    /// The driver has done what it must not: nothing works until it resets the device.
    pub fn fail(&mut self, error: QueueError) {
        self.live = false;
        self.error = self.error.or(Some(error));
    }
}

/// Which virtio device, for whoever builds a board.
pub enum Model {
    /// A disk.
    Block(Block),
    /// A network card.
    Net(Net),
    /// Entropy.
    Rng(Rng),
    /// Consoles and ports.
    Console(Console),
    /// A memory balloon.
    Balloon(Balloon),
}

/// A virtio device for a PCI slot.
pub struct VirtioCard {
    /// The device.
    pub model: Model,
    /// Its transport.
    pub options: VirtioOptions,
    /// The image of its option ROM; empty: it has none.
    pub rom: Arc<[u8]>,
}

impl VirtioCard {
    /// Bytes of guest memory that it takes beside RAM.
    pub fn extra_memory(&self) -> u64 {
        option_rom::room(&self.rom)
    }

    /// The user's handle on its medium, if it has one.
    pub fn media(&self) -> Option<Media> {
        match &self.model {
            Model::Block(block) => Some(block.media()),
            _ => None,
        }
    }

    /// The host's side of it, if it is a balloon.
    pub fn balloon(&self) -> Option<BalloonControl> {
        match &self.model {
            Model::Balloon(balloon) => Some(balloon.control()),
            _ => None,
        }
    }

    /// Plugs it in at `place`.
    pub fn plug(self, bus: &Bus, pci: &PciBus, place: DevFn, interrupts: Interrupts, host: Host) {
        fn insert<D: VirtioDevice>(device: D, bus: &Bus, pci: &PciBus, place: DevFn, rest: Rest) {
            let Rest { options, interrupts, rom, host } = rest;
            let function = VirtioPci::new(device, options, interrupts).with_rom(&rom, host);
            pci.plug(bus, place, function);
        }
        let rest = Rest { options: self.options, interrupts, rom: self.rom, host };
        match self.model {
            Model::Block(device) => insert(device, bus, pci, place, rest),
            Model::Net(device) => insert(device, bus, pci, place, rest),
            Model::Rng(device) => insert(device, bus, pci, place, rest),
            Model::Console(device) => insert(device, bus, pci, place, rest),
            Model::Balloon(device) => insert(device, bus, pci, place, rest),
        }
    }
}

/// What plugging in needs beside the device.
struct Rest {
    options: VirtioOptions,
    interrupts: Interrupts,
    rom: Arc<[u8]>,
    host: Host,
}
