//! ICMP (RFC 792): echo, by this end itself or by the host's unprivileged ICMP sockets, and errors.
//!
//! Whether unprivileged sockets are allowed is the host's `net.ipv4.ping_group_range`; where they are not, pings to the outside end in
//! "communication administratively prohibited". Where a ping's socket cannot be had for other reasons, in "host unreachable".

use super::flow::{Idle, Slots};
use super::outlet::Outlet;
use super::{Kind, icmp6, token};
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};
use smoltcp::wire::{IPV4_HEADER_LEN, Icmpv4Packet, IpProtocol, Ipv4Packet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

/// Types of messages.
mod kind {
    pub const ECHO_REPLY: u8 = 0;
    pub const UNREACHABLE: u8 = 3;
    pub const ECHO_REQUEST: u8 = 8;
    pub const ECHO_REQUEST6: u8 = 128;
}

/// Pings that have sockets at a time.
const PINGS: usize = 32;
/// How long a ping may be answered.
const LIFETIME: Duration = Duration::from_secs(10);
/// Replies that are read in one turn.
const TURN: usize = 16;
/// Bytes of the header of an echo message.
const ECHO_HEADER: usize = 8;

/// Why a packet does not get there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// No such network or host.
    Host,
    /// Nobody listens there.
    Port,
    /// It is not allowed.
    Prohibited,
}

impl Unreachable {
    /// What the host's error means for the guest.
    pub fn of(error: &io::Error) -> Unreachable {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Unreachable::Port,
            io::ErrorKind::PermissionDenied => Unreachable::Prohibited,
            _ => Unreachable::Host,
        }
    }
}

/// A ping that is under way.
struct Ping {
    guest: IpAddr,
    remote: IpAddr,
    identifier: u16,
    socket: OwnedFd,
    used: Instant,
}

impl Idle for Ping {
    fn used(&self) -> Instant {
        self.used
    }
}

/// All pings that are under way.
pub struct Pings {
    pings: Slots<Ping>,
}

impl Pings {
    /// None yet.
    pub fn new() -> Pings {
        Pings { pings: Slots::new(PINGS) }
    }

    /// Takes an ICMP packet of the guest, `packet` from its IP header on.
    pub fn receive(&mut self, outlet: &mut Outlet, registry: &Registry, packet: &Ipv4Packet<&[u8]>, now: Instant) {
        let message = packet.payload();
        let Ok(icmp) = Icmpv4Packet::new_checked(message) else { return };
        if !icmp.verify_checksum() || message.first() != Some(&kind::ECHO_REQUEST) || message.len() < ECHO_HEADER {
            return;
        }
        let (from, to) = (packet.src_addr(), packet.dst_addr());
        if outlet.config.is_ours(to.into()) {
            return echo_reply(outlet, to.into(), from.into(), icmp.echo_ident(), message);
        }
        self.forward(outlet, registry, from.into(), to.into(), message, packet.clone().into_inner(), now);
    }

    /// Sends an echo request to the outside; `packet` is for the quotation if that fails.
    #[expect(clippy::too_many_arguments, reason = "one ping")]
    pub fn forward(
        &mut self,
        outlet: &mut Outlet,
        registry: &Registry,
        guest: IpAddr,
        to: IpAddr,
        message: &[u8],
        packet: &[u8],
        now: Instant,
    ) {
        let remote = outlet.config.outside(SocketAddr::new(to, 7), || SocketAddr::new(to, 7));
        let Some(remote) = remote.filter(|remote| remote.ip() == to) else { return };
        let identifier = u16::from_be_bytes([message[4], message[5]]);
        let known = self.pings.find(|p| p.guest == guest && p.remote == to && p.identifier == identifier);
        let slot = match known {
            Some(slot) => slot,
            None => match self.open(registry, remote, guest, identifier, now) {
                Ok(slot) => slot,
                Err(e) => return unreachable(outlet, Unreachable::of(&e), packet),
            },
        };
        let Some(ping) = self.pings.get_mut(slot) else { return };
        ping.used = now;
        if let Err(e) = rustix::net::send(&ping.socket, message, SendFlags::empty()) {
            unreachable(outlet, Unreachable::of(&e.into()), packet);
        }
    }

