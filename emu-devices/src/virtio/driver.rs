//! A driver for tests: sets a device up through either interface, builds queues in guest memory, and waits for interrupts.

use super::VirtioDevice;
use super::pci::{Interrupts, VirtioOptions, VirtioPci};
use super::{feature, status};
use crate::pci::config::{BAR_TAG, command, reg};
use crate::pci::{PciFunction, msix};
use crate::shared::Shared;
use crate::testbench::{Bench, IrqRecorder, World};
use emu_core::device::{Region, Space};
use emu_core::irq::MsiSink;
use std::sync::Arc;

const PORTS: u64 = 0xc000;
const MSIX: u64 = 0xfeb0_0000;
const MODERN: u64 = 0xfeb1_0000;
/// Where queues are, 64 KiB each.
const QUEUES: u64 = 0x10_0000;
/// Where buffers are.
const BUFFERS: u64 = 0x40_0000;
const RAM: u64 = 32 << 20;
/// How long the host may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// How a driver talks to the device, and is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub legacy: bool,
    pub msix: bool,
}

/// All of them.
pub const WAYS: [Way; 4] = [
    Way { legacy: false, msix: true },
    Way { legacy: false, msix: false },
    Way { legacy: true, msix: true },
    Way { legacy: true, msix: false },
];

#[derive(Default)]
struct Messages(Shared<Vec<u32>>);

impl MsiSink for Messages {
    fn deliver(&self, _address: u64, data: u32) {
        self.0.lock().push(data);
    }
}

/// A queue as its driver knows it.
#[derive(Default)]
pub struct Ring {
    pub size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
    next: u16,
    pub index: u16,
    seen: u16,
    /// The buffers to be written of each head.
    pub rooms: Vec<Vec<(u64, usize)>>,
}

/// A driver and its device.
pub struct Driver<D: VirtioDevice> {
    pub bench: Bench<VirtioPci<D>>,
    pub way: Way,
    pub features: u64,
    pub rings: Vec<Ring>,
    recorder: Arc<IrqRecorder>,
    messages: Shared<Vec<u32>>,
    allocated: u64,
}

impl<D: VirtioDevice> Driver<D> {
    /// A device whose BARs are where the driver wants them.
    pub fn new(device: D, way: Way, options: VirtioOptions) -> Driver<D> {
        Driver::in_world(device, way, options, &World::new(RAM))
    }

    pub fn in_world(device: D, way: Way, options: VirtioOptions, world: &World) -> Driver<D> {
        let recorder = world.irq_recorder();
        let messages = Shared::default();
        let interrupts =
            Interrupts { intx: recorder.line(0), messages: Some(Arc::new(Messages(Shared::clone(&messages)))) };
        let function = VirtioPci::new(device, options, interrupts);
        let config = function.config();
        let mut bench = Bench::in_world(function, world);
        {
            let mut config = config.lock();
            for (index, base) in [(0, PORTS), (1, MSIX), (4, MODERN)] {
                if let Some((space, size)) = config.bar_kind(index) {
                    config.write(reg::BAR0 + 4 * index as u8, 4, base as u32);
                    bench.map(space, Region { base, len: size.into() }, BAR_TAG + index as u32);
                }
            }
            config.write(reg::COMMAND, 2, (command::IO | command::MEMORY | command::MASTER).into());
            if way.msix {
                let mut at = config.byte(reg::CAPABILITIES);
                while at != 0 && config.byte(at) != msix::CAPABILITY {
                    at = config.byte(at + 1);
                }
                config.write(at + 2, 2, 1 << 15);
            }
        }
        bench.poll();
        if way.msix {
            for vector in 0..msix::MOST_VECTORS.into() {
                for (word, value) in [(0, 0xfee0_0000), (4, 0), (8, vector), (12, 0)] {
                    bench.write(Space::Memory, MSIX + 16 * vector + word, 4, value);
                }
            }
        }
        let mut driver = Driver { bench, way, features: 0, rings: Vec::new(), recorder, messages, allocated: BUFFERS };
        driver.forget_interrupts();
        driver
    }

    pub fn legacy_read(&mut self, offset: u64, size: u8) -> u64 {
        self.bench.read(Space::Port, PORTS + offset, size)
    }

    pub fn legacy_write(&mut self, offset: u64, size: u8, value: u64) {
        self.bench.write(Space::Port, PORTS + offset, size, value);
    }

    pub fn modern_read(&mut self, offset: u64, size: u8) -> u64 {
        self.bench.read(Space::Memory, MODERN + offset, size)
    }

    pub fn modern_write(&mut self, offset: u64, size: u8, value: u64) {
        self.bench.write(Space::Memory, MODERN + offset, size, value);
    }

    pub fn status(&mut self) -> u8 {
        if self.way.legacy { self.legacy_read(18, 1) as u8 } else { self.modern_read(20, 1) as u8 }
    }

