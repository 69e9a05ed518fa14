//! A guest that sends nonsense: real frames of all protocols, damaged at random, and noise; and one that opens more than anybody may have.
//! Neither makes the network stop, fail, or hold more memory or sockets than it has bounds for.

use super::*;

/// How long the guest goes on.
const DURATION: Duration = Duration::from_secs(4);
/// Frames without a look at whether the network still answers.
const BURST: usize = 2000;

/// Frames as a guest sends them.
fn samples() -> Vec<Vec<u8>> {
    let gateway = Ipv4Addr::new(10, 0, 2, 2);
    let mut frames = Vec::new();
    let mut arp = vec![0xff; 6];
    arp.extend(GUEST_MAC.0);
    arp.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.extend(GUEST_MAC.0);
    arp.extend([10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2]);
    frames.push(arp);
    let mut echo = vec![8, 0, 0, 0, 1, 2, 0, 1, 9, 9, 9, 9];
    smoltcp::wire::Icmpv4Packet::new_unchecked(&mut echo[..]).fill_checksum();
    frames.push(ipv4_frame(1, gateway, 0, &echo));
    frames.push(ipv4_frame(1, gateway, 0x2000, &echo[..8]));
    let datagram = |to: &str, data: &[u8]| {
        let to: SocketAddr = to.parse().unwrap();
        let mut bytes = vec![0; 8 + data.len()];
        outlet::udp_datagram(&mut bytes, "10.0.2.15:68".parse().unwrap(), to, data);
        let IpAddr::V4(address) = to.ip() else { unreachable!() };
        ipv4_frame(17, address, 0, &bytes)
    };
    let mut dhcp = vec![0; 236];
    dhcp[..8].copy_from_slice(&[1, 1, 6, 0, 1, 2, 3, 4]);
    dhcp[28..34].copy_from_slice(&GUEST_MAC.0);
    dhcp.extend([99, 130, 83, 99, 53, 1, 1, 50, 4, 10, 0, 2, 15, 55, 3, 1, 3, 6, 12, 2, 65, 66, 255]);
    frames.push(datagram("10.0.2.2:67", &dhcp));
    dhcp[242] = 3;
    frames.push(datagram("255.255.255.255:67", &dhcp));
    frames.push(datagram("10.0.2.2:69", b"\0\x01file\0octet\0blksize\x00512\0tsize\x000\0"));
    frames.push(datagram("10.0.2.2:69", &[0, 4, 0, 1]));
    frames.push(datagram("10.0.2.3:53", b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03emu\x07example\0\0\x01\0\x01"));
    for flags in [0x02, 0x10, 0x18, 0x11, 0x04, 0x12, 0x29] {
        let mut segment =
            vec![0x90, 1, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0x70, flags, 1, 0, 0, 0, 0, 0, 2, 4, 5, 180, 3, 3, 7, 0];
        segment.extend(b"data");
        outlet::tcp_checksum(&mut segment, Ipv4Addr::new(10, 0, 2, 15).into(), gateway.into());
        frames.push(ipv4_frame(6, gateway, 0, &segment));
    }
    let from: Ipv6Addr = "fec0::15".parse().unwrap();
    let to: Ipv6Addr = "fec0::2".parse().unwrap();
    let ipv6_frame = |protocol: u8, payload: &[u8]| {
        let mut frame = vec![0x52, 0x55, 10, 0, 2, 2];
        frame.extend(GUEST_MAC.0);
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, payload.len() as u8, protocol, 255]);
        frame.extend(from.octets());
        frame.extend(to.octets());
        frame.extend(payload);
        frame
    };
    let mut question = vec![0; 8 + 29];
    let text = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03emu\x07example\0\0\x01\0\x01";
    outlet::udp_datagram(&mut question, SocketAddr::new(from.into(), 68), SocketAddr::new(to.into(), 53), text);
    frames.push(ipv6_frame(17, &question));
    let mut opening = vec![0x90, 1, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 1, 0, 0, 0, 0, 0];
    outlet::tcp_checksum(&mut opening, from.into(), to.into());
    frames.push(ipv6_frame(6, &opening));
    for kind in [128u8, 133, 135, 136] {
        let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        message.extend(to.octets());
        message.extend([1, 1, 2, 3, 4, 5, 6, 7]);
        smoltcp::wire::Icmpv6Packet::new_unchecked(&mut message[..]).fill_checksum(&from, &to);
        frames.push(ipv6_frame(58, &message));
    }
    frames
}

/// Makes the checksums of a damaged frame right again, as far as it is still a packet: what checksums find gets no further.
fn mend(frame: &mut [u8]) {
    let Some(bytes) = frame.get_mut(14..) else { return };
    if Ipv4Packet::new_checked(&*bytes).is_ok() {
        let mut packet = Ipv4Packet::new_unchecked(bytes);
        packet.fill_checksum();
        let (from, to, protocol) = (packet.src_addr(), packet.dst_addr(), packet.next_header());
        mend_payload(protocol, from.into(), to.into(), packet.payload_mut());
    } else if Ipv6Packet::new_checked(&*bytes).is_ok() {
        let mut packet = Ipv6Packet::new_unchecked(bytes);
        let (from, to, protocol) = (packet.src_addr(), packet.dst_addr(), packet.next_header());
        mend_payload(protocol, from.into(), to.into(), packet.payload_mut());
    }
}

