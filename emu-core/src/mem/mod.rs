//! Guest physical memory: what is RAM, what is ROM, and which bytes hold decoded code.
//!
//! ```text
//!  0        640K   768K        1M            low_top      ROM 4G  4G        4G + high
//!  | RAM    | VGA  | shadow    | RAM         | PCI hole   | BIOS  | RAM      |
//!           ^ 16 KiB chunks from 640K to 1M are routed one by one (i440FX PAM and SMRAM)
//! ```
//! All of it is one [`Ram`]: RAM first, then ROM and device memory. An offset into it is an [`Offset`]; a guest physical
//! address is a [`PhysAddr`]. Everything that is not backed here belongs to the bus.

pub mod ram;

use ram::{Ram, Run, Wait};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence};
use std::sync::{Mutex, RwLock};

/// A guest physical address, after the A20 gate where it comes from a vCPU.
pub type PhysAddr = u64;

/// A byte's place in the [`Ram`] of the machine.
pub type Offset = usize;

/// Bytes in a page.
pub const PAGE: u64 = 4096;

/// RAM below 4 GiB ends here at the latest, where the PCI hole begins.
pub const PCI_HOLE: u64 = 0xc000_0000;

/// How many stores to a page that held code miss all code before it is an ordinary page again.
const GUARDED: u8 = 16;

const LEGACY_START: u64 = 0xa_0000;
const LEGACY_END: u64 = 0x10_0000;
const CHUNK: u64 = 0x4000;
const CHUNKS: usize = ((LEGACY_END - LEGACY_START) / CHUNK) as usize;

/// What backs a physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backing {
    /// Where reads come from; `None`: from the bus.
    pub read: Option<Offset>,
    /// Where writes go; `None`: to the bus, which swallows writes to ROM.
    pub write: Option<Offset>,
}

impl Backing {
    const BUS: Backing = Backing { read: None, write: None };

    fn ram(offset: u64) -> Backing {
        Backing { read: Some(offset as usize), write: Some(offset as usize) }
    }
}

#[derive(Clone, Copy)]
struct Extra {
    start: PhysAddr,
    len: u64,
    offset: u64,
    writable: bool,
}

struct Layout {
    /// Routing of the 16 KiB chunks from 640 KiB to 1 MiB, as offsets of their first byte.
    legacy: [Backing; CHUNKS],
    /// ROM offsets behind those chunks, where there is a ROM.
    legacy_rom: [Option<Offset>; CHUNKS],
    extras: Vec<Extra>,
}

/// Physical memory of one machine.
pub struct GuestMemory {
    ram: Ram,
    ram_size: u64,
    low_top: u64,
    layout: RwLock<Layout>,
    a20: AtomicU64,
    next_extra: AtomicU64,
    /// One word a page: bit n is set while bytes `64 n..64 n + 64` hold decoded code.
    code: Box<[AtomicU64]>,
    /// Pages to which stores take the slow path because they hold, or held until lately, decoded code: how many more of
    /// them are to miss all code before the page is an ordinary one again.
    guarded: Box<[AtomicU8]>,
    code_written: AtomicBool,
    code_writes: Mutex<Vec<(Offset, usize)>>,
}

impl GuestMemory {
    /// `ram_size` bytes of RAM (rounded up to pages) and room for `extra` bytes of ROM and device memory.
    ///
    /// # Errors
    /// The host refuses the mapping.
    pub fn new(ram_size: u64, extra: u64) -> std::io::Result<GuestMemory> {
        let ram_size = ram_size.next_multiple_of(PAGE);
        let total = ram_size
            .checked_add(extra.next_multiple_of(PAGE))
            .and_then(|n| usize::try_from(n).ok())
            .ok_or(std::io::ErrorKind::OutOfMemory)?;
        // Machines with less RAM than 1 MiB still own the whole of their low memory below 640 KiB only.
        let mut legacy = [Backing::BUS; CHUNKS];
        for (i, chunk) in legacy.iter_mut().enumerate() {
            let start = LEGACY_START + i as u64 * CHUNK;
            if start >= 0xc_0000 && start + CHUNK <= ram_size {
                *chunk = Backing::ram(start);
            }
        }
        Ok(GuestMemory {
            ram: Ram::new(total)?,
            ram_size,
            low_top: ram_size.min(PCI_HOLE),
            layout: RwLock::new(Layout { legacy, legacy_rom: [None; CHUNKS], extras: Vec::new() }),
            a20: AtomicU64::new(u64::MAX),
            next_extra: AtomicU64::new(ram_size),
            code: (0..total.div_ceil(PAGE as usize)).map(|_| AtomicU64::new(0)).collect(),
            guarded: (0..total.div_ceil(PAGE as usize)).map(|_| AtomicU8::new(0)).collect(),
            code_written: AtomicBool::new(false),
            code_writes: Mutex::new(Vec::new()),
        })
    }

