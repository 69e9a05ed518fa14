//! Network back ends: what is at the far end of the cables in the machine's network cards.
//!
//! Each has a thread, which talks to the host by sockets ([`user`], [`stream`], [`packets`]) and to the card by a [`cable`]. Here they are
//! opened from their descriptions, given to the cards that name them, and kept in view for monitors.

pub mod cable;
mod dump;
mod hub;
mod packets;
mod stream;
pub mod throttle;
pub mod user;

use crate::cli::error::StartError;
use crate::cli::net::{NetConfig, NetKind, Netdev};
use cable::{FarEnd, NearEnd, Plug};
use dump::Dump;
use emu_devices::net::NetBackend;
use hub::Port;
use mio::{Poll, Token, Waker};
use packets::Packets;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use stream::FrameStream;
use user::{UserHandle, UserNetwork};

/// By which a cable wakes the thread of its back end.
const CABLE: Token = user::CABLE;
/// What a back end with just one socket calls it.
const PEER: Token = Token(1);

/// A back end as monitors see it.
pub struct Link {
    /// Its id.
    pub id: String,
    /// What it is, as `info network` shows it.
    pub about: String,
    /// The hub that it is a port of.
    pub hub: Option<u32>,
    /// Its cable.
    pub plug: Plug,
    /// Its forwarded ports and connections.
    pub user: Option<UserHandle>,
    card: Mutex<Option<Card>>,
}

/// The card that a back end is plugged into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its id.
    pub name: String,
    /// As `info network` shows it.
    pub about: String,
}

