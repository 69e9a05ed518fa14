//! qcow2 images against a model, `qemu-img`, and losses of power.

use super::check::Fix;
use super::create::{Options, create};
use super::header::Compression;
use super::*;
use crate::image::file::{FileMode, FileStorage};
use crate::image::storage::MemoryStorage;
use crate::image::testing::*;
use std::time::Duration;

fn new_image(options: &Options) -> MemoryStorage {
    let mut file = MemoryStorage::default();
    create(&mut file, options, None).unwrap();
    file
}

fn open(file: &MemoryStorage) -> Qcow2 {
    Qcow2::open(Box::new(file.clone()), Dirty::Repair).unwrap()
}

const VARIANTS: [(u32, u64, u32); 6] =
    [(3, 64 << 10, 16), (2, 4096, 16), (3, 512, 1), (3, 4096, 64), (3, 2 << 20, 4), (3, 512, 32)];

#[test]
fn random_operations_agree_with_a_model_and_qemu_img() {
    let folder = Folder::new("random");
    for (i, (version, cluster_size, refcount_bits)) in VARIANTS.into_iter().enumerate() {
        let mut random = fastrand::Rng::with_seed(i as u64);
        let size = 3 << 20;
        let file = new_image(&Options { size, version, cluster_size, refcount_bits, ..Options::default() });
        let mut model = vec![0; size as usize];
        for _ in 0..3 {
            let mut image = open(&file);
            random_operations(&mut image, &mut model, &mut random, 100);
        }
        let mut image = open(&file);
        assert!(contents(&mut image) == model);
        let check = image.check_structures(Fix::Nothing).unwrap();
        assert_eq!((check.corruptions, check.leaks), (0, 0), "{:?}", check.problems);
        drop(image);
        let path = folder.path("a.qcow2");
        std::fs::write(&path, file.bytes()).unwrap();
        qemu_check(&path, "qcow2", false);
        qemu_compare(&folder, &path, "qcow2", &model);
    }
}

#[test]
fn images_made_by_qemu_img_open_with_their_contents() {
    let folder = Folder::new("foreign");
    let mut random = fastrand::Rng::with_seed(1);
    let size = 4usize << 20;
    let mut model = vec![0; size];
    for _ in 0..40 {
        let (at, len) = range(&mut random, size as u64, 512, 60_000);
        let byte = random.u8(..);
        for (i, b) in model[at as usize..(at + len) as usize].iter_mut().enumerate() {
            *b = byte ^ (i / 300) as u8;
        }
    }
    let raw = folder.path("raw");
    std::fs::write(&raw, &model).unwrap();
    for options in [
        "compat=0.10",
        "compat=1.1,cluster_size=512",
        "compression_type=zstd",
        "cluster_size=2M,refcount_bits=1",
        "lazy_refcounts=on",
        "preallocation=metadata",
    ] {
        for compressed in [false, true] {
            let path = folder.path("b.qcow2");
            let mut words = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", options, &raw, &path];
            if compressed && !options.contains("preallocation") {
                words.insert(1, "-c");
            }
            let Some(output) = qemu_img(&words) else { return };
            assert!(output.status.success(), "{words:?} {}", String::from_utf8_lossy(&output.stderr));
            let file = MemoryStorage::new(std::fs::read(&path).unwrap());
            let mut image = open(&file);
            assert!(contents(&mut image) == model, "{options} {compressed}");
            let check = image.check_structures(Fix::Nothing).unwrap();
            assert_eq!((check.corruptions, check.leaks), (0, 0), "{:?}", check.problems);
            let mut changed = model.clone();
            random_operations(&mut image, &mut changed, &mut random, 60);
            drop(image);
            std::fs::write(&path, file.bytes()).unwrap();
            qemu_check(&path, "qcow2", false);
            qemu_compare(&folder, &path, "qcow2", &changed);
        }
    }
}

