//! The DHCP server (RFC 2131, options of RFC 2132, RFC 3397 for domains), which answers BOOTP (RFC 951) too.
//!
//! Addresses are given away from `dhcpstart` on, one to a MAC address, always the same. Leases do not end before the emulator does.

use super::config::UserConfig;
use std::net::Ipv4Addr;

/// Ports of server and client.
pub const SERVER_PORT: u16 = 67;
pub const CLIENT_PORT: u16 = 68;
/// Addresses that are given away at most, as in QEMU.
const LEASES: usize = 16;
/// Seconds that we say a lease lasts.
const LEASE_TIME: u32 = 86_400;
/// Bytes before the options; the options begin with the cookie.
const FIXED: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Bytes of a BOOTP message at least, which old clients insist on.
const SHORTEST: usize = 300;

/// Offsets of fields (RFC 2131 2).
mod field {
    pub const OP: usize = 0;
    pub const HTYPE: usize = 1;
    pub const HLEN: usize = 2;
    pub const XID: std::ops::Range<usize> = 4..8;
    pub const FLAGS: std::ops::Range<usize> = 10..12;
    pub const CIADDR: std::ops::Range<usize> = 12..16;
    pub const YIADDR: std::ops::Range<usize> = 16..20;
    pub const SIADDR: std::ops::Range<usize> = 20..24;
    pub const CHADDR: std::ops::Range<usize> = 28..44;
    pub const SNAME: std::ops::Range<usize> = 44..108;
    pub const FILE: std::ops::Range<usize> = 108..236;
}

/// Numbers of options.
mod option {
    pub const PAD: u8 = 0;
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN_NAME: u8 = 15;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_IDENTIFIER: u8 = 54;
    pub const MESSAGE: u8 = 56;
    pub const TFTP_SERVER_NAME: u8 = 66;
    pub const BOOTFILE_NAME: u8 = 67;
    pub const DOMAIN_SEARCH: u8 = 119;
    pub const END: u8 = 255;
}

/// "DHCP Message Type".
mod message {
    pub const DISCOVER: u8 = 1;
    pub const OFFER: u8 = 2;
    pub const REQUEST: u8 = 3;
    pub const DECLINE: u8 = 4;
    pub const ACK: u8 = 5;
    pub const NAK: u8 = 6;
    pub const RELEASE: u8 = 7;
    pub const INFORM: u8 = 8;
}

/// What the server answers.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    /// The UDP data.
    pub data: Vec<u8>,
    /// Where to; `None`: to everybody.
    pub to: Option<Ipv4Addr>,
    /// Whom the client is from now on.
    pub assigned: Option<(Ipv4Addr, [u8; 6])>,
}

/// Who has which address: the n-th has the n-th from `dhcpstart` on.
#[derive(Default)]
pub struct Dhcp {
    leases: Vec<[u8; 6]>,
}

impl Dhcp {
    /// Answers a message of a client.
    pub fn receive(&mut self, config: &UserConfig, request: &[u8]) -> Option<Reply> {
        if request.len() < FIXED || request[field::OP] != 1 || request[field::HTYPE] != 1 || request[field::HLEN] != 6 {
            return None;
        }
        let mac: [u8; 6] = request[field::CHADDR][..6].try_into().ok()?;
        let options = request[FIXED..].strip_prefix(&COOKIE).unwrap_or_default();
        let requested = || find(options, option::REQUESTED_ADDRESS).and_then(address);
        let client = address(&request[field::CIADDR]).filter(|a| !a.is_unspecified());
        let kind = find(options, option::MESSAGE_TYPE).and_then(|value| value.first().copied());
        match kind {
            // BOOTP has no types: it is a request for an address.
            None | Some(message::DISCOVER) => {
                let lease = self.lease(config, mac)?;
                let kind = kind.map(|_| message::OFFER);
                Some(answer(config, request, kind, Some(lease), client, kind.is_none().then_some((lease, mac))))
            }
            Some(message::REQUEST) => {
                let ours = find(options, option::SERVER_IDENTIFIER)
                    .and_then(address)
                    .is_none_or(|server| server == config.host);
                if !ours {
                    return None;
                }
                let lease = self.lease(config, mac)?;
                match requested().or(client) {
                    Some(wanted) if wanted != lease => Some(refusal(config, request)),
                    _ => Some(answer(config, request, Some(message::ACK), Some(lease), client, Some((lease, mac)))),
                }
            }
            Some(message::INFORM) => Some(answer(config, request, Some(message::ACK), None, client, None)),
            // Who declines an address gets the same again: there is nobody else who could have it.
            Some(message::DECLINE | message::RELEASE | _) => None,
        }
    }

