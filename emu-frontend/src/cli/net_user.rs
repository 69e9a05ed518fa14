//! The properties of `-netdev user`, and the syntax of forwarded ports, which monitors have too.

use super::error::StartError;
use super::net_socket::{resolve, split_host};
use super::value::{KeyValues, parse_number};
use crate::net::user::config::{Forward, GuestForward, GuestTarget, UserConfig};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Names and paths that go into DHCP options are not longer.
const LONGEST_NAME: usize = 128;

/// Reads all properties of a user network.
///
/// # Errors
/// An address, number or forward that cannot be.
pub fn parse(v: &mut KeyValues) -> Result<UserConfig, StartError> {
    let mut config = UserConfig::default();
    for (key, on) in [("ipv4", &mut config.ipv4), ("ipv6", &mut config.ipv6)] {
        *on = v.take_bool(key)?.unwrap_or(*on);
    }
    if !config.ipv4 && !config.ipv6 {
        return Err(v.error("ipv4=off and ipv6=off leave no network"));
    }
    addresses(v, &mut config)?;
    addresses6(v, &mut config)?;
    config.restrict = v.take_bool("restrict")?.unwrap_or(false);
    let mut name = |key: &str| -> Result<Option<String>, StartError> {
        let text = v.take(key)?;
        match &text {
            Some(t) if t.len() > LONGEST_NAME => Err(v.error(format!("'{key}' is longer than {LONGEST_NAME} bytes"))),
            _ => Ok(text),
        }
    };
    config.hostname = name("hostname")?;
    config.domain_name = name("domainname")?;
    config.bootfile = name("bootfile")?;
    config.tftp_server_name = name("tftp-server-name")?;
    config.dns_search = v.take_all("dnssearch")?;
    if let Some(wrong) = config.dns_search.iter().find(|domain| !is_domain(domain)) {
        return Err(v.error(format!("'dnssearch={wrong}' is not a domain name")));
    }
    if let Some(folder) = v.take("tftp")? {
        match std::fs::metadata(&folder) {
            Ok(found) if found.is_dir() => config.tftp = Some(folder.into()),
            Ok(_) => return Err(v.error(format!("'tftp={folder}' is not a folder"))),
            Err(e) => return Err(v.error(format!("'tftp={folder}': {e}"))),
        }
    }
    for key in ["smb", "smbserver"] {
        if v.take(key)?.is_some() {
            return Err(v.error(format!(
                "'{key}' is not implemented: share files by tftp=, or by a server on the host at {}",
                config.host
            )));
        }
    }
    for text in v.take_all("hostfwd")? {
        let forward = parse_forward(&text, config.dhcp_start);
        config.forwards.push(forward.map_err(|problem| v.error(format!("'hostfwd={text}': {problem}")))?);
    }
    for text in v.take_all("guestfwd")? {
        let forward = parse_guest_forward(&text, &config);
        config.guest_forwards.push(forward.map_err(|problem| v.error(format!("'guestfwd={text}': {problem}")))?);
    }
    Ok(config)
}

fn addresses(v: &mut KeyValues, config: &mut UserConfig) -> Result<(), StartError> {
    if let Some(text) = v.take("net")? {
        let (network, mask) =
            parse_network(&text).ok_or_else(|| v.error(format!("'net={text}': expected ADDRESS/BITS")))?;
        (config.network, config.mask) = (network, mask);
        let at = |number: u32| Ipv4Addr::from(u32::from(network) | (number & !u32::from(mask)));
        (config.host, config.dns, config.dhcp_start) = (at(0x202), at(0x203), at(0x20f));
    }
    let places = [("host", &mut config.host), ("dns", &mut config.dns), ("dhcpstart", &mut config.dhcp_start)];
    for (key, place) in places {
        if let Some(text) = v.take(key)? {
            *place = text.parse().map_err(|_| v.error(format!("'{key}={text}' is not an IPv4 address")))?;
        }
    }
    let broadcast = config.broadcast();
    for (key, address) in [("host", config.host), ("dns", config.dns), ("dhcpstart", config.dhcp_start)] {
        if !config.is_inside(address.into()) || address == config.network || address == broadcast {
            let (network, mask) = (config.network, config.mask);
            return Err(v.error(format!("'{key}={address}' is not an address within {network} (mask {mask})")));
        }
    }
    if config.host == config.dns || config.dhcp_start == config.host || config.dhcp_start == config.dns {
        return Err(v.error("'host', 'dns' and 'dhcpstart' must differ"));
    }
    Ok(())
}

