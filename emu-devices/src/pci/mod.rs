//! PCI: configuration space, and the functions of the i440FX chip set.
//!
//! A function is a [`Device`] of the system bus with a configuration space that the host bridge reaches too. When the
//! bridge writes to it, it has the function polled before the next guest instruction, and the function follows: it moves
//! its BARs ([`config::BarMap`]) and whatever else its registers govern. Interrupts: [`piix3::Piix3Core::intx`].

pub mod config;
pub mod host_i440fx;
pub mod msix;
pub mod option_rom;
pub mod piix3;
pub mod piix4;

use crate::shared::Shared;
use config::ConfigSpace;
use emu_core::bus::{Bus, DeviceId};
use emu_core::device::{Device, DeviceContext};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A function's place on bus 0: device in bits 7 to 3, function in bits 2 to 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevFn(pub u8);

impl DevFn {
    /// Device 0 to 31, function 0 to 7.
    pub const fn new(device: u8, function: u8) -> DevFn {
        DevFn((device & 31) << 3 | function & 7)
    }

    /// Device number.
    pub const fn device(self) -> u8 {
        self.0 >> 3
    }

    /// Function number.
    pub const fn function(self) -> u8 {
        self.0 & 7
    }
}

/// A device that is a PCI function.
pub trait PciFunction: Device {
    /// Its configuration space. Every call returns the same one.
    fn config(&self) -> Shared<ConfigSpace>;

    /// What lies behind registers of the configuration space that are more than bytes, if there are any.
    fn window(&self) -> Option<Arc<dyn ConfigWindow>> {
        None
    }
}

/// Registers of a configuration space through which the function itself is reached. No request to the machine may come of it.
pub trait ConfigWindow: Send + Sync {
    /// A read; `None` if the register is a byte like any other.
    fn read(&self, cx: &mut DeviceContext, offset: u8, size: u8) -> Option<u32>;
    /// A write, which the configuration space has stored already. The function is polled afterwards.
    fn write(&self, cx: &mut DeviceContext, offset: u8, size: u8, value: u32);
}

struct Slot {
    config: Shared<ConfigSpace>,
    window: Option<Arc<dyn ConfigWindow>>,
    /// Whom to poll after a write; `None` for the host bridge itself.
    device: Option<DeviceId>,
}

/// PCI bus 0: which function is where. Clones are the same bus.
#[derive(Clone, Default)]
pub struct PciBus(Shared<BTreeMap<DevFn, Slot>>);

impl PciBus {
    /// A bus without functions, behind no bridge yet.
    pub fn new() -> PciBus {
        PciBus::default()
    }

    /// Plugs `function` into the system bus, and into this bus at `place`.
    pub fn plug(&self, bus: &Bus, place: DevFn, function: impl PciFunction + 'static) -> DeviceId {
        let (config, window) = (function.config(), function.window());
        let device = bus.attach(Box::new(function));
        self.0.lock().insert(place, Slot { config, window, device: Some(device) });
        device
    }

    /// Plugs the host bridge in, at `place`.
    pub fn plug_bridge(&self, bus: &Bus, place: DevFn, bridge: impl PciFunction + 'static) -> DeviceId {
        self.insert_bridge(place, bridge.config());
        bus.attach(Box::new(bridge))
    }

    /// The functions in the order of their places, for monitors.
    pub fn functions(&self) -> Vec<(DevFn, Shared<ConfigSpace>)> {
        self.0.lock().iter().map(|(place, slot)| (*place, slot.config.clone())).collect()
    }

    fn insert_bridge(&self, place: DevFn, config: Shared<ConfigSpace>) {
        self.0.lock().insert(place, Slot { config, window: None, device: None });
    }

    /// A configuration read; all ones where there is no function.
    fn read(&self, cx: &mut DeviceContext, place: DevFn, offset: u8, size: u8) -> u32 {
        let slots = self.0.lock();
        let Some(slot) = slots.get(&place) else { return u32::MAX };
        let beyond = slot.window.as_ref().and_then(|window| window.read(cx, offset, size));
        beyond.unwrap_or_else(|| slot.config.lock().read(offset, size))
    }

    /// A configuration write; the device to poll.
    fn write(&self, cx: &mut DeviceContext, place: DevFn, offset: u8, size: u8, value: u32) -> Option<DeviceId> {
        let slots = self.0.lock();
        let slot = slots.get(&place)?;
        slot.config.lock().write(offset, size, value);
        if let Some(window) = &slot.window {
            window.write(cx, offset, size, value);
        }
        slot.device
    }
}
