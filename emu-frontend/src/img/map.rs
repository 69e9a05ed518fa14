//! `emu img map`.

use super::output::size;
use super::{Failure, How, Opening, Outcome, format};
use crate::image::layer::{Extent, ExtentKind, Layer, extent_in_chain};
use crate::report;
use std::fmt::Write as _;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    opening: Opening,
    /// The image's format
    #[arg(short = 'f', value_name = "FORMAT")]
    format: Option<String>,
    /// human or json
    #[arg(long, value_name = "HOW", default_value = "human", value_parser = ["human", "json"])]
    output: String,
    /// Where to begin
    #[arg(short = 's', long, value_name = "OFFSET")]
    start_offset: Option<String>,
    /// How far to go
    #[arg(short = 'l', long, value_name = "LENGTH")]
    max_length: Option<String>,
    /// The image
    file: String,
}

/// A run of the disk that is in one place of one file.
#[derive(Clone, Copy)]
struct Run {
    start: u64,
    len: u64,
    depth: usize,
    kind: ExtentKind,
}

impl Run {
    /// Whether `next`, which begins where this one ends, is the same.
    fn goes_on(&self, next: &Run) -> bool {
        let same = match (self.kind, next.kind) {
            (
                ExtentKind::Data { at: a, compressed: c, hole: e },
                ExtentKind::Data { at: b, compressed: d, hole: f },
            ) => (c, e) == (d, f) && continues(a, self.len, b),
            (ExtentKind::Zero { at: a }, ExtentKind::Zero { at: b }) => continues(a, self.len, b),
            (ExtentKind::Absent, ExtentKind::Absent) => true,
            _ => false,
        };
        same && self.depth == next.depth
    }

    fn offset(&self) -> Option<u64> {
        match self.kind {
            ExtentKind::Absent => None,
            ExtentKind::Zero { at } | ExtentKind::Data { at, .. } => at,
        }
    }
}

fn continues(at: Option<u64>, len: u64, next: Option<u64>) -> bool {
    match (at, next) {
        (Some(at), Some(next)) => at + len == next,
        (None, None) => true,
        _ => false,
    }
}

/// Shows where the data is.
pub fn run(a: &Arguments) -> Outcome {
    let how = How { format: format(a.format.as_ref())?, read_only: true, ..How::default() };
    let mut image = a.opening.open(&a.file, &how)?;
    let names = names(&a.file, image.as_mut());
    let number = |text: &Option<String>| text.as_ref().map(|text| size(text)).transpose();
    let mut at = number(&a.start_offset)?.unwrap_or(0).min(image.len());
    let end = number(&a.max_length)?.map_or(image.len(), |len| image.len().min(at.saturating_add(len)));
    let mut text = match a.output.as_str() {
        "json" => "[".to_owned(),
        _ => format!("{:<16}{:<16}{:<16}File\n", "Offset", "Length", "Mapped to"),
    };
    let mut current: Option<Run> = None;
    let mut first = true;
    let mut show = |run: &Run| match a.output.as_str() {
        "json" => {
            let separator = if std::mem::take(&mut first) { "" } else { ",\n" };
            Ok(format!("{separator}{}", json(run)))
        }
        _ => human(run, &names),
    };
    while at < end {
        let (Extent { len, kind }, depth) = extent_in_chain(image.as_mut(), at, end - at)?;
        let next = Run { start: at, len, depth, kind };
        at += len;
        match &mut current {
            Some(run) if run.goes_on(&next) => run.len += len,
            _ => {
                if let Some(run) = current.replace(next) {
                    text += &show(&run)?;
                }
            }
        }
    }
    if let Some(run) = current {
        text += &show(&run)?;
    }
    if a.output == "json" {
        text += "]\n";
    }
    report::print(&text);
    Ok(0)
}

/// The names of the images of a chain.
fn names(file: &str, image: &mut dyn Layer) -> Vec<String> {
    let mut names = vec![file.to_owned()];
    let mut next = Some(image);
    while let Some(image) = next {
        let above = names.last().cloned().unwrap_or_default();
        if let Some((backing, _)) = image.names_backing() {
            names
                .push(crate::image::open::resolve(&above, &backing).map_or(backing, |path| path.display().to_string()));
        }
        next = image.backing().map(|backing| backing as &mut dyn Layer);
    }
    names
}

fn json(run: &Run) -> String {
    let (present, zero, data) = match run.kind {
        ExtentKind::Absent => (false, true, false),
        ExtentKind::Zero { .. } => (true, true, false),
        ExtentKind::Data { hole, .. } => (true, hole, true),
    };
    let compressed = matches!(run.kind, ExtentKind::Data { compressed: true, .. });
    let mut text = format!(
        "{{ \"start\": {}, \"length\": {}, \"depth\": {}, \"present\": {present}, \"zero\": {zero}, \"data\": {data}, \"compressed\": {compressed}",
        run.start, run.len, run.depth
    );
    if let Some(at) = run.offset() {
        let _ = write!(text, ", \"offset\": {at}");
    }
    text + "}"
}

/// As C's `%#x` has it.
fn hexadecimal(n: u64) -> String {
    if n == 0 { "0".into() } else { format!("{n:#x}") }
}

fn human(run: &Run, names: &[String]) -> Result<String, Failure> {
    match run.kind {
        ExtentKind::Data { hole: true, .. } => Ok(String::new()),
        ExtentKind::Data { at: Some(at), .. } => {
            let name = names.get(run.depth).map_or("", String::as_str);
            let [start, len, at] = [run.start, run.len, at].map(hexadecimal);
            Ok(format!("{start:<16}{len:<16}{at:<16}{name}\n"))
        }
        ExtentKind::Data { at: None, .. } => {
            Err(Failure::new("File contains external, encrypted or compressed clusters."))
        }
        ExtentKind::Absent | ExtentKind::Zero { .. } => Ok(String::new()),
    }
}
