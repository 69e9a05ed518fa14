//! The way from a user network to the guest: who is where on the guest's network, and frames around what is sent to them.
//!
//! RFC 791 (IPv4 and its fragments), RFC 8200 (IPv6), RFC 826 (who is where). Datagrams over IPv6 that need fragments are not sent.

use super::config::UserConfig;
use crate::net::cable::{ETHERNET_HEADER, FarEnd};
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket,
    UDP_HEADER_LEN, UdpPacket,
};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The largest IP packet that the guest takes, in bytes.
pub const MTU: usize = 1500;
/// Bytes of the headers that we send.
pub const IPV4_HEADER: usize = 20;
pub const IPV6_HEADER: usize = 40;
/// Stations that are remembered.
const STATIONS: usize = 256;
/// "Time to Live" and "Hop Limit" of what we send.
const HOP_LIMIT: u8 = 64;
const BROADCAST: EthernetAddress = EthernetAddress([0xff; 6]);

/// This end's hold on the cable, and what it knows of the guest's network.
pub struct Outlet {
    /// The cable.
    pub far: FarEnd,
    /// What the network is.
    pub config: UserConfig,
    mac: EthernetAddress,
    stations: HashMap<IpAddr, EthernetAddress>,
    identification: u16,
    /// Stations that have made themselves known since this was last emptied.
    pub news: Vec<IpAddr>,
}

/// An address as smoltcp's checksums want it.
pub fn wire_address(address: IpAddr) -> IpAddress {
    address.into()
}

impl Outlet {
    /// An outlet that knows nobody.
    pub fn new(far: FarEnd, config: UserConfig) -> Outlet {
        let mac = EthernetAddress(config.mac());
        Outlet { far, config, mac, stations: HashMap::new(), identification: 0, news: Vec::new() }
    }

    /// This end's address on the cable.
    pub fn mac(&self) -> EthernetAddress {
        self.mac
    }

    /// Remembers that `address` is at `mac`.
    pub fn learn(&mut self, address: IpAddr, mac: EthernetAddress) {
        let inside = self.config.is_inside(address) && !self.config.is_ours(address) && !address.is_unspecified();
        if !inside || !mac.is_unicast() || self.stations.get(&address) == Some(&mac) {
            return;
        }
        if self.stations.len() >= STATIONS {
            self.stations.clear();
        }
        self.stations.insert(address, mac);
        if self.news.len() < STATIONS {
            self.news.push(address);
        }
    }

    /// Where a packet to `address` goes; asks for it if nobody knows.
    pub fn station(&mut self, address: IpAddr) -> Option<EthernetAddress> {
        if let Some(mac) = self.stations.get(&address) {
            return Some(*mac);
        }
        match address {
            IpAddr::V4(address) if address.is_broadcast() || address == self.config.broadcast() => {
                return Some(BROADCAST);
            }
            IpAddr::V6(address) if address.is_multicast() => return Some(multicast_mac(address)),
            IpAddr::V4(address) => super::arp::ask(self, address),
            IpAddr::V6(address) => super::icmp6::ask(self, address),
        }
        None
    }

    /// Sends a frame around `len` bytes that `fill` writes.
    pub fn ethernet(
        &mut self,
        to: EthernetAddress,
        protocol: EthernetProtocol,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        let mut buffer = self.far.buffer();
        buffer.resize(ETHERNET_HEADER + len, 0);
        let mut frame = EthernetFrame::new_unchecked(&mut buffer[..]);
        frame.set_src_addr(self.mac);
        frame.set_dst_addr(to);
        frame.set_ethertype(protocol);
        fill(frame.payload_mut());
        self.far.deliver(buffer);
    }

