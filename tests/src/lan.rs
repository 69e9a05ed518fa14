//! A network with one other station on it, for guests: it answers ARP, ICMP echo, DHCP and TFTP, and keeps what it does not understand.
//!
//! It works while the guest sends, without threads or clocks, so that runs in deterministic time stay that. Absent: TCP, fragments, lost frames.
//!
//! ```text
//!  10.0.2.2 the station (52:55:0a:00:02:02)    10.0.2.15 whoever asks for an address
//! ```

use emu_core::bus::Notifier;
use emu_devices::net::NetBackend;
use emu_devices::net::checksum::{add, sum};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

/// The station's addresses.
pub const STATION_MAC: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];
pub const STATION: [u8; 4] = [10, 0, 2, 2];
/// The guest's address.
pub const GUEST: [u8; 4] = [10, 0, 2, 15];

const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const ICMP: u8 = 1;
const UDP: u8 = 17;
const DHCP_SERVER: u16 = 67;
const TFTP: u16 = 69;
/// The station's port for a transfer.
const TRANSFER: u16 = 1069;

/// What the station has seen and has still to say. Clones are the same network.
#[derive(Clone, Default)]
pub struct Lan(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    boot_file: String,
    waiting: VecDeque<Vec<u8>>,
    notifier: Option<Notifier>,
    transfer: Option<Transfer>,
    log: Vec<String>,
    others: Vec<Vec<u8>>,
}

/// A file on its way.
struct Transfer {
    name: String,
    block_size: usize,
}

impl Lan {
    /// A network whose station offers `files` by TFTP and `boot_file` by DHCP.
    pub fn new(boot_file: &str, files: impl IntoIterator<Item = (&'static str, Vec<u8>)>) -> Lan {
        let files = files.into_iter().map(|(name, contents)| (name.to_string(), contents)).collect();
        Lan(Arc::new(Mutex::new(State { files, boot_file: boot_file.into(), ..State::default() })))
    }

    /// One line for each DHCP message, ping and file that was asked for.
    pub fn log(&self) -> Vec<String> {
        self.lock().log.clone()
    }

    /// Takes the frames that are no conversation with the station.
    pub fn take_others(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.lock().others)
    }

