//! Transmission: manual 3.3 (descriptors), 3.4 (interrupts), 3.5 (segmentation), 3.6 (checksums).
//!
//! ```text
//!  63           48 47   40 39  36 35  32 31     24 23 20 19      16 15       0
//!  | special      | CSS   |      | STA  | CMD     | CSO          | length     |   legacy
//!  | special      | POPTS |      | STA  | DCMD    | 1  | length of 20 bits    |   data
//!  | MSS          | HDRLEN|      | STA  | TUCMD   | 0  | PAYLEN               |   context; offsets of checksums in front
//! ```

use super::*;
use crate::net::checksum;
use crate::net::ethernet::MIN_FRAME;

/// CMD, DCMD and TUCMD bits.
mod cmd {
    /// End of packet.
    pub const EOP: u8 = 1 << 0;
    /// Insert checksum, in legacy descriptors; segment, in others.
    pub const IC: u8 = 1 << 2;
    pub const TSE: u8 = 1 << 2;
    /// Report status; and report packet sent, which the 82540 treats alike.
    pub const RS: u8 = 1 << 3;
    pub const RPS: u8 = 1 << 4;
    /// Not a legacy descriptor.
    pub const DEXT: u8 = 1 << 5;
    /// Insert a VLAN tag.
    pub const VLE: u8 = 1 << 6;
    /// Delay the interrupt.
    pub const IDE: u8 = 1 << 7;
    /// TUCMD: the packet is TCP; IPv4.
    pub const TCP: u8 = 1 << 0;
    pub const IP: u8 = 1 << 1;
}

/// POPTS bits: insert the checksum of IP, and of TCP or UDP.
const IXSM: u8 = 1 << 0;
const TXSM: u8 = 1 << 1;
/// Descriptor done.
const DD: u8 = 1 << 0;
/// DTYP of a data descriptor.
const DATA: u8 = 1;
/// Bytes of descriptors and data that one doorbell has processed at once.
pub const WORK: usize = 4 << 20;
/// The longest packet that is gathered: more than an IP packet of 64 KiB with its headers. PAYLEN could say more, but IP cannot.
const LONGEST: usize = 72 << 10;
/// The longest frame on the cable.
const LONGEST_FRAME: usize = 16_384;

/// A context descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "names are the manual's")]
pub struct Context {
    pub ipcss: u8,
    pub ipcso: u8,
    pub ipcse: u16,
    pub tucss: u8,
    pub tucso: u8,
    pub tucse: u16,
    pub tucmd: u8,
    pub hdrlen: u8,
    pub mss: u16,
}

/// What goes with the packet that is being gathered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sending {
    /// The last context for packets that are segmented, and for others.
    pub contexts: [Context; 2],
    /// The bytes that have been gathered.
    pub packet: Vec<u8>,
    /// POPTS of its first descriptor.
    pub popts: u8,
    /// Its VLAN tag: the special field of its first descriptor.
    pub special: u16,
    /// A descriptor of this packet has been seen.
    pub begun: bool,
}

impl Sending {
    /// Brings a saved state into shape.
    pub fn restored(&mut self) {
        self.packet.truncate(LONGEST);
    }
}

impl E1000 {
    /// Processes the descriptors between TDH and TDT.
    pub(super) fn transmit(&mut self, cx: &mut DeviceContext) {
        self.more_to_send = false;
        if self.registers.tctl & tctl::EN == 0 || !self.is_master() || self.registers.tx.available() == 0 {
            return;
        }
        self.packet = std::mem::take(&mut self.registers.sending.packet);
        let mut work = 0;
        while self.registers.tx.available() != 0 {
            if work >= WORK {
                self.more_to_send = true;
                break;
            }
            let at = self.registers.tx.address();
            let mut bytes = [0; 16];
            cx.memory.read(at, &mut bytes);
            work += 16 + self.descriptor(cx, at, &bytes);
            self.registers.tx.advance();
        }
        self.registers.sending.packet = std::mem::take(&mut self.packet);
        let r = &self.registers;
        if r.tx.available() == 0 {
            self.raise(cause::TXQE);
        }
        // TXDCTL.LWTHRESH is in units of eight descriptors.
        let low = 8 * (self.registers.txdctl >> 25);
        if low != 0 && self.registers.tx.available() <= low {
            self.raise(cause::TXD_LOW);
        }
    }

