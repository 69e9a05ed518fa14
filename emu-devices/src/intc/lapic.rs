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

mod registers;
mod state;
mod timer;

pub use state::{LapicState, VectorSet};

use crate::shared::Shared;
use emu_core::clock::Instant;
use emu_core::device::{Access, Device, DeviceContext, MsrDevice, MsrFault, Region, Request, ResetKind, Space};
use emu_core::irq::{CpuPins, InterruptSource, IrqInput, MsiSink};
use registers::*;
use state::Effects;
use std::sync::{Arc, OnceLock};
use timer::TimerMode;

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

/// What the processor model offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LapicFeatures {
    /// x2APIC mode: CPUID.1:ECX bit 21.
    pub x2apic: bool,
    /// TSC-deadline timer: CPUID.1:ECX bit 24.
    pub tsc_deadline: bool,
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
