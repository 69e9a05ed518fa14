//! A guest with smoltcp's stack, at the other end of the cable of a real network with real sockets.

use super::config::{GuestForward, GuestTarget};
use super::*;
use crate::net::cable::{NearEnd, cable};
use crate::net::throttle::Limits;
use emu_devices::net::NetBackend as _;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{dhcpv4, tcp, udp as guest_udp};
use smoltcp::time::Instant as GuestTime;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, IpEndpoint, Ipv4Address};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream, UdpSocket};

mod hostile;

const PATIENCE: Duration = Duration::from_secs(60);
const GUEST_MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

fn start(config: UserConfig) -> (NearEnd, UserHandle) {
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), CABLE).unwrap());
    let (near, far) = cable(waker.clone(), Limits::default());
    let (network, handle) = UserNetwork::new(config, far, poll, waker).unwrap();
    std::thread::spawn(move || network.run());
    (near, handle)
}

/// A network whose name server is ours, so that no test asks the host's.
fn config() -> UserConfig {
    UserConfig { resolver: Some("127.0.0.1:9".parse().unwrap()), ..UserConfig::default() }
}

/// The guest's NIC.
struct Nic(NearEnd);

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Sending<'a>(&'a mut NearEnd);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.send(&frame);
        result
    }
}

impl Device for Nic {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: GuestTime) -> Option<(Received, Sending<'_>)> {
        let mut frame = Vec::new();
        self.0.receive(&mut frame).then_some((Received(frame), Sending(&mut self.0)))
    }

    fn transmit(&mut self, _: GuestTime) -> Option<Sending<'_>> {
        Some(Sending(&mut self.0))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

struct Guest {
    nic: Nic,
    interface: Interface,
    sockets: SocketSet<'static>,
    port: u16,
}

impl Guest {
    fn without_address(near: NearEnd) -> Guest {
        let mut nic = Nic(near);
        let interface = Interface::new(Config::new(HardwareAddress::Ethernet(GUEST_MAC)), &mut nic, GuestTime::now());
        Guest { nic, interface, sockets: SocketSet::new(Vec::new()), port: 49152 }
    }

    fn new(near: NearEnd) -> Guest {
        let mut guest = Guest::without_address(near);
        guest.interface.update_ip_addrs(|all| {
            all.push(IpCidr::new(IpAddress::v4(10, 0, 2, 15), 24)).unwrap();
            all.push(IpCidr::new(IpAddress::v6(0xfec0, 0, 0, 0, 0, 0, 0, 0x15), 64)).unwrap();
        });
        guest.interface.routes_mut().add_default_ipv4_route(Ipv4Address::new(10, 0, 2, 2)).unwrap();
        guest
    }

    fn poll(&mut self) {
        self.interface.poll(GuestTime::now(), &mut self.nic, &mut self.sockets);
    }

    /// Lets the guest work until `f` has something.
    fn until<T>(&mut self, what: &str, mut f: impl FnMut(&mut Guest) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            self.poll();
            if let Some(found) = f(self) {
                return found;
            }
            assert!(start.elapsed() < PATIENCE, "{what}");
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    fn add_tcp(&mut self) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 256 << 10]);
        self.sockets.add(tcp::Socket::new(buffer(), buffer()))
    }

    fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    fn connect(&mut self, to: &str) -> SocketHandle {
        let handle = self.add_tcp();
        let to: SocketAddr = to.parse().unwrap();
        self.port += 1;
        let port = self.port;
        let socket = self.sockets.get_mut::<tcp::Socket>(handle);
        socket.connect(self.interface.context(), IpEndpoint::from(to), port).unwrap();
        handle
    }

    /// A UDP socket that has sent `data`.
    fn send_udp(&mut self, to: &str, data: &[u8]) -> SocketHandle {
        let buffer = || guest_udp::PacketBuffer::new(vec![guest_udp::PacketMetadata::EMPTY; 64], vec![0; 1 << 16]);
        let handle = self.sockets.add(guest_udp::Socket::new(buffer(), buffer()));
        self.port += 1;
        let port = self.port;
        let socket = self.sockets.get_mut::<guest_udp::Socket>(handle);
        socket.bind(port).unwrap();
        socket.send_slice(data, IpEndpoint::from(to.parse::<SocketAddr>().unwrap())).unwrap();
        handle
    }

    fn receive_udp(&mut self, handle: SocketHandle) -> (Vec<u8>, SocketAddr) {
        self.until("a datagram", |guest| {
            let socket = guest.sockets.get_mut::<guest_udp::Socket>(handle);
            let (data, meta) = socket.recv().ok()?;
            Some((data.to_vec(), SocketAddr::new(meta.endpoint.addr.into(), meta.endpoint.port)))
        })
    }

    /// Sends all of `data` over a connection, and receives until the other end has said all.
    fn exchange(&mut self, handle: SocketHandle, data: &[u8]) -> Vec<u8> {
        let (mut sent, mut received) = (0, Vec::new());
        self.until("the end of a connection", |guest| {
            let socket = guest.tcp(handle);
            if socket.can_send() && sent < data.len() {
                sent += socket.send_slice(&data[sent..]).unwrap();
            }
            if sent == data.len() && socket.may_send() {
                socket.close();
            }
            while socket.can_recv() {
                socket
                    .recv(|bytes| {
                        received.extend_from_slice(bytes);
                        (bytes.len(), ())
                    })
                    .unwrap();
            }
            (sent == data.len()
                && !socket.may_recv()
                && !matches!(socket.state(), tcp::State::SynSent | tcp::State::SynReceived))
            .then_some(())
        });
        received
    }
}

