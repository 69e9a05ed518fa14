//! `-netdev user`: the guest in a network of its own, whose gateway is this process; what it sends to others goes out by sockets.
//!
//! ```text
//!  10.0.2.15 guest --- cable --- 10.0.2.2 gateway, the host's loopback, TFTP      --- sockets --- host
//!                                10.0.2.3 name server, the host's
//!                                DHCP, router advertisements, ICMP echo
//! ```
//! One thread has a whole network: it takes the guest's frames, has the one or other module answer or pass on what is in them, and waits in
//! one poll for the cable and all sockets.
//!
//! Packets are taken apart and put together by smoltcp's wire types. Not libslirp: it is a system library that needs glib, and emu builds
//! with Rust alone. TCP ends in an endpoint of our own ([`tcp`]) and not in smoltcp's sockets: those look at every socket for each packet;
//! they are listening sockets of known ports, while a NAT is asked for any port of any address and must not agree before the host's
//! connection stands; and each has buffers of a fixed size. With an endpoint per pair of ends, a frame costs one look into a table, one
//! copy into the buffer from which the host's socket takes a whole batch by one call, and one acknowledgement for the batch.
//!
//! Deliberately absent: SMB shares, DHCPv6, fragments over IPv6, and ICMP errors from outside (a flow's own errors are passed on).

mod arp;
pub mod config;
mod connections;
mod dhcp;
mod flow;
mod fragments;
mod icmp;
mod icmp6;
mod outlet;
mod resolver;
mod stream;
mod tcp;
mod tftp;
mod udp;

use super::cable::FarEnd;
use config::{Forward, UserConfig};
use connections::Connections;
use dhcp::Dhcp;
use fragments::Fragments;
use icmp::Pings;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use outlet::Outlet;
use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6Packet, UdpPacket};
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use stream::Stream;
use tftp::Tftp;
use udp::Flows;

/// Frames of the guest that are taken before anything else has its turn.
const TURN: usize = 256;
/// Clients that are let in before anything else has its turn.
const CLIENTS: usize = 64;
/// How often what is idle is looked for.
const TIDY: Duration = Duration::from_secs(2);

/// What a token of the poll stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Cable,
    TcpListener,
    Tcp,
    UdpListener,
    Udp,
    Ping,
}

const KINDS: [Kind; 6] = [Kind::Cable, Kind::TcpListener, Kind::Tcp, Kind::UdpListener, Kind::Udp, Kind::Ping];

fn token(kind: Kind, number: usize) -> Token {
    Token(number * KINDS.len() + kind as usize)
}

fn kind_of(token: Token) -> (Kind, usize) {
    (KINDS[token.0 % KINDS.len()], token.0 / KINDS.len())
}

/// The token by which the cable wakes a user network.
pub const CABLE: Token = Token(Kind::Cable as usize);

struct Listener {
    socket: TcpListener,
    host: SocketAddr,
    guest: SocketAddr,
    waiting: bool,
}

/// What a monitor wants.
enum Request {
    Show(Sender<String>),
    Add(Forward, Sender<Result<(), String>>),
    Remove(bool, SocketAddr, Sender<bool>),
}

/// By which monitors reach a user network.
#[derive(Clone)]
pub struct UserHandle {
    requests: Sender<Request>,
    waker: Arc<Waker>,
    /// The guest's address that forwards without one lead to.
    pub guest: std::net::Ipv4Addr,
}

impl UserHandle {
    fn ask<T>(&self, request: impl FnOnce(Sender<T>) -> Request) -> Option<T> {
        let (sender, receiver) = channel();
        self.requests.send(request(sender)).ok()?;
        self.waker.wake().ok()?;
        receiver.recv().ok()
    }

    /// Forwarded ports and connections, as `info usernet` shows them.
    pub fn show(&self) -> String {
        self.ask(Request::Show).unwrap_or_default()
    }

    /// Forwards a port.
    ///
    /// # Errors
    /// The host's words.
    pub fn add(&self, forward: Forward) -> Result<(), String> {
        self.ask(|sender| Request::Add(forward, sender)).unwrap_or_else(|| Err("the network is gone".into()))
    }

    /// Forwards a port no more. Whether it was.
    pub fn remove(&self, udp: bool, host: SocketAddr) -> bool {
        self.ask(|sender| Request::Remove(udp, host, sender)).unwrap_or(false)
    }
}

