//! Character devices on the host: terminal, pseudo-terminal, file, pipe, socket.
//!
//! ```text
//!  host --reader thread--> Router --> Inbox of the focused front end --> UART | monitor
//!  host <--writer thread-- Outbox <---------------------------------- UART | monitor | debugcon
//! ```
//! Devices call in the middle of register accesses, so they only ever touch queues; the threads do what may block.

mod descriptor;
mod mux;
mod pty;
mod queue;
mod socket;
mod telnet;
pub mod terminal;

use crate::cli::chardev::{CharKind, CharSpec};
use crate::cli::config::NamedChar;
use crate::cli::error::StartError;
use crate::{exit, report};
use emu_core::bus::Notifier;
use emu_devices::char::CharBackend;
use mux::{Escape, Router};
pub use queue::Input;
use queue::{Inbox, Outbox};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// All character devices of the machine, open, not yet reading.
pub struct Characters {
    ports: BTreeMap<String, Port>,
}

/// What a receiving half hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival<'a> {
    /// Somebody is there: at the start, or a client that has just connected.
    Opened,
    /// Bytes.
    Bytes(&'a [u8]),
    /// A break condition.
    Break,
    /// The client sends no more, but may wait for the answers to what it has sent.
    Left,
    /// The client is gone, and its answers go to nobody.
    Gone,
}

/// A receiving half; runs on the reader thread and hands over what arrives.
type Receiver = Box<dyn FnOnce(&mut dyn FnMut(Arrival)) + Send>;
/// A sending half; runs on the writer thread.
type Sink = Box<dyn FnMut(&[u8]) + Send>;

struct Port {
    outbox: Arc<Outbox>,
    router: Router,
    receiver: Option<Receiver>,
}

impl Characters {
    /// Opens all of `chardevs`; `escape` is the escape character of shared ones.
    ///
    /// # Errors
    /// The host refuses one of them.
    pub fn open(chardevs: &BTreeMap<String, NamedChar>, escape: Option<u8>) -> Result<Characters, StartError> {
        let mut ports = BTreeMap::new();
        for (id, named) in chardevs {
            ports.insert(id.clone(), Port::open(id, &named.spec, escape).map_err(|p| named.error(p))?);
        }
        Ok(Characters { ports })
    }

    /// A front end of the character device `id` for a guest device; `None` if there is none of this id.
    pub fn backend(&mut self, id: &str) -> Option<Box<dyn CharBackend>> {
        let console = self.console(id)?;
        Some(Box::new(FrontEnd { console, notifier: None }))
    }

    /// A front end of the character device `id` for the monitor.
    pub fn console(&mut self, id: &str) -> Option<Console> {
        let port = self.ports.get_mut(id)?;
        let inbox = Arc::new(Inbox::default());
        port.router.add(inbox.clone());
        Some(Console { inbox, outbox: port.outbox.clone() })
    }

    /// A way to write to the character device `id` without taking part in its input.
    pub fn output_only(&mut self, id: &str) -> Option<Box<dyn CharBackend>> {
        let console = Console { inbox: Arc::default(), outbox: self.ports.get(id)?.outbox.clone() };
        Some(Box::new(FrontEnd { console, notifier: None }))
    }

    /// Starts reading, when all front ends are there.
    ///
    /// # Errors
    /// The host has no more threads.
    pub fn start(self) -> Result<(), StartError> {
        for (id, port) in self.ports {
            let Some(receiver) = port.receiver else { continue };
            let mut router = port.router;
            thread(&format!("{id} reader"), move || {
                receiver(&mut |arrival| match router.deliver(arrival) {
                    Some(Escape::Quit) => exit::request("host-qmp-quit"),
                    None => {}
                });
                router.end();
            })?;
        }
        Ok(())
    }
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
    let result = std::thread::Builder::new().name(name.into()).spawn(body);
    result.map(drop).map_err(|e| StartError::Other(format!("cannot start the thread '{name}': {e}")))
}

impl Port {
    fn open(id: &str, spec: &CharSpec, escape: Option<u8>) -> Result<Port, String> {
        let (receiver, mut sink) = open_kind(id, &spec.kind)?;
        if let Some((path, append)) = &spec.log {
            let mut log = create(path, *append).map_err(|e| format!("logfile {}: {e}", path.display()))?;
            let mut inner = sink;
            sink = Box::new(move |bytes| {
                // A full disk must not stop the guest's console.
                let _ = log.write_all(bytes);
                inner(bytes);
            });
        }
        let outbox = Arc::new(Outbox::default());
        let pump = outbox.clone();
        thread(&format!("{id} writer"), move || pump.pump(sink)).map_err(|e| e.to_string())?;
        let drain = outbox.clone();
        exit::at_exit(move |patience| drain.drain(patience));
        let router = Router::new(outbox.clone(), escape.filter(|_| spec.mux));
        Ok(Port { outbox, router, receiver })
    }
}

fn create(path: &Path, append: bool) -> io::Result<File> {
    OpenOptions::new().create(true).write(true).append(append).truncate(!append).open(path)
}

