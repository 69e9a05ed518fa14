//! The local APIC: Intel SDM Vol. 3A chapter 11, with the register set of the Pentium 4 and later, and x2APIC (11.12).
//!
//! ```text
//!  8259 INTR --> LINT0 (ExtINT: virtual wire)     I/O APIC, MSI, IPI --> IRR --> ISR --> vCPU INTR
//!  NMI       --> LINT1                            timer, error LVTs  -/
//! ```
//! The timer counts a 1 GHz bus clock, as QEMU's does. As firmware leaves it and QEMU resets it, LINT0 is an unmasked
//! ExtINT, so that 8259 interrupts reach a guest that knows no APIC. Deliberately absent: CMCI and the thermal and
//! performance sources (their LVT entries can be programmed), SMI, start-up IPIs (one processor, never waiting for one),
//! and suppression of EOI broadcasts, which the version register does not offer.

use crate::shared::Shared;
use emu_core::clock::{Instant, TSC_HZ};
use emu_core::device::{Access, Device, DeviceContext, MsrDevice, MsrFault, Region, Request, ResetKind, Space};
use emu_core::irq::{CpuPins, InterruptSource, IrqInput, MsiSink};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, OnceLock};

/// IA32_APIC_BASE.
pub const IA32_APIC_BASE: u32 = 0x1b;
/// IA32_TSC_DEADLINE.
pub const IA32_TSC_DEADLINE: u32 = 0x6e0;
const X2APIC_FIRST: u32 = 0x800;
const X2APIC_LAST: u32 = 0x8ff;
/// Where the registers are after a reset.
pub const DEFAULT_BASE: u64 = 0xfee0_0000;

/// Input pin numbers of [`LapicCore`].
pub mod pin {
    /// LINT0, from the 8259 pair.
    pub const LINT0: u32 = 0;
    /// LINT1, from NMI sources.
    pub const LINT1: u32 = 1;
}

const BASE_BSP: u64 = 1 << 8;
const BASE_EXTD: u64 = 1 << 10;
const BASE_EN: u64 = 1 << 11;
const BASE_ADDRESS: u64 = 0xf_ffff_f000;

/// Integrated APIC, six LVT entries.
const VERSION: u32 = 0x0005_0014;
const SVR_ENABLE: u32 = 1 << 8;
const SVR_WRITABLE: u32 = 0x1ff;
const LVT_MASKED: u32 = 1 << 16;
const LVT_REMOTE_IRR: u32 = 1 << 14;
const LVT_LEVEL: u32 = 1 << 15;
const LINT0_AFTER_RESET: u32 = 0x700;

/// Error status register bits.
mod esr {
    pub const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
    pub const RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
    pub const ILLEGAL_REGISTER: u32 = 1 << 7;
}

/// An entry of the local vector table, in the order of [`LapicState::lvt`] and of their addresses from 320h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lvt {
    Timer,
    Thermal,
    Performance,
    Lint0,
    Lint1,
    Error,
}

impl Lvt {
    const ALL: [Lvt; 6] = [Lvt::Timer, Lvt::Thermal, Lvt::Performance, Lvt::Lint0, Lvt::Lint1, Lvt::Error];

    fn writable(self) -> u32 {
        match self {
            Lvt::Timer => 0x7_00ff,
            Lvt::Thermal | Lvt::Performance => 0x1_07ff,
            Lvt::Lint0 | Lvt::Lint1 => 0x1_a7ff,
            Lvt::Error => 0x1_00ff,
        }
    }
}

/// What a register offset (in doublewords: xAPIC offset / 16, x2APIC MSR - 800h) names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    Id,
    Version,
    TaskPriority,
    /// Read as zero on all processors since the Pentium 4.
    ArbitrationPriority,
    ProcessorPriority,
    EndOfInterrupt,
    /// Remote read data, likewise obsolete.
    RemoteRead,
    LogicalDestination,
    DestinationFormat,
    SpuriousVector,
    InService(usize),
    TriggerMode(usize),
    InterruptRequest(usize),
    ErrorStatus,
    CommandLow,
    CommandHigh,
    Vector(Lvt),
    InitialCount,
    CurrentCount,
    DivideConfiguration,
    /// x2APIC only.
    SelfIpi,
}

