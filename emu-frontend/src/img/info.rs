//! `emu img info` and `check`.

use super::output::{human, json};
use super::snapshot::{list, list_json};
use super::{Failure, How, Opening, Outcome, cache, format};
use crate::image::check::CheckResult;
use crate::image::layer::Layer;
use crate::image::qcow2::check::Fix;
use crate::image::qcow2::header::{Compression, Header, LAZY_REFCOUNTS, incompatible};
use crate::report;
use emu_devices::storage::block::SECTOR;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// The exit code for formats without a check.
const NO_CHECK: i32 = 63;

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
    /// All images of the chain
    #[arg(long)]
    backing_chain: bool,
    /// The image
    file: String,
}

/// Shows what an image is.
pub fn run(a: &Arguments) -> Outcome {
    let how = How { format: format(a.format.as_ref())?, read_only: true, no_backing: true, ..How::default() };
    let mut shown = Vec::new();
    let mut name = a.file.clone();
    let mut how = how;
    // The chain is opened once, by the rules for what images may name.
    if a.backing_chain {
        a.opening.open(&a.file, &How { no_backing: false, ..how.clone() })?;
    }
    loop {
        let mut image = a.opening.open(&name, &how)?;
        shown.push(describe(&name, image.as_mut())?);
        let Some((backing, format)) = image.names_backing().filter(|_| a.backing_chain) else { break };
        let path = crate::image::open::resolve(&name, &backing).map_err(Failure::new)?;
        name = path.display().to_string();
        how.format = format;
    }
    if a.output == "json" {
        let mut values: Vec<Value> = shown.into_iter().map(|(_, value)| value).collect();
        let value = if a.backing_chain { Value::Array(values) } else { values.remove(0) };
        report::print(&json(&value));
    } else {
        let texts: Vec<String> = shown.into_iter().map(|(text, _)| text).collect();
        report::print(&texts.join("\n"));
    }
    Ok(0)
}

/// What an image is, as text and as JSON.
fn describe(name: &str, image: &mut dyn Layer) -> Result<(String, Value), Failure> {
    let (len, allocated, cluster) = (image.len(), image.allocated(), image.cluster_size());
    let format = image.format().name();
    let mut text = format!(
        "image: {name}\nfile format: {format}\nvirtual size: {} ({len} bytes)\ndisk size: {}\n",
        human(len),
        human(allocated)
    );
    let mut value = json!({
        "virtual-size": len,
        "filename": name,
        "format": format,
        "actual-size": allocated,
        "dirty-flag": false,
    });
    if image.is_encrypted() {
        text += "encrypted: yes\n";
        value["encrypted"] = true.into();
    }
    if cluster > 0 {
        let _ = writeln!(text, "cluster_size: {cluster}");
        value["cluster-size"] = cluster.into();
    }
    if let Some((backing, backing_format)) = image.names_backing() {
        let full = crate::image::open::resolve(name, &backing).map(|path| path.display().to_string());
        match &full {
            Ok(full) if *full != backing => {
                let _ = writeln!(text, "backing file: {backing} (actual path: {full})");
            }
            _ => {
                let _ = writeln!(text, "backing file: {backing}");
            }
        }
        value["backing-filename"] = backing.into();
        if let Ok(full) = full {
            value["full-backing-filename"] = full.into();
        }
        if let Some(format) = backing_format {
            let _ = writeln!(text, "backing file format: {}", format.name());
            value["backing-filename-format"] = format.name().into();
        }
    }
    if let Some(qcow2) = image.as_qcow2() {
        let snapshots = qcow2.snapshots()?;
        if !snapshots.is_empty() {
            text += &list(&snapshots);
            value["snapshots"] = list_json(&snapshots);
        }
        let header = qcow2.header();
        value["dirty-flag"] = (header.incompatible & incompatible::DIRTY != 0).into();
        let specific = specific(header);
        text += "Format specific information:\n";
        for (key, shown) in specific.iter() {
            let shown = shown.as_str().map_or_else(|| shown.to_string(), str::to_owned);
            let _ = writeln!(text, "    {}: {shown}", key.replace('-', " "));
        }
        let data: serde_json::Map<String, Value> = specific.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        value["format-specific"] = json!({"type": "qcow2", "data": data});
    }
    value["children"] = Value::Array(Vec::new());
    if let Some(file) = std::fs::metadata(name).ok().filter(std::fs::Metadata::is_file) {
        let (child, shown) = describe_file(name, file.len().next_multiple_of(SECTOR), allocated);
        text += &child;
        value["children"] = json!([{"name": "file", "info": shown}]);
    }
    Ok((text, value))
}

/// The host's file under an image: its length in whole sectors and what it takes of the disk, in bytes.
fn describe_file(name: &str, len: u64, allocated: u64) -> (String, Value) {
    let text = format!(
        "Child node '/file':\n    filename: {name}\n    protocol type: file\n    file length: {} ({len} bytes)\n    disk size: {}\n",
        human(len),
        human(allocated)
    );
    let value = json!({
        "children": [],
        "virtual-size": len,
        "filename": name,
        "format": "file",
        "actual-size": allocated,
        "format-specific": {"type": "file", "data": {}},
        "dirty-flag": false,
    });
    (text, value)
}

