//! Fragments of the guest's datagrams over IPv4, put together again (RFC 815), a bounded number of bytes at a time.

use smoltcp::wire::{IpProtocol, Ipv4Packet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Datagrams that are being put together.
const DATAGRAMS: usize = 16;
/// How long that may take.
const LIFETIME: Duration = Duration::from_secs(15);
/// Bytes of a datagram at most.
const LARGEST: usize = 65_535;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Key(Ipv4Addr, Ipv4Addr, u16, IpProtocol);

struct Datagram {
    key: Key,
    /// The first fragment's header, with what follows it.
    bytes: Vec<u8>,
    /// Which units of eight bytes are there.
    there: Vec<bool>,
    missing_last: bool,
    since: Instant,
}

/// What has come so far.
#[derive(Default)]
pub struct Fragments {
    datagrams: Vec<Datagram>,
}

/// Bytes of the header that a datagram gets.
const HEADER: usize = 20;

impl Fragments {
    /// Takes a fragment; the packet that it completes, from its IP header on, if it does.
    pub fn receive(&mut self, packet: &Ipv4Packet<&[u8]>, now: Instant) -> Option<Vec<u8>> {
        let (offset, data) = (usize::from(packet.frag_offset()), packet.payload());
        let end = offset + data.len();
        let last = !packet.more_frags();
        // All fragments but the last are of whole units.
        if data.is_empty() || HEADER + end > LARGEST || !last && !data.len().is_multiple_of(8) {
            return None;
        }
        self.expire(now);
        let key = Key(packet.src_addr(), packet.dst_addr(), packet.ident(), packet.next_header());
        let position = match self.datagrams.iter().position(|datagram| datagram.key == key) {
            Some(position) => position,
            None => {
                if self.datagrams.len() >= DATAGRAMS {
                    self.datagrams.remove(0);
                }
                let datagram =
                    Datagram { key, bytes: vec![0; HEADER], there: Vec::new(), missing_last: true, since: now };
                self.datagrams.push(datagram);
                self.datagrams.len() - 1
            }
        };
        let datagram = &mut self.datagrams[position];
        if datagram.bytes.len() < HEADER + end {
            if !datagram.missing_last {
                // Beyond what was the end: somebody is playing.
                self.datagrams.remove(position);
                return None;
            }
            datagram.bytes.resize(HEADER + end, 0);
            datagram.there.resize(end.div_ceil(8), false);
        }
        datagram.bytes[HEADER + offset..HEADER + end].copy_from_slice(data);
        datagram.there[offset / 8..end.div_ceil(8)].fill(true);
        if last {
            datagram.missing_last = false;
            datagram.bytes.truncate(HEADER + end);
            datagram.there.truncate(end.div_ceil(8));
        }
        if datagram.missing_last || datagram.there.contains(&false) {
            return None;
        }
        let mut whole = self.datagrams.remove(position).bytes;
        let len = whole.len() as u16;
        let mut header = Ipv4Packet::new_unchecked(&mut whole[..]);
        header.set_version(4);
        header.set_header_len(HEADER as u8);
        header.set_total_len(len);
        header.set_hop_limit(64);
        header.set_next_header(packet.next_header());
        header.set_src_addr(packet.src_addr());
        header.set_dst_addr(packet.dst_addr());
        header.fill_checksum();
        Some(whole)
    }

    /// Forgets what has not been completed for long.
    pub fn expire(&mut self, now: Instant) {
        self.datagrams.retain(|datagram| now.saturating_duration_since(datagram.since) < LIFETIME);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(ident: u16, offset: usize, more: bool, data: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; HEADER];
        packet.extend_from_slice(data);
        let len = packet.len() as u16;
        let mut ip = Ipv4Packet::new_unchecked(&mut packet[..]);
        ip.set_version(4);
        ip.set_header_len(HEADER as u8);
        ip.set_total_len(len);
        ip.set_ident(ident);
        ip.set_more_frags(more);
        ip.set_frag_offset(offset as u16);
        ip.set_next_header(IpProtocol::Udp);
        packet
    }

    fn give(fragments: &mut Fragments, packet: &[u8]) -> Option<Vec<u8>> {
        fragments
            .receive(&Ipv4Packet::new_checked(packet).unwrap(), Instant::now())
            .map(|whole| whole[HEADER..].to_vec())
    }

    #[test]
    fn fragments_in_any_order_make_the_datagram() {
        let data: Vec<u8> = (0..100).collect();
        let parts = [
            fragment(7, 0, true, &data[..40]),
            fragment(7, 40, true, &data[40..80]),
            fragment(7, 80, false, &data[80..]),
        ];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
            let mut fragments = Fragments::default();
            assert_eq!(give(&mut fragments, &parts[order[0]]), None);
            assert_eq!(give(&mut fragments, &parts[order[0]]), None);
            assert_eq!(give(&mut fragments, &parts[order[1]]), None);
            assert_eq!(give(&mut fragments, &parts[order[2]]), Some(data.clone()));
            assert!(fragments.datagrams.is_empty());
        }
    }

    #[test]
    fn nonsense_is_not_kept_and_what_is_kept_is_bounded() {
        let mut fragments = Fragments::default();
        assert_eq!(give(&mut fragments, &fragment(1, 65_528, false, &[0; 100])), None);
        assert_eq!(give(&mut fragments, &fragment(1, 0, true, &[0; 7])), None);
        assert!(fragments.datagrams.is_empty());
        for ident in 0..1000 {
            assert_eq!(give(&mut fragments, &fragment(ident, 60_000, true, &[0; 8])), None);
        }
        assert_eq!(fragments.datagrams.len(), DATAGRAMS);
        // An end before what is there already.
        assert_eq!(give(&mut fragments, &fragment(999, 0, false, &[0; 8])), Some(vec![0; 8]));
    }
}
