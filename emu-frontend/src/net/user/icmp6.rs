//! ICMPv6 (RFC 4443) and Neighbor Discovery (RFC 4861, RFC 8106 for the name server): this end is the guest's router.
//!
//! Advertisements are sent when they are asked for, and never by themselves: a guest that asks for nothing hears nothing, and its run stays
//! repeatable. Deliberately absent: DHCPv6 and multicast listeners (all that is sent to a group reaches the one cable that there is).

use super::outlet::{Outlet, multicast_mac, wire_address};
use smoltcp::wire::{EthernetAddress, Icmpv6Packet, IpAddress, IpProtocol};
use std::net::{IpAddr, Ipv6Addr};

/// Types of messages.
mod kind {
    pub const UNREACHABLE: u8 = 1;
    pub const ECHO_REQUEST: u8 = 128;
    pub const ECHO_REPLY: u8 = 129;
    pub const ROUTER_SOLICITATION: u8 = 133;
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    pub const NEIGHBOR_SOLICITATION: u8 = 135;
    pub const NEIGHBOR_ADVERTISEMENT: u8 = 136;
}

/// Options of Neighbor Discovery.
mod option {
    pub const SOURCE_LINK_LAYER: u8 = 1;
    pub const TARGET_LINK_LAYER: u8 = 2;
    pub const PREFIX: u8 = 3;
    pub const MTU: u8 = 5;
    pub const RECURSIVE_DNS: u8 = 25;
}

/// Neighbor Discovery believes only what no router can have forwarded.
const HOP_LIMIT: u8 = 255;
/// The lifetimes of RFC 4861 6.2.1, in seconds.
const ROUTER_LIFETIME: u16 = 1800;
const VALID_LIFETIME: u32 = 86_400;
const PREFERRED_LIFETIME: u32 = 14_400;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Bytes of an error message's quotation at most, so that it fits into the smallest MTU of IPv6.
const QUOTATION: usize = 1280 - 40 - 8;

/// Asks who has `address`.
pub fn ask(outlet: &mut Outlet, address: Ipv6Addr) {
    let octets = address.octets();
    let group = Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(octets[13]),
        u16::from_be_bytes([octets[14], octets[15]]),
    );
    let mut message = vec![kind::NEIGHBOR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(octets);
    push_link_layer(&mut message, option::SOURCE_LINK_LAYER, outlet.mac());
    let from = outlet.config.link_local();
    send(outlet, multicast_mac(group), from, group, message);
}

/// What follows from a message of the guest. Returns an echo request to somebody else.
pub fn receive<'p>(
    outlet: &mut Outlet,
    mac: EthernetAddress,
    from: Ipv6Addr,
    to: Ipv6Addr,
    hop_limit: u8,
    message: &'p [u8],
) -> Option<&'p [u8]> {
    let packet = Icmpv6Packet::new_checked(message).ok()?;
    if !packet.verify_checksum(&from, &to) {
        return None;
    }
    let local = hop_limit == HOP_LIMIT && message.get(1) == Some(&0);
    match *message.first()? {
        kind::ECHO_REQUEST if outlet.config.is_ours(to.into()) => {
            let mut reply = message.to_vec();
            reply[0] = kind::ECHO_REPLY;
            send(outlet, mac, to, from, reply);
        }
        kind::ECHO_REQUEST => return Some(message),
        kind::ROUTER_SOLICITATION if local => advertise(outlet, mac, from),
        kind::NEIGHBOR_SOLICITATION if local => {
            let target = address_at(message, 8)?;
            if !outlet.config.is_ours(target.into()) {
                return None;
            }
            // Who has no address yet looks whether it is taken: then everybody is told (RFC 4862 5.4.4).
            let (to, solicited) = if from.is_unspecified() { (ALL_NODES, 0) } else { (from, 0x40) };
            let router = 0x80;
            let mut reply = vec![kind::NEIGHBOR_ADVERTISEMENT, 0, 0, 0, router | solicited | 0x20, 0, 0, 0];
            reply.extend(target.octets());
            push_link_layer(&mut reply, option::TARGET_LINK_LAYER, outlet.mac());
            let mac = if from.is_unspecified() { multicast_mac(to) } else { mac };
            send(outlet, mac, target, to, reply);
        }
        kind::NEIGHBOR_ADVERTISEMENT if local => {
            let target = address_at(message, 8)?;
            outlet.learn(target.into(), mac);
        }
        _ => {}
    }
    None
}

