//! UDP through the NAT: a socket of the host for each pair of a guest's port and a remote one, as long as datagrams go by.

use super::flow::{Idle, Slots};
use super::icmp::{self, Unreachable};
use super::outlet::Outlet;
use super::{Kind, Row, resolver, token};
use mio::net::UdpSocket;
use mio::{Interest, Registry};
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

/// Flows at a time.
const FLOWS: usize = 256;
/// How long a flow may be silent, and one that asks a name server.
const LIFETIME: Duration = Duration::from_secs(240);
const DNS_LIFETIME: Duration = Duration::from_secs(10);
/// Datagrams that are read from a socket in its turn.
const TURN: usize = 32;
/// The largest datagram.
const LARGEST: usize = 1 << 16;
/// Bytes of a flow's last packet that are kept for telling the guest that it did not arrive: the longest header of IP and eight more.
const QUOTATION: usize = 68;

/// By which socket a flow reaches the host's side.
enum Via {
    /// One of its own, which is connected.
    Own(UdpSocket),
    /// That of the forwarded port with this number, from which a client has come.
    Forward(usize, SocketAddr),
}

struct Flow {
    guest: SocketAddr,
    /// As the guest sees it.
    remote: SocketAddr,
    via: Via,
    used: Instant,
    /// The beginning of the last packet that the guest sent.
    last: Vec<u8>,
}

impl Idle for Flow {
    fn used(&self) -> Instant {
        self.used
    }
}

/// A forwarded port.
struct Listener {
    socket: UdpSocket,
    host: SocketAddr,
    guest: SocketAddr,
}

/// All flows, and the forwarded ports.
pub struct Flows {
    flows: Slots<Flow>,
    listeners: Vec<Option<Listener>>,
    /// Sockets that may have more to read than has been read.
    ready: VecDeque<(Kind, usize)>,
    buffer: Vec<u8>,
}

impl Flows {
    /// None yet.
    pub fn new() -> Flows {
        Flows { flows: Slots::new(FLOWS), listeners: Vec::new(), ready: VecDeque::new(), buffer: vec![0; LARGEST] }
    }

