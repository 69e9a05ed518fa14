//! The legacy interface in BAR 0: VIRTIO 1.2, 4.1.4.10, and Virtio PCI Card Specification 0.9.5, 2.2.2 and 2.3.
//!
//! ```text
//!   0 device features (4)   4 driver features (4)   8 queue address (4): page number     12 queue size (2)   14 queue select (2)
//!  16 queue notify (2)     18 device status (1)    19 ISR status (1)
//!  20 configuration vector (2)  22 queue vector (2): only while MSI-X is enabled; the device's structure follows
//! ```
//! A queue is one block of memory: descriptors, available ring, and the used ring from the next page on.

use super::Core;
use crate::virtio::{VirtioDevice, feature, status};
use emu_core::clock::Instant;
use emu_core::mem::GuestMemory;
use std::sync::Arc;

/// Where the device's structure is while MSI-X is enabled.
pub(super) const CONFIG_WITH_MSIX: u64 = 24;
const CONFIG: u64 = 20;
/// The unit of queue addresses, and the alignment of used rings.
const PAGE: u64 = 4096;

/// A register, by the specification's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    DeviceFeatures,
    DriverFeatures,
    QueueAddress,
    QueueSize,
    QueueSelect,
    QueueNotify,
    DeviceStatus,
    IsrStatus,
    ConfigVector,
    QueueVector,
    /// The device's structure from this byte on.
    Config(u64),
}

impl Register {
    /// The register at `offset`, and its bytes; `None` amid one.
    fn decode(offset: u64, msix: bool) -> Option<(Register, u8)> {
        let structure = if msix { CONFIG_WITH_MSIX } else { CONFIG };
        match offset {
            0 => Some((Register::DeviceFeatures, 4)),
            4 => Some((Register::DriverFeatures, 4)),
            8 => Some((Register::QueueAddress, 4)),
            12 => Some((Register::QueueSize, 2)),
            14 => Some((Register::QueueSelect, 2)),
            16 => Some((Register::QueueNotify, 2)),
            18 => Some((Register::DeviceStatus, 1)),
            19 => Some((Register::IsrStatus, 1)),
            20 if msix => Some((Register::ConfigVector, 2)),
            22 if msix => Some((Register::QueueVector, 2)),
            _ if offset >= structure => Some((Register::Config(offset - structure), 8)),
            _ => None,
        }
    }
}

impl<D: VirtioDevice> Core<D> {
    pub(super) fn legacy_read(&mut self, offset: u64, size: u8) -> u64 {
        let Some((register, _)) = Register::decode(offset, self.msix.is_enabled()) else { return u64::MAX };
        match register {
            Register::DeviceFeatures => self.offered & 0xffff_ffff,
            Register::DriverFeatures => self.registers.driver_features & 0xffff_ffff,
            Register::QueueAddress => self.selected().map_or(0, |queue| queue.state.descriptors / PAGE),
            Register::QueueSize => self.selected().map_or(0, |queue| queue.max().into()),
            Register::QueueSelect => self.registers.queue_select.into(),
            Register::QueueNotify => 0,
            Register::DeviceStatus => self.registers.status.into(),
            Register::IsrStatus => self.read_isr().into(),
            Register::ConfigVector => self.registers.config_vector.into(),
            Register::QueueVector => self.selected().map_or(crate::virtio::queue::NO_VECTOR, |q| q.state.vector).into(),
            Register::Config(at) => self.read_config(at, size),
        }
    }

    pub(super) fn legacy_write(&mut self, now: Instant, memory: &Arc<GuestMemory>, offset: u64, size: u8, value: u64) {
        let Some((register, len)) = Register::decode(offset, self.msix.is_enabled()) else { return };
        if let Register::Config(at) = register {
            return self.write_config(now, memory, at, size, value);
        }
        if size < len {
            return;
        }
        let vector = self.vector(value as u16);
        match register {
            // Bits that were not offered are lost: a legacy driver is not told.
            Register::DriverFeatures => {
                self.registers.driver_features = value & self.offered & !feature::VERSION_1 & 0xffff_ffff;
                self.agree();
            }
            Register::QueueAddress => self.place_queue(value as u32),
            Register::QueueSelect => self.registers.queue_select = value as u16,
            Register::QueueNotify => self.notified(now, memory, usize::from(value as u16)),
            Register::DeviceStatus => {
                let agreed = self.registers.status & status::FEATURES_OK;
                self.write_status(now, memory, value as u8 & !status::FEATURES_OK | agreed, true);
            }
            Register::ConfigVector => self.registers.config_vector = vector,
            Register::QueueVector => {
                if let Some(queue) = self.selected() {
                    queue.state.vector = vector;
                }
            }
            Register::DeviceFeatures | Register::QueueSize | Register::IsrStatus | Register::Config(_) => {}
        }
    }

    /// 2.7.2: one block from page `number` on; 0 takes the queue out of use.
    fn place_queue(&mut self, number: u32) {
        let Some(queue) = self.selected() else { return };
        let vector = queue.state.vector;
        queue.reset();
        queue.state.vector = vector;
        let size = u64::from(queue.max());
        let base = u64::from(number) * PAGE;
        queue.state.descriptors = base;
        queue.state.available = base + 16 * size;
        // Flags, index, ring and used_event.
        queue.state.used = (queue.state.available + 6 + 2 * size).next_multiple_of(PAGE);
        queue.state.ready = number != 0;
    }
}
