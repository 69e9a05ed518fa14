//! VDI, VHD and VMDK images against a model and `qemu-img`, and hostile ones.

use crate::image::file::FileStorage;
use crate::image::layer::Layer;
use crate::image::open::{OpenOptions, open};
use crate::image::storage::{MemoryStorage, Storage};
use crate::image::testing::*;
use crate::image::{Format, vdi, vhdx, vmdk, vpc};
use std::path::Path;
use std::time::{Duration, Instant};

const SIZE: u64 = 5 << 20;

fn open_file(path: &str, format: Format, read_only: bool) -> Box<dyn Layer> {
    let options = OpenOptions { format: Some(format), read_only, ..OpenOptions::default() };
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match open(path, &options, &mut Vec::new()) {
            // Another test starts a process just now, which has all files until it executes its program, and their locks.
            Err(error) if error.contains("in use") && Instant::now() < deadline => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

/// Makes an image of each kind.
fn make(kind: &str, path: &str) -> Format {
    let mut file = FileStorage::create(Path::new(path)).unwrap();
    match kind {
        "vdi" | "vdi-static" => vdi::create(&mut file, SIZE, kind == "vdi-static", [7; 16]).map(|()| Format::Vdi),
        "vpc" | "vpc-fixed" => vpc::create(&mut file, SIZE, kind == "vpc-fixed", [7; 16], 1).map(|()| Format::Vpc),
        "vhdx" => vhdx::create(&mut file, SIZE, [7; 32]).map(|()| Format::Vhdx),
        _ => vmdk::create(&mut file, SIZE, "x.vmdk", 77).map(|()| Format::Vmdk),
    }
    .unwrap()
}

#[test]
fn random_operations_agree_with_a_model_and_qemu_img() {
    let folder = Folder::new("formats");
    for (seed, kind) in ["vdi", "vdi-static", "vpc", "vpc-fixed", "vmdk", "vhdx"].into_iter().enumerate() {
        let mut random = fastrand::Rng::with_seed(seed as u64);
        let path = folder.path(kind);
        let format = make(kind, &path);
        let mut model = vec![0; SIZE as usize];
        for _ in 0..3 {
            let mut image = open_file(&path, format, false);
            assert_eq!(image.len(), SIZE);
            random_operations(image.as_mut(), &mut model, &mut random, 60);
            assert!(contents(image.as_mut()) == model, "{kind}");
        }
        assert!(contents(open_file(&path, format, true).as_mut()) == model, "{kind}");
        if matches!(kind, "vdi" | "vmdk" | "vhdx") {
            qemu_check(&path, format.name(), false);
        }
        qemu_compare(&folder, &path, format.name(), &model);
    }
}

#[test]
fn images_made_by_qemu_img_open_with_their_contents() {
    let folder = Folder::new("formats-foreign");
    let mut random = fastrand::Rng::with_seed(1);
    let mut model = vec![0; SIZE as usize];
    for _ in 0..20 {
        let (at, len) = range(&mut random, SIZE, 512, 200_000);
        let byte = random.u8(..);
        model[at as usize..(at + len) as usize].iter_mut().enumerate().for_each(|(i, b)| *b = byte ^ (i / 700) as u8);
    }
    let raw = folder.path("raw");
    std::fs::write(&raw, &model).unwrap();
    for (format, options) in [
        (Format::Vdi, "static=off"),
        (Format::Vdi, "static=on"),
        (Format::Vpc, "subformat=dynamic,force_size=on"),
        (Format::Vpc, "subformat=fixed,force_size=on"),
        (Format::Vhdx, "subformat=dynamic"),
        (Format::Vhdx, "subformat=fixed"),
        (Format::Vmdk, "subformat=monolithicSparse"),
        (Format::Vmdk, "subformat=monolithicFlat"),
        (Format::Vmdk, "subformat=twoGbMaxExtentSparse"),
        (Format::Vmdk, "subformat=twoGbMaxExtentFlat"),
        (Format::Vmdk, "subformat=streamOptimized"),
    ] {
        let path = folder.path(&format!("made-{}.{}", random.u32(..), format.name()));
        let Some(output) = qemu_img(&["convert", "-f", "raw", "-O", format.name(), "-o", options, &raw, &path]) else {
            return;
        };
        assert!(output.status.success(), "{options} {}", String::from_utf8_lossy(&output.stderr));
        let stream = options.contains("stream");
        let mut image = open_file(&path, format, stream);
        assert!(contents(image.as_mut()) == model, "{options}");
        if !stream {
            let mut changed = model.clone();
            random_operations(image.as_mut(), &mut changed, &mut random, 40);
            drop(image);
            qemu_compare(&folder, &path, format.name(), &changed);
        }
    }
}

#[test]
fn hostile_images_are_refused_or_fail_in_bounded_time() {
    let start = Instant::now();
    for kind in ["vdi", "vpc", "vpc-fixed", "vmdk", "vhdx"] {
        let folder = Folder::new("formats-hostile");
        let path = folder.path(kind);
        let format = make(kind, &path);
        let mut image = open_file(&path, format, false);
        random_operations(image.as_mut(), &mut vec![0; SIZE as usize], &mut fastrand::Rng::with_seed(2), 20);
        drop(image);
        let good = std::fs::read(&path).unwrap();
        for seed in 0..100 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut bytes = good.clone();
            for _ in 0..random.usize(1..4) {
                let place = match random.u32(0..4) {
                    0 if kind == "vpc-fixed" => bytes.len() - 1 - random.usize(..512),
                    0 => random.usize(..512),
                    1 => 64 + random.usize(..20),
                    // Block table, headers, region tables, metadata.
                    2 | 3 if kind == "vhdx" => {
                        let start = [3 << 20, 64 << 10, 128 << 10, 192 << 10, 256 << 10, 2 << 20][random.usize(..6)];
                        start + random.usize(..96)
                    }
                    2 if kind == "vmdk" => (21 << 9) + random.usize(..4096),
                    _ => random.usize(..16_384),
                };
                let value =
                    [u64::MAX, u64::MAX >> 1, 1 << 63, 1 << 32, u64::MAX << 12][random.usize(..5)].to_be_bytes();
                match random.u32(0..3) {
                    0 => bytes[place] = 0xff,
                    1 => bytes[place] = random.u8(..),
                    // Large numbers, wherever a field may begin.
                    _ => bytes[place & !7..(place & !7) + 8].copy_from_slice(&value),
                }
            }
            if random.u32(0..8) == 0 {
                bytes.truncate(random.usize(..bytes.len()));
            }
            // Most changes go no further than a checksum otherwise.
            match format {
                Format::Vhdx if random.u32(0..4) > 0 => vhdx::reseal(&mut bytes),
                Format::Vpc if random.u32(0..4) > 0 => vpc::reseal(&mut bytes),
                _ => {}
            }
            let file = MemoryStorage::new(bytes);
            let storage: Box<dyn Storage> = Box::new(file.clone());
            let opened = match format {
                Format::Vdi => vdi::open(storage).map(|image| Box::new(image) as Box<dyn Layer>),
                Format::Vpc => vpc::open(storage),
                Format::Vhdx => vhdx::open(storage).map(|image| Box::new(image) as Box<dyn Layer>),
                _ => vmdk::open(storage, &|_| Err("no".into())),
            };
            let Ok(mut image) = opened else { continue };
            let mut buffer = vec![0; 8192];
            for _ in 0..10 {
                let at = random.u64(..image.len().max(1)) & !511;
                let _ = image.read_at(at, &mut buffer);
                let _ = image.write_at(at, &[5; 512]);
                let _ = image.extent(at.min(image.len()), 4096);
            }
            let _ = image.flush();
            assert!(file.len() <= good.len() as u64 + (64 << 20), "{kind}: seed {seed}");
        }
    }
    assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
}

type Opener = fn(Box<dyn Storage>) -> std::io::Result<Box<dyn Layer>>;

fn open_vmdk(file: Box<dyn Storage>) -> std::io::Result<Box<dyn Layer>> {
    vmdk::open(file, &|_| Err("no".into()))
}

fn open_vdi(file: Box<dyn Storage>) -> std::io::Result<Box<dyn Layer>> {
    vdi::open(file).map(|image| Box::new(image) as Box<dyn Layer>)
}

fn open_vhdx(file: Box<dyn Storage>) -> std::io::Result<Box<dyn Layer>> {
    vhdx::open(file).map(|image| Box::new(image) as Box<dyn Layer>)
}

/// A new image with `changes`, each of bytes from an offset on, and right checksums; opened, for reading only or not.
fn changed(kind: &str, changes: &[(usize, &[u8])], read_only: bool) -> Result<(), String> {
    let mut file = MemoryStorage::default();
    let (made, opener): (_, Opener) = match kind {
        "vdi" => (vdi::create(&mut file, SIZE, false, [7; 16]), open_vdi),
        // With a table of several sectors.
        "vpc" => (vpc::create(&mut file, 400 * SIZE, false, [7; 16], 1), vpc::open),
        "vpc-fixed" => (vpc::create(&mut file, SIZE, true, [7; 16], 1), vpc::open),
        "vhdx" => (vhdx::create(&mut file, SIZE, [7; 32]), open_vhdx),
        _ => (vmdk::create(&mut file, SIZE, "x.vmdk", 77), open_vmdk),
    };
    made.unwrap();
    let mut bytes = file.bytes();
    for (at, change) in changes {
        bytes[*at..at + change.len()].copy_from_slice(change);
    }
    match kind {
        "vpc" | "vpc-fixed" => vpc::reseal(&mut bytes),
        "vhdx" => vhdx::reseal(&mut bytes),
        _ => {}
    }
    let mut file = MemoryStorage::new(bytes);
    if read_only {
        file.set_read_only();
    }
    opener(Box::new(file)).map(|_| ()).map_err(|e| e.to_string())
}

#[test]
fn numbers_beyond_the_limits_of_headers_are_refused() {
    const FAR: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    // VMDK has its redundant directory and table in sectors 21 and 22, the others in 26 and 27.
    let cases: [(&str, usize, &[u8], &str); 22] = [
        ("vmdk", 12, &FAR, "the VMDK image is too large"),
        ("vmdk", 20, &[0, 0, 0, 0, 1, 0, 0, 0], "Invalid VMDK grain size"),
        ("vmdk", 20, &[3], "Invalid VMDK grain size"),
        ("vmdk", 44, &[0, 0, 0, 1], "VMDK grain tables of other sizes"),
        ("vmdk", 56, &FAR, "the VMDK grain directory is beyond any file"),
        ("vmdk", 48, &[0, 0, 0, 1], "unexpected end of file"),
        ("vmdk", 21 << 9, &[0xff, 0xff, 0xff, 0], "a VMDK grain table lies beyond the end"),
        ("vmdk", 26 << 9, &[0xff, 0xff, 0xff, 0], "unexpected end of file"),
        ("vmdk", 27 << 9, &[0xff, 0xff, 0xff, 0], "a VMDK grain lies beyond the end"),
        ("vdi", 340, &[0, 0, 0, 0xff], "unsupported VDI image (unaligned tables)"),
        ("vdi", 340, &[0, 0, 0, 0], "unsupported VDI image (unaligned tables)"),
        ("vdi", 368, &FAR, "unsupported VDI image (size)"),
        ("vdi", 376, &[0, 0, 0, 0], "unsupported VDI image (block size)"),
        ("vdi", 384, &[0xff, 0xff, 0xff, 0xff], "unsupported VDI image (unaligned tables)"),
        ("vdi", 512, &[5], "a VDI block lies beyond all blocks"),
        ("vpc", 16, &FAR, "unexpected end of file"),
        ("vpc", 48, &FAR, "the VHD image is too large"),
        ("vpc", 512 + 16, &FAR, "the VHD block table is beyond the end"),
        ("vpc", 512 + 28, &[0xff; 4], "the VHD block table is too small or too large"),
        ("vpc", 512 + 32, &[0, 0, 0, 0], "invalid VHD block size"),
        ("vpc", 512 + 32, &[0x80, 0, 0, 0], "invalid VHD block size"),
        ("vpc", 3 * 512, &[0, 1, 0, 0], "a VHD block lies outside the file"),
    ];
    for (kind, at, bytes, expected) in cases {
        for read_only in [false, true] {
            let error = changed(kind, &[(at, bytes)], read_only).err().unwrap_or_default();
            assert!(error.contains(expected), "{kind} {at}: {error:?}, not {expected:?}");
        }
    }
}

#[test]
fn blocks_over_the_images_own_structures_are_not_written() {
    let cases: [(&str, usize, &[u8]); 7] = [
        // The first grain is the descriptor; a table's copy is the header, or the table itself.
        ("vmdk", 27 << 9, &[2, 0, 0, 0]),
        ("vmdk", 21 << 9, &[1, 0, 0, 0]),
        ("vmdk", 21 << 9, &[27, 0, 0, 0]),
        ("vmdk", 48, &[26]),
        // The first block is the block table.
        ("vpc", 3 * 512, &[0, 0, 0, 3]),
        // The first block is the log, or the block table.
        ("vhdx", 3 << 20, &[6, 0, 0x10, 0]),
        ("vhdx", 3 << 20, &[6, 0, 0x30, 0]),
    ];
    for (kind, at, bytes) in cases {
        let error = changed(kind, &[(at, bytes)], false).err().unwrap_or_default();
        assert!(error.contains("lie over each other"), "{kind} {at} {bytes:?}: {error:?}");
        assert_eq!(changed(kind, &[(at, bytes)], true), Ok(()), "{kind} {at} {bytes:?}");
    }
    for kind in ["vdi", "vpc", "vpc-fixed", "vmdk", "vhdx"] {
        assert_eq!(changed(kind, &[], false), Ok(()), "{kind}");
    }
}

#[test]
fn both_copies_of_grain_tables_name_new_grains() {
    let mut file = MemoryStorage::default();
    vmdk::create(&mut file, SIZE, "x.vmdk", 77).unwrap();
    let mut image = open_vmdk(Box::new(file.clone())).unwrap();
    image.write_at(3 << 16, &[1; 512]).unwrap();
    image.write_at(SIZE - 512, &[2; 512]).unwrap();
    image.flush().unwrap();
    let bytes = file.bytes();
    let (copy, table) = (&bytes[22 << 9..26 << 9], &bytes[27 << 9..31 << 9]);
    assert_eq!(copy, table);
    assert_eq!(table.chunks_exact(4).filter(|entry| **entry != [0; 4]).count(), 2);
}

#[test]
fn new_blocks_come_behind_a_last_one_that_is_not_there_as_a_whole() {
    let mut file = MemoryStorage::default();
    vmdk::create(&mut file, SIZE, "x.vmdk", 77).unwrap();
    open_vmdk(Box::new(file.clone())).unwrap().write_at(0, &[1; 512]).unwrap();
    file.set_len(file.len() - 60_000).unwrap();
    let mut image = open_vmdk(Box::new(file)).unwrap();
    image.write_at(1 << 16, &[2; 1 << 16]).unwrap();
    image.write_at(0, &[3; 1 << 16]).unwrap();
    assert!(contents(image.as_mut())[..2 << 16].chunks(1 << 16).zip([3, 2]).all(|(c, b)| c.iter().all(|x| *x == b)));
}

/// What a guest writes where a VHD footer may be is not taken for one.
#[test]
fn footers_that_guests_write_are_data() {
    let mut dynamic = MemoryStorage::default();
    vpc::create(&mut dynamic, SIZE, false, [7; 16], 1).unwrap();
    let forged = dynamic.bytes()[..512].to_vec();
    let mut fixed = MemoryStorage::default();
    vpc::create(&mut fixed, SIZE, true, [7; 16], 1).unwrap();
    vpc::open(Box::new(fixed.clone())).unwrap().write_at(0, &forged).unwrap();
    let mut image = vpc::open(Box::new(fixed)).unwrap();
    assert_eq!(contents(image.as_mut())[..512], forged);
    // Power is lost when the last block is there, and the footer behind it is not.
    let mut image = vpc::open(Box::new(dynamic.clone())).unwrap();
    image.write_at((2 << 20) - 512, &forged).unwrap();
    image.flush().unwrap();
    drop(image);
    dynamic.set_len(dynamic.len() - 512).unwrap();
    let mut image = vpc::open(Box::new(dynamic.clone())).unwrap();
    image.write_at(2 << 20, &[5; 512]).unwrap();
    image.flush().unwrap();
    drop(image);
    let mut image = vpc::open(Box::new(dynamic.clone())).unwrap();
    assert_eq!(contents(image.as_mut())[(2 << 20) - 512..2 << 20], forged);
    assert!(dynamic.bytes().ends_with(&dynamic.bytes()[..512]), "the footer is back");
}