fn data(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    bytes
}

/// A server of one client: sends `answer`, all the while taking what comes; that at the end.
fn serve(listener: std::net::TcpListener, answer: Vec<u8>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        talk(stream, answer)
    })
}

fn talk(mut stream: TcpStream, answer: Vec<u8>) -> Vec<u8> {
    let mut writer = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        writer.write_all(&answer).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    sender.join().unwrap();
    received
}

#[test]
fn guest_gets_its_address_by_dhcp() {
    let (near, _handle) = start(config());
    let mut guest = Guest::without_address(near);
    let handle = guest.sockets.add(dhcpv4::Socket::new());
    let lease = guest.until("a lease", |guest| match guest.sockets.get_mut::<dhcpv4::Socket>(handle).poll() {
        Some(dhcpv4::Event::Configured(config)) => {
            Some((config.address.to_string(), config.router.map(|r| r.to_string()), config.dns_servers.to_vec()))
        }
        _ => None,
    });
    assert_eq!(lease, ("10.0.2.15/24".into(), Some("10.0.2.2".into()), vec![Ipv4Address::new(10, 0, 2, 3)]));
}

#[test]
fn mebibytes_go_both_ways_at_once_over_ipv4_and_ipv6() {
    for (host, gateway) in [("127.0.0.1:0", "10.0.2.2"), ("[::1]:0", "[fec0::2]")] {
        let listener = std::net::TcpListener::bind(host).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (near, handle) = start(config());
        let mut guest = Guest::new(near);
        let (up, down) = (data(8 << 20, 1), data(8 << 20, 2));
        let server = serve(listener, down.clone());
        let connection = guest.connect(&format!("{gateway}:{port}"));
        let received = guest.exchange(connection, &up);
        assert!(received == down && server.join().unwrap() == up, "{gateway}");
        guest.until("the end", |guest| {
            let state = guest.tcp(connection).state();
            matches!(state, tcp::State::Closed | tcp::State::TimeWait).then_some(())
        });
        assert!(!handle.show().contains("ESTABLISHED"), "{}", handle.show());
    }
}

