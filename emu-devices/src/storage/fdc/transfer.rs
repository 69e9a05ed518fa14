//! The commands that have an execution phase: reads, writes, comparisons, formatting, READ ID.
//!
//! Follows the Intel 82078 data sheet (290468), "Data Transfer Commands", "Status Register Encoding" and its tables of
//! result bytes.
//!
//! ```text
//!  read:   Search --ID found--> Disk --data--> Host --sector taken--> Search .. until TC, EOT or an error
//!  write:  Search --ID found--> Host --sector full--> Disk --written--> Search ..
//! ```

use super::drive::{Format, millisecond};
use super::{Fdc, Phase, SPEED, config, st0};
use crate::dma::i8237::TransferKind;
use crate::storage::block::{Completion, Request, SECTOR};
use emu_core::device::DeviceContext;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Bytes of a sector.
const BYTES: usize = SECTOR as usize;
/// The size code of 512 bytes.
const SIZE_CODE: u8 = 2;
/// How long DMA may be late before the controller gives up: 100 ms. Real ones have no patience at all.
const PATIENCE: u64 = 100_000_000;
/// Between two looks whether DMA is ready.
const LOOK: u64 = 100_000;

/// Status Register 1.
mod st1 {
    pub const END_OF_CYLINDER: u8 = 0x80;
    pub const DATA_ERROR: u8 = 0x20;
    pub const OVERRUN: u8 = 0x10;
    pub const NO_DATA: u8 = 0x04;
    pub const NOT_WRITABLE: u8 = 0x02;
    pub const MISSING_ADDRESS_MARK: u8 = 0x01;
}

/// Status Register 2.
mod st2 {
    pub const CONTROL_MARK: u8 = 0x40;
    pub const DATA_ERROR_IN_DATA_FIELD: u8 = 0x20;
    pub const WRONG_CYLINDER: u8 = 0x10;
    pub const SCAN_EQUAL: u8 = 0x08;
    pub const SCAN_NOT_SATISFIED: u8 = 0x04;
}

/// What a transfer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// READ DATA.
    Read,
    /// READ DELETED DATA.
    ReadDeleted,
    /// READ TRACK.
    ReadTrack,
    /// READ ID.
    ReadId,
    /// WRITE DATA and WRITE DELETED DATA.
    Write,
    /// VERIFY.
    Verify,
    /// FORMAT TRACK.
    Format,
    /// SCAN EQUAL.
    ScanEqual,
    /// SCAN LOW OR EQUAL.
    ScanLowOrEqual,
    /// SCAN HIGH OR EQUAL.
    ScanHighOrEqual,
}

impl Kind {
    /// Whether the host gives bytes rather than takes them.
    fn takes_host_bytes(self) -> bool {
        !matches!(self, Kind::Read | Kind::ReadDeleted | Kind::ReadTrack)
    }

    fn writes(self) -> bool {
        matches!(self, Kind::Write | Kind::Format)
    }

    fn scans(self) -> bool {
        matches!(self, Kind::ScanEqual | Kind::ScanLowOrEqual | Kind::ScanHighOrEqual)
    }
}

/// Where a transfer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// The diskette turns until this instant.
    Search(u64),
    /// The file is at work.
    Disk,
    /// Bytes go to or come from the host by DMA, or by the data register. Until when DMA is waited for.
    Host(u64),
}

/// A command in its execution phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// What it does.
    pub kind: Kind,
    /// MT: both sides of a cylinder.
    pub multi_track: bool,
    /// MFM: double density.
    pub mfm: bool,
    /// SK: leave out sectors with the other kind of mark.
    pub skip: bool,
    /// VERIFY's EC: as many sectors as `length` says.
    pub enable_count: bool,
    /// Drive.
    pub unit: usize,
    /// Side under the head.
    pub head: u8,
    /// C, H, R and N of the sector that is looked for.
    pub id: [u8; 4],
    /// EOT.
    pub end_of_track: u8,
    /// DTL; SC of VERIFY and FORMAT; STP of SCAN.
    pub length: u8,
    /// FORMAT's D.
    pub filler: u8,
    /// The sector's data, or an ID of FORMAT.
    pub buffer: Vec<u8>,
    /// Bytes of the buffer that have passed.
    pub position: usize,
    /// Sectors that are done.
    pub done: u16,
    /// TC has come.
    pub terminal_count: bool,
    /// Status Register 0 without drive and head.
    pub st0: u8,
    /// Status Register 1.
    pub st1: u8,
    /// Status Register 2.
    pub st2: u8,
    /// SCAN: the sector satisfies the condition so far, and is equal so far.
    pub scan: (bool, bool),
    /// Where it stands.
    pub step: Step,
}

