//! Another host's disk, as a client of the Network Block Device protocol: `doc/proto.md` of NetworkBlockDevice/nbd,
//! fixed newstyle negotiation, simple replies.
//!
//! A connection that breaks is made again, for as long as `reconnect-delay` says, and the request under way is sent
//! once more. Deliberately absent: TLS, structured replies, several requests at once.

use crate::image::storage::Storage;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The port without one in the URL.
const PORT: u16 = 10_809;
/// The most bytes of a request: all servers take so many.
const LONGEST: u64 = 1 << 20;
/// How long a server may take to answer, or to take a request.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a connection may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer to an option that is read.
const LONGEST_OPTION: u32 = 4096;

const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

/// Handshake flags.
const FIXED_NEWSTYLE: u16 = 1 << 0;
const NO_ZEROES: u16 = 1 << 1;

/// Options and their answers.
mod option {
    pub const EXPORT_NAME: u32 = 1;
    pub const GO: u32 = 7;
    pub const ACK: u32 = 1;
    pub const INFO: u32 = 3;
    pub const ERROR: u32 = 1 << 31;
    pub const ERROR_UNSUPPORTED: u32 = ERROR | 1;
    pub const ERROR_UNKNOWN: u32 = ERROR | 6;
    pub const INFO_EXPORT: u16 = 0;
}

/// Transmission flags.
mod flag {
    pub const READ_ONLY: u16 = 1 << 1;
    pub const FLUSH: u16 = 1 << 2;
    pub const TRIM: u16 = 1 << 5;
    pub const WRITE_ZEROES: u16 = 1 << 6;
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Read = 0,
    Write = 1,
    Disconnect = 2,
    Flush = 3,
    Trim = 4,
    WriteZeroes = 6,
}

/// The command flag by which zeros keep their room.
const NO_HOLE: u16 = 1 << 1;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Server {
    Tcp(String, u16),
    Unix(PathBuf),
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Server::Tcp(host, port) => write!(f, "{host}:{port}"),
            Server::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What a URL names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    server: Server,
    export: String,
}

/// Whether a name is that of a server.
pub fn is_url(name: &str) -> bool {
    name.starts_with("nbd:") || name.starts_with("nbd+unix:") || name.starts_with("nbd+tcp:")
}

/// Takes a URL apart: `nbd://host[:port]/export`, `nbd+unix:///export?socket=path`, or the older `nbd:host:port` and
/// `nbd:unix:path`, both perhaps with `:exportname=export`.
///
/// # Errors
/// It is no such URL.
pub fn parse(url: &str) -> Result<Target, String> {
    let wrong = || format!("'{url}' is not nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH");
    if let Some(rest) = url.strip_prefix("nbd+unix://") {
        let (export, query) = rest.split_once('?').ok_or_else(wrong)?;
        let socket = query.split('&').find_map(|pair| pair.strip_prefix("socket=")).ok_or_else(wrong)?;
        let export = export.strip_prefix('/').unwrap_or(export);
        return Ok(Target { server: Server::Unix(unescape(socket).into()), export: unescape(export) });
    }
    if let Some(rest) = url.strip_prefix("nbd://").or_else(|| url.strip_prefix("nbd+tcp://")) {
        let (place, export) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = host_and_port(place).ok_or_else(wrong)?;
        return Ok(Target { server: Server::Tcp(host, port), export: unescape(export) });
    }
    let rest = url.strip_prefix("nbd:").ok_or_else(wrong)?;
    let (place, export) = rest.split_once(":exportname=").unwrap_or((rest, ""));
    let server = match place.strip_prefix("unix:") {
        Some(path) => Server::Unix(path.into()),
        None => host_and_port(place).map(|(host, port)| Server::Tcp(host, port)).ok_or_else(wrong)?,
    };
    Ok(Target { server, export: export.into() })
}

fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':'))
        }
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        None => PORT,
        Some(port) => port.parse().ok()?,
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// `%20` and the like.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let escaped = more.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match escaped.filter(|_| *first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &more[2..];
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

struct Connection {
    stream: Box<dyn Stream>,
    len: u64,
    flags: u16,
}

/// An export of a server.
pub struct NbdStorage {
    target: Target,
    /// `None` after it broke.
    connection: Option<Connection>,
    len: u64,
    flags: u16,
    read_only: bool,
    reconnect: Duration,
    handle: u64,
}

