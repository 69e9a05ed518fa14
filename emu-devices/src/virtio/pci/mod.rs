//! Virtio over PCI: VIRTIO 1.2, 4.1, with the legacy interface of 4.1.4.10 and 0.9.5 for drivers that know no other.
//!
//! ```text
//!  BAR 0  ports   legacy registers (legacy)              absent with disable-legacy
//!  BAR 1  memory  MSI-X (crate::pci::msix)               absent without vectors
//!  BAR 4  memory  0000h common configuration (modern)    absent with disable-modern
//!                 1000h ISR status
//!                 2000h device configuration
//!                 3000h notification, 4 bytes a queue
//! ```
//! Places and IDs are QEMU's: devices are transitional (1AF4:1000h and following) unless the legacy interface is disabled (1AF4:1040h
//! and following). Interrupts are messages where the driver has enabled MSI-X, INTA# with the ISR otherwise. Bus mastering is not
//! looked at: drivers of the time of 0.9.5 forget to enable it. Deliberately absent: 64-bit BARs, `queue_reset`, notification
//! data, shared memory, and port I/O for modern notifications.

mod legacy;
mod modern;

#[cfg(test)]
mod tests;

use super::queue::{NO_VECTOR, Queue, QueueState};
use super::{VirtioContext, VirtioDevice, feature, status};
use crate::pci::config::{BAR_TAG, BarMap, ConfigSpace, ConfigState, Identity, command, reg, status as pci_status};
use crate::pci::msix::{self, Msix, MsixState};
use crate::pci::option_rom::{Host, OptionRom};
use crate::pci::{ConfigWindow, PciFunction};
use crate::shared::Shared;
use emu_core::bus::Notifier;
use emu_core::clock::Instant;
use emu_core::device::{Access, Device, DeviceContext, ResetKind, Space};
use emu_core::irq::{IrqLine, MsiSink};
use emu_core::mem::GuestMemory;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const LEGACY_BAR: u32 = 0;
const MSIX_BAR: u32 = 1;
const MODERN_BAR: u32 = 4;
/// Bytes of the modern BAR, and of each of its parts.
const MODERN_SIZE: u32 = 0x4000;
const PART: u32 = 0x1000;
/// Bytes between the notification addresses of queues.
const NOTIFY_MULTIPLIER: u32 = 4;

/// The vendor-specific PCI capability and its types (4.1.4).
const VENDOR_SPECIFIC: u8 = 0x09;
const CAP_LEN: u8 = 16;
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;
const PCI_CFG: u8 = 5;

/// ISR bits (4.1.4.5).
mod isr {
    pub const QUEUE: u8 = 1;
    pub const CONFIG: u8 = 2;
}

/// Which interfaces a device has, and how it interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioOptions {
    /// No legacy interface.
    pub disable_legacy: bool,
    /// Nothing but the legacy interface.
    pub disable_modern: bool,
    /// MSI-X vectors; `None`: one for each queue and one for changes of the configuration. 0: INTx# only.
    pub vectors: Option<u16>,
    /// Offers event indices.
    pub event_idx: bool,
    /// Offers indirect descriptors.
    pub indirect_desc: bool,
}

impl Default for VirtioOptions {
    fn default() -> VirtioOptions {
        VirtioOptions {
            disable_legacy: false,
            disable_modern: false,
            vectors: None,
            event_idx: true,
            indirect_desc: true,
        }
    }
}

/// How a device's interrupts reach the processor.
pub struct Interrupts {
    /// INTA# of its slot.
    pub intx: IrqLine,
    /// Where messages go; `None`: the processor has no APIC, and the device no MSI-X.
    pub messages: Option<Arc<dyn MsiSink>>,
}

/// The registers of the transport, in both interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers {
    /// Which half of the device's features the driver reads.
    pub device_feature_select: u32,
    /// Which half of its own it writes.
    pub driver_feature_select: u32,
    /// What the driver has accepted.
    pub driver_features: u64,
    /// Device status.
    pub status: u8,
    /// The queue that registers show.
    pub queue_select: u16,
    /// The vector for changes of the configuration.
    pub config_vector: u16,
    /// ISR status.
    pub isr: u8,
    /// Counts changes of the configuration.
    pub generation: u8,
}

