//! TCP through the NAT: each connection is an [`Endpoint`] towards the guest and a [`Stream`] of the host, and bytes go between them.
//!
//! A guest's SYN is answered when the host's connection stands, and refused when it is refused. What the guest sends waits in the endpoint
//! until the host takes it, and our window to the guest is what is left of that buffer; the host is read only as far as the other
//! buffer has room. A connection with something to do is in `busy`, and is served a number of segments in its turn.

use super::flow::Idle;
use super::icmp::{self, Unreachable};
use super::outlet::{IPV4_HEADER, IPV6_HEADER, MTU, Outlet, tcp_checksum, wire_address};
use super::stream::Stream;
use super::tcp::{Endpoint, Output, Phase, RECEIVE_BUFFER, SEND_BUFFER, Segment, Seq};
use super::{Kind, Row, resolver, token};
use mio::Registry;
use smoltcp::wire::{IpProtocol, TCP_HEADER_LEN, TcpPacket, TcpSeqNumber};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::process::Child;
use std::time::{Duration, Instant};

/// Connections at a time.
const CONNECTIONS: usize = 512;
/// A connection that has been silent for so long makes way for a new one.
const SILENT: Duration = Duration::from_secs(60);
/// Bytes that all buffers of one direction hold together, shared among the connections, but no less than this for each.
const ALL_BUFFERS: usize = 64 << 20;
const SMALLEST_BUFFER: usize = 32 << 10;
/// Segments that a connection may send in its turn.
const TURN: usize = 64;
/// Bytes read at once.
const READ: usize = 64 << 10;
/// Bytes of a packet that an error message quotes.
const QUOTATION: usize = 68;
/// Bytes of the options of our SYN: maximum segment size, window scale, padding.
const SYN_OPTIONS: usize = 8;

/// Both ends of a connection as the guest sees them: its own, and the remote one.
type Ends = (SocketAddr, SocketAddr);

struct Connection {
    ends: Ends,
    endpoint: Endpoint,
    stream: Stream,
    connecting: bool,
    readable: bool,
    writable: bool,
    /// The guest's end has been passed on.
    finished: bool,
    /// What an error message quotes, as long as one may have to.
    quotation: Vec<u8>,
    busy: bool,
    used: Instant,
}

impl Idle for Connection {
    fn used(&self) -> Instant {
        self.used
    }
}

/// All connections.
pub struct Connections {
    slots: Vec<Option<Connection>>,
    by_ends: HashMap<Ends, usize>,
    busy: VecDeque<usize>,
    /// When the first timer may run out.
    timer: Option<Instant>,
    numbers: RandomState,
    started: Instant,
    scratch: Vec<u8>,
    children: Vec<Child>,
}

impl Connections {
    /// None yet.
    pub fn new(now: Instant) -> Connections {
        Connections {
            slots: Vec::new(),
            by_ends: HashMap::new(),
            busy: VecDeque::new(),
            timer: None,
            numbers: RandomState::new(),
            started: now,
            scratch: vec![0; READ],
            children: Vec::new(),
        }
    }

    /// RFC 6528: a clock, and a secret of these ends.
    fn first_number(&self, ends: &Ends, now: Instant) -> Seq {
        let clock = now.saturating_duration_since(self.started).as_micros() / 4;
        Seq((self.numbers.hash_one(ends) as u32).wrapping_add(clock as u32))
    }

    /// Takes a TCP packet of the guest; `packet` is it from its IP header on.
    pub fn receive(
        &mut self,
        outlet: &mut Outlet,
        registry: &Registry,
        (from, to): (IpAddr, IpAddr),
        payload: &[u8],
        packet: &[u8],
        now: Instant,
    ) {
        let Ok(tcp) = TcpPacket::new_checked(payload) else { return };
        let ends = (SocketAddr::new(from, tcp.src_port()), SocketAddr::new(to, tcp.dst_port()));
        let Some(segment) = Segment::parse(&tcp, &wire_address(from), &wire_address(to)) else { return };
        if ends.0.port() == 0 || ends.1.port() == 0 {
            return;
        }
        if let Some(&slot) = self.by_ends.get(&ends)
            && let Some(Some(connection)) = self.slots.get_mut(slot)
        {
            connection.used = now;
            let answer = connection.endpoint.receive(&segment, now);
            if let Some(answer) = answer {
                send(outlet, &ends, &answer, (&[], &[]));
            }
            return self.mark(slot);
        }
        if !segment.syn || segment.ack.is_some() || segment.rst {
            if let Some(reset) = segment.reset() {
                send(outlet, &ends, &reset, (&[], &[]));
            }
            return;
        }
        match self.open(outlet, registry, ends, &segment, now) {
            Ok(slot) => {
                if let Some(Some(connection)) = self.slots.get_mut(slot) {
                    connection.quotation = packet[..packet.len().min(QUOTATION)].to_vec();
                }
            }
            Err(e) => refuse(outlet, &ends, segment.reset(), &e, packet),
        }
    }

