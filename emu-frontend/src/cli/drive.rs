//! Drives as `-drive`, `-fda`, `-fdb`, `-hda` to `-hdd` and `-cdrom` name them.
//!
//! What they say about images is in [`block`]; the devices that take a drive of `if=none` are in [`super::ide`] and [`super::virtio`].
//! Deliberately absent, so far: interfaces other than IDE, floppy and virtio.

use super::block::{self, BlockSpec};
use super::error::StartError;
use super::ide::IdeSpec;
use super::objects;
use super::options::Options;
use super::value::KeyValues;
use emu_devices::storage::ide::Names;
use std::path::PathBuf;

/// IDE drives of a PC.
pub const IDE_DRIVES: usize = 4;

/// Diskette drives of a PC.
pub const FLOPPY_DRIVES: usize = 2;

const READ_ONLY_DISK: &str = "an IDE hard disk cannot be read-only; snapshot=on leaves the file alone";

/// What a drive takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaKind {
    /// A hard disk.
    Disk,
    /// A CD-ROM.
    Cdrom,
    /// A diskette.
    Floppy,
}

/// One drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriveSpec {
    /// Its name in the monitor.
    pub name: String,
    /// What it takes.
    pub media: MediaKind,
    /// What is in it.
    pub file: Option<PathBuf>,
    /// How that is opened and used.
    pub block: BlockSpec,
    /// What it calls itself, if it is on an IDE channel.
    pub names: Names,
    /// Its place in the boot order, if it is on an IDE channel.
    pub bootindex: Option<u32>,
    option: String,
    text: String,
}

impl DriveSpec {
    /// An error about this drive that names its option.
    pub fn error(&self, problem: impl Into<String>) -> StartError {
        StartError::value(&self.option, self.text.as_str(), problem)
    }

    /// A drive that has no name yet.
    fn new(media: MediaKind, file: Option<PathBuf>, block: BlockSpec, option: &str, text: String) -> DriveSpec {
        let (name, names) = (String::new(), Names::default());
        DriveSpec { name, media, file, block, names, bootindex: None, option: option.into(), text }
    }

    /// A CD-ROM drive without a CD, that an option asks for.
    fn empty_cdrom(name: String, option: &str, text: &str) -> DriveSpec {
        DriveSpec { name, ..DriveSpec::new(MediaKind::Cdrom, None, plain_block(true, false), option, text.into()) }
    }

    /// Why no other drive can be where this one is.
    fn occupies(&self, bus: usize, unit: usize) -> String {
        format!("drive with bus={bus}, unit={unit} exists: -{} {}", self.option, self.text)
    }
}

/// The drives of a PC, each in its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drives {
    /// On the IDE channels: 0 and 1 on the first, 2 and 3 on the second.
    pub ide: [Option<DriveSpec>; IDE_DRIVES],
    /// On the diskette controller.
    pub floppies: [Option<DriveSpec>; FLOPPY_DRIVES],
    /// Each a virtio-blk-pci of its own.
    pub virtio: Vec<DriveSpec>,
    /// For the `-device` that names them.
    pub unplaced: Vec<DriveSpec>,
}

impl Drives {
    /// The places that take drives like `media`.
    fn places(&mut self, media: MediaKind) -> &mut [Option<DriveSpec>] {
        if media == MediaKind::Floppy { &mut self.floppies } else { &mut self.ide }
    }

    fn all(&self) -> impl Iterator<Item = &DriveSpec> {
        self.ide.iter().chain(&self.floppies).flatten().chain(&self.virtio).chain(&self.unplaced)
    }

    /// Whether there is a drive with this name.
    fn has(&self, name: &str) -> bool {
        self.all().any(|drive| drive.name == name)
    }

    /// Why a device cannot have the drive called `name`: it is not among those without a place.
    pub fn refusal(&self, name: &str) -> String {
        match self.has(name) {
            true => format!("the drive '{name}' is in use; it needs to be if=none and no other device's"),
            false => format!("no -drive has the id '{name}'"),
        }
    }

    /// An error about `drive` if there is one with its name.
    fn refuse_twice(&self, drive: &DriveSpec) -> Result<(), StartError> {
        match self.all().find(|other| other.name == drive.name) {
            Some(other) => {
                Err(drive.error(format!("duplicate drive id '{}': -{} {}", drive.name, other.option, other.text)))
            }
            None => Ok(()),
        }
    }

