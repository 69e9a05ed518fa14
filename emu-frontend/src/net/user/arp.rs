//! ARP (RFC 826): this end answers for its own addresses, and asks for those of guests.

use super::outlet::Outlet;
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetProtocol};
use std::net::Ipv4Addr;

/// Asks who has `address`.
pub fn ask(outlet: &mut Outlet, address: Ipv4Addr) {
    let request = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: outlet.mac(),
        source_protocol_addr: outlet.config.host,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: address,
    };
    send(outlet, EthernetAddress::BROADCAST, request);
}

/// What follows from an ARP packet of the guest.
pub fn receive(outlet: &mut Outlet, payload: &[u8]) {
    let Ok(packet) = ArpPacket::new_checked(payload) else { return };
    let Ok(ArpRepr::EthernetIpv4 {
        operation, source_hardware_addr, source_protocol_addr, target_protocol_addr, ..
    }) = ArpRepr::parse(&packet)
    else {
        return;
    };
    outlet.learn(source_protocol_addr.into(), source_hardware_addr);
    if operation == ArpOperation::Request && outlet.config.is_ours(target_protocol_addr.into()) {
        let reply = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: outlet.mac(),
            source_protocol_addr: target_protocol_addr,
            target_hardware_addr: source_hardware_addr,
            target_protocol_addr: source_protocol_addr,
        };
        send(outlet, source_hardware_addr, reply);
    }
}

fn send(outlet: &mut Outlet, to: EthernetAddress, arp: ArpRepr) {
    outlet.ethernet(to, EthernetProtocol::Arp, arp.buffer_len(), |buffer| {
        arp.emit(&mut ArpPacket::new_unchecked(buffer));
    });
}
