//! The SMBus host controller of the PIIX4, and what is on its bus: Intel 82371AB data sheet (290562-001) 7.3 and 11.5.4, System
//! Management Bus Specification 1.1 chapter 5.
//!
//! ```text
//!  00h SMBHSTSTS  01h SMBSLVSTS  02h SMBHSTCNT  03h SMBHSTCMD  04h SMBHSTADD  05h SMBHSTDAT0  06h SMBHSTDAT1  07h SMBBLKDAT
//!  08h SMBSLVCNT  09h SMBSHDWCMD  0Ah SMBSLVEVT  0Ch SMBSLVDAT
//! ```
//! Where it lies and which interrupt it uses is [`crate::pci::piix4`]'s business. On the bus are eight serial EEPROMs at 50h to 57h,
//! which are blank, as on QEMU's `pc`. A transaction takes as long as its bits at [`BIT`] each, the fastest that the specification
//! allows; the data sheet's 10 to 16 kHz would only make guests wait. It happens when it starts, so that one which is killed has
//! reached the device, but its result never reaches the registers.
//!
//! Deliberately absent: what other masters do, as there are none (the slave interface with its shadow ports and SMBALERT#: its registers
//! only keep what is written), bus collisions, and the interrupt as SMI#.

mod eeprom;

pub use eeprom::Eeprom;

use emu_core::clock::Instant;
use serde::{Deserialize, Serialize};

/// Ports in the block.
pub const SIZE: u64 = 0x10;
/// Nanoseconds for each bit on the bus: 100 kHz.
pub const BIT: u64 = 10_000;
/// The address of the first EEPROM, without the bit for reads.
pub const FIRST_EEPROM: u8 = 0x50;

const EEPROMS: usize = 8;
/// Bytes of data of the block protocols, and of the array behind SMBBLKDAT.
const BLOCK: usize = 32;

/// SMBHSTSTS bits.
pub mod status {
    /// A transaction is under way.
    pub const HOST_BUSY: u8 = 1 << 0;
    /// A transaction has completed.
    pub const INTER: u8 = 1 << 1;
    /// Nobody acknowledged, or the protocol is reserved.
    pub const DEV_ERR: u8 = 1 << 2;
    /// Collision.
    pub const BUS_ERR: u8 = 1 << 3;
    /// KILL was written.
    pub const FAILED: u8 = 1 << 4;
    /// Those that cause interrupts and that writing a one clears.
    pub const CAUSES: u8 = INTER | DEV_ERR | BUS_ERR | FAILED;
}

/// SMBHSTCNT bits.
pub mod control {
    /// Interrupt when a transaction ends.
    pub const INTEREN: u8 = 1 << 0;
    /// Stop the transaction.
    pub const KILL: u8 = 1 << 1;
    /// SMB_CMD_PROT.
    pub const PROTOCOL: u8 = 7 << 2;
    /// Start a transaction; reads as zero.
    pub const START: u8 = 1 << 6;
}

/// SMB_CMD_PROT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Quick,
    Byte,
    ByteData,
    WordData,
    Block,
    Reserved,
}

impl Protocol {
    fn decode(control: u8) -> Protocol {
        match (control & control::PROTOCOL) >> 2 {
            0 => Protocol::Quick,
            1 => Protocol::Byte,
            2 => Protocol::ByteData,
            3 => Protocol::WordData,
            5 => Protocol::Block,
            _ => Protocol::Reserved,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    HostStatus,
    SlaveStatus,
    HostControl,
    HostCommand,
    HostAddress,
    HostData0,
    HostData1,
    BlockData,
    SlaveControl,
    ShadowCommand,
    /// SMBSLVEVT's low byte, then its high one.
    SlaveEvent(usize),
    SlaveData,
    Undecoded,
}

impl Register {
    fn decode(offset: u64) -> Register {
        match offset {
            0x0 => Register::HostStatus,
            0x1 => Register::SlaveStatus,
            0x2 => Register::HostControl,
            0x3 => Register::HostCommand,
            0x4 => Register::HostAddress,
            0x5 => Register::HostData0,
            0x6 => Register::HostData1,
            0x7 => Register::BlockData,
            0x8 => Register::SlaveControl,
            0x9 => Register::ShadowCommand,
            0xa | 0xb => Register::SlaveEvent((offset & 1) as usize),
            0xc | 0xd => Register::SlaveData,
            _ => Register::Undecoded,
        }
    }
}

/// A transaction under way, and what will be in the registers when it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Transaction {
    end: Instant,
    status: u8,
    data: [u8; 2],
    /// A block that was read.
    block: Vec<u8>,
}

/// All guest-visible state, with its behaviour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmbusHost {
    /// SMBHSTSTS without HOST_BUSY.
    status: u8,
    control: u8,
    command: u8,
    /// Address, and in bit 0 whether it is a read.
    address: u8,
    data: [u8; 2],
    block: Vec<u8>,
    /// The place in the block that SMBBLKDAT shows.
    index: u8,
    slave_control: u8,
    slave_event: [u8; 2],
    running: Option<Transaction>,
    eeproms: Vec<Eeprom>,
}

