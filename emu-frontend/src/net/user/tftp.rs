//! The TFTP server (RFC 1350, options of RFC 2347, 2348 and 2349): files of one folder, to read, in octet mode.
//!
//! It answers from port 69, as QEMU's does, because other ports of the gateway are the host's. It sends what is asked for and leaves it to
//! clients to ask again. Deliberately absent: writing, netascii and windows.

use super::flow::{Idle, Slots};
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// The server's port.
pub const PORT: u16 = 69;
/// Transfers at a time.
const TRANSFERS: usize = 20;
/// How long a transfer may stand still.
const LIFETIME: Duration = Duration::from_secs(60);
/// Bytes of a block if nothing else is agreed on, and the most that fit into a packet of the guest's network.
const BLOCK: usize = 512;
const LARGEST_BLOCK: usize = super::outlet::MTU - super::outlet::IPV4_HEADER - 8 - 4;
/// Bytes of a name at most.
const LONGEST_NAME: usize = 512;

mod opcode {
    pub const READ: u16 = 1;
    pub const WRITE: u16 = 2;
    pub const DATA: u16 = 3;
    pub const ACK: u16 = 4;
    pub const ERROR: u16 = 5;
    pub const OPTIONS: u16 = 6;
}

mod error {
    pub const NOT_FOUND: u16 = 1;
    pub const ACCESS: u16 = 2;
    pub const ILLEGAL: u16 = 4;
    pub const UNKNOWN_TRANSFER: u16 = 5;
}

struct Transfer {
    client: SocketAddr,
    file: File,
    size: u64,
    block: usize,
    /// The block that was sent last, counted from 1 without end; 0: the agreement on options.
    sent: u64,
    used: Instant,
}

impl Idle for Transfer {
    fn used(&self) -> Instant {
        self.used
    }
}

/// The server.
pub struct Tftp {
    root: Option<PathBuf>,
    transfers: Slots<Transfer>,
}

impl Tftp {
    /// A server for what is in `root`, or one that has nothing.
    pub fn new(root: Option<PathBuf>) -> Tftp {
        Tftp { root, transfers: Slots::new(TRANSFERS) }
    }

    /// Answers a packet of `client`.
    pub fn receive(&mut self, client: SocketAddr, packet: &[u8], now: Instant) -> Option<Vec<u8>> {
        self.root.as_ref()?;
        let (code, rest) = packet.split_first_chunk()?;
        match u16::from_be_bytes(*code) {
            opcode::READ => Some(self.read(client, rest, now).unwrap_or_else(|(code, text)| failure(code, text))),
            opcode::WRITE => Some(failure(error::ACCESS, "this server only reads")),
            opcode::ACK => self.acknowledged(client, u16::from_be_bytes(*rest.first_chunk()?), now),
            opcode::ERROR => {
                self.transfers.retain(|transfer| transfer.client != client);
                None
            }
            _ => Some(failure(error::ILLEGAL, "unknown operation")),
        }
    }