    /// Begins what the guest's SYN asks for.
    fn open(
        &mut self,
        outlet: &Outlet,
        registry: &Registry,
        ends: Ends,
        syn: &Segment,
        now: Instant,
    ) -> io::Result<usize> {
        let config = &outlet.config;
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let slot = self.free_slot(now).ok_or_else(refused)?;
        let stream = match config.guest_forwards.iter().find(|forward| forward.server == ends.1) {
            Some(forward) => Stream::open(&forward.target)?,
            None => {
                let resolver = || resolver::name_server(config.resolver);
                Stream::connect(config.outside(ends.1, resolver).ok_or_else(refused)?)?
            }
        };
        let endpoint = Endpoint::asked(syn, self.first_number(&ends, now), largest_segment(ends.0.ip()));
        self.add(registry, slot, ends, endpoint, stream, true, now)
    }

    /// Takes a connection that a client has made to a forwarded port, to `guest`.
    pub fn accept(
        &mut self,
        outlet: &Outlet,
        registry: &Registry,
        stream: Stream,
        client: SocketAddr,
        guest: SocketAddr,
        now: Instant,
    ) {
        let mut ends = (guest, outlet.config.inside(client, guest.ip()));
        // Two clients of different loopback addresses may have one port.
        let mut tries = 0;
        while self.by_ends.contains_key(&ends) || ends.1.port() == 0 {
            tries += 1;
            if tries > CONNECTIONS {
                return;
            }
            ends.1.set_port(ends.1.port().wrapping_add(1).max(1024));
        }
        let Some(slot) = self.free_slot(now) else { return };
        let endpoint = Endpoint::connect(self.first_number(&ends, now), largest_segment(guest.ip()));
        // A client whose connection cannot be watched finds it closed.
        let _ = self.add(registry, slot, ends, endpoint, stream, false, now);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a connection")]
    fn add(
        &mut self,
        registry: &Registry,
        slot: usize,
        ends: Ends,
        endpoint: Endpoint,
        mut stream: Stream,
        connecting: bool,
        now: Instant,
    ) -> io::Result<usize> {
        stream.register(registry, token(Kind::Tcp, slot))?;
        self.slots[slot] = Some(Connection {
            ends,
            endpoint,
            stream,
            connecting,
            // Until the host says otherwise.
            readable: true,
            writable: true,
            finished: false,
            quotation: Vec::new(),
            busy: false,
            used: now,
        });
        self.by_ends.insert(ends, slot);
        self.mark(slot);
        Ok(slot)
    }

    fn free_slot(&mut self, now: Instant) -> Option<usize> {
        if let Some(free) = self.slots.iter().position(Option::is_none) {
            return Some(free);
        }
        if self.slots.len() < CONNECTIONS {
            self.slots.push(None);
            return Some(self.slots.len() - 1);
        }
        let oldest = self.slots.iter().enumerate().min_by_key(|(_, c)| c.as_ref().map(Connection::used))?;
        let (slot, Some(connection)) = oldest else { return None };
        if now.saturating_duration_since(connection.used) < SILENT {
            return None;
        }
        self.remove(slot, true);
        Some(slot)
    }

    fn remove(&mut self, slot: usize, reset: bool) {
        let Some(mut connection) = self.slots.get_mut(slot).and_then(Option::take) else { return };
        if reset {
            connection.stream.set_reset();
        }
        self.children.extend(connection.stream.take_child());
        self.by_ends.remove(&connection.ends);
    }

    fn mark(&mut self, slot: usize) {
        if let Some(Some(connection)) = self.slots.get_mut(slot)
            && !std::mem::replace(&mut connection.busy, true)
        {
            self.busy.push_back(slot);
        }
    }

    /// The host's socket in `slot` has news.
    pub fn event(&mut self, slot: usize, readable: bool, writable: bool) {
        if let Some(Some(connection)) = self.slots.get_mut(slot) {
            connection.readable |= readable;
            connection.writable |= writable;
            self.mark(slot);
        }
    }

    /// A station of the guest's network has made itself known.
    pub fn station(&mut self, address: IpAddr) {
        for slot in 0..self.slots.len() {
            if let Some(Some(connection)) = self.slots.get_mut(slot)
                && connection.ends.0.ip() == address
            {
                connection.endpoint.hurry();
                self.mark(slot);
            }
        }
    }

    /// Serves each connection that has something to do once. Whether some have more to do, for which there is room.
    pub fn serve(&mut self, outlet: &mut Outlet, now: Instant) -> bool {
        if self.timer.is_some_and(|timer| timer <= now) {
            self.run_timers(outlet, now);
        }
        let share = ALL_BUFFERS / self.by_ends.len().max(1);
        for _ in 0..self.busy.len() {
            let Some(slot) = self.busy.pop_front() else { break };
            let Some(Some(connection)) = self.slots.get_mut(slot) else { continue };
            connection.busy = false;
            connection.endpoint.set_capacity(share.clamp(SMALLEST_BUFFER, RECEIVE_BUFFER));
            let most = share.clamp(SMALLEST_BUFFER, SEND_BUFFER);
            match connection.serve(outlet, &mut self.scratch, most, now) {
                Served::Idle => {}
                Served::More => self.mark(slot),
                Served::Over { reset } => {
                    self.remove(slot, reset);
                    continue;
                }
            }
            if let Some(Some(connection)) = self.slots.get(slot)
                && let Some(timer) = connection.endpoint.timer()
            {
                self.timer = Some(self.timer.map_or(timer, |first| first.min(timer)));
            }
        }
        !self.busy.is_empty() && outlet.far.room() > 0
    }

    fn run_timers(&mut self, outlet: &mut Outlet, now: Instant) {
        let drained = outlet.far.is_drained();
        self.timer = None;
        for slot in 0..self.slots.len() {
            let Some(Some(connection)) = self.slots.get_mut(slot) else { continue };
            let Some(timer) = connection.endpoint.timer() else { continue };
            if timer <= now {
                connection.endpoint.time_out(now, drained);
                self.mark(slot);
            } else {
                self.timer = Some(self.timer.map_or(timer, |first| first.min(timer)));
            }
        }
    }

    /// When [`Connections::serve`] has to be called though nothing has happened.
    pub fn deadline(&self) -> Option<Instant> {
        self.timer
    }

    /// Lets processes end that no connection needs any more.
    pub fn expire(&mut self) {
        self.children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }

    /// For monitors.
    pub fn list(&self) -> impl Iterator<Item = Row> {
        self.slots.iter().flatten().map(|c| {
            let state = match c.endpoint.phase() {
                Phase::Asked | Phase::Connecting => "SYN_SENT",
                Phase::Accepting => "SYN_RCVD",
                Phase::Open if c.endpoint.is_finished() && c.finished => "CLOSING",
                Phase::Open if c.endpoint.is_finished() => "CLOSE_WAIT",
                Phase::Open if c.finished => "FIN_WAIT_1",
                Phase::Open => "ESTABLISHED",
                Phase::Gone => "CLOSED",
            };
            let (guest, remote) = c.ends;
            let what = format!("TCP[{state}]");
            Row {
                what,
                descriptor: c.stream.descriptor(),
                source: guest,
                destination: remote,
                queues: c.endpoint.queues(),
            }
        })
    }
}

/// How a connection's turn has ended.
enum Served {
    /// It waits for either end.
    Idle,
    /// It has more to send.
    More,
    /// It is over; `reset`: it did not end as it should.
    Over { reset: bool },
}

impl Connection {
    fn serve(&mut self, outlet: &mut Outlet, scratch: &mut [u8], most: usize, now: Instant) -> Served {
        if self.connecting {
            match self.stream.is_connected() {
                Ok(true) => {
                    self.connecting = false;
                    self.quotation = Vec::new();
                    self.endpoint.agree();
                }
                Ok(false) if self.endpoint.phase() == Phase::Gone => return Served::Over { reset: true },
                Ok(false) => return Served::Idle,
                Err(e) => {
                    let reset = self.endpoint.abort();
                    refuse(outlet, &self.ends, reset, &e, &self.quotation);
                    return Served::Over { reset: false };
                }
            }
        }
        let exchanged = self.serve_host().and_then(|()| self.read_host(scratch, most));
        if exchanged.is_err() {
            if let Some(reset) = self.endpoint.abort() {
                send(outlet, &self.ends, &reset, (&[], &[]));
            }
            return Served::Over { reset: true };
        }
        for _ in 0..TURN {
            if outlet.far.room() == 0 {
                return Served::More;
            }
            let Some(output) = self.endpoint.output(now) else {
                let gone = self.endpoint.phase() == Phase::Gone;
                return if self.endpoint.is_done() { Served::Over { reset: gone } } else { Served::Idle };
            };
            if !send(outlet, &self.ends, &output, self.endpoint.data(output.data)) {
                // Nobody knows yet where the guest is; the timer sees to it that this is tried again.
                return Served::Idle;
            }
        }
        Served::More
    }

