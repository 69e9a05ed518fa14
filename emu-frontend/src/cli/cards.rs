//! Values of `-device` that plug a card into a slot: their properties, checked.

use super::boot_order::{BOOTINDEX, take_bootindex};
use super::devices::{Driver, Property};
use super::error::StartError;
use super::value::KeyValues;
use super::virtio::{self, VirtioKind, VirtioSpec};
use emu_devices::board::expansion::Slot;
use emu_devices::net::MacAddress;
use emu_devices::net::dp8390;
use std::path::PathBuf;

/// A card, its back end still by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardSpec {
    /// `id=`.
    pub id: Option<String>,
    /// The device number of `addr=`.
    pub device: Option<u8>,
    /// Its place in the boot order.
    pub bootindex: Option<u32>,
    /// What it is.
    pub model: Model,
    text: String,
}

/// What cards there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Model {
    /// ne2k_isa.
    Ne2kIsa {
        /// First port.
        base: u16,
        /// IRQ.
        irq: u8,
        /// Cable.
        nic: NicSpec,
    },
    /// ne2k_pci.
    Ne2kPci(NicSpec),
    /// e1000.
    E1000(NicSpec),
    /// virtio-...-pci.
    Virtio(VirtioSpec),
}

/// What all network cards have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NicSpec {
    /// The id of the back end.
    pub netdev: Option<String>,
    /// Its address; the next free one if not given.
    pub mac: Option<MacAddress>,
    /// The file with its option ROM.
    pub rom: Option<PathBuf>,
}

impl CardSpec {
    /// The virtio-blk-pci of `-drive if=virtio`.
    pub fn of_drive(drive: &str) -> CardSpec {
        let kind = VirtioKind::Block { drive: drive.into(), config: Default::default() };
        let model = Model::Virtio(VirtioSpec { options: Default::default(), kind });
        CardSpec { id: None, device: None, bootindex: None, model, text: format!("virtio-blk-pci,drive={drive}") }
    }

    /// An error about this card that names its option.
    pub fn error(&self, problem: impl Into<String>) -> StartError {
        StartError::value("device", self.text.as_str(), problem)
    }

    /// Its id and its virtio device, if it is one.
    pub fn virtio(&mut self) -> Option<(Option<&str>, &mut VirtioSpec)> {
        match &mut self.model {
            Model::Virtio(spec) => Some((self.id.as_deref(), spec)),
            _ => None,
        }
    }

    /// What `-device` calls it.
    pub fn driver(&self) -> &str {
        let first = self.text.split(',').next().unwrap_or_default();
        first.strip_prefix("driver=").unwrap_or(first)
    }

    /// The network card, if it is one.
    pub fn nic(&self) -> Option<&NicSpec> {
        match &self.model {
            Model::Ne2kIsa { nic, .. }
            | Model::Ne2kPci(nic)
            | Model::E1000(nic)
            | Model::Virtio(VirtioSpec { kind: VirtioKind::Net { nic, .. }, .. }) => Some(nic),
            Model::Virtio(_) => None,
        }
    }

    /// What it is to be plugged into.
    pub fn slot(&self) -> Slot {
        match self.model {
            Model::Ne2kIsa { .. } => Slot::Isa,
            Model::Ne2kPci(_) | Model::E1000(_) | Model::Virtio(_) => Slot::Pci(self.device),
        }
    }

    /// Takes a network card's cable away.
    pub fn unplug(&mut self) {
        match &mut self.model {
            Model::Ne2kIsa { nic, .. }
            | Model::Ne2kPci(nic)
            | Model::E1000(nic)
            | Model::Virtio(VirtioSpec { kind: VirtioKind::Net { nic, .. }, .. }) => nic.netdev = None,
            Model::Virtio(_) => {}
        }
    }
}

