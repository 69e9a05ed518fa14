//! The two 8237A DMA controllers of a PC and their page registers.
//!
//! Follows the Intel 8237A data sheet (231466-005) and, for page registers and the wiring, the 82371SB (PIIX3) data sheet
//! 4.2.
//!
//! ```text
//!  channels 0..3, bytes:  address = page << 16 | current address          ports 00h-0Fh
//!  channels 4..7, words:  address = page << 16 | current address << 1     ports C0h-DEh, even; page bit 0 unused
//! ```
//! A device holds a [`DmaChannel`] and moves as many bytes as it has at once; demand, single and block mode differ only
//! in bus timing, which does not exist here. Deliberately absent: memory-to-memory transfers, transfers by software
//! request, compressed timing, and the need of channel 4's cascade for channels 0 to 3, which QEMU does not have either.

use crate::shared::Shared;
use emu_core::device::{Access, Device, DeviceContext, Region, ResetKind, ports};
use emu_core::mem::GuestMemory;
use serde::{Deserialize, Serialize};

/// Command Register: controller disable.
const DISABLE: u8 = 1 << 2;

/// Page register of each channel, by its offset from 80h. Channel 4's serves refresh.
const PAGE_OF_CHANNEL: [usize; 8] = [0x7, 0x3, 0x1, 0x2, 0xf, 0xb, 0x9, 0xa];

/// The register that an access reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    Address {
        controller: usize,
        channel: usize,
    },
    Count {
        controller: usize,
        channel: usize,
    },
    /// Command on writes, Status on reads.
    CommandStatus(usize),
    Request(usize),
    SingleMask(usize),
    Mode(usize),
    ClearFlipFlop(usize),
    /// Master Clear on writes, Temporary on reads.
    MasterClear(usize),
    ClearMask(usize),
    AllMask(usize),
    Page(usize),
}

impl Register {
    fn decode(access: Access) -> Register {
        let (controller, offset) = match access.region {
            0 => (0, access.offset as usize & 15),
            1 => (1, access.offset as usize >> 1 & 15),
            _ => return Register::Page(access.offset as usize & 15),
        };
        let channel = offset >> 1 & 3;
        match offset {
            0..8 if offset % 2 == 0 => Register::Address { controller, channel },
            0..8 => Register::Count { controller, channel },
            0x8 => Register::CommandStatus(controller),
            0x9 => Register::Request(controller),
            0xa => Register::SingleMask(controller),
            0xb => Register::Mode(controller),
            0xc => Register::ClearFlipFlop(controller),
            0xd => Register::MasterClear(controller),
            0xe => Register::ClearMask(controller),
            _ => Register::AllMask(controller),
        }
    }
}

/// What a channel's Mode Register has it do on a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferKind {
    /// Counts only.
    Verify,
    /// From the device to memory.
    Write,
    /// From memory to the device.
    Read,
    /// The code 11b, and channels in cascade mode.
    None,
}

/// One channel's registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelState {
    /// Base Address.
    pub base_address: u16,
    /// Base Word Count: transfers less one.
    pub base_count: u16,
    /// Current Address.
    pub address: u16,
    /// Current Word Count.
    pub count: u16,
    /// Mode Register without its channel number.
    pub mode: u8,
}

impl ChannelState {
    fn kind(&self) -> TransferKind {
        match (self.mode >> 6, self.mode >> 2 & 3) {
            (3, _) | (_, 3) => TransferKind::None,
            (_, 0) => TransferKind::Verify,
            (_, 1) => TransferKind::Write,
            (_, _) => TransferKind::Read,
        }
    }

    fn decrements(&self) -> bool {
        self.mode & 0x20 != 0
    }

    fn autoinitialises(&self) -> bool {
        self.mode & 0x10 != 0
    }
}

/// One 8237A.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerState {
    /// Its channels.
    pub channels: [ChannelState; 4],
    /// Command Register.
    pub command: u8,
    /// Status Register: terminal counts in bits 0 to 3, requests of devices in bits 4 to 7.
    pub status: u8,
    /// Software requests.
    pub request: u8,
    /// Mask Register: 1 for off.
    pub mask: u8,
    /// First/last flip-flop: the next byte of a 16-bit register is its high one.
    pub high_byte: bool,
}