impl Register {
    fn decode(index: u32) -> Option<Register> {
        Some(match index {
            0x02 => Register::Id,
            0x03 => Register::Version,
            0x08 => Register::TaskPriority,
            0x09 => Register::ArbitrationPriority,
            0x0a => Register::ProcessorPriority,
            0x0b => Register::EndOfInterrupt,
            0x0c => Register::RemoteRead,
            0x0d => Register::LogicalDestination,
            0x0e => Register::DestinationFormat,
            0x0f => Register::SpuriousVector,
            0x10..=0x17 => Register::InService(index as usize - 0x10),
            0x18..=0x1f => Register::TriggerMode(index as usize - 0x18),
            0x20..=0x27 => Register::InterruptRequest(index as usize - 0x20),
            0x28 => Register::ErrorStatus,
            0x30 => Register::CommandLow,
            0x31 => Register::CommandHigh,
            0x32..=0x37 => Register::Vector(Lvt::ALL[index as usize - 0x32]),
            0x38 => Register::InitialCount,
            0x39 => Register::CurrentCount,
            0x3e => Register::DivideConfiguration,
            0x3f => Register::SelfIpi,
            _ => return None,
        })
    }

    /// SDM table 11-6: which of them x2APIC mode has, for reading and for writing.
    fn in_x2apic(self) -> (bool, bool) {
        match self {
            Register::ArbitrationPriority
            | Register::RemoteRead
            | Register::DestinationFormat
            | Register::CommandHigh => (false, false),
            Register::Id
            | Register::Version
            | Register::ProcessorPriority
            | Register::LogicalDestination
            | Register::InService(_)
            | Register::TriggerMode(_)
            | Register::InterruptRequest(_)
            | Register::CurrentCount => (true, false),
            Register::EndOfInterrupt | Register::SelfIpi => (false, true),
            _ => (true, true),
        }
    }
}

/// Delivery modes of messages and LVT entries (SDM 11.5.1, 11.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeliveryMode {
    Fixed,
    LowestPriority,
    Smi,
    Nmi,
    Init,
    StartUp,
    ExtInt,
    Reserved,
}

impl DeliveryMode {
    fn decode(bits: u32) -> DeliveryMode {
        match bits & 7 {
            0 => DeliveryMode::Fixed,
            1 => DeliveryMode::LowestPriority,
            2 => DeliveryMode::Smi,
            4 => DeliveryMode::Nmi,
            5 => DeliveryMode::Init,
            6 => DeliveryMode::StartUp,
            7 => DeliveryMode::ExtInt,
            _ => DeliveryMode::Reserved,
        }
    }
}

/// What the processor model offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LapicFeatures {
    /// x2APIC mode: CPUID.1:ECX bit 21.
    pub x2apic: bool,
    /// TSC-deadline timer: CPUID.1:ECX bit 24.
    pub tsc_deadline: bool,
}

/// One bit for each vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorSet([u32; 8]);

impl VectorSet {
    fn set(&mut self, vector: u8, on: bool) {
        let bit = 1 << (vector & 31);
        let word = &mut self.0[usize::from(vector >> 5)];
        *word = if on { *word | bit } else { *word & !bit };
    }

    fn has(&self, vector: u8) -> bool {
        self.0[usize::from(vector >> 5)] & (1 << (vector & 31)) != 0
    }

    fn highest(&self) -> Option<u8> {
        let word = self.0.iter().rposition(|w| *w != 0)?;
        Some((word * 32 + 31 - self.0[word].leading_zeros() as usize) as u8)
    }
}

/// All guest-visible state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LapicState {
    /// IA32_APIC_BASE.
    pub base: u64,
    /// APIC ID; 8 bits in xAPIC mode.
    pub id: u32,
    /// Task priority register.
    pub tpr: u8,
    /// Logical destination register of xAPIC mode, bits 31 to 24.
    pub ldr: u8,
    /// Destination format register, bits 31 to 28.
    pub dfr: u8,
    /// Spurious-interrupt vector register.
    pub svr: u32,
    /// In service.
    pub isr: VectorSet,
    /// Trigger mode: set for level.
    pub tmr: VectorSet,
    /// Requested.
    pub irr: VectorSet,
    /// Error status as the guest reads it.
    pub esr: u32,
    /// Errors since the last write to the error status register.
    pub errors: u32,
    /// Interrupt command register.
    pub icr: u64,
    /// Timer, thermal, performance, LINT0, LINT1, error.
    pub lvt: [u32; 6],
    /// Timer initial count.
    pub initial_count: u32,
    /// Timer divide configuration.
    pub divide: u32,
    /// When the timer was started or last reloaded.
    pub count_start: Instant,
    /// When the timer fires next.
    pub deadline: Option<Instant>,
    /// IA32_TSC_DEADLINE.
    pub tsc_deadline: u64,
    /// What the time-stamp counter leads virtual time by.
    pub tsc_offset: u64,
    /// Levels of LINT0 and LINT1.
    pub lint: [bool; 2],
    /// An ExtINT message waits for an acknowledge cycle.
    pub ext_int: bool,
}

