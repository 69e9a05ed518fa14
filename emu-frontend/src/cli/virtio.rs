//! Values of `-device` that plug a virtio device into a PCI slot, or a port into a virtio-serial device.

use super::boot_order::BOOTINDEX;
use super::cards::{ADDR, MAC, NETDEV, NicSpec, ROMFILE, nic};
use super::devices::{Driver, Property};
use super::error::StartError;
use super::value::KeyValues;
use emu_devices::pci::msix::MOST_VECTORS;
use emu_devices::virtio::block::BlockConfig;
use emu_devices::virtio::console::MOST_PORTS;
use emu_devices::virtio::net::NetOptions;
use emu_devices::virtio::pci::VirtioOptions;
use emu_devices::virtio::rng::Quota;
use std::path::PathBuf;

/// A virtio device, its back end still by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtioSpec {
    /// Its transport.
    pub options: VirtioOptions,
    /// What it is.
    pub kind: VirtioKind,
}

/// What virtio devices there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VirtioKind {
    /// virtio-blk-pci.
    Block {
        /// The id of the drive.
        drive: String,
        /// How it is set up.
        config: BlockConfig,
    },
    /// virtio-net-pci.
    Net {
        /// Cable.
        nic: NicSpec,
        /// What it offers.
        options: NetOptions,
    },
    /// virtio-rng-pci.
    Rng {
        /// The id of the `-object`; a source of its own if not given.
        source: Option<String>,
        /// How much may flow.
        quota: Option<Quota>,
    },
    /// virtio-serial-pci.
    Serial {
        /// Ports that fit.
        most: usize,
        /// Those that are there.
        ports: Vec<PortSpec>,
    },
    /// virtio-balloon-pci.
    Balloon {
        /// The guest may take pages out when it runs out of memory.
        deflate_on_oom: bool,
    },
}

/// A port of a virtio-serial device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// Its number.
    pub number: u8,
    /// virtconsole, and not virtserialport.
    pub console: bool,
    /// What the guest calls it.
    pub name: Option<String>,
    /// The id of its character device.
    pub chardev: Option<String>,
}

const DISABLE_LEGACY: Property = ("disable-legacy", "<OnOffAuto> - on/off/auto (default: auto, which is off)");
const DISABLE_MODERN: Property = ("disable-modern", "<bool>    -  (default: off)");
const VECTORS: Property = ("vectors", "<uint32>  - MSI-X vectors, 0 for none (default: one a queue and one more)");
const EVENT_IDX: Property = ("event_idx", "<bool>    - on/off (default: on)");
const INDIRECT: Property = ("indirect_desc", "<bool>    - on/off (default: on)");

const BLOCK: &[Property] = &[
    ("drive", "<str>     - ID of a drive to use as a backend"),
    ("serial", "<str>     - up to 20 characters"),
    ("logical_block_size", "<size>    - a power of two from 512 (default: 512)"),
    ("physical_block_size", "<size>    - a power of two from 512 (default: 512)"),
    ("queue-size", "<uint16>  - a power of two from 4 to 1024 (default: 256)"),
    ("write-cache", "<OnOffAuto> - on/off/auto (default: auto, which is on)"),
    ("config-wce", "<bool>    - on/off (default: on)"),
    ("discard", "<bool>    - on/off (default: on)"),
    ("write-zeroes", "<bool>    - on/off (default: on)"),
    BOOTINDEX,
    ADDR,
    DISABLE_LEGACY,
    DISABLE_MODERN,
    VECTORS,
    EVENT_IDX,
    INDIRECT,
];
const NET: &[Property] = &[
    NETDEV,
    MAC,
    ("csum", "<bool>    - on/off (default: on)"),
    ("host_tso4", "<bool>    - on/off, with host_tso6 (default: on)"),
    ("mrg_rxbuf", "<bool>    - on/off (default: on)"),
    ("ctrl_vq", "<bool>    - on/off (default: on)"),
    ("rx_queue_size", "<uint16>  - a power of two from 64 to 1024 (default: 256)"),
    ("tx_queue_size", "<uint16>  - a power of two from 64 to 1024 (default: 256)"),
    BOOTINDEX,
    ADDR,
    ROMFILE,
    DISABLE_LEGACY,
    DISABLE_MODERN,
    VECTORS,
    EVENT_IDX,
    INDIRECT,
];
const RNG: &[Property] = &[
    ("rng", "<str>     - ID of an rng-random or rng-builtin object (default: one of its own)"),
    ("max-bytes", "<uint64>  - bytes in each period (default: any number)"),
    ("period", "<uint32>  - milliseconds (default: 65536)"),
    ADDR,
    DISABLE_LEGACY,
    DISABLE_MODERN,
    VECTORS,
    EVENT_IDX,
    INDIRECT,
];
const SERIAL: &[Property] = &[
    ("max_ports", "<uint32>  - 1 to 31 (default: 31)"),
    ADDR,
    DISABLE_LEGACY,
    DISABLE_MODERN,
    VECTORS,
    EVENT_IDX,
    INDIRECT,
];
const BALLOON: &[Property] = &[
    ("deflate-on-oom", "<bool>    - on/off (default: off)"),
    ADDR,
    DISABLE_LEGACY,
    DISABLE_MODERN,
    VECTORS,
    EVENT_IDX,
    INDIRECT,
];
const PORT: &[Property] = &[
    ("chardev", "<str>     - ID of a chardev to use as a backend"),
    ("nr", "<uint32>  - number of the port (default: the first that is free)"),
    ("name", "<str>     - what the guest calls it"),
    ("bus", "<str>     - ID of a virtio-serial-pci, and .0 (default: the last one)"),
];