impl Default for Registers {
    fn default() -> Registers {
        Registers {
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            status: 0,
            queue_select: 0,
            config_vector: NO_VECTOR,
            isr: 0,
            generation: 0,
        }
    }
}

/// All guest-visible state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtioPciState<S> {
    /// Configuration space.
    pub config: ConfigState,
    /// MSI-X.
    pub msix: MsixState,
    /// Registers.
    pub registers: Registers,
    /// Queues.
    pub queues: Vec<QueueState>,
    /// The device behind it.
    pub device: S,
}

/// What the accesses of a function, and those through its configuration space, share.
struct Core<D> {
    device: D,
    registers: Registers,
    queues: Vec<Queue>,
    msix: Msix,
    /// INTA# as the guest's command register lets it be.
    intx: IrqLine,
    intx_disabled: bool,
    config: Shared<ConfigSpace>,
    /// What the device offers, `feature`'s included.
    offered: u64,
}

impl<D: VirtioDevice> Core<D> {
    /// Runs `f` on the device; then the driver sees what has come of it.
    fn run<R>(
        &mut self,
        now: Instant,
        memory: &Arc<GuestMemory>,
        f: impl FnOnce(&mut D, &mut VirtioContext) -> R,
    ) -> R {
        let mut cx = VirtioContext {
            now,
            memory,
            features: self.registers.driver_features,
            live: self.is_live(),
            queues: &mut self.queues,
            config_changed: false,
            error: None,
        };
        let result = f(&mut self.device, &mut cx);
        let VirtioContext { config_changed, error, .. } = cx;
        for index in 0..self.queues.len() {
            if self.queues[index].publish(memory) {
                let vector = self.queues[index].state.vector;
                self.interrupt(vector, isr::QUEUE);
            }
        }
        if let Some(error) = error {
            self.fail(error);
        }
        if config_changed {
            self.config_changed();
        }
        result
    }

    /// Whether chains may be taken. A legacy driver may use its queues before it says that it is ready.
    fn is_live(&self) -> bool {
        let Registers { status, driver_features, .. } = self.registers;
        let ready = driver_features & feature::VERSION_1 == 0 || status & status::DRIVER_OK != 0;
        ready && status & (status::DEVICE_NEEDS_RESET | status::FAILED) == 0 && status != 0
    }

    /// 2.1.2: the device gives up; a driver of version 1 is told.
    fn fail(&mut self, error: super::queue::QueueError) {
        tracing::warn!(target: "guest_errors", "{}: {error}; the device waits for a reset", D::ID);
        self.registers.status |= status::DEVICE_NEEDS_RESET;
        if self.registers.driver_features & feature::VERSION_1 != 0 {
            self.config_changed();
        }
    }

    fn config_changed(&mut self) {
        self.registers.generation = self.registers.generation.wrapping_add(1);
        if self.registers.status & status::DRIVER_OK != 0 {
            self.interrupt(self.registers.config_vector, isr::CONFIG);
        }
    }

    fn interrupt(&mut self, vector: u16, cause: u8) {
        if self.msix.is_enabled() {
            self.msix.notify(vector);
        } else {
            self.registers.isr |= cause;
            self.drive_intx();
        }
    }

    fn drive_intx(&mut self) {
        let asserted = self.registers.isr != 0 && !self.msix.is_enabled();
        let high = asserted && !self.intx_disabled;
        let mut config = self.config.lock();
        let status = config.byte(reg::STATUS);
        let interrupt = pci_status::INTERRUPT as u8;
        config.set(reg::STATUS, if asserted { status | interrupt } else { status & !interrupt });
        drop(config);
        self.intx.set(high);
    }

    /// Looks at the configuration space anew.
    fn follow_config(&mut self) {
        {
            let config = self.config.lock();
            self.intx_disabled = config.word(reg::COMMAND) & command::INTX_DISABLE != 0;
            self.msix.follow(&config);
        }
        self.drive_intx();
    }

    /// Reading the ISR clears it, and INTA# falls.
    fn read_isr(&mut self) -> u8 {
        let value = std::mem::take(&mut self.registers.isr);
        if value != 0 {
            self.drive_intx();
        }
        value
    }