    fn read(&mut self, client: SocketAddr, request: &[u8], now: Instant) -> Result<Vec<u8>, (u16, &'static str)> {
        let mut words = request.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word));
        let name = words.next().unwrap_or_default();
        let mode = words.next().unwrap_or_default();
        if !mode.eq_ignore_ascii_case("octet") {
            return Err((error::ILLEGAL, "only octet mode is supported"));
        }
        let (file, size) = self.open(&name).ok_or((error::NOT_FOUND, "file not found"))?;
        let mut transfer = Transfer { client, file, size, block: BLOCK, sent: 0, used: now };
        let mut agreed = Vec::new();
        // Each option once at most: what is left of the packet is bounded, and so is the answer.
        while let (Some(option), Some(value)) = (words.next(), words.next()) {
            let option = option.to_ascii_lowercase();
            let number = value.parse::<u64>().ok();
            match (option.as_str(), number) {
                ("blksize", Some(size @ 8..)) => {
                    transfer.block = size.min(LARGEST_BLOCK as u64) as usize;
                    agree(&mut agreed, "blksize", transfer.block as u64);
                }
                ("tsize", Some(_)) => agree(&mut agreed, "tsize", size),
                ("timeout", Some(seconds @ 1..=255)) => agree(&mut agreed, "timeout", seconds),
                _ => {}
            }
        }
        let answer = if agreed.is_empty() {
            transfer.next_block()
        } else {
            let mut answer = opcode::OPTIONS.to_be_bytes().to_vec();
            for (name, value) in agreed {
                answer.extend(format!("{name}\0{value}\0").bytes());
            }
            Some(answer)
        };
        let answer = answer.ok_or((error::ACCESS, "cannot read the file"))?;
        self.transfers.retain(|transfer| transfer.client != client);
        let slot = self.transfers.free_slot();
        self.transfers.put(slot, transfer);
        Ok(answer)
    }

    fn acknowledged(&mut self, client: SocketAddr, block: u16, now: Instant) -> Option<Vec<u8>> {
        let Some(slot) = self.transfers.find(|transfer| transfer.client == client) else {
            return Some(failure(error::UNKNOWN_TRANSFER, "unknown transfer"));
        };
        let transfer = self.transfers.get_mut(slot)?;
        transfer.used = now;
        if block == transfer.sent as u16 {
            if transfer.is_complete() {
                self.transfers.remove(slot);
                return None;
            }
        } else if block == (transfer.sent as u16).wrapping_sub(1) {
            // What was sent last has not arrived: once more.
            transfer.sent = transfer.sent.checked_sub(1)?;
        } else {
            return None;
        }
        match transfer.next_block() {
            Some(data) => Some(data),
            None => {
                self.transfers.remove(slot);
                Some(failure(error::ACCESS, "cannot read the file"))
            }
        }
    }

    /// A file below the root, whatever name the guest has for it. Links that lead out of the root lead nowhere.
    fn open(&self, name: &str) -> Option<(File, u64)> {
        let root = self.root.as_ref()?.canonicalize().ok()?;
        if name.is_empty() || name.len() > LONGEST_NAME {
            return None;
        }
        let name = name.replace('\\', "/");
        let inside = Path::new(name.trim_start_matches('/'));
        if !inside.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return None;
        }
        let path = root.join(inside).canonicalize().ok()?;
        // Only then is it opened: FIFOs and devices would wait.
        if !path.starts_with(&root) || !path.metadata().ok()?.is_file() {
            return None;
        }
        let file = File::open(path).ok()?;
        let size = file.metadata().ok()?.len();
        Some((file, size))
    }

    /// Forgets transfers that stand still.
    pub fn expire(&mut self, now: Instant) {
        self.transfers.retain(|transfer| now.saturating_duration_since(transfer.used) < LIFETIME);
    }
}

