//! The ACPI tables of the PC: ACPI 6.5 chapter 5, for operating systems since ACPI 1.0 (RSDT and XSDT).
//!
//! ```text
//!  RSDP --+-> RSDT, XSDT --> FADT --> FACS, DSDT (see dsdt.rs)
//!                            MADT   HPET
//! ```
//! All tables lie in one image, which starts with the RSDP. Firmware gets the same image in pieces, with a script that puts
//! them together (see loader.rs). Deliberately absent: MCFG (no PCI Express), SRAT, and sleep states other than S5.

mod dsdt;
mod loader;

pub use loader::LoaderFiles;

use super::post::PM_BASE;
use crate::intc::{ioapic, lapic};
use crate::pci::piix4::{ACPI_DISABLE, ACPI_ENABLE, APMC};
use crate::timer::hpet;
use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::sdt::{GenericAddress, Sdt};
use acpi_tables::xsdt::XSDT;

const OEM: [u8; 6] = *b"EMU   ";
const OEM_TABLE: [u8; 8] = *b"EMUPC   ";
const OEM_REVISION: u32 = 1;
const SCI_IRQ: u8 = 9;
/// The reset control register of the PIIX3, and what resets the machine there.
const RESET_PORT: u64 = 0xcf9;
const RESET_VALUE: u8 = 0x06;
/// The index of the century in CMOS RAM.
const CENTURY: u8 = 0x32;
/// Lines that PCI interrupts and the SCI use: level-triggered, active high. As in QEMU's `pc`, 5 is among them.
const LEVEL_IRQS: [u8; 4] = [5, 9, 10, 11];

/// What the tables tell about.
#[derive(Clone, Copy, Debug)]
pub struct AcpiConfig {
    /// Bytes of RAM below 4 GiB: the PCI memory window starts there.
    pub low_ram: u64,
    /// Which of COM1 to COM4 exist.
    pub serials: [bool; 4],
    /// Whether LPT1 exists.
    pub parallel: bool,
    /// Whether there is a PS/2 controller.
    pub i8042: bool,
    /// Whether there are a local APIC and an I/O APIC.
    pub apic: bool,
    /// Whether there is a VGA.
    pub vga: bool,
    /// The types of the diskette drives as CMOS byte 10h has them; 0: none.
    pub floppies: [u8; 2],
}

/// The tables, for the physical address that they were built for.
#[derive(Clone, Debug)]
pub struct AcpiTables {
    /// Their bytes; the first are the RSDP's.
    pub image: Vec<u8>,
    links: Vec<Link>,
    sums: Vec<Sum>,
}

/// An address of a table in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    /// Where it is.
    at: usize,
    /// Its bytes, 4 or 8.
    size: u8,
}

/// A checksum in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum {
    /// Where it is.
    at: usize,
    /// First byte that it covers.
    start: usize,
    /// How many.
    len: usize,
}

/// Bytes of the image that belong to the RSDP.
const RSDP_ROOM: usize = 64;
const RSDP_SIZE: usize = 36;
/// Where a table's header has its checksum.
const CHECKSUM: usize = 9;
const HEADER: usize = 36;
/// FIRMWARE_CTRL, DSDT and X_DSDT in the FADT.
const FADT_LINKS: [Link; 3] = [Link { at: 36, size: 4 }, Link { at: 40, size: 4 }, Link { at: 140, size: 8 }];

