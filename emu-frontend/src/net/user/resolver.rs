//! The host's name server, to which the guest's questions go.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const PORT: u16 = 53;
const FILE: &str = "/etc/resolv.conf";
/// How long what the file said is believed; hosts change networks while guests run.
const LIFETIME: Duration = Duration::from_secs(5);

static KNOWN: Mutex<Option<(Instant, IpAddr)>> = Mutex::new(None);

/// The name server: `given`, or the first that resolv.conf names, or the host itself.
pub fn name_server(given: Option<SocketAddr>) -> SocketAddr {
    if let Some(given) = given {
        return given;
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let address = match *known {
        Some((when, address)) if when.elapsed() < LIFETIME => address,
        _ => {
            let address = first(&std::fs::read_to_string(FILE).unwrap_or_default());
            *known = Some((Instant::now(), address));
            address
        }
    };
    (address, PORT).into()
}

fn first(file: &str) -> IpAddr {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = (words.next() == Some("nameserver")).then(|| words.next())??;
        // A link-local server is of no use without the interface that is named behind it.
        address.parse::<IpAddr>().ok()
    };
    file.lines().find_map(server).unwrap_or(Ipv4Addr::LOCALHOST.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_server_that_can_be_used_is_the_one() {
        let text =
            "# nameserver 1.1.1.1\nsearch a\nnameserver fe80::1%eth0\n nameserver\t192.0.2.1 \nnameserver 192.0.2.2\n";
        assert_eq!(first(text).to_string(), "192.0.2.1");
        assert_eq!(first("nameserver ::1").to_string(), "::1");
        assert_eq!(first("").to_string(), "127.0.0.1");
    }
}
