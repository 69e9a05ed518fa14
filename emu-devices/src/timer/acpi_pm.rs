//! The ACPI register block of the PIIX4: Intel 82371AB data sheet (290562-001) 7.2, and ACPI 6.5 chapter 4.8.
//!
//! ```text
//!  00h PMSTS  02h PMEN  04h PMCNTRL  08h PMTMR (24 bits, 3.579545 MHz)  0Ch GPSTS  0Eh GPEN
//! ```
//! Where it lies is [`crate::pci::piix4`]'s business. Deliberately absent: SMI, processor throttling and clock control,
//! and sleep states other than S0 and S5.

use emu_core::clock::Instant;
use serde::{Deserialize, Serialize};

/// The power management timer's frequency.
pub const PM_TIMER_HZ: u64 = 3_579_545;
/// Bytes in the block.
pub const SIZE: u64 = 0x40;

const TIMER_MASK: u64 = 0xff_ffff;
/// The overflow status is set whenever bit 23 toggles.
const TOGGLE: u64 = 1 << 23;

/// PMSTS and PMEN bits.
pub mod event {
    /// Timer overflow.
    pub const TMROF: u16 = 1 << 0;
    /// Global lock release.
    pub const GBL: u16 = 1 << 5;
    /// Power button.
    pub const PWRBTN: u16 = 1 << 8;
    /// Real-time clock alarm.
    pub const RTC: u16 = 1 << 10;
    /// Resume, only in PMSTS.
    pub const RSM: u16 = 1 << 15;
}

const STATUS_BITS: u16 = event::TMROF | event::GBL | event::PWRBTN | event::RTC | event::RSM;
const ENABLE_BITS: u16 = event::TMROF | event::GBL | event::PWRBTN | event::RTC;
const SCI_EN: u16 = 1 << 0;
const SUS_EN: u16 = 1 << 13;
const SUS_TYP: u16 = 7 << 10;
const CONTROL_BITS: u16 = SCI_EN | 1 << 1 | SUS_TYP;
/// SUS_TYP of the soft-off state S5.
const SOFT_OFF: u16 = 0;

/// All guest-visible state, with its behaviour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcpiPm {
    /// Power management status, without an overflow that nobody has looked for yet.
    pub pmsts: u16,
    /// Power management resume enable.
    pub pmen: u16,
    /// Power management control.
    pub pmcntrl: u16,
    /// General purpose status.
    pub gpsts: u16,
    /// General purpose enable.
    pub gpen: u16,
    /// When bit 23 of the timer toggles next.
    pub toggle_at: Instant,
}

impl AcpiPm {
    /// The state after a reset at `now`.
    pub fn new(now: Instant) -> AcpiPm {
        AcpiPm { toggle_at: next_toggle(now), ..AcpiPm::default() }
    }

    /// Whether the system control interrupt is asserted, after [`AcpiPm::advance`].
    pub fn sci(&self) -> bool {
        let events = self.pmsts & self.pmen & ENABLE_BITS != 0 || self.gpsts & self.gpen != 0;
        events && self.pmcntrl & SCI_EN != 0
    }

    /// SMI_CMD's hand-over of the registers to (`true`) or from the operating system.
    pub fn enable_acpi(&mut self, on: bool) {
        self.pmcntrl = if on { self.pmcntrl | SCI_EN } else { self.pmcntrl & !SCI_EN };
    }

    /// The power button was pressed.
    pub fn press_power_button(&mut self) {
        self.pmsts |= event::PWRBTN;
    }

    /// Takes note of the overflow if the timer has toggled.
    pub fn advance(&mut self, now: Instant) {
        if now >= self.toggle_at {
            self.pmsts |= event::TMROF;
            self.toggle_at = next_toggle(now);
        }
    }

    /// When an overflow will interrupt.
    pub fn deadline(&self) -> Option<Instant> {
        let wanted = self.pmen & event::TMROF != 0 && self.pmsts & event::TMROF == 0 && self.pmcntrl & SCI_EN != 0;
        wanted.then_some(self.toggle_at)
    }

