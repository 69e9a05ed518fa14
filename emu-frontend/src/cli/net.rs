//! `-netdev`, `-nic`, `-net`, and `-object filter-dump`: which networks there are, and which cards of `-device` hang on them.
//!
//! `-nic` and `-net nic` become values of `-device`, so that a card is described in one way only. What `-net` adds hangs on one hub, as
//! in QEMU; a hub with just one card and one back end is a cable between them.

use super::cards;
use super::devices;
use super::error::{StartError, nearest};
use super::net_socket::{self, DatagramSpec, SocketSpec, StreamSpec, TapSpec};
use super::net_user;
use super::options::Options;
use super::value::KeyValues;
use crate::net::throttle::{LARGEST, Limits, NAMES};
use crate::net::user::config::UserConfig;
use std::path::PathBuf;

/// What `-netdev help` lists.
const TYPES: &[&str] = &["dgram", "hubport", "socket", "stream", "tap", "user"];
/// Cards that `-nic model=` may name, where they exist, and what `-device` calls them.
const MODELS: &[(&str, &str)] = &[
    ("e1000", "e1000"),
    ("ne2k_isa", "ne2k_isa"),
    ("ne2k_pci", "ne2k_pci"),
    ("virtio", "virtio-net-pci"),
    ("virtio-net-pci", "virtio-net-pci"),
];
/// The card of a PC if nothing else is said, as in QEMU.
const DEFAULT_MODEL: &str = "e1000";
/// Bytes of each frame that a capture keeps if nothing else is said.
const DUMP_LENGTH: u64 = 65536;

/// What a back end is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetKind {
    /// NAT.
    User(Box<UserConfig>),
    /// Frames over a stream.
    Stream(StreamSpec),
    /// Frames as datagrams.
    Datagram(DatagramSpec),
    /// An interface of the host.
    Tap(TapSpec),
    /// A port of the hub with this number, with a back end behind it instead of a card.
    Hub(u32, Option<String>),
}

/// One back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netdev {
    /// By which cards name it.
    pub id: String,
    /// What it is.
    pub kind: NetKind,
    /// How much of it the guest may have.
    pub limits: Limits,
    option: String,
    text: String,
}

impl Netdev {
    /// An error about this back end that names its option.
    pub fn error(&self, problem: impl Into<String>) -> StartError {
        StartError::value(&self.option, self.text.as_str(), problem)
    }
}

/// A capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpSpec {
    /// The back end whose frames are captured.
    pub netdev: String,
    /// Where to.
    pub file: PathBuf,
    /// Bytes of each frame that are kept.
    pub longest: u32,
    text: String,
}

impl DumpSpec {
    /// An error about this capture that names its option.
    pub fn error(&self, problem: impl Into<String>) -> StartError {
        StartError::value("object", self.text.as_str(), problem)
    }
}

/// All networks of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetConfig {
    /// The back ends.
    pub netdevs: Vec<Netdev>,
    /// The captures.
    pub dumps: Vec<DumpSpec>,
    /// Cards, as values of `-device`.
    pub devices: Vec<String>,
}

/// Checks all network options.
///
/// # Errors
/// The first that is wrong.
pub fn parse(options: &Options) -> Result<NetConfig, StartError> {
    let mut nets = NetConfig::default();
    for text in &options.netdev {
        let mut v = KeyValues::parse("netdev", text, "type");
        let kind = v.take("type")?.unwrap_or_default();
        let id = v.take("id")?.ok_or_else(|| v.error("needs id=ID"))?;
        nets.add(&mut v, "netdev", text, id, &kind)?;
        v.finish()?;
    }
    if options.nic.iter().any(|text| text == "none") && options.nic.len() > 1 {
        return Err(StartError::option("nic", "'none' does not go with further -nic"));
    }
    for text in options.nic.iter().filter(|text| *text != "none") {
        nets.nic(text)?;
    }
    nets.hub(options)?;
    if !options.nodefaults && options.netdev.is_empty() && options.nic.is_empty() && options.net.is_empty() {
        nets.nic("user")?;
    }
    nets.dumps(options)?;
    Ok(nets)
}

