//! The system bus: which device answers which port or physical address, deadlines, and requests to the machine.
//!
//! One lock around all devices. Undecoded ports and addresses read as all ones and swallow writes, as on an ISA bus
//! with pull-ups. Accesses that a region does not hold whole, or wider than the device takes, are split into bytes.

use crate::clock::{Clock, Instant};
use crate::device::{Access, AnyDevice, DeviceContext, MsrFault, Region, Request, ResetKind, Space};
use crate::irq::{CpuPins, InterruptSource};
use crate::mem::GuestMemory;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// A device's number on its bus, in order of attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceId(u32);

/// Wakes the machine from its sleep and asks for a device's [`crate::device::Device::poll`]. Cheap to clone.
#[derive(Clone)]
pub struct Notifier {
    bell: Arc<Bell>,
    bit: u64,
}

impl Notifier {
    /// A notifier for no device: it only wakes the machine.
    pub fn machine(bus: &Bus) -> Notifier {
        Notifier { bell: bus.bell.clone(), bit: 0 }
    }

    /// A notifier that wakes nobody, for devices that are not on a bus.
    pub fn unconnected() -> Notifier {
        Notifier { bell: Bell::new(), bit: 0 }
    }

    /// Announces input. May be called from any thread.
    pub fn notify(&self) {
        self.bell.polls.fetch_or(self.bit, Ordering::AcqRel);
        *lock(&self.bell.rung) = true;
        // Who wakes takes the lock: it is free by now.
        self.bell.wake.notify_all();
    }
}

struct Bell {
    polls: AtomicU64,
    rung: Mutex<bool>,
    wake: Condvar,
}

impl Bell {
    fn new() -> Arc<Bell> {
        Arc::new(Bell { polls: AtomicU64::new(0), rung: Mutex::new(false), wake: Condvar::new() })
    }
}

/// A range of ports or addresses that a device answers, for monitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRange {
    /// Where.
    pub space: Space,
    /// From where, and how many.
    pub region: Region,
    /// [`crate::device::Device::ID`].
    pub device: &'static str,
}

struct Mapping {
    region: Region,
    device: usize,
    tag: u32,
}

struct Slot {
    device: Box<dyn AnyDevice>,
    deadline: Option<Instant>,
}

struct Devices {
    slots: Vec<Slot>,
    ports: Vec<Mapping>,
    memory: Vec<Mapping>,
    /// Index into `ports` plus one for each port, 0 for none.
    port_index: Box<[u16]>,
    requests: Vec<Request>,
    outcomes: Vec<Request>,
    msr_device: Option<usize>,
    clock: Clock,
    /// See [`Bus::set_horizon`].
    horizon: Option<Instant>,
}

