//! One drive on an IDE channel: ATA/ATAPI-6 (T13 1410D). Registers, commands of disks, and how data moves.
//!
//! ```text
//!            +-> AwaitDisk --data--> DataIn --block taken--+--> more, or Idle
//!  Idle -----+
//!            +-> DataOut --block full--> AwaitDisk --------+--> more, or Idle
//! ```
//! By DMA, the drive waits for the bus master in DmaIn or DmaOut first, and the disk moves the data from and to where its
//! descriptors say. What it brings to the drive instead (in deterministic time, or because the descriptors are odd or the bus
//! master has stopped meanwhile) is DmaIn's buffer.
//!
//! Sectors are fetched and stored in runs of up to [`RUN`] bytes, so that PIO does not wait for the host at every
//! sector, and by DMA in the longest that there are, one after the other (some at a time, a quarter as long, were no
//! faster and cost more); an error is still reported at its sector. Deliberately absent: queued commands, security, host
//! protected area other than READ NATIVE MAX, tagged and streaming features, 8-bit transfers, READ and WRITE LONG.

mod dma;
mod packet;

use super::bus_master::BusMaster;
use super::identify;
use super::mmc::{self, PacketState, Sense};
use crate::storage::block::{Completion, Disk, DiskState, LONGEST, Request, SECTOR};
use emu_core::clock::Instant;
use emu_core::mem::GuestMemory;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Bytes that are fetched or stored at once by PIO.
pub const RUN: usize = 64 << 10;
/// The longest block of READ MULTIPLE, in sectors.
pub const LONGEST_MULTIPLE: u8 = 128;
/// SET FEATURES transfer mode codes.
pub const MULTIWORD_DMA: u8 = 0x20;
/// The same for Ultra DMA.
pub const ULTRA_DMA: u8 = 0x40;

/// Status register.
pub mod status {
    pub const BSY: u8 = 1 << 7;
    pub const DRDY: u8 = 1 << 6;
    pub const DSC: u8 = 1 << 4;
    pub const DRQ: u8 = 1 << 3;
    pub const ERR: u8 = 1 << 0;
}
use status::{BSY, DRDY, DRQ, DSC, ERR};

/// Error register.
pub mod error {
    pub const UNC: u8 = 1 << 6;
    pub const IDNF: u8 = 1 << 4;
    pub const ABRT: u8 = 1 << 2;
}

const DEVICE_LBA: u8 = 1 << 6;

/// What a drive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A hard disk.
    Disk,
    /// A CD-ROM drive with a packet interface.
    CdRom,
}

/// What a drive calls itself, in ASCII; where it says nothing, it has names of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The serial number, of which 20 characters are told.
    pub serial: Option<String>,
    /// The model number, of which 40 characters are told.
    pub model: Option<String>,
}

/// A drive before it is connected.
pub struct DriveConfig {
    /// What it is.
    pub kind: Kind,
    /// Its medium.
    pub disk: Disk,
    /// What it calls itself.
    pub names: Names,
}

/// Cylinders, heads and sectors per track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// At most 16,383, which stands for more.
    pub cylinders: u16,
    /// At most 16.
    pub heads: u8,
    /// At most 63.
    pub sectors: u8,
}

impl Geometry {
    /// The default translation of a disk of `sectors` sectors: 16 heads, 63 sectors.
    pub fn of(sectors: u64) -> Geometry {
        Geometry { cylinders: (sectors / (16 * 63)).clamp(2, 16_383) as u16, heads: 16, sectors: 63 }
    }
}

/// A command block register that keeps its previous contents, which HOB shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Twice {
    /// Written last.
    pub now: u8,
    /// Written before.
    pub before: u8,
}

impl Twice {
    fn write(&mut self, value: u8) {
        *self = Twice { now: value, before: self.now };
    }
}

/// How a command addresses sectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Addressing {
    /// Cylinder, head, sector.
    #[default]
    Chs,
    /// 28 bits.
    Lba28,
    /// 48 bits.
    Lba48,
}

/// What the drive is in the middle of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing.
    #[default]
    Idle,
    /// Waits for sectors to send.
    AwaitRead,
    /// Waits for sectors to be stored.
    AwaitWrite,
    /// Waits for sectors to be read and forgotten.
    AwaitVerify,
    /// Waits for a flush.
    AwaitFlush,
    /// The host reads the buffer.
    DataIn,
    /// The host fills the buffer with sectors.
    DataOut,
    /// The host fills the buffer with a command packet.
    PacketOut,
    /// The host fills the buffer with parameters of a packet command.
    ParametersOut,
    /// The bus master empties the buffer.
    DmaIn,
    /// The bus master fills the buffer.
    DmaOut,
    /// SRST is up.
    Reset,
}