#[test]
fn compressed_clusters_read_back_here_and_in_qemu_img() {
    let folder = Folder::new("compress");
    for (compression, refcount_bits) in [(Compression::Zlib, 16), (Compression::Zstd, 16), (Compression::Zlib, 1)] {
        let mut random = fastrand::Rng::with_seed(5);
        let size = 2 << 20;
        let file = new_image(&Options { size, compression, refcount_bits, ..Options::default() });
        let mut image = open(&file);
        let mut model = vec![0; size as usize];
        for (i, cluster) in model.chunks_mut(64 << 10).enumerate() {
            match i % 3 {
                0 => cluster.iter_mut().enumerate().for_each(|(i, b)| *b = (i / 7) as u8),
                1 => cluster.iter_mut().for_each(|b| *b = random.u8(..)),
                _ => cluster[5000..].iter_mut().for_each(|b| *b = random.u8(..) & 0x11),
            }
            image.write_compressed((i * (64 << 10)) as u64, cluster).unwrap();
        }
        assert!(contents(&mut image) == model);
        image.flush().unwrap();
        let check = image.check_structures(Fix::Nothing).unwrap();
        assert_eq!((check.corruptions, check.leaks), (0, 0), "{:?}", check.problems);
        assert!(check.compressed_clusters >= 20);
        random_operations(&mut image, &mut model, &mut random, 50);
        drop(image);
        let path = folder.path("c.qcow2");
        std::fs::write(&path, file.bytes()).unwrap();
        qemu_check(&path, "qcow2", false);
        qemu_compare(&folder, &path, "qcow2", &model);
    }
}

#[test]
fn backing_image_shows_through_and_is_left_alone() {
    for version in [2, 3] {
        let mut random = fastrand::Rng::with_seed(9);
        let below = new_image(&Options { size: 1 << 20, cluster_size: 4096, ..Options::default() });
        let mut model = vec![0; 2 << 20];
        random_operations(&mut open(&below), &mut model[..1 << 20], &mut random, 80);
        let before = below.bytes();
        let file = new_image(&Options { size: 2 << 20, version, cluster_size: 8192, ..Options::default() });
        for _ in 0..2 {
            let mut image = open(&file);
            let mut backing = below.clone();
            backing.set_read_only();
            image.set_backing(Some(Box::new(Qcow2::open(Box::new(backing), Dirty::Repair).unwrap()))).unwrap();
            assert!(contents(&mut image) == model);
            random_operations(&mut image, &mut model, &mut random, 80);
            assert!(contents(&mut image) == model);
            let check = image.check_structures(Fix::Nothing).unwrap();
            assert_eq!(check.corruptions, 0, "{:?}", check.problems);
        }
        assert!(below.bytes() == before);
    }
}

#[test]
fn snapshots_keep_what_was_there_and_give_it_back() {
    let folder = Folder::new("snapshots");
    for (i, (version, cluster_size, refcount_bits)) in VARIANTS.into_iter().enumerate() {
        if refcount_bits == 1 {
            let file =
                new_image(&Options { size: 1 << 20, version, cluster_size, refcount_bits, ..Options::default() });
            let mut image = open(&file);
            image.write_at(0, &[1; 512]).unwrap();
            assert!(image.create_snapshot("a", Duration::ZERO).is_err());
            continue;
        }
        let mut random = fastrand::Rng::with_seed(i as u64);
        let size = 3 << 20;
        let file = new_image(&Options { size, version, cluster_size, refcount_bits, ..Options::default() });
        let mut model = vec![0; size as usize];
        let mut kept: Vec<(String, Vec<u8>)> = Vec::new();
        for round in 0..12 {
            let mut image = open(&file);
            random_operations(&mut image, &mut model, &mut random, 25);
            match random.u32(0..4) {
                0 if !kept.is_empty() => {
                    let (name, bytes) = &kept[random.usize(..kept.len())];
                    image.apply_snapshot(name).unwrap();
                    model.clone_from(bytes);
                }
                1 if kept.len() > 1 => {
                    let (name, _) = kept.remove(random.usize(..kept.len()));
                    image.delete_snapshot(&name).unwrap();
                }
                _ => {
                    let name = format!("snap {round}");
                    image.create_snapshot(&name, Duration::from_secs(1000)).unwrap();
                    kept.push((name, model.clone()));
                }
            }
            assert!(contents(&mut image) == model);
            random_operations(&mut image, &mut model, &mut random, 10);
            drop(image);
            let check = open(&file).check_structures(Fix::Nothing).unwrap();
            assert_eq!((check.corruptions, check.leaks), (0, 0), "{version} {cluster_size} {:?}", check.problems);
        }
        let path = folder.path("s.qcow2");
        std::fs::write(&path, file.bytes()).unwrap();
        qemu_check(&path, "qcow2", false);
        qemu_compare(&folder, &path, "qcow2", &model);
        for (name, bytes) in &kept {
            qemu_img_ok(&["snapshot", "-a", name, &path]);
            qemu_compare(&folder, &path, "qcow2", bytes);
        }
        qemu_check(&path, "qcow2", false);
        let list = open(&file).snapshots().unwrap();
        assert_eq!(list.iter().map(|s| &s.name).collect::<Vec<_>>(), kept.iter().map(|(n, _)| n).collect::<Vec<_>>());
    }
}

