//! The expansion slots: which cards are plugged in, and where.
//!
//! PCI cards take device numbers in the order in which they are given, from 3 on, as on QEMU's `pc`; or the one that they ask for. INTA# of
//! device *n* arrives at PIRQ (*n* - 1) modulo 4, see [`crate::pci::piix3`]. For kernels that are booted without firmware, [`assign`] does what
//! firmware does for cards: it places base address registers and tells the interrupt.

use super::post::{PIRQ_IRQS, VGA, config_write};
use crate::net::NicConfig;
use crate::net::dp8390;
use crate::net::e1000::E1000;
use crate::net::ne2k_isa::Ne2kIsa;
use crate::net::ne2k_pci::Ne2kPci;
use crate::pci::config::{command, reg};
use crate::pci::option_rom::{self, Host};
use crate::pci::piix3::Piix3Core;
use crate::pci::{DevFn, PciBus};
use crate::storage::block::Media;
use crate::virtio::VirtioCard;
use crate::virtio::balloon::BalloonControl;
use crate::virtio::pci::Interrupts;
use emu_core::bus::Bus;
use emu_core::device::{Space, ports};
use emu_core::irq::{IrqLine, MsiSink};
use std::sync::Arc;
use thiserror::Error;

/// The first device number that cards take by themselves: behind the graphics card's.
const FIRST: u8 = VGA.device() + 1;
/// Device numbers of bus 0.
const DEVICES: u8 = 32;
/// The ports and memory that [`assign`] gives to cards: beside those of the chip set and the graphics card.
const PORTS: std::ops::Range<u32> = 0xc100..0x1_0000;
const MEMORY: std::ops::Range<u32> = 0xfe00_0000..0xfebf_0000;

/// A card and where it is to be.
pub struct Expansion {
    /// What it is.
    pub card: Card,
    /// The device number that it asks for; only PCI cards can.
    pub device: Option<u8>,
}

/// What can be plugged in.
pub enum Card {
    /// NE2000 for ISA.
    Ne2kIsa {
        /// Its first port.
        base: u16,
        /// Its IRQ, 2 to 15.
        irq: u8,
        /// Address and cable.
        nic: NicConfig,
    },
    /// NE2000 for PCI: RTL8029.
    Ne2kPci(NicConfig),
    /// Gigabit Ethernet controller: 82540EM.
    E1000(NicConfig),
    /// A virtio device.
    Virtio(Box<VirtioCard>),
}

/// What a card is plugged into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// An ISA slot, where it takes no device number.
    Isa,
    /// A PCI slot, perhaps one with a certain device number.
    Pci(Option<u8>),
}

impl Expansion {
    /// What it is to be plugged into.
    pub fn slot(&self) -> Slot {
        match self.card {
            Card::Ne2kIsa { .. } => Slot::Isa,
            Card::Ne2kPci(_) | Card::E1000(_) | Card::Virtio(_) => Slot::Pci(self.device),
        }
    }
}

impl Card {
    /// The user's handle on its medium, if it has one.
    pub fn media(&self) -> Option<Media> {
        match self {
            Card::Virtio(card) => card.media(),
            Card::Ne2kIsa { .. } | Card::Ne2kPci(_) | Card::E1000(_) => None,
        }
    }

    /// The host's side of it, if it is a memory balloon.
    pub fn balloon(&self) -> Option<BalloonControl> {
        match self {
            Card::Virtio(card) => card.balloon(),
            Card::Ne2kIsa { .. } | Card::Ne2kPci(_) | Card::E1000(_) => None,
        }
    }

    /// Bytes of guest memory that it takes beside RAM.
    pub fn extra_memory(&self) -> u64 {
        match self {
            Card::Ne2kIsa { .. } => 0,
            Card::Ne2kPci(nic) | Card::E1000(nic) => option_rom::room(&nic.rom),
            Card::Virtio(card) => card.extra_memory(),
        }
    }
}

/// Why cards do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SlotError {
    /// The device number is not one, or taken.
    #[error("there is no free PCI slot {device:#x}")]
    Taken {
        /// Which card, in order.
        card: usize,
        /// The number.
        device: u8,
    },
    /// There are more cards than device numbers.
    #[error("all PCI slots are taken")]
    Full {
        /// Which card, in order.
        card: usize,
    },
}

impl SlotError {
    /// Which card it is that does not fit, in order.
    pub fn card(self) -> usize {
        match self {
            SlotError::Taken { card, .. } | SlotError::Full { card } => card,
        }
    }
}

