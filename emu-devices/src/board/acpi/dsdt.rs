//! The DSDT: ACPI namespace of the PC, as ACPI Machine Language.
//!
//! ```text
//!  \_SB  CPU0
//!        PCI0 (windows, _PRT)  ISA_ (PIRQ registers)  RTC_ KBD_ MOU_ COM1..COM4 FDC0 (FLPA FLPB)
//!        LNKA..LNKD: PIRQA# to PIRQD#, one of IRQ 5, 10, 11     LNKS: the SCI
//!        HPET
//!  \_S5
//! ```

use super::{AcpiConfig, SCI_IRQ};
use crate::pci::piix3::PIRQRC;
use crate::timer::hpet;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Arg, BufferData, CreateDWordField, Device, EISAName, Else, Field,
    FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, IO, If, Interrupt, LessThan, Memory32Fixed, Method,
    MethodCall, Name, OpRegion, OpRegionSpace, Or, Package, PackageBuilder, Path, ResourceTemplate, Return, Scope,
    Store,
};
use acpi_tables::{Aml, AmlSink};

/// The end of the PCI memory window, where the I/O APIC's page begins.
const WINDOW_END: u32 = 0xfebf_ffff;
const LINKS: [&str; 4] = ["LNKA", "LNKB", "LNKC", "LNKD"];
const ROUTES: [&str; 4] = ["PRQ0", "PRQ1", "PRQ2", "PRQ3"];
/// The IRQs that PCI interrupts may be steered to.
const POSSIBLE: [u32; 3] = [5, 10, 11];

/// The AML of the whole namespace.
pub fn build(config: &AcpiConfig) -> Vec<u8> {
    let mut aml = Vec::new();
    Scope::new(Path::new("_SB_"), vec![&processor(), &pci_root(config)]).to_aml_bytes(&mut aml);
    // Field names are found where their users are: below the ISA bridge's scope.
    let links: Vec<Bytes> = (0..4).map(link).collect();
    let mut devices: Vec<&dyn Aml> = vec![];
    let helpers = [link_status(), link_resources()];
    devices.extend(helpers.iter().map(|b| b as &dyn Aml));
    devices.extend(links.iter().map(|b| b as &dyn Aml));
    let (sci, timers) = (sci_link(), hpet_device());
    devices.extend([&sci as &dyn Aml, &timers]);
    Scope::new(Path::new("_SB_"), devices).to_aml_bytes(&mut aml);
    // S5: SLP_TYPa and SLP_TYPb, two reserved.
    Name::new(Path::new("_S5_"), &Package::new(vec![&0u8, &0u8, &0u8, &0u8])).to_aml_bytes(&mut aml);
    aml
}

/// AML that has been made already.
struct Bytes(Vec<u8>);

impl Bytes {
    fn of(term: &dyn Aml) -> Bytes {
        let mut bytes = Vec::new();
        term.to_aml_bytes(&mut bytes);
        Bytes(bytes)
    }
}

impl Aml for Bytes {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

/// An extended interrupt descriptor with several choices (ACPI 6.5 6.4.3.6), which acpi_tables has not: level-triggered,
/// active high, shared, consumed.
struct InterruptChoice<'a>(&'a [u32]);

impl Aml for InterruptChoice<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.byte(0x89);
        sink.word(2 + 4 * self.0.len() as u16);
        sink.byte(0b1001);
        sink.byte(self.0.len() as u8);
        self.0.iter().for_each(|irq| sink.dword(*irq));
    }
}

fn name(path: &str, value: &dyn Aml) -> Name {
    Name::new(Path::new(path), value)
}

fn id(id: &str) -> Name {
    name("_HID", &EISAName::new(id))
}

fn processor() -> Bytes {
    Bytes::of(&Device::new(Path::new("CPU0"), vec![&name("_HID", &"ACPI0007"), &name("_UID", &0u8)]))
}

fn pci_root(config: &AcpiConfig) -> Bytes {
    let window = u32::try_from(config.low_ram).unwrap_or(WINDOW_END).clamp(0x10_0000, WINDOW_END - 0xffff);
    let (bus_numbers, mechanism) = (AddressSpace::<u16>::new_bus_number(0, 0xff), IO::new(0xcf8, 0xcf8, 1, 8));
    let low_ports = AddressSpace::<u16>::new_io(0, 0xcf7, None);
    let high_ports = AddressSpace::<u16>::new_io(0xd00, 0xffff, None);
    let memory = |cacheable, start, end| AddressSpace::<u32>::new_memory(cacheable, true, start, end, None);
    let video = memory(AddressSpaceCacheable::Cacheable, 0xa_0000, 0xb_ffff);
    let hole = memory(AddressSpaceCacheable::NotCacheable, window, WINDOW_END);
    let resources = ResourceTemplate::new(vec![&bus_numbers, &mechanism, &low_ports, &high_ports, &video, &hole]);
    let isa = isa_bridge(config);
    Bytes::of(&Device::new(
        Path::new("PCI0"),
        vec![&id("PNP0A03"), &name("_UID", &0u8), &name("_CRS", &resources), &routing(), &isa],
    ))
}