    fn open(
        &mut self,
        registry: &Registry,
        remote: SocketAddr,
        guest: IpAddr,
        identifier: u16,
        now: Instant,
    ) -> io::Result<usize> {
        let (family, protocol) = match remote {
            SocketAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
            SocketAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, Some(protocol))?;
        rustix::net::connect(&socket, &SocketAddr::new(remote.ip(), 0))?;
        let slot = self.pings.free_slot();
        registry.register(&mut SourceFd(&socket.as_raw_fd()), token(Kind::Ping, slot), Interest::READABLE)?;
        self.pings.put(slot, Ping { guest, remote: remote.ip(), identifier, socket, used: now });
        Ok(slot)
    }

    /// Reads what has come for the ping in `slot`. Whether there may be more.
    pub fn readable(&mut self, outlet: &mut Outlet, slot: usize) -> bool {
        let Some(ping) = self.pings.get_mut(slot) else { return false };
        let mut buffer = [0; 1 << 16];
        for _ in 0..TURN {
            let Ok((len, _)) = rustix::net::recv(&ping.socket, &mut buffer[..], RecvFlags::empty()) else {
                return false;
            };
            let message = &buffer[..len.min(buffer.len())];
            match (ping.remote, ping.guest) {
                (IpAddr::V6(from), IpAddr::V6(to)) => icmp6::echo_reply(outlet, from, to, ping.identifier, message),
                (from, to) => echo_reply(outlet, from, to, ping.identifier, message),
            }
        }
        true
    }

    /// Forgets pings that nothing has come back from for long.
    pub fn expire(&mut self, now: Instant) {
        self.pings.retain(|ping| now.saturating_duration_since(ping.used) < LIFETIME);
    }

    /// How many are under way.
    pub fn len(&self) -> usize {
        self.pings.len()
    }
}

/// Whether an ICMPv6 message is an echo request that [`Pings::forward`] can take.
pub fn is_echo_request6(message: &[u8]) -> bool {
    message.first() == Some(&kind::ECHO_REQUEST6) && message.len() >= ECHO_HEADER
}

fn echo_reply(outlet: &mut Outlet, from: IpAddr, to: IpAddr, identifier: u16, message: &[u8]) {
    if message.len() < ECHO_HEADER {
        return;
    }
    outlet.ip(from, to, IpProtocol::Icmp, message.len(), |buffer| {
        buffer.copy_from_slice(message);
        buffer[0] = kind::ECHO_REPLY;
        buffer[1] = 0;
        buffer[4..6].copy_from_slice(&identifier.to_be_bytes());
        Icmpv4Packet::new_unchecked(buffer).fill_checksum();
    });
}

/// Tells the guest that a packet of its own does not get there: the packet from its IP header on, or at least eight bytes more than
/// that header.
pub fn unreachable(outlet: &mut Outlet, why: Unreachable, packet: &[u8]) {
    if packet.first().is_some_and(|first| first >> 4 == 6) {
        let code = match why {
            Unreachable::Host => 3,
            Unreachable::Port => 4,
            Unreachable::Prohibited => 1,
        };
        return icmp6::unreachable(outlet, code, packet);
    }
    if packet.len() < IPV4_HEADER_LEN {
        return;
    }
    let ip = Ipv4Packet::new_unchecked(packet);
    let (from, to) = (ip.src_addr(), ip.dst_addr());
    if from.is_unspecified() || to.is_multicast() || to.is_broadcast() || to == outlet.config.broadcast() {
        return;
    }
    // The header and the first eight bytes behind it.
    let quotation = &packet[..packet.len().min(usize::from(ip.header_len()) + 8)];
    let code = match why {
        Unreachable::Host => 1,
        Unreachable::Port => 3,
        Unreachable::Prohibited => 13,
    };
    let host = outlet.config.host;
    outlet.ip(host.into(), from.into(), IpProtocol::Icmp, ECHO_HEADER + quotation.len(), |buffer| {
        buffer[..2].copy_from_slice(&[kind::UNREACHABLE, code]);
        buffer[ECHO_HEADER..].copy_from_slice(quotation);
        Icmpv4Packet::new_unchecked(buffer).fill_checksum();
    });
}