/// A transfer of sectors or blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// The next one that is not in the buffer yet, or is the first in it on writes.
    pub lba: u64,
    /// How many are left from there.
    pub left: u32,
    /// Bytes of each.
    pub unit: u32,
    /// How many make a DRQ block.
    pub block: u32,
    /// For the address registers afterwards.
    pub addressing: Addressing,
    /// By DMA.
    pub dma: bool,
    /// The medium failed behind what is in the buffer.
    pub failed: bool,
    /// The host's byte count limit for packet data by PIO.
    pub limit: u16,
}

impl Transfer {
    /// Bytes that move before the host is asked, or told, again.
    fn run(&self) -> usize {
        let (most, unit) = (if self.dma { LONGEST } else { RUN }, self.unit.max(1) as usize);
        (self.left as usize).min(most / unit) * unit
    }
}

/// All guest-visible state of a drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveState {
    /// Features.
    pub features: Twice,
    /// Sector Count; Interrupt Reason.
    pub count: Twice,
    /// LBA Low; Sector Number.
    pub low: Twice,
    /// LBA Mid; Cylinder Low; Byte Count Low.
    pub mid: Twice,
    /// LBA High; Cylinder High; Byte Count High.
    pub high: Twice,
    /// Device.
    pub device: u8,
    /// Status.
    pub status: u8,
    /// Error.
    pub error: u8,
    /// INTRQ.
    pub intrq: bool,
    /// Heads of the current translation.
    pub heads: u8,
    /// Sectors per track of the current translation.
    pub sectors: u8,
    /// Sectors of a READ MULTIPLE block, 0 if not set.
    pub multiple: u8,
    /// SET FEATURES transfer mode.
    pub dma_mode: u8,
    /// Write cache on.
    pub write_cache: bool,
    /// Look-ahead on.
    pub look_ahead: bool,
    /// SMART on.
    pub smart: bool,
    /// CHECK POWER MODE's answer: FFh active or idle, 00h standby.
    pub power: u8,
    /// SLEEP: only a reset wakes the drive.
    pub asleep: bool,
    /// What it is in the middle of.
    pub phase: Phase,
    /// Data on its way.
    pub buffer: Vec<u8>,
    /// The next byte of it.
    pub position: usize,
    /// Where the DRQ block ends.
    pub block_end: usize,
    /// The transfer.
    pub transfer: Transfer,
    /// The packet interface.
    pub packet: PacketState,
    /// The disk.
    pub disk: DiskState,
}

impl DriveState {
    fn new(sectors: u64) -> DriveState {
        let geometry = Geometry::of(sectors);
        DriveState {
            features: Twice::default(),
            count: Twice::default(),
            low: Twice::default(),
            mid: Twice::default(),
            high: Twice::default(),
            device: 0,
            status: DRDY | DSC,
            error: 0,
            intrq: false,
            heads: geometry.heads,
            sectors: geometry.sectors,
            multiple: 0,
            dma_mode: ULTRA_DMA | 5,
            write_cache: true,
            look_ahead: true,
            smart: true,
            power: 0xff,
            asleep: false,
            phase: Phase::Idle,
            buffer: Vec::new(),
            position: 0,
            block_end: 0,
            transfer: Transfer::default(),
            packet: PacketState::default(),
            disk: DiskState::default(),
        }
    }
}

/// What a drive sees of the rest of the machine.
pub struct Surroundings<'a> {
    /// Virtual time.
    pub now: Instant,
    /// For DMA.
    pub memory: &'a Arc<GuestMemory>,
    /// The channel's bus master; `None` while the function may not master the bus.
    pub master: Option<&'a mut BusMaster>,
}

/// A drive.
pub struct Drive {
    /// Its state, without the disk's.
    pub state: DriveState,
    disk: Disk,
    kind: Kind,
    names: Names,
    unit: u8,
    /// What the disk reads goes to guest memory by itself: where the bus master will be then.
    ahead: Option<BusMaster>,
}

