//! The Internet checksum (RFC 1071) and where IP packets carry it, for controllers that compute or check it.

/// The ones' complement sum of 16-bit words, first byte high; an odd last byte is padded.
pub fn sum(bytes: &[u8]) -> u16 {
    // A sum is the same in either byte order, but for the order of its own bytes (RFC 1071, 2 (B)), and in wider words.
    let mut words = bytes.chunks_exact(4);
    let mut total: u64 =
        (&mut words).map(|word| u64::from(u32::from_ne_bytes(word.try_into().unwrap_or_default()))).sum();
    let mut last = [0; 4];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    total += u64::from(u32::from_ne_bytes(last));
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    u16::from_be((total) as u16)
}

/// Two sums as one.
pub fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

/// What a receiver has found in a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the IPv4 header's checksum is right; `None` if there is none.
    pub ip: Option<bool>,
    /// Whether that of TCP or UDP is right; `None` if it is neither, or a fragment, or UDP without one.
    pub transport: Option<bool>,
}

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Checks the IPv4 or IPv6 packet of an Ethernet frame whose payload begins at `at`, behind its type.
pub fn verify(frame: &[u8], ethertype: u16, at: usize) -> Verdict {
    let Some(packet) = frame.get(at..) else { return Verdict::default() };
    match ethertype {
        0x0800 => verify_ipv4(packet).unwrap_or_default(),
        0x86dd => Verdict { ip: None, transport: verify_ipv6(packet) },
        _ => Verdict::default(),
    }
}

fn verify_ipv4(packet: &[u8]) -> Option<Verdict> {
    let fixed = packet.first_chunk::<20>()?;
    let header_len = usize::from(fixed[0] & 15) * 4;
    let len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    let header = packet.get(..header_len).filter(|_| fixed[0] >> 4 == 4 && header_len >= 20)?;
    let ip = sum(header) == 0xffff;
    let fragment = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff != 0;
    let transport = match packet.get(header_len..len) {
        Some(data) if !fragment => verify_transport(fixed[9], &fixed[12..20], data),
        _ => None,
    };
    Some(Verdict { ip: Some(ip), transport })
}

fn verify_ipv6(packet: &[u8]) -> Option<bool> {
    let fixed = packet.first_chunk::<40>()?;
    let len = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    let data = packet.get(40..40 + len)?;
    verify_transport(fixed[6], &fixed[8..40], data)
}

fn verify_transport(protocol: u8, addresses: &[u8], data: &[u8]) -> Option<bool> {
    let none = match protocol {
        TCP => data.len() < 20,
        UDP => data.len() < 8 || data[6..8] == [0, 0],
        _ => true,
    };
    if none {
        return None;
    }
    let pseudo = add(add(sum(addresses), u16::from(protocol)), data.len() as u16);
    Some(add(pseudo, sum(data)) == 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of RFC 1071's descendants in every textbook.
    const HEADER: [u8; 20] =
        [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];

    #[test]
    fn sum_is_that_of_big_endian_words() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
        assert_eq!(sum(&[0x12, 0x34, 0x56]), 0x6834);
        assert_eq!((sum(&[]), sum(&[0xff; 64_000])), (0, 0xffff));
        assert_eq!(sum(&HEADER), 0xffff);
        assert_eq!(add(0xffff, 0xffff), 0xffff);
    }

    /// An IPv4 packet around a UDP datagram of three bytes.
    fn datagram() -> Vec<u8> {
        let mut packet = HEADER.to_vec();
        packet[3] = 31;
        packet[10..12].fill(0);
        let crc = !sum(&packet);
        packet[10..12].copy_from_slice(&crc.to_be_bytes());
        packet.extend([0, 53, 0, 99, 0, 11, 0, 0, 1, 2, 3]);
        let total = add(add(sum(&packet[12..20]), 17 + 11), sum(&packet[20..]));
        packet[26..28].copy_from_slice(&(!total).to_be_bytes());
        packet
    }

    #[test]
    fn right_and_wrong_checksums_are_told_apart() {
        let good = datagram();
        assert_eq!(verify(&good, 0x0800, 0), Verdict { ip: Some(true), transport: Some(true) });
        let mut bad = good.clone();
        bad[30] ^= 1;
        assert_eq!(verify(&bad, 0x0800, 0), Verdict { ip: Some(true), transport: Some(false) });
        bad[8] ^= 1;
        assert_eq!(verify(&bad, 0x0800, 0).ip, Some(false));
        let mut without = good.clone();
        without[26..28].fill(0);
        assert_eq!(verify(&without, 0x0800, 0).transport, None);
        let mut fragment = good;
        fragment[6] = 0x20;
        assert_eq!(verify(&fragment, 0x0800, 0).transport, None);
    }

    #[test]
    fn what_is_cut_short_has_no_checksum() {
        let packet = datagram();
        for len in 0..packet.len() {
            let verdict = verify(&packet[..len], 0x0800, 0);
            assert_eq!((verdict.ip, verdict.transport), ((len >= 20).then_some(true), None), "{len}");
        }
        assert_eq!(verify(&packet, 0x0806, 0), Verdict::default());
        assert_eq!(verify(&packet, 0x86dd, 0), Verdict::default());
        assert_eq!(verify(&packet, 0x0800, 99), Verdict::default());
    }
}