    fn notified(&mut self, now: Instant, memory: &Arc<GuestMemory>, queue: usize) {
        if queue < self.queues.len() && self.is_live() {
            self.run(now, memory, |device, cx| device.notified(cx, queue));
        }
    }

    fn selected(&mut self) -> Option<&mut Queue> {
        self.queues.get_mut(usize::from(self.registers.queue_select))
    }

    /// A vector as a register keeps it: [`NO_VECTOR`] for those that do not exist (4.1.5.1.2).
    fn vector(&self, vector: u16) -> u16 {
        if self.msix.has(vector) { vector } else { NO_VECTOR }
    }

    fn agree(&mut self) {
        let features = self.registers.driver_features;
        let has = |feature: u64| features & feature != 0;
        for queue in &mut self.queues {
            queue.set_features(has(feature::RING_INDIRECT_DESC), has(feature::RING_EVENT_IDX));
        }
    }

    /// The driver writes the device status; 0 is a reset (2.4).
    fn write_status(&mut self, now: Instant, memory: &Arc<GuestMemory>, value: u8, legacy: bool) {
        if value == 0 {
            return self.reset_device();
        }
        let mut new = value | self.registers.status & status::DEVICE_NEEDS_RESET;
        let started = new & !self.registers.status & status::DRIVER_OK != 0;
        if new & !self.registers.status & status::FEATURES_OK != 0 {
            // 2.2.2: features that were not offered, and a modern driver without VERSION_1, are refused.
            let modern = legacy || self.registers.driver_features & feature::VERSION_1 != 0;
            if self.registers.driver_features & !self.offered != 0 || !modern {
                new &= !status::FEATURES_OK;
            }
        }
        self.registers.status = new;
        self.agree();
        if started && self.is_live() {
            self.run(now, memory, |device, cx| device.poll(cx));
        }
    }

    fn reset_device(&mut self) {
        self.registers = Registers::default();
        self.queues.iter_mut().for_each(Queue::reset);
        self.agree();
        self.device.reset();
        self.drive_intx();
    }

    fn read_config(&self, offset: u64, size: u8) -> u64 {
        let config = self.device.config(self.registers.driver_features);
        let byte = |i: u64| config.get((offset + i) as usize).copied().unwrap_or(0);
        (0..u64::from(size)).rev().fold(0, |value, i| value << 8 | u64::from(byte(i)))
    }

    fn write_config(&mut self, now: Instant, memory: &Arc<GuestMemory>, offset: u64, size: u8, value: u64) {
        let len = self.device.config(self.registers.driver_features).len() as u64;
        if offset + u64::from(size) <= len {
            let bytes = &value.to_le_bytes()[..usize::from(size.min(8))];
            self.run(now, memory, |device, cx| device.write_config(cx, offset as usize, bytes));
        }
    }

    fn read(&mut self, bar: u32, offset: u64, size: u8) -> u64 {
        match bar {
            LEGACY_BAR => self.legacy_read(offset, size),
            MSIX_BAR => self.msix.read(offset, size),
            _ => self.modern_read(offset, size),
        }
    }

    fn write(&mut self, now: Instant, memory: &Arc<GuestMemory>, bar: u32, offset: u64, size: u8, value: u64) {
        match bar {
            LEGACY_BAR => self.legacy_write(now, memory, offset, size, value),
            MSIX_BAR => self.msix.write(offset, size, value),
            _ => self.modern_write(now, memory, offset, size, value),
        }
    }
}

/// `VIRTIO_PCI_CAP_PCI_CFG` (4.1.4.9): the BARs through the configuration space, for firmware that cannot reach them.
struct Window<D> {
    core: Shared<Core<D>>,
    capability: u8,
}

impl<D: VirtioDevice> Window<D> {
    /// What an access to the data register is an access to: BAR, offset and size.
    fn target(&self, core: &Core<D>, offset: u8) -> Option<(u32, u64, u8)> {
        if offset != self.capability + CAP_LEN {
            return None;
        }
        let config = core.config.lock();
        let bar = u32::from(config.byte(self.capability + 4));
        let at = u64::from(config.read(self.capability + 8, 4));
        let len = config.read(self.capability + 12, 4);
        let size = config.bar_kind(bar as usize)?.1;
        // The driver may use 1, 2 and 4 only, at a multiple of it.
        let fits = matches!(len, 1 | 2 | 4) && at.is_multiple_of(len.into()) && at + u64::from(len) <= size.into();
        fits.then_some((bar, at, len as u8))
    }
}

