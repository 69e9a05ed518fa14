//! What a CD-ROM drive does with a command packet: SFF-8020i and MMC-3, for one data track in mode 1.
//!
//! Deliberately absent: audio, raw sectors with their error correction, writing, changers.

use crate::storage::block::Disk;
use serde::{Deserialize, Serialize};

/// Bytes of a block.
pub const BLOCK: u64 = 2048;

/// A sense key with its additional codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sense {
    /// Sense key.
    pub key: u8,
    /// Additional sense code.
    pub asc: u8,
    /// Additional sense code qualifier.
    pub ascq: u8,
}

impl Sense {
    const fn new(key: u8, asc: u8, ascq: u8) -> Sense {
        Sense { key, asc, ascq }
    }
    const NO_MEDIUM: Sense = Sense::new(2, 0x3a, 0x00);
    const TRAY_OPEN: Sense = Sense::new(2, 0x3a, 0x02);
    /// Unrecovered read error.
    pub const MEDIUM_ERROR: Sense = Sense::new(3, 0x11, 0x00);
    const INVALID_COMMAND: Sense = Sense::new(5, 0x20, 0x00);
    const OUT_OF_RANGE: Sense = Sense::new(5, 0x21, 0x00);
    const INVALID_FIELD: Sense = Sense::new(5, 0x24, 0x00);
    const LOCKED: Sense = Sense::new(5, 0x53, 0x02);
    const ILLEGAL_MODE: Sense = Sense::new(5, 0x64, 0x00);
    const SAVING_UNSUPPORTED: Sense = Sense::new(5, 0x39, 0x00);
    const MEDIUM_CHANGED: Sense = Sense::new(6, 0x28, 0x00);
}

/// The drive's memory between packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketState {
    /// What REQUEST SENSE reports.
    pub sense: Sense,
    /// A changed medium that has not been reported by CHECK CONDITION.
    pub attention: bool,
    /// What GET EVENT STATUS NOTIFICATION reports once: 1 eject request, 2 new medium, 3 removal.
    pub event: u8,
}

/// What a packet leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No data.
    Done,
    /// Data for the host.
    Data(Vec<u8>),
    /// Blocks of the medium for the host.
    Read {
        /// First block.
        block: u32,
        /// How many.
        count: u32,
    },
    /// This many bytes from the host, which change nothing.
    Receive(usize),
    /// CHECK CONDITION.
    Fail(Sense),
}

mod op {
    pub const TEST_UNIT_READY: u8 = 0x00;
    pub const REQUEST_SENSE: u8 = 0x03;
    pub const INQUIRY: u8 = 0x12;
    pub const MODE_SELECT_6: u8 = 0x15;
    pub const MODE_SENSE_6: u8 = 0x1a;
    pub const START_STOP_UNIT: u8 = 0x1b;
    pub const PREVENT_ALLOW: u8 = 0x1e;
    pub const READ_CAPACITY: u8 = 0x25;
    pub const READ_10: u8 = 0x28;
    pub const SEEK_10: u8 = 0x2b;
    pub const READ_SUBCHANNEL: u8 = 0x42;
    pub const READ_TOC: u8 = 0x43;
    pub const GET_CONFIGURATION: u8 = 0x46;
    pub const GET_EVENT_STATUS: u8 = 0x4a;
    pub const READ_DISC_INFORMATION: u8 = 0x51;
    pub const MODE_SELECT_10: u8 = 0x55;
    pub const MODE_SENSE_10: u8 = 0x5a;
    pub const READ_12: u8 = 0xa8;
    pub const SET_CD_SPEED: u8 = 0xbb;
    pub const MECHANISM_STATUS: u8 = 0xbd;
    pub const READ_CD: u8 = 0xbe;
}

/// Whether a command is refused while a changed medium has not been reported, and whether it needs a medium.
fn conditions(opcode: u8) -> (bool, bool) {
    match opcode {
        op::INQUIRY | op::REQUEST_SENSE | op::GET_CONFIGURATION | op::GET_EVENT_STATUS => (false, false),
        op::TEST_UNIT_READY
        | op::READ_CAPACITY
        | op::READ_10
        | op::READ_12
        | op::READ_CD
        | op::SEEK_10
        | op::READ_SUBCHANNEL
        | op::READ_TOC
        | op::READ_DISC_INFORMATION => (true, true),
        op::START_STOP_UNIT | op::PREVENT_ALLOW => (false, false),
        _ => (true, false),
    }
}