    /// Executes a descriptor; how much work it was, in bytes.
    fn descriptor(&mut self, cx: &mut DeviceContext, at: u64, bytes: &[u8; 16]) -> usize {
        let command = bytes[11];
        let kind = bytes[10] >> 4;
        let mut work = 0;
        if command & cmd::DEXT == 0 {
            let len = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
            work += self.gather(cx, bytes, len);
            self.begin(0, bytes);
            if command & cmd::EOP != 0 {
                self.finish_legacy(cx, command, bytes[10], bytes[13]);
            }
        } else if kind == DATA {
            let len = u32::from_le_bytes([bytes[8], bytes[9], bytes[10] & 15, 0]) as usize;
            work += self.gather(cx, bytes, len);
            self.begin(bytes[13], bytes);
            if command & cmd::EOP != 0 {
                work += self.finish(cx, command);
            }
        } else {
            let context = Context {
                ipcss: bytes[0],
                ipcso: bytes[1],
                ipcse: u16::from_le_bytes([bytes[2], bytes[3]]),
                tucss: bytes[4],
                tucso: bytes[5],
                tucse: u16::from_le_bytes([bytes[6], bytes[7]]),
                tucmd: command,
                hdrlen: bytes[13],
                mss: u16::from_le_bytes([bytes[14], bytes[15]]),
            };
            self.registers.sending.contexts[usize::from(command & cmd::TSE == 0)] = context;
        }
        if command & (cmd::RS | cmd::RPS) != 0 {
            cx.memory.write(at.wrapping_add(12), &[bytes[12] | DD]);
            let r = &mut self.registers;
            if command & cmd::IDE == 0 || Self::start_timers(&mut r.tx_timers, r.tidv, r.tadv, cx.now) {
                self.raise(cause::TXDW);
            }
        }
        work
    }

    /// Notes what the first descriptor of a packet says about all of it.
    fn begin(&mut self, popts: u8, bytes: &[u8; 16]) {
        let sending = &mut self.registers.sending;
        if !sending.begun {
            sending.begun = true;
            sending.popts = popts;
            sending.special = u16::from_le_bytes([bytes[14], bytes[15]]);
        }
    }

    /// Appends the `len` bytes of a descriptor's buffer to the packet, as far as it may grow.
    fn gather(&mut self, cx: &DeviceContext, bytes: &[u8; 16], len: usize) -> usize {
        let [a, b, c, d, e, f, g, h, ..] = *bytes;
        let buffer = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let start = self.packet.len();
        let len = len.min(LONGEST - start.min(LONGEST));
        self.packet.resize(start + len, 0);
        cx.memory.read(buffer, &mut self.packet[start..]);
        len
    }

    fn finish_legacy(&mut self, cx: &mut DeviceContext, command: u8, cso: u8, css: u8) {
        if command & cmd::IC != 0 {
            insert(&mut self.packet, css, cso, 0, 0);
        }
        let packet = std::mem::take(&mut self.packet);
        self.segment.clear();
        self.segment.extend_from_slice(&packet);
        self.packet = packet;
        self.send(cx, command);
        self.end_packet();
    }

    /// The end of a packet of data descriptors; how much work segments were.
    fn finish(&mut self, cx: &mut DeviceContext, command: u8) -> usize {
        let segmented = command & cmd::TSE != 0;
        let context = self.registers.sending.contexts[usize::from(!segmented)];
        let popts = self.registers.sending.popts;
        let packet = std::mem::take(&mut self.packet);
        let header = usize::from(context.hdrlen);
        let mut work = 0;
        if segmented && context.mss != 0 && packet.len() > header {
            self.registers.statistics.segmented();
            let mss = usize::from(context.mss);
            let (header, payload) = packet.split_at(header);
            let last = (payload.len() - 1) / mss;
            for (number, chunk) in payload.chunks(mss).enumerate() {
                self.segment.clear();
                self.segment.extend_from_slice(header);
                self.segment.extend_from_slice(chunk);
                adjust(&mut self.segment, &context, number, number * mss, chunk.len(), number == last);
                work += 64 + self.segment.len();
                self.checksums(&context, popts);
                self.send(cx, command);
            }
        } else {
            self.segment.clear();
            self.segment.extend_from_slice(&packet);
            self.checksums(&context, popts);
            self.send(cx, command);
        }
        self.packet = packet;
        self.end_packet();
        work
    }

