//! What firmware's power-on self-test would leave behind, for kernels that the board boots without firmware.
//!
//! The registers are written over the bus, as firmware writes them: shadow RAM open, PCI interrupts routed and
//! level-triggered, the ACPI block at 600h, the SMBus controller at 700h, 8259s based at 08h and 70h and masked, A20 open, the local APIC in virtual
//! wire mode. In low memory: an interrupt table of IRETs and the BIOS data area.

use super::memory_map;
use crate::char::parallel::LPT1;
use crate::intc::lapic;
use crate::pci::DevFn;
use crate::pci::config::{command, reg};
use crate::pci::piix3::PIRQRC;
use crate::pci::piix4::{PMBA, PMREGMISC, SMBBA, SMBHSTCFG, SMBUS_ON_IRQ9};
use emu_core::bus::Bus;

/// The host bridge.
pub const HOST_BRIDGE: DevFn = DevFn::new(0, 0);
/// The PCI-to-ISA bridge.
pub const ISA_BRIDGE: DevFn = DevFn::new(1, 0);
/// The IDE function.
pub const IDE: DevFn = DevFn::new(1, 1);
/// Power management.
pub const POWER_MANAGEMENT: DevFn = DevFn::new(1, 3);
/// The graphics card, if there is one.
pub const VGA: DevFn = DevFn::new(2, 0);
/// Where the ACPI register block is put.
pub const PM_BASE: u16 = 0x600;
/// Where the SMBus controller is put.
pub const SMBUS_BASE: u16 = 0x700;
/// The IRQs of PIRQA# to PIRQD#, as SeaBIOS chooses them.
pub const PIRQ_IRQS: [u8; 4] = [10, 10, 11, 11];
/// Ports of COM1 to COM4.
pub const SERIAL_PORTS: [u16; 4] = [0x3f8, 0x2f8, 0x3e8, 0x2e8];

/// Where the IRET lies that all vectors of the real-mode interrupt table point to, in segment F000h.
const IRET_OFFSET: u16 = 0xff53;

/// Programs the chip set and fills low memory. `serials`: which serial ports exist; `parallel`: whether LPT1 does.
pub fn initialise(bus: &Bus, serials: [bool; 4], parallel: bool) {
    let out = |port: u16, value: u8| bus.port_write(port, 1, value.into(), 0);
    // PAM0 to PAM6: reads and writes of C0000h to FFFFFh reach RAM.
    config_write(bus, HOST_BRIDGE, 0x59, 1, 0x30);
    (0x5a..=0x5f).for_each(|register| config_write(bus, HOST_BRIDGE, register, 1, 0x33));
    for (i, irq) in PIRQ_IRQS.into_iter().enumerate() {
        config_write(bus, ISA_BRIDGE, PIRQRC + i as u8, 1, irq.into());
    }
    // IDE: bus masters at C000h, both channels' IDETIM enabled.
    config_write(bus, IDE, reg::BAR0 + 16, 4, 0xc000);
    config_write(bus, IDE, 0x40, 4, 0x8000_8000);
    config_write(bus, IDE, reg::COMMAND, 2, (command::IO | command::MASTER).into());
    config_write(bus, POWER_MANAGEMENT, PMBA, 4, PM_BASE.into());
    config_write(bus, POWER_MANAGEMENT, PMREGMISC, 1, 1);
    config_write(bus, POWER_MANAGEMENT, SMBBA, 4, SMBUS_BASE.into());
    config_write(bus, POWER_MANAGEMENT, SMBHSTCFG, 1, SMBUS_ON_IRQ9.into());
    config_write(bus, POWER_MANAGEMENT, reg::COMMAND, 2, command::IO.into());

    // 8254: counter 0 mode 2 at 18.2 Hz, counter 1 mode 2 as for refresh.
    for (control, counter, low, high) in [(0x34, 0x40, 0, 0), (0x74, 0x41, 0x12, 0)] {
        out(0x43, control);
        out(counter, low);
        out(counter, high);
    }
    // ICW1 to ICW4 and OCW1 of both 8259s, which forget the edge that OUT0 has just given; ELCR: level for 9, 10 and 11.
    for (port, vector, cascade, mask) in [(0x20, 0x08, 0x04, 0xfb), (0xa0, 0x70, 0x02, 0xff)] {
        out(port, 0x11);
        [vector, cascade, 0x01, mask].into_iter().for_each(|value| out(port + 1, value));
    }
    out(0x4d1, 0x0e);
    out(0x92, 0x02);
    for (register, value) in [(0xf0, 0x1ff), (0x350, 0x700), (0x360, 0x400)] {
        bus.memory_write(lapic::DEFAULT_BASE + register, 4, value, 0);
    }
    low_memory(bus, serials, parallel);
}

fn low_memory(bus: &Bus, serials: [bool; 4], parallel: bool) {
    let memory = bus.memory();
    let vector = [IRET_OFFSET.to_le_bytes(), 0xf000u16.to_le_bytes()].concat();
    memory.write(0, &vector.repeat(256));
    memory.write(0xf_0000 + u64::from(IRET_OFFSET), &[0xcf]);
    let mut data_area = [0u8; 0x100];
    let present = SERIAL_PORTS.into_iter().zip(serials).filter_map(|(port, exists)| exists.then_some(port));
    let mut count = 0;
    for port in present {
        data_area[2 * count..2 * count + 2].copy_from_slice(&port.to_le_bytes());
        count += 1;
    }
    if parallel {
        data_area[0x08..0x0a].copy_from_slice(&(LPT1.base as u16).to_le_bytes());
    }
    data_area[0x0e..0x10].copy_from_slice(&((memory_map::EBDA >> 4) as u16).to_le_bytes());
    // Equipment: a coprocessor and that many serial and parallel ports.
    let equipment = 0x02 | (count as u16) << 9 | u16::from(parallel) << 14;
    data_area[0x10..0x12].copy_from_slice(&equipment.to_le_bytes());
    data_area[0x13..0x15].copy_from_slice(&((memory_map::EBDA / 1024) as u16).to_le_bytes());
    memory.write(0x400, &data_area);
    // The EBDA begins with its size in KiB.
    memory.write(memory_map::EBDA, &[1]);
}

/// A configuration write by mechanism 1.
pub(super) fn config_write(bus: &Bus, place: DevFn, register: u8, size: u8, value: u32) {
    let address = 1 << 31 | u32::from(place.0) << 8 | u32::from(register & 0xfc);
    bus.port_write(0xcf8, 4, address, 0);
    bus.port_write(0xcfc + u16::from(register & 3), size, value, 0);
}
