//! VDI, VHD and VMDK images against a model and `qemu-img`, and hostile ones.

use crate::image::file::{FileMode, FileStorage};
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
        let mut good = vec![0; FileStorage::open(Path::new(&path), FileMode::default()).unwrap().len() as usize];
        good.copy_from_slice(&std::fs::read(&path).unwrap());
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
