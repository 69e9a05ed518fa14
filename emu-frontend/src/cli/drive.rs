//! Drives as `-drive`, `-fda`, `-fdb`, `-hda` to `-hdd` and `-cdrom` name them.
//!
//! What they say about images is in [`block`]. Deliberately absent, so far: interfaces other than IDE, floppy and virtio.

use super::block::{self, BlockSpec};
use super::error::StartError;
use super::objects;
use super::options::Options;
use super::value::KeyValues;
use std::path::PathBuf;

/// IDE drives of a PC.
pub const IDE_DRIVES: usize = 4;

/// Diskette drives of a PC.
pub const FLOPPY_DRIVES: usize = 2;

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
    option: String,
    text: String,
}

impl DriveSpec {
    /// An error about this drive that names its option.
    pub fn error(&self, problem: impl Into<String>) -> StartError {
        StartError::value(&self.option, self.text.as_str(), problem)
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
    pub fn has(&self, name: &str) -> bool {
        self.all().any(|drive| drive.name == name)
    }
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

/// The drives that the options ask for, each in its place.
///
/// # Errors
/// A wrong value, or two drives in one place.
pub fn parse(o: &Options, warnings: &mut Vec<String>) -> Result<Drives, StartError> {
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
            let (bus, slot, option) =
                if floppy { (0, unit, &there.option) } else { (unit / 2, unit % 2, &there.option) };
            return Err(drive
                .spec
                .error(format!("drive with bus={bus}, unit={slot} exists: -{option} {}", there.text)));
        }
        let name = drive.id.unwrap_or_else(|| match drive.spec.media {
            MediaKind::Disk => format!("ide{}-hd{}", unit / 2, unit % 2),
            MediaKind::Cdrom => format!("ide{}-cd{}", unit / 2, unit % 2),
            MediaKind::Floppy => format!("floppy{unit}"),
        });
        if let Some(other) = drives.all().find(|other| other.name == name) {
            return Err(drive.spec.error(format!("duplicate drive id '{name}': -{} {}", other.option, other.text)));
        }
        drives.places(drive.spec.media)[unit] = Some(DriveSpec { name, ..drive.spec });
    }
    for drive in others {
        let (list, kind) = match drive.interface {
            Interface::Virtio => (&drives.virtio, "virtio"),
            _ => (&drives.unplaced, "none"),
        };
        let name = drive.id.unwrap_or_else(|| format!("{kind}{}", list.len()));
        if let Some(other) = drives.all().find(|other| other.name == name) {
            return Err(drive.spec.error(format!("duplicate drive id '{name}': -{} {}", other.option, other.text)));
        }
        let spec = DriveSpec { name, ..drive.spec };
        if drive.interface == Interface::Virtio { drives.virtio.push(spec) } else { drives.unplaced.push(spec) }
    }
    // A PC has an empty CD-ROM drive unless told otherwise.
    if drives.ide[2].is_none() && !o.nodefaults {
        drives.ide[2] = Some(DriveSpec {
            name: "ide1-cd0".into(),
            media: MediaKind::Cdrom,
            file: None,
            block: plain_block(true, false),
            option: "cdrom".into(),
            text: String::new(),
        });
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
        let spec = DriveSpec { name: String::new(), media, file, block, option: option.into(), text };
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
        let boxed = matches!(interface, Interface::Ide | Interface::Floppy);
        let mut block = block::parse(&mut v, warnings)?;
        let media = match v.take("media")?.as_deref() {
            None | Some("disk") if floppy => MediaKind::Floppy,
            Some("cdrom") if floppy => return Err(v.error("a diskette drive takes no CD-ROM")),
            None | Some("disk") => MediaKind::Disk,
            Some("cdrom") if boxed => MediaKind::Cdrom,
            Some("cdrom") => return Err(v.error("'media=cdrom' goes with if=ide only")),
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
        if media == MediaKind::Disk && file.is_none() {
            return Err(v.error("a hard disk needs file=FILE"));
        }
        if interface == Interface::Ide && media == MediaKind::Disk && read_only {
            return Err(v.error("an IDE hard disk cannot be read-only; snapshot=on leaves the file alone"));
        }
        block.image.open.read_only = read_only;
        block.image.snapshot = snapshot && !read_only;
        let spec = DriveSpec { name: String::new(), media, file, block, option: "drive".into(), text: text.into() };
        Ok(Asked { spec, interface, id, unit: unit.map(|unit| unit as usize) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    fn all_drives(words: &[&str]) -> Result<Drives, String> {
        let options = Options::read(words.iter().map(OsString::from)).map_err(|e| e.line())?;
        parse(&options, &mut Vec::new()).map_err(|e| e.line())
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
            ("file=a,if=virtio,media=cdrom", "goes with if=ide only"),
            ("if=none,id=x", "needs file"),
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
