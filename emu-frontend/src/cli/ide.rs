//! Values of `-device` that put a drive onto an IDE channel: ide-hd and ide-cd.

use super::boot_order::{BOOTINDEX, take_bootindex};
use super::devices::{Driver, Property};
use super::drive::MediaKind;
use super::error::StartError;
use super::value::KeyValues;
use super::virtio::on_off_auto;
use emu_devices::storage::ide::Names;

/// A device on an IDE channel, its drive still by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdeSpec {
    /// `id=`.
    pub id: Option<String>,
    /// What it takes.
    pub media: MediaKind,
    /// The id of the drive; a CD-ROM drive without one is empty.
    pub drive: Option<String>,
    /// The channel, if it asks for one.
    pub bus: Option<usize>,
    /// Its place on the channel, if it asks for one.
    pub unit: Option<usize>,
    /// What it calls itself.
    pub names: Names,
    /// Whether writes may wait for a flush, if that is not the drive's to say.
    pub write_cache: Option<bool>,
    /// Its place in the boot order.
    pub bootindex: Option<u32>,
    /// For messages: the value of `-device`.
    pub text: String,
}

impl IdeSpec {
    /// An error about this device that names its option.
    pub fn error(&self, problem: impl Into<String>) -> StartError {
        StartError::value("device", self.text.as_str(), problem)
    }
}

const PROPERTIES: &[Property] = &[
    ("drive", "<str>     - ID of a drive to use as a backend; without one, an ide-cd is empty"),
    ("bus", "<str>     - ide.0 or ide.1 (default: ide.1 while it has room)"),
    ("unit", "<uint32>  - 0 or 1 (default: the first that is free)"),
    ("serial", "<str>     - up to 20 characters"),
    ("model", "<str>     - up to 40 characters"),
    ("write-cache", "<OnOffAuto> - on/off/auto (default: auto, which is as the drive's cache= says)"),
    BOOTINDEX,
];

/// The rows of `-device help`.
pub const DRIVERS: &[Driver] = &[
    Driver { name: "ide-cd", bus: "IDE", about: "virtual IDE CD-ROM", properties: PROPERTIES },
    Driver { name: "ide-hd", bus: "IDE", about: "virtual IDE disk", properties: PROPERTIES },
];

/// Checks the properties of device `name`, one of [`DRIVERS`]; its `id` has been taken.
///
/// # Errors
/// A property that is wrong.
pub fn parse(name: &str, id: Option<String>, text: &str, v: &mut KeyValues) -> Result<IdeSpec, StartError> {
    let media = if name == "ide-cd" { MediaKind::Cdrom } else { MediaKind::Disk };
    let drive = v.take("drive")?.filter(|id| !id.is_empty());
    if drive.is_none() && media == MediaKind::Disk {
        return Err(v.error("'drive' is needed: the id of a -drive if=none"));
    }
    let bus = match v.take("bus")?.as_deref() {
        None => None,
        Some("ide.0") => Some(0),
        Some("ide.1") => Some(1),
        Some(other) => return Err(v.error(format!("there is no bus '{other}' for it; a PC has 'ide.0' and 'ide.1'"))),
    };
    Ok(IdeSpec {
        id,
        media,
        drive,
        bus,
        unit: v.take_number("unit", 1)?.map(|unit| unit as usize),
        names: Names { serial: v.take("serial")?, model: v.take("model")? },
        write_cache: on_off_auto(v, "write-cache")?,
        bootindex: take_bootindex(v)?,
        text: text.into(),
    })
}