    /// Bytes of RAM.
    pub fn ram_size(&self) -> u64 {
        self.ram_size
    }

    /// Bytes of RAM below the PCI hole.
    pub fn low_ram(&self) -> u64 {
        self.low_top
    }

    /// Bytes of RAM from 4 GiB up.
    pub fn high_ram(&self) -> u64 {
        self.ram_size - self.low_top
    }

    /// The bytes themselves.
    pub fn ram(&self) -> &Ram {
        &self.ram
    }

    /// What backs `address`; the answer holds for the rest of its page.
    pub fn resolve(&self, address: PhysAddr) -> Backing {
        if address < LEGACY_START {
            return if address < self.low_top { Backing::ram(address) } else { Backing::BUS };
        }
        if address < LEGACY_END {
            let layout = read_lock(&self.layout);
            let chunk = layout.legacy[((address - LEGACY_START) / CHUNK) as usize];
            let within = (address % CHUNK) as usize;
            return Backing { read: chunk.read.map(|o| o + within), write: chunk.write.map(|o| o + within) };
        }
        if address < self.low_top {
            return Backing::ram(address);
        }
        const FOUR_GIB: u64 = 1 << 32;
        if address >= FOUR_GIB && address - FOUR_GIB < self.high_ram() {
            return Backing::ram(self.low_top + (address - FOUR_GIB));
        }
        let layout = read_lock(&self.layout);
        match layout.extras.iter().find(|e| address.wrapping_sub(e.start) < e.len) {
            Some(e) => {
                let offset = (e.offset + (address - e.start)) as usize;
                Backing { read: Some(offset), write: e.writable.then_some(offset) }
            }
            None => Backing::BUS,
        }
    }

    /// Whether all of `len` bytes from `address` are memory that can be read and written, so that DMA to and from them loses nothing.
    /// Takes no longer for a long range than for a short one.
    pub fn is_writable_memory(&self, address: PhysAddr, len: u64) -> bool {
        const FOUR_GIB: u64 = 1 << 32;
        let Some(end) = address.checked_add(len) else { return false };
        let inside = |start: u64, stop: u64| address >= start && end <= stop;
        if inside(LEGACY_END, self.low_top)
            || inside(FOUR_GIB, FOUR_GIB + self.high_ram())
            || inside(0, LEGACY_START.min(self.low_top))
        {
            return true;
        }
        let layout = read_lock(&self.layout);
        if end <= self.low_top {
            // Part of it lies between 640 KiB and 1 MiB.
            let first = address.saturating_sub(LEGACY_START) / CHUNK;
            let last = (end.min(LEGACY_END) - 1).saturating_sub(LEGACY_START) / CHUNK;
            let chunks = layout.legacy.iter().take(last as usize + 1).skip(first as usize);
            return chunks.into_iter().all(|chunk| chunk.read.is_some() && chunk.read == chunk.write);
        }
        layout
            .extras
            .iter()
            .any(|e| e.writable && address >= e.start && address - e.start < e.len && end - e.start <= e.len)
    }

    /// Puts `len` bytes of ROM or device memory (page-aligned) at `start`; the offset of its first byte, or `None` if the
    /// room given at creation is used up.
    pub fn add_extra(&self, start: PhysAddr, len: u64, writable: bool) -> Option<Offset> {
        let len = len.next_multiple_of(PAGE);
        let offset = self.next_extra.fetch_add(len, Ordering::Relaxed);
        if offset.checked_add(len)? > self.ram.len() as u64 {
            return None;
        }
        write_lock(&self.layout).extras.push(Extra { start, len, offset, writable });
        Some(offset as usize)
    }