impl NetConfig {
    fn add(&mut self, v: &mut KeyValues, option: &str, text: &str, id: String, kind: &str) -> Result<(), StartError> {
        let kind = match kind {
            "user" => NetKind::User(Box::new(net_user::parse(v)?)),
            "socket" => match net_socket::parse_socket(v)? {
                SocketSpec::Stream(stream) => NetKind::Stream(stream),
                SocketSpec::Datagram(datagram) => NetKind::Datagram(datagram),
            },
            "stream" => NetKind::Stream(net_socket::parse_stream(v)?),
            "dgram" => NetKind::Datagram(net_socket::parse_dgram(v)?),
            "tap" => NetKind::Tap(net_socket::parse_tap(v)?),
            "hubport" => {
                let hub = v.take_number("hubid", u32::MAX.into())?.ok_or_else(|| v.error("needs hubid=NUMBER"))?;
                let behind = v.take("netdev")?;
                if let Some(id) = &behind {
                    self.find(id).map_err(|problem| v.error(problem))?;
                }
                NetKind::Hub(hub as u32, behind)
            }
            "" => return Err(v.error(format!("needs a back end: {}", TYPES.join(", ")))),
            other => {
                let near = match other {
                    "bridge" | "vhost-user" | "vhost-vdpa" | "vmnet-host" | "vmnet-shared" | "vmnet-bridged" => "tap",
                    "vde" | "l2tpv3" | "af-xdp" | "netmap" => "stream",
                    _ => nearest(other, TYPES.iter().copied()).unwrap_or("user"),
                };
                return Err(v.error(format!("'{other}' is not a network back end here; nearest is {near}")));
            }
        };
        let mut limits = Limits::default();
        for name in NAMES {
            if let Some(value) = v.take_number(&format!("throttling.{name}"), LARGEST)? {
                limits.set(name, value).map_err(|problem| v.error(problem))?;
            }
        }
        limits.check().map_err(|problem| v.error(problem))?;
        let plain = |id: &str| id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'));
        if id.is_empty() || option == "netdev" && !(id.starts_with(|c: char| c.is_ascii_alphabetic()) && plain(&id)) {
            return Err(v.error(format!(
                "'id={id}': an id begins with a letter, and consists of letters, digits, '-', '.' and '_'"
            )));
        }
        if self.find(&id).is_ok() {
            return Err(v.error(format!("duplicate netdev id '{id}'")));
        }
        self.netdevs.push(Netdev { id, kind, limits, option: option.into(), text: text.into() });
        Ok(())
    }

    fn find(&self, id: &str) -> Result<&Netdev, String> {
        self.netdevs.iter().find(|netdev| netdev.id == id).ok_or_else(|| {
            let hint = match nearest(id, self.netdevs.iter().map(|netdev| netdev.id.as_str())) {
                Some(near) => format!("; nearest is '{near}'"),
                None => String::new(),
            };
            format!("no -netdev has the id '{id}'{hint}")
        })
    }

    /// An id for a back end that its user has given none.
    fn free_id(&self) -> String {
        format!("#net{:03}", self.netdevs.len())
    }

    /// `-nic [TYPE][,model=][,mac=]...`: a card and its back end.
    fn nic(&mut self, text: &str) -> Result<(), StartError> {
        let mut v = KeyValues::parse("nic", text, "type");
        let kind = v.take("type")?.unwrap_or_else(|| "user".into());
        let model = v.take("model")?;
        let model = model_name(&v, model.as_deref())?;
        let mac = v.take("mac")?;
        let address = v.take("addr")?;
        let id = v.take("id")?.unwrap_or_else(|| self.free_id());
        self.add(&mut v, "nic", text, id.clone(), &kind)?;
        v.finish()?;
        self.card(&v, model, &id, mac.as_deref(), address.as_deref())
    }

    /// Adds a card to the values of `-device`.
    fn card(
        &mut self,
        v: &KeyValues,
        model: &str,
        netdev: &str,
        mac: Option<&str>,
        address: Option<&str>,
    ) -> Result<(), StartError> {
        let mut device = format!("{model},netdev={netdev}");
        if let Some(mac) = mac {
            if cards::parse_mac(mac).is_none() {
                let problem = format!("'mac={mac}' is not an Ethernet address of one station, as 52:54:00:12:34:56 is");
                return Err(v.error(problem));
            }
            device += &format!(",mac={mac}");
        }
        if let Some(address) = address {
            device += &format!(",addr={address}");
        }
        self.devices.push(device);
        Ok(())
    }