#[test]
fn host_reaches_the_guest_by_a_forwarded_port() {
    let forward = Forward { udp: false, host: "127.0.0.1:0".parse().unwrap(), guest: "10.0.2.15:7".parse().unwrap() };
    let (near, handle) = start(UserConfig { forwards: vec![forward], ..config() });
    let mut guest = Guest::new(near);
    let shown = handle.show();
    let port: u16 = shown.lines().nth(1).unwrap().split_whitespace().nth(3).unwrap().parse().unwrap();
    assert!(shown.contains("TCP[HOST_FORWARD]") && shown.contains("10.0.2.15     7"), "{shown}");
    let (up, down) = (data(4 << 20, 3), data(4 << 20, 4));
    let server = guest.add_tcp();
    guest.tcp(server).listen(7).unwrap();
    // Nobody knows the guest's station yet: it has said nothing.
    let (sent, expected) = (down.clone(), up.clone());
    let client = std::thread::spawn(move || {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert!(talk(stream, sent) == expected);
    });
    assert!(guest.exchange(server, &up) == down);
    client.join().unwrap();
    assert!(handle.remove(false, ("127.0.0.1".parse::<IpAddr>().unwrap(), port).into()));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn udp_port_of_the_guest_answers_who_has_asked() {
    let (near, handle) = start(config());
    handle
        .add(Forward { udp: true, host: "127.0.0.1:0".parse().unwrap(), guest: "10.0.2.15:49153".parse().unwrap() })
        .unwrap();
    let mut guest = Guest::new(near);
    let shown = handle.show();
    let port: u16 = shown.lines().nth(1).unwrap().split_whitespace().nth(3).unwrap().parse().unwrap();
    // What the guest sends first makes its station known.
    let socket = guest.send_udp("10.0.2.2:9", b"");
    guest.poll();
    let clients = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    for client in &clients {
        client.send_to(b"question", ("127.0.0.1", port)).unwrap();
        let (question, from) = guest.receive_udp(socket);
        assert_eq!(
            (question.as_slice(), from),
            (&b"question"[..], SocketAddr::new(Ipv4Addr::new(10, 0, 2, 2).into(), client.local_addr().unwrap().port()))
        );
        guest.sockets.get_mut::<guest_udp::Socket>(socket).send_slice(b"answer", IpEndpoint::from(from)).unwrap();
        guest.poll();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buffer = [0; 100];
        let (len, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from.port()), (&b"answer"[..], port));
    }
}

#[test]
fn questions_to_the_name_server_go_to_the_hosts() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let tcp_server = std::net::TcpListener::bind(address).unwrap();
    let (near, _handle) = start(UserConfig { resolver: Some(address), ..config() });
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((len, from)) = server.recv_from(&mut buffer) {
            buffer[..len].reverse();
            server.send_to(&buffer[..len], from).unwrap();
        }
    });
    let mut guest = Guest::new(near);
    let socket = guest.send_udp("10.0.2.3:53", b"emu.example");
    assert_eq!(guest.receive_udp(socket), (b"elpmaxe.ume".to_vec(), "10.0.2.3:53".parse().unwrap()));
    let server = serve(tcp_server, b"long answer".to_vec());
    let connection = guest.connect("10.0.2.3:53");
    assert_eq!(guest.exchange(connection, b"question"), b"long answer");
    assert_eq!(server.join().unwrap(), b"question");
}

#[test]
fn files_come_by_tftp() {
    let folder = std::env::temp_dir().join(format!("emu-net-tftp-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let contents = data(300_000, 5);
    std::fs::write(folder.join("pxelinux.0"), &contents).unwrap();
    let (near, _handle) = start(UserConfig { tftp: Some(folder.clone()), ..config() });
    let mut guest = Guest::new(near);
    let socket = guest.send_udp("10.0.2.2:69", b"\0\x01pxelinux.0\0octet\0blksize\x001428\0tsize\x000\0");
    let (mut packet, server) = guest.receive_udp(socket);
    assert_eq!(packet, b"\0\x06blksize\x001428\0tsize\x00300000\0");
    let mut received = Vec::new();
    let mut block = 0u16;
    while received.len() < contents.len() {
        let ack = [0, 4, (block >> 8) as u8, block as u8];
        guest.sockets.get_mut::<guest_udp::Socket>(socket).send_slice(&ack, IpEndpoint::from(server)).unwrap();
        packet = guest.receive_udp(socket).0;
        block += 1;
        assert_eq!(packet[..4], [0, 3, (block >> 8) as u8, block as u8]);
        received.extend_from_slice(&packet[4..]);
    }
    assert!(received == contents);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn refused_and_forbidden_connections_end_at_once() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (near, _handle) = start(config());
    let mut guest = Guest::new(near);
    for to in [format!("10.0.2.2:{closed}"), "10.0.2.3:80".into()] {
        let connection = guest.connect(&to);
        guest.until("a refusal", |guest| (guest.tcp(connection).state() == tcp::State::Closed).then_some(()));
    }
    let open = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = open.local_addr().unwrap().port();
    let (near, _handle) = start(UserConfig { restrict: true, ..config() });
    let mut guest = Guest::new(near);
    let connection = guest.connect(&format!("10.0.2.2:{port}"));
    guest.until("a refusal", |guest| (guest.tcp(connection).state() == tcp::State::Closed).then_some(()));
}

#[test]
fn connection_that_the_host_breaks_is_reset_and_the_other_way_round() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("10.0.2.2:{}", listener.local_addr().unwrap().port());
    let (near, _handle) = start(config());
    let mut guest = Guest::new(near);
    let connection = guest.connect(&to);
    let open = |guest: &mut Guest| (guest.tcp(connection).state() == tcp::State::Established).then_some(());
    guest.until("a connection", open);
    let (stream, _) = listener.accept().unwrap();
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
    guest.until("a reset", |guest| (guest.tcp(connection).state() == tcp::State::Closed).then_some(()));
    let connection = guest.connect(&to);
    guest.until("a connection", |guest| (guest.tcp(connection).state() == tcp::State::Established).then_some(()));
    let (mut stream, _) = listener.accept().unwrap();
    guest.tcp(connection).abort();
    guest.poll();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn host_that_reads_slowly_slows_the_guest_down_and_memory_stays_bounded() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("10.0.2.2:{}", listener.local_addr().unwrap().port());
    let (near, handle) = start(config());
    let mut guest = Guest::new(near);
    let connection = guest.connect(&to);
    let up = data(24 << 20, 6);
    let expected = up.clone();
    let reader = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let shown = handle.show();
        let queued: usize = shown.lines().nth(1).unwrap().split_whitespace().nth(6).unwrap().parse().unwrap();
        assert!(queued <= super::tcp::RECEIVE_BUFFER, "{shown}");
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert!(received == expected);
    });
    guest.exchange(connection, &up);
    reader.join().unwrap();
}

