//! `emu img create`, and new images for `convert`.

use super::output::size;
use super::{Failure, How, Opening, Outcome, format};
use crate::cli::value::{parse_bool, parse_number, parse_size, split_commas};
use crate::image::Format;
use crate::image::file::FileStorage;
use crate::image::layer::Layer;
use crate::image::open::{OpenOptions, open};
use crate::image::qcow2;
use crate::image::qcow2::header::Compression;
use crate::image::storage::Storage;
use crate::image::{vdi, vhdx, vmdk, vpc};
use crate::report;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// From 1970 to 2000, where VHD's time begins.
const SECONDS_TO_2000: u64 = 946_684_800;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    opening: Opening,
    /// The image's format
    #[arg(short = 'f', value_name = "FORMAT", default_value = "raw")]
    format: String,
    /// Its backing image
    #[arg(short = 'b', value_name = "FILE")]
    backing: Option<String>,
    /// The backing image's format
    #[arg(short = 'F', value_name = "FORMAT")]
    backing_format: Option<String>,
    /// The backing image need not be there
    #[arg(short = 'u')]
    unsafe_backing: bool,
    /// Options of the format: key=value,... ; help lists them
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<String>,
    /// Say nothing
    #[arg(short = 'q')]
    quiet: bool,
    /// The file
    file: String,
    /// The disk's size, with k, M, G, T, P or E; that of the backing image if not given
    size: Option<String>,
}

/// How much room a new image is given at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preallocation {
    /// None.
    #[default]
    Off,
    /// Tables.
    Metadata,
    /// Tables, and the host's room for data.
    Falloc,
    /// Tables, and zeros for data.
    Full,
}

/// What a new image is to be.
#[derive(Clone, Debug, Default)]
pub struct NewImage {
    /// Its format.
    pub format: Option<Format>,
    /// Bytes.
    pub size: u64,
    /// The backing image and its format.
    pub backing: Option<(String, Option<String>)>,
    options: Vec<(String, String)>,
}

/// The keys that a format takes, and what they are.
fn keys(format: Format) -> &'static [(&'static str, &'static str)] {
    match format {
        Format::Qcow2 => &[
            ("backing_file", "the backing image"),
            ("backing_fmt", "the backing image's format"),
            ("cluster_size", "512 to 2M (default: 64k)"),
            ("compat", "0.10 (v2) or 1.1 (v3, default)"),
            ("compression_type", "zlib (default) or zstd"),
            ("extended_l2", "off; on is not implemented"),
            ("lazy_refcounts", "on or off (default)"),
            ("preallocation", "off (default), metadata, falloc, full"),
            ("refcount_bits", "1, 2, 4, 8, 16 (default), 32, 64"),
            ("size", "the disk's size"),
        ],
        Format::Vmdk => &[("size", "the disk's size"), ("subformat", "monolithicSparse (default), monolithicFlat")],
        Format::Luks => &[],
        Format::Vhdx => &[("size", "the disk's size")],
        Format::Vdi => &[("size", "the disk's size"), ("static", "off (default) or on")],
        Format::Vpc => &[("size", "the disk's size"), ("subformat", "dynamic (default) or fixed")],
        Format::Raw => &[("preallocation", "off (default), falloc, full"), ("size", "the disk's size")],
    }
}

