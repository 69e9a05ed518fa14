//! A guest that sends nonsense: real frames of all protocols, damaged at random, in a bounded time and without a panic.

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
    for kind in [128u8, 133, 135, 136] {
        let from: Ipv6Addr = "fec0::15".parse().unwrap();
        let to: Ipv6Addr = "fec0::2".parse().unwrap();
        let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        message.extend(to.octets());
        message.extend([1, 1, 2, 3, 4, 5, 6, 7]);
        smoltcp::wire::Icmpv6Packet::new_unchecked(&mut message[..]).fill_checksum(&from, &to);
        let mut frame = vec![0x52, 0x55, 10, 0, 2, 2];
        frame.extend(GUEST_MAC.0);
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, message.len() as u8, 58, 255]);
        frame.extend(from.octets());
        frame.extend(to.octets());
        frame.extend(message);
        frames.push(frame);
    }
    frames
}

/// Makes the checksums of a damaged frame right again, as far as it is still a packet: what checksums find gets no further.
fn mend(frame: &mut [u8]) {
    let Some(bytes) = frame.get_mut(14..) else { return };
    if Ipv4Packet::new_checked(&*bytes).is_err() {
        return;
    }
    let mut packet = Ipv4Packet::new_unchecked(bytes);
    packet.fill_checksum();
    let (from, to) = (IpAddress::from(packet.src_addr()), IpAddress::from(packet.dst_addr()));
    let protocol = packet.next_header();
    let payload = packet.payload_mut();
    match protocol {
        IpProtocol::Udp if UdpPacket::new_checked(&*payload).is_ok() => {
            UdpPacket::new_unchecked(payload).fill_checksum(&from, &to)
        }
        IpProtocol::Tcp if payload.len() >= 20 => {
            smoltcp::wire::TcpPacket::new_unchecked(payload).fill_checksum(&from, &to)
        }
        IpProtocol::Icmp if payload.len() >= 8 => smoltcp::wire::Icmpv4Packet::new_unchecked(payload).fill_checksum(),
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
    let mut probe = Probe { number: 0 };
    while start.elapsed() < DURATION {
        for _ in 0..BURST {
            let mut frame = random.choice(&frames).unwrap().clone();
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