impl Default for ControllerState {
    /// As after Master Clear: all channels masked.
    fn default() -> ControllerState {
        ControllerState {
            channels: [ChannelState::default(); 4],
            command: 0,
            status: 0,
            request: 0,
            mask: 0x0f,
            high_byte: false,
        }
    }
}

impl ControllerState {
    /// Master Clear keeps addresses, counts and modes, and the requests that devices make.
    fn clear(&mut self) {
        let status = self.status & 0xf0;
        *self = ControllerState { channels: self.channels, status, ..ControllerState::default() };
    }

    /// Half of a 16-bit register, by the flip-flop.
    fn read_half(&mut self, value: u16) -> u8 {
        let [low, high] = value.to_le_bytes();
        self.high_byte = !self.high_byte;
        if self.high_byte { low } else { high }
    }

    fn write_half(&mut self, value: u16, byte: u8) -> u16 {
        let [low, high] = value.to_le_bytes();
        self.high_byte = !self.high_byte;
        if self.high_byte { u16::from_le_bytes([byte, high]) } else { u16::from_le_bytes([low, byte]) }
    }
}

/// All guest-visible state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DmaState {
    /// Channels 0 to 3, and 4 to 7.
    pub controllers: [ControllerState; 2],
    /// Ports 80h to 8Fh. Those that no channel has are plain bytes.
    pub pages: [u8; 16],
}

/// What came of a device's transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    /// Bytes moved, from the front of the device's buffer.
    pub bytes: usize,
    /// The channel reached its terminal count (the TC pin was asserted with the last transfer).
    pub terminal_count: bool,
}

/// A device's end of a DMA channel.
#[derive(Clone)]
pub struct DmaChannel {
    state: Shared<DmaState>,
    channel: usize,
}

impl DmaChannel {
    /// Drives DREQ, which guests see in the Status Register.
    pub fn set_request(&self, on: bool) {
        let mut state = self.state.lock();
        let bit = 0x10 << (self.channel & 3);
        let status = &mut state.controllers[self.channel >> 2].status;
        *status = if on { *status | bit } else { *status & !bit };
    }

    /// What a transfer would do now; `None` while the channel is masked or its controller disabled.
    pub fn ready(&self) -> Option<TransferKind> {
        let state = self.state.lock();
        let controller = &state.controllers[self.channel >> 2];
        let on = controller.command & DISABLE == 0 && controller.mask & 1 << (self.channel & 3) == 0;
        on.then(|| controller.channels[self.channel & 3].kind())
    }

    /// Fills `buffer` from memory (a "read" transfer), as far as the channel's count allows.
    pub fn read_memory(&self, memory: &GuestMemory, buffer: &mut [u8]) -> Transferred {
        match self.ready() {
            Some(TransferKind::Read) => self.transfer(buffer.len(), |address, range| {
                memory.read(address, &mut buffer[range]);
            }),
            Some(TransferKind::Verify) => self.transfer(buffer.len(), |_, _| {}),
            _ => Transferred::default(),
        }
    }

    /// Puts `buffer` into memory (a "write" transfer), as far as the channel's count allows.
    pub fn write_memory(&self, memory: &GuestMemory, buffer: &[u8]) -> Transferred {
        match self.ready() {
            Some(TransferKind::Write) => self.transfer(buffer.len(), |address, range| {
                memory.write(address, &buffer[range]);
            }),
            Some(TransferKind::Verify) => self.transfer(buffer.len(), |_, _| {}),
            _ => Transferred::default(),
        }
    }

    /// Steps through up to `len` bytes; `f` gets the address and the range of the buffer of each ascending run.
    fn transfer(&self, len: usize, mut f: impl FnMut(u64, std::ops::Range<usize>)) -> Transferred {
        let mut state = self.state.lock();
        let words = u32::from(self.channel >= 4);
        let page = u64::from(state.pages[PAGE_OF_CHANNEL[self.channel & 7]] & !(words as u8)) << 16;
        let controller = &mut state.controllers[self.channel >> 2];
        let channel = &mut controller.channels[self.channel & 3];
        let (mut done, units) = (0, len >> words);
        let mut terminal_count = false;
        while done < units && !terminal_count {
            let until_wrap = if channel.decrements() { 1 } else { 0x1_0000 - usize::from(channel.address) };
            let run = (units - done).min(usize::from(channel.count) + 1).min(until_wrap);
            f(page | u64::from(channel.address) << words, done << words..(done + run) << words);
            done += run;
            terminal_count = run > usize::from(channel.count);
            let step = if channel.decrements() { (run as u16).wrapping_neg() } else { run as u16 };
            channel.address = channel.address.wrapping_add(step);
            channel.count = channel.count.wrapping_sub(run as u16);
        }
        if terminal_count {
            let bit = 1 << (self.channel & 3);
            controller.status |= bit;
            controller.request &= !bit;
            if channel.autoinitialises() {
                channel.address = channel.base_address;
                channel.count = channel.base_count;
            } else {
                controller.mask |= bit;
            }
        }
        Transferred { bytes: done << words, terminal_count }
    }
}