    /// Takes a datagram of the guest; `packet` is it from its IP header on.
    pub fn receive(
        &mut self,
        outlet: &mut Outlet,
        registry: &Registry,
        (guest, remote): (SocketAddr, SocketAddr),
        data: &[u8],
        packet: &[u8],
        now: Instant,
    ) {
        let known = self.flows.find(|flow| flow.guest == guest && flow.remote == remote);
        let slot = match known {
            Some(slot) => slot,
            None => match self.open(outlet, registry, guest, remote, now) {
                Ok(slot) => slot,
                Err(e) => return icmp::unreachable(outlet, Unreachable::of(&e), packet),
            },
        };
        let Some(flow) = self.flows.get_mut(slot) else { return };
        flow.used = now;
        flow.last.clear();
        flow.last.extend_from_slice(&packet[..packet.len().min(QUOTATION)]);
        let listeners = &self.listeners;
        let send = |flow: &Flow| match &flow.via {
            Via::Own(socket) => socket.send(data),
            Via::Forward(number, client) => match listeners.get(*number) {
                Some(Some(listener)) => listener.socket.send_to(data, *client),
                _ => Err(io::ErrorKind::ConnectionRefused.into()),
            },
        };
        match send(flow) {
            Ok(_) => {}
            // The host has no room now: it is lost, as datagrams are.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => {
                icmp::unreachable(outlet, Unreachable::of(&e), packet);
                // That may have been about an earlier one.
                let _ = send(flow);
            }
        }
    }

    fn open(
        &mut self,
        outlet: &Outlet,
        registry: &Registry,
        guest: SocketAddr,
        remote: SocketAddr,
        now: Instant,
    ) -> io::Result<usize> {
        let config = &outlet.config;
        let outside = config.outside(remote, || resolver::name_server(config.resolver));
        let outside = outside.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        let any: SocketAddr = match outside {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let mut socket = UdpSocket::bind(any)?;
        socket.connect(outside)?;
        let slot = self.flows.free_slot();
        registry.register(&mut socket, token(Kind::Udp, slot), Interest::READABLE)?;
        self.flows.put(slot, Flow { guest, remote, via: Via::Own(socket), used: now, last: Vec::new() });
        Ok(slot)
    }

    /// Forwards a port.
    ///
    /// # Errors
    /// The host's.
    pub fn listen(&mut self, registry: &Registry, host: SocketAddr, guest: SocketAddr) -> io::Result<()> {
        let mut socket = UdpSocket::bind(host)?;
        let number = self.listeners.iter().position(Option::is_none).unwrap_or(self.listeners.len());
        registry.register(&mut socket, token(Kind::UdpListener, number), Interest::READABLE)?;
        let host = socket.local_addr().unwrap_or(host);
        let listener = Some(Listener { socket, host, guest });
        match self.listeners.get_mut(number) {
            Some(place) => *place = listener,
            None => self.listeners.push(listener),
        }
        Ok(())
    }

    /// Forwards a port no more. Whether it was.
    pub fn close(&mut self, host: SocketAddr) -> bool {
        let Some(number) = self.listeners.iter().position(|l| l.as_ref().is_some_and(|l| l.host == host)) else {
            return false;
        };
        self.listeners[number] = None;
        self.flows.retain(|flow| !matches!(flow.via, Via::Forward(which, _) if which == number));
        true
    }

    /// A socket has something to read.
    pub fn event(&mut self, kind: Kind, number: usize) {
        if !self.ready.contains(&(kind, number)) {
            self.ready.push_back((kind, number));
        }
    }

    /// Reads from each socket that has something to read. Whether there may be more, for which there is room.
    pub fn serve(&mut self, outlet: &mut Outlet, now: Instant) -> bool {
        for _ in 0..self.ready.len() {
            let Some((kind, number)) = self.ready.pop_front() else { break };
            let more = match kind {
                Kind::UdpListener => self.read_listener(outlet, number, now),
                _ => self.read_flow(outlet, number, now),
            };
            if more {
                self.ready.push_back((kind, number));
            }
        }
        !self.ready.is_empty() && outlet.far.room() > 0
    }

    fn read_flow(&mut self, outlet: &mut Outlet, slot: usize, now: Instant) -> bool {
        for _ in 0..TURN {
            if outlet.far.room() == 0 {
                return true;
            }
            let Some(flow) = self.flows.get_mut(slot) else { return false };
            let Via::Own(socket) = &flow.via else { return false };
            match socket.recv(&mut self.buffer) {
                Ok(len) => {
                    flow.used = now;
                    let (guest, remote) = (flow.guest, flow.remote);
                    outlet.udp(remote, guest, &self.buffer[..len]);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
                // An error of an earlier datagram, of the last one as far as the host tells.
                Err(e) => icmp::unreachable(outlet, Unreachable::of(&e), &flow.last),
            }
        }
        true
    }

    fn read_listener(&mut self, outlet: &mut Outlet, number: usize, now: Instant) -> bool {
        for _ in 0..TURN {
            if outlet.far.room() == 0 {
                return true;
            }
            let Some(Some(listener)) = self.listeners.get(number) else { return false };
            match listener.socket.recv_from(&mut self.buffer) {
                Ok((len, client)) => {
                    let guest = listener.guest;
                    let remote = outlet.config.inside(client, guest.ip());
                    self.come(guest, remote, number, client, now);
                    outlet.udp(remote, guest, &self.buffer[..len]);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => {}
            }
        }
        true
    }

    /// Remembers by which way the guest's answers go to `client`.
    fn come(&mut self, guest: SocketAddr, remote: SocketAddr, number: usize, client: SocketAddr, now: Instant) {
        let known = self.flows.find(|flow| flow.guest == guest && flow.remote == remote);
        let slot = known.unwrap_or_else(|| self.flows.free_slot());
        self.flows.put(slot, Flow { guest, remote, via: Via::Forward(number, client), used: now, last: Vec::new() });
    }

    /// Forgets flows that have been silent for long.
    pub fn expire(&mut self, now: Instant) {
        self.flows.retain(|flow| {
            let lifetime = if flow.remote.port() == 53 { DNS_LIFETIME } else { LIFETIME };
            now.saturating_duration_since(flow.used) < lifetime
        });
    }

    /// Whether there are flows that will be forgotten.
    pub fn is_empty(&self) -> bool {
        self.flows.len() == 0
    }

    /// For monitors: forwarded ports and flows.
    pub fn list(&self) -> impl Iterator<Item = Row> {
        let row = |what: &str, socket: &UdpSocket, source, destination| Row {
            what: what.into(),
            descriptor: socket.as_raw_fd(),
            source,
            destination,
            queues: (0, 0),
        };
        let listeners =
            self.listeners.iter().flatten().map(move |l| row("UDP[HOST_FORWARD]", &l.socket, l.host, l.guest));
        let flows = self.flows.iter().filter_map(move |flow| match &flow.via {
            Via::Own(socket) => Some(row("UDP", socket, flow.guest, flow.remote)),
            Via::Forward(..) => None,
        });
        listeners.chain(flows)
    }
}
