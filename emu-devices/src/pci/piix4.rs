//! Function 3 of the PIIX4, power management: Intel 82371AB data sheet (290562-001) chapter 7, and the APM ports.
//!
//! QEMU's `pc` combines a PIIX3 with this function; so does this board. A write of F1h or F0h to APMC (B2h) turns ACPI
//! mode on or off, as firmware's SMI handler would. Deliberately absent: device monitors, and SMI. The SMBus controller is decoded
//! while SMBHSTCFG enables it, whatever the command register says, as QEMU has it.

use super::PciFunction;
use super::config::{ConfigSpace, ConfigState, Identity, command, reg};
use crate::shared::Shared;
use crate::smbus::{self, SmbusHost};
use crate::timer::acpi_pm::{self, AcpiPm};
use emu_core::clock::Instant;
use emu_core::device::{Access, Device, DeviceContext, Region, Request, ResetKind, Space, ports};
use emu_core::irq::IrqLine;
use serde::{Deserialize, Serialize};

/// Power management base address register.
pub const PMBA: u8 = 0x40;
/// PMREGMISC: bit 0 enables the block at PMBA.
pub const PMREGMISC: u8 = 0x80;
/// SMBus base address register.
pub const SMBBA: u8 = 0x90;
/// SMBHSTCFG. Bit 0 enables the controller at SMBBA; bits 1 to 3 choose its interrupt.
pub const SMBHSTCFG: u8 = 0xd2;
/// What SMBHSTCFG is for a controller that uses IRQ 9.
pub const SMBUS_ON_IRQ9: u8 = 0x09;
/// SMBSLVC, SMBSHDW1 and SMBSHDW2 follow; SMBREV after them is 0.
const SMBSLVC: u8 = 0xd3;
/// DEVACTB: device activity B. Bit 25: a write to APMC causes an SMI.
const DEVACTB: u8 = 0x58;
/// The port of SMI_CMD.
pub const APMC: u16 = 0xb2;
/// What turns ACPI mode on at [`APMC`].
pub const ACPI_ENABLE: u8 = 0xf1;
/// What turns it off.
pub const ACPI_DISABLE: u8 = 0xf0;

const APM_REGION: u32 = 0;
const PM_TAG: u32 = 0x20;
/// The tag of the SMBus controller's ports.
pub const SMBUS_TAG: u32 = 0x21;

/// All guest-visible state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piix4PmState {
    /// Configuration space.
    pub config: ConfigState,
    /// The block at PMBA.
    pub pm: AcpiPm,
    /// APMC and APMS.
    pub apm: [u8; 2],
    /// The SMBus controller and what is on its bus.
    pub smbus: SmbusHost,
}

/// The front panel: what the outside world does to power management.
#[derive(Clone)]
pub struct FrontPanel {
    pm: Shared<AcpiPm>,
    sci: IrqLine,
}

impl FrontPanel {
    /// Presses the power button: an orderly shutdown if the guest listens.
    pub fn press_power_button(&self) {
        let mut pm = self.pm.lock();
        pm.press_power_button();
        self.sci.set(pm.sci());
    }
}

/// The power management function.
pub struct Piix4Pm {
    config: Shared<ConfigSpace>,
    pm: Shared<AcpiPm>,
    apm: [u8; 2],
    smbus: SmbusHost,
    mapped: [Option<u64>; 2],
    sci: IrqLine,
    smbus_irq: IrqLine,
}