    /// Moves what [`GuestMemory::add_extra`] returned `offset` for to another address (a PCI BAR); `None` hides it.
    /// The caller must have the vCPU drop its translations ([`crate::irq::CpuPins::FLUSH`]).
    pub fn move_extra(&self, offset: Offset, start: Option<PhysAddr>) {
        let mut layout = write_lock(&self.layout);
        if let Some(extra) = layout.extras.iter_mut().find(|e| e.offset == offset as u64) {
            extra.start = start.unwrap_or(u64::MAX - extra.len);
        }
    }

    /// Puts the ROM at `offset` behind the shadow area from `start` (16 KiB chunks) for as many as `len` bytes.
    pub fn set_legacy_rom(&self, start: PhysAddr, len: u64, offset: Offset) {
        let mut layout = write_lock(&self.layout);
        for i in 0..CHUNKS {
            let at = LEGACY_START + i as u64 * CHUNK;
            if at >= start && at + CHUNK <= start + len {
                let rom = offset + (at - start) as usize;
                layout.legacy_rom[i] = Some(rom);
                layout.legacy[i] = Backing { read: Some(rom), write: None };
            }
        }
    }

    /// Routes `[start, end)` between 640 KiB and 1 MiB: reads from RAM or from ROM and bus, writes to RAM or to the bus.
    pub fn set_shadow(&self, start: PhysAddr, end: PhysAddr, read_ram: bool, write_ram: bool) {
        let mut layout = write_lock(&self.layout);
        for i in 0..CHUNKS {
            let at = LEGACY_START + i as u64 * CHUNK;
            if at >= start && at + CHUNK <= end && at + CHUNK <= self.ram_size {
                let ram = Some(at as usize);
                layout.legacy[i] = Backing {
                    read: if read_ram { ram } else { layout.legacy_rom[i] },
                    write: if write_ram { ram } else { None },
                };
            }
        }
    }

    /// The mask that the A20 gate puts on addresses.
    #[inline]
    pub fn a20_mask(&self) -> u64 {
        self.a20.load(Ordering::Relaxed)
    }

    /// Opens (`true`) or closes the A20 gate; whether that changed anything.
    pub fn set_a20(&self, on: bool) -> bool {
        let mask = if on { u64::MAX } else { !(1 << 20) };
        self.a20.swap(mask, Ordering::Relaxed) != mask
    }

    /// DMA and debugger read. Bytes that no memory backs read as all ones.
    pub fn read(&self, address: PhysAddr, bytes: &mut [u8]) {
        self.pages(address, bytes.len(), |at, range| match self.resolve(at).read {
            Some(offset) => self.ram.read(offset, &mut bytes[range]),
            None => bytes[range].fill(0xff),
        });
    }

    /// DMA and loader write. Bytes that no writable memory backs are dropped. Decoded code is invalidated.
    pub fn write(&self, address: PhysAddr, bytes: &[u8]) {
        self.pages(address, bytes.len(), |at, range| {
            if let Some(offset) = self.resolve(at).write {
                self.ram.write(offset, &bytes[range.clone()]);
                self.report_code(offset, range.len());
            }
        });
    }

    /// DMA from byte `offset` of `file` to `places` (address, bytes), one after the other, without a copy in between; as
    /// [`GuestMemory::write`] otherwise.
    ///
    /// # Errors
    /// [`std::io::ErrorKind::Unsupported`], with nothing done: not all of them are memory that can be written. The host cannot read the
    /// file, or not at once, or it ends before: some may have been written.
    pub fn read_file(
        &self,
        places: &[(PhysAddr, usize)],
        file: BorrowedFd<'_>,
        offset: u64,
        wait: Wait,
    ) -> std::io::Result<()> {
        let runs = self.runs(places, |backing| backing.write)?;
        let result = transfer(&runs, offset, |runs, offset| self.ram.read_file(runs, file, offset, wait));
        for (offset, len) in runs {
            self.pages(offset as u64, len, |at, range| self.report_code(at as usize, range.len()));
        }
        result
    }

    /// DMA from `places` to byte `offset` of `file`; as [`GuestMemory::read`] otherwise.
    ///
    /// # Errors
    /// [`std::io::ErrorKind::Unsupported`], with nothing done: not all of them are memory. The host cannot write the file: some may have
    /// been written.
    pub fn write_file(&self, places: &[(PhysAddr, usize)], file: BorrowedFd<'_>, offset: u64) -> std::io::Result<()> {
        let runs = self.runs(places, |backing| backing.read)?;
        transfer(&runs, offset, |runs, offset| self.ram.write_file(runs, file, offset))
    }

