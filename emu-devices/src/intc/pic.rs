//! The pair of 8259A programmable interrupt controllers of a PC, with edge/level control.
//!
//! Follows the Intel 8259A data sheet (231468-003) and, for the Edge/Level Control Registers and the cascade, the
//! 82371SB (PIIX3) data sheet 4.5 and 8.7.
//!
//! ```text
//!  IRQ0 1  3..7          IRQ8..15
//!    | |   |              |
//!  [IR0 1 2 3..7]     [IR0..7]
//!  [   master   ]<-INT-[ slave ]       20h/21h, A0h/A1h, ELCR 4D0h/4D1h
//!        |
//!       INTR
//! ```
//! As in PIIX3: ICW1's LTIM is replaced by ELCR, the slave hangs on IR2 whatever ICW3 says, and IRQ0, 1, 2, 8 and 13 are
//! always edge-triggered. Deliberately absent: MCS-80 mode and buffered mode. One departure from the 8259A: an edge
//! stays latched if its line falls before the acknowledge (the data sheet would answer with the default IR7), because
//! emulated devices give pulses without width; levels follow their line and do give spurious IRQ 7 and 15.

use emu_core::device::{Access, Device, DeviceContext, Region, ResetKind, ports};
use emu_core::irq::{InterruptSource, IrqInput, IrqLine};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard};

/// The master's input that the slave's INT drives.
const CASCADE: u8 = 2;

/// The vector within a chip that answers an acknowledge without a request.
const SPURIOUS: u8 = 7;

/// Inputs that ELCR can make level-triggered: not IRQ0, 1, 2, 8 (RTC) and 13 (numeric error).
const ELCR_WRITABLE: [u8; 2] = [0xf8, 0xde];

/// The register that an access reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    /// A0 low: ICW1, OCW2, OCW3; reads IRR, ISR or the poll word.
    Command(Chip),
    /// A0 high: ICW2 to ICW4, OCW1; reads IMR or the poll word.
    Data(Chip),
    /// Edge/Level Control Register.
    EdgeLevel(Chip),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chip {
    Master,
    Slave,
}

impl Register {
    fn decode(access: Access) -> Register {
        match (access.region, access.offset & 1) {
            (0, 0) => Register::Command(Chip::Master),
            (0, _) => Register::Data(Chip::Master),
            (1, 0) => Register::Command(Chip::Slave),
            (1, _) => Register::Data(Chip::Slave),
            (_, 0) => Register::EdgeLevel(Chip::Master),
            (_, _) => Register::EdgeLevel(Chip::Slave),
        }
    }
}

/// A byte written with A0 low.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Icw1 { single: bool, needs_icw4: bool },
    Ocw2(Ocw2),
    Ocw3 { special_mask: Option<bool>, poll: bool, read: Option<ReadSelect> },
}

/// OCW2: end of interrupt and priority commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ocw2 {
    RotateInAutomaticEoi(bool),
    NonSpecificEoi { rotate: bool },
    SpecificEoi { rotate: bool, level: u8 },
    SetPriority { lowest: u8 },
    NoOperation,
}

impl Command {
    fn decode(value: u8) -> Command {
        if value & 0x10 != 0 {
            return Command::Icw1 { single: value & 2 != 0, needs_icw4: value & 1 != 0 };
        }
        if value & 0x08 != 0 {
            return Command::Ocw3 {
                special_mask: (value & 0x40 != 0).then_some(value & 0x20 != 0),
                poll: value & 0x04 != 0,
                read: match value & 3 {
                    2 => Some(ReadSelect::Irr),
                    3 => Some(ReadSelect::Isr),
                    _ => None,
                },
            };
        }
        let level = value & 7;
        Command::Ocw2(match value >> 5 {
            0b000 => Ocw2::RotateInAutomaticEoi(false),
            0b001 => Ocw2::NonSpecificEoi { rotate: false },
            0b010 => Ocw2::NoOperation,
            0b011 => Ocw2::SpecificEoi { rotate: false, level },
            0b100 => Ocw2::RotateInAutomaticEoi(true),
            0b101 => Ocw2::NonSpecificEoi { rotate: true },
            0b110 => Ocw2::SetPriority { lowest: level },
            _ => Ocw2::SpecificEoi { rotate: true, level },
        })
    }
}