impl NewImage {
    /// Reads the `-o` options.
    ///
    /// # Errors
    /// One that the format does not have.
    pub fn new(format: Format, texts: &[String]) -> Result<NewImage, Failure> {
        let mut options = Vec::new();
        for element in texts.iter().flat_map(|text| split_commas(text)).filter(|element| !element.is_empty()) {
            let (key, value) = element.split_once('=').unwrap_or((&element, "on"));
            if !keys(format).iter().any(|(known, _)| *known == key) {
                return Err(Failure::new(format!("Invalid parameter '{key}'")));
            }
            options.push((key.to_owned(), value.to_owned()));
        }
        let mut new = NewImage { format: Some(format), options, ..NewImage::default() };
        if let Some(file) = new.take("backing_file") {
            new.backing = Some((file, new.take("backing_fmt")));
        }
        if let Some(text) = new.take("size") {
            new.size = size(&text)?;
        }
        Ok(new)
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.options.iter().rev().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    fn take(&mut self, key: &str) -> Option<String> {
        let value = self.get(key).map(str::to_owned);
        self.options.retain(|(k, _)| k != key);
        value
    }

    fn switch(&self, key: &str) -> Result<bool, Failure> {
        let Some(text) = self.get(key) else { return Ok(false) };
        parse_bool(text).ok_or_else(|| Failure::new(format!("Parameter '{key}' expects 'on' or 'off'")))
    }

    fn preallocation(&self) -> Result<Preallocation, Failure> {
        match self.get("preallocation") {
            None | Some("off") => Ok(Preallocation::Off),
            Some("metadata") if self.format == Some(Format::Qcow2) => Ok(Preallocation::Metadata),
            Some("falloc") => Ok(Preallocation::Falloc),
            Some("full") => Ok(Preallocation::Full),
            Some(other) => Err(Failure::new(format!("Invalid parameter '{other}' for preallocation"))),
        }
    }

    /// The qcow2 options.
    pub fn qcow2(&self) -> Result<qcow2::create::Options, Failure> {
        let mut o = qcow2::create::Options { size: self.size, backing: self.backing.clone(), ..Default::default() };
        if let Some(text) = self.get("cluster_size") {
            o.cluster_size =
                parse_size(text, 1).ok_or_else(|| Failure::new("Parameter 'cluster_size' expects a size"))?;
        }
        o.version = match self.get("compat") {
            None | Some("1.1" | "v3") => 3,
            Some("0.10" | "v2") => 2,
            Some(other) => return Err(Failure::new(format!("Invalid compatibility level: '{other}'"))),
        };
        o.compression = match self.get("compression_type") {
            None | Some("zlib") => Compression::Zlib,
            Some("zstd") => Compression::Zstd,
            Some(other) => return Err(Failure::new(format!("Invalid parameter '{other}' for compression_type"))),
        };
        if let Some(text) = self.get("refcount_bits") {
            let bits = parse_number(text).and_then(|bits| u32::try_from(bits).ok());
            o.refcount_bits = bits.ok_or_else(|| Failure::new("Parameter 'refcount_bits' expects a number"))?;
        }
        o.lazy_refcounts = self.switch("lazy_refcounts")?;
        if self.switch("extended_l2")? {
            return Err(Failure::new("extended_l2=on is not implemented"));
        }
        Ok(o)
    }

    /// The line that `create` prints.
    fn describe(&self, file: &str) -> Result<String, Failure> {
        let format = self.format.unwrap_or(Format::Raw);
        let mut line = format!("Formatting '{file}', fmt={}", format.name());
        match format {
            Format::Qcow2 => {
                let o = self.qcow2()?;
                let compression = if o.compression == Compression::Zstd { "zstd" } else { "zlib" };
                let _ = write!(line, " cluster_size={} extended_l2=off", o.cluster_size);
                if let Some(preallocation) = self.get("preallocation") {
                    let _ = write!(line, " preallocation={preallocation}");
                }
                let _ = write!(line, " compression_type={compression} size={}", o.size);
                if let Some(compat) = self.get("compat") {
                    let _ = write!(line, " compat={compat}");
                }
                if let Some((backing, format)) = &self.backing {
                    let _ = write!(line, " backing_file={backing}");
                    if let Some(format) = format {
                        let _ = write!(line, " backing_fmt={format}");
                    }
                }
                let lazy = if o.lazy_refcounts { "on" } else { "off" };
                let _ = write!(line, " lazy_refcounts={lazy} refcount_bits={}", o.refcount_bits);
            }
            Format::Raw | Format::Vmdk | Format::Vdi | Format::Vpc | Format::Vhdx | Format::Luks => {
                let _ = write!(line, " size={}", self.size);
                for (key, value) in &self.options {
                    let _ = write!(line, " {key}={value}");
                }
            }
        }
        Ok(line + "\n")
    }

    /// Makes the file called `name`, and opens it without its backing image.
    ///
    /// # Errors
    /// Options contradict each other, or the host refuses.
    pub fn make(&self, name: &str) -> Result<Box<dyn Layer>, Failure> {
        let preallocation = self.preallocation()?;
        let path = name.strip_prefix("file:").unwrap_or(name);
        let cannot = |e: String| {
            let reason = e.split(" (os error").next().unwrap_or_default().to_owned();
            Failure::new(format!("{name}: Could not create '{name}': {reason}"))
        };
        let mut file = FileStorage::create(Path::new(path)).map_err(cannot)?;
        let format = self.format.unwrap_or(Format::Raw);
        match format {
            Format::Raw => {
                file.set_len(self.size)?;
                match preallocation {
                    Preallocation::Falloc => file.reserve(self.size)?,
                    Preallocation::Full => file.fill_holes()?,
                    Preallocation::Off | Preallocation::Metadata => {}
                }
            }
            Format::Vmdk => self.make_vmdk(name, &mut file)?,
            Format::Luks => return Err(Failure::new("new LUKS volumes are not implemented")),
            Format::Vhdx => vhdx::create(&mut file, self.size, random()?)?,
            Format::Vdi => {
                let fixed = self.switch("static")?;
                vdi::create(&mut file, self.size, fixed, random()?)?;
            }
            Format::Vpc => {
                let fixed = match self.get("subformat") {
                    None | Some("dynamic") => false,
                    Some("fixed") => true,
                    Some(other) => return Err(Failure::new(format!("Invalid subformat '{other}'"))),
                };
                let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                let since_2000 = seconds.saturating_sub(SECONDS_TO_2000) as u32;
                vpc::create(&mut file, self.size, fixed, random()?, since_2000)?;
            }
            Format::Qcow2 => {
                let options = self.qcow2()?;
                qcow2::create::create(&mut file, &options, None).map_err(|e| Failure::new(format!("{name}: {e}")))?;
            }
        }
        drop(file);
        let mut how = OpenOptions { format: Some(format), ..OpenOptions::default() };
        how.backing.none = true;
        if format == Format::Qcow2 && preallocation != Preallocation::Off {
            let mut image = qcow2::Qcow2::open(
                Box::new(FileStorage::open(Path::new(path), Default::default()).map_err(cannot)?),
                qcow2::Dirty::Repair,
            )?;
            image.preallocate(0, self.size)?;
            drop(image);
            let mut file = FileStorage::open(Path::new(path), Default::default()).map_err(cannot)?;
            let len = file.len();
            match preallocation {
                Preallocation::Falloc => file.reserve(len)?,
                Preallocation::Full => file.fill_holes()?,
                Preallocation::Off | Preallocation::Metadata => {}
            }
        }
        open(name, &how, &mut Vec::new()).map_err(|problem| Failure::new(super::could_not_open(name, &problem)))
    }
}

impl NewImage {
    fn make_vmdk(&self, name: &str, file: &mut FileStorage) -> Result<(), Failure> {
        let [a, b, c, d, ..] = random::<16>()?;
        let cid = u32::from_le_bytes([a, b, c, d]) & 0x7fff_ffff;
        let own_name = Path::new(name).file_name().and_then(|n| n.to_str()).unwrap_or("disk.vmdk");
        match self.get("subformat") {
            None | Some("monolithicSparse") => Ok(vmdk::create(file, self.size, own_name, cid)?),
            Some("monolithicFlat") => {
                let flat = format!("{}-flat.vmdk", own_name.strip_suffix(".vmdk").unwrap_or(own_name));
                let path = Path::new(name).with_file_name(&flat);
                let mut data =
                    FileStorage::create(&path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
                data.set_len(self.size)?;
                let extent = format!("RW {} FLAT \"{flat}\" 0", self.size / 512);
                let text = vmdk::descriptor(self.size, "monolithicFlat", &extent, cid);
                Ok(file.write_at(0, text.as_bytes())?)
            }
            Some(other) => Err(Failure::new(format!("Invalid subformat '{other}'"))),
        }
    }
}

/// Bytes for what is to be unique.
fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    let mut source = std::fs::File::open("/dev/urandom")?;
    std::io::Read::read_exact(&mut source, &mut bytes)?;
    Ok(bytes)
}

/// Makes an image.
pub fn run(a: &Arguments) -> Outcome {
    let Some(kind) = Format::named(&a.format) else {
        return Err(Failure::new(format!("{}: Unknown file format '{}'", a.file, a.format)));
    };
    if a.options.iter().any(|text| text == "help" || text == "?") {
        let lines = keys(kind).iter().map(|(key, about)| format!("  {key:<22} - {about}\n"));
        report::print(&format!("Supported options:\n{}", lines.collect::<String>()));
        return Ok(0);
    }
    let mut new = NewImage::new(kind, &a.options)?;
    if let Some(backing) = &a.backing {
        new.backing = Some((backing.clone(), a.backing_format.clone().or(new.take("backing_fmt"))));
    } else if let (Some(format), Some((_, named))) = (&a.backing_format, &mut new.backing) {
        *named = Some(format.clone());
    }
    if new.backing.is_some() && kind != Format::Qcow2 {
        return Err(Failure::new(format!("{}: Backing file not supported for file format '{}'", a.file, kind.name())));
    }
    let mut given = new.size > 0;
    if let Some(text) = &a.size {
        new.size = size(text)?;
        given = true;
    }
    if let Some((backing, backing_format)) = &new.backing
        && !a.unsafe_backing
    {
        let Some(backing_format) = format(backing_format.as_ref())? else {
            return Err(Failure::new(format!(
                "{}: Backing file specified without backing format: -F FORMAT names it",
                a.file
            )));
        };
        // Relative to the image that names it, as it will be when that is opened.
        let path =
            crate::image::open::resolve(&a.file, backing).map_err(|e| Failure::new(format!("{}: {e}", a.file)))?;
        let how = How { format: Some(backing_format), read_only: true, ..How::default() };
        let image = a.opening.open(&path.display().to_string(), &how);
        let image = image.map_err(|f| Failure::new(format!("{}: {}", a.file, f.message)))?;
        if !given {
            new.size = image.len().next_multiple_of(512);
            given = true;
        }
    }
    if !given {
        return Err(Failure::new(format!("{}: Image creation needs a size parameter", a.file)));
    }
    if !a.quiet {
        report::print(&new.describe(&a.file)?);
    }
    new.make(&a.file)?;
    Ok(0)
}