    /// Puts the drive of an ide-hd or ide-cd into its place.
    fn plug(&mut self, device: &IdeSpec) -> Result<(), StartError> {
        let place = self.ide_place(device)?;
        let mut drive = match &device.drive {
            Some(name) => {
                let found = self.unplaced.iter().position(|drive| drive.name == *name);
                self.unplaced.remove(found.ok_or_else(|| device.error(self.refusal(name)))?)
            }
            None => {
                let name = device.id.clone().unwrap_or_else(|| ide_name(device.media, place));
                let empty = DriveSpec::empty_cdrom(name, "device", &device.text);
                self.refuse_twice(&empty)?;
                empty
            }
        };
        let image = &mut drive.block.image;
        match device.media {
            MediaKind::Cdrom => (image.open.read_only, image.snapshot) = (true, false),
            _ if drive.file.is_none() => return Err(device.error(format!("the drive '{}' has no medium", drive.name))),
            _ if image.open.read_only => return Err(device.error(READ_ONLY_DISK)),
            _ => {}
        }
        if let Some(on) = device.write_cache {
            image.open.cache.writethrough = !on;
        }
        let (media, names, bootindex) = (device.media, device.names.clone(), device.bootindex);
        self.ide[place] = Some(DriveSpec { media, names, bootindex, ..drive });
        Ok(())
    }

    /// Where `device` goes unless it asks for a place: as in QEMU, to the first that is free on the second channel. Where QEMU refuses more, there
    /// is the first channel, too.
    fn ide_place(&self, device: &IdeSpec) -> Result<usize, StartError> {
        let has_room = |bus: &usize| self.ide[2 * bus..][..2].iter().any(Option::is_none);
        let bus = device.bus.or_else(|| (0..IDE_DRIVES / 2).rev().find(has_room));
        let bus = bus.ok_or_else(|| device.error(format!("a PC has {IDE_DRIVES} IDE drives")))?;
        let unit = device.unit.unwrap_or_else(|| usize::from(self.ide[2 * bus].is_some()));
        match &self.ide[2 * bus + unit] {
            Some(there) => Err(device.error(there.occupies(bus, unit))),
            None => Ok(2 * bus + unit),
        }
    }
}

/// QEMU's name of a drive in place `place`.
fn ide_name(media: MediaKind, place: usize) -> String {
    let kind = if media == MediaKind::Cdrom { "cd" } else { "hd" };
    format!("ide{}-{kind}{}", place / 2, place % 2)
}

/// What a drive is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interface {
    Ide,
    Floppy,
    Virtio,
    /// A `-device` says.
    None,
}

impl Interface {
    /// How many drives and buses it has.
    fn places(self) -> (u64, u64) {
        match self {
            Interface::Ide => (IDE_DRIVES as u64, 2),
            Interface::Floppy => (FLOPPY_DRIVES as u64, 1),
            // As many as there are slots on the bus.
            Interface::Virtio | Interface::None => (32, 32),
        }
    }
}

/// A drive that may not have its place yet.
struct Asked {
    spec: DriveSpec,
    interface: Interface,
    id: Option<String>,
    unit: Option<usize>,
}