/// What a read with A0 low returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadSelect {
    /// Interrupt Request Register.
    #[default]
    Irr,
    /// In-Service Register.
    Isr,
}

/// The initialisation word that the next write with A0 high is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expect {
    /// None: it is OCW1.
    #[default]
    Ocw1,
    /// The vector base.
    Icw2,
    /// The cascade.
    Icw3,
    /// The modes.
    Icw4,
}

/// One 8259A.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChipState {
    /// Levels of IR0 to IR7.
    pub lines: u8,
    /// Edges seen and not yet acknowledged; counts for edge-triggered inputs.
    pub edges: u8,
    /// Edge/Level Control Register: 1 for level.
    pub elcr: u8,
    /// Interrupt Mask Register.
    pub imr: u8,
    /// In-Service Register.
    pub isr: u8,
    /// The level of lowest priority.
    pub lowest: u8,
    /// Where the initialisation sequence is.
    pub expect: Expect,
    /// ICW1: no cascade, so no ICW3.
    pub single: bool,
    /// ICW1: ICW4 comes.
    pub needs_icw4: bool,
    /// ICW2: the upper five bits of the vectors.
    pub vector_base: u8,
    /// ICW3 as written.
    pub icw3: u8,
    /// ICW4: automatic end of interrupt.
    pub automatic_eoi: bool,
    /// ICW4: special fully nested mode.
    pub special_fully_nested: bool,
    /// OCW2: rotate in automatic EOI mode.
    pub rotate_in_automatic_eoi: bool,
    /// OCW3: special mask mode.
    pub special_mask: bool,
    /// OCW3: the next read is a poll.
    pub poll: bool,
    /// OCW3: what reads return.
    pub read_select: ReadSelect,
}

impl ChipState {
    /// Interrupt Request Register.
    pub fn irr(&self) -> u8 {
        (self.edges & !self.elcr) | (self.lines & self.elcr)
    }

    fn set_line(&mut self, level: u8, high: bool) {
        let bit = 1 << (level & 7);
        if high && self.lines & bit == 0 {
            self.edges |= bit;
        }
        self.lines = if high { self.lines | bit } else { self.lines & !bit };
    }

    /// The level of highest priority among `bits`, and its rank: 0 is the highest.
    fn first(&self, bits: u8) -> Option<(u8, u32)> {
        let shift = u32::from(self.lowest & 7) + 1;
        let rank = bits.rotate_right(shift & 7).trailing_zeros();
        (bits != 0).then_some((((rank + shift) & 7) as u8, rank))
    }

    /// The request that INT stands for. `nested` inputs interrupt themselves (special fully nested mode).
    fn request(&self, nested: u8) -> Option<u8> {
        let (level, rank) = self.first(self.irr() & !self.imr)?;
        let mut in_service = self.isr;
        if self.special_mask {
            in_service &= !self.imr;
        }
        if self.special_fully_nested && 1 << level & nested != 0 {
            in_service &= !(1 << level);
        }
        self.first(in_service).is_none_or(|(_, busy)| rank < busy).then_some(level)
    }

    /// The acknowledge of a request.
    fn accept(&mut self, level: u8) {
        let bit = 1 << level;
        self.edges &= !bit;
        if !self.automatic_eoi {
            self.isr |= bit;
        } else if self.rotate_in_automatic_eoi {
            self.lowest = level;
        }
    }

    fn icw1(&mut self, single: bool, needs_icw4: bool) {
        *self = ChipState {
            lines: self.lines,
            elcr: self.elcr,
            vector_base: self.vector_base,
            lowest: 7,
            expect: Expect::Icw2,
            single,
            needs_icw4,
            ..ChipState::default()
        };
    }

    fn ocw2(&mut self, command: Ocw2) {
        match command {
            Ocw2::RotateInAutomaticEoi(on) => self.rotate_in_automatic_eoi = on,
            Ocw2::NonSpecificEoi { rotate } => {
                // Special mask mode protects masked levels: data sheet, End of Interrupt.
                let candidates = if self.special_mask { self.isr & !self.imr } else { self.isr };
                if let Some((level, _)) = self.first(candidates) {
                    self.end(level, rotate);
                }
            }
            Ocw2::SpecificEoi { rotate, level } => self.end(level, rotate),
            Ocw2::SetPriority { lowest } => self.lowest = lowest,
            Ocw2::NoOperation => {}
        }
    }

