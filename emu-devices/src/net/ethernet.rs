//! What every Ethernet controller knows of frames: IEEE 802.3-2018 clause 3.

/// The least bytes of a frame on a cable, without frame check sequence.
pub const MIN_FRAME: usize = 60;
/// The address of everybody.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// The frame check sequence of a frame, first byte first.
pub fn frame_check_sequence(frame: &[u8]) -> [u8; 4] {
    crc32fast::hash(frame).to_le_bytes()
}

/// The destination address of a frame, which may be cut short.
pub fn destination(frame: &[u8]) -> [u8; 6] {
    let mut address = [0; 6];
    address.iter_mut().zip(frame).for_each(|(to, from)| *to = *from);
    address
}

/// The six bits of the CRC over a destination address that its last bit leaves in front: what the DP8390 hashes group addresses by.
pub fn multicast_hash(address: [u8; 6]) -> u8 {
    (address_crc(address) >> 26) as u8
}

/// The CRC register after an address, before its complement is sent: the bit that is sent first is bit 31.
fn address_crc(address: [u8; 6]) -> u32 {
    (!crc32fast::hash(&address)).reverse_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_is_that_of_802_3() {
        assert_eq!(frame_check_sequence(b"123456789"), 0xcbf4_3926u32.to_le_bytes());
    }

    #[test]
    fn multicast_hash_is_that_of_the_dp8390() {
        // As drivers compute it: bit by bit, the lowest of each byte first.
        let hash = |address: [u8; 6]| {
            let mut crc = u32::MAX;
            for byte in address {
                for bit in 0..8 {
                    let carry = (crc >> 31) ^ u32::from(byte >> bit & 1);
                    crc = crc << 1 ^ if carry != 0 { 0x04c1_1db7 } else { 0 };
                }
            }
            (crc >> 26) as u8
        };
        for address in [[0x01, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1], BROADCAST] {
            assert_eq!(multicast_hash(address), hash(address), "{address:x?}");
        }
    }
}
