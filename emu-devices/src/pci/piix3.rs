//! The PIIX3 PCI-to-ISA bridge: Intel 82371SB data sheet (290550-002), function 0: interrupt steering and reset control.
//!
//! ```text
//!  slot's INTA#..INTD# --(pin + slot - 1) & 3--> PIRQA#..PIRQD# --PIRQRC[A:D]--> IRQ3..7, 9..12, 14, 15
//! ```
//! The swizzle is the wiring of QEMU's `pc` board. A soft reset through RCR is an INIT of the processor. Deliberately
//! absent: ISA timing, system management, MBIRQ, and the chip-select registers, which read back what is written.

use super::PciFunction;
use super::config::{ConfigSpace, ConfigState, Identity, command, reg};
use crate::shared::Shared;
use emu_core::device::{Access, Device, DeviceContext, Region, Request, ResetKind, ports};
use emu_core::irq::{IrqInput, IrqLine};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Offset of PIRQRCA#; B to D follow.
pub const PIRQRC: u8 = 0x60;
const PIRQ_DISABLED: u8 = 0x80;
/// IRQs that a PIRQ can be steered to: not 0, 1, 2, 8 and 13.
const STEERABLE: u16 = 0xdef8;
const RCR_HARD: u8 = 1 << 1;
const RCR_RESET_CPU: u8 = 1 << 2;

/// All guest-visible state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piix3State {
    /// Configuration space.
    pub config: ConfigState,
    /// Reset control register.
    pub rcr: u8,
    /// INTx# inputs that are asserted: bit `4 * slot + pin`.
    pub asserted: u128,
}

struct Steering {
    /// INTx# inputs that are asserted: bit `4 * slot + pin`.
    asserted: u128,
    /// PIRQRC registers as last seen.
    routes: [u8; 4],
    irqs: [IrqLine; 16],
}

impl Steering {
    fn drive(&self) {
        let mut high = 0u16;
        for slot in 0..32u32 {
            for pin in 0..4 {
                let route = self.routes[((pin + slot + 3) & 3) as usize];
                if self.asserted >> (4 * slot + pin) & 1 != 0 && route & PIRQ_DISABLED == 0 {
                    high |= 1 << (route & 15);
                }
            }
        }
        for (irq, line) in self.irqs.iter().enumerate() {
            if STEERABLE >> irq & 1 != 0 {
                line.set(high >> irq & 1 != 0);
            }
        }
    }
}

/// The interrupt inputs of the bridge: pin `4 * slot + n`, n from 0 for INTA#.
pub struct Piix3Core(Shared<Steering>);

impl Piix3Core {
    /// The wire for INTA# (0) to INTD# (3) of the device in `slot`.
    pub fn intx(self: &Arc<Self>, slot: u8, pin: u8) -> IrqLine {
        IrqLine::new(vec![(self.clone(), 4 * u32::from(slot & 31) + u32::from(pin & 3))])
    }
}

impl IrqInput for Piix3Core {
    fn set_level(&self, pin: u32, high: bool) {
        let mut steering = self.0.lock();
        let bit = 1u128 << (pin & 127);
        steering.asserted = if high { steering.asserted | bit } else { steering.asserted & !bit };
        steering.drive();
    }
}

/// Function 0 of the bridge.
pub struct Piix3 {
    core: Arc<Piix3Core>,
    config: Shared<ConfigSpace>,
    rcr: u8,
}

impl Piix3 {
    /// A bridge that drives `irqs`, of which it leaves 0, 1, 2, 8 and 13 alone.
    pub fn new(irqs: [IrqLine; 16]) -> Piix3 {
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x8086,
            device: 0x7000,
            class: 0x06_0100,
            multifunction: true,
            ..Identity::default()
        });
        config.preset(reg::COMMAND, &(command::IO | command::MEMORY | command::MASTER).to_le_bytes());
        config.store(reg::COMMAND, &[0, (command::SERR >> 8) as u8]);
        config.preset(reg::STATUS, &0x0200u16.to_le_bytes());
        config.clear_on_one(reg::STATUS, &[0, 0x79]);
        // IORT; XBCS; PIRQRC; TOM; MSTAT; MBIRQ0; MBDMA; PCSC; APICBASE; DLC.
        for (offset, value) in [
            (0x4c, &[0x4d][..]),
            (0x4e, &[0x03, 0x00]),
            (PIRQRC, &[PIRQ_DISABLED; 4]),
            (0x69, &[0x02]),
            (0x6a, &[0x00, 0x00]),
            (0x70, &[0x80]),
            (0x76, &[0x0c, 0x0c]),
            (0x78, &[0x02, 0x00]),
            (0x80, &[0x00]),
            (0x82, &[0x00]),
        ] {
            config.preset(offset, value);
            config.store(offset, &vec![0xff; value.len()]);
        }
        config.store(PIRQRC, &[0x8f; 4]);
        let steering = Steering { asserted: 0, routes: [PIRQ_DISABLED; 4], irqs };
        Piix3 { core: Arc::new(Piix3Core(Shared::new(steering))), config: Shared::new(config), rcr: 0 }
    }

    /// Its interrupt inputs.
    pub fn core(&self) -> Arc<Piix3Core> {
        self.core.clone()
    }

    fn follow_config(&self) {
        let config = self.config.lock();
        let mut steering = self.core.0.lock();
        steering.routes = std::array::from_fn(|i| config.byte(PIRQRC + i as u8));
        steering.drive();
    }
}