#[test]
fn size_changes_and_new_bytes_are_zeros() {
    let folder = Folder::new("resize");
    for (i, (version, cluster_size, refcount_bits)) in VARIANTS.into_iter().enumerate() {
        let mut random = fastrand::Rng::with_seed(i as u64);
        let file = new_image(&Options { size: 1 << 20, version, cluster_size, refcount_bits, ..Options::default() });
        let mut model = vec![0; 1 << 20];
        for _ in 0..8 {
            let mut image = open(&file);
            random_operations(&mut image, &mut model, &mut random, 20);
            let size = random.usize(1..6000) * 512;
            image.resize(size as u64).unwrap();
            model.resize(size, 0);
            assert!(contents(&mut image) == model, "{cluster_size}");
            drop(image);
            let check = open(&file).check_structures(Fix::Nothing).unwrap();
            assert_eq!((check.corruptions, check.leaks), (0, 0), "{version} {cluster_size} {:?}", check.problems);
        }
        let path = folder.path("r.qcow2");
        std::fs::write(&path, file.bytes()).unwrap();
        qemu_check(&path, "qcow2", false);
        qemu_compare(&folder, &path, "qcow2", &model);
    }
}

/// Sectors, and all that each may hold after a loss of power: what was flushed, and what has been written since.
struct Possible(Vec<Vec<Vec<u8>>>);

impl Possible {
    fn new(bytes: &[u8]) -> Possible {
        Possible(bytes.chunks(512).map(|sector| vec![sector.to_vec()]).collect())
    }
    fn add(&mut self, offset: u64, bytes: &[u8]) {
        for (sector, contents) in self.0[offset as usize / 512..].iter_mut().zip(bytes.chunks(512)) {
            sector.push(contents.to_vec());
        }
    }
    fn flushed(&mut self) {
        for sector in &mut self.0 {
            sector.drain(..sector.len() - 1);
        }
    }
}