    fn end_packet(&mut self) {
        self.packet.clear();
        self.registers.sending.begun = false;
    }

    fn checksums(&mut self, context: &Context, popts: u8) {
        // That of TCP first: the order does not matter, as their fields do not overlap.
        if popts & TXSM != 0 {
            insert(&mut self.segment, context.tucss, context.tucso, context.tucse, 0);
        }
        if popts & IXSM != 0 {
            insert(&mut self.segment, context.ipcss, context.ipcso, context.ipcse, 0);
        }
    }

    /// Puts `self.segment` on the cable, or where loopback leads.
    fn send(&mut self, cx: &mut DeviceContext, command: u8) {
        if command & cmd::VLE != 0 && self.registers.ctrl & ctrl::VME != 0 && self.segment.len() >= 12 {
            let [a, b] = (self.registers.vet as u16).to_be_bytes();
            let [c, d] = self.registers.sending.special.to_be_bytes();
            self.segment.splice(12..12, [a, b, c, d]);
        }
        if self.segment.is_empty() || self.segment.len() > LONGEST_FRAME {
            return;
        }
        if self.registers.tctl & tctl::PSP != 0 && self.segment.len() < MIN_FRAME {
            self.segment.resize(MIN_FRAME, 0);
        }
        let segment = std::mem::take(&mut self.segment);
        self.registers.statistics.sent(&segment);
        if self.loops() {
            self.receive_own(cx, &segment);
        } else if self.registers.link {
            self.backend.send(&segment);
        }
        self.segment = segment;
    }
}

/// Puts the checksum of `frame[css..=cse]` (to its end if `cse` is 0) plus `more` at `cso`, where software has left a partial sum.
fn insert(frame: &mut [u8], css: u8, cso: u8, cse: u16, more: u16) {
    let end = if cse == 0 { frame.len() } else { frame.len().min(usize::from(cse) + 1) };
    let (css, cso) = (usize::from(css), usize::from(cso));
    if css >= end || cso + 2 > frame.len() {
        return;
    }
    let value = !checksum::add(checksum::sum(&frame[css..end]), more);
    frame[cso..cso + 2].copy_from_slice(&value.to_be_bytes());
}

/// Makes headers of one segment of those of the whole packet: manual 3.5.4 to 3.5.7. `offset`: of its `len` bytes of data in the whole.
fn adjust(segment: &mut [u8], context: &Context, number: usize, offset: usize, len: usize, last: bool) {
    let total = segment.len();
    let (ip, transport) = (usize::from(context.ipcss), usize::from(context.tucss));
    let put16 = |segment: &mut [u8], at: usize, value: u16| {
        if let Some(field) = segment.get_mut(at..at + 2) {
            field.copy_from_slice(&value.to_be_bytes());
        }
    };
    let get16 =
        |segment: &[u8], at: usize| segment.get(at..at + 2).map_or(0, |field| u16::from_be_bytes([field[0], field[1]]));
    if context.tucmd & cmd::IP != 0 {
        put16(segment, ip + 2, total.saturating_sub(ip) as u16);
        let id = get16(segment, ip + 4).wrapping_add(number as u16);
        put16(segment, ip + 4, id);
    } else {
        // IPv6: the payload length.
        put16(segment, ip + 4, total.saturating_sub(ip + 40) as u16);
    }
    let transport_len = total.saturating_sub(transport) as u16;
    if context.tucmd & cmd::TCP != 0 {
        if let Some(field) = segment.get_mut(transport + 4..transport + 8) {
            let sequence = u32::from_be_bytes([field[0], field[1], field[2], field[3]]).wrapping_add(offset as u32);
            field.copy_from_slice(&sequence.to_be_bytes());
        }
        // FIN and PSH belong to the last segment.
        if let Some(flags) = segment.get_mut(transport + 13).filter(|_| !last) {
            *flags &= !0x09;
        }
    } else {
        put16(segment, transport + 4, (len + 8) as u16);
    }
    // Software leaves the length out of the pseudo header's sum, which hardware adds.
    let sum = checksum::add(get16(segment, usize::from(context.tucso)), transport_len);
    put16(segment, usize::from(context.tucso), sum);
}