fn be16(bytes: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Data cut to the allocation length.
fn data(mut bytes: Vec<u8>, allocated: usize) -> Outcome {
    bytes.truncate(allocated);
    if bytes.is_empty() { Outcome::Done } else { Outcome::Data(bytes) }
}

/// Notes what the user has done to the drive.
pub fn follow_user(state: &mut PacketState, disk: &mut Disk) {
    if disk.take_change() {
        state.attention = disk.len().is_some();
        state.event = if state.attention { 2 } else { 3 };
    }
    if disk.take_eject_request() {
        state.event = 1;
    }
}

/// Carries out a packet.
pub fn execute(state: &mut PacketState, disk: &mut Disk, p: &[u8; 12]) -> Outcome {
    follow_user(state, disk);
    let (waits, needs_medium) = conditions(p[0]);
    let blocks = disk.len().map(|len| (len / BLOCK).min(u64::from(u32::MAX)) as u32);
    if state.attention && waits {
        state.attention = false;
        return Outcome::Fail(Sense::MEDIUM_CHANGED);
    }
    let blocks = match blocks {
        Some(blocks) => blocks,
        None if needs_medium && disk.is_tray_open() => return Outcome::Fail(Sense::TRAY_OPEN),
        None if needs_medium => return Outcome::Fail(Sense::NO_MEDIUM),
        None => 0,
    };
    match p[0] {
        op::TEST_UNIT_READY | op::SET_CD_SPEED => Outcome::Done,
        op::REQUEST_SENSE => {
            let mut sense = std::mem::take(&mut state.sense);
            if sense == Sense::default() && std::mem::take(&mut state.attention) {
                sense = Sense::MEDIUM_CHANGED;
            }
            let mut bytes = vec![0; 18];
            (bytes[0], bytes[2], bytes[7]) = (0x70, sense.key, 10);
            (bytes[12], bytes[13]) = (sense.asc, sense.ascq);
            data(bytes, p[4].into())
        }
        op::INQUIRY if p[1] & 3 != 0 || p[2] != 0 => Outcome::Fail(Sense::INVALID_FIELD),
        op::INQUIRY => {
            let mut bytes = vec![0x05, 0x80, 0x00, 0x21, 31, 0, 0, 0];
            bytes.extend(format!("{:8}{:16}{:4}", "EMU", "EMU DVD-ROM", "0.1").bytes());
            data(bytes, be16(&p[3..]))
        }
        op::MODE_SENSE_6 => mode_sense(disk, p, true),
        op::MODE_SENSE_10 => mode_sense(disk, p, false),
        op::MODE_SELECT_6 => receive(p[4].into()),
        op::MODE_SELECT_10 => receive(be16(&p[7..])),
        op::START_STOP_UNIT => start_stop(disk, p[4]),
        op::PREVENT_ALLOW => {
            disk.set_locked(p[4] & 1 != 0);
            Outcome::Done
        }
        op::READ_CAPACITY if blocks == 0 => Outcome::Fail(Sense::NO_MEDIUM),
        op::READ_CAPACITY => data([(blocks - 1).to_be_bytes(), (BLOCK as u32).to_be_bytes()].concat(), 8),
        op::READ_10 => read(be32(&p[2..]), be16(&p[7..]) as u32, blocks),
        op::READ_12 => read(be32(&p[2..]), be32(&p[6..]), blocks),
        op::READ_CD => {
            let count = be32(&[0, p[6], p[7], p[8]]);
            match (p[9] & 0xf8, p[1] >> 2 & 7) {
                (0x00, _) => Outcome::Done,
                // User data of any type, or of mode 1.
                (0x10, 0 | 2) => read(be32(&p[2..]), count, blocks),
                _ => Outcome::Fail(Sense::ILLEGAL_MODE),
            }
        }
        op::SEEK_10 if be32(&p[2..]) >= blocks => Outcome::Fail(Sense::OUT_OF_RANGE),
        op::SEEK_10 => Outcome::Done,
        op::READ_SUBCHANNEL => sub_channel(p),
        op::READ_TOC => toc(p, blocks),
        op::GET_CONFIGURATION => configuration(disk, p),
        op::GET_EVENT_STATUS => event_status(state, disk, p),
        op::READ_DISC_INFORMATION => {
            // A finalised disc with one complete session of one track.
            let mut bytes = vec![0; 34];
            bytes[..8].copy_from_slice(&[0, 32, 0x0e, 1, 1, 1, 1, 0x20]);
            data(bytes, be16(&p[7..]))
        }
        op::MECHANISM_STATUS => {
            let mut bytes = vec![0; 8];
            bytes[1] = if disk.is_tray_open() { 0x10 } else { 0 };
            bytes[5] = 1;
            data(bytes, be16(&p[8..]))
        }
        _ => Outcome::Fail(Sense::INVALID_COMMAND),
    }
}

fn receive(bytes: usize) -> Outcome {
    if bytes == 0 { Outcome::Done } else { Outcome::Receive(bytes) }
}

fn read(block: u32, count: u32, blocks: u32) -> Outcome {
    match block.checked_add(count) {
        _ if count == 0 => Outcome::Done,
        Some(end) if end <= blocks => Outcome::Read { block, count },
        _ => Outcome::Fail(Sense::OUT_OF_RANGE),
    }
}

fn start_stop(disk: &mut Disk, action: u8) -> Outcome {
    match action & 3 {
        2 if disk.is_locked() && !disk.is_tray_open() => return Outcome::Fail(Sense::LOCKED),
        2 => disk.set_tray(true),
        3 => disk.set_tray(false),
        _ => {}
    }
    Outcome::Done
}

/// MODE SENSE: SFF-8020i 10.8.6, MMC-3 6.
fn mode_sense(disk: &Disk, p: &[u8; 12], short: bool) -> Outcome {
    if p[2] >> 6 == 3 {
        return Outcome::Fail(Sense::SAVING_UNSUPPORTED);
    }
    let changeable = p[2] >> 6 == 1;
    let mut pages: Vec<Vec<u8>> = vec![
        // Read error recovery; audio control.
        vec![0x01, 6, 0, 5, 0, 0, 0, 0],
        vec![0x0e, 14, 4, 0, 0, 0, 0, 75, 1, 255, 2, 255, 0, 0, 0, 0],
        // Capabilities: reads CD-R, CD-RW, DVD-ROM; multisession, mode 2; tray, eject, lock; 706 kB/s, 512 KiB buffer.
        vec![0x2a, 18, 0x0b, 0, 0x70, 0, 0x29, 0, 0x02, 0xc2, 0, 2, 2, 0, 0x02, 0xc2, 0, 0, 0, 0],
    ];
    if disk.is_locked() {
        pages[2][6] |= 2;
    }
    let wanted = p[2] & 0x3f;
    pages.retain(|page| wanted == 0x3f || page[0] == wanted);
    if pages.is_empty() {
        return Outcome::Fail(Sense::INVALID_FIELD);
    }
    if changeable {
        pages.iter_mut().for_each(|page| page[2..].fill(0));
    }
    let medium = match disk.len() {
        Some(_) => 0x01,
        None if disk.is_tray_open() => 0x71,
        None => 0x70,
    };
    let pages = pages.concat();
    if short {
        let header = vec![3 + pages.len() as u8, medium, 0, 0];
        return data([header, pages].concat(), p[4].into());
    }
    let header = vec![0, 6 + pages.len() as u8, medium, 0, 0, 0, 0, 0];
    data([header, pages].concat(), be16(&p[7..]))
}

fn sub_channel(p: &[u8; 12]) -> Outcome {
    let mut bytes = vec![0, 0x15, 0, 0];
    match (p[2] & 0x40 != 0, p[3]) {
        // No audio status, and no data asked for.
        (false, _) => bytes[1] = 0,
        (true, 1) => {
            bytes[3] = 12;
            bytes.extend([1, 0x14, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
        (true, format @ (2 | 3)) => {
            bytes[3] = 20;
            bytes.extend([format, 0x14, 1, 0]);
            bytes.resize(24, 0);
        }
        (true, _) => return Outcome::Fail(Sense::INVALID_FIELD),
    }
    data(bytes, be16(&p[7..]))
}

/// An address in a table of contents: block number, or minute, second and frame with the two seconds before block 0.
fn address(block: u32, msf: bool) -> [u8; 4] {
    if !msf {
        return block.to_be_bytes();
    }
    let frame = u64::from(block) + 150;
    [0, (frame / 75 / 60).min(255) as u8, (frame / 75 % 60) as u8, (frame % 75) as u8]
}

fn toc(p: &[u8; 12], blocks: u32) -> Outcome {
    let msf = p[1] & 2 != 0;
    // SFF-8020i has the format in the last byte.
    let format = if p[2] & 15 != 0 { p[2] & 15 } else { p[9] >> 6 };
    let start = p[6];
    let mut bytes = vec![0, 0, 1, 1];
    match format {
        0 if start > 1 && start != 0xaa => return Outcome::Fail(Sense::INVALID_FIELD),
        0 => {
            if start <= 1 {
                bytes.extend([0, 0x14, 1, 0]);
                bytes.extend(address(0, msf));
            }
            bytes.extend([0, 0x14, 0xaa, 0]);
            bytes.extend(address(blocks, msf));
        }
        1 => {
            bytes.extend([0, 0x14, 1, 0]);
            bytes.extend(address(0, msf));
        }
        2 => {
            // First track, last track, lead-out, track 1: session, ADR and control, TNO, POINT, time, PMIN to PFRAME.
            let points = [(0xa0, [0, 1, 0, 0]), (0xa1, [0, 1, 0, 0]), (0xa2, address(blocks, true))];
            for (point, at) in points.into_iter().chain([(1, address(0, true))]) {
                bytes.extend([1, 0x14, 0, point, 0, 0, 0]);
                bytes.extend(at);
            }
        }
        _ => return Outcome::Fail(Sense::INVALID_FIELD),
    }
    let len = (bytes.len() - 2) as u16;
    bytes[..2].copy_from_slice(&len.to_be_bytes());
    data(bytes, be16(&p[7..]))
}

/// GET CONFIGURATION: MMC-3 6.6. Profiles CD-ROM and DVD-ROM.
fn configuration(disk: &Disk, p: &[u8; 12]) -> Outcome {
    let first = be16(&p[2..]);
    let only = p[1] & 3 == 2;
    const CD_ROM: u8 = 0x08;
    const DVD_ROM: u8 = 0x10;
    // What holds more than an 80-minute CD is a DVD.
    let profile = match disk.len() {
        None => 0,
        Some(len) if len / BLOCK > 80 * 60 * 75 => DVD_ROM,
        Some(_) => CD_ROM,
    };
    let current = |p: u8| u8::from(p == profile);
    let features: [(u16, Vec<u8>); 5] = [
        (0x0000, vec![0x03, 8, 0, DVD_ROM, current(DVD_ROM), 0, 0, CD_ROM, current(CD_ROM), 0]),
        // Core: ATAPI. Removable medium: tray, eject, lock.
        (0x0001, vec![0x03, 4, 0, 0, 0, 2]),
        (0x0003, vec![0x03, 4, 0x29, 0, 0, 0]),
        // Random readable: 2048-byte blocks, one at a time.
        (0x0010, vec![u8::from(profile != 0), 8, 0, 0, 8, 0, 0, 1, 0, 0]),
        (0x001e, vec![current(CD_ROM), 4, 0, 0, 0, 0]),
    ];
    let mut bytes = vec![0, 0, 0, 0, 0, 0, 0, profile];
    for (code, body) in features {
        let wanted = if only { usize::from(code) == first } else { usize::from(code) >= first };
        let active = body[0] & 1 != 0;
        if wanted && (p[1] & 3 != 1 || active) {
            bytes.extend(code.to_be_bytes());
            bytes.extend(body);
        }
    }
    let len = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&len.to_be_bytes());
    data(bytes, be16(&p[7..]))
}

fn event_status(state: &mut PacketState, disk: &Disk, p: &[u8; 12]) -> Outcome {
    const MEDIA_CLASS: u8 = 4;
    if p[1] & 1 == 0 {
        return Outcome::Fail(Sense::INVALID_FIELD);
    }
    if p[4] & 1 << MEDIA_CLASS == 0 {
        // No event of the classes asked for.
        return data(vec![0, 2, 0x80, 1 << MEDIA_CLASS], be16(&p[7..]));
    }
    let status = u8::from(disk.is_tray_open()) | if disk.len().is_some() { 2 } else { 0 };
    let event = std::mem::take(&mut state.event);
    data(vec![0, 6, MEDIA_CLASS, 1 << MEDIA_CLASS, event, status, 0, 0], be16(&p[7..]))
}