impl PciFunction for Piix3 {
    fn config(&self) -> Shared<ConfigSpace> {
        self.config.clone()
    }
}

impl Device for Piix3 {
    const ID: &'static str = "piix3";
    type State = Piix3State;
    const PORTS: &'static [Region] = &[ports(0xcf9, 1)];

    fn read(&mut self, _cx: &mut DeviceContext, _access: Access) -> u64 {
        self.rcr.into()
    }

    fn write(&mut self, cx: &mut DeviceContext, _access: Access, value: u64) {
        let value = value as u8;
        // Data sheet 2.5.4.2: the reset happens when bit 2 goes from 0 to 1.
        if value & RCR_RESET_CPU != 0 && self.rcr & RCR_RESET_CPU == 0 {
            cx.request(if value & RCR_HARD != 0 { Request::Reset } else { Request::Init });
        }
        // Bit 2 is stored but reads as 0 in an instant, when the reset it asked for is over.
        self.rcr = value & RCR_HARD;
    }

    fn poll(&mut self, _cx: &mut DeviceContext) {
        self.follow_config();
    }

    /// Both kinds are PCIRST#; the inputs keep the levels that functions drive.
    fn reset(&mut self, _cx: &mut DeviceContext, _kind: ResetKind) {
        self.config.lock().reset();
        self.rcr = 0;
        self.follow_config();
    }

    fn state(&self) -> Piix3State {
        let asserted = self.core.0.lock().asserted;
        Piix3State { config: self.config.lock().state(), rcr: self.rcr, asserted }
    }

    fn set_state(&mut self, state: Piix3State) {
        self.config.lock().set_state(&state.config);
        self.rcr = state.rcr;
        self.core.0.lock().asserted = state.asserted;
    }

    fn restored(&mut self, _cx: &mut DeviceContext) {
        self.follow_config();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbench::{Bench, World};

    #[test]
    fn pirqs_are_swizzled_steered_and_shared() {
        let world = World::new(1 << 20);
        let recorder = world.irq_recorder();
        let piix3 = Piix3::new(std::array::from_fn(|irq| recorder.line(irq as u32)));
        let (core, config) = (piix3.core(), piix3.config());
        let mut bench = Bench::in_world(piix3, &world);
        let (a, b) = (core.intx(3, 0), core.intx(7, 0));
        a.set(true);
        assert!(recorder.take().is_empty(), "not routed");
        // Slot 3 INTA# and slot 7 INTA# are both PIRQC#.
        config.lock().write(PIRQRC + 2, 1, 11);
        bench.poll();
        b.set(true);
        a.set(false);
        assert_eq!(recorder.take_rises(11), 1);
        config.lock().write(PIRQRC + 2, 1, 10);
        bench.poll();
        let changes: Vec<_> = recorder.take().iter().map(|c| (c.pin, c.high)).collect();
        assert_eq!(changes, [(10, true), (11, false)]);
        b.set(false);
        assert_eq!(recorder.take().len(), 1);
    }

    #[test]
    fn reset_control_register_resets_on_the_rise_of_bit_2() {
        let mut bench = Bench::new(Piix3::new(std::array::from_fn(|_| IrqLine::unconnected())));
        bench.out8(0xcf9, 0x02);
        assert_eq!((bench.take_requests(), bench.in8(0xcf9)), (vec![], 0x02));
        bench.out8(0xcf9, 0x06);
        assert_eq!(bench.take_requests(), [Request::Reset]);
        bench.out8(0xcf9, 0x04);
        assert_eq!(bench.take_requests(), [Request::Init]);
    }
}