#[test]
fn power_cuts_lose_nothing_that_was_flushed_and_leave_images_that_pass_check() {
    let folder = Folder::new("power");
    let path = folder.path("p.qcow2");
    for seed in 0..30 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (version, cluster_size, refcount_bits) = VARIANTS[seed as usize % VARIANTS.len()];
        let size = 1u64 << 20;
        let first = new_image(&Options { size, version, cluster_size, refcount_bits, ..Options::default() });
        let mut bytes = first.bytes();
        let mut possible = Possible::new(&vec![0; size as usize]);
        // The image is used again after each loss of power.
        for _ in 0..3 {
            let storage = CrashStorage::new(bytes);
            let mut image = Qcow2::open(Box::new(storage.clone()), Dirty::Repair).unwrap();
            storage.set_fuse(random.u64(1..300));
            loop {
                let (at, len) = range(&mut random, size, 512, 200 << 10);
                let zeros = vec![0; len as usize];
                let result = match random.u32(0..10) {
                    0..=4 => {
                        let mut bytes = zeros;
                        bytes.iter_mut().for_each(|b| *b = random.u8(..));
                        possible.add(at, &bytes);
                        write(&mut image, at, &bytes, &mut random)
                    }
                    5 => {
                        possible.add(at, &zeros);
                        image.write_zeroes(at, len, random.bool())
                    }
                    6 => {
                        possible.add(at, &zeros);
                        let result = image.discard(at, len);
                        if result.is_ok() {
                            let mut now = zeros;
                            image.read_at(at, &mut now).unwrap();
                            possible.add(at, &now);
                        }
                        result
                    }
                    _ => {
                        let result = image.flush();
                        if result.is_ok() {
                            possible.flushed();
                        }
                        result
                    }
                };
                if result.is_err() {
                    break;
                }
            }
            drop(image);
            bytes = if random.bool() { storage.after_crash(&mut random) } else { storage.after_kill() };
            std::fs::write(&path, &bytes).unwrap();
            qemu_check(&path, "qcow2", true);
            let mut image = Qcow2::open(Box::new(MemoryStorage::new(bytes.clone())), Dirty::Repair).unwrap();
            let now = contents(&mut image);
            for (number, (sector, possible)) in now.chunks(512).zip(&possible.0).enumerate() {
                assert!(possible.iter().any(|p| p == sector), "seed {seed}: sector {number} has lost what was flushed");
            }
            possible = Possible::new(&now);
        }
    }
}

#[test]
fn power_cuts_during_snapshots_are_repaired_on_opening() {
    let folder = Folder::new("power-snapshots");
    let path = folder.path("p.qcow2");
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(1000 + seed);
        let size = 1u64 << 20;
        let file = new_image(&Options { size, cluster_size: 4096, ..Options::default() });
        let mut model = vec![0; size as usize];
        let mut image = open(&file);
        random_operations(&mut image, &mut model, &mut random, 20);
        image.create_snapshot("old", Duration::ZERO).unwrap();
        let old = model.clone();
        random_operations(&mut image, &mut model, &mut random, 20);
        drop(image);
        let storage = CrashStorage::new(file.bytes());
        let mut image = Qcow2::open(Box::new(storage.clone()), Dirty::Repair).unwrap();
        storage.set_fuse(random.u64(1..40));
        let applied = match random.u32(0..3) {
            0 => image.create_snapshot("new", Duration::ZERO).map(|()| false),
            1 => image.delete_snapshot("old").map(|()| false),
            _ => image.apply_snapshot("old").map(|()| true),
        };
        drop(image);
        let crashed = MemoryStorage::new(storage.after_crash(&mut random));
        let mut image = open(&crashed);
        let now = contents(&mut image);
        match applied {
            Ok(true) => assert!(now == old),
            Ok(false) => assert!(now == model),
            Err(_) => assert!(now == model || now == old),
        }
        drop(image);
        std::fs::write(&path, crashed.bytes()).unwrap();
        qemu_check(&path, "qcow2", true);
    }
}

#[test]
fn damaged_refcounts_are_found_and_repaired() {
    let folder = Folder::new("repair");
    let path = folder.path("d.qcow2");
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (version, cluster_size, refcount_bits) = VARIANTS[seed as usize % VARIANTS.len()];
        let file = new_image(&Options { size: 1 << 20, version, cluster_size, refcount_bits, ..Options::default() });
        let mut model = vec![0; 1 << 20];
        random_operations(&mut open(&file), &mut model, &mut random, 20);
        // Some of the counts of the first block are overwritten.
        let mut bytes = file.bytes();
        let block = u64::from_be_bytes(bytes[cluster_size as usize..][..8].try_into().unwrap()) as usize;
        for _ in 0..4 {
            bytes[block + random.usize(..cluster_size as usize)] = random.u8(..);
        }
        let file = MemoryStorage::new(bytes);
        let mut image = Qcow2::open(Box::new(file.clone()), Dirty::Leave).unwrap();
        image.check_structures(Fix::All).unwrap();
        let again = image.check_structures(Fix::Nothing).unwrap();
        assert_eq!((again.corruptions, again.leaks), (0, 0), "{:?}", again.problems);
        drop(image);
        assert!(contents(&mut open(&file)) == model);
        std::fs::write(&path, file.bytes()).unwrap();
        qemu_check(&path, "qcow2", false);
    }
}