#[test]
fn program_of_the_host_answers_at_an_address_of_the_guests_network() {
    let server: SocketAddr = "10.0.2.100:1234".parse().unwrap();
    let forward = GuestForward { server, target: GuestTarget::Command("tr a-z A-Z".into()) };
    let (near, _handle) = start(UserConfig { guest_forwards: vec![forward], restrict: true, ..config() });
    let mut guest = Guest::new(near);
    for text in [&b"hello"[..], b"again"] {
        let connection = guest.connect("10.0.2.100:1234");
        assert_eq!(guest.exchange(connection, text), text.to_ascii_uppercase());
    }
}

/// A frame of IPv4 from the guest.
fn ipv4_frame(protocol: u8, to: Ipv4Addr, place: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x52, 0x55, 10, 0, 2, 2];
    frame.extend(GUEST_MAC.0);
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((20 + payload.len() as u16).to_be_bytes());
    frame.extend([0x12, 0x34]);
    frame.extend(place.to_be_bytes());
    frame.extend([64, protocol, 0, 0, 10, 0, 2, 15]);
    frame.extend(to.octets());
    frame.extend_from_slice(payload);
    Ipv4Packet::new_unchecked(&mut frame[14..]).fill_checksum();
    frame
}

fn receive(near: &mut NearEnd, mut wanted: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let mut frame = Vec::new();
    crate::net::tests::wait_for(|| {
        while near.receive(&mut frame) {
            if frame[12..14] == [8, 6] {
                // Who is 10.0.2.15?
                let mut reply = vec![0x52, 0x55, 10, 0, 2, 2];
                reply.extend(GUEST_MAC.0);
                reply.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
                reply.extend(GUEST_MAC.0);
                reply.extend([10, 0, 2, 15, 0x52, 0x55, 10, 0, 2, 2, 10, 0, 2, 2]);
                near.send(&reply);
            } else if wanted(&frame) {
                return Some(frame.clone());
            }
        }
        None
    })
}