impl Piix4Pm {
    /// A function that drives `sci` and, for the SMBus controller, `smbus_irq`: both are IRQ 9.
    pub fn new(sci: IrqLine, smbus_irq: IrqLine) -> Piix4Pm {
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x8086,
            device: 0x7113,
            revision: 3,
            class: 0x06_8000,
            interrupt_pin: 1,
            ..Identity::default()
        });
        config.store(reg::COMMAND, &[command::IO as u8]);
        config.preset(reg::STATUS, &0x0280u16.to_le_bytes());
        // The SCI is not steered: data sheet 7.1.11.
        config.preset(reg::INTERRUPT_LINE, &[9]);
        config.store(reg::INTERRUPT_LINE, &[0]);
        config.preset(PMBA, &1u32.to_le_bytes());
        config.store(PMBA, &0xffc0u32.to_le_bytes());
        config.store(PMREGMISC, &[1]);
        // Device activity and resource registers.
        config.store(0x44, &[0xff; 0x3c]);
        // DEVACTB with APMC_EN: there is no SMI, and firmware that finds it set up already does not wait for one. QEMU's
        // `pc` with smm=off says the same.
        config.preset(DEVACTB + 3, &[0x02]);
        config.preset(SMBBA, &1u32.to_le_bytes());
        config.store(SMBBA, &0xfff0u32.to_le_bytes());
        config.store(SMBHSTCFG, &[0x0f]);
        config.store(SMBSLVC, &[0xff, 0xfe, 0xfe]);
        let pm = Shared::new(AcpiPm::default());
        let (config, smbus) = (Shared::new(config), SmbusHost::default());
        Piix4Pm { config, pm, apm: [0; 2], smbus, mapped: [None; 2], sci, smbus_irq }
    }

    /// The front panel.
    pub fn front_panel(&self) -> FrontPanel {
        FrontPanel { pm: self.pm.clone(), sci: self.sci.clone() }
    }

    /// Decodes both blocks where PMBA and SMBBA have them.
    fn follow_config(&mut self, cx: &mut DeviceContext) {
        let wanted = {
            let config = self.config.lock();
            let base = |register, mask: u16, enabled: u8| {
                let base = u64::from(config.word(register) & mask);
                (enabled & 1 != 0 && base != 0).then_some(base)
            };
            [base(PMBA, 0xffc0, config.byte(PMREGMISC)), base(SMBBA, 0xfff0, config.byte(SMBHSTCFG))]
        };
        for (i, (tag, len)) in [(PM_TAG, acpi_pm::SIZE), (SMBUS_TAG, smbus::SIZE)].into_iter().enumerate() {
            if self.mapped[i] != wanted[i] {
                cx.request(Request::Unmap { tag });
                if let Some(base) = wanted[i] {
                    cx.request(Request::Map { space: Space::Port, region: Region { base, len }, tag });
                }
                self.mapped[i] = wanted[i];
            }
        }
        self.drive_smbus_irq();
    }

    /// The SMBus controller's interrupt: IRQ 9 if that is chosen, as there is no SMI.
    fn drive_smbus_irq(&self) {
        let chosen = self.config.lock().byte(SMBHSTCFG) & 0x0f == SMBUS_ON_IRQ9;
        self.smbus_irq.set(chosen && self.smbus.interrupt());
    }

    /// Runs `f` on the register block, then drives the SCI.
    fn change<R>(&mut self, cx: &DeviceContext, f: impl FnOnce(&mut AcpiPm, Instant) -> R) -> R {
        let mut pm = self.pm.lock();
        let result = f(&mut pm, cx.now);
        pm.advance(cx.now);
        self.sci.set(pm.sci());
        result
    }
}

impl PciFunction for Piix4Pm {
    fn config(&self) -> Shared<ConfigSpace> {
        self.config.clone()
    }
}

impl Device for Piix4Pm {
    const ID: &'static str = "piix4_pm";
    type State = Piix4PmState;
    const PORTS: &'static [Region] = &[ports(APMC, 2)];
    const WIDEST_ACCESS: u8 = 4;

    fn read(&mut self, cx: &mut DeviceContext, access: Access) -> u64 {
        if access.region == APM_REGION {
            let value = u16::from_le_bytes(self.apm);
            return u64::from(value) >> (8 * (access.offset & 1));
        }
        if access.region == SMBUS_TAG {
            let bytes = (0..u64::from(access.size)).map(|i| self.smbus.read(access.offset + i, cx.now));
            let value = bytes.enumerate().fold(0, |value, (i, byte)| value | u64::from(byte) << (8 * i));
            self.drive_smbus_irq();
            return value;
        }
        // Accesses are aligned or lie within one doubleword for all that any guest does; others see its end as zeros.
        let value = self.change(cx, |pm, now| pm.read(access.offset & !3, now));
        u64::from(value) >> (8 * (access.offset & 3))
    }

    fn write(&mut self, cx: &mut DeviceContext, access: Access, value: u64) {
        if access.region == APM_REGION {
            for (i, byte) in value.to_le_bytes().into_iter().enumerate().take(access.size.into()) {
                let register = access.offset as usize + i;
                self.apm[register & 1] = byte;
                if register == 0 && [ACPI_ENABLE, ACPI_DISABLE].contains(&byte) {
                    self.change(cx, |pm, _| pm.enable_acpi(byte == ACPI_ENABLE));
                }
            }
            return;
        }
        if access.region == SMBUS_TAG {
            for (i, byte) in value.to_le_bytes().into_iter().enumerate().take(access.size.into()) {
                self.smbus.write(access.offset + i as u64, byte, cx.now);
            }
            self.drive_smbus_irq();
            return;
        }
        let shift = 8 * (access.offset & 3);
        let mask = ((1u64 << (8 * access.size)) - 1) << shift;
        let power_off =
            self.change(cx, |pm, now| pm.write(access.offset & !3, (value << shift) as u32, mask as u32, now));
        if power_off {
            cx.request(Request::PowerOff);
        }
    }

