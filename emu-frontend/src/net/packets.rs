//! Back ends that carry each frame as one packet: UDP, multicast, Unix datagrams (`-netdev dgram`, `socket,udp=`, `socket,mcast=`) and TAP
//! interfaces (`-netdev tap`). One thread each, which waits for the cable and the socket.

use super::cable::{ETHERNET_HEADER, FarEnd};
use super::{CABLE, PEER, inherited};
use crate::cli::net_socket::{DatagramSpec, TapSpec};
use crate::exit;
use emu_devices::net::LONGEST_FRAME;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll};
use rustix::net::{RecvFlags, SendFlags};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Packets that are moved one way before the other has its turn.
const TURN: usize = 128;
/// What sets interfaces up if nothing else is said, where there is such a file.
const USUAL_SCRIPT: &str = "/etc/qemu-ifup";

/// Something that sends and receives packets, without waiting.
pub enum Packets {
    /// To one address, and from whoever knows ours.
    Udp(UdpSocket, SocketAddr),
    /// To a group by one socket, and from it by another; who we are there, not to hear ourselves.
    Multicast { receiver: UdpSocket, sender: UdpSocket, group: SocketAddr, own: SocketAddr },
    /// To a path.
    Unix(UnixDatagram, PathBuf),
    /// A connected socket.
    Socket(OwnedFd),
    /// An interface.
    Tap(OwnedFd),
}

impl AsFd for Packets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Packets::Udp(socket, _) => socket.as_fd(),
            Packets::Multicast { receiver, .. } => receiver.as_fd(),
            Packets::Unix(socket, _) => socket.as_fd(),
            Packets::Socket(socket) | Packets::Tap(socket) => socket.as_fd(),
        }
    }
}