#[test]
fn gateway_answers_pings_and_ports_without_a_server_are_told() {
    let (mut near, _handle) = start(config());
    let mut echo = vec![8, 0, 0, 0, 1, 2, 0, 1];
    echo.extend(b"payload");
    smoltcp::wire::Icmpv4Packet::new_unchecked(&mut echo[..]).fill_checksum();
    near.send(&ipv4_frame(1, Ipv4Addr::new(10, 0, 2, 2), 0, &echo));
    let reply = receive(&mut near, |frame| frame[23] == 1);
    assert_eq!((&reply[34..36], &reply[38..]), (&[0, 0][..], &echo[4..]));
    // Nobody else gets this port, and it takes nothing from others than the one to which it is connected.
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.connect("127.0.0.1:9").unwrap();
    let closed = SocketAddr::new(Ipv4Addr::new(10, 0, 2, 2).into(), server.local_addr().unwrap().port());
    let mut datagram = vec![0; 500];
    let data = vec![7; 492];
    outlet::udp_datagram(&mut datagram, "10.0.2.15:5000".parse().unwrap(), closed, &data);
    let packet = ipv4_frame(17, Ipv4Addr::new(10, 0, 2, 2), 0, &datagram);
    near.send(&packet);
    let told = receive(&mut near, |frame| frame[23] == 1);
    assert_eq!((&told[34..36], &told[42..]), (&[3, 3][..], &packet[14..42]));
}

#[test]
fn large_datagrams_are_fragments_on_the_cable_and_whole_on_the_host() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let to = SocketAddr::new(Ipv4Addr::new(10, 0, 2, 2).into(), server.local_addr().unwrap().port());
    let (mut near, _handle) = start(config());
    let sent = data(9000, 7);
    let mut datagram = vec![0; 8 + sent.len()];
    outlet::udp_datagram(&mut datagram, "10.0.2.15:5000".parse().unwrap(), to, &sent);
    let size = 1480;
    for (i, part) in datagram.chunks(size).enumerate() {
        let more = if (i + 1) * size < datagram.len() { 0x2000 } else { 0 };
        near.send(&ipv4_frame(17, Ipv4Addr::new(10, 0, 2, 2), more | (i * size / 8) as u16, part));
    }
    let mut buffer = vec![0; 1 << 16];
    let (len, from) = server.recv_from(&mut buffer).unwrap();
    assert!(buffer[..len] == sent);
    server.send_to(&sent, from).unwrap();
    let mut whole = Vec::new();
    while whole.len() < datagram.len() {
        let frame = receive(&mut near, |frame| frame[23] == 17);
        assert_eq!(usize::from(u16::from_be_bytes([frame[20], frame[21]]) & 0x1fff) * 8, whole.len());
        whole.extend_from_slice(&frame[34..]);
    }
    assert!(whole[8..] == sent);
    let udp = UdpPacket::new_checked(&whole[..]).unwrap();
    assert!(udp.verify_checksum(&IpAddress::v4(10, 0, 2, 2), &IpAddress::v4(10, 0, 2, 15)));
}

#[test]
fn router_advertises_its_network_to_who_asks() {
    let (mut near, _handle) = start(config());
    let from: Ipv6Addr = "fe80::5054:ff:fe12:3456".parse().unwrap();
    let to: Ipv6Addr = "ff02::2".parse().unwrap();
    let mut message = vec![133, 0, 0, 0, 0, 0, 0, 0];
    smoltcp::wire::Icmpv6Packet::new_unchecked(&mut message[..]).fill_checksum(&from, &to);
    let mut frame = vec![0x33, 0x33, 0, 0, 0, 2];
    frame.extend(GUEST_MAC.0);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 58, 255]);
    frame.extend(from.octets());
    frame.extend(to.octets());
    frame.extend(message);
    near.send(&frame);
    let reply = receive(&mut near, |frame| frame[12..14] == [0x86, 0xdd] && frame[54] == 134);
    let options = &reply[54 + 16..];
    let prefix = options.chunks(8).position(|unit| unit[..4] == [3, 4, 64, 0xc0]).unwrap() * 8;
    assert_eq!(options[prefix + 16..prefix + 32], "fec0::".parse::<Ipv6Addr>().unwrap().octets());
    let source: Ipv6Addr = <[u8; 16]>::try_from(&reply[22..38]).unwrap().into();
    assert!(
        reply[21] == 255 && smoltcp::wire::Icmpv6Packet::new_unchecked(&reply[54..]).verify_checksum(&source, &from)
    );
}

#[test]
fn forwarded_port_that_is_taken_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = taken.local_addr().unwrap();
    let (_near, handle) = start(config());
    let problem = handle.add(Forward { udp: false, host, guest: "10.0.2.15:22".parse().unwrap() }).unwrap_err();
    assert_eq!(problem, format!("cannot listen at tcp:{host}: Address already in use"));
}