impl LapicState {
    fn after_reset(id: u32) -> LapicState {
        let mut lvt = [LVT_MASKED; 6];
        lvt[Lvt::Lint0 as usize] = LINT0_AFTER_RESET;
        LapicState {
            base: DEFAULT_BASE | BASE_EN | BASE_BSP,
            id,
            tpr: 0,
            ldr: 0,
            dfr: 0xf,
            svr: 0xff,
            isr: VectorSet::default(),
            tmr: VectorSet::default(),
            irr: VectorSet::default(),
            esr: 0,
            errors: 0,
            icr: 0,
            lvt,
            initial_count: 0,
            divide: 0,
            count_start: Instant::ZERO,
            deadline: None,
            tsc_deadline: 0,
            tsc_offset: 0,
            lint: [false; 2],
            ext_int: false,
        }
    }

    /// INIT and the disabling of the APIC: SDM 11.4.7.1. What the outside world drives stays.
    fn reinitialise(&mut self) {
        let old = std::mem::replace(self, LapicState::after_reset(self.id));
        (self.base, self.tsc_offset, self.lint) = (old.base, old.tsc_offset, old.lint);
    }

    fn enabled(&self) -> bool {
        self.base & BASE_EN != 0
    }

    fn x2apic(&self) -> bool {
        self.base & (BASE_EN | BASE_EXTD) == BASE_EN | BASE_EXTD
    }

    fn software_enabled(&self) -> bool {
        self.svr & SVR_ENABLE != 0
    }

    fn entry(&self, lvt: Lvt) -> u32 {
        self.lvt[lvt as usize]
    }

    fn ppr(&self) -> u8 {
        let in_service = self.isr.highest().unwrap_or(0) & 0xf0;
        if self.tpr & 0xf0 >= in_service { self.tpr } else { in_service }
    }

    /// The vector that may interrupt the processor now.
    fn deliverable(&self) -> Option<u8> {
        let vector = self.irr.highest()?;
        (self.enabled() && self.software_enabled() && vector & 0xf0 > self.ppr() & 0xf0).then_some(vector)
    }

    /// Whether the acknowledge cycle goes to the 8259 pair.
    fn external_pending(&self) -> bool {
        if !self.enabled() {
            return self.lint[0];
        }
        let lint0 = self.entry(Lvt::Lint0);
        let wired = self.lint[0] && lint0 & LVT_MASKED == 0 && DeliveryMode::decode(lint0 >> 8) == DeliveryMode::ExtInt;
        wired || self.ext_int
    }

    fn accept(&mut self, vector: u8, level: bool) {
        if vector < 16 {
            self.error(esr::RECEIVE_ILLEGAL_VECTOR);
        } else {
            self.irr.set(vector, true);
            self.tmr.set(vector, level);
        }
    }

    fn error(&mut self, bits: u32) {
        if self.errors & bits == bits {
            return;
        }
        self.errors |= bits;
        let entry = self.entry(Lvt::Error);
        let vector = entry as u8;
        // An illegal vector here cannot be reported again.
        if entry & LVT_MASKED == 0 && vector >= 16 {
            self.accept(vector, false);
        }
    }

    fn logical_id(&self) -> u32 {
        match self.x2apic() {
            true => (self.id >> 4) << 16 | 1 << (self.id & 15),
            false => self.ldr.into(),
        }
    }

    /// Whether a message to `destination` is for this APIC. `wide`: an x2APIC destination of 32 bits.
    fn matches(&self, destination: u32, logical: bool, wide: bool) -> bool {
        if destination == if wide { u32::MAX } else { 0xff } {
            return true;
        }
        let id = self.logical_id();
        match (logical, self.x2apic(), self.dfr) {
            (false, _, _) => destination == self.id,
            (true, true, _) => destination >> 16 == id >> 16 && destination & id & 0xffff != 0,
            (true, false, 0xf) => destination & id != 0,
            (true, false, _) => destination >> 4 == id >> 4 && destination & id & 0xf != 0,
        }
    }