impl Packets {
    /// Opens what `spec` describes.
    ///
    /// # Errors
    /// What the host does not allow, in one line.
    pub fn datagram(spec: &DatagramSpec) -> Result<Packets, String> {
        let at =
            |what: &str, place: String, e: io::Error| format!("cannot {what} {place}: {}", crate::monitor::reason(&e));
        match spec {
            DatagramSpec::Inet { local, remote } => {
                let any = SocketAddr::new(
                    if remote.is_ipv4() {
                        Ipv4Addr::UNSPECIFIED.into()
                    } else {
                        IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)
                    },
                    0,
                );
                let local = local.unwrap_or(any);
                let socket = UdpSocket::bind(local).map_err(|e| at("listen at", format!("udp:{local}"), e))?;
                quicken(&socket)?;
                Ok(Packets::Udp(socket, *remote))
            }
            DatagramSpec::Multicast { group, local } => {
                multicast(*group, *local).map_err(|e| at("join", group.to_string(), e))
            }
            DatagramSpec::Unix { local, remote } => {
                let socket = bind_unix(local).map_err(|e| at("listen at", format!("unix:{}", local.display()), e))?;
                quicken(&socket)?;
                Ok(Packets::Unix(socket, remote.clone()))
            }
            DatagramSpec::Descriptor(number) => {
                let socket = inherited(*number)?;
                match rustix::net::sockopt::socket_type(&socket) {
                    Ok(rustix::net::SocketType::DGRAM | rustix::net::SocketType::SEQPACKET) => {}
                    _ => return Err(format!("descriptor {number} is not a datagram socket")),
                }
                quicken(&socket)?;
                Ok(Packets::Socket(socket))
            }
        }
    }

    /// Opens an interface. Its name, too.
    ///
    /// # Errors
    /// What the host does not allow, in one line.
    #[cfg(target_os = "linux")]
    pub fn tap(spec: &TapSpec) -> Result<Packets, String> {
        use smoltcp::phy::{Medium, TunTapInterface};
        if let Some(number) = spec.descriptor {
            let tap = inherited(number)?;
            quicken(&tap)?;
            return Ok(Packets::Tap(tap));
        }
        // The kernel numbers a name with %d in it.
        let name = if spec.name.is_empty() { "tap%d" } else { &spec.name };
        let opened = TunTapInterface::new(name, Medium::Ethernet);
        let interface =
            opened.map_err(|e| format!("cannot open the TAP interface '{name}': {}", crate::monitor::reason(&e)))?;
        // smoltcp's own reading and writing ends in a panic when an interface goes down.
        let tap = inherited(interface.as_raw_fd())?;
        quicken(&tap)?;
        let usual = Path::new(USUAL_SCRIPT);
        if let Some(script) = spec.script.as_deref().or((spec.usual_script && usual.exists()).then_some(usual)) {
            run_script(script, name)?;
        }
        if let Some(script) = spec.down_script.clone() {
            let name = name.to_string();
            exit::at_exit(move |_| {
                if let Err(problem) = run_script(&script, &name) {
                    crate::report::complain(&problem);
                }
            });
        }
        Ok(Packets::Tap(tap))
    }

    /// There are TAP interfaces on Linux only.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(target_os = "linux"))]
    pub fn tap(_: &TapSpec) -> Result<Packets, String> {
        Err("TAP interfaces are implemented on Linux only".into())
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        match self {
            Packets::Udp(socket, remote) => socket.send_to(frame, remote).map(drop),
            Packets::Multicast { sender, group, .. } => sender.send_to(frame, group).map(drop),
            Packets::Unix(socket, remote) => socket.send_to(frame, remote).map(drop),
            Packets::Socket(socket) => Ok(rustix::net::send(socket, frame, SendFlags::NOSIGNAL).map(drop)?),
            Packets::Tap(tap) => Ok(rustix::io::write(tap, frame).map(drop)?),
        }
    }

    /// The length of the next packet, which is in `buffer` then.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Packets::Udp(socket, _) => socket.recv(buffer),
            Packets::Multicast { receiver, own, .. } => {
                let (len, from) = receiver.recv_from(buffer)?;
                Ok(if from == *own { 0 } else { len })
            }
            Packets::Unix(socket, _) => socket.recv(buffer),
            Packets::Socket(socket) => Ok(rustix::net::recv(socket, buffer, RecvFlags::empty())?.0),
            Packets::Tap(tap) => Ok(rustix::io::read(tap, buffer)?),
        }
    }

    /// Carries frames until the other end of the cable is gone. The cable's waker is that of `poll`.
    pub fn run(self, mut far: FarEnd, mut poll: Poll) {
        let mut events = Events::with_capacity(8);
        if let Err(e) = poll.registry().register(&mut SourceFd(&self.as_fd().as_raw_fd()), PEER, Interest::READABLE) {
            return tracing::warn!("the network has ended: {e}");
        }
        let mut buffer = vec![0; LONGEST_FRAME];
        let mut readable = true;
        while !far.near_is_gone() {
            let mut more = TURN;
            while more > 0
                && let Some(frame) = far.next()
            {
                // Packets that nobody takes are lost, as on a cable.
                let _ = self.send(&frame);
                far.recycle(frame);
                more -= 1;
            }
            let mut room = TURN;
            while readable && room > 0 && far.room() > 0 {
                match self.receive(&mut buffer) {
                    Ok(len @ ETHERNET_HEADER..) => {
                        let mut frame = far.buffer();
                        frame.extend_from_slice(&buffer[..len]);
                        far.deliver(frame);
                    }
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                    // Nothing there, or the interface is down: an event tells of the next packet.
                    Err(_) => readable = false,
                }
                room -= 1;
            }
            let sleep = far.sleep_until().map(|until| until.saturating_duration_since(std::time::Instant::now()));
            let busy = more == 0 || room == 0;
            let wait = if busy { Some(std::time::Duration::ZERO) } else { sleep };
            match poll.poll(&mut events, wait) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                    return tracing::warn!("the network has ended: {e}");
                }
                _ => readable |= events.iter().any(|event| event.token() == PEER && CABLE != PEER),
            }
        }
    }
}

/// Nothing that is read or written waits.
fn quicken(socket: &impl AsFd) -> Result<(), String> {
    rustix::io::ioctl_fionbio(socket, true).map_err(|e| format!("cannot use the socket: {e}"))
}

fn bind_unix(path: &Path) -> io::Result<UnixDatagram> {
    // What an earlier run has left there would be in the way.
    if UnixDatagram::unbound()?.connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
        std::fs::remove_file(path)?;
    }
    let socket = UnixDatagram::bind(path)?;
    exit::remove_at_exit(path);
    Ok(socket)
}

