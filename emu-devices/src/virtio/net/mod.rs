//! The network device: VIRTIO 1.2, 5.1.
//!
//! ```text
//!  queues  0 receive   1 transmit   2 control
//!  header  0 flags | 1 gso_type | 2 hdr_len (2) | 4 gso_size (2) | 6 csum_start (2) | 8 csum_offset (2) | 10 num_buffers (2)
//! ```
//! Checksums that the driver leaves open are completed here, and TCP packets longer than the medium's frames are cut here, unless the
//! back end takes them whole.
//! Deliberately absent: several queue pairs, receive hashes, UDP segmentation, and offloads to the guest, but
//! for the word that checksums are right.

mod offload;

use super::{Kind, VirtioContext, VirtioDevice};
use crate::net::ethernet::{BROADCAST, destination};
use crate::net::{LONGEST_FRAME, MacAddress, NetBackend};
use emu_core::bus::Notifier;
use serde::{Deserialize, Serialize};

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// Descriptors of the data queues, if nothing else is said.
pub const QUEUE_SIZE: u16 = 256;
const CONTROL_QUEUE: u16 = 64;
/// Frames that are received at a time, so that a back end that never runs dry does not keep the processor from its work.
const BATCH: usize = 256;
/// Frames that are sent before the guest goes on: more than the longest packets of a whole queue become.
const MOST_SENT: usize = 1 << 16;
/// Addresses of the receive filter at most, as many as QEMU's device has; with more, everything passes.
const MOST_ADDRESSES: usize = 64;
const VLANS: usize = 4096;

/// Feature bits (5.1.3).
mod feature {
    pub const CSUM: u64 = 1 << 0;
    pub const GUEST_CSUM: u64 = 1 << 1;
    pub const MAC: u64 = 1 << 5;
    pub const HOST_TSO4: u64 = 1 << 11;
    pub const HOST_TSO6: u64 = 1 << 12;
    pub const HOST_ECN: u64 = 1 << 13;
    pub const MRG_RXBUF: u64 = 1 << 15;
    pub const STATUS: u64 = 1 << 16;
    pub const CTRL_VQ: u64 = 1 << 17;
    pub const CTRL_RX: u64 = 1 << 18;
    pub const CTRL_VLAN: u64 = 1 << 19;
    pub const CTRL_RX_EXTRA: u64 = 1 << 20;
    pub const GUEST_ANNOUNCE: u64 = 1 << 21;
    pub const CTRL_MAC_ADDR: u64 = 1 << 23;
}

/// Bits of `status` in the configuration structure.
mod net_status {
    pub const LINK_UP: u16 = 1;
    pub const ANNOUNCE: u16 = 2;
}

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;

/// How a network device is set up, beside its address and cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetOptions {
    /// Descriptors of the receive and transmit queues: powers of two.
    pub queue_sizes: [u16; 2],
    /// Completes checksums.
    pub csum: bool,
    /// Cuts long TCP packets up.
    pub tso: bool,
    /// Spreads frames over several buffers.
    pub mrg_rxbuf: bool,
    /// Has a control queue.
    pub ctrl_vq: bool,
}

impl Default for NetOptions {
    fn default() -> NetOptions {
        NetOptions { queue_sizes: [QUEUE_SIZE; 2], csum: true, tso: true, mrg_rxbuf: true, ctrl_vq: true }
    }
}

/// What passes to the guest (5.1.6.5.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Everything.
    pub promiscuous: bool,
    /// All group addresses.
    pub all_multicast: bool,
    /// All other addresses.
    pub all_unicast: bool,
    /// No group addresses.
    pub no_multicast: bool,
    /// No other addresses.
    pub no_unicast: bool,
    /// Not the address of everybody.
    pub no_broadcast: bool,
    /// Further unicast addresses.
    pub unicast: Vec<[u8; 6]>,
    /// Group addresses.
    pub multicast: Vec<[u8; 6]>,
    /// VLANs, a bit each.
    pub vlans: Vec<u64>,
}

impl Default for Filter {
    /// All passes, until a driver that knows the control queue says otherwise.
    fn default() -> Filter {
        Filter {
            promiscuous: true,
            all_multicast: false,
            all_unicast: false,
            no_multicast: false,
            no_unicast: false,
            no_broadcast: false,
            unicast: Vec::new(),
            multicast: Vec::new(),
            vlans: vec![0; VLANS / 64],
        }
    }
}