impl NbdStorage {
    /// Connects to what `url` names. A connection that breaks is made again for `reconnect`.
    ///
    /// # Errors
    /// One line: the server is not there, has no such export, or one that cannot be written.
    pub fn open(url: &str, read_only: bool, reconnect: Duration) -> Result<NbdStorage, String> {
        let target = parse(url)?;
        let connection = connect(&target)?;
        let (len, flags) = (connection.len, connection.flags);
        if !read_only && flags & flag::READ_ONLY != 0 {
            return Err("the NBD server's export is read-only; readonly=on or snapshot=on take it".into());
        }
        Ok(NbdStorage { target, connection: Some(connection), len, flags, read_only, reconnect, handle: 0 })
    }

    /// Sends a request and waits for its end, over a new connection if the old one breaks.
    fn transact(
        &mut self,
        command: Command,
        flags: u16,
        offset: u64,
        len: u32,
        out: &[u8],
        into: &mut [u8],
    ) -> io::Result<()> {
        let start = Instant::now();
        loop {
            self.handle += 1;
            let result = match &mut self.connection {
                Some(connection) => connection.request(command, flags, self.handle, offset, len, out, into),
                None => Err(Broken::Connection(io::ErrorKind::NotConnected.into())),
            };
            let error = match result {
                Ok(()) => return Ok(()),
                Err(Broken::Request(error)) => return Err(error),
                Err(Broken::Connection(error)) => error,
            };
            self.connection = None;
            if start.elapsed() >= self.reconnect {
                // One try at least, for requests that come later.
                self.try_again();
                return Err(error);
            }
            if !self.try_again() {
                std::thread::sleep(Duration::from_millis(200).min(self.reconnect));
            }
        }
    }

    /// Connects anew; whether that is done, and the export is the same.
    fn try_again(&mut self) -> bool {
        self.connection = connect(&self.target).ok().filter(|connection| connection.len == self.len);
        self.connection.is_some()
    }
}

/// What is broken.
enum Broken {
    /// The server has refused the request.
    Request(io::Error),
    /// The connection.
    Connection(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Broken {
        Broken::Connection(error)
    }
}

impl Connection {
    #[expect(clippy::too_many_arguments, reason = "they are the fields of a request")]
    fn request(
        &mut self,
        command: Command,
        flags: u16,
        handle: u64,
        offset: u64,
        len: u32,
        out: &[u8],
        into: &mut [u8],
    ) -> Result<(), Broken> {
        let mut message = Vec::with_capacity(28 + out.len());
        message.extend(REQUEST_MAGIC.to_be_bytes());
        message.extend(flags.to_be_bytes());
        message.extend((command as u16).to_be_bytes());
        message.extend(handle.to_be_bytes());
        message.extend(offset.to_be_bytes());
        message.extend(len.to_be_bytes());
        message.extend(out);
        self.stream.write_all(&message)?;
        self.stream.flush()?;
        if command == Command::Disconnect {
            return Ok(());
        }
        let (magic, error) = (self.u32()?, self.u32()?);
        if magic != REPLY_MAGIC || self.u64()? != handle {
            return Err(Broken::Connection(io::Error::new(
                io::ErrorKind::InvalidData,
                "the NBD server talks nonsense",
            )));
        }
        if error != 0 {
            // The protocol's numbers are Linux's.
            return Err(Broken::Request(io::Error::from_raw_os_error(error.min(4095).cast_signed())));
        }
        self.stream.read_exact(into)?;
        Ok(())
    }

    fn u16(&mut self) -> io::Result<u16> {
        let mut bytes = [0; 2];
        self.stream.read_exact(&mut bytes).map(|()| u16::from_be_bytes(bytes))
    }

    fn u32(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.stream.read_exact(&mut bytes).map(|()| u32::from_be_bytes(bytes))
    }

    fn u64(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.stream.read_exact(&mut bytes).map(|()| u64::from_be_bytes(bytes))
    }

    fn option(&mut self, number: u32, data: &[u8]) -> io::Result<()> {
        let mut message = OPTION_MAGIC.to_be_bytes().to_vec();
        message.extend(number.to_be_bytes());
        message.extend((data.len() as u32).to_be_bytes());
        message.extend(data);
        self.stream.write_all(&message)
    }

    /// The server's answer to an option: its type and data.
    fn option_reply(&mut self) -> io::Result<(u32, Vec<u8>)> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the NBD server talks nonsense");
        if self.u64()? != OPTION_REPLY_MAGIC {
            return Err(wrong());
        }
        let (_, kind, len) = (self.u32()?, self.u32()?, self.u32()?);
        if len > LONGEST_OPTION {
            return Err(wrong());
        }
        let mut data = vec![0; len as usize];
        self.stream.read_exact(&mut data)?;
        Ok((kind, data))
    }