impl AcpiTables {
    /// The tables for `config` at the physical address `base`, a multiple of 64.
    pub fn build(config: &AcpiConfig, base: u32) -> AcpiTables {
        let mut image = Image { base, bytes: vec![0; RSDP_ROOM], links: Vec::new(), sums: Vec::new() };
        let facs = image.append(&FACS::new());
        let mut dsdt = Sdt::new(*b"DSDT", 36, 2, OEM, OEM_TABLE, OEM_REVISION);
        dsdt.append_slice(&dsdt::build(config));
        let dsdt = image.add(&dsdt, &[]);
        let mut tables = vec![image.add(&fadt(config, facs, dsdt), &FADT_LINKS)];
        if config.apic {
            tables.push(image.add(&madt(), &[]));
        }
        tables.push(image.add(&hpet_table(), &[]));
        let mut rsdt = Sdt::new(*b"RSDT", 36, 1, OEM, OEM_TABLE, OEM_REVISION);
        let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
        let entries = |size: u8| -> Vec<Link> {
            (0..tables.len()).map(|i| Link { at: HEADER + usize::from(size) * i, size }).collect()
        };
        let (short, long) = (entries(4), entries(8));
        for table in tables {
            rsdt.append_slice(&table.to_le_bytes());
            xsdt.add_entry(table.into());
        }
        let rsdt = image.add(&rsdt, &short);
        let xsdt = image.add(&xsdt, &long);
        image.bytes[..RSDP_SIZE].copy_from_slice(&rsdp(rsdt, xsdt));
        image.links.extend([Link { at: 16, size: 4 }, Link { at: 24, size: 8 }]);
        image.sums.extend([Sum { at: 8, start: 0, len: 20 }, Sum { at: 32, start: 0, len: RSDP_SIZE }]);
        AcpiTables { image: image.bytes, links: image.links, sums: image.sums }
    }
}

struct Image {
    base: u32,
    bytes: Vec<u8>,
    links: Vec<Link>,
    sums: Vec<Sum>,
}

impl Image {
    /// Appends a table with a header, and addresses of tables at `links`; its physical address.
    fn add(&mut self, table: &dyn Aml, links: &[Link]) -> u32 {
        let address = self.append(table);
        let start = address.wrapping_sub(self.base) as usize;
        self.links.extend(links.iter().map(|link| Link { at: start + link.at, ..*link }));
        self.sums.push(Sum { at: start + CHECKSUM, start, len: self.bytes.len() - start });
        address
    }

    /// Appends a table on a 64-byte boundary, which the FACS needs; its physical address.
    fn append(&mut self, table: &dyn Aml) -> u32 {
        self.bytes.resize(self.bytes.len().next_multiple_of(64), 0);
        let at = self.base.wrapping_add(self.bytes.len() as u32);
        table.to_aml_bytes(&mut self.bytes);
        at
    }
}

/// The root pointer, ACPI 6.5 table 5.3. Written by hand since acpi_tables leaves out the RSDT.
fn rsdp(rsdt: u32, xsdt: u32) -> [u8; RSDP_SIZE] {
    let mut rsdp = [0; RSDP_SIZE];
    rsdp[..8].copy_from_slice(b"RSD PTR ");
    rsdp[9..15].copy_from_slice(&OEM);
    rsdp[15] = 2;
    rsdp[16..20].copy_from_slice(&rsdt.to_le_bytes());
    rsdp[20] = 36;
    rsdp[24..28].copy_from_slice(&xsdt.to_le_bytes());
    rsdp[8] = checksum(&rsdp[..20]);
    rsdp[32] = checksum(&rsdp);
    rsdp
}

/// What makes the bytes sum up to zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, b| sum.wrapping_sub(*b))
}