impl Filter {
    fn vlan(&mut self, number: u16) -> Option<(&mut u64, u64)> {
        let word = self.vlans.get_mut(usize::from(number / 64))?;
        Some((word, 1 << (number % 64)))
    }

    fn passes(&mut self, frame: &[u8], mac: MacAddress, by_vlan: bool) -> bool {
        if by_vlan && frame.get(12..14) == Some(&[0x81, 0x00]) && frame.len() >= 16 {
            let number = u16::from_be_bytes([frame[14], frame[15]]) & 0xfff;
            if self.vlan(number).is_none_or(|(word, bit)| *word & bit == 0) {
                return false;
            }
        }
        let to = destination(frame);
        if self.promiscuous {
            return true;
        }
        if to == BROADCAST {
            return !self.no_broadcast;
        }
        if MacAddress(to).is_group() {
            return !self.no_multicast && (self.all_multicast || self.multicast.contains(&to));
        }
        !self.no_unicast && (self.all_unicast || to == mac.0 || self.unicast.contains(&to))
    }
}

/// What of the device is saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetState {
    /// Its address.
    pub mac: [u8; 6],
    /// What passes.
    pub filter: Filter,
    /// The guest is to announce itself.
    pub announce: bool,
    /// A frame that the guest has no room for yet.
    pub held: Option<Vec<u8>>,
}

/// A network device.
pub struct Net {
    factory_mac: MacAddress,
    backend: Box<dyn NetBackend>,
    options: NetOptions,
    notifier: Notifier,
    link_up: bool,
    /// The machine has just been restored, maybe elsewhere.
    moved: bool,
    /// There is more to send.
    more: bool,
    state: NetState,
}

impl Net {
    /// A device with this address, and a cable to `backend`.
    pub fn new(mac: MacAddress, backend: Box<dyn NetBackend>, options: NetOptions) -> Net {
        let link_up = backend.link_up();
        let state = NetState { mac: mac.0, ..NetState::default() };
        Net {
            factory_mac: mac,
            backend,
            options,
            notifier: Notifier::unconnected(),
            link_up,
            moved: false,
            more: false,
            state,
        }
    }

    fn header_len(cx: &VirtioContext) -> usize {
        if cx.has(super::feature::VERSION_1 | feature::MRG_RXBUF) { 12 } else { 10 }
    }

    /// Takes frames from the back end as long as the guest has room.
    fn receive(&mut self, cx: &mut VirtioContext) {
        let mut frame = Vec::new();
        for _ in 0..BATCH {
            if !cx.has_available(RECEIVE) {
                // The driver is to say when there is room again.
                return cx.want_notifications(RECEIVE, true);
            }
            match self.state.held.take() {
                Some(held) => frame = held,
                None => {
                    if !self.backend.receive(&mut frame) {
                        return cx.want_notifications(RECEIVE, false);
                    }
                    let by_vlan = cx.has(feature::CTRL_VLAN);
                    let mac = MacAddress(self.state.mac);
                    if frame.len() > LONGEST_FRAME || !self.state.filter.passes(&frame, mac, by_vlan) {
                        continue;
                    }
                }
            }
            let checked = cx.has(feature::GUEST_CSUM) && self.backend.takes_long_packets();
            if !Net::deliver(cx, &frame, if checked { DATA_VALID } else { 0 }) {
                self.state.held = Some(frame);
                return cx.want_notifications(RECEIVE, true);
            }
        }
        self.notifier.notify();
    }

    /// Puts a frame into buffers; `false` if there are not enough of them, none of which is used then. Without mergeable buffers, a frame
    /// that its buffer does not hold is lost.
    fn deliver(cx: &mut VirtioContext, frame: &[u8], flags: u8) -> bool {
        let total = Net::header_len(cx) + frame.len();
        let (mut chains, mut room) = (Vec::new(), 0);
        while room < total {
            let Some(chain) = cx.pop(RECEIVE) else {
                chains.iter().for_each(|_| cx.unpop(RECEIVE));
                return false;
            };
            room += chain.writable_len();
            chains.push(chain);
            if room < total && !cx.has(feature::MRG_RXBUF) {
                cx.unpop(RECEIVE);
                return true;
            }
        }
        // Nothing of the header but flags and num_buffers is used.
        let mut packet = vec![0; total];
        packet[0] = flags;
        packet[total - frame.len()..].copy_from_slice(frame);
        if Net::header_len(cx) == 12 {
            packet[10..12].copy_from_slice(&(chains.len() as u16).to_le_bytes());
        }
        let mut done = 0;
        for chain in chains {
            let n = chain.write(cx.memory, 0, &packet[done..]);
            done += n;
            cx.push(RECEIVE, chain.head, n);
        }
        true
    }

