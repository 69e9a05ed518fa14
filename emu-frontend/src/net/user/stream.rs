//! The host's end of a TCP connection of the guest: a socket, or a process.

use super::config::GuestTarget;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::process::{Child, Command, Stdio};

/// What bytes of the guest go to.
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket, or a process behind a pair of them.
    Unix(UnixStream, Option<Child>),
}

impl Stream {
    /// Begins to connect to `address`.
    ///
    /// # Errors
    /// The host's, as far as they are known at once.
    pub fn connect(address: SocketAddr) -> io::Result<Stream> {
        TcpStream::connect(address).map(Stream::Tcp)
    }

    /// Begins to connect to what `guestfwd` names.
    ///
    /// # Errors
    /// As [`Stream::connect`]; a process cannot be started.
    pub fn open(target: &GuestTarget) -> io::Result<Stream> {
        match target {
            GuestTarget::Tcp(address) => Stream::connect(*address),
            GuestTarget::Unix(path) => UnixStream::connect(path).map(|stream| Stream::Unix(stream, None)),
            GuestTarget::Command(command) => {
                let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
                ours.set_nonblocking(true)?;
                let input = OwnedFd::from(theirs.try_clone()?);
                let mut shell = Command::new("/bin/sh");
                shell.arg("-c").arg(command).stdin(Stdio::from(input)).stdout(Stdio::from(OwnedFd::from(theirs)));
                let child = shell.spawn()?;
                Ok(Stream::Unix(UnixStream::from_std(ours), Some(child)))
            }
        }
    }

    /// Has `token` told when there is something to read or room to write.
    ///
    /// # Errors
    /// The host's.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match self {
            Stream::Tcp(stream) => registry.register(stream, token, both),
            Stream::Unix(stream, _) => registry.register(stream, token, both),
        }
    }

    /// Whether it is connected now.
    ///
    /// # Errors
    /// It will never be.
    pub fn is_connected(&self) -> io::Result<bool> {
        let Stream::Tcp(stream) = self else { return Ok(true) };
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        match stream.peer_addr() {
            Ok(_) => {
                // What the guest sends is sent on as it comes; the guest has its own reasons to wait.
                let _ = stream.set_nodelay(true);
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Ends what is written.
    pub fn finish(&self) {
        // Whoever is gone needs no end.
        let _ = match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream, _) => stream.shutdown(Shutdown::Write),
        };
    }

    /// Has the other end find the connection broken, not ended, when this is dropped.
    pub fn set_reset(&self) {
        if let Stream::Tcp(stream) = self {
            let _ = rustix::net::sockopt::set_socket_linger(stream, Some(std::time::Duration::ZERO));
        }
    }

    /// For monitors: its descriptor.
    pub fn descriptor(&self) -> RawFd {
        match self {
            Stream::Tcp(stream) => stream.as_raw_fd(),
            Stream::Unix(stream, _) => stream.as_raw_fd(),
        }
    }

    /// The process behind it, if there is one that may still run.
    pub fn take_child(&mut self) -> Option<Child> {
        match self {
            Stream::Tcp(_) => None,
            Stream::Unix(_, child) => child.take(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream, _) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(buffer),
            Stream::Unix(stream, _) => stream.write(buffer),
        }
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write_vectored(buffers),
            Stream::Unix(stream, _) => stream.write_vectored(buffers),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
