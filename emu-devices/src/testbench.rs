//! A bench for conversations with one device: a fake clock, memory, the requests it makes and the interrupts it raises.
//!
//! ```text
//!   test --out8/in8/..--> Bench<D> --Access--> D --IrqLine--> IrqRecorder
//!            advance  -->  World (clock, memory)              (time, pin, level)
//! ```
//! Several devices share a [`World`]; each is advanced on its own bench. Accesses are split as the bus splits them.

use emu_core::bus::Notifier;
use emu_core::clock::Instant;
use emu_core::device::{Access, Device, DeviceContext, Region, Request, ResetKind, Space};
use emu_core::irq::{IrqInput, IrqLine};
use emu_core::mem::GuestMemory;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// What devices share: the fake clock and guest memory. Clones are the same world.
#[derive(Clone)]
pub struct World {
    clock: Arc<AtomicU64>,
    memory: Arc<GuestMemory>,
}

impl World {
    /// Power-on with `ram` bytes of memory.
    ///
    /// # Panics
    /// The host refuses the mapping.
    pub fn new(ram: u64) -> World {
        World::with_extra(ram, 0)
    }

    /// The same with room for `extra` bytes of ROM and device memory.
    ///
    /// # Panics
    /// The host refuses the mapping.
    pub fn with_extra(ram: u64, extra: u64) -> World {
        let memory = GuestMemory::new(ram, extra).expect("memory for a test");
        World { clock: Arc::default(), memory: Arc::new(memory) }
    }

    /// Virtual time.
    pub fn now(&self) -> Instant {
        Instant(self.clock.load(Ordering::Relaxed))
    }

    /// Guest memory.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Sets the clock without telling any device.
    pub fn set_now(&self, now: Instant) {
        self.clock.store(now.0, Ordering::Relaxed);
    }

    /// An input that records with this world's time.
    pub fn irq_recorder(&self) -> Arc<IrqRecorder> {
        Arc::new(IrqRecorder { clock: self.clock.clone(), changes: Mutex::default() })
    }
}

/// A change of a recorded line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IrqChange {
    /// When.
    pub at: Instant,
    /// Which pin.
    pub pin: u32,
    /// Its level from then on.
    pub high: bool,
}

/// An interrupt controller's inputs that only takes notes.
pub struct IrqRecorder {
    clock: Arc<AtomicU64>,
    changes: Mutex<Vec<IrqChange>>,
}

impl IrqRecorder {
    /// A line to `pin`.
    pub fn line(self: &Arc<Self>, pin: u32) -> IrqLine {
        IrqLine::new(vec![(self.clone(), pin)])
    }

    /// Takes the changes since the last call.
    pub fn take(&self) -> Vec<IrqChange> {
        std::mem::take(&mut self.lock())
    }

