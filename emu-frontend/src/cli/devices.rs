//! `-device` and `-global`: the test devices of OS courses and CI, the graphics card, the sound card; [`super::cards`] has those in slots,
//! [`super::ide`] those on IDE channels.

use super::audio::{self, AudioDev};
use super::cards::{self, CardSpec};
use super::error::{StartError, nearest};
use super::ide::{self, IdeSpec};
use super::value::KeyValues;
use super::virtio;
use emu_devices::audio::sb16::{IRQS, Sb16Config};
use std::collections::BTreeSet;

/// A port to which a guest's write ends the emulator with status `(value << 1) | 1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebugExit {
    /// First port.
    pub base: u16,
    /// Ports.
    pub size: u16,
}

/// A port that sends what the guest writes to a character device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debugcon {
    /// The port.
    pub base: u16,
    /// Where output goes; nowhere without one.
    pub chardev: Option<String>,
}

impl Debugcon {
    /// At port E9h, as `-debugcon` puts it.
    pub fn at_default_port(chardev: Option<String>) -> Debugcon {
        Debugcon { base: 0xe9, chardev }
    }
}

/// Devices beyond those that every PC has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// isa-debug-exit.
    pub debug_exits: Vec<DebugExit>,
    /// isa-debugcon and `-debugcon`.
    pub debugcons: Vec<Debugcon>,
    /// pc-testdev.
    pub testdev: bool,
    /// VGA, by `-device`.
    pub vga: bool,
    /// sb16, and the `-audiodev` that it plays on.
    pub sb16: Option<(Sb16Config, Option<String>)>,
    /// Bytes of video memory, should there be a VGA.
    pub vga_memory: u32,
    /// Cards in slots, in their order.
    pub cards: Vec<CardSpec>,
    /// Those on IDE channels, in their order.
    pub ide: Vec<IdeSpec>,
    /// For messages: the `-device` value of the sb16.
    sb16_text: String,
    /// For messages: the `-device` values that name a character device.
    users: Vec<(String, String)>,
}

impl Devices {
    /// The `-device` values that use a character device, with its id.
    pub fn chardev_users(&self) -> Vec<(String, String)> {
        self.users.clone()
    }

    /// The sound card and the number of its back end among `audio`.
    ///
    /// # Errors
    /// It names a back end that is not there.
    pub fn sound_card(&self, audio: &[AudioDev]) -> Result<Option<(Sb16Config, Option<usize>)>, StartError> {
        let Some((card, id)) = &self.sb16 else { return Ok(None) };
        let backend = match id {
            Some(id) => Some(audio::find(audio, "device", &self.sb16_text, id)?),
            None => None,
        };
        Ok(Some((*card, backend)))
    }
}

/// A property and what it takes.
pub type Property = (&'static str, &'static str);

/// One row of `-device help`.
pub struct Driver {
    /// Its name.
    pub name: &'static str,
    /// What it is plugged into.
    pub bus: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Its properties.
    pub properties: &'static [Property],
}

const DRIVERS: &[Driver] = &[
    Driver {
        name: "isa-debug-exit",
        bus: "ISA",
        about: "a write ends emu with status (value << 1) | 1",
        properties: &[("iobase", "<uint32>  -  (default: 0x501)"), ("iosize", "<uint32>  -  (default: 0x2)")],
    },
    Driver {
        name: "isa-debugcon",
        bus: "ISA",
        about: "what the guest writes goes to a character device",
        properties: &[
            ("chardev", "<str>     - ID of a chardev to use as a backend"),
            ("iobase", "<uint32>  -  (default: 0xe9)"),
        ],
    },
    Driver {
        name: "VGA",
        bus: "PCI",
        about: "the graphics card of -vga std",
        properties: &[("vgamem_mb", "<uint32>  -  (default: 16)")],
    },
    Driver {
        name: "sb16",
        bus: "ISA",
        about: "Creative Sound Blaster 16",
        properties: &[
            ("audiodev", "<str>     - ID of an audiodev to use as a backend"),
            ("iobase", "<uint32>  - 0x220, 0x240, 0x260 or 0x280 (default: 0x220)"),
            ("irq", "<uint32>  - 2, 5, 7 or 10 (default: 5)"),
            ("dma", "<uint32>  - 0, 1 or 3 (default: 1)"),
            ("dma16", "<uint32>  - 5, 6 or 7 (default: 5)"),
            ("version", "<uint32>  - 0x405, that of the DSP (default: 0x405)"),
        ],
    },
    Driver { name: "pc-testdev", bus: "ISA", about: "registers for kvm-unit-tests", properties: &[] },
];