    /// Sends a frame to the guest.
    pub fn deliver(&self, frame: &[u8]) {
        let mut state = self.lock();
        state.waiting.push_back(frame.to_vec());
        let notifier = state.notifier.clone();
        drop(state);
        if let Some(notifier) = notifier {
            notifier.notify();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl NetBackend for Lan {
    fn send(&mut self, frame: &[u8]) -> bool {
        let mut state = self.lock();
        if state.answer(frame).is_none() {
            state.others.push(frame.to_vec());
        }
        let notifier = state.notifier.clone().filter(|_| !state.waiting.is_empty());
        drop(state);
        if let Some(notifier) = notifier {
            notifier.notify();
        }
        true
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> bool {
        let Some(next) = self.lock().waiting.pop_front() else { return false };
        *frame = next;
        true
    }

    fn set_notifier(&mut self, notifier: Notifier) {
        self.lock().notifier = Some(notifier);
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// An Ethernet frame.
pub fn ethernet(to: &[u8], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [to, &STATION_MAC, &ethertype.to_be_bytes(), payload].concat()
}

fn ip(protocol: u8, to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((20 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
    packet.extend(STATION);
    packet.extend(to);
    let check = !sum(&packet);
    packet[10..12].copy_from_slice(&check.to_be_bytes());
    packet.extend(payload);
    packet
}

fn udp(from: u16, to: u16, target: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let len = 8 + payload.len() as u16;
    let mut datagram = [from, to, len, 0].map(u16::to_be_bytes).concat();
    datagram.extend(payload);
    let pseudo = add(add(sum(&STATION), sum(&target)), u16::from(UDP) + len);
    let check = !add(pseudo, sum(&datagram));
    datagram[6..8].copy_from_slice(&check.to_be_bytes());
    ip(UDP, target, &datagram)
}

impl State {
    /// Answers what the station understands.
    fn answer(&mut self, frame: &[u8]) -> Option<()> {
        let sender = frame.get(6..12)?.to_vec();
        let payload = frame.get(14..)?;
        let reply = match word(frame, 12)? {
            ARP => (ARP, arp(payload)?),
            IPV4 => {
                let packet = payload.get(..usize::from(word(payload, 2)?))?;
                let data = packet.get(20..)?;
                match packet[9] {
                    ICMP if packet[16..20] == STATION && data.first() == Some(&8) => {
                        self.log.push("ping".into());
                        let mut echo = data.to_vec();
                        echo[0] = 0;
                        echo[2..4].fill(0);
                        let check = !sum(&echo);
                        echo[2..4].copy_from_slice(&check.to_be_bytes());
                        (IPV4, ip(ICMP, GUEST, &echo))
                    }
                    UDP => (IPV4, self.datagram(data)?),
                    _ => return None,
                }
            }
            _ => return None,
        };
        self.waiting.push_back(ethernet(&sender, reply.0, &reply.1));
        Some(())
    }

    fn datagram(&mut self, data: &[u8]) -> Option<Vec<u8>> {
        let (from, to, payload) = (word(data, 0)?, word(data, 2)?, data.get(8..)?);
        match to {
            DHCP_SERVER => Some(udp(DHCP_SERVER, 68, [255; 4], &self.dhcp(payload)?)),
            TFTP => Some(udp(TRANSFER, from, GUEST, &self.read_request(payload)?)),
            TRANSFER => Some(udp(TRANSFER, from, GUEST, &self.acknowledgement(payload)?)),
            _ => None,
        }
    }

    /// RFC 2131: an offer for DISCOVER, an acknowledgement for REQUEST.
    fn dhcp(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let mut options = message.get(240..)?;
        let mut kind = 0;
        while let [code, len, rest @ ..] = options {
            match code {
                0 => options = &options[1..],
                255 => break,
                _ => {
                    if *code == 53 {
                        kind = *rest.first()?;
                    }
                    options = rest.get(usize::from(*len)..)?;
                }
            }
        }
        let (answer, name) = match kind {
            1 => (2, "discover"),
            3 => (5, "request"),
            _ => return None,
        };
        self.log.push(format!("dhcp {name}"));
        let mut reply = message.get(..240)?.to_vec();
        reply[0] = 2;
        reply[16..20].copy_from_slice(&GUEST);
        reply[20..24].copy_from_slice(&STATION);
        reply[44..236].fill(0);
        reply[108..108 + self.boot_file.len()].copy_from_slice(self.boot_file.as_bytes());
        reply.extend([
            53, 1, answer, 54, 4, 10, 0, 2, 2, 51, 4, 0, 0, 0x70, 0x80, 1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 2, 2,
        ]);
        reply.extend([6, 4, 10, 0, 2, 3, 255]);
        Some(reply)
    }

    /// RFC 1350, 2347, 2348 and 2349: a request for a file.
    fn read_request(&mut self, request: &[u8]) -> Option<Vec<u8>> {
        let mut strings = request.get(2..)?.split(|byte| *byte == 0).map(|s| String::from_utf8_lossy(s).into_owned());
        let name = strings.next()?;
        let options: Vec<String> = strings.skip(1).collect();
        self.log.push(format!("tftp {name}"));
        let Some(size) = self.files.get(name.trim_start_matches('/')).map(Vec::len) else {
            return Some(b"\0\x05\0\x01not found\0".to_vec());
        };
        let mut transfer = Transfer { name: name.trim_start_matches('/').into(), block_size: 512 };
        let mut oack = vec![0, 6];
        for pair in options.chunks_exact(2) {
            let value = match pair[0].to_lowercase().as_str() {
                "tsize" => size.to_string(),
                "blksize" => {
                    transfer.block_size = pair[1].parse().ok().filter(|n| (8..=1468).contains(n)).unwrap_or(512);
                    transfer.block_size.to_string()
                }
                _ => continue,
            };
            oack.extend([pair[0].as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
        }
        self.transfer = Some(transfer);
        if oack.len() > 2 { Some(oack) } else { self.block(1) }
    }

    fn acknowledgement(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        if message.get(..2)? != [0, 4] {
            self.transfer = None;
            return None;
        }
        self.block(word(message, 2)?.wrapping_add(1))
    }

    /// Block `number` of the transfer; block numbers wrap, so files are of fewer than 65536 blocks.
    fn block(&self, number: u16) -> Option<Vec<u8>> {
        let transfer = self.transfer.as_ref()?;
        let file = self.files.get(&transfer.name)?;
        let start = usize::from(number.checked_sub(1)?) * transfer.block_size;
        let contents = file.get(start..)?;
        let block = &contents[..contents.len().min(transfer.block_size)];
        Some([&[0, 3], &number.to_be_bytes()[..], block].concat())
    }
}

/// An answer to a request for the station's address.
fn arp(request: &[u8]) -> Option<Vec<u8>> {
    if word(request, 6)? != 1 || request.get(24..28)? != STATION {
        return None;
    }
    let mut reply = request[..8].to_vec();
    reply[7] = 2;
    reply.extend(STATION_MAC);
    reply.extend(STATION);
    reply.extend(&request[8..18]);
    Some(reply)
}