    /// Takes the changes since the last call and counts those of `pin` to high.
    pub fn take_rises(&self, pin: u32) -> usize {
        self.take().iter().filter(|c| c.pin == pin && c.high).count()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<IrqChange>> {
        self.changes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl IrqInput for IrqRecorder {
    fn set_level(&self, pin: u32, high: bool) {
        let at = Instant(self.clock.load(Ordering::Relaxed));
        self.lock().push(IrqChange { at, pin, high });
    }
}

/// One device on the bench.
pub struct Bench<D: Device> {
    /// The device.
    pub device: D,
    /// Clock and memory.
    pub world: World,
    /// What the device has asked of the machine and the test has not taken.
    pub requests: Vec<Request>,
    mappings: Vec<(Space, Region, u32)>,
}

impl<D: Device> Bench<D> {
    /// `device` in a new world with 2 MiB of memory, after a cold reset.
    pub fn new(device: D) -> Bench<D> {
        Bench::in_world(device, &World::new(2 << 20))
    }

    /// `device` in `world`, after a cold reset.
    pub fn in_world(mut device: D, world: &World) -> Bench<D> {
        device.attached(Notifier::unconnected());
        let mappings = D::PORTS.iter().enumerate().map(|(tag, region)| (Space::Port, *region, tag as u32)).collect();
        let mut bench = Bench { device, world: world.clone(), requests: Vec::new(), mappings };
        bench.reset(ResetKind::Cold);
        bench
    }

    /// Virtual time.
    pub fn now(&self) -> Instant {
        self.world.now()
    }

    /// Runs `f` on the device with a context of this moment.
    pub fn with<R>(&mut self, f: impl FnOnce(&mut D, &mut DeviceContext) -> R) -> R {
        let mut cx = DeviceContext { now: self.world.now(), memory: &self.world.memory, requests: &mut self.requests };
        f(&mut self.device, &mut cx)
    }

    /// Maps a further region, as the board or a request does.
    pub fn map(&mut self, space: Space, region: Region, tag: u32) {
        self.mappings.push((space, region, tag));
    }

    /// Takes the requests made so far.
    pub fn take_requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.requests)
    }

    /// A guest read of 1, 2, 4 or 8 bytes.
    pub fn read(&mut self, space: Space, address: u64, size: u8) -> u64 {
        let mut value = 0;
        for (at, size, shift) in self.parts(space, address, size) {
            let part = match self.decode(space, at, size) {
                Some(access) => self.with(|d, cx| d.read(cx, access)),
                None => u64::MAX,
            };
            value |= (part & mask(size)) << shift;
        }
        value
    }

    /// A guest write of 1, 2, 4 or 8 bytes.
    pub fn write(&mut self, space: Space, address: u64, size: u8, value: u64) {
        for (at, size, shift) in self.parts(space, address, size) {
            if let Some(access) = self.decode(space, at, size) {
                self.with(|d, cx| d.write(cx, access, (value >> shift) & mask(size)));
            }
        }
    }

    /// IN AL.
    pub fn in8(&mut self, port: u16) -> u8 {
        self.read(Space::Port, u64::from(port), 1) as u8
    }

    /// IN AX.
    pub fn in16(&mut self, port: u16) -> u16 {
        self.read(Space::Port, u64::from(port), 2) as u16
    }

    /// IN EAX.
    pub fn in32(&mut self, port: u16) -> u32 {
        self.read(Space::Port, u64::from(port), 4) as u32
    }

    /// OUT from AL.
    pub fn out8(&mut self, port: u16, value: u8) {
        self.write(Space::Port, u64::from(port), 1, u64::from(value));
    }

    /// OUT from AX.
    pub fn out16(&mut self, port: u16, value: u16) {
        self.write(Space::Port, u64::from(port), 2, u64::from(value));
    }

    /// OUT from EAX.
    pub fn out32(&mut self, port: u16, value: u32) {
        self.write(Space::Port, u64::from(port), 4, u64::from(value));
    }

    /// Lets `nanos` nanoseconds pass, polling at every deadline exactly on time.
    pub fn advance(&mut self, nanos: u64) {
        self.advance_to(self.now().plus_nanos(nanos));
    }

    /// Lets time pass until `end`, polling at every deadline exactly on time.
    ///
    /// # Panics
    /// The device sets a deadline in the past a million times running.
    pub fn advance_to(&mut self, end: Instant) {
        let mut stuck = 0;
        while let Some(at) = self.device.poll_at().filter(|at| *at <= end) {
            stuck = if at > self.now() { 0 } else { stuck + 1 };
            assert!(stuck < 1_000_000, "{} polls without end at {:?}", D::ID, self.now());
            self.world.set_now(at.max(self.now()));
            self.poll();
        }
        self.world.set_now(end.max(self.now()));
    }

    /// Lets `nanos` nanoseconds pass and polls once, late, if a deadline has passed.
    pub fn advance_late(&mut self, nanos: u64) {
        self.world.set_now(self.now().plus_nanos(nanos));
        if self.device.poll_at().is_some_and(|at| at <= self.now()) {
            self.poll();
        }
    }

    /// Polls now, as after a back end's notification.
    pub fn poll(&mut self) {
        self.with(|d, cx| d.poll(cx));
    }

    /// Resets the device.
    pub fn reset(&mut self, kind: ResetKind) {
        self.with(|d, cx| d.reset(cx, kind));
    }

    /// Gives `other` this device's state, as a snapshot would.
    pub fn copy_state_to(&self, other: &mut Bench<D>) {
        other.device.set_state(self.device.state());
        other.with(|d, cx| d.restored(cx));
    }

    /// The accesses into which the bus splits one: address, size and the shift of its part of the value.
    fn parts(&self, space: Space, address: u64, size: u8) -> Vec<(u64, u8, u32)> {
        if self.decode(space, address, size).is_some() {
            return vec![(address, size, 0)];
        }
        (0..size).map(|i| (address + u64::from(i), 1, 8 * u32::from(i))).collect()
    }

    fn decode(&self, space: Space, address: u64, size: u8) -> Option<Access> {
        let hit = |(s, r, _): &&(Space, Region, u32)| *s == space && address.wrapping_sub(r.base) < r.len;
        let (_, region, tag) = self.mappings.iter().rev().find(hit)?;
        let offset = address - region.base;
        let whole = offset + u64::from(size) <= region.len && size <= D::WIDEST_ACCESS;
        whole.then_some(Access { space, address, offset, region: *tag, size })
    }
}

fn mask(size: u8) -> u64 {
    if size >= 8 { u64::MAX } else { (1 << (8 * size)) - 1 }
}