/// What a qcow2 header says, in QEMU's words and order.
fn specific(header: &Header) -> Vec<(&'static str, Value)> {
    if header.version == 2 {
        return vec![("compat", "0.10".into()), ("compression-type", "zlib".into()), ("refcount-bits", 16.into())];
    }
    let compression = if header.compression == Compression::Zstd { "zstd" } else { "zlib" };
    vec![
        ("compat", "1.1".into()),
        ("compression-type", compression.into()),
        ("lazy-refcounts", (header.compatible & LAZY_REFCOUNTS != 0).into()),
        ("refcount-bits", (1 << header.refcount_order).into()),
        ("corrupt", (header.incompatible & incompatible::CORRUPT != 0).into()),
        ("extended-l2", false.into()),
    ]
}

#[derive(Debug, clap::Args)]
pub struct CheckArguments {
    #[command(flatten)]
    opening: Opening,
    /// The image's format
    #[arg(short = 'f', value_name = "FORMAT")]
    format: Option<String>,
    /// human or json
    #[arg(long, value_name = "HOW", default_value = "human", value_parser = ["human", "json"])]
    output: String,
    /// Repair: leaks, or all
    #[arg(short = 'r', value_name = "WHAT", value_parser = ["leaks", "all"])]
    repair: Option<String>,
    /// Say nothing
    #[arg(short = 'q')]
    quiet: bool,
    /// The cache
    #[arg(short = 'T', value_name = "CACHE")]
    cache: Option<String>,
    /// The image
    file: String,
}

/// Checks an image: 0 if it is good, 2 if it is damaged, 3 if it has leaks, 1 if that could not be told.
pub fn check(a: &CheckArguments) -> Outcome {
    let fix = match a.repair.as_deref() {
        None => Fix::Nothing,
        Some("leaks") => Fix::Leaks,
        Some(_) => Fix::All,
    };
    let how = How {
        format: format(a.format.as_ref())?,
        read_only: fix == Fix::Nothing,
        cache: cache(a.cache.as_ref(), "writeback")?,
        no_backing: true,
        for_check: true,
    };
    let mut image = a.opening.open(&a.file, &how)?;
    let format = image.format().name();
    let Some(first) = image.check(fix) else {
        return Err(Failure::new("This image format does not support checks").with_status(NO_CHECK));
    };
    let mut result = first?;
    let fixed = (result.leaks_fixed, result.corruptions_fixed);
    if fixed != (0, 0) {
        // What is left is what counts.
        if let Some(again) = image.check(Fix::Nothing) {
            result = again?;
        }
        (result.leaks_fixed, result.corruptions_fixed) = fixed;
    }
    if !a.quiet || a.output == "json" {
        report::print(&match a.output.as_str() {
            "json" => json(&check_json(&a.file, format, &result)),
            _ => check_text(&result),
        });
    }
    Ok(match () {
        () if result.errors > 0 => 1,
        () if result.corruptions > 0 => 2,
        () if result.leaks > 0 => 3,
        () => 0,
    })
}

fn check_text(r: &CheckResult) -> String {
    let mut text = String::new();
    for problem in &r.problems {
        let _ = writeln!(text, "{problem}");
    }
    if (r.leaks_fixed, r.corruptions_fixed) != (0, 0) {
        let _ = write!(
            text,
            "The following inconsistencies were found and repaired:\n\n    {} leaked clusters\n    {} corruptions\n\nDouble checking the fixed image now...\n",
            r.leaks_fixed, r.corruptions_fixed
        );
    }
    if (r.corruptions, r.leaks, r.errors) == (0, 0, 0) {
        text += "No errors were found on the image.\n";
    }
    if r.corruptions > 0 {
        let _ = write!(
            text,
            "\n{} errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt it.\n",
            r.corruptions
        );
    }
    if r.leaks > 0 {
        let _ = write!(
            text,
            "\n{} leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.\n",
            r.leaks
        );
    }
    if r.total_clusters > 0 && r.allocated_clusters > 0 {
        let share = |part: u64, of: u64| part as f64 * 100.0 / of as f64;
        let _ = writeln!(
            text,
            "{}/{} = {:.2}% allocated, {:.2}% fragmented, {:.2}% compressed clusters",
            r.allocated_clusters,
            r.total_clusters,
            share(r.allocated_clusters, r.total_clusters),
            share(r.fragmented_clusters, r.allocated_clusters),
            share(r.compressed_clusters, r.allocated_clusters)
        );
    }
    if r.image_end > 0 {
        let _ = writeln!(text, "Image end offset: {}", r.image_end);
    }
    text
}

fn check_json(file: &str, format: &str, r: &CheckResult) -> Value {
    let mut value = json!({"filename": file, "format": format, "check-errors": r.errors});
    for (key, number) in [
        ("image-end-offset", r.image_end),
        ("corruptions", r.corruptions),
        ("leaks", r.leaks),
        ("corruptions-fixed", r.corruptions_fixed),
        ("leaks-fixed", r.leaks_fixed),
        ("total-clusters", r.total_clusters),
        ("allocated-clusters", r.allocated_clusters),
        ("fragmented-clusters", r.fragmented_clusters),
        ("compressed-clusters", r.compressed_clusters),
    ] {
        if number > 0 {
            value[key] = number.into();
        }
    }
    value
}