const fn row(name: &'static str, about: &'static str, properties: &'static [Property]) -> Driver {
    Driver { name, bus: "PCI", about, properties }
}

/// The rows of `-device help`. The first word behind `virtio-` tells the device.
pub const DRIVERS: &[Driver] = &[
    row("virtio-blk-pci", "virtio disk", BLOCK),
    row("virtio-blk", "virtio-blk-pci by another name", BLOCK),
    row("virtio-net-pci", "virtio network card", NET),
    row("virtio-net", "virtio-net-pci by another name", NET),
    row("virtio-rng-pci", "virtio entropy", RNG),
    row("virtio-rng", "virtio-rng-pci by another name", RNG),
    row("virtio-serial-pci", "virtio consoles and ports", SERIAL),
    row("virtio-serial", "virtio-serial-pci by another name", SERIAL),
    row("virtio-balloon-pci", "virtio memory balloon", BALLOON),
    row("virtio-balloon", "virtio-balloon-pci by another name", BALLOON),
];

/// The rows of `-device help` for ports.
pub const PORTS: &[Driver] = &[
    Driver { name: "virtconsole", bus: "virtio-serial-bus", about: "console of a virtio-serial-pci", properties: PORT },
    Driver { name: "virtserialport", bus: "virtio-serial-bus", about: "port of a virtio-serial-pci", properties: PORT },
];

/// Checks the properties of device `name`, one of [`DRIVERS`], that no other card has.
///
/// # Errors
/// A property that is wrong.
pub fn parse(name: &str, v: &mut KeyValues) -> Result<VirtioSpec, StartError> {
    let kind = match name.trim_start_matches("virtio-").split('-').next() {
        Some("blk") => block(v)?,
        Some("net") => net(v)?,
        Some("rng") => rng(v)?,
        Some("serial") => {
            let most = v.take_number("max_ports", MOST_PORTS as u64)?.unwrap_or(MOST_PORTS as u64) as usize;
            if most == 0 {
                return Err(v.error("'max_ports' must be from 1 to 31"));
            }
            VirtioKind::Serial { most, ports: Vec::new() }
        }
        _ => VirtioKind::Balloon { deflate_on_oom: v.take_bool("deflate-on-oom")?.unwrap_or(false) },
    };
    let disable_legacy = on_off_auto(v, "disable-legacy")?.unwrap_or(false);
    let disable_modern = v.take_bool("disable-modern")?.unwrap_or(false);
    if disable_legacy && disable_modern {
        return Err(v.error("the device cannot work as neither modern nor legacy"));
    }
    let vectors = v.take_number("vectors", MOST_VECTORS.into())?.map(|n| n as u16);
    let event_idx = v.take_bool("event_idx")?.unwrap_or(true);
    let indirect_desc = v.take_bool("indirect_desc")?.unwrap_or(true);
    Ok(VirtioSpec {
        options: VirtioOptions { disable_legacy, disable_modern, vectors, event_idx, indirect_desc },
        kind,
    })
}

/// `on`, `off`, or `None` for `auto` or nothing.
///
/// # Errors
/// Another word.
pub fn on_off_auto(v: &mut KeyValues, key: &str) -> Result<Option<bool>, StartError> {
    match v.take(key)?.as_deref() {
        None | Some("auto") => Ok(None),
        Some(text) => match super::value::parse_bool(text) {
            Some(on) => Ok(Some(on)),
            None => Err(v.error(format!("'{key}={text}' is not a switch: expected on, off or auto"))),
        },
    }
}

