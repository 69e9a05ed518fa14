//! Interrupt wires: from a device's pin to an interrupt controller, and from there to a vCPU.
//!
//! A line carries a level. Interrupt controllers implement [`IrqInput`] with interior mutability, so that any device
//! can drive a line in the middle of a register access; a controller must never call back into the driving device
//! while it holds its own lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The receiving end of interrupt lines: an interrupt controller's inputs, or a vCPU's pins.
pub trait IrqInput: Send + Sync {
    /// Input `pin` is now at the level `high`. Called only on changes of the driving line.
    fn set_level(&self, pin: u32, high: bool);
}

/// A wire from one output pin to any number of inputs.
#[derive(Clone)]
pub struct IrqLine {
    level: Arc<AtomicBool>,
    inputs: Arc<[(Arc<dyn IrqInput>, u32)]>,
}

impl IrqLine {
    /// A wire to `inputs`, low.
    pub fn new(inputs: Vec<(Arc<dyn IrqInput>, u32)>) -> IrqLine {
        IrqLine { level: Arc::new(AtomicBool::new(false)), inputs: inputs.into() }
    }

    /// A wire that leads nowhere.
    pub fn unconnected() -> IrqLine {
        IrqLine::new(Vec::new())
    }

    /// Drives the wire; inputs hear of changes only.
    pub fn set(&self, high: bool) {
        if self.level.swap(high, Ordering::Relaxed) != high {
            for (input, pin) in self.inputs.iter() {
                input.set_level(*pin, high);
            }
        }
    }

    /// Drives the wire high, then low: one edge.
    pub fn pulse(&self) {
        self.set(true);
        self.set(false);
    }

    /// The level that was driven last.
    pub fn is_high(&self) -> bool {
        self.level.load(Ordering::Relaxed)
    }
}

/// A message-signalled interrupt: an address and data pair as a PCI function or I/O APIC writes it (SDM Vol. 3A 11.11).
pub trait MsiSink: Send + Sync {
    /// Delivers the message.
    fn deliver(&self, address: u64, data: u32);
}

/// What asserts a vCPU's INTR pin and hands out vectors: the local APIC, or the 8259 pair without one.
pub trait InterruptSource: Send + Sync {
    /// The interrupt-acknowledge cycle: the vector to take now, `None` if there is none after all.
    fn acknowledge(&self) -> Option<u8>;
}

/// The asynchronous signals of one vCPU, set from anywhere and taken between instructions.
#[derive(Debug, Default)]
pub struct CpuPins(AtomicU32);

impl CpuPins {
    /// INTR, a level.
    pub const INTR: u32 = 1 << 0;
    /// NMI, latched until taken.
    pub const NMI: u32 = 1 << 1;
    /// INIT, latched until taken.
    pub const INIT: u32 = 1 << 2;
    /// Leave the run loop: the machine has a request to look at.
    pub const EXIT: u32 = 1 << 3;
    /// Physical mappings or A20 changed: translations must be dropped.
    pub const FLUSH: u32 = 1 << 4;
    /// A DMA write hit pages that hold decoded code.
    pub const CODE_WRITTEN: u32 = 1 << 5;

    /// Raises `bits`.
    pub fn raise(&self, bits: u32) {
        self.0.fetch_or(bits, Ordering::AcqRel);
    }

    /// Lowers `bits` and tells which of them were up.
    pub fn take(&self, bits: u32) -> u32 {
        self.0.fetch_and(!bits, Ordering::AcqRel) & bits
    }

    /// All signals that are up.
    #[inline]
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }
}

/// `pin` is a bit of [`CpuPins`]; INTR follows the level, the others latch rising edges.
impl IrqInput for CpuPins {
    fn set_level(&self, pin: u32, high: bool) {
        if high {
            self.raise(pin);
        } else if pin == CpuPins::INTR {
            self.take(pin);
        }
    }
}