    /// Negotiates for `export`.
    fn negotiate(&mut self, export: &str) -> Result<(), String> {
        let broken = |e: io::Error| format!("Failed to negotiate: {e}");
        if self.u64().map_err(broken)? != INIT_MAGIC || self.u64().map_err(broken)? != OPTION_MAGIC {
            return Err("there is no NBD server, or only an old one".into());
        }
        let flags = self.u16().map_err(broken)?;
        if flags & FIXED_NEWSTYLE == 0 {
            return Err("the NBD server is too old".into());
        }
        let own = u32::from(flags & (FIXED_NEWSTYLE | NO_ZEROES));
        self.stream.write_all(&own.to_be_bytes()).map_err(broken)?;
        let mut data = (export.len() as u32).to_be_bytes().to_vec();
        data.extend(export.as_bytes());
        data.extend(0u16.to_be_bytes());
        self.option(option::GO, &data).map_err(broken)?;
        let mut known = false;
        // A server has only so much to say.
        for _ in 0..64 {
            let (kind, data) = self.option_reply().map_err(broken)?;
            match kind {
                option::ACK if known => return Ok(()),
                option::INFO if data.len() >= 12 && data[..2] == option::INFO_EXPORT.to_be_bytes() => {
                    self.len = u64::from_be_bytes(data[2..10].try_into().unwrap_or_default());
                    self.flags = u16::from_be_bytes([data[10], data[11]]);
                    known = true;
                }
                option::INFO => {}
                option::ERROR_UNSUPPORTED => return self.negotiate_by_name(export, flags).map_err(broken),
                option::ERROR_UNKNOWN => return Err(format!("Requested export not available: '{export}'")),
                kind => {
                    let text = String::from_utf8_lossy(&data).into_owned();
                    return Err(format!("the NBD server refuses the export '{export}' ({kind:#x}) {text}"));
                }
            }
        }
        Err("the NBD server talks nonsense".into())
    }

    /// As servers want it that do not know GO.
    fn negotiate_by_name(&mut self, export: &str, flags: u16) -> io::Result<()> {
        self.option(option::EXPORT_NAME, export.as_bytes())?;
        self.len = self.u64()?;
        self.flags = self.u16()?;
        if flags & NO_ZEROES == 0 {
            self.stream.read_exact(&mut [0; 124])?;
        }
        Ok(())
    }
}

fn connect(target: &Target) -> Result<Connection, String> {
    let failed = |e: io::Error| format!("Failed to connect to '{}': {e}", target.server);
    let stream: Box<dyn Stream> = match &target.server {
        Server::Unix(path) => {
            let stream = UnixStream::connect(path).map_err(failed)?;
            stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
            stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
            Box::new(stream)
        }
        Server::Tcp(host, port) => {
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            let mut found = None;
            for address in (host.as_str(), *port).to_socket_addrs().map_err(failed)? {
                match TcpStream::connect_timeout(&address, CONNECT_PATIENCE) {
                    Ok(stream) => {
                        found = Some(stream);
                        break;
                    }
                    Err(e) => last = e,
                }
            }
            let stream = found.ok_or(last).map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
            stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
            Box::new(stream)
        }
    };
    let mut connection = Connection { stream, len: 0, flags: 0 };
    connection.negotiate(&target.export)?;
    if connection.len >> 62 != 0 {
        return Err("the NBD server's export is too large".into());
    }
    Ok(connection)
}