/// The device numbers of cards that are to be plugged into `slots`, in this order: `None` for those that take none.
///
/// # Errors
/// They do not fit.
pub fn allocate(slots: impl IntoIterator<Item = Slot>) -> Result<Vec<Option<u8>>, SlotError> {
    let mut taken: u32 = (1 << FIRST) - 1;
    let place = |(card, slot): (usize, Slot)| {
        let Slot::Pci(wanted) = slot else { return Ok(None) };
        let free = |device: &u8| *device < DEVICES && taken >> device & 1 == 0;
        let device = match wanted {
            Some(device) if free(&device) => device,
            Some(device) => return Err(SlotError::Taken { card, device }),
            None => (FIRST..DEVICES).find(free).ok_or(SlotError::Full { card })?,
        };
        taken |= 1 << device;
        Ok(Some(device))
    };
    slots.into_iter().enumerate().map(place).collect()
}

/// Plugs `cards` in. `isa` makes a source of an ISA interrupt line; `messages` takes those of MSI-X.
///
/// # Errors
/// They do not fit.
pub fn plug(
    cards: Vec<Expansion>,
    bus: &Bus,
    pci: &PciBus,
    intx: &Arc<Piix3Core>,
    isa: impl Fn(usize) -> IrqLine,
    messages: Option<&Arc<dyn MsiSink>>,
) -> Result<(), SlotError> {
    let places = allocate(cards.iter().map(Expansion::slot))?;
    let host = Host { memory: bus.memory().clone(), pins: bus.pins().clone() };
    for (Expansion { card, .. }, device) in cards.into_iter().zip(places) {
        let device = device.unwrap_or_default();
        let (place, inta) = (DevFn::new(device, 0), intx.intx(device, 0));
        match card {
            Card::Ne2kIsa { base, irq, nic } => {
                // IRQ 2 of an ISA slot arrives at IRQ 9.
                let line = isa(if irq == 2 { 9 } else { usize::from(irq & 15) });
                let id = bus.attach(Box::new(Ne2kIsa::new(nic, line)));
                bus.map(id, Space::Port, ports(base, dp8390::PORTS), 0);
            }
            Card::Ne2kPci(nic) => {
                pci.plug(bus, place, Ne2kPci::new(nic, inta, host.clone()));
            }
            Card::E1000(nic) => {
                pci.plug(bus, place, E1000::new(nic, inta, host.clone()));
            }
            Card::Virtio(card) => {
                let interrupts = Interrupts { intx: inta, messages: messages.cloned() };
                card.plug(bus, pci, place, interrupts, host.clone());
            }
        }
    }
    Ok(())
}

/// Gives every card on `pci` ports and memory as far as they go, enables it, and notes its interrupt.
pub fn assign(bus: &Bus, pci: &PciBus) {
    let (mut next_port, mut next_address) = (PORTS.start, MEMORY.start);
    for (place, config) in pci.functions().into_iter().filter(|(place, _)| place.device() >= FIRST) {
        let (bars, pin) = {
            let config = config.lock();
            ((0..6).map(|index| config.bar_kind(index)).collect::<Vec<_>>(), config.byte(reg::INTERRUPT_PIN))
        };
        let mut enable = 0;
        for (index, (space, size)) in bars.into_iter().enumerate().filter_map(|(i, bar)| Some((i, bar?))) {
            let (next, end, bit) = match space {
                Space::Port => (&mut next_port, PORTS.end, command::IO),
                Space::Memory => (&mut next_address, MEMORY.end, command::MEMORY),
            };
            let base = next.next_multiple_of(size);
            if base.checked_add(size).is_none_or(|after| after > end) {
                continue;
            }
            *next = base + size;
            config_write(bus, place, reg::BAR0 + 4 * index as u8, 4, base);
            enable |= bit;
        }
        config_write(bus, place, reg::COMMAND, 2, enable.into());
        if pin != 0 {
            let route = usize::from(pin - 1 + place.device() + 3) & 3;
            config_write(bus, place, reg::INTERRUPT_LINE, 1, PIRQ_IRQS[route].into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{MacAddress, Unconnected};

    fn nic() -> NicConfig {
        NicConfig { mac: MacAddress::numbered(0), backend: Box::new(Unconnected), rom: Arc::new([]) }
    }

    fn pci(device: Option<u8>) -> Expansion {
        Expansion { card: Card::Ne2kPci(nic()), device }
    }

    #[test]
    fn cards_take_device_numbers_from_3_on_around_those_that_were_asked_for() {
        let isa = Expansion { card: Card::Ne2kIsa { base: 0x300, irq: 9, nic: nic() }, device: None };
        let cards = [pci(None), isa, pci(Some(4)), pci(None), pci(Some(31))];
        let places = allocate(cards.iter().map(Expansion::slot));
        assert_eq!(places.unwrap(), [Some(3), None, Some(4), Some(5), Some(31)]);
    }

    #[test]
    fn device_numbers_that_are_taken_or_none_are_refused() {
        for device in [0, 1, 2, 3, 32, 255] {
            let error = allocate([Slot::Pci(None), Slot::Pci(Some(device))]).unwrap_err();
            assert_eq!((error, error.card()), (SlotError::Taken { card: 1, device }, 1));
        }
        assert_eq!(allocate([Slot::Pci(None); 30]), Err(SlotError::Full { card: 29 }));
    }
}
