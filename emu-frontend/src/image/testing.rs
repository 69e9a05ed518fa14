//! What the tests of formats share: a storage that loses power, `qemu-img`, a model of a disk.

use crate::image::layer::Layer;
use crate::image::storage::Storage;
use emu_core::mem::GuestMemory;
use emu_devices::scatter::{Scatter, Segment};
use emu_devices::storage::block::{HostBytes, Located};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The unit that is written wholly or not at all, in bytes.
const SECTOR: usize = 512;

#[derive(Default)]
struct Power {
    durable: Vec<u8>,
    now: Vec<u8>,
    /// Sectors written since the last flush, in order: number and contents; and lengths set.
    pending: Vec<(usize, Vec<u8>)>,
    /// Operations until the power fails.
    fuse: Option<u64>,
}

/// Storage whose power can fail: of what was written since the last flush, any sectors are lost.
#[derive(Clone, Default)]
pub struct CrashStorage(Arc<Mutex<Power>>);

impl CrashStorage {
    pub fn new(bytes: Vec<u8>) -> CrashStorage {
        let power = Power { durable: bytes.clone(), now: bytes, ..Power::default() };
        CrashStorage(Arc::new(Mutex::new(power)))
    }

    /// The power fails after so many more writes and flushes.
    pub fn set_fuse(&self, operations: u64) {
        self.power().fuse = Some(operations);
    }

    fn power(&self) -> std::sync::MutexGuard<'_, Power> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is found afterwards: of each sector, any version since the last flush.
    pub fn after_crash(&self, random: &mut fastrand::Rng) -> Vec<u8> {
        let power = self.power();
        let mut bytes = power.durable.clone();
        let chance = random.u32(0..=100);
        for (sector, contents) in &power.pending {
            if random.u32(0..100) < chance {
                let at = sector * SECTOR;
                if bytes.len() < at + contents.len() {
                    bytes.resize(at + contents.len(), 0);
                }
                bytes[at..at + contents.len()].copy_from_slice(contents);
            }
        }
        bytes
    }

    /// As after kill -9: the host's cache survives.
    pub fn after_kill(&self) -> Vec<u8> {
        self.power().now.clone()
    }
}