impl Storage for NbdStorage {
    fn len(&self) -> u64 {
        self.len
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let there = self.len.saturating_sub(offset).min(buffer.len() as u64) as usize;
        buffer[there..].fill(0);
        for (i, part) in buffer[..there].chunks_mut(LONGEST as usize).enumerate() {
            self.transact(Command::Read, 0, offset + i as u64 * LONGEST, part.len() as u32, &[], part)?;
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        for (i, part) in bytes.chunks(LONGEST as usize).enumerate() {
            self.transact(Command::Write, 0, offset + i as u64 * LONGEST, part.len() as u32, part, &mut [])?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.read_only || self.flags & flag::FLUSH == 0 {
            return Ok(());
        }
        self.transact(Command::Flush, 0, 0, 0, &[], &mut [])
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        if len == self.len { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) }
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        if self.read_only || self.flags & flag::TRIM == 0 {
            return Ok(());
        }
        self.ranges(Command::Trim, 0, offset, len)
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        if self.flags & flag::WRITE_ZEROES != 0 && !self.read_only {
            return self.ranges(Command::WriteZeroes, if unmap { 0 } else { NO_HOLE }, offset, len);
        }
        let zeros = vec![0; len.min(LONGEST) as usize];
        let mut at = offset;
        while at < offset + len {
            let n = (offset + len - at).min(LONGEST);
            self.write_at(at, &zeros[..n as usize])?;
            at += n;
        }
        Ok(())
    }
}

impl NbdStorage {
    /// A command without data, in steps that its length field holds.
    fn ranges(&mut self, command: Command, flags: u16, offset: u64, len: u64) -> io::Result<()> {
        const STEP: u64 = 32 << 20;
        let mut at = offset;
        while at < offset + len {
            let n = (offset + len - at).min(STEP);
            self.transact(command, flags, at, n as u32, &[], &mut [])?;
            at += n;
        }
        Ok(())
    }
}

impl Drop for NbdStorage {
    fn drop(&mut self) {
        if let Some(connection) = &mut self.connection {
            // Whether the server hears of it makes no difference.
            let _ = connection.request(Command::Disconnect, 0, 0, 0, 0, &[], &mut []);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::testing::Folder;
    use std::process::Child;

    #[test]
    fn urls_are_taken_apart() {
        let tcp =
            |host: &str, port, export: &str| Target { server: Server::Tcp(host.into(), port), export: export.into() };
        assert_eq!(parse("nbd://h/e%20f").unwrap(), tcp("h", PORT, "e f"));
        assert_eq!(parse("nbd://[::1]:5").unwrap(), tcp("::1", 5, ""));
        assert_eq!(parse("nbd:h:7:exportname=x").unwrap(), tcp("h", 7, "x"));
        let unix = Target { server: Server::Unix("/s".into()), export: "e".into() };
        assert_eq!(parse("nbd+unix:///e?socket=/s").unwrap(), unix);
        assert_eq!(parse("nbd:unix:/s:exportname=e").unwrap(), unix);
        for wrong in ["nbd://", "nbd+unix:///e", "nbd://h:x/", "http://h/"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    struct Process(Child);

    impl Drop for Process {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// `qemu-nbd` on a socket, once it is there; `None` where it is not installed.
    fn serve(image: &str, socket: &str) -> Option<Process> {
        let _ = std::fs::remove_file(socket);
        let words = ["-k", socket, "-x", "disk", "-f", "raw", "-t", "--discard=unmap", image];
        let Ok(child) = std::process::Command::new("qemu-nbd").args(words).spawn() else {
            eprintln!("qemu-nbd is not installed: not tested");
            return None;
        };
        let server = Process(child);
        for _ in 0..200 {
            if UnixStream::connect(socket).is_ok() {
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("qemu-nbd does not listen");
    }

    #[test]
    fn export_is_read_written_and_found_again_after_the_server_was_away() {
        let folder = Folder::new("nbd");
        let (image, socket) = (folder.path("disk"), folder.path("socket"));
        std::fs::write(&image, vec![0; 4 << 20]).unwrap();
        let Some(server) = serve(&image, &socket) else { return };
        let url = format!("nbd+unix:///disk?socket={socket}");
        let wrong = NbdStorage::open(&format!("nbd+unix:///other?socket={socket}"), true, Duration::ZERO);
        assert!(wrong.err().unwrap().contains("Requested export not available"));
        let mut disk = NbdStorage::open(&url, false, Duration::from_secs(20)).unwrap();
        assert_eq!(disk.len(), 4 << 20);
        let mut random = fastrand::Rng::with_seed(4);
        let mut model = vec![0; 4 << 20];
        for round in 0..60 {
            let (at, len) = crate::image::testing::range(&mut random, 4 << 20, 512, 3 << 20);
            let (start, end) = (at as usize, (at + len) as usize);
            match random.u32(0..4) {
                0 => {
                    disk.write_zeroes(at, len, random.bool()).unwrap();
                    model[start..end].fill(0);
                }
                1 => {
                    let mut bytes = vec![0; len as usize];
                    disk.read_at(at, &mut bytes).unwrap();
                    assert!(bytes == model[start..end]);
                }
                _ => {
                    let bytes = vec![round as u8 + 1; len as usize];
                    disk.write_at(at, &bytes).unwrap();
                    model[start..end].copy_from_slice(&bytes);
                }
            }
        }
        disk.flush().unwrap();
        assert!(std::fs::read(&image).unwrap() == model);
        assert!(disk.write_at(4 << 20, &[0; 512]).is_err());
        drop(server);
        let starter = {
            let (image, socket) = (image.clone(), socket.clone());
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(300));
                serve(&image, &socket)
            })
        };
        let mut bytes = vec![0; 4096];
        disk.read_at(8192, &mut bytes).unwrap();
        assert!(bytes == model[8192..12288]);
        let server = starter.join().unwrap();
        drop(disk);
        drop(server);
        let error = NbdStorage::open(&url, true, Duration::ZERO).err().unwrap();
        assert!(error.starts_with("Failed to connect to '"), "{error}");
    }
}
