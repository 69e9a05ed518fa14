//! MSI-X: PCI Local Bus Specification 3.0, 6.8.2 to 6.8.4.
//!
//! ```text
//!  capability 11h   2 Message Control: 15 enable | 14 function mask | 10..0 vectors less one
//!                   4 table: offset | BAR      8 pending bits: offset | BAR
//!  BAR   000h  table: address low, address high, data, vector control (0 mask), 16 bytes a vector
//!        800h  pending bits
//! ```
//! A message that is masked waits in its pending bit. Deliberately absent: more than 64 vectors.

use super::config::ConfigSpace;
use emu_core::irq::MsiSink;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The capability's ID.
pub const CAPABILITY: u8 = 0x11;
/// Bytes of the BAR that holds table and pending bits.
pub const BAR_SIZE: u32 = 0x1000;
/// Vectors at most.
pub const MOST_VECTORS: u16 = 64;

const PENDING: u32 = 0x800;
const ENABLE: u16 = 1 << 15;
const FUNCTION_MASK: u16 = 1 << 14;
const VECTOR_MASK: u32 = 1;

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Message address.
    pub address: u64,
    /// Message data.
    pub data: u32,
    /// Vector control.
    pub control: u32,
}

/// What is saved. Message Control is in the configuration space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MsixState {
    /// The table.
    pub table: Vec<Entry>,
    /// Pending bits.
    pub pending: u64,
}

/// The MSI-X side of a function.
pub struct Msix {
    table: Vec<Entry>,
    pending: u64,
    /// Where the capability is; `None`: the function has none.
    capability: Option<u8>,
    sink: Option<Arc<dyn MsiSink>>,
    enabled: bool,
    masked: bool,
}

const AFTER_RESET: Entry = Entry { address: 0, data: 0, control: VECTOR_MASK };

impl Msix {
    /// Adds the capability to `config`, for `vectors` messages to `sink`, with its registers in base address register `bar`, which the
    /// caller adds. Without vectors or a sink, there is no capability.
    pub fn new(config: &mut ConfigSpace, bar: u8, vectors: u16, sink: Option<Arc<dyn MsiSink>>) -> Msix {
        let vectors = vectors.min(MOST_VECTORS);
        let mut capability = None;
        if vectors > 0 && sink.is_some() {
            let mut body = [0; 10];
            body[..2].copy_from_slice(&(vectors - 1).to_le_bytes());
            body[2..6].copy_from_slice(&u32::from(bar).to_le_bytes());
            body[6..].copy_from_slice(&(PENDING | u32::from(bar)).to_le_bytes());
            let at = config.add_capability(CAPABILITY, &body);
            config.store(at + 2, &(ENABLE | FUNCTION_MASK).to_le_bytes());
            capability = Some(at);
        }
        let len = if capability.is_some() { vectors.into() } else { 0 };
        Msix { table: vec![AFTER_RESET; len], pending: 0, capability, sink, enabled: false, masked: false }
    }

    /// Whether the function has the capability.
    pub fn exists(&self) -> bool {
        self.capability.is_some()
    }

    /// Whether the guest has enabled it, so that INTx# is not used.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Whether there is such a vector.
    pub fn has(&self, vector: u16) -> bool {
        usize::from(vector) < self.table.len()
    }

    /// Looks at Message Control anew; to be called by the function's `poll`, `reset` and `restored`.
    pub fn follow(&mut self, config: &ConfigSpace) {
        let Some(at) = self.capability else { return };
        let control = config.word(at + 2);
        self.enabled = control & ENABLE != 0;
        self.masked = control & FUNCTION_MASK != 0;
        self.deliver_pending();
    }

    /// Sends the message of `vector`, now or once it is not masked. Nothing happens without such a vector or while MSI-X is off.
    pub fn notify(&mut self, vector: u16) {
        let Some(entry) = self.table.get(usize::from(vector)) else { return };
        if !self.enabled {
            return;
        }
        if self.masked || entry.control & VECTOR_MASK != 0 {
            self.pending |= 1 << vector;
        } else if let Some(sink) = &self.sink {
            sink.deliver(entry.address, entry.data);
        }
    }

    fn deliver_pending(&mut self) {
        if !self.enabled || self.masked {
            return;
        }
        for vector in 0..self.table.len() as u16 {
            let bit = 1 << vector;
            if self.pending & bit != 0 && self.table[usize::from(vector)].control & VECTOR_MASK == 0 {
                self.pending &= !bit;
                self.notify(vector);
            }
        }
    }

