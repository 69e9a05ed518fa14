//! Character devices as `-serial`, `-monitor`, `-debugcon` and `-chardev` name them.
//!
//! Deliberately absent: websocket, TLS, UDP, virtual consoles and host serial lines.

use super::error::{StartError, nearest};
use super::value::{KeyValues, parse_number};
use std::path::PathBuf;

/// What `-chardev help` lists.
const BACKENDS: &[&str] = &["file", "null", "pipe", "pty", "socket", "stdio"];

/// What `-serial` and its like accept, for error messages.
const LEGACY: &str =
    "stdio, mon:stdio, null, none, pty, file:PATH, pipe:PATH, unix:PATH, tcp:HOST:PORT, telnet:HOST:PORT, chardev:ID";

/// What is at the far end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CharKind {
    /// Swallows output.
    Null,
    /// The terminal, or whatever stdin and stdout are. `signal`: Ctrl-C interrupts the emulator instead of the guest.
    Stdio {
        /// Whether the terminal keeps its signal keys.
        signal: bool,
    },
    /// A new pseudo-terminal, whose path is printed.
    Pty,
    /// A file for output, perhaps another for input.
    File {
        /// Receives output.
        path: PathBuf,
        /// Keep what the file holds already.
        append: bool,
        /// Read as input.
        input: Option<PathBuf>,
    },
    /// FIFOs `path.in` and `path.out`, or one file `path` for both.
    Pipe {
        /// Without its suffix.
        path: PathBuf,
    },
    /// A Unix socket.
    Unix {
        /// In the file system.
        path: PathBuf,
        /// Server or client.
        role: SocketRole,
    },
    /// A TCP socket.
    Tcp {
        /// Empty: any address for a server, the local host for a client.
        host: String,
        /// 0: a server picks a free one.
        port: u16,
        /// Server or client.
        role: SocketRole,
        /// Send small segments at once.
        nodelay: bool,
        /// A server speaks telnet.
        telnet: bool,
    },
}

/// Which side of a socket the emulator is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketRole {
    /// Connects at start-up.
    Client,
    /// Listens; `wait`: the machine starts when the first client has connected.
    Server {
        /// Whether to wait.
        wait: bool,
    },
}

/// One character device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CharSpec {
    /// The far end.
    pub kind: CharKind,
    /// Shared by several front ends with an escape key between them.
    pub mux: bool,
    /// A copy of all output, and whether to append to it.
    pub log: Option<(PathBuf, bool)>,
}

/// Where `-serial` and its like lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CharTarget {
    /// No device at all.
    None,
    /// To a `-chardev` by its id.
    Id(String),
    /// To a character device of its own.
    Own(CharSpec),
    /// To a character device that it shares with a monitor.
    WithMonitor(CharSpec),
}

impl CharKind {
    /// As `info chardev` tells it.
    pub fn show(&self) -> String {
        let server = |role: &SocketRole| if *role == SocketRole::Client { "" } else { ",server=on" };
        match self {
            CharKind::Null => "null".into(),
            CharKind::Stdio { .. } => "stdio".into(),
            CharKind::Pty => "pty".into(),
            CharKind::File { path, .. } => format!("file:{}", path.display()),
            CharKind::Pipe { path } => format!("pipe:{}", path.display()),
            CharKind::Unix { path, role } => format!("unix:{}{}", path.display(), server(role)),
            CharKind::Tcp { host, port, role, telnet, .. } => {
                let scheme = if *telnet { "telnet" } else { "tcp" };
                format!("{scheme}:{host}:{port}{}", server(role))
            }
        }
    }
}

impl CharSpec {
    fn plain(kind: CharKind) -> CharSpec {
        CharSpec { kind, mux: false, log: None }
    }

    /// The terminal without signal keys, shared.
    pub fn shared_stdio() -> CharSpec {
        CharSpec { kind: CharKind::Stdio { signal: false }, mux: true, log: None }
    }
}

/// Reads the value of `-serial`, `-monitor` or `-debugcon`.
///
/// # Errors
/// An unknown or incomplete back end.
pub fn parse_target(option: &str, text: &str) -> Result<CharTarget, StartError> {
    if text == "none" {
        return Ok(CharTarget::None);
    }
    if let Some(id) = text.strip_prefix("chardev:") {
        return Ok(CharTarget::Id(id.into()));
    }
    match text.strip_prefix("mon:") {
        Some(rest) => {
            let mut spec = parse_legacy(option, text, rest)?;
            spec.mux = true;
            if let CharKind::Stdio { signal } = &mut spec.kind {
                *signal = false;
            }
            Ok(CharTarget::WithMonitor(spec))
        }
        None => Ok(CharTarget::Own(parse_legacy(option, text, text)?)),
    }
}