fn address_at(message: &[u8], offset: usize) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = message.get(offset..offset + 16)?.try_into().ok()?;
    Some(octets.into())
}

fn push_link_layer(message: &mut Vec<u8>, kind: u8, mac: EthernetAddress) {
    // Lengths count units of eight bytes.
    message.extend([kind, 1]);
    message.extend(mac.0);
}

/// A Router Advertisement: the prefix, from which guests make their addresses, the MTU, and the name server.
fn advertise(outlet: &mut Outlet, mac: EthernetAddress, to: Ipv6Addr) {
    let config = &outlet.config;
    let mut message = vec![kind::ROUTER_ADVERTISEMENT, 0, 0, 0, 64, 0];
    message.extend(ROUTER_LIFETIME.to_be_bytes());
    message.extend([0; 8]);
    push_link_layer(&mut message, option::SOURCE_LINK_LAYER, outlet.mac());
    let (on_link, autonomous) = (0x80, 0x40);
    message.extend([option::PREFIX, 4, config.prefix6_len, on_link | autonomous]);
    message.extend(VALID_LIFETIME.to_be_bytes());
    message.extend(PREFERRED_LIFETIME.to_be_bytes());
    message.extend([0; 4]);
    message.extend(config.prefix6.octets());
    message.extend([option::MTU, 1, 0, 0]);
    message.extend((super::outlet::MTU as u32).to_be_bytes());
    message.extend([option::RECURSIVE_DNS, 3, 0, 0]);
    message.extend(u32::from(ROUTER_LIFETIME).to_be_bytes());
    message.extend(config.dns6.octets());
    let from = config.link_local();
    let (mac, to) = if to.is_unspecified() { (multicast_mac(ALL_NODES), ALL_NODES) } else { (mac, to) };
    send(outlet, mac, from, to, message);
}

/// Tells the guest that a packet of its own, from its IPv6 header on, does not get there.
pub fn unreachable(outlet: &mut Outlet, code: u8, packet: &[u8]) {
    let (Some(from), Some(to)) = (address_at(packet, 8), address_at(packet, 24)) else { return };
    if from.is_unspecified() || from.is_multicast() || to.is_multicast() {
        return;
    }
    let Some(mac) = outlet.station(from.into()) else { return };
    let mut message = vec![kind::UNREACHABLE, code, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&packet[..packet.len().min(QUOTATION)]);
    let host = outlet.config.host6;
    send(outlet, mac, host, from, message);
}

/// An echo reply from outside.
pub fn echo_reply(outlet: &mut Outlet, from: Ipv6Addr, to: Ipv6Addr, identifier: u16, message: &[u8]) {
    let Some(mac) = outlet.station(to.into()) else { return };
    let mut reply = message.to_vec();
    if let Some(place) = reply.get_mut(4..6) {
        place.copy_from_slice(&identifier.to_be_bytes());
        send(outlet, mac, from, to, reply);
    }
}

fn send(outlet: &mut Outlet, mac: EthernetAddress, from: Ipv6Addr, to: Ipv6Addr, message: Vec<u8>) {
    outlet.ip_at(mac, from.into(), to.into(), IpProtocol::Icmpv6, HOP_LIMIT, message.len(), |buffer| {
        buffer.copy_from_slice(&message);
        let addresses = [from, to].map(|address| match wire_address(IpAddr::V6(address)) {
            IpAddress::Ipv6(address) => address,
            IpAddress::Ipv4(_) => Ipv6Addr::UNSPECIFIED,
        });
        Icmpv6Packet::new_unchecked(buffer).fill_checksum(&addresses[0], &addresses[1]);
    });
}