impl<D: VirtioDevice> ConfigWindow for Window<D> {
    fn read(&self, _cx: &mut DeviceContext, offset: u8, _size: u8) -> Option<u32> {
        let mut core = self.core.lock();
        let (bar, at, len) = self.target(&core, offset)?;
        Some(core.read(bar, at, len) as u32)
    }

    fn write(&self, cx: &mut DeviceContext, offset: u8, _size: u8, value: u32) {
        let mut core = self.core.lock();
        if let Some((bar, at, len)) = self.target(&core, offset) {
            core.write(cx.now, cx.memory, bar, at, len, value.into());
        }
    }
}

/// A virtio device as a PCI function.
pub struct VirtioPci<D> {
    core: Shared<Core<D>>,
    config: Shared<ConfigSpace>,
    bars: BarMap,
    window: Option<u8>,
    rom: Option<OptionRom>,
}

impl<D: VirtioDevice> VirtioPci<D> {
    /// `device` in a slot with `interrupts`. Without either interface, it has the modern one.
    pub fn new(device: D, options: VirtioOptions, interrupts: Interrupts) -> VirtioPci<D> {
        let (legacy, modern) = (!options.disable_legacy, !options.disable_modern || options.disable_legacy);
        let kind = D::KIND;
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x1af4,
            device: if legacy { kind.transitional } else { 0x1040 + kind.device },
            revision: u8::from(!legacy),
            class: kind.class,
            interrupt_pin: 1,
            multifunction: false,
        });
        let subsystem = if legacy { kind.device } else { 0x1100 };
        config.preset(reg::SUBSYSTEM, &subsystem.to_le_bytes());
        config.store(reg::COMMAND, &(command::INTX_DISABLE | command::MASTER | command::SERR).to_le_bytes());
        let queues: Vec<Queue> = device.queue_sizes().into_iter().map(Queue::new).collect();
        let structure = device.config(0).len() as u32;
        if legacy {
            config.add_bar(LEGACY_BAR as usize, Space::Port, legacy::CONFIG_WITH_MSIX as u32 + structure);
        }
        let vectors = options.vectors.unwrap_or(queues.len() as u16 + 1);
        let msix = Msix::new(&mut config, MSIX_BAR as u8, vectors, interrupts.messages);
        if msix.exists() {
            config.add_bar(MSIX_BAR as usize, Space::Memory, msix::BAR_SIZE);
        }
        let mut window = None;
        if modern {
            config.add_bar(MODERN_BAR as usize, Space::Memory, MODERN_SIZE);
            window = Some(add_capabilities(&mut config, structure, queues.len() as u32));
        }
        let mut offered = device.features() | feature::ANY_LAYOUT;
        for (on, bit) in [
            (options.indirect_desc, feature::RING_INDIRECT_DESC),
            (options.event_idx, feature::RING_EVENT_IDX),
            (modern, feature::VERSION_1),
        ] {
            offered |= if on { bit } else { 0 };
        }
        let config = Shared::new(config);
        let core = Core {
            device,
            registers: Registers::default(),
            queues,
            msix,
            intx: interrupts.intx,
            intx_disabled: false,
            config: config.clone(),
            offered,
        };
        VirtioPci { core: Shared::new(core), config, bars: BarMap::default(), window, rom: None }
    }
}

impl<D> VirtioPci<D> {
    /// The same with an option ROM that holds `image`; without one if that is empty.
    pub fn with_rom(mut self, image: &[u8], host: Host) -> VirtioPci<D> {
        self.rom = Some(OptionRom::new(image, &mut self.config.lock(), host));
        self
    }

    /// Decodes BARs and ROM where the configuration space says.
    fn follow(&mut self, cx: &mut DeviceContext) {
        self.bars.update(cx, &self.config);
        if let Some(rom) = &mut self.rom {
            rom.follow(&self.config.lock());
        }
    }
}