    /// Sends what the driver has made available.
    fn transmit(&mut self, cx: &mut VirtioContext) {
        let header_len = Net::header_len(cx);
        let (mut frame, mut sent) = (Vec::new(), 0);
        self.more = false;
        while let Some(chain) = cx.pop(TRANSMIT) {
            let mut header = [0; 12];
            let there = chain.read(cx.memory, 0, &mut header[..header_len]);
            let len = chain.readable_len().saturating_sub(header_len);
            if there == header_len && (1..=LONGEST_FRAME).contains(&len) {
                frame.resize(len, 0);
                chain.read(cx.memory, header_len, &mut frame);
                sent += self.send(cx, &header, &mut frame);
            }
            cx.push(TRANSMIT, chain.head, 0);
            if sent >= MOST_SENT {
                self.more = true;
                return self.notifier.notify();
            }
        }
    }

    /// Sends a frame, in whatever pieces: how many. A cable loses what the far end has no room for, and this device what makes no sense.
    fn send(&mut self, cx: &VirtioContext, header: &[u8; 12], frame: &mut [u8]) -> usize {
        let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let (mss, start, offset) = (usize::from(word(4)), usize::from(word(6)), usize::from(word(8)));
        let kind = header[1] & !GSO_ECN;
        let backend = &mut self.backend;
        let whole = match kind {
            GSO_NONE if header[0] & NEEDS_CSUM == 0 || !cx.has(feature::CSUM) => true,
            GSO_NONE => offload::complete_checksum(frame, start, offset),
            GSO_TCPV4 | GSO_TCPV6 if !cx.has(feature::HOST_TSO4 | feature::HOST_TSO6) => false,
            GSO_TCPV4 | GSO_TCPV6 if backend.takes_long_packets() => offload::complete_checksum(frame, start, offset),
            GSO_TCPV4 | GSO_TCPV6 => {
                let mut count = 0;
                offload::segment(frame, kind == GSO_TCPV6, start, mss, |packet| {
                    count += 1;
                    backend.send(packet);
                });
                return count;
            }
            _ => false,
        };
        if whole {
            backend.send(frame);
        }
        1
    }

    fn control(&mut self, cx: &mut VirtioContext) {
        let queue = 2;
        while let Some(chain) = cx.pop(queue) {
            let mut request = vec![0; chain.readable_len().min(2 + 8 + 2 * 6 * 4096)];
            chain.read(cx.memory, 0, &mut request);
            let done = self.command(cx, &request);
            // VIRTIO_NET_OK or VIRTIO_NET_ERR.
            let n = chain.write(cx.memory, 0, &[u8::from(done.is_none())]);
            cx.push(queue, chain.head, n);
        }
    }

    /// Carries a command out: class, command, data (5.1.6.5). `None`: it does not exist, or its data are wrong.
    fn command(&mut self, cx: &mut VirtioContext, request: &[u8]) -> Option<()> {
        let (head, data) = request.split_at_checked(2)?;
        let NetState { mac, filter, announce, .. } = &mut self.state;
        match (head[0], head[1]) {
            (0, mode @ 0..=5) => {
                let on = *data.first()? != 0;
                *match mode {
                    0 => &mut filter.promiscuous,
                    1 => &mut filter.all_multicast,
                    2 => &mut filter.all_unicast,
                    3 => &mut filter.no_multicast,
                    4 => &mut filter.no_unicast,
                    _ => &mut filter.no_broadcast,
                } = on;
            }
            (1, 0) => {
                let (unicast, rest) = table(data)?;
                let (multicast, _) = table(rest)?;
                filter.all_unicast |= unicast.len() > MOST_ADDRESSES;
                filter.all_multicast |= multicast.len() > MOST_ADDRESSES;
                (filter.unicast, filter.multicast) = (unicast, multicast);
                filter.unicast.truncate(MOST_ADDRESSES);
                filter.multicast.truncate(MOST_ADDRESSES);
            }
            (1, 1) => *mac = data.try_into().ok()?,
            (2, command @ 0..=1) => {
                let (word, bit) = filter.vlan(u16::from_le_bytes(data.try_into().ok()?))?;
                *word = if command == 0 { *word | bit } else { *word & !bit };
            }
            (3, 0) => {
                *announce = false;
                cx.config_changed();
            }
            _ => return None,
        }
        Some(())
    }
}

