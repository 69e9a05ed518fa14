//! Reads and writes disks in every way under emu and QEMU, in alternation, and prints a table of rates and of what they cost the host.
//!
//! Before the first run: `cargo build --release -p emu-frontend` and `scripts/guests.sh`. `--folder` says where the images are; in memory
//! (`/dev/shm`) it is the emulators that are measured, and not the host's disk.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use emu_benches::program;
use emu_benches::throughput::{self, Case, Pair, Row};
use emu_tests::guest::cached;

/// Bytes of an image, and of what a row with large blocks moves.
const IMAGE: u64 = 256 << 20;
/// Bytes that a row with small blocks moves.
const SMALL_ROW: u64 = 16 << 20;

#[derive(Parser)]
#[command(about = "Compares the throughput of emu's disks with QEMU's")]
struct Options {
    /// How often each machine runs.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Where the images are made.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    folder: PathBuf,
    /// Only rows whose name contains one of these.
    only: Vec<String>,
}

/// A kind of disk.
struct Model {
    name: &'static str,
    interface: &'static str,
    node: &'static str,
}

const MODELS: [Model; 2] = [
    Model { name: "IDE", interface: "ide", node: "/dev/sda" },
    Model { name: "virtio-blk", interface: "virtio", node: "/dev/vda" },
];
const FORMATS: [&str; 2] = ["raw", "qcow2"];

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("disks: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let folder = options.folder.join(format!("emu-disks-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let result = measure(options, &folder);
    // Everything in it is ours; what cannot be removed harms nobody.
    let _ = std::fs::remove_dir_all(&folder);
    print!("{}", throughput::table(&result?));
    Ok(())
}

fn measure(options: &Options, folder: &Path) -> Result<Vec<Pair>, String> {
    let base = cached("amd64", "disk.cpio").map_err(|error| error.to_string())?;
    let initramfs = program::with_program(&base, "disk", folder)?;
    let mut pairs = Vec::new();
    for (model, format) in MODELS.iter().flat_map(|model| FORMATS.map(|format| (model, format))) {
        let mut rows = rows(model, format);
        rows.retain(|row| options.only.is_empty() || options.only.iter().any(|word| row.name.contains(word)));
        if rows.is_empty() {
            continue;
        }
        let image = folder.join("image");
        make_image(&image, format)?;
        let drive = format!("file={},format={format},if={}", image.display(), model.interface);
        let case = Case {
            options: vec!["-drive".to_owned(), drive],
            initramfs: initramfs.clone(),
            setup: format!(
                "for m in /lib/disk/* /lib/virtio/*; do insmod $m 2>/dev/null; done; until [ -b {} ]; do sleep 1; done",
                model.node
            ),
            rows,
        };
        pairs.extend(throughput::compare(&case, options.rounds)?);
    }
    Ok(pairs)
}

/// Every way to read or write a disk.
fn rows(model: &Model, format: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for (block, unit) in [(4096, "4 KiB"), (1 << 20, "1 MiB")] {
        let bytes = if block == 4096 { SMALL_ROW } else { IMAGE };
        for (cache, order, direction) in ["direct", "buffered"]
            .into_iter()
            .flat_map(|cache| ["sequential", "random"].map(|order| (cache, order)))
            .flat_map(|(cache, order)| ["read", "write"].map(|direction| (cache, order, direction)))
        {
            let transfer = format!("disk {} {direction} {cache} {order} {block} {}", model.node, bytes / block);
            // One pass of large direct transfers takes a tenth of a second.
            let passes = if block == 4096 || cache == "buffered" { 1 } else { 8 };
            rows.push(Row {
                name: format!("{}, {format}: {unit} {order} {direction}, {cache}", model.name),
                // The first time is for the machines to translate the guest's code.
                command: format!("{transfer} {passes} >/dev/null; {transfer} {passes}"),
                bytes: bytes * passes,
            });
        }
    }
    rows
}

/// An image full of data, so that reads read and writes need no new room.
fn make_image(image: &Path, format: &str) -> Result<(), String> {
    let raw = image.with_extension("raw");
    let fill = || {
        let mut file = File::create(&raw)?;
        let chunk: Vec<u8> = (0..1u32 << 18).flat_map(|word| word.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
        (0..IMAGE / chunk.len() as u64).try_for_each(|_| file.write_all(&chunk))
    };
    fill().map_err(|error: std::io::Error| format!("{}: {error}", raw.display()))?;
    let output = Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", format])
        .args([&raw, image])
        .output()
        .map_err(|error| format!("qemu-img: {error}"))?;
    let _ = std::fs::remove_file(&raw);
    if !output.status.success() {
        return Err(format!("qemu-img: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(())
}