/// `netdev=`, as help has it.
pub const NETDEV: Property = ("netdev", "<str>     - ID of a netdev to use as a backend");
/// `mac=`.
pub const MAC: Property = ("mac", "<str>     - Ethernet address, as 52:54:00:12:34:56");
/// `addr=`.
pub const ADDR: Property = ("addr", "<int32>   - PCI device number, hexadecimal: 3 to 1f");
/// `romfile=`.
pub const ROMFILE: Property = ("romfile", "<str>     - file with an option ROM (default: none)");

/// The rows of `-device help` for cards.
pub const DRIVERS: &[Driver] = &[
    Driver {
        name: "e1000",
        bus: "PCI",
        about: "Intel Gigabit Ethernet, 82540EM",
        properties: &[NETDEV, MAC, BOOTINDEX, ADDR, ROMFILE],
    },
    Driver {
        name: "ne2k_isa",
        bus: "ISA",
        about: "NE2000 network card",
        properties: &[
            NETDEV,
            MAC,
            ("iobase", "<uint32>  -  (default: 0x300)"),
            ("irq", "<uint32>  - 2 to 7, 9 to 12, 14 or 15 (default: 9)"),
        ],
    },
    Driver {
        name: "ne2k_pci",
        bus: "PCI",
        about: "NE2000 network card, Realtek RTL8029",
        properties: &[NETDEV, MAC, BOOTINDEX, ADDR, ROMFILE],
    },
];

/// Checks the properties of card `name`, one of [`DRIVERS`]; its `id` has been taken.
///
/// # Errors
/// A property that is wrong.
pub fn parse(name: &str, id: Option<String>, text: &str, v: &mut KeyValues) -> Result<CardSpec, StartError> {
    let is_isa = DRIVERS.iter().any(|driver| driver.name == name && driver.bus == "ISA");
    let bus = if is_isa { "isa.0" } else { "pci.0" };
    if let Some(other) = v.take("bus")?.filter(|given| given != bus) {
        return Err(v.error(format!("there is no bus '{other}' for it; the only one is '{bus}'")));
    }
    let mut device = None;
    let model = if is_isa {
        let base = v.take_number("iobase", u64::from(0xffff - dp8390::PORTS))?.unwrap_or(0x300) as u16;
        let irq = v.take_number("irq", 15)?.unwrap_or(9) as u8;
        if [0, 1, 8, 13].contains(&irq) {
            return Err(v.error(format!("'irq={irq}': an ISA slot has 2 to 7, 9 to 12, 14 and 15")));
        }
        Model::Ne2kIsa { base, irq, nic: nic(v)? }
    } else if virtio::DRIVERS.iter().any(|driver| driver.name == name) {
        device = address(v)?;
        Model::Virtio(virtio::parse(name, v)?)
    } else {
        device = address(v)?;
        let rom = v.take("romfile")?.filter(|file| !file.is_empty()).map(PathBuf::from);
        let nic = NicSpec { rom, ..nic(v)? };
        if name == "e1000" { Model::E1000(nic) } else { Model::Ne2kPci(nic) }
    };
    let bootindex = match &model {
        Model::Ne2kPci(_)
        | Model::E1000(_)
        | Model::Virtio(VirtioSpec { kind: VirtioKind::Block { .. } | VirtioKind::Net { .. }, .. }) => {
            take_bootindex(v)?
        }
        Model::Ne2kIsa { .. } | Model::Virtio(_) => None,
    };
    Ok(CardSpec { id, device, bootindex, model, text: text.into() })
}

/// `netdev=` and `mac=`.
pub fn nic(v: &mut KeyValues) -> Result<NicSpec, StartError> {
    let netdev = v.take("netdev")?;
    let mac = match v.take("mac")? {
        Some(text) => Some(parse_mac(&text).ok_or_else(|| {
            v.error(format!("'mac={text}' is not an Ethernet address of one station, as 52:54:00:12:34:56 is"))
        })?),
        None => None,
    };
    Ok(NicSpec { netdev, mac, rom: None })
}