fn drivers() -> impl Iterator<Item = &'static Driver> {
    DRIVERS.iter().chain(ide::DRIVERS).chain(cards::DRIVERS).chain(virtio::DRIVERS).chain(virtio::PORTS)
}

fn has_property(driver: &str, property: &str) -> bool {
    drivers().any(|d| d.name == driver && d.properties.iter().any(|p| p.0 == property))
}

/// A default set by `-global`.
struct Global {
    text: String,
    driver: String,
    property: String,
    value: String,
}

/// Checks all `-device` and `-global` values.
///
/// # Errors
/// A device, property or number that does not exist.
pub fn parse(values: &[String], globals: &[String], warnings: &mut Vec<String>) -> Result<Devices, StartError> {
    let globals = globals.iter().map(|text| parse_global(text)).collect::<Result<Vec<_>, _>>()?;
    for global in &globals {
        if !has_property(&global.driver, &global.property) {
            warnings.push(format!("-global {}: no device here has this property; ignored", global.text));
        }
    }
    let mut devices = Devices { vga_memory: 16 << 20, ..Devices::default() };
    for global in globals.iter().filter(|g| g.driver == "VGA" && g.property == "vgamem_mb") {
        let mut v = KeyValues::parse("global", &format!("vgamem_mb={}", global.value), "");
        devices.vga_memory = video_memory(&mut v)?.unwrap_or(devices.vga_memory);
    }
    let mut bootindexes = BTreeSet::new();
    let mut use_bootindex = |v: &KeyValues, index: Option<u32>| match index {
        Some(index) if !bootindexes.insert(index) => {
            Err(v.error(format!("The bootindex {index} has already been used")))
        }
        _ => Ok(()),
    };
    for text in values {
        let mut v = KeyValues::parse("device", text, "driver");
        let name = v.take("driver")?.unwrap_or_default();
        let id = v.take("id")?;
        let global = |property: &str| {
            let hit = |g: &&Global| g.driver == name && g.property == property;
            globals.iter().rev().find(hit).map(|g| KeyValues::parse("global", &format!("{property}={}", g.value), ""))
        };
        let number = |v: &mut KeyValues, property: &str, max: u64, default: u64| -> Result<u64, StartError> {
            match (v.take_number(property, max)?, global(property)) {
                (Some(n), _) => Ok(n),
                (None, Some(mut g)) => Ok(g.take_number(property, max)?.unwrap_or(default)),
                (None, None) => Ok(default),
            }
        };
        match name.as_str() {
            "isa-debug-exit" => {
                let base = number(&mut v, "iobase", 0xffff, 0x501)? as u16;
                let size = number(&mut v, "iosize", 0x1_0000 - u64::from(base), 2)?;
                if size == 0 || size > 0xffff {
                    return Err(v.error("'iosize' must be from 1 to 0xffff"));
                }
                devices.debug_exits.push(DebugExit { base, size: size as u16 });
            }
            "isa-debugcon" => {
                let base = number(&mut v, "iobase", 0xffff, 0xe9)? as u16;
                if let Some(value) = v.take_number("readback", 0xff)?.filter(|n| *n != 0xe9) {
                    return Err(v.error(format!("'readback={value:#x}' is not implemented; the port reads as 0xe9")));
                }
                let chardev = v.take("chardev")?;
                if let Some(id) = &chardev {
                    devices.users.push((text.clone(), id.clone()));
                }
                devices.debugcons.push(Debugcon { base, chardev });
            }
            "VGA" if devices.vga => return Err(v.error("there can be only one VGA")),
            "VGA" => {
                devices.vga = true;
                devices.vga_memory = video_memory(&mut v)?.unwrap_or(devices.vga_memory);
                if let Some(place) = v.take("addr")?.filter(|place| !["2", "2.0", "0x2", "02.0"].contains(&&**place)) {
                    return Err(v.error(format!("'addr={place}' is not implemented; the VGA is at 02.0")));
                }
            }
            "sb16" if devices.sb16.is_some() => return Err(v.error("there can be only one sb16")),
            "sb16" => {
                let mut jumper = |property: &str, choices: &[u16], default: u16| -> Result<u16, StartError> {
                    let value = number(&mut v, property, 0xffff, default.into())? as u16;
                    if choices.contains(&value) {
                        return Ok(value);
                    }
                    let base = property == "iobase";
                    let show = |n: u16| if base { format!("{n:#x}") } else { n.to_string() };
                    let choices: Vec<String> = choices.iter().map(|n| show(*n)).collect();
                    Err(v.error(format!("'{property}={}': the card has {}", show(value), choices.join(", "))))
                };
                let card = Sb16Config {
                    base: jumper("iobase", &[0x220, 0x240, 0x260, 0x280], 0x220)?,
                    irq: jumper("irq", &IRQS.map(u16::from), 5)? as u8,
                    dma: jumper("dma", &[0, 1, 3], 1)? as u8,
                    dma16: jumper("dma16", &[5, 6, 7], 5)? as u8,
                };
                let version = number(&mut v, "version", 0xffff, 0x405)?;
                if version != 0x405 {
                    return Err(v.error(format!("'version={version:#x}': the card has DSP 4.05, which is 0x405")));
                }
                devices.sb16 = Some((card, v.take("audiodev")?));
                devices.sb16_text.clone_from(text);
            }
            "pc-testdev" if devices.testdev => return Err(v.error("there can be only one pc-testdev")),
            "pc-testdev" => devices.testdev = true,
            port if virtio::PORTS.iter().any(|driver| driver.name == port) => {
                let serials = devices.cards.iter_mut().filter_map(|card| card.virtio());
                let chardev = virtio::add_port(port, &mut v, serials)?;
                devices.users.extend(chardev.map(|id| (text.clone(), id)));
            }
            drive if ide::DRIVERS.iter().any(|driver| driver.name == drive) => {
                set_defaults(&mut v, drive, &globals);
                let drive = ide::parse(drive, id, text, &mut v)?;
                use_bootindex(&v, drive.bootindex)?;
                devices.ide.push(drive);
            }
            card if cards::DRIVERS.iter().chain(virtio::DRIVERS).any(|driver| driver.name == card) => {
                set_defaults(&mut v, card, &globals);
                let card = cards::parse(card, id, text, &mut v)?;
                use_bootindex(&v, card.bootindex)?;
                if card.nic().is_some_and(|nic| nic.netdev.is_none()) {
                    warnings.push(format!("-device {text}: there is no netdev at the other end of its cable"));
                }
                devices.cards.push(card);
            }
            _ => return Err(unknown(&v, &name)),
        }
        v.finish()?;
    }
    Ok(devices)
}