    fn end(&mut self, level: u8, rotate: bool) {
        self.isr &= !(1 << level);
        if rotate {
            self.lowest = level;
        }
    }

    fn write_data(&mut self, value: u8) {
        self.expect = match self.expect {
            Expect::Ocw1 => {
                self.imr = value;
                Expect::Ocw1
            }
            Expect::Icw2 => {
                self.vector_base = value & 0xf8;
                match (self.single, self.needs_icw4) {
                    (false, _) => Expect::Icw3,
                    (true, true) => Expect::Icw4,
                    (true, false) => Expect::Ocw1,
                }
            }
            Expect::Icw3 => {
                self.icw3 = value;
                if self.needs_icw4 { Expect::Icw4 } else { Expect::Ocw1 }
            }
            Expect::Icw4 => {
                self.automatic_eoi = value & 0x02 != 0;
                self.special_fully_nested = value & 0x10 != 0;
                Expect::Ocw1
            }
        };
    }
}

/// The pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PicState {
    /// IRQ0 to IRQ7.
    pub master: ChipState,
    /// IRQ8 to IRQ15.
    pub slave: ChipState,
}

impl Default for PicState {
    /// As after RSTDRV: nothing masked, fixed priorities, all edge-triggered.
    fn default() -> PicState {
        let chip = ChipState { lowest: 7, ..ChipState::default() };
        PicState { master: chip, slave: chip }
    }
}

impl PicState {
    fn chip(&mut self, chip: Chip) -> &mut ChipState {
        match chip {
            Chip::Master => &mut self.master,
            Chip::Slave => &mut self.slave,
        }
    }

    fn request(&self, chip: Chip) -> Option<u8> {
        match chip {
            Chip::Master => self.master.request(1 << CASCADE),
            Chip::Slave => self.slave.request(0),
        }
    }

    /// Carries the slave's INT to the master; the master's INT.
    fn settle(&mut self) -> bool {
        self.master.set_line(CASCADE, self.slave.request(0).is_some());
        self.request(Chip::Master).is_some()
    }

    fn acknowledge(&mut self) -> u8 {
        let Some(level) = self.request(Chip::Master) else {
            return self.master.vector_base | SPURIOUS;
        };
        self.master.accept(level);
        if level != CASCADE {
            return self.master.vector_base | level;
        }
        let Some(level) = self.slave.request(0) else {
            return self.slave.vector_base | SPURIOUS;
        };
        self.slave.accept(level);
        // The slave's INT falls during the acknowledge, so that a further request of its is a new edge.
        self.master.set_line(CASCADE, false);
        self.slave.vector_base | level
    }

    /// The read that follows OCW3's poll command: it acknowledges as INTA does.
    fn poll(&mut self, chip: Chip) -> u8 {
        let request = self.request(chip);
        let state = self.chip(chip);
        state.poll = false;
        let Some(level) = request else { return 0 };
        state.accept(level);
        if chip == Chip::Slave {
            self.master.set_line(CASCADE, false);
            self.master.edges &= !(1 << CASCADE);
        }
        0x80 | level
    }

    fn read(&mut self, register: Register) -> u8 {
        match register {
            Register::Command(chip) | Register::Data(chip) if self.chip(chip).poll => self.poll(chip),
            Register::Command(chip) => match self.chip(chip).read_select {
                ReadSelect::Irr => self.chip(chip).irr(),
                ReadSelect::Isr => self.chip(chip).isr,
            },
            Register::Data(chip) => self.chip(chip).imr,
            Register::EdgeLevel(chip) => self.chip(chip).elcr,
        }
    }