    /// The address for `mac`, if there is one left.
    fn lease(&mut self, config: &UserConfig, mac: [u8; 6]) -> Option<Ipv4Addr> {
        let number = match self.leases.iter().position(|known| *known == mac) {
            Some(number) => number,
            None if self.leases.len() < LEASES => {
                self.leases.push(mac);
                self.leases.len() - 1
            }
            None => return None,
        };
        let address = Ipv4Addr::from(u32::from(config.dhcp_start).checked_add(number as u32)?);
        (config.is_inside(address.into()) && !config.is_ours(address.into()) && address != config.broadcast())
            .then_some(address)
    }
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    let bytes: [u8; 4] = bytes.try_into().ok()?;
    Some(bytes.into())
}

/// The value of the first option with this number.
fn find(mut options: &[u8], number: u8) -> Option<&[u8]> {
    loop {
        let (kind, rest) = options.split_first()?;
        match *kind {
            option::PAD => options = rest,
            option::END => return None,
            kind => {
                let (len, rest) = rest.split_first()?;
                let (value, rest) = rest.split_at_checked(usize::from(*len))?;
                if kind == number {
                    return Some(value);
                }
                options = rest;
            }
        }
    }
}

/// The fields that every answer has.
fn header(config: &UserConfig, request: &[u8]) -> Vec<u8> {
    let mut reply = vec![0; FIXED];
    reply[field::OP] = 2;
    reply[field::HTYPE] = 1;
    reply[field::HLEN] = 6;
    for same in [field::XID, field::FLAGS, field::CHADDR] {
        reply[same.clone()].copy_from_slice(&request[same]);
    }
    reply[field::SIADDR].copy_from_slice(&config.host.octets());
    reply
}

fn push(reply: &mut Vec<u8>, number: u8, value: &[u8]) {
    // RFC 3396: what is too long for one option goes on in another of the same number.
    for part in value.chunks(255) {
        reply.extend([number, part.len() as u8]);
        reply.extend_from_slice(part);
    }
}

/// `text` in a field that is as long as it is; what does not fit is only in the option.
fn copy_text(field: &mut [u8], text: &str) {
    if text.len() < field.len() {
        field[..text.len()].copy_from_slice(text.as_bytes());
    }
}

fn answer(
    config: &UserConfig,
    request: &[u8],
    kind: Option<u8>,
    lease: Option<Ipv4Addr>,
    client: Option<Ipv4Addr>,
    assigned: Option<(Ipv4Addr, [u8; 6])>,
) -> Reply {
    let mut data = header(config, request);
    if let Some(client) = client {
        data[field::CIADDR].copy_from_slice(&client.octets());
    }
    if let Some(lease) = lease {
        data[field::YIADDR].copy_from_slice(&lease.octets());
    }
    if let Some(name) = &config.tftp_server_name {
        copy_text(&mut data[field::SNAME], name);
    }
    if let Some(file) = &config.bootfile {
        copy_text(&mut data[field::FILE], file);
    }
    data.extend(COOKIE);
    if let Some(kind) = kind {
        push(&mut data, option::MESSAGE_TYPE, &[kind]);
        push(&mut data, option::SERVER_IDENTIFIER, &config.host.octets());
        if lease.is_some() {
            push(&mut data, option::LEASE_TIME, &LEASE_TIME.to_be_bytes());
        }
    }
    push(&mut data, option::SUBNET_MASK, &config.mask.octets());
    // Who is to reach nothing outside needs neither.
    if !config.restrict {
        push(&mut data, option::ROUTER, &config.host.octets());
        push(&mut data, option::DNS, &config.dns.octets());
    }
    let texts = [
        (option::HOST_NAME, &config.hostname),
        (option::DOMAIN_NAME, &config.domain_name),
        (option::TFTP_SERVER_NAME, &config.tftp_server_name),
        (option::BOOTFILE_NAME, &config.bootfile),
    ];
    for (number, text) in texts {
        if let Some(text) = text {
            push(&mut data, number, text.as_bytes());
        }
    }
    let search: Vec<u8> = config.dns_search.iter().flat_map(|domain| encode_domain(domain)).collect();
    push(&mut data, option::DOMAIN_SEARCH, &search);
    data.push(option::END);
    if data.len() < SHORTEST {
        data.resize(SHORTEST, option::PAD);
    }
    // RFC 2131 4.1: a client that has an address is told there, others everywhere, as they cannot answer ARP yet.
    Reply { data, to: client, assigned }
}

fn refusal(config: &UserConfig, request: &[u8]) -> Reply {
    let mut data = header(config, request);
    data[field::SIADDR].fill(0);
    data.extend(COOKIE);
    push(&mut data, option::MESSAGE_TYPE, &[message::NAK]);
    push(&mut data, option::SERVER_IDENTIFIER, &config.host.octets());
    push(&mut data, option::MESSAGE, b"requested address not available");
    data.push(option::END);
    data.resize(data.len().max(SHORTEST), option::PAD);
    Reply { data, to: None, assigned: None }
}