/// A user network, to be run by a thread of its own.
pub struct UserNetwork {
    outlet: Outlet,
    poll: Poll,
    connections: Connections,
    flows: Flows,
    pings: Pings,
    dhcp: Dhcp,
    tftp: Tftp,
    fragments: Fragments,
    listeners: Vec<Option<Listener>>,
    requests: Receiver<Request>,
    tidied: Instant,
}

impl UserNetwork {
    /// A network at the far end of a cable, whose waker is that of `poll`, with the ports of `config` forwarded.
    ///
    /// # Errors
    /// A port that cannot be forwarded, in one line.
    pub fn new(
        config: UserConfig,
        far: FarEnd,
        poll: Poll,
        waker: Arc<Waker>,
    ) -> Result<(UserNetwork, UserHandle), String> {
        let (sender, requests) = channel();
        let now = Instant::now();
        let handle = UserHandle { requests: sender, waker, guest: config.dhcp_start };
        let (tftp, forwards) = (Tftp::new(config.tftp.clone()), config.forwards.clone());
        let mut network = UserNetwork {
            outlet: Outlet::new(far, config),
            poll,
            connections: Connections::new(now),
            flows: Flows::new(),
            pings: Pings::new(),
            dhcp: Dhcp::default(),
            tftp,
            fragments: Fragments::default(),
            listeners: Vec::new(),
            requests,
            tidied: now,
        };
        for forward in forwards {
            network.forward(forward)?;
        }
        Ok((network, handle))
    }

    fn forward(&mut self, forward: Forward) -> Result<(), String> {
        let protocol = if forward.udp { "udp" } else { "tcp" };
        let result = if forward.udp {
            self.flows.listen(self.poll.registry(), forward.host, forward.guest)
        } else {
            self.listen(forward)
        };
        result.map_err(|e| format!("cannot listen at {protocol}:{}: {}", forward.host, crate::monitor::reason(&e)))
    }

    fn listen(&mut self, forward: Forward) -> io::Result<()> {
        let mut socket = TcpListener::bind(forward.host)?;
        let number = self.listeners.iter().position(Option::is_none).unwrap_or(self.listeners.len());
        self.poll.registry().register(&mut socket, token(Kind::TcpListener, number), Interest::READABLE)?;
        let host = socket.local_addr().unwrap_or(forward.host);
        let listener = Some(Listener { socket, host, guest: forward.guest, waiting: false });
        match self.listeners.get_mut(number) {
            Some(place) => *place = listener,
            None => self.listeners.push(listener),
        }
        Ok(())
    }

