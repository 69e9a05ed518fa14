//! Frames over a stream, each behind its length in four bytes, the highest first: `-netdev stream`, `socket,listen=` and `socket,connect=`,
//! as QEMU and passt speak it. A server has one client at a time; when it goes, the next may come.

use super::cable::{ETHERNET_HEADER, FarEnd};
use super::{CABLE, PEER, inherited};
use crate::cli::net_socket::{StreamPlace, StreamSpec};
use crate::exit;
use emu_devices::net::LONGEST_FRAME;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Registry, Token};
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, ToSocketAddrs as _};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Where new clients are told.
const LISTENER: Token = Token(2);
/// Bytes of a length.
const PREFIX: usize = 4;
/// What a peer may call the length of a frame; who says more does not speak this protocol. QEMU's limit.
const LARGEST: usize = 69_632;
/// Bytes that wait for the peer before frames of the guest have to.
const WAITING: usize = 256 << 10;
/// Bytes read at once.
const READ: usize = 64 << 10;

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Peer {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Peer {
    fn register(&mut self, registry: &Registry) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match self {
            Peer::Tcp(stream) => {
                stream.set_nodelay(true)?;
                registry.register(stream, PEER, both)
            }
            Peer::Unix(stream) => registry.register(stream, PEER, both),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Peer::Tcp(stream) => stream.read(buffer),
            Peer::Unix(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, data: &VecDeque<u8>) -> io::Result<usize> {
        let (first, second) = data.as_slices();
        let parts = [IoSlice::new(first), IoSlice::new(second)];
        match self {
            Peer::Tcp(stream) => stream.write_vectored(&parts),
            Peer::Unix(stream) => stream.write_vectored(&parts),
        }
    }
}

/// One stream, and who is at its other end.
pub struct FrameStream {
    spec: StreamSpec,
    listener: Option<Listener>,
    peer: Option<Peer>,
    readable: bool,
    writable: bool,
    /// What has been read and is not a whole frame yet.
    read: Vec<u8>,
    /// What the peer has not taken yet.
    waiting: VecDeque<u8>,
    retry: Option<Instant>,
}

impl FrameStream {
    /// Listens or connects as `spec` says.
    ///
    /// # Errors
    /// What the host does not allow, in one line. Not that nobody is there, if that is to be tried again.
    pub fn open(spec: &StreamSpec) -> Result<FrameStream, String> {
        let mut stream = FrameStream {
            spec: spec.clone(),
            listener: None,
            peer: None,
            readable: false,
            writable: false,
            read: Vec::new(),
            waiting: VecDeque::new(),
            retry: None,
        };
        let place = show(&spec.place);
        if let StreamPlace::Descriptor(number) = spec.place {
            stream.inherit(number)?;
        } else if spec.server {
            let listener = listen(&spec.place);
            stream.listener =
                Some(listener.map_err(|e| format!("cannot listen at {place}: {}", crate::monitor::reason(&e)))?);
        } else {
            match connect(&spec.place) {
                Ok(peer) => stream.peer = Some(peer),
                Err(_) if spec.reconnect.is_some() => stream.retry = Some(Instant::now()),
                Err(e) => return Err(format!("cannot connect to {place}: {}", crate::monitor::reason(&e))),
            }
        }
        Ok(stream)
    }

    fn inherit(&mut self, number: i32) -> Result<(), String> {
        use rustix::net::{AddressFamily, SocketType, sockopt};
        let socket = inherited(number)?;
        let none = || format!("descriptor {number} is not a stream socket");
        if sockopt::socket_type(&socket).map_err(|_| none())? != SocketType::STREAM {
            return Err(none());
        }
        rustix::io::ioctl_fionbio(&socket, true).map_err(|e| e.to_string())?;
        let unix = sockopt::socket_domain(&socket).is_ok_and(|domain| domain == AddressFamily::UNIX);
        if sockopt::socket_acceptconn(&socket).unwrap_or(false) {
            self.listener = Some(match unix {
                true => Listener::Unix(UnixListener::from_std(OwnedFd::into(socket))),
                false => Listener::Tcp(TcpListener::from_std(OwnedFd::into(socket))),
            });
        } else {
            self.peer = Some(match unix {
                true => Peer::Unix(UnixStream::from_std(OwnedFd::into(socket))),
                false => Peer::Tcp(TcpStream::from_std(OwnedFd::into(socket))),
            });
        }
        Ok(())
    }

    /// Carries frames until the other end of the cable is gone. The cable's waker is that of `poll`.
    pub fn run(mut self, mut far: FarEnd, mut poll: Poll) {
        let registered = match &mut self.listener {
            Some(Listener::Tcp(listener)) => poll.registry().register(listener, LISTENER, Interest::READABLE),
            Some(Listener::Unix(listener)) => poll.registry().register(listener, LISTENER, Interest::READABLE),
            None => Ok(()),
        };
        if let Err(e) = registered {
            return tracing::warn!("the network has ended: {e}");
        }
        if let Some(peer) = self.peer.take() {
            self.welcome(peer, poll.registry());
        }
        let mut events = Events::with_capacity(8);
        let mut buffer = vec![0; READ];
        while !far.near_is_gone() {
            if let Err(e) = self.send(&mut far).and_then(|()| self.receive(&mut far, &mut buffer)) {
                tracing::debug!("the peer has gone: {e}");
                self.part(poll.registry());
            }
            let sleep = far.sleep_until();
            let until = [sleep, self.retry].into_iter().flatten().min();
            let wait = until.map(|until| until.saturating_duration_since(Instant::now()));
            // While the peer takes nothing, frames of the guest are no reason to look.
            let stuck = self.waiting.len() >= WAITING;
            let wait = if stuck { Some(wait.unwrap_or(Duration::MAX).max(Duration::from_millis(10))) } else { wait };
            match poll.poll(&mut events, wait) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                    return tracing::warn!("the network has ended: {e}");
                }
                _ => {}
            }
            for event in &events {
                match event.token() {
                    PEER => {
                        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
                        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
                    }
                    LISTENER => self.accept(poll.registry()),
                    CABLE => {}
                    Token(_) => {}
                }
            }
            if self.retry.is_some_and(|retry| retry <= Instant::now()) {
                self.try_again(poll.registry());
            }
        }
    }

    fn try_again(&mut self, registry: &Registry) {
        self.retry = None;
        match connect(&self.spec.place) {
            Ok(peer) => self.welcome(peer, registry),
            Err(_) => self.retry = self.spec.reconnect.map(|time| Instant::now() + time),
        }
    }

    fn welcome(&mut self, mut peer: Peer, registry: &Registry) {
        if peer.register(registry).is_ok() {
            self.peer = Some(peer);
            (self.readable, self.writable) = (true, true);
        }
    }

    /// The peer is gone: what was under way is lost, and another may come.
    fn part(&mut self, registry: &Registry) {
        self.peer = None;
        self.read.clear();
        self.waiting.clear();
        self.retry = self.spec.reconnect.map(|time| Instant::now() + time);
        self.accept(registry);
    }

    fn accept(&mut self, registry: &Registry) {
        if self.peer.is_some() {
            // It waits until the present one has gone.
            return;
        }
        let accepted = match &self.listener {
            Some(Listener::Tcp(listener)) => listener.accept().map(|(stream, _)| Peer::Tcp(stream)),
            Some(Listener::Unix(listener)) => listener.accept().map(|(stream, _)| Peer::Unix(stream)),
            None => return,
        };
        if let Ok(peer) = accepted {
            self.welcome(peer, registry);
        }
    }

    /// Sends what the guest has sent.
    fn send(&mut self, far: &mut FarEnd) -> io::Result<()> {
        loop {
            while self.waiting.len() < WAITING
                && let Some(frame) = far.next()
            {
                // Without a peer, frames are lost.
                if self.peer.is_some() {
                    self.waiting.extend((frame.len() as u32).to_be_bytes());
                    self.waiting.extend(&frame);
                }
                far.recycle(frame);
            }
            let Some(peer) = self.peer.as_mut().filter(|_| self.writable && !self.waiting.is_empty()) else {
                return Ok(());
            };
            match peer.write(&self.waiting) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => drop(self.waiting.drain(..len)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Gives the guest what has come, as far as its NIC has room.
    fn receive(&mut self, far: &mut FarEnd, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            self.deliver(far)?;
            if far.room() == 0 {
                return Ok(());
            }
            let Some(peer) = self.peer.as_mut().filter(|_| self.readable) else { return Ok(()) };
            match peer.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.read.extend_from_slice(&buffer[..len]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Delivers the whole frames that have been read.
    fn deliver(&mut self, far: &mut FarEnd) -> io::Result<()> {
        let mut at = 0;
        while let Some(prefix) = self.read[at..].first_chunk::<PREFIX>() {
            let len = u32::from_be_bytes(*prefix) as usize;
            if len > LARGEST {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let Some(data) = self.read.get(at + PREFIX..at + PREFIX + len) else { break };
            if far.room() == 0 {
                break;
            }
            if (ETHERNET_HEADER..=LONGEST_FRAME).contains(&len) {
                let mut frame = far.buffer();
                frame.extend_from_slice(data);
                far.deliver(frame);
            }
            at += PREFIX + len;
        }
        self.read.drain(..at);
        Ok(())
    }
}

/// A place for people.
fn show(place: &StreamPlace) -> String {
    match place {
        StreamPlace::Inet(host, port) => format!("tcp:{host}:{port}"),
        StreamPlace::Unix(path) => format!("unix:{}", path.display()),
        StreamPlace::Descriptor(number) => format!("descriptor {number}"),
    }
}

fn listen(place: &StreamPlace) -> io::Result<Listener> {
    match place {
        StreamPlace::Inet(host, port) if host.is_empty() => {
            let any = std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port));
            let listener = any.or_else(|_| std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)))?;
            listener.set_nonblocking(true)?;
            Ok(Listener::Tcp(TcpListener::from_std(listener)))
        }
        StreamPlace::Inet(host, port) => {
            let listener = std::net::TcpListener::bind((host.as_str(), *port))?;
            listener.set_nonblocking(true)?;
            Ok(Listener::Tcp(TcpListener::from_std(listener)))
        }
        StreamPlace::Unix(path) => {
            // What an earlier run has left there would be in the way.
            let left = std::os::unix::net::UnixStream::connect(path);
            if left.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
                std::fs::remove_file(path)?;
            }
            let listener = UnixListener::bind(path)?;
            exit::remove_at_exit(path);
            Ok(Listener::Unix(listener))
        }
        StreamPlace::Descriptor(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// How long somebody may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

fn connect(place: &StreamPlace) -> io::Result<Peer> {
    match place {
        StreamPlace::Inet(host, port) => {
            let host = if host.is_empty() { "127.0.0.1" } else { host };
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            for address in (host, *port).to_socket_addrs()? {
                match std::net::TcpStream::connect_timeout(&address, PATIENCE) {
                    Ok(stream) => {
                        stream.set_nonblocking(true)?;
                        return Ok(Peer::Tcp(TcpStream::from_std(stream)));
                    }
                    Err(e) => last = e,
                }
            }
            Err(last)
        }
        StreamPlace::Unix(path) => UnixStream::connect(path).map(Peer::Unix),
        StreamPlace::Descriptor(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tests::{end_of, open, wait_for};
    use emu_devices::net::NetBackend;

    fn take(end: &mut impl NetBackend) -> Option<Vec<u8>> {
        let mut frame = Vec::new();
        end.receive(&mut frame).then_some(frame)
    }

    /// Has frames go both ways, the first ones again and again, as a peer may not be there yet.
    fn exchange(a: &mut impl NetBackend, b: &mut impl NetBackend) {
        let hello = vec![0xaa; 60];
        wait_for(|| {
            a.send(&hello);
            std::thread::sleep(Duration::from_millis(5));
            take(b)
        });
        wait_for(|| {
            b.send(&hello);
            take(a)
        });
        std::thread::sleep(Duration::from_millis(50));
        while take(a).is_some() || take(b).is_some() {}
        for n in 1..=200usize {
            let frame = vec![n as u8; if n == 100 { LONGEST_FRAME } else { 14 + n * 7 }];
            assert!(a.send(&frame) && b.send(&frame));
            assert_eq!(wait_for(|| take(b)), frame);
            assert_eq!(wait_for(|| take(a)), frame);
        }
    }

    #[test]
    fn server_and_client_exchange_frames_and_the_next_client_may_come() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = end_of(&format!("socket,id=n,listen=127.0.0.1:{port}"));
        for _ in 0..2 {
            let mut client = end_of(&format!("stream,id=n,addr.type=inet,addr.host=127.0.0.1,addr.port={port}"));
            exchange(&mut server, &mut client);
        }
    }

    #[test]
    fn client_comes_back_until_there_is_a_server() {
        let path = std::env::temp_dir().join(format!("emu-stream-{}", std::process::id()));
        let place = format!("addr.type=unix,addr.path={}", path.display());
        let mut client = end_of(&format!("stream,id=n,{place},reconnect-ms=20"));
        for _ in 0..2 {
            let mut server = end_of(&format!("stream,id=n,server=on,{place}"));
            exchange(&mut server, &mut client);
            drop(server);
            wait_for(|| std::os::unix::net::UnixStream::connect(&path).is_err().then_some(()));
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn peer_that_does_not_speak_the_protocol_is_left() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let _server = end_of(&format!("socket,id=n,listen=127.0.0.1:{port}"));
        let mut peer = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        peer.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // Closed or reset, but not kept.
        assert!(!matches!(peer.read(&mut [0; 1]), Ok(1)));
    }

    #[test]
    fn nobody_there_and_port_taken_are_one_line() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let text = format!("socket,id=n,listen=127.0.0.1:{port}");
        let line = format!("-netdev {text}: cannot listen at tcp:127.0.0.1:{port}: Address already in use");
        assert_eq!(open(&["-netdev", &text]).err().unwrap(), line);
        drop(taken);
        let text = format!("socket,id=n,connect=127.0.0.1:{port}");
        let line = format!("-netdev {text}: cannot connect to tcp:127.0.0.1:{port}: Connection refused");
        assert_eq!(open(&["-netdev", &text]).err().unwrap(), line);
    }
}
