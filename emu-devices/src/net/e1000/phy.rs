//! The PHY of an 82540EM, a Marvell 88E1011S: manual 8 (PHY functionality) and 13.4.6 (MDIC); IEEE 802.3-2018 22.2.4 for registers 0 to 15.
//!
//! It finds a partner with everything in 1000BASE-T, full duplex, a moment after auto-negotiation starts, if the cable is plugged in.

use serde::{Deserialize, Serialize};

/// MDIC fields.
mod mdic {
    pub const DATA: u32 = 0xffff;
    pub const READY: u32 = 1 << 28;
    pub const ERROR: u32 = 1 << 30;
    pub const WRITE: u32 = 1;
    pub const READ: u32 = 2;
}

/// The PHY's address on MDIO.
const ADDRESS: u32 = 1;

/// PCTRL bits.
mod control {
    pub const RESTART: u16 = 1 << 9;
    pub const LOOPBACK: u16 = 1 << 14;
    pub const RESET: u16 = 1 << 15;
    /// 1000 Mbit/s, full duplex, auto-negotiation.
    pub const DEFAULT: u16 = 0x1140;
}

/// PSTATUS: link, and auto-negotiation complete.
const LINK: u16 = 1 << 2;
const COMPLETE: u16 = 1 << 5;
/// PSSTAT: 1000 Mbit/s, full duplex, resolved; real-time link.
const RESOLVED: u16 = 0xa800;
const REAL_TIME_LINK: u16 = 1 << 10;

/// Registers, by their names in the manual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    Pctrl,
    Pstatus,
    PhyId1,
    PhyId2,
    /// Auto-negotiation advertisement.
    Ana,
    /// Link partner's ability.
    Lpa,
    /// Auto-negotiation expansion.
    Ane,
    /// 1000BASE-T control.
    Gcon,
    /// 1000BASE-T status.
    Gstatus,
    /// Extended status.
    Estatus,
    /// PHY-specific control.
    Pscon,
    /// PHY-specific status.
    Psstat,
    /// Interrupt enable.
    Pinte,
    /// Extended PHY-specific control.
    Epscon,
    Absent,
}

impl Register {
    fn decode(number: u32) -> Register {
        match number & 31 {
            0 => Register::Pctrl,
            1 => Register::Pstatus,
            2 => Register::PhyId1,
            3 => Register::PhyId2,
            4 => Register::Ana,
            5 => Register::Lpa,
            6 => Register::Ane,
            9 => Register::Gcon,
            10 => Register::Gstatus,
            15 => Register::Estatus,
            16 => Register::Pscon,
            17 => Register::Psstat,
            18 => Register::Pinte,
            20 => Register::Epscon,
            _ => Register::Absent,
        }
    }
}

/// What software has written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phy {
    control: u16,
    ana: u16,
    gcon: u16,
    pscon: u16,
    pinte: u16,
    epscon: u16,
    /// The link has been down since PSTATUS was read: its link bit latches that.
    was_down: bool,
}

impl Default for Phy {
    fn default() -> Phy {
        Phy {
            control: control::DEFAULT,
            ana: 0x0de1,
            gcon: 0x0e00,
            pscon: 0x0068,
            pinte: 0,
            epscon: 0x0d60,
            was_down: false,
        }
    }
}

/// What a write to the PHY leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Auto-negotiation starts anew.
    Negotiate,
}

impl Phy {
    /// Whether frames come back from the PHY.
    pub fn loops(&self) -> bool {
        self.control & control::LOOPBACK != 0
    }

    /// The link has gone.
    pub fn link_lost(&mut self) {
        self.was_down = true;
    }

    /// Executes what is written to MDIC; what it reads as afterwards. `link`: whether there is one.
    pub fn mdic(&mut self, value: u32, link: bool) -> (u32, Effect) {
        let (register, place) = (value >> 16 & 31, value >> 21 & 31);
        if place != ADDRESS {
            return (value | mdic::ERROR | mdic::READY, Effect::None);
        }
        match value >> 26 & 3 {
            mdic::READ => {
                let data = self.read(register, link);
                (value & !mdic::DATA | u32::from(data) | mdic::READY, Effect::None)
            }
            mdic::WRITE => (value | mdic::READY, self.write(register, value as u16)),
            _ => (value | mdic::ERROR | mdic::READY, Effect::None),
        }
    }

    fn read(&mut self, register: u32, link: bool) -> u16 {
        match Register::decode(register) {
            Register::Pctrl => self.control,
            Register::Pstatus => {
                let shown = link && !std::mem::take(&mut self.was_down);
                0x7949 | if link { COMPLETE } else { 0 } | if shown { LINK } else { 0 }
            }
            Register::PhyId1 => 0x0141,
            Register::PhyId2 => 0x0c20,
            Register::Ana => self.ana,
            Register::Lpa if link => 0x4de1,
            Register::Ane if link => 0x0003,
            Register::Lpa | Register::Ane => 0,
            Register::Gcon => self.gcon,
            Register::Gstatus => {
                if link {
                    0x3c00
                } else {
                    0
                }
            }
            Register::Estatus => 0x3000,
            Register::Pscon => self.pscon,
            Register::Psstat => {
                if link {
                    RESOLVED | REAL_TIME_LINK
                } else {
                    0x8000
                }
            }
            Register::Pinte => self.pinte,
            Register::Epscon => self.epscon,
            Register::Absent => 0,
        }
    }

    fn write(&mut self, register: u32, value: u16) -> Effect {
        match Register::decode(register) {
            Register::Pctrl => {
                self.control = value & !(control::RESET | control::RESTART);
                if value & control::RESET != 0 {
                    self.control = control::DEFAULT;
                }
                if value & (control::RESET | control::RESTART) != 0 {
                    return Effect::Negotiate;
                }
            }
            Register::Ana => self.ana = value,
            Register::Gcon => self.gcon = value,
            Register::Pscon => self.pscon = value,
            Register::Pinte => self.pinte = value,
            Register::Epscon => self.epscon = value,
            Register::Pstatus
            | Register::PhyId1
            | Register::PhyId2
            | Register::Lpa
            | Register::Ane
            | Register::Gstatus
            | Register::Estatus
            | Register::Psstat
            | Register::Absent => {}
        }
        Effect::None
    }
}
