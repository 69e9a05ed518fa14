//! How a drive's data move by DMA: where the channel's bus master has them.

use super::status::{DRDY, DSC};
use super::{Drive, Phase, Surroundings};
use crate::scatter::Scatter;
use crate::storage::ide::bus_master::Moved;

impl Drive {
    /// Moves data by DMA, if that is what is next.
    pub fn pump(&mut self, around: &mut Surroundings) {
        let s = &mut self.state;
        let Some(master) = &mut around.master else { return };
        let moved = match s.phase {
            Phase::DmaIn if s.buffer.is_empty() && s.transfer.left > 0 => return self.fetch_to_memory(around),
            Phase::DmaIn => {
                let (n, moved) = master.write_memory(around.memory, &s.buffer[s.position..]);
                s.position += n;
                moved
            }
            Phase::DmaOut => {
                let len = s.transfer.run();
                let (sources, moved) = master.places(around.memory, false, len);
                if moved == Moved::All {
                    let (offset, len) = self.begin_disk(Phase::AwaitWrite);
                    let data = Scatter::new(around.memory, &sources, 0, len);
                    self.cancel();
                    return self.disk.enqueue_write(around.now, 0, offset, data);
                }
                moved
            }
            _ => return,
        };
        match moved {
            Moved::Waiting => {}
            Moved::All => self.block_taken(around),
            // The bus master has dropped out: the drive gives up as after a reset, without an interrupt.
            Moved::Stopped => {
                s.phase = Phase::Idle;
                s.status = DRDY | DSC;
                s.buffer = Vec::new();
                (s.position, s.block_end) = (0, 0);
            }
        }
    }

    /// Has the disk read the next run to where the bus master would put it, or else to the buffer.
    fn fetch_to_memory(&mut self, around: &mut Surroundings) {
        let Some(master) = &around.master else { return };
        let mut ahead = **master;
        match ahead.places(around.memory, true, self.state.transfer.run()) {
            (_, Moved::Waiting) => {}
            (places, Moved::All) => {
                let (offset, len) = self.begin_disk(Phase::AwaitRead);
                let room = Scatter::new(around.memory, &places, 0, len);
                self.cancel();
                self.ahead = Some(ahead);
                self.disk.enqueue_read(around.now, 0, offset, room);
            }
            // Something comes before the bus master finds out.
            (_, Moved::Stopped) => self.fetch_to_buffer(Phase::AwaitRead, around),
        }
    }
}
