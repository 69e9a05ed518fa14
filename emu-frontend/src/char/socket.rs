//! Character devices over Unix and TCP sockets.
//!
//! A server serves one client at a time and waits for the next when that one leaves. Without a client, output is dropped
//! as by a cable that is not plugged in.

use super::{Arrival, telnet};
use crate::cli::chardev::SocketRole;
use crate::report;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// A connected client of either family.
pub trait Connection: Send + Sync {
    /// Reads some bytes; 0 at the end.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all bytes.
    fn send(&self, bytes: &[u8]) -> io::Result<()>;
    /// Ends the connection; whoever is sending fails.
    fn close(&self);
}

impl Connection for TcpStream {
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        (&*self).write_all(bytes)
    }
    fn close(&self) {
        // It may be closed already.
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl Connection for UnixStream {
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        (&*self).write_all(bytes)
    }
    fn close(&self) {
        // It may be closed already.
        let _ = self.shutdown(Shutdown::Both);
    }
}

type Peer = Arc<dyn Connection>;

/// A socket: who is connected, and where the next client comes from.
pub struct Socket {
    peer: Arc<Mutex<Option<Peer>>>,
    accept: Option<Box<dyn Fn() -> io::Result<Peer> + Send>>,
    telnet: bool,
}

/// The sending half, for the writer thread.
#[derive(Clone)]
pub struct Sender {
    peer: Arc<Mutex<Option<Peer>>>,
    telnet: bool,
}

impl Sender {
    /// Sends to whoever is connected.
    pub fn send(&self, bytes: &[u8]) {
        let peer = self.peer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(peer) = peer {
            // A client that has gone is noticed by the receiving half.
            let _ = if self.telnet { peer.send(&telnet::encode(bytes)) } else { peer.send(bytes) };
        }
    }
}

impl Socket {
    /// A Unix socket at `path`. A server replaces a socket that is there already.
    ///
    /// # Errors
    /// The host refuses.
    pub fn unix(path: &Path, role: SocketRole) -> io::Result<Socket> {
        let SocketRole::Server { wait } = role else {
            return Ok(Socket::connected(Arc::new(UnixStream::connect(path)?)));
        };
        if std::fs::symlink_metadata(path).is_ok_and(|m| std::os::unix::fs::FileTypeExt::is_socket(&m.file_type())) {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        crate::exit::remove_at_exit(path);
        let show = format!("unix:{}", path.display());
        Socket::listening(wait, &show, move || Ok(Arc::new(listener.accept()?.0)))
    }

    /// A TCP socket. An empty host is any address for a server and the local host for a client. `telnet` is for servers: a
    /// client sends and receives plain bytes all the same, as QEMU's does.
    ///
    /// # Errors
    /// The host refuses.
    pub fn tcp(host: &str, port: u16, role: SocketRole, nodelay: bool, telnet: bool) -> io::Result<Socket> {
        let SocketRole::Server { wait } = role else {
            let host = if host.is_empty() { "localhost" } else { host };
            let stream = TcpStream::connect((host, port))?;
            stream.set_nodelay(nodelay)?;
            return Ok(Socket::connected(Arc::new(stream)));
        };
        let listener = TcpListener::bind((if host.is_empty() { "0.0.0.0" } else { host }, port))?;
        let address = listener.local_addr()?;
        let scheme = if telnet { "telnet" } else { "tcp" };
        if port == 0 {
            report::complain(&format!("character device listens on {scheme}:{address}"));
        }
        let socket = Socket::listening(wait, &format!("{scheme}:{address}"), move || {
            let stream = listener.accept()?.0;
            stream.set_nodelay(nodelay)?;
            if telnet {
                (&stream).write_all(telnet::GREETING)?;
            }
            Ok(Arc::new(stream))
        })?;
        Ok(Socket { telnet, ..socket })
    }

    fn connected(peer: Peer) -> Socket {
        Socket { peer: Arc::new(Mutex::new(Some(peer))), accept: None, telnet: false }
    }

    fn listening(wait: bool, show: &str, accept: impl Fn() -> io::Result<Peer> + Send + 'static) -> io::Result<Socket> {
        let mut first = None;
        if wait {
            report::complain(&format!("waiting for connection on: {show}"));
            first = Some(accept()?);
        }
        Ok(Socket { peer: Arc::new(Mutex::new(first)), accept: Some(Box::new(accept)), telnet: false })
    }

    /// The sending half.
    pub fn sender(&self) -> Sender {
        Sender { peer: self.peer.clone(), telnet: self.telnet }
    }

    /// Receives from one client after another until no more can come.
    pub fn receive(self, deliver: &mut dyn FnMut(Arrival)) {
        let mut buffer = [0; 4096];
        loop {
            let peer = self.peer.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(peer) = peer {
                let mut decoder = telnet::Decoder::default();
                deliver(Arrival::Opened);
                loop {
                    match peer.receive(&mut buffer) {
                        Ok(n @ 1..) if self.telnet => decoder.decode(&buffer[..n], deliver),
                        Ok(n @ 1..) => deliver(Arrival::Bytes(&buffer[..n])),
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        Ok(0) => {
                            // The client may have closed its own half only.
                            deliver(Arrival::Left);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                // Otherwise a client that neither reads nor goes would keep the sending half for itself.
                peer.close();
                *self.peer.lock().unwrap_or_else(PoisonError::into_inner) = None;
                deliver(Arrival::Gone);
            }
            let Some(accept) = &self.accept else { return };
            match accept() {
                Ok(peer) => *self.peer.lock().unwrap_or_else(PoisonError::into_inner) = Some(peer),
                // Out of descriptors, most likely: try again, but not at full speed.
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(100)),
            }
        }
    }
}