impl Link {
    /// The card that it is plugged into.
    pub fn card(&self) -> Option<Card> {
        self.card.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// All back ends of a machine, those that no card has taken yet among them.
#[derive(Default)]
pub struct Networks {
    ends: BTreeMap<String, NearEnd>,
    links: Vec<Arc<Link>>,
}

impl Networks {
    /// Opens everything that `config` describes.
    ///
    /// # Errors
    /// What the host does not allow.
    pub fn open(config: &NetConfig) -> Result<Networks, StartError> {
        let mut networks = Networks::default();
        let mut hubs: BTreeMap<u32, (Poll, Arc<Waker>, Vec<Port>)> = BTreeMap::new();
        for netdev in &config.netdevs {
            let system = |e: io::Error| netdev.error(format!("cannot start the network: {e}"));
            let new_poll = || -> io::Result<(Poll, Arc<Waker>)> {
                let poll = Poll::new()?;
                let waker = Arc::new(Waker::new(poll.registry(), CABLE)?);
                Ok((poll, waker))
            };
            let NetKind::Hub(number, behind) = &netdev.kind else {
                let (poll, waker) = new_poll().map_err(system)?;
                let (near, far) = cable::cable(waker.clone(), netdev.limits);
                let far = add_dumps(config, &netdev.id, far)?;
                let user = start(netdev, far, poll, waker)?;
                if user.is_some() {
                    near.allow_long_packets();
                }
                networks.add(netdev, near, None, user);
                continue;
            };
            if !hubs.contains_key(number) {
                let (poll, waker) = new_poll().map_err(system)?;
                hubs.insert(*number, (poll, waker, Vec::new()));
            }
            let Some((_, waker, ports)) = hubs.get_mut(number) else { continue };
            match behind {
                Some(id) => {
                    let near = networks.ends.remove(id);
                    let near = near.ok_or_else(|| netdev.error(format!("the back end '{id}' is in use already")))?;
                    near.set_waker(waker.clone());
                    if let Some(link) = networks.links.iter_mut().find(|link| link.id == *id).and_then(Arc::get_mut) {
                        link.hub = Some(*number);
                    }
                    ports.push(Port::Backend(near));
                }
                None => {
                    let (near, far) = cable::cable(waker.clone(), netdev.limits);
                    ports.push(Port::Card(Box::new(add_dumps(config, &netdev.id, far)?)));
                    networks.add(netdev, near, Some(*number), None);
                }
            }
        }
        for (number, (poll, _, ports)) in hubs {
            let name = format!("hub {number}");
            spawn(&name, move || hub::run(ports, poll))
                .map_err(|e| StartError::Other(format!("cannot start {name}: {e}")))?;
        }
        Ok(networks)
    }

    fn add(&mut self, netdev: &Netdev, near: NearEnd, hub: Option<u32>, user: Option<UserHandle>) {
        let (about, plug) = (netdev.show(), near.plug());
        self.links.push(Arc::new(Link { id: netdev.id.clone(), about, hub, plug, user, card: Mutex::new(None) }));
        self.ends.insert(netdev.id.clone(), near);
    }

    /// The back end `id`, for the card called `name`, which is `about`.
    ///
    /// # Errors
    /// There is none, or another card has it.
    pub fn take(&mut self, id: &str, name: &str, about: &str) -> Result<Box<dyn NetBackend>, String> {
        let Some(link) = self.links.iter().find(|link| link.id == id) else {
            let hint = match crate::cli::error::nearest(id, self.links.iter().map(|link| link.id.as_str())) {
                Some(near) => format!("; nearest is '{near}'"),
                None => String::new(),
            };
            return Err(format!("no -netdev has the id '{id}'{hint}"));
        };
        let near = self.ends.remove(id).ok_or_else(|| format!("the back end '{id}' is in use already"))?;
        let card = Card { name: name.into(), about: about.into() };
        *link.card.lock().unwrap_or_else(PoisonError::into_inner) = Some(card);
        Ok(Box::new(near))
    }

    /// Ends those back ends that no card has taken, and names them.
    pub fn end_unused(&mut self) -> Vec<String> {
        std::mem::take(&mut self.ends).into_keys().collect()
    }

    /// All back ends, for monitors.
    pub fn links(&self) -> Vec<Arc<Link>> {
        self.links.clone()
    }
}

fn add_dumps(config: &NetConfig, id: &str, mut far: FarEnd) -> Result<FarEnd, StartError> {
    for spec in config.dumps.iter().filter(|dump| dump.netdev == id) {
        let dump = Dump::create(&spec.file, spec.longest);
        far.add_dump(dump.map_err(|e| {
            spec.error(format!("cannot write '{}': {}", spec.file.display(), crate::monitor::reason(&e)))
        })?);
    }
    Ok(far)
}

/// Opens a back end and starts its thread.
fn start(netdev: &Netdev, far: FarEnd, poll: Poll, waker: Arc<Waker>) -> Result<Option<UserHandle>, StartError> {
    let problem = |problem: String| netdev.error(problem);
    let name = format!("net {}", netdev.id);
    let mut user = None;
    let started = match &netdev.kind {
        NetKind::User(config) => {
            let (network, handle) = UserNetwork::new((**config).clone(), far, poll, waker).map_err(problem)?;
            user = Some(handle);
            spawn(&name, move || network.run())
        }
        NetKind::Stream(spec) => {
            let stream = FrameStream::open(spec).map_err(problem)?;
            spawn(&name, move || stream.run(far, poll))
        }
        NetKind::Datagram(spec) => {
            let packets = Packets::datagram(spec).map_err(problem)?;
            spawn(&name, move || packets.run(far, poll))
        }
        NetKind::Tap(spec) => {
            let packets = Packets::tap(spec).map_err(problem)?;
            spawn(&name, move || packets.run(far, poll))
        }
        NetKind::Hub(..) => Ok(()),
    };
    started.map_err(|e| netdev.error(format!("cannot start the network's thread: {e}")))?;
    Ok(user)
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(body).map(drop)
}

/// A descriptor that emu has been started with.
///
/// # Errors
/// There is none of this number, in one line.
#[cfg(target_os = "linux")]
fn inherited(number: i32) -> Result<OwnedFd, String> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    // Of all ways to a descriptor by its number, the one that needs no unsafe code.
    let own = pidfd_open(getpid(), PidfdFlags::empty());
    let found = own.and_then(|own| pidfd_getfd(own, number, PidfdGetfdFlags::empty()));
    found.map_err(|e| format!("descriptor {number}: {}", crate::monitor::reason(&e.into())))
}

#[cfg(not(target_os = "linux"))]
fn inherited(number: i32) -> Result<OwnedFd, String> {
    Err(format!("descriptor {number}: inherited descriptors are implemented on Linux only"))
}

impl Netdev {
    /// As `info network` shows it.
    pub fn show(&self) -> String {
        use crate::cli::net_socket::{DatagramSpec, StreamPlace};
        match &self.kind {
            NetKind::User(config) => {
                format!("type=user,net={},restrict={}", config.network, if config.restrict { "on" } else { "off" })
            }
            NetKind::Stream(spec) => {
                let way = if spec.server { "server" } else { "client" };
                match &spec.place {
                    StreamPlace::Inet(host, port) => format!("type=stream,{way},{host}:{port}"),
                    StreamPlace::Unix(path) => format!("type=stream,{way},unix:{}", path.display()),
                    StreamPlace::Descriptor(number) => format!("type=stream,fd={number}"),
                }
            }
            NetKind::Datagram(spec) => match spec {
                DatagramSpec::Inet { remote, .. } => format!("type=dgram,udp={remote}"),
                DatagramSpec::Multicast { group, .. } => format!("type=dgram,mcast={group}"),
                DatagramSpec::Unix { remote, .. } => format!("type=dgram,unix={}", remote.display()),
                DatagramSpec::Descriptor(number) => format!("type=dgram,fd={number}"),
            },
            NetKind::Tap(spec) => match spec.descriptor {
                Some(number) => format!("type=tap,fd={number}"),
                None => format!("type=tap,ifname={}", spec.name),
            },
            NetKind::Hub(number, _) => format!("type=hubport,hubid={number}"),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::cli::options::Options;
    use std::time::{Duration, Instant};

    /// The networks of a command line.
    pub fn open(words: &[&str]) -> Result<Networks, String> {
        let options = Options::read(words.iter().map(Into::into)).map_err(|e| e.line())?;
        let config = crate::cli::net::parse(&options).map_err(|e| e.line())?;
        Networks::open(&config).map_err(|e| e.line())
    }

    /// The end of the back end `n` that a card would have.
    pub fn end_of(netdev: &str) -> NearEnd {
        open(&["-netdev", netdev]).unwrap().ends.remove("n").unwrap()
    }

    /// What `f` comes to have, some seconds at most.
    pub fn wait_for<T>(mut f: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = f() {
                return found;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "nothing has come");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn back_end_is_taken_once_and_those_that_are_left_are_named() {
        let mut networks = open(&["-netdev", "user,id=a", "-netdev", "user,id=b"]).unwrap();
        assert!(networks.take("a", "nic", "").is_ok());
        assert_eq!(networks.take("a", "nic2", "").err().unwrap(), "the back end 'a' is in use already");
        assert_eq!(networks.take("c", "nic2", "").err().unwrap(), "no -netdev has the id 'c'");
        assert_eq!(networks.links()[0].card().unwrap().name, "nic");
        assert_eq!(networks.end_unused(), ["b"]);
    }

    #[test]
    fn hub_takes_a_back_end_from_cards() {
        let words =
            ["-netdev", "user,id=u", "-netdev", "hubport,id=p,hubid=1", "-netdev", "hubport,id=h,hubid=1,netdev=u"];
        let mut networks = open(&words).unwrap();
        assert!(networks.take("u", "nic", "").is_err() && networks.take("p", "nic", "").is_ok());
        assert_eq!(networks.links()[0].hub, Some(1));
    }

    #[test]
    fn capture_is_a_file_that_others_read() {
        let path = std::env::temp_dir().join(format!("emu-dump-{}.pcap", std::process::id()));
        let dump = format!("filter-dump,id=f,netdev=n,file={},maxlen=100", path.display());
        let mut networks = open(&["-netdev", "user,id=n", "-object", &dump]).unwrap();
        let mut end = networks.take("n", "nic", "").unwrap();
        // Who has 10.0.2.2?
        let mut arp = vec![0xff; 6];
        arp.extend([
            2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2,
            2,
        ]);
        arp.resize(120, 0);
        assert!(end.send(&arp));
        let mut reply = Vec::new();
        wait_for(|| end.receive(&mut reply).then_some(()));
        let file = wait_for(|| std::fs::read(&path).ok().filter(|file| file.len() == 24 + 16 + 100 + 16 + reply.len()));
        assert_eq!(file[..4], 0xa1b2_c3d4u32.to_ne_bytes());
        assert_eq!(
            (&file[32..40], &file[40..140]),
            (&[100u32.to_ne_bytes(), 120u32.to_ne_bytes()].concat()[..], &arp[..100])
        );
        assert_eq!(file[156..], reply);
        std::fs::remove_file(path).unwrap();
        let line =
            open(&["-netdev", "user,id=n", "-object", "filter-dump,id=f,netdev=n,file=/nonexistent/x"]).err().unwrap();
        assert!(line.contains("cannot write '/nonexistent/x': No such file"), "{line}");
    }
}