/// The bus of one machine. Shared between the vCPU and the machine's loop.
pub struct Bus {
    devices: Mutex<Devices>,
    memory: Arc<GuestMemory>,
    pins: Arc<CpuPins>,
    bell: Arc<Bell>,
    source: Mutex<Option<Arc<dyn InterruptSource>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Bus {
    /// An empty bus over `memory`, for a vCPU with `pins`.
    pub fn new(memory: Arc<GuestMemory>, pins: Arc<CpuPins>, clock: Clock) -> Bus {
        Bus {
            devices: Mutex::new(Devices {
                slots: Vec::new(),
                ports: Vec::new(),
                memory: Vec::new(),
                port_index: vec![0; 0x1_0000].into(),
                requests: Vec::new(),
                outcomes: Vec::new(),
                msr_device: None,
                clock,
                horizon: None,
            }),
            memory,
            pins,
            bell: Bell::new(),
            source: Mutex::new(None),
        }
    }

    /// Guest memory.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// The vCPU's asynchronous signals.
    pub fn pins(&self) -> &Arc<CpuPins> {
        &self.pins
    }

    /// Plugs a device in at its fixed ports. At most 64 devices fit.
    pub fn attach(&self, mut device: Box<dyn AnyDevice>) -> DeviceId {
        let mut devices = lock(&self.devices);
        let index = devices.slots.len();
        assert!(index < 64, "a bus holds at most 64 devices");
        device.attached(Notifier { bell: self.bell.clone(), bit: 1 << index });
        for (tag, region) in device.ports().iter().enumerate() {
            devices.ports.push(Mapping { region: *region, device: index, tag: tag as u32 });
        }
        let deadline = device.poll_at();
        devices.slots.push(Slot { device, deadline });
        if devices.slots[index].device.msrs().is_some() {
            devices.msr_device = Some(index);
        }
        devices.index_ports();
        DeviceId(index as u32)
    }

    /// Maps a further region to an attached device.
    pub fn map(&self, device: DeviceId, space: Space, region: Region, tag: u32) {
        lock(&self.devices).map(device.0 as usize, space, region, tag);
    }

    /// What devices answer now, by space and address.
    pub fn ranges(&self) -> Vec<DeviceRange> {
        let devices = lock(&self.devices);
        let mut all = Vec::new();
        for (space, mappings) in [(Space::Port, &devices.ports), (Space::Memory, &devices.memory)] {
            let of = |m: &Mapping| DeviceRange { space, region: m.region, device: devices.slots[m.device].device.id() };
            let mut ranges: Vec<DeviceRange> = mappings.iter().map(of).collect();
            ranges.sort_by_key(|range| range.region.base);
            all.extend(ranges);
        }
        all
    }

    /// The handle by which a device's back end announces input.
    pub fn notifier(&self, device: DeviceId) -> Notifier {
        Notifier { bell: self.bell.clone(), bit: 1 << device.0 }
    }

    /// Sets who answers interrupt-acknowledge cycles.
    pub fn set_interrupt_source(&self, source: Arc<dyn InterruptSource>) {
        *lock(&self.source) = Some(source);
    }

    /// The interrupt-acknowledge cycle of the vCPU.
    pub fn acknowledge_interrupt(&self) -> Option<u8> {
        let source = lock(&self.source).clone();
        source.and_then(|s| s.acknowledge())
    }

    /// Reads `size` (1, 2 or 4) bytes from I/O space. `pending`: instructions retired but not yet counted.
    pub fn port_read(&self, port: u16, size: u8, pending: u64) -> u32 {
        self.read(Space::Port, u64::from(port), size, pending) as u32
    }

    /// Writes `size` (1, 2 or 4) bytes to I/O space.
    pub fn port_write(&self, port: u16, size: u8, value: u32, pending: u64) {
        self.write(Space::Port, u64::from(port), size, u64::from(value), pending);
    }

    /// Reads `size` (1 to 8) bytes of device memory.
    pub fn memory_read(&self, address: u64, size: u8, pending: u64) -> u64 {
        self.read(Space::Memory, address, size, pending)
    }

    /// Writes `size` (1 to 8) bytes of device memory.
    pub fn memory_write(&self, address: u64, size: u8, value: u64, pending: u64) {
        self.write(Space::Memory, address, size, value, pending);
    }

    fn read(&self, space: Space, address: u64, size: u8, pending: u64) -> u64 {
        let mut devices = lock(&self.devices);
        let now = devices.clock.now_after(pending);
        if let Some((index, access)) = devices.find(space, address, size) {
            let value = self.with(&mut devices, index, now, |d, cx| d.read(cx, access));
            return value & mask(size);
        }
        let mut value = 0;
        for i in 0..size {
            let at = wrap(space, address.wrapping_add(u64::from(i)));
            let byte = match devices.find(space, at, 1) {
                Some((index, access)) => self.with(&mut devices, index, now, |d, cx| d.read(cx, access)) & 0xff,
                None => {
                    tracing::trace!(target: "guest_errors", "read of undecoded {space:?} {at:#x}");
                    0xff
                }
            };
            value |= byte << (8 * i);
        }
        value
    }

    fn write(&self, space: Space, address: u64, size: u8, value: u64, pending: u64) {
        let mut devices = lock(&self.devices);
        let now = devices.clock.now_after(pending);
        if let Some((index, access)) = devices.find(space, address, size) {
            self.with(&mut devices, index, now, |d, cx| d.write(cx, access, value & mask(size)));
            return;
        }
        for i in 0..size {
            let at = wrap(space, address.wrapping_add(u64::from(i)));
            if let Some((index, access)) = devices.find(space, at, 1) {
                self.with(&mut devices, index, now, |d, cx| d.write(cx, access, (value >> (8 * i)) & 0xff));
            } else {
                tracing::trace!(target: "guest_errors", "write to undecoded {space:?} {at:#x}");
            }
        }
    }

    /// Runs `f` on a device, refreshes its deadline and carries out its requests.
    fn with<R>(
        &self,
        devices: &mut Devices,
        index: usize,
        now: Instant,
        f: impl FnOnce(&mut dyn AnyDevice, &mut DeviceContext) -> R,
    ) -> R {
        let Devices { slots, requests, .. } = devices;
        let slot = &mut slots[index];
        let mut cx = DeviceContext { now, memory: &self.memory, requests };
        let result = f(slot.device.as_mut(), &mut cx);
        slot.deadline = slot.device.poll_at();
        if devices.horizon.is_some_and(|horizon| slot.deadline.is_some_and(|at| at < horizon)) {
            self.pins.raise(CpuPins::EXIT);
        }
        if !devices.requests.is_empty() {
            self.carry_out(devices, index, now);
        }
        if self.memory.has_code_writes() {
            self.pins.raise(CpuPins::CODE_WRITTEN);
        }
        result
    }

    fn carry_out(&self, devices: &mut Devices, index: usize, now: Instant) {
        for request in std::mem::take(&mut devices.requests) {
            match request {
                Request::Map { space, region, tag } => devices.map(index, space, region, tag),
                Request::Unmap { tag } => devices.unmap(index, tag),
                Request::Poll(DeviceId(other)) => {
                    if (other as usize) < devices.slots.len() {
                        self.with(devices, other as usize, now, |d, cx| d.poll(cx));
                    }
                }
                Request::A20(on) => {
                    if self.memory.set_a20(on) {
                        self.pins.raise(CpuPins::FLUSH);
                    }
                }
                Request::Shadow { start, end, read_ram, write_ram } => {
                    self.memory.set_shadow(start, end, read_ram, write_ram);
                    self.pins.raise(CpuPins::FLUSH);
                }
                Request::Init => self.pins.raise(CpuPins::INIT),
                Request::Reset | Request::PowerOff | Request::Exit(_) => {
                    devices.outcomes.push(request);
                    self.pins.raise(CpuPins::EXIT);
                }
            }
        }
    }

    /// RDMSR of a register that a device answers; `None` if no device does.
    pub fn read_msr(&self, msr: u32, pending: u64) -> Option<Result<u64, MsrFault>> {
        let mut devices = lock(&self.devices);
        let index = devices.msr_device?;
        let now = devices.clock.now_after(pending);
        self.with(&mut devices, index, now, |d, cx| d.msrs()?.read_msr(cx, msr))
    }

    /// WRMSR of a register that a device answers; `None` if no device does.
    pub fn write_msr(&self, msr: u32, value: u64, pending: u64) -> Option<Result<(), MsrFault>> {
        let mut devices = lock(&self.devices);
        let index = devices.msr_device?;
        let now = devices.clock.now_after(pending);
        self.with(&mut devices, index, now, |d, cx| d.msrs()?.write_msr(cx, msr, value))
    }

    /// CR8, or `None` without a local APIC.
    pub fn cr8(&self) -> Option<u8> {
        let mut devices = lock(&self.devices);
        let index = devices.msr_device?;
        devices.slots[index].device.msrs().map(|m| m.cr8())
    }

    /// Writes CR8; nothing happens without a local APIC.
    pub fn set_cr8(&self, value: u8, pending: u64) {
        let mut devices = lock(&self.devices);
        let Some(index) = devices.msr_device else { return };
        let now = devices.clock.now_after(pending);
        self.with(&mut devices, index, now, |d, cx| {
            if let Some(m) = d.msrs() {
                m.set_cr8(cx, value);
            }
        });
    }

    /// Tells the local APIC by how much the time-stamp counter leads virtual time.
    pub fn set_tsc_offset(&self, offset: u64, pending: u64) {
        let mut devices = lock(&self.devices);
        let Some(index) = devices.msr_device else { return };
        let now = devices.clock.now_after(pending);
        self.with(&mut devices, index, now, |d, cx| {
            if let Some(m) = d.msrs() {
                m.set_tsc_offset(cx, offset);
            }
        });
    }

    /// Until when the vCPU means to run without looking up. A device that sets an earlier deadline makes it leave its
    /// loop ([`CpuPins::EXIT`]); in deterministic time deadlines are met exactly by this. `None`: it looks up often.
    pub fn set_horizon(&self, horizon: Option<Instant>) {
        lock(&self.devices).horizon = horizon;
    }

    /// The next deadline of any device.
    pub fn next_deadline(&self) -> Option<Instant> {
        lock(&self.devices).slots.iter().filter_map(|s| s.deadline).min()
    }

    /// Polls devices whose deadline has passed or whose back end announced input; the next deadline.
    pub fn poll(&self) -> Option<Instant> {
        let mut devices = lock(&self.devices);
        let now = devices.clock.now();
        let announced = self.bell.polls.swap(0, Ordering::AcqRel);
        for index in 0..devices.slots.len() {
            let due = devices.slots[index].deadline.is_some_and(|at| at <= now);
            if due || announced & (1 << index) != 0 {
                self.with(&mut devices, index, now, |d, cx| d.poll(cx));
            }
        }
        if self.memory.has_code_writes() {
            self.pins.raise(CpuPins::CODE_WRITTEN);
        }
        devices.slots.iter().filter_map(|s| s.deadline).min()
    }

    /// Resets every device.
    pub fn reset(&self, kind: ResetKind) {
        let mut devices = lock(&self.devices);
        let now = devices.clock.now();
        for index in 0..devices.slots.len() {
            self.with(&mut devices, index, now, |d, cx| d.reset(cx, kind));
        }
    }

    /// Takes what devices asked of the machine: resets, power-off, exit.
    pub fn take_outcomes(&self) -> Vec<Request> {
        std::mem::take(&mut lock(&self.devices).outcomes)
    }

    /// Runs `f` on the machine's clock.
    pub fn clock<R>(&self, f: impl FnOnce(&mut Clock) -> R) -> R {
        f(&mut lock(&self.devices).clock)
    }

    /// Virtual time when `pending` more instructions have retired.
    #[inline]
    pub fn now_after(&self, pending: u64) -> Instant {
        lock(&self.devices).clock.now_after(pending)
    }

    /// Sleeps until `timeout` has passed or somebody notifies; returns at once if somebody has since the last call.
    /// Whether somebody did.
    pub fn sleep(&self, timeout: std::time::Duration) -> bool {
        let end = std::time::Instant::now() + timeout;
        let mut rung = lock(&self.bell.rung);
        while !*rung {
            let left = end.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return false;
            }
            rung = self.bell.wake.wait_timeout(rung, left).unwrap_or_else(|p| p.into_inner()).0;
        }
        *rung = false;
        true
    }
}

