//! What a device is: registers in port or memory space, deadlines in virtual time, a serialisable state.
//!
//! The shape is explained in ARCHITECTURE.md, "Adding a device". Devices do no host I/O: back ends are traits.
//! Deliberately absent: PCI, DMA and audio methods; those are optional accessors or traits of `emu-devices`.

use crate::bus::{DeviceId, Notifier};
use crate::clock::Instant;
use crate::mem::GuestMemory;
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;

/// A run of I/O ports or bytes of physical memory that a device decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// First port or physical address.
    pub base: u64,
    /// How many ports or bytes.
    pub len: u64,
}

/// `len` I/O ports from `base`.
pub const fn ports(base: u16, len: u16) -> Region {
    Region { base: base as u64, len: len as u64 }
}

/// The address space of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// I/O ports, 16 bits.
    Port,
    /// Physical memory.
    Memory,
}

/// One register access as the bus carries it. A size is 1, 2, 4 or 8 bytes and never crosses the end of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Which space.
    pub space: Space,
    /// The port or physical address.
    pub address: u64,
    /// `address` less the base of the region that was hit.
    pub offset: u64,
    /// Which region was hit, as numbered when it was mapped: `PORTS` first in order, then mapped ones by their tag.
    pub region: u32,
    /// Bytes: 1, 2, 4 or 8.
    pub size: u8,
}

/// What a reset does to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetKind {
    /// Power-on: everything to its documented reset values.
    Cold,
    /// System reset (port 92h, CF9h, keyboard controller, triple fault): what a warm reset line reaches.
    Warm,
}

/// A request of a device to the machine, acted on before the next guest instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Decode this region from now on for the asking device. `tag` becomes [`Access::region`].
    Map {
        /// Which space.
        space: Space,
        /// Where.
        region: Region,
        /// The number by which accesses name this region.
        tag: u32,
    },
    /// Stop decoding the regions that carry `tag`.
    Unmap {
        /// As given to `Map`.
        tag: u32,
    },
    /// Have another device of the bus polled (a PCI function whose configuration space the host bridge has written).
    Poll(DeviceId),
    /// Gate of address line 20.
    A20(bool),
    /// Reset the whole machine.
    Reset,
    /// INIT to the vCPU only (keyboard controller FEh in some chipsets, shutdown cycle).
    Init,
    /// Power off (ACPI S5).
    PowerOff,
    /// Leave the emulator with this exit status (isa-debug-exit).
    Exit(i32),
    /// i440FX PAM or SMRAM routing: `[start, end)` of low memory reads from RAM or ROM, writes to RAM or nowhere.
    Shadow {
        /// First physical address.
        start: u64,
        /// One past the last.
        end: u64,
        /// Reads reach RAM.
        read_ram: bool,
        /// Writes reach RAM.
        write_ram: bool,
    },
}

/// What a device may touch while it handles an access or a deadline.
pub struct DeviceContext<'a> {
    /// Virtual time of this access.
    pub now: Instant,
    /// Guest memory, for DMA.
    pub memory: &'a Arc<GuestMemory>,
    /// Requests to the machine, in order.
    pub requests: &'a mut Vec<Request>,
}

impl DeviceContext<'_> {
    /// Asks the machine for something; it happens before the next guest instruction.
    pub fn request(&mut self, request: Request) {
        self.requests.push(request);
    }
}

/// A device of the board.
pub trait Device: Send {
    /// The name under which its state is saved.
    const ID: &'static str;
    /// All guest-visible state.
    type State: Serialize + DeserializeOwned;
    /// Ports that it decodes from power-on.
    const PORTS: &'static [Region] = &[];
    /// The widest access in bytes that the device takes whole. The bus splits wider ones into single bytes, as it does
    /// for 8-bit ISA chips, which set this to 1.
    const WIDEST_ACCESS: u8 = 8;