impl Default for SmbusHost {
    fn default() -> SmbusHost {
        SmbusHost {
            status: 0,
            control: 0,
            command: 0,
            address: 0,
            data: [0; 2],
            block: vec![0; BLOCK],
            index: 0,
            slave_control: 0,
            slave_event: [0; 2],
            running: None,
            eeproms: vec![Eeprom::blank(); EEPROMS],
        }
    }
}

impl SmbusHost {
    /// PCIRST#: the registers are as after power-on; what is on the bus does not notice.
    pub fn reset(&mut self) {
        let eeproms = std::mem::take(&mut self.eeproms);
        *self = SmbusHost { eeproms, ..SmbusHost::default() };
    }

    /// Whether it asks for an interrupt.
    pub fn interrupt(&self) -> bool {
        self.control & control::INTEREN != 0 && self.status & status::CAUSES != 0
    }

    /// When the transaction under way ends.
    pub fn deadline(&self) -> Option<Instant> {
        self.running.as_ref().map(|transaction| transaction.end)
    }

    /// Brings it up to `now`.
    pub fn advance(&mut self, now: Instant) {
        if let Some(done) = self.running.take_if(|transaction| transaction.end <= now) {
            self.status |= done.status;
            self.data = done.data;
            self.block.iter_mut().zip(done.block).for_each(|(place, byte)| *place = byte);
        }
    }

    /// Reads the byte at `offset`.
    pub fn read(&mut self, offset: u64, now: Instant) -> u8 {
        self.advance(now);
        match Register::decode(offset) {
            Register::HostStatus => self.status | if self.running.is_some() { status::HOST_BUSY } else { 0 },
            Register::HostControl => {
                self.index = 0;
                self.control
            }
            Register::HostCommand => self.command,
            Register::HostAddress => self.address,
            Register::HostData0 => self.data[0],
            Register::HostData1 => self.data[1],
            Register::BlockData => self.next_of_block().map_or(0, |byte| *byte),
            Register::SlaveControl => self.slave_control,
            Register::SlaveEvent(byte) => self.slave_event[byte],
            Register::SlaveStatus | Register::ShadowCommand | Register::SlaveData | Register::Undecoded => 0,
        }
    }

    /// Writes the byte at `offset`. What a transaction uses is not to be written while it is under way, and is not.
    pub fn write(&mut self, offset: u64, value: u8, now: Instant) {
        self.advance(now);
        let idle = self.running.is_none();
        match Register::decode(offset) {
            Register::HostStatus => self.status &= !(value & status::CAUSES),
            Register::HostControl => self.write_control(value, now),
            Register::HostCommand if idle => self.command = value,
            Register::HostAddress if idle => self.address = value,
            Register::HostData0 if idle => self.data[0] = value,
            Register::HostData1 if idle => self.data[1] = value,
            Register::BlockData if idle => {
                if let Some(place) = self.next_of_block() {
                    *place = value;
                }
            }
            Register::SlaveControl => self.slave_control = value & 0x0f,
            Register::SlaveEvent(byte) => self.slave_event[byte] = value,
            Register::HostCommand
            | Register::HostAddress
            | Register::HostData0
            | Register::HostData1
            | Register::BlockData
            | Register::SlaveStatus
            | Register::ShadowCommand
            | Register::SlaveData
            | Register::Undecoded => {}
        }
    }