#[test]
fn corrupt_image_opens_only_for_reading() {
    let file = new_image(&Options { size: 1 << 20, ..Options::default() });
    let mut bytes = file.bytes();
    bytes[79] |= incompatible::CORRUPT as u8;
    let mut file = MemoryStorage::new(bytes);
    let error = Qcow2::open(Box::new(file.clone()), Dirty::Repair).err().unwrap();
    assert_eq!(error.to_string(), "qcow2: Image is corrupt; cannot be opened read/write");
    file.set_read_only();
    let mut image = Qcow2::open(Box::new(file), Dirty::Repair).unwrap();
    assert!(contents(&mut image).iter().all(|b| *b == 0) && image.write_at(0, &[1; 512]).is_err());
}

#[test]
fn data_over_the_images_own_structures_is_refused_and_marks_the_image() {
    // A table that says that the guest's first cluster is the header.
    let file = new_image(&Options { size: 1 << 20, ..Options::default() });
    open(&file).write_at(0, &[1; 65536]).unwrap();
    let mut image = open(&file);
    let l2 = (image.l1[0] & OFFSET) as usize;
    for victim in [image.header.l1_offset, image.header.refcount_table_offset, l2 as u64, 0x20000] {
        let mut bytes = file.bytes();
        bytes[l2..l2 + 8].copy_from_slice(&(table::COPIED | victim).to_be_bytes());
        let hostile = MemoryStorage::new(bytes);
        let mut image = open(&hostile);
        assert!(image.write_at(512, &[2; 512]).unwrap_err().to_string().contains("would be written over"));
        assert!(image.write_at(1 << 19, &[2; 512]).is_err());
        drop(image);
        assert_eq!(hostile.bytes()[79] & 2, 2);
    }
    image.flush().unwrap();
}

#[test]
fn refcount_block_that_is_named_again_and_again_is_refused() {
    let file = new_image(&Options { size: 1 << 20, cluster_size: 4096, ..Options::default() });
    let mut bytes = file.bytes();
    let table = u64::from_be_bytes(bytes[48..56].try_into().unwrap()) as usize;
    let block: [u8; 8] = bytes[table..table + 8].try_into().unwrap();
    bytes[table + 8..table + 16].copy_from_slice(&block);
    let hostile = MemoryStorage::new(bytes);
    let error = Qcow2::open(Box::new(hostile.clone()), Dirty::Repair).err().unwrap().to_string();
    assert!(error.contains("counts two ranges"), "{error}");
    let mut reader = hostile;
    reader.set_read_only();
    assert!(Qcow2::open(Box::new(reader), Dirty::Repair).is_ok());
}

/// An image whose L1 table is made by `l1` of its L2 table's offset, and the offset of that table.
fn with_l1(size: u64, l1: impl Fn(u64, usize) -> u64) -> (Vec<u8>, usize) {
    let file = new_image(&Options { size, cluster_size: 4096, ..Options::default() });
    open(&file).write_at(0, &[1; 4096]).unwrap();
    let image = open(&file);
    let (start, len, l2) = (image.header.l1_offset as usize, image.l1.len(), image.l1[0] & OFFSET);
    let mut bytes = file.bytes();
    for i in 0..len {
        bytes[start + 8 * i..start + 8 * i + 8].copy_from_slice(&l1(l2, i).to_be_bytes());
    }
    (bytes, l2 as usize)
}