    /// Sends an IP packet around `len` bytes that `fill` writes. Whether there is somebody to send it to.
    pub fn ip(
        &mut self,
        from: IpAddr,
        to: IpAddr,
        protocol: IpProtocol,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> bool {
        let Some(mac) = self.station(to) else { return false };
        self.ip_at(mac, from, to, protocol, HOP_LIMIT, len, fill)
    }

    /// The same to a station whose address is known.
    #[expect(clippy::too_many_arguments, reason = "the fields of a header")]
    pub fn ip_at(
        &mut self,
        mac: EthernetAddress,
        from: IpAddr,
        to: IpAddr,
        protocol: IpProtocol,
        hop_limit: u8,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> bool {
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) if IPV4_HEADER + len <= MTU => {
                let identification = self.next_identification();
                self.ethernet(mac, EthernetProtocol::Ipv4, IPV4_HEADER + len, |buffer| {
                    let place = Fragment { offset: 0, more: false, identification };
                    ipv4_header(buffer, from, to, protocol, place);
                    fill(&mut buffer[IPV4_HEADER..]);
                });
                true
            }
            (IpAddr::V4(from), IpAddr::V4(to)) if len <= usize::from(u16::MAX) - IPV4_HEADER => {
                let mut whole = vec![0; len];
                fill(&mut whole);
                self.fragments(mac, from, to, protocol, &whole);
                true
            }
            (IpAddr::V6(from), IpAddr::V6(to)) if IPV6_HEADER + len <= MTU => {
                self.ethernet(mac, EthernetProtocol::Ipv6, IPV6_HEADER + len, |buffer| {
                    let mut packet = Ipv6Packet::new_unchecked(&mut buffer[..]);
                    packet.set_version(6);
                    packet.set_payload_len(len as u16);
                    packet.set_next_header(protocol);
                    packet.set_hop_limit(hop_limit);
                    packet.set_src_addr(from);
                    packet.set_dst_addr(to);
                    fill(&mut buffer[IPV6_HEADER..]);
                });
                true
            }
            _ => false,
        }
    }

    fn next_identification(&mut self) -> u16 {
        self.identification = self.identification.wrapping_add(1);
        self.identification
    }

    fn fragments(&mut self, mac: EthernetAddress, from: Ipv4Addr, to: Ipv4Addr, protocol: IpProtocol, whole: &[u8]) {
        let identification = self.next_identification();
        // Offsets count units of eight bytes.
        let size = (MTU - IPV4_HEADER) & !7;
        let count = whole.len().div_ceil(size);
        if self.far.room() < count {
            return;
        }
        for (i, part) in whole.chunks(size).enumerate() {
            let place = Fragment { offset: (i * size) as u16, more: i + 1 < count, identification };
            self.ethernet(mac, EthernetProtocol::Ipv4, IPV4_HEADER + part.len(), |buffer| {
                ipv4_header(buffer, from, to, protocol, place);
                buffer[IPV4_HEADER..].copy_from_slice(part);
            });
        }
    }

    /// Sends a UDP datagram.
    pub fn udp(&mut self, from: SocketAddr, to: SocketAddr, data: &[u8]) -> bool {
        self.ip(from.ip(), to.ip(), IpProtocol::Udp, UDP_HEADER_LEN + data.len(), |buffer| {
            udp_datagram(buffer, from, to, data)
        })
    }
}

/// Writes a UDP header and `data`.
pub fn udp_datagram(buffer: &mut [u8], from: SocketAddr, to: SocketAddr, data: &[u8]) {
    buffer[UDP_HEADER_LEN..].copy_from_slice(data);
    let len = buffer.len() as u16;
    let mut packet = UdpPacket::new_unchecked(buffer);
    packet.set_src_port(from.port());
    packet.set_dst_port(to.port());
    packet.set_len(len);
    packet.fill_checksum(&wire_address(from.ip()), &wire_address(to.ip()));
}

/// Completes a TCP segment of which all but the checksum is there.
pub fn tcp_checksum(buffer: &mut [u8], from: IpAddr, to: IpAddr) {
    TcpPacket::new_unchecked(buffer).fill_checksum(&wire_address(from), &wire_address(to));
}

/// Which part of a datagram a packet is.
struct Fragment {
    offset: u16,
    more: bool,
    identification: u16,
}

fn ipv4_header(buffer: &mut [u8], from: Ipv4Addr, to: Ipv4Addr, protocol: IpProtocol, place: Fragment) {
    let len = buffer.len() as u16;
    let mut packet = Ipv4Packet::new_unchecked(buffer);
    packet.set_version(4);
    packet.set_header_len(IPV4_HEADER as u8);
    packet.set_total_len(len);
    packet.set_ident(place.identification);
    packet.clear_flags();
    packet.set_more_frags(place.more);
    packet.set_frag_offset(place.offset);
    packet.set_hop_limit(HOP_LIMIT);
    packet.set_next_header(protocol);
    packet.set_src_addr(from);
    packet.set_dst_addr(to);
    packet.fill_checksum();
}

/// RFC 2464 7: the group address of a group of stations.
pub fn multicast_mac(address: Ipv6Addr) -> EthernetAddress {
    let [.., a, b, c, d] = address.octets();
    EthernetAddress([0x33, 0x33, a, b, c, d])
}