/// The pair of controllers.
#[derive(Default)]
pub struct Dma {
    state: Shared<DmaState>,
}

impl Dma {
    /// A device's end of channel `channel`, 0 to 7.
    pub fn channel(&self, channel: u8) -> DmaChannel {
        DmaChannel { state: self.state.clone(), channel: usize::from(channel & 7) }
    }
}

impl Device for Dma {
    const ID: &'static str = "i8237";
    type State = DmaState;
    const PORTS: &'static [Region] = &[ports(0x00, 16), ports(0xc0, 32), ports(0x80, 16)];
    const WIDEST_ACCESS: u8 = 1;

    fn read(&mut self, _cx: &mut DeviceContext, access: Access) -> u64 {
        let mut state = self.state.lock();
        u64::from(match Register::decode(access) {
            Register::Page(n) => state.pages[n],
            Register::Address { controller, channel } => {
                let c = &mut state.controllers[controller];
                c.read_half(c.channels[channel].address)
            }
            Register::Count { controller, channel } => {
                let c = &mut state.controllers[controller];
                c.read_half(c.channels[channel].count)
            }
            Register::CommandStatus(controller) => {
                let c = &mut state.controllers[controller];
                let status = c.status | c.request << 4;
                c.status &= 0xf0;
                status
            }
            // PIIX3 shows the mask here.
            Register::AllMask(controller) => state.controllers[controller].mask | 0xf0,
            Register::MasterClear(_) => 0,
            Register::Request(_)
            | Register::SingleMask(_)
            | Register::Mode(_)
            | Register::ClearFlipFlop(_)
            | Register::ClearMask(_) => 0xff,
        })
    }

    fn write(&mut self, _cx: &mut DeviceContext, access: Access, value: u64) {
        let mut state = self.state.lock();
        let value = value as u8;
        let bit = 1 << (value & 3);
        let on = value & 4 != 0;
        match Register::decode(access) {
            Register::Page(n) => state.pages[n] = value,
            Register::Address { controller, channel } => {
                let c = &mut state.controllers[controller];
                let address = c.write_half(c.channels[channel].base_address, value);
                c.channels[channel].base_address = address;
                c.channels[channel].address = address;
            }
            Register::Count { controller, channel } => {
                let c = &mut state.controllers[controller];
                let count = c.write_half(c.channels[channel].base_count, value);
                c.channels[channel].base_count = count;
                c.channels[channel].count = count;
            }
            Register::CommandStatus(controller) => state.controllers[controller].command = value,
            Register::Request(controller) => {
                let request = &mut state.controllers[controller].request;
                *request = if on { *request | bit } else { *request & !bit };
            }
            Register::SingleMask(controller) => {
                let mask = &mut state.controllers[controller].mask;
                *mask = if on { *mask | bit } else { *mask & !bit };
            }
            Register::Mode(controller) => {
                state.controllers[controller].channels[usize::from(value & 3)].mode = value & !3;
            }
            Register::ClearFlipFlop(controller) => state.controllers[controller].high_byte = false,
            Register::MasterClear(controller) => state.controllers[controller].clear(),
            Register::ClearMask(controller) => state.controllers[controller].mask = 0,
            Register::AllMask(controller) => state.controllers[controller].mask = value & 0x0f,
        }
    }

    fn reset(&mut self, _cx: &mut DeviceContext, _kind: ResetKind) {
        let mut state = self.state.lock();
        state.controllers.iter_mut().for_each(ControllerState::clear);
    }

    fn state(&self) -> DmaState {
        *self.state.lock()
    }

    fn set_state(&mut self, state: DmaState) {
        *self.state.lock() = state;
    }
}

#[cfg(test)]
mod tests;
