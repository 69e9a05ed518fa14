//! The properties of the back ends that are sockets and TAP interfaces: `-netdev socket`, `stream`, `dgram` and `tap`.

use super::error::StartError;
use super::value::{KeyValues, parse_number};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Where a stream goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamPlace {
    /// TCP; a host without a name is any of this host's for a server.
    Inet(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
    /// A socket that emu has inherited, connected or listening.
    Descriptor(i32),
}

/// Frames over a stream, each behind its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSpec {
    /// Where.
    pub place: StreamPlace,
    /// Whether to listen there instead of connecting.
    pub server: bool,
    /// Time between attempts to connect; `None`: one, at the start.
    pub reconnect: Option<Duration>,
}

/// Frames as datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatagramSpec {
    /// UDP from one address to another. Without a local one, the host chooses.
    Inet {
        /// This end.
        local: Option<SocketAddr>,
        /// The other.
        remote: SocketAddr,
    },
    /// All that listen to a group.
    Multicast {
        /// The group.
        group: SocketAddr,
        /// The host's address towards it.
        local: Option<IpAddr>,
    },
    /// Unix sockets.
    Unix {
        /// This end.
        local: PathBuf,
        /// The other.
        remote: PathBuf,
    },
    /// A connected socket that emu has inherited.
    Descriptor(i32),
}

/// An interface of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapSpec {
    /// An inherited descriptor of one.
    pub descriptor: Option<i32>,
    /// Its name; the host chooses one if it is empty.
    pub name: String,
    /// What sets it up, called with its name.
    pub script: Option<PathBuf>,
    /// Without `script`, the host's usual one sets it up, if it has one.
    pub usual_script: bool,
    /// What undoes that at the end.
    pub down_script: Option<PathBuf>,
}

/// `HOST:PORT`, a name or an address, perhaps in brackets.
pub fn split_host(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    Some((host.into(), parse_number(port)?.try_into().ok()?))
}

/// The first address of a host, of IPv4 if there is one; any of this host's own for an empty name.
///
/// # Errors
/// There is none.
pub fn resolve(host: &str, port: u16) -> Result<SocketAddr, String> {
    use std::net::ToSocketAddrs as _;
    if host.is_empty() {
        return Ok((Ipv4Addr::UNSPECIFIED, port).into());
    }
    let found = (host, port).to_socket_addrs().map_err(|e| format!("{host}: {e}"))?;
    let all: Vec<SocketAddr> = found.collect();
    all.iter().find(|a| a.is_ipv4()).or(all.first()).copied().ok_or_else(|| format!("{host}: no address"))
}

/// Either a stream or datagrams: what `-netdev socket` can be.
pub enum SocketSpec {
    /// `listen`, `connect`, and a stream that is inherited.
    Stream(StreamSpec),
    /// `mcast`, `udp`.
    Datagram(DatagramSpec),
}

/// Reads the properties of `-netdev socket`.
///
/// # Errors
/// Not just one of its forms, or an address that cannot be.
pub fn parse_socket(v: &mut KeyValues) -> Result<SocketSpec, StartError> {
    let mut given = Vec::new();
    for key in ["listen", "connect", "mcast", "udp", "fd"] {
        given.extend(v.take(key)?.map(|value| (key, value)));
    }
    let local = v.take("localaddr")?;
    let [(key, value)] = given.as_slice() else {
        return Err(v.error("exactly one of listen=, connect=, mcast=, udp= and fd= is required"));
    };
    if local.is_some() && !matches!(*key, "mcast" | "udp") {
        return Err(v.error("'localaddr' only goes with mcast= and udp="));
    }
    if *key == "fd" {
        let place = StreamPlace::Descriptor(descriptor(v, "fd", value)?);
        return Ok(SocketSpec::Stream(StreamSpec { place, server: false, reconnect: None }));
    }
    let place = |key: &str, value: &str| {
        split_host(value).ok_or_else(|| v.error(format!("'{key}={value}': expected HOST:PORT")))
    };
    let (host, port) = place(key, value)?;
    let address = |host: &str, port| resolve(host, port).map_err(|problem| v.error(problem));
    Ok(match *key {
        "listen" | "connect" => SocketSpec::Stream(StreamSpec {
            place: StreamPlace::Inet(host, port),
            server: *key == "listen",
            reconnect: None,
        }),
        "mcast" => {
            let group = address(&host, port)?;
            if !group.ip().is_multicast() {
                return Err(v.error(format!("'mcast={value}': {} is not a multicast address", group.ip())));
            }
            let local =
                local.map(|text| text.parse().map_err(|_| v.error(format!("'localaddr={text}' is not an address"))));
            SocketSpec::Datagram(DatagramSpec::Multicast { group, local: local.transpose()? })
        }
        _ => {
            let local = local.ok_or_else(|| v.error("'udp' needs localaddr=HOST:PORT"))?;
            let (local_host, local_port) = place("localaddr", &local)?;
            let local = Some(address(&local_host, local_port)?);
            SocketSpec::Datagram(DatagramSpec::Inet { local, remote: address(&host, port)? })
        }
    })
}

fn descriptor(v: &KeyValues, key: &str, text: &str) -> Result<i32, StartError> {
    let number = parse_number(text).and_then(|n| i32::try_from(n).ok());
    number.ok_or_else(|| v.error(format!("'{key}={text}' is not the number of an inherited descriptor")))
}

/// An address of `stream` and `dgram`: `TYPE` and what it needs, under `prefix`.
enum Address {
    Inet(String, u16),
    Unix(PathBuf),
    Descriptor(i32),
}