    /// The number by which the divide configuration shifts the bus clock.
    fn divide_shift(&self) -> u32 {
        ((self.divide & 3 | self.divide >> 1 & 4) + 1) & 7
    }

    fn timer_mode(&self) -> TimerMode {
        match self.entry(Lvt::Timer) >> 17 & 3 {
            0 => TimerMode::OneShot,
            1 => TimerMode::Periodic,
            2 => TimerMode::TscDeadline,
            _ => TimerMode::Reserved,
        }
    }

    fn count_nanos(&self) -> u64 {
        u64::from(self.initial_count) << self.divide_shift()
    }

    fn current_count(&self, now: Instant) -> u32 {
        let elapsed = now.nanos_since(self.count_start) >> self.divide_shift();
        let initial = u64::from(self.initial_count);
        match self.timer_mode() {
            _ if initial == 0 => 0,
            TimerMode::Periodic => (initial - elapsed % initial) as u32,
            TimerMode::OneShot => initial.saturating_sub(elapsed) as u32,
            TimerMode::TscDeadline | TimerMode::Reserved => 0,
        }
    }

    /// Sets [`LapicState::deadline`] after a change of mode, count, divisor or target.
    fn arm(&mut self, now: Instant) {
        self.deadline = match self.timer_mode() {
            TimerMode::OneShot if self.initial_count != 0 => {
                let end = self.count_start.plus_nanos(self.count_nanos());
                (end > now).then_some(end)
            }
            TimerMode::Periodic if self.initial_count != 0 => {
                let period = self.count_nanos();
                let periods = now.nanos_since(self.count_start) / period + 1;
                Some(self.count_start.plus_nanos(period.saturating_mul(periods)))
            }
            TimerMode::TscDeadline if self.tsc_deadline != 0 => {
                let tsc = now.ticks(TSC_HZ).wrapping_add(self.tsc_offset);
                Some(match self.tsc_deadline > tsc {
                    true => Instant::from_ticks(now.ticks(TSC_HZ).saturating_add(self.tsc_deadline - tsc), TSC_HZ),
                    false => now,
                })
            }
            _ => None,
        };
    }

    fn fire_timer(&mut self, now: Instant) {
        if self.deadline.is_none_or(|at| at > now) {
            return;
        }
        if self.timer_mode() == TimerMode::TscDeadline {
            self.tsc_deadline = 0;
        }
        self.arm(now);
        let entry = self.entry(Lvt::Timer);
        if entry & LVT_MASKED == 0 {
            self.accept(entry as u8, false);
        }
    }

    fn write_lvt(&mut self, lvt: Lvt, value: u32, now: Instant) {
        let old = self.entry(lvt);
        let mut new = value & lvt.writable() | old & LVT_REMOTE_IRR;
        if !self.software_enabled() {
            new |= LVT_MASKED;
        }
        let mode = self.timer_mode();
        self.lvt[lvt as usize] = new;
        if lvt == Lvt::Timer && self.timer_mode() != mode {
            // SDM 11.5.4.1: a change to or from TSC-deadline mode disarms the timer.
            if [mode, self.timer_mode()].contains(&TimerMode::TscDeadline) {
                (self.initial_count, self.tsc_deadline) = (0, 0);
            }
            self.arm(now);
        }
        for (i, lint) in [Lvt::Lint0, Lvt::Lint1].into_iter().enumerate() {
            if lvt == lint && self.lint[i] && new & (LVT_LEVEL | LVT_MASKED | LVT_REMOTE_IRR) == LVT_LEVEL {
                self.local_interrupt(lint);
            }
        }
    }

    /// LINT0 or LINT1 with a mode other than ExtINT asserts; what the vCPU is to be told.
    fn local_interrupt(&mut self, lint: Lvt) -> u32 {
        let entry = self.entry(lint);
        if entry & LVT_MASKED != 0 {
            return 0;
        }
        match DeliveryMode::decode(entry >> 8) {
            DeliveryMode::Fixed => {
                let level = lint == Lvt::Lint0 && entry & LVT_LEVEL != 0;
                if level {
                    self.lvt[lint as usize] |= LVT_REMOTE_IRR;
                }
                self.accept(entry as u8, level);
                0
            }
            DeliveryMode::Nmi => CpuPins::NMI,
            DeliveryMode::Init => CpuPins::INIT,
            _ => 0,
        }
    }