    /// The doubleword at `offset`, a multiple of 4.
    pub fn read(&mut self, offset: u64, now: Instant) -> u32 {
        self.advance(now);
        match offset {
            0x00 => u32::from(self.pmen) << 16 | u32::from(self.pmsts),
            0x04 => self.pmcntrl.into(),
            0x08 => (now.ticks(PM_TIMER_HZ) & TIMER_MASK) as u32,
            0x0c => u32::from(self.gpen) << 16 | u32::from(self.gpsts),
            _ => 0,
        }
    }

    /// Writes those bytes of the doubleword at `offset` that `mask` covers; whether the guest turns the power off.
    pub fn write(&mut self, offset: u64, value: u32, mask: u32, now: Instant) -> bool {
        self.advance(now);
        let cleared = (value & mask) as u16;
        let merge = |old: u16, shift: u32| old & !((mask >> shift) as u16) | ((value & mask) >> shift) as u16;
        match offset {
            0x00 => {
                self.pmsts &= !(cleared & STATUS_BITS);
                self.pmen = merge(self.pmen, 16) & ENABLE_BITS;
            }
            0x04 => {
                let control = merge(self.pmcntrl, 0);
                self.pmcntrl = control & CONTROL_BITS;
                return control & SUS_EN != 0 && control & SUS_TYP == SOFT_OFF;
            }
            0x0c => {
                self.gpsts &= !cleared;
                self.gpen = merge(self.gpen, 16);
            }
            _ => {}
        }
        false
    }
}

fn next_toggle(now: Instant) -> Instant {
    Instant::from_ticks((now.ticks(PM_TIMER_HZ) / TOGGLE + 1) * TOGGLE, PM_TIMER_HZ)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timer_counts_24_bits_and_reports_both_toggles_of_its_top_bit() {
        let mut pm = AcpiPm::new(Instant::ZERO);
        let half = Instant::from_ticks(TOGGLE, PM_TIMER_HZ);
        assert_eq!(pm.read(8, Instant(half.0 - 1)), 0x7f_ffff);
        assert_eq!(pm.read(0, Instant(half.0 - 1)), 0);
        assert_eq!((pm.read(8, half), pm.read(0, half)), (0x80_0000, 1));
        pm.write(0, 1, 0xffff, half);
        assert_eq!(pm.read(0, half), 0);
        let full = Instant::from_ticks(2 * TOGGLE, PM_TIMER_HZ);
        assert_eq!((pm.read(8, full), pm.read(0, full)), (0, 1));
    }

    #[test]
    fn sci_needs_status_enable_and_acpi_mode() {
        let mut pm = AcpiPm::new(Instant::ZERO);
        pm.write(0, 0x0100_0000, 0xffff_0000, Instant::ZERO);
        pm.press_power_button();
        assert!(!pm.sci());
        pm.enable_acpi(true);
        assert!(pm.sci());
        pm.write(0, 0x0100, 0x0000_ff00, Instant::ZERO);
        assert!(!pm.sci());
        assert_eq!(pm.pmen, event::PWRBTN, "a write to PMSTS leaves PMEN alone");
        assert_eq!(pm.deadline(), None);
        pm.write(0, 0x0001_0000, 0xffff_0000, Instant::ZERO);
        assert_eq!(pm.deadline(), Some(Instant::from_ticks(TOGGLE, PM_TIMER_HZ)));
    }

    #[test]
    fn power_goes_off_for_suspend_enable_with_type_0_only() {
        let mut pm = AcpiPm::new(Instant::ZERO);
        assert!(!pm.write(4, 0x0001, 0xffff, Instant::ZERO));
        assert!(!pm.write(4, 0x2401, 0xffff, Instant::ZERO));
        assert!(pm.write(4, 0x2001, 0xffff, Instant::ZERO));
        assert_eq!(pm.pmcntrl, 1, "SUS_EN reads as 0");
    }
}