fn addresses6(v: &mut KeyValues, config: &mut UserConfig) -> Result<(), StartError> {
    if let Some(text) = v.take("ipv6-net")? {
        let (address, bits) = text.split_once('/').unwrap_or((&text, "64"));
        let network = address.parse::<Ipv6Addr>().ok().zip(parse_number(bits));
        let (address, bits) = network.ok_or_else(|| v.error(format!("'ipv6-net={text}': expected ADDRESS/BITS")))?;
        config.prefix6 = address;
        config.prefix6_len = bits.min(255) as u8;
    }
    if let Some(text) = v.take("ipv6-prefix")? {
        config.prefix6 = text.parse().map_err(|_| v.error(format!("'ipv6-prefix={text}' is not an IPv6 address")))?;
    }
    if let Some(bits) = v.take_number("ipv6-prefixlen", 128)? {
        config.prefix6_len = bits as u8;
    }
    if !(1..=126).contains(&config.prefix6_len) {
        return Err(v.error("the length of an IPv6 prefix is from 1 to 126"));
    }
    let mask = !(u128::MAX >> config.prefix6_len);
    config.prefix6 = Ipv6Addr::from(u128::from(config.prefix6) & mask);
    let at = |number: u128| Ipv6Addr::from(u128::from(config.prefix6) | (number & !mask));
    (config.host6, config.dns6) = (at(2), at(3));
    for key in ["ipv6-host", "ipv6-dns"] {
        let Some(text) = v.take(key)? else { continue };
        let address: Ipv6Addr = text.parse().map_err(|_| v.error(format!("'{key}={text}' is not an IPv6 address")))?;
        if u128::from(address) & mask != u128::from(config.prefix6) {
            return Err(v.error(format!("'{key}={text}' is not within {}/{}", config.prefix6, config.prefix6_len)));
        }
        let place = if key == "ipv6-host" { &mut config.host6 } else { &mut config.dns6 };
        *place = address;
    }
    Ok(())
}

/// `ADDRESS`, `ADDRESS/BITS` or `ADDRESS/MASK`; without a mask that of the address's class.
fn parse_network(text: &str) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let (address, mask) = text.split_once('/').map_or((text, None), |(address, mask)| (address, Some(mask)));
    let address: Ipv4Addr = address.parse().ok()?;
    let mask = match mask {
        Some(mask) => match mask.parse::<Ipv4Addr>() {
            Ok(mask) => u32::from(mask),
            Err(_) => u32::MAX << (32 - parse_number(mask).filter(|bits| (4..=30).contains(bits))?),
        },
        None => match address.octets()[0] {
            0..128 => 0xff00_0000,
            128..192 => 0xffff_0000,
            192..224 => 0xffff_ff00,
            224.. => 0xffff_fff0,
        },
    };
    let usable = mask.leading_ones() + mask.trailing_zeros() == 32 && (4..=30).contains(&mask.leading_ones());
    usable.then(|| (Ipv4Addr::from(u32::from(address) & mask), Ipv4Addr::from(mask)))
}

fn is_domain(text: &str) -> bool {
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_graphic());
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= 253 && text.split('.').all(label)
}

/// `[tcp|udp]:[ADDRESS]:PORT-[GUEST]:PORT`; `guest`: what an empty guest address is.
///
/// # Errors
/// What is wrong with it.
pub fn parse_forward(text: &str, guest: Ipv4Addr) -> Result<Forward, String> {
    let syntax = || "expected [tcp|udp]:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT".to_string();
    let (host, guest_text) = split_at_dash(text).ok_or_else(syntax)?;
    let (udp, host) = parse_host_side(host)?;
    let guest = parse_endpoint(guest_text, guest.into()).map_err(|problem| format!("guest: {problem}"))?;
    match guest.port() {
        0 => Err("the guest's port cannot be 0".into()),
        _ => Ok(Forward { udp, host, guest }),
    }
}

/// `[tcp|udp]:[ADDRESS]:PORT`, of the host: whether it is UDP, and where.
///
/// # Errors
/// What is wrong with it.
pub fn parse_host_side(text: &str) -> Result<(bool, SocketAddr), String> {
    let (protocol, rest) = text.split_once(':').ok_or("expected [tcp|udp]:[HOSTADDR]:HOSTPORT")?;
    let udp = match protocol {
        "" | "tcp" => false,
        "udp" => true,
        other => return Err(format!("no protocol '{other}'; expected tcp or udp")),
    };
    parse_endpoint(rest, Ipv4Addr::UNSPECIFIED.into())
        .map(|host| (udp, host))
        .map_err(|problem| format!("host: {problem}"))
}

/// At the dash between two ends, the first that is not within brackets.
fn split_at_dash(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            '-' if depth == 0 => return Some((&text[..i], &text[i + 1..])),
            _ => {}
        }
    }
    None
}

/// `[ADDRESS]:PORT`, an IPv6 address in brackets.
fn parse_endpoint(text: &str, default: IpAddr) -> Result<SocketAddr, String> {
    let (address, port) = text.rsplit_once(':').ok_or("expected [ADDRESS]:PORT")?;
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    let address = match bare {
        "" => default,
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        bare => bare.parse().map_err(|_| format!("'{bare}' is not an address"))?,
    };
    match parse_number(port).and_then(|port| u16::try_from(port).ok()) {
        Some(port) => Ok((address, port).into()),
        None => Err(format!("'{port}' is not a port")),
    }
}