    /// `-net`: cards and back ends on one hub.
    fn hub(&mut self, options: &Options) -> Result<(), StartError> {
        let texts: Vec<&String> = options.net.iter().filter(|text| *text != "none").collect();
        if texts.len() != options.net.len() && options.net.len() > 1 {
            return Err(StartError::option("net", "'none' does not go with further -net"));
        }
        let mut cards = Vec::new();
        let mut ends = Vec::new();
        for text in texts {
            let mut v = KeyValues::parse("net", text, "type");
            let kind = v.take("type")?.unwrap_or_default();
            if kind != "nic" {
                // Its name was that of the hub's port in old times.
                v.take("name")?;
                let id = v.take("id")?.unwrap_or_else(|| self.free_id());
                self.add(&mut v, "net", text, id.clone(), &kind)?;
                v.finish()?;
                ends.push(id);
                continue;
            }
            let model = v.take("model")?;
            let model = model_name(&v, model.as_deref())?;
            let mac = v.take("macaddr")?;
            let address = v.take("addr")?;
            let netdev = v.take("netdev")?;
            v.take("id")?;
            v.take("name")?;
            v.finish()?;
            match netdev {
                Some(id) => {
                    self.find(&id).map_err(|problem| v.error(problem))?;
                    self.card(&v, model, &id, mac.as_deref(), address.as_deref())?;
                }
                None => cards.push((v, text.clone(), model, mac, address)),
            }
        }
        let direct = match (cards.len(), ends.as_slice()) {
            (1, [id]) => Some(id.clone()),
            _ => None,
        };
        if direct.is_none() {
            for id in ends {
                let (text, port) = (format!("hubport,hubid=0,netdev={id}"), NetKind::Hub(0, Some(id.clone())));
                let netdev = Netdev {
                    id: format!("hub0{id}"),
                    kind: port,
                    limits: Limits::default(),
                    option: "net".into(),
                    text,
                };
                self.netdevs.push(netdev);
            }
        }
        for (v, text, model, mac, address) in cards {
            let id = match &direct {
                Some(id) => id.clone(),
                None => {
                    let id = self.free_id();
                    let kind = NetKind::Hub(0, None);
                    self.netdevs.push(Netdev {
                        id: id.clone(),
                        kind,
                        limits: Limits::default(),
                        option: "net".into(),
                        text,
                    });
                    id
                }
            };
            self.card(&v, model, &id, mac.as_deref(), address.as_deref())?;
        }
        Ok(())
    }

    /// `-object filter-dump`.
    fn dumps(&mut self, options: &Options) -> Result<(), StartError> {
        for text in &options.object {
            let mut v = KeyValues::parse("object", text, "qom-type");
            if v.take("qom-type")?.as_deref() != Some("filter-dump") {
                continue;
            }
            let need =
                |value: Option<String>, key: &str| value.filter(|t| !t.is_empty()).ok_or_else(|| v_error(text, key));
            need(v.take("id")?, "id")?;
            let netdev = need(v.take("netdev")?, "netdev")?;
            let file = need(v.take("file")?, "file")?.into();
            let longest = v.take_number("maxlen", u32::MAX.into())?.unwrap_or(DUMP_LENGTH) as u32;
            v.finish()?;
            self.find(&netdev).map_err(|problem| v.error(problem))?;
            self.dumps.push(DumpSpec { netdev, file, longest, text: text.clone() });
        }
        Ok(())
    }
}

fn v_error(text: &str, key: &str) -> StartError {
    StartError::value("object", text, format!("needs {key}="))
}

/// What `-device` calls a model.
fn model_name(v: &KeyValues, model: Option<&str>) -> Result<&'static str, StartError> {
    let model = model.unwrap_or(DEFAULT_MODEL);
    let there = || MODELS.iter().filter(|(_, device)| devices::exists(device));
    match there().find(|(name, _)| *name == model) {
        Some((_, device)) => Ok(device),
        None => {
            let hint = match nearest(model, there().map(|(name, _)| *name)) {
                Some(near) => format!("nearest is '{near}'"),
                None => "-nic model=help lists what exists".into(),
            };
            Err(v.error(format!("no network card '{model}'; {hint}")))
        }
    }
}