fn fadt(config: &AcpiConfig, facs: u32, dsdt: u32) -> impl Aml {
    const LEGACY_DEVICES: u16 = 1 << 0;
    const HAS_8042: u16 = 1 << 1;
    const NO_VGA: u16 = 1 << 2;
    let pm = u32::from(PM_BASE);
    let io = |width: u8, access, port: u32| GAS::new(AddressSpace::SystemIo, width, 0, access, port.into());
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .preferred_pm_profile(PmProfile::Desktop)
        .firmware_ctrl_32(facs)
        .gpe_info(pm + 0x0c, 0, 4, 0, 0);
    // The power button is fixed hardware, the sleep button absent; the alarm cannot wake from S5.
    for flag in [Flags::Wbinvd, Flags::ProcC1, Flags::SlpButton, Flags::FixRtc, Flags::ResetRegSup] {
        fadt = fadt.flag(flag);
    }
    fadt.dsdt = dsdt.into();
    fadt.x_dsdt = u64::from(dsdt).into();
    fadt.sci_int = u16::from(SCI_IRQ).into();
    fadt.smi_cmd = u32::from(APMC).into();
    fadt.acpi_enable = ACPI_ENABLE;
    fadt.acpi_disable = ACPI_DISABLE;
    fadt.pm1a_evt_blk = pm.into();
    fadt.pm1a_cnt_blk = (pm + 4).into();
    fadt.pm_tmr_blk = (pm + 8).into();
    fadt.pm1_evt_len = 4;
    fadt.pm1_cnt_len = 2;
    fadt.pm_tmr_len = 4;
    fadt.x_pm1a_evt_blk = io(32, AccessSize::WordAccess, pm);
    fadt.x_pm1a_cnt_blk = io(16, AccessSize::WordAccess, pm + 4);
    fadt.x_pm_tmr_blk = io(32, AccessSize::DwordAccess, pm + 8);
    fadt.x_gpe0_blk = io(32, AccessSize::ByteAccess, pm + 0x0c);
    // Latencies that say: no C2, no C3.
    fadt.p_lvl2_lat = 0x0fff.into();
    fadt.p_lvl3_lat = 0x0fff.into();
    fadt.century = CENTURY;
    let flag = |flag: u16, holds: bool| if holds { flag } else { 0 };
    fadt.iapc_boot_arch = (LEGACY_DEVICES | flag(NO_VGA, !config.vga) | flag(HAS_8042, config.i8042)).into();
    fadt.reset_reg = GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, RESET_PORT);
    fadt.reset_value = RESET_VALUE;
    fadt.finalize()
}

/// The interrupt controllers, ACPI 6.5 5.2.12. Written by hand since acpi_tables knows no interrupt source overrides.
fn madt() -> Sdt {
    const PCAT_COMPAT: u32 = 1;
    const LEVEL_ACTIVE_HIGH: u16 = 0b11_01;
    let mut madt = Sdt::new(*b"APIC", 36, 3, OEM, OEM_TABLE, OEM_REVISION);
    madt.append_slice(&(lapic::DEFAULT_BASE as u32).to_le_bytes());
    madt.append_slice(&PCAT_COMPAT.to_le_bytes());
    // Processor local APIC: UID 0, ID 0, enabled.
    madt.append_slice(&[0, 8, 0, 0, 1, 0, 0, 0]);
    // I/O APIC: ID 0, from interrupt 0.
    let address = (ioapic::REGION.base as u32).to_le_bytes();
    madt.append_slice(&[&[1, 12, 0, 0][..], &address, &[0; 4]].concat());
    let mut source_override = |irq: u8, input: u8, flags: u16| {
        let [low, high] = flags.to_le_bytes();
        madt.append_slice(&[2, 10, 0, irq, input, 0, 0, 0, low, high]);
    };
    source_override(0, 2, 0);
    LEVEL_IRQS.into_iter().for_each(|irq| source_override(irq, irq, LEVEL_ACTIVE_HIGH));
    // Local APIC NMI: all processors, LINT1.
    madt.append_slice(&[4, 6, 0xff, 0, 0, 1]);
    madt
}

/// IA-PC HPET specification 1.0a, 3.2.4.
fn hpet_table() -> Sdt {
    let mut table = Sdt::new(*b"HPET", 36, 1, OEM, OEM_TABLE, OEM_REVISION);
    table.append_slice(&(hpet::GCAP_ID as u32).to_le_bytes());
    let address = GenericAddress {
        register_bit_width: 0,
        access_size: 0,
        ..GenericAddress::mmio_address::<u64>(hpet::REGION.base)
    };
    table.append(address);
    // Number 0; no minimum tick given; no page protection.
    table.append_slice(&[0; 4]);
    table
}

#[cfg(test)]
mod tests;