fn mend_payload(protocol: IpProtocol, from: IpAddress, to: IpAddress, payload: &mut [u8]) {
    match (protocol, from, to) {
        (IpProtocol::Udp, ..) if UdpPacket::new_checked(&*payload).is_ok() => {
            UdpPacket::new_unchecked(payload).fill_checksum(&from, &to)
        }
        (IpProtocol::Tcp, ..) if payload.len() >= 20 => {
            smoltcp::wire::TcpPacket::new_unchecked(payload).fill_checksum(&from, &to)
        }
        (IpProtocol::Icmp, ..) if payload.len() >= 8 => {
            smoltcp::wire::Icmpv4Packet::new_unchecked(payload).fill_checksum()
        }
        (IpProtocol::Icmpv6, IpAddress::Ipv6(from), IpAddress::Ipv6(to)) if payload.len() >= 8 => {
            smoltcp::wire::Icmpv6Packet::new_unchecked(payload).fill_checksum(&from, &to)
        }
        _ => {}
    }
}

#[test]
fn damaged_frames_of_all_protocols_neither_stop_nor_fill_the_network() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut kept = std::collections::VecDeque::new();
        for stream in listener.incoming() {
            kept.push_back(stream);
            kept.truncate(100);
        }
    });
    // Whatever address a damaged packet has, none leaves this host; one service answers.
    let guest_forwards = vec![GuestForward {
        server: "10.0.2.2:7".parse().unwrap(),
        target: GuestTarget::Tcp(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
    }];
    let folder = std::env::temp_dir();
    let (mut near, handle) = start(UserConfig { restrict: true, guest_forwards, tftp: Some(folder), ..config() });
    let frames = samples();
    let mut random = fastrand::Rng::with_seed(0x5eed);
    let (start, mut sent) = (Instant::now(), 0u64);
    let before = (open_files(), resident());
    let mut probe = Probe { number: 0 };
    while start.elapsed() < DURATION {
        for _ in 0..BURST {
            let mut frame = random.choice(&frames).unwrap().clone();
            if random.u8(..) < 8 {
                // Not even a frame, but for its addresses and perhaps its type.
                frame.resize(random.usize(14..1514), 0);
                let kept = random.usize(12..=14);
                random.fill(&mut frame[kept..]);
            }
            for _ in 0..random.usize(0..6) {
                match random.u8(0..5) {
                    0 => frame.truncate(random.usize(14..=frame.len())),
                    1 => frame.extend(std::iter::repeat_n(random.u8(..), random.usize(0..600))),
                    2 => {
                        let at = random.usize(14..frame.len().max(15));
                        if let Some(byte) = frame.get_mut(at) {
                            *byte = *random.choice(&[0, 1, 0x7f, 0x80, 0xff]).unwrap();
                        }
                    }
                    _ => {
                        let at = random.usize(0..frame.len());
                        frame[at] = random.u8(..);
                    }
                }
                if frame.len() < 15 {
                    break;
                }
            }
            if random.bool() {
                mend(&mut frame);
            }
            near.send(&frame);
            sent += 1;
            let mut answer = Vec::new();
            while near.receive(&mut answer) {}
        }
        // It still answers.
        probe.next(&mut near);
    }
    assert!(sent > 10_000, "{sent}");
    let connections = handle.show().lines().count();
    assert!(connections < 1000, "{connections}");
    assert_bounded(before);
}

#[test]
fn more_flows_than_anybody_may_have_take_each_others_places() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = SocketAddr::new(Ipv4Addr::new(10, 0, 2, 2).into(), server.local_addr().unwrap().port());
    let (mut near, handle) = start(config());
    let before = (open_files(), resident());
    let (mut answer, mut probe) = (Vec::new(), Probe { number: 0 });
    for number in 0..20_000u32 {
        // Addresses that the guest has not, and all of their ports.
        let from = Ipv4Addr::new(10, 0, 2, 15 + (number / 200) as u8);
        let mut bytes = [0; 8 + 4];
        outlet::udp_datagram(&mut bytes, SocketAddr::new(from.into(), 1024 + number as u16), to, b"more");
        let mut frame = ipv4_frame(17, Ipv4Addr::new(10, 0, 2, 2), 0, &bytes);
        frame[26..30].copy_from_slice(&from.octets());
        Ipv4Packet::new_unchecked(&mut frame[14..]).fill_checksum();
        near.send(&frame);
        while near.receive(&mut answer) {}
        if number % 500 == 0 {
            probe.next(&mut near);
        }
    }
    probe.next(&mut near);
    let flows = handle.show().lines().count();
    assert!((100..2000).contains(&flows), "{flows}");
    assert_bounded(before);
}

/// Files that this process has open.
fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Bytes of memory that this process has.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// Since `before`, this process has got no more files and memory than one network, and what other tests do meanwhile, may need.
fn assert_bounded(before: (usize, usize)) {
    let now = (open_files(), resident());
    assert!(now.0 < before.0 + 1500 && now.1 < before.1 + (256 << 20), "{before:?} {now:?}");
}

/// Pings with numbers of their own, so that answers to damaged ones are not taken for theirs.
struct Probe {
    number: u16,
}

impl Probe {
    fn next(&mut self, near: &mut NearEnd) {
        self.number += 1;
        let [high, low] = self.number.to_be_bytes();
        let mut echo = vec![8, 0, 0, 0, 0xbe, 0xef, high, low, 0x77, 0x66];
        smoltcp::wire::Icmpv4Packet::new_unchecked(&mut echo[..]).fill_checksum();
        let frame = ipv4_frame(1, Ipv4Addr::new(10, 0, 2, 2), 0, &echo);
        let mut answer = Vec::new();
        crate::net::tests::wait_for(|| {
            // The guest's damaged claims of who it is may have misled the network.
            near.send(&frame);
            std::thread::sleep(Duration::from_micros(200));
            while near.receive(&mut answer) {
                if answer.len() >= 44 && answer[23] == 1 && answer[38..44] == [0xbe, 0xef, high, low, 0x77, 0x66] {
                    return Some(());
                }
            }
            None
        });
    }
}