/// What `-netdev help`, `-nic help` or `-nic model=help` prints, if one of them is given.
pub fn help(options: &Options) -> Option<String> {
    let all = || options.netdev.iter().chain(&options.nic).chain(&options.net);
    let asks = |key: &str| {
        all().any(|text| {
            KeyValues::parse("", text, "type").take(key).is_ok_and(|v| matches!(v.as_deref(), Some("help" | "?")))
        })
    };
    if asks("model") {
        let there = MODELS.iter().map(|(_, device)| *device).filter(|device| devices::exists(device));
        let mut models: Vec<&str> = there.collect();
        models.dedup();
        return Some(format!("Available NIC models:\n{}", models.iter().map(|m| format!("{m}\n")).collect::<String>()));
    }
    asks("type").then(|| format!("Available netdev backend types:\n{}\n", TYPES.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::net_socket::StreamPlace;

    fn nets(words: &[&str]) -> Result<NetConfig, String> {
        let options = Options::read(words.iter().map(Into::into)).map_err(|e| e.line())?;
        parse(&options).map_err(|e| e.line())
    }

    #[test]
    fn sockets_streams_and_datagrams_are_told_apart() {
        let kind = |text: &str| nets(&["-netdev", &format!("{text},id=n")]).unwrap().netdevs[0].kind.clone();
        let stream = |place, server, reconnect| NetKind::Stream(StreamSpec { place, server, reconnect });
        assert_eq!(kind("socket,listen=:1234"), stream(StreamPlace::Inet("".into(), 1234), true, None));
        assert_eq!(kind("socket,connect=127.0.0.1:1"), stream(StreamPlace::Inet("127.0.0.1".into(), 1), false, None));
        let unix = stream(StreamPlace::Unix("/x".into()), false, Some(std::time::Duration::from_secs(2)));
        assert_eq!(kind("stream,server=off,addr.type=unix,addr.path=/x,reconnect=2"), unix);
        let udp =
            DatagramSpec::Inet { local: Some("127.0.0.1:1".parse().unwrap()), remote: "127.0.0.1:2".parse().unwrap() };
        assert_eq!(kind("socket,udp=127.0.0.1:2,localaddr=127.0.0.1:1"), NetKind::Datagram(udp.clone()));
        let dgram = "dgram,local.type=inet,local.host=127.0.0.1,local.port=1,remote.type=inet,remote.host=127.0.0.1,remote.port=2";
        assert_eq!(kind(dgram), NetKind::Datagram(udp));
        let group = DatagramSpec::Multicast { group: "230.0.0.1:1234".parse().unwrap(), local: None };
        assert_eq!(kind("socket,mcast=230.0.0.1:1234"), NetKind::Datagram(group));
        let tap =
            TapSpec { descriptor: None, name: "tap0".into(), script: None, usual_script: false, down_script: None };
        assert_eq!(kind("tap,ifname=tap0,script=no,downscript=no"), NetKind::Tap(tap));
    }

    #[test]
    fn limits_are_read_as_those_of_disks() {
        let nets = nets(&["-netdev", "user,id=n,throttling.bps-total=1000,throttling.iops-read=5"]).unwrap();
        assert_eq!(nets.netdevs[0].limits.show(), "bps-total=1000,iops-read=5");
    }

    #[test]
    fn hub_ports_and_captures_name_back_ends_that_exist() {
        let nets = nets(&[
            "-netdev",
            "user,id=n",
            "-netdev",
            "hubport,id=h,hubid=3,netdev=n",
            "-object",
            "filter-dump,id=f,netdev=h,file=/tmp/x",
        ]);
        let nets = nets.unwrap();
        assert_eq!(nets.netdevs[1].kind, NetKind::Hub(3, Some("n".into())));
        assert_eq!((nets.dumps[0].netdev.as_str(), nets.dumps[0].longest), ("h", 65536));
    }

    #[test]
    fn wrong_back_ends_are_one_line_that_names_option_and_value() {
        for (text, problem) in [
            ("user", "needs id=ID"),
            ("user,id=9", "an id begins with a letter"),
            ("usr,id=n", "'usr' is not a network back end here; nearest is user"),
            ("bridge,id=n", "nearest is tap"),
            ("id=n", "needs a back end"),
            ("socket,id=n", "exactly one of"),
            ("socket,id=n,listen=x", "expected HOST:PORT"),
            ("socket,id=n,mcast=127.0.0.1:1", "not a multicast address"),
            ("socket,id=n,udp=127.0.0.1:1", "needs localaddr"),
            ("stream,id=n", "needs addr.type"),
            ("stream,id=n,addr.type=inet,addr.host=x", "needs addr.host= and addr.port="),
            ("stream,id=n,addr.type=unix,addr.path=x,server=on,reconnect=1", "does not go with server"),
            ("dgram,id=n", "needs remote.type"),
            ("dgram,id=n,remote.type=unix,remote.path=x", "must be of one type"),
            ("tap,id=n,fd=x", "not the number of an inherited descriptor"),
            ("tap,id=n,fd=3,ifname=t", "does not go with fd"),
            ("hubport,id=n", "needs hubid"),
            ("hubport,id=n,hubid=1,netdev=x", "no -netdev has the id 'x'"),
            ("user,id=n,throttling.bps-max=1", "unknown property"),
            ("user,id=n,throttling.bps-total-max=1", "require corresponding"),
            ("user,id=n,nett=10.0.0.0/8", "nearest is 'net'"),
        ] {
            let line = nets(&["-netdev", text]).unwrap_err();
            assert!(line.starts_with(&format!("-netdev {text}: ")) && line.contains(problem), "{line}");
        }
        assert!(
            nets(&["-netdev", "user,id=n", "-netdev", "user,id=n"]).unwrap_err().contains("duplicate netdev id 'n'")
        );
        assert!(nets(&["-nic", "none", "-nic", "user"]).is_err() && nets(&["-net", "none", "-net", "user"]).is_err());
        assert!(
            nets(&["-nic", "user,model=rtl8139"]).unwrap_err().starts_with("-nic user,model=rtl8139: no network card")
        );
    }
}