fn check(bytes: Vec<u8>) -> CheckResult {
    let start = std::time::Instant::now();
    let mut image = Qcow2::open(Box::new(MemoryStorage::new(bytes)), Dirty::Leave).unwrap();
    let result = image.check_structures(Fix::Nothing).unwrap();
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    result
}

#[test]
fn search_for_room_passes_over_what_is_taken() {
    for refcount_bits in [1, 2, 16] {
        let file = new_image(&Options { size: 4 << 20, refcount_bits, ..Options::default() });
        let mut bytes = file.bytes();
        let block = u64::from_be_bytes(bytes[65536..65544].try_into().unwrap()) as usize;
        bytes[block..block + 65536].fill(if refcount_bits == 16 { 1 } else { 0xff });
        // Two that are free, apart from each other.
        for free in [1001, 2003] {
            refcount::set(&mut bytes[block..block + 65536], u32::ilog2(refcount_bits), free, 0);
        }
        let file = MemoryStorage::new(bytes);
        let mut image = open(&file);
        image.write_at(0, &[5; 65536]).unwrap();
        assert_eq!((image.l1[0] & OFFSET) >> 16, 1001, "{refcount_bits}");
        assert!(matches!(image.map(0, 1).unwrap().0, Cluster::Normal(at) if at >> 16 == 2003));
    }
}

#[test]
fn table_that_is_named_again_and_again_is_looked_at_once() {
    // Half a million tables of 512 entries, all of them one.
    let (mut bytes, l2) = with_l1(1 << 40, |l2, _| l2);
    for entry in bytes[l2 + 8..l2 + 4096].chunks_exact_mut(8) {
        entry.copy_from_slice(&(!(table::COPIED | table::COMPRESSED)).to_be_bytes());
    }
    let result = check(bytes.clone());
    let number = l2 >> 12;
    let line = format!("ERROR cluster {number} refcount=1 reference=524288");
    assert!(result.problems.contains(&line) || result.problems.len() > 4096, "{:?}", result.problems);
    // The entries that are impossible, each once; the L1 entries' flags; the counts of the table and the cluster.
    assert_eq!((result.corruptions, result.copied_errors), (511 + 524_288 + 2, 524_288));
    assert!(result.problems.len() <= 4097);
    for read_only in [false, true] {
        let mut file = MemoryStorage::new(bytes.clone());
        if read_only {
            file.set_read_only();
        }
        let opened = Qcow2::open(Box::new(file), Dirty::Repair);
        assert_eq!(opened.is_ok(), read_only);
    }
}

#[test]
fn snapshots_that_share_tables_beyond_reason_are_damaged() {
    let file = new_image(&Options { size: 1 << 40, cluster_size: 4096, ..Options::default() });
    let mut image = open(&file);
    image.write_at(0, &[1; 4096]).unwrap();
    image.create_snapshot("name", Duration::ZERO).unwrap();
    let (table, len) = (image.header.snapshots_offset as usize, image.snapshot_table_len().unwrap() as usize);
    drop(image);
    // Ten thousand of them, in a table behind the end.
    let mut bytes = file.bytes();
    let at = bytes.len() as u64;
    let entry = bytes[table..table + len].to_vec();
    bytes.extend(entry.repeat(10_000));
    bytes.resize(bytes.len().next_multiple_of(4096), 0);
    bytes[60..64].copy_from_slice(&10_000u32.to_be_bytes());
    bytes[64..72].copy_from_slice(&at.to_be_bytes());
    let result = check(bytes.clone());
    assert_eq!(result.problems[0], "ERROR snapshot 1: its L1 table lies over another one");
    assert!(result.corruptions >= 9_999, "{}", result.corruptions);
    // One that names a table twice cannot be taken apart.
    let mut bytes = file.bytes();
    let l1 = u64::from_be_bytes(bytes[table..table + 8].try_into().unwrap()) as usize;
    bytes.copy_within(l1..l1 + 8, l1 + 8);
    let mut image = open(&MemoryStorage::new(bytes));
    for error in [image.delete_snapshot("name"), image.apply_snapshot("name")] {
        assert_eq!(error.unwrap_err().to_string(), "an L2 table maps two ranges of the disk");
    }
}