    fn serve_host(&mut self) -> io::Result<()> {
        while self.writable && !self.endpoint.received().is_empty() {
            let received = self.endpoint.received();
            let (first, second) = received.as_slices();
            match self.stream.write_vectored(&[IoSlice::new(first), IoSlice::new(second)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => drop(received.drain(..len)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if !self.finished && self.endpoint.guest_is_finished() {
            self.finished = true;
            self.stream.finish();
        }
        Ok(())
    }

    fn read_host(&mut self, scratch: &mut [u8], most: usize) -> io::Result<()> {
        while self.readable {
            let room = self.endpoint.send_room(most).min(scratch.len());
            if room == 0 {
                break;
            }
            match self.stream.read(&mut scratch[..room]) {
                Ok(0) => {
                    self.endpoint.finish();
                    break;
                }
                Ok(len) => self.endpoint.push(&scratch[..len]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Tells the guest that a connection does not come about: by a reset if it was refused, else by why the host cannot.
fn refuse(outlet: &mut Outlet, ends: &Ends, reset: Option<Output>, error: &io::Error, packet: &[u8]) {
    match (Unreachable::of(error), reset) {
        (Unreachable::Port, Some(reset)) => drop(send(outlet, ends, &reset, (&[], &[]))),
        (why, _) => icmp::unreachable(outlet, why, packet),
    }
}

fn largest_segment(guest: IpAddr) -> usize {
    match guest {
        IpAddr::V4(_) => MTU - IPV4_HEADER - TCP_HEADER_LEN,
        IpAddr::V6(_) => MTU - IPV6_HEADER - TCP_HEADER_LEN,
    }
}

/// Sends a segment with `data` in it. Whether there is somebody to send it to.
fn send(outlet: &mut Outlet, ends: &Ends, output: &Output, data: (&[u8], &[u8])) -> bool {
    let (guest, remote) = ends;
    let options = if output.syn { SYN_OPTIONS } else { 0 };
    let header = TCP_HEADER_LEN + options;
    let len = header + data.0.len() + data.1.len();
    outlet.ip(remote.ip(), guest.ip(), IpProtocol::Tcp, len, |buffer| {
        if output.syn {
            let [high, low] = (largest_segment(guest.ip()) as u16).to_be_bytes();
            let scale = output.scale.map_or([1, 1, 1], |shift| [3, 3, shift]);
            let [a, b, c] = scale;
            buffer[TCP_HEADER_LEN..header].copy_from_slice(&[2, 4, high, low, a, b, c, 0]);
        }
        buffer[header..header + data.0.len()].copy_from_slice(data.0);
        buffer[header + data.0.len()..].copy_from_slice(data.1);
        let mut tcp = TcpPacket::new_unchecked(&mut buffer[..]);
        tcp.set_src_port(remote.port());
        tcp.set_dst_port(guest.port());
        tcp.set_seq_number(TcpSeqNumber(output.seq.0 as i32));
        tcp.set_ack_number(TcpSeqNumber(output.ack.map_or(0, |ack| ack.0) as i32));
        tcp.clear_flags();
        tcp.set_header_len(header as u8);
        tcp.set_syn(output.syn);
        tcp.set_fin(output.fin);
        tcp.set_rst(output.rst);
        tcp.set_psh(output.push);
        tcp.set_ack(output.ack.is_some());
        tcp.set_window_len(output.window);
        tcp.set_urgent_at(0);
        tcp_checksum(buffer, remote.ip(), guest.ip());
    })
}