fn agree(agreed: &mut Vec<(&'static str, u64)>, name: &'static str, value: u64) {
    agreed.retain(|(known, _)| *known != name);
    agreed.push((name, value));
}

fn failure(code: u16, text: &str) -> Vec<u8> {
    let mut packet = opcode::ERROR.to_be_bytes().to_vec();
    packet.extend(code.to_be_bytes());
    packet.extend(text.bytes());
    packet.push(0);
    packet
}

impl Transfer {
    /// Whether the block that was sent last was the last one: it is shorter than others.
    fn is_complete(&self) -> bool {
        self.sent > 0 && self.sent * self.block as u64 > self.size
    }

    fn next_block(&mut self) -> Option<Vec<u8>> {
        let offset = self.sent * self.block as u64;
        let len = self.size.saturating_sub(offset).min(self.block as u64) as usize;
        let mut packet = opcode::DATA.to_be_bytes().to_vec();
        packet.extend(((self.sent + 1) as u16).to_be_bytes());
        packet.resize(4 + len, 0);
        self.file.read_exact_at(&mut packet[4..], offset).ok()?;
        self.sent += 1;
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("emu-tftp-{name}-{}", std::process::id()));
            std::fs::create_dir_all(path.join("root/sub")).unwrap();
            std::fs::write(path.join("secret"), "secret").unwrap();
            Folder(path)
        }

        fn server(&self) -> Tftp {
            Tftp::new(Some(self.0.join("root")))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn client() -> SocketAddr {
        "10.0.2.15:2000".parse().unwrap()
    }

    fn request(words: &[&str]) -> Vec<u8> {
        let mut packet = vec![0, 1];
        words.iter().for_each(|word| packet.extend(word.bytes().chain([0])));
        packet
    }

    fn fetch(tftp: &mut Tftp, words: &[&str]) -> Result<Vec<u8>, String> {
        let now = Instant::now();
        let mut all = Vec::new();
        let mut answer = tftp.receive(client(), &request(words), now);
        while let Some(packet) = answer {
            let ack = match packet[1] {
                3 => {
                    all.extend_from_slice(&packet[4..]);
                    [0, 4, packet[2], packet[3]]
                }
                6 => [0, 4, 0, 0],
                _ => return Err(String::from_utf8_lossy(&packet[4..packet.len() - 1]).into()),
            };
            answer = tftp.receive(client(), &ack, now);
        }
        Ok(all)
    }

    #[test]
    fn files_of_all_lengths_arrive_whole() {
        let folder = Folder::new("lengths");
        for len in [0, 1, 511, 512, 513, 1024, 100_000] {
            let data: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
            std::fs::write(folder.0.join("root/sub/file"), &data).unwrap();
            for words in [
                &["sub/file", "octet"][..],
                &["/sub/file", "OCTET", "blksize", "1468", "tsize", "0"],
                &["sub\\file", "octet", "blksize", "8"],
            ] {
                assert_eq!(fetch(&mut folder.server(), words).unwrap(), data, "{len} {words:?}");
            }
        }
    }

    #[test]
    fn more_blocks_than_a_number_has_go_round() {
        let folder = Folder::new("round");
        let data: Vec<u8> = (0..70_000u32 * 8 + 3).map(|i| (i / 8 % 253) as u8).collect();
        std::fs::write(folder.0.join("root/file"), &data).unwrap();
        assert_eq!(fetch(&mut folder.server(), &["file", "octet", "blksize", "8"]).unwrap(), data);
    }

    #[test]
    fn options_are_agreed_on() {
        let folder = Folder::new("options");
        std::fs::write(folder.0.join("root/file"), [1; 700]).unwrap();
        let packet = request(&["file", "octet", "tsize", "0", "BLKSIZE", "65464", "timeout", "3", "multicast", ""]);
        let answer = folder.server().receive(client(), &packet, Instant::now()).unwrap();
        assert_eq!(&answer[2..], format!("tsize\x00700\0blksize\x00{LARGEST_BLOCK}\0timeout\x003\0").as_bytes());
    }

    #[test]
    fn names_that_lead_out_of_the_folder_lead_nowhere() {
        let folder = Folder::new("escapes");
        std::os::unix::fs::symlink("../secret", folder.0.join("root/link")).unwrap();
        std::os::unix::fs::symlink("/etc", folder.0.join("root/etc")).unwrap();
        for name in
            ["../secret", "/../secret", "sub/../../secret", "link", "etc/passwd", "..\\secret", "sub", "", ".", "none"]
        {
            assert_eq!(fetch(&mut folder.server(), &[name, "octet"]).unwrap_err(), "file not found", "{name}");
        }
        assert!(fetch(&mut folder.server(), &["link", "netascii"]).unwrap_err().contains("octet"));
        assert!(folder.server().receive(client(), b"\0\x02file\0octet\0", Instant::now()).unwrap()[3] == 2);
        assert_eq!(Tftp::new(None).receive(client(), &request(&["file", "octet"]), Instant::now()), None);
    }

    #[test]
    fn block_that_was_lost_is_sent_again() {
        let folder = Folder::new("again");
        std::fs::write(folder.0.join("root/file"), [5; 1000]).unwrap();
        let mut tftp = folder.server();
        let now = Instant::now();
        let first = tftp.receive(client(), &request(&["file", "octet"]), now).unwrap();
        let second = tftp.receive(client(), &[0, 4, 0, 1], now).unwrap();
        assert_eq!((first.len(), second.len()), (516, 492));
        assert_eq!(tftp.receive(client(), &[0, 4, 0, 1], now).unwrap(), second);
        assert_eq!(tftp.receive(client(), &[0, 4, 0, 9], now), None);
        assert_eq!(tftp.receive(client(), &[0, 4, 0, 2], now), None);
        assert_eq!(tftp.receive(client(), &[0, 4, 0, 2], now).unwrap()[1], 5);
    }
}
