//! Our end of a TCP connection with the guest (RFC 9293, windows scaled by RFC 7323), without a socket of the host in it.
//!
//! It is an endpoint of our own over smoltcp's wire types; [`super`] says why. The cable to the guest does not reorder, and loses only what
//! the NIC had no room for. So what comes out of order is not kept but asked for again, there is no congestion window (what is under way is
//! bounded by the guest's window and the NIC's queue), and the retransmission timer is a fixed second that doubles. It does not
//! run while the NIC leaves frames in its queue: a guest that is stopped loses no connection.
//!
//! ```text
//!   send:     |--- acknowledged ---|--- under way ---|--- waits ---|
//!                                 una               nxt           una + send.len()
//!   receive:  |--- given to the host ---|--- receive ---|--- free ---|
//!                                                      rcv          edge
//! ```

use smoltcp::wire::{IpAddress, TcpOption, TcpPacket, TcpSeqNumber};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Data that the guest has not taken or the host has not, in bytes.
pub const SEND_BUFFER: usize = 512 << 10;
pub const RECEIVE_BUFFER: usize = 256 << 10;
/// "Window Scale" of our windows.
const OUR_SCALE: u8 = 3;
/// What RFC 9293 3.7.1 assumes of an end that names no maximum segment size.
const DEFAULT_MSS: usize = 536;
/// The first retransmission timeout (RFC 6298), the last, and how many there are.
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);
const LAST_TIMEOUT: Duration = Duration::from_secs(32);
const RETRIES: u32 = 10;
/// How often a stopped guest is looked after.
const STOPPED: Duration = Duration::from_millis(200);
/// Duplicate acknowledgements that mean a loss (RFC 5681 3.2).
const DUPLICATES: u32 = 3;

/// A sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seq(pub u32);

impl Seq {
    fn plus(self, len: usize) -> Seq {
        Seq(self.0.wrapping_add(len as u32))
    }

    /// The distance from `earlier`.
    fn since(self, earlier: Seq) -> usize {
        self.0.wrapping_sub(earlier.0) as usize
    }

    fn is_after(self, other: Seq) -> bool {
        (self.0.wrapping_sub(other.0) as i32) > 0
    }
}

/// A segment of the guest.
#[derive(Debug)]
pub struct Segment<'p> {
    pub seq: Seq,
    pub ack: Option<Seq>,
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
    pub window: u16,
    pub mss: Option<u16>,
    pub scale: Option<u8>,
    pub data: &'p [u8],
}

impl<'p> Segment<'p> {
    /// Reads a segment; `None` if it is none, or damaged. Its ports are the packet's.
    pub fn parse(packet: &TcpPacket<&'p [u8]>, from: &IpAddress, to: &IpAddress) -> Option<Segment<'p>> {
        if !packet.verify_checksum(from, to) {
            return None;
        }
        let (mut mss, mut scale) = (None, None);
        let mut options = packet.options();
        while packet.syn() && !options.is_empty() {
            let Ok((rest, option)) = TcpOption::parse(options) else { break };
            match option {
                TcpOption::EndOfList => break,
                TcpOption::MaxSegmentSize(size) => mss = Some(size),
                TcpOption::WindowScale(shift) => scale = Some(shift),
                _ => {}
            }
            // What does not move on would be read forever.
            if rest.len() >= options.len() {
                break;
            }
            options = rest;
        }
        let number = |seq: TcpSeqNumber| Seq(seq.0 as u32);
        Some(Segment {
            seq: number(packet.seq_number()),
            ack: packet.ack().then(|| number(packet.ack_number())),
            syn: packet.syn(),
            fin: packet.fin(),
            rst: packet.rst(),
            window: packet.window_len(),
            mss,
            scale,
            data: packet.payload(),
        })
    }

    /// The sequence numbers that it takes up.
    fn len(&self) -> usize {
        self.data.len() + usize::from(self.syn) + usize::from(self.fin)
    }

    /// The reset that answers a segment for which there is no connection (RFC 9293 3.10.7.1).
    pub fn reset(&self) -> Option<Output> {
        if self.rst {
            return None;
        }
        let mut reset = Output { rst: true, ..Output::default() };
        match self.ack {
            Some(ack) => reset.seq = ack,
            None => reset.ack = Some(self.seq.plus(self.len())),
        }
        Some(reset)
    }
}

/// A segment for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    pub seq: Seq,
    pub ack: Option<Seq>,
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
    pub push: bool,
    pub window: u16,
    pub scale: Option<u8>,
    /// Which part of the send buffer it carries: offset and length.
    pub data: (usize, usize),
}