#[test]
fn references_behind_the_end_of_the_file_are_not_counted() {
    let (mut bytes, l2) = with_l1(1 << 30, |l2, i| if i == 0 { l2 | table::COPIED } else { (i as u64) << 44 });
    for (i, entry) in bytes[l2 + 8..l2 + 4096].chunks_exact_mut(8).enumerate() {
        entry.copy_from_slice(&((i as u64 + 1) << 40).to_be_bytes());
    }
    let result = check(bytes);
    assert_eq!((result.corruptions, result.leaks), (511 + 2 * 511, 0), "{:?}", &result.problems[..4]);
}

#[test]
fn holes_that_a_table_names_take_no_time() {
    let folder = Folder::new("holes");
    let path = folder.path("h.qcow2");
    let file = new_image(&Options { size: 1 << 54, cluster_size: 2 << 20, ..Options::default() });
    let l1 = open(&file).header.l1_offset as usize;
    let mut bytes = file.bytes();
    let (first, count) = (bytes.len() as u64 >> 21, 30_000);
    for i in 0..count {
        bytes[l1 + 8 * i as usize..][..8].copy_from_slice(&(table::COPIED | (first + i) << 21).to_be_bytes());
    }
    let host = std::fs::File::create(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&host, &bytes, 0).unwrap();
    host.set_len((first + count) << 21).unwrap();
    let mode = FileMode { read_only: true, unlocked: true, ..FileMode::default() };
    let file = FileStorage::open(path.as_ref(), mode).unwrap();
    let start = std::time::Instant::now();
    let mut image = Qcow2::open(Box::new(file), Dirty::Leave).unwrap();
    let result = image.check_structures(Fix::Nothing).unwrap();
    assert_eq!(result.corruptions, 2 * count);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn encryption_header_has_its_place_and_is_never_written_over() {
    let file = new_image(&Options { size: 1 << 20, ..Options::default() });
    open(&file).write_at(0, &[1; 65536]).unwrap();
    let image = open(&file);
    let (l2, data) = ((image.l1[0] & OFFSET) as usize, image.untouched);
    drop(image);
    // An extension that says that the next cluster to be given out is the encryption header.
    let with_header = |start: u64, len: u64| {
        let mut bytes = file.bytes();
        let at = bytes[100..104].try_into().map(u32::from_be_bytes).unwrap() as usize;
        bytes.copy_within(at..at + 512, at + 24);
        bytes[at..at + 8].copy_from_slice(&[0x05, 0x37, 0xbe, 0x77, 0, 0, 0, 16]);
        bytes[at + 8..at + 24].copy_from_slice(&[start.to_be_bytes(), len.to_be_bytes()].concat());
        MemoryStorage::new(bytes)
    };
    for (start, len) in [(512, 512), (u64::MAX << 16, 512), (data, u64::MAX), (1 << 62, 1 << 20)] {
        assert!(Qcow2::open(Box::new(with_header(start, len)), Dirty::Leave).is_err(), "{start:#x} {len:#x}");
    }
    let hostile = with_header(data, 1000);
    let error = open(&hostile).write_at(65536, &[2; 65536]).unwrap_err().to_string();
    assert!(error.contains("the encryption header is counted as free"), "{error}");
    let mut bytes = with_header(data, 1000).bytes();
    bytes[l2..l2 + 8].copy_from_slice(&(table::COPIED | data).to_be_bytes());
    let error = open(&MemoryStorage::new(bytes)).write_at(0, &[2; 512]).unwrap_err().to_string();
    assert!(error.contains("written over the encryption header"), "{error}");
}

#[test]
fn snapshot_whose_name_is_no_utf8_takes_nothing_with_it() {
    let file = new_image(&Options { size: 1 << 20, cluster_size: 512, ..Options::default() });
    let mut image = open(&file);
    image.create_snapshot(&"a".repeat(400), Duration::ZERO).unwrap();
    image.write_at(0, &[1; 8192]).unwrap();
    drop(image);
    let mut bytes = file.bytes();
    let name = bytes.windows(400).position(|window| window == [b'a'; 400]).unwrap();
    // Latin-1, three times as long in UTF-8 as it is understood.
    bytes[name..name + 400].fill(0xe9);
    let file = MemoryStorage::new(bytes);
    let mut image = open(&file);
    image.create_snapshot("b", Duration::ZERO).unwrap();
    image.delete_snapshot("1").unwrap();
    let result = image.check_structures(Fix::Nothing).unwrap();
    assert_eq!((result.corruptions, result.leaks), (0, 0), "{:?}", result.problems);
}

#[test]
fn backing_name_that_is_longer_than_a_cluster_is_refused() {
    let file = new_image(&Options { size: 1 << 20, cluster_size: 512, ..Options::default() });
    let mut bytes = file.bytes();
    bytes[8..16].copy_from_slice(&u64::MAX.to_be_bytes());
    bytes[16..20].copy_from_slice(&1000u32.to_be_bytes());
    assert!(Qcow2::open(Box::new(MemoryStorage::new(bytes)), Dirty::Repair).is_err());
}

#[test]
fn hostile_images_are_refused_or_fail_in_bounded_time() {
    let file = new_image(&Options { size: 1 << 20, cluster_size: 4096, ..Options::default() });
    let mut model = vec![0; 1 << 20];
    let mut random = fastrand::Rng::with_seed(3);
    let mut image = open(&file);
    random_operations(&mut image, &mut model, &mut random, 30);
    image.create_snapshot("a", Duration::ZERO).unwrap();
    image.write_compressed(4096, &[7; 4096]).unwrap();
    drop(image);
    let good = file.bytes();
    // Wherever a structure is.
    let hot: Vec<usize> = (0..good.len() / 4096).filter(|c| *c < 6 || good[c * 4096] & 0x80 != 0).collect();
    let start = std::time::Instant::now();
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes = good.clone();
        for _ in 0..random.usize(1..4) {
            let place = match random.u32(0..3) {
                0 => random.usize(..112),
                1 => hot[random.usize(..hot.len())] * 4096 + random.usize(..64),
                _ => hot[random.usize(..hot.len())] * 4096 + random.usize(..4096),
            };
            bytes[place] = match random.u32(0..4) {
                0 => 0xff,
                1 => 0,
                _ => random.u8(..),
            };
            // Large numbers, wherever a field may begin.
            if random.u32(0..4) == 0 {
                let value = [u64::MAX, u64::MAX >> 1, 1 << 63, 1 << 56, u64::MAX << 12][random.usize(..5)];
                bytes[place & !7..(place & !7) + 8].copy_from_slice(&value.to_be_bytes());
            }
        }
        if random.u32(0..8) == 0 {
            bytes.truncate(random.usize(..bytes.len()));
        }
        let file = MemoryStorage::new(bytes);
        let Ok(mut image) = Qcow2::open(Box::new(file.clone()), Dirty::Repair) else { continue };
        let mut buffer = vec![0; 8192];
        for _ in 0..10 {
            let at = random.u64(..image.len().max(1)) & !511;
            let _ = image.read_at(at, &mut buffer);
            let _ = image.write_at(at, &buffer[..512]);
            let _ = image.discard(at, 8192);
        }
        let _ = image.flush();
        let _ = image.create_snapshot("b", Duration::ZERO);
        let _ = image.delete_snapshot("a");
        let _ = image.check_structures(Fix::Nothing);
        let _ = image.check_structures(Fix::All);
        assert!(file.len() <= 64 << 20, "seed {seed}");
    }
    assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
}