/// A table of addresses: their number (4), and they; and what follows.
fn table(data: &[u8]) -> Option<(Vec<[u8; 6]>, &[u8])> {
    let (count, rest) = data.split_first_chunk::<4>()?;
    let len = (u32::from_le_bytes(*count) as usize).checked_mul(6)?;
    let (addresses, rest) = rest.split_at_checked(len)?;
    Some((addresses.chunks_exact(6).map(destination).collect(), rest))
}

impl VirtioDevice for Net {
    const ID: &'static str = "virtio-net";
    const KIND: Kind = Kind { device: 1, transitional: 0x1000, class: 0x02_0000 };
    type State = NetState;

    fn features(&self) -> u64 {
        let NetOptions { csum, tso, mrg_rxbuf, ctrl_vq, .. } = self.options;
        let control = feature::CTRL_VQ
            | feature::CTRL_RX
            | feature::CTRL_VLAN
            | feature::CTRL_RX_EXTRA
            | feature::GUEST_ANNOUNCE
            | feature::CTRL_MAC_ADDR;
        let mut all = feature::MAC | feature::STATUS;
        for (on, bits) in [
            (csum, feature::CSUM | feature::GUEST_CSUM),
            (csum && tso, feature::HOST_TSO4 | feature::HOST_TSO6 | feature::HOST_ECN),
            (mrg_rxbuf, feature::MRG_RXBUF),
            (ctrl_vq, control),
        ] {
            all |= if on { bits } else { 0 };
        }
        all
    }

    fn queue_sizes(&self) -> Vec<u16> {
        let mut sizes: Vec<u16> =
            self.options.queue_sizes.iter().map(|size| size.next_power_of_two().clamp(64, 1024)).collect();
        if self.options.ctrl_vq {
            sizes.push(CONTROL_QUEUE);
        }
        sizes
    }

    /// `struct virtio_net_config` (5.1.4): mac and status.
    fn config(&self, _features: u64) -> Vec<u8> {
        let mut status = if self.link_up { net_status::LINK_UP } else { 0 };
        if self.state.announce {
            status |= net_status::ANNOUNCE;
        }
        [&self.state.mac[..], &status.to_le_bytes()].concat()
    }

    /// 5.1.4.3: a legacy driver sets the address here, unless it has the command.
    fn write_config(&mut self, cx: &mut VirtioContext, offset: usize, bytes: &[u8]) {
        if !cx.has(super::feature::VERSION_1 | feature::CTRL_MAC_ADDR) {
            let places = self.state.mac.iter_mut().skip(offset);
            places.zip(bytes).for_each(|(place, byte)| *place = *byte);
        }
    }

    fn notified(&mut self, cx: &mut VirtioContext, queue: usize) {
        match queue {
            RECEIVE => self.receive(cx),
            TRANSMIT => self.transmit(cx),
            _ => self.control(cx),
        }
    }

    fn poll(&mut self, cx: &mut VirtioContext) {
        let up = self.backend.link_up();
        if up != self.link_up {
            self.link_up = up;
            if cx.has(feature::STATUS) {
                cx.config_changed();
            }
        }
        if cx.is_live() && std::mem::take(&mut self.moved) && cx.has(feature::GUEST_ANNOUNCE) {
            self.state.announce = true;
            cx.config_changed();
        }
        if self.more {
            self.transmit(cx);
        }
        self.receive(cx);
    }

    fn reset(&mut self) {
        self.state = NetState { mac: self.factory_mac.0, ..NetState::default() };
        self.more = false;
    }

    fn attached(&mut self, notifier: Notifier) {
        self.backend.set_notifier(notifier.clone());
        self.notifier = notifier;
    }

    fn state(&self) -> NetState {
        self.state.clone()
    }

    /// The network is to learn where the machine is now (5.1.6.5.4).
    fn set_state(&mut self, mut state: NetState) {
        state.held = state.held.filter(|frame| frame.len() <= LONGEST_FRAME);
        state.filter.unicast.truncate(MOST_ADDRESSES);
        state.filter.multicast.truncate(MOST_ADDRESSES);
        state.filter.vlans.resize(VLANS / 64, 0);
        // Whether there is more to send is not saved.
        (self.state, self.moved, self.more) = (state, true, true);
        self.notifier.notify();
    }
}

#[cfg(test)]
mod tests;