    /// The runs of the [`Ram`] behind `places`.
    fn runs(
        &self,
        places: &[(PhysAddr, usize)],
        pick: impl Fn(Backing) -> Option<Offset>,
    ) -> std::io::Result<Vec<Run>> {
        let mut runs: Vec<Run> = Vec::new();
        let mut missing = false;
        for &(address, len) in places {
            self.pages(address, len, |at, range| match (pick(self.resolve(at)), runs.last_mut()) {
                (None, _) => missing = true,
                (Some(offset), Some((start, len))) if *start + *len == offset => *len += range.len(),
                (Some(offset), _) => runs.push((offset, range.len())),
            });
        }
        if missing { Err(std::io::ErrorKind::Unsupported.into()) } else { Ok(runs) }
    }

    /// Reports `len` bytes at `offset`, within one page, that have been written, if they hold code. Whoever decodes them meanwhile marks
    /// them first and looks at them again then ([`GuestMemory::recheck_code`]), so that one of the two sees what the other has done.
    fn report_code(&self, offset: Offset, len: usize) {
        fence(Ordering::SeqCst);
        if self.holds_code(offset, len) {
            lock(&self.code_writes).push((offset, len));
            self.code_written.store(true, Ordering::Release);
        }
    }

    /// Reports code at `offset`, within one page, if it is not `bytes` any more: it was read to be decoded before it was marked, and DMA
    /// on another thread may have been in between. Whether it is.
    pub fn recheck_code(&self, offset: Offset, bytes: &[u8]) -> bool {
        fence(Ordering::SeqCst);
        let mut now = [0; 64];
        let changed = bytes.chunks(now.len()).enumerate().any(|(i, chunk)| {
            self.ram.read(offset + i * now.len(), &mut now[..chunk.len()]);
            now[..chunk.len()] != *chunk
        });
        if changed {
            self.report_code(offset, bytes.len());
        }
        changed
    }

    /// Makes the page of 4 KiB at `address`, a multiple of that, zeros, and gives it back to the host; nothing happens if it is not RAM.
    pub fn discard_page(&self, address: PhysAddr) {
        let Some(offset) = self.resolve(address).write.filter(|offset| (*offset as u64) < self.ram_size) else {
            return;
        };
        if !(offset as u64).is_multiple_of(PAGE) {
            return;
        }
        self.ram.discard_page(offset);
        self.report_code(offset, PAGE as usize);
    }

    fn pages(&self, address: PhysAddr, len: usize, mut f: impl FnMut(PhysAddr, std::ops::Range<usize>)) {
        let mut done = 0;
        while done < len {
            let at = address.wrapping_add(done as u64);
            let n = ((PAGE - at % PAGE) as usize).min(len - done);
            f(at, done..done + n);
            done += n;
        }
    }

    /// Whether any of `len` (at most a page, within one page) bytes at `offset` share a 64-byte chunk with decoded code.
    #[inline]
    pub fn holds_code(&self, offset: Offset, len: usize) -> bool {
        match self.code.get(offset / PAGE as usize) {
            Some(word) => word.load(Ordering::Relaxed) & chunk_mask(offset, len) != 0,
            None => false,
        }
    }

    /// Whether plain stores to the page of `offset` must take the slow path, for the sake of decoded code.
    #[inline]
    pub fn is_guarded(&self, offset: Offset) -> bool {
        self.guarded.get(offset / PAGE as usize).is_some_and(|left| left.load(Ordering::Relaxed) != 0)
    }

    /// Notes that `len` bytes at `offset`, within one page, hold decoded code. Whether the page was not guarded before.
    pub fn mark_code(&self, offset: Offset, len: usize) -> bool {
        let page = offset / PAGE as usize;
        let (Some(word), Some(left)) = (self.code.get(page), self.guarded.get(page)) else { return false };
        word.fetch_or(chunk_mask(offset, len), Ordering::Relaxed);
        left.swap(GUARDED, Ordering::Relaxed) == 0
    }