    /// Serves the network until the other end of the cable is gone.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(256);
        while !self.outlet.far.near_is_gone() {
            let more = self.turn();
            let wait = self.wait(more);
            match self.poll.poll(&mut events, wait) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return tracing::warn!("the user network has ended: {e}"),
            }
            for event in &events {
                let (kind, number) = kind_of(event.token());
                // What is closed, or broken, is found by reading and writing.
                let readable = event.is_readable() || event.is_read_closed() || event.is_error();
                let writable = event.is_writable() || event.is_write_closed() || event.is_error();
                match kind {
                    Kind::Cable => self.requests(),
                    Kind::TcpListener => {
                        if let Some(Some(listener)) = self.listeners.get_mut(number) {
                            listener.waiting = true;
                        }
                    }
                    Kind::Tcp => self.connections.event(number, readable, writable),
                    Kind::UdpListener | Kind::Udp => self.flows.event(kind, number),
                    Kind::Ping => while self.pings.readable(&mut self.outlet, number) {},
                }
            }
        }
    }

    /// One turn for everything. Whether there is more to do at once.
    fn turn(&mut self) -> bool {
        let now = Instant::now();
        let mut taken = 0;
        while taken < TURN
            && let Some(frame) = self.outlet.far.next()
        {
            self.frame(&frame, now);
            self.outlet.far.recycle(frame);
            taken += 1;
        }
        while let Some(address) = self.outlet.news.pop() {
            self.connections.station(address);
        }
        let accepted = self.accept(now);
        let connections = self.connections.serve(&mut self.outlet, now);
        let flows = self.flows.serve(&mut self.outlet, now);
        if now.saturating_duration_since(self.tidied) >= TIDY {
            self.tidied = now;
            self.flows.expire(now);
            self.pings.expire(now);
            self.tftp.expire(now);
            self.fragments.expire(now);
            self.connections.expire();
        }
        taken == TURN || accepted || connections || flows
    }

    /// How long to wait for something to happen.
    fn wait(&mut self, more: bool) -> Option<Duration> {
        let limited = self.outlet.far.sleep_until();
        if more {
            return Some(Duration::ZERO);
        }
        let tidy = (!self.flows.is_empty() || self.pings.len() > 0).then_some(self.tidied + TIDY);
        let first = [limited, self.connections.deadline(), tidy].into_iter().flatten().min()?;
        Some(first.saturating_duration_since(Instant::now()))
    }

    fn accept(&mut self, now: Instant) -> bool {
        let mut more = false;
        for listener in self.listeners.iter_mut().flatten().filter(|listener| listener.waiting) {
            for _ in 0..CLIENTS {
                match listener.socket.accept() {
                    Ok((stream, client)) => {
                        let _ = stream.set_nodelay(true);
                        let stream = Stream::Tcp(stream);
                        self.connections.accept(
                            &self.outlet,
                            self.poll.registry(),
                            stream,
                            client,
                            listener.guest,
                            now,
                        );
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        listener.waiting = false;
                        break;
                    }
                    // Out of descriptors, or a client that is gone already: the next event tries again.
                    Err(_) => {
                        listener.waiting = false;
                        break;
                    }
                }
            }
            more |= listener.waiting;
        }
        more
    }

    fn frame(&mut self, frame: &[u8], now: Instant) {
        let Ok(frame) = EthernetFrame::new_checked(frame) else { return };
        let (from, to) = (frame.src_addr(), frame.dst_addr());
        if to.is_unicast() && to != self.outlet.mac() || !from.is_unicast() {
            return;
        }
        let config = &self.outlet.config;
        match frame.ethertype() {
            EthernetProtocol::Arp if config.ipv4 => arp::receive(&mut self.outlet, frame.payload()),
            EthernetProtocol::Ipv4 if config.ipv4 => {
                let Ok(packet) = Ipv4Packet::new_checked(frame.payload()) else { return };
                if packet.version() != 4 || !packet.verify_checksum() {
                    return;
                }
                self.outlet.learn(packet.src_addr().into(), from);
                // What follows the packet pads the frame.
                let len = usize::from(packet.total_len());
                let bytes = &frame.payload()[..len.min(frame.payload().len())];
                if packet.more_frags() || packet.frag_offset() != 0 {
                    if let Some(whole) = self.fragments.receive(&packet, now)
                        && let Ok(packet) = Ipv4Packet::new_checked(&whole[..])
                    {
                        self.ipv4(&packet, &whole, now);
                    }
                } else if let Ok(packet) = Ipv4Packet::new_checked(bytes) {
                    self.ipv4(&packet, bytes, now);
                }
            }
            EthernetProtocol::Ipv6 if config.ipv6 => self.ipv6(from, frame.payload(), now),
            _ => {}
        }
    }

    fn ipv4(&mut self, packet: &Ipv4Packet<&[u8]>, bytes: &[u8], now: Instant) {
        let (from, to) = (packet.src_addr(), packet.dst_addr());
        let (registry, payload) = (self.poll.registry(), packet.payload());
        match packet.next_header() {
            IpProtocol::Udp => self.udp(from.into(), to.into(), payload, bytes, now),
            // What has no address, or a wrong one, gets no further than DHCP.
            _ if !self.outlet.config.is_inside(from.into()) || self.outlet.config.is_ours(from.into()) => {}
            IpProtocol::Tcp => {
                self.connections.receive(&mut self.outlet, registry, (from.into(), to.into()), payload, bytes, now)
            }
            IpProtocol::Icmp => self.pings.receive(&mut self.outlet, registry, packet, now),
            _ => {}
        }
    }

    fn ipv6(&mut self, mac: smoltcp::wire::EthernetAddress, payload: &[u8], now: Instant) {
        let Ok(packet) = Ipv6Packet::new_checked(payload) else { return };
        let (from, to) = (packet.src_addr(), packet.dst_addr());
        let end = packet.total_len().min(payload.len());
        let (bytes, data) = (&payload[..end], packet.payload());
        if packet.version() != 6 || from.is_multicast() {
            return;
        }
        self.outlet.learn(from.into(), mac);
        let inside = self.outlet.config.is_inside(from.into()) && !self.outlet.config.is_ours(from.into());
        let registry = self.poll.registry();
        match packet.next_header() {
            IpProtocol::Icmpv6 if inside || from.is_unspecified() => {
                let echo = icmp6::receive(&mut self.outlet, mac, from, to, packet.hop_limit(), data);
                if let Some(message) = echo.filter(|message| inside && icmp::is_echo_request6(message)) {
                    self.pings.forward(&mut self.outlet, registry, from.into(), to.into(), message, bytes, now);
                }
            }
            IpProtocol::Tcp if inside => {
                self.connections.receive(&mut self.outlet, registry, (from.into(), to.into()), data, bytes, now)
            }
            IpProtocol::Udp if inside => self.udp(from.into(), to.into(), data, bytes, now),
            _ => {}
        }
    }

    fn udp(&mut self, from: IpAddr, to: IpAddr, payload: &[u8], packet: &[u8], now: Instant) {
        let Ok(udp) = UdpPacket::new_checked(payload) else { return };
        let (source, destination) = (outlet::wire_address(from), outlet::wire_address(to));
        if !udp.verify_checksum(&source, &destination) || udp.src_port() == 0 {
            return;
        }
        let data = udp.payload();
        let (guest, remote) = (SocketAddr::new(from, udp.src_port()), SocketAddr::new(to, udp.dst_port()));
        let config = &self.outlet.config;
        if from.is_ipv4() && remote.port() == dhcp::SERVER_PORT && (config.is_ours(to) || self.is_broadcast(to)) {
            return self.dhcp(data);
        }
        if !config.is_inside(from) || config.is_ours(from) || self.is_broadcast(to) || to.is_multicast() {
            return;
        }
        if remote.port() == tftp::PORT && config.is_ours(to) && config.tftp.is_some() {
            if let Some(answer) = self.tftp.receive(guest, data, now) {
                self.outlet.udp(remote, guest, &answer);
            }
            return;
        }
        self.flows.receive(&mut self.outlet, self.poll.registry(), (guest, remote), data, packet, now);
    }

    fn is_broadcast(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address.is_broadcast() || address == self.outlet.config.broadcast(),
            IpAddr::V6(_) => false,
        }
    }

    fn dhcp(&mut self, request: &[u8]) {
        let Some(reply) = self.dhcp.receive(&self.outlet.config, request) else { return };
        if let Some((address, mac)) = reply.assigned {
            self.outlet.learn(address.into(), smoltcp::wire::EthernetAddress(mac));
        }
        let from = SocketAddr::new(self.outlet.config.host.into(), dhcp::SERVER_PORT);
        let to =
            reply.to.filter(|to| self.outlet.config.is_inside((*to).into())).unwrap_or(std::net::Ipv4Addr::BROADCAST);
        self.outlet.udp(from, SocketAddr::new(to.into(), dhcp::CLIENT_PORT), &reply.data);
    }

    /// What monitors have asked for.
    fn requests(&mut self) {
        while let Ok(request) = self.requests.try_recv() {
            // Who asks may be gone.
            let _ = match request {
                Request::Show(answer) => answer.send(self.show()).is_ok(),
                Request::Add(forward, answer) => {
                    let result = self.forward(forward);
                    answer.send(result).is_ok()
                }
                Request::Remove(udp, host, answer) => {
                    let removed = if udp { self.flows.close(host) } else { self.close(host) };
                    answer.send(removed).is_ok()
                }
            };
        }
    }

    fn close(&mut self, host: SocketAddr) -> bool {
        let found = self.listeners.iter_mut().find(|listener| listener.as_ref().is_some_and(|l| l.host == host));
        found.is_some_and(|listener| listener.take().is_some())
    }

    /// In QEMU's columns.
    fn show(&self) -> String {
        let mut text = "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n".to_string();
        let listeners = self.listeners.iter().flatten().map(|l| Row {
            what: "TCP[HOST_FORWARD]".into(),
            descriptor: l.socket.as_raw_fd(),
            source: l.host,
            destination: l.guest,
            queues: (0, 0),
        });
        for row in listeners.chain(self.connections.list()).chain(self.flows.list()) {
            let Row { what, descriptor, source, destination, queues: (receive, send) } = row;
            let address = |end: SocketAddr| if end.ip().is_unspecified() { "*".into() } else { end.ip().to_string() };
            let _ = writeln!(
                text,
                "  {what:<18}{descriptor:>3} {:>15} {:>5} {:>15} {:>5} {receive:>5} {send:>5}",
                address(source),
                source.port(),
                address(destination),
                destination.port()
            );
        }
        text
    }
}

/// A line of `info usernet`.
struct Row {
    what: String,
    descriptor: RawFd,
    source: SocketAddr,
    destination: SocketAddr,
    /// Bytes that wait for the host, and for the guest.
    queues: (usize, usize),
}

#[cfg(test)]
mod tests;