fn parse_legacy(option: &str, whole: &str, text: &str) -> Result<CharSpec, StartError> {
    let error = |problem: String| StartError::value(option, whole, problem);
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    let kind = match (kind, rest) {
        ("null", "") => CharKind::Null,
        ("stdio", "") => CharKind::Stdio { signal: true },
        ("pty", "") => CharKind::Pty,
        ("file" | "pipe" | "unix", "") => return Err(error(format!("'{kind}:' needs a path"))),
        ("file", path) => CharKind::File { path: path.into(), append: false, input: None },
        ("pipe", path) => CharKind::Pipe { path: path.into() },
        ("unix", rest) => {
            let mut v = KeyValues::parse(option, rest, "path");
            let path = v.take("path")?.filter(|p| !p.is_empty()).ok_or_else(|| error("'unix:' needs a path".into()))?;
            let role = take_role(&mut v)?;
            v.finish()?;
            CharKind::Unix { path: path.into(), role }
        }
        ("tcp" | "telnet", rest) => {
            // The address may hold brackets and colons, so that it never looks like a key.
            let (address, options) = rest.split_once(',').unwrap_or((rest, ""));
            let (host, port) = split_address(address).ok_or_else(|| error(format!("expected {kind}:HOST:PORT")))?;
            let mut v = KeyValues::parse(option, options, "");
            let role = take_role(&mut v)?;
            let nodelay = take_nodelay(&mut v)?;
            v.finish()?;
            CharKind::Tcp { host, port, role, nodelay, telnet: kind == "telnet" }
        }
        ("vc" | "udp" | "websocket" | "msmouse" | "braille" | "ringbuf", _) => {
            return Err(error(format!("back end '{kind}' is not implemented; implemented: {LEGACY}")));
        }
        _ if text.starts_with("/dev/") => {
            return Err(error(format!("host serial lines are not implemented; implemented: {LEGACY}")));
        }
        _ => return Err(error(format!("not a character device; expected {LEGACY}"))),
    };
    Ok(CharSpec::plain(kind))
}

fn split_address(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let port = parse_number(port).and_then(|p| u16::try_from(p).ok())?;
    Some((host.into(), port))
}

fn take_role(v: &mut KeyValues) -> Result<SocketRole, StartError> {
    let server = v.take_bool("server")?.unwrap_or(false);
    let wait = v.take_bool("wait")?;
    match (server, wait) {
        (true, wait) => Ok(SocketRole::Server { wait: wait.unwrap_or(true) }),
        (false, None | Some(false)) => Ok(SocketRole::Client),
        (false, Some(true)) => Err(v.error("'wait' only goes with 'server'")),
    }
}

/// `nodelay`, which is not the negation of a `delay` that was meant, as in QEMU; both spellings are one switch.
fn take_nodelay(v: &mut KeyValues) -> Result<bool, StartError> {
    let positive = v.take_bool("nodelay")?;
    let delay = v.take_bool("delay")?;
    Ok(positive.unwrap_or(false) || delay == Some(false))
}

/// Reads `-chardev backend,id=ID,...`: the id and the device.
///
/// # Errors
/// An unknown back end or property, a missing id or path.
pub fn parse_chardev(text: &str) -> Result<(String, CharSpec), StartError> {
    let mut v = KeyValues::parse("chardev", text, "backend");
    let backend = v.take("backend")?.unwrap_or_default();
    if !BACKENDS.contains(&backend.as_str()) {
        let hint = match nearest(&backend, BACKENDS.iter().copied()) {
            Some(near) => format!("nearest is '{near}'"),
            None => format!("implemented: {}", BACKENDS.join(", ")),
        };
        return Err(v.error(format!("no character back end '{backend}'; {hint}")));
    }
    let id = v.take("id")?.filter(|id| !id.is_empty()).ok_or_else(|| v.error("needs id=ID"))?;
    let mux = v.take_bool("mux")?.unwrap_or(false);
    let append_log = v.take_bool("logappend")?.unwrap_or(false);
    let log = v.take("logfile")?.map(|path| (path.into(), append_log));
    let kind = match backend.as_str() {
        "stdio" => CharKind::Stdio { signal: v.take_bool("signal")?.unwrap_or(!mux) },
        "pty" => CharKind::Pty,
        "file" => CharKind::File {
            path: need_path(&mut v)?,
            append: v.take_bool("append")?.unwrap_or(false),
            input: v.take("input-path")?.map(PathBuf::from),
        },
        "pipe" => CharKind::Pipe { path: need_path(&mut v)? },
        "socket" => socket(&mut v)?,
        _ => CharKind::Null,
    };
    v.finish()?;
    Ok((id, CharSpec { kind, mux, log }))
}