    /// Notes that just the 64-byte `chunks` of the page of `offset` hold decoded code now. The page stays guarded: code
    /// that is overwritten is mostly about to be decoded again.
    pub fn set_code(&self, offset: Offset, chunks: u64) {
        if let Some(word) = self.code.get(offset / PAGE as usize) {
            word.store(chunks, Ordering::Relaxed);
        }
    }

    /// Notes that a store to a guarded page has missed all code. A page without any is no longer guarded after some time.
    pub fn missed_code(&self, offset: Offset) {
        let page = offset / PAGE as usize;
        if let (Some(word), Some(left)) = (self.code.get(page), self.guarded.get(page))
            && word.load(Ordering::Relaxed) == 0
        {
            let now = left.load(Ordering::Relaxed);
            left.store(now.saturating_sub(1), Ordering::Relaxed);
        }
    }

    /// Notes that the page of `offset` holds no decoded code any more.
    pub fn forget_code(&self, offset: Offset) {
        self.set_code(offset, 0);
        if let Some(left) = self.guarded.get(offset / PAGE as usize) {
            left.store(0, Ordering::Relaxed);
        }
    }

    /// Whether DMA has hit decoded code since the last [`GuestMemory::take_code_writes`].
    pub fn has_code_writes(&self) -> bool {
        self.code_written.load(Ordering::Acquire)
    }

    /// The ranges of decoded code that DMA has overwritten.
    pub fn take_code_writes(&self) -> Vec<(Offset, usize)> {
        self.code_written.store(false, Ordering::Release);
        std::mem::take(&mut lock(&self.code_writes))
    }
}

/// Has `f`, which says how far it got, move all of `runs` from or to byte `offset` of a file.
fn transfer(
    runs: &[Run],
    offset: u64,
    mut f: impl FnMut(&[Run], i64) -> std::io::Result<usize>,
) -> std::io::Result<()> {
    let mut at = i64::try_from(offset).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    let mut left = runs.to_vec();
    while !left.is_empty() {
        let mut done = match f(&left, at) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(done) => done,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        at += done as i64;
        let mut whole = 0;
        while let Some((_, len)) = left.get(whole).filter(|(_, len)| *len <= done) {
            done -= len;
            whole += 1;
        }
        left.drain(..whole);
        if let Some((start, len)) = left.first_mut() {
            (*start, *len) = (*start + done, *len - done);
        }
    }
    Ok(())
}

/// The bits of the 64-byte chunks that `len` bytes at `offset` touch within their page.
pub fn chunk_mask(offset: Offset, len: usize) -> u64 {
    let first = (offset % PAGE as usize) / 64;
    let last = ((offset % PAGE as usize + len.max(1) - 1) / 64).min(63);
    (u64::MAX >> (63 - (last - first))) << first
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|p| p.into_inner())
}

fn read_lock<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(|p| p.into_inner())
}