/// _PRT: the swizzle of [`crate::pci::piix3`], with the SCI for INTA# of the power management function.
fn routing() -> Bytes {
    let mut table = PackageBuilder::new();
    for slot in 0..32u32 {
        for pin in 0..4u32 {
            let link = match (slot, pin) {
                (1, 0) => "LNKS",
                _ => LINKS[((pin + slot + 3) & 3) as usize],
            };
            let address = slot << 16 | 0xffff;
            table.add_element(&Package::new(vec![&address, &pin, &Path::new(link), &0u8]));
        }
    }
    Bytes::of(&name("_PRT", &table))
}

fn isa_bridge(config: &AcpiConfig) -> Bytes {
    let region = OpRegion::new(Path::new("P40C"), OpRegionSpace::PCIConfig, &PIRQRC, &4u8);
    let device = |path: &str, hid: &str, extra: &[&dyn Aml]| {
        let hid = id(hid);
        let mut children: Vec<&dyn Aml> = vec![&hid];
        children.extend(extra);
        Bytes::of(&Device::new(Path::new(path), children))
    };
    let edge = |irq: u32| Interrupt::new(true, true, false, false, irq);
    let resources = |list: Vec<&dyn Aml>| Bytes::of(&name("_CRS", &ResourceTemplate::new(list)));
    let mut devices = vec![device("RTC_", "PNP0B00", &[&resources(vec![&IO::new(0x70, 0x70, 1, 8), &edge(8)])])];
    if config.i8042 {
        let keyboard = resources(vec![&IO::new(0x60, 0x60, 1, 1), &IO::new(0x64, 0x64, 1, 1), &edge(1)]);
        devices.push(device("KBD_", "PNP0303", &[&keyboard]));
        devices.push(device("MOU_", "PNP0F13", &[&resources(vec![&edge(12)])]));
    }
    for (i, (port, irq)) in [(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)].into_iter().enumerate() {
        if config.serials[i] {
            let uid = name("_UID", &(i as u8 + 1));
            let crs = resources(vec![&IO::new(port, port, 1, 8), &edge(irq)]);
            devices.push(device(&format!("COM{}", i + 1), "PNP0501", &[&uid, &crs]));
        }
    }
    if config.parallel {
        devices.push(device("LPT1", "PNP0400", &[&resources(vec![&IO::new(0x378, 0x378, 1, 3), &edge(7)])]));
    }
    if config.floppies != [0; 2] {
        devices.push(floppy_controller(config.floppies));
    }
    let address = name("_ADR", &0x1_0000u32);
    let mut children: Vec<&dyn Aml> = vec![&address, &region];
    children.extend(devices.iter().map(|d| d as &dyn Aml));
    Bytes::of(&Device::new(Path::new("ISA_"), children))
}

/// The i82078 and its drives: ACPI 6.5 9.8.
fn floppy_controller(types: [u8; 2]) -> Bytes {
    // A DMA descriptor (ACPI 6.5 6.4.2.2): channel 2, compatibility timing, no bus master, 8 bits.
    let dma = Bytes(vec![0x2a, 1 << 2, 0]);
    let irq = Interrupt::new(true, true, false, false, 6);
    let (registers, input) = (IO::new(0x3f2, 0x3f2, 1, 4), IO::new(0x3f7, 0x3f7, 1, 1));
    let resources = ResourceTemplate::new(vec![&registers, &input, &irq, &dma]);
    // _FDE: which of the four drives there are, and that no tape is known of.
    const TAPE_UNKNOWN: u32 = 2;
    let exists = |unit: usize| u32::from(types.get(unit).is_some_and(|kind| *kind != 0));
    let present = [exists(0), exists(1), 0, 0, TAPE_UNKNOWN].map(u32::to_le_bytes).concat();
    let drives: Vec<Bytes> = types
        .into_iter()
        .zip(["FLPA", "FLPB"])
        .enumerate()
        .filter(|(_, (kind, _))| *kind != 0)
        .map(|(unit, (kind, path))| {
            let (address, information) = (name("_ADR", &(unit as u8)), drive_information(unit as u8, kind));
            Bytes::of(&Device::new(Path::new(path), vec![&address, &information]))
        })
        .collect();
    let (hid, resources, present) = (id("PNP0700"), name("_CRS", &resources), name("_FDE", &BufferData::new(present)));
    let mut children: Vec<&dyn Aml> = vec![&hid, &resources, &present];
    children.extend(drives.iter().map(|drive| drive as &dyn Aml));
    Bytes::of(&Device::new(Path::new("FDC0"), children))
}