    fn poll_at(&self) -> Option<Instant> {
        [self.pm.lock().deadline(), self.smbus.deadline()].into_iter().flatten().min()
    }

    /// The timer has overflowed, a transaction has ended, or the configuration space has changed.
    fn poll(&mut self, cx: &mut DeviceContext) {
        self.smbus.advance(cx.now);
        self.follow_config(cx);
        self.change(cx, |_, _| ());
    }

    fn reset(&mut self, cx: &mut DeviceContext, _kind: ResetKind) {
        self.config.lock().reset();
        self.apm = [0; 2];
        self.smbus.reset();
        self.change(cx, |pm, now| *pm = AcpiPm::new(now));
        self.follow_config(cx);
    }

    fn state(&self) -> Piix4PmState {
        let (config, pm) = (self.config.lock().state(), self.pm.lock().clone());
        Piix4PmState { config, pm, apm: self.apm, smbus: self.smbus.clone() }
    }

    fn set_state(&mut self, state: Piix4PmState) {
        self.config.lock().set_state(&state.config);
        *self.pm.lock() = state.pm;
        self.apm = state.apm;
        self.smbus = state.smbus;
        self.smbus.sanitise();
    }

    fn restored(&mut self, cx: &mut DeviceContext) {
        self.smbus.restored(cx.now);
        self.follow_config(cx);
        self.change(cx, |_, _| ());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbench::{Bench, World};

    const BASE: u16 = 0x600;

    #[test]
    fn block_is_decoded_where_firmware_puts_it() {
        let pm = Piix4Pm::new(IrqLine::unconnected(), IrqLine::unconnected());
        let config = pm.config();
        let mut bench = Bench::new(pm);
        config.lock().write(PMBA, 4, BASE.into());
        bench.poll();
        assert!(!bench.take_requests().iter().any(|r| matches!(r, Request::Map { .. })));
        config.lock().write(PMREGMISC, 1, 1);
        bench.poll();
        let region = ports(BASE, 0x40);
        assert!(bench.take_requests().contains(&Request::Map { space: Space::Port, region, tag: PM_TAG }));
        assert_eq!(config.lock().read(PMBA, 4), 0x601);
        assert_eq!(config.lock().byte(reg::INTERRUPT_LINE), 9);
        assert_eq!(config.lock().read(DEVACTB, 4) >> 25, 1, "firmware finds SMM set up");
    }

    fn bench(world: &World, sci: IrqLine) -> (Bench<Piix4Pm>, FrontPanel) {
        let pm = Piix4Pm::new(sci, IrqLine::unconnected());
        let panel = pm.front_panel();
        let mut bench = Bench::in_world(pm, world);
        bench.map(Space::Port, ports(BASE, 0x40), PM_TAG);
        (bench, panel)
    }

    #[test]
    fn power_button_interrupts_once_acpi_is_enabled() {
        let world = World::new(1 << 20);
        let recorder = world.irq_recorder();
        let (mut bench, panel) = bench(&world, recorder.line(9));
        bench.out16(BASE + 2, 0x0100);
        bench.out8(APMC, ACPI_ENABLE);
        assert_eq!(bench.in16(BASE + 4), 1);
        panel.press_power_button();
        assert_eq!(recorder.take_rises(9), 1);
        assert_eq!(bench.in16(BASE), 0x0100);
        bench.out16(BASE, 0x0100);
        assert_eq!(recorder.take().len(), 1);
        bench.out8(APMC, ACPI_DISABLE);
        assert_eq!((bench.in16(BASE + 4), bench.in8(APMC)), (0, ACPI_DISABLE));
    }

    #[test]
    fn timer_overflow_interrupts_on_time() {
        let world = World::new(1 << 20);
        let recorder = world.irq_recorder();
        let (mut bench, _) = bench(&world, recorder.line(9));
        bench.out8(APMC, ACPI_ENABLE);
        bench.out32(BASE, 0x0001_0000);
        let toggle = Instant::from_ticks(1 << 23, acpi_pm::PM_TIMER_HZ);
        bench.advance_to(toggle.plus_nanos(5));
        let changes = recorder.take();
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].at, toggle);
    }

    #[test]
    fn soft_off_asks_for_power_off() {
        let (mut bench, _) = bench(&World::new(1 << 20), IrqLine::unconnected());
        bench.out16(BASE + 4, 0x2001);
        assert_eq!(bench.take_requests().last(), Some(&Request::PowerOff));
    }
}