fn write_lock<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(|p| p.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_above_the_pci_hole_continues_at_4_gib() {
        let memory = GuestMemory::new(PCI_HOLE + 0x20_0000, 0).unwrap();
        assert_eq!(memory.resolve(PCI_HOLE), Backing::BUS);
        assert_eq!(memory.resolve((1 << 32) + 5).read, Some(PCI_HOLE as usize + 5));
        assert_eq!(memory.resolve((1 << 32) + 0x20_0000), Backing::BUS);
    }

    #[test]
    fn shadow_routes_reads_and_writes_apart() {
        let memory = GuestMemory::new(0x20_0000, 0x1_0000).unwrap();
        let rom = memory.add_extra(0xffff_0000, 0x1_0000, false).unwrap();
        memory.ram().write(rom, &[0x55]);
        memory.set_legacy_rom(0xf_0000, 0x1_0000, rom);
        memory.write(0xf_0000, &[1]);
        let mut byte = [0];
        memory.read(0xf_0000, &mut byte);
        assert_eq!(byte, [0x55]);
        memory.set_shadow(0xf_0000, 0x10_0000, false, true);
        memory.write(0xf_0000, &[2]);
        memory.read(0xf_0000, &mut byte);
        assert_eq!(byte, [0x55]);
        memory.set_shadow(0xf_0000, 0x10_0000, true, false);
        memory.read(0xf_0000, &mut byte);
        assert_eq!(byte, [2]);
        memory.read(0xffff_0000, &mut byte);
        assert_eq!(byte, [0x55]);
    }

    #[test]
    fn code_that_dma_overwrites_before_it_is_marked_is_reported() {
        let memory = GuestMemory::new(0x10_0000, 0).unwrap();
        memory.write(0x1040, &[0x90; 200]);
        memory.mark_code(0x1040, 200);
        assert!(!memory.recheck_code(0x1040, &[0x90; 200]));
        let mut decoded = [0x90; 200];
        decoded[150] = 0xc3;
        assert!(memory.recheck_code(0x1040, &decoded));
        assert_eq!(memory.take_code_writes(), [(0x1040, 200)]);
    }

    #[test]
    fn file_is_read_into_memory_and_written_from_it_where_that_is_memory() {
        use std::os::fd::AsFd;
        let path = std::env::temp_dir().join(format!("emu-memory-{}", std::process::id()));
        let bytes: Vec<u8> = (0..40_000u32).map(|n| (n / 256 + n) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let memory = GuestMemory::new(0x10_0000, 0).unwrap();
        memory.mark_code(0x3010, 10);
        let places = [(0x1ff0, 0x2000), (0x8_0001, 777), (0x9_f000, 0x1000)];
        memory.read_file(&places, file.as_fd(), 5, Wait::AsLongAsItTakes).unwrap();
        let read = |memory: &GuestMemory| {
            let piece = |&(address, len): &(u64, usize)| {
                let mut piece = vec![0; len];
                memory.read(address, &mut piece);
                piece
            };
            places.iter().flat_map(piece).collect::<Vec<u8>>()
        };
        let all = 0x3000 + 777;
        assert!(read(&memory) == bytes[5..5 + all]);
        assert_eq!(memory.take_code_writes(), [(0x3000, 0xff0)]);
        memory.write_file(&places, file.as_fd(), 30_000).unwrap();
        let mut written = vec![0; all];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut written, 30_000).unwrap();
        assert!(written == bytes[5..5 + all]);
        // The file ends before, or what it would go to is no memory.
        let end = memory.read_file(&places, file.as_fd(), 50_000, Wait::AsLongAsItTakes).map_err(|e| e.kind());
        assert_eq!(end, Err(std::io::ErrorKind::UnexpectedEof));
        let beyond = memory
            .read_file(&[(0x1000, 16), (0x9_fff0, 0x20)], file.as_fd(), 0, Wait::AsLongAsItTakes)
            .map_err(|e| e.kind());
        assert_eq!(beyond, Err(std::io::ErrorKind::Unsupported));
        assert!(read(&memory) == bytes[5..5 + all]);
        // What the host has at hand is there, or it says that it does not know.
        memory.write(0x1ff0, &[0]);
        match memory.read_file(&places, file.as_fd(), 5, Wait::Never) {
            Ok(()) => assert!(read(&memory) == bytes[5..5 + all]),
            Err(e) => assert!(matches!(e.kind(), std::io::ErrorKind::Unsupported | std::io::ErrorKind::WouldBlock)),
        }
    }

    #[test]
    fn runs_that_move_in_parts_go_on_where_they_were() {
        let mut asked = Vec::new();
        let mut parts = [5, 10, 2, 3].into_iter();
        let moved = transfer(&[(100, 10), (200, 5), (300, 5)], 7, |runs, at| {
            asked.push((runs.to_vec(), at));
            Ok(parts.next().unwrap_or(0))
        });
        moved.unwrap();
        let third = (vec![(300, 5)], 22);
        assert_eq!(asked[0], (vec![(100, 10), (200, 5), (300, 5)], 7));
        assert_eq!(asked[1], (vec![(105, 5), (200, 5), (300, 5)], 12));
        assert_eq!(asked[2], third);
        assert_eq!(asked[3], (vec![(302, 3)], 24));
    }

    #[test]
    fn dma_into_code_is_reported_by_chunk() {
        let memory = GuestMemory::new(0x10_0000, 0).unwrap();
        assert!(memory.mark_code(0x1040, 10));
        memory.write(0x1000, &[0; 64]);
        assert!(!memory.has_code_writes());
        memory.write(0x1000, &[0; 65]);
        assert_eq!(memory.take_code_writes(), [(0x1000, 65)]);
        assert!(!memory.has_code_writes());
    }
}