impl Transfer {
    /// The transfer that the command `bytes` asks for.
    pub fn new(kind: Kind, bytes: &[u8]) -> Transfer {
        let byte = |i: usize| bytes.get(i).copied().unwrap_or(0);
        let head = byte(1) >> 2 & 1;
        let format = kind == Kind::Format;
        Transfer {
            kind,
            multi_track: byte(0) & 0x80 != 0 && kind != Kind::ReadTrack,
            mfm: byte(0) & 0x40 != 0,
            skip: byte(0) & 0x20 != 0,
            enable_count: kind == Kind::Verify && byte(1) & 0x80 != 0,
            unit: usize::from(byte(1) & 3),
            head,
            id: if format { [0, head, 1, byte(2)] } else { [byte(2), byte(3), byte(4), byte(5)] },
            end_of_track: byte(6),
            length: if format { byte(3) } else { byte(8) },
            filler: byte(5),
            buffer: Vec::new(),
            position: 0,
            done: 0,
            terminal_count: false,
            st0: 0,
            st1: 0,
            st2: 0,
            scan: (true, true),
            step: Step::Search(0),
        }
    }

    /// Brings a deserialised transfer within its bounds.
    pub fn sanitise(&mut self) {
        self.unit &= 3;
        self.head &= 1;
        self.buffer.truncate(BYTES);
        self.position = self.position.min(self.buffer.len());
        if self.kind == Kind::Format {
            self.buffer.resize(4, 0);
        } else if matches!(self.step, Step::Host(_)) {
            self.buffer.resize(BYTES, 0);
        }
    }

    /// Goes on to the next sector; whether it was the last one of the cylinder.
    fn advance(&mut self) -> bool {
        let [c, h, r, _] = &mut self.id;
        let step = if self.kind.scans() && self.length == 2 { 2 } else { 1 };
        if *r != self.end_of_track {
            *r = r.wrapping_add(step);
            // Steps of two may pass the end of the track.
            if !(step == 2 && *r > self.end_of_track) {
                return false;
            }
        }
        *r = 1;
        if self.multi_track {
            *h ^= 1;
            self.head ^= 1;
            if self.head == 1 {
                return false;
            }
            // The result shows the side that was read last.
            self.head = 1;
        }
        *c = c.wrapping_add(1);
        true
    }
}

impl Fdc {
    /// Nanoseconds in which a sector passes the head.
    fn sector_time(&self) -> u64 {
        // 512 bytes of 8 bits, and a quarter more for gaps and marks.
        640 * 8 * millisecond(self.state.rate) / 500 / SPEED
    }

    /// Nanoseconds that `steps` take.
    pub(super) fn seek_time(&self, steps: i16) -> u64 {
        let step = u64::from(16 - (self.state.step_rate >> 4)) * millisecond(self.state.rate);
        (u64::from(steps.unsigned_abs()) + 1) * step / SPEED
    }

    /// Enters the execution phase.
    pub(super) fn begin_transfer(&mut self, cx: &mut DeviceContext, mut transfer: Transfer) {
        let unit = transfer.unit;
        let mut wait = self.sector_time();
        let drive = &mut self.state.drives[unit];
        let seeks = !matches!(transfer.kind, Kind::Format | Kind::ReadId);
        if seeks && drive.number != transfer.id[0] {
            let steps = i16::from(transfer.id[0]) - i16::from(drive.number);
            drive.number = transfer.id[0];
            let medium = self.drives.get(unit).and_then(Option::as_ref).is_some_and(|d| !d.disk.is_empty());
            drive.step(steps, medium);
            if self.state.config & config::IMPLIED_SEEK != 0 {
                transfer.st0 |= st0::SEEK_END;
            }
            wait += self.seek_time(steps);
        }
        if !matches!(transfer.kind, Kind::Format | Kind::ReadId) {
            self.state.end_of_track = transfer.end_of_track;
        }
        if !self.is_readable(&transfer) {
            // Two revolutions without an address mark.
            wait += 400_000_000 / SPEED;
        }
        transfer.step = Step::Search(cx.now.nanos().saturating_add(wait));
        self.state.phase = Phase::Execution(transfer);
        self.state.bytes.clear();
        self.state.position = 0;
    }

    /// The format under the head and its cylinder, if anything can be read there.
    fn readable(&self, transfer: &Transfer) -> Option<(Format, u8)> {
        let drive = self.drives.get(transfer.unit)?.as_ref()?;
        let motor = self.state.dor & 0x10 << transfer.unit != 0;
        let cylinder = self.state.drives[transfer.unit].cylinder;
        let track = drive.track(cylinder, transfer.head, self.state.rate).ok();
        track.filter(|_| motor && transfer.mfm)
    }