/// Adds the capabilities of the modern interface (4.1.4), whose device structure has `structure` bytes; where that for access through
/// the configuration space is.
fn add_capabilities(config: &mut ConfigSpace, structure: u32, queues: u32) -> u8 {
    let body = |extra: u8, kind: u8, bar: u32, offset: u32, len: u32| {
        let mut body = vec![CAP_LEN + extra, kind, bar as u8, 0, 0, 0];
        body.extend(offset.to_le_bytes());
        body.extend(len.to_le_bytes());
        body
    };
    config.add_capability(VENDOR_SPECIFIC, &body(0, COMMON_CFG, MODERN_BAR, 0, PART));
    config.add_capability(VENDOR_SPECIFIC, &body(0, ISR_CFG, MODERN_BAR, PART, PART));
    if structure > 0 {
        config.add_capability(VENDOR_SPECIFIC, &body(0, DEVICE_CFG, MODERN_BAR, 2 * PART, PART));
    }
    let mut notify = body(4, NOTIFY_CFG, MODERN_BAR, 3 * PART, (NOTIFY_MULTIPLIER * queues).clamp(4, PART));
    notify.extend(NOTIFY_MULTIPLIER.to_le_bytes());
    config.add_capability(VENDOR_SPECIFIC, &notify);
    let mut access = body(4, PCI_CFG, 0, 0, 0);
    access.extend([0; 4]);
    let at = config.add_capability(VENDOR_SPECIFIC, &access);
    config.store(at + 4, &[0xff]);
    config.store(at + 8, &[0xff; 12]);
    at
}

impl<D: VirtioDevice> PciFunction for VirtioPci<D> {
    fn config(&self) -> Shared<ConfigSpace> {
        self.config.clone()
    }

    fn window(&self) -> Option<Arc<dyn ConfigWindow>> {
        let capability = self.window?;
        Some(Arc::new(Window { core: self.core.clone(), capability }))
    }
}

impl<D: VirtioDevice> Device for VirtioPci<D> {
    const ID: &'static str = D::ID;
    type State = VirtioPciState<D::State>;

    fn read(&mut self, _cx: &mut DeviceContext, access: Access) -> u64 {
        self.core.lock().read(access.region.wrapping_sub(BAR_TAG), access.offset, access.size)
    }

    fn write(&mut self, cx: &mut DeviceContext, access: Access, value: u64) {
        let bar = access.region.wrapping_sub(BAR_TAG);
        self.core.lock().write(cx.now, cx.memory, bar, access.offset, access.size, value);
    }

    fn poll_at(&self) -> Option<Instant> {
        self.core.lock().device.poll_at()
    }

    fn poll(&mut self, cx: &mut DeviceContext) {
        self.follow(cx);
        let mut core = self.core.lock();
        core.follow_config();
        core.run(cx.now, cx.memory, |device, cx| device.poll(cx));
    }

    fn reset(&mut self, cx: &mut DeviceContext, _kind: ResetKind) {
        self.config.lock().reset();
        self.follow(cx);
        let mut core = self.core.lock();
        core.msix.reset();
        core.reset_device();
        core.follow_config();
    }

    fn attached(&mut self, notifier: Notifier) {
        self.core.lock().device.attached(notifier);
    }

    fn state(&self) -> Self::State {
        let core = self.core.lock();
        VirtioPciState {
            config: self.config.lock().state(),
            msix: core.msix.state(),
            registers: core.registers.clone(),
            queues: core.queues.iter().map(|queue| queue.state.clone()).collect(),
            device: core.device.state(),
        }
    }

    fn set_state(&mut self, state: Self::State) {
        self.config.lock().set_state(&state.config);
        let mut core = self.core.lock();
        core.msix.set_state(&state.msix);
        core.registers = state.registers;
        core.registers.driver_features &= core.offered;
        core.queues.iter_mut().for_each(Queue::reset);
        core.queues.iter_mut().zip(state.queues).for_each(|(queue, saved)| queue.set_state(saved));
        core.agree();
        core.device.set_state(state.device);
    }

    fn restored(&mut self, cx: &mut DeviceContext) {
        self.follow(cx);
        self.core.lock().follow_config();
    }
}