/// `tcp:SERVER:PORT-TARGET`, where the target is `tcp:HOST:PORT`, `unix:PATH` or `cmd:COMMAND`.
fn parse_guest_forward(text: &str, config: &UserConfig) -> Result<GuestForward, String> {
    let (server, target) = split_at_dash(text).ok_or("expected tcp:SERVER:PORT-TARGET")?;
    let (protocol, server) = server.split_once(':').ok_or("expected tcp:SERVER:PORT-TARGET")?;
    if !matches!(protocol, "" | "tcp") {
        return Err(format!("no protocol '{protocol}'; expected tcp"));
    }
    let server = parse_endpoint(server, config.host.into())?;
    if !config.is_inside(server.ip()) {
        return Err(format!("{} is not an address of the guest's network", server.ip()));
    }
    let target = match target.split_once(':') {
        Some(("tcp", place)) => {
            let (host, port) =
                split_host(place).filter(|(host, _)| !host.is_empty()).ok_or("expected tcp:HOST:PORT as the target")?;
            GuestTarget::Tcp(resolve(&host, port)?)
        }
        Some(("unix", path)) if !path.is_empty() => GuestTarget::Unix(path.into()),
        Some(("cmd", command)) if !command.is_empty() => GuestTarget::Command(command.into()),
        _ => return Err("expected tcp:HOST:PORT, unix:PATH or cmd:COMMAND as the target".into()),
    };
    Ok(GuestForward { server, target })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> Result<UserConfig, String> {
        let mut v = KeyValues::parse("netdev", text, "type");
        v.take("type").unwrap();
        let config = parse(&mut v).map_err(|e| e.line())?;
        v.finish().map(|()| config).map_err(|e| e.line())
    }

    #[test]
    fn addresses_follow_the_network_unless_they_are_given() {
        assert_eq!(user("user").unwrap(), UserConfig::default());
        let config = user("user,net=192.168.76.0/24,dhcpstart=192.168.76.9").unwrap();
        let shown = [config.host, config.dns, config.dhcp_start].map(|a| a.to_string());
        assert_eq!(shown, ["192.168.76.2", "192.168.76.3", "192.168.76.9"]);
        assert_eq!(user("user,net=10.0.0.0").unwrap().host.to_string(), "10.0.2.2");
        assert_eq!(user("user,net=10.1.0.0/255.255.0.0,host=10.1.9.9").unwrap().host.to_string(), "10.1.9.9");
        let six = user("user,ipv6-net=fd00:1::/64,ipv6-dns=fd00:1::53").unwrap();
        assert_eq!((six.host6.to_string(), six.dns6.to_string()), ("fd00:1::2".into(), "fd00:1::53".into()));
    }

    #[test]
    fn forwards_have_defaults_at_both_ends() {
        let forwards = user("user,hostfwd=::2222-:22,hostfwd=udp:127.0.0.1:53-10.0.2.16:53").unwrap().forwards;
        let forward =
            |udp, host: &str, guest: &str| Forward { udp, host: host.parse().unwrap(), guest: guest.parse().unwrap() };
        assert_eq!(forwards[0], forward(false, "0.0.0.0:2222", "10.0.2.15:22"));
        assert_eq!(forwards[1], forward(true, "127.0.0.1:53", "10.0.2.16:53"));
        let given = user("user,guestfwd=tcp:10.0.2.100:80-cmd:cat -n - x").unwrap().guest_forwards;
        assert_eq!(given[0].target, GuestTarget::Command("cat -n - x".into()));
    }

    #[test]
    fn what_cannot_be_is_told_in_one_line() {
        for wrong in [
            "net=10.0.2.0/33",
            "net=x",
            "host=10.0.3.2",
            "dns=10.0.2.2",
            "dhcpstart=10.0.2.255",
            "hostfwd=tcp:2222",
            "hostfwd=sctp::1-:2",
            "hostfwd=tcp::70000-:22",
            "hostfwd=tcp::22-:0",
            "guestfwd=tcp:192.0.2.1:1-cmd:cat",
            "guestfwd=tcp:10.0.2.100:1-chardev:x",
            "smb=/tmp",
            "tftp=/nonexistent",
            "ipv6-net=fd00::/127",
            "ipv6-host=fd00::1",
            "dnssearch=a..b",
            "ipv4=off,ipv6=off",
            "foo=bar",
        ] {
            let line = user(&format!("user,{wrong}")).unwrap_err();
            assert!(line.starts_with(&format!("-netdev user,{wrong}: ")) && !line.contains('\n'), "{line}");
        }
    }
}