    fn is_readable(&self, transfer: &Transfer) -> bool {
        self.readable(transfer).is_some()
    }

    /// Lets the execution phase go on as far as it can.
    pub(super) fn run_transfer(&mut self, cx: &mut DeviceContext) {
        // Each turn ends a step, so the number of turns is bounded by the time that has passed.
        for _ in 0..2 {
            let Phase::Execution(transfer) = &self.state.phase else { return };
            match transfer.step {
                Step::Search(until) if until <= cx.now.nanos() => self.find_sector(cx),
                Step::Search(_) => return,
                Step::Disk => {
                    let unit = transfer.unit;
                    let disk = self.drives.get_mut(unit).and_then(Option::as_mut).map(|d| &mut d.disk);
                    let Some(completion) = disk.map_or(Some(Completion::default()), |d| d.finished(cx.now)) else {
                        return;
                    };
                    self.disk_done(cx, completion);
                }
                Step::Host(until) => {
                    if self.is_dma() {
                        self.serve_by_dma(cx, until);
                    }
                    return;
                }
            }
        }
    }

    /// Whether this execution phase uses DMA.
    pub(super) fn is_dma(&self) -> bool {
        self.state.load_time & 1 == 0
    }

    /// The diskette has turned to where the sector should be.
    fn find_sector(&mut self, cx: &mut DeviceContext) {
        let Phase::Execution(t) = &self.state.phase else { return };
        let Some((format, cylinder)) = self.readable(t) else { return self.fail(st1::MISSING_ADDRESS_MARK, 0) };
        let (head, unit, kind) = (t.head, t.unit, t.kind);
        let [c, h, r, n] = t.id;
        if kind.writes() && self.drives[unit].as_ref().is_some_and(|d| d.disk.is_read_only()) {
            return self.fail(st1::NOT_WRITABLE, 0);
        }
        let turned = cx.now.nanos() / self.sector_time().max(1);
        let under_head = (turned % u64::from(format.sectors)) as u8 + 1;
        match kind {
            Kind::ReadId => {
                let Phase::Execution(t) = &mut self.state.phase else { return };
                t.id = [cylinder, head, under_head, SIZE_CODE];
                return self.finish();
            }
            Kind::Format => return self.ask_host(cx, vec![0; 4]),
            _ => {}
        }
        if n != SIZE_CODE || h != head || c != cylinder && kind != Kind::ReadTrack {
            let wrong = if c != cylinder { st2::WRONG_CYLINDER } else { 0 };
            return self.fail(st1::NO_DATA, wrong);
        }
        let sector = match kind {
            Kind::ReadTrack => (self.done() % u16::from(format.sectors)) as u8 + 1,
            _ => r,
        };
        let Some(offset) = format.offset(cylinder, head, sector) else { return self.fail(st1::NO_DATA, 0) };
        if let (Kind::ReadTrack, Phase::Execution(t)) = (kind, &mut self.state.phase)
            && [cylinder, sector] != [c, r]
        {
            t.st1 |= st1::NO_DATA;
        }
        if kind == Kind::ReadDeleted {
            // An image has no deleted sectors.
            let Phase::Execution(t) = &mut self.state.phase else { return };
            t.st2 |= st2::CONTROL_MARK;
            if t.skip {
                return self.next_sector(cx);
            }
        }
        match kind {
            Kind::Write => self.ask_host(cx, vec![0; BYTES]),
            _ => self.submit(cx, offset, None),
        }
    }

    fn done(&self) -> u16 {
        if let Phase::Execution(t) = &self.state.phase { t.done } else { 0 }
    }

    /// Has the file read a sector, or write `data`.
    fn submit(&mut self, cx: &mut DeviceContext, offset: u64, data: Option<Vec<u8>>) {
        let Phase::Execution(t) = &mut self.state.phase else { return };
        t.step = Step::Disk;
        let Some(drive) = self.drives.get_mut(t.unit).and_then(Option::as_mut) else { return };
        let end = drive.disk.sectors() * SECTOR;
        match data {
            Some(data) => drive.disk.submit(cx.now, Request::Write { offset, data: Arc::new(data) }),
            None if offset < end => drive.disk.submit(cx.now, Request::Read { offset, len: BYTES }),
            // The image is shorter than its diskette: the rest is blank.
            None => self.disk_done(cx, Completion { data: vec![0; BYTES], done: BYTES, error: None }),
        }
    }