/// The drives that the options ask for, `devices` among them, each in its place.
///
/// # Errors
/// A wrong value, or two drives in one place.
pub fn parse(o: &Options, devices: &[IdeSpec], warnings: &mut Vec<String>) -> Result<Drives, StartError> {
    let mut asked = Vec::new();
    let disks = [("hda", &o.hda), ("hdb", &o.hdb), ("hdc", &o.hdc), ("hdd", &o.hdd)];
    for (unit, (option, file)) in disks.into_iter().enumerate() {
        asked.extend(file.as_ref().map(|file| Asked::plain(option, file, MediaKind::Disk, unit, o.snapshot)));
    }
    asked.extend(o.cdrom.as_ref().map(|file| Asked::plain("cdrom", file, MediaKind::Cdrom, 2, o.snapshot)));
    for (unit, (option, file)) in [("fda", &o.fda), ("fdb", &o.fdb)].into_iter().enumerate() {
        asked.extend(file.as_ref().map(|file| Asked::plain(option, file, MediaKind::Floppy, unit, o.snapshot)));
    }
    for text in &o.drive {
        let mut drive = Asked::parse(text, o.snapshot, warnings)?;
        if let Some(id) = &drive.spec.block.secret {
            let secret = objects::find_secret(&o.object, id)?;
            let secret = secret.ok_or_else(|| drive.spec.error(format!("No secret with id '{id}'")))?;
            drive.spec.block.image.open.secret = Some(secret.data);
        }
        asked.push(drive);
    }
    let mut drives = Drives::default();
    let (boxed, others): (Vec<_>, Vec<_>) =
        asked.into_iter().partition(|drive| matches!(drive.interface, Interface::Ide | Interface::Floppy));
    let asked = boxed;
    // Drives without a place go where the others leave room.
    let (placed, free): (Vec<_>, Vec<_>) = asked.into_iter().partition(|drive| drive.unit.is_some());
    for drive in placed.into_iter().chain(free) {
        let floppy = drive.spec.media == MediaKind::Floppy;
        let places = drives.places(drive.spec.media);
        let Some(unit) = drive.unit.or_else(|| places.iter().position(Option::is_none)) else {
            let kind = if floppy { "diskette" } else { "IDE" };
            return Err(drive.spec.error(format!("a PC has {} {kind} drives", places.len())));
        };
        if let Some(there) = &places[unit] {
            let (bus, unit) = if floppy { (0, unit) } else { (unit / 2, unit % 2) };
            return Err(drive.spec.error(there.occupies(bus, unit)));
        }
        let name = drive.id.unwrap_or_else(|| match drive.spec.media {
            MediaKind::Floppy => format!("floppy{unit}"),
            media => ide_name(media, unit),
        });
        let spec = DriveSpec { name, ..drive.spec };
        drives.refuse_twice(&spec)?;
        let media = spec.media;
        drives.places(media)[unit] = Some(spec);
    }
    for drive in others {
        let (list, kind) = match drive.interface {
            Interface::Virtio => (&drives.virtio, "virtio"),
            _ => (&drives.unplaced, "none"),
        };
        let name = drive.id.unwrap_or_else(|| format!("{kind}{}", list.len()));
        let spec = DriveSpec { name, ..drive.spec };
        drives.refuse_twice(&spec)?;
        if drive.interface == Interface::Virtio { drives.virtio.push(spec) } else { drives.unplaced.push(spec) }
    }
    for device in devices {
        drives.plug(device)?;
    }
    // A PC has an empty CD-ROM drive unless told otherwise.
    if drives.ide[2].is_none() && !o.nodefaults && devices.is_empty() {
        drives.ide[2] = Some(DriveSpec::empty_cdrom(ide_name(MediaKind::Cdrom, 2), "cdrom", ""));
    }
    Ok(drives)
}

/// The block layer of a drive about which nothing else is said.
fn plain_block(read_only: bool, snapshot: bool) -> BlockSpec {
    let mut block = BlockSpec::default();
    block.image.open.read_only = read_only;
    block.image.snapshot = snapshot && !read_only;
    block
}

impl Asked {
    fn plain(option: &str, file: &std::path::Path, media: MediaKind, unit: usize, snapshot: bool) -> Asked {
        let cdrom = media == MediaKind::Cdrom;
        let block = plain_block(cdrom, snapshot);
        let text = file.display().to_string();
        let file = Some(file.to_owned());
        let spec = DriveSpec::new(media, file, block, option, text);
        let interface = if media == MediaKind::Floppy { Interface::Floppy } else { Interface::Ide };
        Asked { spec, interface, id: None, unit: Some(unit) }
    }