/// A power of two from `least` to `most`.
fn power(v: &mut KeyValues, key: &str, least: u64, most: u64) -> Result<Option<u64>, StartError> {
    match v.take_number(key, most)? {
        Some(n) if n < least || !n.is_power_of_two() => {
            Err(v.error(format!("'{key}={n}' is not a power of two from {least} to {most}")))
        }
        n => Ok(n),
    }
}

fn block(v: &mut KeyValues) -> Result<VirtioKind, StartError> {
    let Some(drive) = v.take("drive")?.filter(|id| !id.is_empty()) else {
        return Err(v.error("'drive' is needed: the id of a -drive if=none"));
    };
    let standard = BlockConfig::default();
    let logical = power(v, "logical_block_size", 512, 2 << 20)?.unwrap_or(512) as u32;
    let physical = power(v, "physical_block_size", 512, 2 << 20)?.unwrap_or(logical.into()) as u32;
    if physical < logical {
        return Err(v.error("'physical_block_size' is less than 'logical_block_size'"));
    }
    let config = BlockConfig {
        serial: v.take("serial")?.unwrap_or_default(),
        queue_size: power(v, "queue-size", 4, 1024)?.map_or(standard.queue_size, |n| n as u16),
        logical_block: logical,
        physical_block: physical,
        write_cache: on_off_auto(v, "write-cache")?.unwrap_or(standard.write_cache),
        config_wce: v.take_bool("config-wce")?.unwrap_or(standard.config_wce),
        discard: v.take_bool("discard")?.unwrap_or(standard.discard),
        write_zeroes: v.take_bool("write-zeroes")?.unwrap_or(standard.write_zeroes),
    };
    Ok(VirtioKind::Block { drive, config })
}

fn net(v: &mut KeyValues) -> Result<VirtioKind, StartError> {
    let standard = NetOptions::default();
    let [receive, transmit] = standard.queue_sizes;
    let options = NetOptions {
        queue_sizes: [
            power(v, "rx_queue_size", 64, 1024)?.map_or(receive, |n| n as u16),
            power(v, "tx_queue_size", 64, 1024)?.map_or(transmit, |n| n as u16),
        ],
        csum: v.take_bool("csum")?.unwrap_or(standard.csum),
        tso: v.take_bool("host_tso4")?.unwrap_or(standard.tso),
        mrg_rxbuf: v.take_bool("mrg_rxbuf")?.unwrap_or(standard.mrg_rxbuf),
        ctrl_vq: v.take_bool("ctrl_vq")?.unwrap_or(standard.ctrl_vq),
    };
    let rom = v.take("romfile")?.filter(|file| !file.is_empty()).map(PathBuf::from);
    Ok(VirtioKind::Net { nic: NicSpec { rom, ..nic(v)? }, options })
}

fn rng(v: &mut KeyValues) -> Result<VirtioKind, StartError> {
    let bytes = v.take_number("max-bytes", i64::MAX as u64)?;
    let period = v.take_number("period", u32::MAX.into())?.unwrap_or(1 << 16);
    if bytes == Some(0) || period == 0 {
        return Err(v.error("'max-bytes' and 'period' must be at least 1"));
    }
    let quota = bytes.filter(|n| *n < i64::MAX as u64).map(|bytes| Quota { bytes, period: period * 1_000_000 });
    Ok(VirtioKind::Rng { source: v.take("rng")?, quota })
}