    /// The file has read or written.
    fn disk_done(&mut self, cx: &mut DeviceContext, completion: Completion) {
        let Phase::Execution(t) = &mut self.state.phase else { return };
        if completion.error.is_some() || completion.done < BYTES {
            return self.fail(st1::DATA_ERROR, st2::DATA_ERROR_IN_DATA_FIELD);
        }
        match t.kind {
            Kind::Write | Kind::Format | Kind::Verify => self.next_sector(cx),
            Kind::ReadId => self.finish(),
            _ => {
                let mut data = completion.data;
                data.resize(BYTES, 0);
                self.ask_host(cx, data);
            }
        }
    }

    /// The host's turn: `buffer` is taken by it, filled by it, or compared.
    fn ask_host(&mut self, cx: &mut DeviceContext, buffer: Vec<u8>) {
        let until = cx.now.nanos().saturating_add(PATIENCE);
        let Phase::Execution(t) = &mut self.state.phase else { return };
        t.buffer = buffer;
        t.position = 0;
        t.scan = (true, true);
        t.step = Step::Host(until);
        if self.is_dma() {
            self.serve_by_dma(cx, until);
        } else {
            self.request_pio();
        }
    }

    /// Moves the buffer by DMA, if the channel is ready.
    fn serve_by_dma(&mut self, cx: &mut DeviceContext, until: u64) {
        let gate = self.state.dor & super::dor::DMA_GATE != 0;
        let Phase::Execution(t) = &mut self.state.phase else { return };
        let (moved, host) = match t.kind.takes_host_bytes() {
            _ if !gate => (Default::default(), Vec::new()),
            false => (self.dma.write_memory(cx.memory, &t.buffer), Vec::new()),
            true => {
                let mut bytes = vec![0; t.buffer.len()];
                (self.dma.read_memory(cx.memory, &mut bytes), bytes)
            }
        };
        if moved.bytes == 0 {
            self.dma.set_request(true);
            if cx.now.nanos() >= until || self.dma.ready() == Some(TransferKind::None) {
                self.dma.set_request(false);
                self.fail(st1::OVERRUN, 0);
            }
            return;
        }
        self.dma.set_request(false);
        t.terminal_count |= moved.terminal_count;
        let len = t.buffer.len();
        if t.kind.takes_host_bytes() {
            for (i, byte) in host.into_iter().enumerate().take(moved.bytes) {
                take_from_host(t, i, byte);
            }
        }
        t.position = len;
        self.buffer_done(cx);
    }

    /// The next byte by the data register: the host reads.
    pub(super) fn pio_read(&mut self, cx: &mut DeviceContext) -> u8 {
        let Phase::Execution(t) = &mut self.state.phase else { return 0xff };
        let byte = t.buffer.get(t.position).copied().unwrap_or(0xff);
        self.pio_step(cx);
        byte
    }

    /// The next byte by the data register: the host writes.
    pub(super) fn pio_write(&mut self, cx: &mut DeviceContext, byte: u8) {
        let Phase::Execution(t) = &mut self.state.phase else { return };
        take_from_host(t, t.position, byte);
        self.pio_step(cx);
    }

    fn pio_step(&mut self, cx: &mut DeviceContext) {
        let Phase::Execution(t) = &mut self.state.phase else { return };
        t.position += 1;
        let (position, len, from_host) = (t.position, t.buffer.len(), t.kind.takes_host_bytes());
        if position >= len {
            self.state.interrupt = false;
            self.buffer_done(cx);
            return;
        }
        let threshold = usize::from(self.state.config & config::FIFO_THRESHOLD) + 1;
        let portion = match (self.state.config & config::NO_FIFO != 0, from_host) {
            (true, _) => 1,
            (false, true) => threshold,
            (false, false) => 17 - threshold,
        };
        if position % portion == 0 {
            self.request_pio();
        }
    }

    /// The data register wants service: an edge on the interrupt line.
    fn request_pio(&mut self) {
        self.state.interrupt = false;
        self.drive_irq();
        self.state.interrupt = true;
        self.drive_irq();
    }

    /// Whether the host may read (true) or write (false) a byte of the execution phase.
    pub(super) fn pio_direction(&self) -> Option<bool> {
        match &self.state.phase {
            Phase::Execution(t) if !self.is_dma() && matches!(t.step, Step::Host(_)) => {
                Some(!t.kind.takes_host_bytes())
            }
            _ => None,
        }
    }