/// Gives the properties of `driver` the values of `globals` for where a device's own text gives none.
fn set_defaults(v: &mut KeyValues, driver: &str, globals: &[Global]) {
    let known = |global: &&Global| global.driver == driver && has_property(driver, &global.property);
    for global in globals.iter().rev().filter(known) {
        v.set_default(&global.property, &global.value);
    }
}

/// `vgamem_mb` in bytes: a power of two.
fn video_memory(v: &mut KeyValues) -> Result<Option<u32>, StartError> {
    match v.take_number("vgamem_mb", 256)? {
        Some(0) => Err(v.error("'vgamem_mb' must be from 1 to 256")),
        megabytes => Ok(megabytes.map(|n| (n as u32).next_power_of_two() << 20)),
    }
}

/// Whether there is a device of this name.
pub fn exists(name: &str) -> bool {
    drivers().any(|driver| driver.name == name)
}

fn unknown(v: &KeyValues, name: &str) -> StartError {
    let hint = match nearest(name, drivers().map(|d| d.name)) {
        Some(near) => format!("nearest is '{near}'"),
        None => "-device help lists what exists".into(),
    };
    v.error(format!("'{name}' is not a valid device model name here; {hint}"))
}

/// `driver.property=value` or `driver=D,property=P,value=V`.
fn parse_global(text: &str) -> Result<Global, StartError> {
    let mut v = KeyValues::parse("global", text, "");
    if let (Some(driver), Some(property), Some(value)) = (v.take("driver")?, v.take("property")?, v.take("value")?) {
        v.finish()?;
        return Ok(Global { text: text.into(), driver, property, value });
    }
    let halves = text.split_once('=').and_then(|(name, value)| Some((name.rsplit_once('.')?, value)));
    match halves {
        Some(((driver, property), value)) if !driver.is_empty() && !property.is_empty() => {
            Ok(Global { text: text.into(), driver: driver.into(), property: property.into(), value: value.into() })
        }
        _ => Err(StartError::value("global", text, "expected DRIVER.PROPERTY=VALUE")),
    }
}