    fn parse(text: &str, snapshot: bool, warnings: &mut Vec<String>) -> Result<Asked, StartError> {
        let mut v = KeyValues::parse("drive", text, "");
        let file = v.take("file")?.filter(|file| !file.is_empty()).map(PathBuf::from);
        let interface = match v.take("if")?.as_deref() {
            None | Some("ide") => Interface::Ide,
            Some("floppy") => Interface::Floppy,
            Some("virtio") => Interface::Virtio,
            Some("none") => Interface::None,
            Some(other) => {
                let known = "ide, floppy, virtio, none";
                return Err(v.error(format!("'if={other}' is not implemented; implemented: {known}")));
            }
        };
        let floppy = interface == Interface::Floppy;
        let mut block = block::parse(&mut v, warnings)?;
        let media = match v.take("media")?.as_deref() {
            None | Some("disk") if floppy => MediaKind::Floppy,
            Some("cdrom") if floppy => return Err(v.error("a diskette drive takes no CD-ROM")),
            None | Some("disk") => MediaKind::Disk,
            Some("cdrom") if interface == Interface::Virtio => {
                return Err(v.error("'media=cdrom' goes with if=ide and if=none only"));
            }
            Some("cdrom") => MediaKind::Cdrom,
            Some(other) => return Err(v.error(format!("'media={other}': expected disk or cdrom"))),
        };
        let bare = v.take_bool("readonly")?;
        let read_only = v.take_bool("read-only")?.or(bare).unwrap_or(media == MediaKind::Cdrom);
        let snapshot = v.take_bool("snapshot")?.unwrap_or(snapshot && media != MediaKind::Cdrom);
        let id = v.take("id")?;
        let (most, buses) = interface.places();
        let index = v.take_number("index", most - 1)?;
        let (bus, unit) = (v.take_number("bus", buses - 1)?, v.take_number("unit", 1)?);
        let unit = match (index, bus, unit) {
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
                return Err(v.error("'index' cannot be used with 'bus' and 'unit'"));
            }
            (Some(index), ..) => Some(index),
            (None, None, None) => None,
            (None, bus, unit) => Some(2 * bus.unwrap_or(0) + unit.unwrap_or(0)),
        };
        v.finish()?;
        if media == MediaKind::Disk && file.is_none() && interface != Interface::None {
            return Err(v.error("a hard disk needs file=FILE"));
        }
        if interface == Interface::Ide && media == MediaKind::Disk && read_only {
            return Err(v.error(READ_ONLY_DISK));
        }
        block.image.open.read_only = read_only;
        block.image.snapshot = snapshot && !read_only;
        // What takes a drive of if=none is for a -device to say.
        let media = if interface == Interface::None { MediaKind::Disk } else { media };
        let spec = DriveSpec::new(media, file, block, "drive", text.into());
        Ok(Asked { spec, interface, id, unit: unit.map(|unit| unit as usize) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::devices;
    use super::*;
    use std::ffi::OsString;

    fn all_drives(words: &[&str]) -> Result<Drives, String> {
        let options = Options::read(words.iter().map(OsString::from)).map_err(|e| e.line())?;
        let devices = devices::parse(&options.device, &[], &mut Vec::new()).map_err(|e| e.line())?;
        parse(&options, &devices.ide, &mut Vec::new()).map_err(|e| e.line())
    }

    fn drives(words: &[&str]) -> Result<[Option<DriveSpec>; 4], String> {
        all_drives(words).map(|drives| drives.ide)
    }

    fn names(words: &[&str]) -> Vec<String> {
        drives(words).unwrap().iter().map(|d| d.as_ref().map_or("-".into(), |d| d.name.clone())).collect()
    }

    #[test]
    fn drives_get_their_places_and_names() {
        assert_eq!(names(&[]), ["-", "-", "ide1-cd0", "-"]);
        assert_eq!(names(&["-nodefaults"]), ["-", "-", "-", "-"]);
        assert_eq!(names(&["-hdb", "b", "-cdrom", "c", "-drive", "file=x"]), ["ide0-hd0", "ide0-hd1", "ide1-cd0", "-"]);
        assert_eq!(
            names(&["-drive", "file=a,index=3", "-drive", "file=b,id=boot"]),
            ["boot", "-", "ide1-cd0", "ide1-hd1"]
        );
        assert_eq!(names(&["-drive", "file=a,bus=1,unit=1,media=cdrom", "disk.img"])[3], "ide1-cd1");
        assert_eq!(names(&["disk.img"])[0], "ide0-hd0");
    }

    #[test]
    fn diskettes_have_drives_of_their_own() {
        let floppies = |words: &[&str]| {
            let drives = all_drives(words)?;
            assert_eq!(drives.ide[0], None);
            Ok::<_, String>(
                drives.floppies.map(|d| d.map_or("-".into(), |d| format!("{} {:?}", d.name, d.file.unwrap()))),
            )
        };
        assert_eq!(floppies(&[]).unwrap(), ["-", "-"]);
        assert_eq!(floppies(&["-fda", "a", "-fdb", "b"]).unwrap(), ["floppy0 \"a\"", "floppy1 \"b\""]);
        assert_eq!(floppies(&["-drive", "if=floppy,file=a,index=1"]).unwrap(), ["-", "floppy1 \"a\""]);
        assert_eq!(floppies(&["-fda", "a", "-drive", "if=floppy,file=b"]).unwrap()[1], "floppy1 \"b\"");
        let line = floppies(&["-fda", "a", "-drive", "if=floppy,index=0,file=b"]).unwrap_err();
        assert!(line.contains("bus=0, unit=0 exists: -fda a"), "{line}");
        let line = floppies(&["-drive", "if=floppy,index=2,file=b"]).unwrap_err();
        assert!(line.contains("'index=2'"), "{line}");
    }

    #[test]
    fn virtio_drives_and_those_without_a_place_are_lists() {
        let words =
            ["-drive", "if=virtio,file=a", "-drive", "if=none,file=b,id=x,readonly=on", "-drive", "if=virtio,file=c"];
        let drives = all_drives(&words).unwrap();
        assert!(drives.ide[0].is_none() && drives.has("x") && !drives.has("y"));
        assert_eq!(drives.virtio.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["virtio0", "virtio1"]);
        assert!(drives.unplaced[0].name == "x" && drives.unplaced[0].block.image.open.read_only);
        assert!(all_drives(&["-drive", "if=virtio,file=a,id=x", "-drive", "if=none,file=b,id=x"]).is_err());
    }

    /// Drives without a place, a and b with disks, c with a CD and d without a medium; and `devices`.
    fn with_devices<'a>(devices: &[&'a str]) -> Vec<&'a str> {
        let drives = [
            "if=none,file=a,id=a",
            "if=none,file=b,id=b",
            "if=none,file=c,id=c,media=cdrom",
            "if=none,id=d,readonly=on",
        ];
        let words = drives.into_iter().flat_map(|drive| ["-drive", drive]);
        words.chain(devices.iter().flat_map(|device| ["-device", *device])).collect()
    }

    #[test]
    fn ide_devices_take_the_first_free_place_or_the_one_that_they_ask_for() {
        let places = |devices: &[&str]| names(&with_devices(devices));
        assert_eq!(places(&["ide-hd,drive=a", "ide-hd,drive=b", "ide-cd,drive=c"]), ["c", "-", "a", "b"]);
        assert_eq!(places(&["ide-hd,drive=a,unit=1", "ide-hd,drive=b"]), ["-", "-", "b", "a"]);
        assert_eq!(places(&["ide-cd,drive=d,bus=ide.0,unit=1", "ide-hd,drive=b,bus=ide.0"]), ["b", "d", "-", "-"]);
        assert_eq!(places(&["ide-cd", "ide-cd,bus=ide.0,unit=1,id=tray"]), ["-", "tray", "ide1-cd0", "-"]);
        let behind = [&with_devices(&["ide-hd,drive=a", "ide-hd,drive=b"])[..], &["-hdc", "x"]].concat();
        assert_eq!(names(&behind), ["b", "-", "ide1-hd0", "a"]);
        // As in QEMU, such a device takes the default CD-ROM drive away.
        assert_eq!(places(&["ide-hd,drive=a,bus=ide.0"]), ["a", "-", "-", "-"]);
        assert_eq!(places(&[]), ["-", "-", "ide1-cd0", "-"]);
    }

    #[test]
    fn ide_devices_say_how_their_drives_are_used() {
        let devices = [
            "ide-hd,drive=a,serial=s,model=m,write-cache=off,bootindex=3",
            "ide-cd,drive=b,write-cache=on",
            "ide-cd,drive=d,bootindex=-1",
        ];
        let [empty, _, hd, cd] = drives(&[&["-snapshot"], &with_devices(&devices)[..]].concat()).unwrap();
        let (hd, cd, empty) = (hd.unwrap(), cd.unwrap(), empty.unwrap());
        assert_eq!((hd.media, hd.bootindex, cd.bootindex, empty.bootindex), (MediaKind::Disk, Some(3), None, None));
        assert_eq!(hd.names, Names { serial: Some("s".into()), model: Some("m".into()) });
        assert!(hd.block.image.open.cache.writethrough && !cd.block.image.open.cache.writethrough);
        assert!(hd.block.image.snapshot && !hd.block.image.open.read_only);
        assert!(!cd.block.image.snapshot && cd.block.image.open.read_only, "a CD is never written to");
        assert_eq!((cd.media, empty.media, empty.file), (MediaKind::Cdrom, MediaKind::Cdrom, None));
    }

    #[test]
    fn wrong_ide_devices_are_refused_in_one_line() {
        for (device, problem) in [
            ("ide-hd", "'drive' is needed: the id of a -drive if=none"),
            ("ide-hd,drive=x", "no -drive has the id 'x'"),
            ("ide-cd,drive=a", "the drive 'a' is in use; it needs to be if=none and no other device's"),
            ("ide-hd,drive=b,unit=2", "'unit=2' is not a number from 0 to 0x1"),
            ("ide-hd,drive=b,bus=ide.2", "there is no bus 'ide.2' for it; a PC has 'ide.0' and 'ide.1'"),
            ("ide-hd,drive=b,bus=ide.1,unit=0", "drive with bus=1, unit=0 exists: -drive if=none,file=a,id=a"),
            ("ide-hd,drive=c", "an IDE hard disk cannot be read-only; snapshot=on leaves the file alone"),
            ("ide-hd,drive=d", "the drive 'd' has no medium"),
            ("ide-cd,id=b", "duplicate drive id 'b': -drive if=none,file=b,id=b"),
            ("ide-hd,drive=b,bootindex=0", "The bootindex 0 has already been used"),
            ("ide-hd,drive=b,write-cache=maybe", "'write-cache=maybe' is not a switch: expected on, off or auto"),
            ("ide-hd,drive=b,heads=16", "unknown property 'heads'"),
        ] {
            let line = drives(&with_devices(&["ide-hd,drive=a,bootindex=0", device])).unwrap_err();
            assert!(line.starts_with(&format!("-device {device}: {problem}")), "{line}");
        }
        let five = ["ide-cd"; 5];
        assert_eq!(drives(&with_devices(&five)).unwrap_err(), "-device ide-cd: a PC has 4 IDE drives");
        let taken = drives(&["-hdc", "x", "-device", "ide-cd,bus=ide.1,unit=0"]).unwrap_err();
        assert_eq!(taken, "-device ide-cd,bus=ide.1,unit=0: drive with bus=1, unit=0 exists: -hdc x");
        let placed = drives(&["-drive", "file=x,id=x", "-device", "ide-hd,drive=x"]).unwrap_err();
        assert!(placed.contains("the drive 'x' is in use; it needs to be if=none"), "{placed}");
    }

    #[test]
    fn drive_properties_are_read() {
        let drive = |text: &str| drives(&["-snapshot", "-drive", text]).unwrap()[0].clone().unwrap();
        let d = drive("file=/a,,b,format=raw,if=ide,cache=unsafe,snapshot=off");
        assert_eq!(d.file, Some("/a,b".into()));
        let image = &d.block.image;
        assert!(!image.open.read_only && !image.snapshot && image.open.cache.no_flush);
        assert_eq!(image.open.format, Some(crate::image::Format::Raw));
        assert!(drive("file=a").block.image.snapshot);
        let cd = drive("media=cdrom,file=a,index=0");
        assert!(cd.block.image.open.read_only && !cd.block.image.snapshot);
    }

    #[test]
    fn wrong_drives_are_refused_in_one_line() {
        for (text, part) in [
            ("file=a,if=scsi", "'if=scsi' is not implemented"),
            ("file=a,if=virtio,media=cdrom", "goes with if=ide and if=none only"),
            ("file=a,format=qcow3", "'format=qcow3' is not implemented"),
            ("file=a,media=tape", "expected disk or cdrom"),
            ("file=a,index=4", "'index=4'"),
            ("file=a,index=1,bus=0", "cannot be used with"),
            ("file=a,readonly=on", "cannot be read-only"),
            ("index=0", "needs file"),
            ("file=a,cach=none", "nearest is 'cache'"),
            ("file=a,werror=halt", "'werror=halt': expected report"),
        ] {
            let line = drives(&["-drive", text]).unwrap_err();
            assert!(line.starts_with(&format!("-drive {text}: ")) && line.contains(part), "{line}");
        }
        let line = drives(&["-cdrom", "c", "-hdc", "d"]).unwrap_err();
        assert_eq!(line, "-cdrom c: drive with bus=1, unit=0 exists: -hdc d");
        assert!(drives(&["-drive", "file=a,id=x", "-drive", "file=b,id=x"]).unwrap_err().contains("duplicate"));
    }
}