    /// The host has taken or filled the buffer.
    fn buffer_done(&mut self, cx: &mut DeviceContext) {
        let Phase::Execution(t) = &self.state.phase else { return };
        let Some((format, cylinder)) = self.readable(t) else { return self.fail(st1::MISSING_ADDRESS_MARK, 0) };
        let head = t.head;
        match t.kind {
            Kind::Write => match format.offset(cylinder, head, t.id[2]) {
                Some(offset) => {
                    let data = t.buffer.clone();
                    self.submit(cx, offset, Some(data));
                }
                None => self.fail(st1::NO_DATA, 0),
            },
            Kind::Format => {
                let id = [0, 1, 2, 3].map(|i| t.buffer.get(i).copied().unwrap_or(0));
                let fill = vec![t.filler; BYTES];
                let fits = id[0] == cylinder && id[1] == head && id[3] == SIZE_CODE;
                match format.offset(cylinder, head, id[2]).filter(|_| fits) {
                    Some(offset) => self.submit(cx, offset, Some(fill)),
                    // An image has no room for other sectors than those of its format.
                    None => self.fail(st1::DATA_ERROR, 0),
                }
            }
            kind if kind.scans() => {
                let Phase::Execution(t) = &mut self.state.phase else { return };
                match t.scan {
                    (true, equal) => {
                        t.st2 &= !st2::SCAN_NOT_SATISFIED;
                        t.st2 |= if equal { st2::SCAN_EQUAL } else { 0 };
                        self.finish();
                    }
                    _ => {
                        t.st2 |= st2::SCAN_NOT_SATISFIED;
                        self.next_sector(cx);
                    }
                }
            }
            _ => self.next_sector(cx),
        }
    }

    /// A sector is done: the next one, or the result.
    fn next_sector(&mut self, cx: &mut DeviceContext) {
        let wait = self.sector_time();
        let Phase::Execution(t) = &mut self.state.phase else { return };
        t.done += 1;
        let counted = match t.kind {
            Kind::Format => t.done >= u16::from(t.length).max(1),
            Kind::ReadTrack => t.done >= u16::from(t.end_of_track).max(1),
            Kind::Verify if t.enable_count => t.done > u16::from(t.length.wrapping_sub(1)),
            _ => false,
        };
        if t.kind == Kind::ReadDeleted && !t.skip {
            // The sector with the other mark was the last one.
            return self.finish();
        }
        if t.kind == Kind::Format {
            t.id[2] = t.id[2].wrapping_add(1);
            if counted || t.terminal_count {
                return self.finish();
            }
        } else {
            let last = t.advance();
            if t.terminal_count || counted || last && t.kind == Kind::Verify && !t.enable_count {
                return self.finish();
            }
            if last && t.kind != Kind::ReadTrack {
                let end = if t.kind.scans() { 0 } else { st1::END_OF_CYLINDER };
                return self.fail(end, 0);
            }
        }
        t.step = Step::Search(cx.now.nanos().saturating_add(wait));
    }

    /// Ends the execution phase abnormally.
    fn fail(&mut self, st1: u8, st2: u8) {
        if let Phase::Execution(t) = &mut self.state.phase {
            // A scan that finds nothing is no error.
            t.st0 |= if st1 == 0 { 0 } else { st0::ABNORMAL };
            t.st1 |= st1;
            t.st2 |= st2;
        }
        self.finish();
    }

    /// The result phase, announced by an interrupt.
    fn finish(&mut self) {
        let Phase::Execution(t) = &self.state.phase else { return };
        let [c, h, r, n] = t.id;
        let result = vec![t.st0 | t.head << 2 | t.unit as u8, t.st1, t.st2, c, h, r, n];
        self.answer(result);
        self.state.interrupt = false;
        self.drive_irq();
        self.state.interrupt = true;
        self.drive_irq();
    }

    /// When [`Fdc::run_transfer`] has something to do, in nanoseconds of virtual time, besides what the file announces.
    pub(super) fn transfer_deadline(&self, now: u64) -> Option<u64> {
        let Phase::Execution(t) = &self.state.phase else { return None };
        match t.step {
            Step::Search(until) => Some(until),
            Step::Host(until) if self.is_dma() => Some(now.saturating_add(LOOK).min(until)),
            _ => None,
        }
    }
}

/// Byte `i` of the buffer comes from the host. SCAN compares it; FFh matches everything.
fn take_from_host(t: &mut Transfer, i: usize, byte: u8) {
    let Some(place) = t.buffer.get_mut(i) else { return };
    if !t.kind.scans() {
        *place = byte;
        return;
    }
    let disk = *place;
    if byte != 0xff && disk != byte {
        let holds = match t.kind {
            Kind::ScanLowOrEqual => disk < byte,
            Kind::ScanHighOrEqual => disk > byte,
            _ => false,
        };
        t.scan = (t.scan.0 && holds, false);
    }
}