    /// A guest's read from the BAR.
    pub fn read(&self, offset: u64, size: u8) -> u64 {
        (0..u64::from(size.min(8))).rev().fold(0, |value, i| value << 8 | u64::from(self.byte(offset + i)))
    }

    fn byte(&self, offset: u64) -> u8 {
        if offset >= PENDING.into() {
            let at = (offset - u64::from(PENDING)) as usize;
            return self.pending.to_le_bytes().get(at).copied().unwrap_or(0);
        }
        let word = self.table.get((offset / 16) as usize).map_or(0, |entry| match offset / 4 % 4 {
            0 => entry.address as u32,
            1 => (entry.address >> 32) as u32,
            2 => entry.data,
            _ => entry.control,
        });
        (word >> (8 * (offset % 4))) as u8
    }

    /// A guest's write to the BAR: whole words or pairs of them (6.8.2); others are lost, and so are writes to pending bits.
    pub fn write(&mut self, offset: u64, size: u8, value: u64) {
        match (size, offset % 8) {
            (4, 0 | 4) => self.write_word(offset, value as u32),
            (8, 0) => {
                self.write_word(offset, value as u32);
                self.write_word(offset + 4, (value >> 32) as u32);
            }
            _ => {}
        }
    }

    fn write_word(&mut self, offset: u64, value: u32) {
        let Some(entry) = self.table.get_mut((offset / 16) as usize) else { return };
        match offset / 4 % 4 {
            0 => entry.address = entry.address & !0xffff_ffff | u64::from(value),
            1 => entry.address = entry.address & 0xffff_ffff | u64::from(value) << 32,
            2 => entry.data = value,
            _ => {
                entry.control = value & VECTOR_MASK;
                self.deliver_pending();
            }
        }
    }

    /// PCI reset. The configuration space is reset by the function.
    pub fn reset(&mut self) {
        self.table.fill(AFTER_RESET);
        (self.pending, self.enabled, self.masked) = (0, false, false);
    }

    /// What is saved.
    pub fn state(&self) -> MsixState {
        MsixState { table: self.table.clone(), pending: self.pending }
    }

    /// Restores what was saved: as many vectors as the function has. [`Msix::follow`] is to be called afterwards.
    pub fn set_state(&mut self, state: &MsixState) {
        self.reset();
        self.table.iter_mut().zip(&state.table).for_each(|(entry, saved)| *entry = *saved);
        self.pending = state.pending;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::config::Identity;
    use crate::shared::Shared;

    #[derive(Default)]
    struct Sink(Shared<Vec<(u64, u32)>>);

    impl MsiSink for Sink {
        fn deliver(&self, address: u64, data: u32) {
            self.0.lock().push((address, data));
        }
    }

    #[test]
    fn masked_messages_wait_in_their_pending_bits() {
        let sent = Shared::default();
        let mut config = ConfigSpace::new(Identity::default());
        let mut msix = Msix::new(&mut config, 1, 3, Some(Arc::new(Sink(sent.clone()))));
        let at = config.byte(0x34);
        assert_eq!((config.byte(at), config.read(at + 4, 4), config.read(at + 8, 4)), (CAPABILITY, 1, 0x801));
        assert_eq!(config.word(at + 2), 2);
        for (offset, value) in [(16, 0xfee0_0000u32), (24, 0x4051)] {
            msix.write(offset, 4, value.into());
        }
        msix.notify(1);
        assert_eq!(msix.read(0x800, 8), 0, "MSI-X is off");
        config.write(at + 2, 2, (ENABLE | FUNCTION_MASK).into());
        msix.follow(&config);
        msix.notify(1);
        msix.notify(3);
        assert_eq!((msix.read(0x800, 8), sent.lock().len()), (2, 0));
        msix.write(28, 4, 0);
        assert_eq!(sent.lock().len(), 0, "the function is masked still");
        config.write(at + 2, 2, ENABLE.into());
        msix.follow(&config);
        assert_eq!((sent.lock().as_slice(), msix.read(0x800, 4)), (&[(0xfee0_0000, 0x4051)][..], 0));
        msix.notify(1);
        assert_eq!(sent.lock().len(), 2);
        assert_eq!(msix.read(16, 8), 0xfee0_0000);
        msix.write(17, 1, 0xff);
        assert_eq!((msix.read(16, 4), msix.read(0xfff, 8)), (0xfee0_0000, 0));
    }
}
