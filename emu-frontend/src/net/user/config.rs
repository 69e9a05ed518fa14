//! What `-netdev user` says about a network, and which address of the guest's side is which on the host's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// A port of the host that leads to one of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// UDP instead of TCP.
    pub udp: bool,
    /// Where the host listens.
    pub host: SocketAddr,
    /// Where it leads.
    pub guest: SocketAddr,
}

/// What is behind an address of the guest's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestTarget {
    /// A connection of its own for each of the guest's.
    Tcp(SocketAddr),
    /// The same to a Unix socket.
    Unix(PathBuf),
    /// A process of its own, by `/bin/sh -c`, with the connection as its standard input and output.
    Command(String),
}

/// An address of the guest's network at which something answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestForward {
    /// What the guest connects to.
    pub server: SocketAddr,
    /// What answers.
    pub target: GuestTarget,
}

/// One user network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserConfig {
    /// Whether there is IPv4.
    pub ipv4: bool,
    /// The guest's network: all bits outside `mask` are 0.
    pub network: Ipv4Addr,
    /// Its mask.
    pub mask: Ipv4Addr,
    /// The gateway, which is also the host's loopback.
    pub host: Ipv4Addr,
    /// The name server.
    pub dns: Ipv4Addr,
    /// The first address that DHCP gives away.
    pub dhcp_start: Ipv4Addr,
    /// Whether there is IPv6.
    pub ipv6: bool,
    /// The network of IPv6, with 64 bits at most.
    pub prefix6: Ipv6Addr,
    /// Bits of it.
    pub prefix6_len: u8,
    /// The gateway.
    pub host6: Ipv6Addr,
    /// The name server.
    pub dns6: Ipv6Addr,
    /// The guest reaches nothing outside but what `guest_forwards` names.
    pub restrict: bool,
    /// The name that DHCP gives the guest.
    pub hostname: Option<String>,
    /// Domains that are searched for names.
    pub dns_search: Vec<String>,
    /// The guest's domain.
    pub domain_name: Option<String>,
    /// The folder that TFTP serves.
    pub tftp: Option<PathBuf>,
    /// What DHCP tells to boot.
    pub bootfile: Option<String>,
    /// The name of the TFTP server that DHCP tells.
    pub tftp_server_name: Option<String>,
    /// From the host to the guest.
    pub forwards: Vec<Forward>,
    /// From the guest to something of the host.
    pub guest_forwards: Vec<GuestForward>,
    /// The name server of the host, instead of what resolv.conf names.
    pub resolver: Option<SocketAddr>,
}

impl Default for UserConfig {
    /// QEMU's: 10.0.2.0/24 and fec0::/64.
    fn default() -> UserConfig {
        let six = |last| Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, last);
        UserConfig {
            ipv4: true,
            network: Ipv4Addr::new(10, 0, 2, 0),
            mask: Ipv4Addr::new(255, 255, 255, 0),
            host: Ipv4Addr::new(10, 0, 2, 2),
            dns: Ipv4Addr::new(10, 0, 2, 3),
            dhcp_start: Ipv4Addr::new(10, 0, 2, 15),
            ipv6: true,
            prefix6: six(0),
            prefix6_len: 64,
            host6: six(2),
            dns6: six(3),
            restrict: false,
            hostname: None,
            dns_search: Vec::new(),
            domain_name: None,
            tftp: None,
            bootfile: None,
            tftp_server_name: None,
            forwards: Vec::new(),
            guest_forwards: Vec::new(),
            resolver: None,
        }
    }
}

impl UserConfig {
    /// The address of this end of the cable: 52:55 and the gateway's address, as QEMU has it.
    pub fn mac(&self) -> [u8; 6] {
        let [a, b, c, d] = self.host.octets();
        [0x52, 0x55, a, b, c, d]
    }