impl Drive {
    /// Drive number `unit` of the board: 0 and 1 on the first channel.
    pub fn new(config: DriveConfig, unit: u8) -> Drive {
        let DriveConfig { kind, disk, names } = config;
        let state = DriveState::new(disk.sectors());
        Drive { state, disk, kind, names, unit, ahead: None }
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its medium.
    pub fn disk(&mut self) -> &mut Disk {
        &mut self.disk
    }

    /// When it wants to be looked at.
    pub fn poll_at(&self) -> Option<Instant> {
        self.disk.poll_at()
    }

    /// What is saved.
    pub fn save(&self) -> DriveState {
        DriveState { disk: self.disk.state(), ..self.state.clone() }
    }

    /// Takes over what was saved.
    pub fn restore(&mut self, mut state: DriveState) {
        state.buffer.truncate(LONGEST);
        state.block_end = state.block_end.min(state.buffer.len());
        state.position = state.position.min(state.block_end);
        state.transfer.unit = if self.kind == Kind::Disk { SECTOR as u32 } else { mmc::BLOCK as u32 };
        state.transfer.block = state.transfer.block.clamp(1, RUN as u32 / SECTOR as u32);
        state.heads = state.heads.clamp(1, 16);
        state.sectors = state.sectors.max(1);
        self.ahead = None;
        self.disk.set_state(std::mem::take(&mut state.disk));
        self.state = state;
    }

    /// RESET#, SRST's fall, or DEVICE RESET: the signature.
    pub fn reset(&mut self, kind: Reset) {
        self.cancel();
        let old = std::mem::replace(&mut self.state, DriveState::new(self.disk.sectors()));
        let s = &mut self.state;
        s.packet = old.packet;
        if kind == Reset::Hardware {
            s.packet = PacketState::default();
            self.disk.set_locked(false);
            // Media that are there from the beginning are no news.
            self.disk.take_change();
            self.disk.take_eject_request();
        } else {
            // Software resets keep what SET FEATURES and INITIALIZE DEVICE PARAMETERS have set.
            (s.heads, s.sectors, s.multiple) = (old.heads, old.sectors, old.multiple);
            (s.dma_mode, s.smart) = (old.dma_mode, old.smart);
            (s.write_cache, s.look_ahead) = (old.write_cache, old.look_ahead);
        }
        if kind == Reset::Device {
            s.device = old.device & 0x10;
        }
        self.sign();
    }

    /// SRST's rise.
    pub fn hold(&mut self) {
        self.cancel();
        self.state.phase = Phase::Reset;
        self.state.status = BSY;
        self.state.intrq = false;
    }

    /// ATA/ATAPI-6 9.12.
    fn sign(&mut self) {
        let (mid, high, status) = match self.kind {
            Kind::Disk => (0x00, 0x00, DRDY | DSC),
            Kind::CdRom => (0x14, 0xeb, 0x00),
        };
        let s = &mut self.state;
        (s.count.now, s.low.now, s.mid.now, s.high.now) = (1, 1, mid, high);
        (s.error, s.status) = (1, status);
        s.phase = Phase::Idle;
    }

    /// The code that EXECUTE DEVICE DIAGNOSTIC leaves: device 0 passed, device 1 passed or absent.
    pub fn diagnose(&mut self, interrupt: bool) {
        self.cancel();
        self.sign();
        self.state.device = 0;
        self.state.intrq = interrupt;
    }

    /// Forgets what the disk is at.
    fn cancel(&mut self) {
        self.ahead = None;
        self.disk.cancel();
    }

    fn busy(&self) -> bool {
        self.state.status & BSY != 0
    }

    /// Starts the command `code`.
    pub fn command(&mut self, code: u8, around: &mut Surroundings) {
        self.state.intrq = false;
        if self.state.phase == Phase::Reset {
            return;
        }
        let reset = code == op::DEVICE_RESET && self.kind == Kind::CdRom;
        if reset {
            return self.reset(Reset::Device);
        }
        // A busy drive takes no command; a sleeping one needs a reset (ATA/ATAPI-6 6.11.2).
        if self.busy() || self.state.asleep {
            return;
        }
        self.state.phase = Phase::Idle;
        self.state.error = 0;
        if !matches!(code, op::CHECK_POWER_MODE | 0x98) {
            self.state.power = 0xff;
        }
        self.state.status = DRDY | DSC;
        match self.kind {
            Kind::Disk => self.disk_command(code, around),
            Kind::CdRom => self.packet_device_command(code, around),
        }
    }

    fn disk_command(&mut self, code: u8, around: &mut Surroundings) {
        use Addressing::{Lba28, Lba48};
        let block = self.state.multiple;
        match code {
            op::READ_SECTORS | 0x21 => self.read(Lba28, 1, false, around),
            op::READ_SECTORS_EXT => self.read(Lba48, 1, false, around),
            op::READ_MULTIPLE | op::READ_MULTIPLE_EXT | op::WRITE_MULTIPLE | op::WRITE_MULTIPLE_EXT if block == 0 => {
                self.abort();
            }
            op::READ_MULTIPLE => self.read(Lba28, block, false, around),
            op::READ_MULTIPLE_EXT => self.read(Lba48, block, false, around),
            op::READ_DMA | 0xc9 => self.read(Lba28, 1, true, around),
            op::READ_DMA_EXT => self.read(Lba48, 1, true, around),
            op::WRITE_SECTORS | 0x31 => self.write(Lba28, 1, false, around),
            op::WRITE_SECTORS_EXT => self.write(Lba48, 1, false, around),
            op::WRITE_MULTIPLE => self.write(Lba28, block, false, around),
            op::WRITE_MULTIPLE_EXT => self.write(Lba48, block, false, around),
            op::WRITE_DMA | 0xcb => self.write(Lba28, 1, true, around),
            op::WRITE_DMA_EXT => self.write(Lba48, 1, true, around),
            op::READ_VERIFY | 0x41 => self.verify(Lba28, around),
            op::READ_VERIFY_EXT => self.verify(Lba48, around),
            op::FLUSH_CACHE | op::FLUSH_CACHE_EXT => self.flush(around),
            op::SEEK..=0x7f => match self.address(Lba28) {
                Some((lba, _)) if lba < self.disk.sectors() => self.succeed(),
                _ => self.fail(error::IDNF),
            },
            op::RECALIBRATE..=0x1f => self.succeed(),
            op::INITIALIZE_PARAMETERS => {
                self.state.heads = (self.state.device & 15) + 1;
                match self.state.count.now {
                    0 => return self.abort(),
                    sectors => self.state.sectors = sectors,
                }
                self.succeed();
            }
            op::SET_MULTIPLE => {
                let count = self.state.count.now;
                if count != 0 && (count > LONGEST_MULTIPLE || !count.is_power_of_two()) {
                    return self.abort();
                }
                self.state.multiple = count;
                self.succeed();
            }
            op::IDENTIFY => {
                let sectors = self.disk.sectors();
                self.send(
                    identify::disk(&self.state, &self.names, Geometry::of(sectors), sectors, self.unit),
                    SECTOR as usize,
                );
            }
            op::READ_NATIVE_MAX | op::READ_NATIVE_MAX_EXT => {
                let last = self.disk.sectors().saturating_sub(1);
                match code == op::READ_NATIVE_MAX {
                    true => self.show_address(Lba28, last.min(0x0fff_ffff)),
                    false => self.show_address(Lba48, last),
                }
                self.succeed();
            }
            op::SMART => self.smart(),
            _ => self.common_command(code),
        }
    }

    /// Commands of disks and packet devices alike.
    fn common_command(&mut self, code: u8) {
        match code {
            op::SET_FEATURES => self.set_features(),
            op::STANDBY_IMMEDIATE | 0x94 | op::STANDBY | 0x96 => {
                self.state.power = 0x00;
                self.succeed();
            }
            op::IDLE_IMMEDIATE | 0x95 | op::IDLE | 0x97 => self.succeed(),
            op::CHECK_POWER_MODE | 0x98 => {
                self.state.count.now = self.state.power;
                self.succeed();
            }
            op::SLEEP | 0x99 => {
                self.state.asleep = true;
                self.succeed();
            }
            _ => self.abort(),
        }
    }

    fn set_features(&mut self) {
        let count = self.state.count.now;
        match self.state.features.now {
            0x02 => self.state.write_cache = true,
            0x82 => self.state.write_cache = false,
            0xaa => self.state.look_ahead = true,
            0x55 => self.state.look_ahead = false,
            0x66 | 0xcc => {}
            // Transfer modes: PIO default and 0 to 4, multiword DMA 0 to 2, Ultra DMA 0 to 5.
            0x03 => match count {
                0x00 | 0x01 | 0x08..=0x0c => self.state.dma_mode = 0,
                0x20..=0x22 | 0x40..=0x45 => self.state.dma_mode = count,
                _ => return self.abort(),
            },
            _ => return self.abort(),
        }
        self.succeed();
    }

    fn smart(&mut self) {
        let s = &mut self.state;
        let feature = s.features.now;
        if (s.mid.now, s.high.now) != (0x4f, 0xc2) || !s.smart && feature != 0xd8 {
            return self.abort();
        }
        match feature {
            0xd0 => self.send(identify::smart_data(), SECTOR as usize),
            0xd1 => self.send(identify::smart_thresholds(), SECTOR as usize),
            // Attribute autosave; off-line collection, whose tests find nothing and end at once.
            0xd2 | 0xd4 => self.succeed(),
            0xd5 => match identify::smart_log(self.state.low.now) {
                Some(log) if self.state.count.now == 1 => self.send(log, SECTOR as usize),
                _ => self.abort(),
            },
            0xd8 | 0xd9 => {
                self.state.smart = feature == 0xd8;
                self.succeed();
            }
            // RETURN STATUS: no threshold exceeded, so the signature stays.
            0xda => self.succeed(),
            _ => self.abort(),
        }
    }

    fn succeed(&mut self) {
        self.state.phase = Phase::Idle;
        self.state.status = DRDY | DSC;
        self.state.intrq = true;
    }

    fn abort(&mut self) {
        self.fail(error::ABRT);
    }

    fn fail(&mut self, error: u8) {
        self.state.phase = Phase::Idle;
        self.state.error = error;
        self.state.status = DRDY | DSC | ERR;
        self.state.intrq = true;
    }

    /// First sector and number of sectors; `None` for an impossible cylinder, head or sector.
    fn address(&self, addressing: Addressing) -> Option<(u64, u32)> {
        let s = &self.state;
        let count = match s.count.now {
            0 => 256,
            n => u32::from(n),
        };
        let low = u64::from(s.low.now) | u64::from(s.mid.now) << 8 | u64::from(s.high.now) << 16;
        if addressing == Addressing::Lba48 {
            let high = u64::from(s.low.before) | u64::from(s.mid.before) << 8 | u64::from(s.high.before) << 16;
            let count = match u32::from(s.count.before) << 8 | u32::from(s.count.now) {
                0 => 0x1_0000,
                n => n,
            };
            return Some((high << 24 | low, count));
        }
        if s.device & DEVICE_LBA != 0 {
            return Some((low | u64::from(s.device & 15) << 24, count));
        }
        let (head, sector, cylinder) = (u64::from(s.device & 15), u64::from(s.low.now), low >> 8);
        let (heads, sectors) = (u64::from(s.heads), u64::from(s.sectors));
        let exists = head < heads && (1..=sectors).contains(&sector);
        exists.then(|| ((cylinder * heads + head) * sectors + sector - 1, count))
    }

    /// Leaves the address of a sector in the registers.
    fn show_address(&mut self, addressing: Addressing, lba: u64) {
        let s = &mut self.state;
        let put = |s: &mut DriveState, value: u64| {
            (s.low.now, s.mid.now, s.high.now) = (value as u8, (value >> 8) as u8, (value >> 16) as u8);
        };
        match addressing {
            Addressing::Lba48 => {
                put(s, lba);
                (s.low.before, s.mid.before, s.high.before) = ((lba >> 24) as u8, (lba >> 32) as u8, (lba >> 40) as u8);
            }
            Addressing::Lba28 => {
                put(s, lba);
                s.device = s.device & 0xf0 | (lba >> 24) as u8 & 15;
            }
            Addressing::Chs => {
                let (heads, sectors) = (u64::from(s.heads.max(1)), u64::from(s.sectors.max(1)));
                let track = lba / sectors;
                put(s, ((track / heads) << 8) | (lba % sectors + 1));
                s.device = s.device & 0xf0 | (track % heads) as u8;
            }
        }
    }

    /// Prepares a transfer of sectors; `false` if it has failed.
    fn begin(&mut self, addressing: Addressing, block: u8, dma: bool) -> bool {
        let Some((lba, left)) = self.address(addressing) else {
            self.fail(error::IDNF);
            return false;
        };
        let addressing = match addressing {
            Addressing::Lba28 if self.state.device & DEVICE_LBA == 0 => Addressing::Chs,
            other => other,
        };
        if lba + u64::from(left) > self.disk.sectors() {
            self.fail(error::IDNF);
            return false;
        }
        let (block, unit) = (block.into(), SECTOR as u32);
        self.state.transfer = Transfer { lba, left, unit, block, addressing, dma, ..Transfer::default() };
        true
    }

    fn read(&mut self, addressing: Addressing, block: u8, dma: bool, around: &mut Surroundings) {
        if self.begin(addressing, block, dma) {
            self.fetch(Phase::AwaitRead, around);
        }
    }

    fn verify(&mut self, addressing: Addressing, around: &mut Surroundings) {
        if self.begin(addressing, 1, false) {
            self.fetch(Phase::AwaitVerify, around);
        }
    }

    fn flush(&mut self, around: &mut Surroundings) {
        self.state.phase = Phase::AwaitFlush;
        self.state.status = BSY | DSC;
        self.disk.submit(around.now, Request::Flush);
    }

    /// Has the disk read the next run. By DMA, as soon as there is a place for it.
    fn fetch(&mut self, phase: Phase, around: &mut Surroundings) {
        let s = &mut self.state;
        if s.transfer.dma {
            s.phase = Phase::DmaIn;
            s.status = DRDY | DSC | DRQ;
            s.buffer = Vec::new();
            (s.position, s.block_end) = (0, 0);
            return self.pump(around);
        }
        self.fetch_to_buffer(phase, around);
    }

    fn fetch_to_buffer(&mut self, phase: Phase, around: &mut Surroundings) {
        let (offset, len) = self.begin_disk(phase);
        self.cancel();
        self.disk.enqueue(around.now, 0, Request::Read { offset, len });
    }

    /// The next run is to be read or written: from where, or where to, and its length in bytes.
    fn begin_disk(&mut self, phase: Phase) -> (u64, usize) {
        let s = &mut self.state;
        s.phase = phase;
        s.status = BSY | DSC;
        (s.transfer.lba.saturating_mul(s.transfer.unit.into()), s.transfer.run())
    }

    fn write(&mut self, addressing: Addressing, block: u8, dma: bool, around: &mut Surroundings) {
        if self.begin(addressing, block, dma) {
            self.gather(false, around);
        }
    }

    /// Asks the host for the next run.
    fn gather(&mut self, interrupt: bool, around: &mut Surroundings) {
        let s = &mut self.state;
        if s.transfer.dma {
            s.phase = Phase::DmaOut;
            s.status = DRDY | DSC | DRQ;
            return self.pump(around);
        }
        s.buffer = self.disk.buffer(s.transfer.run());
        (s.position, s.block_end) = (0, 0);
        s.phase = Phase::DataOut;
        self.offer_block(interrupt);
    }

    /// DRQ for the next block of the buffer.
    fn offer_block(&mut self, interrupt: bool) {
        let s = &mut self.state;
        let block = (s.transfer.block * s.transfer.unit) as usize;
        s.block_end = (s.position + block).min(s.buffer.len());
        s.status = DRDY | DSC | DRQ;
        s.intrq |= interrupt;
    }

    /// Sends `bytes` in blocks of `block` bytes by PIO, outside any transfer of sectors.
    fn send(&mut self, bytes: Vec<u8>, block: usize) {
        let s = &mut self.state;
        s.transfer = Transfer { unit: SECTOR as u32, block: (block as u32 / SECTOR as u32).max(1), ..s.transfer };
        (s.transfer.left, s.transfer.failed, s.transfer.dma) = (0, false, false);
        s.buffer = bytes;
        s.position = 0;
        s.phase = Phase::DataIn;
        self.offer_block(true);
    }

    /// The host reads the data register.
    pub fn read_data(&mut self, size: u8, around: &mut Surroundings) -> u32 {
        if self.state.phase != Phase::DataIn {
            return 0;
        }
        let s = &mut self.state;
        let rest = &s.buffer[s.position..s.block_end];
        let n = usize::from(size).min(rest.len());
        let mut word = [0; 4];
        word[..n].copy_from_slice(&rest[..n]);
        s.position += n;
        if s.position == s.block_end {
            self.block_taken(around);
        }
        u32::from_le_bytes(word)
    }

    /// The host writes the data register.
    pub fn write_data(&mut self, size: u8, value: u32, around: &mut Surroundings) {
        if !matches!(self.state.phase, Phase::DataOut | Phase::PacketOut | Phase::ParametersOut) {
            return;
        }
        let s = &mut self.state;
        let n = usize::from(size).min(s.block_end - s.position);
        s.buffer[s.position..s.position + n].copy_from_slice(&value.to_le_bytes()[..n]);
        s.position += n;
        if s.position == s.block_end {
            self.block_filled(around);
        }
    }

    /// A block or, by DMA, all of the buffer has gone to the host.
    fn block_taken(&mut self, around: &mut Surroundings) {
        let s = &mut self.state;
        if s.position < s.buffer.len() {
            return match self.kind {
                Kind::Disk => self.offer_block(true),
                Kind::CdRom => self.offer_packet_block(),
            };
        }
        self.disk.recycle(std::mem::take(&mut s.buffer));
        if s.transfer.failed {
            return self.medium_failed();
        }
        if s.transfer.left > 0 {
            return self.fetch(Phase::AwaitRead, around);
        }
        match self.kind {
            // PIO ends with the last block; DMA with an interrupt.
            Kind::Disk => {
                let dma = s.transfer.dma;
                s.phase = Phase::Idle;
                s.status = DRDY | DSC;
                s.intrq |= dma;
            }
            Kind::CdRom => self.packet_done(),
        }
    }

    /// A block has come from the host.
    fn block_filled(&mut self, around: &mut Surroundings) {
        match self.state.phase {
            Phase::PacketOut => return self.packet(around),
            Phase::ParametersOut if self.state.position < self.state.buffer.len() => return self.offer_packet_block(),
            Phase::ParametersOut => return self.packet_done(),
            _ => {}
        }
        if self.state.position < self.state.buffer.len() {
            return self.offer_block(true);
        }
        let (offset, _) = self.begin_disk(Phase::AwaitWrite);
        let data = Arc::new(std::mem::take(&mut self.state.buffer));
        self.disk.submit(around.now, Request::Write { offset, data });
    }

    /// The medium failed at `transfer.lba`.
    fn medium_failed(&mut self) {
        if self.kind == Kind::CdRom {
            return self.packet_failed(Sense::MEDIUM_ERROR);
        }
        let Transfer { lba, left, addressing, .. } = self.state.transfer;
        self.show_address(addressing, lba);
        self.state.count.now = left as u8;
        self.fail(error::UNC);
    }

    /// Looks whether the disk has finished, and lets the bus master go on.
    pub fn poll(&mut self, around: &mut Surroundings) {
        if self.ahead.is_some() && !around.master.as_ref().is_some_and(|master| master.runs(true)) {
            // Stopped amid a transfer: it may go on elsewhere, if ever.
            self.fetch_to_buffer(Phase::AwaitRead, around);
        }
        if let Some(completion) = self.disk.finished(around.now) {
            self.finished(completion, around);
        }
        self.pump(around);
        if self.kind == Kind::CdRom {
            mmc::follow_user(&mut self.state.packet, &mut self.disk);
        }
    }

    fn finished(&mut self, completion: Completion, around: &mut Surroundings) {
        let ahead = self.ahead.take();
        let s = &mut self.state;
        let units = (completion.done / s.transfer.unit.max(1) as usize) as u32;
        match s.phase {
            Phase::AwaitFlush if completion.error.is_some() => self.abort(),
            Phase::AwaitFlush => self.succeed(),
            Phase::AwaitRead | Phase::AwaitVerify => {
                s.transfer.lba += u64::from(units);
                s.transfer.left = s.transfer.left.saturating_sub(units);
                s.transfer.failed = completion.error.is_some();
                if s.phase == Phase::AwaitVerify {
                    return match (s.transfer.failed, s.transfer.left) {
                        (true, _) => self.medium_failed(),
                        (false, 0) => self.verified(),
                        (false, _) => self.fetch(Phase::AwaitVerify, around),
                    };
                }
                let len = units as usize * s.transfer.unit as usize;
                if len == 0 {
                    return self.medium_failed();
                }
                let ahead = ahead.filter(|_| completion.data.is_empty());
                s.buffer = completion.data;
                s.buffer.truncate(len);
                (s.position, s.block_end) = (0, 0);
                self.show_progress();
                match (ahead, &mut around.master) {
                    (Some(ahead), Some(master)) => {
                        match self.state.transfer.failed {
                            true => master.pass(around.memory, len),
                            false => master.follow(&ahead),
                        }
                        self.block_taken(around);
                    }
                    _ => self.hand_over(around),
                }
            }
            Phase::AwaitWrite => {
                s.transfer.lba += u64::from(units);
                s.transfer.left = s.transfer.left.saturating_sub(units);
                if completion.error.is_some() {
                    let Transfer { lba, left, addressing, .. } = self.state.transfer;
                    self.show_address(addressing, lba);
                    self.state.count.now = left as u8;
                    return self.abort();
                }
                self.show_progress();
                match self.state.transfer.left {
                    0 => self.succeed(),
                    _ => self.gather(true, around),
                }
            }
            // What a reset has cancelled does not come here.
            _ => {}
        }
    }

    fn verified(&mut self) {
        self.show_progress();
        self.succeed();
    }

    /// The registers name the last sector of the run that has come through.
    fn show_progress(&mut self) {
        let Transfer { lba, left, addressing, .. } = self.state.transfer;
        if self.kind == Kind::Disk {
            self.show_address(addressing, lba.saturating_sub(1));
            self.state.count.now = left as u8;
        }
    }

    /// Offers the buffer to the host or the bus master.
    fn hand_over(&mut self, around: &mut Surroundings) {
        let s = &mut self.state;
        if s.transfer.dma {
            s.phase = Phase::DmaIn;
            s.status = DRDY | DSC | DRQ;
            return self.pump(around);
        }
        s.phase = Phase::DataIn;
        match self.kind {
            Kind::Disk => self.offer_block(true),
            Kind::CdRom => self.offer_packet_block(),
        }
    }

    /// Writes a command block register other than Data, Device and Command.
    pub fn write_register(&mut self, register: u8, value: u8) {
        let s = &mut self.state;
        if s.status & BSY != 0 {
            return;
        }
        match register {
            1 => s.features.write(value),
            2 => s.count.write(value),
            3 => s.low.write(value),
            4 => s.mid.write(value),
            5 => s.high.write(value),
            _ => s.device = value,
        }
    }

    /// Reads a command block register other than Data and Status.
    pub fn read_register(&self, register: u8, previous: bool) -> u8 {
        let s = &self.state;
        let pick = |twice: Twice| if previous { twice.before } else { twice.now };
        match register {
            1 => s.error,
            2 => pick(s.count),
            3 => pick(s.low),
            4 => pick(s.mid),
            5 => pick(s.high),
            // Obsolete bits 7 and 5 read as ones.
            _ => s.device | 0xa0,
        }
    }
}

/// What resets a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// RESET#.
    Hardware,
    /// SRST.
    Software,
    /// DEVICE RESET.
    Device,
}

