//! What the local APIC remembers, and what registers, messages and pins do to it: SDM Vol. 3A 11.5 to 11.12.

use super::DEFAULT_BASE;
use super::registers::*;
use super::timer::TimerMode;
use emu_core::clock::Instant;
use emu_core::irq::CpuPins;
use serde::{Deserialize, Serialize};

/// One bit for each vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorSet([u32; 8]);

impl VectorSet {
    pub(super) fn set(&mut self, vector: u8, on: bool) {
        let bit = 1 << (vector & 31);
        let word = &mut self.0[usize::from(vector >> 5)];
        *word = if on { *word | bit } else { *word & !bit };
    }

    pub(super) fn has(&self, vector: u8) -> bool {
        self.0[usize::from(vector >> 5)] & (1 << (vector & 31)) != 0
    }

    pub(super) fn highest(&self) -> Option<u8> {
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
    pub(super) fn after_reset(id: u32) -> LapicState {
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
    pub(super) fn reinitialise(&mut self) {
        let old = std::mem::replace(self, LapicState::after_reset(self.id));
        (self.base, self.tsc_offset, self.lint) = (old.base, old.tsc_offset, old.lint);
    }

    pub(super) fn enabled(&self) -> bool {
        self.base & BASE_EN != 0
    }

    pub(super) fn x2apic(&self) -> bool {
        self.base & (BASE_EN | BASE_EXTD) == BASE_EN | BASE_EXTD
    }

    pub(super) fn software_enabled(&self) -> bool {
        self.svr & SVR_ENABLE != 0
    }

    pub(super) fn entry(&self, lvt: Lvt) -> u32 {
        self.lvt[lvt as usize]
    }

    pub(super) fn ppr(&self) -> u8 {
        let in_service = self.isr.highest().unwrap_or(0) & 0xf0;
        if self.tpr & 0xf0 >= in_service { self.tpr } else { in_service }
    }

    /// The vector that may interrupt the processor now.
    pub(super) fn deliverable(&self) -> Option<u8> {
        let vector = self.irr.highest()?;
        (self.enabled() && self.software_enabled() && vector & 0xf0 > self.ppr() & 0xf0).then_some(vector)
    }

    /// Whether the acknowledge cycle goes to the 8259 pair.
    pub(super) fn external_pending(&self) -> bool {
        if !self.enabled() {
            return self.lint[0];
        }
        let lint0 = self.entry(Lvt::Lint0);
        let wired = self.lint[0] && lint0 & LVT_MASKED == 0 && DeliveryMode::decode(lint0 >> 8) == DeliveryMode::ExtInt;
        wired || self.ext_int
    }

    pub(super) fn accept(&mut self, vector: u8, level: bool) {
        if vector < 16 {
            self.error(esr::RECEIVE_ILLEGAL_VECTOR);
        } else {
            self.irr.set(vector, true);
            self.tmr.set(vector, level);
        }
    }

    pub(super) fn error(&mut self, bits: u32) {
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

    pub(super) fn logical_id(&self) -> u32 {
        match self.x2apic() {
            true => (self.id >> 4) << 16 | 1 << (self.id & 15),
            false => self.ldr.into(),
        }
    }

    /// Whether a message to `destination` is for this APIC. `wide`: an x2APIC destination of 32 bits.
    pub(super) fn matches(&self, destination: u32, logical: bool, wide: bool) -> bool {
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

    pub(super) fn write_lvt(&mut self, lvt: Lvt, value: u32, now: Instant) {
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
    pub(super) fn local_interrupt(&mut self, lint: Lvt) -> u32 {
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
    pub(super) fn message(&mut self, mode: DeliveryMode, vector: u8, level: bool) -> u32 {
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
    pub(super) fn send(&mut self) -> u32 {
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
    pub(super) fn end_of_interrupt(&mut self) -> Option<u8> {
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

    pub(super) fn read(&mut self, register: Register, now: Instant) -> u32 {
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

    pub(super) fn write(&mut self, register: Register, value: u32, now: Instant) -> Effects {
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
    pub(super) fn reserved_in_x2apic(register: Register) -> u64 {
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

/// What a register write causes outside of the APIC, once its lock is free.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Effects {
    pub(super) pins: u32,
    pub(super) broadcast: Option<u8>,
}