impl Devices {
    fn map(&mut self, device: usize, space: Space, region: Region, tag: u32) {
        let list = match space {
            Space::Port => &mut self.ports,
            Space::Memory => &mut self.memory,
        };
        list.push(Mapping { region, device, tag });
        if space == Space::Port {
            self.index_ports();
        }
    }

    fn unmap(&mut self, device: usize, tag: u32) {
        self.ports.retain(|m| m.device != device || m.tag != tag);
        self.memory.retain(|m| m.device != device || m.tag != tag);
        self.index_ports();
    }

    fn index_ports(&mut self) {
        self.port_index.fill(0);
        for (i, mapping) in self.ports.iter().enumerate() {
            let end = (mapping.region.base + mapping.region.len).min(0x1_0000);
            for port in mapping.region.base..end {
                self.port_index[port as usize] = i as u16 + 1;
            }
        }
    }

    /// The device whose region holds the whole access. Of overlapping regions the one mapped last wins.
    fn find(&self, space: Space, address: u64, size: u8) -> Option<(usize, Access)> {
        let mapping = match space {
            Space::Port => match self.port_index[(address & 0xffff) as usize] {
                0 => return None,
                i => &self.ports[i as usize - 1],
            },
            Space::Memory => self.memory.iter().rev().find(|m| address.wrapping_sub(m.region.base) < m.region.len)?,
        };
        let offset = address - mapping.region.base;
        let widest = self.slots[mapping.device].device.widest_access();
        let whole = offset + u64::from(size) <= mapping.region.len && size <= widest;
        whole.then_some((mapping.device, Access { space, address, offset, region: mapping.tag, size }))
    }
}

fn wrap(space: Space, address: u64) -> u64 {
    match space {
        Space::Port => address & 0xffff,
        Space::Memory => address,
    }
}

fn mask(size: u8) -> u64 {
    if size >= 8 { u64::MAX } else { (1 << (8 * size)) - 1 }
}