    /// The byte that SMBBLKDAT shows, after which it shows the next.
    fn next_of_block(&mut self) -> Option<&mut u8> {
        let index = usize::from(self.index) % BLOCK;
        self.index = (index as u8 + 1) % BLOCK as u8;
        self.block.get_mut(index)
    }

    fn write_control(&mut self, value: u8, now: Instant) {
        let writable = match self.running {
            Some(_) => control::INTEREN | control::KILL,
            None => control::INTEREN | control::KILL | control::PROTOCOL,
        };
        self.control = self.control & !writable | value & writable;
        if value & control::KILL != 0 {
            self.running = None;
            self.status |= status::FAILED;
        } else if value & control::START != 0 && self.running.is_none() && self.status & status::CAUSES == 0 {
            // Data sheet 11.5.4.1: START has no effect before all causes of interrupts are cleared.
            let (mut transaction, bytes) = self.transact();
            // START, the bytes with their acknowledgements, STOP.
            transaction.end = now.plus_nanos((9 * bytes as u64 + 2) * BIT);
            self.running = Some(transaction);
        }
    }

    /// Carries the transaction out; what comes of it, and how many bytes the bus carries.
    fn transact(&mut self) -> (Transaction, usize) {
        let (command, [low, high], read) = (self.command, self.data, self.address & 1 != 0);
        let mut result = Transaction { end: Instant::ZERO, status: status::INTER, data: self.data, block: Vec::new() };
        let protocol = Protocol::decode(self.control);
        let number = usize::from((self.address >> 1).wrapping_sub(FIRST_EEPROM));
        let target = self.eeproms.get_mut(number);
        let (Some(target), true) = (target, protocol != Protocol::Reserved) else {
            result.status = status::DEV_ERR;
            return (result, if protocol == Protocol::Reserved { 0 } else { 1 });
        };
        let bytes = match (protocol, read) {
            (Protocol::Quick | Protocol::Reserved, _) => 1,
            (Protocol::Byte, false) => {
                target.receive(&[command]);
                2
            }
            (Protocol::Byte, true) => {
                result.data[0] = target.send();
                2
            }
            (Protocol::ByteData, false) => {
                target.receive(&[command, low]);
                3
            }
            (Protocol::ByteData, true) => {
                target.receive(&[command]);
                result.data[0] = target.send();
                4
            }
            (Protocol::WordData, false) => {
                target.receive(&[command, low, high]);
                4
            }
            (Protocol::WordData, true) => {
                target.receive(&[command]);
                result.data = [target.send(), target.send()];
                5
            }
            (Protocol::Block, false) => {
                let count = usize::from(low).min(BLOCK);
                let data = self.block.get(..count).unwrap_or_default();
                target.receive(&[&[command, low], data].concat());
                3 + count
            }
            (Protocol::Block, true) => {
                target.receive(&[command]);
                let count = target.send();
                result.data[0] = count;
                // SMBus 1.1 5.5.7: 1 to 32 bytes. What claims to have more is cut short.
                let count = usize::from(count).min(BLOCK);
                result.block = (0..count).map(|_| target.send()).collect();
                4 + count
            }
        };
        (result, bytes)
    }

    /// Brings a deserialised controller within its bounds.
    pub fn sanitise(&mut self) {
        self.status &= status::CAUSES;
        self.control &= control::INTEREN | control::KILL | control::PROTOCOL;
        self.block.resize(BLOCK, 0);
        if let Some(transaction) = &mut self.running {
            transaction.status &= status::CAUSES;
            transaction.block.truncate(BLOCK);
        }
        self.eeproms.resize(EEPROMS, Eeprom::blank());
        self.eeproms.iter_mut().for_each(Eeprom::sanitise);
    }

    /// After a restore at `now`: no transaction lasts longer than the longest.
    pub fn restored(&mut self, now: Instant) {
        let longest = now.plus_nanos((9 * (BLOCK as u64 + 4) + 2) * BIT);
        if let Some(transaction) = &mut self.running {
            transaction.end = transaction.end.min(longest);
        }
    }
}

#[cfg(test)]
mod tests;
