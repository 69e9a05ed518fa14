//! The commands of packet devices, and how the data of their packets move.

use super::status::{DRDY, DRQ, DSC};
use super::{Drive, Phase, RUN, Surroundings, Transfer, error, op};
use crate::storage::block::SECTOR;
use crate::storage::ide::identify;
use crate::storage::ide::mmc::{self, Outcome, Sense};

/// Interrupt reason, which a packet device has in the sector count register.
mod reason {
    pub const COMMAND: u8 = 1 << 0;
    pub const TO_HOST: u8 = 1 << 1;
}

impl Drive {
    pub(super) fn packet_device_command(&mut self, code: u8, around: &mut Surroundings) {
        match code {
            op::PACKET => {
                let s = &mut self.state;
                if s.features.now & 2 != 0 {
                    return self.abort();
                }
                s.transfer.dma = s.features.now & 1 != 0;
                s.transfer.limit = u16::from_le_bytes([s.mid.now, s.high.now]);
                s.buffer = vec![0; 12];
                (s.position, s.block_end) = (0, 12);
                s.count.now = reason::COMMAND;
                s.phase = Phase::PacketOut;
                // Word 0 of IDENTIFY PACKET DEVICE: DRQ without an interrupt.
                s.status = DRDY | DSC | DRQ;
            }
            op::IDENTIFY_PACKET => self.send(identify::cdrom(&self.state, &self.names, self.unit), SECTOR as usize),
            op::IDENTIFY | op::READ_SECTORS => {
                self.sign();
                self.abort();
            }
            op::FLUSH_CACHE => self.flush(around),
            _ => self.common_command(code),
        }
    }

    pub(super) fn packet(&mut self, around: &mut Surroundings) {
        let mut packet = [0; 12];
        packet.copy_from_slice(&self.state.buffer[..12]);
        tracing::trace!(target: "guest_errors", "packet {packet:02x?}");
        let s = &mut self.state;
        s.error = 0;
        match mmc::execute(&mut s.packet, &mut self.disk, &packet) {
            Outcome::Done => self.packet_done(),
            Outcome::Fail(sense) => self.packet_failed(sense),
            Outcome::Data(bytes) => {
                (s.transfer.left, s.transfer.failed) = (0, false);
                s.buffer = bytes;
                s.position = 0;
                self.hand_over(around);
            }
            Outcome::Read { block, count } => {
                let unit = mmc::BLOCK as u32;
                s.transfer = Transfer { lba: block.into(), left: count, unit, block: 1, failed: false, ..s.transfer };
                self.fetch(Phase::AwaitRead, around);
            }
            Outcome::Receive(len) => {
                (s.transfer.left, s.transfer.failed) = (0, false);
                s.buffer = vec![0; len.min(RUN)];
                s.position = 0;
                if s.transfer.dma {
                    // Parameters that nobody looks at need not be fetched.
                    return self.packet_done();
                }
                s.phase = Phase::ParametersOut;
                self.offer_packet_block();
            }
        }
    }

    /// DRQ for the next block of packet data, as long as the host's byte count limit lets it be: ATA/ATAPI-6 8.23.
    pub(super) fn offer_packet_block(&mut self) {
        let s = &mut self.state;
        let limit = match s.transfer.limit {
            0 | 0xffff => 0xfffe,
            1 => 2,
            n => usize::from(n),
        };
        let rest = s.buffer.len() - s.position;
        // Only the last block may be odd.
        let len = if rest > limit { limit & !1 } else { rest };
        s.block_end = s.position + len;
        (s.mid.now, s.high.now) = (len as u8, (len >> 8) as u8);
        s.count.now = if s.phase == Phase::DataIn { reason::TO_HOST } else { 0 };
        s.status = DRDY | DSC | DRQ;
        s.intrq = true;
    }

    pub(super) fn packet_done(&mut self) {
        self.state.buffer = Vec::new();
        (self.state.position, self.state.block_end) = (0, 0);
        self.state.count.now = reason::COMMAND | reason::TO_HOST;
        self.succeed();
    }

    pub(super) fn packet_failed(&mut self, sense: Sense) {
        self.packet_done();
        self.state.packet.sense = sense;
        self.fail(sense.key << 4 | if sense.key == 5 { error::ABRT } else { 0 });
    }
}