impl Power {
    fn operate(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            Some(0) => Err(io::Error::other("power is off")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Storage for CrashStorage {
    fn len(&self) -> u64 {
        self.power().now.len() as u64
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let power = self.power();
        let there = (power.now.len() as u64).saturating_sub(offset).min(buffer.len() as u64) as usize;
        buffer[there..].fill(0);
        if there > 0 {
            buffer[..there].copy_from_slice(&power.now[offset as usize..offset as usize + there]);
        }
        Ok(())
    }
    fn shared(&self, _offset: u64, _len: u64, _to_write: bool) -> Option<Arc<dyn HostBytes>> {
        Some(Arc::new(Exclusive(Mutex::new(self.clone()))))
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut power = self.power();
        power.operate()?;
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        if power.now.len() < end {
            power.now.resize(end, 0);
        }
        power.now[start..end].copy_from_slice(bytes);
        for sector in start / SECTOR..end.div_ceil(SECTOR) {
            let contents = power.now[sector * SECTOR..].iter().take(SECTOR).copied().collect();
            power.pending.push((sector, contents));
        }
        Ok(())
    }
    fn flush(&mut self) -> io::Result<()> {
        let mut power = self.power();
        power.operate()?;
        power.durable = power.now.clone();
        power.pending.clear();
        Ok(())
    }
    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let mut power = self.power();
        power.operate()?;
        power.now.resize(len as usize, 0);
        power.durable.resize(len as usize, 0);
        Ok(())
    }
    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        // What is given back may read as anything.
        let end = (offset + len).min(self.len());
        if offset < end { self.write_at(offset, &vec![0xdd; (end - offset) as usize]) } else { Ok(()) }
    }
}

/// Storage as several threads have it: one after the other.
pub struct Exclusive<S>(pub Mutex<S>);

impl<S: Storage> HostBytes for Exclusive<S> {
    fn read_to(&self, offset: u64, room: &Scatter, part: Range<usize>) -> io::Result<()> {
        let mut bytes = vec![0; part.len()];
        self.0.lock().unwrap_or_else(PoisonError::into_inner).read_at(offset, &mut bytes)?;
        room.write(part.start, &bytes);
        Ok(())
    }
    fn write_from(&self, offset: u64, data: &Scatter, part: Range<usize>) -> io::Result<()> {
        let mut bytes = vec![0; part.len()];
        data.read(part.start, &mut bytes);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_at(offset, &bytes)
    }
}

/// Guest memory with `bytes` in it, in two runs.
fn in_guest_memory(bytes: &[u8]) -> Scatter {
    let memory = Arc::new(GuestMemory::new(4 << 20, 0).unwrap());
    let first = (bytes.len() / 3).max(1);
    let runs = [(0x10_0200, first), (0x20_0100, bytes.len() - first)];
    let runs: Vec<_> = runs.iter().filter(|run| run.1 > 0).collect();
    let segments: Vec<_> = runs.iter().map(|run| Segment { address: run.0, len: run.1 as u32 }).collect();
    let place = Scatter::new(&memory, &segments, 0, bytes.len());
    assert_eq!(place.write(0, bytes), bytes.len());
    place
}

/// Writes as [`Layer::write_at`], but where the bytes lie on the host, if `random` says so and they do.
pub fn write(image: &mut dyn Layer, at: u64, bytes: &[u8], random: &mut fastrand::Rng) -> io::Result<()> {
    if random.bool() {
        return image.write_at(at, bytes);
    }
    let data = in_guest_memory(bytes);
    let mut done = 0;
    while done < bytes.len() {
        let rest = at + done as u64;
        done += match image.locate(rest, (bytes.len() - done) as u64, true) {
            Some(Located { bytes, offset, len }) => {
                bytes.write_from(offset, &data, done..done + len as usize)?;
                len as usize
            }
            None => {
                let n = (bytes.len() - done).min(512);
                image.write_at(rest, &bytes[done..done + n])?;
                n
            }
        };
    }
    Ok(())
}

/// Reads in the same way.
pub fn read(image: &mut dyn Layer, at: u64, bytes: &mut [u8], random: &mut fastrand::Rng) -> io::Result<()> {
    let place = in_guest_memory(bytes);
    let located = if random.bool() { image.locate(at, bytes.len() as u64, false) } else { None };
    let Some(Located { bytes: host, offset, len }) = located else { return image.read_at(at, bytes) };
    let len = len as usize;
    match host.read_to(offset, &place, 0..len) {
        Ok(()) => assert_eq!(place.read(0, &mut bytes[..len]), len),
        // Not at once: it is asked for otherwise.
        Err(_) => image.read_at(at, &mut bytes[..len])?,
    }
    image.read_at(at + len as u64, &mut bytes[len..])
}

/// A folder that goes with the test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("emu-image-{name}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs `qemu-img`; `None` where there is none, with a word about it.
pub fn qemu_img(words: &[&str]) -> Option<Output> {
    match Command::new("qemu-img").args(words).output() {
        Ok(output) => Some(output),
        Err(_) => {
            eprintln!("qemu-img is not installed: not compared");
            None
        }
    }
}

/// Runs `qemu-img`, which must succeed.
pub fn qemu_img_ok(words: &[&str]) {
    if let Some(output) = qemu_img(words) {
        assert!(
            output.status.success(),
            "qemu-img {words:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// `qemu-img check` finds no corruption in `path`, and leaks only if `leaks`.
pub fn qemu_check(path: &str, format: &str, leaks: bool) {
    let Some(output) = qemu_img(&["check", "-f", format, path]) else { return };
    let status = output.status.code();
    assert!(
        status == Some(0) || leaks && status == Some(3),
        "{path}: {status:?} {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// `qemu-img compare` finds the disk in `path` equal to `bytes`.
pub fn qemu_compare(folder: &Folder, path: &str, format: &str, bytes: &[u8]) {
    let raw = folder.path("model.raw");
    std::fs::write(&raw, bytes).unwrap();
    qemu_img_ok(&["compare", "-f", format, "-F", "raw", path, &raw]);
}

/// All of an image.
pub fn contents(image: &mut dyn Layer) -> Vec<u8> {
    let mut bytes = vec![0; image.len() as usize];
    image.read_at(0, &mut bytes).unwrap();
    bytes
}

/// A random run of `unit`s within `len` bytes.
pub fn range(random: &mut fastrand::Rng, len: u64, unit: u64, longest: u64) -> (u64, u64) {
    let units = len / unit;
    let start = random.u64(0..units);
    let n = random.u64(1..=longest.div_ceil(unit)).min(units - start);
    (start * unit, n * unit)
}

/// Random writes, zeros and reads on `image` and `model` alike. `discards_to` says what discarded bytes read as.
pub fn random_operations(image: &mut dyn Layer, model: &mut [u8], random: &mut fastrand::Rng, count: usize) {
    for _ in 0..count {
        let (at, len) = range(random, model.len() as u64, 512, 100 << 10);
        let (start, end) = (at as usize, (at + len) as usize);
        match random.u32(0..10) {
            0..=4 => {
                let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len as usize).collect();
                write(image, at, &bytes, random).unwrap();
                model[start..end].copy_from_slice(&bytes);
            }
            5 | 6 => {
                image.write_zeroes(at, len, random.bool()).unwrap();
                model[start..end].fill(0);
            }
            7 => {
                // What it reads as afterwards is the image's to say.
                image.discard(at, len).unwrap();
                image.read_at(at, &mut model[start..end]).unwrap();
            }
            8 => image.flush().unwrap(),
            _ => {
                let mut bytes = vec![0; len as usize];
                read(image, at, &mut bytes, random).unwrap();
                assert!(bytes == model[start..end], "{at:#x} {len:#x}");
            }
        }
    }
}