/// Six bytes in hexadecimal with colons or hyphens between them; not a group address.
pub fn parse_mac(text: &str) -> Option<MacAddress> {
    let mut bytes = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut bytes {
        let part = parts.next().filter(|part| (1..=2).contains(&part.len()) && !part.starts_with('+'))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    let mac = MacAddress(bytes);
    (parts.next().is_none() && !mac.is_group()).then_some(mac)
}

/// `addr=SLOT` or `addr=SLOT.FUNCTION`, hexadecimal as in QEMU; `None` if not given.
fn address(v: &mut KeyValues) -> Result<Option<u8>, StartError> {
    let Some(text) = v.take("addr")? else { return Ok(None) };
    let (slot, function) = text.split_once('.').unwrap_or((&text, "0"));
    let hex = |text: &str| u8::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok();
    match (hex(slot), hex(function)) {
        (Some(slot @ 0..32), Some(0)) => Ok(Some(slot)),
        (Some(0..32), Some(1..8)) => Err(v.error(format!("'addr={text}' is not implemented; cards are function 0"))),
        _ => Err(v.error(format!("'addr={text}' is not a PCI device number: expected 3 to 1f, hexadecimal"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(text: &str) -> Result<CardSpec, String> {
        let mut v = KeyValues::parse("device", text, "driver");
        let check = |v: &mut KeyValues| {
            let (name, id) = (v.take("driver")?.unwrap_or_default(), v.take("id")?);
            let spec = parse(&name, id, text, v)?;
            v.finish()?;
            Ok(spec)
        };
        check(&mut v).map_err(|e: StartError| e.line())
    }

    #[test]
    fn isa_card_has_qemus_defaults_and_jumpers() {
        let default = Model::Ne2kIsa { base: 0x300, irq: 9, nic: NicSpec::default() };
        assert_eq!(card("ne2k_isa").unwrap().model, default);
        let nic = NicSpec { netdev: Some("n".into()), mac: None, rom: None };
        let given = card("ne2k_isa,iobase=0x320,irq=5,netdev=n,id=x").unwrap();
        assert_eq!((given.model, given.id), (Model::Ne2kIsa { base: 0x320, irq: 5, nic }, Some("x".into())));
        for wrong in ["irq=8", "irq=16", "iobase=0xfff8", "addr=3", "romfile=x", "bus=pci.0"] {
            assert!(card(&format!("ne2k_isa,{wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn cards_that_can_be_booted_from_have_a_boot_index() {
        for bootable in ["ne2k_pci", "e1000", "virtio-net-pci", "virtio-blk-pci,drive=d"] {
            assert_eq!(card(&format!("{bootable},bootindex=2")).unwrap().bootindex, Some(2), "{bootable}");
            assert_eq!(card(bootable).unwrap().bootindex, None, "{bootable}");
        }
        for other in ["ne2k_isa", "virtio-rng-pci", "virtio-serial-pci", "virtio-balloon-pci"] {
            let line = card(&format!("{other},bootindex=2")).unwrap_err();
            assert!(line.contains("unknown property 'bootindex'"), "{line}");
        }
    }

    #[test]
    fn pci_card_has_address_slot_and_rom() {
        let given = card("ne2k_pci,mac=52-54-0-AB-cd-01,addr=0x1f,romfile=a,,b,bus=pci.0").unwrap();
        let nic = NicSpec {
            netdev: None,
            mac: Some(MacAddress([0x52, 0x54, 0, 0xab, 0xcd, 1])),
            rom: Some(PathBuf::from("a,b")),
        };
        assert_eq!((given.device, given.model), (Some(31), Model::Ne2kPci(nic)));
        assert_eq!(card("ne2k_pci,addr=10.0,romfile=").unwrap().device, Some(16));
        for wrong in
            ["addr=20", "addr=3.8", "addr=x", "mac=1:2:3:4:5", "mac=1:2:3:4:5:6:7", "mac=01:2:3:4:5:6", "irq=5"]
        {
            assert!(card(&format!("ne2k_pci,{wrong}")).is_err(), "{wrong}");
        }
        assert!(card("ne2k_pci,addr=3.1").unwrap_err().contains("not implemented"));
    }
}