/// _FDI: what INT 13h AH=08h tells about a drive of this type, and the parameters of INT 1Eh for its largest format.
fn drive_information(unit: u8, kind: u8) -> Bytes {
    // Last cylinder, sectors of a track, last head.
    let (cylinder, sectors, head) = match kind {
        1 => (39, 9, 1),
        2 => (79, 15, 1),
        5 => (79, 36, 1),
        _ => (79, 18, 1),
    };
    // Specify bytes 1 and 2, motor off in ticks, 512 bytes, last sector, gap, data length, format gap, fill, settle in ms, motor on
    // in 1/8 s.
    let values = [unit, kind, cylinder, sectors, head, 0xaf, 0x02, 0x25, 2, sectors, 0x1b, 0xff, 0x6c, 0xf6, 15, 8];
    let mut package = PackageBuilder::new();
    values.iter().for_each(|value| package.add_element(value));
    Bytes::of(&name("_FDI", &package))
}

/// The PIRQRC registers, where the link devices can name them.
fn route_fields() -> Field {
    let fields = ROUTES.iter().map(|route| FieldEntry::Named(name_bytes(route), 8)).collect();
    Field::new(
        Path::new("PCI0.ISA_.P40C"),
        FieldAccessType::Byte,
        FieldLockRule::NoLock,
        FieldUpdateRule::Preserve,
        fields,
    )
}

fn name_bytes(name: &str) -> [u8; 4] {
    let mut bytes = [b'_'; 4];
    bytes.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    bytes
}

/// IQST(route): _STA of a link: present, and enabled unless the route is off.
fn link_status() -> Bytes {
    let disabled = Return::new(&9u8);
    let enabled = Return::new(&0x0bu8);
    let test = LessThan::new(&Arg(0), &0x80u8);
    let (on, off) = (If::new(&test, vec![&enabled]), Else::new(vec![&disabled]));
    let method = Method::new(Path::new("IQST"), 1, false, vec![&on, &off]);
    let fields = route_fields();
    Bytes([Bytes::of(&fields).0, Bytes::of(&method).0].concat())
}

/// IQCR(route): _CRS of a link: its IRQ, or 0 if it is off.
fn link_resources() -> Bytes {
    let template = ResourceTemplate::new(vec![&NO_IRQ]);
    // A buffer for all links; the method is serialised.
    let buffer = name("PRR0", &template);
    let irq = Path::new("PRRI");
    let result = Path::new("PRR0");
    let field = CreateDWordField::new(&irq, &result, &5u8);
    let test = LessThan::new(&Arg(0), &0x80u8);
    let store = Store::new(&irq, &Arg(0));
    let condition = If::new(&test, vec![&store]);
    let back = Return::new(&result);
    let method = Method::new(Path::new("IQCR"), 1, true, vec![&field, &condition, &back]);
    Bytes([Bytes::of(&buffer).0, Bytes::of(&method).0].concat())
}

const NO_IRQ: InterruptChoice<'static> = InterruptChoice(&[0]);

fn link(n: usize) -> Bytes {
    let route = Path::new(ROUTES[n]);
    let choice = InterruptChoice(&POSSIBLE);
    let possible = ResourceTemplate::new(vec![&choice]);
    let status = MethodCall::new(Path::new("IQST"), vec![&route]);
    let current = MethodCall::new(Path::new("IQCR"), vec![&route]);
    let irq = Path::new("PRRI");
    let method = |path: &str, args, terms: Vec<&dyn Aml>| Bytes::of(&Method::new(Path::new(path), args, false, terms));
    Bytes::of(&Device::new(
        Path::new(LINKS[n]),
        vec![
            &id("PNP0C0F"),
            &name("_UID", &(n as u8)),
            &name("_PRS", &possible),
            &method("_STA", 0, vec![&Return::new(&status)]),
            &method("_DIS", 0, vec![&Or::new(&route, &route, &0x80u8)]),
            &method("_CRS", 0, vec![&Return::new(&current)]),
            &method("_SRS", 1, vec![&CreateDWordField::new(&irq, &Arg(0), &5u8), &Store::new(&route, &irq)]),
        ],
    ))
}

/// The link of the SCI, which is wired to IRQ 9.
fn sci_link() -> Bytes {
    let irqs = [u32::from(SCI_IRQ)];
    let choice = InterruptChoice(&irqs);
    let resources = ResourceTemplate::new(vec![&choice]);
    let nothing = |path: &str, args| Bytes::of(&Method::new(Path::new(path), args, false, vec![]));
    Bytes::of(&Device::new(
        Path::new("LNKS"),
        vec![
            &id("PNP0C0F"),
            &name("_UID", &4u8),
            &name("_PRS", &resources),
            &name("_STA", &0x0bu8),
            &nothing("_DIS", 0),
            &name("_CRS", &resources),
            &nothing("_SRS", 1),
        ],
    ))
}

fn hpet_device() -> Bytes {
    let registers = Memory32Fixed::new(false, hpet::REGION.base as u32, hpet::REGION.len as u32);
    let resources = ResourceTemplate::new(vec![&registers]);
    Bytes::of(&Device::new(Path::new("HPET"), vec![&id("PNP0103"), &name("_UID", &0u8), &name("_CRS", &resources)]))
}