impl Default for Output {
    fn default() -> Output {
        Output {
            seq: Seq(0),
            ack: None,
            syn: false,
            fin: false,
            rst: false,
            push: false,
            window: 0,
            scale: None,
            data: (0, 0),
        }
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The guest has asked for it; our host has not agreed yet.
    Asked,
    /// Our SYN waits for the guest's: SYN-SENT.
    Connecting,
    /// Our SYN waits for its acknowledgement: SYN-RECEIVED.
    Accepting,
    /// ESTABLISHED, and all that follows it; what is closed is told by other fields.
    Open,
    /// The guest has reset it, or does not answer any more.
    Gone,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Endpoint {
    phase: Phase,
    una: Seq,
    nxt: Seq,
    /// Behind the last number that was ever sent.
    max: Seq,
    /// What the guest takes beyond `una`, in bytes.
    window: usize,
    their_scale: u8,
    our_scale: u8,
    mss: usize,
    largest: usize,
    send: VecDeque<u8>,
    finished: bool,
    fin_acknowledged: bool,
    rcv: Seq,
    edge: Seq,
    receive: VecDeque<u8>,
    capacity: usize,
    their_fin: bool,
    /// Acknowledgements to be sent.
    acks: u32,
    duplicates: u32,
    timer: Option<Instant>,
    timeout: Duration,
    retries: u32,
    /// Send into a window that is closed, to see whether it is.
    probe: bool,
}

impl Endpoint {
    fn new(phase: Phase, iss: Seq, largest: usize) -> Endpoint {
        Endpoint {
            phase,
            una: iss,
            nxt: iss,
            max: iss,
            window: 0,
            their_scale: 0,
            our_scale: 0,
            mss: DEFAULT_MSS.min(largest),
            largest,
            send: VecDeque::new(),
            finished: false,
            fin_acknowledged: false,
            rcv: Seq(0),
            edge: Seq(0),
            receive: VecDeque::new(),
            capacity: RECEIVE_BUFFER,
            their_fin: false,
            acks: 0,
            duplicates: 0,
            timer: None,
            timeout: FIRST_TIMEOUT,
            retries: 0,
            probe: false,
        }
    }

    /// A connection to the guest. `largest`: data that fits into a packet.
    pub fn connect(iss: Seq, largest: usize) -> Endpoint {
        Endpoint { our_scale: OUR_SCALE, ..Endpoint::new(Phase::Connecting, iss, largest) }
    }

    /// A connection that the guest asks for by `syn`; it is told nothing before [`Endpoint::agree`].
    pub fn asked(syn: &Segment, iss: Seq, largest: usize) -> Endpoint {
        let mut endpoint = Endpoint::new(Phase::Asked, iss, largest);
        endpoint.take_syn(syn);
        endpoint
    }

    /// The host has agreed to what the guest asks for.
    pub fn agree(&mut self) {
        if self.phase == Phase::Asked {
            self.phase = Phase::Accepting;
        }
    }

    fn take_syn(&mut self, syn: &Segment) {
        self.rcv = syn.seq.plus(1);
        self.edge = self.rcv;
        self.window = usize::from(syn.window);
        // A guest that says nothing, or nothing sensible, gets small segments.
        self.mss = syn.mss.map_or(DEFAULT_MSS, usize::from).clamp(64, self.largest.max(64));
        (self.their_scale, self.our_scale) = match syn.scale {
            Some(shift) => (shift.min(14), OUR_SCALE),
            None => (0, 0),
        };
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether both ends have said all and heard all.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Gone || self.their_fin && self.receive.is_empty() && self.fin_acknowledged
    }

    /// Whether the guest has said all, and the host has it.
    pub fn guest_is_finished(&self) -> bool {
        self.their_fin && self.receive.is_empty()
    }

    /// Whether [`Endpoint::finish`] has been called.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Bytes that may be added to the send buffer now, which holds `most`.
    pub fn send_room(&self, most: usize) -> usize {
        match self.phase {
            Phase::Open if !self.finished => most.saturating_sub(self.send.len()),
            _ => 0,
        }
    }

    /// Data for the guest.
    pub fn push(&mut self, data: &[u8]) {
        self.send.extend(data);
    }

    /// There will be no more data for the guest.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// Data that an [`Output`] carries, in two parts.
    pub fn data(&self, (offset, len): (usize, usize)) -> (&[u8], &[u8]) {
        let (first, second) = self.send.as_slices();
        let end = offset + len;
        let part = |slice: &'_ [u8], start: usize| -> (usize, usize) {
            (offset.saturating_sub(start).min(slice.len()), end.saturating_sub(start).min(slice.len()))
        };
        let ((a, b), (c, d)) = (part(first, 0), part(second, first.len()));
        (&first[a..b], &second[c..d])
    }

    /// Data of the guest, in order.
    pub fn received(&mut self) -> &mut VecDeque<u8> {
        &mut self.receive
    }

    /// Changes how much of the guest's data is kept.
    pub fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    /// When [`Endpoint::time_out`] is to be called.
    pub fn timer(&self) -> Option<Instant> {
        self.timer
    }

    /// The guest's station is known now: what could not be sent is sent at once.
    pub fn hurry(&mut self) {
        if self.phase == Phase::Connecting {
            self.nxt = self.una;
        }
    }

    fn under_way(&self) -> usize {
        self.nxt.since(self.una)
    }

    /// The timer has run out. `drained`: the NIC has taken all frames there were.
    pub fn time_out(&mut self, now: Instant, drained: bool) {
        if self.timer.is_none_or(|timer| timer > now) {
            return;
        }
        if !drained {
            self.timer = Some(now + STOPPED);
            return;
        }
        self.timer = None;
        if self.retries >= RETRIES {
            self.phase = Phase::Gone;
            return;
        }
        self.retries += 1;
        self.timeout = (self.timeout * 2).min(LAST_TIMEOUT);
        self.nxt = self.una;
        self.probe = self.phase == Phase::Open;
    }

    /// What a segment of the guest changes, and what is to be answered at once.
    pub fn receive(&mut self, segment: &Segment, now: Instant) -> Option<Output> {
        match self.phase {
            Phase::Asked => {
                if segment.rst && segment.seq == self.rcv {
                    self.phase = Phase::Gone;
                }
                None
            }
            Phase::Connecting => self.receive_connecting(segment),
            Phase::Accepting | Phase::Open => self.receive_open(segment, now),
            Phase::Gone => segment.reset(),
        }
    }

    fn receive_connecting(&mut self, segment: &Segment) -> Option<Output> {
        let expected = self.una.plus(1);
        match segment.ack {
            Some(ack) if ack != expected => return segment.reset(),
            Some(_) if segment.rst => self.phase = Phase::Gone,
            Some(ack) if segment.syn => {
                self.take_syn(segment);
                (self.una, self.nxt, self.max) = (ack, ack, ack);
                self.phase = Phase::Open;
                self.progress(None);
                self.acks = 1;
            }
            // A simultaneous open: nobody connects from a port at which this end connects to it.
            _ => {}
        }
        None
    }

    fn receive_open(&mut self, segment: &Segment, now: Instant) -> Option<Output> {
        let window = self.edge.since(self.rcv);
        let within = |seq: Seq| seq.since(self.rcv) < window;
        let acceptable = match segment.len() {
            0 => segment.seq == self.rcv || within(segment.seq),
            len => within(segment.seq) || within(segment.seq.plus(len - 1)),
        };
        if segment.rst {
            if segment.seq == self.rcv {
                self.phase = Phase::Gone;
            } else if acceptable {
                // RFC 5961 3.2.
                self.acks = 1;
            }
            return None;
        }
        if segment.syn {
            if self.phase == Phase::Accepting && segment.seq.plus(1) == self.rcv {
                self.nxt = self.una;
            } else {
                // RFC 5961 4.2.
                self.acks = 1;
            }
            return None;
        }
        if !acceptable {
            self.acks = 1;
            // Probes of a window that is closed still acknowledge.
            if segment.seq != self.rcv {
                return None;
            }
        }
        let ack = segment.ack?;
        if self.phase == Phase::Accepting {
            if ack != self.una.plus(1) || self.max == self.una {
                return segment.reset();
            }
            self.una = ack;
            self.nxt = ack;
            self.phase = Phase::Open;
            self.window = usize::from(segment.window) << self.their_scale;
            self.progress(None);
        }
        if ack.is_after(self.max) {
            self.acks = 1;
            return None;
        }
        self.acknowledged(ack, segment, now);
        if acceptable {
            self.take_data(segment);
        }
        None
    }

    fn acknowledged(&mut self, ack: Seq, segment: &Segment, now: Instant) {
        let window = usize::from(segment.window) << self.their_scale;
        if ack.is_after(self.una) {
            let count = ack.since(self.una);
            let data = count.min(self.send.len());
            self.send.drain(..data);
            self.fin_acknowledged |= count > data;
            self.una = ack;
            if ack.is_after(self.nxt) {
                self.nxt = ack;
            }
            self.duplicates = 0;
            self.progress(Some(now));
        } else if ack != self.una {
            // Old.
            return;
        } else if segment.len() == 0 && window == self.window && self.max != self.una {
            self.duplicates += 1;
            if self.duplicates == DUPLICATES {
                self.nxt = self.una;
            }
        }
        self.window = window;
    }

    /// The guest has taken something: it is alive.
    fn progress(&mut self, now: Option<Instant>) {
        self.retries = 0;
        self.timeout = FIRST_TIMEOUT;
        self.probe = false;
        self.timer = now.filter(|_| self.max != self.una).map(|now| now + self.timeout);
    }

    fn take_data(&mut self, segment: &Segment) {
        if segment.len() == 0 || self.their_fin {
            // What follows a FIN is not data.
            self.acks = self.acks.max(u32::from(segment.len() != 0));
            return;
        }
        let known = if segment.seq.is_after(self.rcv) { None } else { Some(self.rcv.since(segment.seq)) };
        let Some(known) = known else {
            // Something before it is missing: as many acknowledgements as there are segments make the guest send it again.
            self.acks = (self.acks + 1).min(DUPLICATES + 1);
            return;
        };
        let data = segment.data.get(known..).unwrap_or_default();
        let taken = data.len().min(self.edge.since(self.rcv));
        self.receive.extend(&data[..taken]);
        self.rcv = self.rcv.plus(taken);
        self.acks = self.acks.max(1);
        if segment.fin && taken == data.len() && known <= segment.data.len() {
            self.rcv = self.rcv.plus(1);
            if self.rcv.is_after(self.edge) {
                self.edge = self.rcv;
            }
            self.their_fin = true;
        }
    }

    /// Where our window could end now.
    fn possible_edge(&self) -> Seq {
        let most = usize::from(u16::MAX) << self.our_scale;
        self.rcv.plus(self.capacity.saturating_sub(self.receive.len()).min(most))
    }

    /// The next segment for the guest, if there is any.
    pub fn output(&mut self, now: Instant) -> Option<Output> {
        match self.phase {
            Phase::Asked | Phase::Gone => None,
            Phase::Connecting | Phase::Accepting if self.nxt != self.una => None,
            Phase::Connecting => Some(self.syn(now, None)),
            Phase::Accepting => Some(self.syn(now, Some(self.rcv))),
            Phase::Open => self.output_open(now),
        }
    }

    fn syn(&mut self, now: Instant, ack: Option<Seq>) -> Output {
        let seq = self.una;
        self.sent(1, now);
        // Windows of segments with SYN are never scaled.
        let window = self.capacity.min(usize::from(u16::MAX)) as u16;
        if ack.is_some() {
            self.edge = self.rcv.plus(usize::from(window));
        }
        let scale = (self.our_scale != 0).then_some(self.our_scale);
        Output { seq, ack, syn: true, window, scale, ..Output::default() }
    }

    fn output_open(&mut self, now: Instant) -> Option<Output> {
        let under_way = self.under_way();
        let offset = under_way.min(self.send.len());
        let waiting = self.send.len() - offset;
        let mut usable = self.window.saturating_sub(under_way);
        if usable == 0 && self.probe && under_way == 0 {
            usable = 1;
        }
        let mut len = waiting.min(usable).min(self.mss);
        // A small part of what waits is not worth a segment while the guest is about to open its window (RFC 9293 3.8.6.2.1).
        if len < self.mss && len < waiting && under_way != 0 {
            len = 0;
        }
        let fin = self.finished && !self.fin_acknowledged && len == waiting && under_way <= self.send.len();
        if len > 0 || fin {
            let seq = self.nxt;
            let push = len == waiting;
            self.probe = false;
            self.sent(len + usize::from(fin), now);
            return Some(Output { seq, fin, push, data: (offset, len), ..self.acknowledgement() });
        }
        if waiting > 0 && self.timer.is_none() {
            // The window is closed: it is probed later.
            self.timer = Some(now + self.timeout);
        }
        let news = self.possible_edge();
        let opened = if news.is_after(self.edge) { news.since(self.edge) } else { 0 };
        if self.acks == 0 && (opened < (2 * self.mss).min(self.capacity / 2).max(1) || self.their_fin) {
            return None;
        }
        let acks = self.acks.saturating_sub(1);
        let output = self.acknowledgement();
        self.acks = acks;
        Some(Output { seq: self.nxt, ..output })
    }

    fn acknowledgement(&mut self) -> Output {
        self.acks = 0;
        let possible = self.possible_edge();
        if possible.is_after(self.edge) {
            self.edge = possible;
        }
        let window = (self.edge.since(self.rcv) >> self.our_scale).min(usize::from(u16::MAX)) as u16;
        Output { ack: Some(self.rcv), window, ..Output::default() }
    }

    fn sent(&mut self, len: usize, now: Instant) {
        self.nxt = self.nxt.plus(len);
        if self.nxt.is_after(self.max) {
            self.max = self.nxt;
        }
        if self.timer.is_none() {
            self.timer = Some(now + self.timeout);
        }
    }

    /// The segment that resets the connection.
    pub fn abort(&mut self) -> Option<Output> {
        let phase = std::mem::replace(&mut self.phase, Phase::Gone);
        match phase {
            Phase::Gone | Phase::Connecting => None,
            Phase::Asked => Some(Output { ack: Some(self.rcv), rst: true, ..Output::default() }),
            Phase::Accepting | Phase::Open => {
                Some(Output { seq: self.max, ack: Some(self.rcv), rst: true, ..Output::default() })
            }
        }
    }

    /// For monitors: bytes that wait for the host, and for the guest.
    pub fn queues(&self) -> (usize, usize) {
        (self.receive.len(), self.send.len())
    }
}

#[cfg(test)]
#[path = "tcp_tests.rs"]
mod tests;