fn need_path(v: &mut KeyValues) -> Result<PathBuf, StartError> {
    v.take("path")?.filter(|p| !p.is_empty()).map(PathBuf::from).ok_or_else(|| v.error("needs path=PATH"))
}

fn socket(v: &mut KeyValues) -> Result<CharKind, StartError> {
    let role = take_role(v)?;
    if let Some(path) = v.take("path")? {
        return Ok(CharKind::Unix { path: path.into(), role });
    }
    let host = v.take("host")?.unwrap_or_default();
    let telnet = v.take_bool("telnet")?.unwrap_or(false);
    let port = v.take_number("port", 0xffff)?.ok_or_else(|| v.error("needs port=PORT or path=PATH"))?;
    Ok(CharKind::Tcp { host, port: port as u16, role, nodelay: take_nodelay(v)?, telnet })
}

/// What `-chardev help` prints.
pub fn help() -> String {
    let mut text = String::from("Available chardev backend types:\n");
    for backend in BACKENDS {
        text += &format!("  {backend}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(text: &str) -> CharKind {
        match parse_target("serial", text) {
            Ok(CharTarget::Own(spec)) => spec.kind,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn legacy_names_lead_to_their_back_ends() {
        assert_eq!(own("null"), CharKind::Null);
        assert_eq!(own("stdio"), CharKind::Stdio { signal: true });
        assert_eq!(own("file:/a,b"), CharKind::File { path: "/a,b".into(), append: false, input: None });
        assert_eq!(
            own("unix:/s,server,nowait"),
            CharKind::Unix { path: "/s".into(), role: SocketRole::Server { wait: false } }
        );
        assert_eq!(
            own("unix:/s,server=on,wait=off"),
            CharKind::Unix { path: "/s".into(), role: SocketRole::Server { wait: false } }
        );
        assert_eq!(parse_target("serial", "none"), Ok(CharTarget::None));
        assert_eq!(parse_target("serial", "chardev:x"), Ok(CharTarget::Id("x".into())));
        assert_eq!(parse_target("serial", "mon:stdio"), Ok(CharTarget::WithMonitor(CharSpec::shared_stdio())));
    }

    #[test]
    fn tcp_addresses_with_and_without_host_are_read() {
        let tcp =
            |host: &str, port, role, nodelay| CharKind::Tcp { host: host.into(), port, role, nodelay, telnet: false };
        assert_eq!(own("tcp::4444,server,nowait"), tcp("", 4444, SocketRole::Server { wait: false }, false));
        assert_eq!(own("tcp:localhost:1,nodelay"), tcp("localhost", 1, SocketRole::Client, true));
        assert_eq!(own("tcp:[::1]:80,server=on"), tcp("::1", 80, SocketRole::Server { wait: true }, false));
        assert!(parse_target("serial", "tcp:localhost").is_err());
        assert!(parse_target("serial", "tcp:localhost:70000").is_err());
    }

    #[test]
    fn wrong_back_ends_are_named_with_what_exists() {
        for text in ["foo", "vc", "telnet::x", "/dev/ttyS0", "file:", "stdio:x", "unix:/s,wait=on", "tcp::1,foo"] {
            let line = parse_target("serial", text).unwrap_err().line();
            assert!(line.starts_with("-serial "), "{line}");
        }
    }

    #[test]
    fn chardev_with_all_its_keys_is_read() {
        let (id, spec) = parse_chardev("socket,id=c0,host=h,port=7,server=on,wait=off,mux=on,logfile=/l").unwrap();
        assert_eq!(id, "c0");
        assert!(spec.mux);
        assert_eq!(spec.log, Some(("/l".into(), false)));
        let role = SocketRole::Server { wait: false };
        assert_eq!(spec.kind, CharKind::Tcp { host: "h".into(), port: 7, role, nodelay: false, telnet: false });
        let (_, spec) = parse_chardev("socket,id=c0,port=7,server=on,telnet=on").unwrap();
        assert!(matches!(spec.kind, CharKind::Tcp { telnet: true, .. }));
        assert!(parse_chardev("stdio").is_err());
        assert!(parse_chardev("foo,id=x").is_err());
        assert!(parse_chardev("file,id=x").is_err());
    }
}