    pub fn set_status(&mut self, value: u8) {
        if self.way.legacy { self.legacy_write(18, 1, value.into()) } else { self.modern_write(20, 1, value.into()) }
    }

    /// The device's structure.
    pub fn config(&mut self, offset: u64, size: u8) -> u64 {
        match (self.way.legacy, self.way.msix) {
            (true, true) => self.legacy_read(24 + offset, size),
            (true, false) => self.legacy_read(20 + offset, size),
            (false, _) => self.modern_read(0x2000 + offset, size),
        }
    }

    pub fn set_config(&mut self, offset: u64, size: u8, value: u64) {
        match (self.way.legacy, self.way.msix) {
            (true, true) => self.legacy_write(24 + offset, size, value),
            (true, false) => self.legacy_write(20 + offset, size, value),
            (false, _) => self.modern_write(0x2000 + offset, size, value),
        }
    }

    pub fn offered(&mut self) -> u64 {
        if self.way.legacy {
            return self.legacy_read(0, 4);
        }
        let half = |driver: &mut Self, n: u64| {
            driver.modern_write(0, 4, n);
            driver.modern_read(4, 4)
        };
        half(self, 0) | half(self, 1) << 32
    }

    /// Sets the device up, with those of `wanted` features that it offers.
    pub fn start(&mut self, wanted: u64) {
        self.set_status(0);
        self.set_status(status::ACKNOWLEDGE);
        self.set_status(status::ACKNOWLEDGE | status::DRIVER);
        let mut features = self.offered() & (wanted | feature::VERSION_1);
        let mut good = status::ACKNOWLEDGE | status::DRIVER;
        if self.way.legacy {
            features &= 0xffff_ffff;
            self.legacy_write(4, 4, features);
        } else {
            for half in 0..2 {
                self.modern_write(8, 4, half);
                self.modern_write(12, 4, features >> (32 * half) & 0xffff_ffff);
            }
            good |= status::FEATURES_OK;
            self.set_status(good);
            assert_eq!(self.status(), good, "features are refused");
        }
        self.features = features;
        self.rings.clear();
        while let Some(size) = self.select(self.rings.len() as u16) {
            let index = self.rings.len() as u64;
            let ring = self.place(QUEUES + index * 0x1_0000, size);
            self.rings.push(ring);
            if self.way.msix {
                let (at, legacy) = (if self.way.legacy { 22 } else { 26 }, self.way.legacy);
                if legacy { self.legacy_write(at, 2, index + 1) } else { self.modern_write(at, 2, index + 1) }
            }
        }
        if self.way.msix {
            if self.way.legacy { self.legacy_write(20, 2, 0) } else { self.modern_write(16, 2, 0) }
        }
        self.set_status(good | status::DRIVER_OK);
        self.forget_interrupts();
    }

    fn forget_interrupts(&mut self) {
        self.messages.lock().clear();
        self.legacy_read(19, 1);
        self.modern_read(0x1000, 1);
        self.recorder.take();
    }

    /// The size of queue `index`, which registers show from now on; `None`: there is none.
    fn select(&mut self, index: u16) -> Option<u16> {
        let size = if self.way.legacy {
            self.legacy_write(14, 2, index.into());
            self.legacy_read(12, 2)
        } else {
            self.modern_write(22, 2, index.into());
            self.modern_read(24, 2)
        };
        (size != 0).then_some(size as u16)
    }

    fn place(&mut self, base: u64, size: u16) -> Ring {
        self.bench.world.memory().write(base, &[0; 0x1_0000]);
        let n = u64::from(size);
        let (available, mut used) = (base + 16 * n, base + 0x8000);
        if self.way.legacy {
            used = (available + 6 + 2 * n).next_multiple_of(4096);
            self.legacy_write(8, 4, base >> 12);
        } else {
            for (at, value) in [(32, base), (40, available), (48, used)] {
                self.modern_write(at, 4, value & 0xffff_ffff);
                self.modern_write(at + 4, 4, value >> 32);
            }
            self.modern_write(28, 2, 1);
        }
        let rooms = vec![Vec::new(); size.into()];
        Ring { size, descriptors: base, available, used, rooms, ..Ring::default() }
    }

    /// Guest memory for `len` bytes.
    pub fn allocate(&mut self, len: usize) -> u64 {
        if self.allocated + len as u64 > RAM {
            self.allocated = BUFFERS;
        }
        let at = self.allocated;
        self.allocated += len as u64;
        at
    }

    pub fn put(&mut self, bytes: &[u8]) -> u64 {
        let at = self.allocate(bytes.len());
        self.bench.world.memory().write(at, bytes);
        at
    }

    /// Writes a descriptor.
    pub fn describe(&mut self, at: u64, address: u64, len: u32, flags: u16, next: u16) {
        let all = u128::from(address) | u128::from(len) << 64 | u128::from(flags) << 96 | u128::from(next) << 112;
        self.bench.world.memory().write(at, &all.to_le_bytes());
    }