/// What `-device help` or `-device DRIVER,help` prints.
///
/// # Errors
/// The driver of `-device DRIVER,help` does not exist.
pub fn help(value: &str) -> Result<String, StartError> {
    let mut v = KeyValues::parse("device", value, "driver");
    let name = v.take("driver")?.unwrap_or_default();
    if name == "help" || name == "?" {
        let mut text = String::new();
        for (heading, drivers) in [
            ("Storage devices", ide::DRIVERS),
            ("\nNetwork devices", cards::DRIVERS),
            ("\nVirtio devices", virtio::DRIVERS),
            ("\nPorts of virtio-serial-pci", virtio::PORTS),
            ("\nMisc devices", DRIVERS),
        ] {
            text += &format!("{heading}:\n");
            for driver in drivers {
                text += &format!("name \"{}\", bus {}, desc \"{}\"\n", driver.name, driver.bus, driver.about);
            }
        }
        return Ok(text);
    }
    let driver = drivers().find(|d| d.name == name).ok_or_else(|| unknown(&v, &name))?;
    let mut text = format!("{name} options:\n");
    for (property, what) in driver.properties {
        text += &format!("  {property}={what}\n");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(values: &[&str], globals: &[&str]) -> Result<Devices, String> {
        let own = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        parse(&own(values), &own(globals), &mut Vec::new()).map_err(|e| e.line())
    }

    #[test]
    fn testdev_is_there_once_and_has_no_properties() {
        assert!(devices(&["pc-testdev"], &[]).unwrap().testdev);
        assert!(devices(&["pc-testdev", "pc-testdev"], &[]).is_err());
        assert!(devices(&["pc-testdev,iobase=1"], &[]).is_err());
    }

    #[test]
    fn cards_keep_their_order_and_take_defaults_from_globals() {
        let globals = ["ne2k_isa.irq=5", "ne2k_isa.irq=7", "ne2k_isa.nothing=1"];
        let cards = devices(&["ne2k_pci,id=a,netdev=n", "ne2k_isa", "ne2k_isa,irq=3"], &globals).unwrap().cards;
        let irqs: Vec<Option<u8>> = cards
            .iter()
            .map(|card| match card.model {
                cards::Model::Ne2kIsa { irq, .. } => Some(irq),
                cards::Model::Ne2kPci(_) | cards::Model::E1000(_) | cards::Model::Virtio(_) => None,
            })
            .collect();
        assert_eq!(irqs, [None, Some(7), Some(3)]);
        assert_eq!(cards[0].id.as_deref(), Some("a"));
        assert!(help("help").unwrap().contains("name \"ne2k_pci\", bus PCI, desc \"NE2000"));
        assert!(help("ne2k_isa,help").unwrap().contains("iobase=<uint32>"));
    }

    #[test]
    fn ide_devices_keep_their_order_are_listed_and_take_defaults_from_globals() {
        let globals = ["ide-hd.serial=s", "ide-cd.bootindex=1"];
        let ide =
            devices(&["ide-hd,drive=a,id=x", "ide-cd", "ide-hd,drive=b,serial=t,bootindex=0"], &globals).unwrap().ide;
        let seen = |drive: &IdeSpec| (drive.names.serial.clone(), drive.bootindex);
        assert_eq!(
            ide.iter().map(seen).collect::<Vec<_>>(),
            [(Some("s".into()), None), (None, Some(1)), (Some("t".into()), Some(0))]
        );
        let list = help("help").unwrap();
        let storage =
            "Storage devices:\nname \"ide-cd\", bus IDE, desc \"virtual IDE CD-ROM\"\nname \"ide-hd\", bus IDE,";
        assert!(list.starts_with(storage), "{list}");
        for name in ["ide-cd", "ide-hd", "e1000", "ne2k_pci", "virtio-net-pci", "virtio-blk-pci"] {
            assert!(help(&format!("{name},help")).unwrap().contains("  bootindex=<int32>"), "{name}");
        }
    }

    #[test]
    fn no_two_devices_have_one_boot_index() {
        let two = |a: &str, b: &str| devices(&[a, b], &[]).map(|_| ());
        let line = two("e1000,bootindex=1", "virtio-blk-pci,drive=d,bootindex=1").unwrap_err();
        assert_eq!(line, "-device virtio-blk-pci,drive=d,bootindex=1: The bootindex 1 has already been used");
        assert_eq!(two("e1000,bootindex=-1", "ide-cd,bootindex=-1"), Ok(()));
        assert_eq!(two("e1000,bootindex=0", "ide-cd,bootindex=1"), Ok(()));
    }

    #[test]
    fn video_memory_is_a_power_of_two_by_device_or_global() {
        assert_eq!(devices(&[], &[]).unwrap().vga_memory, 16 << 20);
        let given = devices(&["VGA,vgamem_mb=24"], &["VGA.vgamem_mb=8"]).unwrap();
        assert_eq!((given.vga, given.vga_memory), (true, 32 << 20));
        assert_eq!(devices(&[], &["VGA.vgamem_mb=8"]).unwrap().vga_memory, 8 << 20);
        for wrong in ["VGA,vgamem_mb=0", "VGA,vgamem_mb=257", "VGA,addr=3"] {
            assert!(devices(&[wrong], &[]).is_err(), "{wrong}");
        }
        assert!(devices(&["VGA", "VGA"], &[]).is_err());
    }

    #[test]
    fn sound_card_has_the_jumpers_of_the_real_one() {
        let (card, audiodev) = devices(&["sb16"], &[]).unwrap().sb16.unwrap();
        assert_eq!((card, audiodev), (Sb16Config::default(), None));
        let given =
            devices(&["sb16,audiodev=a,iobase=0x240,irq=7,dma=3,dma16=6,version=0x405"], &["sb16.irq=10"]).unwrap();
        let card = Sb16Config { base: 0x240, irq: 7, dma: 3, dma16: 6 };
        assert_eq!(given.sb16, Some((card, Some("a".into()))));
        assert!(given.sound_card(&[]).unwrap_err().line().ends_with("no -audiodev has the id 'a'"));
        for wrong in
            ["sb16,irq=3", "sb16,iobase=0x230", "sb16,dma=2", "sb16,dma16=4", "sb16,version=0x200", "sb16,foo=1"]
        {
            assert!(devices(&[wrong], &[]).is_err(), "{wrong}");
        }
        assert!(devices(&["sb16", "sb16"], &[]).is_err());
        let error = devices(&["sb16,irq=3"], &[]).unwrap_err();
        assert_eq!(error, "-device sb16,irq=3: 'irq=3': the card has 2, 5, 7, 10");
    }

    #[test]
    fn debug_exit_has_qemus_defaults_and_takes_properties() {
        assert_eq!(devices(&["isa-debug-exit"], &[]).unwrap().debug_exits, [DebugExit { base: 0x501, size: 2 }]);
        let given = devices(&["isa-debug-exit,iobase=0xf4,iosize=0x04,id=x"], &[]).unwrap();
        assert_eq!(given.debug_exits, [DebugExit { base: 0xf4, size: 4 }]);
    }

    #[test]
    fn global_changes_a_default_but_not_a_given_property() {
        let globals = ["isa-debug-exit.iobase=0xf4"];
        assert_eq!(devices(&["isa-debug-exit"], &globals).unwrap().debug_exits[0].base, 0xf4);
        assert_eq!(devices(&["isa-debug-exit,iobase=0x10"], &globals).unwrap().debug_exits[0].base, 0x10);
        assert!(devices(&[], &["foo"]).is_err());
    }

    #[test]
    fn wrong_devices_and_properties_are_errors() {
        for text in ["foo", "isa-debug-exit,foo=1", "isa-debug-exit,iobase=0x10000", "isa-debug-exit,iosize=0", ""] {
            assert!(devices(&[text], &[]).unwrap_err().starts_with("-device "), "{text}");
        }
        assert!(devices(&["isa-debug-exi"], &[]).unwrap_err().contains("nearest is 'isa-debug-exit'"));
    }
}