    fn write(&mut self, register: Register, value: u8) {
        match register {
            Register::Command(chip) => {
                let state = self.chip(chip);
                match Command::decode(value) {
                    Command::Icw1 { single, needs_icw4 } => state.icw1(single, needs_icw4),
                    Command::Ocw2(command) => state.ocw2(command),
                    Command::Ocw3 { special_mask, poll, read } => {
                        state.special_mask = special_mask.unwrap_or(state.special_mask);
                        state.poll = poll;
                        state.read_select = read.unwrap_or(state.read_select);
                    }
                }
            }
            Register::Data(chip) => self.chip(chip).write_data(value),
            Register::EdgeLevel(chip) => {
                let writable = ELCR_WRITABLE[usize::from(chip == Chip::Slave)];
                self.chip(chip).elcr = value & writable;
            }
        }
    }
}

/// The pair as interrupt lines and the vCPU see it: inputs 0 to 15 are IRQ0 to IRQ15, of which 2 does not exist.
pub struct PicPair {
    inner: Mutex<Inner>,
}

struct Inner {
    state: PicState,
    intr: IrqLine,
    /// How often each input has risen. Not guest-visible.
    raised: [u64; 16],
}

impl Inner {
    /// INTR is driven under the lock, so that its changes arrive in order. Its receiver must not call back.
    fn settle(&mut self) {
        let high = self.state.settle();
        self.intr.set(high);
    }
}

impl PicPair {
    /// The registers, for monitors.
    pub fn inspect(&self) -> PicState {
        self.lock().state
    }

    /// How often IRQ0 to IRQ15 have risen, for monitors.
    pub fn raised(&self) -> [u64; 16] {
        self.lock().raised
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl IrqInput for PicPair {
    fn set_level(&self, pin: u32, high: bool) {
        let mut inner = self.lock();
        let level = (pin & 7) as u8;
        match pin {
            0..8 if level != CASCADE => inner.state.master.set_line(level, high),
            8..16 => inner.state.slave.set_line(level, high),
            _ => return,
        }
        inner.raised[pin as usize] += u64::from(high);
        inner.settle();
    }
}

impl InterruptSource for PicPair {
    /// The vector; a spurious one if the request is gone. (INTA cycles cannot be refused, so never `None`.)
    fn acknowledge(&self) -> Option<u8> {
        let mut inner = self.lock();
        let vector = inner.state.acknowledge();
        inner.settle();
        Some(vector)
    }
}

/// The pair as a device.
pub struct Pic {
    pair: Arc<PicPair>,
}

impl Pic {
    /// A pair whose master drives `intr`.
    pub fn new(intr: IrqLine) -> Pic {
        Pic {
            pair: Arc::new(PicPair { inner: Mutex::new(Inner { state: PicState::default(), intr, raised: [0; 16] }) }),
        }
    }

    /// The interrupt inputs, and the acknowledge cycle.
    pub fn pair(&self) -> Arc<PicPair> {
        self.pair.clone()
    }
}

impl Device for Pic {
    const ID: &'static str = "pic";
    type State = PicState;
    const PORTS: &'static [Region] = &[ports(0x20, 2), ports(0xa0, 2), ports(0x4d0, 2)];
    const WIDEST_ACCESS: u8 = 1;

    fn read(&mut self, _cx: &mut DeviceContext, access: Access) -> u64 {
        let mut inner = self.pair.lock();
        let value = inner.state.read(Register::decode(access));
        inner.settle();
        u64::from(value)
    }

    fn write(&mut self, _cx: &mut DeviceContext, access: Access, value: u64) {
        let mut inner = self.pair.lock();
        inner.state.write(Register::decode(access), value as u8);
        inner.settle();
    }

    /// Both kinds are RSTDRV; the lines keep the levels that devices drive.
    fn reset(&mut self, _cx: &mut DeviceContext, _kind: ResetKind) {
        let mut inner = self.pair.lock();
        let (master, slave) = (inner.state.master.lines & !(1 << CASCADE), inner.state.slave.lines);
        inner.state = PicState::default();
        inner.state.master.lines = master;
        inner.state.slave.lines = slave;
        inner.settle();
    }

    fn state(&self) -> PicState {
        self.pair.lock().state
    }

    fn set_state(&mut self, state: PicState) {
        self.pair.lock().state = state;
    }

    fn restored(&mut self, _cx: &mut DeviceContext) {
        self.pair.lock().settle();
    }
}

#[cfg(test)]
mod tests;