fn multicast(group: SocketAddr, local: Option<IpAddr>) -> io::Result<Packets> {
    use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};
    let family = if group.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    // Several machines of one host are in the group, by one port.
    let receiver = socket(family, SocketType::DGRAM, None)?;
    sockopt::set_socket_reuseaddr(&receiver, true)?;
    bind(&receiver, &group)?;
    let receiver = UdpSocket::from(receiver);
    let any =
        if group.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED) };
    let sender = UdpSocket::bind(SocketAddr::new(local.unwrap_or(any), 0))?;
    match (group.ip(), local) {
        (IpAddr::V4(address), local) => {
            let interface = match local {
                Some(IpAddr::V4(local)) => local,
                _ => Ipv4Addr::UNSPECIFIED,
            };
            receiver.join_multicast_v4(&address, &interface)?;
            sockopt::set_ip_multicast_if(&sender, &interface)?;
            sender.set_multicast_loop_v4(true)?;
        }
        (IpAddr::V6(address), _) => {
            receiver.join_multicast_v6(&address, 0)?;
            sender.set_multicast_loop_v6(true)?;
        }
    }
    // Which of the host's addresses is the source is known when somebody is connected to.
    let probe = UdpSocket::bind(SocketAddr::new(local.unwrap_or(any), 0))?;
    let source = probe.connect(group).and_then(|()| probe.local_addr()).map(|a| a.ip()).unwrap_or(any);
    let own = SocketAddr::new(source, sender.local_addr()?.port());
    receiver.set_nonblocking(true)?;
    sender.set_nonblocking(true)?;
    Ok(Packets::Multicast { receiver, sender, group, own })
}

#[cfg(target_os = "linux")]
fn run_script(script: &Path, interface: &str) -> Result<(), String> {
    match Command::new(script).arg(interface).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the script '{}' has ended with {status}", script.display())),
        Err(e) => Err(format!("cannot run the script '{}': {}", script.display(), crate::monitor::reason(&e))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tests::{end_of, wait_for};
    use emu_devices::net::NetBackend as _;

    fn talk(mut one: impl FnMut(&[u8]), mut other: impl FnMut() -> Option<Vec<u8>>) {
        for n in 1..=20u8 {
            let frame = vec![n; 60 + usize::from(n) * 70];
            one(&frame);
            assert_eq!(wait_for(&mut other), frame);
        }
    }

    fn pair(a: &str, b: &str) {
        let (mut a, mut b) = (end_of(a), end_of(b));
        let take = |end: &mut dyn emu_devices::net::NetBackend| {
            let mut frame = Vec::new();
            end.receive(&mut frame).then_some(frame)
        };
        talk(|frame| assert!(a.send(frame)), || take(&mut b));
        talk(|frame| assert!(b.send(frame)), || take(&mut a));
        assert!(take(&mut a).is_none() && take(&mut b).is_none());
    }

    /// Two ports of the host that nobody has now.
    fn ports() -> [u16; 2] {
        let sockets = [(), ()].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        sockets.map(|socket| socket.local_addr().unwrap().port())
    }

    #[test]
    fn frames_go_over_udp_as_qemu_sends_them() {
        let [a, b] = ports();
        let socket = |local, remote| format!("socket,id=n,udp=127.0.0.1:{remote},localaddr=127.0.0.1:{local}");
        pair(&socket(a, b), &socket(b, a));
        let [a, b] = ports();
        let dgram = |local, remote| {
            format!(
                "dgram,id=n,local.type=inet,local.host=127.0.0.1,local.port={local},remote.type=inet,remote.host=127.0.0.1,remote.port={remote}"
            )
        };
        pair(&dgram(a, b), &dgram(b, a));
    }

    #[test]
    fn frames_go_over_unix_sockets_and_paths_of_dead_runs_are_taken_over() {
        let folder = std::env::temp_dir();
        let [a, b] = ["a", "b"].map(|name| folder.join(format!("emu-net-{name}-{}", std::process::id())));
        drop(UnixDatagram::bind(&a).unwrap());
        let dgram = |local: &Path, remote: &Path| {
            format!(
                "dgram,id=n,local.type=unix,local.path={},remote.type=unix,remote.path={}",
                local.display(),
                remote.display()
            )
        };
        pair(&dgram(&a, &b), &dgram(&b, &a));
        for path in [a, b] {
            std::fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn members_of_a_group_hear_each_other_and_not_themselves() {
        let [port, _] = ports();
        let member = format!("socket,id=n,mcast=239.192.0.7:{port},localaddr=127.0.0.1");
        pair(&member, &member);
    }
}