    /// A message for this APIC; what the vCPU is to be told.
    fn message(&mut self, mode: DeliveryMode, vector: u8, level: bool) -> u32 {
        match mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
                if self.software_enabled() {
                    self.accept(vector, level);
                }
                0
            }
            DeliveryMode::Nmi => CpuPins::NMI,
            DeliveryMode::Init => {
                self.reinitialise();
                CpuPins::INIT
            }
            DeliveryMode::ExtInt => {
                self.ext_int = true;
                0
            }
            DeliveryMode::Smi | DeliveryMode::StartUp | DeliveryMode::Reserved => 0,
        }
    }

    /// The interrupt command register was written (SDM 11.6.1); what the vCPU is to be told.
    fn send(&mut self) -> u32 {
        let command = self.icr as u32;
        let mode = DeliveryMode::decode(command >> 8);
        let logical = command & 1 << 11 != 0;
        let (asserted, level) = (command & 1 << 14 != 0, command & 1 << 15 != 0);
        if mode == DeliveryMode::Init && level && !asserted {
            return 0;
        }
        let destination = if self.x2apic() { (self.icr >> 32) as u32 } else { (self.icr >> 56) as u32 };
        let here = match command >> 18 & 3 {
            0 => self.matches(destination, logical, self.x2apic()),
            1 | 2 => true,
            _ => false,
        };
        let vector = command as u8;
        if matches!(mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority) && vector < 16 {
            self.error(esr::SEND_ILLEGAL_VECTOR);
            return 0;
        }
        // Fixed IPIs are edges whatever the trigger bit says.
        if here { self.message(mode, vector, false) } else { 0 }
    }

    /// The end of the interrupt in service; its vector if I/O APICs are to hear of it.
    fn end_of_interrupt(&mut self) -> Option<u8> {
        let vector = self.isr.highest()?;
        self.isr.set(vector, false);
        let lint0 = self.entry(Lvt::Lint0);
        if lint0 & LVT_REMOTE_IRR != 0 && lint0 as u8 == vector {
            self.lvt[Lvt::Lint0 as usize] &= !LVT_REMOTE_IRR;
            if self.lint[0] {
                self.local_interrupt(Lvt::Lint0);
            }
            return None;
        }
        self.tmr.has(vector).then_some(vector)
    }

    fn read(&mut self, register: Register, now: Instant) -> u32 {
        match register {
            Register::Id if self.x2apic() => self.id,
            Register::Id => self.id << 24,
            Register::Version => VERSION,
            Register::TaskPriority => self.tpr.into(),
            Register::ProcessorPriority => self.ppr().into(),
            Register::LogicalDestination if self.x2apic() => self.logical_id(),
            Register::LogicalDestination => u32::from(self.ldr) << 24,
            Register::DestinationFormat => u32::from(self.dfr) << 28 | 0x0fff_ffff,
            Register::SpuriousVector => self.svr,
            Register::InService(i) => self.isr.0[i],
            Register::TriggerMode(i) => self.tmr.0[i],
            Register::InterruptRequest(i) => self.irr.0[i],
            Register::ErrorStatus => self.esr,
            Register::CommandLow => self.icr as u32,
            Register::CommandHigh => (self.icr >> 32) as u32,
            Register::Vector(lvt) => self.entry(lvt),
            Register::InitialCount => self.initial_count,
            Register::CurrentCount => self.current_count(now),
            Register::DivideConfiguration => self.divide,
            Register::ArbitrationPriority | Register::RemoteRead | Register::EndOfInterrupt | Register::SelfIpi => 0,
        }
    }

    fn write(&mut self, register: Register, value: u32, now: Instant) -> Effects {
        let mut effects = Effects::default();
        match register {
            Register::Id => self.id = value >> 24,
            Register::TaskPriority => self.tpr = value as u8,
            Register::EndOfInterrupt => effects.broadcast = self.end_of_interrupt(),
            Register::LogicalDestination => self.ldr = (value >> 24) as u8,
            Register::DestinationFormat => self.dfr = (value >> 28) as u8,
            Register::SpuriousVector => {
                self.svr = value & SVR_WRITABLE;
                if !self.software_enabled() {
                    self.lvt.iter_mut().for_each(|entry| *entry |= LVT_MASKED);
                }
            }
            Register::ErrorStatus => self.esr = std::mem::take(&mut self.errors),
            Register::CommandLow => {
                self.icr = self.icr & !0xffff_ffff | u64::from(value & 0xc_cfff);
                effects.pins = self.send();
            }
            Register::CommandHigh => self.icr = self.icr & 0xffff_ffff | u64::from(value & 0xff00_0000) << 32,
            Register::Vector(lvt) => self.write_lvt(lvt, value, now),
            Register::InitialCount if self.timer_mode() == TimerMode::TscDeadline => {}
            Register::InitialCount => {
                (self.initial_count, self.count_start) = (value, now);
                self.arm(now);
            }
            Register::DivideConfiguration => {
                // The count goes on from where it is at the new rate.
                let left = self.current_count(now);
                self.divide = value & 0xb;
                let done = u64::from(self.initial_count - left.min(self.initial_count)) << self.divide_shift();
                self.count_start = Instant(now.0.saturating_sub(done));
                self.arm(now);
            }
            Register::SelfIpi => self.accept(value as u8, false),
            Register::Version
            | Register::ArbitrationPriority
            | Register::ProcessorPriority
            | Register::RemoteRead
            | Register::InService(_)
            | Register::TriggerMode(_)
            | Register::InterruptRequest(_)
            | Register::CurrentCount => {}
        }
        effects
    }

    /// SDM 11.12.1.2: what a write in x2APIC mode may not set.
    fn reserved_in_x2apic(register: Register) -> u64 {
        !match register {
            Register::TaskPriority | Register::SelfIpi => 0xff,
            Register::EndOfInterrupt | Register::ErrorStatus => 0,
            Register::SpuriousVector => SVR_WRITABLE.into(),
            Register::Vector(lvt) => (lvt.writable() | 1 << 12 | LVT_REMOTE_IRR).into(),
            Register::DivideConfiguration => 0xb,
            _ => 0xffff_ffff,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TimerMode {
    OneShot,
    Periodic,
    TscDeadline,
    Reserved,
}

/// What a register write causes outside of the APIC, once its lock is free.
#[derive(Clone, Copy, Debug, Default)]
struct Effects {
    pins: u32,
    broadcast: Option<u8>,
}

/// Who hears the end of level-triggered interrupts: I/O APICs.
pub trait EoiListener: Send + Sync {
    /// The interrupt with this vector has ended.
    fn end_of_interrupt(&self, vector: u8);
}

/// The local APIC as wires and the vCPU see it. Inputs are numbered in [`pin`].
pub struct LapicCore {
    state: Shared<LapicState>,
    pins: Arc<CpuPins>,
    pic: OnceLock<Arc<dyn InterruptSource>>,
    listener: OnceLock<Arc<dyn EoiListener>>,
}

impl LapicCore {
    /// Who answers acknowledge cycles of ExtINT interrupts. The first call counts.
    pub fn connect_pic(&self, pic: Arc<dyn InterruptSource>) {
        let _ = self.pic.set(pic);
    }

    /// Who hears EOI broadcasts. The first call counts.
    pub fn connect_eoi(&self, listener: Arc<dyn EoiListener>) {
        let _ = self.listener.set(listener);
    }

    /// Runs `f` on the state, then drives the vCPU's pins and broadcasts an end of interrupt.
    fn change(&self, f: impl FnOnce(&mut LapicState) -> Effects) {
        let effects = {
            let mut state = self.state.lock();
            let effects = f(&mut state);
            self.drive(&state);
            effects
        };
        if effects.pins != 0 {
            self.pins.raise(effects.pins);
        }
        if let (Some(vector), Some(listener)) = (effects.broadcast, self.listener.get()) {
            listener.end_of_interrupt(vector);
        }
    }

    /// INTR is driven under the lock, so that its changes arrive in order.
    fn drive(&self, state: &LapicState) {
        self.pins.set_level(CpuPins::INTR, state.deliverable().is_some() || state.external_pending());
    }
}

impl IrqInput for LapicCore {
    fn set_level(&self, pin: u32, high: bool) {
        self.change(|state| {
            let Some(lint) = state.lint.get_mut(pin as usize) else { return Effects::default() };
            let rose = high && !*lint;
            *lint = high;
            let pins = match (rose, pin, state.enabled()) {
                (false, _, _) => 0,
                (true, pin::LINT0, true) => state.local_interrupt(Lvt::Lint0),
                (true, pin::LINT1, true) => state.local_interrupt(Lvt::Lint1),
                // Without an APIC LINT1 is the NMI pin, and LINT0 INTR.
                (true, pin::LINT1, false) => CpuPins::NMI,
                (true, ..) => 0,
            };
            Effects { pins, broadcast: None }
        });
    }
}

/// SDM 11.11: the message address and data registers.
impl MsiSink for LapicCore {
    fn deliver(&self, address: u64, data: u32) {
        if address >> 20 != DEFAULT_BASE >> 20 {
            return;
        }
        let destination = (address >> 12) as u32 & 0xff;
        let logical = address & 1 << 2 != 0;
        self.change(|state| {
            if !state.enabled() || !state.matches(destination, logical, false) {
                return Effects::default();
            }
            let level = data & 1 << 15 != 0;
            let pins = state.message(DeliveryMode::decode(data >> 8), data as u8, level);
            Effects { pins, broadcast: None }
        });
    }
}

impl InterruptSource for LapicCore {
    fn acknowledge(&self) -> Option<u8> {
        {
            let mut state = self.state.lock();
            if let Some(vector) = state.deliverable() {
                state.irr.set(vector, false);
                state.isr.set(vector, true);
                self.drive(&state);
                return Some(vector);
            }
            if !state.external_pending() {
                return None;
            }
            state.ext_int = false;
            self.drive(&state);
        }
        // The pair drives LINT0 during its acknowledge, so the lock is free.
        self.pic.get().and_then(|pic| pic.acknowledge())
    }
}

/// The local APIC as a device: its registers in memory and as model-specific registers.
pub struct Lapic {
    core: Arc<LapicCore>,
    features: LapicFeatures,
}

impl Lapic {
    /// The APIC with this ID of a processor with `pins`.
    pub fn new(id: u8, pins: Arc<CpuPins>, features: LapicFeatures) -> Lapic {
        let state = Shared::new(LapicState::after_reset(id.into()));
        Lapic { core: Arc::new(LapicCore { state, pins, pic: OnceLock::new(), listener: OnceLock::new() }), features }
    }

    /// Its inputs, the sink of messages, and the source of vectors.
    pub fn core(&self) -> Arc<LapicCore> {
        self.core.clone()
    }

    /// Decodes the register page where IA32_APIC_BASE has it: nowhere if disabled or in x2APIC mode.
    fn map(&self, cx: &mut DeviceContext) {
        let state = self.core.state.lock();
        cx.request(Request::Unmap { tag: 0 });
        if state.enabled() && !state.x2apic() {
            let region = Region { base: state.base & BASE_ADDRESS, len: 0x1000 };
            cx.request(Request::Map { space: Space::Memory, region, tag: 0 });
        }
    }

    fn write_base(&mut self, cx: &mut DeviceContext, value: u64) -> Result<(), MsrFault> {
        const MODES: u64 = BASE_EN | BASE_EXTD;
        let writable = BASE_ADDRESS | BASE_EN | BASE_BSP | if self.features.x2apic { BASE_EXTD } else { 0 };
        let old = self.core.state.lock().base;
        // SDM figure 11-27: x2APIC mode is entered from xAPIC mode and left only by disabling the APIC.
        let allowed = match (old & MODES, value & MODES) {
            (_, BASE_EXTD) | (0, MODES) | (MODES, BASE_EN) => false,
            _ => value & !writable == 0,
        };
        if !allowed {
            return Err(MsrFault);
        }
        self.core.change(|state| {
            state.base = value;
            if value & BASE_EN == 0 {
                state.reinitialise();
            }
            Effects::default()
        });
        self.map(cx);
        Ok(())
    }

    fn x2apic_read(&mut self, cx: &mut DeviceContext, msr: u32) -> Result<u64, MsrFault> {
        let register = Register::decode(msr - X2APIC_FIRST).filter(|r| r.in_x2apic().0).ok_or(MsrFault)?;
        let mut state = self.core.state.lock();
        match register {
            _ if !state.x2apic() => Err(MsrFault),
            Register::CommandLow => Ok(state.icr),
            _ => Ok(state.read(register, cx.now).into()),
        }
    }

    fn x2apic_write(&mut self, cx: &mut DeviceContext, msr: u32, value: u64) -> Result<(), MsrFault> {
        let register = Register::decode(msr - X2APIC_FIRST).filter(|r| r.in_x2apic().1).ok_or(MsrFault)?;
        if !self.core.state.lock().x2apic() {
            return Err(MsrFault);
        }
        let now = cx.now;
        if register == Register::CommandLow {
            if value as u32 & !0xc_cfff != 0 {
                return Err(MsrFault);
            }
            self.core.change(|state| {
                state.icr = value;
                Effects { pins: state.send(), broadcast: None }
            });
            return Ok(());
        }
        if value & LapicState::reserved_in_x2apic(register) != 0 {
            return Err(MsrFault);
        }
        self.core.change(|state| state.write(register, value as u32, now));
        Ok(())
    }
}

impl Device for Lapic {
    const ID: &'static str = "lapic";
    type State = LapicState;

    /// Registers are 32 bits wide on 16-byte boundaries; narrower reads see part of them.
    fn read(&mut self, cx: &mut DeviceContext, access: Access) -> u64 {
        let mut state = self.core.state.lock();
        let shift = 8 * (access.offset & 3);
        match Register::decode((access.offset >> 4) as u32) {
            Some(Register::SelfIpi) | None => {
                state.error(esr::ILLEGAL_REGISTER);
                self.core.drive(&state);
                0
            }
            Some(_) if access.offset & 0xc != 0 => 0,
            Some(register) => u64::from(state.read(register, cx.now)) >> shift,
        }
    }

    /// Only aligned 32-bit writes reach a register.
    fn write(&mut self, cx: &mut DeviceContext, access: Access, value: u64) {
        if access.size != 4 || access.offset & 0xf != 0 {
            return;
        }
        let now = cx.now;
        self.core.change(|state| match Register::decode((access.offset >> 4) as u32) {
            Some(Register::SelfIpi) | None => {
                state.error(esr::ILLEGAL_REGISTER);
                Effects::default()
            }
            Some(register) => state.write(register, value as u32, now),
        });
    }

    fn poll_at(&self) -> Option<Instant> {
        self.core.state.lock().deadline
    }

    fn poll(&mut self, cx: &mut DeviceContext) {
        let now = cx.now;
        self.core.change(|state| {
            state.fire_timer(now);
            Effects::default()
        });
    }

    /// Both kinds assert RESET#; the pins keep the levels that others drive.
    fn reset(&mut self, cx: &mut DeviceContext, _kind: ResetKind) {
        self.core.change(|state| {
            let lint = state.lint;
            *state = LapicState { lint, ..LapicState::after_reset(state.id) };
            Effects::default()
        });
        self.map(cx);
    }

    fn state(&self) -> LapicState {
        self.core.state.lock().clone()
    }

    fn set_state(&mut self, state: LapicState) {
        *self.core.state.lock() = state;
    }

    fn restored(&mut self, cx: &mut DeviceContext) {
        self.core.change(|_| Effects::default());
        self.map(cx);
    }

    fn msrs(&mut self) -> Option<&mut dyn MsrDevice> {
        Some(self)
    }
}

impl MsrDevice for Lapic {
    fn read_msr(&mut self, cx: &mut DeviceContext, msr: u32) -> Option<Result<u64, MsrFault>> {
        match msr {
            IA32_APIC_BASE => Some(Ok(self.core.state.lock().base)),
            IA32_TSC_DEADLINE if self.features.tsc_deadline => Some(Ok(self.core.state.lock().tsc_deadline)),
            X2APIC_FIRST..=X2APIC_LAST if self.features.x2apic => Some(self.x2apic_read(cx, msr)),
            _ => None,
        }
    }

    fn write_msr(&mut self, cx: &mut DeviceContext, msr: u32, value: u64) -> Option<Result<(), MsrFault>> {
        match msr {
            IA32_APIC_BASE => Some(self.write_base(cx, value)),
            IA32_TSC_DEADLINE if self.features.tsc_deadline => {
                let now = cx.now;
                self.core.change(|state| {
                    if state.timer_mode() == TimerMode::TscDeadline {
                        state.tsc_deadline = value;
                        state.arm(now);
                    }
                    Effects::default()
                });
                Some(Ok(()))
            }
            X2APIC_FIRST..=X2APIC_LAST if self.features.x2apic => Some(self.x2apic_write(cx, msr, value)),
            _ => None,
        }
    }

    fn cr8(&mut self) -> u8 {
        self.core.state.lock().tpr >> 4
    }

    fn set_cr8(&mut self, _cx: &mut DeviceContext, value: u8) {
        self.core.change(|state| {
            state.tpr = value << 4;
            Effects::default()
        });
    }

    fn set_tsc_offset(&mut self, cx: &mut DeviceContext, offset: u64) {
        let now = cx.now;
        self.core.change(|state| {
            state.tsc_offset = offset;
            state.arm(now);
            Effects::default()
        });
    }
}

#[cfg(test)]
mod tests;