    /// A guest read. Bits above the access size are ignored. Undecoded registers read as all ones.
    fn read(&mut self, cx: &mut DeviceContext, access: Access) -> u64;
    /// A guest write.
    fn write(&mut self, cx: &mut DeviceContext, access: Access, value: u64);
    /// The next instant at which [`Device::poll`] wants to run; `None` for never.
    fn poll_at(&self) -> Option<Instant> {
        None
    }
    /// A deadline has passed, or a back end has announced input.
    fn poll(&mut self, _cx: &mut DeviceContext) {}
    /// Reset. Regions mapped by request stay mapped unless the device unmaps them.
    fn reset(&mut self, cx: &mut DeviceContext, kind: ResetKind);
    /// Called once, when the device is plugged into a bus: what its back ends call to announce input.
    fn attached(&mut self, _notifier: Notifier) {}
    /// A copy of the guest-visible state.
    fn state(&self) -> Self::State;
    /// Replaces the state, after which [`Device::restored`] is called.
    fn set_state(&mut self, state: Self::State);
    /// Derives caches anew and drives IRQ levels anew after a restore.
    fn restored(&mut self, _cx: &mut DeviceContext) {}
    /// The model-specific registers that this device answers, if any.
    fn msrs(&mut self) -> Option<&mut dyn MsrDevice> {
        None
    }
}

/// A device that answers model-specific registers of the vCPU (the local APIC).
pub trait MsrDevice {
    /// RDMSR; `None` if the register is not this device's, `Some(Err(MsrFault))` for #GP(0).
    fn read_msr(&mut self, cx: &mut DeviceContext, msr: u32) -> Option<Result<u64, MsrFault>>;
    /// WRMSR; as [`MsrDevice::read_msr`].
    fn write_msr(&mut self, cx: &mut DeviceContext, msr: u32, value: u64) -> Option<Result<(), MsrFault>>;
    /// CR8, the task priority class, 0 to 15.
    fn cr8(&mut self) -> u8;
    /// Writes CR8.
    fn set_cr8(&mut self, cx: &mut DeviceContext, value: u8);
    /// The time-stamp counter now reads `offset` more than `TSC_HZ` ticks a second since power-on, wrapping.
    fn set_tsc_offset(&mut self, cx: &mut DeviceContext, offset: u64);
}

/// An access to a model-specific register that the hardware answers with #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrFault;

/// [`Device`] without its associated items, as the bus stores it.
pub trait AnyDevice: Send {
    /// [`Device::ID`].
    fn id(&self) -> &'static str;
    /// [`Device::PORTS`].
    fn ports(&self) -> &'static [Region];
    /// [`Device::WIDEST_ACCESS`].
    fn widest_access(&self) -> u8;
    /// [`Device::attached`].
    fn attached(&mut self, notifier: Notifier);
    /// [`Device::read`].
    fn read(&mut self, cx: &mut DeviceContext, access: Access) -> u64;
    /// [`Device::write`].
    fn write(&mut self, cx: &mut DeviceContext, access: Access, value: u64);
    /// [`Device::poll_at`].
    fn poll_at(&self) -> Option<Instant>;
    /// [`Device::poll`].
    fn poll(&mut self, cx: &mut DeviceContext);
    /// [`Device::reset`].
    fn reset(&mut self, cx: &mut DeviceContext, kind: ResetKind);
    /// [`Device::msrs`].
    fn msrs(&mut self) -> Option<&mut dyn MsrDevice>;
}

impl<D: Device> AnyDevice for D {
    fn id(&self) -> &'static str {
        D::ID
    }
    fn ports(&self) -> &'static [Region] {
        D::PORTS
    }
    fn widest_access(&self) -> u8 {
        D::WIDEST_ACCESS
    }
    fn attached(&mut self, notifier: Notifier) {
        Device::attached(self, notifier);
    }
    fn read(&mut self, cx: &mut DeviceContext, access: Access) -> u64 {
        Device::read(self, cx, access)
    }
    fn write(&mut self, cx: &mut DeviceContext, access: Access, value: u64) {
        Device::write(self, cx, access, value);
    }
    fn poll_at(&self) -> Option<Instant> {
        Device::poll_at(self)
    }
    fn poll(&mut self, cx: &mut DeviceContext) {
        Device::poll(self, cx);
    }
    fn reset(&mut self, cx: &mut DeviceContext, kind: ResetKind) {
        Device::reset(self, cx, kind);
    }
    fn msrs(&mut self) -> Option<&mut dyn MsrDevice> {
        Device::msrs(self)
    }
}