/// A domain as DNS writes it: labels behind their lengths. It is checked where it is read.
fn encode_domain(domain: &str) -> Vec<u8> {
    let mut encoded = Vec::new();
    for label in domain.trim_end_matches('.').split('.') {
        encoded.push(label.len().min(63) as u8);
        encoded.extend(label.bytes().take(63));
    }
    encoded.push(0);
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: Option<u8>, mac: u8, options: &[(u8, &[u8])]) -> Vec<u8> {
        let mut data = vec![0; FIXED];
        data[..8].copy_from_slice(&[1, 1, 6, 0, 9, 8, 7, 6]);
        data[28..34].copy_from_slice(&[2, 0, 0, 0, 0, mac]);
        data.extend(COOKIE);
        if let Some(kind) = kind {
            push(&mut data, option::MESSAGE_TYPE, &[kind]);
        }
        options.iter().for_each(|(number, value)| push(&mut data, *number, value));
        data.push(option::END);
        data
    }

    fn options(reply: &Reply) -> &[u8] {
        reply.data[FIXED..].strip_prefix(&COOKIE).unwrap()
    }

    #[test]
    fn client_is_offered_an_address_and_keeps_it() {
        let config = UserConfig {
            hostname: Some("guest".into()),
            bootfile: Some("pxe.0".into()),
            dns_search: vec!["a.org".into()],
            ..UserConfig::default()
        };
        let mut dhcp = Dhcp::default();
        let offer = dhcp.receive(&config, &request(Some(message::DISCOVER), 1, &[])).unwrap();
        assert_eq!(offer.data[field::YIADDR], [10, 0, 2, 15]);
        assert_eq!((&offer.data[field::XID], offer.to), (&[9, 8, 7, 6][..], None));
        assert_eq!(find(options(&offer), option::MESSAGE_TYPE), Some(&[message::OFFER][..]));
        let wanted: &[(u8, &[u8])] =
            &[(option::REQUESTED_ADDRESS, &[10, 0, 2, 15]), (option::SERVER_IDENTIFIER, &[10, 0, 2, 2])];
        let ack = dhcp.receive(&config, &request(Some(message::REQUEST), 1, wanted)).unwrap();
        assert_eq!(ack.assigned, Some((Ipv4Addr::new(10, 0, 2, 15), [2, 0, 0, 0, 0, 1])));
        for (number, value) in [
            (option::MESSAGE_TYPE, &[message::ACK][..]),
            (option::SUBNET_MASK, &[255, 255, 255, 0]),
            (option::ROUTER, &[10, 0, 2, 2]),
            (option::DNS, &[10, 0, 2, 3]),
            (option::HOST_NAME, b"guest"),
            (option::BOOTFILE_NAME, b"pxe.0"),
            (option::DOMAIN_SEARCH, b"\x01a\x03org\0"),
        ] {
            assert_eq!(find(options(&ack), number), Some(value), "{number}");
        }
        assert!(ack.data[field::FILE].starts_with(b"pxe.0\0") && ack.data[field::SIADDR] == [10, 0, 2, 2]);
        let other = dhcp.receive(&config, &request(Some(message::DISCOVER), 2, &[])).unwrap();
        assert_eq!(other.data[field::YIADDR], [10, 0, 2, 16]);
    }

    #[test]
    fn address_of_another_network_is_refused_and_other_servers_are_left_alone() {
        let mut dhcp = Dhcp::default();
        let config = UserConfig::default();
        let wrong: &[(u8, &[u8])] = &[(option::REQUESTED_ADDRESS, &[192, 168, 0, 1])];
        let nak = dhcp.receive(&config, &request(Some(message::REQUEST), 1, wrong)).unwrap();
        assert_eq!(find(options(&nak), option::MESSAGE_TYPE), Some(&[message::NAK][..]));
        let elsewhere: &[(u8, &[u8])] = &[(option::SERVER_IDENTIFIER, &[10, 0, 2, 9])];
        assert_eq!(dhcp.receive(&config, &request(Some(message::REQUEST), 1, elsewhere)), None);
    }

    #[test]
    fn bootp_clients_get_an_address_and_addresses_run_out() {
        let mut dhcp = Dhcp::default();
        let config = UserConfig::default();
        let reply = dhcp.receive(&config, &request(None, 1, &[])).unwrap();
        assert!(reply.assigned.is_some() && find(options(&reply), option::MESSAGE_TYPE).is_none());
        for mac in 2..=LEASES as u8 {
            assert!(dhcp.receive(&config, &request(Some(message::DISCOVER), mac, &[])).is_some());
        }
        assert!(dhcp.receive(&config, &request(Some(message::DISCOVER), 99, &[])).is_none());
    }

    #[test]
    fn broken_options_are_not_read_beyond_their_end() {
        for broken in [&[53][..], &[53, 5, 1], &[0, 0], &[255, 53, 1, 1], &[12, 255]] {
            assert_eq!(find(broken, 53), None, "{broken:?}");
        }
        assert!(Dhcp::default().receive(&UserConfig::default(), &[1; 200]).is_none());
    }
}