    /// The link-local address of the gateway.
    pub fn link_local(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2)
    }

    /// The broadcast address of the guest's network.
    pub fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) | !u32::from(self.mask))
    }

    /// Whether `address` belongs to the guest's network.
    pub fn is_inside(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => u32::from(address) & u32::from(self.mask) == u32::from(self.network),
            IpAddr::V6(address) => {
                let mask = !u128::MAX.checked_shr(self.prefix6_len.into()).unwrap_or(0);
                u128::from(address) & mask == u128::from(self.prefix6) & mask || address.is_unicast_link_local()
            }
        }
    }

    /// Whether this end of the cable answers for `address`: the gateway, the name server, and what `guestfwd` names.
    pub fn is_ours(&self, address: IpAddr) -> bool {
        let given = self.guest_forwards.iter().any(|forward| forward.server.ip() == address);
        given
            || match address {
                IpAddr::V4(address) => address == self.host || address == self.dns,
                IpAddr::V6(address) => address == self.host6 || address == self.dns6 || address == self.link_local(),
            }
    }

    /// Where on the host's side the guest's `remote` is; `None`: nowhere.
    pub fn outside(&self, remote: SocketAddr, resolver: impl FnOnce() -> SocketAddr) -> Option<SocketAddr> {
        if self.restrict || remote.port() == 0 {
            return None;
        }
        let loopback: IpAddr = match remote.ip() {
            IpAddr::V4(address) if address == self.host => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(address) if address == self.host6 || address == self.link_local() => Ipv6Addr::LOCALHOST.into(),
            address if self.is_ours(address) => return (remote.port() == 53).then(resolver),
            address if self.is_inside(address) || !is_routed(address) => return None,
            _ => return Some(remote),
        };
        Some((loopback, remote.port()).into())
    }

    /// As what a guest at `guest` sees `client`, who has come through a forwarded port.
    pub fn inside(&self, client: SocketAddr, guest: IpAddr) -> SocketAddr {
        let address = match (client.ip().to_canonical(), guest) {
            (IpAddr::V4(address), IpAddr::V4(_)) if !address.is_loopback() && !self.is_inside(address.into()) => {
                address.into()
            }
            (IpAddr::V6(address), IpAddr::V6(_)) if !address.is_loopback() && !self.is_inside(address.into()) => {
                address.into()
            }
            (_, IpAddr::V4(_)) => self.host.into(),
            (_, IpAddr::V6(_)) => IpAddr::V6(self.host6),
        };
        (address, client.port()).into()
    }
}

/// Whether packets to `address` may leave: the guest's broadcasts and its own loopback are not the host's.
fn is_routed(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, ..] = address.octets();
            !(first == 0 || address.is_loopback() || address.is_multicast() || address.is_broadcast())
        }
        IpAddr::V6(address) => {
            !(address.is_unspecified()
                || address.is_loopback()
                || address.is_multicast()
                || address.to_ipv4_mapped().is_some())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_addresses_stand_for_the_hosts() {
        let config = UserConfig::default();
        let outside = |text: &str| {
            let to = config.outside(text.parse().unwrap(), || "192.0.2.1:53".parse().unwrap());
            to.map(|to| to.to_string())
        };
        assert_eq!(outside("10.0.2.2:80").as_deref(), Some("127.0.0.1:80"));
        assert_eq!(outside("10.0.2.3:53").as_deref(), Some("192.0.2.1:53"));
        assert_eq!(outside("[fec0::2]:80").as_deref(), Some("[::1]:80"));
        assert_eq!(outside("198.51.100.1:443").as_deref(), Some("198.51.100.1:443"));
        for nowhere in [
            "10.0.2.3:54",
            "10.0.2.77:80",
            "127.0.0.1:80",
            "255.255.255.255:1",
            "224.0.0.1:1",
            "[::1]:80",
            "[fec0::9]:1",
        ] {
            assert_eq!(outside(nowhere), None, "{nowhere}");
        }
        let restricted = UserConfig { restrict: true, ..UserConfig::default() };
        assert_eq!(restricted.outside("198.51.100.1:443".parse().unwrap(), || unreachable!()), None);
    }

    #[test]
    fn clients_on_the_hosts_loopback_are_the_gateway() {
        let config = UserConfig::default();
        let inside = |text: &str, guest: &str| config.inside(text.parse().unwrap(), guest.parse().unwrap()).to_string();
        assert_eq!(inside("127.0.0.1:5", "10.0.2.15"), "10.0.2.2:5");
        assert_eq!(inside("[::1]:5", "10.0.2.15"), "10.0.2.2:5");
        assert_eq!(inside("192.0.2.1:5", "10.0.2.15"), "192.0.2.1:5");
        assert_eq!(inside("192.0.2.1:5", "fec0::15"), "[fec0::2]:5");
    }
}
