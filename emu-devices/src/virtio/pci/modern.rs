//! The modern interface in BAR 4: VIRTIO 1.2, 4.1.4.3 to 4.1.4.6.

use super::{Core, NOTIFY_MULTIPLIER, PART};
use crate::virtio::VirtioDevice;
use emu_core::clock::Instant;
use emu_core::mem::GuestMemory;
use std::sync::Arc;

/// `struct virtio_pci_common_cfg`, by its field names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Common {
    DeviceFeatureSelect,
    DeviceFeature,
    DriverFeatureSelect,
    DriverFeature,
    ConfigMsixVector,
    NumQueues,
    DeviceStatus,
    ConfigGeneration,
    QueueSelect,
    QueueSize,
    QueueMsixVector,
    QueueEnable,
    QueueNotifyOff,
    QueueDesc,
    QueueDriver,
    QueueDevice,
}

/// Offset and bytes of each.
const COMMON: [(u64, u8, Common); 16] = [
    (0, 4, Common::DeviceFeatureSelect),
    (4, 4, Common::DeviceFeature),
    (8, 4, Common::DriverFeatureSelect),
    (12, 4, Common::DriverFeature),
    (16, 2, Common::ConfigMsixVector),
    (18, 2, Common::NumQueues),
    (20, 1, Common::DeviceStatus),
    (21, 1, Common::ConfigGeneration),
    (22, 2, Common::QueueSelect),
    (24, 2, Common::QueueSize),
    (26, 2, Common::QueueMsixVector),
    (28, 2, Common::QueueEnable),
    (30, 2, Common::QueueNotifyOff),
    (32, 8, Common::QueueDesc),
    (40, 8, Common::QueueDriver),
    (48, 8, Common::QueueDevice),
];

impl Common {
    /// The field that has byte `offset`, and which of its bytes that is.
    fn decode(offset: u64) -> Option<(Common, u8, u8)> {
        let (start, len, field) =
            COMMON.iter().find(|(start, len, _)| offset.wrapping_sub(*start) < u64::from(*len))?;
        Some((*field, (offset - start) as u8, *len))
    }
}

/// Replaces the low (`at` 0) or high half of `field`, or all of it.
fn replace(field: u64, at: u8, size: u8, value: u64) -> u64 {
    match (at, size) {
        (0, 8) => value,
        (0, _) => field & !0xffff_ffff | value & 0xffff_ffff,
        _ => field & 0xffff_ffff | value << 32,
    }
}

impl<D: VirtioDevice> Core<D> {
    pub(super) fn modern_read(&mut self, offset: u64, size: u8) -> u64 {
        let within = offset % u64::from(PART);
        match offset / u64::from(PART) {
            0 => (0..u64::from(size)).rev().fold(0, |value, i| value << 8 | u64::from(self.common_byte(within + i))),
            1 if within == 0 => self.read_isr().into(),
            2 => self.read_config(within, size),
            _ => 0,
        }
    }

    fn common_byte(&mut self, offset: u64) -> u8 {
        let Some((field, at, _)) = Common::decode(offset) else { return 0 };
        (self.common(field) >> (8 * at)) as u8
    }

    fn common(&mut self, field: Common) -> u64 {
        let registers = &self.registers;
        let half = |features: u64, select: u32| if select < 2 { features >> (32 * select) & 0xffff_ffff } else { 0 };
        let index = registers.queue_select;
        match field {
            Common::DeviceFeatureSelect => return registers.device_feature_select.into(),
            Common::DeviceFeature => return half(self.offered, registers.device_feature_select),
            Common::DriverFeatureSelect => return registers.driver_feature_select.into(),
            Common::DriverFeature => return half(registers.driver_features, registers.driver_feature_select),
            Common::ConfigMsixVector => return registers.config_vector.into(),
            Common::NumQueues => return self.queues.len() as u64,
            Common::DeviceStatus => return registers.status.into(),
            Common::ConfigGeneration => return registers.generation.into(),
            Common::QueueSelect => return index.into(),
            _ => {}
        }
        // 4.1.4.3.1: the size of a queue that does not exist is 0.
        let Some(queue) = self.selected().map(|queue| &queue.state) else { return 0 };
        match field {
            Common::QueueSize => queue.size.into(),
            Common::QueueMsixVector => queue.vector.into(),
            Common::QueueEnable => queue.ready.into(),
            Common::QueueNotifyOff => index.into(),
            Common::QueueDesc => queue.descriptors,
            Common::QueueDriver => queue.available,
            Common::QueueDevice => queue.used,
            _ => 0,
        }
    }

    pub(super) fn modern_write(&mut self, now: Instant, memory: &Arc<GuestMemory>, offset: u64, size: u8, value: u64) {
        let within = offset % u64::from(PART);
        match offset / u64::from(PART) {
            0 => self.write_common(now, memory, within, size, value),
            2 => self.write_config(now, memory, within, size, value),
            // 4.1.4.4: where, not what, tells the queue.
            3 => self.notified(now, memory, (within / u64::from(NOTIFY_MULTIPLIER)) as usize),
            _ => {}
        }
    }

    /// 4.1.3.1: fields are written whole, those of 64 bits also in halves. Other writes are lost.
    fn write_common(&mut self, now: Instant, memory: &Arc<GuestMemory>, offset: u64, size: u8, value: u64) {
        let Some((field, at, len)) = Common::decode(offset) else { return };
        if !(at == 0 && size == len || len == 8 && size == 4 && at % 4 == 0) {
            return;
        }
        let vector = self.vector(value as u16);
        let registers = &mut self.registers;
        match field {
            Common::DeviceFeatureSelect => registers.device_feature_select = value as u32,
            Common::DriverFeatureSelect => registers.driver_feature_select = value as u32,
            Common::DriverFeature => {
                // 2.2.1: features are fixed once they are agreed on.
                let select = registers.driver_feature_select;
                if select < 2 && registers.status & crate::virtio::status::FEATURES_OK == 0 {
                    let shift = 32 * select;
                    registers.driver_features = registers.driver_features & !(0xffff_ffff << shift) | value << shift;
                }
            }
            Common::ConfigMsixVector => registers.config_vector = vector,
            Common::DeviceStatus => self.write_status(now, memory, value as u8, false),
            Common::QueueSelect => registers.queue_select = value as u16,
            Common::QueueSize
            | Common::QueueMsixVector
            | Common::QueueEnable
            | Common::QueueDesc
            | Common::QueueDriver
            | Common::QueueDevice => self.write_queue(field, at, size, value, vector),
            Common::DeviceFeature | Common::NumQueues | Common::ConfigGeneration | Common::QueueNotifyOff => {}
        }
    }

    /// Size and addresses are fixed once the queue is enabled; it is disabled by a reset of the device.
    fn write_queue(&mut self, field: Common, at: u8, size: u8, value: u64, vector: u16) {
        let Some(queue) = self.selected() else { return };
        let state = &mut queue.state;
        match field {
            Common::QueueMsixVector => state.vector = vector,
            _ if state.ready => {}
            Common::QueueSize => queue.set_size(value as u16),
            Common::QueueEnable => state.ready = value == 1,
            Common::QueueDesc => state.descriptors = replace(state.descriptors, at, size, value),
            Common::QueueDriver => state.available = replace(state.available, at, size, value),
            _ => state.used = replace(state.used, at, size, value),
        }
    }
}