fn take_address(v: &mut KeyValues, prefix: &str) -> Result<Option<Address>, StartError> {
    let kind = v.take(&format!("{prefix}.type"))?;
    let host = v.take(&format!("{prefix}.host"))?;
    let port = v.take(&format!("{prefix}.port"))?;
    let path = v.take(&format!("{prefix}.path"))?;
    let name = v.take(&format!("{prefix}.str"))?;
    let needs = |v: &KeyValues, what: &str| {
        v.error(format!("'{prefix}.type={}' needs {what}", kind.as_deref().unwrap_or_default()))
    };
    match kind.as_deref() {
        None if host.is_some() || port.is_some() || path.is_some() || name.is_some() => {
            Err(v.error(format!("needs {prefix}.type=inet, unix or fd")))
        }
        None => Ok(None),
        Some("inet") => {
            let (Some(host), Some(port)) = (host, port) else {
                return Err(needs(v, &format!("{prefix}.host= and {prefix}.port=")));
            };
            let number = parse_number(&port).and_then(|p| u16::try_from(p).ok());
            number
                .map(|port| Some(Address::Inet(host, port)))
                .ok_or_else(|| v.error(format!("'{prefix}.port={port}' is not a port")))
        }
        Some("unix") => match path.filter(|path| !path.is_empty()) {
            Some(path) => Ok(Some(Address::Unix(path.into()))),
            None => Err(needs(v, &format!("{prefix}.path="))),
        },
        Some("fd") => match name {
            Some(text) => Ok(Some(Address::Descriptor(descriptor(v, &format!("{prefix}.str"), &text)?))),
            None => Err(needs(v, &format!("{prefix}.str="))),
        },
        Some(other) => Err(v.error(format!("'{prefix}.type={other}': expected inet, unix or fd"))),
    }
}

/// Reads the properties of `-netdev stream`.
///
/// # Errors
/// No address, or one that cannot be.
pub fn parse_stream(v: &mut KeyValues) -> Result<StreamSpec, StartError> {
    let place = match take_address(v, "addr")? {
        Some(Address::Inet(host, port)) => StreamPlace::Inet(host, port),
        Some(Address::Unix(path)) => StreamPlace::Unix(path),
        Some(Address::Descriptor(number)) => StreamPlace::Descriptor(number),
        None => return Err(v.error("needs addr.type=inet, unix or fd")),
    };
    let server = v.take_bool("server")?.unwrap_or(false);
    let seconds = v.take_number("reconnect", 1 << 20)?.unwrap_or(0);
    let milliseconds = v.take_number("reconnect-ms", 1 << 30)?.unwrap_or(0);
    let reconnect = Duration::from_millis(seconds * 1000 + milliseconds);
    let reconnect = Some(reconnect).filter(|time| !time.is_zero());
    if server && reconnect.is_some() {
        return Err(v.error("'reconnect' does not go with server=on"));
    }
    Ok(StreamSpec { place, server, reconnect })
}

/// Reads the properties of `-netdev dgram`.
///
/// # Errors
/// No addresses, or such as do not go together.
pub fn parse_dgram(v: &mut KeyValues) -> Result<DatagramSpec, StartError> {
    let (local, remote) = (take_address(v, "local")?, take_address(v, "remote")?);
    let find = |v: &KeyValues, host: &str, port| resolve(host, port).map_err(|problem| v.error(problem));
    match (local, remote) {
        (Some(Address::Descriptor(number)), None) => Ok(DatagramSpec::Descriptor(number)),
        (Some(Address::Unix(local)), Some(Address::Unix(remote))) => Ok(DatagramSpec::Unix { local, remote }),
        (local @ (None | Some(Address::Inet(..))), Some(Address::Inet(host, port))) => {
            let remote = find(v, &host, port)?;
            let local = match local {
                Some(Address::Inet(host, port)) => Some(find(v, &host, port)?),
                _ => None,
            };
            Ok(match remote.ip().is_multicast() {
                true => DatagramSpec::Multicast { group: remote, local: local.map(|local| local.ip()) },
                false => DatagramSpec::Inet { local, remote },
            })
        }
        (None, None) => Err(v.error("needs remote.type=inet or unix, or local.type=fd")),
        _ => Err(v.error("'local' and 'remote' must be of one type, and both be given for unix")),
    }
}

/// Reads the properties of `-netdev tap`.
///
/// # Errors
/// Such as do not go together.
pub fn parse_tap(v: &mut KeyValues) -> Result<TapSpec, StartError> {
    let descriptor = match v.take("fd")? {
        Some(text) => Some(descriptor(v, "fd", &text)?),
        None => None,
    };
    let name = v.take("ifname")?.unwrap_or_default();
    if name.len() > 15 || name.contains(['/', ' ', '\0']) {
        return Err(v.error(format!("'ifname={name}' is not the name of an interface")));
    }
    let mut usual_script = descriptor.is_none();
    let mut script = |key: &str| -> Result<Option<PathBuf>, StartError> {
        let Some(path) = v.take(key)? else { return Ok(None) };
        usual_script &= key != "script";
        match path.as_str() {
            "no" | "" => Ok(None),
            _ if descriptor.is_some() => Err(v.error(format!("'{key}' does not go with fd="))),
            _ => Ok(Some(path.into())),
        }
    };
    let (script, down_script) = (script("script")?, script("downscript")?);
    if descriptor.is_some() && !name.is_empty() {
        return Err(v.error("'ifname' does not go with fd="));
    }
    if v.take_bool("vhost")? == Some(true) {
        return Err(v.error("'vhost=on' is not implemented: packets go through emu"));
    }
    for key in ["br", "helper", "fds", "queues"] {
        if v.take(key)?.is_some() {
            return Err(v.error(format!("'{key}' is not implemented; ifname= and fd= are")));
        }
    }
    Ok(TapSpec { descriptor, name, script, usual_script, down_script })
}