fn reading(mut next: impl FnMut(&mut [u8]) -> usize + Send + 'static) -> Option<Receiver> {
    Some(Box::new(move |deliver| {
        deliver(Arrival::Opened);
        let mut buffer = [0; 4096];
        loop {
            match next(&mut buffer) {
                0 => return,
                n => deliver(Arrival::Bytes(&buffer[..n])),
            }
        }
    }))
}

fn writing(file: File) -> Sink {
    Box::new(move |bytes| {
        // A full disk or a reader that is gone must not stop the guest.
        descriptor::write_all(&file, bytes);
    })
}

fn open_kind(id: &str, kind: &CharKind) -> Result<(Option<Receiver>, Sink), String> {
    let at = |path: &Path| {
        let path = path.display().to_string();
        move |e: io::Error| format!("cannot open {path}: {e}")
    };
    match kind {
        CharKind::Null => Ok((None, Box::new(|_| {}))),
        CharKind::Stdio { signal } => {
            terminal::enter(*signal);
            let receiver = reading(|buffer| descriptor::read_some(rustix::stdio::stdin(), buffer));
            let sink = |bytes: &[u8]| {
                // A reader that is gone must not stop the guest.
                descriptor::write_all(rustix::stdio::stdout(), bytes);
            };
            Ok((receiver, Box::new(sink)))
        }
        CharKind::Pty => {
            let (pty, path) = pty::Pty::open().map_err(|e| format!("cannot open a pseudo-terminal: {e}"))?;
            let sender = pty.try_clone().map_err(|e| e.to_string())?;
            report::print(&format!("char device redirected to {path} (label {id})\n"));
            let receiver: Receiver = Box::new(move |deliver| {
                deliver(Arrival::Opened);
                pty.receive(|bytes| deliver(Arrival::Bytes(bytes)));
            });
            Ok((Some(receiver), Box::new(move |bytes| sender.send(bytes))))
        }
        CharKind::File { path, append, input } => {
            let output = create(path, *append).map_err(at(path))?;
            let receiver = match input {
                Some(path) => {
                    let file = File::open(path).map_err(at(path))?;
                    reading(move |buffer| descriptor::read_some(&file, buffer))
                }
                None => None,
            };
            Ok((receiver, writing(output)))
        }
        CharKind::Pipe { path } => {
            let (input, output) = open_pipe(path).map_err(at(path))?;
            Ok((reading(move |buffer| descriptor::read_some(&input, buffer)), writing(output)))
        }
        CharKind::Unix { path, role } => {
            let shown = path.display();
            let socket = socket::Socket::unix(path, *role).map_err(|e| format!("cannot open socket {shown}: {e}"))?;
            Ok(socket_halves(socket))
        }
        CharKind::Tcp { host, port, role, nodelay, telnet } => {
            let socket = socket::Socket::tcp(host, *port, *role, *nodelay, *telnet);
            Ok(socket_halves(socket.map_err(|e| format!("cannot open socket {host}:{port}: {e}"))?))
        }
    }
}

fn socket_halves(socket: socket::Socket) -> (Option<Receiver>, Sink) {
    let sender = socket.sender();
    (Some(Box::new(move |deliver| socket.receive(deliver))), Box::new(move |bytes| sender.send(bytes)))
}

/// `path.in` and `path.out` if both exist, else `path` for both directions. FIFOs are opened both ways, so that neither
/// opening nor the other side's leaving blocks or ends anything.
fn open_pipe(path: &Path) -> io::Result<(File, File)> {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let both = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
    match (both(&with(".in")), both(&with(".out"))) {
        (Ok(input), Ok(output)) => Ok((input, output)),
        _ => {
            let file = both(path)?;
            Ok((file.try_clone()?, file))
        }
    }
}

/// A front end that may block: the monitor's.
pub struct Console {
    inbox: Arc<Inbox>,
    outbox: Arc<Outbox>,
}

impl Console {
    /// Waits for the next input; `None` when no more will come.
    pub fn next(&self) -> Option<Input> {
        self.inbox.wait()
    }

    /// A way to write on this console from threads that must not wait.
    pub fn announcer(&self) -> Announcer {
        Announcer(self.outbox.clone())
    }

    /// Writes text; line ends are CR LF already.
    pub fn write(&self, text: &str) {
        self.outbox.write(text.as_bytes());
    }
}

/// Writes on a console without waiting for its reader.
pub struct Announcer(Arc<Outbox>);

impl Announcer {
    /// Writes `text`, or drops it if the reader is far behind.
    pub fn announce(&self, text: &str) {
        self.0.offer_whole(text.as_bytes());
    }
}

/// A front end of a guest device.
struct FrontEnd {
    console: Console,
    notifier: Option<Notifier>,
}

impl CharBackend for FrontEnd {
    fn write(&mut self, bytes: &[u8]) -> usize {
        self.console.outbox.offer(bytes, self.notifier.as_ref())
    }

    fn read(&mut self, buffer: &mut [u8]) -> usize {
        self.console.inbox.read(buffer)
    }

    fn set_notifier(&mut self, notifier: Notifier) {
        self.console.inbox.set_notifier(notifier.clone());
        self.notifier = Some(notifier);
    }

    fn take_break(&mut self) -> bool {
        self.console.inbox.take_break()
    }
}