    /// Makes a chain available: buffers to be read, and room for as many bytes; its head.
    pub fn add(&mut self, queue: usize, readable: &[&[u8]], writable: &[usize]) -> u16 {
        let mut parts: Vec<(u64, u32, u16)> =
            readable.iter().map(|bytes| (self.put(bytes), bytes.len() as u32, 0)).collect();
        let rooms: Vec<(u64, usize)> = writable.iter().map(|len| (self.allocate(*len), *len)).collect();
        parts.extend(rooms.iter().map(|(at, len)| (*at, *len as u32, 2)));
        let Ring { size, descriptors, next: head, .. } = self.rings[queue];
        for (i, (address, len, flags)) in parts.iter().enumerate() {
            let number = (head + i as u16) % size;
            let more = u16::from(i + 1 < parts.len());
            self.describe(descriptors + 16 * u64::from(number), *address, *len, flags | more, (number + 1) % size);
        }
        self.rings[queue].next = (head + parts.len() as u16) % size;
        self.rings[queue].rooms[usize::from(head)] = rooms;
        self.offer(queue, head);
        head
    }

    /// Puts a head into the available ring.
    pub fn offer(&mut self, queue: usize, head: u16) {
        let ring = &mut self.rings[queue];
        let memory = self.bench.world.memory();
        memory.write(ring.available + 4 + 2 * u64::from(ring.index % ring.size), &head.to_le_bytes());
        ring.index = ring.index.wrapping_add(1);
        memory.write(ring.available + 2, &ring.index.to_le_bytes());
    }

    pub fn kick(&mut self, queue: usize) {
        if self.way.legacy {
            self.legacy_write(16, 2, queue as u64);
        } else {
            self.modern_write(0x3000 + 4 * queue as u64, 2, queue as u64);
        }
    }

    /// What the device has given back: heads and lengths.
    pub fn used(&mut self, queue: usize) -> Vec<(u16, u32)> {
        let memory = self.bench.world.memory().clone();
        let ring = &mut self.rings[queue];
        let mut index = [0; 2];
        memory.read(ring.used + 2, &mut index);
        let mut all = Vec::new();
        while ring.seen != u16::from_le_bytes(index) {
            let mut element = [0; 8];
            memory.read(ring.used + 4 + 8 * u64::from(ring.seen % ring.size), &mut element);
            let element = u64::from_le_bytes(element);
            all.push((element as u16, (element >> 32) as u32));
            ring.seen = ring.seen.wrapping_add(1);
        }
        all
    }

    /// What the device has given back a second later; in real time, what its back end has done first, which may need a moment.
    pub fn used_later(&mut self, queue: usize) -> Vec<(u16, u32)> {
        self.bench.advance(1_000_000_000);
        let start = std::time::Instant::now();
        loop {
            let used = self.used(queue);
            if !used.is_empty() || start.elapsed() > PATIENCE {
                return used;
            }
            std::thread::yield_now();
            self.bench.poll();
        }
    }

    /// What is in the room that went with `head`.
    pub fn room(&self, queue: usize, head: u16) -> Vec<u8> {
        let mut all = Vec::new();
        for (at, len) in &self.rings[queue].rooms[usize::from(head)] {
            let mut bytes = vec![0; *len];
            self.bench.world.memory().read(*at, &mut bytes);
            all.extend(bytes);
        }
        all
    }

    /// Sends a request and returns what comes back for it, which must be there at once.
    pub fn request(&mut self, queue: usize, readable: &[&[u8]], writable: &[usize]) -> Vec<u8> {
        let head = self.add(queue, readable, writable);
        self.kick(queue);
        let used = self.used(queue);
        assert!(used.len() == 1 && used[0].0 == head, "{used:?}");
        let mut answer = self.room(queue, head);
        answer.truncate(used[0].1 as usize);
        answer
    }

    /// The interrupts since the last call: vectors (0: configuration, n + 1: queue n), or the ISR's bits once for INTx#.
    pub fn interrupts(&mut self) -> Vec<u32> {
        if self.way.msix {
            return std::mem::take(&mut self.messages.lock());
        }
        let rose = self.recorder.take_rises(0) > 0;
        let isr = if self.way.legacy { self.legacy_read(19, 1) } else { self.modern_read(0x1000, 1) };
        assert_eq!(rose, isr != 0);
        assert!(!rose || self.recorder.take().iter().any(|change| !change.high), "reading the ISR lowers INTA#");
        if rose { vec![isr as u32] } else { Vec::new() }
    }

    /// What [`Driver::interrupts`] shows for one interrupt of `queue`.
    pub fn interrupt_of(&self, queue: usize) -> Vec<u32> {
        vec![if self.way.msix { queue as u32 + 1 } else { 1 }]
    }

    /// What it shows for a change of the configuration.
    pub fn interrupt_of_config(&self) -> Vec<u32> {
        vec![if self.way.msix { 0 } else { 2 }]
    }
}
