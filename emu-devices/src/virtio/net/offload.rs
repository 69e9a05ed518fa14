//! What a driver leaves to the device: checksums (VIRTIO 1.2, 5.1.6.2; RFC 1071) and the cutting of long TCP packets into segments
//! (RFC 9293; IPv4: RFC 791, IPv6: RFC 8200).

/// Adds up `bytes` as big-endian words, to `sum`.
fn add(bytes: &[u8], sum: u64) -> u64 {
    // Eight bytes at a time: carries of 32-bit words fold into words of 16 bits in the end.
    let mut chunks = bytes.chunks_exact(4);
    let mut total = sum;
    for chunk in &mut chunks {
        total += u64::from(u32::from_be_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
    }
    let mut rest = [0; 4];
    rest[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    total + u64::from(u32::from_be_bytes(rest))
}

fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Completes a checksum: the field at `start + offset` holds the sum of the pseudo-header, and becomes the checksum of all from `start`
/// on. Whether both lie within the frame.
pub fn complete_checksum(frame: &mut [u8], start: usize, offset: usize) -> bool {
    let at = start + offset;
    if at + 2 > frame.len() {
        return false;
    }
    let sum = !fold(add(&frame[start..], 0));
    // 0 would mean "no checksum" to UDP, and is the same number as FFFFh.
    let sum = if sum == 0 { 0xffff } else { sum };
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    true
}

/// The least segment that frames are cut into: Linux sends none shorter either, and bounds what one frame can become.
const LEAST_SEGMENT: usize = 48;
/// The longest headers of such a frame, with VLANs and extensions of IPv6, which each of its segments repeats.
const LONGEST_HEADERS: usize = 512;
const ETHERNET: usize = 14;
const VLAN: usize = 4;
const TCP: usize = 20;
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// Cuts a TCP frame into segments with at most `mss` bytes of data, and calls `send` with each. Whether it is a TCP frame of
/// IPv4 or IPv6 (`v6`) whose TCP header begins at `start`.
pub fn segment(frame: &[u8], v6: bool, start: usize, mss: usize, mut send: impl FnMut(&[u8])) -> bool {
    let Some(layout) = Layout::of(frame, v6, start).filter(|_| mss >= LEAST_SEGMENT) else { return false };
    let (headers, data) = frame.split_at(layout.data);
    let count = data.len().div_ceil(mss).max(1);
    let mut packet = Vec::with_capacity(layout.data + mss);
    for index in 0..count {
        let part = &data[(index * mss).min(data.len())..((index + 1) * mss).min(data.len())];
        packet.clear();
        packet.extend(headers);
        packet.extend(part);
        layout.finish(&mut packet, index, index * mss, index + 1 == count);
        send(&packet);
    }
    true
}

/// Where the headers of a TCP frame are.
struct Layout {
    v6: bool,
    ip: usize,
    tcp: usize,
    data: usize,
}

impl Layout {
    fn of(frame: &[u8], v6: bool, tcp: usize) -> Option<Layout> {
        let mut ip = ETHERNET;
        while matches!(frame.get(ip - 2..ip)?, [0x81, 0x00] | [0x88, 0xa8]) {
            ip += VLAN;
        }
        let fixed = if v6 { 40 } else { 20 };
        let version = frame.get(ip)? >> 4;
        if version != if v6 { 6 } else { 4 } || tcp < ip + fixed || frame.len() < tcp + TCP {
            return None;
        }
        let data = tcp + 4 * usize::from(frame[tcp + 12] >> 4);
        (data >= tcp + TCP && data <= frame.len().min(LONGEST_HEADERS)).then_some(Layout { v6, ip, tcp, data })
    }

    /// Corrects lengths, numbers and checksums of segment `index`, whose data begin at `offset`.
    fn finish(&self, packet: &mut [u8], index: usize, offset: usize, last: bool) {
        let Layout { v6, ip, tcp, .. } = *self;
        let len = packet.len();
        let mut put = |at: usize, value: u16| packet[at..at + 2].copy_from_slice(&value.to_be_bytes());
        if v6 {
            put(ip + 4, (len - ip - 40) as u16);
        } else {
            put(ip + 2, (len - ip) as u16);
            put(ip + 10, 0);
            let id = u16::from_be_bytes([packet[ip + 4], packet[ip + 5]]).wrapping_add(index as u16);
            packet[ip + 4..ip + 6].copy_from_slice(&id.to_be_bytes());
            let header = ip + (4 * usize::from(packet[ip] & 15)).clamp(20, tcp - ip);
            let sum = !fold(add(&packet[ip..header], 0));
            packet[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
        }
        let number = [packet[tcp + 4], packet[tcp + 5], packet[tcp + 6], packet[tcp + 7]];
        let number = u32::from_be_bytes(number).wrapping_add(offset as u32);
        packet[tcp + 4..tcp + 8].copy_from_slice(&number.to_be_bytes());
        if !last {
            packet[tcp + 13] &= !FIN_PSH;
        }
        if index > 0 {
            packet[tcp + 13] &= !CWR;
        }
        packet[tcp + 16..tcp + 18].fill(0);
        let addresses = if v6 { ip + 8..ip + 40 } else { ip + 12..ip + 20 };
        let pseudo = add(&packet[addresses], (len - tcp) as u64 + 6);
        let sum = !fold(add(&packet[tcp..], pseudo));
        packet[tcp + 16..tcp + 18].copy_from_slice(&sum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum over a packet with a right checksum is FFFFh.
    fn tcp_sum(packet: &[u8], addresses: std::ops::Range<usize>, tcp: usize) -> u16 {
        fold(add(&packet[tcp..], add(&packet[addresses], (packet.len() - tcp) as u64 + 6)))
    }

    fn v4(data: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0, 0, 0, 0x12, 0xff, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
        frame.extend([0x30, 0x39, 0, 80, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1, 0x50, 0x99, 1, 0, 0xaa, 0xbb, 0, 0]);
        frame.extend(data);
        frame
    }

    #[test]
    fn sums_are_those_of_rfc_1071() {
        assert_eq!(fold(add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 0)), 0xddf2);
        assert_eq!(fold(add(&[0x12, 0x34, 0x56], 0)), 0x6834);
        let mut frame = [9, 9, 0x12, 0x34, 0, 0, 0x56];
        assert!(complete_checksum(&mut frame, 2, 2));
        assert_eq!(frame, [9, 9, 0x12, 0x34, 0x97, 0xcb, 0x56]);
        assert!(!complete_checksum(&mut frame, 5, 1) && !complete_checksum(&mut frame, 0xffff, 0xffff));
    }

    #[test]
    fn long_frame_becomes_segments_that_follow_each_other() {
        let data: Vec<u8> = (0..250u8).collect();
        let mut packets = Vec::new();
        assert!(segment(&v4(&data), false, 34, 100, |packet| packets.push(packet.to_vec())));
        assert_eq!(packets.len(), 3);
        let all: Vec<u8> = packets.iter().flat_map(|packet| packet[54..].to_vec()).collect();
        assert_eq!(all, data);
        for (i, packet) in packets.iter().enumerate() {
            assert_eq!(u16::from_be_bytes([packet[16], packet[17]]), packet.len() as u16 - 14);
            assert_eq!(fold(add(&packet[14..34], 0)), 0xffff);
            assert_eq!(tcp_sum(packet, 26..34, 34), 0xffff);
            assert_eq!(u16::from_be_bytes([packet[18], packet[19]]), 0x12ff + i as u16);
            let number = u32::from_be_bytes(packet[38..42].try_into().unwrap());
            assert_eq!(number, 0xffff_ff00u32.wrapping_add(100 * i as u32));
            assert_eq!(packet[47], [0x90, 0x10, 0x19][i], "CWR first, FIN and PSH last");
        }
    }

    #[test]
    fn ipv6_in_a_vlan_is_cut_as_well() {
        let mut frame = vec![0; 12];
        frame.extend([0x81, 0, 0, 5, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 6, 64]);
        frame.extend([0xfe; 32]);
        frame.extend(&v4(&[3; 150])[34..]);
        let mut packets = Vec::new();
        assert!(segment(&frame, true, 58, 100, |packet| packets.push(packet.to_vec())));
        let lens: Vec<usize> = packets.iter().map(Vec::len).collect();
        assert_eq!(lens, [178, 128]);
        for packet in packets {
            assert_eq!(u16::from_be_bytes([packet[22], packet[23]]) as usize, packet.len() - 58);
            assert_eq!(tcp_sum(&packet, 26..58, 58), 0xffff);
        }
    }

    #[test]
    fn nonsense_is_no_tcp_frame() {
        let frame = v4(&[0; 10]);
        for (v6, start, mss) in [(true, 34, 100), (false, 33, 100), (false, 34, 0), (false, 34, 47), (false, 60, 100)] {
            assert!(!segment(&frame, v6, start, mss, |_| panic!("a segment")), "{v6} {start} {mss}");
        }
        // Headers that would be repeated thousands of times.
        let mut long = vec![0x52; 60_000];
        long[12..15].copy_from_slice(&[8, 0, 0x45]);
        assert!(!segment(&long, false, 30_000, 48, |_| panic!("a segment")));
        for len in 0..54 {
            assert!(!segment(&frame[..len], false, 34, 100, |_| panic!("a segment")));
        }
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..20_000 {
            let mut frame = frame.clone();
            for _ in 0..4 {
                let at = random.usize(12..frame.len());
                frame[at] = random.u8(..);
            }
            segment(&frame, random.bool(), random.usize(0..70), random.usize(0..200), |_| ());
        }
    }
}