/// Command codes.
pub mod op {
    pub const DEVICE_RESET: u8 = 0x08;
    pub const RECALIBRATE: u8 = 0x10;
    pub const READ_SECTORS: u8 = 0x20;
    pub const READ_SECTORS_EXT: u8 = 0x24;
    pub const READ_DMA_EXT: u8 = 0x25;
    pub const READ_NATIVE_MAX_EXT: u8 = 0x27;
    pub const READ_MULTIPLE_EXT: u8 = 0x29;
    pub const WRITE_SECTORS: u8 = 0x30;
    pub const WRITE_SECTORS_EXT: u8 = 0x34;
    pub const WRITE_DMA_EXT: u8 = 0x35;
    pub const WRITE_MULTIPLE_EXT: u8 = 0x39;
    pub const READ_VERIFY: u8 = 0x40;
    pub const READ_VERIFY_EXT: u8 = 0x42;
    pub const SEEK: u8 = 0x70;
    pub const EXECUTE_DIAGNOSTIC: u8 = 0x90;
    pub const INITIALIZE_PARAMETERS: u8 = 0x91;
    pub const PACKET: u8 = 0xa0;
    pub const IDENTIFY_PACKET: u8 = 0xa1;
    pub const SMART: u8 = 0xb0;
    pub const READ_MULTIPLE: u8 = 0xc4;
    pub const WRITE_MULTIPLE: u8 = 0xc5;
    pub const SET_MULTIPLE: u8 = 0xc6;
    pub const READ_DMA: u8 = 0xc8;
    pub const WRITE_DMA: u8 = 0xca;
    pub const STANDBY_IMMEDIATE: u8 = 0xe0;
    pub const IDLE_IMMEDIATE: u8 = 0xe1;
    pub const STANDBY: u8 = 0xe2;
    pub const IDLE: u8 = 0xe3;
    pub const CHECK_POWER_MODE: u8 = 0xe5;
    pub const SLEEP: u8 = 0xe6;
    pub const FLUSH_CACHE: u8 = 0xe7;
    pub const FLUSH_CACHE_EXT: u8 = 0xea;
    pub const IDENTIFY: u8 = 0xec;
    pub const SET_FEATURES: u8 = 0xef;
    pub const READ_NATIVE_MAX: u8 = 0xf8;
}