/// Adds port `name`, one of [`PORTS`], to one of `devices`, each with its id; the id of its character device.
///
/// # Errors
/// A property that is wrong, or no room for it.
pub fn add_port<'a>(
    name: &str,
    v: &mut KeyValues,
    devices: impl Iterator<Item = (Option<&'a str>, &'a mut VirtioSpec)>,
) -> Result<Option<String>, StartError> {
    let bus = v.take("bus")?;
    let console = name == "virtconsole";
    let mut last = None;
    for (id, spec) in devices {
        if let VirtioKind::Serial { most, ports } = &mut spec.kind {
            let wanted = bus.as_deref().is_none_or(|bus| id.is_some_and(|id| bus.strip_suffix(".0") == Some(id)));
            last = if wanted { Some((*most, ports)) } else { last };
        }
    }
    let Some((most, ports)) = last else {
        return Err(v.error(match bus {
            Some(bus) => format!("there is no bus '{bus}'; a virtio-serial-pci with id=ID makes a bus 'ID.0'"),
            None => "there is no virtio-serial-pci before it".into(),
        }));
    };
    let free = |number: &u8| ports.iter().all(|port| port.number != *number);
    let number = match v.take_number("nr", most as u64 - 1)?.map(|n| n as u8) {
        Some(0) if !console => return Err(v.error("port number 0 is reserved for a virtconsole")),
        Some(number) if !free(&number) => return Err(v.error(format!("port number {number} is taken"))),
        Some(number) => number,
        None => match (u8::from(!console)..most as u8).find(free) {
            Some(number) => number,
            None => return Err(v.error(format!("there is no room for it: the device has {most} ports"))),
        },
    };
    let chardev = v.take("chardev")?;
    ports.push(PortSpec { number, console, name: v.take("name")?, chardev: chardev.clone() });
    Ok(chardev)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(text: &str) -> Result<VirtioSpec, String> {
        let mut v = KeyValues::parse("device", text, "driver");
        let check = |v: &mut KeyValues| {
            let name = v.take("driver")?.unwrap_or_default();
            let spec = parse(&name, v)?;
            v.finish()?;
            Ok(spec)
        };
        check(&mut v).map_err(|e: StartError| e.line())
    }

    #[test]
    fn devices_have_qemus_defaults_and_properties() {
        let VirtioSpec { options, kind } = device("virtio-blk-pci,drive=d").unwrap();
        assert_eq!(options, VirtioOptions::default());
        assert_eq!(kind, VirtioKind::Block { drive: "d".into(), config: BlockConfig::default() });
        let given = device("virtio-blk,drive=d,serial=s,logical_block_size=4096,queue-size=64,write-cache=off,disable-legacy=on,vectors=0").unwrap();
        assert_eq!((given.options.disable_legacy, given.options.vectors), (true, Some(0)));
        let VirtioKind::Block { config, .. } = given.kind else { panic!("not a disk") };
        assert_eq!((config.logical_block, config.physical_block, config.queue_size), (4096, 4096, 64));
        assert!(!config.write_cache && config.serial == "s");
        let rng = device("virtio-rng-pci,rng=r,max-bytes=1024,period=1000").unwrap();
        let quota = Some(Quota { bytes: 1024, period: 1_000_000_000 });
        assert_eq!(rng.kind, VirtioKind::Rng { source: Some("r".into()), quota });
        assert!(matches!(device("virtio-net,netdev=n,mrg_rxbuf=off").unwrap().kind, VirtioKind::Net { .. }));
        assert_eq!(device("virtio-balloon").unwrap().kind, VirtioKind::Balloon { deflate_on_oom: false });
    }

    #[test]
    fn wrong_properties_are_refused_in_one_line() {
        for wrong in [
            "virtio-blk-pci",
            "virtio-blk-pci,drive=d,queue-size=100",
            "virtio-blk-pci,drive=d,logical_block_size=4096,physical_block_size=512",
            "virtio-blk-pci,drive=d,disable-legacy=on,disable-modern=on",
            "virtio-blk-pci,drive=d,disable-legacy=maybe",
            "virtio-rng-pci,max-bytes=0",
            "virtio-serial-pci,max_ports=0",
            "virtio-serial-pci,max_ports=32",
            "virtio-net-pci,vectors=65",
            "virtio-balloon-pci,drive=d",
        ] {
            let line = device(wrong).unwrap_err();
            assert!(line.starts_with(&format!("-device {wrong}: ")), "{line}");
        }
    }

    #[test]
    fn ports_take_numbers_on_the_device_that_they_name() {
        let mut devices = [device("virtio-serial-pci").unwrap(), device("virtio-serial-pci,max_ports=2").unwrap()];
        let mut add = |text: &str| {
            let mut v = KeyValues::parse("device", text, "driver");
            let name = v.take("driver").unwrap().unwrap();
            let [first, second] = &mut devices;
            add_port(&name, &mut v, [(Some("a"), first), (None, second)].into_iter()).map_err(|e| e.line())
        };
        add("virtserialport,name=org.port,chardev=c").unwrap();
        add("virtconsole").unwrap();
        add("virtserialport,bus=a.0,nr=5").unwrap();
        for (wrong, part) in [
            ("virtserialport", "no room"),
            ("virtserialport,bus=a.0,nr=5", "taken"),
            ("virtserialport,bus=a.0,nr=0", "reserved"),
            ("virtserialport,bus=b.0", "no bus 'b.0'"),
        ] {
            assert!(add(wrong).unwrap_err().contains(part), "{wrong}");
        }
        let VirtioKind::Serial { ports, .. } = &devices[1].kind else { panic!("not ports") };
        assert_eq!(ports.iter().map(|p| (p.number, p.console)).collect::<Vec<_>>(), [(1, false), (0, true)]);
    }
}
